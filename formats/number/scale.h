/* scale.h: the types in which scales are stored, and the names of the rules that choose them.
 *
 *   e8m0: byte b = 2^(b-127)     e4m3: OCP FP8     bf16, f16, f32: IEEE bits     none: the format has no scales of its own
 *
 * Why this way: "the stored scale is the one used" needs one function that rounds to the stored type and one that reads it back.
 * Corner cases: scale_store of a value beyond the largest finite number gives the bits of Inf, which the encoders report as overflow; e8m0 0 is
 * 2^-127, a subnormal.
 * Reference: NUMERICS.md 3, 4.
 */
#ifndef LLMQ_NUMBER_SCALE_H
#define LLMQ_NUMBER_SCALE_H

#include <stdbool.h>
#include <stdint.h>

enum scale_type { SCALE_E8M0, SCALE_BF16, SCALE_F16, SCALE_F32, SCALE_E4M3, SCALE_NONE, SCALE_TYPE_COUNT };

const char *scale_type_name(enum scale_type type);
enum scale_type scale_type_find(const char *name); /* SCALE_TYPE_COUNT when unknown */
uint32_t scale_type_bits(enum scale_type type);

/* Stored bits of s (bf16, f16, f32, e4m3 only), to nearest even; and the value of stored bits (all types). */
uint32_t scale_store(enum scale_type type, float s);
float scale_load(enum scale_type type, uint32_t bits);

enum scale_rule {
    RULE_ABSMAX,
    RULE_MSE,
    RULE_FLOOR,
    RULE_EVEN,
    RULE_CEIL,
    RULE_RCEIL,
    RULE_SEARCH,
    RULE_REFERENCE,
    RULE_MINMAX, /* from here on: range observers (observe.h) and learners (learn.h) under their own names */
    RULE_PERCENTILE,
    RULE_MSE_HIST,
    RULE_HISTOGRAM_PRO,
    RULE_3SD,
    RULE_KL_J,
    RULE_TQT,
    RULE_LSQ,
    RULE_PACT,
    RULE_COUNT
};

const char *scale_rule_name(enum scale_rule rule);
enum scale_rule scale_rule_find(const char *name); /* RULE_COUNT when unknown */

#endif
