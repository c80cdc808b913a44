/* plane.h: the geometry of planes: a matrix of fields of `bits` bits, cut in tiles that are contiguous pieces of it.
 *
 *   row r:  | field 0 | field 1 | ...  | field cols-1 | 0 |     row bytes = ceil(cols * bits / 8), LSB-first bit stream
 *   tiles, whole rows:  [rows 0 .. R-1] [rows R .. 2R-1] ...    tiles, long rows: [row 0, cols 0 .. C-1] [row 0, cols C .. ] ... [row 1, ...]
 *
 * Why this way: one geometry for codes, scales, zeros and kept bytes; a tile is the unit of checksums, of compression and of parallel work, fixed
 * by the shape alone, so that neither memory nor threads change a byte.
 * Corner cases: rows or cols 0 gives no tiles; the last tile in each direction is smaller; all products are checked by plane_check before any other
 * function is used.
 * Reference: FORMAT.md 3. Worked number: 4 bits, 5 rows x 172 cols: row bytes 86, plane 430 bytes, one tile.
 */
#ifndef LLMQ_LAYOUT_PLANE_H
#define LLMQ_LAYOUT_PLANE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define TILE_WEIGHTS 262144u /* target size of a tile in weights */
#define PLANE_BITS_MAX 4096u /* of a field: a block of a ggml type */
#define TILE_NBYTES_MAX (16u << 20) /* no tile of any plane may be larger */

struct plane {
    const char *name; /* "codes", "scales", ...; static or owned by whoever made the plane */
    uint32_t bits; /* of a field, 1 .. PLANE_BITS_MAX */
    uint64_t rows, cols;
    uint64_t tile_rows, tile_cols;
};

/* A rectangle of a plane or tensor. */
struct tile {
    uint64_t row, n_rows, col, n_cols;
};

/* Sets *tile_rows, *tile_cols for a tensor of rows x cols whose groups have group weights along the row (1 for kept tensors and for groups that are
 * whole rows or more). group is at most 32768. Formula in FORMAT.md 3. */
void tile_shape(uint64_t rows, uint64_t cols, uint64_t group, uint64_t *tile_rows, uint64_t *tile_cols);

/* ERR_DATA unless bits, rows, cols and tiles are consistent and nothing overflows 2^63 bytes. Call before anything below on a plane that comes from
 * a file. */
enum status plane_check(const struct plane *plane, struct err *err);

uint64_t plane_row_nbytes(const struct plane *plane);
uint64_t plane_nbytes(const struct plane *plane);
uint64_t plane_tile_count(const struct plane *plane);

/* Rectangle of tile number index (row-major numbering of tiles). */
struct tile plane_tile(const struct plane *plane, uint64_t index);

/* Bytes of that tile, and the offset of its first byte within the plane. */
uint64_t plane_tile_nbytes(const struct plane *plane, uint64_t index);
uint64_t plane_tile_offset(const struct plane *plane, uint64_t index);

/* Number of the tile that holds byte offset of a plane, which has such a byte. */
uint64_t plane_tile_at(const struct plane *plane, uint64_t offset);

#endif
