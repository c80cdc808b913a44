/* gguf.h: GGUF files as a container: one file, or the parts of a split model; and their keys.
 *
 *   model.gguf                                  one file
 *   NAME-00001-of-00003.gguf                    any part opens all three; the keys are those of the first
 *
 * Why this way: the keys stay in the file and are read when asked for; a writer copies their bytes by the ranges in struct gguf_key.
 * Corner cases: see gguf.c.
 * Reference: gguf_header.h; llama.cpp's gguf-split (split.no, split.count, split.tensors.count).
 */
#ifndef LLMQ_CONTAINER_GGUF_H
#define LLMQ_CONTAINER_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "container/container.h"
#include "container/gguf_header.h"

/* The blob with the model's keys: a GGUF file without tensors. */
#define GGUF_BLOB_NAME "metadata.gguf"

extern const struct container_ops gguf_container_ops;

/* True for a container that this file has opened; only such ones go into the functions below. */
bool gguf_is(const struct container *container);

/* ERR_DATA when a byte between or behind the tensors' data is not zero. */
enum status gguf_check_padding(const struct container *container, struct err *err);

/* What tensor number index is stored as, plain ones too. Lives as long as the container. */
const struct gguf_entry *gguf_entry_of(const struct container *container, size_t index);

/* Header of part number part, below container->n_files; its tables of tensors have moved to the container. Part 0 has the model's keys. */
const struct gguf_header *gguf_header_of(const struct container *container, size_t part);

/* The value of an integer key of the first part as u32, whatever its width; of an array of integers the first one. *out is left alone and *found false
 * without the key; ERR_DATA when its type is no integer or its value no u32. */
enum status gguf_get_u32(const struct container *container, const char *name, uint32_t *out, bool *found, struct err *err);

/* The value of a string key of the first part, read from the file: a new NUL-terminated buffer that the caller frees, *nbytes without the NUL (the
 * value may hold others). NULL without the key. ERR_DATA when it is no string, ERR_UNSUPPORTED over max_nbytes. */
enum status gguf_get_string(const struct container *container, const char *name, uint64_t max_nbytes, char **out, size_t *nbytes, struct err *err);

/* Bytes [offset, offset + nbytes) of the keys of the first part, which are kv_nbytes long: for copying them. */
enum status gguf_read_kv(const struct container *container, uint64_t offset, size_t nbytes, void *buf, struct err *err);

#endif
