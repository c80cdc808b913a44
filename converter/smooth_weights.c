/* smooth_weights.c: see smooth_weights.h.
 *
 * Drawing: matrices [mat, mat + n_mats) -> pieces of at most TILE_WEIGHTS -> tile_read -> widen -> maxima of columns (or of rows) -> channels.
 * Why this way: see smooth_weights.h.
 * Corner cases: a row longer than a tile is read in pieces; a tensor without weights has maxima 0.
 * Reference: see smooth_weights.h. Worked number: see there.
 */
#include "converter/smooth_weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "converter/tile_read.h"

enum status weights_reader_open(struct container *container, struct weights_reader *reader, struct err *err)
{
    *reader = (struct weights_reader){ container, malloc(TILE_WEIGHTS * sizeof(double)), malloc(TILE_WEIGHTS * sizeof(float)), 0 };
    return reader->bytes && reader->x ? OK : err_set(err, ERR_MEMORY, "out of memory for the buffers of a thread");
}

void weights_reader_close(struct weights_reader *reader)
{
    free(reader->bytes);
    free(reader->x);
}

/* A rectangle of whole rows, or a piece of one, as f32 in reader->x. */
static enum status read_rect(struct weights_reader *reader, size_t tensor, const struct tile *rect, struct err *err)
{
    const struct dtype *dtype = tile_read_dtype(&reader->container->tensors[tensor]);
    const struct shape shape = tensor_shape(&reader->container->tensors[tensor]);
    const size_t n = (size_t)(rect->n_rows * rect->n_cols);
    enum status status;
    if (reader->container->tensors[tensor].quantised) {
        status = container_read_f32(reader->container, tensor, rect->row, rect->n_rows, rect->col, rect->n_cols, reader->x, err);
    } else {
        status = container_read(reader->container, tensor, (rect->row * shape.cols + rect->col) * dtype->bits / 8, n * dtype->bits / 8, reader->bytes,
                                err);
        if (!status) dtype->widen(reader->bytes, n, reader->x);
    }
    reader->n_read += n * dtype->bits / 8;
    return status;
}

static float raise(float max, float x)
{
    const float magnitude = fabsf(x);
    return isfinite(magnitude) ? (magnitude > max ? magnitude : max) : HUGE_VALF;
}

/* Maxima of the rectangle's rows, or of its columns, into max, which has a place for each row of a matrix or for each column. */
static void add_rect(const float *x, const struct tile *rect, bool along_rows, uint64_t matrix_rows, float *max)
{
    for (uint64_t r = 0; r < rect->n_rows; r++, x += rect->n_cols) {
        if (along_rows) {
            float *row = &max[(rect->row + r) % matrix_rows];
            for (uint64_t c = 0; c < rect->n_cols; c++) *row = raise(*row, x[c]);
        } else {
            float *cols = max + rect->col;
            for (uint64_t c = 0; c < rect->n_cols; c++) cols[c] = raise(cols[c], x[c]);
        }
    }
}

enum status weights_read_max(struct weights_reader *reader, const struct smooth_side *side, uint64_t n, float *max, struct err *err)
{
    const struct shape shape = tensor_shape(&reader->container->tensors[side->tensor]);
    const uint64_t matrix_rows = shape_matrix_rows(&shape), end = (side->mat + side->n_mats) * matrix_rows;
    const uint64_t step_cols = size_min(shape.cols, TILE_WEIGHTS), step_rows = shape.cols ? size_max(1, TILE_WEIGHTS / shape.cols) : 1;
    float *axis = calloc((size_t)(side->along_rows ? matrix_rows : shape.cols) + 1, sizeof *axis);
    enum status status = axis ? OK : err_set(err, ERR_MEMORY, "out of memory");
    for (uint64_t row = side->mat * matrix_rows; row < end && !status; row += step_rows)
        for (uint64_t col = 0; col < shape.cols && !status; col += step_cols) {
            const struct tile rect = { row, size_min(step_rows, end - row), col, size_min(step_cols, shape.cols - col) };
            status = read_rect(reader, side->tensor, &rect, err);
            if (!status) add_rect(reader->x, &rect, side->along_rows, matrix_rows, axis);
        }
    for (uint64_t j = 0; j < n && !status; j++) max[j] = raise(max[j], axis[smooth_side_place(side, j)]);
    free(axis);
    return status;
}

uint64_t weights_rows(const struct container *container, const struct smooth_side *side)
{
    const struct shape shape = tensor_shape(&container->tensors[side->tensor]);
    return side->n_mats * shape_matrix_rows(&shape);
}

enum status weights_read_row(struct weights_reader *reader, const struct smooth_side *side, uint64_t row, uint64_t n, float *out, struct err *err)
{
    const struct shape shape = tensor_shape(&reader->container->tensors[side->tensor]);
    enum status status = OK;
    uint64_t j = 0;
    row += side->mat * shape_matrix_rows(&shape);
    for (uint64_t col = 0; col < shape.cols && !status; col += TILE_WEIGHTS) {
        const struct tile rect = { row, 1, col, size_min(TILE_WEIGHTS, shape.cols - col) };
        status = read_rect(reader, side->tensor, &rect, err);
        for (; j < n && smooth_side_place(side, j) < col + rect.n_cols && !status; j++) out[j] = reader->x[smooth_side_place(side, j) - col];
    }
    return status;
}

enum status weights_read_sample(struct weights_reader *reader, const struct smooth_side *side, uint64_t n, const struct quant *quant,
                                uint64_t max_weights, float **rows, uint64_t *n_rows, struct err *err)
{
    const uint64_t total = weights_rows(reader->container, side), block = quant->group_kind == GROUP_SQUARE ? SQUARE_SIDE : 1;
    const uint64_t n_blocks = size_ceil_div(total, block), wanted = size_max(1, size_min(n_blocks, max_weights / size_max(1, n * block)));
    const uint64_t step = size_ceil_div(n_blocks, wanted);
    *n_rows = 0;
    *rows = malloc((size_t)(size_ceil_div(n_blocks, step) * block * n + 1) * sizeof **rows);
    if (!*rows) return err_set(err, ERR_MEMORY, "out of memory for a sample of rows");
    enum status status = OK;
    for (uint64_t b = 0; b < n_blocks && !status; b += step)
        for (uint64_t r = b * block; r < size_min(total, (b + 1) * block) && !status; r++, ++*n_rows)
            status = weights_read_row(reader, side, r, n, *rows + *n_rows * n, err);
    return status;
}

enum status weights_read_vector(struct weights_reader *reader, size_t tensor, uint64_t n, float *out, struct err *err)
{
    const uint64_t cols = tensor_cols(&reader->container->tensors[tensor]);
    enum status status = OK;
    if (n != cols || tensor_rows(&reader->container->tensors[tensor]) != 1)
        return err_set(err, ERR_DATA, "it has not %llu numbers", (unsigned long long)n);
    for (uint64_t at = 0; at < n && !status; at += TILE_WEIGHTS) {
        const struct tile rect = { 0, 1, at, size_min(TILE_WEIGHTS, n - at) };
        status = read_rect(reader, tensor, &rect, err);
        if (!status) memcpy(out + at, reader->x, (size_t)rect.n_cols * sizeof *out);
    }
    return status;
}
