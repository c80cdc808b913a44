/* ggml_mse_search.h: scales and lines of least square error for a few weights, 32 candidates side by side.
 *
 *   scale   x = s * q                q a whole number from low to high, or one of 16 levels
 *   line    x = s * q + m            q a whole number from 0 to top
 *
 * Why this way: a candidate is where codes come from; the least-squares scale (or line) of its codes is what it is judged by, so a coarse grid finds
 * the pattern of codes that a fine one would. A lane is a candidate: each sum runs in element order however wide the vectors are.
 * Corner cases: a scale of 0 has the codes nearest to 0; equals go to the first; a determinant that is not positive leaves the scale 0.
 * Reference: NUMERICS_GGML.md 2. Worked number: x = {3, 1}, s = 2: codes 2 (1.5, a tie to even) and 0, least-squares scale 6/4.
 */
#ifndef LLMQ_NUMBER_GGML_MSE_SEARCH_H
#define LLMQ_NUMBER_GGML_MSE_SEARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MSE_LANES 32u
#define MSE_GROUP_MAX 32u

/* What a search is about: n <= 32 weights and their search weights > 0. */
struct mse_group {
    const float *x, *w;
    size_t n;
};

/* Codes of a scale. */
struct mse_scale_codes {
    float low, high; /* of q */
    bool levels; /* q is a level of IQ4; low and high are not looked at */
    float first, step; /* candidate k of a sign: codes nearest to x * (first + step * k) / amax */
    uint32_t passes; /* of 32 candidates */
};

/* The scale of one sign whose codes have the least error; *loss: that error less sum w x^2. 0 when all codes are 0. */
float mse_search_scale(const struct mse_group *group, const struct mse_scale_codes *codes, bool negative, float *loss);

/* Errors of 32 scales, each with its nearest codes. */
void mse_scale_errors(const struct mse_group *group, const struct mse_scale_codes *codes, const float *scales, float *errors);

/* Codes nearest to x / s, as they are stored: q - low, or the index of the level. */
void mse_scale_nearest(const struct mse_group *group, const struct mse_scale_codes *codes, float s, uint8_t *out);

/* q of a stored code. */
float mse_scale_value(const struct mse_scale_codes *codes, uint8_t code);

/* Codes of a line. */
struct mse_line_codes {
    float top; /* largest q */
    float first, step; /* candidate k: s = (largest - least x) / (top + clip), clip = first + step * k */
    uint32_t shifts; /* at least 2; m = least x + shift / (shifts - 1) * clip * s */
    bool below; /* m may not be positive */
};

struct mse_line {
    float s, m;
    float mean; /* weighted mean of q */
};

/* The line whose codes have the least error. */
void mse_search_line(const struct mse_group *group, const struct mse_line_codes *codes, struct mse_line *found);

/* Errors of 32 lines, each with its nearest codes. */
void mse_line_errors(const struct mse_group *group, float top, const float *scales, const float *minima, float *errors);

/* Codes nearest to (x - m) / s. */
void mse_line_nearest(const struct mse_group *group, float top, float s, float m, uint8_t *out);

/* The lane of least error, the first of equals. */
size_t mse_least(const float *errors);

#endif
