/* api_matrix.h: a matrix of stored weights on its way into planes, tile by tile: what llmq_quantise_rows and a writer do with the same bytes.
 *
 *   matrix_make -> (observed: matrix_observe over all tiles) -> matrix_encode, tile after tile -> matrix_store_whole
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
    struct shape shape;
    bool spans; /* a group reaches over several tiles */
    bool observed; /* all weights must be seen before the first code: it spans, or its matrices have scales */
};

/* What was observed. */
struct matrix_scales {
    struct group_scale *given; /* spanning matrix: scales, one a row, one in all for group "tensor"; else NULL */
    float *tensor_scales; /* one a matrix, or NULL */
};

/* Geometry of weights of this shape, neither rows nor cols 0 (or both planes and source have no tiles). ERR_UNSUPPORTED when a size overflows,
 * ERR_USAGE when rows are no whole blocks of the format. quant stays with the caller. */
enum status matrix_make(const struct quant *quant, const struct kernels *kernels, const struct dtype *dtype, const struct shape *shape,
                        struct matrix *matrix, struct err *err);

/* Working memory for the matrix; freed by matrix_scratch_close also after a failure. */
enum status matrix_scratch_open(const struct matrix *matrix, struct codec_scratch *scratch, struct err *err);
void matrix_scratch_close(struct codec_scratch *scratch);

/* The scales that all stored bytes together decide; the caller calls matrix_scales_free, also after a failure. */
enum status matrix_observe(const struct matrix *matrix, const uint8_t *bytes, const struct codec_scratch *scratch, struct matrix_scales *observed,
                           struct err *err);
void matrix_scales_free(struct matrix_scales *observed);

/* Encodes tile number tile, whose stored bytes are at bytes, to planes: the tile's own bytes of each plane that is not the matrix's as a whole. */
enum status matrix_encode(const struct matrix *matrix, uint64_t tile, const uint8_t *bytes, const struct matrix_scales *observed,
                          const struct codec_scratch *scratch, uint8_t *const planes[CODEC_PLANES_MAX], struct err *err);

/* All steps for all tiles: bytes has all stored weights, whole the bytes of all planes. tensor_scale is the scale of the matrix where the caller has
 * one, NULL to find it; it counts for formats with that level only. */
enum status matrix_encode_all(const struct matrix *matrix, const uint8_t *bytes, const float *tensor_scale, const struct codec_scratch *scratch,
                              uint8_t *const whole[CODEC_PLANES_MAX], struct err *err);

/* True for a plane that matrix_store_whole writes, once. */
bool matrix_is_whole(const struct matrix *matrix, uint32_t plane);
void matrix_store_whole(const struct matrix *matrix, const struct matrix_scales *observed, uint8_t *const planes[CODEC_PLANES_MAX]);

#endif
