/* forward_weights.h: where the forward pass gets its weights from, and how parts of them become matrices in memory.
 *
 *   rows of a tensor --source--> f32;    part of a tensor --weight_load--> matrix [n_out][n_in], whatever the way it is stored
 *   output channel j of a part stands at first + j / run * step + j % run of its matrix, whose rows begin at row `base` of the tensor
 *
 * Why this way: a source is one function, so that a caller can put fold factors, or encoding and decoding, between the file and the pass; fused and
 * interleaved projections, stacks of experts and transposed weights end here and are nobody else's business.
 * Corner cases: a transposed part is stored [n_in][all outputs]; a vector (bias, gain) is a part of one row; quantised tensors are decoded, their scales
 * of inputs included; tensors of a type that cannot be decoded are refused by name.
 * Reference: group.h, whose places these are; container/container.h. Worked number: v of a fused [q; k; v] of 8 and 4 heads of 16: first 192, run 64.
 */
#ifndef LLMQ_SMOOTHQUANT_FORWARD_WEIGHTS_H
#define LLMQ_SMOOTHQUANT_FORWARD_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "container/container.h"

/* Gives weights [row, row + n_rows) x [col, col + n_cols) of tensor number `tensor`, rows and columns as tensor_rows and tensor_cols count them, into out,
 * rows n_cols apart. Called from several threads at once. */
struct weight_source {
    enum status (*read)(void *context, size_t tensor, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols, float *out, struct err *err);
    void *context;
};

/* The weights as a container holds them, decoded. */
struct weight_source weight_source_container(struct container *container);

/* A matrix, or some of its outputs, in a tensor. */
struct weight_part {
    size_t tensor; /* number in the container; SIZE_MAX: there is none */
    bool transposed; /* stored [in, out] */
    uint64_t base; /* row of the tensor where the matrix begins */
    uint64_t first, run, step; /* see above; run >= 1 */
    uint64_t n_out, n_in; /* n_in 1 for vectors, whose outputs are columns */
    bool is_vector;
};

static inline bool weight_there(const struct weight_part *part)
{
    return part->tensor != SIZE_MAX;
}

/* Loads outputs [out, out + n_out) and inputs [in, in + n_in) of the part into to, rows n_in apart (a vector: n_out values). */
enum status weight_load(const struct weight_source *source, const struct weight_part *part, uint64_t out, uint64_t n_out, uint64_t in, uint64_t n_in,
                        float *to, struct err *err);

#endif
