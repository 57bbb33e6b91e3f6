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
    [SCAN_AVX512_BF16] = KERNEL(avx512_bf16),
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
    const int avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
    if (isa == SCAN_AVX512) return avx512;
#if defined(__clang__) || __GNUC__ >= 10 /* older ones do not know the name */
    if (isa == SCAN_AVX512_BF16)
        return avx512 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512bf16");
#endif
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

/*
 * A scan as passes over items. Items of a pass may run at once; a pass begins when the one before it has ended. The
 * first pass, over all segments but one, is empty where there is one segment.
 */
typedef struct {
    const Kernel *kernel;
    const ScanProblem *problem;
    const ScanOutputs *outputs;     /* of the forward pass, or NULL */
    const ScanGradients *gradients; /* of the backward pass, or NULL */
    int64_t parts, segments;
    int64_t at_once;                /* directions that run at once */
    int64_t together;               /* directions of a pass */
} Work;

static Work work_of(const Kernel *kernel, const ScanProblem *p, const ScanOutputs *out, const ScanGradients *grad) {
    Work w = {kernel, p, out, grad, out ? out->parts : 1, out ? out->segments : grad->segments, p->directions, 0};
    if (p->overlap) w.at_once = out ? 1 : grad->copies;
    /* A thread alone with its channels need not wait for the others between two directions. */
    w.together = w.segments > 1 ? w.at_once : p->directions;
    return w;
}

static int64_t count_passes(const Work *w) { return 1 + w->problem->directions / w->together; }

static int64_t count_items(const Work *w, int64_t pass) {
    const ScanProblem *p = w->problem;
    const int64_t each = pass ? w->at_once * w->segments : p->directions * (w->segments - 1);
    return p->batch * p->groups * w->parts * each;
}

/* The item at an index, for work in which `directions` directions from `first` on run at once. */
static ScanItem item_at(int64_t index, const Work *w, int64_t segments, int64_t first, int64_t directions) {
    ScanItem item = {0};
    item.part = index % w->parts;
    item.segment = (index /= w->parts) % segments;
    item.direction = first + (index /= segments) % directions;
    item.group = (index /= directions) % w->problem->groups;
    item.batch = index / w->problem->groups;
    item.turn = first / directions;
    return item;
}

static int run_kernel(const Work *w, const ScanItem *item) {
    return w->outputs ? w->kernel->forward(w->problem, w->outputs, item)
                      : w->kernel->backward(w->problem, w->gradients, item);
}

/* Returns whether memory ran out. */
static int run_item(const Work *w, int64_t pass, int64_t index) {
    if (pass == 0) {
        ScanItem item = item_at(index, w, w->segments - 1, 0, w->problem->directions);
        item.ends_only = 1;
        item.segment += w->gradients != NULL; /* no segment waits for the first one of the backward pass */
        return run_kernel(w, &item);
    }
    const int64_t first = (pass - 1) * w->together;
    int failed = 0;
    for (int64_t turn = first; turn < first + w->together; turn += w->at_once) {
        const ScanItem item = item_at(index, w, w->segments, turn, w->at_once);
        failed |= run_kernel(w, &item);
    }
    return failed;
}

static int64_t run(const Work *w, int64_t threads) {
    int failed = 0;
    (void)threads;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        const unsigned mode = flush_denormals();
        for (int64_t pass = 0; pass < count_passes(w); pass++) {
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < count_items(w, pass); i++) failed |= run_item(w, pass, i);
        }
        restore_denormals(mode);
    }
    return failed;
}

int64_t scan_forward(const ScanProblem *p, const ScanOutputs *out, int64_t isa, int64_t threads) {
    const Work work = work_of(&kernels[isa], p, out, NULL);
    return run(&work, threads);
}

int64_t scan_backward(const ScanProblem *p, const ScanGradients *grad, int64_t isa, int64_t threads) {
    const Work work = work_of(&kernels[isa], p, NULL, grad);
    return run(&work, threads);
}

typedef struct {
    Work work;
    int64_t pass;
    int failed;
} Pass;

static void run_pooled(void *pass, int64_t index) {
    Pass *now = pass;
    const unsigned mode = flush_denormals();
    if (run_item(&now->work, now->pass, index)) __atomic_store_n(&now->failed, 1, __ATOMIC_RELAXED);
    restore_denormals(mode);
}

int64_t scan_forward_on(const ScanProblem *p, const ScanOutputs *out, int64_t isa, const ScanPool *pool) {
    Pass now = {work_of(&kernels[isa], p, out, NULL), 0, 0};
    for (; now.pass < count_passes(&now.work); now.pass++) {
        const int64_t items = count_items(&now.work, now.pass);
        if (items && pool->spread(pool->pool, items, run_pooled, &now)) return 1;
    }
    return now.failed;
}
