/* llmq_file.c: see llmq_file.h.
 *
 * Formula: header  magic 0, major 8, minor 10, size 12, required 16, optional 24, align 32, shard 36, shards 40, zero 44 and 48, XXH3-64 of 0 .. 55
 * at 56
 *          trailer index offset 0, stored 8, raw 16, chunks 24, digest 32, set digest 48, file size 64, header checksum 72, XXH3-64 of 0 .. 79 at 80, magic 88
 *          chunk   offset 0, stored 8, codec 12, checksum 16
 * Why this way: byte stores and loads, so that neither alignment nor byte order of the machine matters.
 * Corner cases: the header's checksum is judged before the version: all versions share the 64 bytes and their checksum.
 * Reference: FORMAT.md 1. Worked number: magic 89 4C 4D 51 0D 0A 1A 0A is 0x0A1A0A0D514D4C89.
 */
#include "container/llmq_file.h"

#include <string.h>

static const uint8_t magic[8] = { 0x89, 'L', 'M', 'Q', 0x0D, 0x0A, 0x1A, 0x0A };
static const uint8_t end_magic[8] = { 0x0A, 0x1A, 0x0A, 0x0D, 'Q', 'M', 'L', 0x89 };

static void store(uint8_t *bytes, uint64_t value, unsigned nbytes)
{
    for (unsigned i = 0; i < nbytes; i++) bytes[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t load64(const uint8_t *bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 8; i++) value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

static uint32_t load32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static uint32_t load16(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8;
}

bool llmq_magic(const uint8_t *head, size_t nbytes)
{
    return nbytes >= sizeof magic && memcmp(head, magic, sizeof magic) == 0;
}

uint64_t llmq_header_store(const struct llmq_header *header, uint8_t bytes[LLMQ_HEADER_NBYTES])
{
    memset(bytes, 0, LLMQ_HEADER_NBYTES);
    memcpy(bytes, magic, sizeof magic);
    store(bytes + 8, 1, 2);
    store(bytes + 12, LLMQ_HEADER_NBYTES, 4);
    store(bytes + 16, header->required, 8);
    store(bytes + 32, header->align, 4);
    store(bytes + 36, header->shard_index, 4);
    store(bytes + 40, header->shard_count, 4);
    uint64_t checksum = digest64(bytes, 56);
    store(bytes + 56, checksum, 8);
    return checksum;
}

void llmq_trailer_store(const struct llmq_trailer *trailer, uint8_t bytes[LLMQ_TRAILER_NBYTES])
{
    store(bytes, trailer->index_offset, 8);
    store(bytes + 8, trailer->index_stored, 8);
    store(bytes + 16, trailer->index_raw, 8);
    store(bytes + 24, trailer->n_chunks, 8);
    memcpy(bytes + 32, trailer->index_digest.bytes, 16);
    memcpy(bytes + 48, trailer->set_digest.bytes, 16);
    store(bytes + 64, trailer->file_nbytes, 8);
    store(bytes + 72, trailer->header_checksum, 8);
    store(bytes + 80, digest64(bytes, 80), 8);
    memcpy(bytes + 88, end_magic, sizeof end_magic);
}

void llmq_chunk_store(const struct llmq_chunk *chunk, uint8_t bytes[LLMQ_CHUNK_NBYTES])
{
    store(bytes, chunk->offset, 8);
    store(bytes + 8, chunk->stored, 4);
    store(bytes + 12, chunk->codec, 4);
    store(bytes + 16, chunk->checksum, 8);
}

struct llmq_chunk llmq_chunk_load(const uint8_t bytes[LLMQ_CHUNK_NBYTES])
{
    return (struct llmq_chunk){ .offset = load64(bytes), .stored = load32(bytes + 8), .codec = load32(bytes + 12), .checksum = load64(bytes + 16) };
}

static enum status check_header(const struct llmq_header *header, const uint8_t *bytes, struct err *err)
{
    if (load32(bytes + 12) != LLMQ_HEADER_NBYTES || load32(bytes + 44) != 0 || load64(bytes + 48) != 0)
        return err_set(err, ERR_DATA, "its header is damaged: a fixed field has another value");
    if (header->align < LLMQ_ALIGN_SMALL || header->align > LLMQ_ALIGN_MAX || (header->align & (header->align - 1)))
        return err_set(err, ERR_DATA, "its header has the alignment %u, not a power of two from 64 to 2097152", header->align);
    if (header->shard_count == 0 || header->shard_count > LLMQ_SHARDS_MAX || header->shard_index >= header->shard_count)
        return err_set(err, ERR_DATA, "its header has shard index %u of %u", header->shard_index, header->shard_count);
    return OK;
}

enum status llmq_header_load(const uint8_t bytes[LLMQ_HEADER_NBYTES], struct llmq_header *header, uint64_t *checksum, struct err *err)
{
    if (!llmq_magic(bytes, LLMQ_HEADER_NBYTES)) return err_set(err, ERR_DATA, "not an llmq file: it begins with other bytes");
    *checksum = load64(bytes + 56);
    if (*checksum != digest64(bytes, 56)) return err_set(err, ERR_MISMATCH, "its header is damaged: the checksum is wrong");
    if (load16(bytes + 8) != 1)
        return err_set(err, ERR_UNSUPPORTED, "it has version %u of the llmq format; this program reads version 1", load16(bytes + 8));
    *header = (struct llmq_header){
        .required = load64(bytes + 16), .align = load32(bytes + 32), .shard_index = load32(bytes + 36), .shard_count = load32(bytes + 40)
    };
    if (header->required & ~LLMQ_REQUIRED_KNOWN)
        return err_set(err, ERR_UNSUPPORTED, "it needs features this program does not know (bits 0x%llx)",
                       (unsigned long long)(header->required & ~LLMQ_REQUIRED_KNOWN));
    return check_header(header, bytes, err);
}

bool llmq_trailer_valid(const uint8_t bytes[LLMQ_TRAILER_NBYTES])
{
    return memcmp(bytes + 88, end_magic, sizeof end_magic) == 0 && load64(bytes + 80) == digest64(bytes, 80);
}

/* index_offset + index_stored + 24 * n_chunks + 96 = file size, with no sum that can overflow. */
static bool sizes_add_up(const struct llmq_trailer *trailer, uint64_t file_nbytes)
{
    uint64_t left = file_nbytes - LLMQ_TRAILER_NBYTES;
    if (trailer->index_offset < LLMQ_HEADER_NBYTES || trailer->index_offset > left) return false;
    left -= trailer->index_offset;
    if (trailer->index_stored > left) return false;
    return trailer->n_chunks <= LLMQ_CHUNKS_MAX && trailer->n_chunks * LLMQ_CHUNK_NBYTES == left - trailer->index_stored;
}

enum status llmq_trailer_load(const uint8_t bytes[LLMQ_TRAILER_NBYTES], uint64_t file_nbytes, uint64_t header_checksum, struct llmq_trailer *trailer,
                              struct err *err)
{
    if (memcmp(bytes + 88, end_magic, sizeof end_magic) != 0) return err_set(err, ERR_DATA, "it does not end with an llmq trailer");
    if (load64(bytes + 80) != digest64(bytes, 80)) return err_set(err, ERR_MISMATCH, "its trailer is damaged: the checksum is wrong");
    *trailer = (struct llmq_trailer){ .index_offset = load64(bytes),
                                      .index_stored = load64(bytes + 8),
                                      .index_raw = load64(bytes + 16),
                                      .n_chunks = load64(bytes + 24),
                                      .file_nbytes = load64(bytes + 64),
                                      .header_checksum = load64(bytes + 72) };
    memcpy(trailer->index_digest.bytes, bytes + 32, 16);
    memcpy(trailer->set_digest.bytes, bytes + 48, 16);
    if (trailer->file_nbytes != file_nbytes)
        return err_set(err, ERR_DATA, "it is %llu bytes long, its trailer says %llu", (unsigned long long)file_nbytes,
                       (unsigned long long)trailer->file_nbytes);
    if (trailer->header_checksum != header_checksum) return err_set(err, ERR_MISMATCH, "its header and trailer do not belong together");
    if (file_nbytes < LLMQ_HEADER_NBYTES + LLMQ_TRAILER_NBYTES || !sizes_add_up(trailer, file_nbytes))
        return err_set(err, ERR_DATA, "its trailer contradicts itself: index and chunk table do not fill the file's end");
    if (trailer->index_raw < trailer->index_stored || trailer->index_raw > LLMQ_INDEX_MAX ||
        trailer->index_raw > trailer->index_stored * LLMQ_INDEX_RATIO_MAX)
        return err_set(err, ERR_DATA, "its trailer claims an index of %llu bytes stored in %llu", (unsigned long long)trailer->index_raw,
                       (unsigned long long)trailer->index_stored);
    return OK;
}
