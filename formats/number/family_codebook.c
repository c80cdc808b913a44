/* family_codebook.c: sixteen levels of any spacing under a float scale: NF4, FP4 of bitsandbytes, the levels of IQ4_NL.
 *
 * Formula: s = +-store(max(amax / L, 2^-23)), L the largest level in size; code = nearest level of fl(x / s), weight = fl(level * s). Rule mse: amax
 * times k/64 (absmax.h).
 * Why this way: where the level of size L has no counterpart of the other sign, the sign of the scale puts the largest weight on it.
 * Corner cases: a zero group has scale 2^-23 where 0 is a level, else scale 0, under which every quotient counts as 0; a scale under which L
 * overflows is no candidate.
 * Reference: NUMERICS_BLOCK.md 7. Worked number: nf4, F16 scale, 0.5 -0.25 0.1: s = 0.5, codes 15, 2, 9.
 */
#include <math.h>

#include "number/absmax.h"
#include "number/half.h"
#include "number/kernel.h"

static bool codebook_candidate(const struct quant *quant, struct range range, uint32_t number, struct group_scale *scale)
{
    const struct codebook *book = quant->elem->book;
    const float amax = range_amax(range), largest = book->largest < 0.0f ? -book->largest : book->largest;
    if (amax == 0.0f && !book->has_zero) {
        *scale = (struct group_scale){ 0 };
        return true;
    }
    *scale = absmax_scale(quant, amax * absmax_part(number) / largest);
    if (isinf(scale->value * largest)) return false;
    if (book->largest < 0.0f && range.max > -range.min) {
        scale->bits |= 1u << (scale_type_bits(quant->scale) - 1);
        scale->value = -scale->value;
    }
    return true;
}

static void codebook_error(const struct quant *quant, const struct kernels *kernels, struct range range, const struct group_scale *scale,
                           struct error_sum *sum)
{
    sum->unit = absmax_unit(range);
    kernels->error(quant->elem, quant->rounding, scale, sum);
}

extern const struct family family_codebook;
const struct family family_codebook = {
    .name = "codebook", .candidate = codebook_candidate, .candidates = absmax_candidates, .error = codebook_error, .levels = true
};
