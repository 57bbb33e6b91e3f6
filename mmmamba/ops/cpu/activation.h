/*
 * Activations of several vectors at once: each is a long chain of operations, so several are under way at a time.
 * `count` is a constant where these are inlined.
 */
#ifndef MMMAMBA_ACTIVATION_H
#define MMMAMBA_ACTIVATION_H

#include "blocks.h"
#include "vector.h"

#define EACH _Pragma("GCC unroll 8") for (int i = 0; i < count; i++)
#define MOST 8 /* vectors at once */

/*
 * x Φ(x) with the exact normal distribution: (x + |x| erf(|x|/√2)) / 2. With t = 1 / (1 + 0.39 z), 1 - erf(z) is exp(-z²)
 * times a polynomial of t, fitted for the smallest largest error of the whole: 1.3e-8, and rounding.
 */
INLINE void gelu(Vec *x, int count) {
    Vec a[MOST], t[MOST], e[MOST], p[MOST];
    EACH a[i] = magnitude(x[i]);
    EACH t[i] = splat(1.0f) / (splat(0.2757716446627535f) * a[i] + splat(1.0f));
    EACH e[i] = exp2_lanes(splat(-0.7213475204444817f) * a[i] * a[i], 1);
    EACH p[i] = splat(-0.2273059971365075f) * t[i] + splat(0.8857538771700845f);
    EACH p[i] = p[i] * t[i] + splat(-0.6339747370561981f);
    EACH p[i] = p[i] * t[i] + splat(0.6484507745151107f);
    EACH p[i] = p[i] * t[i] + splat(0.09181657034082025f);
    EACH p[i] = p[i] * t[i] + splat(0.235259538691035f);
    EACH p[i] = splat(1.0f) - p[i] * t[i] * e[i];
    EACH x[i] = splat(0.5f) * a[i] * p[i] + splat(0.5f) * x[i];
}

/* x / (1 + exp(-x)). */
INLINE void silu(Vec *x, int count) {
    Vec e[MOST];
    EACH x[i] = larger(splat(-80.0f), x[i]); /* exp(-x) stays finite, and the result is nearly zero; a NaN passes */
    EACH e[i] = exp2_lanes(splat(-1.4426950408889634f) * x[i], 1);
    EACH x[i] = x[i] / (e[i] + splat(1.0f));
}

INLINE void relu(Vec *x, int count) {
    EACH x[i] = select_lanes(x[i] < splat(0.0f), splat(0.0f), x[i]); /* a NaN passes */
}

INLINE void activate(Vec *x, int count, int64_t activation) {
    if (activation == ACTIVATION_GELU) gelu(x, count);
    else if (activation == ACTIVATION_SILU) silu(x, count);
    else if (activation == ACTIVATION_RELU) relu(x, count);
}

#endif
