/* stats_pt.c: statistics saved by torch: the act_scales of SmoothQuant, and the scales of an AWQ cache.
 *
 *   act_scales: {module name: tensor [n_in]} = largest |x| a channel        -> <module name>.weight, in_absmax
 *   AWQ cache:  {"scale": [(absorber, (consumer, ...), tensor [n_in])], "clip": [...]}  -> <first consumer>.weight, in_scale; the others are aliases
 *
 * Why this way: a zip of stored entries, of which data.pkl names the others; the pickle is read as data, never run (pickle.h).
 * Corner cases: the folder's name inside the zip is that of data.pkl; a tensor must be a vector (or 1 x n); storages have exactly the bytes their
 * type and number say; big-endian files and torch files of before 1.6 (no zip) are refused; AWQ's clip is passed over with a note; tensors that
 * share storage may not have more than 8 times the file's bytes together.
 * Reference: mit-han-lab/smoothquant generate_act_scales.py, mit-han-lab/llm-awq; torch/serialization.py. Worked number: key "a.q_proj" of [4096]
 * F32 is entry "a.q_proj.weight", 1 x 4096, from 16,384 bytes of <stem>/data/0.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "container/shown.h"
#include "layout/dtype.h"
#include "number/half.h"
#include "smoothquant/pickle.h"
#include "smoothquant/stats_kind.h"
#include "smoothquant/zip.h"

#define PATH_MAX_NBYTES 512u
#define SHARED_MAX 8u
#define WEIGHT_ENDING ".weight"

static bool is_old(const uint8_t *head, size_t n_head)
{
    return n_head >= 4 && memcmp(head, "\x80\x02\x8a\x0a", 4) == 0; /* PROTO 2, LONG1 of 10 bytes: torch's magic number */
}

static bool probe(const struct stats_source *source, const uint8_t *head, size_t n_head)
{
    (void)source;
    return n_head >= 4 && (memcmp(head, "PK\3\4", 4) == 0 || memcmp(head, "PK\5\6", 4) == 0 || is_old(head, n_head));
}

/* ---- the archive ------------------------------------------------------------------------------------------------------------------ */

struct archive {
    const struct stats_source *source;
    struct zip zip;
    char folder[PATH_MAX_NBYTES]; /* of data.pkl, with its slash */
    uint8_t *bytes; /* of data.pkl */
    struct pickle *pickle;
    struct stats_set *set;
    uint64_t n_read; /* bytes of tensors */
};

static enum status find_pickle(struct archive *a, struct zip_entry **found, struct err *err)
{
    static const char name[] = "/data.pkl";
    *found = NULL;
    for (size_t i = 0; i < a->zip.n_entries; i++) {
        struct zip_entry *entry = &a->zip.entries[i];
        size_t n = strlen(entry->name);
        if (n < sizeof name || strcmp(entry->name + n - (sizeof name - 1), name) != 0 || n >= sizeof a->folder) continue;
        if (*found) return err_set(err, ERR_DATA, "it has two entries data.pkl");
        *found = entry;
        memcpy(a->folder, entry->name, n - (sizeof name - 2));
        a->folder[n - (sizeof name - 2)] = '\0';
    }
    return *found ? OK : err_set(err, ERR_UNSUPPORTED, "it is a zip file without data.pkl, not one of torch");
}

/* The entry of the folder, or NULL. */
static struct zip_entry *find_in_folder(struct archive *a, const char *middle, struct pickle_text name)
{
    char path[PATH_MAX_NBYTES * 2];
    if (name.n > PATH_MAX_NBYTES / 2) return NULL;
    int n = snprintf(path, sizeof path, "%s%s%.*s", a->folder, middle, (int)name.n, name.bytes);
    if (n < 0 || (size_t)n >= sizeof path) return NULL;
    return zip_find(&a->zip, path);
}

static enum status check_order(struct archive *a, struct err *err)
{
    char text[8] = "";
    struct zip_entry *entry = find_in_folder(a, "byteorder", (struct pickle_text){ "", 0 });
    if (!entry) return OK;
    size_t n = (size_t)size_min(entry->nbytes, sizeof text - 1);
    enum status status = stats_source_read(a->source, text, n, entry->offset, "byteorder", err);
    if (status != OK) return status;
    return strcmp(text, "little") == 0 ? OK : err_set(err, ERR_UNSUPPORTED, "its byte order is '%s', not little", shown_str(text).text);
}

static enum status read_pickle(struct archive *a, struct err *err)
{
    struct zip_entry *entry = NULL;
    enum status status = find_pickle(a, &entry, err);
    if (status == OK) status = check_order(a, err);
    if (status == OK && entry->nbytes > PICKLE_NBYTES_MAX)
        status = err_set(err, ERR_UNSUPPORTED, "data.pkl has %llu bytes, more than the limit of %llu", (unsigned long long)entry->nbytes,
                         (unsigned long long)PICKLE_NBYTES_MAX);
    if (status == OK) status = zip_check(a->source, entry, err);
    if (status != OK) return status;
    a->bytes = malloc((size_t)entry->nbytes + 1);
    if (!a->bytes) return err_set(err, ERR_MEMORY, "out of memory for data.pkl");
    status = stats_source_read(a->source, a->bytes, (size_t)entry->nbytes, entry->offset, "data.pkl", err);
    if (status == OK) status = pickle_parse(a->bytes, (size_t)entry->nbytes, &a->pickle, err);
    return status == OK ? OK : err_wrap(err, status, "data.pkl");
}

/* ---- tensors ---------------------------------------------------------------------------------------------------------------------- */

static double decode_f64(const uint8_t *bytes)
{
    uint64_t bits = 0;
    double out;
    for (unsigned i = 0; i < 8; i++) bits |= (uint64_t)bytes[i] << (8 * i);
    memcpy(&out, &bits, sizeof out);
    return out;
}

/* n values of dtype to doubles. */
static void decode(const struct dtype *dtype, const uint8_t *bytes, size_t n, double *out)
{
    for (size_t i = 0; i < n; i++) {
        float value = 0.0f;
        if (dtype->bits == 64) out[i] = decode_f64(bytes + 8 * i);
        else {
            dtype->widen(bytes + i * (dtype->bits / 8), 1, &value);
            out[i] = (double)value;
        }
    }
}

static enum status read_tensor(struct archive *a, const struct pickle_tensor *tensor, double *out, struct err *err)
{
    const struct pickle_storage *storage = pickle_at(a->pickle, tensor->storage)->as.storage;
    const struct dtype *dtype = dtype_find(storage->dtype, strlen(storage->dtype));
    const unsigned item = dtype->bits / 8;
    struct zip_entry *entry = find_in_folder(a, "data/", storage->key);
    uint64_t nbytes = 0;
    if (!entry) return err_set(err, ERR_DATA, "its storage '%s' is not in the file", shown(storage->key.bytes, storage->key.n).text);
    if (!size_mul(storage->n_values, item, &nbytes) || nbytes != entry->nbytes)
        return err_set(err, ERR_DATA, "its storage '%s' has %llu bytes for %llu values of %s", shown(storage->key.bytes, storage->key.n).text,
                       (unsigned long long)entry->nbytes, (unsigned long long)storage->n_values, storage->dtype);
    a->n_read += tensor->n_values * item; /* at most the file's bytes */
    if (a->n_read / SHARED_MAX > a->source->nbytes) return err_set(err, ERR_UNSUPPORTED, "its tensors share their storages too often");
    enum status status = zip_check(a->source, entry, err);
    uint8_t bytes[4096];
    for (uint64_t at = 0; at < tensor->n_values && status == OK;) {
        size_t n = (size_t)size_min(tensor->n_values - at, sizeof bytes / item);
        status = stats_source_read(a->source, bytes, n * item, entry->offset + (tensor->offset + at) * item, "its storage", err);
        if (status == OK) decode(dtype, bytes, n, out + at);
        at += n;
    }
    return status;
}

/* A copy of the text, with .weight behind it unless it is there. NULL with the sentence in err. */
static char *weight_name(struct pickle_text text, struct err *err)
{
    const size_t n_ending = sizeof WEIGHT_ENDING - 1;
    bool has_ending = text.n >= n_ending && memcmp(text.bytes + text.n - n_ending, WEIGHT_ENDING, n_ending) == 0;
    if (text.n > STATS_NAME_MAX - n_ending || (text.n && memchr(text.bytes, 0, text.n))) {
        err_set(err, ERR_DATA, "the name '%s'", shown(text.bytes, text.n).text);
        return NULL;
    }
    char *name = malloc(text.n + n_ending + 1);
    if (!name) {
        err_set(err, ERR_MEMORY, "out of memory for statistics");
        return NULL;
    }
    if (text.n) memcpy(name, text.bytes, text.n);
    memcpy(name + text.n, WEIGHT_ENDING, n_ending + 1);
    if (has_ending) name[text.n] = '\0';
    return name;
}

/* Adds an entry of one field. */
static enum status add_vector(struct archive *a, struct pickle_text key, const struct pickle_tensor *tensor, enum stats_field field, size_t *index,
                              struct err *err)
{
    char *name = weight_name(key, err);
    if (!name) return ERR_DATA;
    enum status status = OK;
    if (tensor->rank == 0 || tensor->dims[tensor->rank - 1] != tensor->n_values || tensor->n_values == 0)
        status = err_set(err, ERR_DATA, "'%s' is no vector", shown_str(name).text);
    if (status == OK) status = stats_add(a->set, name, 1, tensor->n_values, index, err);
    if (status == OK) status = stats_make_field(a->set, &a->set->entries[*index], field, err);
    if (status == OK) {
        status = read_tensor(a, tensor, a->set->entries[*index].values[field], err);
        if (status != OK) status = err_wrap(err, status, "'%s'", shown_str(name).text);
    }
    free(name);
    return status;
}

/* ---- the two kinds ---------------------------------------------------------------------------------------------------------------- */

static enum status read_act_scales(struct archive *a, const struct pickle_value *root, struct err *err)
{
    for (uint32_t i = 0; i + 1 < root->as.items.n; i += 2) {
        const struct pickle_value *key = pickle_at(a->pickle, root->as.items.ids[i]), *value = pickle_at(a->pickle, root->as.items.ids[i + 1]);
        size_t index = 0;
        if (key->kind != PICKLE_TEXT) return err_set(err, ERR_UNSUPPORTED, "a key of its dict is %s", pickle_kind_name(key->kind));
        if (value->kind != PICKLE_TENSOR)
            return err_set(err, ERR_UNSUPPORTED, "'%s' is %s, not a tensor", shown(key->as.text.bytes, key->as.text.n).text,
                           pickle_kind_name(value->kind));
        enum status status = add_vector(a, key->as.text, value->as.tensor, STATS_ABSMAX, &index, err);
        if (status != OK) return status;
    }
    return OK;
}

/* (absorber, (consumer, ...), tensor) */
static enum status read_awq_group(struct archive *a, const struct pickle_value *group, struct err *err)
{
    if (group->kind != PICKLE_TUPLE || group->as.items.n != 3) return err_set(err, ERR_DATA, "a scale that is no tuple of 3");
    const struct pickle_value *consumers = pickle_at(a->pickle, group->as.items.ids[1]), *tensor = pickle_at(a->pickle, group->as.items.ids[2]);
    if (tensor->kind != PICKLE_TENSOR || (consumers->kind != PICKLE_TUPLE && consumers->kind != PICKLE_LIST) || consumers->as.items.n == 0)
        return err_set(err, ERR_DATA, "a scale without consumers or tensor");
    size_t index = 0;
    enum status status = OK;
    for (uint32_t i = 0; i < consumers->as.items.n && status == OK; i++) {
        const struct pickle_value *name = pickle_at(a->pickle, consumers->as.items.ids[i]);
        if (name->kind != PICKLE_TEXT) return err_set(err, ERR_DATA, "a consumer that is %s", pickle_kind_name(name->kind));
        if (i == 0) {
            status = add_vector(a, name->as.text, tensor->as.tensor, STATS_SCALE, &index, err);
            continue;
        }
        char *alias = weight_name(name->as.text, err);
        status = alias ? stats_add_alias(a->set, alias, index, err) : ERR_DATA;
        free(alias);
    }
    return status;
}

static enum status read_awq(struct archive *a, const struct pickle_value *scales, const struct pickle_value *clips, struct err *err)
{
    enum status status = OK;
    for (uint32_t i = 0; i < scales->as.items.n && status == OK; i++) status = read_awq_group(a, pickle_at(a->pickle, scales->as.items.ids[i]), err);
    if (status == OK && clips && clips->kind == PICKLE_LIST && clips->as.items.n > 0)
        stats_note(a->set, "%u clipping limits of the AWQ cache were passed over: they are no statistics", clips->as.items.n);
    return status;
}

static enum status read_archive(struct archive *a, struct err *err)
{
    enum status status = read_pickle(a, err);
    if (status != OK) return status;
    const struct pickle_value *root = pickle_root(a->pickle);
    if (root->kind != PICKLE_DICT) return err_set(err, ERR_UNSUPPORTED, "it holds %s, not a dict of tensors", pickle_kind_name(root->kind));
    const struct pickle_value *scales = pickle_get(a->pickle, root, "scale");
    status = stats_add_pair(a->set, "names", "hf", err);
    if (status != OK) return status;
    if (scales && scales->kind == PICKLE_LIST) return read_awq(a, scales, pickle_get(a->pickle, root, "clip"), err);
    return read_act_scales(a, root, err);
}

static enum status read_set(const struct stats_source *source, struct stats_set *set, struct err *err)
{
    uint8_t head[4] = { 0 };
    struct archive a = { .source = source, .set = set };
    enum status status = stats_source_read(source, head, sizeof head, 0, "its first bytes", err);
    if (status == OK && is_old(head, sizeof head))
        status = err_set(err, ERR_UNSUPPORTED, "it is a torch file of before version 1.6; save it again with a current torch");
    if (status == OK) status = zip_open(source, &a.zip, err);
    if (status == OK) status = read_archive(&a, err);
    pickle_close(a.pickle);
    zip_close(&a.zip);
    free(a.bytes);
    return status;
}

const struct stats_kind stats_kind_pt = {
    .name = "torch-pt",
    .extension = NULL,
    .description = "torch.save of SmoothQuant's act_scales or of an AWQ cache: in_absmax, or in_scale",
    .probe = probe,
    .read = read_set,
    .write = NULL,
};
