/* spanning.h: the scales of a tensor whose groups reach over tiles, found through codec.h as a converter does, one tile after another.
 *
 * Why this way: ranges first, then the errors of all candidates; the choice is made anew after every tile, so it stands once the last has passed.
 * Corner cases: see codec.h.
 * Reference: NUMERICS.md 5. Worked number: int4, channel, 2 rows of 300000: 4 tiles, 2 scales.
 */
#ifndef LLMQ_TESTS_SPANNING_H
#define LLMQ_TESTS_SPANNING_H

#include "layout/codec.h"
#include "number/kernel.h"

/* Tile number index of the tensor, without planes. */
typedef struct codec_tile spanning_tile(const void *tensor, uint64_t index);

/* planes: those of codec_planes. The caller frees the scales. */
struct group_scale *spanning_scales(const struct quant *quant, const struct shape *shape, const struct plane *planes, const struct kernels *kernels,
                                    const struct codec_scratch *scratch, spanning_tile *tile_at, const void *tensor);

#endif
