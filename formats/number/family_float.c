/* family_float.c: float elements with a float scale: FP8, FP6 and FP4 under scales of groups, channels, tensors or squares.
 *
 * Formula: s = store(max(amax / max, 2^-23)), code = encode(fl(x / s)), weight = fl(value(code) * s). Rule mse: amax times k/64 (absmax.h).
 * Why this way: codes are computed with the stored scale, by a true division; where it is a power of two this is an MX format.
 * Corner cases: a zero group has scale 2^-23 and codes of signed zeros; a scale under which max overflows is no candidate.
 * Reference: NUMERICS_BLOCK.md 4. Worked number: fp8_e4m3, F32 scale, 2.6 and 0.3: s = 0x3BBE2BE2, codes 7E and 65.
 */
#include <math.h>

#include "number/absmax.h"
#include "number/kernel.h"

static bool float_candidate(const struct quant *quant, struct range range, uint32_t number, struct group_scale *scale)
{
    const float max = quant->elem->max;
    *scale = absmax_scale(quant, range_amax(range) * absmax_part(number) / max);
    return !isinf(scale->value * max);
}

static void float_error(const struct quant *quant, const struct kernels *kernels, struct range range, const struct group_scale *scale,
                        struct error_sum *sum)
{
    const float end = quant->elem->max * scale->value;
    sum->unit = absmax_unit(range);
    const float low = absmax_clipped(range.min, -end, sum->unit), high = absmax_clipped(range.max, end, sum->unit);
    if (!sum->weight && low + high >= sum->limit) sum->total = low + high;
    else kernels->error(quant->elem, quant->rounding, scale, sum);
}

extern const struct family family_float;
const struct family family_float = { .name = "float", .candidate = float_candidate, .candidates = absmax_candidates, .error = float_error };
