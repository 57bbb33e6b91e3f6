/* What a runtime's node runs, whichever the runtime: shapes and orders are checked before anything is read. */
#include "scan_op.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK 64 /* steps that the kernel gathers at once */

/* The sizes of every input by their letters in exported.py; M stands for R + 2 N. */
typedef struct {
    const char *name, *sizes;
} Input;

static const Input inputs_of[SCAN_OPS][SCAN_OP_MOST_INPUTS] = {
    [SS2D_SCAN] = {{"x", "BPD"}, {"projected", "BPKM"}, {"dt_weight", "KDR"}, {"bias", "KD"}, {"A", "KDN"},
                   {"D", "KD"}, {"orders", "KT"}, {"places", "KP"}},
    [SELECTIVE_SCAN] = {{"x", "BPD"}, {"projected", "BPM"}, {"delta", "BPD"}, {"A", "DN"}, {"D", "D"}},
};

const ScanOp scan_ops[SCAN_OPS] = {
    [SS2D_SCAN] = {"SS2DScan", 8, 6},
    [SELECTIVE_SCAN] = {"SelectiveScan", 5, 5},
};

int scan_op_has_version(const ScanOp *op, int64_t version, char message[SCAN_OP_MESSAGE]) {
    if (version == SCAN_OP_VERSION) return 1;
    snprintf(message, SCAN_OP_MESSAGE, "%s: the file wants version %lld of the operator, but the library has version %d.",
             op->name, (long long)version, SCAN_OP_VERSION);
    return 0;
}

typedef struct {
    int64_t of[26]; /* by letter; -1 where no input has had it yet */
} Sizes;

static int64_t size_of(const Sizes *sizes, char letter) { return sizes->of[letter - 'A']; }

/* Writes that an input has the wrong shape. */
static int wrong_shape(const ScanOp *op, const Input *input, const ScanTensor *tensor, const Sizes *sizes,
                       char *message) {
    char found[128] = "", wanted[192] = ""; /* room for four of the longest numbers */
    for (size_t i = 0, at = 0; i < tensor->rank && tensor->rank <= SCAN_OP_MOST_SIZES; i++)
        at += (size_t)snprintf(found + at, sizeof found - at, i ? ", %lld" : "%lld", (long long)tensor->sizes[i]);
    if (tensor->rank > SCAN_OP_MOST_SIZES) snprintf(found, sizeof found, "%zu dimensions", tensor->rank);
    for (size_t i = 0, at = 0; input->sizes[i]; i++) {
        const char letter = input->sizes[i];
        const char *name = letter == 'M' ? strchr(input->sizes, 'K') ? "R + 2 N" : "2 N" : (char[]){letter, 0};
        at += (size_t)snprintf(wanted + at, sizeof wanted - at, i ? ", %s" : "%s", name);
        if (size_of(sizes, letter) >= 0)
            at += (size_t)snprintf(wanted + at, sizeof wanted - at, " = %lld", (long long)size_of(sizes, letter));
    }
    snprintf(message, SCAN_OP_MESSAGE, "%s: %s has the shape (%s), not (%s).", op->name, input->name, found,
             wanted);
    return 1;
}

static int check_shapes(const ScanOp *op, const ScanTensor *tensors, Sizes *sizes, char *message) {
    const Input *inputs = inputs_of[op - scan_ops];
    memset(sizes, -1, sizeof *sizes);
    for (size_t i = 0; i < op->inputs; i++) {
        if (tensors[i].rank != strlen(inputs[i].sizes)) return wrong_shape(op, &inputs[i], &tensors[i], sizes, message);
        for (size_t axis = 0; axis < tensors[i].rank; axis++) {
            int64_t *size = &sizes->of[inputs[i].sizes[axis] - 'A'];
            if (*size < 0) *size = tensors[i].sizes[axis];
            if (*size != tensors[i].sizes[axis]) return wrong_shape(op, &inputs[i], &tensors[i], sizes, message);
        }
    }
    const uint64_t rank = op == &scan_ops[SS2D_SCAN] ? (uint64_t)size_of(sizes, 'R') : 0;
    const uint64_t columns = rank + 2 * (uint64_t)size_of(sizes, 'N');
    if ((uint64_t)size_of(sizes, 'M') == columns) return 0;
    sizes->of['M' - 'A'] = (int64_t)columns;
    return wrong_shape(op, &inputs[1], &tensors[1], sizes, message);
}

/* Orders in the form that the kernel takes. */
typedef struct {
    int users;                /* this many release it; the last one frees it */
    int64_t directions, steps, pixels;
    int sequence;             /* one direction, all pixels in their order */
    int32_t *visits;          /* (directions, steps) */
    ScanOrder *orders;        /* (directions), without padded pixels at their end: nothing comes after those */
    int64_t longest, shortest;
    int overlap, covered;     /* as in ScanProblem */
} Table;

struct ScanOrders {
    pthread_mutex_t lock;     /* of `last`, and of taking it */
    Table *last;
};

ScanOrders *scan_orders_new(void) {
    ScanOrders *orders = calloc(1, sizeof *orders);
    if (orders && pthread_mutex_init(&orders->lock, NULL)) {
        free(orders);
        return NULL;
    }
    return orders;
}

static void release(Table *table) {
    if (!table || __atomic_sub_fetch(&table->users, 1, __ATOMIC_ACQ_REL)) return;
    free(table->visits);
    free(table->orders);
    free(table);
}

void scan_orders_free(ScanOrders *orders) {
    if (!orders) return;
    release(orders->last);
    pthread_mutex_destroy(&orders->lock);
    free(orders);
}

static int same(const Table *table, const int64_t *visits, int64_t directions, int64_t steps, int64_t pixels) {
    if (table->directions != directions || table->steps != steps || table->pixels != pixels) return 0;
    if (!visits || table->sequence) return !visits && table->sequence;
    int differ = 0; /* without a branch in the loop, it runs at the speed of memory */
    for (int64_t i = 0; i < directions * steps; i++) differ |= table->visits[i] != visits[i];
    return !differ;
}

/* Checks the places of a direction, of which `seen` has the pixels that it visits in its lowest bit. */
static int check_places(const Table *t, int64_t k, const int64_t *places, const unsigned char *seen, const char *name,
                        char *message) {
    for (int64_t pixel = 0; pixel < t->pixels; pixel++) {
        const int64_t step = places[k * t->pixels + pixel];
        if (seen[pixel] & 1 ? step >= 0 && step < t->steps && t->visits[k * t->steps + step] == pixel
                            : step == t->steps) continue;
        snprintf(message, SCAN_OP_MESSAGE, "%s: places has step %lld for pixel %lld in direction %lld, and orders not.",
                 name, (long long)step, (long long)pixel, (long long)k);
        return 1;
    }
    return 0;
}

/* Fills a table of which all memory is there; `seen` has a byte for every pixel. */
static int fill(Table *t, const int64_t *visits, const int64_t *places, unsigned char *seen, const char *name,
                char *message) {
    const int64_t pixels = t->pixels;
    int64_t visited = 0, fewest = pixels;
    memset(seen, 0, (size_t)pixels);
    for (int64_t k = 0; k < t->directions; k++) {
        int64_t steps = 0, count = 0;
        for (int64_t i = 0; i < t->steps; i++) {
            const int64_t pixel = visits ? visits[k * t->steps + i] : i;
            if (pixel < 0 || pixel > pixels) {
                snprintf(message, SCAN_OP_MESSAGE, "%s: orders has %lld in direction %lld, but there are %lld pixels.",
                         name, (long long)pixel, (long long)k, (long long)pixels);
                return 1;
            }
            t->visits[k * t->steps + i] = (int32_t)pixel;
            if (pixel == pixels) continue;
            if (seen[pixel] & 1) {
                snprintf(message, SCAN_OP_MESSAGE, "%s: direction %lld of orders visits pixel %lld twice.", name,
                         (long long)k, (long long)pixel);
                return 1;
            }
            t->overlap |= seen[pixel];
            seen[pixel] |= 1;
            steps = i + 1;
            count++;
        }
        if (places && check_places(t, k, places, seen, name, message)) return 1;
        for (int64_t i = 0; i < pixels; i++) seen[i] = seen[i] ? 2 : 0; /* by a direction before the next one */
        t->orders[k] = (ScanOrder){t->visits + k * t->steps, steps};
        if (k == 0 || steps < t->shortest) t->shortest = steps;
        if (steps > t->longest) t->longest = steps;
        if (count < fewest) fewest = count;
        visited += count;
    }
    t->overlap = t->overlap != 0;
    t->covered = t->overlap ? fewest == pixels : visited == pixels;
    return 0;
}

static Table *build(const int64_t *visits, const int64_t *places, int64_t directions, int64_t steps, int64_t pixels,
                    const char *name, char *message) {
    Table *table = calloc(1, sizeof *table);
    unsigned char *seen = malloc((size_t)pixels + 1);
    int failed = 1;
    if (table) {
        *table = (Table){.users = 1, .directions = directions, .steps = steps, .pixels = pixels, .sequence = !visits};
        table->visits = malloc(((size_t)directions * (size_t)steps + 1) * sizeof(int32_t));
        table->orders = malloc(((size_t)directions + 1) * sizeof(ScanOrder));
        if (table->visits && table->orders && seen) failed = fill(table, visits, places, seen, name, message);
    }
    free(seen);
    if (!failed) return table;
    release(table);
    return NULL;
}

/*
 * The table of these visits, or of a sequence for NULL: the last one if it is the same; the places of a new one are
 * checked, which the kernels do not take. NULL with a message.
 */
static Table *take(ScanOrders *orders, const int64_t *visits, const int64_t *places, int64_t directions, int64_t steps,
                   int64_t pixels, const char *name, char *message) {
    pthread_mutex_lock(&orders->lock);
    Table *table = orders->last;
    if (table) __atomic_add_fetch(&table->users, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&orders->lock);
    if (table && same(table, visits, directions, steps, pixels)) return table;
    release(table);
    table = build(visits, places, directions, steps, pixels, name, message);
    if (!table) return NULL;
    __atomic_add_fetch(&table->users, 1, __ATOMIC_RELAXED);
    pthread_mutex_lock(&orders->lock);
    Table *before = orders->last;
    orders->last = table;
    pthread_mutex_unlock(&orders->lock);
    release(before);
    return table;
}

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t ratio_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/*
 * Cuts channels into parts and steps into segments as ../../ops/cpu/scan.py does. Segments cost a second pass, so they
 * are for known threads only.
 */
static void split(const ScanProblem *p, int64_t blocks, int64_t chunks, int64_t threads, ScanOutputs *out) {
    const int64_t turns = p->overlap ? p->directions : 1, sequences = p->batch * (p->overlap ? 1 : p->directions);
    const int64_t workers = threads ? threads : sysconf(_SC_NPROCESSORS_ONLN), busy = workers > 1 ? 2 * workers : 1;
    const int64_t most_parts = smaller(blocks, 2 * workers), most_segments = smaller(chunks, 2 * workers);
    double best = 0;
    out->parts = smaller(blocks, workers); /* every part reads the projections anew */
    out->segments = 1;
    for (int64_t segments = 1; threads && segments <= most_segments; segments++)
        for (int64_t parts = 1; parts <= most_parts; parts++) {
            const int64_t item = ratio_up(blocks, parts) * ratio_up(chunks, segments);
            const int64_t rounds = turns * ratio_up(sequences * parts * segments, threads);
            const int64_t before = ratio_up(sequences * turns * parts * (segments - 1), threads);
            const double time = (double)item * ((double)rounds + 0.8 * (double)before);
            const int first = segments == 1 && parts == 1;
            const int fuller = segments == out->segments
                && smaller(sequences * parts, busy) > smaller(sequences * out->parts, busy);
            if (first || time < best || (time == best && fuller)) {
                best = time;
                out->parts = parts;
                out->segments = segments;
            }
        }
}

int scan_op_run(const ScanOp *op, const ScanTensor *inputs, float *y, ScanOrders *orders, const ScanPool *pool,
                int64_t threads, char message[SCAN_OP_MESSAGE]) {
    const int ss2d = op == &scan_ops[SS2D_SCAN];
    Sizes sizes;
    if (check_shapes(op, inputs, &sizes, message)) return 1;
    const int64_t batch = size_of(&sizes, 'B'), pixels = size_of(&sizes, 'P'), channels = size_of(&sizes, 'D');
    const int64_t states = size_of(&sizes, 'N'), directions = ss2d ? size_of(&sizes, 'K') : 1;
    if (!batch || !pixels || !channels) return 0;
    const size_t outputs = (size_t)batch * (size_t)pixels * (size_t)channels;
    if (pixels >= INT32_MAX || !directions) {
        snprintf(message, SCAN_OP_MESSAGE, "%s: there are %lld pixels and %lld directions.", op->name,
                 (long long)pixels, (long long)directions);
        return 1;
    }
    snprintf(message, SCAN_OP_MESSAGE, "%s: memory ran out.", op->name);
    Table *table = take(orders, ss2d ? inputs[6].data : NULL, ss2d ? inputs[7].data : NULL, directions,
                        ss2d ? size_of(&sizes, 'T') : pixels, pixels, op->name, message);
    if (!table) return 1;
    ScanProblem problem = {
        .batch = batch, .groups = 1, .directions = directions, .channels = channels, .states = states,
        .rank = ss2d ? size_of(&sizes, 'R') : 0, .pixels = pixels, .chunk = CHUNK, .steps = table->longest,
        .softplus = ss2d, .overlap = table->overlap, .covered = table->covered, .orders = table->orders,
        .x = inputs[0].data, .projected = inputs[1].data, .A = inputs[ss2d ? 4 : 3].data,
        .D = inputs[ss2d ? 5 : 4].data,
    };
    if (ss2d) {
        problem.dt_weight = inputs[2].data;
        problem.bias = inputs[3].data;
    } else {
        problem.delta = inputs[2].data;
    }
    int64_t isa = SCAN_ISAS - 1;
    while (!scan_has_isa(isa)) isa--;
    ScanOutputs out = {.y = y, .sum = y};
    split(&problem, ratio_up(channels, scan_lanes(isa)), ratio_up(table->shortest, CHUNK), threads, &out);
    if (!table->covered) memset(y, 0, outputs * sizeof(float));
    if (out.segments > 1) {
        const int64_t each = (states + 1) * ratio_up(channels, 16) * 16; /* as wide as the widest vector */
        out.ends = malloc((size_t)(batch * directions * out.segments * each) * sizeof(float));
    }
    int failed = out.segments > 1 && !out.ends;
    if (!failed) failed = (int)scan_forward_on(&problem, &out, isa, pool);
    free(out.ends);
    release(table);
    return failed;
}
