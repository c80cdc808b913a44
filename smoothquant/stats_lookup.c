/* stats_lookup.c: see stats_lookup.h.
 *
 * Drawing: every name of the set -> place (name map) -> key "blk.3.ffn_down_exps.weight#7" -> entry. A tensor's name takes the same way.
 * Why this way: both sides meet in the GGUF name, so no list of candidates is tried; a look-up is a few hashes.
 * Corner cases: the key of a stack has no number; a tensor that is a stack is looked for as a stack first, then expert by expert.
 * Reference: see stats_lookup.h. Worked number: expert 7 of a legacy entry of 8 experts x 64 channels side by side begins at channel 448.
 */
#include "smoothquant/stats_lookup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "container/shown.h"

#define KEY_NBYTES 640u
#define AMBIGUOUS SIZE_MAX

struct stats_lookup {
    const struct stats_set *set;
    const struct name_map *map;
    struct name_table keys;
    char **texts; /* owned, of key number i */
    size_t *targets; /* entry of key number i, or AMBIGUOUS */
    size_t capacity;
    bool *is_unmatched, *is_used; /* of entry i */
};

static enum status no_memory(struct err *err)
{
    return err_set(err, ERR_MEMORY, "out of memory for the names of statistics");
}

/* ---- the table -------------------------------------------------------------------------------------------------------------------- */

/* The key of a place; rule and expert may be others than the place's. */
static bool make_key(const struct name_map *map, struct name_place place, char key[KEY_NBYTES])
{
    if (!name_map_gguf(map, &place, key, KEY_NBYTES - 16)) return false;
    size_t n = strlen(key);
    if (place.expert != NAME_NONE) snprintf(key + n, KEY_NBYTES - n, "#%u", place.expert);
    return true;
}

static enum status add_key(struct stats_lookup *lookup, const char *key, size_t entry, struct err *err)
{
    size_t index = 0, before = lookup->keys.n_names;
    if (before == lookup->capacity) {
        size_t capacity = before ? before * 2 : 256;
        char **texts = realloc(lookup->texts, capacity * sizeof *texts);
        if (texts) lookup->texts = texts;
        size_t *targets = texts ? realloc(lookup->targets, capacity * sizeof *targets) : NULL;
        if (!targets) return no_memory(err);
        lookup->targets = targets;
        lookup->capacity = capacity;
    }
    char *copy = strdup(key);
    if (!copy) return no_memory(err);
    enum status status = name_table_add(&lookup->keys, copy, &index, err);
    if (status == OK && lookup->keys.n_names > before) {
        lookup->texts[index] = copy;
        lookup->targets[index] = entry;
        return OK;
    }
    free(copy);
    if (status == OK && lookup->targets[index] != entry) lookup->targets[index] = AMBIGUOUS;
    return status;
}

static enum status add_name(struct stats_lookup *lookup, const char *name, size_t entry, struct err *err)
{
    struct name_place place;
    char key[KEY_NBYTES];
    if (!lookup->map || !name_map_find(lookup->map, name, &place) || !make_key(lookup->map, place, key)) return OK;
    lookup->is_unmatched[entry] = false;
    return add_key(lookup, key, entry, err);
}

enum status stats_lookup_open(const struct stats_set *set, const struct name_map *map, struct stats_lookup **out, struct err *err)
{
    struct stats_lookup *lookup = calloc(1, sizeof *lookup);
    if (!lookup) return no_memory(err);
    lookup->set = set;
    lookup->map = map;
    lookup->is_unmatched = malloc((set->n_entries + 1) * sizeof *lookup->is_unmatched);
    lookup->is_used = calloc(set->n_entries + 1, sizeof *lookup->is_used);
    enum status status = lookup->is_unmatched && lookup->is_used ? OK : no_memory(err);
    for (size_t i = 0; i < set->n_entries && status == OK; i++) lookup->is_unmatched[i] = true;
    for (size_t i = 0; i < set->n_entries && status == OK; i++) status = add_name(lookup, set->entries[i].name, i, err);
    for (size_t i = 0; i < set->n_aliases && status == OK; i++) status = add_name(lookup, set->aliases[i].name, set->aliases[i].entry, err);
    if (status == OK) *out = lookup;
    else stats_lookup_close(lookup);
    return status;
}

void stats_lookup_close(struct stats_lookup *lookup)
{
    if (!lookup) return;
    for (size_t i = 0; i < lookup->keys.n_names; i++) free(lookup->texts[i]);
    name_table_free(&lookup->keys);
    free(lookup->texts);
    free(lookup->targets);
    free(lookup->is_unmatched);
    free(lookup->is_used);
    free(lookup);
}

/* ---- finding ---------------------------------------------------------------------------------------------------------------------- */

/* What is asked for. */
struct wanted {
    const char *name;
    uint64_t n_mat, mat, n_in;
};

/* Matrix mat of n_mat with n_in channels in the entry; n_mat 0: one expert of a stack of unknown height. False when the shapes do not fit. */
static bool fit(const struct stats_entry *entry, uint64_t n_mat, uint64_t mat, uint64_t n_in, struct stats_slice *slice)
{
    uint64_t all = 0;
    bool same = entry->n_in == n_in;
    slice->entry = entry;
    slice->mat = slice->first = 0;
    if (same && (n_mat ? entry->n_mat == n_mat : mat < entry->n_mat)) slice->mat = mat;
    else if (same && entry->n_mat == 1) slice->mat = 0;
    else if (entry->n_mat == 1 && n_in && entry->n_in % n_in == 0 && mat < entry->n_in / n_in &&
             (n_mat == 0 || (size_mul(n_mat, n_in, &all) && all == entry->n_in)))
        slice->first = mat * n_in;
    else return false;
    return true;
}

static enum status wrong_shape(const struct wanted *w, const struct stats_entry *entry, struct err *err)
{
    return err_set(err, ERR_DATA, "the statistics '%s' have %llu x %llu channels, tensor '%s' has %llu x %llu", shown_str(entry->name).text,
                   (unsigned long long)entry->n_mat, (unsigned long long)entry->n_in, shown_str(w->name).text, (unsigned long long)w->n_mat,
                   (unsigned long long)w->n_in);
}

static enum status take(struct stats_lookup *lookup, const struct wanted *w, const struct stats_entry *entry, uint64_t n_mat, uint64_t mat,
                        enum stats_how how, struct stats_slice *slice, struct err *err)
{
    if (!fit(entry, n_mat, mat, w->n_in, slice)) {
        *slice = (struct stats_slice){ 0 };
        return wrong_shape(w, entry, err);
    }
    slice->how = how;
    lookup->is_used[entry - lookup->set->entries] = true;
    return OK;
}

/* The entry with this place's key, or NULL. */
static const struct stats_entry *at_place(const struct stats_lookup *lookup, struct name_place place)
{
    char key[KEY_NBYTES];
    if (!make_key(lookup->map, place, key)) return NULL;
    size_t index = name_table_find(&lookup->keys, key);
    return index == SIZE_MAX || lookup->targets[index] == AMBIGUOUS ? NULL : &lookup->set->entries[lookup->targets[index]];
}

/* A single expert: by itself, or in its stack. A stack: as a stack, or expert by expert. */
static enum status find_at(struct stats_lookup *lookup, const struct wanted *w, struct name_place place, enum stats_how how,
                           struct stats_slice *slice, struct err *err)
{
    const struct name_place whole = { place.rule, place.layer, NAME_NONE };
    const struct stats_entry *entry = at_place(lookup, place);
    if (entry) return take(lookup, w, entry, w->n_mat, w->mat, how, slice, err);
    if (place.expert != NAME_NONE) {
        entry = w->n_mat == 1 ? at_place(lookup, whole) : NULL;
        return entry ? take(lookup, w, entry, 0, place.expert, how, slice, err) : OK;
    }
    if (w->n_mat == 1 || w->mat >= NAME_NONE) return OK;
    place.expert = (uint32_t)w->mat;
    entry = at_place(lookup, place);
    return entry ? take(lookup, w, entry, 1, 0, how, slice, err) : OK;
}

enum status stats_lookup_find(struct stats_lookup *lookup, const char *name, uint64_t n_mat, uint64_t mat, uint64_t n_in, struct stats_slice *slice,
                              struct err *err)
{
    const struct wanted w = { name, n_mat, mat, n_in };
    const struct stats_entry *entry = stats_find(lookup->set, name);
    struct name_place place;
    *slice = (struct stats_slice){ 0 };
    if (entry) return take(lookup, &w, entry, n_mat, mat, STATS_EXACT, slice, err);
    if (!lookup->map || !name_map_find(lookup->map, name, &place)) return OK;
    enum status status = find_at(lookup, &w, place, STATS_MAPPED, slice, err);
    const uint32_t rule = place.rule;
    uint32_t other = NAME_NONE;
    while (status == OK && !slice->entry && (other = name_map_sibling(lookup->map, rule, other)) != NAME_NONE) {
        place.rule = other;
        status = find_at(lookup, &w, place, STATS_SAME_INPUT, slice, err);
    }
    return status;
}

/* ---- counting --------------------------------------------------------------------------------------------------------------------- */

static size_t next_with(const bool *flags, bool wanted, size_t n, size_t after)
{
    for (size_t i = after == SIZE_MAX ? 0 : after + 1; i < n; i++)
        if (flags[i] == wanted) return i;
    return SIZE_MAX;
}

static size_t count_with(const bool *flags, bool wanted, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += flags[i] == wanted;
    return count;
}

size_t stats_lookup_unmatched(const struct stats_lookup *lookup)
{
    return count_with(lookup->is_unmatched, true, lookup->set->n_entries);
}

size_t stats_lookup_next_unmatched(const struct stats_lookup *lookup, size_t after)
{
    return next_with(lookup->is_unmatched, true, lookup->set->n_entries, after);
}

size_t stats_lookup_unused(const struct stats_lookup *lookup)
{
    return count_with(lookup->is_used, false, lookup->set->n_entries);
}

size_t stats_lookup_next_unused(const struct stats_lookup *lookup, size_t after)
{
    return next_with(lookup->is_used, false, lookup->set->n_entries, after);
}

/* ---- importance ------------------------------------------------------------------------------------------------------------------- */

/* The sum of squares of channel j when its input is divided by its factor. */
static double migrated(const double *sum2, const float *factors, uint64_t j)
{
    return factors ? sum2[j] / ((double)factors[j] * (double)factors[j]) : sum2[j];
}

/* Writes the weights of n channels; false for no importance. */
static bool weigh(const double *sum2, const float *factors, uint64_t n, float *out)
{
    double most = 0.0, sum = 0.0;
    for (uint64_t j = 0; j < n; j++) most = migrated(sum2, factors, j) > most ? migrated(sum2, factors, j) : most;
    if (!(most > 0.0)) return false;
    for (uint64_t j = 0; j < n; j++) sum += migrated(sum2, factors, j) / most;
    for (uint64_t j = 0; j < n; j++) {
        float w = (float)(migrated(sum2, factors, j) / most * (double)n / sum);
        out[j] = sum2[j] > 0.0 && w < 0x1p-126f ? 0x1p-126f : w;
    }
    return true;
}

static enum status weigh_matrix(struct stats_lookup *lookup, const char *name, uint64_t mat, const float *factors, struct importance *out,
                                struct stats_slice *last, struct err *err)
{
    struct stats_slice slice;
    enum status status = stats_lookup_find(lookup, name, out->n_mat, mat, out->n_in, &slice, err);
    if (status != OK) return status;
    if (slice.how > out->how) out->how = slice.how;
    bool is_same = mat > 0 && !factors && slice.entry && slice.entry == last->entry && slice.mat == last->mat && slice.first == last->first;
    *last = slice;
    if (is_same) out->rows[mat] = out->rows[mat - 1];
    else if (slice.entry && slice.entry->values[STATS_SUM2] && !(slice.entry->counts && slice.entry->counts[slice.mat] == 0)) {
        float *row = out->memory + mat * out->n_in;
        const double *sum2 = slice.entry->values[STATS_SUM2] + slice.mat * slice.entry->n_in + slice.first;
        out->rows[mat] = weigh(sum2, factors, out->n_in, row) ? row : NULL;
    }
    out->n_without += out->rows[mat] == NULL;
    return OK;
}

enum status stats_importance_migrated(struct stats_lookup *lookup, const char *name, uint64_t n_mat, uint64_t n_in, const float *factors,
                                      uint64_t n_sets, struct importance *out, struct err *err)
{
    uint64_t n = 0, nbytes = 0;
    struct stats_slice last = { 0 };
    *out = (struct importance){ .n_mat = n_mat, .n_in = n_in };
    if (n_mat > STATS_MATS_MAX || !size_mul(n_mat, n_in, &n) || !size_mul(n, sizeof(float), &nbytes) || nbytes > lookup->set->max_nbytes)
        return err_set(err, ERR_UNSUPPORTED, "tensor '%s' has too many channels for importance weights", shown_str(name).text);
    out->memory = malloc((size_t)nbytes + 1);
    out->rows = calloc((size_t)n_mat + 1, sizeof *out->rows);
    if (!out->memory || !out->rows) return err_set(err, ERR_MEMORY, "out of memory for importance weights");
    enum status status = OK;
    for (uint64_t m = 0; m < n_mat && status == OK; m++)
        status = weigh_matrix(lookup, name, m, factors && n_sets > 1 ? factors + m * n_in : factors, out, &last, err);
    return status;
}

enum status stats_importance(struct stats_lookup *lookup, const char *name, uint64_t n_mat, uint64_t n_in, struct importance *out, struct err *err)
{
    return stats_importance_migrated(lookup, name, n_mat, n_in, NULL, 0, out, err);
}

void importance_free(struct importance *importance)
{
    if (!importance) return;
    free(importance->memory);
    free(importance->rows);
    *importance = (struct importance){ 0 };
}
