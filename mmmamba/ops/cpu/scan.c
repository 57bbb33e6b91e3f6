/* Entry points: choose the kernel of an instruction set and spread the work over threads. */
#include "scan.h"

#include <stddef.h>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

typedef struct {
    int64_t (*lanes)(void);
    int (*forward)(const ScanProblem *, const ScanOutputs *, const ScanItem *);
    int (*backward)(const ScanProblem *, const ScanGradients *, const ScanItem *);
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

int64_t scan_lanes(int64_t isa) { return kernels[isa].lanes(); }

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

/* The item at an index, for work in which `directions` directions from `first` on run at once. */
static ScanItem item_at(int64_t index, const ScanProblem *p, int64_t parts, int64_t segments, int64_t first,
                        int64_t directions) {
    ScanItem item = {0};
    item.part = index % parts;
    item.segment = (index /= parts) % segments;
    item.direction = first + (index /= segments) % directions;
    item.group = (index /= directions) % p->groups;
    item.batch = index / p->groups;
    item.turn = first / directions;
    return item;
}

int64_t scan_forward(const ScanProblem *p, const ScanOutputs *out, int64_t isa, int64_t threads) {
    const Kernel kernel = kernels[isa];
    const int64_t per_direction = p->batch * p->groups * out->parts;
    const int64_t at_once = p->overlap ? 1 : p->directions, others = out->segments - 1;
    /* A thread alone with its channels need not wait for the others between two directions. */
    const int64_t together = others ? at_once : p->directions;
    int failed = 0;
    (void)threads;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        const unsigned mode = flush_denormals();
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < per_direction * p->directions * others; i++) {
            ScanItem item = item_at(i, p, out->parts, others, 0, p->directions);
            item.ends_only = 1;
            failed |= kernel.forward(p, out, &item);
        }
        for (int64_t first = 0; first < p->directions; first += together) {
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < per_direction * at_once * out->segments; i++)
                for (int64_t turn = first; turn < first + together; turn += at_once) {
                    const ScanItem item = item_at(i, p, out->parts, out->segments, turn, at_once);
                    failed |= kernel.forward(p, out, &item);
                }
        }
        restore_denormals(mode);
    }
    return failed;
}

int64_t scan_backward(const ScanProblem *p, const ScanGradients *grad, int64_t isa, int64_t threads) {
    const Kernel kernel = kernels[isa];
    const int64_t per_direction = p->batch * p->groups;
    const int64_t at_once = p->overlap ? grad->copies : p->directions, others = grad->segments - 1;
    const int64_t together = others ? at_once : p->directions; /* as above */
    int failed = 0;
    (void)threads;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        const unsigned mode = flush_denormals();
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < per_direction * p->directions * others; i++) {
            ScanItem item = item_at(i, p, 1, others, 0, p->directions);
            item.segment++; /* no segment waits for the first one here */
            item.ends_only = 1;
            failed |= kernel.backward(p, grad, &item);
        }
        for (int64_t first = 0; first < p->directions; first += together) {
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < per_direction * at_once * grad->segments; i++)
                for (int64_t turn = first; turn < first + together; turn += at_once) {
                    const ScanItem item = item_at(i, p, 1, grad->segments, turn, at_once);
                    failed |= kernel.backward(p, grad, &item);
                }
        }
        restore_denormals(mode);
    }
    return failed;
}
