/* codec_observe.c: what earlier passes see of a tensor whose groups reach over tiles: pieces of groups, ranges, errors, all weights.
 *
 * Why this way: see codec.h.
 * Corner cases: squares begin anew in every matrix of a stack; with importance spans are single rows.
 * Reference: NUMERICS.md 5. Worked number: 128x128, a tile of 200 x 300 at the corner: pieces of 128 and 72 rows, of 128, 128 and 44 columns.
 */
#include "base/size.h"
#include "layout/strip.h"

/* Rows from row `row` of the tensor on that share their groups, at most n. */
static uint64_t rows_together(const struct quant *quant, const struct shape *shape, uint64_t row, uint64_t n)
{
    if (quant->group_kind != GROUP_SQUARE) return n;
    const uint64_t matrix_rows = shape_matrix_rows(shape), in_matrix = row % matrix_rows;
    return size_min(n, size_min(SQUARE_SIDE - in_matrix % SQUARE_SIDE, matrix_rows - in_matrix));
}

bool codec_next_piece(const struct quant *quant, const struct shape *shape, const struct tile *place, struct codec_piece *piece)
{
    struct tile at = piece->at;
    at.col += at.n_cols;
    if (at.col >= place->n_cols) at = (struct tile){ .row = at.row + at.n_rows };
    if (at.row >= place->n_rows) return false;
    const uint64_t row = place->row + at.row, col = place->col + at.col, matrix_rows = shape_matrix_rows(shape);
    at.n_rows = rows_together(quant, shape, row, place->n_rows - at.row);
    at.n_cols = size_min(quant->group ? quant->group : place->n_cols, place->n_cols - at.col);
    piece->group = quant_scale_row(quant, matrix_rows, row) * quant_groups_per_row(quant, shape->cols) + (quant->group ? col / quant->group : 0);
    piece->complete =
        quant->group_kind == GROUP_SQUARE && at.n_rows == rows_together(quant, shape, row, matrix_rows) && row % matrix_rows % SQUARE_SIDE == 0;
    piece->at = at;
    return true;
}

struct codec_tile codec_part(const struct codec_tile *tile, const struct tile *at)
{
    struct codec_tile part = *tile;
    part.source = strip_source(tile, at->row, at->col);
    part.stride = tile->stride ? tile->stride : tile->n_cols;
    if (at->n_cols == part.stride) part.stride = 0;
    part.n_rows = at->n_rows;
    part.n_cols = at->n_cols;
    part.first_row += at->row;
    part.first_col += at->col;
    return part;
}

bool codec_observe_range(const struct kernels *kernels, const struct codec_tile *tile, const struct codec_scratch *scratch, struct range *range,
                         struct codec_fault *fault)
{
    struct strip strip = { 0 };
    *range = (struct range){ 0.0f, 0.0f };
    while (strip_next(tile, STRIP_WEIGHTS, 8, &strip)) {
        if (!strip_load(kernels, tile, &strip, scratch, fault)) return false;
        const size_t n = (size_t)(strip.n_rows * strip.n_cols);
        struct range part;
        kernels->ranges(scratch->x, n, n, &part);
        range->min = fminf(range->min, part.min);
        range->max = fmaxf(range->max, part.max);
    }
    return true;
}

bool codec_observe_spans(const struct kernels *kernels, const struct codec_tile *tile, const struct codec_scratch *scratch, codec_span *span,
                         void *context, struct codec_fault *fault)
{
    struct strip strip = { 0 };
    while (strip_next(tile, STRIP_WEIGHTS, 8, &strip)) {
        if (!strip_load(kernels, tile, &strip, scratch, fault)) return false;
        const size_t n_spans = tile->importance ? (size_t)strip.n_rows : 1, n = (size_t)(strip.n_rows * strip.n_cols) / n_spans;
        for (size_t r = 0; r < n_spans; r++) span(context, scratch->x + r * n, strip_importance(tile, strip.row + r, strip.col), n);
    }
    return true;
}

void codec_observe_errors(const struct quant *quant, const struct kernels *kernels, const struct codec_tile *tile,
                          const struct codec_scratch *scratch, struct range range, double errors[CANDIDATES_MAX])
{
    const struct family *family = quant->format->family;
    struct error_sum sums[CANDIDATES_MAX] = { { 0 } };
    struct strip strip = { 0 };
    struct codec_fault unused;
    struct group_scale scale;
    uint32_t done = 0;
    while (strip_next(tile, STRIP_WEIGHTS, 8, &strip)) {
        size_t n = (size_t)(strip.n_rows * strip.n_cols);
        strip_load(kernels, tile, &strip, scratch, &unused);
        for (uint32_t i = 0; i < family->candidates(quant); i++) {
            sums[i].first = done;
            if (family->candidate(quant, range, i, &scale)) strip_add_errors(quant, kernels, tile, &strip, range, &scale, scratch->x, &sums[i]);
        }
        done += (uint32_t)n;
    }
    for (uint32_t i = 0; i < CANDIDATES_MAX; i++) errors[i] = (double)sums[i].total;
}
