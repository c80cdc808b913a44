/* stats_lookup.h: finds the statistics of a tensor whatever names they were made under, and turns them into importance weights.
 *
 *   tensor, matrix m --exact name | same place by the name map | weights that read the same activations--> entry, matrix, first channel
 *   importance: u_j = in_sum2_j / max_k in_sum2_k, S = u_0 + u_1 + ... in this order, in double
 *               w_j = fl32(u_j * n_in / S); at least 2^-126 where in_sum2_j > 0, 0 where it is 0
 *
 * Why this way: E[x^2] = in_sum2 / counts, and one matrix has one count, so that the count cancels when weights are divided by their mean: the mean of
 * w is 1, no w is above n_in, and a spread of 1e12 neither overflows nor loses a channel that was ever used.
 * Corner cases: a stack of experts finds entries of single experts, a single expert its matrix in a stack; legacy entries with all experts side by
 * side are cut; one matrix of statistics serves all matrices of a tensor; no in_sum2, count 0 or only zeros mean no importance (NULL), counted; a
 * number of channels that does not fit is an error; two entries that the map cannot tell apart are found under neither name.
 * Reference: STATS.md. Worked number: in_sum2 1, 0, 3: u 1/3, 0, 1, S = 4/3, w = 0.75, 0, 2.25.
 */
#ifndef LLMQ_SMOOTHQUANT_STATS_LOOKUP_H
#define LLMQ_SMOOTHQUANT_STATS_LOOKUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "smoothquant/name_map.h"
#include "smoothquant/stats.h"

struct stats_lookup;

/* How an entry was found; the later the weaker. */
enum stats_how { STATS_NOT_FOUND, STATS_EXACT, STATS_MAPPED, STATS_SAME_INPUT };

/* set and map must outlive the lookup; map NULL: exact names only. Not for two threads at once: it remembers which entries were found. */
enum status stats_lookup_open(const struct stats_set *set, const struct name_map *map, struct stats_lookup **out, struct err *err);
void stats_lookup_close(struct stats_lookup *lookup); /* NULL allowed */

/* n_in channels of one matrix: entry->values[f][mat * entry->n_in + first ...]. */
struct stats_slice {
    const struct stats_entry *entry; /* NULL when nothing was found */
    uint64_t mat, first;
    enum stats_how how;
};

/* The statistics of matrix number mat of the n_mat of a tensor with n_in input channels. ERR_DATA when they are there and have another number of
 * channels or matrices; nothing found is OK. */
enum status stats_lookup_find(struct stats_lookup *lookup, const char *name, uint64_t n_mat, uint64_t mat, uint64_t n_in, struct stats_slice *slice,
                              struct err *err);

/* Entries whose names fit no pattern of the map (all without a map), and the first of them after index `after` (SIZE_MAX: from the start), SIZE_MAX
 * when there is none. */
size_t stats_lookup_unmatched(const struct stats_lookup *lookup);
size_t stats_lookup_next_unmatched(const struct stats_lookup *lookup, size_t after);

/* The same for entries that no stats_lookup_find has found. */
size_t stats_lookup_unused(const struct stats_lookup *lookup);
size_t stats_lookup_next_unused(const struct stats_lookup *lookup, size_t after);

/* Importance weights of a tensor. */
struct importance {
    uint64_t n_mat, n_in;
    const float **rows; /* [n_mat]: n_in weights >= 0 of mean 1, or NULL: no importance, which is a weight of 1 for all */
    uint64_t n_without; /* matrices without */
    enum stats_how how; /* the weakest way an entry was found */
    float *memory;
};

/* Fills *out, which importance_free frees, also after an error. ERR_DATA for a shape that does not fit. */
enum status stats_importance(struct stats_lookup *lookup, const char *name, uint64_t n_mat, uint64_t n_in, struct importance *out, struct err *err);

/* The same for inputs that migration divides by factors, n_in of them for all matrices (n_sets 1) or for each: from in_sum2_j / factor_j^2. NULL: as
 * above. */
enum status stats_importance_migrated(struct stats_lookup *lookup, const char *name, uint64_t n_mat, uint64_t n_in, const float *factors,
                                      uint64_t n_sets, struct importance *out, struct err *err);
void importance_free(struct importance *importance);

#endif
