/* codec.c: f32 tiles to plane bytes and back.
 *
 * Drawing: a tile is worked off in strips that stay in cache:
 *   strip of stored elements -> x (f32) -> finite? -> groups: scale, codes -> packed codes | scale fields | zero fields   (-> y, measured against x)
 * Why this way: see codec.h. Each strip is whole rows, or a piece of one row by whole groups; so a group is always whole in a strip, unless it
 * spans tiles and its scale is given.
 * Corner cases: a group "tensor" that fits in one tile takes the whole tile as its strip; zero fields of fewer than 8 bits are packed per row.
 * Reference: FORMAT.md 3, NUMERICS.md. Worked number: mxfp4, 2 x 40: codes 20 bytes a row, scales 2 bytes a row (groups of 32 and 8).
 */
#include "layout/codec.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "layout/pack.h"
#include "number/half.h"
#include "number/kernel.h"

enum { STRIP_WEIGHTS = 4096, ROW_GROUPS = 512 };

bool codec_spans(const struct quant *quant, uint64_t rows, uint64_t cols)
{
    uint64_t tile_rows, tile_cols;
    tile_shape(rows, cols, 1, &tile_rows, &tile_cols);
    if (quant->group_kind == GROUP_CHANNEL) return tile_cols < cols;
    return quant->group_kind == GROUP_TENSOR && (tile_cols < cols || tile_rows < rows);
}

uint32_t codec_planes(const struct quant *quant, uint64_t rows, uint64_t cols, struct plane planes[CODEC_PLANES_MAX])
{
    uint64_t group = quant->group_kind == GROUP_SIZE ? quant->group : 1, tile_rows, tile_cols;
    tile_shape(rows, cols, group, &tile_rows, &tile_cols);
    uint64_t groups = quant_groups_per_row(quant, cols), scale_rows = quant->group_kind == GROUP_TENSOR ? size_min(rows, 1) : rows;
    bool spans = codec_spans(quant, rows, cols);
    uint64_t scale_tile_rows = spans ? scale_rows : tile_rows;
    uint64_t scale_tile_cols = quant->group_kind == GROUP_SIZE ? size_ceil_div(tile_cols, group) : 1;
    planes[0] = (struct plane){ "codes", quant->format->elem->bits, rows, cols, tile_rows, tile_cols };
    planes[1] = (struct plane){ "scales", scale_type_bits(quant->scale), scale_rows, groups, size_max(scale_tile_rows, 1), scale_tile_cols };
    if (!quant->format->zero_point) return 2;
    planes[2] = planes[1];
    planes[2].name = "zeros";
    planes[2].bits = quant->format->elem->bits;
    return 3;
}

/* Weights of a strip: a few rows' worth that stay in cache, but groups whole (eight of them are whole bytes). */
static size_t strip_weights(const struct quant *quant, uint64_t rows, uint64_t cols, bool spans)
{
    uint64_t whole = quant->group_kind == GROUP_TENSOR ? rows * cols : quant->group_kind == GROUP_CHANNEL ? cols : 8 * (uint64_t)quant->group;
    return spans ? STRIP_WEIGHTS : (size_t)size_max(STRIP_WEIGHTS, size_min(whole, TILE_WEIGHTS));
}

size_t codec_scratch_weights(const struct quant *quant, uint64_t rows, uint64_t cols)
{
    return strip_weights(quant, rows, cols, codec_spans(quant, rows, cols));
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
        strip->n_rows = size_min(capacity / tile->n_cols, tile->n_rows - next_row);
    } else {
        strip->n_rows = 1;
        strip->n_cols = size_min(capacity / unit * unit, tile->n_cols - next_col);
    }
    return true;
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

/* Fills scratch->x with the strip's weights. */
static bool load_strip(const struct kernels *kernels, const struct codec_tile *tile, struct strip *strip, const struct codec_scratch *scratch,
                       struct codec_fault *fault)
{
    const size_t elem_nbytes = tile->dtype->bits / 8, n = (size_t)(strip->n_rows * strip->n_cols);
    const uint8_t *source = tile->source + (strip->row * tile->n_cols + strip->col) * elem_nbytes;
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

/* ---- scales and zeros ----------------------------------------------------------------------------------------------------------- */

void codec_store_scales(const struct quant *quant, const struct group_scale *scales, size_t n, uint8_t *out)
{
    uint32_t nbytes = scale_type_bits(quant->scale) / 8;
    for (size_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < nbytes; k++) *out++ = (uint8_t)(scales[i].bits >> (8 * k));
}

void codec_store_zeros(const struct quant *quant, const struct group_scale *scales, size_t n, uint8_t *out)
{
    uint16_t zeros[ROW_GROUPS];
    uint32_t bits = quant->format->elem->bits;
    for (size_t done = 0; done < n; done += ROW_GROUPS) { /* ROW_GROUPS * bits is whole bytes */
        size_t count = n - done < ROW_GROUPS ? n - done : ROW_GROUPS;
        for (size_t i = 0; i < count; i++) zeros[i] = (uint16_t)scales[done + i].zero;
        pack_bits(zeros, count, bits, out);
        out += count * bits / 8;
    }
}

static struct group_scale load_scale(const struct quant *quant, const uint8_t *scales, const uint8_t *zeros, uint64_t index)
{
    uint32_t nbytes = scale_type_bits(quant->scale) / 8;
    struct group_scale scale = { 0 };
    for (uint32_t k = 0; k < nbytes; k++) scale.bits |= (uint32_t)scales[index * nbytes + k] << (8 * k);
    scale.value = scale_load(quant->scale, scale.bits);
    if (quant->format->zero_point) {
        uint16_t zero;
        unpack_bits(zeros, index, 1, quant->format->elem->bits, &zero);
        scale.zero = zero;
    }
    return scale;
}

/* ---- encoding ------------------------------------------------------------------------------------------------------------------- */

/* Stores n scales, and zeros, of a row of the tile from its group first on. */
static void store_row(const struct quant *quant, const struct codec_tile *tile, uint64_t row, uint64_t first, const struct group_scale *scales,
                      size_t n)
{
    const uint64_t groups = quant_groups_per_row(quant, tile->n_cols), scale_bits = scale_type_bits(quant->scale),
                   zero_bits = quant->format->elem->bits;
    codec_store_scales(quant, scales, n, tile->planes[1] + (row * groups + first) * scale_bits / 8);
    if (quant->format->zero_point)
        codec_store_zeros(quant, scales, n, tile->planes[2] + row * size_ceil_div(groups * zero_bits, 8) + first * zero_bits / 8);
}

/* Codes of one row piece of n weights beginning at column col of the tile; ROW_GROUPS groups at a time. */
static bool encode_row(const struct quant *quant, const struct kernels *kernels, const struct codec_tile *tile, const float *x, uint64_t row,
                       uint64_t col, size_t n, uint16_t *codes, float *y, struct codec_fault *fault)
{
    const size_t group = (size_t)quant_group_len(quant, tile->n_cols);
    struct group_scale scales[ROW_GROUPS];
    for (size_t i = 0, count; i < n; i += count) {
        count = (n - i) / group < ROW_GROUPS ? n - i : ROW_GROUPS * group;
        size_t done = quant_encode(quant, kernels, x + i, NULL, count, group, scales, codes + i, y ? y + i : NULL);
        if (done * group < count) {
            *fault = (struct codec_fault){ CODEC_SCALE_OVERFLOW, row, col + i + done * group };
            return false;
        }
        store_row(quant, tile, row, (col + i) / group, scales, done);
    }
    return true;
}

/* The strip's codes, from the given scale, or with one scale for the whole tile, or with its own scales row by row. */
static bool encode_strip(const struct quant *quant, const struct kernels *kernels, const struct codec_tile *tile, const struct strip *strip,
                         const struct codec_scratch *scratch, struct codec_fault *fault)
{
    const size_t n = (size_t)(strip->n_rows * strip->n_cols), n_cols = (size_t)strip->n_cols;
    float *y = tile->measure ? scratch->y : NULL;
    if (tile->given) {
        const struct groups groups = { n, n, tile->given };
        kernels->encode(quant->format->elem, quant->rounding, &groups, scratch->x, scratch->codes, y);
        return true;
    }
    if (quant->group_kind == GROUP_TENSOR) {
        struct group_scale scale;
        if (quant_encode(quant, kernels, scratch->x, NULL, n, n, &scale, scratch->codes, y) == 0) {
            *fault = (struct codec_fault){ CODEC_SCALE_OVERFLOW, 0, 0 };
            return false;
        }
        store_row(quant, tile, 0, 0, &scale, 1);
        return true;
    }
    for (size_t r = 0; r < strip->n_rows; r++)
        if (!encode_row(quant, kernels, tile, scratch->x + r * n_cols, strip->row + r, strip->col, n_cols, scratch->codes + r * n_cols,
                        y ? y + r * n_cols : NULL, fault))
            return false;
    return true;
}

static void pack_strip(const struct quant *quant, const struct codec_tile *tile, const struct strip *strip, const uint16_t *codes)
{
    const uint32_t bits = quant->format->elem->bits;
    const uint64_t row_nbytes = size_ceil_div(tile->n_cols * bits, 8);
    if (strip->n_cols * bits % 8 == 0 && strip->n_cols == tile->n_cols) {
        pack_bits(codes, (size_t)(strip->n_rows * strip->n_cols), bits, tile->planes[0] + strip->row * row_nbytes);
        return;
    }
    for (uint64_t r = 0; r < strip->n_rows; r++)
        pack_bits(codes + r * strip->n_cols, (size_t)strip->n_cols, bits, tile->planes[0] + (strip->row + r) * row_nbytes + strip->col * bits / 8);
}

/* Weights that are whole groups and whole bytes. */
static uint64_t strip_unit(const struct quant *quant)
{
    return quant->group_kind == GROUP_SIZE ? 8 * (uint64_t)quant->group : 8;
}

/* Under NONFINITE_CLAMP an Inf takes the extreme code of the element, whatever the scale. scratch->y is free by then and takes the strip's weights
 * once more. */
static void clamp_infinite(const struct quant *quant, const struct codec_tile *tile, const struct strip *strip, const struct codec_scratch *scratch)
{
    const struct elem *elem = quant->format->elem;
    const uint16_t low = (uint16_t)elem_encode(elem, -FLT_MAX, ROUND_TRUNCATE), high = (uint16_t)elem_encode(elem, FLT_MAX, ROUND_TRUNCATE);
    const size_t n = (size_t)(strip->n_rows * strip->n_cols);
    tile->dtype->widen(tile->source + (strip->row * tile->n_cols + strip->col) * tile->dtype->bits / 8, n, scratch->y);
    for (size_t i = 0; i < n; i++)
        if (isinf(scratch->y[i])) scratch->codes[i] = scratch->y[i] < 0.0f ? low : high;
}

static bool fused_mxfp4(const struct quant *quant, const struct codec_tile *tile)
{
    return quant->format->elem == &elem_rows[ELEM_E2M1] && quant->scale == SCALE_E8M0 && quant->group_kind == GROUP_SIZE && quant->group == 32 &&
           quant->rounding == ROUND_NEAREST_EVEN && quant->rule != RULE_SEARCH && tile->dtype->widen_fast && tile->n_cols % 32 == 0;
}

/* Error of a tile that the fused kernel has encoded: decode it again, strip by strip. */
static void measure_tile(const struct quant *quant, const struct kernels *kernels, const struct codec_tile *tile, const struct codec_scratch *scratch)
{
    struct strip strip = { 0 };
    struct codec_fault unused;
    const size_t capacity = strip_weights(quant, tile->n_rows, tile->n_cols, false);
    while (next_strip(tile, capacity, strip_unit(quant), &strip)) {
        const uint64_t first = strip.row * tile->n_cols + strip.col, n = strip.n_rows * strip.n_cols;
        load_strip(kernels, tile, &strip, scratch, &unused);
        kernels->mxfp4_f32(tile->planes[0] + first / 2, tile->planes[1] + first / 32, (size_t)n / 32, scratch->y);
        kernels->measure(scratch->x, scratch->y, (size_t)n, tile->measure);
    }
}

bool codec_encode(const struct quant *quant, const struct kernels *kernels, const struct codec_tile *tile, const struct codec_scratch *scratch,
                  struct codec_fault *fault)
{
    struct strip strip = { 0 };
    const size_t capacity = strip_weights(quant, tile->n_rows, tile->n_cols, tile->given != NULL);
    *fault = (struct codec_fault){ CODEC_FINE, 0, 0 };
    if (fused_mxfp4(quant, tile) &&
        kernels->mxfp4_bf16(tile->source, (size_t)(tile->n_rows * tile->n_cols / 32), quant->rule, tile->planes[0], tile->planes[1])) {
        if (tile->measure) measure_tile(quant, kernels, tile, scratch);
        return true;
    }
    while (next_strip(tile, capacity, strip_unit(quant), &strip)) {
        if (!load_strip(kernels, tile, &strip, scratch, fault)) return false;
        if (!encode_strip(quant, kernels, tile, &strip, scratch, fault)) return false;
        if (tile->measure) kernels->measure(scratch->x, scratch->y, (size_t)(strip.n_rows * strip.n_cols), tile->measure);
        if (strip.infinite && tile->nonfinite == NONFINITE_CLAMP) clamp_infinite(quant, tile, &strip, scratch);
        pack_strip(quant, tile, &strip, scratch->codes);
    }
    return true;
}

/* ---- observing ------------------------------------------------------------------------------------------------------------------ */

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
            sums[i].x = scratch->x;
            sums[i].n = n;
            sums[i].first = done;
            sums[i].limit = HUGE_VALF;
            if (family->candidate(quant, range, i, &scale)) family->error(quant, kernels, range, &scale, &sums[i]);
        }
        done += (uint32_t)n;
    }
    for (uint32_t i = 0; i < CANDIDATES_MAX; i++) errors[i] = (double)sums[i].total;
}

/* ---- decoding ------------------------------------------------------------------------------------------------------------------- */

void codec_decode_row(const struct quant *quant, const struct kernels *kernels, const uint8_t *codes, const uint8_t *scales, const uint8_t *zeros,
                      uint64_t first, size_t n, float *out)
{
    uint16_t unpacked[1024];
    for (size_t done = 0; done < n;) {
        uint64_t at = first + done;
        uint64_t left_in_group = quant->group_kind == GROUP_SIZE ? quant->group - at % quant->group : n - done;
        size_t count = (size_t)size_min(size_min(left_in_group, n - done), 1024);
        struct group_scale scale = load_scale(quant, scales, zeros, quant->group_kind == GROUP_SIZE ? at / quant->group : 0);
        unpack_bits(codes, at, count, quant->format->elem->bits, unpacked);
        const struct groups groups = { count, count, &scale };
        kernels->decode(quant->format->elem, &groups, unpacked, out + done);
        done += count;
    }
}
