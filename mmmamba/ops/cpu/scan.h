/* The interface between Python (scan.py mirrors these structures) and the kernels: plain C, no Python.h. */
#ifndef MMMAMBA_SCAN_H
#define MMMAMBA_SCAN_H

#include <stdint.h>

/* Raised with every change of a structure or function below; native.py refuses a library of another version. */
#define SCAN_ABI 5

/* Types of elements; the two short ones are float32 everywhere but in memory, and in the products of matmul.h. */
enum { SCAN_FLOAT32, SCAN_FLOAT16, SCAN_BFLOAT16 };

/*
 * One selective scan of `channels` channels for each batch item and head, where a head is either a group of channels
 * (directions == 1) or a direction in which all channels are scanned (groups == 1); heads = directions * groups.
 * All arrays are contiguous. A pixel is a row of x; an order says which pixel a direction's step visits, each at most
 * once. Index `pixels` stands for a padded pixel: zero x and projection, no output. Chunks are runs of `chunk` steps.
 */
typedef struct {
    const int32_t *pixels;
    int64_t steps;
} ScanOrder;

typedef struct {
    int64_t batch, groups, directions, channels, states, rank, pixels, chunk;
    int64_t steps;            /* of the longest order */
    int64_t softplus;         /* whether step sizes go through softplus */
    int64_t overlap;          /* whether several directions visit the same pixels */
    int64_t covered;          /* whether every direction visits all pixels or, without overlap, all of them do */
    int64_t x_type, delta_type;
    const ScanOrder *orders;  /* (directions) */
    const void *x;            /* (batch, pixels, groups * channels) */
    const float *projected;   /* (batch, pixels, heads, rank + 2 * states): dt, B, C */
    const void *delta;        /* (batch, pixels, groups * channels), or NULL: dt_weight @ dt */
    const float *dt_weight;   /* (heads, channels, rank), or NULL with delta */
    const float *bias;        /* (heads, channels), added to the step sizes, or NULL */
    const float *A;           /* (heads, channels, states) */
    const float *D;           /* (heads, channels), or NULL */
    const float *W;           /* (heads, channels, states): weights of the states in the output, or NULL for ones */
} ScanProblem;

/*
 * Outputs of the forward pass. Channels are cut into parts and steps into segments that threads work on at once. With
 * several segments, a first pass takes each of them from a zero state to its end, which says how the others begin.
 */
typedef struct {
    void *y;                  /* as x */
    float *sum;               /* as y but float32; y itself where y is float32, or without overlap. If the pixels
                                 are not covered, the only output, added to zeros */
    float *last_state;        /* (batch, heads, channels, states), or NULL */
    float *chunk_states;      /* (batch, heads, chunks, states, channels up to a multiple of 16), or NULL */
    float *ends;              /* (batch, heads, segments, states + 1, same channels): workspace, or NULL */
    int64_t parts, segments;
} ScanOutputs;

/*
 * Outputs of the backward pass, which works in segments too. Overlapping directions take turns to add to a copy. If the
 * pixels are not covered, the gradients of pixels are added to zeros.
 */
typedef struct {
    const void *y;            /* gradient that comes in, as y */
    const float *last_state;  /* gradient that comes in, as last_state, or NULL */
    const float *chunk_states;/* what the forward pass left */
    float *ends;              /* workspace as above */
    float *x;                 /* (copies, *x.shape): parts of a sum over the copies */
    float *delta;             /* likewise, or NULL if the problem has no delta */
    float *projected;         /* as the problem's; pixels that a direction does not visit are left alone */
    float *dt_weight;         /* (batch, segments, heads, channels, rank): parts of a sum, like all below */
    float *bias;              /* (batch, segments, heads, channels) */
    float *A;                 /* (batch, segments, heads, channels, states) */
    float *D;                 /* (batch, segments, heads, channels) */
    float *W;                 /* as A, or NULL if the problem has none */
    int64_t copies, segments;
} ScanGradients;

/* Instruction sets, worst first. */
enum { SCAN_PORTABLE, SCAN_AVX2, SCAN_AVX512, SCAN_AVX512_BF16, SCAN_ISAS };

#if !defined(SCAN_EXPORT) /* as nothing, where the scan is a part of another library */
#define SCAN_EXPORT __attribute__((visibility("default")))
#endif

SCAN_EXPORT int64_t scan_abi(void);
/* Whether the library was built with OpenMP. */
SCAN_EXPORT int64_t scan_has_threads(void);
/* Whether this library and this machine have the instruction set. */
SCAN_EXPORT int64_t scan_has_isa(int64_t isa);
/* How many channels the instruction set works on at once. */
SCAN_EXPORT int64_t scan_lanes(int64_t isa);
/* Both return 0, or 1 if memory ran out. */
SCAN_EXPORT int64_t scan_forward(const ScanProblem *problem, const ScanOutputs *outputs, int64_t isa, int64_t threads);
SCAN_EXPORT int64_t scan_backward(const ScanProblem *problem, const ScanGradients *gradients, int64_t isa,
                                  int64_t threads);

/*
 * A pool of threads that is not OpenMP's: `spread` calls run(work, i) once for every i < count, in any order and on any
 * threads, and returns 0 when all calls have ended, or else says that it could not.
 */
typedef struct {
    int (*spread)(void *pool, int64_t count, void (*run)(void *work, int64_t i), void *work);
    void *pool;
} ScanPool;

/* scan_forward() on such a pool; also returns 1 if that fails. Of the libraries that are built from these files. */
int64_t scan_forward_on(const ScanProblem *problem, const ScanOutputs *outputs, int64_t isa, const ScanPool *pool);

/*
 * What one thread does at a time. `turn` counts the rounds before this one, each of as many directions as run at once;
 * `ends_only` says that this is the first pass over the segments.
 */
typedef struct {
    int64_t batch, group, direction, part, segment, turn, ends_only;
} ScanItem;

/* What kernel.c provides, once for each instruction set. */
#define SCAN_DECLARE(isa) \
    int64_t scan_lanes_##isa(void); \
    int scan_forward_##isa(const ScanProblem *, const ScanOutputs *, const ScanItem *); \
    int scan_backward_##isa(const ScanProblem *, const ScanGradients *, const ScanItem *);
SCAN_DECLARE(portable)
SCAN_DECLARE(avx2)
SCAN_DECLARE(avx512)
SCAN_DECLARE(avx512_bf16)

#endif
