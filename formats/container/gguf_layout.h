/* gguf_layout.h: where everything of a GGUF output stands, before a byte of it is written: parts, keys, tensor infos, offsets.
 *
 *   out_tensor[] + the blob of keys --gguf_lay_out--> parts [keys | infos | padding | data], info[] (name, type, dims, offset)
 *
 * Why this way: all sizes follow from shapes, so the header comes first and tiles go to their place in any order.
 * Corner cases: a tensor whose matrices have scales is two infos, NAME.weight and NAME.scale; keys are copied byte for byte but for
 * general.file_type and general.quantization_version, which are changed where they stand or added at the end, and split.*, which say how this
 * output is split.
 * Reference: gguf_header.h; llama.cpp's gguf-split for the names and keys of parts. Worked number: alignment 32, Q4_0 [3, 64] of 108 bytes: the
 * next tensor's offset is 128.
 */
#ifndef LLMQ_CONTAINER_GGUF_LAYOUT_H
#define LLMQ_CONTAINER_GGUF_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "container/gguf_header.h"
#include "container/writer.h"

/* A tensor of the file. */
struct gguf_info {
    char *name; /* owned */
    const uint64_t *dims; /* outermost first */
    uint32_t rank, type; /* type: as files number them */
    uint32_t part;
    uint32_t plane; /* of the planned tensor */
    size_t tensor; /* number of the planned tensor */
    uint64_t nbytes, offset; /* offset: in its part's data */
};

struct gguf_part {
    size_t first_info, n_infos;
    uint64_t n_keys, kv_nbytes, infos_nbytes, data_nbytes; /* data with the padding of every tensor */
};

struct gguf_layout {
    const struct out_blob *blob; /* the keys */
    struct gguf_header header; /* parsed from it */
    struct gguf_info *infos;
    size_t n_infos;
    size_t *info_of; /* of each planned tensor: its first info */
    uint64_t *matrices; /* of each planned tensor: the one dim of its scales */
    size_t n_tensors;
    struct gguf_part *parts;
    size_t n_parts;
    uint32_t alignment, file_type;
    bool keeps_keys;
    const char *imatrix_name; /* not owned; NULL: no such key of ours */
};

/* ERR_USAGE without a blob of keys; ERR_UNSUPPORTED naming a tensor that GGUF cannot hold. *layout is empty on failure. */
enum status gguf_lay_out(const struct out_tensor *tensors, size_t n_tensors, const struct out_blob *blobs, size_t n_blobs,
                         const struct writer_options *options, struct gguf_layout *layout, struct err *err);
void gguf_layout_free(struct gguf_layout *layout);

/* Of part number part: the file's offset of its data, and its size. */
uint64_t gguf_data_offset(const struct gguf_layout *layout, size_t part);
uint64_t gguf_part_nbytes(const struct gguf_layout *layout, size_t part);

/* A key of ours in place of, or beside, those of the source. */
struct gguf_own_key {
    const char *name;
    uint32_t type; /* GGUF_U32, GGUF_U16, GGUF_I32, GGUF_STRING */
    uint32_t value;
    const char *text; /* of a string */
};

#define GGUF_OWN_KEYS_MAX 6

/* Keys of ours in this part: those that replace (part 0 only) and those that say how it is split. Returns how many. */
size_t gguf_own_keys(const struct gguf_layout *layout, size_t part, struct gguf_own_key keys[GGUF_OWN_KEYS_MAX]);

/* True for a key of the source that is copied into this part. */
bool gguf_copies_key(const struct gguf_key *key, size_t part);

/* Bytes of a key of ours. */
uint64_t gguf_own_key_nbytes(const struct gguf_own_key *key);

#endif
