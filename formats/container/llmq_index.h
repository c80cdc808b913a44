/* llmq_index.h: what the index of a .llmq file says, checked against the chunk table and the file's size: tensors, planes, formats, blobs. No file
 * is touched here.
 *
 *   index text + chunk table + sizes --llmq_index_add, shard after shard--> struct tensor[], struct llmq_entry, blobs, metadata
 *
 * Why this way: everything a hostile file can say is judged in one place that a test or a fuzzer calls with bytes from memory; what comes out can
 * be read without further questions: every chunk lies in the file, belongs to one plane or blob, and has the size its plane demands.
 * Corner cases: a format of an unknown name with a known family decodes by its facts; of an unknown family it is listed, not decodable; unknown
 * members are ignored.
 * Reference: FORMAT.md 2 to 5. Worked number: group 32, tile [1524, 172]: scales tile [1524, 6].
 */
#ifndef LLMQ_CONTAINER_LLMQ_INDEX_H
#define LLMQ_CONTAINER_LLMQ_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "container/container.h"
#include "container/llmq_file.h"
#include "layout/kept.h"
#include "layout/plane.h"
#include "number/format.h"

#define LLMQ_PLANES_MAX 8u /* of one tensor */

/* One file of the set: what its header and trailer say, and its chunk table. */
struct llmq_shard {
    struct llmq_header header;
    struct llmq_trailer trailer;
    const uint8_t *table; /* trailer.n_chunks * 24 bytes, owned by whoever made the shard */
};

/* A plane as stored. */
struct llmq_plane {
    struct plane plane;
    uint64_t first; /* chunk of tile 0 */
    uint64_t offset; /* of the plane in its file when it is raw and contiguous, else 0 */
};

/* A tensor as stored; struct tensor of the same number has name, dims and source dtype. */
struct llmq_entry {
    const char *role;
    uint64_t rows, cols; /* of the planes with one field a weight; 1 x bytes for a kept tensor of elements below 8 bits */
    uint64_t tile_rows, tile_cols;
    struct digest128 source_digest;
    uint32_t shard;
    uint32_t n_planes;
    const struct llmq_plane *planes;
    /* kept tensors */
    enum kept_kind kept;
    uint32_t item_nbytes;
    /* quantised tensors: names as stored */
    const char *format; /* NULL: a kept tensor */
    const char *family;
    const char *scale, *scale_rule, *rounding, *percentile; /* "" when absent */
    bool decodable;
    struct quant quant; /* when decodable; format and element are the file's own facts. rule and rounding are RULE_COUNT, ROUND_COUNT when unknown */
};

struct llmq_blob {
    uint64_t tile; /* bytes a piece */
    uint64_t first; /* chunk of piece 0, in shard 0 */
};

struct llmq_block;

/* The model so far. Zeroed at the start; memory grows with the tensors, about 400 bytes each. */
struct llmq_index {
    struct tensor *tensors; /* malloc; a container may take it over */
    size_t n_tensors, tensors_capacity;
    const struct llmq_entry **entries; /* one a tensor */
    struct blob *blobs; /* malloc, with malloc names; a container may take them over */
    struct llmq_blob *blob_places;
    size_t n_blobs;
    char *metadata; /* malloc; NULL when there is none */
    char *writer; /* malloc */
    struct llmq_block *blocks; /* everything else */
};

/* Adds the shard with number = shard->header.shard_index, which must be the next one. text is the decoded index. On failure the index is only good
 * for llmq_index_free. Not thread-safe (the JSON library is not). */
enum status llmq_index_add(struct llmq_index *index, const struct llmq_shard *shard, const char *text, size_t nbytes, struct err *err);

void llmq_index_free(struct llmq_index *index);

/* A stretch of a file that holds one or more chunks without a gap. */
struct llmq_span {
    uint64_t offset, nbytes;
};

/* The spans of all chunks of the shard, ascending; ERR_DATA when two chunks overlap. The caller frees *spans. */
enum status llmq_spans(const struct llmq_shard *shard, struct llmq_span **spans, size_t *n_spans, struct err *err);

#endif
