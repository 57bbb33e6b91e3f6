/*
 * A row of a depthwise 3x3 convolution with an activation and a gate. Channels lie in the lanes of a vector; the nine
 * weights of as many channels stay in registers along a stretch of pixels.
 */
#ifndef MMMAMBA_STENCIL_H
#define MMMAMBA_STENCIL_H

#include "activation.h"

#define STRETCH 16
#define PIXELS 4   /* at once */
#define WEIGHTS 10 /* nine, and the bias */

/* The weights of LANES channels after the other; `channels` may be fewer than those there is room for. */
static void pack_stencil(const Stencil *stencil, int64_t channels, int64_t room, float *packed) {
    for (int64_t c = 0; c < room; c++) {
        float *to = packed + c / LANES * LANES * WEIGHTS + c % LANES;
        for (int tap = 0; tap < 9; tap++) to[tap * LANES] = c < channels ? stencil->weight[c * 9 + tap] : 0;
        if (stencil->skip) to[4 * LANES] += 1; /* the input itself is one more weight of the middle */
        to[9 * LANES] = stencil->bias && c < channels ? stencil->bias[c] : 0;
    }
}

/* One row of pixels: what is read and what is written may differ in the distance from pixel to pixel. */
typedef struct {
    const float *packed;
    int64_t width, channels;
    const float *rows[3];   /* of the input: above (or NULL), here, below (or NULL) */
    int64_t stride;         /* of rows */
    const float *gate;      /* or NULL */
    int64_t gate_stride;
    void *output;           /* may lie where the gate does, pixel by pixel */
    int64_t output_stride, type; /* of output */
} StencilRow;

/* `pixels` of them from the first on: taps outside of the map are left out. */
INLINE void convolve(const StencilRow *p, const Vec *w, int64_t first, int pixels, int64_t channel, int above, int below,
                     int left, int right, int count, int64_t activation) {
    const int64_t at = first * p->stride + channel;
    Vec sum[PIXELS];
    UNROLL for (int i = 0; i < pixels; i++) sum[i] = w[9];
    UNROLL for (int tap = 0; tap < 9; tap++) {
        const int dy = tap / 3, dx = tap % 3 - 1;
        if ((dy == 0 && !above) || (dy == 2 && !below) || (dx < 0 && !left) || (dx > 0 && !right)) continue;
        const float *from = p->rows[dy] + at + dx * p->stride;
        UNROLL for (int i = 0; i < pixels; i++) sum[i] += w[tap] * load(from + i * p->stride, count);
    }
    activate(sum, pixels, activation);
    UNROLL for (int i = 0; i < pixels; i++) {
        if (p->gate) sum[i] *= load(p->gate + (first + i) * p->gate_stride + channel, count);
        store_to(p->output, (first + i) * p->output_stride + channel, p->type, sum[i], count);
    }
}

INLINE void stretch(const StencilRow *p, int64_t first, int64_t last, int64_t channel, int count, int64_t activation) {
    const int above = p->rows[0] != 0, below = p->rows[2] != 0;
    Vec w[WEIGHTS];
    UNROLL for (int i = 0; i < WEIGHTS; i++) w[i] = *(const VecUnaligned *)(p->packed + channel * WEIGHTS + i * LANES);
    for (int64_t x = first; x < last;) {
        if (above && below && x > 0 && x + PIXELS < p->width && x + PIXELS <= last) {
            convolve(p, w, x, PIXELS, channel, 1, 1, 1, 1, count, activation);
            x += PIXELS;
        } else {
            convolve(p, w, x, 1, channel, above, below, x > 0, x + 1 < p->width, count, activation);
            x++;
        }
    }
}

INLINE void stencil_row_with(const StencilRow *p, int64_t activation) {
    for (int64_t x = 0; x < p->width; x += STRETCH) {
        const int64_t last = at_most(x + STRETCH, p->width);
        int64_t channel = 0;
        for (; channel + LANES <= p->channels; channel += LANES) stretch(p, x, last, channel, LANES, activation);
        if (channel < p->channels) stretch(p, x, last, channel, (int)(p->channels - channel), activation);
    }
}

static inline void stencil_row(const StencilRow *p, int64_t activation) {
    if (activation == ACTIVATION_GELU) stencil_row_with(p, ACTIVATION_GELU);
    else stencil_row_with(p, activation);
}

#endif
