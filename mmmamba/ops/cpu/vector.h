/* Vectors of LANES floats and the few functions of them that the kernels need. */
#ifndef MMMAMBA_VECTOR_H
#define MMMAMBA_VECTOR_H

/* Here and not among the compiler's arguments, of which older ones would refuse it and build nothing. */
#if defined(SCAN_USE_AVX512_BF16) && !defined(__clang__) && __GNUC__ >= 10
#pragma GCC target("avx512bw,avx512bf16")
#endif

/* With -march=native the compiler has them for every file, but only one is compiled for CPUs that do. */
#if defined(SCAN_USE_AVX512_BF16) && defined(__AVX512BF16__)
#define HAS_BFLOAT16
#endif

#include <float.h>
#include <string.h>

#include "scan.h"

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
#define UNROLL _Pragma("GCC unroll 16")
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

INLINE int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef int32_t VecInt __attribute__((vector_size(4 * LANES)));
typedef uint32_t VecBits __attribute__((vector_size(4 * LANES)));
typedef uint16_t Shorts __attribute__((vector_size(2 * LANES)));
typedef float HalfVec __attribute__((vector_size(2 * LANES), aligned(4), may_alias));
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

INLINE Vec select_lanes(VecInt mask, Vec if_set, Vec otherwise) {
    return (Vec)(((VecInt)if_set & mask) | ((VecInt)otherwise & ~mask));
}

INLINE Vec magnitude(Vec v) { return (Vec)((VecInt)v & 0x7fffffff); }

/* The larger one of each lane; b where one of them is not a number. */
INLINE Vec larger(Vec a, Vec b) {
#if LANES == 16
    return (Vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif LANES == 8
    return (Vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return select_lanes(a > b, a, b);
#endif
}

/* The larger one of each lane, of magnitudes: not a number is larger than all numbers. */
INLINE Vec larger_magnitude(Vec a, Vec b) { return select_lanes((VecInt)a > (VecInt)b, a, b); }

/* Infinity as the largest number; what is not a number stays so. */
INLINE Vec to_finite(Vec v) {
    const Vec most = splat(FLT_MAX);
    return select_lanes(v > most, most, larger(-most, v));
}

/* Float16 or bfloat16 in the low bits of every lane, as float32. */
INLINE Vec widen_lanes(VecBits bits, int64_t type) {
    if (type == SCAN_BFLOAT16) return (Vec)(bits << 16);
    const VecBits sign = (bits & 0x8000) << 16, rest = bits & 0x7fff;
    const VecBits to_bias = 112u << 23 & (VecBits)(rest < 0x7c00), to_infinity = 224u << 23 & (VecBits)(rest >= 0x7c00);
    const VecBits normal = (rest << 13) + to_bias + to_infinity;
    const Vec denormal = __builtin_convertvector((VecInt)rest, Vec) * splat(0x1p-24f);
    return (Vec)((VecBits)select_lanes((VecInt)(rest < 0x400), denormal, (Vec)normal) | sign);
}

/* Float32 rounded to the nearest float16 or bfloat16, in the low bits of every lane. */
INLINE VecBits narrow_lanes(Vec v, int64_t type) {
    const VecBits all = (VecBits)v, sign = (all & 0x80000000u) >> 16, rest = all & 0x7fffffff;
    const VecInt nan = (VecInt)(rest > 0x7f800000);
    VecBits rounded;
    if (type == SCAN_BFLOAT16) {
        rounded = (rest + 0x7fff + (rest >> 16 & 1)) >> 16;
        return (VecBits)select_lanes(nan, (Vec)(rounded | 0x7fc0), (Vec)rounded) | sign;
    }
    const VecInt small = (VecInt)(rest < 113u << 23), large = (VecInt)(rest >= 143u << 23);
    const VecBits normal = (rest - (112u << 23) + 0xfff + (rest >> 13 & 1)) >> 13;
    const VecBits denormal = (VecBits)((Vec)rest + splat(0.5f)) - (126u << 23); /* the addition rounds to 2^-24 */
    rounded = (VecBits)select_lanes(small, (Vec)denormal, (Vec)normal);
    rounded = (rounded & (VecBits)~large) | (0x7c00 & (VecBits)large);
    return rounded | (0x200 & (VecBits)nan) | sign;
}

/* load() and store() of the elements from index `at` on of an array of any type. */
INLINE Vec load_from(const void *array, int64_t at, int64_t type, int count) {
    if (type == SCAN_FLOAT32) return load((const float *)array + at, count);
    Shorts part = {0};
    memcpy(&part, (const uint16_t *)array + at, count == LANES ? sizeof part : (size_t)count * sizeof(uint16_t));
    return widen_lanes(__builtin_convertvector(part, VecBits), type);
}

INLINE void store_to(void *array, int64_t at, int64_t type, Vec value, int count) {
    if (type == SCAN_FLOAT32) {
        store((float *)array + at, value, count);
        return;
    }
#if defined(HAS_BFLOAT16)
    const Shorts part = type == SCAN_BFLOAT16 ? (Shorts)_mm512_cvtneps_pbh((__m512)value)
                                              : __builtin_convertvector(narrow_lanes(value, type), Shorts);
#else
    const Shorts part = __builtin_convertvector(narrow_lanes(value, type), Shorts);
#endif
    memcpy((uint16_t *)array + at, &part, count == LANES ? sizeof part : (size_t)count * sizeof(uint16_t));
}

/* Where element `at` of an array of any type is. */
INLINE void *element(const void *array, int64_t at, int64_t type) {
    return (char *)array + at * (type == SCAN_FLOAT32 ? 4 : 2);
}

/* Magnitude of the exponents up to which exp2_lanes() needs no limits: what it takes from its table is still normal. */
#define EXPONENT_LIMIT 121.0f
/* Beyond it, 2^t counts as infinite: a little early, so that no power of two on the way is. */
#define LARGEST_EXPONENT 127.96f

/*
 * 2^t, relative error below 2e-7, and exactly 1 at 0 with an exact slope there so that a slow decay gathers no bias
 * over a long sequence. Adding `shift` rounds t to a multiple of the last bit kept and leaves that multiple in the low
 * bits of the sum; `r` is the rest of t. That holds for |t| up to EXPONENT_LIMIT, which is all that a caller without
 * `limit` may give; with it, the result is zero below, infinite beyond LARGEST_EXPONENT, and not a number where t is
 * none.
 */
INLINE Vec exp2_lanes(Vec t, const int limit) {
    Vec power;
#if LANES == 16
    /*
     * Degree 3 on [-1/32, 1/32], times a factor that makes it monic: its first step is an addition, for which cores
     * have other units than for products. And a table of 2^(i / 16) over that factor, less i where the shift below puts
     * it. The factor is one whose float32 reciprocal is exact to 2^-39: no sequence is long enough to show the bias.
     */
    const Vec shift = splat(0x1.8p19f);
    const Vec shifted = t + shift, r = (Vec)_mm512_reduce_ps((__m512)t, 4 << 4); /* four binary places taken off */
    const VecInt table = {
        0x3d635a5e, 0x3d656b35, 0x3d67ee22, 0x3d697419, 0x3d672f56, 0x3d652b88, 0x3d636b91, 0x3d61f270,
        0x3d60c34a, 0x3d5fe164, 0x3d5f5029, 0x3d5f132d, 0x3d5f2e29, 0x3d5fa504, 0x3d607bce, 0x3d61b6c7};
    const VecInt scale = (VecInt)_mm512_permutexvar_epi32((__m512i)shifted, (__m512i)table) + ((VecInt)shifted << 19);
    Vec p = r + splat(4.3279295f);
    p = p * r + splat(12.4877653f);
    p = p * r + splat(0x1.2041bp4f);
    power = p * (Vec)scale;
#else
    /* Minimax polynomial of degree 5 on [-0.5, 0.5]. */
    const Vec shift = splat(0x1.8p23f);
    const Vec shifted = t + shift, r = t - (shifted - shift);
    Vec p = splat(0.001326472731307149f);
    p = p * r + splat(0.009671512991189957f);
    p = p * r + splat(0.05550733581185341f);
    p = p * r + splat(0.24022242426872253f);
    p = p * r + splat(0.6931470036506653f);
    p = p * r + splat(1.0f);
    power = (Vec)((VecInt)p + ((VecInt)shifted << 23));
#endif
    if (!limit) return power;
    const VecInt within = (t >= splat(-EXPONENT_LIMIT)) & (t <= splat(LARGEST_EXPONENT));
    return select_lanes(within, power, larger(splat(0), t) * splat(0x1p127f));
}

/*
 * log(1 + exp(v)) and its derivative. With e = exp(-|v|) and s = e / (2 + e), log(1 + e) = 2 atanh(s), which keeps the
 * relative accuracy where the result is small.
 */
INLINE Vec softplus_lanes(Vec v, Vec *derivative) {
    const Vec zero = splat(0.0f), one = splat(1.0f), two = splat(2.0f);
    const Vec e = exp2_lanes(magnitude(v) * splat(-1.4426950408889634f), 1);
    const Vec s = e / (two + e), z = s * s;
    Vec p = splat(0.1400599181652069f);
    p = p * z + splat(0.14000903069972992f);
    p = p * z + splat(0.2001076340675354f);
    p = p * z + splat(0.3333320915699005f);
    p = p * z + one;
    if (derivative) *derivative = select_lanes(v > zero, one, e) / (one + e);
    return (s + s) * p + larger(zero, v);
}

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (VecInt){__VA_ARGS__})
#endif

/*
 * Lane i of sum_each(v) is the sum of all lanes of v[i]: LANES sums for three operations a vector. Each level adds two
 * halves (then quarters, ...) of one vector in the lanes of the one, and of another vector in the lanes of the other.
 */
#if LANES == 16
/* As a shuffle, but it may run on any unit of the core. */
#define BLEND(a, b, lanes_of_b) ((Vec)_mm512_mask_blend_ps(lanes_of_b, (__m512)(a), (__m512)(b)))
#define ADD_HALVES(a, b) \
    (BLEND(a, b, 0xff00) + SHUFFLE(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23))
#define ADD_QUARTERS(a, b) \
    (BLEND(a, b, 0xf0f0) + SHUFFLE(a, b, 4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 24, 25, 26, 27))
#define ADD_PAIRS(a, b) \
    (BLEND(a, b, 0xcccc) + SHUFFLE(a, b, 2, 3, 16, 17, 6, 7, 20, 21, 10, 11, 24, 25, 14, 15, 28, 29))
#define ADD_SINGLES(a, b) \
    (BLEND(a, b, 0xaaaa) + SHUFFLE(a, b, 1, 16, 3, 18, 5, 20, 7, 22, 9, 24, 11, 26, 13, 28, 15, 30))
#elif LANES == 8
#define ADD_HALVES(a, b) (SHUFFLE(a, b, 0, 1, 2, 3, 12, 13, 14, 15) + SHUFFLE(a, b, 4, 5, 6, 7, 8, 9, 10, 11))
#define ADD_PAIRS(a, b) (SHUFFLE(a, b, 0, 1, 10, 11, 4, 5, 14, 15) + SHUFFLE(a, b, 2, 3, 8, 9, 6, 7, 12, 13))
#define ADD_SINGLES(a, b) (SHUFFLE(a, b, 0, 9, 2, 11, 4, 13, 6, 15) + SHUFFLE(a, b, 1, 8, 3, 10, 5, 12, 7, 14))
#else
#define ADD_HALVES(a, b) (SHUFFLE(a, b, 0, 1, 6, 7) + SHUFFLE(a, b, 2, 3, 4, 5))
#define ADD_SINGLES(a, b) (SHUFFLE(a, b, 0, 5, 2, 7) + SHUFFLE(a, b, 1, 4, 3, 6))
#endif

/* The first level for v[i] and v[i + LANES / 2], and the other levels for what it gives. */
INLINE Vec add_halves(Vec a, Vec b) { return ADD_HALVES(a, b); }

INLINE Vec sum_halves(const Vec *halves) {
#if LANES == 16
    Vec quarters[4], pairs[2];
    for (int i = 0; i < 4; i++) quarters[i] = ADD_QUARTERS(halves[i], halves[i + 4]);
    for (int i = 0; i < 2; i++) pairs[i] = ADD_PAIRS(quarters[i], quarters[i + 2]);
#elif LANES == 8
    Vec pairs[2];
    for (int i = 0; i < 2; i++) pairs[i] = ADD_PAIRS(halves[i], halves[i + 2]);
#else
    const Vec *pairs = halves;
#endif
    return ADD_SINGLES(pairs[0], pairs[1]);
}

/* The lower, or the upper, halves of two vectors: a lane of the one, a lane of the other, and so on. */
#if LANES == 16
#define LOWER(a, b) SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define UPPER(a, b) SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif LANES == 8
#define LOWER(a, b) SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define UPPER(a, b) SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define LOWER(a, b) SHUFFLE(a, b, 0, 4, 1, 5)
#define UPPER(a, b) SHUFFLE(a, b, 2, 6, 3, 7)
#endif

/* Lane i of v[k] becomes lane k of v[i]: each round deals the vectors of the first and of the second half alternately. */
INLINE void transpose(Vec *v) {
    for (int rounds = LANES; rounds > 1; rounds /= 2) {
        Vec dealt[LANES];
        for (int i = 0; i < LANES / 2; i++) {
            dealt[2 * i] = LOWER(v[i], v[i + LANES / 2]);
            dealt[2 * i + 1] = UPPER(v[i], v[i + LANES / 2]);
        }
        for (int i = 0; i < LANES; i++) v[i] = dealt[i];
    }
}

INLINE Vec sum_each(const Vec *v) {
    Vec halves[LANES / 2];
    for (int i = 0; i < LANES / 2; i++) halves[i] = add_halves(v[i], v[i + LANES / 2]);
    return sum_halves(halves);
}

#endif
