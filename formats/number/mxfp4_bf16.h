/* mxfp4_bf16.h: the parts of the BF16 -> MXFP4 kernel that run once a group: scale byte and the groups too small for the fast path.
 *
 * Formula, with k = exponent field of amax and f its 7 mantissa bits, byte b = e + 127 before the clamp to 0 .. 252:
 *   floor k-2    even (amax + 32) >> 7, minus 2    ceil k-2 + (f != 0)    rceil k-2 + (f > 64), because amax <= 6 * 2^e means significand <= 1.5
 * Why this way: BF16 needs no float arithmetic for its maximum and exponent.
 * Corner cases: k = 0 (zero or subnormal maximum) always clamps to byte 0; bytes below 3 put thresholds among the subnormals, those groups go the
 * generic way.
 * Reference: NUMERICS.md 3. Worked number: amax 0x3EE8 (0.453125): k 125, f 104: floor 123, even, ceil and rceil 124.
 */
#ifndef LLMQ_NUMBER_MXFP4_BF16_H
#define LLMQ_NUMBER_MXFP4_BF16_H

#include <stdint.h>

#include "number/elem.h"
#include "number/half.h"
#include "number/scale.h"

static inline int mxfp4_scale_byte(uint32_t amax, enum scale_rule rule)
{
    int field = (int)(amax >> 7), fraction = (int)(amax & 127u);
    int b = field - 2;
    if (rule == RULE_EVEN) b = (int)((amax + 32u) >> 7) - 2;
    if (rule == RULE_CEIL) b += fraction != 0;
    if (rule == RULE_RCEIL) b += fraction > 64;
    if (field == 0) b = 0;
    return b < 0 ? 0 : b > 252 ? 252 : b;
}

/* Codes of a group with scale byte b < 3. Zeros, by far the commonest such group, keep their signs and nothing else. */
static inline void mxfp4_codes_tiny(const uint16_t *x, uint32_t amax, int b, uint8_t *codes)
{
    if (amax == 0) {
        for (size_t j = 0; j < 16; j++) codes[j] = (uint8_t)((x[2 * j] >> 12 & 8) | (x[2 * j + 1] >> 8 & 0x80));
        return;
    }
    const struct elem *e2m1 = elem_find("e2m1");
    float multiplier = exact_exp2(127 - b);
    for (size_t j = 0; j < 16; j++) {
        uint32_t low = elem_encode(e2m1, bf16_to_f32(x[2 * j]) * multiplier, ROUND_NEAREST_EVEN);
        uint32_t high = elem_encode(e2m1, bf16_to_f32(x[2 * j + 1]) * multiplier, ROUND_NEAREST_EVEN);
        codes[j] = (uint8_t)(low | high << 4);
    }
}

#endif
