/* tile_read.c: see tile_read.h.
 *
 * Drawing: tiles 3 .. 5 of a plain tensor = bytes [offset of tile 3, offset of tile 5 + its size) of the tensor.
 * Why this way: see tile_read.h.
 * Corner cases: see tile_read.h.
 * Reference: FORMAT.md 3. Worked number: BF16, cols 4096: a tile is 64 rows, 524288 bytes.
 */
#include "converter/tile_read.h"

const struct dtype *tile_read_dtype(const struct tensor *tensor)
{
    return tensor->quantised ? dtype_find("F32", 3) : tensor->dtype;
}

enum status tile_read(struct container *container, size_t index, const struct plane *geometry, uint64_t first, uint64_t n_tiles, void *buf,
                      struct err *err)
{
    if (n_tiles == 0) return OK;
    uint64_t begin = plane_tile_offset(geometry, first), last = first + n_tiles - 1;
    uint64_t end = plane_tile_offset(geometry, last) + plane_tile_nbytes(geometry, last);
    if (!container->tensors[index].quantised) return container_read(container, index, begin, (size_t)(end - begin), buf, err);
    float *out = buf;
    for (uint64_t i = first; i <= last; i++) {
        struct tile tile = plane_tile(geometry, i);
        enum status status = container_read_f32(container, index, tile.row, tile.n_rows, tile.col, tile.n_cols, out, err);
        if (status) return status;
        out += tile.n_rows * tile.n_cols;
    }
    return OK;
}
