/* container.h: what an opened model input is, whatever file it came from: a list of tensors, small files that travel along, and a way to read.
 *
 *   container_open(path) --probe--> safetensors | model folder or index | llmq | GGUF  --> struct container --> container_read / container_read_f32
 *
 * Why this way: the converter knows tensors, not files. Each container is one file of code behind struct container_ops, and one row in
 * container.c's table.
 * Corner cases: tensors are listed in storage order (file by file, offset by offset), so that reading in list order is sequential; names are
 * unique, non-empty UTF-8 without control characters; products of dims are checked before a tensor is listed.
 * Reference: design.md 3 (four tables); libarchive's format readers.
 */
#ifndef LLMQ_CONTAINER_CONTAINER_H
#define LLMQ_CONTAINER_CONTAINER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/io.h"
#include "layout/codec.h"
#include "layout/dtype.h"

#define TENSOR_RANK_MAX 64
#define TENSOR_NAME_MAX 65536

/* One tensor of a container. All pointers belong to the container. */
struct tensor {
    const char *name; /* NUL-terminated, no NUL inside */
    const struct dtype *dtype; /* of the stored plain bytes; for a quantised tensor the dtype it had in its source */
    const uint64_t *dims; /* outermost first, as PyTorch has them */
    uint32_t rank; /* 0 is a scalar */
    uint32_t file; /* index of the file that holds it */
    uint64_t n_weights; /* product of dims, 1 for a scalar */
    uint64_t offset; /* of its bytes in that file (plain tensors) */
    uint64_t nbytes; /* of its plain bytes: what container_read can read */
    const char *format; /* name of the stored format of a quantised tensor; NULL for a plain one */
    uint64_t stored_nbytes; /* of what the file holds of it, scales included, before any compression */
    const void
        *quantised; /* NULL for a plain tensor; else the container's own description of it; then container_read_f32 reads it, not container_read */
    const struct quant *quant; /* how a quantised tensor is coded, when it can be decoded; else NULL */
};

/* The same for layouts: a stack of matrices for 3 dims and more, the outermost dims being the stack. */
struct shape tensor_shape(const struct tensor *tensor);

/* Rows and columns of a tensor as the quantisers see it: the last dim is the input axis, all others are rows. A scalar is 1 x 1. */
uint64_t tensor_cols(const struct tensor *tensor);
uint64_t tensor_rows(const struct tensor *tensor);

/* A small file of a model (config.json, tokenizer.json, ...), streamed, never parsed here. */
struct blob {
    char *name; /* plain file name */
    uint64_t nbytes;
};

struct container;
struct name_table;

struct container_ops {
    const char *name; /* "safetensors" */
    const char *description; /* one line for --help */
    /* True when the file or directory at path looks like this container; head holds the first n_head bytes of a file (n_head 0 for a directory). */
    bool (*probe)(const char *path, bool is_dir, const uint8_t *head, size_t n_head);
    enum status (*open)(const struct io_calls *io, const char *path, struct container **container, struct err *err);
    /* Plain stored bytes [offset, offset + nbytes) of tensor number index. */
    enum status (*read)(struct container *container, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *err);
    /* n_rows x n_cols decoded weights from (row, col) of a quantised tensor into out (row stride n_cols). NULL when the container has none. */
    enum status (*read_f32)(struct container *container, size_t index, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols, float *out,
                            struct err *err);
    /* Stored bytes [offset, offset + nbytes) of plane number plane of a tensor with quant != NULL (planes as codec_planes makes them). NULL when the
     * container has no such tensor. */
    enum status (*read_plane)(struct container *container, size_t index, uint32_t plane, uint64_t offset, size_t nbytes, void *buf, struct err *err);
    enum status (*read_blob)(struct container *container, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *err);
    /* ERR_DATA when any input file changed since it was opened. */
    enum status (*check_unchanged)(struct container *container, struct err *err);
    void (*close)(struct container *container); /* frees its own members, calls container_release, frees the struct */
};

/* The part every container shares; each implementation embeds it first in its own struct. */
struct container {
    const struct container_ops *ops;
    char *path; /* as opened */
    struct tensor *tensors;
    size_t n_tensors;
    struct blob *blobs;
    size_t n_blobs;
    struct file *files; /* every opened input; tensors[i].file indexes it; files without a tensor (an index, small files) stand last */
    size_t n_files;
    char *metadata_json; /* the file's own string metadata as one JSON object text, or NULL */
    char **notes; /* sentences for the user: "ignored stray file x.safetensors", "header begins with a blank" */
    size_t n_notes;
    struct name_table *names; /* tensor names, made by container_index_names; container_close frees it */
};

/* Opens the model at path: a file, an index file or a directory. Recognises by content what is not a model at all: empty file, git-LFS pointer,
 * HTML page, each with its own sentence. */
enum status container_open(const struct io_calls *io, const char *path, struct container **container, struct err *err);

/* NULL is allowed. */
void container_close(struct container *container);

/* Bytes [offset, offset + nbytes) of a plain tensor. Thread-safe. The sentence names tensor and file. */
enum status container_read(struct container *container, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *err);

/* n_rows x n_cols decoded weights from (row, col) of a quantised tensor into out, rows n_cols apart. ERR_USAGE for a plain tensor. Thread-safe. */
enum status container_read_f32(struct container *container, size_t index, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols, float *out,
                               struct err *err);

/* Stored bytes [offset, offset + nbytes) of one plane of a quantised tensor that can be decoded; planes are those of codec_planes. ERR_USAGE for
 * others. Thread-safe. */
enum status container_read_plane(struct container *container, size_t index, uint32_t plane, uint64_t offset, size_t nbytes, void *buf,
                                 struct err *err);

enum status container_read_blob(struct container *container, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *err);

/* ERR_DATA naming the file when an input changed since it was opened. */
enum status container_check_unchanged(struct container *container, struct err *err);

/* Index of the tensor called name, or SIZE_MAX. Constant time. */
size_t container_find(const struct container *container, const char *name);

/* All containers llmq reads, for --help. */
size_t container_ops_count(void);
const struct container_ops *container_ops_at(size_t index);

/* ---- for implementations -------------------------------------------------------------------------------------------------------- */

/* Appends a note (formatted); out of memory drops it silently, a note is never worth a failure. */
void container_note(struct container *container, const char *format, ...) LLMQ_PRINTF(2, 3);

/* Makes the table behind container_find; ERR_DATA names a tensor that is there twice, with its files. container_open calls it after ops->open; an
 * implementation that needs container_find while it opens calls it itself. A second call does nothing. */
enum status container_index_names(struct container *container, struct err *err);

/* file_check_unchanged of all files. */
enum status container_files_unchanged(struct container *container, struct err *err);

/* Frees the shared members, not the struct: path, tensors (not what their names and dims point to), blobs with their names, files, metadata_json,
 * notes. For the close of an implementation. */
void container_release(struct container *container);

#endif
