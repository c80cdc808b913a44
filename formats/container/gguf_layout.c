/* gguf_layout.c: see gguf_layout.h.
 *
 * Formula: an info has 8 + |name| + 4 + 8 * dims + 4 + 8 bytes; data begins at align(24 + keys + infos); offset[i+1] = align(offset[i] + nbytes[i]).
 * Why this way: see gguf_layout.h.
 * Corner cases: a source that calls itself a mix of the type that most weights have still does; names over 63 bytes, more than 4 dims, and dtypes without
 * a GGUF type are refused with the tensor's name; a part has at least one tensor, and a tensor and its scales stand in one part.
 * Reference: see gguf_layout.h. Worked number: a part with no keys and one F32 tensor "a" of 1 dim: 24 + 33 bytes, data at 64.
 */
#include "container/gguf_layout.h"

#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "container/gguf.h"
#include "container/shown.h"
#include "layout/layout.h"

#define PARTS_MAX 65535u
#define SPLIT_KEYS_NBYTES 82u /* split.no, split.count, split.tensors.count */
#define ALIGNMENT_KEY "general.alignment"
#define FILE_TYPE_KEY "general.file_type"
#define IMATRIX_KEY "quantize.imatrix.file" /* as llama.cpp's quantiser writes it */
#define VERSION_KEY "general.quantization_version"
#define WEIGHT_ENDING ".weight"
#define SCALE_ENDING ".scale"

/* general.file_type of a file most of whose weights have this type. */
static const struct {
    uint32_t type, file_type;
} file_types[] = { { 0, 0 },   { 1, 1 },   { 2, 2 },   { 3, 3 },   { 8, 7 },   { 6, 8 },   { 7, 9 },   { 10, 10 }, { 11, 11 }, { 12, 14 }, { 13, 16 },
                   { 14, 18 }, { 20, 25 }, { 23, 30 }, { 30, 32 }, { 34, 36 }, { 35, 37 }, { 39, 38 }, { 40, 39 }, { 41, 40 }, { 42, 41 } };

/* ---- keys ------------------------------------------------------------------------------------------------------------------------- */

/* Mixes have numbers of their own: Q2_K_S, Q3_K_M and _L, Q4_K_M, Q5_K_M count as the type that most of their weights have. */
static const struct {
    uint32_t file_type, mix;
} mixes[] = { { 10, 21 }, { 11, 12 }, { 11, 13 }, { 14, 15 }, { 16, 17 } };

static enum status read_blob(void *context, void *buf, size_t nbytes, uint64_t offset, struct err *err)
{
    const struct out_blob *blob = context;
    return blob->read(blob->context, blob->index, offset, nbytes, buf, err);
}

static enum status parse_keys(const struct out_blob *blobs, size_t n_blobs, struct gguf_layout *layout, struct err *err)
{
    for (size_t i = 0; i < n_blobs; i++)
        if (strcmp(blobs[i].name, GGUF_BLOB_NAME) == 0) layout->blob = &blobs[i];
    if (!layout->blob)
        return err_set(err, ERR_USAGE, "the model has no GGUF keys (%s): only one that came from a GGUF file can become one", GGUF_BLOB_NAME);
    struct out_blob blob = *layout->blob;
    struct gguf_source source = { .read = read_blob, .context = &blob, .nbytes = blob.nbytes };
    enum status status = gguf_header_parse(&source, &layout->header, err);
    return status == OK ? OK : err_wrap(err, status, "'%s'", GGUF_BLOB_NAME);
}

size_t gguf_own_keys(const struct gguf_layout *layout, size_t part, struct gguf_own_key keys[GGUF_OWN_KEYS_MAX])
{
    size_t n = 0;
    if (part == 0 && !layout->keeps_keys) keys[n++] = (struct gguf_own_key){ VERSION_KEY, GGUF_U32, 2, NULL };
    if (part == 0 && !layout->keeps_keys) keys[n++] = (struct gguf_own_key){ FILE_TYPE_KEY, GGUF_U32, layout->file_type, NULL };
    if (part == 0 && layout->imatrix_name) keys[n++] = (struct gguf_own_key){ IMATRIX_KEY, GGUF_STRING, 0, layout->imatrix_name };
    if (layout->n_parts < 2) return n;
    keys[n++] = (struct gguf_own_key){ "split.no", GGUF_U16, (uint32_t)part, NULL };
    keys[n++] = (struct gguf_own_key){ "split.count", GGUF_U16, (uint32_t)layout->n_parts, NULL };
    keys[n++] = (struct gguf_own_key){ "split.tensors.count", GGUF_I32, (uint32_t)layout->n_infos, NULL };
    return n;
}

bool gguf_copies_key(const struct gguf_key *key, size_t part)
{
    if (strncmp(key->name, "split.", 6) == 0) return false;
    return part == 0 || strcmp(key->name, ALIGNMENT_KEY) == 0;
}

uint64_t gguf_own_key_nbytes(const struct gguf_own_key *key)
{
    return 8 + strlen(key->name) + 4 + (key->text ? 8 + strlen(key->text) : key->type == GGUF_U16 ? 2 : 4);
}

static void size_keys(struct gguf_layout *layout, size_t part)
{
    struct gguf_own_key own[GGUF_OWN_KEYS_MAX];
    const size_t n_own = gguf_own_keys(layout, part, own);
    struct gguf_part *sized = &layout->parts[part];
    sized->n_keys = n_own;
    sized->kv_nbytes = 0;
    for (size_t k = 0; k < n_own; k++) sized->kv_nbytes += gguf_own_key_nbytes(&own[k]);
    for (size_t i = 0; i < layout->header.n_keys; i++) {
        const struct gguf_key *key = &layout->header.keys[i];
        bool replaced = false;
        for (size_t k = 0; k < n_own; k++) replaced |= strcmp(own[k].name, key->name) == 0;
        if (replaced || !gguf_copies_key(key, part)) continue;
        sized->n_keys++;
        sized->kv_nbytes += key->nbytes;
    }
}

/* ---- tensors ---------------------------------------------------------------------------------------------------------------------- */

static enum status type_of(const struct out_tensor *tensor, uint32_t *type, struct err *err)
{
    if (tensor->block) {
        *type = tensor->block->id;
        return OK;
    }
    for (size_t i = 0; i < gguf_type_count(); i++) {
        const struct gguf_type *row = gguf_type_at(i);
        if (!row->dtype || strcmp(row->dtype, tensor->dtype) != 0) continue;
        *type = row->id;
        return OK;
    }
    return err_set(err, ERR_UNSUPPORTED, "GGUF has no type for dtype %s", tensor->dtype);
}

static enum status set_name(const char *name, bool is_scale, char **out, struct err *err)
{
    size_t n = strlen(name), n_ending = strlen(WEIGHT_ENDING);
    *out = malloc(n + sizeof SCALE_ENDING);
    if (!*out) return err_set(err, ERR_MEMORY, "out of memory");
    memcpy(*out, name, n + 1);
    if (is_scale && (n <= n_ending || strcmp(name + n - n_ending, WEIGHT_ENDING) != 0))
        return err_set(err, ERR_UNSUPPORTED, "a scale of its matrix needs a name that ends in %s; --nvfp4-scale none does without", WEIGHT_ENDING);
    if (is_scale) memcpy(*out + n - n_ending, SCALE_ENDING, sizeof SCALE_ENDING);
    if (strlen(*out) < GGUF_NAME_MAX) return OK;
    return err_set(err, ERR_UNSUPPORTED, "GGUF names have at most %u bytes", GGUF_NAME_MAX - 1);
}

static enum status add_tensor(struct gguf_layout *layout, const struct out_tensor *tensor, size_t number, struct err *err)
{
    layout->info_of[number] = layout->n_infos;
    if (tensor->rank > GGUF_DIMS_MAX) return err_set(err, ERR_UNSUPPORTED, "GGUF tensors have at most %u dims, not %u", GGUF_DIMS_MAX, tensor->rank);
    for (uint32_t k = 0; k < tensor->n_planes; k++) {
        const bool is_scale = k > 0; /* the plane of the matrices' scales */
        struct gguf_info *info = &layout->infos[layout->n_infos++];
        *info = (struct gguf_info){ .dims = tensor->dims, .rank = tensor->rank, .plane = k, .tensor = number };
        info->nbytes = plane_nbytes(&tensor->planes[k].plane);
        enum status status = set_name(tensor->name, is_scale, &info->name, err);
        if (status == OK && !is_scale) status = type_of(tensor, &info->type, err);
        if (status != OK) return status;
        if (!is_scale) continue;
        layout->matrices[number] = tensor->planes[k].plane.cols;
        info->dims = &layout->matrices[number];
        info->rank = 1;
    }
    return OK;
}

/* A name made here must not be one that is there. */
static enum status check_names(const struct gguf_layout *layout, struct err *err)
{
    struct name_table names = { 0 };
    enum status status = OK;
    for (size_t i = 0; i < layout->n_infos && status == OK; i++) {
        size_t number = 0;
        status = name_table_add(&names, layout->infos[i].name, &number, err);
        if (status == OK && number != i)
            status = err_set(err, ERR_UNSUPPORTED, "there would be two tensors '%s'", shown_str(layout->infos[i].name).text);
    }
    name_table_free(&names);
    return status;
}

/* The number the source gives itself, or UINT32_MAX. */
static enum status read_file_type(const struct gguf_layout *layout, uint32_t *out, struct err *err)
{
    const struct gguf_key *key = gguf_find_key(&layout->header, FILE_TYPE_KEY);
    uint8_t bytes[4];
    *out = UINT32_MAX;
    if (!key || key->type != GGUF_U32) return OK;
    enum status status = layout->blob->read(layout->blob->context, layout->blob->index, key->value_offset, sizeof bytes, bytes, err);
    if (status == OK) *out = (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
    return status;
}

static bool is_mix_of(uint32_t mix, uint32_t file_type)
{
    for (size_t i = 0; i < sizeof mixes / sizeof mixes[0]; i++)
        if (mixes[i].mix == mix && mixes[i].file_type == file_type) return true;
    return false;
}

static enum status choose_file_type(struct gguf_layout *layout, const struct out_tensor *tensors, uint32_t wanted, struct err *err)
{
    uint64_t weights[sizeof file_types / sizeof file_types[0]] = { 0 }, most = 0;
    uint32_t said;
    layout->file_type = wanted;
    for (size_t i = 0; i < layout->n_infos; i++) {
        const struct gguf_info *info = &layout->infos[i];
        uint64_t n = info->plane ? 0 : 1;
        for (uint32_t d = 0; d < info->rank; d++) n *= tensors[info->tensor].dims[d];
        for (size_t k = 0; k < sizeof file_types / sizeof file_types[0]; k++)
            if (file_types[k].type == info->type) weights[k] += n;
    }
    if (wanted != UINT32_MAX) return OK;
    layout->file_type = 0;
    for (size_t k = 0; k < sizeof file_types / sizeof file_types[0]; k++) {
        if (weights[k] <= most) continue;
        most = weights[k];
        layout->file_type = file_types[k].file_type;
    }
    enum status status = read_file_type(layout, &said, err);
    if (status == OK && is_mix_of(said, layout->file_type)) layout->file_type = said;
    return status;
}

/* ---- parts ------------------------------------------------------------------------------------------------------------------------ */

static uint64_t info_nbytes(const struct gguf_info *info)
{
    return 8 + strlen(info->name) + 4 + 8 * (uint64_t)info->rank + 4 + 8;
}

uint64_t gguf_data_offset(const struct gguf_layout *layout, size_t part)
{
    uint64_t offset = 0;
    size_align(GGUF_KV_OFFSET + layout->parts[part].kv_nbytes + layout->parts[part].infos_nbytes, layout->alignment, &offset);
    return offset;
}

uint64_t gguf_part_nbytes(const struct gguf_layout *layout, size_t part)
{
    return gguf_data_offset(layout, part) + layout->parts[part].data_nbytes;
}

static enum status begin_part(struct gguf_layout *layout, size_t first_info, struct err *err)
{
    struct gguf_part *parts = realloc(layout->parts, (layout->n_parts + 1) * sizeof *parts);
    if (!parts) return err_set(err, ERR_MEMORY, "out of memory for the plan of %zu files", layout->n_parts + 1);
    layout->parts = parts;
    if (layout->n_parts == PARTS_MAX) return err_set(err, ERR_USAGE, "the split size would give more than %u files", PARTS_MAX);
    parts[layout->n_parts++] = (struct gguf_part){ .first_info = first_info };
    size_keys(layout, layout->n_parts - 1);
    return OK;
}

/* Places the infos [first, end) of one tensor at the end of the last part. */
static enum status place(struct gguf_layout *layout, size_t first, size_t end, struct err *err)
{
    struct gguf_part *part = &layout->parts[layout->n_parts - 1];
    for (size_t i = first; i < end; i++) {
        struct gguf_info *info = &layout->infos[i];
        info->part = (uint32_t)(layout->n_parts - 1);
        info->offset = part->data_nbytes;
        part->n_infos++;
        part->infos_nbytes += info_nbytes(info);
        if (!size_add(part->data_nbytes, info->nbytes, &part->data_nbytes) || !size_align(part->data_nbytes, layout->alignment, &part->data_nbytes) ||
            part->data_nbytes > INT64_MAX / 2)
            return err_set(err, ERR_UNSUPPORTED, "the output is too large");
    }
    return OK;
}

/* Size of the last part with the infos [first, end), were it not the only one. */
static uint64_t grown_nbytes(const struct gguf_layout *layout, size_t first, size_t end)
{
    const struct gguf_part *part = &layout->parts[layout->n_parts - 1];
    uint64_t head = GGUF_KV_OFFSET + part->kv_nbytes + part->infos_nbytes, data = part->data_nbytes;
    if (layout->n_parts == 1) head += SPLIT_KEYS_NBYTES; /* later parts are sized with theirs */
    for (size_t i = first; i < end; i++) {
        head += info_nbytes(&layout->infos[i]);
        data += size_ceil_div(layout->infos[i].nbytes, layout->alignment) * layout->alignment;
    }
    return size_ceil_div(head, layout->alignment) * layout->alignment + data;
}

static enum status place_all(struct gguf_layout *layout, uint64_t split, struct err *err)
{
    enum status status = begin_part(layout, 0, err);
    for (size_t i = 0, end; i < layout->n_infos && status == OK; i = end) {
        for (end = i + 1; end < layout->n_infos && layout->infos[end].tensor == layout->infos[i].tensor;) end++;
        const struct gguf_part *part = &layout->parts[layout->n_parts - 1];
        if (split && part->n_infos && grown_nbytes(layout, i, end) > split) status = begin_part(layout, i, err);
        if (status == OK) status = place(layout, i, end, err);
    }
    for (size_t i = 0; i < layout->n_parts; i++) size_keys(layout, i); /* now that their number is known */
    return status;
}

/* ---- the layout ------------------------------------------------------------------------------------------------------------------- */

static enum status lay_out(const struct out_tensor *tensors, size_t n_tensors, const struct out_blob *blobs, size_t n_blobs,
                           const struct writer_options *options, struct gguf_layout *layout, struct err *err)
{
    enum status status = parse_keys(blobs, n_blobs, layout, err);
    if (status != OK) return status;
    layout->alignment = layout->header.alignment;
    layout->n_tensors = n_tensors;
    layout->keeps_keys = options->keep_keys;
    layout->imatrix_name = options->imatrix_name;
    layout->infos = calloc(2 * n_tensors + 1, sizeof *layout->infos);
    layout->info_of = calloc(n_tensors + 1, sizeof *layout->info_of);
    layout->matrices = calloc(n_tensors + 1, sizeof *layout->matrices);
    if (!layout->infos || !layout->info_of || !layout->matrices) return err_set(err, ERR_MEMORY, "out of memory for %zu tensors", n_tensors);
    for (size_t i = 0; i < n_tensors; i++) {
        status = add_tensor(layout, &tensors[i], i, err);
        if (status != OK) return err_wrap(err, status, "cannot store tensor '%s'", shown_str(tensors[i].name).text);
    }
    status = choose_file_type(layout, tensors, options->file_type, err);
    if (status == OK) status = check_names(layout, err);
    return status == OK ? place_all(layout, options->split_nbytes, err) : status;
}

enum status gguf_lay_out(const struct out_tensor *tensors, size_t n_tensors, const struct out_blob *blobs, size_t n_blobs,
                         const struct writer_options *options, struct gguf_layout *layout, struct err *err)
{
    *layout = (struct gguf_layout){ 0 };
    enum status status = lay_out(tensors, n_tensors, blobs, n_blobs, options, layout, err);
    if (status != OK) gguf_layout_free(layout);
    return status;
}

void gguf_layout_free(struct gguf_layout *layout)
{
    for (size_t i = 0; i < layout->n_infos; i++) free(layout->infos[i].name);
    free(layout->infos);
    free(layout->info_of);
    free(layout->matrices);
    free(layout->parts);
    gguf_header_free(&layout->header);
    *layout = (struct gguf_layout){ 0 };
}
