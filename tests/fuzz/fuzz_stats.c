/* fuzz_stats.c: libFuzzer target of everything that reads files of statistics: all kinds, and the pickle machine by itself.
 *
 * Formula: the input is a whole file; one that begins with 0x80 is also a whole pickle (inside a zip a checksum would stop every change).
 * Why this way: what is accepted is checked by other means: every value passes stats_check, every name is found, derived values are finite, weights
 * have mean 1, and the set merges with itself.
 * Corner cases: the input is copied to a block of its exact size, so that a sanitizer sees any read beyond it; memory has a cap of 32 MiB.
 * Reference: libFuzzer, LLVMFuzzerTestOneInput. Run: fuzz_stats -max_len=20000 CORPUS.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "smoothquant/pickle.h"
#include "smoothquant/stats_kind.h"
#include "smoothquant/stats_lookup.h"
#include "smoothquant/stats_merge.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

static void require(bool holds)
{
    if (!holds) abort();
}

static void check_importance(struct stats_set *set)
{
    struct stats_lookup *lookup = NULL;
    struct err err = { .code = OK };
    require(stats_lookup_open(set, NULL, &lookup, &err) == OK);
    for (size_t i = 0; i < set->n_entries; i++) {
        const struct stats_entry *entry = &set->entries[i];
        struct importance importance;
        require(stats_importance(lookup, entry->name, entry->n_mat, entry->n_in, &importance, &err) == OK && importance.how == STATS_EXACT);
        for (uint64_t m = 0; m < entry->n_mat; m++) {
            double sum = 0.0;
            for (uint64_t j = 0; importance.rows[m] && j < entry->n_in; j++) {
                require(importance.rows[m][j] >= 0.0f && (double)importance.rows[m][j] <= (double)entry->n_in * 1.000001);
                sum += (double)importance.rows[m][j];
            }
            if (importance.rows[m]) require(fabs(sum / (double)entry->n_in - 1.0) < 1e-5);
        }
        importance_free(&importance);
    }
    require(stats_lookup_unused(lookup) == 0);
    stats_lookup_close(lookup);
}

static void check_entries(struct stats_set *set)
{
    for (size_t i = 0; i < set->n_entries; i++) {
        const struct stats_entry *entry = &set->entries[i];
        struct err err = { .code = OK };
        require(stats_find(set, entry->name) == entry && stats_check(entry, &err) == OK && entry->n_in > 0 && entry->n_mat > 0);
        double *out = malloc((size_t)entry->n_in * sizeof *out);
        require(out != NULL);
        for (unsigned which = 0; which < STATS_DERIVED_COUNT; which++)
            for (uint64_t m = 0; m < entry->n_mat; m++)
                for (uint64_t j = 0; stats_derive(entry, (enum stats_derived)which, m, out) && j < entry->n_in; j += entry->n_in / 4 + 1)
                    require(isfinite(out[j]) && out[j] >= 0);
        free(out);
    }
    for (size_t i = 0; i < set->n_aliases; i++) require(stats_find(set, set->aliases[i].name) == &set->entries[set->aliases[i].entry]);
}

static void check_set(const struct stats_source *source, struct stats_set *set)
{
    struct stats_set *again = NULL, *sum = stats_new((uint64_t)64 << 20);
    struct stats_lost lost = { 0 };
    struct err err = { .code = OK };
    check_entries(set);
    check_importance(set);
    const size_t n = set->n_entries;
    require(stats_read(source, (uint64_t)32 << 20, &again, NULL, &err) == OK && sum != NULL);
    enum status status = stats_merge(sum, set, &lost, &err);
    if (status == OK) status = stats_merge(sum, again, &lost, &err);
    if (status == OK) status = stats_sort(sum, &err);
    if (status == OK) {
        require(sum->n_entries == n && lost.n_fields == 0 && lost.n_pairs == 0);
        check_entries(sum);
    }
    stats_close(again);
    stats_close(sum);
}

static void run_pickle(const uint8_t *data, size_t nbytes)
{
    struct pickle *pickle = NULL;
    struct err err = { .code = OK };
    enum status status = pickle_parse(data, nbytes, &pickle, &err);
    require((status == OK) == (err.text[0] == '\0'));
    if (status == OK) require(pickle_root(pickle)->kind < PICKLE_KIND_COUNT);
    if (status == OK) pickle_close(pickle);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    uint8_t *copy = malloc(nbytes ? nbytes : 1);
    require(copy != NULL);
    if (nbytes) memcpy(copy, data, nbytes);
    struct stats_source source = stats_source_memory(copy, nbytes);
    struct stats_set *set = NULL;
    struct err err = { .code = OK };
    enum status status = stats_read(&source, (uint64_t)32 << 20, &set, NULL, &err);
    require((status == OK) == (err.text[0] == '\0'));
    if (status == OK) check_set(&source, set);
    if (status == OK) stats_close(set);
    if (nbytes && copy[0] == 0x80) run_pickle(copy, nbytes);
    free(copy);
    return 0;
}
