/* fakequant.h: integer quantise-and-dequantise with a given scale and zero point, and its straight-through gradient.
 *
 *   r = R(fl(x / s))     q = clip(r + z, code_min, code_max)     y = fl((q - z) * s)
 *   dL/dx = g where code_min <= r + z <= code_max, else 0        dL/ds = sum g * tau,   tau = r - x/s inside, (q - z) outside
 *
 * Why this way: what TQT, LSQ and PACT share. z is added after rounding, here and in what is stored, so that the codes written reproduce the error
 * measured; a tool that adds z before rounding differs on ties when z is odd (s = 1, z = 1, x = 0.5: code 1 here, 2 there).
 * Corner cases: a true division, as in NUMERICS.md 4; x / s may overflow, then the code saturates; codes and zero of at most 16 bits, code_min <=
 * zero <= code_max for asymmetric use; a scale <= 0, NaN or Inf is the caller's error.
 * Reference: NUMERICS_LEARNED.md 2; Bengio et al., arXiv 1308.3432 (straight-through); Esser et al., arXiv 1902.08153 (tau).
 */
#ifndef LLMQ_NUMBER_FAKEQUANT_H
#define LLMQ_NUMBER_FAKEQUANT_H

#include <stddef.h>
#include <stdint.h>

#include "number/round.h"

/* The codes. */
struct fakequant {
    int32_t code_min, code_max, zero;
    enum rounding rounding;
};

/* Which weights share a parameter: weight i has parameter (i / inner) mod count. Per tensor: count 1, inner n. Per row of a matrix of R rows and C
 * columns: count R, inner C; per column: count C, inner 1. n is a multiple of count * inner. */
struct fakequant_axis {
    size_t count, inner;
};

/* r of one weight, the code - zero of a given r, and tau of both. */
static inline float fakequant_round(const struct fakequant *codes, float scale, float x)
{
    return round_to_integer(x / scale, codes->rounding);
}

static inline float fakequant_clip(const struct fakequant *codes, float r)
{
    return fminf(fmaxf(r, (float)(codes->code_min - codes->zero)), (float)(codes->code_max - codes->zero));
}

/* The weights y that n weights x become; scales has axis.count members. y may be x. */
void fakequant_forward(const struct fakequant *codes, const float *scales, struct fakequant_axis axis, const float *x, size_t n, float *y);

/* Backward for parameter `channel` alone, whose scale is given: g is dL/dy of all n weights; writes dL/dx of the channel's weights to dx (NULL: not
 * wanted; may be g) and returns sum g * tau in binary64, summed as NUMERICS_LEARNED.md 3 says. */
double fakequant_backward(const struct fakequant *codes, float scale, struct fakequant_axis axis, size_t channel, const float *x, const float *g,
                          size_t n, float *dx);

/* The sum of 16 lanes in the order of NUMERICS.md 5, in binary64; the lanes are used up. */
double fakequant_lane_sum(double lanes[16]);

#endif
