/* Entry points: choose the kernel of an instruction set and spread the work over threads. */
#include "scan.h"

#include <stddef.h>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

typedef struct {
    int64_t (*lanes)(void);
    int (*forward)(const ScanProblem *, const ScanOutputs *, int64_t, int64_t, int64_t);
    int (*backward)(const ScanProblem *, const ScanGradients *, int64_t, int64_t, int64_t);
} Kernel;

#define KERNEL(isa) {scan_lanes_##isa, scan_forward_##isa, scan_backward_##isa}
static const Kernel kernels[SCAN_ISAS] = {
    [SCAN_PORTABLE] = KERNEL(portable),
#if defined(SCAN_WITH_X86)
    [SCAN_AVX2] = KERNEL(avx2),
    [SCAN_AVX512] = KERNEL(avx512),
#endif
};

int64_t scan_abi(void) { return SCAN_ABI; }

int64_t scan_has_threads(void) {
#if defined(_OPENMP)
    return 1;
#else
    return 0;
#endif
}

int64_t scan_has_isa(int64_t isa) {
    if (isa == SCAN_PORTABLE) return 1;
#if defined(SCAN_WITH_X86)
    __builtin_cpu_init();
    if (isa == SCAN_AVX2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (isa == SCAN_AVX512) return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
#endif
    return 0;
}

/* States that decay to denormal numbers would slow every later step down: this thread takes them as zero meanwhile. */
static unsigned flush_denormals(void) {
#if defined(__SSE__)
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);
    return before;
#else
    return 0;
#endif
}

static void restore_denormals(unsigned before) {
#if defined(__SSE__)
    _mm_setcsr(before);
#else
    (void)before;
#endif
}

int64_t scan_forward(const ScanProblem *problem, const ScanOutputs *outputs, int64_t isa, int64_t threads) {
    const Kernel kernel = kernels[isa];
    const int64_t lanes = kernel.lanes(), blocks = (problem->channels + lanes - 1) / lanes;
    const int64_t per_batch = problem->groups * blocks, items = problem->batch * per_batch;
    int failed = 0;
    (void)threads;
#pragma omp parallel for schedule(dynamic) num_threads(threads) reduction(| : failed)
    for (int64_t item = 0; item < items; item++) {
        const unsigned mode = flush_denormals();
        failed |= kernel.forward(problem, outputs, item / per_batch, item % per_batch / blocks, item % blocks);
        restore_denormals(mode);
    }
    return failed;
}

int64_t scan_backward(const ScanProblem *problem, const ScanGradients *gradients, int64_t isa, int64_t threads) {
    const Kernel kernel = kernels[isa];
    const int64_t splits = gradients->splits;
    const int64_t per_batch = problem->groups * splits, items = problem->batch * per_batch;
    int failed = 0;
    (void)threads;
#pragma omp parallel for schedule(dynamic) num_threads(threads) reduction(| : failed)
    for (int64_t item = 0; item < items; item++) {
        const unsigned mode = flush_denormals();
        failed |= kernel.backward(problem, gradients, item / per_batch, item % per_batch / splits, item % splits);
        restore_denormals(mode);
    }
    return failed;
}
