/* model.h: made-up models in memory, and how they are written through a struct writer_ops, for the tests of containers.
 *
 *   model_add_kept / model_add_quantised (random bytes) -> model_write(ops, path, workers) -> file(s)
 *
 * Why this way: the bytes of every plane are known, so a reader can be compared with them byte by byte; jobs, tickets and threads are those of a
 * real run.
 * Corner cases: unused bits at row ends are 0, as packers leave them; a job holds up to tiles_per_job tiles; threads yield at random.
 * Reference: container/writer.h. Worked number: 5 tiles, 2 a job: 3 tickets.
 */
#ifndef LLMQ_TESTS_MODEL_H
#define LLMQ_TESTS_MODEL_H

#include "base/digest.h"
#include "base/err.h"
#include "base/io.h"
#include "container/writer.h"
#include "layout/kept.h"

#define MODEL_TENSORS_MAX 512
#define MODEL_BLOBS_MAX 8

struct model_tensor {
    char name[64];
    uint64_t dims[8];
    char group[16];
    struct kept kept; /* kept tensors */
    uint8_t *plain; /* kept tensors: the source's bytes */
    size_t n_plain;
    uint8_t *planes[OUT_PLANES_MAX];
    size_t n_planes_bytes[OUT_PLANES_MAX];
};

struct model {
    struct model_tensor own[MODEL_TENSORS_MAX];
    struct out_tensor tensors[MODEL_TENSORS_MAX];
    struct digest128 digests[MODEL_TENSORS_MAX];
    size_t n_tensors;
    struct out_blob blobs[MODEL_BLOBS_MAX];
    uint8_t *blob_bytes[MODEL_BLOBS_MAX];
    size_t n_blobs;
    uint64_t seed;
    const struct io_calls *io; /* NULL: io_system */
};

struct model *model_make(uint64_t seed);
void model_free(struct model *model);

/* A kept tensor of random bytes; split: two planes where the dtype has them; mapped as out_plane.mapped. */
void model_add_kept(struct model *model, const char *name, const char *dtype, uint32_t rank, const uint64_t *dims, bool split, bool mapped);

/* A quantised tensor with random codes of format facts: bits of a code, group (0 channel, UINT64_MAX tensor), bf16 scales, zeros if asked.
 * compressible: few code values. */
void model_add_quantised(struct model *model, const char *name, uint32_t rank, const uint64_t *dims, uint32_t bits, uint64_t group, bool zeros,
                         bool mapped);

/* A tensor of random blocks of a ggml type; scales: with one float for each of its matrices. */
void model_add_blocks(struct model *model, const char *name, uint32_t rank, const uint64_t *dims, const struct ggml_type *type, bool scales);

/* A small file; compressible text when text, else random. */
void model_add_blob(struct model *model, const char *name, size_t nbytes, bool text);

/* Default options for a path. */
/* Every write fails once, with all that follow it: ERR_IO comes out, whatever other workers do, and neither first (the path of the first part) nor its
 * .partial stays behind. */
void model_check_failing_writes(const struct writer_ops *ops, struct model *model, const struct writer_options *options, const char *first);

struct writer_options model_options(const char *path, enum compress_mode compress);

/* Plans, opens, puts every tile from options->n_workers threads, finishes and commits. size may be NULL. */
enum status model_write(const struct writer_ops *ops, struct model *model, const struct writer_options *options, struct writer_size *size,
                        struct err *err);

#endif
