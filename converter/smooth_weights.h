/* smooth_weights.h: what migration must know of the weights behind a channel: their largest magnitude, and a sample of rows.
 *
 *   tiles of a consumer -> f32 -> max_i |W_ij| for each channel j;     rows 0, step, 2 step, ... -> n_rows x n floats
 *
 * Why this way: a fixed alpha needs the maxima alone, so one read of the consumers; a search needs only some rows, which are read one by one.
 * Corner cases: matrices of a stack that do not take part are not read; a consumer stored transposed has its channels along its rows; rows are sampled
 * in blocks of 128 where the format's groups are squares of the matrix.
 * Reference: the project's smoothquant notes 6a. Worked number: 4096 rows of 4096 with 2^20 weights wanted: every 16th row, 256 rows.
 */
#ifndef LLMQ_CONVERTER_SMOOTH_WEIGHTS_H
#define LLMQ_CONVERTER_SMOOTH_WEIGHTS_H

#include "container/container.h"
#include "number/format.h"
#include "smoothquant/group.h"

/* Buffers of one thread. */
struct weights_reader {
    struct container *container;
    uint8_t *bytes; /* a tile as stored */
    float *x; /* the same in f32, TILE_WEIGHTS of them */
    uint64_t n_read; /* bytes read so far */
};

enum status weights_reader_open(struct container *container, struct weights_reader *reader, struct err *err);
void weights_reader_close(struct weights_reader *reader);

/* Raises max[n] (a number a channel) to the magnitudes in the side's tensor. A NaN or Inf makes it Inf. */
enum status weights_read_max(struct weights_reader *reader, const struct smooth_side *side, uint64_t n, float *max, struct err *err);

/* Rows of the side's matrices (along columns only), at most max_weights of them but at least a block: *rows has *n_rows x n floats, the caller frees
 * it. */
enum status weights_read_sample(struct weights_reader *reader, const struct smooth_side *side, uint64_t n, const struct quant *quant,
                                uint64_t max_weights, float **rows, uint64_t *n_rows, struct err *err);

/* Row number `row` of the matrices that take part, its n channels in order (along columns only). */
enum status weights_read_row(struct weights_reader *reader, const struct smooth_side *side, uint64_t row, uint64_t n, float *out, struct err *err);

/* Rows of the matrices that take part. */
uint64_t weights_rows(const struct container *container, const struct smooth_side *side);

/* The n numbers of a vector (a norm's gain), in f32; its dtype can be decoded. */
enum status weights_read_vector(struct weights_reader *reader, size_t tensor, uint64_t n, float *out, struct err *err);

#endif
