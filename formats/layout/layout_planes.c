/* layout_planes.c: layouts and the first of them: codes, scales and what stands beside them (zero points, shifts) in planes of their own.
 *
 *   row: | code 0 | code 1 | ... |      scales: | scale 0 | scale 1 | ... |      zeros or shifts: | side 0 | side 1 | ... |      bits LSB first
 *
 * Why this way: see layout.h. A runtime maps codes and scales apart, and scales compress apart.
 * Corner cases: side fields of fewer than 8 bits are packed per row; when one group reaches over several tiles the plane of its scales is one tile.
 * Reference: FORMAT.md 3.2. Worked number: mxfp4, 2 x 40: codes 20 bytes a row, scales 2 bytes a row (groups of 32 and 8).
 */
#include "base/size.h"
#include "layout/codec.h"
#include "layout/pack.h"
#include "number/kernel.h"

enum {
    FIELDS = 512, /* at a time; FIELDS * bits is whole bytes */
    PIECE = 1024, /* weights decoded at a time, and scales for them */
    PIECE_SCALES = 512
};

const struct layout *layout_of(const struct quant *quant)
{
    return quant->blocks ? &layout_blocks : &layout_planes;
}

/* ---- scales and what stands beside them ------------------------------------------------------------------------------------------ */

void layout_store_scales(const struct quant *quant, const struct group_scale *scales, size_t n, uint8_t *out)
{
    const uint32_t nbytes = scale_type_bits(quant->scale) / 8;
    const size_t step = quant_scales_per_group(quant);
    for (size_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < nbytes; k++) *out++ = (uint8_t)(scales[i * step].bits >> (8 * k));
}

void layout_store_sides(const struct quant *quant, const struct group_scale *scales, size_t n, uint8_t *out)
{
    const uint32_t bits = quant_side_bits(quant);
    uint16_t sides[FIELDS];
    for (size_t done = 0; done < n; done += FIELDS) {
        size_t count = n - done < FIELDS ? n - done : FIELDS;
        for (size_t i = 0; i < count; i++) sides[i] = (uint16_t)(quant->sub_block ? scales[done + i].shift : (uint32_t)scales[done + i].zero);
        pack_bits(sides, count, bits, out);
        out += count * bits / 8;
    }
}

void layout_load_scales(const struct quant *quant, const uint8_t *scales, const uint8_t *sides, uint64_t first, size_t n, struct group_scale *out)
{
    const uint32_t nbytes = scale_type_bits(quant->scale) / 8, side_bits = quant_side_bits(quant);
    const uint64_t step = quant_scales_per_group(quant);
    uint16_t side = 0;
    for (size_t i = 0; i < n; i++) {
        struct group_scale scale = { 0 };
        for (uint32_t k = 0; k < nbytes; k++) scale.bits |= (uint32_t)scales[(first + i) / step * nbytes + k] << (8 * k);
        scale.value = scale_load(quant->scale, scale.bits);
        if (side_bits) unpack_bits(sides, first + i, 1, side_bits, &side);
        if (quant->sub_block) {
            scale.shift = side;
            scale.value *= exact_exp2(-(int32_t)side);
        } else {
            scale.zero = side;
        }
        out[i] = scale;
    }
}

/* ---- the row -------------------------------------------------------------------------------------------------------------------- */

static uint32_t planes_of(const struct quant *quant, const struct shape *shape, struct plane planes[LAYOUT_PLANES_MAX])
{
    uint64_t tile_rows, tile_cols, rows = shape->rows, cols = shape->cols;
    codec_tile_shape(quant, shape, &tile_rows, &tile_cols);
    const uint64_t scale_rows = quant_scale_rows(quant, rows, shape_matrix_rows(shape)), groups = quant_groups_per_row(quant, cols);
    const bool whole = codec_spans(quant, rows, cols);
    const uint64_t group_tile_rows = size_max(whole ? scale_rows : tile_rows, 1);
    const uint64_t group_tile_cols = !quant->group ? 1 : whole ? groups : size_ceil_div(tile_cols, quant->group);
    planes[0] = (struct plane){ "codes", quant->elem->bits, rows, cols, tile_rows, tile_cols };
    planes[1] = (struct plane){ "scales", scale_type_bits(quant->scale), scale_rows, groups, group_tile_rows, size_max(group_tile_cols, 1) };
    if (!quant_side_bits(quant)) return 2;
    planes[2] = planes[1];
    planes[2].name = PLANE_ZEROS;
    planes[2].bits = quant_side_bits(quant);
    if (!quant->sub_block) return 3;
    planes[2].name = PLANE_SHIFTS;
    planes[2].cols = size_ceil_div(cols, quant->sub_block);
    planes[2].tile_cols = size_max(size_ceil_div(tile_cols, quant->sub_block), 1);
    return 3;
}

/* Bytes of a row of n fields. */
static uint64_t row_nbytes(uint64_t n, uint32_t bits)
{
    return size_ceil_div(n * bits, 8);
}

static bool store(const struct quant *quant, uint64_t n_cols, const struct row_piece *piece, uint8_t *const planes[LAYOUT_PLANES_MAX], size_t *bad)
{
    const uint64_t group = quant_group_len(quant, n_cols), groups = quant_groups_per_row(quant, n_cols), first = piece->col / group;
    const uint64_t unit = quant->sub_block ? quant->sub_block : group;
    const uint32_t code_bits = quant->elem->bits, scale_bits = scale_type_bits(quant->scale), side_bits = quant_side_bits(quant);
    (void)bad;
    layout_store_scales(quant, piece->scales, (size_t)size_ceil_div(piece->n, group), planes[1] + (piece->row * groups + first) * scale_bits / 8);
    if (side_bits)
        layout_store_sides(quant, piece->scales, (size_t)size_ceil_div(piece->n, unit),
                           planes[2] + piece->row * row_nbytes(size_ceil_div(n_cols, unit), side_bits) + piece->col / unit * side_bits / 8);
    if (piece->codes)
        pack_bits(piece->codes, piece->n, code_bits, planes[0] + piece->row * row_nbytes(n_cols, code_bits) + piece->col * code_bits / 8);
    return true;
}

/* Weights of a row that one scale of struct group_scale is for; 0: all. */
static uint64_t unit_of(const struct quant *quant)
{
    return quant->sub_block ? quant->sub_block : quant->group;
}

/* Pieces that are whole units, or the rest of one. */
static void decode(const struct quant *quant, const struct kernels *kernels, const uint8_t *const planes[LAYOUT_PLANES_MAX], uint64_t first, size_t n,
                   float *out)
{
    uint16_t codes[PIECE];
    struct group_scale scales[PIECE_SCALES];
    const uint64_t unit = unit_of(quant);
    for (size_t done = 0, count; done < n; done += count) {
        const uint64_t at = first + done, begun = unit ? at % unit : 0, most = size_min(n - done, PIECE);
        if (begun || !unit || unit > most) count = (size_t)(unit ? size_min(unit - begun, most) : most);
        else count = (size_t)size_min(most, size_min(PIECE / unit, PIECE_SCALES) * unit);
        const struct groups groups = { count, unit ? (size_t)size_min(unit, count) : count, scales };
        layout_load_scales(quant, planes[1], planes[2], unit ? at / unit : 0, (size_t)size_ceil_div(count, groups.group), scales);
        unpack_bits(planes[0], at, count, quant->elem->bits, codes);
        kernels->decode(quant->elem, &groups, codes, out + done);
    }
}

static bool load(const struct quant *quant, const uint8_t *const planes[LAYOUT_PLANES_MAX], uint64_t col, size_t n, struct group_scale *scales,
                 uint16_t *codes, size_t *bad)
{
    const bool sized = quant->group_kind == GROUP_SIZE;
    *bad = 0;
    layout_load_scales(quant, planes[1], planes[2], sized ? col / unit_of(quant) : 0, sized ? (size_t)size_ceil_div(n, unit_of(quant)) : 1, scales);
    unpack_bits(planes[0], col, n, quant->elem->bits, codes);
    return true;
}

const struct layout layout_planes = { .name = "planes", .planes = planes_of, .store = store, .decode = decode, .load = load };
