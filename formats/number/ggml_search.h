/* ggml_search.h: how ggml looks for the scale (and minimum) of a few weights: candidates by weighted least squares.
 *
 *   symmetric   x = scale * (code - half)          positive   x = scale * code          affine   x = scale * code - minimum
 *
 * Why this way: what does not depend on each other is computed side by side, in lanes, while each lane adds its sums in element order: the same
 * bytes as one after the other, at the speed of vectors.
 * Corner cases: groups below 1e-15 are zero; a sum that overflows or a determinant that is not positive loses; wrong signs of a scale wrap as
 * ggml's bytes do.
 * Reference: layouts.md 2(f), "Reference quantisation"; the source it names. Worked number: symmetric, half 8, x = {-8, 7}: scale 1, codes {0, 15}.
 */
#ifndef LLMQ_NUMBER_GGML_SEARCH_H
#define LLMQ_NUMBER_GGML_SEARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GGML_GROUP_MAX 32u /* weights of one search */

/* Codes 0 .. 2*half-1 by 19 candidates around half / extreme; returns the scale. Weights of zero groups get code 0. */
float ggml_search_symmetric(const float *x, const float *weight, size_t n, int32_t half, uint8_t *codes);

/* The same codes by up to five rounds of changing single codes, weights x^2. */
float ggml_descend_symmetric(const float *x, size_t n, int32_t half, uint8_t *codes);

/* Codes of x >= 0 from 0 to top, by nine candidates, then up to five rounds of changing single codes. Codes of stray negative x wrap to 8 bits. */
float ggml_search_positive(const float *x, const float *weight, size_t n, int32_t top, uint8_t *codes);

/* Candidates of an affine search: levels top + first + step * k, k = 0 .. last, over the range. */
struct ggml_affine {
    int32_t top; /* largest code */
    float first, step;
    uint32_t last;
    bool absolute; /* the error is the weighted sum of |difference|, else of its square */
};

/* Codes 0 .. top, scale and minimum (what is subtracted, >= 0) of each of some groups of n weights. */
void ggml_search_affine(const struct ggml_affine *how, const float *x, const float *weight, size_t n, size_t groups, uint8_t *codes, float *scales,
                        float *minima);

#endif
