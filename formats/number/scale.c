/* scale.c: stored scale types and the names of scale rules.
 *
 * Formula: e8m0 b -> 2^(b-127), 255 -> NaN; e4m3 as the element, 0x7F -> NaN; bf16, f16, f32 as IEEE; none -> 0 bits.
 * Why this way: see scale.h.
 * Corner cases: e8m0 0 is the subnormal 2^-127; storing into e8m0 is the MX family's business, not here.
 * Reference: NUMERICS.md 3, 4. Worked number: 0.0604248 -> bf16 0x3D77 = 0.060302734375.
 */
#include "number/scale.h"

#include <string.h>

#include "number/elem.h"
#include "number/half.h"

static const struct {
    const char *name;
    uint32_t bits;
} types[SCALE_TYPE_COUNT] = { { "e8m0", 8 }, { "bf16", 16 }, { "f16", 16 }, { "f32", 32 }, { "e4m3", 8 }, { "none", 0 } };

static const char *const rules[RULE_COUNT] = { "absmax",     "mse",      "floor",         "even", "ceil", "rceil", "search", "reference", "minmax",
                                               "percentile", "mse-hist", "histogram-pro", "3sd",  "kl-j", "tqt",   "lsq",    "pact" };

const char *scale_type_name(enum scale_type type)
{
    return types[type].name;
}

enum scale_type scale_type_find(const char *name)
{
    unsigned i = 0;
    while (i < SCALE_TYPE_COUNT && strcmp(types[i].name, name) != 0) i++;
    return (enum scale_type)i;
}

uint32_t scale_type_bits(enum scale_type type)
{
    return types[type].bits;
}

uint32_t scale_store(enum scale_type type, float s)
{
    if (type == SCALE_BF16) return f32_to_bf16(s);
    if (type == SCALE_F16) return f32_to_f16(s);
    if (type == SCALE_E4M3) return elem_encode(&elem_rows[ELEM_E4M3], s, ROUND_NEAREST_EVEN);
    return f32_bits(s);
}

float scale_load(enum scale_type type, uint32_t bits)
{
    if (type == SCALE_E8M0) return bits == 255 ? f32_from_bits(0x7FC00000u) : exact_exp2((int32_t)bits - 127);
    if (type == SCALE_BF16) return bf16_to_f32((uint16_t)bits);
    if (type == SCALE_F16) return f16_to_f32((uint16_t)bits);
    if (type == SCALE_E4M3) return elem_decode(&elem_rows[ELEM_E4M3], bits);
    return f32_from_bits(bits);
}

const char *scale_rule_name(enum scale_rule rule)
{
    return rules[rule];
}

enum scale_rule scale_rule_find(const char *name)
{
    unsigned i = 0;
    while (i < RULE_COUNT && strcmp(rules[i], name) != 0) i++;
    return (enum scale_rule)i;
}
