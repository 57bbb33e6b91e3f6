/*
 * Layer norm of every pixel, times an activated gate, and the way back, for one instruction set. An item is a run of
 * pixels, which are worked on LANES at a time, so that their sums over the channels need few shuffles.
 */
#include "blocks.h"
#include "norm.h"

/* Where a run of pixels keeps what it needs at a time; the last three for the way back only. */
typedef struct {
    float *rows;         /* LANES pixels in float32 */
    float *through_norm; /* gradient of the norm's output times its weight, likewise */
    float *grad_weight, *grad_bias;
} Room;

INLINE int64_t stride_of(const NormGate *p) { return round_up(p->channels, LANES); }

static int64_t items(const void *problem) { return ((const NormGate *)problem)->parts; }

static int64_t scratch_floats(const void *problem) { return stride_of(problem) * 2 * (LANES + 1); }

static Room room_of(const NormGate *p, float *scratch) {
    const int64_t stride = stride_of(p);
    float *through_norm = scratch + LANES * stride, *grad_weight = through_norm + LANES * stride;
    return (Room){scratch, through_norm, grad_weight, grad_weight + stride};
}

INLINE void norm_pixels(const NormGate *p, const Room *room, int64_t first, int count, int64_t input_type, int64_t type,
                        int64_t activation) {
    const int64_t n = p->channels;
    const float *rows = widened(p->input, first * n, count * n, input_type, room->rows);
    Vec mean = splat(0), scale = splat(1);
    if (p->norm.weight) moments(rows, n, count, (float)p->norm.epsilon, &mean, &scale);
    for (int64_t i = 0; i < n; i += LANES) {
        const int lanes = (int)at_most(LANES, n - i);
        const Vec weight = p->norm.weight ? load(p->norm.weight + i, lanes) : splat(1);
        const Vec bias = p->norm.weight ? load(p->norm.bias + i, lanes) : splat(0);
        for (int r = 0; r < count; r += GATES) { /* beyond the group, the last pixel again */
            const int64_t at = first * n + i;
            Vec gate[GATES];
            UNROLL for (int k = 0; k < GATES; k++)
                gate[k] = p->gate ? load_from(p->gate, at + at_most(r + k, count - 1) * n, type, lanes) : splat(1);
            if (p->gate) activate(gate, GATES, activation);
            for (int k = 0; k < GATES && r + k < count; k++) {
                const Vec x = load(rows + (r + k) * n + i, lanes);
                const Vec y = (x - splat(mean[r + k])) * splat(scale[r + k]) * weight + bias;
                store_to(p->output, at + (r + k) * n, type, y * gate[k], lanes);
            }
        }
    }
}

INLINE void norm_pixels_back(const NormGate *p, const Room *room, int64_t first, int count, int64_t input_type,
                             int64_t type, int64_t activation) {
    const int64_t n = p->channels, stride = stride_of(p);
    const float *rows = widened(p->input, first * n, count * n, input_type, room->rows);
    Vec mean = splat(0), scale = splat(1), sums[LANES], products[LANES];
    if (p->norm.weight) moments(rows, n, count, (float)p->norm.epsilon, &mean, &scale);
    for (int r = 0; r < LANES; r++) sums[r] = products[r] = splat(0);
    for (int64_t i = 0; i < n; i += LANES) {
        const int lanes = (int)at_most(LANES, n - i);
        const Vec weight = p->norm.weight ? load(p->norm.weight + i, lanes) : splat(1);
        const Vec bias = p->norm.weight ? load(p->norm.bias + i, lanes) : splat(0);
        Vec grad_weight = load(room->grad_weight + i, LANES), grad_bias = load(room->grad_bias + i, LANES);
        for (int r = 0; r < count; r += GATES) {
            const int64_t at = first * n + i;
            Vec gate[GATES], slope[GATES];
            UNROLL for (int k = 0; k < GATES; k++) {
                gate[k] = p->gate ? load_from(p->gate, at + at_most(r + k, count - 1) * n, type, lanes) : splat(1);
                slope[k] = splat(0);
            }
            if (p->gate) activate_with_slope(gate, slope, GATES, activation);
            for (int k = 0; k < GATES && r + k < count; k++) {
                const int64_t pixel = r + k;
                const Vec grad = load_from(p->grad_output, at + pixel * n, type, lanes);
                const Vec normal = (load(rows + pixel * n + i, lanes) - splat(mean[pixel])) * splat(scale[pixel]);
                const Vec grad_norm = grad * gate[k], through_norm = grad_norm * weight;
                const Vec norm = normal * weight + bias;
                if (p->gate) store_to(p->grad_gate, at + pixel * n, type, grad * norm * slope[k], lanes);
                if (p->output) store_to(p->output, at + pixel * n, type, norm * gate[k], lanes);
                grad_weight += grad_norm * normal;
                grad_bias += grad_norm;
                sums[pixel] += through_norm;
                products[pixel] += through_norm * normal;
                store(room->through_norm + pixel * stride + i, through_norm, LANES);
            }
        }
        store(room->grad_weight + i, grad_weight, LANES);
        store(room->grad_bias + i, grad_bias, LANES);
    }
    /* What a pixel's mean and deviation contribute; nothing without a norm. */
    const Vec over = splat(p->norm.weight ? 1.0f / (float)n : 0);
    const Vec sum = sum_each(sums) * over, product = sum_each(products) * over;
    for (int r = 0; r < count; r++)
        for (int64_t i = 0; i < n; i += LANES) {
            const int lanes = (int)at_most(LANES, n - i);
            const Vec normal = (load(rows + r * n + i, lanes) - splat(mean[r])) * splat(scale[r]);
            const Vec through_norm = load(room->through_norm + r * stride + i, LANES);
            store_to(p->grad_input, (first + r) * n + i, input_type,
                     splat(scale[r]) * (through_norm - splat(sum[r]) - normal * splat(product[r])), lanes);
        }
}

/* Compiled once for each pair of types that a network has, and for the usual activation. */
#define WITH_TYPES_AND_ACTIVATION(p, call)                                                     \
    do {                                                                                       \
        if ((p)->type == SCAN_FLOAT32 && (p)->input_type == SCAN_FLOAT32) {                    \
            const int64_t type = SCAN_FLOAT32, input_type = SCAN_FLOAT32;                      \
            WITH_ACTIVATION(p, call);                                                          \
        } else if ((p)->type == SCAN_BFLOAT16 && (p)->input_type == SCAN_BFLOAT16) {           \
            const int64_t type = SCAN_BFLOAT16, input_type = SCAN_BFLOAT16;                    \
            WITH_ACTIVATION(p, call);                                                          \
        } else {                                                                               \
            const int64_t type = (p)->type, input_type = (p)->input_type;                      \
            WITH_ACTIVATION(p, call);                                                          \
        }                                                                                      \
    } while (0)

static void run(const void *problem, const float *packed, float *scratch, int64_t item) {
    const NormGate *p = problem;
    const Room room = room_of(p, scratch);
    const int64_t end = p->pixels * (item + 1) / p->parts;
    (void)packed;
    for (int64_t first = p->pixels * item / p->parts; first < end; first += LANES)
        WITH_TYPES_AND_ACTIVATION(
            p, norm_pixels(p, &room, first, (int)at_most(LANES, end - first), input_type, type, activation));
}

static void run_back(const void *problem, const float *packed, float *scratch, int64_t item) {
    const NormGate *p = problem;
    const Room room = room_of(p, scratch);
    const int64_t n = p->channels, end = p->pixels * (item + 1) / p->parts;
    (void)packed;
    memset(room.grad_weight, 0, (size_t)(2 * stride_of(p)) * sizeof(float));
    for (int64_t first = p->pixels * item / p->parts; first < end; first += LANES)
        WITH_TYPES_AND_ACTIVATION(
            p, norm_pixels_back(p, &room, first, (int)at_most(LANES, end - first), input_type, type, activation));
    memcpy(p->grad_norm + 2 * item * n, room.grad_weight, (size_t)n * sizeof(float));
    memcpy(p->grad_norm + (2 * item + 1) * n, room.grad_bias, (size_t)n * sizeof(float));
}

const BlockKernel JOIN(norm_gate_, SCAN_ISA) = {.items = items, .scratch = scratch_floats, .run = run};
const BlockKernel JOIN(norm_gate_backward_, SCAN_ISA) = {.items = items, .scratch = scratch_floats, .run = run_back};
