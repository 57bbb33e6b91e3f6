/* The 1x1 convolution of a map with what stands around it, for one instruction set. An item is a block of pixels. */
#include "blocks.h"
#include "matmul.h"

#define BLOCK_ROWS 32

static int64_t packs(const void *problem) { return panels_of(((const Pointwise *)problem)->outputs); }

static int64_t packed_floats(const void *problem) {
    return packs(problem) * panel_floats(((const Pointwise *)problem)->inputs);
}

static int64_t items(const void *problem) { return (((const Pointwise *)problem)->pixels + BLOCK_ROWS - 1) / BLOCK_ROWS; }

static int64_t scratch_floats(const void *problem) {
    return BLOCK_ROWS * round_up(((const Pointwise *)problem)->inputs, LANES);
}

static void pack(const void *problem, float *packed, int64_t pack) {
    const Pointwise *p = problem;
    pack_panel(p->weight, p->bias, p->inputs, p->outputs, pack, packed);
}

static void run(const void *problem, const float *packed, float *scratch, int64_t item) {
    const Pointwise *p = problem;
    const int64_t first = item * BLOCK_ROWS, in = first * p->inputs, out = first * p->outputs;
    Product product = {
        .packed = packed, .inputs = p->inputs, .outputs = p->outputs,
        .rows = p->input + in, .stride = p->inputs, .count = smaller(BLOCK_ROWS, p->pixels - first),
        .residual = p->residual ? p->residual + out : 0, .output = p->output + out,
    };
    if (p->norm.weight || p->gate) {
        prepare(&p->norm, product.rows, p->gate ? p->gate + in : 0, p->inputs, product.count, scratch);
        product.rows = scratch;
        product.stride = round_up(p->inputs, LANES);
    }
    multiply(&product, p->activation);
}

const BlockKernel JOIN(pointwise_, SCAN_ISA) = {packs, packed_floats, items, scratch_floats, pack, run};
