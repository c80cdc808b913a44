/* qdq8.h: the reference's 8-bit quantise-dequantise: quant_dequant_w_v1, quant_dequant_x_v1 and the parameters of SQLinearWrapper.
 *
 *   weights, sym   scale = absmax / ((2^b - 1) / 2), q in [-2^(b-1), 2^(b-1) - 1]        asym   scale = (max(x,0) - min(x,0)) / (2^b - 1),
 *                                                                                          zero = round(-min / scale) of the raw minimum
 *   activations    scale = (max - min) / (2^b - 1), zero = round(-min / scale), q in [0, 2^b - 1]
 *   y = (clamp(round(x / scale + zero)) - zero) * scale, every operator rounded to binary32, round half to even; scale >= 2^-23
 *
 * Why this way: these are the numbers that AutoAlpha's losses are made of; what the target format does is in smooth_search.h.
 * Corner cases: the activation's range is not widened to hold 0, a row's zero point may lie outside its codes (both as in the original); scale of zeros
 * 2^-23; NaN and Inf are not taken.
 * Reference: the project's smoothquant notes 1a, 6e.2 to 6e.4. Worked number: sym, 4 bits, 1, -.5, .26: scale 1/7.5, codes 7, -4, 2.
 */
#ifndef LLMQ_SMOOTHQUANT_QDQ8_H
#define LLMQ_SMOOTHQUANT_QDQ8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QDQ_SCALE_MIN 0x1p-23f

enum qdq_scheme { QDQ_SYM, QDQ_ASYM };

struct qdq_params {
    float scale;
    float zero; /* a whole number */
    float code_min, code_max;
};

/* Linear [rows, cols], a scale a row: y[rows * cols]; y may be w. bits 2 .. 16. params: rows of them, or NULL. */
void qdq_weight_linear(const float *w, uint64_t rows, uint64_t cols, uint32_t bits, enum qdq_scheme scheme, float *y, struct qdq_params *params);

/* Conv2d [out, in, height, width], a scale an input channel, sym of half range 2^(b-1) - 1. params: in of them, or NULL. */
void qdq_weight_conv(const float *w, uint64_t out, uint64_t in, uint64_t height, uint64_t width, uint32_t bits, enum qdq_scheme scheme, float *y,
                     struct qdq_params *params);

/* Parameters of n activations: one scale for the whole tensor. */
struct qdq_params qdq_act_params(float min, float max, uint32_t bits);

/* y = quantised x; y may be x. */
void qdq_apply(const struct qdq_params *params, const float *x, uint64_t n, float *y);

/* The whole of quant_dequant_x_v1: range of x itself where min or max is NULL, else the least of min[n_range], the greatest of max[n_range]. */
void qdq_act(const float *x, uint64_t n, const float *min, const float *max, uint64_t n_range, uint32_t bits, float *y, struct qdq_params *params);

/* What SQLinearWrapper keeps of a linear layer whose input is multiplied by input_scale = 1 / s. */
struct qdq_linear {
    float low, high; /* min(min_j * scale_j, 0), max(max_j * scale_j, 0) */
    float scale; /* input_scale_after_mul = max((high - low) / 255, 2^-23) */
    int32_t zero; /* input_zero_point_after_mul, 0 .. 255 */
};

/* input_scale NULL: 1. */
struct qdq_linear qdq_linear_params(const float *min, const float *max, const float *input_scale, uint64_t n);

/* weight_scale_after_mul: max(absmax of a row / 127.5, 2^-23) for each row. */
void qdq_row_scales(const float *w, uint64_t rows, uint64_t cols, float *scales);

#endif
