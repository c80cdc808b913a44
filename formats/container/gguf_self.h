/* gguf_self.h: an open GGUF model from inside: what gguf.c, gguf_data.c and gguf_blob.c share.
 *
 *   gguf.c  opens files and sets of parts        gguf_data.c  weights and planes        gguf_blob.c  the keys as one small file
 *
 * Why this way: one noun a file; nobody else includes this.
 * Corner cases: scales is NULL when no tensor has a scale of its matrices; spans are the keys without split.*, in file order.
 * Reference: gguf.h.
 */
#ifndef LLMQ_CONTAINER_GGUF_SELF_H
#define LLMQ_CONTAINER_GGUF_SELF_H

#include "container/gguf.h"

#define GGUF_QUANTS_MAX 32

/* Where the scales of a tensor's matrices stand; nbytes 0: it has none. */
struct gguf_scale {
    uint64_t offset, nbytes;
    uint32_t file;
};

/* Bytes of the first file. */
struct gguf_span {
    uint64_t offset, nbytes;
};

struct gguf {
    struct container base;
    struct gguf_header *headers; /* one a file */
    const struct gguf_entry **entries; /* one a tensor */
    struct gguf_scale *scales; /* one a tensor, or NULL */
    struct quant quants[GGUF_QUANTS_MAX]; /* how the blocks of each ggml type are coded */
    struct quant two_level; /* NVFP4 with scales of matrices */
    struct gguf_span *spans; /* keys that travel */
    size_t n_spans;
    uint64_t n_kept_keys;
};

static inline const struct gguf *gguf_self(const struct container *container)
{
    return (const struct gguf *)(const void *)container;
}

/* Sets format and quant of every tensor of blocks, and takes the scales of NVFP4 tensors out of the list. */
enum status gguf_find_quants(struct gguf *self, struct err *err);

/* Makes the blob of keys, the container's only one. */
enum status gguf_make_blob(struct gguf *self, struct err *err);

/* The container's functions. */
enum status gguf_read_plain(struct container *container, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *err);
enum status gguf_read_f32(struct container *container, size_t index, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols, float *out,
                          struct err *err);
enum status gguf_read_plane(struct container *container, size_t index, uint32_t plane, uint64_t offset, size_t nbytes, void *buf, struct err *err);
enum status gguf_read_blob(struct container *container, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *err);

#endif
