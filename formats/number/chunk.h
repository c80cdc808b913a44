/* chunk.h: the arithmetic of the kernels on 16 weights at a time, in plain C that compilers turn into vectors.
 *
 * Formula, float elements, nearest-even, for v = min(|u|, max): P = max(2^ilog2(v), 2^(1-bias)), magic = P * 2^(23-m); w = v + magic has its last
 * bit at the grid step, so w - magic is v rounded to the grid, and bits(w) - bits(magic) is that in steps. The code is (exponent of P - (1-bias)) *
 * 2^m + steps, for normal and subnormal values and after a carry alike. Integers: steps = clamp(x / scale), plus and minus 1.5 * 2^23. A
 * fixed-point element of an MX format is, apart from its codes, a float element whose values all lie on one grid. Codebooks: see codebook.h.
 * Why this way: loops of fixed length without branches; every operation is one IEEE operation, so the width of the vectors cannot matter. The
 * functions have no target attribute of their own: inlined into a kernel they are compiled for its instruction set.
 * Corner cases: other rounding modes take the generic elem functions; what is no whole chunk is padded with zeros, whose error terms are 0, or
 * are multiplied by 0 where 0 is no level of a codebook.
 * Reference: NUMERICS.md 2 to 5. Worked number: e2m1, v = 2.5: P = 2, magic 2^23, 2.5 + 2^23 rounds to 2^23 + 2, 2 steps of 1; code (1 - 0) * 2 + 2
 * = 4, which is 2.
 */
#ifndef LLMQ_NUMBER_CHUNK_H
#define LLMQ_NUMBER_CHUNK_H

#include <math.h>
#include <string.h>

#include "number/half.h"
#include "number/kernel.h"

enum { CHUNK = 16, RUN = 64 };

/* Before a loop over the lanes of a chunk: compilers shall make vectors of it, not sixteen copies of its body. */
#if defined(__clang__)
#define LANES _Pragma("clang loop unroll(disable)")
#elif defined(__GNUC__)
#define LANES _Pragma("GCC unroll 1")
#else
#define LANES
#endif

/* The facts of an element as the loops need them. */
struct coding {
    const struct elem *elem;
    enum rounding rounding;
    bool is_float;
    const struct codebook *book; /* NULL: no codebook */
    /* floats, and the grid of fixed-point elements */
    int32_t lowest, lift; /* bits of 2^(1-bias), below which steps stay the same; what leads from the bits of a power to its magic number */
    float max; /* largest value */
    uint32_t sign_shift, code_shift;
    /* integers */
    float step; /* 2^-fraction_bits */
    int32_t mask;
};

static inline struct coding coding_of(const struct elem *elem, enum rounding rounding)
{
    const bool is_float = elem->kind == ELEM_FLOAT;
    const int32_t lowest = is_float ? 1 - elem->bias : elem->emax;
    const uint32_t man_bits = is_float ? elem->man_bits : (uint32_t)elem->emax + elem->fraction_bits;
    return (struct coding){ .elem = elem,
                            .rounding = rounding,
                            .is_float = is_float,
                            .book = elem->kind == ELEM_CODEBOOK ? elem->book : NULL,
                            .lowest = (lowest + 127) << 23,
                            .lift = (int32_t)(23u - man_bits) << 23,
                            .max = elem->max,
                            .sign_shift = 32u - elem->bits,
                            .code_shift = 23u - man_bits,
                            .step = exact_exp2(-(int32_t)elem->fraction_bits),
                            .mask = (int32_t)((1u << elem->bits) - 1u) };
}

/* What the codes of one group stand for: weights are divided by value, which for floats under a power of two is a product with multiplier; low and
 * high bound code - zero. */
struct coding_scale {
    float multiplier, value, low, high;
    int32_t zero;
    bool divides; /* floats: value is no power of two with an inverse */
};

/* 1 / value for a power of two; 0 for other numbers. */
static inline float inverse_power(float value)
{
    const int32_t exponent = exact_ilog2(value);
    return exponent >= -127 && value == exact_exp2(exponent) ? exact_exp2(-exponent) : 0.0f;
}

static inline struct coding_scale coding_scale_of(const struct coding *coding, const struct group_scale *scale)
{
    if (coding->is_float) {
        const float multiplier = inverse_power(scale->value);
        return (struct coding_scale){ .multiplier = multiplier, .value = scale->value, .divides = multiplier == 0.0f };
    }
    if (coding->book) return (struct coding_scale){ .value = scale->value };
    const float value = scale->value * coding->step, low = (float)(coding->elem->code_min - scale->zero);
    return (struct coding_scale){
        .value = value, .low = isinf(low * value) ? low + 1.0f : low, .high = (float)(coding->elem->code_max - scale->zero), .zero = scale->zero
    };
}

/* The `count` numbers from index at (which may be negative) of the n numbers x: in place, or copied to padded with 0 where there are none. */
static inline const float *run_at(const float *x, ptrdiff_t n, ptrdiff_t at, size_t count, float *padded)
{
    if (at >= 0 && at + (ptrdiff_t)count <= n) return x + at;
    for (ptrdiff_t j = 0; j < (ptrdiff_t)count; j++) padded[j] = at + j >= 0 && at + j < n ? x[at + j] : 0.0f;
    return padded;
}

/* 1 for the numbers that run_at finds in x, 0 for those it makes up. */
static inline const float *ones_at(ptrdiff_t n, ptrdiff_t at, size_t count, float *ones)
{
    for (ptrdiff_t j = 0; j < (ptrdiff_t)count; j++) ones[j] = at + j >= 0 && at + j < n ? 1.0f : 0.0f;
    return ones;
}

static inline float chunk_sum(const float lanes[CHUNK])
{
    float eight[8], four[4];
    LANES
    for (size_t j = 0; j < 8; j++) eight[j] = lanes[j] + lanes[j + 8];
    LANES
    for (size_t j = 0; j < 4; j++) four[j] = eight[j] + eight[j + 4];
    return (four[0] + four[2]) + (four[1] + four[3]);
}

/* Powers of two are handled as the bits of the f32: max(2^ilog2(size), lowest), and the magic number of a power. */
static inline int32_t power_of(float size)
{
    return (int32_t)(f32_bits(size) & 0x7F800000u);
}

static inline int32_t at_least(int32_t power, int32_t lowest)
{
    return power > lowest ? power : lowest;
}

static inline float magic_of(int32_t power, int32_t lift)
{
    return f32_from_bits((uint32_t)(power + lift));
}

static inline float clamp(float u, float low, float high)
{
    u = u > low ? u : low;
    return u < high ? u : high;
}

/* u rounded to an integer, to nearest even, for |u| < 2^22 */
static inline float round_even(float u)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23 */
    return (u + magic) - magic;
}

static inline float steps_any(float x, const struct coding_scale *scale, enum rounding rounding)
{
    return round_to_integer(fminf(fmaxf(x / scale->value, scale->low), scale->high), rounding);
}

/* ---- codes ---------------------------------------------------------------------------------------------------------------------- */

/* Weights in units of the scale of float elements. */
static inline float in_units(const struct coding_scale *scale, float x)
{
    return scale->divides ? x / scale->value : x * scale->multiplier;
}

static inline void encode_float_even(const struct coding *coding, const struct coding_scale *scale, bool divides, size_t n, const float *restrict x,
                                     uint16_t *restrict codes, float *restrict y)
{
    const uint32_t sign_shift = coding->sign_shift, code_shift = coding->code_shift;
    const int32_t lift = coding->lift, lowest = coding->lowest;
    const float multiplier = scale->multiplier, value = scale->value, max = coding->max;
    for (size_t i = 0; i < n; i++) {
        float u = divides ? x[i] / value : x[i] * multiplier, size = fabsf(u), v = size < max ? size : max;
        int32_t power = at_least(power_of(v), lowest);
        float magic = magic_of(power, lift), w = v + magic;
        uint32_t sign = f32_bits(u) & 0x80000000u;
        codes[i] = (uint16_t)((sign >> sign_shift) + ((uint32_t)(power - lowest) >> code_shift) + (f32_bits(w) - f32_bits(magic)));
        y[i] = f32_from_bits(f32_bits(w - magic) | sign) * value;
    }
}

static inline void encode_int_even(const struct coding *coding, const struct coding_scale *scale, size_t n, const float *restrict x,
                                   uint16_t *restrict codes, float *restrict y)
{
    const int32_t mask = coding->mask, zero = scale->zero;
    const float value = scale->value, low = scale->low, high = scale->high;
    for (size_t i = 0; i < n; i++) {
        float q = round_even(clamp(x[i] / value, low, high));
        codes[i] = (uint16_t)(((int32_t)q + zero) & mask);
        y[i] = q * value;
    }
}

static inline void encode_any(const struct coding *coding, const struct coding_scale *scale, size_t n, const float *x, uint16_t *codes, float *y)
{
    for (size_t i = 0; i < n; i++) {
        if (coding->is_float) {
            codes[i] = (uint16_t)elem_encode(coding->elem, in_units(scale, x[i]), coding->rounding);
            y[i] = elem_decode(coding->elem, codes[i]) * scale->value;
        } else {
            float q = steps_any(x[i], scale, coding->rounding);
            codes[i] = (uint16_t)(((int32_t)q + scale->zero) & coding->mask);
            y[i] = (q + 0.0f) * scale->value; /* -0 + 0 is 0 */
        }
    }
}

static inline void encode_run(const struct coding *coding, const struct coding_scale *scale, size_t n, const float *x, uint16_t *codes, float *y)
{
    if (coding->rounding != ROUND_NEAREST_EVEN) encode_any(coding, scale, n, x, codes, y);
    else if (coding->is_float && scale->divides) encode_float_even(coding, scale, true, n, x, codes, y);
    else if (coding->is_float) encode_float_even(coding, scale, false, n, x, codes, y);
    else encode_int_even(coding, scale, n, x, codes, y);
}

/* ---- error terms ---------------------------------------------------------------------------------------------------------------- */

static inline void terms_float_even(const struct coding *coding, const struct coding_scale *scale, bool divides, float unit, size_t n,
                                    const float *restrict x, float *restrict terms)
{
    const int32_t lift = coding->lift, lowest = coding->lowest;
    const float multiplier = scale->multiplier, value = scale->value, max = coding->max, unit_of_codes = unit * value;
    for (size_t i = 0; i < n; i++) {
        float size = fabsf(divides ? x[i] / value : x[i] * multiplier), v = size < max ? size : max;
        float magic = magic_of(at_least(power_of(v), lowest), lift);
        float r = (v + magic) - magic, d = divides ? (fabsf(x[i]) - r * value) * unit : (size - r) * unit_of_codes;
        terms[i] = d * d;
    }
}

static inline float term_int(float x, float value, float low, float high, float unit)
{
    float d = (x - round_even(clamp(x / value, low, high)) * value) * unit;
    return d * d;
}

static inline void terms_int_even(const struct coding_scale *scale, float unit, size_t n, const float *restrict x, float *restrict terms)
{
    const float value = scale->value, low = scale->low, high = scale->high;
    for (size_t i = 0; i < n; i++) terms[i] = term_int(x[i], value, low, high, unit);
}

static inline void terms_any(const struct coding *coding, const struct coding_scale *scale, float unit, size_t n, const float *x, float *terms)
{
    for (size_t i = 0; i < n; i++) {
        float u = in_units(scale, x[i]);
        float r = coding->is_float ? elem_decode(coding->elem, elem_encode(coding->elem, u, coding->rounding)) : 0.0f;
        float d = !coding->is_float ? (x[i] - steps_any(x[i], scale, coding->rounding) * scale->value) * unit
                  : scale->divides  ? (x[i] - r * scale->value) * unit
                                    : (u - r) * (unit * scale->value);
        terms[i] = d * d;
    }
}

static inline void terms_run(const struct coding *coding, const struct coding_scale *scale, float unit, size_t n, const float *x, float *terms)
{
    if (coding->rounding != ROUND_NEAREST_EVEN) terms_any(coding, scale, unit, n, x, terms);
    else if (coding->is_float && scale->divides) terms_float_even(coding, scale, true, unit, n, x, terms);
    else if (coding->is_float) terms_float_even(coding, scale, false, unit, n, x, terms);
    else terms_int_even(scale, unit, n, x, terms);
}

/* ---- MX search ------------------------------------------------------------------------------------------------------------------ */

/* The grid of candidate e0 + shift in units of e0: all numbers of the element times 2^shift. */
struct search_grid {
    int32_t lowest;
    float max;
};

static inline struct search_grid search_grid_of(const struct coding *coding, int32_t shift)
{
    return (struct search_grid){ coding->lowest + shift * (1 << 23), coding->max * exact_exp2(shift) };
}

/* Error term of a weight of this size in units of e0; power is power_of(size). Beyond max the grid may be coarser than that of max, which the
 * saturation makes good. */
static inline float search_term(float size, int32_t power, struct search_grid grid, int32_t lift)
{
    float magic = magic_of(at_least(power, grid.lowest), lift), r = (size + magic) - magic;
    float d = size - (r < grid.max ? r : grid.max);
    return d * d;
}

/* Whether the least sum so far cannot be undercut on this grid, because the term of the largest weight, which lies beyond max, alone reaches it. */
static inline bool search_hopeless(struct range range, float multiplier, struct search_grid grid, float least)
{
    float excess = (-range.min > range.max ? -range.min : range.max) * multiplier - grid.max;
    return excess * excess >= least;
}

#endif
