/* gguf_header.h: the head of a GGUF file, everything before its data, as checked tables of keys and tensors.
 *
 *   "GGUF" | version u32 | n_tensors u64 | n_keys u64 | keys | tensor infos | padding | data
 *   key:    length u64, name | type u32 | value          string: length u64, bytes      array: type u32, count u64, items
 *   tensor: length u64, name | n_dims u32 | n_dims * u64, innermost first | type u32 | offset u64 from the start of the data
 *
 * Why this way: parsed through a source of bytes and not a file, so that a fuzzer and a test reach every check from memory. Values are checked and
 * skipped, never kept: a table says where each key stands, so that a vocabulary of 250,000 strings costs nothing and a writer can copy the bytes as
 * they are.
 * Corner cases: see gguf_header.c.
 * Reference: ggml docs/gguf.md and gguf.cpp; the project's reliability notes 2, layouts.md 2(f).
 */
#ifndef LLMQ_CONTAINER_GGUF_HEADER_H
#define LLMQ_CONTAINER_GGUF_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "container/container.h"
#include "container/name_table.h"

#define GGUF_MAGIC "GGUF"
#define GGUF_MAGIC_NBYTES 4u
#define GGUF_KV_OFFSET 24u /* where the first key stands */
#define GGUF_HEADER_MAX ((uint64_t)256 << 20) /* bytes before the data; the largest vocabularies have 20 MiB */
#define GGUF_ENTRIES_MAX (1u << 20) /* keys, and tensors */
#define GGUF_KEY_MAX 65535u /* bytes of a key's name */
#define GGUF_NAME_MAX 64u /* bytes of a tensor's name */
#define GGUF_STRING_MAX ((uint64_t)64 << 20)
#define GGUF_DIMS_MAX 4u
#define GGUF_DEPTH_MAX 4u /* of arrays in arrays */
#define GGUF_ALIGNMENT_MAX 65536u
#define GGUF_ALIGNMENT_DEFAULT 32u

/* The types of values, as files number them. */
enum gguf_value {
    GGUF_U8 = 0,
    GGUF_I8 = 1,
    GGUF_U16 = 2,
    GGUF_I16 = 3,
    GGUF_U32 = 4,
    GGUF_I32 = 5,
    GGUF_F32 = 6,
    GGUF_BOOL = 7,
    GGUF_STRING = 8,
    GGUF_ARRAY = 9,
    GGUF_U64 = 10,
    GGUF_I64 = 11,
    GGUF_F64 = 12,
    GGUF_VALUE_COUNT = 13
};

/* "u32"; "?" for a number that is no type. */
const char *gguf_value_name(uint32_t type);

/* A type of tensor. */
struct gguf_type {
    uint32_t id; /* as files number them */
    const char *name; /* "Q4_K" */
    uint32_t block; /* weights in a block; a row is a multiple of it */
    uint32_t block_nbytes;
    const char *dtype; /* its name as struct dtype where the bytes are plain; NULL for block types */
    bool decodable; /* plain, or a block type llmq decodes */
};

/* The row of this id, or NULL: unknown or removed. */
const struct gguf_type *gguf_type_find(uint32_t id);
size_t gguf_type_count(void);
const struct gguf_type *gguf_type_at(size_t index);

/* One key; offsets count from the start of the file. The value's bytes are [value_offset, offset + nbytes). */
struct gguf_key {
    const char *name; /* NUL-terminated, no NUL inside */
    uint64_t offset; /* of the whole entry, which begins with the length of the name */
    uint64_t nbytes; /* of the whole entry */
    uint64_t value_offset; /* behind the type: of an array this is its element type, of a string its length */
    uint64_t count; /* items of an array, else 0 */
    uint32_t n_name;
    uint32_t type; /* enum gguf_value */
    uint32_t array_type; /* of the items of an array; GGUF_ARRAY for an array of arrays */
};

/* What a tensor is stored as. tensor->quantised points to it when type->dtype is NULL. */
struct gguf_entry {
    const struct gguf_type *type;
    uint64_t nbytes; /* stored, without padding; from tensor->offset on */
    uint64_t dims[GGUF_DIMS_MAX]; /* outermost first */
};

struct gguf_memory;

/* The parsed header. A zeroed struct is empty. */
struct gguf_header {
    uint32_t version; /* 2 or 3 */
    uint32_t alignment;
    struct gguf_key *keys; /* in file order; key i is number i of key_names */
    size_t n_keys;
    struct name_table key_names;
    uint64_t kv_nbytes; /* of all keys, which begin at GGUF_KV_OFFSET and have no gaps */
    struct tensor *tensors; /* in file order, which is storage order; offset counts from the start of the file, file is 0 */
    struct gguf_entry *entries; /* one a tensor */
    size_t n_tensors;
    uint64_t infos_end; /* where the padding before the data begins */
    uint64_t data_offset; /* of the first tensor, aligned; the file may end before it when there is no data */
    bool is_unpadded; /* the last tensor lacks its padding */
    struct gguf_memory *memory; /* holds names */
};

/* Bytes [0, nbytes) that can be read anywhere. */
struct gguf_source {
    enum status (*read)(void *context, void *buf, size_t nbytes, uint64_t offset, struct err *err);
    void *context;
    uint64_t nbytes;
};

/* A source over n bytes of memory: read is gguf_read_memory, context the bytes. */
enum status gguf_read_memory(void *context, void *buf, size_t nbytes, uint64_t offset, struct err *err);

/* Parses a whole file of source->nbytes bytes; its data is not read. On failure *header is empty. ERR_UNSUPPORTED for versions, types and sizes
 * beyond what llmq reads, else ERR_DATA. Memory: 64 KiB, about 100 bytes and the name for a key, 200 bytes for a tensor. */
enum status gguf_header_parse(const struct gguf_source *source, struct gguf_header *header, struct err *err);

void gguf_header_free(struct gguf_header *header);

/* The key called name, or NULL. */
const struct gguf_key *gguf_find_key(const struct gguf_header *header, const char *name);

#endif
