/* llmq_layout.h: where everything of a planned .llmq model goes, before a byte is written: shards, offsets of mapped planes, numbers of chunks, the
 * length of the index.
 *
 *   file size = mapped end + chunk bytes + index + 24 * chunks + 96;    mapped end: 64, then for each plane align(end, nbytes >= align ? align : 64) + nbytes
 *
 * Why this way: plan and writer share it, so what was announced is what is written; its length of the index comes from the same functions that
 * write the index.
 * Corner cases: planes of 0 bytes have no offset and no chunks; a tensor larger than the split size gets its own shard.
 * Reference: FORMAT.md 1 to 3. Worked number: two mapped planes of 5000 and 100 bytes, align 4096: offsets 4096 and 9152, mapped end 9252.
 */
#ifndef LLMQ_CONTAINER_LLMQ_LAYOUT_H
#define LLMQ_CONTAINER_LLMQ_LAYOUT_H

#include "base/text.h"
#include "container/llmq_file.h"
#include "container/writer.h"

/* zstd level of everything. Higher ones gain nothing on codes and scales (int4 codes: 0.876 at level 3, 0.877 at 19) and need five times the
 * memory. */
#define LLMQ_ZSTD_LEVEL 3

/* Where the planes of a tensor go. */
struct llmq_laid {
    uint64_t first[OUT_PLANES_MAX]; /* chunk number of tile 0 in the shard's table */
    uint64_t offset[OUT_PLANES_MAX]; /* 0: not mapped */
};

/* One planned output file. */
struct llmq_out_shard {
    size_t first_tensor, n_tensors;
    uint64_t mapped_end; /* first byte behind the mapped region */
    uint64_t chunk_nbytes; /* of the chunk region, at most */
    uint64_t n_chunks;
    uint64_t text_nbytes; /* of the index text, exact */
    size_t *formats; /* for every format that occurs, the first tensor with it */
    size_t n_formats;
};

/* The whole plan of the files. */
struct llmq_layout {
    const struct writer_options *options;
    uint32_t align;
    struct out_tensor *tensors;
    size_t n_tensors;
    const struct out_blob *blobs;
    size_t n_blobs;
    struct llmq_laid *laid;
    struct llmq_out_shard *shards;
    size_t n_shards;
    struct text scratch;
};

/* Fills *layout, and shard in every tensor; on failure it is freed. The arrays stay the caller's and must outlive it. */
enum status llmq_layout_make(struct out_tensor *tensors, size_t n_tensors, const struct out_blob *blobs, size_t n_blobs,
                             const struct writer_options *options, struct llmq_layout *layout, struct err *err);
void llmq_layout_free(struct llmq_layout *layout);

/* True when the plane is stored raw and contiguous at the offset the layout gave it. */
bool llmq_layout_maps(const struct llmq_layout *layout, const struct out_plane *plane);

/* Bytes of a worker's output buffer, 0 when nothing is ever appended; *largest: of the largest chunk. */
size_t llmq_layout_buffer(const struct llmq_layout *layout, size_t *largest);

/* Sizes and memory of a run. */
enum status llmq_layout_measure(const struct llmq_layout *layout, struct writer_size *size, struct err *err);

#endif
