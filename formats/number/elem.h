/* elem.h: elements, the table of how one code becomes a number, and two generic functions that work for every row.
 *
 *   e2m1   s e e m    code 0b1011 = -(1.5 * 2^(1-1)) = -1.5        mxint8   two's complement, code * 2^-6        int4   two's complement
 *
 * Why this way: a row of facts; elem_decode and elem_encode are the definition that every table and vector kernel is tested against.
 * Corner cases: encoding saturates and never yields a NaN or Inf code; the sign bit of a float code is the input's, also for -0 and for what rounds
 * to 0; decoding of Inf and NaN codes gives Inf and NaN.
 * Reference: NUMERICS.md 2; OCP Microscaling Formats 1.0; OCP FP8.
 */
#ifndef LLMQ_NUMBER_ELEM_H
#define LLMQ_NUMBER_ELEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "number/codebook.h"
#include "number/half.h"
#include "number/round.h"

enum elem_kind { ELEM_FLOAT, ELEM_SIGNED, ELEM_UNSIGNED, ELEM_CODEBOOK };
enum elem_special { ELEM_NO_SPECIAL, ELEM_NAN_ONLY, ELEM_IEEE };

struct elem {
    const char *name;
    enum elem_kind kind;
    uint32_t bits;
    uint32_t exp_bits, man_bits; /* floats */
    int32_t bias; /* floats */
    enum elem_special special; /* floats */
    uint32_t fraction_bits; /* integers: value = code * 2^-fraction_bits */
    int32_t code_min, code_max; /* integers: the codes an encoder may write; the lowest not where it would decode to Inf */
    int32_t emax; /* exponent of the largest power of two that is a value */
    float max; /* largest value */
    const struct codebook *book; /* codebooks: the value of code i is level i */
};

/* The rows, for tables that point at them. */
enum elem_id {
    ELEM_E2M1,
    ELEM_E2M3,
    ELEM_E3M2,
    ELEM_E4M3,
    ELEM_E5M2,
    ELEM_MXINT8,
    ELEM_INT2,
    ELEM_INT3,
    ELEM_INT4,
    ELEM_INT5,
    ELEM_INT6,
    ELEM_INT7,
    ELEM_INT8,
    ELEM_UINT2,
    ELEM_UINT3,
    ELEM_UINT4,
    ELEM_UINT5,
    ELEM_UINT6,
    ELEM_UINT7,
    ELEM_UINT8,
    ELEM_BLOCK_M1, /* integers of a sign and 1 .. 15 magnitude bits, the top one of weight 1; that with 7 is ELEM_MXINT8 */
    ELEM_BLOCK_M2,
    ELEM_BLOCK_M3,
    ELEM_BLOCK_M4,
    ELEM_BLOCK_M5,
    ELEM_BLOCK_M6,
    ELEM_BLOCK_M8,
    ELEM_BLOCK_M9,
    ELEM_BLOCK_M10,
    ELEM_BLOCK_M11,
    ELEM_BLOCK_M12,
    ELEM_BLOCK_M13,
    ELEM_BLOCK_M14,
    ELEM_BLOCK_M15,
    ELEM_MXINT8_FULL,
    ELEM_NF4,
    ELEM_FP4_BNB,
    ELEM_IQ4NL,
    ELEM_ID_COUNT
};
extern const struct elem elem_rows[ELEM_ID_COUNT];

const struct elem *elem_find(const char *name);
size_t elem_count(void);
const struct elem *elem_at(size_t index);

/* Value of a code (only its low elem->bits bits count). */
float elem_decode(const struct elem *elem, uint32_t code);

/* Code for the finite number u. The rounding does not count for codebooks, whose levels lie on no grid. */
uint32_t elem_encode(const struct elem *elem, float u, enum rounding rounding);

/* floor(log2 a) for a > 0, exact, subnormals normalised; -150 for a = 0. */
int32_t exact_ilog2(float a);

/* 2^e as f32 for -149 <= e <= 127, exact; below 0, above Inf. */
static inline float exact_exp2(int32_t e)
{
    if (e >= -126) return f32_from_bits(e > 127 ? 0x7F800000u : (uint32_t)(e + 127) << 23);
    return f32_from_bits(e < -149 ? 0u : 1u << (e + 149));
}

#endif
