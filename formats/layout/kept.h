/* kept.h: how a tensor that is kept as it is becomes planes: its bytes as they are, or cut in two byte planes that compress better.
 *
 *   data:          | element 0 | element 1 | ...                 one plane, the source's bytes
 *   BF16, split:   s eeeeeeee mmmmmmm  ->  exponent = eeeeeeee   rest = s mmmmmmm
 *   F16, split:    hhhhhhhh llllllll   ->  high     = hhhhhhhh   low  = llllllll
 *
 * Why this way: exponents of trained weights take a handful of values (a third of the bytes under zstd), mantissas are noise; apart they compress,
 * together they do not.
 * Corner cases: an element of fewer than 8 bits has no address, so such a tensor is one row of bytes; a tensor without weights has planes of 0
 * bytes and no tiles.
 * Reference: FORMAT.md 3.1; ZipNN. Worked number: BF16 0xBF80 (-1): exponent 0x7F, rest 0x80.
 */
#ifndef LLMQ_LAYOUT_KEPT_H
#define LLMQ_LAYOUT_KEPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout/dtype.h"
#include "layout/plane.h"

#define KEPT_PLANES_MAX 2

enum kept_kind { KEPT_DATA, KEPT_BF16, KEPT_F16 };

struct kept {
    enum kept_kind kind;
    uint64_t rows, cols; /* as the container sees the tensor: 1 x bytes for elements of fewer than 8 bits */
    uint64_t tile_rows, tile_cols; /* of the tensor and of all its planes */
    uint32_t item_nbytes; /* of one element, 1 .. 8 */
    struct plane planes[KEPT_PLANES_MAX]; /* names are static */
    uint32_t n_planes;
};

/* Planes of a rows x cols tensor of dtype; split asks for two byte planes where the dtype has them (BF16, F16). rows * cols elements are whole
 * bytes and at most 2^63 bytes. */
void kept_planes(const struct dtype *dtype, uint64_t rows, uint64_t cols, bool split, struct kept *kept);

/* The n_items elements at src into the planes' bytes: planes[0] alone for KEPT_DATA (a copy), planes[0] and planes[1] of n_items bytes each
 * otherwise. No overlap. */
void kept_split(enum kept_kind kind, uint32_t item_nbytes, const uint8_t *src, size_t n_items, uint8_t *const planes[KEPT_PLANES_MAX]);

/* The reverse: n_items elements from the planes' bytes into dst. */
void kept_join(enum kept_kind kind, uint32_t item_nbytes, const uint8_t *const planes[KEPT_PLANES_MAX], size_t n_items, uint8_t *dst);

#endif
