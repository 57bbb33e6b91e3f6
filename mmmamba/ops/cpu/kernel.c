/*
 * The scan for one instruction set: compiled once for each, with SCAN_ISA naming it. Channels lie in the lanes of a
 * vector and states in registers; the states of a step are worked on in slices of a constant number of them (their
 * contributions to every output just add up), so that all loops over states unroll. A chunk of the sequence is gathered
 * into dense arrays, worked on slice by slice, and scattered back, one block of channels after the other, which all
 * find the chunk's projections in the cache. ../scan/README.md has the equations.
 */
#include <stdlib.h>

#include "scan.h"
#include "vector.h"

#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f
/* As many states as registers hold, in the forward pass and in the backward pass. */
#if LANES == 16
#define SLICE 16
#else
#define SLICE 8
#endif
#define HALF (LANES / 2)

int64_t JOIN(scan_lanes_, SCAN_ISA)(void) { return LANES; }

/* One head of one batch item, and its chunks that belong to an item of work. */
typedef struct {
    const ScanProblem *problem;
    int64_t width, rows;       /* elements from one pixel to the next in x and in projected */
    int64_t x, projected;      /* offsets in x and in projected */
    int64_t row;               /* offset in (heads, channels) arrays */
    int64_t padded;            /* channels of a head up to a multiple of 16 */
    int64_t index, most_chunks; /* this head among those of all batch items, and chunks of the longest order */
    int64_t first_chunk, end_chunk;
    ScanOrder order;
} Head;

static Head head_of(const ScanProblem *p, const ScanItem *item, int64_t segments) {
    const int64_t heads = p->directions * p->groups, head = item->direction * p->groups + item->group;
    const int64_t each = p->rank + 2 * p->states;
    Head h;
    h.problem = p;
    h.width = p->groups * p->channels;
    h.rows = heads * each;
    h.x = item->batch * p->pixels * h.width + item->group * p->channels;
    h.projected = item->batch * p->pixels * h.rows + head * each;
    h.row = head * p->channels;
    h.padded = (p->channels + 15) / 16 * 16;
    h.index = item->batch * heads + head;
    h.order = p->orders[item->direction];
    h.most_chunks = (p->steps + p->chunk - 1) / p->chunk;
    const int64_t chunks = (h.order.steps + p->chunk - 1) / p->chunk;
    h.first_chunk = chunks * item->segment / segments;
    h.end_chunk = chunks * (item->segment + 1) / segments;
    return h;
}

/* A block of up to LANES channels: what they bring along, and what they gather over the whole sequence. */
typedef struct {
    int64_t first;             /* of the channels of the head */
    int count;
    Vec *bias;                 /* 1 */
    Vec *D;                    /* 1, or NULL without a skip connection, since even zero times infinity is no zero */
    Vec *widest;               /* 1: largest magnitude in A, not a number if one is none */
    Vec *total;                /* 1: sum of the step sizes */
    Vec *dt_weight;            /* rank */
    Vec *A;                    /* states, times log2 e */
    Vec *W;                    /* states, or NULL without weights of the output */
    Vec *h;                    /* states: before the chunk, and after forward_slice */
    /* The backward pass only: */
    Vec *carry;                /* states: gradient of the state after a step, by way of all later steps */
    Vec *grad_bias, *grad_D, *grad_dt_weight, *grad_A, *grad_W; /* as above */
} Channels;

/* Dense arrays over the steps of a chunk. */
typedef struct {
    int64_t *pixel;            /* that the step visits, or -1 for a padded one */
    const float **row;         /* where dt, B and C of the step are */
    float *blank;              /* the zeros that a padded pixel reads */
    Vec *delta, *input;        /* the step size and its product with x */
    Vec *sum;                  /* the output */
    /* The backward pass only: */
    float **grad_row;          /* where the gradients of dt, B and C go */
    float *waste;              /* where those of a padded pixel go */
    Vec *u;                    /* x */
    Vec *derivative;           /* of softplus */
    Vec *grad_y;
    Vec *through_input, *through_decay; /* gradients of input, and of delta by way of the decays over ln 2 */
    Vec *before;               /* (steps + 1, slice): the states before each step, and after the last */
    Vec *decay;                /* (steps, slice) */
} Steps;

static void *take(char **memory, size_t bytes) {
    char *taken = *memory;
    *memory += (bytes + 63) / 64 * 64;
    return taken;
}

static void lay_out_channels(Channels *w, char **memory, const ScanProblem *p, int backward) {
    const size_t states = (size_t)p->states * sizeof(Vec), rank = (size_t)p->rank * sizeof(Vec);
    w->bias = take(memory, sizeof(Vec));
    w->D = p->D ? take(memory, sizeof(Vec)) : NULL;
    w->widest = take(memory, sizeof(Vec));
    w->total = take(memory, sizeof(Vec));
    w->dt_weight = take(memory, rank);
    w->A = take(memory, states);
    w->W = p->W ? take(memory, states) : NULL;
    w->h = take(memory, states);
    if (!backward) return;
    w->carry = take(memory, states);
    w->grad_bias = take(memory, sizeof(Vec));
    w->grad_D = take(memory, sizeof(Vec));
    w->grad_dt_weight = take(memory, rank);
    w->grad_A = take(memory, states);
    w->grad_W = p->W ? take(memory, states) : NULL;
}

static void lay_out_steps(Steps *s, char **memory, const ScanProblem *p, int backward) {
    const size_t steps = (size_t)p->chunk * sizeof(Vec);
    s->pixel = take(memory, (size_t)p->chunk * sizeof(int64_t));
    s->row = take(memory, (size_t)p->chunk * sizeof(float *));
    s->blank = take(memory, (size_t)(p->rank + 2 * p->states) * sizeof(float));
    s->delta = take(memory, steps);
    s->input = take(memory, steps);
    s->sum = take(memory, steps);
    if (!backward) return;
    s->grad_row = take(memory, (size_t)p->chunk * sizeof(float *));
    s->waste = take(memory, (size_t)(p->rank + 2 * p->states) * sizeof(float));
    s->u = take(memory, steps);
    s->derivative = take(memory, steps);
    s->grad_y = take(memory, steps);
    s->through_input = take(memory, steps);
    s->through_decay = take(memory, steps);
    s->before = take(memory, (steps + sizeof(Vec)) * HALF);
    s->decay = take(memory, steps * HALF);
}

/* A part of the blocks of a head and the steps of a chunk, in one piece of memory, all zero. */
typedef struct {
    Steps steps;
    Channels *channels;
    int64_t blocks;
} Work;

/* Returns what to free, or NULL. */
static void *allocate(Work *work, const ScanProblem *p, int64_t part, int64_t parts, int backward) {
    const int64_t all = (p->channels + LANES - 1) / LANES, first = all * part / parts;
    char *start = NULL;
    work->blocks = all * (part + 1) / parts - first;
    for (int pass = 0; pass < 2; pass++) {
        char *memory = start; /* the first pass, from address zero, only measures */
        work->channels = take(&memory, (size_t)work->blocks * sizeof(Channels));
        for (int64_t i = 0; i < work->blocks; i++) {
            Channels w;
            w.first = (first + i) * LANES;
            w.count = (int)at_most(LANES, p->channels - w.first);
            lay_out_channels(&w, &memory, p, backward);
            if (pass) work->channels[i] = w;
        }
        lay_out_steps(&work->steps, &memory, p, backward);
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

INLINE void store_column(float *matrix, int64_t columns, int64_t column, Vec v, int count) {
    for (int i = 0; i < count; i++) matrix[i * columns + column] = v[i];
}

static void load_parameters(const Channels *w, const Head *head) {
    const ScanProblem *p = head->problem;
    const int64_t row = head->row + w->first;
    *w->bias = p->bias ? load(p->bias + row, w->count) : splat(0);
    if (p->D) *w->D = load(p->D + row, w->count);
    for (int64_t r = 0; r < p->rank; r++)
        w->dt_weight[r] = load_column(p->dt_weight + row * p->rank, p->rank, r, w->count);
    for (int64_t n = 0; n < p->states; n++) {
        w->A[n] = load_column(p->A + row * p->states, p->states, n, w->count) * splat(LOG2E);
        *w->widest = larger_magnitude(magnitude(w->A[n]), *w->widest);
        if (p->W) w->W[n] = load_column(p->W + row * p->states, p->states, n, w->count);
    }
}

/* Where a block keeps state n (the sum of the step sizes at n == states) of this head in segment k. */
static float *end_of(const float *ends, const Head *head, const Channels *w, int64_t segments, int64_t k, int64_t n) {
    const int64_t states = head->problem->states;
    return (float *)ends + (((head->index * segments + k) * (states + 1)) + n) * head->padded + w->first;
}

/* What the first pass found of this segment: w->total and, in `state`, where a zero state or gradient led. */
static void store_end(float *ends, const Head *head, const Channels *w, const Vec *state, int64_t segments, int64_t k) {
    const int64_t states = head->problem->states;
    for (int64_t n = 0; n < states; n++) store(end_of(ends, head, w, segments, k, n), state[n], LANES);
    store(end_of(ends, head, w, segments, k, states), *w->total, LANES);
}

/*
 * Takes `state` through all of segment k, of which the first pass found the end. The decay of many steps may exceed the
 * range of float32 where the state after them does not: half of its exponent at a time, and finite, so that nothing
 * remains nothing. Where a single step's decay is not a number, the end is none.
 */
static void pass_segment(const float *ends, const Head *head, const Channels *w, Vec *state, int64_t segments,
                         int64_t k) {
    const int64_t states = head->problem->states;
    const Vec total = to_finite(load(end_of(ends, head, w, segments, k, states), LANES)) * splat(0.5f);
    for (int64_t n = 0; n < states; n++) {
        const Vec root = to_finite(exp2_lanes(total * w->A[n], 1));
        state[n] = root * (root * state[n]) + load(end_of(ends, head, w, segments, k, n), LANES);
    }
}

/* Which pixels the steps from `begin` to `end` visit; grad_projected is NULL in the forward pass. */
static void visit(const Steps *s, const Head *head, float *grad_projected, int64_t begin, int64_t end) {
    const ScanProblem *p = head->problem;
    const float *projected = p->projected + head->projected;
    for (int64_t t = begin; t < end; t++) {
        const int64_t pixel = head->order.pixels[t], real = pixel < p->pixels;
        s->pixel[t - begin] = real ? pixel : -1;
        s->row[t - begin] = real ? projected + pixel * head->rows : s->blank;
        if (grad_projected) s->grad_row[t - begin] = real ? grad_projected + pixel * head->rows : s->waste;
    }
}

/* Makes gcc keep this one address, not one for every element read from it, which are more than it has registers for. */
#define ONE_ADDRESS(pointer) __asm__("" : "+r"(pointer))

/* Runs `call` with a constant `slice` of at most `most` until all of `total` are done, `from` the first one left. */
#define WHILE_STATES_LEFT(size, most, total, call) \
    while (size <= (most) && (total) - from >= size) { \
        const int slice = size; \
        call; \
        from += size; \
    }
#define FOR_EACH_SLICE(most, total, call) \
    do { \
        int64_t from = 0; \
        WHILE_STATES_LEFT(16, most, total, call) \
        WHILE_STATES_LEFT(8, most, total, call) \
        WHILE_STATES_LEFT(4, most, total, call) \
        WHILE_STATES_LEFT(2, most, total, call) \
        WHILE_STATES_LEFT(1, most, total, call) \
    } while (0)

/* Adds up what `slice` of the rows of dt contribute to dt_weight @ dt. */
INLINE void dt_slice(const Steps *s, const Channels *w, int64_t steps, int64_t from, const int slice) {
    Vec weight[SLICE];
    UNROLL for (int r = 0; r < slice; r++) weight[r] = w->dt_weight[from + r];
    for (int64_t i = 0; i < steps; i++) {
        const float *dt = s->row[i] + from;
        Vec d = from ? s->delta[i] : splat(0);
        UNROLL for (int r = 0; r < slice; r++) d += splat(dt[r]) * weight[r];
        s->delta[i] = d;
    }
}

/*
 * Gathers x and, for the backward pass, the gradient of y; for the forward pass, what the directions that took their
 * turn before left in `sum`, which may be NULL. Makes the step sizes out of dt_weight @ dt. Returns their largest
 * magnitude of each lane, not a number if one is none.
 */
INLINE Vec gather(const Steps *s, const Head *head, const Channels *w, const float *sum, const void *grad_y,
                  int64_t steps, const int softplus, const int backward, const int count) {
    const ScanProblem *p = head->problem;
    const int64_t offset = head->x + w->first;
    const Vec bias = *w->bias, D = w->D ? *w->D : splat(0);
    Vec largest = splat(0), total = *w->total;
    for (int64_t i = 0; i < steps; i++) {
        const int64_t at = offset + s->pixel[i] * head->width;
        const int real = s->pixel[i] >= 0;
        const Vec u = real ? load_from(p->x, at, p->x_type, count) : splat(0);
        Vec d = p->rank ? bias + s->delta[i] : bias, derivative = splat(1);
        if (p->delta && real) d += load_from(p->delta, at, p->delta_type, count);
        if (softplus) d = softplus_lanes(d, backward ? &derivative : NULL);
        s->delta[i] = d;
        s->input[i] = d * u;
        if (backward) {
            s->u[i] = u;
            s->derivative[i] = derivative;
            s->grad_y[i] = real ? load_from(grad_y, at, p->x_type, count) : splat(0);
        } else {
            const Vec before = sum && real ? load(sum + at, count) : splat(0);
            s->sum[i] = w->D ? D * u + before : before;
        }
        total += d;
        largest = larger_magnitude(magnitude(d), largest);
    }
    *w->total = total;
    return largest;
}

/* A full block has a constant count: its loads and stores need no mask. */
#define WITH_COUNT(call) \
    do { \
        if (w->count == LANES) { \
            const int count = LANES; \
            call; \
        } else { \
            const int count = w->count; \
            call; \
        } \
    } while (0)

/* All that a block needs of the steps that s visits. Returns whether a decay's exponent needs limits. */
INLINE int prepare(const Steps *s, const Head *head, const Channels *w, const float *sum, const void *grad_y,
                   int64_t steps, const int backward) {
    Vec largest;
    FOR_EACH_SLICE(SLICE, head->problem->rank, dt_slice(s, w, steps, from, slice));
    if (head->problem->softplus) WITH_COUNT(largest = gather(s, head, w, sum, grad_y, steps, 1, backward, count));
    else WITH_COUNT(largest = gather(s, head, w, sum, grad_y, steps, 0, backward, count));
    largest *= *w->widest;
    int limit = 0;
    for (int i = 0; i < LANES; i++) limit |= !(largest[i] <= EXPONENT_LIMIT); /* also what is not a number */
    return limit;
}

/* Where the steps of the next chunk will read, a pixel's channels and projections. */
typedef struct {
    const int32_t *order;      /* the next step's pixel */
    int64_t steps;
    const char *maps[3];       /* x, what is added to, and the gradient of y; the last one may be NULL */
    int64_t strides[3];        /* bytes from one pixel to the next */
    const float *row;          /* projections, or NULL if another block asks for them */
    float *grad_row;           /* their gradients, or NULL */
    int64_t rows, each;
} Next;

/* Asks for step i of the next chunk: a column's pixels lie too far apart for the hardware to foresee. */
INLINE void fetch(const Next *next, int64_t i) {
    if (i >= next->steps) return;
    const int64_t pixel = next->order[i];
    for (int m = 0; m < 3 && next->maps[m]; m++) __builtin_prefetch(next->maps[m] + pixel * next->strides[m]);
    for (int64_t k = 0; k < next->each + 15 && next->row; k += 16) __builtin_prefetch(next->row + pixel * next->rows + k);
    for (int64_t k = 0; k < next->each + 15 && next->grad_row; k += 16)
        __builtin_prefetch(next->grad_row + pixel * next->rows + k);
}

static Next next_chunk(const Head *head, const Channels *w, int64_t begin, int64_t steps, int rows) {
    const ScanProblem *p = head->problem;
    const int64_t size = p->x_type == SCAN_FLOAT32 ? 4 : 2, at = head->x + w->first;
    Next next = {0};
    next.order = head->order.pixels + begin;
    next.steps = steps;
    next.maps[0] = (const char *)p->x + at * size;
    next.strides[0] = head->width * size;
    next.row = rows ? p->projected + head->projected : NULL;
    next.rows = head->rows;
    next.each = p->rank + 2 * p->states;
    return next;
}

/* Takes `slice` states from `state` on through the gathered steps. */
INLINE void forward_slice(const Steps *s, const Channels *w, int64_t rank, int64_t states, const Next *next,
                          int64_t steps, int64_t state, const int slice, const int limit, const int ends_only,
                          const int weighted) {
    const int64_t B = rank + state, C = B + states;
    const Vec *A = w->A + state, *W = w->W + (weighted ? state : 0);
    Vec h[SLICE];
    UNROLL for (int n = 0; n < slice; n++) h[n] = w->h[state + n];
    for (int64_t i = 0; i < steps; i++) {
        const float *B_row = s->row[i] + B, *C_row = s->row[i] + C;
        ONE_ADDRESS(B_row);
        ONE_ADDRESS(C_row);
        const Vec d = s->delta[i], input = s->input[i];
        if (state == 0) fetch(next, i);
        Vec sum = s->sum[i], odd = splat(0);
        UNROLL for (int n = 0; n < slice; n++) {
            h[n] = exp2_lanes(d * A[n], limit) * h[n] + input * splat(B_row[n]);
            if (ends_only) continue;
            const Vec out = weighted ? h[n] * W[n] : h[n];
            if (n % 2) odd += out * splat(C_row[n]);
            else sum += out * splat(C_row[n]);
        }
        if (!ends_only) s->sum[i] = sum + odd;
    }
    UNROLL for (int n = 0; n < slice; n++) w->h[state + n] = h[n];
}

static void forward_states(const Steps *s, const Channels *w, const ScanProblem *p, const Next *next, int64_t steps,
                           int limit, int ends_only) {
    const int64_t rank = p->rank, states = p->states;
#define FORWARD(limit, ends_only, weighted) \
    FOR_EACH_SLICE(SLICE, states, forward_slice(s, w, rank, states, next, steps, from, slice, limit, ends_only, weighted))
    if (limit && p->W) FORWARD(1, 0, 1);
    else if (limit) FORWARD(1, 0, 0);
    else if (ends_only) FORWARD(0, 1, 0);
    else if (p->W) FORWARD(0, 0, 1);
    else FORWARD(0, 0, 0);
#undef FORWARD
}

/* Puts back the sums, to which this direction has added its outputs; the last direction rounds them. */
INLINE void scatter(const Steps *s, const Head *head, const Channels *w, const ScanOutputs *out, int last,
                    int64_t steps, const int count) {
    const ScanProblem *p = head->problem;
    for (int64_t i = 0; i < steps; i++) {
        if (s->pixel[i] < 0) continue;
        const int64_t at = head->x + w->first + s->pixel[i] * head->width;
        if (last) store_to(out->y, at, p->x_type, s->sum[i], count);
        else store(out->sum + at, s->sum[i], count);
    }
}

int JOIN(scan_forward_, SCAN_ISA)(const ScanProblem *p, const ScanOutputs *out, const ScanItem *item) {
    const Head head = head_of(p, item, out->segments);
    const int first = p->covered && item->turn == 0;
    const int last = p->covered && (!p->overlap || item->turn == p->directions - 1);
    const float *sum = first || item->ends_only ? NULL : out->sum;
    Work work;
    void *memory = allocate(&work, p, item->part, out->parts, 0);
    if (!memory) return 1;
    const Steps *s = &work.steps;
    const Channels *end_block = work.channels + work.blocks;
    for (const Channels *w = work.channels; w < end_block; w++) {
        load_parameters(w, &head);
        for (int64_t k = 0; k < item->segment && !item->ends_only; k++)
            pass_segment(out->ends, &head, w, w->h, out->segments, k);
    }
    for (int64_t c = head.first_chunk; c < head.end_chunk; c++) {
        const int64_t begin = c * p->chunk, end = at_most(head.order.steps, begin + p->chunk);
        visit(s, &head, NULL, begin, end);
        for (const Channels *w = work.channels; w < end_block; w++) {
            if (out->chunk_states && !item->ends_only)
                for (int64_t n = 0; n < p->states; n++) {
                    const int64_t at = ((head.index * head.most_chunks + c) * p->states + n) * head.padded + w->first;
                    store(out->chunk_states + at, w->h[n], LANES);
                }
            const int limit = prepare(s, &head, w, sum, NULL, end - begin, 0);
            Next next = next_chunk(&head, w, end, at_most(p->chunk, head.order.steps - end), w == work.channels);
            next.maps[1] = (const char *)(out->sum + head.x + w->first);
            next.strides[1] = head.width * (int64_t)sizeof(float);
            forward_states(s, w, p, &next, end - begin, limit, (int)item->ends_only);
            if (item->ends_only) continue;
            WITH_COUNT(scatter(s, &head, w, out, last, end - begin, count));
        }
    }
    for (const Channels *w = work.channels; w < end_block; w++)
        if (item->ends_only) {
            store_end(out->ends, &head, w, w->h, out->segments, item->segment);
        } else if (out->last_state && item->segment == out->segments - 1) {
            float *to = out->last_state + (head.index * p->channels + w->first) * p->states;
            for (int64_t n = 0; n < p->states; n++) store_column(to, p->states, n, w->h[n], w->count);
        }
    free(memory);
    return 0;
}

/* Adds the lower half of `sums` to low[0], low[1], ... and the upper half to high: `slice` lanes of each. */
INLINE void add_sums(float *low, float *high, Vec sums, const int slice) {
    HalfVec halves[2];
    memcpy(halves, &sums, sizeof sums);
    if (slice == HALF) {
        *(HalfVec *)low += halves[0];
        *(HalfVec *)high += halves[1];
        return;
    }
    UNROLL for (int n = 0; n < slice; n++) {
        low[n] += halves[0][n];
        high[n] += halves[1][n];
    }
}

/* Takes the gradients of `slice` states from `state` on back through the gathered steps. */
INLINE void backward_slice(const Steps *s, const Channels *w, const ScanProblem *p, const Next *next, int64_t steps,
                           int64_t state, const int slice, const int limit, const int weighted) {
    const int64_t B = p->rank + state, C = B + p->states;
    const Vec *A = w->A + state, *W = w->W + (weighted ? state : 0);
    Vec h[HALF], carry[HALF], grad_A[HALF], grad_W[HALF];
    UNROLL for (int n = 0; n < slice; n++) s->before[n] = h[n] = w->h[state + n];
    for (int64_t i = 0; i < steps; i++) {
        const float *B_row = s->row[i] + B;
        ONE_ADDRESS(B_row);
        const Vec d = s->delta[i], input = s->input[i];
        UNROLL for (int n = 0; n < slice; n++) {
            const Vec a = exp2_lanes(d * A[n], limit);
            h[n] = a * h[n] + input * splat(B_row[n]);
            s->decay[i * slice + n] = a;
            s->before[(i + 1) * slice + n] = h[n];
        }
    }
    UNROLL for (int n = 0; n < slice; n++) {
        carry[n] = w->carry[state + n];
        grad_A[n] = w->grad_A[state + n];
        if (weighted) grad_W[n] = w->grad_W[state + n];
    }
    for (int64_t i = steps - 1; i >= 0; i--) {
        const float *B_row = s->row[i] + B, *C_row = s->row[i] + C;
        ONE_ADDRESS(B_row);
        ONE_ADDRESS(C_row);
        const Vec d = s->delta[i], input = s->input[i], gy = s->grad_y[i];
        if (state == 0) fetch(next, i);
        const Vec *a = s->decay + i * slice, *before = s->before + i * slice, *after = before + slice;
        Vec through_input = state ? s->through_input[i] : splat(0);
        Vec through_decay = state ? s->through_decay[i] : splat(0);
        Vec grad_BC[HALF]; /* before the sums over the lanes */
        UNROLL for (int n = 0; n < HALF; n++) {
            grad_BC[n] = splat(0);
            if (n >= slice) continue;
            const Vec gw = weighted ? gy * W[n] : gy; /* gradient of C h, without the factor C or h */
            const Vec gh = carry[n] + gw * splat(C_row[n]);
            grad_BC[n] = add_halves(gh * input, gw * after[n]);
            if (weighted) grad_W[n] += gy * after[n] * splat(C_row[n]);
            through_input += gh * splat(B_row[n]);
            carry[n] = gh * a[n];
            const Vec exponent = carry[n] * before[n];
            through_decay += exponent * A[n];
            grad_A[n] += exponent * d;
        }
        s->through_input[i] = through_input;
        s->through_decay[i] = through_decay;
        add_sums(s->grad_row[i] + B, s->grad_row[i] + C, sum_halves(grad_BC), slice);
    }
    UNROLL for (int n = 0; n < slice; n++) {
        w->carry[state + n] = carry[n];
        w->grad_A[state + n] = grad_A[n];
        if (weighted) w->grad_W[state + n] = grad_W[n];
    }
}

/* Only the gradient of the states: what the first pass takes back through the gathered steps. */
INLINE void carry_slice(const Steps *s, const Channels *w, const ScanProblem *p, int64_t steps, int64_t state,
                        const int slice, const int weighted) {
    const int64_t C = p->rank + p->states + state;
    const Vec *A = w->A + state, *W = w->W + (weighted ? state : 0);
    Vec carry[SLICE];
    UNROLL for (int n = 0; n < slice; n++) carry[n] = w->carry[state + n];
    for (int64_t i = steps - 1; i >= 0; i--) {
        const float *C_row = s->row[i] + C;
        const Vec d = s->delta[i], gy = s->grad_y[i];
        UNROLL for (int n = 0; n < slice; n++) {
            const Vec gw = weighted ? gy * W[n] : gy;
            carry[n] = exp2_lanes(d * A[n], 1) * (carry[n] + gw * splat(C_row[n]));
        }
    }
    UNROLL for (int n = 0; n < slice; n++) w->carry[state + n] = carry[n];
}

static void backward_states(const Steps *s, const Channels *w, const ScanProblem *p, const Next *next, int64_t steps,
                            int limit) {
#define BACKWARD(limit, weighted) \
    FOR_EACH_SLICE(HALF, p->states, backward_slice(s, w, p, next, steps, from, slice, limit, weighted))
    if (limit && p->W) BACKWARD(1, 1);
    else if (limit) BACKWARD(1, 0);
    else if (p->W) BACKWARD(0, 1);
    else BACKWARD(0, 0);
#undef BACKWARD
}

/* The gradients of `slice` rows of dt and of their weights, for as many steps at once as sum_each() has room for. */
INLINE void backward_dt_slice(const Steps *s, const Channels *w, int64_t steps, int64_t from, const int slice) {
    const int at_once = LANES / slice;
    Vec weight[HALF], grad_weight[HALF], grad_dt[LANES];
    UNROLL for (int r = 0; r < slice; r++) {
        weight[r] = w->dt_weight[from + r];
        grad_weight[r] = w->grad_dt_weight[from + r];
    }
    for (int64_t i = 0; i < steps; i += at_once) {
        UNROLL for (int j = 0; j < at_once; j++) {
            const int within = i + j < steps;
            const float *dt = within ? s->row[i + j] + from : s->blank;
            const Vec gd = within ? s->delta[i + j] : splat(0); /* by now its gradient */
            UNROLL for (int r = 0; r < slice; r++) {
                grad_weight[r] += gd * splat(dt[r]);
                grad_dt[j * slice + r] = gd * weight[r];
            }
        }
        const Vec sums = sum_each(grad_dt);
        for (int j = 0; j < at_once && i + j < steps; j++) {
            float *grad_row = s->grad_row[i + j] + from;
            UNROLL for (int r = 0; r < slice; r++) grad_row[r] += sums[j * slice + r];
        }
    }
    UNROLL for (int r = 0; r < slice; r++) w->grad_dt_weight[from + r] = grad_weight[r];
}

/* What is left once all states are done: the gradients of x and of the step sizes, and from them of dt. */
INLINE void backward_steps(const Steps *s, const Head *head, const Channels *w, const ScanGradients *grad, int64_t copy,
                           int first, int64_t steps, const int count) {
    const ScanProblem *p = head->problem;
    const int64_t offset = copy * p->batch * p->pixels * head->width + head->x + w->first;
    const Vec *D = w->D;
    Vec grad_bias = *w->grad_bias, grad_D = *w->grad_D;
    for (int64_t i = 0; i < steps; i++) {
        const int64_t at = offset + s->pixel[i] * head->width;
        const Vec u = s->u[i], d = s->delta[i], gy = s->grad_y[i], through_input = s->through_input[i];
        const Vec gd = (s->through_decay[i] * splat(LN2) + through_input * u) * s->derivative[i];
        grad_bias += gd;
        grad_D += gy * u;
        s->delta[i] = gd;
        if (s->pixel[i] < 0) continue;
        const Vec gu = D ? through_input * d + *D * gy : through_input * d;
        store(grad->x + at, first ? gu : gu + load(grad->x + at, count), count);
        if (grad->delta) store(grad->delta + at, first ? gd : gd + load(grad->delta + at, count), count);
    }
    *w->grad_bias = grad_bias;
    *w->grad_D = grad_D;
}

/* Begins with the gradient that comes in from later segments and from the last state. */
static void begin_backward(const Channels *w, const Head *head, const ScanGradients *grad, const ScanItem *item) {
    const ScanProblem *p = head->problem;
    load_parameters(w, head);
    if (item->ends_only) return;
    for (int64_t n = 0; n < p->states && grad->last_state; n++) {
        const float *from = grad->last_state + (head->index * p->channels + w->first) * p->states;
        w->carry[n] = load_column(from, p->states, n, w->count);
    }
    for (int64_t k = grad->segments - 1; k > item->segment; k--)
        pass_segment(grad->ends, head, w, w->carry, grad->segments, k);
}

static void end_backward(const Channels *w, const Head *head, const ScanGradients *grad, const ScanItem *item) {
    const ScanProblem *p = head->problem;
    if (item->ends_only) {
        store_end(grad->ends, head, w, w->carry, grad->segments, item->segment);
        return;
    }
    const int64_t heads = p->directions * p->groups;
    const int64_t at = (item->batch * grad->segments + item->segment) * heads * p->channels + head->row + w->first;
    store(grad->bias + at, *w->grad_bias, w->count);
    store(grad->D + at, *w->grad_D, w->count);
    for (int64_t r = 0; r < p->rank; r++)
        store_column(grad->dt_weight + at * p->rank, p->rank, r, w->grad_dt_weight[r], w->count);
    for (int64_t n = 0; n < p->states; n++)
        store_column(grad->A + at * p->states, p->states, n, w->grad_A[n], w->count);
    for (int64_t n = 0; n < p->states && p->W; n++)
        store_column(grad->W + at * p->states, p->states, n, w->grad_W[n], w->count);
}

int JOIN(scan_backward_, SCAN_ISA)(const ScanProblem *p, const ScanGradients *grad, const ScanItem *item) {
    const Head head = head_of(p, item, grad->segments);
    const int64_t copy = p->overlap ? item->direction % grad->copies : 0, each = p->rank + 2 * p->states;
    float *grad_projected = grad->projected + head.projected;
    Work work;
    void *memory = allocate(&work, p, 0, 1, 1);
    if (!memory) return 1;
    const Steps *s = &work.steps;
    const Channels *end_block = work.channels + work.blocks;
    for (const Channels *w = work.channels; w < end_block; w++) begin_backward(w, &head, grad, item);
    for (int64_t c = head.end_chunk - 1; c >= head.first_chunk; c--) {
        const int64_t begin = c * p->chunk, end = at_most(head.order.steps, begin + p->chunk), steps = end - begin;
        visit(s, &head, grad_projected, begin, end);
        for (int64_t i = 0; i < steps && !item->ends_only; i++)
            memset(s->grad_row[i], 0, (size_t)each * sizeof(float));
        for (const Channels *w = work.channels; w < end_block; w++) {
            const int limit = prepare(s, &head, w, NULL, grad->y, steps, 1);
            if (item->ends_only) {
                if (p->W) FOR_EACH_SLICE(HALF, p->states, carry_slice(s, w, p, steps, from, slice, 1));
                else FOR_EACH_SLICE(HALF, p->states, carry_slice(s, w, p, steps, from, slice, 0));
                continue;
            }
            for (int64_t n = 0; n < p->states; n++) {
                const int64_t at = ((head.index * head.most_chunks + c) * p->states + n) * head.padded + w->first;
                w->h[n] = load(grad->chunk_states + at, LANES);
            }
            Next next = next_chunk(&head, w, begin - p->chunk, begin ? p->chunk : 0, w == work.channels);
            next.maps[1] = (const char *)(grad->x + copy * p->batch * p->pixels * head.width + head.x + w->first);
            next.strides[1] = head.width * (int64_t)sizeof(float);
            next.maps[2] = (const char *)grad->y + (next.maps[0] - (const char *)p->x);
            next.strides[2] = next.strides[0];
            next.grad_row = w == work.channels ? grad_projected : NULL;
            backward_states(s, w, p, &next, steps, limit);
            WITH_COUNT(backward_steps(s, &head, w, grad, copy, p->covered && item->turn == 0, steps, count));
            FOR_EACH_SLICE(HALF, p->rank, backward_dt_slice(s, w, steps, from, slice));
        }
    }
    for (const Channels *w = work.channels; w < end_block; w++) end_backward(w, &head, grad, item);
    free(memory);
    return 0;
}
