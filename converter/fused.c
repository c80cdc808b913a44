/* fused.c: see fused.h.
 *
 * Drawing: name -> place "model.layers.3.mlp" + kind "gate/up" + matrices x columns = key -> set with a slot for each role -> ring of its entries.
 * Why this way: one look-up in a table of names a tensor, however many there are.
 * Corner cases: a name without a dot has the place ""; a set of one is no set.
 * Reference: fused.h. Example: blk.3.attn_q.weight has the place "blk.3".
 */
#include "converter/fused.h"

#include <stdlib.h>
#include <string.h>

#include "container/name_table.h"

enum { ROLES_MAX = 3 };

static const char *const kinds[][ROLES_MAX] = { { "q", "k", "v" }, { "gate", "up", NULL } };

/* The set of one key; members are indices + 1. */
struct set {
    size_t members[ROLES_MAX];
    bool ambiguous;
};

struct sets {
    struct name_table table;
    char **keys;
    struct set *sets;
};

static bool find_kind(const char *role, size_t *kind, size_t *slot)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        for (size_t k = 0; k < ROLES_MAX && kinds[i][k]; k++)
            if (strcmp(kinds[i][k], role) == 0) {
                *kind = i;
                *slot = k;
                return true;
            }
    return false;
}

/* New string; NULL when out of memory. */
static char *make_key(const char *name, size_t kind, const struct shape *shape)
{
    size_t n = strlen(name);
    if (n > 7 && strcmp(name + n - 7, ".weight") == 0) n -= 7;
    while (n > 0 && name[n - 1] != '.') n--;
    char *key = malloc(n + 80);
    if (key) snprintf(key, n + 80, "%.*s|%zu|%llu|%llu", (int)n, name, kind, (unsigned long long)shape->n_matrices, (unsigned long long)shape->cols);
    return key;
}

static enum status join(struct sets *sets, struct plan *plan, size_t i, struct err *err)
{
    const struct plan_entry *entry = &plan->entries[i];
    size_t kind, slot, index = 0;
    if (entry->fate != FATE_QUANTISE || !entry->verdict.quant.tensor_scale || !find_kind(entry->verdict.role->name, &kind, &slot)) return OK;
    sets->keys[i] = make_key(plan_tensor(plan, i)->name, kind, &entry->shape);
    if (!sets->keys[i]) return err_set(err, ERR_MEMORY, "out of memory");
    enum status status = name_table_add(&sets->table, sets->keys[i], &index, err);
    if (status) return status;
    struct set *set = &sets->sets[index];
    set->ambiguous |= set->members[slot] != 0;
    set->members[slot] = i + 1;
    return OK;
}

/* Links the members of a set, and counts them. */
static void link_set(struct plan *plan, const struct set *set)
{
    size_t first = SIZE_MAX, last = SIZE_MAX, n = 0;
    if (set->ambiguous) return;
    for (size_t k = 0; k < ROLES_MAX; k++) {
        if (!set->members[k]) continue;
        const size_t i = set->members[k] - 1;
        if (n++ == 0) first = i;
        else plan->entries[last].fused_next = i;
        last = i;
    }
    plan->entries[last].fused_next = first;
    if (n < 2) return;
    plan->n_fused_sets++;
    plan->n_fused += n;
}

enum status plan_fuse(const struct app *app, struct plan *plan, struct err *err)
{
    struct sets sets = { .keys = calloc(plan->n_tensors + 1, sizeof *sets.keys), .sets = calloc(plan->n_tensors + 1, sizeof *sets.sets) };
    enum status status = sets.keys && sets.sets ? OK : err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < plan->n_tensors; i++) plan->entries[i].fused_next = i;
    for (size_t i = 0; i < plan->n_tensors && !status && settings_is(&app->settings, SET_NVFP4_SCALE, "fused"); i++)
        status = join(&sets, plan, i, err);
    for (size_t i = 0; i < sets.table.n_names && !status; i++) link_set(plan, &sets.sets[i]);
    for (size_t i = 0; sets.keys && i < plan->n_tensors; i++) free(sets.keys[i]);
    name_table_free(&sets.table);
    free(sets.keys);
    free(sets.sets);
    return status;
}
