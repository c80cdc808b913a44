/* llmq_read.c: llmq_container_ops: files, chunks and decoding behind the checked index of llmq_index.c.
 *
 *   open:  header -> trailer -> digest of index and table -> zstd -> llmq_index_add;  for a set: all shards of the same directory, then the set digest
 *   read:  tile = chunk -> checksum -> zstd frame of exactly the plane's tile size;  kept tiles are joined to plain bytes, quantised ones decoded row by row
 *
 * Why this way: a chunk is the unit of checksums, so every read works on whole tiles; all state of a read lives in the call (struct desk), so any
 * number of threads may read.
 * Corner cases: a file that is cut off, one with bytes behind its end and a damaged trailer get different sentences; a shard is looked for beside
 * the one that was named, and must carry its number and the digest of the set.
 * Reference: FORMAT.md. Worked number: shard 2 of 3 of "m.llmq" is the file m-00002-of-00003.llmq.
 */
#include "container/llmq_read.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "container/shown.h"
#include "container/zframe.h"
#include "layout/codec.h"
#include "number/half.h"
#include "number/kernel.h"

#define SUFFIX_NBYTES 20 /* "-00001-of-00003.llmq" */
#define SEARCH_NBYTES (1u << 20) /* how far back from the end a trailer is looked for */
#define PADDING_PIECE 65536u

struct llmq {
    struct container base;
    struct llmq_index index;
    struct llmq_shard *shards; /* one a file; table is owned */
    uint8_t **tables;
    uint32_t n_shards; /* room in these arrays and in base.files */
    const struct kernels *kernels;
};

static struct llmq *of(struct container *container)
{
    return (struct llmq *)container;
}

static const struct llmq *of_const(const struct container *container)
{
    return (const struct llmq *)container;
}

/* ---- opening a file ------------------------------------------------------------------------------------------------------------- */

/* Why the file does not end with a trailer: bytes behind one, or nothing that looks like one. */
static enum status explain_end(const struct file *file, struct err *err)
{
    size_t nbytes = (size_t)size_min(file->nbytes, SEARCH_NBYTES);
    uint8_t *end = malloc(nbytes);
    if (!end) return err_set(err, ERR_MEMORY, "out of memory for the end of the file");
    enum status status = file_read(file, end, nbytes, file->nbytes - nbytes, err);
    for (size_t at = nbytes; status == OK && at >= LLMQ_TRAILER_NBYTES; at--) {
        const uint8_t *bytes = end + at - LLMQ_TRAILER_NBYTES;
        if (bytes[LLMQ_TRAILER_NBYTES - 1] != 0x89 || !llmq_trailer_valid(bytes)) continue;
        status = err_set(err, ERR_DATA, "%zu bytes were appended to it: an llmq file ends at byte %" PRIu64, nbytes - at, file->nbytes - nbytes + at);
    }
    free(end);
    return status == OK ? err_set(err, ERR_DATA, "it is truncated: its %" PRIu64 " bytes do not end with an llmq trailer", file->nbytes) : status;
}

static enum status read_ends(const struct file *file, struct llmq_shard *shard, struct err *err)
{
    uint8_t header[LLMQ_HEADER_NBYTES] = { 0 }, trailer[LLMQ_TRAILER_NBYTES];
    uint64_t checksum = 0;
    size_t n_header = (size_t)size_min(file->nbytes, sizeof header);
    enum status status = file_read(file, header, n_header, 0, err);
    if (status != OK) return status;
    if (file->nbytes < sizeof header + sizeof trailer && llmq_magic(header, n_header))
        return err_set(err, ERR_DATA, "it is truncated: %" PRIu64 " bytes are no whole llmq file", file->nbytes);
    status = llmq_header_load(header, &shard->header, &checksum, err);
    if (status == OK) status = file_read(file, trailer, sizeof trailer, file->nbytes - sizeof trailer, err);
    if (status != OK) return status;
    if (!llmq_trailer_valid(trailer) && memcmp(trailer + 88, "\x0A\x1A\x0A\x0DQML\x89", 8) != 0) return explain_end(file, err);
    return llmq_trailer_load(trailer, file->nbytes, checksum, &shard->trailer, err);
}

/* Index as stored and chunk table, digest checked; *table is the second part in a buffer of its own. */
static enum status read_index(const struct file *file, const struct llmq_shard *shard, char **stored, uint8_t **table, struct err *err)
{
    const struct llmq_trailer *trailer = &shard->trailer;
    size_t n_stored = (size_t)trailer->index_stored, n_table = (size_t)(trailer->n_chunks * LLMQ_CHUNK_NBYTES);
    *stored = malloc(n_stored + n_table + 1);
    *table = malloc(n_table + 1);
    if (!*stored || !*table) return err_set(err, ERR_MEMORY, "out of memory for an index of %zu bytes", n_stored + n_table);
    enum status status = file_read(file, *stored, n_stored + n_table, trailer->index_offset, err);
    if (status != OK) return status;
    struct digest128 digest = digest128(*stored, n_stored + n_table);
    if (memcmp(digest.bytes, trailer->index_digest.bytes, sizeof digest.bytes) != 0)
        return err_set(err, ERR_MISMATCH, "its index is damaged: the digest is wrong");
    memcpy(*table, *stored + n_stored, n_table);
    return OK;
}

/* *text is the decoded index: stored itself (which it then replaces) or a new buffer. */
static enum status decode_index(const struct llmq_shard *shard, char **text, struct err *err)
{
    const struct llmq_trailer *trailer = &shard->trailer;
    if (trailer->index_raw == trailer->index_stored) return OK;
    if (!(shard->header.required & LLMQ_REQUIRED_ZSTD)) return err_set(err, ERR_DATA, "its index is compressed, the header says nothing is");
    struct zframe_decoder *decoder = zframe_decoder_open();
    char *raw = malloc((size_t)trailer->index_raw);
    enum status status = decoder && raw ? OK : err_set(err, ERR_MEMORY, "out of memory for an index of %" PRIu64 " bytes", trailer->index_raw);
    if (status == OK) status = zframe_decode(decoder, *text, (size_t)trailer->index_stored, raw, (size_t)trailer->index_raw, err);
    if (status != OK) status = err_wrap(err, status, "its index");
    zframe_decoder_close(decoder);
    if (status != OK) {
        free(raw);
        return status;
    }
    free(*text);
    *text = raw;
    return OK;
}

static enum status load_shard(struct llmq *llmq, size_t number, struct err *err)
{
    struct llmq_shard *shard = &llmq->shards[number];
    char *text = NULL;
    enum status status = read_index(&llmq->base.files[number], shard, &text, &llmq->tables[number], err);
    shard->table = llmq->tables[number];
    if (status == OK) status = decode_index(shard, &text, err);
    if (status == OK) status = llmq_index_add(&llmq->index, shard, text, (size_t)shard->trailer.index_raw, err);
    free(text);
    return status;
}

/* ---- sets of shards ------------------------------------------------------------------------------------------------------------- */

/* "DIR/NAME" of "DIR/NAME-00002-of-00003.llmq" in a new string, which has room for a suffix; ERR_DATA unless the path ends so. */
static enum status shard_stem(const char *path, const struct llmq_header *header, char **stem, struct err *err)
{
    char suffix[64];
    snprintf(suffix, sizeof suffix, "-%05" PRIu32 "-of-%05" PRIu32 ".llmq", header->shard_index + 1, header->shard_count);
    size_t length = strlen(path);
    if (length <= SUFFIX_NBYTES || strcmp(path + length - SUFFIX_NBYTES, suffix) != 0)
        return err_set(err, ERR_DATA,
                       "it is shard %" PRIu32 " of %" PRIu32 ", but its name does not end with '%s', so that the others cannot be found",
                       header->shard_index + 1, header->shard_count, suffix);
    *stem = malloc(length + 64);
    if (!*stem) return err_set(err, ERR_MEMORY, "out of memory for a path");
    memcpy(*stem, path, length - SUFFIX_NBYTES);
    (*stem)[length - SUFFIX_NBYTES] = '\0';
    return OK;
}

static enum status open_shard(struct llmq *llmq, const struct io_calls *io, const char *path, uint32_t number, uint32_t count, struct err *err)
{
    struct shown_path name = shown_path(path);
    struct llmq_shard *shard = &llmq->shards[number];
    enum status status = file_open(io, path, &llmq->base.files[number], err);
    if (status == ERR_IO && count > 1)
        return err_wrap(err, status, "shard %" PRIu32 " of %" PRIu32 " is missing or cannot be opened", number + 1, count);
    if (status != OK) return status;
    llmq->base.n_files = number + 1;
    status = read_ends(&llmq->base.files[number], shard, err);
    if (status == OK && (shard->header.shard_index != number || shard->header.shard_count != count))
        status = err_set(err, ERR_DATA, "it is shard %" PRIu32 " of %" PRIu32 ", wanted %" PRIu32 " of %" PRIu32, shard->header.shard_index + 1,
                         shard->header.shard_count, number + 1, count);
    if (status == OK && number > 0 && memcmp(&shard->trailer.set_digest, &llmq->shards[0].trailer.set_digest, sizeof shard->trailer.set_digest) != 0)
        status = err_set(err, ERR_MISMATCH, "it comes from another run than shard 1 (their set digests differ)");
    if (status == OK) status = load_shard(llmq, number, err);
    return status == OK ? OK : err_wrap(err, status, "cannot open '%s'", name.text);
}

static enum status check_set(const struct llmq *llmq, uint32_t count, struct err *err)
{
    struct digest128 *all = calloc(count, sizeof *all);
    if (!all) return err_set(err, ERR_MEMORY, "out of memory for %" PRIu32 " files", count);
    for (uint32_t i = 0; i < count; i++) all[i] = llmq->shards[i].trailer.index_digest;
    struct digest128 digest = digest128(all, count * sizeof *all);
    free(all);
    if (memcmp(digest.bytes, llmq->shards[0].trailer.set_digest.bytes, sizeof digest.bytes) == 0) return OK;
    return err_set(err, ERR_MISMATCH,
                   count == 1 ? "cannot open '%s': the digest of its set is wrong" : "cannot open '%s': its shards do not come from one run",
                   shown_path(llmq->base.path).text);
}

/* Header of the file that was named: which shard of how many is it? */
static enum status read_first(const struct io_calls *io, const char *path, struct llmq_header *header, struct err *err)
{
    struct file file;
    struct llmq_shard shard;
    enum status status = file_open(io, path, &file, err);
    if (status != OK) return status;
    status = read_ends(&file, &shard, err);
    *header = shard.header;
    file_close(&file);
    return status == OK ? OK : err_wrap(err, status, "cannot open '%s'", shown_path(path).text);
}

static enum status open_all(struct llmq *llmq, const struct io_calls *io, const char *path, const struct llmq_header *header, struct err *err)
{
    uint32_t count = header->shard_count;
    char *stem = NULL;
    enum status status = OK;
    if (count == 1) return open_shard(llmq, io, path, 0, 1, err);
    status = shard_stem(path, header, &stem, err);
    if (status != OK) return err_wrap(err, status, "cannot open '%s'", shown_path(path).text);
    size_t length = strlen(stem);
    for (uint32_t i = 0; status == OK && i < count; i++) {
        snprintf(stem + length, 64, "-%05" PRIu32 "-of-%05" PRIu32 ".llmq", i + 1, count);
        status = open_shard(llmq, io, stem, i, count, err);
    }
    free(stem);
    return status;
}

/* Moves what container.c frees from the index to the container. */
static void hand_over(struct llmq *llmq)
{
    struct llmq_index *index = &llmq->index;
    llmq->base.tensors = index->tensors;
    llmq->base.n_tensors = index->n_tensors;
    llmq->base.blobs = index->blobs;
    llmq->base.n_blobs = index->n_blobs;
    llmq->base.metadata_json = index->metadata;
    index->tensors = NULL;
    index->blobs = NULL;
    index->metadata = NULL;
}

static void llmq_close(struct container *container)
{
    struct llmq *llmq = of(container);
    for (uint32_t i = 0; llmq->tables && i < llmq->n_shards; i++) free(llmq->tables[i]);
    free(llmq->tables);
    free(llmq->shards);
    llmq_index_free(&llmq->index);
    container_release(container);
    free(llmq);
}

static enum status make(const char *path, const struct llmq_header *header, struct llmq **out, struct err *err)
{
    struct llmq *llmq = calloc(1, sizeof *llmq);
    if (!llmq) return err_set(err, ERR_MEMORY, "out of memory for '%s'", shown_path(path).text);
    llmq->base.ops = &llmq_container_ops;
    llmq->kernels = kernels_select(NULL);
    llmq->base.path = strdup(path);
    llmq->base.files = calloc(header->shard_count, sizeof *llmq->base.files);
    llmq->shards = calloc(header->shard_count, sizeof *llmq->shards);
    llmq->tables = calloc(header->shard_count, sizeof *llmq->tables);
    *out = llmq;
    llmq->n_shards = header->shard_count;
    if (llmq->base.path && llmq->base.files && llmq->shards && llmq->tables) return OK;
    return err_set(err, ERR_MEMORY, "out of memory for '%s'", shown_path(path).text);
}

static enum status llmq_open(const struct io_calls *io, const char *path, struct container **container, struct err *err)
{
    struct llmq_header header = { 0 };
    struct llmq *llmq = NULL;
    enum status status = read_first(io, path, &header, err);
    if (status != OK) return status;
    status = make(path, &header, &llmq, err);
    if (status == OK) status = open_all(llmq, io, path, &header, err);
    if (status == OK) status = check_set(llmq, header.shard_count, err);
    if (status != OK) {
        if (llmq) llmq_close(&llmq->base);
        return status;
    }
    hand_over(llmq);
    *container = &llmq->base;
    return OK;
}

static bool llmq_probe(const char *path, bool is_dir, const uint8_t *head, size_t n_head)
{
    (void)path;
    return !is_dir && llmq_magic(head, n_head);
}

/* ---- chunks --------------------------------------------------------------------------------------------------------------------- */

/* A growing buffer. */
struct buffer {
    uint8_t *bytes;
    size_t nbytes;
};

/* The working memory of one call. Zeroed at the start. */
struct desk {
    struct buffer stored, out;
    struct buffer planes[CODEC_PLANES_MAX];
    struct zframe_decoder *decoder;
};

static void desk_clear(struct desk *desk)
{
    free(desk->stored.bytes);
    free(desk->out.bytes);
    for (size_t i = 0; i < CODEC_PLANES_MAX; i++) free(desk->planes[i].bytes);
    zframe_decoder_close(desk->decoder);
}

static enum status need(struct buffer *buffer, uint64_t nbytes, struct err *err)
{
    if (nbytes <= buffer->nbytes) return OK;
    free(buffer->bytes);
    buffer->bytes = malloc((size_t)nbytes);
    buffer->nbytes = buffer->bytes ? (size_t)nbytes : 0;
    return buffer->bytes ? OK : err_set(err, ERR_MEMORY, "out of memory for %" PRIu64 " bytes", nbytes);
}

/* Chunk number of a file into out, which holds its decoded nbytes. */
static enum status load_chunk(const struct llmq *llmq, uint32_t file, uint64_t number, size_t nbytes, uint8_t *out, struct desk *desk,
                              struct err *err)
{
    struct llmq_chunk chunk = llmq_chunk_load(llmq->shards[file].table + number * LLMQ_CHUNK_NBYTES);
    uint8_t *stored = out;
    enum status status = OK;
    if (chunk.codec == LLMQ_ZSTD) {
        status = need(&desk->stored, chunk.stored, err);
        if (status == OK && !desk->decoder && !(desk->decoder = zframe_decoder_open())) status = err_set(err, ERR_MEMORY, "out of memory for zstd");
        stored = desk->stored.bytes;
    }
    if (status == OK) status = file_read(&llmq->base.files[file], stored, chunk.stored, chunk.offset, err);
    if (status != OK) return status;
    if (digest64(stored, chunk.stored) != chunk.checksum) return err_set(err, ERR_MISMATCH, "it is damaged: the checksum is wrong");
    return chunk.codec == LLMQ_ZSTD ? zframe_decode(desk->decoder, stored, chunk.stored, out, nbytes, err) : OK;
}

static enum status load_tile(const struct llmq *llmq, size_t index, uint32_t plane, uint64_t tile, uint8_t *out, struct desk *desk, struct err *err)
{
    const struct llmq_entry *entry = llmq->index.entries[index];
    const struct llmq_plane *stored = &entry->planes[plane];
    size_t nbytes = (size_t)plane_tile_nbytes(&stored->plane, tile);
    enum status status = load_chunk(llmq, entry->shard, stored->first + tile, nbytes, out, desk, err);
    return status == OK ? OK : err_wrap(err, status, "plane '%s', tile %" PRIu64, shown_str(stored->plane.name).text, tile);
}

/* The same into the plane's own buffer on the desk. */
static enum status load_plane(const struct llmq *llmq, size_t index, uint32_t plane, uint64_t tile, struct desk *desk, struct err *err)
{
    enum status status = need(&desk->planes[plane], plane_tile_nbytes(&llmq->index.entries[index]->planes[plane].plane, tile), err);
    return status == OK ? load_tile(llmq, index, plane, tile, desk->planes[plane].bytes, desk, err) : status;
}

/* ---- plain bytes of kept tensors ------------------------------------------------------------------------------------------------ */

/* Plain bytes of a whole tile into out. */
static enum status load_kept(const struct llmq *llmq, size_t index, uint64_t tile, size_t n_items, uint8_t *out, struct desk *desk, struct err *err)
{
    const struct llmq_entry *entry = llmq->index.entries[index];
    if (entry->kept == KEPT_DATA) return load_tile(llmq, index, 0, tile, out, desk, err);
    enum status status = load_plane(llmq, index, 0, tile, desk, err);
    if (status == OK) status = load_plane(llmq, index, 1, tile, desk, err);
    if (status != OK) return status;
    const uint8_t *const planes[KEPT_PLANES_MAX] = { desk->planes[0].bytes, desk->planes[1].bytes };
    kept_join(entry->kept, entry->item_nbytes, planes, n_items, out);
    return OK;
}

static uint64_t tile_of(const struct llmq_entry *entry, uint64_t row, uint64_t col)
{
    return row / entry->tile_rows * size_ceil_div(entry->cols, entry->tile_cols) + col / entry->tile_cols;
}

/* Copies the part of the wanted range [at, at + nbytes) that lies in the tile holding byte at; *done is its size. */
static enum status read_piece(const struct llmq *llmq, size_t index, uint64_t at, size_t nbytes, uint8_t *out, size_t *done, struct desk *desk,
                              struct err *err)
{
    const struct llmq_entry *entry = llmq->index.entries[index];
    uint64_t item = at / entry->item_nbytes;
    uint64_t number = tile_of(entry, item / entry->cols, item % entry->cols);
    struct tile tile = plane_tile(&entry->planes[0].plane, number);
    size_t n_items = (size_t)(tile.n_rows * tile.n_cols), n_tile = n_items * entry->item_nbytes;
    uint64_t skip = at - (tile.row * entry->cols + tile.col) * entry->item_nbytes;
    *done = (size_t)size_min(nbytes, n_tile - skip);
    if (*done == n_tile) return load_kept(llmq, index, number, n_items, out, desk, err);
    enum status status = need(&desk->out, n_tile, err);
    if (status == OK) status = load_kept(llmq, index, number, n_items, desk->out.bytes, desk, err);
    if (status == OK) memcpy(out, desk->out.bytes + skip, *done);
    return status;
}

static enum status llmq_read(struct container *container, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *err)
{
    const struct llmq *llmq = of_const(container);
    struct desk desk = { { NULL, 0 }, { NULL, 0 }, { { NULL, 0 } }, NULL };
    uint8_t *out = buf;
    enum status status = OK;
    for (size_t done = 0; status == OK && nbytes > 0; offset += done, out += done, nbytes -= done)
        status = read_piece(llmq, index, offset, nbytes, out, &done, &desk, err);
    desk_clear(&desk);
    return status;
}

static enum status llmq_read_blob(struct container *container, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *err)
{
    const struct llmq *llmq = of_const(container);
    const struct llmq_blob *place = &llmq->index.blob_places[index];
    struct desk desk = { { NULL, 0 }, { NULL, 0 }, { { NULL, 0 } }, NULL };
    uint8_t *out = buf;
    enum status status = OK;
    while (status == OK && nbytes > 0) {
        uint64_t piece = offset / place->tile, skip = offset % place->tile;
        size_t n_piece = (size_t)size_min(place->tile, container->blobs[index].nbytes - piece * place->tile);
        size_t done = (size_t)size_min(nbytes, n_piece - skip);
        status = need(&desk.out, n_piece, err);
        if (status == OK) status = load_chunk(llmq, 0, place->first + piece, n_piece, desk.out.bytes, &desk, err);
        if (status != OK) {
            err_wrap(err, status, "piece %" PRIu64, piece);
            break;
        }
        memcpy(out, desk.out.bytes + skip, done);
        offset += done;
        out += done;
        nbytes -= done;
    }
    desk_clear(&desk);
    return status;
}

/* ---- decoded weights of quantised tensors --------------------------------------------------------------------------------------- */

/* Weights of a tensor: n_rows x n_cols from (row, col) on, to out with row stride. */
struct rect {
    uint64_t row, n_rows, col, n_cols;
    float *out;
    size_t stride;
};

/* Rows of one matrix of the tensor. */
static uint64_t matrix_rows_of(const struct llmq *llmq, size_t index)
{
    const struct shape shape = tensor_shape(&llmq->base.tensors[index]);
    return shape_matrix_rows(&shape);
}

/* Bytes of the plane's row stream for row of the tile, which begins at column col and is loaded for it; planes behind the first have fields of
 * groups, or belong to the tensor. */
static const uint8_t *row_of(const struct llmq *llmq, size_t index, uint32_t plane, uint64_t tile, uint64_t row, uint64_t col,
                             const struct desk *desk)
{
    const struct llmq_entry *entry = llmq->index.entries[index];
    if (plane >= entry->n_planes - entry->quant.input_scale) return NULL;
    const struct plane *shape = &entry->planes[plane].plane;
    const struct tile at = plane_tile(shape, plane_tile_count(shape) == 1 ? 0 : tile);
    if (plane > 0) row = quant_scale_row(&entry->quant, matrix_rows_of(llmq, index), row);
    if (row >= shape->rows) row = 0; /* scales of matrices, which are no rows */
    if (plane > 0 && entry->quant.group_kind == GROUP_SQUARE) col /= SQUARE_SIDE;
    else col = 0;
    return desk->planes[plane].bytes + (row - at.row) * size_ceil_div(at.n_cols * shape->bits, 8) + col * shape->bits / 8;
}

static float load_f32(const uint8_t *bytes)
{
    return f32_from_bits((uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24);
}

/* Scale of the matrix that row belongs to. */
static float tensor_scale_of(const struct llmq *llmq, size_t index, uint64_t row, const struct desk *desk)
{
    const struct llmq_entry *entry = llmq->index.entries[index];
    if (!entry->quant.tensor_scale) return 1.0f;
    const uint64_t matrix = row / matrix_rows_of(llmq, index);
    return load_f32(desk->planes[entry->n_planes - 1 - entry->quant.input_scale].bytes + 4 * matrix);
}

/* Multiplies n weights of a row from column col on by the factors of their inputs. */
static void scale_inputs(const struct llmq *llmq, size_t index, uint64_t row, uint64_t col, size_t n, const struct desk *desk, float *out)
{
    const struct llmq_entry *entry = llmq->index.entries[index];
    if (!entry->quant.input_scale) return;
    const uint8_t *bytes = desk->planes[entry->n_planes - 1].bytes + 4 * (row / matrix_rows_of(llmq, index) * entry->cols + col);
    for (size_t i = 0; i < n; i++) out[i] *= load_f32(bytes + 4 * i);
}

/* Decodes the part of rect that lies in the tile. When one tile holds all scales but the codes have several, a stream begins at the row's first
 * group. */
static void decode_tile(const struct llmq *llmq, size_t index, uint64_t number, struct tile tile, const struct rect *rect, const struct desk *desk)
{
    const struct llmq_entry *entry = llmq->index.entries[index];
    uint64_t first_row = size_max(rect->row, tile.row), end_row = size_min(rect->row + rect->n_rows, tile.row + tile.n_rows);
    uint64_t first_col = size_max(rect->col, tile.col), end_col = size_min(rect->col + rect->n_cols, tile.col + tile.n_cols);
    for (uint64_t row = first_row; row < end_row; row++) {
        const uint8_t *streams[CODEC_PLANES_MAX];
        for (uint32_t p = 0; p < CODEC_PLANES_MAX; p++) streams[p] = row_of(llmq, index, p, number, row, tile.col, desk);
        float *out = rect->out + (row - rect->row) * rect->stride + (first_col - rect->col);
        codec_decode_row(&entry->quant, llmq->kernels, streams, tensor_scale_of(llmq, index, row, desk), first_col - tile.col,
                         (size_t)(end_col - first_col), out);
        scale_inputs(llmq, index, row, first_col, (size_t)(end_col - first_col), desk, out);
    }
}

/* Loads codes and, unless they are there already, scales and zeros. */
static enum status load_quantised(const struct llmq *llmq, size_t index, uint64_t number, bool first, struct desk *desk, struct err *err)
{
    const struct llmq_entry *entry = llmq->index.entries[index];
    enum status status = load_plane(llmq, index, 0, number, desk, err);
    for (uint32_t p = 1; status == OK && p < entry->n_planes; p++) {
        bool single = plane_tile_count(&entry->planes[p].plane) == 1;
        if (!single || first) status = load_plane(llmq, index, p, single ? 0 : number, desk, err);
    }
    return status;
}

/* The tile that begins at (row, col), in weights. */
static struct tile tile_at(const struct llmq_entry *entry, uint64_t row, uint64_t col)
{
    return (struct tile){
        .row = row, .n_rows = size_min(entry->tile_rows, entry->rows - row), .col = col, .n_cols = size_min(entry->tile_cols, entry->cols - col)
    };
}

static enum status llmq_read_f32(struct container *container, size_t index, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols, float *out,
                                 struct err *err)
{
    const struct llmq *llmq = of_const(container);
    const struct llmq_entry *entry = llmq->index.entries[index];
    struct rect rect = { row, n_rows, col, n_cols, out, (size_t)n_cols };
    struct desk desk = { { NULL, 0 }, { NULL, 0 }, { { NULL, 0 } }, NULL };
    enum status status = OK;
    bool first = true;
    if (!entry->decodable)
        return err_set(err, ERR_UNSUPPORTED, "this program cannot decode format '%s' (family '%s', scales '%s')", shown_str(entry->format).text,
                       shown_str(entry->family).text, shown_str(entry->scale).text);
    for (uint64_t r = row / entry->tile_rows * entry->tile_rows; status == OK && r < row + n_rows; r += entry->tile_rows)
        for (uint64_t c = col / entry->tile_cols * entry->tile_cols; status == OK && c < col + n_cols; c += entry->tile_cols) {
            uint64_t number = tile_of(entry, r, c);
            status = load_quantised(llmq, index, number, first, &desk, err);
            if (status == OK) decode_tile(llmq, index, number, tile_at(entry, r, c), &rect, &desk);
            first = false;
        }
    desk_clear(&desk);
    return status;
}

/* ---- planes --------------------------------------------------------------------------------------------------------------------- */

static enum status llmq_read_plane(struct container *container, size_t index, uint32_t plane, uint64_t offset, size_t nbytes, void *buf,
                                   struct err *err)
{
    const struct llmq *llmq = of_const(container);
    const struct plane *stored = &llmq->index.entries[index]->planes[plane].plane;
    struct desk desk = { { NULL, 0 }, { NULL, 0 }, { { NULL, 0 } }, NULL };
    uint8_t *out = buf;
    enum status status = OK;
    for (uint64_t number = plane_tile_at(stored, offset), at, skip; status == OK && nbytes > 0; number++) {
        at = plane_tile_offset(stored, number);
        skip = offset - at;
        const size_t n_tile = (size_t)plane_tile_nbytes(stored, number), done = (size_t)size_min(nbytes, n_tile - skip);
        uint8_t *tile = out;
        if (done < n_tile) {
            status = need(&desk.out, n_tile, err);
            tile = desk.out.bytes;
        }
        if (status == OK) status = load_tile(llmq, index, plane, number, tile, &desk, err);
        if (status == OK && done < n_tile) memcpy(out, tile + skip, done);
        offset += done;
        out += done;
        nbytes -= done;
    }
    desk_clear(&desk);
    return status;
}

/* ---- what only this container has ----------------------------------------------------------------------------------------------- */

bool llmq_is(const struct container *container)
{
    return container->ops == &llmq_container_ops;
}

const struct llmq_entry *llmq_entry_of(const struct container *container, size_t index)
{
    return of_const(container)->index.entries[index];
}

const struct llmq_shard *llmq_shard_of(const struct container *container, size_t index)
{
    return &of_const(container)->shards[index];
}

const char *llmq_writer_of(const struct container *container)
{
    const char *writer = of_const(container)->index.writer;
    return writer ? writer : "";
}

enum status llmq_read_tile(struct container *container, size_t index, uint32_t plane, uint64_t tile, void *buf, struct err *err)
{
    const struct llmq *llmq = of_const(container);
    const struct llmq_entry *entry = llmq->index.entries[index];
    if (plane >= entry->n_planes || tile >= plane_tile_count(&entry->planes[plane].plane))
        return err_set(err, ERR_USAGE, "tensor '%s' has no tile %" PRIu64 " of plane %" PRIu32, shown_str(container->tensors[index].name).text, tile,
                       plane);
    struct desk desk = { { NULL, 0 }, { NULL, 0 }, { { NULL, 0 } }, NULL };
    enum status status = load_tile(llmq, index, plane, tile, buf, &desk, err);
    desk_clear(&desk);
    if (status == OK) return OK;
    return err_wrap(err, status, "cannot read tensor '%s' of '%s'", shown_str(container->tensors[index].name).text,
                    shown_path(path_base(container->files[entry->shard].path)).text);
}

enum status llmq_check_chunk(struct container *container, size_t index, uint32_t plane, uint64_t tile, struct err *err)
{
    const struct llmq_entry *entry = of_const(container)->index.entries[index];
    if (plane >= entry->n_planes || tile >= plane_tile_count(&entry->planes[plane].plane))
        return llmq_read_tile(container, index, plane, tile, NULL, err);
    struct buffer buffer = { NULL, 0 };
    enum status status = need(&buffer, plane_tile_nbytes(&entry->planes[plane].plane, tile), err);
    if (status == OK) status = llmq_read_tile(container, index, plane, tile, buffer.bytes, err);
    free(buffer.bytes);
    return status;
}

static enum status check_zeros(const struct file *file, uint64_t at, uint64_t end, uint8_t *piece, struct err *err)
{
    while (at < end) {
        size_t nbytes = (size_t)size_min(PADDING_PIECE, end - at);
        enum status status = file_read(file, piece, nbytes, at, err);
        for (size_t i = 0; status == OK && i < nbytes; i++)
            if (piece[i]) status = err_set(err, ERR_DATA, "byte %" PRIu64 " belongs to nothing and is not zero", at + i);
        if (status != OK) return status;
        at += nbytes;
    }
    return OK;
}

enum status llmq_check_padding(struct container *container, size_t index, struct err *err)
{
    const struct llmq_shard *shard = &of_const(container)->shards[index];
    const struct file *file = &container->files[index];
    struct llmq_span *spans = NULL;
    size_t n_spans = 0;
    uint8_t *piece = malloc(PADDING_PIECE);
    enum status status = piece ? llmq_spans(shard, &spans, &n_spans, err) : err_set(err, ERR_MEMORY, "out of memory");
    uint64_t at = LLMQ_HEADER_NBYTES;
    for (size_t i = 0; status == OK && i < n_spans; i++) {
        status = check_zeros(file, at, spans[i].offset, piece, err);
        at = spans[i].offset + spans[i].nbytes;
    }
    if (status == OK) status = check_zeros(file, at, shard->trailer.index_offset, piece, err);
    free(spans);
    free(piece);
    return status == OK ? OK : err_wrap(err, status, "'%s'", shown_path(path_base(file->path)).text);
}

const struct container_ops llmq_container_ops = {
    .name = "llmq",
    .description = "packed low-bit weights, one .llmq file or a set of shards",
    .probe = llmq_probe,
    .open = llmq_open,
    .read = llmq_read,
    .read_f32 = llmq_read_f32,
    .read_plane = llmq_read_plane,
    .read_blob = llmq_read_blob,
    .check_unchanged = container_files_unchanged,
    .close = llmq_close,
};
