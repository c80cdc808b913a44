/* stats_tensors.c: from named tensors to entries; see stats_tensors.h.
 *
 * Drawing: tensors -> groups by name, a slot a field -> shape of the first field -> entry -> values, 64 KiB at a time.
 * Why this way: two passes over the table, one over the data: the counts may stand before the field that says how many channels there are.
 * Corner cases: F32, F16, BF16 and F64 hold values; I64, U64, I32, U32 and whole F32 and F64 hold counts.
 * Reference: see stats_tensors.h. Worked number: in_gram of 4 channels has 10 values a matrix.
 */
#include "smoothquant/stats_tensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "container/shown.h"
#include "number/half.h"

/* The slots of a group: the fields, then these. */
enum slot { SLOT_COUNTS = STATS_FIELD_COUNT, SLOT_HIST, SLOT_GRAM, SLOT_SAMPLE, SLOT_COUNT };

#define CHUNK_NBYTES ((size_t)64 * 1024)

struct group {
    char *name;
    const struct tensor *slots[SLOT_COUNT];
};

struct load {
    const struct stats_source *source;
    struct stats_set *set;
    struct group *groups;
    size_t n_groups, groups_capacity;
    struct name_table names;
    size_t n_other; /* tensors that are no field */
    const char *other; /* the first of them */
    uint8_t *bytes; /* CHUNK_NBYTES */
    double *numbers; /* CHUNK_NBYTES / 2: 2 bytes a value at least */
};

static const char *slot_name(size_t slot)
{
    static const char *const names[SLOT_COUNT - STATS_FIELD_COUNT] = { STATS_COUNTS_NAME, STATS_HIST_NAME, STATS_GRAM_NAME, STATS_SAMPLE_NAME };
    return slot < STATS_FIELD_COUNT ? stats_fields[slot].name : names[slot - STATS_FIELD_COUNT];
}

/* Splits NAME.FIELD; SLOT_COUNT when there is none. */
static size_t slot_of(const char *name, size_t *n_prefix)
{
    const char *dot = strrchr(name, '.');
    if (!dot || dot == name) return SLOT_COUNT;
    *n_prefix = (size_t)(dot - name);
    for (size_t slot = 0; slot < SLOT_COUNT; slot++)
        if (strcmp(dot + 1, slot_name(slot)) == 0) return slot;
    return strcmp(dot + 1, "sums") == 0 ? (size_t)STATS_SUM2 : (size_t)SLOT_COUNT;
}

bool stats_tensor_is_field(const char *name)
{
    size_t n = 0;
    return slot_of(name, &n) != SLOT_COUNT;
}

static enum status no_memory(struct err *err)
{
    return err_set(err, ERR_MEMORY, "out of memory for statistics");
}

/* ---- grouping --------------------------------------------------------------------------------------------------------------------- */

/* The group of the first n bytes of name; made when it is new. */
static enum status find_group(struct load *load, const char *name, size_t n, struct group **group, struct err *err)
{
    size_t index = 0, before = load->names.n_names;
    if (load->n_groups == load->groups_capacity) {
        size_t capacity = load->groups_capacity ? load->groups_capacity * 2 : 64;
        struct group *bigger = realloc(load->groups, capacity * sizeof *bigger);
        if (!bigger) return no_memory(err);
        load->groups = bigger;
        load->groups_capacity = capacity;
    }
    char *copy = malloc(n + 1);
    if (!copy) return no_memory(err);
    memcpy(copy, name, n);
    copy[n] = '\0';
    enum status status = name_table_add(&load->names, copy, &index, err);
    if (status != OK || load->names.n_names == before) free(copy);
    else load->groups[load->n_groups++] = (struct group){ .name = copy };
    if (status == OK) *group = &load->groups[index];
    return status;
}

static enum status place(struct load *load, const struct tensor *tensor, struct err *err)
{
    size_t n_prefix = 0, slot = slot_of(tensor->name, &n_prefix);
    struct group *group = NULL;
    if (slot == SLOT_COUNT) {
        if (load->n_other++ == 0) load->other = tensor->name;
        return OK;
    }
    enum status status = find_group(load, tensor->name, n_prefix, &group, err);
    if (status != OK) return status;
    if (group->slots[slot]) return err_set(err, ERR_DATA, "'%s' has %s twice", shown_str(group->name).text, slot_name(slot));
    group->slots[slot] = tensor;
    return OK;
}

/* ---- values ----------------------------------------------------------------------------------------------------------------------- */

static uint64_t little(const uint8_t *bytes, unsigned n)
{
    uint64_t out = 0;
    for (unsigned i = 0; i < n; i++) out |= (uint64_t)bytes[i] << (8 * i);
    return out;
}

static double decode_f64(const uint8_t *bytes)
{
    uint64_t bits = little(bytes, 8);
    double out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

static double decode_f32(const uint8_t *bytes)
{
    return (double)f32_from_bits((uint32_t)little(bytes, 4));
}

static double decode_f16(const uint8_t *bytes)
{
    return (double)f16_to_f32((uint16_t)little(bytes, 2));
}

static double decode_bf16(const uint8_t *bytes)
{
    return (double)bf16_to_f32((uint16_t)little(bytes, 2));
}

/* Integers beyond 2^53 are refused as counts by what becomes of them: no double above 2^53 - 1 passes. */
static double decode_i64(const uint8_t *bytes)
{
    uint64_t bits = little(bytes, 8);
    return bits >> 63 ? -1.0 : (double)bits;
}

static double decode_u64(const uint8_t *bytes)
{
    return (double)little(bytes, 8);
}

static double decode_i32(const uint8_t *bytes)
{
    uint64_t bits = little(bytes, 4);
    return bits >> 31 ? -1.0 : (double)bits;
}

static double decode_u32(const uint8_t *bytes)
{
    return (double)little(bytes, 4);
}

static const struct decoder {
    const char *dtype;
    unsigned nbytes;
    bool is_value, is_count;
    double (*decode)(const uint8_t *bytes);
} decoders[] = {
    { "F32", 4, true, true, decode_f32 },  { "F16", 2, true, false, decode_f16 }, { "BF16", 2, true, false, decode_bf16 },
    { "F64", 8, true, true, decode_f64 },  { "I64", 8, false, true, decode_i64 }, { "U64", 8, false, true, decode_u64 },
    { "I32", 4, false, true, decode_i32 }, { "U32", 4, false, true, decode_u32 },
};

static const struct decoder *decoder_of(const struct tensor *tensor, bool is_count, struct err *err)
{
    for (size_t i = 0; !tensor->quantised && i < sizeof decoders / sizeof decoders[0]; i++)
        if (strcmp(decoders[i].dtype, tensor->dtype->name) == 0 && (is_count ? decoders[i].is_count : decoders[i].is_value)) return &decoders[i];
    err_set(err, ERR_UNSUPPORTED, "'%s' is %s, no type for %s", shown_str(tensor->name).text,
            tensor->quantised ? tensor->format : tensor->dtype->name, is_count ? "counts" : "statistics");
    return NULL;
}

/* Hands n values of tensor, from number `from` on, to take, some at a time. */
static enum status read_values(struct load *load, const struct tensor *tensor, bool is_count, uint64_t n,
                               enum status (*take)(void *context, uint64_t at, const double *numbers, size_t n, struct err *err), void *context,
                               struct err *err)
{
    const struct decoder *decoder = decoder_of(tensor, is_count, err);
    if (!decoder) return ERR_UNSUPPORTED;
    for (uint64_t at = 0; at < n;) {
        size_t part = (size_t)size_min(n - at, CHUNK_NBYTES / decoder->nbytes);
        enum status status =
            stats_source_read(load->source, load->bytes, part * decoder->nbytes, tensor->offset + at * decoder->nbytes, "its data", err);
        if (status != OK) return status;
        for (size_t i = 0; i < part; i++) load->numbers[i] = decoder->decode(load->bytes + i * decoder->nbytes);
        status = take(context, at, load->numbers, part, err);
        if (status != OK) return err_wrap(err, status, "'%s'", shown_str(tensor->name).text);
        at += part;
    }
    return OK;
}

static enum status take_doubles(void *context, uint64_t at, const double *numbers, size_t n, struct err *err)
{
    (void)err;
    memcpy((double *)context + at, numbers, n * sizeof *numbers);
    return OK;
}

static enum status take_floats(void *context, uint64_t at, const double *numbers, size_t n, struct err *err)
{
    float *out = (float *)context + at;
    for (size_t i = 0; i < n; i++) {
        if (!(fabs(numbers[i]) <= (double)3.402823466e38f))
            return err_set(err, ERR_DATA, "value %llu is NaN, Inf or beyond F32", (unsigned long long)(at + i));
        out[i] = (float)numbers[i];
    }
    return OK;
}

static enum status take_counts(void *context, uint64_t at, const double *numbers, size_t n, struct err *err)
{
    uint64_t *out = (uint64_t *)context + at;
    for (size_t i = 0; i < n; i++) {
        if (!(numbers[i] >= 0.0 && numbers[i] <= (double)STATS_COUNT_MAX) || numbers[i] != floor(numbers[i]))
            return err_set(err, ERR_DATA, "count %llu is no whole number from 0 to 2^53-1", (unsigned long long)(at + i));
        out[i] = (uint64_t)numbers[i];
    }
    return OK;
}

static enum status take_bf16(void *context, uint64_t at, const double *numbers, size_t n, struct err *err)
{
    uint16_t *out = (uint16_t *)context + at;
    (void)err;
    for (size_t i = 0; i < n; i++) out[i] = f32_to_bf16((float)numbers[i]);
    return OK;
}

/* ---- one entry -------------------------------------------------------------------------------------------------------------------- */

/* Rows and columns of a tensor: the last dim, and the product of the others. The product is there: n_weights has been checked. */
static void dims_of(const struct tensor *tensor, uint64_t *n_rows, uint64_t *n_cols)
{
    *n_cols = tensor->rank ? tensor->dims[tensor->rank - 1] : 1;
    *n_rows = *n_cols ? tensor->n_weights / *n_cols : 0;
}

static enum status wrong_shape(const struct tensor *tensor, uint64_t n_mat, uint64_t n_in, struct err *err)
{
    uint64_t rows = 0, cols = 0;
    dims_of(tensor, &rows, &cols);
    return err_set(err, ERR_DATA, "'%s' has the shape %llu x %llu, which does not go with %llu matrices of %llu channels",
                   shown_str(tensor->name).text, (unsigned long long)rows, (unsigned long long)cols, (unsigned long long)n_mat,
                   (unsigned long long)n_in);
}

static enum status load_fields(struct load *load, const struct group *group, struct stats_entry *entry, struct err *err)
{
    for (size_t f = 0; f < STATS_FIELD_COUNT; f++) {
        const struct tensor *tensor = group->slots[f];
        uint64_t rows = 0, cols = 0;
        if (!tensor) continue;
        dims_of(tensor, &rows, &cols);
        if (rows != entry->n_mat || cols != entry->n_in) return wrong_shape(tensor, entry->n_mat, entry->n_in, err);
        enum status status = stats_make_field(load->set, entry, (enum stats_field)f, err);
        if (status == OK) status = read_values(load, tensor, false, rows * cols, take_doubles, entry->values[f], err);
        if (status != OK) return status;
    }
    return OK;
}

static enum status load_counts(struct load *load, const struct tensor *tensor, struct stats_entry *entry, struct err *err)
{
    if (tensor->n_weights != entry->n_mat && tensor->n_weights != 1) return wrong_shape(tensor, entry->n_mat, entry->n_in, err);
    enum status status = stats_make_counts(load->set, entry, err);
    if (status == OK) status = read_values(load, tensor, true, tensor->n_weights, take_counts, entry->counts, err);
    for (uint64_t m = tensor->n_weights; status == OK && m < entry->n_mat; m++) entry->counts[m] = entry->counts[0];
    return status;
}

static enum status load_hist(struct load *load, const struct tensor *tensor, struct stats_entry *entry, struct err *err)
{
    if (tensor->n_weights != STATS_HIST_BINS) return wrong_shape(tensor, entry->n_mat, entry->n_in, err);
    enum status status = stats_make_hist(load->set, entry, err);
    return status == OK ? read_values(load, tensor, true, STATS_HIST_BINS, take_counts, entry->hist, err) : status;
}

static enum status load_gram(struct load *load, const struct tensor *tensor, struct stats_entry *entry, struct err *err)
{
    uint64_t square = 0, n = 0;
    if (!size_mul(entry->n_in, entry->n_in + 1, &square) || !size_mul(square / 2, entry->n_mat, &n) || tensor->n_weights != n)
        return wrong_shape(tensor, entry->n_mat, entry->n_in, err);
    enum status status = stats_make_gram(load->set, entry, err);
    entry->gram_is_bf16 = strcmp(tensor->dtype->name, "BF16") == 0;
    return status == OK ? read_values(load, tensor, false, n, take_floats, entry->gram, err) : status;
}

static enum status load_sample(struct load *load, const struct tensor *tensor, struct stats_entry *entry, struct err *err)
{
    uint64_t rows = 0, cols = 0;
    dims_of(tensor, &rows, &cols);
    if (cols != entry->n_in || rows == 0) return wrong_shape(tensor, entry->n_mat, entry->n_in, err);
    if (strcmp(tensor->dtype->name, "BF16") != 0)
        return err_set(err, ERR_UNSUPPORTED, "'%s' is %s, not BF16", shown_str(tensor->name).text, tensor->dtype->name);
    enum status status = stats_make_sample(load->set, entry, rows, err);
    return status == OK ? read_values(load, tensor, false, rows * cols, take_bf16, entry->sample, err) : status;
}

static enum status load_group(struct load *load, const struct group *group, struct err *err)
{
    const struct tensor *shape = NULL;
    uint64_t n_mat = 0, n_in = 0;
    size_t index = 0;
    for (size_t f = STATS_FIELD_COUNT; f > 0; f--)
        if (group->slots[f - 1]) shape = group->slots[f - 1];
    if (!shape) return err_set(err, ERR_DATA, "'%s' has no field with a value a channel", shown_str(group->name).text);
    dims_of(shape, &n_mat, &n_in);
    enum status status = stats_add(load->set, group->name, n_mat, n_in, &index, err);
    if (status != OK) return status;
    struct stats_entry *entry = &load->set->entries[index];
    status = load_fields(load, group, entry, err);
    if (status == OK && group->slots[SLOT_COUNTS]) status = load_counts(load, group->slots[SLOT_COUNTS], entry, err);
    if (status == OK && group->slots[SLOT_HIST]) status = load_hist(load, group->slots[SLOT_HIST], entry, err);
    if (status == OK && group->slots[SLOT_GRAM]) status = load_gram(load, group->slots[SLOT_GRAM], entry, err);
    if (status == OK && group->slots[SLOT_SAMPLE]) status = load_sample(load, group->slots[SLOT_SAMPLE], entry, err);
    return status;
}

enum status stats_tensors_load(const struct stats_source *source, const struct tensor *tensors, size_t n, struct stats_set *set, struct err *err)
{
    struct load load = { .source = source, .set = set, .bytes = malloc(CHUNK_NBYTES), .numbers = malloc(CHUNK_NBYTES / 2 * sizeof(double)) };
    enum status status = load.bytes && load.numbers ? OK : no_memory(err);
    for (size_t i = 0; i < n && status == OK; i++) status = place(&load, &tensors[i], err);
    for (size_t i = 0; i < load.n_groups && status == OK; i++) status = load_group(&load, &load.groups[i], err);
    if (status == OK && load.n_other)
        stats_note(set, "%zu tensors are no statistics and were passed over, the first is '%s'", load.n_other, shown_str(load.other).text);
    for (size_t i = 0; i < load.n_groups; i++) free(load.groups[i].name);
    free(load.groups);
    free(load.bytes);
    free(load.numbers);
    name_table_free(&load.names);
    return status;
}
