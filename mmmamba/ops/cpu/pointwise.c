/* The 1x1 convolution of a map with what stands around it, for one instruction set. An item is a block of pixels. */
#include "blocks.h"
#include "matmul.h"

#define BLOCK_ROWS 32

/* Where in the packed weights those of the gate begin. */
INLINE int64_t gate_packed(const Pointwise *p) {
    return panels_of(p->outputs) * panel_words(p->inputs, in_pairs(p->type));
}

static int64_t packs(const void *problem) {
    const Pointwise *p = problem;
    return panels_of(p->outputs) + (p->gate_weight ? panels_of(p->inputs) : 0);
}

static int64_t packed_words(const void *problem) {
    const Pointwise *p = problem;
    return gate_packed(p) + (p->gate_weight ? panels_of(p->inputs) * panel_words(p->gate_inputs, in_pairs(p->type)) : 0);
}

static int64_t items(const void *problem) { return (((const Pointwise *)problem)->pixels + BLOCK_ROWS - 1) / BLOCK_ROWS; }

/* Where a block has its prepared pixels, their gates, what these are made of, and what preparations need. */
typedef struct {
    int64_t gates, gate_rows, room, end;
} Layout;

static Layout layout(const Pointwise *p) {
    const int64_t gates = BLOCK_ROWS * round_up(p->inputs, LANES);
    const int64_t gate_rows = BLOCK_ROWS * round_up(p->gate_inputs, LANES);
    return (Layout){gates, 2 * gates, 2 * gates + gate_rows,
                    2 * gates + gate_rows + preparation_floats(at_least(p->inputs, p->gate_inputs))};
}

static int64_t scratch_floats(const void *problem) { return layout(problem).end; }

static void pack(const void *problem, float *packed, int64_t pack) {
    const Pointwise *p = problem;
    const int64_t panels = panels_of(p->outputs);
    if (pack < panels)
        pack_panel(p->weight, p->type, p->bias, p->inputs, p->outputs, pack, packed);
    else
        pack_panel(p->gate_weight, p->type, 0, p->gate_inputs, p->inputs, pack - panels, packed + gate_packed(p));
}

/* The gates of `count` pixels as whole vectors of floats. */
static void make_gates(const Pointwise *p, const float *packed, int64_t first, int64_t count, float *scratch) {
    const Layout at = layout(p);
    const Preparation preparation = {
        .norm = &p->gate_norm,
        .input = p->gate,
        .type = p->gate_type,
        .channels = p->gate_inputs,
    };
    const Product product = {
        .packed = packed + gate_packed(p),
        .inputs = p->gate_inputs,
        .outputs = round_up(p->inputs, LANES),
        .pairs = in_pairs(p->type),
        .rows = scratch + at.gate_rows,
        .stride = row_words(p->gate_inputs, in_pairs(p->type)),
        .count = count,
        .type = SCAN_FLOAT32,
        .output = scratch + at.gates,
    };
    prepare(&preparation, first, count, product.pairs, scratch + at.room, scratch + at.gate_rows);
    multiply(&product, ACTIVATION_NONE);
}

/* Whether the pixels of the input are such rows already as the product takes. */
INLINE int is_prepared(const Pointwise *p) {
    const int whole = !in_pairs(p->type) || p->inputs % 2 == 0;
    return !p->norm.weight && !p->gate && p->input_type == row_type(in_pairs(p->type)) && whole;
}

static void run(const void *problem, const float *packed, float *scratch, int64_t item) {
    const Pointwise *p = problem;
    const Layout at = layout(p);
    const int64_t first = item * BLOCK_ROWS, in = first * p->inputs, out = first * p->outputs;
    Product product = {
        .packed = packed,
        .inputs = p->inputs,
        .outputs = p->outputs,
        .pairs = in_pairs(p->type),
        .count = at_most(BLOCK_ROWS, p->pixels - first),
        .type = p->type,
        .residual = p->residual ? element(p->residual, out, p->type) : 0,
        .output = element(p->output, out, p->type),
    };
    if (is_prepared(p)) {
        product.rows = element(p->input, in, p->input_type);
        product.stride = words_of(p->inputs, product.pairs);
    } else {
        Preparation preparation = {
            .norm = &p->norm,
            .input = p->input,
            .type = p->input_type,
            .channels = p->inputs,
            .gate = p->gate ? element(p->gate, in, p->gate_type) : 0,
            .gate_type = p->gate_type,
            .gate_stride = p->inputs,
            .activation = p->gate_activation,
        };
        if (p->gate_weight) {
            make_gates(p, packed, first, product.count, scratch);
            preparation.gate = scratch + at.gates;
            preparation.gate_type = SCAN_FLOAT32;
            preparation.gate_stride = round_up(p->inputs, LANES);
        }
        prepare(&preparation, first, product.count, product.pairs, scratch + at.room, scratch);
        product.rows = scratch;
        product.stride = row_words(p->inputs, product.pairs);
    }
    multiply(&product, p->activation);
}

const BlockKernel JOIN(pointwise_, SCAN_ISA) = {packs, packed_words, items, scratch_floats, pack, run};
