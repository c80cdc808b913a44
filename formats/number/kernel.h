/* kernel.h: the inner loops, one table per processor level; every table gives the same bits.
 *
 *   kernels_select() -> "avx512" | "avx2" | "portable"      LLMQ_KERNELS=portable lowers the choice
 *
 * Why this way: kernel_body.h is written once in plain C and compiled for several targets (function-level attributes, contraction off), so that a
 * vector set cannot differ from the portable one by construction; single slots are then overridden where intrinsics are faster, and tests compare
 * all sets.
 * Corner cases: any length and alignment; -0, subnormals; NaN and Inf only in the slots that say so.
 * Reference: NUMERICS.md; design.md 4.
 */
#ifndef LLMQ_NUMBER_KERNEL_H
#define LLMQ_NUMBER_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "number/elem.h"
#include "number/format.h"
#include "number/metric.h"

/* An error to be summed: over n weights x with importance weight (or NULL), differences multiplied by unit. first counts the weights summed in
 * earlier calls: the lanes go on from there, or begin at 0 when it is 0. total is the sum of the lanes. A family that sees that total will be at
 * least limit may leave it at that. */
struct error_sum {
    const float *x, *weight;
    size_t n;
    uint32_t first;
    float unit, limit, total;
    float lanes[16];
};

struct kernels {
    const char *name;
    /* n BF16 elements to f32; true when all are finite. */
    bool (*widen_bf16)(const uint8_t *stored, size_t n, float *x);
    /* True when none of the n numbers is NaN or Inf. */
    bool (*all_finite)(const float *x, size_t n);
    /* Range, with 0 included, of each group of n finite numbers in groups of `group` (the last may be shorter). */
    void (*ranges)(const float *x, size_t n, size_t group, struct range *ranges);

    /* Codes of the weights x and, where y is not NULL, the weights that they stand for; the weights of codes. */
    void (*encode)(const struct elem *elem, enum rounding rounding, const struct groups *groups, const float *x, uint16_t *codes, float *y);
    void (*decode)(const struct elem *elem, const struct groups *groups, const uint16_t *codes, float *y);

    /* Adds the error terms of one group under one scale to the lanes (NUMERICS.md 3 and 4): differences of weights and decoded weights, times unit;
     * of float elements under a power of two those of fl(x * 2^-e), times unit * 2^e. */
    void (*error)(const struct elem *elem, enum rounding rounding, const struct group_scale *scale, struct error_sum *sum);

    /* The sums of the error terms (as error makes them, nearest-even, without importance) of n weights, a multiple of 16, of a float element under each
     * of n_scales positive scales. */
    void (*errors)(const struct elem *elem, const float *x, size_t n, const float *scales, size_t n_scales, float unit, float *sums);

    /* Error terms of n weights, each under a scale of its own (values[i] as in struct group_scale), for an integer element without zero point:
     * differences of weights and decoded weights, times unit, squared. */
    void (*terms)(const struct elem *elem, enum rounding rounding, const float *values, float unit, size_t n, const float *x, float *terms);

    /* MX search with nearest-even in groups of a multiple of 16 weights, none shorter, whose scales are those of rule floor and whose ranges are
     * given: steps[g] is what the best scale adds to the byte. All three candidates must exist. */
    void (*search)(const struct elem *elem, const struct groups *groups, const struct range *ranges, const float *x, int8_t *steps);

    /* Adds n pairs (weight, decoded weight) to the measure. */
    void (*measure)(const float *x, const float *y, size_t n, struct measure *measure);

    /* n_groups groups of 32 BF16 weights straight to MXFP4: 16 bytes of codes and a scale byte each, nearest-even, rule floor, even, ceil or rceil.
     * false when a weight is NaN or Inf (the outputs are then undefined). And back, to f32. */
    bool (*mxfp4_bf16)(const uint8_t *stored, size_t n_groups, enum scale_rule rule, uint8_t *codes, uint8_t *scales);
    void (*mxfp4_f32)(const uint8_t *codes, const uint8_t *scales, size_t n_groups, float *y);
};

/* All sets this processor can run, the best last; at least "portable". */
size_t kernels_count(void);
const struct kernels *kernels_at(size_t index);

/* The best set, or the one named by most (NULL: no wish) if this processor has it; an unknown or missing one gives the best below it, "portable" in
 * the end. */
const struct kernels *kernels_select(const char *most);

#endif
