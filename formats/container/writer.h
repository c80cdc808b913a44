/* writer.h: how a planned list of tensors becomes files: the llmq container, GGUF, or plain safetensors; one ops struct each.
 *
 *   plan: out_tensor[] (names, shapes, planes)  --writer_open-->  sizes and offsets fixed  --writer_put (tiles, from several threads)-->  --writer_finish-->  files
 *
 * Why this way: the pipeline hands in tiles of planes in job order and knows no file format; a writer knows offsets, checksums and compression and
 * no number format.
 * Corner cases: tiles of raw planes are written where the plan put them, whenever they come; tiles of compressed planes are appended in job order
 * (struct turn), so the bytes do not depend on threads; nothing is visible under the final name before writer_finish has returned OK.
 * Reference: design.md 2; FORMAT.md.
 */
#ifndef LLMQ_CONTAINER_WRITER_H
#define LLMQ_CONTAINER_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/err.h"
#include "base/io.h"
#include "layout/plane.h"
#include "number/ggml.h"

#define OUT_PLANES_MAX 4

enum compress_mode { COMPRESS_NONE, COMPRESS_DEFAULT, COMPRESS_MAX };

/* Which planes of a quantised (plane 0: its codes) or kept tensor the llmq container maps: codes are near random and runtimes map them, so they
 * stay raw unless everything is to be squeezed; everything else goes through zstd unless nothing may. */
static inline bool compress_maps(enum compress_mode mode, bool quantised, uint32_t plane)
{
    return mode == COMPRESS_NONE || (quantised && plane == 0 && mode != COMPRESS_MAX);
}

/* One plane of a planned tensor. */
struct out_plane {
    struct plane plane;
    bool mapped; /* stored raw and contiguous, aligned; else chunk by chunk, compressed where that helps. COMPRESS_NONE maps every plane */
};

/* One planned tensor. Pointers stay valid until the writer is closed. */
struct out_tensor {
    const char *name;
    const uint64_t *dims;
    uint32_t rank;
    const char *dtype; /* of the source (llmq) or of the data plane (safetensors) */
    const char *role;
    uint64_t tile_rows, tile_cols; /* of the tensor, in weights */
    const char *format; /* NULL for a kept tensor */
    const struct ggml_type *block; /* GGUF: the type of a tensor of blocks; NULL for a kept tensor */
    const char *format_facts; /* JSON object text for the index member `formats`, NULL for a kept tensor */
    const char *group; /* JSON text: 32, "channel" (with the quotes), "tensor" or "128x128" */
    uint32_t sub_block; /* weights that share a shift; 0: there are no shifts */
    const char *scale_rule, *rounding, *scale; /* names; NULL for a kept tensor */
    const char *percentile; /* a number: parameter of the scale rule; NULL: it has none */
    struct out_plane planes[OUT_PLANES_MAX];
    uint32_t n_planes;
    uint32_t shard; /* filled by writer_plan */
};

/* A blob of the source: its bytes are pulled through read while the writer opens. */
struct out_blob {
    const char *name;
    uint64_t nbytes;
    enum status (*read)(void *context, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *err);
    void *context;
    size_t index;
};

struct writer_options {
    const char *path; /* output file; with more than one shard NAME-00001-of-0000N.llmq beside it */
    enum compress_mode compress;
    uint64_t split_nbytes; /* 0: one file */
    uint32_t align; /* 0: 4096 */
    const char *metadata_json; /* object of strings, or NULL */
    bool keep_keys; /* GGUF: general.file_type and general.quantization_version stay as they are */
    uint32_t file_type; /* GGUF: general.file_type; UINT32_MAX: that of the type most weights have */
    const char *imatrix_name; /* GGUF: quantize.imatrix.file; NULL: none, or the source's; at most 200 bytes */
    const char *writer_name; /* "llmq 0.1.0" */
    unsigned n_workers;
    uint32_t tiles_per_job; /* most tiles of a tensor that one writer_put brings */
};

/* What writer_plan finds out without touching a file. */
struct writer_size {
    uint64_t nbytes; /* of all output files: exact with COMPRESS_NONE, else an upper bound */
    bool exact;
    uint32_t n_files;
    uint64_t worker_nbytes; /* memory that each worker needs inside the writer */
    uint64_t index_nbytes; /* memory for the index */
};

/* One tile of one plane, as packed by the layout. */
struct part {
    uint32_t plane;
    uint64_t tile;
    const uint8_t *bytes;
    size_t nbytes; /* = plane_tile_nbytes */
};

struct writer;

struct writer_ops {
    const char *name; /* "llmq" */
    const char *extension; /* ".llmq" */
    bool quantised; /* can hold quantised tensors */
    bool blocks; /* holds them as blocks of ggml types, and plain tensors as they are */
    bool digests; /* wants digests of the source */
    const char *blob; /* name of the one small file it makes use of; NULL: it stores all */
    enum status (*plan)(struct out_tensor *tensors, size_t n_tensors, const struct out_blob *blobs, size_t n_blobs,
                        const struct writer_options *options, struct writer_size *size, struct err *err);
    enum status (*open)(struct outset *set, struct out_tensor *tensors, size_t n_tensors, const struct out_blob *blobs, size_t n_blobs,
                        const struct writer_options *options, struct writer **writer, struct err *err);
    /* Parts of one job, all of one tensor, tiles ascending (for each tile its planes in order). Blocks until tickets 0 .. ticket-1 have been put;
     * every ticket must be put exactly once, in any thread, with n_parts 0 where a job has nothing to write. worker < n_workers names the caller's
     * own scratch memory. in_order (may be NULL) is called once, while it is this ticket's turn, so that the caller can fold its own results in job
     * order. After an error everything is as after abort. */
    enum status (*put)(struct writer *writer, unsigned worker, uint64_t ticket, size_t tensor, const struct part *parts, size_t n_parts,
                       void (*in_order)(void *context), void *context, struct err *err);
    /* Wakes everybody who waits in put; they return ERR_CANCELLED. */
    void (*abort)(struct writer *writer);
    /* After the last put: source_digests has one entry a tensor. Writes index and trailer; the caller then commits the outset. */
    enum status (*finish)(struct writer *writer, const struct digest128 *source_digests, struct err *err);
    void (*close)(struct writer *writer); /* NULL allowed */
};

extern const struct writer_ops llmq_writer_ops; /* llmq_write.c */
extern const struct writer_ops safetensors_writer_ops; /* safetensors_write.c */
extern const struct writer_ops gguf_writer_ops; /* gguf_write.c */

/* The writer of files with this path's ending; NULL when it has none of them. */
const struct writer_ops *writer_of_path(const char *path);

#endif
