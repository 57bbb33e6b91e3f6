/*
 * The operators of ../../ops/scan/exported.py for other runtimes: whatever a file holds is checked, then the kernels of
 * ../../ops/cpu run on the runtime's own threads. Plain C.
 */
#ifndef MMMAMBA_SCAN_OP_H
#define MMMAMBA_SCAN_OP_H

#include <stddef.h>
#include <stdint.h>

#include "scan.h"

/*
 * Of both operators, in the domain SCAN_OP_DOMAIN; raised with every change of what they take or compute. A node of
 * another version than 1 has an attribute of this name.
 */
#define SCAN_OP_VERSION 1
#define SCAN_OP_VERSION_ATTRIBUTE "version"
#define SCAN_OP_DOMAIN "mmmamba"

enum { SCAN_OP_MOST_INPUTS = 8, SCAN_OP_MOST_SIZES = 4, SCAN_OP_MESSAGE = 512 };

/* SS2DScan and SelectiveScan; the second has no orders. */
typedef struct {
    const char *name;
    size_t inputs;
    size_t first_table; /* inputs from there on are int64, those before float32 */
} ScanOp;
enum { SS2D_SCAN, SELECTIVE_SCAN, SCAN_OPS };
extern const ScanOp scan_ops[SCAN_OPS];

/* Whether these are the operators of a version; if not, one line of text in `message`. */
int scan_op_has_version(const ScanOp *op, int64_t version, char message[SCAN_OP_MESSAGE]);

/* A dense array. */
typedef struct {
    const void *data;
    size_t rank;
    int64_t sizes[SCAN_OP_MOST_SIZES]; /* unset where the rank is higher */
} ScanTensor;

/* The orders of a node's last run, checked. Threads may share it. */
typedef struct ScanOrders ScanOrders;
ScanOrders *scan_orders_new(void); /* NULL if memory ran out */
void scan_orders_free(ScanOrders *orders);

/*
 * Computes y, as large as x, on a pool of so many threads; 0 if that is not known. Returns 0, or 1 with one line of
 * text in `message`.
 */
int scan_op_run(const ScanOp *op, const ScanTensor *inputs, float *y, ScanOrders *orders, const ScanPool *pool,
                int64_t threads, char message[SCAN_OP_MESSAGE]);

#endif
