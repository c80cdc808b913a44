/* stats.h: activation statistics in memory: for each weight tensor what went through its input channels.
 *
 *   set: name -> entry                      entry: n_mat matrices (experts) of n_in input channels
 *   per channel  [n_mat][n_in], double      in_sum2 = sum x^2, in_sum = sum x, in_sumabs = sum |x|, in_absmax, in_min, in_max, in_scale
 *   per matrix   [n_mat]                    counts = tokens that were seen
 *   per entry                               in_hist [2048], in_gram [n_mat][n_in (n_in + 1) / 2], in_sample [n][n_in]
 *   derived      rms = sqrt(in_sum2 / counts)   mean |x| = in_sumabs / counts   absmax = in_absmax, or max(|in_min|, |in_max|)
 *
 * Why this way: sums and not means, so that files merge by adding. Values are doubles: two F32 sums of like size add exactly.
 * Corner cases: any field may be missing (an act_scales file has in_absmax alone); a matrix of count 0 is a missing expert, whatever its values; a
 * legacy imatrix does not say how many experts stand side by side: its entries have n_mat 1 and n_in that of all, stats_split divides them. Every
 * value is finite, sums of squares and of magnitudes and maxima of magnitudes are not negative, in_min <= in_max; memory has a cap.
 * Reference: STATS.md; the fields are those of llama.cpp's GGUF imatrix where it has them. Worked number: x = 3, -4, 0 in one channel: in_sum2 25,
 * in_sumabs 7, counts 3, rms 2.8867513, mean |x| 2.3333333.
 */
#ifndef LLMQ_SMOOTHQUANT_STATS_H
#define LLMQ_SMOOTHQUANT_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "container/name_table.h"

#define STATS_NBYTES_MAX ((uint64_t)16 << 30) /* memory of values, unless a set is given another cap */
#define STATS_ENTRIES_MAX (1u << 20)
#define STATS_MATS_MAX (1u << 20)
#define STATS_NAME_MAX 4096u
#define STATS_COUNT_MAX (((uint64_t)1 << 53) - 1) /* tokens; a double and JSON hold it */
#define STATS_HIST_BINS 2048u
#define STATS_CHUNK_DEFAULT 512u /* tokens of a chunk where a file does not say it: llama.cpp's context */

/* The fields with a value for each channel. */
enum stats_field { STATS_SUM2, STATS_SUM, STATS_SUMABS, STATS_ABSMAX, STATS_MIN, STATS_MAX, STATS_SCALE, STATS_FIELD_COUNT };

/* How two values of a field become one. */
enum stats_join { STATS_ADD, STATS_LARGEST, STATS_SMALLEST, STATS_SAME };

struct stats_field_row {
    const char *name; /* "in_sum2": the suffix in files */
    enum stats_join join;
    bool is_magnitude; /* never negative */
    bool needs_counts; /* a sum over tokens: means something only beside counts of the same tokens */
};

extern const struct stats_field_row stats_fields[STATS_FIELD_COUNT];

/* Statistics of one weight tensor. All memory belongs to the set. */
struct stats_entry {
    char *name; /* of the weight tensor */
    uint64_t n_mat, n_in; /* at least 1 each */
    double *values[STATS_FIELD_COUNT]; /* [n_mat][n_in]; NULL: the field is missing */
    uint64_t *counts; /* [n_mat]; NULL: missing */
    uint64_t *hist; /* [STATS_HIST_BINS]; NULL: missing */
    float *gram; /* [n_mat][n_in (n_in + 1) / 2], rows of the upper triangle; NULL: missing */
    uint16_t *sample; /* [n_sample][n_in] BF16; NULL: missing */
    uint64_t n_sample;
    bool gram_is_bf16; /* as it was stored */
};

/* A further name of an entry: k_proj has the input of q_proj. */
struct stats_alias {
    char *name;
    size_t entry;
};

struct stats_pair {
    char *key, *value;
};

struct stats_set {
    struct stats_entry *entries; /* in the order added, which writers keep */
    size_t n_entries;
    struct stats_alias *aliases;
    size_t n_aliases;
    char **datasets; /* texts the tokens came from */
    size_t n_datasets;
    struct stats_pair *pairs; /* further facts, of statistics files only */
    size_t n_pairs;
    uint64_t chunk_size; /* tokens of a chunk; 0: unknown */
    uint64_t chunk_count; /* UINT64_MAX: unknown */
    char **notes; /* sentences for the user */
    size_t n_notes;
    uint64_t nbytes, max_nbytes; /* memory of values, and its cap */
    size_t entries_capacity, targets_capacity;
    struct name_table names; /* of entries and aliases */
    size_t *targets; /* entry of name number i */
};

/* A new empty set; max_nbytes 0: STATS_NBYTES_MAX. NULL when out of memory. */
struct stats_set *stats_new(uint64_t max_nbytes);
void stats_close(struct stats_set *set); /* NULL allowed */

/* Adds an entry without fields. ERR_DATA for a name that is empty, no UTF-8, has control characters or is there; for n_mat or n_in of 0.
 * Pointers to entries do not survive it. */
enum status stats_add(struct stats_set *set, const char *name, uint64_t n_mat, uint64_t n_in, size_t *index, struct err *err);

/* Adds a further name for entry number index. */
enum status stats_add_alias(struct stats_set *set, const char *name, size_t index, struct err *err);

/* Makes a field (zeros), the counts, the histogram, the Gram matrix, room for n_sample rows; each once an entry. ERR_MEMORY over the cap. */
enum status stats_make_field(struct stats_set *set, struct stats_entry *entry, enum stats_field field, struct err *err);
enum status stats_make_counts(struct stats_set *set, struct stats_entry *entry, struct err *err);
enum status stats_make_hist(struct stats_set *set, struct stats_entry *entry, struct err *err);
enum status stats_make_gram(struct stats_set *set, struct stats_entry *entry, struct err *err);
enum status stats_make_sample(struct stats_set *set, struct stats_entry *entry, uint64_t n_sample, struct err *err);

/* Drops a field or the counts of an entry. */
void stats_drop_field(struct stats_set *set, struct stats_entry *entry, enum stats_field field);
void stats_drop_counts(struct stats_set *set, struct stats_entry *entry);
void stats_drop_hist(struct stats_set *set, struct stats_entry *entry);
void stats_drop_gram(struct stats_set *set, struct stats_entry *entry);

/* Adds an entry called name to into, with the values of entry number index of from, which then has none. */
enum status stats_move(struct stats_set *into, const char *name, struct stats_set *from, size_t index, struct err *err);

/* Appends to the lists; texts are copied (n bytes). A pair whose key is there replaces its value. */
enum status stats_add_dataset(struct stats_set *set, const char *text, size_t n, struct err *err);
enum status stats_add_pair(struct stats_set *set, const char *key, const char *value, struct err *err);
const char *stats_pair(const struct stats_set *set, const char *key); /* NULL: not there */
void stats_drop_pair(struct stats_set *set, const char *key);

/* Appends a note (formatted); out of memory drops it silently. At most 64 are kept. */
void stats_note(struct stats_set *set, const char *format, ...) LLMQ_PRINTF(2, 3);

/* The entry with this name or alias, or NULL. Constant time. */
const struct stats_entry *stats_find(const struct stats_set *set, const char *name);

/* Checks every value of an entry: finite, sign, in_min <= in_max, counts at most STATS_COUNT_MAX. ERR_DATA naming entry, field, matrix, channel. */
enum status stats_check(const struct stats_entry *entry, struct err *err);

/* Bytewise order of names; datasets, pairs and aliases too. What is the same set then has the same order. */
enum status stats_sort(struct stats_set *set, struct err *err);

/* Divides an entry of one matrix into n_mat of n_in / n_mat channels, all with its count. ERR_DATA when it has more matrices, when n_in is no
 * multiple, or when it has a Gram matrix or a sample. */
enum status stats_split(struct stats_set *set, size_t index, uint64_t n_mat, struct err *err);

/* What can be derived for the channels of a matrix. */
enum stats_derived { STATS_RMS, STATS_MEAN_ABS, STATS_ABS_MAX, STATS_DERIVED_COUNT };

/* "rms", "mean", "absmax" */
const char *stats_derived_name(enum stats_derived which);

/* Writes n_in values of matrix mat; false when a field is missing or no token was seen (out is then untouched). */
bool stats_derive(const struct stats_entry *entry, enum stats_derived which, uint64_t mat, double *out);

/* Matrices of count 0; 0 without counts. */
uint64_t stats_missing(const struct stats_entry *entry);

#endif
