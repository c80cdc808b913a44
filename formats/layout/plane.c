/* plane.c: see plane.h.
 *
 * Formula: tiles a row T = ceil(cols / tile_cols); tile i covers rows (i / T) * tile_rows and cols (i % T) * tile_cols onwards.
 * Why this way: closed forms; nothing is stored per tile.
 * Corner cases: T > 1 demands tile_rows = 1 and whole bytes per tile, so that tiles stay contiguous.
 * Reference: FORMAT.md 3. Worked number: cols 300000, group 32: tile [1, 262144]; tiles of row 0: 262144 and 37856 cols.
 */
#include "layout/plane.h"

#include "base/size.h"

void tile_shape(uint64_t rows, uint64_t cols, uint64_t group, uint64_t *tile_rows, uint64_t *tile_cols)
{
    (void)rows;
    if (cols <= TILE_WEIGHTS) {
        *tile_rows = size_max(1, TILE_WEIGHTS / size_max(cols, 1));
        *tile_cols = size_max(cols, 1);
        return;
    }
    *tile_rows = 1;
    *tile_cols = TILE_WEIGHTS / (8 * group) * (8 * group);
}

enum status plane_check(const struct plane *plane, struct err *err)
{
    uint64_t row_bits, total;
    if (plane->bits < 1 || plane->bits > PLANE_BITS_MAX) return err_set(err, ERR_DATA, "plane has %u bits a field", plane->bits);
    if (!size_mul(plane->cols, plane->bits, &row_bits) || !size_mul(size_ceil_div(row_bits, 8), plane->rows, &total) || total > INT64_MAX)
        return err_set(err, ERR_DATA, "plane size overflows");
    if (plane->tile_rows == 0 || plane->tile_cols == 0) return err_set(err, ERR_DATA, "plane has an empty tile");
    bool long_rows = plane->tile_cols < plane->cols;
    if (long_rows && (plane->tile_rows != 1 || (plane->tile_cols % 8 * plane->bits) % 8 != 0))
        return err_set(err, ERR_DATA, "tiles of a plane are not contiguous");
    uint64_t tile_nbytes;
    uint64_t rows = size_min(plane->tile_rows, plane->rows), cols = size_min(plane->tile_cols, plane->cols);
    if (!size_mul(size_ceil_div(cols * plane->bits, 8), rows, &tile_nbytes) || tile_nbytes > TILE_NBYTES_MAX)
        return err_set(err, ERR_DATA, "a tile is larger than %u bytes", TILE_NBYTES_MAX);
    return OK;
}

uint64_t plane_row_nbytes(const struct plane *plane)
{
    return size_ceil_div(plane->cols * plane->bits, 8);
}

uint64_t plane_nbytes(const struct plane *plane)
{
    return plane_row_nbytes(plane) * plane->rows;
}

static uint64_t tiles_per_row(const struct plane *plane)
{
    return size_ceil_div(plane->cols, plane->tile_cols);
}

uint64_t plane_tile_count(const struct plane *plane)
{
    return size_ceil_div(plane->rows, plane->tile_rows) * tiles_per_row(plane);
}

struct tile plane_tile(const struct plane *plane, uint64_t index)
{
    uint64_t per_row = tiles_per_row(plane);
    struct tile tile = { .row = index / per_row * plane->tile_rows, .col = index % per_row * plane->tile_cols };
    tile.n_rows = size_min(plane->tile_rows, plane->rows - tile.row);
    tile.n_cols = size_min(plane->tile_cols, plane->cols - tile.col);
    return tile;
}

uint64_t plane_tile_nbytes(const struct plane *plane, uint64_t index)
{
    struct tile tile = plane_tile(plane, index);
    return size_ceil_div(tile.n_cols * plane->bits, 8) * tile.n_rows;
}

uint64_t plane_tile_offset(const struct plane *plane, uint64_t index)
{
    struct tile tile = plane_tile(plane, index);
    return tile.row * plane_row_nbytes(plane) + tile.col * plane->bits / 8;
}

uint64_t plane_tile_at(const struct plane *plane, uint64_t offset)
{
    uint64_t row = offset / plane_row_nbytes(plane), in_row = offset % plane_row_nbytes(plane);
    return row / plane->tile_rows * tiles_per_row(plane) + (plane->tile_cols < plane->cols ? in_row * 8 / plane->bits / plane->tile_cols : 0);
}
