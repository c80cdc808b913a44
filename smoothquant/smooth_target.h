/* smooth_target.h: rows of a matrix through the format they will have, and back.
 *
 *   v (f32) --codec_encode--> planes or blocks --codec_decode_row--> y = Q(v)
 *
 * Why this way: these are the functions that a conversion calls, so every format, scale rule, rounding and second-level scale is judged by itself.
 * Corner cases: a scale of the matrix follows from the range of all its rows, which the caller knows and the rows here may not show; a group "tensor"
 * is made of the rows that are here; groups of 128 rows begin at the first row. Rows longer than a tile are refused.
 * Reference: layout/codec.h. Worked number: int4, group 4, scale bf16: 1, -2, 3, 7: scale 0.93359375, codes 1, -2, 3, 7.
 */
#ifndef LLMQ_SMOOTHQUANT_SMOOTH_TARGET_H
#define LLMQ_SMOOTHQUANT_SMOOTH_TARGET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "number/format.h"

struct smooth_target;

/* For matrices of at most n_rows rows of n columns; quant must outlive it. ERR_UNSUPPORTED: what the format does not take. */
enum status smooth_target_open(const struct quant *quant, uint64_t n_rows, uint64_t n, struct smooth_target **target, struct err *err);
void smooth_target_close(struct smooth_target *target); /* NULL allowed */

/* y = Q(v) for n_rows x n numbers; importance: n weights >= 0 or NULL; amax: largest |v| of the whole matrix, for formats whose matrices have a scale
 * (below 0: that of v). False: a number is not finite, a scale overflows, or y is not finite. Not for two threads at once. */
bool smooth_target_run(struct smooth_target *target, const float *v, uint64_t n_rows, const float *importance, float amax, float *y);

/* Rows that must stay together: 1, those of a square, or 0: all of the matrix. */
uint64_t smooth_target_rows(const struct quant *quant);

#endif
