/* codec.c: which planes a quantised tensor has, and rows of them back to f32 or into another layout.
 *
 * Drawing: quant, shape -> planes of the layout, "tensor_scale", "input_scale"; planes -> f32; planes <-> blocks
 * Why this way: see codec.h; encoding is in codec_encode.c, observing in codec_observe.c.
 * Corner cases: scales of groups over several tiles, of matrices and of inputs are whole planes, which no tile has a part of.
 * Reference: FORMAT.md 3. Worked number: mxfp4, 2 x 40: codes 20 bytes a row, scales 2 bytes a row (groups of 32 and 8).
 */
#include "layout/codec.h"

#include <string.h>

#include "base/size.h"
#include "layout/strip.h"
#include "number/choose.h"

bool codec_spans(const struct quant *quant, uint64_t rows, uint64_t cols)
{
    uint64_t tile_rows, tile_cols;
    tile_shape(rows, cols, 1, &tile_rows, &tile_cols);
    if (quant->group_kind == GROUP_SQUARE) return true;
    if (quant->group_kind == GROUP_CHANNEL) return tile_cols < cols;
    return quant->group_kind == GROUP_TENSOR && (tile_cols < cols || tile_rows < rows);
}

uint32_t codec_planes(const struct quant *quant, const struct shape *shape, struct plane planes[CODEC_PLANES_MAX])
{
    uint32_t n = layout_of(quant)->planes(quant, shape, planes);
    if (quant->tensor_scale) planes[n++] = (struct plane){ PLANE_TENSOR_SCALE, 32, 1, shape->n_matrices, 1, size_max(1, shape->n_matrices) };
    if (quant->input_scale)
        planes[n++] =
            (struct plane){ PLANE_INPUT_SCALE, 32, shape->n_matrices, shape->cols, size_max(1, shape->n_matrices), size_max(1, shape->cols) };
    return n;
}

bool codec_is_whole(const struct quant *quant, const struct shape *shape, const struct plane *plane)
{
    if (strcmp(plane->name, PLANE_TENSOR_SCALE) == 0 || strcmp(plane->name, PLANE_INPUT_SCALE) == 0) return true;
    return codec_spans(quant, shape->rows, shape->cols) && strcmp(plane->name, "codes") != 0;
}

void codec_tile_shape(const struct quant *quant, const struct shape *shape, uint64_t *tile_rows, uint64_t *tile_cols)
{
    tile_shape(shape->rows, shape->cols, quant->group ? quant->group : 1, tile_rows, tile_cols);
}

bool codec_fields(const struct quant *quant, const struct shape *shape, const struct plane *plane, const struct tile *weights, struct tile *fields)
{
    uint64_t width = strcmp(plane->name, "codes") == 0 ? 1 : quant_group_len(quant, shape->cols); /* weights a field */
    if (strcmp(plane->name, PLANE_SHIFTS) == 0) width = quant->sub_block;
    if (quant->blocks) width = quant->format->block->elements;
    *fields = *weights;
    fields->col = weights->col / width;
    fields->n_cols = size_ceil_div(weights->n_cols, width);
    return !codec_is_whole(quant, shape, plane) && (quant->group_kind != GROUP_TENSOR || width == 1);
}

void codec_store_whole(const struct quant *quant, const struct shape *shape, const struct group_scale *given, const float *tensor_scales,
                       uint8_t *const planes[CODEC_PLANES_MAX])
{
    struct plane shapes[CODEC_PLANES_MAX];
    const uint32_t n = codec_planes(quant, shape, shapes);
    const size_t n_scales = given ? (size_t)(shapes[1].rows * shapes[1].cols) : 0;
    if (given) layout_store_scales(quant, given, n_scales, planes[1]);
    if (given && quant->format->zero_point) {
        memset(planes[2], 0, (size_t)plane_nbytes(&shapes[2]));
        for (size_t r = 0; r < n_scales; r++) layout_store_sides(quant, &given[r], 1, planes[2] + r * plane_row_nbytes(&shapes[2]));
    }
    if (tensor_scales) ggml_f32.encode(tensor_scales, NULL, (size_t)shape->n_matrices, planes[n - 1 - quant->input_scale]);
}

void codec_store_input_scale(const struct quant *quant, const struct shape *shape, const float *factors, uint64_t n_sets,
                             uint8_t *const planes[CODEC_PLANES_MAX])
{
    struct plane shapes[CODEC_PLANES_MAX];
    uint8_t *out = planes[codec_planes(quant, shape, shapes) - 1];
    for (uint64_t m = 0; m < shape->n_matrices; m++, out += 4 * shape->cols)
        ggml_f32.encode(factors + (n_sets > 1 ? m * shape->cols : 0), NULL, (size_t)shape->cols, out);
}

size_t codec_scratch_weights(const struct quant *quant, uint64_t rows, uint64_t cols)
{
    return strip_weights(quant, rows, cols, codec_spans(quant, rows, cols));
}

size_t codec_scratch_importance(const struct quant *quant, uint64_t rows, uint64_t cols)
{
    uint64_t tile_rows, tile_cols;
    tile_shape(rows, cols, quant->group ? quant->group : 1, &tile_rows, &tile_cols);
    const size_t least = codec_scratch_weights(quant, rows, cols);
    return strip_takes_rows(quant) ? (size_t)size_max(least, tile_cols) : least;
}

bool codec_heeds_importance(const struct quant *quant)
{
    if (strip_is_opaque(quant)) return quant->format->block->weighted || (quant->rule == RULE_MSE && quant->format->block->encode_mse);
    if (quant->rule == RULE_REFERENCE) return false;
    if (choose_reads(quant->rule)) return choose_learner(quant->rule) != LEARN_RULE_COUNT;
    return quant->format->family->encode ? quant->rule == RULE_SEARCH : quant->format->family->candidates(quant) > 1;
}

/* ---- decoding ------------------------------------------------------------------------------------------------------------------- */

void codec_decode_row(const struct quant *quant, const struct kernels *kernels, const uint8_t *const planes[CODEC_PLANES_MAX], float tensor_scale,
                      uint64_t first, size_t n, float *out)
{
    layout_of(quant)->decode(quant, kernels, planes, first, n, out);
    if (quant->tensor_scale)
        for (size_t i = 0; i < n; i++) out[i] *= tensor_scale;
}

/* ---- transcoding ---------------------------------------------------------------------------------------------------------------- */

/* The row's streams of a tile of n_cols columns. */
static void row_streams(const struct quant *quant, uint64_t row, uint64_t n_cols, const uint8_t *const tile[CODEC_PLANES_MAX],
                        const uint8_t *row_planes[CODEC_PLANES_MAX])
{
    struct plane planes[CODEC_PLANES_MAX];
    const struct shape shape = { 1, n_cols, 1 };
    uint32_t n = layout_of(quant)->planes(quant, &shape, planes);
    for (uint32_t k = 0; k < CODEC_PLANES_MAX; k++) row_planes[k] = k < n ? tile[k] + row * plane_row_nbytes(&planes[k]) : NULL;
}

bool codec_transcode(const struct quant *from, const uint8_t *const source[CODEC_PLANES_MAX], const struct quant *to, uint64_t n_rows,
                     uint64_t n_cols, const struct codec_scratch *scratch, uint8_t *const planes[CODEC_PLANES_MAX], struct codec_fault *fault)
{
    const uint8_t *row_planes[CODEC_PLANES_MAX];
    struct group_scale scales[ROW_SCALES];
    const uint64_t unit = strip_unit(to), step = size_min(scratch->n_weights, ROW_SCALES / 8 * unit) / unit * unit;
    *fault = (struct codec_fault){ CODEC_FINE, 0, 0 };
    for (uint64_t r = 0; r < n_rows; r++) {
        row_streams(from, r, n_cols, source, row_planes);
        for (uint64_t c = 0; c < n_cols; c += step) {
            size_t n = (size_t)size_min(step, n_cols - c), bad = 0;
            const struct row_piece piece = { r, c, n, scales, scratch->codes };
            if (layout_of(from)->load(from, row_planes, c, n, scales, scratch->codes, &bad) && layout_of(to)->store(to, n_cols, &piece, planes, &bad))
                continue;
            *fault = (struct codec_fault){ CODEC_NO_PLACE, r, c + bad * to->group };
            return false;
        }
    }
    return true;
}
