/*
 * The 1x1 convolution of a channels-last map: a matrix product with a layer norm, a gate, an activation and a residual
 * inside, for one instruction set. A block of pixels stays in cache while it is normalised and multiplied with all
 * weights; a tile of it, TILE_ROWS pixels by TILE_COLUMNS vectors of output channels, stays in registers.
 */
#include "blocks.h"
#include "activation.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#if LANES == 16
#define TILE_ROWS 8
#else
#define TILE_ROWS 4
#endif
#define TILE_COLUMNS 3
#define PANEL (TILE_COLUMNS * LANES) /* output channels whose weights are packed together */
#define BLOCK_ROWS 32                /* pixels of a block */
#define UNROLL _Pragma("GCC unroll 16")

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

static int64_t part_panels(const Pointwise *p) { return (p->outputs + PANEL - 1) / PANEL; }
static int64_t panels(const Pointwise *p) { return p->parts * part_panels(p); }
static int64_t packed(const Pointwise *p) { return panels(p) * PANEL * p->inputs; }
static int64_t scratch(const Pointwise *p) {
    return p->norm_weight || p->gate ? BLOCK_ROWS * round_up(p->inputs, LANES) : 0;
}
static int64_t blocks(const Pointwise *p) { return (p->pixels + BLOCK_ROWS - 1) / BLOCK_ROWS; }

/* A panel of the weights as (inputs, PANEL), with zeros for the outputs that are not there. */
static void pack(const Pointwise *p, float *packed, int64_t panel) {
    const int64_t first = panel % part_panels(p) * PANEL, count = smaller(PANEL, p->outputs - first);
    const float *from = p->weight + (panel / part_panels(p) * p->outputs + first) * p->inputs;
    float *to = packed + panel * PANEL * p->inputs;
    for (int64_t i = 0; i < p->inputs; i++) {
        for (int64_t o = 0; o < count; o++) to[i * PANEL + o] = from[o * p->inputs + i];
        for (int64_t o = count; o < PANEL; o++) to[i * PANEL + o] = 0;
    }
}

/* Mean and 1 / deviation of up to LANES pixels, in the lanes of the two vectors. */
INLINE void moments(const Pointwise *p, const float *rows, int count, Vec *mean, Vec *scale) {
    const int64_t n = p->inputs;
    const Vec over = splat(1.0f / (float)n);
    Vec parts[LANES];
    for (int r = 0; r < LANES; r++) {
        parts[r] = splat(0);
        for (int64_t i = 0; r < count && i < n; i += LANES) parts[r] += load(rows + r * n + i, (int)smaller(LANES, n - i));
    }
    *mean = sum_each(parts) * over;
    for (int r = 0; r < count; r++) {
        const Vec centre = splat((*mean)[r]);
        parts[r] = splat(0);
        for (int64_t i = 0; i < n; i += LANES) {
            const int lanes = (int)smaller(LANES, n - i);
            const Vec centred = load(rows + r * n + i, lanes) - load((const float *)&centre, lanes); /* zero behind */
            parts[r] += centred * centred;
        }
    }
    *scale = sum_each(parts) * over + splat(p->epsilon);
    UNROLL for (int r = 0; r < LANES; r++) (*scale)[r] = 1.0f / __builtin_sqrtf((*scale)[r]);
}

/* Pixels normalised and gated into `to`, whose rows have room for whole vectors. */
static void prepare(const Pointwise *p, const float *rows, const float *gate, int64_t count, float *to) {
    const int64_t n = p->inputs, stride = round_up(n, LANES);
    for (int64_t first = 0; first < count; first += LANES) {
        const int group = (int)smaller(LANES, count - first);
        Vec mean, scale;
        if (p->norm_weight) moments(p, rows + first * n, group, &mean, &scale);
        for (int r = 0; r < group; r++) {
            const int64_t from = (first + r) * n;
            for (int64_t i = 0; i < n; i += LANES) {
                const int lanes = (int)smaller(LANES, n - i);
                Vec x = load(rows + from + i, lanes);
                if (p->norm_weight)
                    x = (x - splat(mean[r])) * splat(scale[r]) * load(p->norm_weight + i, lanes) +
                        load(p->norm_bias + i, lanes);
                if (gate) x *= gelu_lanes(load(gate + from + i, lanes));
                *(VecUnaligned *)(to + (first + r) * stride + i) = x;
            }
        }
    }
}

/* `count` of a tile's pixels, times `columns` vectors of a panel of weights. The rest of the tile repeats the last. */
INLINE void multiply(const Pointwise *p, const float *rows, int64_t stride, int count, const float *weights,
                     int columns, int64_t part, int64_t pixel, int64_t output, int64_t activation) {
    const int64_t left = p->outputs - output;
    const float *row[TILE_ROWS], *bias = p->bias + part * p->outputs + output;
    Vec sum[TILE_ROWS][TILE_COLUMNS];
    UNROLL for (int r = 0; r < TILE_ROWS; r++) row[r] = rows + (r < count ? r : count - 1) * stride;
    UNROLL for (int c = 0; c < columns; c++) {
        const Vec start = p->bias ? load(bias + c * LANES, (int)smaller(LANES, left - c * LANES)) : splat(0);
        UNROLL for (int r = 0; r < TILE_ROWS; r++) sum[r][c] = start;
    }
    for (int64_t i = 0; i < p->inputs; i++) {
        Vec w[TILE_COLUMNS];
        UNROLL for (int c = 0; c < columns; c++) w[c] = *(const VecUnaligned *)(weights + i * PANEL + c * LANES);
        UNROLL for (int r = 0; r < TILE_ROWS; r++) {
            const Vec x = splat(row[r][i]);
            UNROLL for (int c = 0; c < columns; c++) sum[r][c] += x * w[c];
        }
    }
    UNROLL for (int r = 0; r < TILE_ROWS; r++) {
        if (r == count) break;
        const int64_t at = (part * p->pixels + pixel + r) * p->outputs + output;
        UNROLL for (int c = 0; c < columns; c++) {
            const int lanes = (int)smaller(LANES, left - c * LANES);
            Vec y = activate(sum[r][c], activation);
            if (p->residual) y += load(p->residual + at + c * LANES, lanes);
            store(p->output + at + c * LANES, y, lanes);
        }
    }
}

/* A block times all weights; `activation` is a constant where it is inlined. */
INLINE void multiply_block(const Pointwise *p, const float *packed, const float *rows, int64_t stride, int64_t first,
                           int64_t count, int64_t activation) {
    for (int64_t panel = 0; panel < panels(p); panel++) {
        const int64_t part = panel / part_panels(p), output = panel % part_panels(p) * PANEL;
        const float *weights = packed + panel * PANEL * p->inputs;
        const int64_t columns = (p->outputs - output + LANES - 1) / LANES;
        for (int64_t r = 0; r < count; r += TILE_ROWS) {
            const int tile = (int)smaller(TILE_ROWS, count - r);
            const float *at = rows + r * stride;
            if (columns >= 3) multiply(p, at, stride, tile, weights, 3, part, first + r, output, activation);
            else if (columns == 2) multiply(p, at, stride, tile, weights, 2, part, first + r, output, activation);
            else multiply(p, at, stride, tile, weights, 1, part, first + r, output, activation);
        }
    }
}

static void run(const Pointwise *p, const float *packed, float *scratch, int64_t block) {
    const int64_t first = block * BLOCK_ROWS, count = smaller(BLOCK_ROWS, p->pixels - first);
    const float *rows = p->input + first * p->inputs;
    int64_t stride = p->inputs;
    if (p->norm_weight || p->gate) {
        stride = round_up(p->inputs, LANES);
        prepare(p, rows, p->gate ? p->gate + first * p->inputs : 0, count, scratch);
        rows = scratch;
    }
    if (p->activation == ACTIVATION_GELU) multiply_block(p, packed, rows, stride, first, count, ACTIVATION_GELU);
    else if (p->activation == ACTIVATION_SILU) multiply_block(p, packed, rows, stride, first, count, ACTIVATION_SILU);
    else multiply_block(p, packed, rows, stride, first, count, p->activation);
}

const PointwiseKernel JOIN(pointwise_, SCAN_ISA) = {panels, packed, scratch, blocks, pack, run};
