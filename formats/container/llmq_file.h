/* llmq_file.h: the fixed-size records of a .llmq file: header, trailer and chunk table entry, as structs and as bytes.
 *
 *   header 64 | ... | index | table: n_chunks * 24 | trailer 96            all integers little-endian
 *
 * Why this way: writer and reader share one place where the byte offsets of FORMAT.md 1 stand; everything here is pure, no file is touched.
 * Corner cases: load functions check magic numbers, versions, reserved fields and both checksums, and give each fault its own sentence; sizes
 * against the file are checked in llmq_trailer_load, so that what it returns can be allocated and read without further questions.
 * Reference: FORMAT.md 1. Worked number: a file of 64 + 0 + 2 ("{}" is no valid index, but has a size) + 0 * 24 + 96 = 162 bytes is the smallest
 * that passes here.
 */
#ifndef LLMQ_CONTAINER_LLMQ_FILE_H
#define LLMQ_CONTAINER_LLMQ_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/err.h"

#define LLMQ_HEADER_NBYTES 64u
#define LLMQ_TRAILER_NBYTES 96u
#define LLMQ_CHUNK_NBYTES 24u
#define LLMQ_ALIGN_SMALL 64u /* of raw planes smaller than the header's align */
#define LLMQ_ALIGN_MAX (2u << 20)
#define LLMQ_ALIGN_DEFAULT 4096u
#define LLMQ_INDEX_MAX (UINT64_C(1) << 30) /* bytes of index text */
#define LLMQ_INDEX_RATIO_MAX 4096u
#define LLMQ_CHUNKS_MAX (UINT64_C(1) << 24)
#define LLMQ_SHARDS_MAX 99999u
#define LLMQ_BLOB_TILE 262144u
#define LLMQ_REQUIRED_ZSTD UINT64_C(1)
#define LLMQ_REQUIRED_KNOWN LLMQ_REQUIRED_ZSTD

enum llmq_codec { LLMQ_RAW = 0, LLMQ_ZSTD = 1 };

struct llmq_header {
    uint64_t required; /* feature bits */
    uint32_t align;
    uint32_t shard_index, shard_count;
};

struct llmq_trailer {
    uint64_t index_offset, index_stored, index_raw, n_chunks;
    struct digest128 index_digest, set_digest;
    uint64_t file_nbytes;
    uint64_t header_checksum;
};

struct llmq_chunk {
    uint64_t offset;
    uint32_t stored;
    uint32_t codec; /* enum llmq_codec */
    uint64_t checksum;
};

/* True when the bytes begin as an llmq file does. */
bool llmq_magic(const uint8_t *head, size_t nbytes);

/* Writes the header and returns its checksum, which the trailer repeats. */
uint64_t llmq_header_store(const struct llmq_header *header, uint8_t bytes[LLMQ_HEADER_NBYTES]);
void llmq_trailer_store(const struct llmq_trailer *trailer, uint8_t bytes[LLMQ_TRAILER_NBYTES]);
void llmq_chunk_store(const struct llmq_chunk *chunk, uint8_t bytes[LLMQ_CHUNK_NBYTES]);

/* ERR_DATA, or ERR_UNSUPPORTED for a future version or an unknown required feature. *checksum is the header's own, for the trailer to confirm. */
enum status llmq_header_load(const uint8_t bytes[LLMQ_HEADER_NBYTES], struct llmq_header *header, uint64_t *checksum, struct err *err);

/* True when the 96 bytes are a trailer with magic and right checksum, whatever they say. */
bool llmq_trailer_valid(const uint8_t bytes[LLMQ_TRAILER_NBYTES]);

/* Loads the last 96 bytes of a file of file_nbytes whose header had header_checksum, and checks every size in it. */
enum status llmq_trailer_load(const uint8_t bytes[LLMQ_TRAILER_NBYTES], uint64_t file_nbytes, uint64_t header_checksum, struct llmq_trailer *trailer,
                              struct err *err);

struct llmq_chunk llmq_chunk_load(const uint8_t bytes[LLMQ_CHUNK_NBYTES]);

#endif
