/* api_matrix.h: a matrix of stored weights on its way into planes, tile by tile: what llmq_quantise_rows and a writer do with the same bytes.
 *
 *   matrix_make -> (spans: matrix_observe over all tiles -> given scales) -> matrix_encode, tile after tile -> matrix_store_given
 *
 * Why this way: the order of these steps decides bytes (NUMERICS.md 5), so it stands once for both users.
 * Corner cases: a group over several tiles ("tensor", or "channel" with very long rows) needs all weights before the first code; a fault is told as
 * row and column of the matrix.
 * Reference: layout/codec.h. Worked number: 300000 F32 weights in one row, group channel: two tiles of 262144 and 37856 weights, one scale.
 */
#ifndef LLMQ_API_MATRIX_H
#define LLMQ_API_MATRIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "layout/codec.h"
#include "layout/dtype.h"
#include "number/format.h"

struct matrix {
    const struct quant *quant;
    const struct kernels *kernels;
    const struct dtype *dtype;
    struct plane source; /* stored elements of dtype, tiles as those of the codes */
    struct plane planes[CODEC_PLANES_MAX]; /* codes, scales, zeros */
    uint32_t n_planes;
    bool spans; /* a group reaches over several tiles */
};

/* Geometry of n_rows x cols weights, neither 0 (or both planes and source have no tiles). ERR_UNSUPPORTED when a size overflows. quant stays with
 * the caller. */
enum status matrix_make(const struct quant *quant, const struct kernels *kernels, const struct dtype *dtype, uint64_t n_rows, uint64_t cols,
                        struct matrix *matrix, struct err *err);

/* Working memory for the matrix; freed by matrix_scratch_close also after a failure. */
enum status matrix_scratch_open(const struct matrix *matrix, struct codec_scratch *scratch, struct err *err);
void matrix_scratch_close(struct codec_scratch *scratch);

/* The scales of a spanning matrix from all its stored bytes; the caller frees *given, one a row, one in all for group "tensor". */
enum status matrix_observe(const struct matrix *matrix, const uint8_t *bytes, const struct codec_scratch *scratch, struct group_scale **given,
                           struct err *err);

/* Encodes tile number tile, whose stored bytes are at bytes, to planes: the tile's own bytes of each plane. With given (else NULL) only the codes
 * are written. */
enum status matrix_encode(const struct matrix *matrix, uint64_t tile, const uint8_t *bytes, const struct group_scale *given,
                          const struct codec_scratch *scratch, uint8_t *const planes[CODEC_PLANES_MAX], struct err *err);

/* The whole planes of scales and zeros of a spanning matrix. */
void matrix_store_given(const struct matrix *matrix, const struct group_scale *given, uint8_t *const planes[CODEC_PLANES_MAX]);

#endif
