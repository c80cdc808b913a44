/* arch_groups.c: all groups of a model, layer by layer, and the closed-world check; see arch.h.
 *
 *   layer -> which groups of the map it has -> which of its tensors they, or ignore, never and unfolded, explain -> groups made, or refused
 *
 * Why this way: a tensor that nothing explains may read what a group rescales, or stand between producer and consumer; one such tensor refuses all
 * groups of its layer. What is refused, and every input that nothing can fold into, is listed with its reason: silence is no answer.
 * Corner cases: a matrix that is only a producer explains nothing of its own input; a number of an expert beyond those of the model, and single experts
 * beside a stack, are not explained; layers beyond the configuration's number, and layers without tensors, get one refusal each.
 * Reference: the project's smoothquant notes 1b, 3c. Worked number: a Llama layer: 9 tensors, 4 groups.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "smoothquant/arch_self.h"

struct work {
    const struct arch *arch;
    struct smooth_groups *out;
    bool *consumed, *normed; /* by a group of this layer, of each key */
    uint32_t layer;
    char unexplained[300]; /* name of the first tensor of the layer that nothing explains; "" for none */
    struct err *err;
};

/* ---- the lists ----------------------------------------------------------------------------------------------------------------------- */

/* Room for one more behind n, at 0 and powers of two; false when out of memory. */
static bool grow(void **items, size_t n, size_t size)
{
    if ((n & (n - 1)) != 0) return true;
    void *bigger = realloc(*items, (n ? n * 2 : 1) * size);
    if (bigger) *items = bigger;
    return bigger != NULL;
}

enum status arch_add_group(struct smooth_groups *groups, struct smooth_group *group, struct err *err)
{
    void *items = groups->groups;
    if (!grow(&items, groups->n_groups, sizeof *groups->groups)) {
        free(group->id);
        free(group->producers);
        free(group->consumers);
        return err_set(err, ERR_MEMORY, "out of memory for groups");
    }
    groups->groups = items;
    groups->groups[groups->n_groups++] = *group;
    return OK;
}

enum status arch_add_refusal(struct smooth_groups *groups, const char *id, const char *why, struct err *err)
{
    void *items = groups->refusals;
    bool room = grow(&items, groups->n_refusals, sizeof *groups->refusals);
    groups->refusals = items;
    struct smooth_refusal refusal = { room ? strdup(id) : NULL, room ? strdup(why) : NULL };
    if (!refusal.id || !refusal.why) {
        free(refusal.id);
        free(refusal.why);
        return err_set(err, ERR_MEMORY, "out of memory for groups");
    }
    groups->refusals[groups->n_refusals++] = refusal;
    return OK;
}

/* ---- the closed world ---------------------------------------------------------------------------------------------------------------- */

static bool is_vector(const struct arch *arch, uint32_t key, uint32_t layer)
{
    size_t index = arch_place_find(arch, key, layer, ARCH_NONE, false);
    return index != SIZE_MAX && arch->container->tensors[index].rank == 1;
}

/* Notes what the groups of this layer read and divide. */
static void note_groups(struct work *work)
{
    const struct arch_map *map = work->arch->map;
    memset(work->consumed, 0, map->n_keys * sizeof *work->consumed);
    memset(work->normed, 0, map->n_keys * sizeof *work->normed);
    for (size_t i = 0; i < map->n_groups; i++) {
        const struct arch_group *group = &map->groups[i];
        if (!arch_condition(work->arch, group->when, work->layer)) continue;
        for (size_t k = 0; k < group->n_consumers; k++) work->consumed[group->consumers[k].key] = true;
        for (size_t k = 0; k < group->n_absorb; k++)
            if (is_vector(work->arch, group->absorb[k].key, work->layer)) work->normed[group->absorb[k].key] = true;
    }
}

static bool explained(const struct work *work, const struct arch_place *place)
{
    const struct arch *arch = work->arch;
    if (place->key == ARCH_KEY_NONE) return false;
    if (arch->map->keys[place->key].claim == ARCH_UNCLAIMED && !work->consumed[place->key] && !work->normed[place->key]) return false;
    if (place->expert == ARCH_NONE) return true;
    return place->expert < arch_experts(arch, place->key, work->layer) &&
           arch_place_find(arch, place->key, work->layer, ARCH_NONE, place->is_bias) == SIZE_MAX;
}

/* False when the layer has no tensor. */
static bool look_at_layer(struct work *work)
{
    const struct arch *arch = work->arch;
    size_t begin = arch_layer_begin(arch, work->layer), i = begin;
    work->unexplained[0] = '\0';
    note_groups(work);
    for (; i < arch->n_places && arch->places[i].layer == work->layer; i++) {
        const char *name = arch->container->tensors[arch->places[i].tensor].name;
        if (!work->unexplained[0] && !explained(work, &arch->places[i])) err_name(name, strlen(name), work->unexplained, sizeof work->unexplained);
    }
    return i > begin;
}

/* ---- groups -------------------------------------------------------------------------------------------------------------------------- */

static enum status finish(struct work *work, struct arch_attempt *attempt)
{
    if (attempt->why[0]) return arch_add_refusal(work->out, attempt->id, attempt->why, work->err);
    return arch_add_group(work->out, &attempt->group, work->err);
}

static enum status attempt_one(struct work *work, const struct arch_group *spec, uint32_t expert)
{
    struct arch_attempt attempt = { .arch = work->arch, .spec = spec, .layer = work->layer, .expert = expert };
    if (work->unexplained[0])
        snprintf(attempt.why, sizeof attempt.why, "'%s' stands in the same layer, and the map %.100s does not explain it", work->unexplained,
                 work->arch->map->name);
    enum status status = arch_build(&attempt, work->err);
    return status == OK ? finish(work, &attempt) : status;
}

/* Single experts of a key that are there. */
static uint32_t count_singles(const struct arch *arch, uint32_t key, uint32_t layer)
{
    uint32_t n = 0;
    for (size_t i = arch_layer_begin(arch, layer); i < arch->n_places && arch->places[i].layer == layer; i++)
        n += arch->places[i].key == key && arch->places[i].expert != ARCH_NONE && !arch->places[i].is_bias;
    return n;
}

/* A group for each expert; one refusal for all where that is the same for all. */
static enum status attempt_experts(struct work *work, const struct arch_group *spec)
{
    uint32_t key = spec->consumers[0].key, n = arch_experts(work->arch, key, work->layer);
    bool whole = arch_place_find(work->arch, key, work->layer, ARCH_NONE, false) != SIZE_MAX;
    bool few = !whole && n / 2 > count_singles(work->arch, key, work->layer);
    enum status status = OK;
    if (n == 0 || few || work->unexplained[0]) return attempt_one(work, spec, ARCH_NONE);
    for (uint32_t e = 0; e < n && status == OK; e++) status = attempt_one(work, spec, e);
    return status;
}

static enum status make_groups(struct work *work)
{
    const struct arch_map *map = work->arch->map;
    enum status status = OK;
    for (size_t i = 0; i < map->n_groups && status == OK; i++) {
        const struct arch_group *spec = &map->groups[i];
        if (!arch_condition(work->arch, spec->when, work->layer)) continue;
        status = spec->by_expert ? attempt_experts(work, spec) : attempt_one(work, spec, ARCH_NONE);
    }
    return status;
}

/* ---- what is left alone -------------------------------------------------------------------------------------------------------------- */

/* Tensors of never, and those of unfolded that no group of the layer reads. */
static enum status list_rest(struct work *work)
{
    const struct arch_map *map = work->arch->map;
    char id[512];
    enum status status = OK;
    for (uint32_t key = 0; key < map->n_keys && status == OK; key++) {
        const struct arch_key *kind = &map->keys[key];
        bool listed = kind->claim == ARCH_NEVER || (kind->claim == ARCH_UNFOLDED && !work->consumed[key]);
        if (!listed || kind->in_layer != (work->layer != ARCH_NONE) || !arch_has(work->arch, key, work->layer)) continue;
        size_t index = arch_place_find(work->arch, key, work->layer, ARCH_NONE, false);
        if (index != SIZE_MAX) arch_id_of(work->arch, index, id, sizeof id);
        else arch_name_of(work->arch, key, work->layer, ARCH_NONE, id, sizeof id);
        status = arch_add_refusal(work->out, id, kind->why, work->err);
    }
    return status;
}

/* "model.layers.61" */
static enum status refuse_layer(struct work *work, const char *why)
{
    char id[300];
    const char *start = work->arch->layer_start, *mark = strstr(start, "{n}");
    snprintf(id, sizeof id, "%.*s%u", (int)(mark - start), start, work->layer);
    return arch_add_refusal(work->out, id, why, work->err);
}

static enum status do_layer(struct work *work)
{
    if (!look_at_layer(work)) return refuse_layer(work, "the configuration counts this layer, the model has no tensor of it");
    enum status status = make_groups(work);
    return status == OK ? list_rest(work) : status;
}

static enum status do_other_layers(struct work *work)
{
    const struct arch *arch = work->arch;
    enum status status = OK;
    work->layer = arch->n_layers - 1;
    for (size_t i = arch_layer_begin(arch, arch->n_layers); i < arch->n_places && arch->places[i].layer != ARCH_NONE && status == OK; i++) {
        if (arch->places[i].layer == work->layer) continue;
        work->layer = arch->places[i].layer;
        status = refuse_layer(work, "it stands behind the layers that the configuration counts and belongs to another head");
    }
    return status;
}

static enum status open_work(struct work *work, struct err *err)
{
    work->consumed = calloc(work->arch->map->n_keys + 1, sizeof *work->consumed);
    work->normed = calloc(work->arch->map->n_keys + 1, sizeof *work->normed);
    return work->consumed && work->normed ? OK : err_set(err, ERR_MEMORY, "out of memory for groups");
}

static void close_work(struct work *work)
{
    free(work->consumed);
    free(work->normed);
}

enum status arch_groups(const struct arch *arch, struct smooth_groups *out, struct err *err)
{
    struct work work = { .arch = arch, .out = out, .err = err };
    *out = (struct smooth_groups){ 0 };
    enum status status = open_work(&work, err);
    for (uint32_t layer = 0; layer < arch->n_layers && status == OK; layer++) {
        work.layer = layer;
        status = do_layer(&work);
    }
    if (status == OK) status = do_other_layers(&work);
    work.layer = ARCH_NONE;
    if (status == OK) memset(work.consumed, 0, arch->map->n_keys * sizeof *work.consumed);
    if (status == OK) status = list_rest(&work);
    if (status == OK) status = arch_drop_conflicts(arch, out, err);
    close_work(&work);
    if (status != OK) smooth_groups_free(out);
    return status;
}

/* ---- models without a configuration -------------------------------------------------------------------------------------------------- */

/* Every tensor that a group of this layer needs is there. */
static bool has_all(const struct arch *arch, const struct arch_group *group, uint32_t layer)
{
    for (size_t i = 0; i < group->n_absorb + group->n_consumers; i++) {
        const struct arch_ref *ref = i < group->n_absorb ? &group->absorb[i] : &group->consumers[i - group->n_absorb];
        if (!ref->optional && !arch_has(arch, ref->key, layer)) return false;
    }
    return true;
}

/* Everything of this layer is explained, and its groups have what they need. */
static bool layer_fits(struct work *work, size_t *n_groups)
{
    const struct arch_map *map = work->arch->map;
    if (!look_at_layer(work) || work->unexplained[0]) return false;
    for (size_t i = 0; i < map->n_groups; i++) {
        if (!arch_condition(work->arch, map->groups[i].when, work->layer)) continue;
        if (!has_all(work->arch, &map->groups[i], work->layer)) return false;
        (*n_groups)++;
    }
    return true;
}

/* Every tensor that the map calls for stands in some layer. */
static bool has_needed(const struct arch *arch)
{
    for (uint32_t key = 0; key < arch->map->n_keys; key++) {
        bool found = !arch->map->keys[key].needed;
        for (uint32_t layer = 0; layer < arch->n_layers && !found; layer++) found = arch_has(arch, key, layer);
        if (!found) return false;
    }
    return true;
}

enum status arch_fits(const struct arch *arch, bool *fits, struct err *err)
{
    struct work work = { .arch = arch };
    size_t n_groups = 0;
    enum status status = open_work(&work, err);
    *fits = status == OK && has_needed(arch);
    for (; work.layer < arch->n_layers && *fits; work.layer++) *fits = layer_fits(&work, &n_groups);
    *fits = *fits && n_groups > 0;
    close_work(&work);
    return status;
}
