/* approx.h: the common interface of multiplier quantisers: bit width, largest integer, scale factor, quantise.
 *
 *   int_max = 2^(bits-1) - 1     factor = int_max / minmax     q = RNE(clip(fl(x * factor), -int_max, int_max))     x = fl(q / factor)
 *
 * Why this way: counterpart of ApproxQuantizer, MinMaxQuant and the quantising half of PACTQuant. Their scale factor multiplies, and the most negative
 * code is never used; as a scale rule of the integer formats this is the scale 1 / factor.
 * Corner cases: a tensor of zeros has factor 1 and codes 0 (the tool these came from divides by 0); bits 2 .. 16.
 * Reference: NUMERICS_LEARNED.md 6. Worked number: 4 bits, max|x| = 2.6: factor 2.692308, -1.4 -> -4 -> -1.485714.
 */
#ifndef LLMQ_NUMBER_APPROX_H
#define LLMQ_NUMBER_APPROX_H

#include <stddef.h>
#include <stdint.h>

struct approx {
    uint32_t bits; /* 8 in the original by default */
    float factor; /* the scale factor: integer = x * factor */
};

/* The largest integer of a bit width: 127 for 8, 7 for 4. */
int32_t approx_int_max(uint32_t bits);

/* The quantiser for a range of +-minmax (> 0; 0 gives factor 1): MinMaxQuant with minmax = max |x|, PACTQuant with minmax = alpha. */
struct approx approx_for_range(uint32_t bits, float minmax);

/* MinMaxQuant of n weights. */
struct approx approx_minmax(uint32_t bits, const float *x, size_t n);

/* Integers, as f32, of n weights, and the weights that integers stand for. Outputs may be the inputs. */
void approx_quantize(const struct approx *approx, const float *x, size_t n, float *q);
void approx_dequantize(const struct approx *approx, const float *q, size_t n, float *x);

/* dL/dx = g * factor from the gradient g to the integers, straight through. masked: 0 where x * factor lies beyond +-int_max, which MinMaxQuant, whose
 * range is that of the tensor, has none of, and which the original of PACTQuant forgets. x may be NULL when not masked. dx may be g. */
enum approx_mask { APPROX_UNMASKED, APPROX_MASKED };
void approx_backward(const struct approx *approx, enum approx_mask mask, const float *x, const float *g, size_t n, float *dx);

#endif
