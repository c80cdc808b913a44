/* codec.c: f32 tiles to plane bytes and back.
 *
 * Drawing: a tile is worked off in strips that stay in cache:
 *   strip of stored elements -> x (f32) -> finite? -> groups: scale, codes -> layout: packed fields or blocks   (-> y, measured against x)
 * Why this way: see codec.h. Each strip is whole rows, or a piece of one row by whole groups; so a group is always whole in a strip, unless it
 * spans tiles and its scale is given.
 * Corner cases: a group "tensor" that fits in one tile takes the whole tile as its strip; a strip never reaches into another matrix of a stack that
 * has scales of matrices, and its weights are measured as they were before these were divided out. With importance a strip may reach into another
 * matrix: its rows are then weighed one by one.
 * Reference: FORMAT.md 3, NUMERICS.md. Worked number: mxfp4, 2 x 40: codes 20 bytes a row, scales 2 bytes a row (groups of 32 and 8).
 */
#include "layout/codec.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "layout/pack.h"
#include "number/choose.h"
#include "number/half.h"
#include "number/kernel.h"

#define BLOCK_SAFE 32768.0f /* no scale of a block overflows F16 for weights up to here */

enum { STRIP_WEIGHTS = 4096, ROW_SCALES = 8 * SUB_BLOCKS_MAX };

/* Coded by ggml's own functions, block by block. */
static bool is_opaque(const struct quant *quant)
{
    return quant->blocks && (quant->format->family->blocks || quant->rule == RULE_REFERENCE);
}

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
    return n;
}

bool codec_is_whole(const struct quant *quant, const struct shape *shape, const struct plane *plane)
{
    if (strcmp(plane->name, PLANE_TENSOR_SCALE) == 0) return true;
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
    if (tensor_scales) ggml_f32.encode(tensor_scales, NULL, (size_t)shape->n_matrices, planes[n - 1]);
}

/* Weights that are whole groups, whole bytes and whole blocks. */
static uint64_t unit_of(const struct quant *quant)
{
    return quant->group ? 8 * (uint64_t)quant->group : quant->blocks ? quant->format->block->elements : 8;
}

/* Weights of a strip: a few rows' worth that stay in cache, but groups whole (eight of them are whole bytes). */
static size_t strip_weights(const struct quant *quant, uint64_t rows, uint64_t cols, bool spans)
{
    uint64_t whole = quant->group_kind == GROUP_TENSOR ? rows * cols : quant->group_kind == GROUP_CHANNEL ? cols : unit_of(quant);
    return spans ? STRIP_WEIGHTS : (size_t)size_max(STRIP_WEIGHTS, size_min(whole, TILE_WEIGHTS));
}

size_t codec_scratch_weights(const struct quant *quant, uint64_t rows, uint64_t cols)
{
    return strip_weights(quant, rows, cols, codec_spans(quant, rows, cols));
}

/* With importance weights some of ggml's types take exactly one row at a time. */
static bool takes_rows(const struct quant *quant)
{
    return is_opaque(quant) && quant->format->block->row_mean;
}

size_t codec_scratch_importance(const struct quant *quant, uint64_t rows, uint64_t cols)
{
    uint64_t tile_rows, tile_cols;
    tile_shape(rows, cols, quant->group ? quant->group : 1, &tile_rows, &tile_cols);
    const size_t least = codec_scratch_weights(quant, rows, cols);
    return takes_rows(quant) ? (size_t)size_max(least, tile_cols) : least;
}

bool codec_heeds_importance(const struct quant *quant)
{
    if (is_opaque(quant)) return quant->format->block->weighted || (quant->rule == RULE_MSE && quant->format->block->encode_mse);
    if (quant->rule == RULE_REFERENCE) return false;
    if (choose_reads(quant->rule)) return choose_learner(quant->rule) != LEARN_RULE_COUNT;
    return quant->format->family->encode ? quant->rule == RULE_SEARCH : quant->format->family->candidates(quant) > 1;
}

/* ---- strips --------------------------------------------------------------------------------------------------------------------- */

/* A piece of a tile: whole rows, or part of one row. */
struct strip {
    uint64_t row, n_rows, col, n_cols;
    bool infinite; /* it has an Inf, taken for 0 in choosing scales */
};

/* The next strip of at most capacity weights after *strip (all zero: the first); false at the end. Longer rows are cut in multiples of unit. */
static bool next_strip(const struct codec_tile *tile, size_t capacity, uint64_t unit, struct strip *strip)
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

static float tensor_scale_of(const struct codec_tile *tile, const struct strip *strip)
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

/* Weights in units of their matrix's scale. */
static void divide_strip(const struct codec_tile *tile, const struct strip *strip, float *x)
{
    if (!tile->tensor_scales) return;
    const float scale = tensor_scale_of(tile, strip);
    for (size_t i = 0; i < strip->n_rows * strip->n_cols; i++) x[i] /= scale;
}

static const uint8_t *source_at(const struct codec_tile *tile, uint64_t row, uint64_t col)
{
    return tile->source + (row * (tile->stride ? tile->stride : tile->n_cols) + col) * (tile->dtype->bits / 8);
}

/* Fills scratch->x with the strip's weights. */
static bool load_strip(const struct kernels *kernels, const struct codec_tile *tile, struct strip *strip, const struct codec_scratch *scratch,
                       struct codec_fault *fault)
{
    const size_t n = (size_t)(strip->n_rows * strip->n_cols);
    const uint8_t *source = source_at(tile, strip->row, strip->col);
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

/* ---- importance ------------------------------------------------------------------------------------------------------------------ */

/* Importance weights of a row of the tile, from column col on; NULL: 1 for all. */
static const float *importance_at(const struct codec_tile *tile, uint64_t row, uint64_t col)
{
    const float *of_matrix = tile->importance ? tile->importance[(tile->first_row + row) / tile->matrix_rows] : NULL;
    return of_matrix ? of_matrix + tile->first_col + col : NULL;
}

static bool all_zero(const float *weight, size_t n)
{
    size_t i = 0;
    while (i < n && weight[i] == 0.0f) i++;
    return i == n;
}

/* The first n weights are groups that are all 0 (*zero), or groups of which none is: how many of them are. */
static size_t run_of_groups(const float *weight, size_t n, size_t group, bool *zero)
{
    size_t run = 0;
    for (size_t at = 0; at < n; at += group) {
        const size_t count = n - at < group ? n - at : group;
        const bool is_zero = all_zero(weight + at, count);
        if (at == 0) *zero = is_zero;
        if (is_zero != *zero) break;
        run = at + count;
    }
    return run;
}

/* quant_encode with importance, but without it for groups where it is all 0. */
static size_t encode_weighted(const struct quant *quant, const struct kernels *kernels, const float *x, const float *weight, size_t n, size_t group,
                              struct group_scale *scales, uint16_t *codes, float *y)
{
    size_t done = 0;
    for (size_t at = 0, count; at < n; at += count) {
        bool zero = false;
        count = run_of_groups(weight + at, n - at, group, &zero);
        const size_t found = quant_encode(quant, kernels, x + at, zero ? NULL : weight + at, count, group, scales + quant_scales(quant, at, group),
                                          codes + at, y ? y + at : NULL);
        done += found;
        if (found * group < count) break;
    }
    return done;
}

/* Adds the error terms of whole rows under one scale, from number sum->first on. The scale of a square is that of its columns alone; where all of
 * these have importance 0 they count as without. */
static void add_errors(const struct quant *quant, const struct kernels *kernels, const struct codec_tile *tile, const struct strip *strip,
                       struct range range, const struct group_scale *scale, const float *x, struct error_sum *sum)
{
    const size_t n_rows = tile->importance ? (size_t)strip->n_rows : 1, n = (size_t)(strip->n_rows * strip->n_cols) / n_rows;
    const uint32_t first = sum->first;
    for (size_t r = 0; r < n_rows; r++) {
        const float *weight = importance_at(tile, strip->row + r, strip->col);
        sum->x = x + r * n;
        sum->weight =
            weight && quant->group_kind == GROUP_SQUARE && all_zero(importance_at(tile, strip->row + r, 0), (size_t)tile->n_cols) ? NULL : weight;
        sum->n = n;
        sum->first = first + (uint32_t)(r * n);
        sum->limit = HUGE_VALF;
        quant->format->family->error(quant, kernels, range, scale, sum);
    }
    sum->first = first;
}

/* ---- encoding ------------------------------------------------------------------------------------------------------------------- */

/* The code of the element whose weight under this scale is farthest on a side, and finite: the lowest code of an integer perhaps is not. */
static uint16_t extreme_code(const struct elem *elem, bool negative, float value)
{
    const uint32_t code = elem_encode(elem, negative == (value >= 0.0f) ? -FLT_MAX : FLT_MAX, ROUND_TRUNCATE);
    return (uint16_t)(isinf(elem_decode(elem, code) * value) ? code + 1 : code);
}

/* Under NONFINITE_CLAMP an Inf takes the extreme code of the element on its side, whatever the size of the scale: codes of groups from (row, col) of
 * the tile on. */
static void clamp_infinite(const struct quant *quant, const struct codec_tile *tile, const struct strip *strip, uint64_t row, uint64_t col,
                           const struct groups *groups, uint16_t *codes)
{
    float x[256];
    if (!strip->infinite || tile->nonfinite != NONFINITE_CLAMP) return;
    for (size_t i = 0, count; i < groups->n; i += count) {
        count = groups->n - i < 256 ? groups->n - i : 256;
        tile->dtype->widen(source_at(tile, row, col + i), count, x);
        for (size_t k = 0; k < count; k++)
            if (isinf(x[k])) codes[i + k] = extreme_code(quant->elem, x[k] < 0.0f, groups->scales[(i + k) / groups->group].value);
    }
}

/* Codes and scales of groups that have at most ROW_SCALES scales; returns how many were done before one overflowed. */
static size_t encode_groups(const struct quant *quant, const struct kernels *kernels, const float *x, const float *weight, size_t n, size_t group,
                            struct group_scale *scales, uint16_t *codes, float *y)
{
    if (quant->rule != RULE_REFERENCE && weight) return encode_weighted(quant, kernels, x, weight, n, group, scales, codes, y);
    if (quant->rule != RULE_REFERENCE) return quant_encode(quant, kernels, x, NULL, n, group, scales, codes, y);
    size_t done = layout_reference(quant, x, n, scales, codes);
    const struct groups groups = { n, group, scales };
    if (y && done * group >= n) kernels->decode(quant->elem, &groups, codes, y);
    return done;
}

/* Codes of one row piece of n weights beginning at column col of the tile; as many groups at a time as have room for their scales. */
static bool encode_row(const struct quant *quant, const struct kernels *kernels, const struct codec_tile *tile, const struct strip *strip, size_t r,
                       const struct codec_scratch *scratch, struct codec_fault *fault)
{
    const size_t group = (size_t)quant_group_len(quant, tile->n_cols), n = (size_t)strip->n_cols, at = r * n;
    const size_t most = ROW_SCALES / (8 * quant_scales_per_group(quant)) * 8; /* groups: whole bytes of all planes */
    const float *x = scratch->x + at, *weight = importance_at(tile, strip->row + r, strip->col);
    float *y = tile->measure ? scratch->y + at : NULL;
    uint16_t *codes = scratch->codes + at;
    struct group_scale scales[ROW_SCALES];
    for (size_t i = 0, count; i < n; i += count) {
        count = (n - i) / group < most ? n - i : most * group;
        size_t bad = encode_groups(quant, kernels, x + i, weight ? weight + i : NULL, count, group, scales, codes + i, y ? y + i : NULL);
        *fault = (struct codec_fault){ CODEC_SCALE_OVERFLOW, strip->row + r, strip->col + i + bad * group };
        if (bad * group < count) return false;
        const struct groups groups = { count, quant->sub_block ? quant->sub_block : group, scales };
        clamp_infinite(quant, tile, strip, strip->row + r, strip->col + i, &groups, codes + i);
        const struct row_piece piece = { strip->row + r, strip->col + i, count, scales, quant->blocks ? codes + i : NULL };
        if (!layout_of(quant)->store(quant, tile->n_cols, &piece, tile->planes, &bad)) {
            *fault = (struct codec_fault){ CODEC_NO_PLACE, strip->row + r, strip->col + i + bad * group };
            return false;
        }
    }
    *fault = (struct codec_fault){ CODEC_FINE, 0, 0 };
    return true;
}

/* The scale that a learner finds for the whole tile, row by row. */
static bool learn_whole(const struct quant *quant, const struct kernels *kernels, const struct codec_tile *tile, const struct strip *strip,
                        struct range range, const float *x, struct group_scale *scale)
{
    const size_t n = (size_t)strip->n_cols;
    struct choose_stream stream;
    choose_stream_begin(&stream, quant, kernels, NULL);
    while (choose_stream_next(&stream)) {
        struct learn_part part = { 0 };
        for (uint64_t r = 0; r < strip->n_rows; r++)
            choose_stream_observe(&stream, x + r * n, importance_at(tile, strip->row + r, strip->col), n, &part);
        choose_stream_add(&stream, &part);
    }
    return choose_stream_finish(&stream, range, scale);
}

/* The scale of the whole tile by the sums of its candidates' errors. */
static bool search_whole(const struct quant *quant, const struct kernels *kernels, const struct codec_tile *tile, const struct strip *strip,
                         struct range range, const float *x, struct group_scale *scale)
{
    double errors[CANDIDATES_MAX] = { 0 };
    for (uint32_t i = 0; i < quant->format->family->candidates(quant); i++) {
        struct error_sum sum = { 0 };
        if (quant->format->family->candidate(quant, range, i, scale)) add_errors(quant, kernels, tile, strip, range, scale, x, &sum);
        errors[i] = (double)sum.total;
    }
    return quant_choose(quant, range, errors, scale);
}

/* The scale of the whole tile, and its codes; false when it overflows. With importance the rows of the tile have weights of their own. */
static bool encode_whole(const struct quant *quant, const struct kernels *kernels, const struct codec_tile *tile, const struct strip *strip,
                         const struct codec_scratch *scratch, struct group_scale *scale)
{
    const size_t n = (size_t)(strip->n_rows * strip->n_cols);
    float *y = tile->measure ? scratch->y : NULL;
    struct range range;
    if (!tile->importance || !codec_heeds_importance(quant))
        return quant_encode(quant, kernels, scratch->x, NULL, n, n, scale, scratch->codes, y) > 0;
    kernels->ranges(scratch->x, n, n, &range);
    if (!(choose_reads(quant->rule) ? learn_whole : search_whole)(quant, kernels, tile, strip, range, scratch->x, scale)) return false;
    const struct groups groups = { n, n, scale };
    kernels->encode(quant->elem, quant->rounding, &groups, scratch->x, scratch->codes, y);
    return true;
}

/* One scale for the whole tile. */
static bool encode_tensor(const struct quant *quant, const struct kernels *kernels, const struct codec_tile *tile, const struct strip *strip,
                          const struct codec_scratch *scratch, struct codec_fault *fault)
{
    struct group_scale scale;
    if (!encode_whole(quant, kernels, tile, strip, scratch, &scale)) {
        *fault = (struct codec_fault){ CODEC_SCALE_OVERFLOW, 0, 0 };
        return false;
    }
    for (size_t r = 0; r < strip->n_rows; r++) {
        const struct groups groups = { (size_t)strip->n_cols, (size_t)strip->n_cols, &scale };
        clamp_infinite(quant, tile, strip, strip->row + r, strip->col, &groups, scratch->codes + r * groups.n);
    }
    const struct row_piece piece = { 0, 0, 1, &scale, NULL };
    return layout_of(quant)->store(quant, tile->n_cols, &piece, tile->planes, &(size_t){ 0 });
}

/* Whether a block of n large weights x, decoded to y, has overflowed: its scale is Inf, or a sum on the way to it was, and then the largest weight
 * became 0. *worst is that weight's number. */
static bool overflows(const float *x, const float *y, size_t n, size_t *worst)
{
    bool finite = true;
    *worst = 0;
    for (size_t i = 0; i < n; i++) {
        finite = finite && isfinite(y[i]);
        if (fabsf(x[i]) > fabsf(x[*worst])) *worst = i;
    }
    return !finite || (fabsf(x[*worst]) > BLOCK_SAFE && y[*worst] == 0.0f);
}

/* The blocks of the strip, row by row: with importance, but without it for blocks where it is all 0. */
static void encode_rows_of_blocks(const struct ggml_type *type, ggml_encode *encode, const struct codec_tile *tile, const struct strip *strip,
                                  const float *x, uint8_t *out)
{
    const size_t per_row = (size_t)strip->n_cols / type->elements;
    for (size_t r = 0; r < strip->n_rows; r++, x += strip->n_cols, out += per_row * type->bytes) {
        const float *weight = importance_at(tile, strip->row + r, strip->col);
        encode(x, weight, per_row, out);
        for (size_t b = 0; weight && b < per_row; b++)
            if (all_zero(weight + b * type->elements, type->elements)) encode(x + b * type->elements, NULL, 1, out + b * type->bytes);
    }
}

/* Whole blocks in one step; only large weights can overflow. */
static bool encode_blocks(const struct quant *quant, const struct codec_tile *tile, const struct strip *strip, const struct codec_scratch *scratch,
                          struct codec_fault *fault)
{
    const struct ggml_type *type = quant->format->block;
    const size_t n = (size_t)(strip->n_rows * strip->n_cols), n_blocks = n / type->elements;
    uint8_t *out = tile->planes[0] + (strip->row * tile->n_cols + strip->col) / type->elements * type->bytes;
    ggml_encode *encode = quant->rule == RULE_MSE && type->encode_mse ? type->encode_mse : type->encode;
    if (tile->importance && codec_heeds_importance(quant)) encode_rows_of_blocks(type, encode, tile, strip, scratch->x, out);
    else encode(scratch->x, NULL, n_blocks, out);
    bool large = false;
    for (size_t i = 0; i < n; i++) large |= fabsf(scratch->x[i]) > BLOCK_SAFE;
    if (large || tile->measure) type->decode(out, n_blocks, scratch->y);
    for (size_t i = 0, worst; large && i < n; i += type->elements)
        if (overflows(scratch->x + i, scratch->y + i, type->elements, &worst)) {
            worst += i;
            *fault = (struct codec_fault){ CODEC_SCALE_OVERFLOW, strip->row + worst / strip->n_cols, strip->col + worst % strip->n_cols };
            return false;
        }
    return true;
}

/* Blocks have no extreme code: an Inf takes the largest magnitude of its block, of plain types the largest there is. */
static void flatten_infinite(const struct quant *quant, const struct codec_tile *tile, const struct strip *strip, float *x)
{
    const size_t n = (size_t)(strip->n_rows * strip->n_cols), block = quant->format->block->elements;
    const uint8_t *source = source_at(tile, strip->row, strip->col);
    float stored[256];
    for (size_t i = 0; i < n; i += block) {
        float amax = quant->format->block->largest;
        for (size_t k = 0; k < block; k++) amax = fmaxf(amax, fabsf(x[i + k]));
        tile->dtype->widen(source + i * tile->dtype->bits / 8, block, stored);
        for (size_t k = 0; k < block; k++)
            if (isinf(stored[k])) x[i + k] = copysignf(amax, stored[k]);
    }
}

/* The strip's codes under the given scales. */
static void encode_given(const struct quant *quant, const struct kernels *kernels, const struct codec_tile *tile, const struct strip *strip,
                         const struct codec_scratch *scratch)
{
    const size_t n_cols = (size_t)strip->n_cols;
    for (size_t r = 0; r < strip->n_rows; r++) {
        const uint64_t row = quant_scale_row(quant, tile->matrix_rows, tile->first_row + strip->row + r);
        const uint64_t col = quant->group ? (tile->first_col + strip->col) / quant->group : 0;
        const struct groups groups = { n_cols, quant->group ? quant->group : n_cols, tile->given + row * tile->given_cols + col };
        kernels->encode(quant->elem, quant->rounding, &groups, scratch->x + r * n_cols, scratch->codes + r * n_cols,
                        tile->measure ? scratch->y + r * n_cols : NULL);
        clamp_infinite(quant, tile, strip, strip->row + r, strip->col, &groups, scratch->codes + r * n_cols);
    }
}

/* The strip's codes, from given scales, or with one scale for the whole tile, or with its own scales row by row. */
static bool encode_strip(const struct quant *quant, const struct kernels *kernels, const struct codec_tile *tile, const struct strip *strip,
                         const struct codec_scratch *scratch, struct codec_fault *fault)
{
    if (tile->given) {
        encode_given(quant, kernels, tile, strip, scratch);
        return true;
    }
    if (is_opaque(quant)) {
        if (strip->infinite && tile->nonfinite == NONFINITE_CLAMP) flatten_infinite(quant, tile, strip, scratch->x);
        return encode_blocks(quant, tile, strip, scratch, fault);
    }
    if (quant->group_kind == GROUP_TENSOR) return encode_tensor(quant, kernels, tile, strip, scratch, fault);
    for (size_t r = 0; r < strip->n_rows; r++)
        if (!encode_row(quant, kernels, tile, strip, r, scratch, fault)) return false;
    return true;
}

static void pack_strip(const struct quant *quant, const struct codec_tile *tile, const struct strip *strip, const uint16_t *codes)
{
    const uint32_t bits = quant->elem->bits;
    const uint64_t row_nbytes = size_ceil_div(tile->n_cols * bits, 8);
    if (strip->n_cols * bits % 8 == 0 && strip->n_cols == tile->n_cols) {
        pack_bits(codes, (size_t)(strip->n_rows * strip->n_cols), bits, tile->planes[0] + strip->row * row_nbytes);
        return;
    }
    for (uint64_t r = 0; r < strip->n_rows; r++)
        pack_bits(codes + r * strip->n_cols, (size_t)strip->n_cols, bits, tile->planes[0] + (strip->row + r) * row_nbytes + strip->col * bits / 8);
}

static bool fused_mxfp4(const struct quant *quant, const struct codec_tile *tile)
{
    return quant->elem == &elem_rows[ELEM_E2M1] && quant->scale == SCALE_E8M0 && quant->group_kind == GROUP_SIZE && quant->group == 32 &&
           quant->rounding == ROUND_NEAREST_EVEN && quant->rule != RULE_SEARCH && quant->rule != RULE_REFERENCE && !quant->blocks &&
           tile->dtype->widen_fast && tile->n_cols % 32 == 0;
}

/* Error of a tile that the fused kernel has encoded: decode it again, strip by strip. */
static void measure_tile(const struct quant *quant, const struct kernels *kernels, const struct codec_tile *tile, const struct codec_scratch *scratch)
{
    struct strip strip = { 0 };
    struct codec_fault unused;
    const size_t capacity = strip_weights(quant, tile->n_rows, tile->n_cols, false);
    while (next_strip(tile, capacity, unit_of(quant), &strip)) {
        const uint64_t first = strip.row * tile->n_cols + strip.col, n = strip.n_rows * strip.n_cols;
        load_strip(kernels, tile, &strip, scratch, &unused);
        kernels->mxfp4_f32(tile->planes[0] + first / 2, tile->planes[1] + first / 32, (size_t)n / 32, scratch->y);
        kernels->measure(scratch->x, scratch->y, (size_t)n, tile->measure);
    }
}

/* Compares the strip's weights as they were with those that stand for them. */
static void measure_strip(const struct kernels *kernels, const struct codec_tile *tile, struct strip *strip, const struct codec_scratch *scratch)
{
    const size_t n = (size_t)(strip->n_rows * strip->n_cols);
    struct codec_fault unused;
    if (tile->tensor_scales) {
        const float scale = tensor_scale_of(tile, strip);
        const bool infinite = strip->infinite;
        load_strip(kernels, tile, strip, scratch, &unused);
        strip->infinite = infinite;
        for (size_t i = 0; i < n; i++) scratch->y[i] *= scale;
    }
    kernels->measure(scratch->x, scratch->y, n, tile->measure);
}

bool codec_encode(const struct quant *quant, const struct kernels *kernels, const struct codec_tile *tile, const struct codec_scratch *scratch,
                  struct codec_fault *fault)
{
    struct strip strip = { 0 };
    size_t capacity = strip_weights(quant, tile->n_rows, tile->n_cols, tile->given != NULL);
    if (tile->importance && takes_rows(quant)) capacity = (size_t)size_max(capacity, tile->n_cols);
    *fault = (struct codec_fault){ CODEC_FINE, 0, 0 };
    if (fused_mxfp4(quant, tile) &&
        kernels->mxfp4_bf16(tile->source, (size_t)(tile->n_rows * tile->n_cols / 32), quant->rule, tile->planes[0], tile->planes[1])) {
        if (tile->measure) measure_tile(quant, kernels, tile, scratch);
        return true;
    }
    while (next_strip(tile, capacity, unit_of(quant), &strip)) {
        if (!load_strip(kernels, tile, &strip, scratch, fault)) return false;
        divide_strip(tile, &strip, scratch->x);
        if (!encode_strip(quant, kernels, tile, &strip, scratch, fault)) return false;
        if (tile->measure) measure_strip(kernels, tile, &strip, scratch);
        if (!quant->blocks) pack_strip(quant, tile, &strip, scratch->codes);
    }
    return true;
}

/* ---- observing ------------------------------------------------------------------------------------------------------------------ */

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
    part.source = source_at(tile, at->row, at->col);
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
    while (next_strip(tile, STRIP_WEIGHTS, 8, &strip)) {
        if (!load_strip(kernels, tile, &strip, scratch, fault)) return false;
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
    while (next_strip(tile, STRIP_WEIGHTS, 8, &strip)) {
        if (!load_strip(kernels, tile, &strip, scratch, fault)) return false;
        const size_t n_spans = tile->importance ? (size_t)strip.n_rows : 1, n = (size_t)(strip.n_rows * strip.n_cols) / n_spans;
        for (size_t r = 0; r < n_spans; r++) span(context, scratch->x + r * n, importance_at(tile, strip.row + r, strip.col), n);
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
    while (next_strip(tile, STRIP_WEIGHTS, 8, &strip)) {
        size_t n = (size_t)(strip.n_rows * strip.n_cols);
        load_strip(kernels, tile, &strip, scratch, &unused);
        for (uint32_t i = 0; i < family->candidates(quant); i++) {
            sums[i].first = done;
            if (family->candidate(quant, range, i, &scale)) add_errors(quant, kernels, tile, &strip, range, &scale, scratch->x, &sums[i]);
        }
        done += (uint32_t)n;
    }
    for (uint32_t i = 0; i < CANDIDATES_MAX; i++) errors[i] = (double)sums[i].total;
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
    const uint64_t unit = unit_of(to), step = size_min(scratch->n_weights, ROW_SCALES / 8 * unit) / unit * unit;
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
