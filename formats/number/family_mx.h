/* family_mx.h: what the MX family shares with others whose scale is an exponent byte.
 *
 *   byte b = 2^(b - 127), from the largest weight of the group or, by search, of its neighbours
 *
 * Why this way: block floating point is MX with another element; only its kernel 1 chooses in a way of its own.
 * Corner cases: see family_mx.c.
 * Reference: NUMERICS.md 3, NUMERICS_BLOCK.md 1.
 */
#ifndef LLMQ_NUMBER_FAMILY_MX_H
#define LLMQ_NUMBER_FAMILY_MX_H

#include "number/format.h"

/* As the members of struct family. */
bool mx_candidate(const struct quant *quant, struct range range, uint32_t number, struct group_scale *scale);
uint32_t mx_candidates(const struct quant *quant);
void mx_error(const struct quant *quant, const struct kernels *kernels, struct range range, const struct group_scale *scale, struct error_sum *sum);
size_t mx_search(const struct quant *quant, const struct kernels *kernels, const struct range *ranges, const float *x, size_t n, size_t group,
                 struct group_scale *scales);

#endif
