/* plane_hash.h: the digest of a tensor as it is stored: codes, scales, zeros, or plain bytes.
 *
 *   tile i: D_i = XXH3-128(its bytes of plane 0, of plane 1, ...; planes of the whole tensor count to tile 0)     hash = XXH3-128(D_0 D_1 ...)
 *
 * Why this way: it is what FORMAT.md 2.1 calls source_digest of a tensor that moves as it is, so it is nothing new: converting a .llmq file to another
 * one records it; and a sweep, which never has a whole plane in memory, can make it.
 * Corner cases: a plain tensor has one plane, its bytes, in the tiles of a kept tensor: the source_digest that convert records of it; a tensor without
 * weights has the digest of no bytes.
 * Reference: FORMAT.md 2.1, SWEEP.md.
 */
#ifndef LLMQ_CONVERTER_PLANE_HASH_H
#define LLMQ_CONVERTER_PLANE_HASH_H

#include "base/digest.h"
#include "container/container.h"

/* ERR_UNSUPPORTED for a quantised tensor that this program cannot decode. */
enum status plane_hash(struct container *container, size_t index, struct digest128 *hash, struct err *err);

#endif
