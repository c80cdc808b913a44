/* family_affine.c: integers with a float scale, symmetric (int) or with a zero point (uint).
 *
 * Formula: symmetric s = store(max(amax / (2^(N-1) - 0.5), 2^-23)); asymmetric s = store(max((b - a) / (2^N - 1), 2^-23)), z = clamp(-RNE(a / s));
 * code = clamp(R(x / s) + z). Rule mse: the range times k/64 for k = 64, 63 .. 16, 65 .. 72, least squared error, first on ties.
 * Why this way: codes are computed with the stored scale, so what was measured is what is read; a true division puts ties where that scale says.
 * Corner cases: a zero group has scale 2^-23 and codes of zero; a scale that overflows its type is no candidate; errors are measured in units of
 * 2^ilog2(amax).
 * Reference: NUMERICS.md 4. Worked number: int4, amax 0.453125, BF16 scale: 0.0604167 -> 0x3D77 = 0.060302734375.
 */
#include <math.h>

#include "number/half.h"
#include "number/kernel.h"

enum { FULL = 64, LEAST = 16, MOST = 72 };

/* Candidate number -> k: 64, 63, .. 16, then 65 .. 72. */
static int candidate_k(uint32_t number)
{
    int down = FULL - (int)number;
    return down >= LEAST ? down : FULL + (int)number - (FULL - LEAST);
}

static uint32_t affine_candidates(const struct quant *quant)
{
    return quant->rule == RULE_MSE ? 1 + (FULL - LEAST) + (MOST - FULL) : 1;
}

static bool affine_candidate(const struct quant *quant, struct range range, uint32_t number, struct group_scale *scale)
{
    const struct elem *elem = quant->elem;
    const float ratio = (float)candidate_k(number) / 64.0f, least = 0x1p-23f;
    float s = quant->format->zero_point ? (range.max - range.min) * ratio / (float)elem->code_max
                                        : range_amax(range) * ratio / ((float)elem->code_max + 0.5f);
    scale->bits = scale_store(quant->scale, s > least ? s : least);
    scale->value = scale_load(quant->scale, scale->bits);
    scale->zero = 0;
    float widest = quant->format->zero_point ? (float)elem->code_max : (float)-elem->code_min;
    if (isinf(scale->value * widest)) return false;
    if (quant->format->zero_point) {
        float low = range.min * ratio / scale->value;
        float zero = -round_to_integer(low, ROUND_NEAREST_EVEN);
        scale->zero = (int32_t)fminf(fmaxf(zero, 0.0f), (float)elem->code_max);
    }
    return true;
}

/* Error term of x where it lies beyond end, the last value on its side. */
static float clipped_term(float x, float end, float unit)
{
    float d = (x - end) * unit;
    return fabsf(x) > fabsf(end) ? d * d : 0.0f;
}

/* The terms of the two ends of the range alone often reach the limit: then nobody needs the others. */
static void affine_error(const struct quant *quant, const struct kernels *kernels, struct range range, const struct group_scale *scale,
                         struct error_sum *sum)
{
    const struct elem *elem = quant->elem;
    float amax = range_amax(range);
    int32_t p = amax == 0.0f ? 0 : exact_ilog2(amax);
    sum->unit = exact_exp2(p < -126 ? 126 : p > 126 ? -126 : -p);
    float low = clipped_term(range.min, (float)(elem->code_min - scale->zero) * scale->value, sum->unit);
    float high = clipped_term(range.max, (float)(elem->code_max - scale->zero) * scale->value, sum->unit);
    if (!sum->weight && low + high >= sum->limit) sum->total = low + high;
    else kernels->error(elem, quant->rounding, scale, sum);
}

extern const struct family family_affine;
const struct family family_affine = {
    .name = "affine", .candidate = affine_candidate, .candidates = affine_candidates, .error = affine_error, .integers = true
};
