/* Entry points of the blocks: choose the kernel of an instruction set and spread the work over threads. */
#include "blocks.h"

#include <stdlib.h>

#if defined(SCAN_WITH_X86)
#define KERNELS(name) {&name##_portable, &name##_avx2, &name##_avx512, &name##_avx512_bf16}
#else
#define KERNELS(name) {&name##_portable}
#endif

int64_t blocks_abi(void) { return BLOCKS_ABI; }

/* Room for floats, no cache line of it shared; at least one line, so that NULL always means that memory ran out. */
static float *allocate(int64_t floats) { return aligned_alloc(64, (size_t)(floats / 16 + 1) * 64); }

static int64_t spread(const BlockKernel *kernel, const void *problem, int64_t threads) {
    const int64_t packs = kernel->pack ? kernel->packs(problem) : 0, items = kernel->items(problem);
    float *packed = allocate(kernel->pack ? kernel->packed(problem) : 0);
    int failed = packed == NULL;
    (void)threads;
    if (failed) return failed;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        float *scratch = allocate(kernel->scratch(problem));
        failed |= scratch == NULL;
#pragma omp for schedule(static)
        for (int64_t pack = 0; pack < packs; pack++) kernel->pack(problem, packed, pack);
#pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < items; item++)
            if (scratch) kernel->run(problem, packed, scratch, item);
        free(scratch);
    }
    free(packed);
    return failed;
}

#define ENTRY(name, Problem)                                                                   \
    int64_t blocks_##name(const Problem *problem, int64_t isa, int64_t threads) {              \
        static const BlockKernel *const kernels[SCAN_ISAS] = KERNELS(name);                    \
        return spread(kernels[isa], problem, threads);                                         \
    }

ENTRY(pointwise, Pointwise)
ENTRY(inverted_bottleneck, InvertedBottleneck)
ENTRY(norm_gate, NormGate)
ENTRY(norm_gate_backward, NormGate)
ENTRY(gated_depthwise, GatedDepthwise)
ENTRY(gated_depthwise_backward, GatedDepthwise)
