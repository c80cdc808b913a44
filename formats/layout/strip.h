/* strip.h: a tile in pieces that stay in cache: which they are, and their weights as f32.
 *
 * Drawing: tile --strip_next--> strips: whole rows, or a piece of one row by whole groups --strip_load--> x (f32), finite
 * Why this way: encoding, measuring and observing walk a tile alike; a group is whole in a strip, unless it spans tiles and its scale is given.
 * Corner cases: a strip never reaches into another matrix of a stack that has scales of matrices; with importance it may, and its rows are then weighed
 * one by one; an Inf under --nonfinite clamp or zero is 0 here and told.
 * Reference: NUMERICS.md 5 and 6. Worked number: int4 in groups of 128, rows of 1000: strips of 4 rows.
 */
#ifndef LLMQ_LAYOUT_STRIP_H
#define LLMQ_LAYOUT_STRIP_H

#include "layout/codec.h"
#include "number/kernel.h"

enum { STRIP_WEIGHTS = 4096, ROW_SCALES = 8 * SUB_BLOCKS_MAX }; /* of a strip; scales that are held at a time */

/* A piece of a tile: whole rows, or part of one row. */
struct strip {
    uint64_t row, n_rows, col, n_cols;
    bool infinite; /* it has an Inf, taken for 0 in choosing scales */
};

/* Coded by ggml's own functions, block by block. */
bool strip_is_opaque(const struct quant *quant);

/* Weights that are whole groups, whole bytes and whole blocks. */
uint64_t strip_unit(const struct quant *quant);

/* Weights of a strip: a few rows' worth that stay in cache, but groups whole (eight of them are whole bytes). */
size_t strip_weights(const struct quant *quant, uint64_t rows, uint64_t cols, bool spans);

/* With importance weights some of ggml's types take exactly one row at a time. */
bool strip_takes_rows(const struct quant *quant);

/* The next strip of at most capacity weights after *strip (all zero: the first); false at the end. Longer rows are cut in multiples of unit. */
bool strip_next(const struct codec_tile *tile, size_t capacity, uint64_t unit, struct strip *strip);

/* The scale of the matrix the strip lies in, 1 where there is none. */
float strip_tensor_scale(const struct codec_tile *tile, const struct strip *strip);

/* The stored elements from a place of the tile on. */
const uint8_t *strip_source(const struct codec_tile *tile, uint64_t row, uint64_t col);

/* Fills scratch->x with the strip's weights; false at a NaN or Inf that is refused (*fault: where). */
bool strip_load(const struct kernels *kernels, const struct codec_tile *tile, struct strip *strip, const struct codec_scratch *scratch,
                struct codec_fault *fault);

/* Importance weights of a row of the tile, from column col on; NULL: 1 for all. */
const float *strip_importance(const struct codec_tile *tile, uint64_t row, uint64_t col);

/* True of no weights, too. */
bool strip_all_zero(const float *weight, size_t n);

/* Adds the error terms of whole rows under one scale, from number sum->first on. The scale of a square is that of its columns alone; where all of
 * these have importance 0 they count as without. */
void strip_add_errors(const struct quant *quant, const struct kernels *kernels, const struct codec_tile *tile, const struct strip *strip,
                      struct range range, const struct group_scale *scale, const float *x, struct error_sum *sum);

#endif
