/* kept.c: see kept.h.
 *
 * Formula: BF16 bytes b0 (low), b1 (high): exponent = b1 << 1 | b0 >> 7, rest = (b1 & 0x80) | (b0 & 0x7F); back: b0 = exponent << 7 | (rest &
 * 0x7F), b1 = (rest & 0x80) | exponent >> 1.
 * Why this way: byte arithmetic in straight loops, which compilers vectorise; no alignment is needed and no byte order assumed.
 * Corner cases: n_items 0 does nothing.
 * Reference: FORMAT.md 3.1. Worked number: bytes 80 BF: exponent 7F, rest 80.
 */
#include "layout/kept.h"

#include <string.h>

static enum kept_kind split_kind(const struct dtype *dtype)
{
    if (strcmp(dtype->name, "BF16") == 0) return KEPT_BF16;
    if (strcmp(dtype->name, "F16") == 0) return KEPT_F16;
    return KEPT_DATA;
}

void kept_planes(const struct dtype *dtype, uint64_t rows, uint64_t cols, bool split, struct kept *kept)
{
    *kept = (struct kept){ .kind = split ? split_kind(dtype) : KEPT_DATA, .rows = rows, .cols = cols, .item_nbytes = dtype->bits / 8, .n_planes = 1 };
    if (dtype->bits < 8) {
        kept->cols = (rows * cols / 8) * dtype->bits + rows * cols % 8 * dtype->bits / 8;
        kept->rows = 1;
        kept->item_nbytes = 1;
    }
    tile_shape(kept->rows, kept->cols, 1, &kept->tile_rows, &kept->tile_cols);
    static const char *const names[3][KEPT_PLANES_MAX] = { { "data", NULL }, { "exponent", "rest" }, { "high", "low" } };
    if (kept->kind != KEPT_DATA) kept->n_planes = 2;
    for (uint32_t i = 0; i < kept->n_planes; i++)
        kept->planes[i] = (struct plane){ .name = names[kept->kind][i],
                                          .bits = kept->item_nbytes * 8 / kept->n_planes,
                                          .rows = kept->rows,
                                          .cols = kept->cols,
                                          .tile_rows = kept->tile_rows,
                                          .tile_cols = kept->tile_cols };
}

static void split_bf16(const uint8_t *restrict src, size_t n, uint8_t *restrict exponent, uint8_t *restrict rest)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t low = src[2 * i], high = src[2 * i + 1];
        exponent[i] = (uint8_t)((unsigned)high << 1 | low >> 7);
        rest[i] = (uint8_t)((high & 0x80u) | (low & 0x7Fu));
    }
}

static void join_bf16(const uint8_t *restrict exponent, const uint8_t *restrict rest, size_t n, uint8_t *restrict dst)
{
    for (size_t i = 0; i < n; i++) {
        dst[2 * i] = (uint8_t)((unsigned)exponent[i] << 7 | (rest[i] & 0x7Fu));
        dst[2 * i + 1] = (uint8_t)((rest[i] & 0x80u) | exponent[i] >> 1);
    }
}

static void split_f16(const uint8_t *restrict src, size_t n, uint8_t *restrict high, uint8_t *restrict low)
{
    for (size_t i = 0; i < n; i++) {
        low[i] = src[2 * i];
        high[i] = src[2 * i + 1];
    }
}

static void join_f16(const uint8_t *restrict high, const uint8_t *restrict low, size_t n, uint8_t *restrict dst)
{
    for (size_t i = 0; i < n; i++) {
        dst[2 * i] = low[i];
        dst[2 * i + 1] = high[i];
    }
}

void kept_split(enum kept_kind kind, uint32_t item_nbytes, const uint8_t *src, size_t n_items, uint8_t *const planes[KEPT_PLANES_MAX])
{
    if (kind == KEPT_BF16) split_bf16(src, n_items, planes[0], planes[1]);
    else if (kind == KEPT_F16) split_f16(src, n_items, planes[0], planes[1]);
    else if (n_items) memcpy(planes[0], src, n_items * item_nbytes);
}

void kept_join(enum kept_kind kind, uint32_t item_nbytes, const uint8_t *const planes[KEPT_PLANES_MAX], size_t n_items, uint8_t *dst)
{
    if (kind == KEPT_BF16) join_bf16(planes[0], planes[1], n_items, dst);
    else if (kind == KEPT_F16) join_f16(planes[0], planes[1], n_items, dst);
    else if (n_items) memcpy(dst, planes[0], n_items * item_nbytes);
}
