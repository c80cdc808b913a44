/* family_affine.c: integers with a float scale, symmetric (int) or with a zero point (uint).
 *
 * Formula: symmetric s = store(max(amax / (2^(N-1) - 0.5), 2^-23)); asymmetric s = store(max((b - a) / (2^N - 1), 2^-23)), z = clamp(-RNE(a / s));
 * code = clamp(R(x / s) + z); half range "int_max": amax / (2^(N-1) - 1). Rule mse: the range times k/64 (absmax.h).
 * Observers and learners: choose.h.
 * Why this way: codes are computed with the stored scale, so what was measured is what is read; a true division puts ties where that scale says.
 * Corner cases: a zero group has scale 2^-23 and codes of zero; a scale that overflows its type is no candidate; errors are measured in units of
 * 2^ilog2(amax).
 * Reference: NUMERICS.md 4. Worked number: int4, amax 0.453125, BF16 scale: 0.0604167 -> 0x3D77 = 0.060302734375.
 */
#include <math.h>

#include "number/absmax.h"
#include "number/choose.h"
#include "number/kernel.h"

static bool affine_candidate(const struct quant *quant, struct range range, uint32_t number, struct group_scale *scale)
{
    const struct elem *elem = quant->elem;
    const float part = absmax_part(number), half = (float)elem->code_max + (quant->int_max ? 0.0f : 0.5f);
    *scale =
        absmax_scale(quant, quant->format->zero_point ? (range.max - range.min) * part / (float)elem->code_max : range_amax(range) * part / half);
    float widest = quant->format->zero_point ? (float)elem->code_max : (float)-elem->code_min;
    if (isinf(scale->value * widest)) return false;
    if (quant->format->zero_point) {
        float low = range.min * part / scale->value;
        float zero = -round_to_integer(low, ROUND_NEAREST_EVEN);
        scale->zero = (int32_t)fminf(fmaxf(zero, 0.0f), (float)elem->code_max);
    }
    return true;
}

static void affine_error(const struct quant *quant, const struct kernels *kernels, struct range range, const struct group_scale *scale,
                         struct error_sum *sum)
{
    const struct elem *elem = quant->elem;
    sum->unit = absmax_unit(range);
    float low = absmax_clipped(range.min, (float)(elem->code_min - scale->zero) * scale->value, sum->unit);
    float high = absmax_clipped(range.max, (float)(elem->code_max - scale->zero) * scale->value, sum->unit);
    if (!sum->weight && low + high >= sum->limit) sum->total = low + high;
    else kernels->error(elem, quant->rounding, scale, sum);
}

extern const struct family family_affine;
const struct family family_affine = { .name = "affine",
                                      .candidate = affine_candidate,
                                      .candidates = absmax_candidates,
                                      .error = affine_error,
                                      .choose = choose_scale_of_weights,
                                      .integers = true };
