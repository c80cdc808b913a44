/* llmq_read.h: an opened .llmq model, one file or all shards of a set: the container's row, and what only this container has (tiles, checksums).
 *
 *   container_open -> llmq_entry_of(c, i) -> llmq_read_tile(c, i, plane, tile) -> bytes, checked and decompressed
 *
 * Why this way: tensors are read through container.h like those of any other file; verify and inspect also need planes and tiles as stored.
 * Corner cases: no byte is handed out whose chunk's checksum is wrong; every sentence about damage names tensor, plane and tile.
 * Reference: FORMAT.md. Worked number: a kept BF16 tensor of 3 weights in planes "exponent" and "rest": two tiles of 3 bytes, container_read gives 6.
 */
#ifndef LLMQ_CONTAINER_LLMQ_READ_H
#define LLMQ_CONTAINER_LLMQ_READ_H

#include "container/container.h"
#include "container/llmq_index.h"

extern const struct container_ops llmq_container_ops;

/* True when the container was opened by llmq_container_ops; only then call what follows. All of it is thread-safe. */
bool llmq_is(const struct container *container);

/* Description of tensor number index, also of kept ones. Lives as long as the container. */
const struct llmq_entry *llmq_entry_of(const struct container *container, size_t index);

/* Header and trailer of file number index (container->files[index]). */
const struct llmq_shard *llmq_shard_of(const struct container *container, size_t index);

/* The program that wrote the file, or "". */
const char *llmq_writer_of(const struct container *container);

/* One tile of one plane into buf, which has plane_tile_nbytes bytes. ERR_MISMATCH when its checksum is wrong. */
enum status llmq_read_tile(struct container *container, size_t index, uint32_t plane, uint64_t tile, void *buf, struct err *err);

/* As llmq_read_tile with a buffer of its own: is this chunk sound? */
enum status llmq_check_chunk(struct container *container, size_t index, uint32_t plane, uint64_t tile, struct err *err);

/* ERR_DATA when a byte of file number index between header and index belongs to no chunk and is not zero. */
enum status llmq_check_padding(struct container *container, size_t index, struct err *err);

#endif
