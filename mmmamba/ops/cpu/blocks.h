/*
 * The interface between Python (blocks.py mirrors these structures) and the kernels of the blocks around the scan:
 * inference only, plain C. A map is channels-last and dense: `pixels` rows of `channels` floats.
 */
#ifndef MMMAMBA_BLOCKS_H
#define MMMAMBA_BLOCKS_H

#include <stdint.h>

#include "scan.h"

/* Raised with every change of a structure or function below; blocks.py refuses a library of another version. */
#define BLOCKS_ABI 1

enum { ACTIVATION_NONE, ACTIVATION_GELU, ACTIVATION_SILU, ACTIVATION_RELU };

/*
 * output = activation(weight · (norm(input) * gelu(gate)) + bias) + residual, for each pixel. The channels of the output
 * are those of `parts` maps, which lie one after the other.
 */
typedef struct {
    int64_t pixels, inputs, parts, outputs; /* inputs and outputs (of a part) are channels */
    int64_t activation;
    const float *input;              /* (pixels, inputs) */
    const float *weight;             /* (parts, outputs, inputs) */
    const float *bias;               /* (parts, outputs), or NULL */
    const float *norm_weight;        /* (inputs), or NULL for no layer norm */
    const float *norm_bias;          /* (inputs), with norm_weight */
    const float *gate;               /* (pixels, inputs), or NULL */
    const float *residual;           /* (parts, pixels, outputs), or NULL */
    float *output;                   /* (parts, pixels, outputs) */
    float epsilon;                   /* of the layer norm */
} Pointwise;

/* output = activation(conv(input) + input where skip) * gate, a depthwise 3x3 convolution with 'same' padding. */
typedef struct {
    int64_t batch, height, width, channels;
    int64_t skip, activation;
    const float *input;              /* (batch, height, width, channels), as are gate and output */
    const float *weight;             /* (channels, 9) */
    const float *bias;               /* (channels), or NULL */
    const float *gate;               /* or NULL */
    float *output;
} Depthwise;

SCAN_EXPORT int64_t blocks_abi(void);
/* Both return 0, or 1 if memory ran out. */
SCAN_EXPORT int64_t blocks_pointwise(const Pointwise *problem, int64_t isa, int64_t threads);
SCAN_EXPORT int64_t blocks_depthwise(const Depthwise *problem, int64_t isa, int64_t threads);

/*
 * What pointwise.c and depthwise.c provide, once for each instruction set. Weights are packed first, in
 * pointwise_panels() parts, each for itself, into pointwise_packed() floats; then each block of pixels is for itself.
 */
typedef struct {
    int64_t (*panels)(const Pointwise *);
    int64_t (*packed)(const Pointwise *);
    int64_t (*scratch)(const Pointwise *); /* floats that a thread needs */
    int64_t (*blocks)(const Pointwise *);
    void (*pack)(const Pointwise *, float *packed, int64_t panel);
    void (*run)(const Pointwise *, const float *packed, float *scratch, int64_t block);
} PointwiseKernel;

typedef struct {
    int64_t (*packed)(const Depthwise *);
    void (*pack)(const Depthwise *, float *packed);
    void (*run)(const Depthwise *, const float *packed, int64_t row); /* of batch * height rows */
} DepthwiseKernel;

extern const PointwiseKernel pointwise_portable, pointwise_avx2, pointwise_avx512;
extern const DepthwiseKernel depthwise_portable, depthwise_avx2, depthwise_avx512;

#endif
