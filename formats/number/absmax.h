/* absmax.h: what the families share whose float scale comes from the range of a group: the candidates of rule mse, and the unit of errors.
 *
 *   rule absmax: the whole range; rule mse: k/64 of it, k = 64, 63, .. 16, then 65, .. 72       unit of errors 2^-ilog2(amax)
 *
 * Why this way: integers, floats and codebooks differ in what they divide the range by, not in which parts of it they try.
 * Corner cases: a group of zeros has the unit 1; ilog2 is clamped to -126 .. 126, so that the unit is a normal number.
 * Reference: NUMERICS.md 4, NUMERICS_BLOCK.md 4 and 7. Worked number: candidate 1 is 63/64 of the range, candidate 49 is 65/64.
 */
#ifndef LLMQ_NUMBER_ABSMAX_H
#define LLMQ_NUMBER_ABSMAX_H

#include <math.h>

#include "number/elem.h"
#include "number/format.h"

enum { ABSMAX_FULL = 64, ABSMAX_LEAST = 16, ABSMAX_MOST = 72 };

/* How many candidates the rule of quant has: as struct family wants it. */
static inline uint32_t absmax_candidates(const struct quant *quant)
{
    return quant->rule == RULE_MSE ? 1 + (ABSMAX_FULL - ABSMAX_LEAST) + (ABSMAX_MOST - ABSMAX_FULL) : 1;
}

/* The part of the range that candidate number takes: k/64. */
static inline float absmax_part(uint32_t number)
{
    const int down = ABSMAX_FULL - (int)number, k = down >= ABSMAX_LEAST ? down : ABSMAX_FULL + (int)number - (ABSMAX_FULL - ABSMAX_LEAST);
    return (float)k / (float)ABSMAX_FULL;
}

/* store(max(s, 2^-23)): no scale is smaller. */
static inline struct group_scale absmax_scale(const struct quant *quant, float s)
{
    const uint32_t bits = scale_store(quant->scale, s > 0x1p-23f ? s : 0x1p-23f);
    return (struct group_scale){ .bits = bits, .value = scale_load(quant->scale, bits) };
}

static inline float absmax_unit(struct range range)
{
    const float amax = range_amax(range);
    const int32_t p = amax == 0.0f ? 0 : exact_ilog2(amax);
    return exact_exp2(p < -126 ? 126 : p > 126 ? -126 : -p);
}

/* Error term of x where it lies beyond end, the last value on its side. The terms of the two ends of a range alone often reach the limit of an
 * error: then nobody needs the others. */
static inline float absmax_clipped(float x, float end, float unit)
{
    const float d = (x - end) * unit;
    return fabsf(x) > fabsf(end) ? d * d : 0.0f;
}

#endif
