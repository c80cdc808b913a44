/* ggml_mse.h: encoders of ggml's block types by least square error: what encode_mse of the rows in ggml.h points at.
 *
 *   error of a block = sum of w_i * (x_i - y_i)^2, y as the type's decode gives it from the stored bytes
 *
 * Why this way: a block is what a scale of F16 covers, so it is improved by itself; ggml's own block is always a candidate, so a file never gets worse
 * in any block.
 * Corner cases: blocks with a largest weight below 2^-25 or above 65504 (MXFP4: none), blocks that ggml's bytes hit exactly, and blocks whose
 * importance is zero keep ggml's bytes; a block of ours is always finite.
 * Reference: NUMERICS_GGML.md. Worked number: Q4_0 of {1, 0, 0, ...}: ggml stores d = -0.125 and code 0, exact: kept.
 */
#ifndef LLMQ_NUMBER_GGML_MSE_H
#define LLMQ_NUMBER_GGML_MSE_H

#include "number/ggml.h"

/* As any ggml_encode. With importance weights the types whose row_mean is set take exactly one row; all types heed the weights, also those whose
 * encode does not. */
ggml_encode ggml_mse_q4_0, ggml_mse_q4_1, ggml_mse_q5_0, ggml_mse_q5_1, ggml_mse_q8_0;
ggml_encode ggml_mse_q2_k, ggml_mse_q3_k, ggml_mse_q4_k, ggml_mse_q5_k, ggml_mse_q6_k;
ggml_encode ggml_mse_iq4_nl, ggml_mse_iq4_xs;
ggml_encode ggml_mse_mxfp4, ggml_mse_nvfp4;

/* ---- for the encoders themselves -------------------------------------------------------------------------------------------------- */

#define MSE_BLOCK_MAX 256u /* elements of the largest block */
#define MSE_BYTES_MAX 210u /* bytes of the largest block */

/* Writes a block for x[elements] under the search weights w[elements] > 0; false when it has none to offer. */
typedef bool mse_block_search(const float *x, const float *w, uint8_t *block);

/* Encodes with type->encode, then puts the block of search wherever its error is less. smallest, largest: bounds of the block's largest weight
 * outside which ggml's block is kept. */
void mse_improve(const struct ggml_type *type, mse_block_search *search, float smallest, float largest, const float *x, const float *weight,
                 size_t n_blocks, uint8_t *blocks);

/* Error of a block as above, in binary64: term i to lane i mod 16, then the tree of NUMERICS.md 5. weight may be NULL. */
double mse_of_block(const struct ggml_type *type, const float *x, const float *weight, const uint8_t *block);

#endif
