/* safetensors.h: one safetensors file: opened, its header read, its bytes handed out.
 *
 *   file_open -> foreign_check -> N -> N bytes of JSON -> safetensors_header_parse -> offsets from the start of the file
 *
 * Why this way: a model folder opens its shards with the same function that opens a single file.
 * Corner cases: see safetensors.c.
 * Reference: safetensors_header.h.
 */
#ifndef LLMQ_CONTAINER_SAFETENSORS_H
#define LLMQ_CONTAINER_SAFETENSORS_H

#include "container/container.h"
#include "container/safetensors_header.h"

extern const struct container_ops safetensors_container_ops;

/* Opens path and parses its header; the offsets of header->tensors then count from the start of the file. The sentence names the file. On failure
 * *file is closed and *header empty; else the caller closes both. Memory while it runs: the header's text besides the table. */
enum status safetensors_open_file(const struct io_calls *io, const char *path, struct file *file, struct safetensors_header *header, struct err *err);

/* container_ops.read for tensors that lie plainly in container->files. */
enum status safetensors_read(struct container *container, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *err);

#endif
