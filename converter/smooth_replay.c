/* smooth_replay.c: reads recipes: the same migration again, or its inverse; see smooth_recipe.h.
 *
 * Drawing: R.json -> strict JSON -> groups by id -> factors from R.json.safetensors -> outcomes -> (replay) both sides anew, or (inverse) reciprocals.
 * Formula: inverse: columns fl32(1 / columns'), norm and rows * columns' of their channel: what the norm gave to the weights it takes back.
 * Why this way: factors are stored as chosen and as applied, so that a replay repeats the rounding of norms and an inverse undoes it.
 * Corner cases: every text and number of the recipe is checked; one group twice is an error; a recipe made on another model is refused; an inverse
 * finds no stored factors, since they changed no function.
 * Reference: smooth_recipe.h. Worked number: gain 1.5 with s 1.7 became 0.8828125 with columns 1.69911504: back 1.5.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "converter/smooth_choose.h"
#include "converter/smooth_files.h"
#include "converter/smooth_recipe.h"
#include "converter/smooth_weights.h"

#define RECIPE_NBYTES_MAX (256u << 20)

struct replay {
    struct app *app;
    struct plan *plan;
    struct smoothing *smoothing;
    struct container *scales;
    bool inverse;
};

/* ---- factors ---------------------------------------------------------------------------------------------------------------------- */

/* n factors under the key that member names. */
static enum status read_factors(const struct replay *replay, const cJSON *item, const char *member, uint64_t n, float *out, struct err *err)
{
    const char *key = NULL;
    enum status status = json_string(json_get(item, member), member, &key, err);
    if (status) return status;
    const size_t index = container_find(replay->scales, key);
    if (index == SIZE_MAX) return err_set(err, ERR_DATA, "'%s' has no tensor '%.80s'", replay->scales->path, key);
    const struct tensor *tensor = &replay->scales->tensors[index];
    if (tensor->quantised || strcmp(tensor->dtype->name, "F32") != 0 || tensor->n_weights != n)
        return err_set(err, ERR_DATA, "'%s': tensor '%.80s' is not %llu numbers of type F32", replay->scales->path, key, (unsigned long long)n);
    uint8_t *bytes = malloc((size_t)n * 4 + 1);
    if (!bytes) return err_set(err, ERR_MEMORY, "out of memory");
    status = container_read(replay->scales, index, 0, (size_t)n * 4, bytes, err);
    if (!status) tensor->dtype->widen(bytes, (size_t)n, out);
    free(bytes);
    for (uint64_t j = 0; j < n && !status; j++)
        if (!isnormal(out[j]) || out[j] <= 0.0f)
            status = err_set(err, ERR_DATA, "factor %llu of '%.80s' is not positive and finite", (unsigned long long)j, key);
    return status;
}

/* Factors of channels that share a producer channel must be equal. */
static enum status check_shared(const struct smooth_group *group, const float *s, struct err *err)
{
    for (uint64_t j = 0; group->share_heads > 1 && j < group->n; j++) {
        const uint64_t first = smooth_group_first(group, smooth_group_producer(group, j));
        if (s[j] != s[first])
            return err_set(err, ERR_DATA, "factors %llu and %llu share a channel and differ", (unsigned long long)first, (unsigned long long)j);
    }
    return OK;
}

/* ---- one group -------------------------------------------------------------------------------------------------------------------- */

static struct smooth_group *find_group(const struct smooth_groups *groups, const char *id)
{
    for (size_t i = 0; i < groups->n_groups; i++)
        if (strcmp(groups->groups[i].id, id) == 0) return &groups->groups[i];
    return NULL;
}

/* A group of one stored tensor, made anew. */
static enum status make_single(const struct replay *replay, const cJSON *item, struct smooth_group *group, struct err *err)
{
    const cJSON *consumers = json_get(item, "consumers"), *first = cJSON_IsArray(consumers) ? consumers->child : NULL;
    const char *name = NULL;
    uint64_t mat = 0;
    enum status status = json_string(first, "consumers", &name, err);
    const size_t tensor = status ? SIZE_MAX : container_find(replay->plan->container, name);
    if (!status && tensor == SIZE_MAX) status = err_set(err, ERR_DATA, "the model has no tensor '%.120s'", name);
    if (!status) status = json_u64_in(item, "matrix", 0, replay->plan->entries[tensor].shape.n_matrices - 1, &mat, err);
    if (status) return status;
    group->n = replay->plan->entries[tensor].shape.cols;
    group->consumers = calloc(1, sizeof *group->consumers);
    if (!group->consumers) return err_set(err, ERR_MEMORY, "out of memory");
    group->consumers[0] = (struct smooth_side){ .tensor = tensor, .run = group->n, .step = group->n, .mat = mat, .n_mats = 1 };
    group->n_consumers = 1;
    return OK;
}

static enum status add_outcome(struct smoothing *smoothing, const struct smooth_outcome *outcome, struct err *err)
{
    struct smooth_outcome *outcomes = realloc(smoothing->outcomes, (smoothing->n_outcomes + 1) * sizeof *outcomes);
    if (!outcomes) return err_set(err, ERR_MEMORY, "out of memory");
    smoothing->outcomes = outcomes;
    outcomes[smoothing->n_outcomes++] = *outcome;
    return OK;
}

static void read_facts(const cJSON *item, struct smooth_outcome *outcome)
{
    const cJSON *alpha = json_get(item, "alpha"), *loss = json_get(item, "loss"), *family = json_get(item, "family");
    const cJSON *identity = loss ? json_get(loss, "identity") : NULL, *best = loss ? json_get(loss, "best") : NULL;
    uint64_t number = 0;
    outcome->alpha = cJSON_IsNumber(alpha) ? alpha->valuedouble : (double)NAN;
    outcome->identity_loss = cJSON_IsNumber(identity) ? identity->valuedouble : (double)NAN;
    outcome->loss = cJSON_IsNumber(best) ? best->valuedouble : (double)NAN;
    outcome->searched = cJSON_IsTrue(json_get(item, "searched"));
    if (cJSON_IsString(family) && smooth_family_find(family->valuestring) != SMOOTH_FAMILY_COUNT)
        outcome->family = smooth_family_find(family->valuestring);
    else outcome->given = true;
    if (json_u64_in(item, "clipped", 0, UINT64_MAX, &number, NULL) == OK) outcome->n_clipped = number;
    if (json_u64_in(item, "dead", 0, UINT64_MAX, &number, NULL) == OK) outcome->n_dead = number;
}

/* Both sides anew from s; the norm is read again. */
static enum status replay_factors(struct replay *replay, struct smooth_outcome *outcome, struct err *err)
{
    const struct smooth_group *group = outcome->group;
    struct weights_reader reader;
    float *gain = NULL;
    enum status status = OK;
    if (outcome->fate == SMOOTH_FOLDED && smooth_has_gain(replay->plan, group)) {
        const struct smooth_side *side = &group->producers[0];
        const uint64_t length = tensor_cols(&replay->plan->container->tensors[side->tensor]), n = smooth_group_producers(group);
        gain = calloc((size_t)length + 1, sizeof *gain);
        status = gain ? weights_reader_open(replay->plan->container, &reader, err) : err_set(err, ERR_MEMORY, "out of memory");
        if (!status) status = weights_read_vector(&reader, side->tensor, length, gain, err);
        for (uint64_t p = 0; p < n && !status; p++) gain[p] = gain[smooth_side_place(side, p)];
        if (gain) weights_reader_close(&reader);
    }
    if (!status) status = smooth_make_factors(replay->plan, outcome, gain, err);
    free(gain);
    return status;
}

static enum status inverse_factors(struct smooth_outcome *outcome, struct err *err)
{
    const struct smooth_group *group = outcome->group;
    const uint64_t n_producers = smooth_group_producers(group);
    const bool root = group->n_producers && group->producers[0].root;
    outcome->producers = calloc((size_t)n_producers + 1, sizeof(float));
    outcome->others = calloc((size_t)n_producers + 1, sizeof(float));
    if (!outcome->producers || !outcome->others) return err_set(err, ERR_MEMORY, "out of memory");
    for (uint64_t j = 0; j < group->n; j++) {
        const uint64_t p = smooth_group_producer(group, j);
        outcome->producers[p] = outcome->others[p] = root ? sqrtf(outcome->consumers[j]) : outcome->consumers[j];
    }
    for (uint64_t j = 0; j < group->n; j++) outcome->consumers[j] = outcome->s[j] = 1.0f / outcome->consumers[j];
    return OK;
}

static enum status read_vectors(struct replay *replay, const cJSON *item, struct smooth_outcome *outcome, struct err *err)
{
    const uint64_t n = outcome->group->n;
    outcome->s = calloc((size_t)n + 1, sizeof(float));
    if (!outcome->s) return err_set(err, ERR_MEMORY, "out of memory");
    enum status status = read_factors(replay, item, "s", n, outcome->s, err);
    if (!status) status = check_shared(outcome->group, outcome->s, err);
    if (status || !replay->inverse) return status ? status : replay_factors(replay, outcome, err);
    outcome->consumers = calloc((size_t)n + 1, sizeof(float));
    if (!outcome->consumers) return err_set(err, ERR_MEMORY, "out of memory");
    status = read_factors(replay, item, "columns", n, outcome->consumers, err);
    if (!status) status = check_shared(outcome->group, outcome->consumers, err);
    return status ? status : inverse_factors(outcome, err);
}

/* The same group, or the same matrix on its own. */
static bool is_same(const struct smooth_group *a, const struct smooth_group *b)
{
    if (a == b) return true;
    if (a->n_producers || b->n_producers) return false;
    return a->consumers[0].tensor == b->consumers[0].tensor && a->consumers[0].mat == b->consumers[0].mat;
}

static enum status check_new(const struct smoothing *smoothing, const struct smooth_group *group, struct err *err)
{
    for (size_t i = 0; i < smoothing->n_outcomes; i++)
        if (is_same(smoothing->outcomes[i].group, group)) return err_set(err, ERR_DATA, "it is there twice");
    return OK;
}

static enum status read_group(struct replay *replay, const cJSON *item, size_t index, struct err *err)
{
    struct smoothing *smoothing = replay->smoothing;
    const char *id = NULL, *fate = NULL, *kind = NULL;
    struct smooth_outcome outcome = { .fate = SMOOTH_FOLDED };
    enum status status = json_string(json_get(item, "id"), "id", &id, err);
    if (!status) status = json_string(json_get(item, "fate"), "fate", &fate, err);
    if (!status) status = json_string(json_get(item, "kind"), "kind", &kind, err);
    if (!status && strcmp(fate, "folded") != 0 && strcmp(fate, "stored") != 0) status = err_set(err, ERR_DATA, "fate is '%.40s'", fate);
    if (status) return err_wrap(err, status, "group %zu", index);
    if (strcmp(fate, "stored") == 0) outcome.fate = SMOOTH_STORED;
    if (replay->inverse && outcome.fate == SMOOTH_STORED) return OK;
    if (strcmp(kind, "S") == 0) {
        outcome.group = &smoothing->stored.groups[smoothing->stored.n_groups++];
        *outcome.group = (struct smooth_group){ .kind = SMOOTH_KIND_COUNT, .layer = UINT32_MAX, .share_heads = 1, .share_run = 1, .id = strdup(id) };
        status = outcome.group->id ? make_single(replay, item, outcome.group, err) : err_set(err, ERR_MEMORY, "out of memory");
    } else if (!(outcome.group = find_group(&smoothing->groups, id))) {
        status = err_set(err, ERR_DATA, "the model has no such group");
    } else if (strcmp(kind, smooth_kind_name(outcome.group->kind)) != 0) {
        status = err_set(err, ERR_DATA, "kind is '%.40s', but %s in the model", kind, smooth_kind_name(outcome.group->kind));
    }
    if (!status) status = check_new(smoothing, outcome.group, err);
    if (!status && !smooth_check_sides(replay->plan, &outcome)) status = err_set(err, ERR_UNSUPPORTED, "%s", outcome.why);
    if (!status) status = add_outcome(smoothing, &outcome, err);
    if (!status) {
        struct smooth_outcome *added = &smoothing->outcomes[smoothing->n_outcomes - 1];
        read_facts(item, added);
        status = read_vectors(replay, item, added, err);
    }
    return status ? err_wrap(err, status, "group '%.160s'", id) : OK;
}

/* ---- the whole -------------------------------------------------------------------------------------------------------------------- */

static enum status check_head(const struct replay *replay, const cJSON *tree, struct err *err)
{
    const char *format = NULL, *model = NULL;
    char digest[DIGEST128_HEX];
    uint64_t version = 0;
    enum status status = json_string(json_get(tree, "format"), "format", &format, err);
    if (!status && strcmp(format, SMOOTH_RECIPE_FORMAT) != 0) status = err_set(err, ERR_DATA, "format is '%.40s', not " SMOOTH_RECIPE_FORMAT, format);
    if (!status) status = json_u64_in(tree, "version", 1, 1, &version, err);
    if (!status) status = json_string(json_get(tree, "model"), "model", &model, err);
    if (!status) status = smooth_model_digest(replay->plan->container, digest, err);
    if (!status && strcmp(digest, model) != 0)
        status = err_set(err, ERR_DATA, "it is of a model with other tensors than '%s'", replay->plan->container->path);
    return status;
}

static enum status open_scales(struct replay *replay, const cJSON *tree, const char *path, struct err *err)
{
    const char *name = NULL;
    enum status status = json_string(json_get(tree, "scales"), "scales", &name, err);
    if (!status && !path_is_plain_name(name, strlen(name))) status = err_set(err, ERR_DATA, "scales is no plain file name");
    char *dir = path_dir(path), *file = !status && dir ? path_join(dir, name) : NULL;
    if (!status && !file) status = err_set(err, ERR_MEMORY, "out of memory");
    if (!status) status = container_open(replay->app->io, file, &replay->scales, err);
    free(file);
    free(dir);
    return status;
}

static enum status read_groups(struct replay *replay, const cJSON *tree, struct err *err)
{
    const cJSON *groups = json_get(tree, "groups"), *item;
    size_t index = 0;
    if (!cJSON_IsArray(groups)) return err_set(err, ERR_DATA, "groups is no array");
    const size_t n = (size_t)cJSON_GetArraySize(groups);
    replay->smoothing->stored.groups = calloc(n + 1, sizeof *replay->smoothing->stored.groups);
    enum status status = replay->smoothing->stored.groups ? OK : err_set(err, ERR_MEMORY, "out of memory");
    for (item = groups->child; item && !status; item = item->next) status = read_group(replay, item, index++, err);
    return status;
}

/* Groups of the model that the recipe does not name. */
static enum status leave_others(struct smoothing *smoothing, struct err *err)
{
    enum status status = OK;
    const size_t n = smoothing->n_outcomes;
    for (size_t i = 0; i < smoothing->groups.n_groups && !status; i++) {
        bool named = false;
        for (size_t k = 0; k < n && !named; k++) named = smoothing->outcomes[k].group == &smoothing->groups.groups[i];
        struct smooth_outcome outcome = {
            .group = &smoothing->groups.groups[i], .alpha = (double)NAN, .loss = (double)NAN, .identity_loss = (double)NAN
        };
        snprintf(outcome.why, sizeof outcome.why, "the recipe leaves it out");
        if (!named) status = add_outcome(smoothing, &outcome, err);
    }
    return status;
}

enum status smooth_recipe_replay(struct app *app, struct plan *plan, struct smoothing *smoothing, struct err *err)
{
    struct replay replay = { app, plan, smoothing, NULL, smoothing->options.inverse != NULL };
    const char *path = replay.inverse ? smoothing->options.inverse : smoothing->options.recipe;
    const struct json_limits limits = { 8, 1u << 24, false };
    char *text = NULL, name[200];
    cJSON *tree = NULL;
    size_t nbytes = 0;
    enum status status = file_slurp(app->io, path, RECIPE_NBYTES_MAX, &text, &nbytes, err);
    if (!status) status = json_parse(text, nbytes, &limits, &tree, err);
    if (!status && !cJSON_IsObject(tree)) status = err_set(err, ERR_DATA, "it is no object");
    if (!status) status = check_head(&replay, tree, err);
    if (!status) status = open_scales(&replay, tree, path, err);
    if (!status) status = read_groups(&replay, tree, err);
    if (!status) status = leave_others(smoothing, err);
    cJSON_Delete(tree);
    free(text);
    container_close(replay.scales);
    snprintf(smoothing->stat, sizeof smoothing->stat, replay.inverse ? "inverse" : "recipe");
    return status ? err_wrap(err, status, "cannot use the recipe '%s'", err_name(path, strlen(path), name, sizeof name)) : OK;
}
