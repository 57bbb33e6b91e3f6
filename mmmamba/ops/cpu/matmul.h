/*
 * Matrix products of pixels and weights with a layer norm, a gate, an activation and a residual inside. Few pixels stay
 * in cache while they are multiplied with all weights; a tile of them, TILE_ROWS pixels by TILE_COLUMNS vectors of
 * output channels, stays in registers.
 *
 * The factors of a product lie in words of 32 bits: a float each, or, where CPU and compiler have an instruction for it,
 * a pair of bfloat16 of two neighbouring inputs. Sums are float32. That instruction takes denormal numbers as zero.
 */
#ifndef MMMAMBA_MATMUL_H
#define MMMAMBA_MATMUL_H

#include "norm.h"

#if LANES == 16
#define TILE_ROWS 8
#else
#define TILE_ROWS 4
#endif
#define TILE_COLUMNS 3
#define PANEL (TILE_COLUMNS * LANES) /* output channels whose weights are packed together */

typedef float Word __attribute__((aligned(2), may_alias)); /* pairs may begin at any bfloat16 */

/* Whether factors of a type are multiplied as pairs. */
INLINE int in_pairs(int64_t type) {
#if defined(HAS_BFLOAT16)
    return type == SCAN_BFLOAT16;
#else
    (void)type;
    return 0;
#endif
}

INLINE Vec multiply_add(Vec x, Vec w, Vec sum, const int pairs) {
#if defined(HAS_BFLOAT16)
    if (pairs) return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)w);
#endif
    (void)pairs;
    return x * w + sum;
}

INLINE int64_t words_of(int64_t inputs, int pairs) { return pairs ? (inputs + 1) / 2 : inputs; }
/* From a prepared pixel to the next, in words: room for whole vectors of floats. */
INLINE int64_t row_words(int64_t inputs, int pairs) { return round_up(words_of(inputs, pairs), LANES); }
/* The type of a prepared pixel's elements. */
INLINE int64_t row_type(int pairs) { return pairs ? SCAN_BFLOAT16 : SCAN_FLOAT32; }

INLINE int64_t panels_of(int64_t outputs) { return (outputs + PANEL - 1) / PANEL; }
INLINE int64_t panel_words(int64_t inputs, int pairs) { return (words_of(inputs, pairs) + 1) * PANEL; }

/* Words from word i on of a row of `inputs` weights that begins at `at`; zeros behind its end. */
INLINE Vec load_words(const void *weight, int64_t at, int64_t i, int64_t inputs, int64_t type, int pairs) {
    if (!pairs) return load_from(weight, at + i, type, (int)at_most(LANES, inputs - i));
    Vec words = splat(0);
    const int64_t left = (inputs - 2 * i) * (int64_t)sizeof(uint16_t);
    memcpy(&words, element(weight, at + 2 * i, type), (size_t)at_most(sizeof words, left));
    return words;
}

/* A panel of weights (outputs, inputs) as its bias, then (words, PANEL); zeros for outputs that are not there. */
static void pack_panel(const void *weight, int64_t type, const float *bias, int64_t inputs, int64_t outputs,
                       int64_t panel, float *packed) {
    const int pairs = in_pairs(type);
    const int64_t first = panel * PANEL, count = at_most(PANEL, outputs - first), words = words_of(inputs, pairs);
    float *to = packed + panel * panel_words(inputs, pairs);
    for (int64_t o = 0; o < PANEL; o++) *to++ = bias && o < count ? bias[first + o] : 0;
    for (int64_t o = 0; o < PANEL; o += LANES)
        for (int64_t i = 0; i < words; i += LANES) {
            Vec square[LANES];
            for (int64_t k = 0; k < LANES; k++)
                square[k] = o + k < count ? load_words(weight, (first + o + k) * inputs, i, inputs, type, pairs)
                                          : splat(0);
            transpose(square);
            for (int64_t k = 0; k < LANES && i + k < words; k++) store(to + (i + k) * PANEL + o, square[k], LANES);
        }
}

/* What is done to pixels of a map before they are multiplied: norm(input) * activation(gate). */
typedef struct {
    const LayerNorm *norm;
    const void *input;
    int64_t type, channels;
    const void *gate; /* or NULL */
    int64_t gate_type, gate_stride, activation;
} Preparation;

/* Floats that it needs besides. */
INLINE int64_t preparation_floats(int64_t channels) { return LANES * channels; }

/* `count` pixels from `first` on of the input, and from the first on of the gate, into rows of words. */
static void prepare(const Preparation *p, int64_t first, int64_t count, int pairs, float *room, float *to) {
    const int64_t n = p->channels, stride = row_words(n, pairs), type = row_type(pairs);
    for (int64_t done = 0; done < count; done += LANES, to += LANES * stride) {
        const int group = (int)at_most(LANES, count - done);
        const float *rows = widened(p->input, (first + done) * n, group * n, p->type, room);
        Vec mean = splat(0), scale = splat(1);
        if (p->norm->weight) moments(rows, n, group, (float)p->norm->epsilon, &mean, &scale);
        for (int64_t i = 0; i < n; i += LANES) {
            const int lanes = (int)at_most(LANES, n - i);
            const Vec weight = p->norm->weight ? load(p->norm->weight + i, lanes) : splat(1);
            const Vec bias = p->norm->weight ? load(p->norm->bias + i, lanes) : splat(0);
            for (int r = 0; r < group; r += GATES) { /* beyond the group, the last pixel again */
                Vec gate[GATES];
                UNROLL for (int k = 0; k < GATES; k++) {
                    const int64_t at = (done + at_most(r + k, group - 1)) * p->gate_stride + i;
                    gate[k] = p->gate ? load_from(p->gate, at, p->gate_type, lanes) : splat(1);
                }
                if (p->gate) activate(gate, GATES, p->activation);
                for (int k = 0; k < GATES && r + k < group; k++) {
                    Vec y = load(rows + (r + k) * n + i, lanes);
                    if (p->norm->weight) y = (y - splat(mean[r + k])) * splat(scale[r + k]) * weight + bias;
                    store_to(to + (r + k) * stride, i, type, y * gate[k], LANES);
                }
            }
        }
    }
}

/* Pixels times packed weights: output = activation(weights · row + bias) + residual. */
typedef struct {
    const float *packed;
    int64_t inputs, outputs;
    int pairs;
    const Word *rows;     /* of pixels */
    int64_t stride;       /* from one to the next, in words */
    int64_t count;
    int64_t type;         /* of residual and output */
    const void *residual; /* as output, or NULL */
    void *output;         /* (count, outputs) */
} Product;

/* What comes after the sums of a pixel and some outputs, of which there are `left` from the first one on. */
INLINE void finish_row(const Product *p, Vec *sum, int64_t at, int64_t left, int columns, int64_t type,
                       int64_t activation) {
    activate(sum, columns, activation);
    UNROLL for (int c = 0; c < columns; c++) {
        const int lanes = (int)at_most(LANES, left - c * LANES);
        Vec y = sum[c];
        if (p->residual) y += load_from(p->residual, at + c * LANES, type, lanes);
        store_to(p->output, at + c * LANES, type, y, lanes);
    }
}

/* The same for the pixels of a tile. Apart from it: inside, so much code would keep the sums out of registers. */
static __attribute__((noinline)) void finish(const Product *p, Vec (*sum)[TILE_COLUMNS], int64_t first, int count,
                                             int64_t output, int columns, int64_t activation) {
    for (int r = 0; r < count; r++) {
        const int64_t at = (first + r) * p->outputs + output, left = p->outputs - output;
        if (columns == 3) finish_row(p, sum[r], at, left, 3, p->type, activation);
        else if (columns == 2) finish_row(p, sum[r], at, left, 2, p->type, activation);
        else finish_row(p, sum[r], at, left, 1, p->type, activation);
    }
}

/* `count` pixels from `first` on, times `columns` vectors of a panel. The rest of the tile repeats the last pixel. */
INLINE void multiply_tile(const Product *p, int64_t first, int count, int64_t panel, int columns, const int pairs,
                          int64_t activation) {
    const int64_t output = panel * PANEL, left = p->outputs - output, words = words_of(p->inputs, pairs);
    const float *weights = p->packed + panel * panel_words(p->inputs, pairs);
    const Word *rows = p->rows + first * p->stride, *row[TILE_ROWS];
    Vec sum[TILE_ROWS][TILE_COLUMNS];
    UNROLL for (int r = 0; r < TILE_ROWS; r++) row[r] = rows + (r < count ? r : count - 1) * p->stride;
    UNROLL for (int c = 0; c < columns; c++) {
        const Vec bias = *(const VecUnaligned *)(weights + c * LANES);
        UNROLL for (int r = 0; r < TILE_ROWS; r++) sum[r][c] = bias;
    }
    for (int64_t i = 0; i < words; i++) {
        Vec w[TILE_COLUMNS];
        weights += PANEL;
        UNROLL for (int c = 0; c < columns; c++) w[c] = *(const VecUnaligned *)(weights + c * LANES);
        UNROLL for (int r = 0; r < TILE_ROWS; r++) {
            const Vec x = splat(row[r][i]);
            UNROLL for (int c = 0; c < columns; c++) sum[r][c] = multiply_add(x, w[c], sum[r][c], pairs);
        }
    }
    if (p->type != SCAN_FLOAT32) {
        Vec tile[TILE_ROWS][TILE_COLUMNS]; /* a copy: what lies at an address is not in registers */
        UNROLL for (int r = 0; r < TILE_ROWS; r++)
            UNROLL for (int c = 0; c < columns; c++) tile[r][c] = sum[r][c];
        finish(p, tile, first, count, output, columns, activation);
        return;
    }
    UNROLL for (int r = 0; r < TILE_ROWS; r++) {
        if (r == count) break;
        finish_row(p, sum[r], (first + r) * p->outputs + output, left, columns, SCAN_FLOAT32, activation);
    }
}

INLINE void multiply_with(const Product *p, const int pairs, int64_t activation) {
    for (int64_t panel = 0; panel < panels_of(p->outputs); panel++) {
        const int64_t columns = (p->outputs - panel * PANEL + LANES - 1) / LANES;
        for (int64_t first = 0; first < p->count; first += TILE_ROWS) {
            const int tile = (int)at_most(TILE_ROWS, p->count - first);
            if (columns >= 3) multiply_tile(p, first, tile, panel, 3, pairs, activation);
            else if (columns == 2) multiply_tile(p, first, tile, panel, 2, pairs, activation);
            else multiply_tile(p, first, tile, panel, 1, pairs, activation);
        }
    }
}

/* Compiled for both kinds of words, and once more for products without an activation, which others would slow down. */
static void multiply(const Product *p, int64_t activation) {
    if (p->pairs && activation == ACTIVATION_NONE) multiply_with(p, 1, ACTIVATION_NONE);
    else if (p->pairs) multiply_with(p, 1, activation);
    else if (activation == ACTIVATION_NONE) multiply_with(p, 0, ACTIVATION_NONE);
    else multiply_with(p, 0, activation);
}

#endif
