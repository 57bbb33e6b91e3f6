/* The interface between Python (native.py mirrors these structures) and the kernels: plain C, no Python.h. */
#ifndef MMMAMBA_SCAN_H
#define MMMAMBA_SCAN_H

#include <stdint.h>

/* Raised with every change of a structure or function below; native.py refuses a library of another version. */
#define SCAN_ABI 1

/*
 * One selective scan of `channels` channels for each batch item and head, where a head is either a group of channels
 * (directions == 1) or a direction in which all channels are scanned (groups == 1); heads = directions * groups.
 * All arrays are contiguous. A pixel is a row of x; order says which pixel a head's step t visits. Index `pixels`
 * stands for a padded pixel: zero x and projection, no output. Chunks are runs of `chunk` steps.
 */
typedef struct {
    int64_t batch, groups, directions, channels, states, rank, pixels, tokens, chunk;
    int64_t softplus;         /* whether step sizes go through softplus */
    const int32_t *order;     /* (directions, tokens) */
    const float *x;           /* (batch, pixels, groups * channels) */
    const float *projected;   /* (batch, pixels, heads, rank + 2 * states): dt, B, C */
    const float *delta;       /* (batch, pixels, groups * channels), or NULL: dt_weight @ dt */
    const float *dt_weight;   /* (heads, channels, rank), or NULL with delta */
    const float *bias;        /* (heads, channels), added to the step sizes, or NULL */
    const float *A;           /* (heads, channels, states) */
    const float *D;           /* (heads, channels), or NULL */
} ScanProblem;

/* Outputs of the forward pass. The arrays that are accumulated into must hold zeros on entry. */
typedef struct {
    float *y;                 /* as x; accumulated */
    float *last_state;        /* (batch, heads, channels, states), or NULL */
    float *chunk_states;      /* (batch, heads, chunks, states, channels up to a multiple of 16), or NULL */
} ScanOutputs;

/* Outputs of the backward pass. All arrays are accumulated into and must hold zeros on entry. */
typedef struct {
    const float *y;           /* gradient that comes in, as y */
    const float *last_state;  /* gradient that comes in, as last_state, or NULL */
    const float *chunk_states;/* what the forward pass left */
    float *x;
    float *projected;         /* (splits, batch, pixels, heads, rank + 2 * states): parts of a sum over splits */
    float *delta;             /* NULL if the problem has no delta */
    float *dt_weight;         /* (batch, heads, channels, rank): parts of a sum over the batch, like all below */
    float *bias;              /* (batch, heads, channels) */
    float *A;                 /* (batch, heads, channels, states) */
    float *D;                 /* (batch, heads, channels) */
    int64_t splits;           /* into how many parts of its channels a batch item is cut */
} ScanGradients;

/* Instruction sets, worst first. */
enum { SCAN_PORTABLE, SCAN_AVX2, SCAN_AVX512, SCAN_ISAS };

#if defined(_WIN32)
#define SCAN_EXPORT __declspec(dllexport)
#else
#define SCAN_EXPORT __attribute__((visibility("default")))
#endif

SCAN_EXPORT int64_t scan_abi(void);
/* Whether the library was built with OpenMP. */
SCAN_EXPORT int64_t scan_has_threads(void);
/* Whether this library and this machine have the instruction set. */
SCAN_EXPORT int64_t scan_has_isa(int64_t isa);
/* Both return 0, or 1 if memory ran out. */
SCAN_EXPORT int64_t scan_forward(const ScanProblem *problem, const ScanOutputs *outputs, int64_t isa, int64_t threads);
SCAN_EXPORT int64_t scan_backward(const ScanProblem *problem, const ScanGradients *gradients, int64_t isa,
                                  int64_t threads);

/* What kernel.c provides, once for each instruction set. */
#define SCAN_DECLARE(isa)                                                                                      \
    int64_t scan_lanes_##isa(void);                                                                            \
    int scan_forward_##isa(const ScanProblem *, const ScanOutputs *, int64_t batch, int64_t group, int64_t block); \
    int scan_backward_##isa(const ScanProblem *, const ScanGradients *, int64_t batch, int64_t group, int64_t split);
SCAN_DECLARE(portable)
SCAN_DECLARE(avx2)
SCAN_DECLARE(avx512)

#endif
