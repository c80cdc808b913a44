/* api_write.c: struct llmq_writer of llmq.h: declared tensors, their bytes in any pieces, to one .llmq file or a set of shards.
 *
 *   open:   check and copy every argument -> struct out_tensor[] -> outset, llmq_writer_ops.open
 *   put:    bytes -> (held back until a unit is complete) -> unit = a tile, or the whole tensor where a group spans tiles -> encode or split -> one ticket
 *   finish: all complete? -> index -> commit;   close: what was not committed is removed
 *
 * Why this way: the same writer and the same order of parts as the converter's pipeline, so the same input gives the same file; one worker, one
 * tile a job, so memory is that of a few tiles.
 * Corner cases: a unit that lies whole in the caller's buffer is used there, not copied; what a reader would refuse (names, metadata, shapes) is
 * refused here before a file is made; after a failure only close is left.
 * Reference: llmq.h, FORMAT.md 2, 3. Worked number: F32 [5, 172] quantised is one unit of 3440 bytes.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "api_matrix.h"
#include "base/digest.h"
#include "base/json.h"
#include "base/size.h"
#include "base/utf8.h"
#include "container/name_table.h"
#include "container/shown.h"
#include "container/writer.h"
#include "layout/facts.h"
#include "layout/kept.h"

#define BLOB_NBYTES_MAX (UINT64_C(1) << 53)
#define FACTS_NBYTES_MAX 4096
#define PROGRAM_PREFIX "llmq "

/* A declared tensor beside its struct out_tensor. */
struct declared {
    char *name, *role; /* owned */
    uint64_t *dims; /* owned */
    const struct dtype *dtype;
    bool is_kept;
    struct quant quant; /* unless is_kept */
    struct kept kept; /* if is_kept */
    struct shape shape; /* unless is_kept */
    struct plane source; /* what is put; its tiles are the units, or all of it is one */
    char group[16], percentile[24]; /* JSON text; a number */
};

struct llmq_writer {
    struct declared *tensors;
    struct out_tensor *outs;
    struct digest128 *digests;
    size_t n_tensors;
    struct out_blob *blobs;
    char **blob_names; /* owned */
    size_t n_blobs;
    const struct llmq_blob_spec *blob_specs; /* only while opening */
    char *metadata, *program;
    char **facts; /* of each row of the format table, NULL where unused */
    const struct kernels *kernels;
    struct outset *set;
    struct writer *writer;
    uint64_t ticket;
    bool failed, finished;
    /* the tensor whose turn it is */
    size_t current;
    bool begun;
    uint64_t n_put; /* bytes of it that have come */
    uint64_t n_tiles; /* tiles of it that are done */
    struct matrix matrix; /* of a quantised one */
    struct codec_scratch scratch;
    uint64_t unit_nbytes; /* of the unit that comes next */
    uint8_t *held; /* its first n_held bytes, when they came in pieces */
    uint64_t n_held, held_nbytes;
    uint8_t *planes[OUT_PLANES_MAX]; /* a tile of each */
    uint64_t planes_nbytes[OUT_PLANES_MAX];
    struct digest_stream *stream;
};

static enum status out_of_memory(struct err *err)
{
    return err_set(err, ERR_MEMORY, "out of memory for the writer");
}

/* ---- arguments ------------------------------------------------------------------------------------------------------------------ */

/* ERR_USAGE unless text is 1 .. max bytes of UTF-8 without control characters. */
static enum status check_text(const char *text, size_t max, const char *what, struct err *err)
{
    size_t n = strlen(text), i = 0;
    if (n == 0 || n > max) return err_set(err, ERR_USAGE, "%s has %zu bytes, not 1 to %zu", what, n, max);
    while (i < n) {
        size_t length = utf8_length(text + i, n - i);
        if (length == 0 || (unsigned char)text[i] < 0x20 || text[i] == 0x7F)
            return err_set(err, ERR_USAGE, "%s '%s' is not UTF-8 without control characters", what, shown(text, n).text);
        i += length;
    }
    return OK;
}

static enum status check_member(void *context, const char *key, size_t key_nbytes, const char *value, size_t value_nbytes, struct err *err)
{
    (void)context;
    return value_nbytes && value[0] == '"' ? OK : err_set(err, ERR_DATA, "'%s' is not a string", shown(key, key_nbytes).text);
}

static enum status check_metadata(const char *text, struct err *err)
{
    static const struct json_limits limits = { .max_depth = 16, .max_values = 4096, .plain_integers = true };
    struct err why = { OK, "" };
    if (!text || json_walk_object(text, strlen(text), &limits, check_member, NULL, &why) == OK) return OK;
    return err_set(err, ERR_USAGE, "metadata is not a JSON object of strings: %s", why.text);
}

/* Rows and columns of the dims; ERR_USAGE when their product, in bits of the dtype, is too large or no whole number of bytes. */
static enum status check_dims(const struct llmq_tensor_spec *spec, const struct dtype *dtype, uint64_t *rows, uint64_t *cols, struct err *err)
{
    uint64_t product = 1, bits = 0;
    bool is_empty = false;
    if (spec->rank > TENSOR_RANK_MAX) return err_set(err, ERR_USAGE, "it has %u dims, more than %d", spec->rank, TENSOR_RANK_MAX);
    if (spec->rank && !spec->dims) return err_set(err, ERR_USAGE, "its dims are NULL");
    *rows = *cols = 1;
    for (uint32_t i = 0; i < spec->rank; i++) {
        is_empty |= spec->dims[i] == 0;
        if (spec->dims[i] && (!size_mul(product, spec->dims[i], &product) || product > INT64_MAX / 64))
            return err_set(err, ERR_USAGE, "the product of its dims is too large");
        if (i + 1 < spec->rank) *rows *= spec->dims[i];
        else *cols = spec->dims[i];
    }
    if (!is_empty && (!size_mul(product, dtype->bits, &bits) || bits % 8)) return err_set(err, ERR_USAGE, "its weights are no whole number of bytes");
    if (is_empty && spec->quant) return err_set(err, ERR_USAGE, "it has no weights that could be quantised");
    if (spec->quant && dtype->class != DTYPE_FLOAT) return err_set(err, ERR_USAGE, "dtype %s cannot be quantised", dtype->name);
    return OK;
}

/* ---- declaring ------------------------------------------------------------------------------------------------------------------ */

/* JSON text of the format's facts, made once a format. */
static const char *facts_of(struct llmq_writer *writer, const struct format *format)
{
    size_t row = 0;
    while (format_at(row) != format) row++;
    if (!writer->facts[row]) {
        struct text text = text_make(FACTS_NBYTES_MAX);
        facts_write(format, &text);
        writer->facts[row] = text.failed ? NULL : strdup(text.data);
        text_free(&text);
    }
    return writer->facts[row];
}

static void declare_kept(struct declared *own, uint64_t rows, uint64_t cols, enum compress_mode compress, struct out_tensor *out)
{
    kept_planes(own->dtype, rows, cols, compress != COMPRESS_NONE, &own->kept);
    own->source = (struct plane){ "data", own->kept.item_nbytes * 8, own->kept.rows, own->kept.cols, own->kept.tile_rows, own->kept.tile_cols };
    out->n_planes = own->kept.n_planes;
    for (uint32_t k = 0; k < out->n_planes; k++) out->planes[k] = (struct out_plane){ own->kept.planes[k], compress_maps(compress, false, k) };
}

static enum status declare_quantised(struct llmq_writer *writer, struct declared *own, uint64_t rows, uint64_t cols, enum compress_mode compress,
                                     struct out_tensor *out, struct err *err)
{
    const struct quant *quant = &own->quant;
    struct matrix matrix;
    own->shape = (struct shape){ rows, cols, 1 };
    for (uint32_t i = 0; i + 2 < out->rank; i++) own->shape.n_matrices *= out->dims[i];
    enum status status = matrix_make(quant, writer->kernels, own->dtype, &own->shape, &matrix, err);
    if (status != OK) return status;
    own->source = matrix.source;
    out->n_planes = matrix.n_planes;
    for (uint32_t k = 0; k < out->n_planes; k++) out->planes[k] = (struct out_plane){ matrix.planes[k], compress_maps(compress, true, k) };
    out->format = quant->format->name;
    out->format_facts = facts_of(writer, quant->format);
    out->group = quant_group_json(quant, own->group);
    out->sub_block = quant->sub_block;
    out->scale_rule = scale_rule_name(quant->rule);
    out->percentile = quant_percentile_text(quant, own->percentile);
    out->rounding = rounding_name(quant->rounding);
    out->scale = scale_type_name(quant->scale);
    return out->format_facts ? OK : out_of_memory(err);
}

static enum status declare(struct llmq_writer *writer, size_t index, const struct llmq_tensor_spec *spec, enum compress_mode compress,
                           struct err *err)
{
    struct declared *own = &writer->tensors[index];
    struct out_tensor *out = &writer->outs[index];
    const char *role = spec->role ? spec->role : "other", *dtype = spec->dtype ? spec->dtype : "F32";
    uint64_t rows = 0, cols = 0;
    enum status status = check_text(role, TENSOR_NAME_MAX, "its role", err);
    own->dtype = dtype_find(dtype, strlen(dtype));
    if (status == OK && !own->dtype) status = err_set(err, ERR_USAGE, "its dtype '%s' is unknown", shown_str(dtype).text);
    if (status == OK) status = check_dims(spec, own->dtype, &rows, &cols, err);
    if (status != OK) return status;
    own->name = strdup(spec->name);
    own->role = strdup(role);
    own->dims = malloc((spec->rank + 1) * sizeof *own->dims);
    own->is_kept = !spec->quant;
    if (!own->name || !own->role || !own->dims) return out_of_memory(err);
    if (spec->rank) memcpy(own->dims, spec->dims, spec->rank * sizeof *own->dims);
    *out = (struct out_tensor){ .name = own->name, .dims = own->dims, .rank = spec->rank, .dtype = own->dtype->name, .role = own->role };
    if (own->is_kept) {
        declare_kept(own, rows, cols, compress, out);
    } else {
        own->quant = spec->quant->quant;
        status = declare_quantised(writer, own, rows, cols, compress, out, err);
    }
    out->tile_rows = own->source.tile_rows;
    out->tile_cols = own->source.tile_cols;
    return status;
}

static enum status declare_all(struct llmq_writer *writer, const struct llmq_tensor_spec *specs, enum compress_mode compress, struct err *err)
{
    struct name_table names = { 0 };
    enum status status = OK;
    for (size_t i = 0; i < writer->n_tensors && status == OK; i++) {
        size_t number;
        if (!specs[i].name) status = err_set(err, ERR_USAGE, "the name of tensor number %zu is NULL", i);
        else status = check_text(specs[i].name, TENSOR_NAME_MAX, "the name of a tensor", err);
        if (status != OK) break;
        status = declare(writer, i, &specs[i], compress, err);
        if (status == OK) status = name_table_add(&names, writer->tensors[i].name, &number, err);
        if (status == OK && number != i) status = err_set(err, ERR_USAGE, "it is declared twice");
        if (status != OK) err_wrap(err, status, "cannot store tensor '%s'", shown_str(specs[i].name).text);
    }
    name_table_free(&names);
    return status;
}

static enum status give_blob(void *context, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *err)
{
    const struct llmq_writer *writer = context;
    (void)err;
    memcpy(buf, (const uint8_t *)writer->blob_specs[index].bytes + offset, nbytes);
    return OK;
}

static enum status declare_blob(struct llmq_writer *writer, size_t index, const struct llmq_blob_spec *spec, struct name_table *names,
                                struct err *err)
{
    size_t number;
    if (!path_is_plain_name(spec->name, strlen(spec->name))) return err_set(err, ERR_USAGE, "it is no plain file name");
    if (!spec->bytes && spec->nbytes) return err_set(err, ERR_USAGE, "its bytes are NULL");
    if (spec->nbytes > BLOB_NBYTES_MAX) return err_set(err, ERR_USAGE, "it is too large");
    char *name = strdup(spec->name);
    if (!name) return out_of_memory(err);
    writer->blob_names[index] = name;
    writer->blobs[index] = (struct out_blob){ .name = name, .nbytes = spec->nbytes, .read = give_blob, .context = writer, .index = index };
    writer->n_blobs = index + 1;
    enum status status = name_table_add(names, name, &number, err);
    return status != OK || number == index ? status : err_set(err, ERR_USAGE, "it is given twice");
}

static enum status declare_blobs(struct llmq_writer *writer, const struct llmq_blob_spec *specs, size_t n_blobs, struct err *err)
{
    struct name_table names = { 0 };
    enum status status = OK;
    writer->blob_specs = specs;
    for (size_t i = 0; i < n_blobs && status == OK; i++) {
        if (!specs[i].name) status = err_set(err, ERR_USAGE, "the name of small file number %zu is NULL", i);
        else status = check_text(specs[i].name, TENSOR_NAME_MAX, "the name of a small file", err);
        if (status != OK) break;
        status = declare_blob(writer, i, &specs[i], &names, err);
        if (status != OK) err_wrap(err, status, "cannot store file '%s'", shown_str(specs[i].name).text);
    }
    name_table_free(&names);
    return status;
}

/* ---- opening and closing -------------------------------------------------------------------------------------------------------- */

static enum status fill_options(struct llmq_writer *writer, const char *path, const struct llmq_write_options *given, struct writer_options *options,
                                struct err *err)
{
    static const enum compress_mode modes[] = {
        [LLMQ_COMPRESS_DEFAULT] = COMPRESS_DEFAULT, [LLMQ_COMPRESS_NONE] = COMPRESS_NONE, [LLMQ_COMPRESS_MAX] = COMPRESS_MAX
    };
    int mode = (int)given->compress;
    if (mode < 0 || mode >= (int)(sizeof modes / sizeof modes[0])) return err_set(err, ERR_USAGE, "there is no compression number %d", mode);
    const char *program = given->program ? given->program : PROGRAM_PREFIX;
    enum status status = check_text(program, TENSOR_NAME_MAX, "the program's name", err);
    if (status == OK) status = check_metadata(given->metadata, err);
    if (status != OK) return status;
    size_t room = strlen(program) + strlen(llmq_version()) + 1;
    writer->program = malloc(room);
    writer->metadata = given->metadata ? strdup(given->metadata) : NULL;
    if (!writer->program || (given->metadata && !writer->metadata)) return out_of_memory(err);
    snprintf(writer->program, room, "%s%s", program, given->program ? "" : llmq_version());
    *options = (struct writer_options){ .path = path,
                                        .compress = modes[mode],
                                        .split_nbytes = given->split_nbytes,
                                        .align = given->align,
                                        .metadata_json = writer->metadata,
                                        .writer_name = writer->program,
                                        .n_workers = 1,
                                        .tiles_per_job = 1 };
    return OK;
}

/* Tensors without bytes are complete as they are. */
static void skip_empty(struct llmq_writer *writer)
{
    for (; writer->current < writer->n_tensors && plane_nbytes(&writer->tensors[writer->current].source) == 0; writer->current++)
        writer->digests[writer->current] = digest128("", 0);
}

static enum status start(struct llmq_writer *writer, const char *path, const struct llmq_tensor_spec *tensors, const struct llmq_blob_spec *blobs,
                         size_t n_blobs, const struct llmq_write_options *given, struct err *err)
{
    size_t n = writer->n_tensors;
    struct writer_options options;
    writer->kernels = kernels_select(NULL);
    writer->tensors = calloc(n + 1, sizeof *writer->tensors);
    writer->outs = calloc(n + 1, sizeof *writer->outs);
    writer->digests = calloc(n + 1, sizeof *writer->digests);
    writer->blobs = calloc(n_blobs + 1, sizeof *writer->blobs);
    writer->blob_names = calloc(n_blobs + 1, sizeof *writer->blob_names);
    writer->facts = calloc(format_count(), sizeof *writer->facts);
    writer->stream = digest_open();
    if (!writer->tensors || !writer->outs || !writer->digests || !writer->blobs || !writer->blob_names || !writer->facts || !writer->stream)
        return out_of_memory(err);
    enum status status = fill_options(writer, path, given, &options, err);
    if (status == OK) status = declare_all(writer, tensors, options.compress, err);
    if (status == OK) status = declare_blobs(writer, blobs, n_blobs, err);
    if (status == OK) status = outset_open(&io_system, given->replace != 0, &writer->set, err);
    if (status == OK) status = llmq_writer_ops.open(writer->set, writer->outs, n, writer->blobs, n_blobs, &options, &writer->writer, err);
    if (status == OK) skip_empty(writer);
    return status;
}

enum llmq_status llmq_writer_open(const char *path, const struct llmq_tensor_spec *tensors, size_t n_tensors, const struct llmq_blob_spec *blobs,
                                  size_t n_blobs, const struct llmq_write_options *options, struct llmq_writer **out, struct llmq_error *error)
{
    static const struct llmq_write_options defaults;
    struct err *err = api_err(error);
    if (!out) return api_null("writer", error);
    *out = NULL;
    if (!path) return api_null("path", error);
    if ((!tensors && n_tensors) || (!blobs && n_blobs)) return api_null(!tensors && n_tensors ? "tensors" : "blobs", error);
    struct llmq_writer *writer = calloc(1, sizeof *writer);
    if (!writer) return api_status(out_of_memory(err));
    writer->n_tensors = n_tensors;
    enum status status = start(writer, path, tensors, blobs, n_blobs, options ? options : &defaults, err);
    if (status == OK) *out = writer;
    else llmq_writer_close(writer);
    return api_status(status);
}

void llmq_writer_close(struct llmq_writer *writer)
{
    if (!writer) return;
    if (writer->writer) llmq_writer_ops.close(writer->writer);
    outset_close(writer->set);
    for (size_t i = 0; writer->tensors && i < writer->n_tensors; i++) {
        free(writer->tensors[i].name);
        free(writer->tensors[i].role);
        free(writer->tensors[i].dims);
    }
    for (size_t i = 0; writer->facts && i < format_count(); i++) free(writer->facts[i]);
    for (size_t i = 0; i < writer->n_blobs; i++) free(writer->blob_names[i]);
    for (size_t k = 0; k < OUT_PLANES_MAX; k++) free(writer->planes[k]);
    matrix_scratch_close(&writer->scratch);
    digest_close(writer->stream);
    free(writer->held);
    free(writer->metadata);
    free(writer->program);
    free(writer->tensors);
    free(writer->outs);
    free(writer->digests);
    free(writer->blobs);
    free(writer->blob_names);
    free(writer->facts);
    free(writer);
}

/* ---- tiles ---------------------------------------------------------------------------------------------------------------------- */

static bool is_whole(const struct llmq_writer *writer, uint32_t plane)
{
    return !writer->tensors[writer->current].is_kept && matrix_is_whole(&writer->matrix, plane);
}

/* Puts the next tile: its source bytes, for the digest, and its packed bytes; with the whole planes where these are wanted. */
static enum status put_tile(struct llmq_writer *writer, const uint8_t *bytes, const uint8_t *const planes[OUT_PLANES_MAX], bool with_whole,
                            struct err *err)
{
    size_t n_parts = 0;
    const struct out_tensor *out = &writer->outs[writer->current];
    uint64_t tile = writer->n_tiles++;
    struct digest128 digest = digest128(bytes, (size_t)plane_tile_nbytes(&writer->tensors[writer->current].source, tile));
    struct part parts[OUT_PLANES_MAX];
    digest_add(writer->stream, &digest, sizeof digest);
    for (uint32_t k = 0; k < out->n_planes; k++) {
        const bool whole = is_whole(writer, k);
        const uint64_t number = whole ? 0 : tile;
        if (whole && !with_whole) continue;
        parts[n_parts++] = (struct part){ k, number, planes[k], (size_t)plane_tile_nbytes(&out->planes[k].plane, number) };
    }
    return llmq_writer_ops.put(writer->writer, 0, writer->ticket++, writer->current, parts, n_parts, NULL, NULL, err);
}

static enum status put_kept(struct llmq_writer *writer, const uint8_t *bytes, struct err *err)
{
    const struct kept *kept = &writer->tensors[writer->current].kept;
    const uint8_t *planes[OUT_PLANES_MAX] = { bytes };
    if (kept->kind != KEPT_DATA) {
        kept_split(kept->kind, kept->item_nbytes, bytes, (size_t)(writer->unit_nbytes / kept->item_nbytes), writer->planes);
        planes[0] = writer->planes[0];
        planes[1] = writer->planes[1];
    }
    return put_tile(writer, bytes, planes, true, err);
}

/* One tile; what was observed of the whole tensor is put with its first one. */
static enum status put_quantised(struct llmq_writer *writer, const uint8_t *bytes, const struct matrix_scales *observed, struct err *err)
{
    const uint8_t *planes[OUT_PLANES_MAX];
    bool first = writer->n_tiles == 0;
    for (uint32_t k = 0; k < OUT_PLANES_MAX; k++) planes[k] = writer->planes[k];
    enum status status = matrix_encode(&writer->matrix, writer->n_tiles, bytes, observed, &writer->scratch, writer->planes, err);
    if (status == OK && first) matrix_store_whole(&writer->matrix, observed, writer->planes);
    return status == OK ? put_tile(writer, bytes, planes, first, err) : status;
}

static enum status put_observed(struct llmq_writer *writer, const uint8_t *bytes, struct err *err)
{
    const struct plane *source = &writer->matrix.source;
    struct matrix_scales observed;
    enum status status = matrix_observe(&writer->matrix, bytes, &writer->scratch, &observed, err);
    for (uint64_t t = 0; t < plane_tile_count(source) && status == OK; t++)
        status = put_quantised(writer, bytes + plane_tile_offset(source, t), &observed, err);
    matrix_scales_free(&observed);
    return status;
}

/* ---- units ---------------------------------------------------------------------------------------------------------------------- */

/* True when the unit is the whole tensor. */
static bool observes(const struct llmq_writer *writer)
{
    return !writer->tensors[writer->current].is_kept && writer->matrix.observed;
}

static enum status need(uint8_t **buffer, uint64_t *have, uint64_t nbytes, struct err *err)
{
    if (nbytes <= *have) return OK;
    free(*buffer);
    *buffer = malloc((size_t)nbytes);
    *have = *buffer ? nbytes : 0;
    return *buffer ? OK : err_set(err, ERR_MEMORY, "out of memory for %" PRIu64 " bytes", nbytes);
}

static void next_unit(struct llmq_writer *writer)
{
    const struct plane *source = &writer->tensors[writer->current].source;
    writer->unit_nbytes = observes(writer) ? plane_nbytes(source) : plane_tile_nbytes(source, writer->n_tiles);
}

/* Makes what the current tensor needs. */
static enum status begin(struct llmq_writer *writer, struct err *err)
{
    const struct declared *own = &writer->tensors[writer->current];
    const struct out_tensor *out = &writer->outs[writer->current];
    enum status status = OK;
    writer->n_put = writer->n_tiles = writer->n_held = 0;
    digest_reset(writer->stream);
    for (uint32_t k = 0; k < out->n_planes && status == OK; k++)
        if (!own->is_kept || own->kept.kind != KEPT_DATA)
            status = need(&writer->planes[k], &writer->planes_nbytes[k], plane_tile_nbytes(&out->planes[k].plane, 0), err);
    if (status == OK && !own->is_kept) {
        matrix_scratch_close(&writer->scratch);
        status = matrix_make(&own->quant, writer->kernels, own->dtype, &own->shape, &writer->matrix, err);
        if (status == OK) status = matrix_scratch_open(&writer->matrix, &writer->scratch, err);
    }
    writer->begun = status == OK;
    if (status == OK) next_unit(writer);
    return status;
}

/* The current tensor is complete. */
static void end(struct llmq_writer *writer)
{
    if (observes(writer)) { /* it may have been large */
        free(writer->held);
        writer->held = NULL;
        writer->held_nbytes = 0;
    }
    writer->digests[writer->current++] = digest_value(writer->stream);
    writer->begun = false;
    skip_empty(writer);
}

/* The complete unit at bytes. */
static enum status put_unit(struct llmq_writer *writer, const uint8_t *bytes, struct err *err)
{
    if (writer->tensors[writer->current].is_kept) return put_kept(writer, bytes, err);
    enum status status = observes(writer) ? put_observed(writer, bytes, err) : put_quantised(writer, bytes, &(struct matrix_scales){ NULL, NULL }, err);
    return status == ERR_DATA ? err_wrap(err, status, "cannot quantise tensor '%s'", shown_str(writer->tensors[writer->current].name).text) : status;
}

/* Takes the next bytes of the current tensor, at most up to the end of the unit; *taken is how many. */
static enum status take(struct llmq_writer *writer, const uint8_t *bytes, uint64_t nbytes, uint64_t *taken, struct err *err)
{
    uint64_t unit = writer->unit_nbytes;
    const uint8_t *whole = bytes;
    *taken = size_min(nbytes, unit - writer->n_held);
    if (*taken < unit) {
        enum status status = need(&writer->held, &writer->held_nbytes, unit, err);
        if (status != OK) return status;
        memcpy(writer->held + writer->n_held, bytes, (size_t)*taken);
        whole = writer->held;
    }
    writer->n_put += *taken;
    writer->n_held += *taken;
    if (writer->n_held < unit) return OK;
    writer->n_held = 0;
    return put_unit(writer, whole, err);
}

/* ---- putting and finishing ------------------------------------------------------------------------------------------------------ */

static uint64_t current_nbytes(const struct llmq_writer *writer)
{
    return plane_nbytes(&writer->tensors[writer->current].source);
}

static enum status incomplete(const struct llmq_writer *writer, struct err *err)
{
    uint64_t nbytes = current_nbytes(writer), n_put = writer->begun ? writer->n_put : 0;
    return err_set(err, ERR_USAGE, "tensor '%s' still lacks %" PRIu64 " of its %" PRIu64 " bytes",
                   shown_str(writer->tensors[writer->current].name).text, nbytes - n_put, nbytes);
}

/* Is it the tensor's turn, and has it that many bytes left? */
static enum status check_turn(struct llmq_writer *writer, size_t index, size_t nbytes, struct err *err)
{
    const char *name = writer->tensors[index].name;
    uint64_t left = index == writer->current ? current_nbytes(writer) - (writer->begun ? writer->n_put : 0) : 0;
    if (index > writer->current) return err_wrap(err, incomplete(writer, err), "cannot put tensor '%s' yet", shown_str(name).text);
    if (nbytes <= left) return OK;
    return err_set(err, ERR_USAGE, "tensor '%s' has %" PRIu64 " bytes, %" PRIu64 " of them to come; %zu more were put", shown_str(name).text,
                   plane_nbytes(&writer->tensors[index].source), left, nbytes);
}

static enum status put(struct llmq_writer *writer, size_t index, const uint8_t *bytes, uint64_t nbytes, struct err *err)
{
    enum status status = nbytes ? check_turn(writer, index, nbytes, err) : OK;
    while (nbytes > 0 && status == OK) {
        uint64_t taken = 0;
        if (!writer->begun) status = begin(writer, err);
        if (status == OK) status = take(writer, bytes, nbytes, &taken, err);
        if (status != OK) break;
        bytes += taken;
        nbytes -= taken;
        if (writer->n_put == current_nbytes(writer)) end(writer);
        else if (writer->n_held == 0) next_unit(writer);
    }
    return status;
}

/* Is anything but closing still possible? */
static enum llmq_status check_usable(const struct llmq_writer *writer, struct llmq_error *error)
{
    if (!writer) return api_null("writer", error);
    if (writer->failed) return api_status(err_set(api_err(error), ERR_USAGE, "the writer has failed before and can only be closed"));
    if (writer->finished) return api_status(err_set(api_err(error), ERR_USAGE, "the writer has finished and can only be closed"));
    return LLMQ_OK;
}

enum llmq_status llmq_writer_put(struct llmq_writer *writer, size_t index, const void *bytes, size_t nbytes, struct llmq_error *error)
{
    enum llmq_status usable = check_usable(writer, error);
    if (usable != LLMQ_OK) return usable;
    enum llmq_status status;
    if (index >= writer->n_tensors) status = api_index("tensor", index, writer->n_tensors, error);
    else if (!bytes && nbytes) status = api_null("bytes", error);
    else status = api_status(put(writer, index, bytes, nbytes, api_err(error)));
    writer->failed = status != LLMQ_OK;
    return status;
}

enum llmq_status llmq_writer_finish(struct llmq_writer *writer, struct llmq_error *error)
{
    struct err *err = api_err(error);
    enum llmq_status usable = check_usable(writer, error);
    if (usable != LLMQ_OK) return usable;
    enum status status = writer->current < writer->n_tensors ? err_wrap(err, incomplete(writer, err), "cannot finish") : OK;
    if (status == OK) status = llmq_writer_ops.finish(writer->writer, writer->digests, err);
    if (status == OK) status = outset_commit(writer->set, err);
    writer->failed = status != OK;
    writer->finished = status == OK;
    return api_status(status);
}
