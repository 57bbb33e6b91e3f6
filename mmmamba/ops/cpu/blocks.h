/*
 * The interface between Python (blocks.py mirrors these structures) and the kernels of the blocks around the scan:
 * inference only, plain C. A map is channels-last and dense, a row of channels for each pixel. There is at least one
 * pixel, one hidden channel and one output channel.
 */
#ifndef MMMAMBA_BLOCKS_H
#define MMMAMBA_BLOCKS_H

#include <stdint.h>

#include "scan.h"

/* Raised with every change of a structure or function below; blocks.py refuses a library of another version. */
#define BLOCKS_ABI 2

enum { ACTIVATION_NONE, ACTIVATION_GELU, ACTIVATION_SILU, ACTIVATION_RELU };

/* Of the channels of a pixel; no norm where weight is NULL. */
typedef struct {
    const float *weight, *bias; /* (inputs) */
    double epsilon;
} LayerNorm;

/*
 * output = activation(weight · (norm(input) * gate_activation(g)) + bias) + residual, for each pixel; g is the
 * gate, or gate_weight · gate_norm(gate) where gate_inputs is not zero.
 */
typedef struct {
    int64_t pixels, inputs, outputs, gate_inputs; /* all but the first are channels */
    int64_t activation, gate_activation;
    const float *input;       /* (pixels, inputs) */
    const float *weight;      /* (outputs, inputs) */
    const float *bias;        /* (outputs), or NULL */
    LayerNorm norm;
    const float *gate;        /* (pixels, gate_inputs or else inputs), or NULL */
    const float *gate_weight; /* (inputs, gate_inputs), or NULL */
    LayerNorm gate_norm;
    const float *residual;    /* (pixels, outputs), or NULL */
    float *output;            /* (pixels, outputs) */
} Pointwise;

/* A depthwise 3x3 convolution with 'same' padding, plus its input where skip. */
typedef struct {
    const float *weight;    /* (channels, 9) */
    const float *bias;      /* (channels), or NULL */
    int64_t skip;
} Stencil;

/*
 * x, v = split(expand · norm(input) + expand_bias); hidden = activation(stencil(x)) * v; and output is hidden, or
 * reduce · hidden + reduce_bias + residual. Without `gated` there is no v; with it there is a reduce.
 */
typedef struct {
    int64_t batch, height, width, inputs, hidden, outputs; /* the last three are channels */
    int64_t activation, gated, threads;
    const float *input;       /* (batch, height, width, inputs) */
    LayerNorm norm;
    const float *expand;      /* (1 + gated, hidden, inputs) */
    const float *expand_bias; /* (1 + gated, hidden), or NULL */
    Stencil stencil;
    const float *reduce;      /* (outputs, hidden), or NULL */
    const float *reduce_bias; /* (outputs), or NULL */
    const float *residual;    /* (batch, height, width, outputs), or NULL; with reduce */
    float *output;            /* (batch, height, width, outputs if reduce else hidden) */
} InvertedBottleneck;

SCAN_EXPORT int64_t blocks_abi(void);
/* All return 0, or 1 if memory ran out. */
SCAN_EXPORT int64_t blocks_pointwise(const Pointwise *problem, int64_t isa, int64_t threads);
SCAN_EXPORT int64_t blocks_inverted_bottleneck(const InvertedBottleneck *problem, int64_t isa, int64_t threads);

/*
 * What pointwise.c and inverted_bottleneck.c provide, once for each instruction set, for a problem of theirs. The
 * weights are packed first, in `packs` parts; then each of the `items` runs. Both are for themselves.
 */
typedef struct {
    int64_t (*packs)(const void *);
    int64_t (*packed)(const void *);  /* floats for the weights */
    int64_t (*items)(const void *);
    int64_t (*scratch)(const void *); /* floats that a thread needs while it runs items */
    void (*pack)(const void *, float *packed, int64_t pack);
    void (*run)(const void *, const float *packed, float *scratch, int64_t item);
} BlockKernel;

#define BLOCKS_DECLARE(isa) extern const BlockKernel pointwise_##isa, inverted_bottleneck_##isa;
BLOCKS_DECLARE(portable)
BLOCKS_DECLARE(avx2)
BLOCKS_DECLARE(avx512)

#endif
