/*
 * Matrix products of pixels and weights with a layer norm, a gate, an activation and a residual inside. Few pixels stay
 * in cache while they are multiplied with all weights; a tile of them, TILE_ROWS pixels by TILE_COLUMNS vectors of
 * output channels, stays in registers.
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

INLINE int64_t panels_of(int64_t outputs) { return (outputs + PANEL - 1) / PANEL; }
INLINE int64_t panel_floats(int64_t inputs) { return (inputs + 1) * PANEL; }

/* A panel of weights (outputs, inputs) as its bias, then (inputs, PANEL); zeros for outputs that are not there. */
static void pack_panel(const float *weight, const float *bias, int64_t inputs, int64_t outputs, int64_t panel,
                       float *packed) {
    const int64_t first = panel * PANEL, count = at_most(PANEL, outputs - first);
    const float *from = weight + first * inputs;
    float *to = packed + panel * panel_floats(inputs);
    for (int64_t o = 0; o < PANEL; o++) *to++ = bias && o < count ? bias[first + o] : 0;
    for (int64_t i = 0; i < inputs; i++, to += PANEL) {
        for (int64_t o = 0; o < count; o++) to[o] = from[o * inputs + i];
        for (int64_t o = count; o < PANEL; o++) to[o] = 0;
    }
}

/* Pixels of n channels, normalised and gated, into `to`, whose rows have room for whole vectors. */
static void prepare(const LayerNorm *norm, const float *rows, const float *gate, int64_t gate_stride,
                    int64_t gate_activation, int64_t n, int64_t count, float *to) {
    const int64_t stride = round_up(n, LANES);
    for (int64_t first = 0; first < count; first += LANES) {
        const int group = (int)at_most(LANES, count - first);
        Vec mean = splat(0), scale = splat(1);
        if (norm->weight) moments(rows + first * n, n, group, (float)norm->epsilon, &mean, &scale);
        for (int64_t i = 0; i < n; i += LANES) {
            const int lanes = (int)at_most(LANES, n - i);
            const float *from = rows + first * n + i;
            float *out = to + first * stride + i;
            if (norm->weight) {
                const Vec weight = load(norm->weight + i, lanes), bias = load(norm->bias + i, lanes);
                for (int r = 0; r < group; r++)
                    *(VecUnaligned *)(out + r * stride) =
                        (load(from + r * n, lanes) - splat(mean[r])) * splat(scale[r]) * weight + bias;
            } else {
                for (int r = 0; r < group; r++) *(VecUnaligned *)(out + r * stride) = load(from + r * n, lanes);
            }
            if (!gate) continue;
            for (int r = 0; r < group; r += GATES) { /* beyond the group, the last pixel again */
                Vec g[GATES];
                const float *at = gate + first * gate_stride + i;
                UNROLL for (int k = 0; k < GATES; k++) g[k] = load(at + at_most(r + k, group - 1) * gate_stride, lanes);
                activate(g, GATES, gate_activation);
                for (int k = 0; k < GATES && r + k < group; k++) *(VecUnaligned *)(out + (r + k) * stride) *= g[k];
            }
        }
    }
}

/* Pixels times packed weights: output = activation(weights · row + bias) + residual. */
typedef struct {
    const float *packed;
    int64_t inputs, outputs;
    const float *rows;      /* of pixels */
    int64_t stride;         /* from one to the next */
    int64_t count;
    const float *residual;  /* as output, or NULL */
    float *output;          /* (count, outputs) */
} Product;

/* `count` pixels from `first` on, times `columns` vectors of a panel. The rest of the tile repeats the last pixel. */
INLINE void multiply_tile(const Product *p, int64_t first, int count, int64_t panel, int columns, int64_t activation) {
    const int64_t output = panel * PANEL, left = p->outputs - output;
    const float *weights = p->packed + panel * panel_floats(p->inputs), *rows = p->rows + first * p->stride;
    const float *row[TILE_ROWS];
    Vec sum[TILE_ROWS][TILE_COLUMNS];
    UNROLL for (int r = 0; r < TILE_ROWS; r++) row[r] = rows + (r < count ? r : count - 1) * p->stride;
    UNROLL for (int c = 0; c < columns; c++) {
        const Vec bias = *(const VecUnaligned *)(weights + c * LANES);
        UNROLL for (int r = 0; r < TILE_ROWS; r++) sum[r][c] = bias;
    }
    for (int64_t i = 0; i < p->inputs; i++) {
        Vec w[TILE_COLUMNS];
        weights += PANEL;
        UNROLL for (int c = 0; c < columns; c++) w[c] = *(const VecUnaligned *)(weights + c * LANES);
        UNROLL for (int r = 0; r < TILE_ROWS; r++) {
            const Vec x = splat(row[r][i]);
            UNROLL for (int c = 0; c < columns; c++) sum[r][c] += x * w[c];
        }
    }
    UNROLL for (int r = 0; r < TILE_ROWS; r++) {
        if (r == count) break;
        const int64_t at = (first + r) * p->outputs + output;
        activate(sum[r], columns, activation);
        UNROLL for (int c = 0; c < columns; c++) {
            const int lanes = (int)at_most(LANES, left - c * LANES);
            Vec y = sum[r][c];
            if (p->residual) y += load(p->residual + at + c * LANES, lanes);
            store(p->output + at + c * LANES, y, lanes);
        }
    }
}

INLINE void multiply_with(const Product *p, int64_t activation) {
    for (int64_t panel = 0; panel < panels_of(p->outputs); panel++) {
        const int64_t columns = (p->outputs - panel * PANEL + LANES - 1) / LANES;
        for (int64_t first = 0; first < p->count; first += TILE_ROWS) {
            const int tile = (int)at_most(TILE_ROWS, p->count - first);
            if (columns >= 3) multiply_tile(p, first, tile, panel, 3, activation);
            else if (columns == 2) multiply_tile(p, first, tile, panel, 2, activation);
            else multiply_tile(p, first, tile, panel, 1, activation);
        }
    }
}

/* Compiled once for the usual activations each, so that a product without one is not slowed down by them. */
static void multiply(const Product *p, int64_t activation) {
    if (activation == ACTIVATION_NONE) multiply_with(p, ACTIVATION_NONE);
    else multiply_with(p, activation);
}

#endif
