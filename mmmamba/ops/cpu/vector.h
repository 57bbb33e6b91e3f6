/* Vectors of LANES floats and the few functions of them that the kernels need. */
#ifndef MMMAMBA_VECTOR_H
#define MMMAMBA_VECTOR_H

#include <stdint.h>
#include <string.h>

#if defined(SCAN_USE_AVX512)
#include <immintrin.h>
#define LANES 16
#elif defined(SCAN_USE_AVX2)
#include <immintrin.h>
#define LANES 8
#else
#define LANES 4
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef int32_t VecInt __attribute__((vector_size(4 * LANES)));
typedef float VecUnaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE Vec splat(float value) {
#if LANES == 16
    return (Vec){value, value, value, value, value, value, value, value,
                 value, value, value, value, value, value, value, value};
#elif LANES == 8
    return (Vec){value, value, value, value, value, value, value, value};
#else
    return (Vec){value, value, value, value};
#endif
}

/* The first `count` lanes from memory, the others zero. */
INLINE Vec load(const float *from, int count) {
    if (count == LANES) return *(const VecUnaligned *)from;
#if defined(SCAN_USE_AVX512)
    return (Vec)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
#else
    Vec part = splat(0);
    for (int i = 0; i < count; i++) part[i] = from[i];
    return part;
#endif
}

/* The first `count` lanes to memory, which keeps what lies behind them. */
INLINE void store(float *to, Vec value, int count) {
    if (count == LANES) {
        *(VecUnaligned *)to = value;
        return;
    }
#if defined(SCAN_USE_AVX512)
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)value);
#else
    for (int i = 0; i < count; i++) to[i] = value[i];
#endif
}

INLINE void store_add(float *to, Vec value, int count) { store(to, load(to, count) + value, count); }

INLINE Vec select_lanes(VecInt mask, Vec if_set, Vec otherwise) {
    return (Vec)(((VecInt)if_set & mask) | ((VecInt)otherwise & ~mask));
}

/*
 * 2^t, relative error below 2e-7, exactly 1 at 0 so that a slow decay gathers no bias over a long sequence. Minimax
 * polynomial of degree 5 on [-0.5, 0.5]. Below 2^-126 the result is only known to be below 2^-125.
 */
INLINE Vec exp2_lanes(Vec t) {
#if defined(SCAN_USE_AVX512)
    t = (Vec)_mm512_max_ps((__m512)splat(-200.0f), (__m512)t); /* this order of arguments lets a NaN through */
    const Vec whole = (Vec)_mm512_roundscale_ps((__m512)t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Vec r = t - whole;
#else
    const Vec low = splat(-126.0f), high = splat(127.99999f);
    t = select_lanes(t < low, low, select_lanes(t > high, high, t));
    const Vec shift = splat(12582912.0f); /* 1.5 * 2^23: adding it leaves the nearest integer in the low bits */
    const Vec shifted = t + shift;
    const Vec r = t - (shifted - shift);
#endif
    Vec p = splat(0.001326472731307149f);
    p = p * r + splat(0.009671512991189957f);
    p = p * r + splat(0.05550733581185341f);
    p = p * r + splat(0.24022242426872253f);
    p = p * r + splat(0.6931470036506653f);
    p = p * r + splat(1.0f);
#if defined(SCAN_USE_AVX512)
    return (Vec)_mm512_scalef_ps((__m512)p, (__m512)whole);
#else
    return (Vec)((VecInt)p + ((VecInt)shifted << 23));
#endif
}

/*
 * log(1 + exp(v)) and its derivative. With e = exp(-|v|) and s = e / (2 + e), log(1 + e) = 2 atanh(s), which keeps the
 * relative accuracy where the result is small.
 */
INLINE Vec softplus_lanes(Vec v, Vec *derivative) {
    const Vec zero = splat(0.0f), one = splat(1.0f), two = splat(2.0f);
    const VecInt positive = v > zero;
    const Vec e = exp2_lanes(select_lanes(positive, -v, v) * splat(1.4426950408889634f));
    const Vec s = e / (two + e), z = s * s;
    Vec p = splat(0.1400599181652069f);
    p = p * z + splat(0.14000903069972992f);
    p = p * z + splat(0.2001076340675354f);
    p = p * z + splat(0.3333320915699005f);
    p = p * z + one;
    if (derivative) *derivative = select_lanes(positive, one, e) / (one + e);
    return select_lanes(positive, v, zero) + two * s * p;
}

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (VecInt){__VA_ARGS__})
#endif

/*
 * Lane i of the result is the sum of all lanes of v[i]: LANES sums for three operations a vector. Each level adds
 * halves (quarters, ...) of two vectors into one; the order of pairs undoes the interleaving.
 */
INLINE Vec sum_each(const Vec *v) {
#if LANES == 16
#define HALVES(a, b) (SHUFFLE(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) + \
                      SHUFFLE(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
#define QUARTERS(a, b) (SHUFFLE(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) + \
                        SHUFFLE(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
#define PAIRS(a, b) (SHUFFLE(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) + \
                     SHUFFLE(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
#define SINGLES(a, b) (SHUFFLE(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) + \
                       SHUFFLE(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
    Vec w[8];
    for (int i = 0; i < 8; i++) w[i] = HALVES(v[i], v[i + 8]);
    for (int i = 0; i < 4; i++) w[i] = QUARTERS(w[i], w[i + 4]);
    for (int i = 0; i < 2; i++) w[i] = PAIRS(w[i], w[i + 2]);
    return SINGLES(w[0], w[1]);
#elif LANES == 8
#define HALVES(a, b) (SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15))
#define PAIRS(a, b) (SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13) + SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15))
#define SINGLES(a, b) (SHUFFLE(a, b, 0, 8, 2, 10, 4, 12, 6, 14) + SHUFFLE(a, b, 1, 9, 3, 11, 5, 13, 7, 15))
    Vec w[4];
    for (int i = 0; i < 4; i++) w[i] = HALVES(v[i], v[i + 4]);
    for (int i = 0; i < 2; i++) w[i] = PAIRS(w[i], w[i + 2]);
    return SINGLES(w[0], w[1]);
#else
#define PAIRS(a, b) (SHUFFLE(a, b, 0, 1, 4, 5) + SHUFFLE(a, b, 2, 3, 6, 7))
#define SINGLES(a, b) (SHUFFLE(a, b, 0, 4, 2, 6) + SHUFFLE(a, b, 1, 5, 3, 7))
    return SINGLES(PAIRS(v[0], v[2]), PAIRS(v[1], v[3]));
#endif
}

#endif
