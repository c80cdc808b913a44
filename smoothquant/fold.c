/* fold.c: see fold.h.
 *
 * Drawing: group, s -> (norm: round the gain, g / g' for the columns) -> factors -> sides -> rows and columns of their tensors.
 * Formula: producers fl32(1 / s); consumers s, behind a norm fl32(g / g') with g' = the stored type's value of fl32(g * fl32(1 / s)).
 * Why this way: the pipeline computes g' with the same two operations when it writes the norm, so what the weights take is exactly what is left.
 * Corner cases: before a squared ReLU the rows take fl32(1 / sqrt(s)); sides that take part with some matrices of a stack only leave the others at 1.
 * Reference: fold.h. Worked number: see fold.h.
 */
#include "smoothquant/fold.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

/* ---- applying --------------------------------------------------------------------------------------------------------------------- */

static void apply_row(const struct fold *fold, const float *cols, float row, size_t n, float *x)
{
    if (fold->plus_one) {
        for (size_t i = 0; cols && i < n; i++)
            if (cols[i] != 1.0f) x[i] = (1.0f + x[i]) * cols[i] - 1.0f;
        return;
    }
    if (cols)
        for (size_t i = 0; i < n; i++) x[i] *= cols[i];
    if (row != 1.0f)
        for (size_t i = 0; i < n; i++) x[i] *= row;
}

void fold_apply(const struct fold *fold, const struct tile *place, float *x)
{
    const uint64_t matrix_rows = size_max(1, fold->n_rows / size_max(1, fold->n_mats));
    for (uint64_t r = place->row; r < place->row + place->n_rows; r++, x += place->n_cols) {
        const float *cols = fold->cols ? fold->cols + (fold->n_sets > 1 ? r / matrix_rows * fold->n_cols : 0) + place->col : NULL;
        apply_row(fold, cols, fold->rows ? fold->rows[r] : 1.0f, (size_t)place->n_cols, x);
    }
}

/* ---- the factors of a container --------------------------------------------------------------------------------------------------- */

enum status folds_make(size_t n_tensors, struct folds *folds, struct err *err)
{
    *folds = (struct folds){ calloc(n_tensors + 1, sizeof *folds->of), n_tensors, 0 };
    return folds->of ? OK : err_set(err, ERR_MEMORY, "out of memory for %zu tensors", n_tensors);
}

void folds_free(struct folds *folds)
{
    for (size_t i = 0; folds->of && i < folds->n; i++) {
        if (!folds->of[i]) continue;
        free(folds->of[i]->rows);
        free(folds->of[i]->cols);
        free(folds->of[i]);
    }
    free(folds->of);
    *folds = (struct folds){ 0 };
}

/* n factors of 1; NULL when out of memory. */
static float *ones(struct folds *folds, uint64_t n)
{
    float *factors = n <= SIZE_MAX / sizeof *factors ? malloc((size_t)n * sizeof *factors + 1) : NULL;
    for (uint64_t i = 0; factors && i < n; i++) factors[i] = 1.0f;
    folds->nbytes += factors ? n * sizeof *factors : 0;
    return factors;
}

static struct fold *fold_of(struct folds *folds, const struct container *container, size_t tensor)
{
    if (folds->of[tensor]) return folds->of[tensor];
    const struct shape shape = tensor_shape(&container->tensors[tensor]);
    struct fold *fold = malloc(sizeof *fold);
    if (fold) *fold = (struct fold){ .n_rows = shape.rows, .n_cols = shape.cols, .n_mats = shape.n_matrices, .n_sets = 1 };
    return folds->of[tensor] = fold;
}

/* Makes the factors of columns, one set, or one for each matrix; a single set is repeated when it no longer serves all. */
static bool need_cols(struct folds *folds, struct fold *fold, uint64_t n_sets)
{
    if (fold->cols && fold->n_sets >= n_sets) return true;
    float *cols = ones(folds, n_sets * fold->n_cols);
    if (!cols) return false;
    for (uint64_t m = 0; fold->cols && m < n_sets; m++) memcpy(cols + m * fold->n_cols, fold->cols, (size_t)fold->n_cols * sizeof *cols);
    free(fold->cols);
    fold->cols = cols;
    fold->n_sets = n_sets;
    return true;
}

/* Rows of one matrix may go on in those behind it: the values of a stack of heads. */
static bool is_inside(const struct fold *fold, const struct smooth_side *side, uint64_t n)
{
    const uint64_t matrix_rows = fold->n_rows / size_max(1, fold->n_mats);
    if (!side->n_mats || side->mat >= fold->n_mats || side->n_mats > fold->n_mats - side->mat || !n || !side->run) return false;
    const uint64_t rows = side->n_mats == 1 ? fold->n_rows - side->mat * matrix_rows : matrix_rows;
    return smooth_side_place(side, n - 1) < (side->along_rows ? rows : fold->n_cols);
}

static void multiply_rows(struct fold *fold, const struct smooth_side *side, const float *factors, uint64_t n)
{
    const uint64_t matrix_rows = fold->n_rows / fold->n_mats;
    for (uint64_t m = side->mat; m < side->mat + side->n_mats; m++)
        for (uint64_t j = 0; j < n; j++) fold->rows[m * matrix_rows + smooth_side_place(side, j)] *= factors[j];
}

static void multiply_cols(struct fold *fold, const struct smooth_side *side, const float *factors, uint64_t n)
{
    const uint64_t first = fold->n_sets > 1 ? side->mat : 0, end = fold->n_sets > 1 ? side->mat + side->n_mats : 1;
    for (uint64_t m = first; m < end; m++)
        for (uint64_t j = 0; j < n; j++) fold->cols[m * fold->n_cols + smooth_side_place(side, j)] *= factors[j];
}

enum status folds_add(struct folds *folds, const struct container *container, const struct smooth_side *side, const float *factors, uint64_t n,
                      struct err *err)
{
    struct fold *fold = fold_of(folds, container, side->tensor);
    if (!fold) return err_set(err, ERR_MEMORY, "out of memory for the factors of migration");
    if (!is_inside(fold, side, n))
        return err_set(err, ERR_DATA, "tensor '%s' has no place for %llu channels", container->tensors[side->tensor].name, (unsigned long long)n);
    const bool all = side->n_mats == fold->n_mats;
    const bool made =
        side->along_rows ? fold->rows || (fold->rows = ones(folds, fold->n_rows)) : need_cols(folds, fold, all ? fold->n_sets : fold->n_mats);
    if (!made) return err_set(err, ERR_MEMORY, "out of memory for the factors of migration");
    fold->plus_one |= side->plus_one;
    if (side->along_rows) multiply_rows(fold, side, factors, n);
    else multiply_cols(fold, side, factors, n);
    return OK;
}

/* ---- the factors of a group --------------------------------------------------------------------------------------------------------- */

/* The value that dtype stores for x. */
static float stored(const struct dtype *dtype, float x)
{
    uint8_t bytes[8];
    float y;
    dtype->narrow(&x, 1, bytes);
    dtype->widen(bytes, 1, &y);
    return y;
}

/* The stored gain of one channel divided by s, and what is left of s for the columns. False: the channel is dead. */
static bool fold_gain(const struct smooth_side *side, const struct dtype *dtype, float w, float s, float *left, double *deviation)
{
    *left = s;
    if (s == 1.0f) return true;
    const float reciprocal = 1.0f / s, gain = side->plus_one ? 1.0f + w : w;
    const float changed = gain * reciprocal, w2 = stored(dtype, side->plus_one ? changed - 1.0f : changed);
    const float gain2 = side->plus_one ? 1.0f + w2 : w2;
    *left = gain / gain2;
    if (gain == 0.0f || gain2 == 0.0f || !isfinite(gain) || !isfinite(gain2) || !isnormal(*left) || !(*left > 0.0f)) return false;
    *deviation = fabs((double)gain2 * (double)*left / (double)gain - 1.0);
    return true;
}

void fold_factors_make(const struct smooth_group *group, const float *s, const float *gain, const struct dtype *dtype, struct fold_factors *out)
{
    const struct smooth_side *side = &group->producers[0];
    const uint64_t n_producers = smooth_group_producers(group);
    out->deviation = 0.0;
    out->n_dead = 0;
    for (uint64_t p = 0; p < n_producers; p++) {
        float factor = s[smooth_group_first(group, p)], left = factor;
        double deviation = 0.0;
        if (gain && !fold_gain(side, dtype, gain[p], factor, &left, &deviation)) {
            out->n_dead++;
            factor = left = 1.0f;
        }
        out->producers[p] = side->root ? 1.0f / sqrtf(factor) : 1.0f / factor;
        out->others[p] = side->root ? 1.0f / sqrtf(left) : 1.0f / left;
        if (!gain) deviation = side->root ? 0.0 : fabs((double)out->producers[p] * (double)left - 1.0);
        if (deviation > out->deviation) out->deviation = deviation;
        out->consumers[smooth_group_first(group, p)] = left;
    }
    for (uint64_t j = 0; j < group->n; j++) out->consumers[j] = out->consumers[smooth_group_first(group, smooth_group_producer(group, j))];
}
