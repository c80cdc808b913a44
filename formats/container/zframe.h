/* zframe.h: one block of bytes as one zstd frame. The only user of libzstd.
 *
 *   28 B5 2F FD | descriptor | (window) | content size | blocks ...        every frame states its content size; no dictionary, no checksum of its own
 *
 * Why this way: a container chunk is decoded into exactly the bytes its index promises; what a frame says about itself is only ever compared, never
 * believed.
 * Corner cases: a frame that is skippable, not alone, has a dictionary, no size, another size, or a window over 16 MiB is refused before decoding;
 * output that would not be smaller than the input is reported as such and the caller stores the bytes raw.
 * Reference: RFC 8878 (zstd). Worked number: 262144 zero bytes at level 3 give a frame of 26 bytes (zstd 1.5.4).
 */
#ifndef LLMQ_CONTAINER_ZFRAME_H
#define LLMQ_CONTAINER_ZFRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define ZFRAME_WINDOW_MAX (16u << 20)

/* A compressor for one thread at a time. */
struct zframe_coder;

/* Fixed cost of a frame: dst of zframe_code must have n + zframe_slack(n) bytes. */
size_t zframe_slack(size_t nbytes);

/* Memory a coder of this level holds after a block of nbytes (measured on zeros with the library that is linked). 0 when out of memory. */
size_t zframe_coder_nbytes(int level, size_t nbytes);

/* NULL when out of memory. */
struct zframe_coder *zframe_coder_open(int level);
void zframe_coder_close(struct zframe_coder *coder); /* NULL allowed */

/* One frame of the nbytes (at least 1) at src into dst. *stored is its size, or nbytes when it would not be smaller; dst then holds nothing of use.
 * The same input gives the same bytes whatever the coder did before. */
enum status zframe_code(struct zframe_coder *coder, const void *src, size_t nbytes, void *dst, size_t *stored, struct err *err);

/* A decompressor for one thread at a time; NULL when out of memory. */
struct zframe_decoder;
struct zframe_decoder *zframe_decoder_open(void);
void zframe_decoder_close(struct zframe_decoder *decoder); /* NULL allowed */

/* Decodes the stored bytes at src, which must be one frame of exactly nbytes of content, into dst. ERR_DATA with the reason. */
enum status zframe_decode(struct zframe_decoder *decoder, const void *src, size_t stored, void *dst, size_t nbytes, struct err *err);

/* "1.5.4" */
const char *zframe_library(void);

#endif
