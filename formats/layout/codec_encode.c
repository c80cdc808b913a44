/* codec_encode.c: f32 tiles to the bytes of planes or blocks.
 *
 * Drawing: strip of stored elements -> x (f32) -> finite? -> groups: scale, codes -> layout: packed fields or blocks   (-> y, measured against x)
 * Why this way: see codec.h and strip.h.
 * Corner cases: a group "tensor" that fits in one tile takes the whole tile as its strip; weights are measured as they were before the scale of their
 * matrix was divided out.
 * Reference: FORMAT.md 3, NUMERICS.md. Worked number: mxfp4, 2 x 40: codes 20 bytes a row, scales 2 bytes a row (groups of 32 and 8).
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "layout/pack.h"
#include "layout/strip.h"
#include "number/choose.h"

#define BLOCK_SAFE 32768.0f /* no scale of a block overflows F16 for weights up to here */

/* ---- importance ------------------------------------------------------------------------------------------------------------------ */

/* The first n weights are groups that are all 0 (*zero), or groups of which none is: how many of them are. */
static size_t run_of_groups(const float *weight, size_t n, size_t group, bool *zero)
{
    size_t run = 0;
    for (size_t at = 0; at < n; at += group) {
        const size_t count = n - at < group ? n - at : group;
        const bool is_zero = strip_all_zero(weight + at, count);
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

/* Weights in units of their matrix's scale. */
static void divide_strip(const struct codec_tile *tile, const struct strip *strip, float *x)
{
    if (!tile->tensor_scales) return;
    const float scale = strip_tensor_scale(tile, strip);
    for (size_t i = 0; i < strip->n_rows * strip->n_cols; i++) x[i] /= scale;
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
        tile->dtype->widen(strip_source(tile, row, col + i), count, x);
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
    const float *x = scratch->x + at, *weight = strip_importance(tile, strip->row + r, strip->col);
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
            choose_stream_observe(&stream, x + r * n, strip_importance(tile, strip->row + r, strip->col), n, &part);
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
        if (quant->format->family->candidate(quant, range, i, scale)) strip_add_errors(quant, kernels, tile, strip, range, scale, x, &sum);
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
        const float *weight = strip_importance(tile, strip->row + r, strip->col);
        encode(x, weight, per_row, out);
        for (size_t b = 0; weight && b < per_row; b++)
            if (strip_all_zero(weight + b * type->elements, type->elements)) encode(x + b * type->elements, NULL, 1, out + b * type->bytes);
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
    const uint8_t *source = strip_source(tile, strip->row, strip->col);
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
    if (strip_is_opaque(quant)) {
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
    while (strip_next(tile, capacity, strip_unit(quant), &strip)) {
        const uint64_t first = strip.row * tile->n_cols + strip.col, n = strip.n_rows * strip.n_cols;
        strip_load(kernels, tile, &strip, scratch, &unused);
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
        const float scale = strip_tensor_scale(tile, strip);
        const bool infinite = strip->infinite;
        strip_load(kernels, tile, strip, scratch, &unused);
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
    if (tile->importance && strip_takes_rows(quant)) capacity = (size_t)size_max(capacity, tile->n_cols);
    *fault = (struct codec_fault){ CODEC_FINE, 0, 0 };
    if (fused_mxfp4(quant, tile) &&
        kernels->mxfp4_bf16(tile->source, (size_t)(tile->n_rows * tile->n_cols / 32), quant->rule, tile->planes[0], tile->planes[1])) {
        if (tile->measure) measure_tile(quant, kernels, tile, scratch);
        return true;
    }
    while (strip_next(tile, capacity, strip_unit(quant), &strip)) {
        if (!strip_load(kernels, tile, &strip, scratch, fault)) return false;
        divide_strip(tile, &strip, scratch->x);
        if (!encode_strip(quant, kernels, tile, &strip, scratch, fault)) return false;
        if (tile->measure) measure_strip(kernels, tile, &strip, scratch);
        if (!quant->blocks) pack_strip(quant, tile, &strip, scratch->codes);
    }
    return true;
}
