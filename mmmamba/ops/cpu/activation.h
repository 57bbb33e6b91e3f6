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
 * erf(|x|/√2), and exp(-x²/2). With t = 1 / (1 + 0.39 z), 1 - erf(z) is exp(-z²) times a polynomial of t, fitted for the
 * smallest largest error of x Φ(x): 1.3e-8, and rounding.
 */
INLINE void normal_distribution(const Vec *x, Vec *erf, Vec *density, int count) {
    Vec a[MOST], t[MOST], p[MOST];
    EACH a[i] = magnitude(x[i]);
    EACH t[i] = splat(1.0f) / (splat(0.2757716446627535f) * a[i] + splat(1.0f));
    /* From far before this limit on, nothing is left of 1 - erf; a NaN passes. */
    EACH density[i] = exp2_lanes(larger(splat(-EXPONENT_LIMIT), splat(-0.7213475204444817f) * a[i] * a[i]), 0);
    EACH p[i] = splat(-0.2273059971365075f) * t[i] + splat(0.8857538771700845f);
    EACH p[i] = p[i] * t[i] + splat(-0.6339747370561981f);
    EACH p[i] = p[i] * t[i] + splat(0.6484507745151107f);
    EACH p[i] = p[i] * t[i] + splat(0.09181657034082025f);
    EACH p[i] = p[i] * t[i] + splat(0.235259538691035f);
    EACH erf[i] = splat(1.0f) - p[i] * t[i] * density[i];
}

/* x Φ(x) with the exact normal distribution: (x + |x| erf(|x|/√2)) / 2. */
INLINE void gelu(Vec *x, int count) {
    Vec erf[MOST], density[MOST];
    normal_distribution(x, erf, density, count);
    EACH x[i] = splat(0.5f) * magnitude(x[i]) * erf[i] + splat(0.5f) * x[i];
}

/* The same, and its derivative Φ(x) + x φ(x). */
INLINE void gelu_with_slope(Vec *x, Vec *slope, int count) {
    Vec erf[MOST], density[MOST];
    normal_distribution(x, erf, density, count);
    EACH erf[i] = select_lanes(x[i] < splat(0.0f), -erf[i], erf[i]);
    EACH slope[i] = splat(0.5f) + splat(0.5f) * erf[i] + splat(0.3989422804014327f) * x[i] * density[i];
    EACH x[i] = splat(0.5f) * x[i] * erf[i] + splat(0.5f) * x[i];
}

/* x / (1 + exp(-x)). */
INLINE void silu(Vec *x, int count) {
    Vec e[MOST];
    EACH x[i] = larger(splat(-80.0f), x[i]); /* exp(-x) stays finite, and the result is nearly zero; a NaN passes */
    EACH e[i] = exp2_lanes(splat(-1.4426950408889634f) * x[i], 1);
    EACH x[i] = x[i] / (e[i] + splat(1.0f));
}

/* The same, and its derivative: with s = 1 / (1 + exp(-x)), s + x s (1 - s). */
INLINE void silu_with_slope(Vec *x, Vec *slope, int count) {
    Vec e[MOST], s[MOST];
    EACH e[i] = exp2_lanes(splat(-1.4426950408889634f) * larger(splat(-80.0f), x[i]), 1);
    EACH s[i] = splat(1.0f) / (e[i] + splat(1.0f));
    EACH slope[i] = s[i] + x[i] * s[i] * (splat(1.0f) - s[i]);
    EACH x[i] = x[i] * s[i];
}

INLINE void relu(Vec *x, int count) {
    EACH x[i] = select_lanes(x[i] < splat(0.0f), splat(0.0f), x[i]); /* a NaN passes */
}

INLINE void activate(Vec *x, int count, int64_t activation) {
    if (activation == ACTIVATION_GELU) gelu(x, count);
    else if (activation == ACTIVATION_SILU) silu(x, count);
    else if (activation == ACTIVATION_RELU) relu(x, count);
}

/* activate(), and the derivative at what x was. */
INLINE void activate_with_slope(Vec *x, Vec *slope, int count, int64_t activation) {
    if (activation == ACTIVATION_GELU) {
        gelu_with_slope(x, slope, count);
    } else if (activation == ACTIVATION_SILU) {
        silu_with_slope(x, slope, count);
    } else if (activation == ACTIVATION_RELU) {
        EACH slope[i] = select_lanes(x[i] > splat(0.0f), splat(1.0f), splat(0.0f));
        relu(x, count);
    } else {
        EACH slope[i] = splat(1.0f);
    }
}

/* Runs `call` with a constant `activation` where it is the usual one, so that the others do not slow it down. */
#define WITH_ACTIVATION(p, call)                          \
    if ((p)->activation == ACTIVATION_GELU) {             \
        const int64_t activation = ACTIVATION_GELU;       \
        call;                                             \
    } else {                                              \
        const int64_t activation = (p)->activation;       \
        call;                                             \
    }

#endif
