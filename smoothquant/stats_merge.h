/* stats_merge.h: several sets of statistics as one: sums and counts add, maxima and minima stay, samples stand behind each other.
 *
 *   a: counts 3, in_sum2 25, in_absmax 4      b: counts 1, in_sum2 4, in_absmax 2      a + b: counts 4, in_sum2 29, in_absmax 4
 *
 * Why this way: one file is in memory besides the sum. Addition of doubles is not associative, so files are added in the order of the XXH3-128 of
 * their bytes: the order on the command line does not matter, and the same files give the same bytes.
 * Corner cases: an entry that only some files have is kept; a field that one file has and another lacks is dropped for that entry (sums would not
 * belong to the counts) and counted; shapes that differ are refused; in_scale must be equal; chunk counts add, a chunk size that differs is unknown;
 * facts that differ are dropped; datasets are united; the result is in the order of names. The same file twice counts twice, with a note.
 * Reference: STATS.md. Worked number: see above.
 */
#ifndef LLMQ_SMOOTHQUANT_STATS_MERGE_H
#define LLMQ_SMOOTHQUANT_STATS_MERGE_H

#include <stddef.h>

#include "base/err.h"
#include "base/io.h"
#include "smoothquant/stats.h"

/* What got lost on the way. */
struct stats_lost {
    uint64_t n_fields; /* of entries, because not every file had them */
    uint64_t n_pairs; /* facts that differed */
};

/* Adds from to into; from's values are moved where into has none, so from is only good for stats_close then. */
enum status stats_merge(struct stats_set *into, struct stats_set *from, struct stats_lost *lost, struct err *err);

/* The sum of the n files (at least 1), in order of names. */
enum status stats_merge_files(const struct io_calls *io, const char *const *paths, size_t n, struct stats_set **out, struct stats_lost *lost,
                              struct err *err);

#endif
