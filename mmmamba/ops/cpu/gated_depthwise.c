/*
 * A depthwise 3x3 convolution, its activation and a gate, and the way back, for one instruction set. An item is a strip
 * of rows of some channels of an image. Rows are taken into float32 with a zero pixel at either end, three of them at a
 * time, so that no loop has to ask where the map ends.
 */
#include "blocks.h"
#include "stencil.h"

#define COLUMNS 4 /* vectors of channels of an item: whole cache lines of a pixel, and rows that stay in cache */

typedef struct {
    int64_t image, strip, start, end; /* the last two are the strip's rows */
    int64_t channel, columns;  /* the first channel, and vectors of them */
    int64_t lanes;             /* of the last vector */
} Item;

INLINE int64_t groups_of(const GatedDepthwise *p) { return (p->channels + COLUMNS * LANES - 1) / (COLUMNS * LANES); }

static int64_t items(const void *problem) {
    const GatedDepthwise *p = problem;
    return p->batch * p->strips * groups_of(p);
}

INLINE int64_t line_of(const GatedDepthwise *p) { return (p->width + 2) * COLUMNS * LANES; }

/* Three rows of the input, the weights, and for the way back three rows of a gradient and those of the weights. */
static int64_t scratch_floats(const void *problem) { return 6 * line_of(problem) + 2 * COLUMNS * LANES * WEIGHTS; }

static Item item_at(const GatedDepthwise *p, int64_t index) {
    const int64_t group = index % groups_of(p), strip = index / groups_of(p) % p->strips;
    const int64_t channel = group * COLUMNS * LANES, left = at_most(COLUMNS * LANES, p->channels - channel);
    const int64_t columns = (left + LANES - 1) / LANES;
    return (Item){
        .image = index / groups_of(p) / p->strips,
        .strip = strip,
        .start = p->height * strip / p->strips,
        .end = p->height * (strip + 1) / p->strips,
        .channel = channel,
        .columns = columns,
        .lanes = left - (columns - 1) * LANES,
    };
}

/* From one pixel to the next in the input, which has the gate after the channels that are convolved. */
INLINE int64_t input_stride(const GatedDepthwise *p) { return p->channels * (1 + p->gated); }

/* Where row y of the item's image begins in a map with `stride` channels, at the item's first channel. */
INLINE int64_t row_at(const GatedDepthwise *p, const Item *item, int64_t y, int64_t stride) {
    return (item->image * p->height + y) * p->width * stride + item->channel;
}

/* Asks for an element of a map. */
INLINE void fetch(const void *map, int64_t at, int64_t type) { __builtin_prefetch(element(map, at, type)); }

/*
 * Row y of the input; zeros outside of the map. Asks for what the next rows need: pixels lie too far apart, and rows are
 * too long, for the hardware to foresee.
 */
INLINE void take_row(const GatedDepthwise *p, const Item *item, int64_t y, float *to, int64_t type) {
    if (y < 0 || y >= p->height) {
        memset(to, 0, (size_t)line_of(p) * sizeof(float));
        return;
    }
    for (int64_t c = 0; c < item->columns; c++) {
        const int lanes = (int)(c + 1 < item->columns ? LANES : item->lanes);
        float *column = to + c * LANES;
        const int64_t from = row_at(p, item, y, input_stride(p)) + c * LANES;
        store(column, splat(0), LANES);
        for (int64_t x = 0; x < p->width; x++) {
            const int64_t at = from + x * input_stride(p);
            if (p->gated) fetch(p->input, at + p->channels, type);
            if (y + 1 < p->height) fetch(p->input, at + p->width * input_stride(p), type);
            store(column + (x + 1) * COLUMNS * LANES, load_from(p->input, at, type, lanes), LANES);
        }
        store(column + (p->width + 1) * COLUMNS * LANES, splat(0), LANES);
    }
}

/* Sums over the nine taps for `pixels` of them from `x` on; `step` is -1 to take the taps in reverse. */
INLINE void convolve_pixels(const float *const *rows, const Vec *weights, int64_t x, int pixels, const int step,
                            Vec *sum) {
    UNROLL for (int tap = 0; tap < 9; tap++) {
        const Vec w = weights[step > 0 ? tap : 8 - tap];
        const float *from = rows[tap / 3] + (x + tap % 3) * COLUMNS * LANES;
        UNROLL for (int i = 0; i < pixels; i++) sum[i] += w * load(from + i * COLUMNS * LANES, LANES);
    }
}

/* Runs `call` with constants for `pixels` at a time: several, then one by one; `x` is the first of them. */
#define FOR_EACH_PIXEL(width, call)                           \
    do {                                                      \
        int64_t x = 0;                                        \
        for (; x + PIXELS <= (width); x += PIXELS) {          \
            const int pixels = PIXELS;                        \
            call;                                             \
        }                                                     \
        for (; x < (width); x++) {                            \
            const int pixels = 1;                             \
            call;                                             \
        }                                                     \
    } while (0)

/* Of the pixels after `from` in the input and `to` in the output. */
INLINE void output_pixels(const GatedDepthwise *p, const float *const *rows, const Vec *weights, int64_t from,
                          int64_t to, int64_t x, const int pixels, int lanes, int64_t type, int64_t activation) {
    Vec sum[PIXELS];
    UNROLL for (int i = 0; i < pixels; i++) sum[i] = weights[9];
    convolve_pixels(rows, weights, x, pixels, 1, sum);
    activate(sum, pixels, activation);
    UNROLL for (int i = 0; i < pixels; i++) {
        if (p->gated) sum[i] *= load_from(p->input, from + (x + i) * input_stride(p) + p->channels, type, lanes);
        store_to(p->output, to + (x + i) * p->channels, type, sum[i], lanes);
    }
}

/* The gradient of the convolution's output, into `line`, and, to keep, that of the gate and the output itself. */
INLINE void grad_pixels(const GatedDepthwise *p, const float *const *rows, const Vec *weights, int64_t in, int64_t out,
                        int64_t x, const int pixels, int lanes, float *line, int keep, int64_t type,
                        int64_t activation) {
    Vec sum[PIXELS], slope[PIXELS];
    UNROLL for (int i = 0; i < pixels; i++) sum[i] = weights[9];
    convolve_pixels(rows, weights, x, pixels, 1, sum);
    activate_with_slope(sum, slope, pixels, activation);
    UNROLL for (int i = 0; i < pixels; i++) {
        const int64_t gate = in + (x + i) * input_stride(p) + p->channels;
        const Vec grad = load_from(p->grad_output, out + (x + i) * p->channels, type, lanes);
        const Vec v = p->gated ? load_from(p->input, gate, type, lanes) : splat(1);
        const Vec through = grad * slope[i] * v;
        if (p->gated && keep) store_to(p->grad_input, gate, type, grad * sum[i], lanes);
        if (p->output && keep) store_to(p->output, out + (x + i) * p->channels, type, sum[i] * v, lanes);
        store(line + (x + i + 1) * COLUMNS * LANES, through, LANES);
    }
}

INLINE void load_weights(const float *packed, int64_t column, Vec *weights) {
    UNROLL for (int i = 0; i < WEIGHTS; i++)
        weights[i] = load(packed + (column * WEIGHTS + i) * LANES, LANES);
}

/* The rows around row y, which are kept modulo three. */
INLINE void rows_around(float *const *ring, int64_t y, int64_t column, const float **rows) {
    for (int i = 0; i < 3; i++) rows[i] = ring[(y + 2 + i) % 3] + column * LANES;
}

INLINE void run_forward(const GatedDepthwise *p, const Item *item, float *scratch, int64_t type, int64_t activation) {
    const int64_t line = line_of(p);
    float *const ring[3] = {scratch, scratch + line, scratch + 2 * line}, *packed = scratch + 6 * line;
    take_row(p, item, item->start - 1, ring[(item->start + 2) % 3], type);
    take_row(p, item, item->start, ring[item->start % 3], type);
    for (int64_t y = item->start; y < item->end; y++) {
        take_row(p, item, y + 1, ring[(y + 1) % 3], type);
        for (int64_t c = 0; c < item->columns; c++) {
            const int lanes = (int)(c + 1 < item->columns ? LANES : item->lanes);
            const int64_t from = row_at(p, item, y, input_stride(p)) + c * LANES;
            const int64_t to = row_at(p, item, y, p->channels) + c * LANES;
            const float *rows[3];
            Vec weights[WEIGHTS];
            load_weights(packed, c, weights);
            rows_around(ring, y, c, rows);
            FOR_EACH_PIXEL(p->width, output_pixels(p, rows, weights, from, to, x, pixels, lanes, type, activation));
        }
    }
}

/* Adds what row y of the gradient of the convolution's output contributes to that of the weights. */
INLINE void add_grad_weights(const GatedDepthwise *p, const float *const *rows, const float *line, float *sums) {
    Vec sum[WEIGHTS];
    UNROLL for (int i = 0; i < WEIGHTS; i++) sum[i] = load(sums + i * LANES, LANES);
    for (int64_t x = 0; x < p->width; x++) {
        const Vec grad = load(line + (x + 1) * COLUMNS * LANES, LANES);
        UNROLL for (int tap = 0; tap < 9; tap++)
            sum[tap] += grad * load(rows[tap / 3] + (x + tap % 3) * COLUMNS * LANES, LANES);
        sum[9] += grad;
    }
    UNROLL for (int i = 0; i < WEIGHTS; i++) store(sums + i * LANES, sum[i], LANES);
}

INLINE void input_grad_pixels(const GatedDepthwise *p, const float *const *rows, const Vec *weights, int64_t at,
                              int64_t x, const int pixels, int lanes, int64_t type) {
    Vec sum[PIXELS];
    UNROLL for (int i = 0; i < pixels; i++) sum[i] = splat(0);
    convolve_pixels(rows, weights, x, pixels, -1, sum);
    UNROLL for (int i = 0; i < pixels; i++)
        store_to(p->grad_input, at + (x + i) * input_stride(p), type, sum[i], lanes);
}

/* A row of the gradient of the convolution's output, one beyond the strip too, then the row of the input's before it. */
INLINE void run_backward(const GatedDepthwise *p, const Item *item, float *scratch, int64_t type, int64_t activation) {
    const int64_t line = line_of(p);
    float *const ring[3] = {scratch, scratch + line, scratch + 2 * line};
    float *const grads[3] = {scratch + 3 * line, scratch + 4 * line, scratch + 5 * line};
    float *packed = scratch + 6 * line, *sums = packed + COLUMNS * LANES * WEIGHTS;
    memset(grads[0], 0, (size_t)(3 * line) * sizeof(float));
    memset(sums, 0, (size_t)(COLUMNS * LANES * WEIGHTS) * sizeof(float));
    take_row(p, item, item->start - 2, ring[(item->start + 1) % 3], type);
    take_row(p, item, item->start - 1, ring[(item->start + 2) % 3], type);
    for (int64_t y = item->start - 1; y <= item->end; y++) {
        float *grad_line = grads[(y + 3) % 3];
        const int own = y >= item->start && y < item->end;
        take_row(p, item, y + 1, ring[(y + 4) % 3], type);
        if (y < 0 || y >= p->height) memset(grad_line, 0, (size_t)line * sizeof(float));
        for (int64_t c = 0; c < item->columns; c++) {
            const int lanes = (int)(c + 1 < item->columns ? LANES : item->lanes);
            const float *rows[3];
            Vec weights[WEIGHTS];
            load_weights(packed, c, weights);
            if (y >= 0 && y < p->height) {
                const int64_t in = row_at(p, item, y, input_stride(p)) + c * LANES;
                const int64_t out = row_at(p, item, y, p->channels) + c * LANES;
                rows_around(ring, y + 3, c, rows);
                FOR_EACH_PIXEL(p->width, grad_pixels(p, rows, weights, in, out, x, pixels, lanes,
                                                     grad_line + c * LANES, own, type, activation));
                if (own) add_grad_weights(p, rows, grad_line + c * LANES, sums + c * LANES * WEIGHTS);
            }
            if (y - 1 >= item->start) {
                const int64_t at = row_at(p, item, y - 1, input_stride(p)) + c * LANES;
                rows_around(grads, y + 2, c, rows);
                FOR_EACH_PIXEL(p->width, input_grad_pixels(p, rows, weights, at, x, pixels, lanes, type));
            }
        }
    }
    float *to = p->grad_weight + (item->image * p->strips + item->strip) * p->channels * WEIGHTS;
    for (int64_t c = 0; c < item->columns; c++) {
        const int64_t lanes = c + 1 < item->columns ? LANES : item->lanes;
        for (int64_t i = 0; i < lanes; i++)
            for (int64_t tap = 0; tap < WEIGHTS; tap++)
                to[(item->channel + c * LANES + i) * WEIGHTS + tap] = sums[(c * WEIGHTS + tap) * LANES + i];
    }
}

/* The weights of the item's channels, for load_weights(). */
static void pack_weights(const GatedDepthwise *p, const Item *item, float *packed) {
    Stencil stencil = p->stencil;
    stencil.weight += item->channel * 9;
    if (stencil.bias) stencil.bias += item->channel;
    pack_stencil(&stencil, (item->columns - 1) * LANES + item->lanes, item->columns * LANES, packed);
}

#define WITH_TYPE(p, call)                           \
    do {                                             \
        if ((p)->type == SCAN_FLOAT32) {             \
            const int64_t type = SCAN_FLOAT32;       \
            WITH_ACTIVATION(p, call);                \
        } else if ((p)->type == SCAN_BFLOAT16) {     \
            const int64_t type = SCAN_BFLOAT16;      \
            WITH_ACTIVATION(p, call);                \
        } else {                                     \
            const int64_t type = (p)->type;          \
            WITH_ACTIVATION(p, call);                \
        }                                            \
    } while (0)

static void run(const void *problem, const float *packed, float *scratch, int64_t index) {
    const GatedDepthwise *p = problem;
    const Item item = item_at(p, index);
    (void)packed;
    pack_weights(p, &item, scratch + 6 * line_of(p));
    WITH_TYPE(p, run_forward(p, &item, scratch, type, activation));
}

static void run_back(const void *problem, const float *packed, float *scratch, int64_t index) {
    const GatedDepthwise *p = problem;
    const Item item = item_at(p, index);
    (void)packed;
    pack_weights(p, &item, scratch + 6 * line_of(p));
    WITH_TYPE(p, run_backward(p, &item, scratch, type, activation));
}

const BlockKernel JOIN(gated_depthwise_, SCAN_ISA) = {.items = items, .scratch = scratch_floats, .run = run};
const BlockKernel JOIN(gated_depthwise_backward_, SCAN_ISA) = {
    .items = items, .scratch = scratch_floats, .run = run_back};
