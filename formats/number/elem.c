/* elem.c: the table of elements, generic decode and encode.
 *
 * Formula: float value = (-1)^s * 2^(E-bias) * (1 + M/2^m), or (-1)^s * 2^(1-bias) * M/2^m for E = 0. Encoding rounds |u| on the grid
 * 2^(max(ilog2|u|, 1-bias) - m) and saturates. Integers: value = code * 2^-fraction_bits. Codebooks: see codebook.h.
 * Why this way: exact f32 arithmetic with powers of two only, so no step here rounds except the one that is meant.
 * Corner cases: rounding `up` looks at the signed value, so negative numbers round their magnitude with ties down; encode of subnormal and huge u.
 * Reference: NUMERICS.md 2. Worked numbers: e4m3 17 -> 0x58 (16), 19 -> 0x5A (20); e2m1 -0.25 -> 8 (-0); mxint8 1.999 -> 127.
 */
#include "number/elem.h"

#include <string.h>

#define FLOAT(name_, exp_, man_, bias_, special_, emax_, max_)                                                                                       \
    {                                                                                                                                                \
        .name = name_, .kind = ELEM_FLOAT, .bits = 1 + exp_ + man_, .exp_bits = exp_, .man_bits = man_, .bias = bias_, .special = special_,          \
        .emax = emax_, .max = max_                                                                                                                   \
    }
#define SIGNED(name_, bits_, fraction_, low, high, emax_)                                                                                            \
    {                                                                                                                                                \
        .name = name_, .kind = ELEM_SIGNED, .bits = bits_, .fraction_bits = fraction_, .code_min = low, .code_max = high, .emax = emax_,             \
        .max = (float)(high) / (float)(1 << (fraction_))                                                                                             \
    }
#define UNSIGNED(name_, bits_, emax_)                                                                                                                \
    {                                                                                                                                                \
        .name = name_, .kind = ELEM_UNSIGNED, .bits = bits_, .code_max = (1 << bits_) - 1, .emax = emax_, .max = (float)((1 << bits_) - 1)           \
    }
#define BLOCK(m) SIGNED("block_m" #m, 1 + m, m - 1, 1 - (1 << m), (1 << m) - 1, 0)
#define LEVELS(name_, emax_, max_)                                                                                                                   \
    {                                                                                                                                                \
        .name = #name_, .kind = ELEM_CODEBOOK, .bits = 4, .emax = emax_, .max = max_, .book = &codebook_##name_                                      \
    }

/* clang-format off */
const struct elem elem_rows[ELEM_ID_COUNT] = {
    [ELEM_E2M1] = FLOAT("e2m1", 2, 1, 1, ELEM_NO_SPECIAL, 2, 6.0f),
    [ELEM_E2M3] = FLOAT("e2m3", 2, 3, 1, ELEM_NO_SPECIAL, 2, 7.5f),
    [ELEM_E3M2] = FLOAT("e3m2", 3, 2, 3, ELEM_NO_SPECIAL, 4, 28.0f),
    [ELEM_E4M3] = FLOAT("e4m3", 4, 3, 7, ELEM_NAN_ONLY, 8, 448.0f),
    [ELEM_E5M2] = FLOAT("e5m2", 5, 2, 15, ELEM_IEEE, 15, 57344.0f),
    [ELEM_MXINT8] = SIGNED("mxint8", 8, 6, -127, 127, 0),
    [ELEM_INT2] = SIGNED("int2", 2, 0, -2, 1, 0),
    [ELEM_INT3] = SIGNED("int3", 3, 0, -4, 3, 1),
    [ELEM_INT4] = SIGNED("int4", 4, 0, -8, 7, 2),
    [ELEM_INT5] = SIGNED("int5", 5, 0, -16, 15, 3),
    [ELEM_INT6] = SIGNED("int6", 6, 0, -32, 31, 4),
    [ELEM_INT7] = SIGNED("int7", 7, 0, -64, 63, 5),
    [ELEM_INT8] = SIGNED("int8", 8, 0, -128, 127, 6),
    [ELEM_UINT2] = UNSIGNED("uint2", 2, 1),
    [ELEM_UINT3] = UNSIGNED("uint3", 3, 2),
    [ELEM_UINT4] = UNSIGNED("uint4", 4, 3),
    [ELEM_UINT5] = UNSIGNED("uint5", 5, 4),
    [ELEM_UINT6] = UNSIGNED("uint6", 6, 5),
    [ELEM_UINT7] = UNSIGNED("uint7", 7, 6),
    [ELEM_UINT8] = UNSIGNED("uint8", 8, 7),
    [ELEM_MXINT8_FULL] = SIGNED("mxint8_full", 8, 6, -128, 127, 0),
    [ELEM_BLOCK_M1] = BLOCK(1),
    [ELEM_BLOCK_M2] = BLOCK(2),
    [ELEM_BLOCK_M3] = BLOCK(3),
    [ELEM_BLOCK_M4] = BLOCK(4),
    [ELEM_BLOCK_M5] = BLOCK(5),
    [ELEM_BLOCK_M6] = BLOCK(6),
    [ELEM_BLOCK_M8] = BLOCK(8),
    [ELEM_BLOCK_M9] = BLOCK(9),
    [ELEM_BLOCK_M10] = BLOCK(10),
    [ELEM_BLOCK_M11] = BLOCK(11),
    [ELEM_BLOCK_M12] = BLOCK(12),
    [ELEM_BLOCK_M13] = BLOCK(13),
    [ELEM_BLOCK_M14] = BLOCK(14),
    [ELEM_BLOCK_M15] = BLOCK(15),
    [ELEM_NF4] = LEVELS(nf4, 0, 1.0f),
    [ELEM_FP4_BNB] = LEVELS(fp4_bnb, 0, 1.0f),
    [ELEM_IQ4NL] = LEVELS(iq4nl, 6, 113.0f),
};
/* clang-format on */

size_t elem_count(void)
{
    return ELEM_ID_COUNT;
}

const struct elem *elem_at(size_t index)
{
    return &elem_rows[index];
}

const struct elem *elem_find(const char *name)
{
    for (size_t i = 0; i < elem_count(); i++)
        if (strcmp(elem_rows[i].name, name) == 0) return &elem_rows[i];
    return NULL;
}

int32_t exact_ilog2(float a)
{
    uint32_t bits = f32_bits(a) & 0x7FFFFFFFu;
    if (bits >= 0x800000u) return (int32_t)(bits >> 23) - 127;
    int32_t exponent = -150;
    while (bits) {
        bits >>= 1;
        exponent++;
    }
    return exponent;
}

static uint32_t low_bits(uint32_t code, uint32_t bits)
{
    return code & (bits >= 32 ? ~0u : (1u << bits) - 1u);
}

static float decode_float(const struct elem *elem, uint32_t code)
{
    uint32_t magnitude = low_bits(code, elem->bits - 1);
    uint32_t sign = (code >> (elem->bits - 1) & 1u) << 31;
    uint32_t field = magnitude >> elem->man_bits;
    uint32_t mantissa = low_bits(magnitude, elem->man_bits);
    uint32_t top = (1u << elem->exp_bits) - 1u;
    if (elem->special == ELEM_IEEE && field == top) return f32_from_bits(sign | 0x7F800000u | mantissa << (23u - elem->man_bits));
    if (elem->special == ELEM_NAN_ONLY && magnitude == low_bits(~0u, elem->bits - 1)) return f32_from_bits(sign | 0x7FC00000u);
    int32_t exponent = (field ? (int32_t)field : 1) - elem->bias - (int32_t)elem->man_bits;
    uint32_t significand = field ? mantissa | 1u << elem->man_bits : mantissa;
    return f32_from_bits(sign | f32_bits((float)significand * exact_exp2(exponent)));
}

float elem_decode(const struct elem *elem, uint32_t code)
{
    if (elem->kind == ELEM_FLOAT) return decode_float(elem, code);
    if (elem->kind == ELEM_CODEBOOK) return elem->book->levels[low_bits(code, elem->bits)];
    uint32_t low = low_bits(code, elem->bits);
    int32_t value = (int32_t)low;
    if (elem->kind == ELEM_SIGNED && (low >> (elem->bits - 1) & 1u)) value -= (int32_t)(1u << elem->bits);
    return (float)value * exact_exp2(-(int32_t)elem->fraction_bits);
}

static uint32_t encode_float(const struct elem *elem, float u, enum rounding rounding)
{
    uint32_t sign = f32_bits(u) >> 31;
    float size = fminf(fabsf(u), 2.0f * elem->max); /* beyond, all saturates */
    int32_t lowest = 1 - elem->bias;
    int32_t exponent = exact_ilog2(size) > lowest ? exact_ilog2(size) : lowest;
    float steps = size * exact_exp2((int32_t)elem->man_bits - exponent);
    float rounded = fabsf(round_to_integer(sign ? -steps : steps, rounding));
    float value = fminf(rounded * exact_exp2(exponent - (int32_t)elem->man_bits), elem->max);
    uint32_t code;
    if (value < exact_exp2(lowest)) {
        code = (uint32_t)(value * exact_exp2((int32_t)elem->man_bits - lowest));
    } else {
        int32_t top = exact_ilog2(value);
        uint32_t mantissa = (f32_bits(value) & 0x7FFFFFu) >> (23u - elem->man_bits);
        code = (uint32_t)(top + elem->bias) << elem->man_bits | mantissa;
    }
    return sign << (elem->bits - 1) | code;
}

static uint32_t encode_level(const struct codebook *book, float u)
{
    uint32_t below = 0;
    for (uint32_t k = 0; k < CODEBOOK_LEVELS - 1; k++) below += u > book->thresholds[k];
    return book->codes[below];
}

uint32_t elem_encode(const struct elem *elem, float u, enum rounding rounding)
{
    if (elem->kind == ELEM_FLOAT) return encode_float(elem, u, rounding);
    if (elem->kind == ELEM_CODEBOOK) return encode_level(elem->book, u);
    float low = (float)elem->code_min, high = (float)elem->code_max;
    float steps = u * exact_exp2((int32_t)elem->fraction_bits);
    float rounded = round_to_integer(fminf(fmaxf(steps, low), high), rounding);
    return low_bits((uint32_t)(int32_t)rounded, elem->bits);
}
