/* safetensors_write.c: safetensors_writer_ops, plain tensors become model.safetensors or a Hugging Face model folder.
 *
 *   file:    N (8 bytes) | JSON, padded with blanks to a multiple of 8 | tensor 0 | tensor 1 | ...          tensors in the order of the plan
 *   folder:  config.json ... , model.safetensors   or   model-00001-of-00003.safetensors ..., model.safetensors.index.json
 *
 *   size of a file = 8 + ceil8(JSON) + sum of tensor bytes
 *
 * Why this way: all offsets are fixed in the plan, so the header is written when the file is opened and tiles go to their place in any order. The
 * folder's index is the last file to appear: without it nobody takes the shards for a model.
 * Corner cases: a path is a folder when it ends in '/' or is one; a single file has no place for blobs and is never split (ERR_USAGE for both);
 * metadata gets "format": "pt" unless it has a format; a header over 100,000,000 bytes begins a new shard; names of blobs that would be in the way
 * of the output are refused.
 * Reference: safetensors README; transformers' index files. Worked number: one tensor U8 [3]: JSON of 84 bytes and 4 blanks, data at 96, file of 99
 * bytes.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/pool.h"
#include "base/size.h"
#include "base/text.h"
#include "container/container.h"
#include "container/safetensors_header.h"
#include "container/shown.h"
#include "container/writer.h"

#define SPLIT_DEFAULT UINT64_C(5000000000)
#define PIECE_NBYTES (1u << 20) /* texts go to the file in pieces of about this size */
#define BLOB_PIECE 262144u
#define FILES_MAX 99999u
#define INDEX_NAME "model.safetensors.index.json"
#define SINGLE_NAME "model.safetensors"

struct shard {
    size_t first_tensor, n_tensors;
    uint64_t json_nbytes; /* of the header text without padding */
    uint64_t data_nbytes;
};

struct folder_layout {
    const struct writer_options *options;
    struct out_tensor *tensors;
    size_t n_tensors;
    const struct out_blob *blobs;
    size_t n_blobs;
    bool is_folder;
    uint64_t split;
    uint64_t *begin; /* of each tensor, in the data of its shard */
    struct shard *shards;
    size_t n_shards;
    uint64_t index_nbytes; /* of the folder's index, 0 when there is none */
    char *metadata; /* members of __metadata__ without braces, owned */
    struct text scratch;
};

static const struct plane *data_of(const struct out_tensor *tensor)
{
    return &tensor->planes[0].plane;
}

/* ---- texts ---------------------------------------------------------------------------------------------------------------------- */

static void add_head(struct text *text, const struct folder_layout *layout)
{
    text_add(text, "{\"__metadata__\":{");
    text_add_bytes(text, layout->metadata, strlen(layout->metadata));
    text_add(text, "}");
}

static void add_tensor(struct text *text, const struct out_tensor *tensor, uint64_t begin)
{
    text_add(text, ",");
    text_add_json_str(text, tensor->name);
    text_add(text, ":{\"dtype\":");
    text_add_json_str(text, tensor->dtype);
    text_add(text, ",\"shape\":[");
    for (uint32_t i = 0; i < tensor->rank; i++) text_add(text, i ? ",%" PRIu64 : "%" PRIu64, tensor->dims[i]);
    text_add(text, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", begin, begin + plane_nbytes(data_of(tensor)));
}

static void file_name(size_t index, size_t count, char out[64])
{
    if (count == 1) snprintf(out, 64, SINGLE_NAME);
    else snprintf(out, 64, "model-%05zu-of-%05zu.safetensors", index + 1, count);
}

static void add_index_head(struct text *text, const struct folder_layout *layout)
{
    uint64_t total = 0;
    for (size_t i = 0; i < layout->n_shards; i++) total += layout->shards[i].data_nbytes;
    text_add(text, "{\n  \"metadata\": {\n    \"total_size\": %" PRIu64 "\n  },\n  \"weight_map\": {", total);
}

static void add_index_tensor(struct text *text, const struct folder_layout *layout, size_t index)
{
    char name[64];
    file_name(layout->tensors[index].shard, layout->n_shards, name);
    text_add(text, index ? ",\n    " : "\n    ");
    text_add_json_str(text, layout->tensors[index].name);
    text_add(text, ": \"%s\"", name);
}

static void add_index_end(struct text *text)
{
    text_add(text, "\n  }\n}\n");
}

/* ---- plan ----------------------------------------------------------------------------------------------------------------------- */

static void layout_free(struct folder_layout *layout)
{
    free(layout->begin);
    free(layout->shards);
    free(layout->metadata);
    text_free(&layout->scratch);
    *layout = (struct folder_layout){ .scratch = text_make(0) };
}

static uint64_t data_start(const struct shard *shard)
{
    return 8 + (shard->json_nbytes + 7) / 8 * 8;
}

struct metadata_walk {
    struct text text;
    bool has_format;
};

static enum status take_metadata(void *context, const char *key, size_t key_nbytes, const char *value, size_t value_nbytes, struct err *err)
{
    struct metadata_walk *walk = context;
    if (value_nbytes == 0 || value[0] != '"') return err_set(err, ERR_DATA, "metadata '%s' is not a string", shown(key, key_nbytes).text);
    walk->has_format |= key_nbytes == 6 && memcmp(key, "format", 6) == 0;
    if (walk->text.nbytes) text_add(&walk->text, ",");
    text_add_json(&walk->text, key, key_nbytes);
    text_add(&walk->text, ":");
    text_add_bytes(&walk->text, value, value_nbytes);
    return OK;
}

static enum status make_metadata(struct folder_layout *layout, struct err *err)
{
    const struct json_limits limits = { .max_depth = 2, .max_values = 1 };
    struct metadata_walk walk = { .text = text_make(SAFETENSORS_HEADER_MAX) };
    const char *source = layout->options->metadata_json;
    enum status status = source ? json_walk_object(source, strlen(source), &limits, take_metadata, &walk, err) : OK;
    if (!walk.has_format) text_add(&walk.text, "%s\"format\":\"pt\"", walk.text.nbytes ? "," : "");
    if (status == OK) status = text_ok(&walk.text, "the metadata", err);
    if (status == OK && !(layout->metadata = strdup(walk.text.data))) status = err_set(err, ERR_MEMORY, "out of memory for the metadata");
    text_free(&walk.text);
    return status;
}

static enum status take_length(struct folder_layout *layout, uint64_t *total, struct err *err)
{
    enum status status = text_ok(&layout->scratch, "a header", err);
    *total += layout->scratch.nbytes;
    text_reset(&layout->scratch);
    return status;
}

static enum status begin_shard(struct folder_layout *layout, size_t first_tensor, struct err *err)
{
    struct shard *shards = realloc(layout->shards, (layout->n_shards + 1) * sizeof *shards);
    if (!shards) return err_set(err, ERR_MEMORY, "out of memory for the plan of %zu files", layout->n_shards + 1);
    layout->shards = shards;
    struct shard *shard = &shards[layout->n_shards++];
    *shard = (struct shard){ .first_tensor = first_tensor, .json_nbytes = 1 }; /* the closing brace */
    add_head(&layout->scratch, layout);
    return take_length(layout, &shard->json_nbytes, err);
}

static bool is_too_large(const struct folder_layout *layout, const struct shard *shard)
{
    return shard->json_nbytes > SAFETENSORS_HEADER_MAX - 8 || shard->data_nbytes > layout->split ||
           data_start(shard) > layout->split - shard->data_nbytes;
}

static enum status try_tensor(struct folder_layout *layout, size_t index, struct shard *shard, struct err *err)
{
    *shard = layout->shards[layout->n_shards - 1];
    layout->begin[index] = shard->data_nbytes;
    add_tensor(&layout->scratch, &layout->tensors[index], shard->data_nbytes);
    if (!size_add(shard->data_nbytes, plane_nbytes(data_of(&layout->tensors[index])), &shard->data_nbytes) || shard->data_nbytes > INT64_MAX / 2)
        return err_set(err, ERR_UNSUPPORTED, "the output is too large");
    shard->n_tensors++;
    return take_length(layout, &shard->json_nbytes, err);
}

static enum status place_tensor(struct folder_layout *layout, size_t index, struct err *err)
{
    struct shard tried;
    enum status status = try_tensor(layout, index, &tried, err);
    if (status == OK && tried.n_tensors > 1 && layout->is_folder && is_too_large(layout, &tried)) {
        status = begin_shard(layout, index, err);
        if (status == OK) status = try_tensor(layout, index, &tried, err);
    }
    if (status != OK) return status;
    if (tried.json_nbytes > SAFETENSORS_HEADER_MAX - 8)
        return err_set(err, ERR_UNSUPPORTED, "the header is over the format's limit of 100000000 bytes; write a folder");
    layout->tensors[index].shard = (uint32_t)(layout->n_shards - 1);
    layout->shards[layout->n_shards - 1] = tried;
    return OK;
}

static enum status check_tensor(const struct out_tensor *tensor, struct err *err)
{
    uint64_t bits = 1;
    if (tensor->format || tensor->n_planes != 1) return err_set(err, ERR_UNSUPPORTED, "safetensors files hold plain tensors only");
    const struct plane *plane = data_of(tensor);
    enum status status = plane_check(plane, err);
    if (status != OK) return status;
    const struct dtype *dtype = dtype_find(tensor->dtype, strlen(tensor->dtype));
    bool good = dtype != NULL;
    for (uint32_t i = 0; good && i < tensor->rank; i++) good = size_mul(bits, tensor->dims[i], &bits);
    if (!good || !size_mul(bits, dtype->bits, &bits) || bits % 8 || bits / 8 != plane_nbytes(plane))
        return err_set(err, ERR_USAGE, "its shape and dtype '%s' do not go with %" PRIu64 " bytes", shown_str(tensor->dtype).text,
                       plane_nbytes(plane));
    return OK;
}

static bool begins_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static enum status check_blobs(const struct folder_layout *layout, struct err *err)
{
    for (size_t i = 0; i < layout->n_blobs; i++) {
        const char *name = layout->blobs[i].name;
        if (!layout->is_folder)
            return err_set(err, ERR_USAGE, "a single safetensors file has no place for '%s'; write a folder (a path that ends in '/')",
                           shown_str(name).text);
        if (!path_is_plain_name(name, strlen(name))) return err_set(err, ERR_DATA, "'%s' is no plain file name", shown_str(name).text);
        const char *end = strrchr(name, '.');
        if (strcmp(name, INDEX_NAME) == 0 || (begins_with(name, "model") && end && strcmp(end, ".safetensors") == 0))
            return err_set(err, ERR_DATA, "the file '%s' of the model folder has a name that the output needs", shown_str(name).text);
    }
    return OK;
}

static enum status measure_index(struct folder_layout *layout, struct err *err)
{
    enum status status = OK;
    if (layout->n_shards == 1) return OK;
    add_index_head(&layout->scratch, layout);
    for (size_t i = 0; status == OK && i < layout->n_tensors; i++) {
        add_index_tensor(&layout->scratch, layout, i);
        status = take_length(layout, &layout->index_nbytes, err);
    }
    add_index_end(&layout->scratch);
    return status == OK ? take_length(layout, &layout->index_nbytes, err) : status;
}

static enum status place_all(struct folder_layout *layout, struct err *err)
{
    enum status status = make_metadata(layout, err);
    if (status == OK) status = check_blobs(layout, err);
    if (status == OK && !(layout->begin = calloc(layout->n_tensors + 1, sizeof *layout->begin)))
        status = err_set(err, ERR_MEMORY, "out of memory for the plan of %zu tensors", layout->n_tensors);
    if (status == OK) status = begin_shard(layout, 0, err);
    for (size_t i = 0; status == OK && i < layout->n_tensors; i++) {
        status = check_tensor(&layout->tensors[i], err);
        if (status == OK) status = place_tensor(layout, i, err);
        if (status != OK) err_wrap(err, status, "cannot store tensor '%s'", shown_str(layout->tensors[i].name).text);
    }
    if (status != OK) return status;
    if (layout->n_shards > FILES_MAX)
        return err_set(err, ERR_USAGE, "the split size would give %zu files, more than %u", layout->n_shards, FILES_MAX);
    if (!layout->is_folder && layout->options->split_nbytes && is_too_large(layout, &layout->shards[0]))
        return err_set(err, ERR_USAGE, "a single file cannot be split; write a folder (a path that ends in '/')");
    return measure_index(layout, err);
}

/* Fills *layout, and shard in every tensor; on failure it is freed. */
static enum status lay_out(struct out_tensor *tensors, size_t n_tensors, const struct out_blob *blobs, size_t n_blobs,
                           const struct writer_options *options, struct folder_layout *layout, struct err *err)
{
    size_t length = strlen(options->path);
    *layout = (struct folder_layout){ .options = options,
                                      .tensors = tensors,
                                      .n_tensors = n_tensors,
                                      .blobs = blobs,
                                      .n_blobs = n_blobs,
                                      .split = options->split_nbytes ? options->split_nbytes : SPLIT_DEFAULT,
                                      .scratch = text_make(SAFETENSORS_HEADER_MAX) };
    layout->is_folder = (length && options->path[length - 1] == '/') || path_is_dir(options->path);
    enum status status = place_all(layout, err);
    if (status != OK) layout_free(layout);
    return status;
}

static enum status measure(const struct folder_layout *layout, struct writer_size *size, struct err *err)
{
    *size = (struct writer_size){ .exact = true, .nbytes = layout->index_nbytes };
    bool good = true;
    for (size_t i = 0; good && i < layout->n_shards; i++)
        good = size_add(size->nbytes, data_start(&layout->shards[i]) + layout->shards[i].data_nbytes, &size->nbytes);
    for (size_t i = 0; good && i < layout->n_blobs; i++) good = size_add(size->nbytes, layout->blobs[i].nbytes, &size->nbytes);
    if (!good || size->nbytes > INT64_MAX) return err_set(err, ERR_UNSUPPORTED, "the output is too large");
    size->n_files = (uint32_t)(layout->n_shards + layout->n_blobs + (layout->index_nbytes != 0));
    size->index_nbytes = layout->n_tensors * 2 * sizeof(uint64_t) + layout->n_shards * sizeof(struct shard) + 4 * PIECE_NBYTES;
    return OK;
}

static enum status safetensors_plan(struct out_tensor *tensors, size_t n_tensors, const struct out_blob *blobs, size_t n_blobs,
                                    const struct writer_options *options, struct writer_size *size, struct err *err)
{
    struct folder_layout layout;
    enum status status = lay_out(tensors, n_tensors, blobs, n_blobs, options, &layout, err);
    if (status != OK) return status;
    status = measure(&layout, size, err);
    layout_free(&layout);
    return status;
}

/* ---- open ----------------------------------------------------------------------------------------------------------------------- */

struct writer {
    struct folder_layout layout;
    struct writer_options options;
    char *dir; /* of a folder, without '/' at its end */
    struct outfile **files; /* one a shard */
    struct outfile *index;
    uint64_t *written; /* bytes of each tensor so far; changes only while a ticket has its turn */
    struct turn turn;
};

/* A text on its way to a file. */
struct pen {
    struct text *scratch;
    struct outfile *file;
    uint64_t at;
};

static enum status pen_flush(struct pen *pen, size_t least, struct err *err)
{
    if (pen->scratch->nbytes < least && !pen->scratch->failed) return OK;
    enum status status = text_ok(pen->scratch, "a text", err);
    if (status == OK && pen->scratch->nbytes) status = outfile_write(pen->file, pen->scratch->data, pen->scratch->nbytes, pen->at, err);
    pen->at += pen->scratch->nbytes;
    text_reset(pen->scratch);
    return status;
}

static enum status write_header(struct writer *writer, size_t number, struct err *err)
{
    struct folder_layout *layout = &writer->layout;
    const struct shard *shard = &layout->shards[number];
    struct pen pen = { &layout->scratch, writer->files[number], 0 };
    uint64_t padded = data_start(shard) - 8;
    uint8_t length[8];
    for (unsigned i = 0; i < 8; i++) length[i] = (uint8_t)(padded >> (8 * i));
    text_add_bytes(pen.scratch, length, sizeof length);
    add_head(pen.scratch, layout);
    enum status status = OK;
    for (size_t i = shard->first_tensor; status == OK && i < shard->first_tensor + shard->n_tensors; i++) {
        add_tensor(pen.scratch, &layout->tensors[i], layout->begin[i]);
        status = pen_flush(&pen, PIECE_NBYTES, err);
    }
    text_add(pen.scratch, "}%*s", (int)(padded - shard->json_nbytes), "");
    return status == OK ? pen_flush(&pen, 0, err) : status;
}

static enum status copy_blob(struct outset *set, const char *path, const struct out_blob *blob, uint8_t *piece, struct err *err)
{
    struct outfile *file;
    enum status status = outset_add(set, path, &file, err);
    for (uint64_t at = 0; status == OK && at < blob->nbytes; at += BLOB_PIECE) {
        size_t nbytes = (size_t)size_min(BLOB_PIECE, blob->nbytes - at);
        status = blob->read(blob->context, blob->index, at, nbytes, piece, err);
        if (status == OK) status = outfile_write(file, piece, nbytes, at, err);
    }
    return status;
}

/* config.json first, then the others in their order. */
static enum status copy_blobs(struct writer *writer, struct outset *set, struct err *err)
{
    const struct folder_layout *layout = &writer->layout;
    uint8_t *piece = malloc(BLOB_PIECE);
    enum status status = piece ? OK : err_set(err, ERR_MEMORY, "out of memory for a piece of a file");
    for (int config = 1; config >= 0; config--)
        for (size_t i = 0; status == OK && i < layout->n_blobs; i++) {
            if ((strcmp(layout->blobs[i].name, "config.json") == 0) != (config == 1)) continue;
            char *path = path_join(writer->dir, layout->blobs[i].name);
            status = path ? copy_blob(set, path, &layout->blobs[i], piece, err) : err_set(err, ERR_MEMORY, "out of memory for a path");
            free(path);
        }
    free(piece);
    return status;
}

static enum status add_file(struct writer *writer, struct outset *set, const char *name, struct outfile **file, struct err *err)
{
    if (!writer->dir) return outset_add(set, writer->options.path, file, err);
    char *path = path_join(writer->dir, name);
    enum status status = path ? outset_add(set, path, file, err) : err_set(err, ERR_MEMORY, "out of memory for a path");
    free(path);
    return status;
}

static enum status make_folder(struct writer *writer, struct outset *set, struct err *err)
{
    if (!writer->layout.is_folder) return OK;
    writer->dir = strdup(writer->options.path);
    if (!writer->dir) return err_set(err, ERR_MEMORY, "out of memory for a path");
    for (size_t n = strlen(writer->dir); n > 1 && writer->dir[n - 1] == '/'; n--) writer->dir[n - 1] = '\0';
    return path_is_dir(writer->dir) ? OK : outset_make_dir(set, writer->dir, err);
}

/* A folder must not keep the weights of an earlier run that a loader would take instead of ours: one file beside new shards, an index beside one
 * new file. */
static enum status check_leftovers(const struct writer *writer, struct err *err)
{
    if (!writer->dir) return OK;
    const char *rival = writer->layout.index_nbytes ? SINGLE_NAME : INDEX_NAME;
    char *path = path_join(writer->dir, rival);
    enum status status = path ? OK : err_set(err, ERR_MEMORY, "out of memory for a path");
    if (path && path_exists(path))
        status = err_set(err, ERR_EXISTS, "'%s' exists and would be loaded in place of the new weights; remove it or choose another folder",
                         shown_str(path).text);
    free(path);
    return status;
}

static enum status check_space(const struct writer *writer, const struct outset *set, struct err *err)
{
    struct writer_size size;
    enum status status = measure(&writer->layout, &size, err);
    if (status != OK || !writer->dir) return status == OK ? outset_check_space(set, writer->options.path, size.nbytes, err) : status;
    char *path = path_join(writer->dir, INDEX_NAME);
    status = path ? outset_check_space(set, path, size.nbytes, err) : err_set(err, ERR_MEMORY, "out of memory for a path");
    free(path);
    return status;
}

static enum status start(struct writer *writer, struct outset *set, struct err *err)
{
    struct folder_layout *layout = &writer->layout;
    writer->files = calloc(layout->n_shards, sizeof(struct outfile *));
    writer->written = calloc(layout->n_tensors + 1, sizeof *writer->written);
    enum status status = writer->files && writer->written ? OK : err_set(err, ERR_MEMORY, "out of memory for %zu tensors", layout->n_tensors);
    if (status == OK) status = make_folder(writer, set, err);
    if (status == OK) status = check_leftovers(writer, err);
    if (status == OK) status = check_space(writer, set, err);
    if (status == OK) status = copy_blobs(writer, set, err);
    for (size_t i = 0; status == OK && i < layout->n_shards; i++) {
        char name[64];
        file_name(i, layout->n_shards, name);
        status = add_file(writer, set, name, &writer->files[i], err);
        if (status == OK) status = write_header(writer, i, err);
    }
    if (status == OK && layout->index_nbytes) status = add_file(writer, set, INDEX_NAME, &writer->index, err);
    return status;
}

static void safetensors_close(struct writer *writer)
{
    if (!writer) return;
    free(writer->files);
    free(writer->written);
    free(writer->dir);
    layout_free(&writer->layout);
    turn_destroy(&writer->turn);
    free(writer);
}

static enum status safetensors_open(struct outset *set, struct out_tensor *tensors, size_t n_tensors, const struct out_blob *blobs, size_t n_blobs,
                                    const struct writer_options *options, struct writer **out, struct err *err)
{
    *out = NULL;
    struct writer *writer = calloc(1, sizeof *writer);
    if (!writer) return err_set(err, ERR_MEMORY, "out of memory for the writer");
    turn_init(&writer->turn);
    writer->options = *options;
    enum status status = lay_out(tensors, n_tensors, blobs, n_blobs, &writer->options, &writer->layout, err);
    if (status == OK) status = start(writer, set, err);
    if (status != OK) {
        safetensors_close(writer);
        return status;
    }
    *out = writer;
    return OK;
}

/* ---- put, finish ---------------------------------------------------------------------------------------------------------------- */

/* Writes the parts, one call for those that lie one behind the other in memory and in the file. */
static enum status put_parts(struct writer *writer, size_t index, const struct part *parts, size_t n_parts, uint64_t *nbytes, struct err *err)
{
    if (n_parts && index >= writer->layout.n_tensors) return err_set(err, ERR_USAGE, "there is no tensor %zu", index);
    const struct out_tensor *tensor = n_parts ? &writer->layout.tensors[index] : NULL;
    for (size_t i = 0, next; i < n_parts; i = next) {
        uint64_t offset = 0;
        size_t run = 0;
        for (next = i; next < n_parts; next++) {
            const struct part *part = &parts[next];
            if (part->plane != 0 || part->tile >= plane_tile_count(data_of(tensor)) || part->nbytes != plane_tile_nbytes(data_of(tensor), part->tile))
                return err_set(err, ERR_USAGE, "tile %" PRIu64 " of plane %u with %zu bytes is not of this tensor", part->tile, part->plane,
                               part->nbytes);
            uint64_t at = plane_tile_offset(data_of(tensor), part->tile);
            if (next > i && (part->bytes != parts[i].bytes + run || at != offset + run)) break;
            if (next == i) offset = at;
            run += part->nbytes;
        }
        uint64_t start_of_tensor = data_start(&writer->layout.shards[tensor->shard]) + writer->layout.begin[index];
        enum status status = outfile_write(writer->files[tensor->shard], parts[i].bytes, run, start_of_tensor + offset, err);
        if (status != OK) return status;
        *nbytes += run;
    }
    return OK;
}

static enum status safetensors_put(struct writer *writer, unsigned worker, uint64_t ticket, size_t tensor, const struct part *parts, size_t n_parts,
                                   void (*in_order)(void *context), void *context, struct err *err)
{
    (void)worker;
    uint64_t nbytes = 0;
    enum status status = put_parts(writer, tensor, parts, n_parts, &nbytes, err);
    if (status != OK && tensor < writer->layout.n_tensors)
        err_wrap(err, status, "cannot write tensor '%s'", shown_str(writer->layout.tensors[tensor].name).text);
    if (status == OK && !turn_wait(&writer->turn, ticket)) status = err_set(err, ERR_CANCELLED, "stopped");
    if (status != OK) {
        turn_abort(&writer->turn);
        return status;
    }
    if (n_parts) writer->written[tensor] += nbytes;
    if (in_order) in_order(context);
    turn_done(&writer->turn, ticket);
    return OK;
}

static void safetensors_abort(struct writer *writer)
{
    turn_abort(&writer->turn);
}

static enum status write_index(struct writer *writer, struct err *err)
{
    struct folder_layout *layout = &writer->layout;
    struct pen pen = { &layout->scratch, writer->index, 0 };
    enum status status = OK;
    add_index_head(pen.scratch, layout);
    for (size_t i = 0; status == OK && i < layout->n_tensors; i++) {
        add_index_tensor(pen.scratch, layout, i);
        status = pen_flush(&pen, PIECE_NBYTES, err);
    }
    add_index_end(pen.scratch);
    return status == OK ? pen_flush(&pen, 0, err) : status;
}

static enum status safetensors_finish(struct writer *writer, const struct digest128 *source_digests, struct err *err)
{
    (void)source_digests;
    for (size_t i = 0; i < writer->layout.n_tensors; i++) {
        uint64_t wanted = plane_nbytes(data_of(&writer->layout.tensors[i]));
        if (writer->written[i] != wanted)
            return err_set(err, ERR_USAGE, "%" PRIu64 " of %" PRIu64 " bytes of tensor '%s' were written", writer->written[i], wanted,
                           shown_str(writer->layout.tensors[i].name).text);
    }
    return writer->index ? write_index(writer, err) : OK;
}

const struct writer_ops safetensors_writer_ops = { .name = "safetensors",
                                                   .extension = ".safetensors",
                                                   .quantised = false,
                                                   .plan = safetensors_plan,
                                                   .open = safetensors_open,
                                                   .put = safetensors_put,
                                                   .abort = safetensors_abort,
                                                   .finish = safetensors_finish,
                                                   .close = safetensors_close };
