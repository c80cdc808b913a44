/* stats.c: the set of statistics in memory; see stats.h.
 *
 * Formula: nbytes of a field = n_mat * n_in * 8, of a Gram matrix n_mat * n_in (n_in + 1) / 2 * 4.
 * Why this way: memory is charged before it is taken, so a file that claims more than it holds is stopped by its reader, and one that holds more
 * than the cap is stopped here.
 * Corner cases: names and aliases share one table, so an alias never hides an entry; sorting makes the table anew; a second dataset of the same
 * name is one dataset.
 * Reference: see stats.h. Worked number: n_in 3 has a Gram matrix of 6 values: 00 01 02 11 12 22.
 */
#include "smoothquant/stats.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "base/utf8.h"
#include "container/shown.h"

#define NOTES_MAX 64u
#define DATASETS_MAX 256u
#define DATASET_NBYTES_MAX 4096u
#define PAIRS_MAX 256u
#define KEY_NBYTES_MAX 256u

const struct stats_field_row stats_fields[STATS_FIELD_COUNT] = {
    [STATS_SUM2] = { "in_sum2", STATS_ADD, true, true },      [STATS_SUM] = { "in_sum", STATS_ADD, false, true },
    [STATS_SUMABS] = { "in_sumabs", STATS_ADD, true, true },  [STATS_ABSMAX] = { "in_absmax", STATS_LARGEST, true, false },
    [STATS_MIN] = { "in_min", STATS_SMALLEST, false, false }, [STATS_MAX] = { "in_max", STATS_LARGEST, false, false },
    [STATS_SCALE] = { "in_scale", STATS_SAME, true, false },
};

/* ---- the set ---------------------------------------------------------------------------------------------------------------------- */

struct stats_set *stats_new(uint64_t max_nbytes)
{
    struct stats_set *set = calloc(1, sizeof *set);
    if (!set) return NULL;
    set->max_nbytes = max_nbytes ? max_nbytes : STATS_NBYTES_MAX;
    set->chunk_count = UINT64_MAX;
    return set;
}

static void free_entry(struct stats_entry *entry)
{
    for (size_t f = 0; f < STATS_FIELD_COUNT; f++) free(entry->values[f]);
    free(entry->name);
    free(entry->counts);
    free(entry->hist);
    free(entry->gram);
    free(entry->sample);
}

void stats_close(struct stats_set *set)
{
    if (!set) return;
    for (size_t i = 0; i < set->n_entries; i++) free_entry(&set->entries[i]);
    for (size_t i = 0; i < set->n_aliases; i++) free(set->aliases[i].name);
    for (size_t i = 0; i < set->n_datasets; i++) free(set->datasets[i]);
    for (size_t i = 0; i < set->n_notes; i++) free(set->notes[i]);
    for (size_t i = 0; i < set->n_pairs; i++) {
        free(set->pairs[i].key);
        free(set->pairs[i].value);
    }
    free(set->entries);
    free(set->aliases);
    free(set->datasets);
    free(set->notes);
    free(set->pairs);
    free(set->targets);
    name_table_free(&set->names);
    free(set);
}

static enum status no_memory(struct err *err)
{
    return err_set(err, ERR_MEMORY, "out of memory for statistics");
}

/* The array with room for one item more than n; growth by a half and more, so that appending is linear. NULL when out of memory. */
static void *grown(void *array, size_t n, size_t *capacity, size_t item_nbytes)
{
    if (n < *capacity) return array;
    size_t wanted = *capacity ? *capacity * 2 : 64; /* at most 2^22 items */
    void *bigger = realloc(array, wanted * item_nbytes);
    if (bigger) *capacity = wanted;
    return bigger;
}

static enum status check_name(const char *name, struct err *err)
{
    size_t n = strlen(name);
    if (n == 0) return err_set(err, ERR_DATA, "an entry's name is empty");
    if (n > STATS_NAME_MAX) return err_set(err, ERR_UNSUPPORTED, "an entry's name has %zu bytes, more than the limit of %u", n, STATS_NAME_MAX);
    for (size_t i = 0, length = 0; i < n; i += length) {
        length = utf8_length(name + i, n - i);
        if (length == 0) return err_set(err, ERR_DATA, "the name '%s' is not UTF-8", shown(name, n).text);
        if ((unsigned char)name[i] < 32 || name[i] == 127)
            return err_set(err, ERR_DATA, "the name '%s' has a control character", shown(name, n).text);
    }
    return OK;
}

/* Puts a copied name into the table; it stands for entry number target. */
static enum status add_name(struct stats_set *set, const char *name, size_t target, struct err *err)
{
    size_t number = 0, before = set->names.n_names;
    size_t *targets = grown(set->targets, before, &set->targets_capacity, sizeof *targets);
    if (!targets) return no_memory(err);
    set->targets = targets;
    enum status status = name_table_add(&set->names, name, &number, err);
    if (status != OK) return status;
    if (set->names.n_names == before) return err_set(err, ERR_DATA, "'%s' is there twice", shown_str(name).text);
    targets[number] = target;
    return OK;
}

enum status stats_add(struct stats_set *set, const char *name, uint64_t n_mat, uint64_t n_in, size_t *index, struct err *err)
{
    uint64_t n_values = 0;
    enum status status = check_name(name, err);
    if (status != OK) return status;
    if (n_mat == 0 || n_in == 0) return err_set(err, ERR_DATA, "'%s' has no channels", shown_str(name).text);
    if (n_mat > STATS_MATS_MAX || !size_mul(n_mat, n_in, &n_values) || n_values > UINT64_MAX / 64)
        return err_set(err, ERR_UNSUPPORTED, "'%s' has %llu matrices of %llu channels, more than the limit", shown_str(name).text,
                       (unsigned long long)n_mat, (unsigned long long)n_in);
    if (set->n_entries >= STATS_ENTRIES_MAX) return err_set(err, ERR_UNSUPPORTED, "more than %u entries", STATS_ENTRIES_MAX);
    struct stats_entry *entries = grown(set->entries, set->n_entries, &set->entries_capacity, sizeof *entries);
    if (!entries) return no_memory(err);
    set->entries = entries;
    char *copy = strdup(name);
    if (!copy) return no_memory(err);
    status = add_name(set, copy, set->n_entries, err);
    if (status != OK) {
        free(copy);
        return status;
    }
    *index = set->n_entries++;
    entries[*index] = (struct stats_entry){ .name = copy, .n_mat = n_mat, .n_in = n_in };
    return OK;
}

enum status stats_add_alias(struct stats_set *set, const char *name, size_t index, struct err *err)
{
    enum status status = check_name(name, err);
    if (status != OK) return status;
    if (set->n_aliases >= STATS_ENTRIES_MAX) return err_set(err, ERR_UNSUPPORTED, "more than %u aliases", STATS_ENTRIES_MAX);
    if ((set->n_aliases & (set->n_aliases - 1)) == 0) { /* a power of two, or none */
        struct stats_alias *bigger = realloc(set->aliases, (set->n_aliases ? set->n_aliases * 2 : 1) * sizeof *bigger);
        if (!bigger) return no_memory(err);
        set->aliases = bigger;
    }
    char *copy = strdup(name);
    if (!copy) return no_memory(err);
    status = add_name(set, copy, index, err);
    if (status != OK) {
        free(copy);
        return status;
    }
    set->aliases[set->n_aliases++] = (struct stats_alias){ copy, index };
    return OK;
}

/* ---- fields ----------------------------------------------------------------------------------------------------------------------- */

/* Takes zeroed memory for n items from the set's budget. NULL with the sentence in err. */
static void *take(struct stats_set *set, const struct stats_entry *entry, uint64_t n, size_t item_nbytes, struct err *err)
{
    uint64_t nbytes = 0, all = 0;
    if (!size_mul(n, item_nbytes, &nbytes) || !size_add(set->nbytes, nbytes, &all) || all > set->max_nbytes || nbytes > SIZE_MAX) {
        err_set(err, ERR_MEMORY, "'%s': its statistics go beyond the limit of %llu bytes of memory", shown_str(entry->name).text,
                (unsigned long long)set->max_nbytes);
        return NULL;
    }
    void *memory = calloc((size_t)n, item_nbytes);
    if (memory) set->nbytes = all;
    else no_memory(err);
    return memory;
}

static enum status there_twice(const struct stats_entry *entry, const char *what, struct err *err)
{
    return err_set(err, ERR_DATA, "'%s' has %s twice", shown_str(entry->name).text, what);
}

enum status stats_make_field(struct stats_set *set, struct stats_entry *entry, enum stats_field field, struct err *err)
{
    if (entry->values[field]) return there_twice(entry, stats_fields[field].name, err);
    entry->values[field] = take(set, entry, entry->n_mat * entry->n_in, sizeof(double), err);
    return entry->values[field] ? OK : ERR_MEMORY;
}

enum status stats_make_counts(struct stats_set *set, struct stats_entry *entry, struct err *err)
{
    if (entry->counts) return there_twice(entry, "counts", err);
    entry->counts = take(set, entry, entry->n_mat, sizeof(uint64_t), err);
    return entry->counts ? OK : ERR_MEMORY;
}

enum status stats_make_hist(struct stats_set *set, struct stats_entry *entry, struct err *err)
{
    if (entry->hist) return there_twice(entry, "in_hist", err);
    entry->hist = take(set, entry, STATS_HIST_BINS, sizeof(uint64_t), err);
    return entry->hist ? OK : ERR_MEMORY;
}

/* Values of the Gram matrices; false on overflow. */
static bool gram_count(const struct stats_entry *entry, uint64_t *n)
{
    uint64_t next = 0, square = 0;
    return size_add(entry->n_in, 1, &next) && size_mul(entry->n_in, next, &square) && size_mul(square / 2, entry->n_mat, n);
}

enum status stats_make_gram(struct stats_set *set, struct stats_entry *entry, struct err *err)
{
    uint64_t n = 0;
    if (entry->gram) return there_twice(entry, "in_gram", err);
    if (!gram_count(entry, &n)) return err_set(err, ERR_DATA, "'%s': the size of in_gram overflows", shown_str(entry->name).text);
    entry->gram = take(set, entry, n, sizeof(float), err);
    return entry->gram ? OK : ERR_MEMORY;
}

enum status stats_make_sample(struct stats_set *set, struct stats_entry *entry, uint64_t n_sample, struct err *err)
{
    uint64_t n = 0;
    if (entry->sample) return there_twice(entry, "in_sample", err);
    if (!size_mul(n_sample, entry->n_in, &n) || n == 0)
        return err_set(err, ERR_DATA, "'%s': in_sample of %llu rows", shown_str(entry->name).text, (unsigned long long)n_sample);
    entry->sample = take(set, entry, n, sizeof(uint16_t), err);
    if (!entry->sample) return ERR_MEMORY;
    entry->n_sample = n_sample;
    return OK;
}

void stats_drop_field(struct stats_set *set, struct stats_entry *entry, enum stats_field field)
{
    if (!entry->values[field]) return;
    set->nbytes -= entry->n_mat * entry->n_in * sizeof(double);
    free(entry->values[field]);
    entry->values[field] = NULL;
}

void stats_drop_counts(struct stats_set *set, struct stats_entry *entry)
{
    if (!entry->counts) return;
    set->nbytes -= entry->n_mat * sizeof(uint64_t);
    free(entry->counts);
    entry->counts = NULL;
}

void stats_drop_hist(struct stats_set *set, struct stats_entry *entry)
{
    if (!entry->hist) return;
    set->nbytes -= STATS_HIST_BINS * sizeof(uint64_t);
    free(entry->hist);
    entry->hist = NULL;
}

void stats_drop_gram(struct stats_set *set, struct stats_entry *entry)
{
    uint64_t n = 0;
    if (!entry->gram || !gram_count(entry, &n)) return;
    set->nbytes -= n * sizeof(float);
    free(entry->gram);
    entry->gram = NULL;
}

/* Memory of an entry's values. */
static uint64_t entry_nbytes(const struct stats_entry *entry)
{
    uint64_t nbytes = (entry->counts ? entry->n_mat * sizeof(uint64_t) : 0) + (entry->hist ? STATS_HIST_BINS * sizeof(uint64_t) : 0), n_gram = 0;
    for (size_t f = 0; f < STATS_FIELD_COUNT; f++) nbytes += entry->values[f] ? entry->n_mat * entry->n_in * sizeof(double) : 0;
    if (entry->gram && gram_count(entry, &n_gram)) nbytes += n_gram * sizeof(float);
    return nbytes + entry->n_sample * entry->n_in * sizeof(uint16_t);
}

enum status stats_move(struct stats_set *into, const char *name, struct stats_set *from, size_t index, struct err *err)
{
    struct stats_entry *b = &from->entries[index];
    const uint64_t nbytes = entry_nbytes(b), room = into->max_nbytes - size_min(into->nbytes, into->max_nbytes);
    size_t at = 0;
    if (nbytes > room)
        return err_set(err, ERR_MEMORY, "'%s': the statistics go beyond the limit of %llu bytes of memory", shown_str(name).text,
                       (unsigned long long)into->max_nbytes);
    enum status status = stats_add(into, name, b->n_mat, b->n_in, &at, err);
    if (status != OK) return status;
    struct stats_entry *a = &into->entries[at];
    char *own_name = a->name;
    into->nbytes += nbytes;
    from->nbytes -= nbytes;
    *a = *b;
    a->name = own_name;
    *b = (struct stats_entry){ .name = b->name, .n_mat = b->n_mat, .n_in = b->n_in };
    return OK;
}

/* ---- facts of the whole ------------------------------------------------------------------------------------------------------------ */

enum status stats_add_dataset(struct stats_set *set, const char *text, size_t n, struct err *err)
{
    if (n > DATASET_NBYTES_MAX)
        return err_set(err, ERR_UNSUPPORTED, "the name of a dataset has %zu bytes, more than the limit of %u", n, DATASET_NBYTES_MAX);
    for (size_t i = 0; i < n; i++)
        if (text[i] == '\0') return err_set(err, ERR_DATA, "the name of a dataset has a NUL");
    for (size_t at = 0, length = 0; at < n; at += length)
        if ((length = utf8_length(text + at, n - at)) == 0) return err_set(err, ERR_DATA, "the name of a dataset is not UTF-8");
    for (size_t i = 0; i < set->n_datasets; i++)
        if (strlen(set->datasets[i]) == n && memcmp(set->datasets[i], text, n) == 0) return OK;
    if (set->n_datasets >= DATASETS_MAX) return err_set(err, ERR_UNSUPPORTED, "more than %u datasets", DATASETS_MAX);
    char **bigger = realloc(set->datasets, (set->n_datasets + 1) * sizeof *bigger);
    if (bigger) set->datasets = bigger;
    char *copy = bigger ? malloc(n + 1) : NULL;
    if (!copy) return no_memory(err);
    if (n) memcpy(copy, text, n);
    copy[n] = '\0';
    set->datasets[set->n_datasets++] = copy;
    return OK;
}

static size_t pair_index(const struct stats_set *set, const char *key)
{
    for (size_t i = 0; i < set->n_pairs; i++)
        if (strcmp(set->pairs[i].key, key) == 0) return i;
    return SIZE_MAX;
}

enum status stats_add_pair(struct stats_set *set, const char *key, const char *value, struct err *err)
{
    if (strlen(key) > KEY_NBYTES_MAX) return err_set(err, ERR_UNSUPPORTED, "a fact's key has more than %u bytes", KEY_NBYTES_MAX);
    size_t at = pair_index(set, key);
    if (at == SIZE_MAX && set->n_pairs >= PAIRS_MAX) return err_set(err, ERR_UNSUPPORTED, "more than %u facts", PAIRS_MAX);
    struct stats_pair *bigger = at == SIZE_MAX ? realloc(set->pairs, (set->n_pairs + 1) * sizeof *bigger) : set->pairs;
    if (!bigger) return no_memory(err);
    set->pairs = bigger;
    char *copy = strdup(value), *copied_key = at == SIZE_MAX ? strdup(key) : NULL;
    if (!copy || (at == SIZE_MAX && !copied_key)) {
        free(copy);
        free(copied_key);
        return no_memory(err);
    }
    if (at == SIZE_MAX) set->pairs[set->n_pairs++] = (struct stats_pair){ copied_key, copy };
    else {
        free(set->pairs[at].value);
        set->pairs[at].value = copy;
    }
    return OK;
}

const char *stats_pair(const struct stats_set *set, const char *key)
{
    size_t at = pair_index(set, key);
    return at == SIZE_MAX ? NULL : set->pairs[at].value;
}

void stats_drop_pair(struct stats_set *set, const char *key)
{
    size_t at = pair_index(set, key);
    if (at == SIZE_MAX) return;
    free(set->pairs[at].key);
    free(set->pairs[at].value);
    set->n_pairs--;
    memmove(set->pairs + at, set->pairs + at + 1, (set->n_pairs - at) * sizeof *set->pairs);
}

void stats_note(struct stats_set *set, const char *format, ...)
{
    char text[ERR_TEXT_MAX];
    if (set->n_notes >= NOTES_MAX) return;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    char **bigger = realloc(set->notes, (set->n_notes + 1) * sizeof *bigger);
    if (!bigger) return;
    set->notes = bigger;
    set->notes[set->n_notes] = strdup(text);
    if (set->notes[set->n_notes]) set->n_notes++;
}

const struct stats_entry *stats_find(const struct stats_set *set, const char *name)
{
    size_t number = name_table_find(&set->names, name);
    return number == SIZE_MAX ? NULL : &set->entries[set->targets[number]];
}

/* ---- checks ----------------------------------------------------------------------------------------------------------------------- */

static enum status bad_value(const struct stats_entry *entry, const char *field, uint64_t i, const char *why, struct err *err)
{
    return err_set(err, ERR_DATA, "'%s': %s of channel %llu%s%s", shown_str(entry->name).text, field, (unsigned long long)(i % entry->n_in),
                   entry->n_mat > 1 ? " of an expert " : " ", why);
}

static enum status check_field(const struct stats_entry *entry, enum stats_field field, struct err *err)
{
    const double *values = entry->values[field];
    for (uint64_t i = 0; i < entry->n_mat * entry->n_in; i++) {
        if (!isfinite(values[i])) return bad_value(entry, stats_fields[field].name, i, "is NaN or Inf", err);
        if (stats_fields[field].is_magnitude && values[i] < 0) return bad_value(entry, stats_fields[field].name, i, "is negative", err);
    }
    return OK;
}

enum status stats_check(const struct stats_entry *entry, struct err *err)
{
    for (size_t f = 0; f < STATS_FIELD_COUNT; f++) {
        enum status status = entry->values[f] ? check_field(entry, (enum stats_field)f, err) : OK;
        if (status != OK) return status;
    }
    const double *low = entry->values[STATS_MIN], *high = entry->values[STATS_MAX];
    for (uint64_t i = 0; low && high && i < entry->n_mat * entry->n_in; i++)
        if (low[i] > high[i]) return bad_value(entry, "in_min", i, "is above in_max", err);
    for (uint64_t i = 0; entry->counts && i < entry->n_mat; i++)
        if (entry->counts[i] > STATS_COUNT_MAX)
            return err_set(err, ERR_DATA, "'%s': a count of %llu is over 2^53", shown_str(entry->name).text, (unsigned long long)entry->counts[i]);
    uint64_t n_gram = 0;
    if (entry->gram && !gram_count(entry, &n_gram)) return err_set(err, ERR_DATA, "'%s': in_gram overflows", shown_str(entry->name).text);
    for (uint64_t i = 0; i < n_gram; i++)
        if (!isfinite(entry->gram[i])) return err_set(err, ERR_DATA, "'%s': in_gram has a NaN or Inf", shown_str(entry->name).text);
    for (uint64_t i = 0; i < entry->n_sample * entry->n_in; i++)
        if ((entry->sample[i] & 0x7f80) == 0x7f80) return err_set(err, ERR_DATA, "'%s': in_sample has a NaN or Inf", shown_str(entry->name).text);
    return OK;
}

/* ---- order and shape --------------------------------------------------------------------------------------------------------------- */

struct ranked {
    const char *name;
    size_t at;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct ranked *)a)->name, ((const struct ranked *)b)->name);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int by_alias(const void *a, const void *b)
{
    return strcmp(((const struct stats_alias *)a)->name, ((const struct stats_alias *)b)->name);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct stats_pair *)a)->key, ((const struct stats_pair *)b)->key);
}

/* Makes the table of names anew from entries and aliases. */
static enum status index_names(struct stats_set *set, struct err *err)
{
    enum status status = OK;
    name_table_free(&set->names);
    for (size_t i = 0; i < set->n_entries && status == OK; i++) status = add_name(set, set->entries[i].name, i, err);
    for (size_t i = 0; i < set->n_aliases && status == OK; i++) status = add_name(set, set->aliases[i].name, set->aliases[i].entry, err);
    return status;
}

enum status stats_sort(struct stats_set *set, struct err *err)
{
    struct ranked *order = malloc((set->n_entries + 1) * sizeof *order);
    size_t *place = malloc((set->n_entries + 1) * sizeof *place);
    struct stats_entry *sorted = malloc((set->n_entries + 1) * sizeof *sorted);
    enum status status = order && place && sorted ? OK : no_memory(err);
    for (size_t i = 0; i < set->n_entries && status == OK; i++) order[i] = (struct ranked){ set->entries[i].name, i };
    if (status == OK) {
        qsort(order, set->n_entries, sizeof *order, by_name);
        for (size_t i = 0; i < set->n_entries; i++) {
            sorted[i] = set->entries[order[i].at];
            place[order[i].at] = i;
        }
        if (set->n_entries) memcpy(set->entries, sorted, set->n_entries * sizeof *sorted);
        for (size_t i = 0; i < set->n_aliases; i++) set->aliases[i].entry = place[set->aliases[i].entry];
        if (set->n_aliases) qsort(set->aliases, set->n_aliases, sizeof *set->aliases, by_alias);
        if (set->n_datasets) qsort(set->datasets, set->n_datasets, sizeof *set->datasets, by_text);
        if (set->n_pairs) qsort(set->pairs, set->n_pairs, sizeof *set->pairs, by_key);
        status = index_names(set, err);
    }
    free(order);
    free(place);
    free(sorted);
    return status;
}

enum status stats_split(struct stats_set *set, size_t index, uint64_t n_mat, struct err *err)
{
    struct stats_entry *entry = &set->entries[index];
    if (entry->n_mat != 1 || n_mat == 0 || n_mat > STATS_MATS_MAX || entry->n_in % n_mat != 0 || entry->gram || entry->sample)
        return err_set(err, ERR_DATA, "'%s' with %llu x %llu channels cannot be divided into %llu matrices", shown_str(entry->name).text,
                       (unsigned long long)entry->n_mat, (unsigned long long)entry->n_in, (unsigned long long)n_mat);
    uint64_t *old = entry->counts;
    if (old) {
        struct stats_entry wide = { .name = entry->name, .n_mat = n_mat, .n_in = 1 };
        enum status status = stats_make_counts(set, &wide, err);
        if (status != OK) return status;
        for (uint64_t m = 0; m < n_mat; m++) wide.counts[m] = old[0];
        stats_drop_counts(set, entry);
        entry->counts = wide.counts;
    }
    entry->n_in /= n_mat;
    entry->n_mat = n_mat;
    return OK;
}

/* ---- derived ---------------------------------------------------------------------------------------------------------------------- */

const char *stats_derived_name(enum stats_derived which)
{
    static const char *const names[STATS_DERIVED_COUNT] = { "rms", "mean", "absmax" };
    return names[which];
}

static bool derive_absmax(const struct stats_entry *entry, uint64_t mat, double *out)
{
    const double *absmax = entry->values[STATS_ABSMAX], *low = entry->values[STATS_MIN], *high = entry->values[STATS_MAX];
    uint64_t at = mat * entry->n_in;
    if (!absmax && (!low || !high)) return false;
    for (uint64_t j = 0; j < entry->n_in; j++) out[j] = absmax ? absmax[at + j] : fmax(fabs(low[at + j]), fabs(high[at + j]));
    return true;
}

bool stats_derive(const struct stats_entry *entry, enum stats_derived which, uint64_t mat, double *out)
{
    if (entry->counts && entry->counts[mat] == 0) return false;
    if (which == STATS_ABS_MAX) return derive_absmax(entry, mat, out);
    const double *sums = entry->values[which == STATS_RMS ? STATS_SUM2 : STATS_SUMABS];
    if (!sums || !entry->counts) return false;
    double count = (double)entry->counts[mat];
    for (uint64_t j = 0; j < entry->n_in; j++) {
        double mean = sums[mat * entry->n_in + j] / count;
        out[j] = which == STATS_RMS ? sqrt(mean) : mean;
    }
    return true;
}

uint64_t stats_missing(const struct stats_entry *entry)
{
    uint64_t n = 0;
    for (uint64_t m = 0; entry->counts && m < entry->n_mat; m++) n += entry->counts[m] == 0;
    return n;
}
