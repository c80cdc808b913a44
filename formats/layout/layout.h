/* layout.h: layouts, the table of how the groups of a tensor become named planes of bytes.
 *
 *   planes   codes | scales | zeros or shifts | tensor_scale | input_scale       fields in order, each kind in a plane of its own
 *   blocks   blocks | tensor_scale | input_scale                       whole blocks of a ggml type, as GGUF stores them
 *
 * Why this way: number/ makes groups (codes and a scale) and knows no bytes; what stands here knows bytes and no numbers. codec.c walks tiles and
 * calls one of the two.
 * Corner cases: a row of blocks is a multiple of the block (quant_fits); the scales of the matrices are a plane of one row, one field a matrix.
 * Reference: FORMAT.md 3. Worked number: q4_k, 2 x 512: blocks [2, 2] of 1152 bits.
 */
#ifndef LLMQ_LAYOUT_LAYOUT_H
#define LLMQ_LAYOUT_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout/plane.h"
#include "number/format.h"

#define LAYOUT_PLANES_MAX 4
#define PLANE_ZEROS "zeros"
#define PLANE_SHIFTS "shifts"
#define PLANE_TENSOR_SCALE "tensor_scale" /* the plane of the matrices' scales, f32 */
#define PLANE_INPUT_SCALE "input_scale" /* the plane of factors of the input channels, f32, a row for each matrix */

/* The shape of a tensor as layouts see it: n_matrices of rows / n_matrices rows each lie one below the other (a stack of experts; else 1). */
struct shape {
    uint64_t rows, cols, n_matrices;
};

static inline uint64_t shape_matrix_rows(const struct shape *shape)
{
    return shape->n_matrices ? shape->rows / shape->n_matrices : shape->rows;
}

/* Groups of one row piece of a tile: n weights from column col of the tile on, whole groups but for the end of the row. */
struct row_piece {
    uint64_t row, col; /* in the tile */
    size_t n;
    const struct group_scale *scales; /* quant_scales of them */
    const uint16_t *codes;
};

struct layout {
    const char *name;
    /* Planes of a tensor but that of the matrices' scales; returns how many. Names are static. */
    uint32_t (*planes)(const struct quant *quant, const struct shape *shape, struct plane planes[LAYOUT_PLANES_MAX]);
    /* Writes the piece's bytes into those of a tile of n_cols columns. False when a scale has no place in it: *bad is its group. */
    bool (*store)(const struct quant *quant, uint64_t n_cols, const struct row_piece *piece, uint8_t *const planes[LAYOUT_PLANES_MAX], size_t *bad);
    /* Decodes n weights of a row, from weight number first of the stream on; planes point at the row's streams. Scales of matrices are left to the
     * caller. */
    void (*decode)(const struct quant *quant, const struct kernels *kernels, const uint8_t *const planes[LAYOUT_PLANES_MAX], uint64_t first, size_t n,
                   float *out);
    /* The reverse of store for whole groups from column col on (a multiple of the group): scales with their stored bits, and codes. False: it
     * cannot, group *bad (counted from col on) is no set of codes. */
    bool (*load)(const struct quant *quant, const uint8_t *const planes[LAYOUT_PLANES_MAX], uint64_t col, size_t n, struct group_scale *scales,
                 uint16_t *codes, size_t *bad);
};

extern const struct layout layout_planes, layout_blocks;

/* The layout of a tensor quantised so. */
const struct layout *layout_of(const struct quant *quant);

/* ERR_USAGE when the format has no blocks, or its group is not that of the block: then quant->blocks cannot be set. */
enum status layout_check_blocks(const struct quant *quant, struct err *err);

/* ggml's rule for a format of elements that a block can hold: codes and scales of n weights in whole groups. Returns how many groups were done: all,
 * or those before the first whose scale has no place. */
size_t layout_reference(const struct quant *quant, const float *x, size_t n, struct group_scale *scales, uint16_t *codes);

/* The stored scales of n groups, and n zero points or shifts, one behind the other; and n scales back, from number first of a row on. */
void layout_store_scales(const struct quant *quant, const struct group_scale *scales, size_t n, uint8_t *out);
void layout_store_sides(const struct quant *quant, const struct group_scale *scales, size_t n, uint8_t *out);
void layout_load_scales(const struct quant *quant, const uint8_t *scales, const uint8_t *sides, uint64_t first, size_t n, struct group_scale *out);

#endif
