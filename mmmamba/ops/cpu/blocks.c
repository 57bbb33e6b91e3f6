/* Entry points of the blocks: choose the kernel of an instruction set and spread the work over threads. */
#include "blocks.h"

#include <stdlib.h>

#if defined(SCAN_WITH_X86)
#define KERNELS(name) {&name##_portable, &name##_avx2, &name##_avx512}
#else
#define KERNELS(name) {&name##_portable}
#endif
static const PointwiseKernel *const pointwise_kernels[SCAN_ISAS] = KERNELS(pointwise);
static const DepthwiseKernel *const depthwise_kernels[SCAN_ISAS] = KERNELS(depthwise);

int64_t blocks_abi(void) { return BLOCKS_ABI; }

/* Room for floats that no cache line is shared of; at least one, so that NULL always means that memory ran out. */
static float *allocate(int64_t floats) { return aligned_alloc(64, (size_t)(floats / 16 + 1) * 64); }

int64_t blocks_pointwise(const Pointwise *problem, int64_t isa, int64_t threads) {
    const PointwiseKernel *kernel = pointwise_kernels[isa];
    const int64_t panels = kernel->panels(problem), blocks = kernel->blocks(problem);
    float *packed = allocate(kernel->packed(problem));
    int failed = packed == NULL;
    (void)threads;
    if (failed) return 1;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        float *scratch = allocate(kernel->scratch(problem));
#pragma omp for schedule(static)
        for (int64_t panel = 0; panel < panels; panel++) kernel->pack(problem, packed, panel);
        failed |= scratch == NULL;
#pragma omp for schedule(dynamic)
        for (int64_t block = 0; block < blocks; block++)
            if (scratch) kernel->run(problem, packed, scratch, block);
        free(scratch);
    }
    free(packed);
    return failed;
}

int64_t blocks_depthwise(const Depthwise *problem, int64_t isa, int64_t threads) {
    const DepthwiseKernel *kernel = depthwise_kernels[isa];
    const int64_t rows = problem->batch * problem->height;
    float *packed = allocate(kernel->packed(problem));
    (void)threads;
    if (!packed) return 1;
    kernel->pack(problem, packed);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t row = 0; row < rows; row++) kernel->run(problem, packed, row);
    free(packed);
    return 0;
}
