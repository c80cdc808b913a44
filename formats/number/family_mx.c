/* family_mx.c: MX formats: a shared power of two for each group (E8M0), float or fixed-point elements.
 *
 * Formula: u = fl(x * 2^-e), code = encode(u), weight = fl(value(code) * 2^e). Rules for e from amax:
 *   floor ilog2(amax) - emax      even: floor of (bits(amax) + 2^(22-m))      ceil: ceil(log2 amax) - emax      rceil: least e with amax <= max * 2^e
 *   search: floor, floor+1, floor-1 by least squared error, ties in this order
 * Why this way: exponents come from bits, never from a logarithm, so they are exact on every machine.
 * Corner cases: e is clamped to -127 .. 127-emax; a zero group has byte 0; a candidate that the clamp makes equal to an earlier one is left out.
 * Reference: NUMERICS.md 3; OCP Microscaling Formats 1.0, 6.3. Worked number: e2m1, amax 5: floor e 0 (5 -> 4), ceil and rceil: 1 and 0.
 */
#include <math.h>

#include "number/family_mx.h"
#include "number/half.h"
#include "number/kernel.h"

/* The largest e for which max * 2^e is finite. */
static int32_t highest_exponent(const struct elem *elem)
{
    return 127 - elem->emax;
}

static int32_t clamp_exponent(const struct elem *elem, int32_t e)
{
    return e < -127 ? -127 : e > highest_exponent(elem) ? highest_exponent(elem) : e;
}

static int32_t floor_exponent(const struct elem *elem, float amax)
{
    return exact_ilog2(amax) - elem->emax;
}

static int32_t even_exponent(const struct elem *elem, float amax)
{
    uint32_t man_bits = elem->kind == ELEM_FLOAT ? elem->man_bits : elem->bits;
    uint32_t bits = f32_bits(amax) + (1u << (22u - man_bits));
    return (int32_t)(bits >> 23) - 127 - elem->emax;
}

static int32_t ceil_exponent(const struct elem *elem, float amax)
{
    int32_t floor = exact_ilog2(amax);
    return floor + (exact_exp2(floor) < amax) - elem->emax;
}

/* max = significand * 2^emax: amax <= max * 2^e at e = floor when amax's significand is at most that of max, else one more is needed. */
static int32_t rceil_exponent(const struct elem *elem, float amax)
{
    int32_t floor = exact_ilog2(amax);
    float amax_significand = amax >= 0x1p-126f ? f32_from_bits((f32_bits(amax) & 0x7FFFFFu) | 0x3F800000u) : amax * exact_exp2(-floor - 64) * 0x1p64f;
    float max_significand = elem->max * exact_exp2(-elem->emax);
    return floor - elem->emax + (amax_significand > max_significand);
}

static int32_t rule_exponent(const struct elem *elem, enum scale_rule rule, float amax)
{
    if (amax == 0.0f) return -127;
    switch (rule) {
    case RULE_EVEN:
        return even_exponent(elem, amax);
    case RULE_CEIL:
        return ceil_exponent(elem, amax);
    case RULE_RCEIL:
        return rceil_exponent(elem, amax);
    default:
        return floor_exponent(elem, amax);
    }
}

static void set_exponent(int32_t e, struct group_scale *scale)
{
    *scale = (struct group_scale){ .bits = (uint32_t)(e + 127), .value = exact_exp2(e) };
}

bool mx_candidate(const struct quant *quant, struct range range, uint32_t number, struct group_scale *scale)
{
    const struct elem *elem = quant->elem;
    int32_t e = clamp_exponent(elem, rule_exponent(elem, quant->rule, range_amax(range)));
    if (number == 1 && e++ == highest_exponent(elem)) return false;
    if (number == 2 && e-- == -127) return false;
    set_exponent(e, scale);
    return true;
}

uint32_t mx_candidates(const struct quant *quant)
{
    return quant->rule == RULE_SEARCH ? 3 : 1;
}

static int32_t floor_of(const struct elem *elem, struct range range)
{
    return clamp_exponent(elem, rule_exponent(elem, RULE_FLOOR, range_amax(range)));
}

void mx_error(const struct quant *quant, const struct kernels *kernels, struct range range, const struct group_scale *scale, struct error_sum *sum)
{
    const struct elem *elem = quant->elem;
    const int32_t e0 = floor_of(elem, range);
    sum->unit = exact_exp2(-e0);
    kernels->error(elem, quant->rounding, scale, sum);
}

/* Its ends are not the same size; the kernel sees sizes only. */
static bool is_lopsided(const struct elem *elem)
{
    return elem->kind != ELEM_FLOAT && elem->code_min != -elem->code_max;
}

/* All three candidates of many groups at once. Groups whose exponent stands at an end of its range, often those of zeros, have fewer candidates and
 * are left to the caller. */
size_t mx_search(const struct quant *quant, const struct kernels *kernels, const struct range *ranges, const float *x, size_t n, size_t group,
                 struct group_scale *scales)
{
    const struct elem *elem = quant->elem;
    int8_t steps[SEARCH_GROUPS];
    size_t count = 0;
    if (quant->rule != RULE_SEARCH || quant->rounding != ROUND_NEAREST_EVEN || group % 16 != 0 || is_lopsided(elem)) return 0;
    for (; count < n / group && count < SEARCH_GROUPS; count++) {
        int32_t e0 = floor_of(elem, ranges[count]);
        if (e0 == -127 || e0 == highest_exponent(elem)) break;
        set_exponent(e0, &scales[count]);
    }
    if (count == 0) return 0;
    const struct groups groups = { count * group, group, scales };
    kernels->search(elem, &groups, ranges, x, steps);
    for (size_t g = 0; g < count; g++) set_exponent((int32_t)scales[g].bits - 127 + steps[g], &scales[g]);
    return count;
}

extern const struct family family_mx;
const struct family family_mx = { .name = "mx", .candidate = mx_candidate, .candidates = mx_candidates, .error = mx_error, .search = mx_search };
