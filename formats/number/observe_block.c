/* observe_block.c: shared exponents of MX and BFP blocks from their ranges.
 *
 * Formula: MX: NUMERICS.md 3. mx6, mx9: the exponent field of amax. BFP16: E = max(ilog2(amax), -127), step 2^(E - 6); E + 1 where RNE(max / step) =
 * 128, that is max / step >= 127.5.
 * Why this way: |x| / step < 128 for every weight of the block, so the only code that leaves -128 .. 127 is +128, and only the greatest weight can
 * have it: no second reading.
 * Corner cases: a block of zeros has exponent field 0; subnormal blocks have field 0, as a field of 0 says; at field 254 there is no bump.
 * Reference: NUMERICS_OBSERVERS.md 8. Worked number: block [0.61, 0.05, -0.77, 2.6]: MXFP4 floor 2^(1-2) = 0.5, BFP16 step 2^(1-6) = 2^-5.
 */
#include "number/observe.h"

#include <string.h>

bool observe_mx_scale(const struct elem *elem, enum scale_rule rule, struct range range, struct group_scale *scale)
{
    const struct family *family = family_find("mx");
    for (size_t i = 0; i < format_count(); i++) {
        const struct quant quant = { .format = format_at(i), .elem = elem, .rule = rule };
        if (quant.format->family == family && quant.format->elem == elem) return family->candidate(&quant, range, 0, scale);
    }
    return false;
}

struct group_scale observe_prime_exponent(struct range range)
{
    const uint32_t field = f32_bits(range_amax(range)) >> 23;
    return (struct group_scale){ .bits = field, .value = exact_exp2((int32_t)field - 127) };
}

struct group_scale observe_bfp_scale(struct range range)
{
    int32_t exponent = (int32_t)observe_prime_exponent(range).bits - 127;
    if (exponent < 127 && range.max / exact_exp2(exponent - 6) >= 127.5f) exponent++;
    return (struct group_scale){ .bits = (uint32_t)(exponent + 127), .value = exact_exp2(exponent - 6) };
}
