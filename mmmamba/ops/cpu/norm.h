/* The layer norm over the channels of a pixel. */
#ifndef MMMAMBA_NORM_H
#define MMMAMBA_NORM_H

#include "activation.h"

#define GATES 4 /* vectors of a gate that are activated at a time */

INLINE int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

/* `count` elements from index `at` on in float32: where they lie, or in `room` if they have to be widened. */
INLINE const float *widened(const void *array, int64_t at, int64_t count, int64_t type, float *room) {
    if (type == SCAN_FLOAT32) return (const float *)array + at;
    for (int64_t i = 0; i < count; i += LANES) {
        const int lanes = (int)at_most(LANES, count - i);
        store(room + i, load_from(array, at + i, type, lanes), lanes);
    }
    return room;
}

/* Mean and 1 / deviation of up to LANES pixels of n channels, in the lanes of the two vectors. */
INLINE void moments(const float *rows, int64_t n, int count, float epsilon, Vec *mean, Vec *scale) {
    const Vec over = splat(1.0f / (float)n);
    Vec parts[LANES];
    for (int r = 0; r < LANES; r++) {
        parts[r] = splat(0);
        for (int64_t i = 0; r < count && i < n; i += LANES)
            parts[r] += load(rows + r * n + i, (int)at_most(LANES, n - i));
    }
    *mean = sum_each(parts) * over;
    for (int r = 0; r < count; r++) {
        const Vec centre = splat((*mean)[r]);
        parts[r] = splat(0);
        for (int64_t i = 0; i < n; i += LANES) {
            const int lanes = (int)at_most(LANES, n - i);
            const Vec centred = load(rows + r * n + i, lanes) - load((const float *)&centre, lanes); /* zero behind */
            parts[r] += centred * centred;
        }
    }
    *scale = sum_each(parts) * over + splat(epsilon);
    UNROLL for (int r = 0; r < LANES; r++) (*scale)[r] = 1.0f / __builtin_sqrtf((*scale)[r]);
}

#endif
