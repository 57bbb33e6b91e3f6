/*
 * Expanding 1x1 convolution, depthwise convolution, reducing 1x1 convolution, for one instruction set: the hidden map,
 * the largest of a block, is never whole in memory. An item is a strip of rows, which are worked on in groups; a group
 * needs the hidden row above and the one below as well, so the last two rows of a group serve the next one.
 */
#include "blocks.h"
#include "matmul.h"
#include "stencil.h"

#define GROUP_PIXELS 160 /* so many at least, so that the weights are not read for a few pixels only */
#define GROUP_ROWS 3     /* at least */
#define STRIP_ROWS 16     /* at least: each strip computes two hidden rows of its neighbours again */
#define STRIPS 3         /* for each thread */

INLINE int64_t room(const InvertedBottleneck *p) { return round_up(p->hidden, LANES); } /* floats of a hidden pixel */
INLINE int pairs_of(const InvertedBottleneck *p) { return in_pairs(p->type); }
INLINE int64_t group_rows(const InvertedBottleneck *p) {
    return at_least(GROUP_ROWS, (GROUP_PIXELS + p->width - 1) / p->width);
}

/* Strips of an image. */
INLINE int64_t strips(const InvertedBottleneck *p) {
    const int64_t each = at_most(STRIPS, at_least(1, p->batch * p->height / (p->threads * STRIP_ROWS)));
    return at_most(p->height, (each * p->threads + p->batch - 1) / p->batch);
}

/* Where in the packed weights the panels of x, those of v, those of the reduction and the stencil begin. */
typedef struct {
    int64_t expand, gate, reduce, stencil, end;
} Layout;

static Layout layout(const InvertedBottleneck *p) {
    const int64_t expand = panels_of(p->hidden) * panel_words(p->inputs, pairs_of(p));
    Layout at = {0, expand, 0, 0, 0};
    at.reduce = at.gate + (p->gated ? expand : 0);
    at.stencil = at.reduce + (p->reduce ? panels_of(p->outputs) * panel_words(p->hidden, pairs_of(p)) : 0);
    at.end = at.stencil + room(p) * WEIGHTS;
    return at;
}

static int64_t packs(const void *problem) {
    const InvertedBottleneck *p = problem;
    return panels_of(p->hidden) * (1 + p->gated) + (p->reduce ? panels_of(p->outputs) : 0) + 1;
}

static int64_t packed_words(const void *problem) { return layout(problem).end; }

static int64_t items(const void *problem) {
    const InvertedBottleneck *p = problem;
    return p->batch * strips(p);
}

/*
 * What a strip works on, from the row above a group to the row below it: normalised input and hidden rows. And the
 * stencil's results for the rows of the group itself, and room for the preparation.
 */
static int64_t scratch_floats(const void *problem) {
    const InvertedBottleneck *p = problem;
    const int64_t rows = group_rows(p), prepared = row_words(p->inputs, pairs_of(p));
    return p->width * ((rows + 2) * (prepared + room(p)) + rows * room(p)) + preparation_floats(p->inputs);
}

static void pack(const void *problem, float *packed, int64_t pack) {
    const InvertedBottleneck *p = problem;
    const Layout at = layout(p);
    const int64_t panels = panels_of(p->hidden), part = pack / panels;
    if (part < 1 + p->gated)
        return pack_panel(element(p->expand, part * p->hidden * p->inputs, p->type), p->type,
                          p->expand_bias ? p->expand_bias + part * p->hidden : 0, p->inputs, p->hidden, pack % panels,
                          packed + (part ? at.gate : at.expand));
    pack -= panels * (1 + p->gated);
    if (p->reduce && pack < panels_of(p->outputs))
        return pack_panel(p->reduce, p->type, p->reduce_bias, p->hidden, p->outputs, pack, packed + at.reduce);
    pack_stencil(&p->stencil, p->hidden, room(p), packed + at.stencil);
}

/* Hidden pixels of normalised ones. */
static void expand(const InvertedBottleneck *p, const float *packed, const float *normal, int64_t count, float *hidden) {
    const Product product = {
        .packed = packed,
        .inputs = p->inputs,
        .outputs = room(p),
        .pairs = pairs_of(p),
        .rows = normal,
        .stride = row_words(p->inputs, pairs_of(p)),
        .count = count,
        .type = SCAN_FLOAT32,
        .output = hidden,
    };
    multiply(&product, ACTIVATION_NONE);
}

static void run(const void *problem, const float *packed, float *scratch, int64_t item) {
    const InvertedBottleneck *p = problem;
    const Layout at = layout(p);
    const int64_t image = item / strips(p), strip = item % strips(p), rows = group_rows(p);
    const int64_t start = strip * p->height / strips(p), end = (strip + 1) * p->height / strips(p);
    const int64_t pixels = image * p->height * p->width;
    const int64_t in_line = p->width * row_words(p->inputs, pairs_of(p)), line = p->width * room(p);
    float *normal = scratch, *hidden = normal + (rows + 2) * in_line, *result = hidden + (rows + 2) * line;
    const Preparation preparation = {.norm = &p->norm, .input = p->input, .type = p->input_type, .channels = p->inputs};
    for (int64_t first = start; first < end; first += rows) {
        const int64_t last = at_most(first + rows, end), to = at_most(last + 1, p->height);
        int64_t from = first + 1; /* rows up to here were done for the group before */
        if (first == start) {
            from = at_least(first - 1, 0);
        } else {
            memmove(normal, normal + rows * in_line, (size_t)(2 * in_line) * sizeof(float));
            memmove(hidden, hidden + rows * line, (size_t)(2 * line) * sizeof(float));
        }
        const int64_t done = from - (first - 1);
        prepare(&preparation, pixels + from * p->width, (to - from) * p->width, pairs_of(p), result + rows * line,
                normal + done * in_line);
        expand(p, packed + at.expand, normal + done * in_line, (to - from) * p->width, hidden + done * line);
        if (p->gated) expand(p, packed + at.gate, normal + in_line, (last - first) * p->width, result);
        for (int64_t y = first; y < last; y++) {
            const float *here = hidden + (y - first + 1) * line;
            float *row_result = result + (y - first) * line; /* of the stencil: a pixel replaces its gate */
            StencilRow row = {
                .packed = packed + at.stencil,
                .width = p->width,
                .channels = room(p),
                .stride = room(p),
                .rows = {y > 0 ? here - line : 0, here, y + 1 < p->height ? here + line : 0},
                .gate = p->gated ? row_result : 0,
                .gate_stride = room(p),
                .output = row_result,
                .output_stride = room(p) * (1 + pairs_of(p)),
                .type = row_type(pairs_of(p)),
            };
            if (!p->reduce) { /* the result is the output itself */
                row.channels = row.output_stride = p->hidden;
                row.output = element(p->output, (pixels + y * p->width) * p->hidden, p->type);
                row.type = p->type;
            }
            stencil_row(&row, p->activation);
        }
        if (p->reduce) {
            const int64_t out = (pixels + first * p->width) * p->outputs;
            const Product product = {
                .packed = packed + at.reduce,
                .inputs = p->hidden,
                .outputs = p->outputs,
                .pairs = pairs_of(p),
                .rows = result,
                .stride = room(p),
                .count = (last - first) * p->width,
                .type = p->type,
                .residual = p->residual ? element(p->residual, out, p->type) : 0,
                .output = element(p->output, out, p->type),
            };
            multiply(&product, ACTIVATION_NONE);
        }
    }
}

const BlockKernel JOIN(inverted_bottleneck_, SCAN_ISA) = {packs, packed_words, items, scratch_floats, pack, run};
