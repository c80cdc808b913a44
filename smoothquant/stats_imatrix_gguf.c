/* stats_imatrix_gguf.c: llama.cpp's importance matrix as a GGUF file.
 *
 *   general.type = "imatrix", imatrix.datasets [string], imatrix.chunk_count u32, imatrix.chunk_size u32
 *   NAME.in_sum2 F32 [n_mat, n_in] = sum of x^2 over tokens, NAME.counts F32 [n_mat, 1] = tokens, NAME.in_sum where it is known
 *
 * Why this way: the header goes through the strict parser of the container layer, the tensors through the code that reads safetensors.
 * Corner cases: a GGUF file whose general.type is another is refused as a model; without that key a tensor NAME.in_sum2 must be there; counts above
 * 2^24 round to F32, as llama.cpp's do; entries without in_sum2 or counts are left out; a tensor's name over 63 bytes, which ggml cannot load, and a
 * sum beyond F32 are refused.
 * Reference: llama.cpp tools/imatrix, formats/container/gguf_header.h. Worked number: 2 entries, 1 dataset "d": 4 keys, 4 tensors.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "container/gguf_header.h"
#include "container/shown.h"
#include "smoothquant/stats_kind.h"
#include "smoothquant/stats_tensors.h"

#define ALIGNMENT 32u
#define NAME_NBYTES_MAX 63u /* ggml keeps 64 with the NUL */
#define TYPE_NAME "imatrix"
#define DATASETS_MAX 256u
#define DATASET_NBYTES_MAX 4096u

/* ---- reading ---------------------------------------------------------------------------------------------------------------------- */

static bool probe(const struct stats_source *source, const uint8_t *head, size_t n_head)
{
    (void)source;
    return n_head >= GGUF_MAGIC_NBYTES && memcmp(head, GGUF_MAGIC, GGUF_MAGIC_NBYTES) == 0;
}

static enum status take_unsigned(const struct stats_source *source, uint64_t *at, unsigned nbytes, uint64_t *out, struct err *err)
{
    uint8_t bytes[8] = { 0 };
    enum status status = stats_source_read(source, bytes, nbytes, *at, "a key's value", err);
    if (status != OK) return status;
    *out = 0;
    for (unsigned i = 0; i < nbytes; i++) *out |= (uint64_t)bytes[i] << (8 * i);
    *at += nbytes;
    return OK;
}

/* A string at *at of at most DATASET_NBYTES_MAX bytes; text has one byte more. */
static enum status take_string(const struct stats_source *source, uint64_t *at, char text[DATASET_NBYTES_MAX + 1], size_t *n, struct err *err)
{
    uint64_t nbytes = 0;
    enum status status = take_unsigned(source, at, 8, &nbytes, err);
    if (status != OK) return status;
    if (nbytes > DATASET_NBYTES_MAX)
        return err_set(err, ERR_UNSUPPORTED, "a string has %llu bytes, more than the limit of %u", (unsigned long long)nbytes, DATASET_NBYTES_MAX);
    status = stats_source_read(source, text, (size_t)nbytes, *at, "a string", err);
    *n = status == OK ? (size_t)nbytes : 0;
    text[*n] = '\0';
    *at += nbytes;
    return status;
}

/* *found false without the key; the value of any unsigned type. */
static enum status read_u32(const struct stats_source *source, const struct gguf_header *header, const char *name, uint64_t *out, bool *found,
                            struct err *err)
{
    const struct gguf_key *key = gguf_find_key(header, name);
    *found = key != NULL;
    if (!key) return OK;
    if (key->type != GGUF_U32 && key->type != GGUF_U64 && key->type != GGUF_I32)
        return err_set(err, ERR_DATA, "key '%s' is %s, not u32", name, gguf_value_name(key->type));
    uint64_t at = key->value_offset;
    enum status status = take_unsigned(source, &at, key->type == GGUF_U64 ? 8 : 4, out, err);
    if (status == OK && *out > INT32_MAX) return err_set(err, ERR_DATA, "key '%s' is over 2^31-1", name);
    return status;
}

static enum status check_type(const struct stats_source *source, const struct gguf_header *header, struct err *err)
{
    const struct gguf_key *key = gguf_find_key(header, "general.type");
    char text[DATASET_NBYTES_MAX + 1] = "";
    size_t n = 0;
    if (key && key->type == GGUF_STRING) {
        uint64_t at = key->value_offset;
        enum status status = take_string(source, &at, text, &n, err);
        if (status != OK) return err_wrap(err, status, "key 'general.type'");
        if (strcmp(text, TYPE_NAME) == 0) return OK;
    } else {
        for (size_t i = 0; i < header->n_tensors; i++)
            if (stats_tensor_is_field(header->tensors[i].name)) return OK;
    }
    return err_set(err, ERR_UNSUPPORTED, "it is a GGUF file of type '%s', not " TYPE_NAME, n ? shown(text, n).text : "model");
}

static enum status read_datasets(const struct stats_source *source, const struct gguf_header *header, struct stats_set *set, struct err *err)
{
    const struct gguf_key *key = gguf_find_key(header, "imatrix.datasets");
    char text[DATASET_NBYTES_MAX + 1];
    size_t n = 0;
    if (!key) return OK;
    if (key->type != GGUF_ARRAY || key->array_type != GGUF_STRING) return err_set(err, ERR_DATA, "key 'imatrix.datasets' is no list of strings");
    if (key->count > DATASETS_MAX) return err_set(err, ERR_UNSUPPORTED, "it names %llu datasets", (unsigned long long)key->count);
    uint64_t at = key->value_offset + 4 + 8; /* type and count of the items */
    for (uint64_t i = 0; i < key->count; i++) {
        enum status status = take_string(source, &at, text, &n, err);
        if (status == OK) status = stats_add_dataset(set, text, n, err);
        if (status != OK) return err_wrap(err, status, "key 'imatrix.datasets'");
    }
    return OK;
}

static enum status read_parsed(const struct stats_source *source, const struct gguf_header *header, struct stats_set *set, struct err *err)
{
    bool has_size = false, has_count = false;
    uint64_t size = 0, count = 0;
    enum status status = check_type(source, header, err);
    if (status == OK) status = read_datasets(source, header, set, err);
    if (status == OK) status = read_u32(source, header, "imatrix.chunk_size", &size, &has_size, err);
    if (status == OK) status = read_u32(source, header, "imatrix.chunk_count", &count, &has_count, err);
    if (status == OK) status = stats_tensors_load(source, header->tensors, header->n_tensors, set, err);
    if (status == OK) status = stats_add_pair(set, "names", "gguf", err);
    if (has_size) set->chunk_size = size;
    if (has_count) set->chunk_count = count;
    return status;
}

static enum status read_set(const struct stats_source *source, struct stats_set *set, struct err *err)
{
    struct gguf_source gguf = { .read = source->read, .context = source->context, .nbytes = source->nbytes };
    struct gguf_header header;
    enum status status = gguf_header_parse(&gguf, &header, err);
    if (status != OK) return status;
    status = read_parsed(source, &header, set, err);
    gguf_header_free(&header);
    return status;
}

/* ---- writing ---------------------------------------------------------------------------------------------------------------------- */

/* The parts of an entry, in the order they are written. */
enum part { PART_SUM2, PART_COUNTS, PART_SUM, PART_COUNT };

static const char *const part_names[PART_COUNT] = { "in_sum2", "counts", "in_sum" };

struct output {
    const struct stats_set *set;
    struct stats_out *out;
    struct err *err;
    enum status status;
    uint64_t n_tensors;
    uint64_t at; /* offset of the next tensor's data */
};

static bool can_hold(const struct stats_entry *entry)
{
    return entry->values[STATS_SUM2] && entry->counts;
}

static uint64_t other_fields(const struct stats_entry *entry)
{
    uint64_t n = (uint64_t)(entry->hist != NULL) + (entry->gram != NULL) + (entry->sample != NULL);
    for (size_t f = 0; f < STATS_FIELD_COUNT; f++) n += f != STATS_SUM2 && f != STATS_SUM && entry->values[f] != NULL;
    return n;
}

/* Calls fn for every tensor of the file. */
static void each_tensor(struct output *o, void (*fn)(struct output *o, const char *name, const struct stats_entry *entry, enum part part))
{
    for (size_t i = 0; i < o->set->n_entries + o->set->n_aliases && o->status == OK; i++) {
        const struct stats_alias *alias = i < o->set->n_entries ? NULL : &o->set->aliases[i - o->set->n_entries];
        const struct stats_entry *entry = &o->set->entries[alias ? alias->entry : i];
        for (unsigned p = 0; p < PART_COUNT && can_hold(entry); p++)
            if (p != PART_SUM || entry->values[STATS_SUM]) fn(o, alias ? alias->name : entry->name, entry, (enum part)p);
    }
}

static void count(struct output *o, const char *name, const struct stats_entry *entry, enum part part)
{
    (void)entry;
    size_t n = strlen(name) + 1 + strlen(part_names[part]);
    if (n > NAME_NBYTES_MAX)
        o->status = err_set(o->err, ERR_UNSUPPORTED, "'%s.%s' has %zu bytes; the name of a GGUF tensor has at most %u", shown_str(name).text,
                            part_names[part], n, NAME_NBYTES_MAX);
    o->n_tensors++;
}

static uint64_t part_nbytes(const struct stats_entry *entry, enum part part)
{
    return entry->n_mat * (part == PART_COUNTS ? 1 : entry->n_in) * 4;
}

static uint64_t padded(uint64_t nbytes)
{
    return (nbytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; /* sizes of what lies in memory */
}

static void put_string(struct stats_out *out, const char *text)
{
    stats_put_u64(out, strlen(text));
    stats_put(out, text, strlen(text));
}

static void put_info(struct output *o, const char *name, const struct stats_entry *entry, enum part part)
{
    stats_put_u64(o->out, strlen(name) + 1 + strlen(part_names[part]));
    stats_put(o->out, name, strlen(name));
    stats_put(o->out, ".", 1);
    stats_put(o->out, part_names[part], strlen(part_names[part]));
    stats_put_u32(o->out, 2);
    stats_put_u64(o->out, part == PART_COUNTS ? 1 : entry->n_in);
    stats_put_u64(o->out, entry->n_mat);
    stats_put_u32(o->out, 0); /* F32 */
    stats_put_u64(o->out, o->at);
    o->at += padded(part_nbytes(entry, part));
}

static void put_data(struct output *o, const char *name, const struct stats_entry *entry, enum part part)
{
    uint64_t n = part_nbytes(entry, part) / 4;
    for (uint64_t i = 0; i < n && o->status == OK; i++) {
        float value = (float)(part == PART_COUNTS ? (double)entry->counts[i] : entry->values[part == PART_SUM2 ? STATS_SUM2 : STATS_SUM][i]);
        if (!isfinite(value)) o->status = err_set(o->err, ERR_UNSUPPORTED, "'%s.%s': a value is beyond F32", shown_str(name).text, part_names[part]);
        stats_put_f32(o->out, value);
    }
    stats_put_zeros(o->out, (size_t)(padded(n * 4) - n * 4));
    if (o->status == OK) o->status = o->out->status;
}

static void put_keys(struct output *o)
{
    const struct stats_set *set = o->set;
    uint64_t n_keys = 1 + (uint64_t)(set->n_datasets > 0) + (uint64_t)(set->chunk_count <= INT32_MAX) + (uint64_t)(set->chunk_size > 0);
    stats_put(o->out, GGUF_MAGIC, GGUF_MAGIC_NBYTES);
    stats_put_u32(o->out, 3);
    stats_put_u64(o->out, o->n_tensors);
    stats_put_u64(o->out, n_keys);
    put_string(o->out, "general.type");
    stats_put_u32(o->out, GGUF_STRING);
    put_string(o->out, TYPE_NAME);
    if (set->n_datasets > 0) {
        put_string(o->out, "imatrix.datasets");
        stats_put_u32(o->out, GGUF_ARRAY);
        stats_put_u32(o->out, GGUF_STRING);
        stats_put_u64(o->out, set->n_datasets);
        for (size_t i = 0; i < set->n_datasets; i++) put_string(o->out, set->datasets[i]);
    }
    if (set->chunk_count <= INT32_MAX) {
        put_string(o->out, "imatrix.chunk_count");
        stats_put_u32(o->out, GGUF_U32);
        stats_put_u32(o->out, (uint32_t)set->chunk_count);
    }
    if (set->chunk_size > 0) {
        put_string(o->out, "imatrix.chunk_size");
        stats_put_u32(o->out, GGUF_U32);
        stats_put_u32(o->out, (uint32_t)size_min(set->chunk_size, INT32_MAX));
    }
}

static enum status write_set(const struct stats_set *set, struct stats_out *out, struct stats_left *left, struct err *err)
{
    struct output o = { .set = set, .out = out, .err = err };
    for (size_t i = 0; i < set->n_entries; i++) {
        left->n_entries += !can_hold(&set->entries[i]);
        left->n_fields += can_hold(&set->entries[i]) ? other_fields(&set->entries[i]) : 0;
    }
    left->n_pairs = set->n_pairs;
    each_tensor(&o, count);
    if (o.status != OK) return o.status;
    if (o.n_tensors == 0) return err_set(err, ERR_UNSUPPORTED, "no entry has both in_sum2 and counts, which is what an imatrix holds");
    put_keys(&o);
    each_tensor(&o, put_info);
    stats_put_zeros(out, (size_t)(padded(out->at) - out->at));
    each_tensor(&o, put_data);
    return o.status;
}

const struct stats_kind stats_kind_imatrix_gguf = {
    .name = "imatrix-gguf",
    .extension = ".gguf",
    .description = "llama.cpp's importance matrix: in_sum2, counts and in_sum",
    .probe = probe,
    .read = read_set,
    .write = write_set,
};
