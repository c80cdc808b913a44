/* layout_planes.c: layouts and the first of them: codes, scales and zero points in planes of their own.
 *
 *   row: | code 0 | code 1 | ... |      scales: | scale 0 | scale 1 | ... |      zeros: | zero 0 | zero 1 | ... |        bits LSB first
 *
 * Why this way: see layout.h. A runtime maps codes and scales apart, and scales compress apart.
 * Corner cases: zero fields of fewer than 8 bits are packed per row; when one group reaches over several tiles the plane of its scales is one tile.
 * Reference: FORMAT.md 3.2. Worked number: mxfp4, 2 x 40: codes 20 bytes a row, scales 2 bytes a row (groups of 32 and 8).
 */
#include "base/size.h"
#include "layout/codec.h"
#include "layout/pack.h"
#include "number/kernel.h"

enum { FIELDS = 512 }; /* at a time; FIELDS * bits is whole bytes */

const struct layout *layout_of(const struct quant *quant)
{
    return quant->blocks ? &layout_blocks : &layout_planes;
}

/* ---- scales and zeros ----------------------------------------------------------------------------------------------------------- */

void layout_store_scales(const struct quant *quant, const struct group_scale *scales, size_t n, uint8_t *out)
{
    uint32_t nbytes = scale_type_bits(quant->scale) / 8;
    for (size_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < nbytes; k++) *out++ = (uint8_t)(scales[i].bits >> (8 * k));
}

void layout_store_zeros(const struct quant *quant, const struct group_scale *scales, size_t n, uint8_t *out)
{
    uint16_t zeros[FIELDS];
    uint32_t bits = quant->format->elem->bits;
    for (size_t done = 0; done < n; done += FIELDS) {
        size_t count = n - done < FIELDS ? n - done : FIELDS;
        for (size_t i = 0; i < count; i++) zeros[i] = (uint16_t)scales[done + i].zero;
        pack_bits(zeros, count, bits, out);
        out += count * bits / 8;
    }
}

struct group_scale layout_load_scale(const struct quant *quant, const uint8_t *scales, const uint8_t *zeros, uint64_t index)
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

/* ---- the row -------------------------------------------------------------------------------------------------------------------- */

static uint32_t planes_of(const struct quant *quant, const struct shape *shape, struct plane planes[LAYOUT_PLANES_MAX])
{
    uint64_t group = quant->group_kind == GROUP_SIZE ? quant->group : 1, tile_rows, tile_cols, rows = shape->rows, cols = shape->cols;
    codec_tile_shape(quant, shape, &tile_rows, &tile_cols);
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

static bool store(const struct quant *quant, uint64_t n_cols, const struct row_piece *piece, uint8_t *const planes[LAYOUT_PLANES_MAX], size_t *bad)
{
    const uint64_t group = quant_group_len(quant, n_cols), groups = quant_groups_per_row(quant, n_cols), first = piece->col / group;
    const uint32_t code_bits = quant->format->elem->bits, scale_bits = scale_type_bits(quant->scale);
    const size_t n_groups = (size_t)size_ceil_div(piece->n, group);
    (void)bad;
    layout_store_scales(quant, piece->scales, n_groups, planes[1] + (piece->row * groups + first) * scale_bits / 8);
    if (quant->format->zero_point)
        layout_store_zeros(quant, piece->scales, n_groups, planes[2] + piece->row * size_ceil_div(groups * code_bits, 8) + first * code_bits / 8);
    if (piece->codes)
        pack_bits(piece->codes, piece->n, code_bits, planes[0] + piece->row * size_ceil_div(n_cols * code_bits, 8) + piece->col * code_bits / 8);
    return true;
}

static void decode(const struct quant *quant, const struct kernels *kernels, const uint8_t *const planes[LAYOUT_PLANES_MAX], uint64_t first, size_t n,
                   float *out)
{
    uint16_t unpacked[1024];
    for (size_t done = 0; done < n;) {
        uint64_t at = first + done;
        uint64_t left_in_group = quant->group_kind == GROUP_SIZE ? quant->group - at % quant->group : n - done;
        size_t count = (size_t)size_min(size_min(left_in_group, n - done), 1024);
        struct group_scale scale = layout_load_scale(quant, planes[1], planes[2], quant->group_kind == GROUP_SIZE ? at / quant->group : 0);
        unpack_bits(planes[0], at, count, quant->format->elem->bits, unpacked);
        const struct groups groups = { count, count, &scale };
        kernels->decode(quant->format->elem, &groups, unpacked, out + done);
        done += count;
    }
}

static bool load(const struct quant *quant, const uint8_t *const planes[LAYOUT_PLANES_MAX], uint64_t col, size_t n, struct group_scale *scales,
                 uint16_t *codes, size_t *bad)
{
    const bool sized = quant->group_kind == GROUP_SIZE;
    *bad = 0;
    scales[0] = layout_load_scale(quant, planes[1], planes[2], sized ? col / quant->group : 0);
    for (size_t g = 1; sized && g * quant->group < n; g++) scales[g] = layout_load_scale(quant, planes[1], planes[2], col / quant->group + g);
    unpack_bits(planes[0], col, n, quant->format->elem->bits, codes);
    return true;
}

const struct layout layout_planes = { .name = "planes", .planes = planes_of, .store = store, .decode = decode, .load = load };
