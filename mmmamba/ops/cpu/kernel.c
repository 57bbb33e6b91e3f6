/*
 * The scan for one instruction set: compiled once for each, with SCAN_ISA naming it. Channels lie in the lanes of a
 * vector and states in registers; the states of a step are worked on in slices of a constant number of them (their
 * contributions to every output just add up), so that all loops over states unroll. A chunk of the sequence is gathered
 * into dense arrays, worked on slice by slice, and scattered back. ../selective_scan/README.md has the equations.
 */
#include <stdlib.h>

#include "scan.h"
#include "vector.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f
/* As many states as registers hold. */
#if LANES == 16
#define SLICE 16
#else
#define SLICE 8
#endif
#define UNROLL _Pragma("GCC unroll 16")

int64_t JOIN(scan_lanes_, SCAN_ISA)(void) { return LANES; }

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Up to LANES channels of one head of one batch item. */
typedef struct {
    const ScanProblem *problem;
    int64_t width, rows;       /* floats from one pixel to the next in x and in projected */
    int64_t x, projected, row; /* offsets: in x, in projected, and of the first channel in (heads, channels) arrays */
    int64_t padded;            /* channels of a head up to a multiple of 16 */
    int64_t chunks, states_at; /* chunks of the sequence, offset of the first one in chunk_states */
    const int32_t *order;
    int count;                 /* channels in this block */
} Block;

static Block block_of(const ScanProblem *p, int64_t batch, int64_t group, int64_t direction, int64_t block) {
    const int64_t heads = p->directions * p->groups, head = direction * p->groups + group;
    const int64_t each = p->rank + 2 * p->states, first = block * LANES;
    Block b;
    b.problem = p;
    b.count = (int)smaller(LANES, p->channels - first);
    b.width = p->groups * p->channels;
    b.rows = heads * each;
    b.x = batch * p->pixels * b.width + group * p->channels + first;
    b.projected = batch * p->pixels * b.rows + head * each;
    b.row = head * p->channels + first;
    b.padded = (p->channels + 15) / 16 * 16;
    b.chunks = (p->tokens + p->chunk - 1) / p->chunk;
    b.states_at = (batch * heads + head) * b.chunks * p->states * b.padded + first;
    b.order = p->order + direction * p->tokens;
    return b;
}

/* A block, what its channels bring along, and what they gather, over the whole sequence. */
typedef struct {
    Block block;
    Vec *bias, *D;             /* 1 */
    Vec *dt_weight;            /* rank */
    Vec *A;                    /* states, times log2 e */
    Vec *h;                    /* states: before the chunk, and after forward_slice */
    /* The backward pass only: */
    Vec *carry;                /* states: gradient of the state after a step, by way of all later steps */
    Vec *grad_bias, *grad_D, *grad_dt_weight, *grad_A; /* as above */
} Channels;

/* Dense arrays over the steps of a chunk. */
typedef struct {
    Vec *u, *delta, *input;    /* x, step size, their product */
    Vec *sum;                  /* the output */
    const float **row;         /* where dt, B and C of the step are */
    float *blank;              /* the zeros that a padded pixel reads */
    /* The backward pass only: */
    Vec *derivative;           /* of softplus */
    Vec *grad_y;
    Vec *through_input, *through_decay; /* gradients of input, and of delta by way of the decays over ln 2 */
    Vec *before;               /* (steps + 1, slice): the states before each step, and after the last */
    Vec *decay;                /* (steps, slice) */
    Vec *lanes;                /* what is still to be summed over the lanes, and room for LANES more */
} Steps;

static void *take(char **memory, size_t bytes) {
    char *taken = *memory;
    *memory += (bytes + 63) / 64 * 64;
    return taken;
}

static void lay_out_channels(Channels *w, char **memory, const ScanProblem *p, int backward) {
    const size_t states = (size_t)p->states * sizeof(Vec), rank = (size_t)p->rank * sizeof(Vec);
    w->bias = take(memory, sizeof(Vec));
    w->D = take(memory, sizeof(Vec));
    w->dt_weight = take(memory, rank);
    w->A = take(memory, states);
    w->h = take(memory, states);
    if (!backward) return;
    w->carry = take(memory, states);
    w->grad_bias = take(memory, sizeof(Vec));
    w->grad_D = take(memory, sizeof(Vec));
    w->grad_dt_weight = take(memory, rank);
    w->grad_A = take(memory, states);
}

static void lay_out_steps(Steps *s, char **memory, const ScanProblem *p, int backward) {
    const size_t steps = (size_t)p->chunk * sizeof(Vec);
    s->u = take(memory, steps);
    s->delta = take(memory, steps);
    s->input = take(memory, steps);
    s->sum = take(memory, steps);
    s->row = take(memory, (size_t)p->chunk * sizeof(float *));
    s->blank = take(memory, (size_t)(p->rank + 2 * p->states + LANES) * sizeof(float));
    if (!backward) return;
    s->derivative = take(memory, steps);
    s->grad_y = take(memory, steps);
    s->through_input = take(memory, steps);
    s->through_decay = take(memory, steps);
    s->before = take(memory, (steps + sizeof(Vec)) * SLICE);
    s->decay = take(memory, steps * SLICE);
    s->lanes = take(memory, (size_t)(p->rank + 2 * SLICE + LANES) * sizeof(Vec));
}

/* Makes room, all zero, for `blocks` blocks and the steps of a chunk. Returns what to free, or NULL. */
static void *allocate(Channels *channels, int64_t blocks, Steps *steps, const ScanProblem *p, int backward) {
    char *start = NULL;
    for (int pass = 0; pass < 2; pass++) {
        char *memory = start; /* the first pass, from address zero, only measures */
        for (int64_t i = 0; i < blocks; i++) lay_out_channels(&channels[i], &memory, p, backward);
        lay_out_steps(steps, &memory, p, backward);
        if (pass) break;
        const size_t bytes = (size_t)(uintptr_t)memory;
        if (posix_memalign((void **)&start, 64, bytes)) return NULL;
        memset(start, 0, bytes);
    }
    return start;
}

/* One column of a (channels, columns) matrix, from the block's first channel on. */
INLINE Vec load_column(const float *matrix, int64_t columns, int64_t column, int count) {
    Vec v = splat(0);
    for (int i = 0; i < count; i++) v[i] = matrix[i * columns + column];
    return v;
}

INLINE void add_column(float *matrix, int64_t columns, int64_t column, Vec v, int count) {
    for (int i = 0; i < count; i++) matrix[i * columns + column] += v[i];
}

static void load_parameters(const Channels *w) {
    const Block *b = &w->block;
    const ScanProblem *p = b->problem;
    *w->bias = p->bias ? load(p->bias + b->row, b->count) : splat(0);
    *w->D = p->D ? load(p->D + b->row, b->count) : splat(0);
    for (int64_t r = 0; r < p->rank; r++)
        w->dt_weight[r] = load_column(p->dt_weight + b->row * p->rank, p->rank, r, b->count);
    for (int64_t n = 0; n < p->states; n++)
        w->A[n] = load_column(p->A + b->row * p->states, p->states, n, b->count) * splat(LOG2E);
}

/* Gathers the steps from `begin` to `end`: x, step sizes, where their projections are, and for the backward pass dy. */
INLINE void gather(const Steps *s, const Channels *w, const float *grad_y, int64_t begin, int64_t end,
                   const int count) {
    const Block *b = &w->block;
    const ScanProblem *p = b->problem;
    for (int64_t t = begin; t < end; t++) {
        const int64_t i = t - begin, pixel = b->order[t];
        const int real = pixel < p->pixels;
        const float *row = real ? p->projected + b->projected + pixel * b->rows : s->blank;
        const Vec u = load(real ? p->x + b->x + pixel * b->width : s->blank, count);
        Vec d = *w->bias, derivative = splat(1.0f);
        if (p->delta) d += load(p->delta + b->x + pixel * b->width, count);
        for (int64_t r = 0; r < p->rank; r++) d += splat(row[r]) * w->dt_weight[r];
        if (p->softplus) d = softplus_lanes(d, grad_y ? &derivative : NULL);
        s->row[i] = row;
        s->u[i] = u;
        s->delta[i] = d;
        s->input[i] = d * u;
        if (!grad_y) {
            s->sum[i] = *w->D * u;
            continue;
        }
        s->derivative[i] = derivative;
        s->grad_y[i] = load(real ? grad_y + b->x + pixel * b->width : s->blank, count);
        s->through_input[i] = s->through_decay[i] = splat(0);
    }
}

/* Asks for what gather() will read of step t: a column's pixels lie too far apart for the hardware to foresee. */
INLINE void fetch(const Block *b, int64_t t, const float *map) {
    const ScanProblem *p = b->problem;
    const int64_t pixel = b->order[t];
    const float *row = p->projected + b->projected + pixel * b->rows;
    __builtin_prefetch(p->x + b->x + pixel * b->width);
    __builtin_prefetch(map + b->x + pixel * b->width);
    for (int64_t i = 0; i < p->rank + 2 * p->states + 15; i += 16) __builtin_prefetch(row + i);
}

/* Takes `slice` states from `state` on through the gathered steps. */
INLINE void forward_slice(const Steps *s, const Channels *w, const float *map, int64_t begin, int64_t end,
                          int64_t state, const int slice) {
    const Block *b = &w->block;
    const ScanProblem *p = b->problem;
    const int64_t B = p->rank + state, C = B + p->states;
    const Vec *A = w->A + state;
    Vec h[SLICE];
    UNROLL for (int n = 0; n < slice; n++) h[n] = w->h[state + n];
    for (int64_t i = 0; i < end - begin; i++) {
        if (state == 0) fetch(b, smaller(end + i, p->tokens - 1), map);
        const float *B_row = s->row[i] + B, *C_row = s->row[i] + C;
        const Vec d = s->delta[i], input = s->input[i];
        Vec sum = s->sum[i], odd = splat(0);
        UNROLL for (int n = 0; n < slice; n++) {
            h[n] = exp2_lanes(d * A[n]) * h[n] + input * splat(B_row[n]);
            if (n % 2) odd += h[n] * splat(C_row[n]);
            else sum += h[n] * splat(C_row[n]);
        }
        s->sum[i] = sum + odd;
    }
    UNROLL for (int n = 0; n < slice; n++) w->h[state + n] = h[n];
}

/* Runs `call` with a constant `slice` until all states are done. */
#define WHILE_STATES_LEFT(size, call)   \
    while (p->states - state >= size) { \
        const int slice = size;         \
        call;                           \
        state += size;                  \
    }
#define FOR_EACH_SLICE(call)                                                                               \
    do {                                                                                                   \
        int64_t state = 0;                                                                                 \
        BIG_SLICE(call)                                                                                    \
        WHILE_STATES_LEFT(8, call) WHILE_STATES_LEFT(4, call) WHILE_STATES_LEFT(2, call) WHILE_STATES_LEFT(1, call) \
    } while (0)
#if SLICE == 16
#define BIG_SLICE(call) WHILE_STATES_LEFT(16, call)
#else
#define BIG_SLICE(call)
#endif
/* A full block has a constant count: its loads and stores need no mask. */
#define WITH_COUNT(call)           \
    if (b->count == LANES) {       \
        const int count = LANES;   \
        call;                      \
    } else {                       \
        const int count = b->count; \
        call;                      \
    }

static void forward_chunk(const Steps *s, const Channels *w, float *y, int64_t begin, int64_t end) {
    const Block *b = &w->block;
    const ScanProblem *p = b->problem;
    WITH_COUNT(gather(s, w, NULL, begin, end, count))
    FOR_EACH_SLICE(forward_slice(s, w, y, begin, end, state, slice));
    for (int64_t t = begin; t < end; t++)
        if (b->order[t] < p->pixels) {
            float *to = y + b->x + b->order[t] * b->width;
            WITH_COUNT(store_add(to, s->sum[t - begin], count))
        }
}

int JOIN(scan_forward_, SCAN_ISA)(const ScanProblem *p, const ScanOutputs *out, int64_t batch, int64_t group,
                                  int64_t block) {
    Channels w;
    Steps s;
    void *memory = allocate(&w, 1, &s, p, 0);
    if (!memory) return 1;
    for (int64_t direction = 0; direction < p->directions; direction++) {
        const Block b = w.block = block_of(p, batch, group, direction, block);
        load_parameters(&w);
        memset(w.h, 0, (size_t)p->states * sizeof(Vec));
        for (int64_t c = 0; c < b.chunks; c++) {
            if (out->chunk_states)
                for (int64_t n = 0; n < p->states; n++)
                    store(out->chunk_states + b.states_at + (c * p->states + n) * b.padded, w.h[n], LANES);
            forward_chunk(&s, &w, out->y, c * p->chunk, smaller(p->tokens, (c + 1) * p->chunk));
        }
        if (out->last_state) {
            const int64_t at = batch * p->directions * p->groups * p->channels + b.row;
            for (int64_t n = 0; n < p->states; n++)
                for (int i = 0; i < b.count; i++) out->last_state[(at + i) * p->states + n] = w.h[n][i];
        }
    }
    free(memory);
    return 0;
}

/* Adds to each to[i] the sum over the lanes of vector first + i. */
INLINE void add_lane_sums(const Steps *s, float *to, int64_t first, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES)
        store_add(to + i, sum_each(s->lanes + first + i), (int)smaller(LANES, count - i));
}

/* Takes the gradients of `slice` states from `state` on back through the gathered steps. */
INLINE void backward_slice(const Steps *s, const Channels *w, const ScanGradients *grad, float *grad_projected,
                           int64_t begin, int64_t end, int64_t state, const int slice) {
    const Block *b = &w->block;
    const ScanProblem *p = b->problem;
    const int64_t B = p->rank + state, C = B + p->states;
    const Vec *A = w->A + state;
    Vec h[SLICE], carry[SLICE], grad_A[SLICE];
    UNROLL for (int n = 0; n < slice; n++) s->before[n] = h[n] = w->h[state + n];
    for (int64_t i = 0; i < end - begin; i++) {
        const float *B_row = s->row[i] + B;
        const Vec d = s->delta[i], input = s->input[i];
        UNROLL for (int n = 0; n < slice; n++) {
            const Vec a = exp2_lanes(d * A[n]);
            h[n] = a * h[n] + input * splat(B_row[n]);
            s->decay[i * slice + n] = a;
            s->before[(i + 1) * slice + n] = h[n];
        }
    }
    UNROLL for (int n = 0; n < slice; n++) {
        carry[n] = w->carry[state + n];
        grad_A[n] = w->grad_A[state + n];
    }
    for (int64_t i = end - begin - 1; i >= 0; i--) {
        if (state == 0 && begin > 0) {
            const int64_t t = begin - p->chunk + i;
            fetch(b, t, grad->y);
            __builtin_prefetch(grad->x + b->x + b->order[t] * b->width);
            __builtin_prefetch(grad_projected + b->order[t] * b->rows);
            __builtin_prefetch(grad_projected + b->order[t] * b->rows + 16);
        }
        const float *B_row = s->row[i] + B, *C_row = s->row[i] + C;
        const Vec d = s->delta[i], input = s->input[i], gy = s->grad_y[i];
        const Vec *a = s->decay + i * slice, *before = s->before + i * slice, *after = before + slice;
        Vec through_input = s->through_input[i], through_decay = s->through_decay[i];
        UNROLL for (int n = 0; n < slice; n++) {
            const Vec gh = carry[n] + gy * splat(C_row[n]);
            s->lanes[n] = gh * input;
            s->lanes[slice + n] = gy * after[n];
            through_input += gh * splat(B_row[n]);
            carry[n] = gh * a[n];
            const Vec exponent = carry[n] * before[n];
            through_decay += exponent * A[n];
            grad_A[n] += exponent * d;
        }
        s->through_input[i] = through_input;
        s->through_decay[i] = through_decay;
        if (b->order[begin + i] >= p->pixels) continue;
        float *grad_row = grad_projected + b->order[begin + i] * b->rows;
        add_lane_sums(s, grad_row + B, 0, slice);
        add_lane_sums(s, grad_row + C, slice, slice);
    }
    UNROLL for (int n = 0; n < slice; n++) {
        w->carry[state + n] = carry[n];
        w->grad_A[state + n] = grad_A[n];
    }
}

/* What is left once all states are done: the gradients of x and of the step sizes, and from them of dt. */
INLINE void backward_steps(const Steps *s, const Channels *w, const ScanGradients *grad, float *grad_projected,
                           int64_t begin, int64_t end, const int count) {
    const Block *b = &w->block;
    const ScanProblem *p = b->problem;
    for (int64_t t = begin; t < end; t++) {
        const int64_t i = t - begin, pixel = b->order[t];
        const Vec u = s->u[i], gy = s->grad_y[i];
        const Vec gd = (s->through_decay[i] * splat(LN2) + s->through_input[i] * u) * s->derivative[i];
        *w->grad_bias += gd;
        *w->grad_D += gy * u;
        for (int64_t r = 0; r < p->rank; r++) {
            s->lanes[r] = gd * w->dt_weight[r];
            w->grad_dt_weight[r] += gd * splat(s->row[i][r]);
        }
        if (pixel >= p->pixels) continue;
        store_add(grad->x + b->x + pixel * b->width, s->through_input[i] * s->delta[i] + *w->D * gy, count);
        if (grad->delta) store_add(grad->delta + b->x + pixel * b->width, gd, count);
        add_lane_sums(s, grad_projected + pixel * b->rows, 0, p->rank);
    }
}

static void backward_chunk(const Steps *s, const Channels *w, const ScanGradients *grad, float *grad_projected,
                           int64_t c) {
    const Block *b = &w->block;
    const ScanProblem *p = b->problem;
    const int64_t begin = c * p->chunk, end = smaller(p->tokens, begin + p->chunk);
    for (int64_t n = 0; n < p->states; n++)
        w->h[n] = load(grad->chunk_states + b->states_at + (c * p->states + n) * b->padded, LANES);
    WITH_COUNT(gather(s, w, grad->y, begin, end, count))
    FOR_EACH_SLICE(backward_slice(s, w, grad, grad_projected, begin, end, state, slice));
    WITH_COUNT(backward_steps(s, w, grad, grad_projected, begin, end, count))
}

/* Begins with the gradient of the last state (row `at` on), and with nothing gathered. */
static void begin_backward(const Channels *w, const float *grad_last_state, int64_t at) {
    const Block *b = &w->block;
    const ScanProblem *p = b->problem;
    load_parameters(w);
    *w->grad_bias = *w->grad_D = splat(0);
    memset(w->grad_dt_weight, 0, (size_t)p->rank * sizeof(Vec));
    memset(w->grad_A, 0, (size_t)p->states * sizeof(Vec));
    for (int64_t n = 0; n < p->states; n++)
        w->carry[n] =
            grad_last_state ? load_column(grad_last_state + at * p->states, p->states, n, b->count) : splat(0);
}

static void end_backward(const Channels *w, const ScanGradients *grad, int64_t at) {
    const Block *b = &w->block;
    const ScanProblem *p = b->problem;
    store_add(grad->bias + at, *w->grad_bias, b->count);
    store_add(grad->D + at, *w->grad_D, b->count);
    for (int64_t r = 0; r < p->rank; r++)
        add_column(grad->dt_weight + at * p->rank, p->rank, r, w->grad_dt_weight[r], b->count);
    for (int64_t n = 0; n < p->states; n++)
        add_column(grad->A + at * p->states, p->states, n, w->grad_A[n], b->count);
}

/* Every `splits`-th block of channels, from `split` on. */
int JOIN(scan_backward_, SCAN_ISA)(const ScanProblem *p, const ScanGradients *grad, int64_t batch, int64_t group,
                                   int64_t split) {
    const int64_t all = (p->channels + LANES - 1) / LANES, blocks = (all - split + grad->splits - 1) / grad->splits;
    if (blocks <= 0) return 0;
    Steps s;
    Channels *w = malloc((size_t)blocks * sizeof(Channels));
    void *memory = w ? allocate(w, blocks, &s, p, 1) : NULL;
    const int64_t heads = p->directions * p->groups, first_row = batch * heads * p->channels;
    float *grad_projected = grad->projected + split * p->batch * p->pixels * heads * (p->rank + 2 * p->states);
    for (int64_t direction = 0; memory && direction < p->directions; direction++) {
        for (int64_t i = 0; i < blocks; i++) {
            w[i].block = block_of(p, batch, group, direction, split + i * grad->splits);
            begin_backward(&w[i], grad->last_state, first_row + w[i].block.row);
        }
        /* All blocks share a chunk's projections and their gradients: these stay in the cache meanwhile. */
        for (int64_t c = w->block.chunks - 1; c >= 0; c--)
            for (int64_t i = 0; i < blocks; i++)
                backward_chunk(&s, &w[i], grad, grad_projected + w->block.projected, c);
        for (int64_t i = 0; i < blocks; i++) end_backward(&w[i], grad, first_row + w[i].block.row);
    }
    free(memory);
    free(w);
    return memory == NULL;
}
