/* stats_merge.c: see stats_merge.h.
 *
 * Formula: values: a + b in double, or max, or min; counts: a + b; Gram matrices: a + b in double, rounded to F32; histograms: a + b.
 * Why this way: an entry that is new is moved, not copied.
 * Corner cases: an alias stays when its entry is there and the name is free; an alias of one file that is an entry of another is refused; a sum that
 * becomes Inf and a count over 2^53 are refused.
 * Reference: see stats_merge.h. Worked number: three files of digests 9, 2, 5 are added as 2, 5, 9.
 */
#include "smoothquant/stats_merge.h"

#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/size.h"
#include "container/shown.h"
#include "smoothquant/stats_kind.h"

#define CHUNK_NBYTES ((size_t)1 << 20)

/* ---- one entry -------------------------------------------------------------------------------------------------------------------- */

static double join(enum stats_join how, double a, double b)
{
    if (how == STATS_ADD) return a + b;
    if (how == STATS_LARGEST) return a > b ? a : b;
    return how == STATS_SMALLEST ? (a < b ? a : b) : a;
}

static enum status merge_field(struct stats_entry *a, const struct stats_entry *b, enum stats_field field, struct err *err)
{
    const enum stats_join how = stats_fields[field].join;
    double *x = a->values[field];
    const double *y = b->values[field];
    for (uint64_t i = 0; i < a->n_mat * a->n_in; i++) {
        if (how == STATS_SAME && x[i] != y[i])
            return err_set(err, ERR_DATA, "'%s': %s differs between the files, and does not add", shown_str(a->name).text, stats_fields[field].name);
        x[i] = join(how, x[i], y[i]);
    }
    return OK;
}

/* Sums belong to counts: where one side lacks either, both sides' are dropped. */
static void drop_uneven(struct stats_set *into, struct stats_entry *a, const struct stats_entry *b, struct stats_lost *lost)
{
    for (size_t f = 0; f < STATS_FIELD_COUNT; f++) {
        bool uneven = (a->values[f] != NULL) != (b->values[f] != NULL);
        bool uncounted = a->values[f] && stats_fields[f].needs_counts && (a->counts != NULL) != (b->counts != NULL);
        if (uneven || uncounted) lost->n_fields++;
        if (uneven || uncounted) stats_drop_field(into, a, (enum stats_field)f);
    }
    if ((a->counts != NULL) != (b->counts != NULL)) {
        stats_drop_counts(into, a);
        lost->n_fields++;
    }
    if ((a->hist != NULL) != (b->hist != NULL)) {
        stats_drop_hist(into, a);
        lost->n_fields++;
    }
    if ((a->gram != NULL) != (b->gram != NULL)) {
        stats_drop_gram(into, a);
        lost->n_fields++;
    }
}

static enum status merge_counts(uint64_t *a, const uint64_t *b, uint64_t n, const char *name, struct err *err)
{
    for (uint64_t i = 0; i < n; i++)
        if (!size_add(a[i], b[i], &a[i]) || a[i] > STATS_COUNT_MAX)
            return err_set(err, ERR_DATA, "'%s': the sum of the counts is over 2^53", shown_str(name).text);
    return OK;
}

/* The rows of both, a's first. */
static enum status merge_sample(struct stats_set *into, struct stats_entry *a, struct stats_entry *b, struct err *err)
{
    struct stats_entry both = { .name = a->name, .n_mat = a->n_mat, .n_in = a->n_in };
    if (!b->sample) return OK;
    enum status status = stats_make_sample(into, &both, a->n_sample + b->n_sample, err);
    if (status != OK) return status;
    if (a->n_sample) memcpy(both.sample, a->sample, (size_t)(a->n_sample * a->n_in) * sizeof *both.sample);
    memcpy(both.sample + a->n_sample * a->n_in, b->sample, (size_t)(b->n_sample * b->n_in) * sizeof *both.sample);
    into->nbytes -= a->n_sample * a->n_in * sizeof *both.sample;
    free(a->sample);
    a->sample = both.sample;
    a->n_sample = both.n_sample;
    return OK;
}

static enum status merge_entry(struct stats_set *into, struct stats_entry *a, struct stats_entry *b, struct stats_lost *lost, struct err *err)
{
    enum status status = OK;
    if (a->n_mat != b->n_mat || a->n_in != b->n_in)
        return err_set(err, ERR_DATA, "'%s' has %llu x %llu channels in one file and %llu x %llu in another", shown_str(a->name).text,
                       (unsigned long long)a->n_mat, (unsigned long long)a->n_in, (unsigned long long)b->n_mat, (unsigned long long)b->n_in);
    drop_uneven(into, a, b, lost);
    for (size_t f = 0; f < STATS_FIELD_COUNT && status == OK; f++)
        if (a->values[f]) status = merge_field(a, b, (enum stats_field)f, err);
    if (status == OK && a->counts) status = merge_counts(a->counts, b->counts, a->n_mat, a->name, err);
    if (status == OK && a->hist) status = merge_counts(a->hist, b->hist, STATS_HIST_BINS, a->name, err);
    uint64_t n_gram = a->n_mat * (a->n_in * (a->n_in + 1) / 2); /* has been checked where there is one */
    for (uint64_t i = 0; a->gram && i < n_gram; i++) a->gram[i] = (float)((double)a->gram[i] + (double)b->gram[i]);
    a->gram_is_bf16 = a->gram_is_bf16 && b->gram_is_bf16;
    if (status == OK) status = merge_sample(into, a, b, err);
    return status == OK ? stats_check(a, err) : status;
}

/* ---- the whole -------------------------------------------------------------------------------------------------------------------- */

static enum status merge_aliases(struct stats_set *into, const struct stats_set *from, struct err *err)
{
    enum status status = OK;
    for (size_t i = 0; i < from->n_aliases && status == OK; i++) {
        const char *name = from->aliases[i].name, *target = from->entries[from->aliases[i].entry].name;
        size_t number = name_table_find(&into->names, target);
        const struct stats_entry *there = stats_find(into, name), *wanted = number == SIZE_MAX ? NULL : &into->entries[into->targets[number]];
        if (there && there != wanted)
            status = err_set(err, ERR_DATA, "'%s' stands for '%s' in one file and is something else in another", shown_str(name).text,
                             shown_str(target).text);
        else if (!there && wanted) status = stats_add_alias(into, name, into->targets[number], err);
    }
    return status;
}

static enum status merge_pairs(struct stats_set *into, const struct stats_set *from, bool is_first, struct stats_lost *lost, struct err *err)
{
    enum status status = OK;
    for (size_t i = 0; is_first && i < from->n_pairs && status == OK; i++)
        status = stats_add_pair(into, from->pairs[i].key, from->pairs[i].value, err);
    for (size_t i = into->n_pairs; !is_first && i > 0; i--) {
        const char *key = into->pairs[i - 1].key, *other = stats_pair(from, key);
        if (other && strcmp(other, into->pairs[i - 1].value) == 0) continue;
        lost->n_pairs++;
        stats_drop_pair(into, key);
    }
    return status;
}

static void merge_chunks(struct stats_set *into, const struct stats_set *from, bool is_first)
{
    if (is_first) {
        into->chunk_size = from->chunk_size;
        into->chunk_count = from->chunk_count;
        return;
    }
    if (into->chunk_size != from->chunk_size) into->chunk_size = 0;
    if (into->chunk_count == UINT64_MAX || from->chunk_count == UINT64_MAX) into->chunk_count = UINT64_MAX;
    else into->chunk_count += from->chunk_count; /* each below 10^15 */
}

enum status stats_merge(struct stats_set *into, struct stats_set *from, struct stats_lost *lost, struct err *err)
{
    bool is_first = into->n_entries == 0;
    enum status status = OK;
    for (size_t i = 0; i < from->n_entries && status == OK; i++) {
        struct stats_entry *b = &from->entries[i];
        size_t number = name_table_find(&into->names, b->name);
        if (number == SIZE_MAX) status = stats_move(into, b->name, from, i, err);
        else if (strcmp(into->entries[into->targets[number]].name, b->name) != 0)
            status = err_set(err, ERR_DATA, "'%s' stands for '%s' in one file and is an entry of its own in another", shown_str(b->name).text,
                             shown_str(into->entries[into->targets[number]].name).text);
        else status = merge_entry(into, &into->entries[into->targets[number]], b, lost, err);
    }
    if (status == OK) status = merge_aliases(into, from, err);
    if (status == OK) status = merge_pairs(into, from, is_first, lost, err);
    for (size_t i = 0; i < from->n_datasets && status == OK; i++) status = stats_add_dataset(into, from->datasets[i], strlen(from->datasets[i]), err);
    for (size_t i = 0; i < from->n_notes; i++) stats_note(into, "%s", from->notes[i]);
    if (status == OK) merge_chunks(into, from, is_first);
    return status;
}

struct input {
    const char *path;
    struct digest128 digest;
};

static int by_digest(const void *a, const void *b)
{
    return memcmp(&((const struct input *)a)->digest, &((const struct input *)b)->digest, sizeof(struct digest128));
}

static enum status digest_file(const struct io_calls *io, struct input *input, uint8_t *bytes, struct err *err)
{
    struct file file;
    struct digest_stream *stream = digest_open();
    if (!stream) return err_set(err, ERR_MEMORY, "out of memory");
    enum status status = file_open(io, input->path, &file, err);
    for (uint64_t at = 0; status == OK && at < file.nbytes;) {
        size_t n = (size_t)size_min(file.nbytes - at, CHUNK_NBYTES);
        status = file_read(&file, bytes, n, at, err);
        if (status == OK) digest_add(stream, bytes, n);
        at += n;
    }
    input->digest = digest_value(stream);
    digest_close(stream);
    file_close(&file);
    return status;
}

static enum status add_file(const struct io_calls *io, const struct input *input, struct stats_set *sum, struct stats_lost *lost, struct err *err)
{
    struct stats_set *set = NULL;
    enum status status = stats_open(io, input->path, sum->max_nbytes, &set, NULL, err);
    if (status != OK) return status;
    status = stats_merge(sum, set, lost, err);
    if (status != OK) status = err_wrap(err, status, "cannot merge '%s'", shown_path(input->path).text);
    stats_close(set);
    return status;
}

enum status stats_merge_files(const struct io_calls *io, const char *const *paths, size_t n, struct stats_set **out, struct stats_lost *lost,
                              struct err *err)
{
    struct input *inputs = calloc(n + 1, sizeof *inputs);
    uint8_t *bytes = malloc(CHUNK_NBYTES);
    struct stats_set *sum = stats_new(0);
    *lost = (struct stats_lost){ 0 };
    enum status status = inputs && bytes && sum ? OK : err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < n && status == OK; i++) {
        inputs[i].path = paths[i];
        status = digest_file(io, &inputs[i], bytes, err);
    }
    free(bytes);
    if (status == OK) qsort(inputs, n, sizeof *inputs, by_digest);
    for (size_t i = 0; i < n && status == OK; i++) {
        if (i > 0 && by_digest(&inputs[i - 1], &inputs[i]) == 0)
            stats_note(sum, "'%s' and '%s' are the same file; it counts twice", shown_path(inputs[i - 1].path).text, shown_path(inputs[i].path).text);
        status = add_file(io, &inputs[i], sum, lost, err);
    }
    if (status == OK) status = stats_sort(sum, err);
    free(inputs);
    if (status == OK) *out = sum;
    else stats_close(sum);
    return status;
}
