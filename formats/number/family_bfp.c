/* family_bfp.c: block floating point: a shared exponent for each group, integers of a sign and m magnitude bits.
 *
 *   | E | q0 | q1 | ... |       weight = q * 2^(E - 127 - m + 1)       E = the largest exponent field of the group
 *
 * Why this way: with m - 1 fraction bits, of which the element knows, this is an MX format: floor is MX floor, search is MX search.
 * Corner cases: kernel 1 also writes the code -2^m, and its floor doubles the step once where the largest weight would round to 2^m; under the last
 * byte, 254, -2^m would decode to Inf and is not written.
 * Reference: NUMERICS_BLOCK.md 1. Worked number: bfp16, 3 the largest of its group: E = 128, step 2^-5, code 96.
 */
#include "number/family_mx.h"
#include "number/kernel.h"

enum { LAST_BYTE = 254 };

static bool bfp_candidate(const struct quant *quant, struct range range, uint32_t number, struct group_scale *scale)
{
    const struct elem *elem = quant->elem;
    if (!mx_candidate(quant, range, number, scale)) return false;
    if (quant->rule != RULE_FLOOR || elem->code_min == -elem->code_max || scale->bits == LAST_BYTE) return true;
    const float step = scale->value * exact_exp2(-(int32_t)elem->fraction_bits);
    if (round_to_integer(range.max / step, quant->rounding) <= (float)elem->code_max) return true;
    scale->bits++;
    scale->value *= 2.0f;
    return true;
}

extern const struct family family_bfp;
const struct family family_bfp = { .name = "bfp", .candidate = bfp_candidate, .candidates = mx_candidates, .error = mx_error, .search = mx_search };
