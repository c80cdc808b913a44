/* strip.c: see strip.h.
 *
 * Why this way: see strip.h.
 * Corner cases: see strip.h.
 * Reference: see strip.h. Worked number: see strip.h.
 */
#include "layout/strip.h"

#include <assert.h>
#include <math.h>

#include "base/size.h"

bool strip_is_opaque(const struct quant *quant)
{
    return quant->blocks && (quant->format->family->blocks || quant->rule == RULE_REFERENCE);
}

uint64_t strip_unit(const struct quant *quant)
{
    return quant->group ? 8 * (uint64_t)quant->group : quant->blocks ? quant->format->block->elements : 8;
}

size_t strip_weights(const struct quant *quant, uint64_t rows, uint64_t cols, bool spans)
{
    uint64_t whole = quant->group_kind == GROUP_TENSOR ? rows * cols : quant->group_kind == GROUP_CHANNEL ? cols : strip_unit(quant);
    return spans ? STRIP_WEIGHTS : (size_t)size_max(STRIP_WEIGHTS, size_min(whole, TILE_WEIGHTS));
}

bool strip_takes_rows(const struct quant *quant)
{
    return strip_is_opaque(quant) && quant->format->block->row_mean;
}

bool strip_next(const struct codec_tile *tile, size_t capacity, uint64_t unit, struct strip *strip)
{
    bool first = strip->n_rows == 0;
    uint64_t next_row = first ? 0 : strip->row, next_col = first ? 0 : strip->col + strip->n_cols;
    if (!first && next_col >= tile->n_cols) {
        next_row = strip->row + strip->n_rows;
        next_col = 0;
    }
    if (next_row >= tile->n_rows) return false;
    strip->row = next_row;
    strip->col = next_col;
    if (tile->n_cols <= capacity) {
        strip->n_cols = tile->n_cols;
        strip->n_rows = tile->stride ? 1 : size_min(capacity / tile->n_cols, tile->n_rows - next_row);
        if (tile->tensor_scales) strip->n_rows = size_min(strip->n_rows, tile->matrix_rows - (tile->first_row + next_row) % tile->matrix_rows);
    } else {
        strip->n_rows = 1;
        strip->n_cols = size_min(capacity / unit * unit, tile->n_cols - next_col);
    }
    return true;
}

float strip_tensor_scale(const struct codec_tile *tile, const struct strip *strip)
{
    return tile->tensor_scales ? tile->tensor_scales[(tile->first_row + strip->row) / tile->matrix_rows] : 1.0f;
}

/* NaN and Inf to 0; true when there was an Inf. */
static bool clean(float *x, size_t n)
{
    bool infinite = false;
    for (size_t i = 0; i < n; i++) {
        infinite = infinite || isinf(x[i]);
        if (!isfinite(x[i])) x[i] = 0.0f;
    }
    return infinite;
}

const uint8_t *strip_source(const struct codec_tile *tile, uint64_t row, uint64_t col)
{
    return tile->source + (row * (tile->stride ? tile->stride : tile->n_cols) + col) * (tile->dtype->bits / 8);
}

bool strip_load(const struct kernels *kernels, const struct codec_tile *tile, struct strip *strip, const struct codec_scratch *scratch,
                struct codec_fault *fault)
{
    const size_t n = (size_t)(strip->n_rows * strip->n_cols);
    const uint8_t *source = strip_source(tile, strip->row, strip->col);
    assert(n <= scratch->n_weights);
    bool finite;
    strip->infinite = false;
    if (tile->dtype->widen_fast) {
        finite = kernels->widen_bf16(source, n, scratch->x);
    } else {
        tile->dtype->widen(source, n, scratch->x);
        finite = kernels->all_finite(scratch->x, n);
    }
    if (finite) return true;
    if (tile->nonfinite != NONFINITE_ERROR) {
        strip->infinite = clean(scratch->x, n);
        return true;
    }
    size_t i = 0;
    while (isfinite(scratch->x[i])) i++;
    *fault = (struct codec_fault){ CODEC_NONFINITE, strip->row + i / strip->n_cols, strip->col + i % strip->n_cols };
    return false;
}

const float *strip_importance(const struct codec_tile *tile, uint64_t row, uint64_t col)
{
    const float *of_matrix = tile->importance ? tile->importance[(tile->first_row + row) / tile->matrix_rows] : NULL;
    return of_matrix ? of_matrix + tile->first_col + col : NULL;
}

bool strip_all_zero(const float *weight, size_t n)
{
    size_t i = 0;
    while (i < n && weight[i] == 0.0f) i++;
    return i == n;
}

void strip_add_errors(const struct quant *quant, const struct kernels *kernels, const struct codec_tile *tile, const struct strip *strip,
                      struct range range, const struct group_scale *scale, const float *x, struct error_sum *sum)
{
    const size_t n_rows = tile->importance ? (size_t)strip->n_rows : 1, n = (size_t)(strip->n_rows * strip->n_cols) / n_rows;
    const uint32_t first = sum->first;
    for (size_t r = 0; r < n_rows; r++) {
        const float *weight = strip_importance(tile, strip->row + r, strip->col);
        sum->x = x + r * n;
        sum->weight = weight && quant->group_kind == GROUP_SQUARE && strip_all_zero(strip_importance(tile, strip->row + r, 0), (size_t)tile->n_cols)
                          ? NULL
                          : weight;
        sum->n = n;
        sum->first = first + (uint32_t)(r * n);
        sum->limit = HUGE_VALF;
        quant->format->family->error(quant, kernels, range, scale, sum);
    }
    sum->first = first;
}
