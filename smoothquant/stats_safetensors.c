/* stats_safetensors.c: llmq's own statistics file, which is a safetensors file; STATS.md is its specification.
 *
 *   __metadata__ {"format": "llmq-actstats", "version": "1", ...}    tensors <weight tensor name>.<field>
 *   order of tensors: by size of a value (I64, U64, F64; F32; BF16), then by entry, then by field, so that every tensor is aligned to its values
 *
 * Why this way: any tool that opens safetensors can read and make one. Values are written as F32, and as F64 where F32 would be Inf.
 * Corner cases: a file of another format with at least one tensor that ends in a field is read, so that it can be made with any safetensors
 * library; a version that is not 1 is refused; aliases must name entries; facts llmq does not know travel along.
 * Reference: STATS.md. Worked number: entry w of 1 x 2, in_sum2 [1, 4], counts [3]: w.counts at 0..8, w.in_sum2 at 8..16.
 */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/size.h"
#include "base/text.h"
#include "container/safetensors_header.h"
#include "container/shown.h"
#include "number/half.h"
#include "smoothquant/stats_kind.h"
#include "smoothquant/stats_tensors.h"

#define FORMAT_NAME "llmq-actstats"
#define FORMAT_VERSION "1"

static const struct json_limits limits = { .max_depth = 3, .max_values = (uint64_t)1 << 20, .plain_integers = true };

static enum status no_memory(struct err *err)
{
    return err_set(err, ERR_MEMORY, "out of memory for statistics");
}

/* ---- reading: metadata ------------------------------------------------------------------------------------------------------------ */

static enum status parse_number(const char *key, const char *text, uint64_t *out, struct err *err)
{
    size_t n = strlen(text);
    if (n == 0 || n > 15 || strspn(text, "0123456789") != n) return err_set(err, ERR_DATA, "%s '%s' is no number", key, shown_str(text).text);
    *out = strtoull(text, NULL, 10);
    return OK;
}

static enum status read_aliases(struct stats_set *set, const char *text, struct err *err)
{
    cJSON *tree = NULL;
    enum status status = json_parse(text, strlen(text), &limits, &tree, err);
    if (status == OK && !cJSON_IsObject(tree)) status = err_set(err, ERR_DATA, "it is no object");
    for (const cJSON *item = status == OK ? tree->child : NULL; item && status == OK; item = item->next) {
        const char *target = NULL;
        status = json_string(item, "an alias", &target, err);
        size_t number = status == OK ? name_table_find(&set->names, target) : SIZE_MAX;
        if (status == OK && (number == SIZE_MAX || set->targets[number] != number))
            status = err_set(err, ERR_DATA, "'%s' stands for '%s', which is no entry", shown_str(item->string).text, shown_str(target).text);
        if (status == OK) status = stats_add_alias(set, item->string, set->targets[number], err);
    }
    cJSON_Delete(tree);
    return status;
}

static enum status read_datasets(struct stats_set *set, const char *text, struct err *err)
{
    cJSON *tree = NULL;
    enum status status = json_parse(text, strlen(text), &limits, &tree, err);
    if (status == OK && !cJSON_IsArray(tree)) status = err_set(err, ERR_DATA, "it is no list");
    for (const cJSON *item = status == OK ? tree->child : NULL; item && status == OK; item = item->next) {
        const char *name = NULL;
        status = json_string(item, "a dataset", &name, err);
        if (status == OK) status = stats_add_dataset(set, name, strlen(name), err);
    }
    cJSON_Delete(tree);
    return status;
}

static enum status read_fact(struct stats_set *set, const char *key, const char *value, struct err *err)
{
    enum status status = OK;
    if (strcmp(key, "format") == 0) return OK;
    if (strcmp(key, "version") == 0) return OK;
    if (strcmp(key, "alias") == 0) status = read_aliases(set, value, err);
    else if (strcmp(key, "datasets") == 0) status = read_datasets(set, value, err);
    else if (strcmp(key, "dataset") == 0) status = stats_add_dataset(set, value, strlen(value), err);
    else if (strcmp(key, "seq_len") == 0) status = parse_number(key, value, &set->chunk_size, err);
    else if (strcmp(key, "sequences") == 0) status = parse_number(key, value, &set->chunk_count, err);
    else status = stats_add_pair(set, key, value, err);
    return status == OK ? OK : err_wrap(err, status, "its metadata '%s'", shown_str(key).text);
}

/* is_ours: the metadata says the format. */
static enum status check_format(const cJSON *facts, bool *is_ours, struct err *err)
{
    const cJSON *format = facts ? json_get(facts, "format") : NULL, *version = facts ? json_get(facts, "version") : NULL;
    *is_ours = cJSON_IsString(format) && strcmp(format->valuestring, FORMAT_NAME) == 0;
    if (!*is_ours || (cJSON_IsString(version) && strcmp(version->valuestring, FORMAT_VERSION) == 0)) return OK;
    return err_set(err, ERR_UNSUPPORTED, "its version is %s, llmq reads version " FORMAT_VERSION,
                   cJSON_IsString(version) ? shown_str(version->valuestring).text : "missing");
}

/* ---- reading ---------------------------------------------------------------------------------------------------------------------- */

static bool probe(const struct stats_source *source, const uint8_t *head, size_t n_head)
{
    return source->nbytes >= SAFETENSORS_LENGTH_NBYTES && safetensors_header_plausible(head, n_head);
}

static enum status read_header(const struct stats_source *source, struct safetensors_header *header, struct err *err)
{
    uint8_t head[SAFETENSORS_LENGTH_NBYTES];
    enum status status = stats_source_read(source, head, sizeof head, 0, "its length", err);
    if (status != OK) return status;
    uint64_t nbytes = safetensors_header_nbytes(head), room = source->nbytes - sizeof head;
    if (nbytes == 0 || nbytes > SAFETENSORS_HEADER_MAX || nbytes > room)
        return err_set(err, ERR_DATA, "its header's length is %llu, %llu bytes follow", (unsigned long long)nbytes, (unsigned long long)room);
    char *text = malloc((size_t)nbytes);
    if (!text) return no_memory(err);
    status = stats_source_read(source, text, (size_t)nbytes, sizeof head, "its header", err);
    if (status == OK) status = safetensors_header_parse(text, (size_t)nbytes, room - nbytes, header, err);
    free(text);
    for (size_t i = 0; status == OK && i < header->n_tensors; i++) header->tensors[i].offset += sizeof head + nbytes;
    return status;
}

static enum status read_parsed(const struct stats_source *source, const struct safetensors_header *header, const cJSON *facts, struct stats_set *set,
                               struct err *err)
{
    bool is_ours = false, has_field = false;
    enum status status = check_format(facts, &is_ours, err);
    for (size_t i = 0; i < header->n_tensors; i++) has_field |= stats_tensor_is_field(header->tensors[i].name);
    if (status == OK && !is_ours && !has_field)
        return err_set(err, ERR_UNSUPPORTED, "it holds no statistics: no tensor ends in .in_sum2 or another field; is it a model?");
    if (status == OK) status = stats_tensors_load(source, header->tensors, header->n_tensors, set, err);
    for (const cJSON *item = facts ? facts->child : NULL; item && status == OK; item = item->next)
        if (cJSON_IsString(item)) status = read_fact(set, item->string, item->valuestring, err);
    return status;
}

static enum status read_set(const struct stats_source *source, struct stats_set *set, struct err *err)
{
    struct safetensors_header header = { 0 };
    cJSON *facts = NULL;
    enum status status = read_header(source, &header, err);
    if (status == OK && header.metadata_json) status = json_parse(header.metadata_json, header.metadata_nbytes, &limits, &facts, err);
    if (status == OK) status = read_parsed(source, &header, facts, set, err);
    cJSON_Delete(facts);
    safetensors_header_free(&header);
    return status;
}

/* ---- writing: the plan ------------------------------------------------------------------------------------------------------------ */

/* What can be written of an entry; the fields stand before these. */
enum slot { SLOT_COUNTS = STATS_FIELD_COUNT, SLOT_HIST, SLOT_GRAM, SLOT_SAMPLE, SLOT_COUNT };

struct output {
    const struct stats_set *set;
    struct stats_out *out;
    uint8_t *wide; /* of an entry: bit f says that field f is F64 */
    struct text header;
    uint64_t at; /* of the next tensor in the data */
};

static const char *name_of(size_t slot)
{
    static const char *const names[SLOT_COUNT - STATS_FIELD_COUNT] = { STATS_COUNTS_NAME, STATS_HIST_NAME, STATS_GRAM_NAME, STATS_SAMPLE_NAME };
    return slot < STATS_FIELD_COUNT ? stats_fields[slot].name : names[slot - STATS_FIELD_COUNT];
}

static bool has(const struct stats_entry *entry, size_t slot)
{
    const void *const others[] = { entry->counts, entry->hist, entry->gram, entry->sample };
    return slot < STATS_FIELD_COUNT ? entry->values[slot] != NULL : others[slot - STATS_FIELD_COUNT] != NULL;
}

static const char *dtype_name(const struct output *o, size_t index, size_t slot)
{
    const struct stats_entry *entry = &o->set->entries[index];
    const char *const others[] = { "I64", "U64", entry->gram_is_bf16 ? "BF16" : "F32", "BF16" };
    if (slot >= STATS_FIELD_COUNT) return others[slot - STATS_FIELD_COUNT];
    return o->wide[index] >> slot & 1 ? "F64" : "F32";
}

static unsigned value_nbytes(const char *dtype)
{
    return strcmp(dtype, "BF16") == 0 ? 2 : strcmp(dtype, "F32") == 0 ? 4 : 8;
}

/* Rows and columns; sizes in memory exist, so the products do not overflow. */
static void shape_of(const struct stats_entry *entry, size_t slot, uint64_t *rows, uint64_t *cols)
{
    *rows = slot == SLOT_COUNTS || slot == SLOT_HIST ? 1 : slot == SLOT_SAMPLE ? entry->n_sample : entry->n_mat;
    *cols = slot == SLOT_COUNTS ? entry->n_mat
            : slot == SLOT_HIST ? STATS_HIST_BINS
            : slot == SLOT_GRAM ? entry->n_in * (entry->n_in + 1) / 2
                                : entry->n_in;
}

static void describe(struct output *o, size_t index, size_t slot)
{
    const struct stats_entry *entry = &o->set->entries[index];
    const char *dtype = dtype_name(o, index, slot);
    uint64_t rows = 0, cols = 0;
    shape_of(entry, slot, &rows, &cols);
    uint64_t end = o->at + rows * cols * value_nbytes(dtype);
    struct text name = text_make(STATS_NAME_MAX + 32);
    text_add(&name, "%s.%s", entry->name, name_of(slot));
    text_add(&o->header, ",");
    text_add_json(&o->header, name.data, name.nbytes);
    o->header.failed |= name.failed;
    text_free(&name);
    text_add(&o->header, ":{\"dtype\":\"%s\",\"shape\":[", dtype);
    if (slot != SLOT_COUNTS && slot != SLOT_HIST) text_add(&o->header, "%llu,", (unsigned long long)rows);
    text_add(&o->header, "%llu],\"data_offsets\":[%llu,%llu]}", (unsigned long long)cols, (unsigned long long)o->at, (unsigned long long)end);
    o->at = end;
}

static void put_f64(struct stats_out *out, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    stats_put_u64(out, bits);
}

static void put_u16(struct stats_out *out, uint16_t value)
{
    const uint8_t bytes[2] = { (uint8_t)(value & 0xff), (uint8_t)(value >> 8) };
    stats_put(out, bytes, sizeof bytes);
}

static void put_values(struct output *o, size_t index, size_t slot)
{
    const struct stats_entry *entry = &o->set->entries[index];
    bool is_wide = strcmp(dtype_name(o, index, slot), "F64") == 0;
    uint64_t rows = 0, cols = 0;
    shape_of(entry, slot, &rows, &cols);
    for (uint64_t i = 0; i < rows * cols && o->out->status == OK; i++) {
        if (slot == SLOT_COUNTS) stats_put_u64(o->out, entry->counts[i]);
        else if (slot == SLOT_HIST) stats_put_u64(o->out, entry->hist[i]);
        else if (slot == SLOT_SAMPLE) put_u16(o->out, entry->sample[i]);
        else if (slot == SLOT_GRAM && entry->gram_is_bf16) put_u16(o->out, f32_to_bf16(entry->gram[i]));
        else if (slot == SLOT_GRAM) stats_put_f32(o->out, entry->gram[i]);
        else if (is_wide) put_f64(o->out, entry->values[slot][i]);
        else stats_put_f32(o->out, (float)entry->values[slot][i]);
    }
}

/* Calls fn for every tensor, in the order of the file. */
static void each_tensor(struct output *o, void (*fn)(struct output *o, size_t index, size_t slot))
{
    for (unsigned nbytes = 8; nbytes >= 2; nbytes /= 2)
        for (size_t i = 0; i < o->set->n_entries; i++)
            for (size_t slot = 0; slot < SLOT_COUNT; slot++)
                if (has(&o->set->entries[i], slot) && value_nbytes(dtype_name(o, i, slot)) == nbytes) fn(o, i, slot);
}

/* ---- writing ---------------------------------------------------------------------------------------------------------------------- */

static void find_wide(struct output *o)
{
    for (size_t i = 0; i < o->set->n_entries; i++)
        for (size_t f = 0; f < STATS_FIELD_COUNT; f++) {
            const struct stats_entry *entry = &o->set->entries[i];
            for (uint64_t k = 0; entry->values[f] && k < entry->n_mat * entry->n_in; k++)
                if ((f32_bits((float)entry->values[f][k]) & 0x7f800000u) == 0x7f800000u) {
                    o->wide[i] |= (uint8_t)(1u << f);
                    break;
                }
        }
}

static void add_fact(struct text *header, const char *key, const char *value, size_t n)
{
    text_add(header, ",");
    text_add_json_str(header, key);
    text_add(header, ":");
    text_add_json(header, value, n);
}

static void add_number(struct text *header, const char *key, uint64_t value)
{
    text_add(header, ",\"%s\":\"%llu\"", key, (unsigned long long)value);
}

static void add_lists(struct output *o)
{
    struct text list = text_make(SAFETENSORS_HEADER_MAX);
    if (o->set->n_datasets == 1) add_fact(&o->header, "dataset", o->set->datasets[0], strlen(o->set->datasets[0]));
    if (o->set->n_datasets > 1) {
        for (size_t i = 0; i < o->set->n_datasets; i++) {
            text_add(&list, i ? "," : "[");
            text_add_json_str(&list, o->set->datasets[i]);
        }
        text_add(&list, "]");
        add_fact(&o->header, "datasets", list.data, list.nbytes);
    }
    text_reset(&list);
    if (o->set->n_aliases > 0) {
        for (size_t i = 0; i < o->set->n_aliases; i++) {
            text_add(&list, i ? "," : "{");
            text_add_json_str(&list, o->set->aliases[i].name);
            text_add(&list, ":");
            text_add_json_str(&list, o->set->entries[o->set->aliases[i].entry].name);
        }
        text_add(&list, "}");
        add_fact(&o->header, "alias", list.data, list.nbytes);
    }
    o->header.failed |= list.failed;
    text_free(&list);
}

static void add_metadata(struct output *o)
{
    text_add(&o->header, "{\"__metadata__\":{\"format\":\"" FORMAT_NAME "\",\"version\":\"" FORMAT_VERSION "\"");
    if (o->set->chunk_size) add_number(&o->header, "seq_len", o->set->chunk_size);
    if (o->set->chunk_count != UINT64_MAX) add_number(&o->header, "sequences", o->set->chunk_count);
    add_lists(o);
    for (size_t i = 0; i < o->set->n_pairs; i++) add_fact(&o->header, o->set->pairs[i].key, o->set->pairs[i].value, strlen(o->set->pairs[i].value));
    text_add(&o->header, "}");
}

static enum status write_set(const struct stats_set *set, struct stats_out *out, struct stats_left *left, struct err *err)
{
    struct output o = { .set = set, .out = out, .wide = calloc(set->n_entries + 1, 1), .header = text_make(SAFETENSORS_HEADER_MAX) };
    (void)left; /* all of a set can be held */
    if (!o.wide) {
        text_free(&o.header);
        return no_memory(err);
    }
    find_wide(&o);
    add_metadata(&o);
    each_tensor(&o, describe);
    text_add(&o.header, "}");
    while (o.header.nbytes % 8 != 0 && !o.header.failed) text_add(&o.header, " ");
    enum status status = text_ok(&o.header, "the header", err);
    if (status == OK) {
        stats_put_u64(out, o.header.nbytes);
        stats_put(out, o.header.data, o.header.nbytes);
        each_tensor(&o, put_values);
    }
    text_free(&o.header);
    free(o.wide);
    return status;
}

const struct stats_kind stats_kind_safetensors = {
    .name = "safetensors",
    .extension = ".safetensors",
    .description = "llmq's statistics file (STATS.md): all fields",
    .probe = probe,
    .read = read_set,
    .write = write_set,
};
