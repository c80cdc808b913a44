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

#define BLOCK(m)                                                                                                                                     \
    {                                                                                                                                                \
        "block_m" #m, ELEM_SIGNED, 1 + m, 0, 0, 0, ELEM_NO_SPECIAL, m - 1, 1 - (1 << m), (1 << m) - 1, 0,                                            \
            (float)((1 << m) - 1) / (float)(1 << (m - 1))                                                                                            \
    }

#define LEVELS(name_, emax_, max_)                                                                                                                   \
    {                                                                                                                                                \
        .name = #name_, .kind = ELEM_CODEBOOK, .bits = 4, .emax = emax_, .max = max_, .book = &codebook_##name_                                      \
    }

const struct elem elem_rows[ELEM_ID_COUNT] = {
    [ELEM_E2M1] = { "e2m1", ELEM_FLOAT, 4, 2, 1, 1, ELEM_NO_SPECIAL, 0, 0, 0, 2, 6.0f },
    [ELEM_E2M3] = { "e2m3", ELEM_FLOAT, 6, 2, 3, 1, ELEM_NO_SPECIAL, 0, 0, 0, 2, 7.5f },
    [ELEM_E3M2] = { "e3m2", ELEM_FLOAT, 6, 3, 2, 3, ELEM_NO_SPECIAL, 0, 0, 0, 4, 28.0f },
    [ELEM_E4M3] = { "e4m3", ELEM_FLOAT, 8, 4, 3, 7, ELEM_NAN_ONLY, 0, 0, 0, 8, 448.0f },
    [ELEM_E5M2] = { "e5m2", ELEM_FLOAT, 8, 5, 2, 15, ELEM_IEEE, 0, 0, 0, 15, 57344.0f },
    [ELEM_MXINT8] = { "mxint8", ELEM_SIGNED, 8, 0, 0, 0, ELEM_NO_SPECIAL, 6, -127, 127, 0, 127.0f / 64.0f },
    [ELEM_INT2] = { "int2", ELEM_SIGNED, 2, 0, 0, 0, ELEM_NO_SPECIAL, 0, -2, 1, 0, 1.0f },
    [ELEM_INT3] = { "int3", ELEM_SIGNED, 3, 0, 0, 0, ELEM_NO_SPECIAL, 0, -4, 3, 1, 3.0f },
    [ELEM_INT4] = { "int4", ELEM_SIGNED, 4, 0, 0, 0, ELEM_NO_SPECIAL, 0, -8, 7, 2, 7.0f },
    [ELEM_INT5] = { "int5", ELEM_SIGNED, 5, 0, 0, 0, ELEM_NO_SPECIAL, 0, -16, 15, 3, 15.0f },
    [ELEM_INT6] = { "int6", ELEM_SIGNED, 6, 0, 0, 0, ELEM_NO_SPECIAL, 0, -32, 31, 4, 31.0f },
    [ELEM_INT7] = { "int7", ELEM_SIGNED, 7, 0, 0, 0, ELEM_NO_SPECIAL, 0, -64, 63, 5, 63.0f },
    [ELEM_INT8] = { "int8", ELEM_SIGNED, 8, 0, 0, 0, ELEM_NO_SPECIAL, 0, -128, 127, 6, 127.0f },
    [ELEM_UINT2] = { "uint2", ELEM_UNSIGNED, 2, 0, 0, 0, ELEM_NO_SPECIAL, 0, 0, 3, 1, 3.0f },
    [ELEM_UINT3] = { "uint3", ELEM_UNSIGNED, 3, 0, 0, 0, ELEM_NO_SPECIAL, 0, 0, 7, 2, 7.0f },
    [ELEM_UINT4] = { "uint4", ELEM_UNSIGNED, 4, 0, 0, 0, ELEM_NO_SPECIAL, 0, 0, 15, 3, 15.0f },
    [ELEM_UINT5] = { "uint5", ELEM_UNSIGNED, 5, 0, 0, 0, ELEM_NO_SPECIAL, 0, 0, 31, 4, 31.0f },
    [ELEM_UINT6] = { "uint6", ELEM_UNSIGNED, 6, 0, 0, 0, ELEM_NO_SPECIAL, 0, 0, 63, 5, 63.0f },
    [ELEM_UINT7] = { "uint7", ELEM_UNSIGNED, 7, 0, 0, 0, ELEM_NO_SPECIAL, 0, 0, 127, 6, 127.0f },
    [ELEM_UINT8] = { "uint8", ELEM_UNSIGNED, 8, 0, 0, 0, ELEM_NO_SPECIAL, 0, 0, 255, 7, 255.0f },
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
    [ELEM_MXINT8_FULL] = { "mxint8_full", ELEM_SIGNED, 8, 0, 0, 0, ELEM_NO_SPECIAL, 6, -128, 127, 0, 127.0f / 64.0f },
};

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
