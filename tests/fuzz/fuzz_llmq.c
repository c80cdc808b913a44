/* fuzz_llmq.c: libFuzzer target: the index of a .llmq file, parsed from memory, and its zstd frames.
 *
 *   input: byte 0 = kind; kind 0 mod 4: a frame for zframe_decode; else u16 n_chunks | n_chunks * 24 bytes of table | index text
 *
 * Why this way: no file and no digest stands between the fuzzer and the structural checks; what is accepted is checked once more, independently.
 * Corner cases: an accepted index must have every chunk inside the file and every plane of the size its tiles add up to; anything else traps.
 * Reference: FORMAT.md 2 to 5; libFuzzer.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "container/llmq_index.h"
#include "container/zframe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition) __builtin_trap();
}

static void fuzz_frame(const uint8_t *data, size_t size)
{
    static uint8_t out[4096];
    struct err err;
    size_t wanted = (size_t)data[0] << 4;
    struct zframe_decoder *decoder = zframe_decoder_open();
    if (decoder) zframe_decode(decoder, data + 1, size - 1, out, wanted, &err);
    zframe_decoder_close(decoder);
}

static void check_entry(const struct llmq_shard *shard, const struct tensor *tensor, const struct llmq_entry *entry)
{
    for (uint32_t p = 0; p < entry->n_planes; p++) {
        const struct llmq_plane *stored = &entry->planes[p];
        uint64_t n = plane_tile_count(&stored->plane), total = 0;
        check(n <= shard->trailer.n_chunks && stored->first <= shard->trailer.n_chunks - n);
        for (uint64_t t = 0; t < n; t++) {
            struct llmq_chunk chunk = llmq_chunk_load(shard->table + (stored->first + t) * LLMQ_CHUNK_NBYTES);
            check(chunk.offset >= 64 && chunk.offset + chunk.stored <= shard->trailer.index_offset && chunk.stored >= 1);
            check(plane_tile_offset(&stored->plane, t) == total);
            total += plane_tile_nbytes(&stored->plane, t);
        }
        check(total == plane_nbytes(&stored->plane));
    }
    uint64_t n_weights = 1;
    for (uint32_t i = 0; i < tensor->rank; i++) n_weights *= tensor->dims[i];
    check(n_weights == tensor->n_weights);
    if (entry->decodable) check(entry->quant.format->family != NULL && entry->planes[0].plane.rows * entry->planes[0].plane.cols == n_weights);
    if (!entry->format)
        check(tensor->nbytes == plane_nbytes(&entry->planes[0].plane) + (entry->n_planes > 1 ? plane_nbytes(&entry->planes[1].plane) : 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4) return 0;
    if (data[0] % 4 == 0) {
        fuzz_frame(data + 1, size - 1);
        return 0;
    }
    size_t n_chunks = (size_t)(data[1] | data[2] << 8) % 64, n_table = n_chunks * LLMQ_CHUNK_NBYTES;
    if (size < 3 + n_table) return 0;
    uint8_t *table = malloc(n_table + 1);
    if (!table) return 0;
    memcpy(table, data + 3, n_table);
    struct llmq_shard shard = { .header = { .required = LLMQ_REQUIRED_ZSTD, .align = 4096, .shard_count = 1 },
                                .trailer = { .index_offset = 1u << 20, .n_chunks = n_chunks },
                                .table = table };
    struct llmq_index index = { 0 };
    struct err err;
    if (llmq_index_add(&index, &shard, (const char *)data + 3 + n_table, size - 3 - n_table, &err) == OK)
        for (size_t i = 0; i < index.n_tensors; i++) check_entry(&shard, &index.tensors[i], index.entries[i]);
    llmq_index_free(&index);
    free(table);
    return 0;
}
