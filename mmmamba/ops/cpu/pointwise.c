/* The 1x1 convolution of a map with what stands around it, for one instruction set. An item is a block of pixels. */
#include "blocks.h"
#include "matmul.h"

#define BLOCK_ROWS 32

/* Where in the packed weights, and in the scratch, those of the gate begin. */
INLINE int64_t gate_packed(const Pointwise *p) { return panels_of(p->outputs) * panel_floats(p->inputs); }
INLINE int64_t gate_scratch(const Pointwise *p) { return BLOCK_ROWS * round_up(p->inputs, LANES); }

static int64_t packs(const void *problem) {
    const Pointwise *p = problem;
    return panels_of(p->outputs) + (p->gate_weight ? panels_of(p->inputs) : 0);
}

static int64_t packed_floats(const void *problem) {
    const Pointwise *p = problem;
    return gate_packed(p) + (p->gate_weight ? panels_of(p->inputs) * panel_floats(p->gate_inputs) : 0);
}

static int64_t items(const void *problem) { return (((const Pointwise *)problem)->pixels + BLOCK_ROWS - 1) / BLOCK_ROWS; }

/* Prepared pixels; and their gates, and what these are made of. */
static int64_t scratch_floats(const void *problem) {
    const Pointwise *p = problem;
    return 2 * gate_scratch(p) + BLOCK_ROWS * round_up(p->gate_inputs, LANES);
}

static void pack(const void *problem, float *packed, int64_t pack) {
    const Pointwise *p = problem;
    const int64_t panels = panels_of(p->outputs);
    if (pack < panels) pack_panel(p->weight, p->bias, p->inputs, p->outputs, pack, packed);
    else pack_panel(p->gate_weight, 0, p->gate_inputs, p->inputs, pack - panels, packed + gate_packed(p));
}

/* The gates of `count` pixels as whole vectors. */
static const float *make_gates(const Pointwise *p, const float *packed, int64_t first, int64_t count, float *scratch) {
    float *normal = scratch + gate_scratch(p);
    const Product product = {
        .packed = packed + gate_packed(p),
        .inputs = p->gate_inputs,
        .outputs = round_up(p->inputs, LANES),
        .rows = normal,
        .stride = round_up(p->gate_inputs, LANES),
        .count = count,
        .output = scratch,
    };
    prepare(&p->gate_norm, p->gate + first * p->gate_inputs, 0, 0, ACTIVATION_NONE, p->gate_inputs, count, normal);
    multiply(&product, ACTIVATION_NONE);
    return scratch;
}

static void run(const void *problem, const float *packed, float *scratch, int64_t item) {
    const Pointwise *p = problem;
    const int64_t first = item * BLOCK_ROWS, in = first * p->inputs, out = first * p->outputs;
    Product product = {
        .packed = packed,
        .inputs = p->inputs,
        .outputs = p->outputs,
        .rows = p->input + in,
        .stride = p->inputs,
        .count = at_most(BLOCK_ROWS, p->pixels - first),
        .residual = p->residual ? p->residual + out : 0,
        .output = p->output + out,
    };
    if (p->norm.weight || p->gate) {
        const float *gate = p->gate ? p->gate + in : 0;
        int64_t gate_stride = p->inputs;
        if (p->gate_weight) {
            gate = make_gates(p, packed, first, product.count, scratch + gate_scratch(p));
            gate_stride = round_up(p->inputs, LANES);
        }
        prepare(&p->norm, product.rows, gate, gate_stride, p->gate_activation, p->inputs, product.count, scratch);
        product.rows = scratch;
        product.stride = round_up(p->inputs, LANES);
    }
    multiply(&product, p->activation);
}

const BlockKernel JOIN(pointwise_, SCAN_ISA) = {packs, packed_floats, items, scratch_floats, pack, run};
