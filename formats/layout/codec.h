/* codec.h: quantised tensors as planes: which planes there are, and how f32 tiles become packed plane bytes and back.
 *
 *   f32 tile --number: groups--> codes, scales, zeros, shifts (one integer each) --layout--> bytes of planes "codes", "scales", .. or "blocks"
 *
 * Why this way: number/ knows no bytes and container/ knows no numbers; this is the seam. A fused kernel (BF16 straight to MXFP4 planes) is chosen
 * here and must give the same bytes.
 * Corner cases: tails of rows, tiles of long rows (their streams begin at the tile's first column), groups over several tiles (their scales are
 * given); a stack of matrices with a scale each. Importance: a group, or a block of ggml, whose importance weights are all 0 is coded as without.
 * Reference: FORMAT.md 3.
 */
#ifndef LLMQ_LAYOUT_CODEC_H
#define LLMQ_LAYOUT_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout/dtype.h"
#include "layout/layout.h"
#include "layout/plane.h"
#include "number/format.h"

#define CODEC_PLANES_MAX LAYOUT_PLANES_MAX

/* Planes of a tensor: those of its layout, the codes or blocks first, then "tensor_scale" where its matrices have scales, then "input_scale" where
 * its input channels have factors; returns how many. Names are static. */
uint32_t codec_planes(const struct quant *quant, const struct shape *shape, struct plane planes[CODEC_PLANES_MAX]);

/* Rows and columns of a tile of the tensor, in weights. */
void codec_tile_shape(const struct quant *quant, const struct shape *shape, uint64_t *tile_rows, uint64_t *tile_cols);

/* Bytes of all whole planes: scales and zeros from given (as in struct codec_tile), scales of matrices. planes has all planes. */
void codec_store_whole(const struct quant *quant, const struct shape *shape, const struct group_scale *given, const float *tensor_scales,
                       uint8_t *const planes[CODEC_PLANES_MAX]);

/* Bytes of the plane of input scales: n_matrices x cols factors, or a single row of cols of them for all matrices (n_sets 1). */
void codec_store_input_scale(const struct quant *quant, const struct shape *shape, const float *factors, uint64_t n_sets,
                             uint8_t *const planes[CODEC_PLANES_MAX]);

/* True for a plane that belongs to the tensor as a whole, not to its tiles: scales and zeros of groups over several tiles, scales of matrices, input
 * scales. */
bool codec_is_whole(const struct quant *quant, const struct shape *shape, const struct plane *plane);

/* True when groups may reach over several tiles, so that their scales must be observed in earlier passes. */
bool codec_spans(const struct quant *quant, uint64_t rows, uint64_t cols);

/* What is done with NaN and Inf in a weight (NUMERICS.md 6). */
enum nonfinite { NONFINITE_ERROR, NONFINITE_ZERO, NONFINITE_CLAMP };

/* Memory of one worker. The caller brings it: n_weights elements each. */
struct codec_scratch {
    float *x, *y;
    uint16_t *codes;
    size_t n_weights;
};

/* Weights that codec_scratch needs for this tensor: a group must fit whole, unless it spans tiles. The second is for tiles with importance: some of
 * ggml's types then take a row of the tile at once. */
size_t codec_scratch_weights(const struct quant *quant, uint64_t rows, uint64_t cols);
size_t codec_scratch_importance(const struct quant *quant, uint64_t rows, uint64_t cols);

/* True when importance can change a byte: the format searches its scales by error, or is a type of ggml that heeds it. */
bool codec_heeds_importance(const struct quant *quant);

/* Where something went wrong, within the tile. */
struct codec_fault {
    enum { CODEC_FINE, CODEC_NONFINITE, CODEC_SCALE_OVERFLOW, CODEC_NO_PLACE } kind;
    uint64_t row, col; /* of the first one, relative to the tile; for an overflow the group's first weight */
};

/* One tile to encode. */
struct codec_tile {
    const uint8_t *source; /* n_rows x n_cols stored elements, a row begins stride elements behind the one before it */
    uint64_t stride; /* 0: n_cols. Only tiles that are observed have another one */
    const struct dtype *dtype;
    uint64_t n_rows, n_cols;
    enum nonfinite nonfinite;
    const struct group_scale *given; /* of a spanning tensor the scales of all groups, given_cols in a row of them; NULL otherwise */
    uint64_t given_cols;
    const float *tensor_scales; /* of all matrices; NULL where quant has none */
    const float *const *importance; /* a row for each matrix of the tensor: an importance weight >= 0 for each of its columns, or NULL, which is 1
                                       for all; NULL: none at all */
    uint64_t first_row, first_col,
        matrix_rows; /* with given, tensor_scales or importance: where the tile stands in the tensor, and rows of a matrix */
    uint8_t *planes[CODEC_PLANES_MAX]; /* outputs: the tile's bytes of each plane; whole planes are not written */
    struct measure *measure; /* errors are added here; NULL: not measured */
};

/* Encodes the tile; false with *fault set when a weight is not finite (under NONFINITE_ERROR) or a scale overflows. */
bool codec_encode(const struct quant *quant, const struct kernels *kernels, const struct codec_tile *tile, const struct codec_scratch *scratch,
                  struct codec_fault *fault);

/* What of a tile of a spanning tensor belongs to one group. */
struct codec_piece {
    struct tile at; /* within the tile */
    uint64_t group; /* number of the group in the plane of scales, row by row */
    bool complete; /* it is the whole group */
};

/* The next piece of the tile that covers place of the tensor, after *piece (all zero: the first), row by row of groups; false at the end. */
bool codec_next_piece(const struct quant *quant, const struct shape *shape, const struct tile *place, struct codec_piece *piece);

/* A part of a tile as a tile, to be observed. */
struct codec_tile codec_part(const struct codec_tile *tile, const struct tile *at);

/* Observe passes of a spanning tensor, one tile at a time, or what of it belongs to one group: its range; then its error sums for all candidates
 * under the whole group's range. */
bool codec_observe_range(const struct kernels *kernels, const struct codec_tile *tile, const struct codec_scratch *scratch, struct range *range,
                         struct codec_fault *fault);
void codec_observe_errors(const struct quant *quant, const struct kernels *kernels, const struct codec_tile *tile,
                          const struct codec_scratch *scratch, struct range range, double errors[CANDIDATES_MAX]);

/* All weights of a tile as f32, span by span: whole rows, as many as fit in 4096 weights, or 4096 weights of a longer row, in order. What observers
 * and learners make of a tensor depends on these spans. With importance a span is at most a row, and weight its importance; else it is NULL. False as
 * codec_observe_range. */
typedef void codec_span(void *context, const float *x, const float *weight, size_t n);
bool codec_observe_spans(const struct kernels *kernels, const struct codec_tile *tile, const struct codec_scratch *scratch, codec_span *span,
                         void *context, struct codec_fault *fault);

/* The fields of a plane that belong to a tile of weights; false for a plane of the whole tensor. */
bool codec_fields(const struct quant *quant, const struct shape *shape, const struct plane *plane, const struct tile *weights, struct tile *fields);

/* Decodes n weights of one row. planes are the row's streams (codes or blocks, scales, zeros or shifts), starting at the stream's first column (the
 * row's first, or that of a tile); the wanted weights begin first weights behind it. For groups of several rows the streams of scales and zeros are
 * those of quant_scale_row. tensor_scale is that of the row's matrix, 1 where there is none. */
void codec_decode_row(const struct quant *quant, const struct kernels *kernels, const uint8_t *const planes[CODEC_PLANES_MAX], float tensor_scale,
                      uint64_t first, size_t n, float *out);

/* Codes and scales of one layout to the other without rounding: n_rows x n_cols weights of a tile, source and planes its bytes in the two layouts.
 * False when a group has no place there (*fault: where). scratch->codes is used. */
bool codec_transcode(const struct quant *from, const uint8_t *const source[CODEC_PLANES_MAX], const struct quant *to, uint64_t n_rows,
                     uint64_t n_cols, const struct codec_scratch *scratch, uint8_t *const planes[CODEC_PLANES_MAX], struct codec_fault *fault);

#endif
