/*
 * The interface between Python (blocks.py mirrors these structures) and the kernels of the blocks around the scan:
 * plain C. A map is channels-last and dense, a row of channels for each pixel. There is at least one pixel, one hidden
 * channel and one output channel. Pointwise and InvertedBottleneck are whole parts of a block for inference. NormGate and
 * GatedDepthwise are what is between a block's 1x1 convolutions, with a backward pass.
 *
 * Maps and the weights of 1x1 convolutions are float32 or of a short type (`type`; those that may have another one have
 * their own), all other parameters and their gradients float32. Values in between are float32, but for the factors of
 * 1x1 convolutions: where bfloat16 can be multiplied (see matmul.h), they are rounded to it if the weights are.
 */
#ifndef MMMAMBA_BLOCKS_H
#define MMMAMBA_BLOCKS_H

#include <stdint.h>

#include "scan.h"

/* Raised with every change of a structure or function below; blocks.py refuses a library of another version. */
#define BLOCKS_ABI 4

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
    int64_t activation, gate_activation, input_type, gate_type, type;
    const void *input;       /* (pixels, inputs) */
    const void *weight;      /* (outputs, inputs) */
    const float *bias;       /* (outputs), or NULL */
    LayerNorm norm;
    const void *gate;        /* (pixels, gate_inputs or else inputs), or NULL */
    const void *gate_weight; /* (inputs, gate_inputs), or NULL */
    LayerNorm gate_norm;
    const void *residual;    /* (pixels, outputs), or NULL */
    void *output;            /* (pixels, outputs) */
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
    int64_t activation, gated, threads, input_type, type;
    const void *input;        /* (batch, height, width, inputs) */
    LayerNorm norm;
    const void *expand;       /* (1 + gated, hidden, inputs) */
    const float *expand_bias; /* (1 + gated, hidden), or NULL */
    Stencil stencil;
    const void *reduce;       /* (outputs, hidden), or NULL */
    const float *reduce_bias; /* (outputs), or NULL */
    const void *residual;     /* (batch, height, width, outputs), or NULL; with reduce */
    void *output;             /* (batch, height, width, outputs if reduce else hidden) */
} InvertedBottleneck;

/* output = norm(input) * activation(gate) for each pixel; without a gate the norm alone. */
typedef struct {
    int64_t pixels, channels, parts, activation;
    int64_t input_type, type; /* the former also of grad_input */
    const void *input;        /* (pixels, channels), as all maps */
    LayerNorm norm;
    const void *gate;         /* or NULL */
    void *output;             /* in the backward pass NULL if it is not wanted again */
    /* The backward pass only: */
    const void *grad_output;
    void *grad_input, *grad_gate; /* the latter with a gate */
    float *grad_norm;         /* (parts, 2, channels): parts of the sums for weight and bias */
} NormGate;

/* x, v = split(input); output = activation(stencil(x)) * v. Without `gated` there is no v, and x is the input. */
typedef struct {
    int64_t batch, height, width, channels, gated, strips, activation, type;
    const void *input;        /* (batch, height, width, channels or, gated, twice as many) */
    Stencil stencil;
    void *output;             /* (batch, height, width, channels); in the backward pass NULL if not wanted again */
    /* The backward pass only: */
    const void *grad_output;
    void *grad_input;
    float *grad_weight;       /* (batch, strips, channels, 10): parts of the sums for nine weights and the bias */
} GatedDepthwise;

SCAN_EXPORT int64_t blocks_abi(void);
/* All return 0, or 1 if memory ran out. */
SCAN_EXPORT int64_t blocks_pointwise(const Pointwise *problem, int64_t isa, int64_t threads);
SCAN_EXPORT int64_t blocks_inverted_bottleneck(const InvertedBottleneck *problem, int64_t isa, int64_t threads);
SCAN_EXPORT int64_t blocks_norm_gate(const NormGate *problem, int64_t isa, int64_t threads);
SCAN_EXPORT int64_t blocks_norm_gate_backward(const NormGate *problem, int64_t isa, int64_t threads);
SCAN_EXPORT int64_t blocks_gated_depthwise(const GatedDepthwise *problem, int64_t isa, int64_t threads);
SCAN_EXPORT int64_t blocks_gated_depthwise_backward(const GatedDepthwise *problem, int64_t isa, int64_t threads);

/*
 * What a block's file provides for each instruction set. If there is `pack`, the weights are packed first, in `packs`
 * parts; then each of the `items` runs. Parts, and items, do not depend on each other.
 */
typedef struct {
    int64_t (*packs)(const void *);
    int64_t (*packed)(const void *);  /* words of 32 bits for the weights */
    int64_t (*items)(const void *);
    int64_t (*scratch)(const void *); /* floats that a thread needs while it runs items */
    void (*pack)(const void *, float *packed, int64_t pack);
    void (*run)(const void *, const float *packed, float *scratch, int64_t item);
} BlockKernel;

#define BLOCKS_DECLARE(isa)                                                    \
    extern const BlockKernel pointwise_##isa, inverted_bottleneck_##isa;       \
    extern const BlockKernel norm_gate_##isa, norm_gate_backward_##isa;        \
    extern const BlockKernel gated_depthwise_##isa, gated_depthwise_backward_##isa;
BLOCKS_DECLARE(portable)
BLOCKS_DECLARE(avx2)
BLOCKS_DECLARE(avx512)
BLOCKS_DECLARE(avx512_bf16)

#endif
