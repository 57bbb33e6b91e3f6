/*
 * The depthwise 3x3 convolution of a channels-last map with an activation and a gate, for one instruction set. Channels
 * lie in the lanes of a vector; the nine weights of as many channels stay in registers along a stretch of pixels.
 */
#include "blocks.h"
#include "activation.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define STRETCH 16
#define UNROLL _Pragma("GCC unroll 9")

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Nine weights and the bias of LANES channels at a time. */
static int64_t packed(const Depthwise *p) { return (p->channels + LANES - 1) / LANES * LANES * 10; }

static void pack(const Depthwise *p, float *packed) {
    for (int64_t c = 0; c < p->channels; c++) {
        float *to = packed + c / LANES * LANES * 10 + c % LANES;
        for (int tap = 0; tap < 9; tap++) to[tap * LANES] = p->weight[c * 9 + tap];
        if (p->skip) to[4 * LANES] += 1; /* the input itself is one more weight of the middle */
        to[9 * LANES] = p->bias ? p->bias[c] : 0;
    }
}

/* One pixel: taps outside of the map are left out. */
INLINE void convolve(const Depthwise *p, const Vec *w, int64_t at, int above, int below, int left, int right,
                     int count, int64_t activation) {
    const float *x = p->input + at;
    const int64_t line = p->width * p->channels;
    Vec sum = w[9];
    UNROLL for (int tap = 0; tap < 9; tap++) {
        const int dy = tap / 3 - 1, dx = tap % 3 - 1;
        if ((dy < 0 && !above) || (dy > 0 && !below) || (dx < 0 && !left) || (dx > 0 && !right)) continue;
        sum += w[tap] * load(x + dy * line + dx * p->channels, count);
    }
    sum = activate(sum, activation);
    if (p->gate) sum *= load(p->gate + at, count);
    store(p->output + at, sum, count);
}

INLINE void stretch(const Depthwise *p, const float *packed, int64_t row, int64_t first, int64_t last, int64_t channel,
                    int count, int64_t activation) {
    const int64_t y = row % p->height;
    const int above = y > 0, below = y + 1 < p->height;
    Vec w[10];
    UNROLL for (int i = 0; i < 10; i++) w[i] = *(const VecUnaligned *)(packed + channel * 10 + i * LANES);
    for (int64_t x = first; x < last; x++) {
        const int64_t at = (row * p->width + x) * p->channels + channel;
        if (above && below && x > 0 && x + 1 < p->width) convolve(p, w, at, 1, 1, 1, 1, count, activation);
        else convolve(p, w, at, above, below, x > 0, x + 1 < p->width, count, activation);
    }
}

INLINE void run_row(const Depthwise *p, const float *packed, int64_t row, int64_t activation) {
    for (int64_t x = 0; x < p->width; x += STRETCH) {
        const int64_t last = smaller(x + STRETCH, p->width);
        int64_t channel = 0;
        for (; channel + LANES <= p->channels; channel += LANES)
            stretch(p, packed, row, x, last, channel, LANES, activation);
        if (channel < p->channels)
            stretch(p, packed, row, x, last, channel, (int)(p->channels - channel), activation);
    }
}

static void run(const Depthwise *p, const float *packed, int64_t row) {
    if (p->activation == ACTIVATION_GELU) run_row(p, packed, row, ACTIVATION_GELU);
    else run_row(p, packed, row, p->activation);
}

const DepthwiseKernel JOIN(depthwise_, SCAN_ISA) = {packed, pack, run};
