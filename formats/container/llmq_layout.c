/* llmq_layout.c: see llmq_layout.h.
 *
 * Drawing: tensor after tensor: does it fit in this shard? -> offsets of its mapped planes, numbers of its chunks, length of its piece of the index.
 * Why this way: see llmq_layout.h.
 * Corner cases: see llmq_layout.h; numbers over 2^53-1, which JSON readers would round, are refused.
 * Reference: FORMAT.md 1 to 3. Worked number: see llmq_layout.h.
 */
#include "container/llmq_layout.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "container/container.h"
#include "container/llmq_text.h"
#include "container/zframe.h"

#define NUMBER_MAX ((UINT64_C(1) << 53) - 1) /* largest number in the index */

static const char *printable(const struct out_tensor *tensor, char *out, size_t nbytes)
{
    return err_name(tensor->name, strlen(tensor->name), out, nbytes);
}

bool llmq_layout_maps(const struct llmq_layout *layout, const struct out_plane *plane)
{
    return plane->mapped || layout->options->compress == COMPRESS_NONE;
}

void llmq_layout_free(struct llmq_layout *layout)
{
    for (size_t i = 0; i < layout->n_shards; i++) free(layout->shards[i].formats);
    free(layout->shards);
    free(layout->laid);
    text_free(&layout->scratch);
    *layout = (struct llmq_layout){ .scratch = text_make(0) };
}

/* Upper bound of the file, exact without compression; false on overflow. */
static bool shard_nbytes(const struct llmq_out_shard *shard, uint64_t *nbytes)
{
    return size_add(shard->mapped_end, shard->chunk_nbytes, nbytes) && size_add(*nbytes, shard->text_nbytes, nbytes) &&
           size_add(*nbytes, shard->n_chunks * LLMQ_CHUNK_NBYTES + LLMQ_TRAILER_NBYTES, nbytes) && *nbytes <= INT64_MAX;
}

static bool shard_fits_format(const struct llmq_out_shard *shard)
{
    return shard->text_nbytes <= LLMQ_INDEX_MAX && shard->n_chunks <= LLMQ_CHUNKS_MAX;
}

static enum status take_length(struct llmq_layout *layout, uint64_t *total, struct err *err)
{
    enum status status = text_ok(&layout->scratch, "the index", err);
    *total += layout->scratch.nbytes;
    text_reset(&layout->scratch);
    return status;
}

static enum status begin_shard(struct llmq_layout *layout, size_t first_tensor, struct err *err)
{
    struct llmq_out_shard *shards = realloc(layout->shards, (layout->n_shards + 1) * sizeof *shards);
    if (!shards) return err_set(err, ERR_MEMORY, "out of memory for the plan of %zu files", layout->n_shards + 1);
    layout->shards = shards;
    struct llmq_out_shard *shard = &shards[layout->n_shards];
    bool is_first = layout->n_shards == 0;
    *shard = (struct llmq_out_shard){ .first_tensor = first_tensor, .mapped_end = LLMQ_HEADER_NBYTES };
    layout->n_shards++;
    for (size_t i = 0; is_first && i < layout->n_blobs; i++) {
        if (!size_add(shard->chunk_nbytes, layout->blobs[i].nbytes, &shard->chunk_nbytes) || shard->chunk_nbytes > INT64_MAX)
            return err_set(err, ERR_UNSUPPORTED, "the files of the model folder are too large");
        shard->n_chunks += size_ceil_div(layout->blobs[i].nbytes, LLMQ_BLOB_TILE);
    }
    llmq_text_head(&layout->scratch, layout, is_first);
    llmq_text_blobs(&layout->scratch, layout, is_first);
    llmq_text_end(&layout->scratch);
    return take_length(layout, &shard->text_nbytes, err);
}

static bool has_format(const struct llmq_layout *layout, const struct llmq_out_shard *shard, const char *format)
{
    for (size_t i = 0; i < shard->n_formats; i++)
        if (strcmp(layout->tensors[shard->formats[i]].format, format) == 0) return true;
    return false;
}

/* Appends the tensor's planes to the shard. */
static enum status lay_planes(const struct llmq_layout *layout, const struct out_tensor *tensor, struct llmq_laid *laid, struct llmq_out_shard *shard,
                              struct err *err)
{
    *laid = (struct llmq_laid){ { 0 }, { 0 } };
    for (uint32_t i = 0; i < tensor->n_planes; i++) {
        const struct plane *plane = &tensor->planes[i].plane;
        uint64_t nbytes = plane_nbytes(plane), at;
        laid->first[i] = shard->n_chunks;
        shard->n_chunks += plane_tile_count(plane);
        if (!llmq_layout_maps(layout, &tensor->planes[i])) {
            if (!size_add(shard->chunk_nbytes, nbytes, &shard->chunk_nbytes)) return err_set(err, ERR_UNSUPPORTED, "the output is too large");
        } else if (nbytes) {
            if (!size_align(shard->mapped_end, nbytes >= layout->align ? layout->align : LLMQ_ALIGN_SMALL, &at) ||
                !size_add(at, nbytes, &shard->mapped_end))
                return err_set(err, ERR_UNSUPPORTED, "the output is too large");
            laid->offset[i] = at;
        }
    }
    return OK;
}

/* Adds tensor number index to the last shard, whatever its size becomes; *shard is the shard afterwards. */
static enum status try_tensor(struct llmq_layout *layout, size_t index, struct llmq_out_shard *shard, struct err *err)
{
    const struct out_tensor *tensor = &layout->tensors[index];
    *shard = layout->shards[layout->n_shards - 1];
    enum status status = lay_planes(layout, tensor, &layout->laid[index], shard, err);
    if (status != OK) return status;
    llmq_text_tensor(&layout->scratch, tensor, &layout->laid[index], NULL, shard->n_tensors == 0);
    if (tensor->format && !has_format(layout, shard, tensor->format)) llmq_text_format(&layout->scratch, tensor, shard->n_formats == 0);
    shard->n_tensors++;
    return take_length(layout, &shard->text_nbytes, err);
}

static enum status keep_tensor(struct llmq_layout *layout, size_t index, const struct llmq_out_shard *tried, struct err *err)
{
    struct llmq_out_shard *shard = &layout->shards[layout->n_shards - 1];
    struct out_tensor *tensor = &layout->tensors[index];
    bool new_format = tensor->format && !has_format(layout, shard, tensor->format);
    *shard = *tried;
    tensor->shard = (uint32_t)(layout->n_shards - 1);
    if (!new_format) return OK;
    size_t *formats = realloc(shard->formats, (shard->n_formats + 1) * sizeof *formats);
    if (!formats) return err_set(err, ERR_MEMORY, "out of memory for the plan of %zu tensors", layout->n_tensors);
    formats[shard->n_formats++] = index;
    shard->formats = formats;
    return OK;
}

static enum status place_tensor(struct llmq_layout *layout, size_t index, struct err *err)
{
    struct llmq_out_shard tried;
    uint64_t nbytes, limit = layout->options->split_nbytes;
    enum status status = try_tensor(layout, index, &tried, err);
    if (status == OK && tried.n_tensors > 1 && (limit != 0) && (!shard_nbytes(&tried, &nbytes) || nbytes > limit || !shard_fits_format(&tried))) {
        status = begin_shard(layout, index, err);
        if (status == OK) status = try_tensor(layout, index, &tried, err);
    }
    if (status != OK) return status;
    if (!shard_nbytes(&tried, &nbytes)) return err_set(err, ERR_UNSUPPORTED, "the output is too large");
    if (!shard_fits_format(&tried))
        return err_set(err, ERR_UNSUPPORTED, "the output has more tensors or chunks than one llmq file holds; split it into several (--split)");
    return keep_tensor(layout, index, &tried, err);
}

static enum status check_tensor(const struct out_tensor *tensor, struct err *err)
{
    size_t length = strlen(tensor->name);
    if (length == 0 || length > TENSOR_NAME_MAX) return err_set(err, ERR_UNSUPPORTED, "its name has %zu bytes", length);
    if (tensor->rank > TENSOR_RANK_MAX) return err_set(err, ERR_UNSUPPORTED, "it has %u dims, more than %u", tensor->rank, (unsigned)TENSOR_RANK_MAX);
    if (tensor->n_planes > OUT_PLANES_MAX) return err_set(err, ERR_UNSUPPORTED, "it has %u planes", tensor->n_planes);
    for (uint32_t i = 0; i < tensor->rank; i++)
        if (tensor->dims[i] > NUMBER_MAX) return err_set(err, ERR_UNSUPPORTED, "dim %u is %" PRIu64 ", more than 2^53 - 1", i, tensor->dims[i]);
    for (uint32_t i = 0; i < tensor->n_planes; i++) {
        const struct plane *plane = &tensor->planes[i].plane;
        if (plane->rows > NUMBER_MAX || plane->cols > NUMBER_MAX) return err_set(err, ERR_UNSUPPORTED, "plane '%s' is too large", plane->name);
        enum status status = plane_check(plane, err);
        if (status != OK) return err_wrap(err, status, "plane '%s'", plane->name);
        if (plane_tile_count(plane) > LLMQ_CHUNKS_MAX) return err_set(err, ERR_UNSUPPORTED, "plane '%s' has more than 2^24 tiles", plane->name);
    }
    return OK;
}

static enum status check_options(const struct writer_options *options, struct err *err)
{
    uint32_t align = options->align ? options->align : LLMQ_ALIGN_DEFAULT;
    if (align < LLMQ_ALIGN_SMALL || align > LLMQ_ALIGN_MAX || (align & (align - 1)))
        return err_set(err, ERR_USAGE, "alignment %u is not a power of two from 64 to 2097152", align);
    if (options->n_workers == 0 || options->tiles_per_job == 0)
        return err_set(err, ERR_USAGE, "the writer needs at least one worker and one tile a job");
    return OK;
}

/* Fills *layout, and shard in every tensor; on failure it is freed. */
enum status llmq_layout_make(struct out_tensor *tensors, size_t n_tensors, const struct out_blob *blobs, size_t n_blobs,
                             const struct writer_options *options, struct llmq_layout *layout, struct err *err)
{
    char name[160];
    *layout = (struct llmq_layout){ .options = options,
                                    .align = options->align ? options->align : LLMQ_ALIGN_DEFAULT,
                                    .tensors = tensors,
                                    .n_tensors = n_tensors,
                                    .blobs = blobs,
                                    .n_blobs = n_blobs,
                                    .scratch = text_make(LLMQ_INDEX_MAX) };
    enum status status = check_options(options, err);
    if (status == OK && !(layout->laid = calloc(n_tensors + 1, sizeof *layout->laid)))
        status = err_set(err, ERR_MEMORY, "out of memory for the plan of %zu tensors", n_tensors);
    if (status == OK) status = begin_shard(layout, 0, err);
    for (size_t i = 0; status == OK && i < n_tensors; i++) {
        status = check_tensor(&tensors[i], err);
        if (status == OK) status = place_tensor(layout, i, err);
        if (status != OK) err_wrap(err, status, "cannot store tensor '%s'", printable(&tensors[i], name, sizeof name));
    }
    if (status == OK && layout->n_shards > LLMQ_SHARDS_MAX)
        status = err_set(err, ERR_USAGE, "the split size would give %zu files, more than %u", layout->n_shards, LLMQ_SHARDS_MAX);
    if (status != OK) llmq_layout_free(layout);
    return status;
}

/* Bytes of chunks that one job can append, at most, and the largest of them. */
static uint64_t job_nbytes(const struct llmq_layout *layout, uint64_t *largest)
{
    uint64_t most = 0;
    *largest = 0;
    for (size_t i = 0; i < layout->n_tensors; i++) {
        uint64_t job = 0;
        for (uint32_t p = 0; p < layout->tensors[i].n_planes; p++) {
            const struct out_plane *plane = &layout->tensors[i].planes[p];
            uint64_t n_tiles = plane_tile_count(&plane->plane);
            if (llmq_layout_maps(layout, plane) || n_tiles == 0) continue;
            uint64_t tile = plane_tile_nbytes(&plane->plane, 0);
            *largest = size_max(*largest, tile);
            job += size_min(n_tiles, layout->options->tiles_per_job) * tile;
        }
        most = size_max(most, job);
    }
    return most;
}

/* Bytes of a worker's output buffer; 0 when nothing is ever appended. */
size_t llmq_layout_buffer(const struct llmq_layout *layout, size_t *largest)
{
    uint64_t tile, job = job_nbytes(layout, &tile);
    *largest = (size_t)tile;
    return job ? (size_t)(job + zframe_slack((size_t)tile)) : 0;
}

/* Memory of finish: the index text, its compressed form and the table of one shard. */
static uint64_t index_memory(const struct llmq_layout *layout)
{
    uint64_t tables = 0, largest = 0;
    bool compressed = layout->options->compress != COMPRESS_NONE;
    for (size_t i = 0; i < layout->n_shards; i++) {
        const struct llmq_out_shard *shard = &layout->shards[i];
        uint64_t table = shard->n_chunks * LLMQ_CHUNK_NBYTES;
        uint64_t text = compressed ? 2 * shard->text_nbytes + zframe_slack((size_t)shard->text_nbytes) : shard->text_nbytes;
        largest = size_max(largest, text + table);
        tables += table;
    }
    uint64_t coders = compressed ? zframe_coder_nbytes(LLMQ_ZSTD_LEVEL, LLMQ_BLOB_TILE) + (4u << 20) : 0;
    return tables + largest + coders + 2 * LLMQ_BLOB_TILE + layout->n_tensors * sizeof(struct llmq_laid) +
           layout->n_shards * sizeof(struct llmq_out_shard);
}

enum status llmq_layout_measure(const struct llmq_layout *layout, struct writer_size *size, struct err *err)
{
    *size = (struct writer_size){ .exact = layout->options->compress == COMPRESS_NONE, .n_files = (uint32_t)layout->n_shards };
    for (size_t i = 0; i < layout->n_shards; i++) {
        uint64_t nbytes;
        if (!shard_nbytes(&layout->shards[i], &nbytes) || !size_add(size->nbytes, nbytes, &size->nbytes) || size->nbytes > INT64_MAX)
            return err_set(err, ERR_UNSUPPORTED, "the output is too large");
    }
    size_t largest, buffer = llmq_layout_buffer(layout, &largest);
    if (buffer) size->worker_nbytes = buffer + zframe_coder_nbytes(LLMQ_ZSTD_LEVEL, largest);
    size->index_nbytes = index_memory(layout);
    return OK;
}
