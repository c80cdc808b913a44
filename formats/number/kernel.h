/* kernel.h: the inner loops, one table per processor level; every table gives the same bits.
 *
 *   kernels_select() -> "avx512" | "avx2" | "portable"      LLMQ_KERNELS=portable lowers the choice
 *
 * Why this way: kernel_body.h is written once in plain C and compiled for several targets (function-level attributes, contraction off), so that a vector
 * set cannot differ from the portable one by construction; single slots are then overridden where intrinsics are faster, and tests compare all sets.
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

/* Integer coding of one group: code = clamp(R(x / scale) + zero, low, high). */
struct int_coding {
    float scale;
    int32_t zero, low, high;
    uint32_t bits;
    bool is_signed;
    enum rounding rounding;
};

struct kernels {
    const char *name;
    /* n BF16 elements to f32. */
    void (*widen_bf16)(const uint8_t *stored, size_t n, float *x);
    /* True when none of the n numbers is NaN or Inf. */
    bool (*all_finite)(const float *x, size_t n);
    /* Range of n finite numbers with 0 included. */
    struct range (*range)(const float *x, size_t n);

    /* Float elements: codes of fl(x * multiplier); error terms (NUMERICS.md 3) with unit = 2^(e-e0), added to lanes beginning with lane first mod 16; values of codes times scale. */
    void (*encode_float)(const struct elem *elem, enum rounding rounding, const float *x, float multiplier, size_t n, uint16_t *codes);
    void (*error_float)(const struct elem *elem, enum rounding rounding, const float *x, float multiplier, float unit, const float *weight, size_t n,
                        uint32_t first, float lanes[16]);
    void (*decode_float)(const struct elem *elem, const uint16_t *codes, float scale, size_t n, float *y);

    /* Fixed-point elements (mxint8): the same three. */
    void (*encode_fixed)(const struct elem *elem, enum rounding rounding, const float *x, float multiplier, size_t n, uint16_t *codes);
    void (*error_fixed)(const struct elem *elem, enum rounding rounding, const float *x, float multiplier, float unit, const float *weight, size_t n,
                        uint32_t first, float lanes[16]);

    /* Integers with a scale: codes; error terms (NUMERICS.md 4) with unit = 2^-p; (code - zero) * scale. */
    void (*encode_int)(const struct int_coding *coding, const float *x, size_t n, uint16_t *codes);
    void (*error_int)(const struct int_coding *coding, const float *x, float unit, const float *weight, size_t n, uint32_t first, float lanes[16]);
    void (*decode_int)(const struct int_coding *coding, const uint16_t *codes, size_t n, float *y);

    /* Adds n pairs (weight, decoded weight) to the measure. */
    void (*measure)(const float *x, const float *y, size_t n, struct measure *measure);

    /* n_groups groups of 32 BF16 weights straight to MXFP4: 16 bytes of codes and a scale byte each, nearest-even, rule floor, even, ceil or rceil. false when a weight is
     * NaN or Inf (the outputs are then undefined). */
    bool (*mxfp4_bf16)(const uint8_t *stored, size_t n_groups, enum scale_rule rule, uint8_t *codes, uint8_t *scales);
};

/* Sum of the lanes in the fixed tree of NUMERICS.md 5; destroys lanes. */
float lanes_sum(float lanes[16]);

/* All sets this processor can run, the best last; at least "portable". */
size_t kernels_count(void);
const struct kernels *kernels_at(size_t index);

/* The best set, or the one named by most (NULL: no wish) if this processor has it; an unknown or missing one gives the best below it, "portable" in the end. */
const struct kernels *kernels_select(const char *most);

#endif
