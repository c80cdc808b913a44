/* fold.h: what migration multiplies a stored tensor by: a factor for each row, a factor for each column, applied to slices on their way to f32.
 *
 *   w'[r][c] = fl32(fl32(w[r][c] * cols[matrix of r][c]) * rows[r])         norms stored as gain - 1: w' = fl32(fl32(fl32(1 + w) * cols[c]) - 1)
 *
 * Why this way: every migration, whatever its kind, is a diagonal on each side of the matrices it touches, so a slice needs nothing but its place;
 * several groups that meet in one tensor (up is behind a norm and before down) multiply their factors.
 * Corner cases: a factor of 1 changes no bit; a NaN stays one; folding into a norm rounds the norm to its stored type first and leaves the remainder
 * g / g' to the weights, so that the function is kept; a channel whose gain is 0, or becomes 0 or infinite, keeps factor 1.
 * Reference: the project's smoothquant notes 0 (fact 10), 3a. Worked number: gain 1.5 in BF16, s 1.7: 1.5 / 1.7 = 0.88235 is stored as 0.8828125, and
 * the columns are multiplied by 1.5 / 0.8828125 = 1.69911504.
 */
#ifndef LLMQ_SMOOTHQUANT_FOLD_H
#define LLMQ_SMOOTHQUANT_FOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "container/container.h"
#include "layout/plane.h"
#include "smoothquant/group.h"

/* The factors of one tensor. */
struct fold {
    float *rows; /* a factor a row of the 2-D view, or NULL: all 1. Owned */
    float *cols; /* n_sets rows of n_cols factors, or NULL: all 1. Owned */
    uint64_t n_rows, n_cols, n_mats;
    uint64_t n_sets; /* 1, or n_mats */
    bool plus_one;
};

/* Multiplies the weights of a tile, f32, row by row in x. Thread-safe. */
void fold_apply(const struct fold *fold, const struct tile *place, float *x);

/* The factors of all tensors of a container. */
struct folds {
    struct fold **of; /* one a tensor; NULL: the tensor stays as it is. Owned */
    size_t n;
    uint64_t nbytes; /* memory of all factors */
};

enum status folds_make(size_t n_tensors, struct folds *folds, struct err *err);
void folds_free(struct folds *folds);

/* Multiplies into the tensor's factors those of one side of a group: factors[j] for channel j, n of them. ERR_DATA when a channel lies outside. */
enum status folds_add(struct folds *folds, const struct container *container, const struct smooth_side *side, const float *factors, uint64_t n,
                      struct err *err);

/* What a group does to its sides, from the factors s of its channels (as the consumers see them, equal where they share a producer channel). */
struct fold_factors {
    float *consumers; /* [n] what input columns are multiplied by */
    float *producers; /* [producer channels] what the first producer is multiplied by */
    float *others; /* [producer channels] the same for biases and further producers */
    double deviation; /* max_j |gain' * factor / gain - 1|: what is lost by rounding, for channels that are not dead */
    uint64_t n_dead; /* channels left alone because the gain is 0 or would become so */
};

/* gain: the stored numbers of the first producer (producer channels of them, not yet 1 +) where it is a norm, whose dtype rounds it; else NULL.
 * dtype must be able to narrow. The memory of out belongs to the caller (n and producer channels floats). */
void fold_factors_make(const struct smooth_group *group, const float *s, const float *gain, const struct dtype *dtype, struct fold_factors *out);

#endif
