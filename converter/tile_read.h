/* tile_read.h: source tiles, whatever the container: plain bytes as stored, or decoded f32 of a quantised tensor.
 *
 * Why this way: the one place that knows both ways to read.
 * Corner cases: an element of fewer than 8 bits makes the tensor one row of bytes; consecutive tiles are one contiguous read.
 * Reference: FORMAT.md 3.
 */
#ifndef LLMQ_CONVERTER_TILE_READ_H
#define LLMQ_CONVERTER_TILE_READ_H

#include "container/container.h"
#include "layout/plane.h"

/* The dtype in which tile_read delivers: the stored one, or F32 for a quantised tensor. */
const struct dtype *tile_read_dtype(const struct tensor *tensor);

/* Reads tiles [first, first + n_tiles) of the geometry into buf, one behind the other, row by row. geometry->bits is that of tile_read_dtype (8 for
 * fewer-bit elements). */
enum status tile_read(struct container *container, size_t index, const struct plane *geometry, uint64_t first, uint64_t n_tiles, void *buf,
                      struct err *err);

#endif
