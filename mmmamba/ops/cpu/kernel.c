/*
 * The scan for one instruction set: compiled once for each, with SCAN_ISA naming it. Channels lie in the lanes of a
 * vector and states in registers; the states of a step are worked on in slices of a constant number of them (their
 * contributions to every output just add up), so that all loops over states unroll. README.md has the equations.
 */
#include <math.h>
#include <stdlib.h>

#include "scan.h"
#include "vector.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f
#define UNROLL _Pragma("GCC unroll 16")
/* How many steps ahead the rows of a step are fetched: a column's rows lie too far apart for the hardware to foresee. */
#define AHEAD 4

int64_t JOIN(scan_lanes_, SCAN_ISA)(void) { return LANES; }

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Up to LANES channels of one head of one batch item. */
typedef struct {
    const ScanProblem *problem;
    int64_t head, first; /* first channel within the head */
    int64_t width, rows; /* floats from one pixel to the next in x and in projected */
    int64_t x, projected, row; /* offsets into x, into projected, and of the first channel in arrays by head and channel */
    int64_t padded;      /* channels of a head up to a multiple of 16 */
    int64_t chunks, states_at; /* chunks of the sequence, offset of the first one into chunk_states */
    const int32_t *order;
    int count;           /* channels in this block */
} Block;

static Block block_of(const ScanProblem *p, int64_t batch, int64_t group, int64_t direction, int64_t block) {
    const int64_t heads = p->directions * p->groups, each = p->rank + 2 * p->states;
    Block b;
    b.problem = p;
    b.head = direction * p->groups + group;
    b.first = block * LANES;
    b.count = (int)smaller(LANES, p->channels - b.first);
    b.width = p->groups * p->channels;
    b.rows = heads * each;
    b.x = batch * p->pixels * b.width + group * p->channels + b.first;
    b.projected = batch * p->pixels * b.rows + b.head * each;
    b.row = b.head * p->channels + b.first;
    b.padded = (p->channels + 15) / 16 * 16;
    b.chunks = (p->tokens + p->chunk - 1) / p->chunk;
    b.states_at = (batch * heads + b.head) * b.chunks * p->states * b.padded + b.first;
    b.order = p->order + direction * p->tokens;
    return b;
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

/* Per-channel parameters of a block. */
typedef struct {
    Vec bias, D;
    Vec *dt_weight; /* rank */
} Parameters;

static Parameters parameters_of(const Block *b, Vec *dt_weight) {
    const ScanProblem *p = b->problem;
    Parameters w = {splat(0), splat(0), dt_weight};
    if (p->bias) w.bias = load(p->bias + b->row, b->count);
    if (p->D) w.D = load(p->D + b->row, b->count);
    for (int64_t r = 0; r < p->rank; r++)
        w.dt_weight[r] = load_column(p->dt_weight + b->row * p->rank, p->rank, r, b->count);
    return w;
}

/* The step size of one step, and the derivative of softplus there. */
INLINE Vec step_size(const ScanProblem *p, const Parameters *w, const float *row, const float *delta, int count,
                     Vec *derivative) {
    Vec d = w->bias;
    if (delta) d += load(delta, count);
    for (int64_t r = 0; r < p->rank; r++) d += splat(row[r]) * w->dt_weight[r];
    if (p->softplus) return softplus_lanes(d, derivative);
    if (derivative) *derivative = splat(1.0f);
    return d;
}

/* Asks for the rows of a later step. */
INLINE void fetch(const Block *b, int64_t step, const float *x, const float *projected, const float *written,
                  int bytes) {
    const int64_t pixel = b->order[step];
    __builtin_prefetch(x + pixel * b->width);
    __builtin_prefetch(written + pixel * b->width, 1);
    const char *row = (const char *)(projected + pixel * b->rows);
    for (int i = 0; i < bytes; i += 64) __builtin_prefetch(row + i);
}

/* Forward over all steps of a block, for `slice` states from `state` on. */
INLINE void forward_slice(const Block *b, const Parameters *w, const float *blank, const ScanOutputs *out,
                          int64_t batch, int64_t state, const int slice, const int count) {
    const ScanProblem *p = b->problem;
    const int64_t states = p->states, rank = p->rank;
    const float *x = p->x + b->x, *projected = p->projected + b->projected;
    const float *delta = p->delta ? p->delta + b->x : NULL;
    float *y = out->y + b->x;
    const Vec D = state == 0 ? w->D : splat(0);
    const int bytes = (int)(4 * (rank + 2 * states));
    Vec h[16], A[16];
    for (int n = 0; n < slice; n++) {
        h[n] = splat(0);
        A[n] = load_column(p->A + b->row * states, states, state + n, count) * splat(LOG2E);
    }
    for (int64_t c = 0; c < b->chunks; c++) {
        if (out->chunk_states) {
            float *kept = out->chunk_states + b->states_at + (c * states + state) * b->padded;
            for (int n = 0; n < slice; n++) store(kept + n * b->padded, h[n], LANES);
        }
        const int64_t end = smaller(p->tokens, (c + 1) * p->chunk);
        for (int64_t t = c * p->chunk; t < end; t++) {
            fetch(b, smaller(t + AHEAD, p->tokens - 1), x, projected, y, bytes);
            const int64_t pixel = b->order[t];
            const int real = pixel < p->pixels;
            const float *row = real ? projected + pixel * b->rows : blank;
            const float *B = row + rank + state, *C = B + states;
            const Vec u = real ? load(x + pixel * b->width, count) : splat(0);
            const Vec d = step_size(p, w, row, delta ? delta + pixel * b->width : NULL, count, NULL);
            const Vec du = d * u;
            Vec sum[2] = {D * u, splat(0)};
            UNROLL for (int n = 0; n < slice; n++) {
                h[n] = exp2_lanes(d * A[n]) * h[n] + du * splat(B[n]);
                sum[n % 2] += h[n] * splat(C[n]);
            }
            if (real) store_add(y + pixel * b->width, sum[0] + sum[1], count);
        }
    }
    if (out->last_state) {
        float *last = out->last_state + (batch * p->directions * p->groups * p->channels + b->row) * states;
        for (int n = 0; n < slice; n++)
            for (int i = 0; i < count; i++) last[i * states + state + n] = h[n][i];
    }
}

#define CALL_SLICE(size, call)                                    \
    while (states - state >= size) {                              \
        if (b.count == LANES) {                                   \
            const int count = LANES, slice = size;                \
            call;                                                 \
        } else {                                                  \
            const int count = b.count, slice = size;              \
            call;                                                 \
        }                                                         \
        state += size;                                            \
    }
#define FOR_EACH_SLICE(call) \
    CALL_SLICE(16, call) CALL_SLICE(8, call) CALL_SLICE(4, call) CALL_SLICE(2, call) CALL_SLICE(1, call)

int JOIN(scan_forward_, SCAN_ISA)(const ScanProblem *p, const ScanOutputs *out, int64_t batch, int64_t group,
                                  int64_t block) {
    const int64_t states = p->states, each = p->rank + 2 * states;
    Vec *dt_weight;
    if (posix_memalign((void **)&dt_weight, 64, (size_t)p->rank * sizeof(Vec) + (size_t)each * sizeof(float) + 64))
        return 1;
    float *blank = (float *)(dt_weight + p->rank);
    memset(blank, 0, (size_t)each * sizeof(float));
    for (int64_t direction = 0; direction < p->directions; direction++) {
        const Block b = block_of(p, batch, group, direction, block);
        const Parameters w = parameters_of(&b, dt_weight);
        int64_t state = 0;
        FOR_EACH_SLICE(forward_slice(&b, &w, blank, out, batch, state, slice, count))
    }
    free(dt_weight);
    return 0;
}

/* What the backward pass of one chunk works in: states and decays fit the second-level cache. */
typedef struct {
    Vec *states;   /* (chunk + 1, 16): before each step, and after the last */
    Vec *decays;   /* (chunk, 16) */
    Vec *delta, *derivative; /* (chunk) */
    Vec *lanes;    /* per state and rank, what is still to be summed over the lanes; a multiple of LANES */
    Vec *grad_dt_weight; /* rank */
    Vec *dt_weight; /* rank */
    float *sums;   /* as many as lanes */
    float *blank;  /* rank + 2 * states zeros */
} Workspace;

static int allocate(Workspace *s, const ScanProblem *p) {
    const size_t chunk = (size_t)p->chunk, rank = (size_t)p->rank, each = (size_t)(p->rank + 2 * p->states);
    const size_t lanes = (rank + 32 + LANES - 1) / LANES * LANES;
    const size_t vectors = (chunk + 1) * 16 + chunk * 16 + 2 * chunk + lanes + 2 * rank;
    if (posix_memalign((void **)&s->states, 64, vectors * sizeof(Vec) + (lanes + each) * sizeof(float))) return 1;
    s->decays = s->states + (chunk + 1) * 16;
    s->delta = s->decays + chunk * 16;
    s->derivative = s->delta + chunk;
    s->lanes = s->derivative + chunk;
    s->grad_dt_weight = s->lanes + lanes;
    s->dt_weight = s->grad_dt_weight + rank;
    s->sums = (float *)(s->dt_weight + rank);
    s->blank = s->sums + lanes;
    memset(s->blank, 0, each * sizeof(float));
    return 0;
}

/* Backward over all steps of a block, for `slice` states from `state` on. */
INLINE void backward_slice(const Block *b, const Parameters *w, const Workspace *s, const ScanGradients *grad,
                           int64_t batch, int64_t split, int64_t state, const int slice, const int count) {
    const ScanProblem *p = b->problem;
    const int64_t states = p->states, rank = p->rank;
    const int64_t per_channel = batch * p->directions * p->groups * p->channels + b->row;
    const float *x = p->x + b->x, *projected = p->projected + b->projected, *grad_y = grad->y + b->x;
    const float *delta = p->delta ? p->delta + b->x : NULL;
    float *grad_x = grad->x + b->x;
    float *grad_delta = p->delta ? grad->delta + b->x : NULL;
    float *grad_projected = grad->projected + split * p->batch * p->pixels * b->rows + b->projected;
    const Vec D = state == 0 ? w->D : splat(0);
    const int bytes = (int)(4 * (rank + 2 * states));
    const int64_t lanes = 2 * slice + rank;
    Vec A[16], carry[16], grad_A[16], grad_bias = splat(0), grad_D = splat(0);
    for (int n = 0; n < slice; n++) {
        A[n] = load_column(p->A + b->row * states, states, state + n, count) * splat(LOG2E);
        grad_A[n] = carry[n] = splat(0);
        if (grad->last_state) carry[n] = load_column(grad->last_state + per_channel * states, states, state + n, count);
    }
    for (int64_t r = 0; r < rank; r++) s->grad_dt_weight[r] = splat(0);
    for (int64_t i = 0; i < LANES; i++) s->lanes[(lanes - 1) / LANES * LANES + i] = splat(0);

    for (int64_t c = b->chunks - 1; c >= 0; c--) {
        const int64_t begin = c * p->chunk, end = smaller(p->tokens, begin + p->chunk);
        /* Forward again, keeping the states and decays of this chunk. */
        Vec h[16];
        const float *kept = grad->chunk_states + b->states_at + (c * states + state) * b->padded;
        for (int n = 0; n < slice; n++) s->states[n] = h[n] = load(kept + n * b->padded, LANES);
        for (int64_t t = begin; t < end; t++) {
            const int64_t i = t - begin;
            fetch(b, smaller(t + AHEAD, p->tokens - 1), x, projected, grad_x, bytes);
            const int64_t pixel = b->order[t];
            const int real = pixel < p->pixels;
            const float *row = real ? projected + pixel * b->rows : s->blank;
            const float *B = row + rank + state;
            const Vec u = real ? load(x + pixel * b->width, count) : splat(0);
            const Vec d = step_size(p, w, row, delta ? delta + pixel * b->width : NULL, count, s->derivative + i);
            const Vec du = d * u;
            s->delta[i] = d;
            UNROLL for (int n = 0; n < slice; n++) {
                const Vec a = exp2_lanes(d * A[n]);
                h[n] = a * h[n] + du * splat(B[n]);
                s->decays[i * slice + n] = a;
                s->states[(i + 1) * slice + n] = h[n];
            }
        }
        /* Backward; carry is the gradient of the state before step t + 1, by way of all later outputs. */
        for (int64_t t = end - 1; t >= begin; t--) {
            const int64_t i = t - begin, pixel = b->order[t];
            const int64_t earlier = b->order[t > AHEAD ? t - AHEAD : 0];
            __builtin_prefetch(grad_y + earlier * b->width);
            const int real = pixel < p->pixels;
            const float *row = real ? projected + pixel * b->rows : s->blank;
            const float *B = row + rank + state, *C = B + states;
            const Vec u = real ? load(x + pixel * b->width, count) : splat(0);
            const Vec gy = real ? load(grad_y + pixel * b->width, count) : splat(0);
            const Vec d = s->delta[i], du = d * u;
            const Vec *a = s->decays + i * slice, *before = s->states + i * slice, *after = before + slice;
            Vec through_input = splat(0), through_decay = splat(0);
            UNROLL for (int n = 0; n < slice; n++) {
                const Vec gh = carry[n] + gy * splat(C[n]);
                s->lanes[n] = gh * du;
                s->lanes[slice + n] = gy * after[n];
                through_input += gh * splat(B[n]);
                carry[n] = gh * a[n];
                const Vec exponent = carry[n] * before[n];
                through_decay += exponent * A[n];
                grad_A[n] += exponent * d;
            }
            const Vec gd = (through_decay * splat(LN2) + through_input * u) * s->derivative[i];
            grad_bias += gd;
            grad_D += gy * u;
            for (int64_t r = 0; r < rank; r++) {
                s->lanes[2 * slice + r] = gd * w->dt_weight[r];
                s->grad_dt_weight[r] += gd * splat(row[r]);
            }
            if (!real) continue;
            store_add(grad_x + pixel * b->width, through_input * d + D * gy, count);
            if (grad_delta) store_add(grad_delta + pixel * b->width, gd, count);
            for (int64_t v = 0; v < lanes; v += LANES) store(s->sums + v, sum_each(s->lanes + v), LANES);
            float *grad_row = grad_projected + pixel * b->rows;
            for (int n = 0; n < slice; n++) grad_row[rank + state + n] += s->sums[n];
            for (int n = 0; n < slice; n++) grad_row[rank + states + state + n] += s->sums[slice + n];
            for (int64_t r = 0; r < rank; r++) grad_row[r] += s->sums[2 * slice + r];
        }
    }
    for (int n = 0; n < slice; n++) add_column(grad->A + per_channel * states, states, state + n, grad_A[n], count);
    for (int64_t r = 0; r < rank; r++)
        add_column(grad->dt_weight + per_channel * rank, rank, r, s->grad_dt_weight[r], count);
    store_add(grad->bias + per_channel, grad_bias, count);
    if (state == 0) store_add(grad->D + per_channel, grad_D, count);
}

/* Every `splits`-th block of channels, from `split` on. */
int JOIN(scan_backward_, SCAN_ISA)(const ScanProblem *p, const ScanGradients *grad, int64_t batch, int64_t group,
                                   int64_t split) {
    const int64_t states = p->states;
    Workspace s;
    if (allocate(&s, p)) return 1;
    for (int64_t block = split; block * LANES < p->channels; block += grad->splits) {
        for (int64_t direction = 0; direction < p->directions; direction++) {
            const Block b = block_of(p, batch, group, direction, block);
            const Parameters w = parameters_of(&b, s.dt_weight);
            int64_t state = 0;
            FOR_EACH_SLICE(backward_slice(&b, &w, &s, grad, batch, split, state, slice, count))
        }
    }
    free(s.states);
    return 0;
}
