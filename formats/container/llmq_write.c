/* llmq_write.c: llmq_writer_ops, planned tensors become one .llmq file or a set of shards.
 *
 *   plan:   llmq_layout.h
 *   open:   files created, blobs appended      put: mapped parts pwritten at once; others compressed, then appended in ticket order
 *   finish: index and table of every shard, then trailers, headers last
 *
 * Why this way: everything but the stored sizes of compressed chunks is known before the first byte is written, so raw planes need no second pass
 * and no buffer, and with COMPRESS_NONE the size is exact. All expensive work (checksum, zstd, pwrite) happens outside the turn, which only hands
 * out offsets. The header is written last: a file without it is not an llmq file.
 * Corner cases: a chunk that zstd does not shrink is stored raw; every chunk must be
 * put exactly once, finish says which one was not.
 * Reference: FORMAT.md. Worked number: see llmq_layout.h.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "base/size.h"
#include "container/llmq_text.h"
#include "container/zframe.h"

#define EXTENSION ".llmq"

static const char *printable(const struct out_tensor *tensor, char *out, size_t nbytes)
{
    return err_name(tensor->name, strlen(tensor->name), out, nbytes);
}

static enum status llmq_plan(struct out_tensor *tensors, size_t n_tensors, const struct out_blob *blobs, size_t n_blobs,
                             const struct writer_options *options, struct writer_size *size, struct err *err)
{
    struct llmq_layout layout;
    enum status status = llmq_layout_make(tensors, n_tensors, blobs, n_blobs, options, &layout, err);
    if (status != OK) return status;
    status = llmq_layout_measure(&layout, size, err);
    llmq_layout_free(&layout);
    return status;
}

/* ---- open ----------------------------------------------------------------------------------------------------------------------- */

/* A shard while it is written. append and has_zstd change only while a ticket has its turn. */
struct shard_file {
    struct outfile *file;
    uint8_t *table; /* n_chunks * 24 bytes; an entry with offset 0 is not yet there */
    uint64_t append; /* next free byte of the chunk region */
    bool has_zstd;
    struct digest128 index_digest;
    struct llmq_trailer trailer;
};

struct worker {
    struct zframe_coder *coder;
    uint8_t *out;
    size_t out_nbytes;
};

struct writer {
    struct llmq_layout layout;
    struct writer_options options;
    struct shard_file *files; /* one a shard */
    struct worker *workers;
    struct turn turn;
};

static enum status store_chunk(struct shard_file *file, uint64_t number, const struct llmq_chunk *chunk, struct err *err)
{
    uint8_t *entry = file->table + number * LLMQ_CHUNK_NBYTES;
    if (llmq_chunk_load(entry).offset) return err_set(err, ERR_USAGE, "chunk %" PRIu64 " was put twice", number);
    llmq_chunk_store(chunk, entry);
    return OK;
}

/* One chunk into dst (nbytes + zframe_slack there): a frame, or the bytes as they are. */
static enum status code_chunk(struct zframe_coder *coder, const uint8_t *bytes, size_t nbytes, uint8_t *dst, struct llmq_chunk *chunk,
                              struct err *err)
{
    size_t stored = nbytes;
    if (coder) {
        enum status status = zframe_code(coder, bytes, nbytes, dst, &stored, err);
        if (status != OK) return status;
    }
    if (stored == nbytes) memcpy(dst, bytes, nbytes);
    *chunk = (struct llmq_chunk){ .stored = (uint32_t)stored, .codec = stored == nbytes ? LLMQ_RAW : LLMQ_ZSTD, .checksum = digest64(dst, stored) };
    return OK;
}

/* Appends one blob to the first shard, its chunks numbered from *number on. */
static enum status append_blob(struct writer *writer, const struct out_blob *blob, struct zframe_coder *coder, uint8_t *in, uint8_t *out,
                               uint64_t *number, struct err *err)
{
    struct shard_file *file = &writer->files[0];
    for (uint64_t at = 0; at < blob->nbytes; at += LLMQ_BLOB_TILE) {
        size_t nbytes = (size_t)size_min(LLMQ_BLOB_TILE, blob->nbytes - at);
        struct llmq_chunk chunk;
        enum status status = blob->read(blob->context, blob->index, at, nbytes, in, err);
        if (status == OK) status = code_chunk(coder, in, nbytes, out, &chunk, err);
        if (status != OK) return status;
        chunk.offset = file->append;
        file->append += chunk.stored;
        file->has_zstd |= chunk.codec == LLMQ_ZSTD;
        status = store_chunk(file, (*number)++, &chunk, err);
        if (status == OK) status = outfile_write(file->file, out, chunk.stored, chunk.offset, err);
        if (status != OK) return status;
    }
    return OK;
}

static enum status append_blobs(struct writer *writer, struct err *err)
{
    const struct llmq_layout *layout = &writer->layout;
    if (layout->n_blobs == 0) return OK;
    bool compressed = writer->options.compress != COMPRESS_NONE;
    struct zframe_coder *coder = compressed ? zframe_coder_open(LLMQ_ZSTD_LEVEL) : NULL;
    uint8_t *in = malloc(LLMQ_BLOB_TILE), *out = malloc(LLMQ_BLOB_TILE + zframe_slack(LLMQ_BLOB_TILE));
    enum status status = !in || !out || (compressed && !coder) ? err_set(err, ERR_MEMORY, "out of memory for the files of the model folder") : OK;
    uint64_t number = 0;
    for (size_t i = 0; status == OK && i < layout->n_blobs; i++) {
        char name[160];
        const struct out_blob *blob = &layout->blobs[i];
        status = append_blob(writer, blob, coder, in, out, &number, err);
        if (status != OK) err_wrap(err, status, "cannot store file '%s'", err_name(blob->name, strlen(blob->name), name, sizeof name));
    }
    free(out);
    free(in);
    zframe_coder_close(coder);
    return status;
}

/* NAME.llmq of one file, NAME-00001-of-00003.llmq of several. */
static void shard_path(const char *path, size_t index, size_t count, struct text *out)
{
    size_t length = strlen(path), extension = strlen(EXTENSION);
    text_reset(out);
    if (count == 1) {
        text_add_bytes(out, path, length);
        return;
    }
    if (length > extension && strcmp(path + length - extension, EXTENSION) == 0) length -= extension;
    text_add_bytes(out, path, length);
    text_add(out, "-%05zu-of-%05zu%s", index + 1, count, EXTENSION);
}

static enum status create_files(struct writer *writer, struct outset *set, struct err *err)
{
    struct llmq_layout *layout = &writer->layout;
    enum status status = OK;
    for (size_t i = 0; status == OK && i < layout->n_shards; i++) {
        shard_path(writer->options.path, i, layout->n_shards, &layout->scratch);
        status = text_ok(&layout->scratch, "an output path", err);
        if (status == OK) status = outset_add(set, layout->scratch.data, &writer->files[i].file, err);
        writer->files[i].append = layout->shards[i].mapped_end;
        uint64_t n_chunks = layout->shards[i].n_chunks;
        writer->files[i].table = calloc((size_t)n_chunks + 1, LLMQ_CHUNK_NBYTES);
        if (status == OK && !writer->files[i].table) status = err_set(err, ERR_MEMORY, "out of memory for a table of %" PRIu64 " chunks", n_chunks);
    }
    text_reset(&layout->scratch);
    return status;
}

static enum status equip_workers(struct writer *writer, struct err *err)
{
    size_t largest, buffer = llmq_layout_buffer(&writer->layout, &largest);
    writer->workers = calloc(writer->options.n_workers, sizeof *writer->workers);
    if (!writer->workers) return err_set(err, ERR_MEMORY, "out of memory for %u workers", writer->options.n_workers);
    for (unsigned i = 0; buffer && i < writer->options.n_workers; i++) {
        struct worker *worker = &writer->workers[i];
        worker->coder = zframe_coder_open(LLMQ_ZSTD_LEVEL);
        worker->out = malloc(buffer);
        worker->out_nbytes = buffer;
        if (!worker->coder || !worker->out)
            return err_set(err, ERR_MEMORY, "out of memory for the buffers of %u workers (%zu bytes each)", writer->options.n_workers, buffer);
    }
    return OK;
}

static void llmq_close(struct writer *writer)
{
    if (!writer) return;
    for (size_t i = 0; writer->files && i < writer->layout.n_shards; i++) free(writer->files[i].table);
    free(writer->files);
    for (unsigned i = 0; writer->workers && i < writer->options.n_workers; i++) {
        zframe_coder_close(writer->workers[i].coder);
        free(writer->workers[i].out);
    }
    free(writer->workers);
    llmq_layout_free(&writer->layout);
    turn_destroy(&writer->turn);
    free(writer);
}

static enum status start(struct writer *writer, struct outset *set, struct err *err)
{
    struct writer_size size;
    enum status status = llmq_layout_measure(&writer->layout, &size, err);
    writer->files = calloc(writer->layout.n_shards, sizeof *writer->files);
    if (status == OK && !writer->files) status = err_set(err, ERR_MEMORY, "out of memory for %zu files", writer->layout.n_shards);
    if (status == OK) status = outset_check_space(set, writer->options.path, size.nbytes, err);
    if (status == OK) status = create_files(writer, set, err);
    if (status == OK) status = equip_workers(writer, err);
    if (status == OK) status = append_blobs(writer, err);
    return status;
}

static enum status llmq_open(struct outset *set, struct out_tensor *tensors, size_t n_tensors, const struct out_blob *blobs, size_t n_blobs,
                             const struct writer_options *options, struct writer **out, struct err *err)
{
    *out = NULL;
    struct writer *writer = calloc(1, sizeof *writer);
    if (!writer) return err_set(err, ERR_MEMORY, "out of memory for the writer");
    turn_init(&writer->turn);
    writer->options = *options;
    enum status status = llmq_layout_make(tensors, n_tensors, blobs, n_blobs, &writer->options, &writer->layout, err);
    if (status == OK) status = start(writer, set, err);
    if (status != OK) {
        llmq_close(writer);
        return status;
    }
    *out = writer;
    return OK;
}

/* ---- put ------------------------------------------------------------------------------------------------------------------------ */

static enum status check_part(const struct out_tensor *tensor, const struct part *part, struct err *err)
{
    if (part->plane >= tensor->n_planes || part->tile >= plane_tile_count(&tensor->planes[part->plane].plane))
        return err_set(err, ERR_USAGE, "there is no tile %" PRIu64 " of plane %u", part->tile, part->plane);
    uint64_t wanted = plane_tile_nbytes(&tensor->planes[part->plane].plane, part->tile);
    if (part->nbytes != wanted) return err_set(err, ERR_USAGE, "tile %" PRIu64 " has %zu bytes, wanted %" PRIu64, part->tile, part->nbytes, wanted);
    return OK;
}

/* A run of bytes that lie one behind the other in memory and in the file. */
struct run {
    const uint8_t *bytes;
    size_t nbytes;
    uint64_t offset;
};

static enum status flush_run(struct shard_file *file, struct run *run, struct err *err)
{
    size_t nbytes = run->nbytes;
    run->nbytes = 0;
    return nbytes ? outfile_write(file->file, run->bytes, nbytes, run->offset, err) : OK;
}

/* Writes all parts of one mapped plane in place. */
static enum status put_mapped(struct writer *writer, size_t index, uint32_t plane_index, const struct part *parts, size_t n_parts, struct err *err)
{
    const struct out_tensor *tensor = &writer->layout.tensors[index];
    const struct llmq_laid *laid = &writer->layout.laid[index];
    const struct plane *plane = &tensor->planes[plane_index].plane;
    struct shard_file *file = &writer->files[tensor->shard];
    struct run run = { NULL, 0, 0 };
    enum status status = OK;
    for (size_t i = 0; status == OK && i < n_parts; i++) {
        const struct part *part = &parts[i];
        if (part->plane != plane_index) continue;
        struct llmq_chunk chunk = { .offset = laid->offset[plane_index] + plane_tile_offset(plane, part->tile),
                                    .stored = (uint32_t)part->nbytes,
                                    .codec = LLMQ_RAW,
                                    .checksum = digest64(part->bytes, part->nbytes) };
        status = store_chunk(file, laid->first[plane_index] + part->tile, &chunk, err);
        if (status == OK && (run.nbytes == 0 || run.bytes + run.nbytes != part->bytes || run.offset + run.nbytes != chunk.offset)) {
            status = flush_run(file, &run, err);
            run = (struct run){ part->bytes, 0, chunk.offset };
        }
        run.nbytes += part->nbytes;
    }
    return status == OK ? flush_run(file, &run, err) : status;
}

/* Compresses the parts of planes that are not mapped into the worker's buffer; their chunks get offsets from 1 on, relative to the place the turn
 * will give. */
static enum status code_parts(struct writer *writer, struct worker *worker, size_t index, const struct part *parts, size_t n_parts, size_t *used,
                              bool *has_zstd, struct err *err)
{
    const struct out_tensor *tensor = &writer->layout.tensors[index];
    struct shard_file *file = &writer->files[tensor->shard];
    for (size_t i = 0; i < n_parts; i++) {
        const struct part *part = &parts[i];
        if (llmq_layout_maps(&writer->layout, &tensor->planes[part->plane])) continue;
        if (worker->out_nbytes - *used < part->nbytes + zframe_slack(part->nbytes))
            return err_set(err, ERR_USAGE, "a job brings more tiles than planned");
        struct llmq_chunk chunk;
        enum status status = code_chunk(worker->coder, part->bytes, part->nbytes, worker->out + *used, &chunk, err);
        chunk.offset = 1 + *used;
        if (status == OK) status = store_chunk(file, writer->layout.laid[index].first[part->plane] + part->tile, &chunk, err);
        if (status != OK) return status;
        *used += chunk.stored;
        *has_zstd |= chunk.codec == LLMQ_ZSTD;
    }
    return OK;
}

static void move_parts(struct writer *writer, size_t index, const struct part *parts, size_t n_parts, uint64_t base)
{
    const struct out_tensor *tensor = &writer->layout.tensors[index];
    struct shard_file *file = &writer->files[tensor->shard];
    for (size_t i = 0; i < n_parts; i++) {
        if (llmq_layout_maps(&writer->layout, &tensor->planes[parts[i].plane])) continue;
        uint8_t *entry = file->table + (writer->layout.laid[index].first[parts[i].plane] + parts[i].tile) * LLMQ_CHUNK_NBYTES;
        struct llmq_chunk chunk = llmq_chunk_load(entry);
        chunk.offset += base - 1;
        llmq_chunk_store(&chunk, entry);
    }
}

/* Everything that needs no turn. */
static enum status prepare(struct writer *writer, unsigned worker, size_t index, const struct part *parts, size_t n_parts, size_t *used,
                           bool *has_zstd, struct err *err)
{
    if (worker >= writer->options.n_workers || (n_parts && index >= writer->layout.n_tensors))
        return err_set(err, ERR_USAGE, "no such worker or tensor");
    if (n_parts == 0) return OK;
    const struct out_tensor *tensor = &writer->layout.tensors[index];
    enum status status = OK;
    for (size_t i = 0; status == OK && i < n_parts; i++) status = check_part(tensor, &parts[i], err);
    for (uint32_t p = 0; status == OK && p < tensor->n_planes; p++)
        if (llmq_layout_maps(&writer->layout, &tensor->planes[p])) status = put_mapped(writer, index, p, parts, n_parts, err);
    if (status == OK) status = code_parts(writer, &writer->workers[worker], index, parts, n_parts, used, has_zstd, err);
    return status;
}

static enum status llmq_put(struct writer *writer, unsigned worker, uint64_t ticket, size_t tensor, const struct part *parts, size_t n_parts,
                            void (*in_order)(void *context), void *context, struct err *err)
{
    size_t used = 0;
    bool has_zstd = false;
    uint64_t base = 0;
    enum status status = prepare(writer, worker, tensor, parts, n_parts, &used, &has_zstd, err);
    if (status == OK && !turn_wait(&writer->turn, ticket)) status = err_set(err, ERR_CANCELLED, "stopped");
    if (status == OK) {
        if (used) {
            struct shard_file *file = &writer->files[writer->layout.tensors[tensor].shard];
            base = file->append;
            file->append += used;
            file->has_zstd |= has_zstd;
        }
        if (in_order) in_order(context);
        turn_done(&writer->turn, ticket);
    }
    if (status == OK && used) {
        move_parts(writer, tensor, parts, n_parts, base);
        status = outfile_write(writer->files[writer->layout.tensors[tensor].shard].file, writer->workers[worker].out, used, base, err);
    }
    if (status == OK) return OK;
    turn_abort(&writer->turn);
    if (status == ERR_CANCELLED || tensor >= writer->layout.n_tensors) return status;
    char name[160];
    return err_wrap(err, status, "cannot write tensor '%s'", printable(&writer->layout.tensors[tensor], name, sizeof name));
}

static void llmq_abort(struct writer *writer)
{
    turn_abort(&writer->turn);
}

/* ---- finish --------------------------------------------------------------------------------------------------------------------- */

/* The index text of a shard into out, which holds exactly shard->text_nbytes. */
struct sink {
    struct text *scratch;
    char *out;
    uint64_t n, limit;
};

static void drain(struct sink *sink)
{
    struct text *scratch = sink->scratch;
    if (!scratch->failed && scratch->nbytes <= sink->limit - sink->n) memcpy(sink->out + sink->n, scratch->data, scratch->nbytes);
    else scratch->failed = true;
    sink->n += scratch->failed ? 0 : scratch->nbytes;
    text_reset(scratch);
}

static enum status write_text(struct writer *writer, size_t number, const struct digest128 *digests, char *out, struct err *err)
{
    struct llmq_layout *layout = &writer->layout;
    const struct llmq_out_shard *shard = &layout->shards[number];
    struct sink sink = { &layout->scratch, out, 0, shard->text_nbytes };
    llmq_text_head(sink.scratch, layout, number == 0);
    for (size_t i = 0; i < shard->n_formats; i++) llmq_text_format(sink.scratch, &layout->tensors[shard->formats[i]], i == 0);
    llmq_text_blobs(sink.scratch, layout, number == 0);
    drain(&sink);
    for (size_t i = 0; i < shard->n_tensors; i++) {
        size_t index = shard->first_tensor + i;
        llmq_text_tensor(sink.scratch, &layout->tensors[index], &layout->laid[index], &digests[index], i == 0);
        drain(&sink);
    }
    llmq_text_end(sink.scratch);
    drain(&sink);
    enum status status = text_ok(sink.scratch, "the index", err);
    assert(status != OK || sink.n == sink.limit);
    return status;
}

/* The owner of a chunk nobody put, for the message. */
static enum status missing_chunk(const struct writer *writer, size_t number, uint64_t chunk, struct err *err)
{
    const struct llmq_out_shard *shard = &writer->layout.shards[number];
    for (size_t i = shard->first_tensor; i < shard->first_tensor + shard->n_tensors; i++) {
        const struct out_tensor *tensor = &writer->layout.tensors[i];
        for (uint32_t p = 0; p < tensor->n_planes; p++) {
            uint64_t first = writer->layout.laid[i].first[p];
            char name[160];
            if (chunk - first < plane_tile_count(&tensor->planes[p].plane) && chunk >= first)
                return err_set(err, ERR_USAGE, "tile %" PRIu64 " of plane '%s' of tensor '%s' was never written", chunk - first,
                               tensor->planes[p].plane.name, printable(tensor, name, sizeof name));
        }
    }
    return err_set(err, ERR_USAGE, "chunk %" PRIu64 " was never written", chunk);
}

static enum status check_complete(const struct writer *writer, size_t number, struct err *err)
{
    for (uint64_t i = 0; i < writer->layout.shards[number].n_chunks; i++)
        if (llmq_chunk_load(writer->files[number].table + i * LLMQ_CHUNK_NBYTES).offset == 0) return missing_chunk(writer, number, i, err);
    return OK;
}

/* Text of raw bytes at the start of buffer -> stored index there; *stored is its size. */
static enum status compress_index(char *buffer, uint64_t raw, uint64_t *stored, struct err *err)
{
    size_t n = (size_t)raw;
    struct zframe_coder *coder = zframe_coder_open(LLMQ_ZSTD_LEVEL);
    char *out = malloc(n + zframe_slack(n));
    enum status status =
        coder && out ? zframe_code(coder, buffer, n, out, &n, err) : err_set(err, ERR_MEMORY, "out of memory for an index of %zu bytes", n);
    if (status == OK && n < raw && n * (uint64_t)LLMQ_INDEX_RATIO_MAX >= raw) {
        memcpy(buffer, out, n);
        *stored = n;
    }
    free(out);
    zframe_coder_close(coder);
    return status;
}

static enum status write_index(struct writer *writer, size_t number, const struct digest128 *digests, struct err *err)
{
    const struct llmq_out_shard *shard = &writer->layout.shards[number];
    struct shard_file *file = &writer->files[number];
    size_t table = (size_t)(shard->n_chunks * LLMQ_CHUNK_NBYTES);
    uint64_t stored = shard->text_nbytes;
    enum status status = check_complete(writer, number, err);
    if (status != OK) return status;
    char *buffer = malloc((size_t)shard->text_nbytes + table);
    if (!buffer) return err_set(err, ERR_MEMORY, "out of memory for an index of %" PRIu64 " bytes", shard->text_nbytes);
    status = write_text(writer, number, digests, buffer, err);
    if (status == OK && writer->options.compress != COMPRESS_NONE) status = compress_index(buffer, shard->text_nbytes, &stored, err);
    if (status == OK) {
        memcpy(buffer + stored, file->table, table);
        file->has_zstd |= stored < shard->text_nbytes;
        file->trailer = (struct llmq_trailer){ .index_offset = file->append,
                                               .index_stored = stored,
                                               .index_raw = shard->text_nbytes,
                                               .n_chunks = shard->n_chunks,
                                               .index_digest = digest128(buffer, (size_t)stored + table),
                                               .file_nbytes = file->append + stored + table + LLMQ_TRAILER_NBYTES };
        status = outfile_write(file->file, buffer, (size_t)stored + table, file->append, err);
    }
    free(buffer);
    return status;
}

static enum status write_ends(struct writer *writer, size_t number, struct digest128 set_digest, struct err *err)
{
    struct shard_file *file = &writer->files[number];
    uint8_t header[LLMQ_HEADER_NBYTES], trailer[LLMQ_TRAILER_NBYTES];
    struct llmq_header facts = { .required = file->has_zstd ? LLMQ_REQUIRED_ZSTD : 0,
                                 .align = writer->layout.align,
                                 .shard_index = (uint32_t)number,
                                 .shard_count = (uint32_t)writer->layout.n_shards };
    file->trailer.header_checksum = llmq_header_store(&facts, header);
    file->trailer.set_digest = set_digest;
    llmq_trailer_store(&file->trailer, trailer);
    enum status status = outfile_write(file->file, trailer, sizeof trailer, file->trailer.file_nbytes - sizeof trailer, err);
    return status == OK ? outfile_write(file->file, header, sizeof header, 0, err) : status;
}

static enum status llmq_finish(struct writer *writer, const struct digest128 *source_digests, struct err *err)
{
    size_t n_shards = writer->layout.n_shards;
    struct digest128 *all = calloc(n_shards, sizeof *all);
    enum status status = all ? OK : err_set(err, ERR_MEMORY, "out of memory for %zu files", n_shards);
    for (size_t i = 0; status == OK && i < n_shards; i++) {
        status = write_index(writer, i, source_digests, err);
        all[i] = writer->files[i].trailer.index_digest;
    }
    for (size_t i = 0; status == OK && i < n_shards; i++) status = write_ends(writer, i, digest128(all, n_shards * sizeof *all), err);
    free(all);
    return status;
}

const struct writer_ops llmq_writer_ops = { .name = "llmq",
                                            .extension = EXTENSION,
                                            .quantised = true,
                                            .digests = true,
                                            .plan = llmq_plan,
                                            .open = llmq_open,
                                            .put = llmq_put,
                                            .abort = llmq_abort,
                                            .finish = llmq_finish,
                                            .close = llmq_close };
