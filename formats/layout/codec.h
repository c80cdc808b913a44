/* codec.h: quantised tensors as planes: which planes there are, and how f32 tiles become packed plane bytes and back.
 *
 *   f32 tile --number: groups--> codes, scales, zeros (one integer each) --pack LSB first--> bytes of planes "codes", "scales", "zeros"
 *
 * Why this way: number/ knows no bytes and container/ knows no numbers; this is the seam. A fused kernel (BF16 straight to MXFP4 planes) is chosen
 * here and must give the same bytes.
 * Corner cases: tails of rows, tiles of long rows (their streams begin at the tile's first column), groups over several tiles (their scales are
 * given).
 * Reference: FORMAT.md 3.
 */
#ifndef LLMQ_LAYOUT_CODEC_H
#define LLMQ_LAYOUT_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout/dtype.h"
#include "layout/plane.h"
#include "number/format.h"

#define CODEC_PLANES_MAX 3

/* Planes of a rows x cols tensor: 0 codes, 1 scales, 2 zeros (if any); returns how many. Names are static. */
uint32_t codec_planes(const struct quant *quant, uint64_t rows, uint64_t cols, struct plane planes[CODEC_PLANES_MAX]);

/* True when one group reaches over several tiles, so that its scale must be observed in earlier passes. */
bool codec_spans(const struct quant *quant, uint64_t rows, uint64_t cols);

/* What is done with NaN and Inf in a weight (NUMERICS.md 6). */
enum nonfinite { NONFINITE_ERROR, NONFINITE_ZERO, NONFINITE_CLAMP };

/* Memory of one worker. The caller brings it: n_weights elements each. */
struct codec_scratch {
    float *x, *y;
    uint16_t *codes;
    size_t n_weights;
};

/* Weights that codec_scratch needs for this tensor: a group must fit whole, unless it spans tiles. */
size_t codec_scratch_weights(const struct quant *quant, uint64_t rows, uint64_t cols);

/* Where something went wrong, within the tile. */
struct codec_fault {
    enum { CODEC_FINE, CODEC_NONFINITE, CODEC_SCALE_OVERFLOW } kind;
    uint64_t row, col; /* of the first one, relative to the tile; for an overflow the group's first weight */
};

/* One tile to encode. */
struct codec_tile {
    const uint8_t *source; /* n_rows x n_cols stored elements, one row behind the other */
    const struct dtype *dtype;
    uint64_t n_rows, n_cols;
    enum nonfinite nonfinite;
    const struct group_scale *given; /* the scale of the one group a tile of a spanning tensor belongs to; NULL otherwise */
    uint8_t *planes[CODEC_PLANES_MAX]; /* outputs: tile bytes of codes, scales, zeros; scales and zeros are not written when given */
    struct measure *measure; /* errors are added here; NULL: not measured */
};

/* Encodes the tile; false with *fault set when a weight is not finite (under NONFINITE_ERROR) or a scale overflows. */
bool codec_encode(const struct quant *quant, const struct kernels *kernels, const struct codec_tile *tile, const struct codec_scratch *scratch,
                  struct codec_fault *fault);

/* Observe passes of a spanning tensor, one tile at a time: its range; then its error sums for all candidates under the whole group's range. */
bool codec_observe_range(const struct kernels *kernels, const struct codec_tile *tile, const struct codec_scratch *scratch, struct range *range,
                         struct codec_fault *fault);
void codec_observe_errors(const struct quant *quant, const struct kernels *kernels, const struct codec_tile *tile,
                          const struct codec_scratch *scratch, struct range range, double errors[CANDIDATES_MAX]);

/* Writes the stored fields of n scales (or zero points) one behind the other: tile bytes of a spanning tensor's scales plane. */
void codec_store_scales(const struct quant *quant, const struct group_scale *scales, size_t n, uint8_t *out);
void codec_store_zeros(const struct quant *quant, const struct group_scale *scales, size_t n, uint8_t *out);

/* Decodes n weights of one row. codes is the row's bit stream, starting at the stream's first column (the row's first, or that of a tile); the
 * wanted weights begin first weights behind it. scales and zeros are the streams of that row beginning with the group of the stream's first column.
 * For "tensor" pass the single scale. */
void codec_decode_row(const struct quant *quant, const struct kernels *kernels, const uint8_t *codes, const uint8_t *scales, const uint8_t *zeros,
                      uint64_t first, size_t n, float *out);

#endif
