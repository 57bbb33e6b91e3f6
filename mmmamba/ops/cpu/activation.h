/* Activations of vectors. */
#ifndef MMMAMBA_ACTIVATION_H
#define MMMAMBA_ACTIVATION_H

#include "blocks.h"
#include "vector.h"

/*
 * x Φ(x) with the exact normal distribution: max(x, 0) - |x|/2 erfc(|x|/√2). With t = 1 / (1 + 0.39 z), erfc(z) is
 * exp(-z²) times a polynomial of t, fitted for the smallest largest error of the whole: 1.3e-8, and rounding.
 */
INLINE Vec gelu_lanes(Vec x) {
    const Vec zero = splat(0.0f), one = splat(1.0f), far = splat(16.0f); /* where the second term has vanished */
    const VecInt positive = x > zero;
    Vec a = select_lanes(positive, x, -x);
    a = select_lanes(a > far, far, a); /* infinity has no product with a vanished erfc; a NaN passes */
    const Vec t = one / (one + splat(0.2757716446627535f) * a);
    Vec p = splat(-0.2273059971365075f);
    p = p * t + splat(0.8857538771700845f);
    p = p * t + splat(-0.6339747370561981f);
    p = p * t + splat(0.6484507745151107f);
    p = p * t + splat(0.09181657034082025f);
    p = p * t + splat(0.235259538691035f);
    const Vec tail = splat(0.5f) * a * (t * p) * exp2_lanes(splat(-0.7213475204444817f) * a * a);
    return select_lanes(positive, x, zero) - tail;
}

/* x / (1 + exp(-x)). */
INLINE Vec silu_lanes(Vec x) {
    const Vec bound = splat(-80.0f); /* exp(-x) stays finite */
    const Vec bounded = select_lanes(x < bound, bound, x);
    return x / (splat(1.0f) + exp2_lanes(splat(-1.4426950408889634f) * bounded));
}

INLINE Vec activate(Vec x, int64_t activation) {
    if (activation == ACTIVATION_GELU) return gelu_lanes(x);
    if (activation == ACTIVATION_SILU) return silu_lanes(x);
    if (activation == ACTIVATION_RELU) return select_lanes(x < splat(0.0f), splat(0.0f), x); /* a NaN passes */
    return x;
}

#endif
