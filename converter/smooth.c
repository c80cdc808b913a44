/* smooth.c: see smooth.h.
 *
 * Drawing: options -> map -> groups -> (which may be migrated, with which statistics) -> smooth_choose -> factors into folds and input scales -> entries.
 * Why this way: see smooth.h.
 * Corner cases: codes that go as they are cannot be multiplied, so their groups are left; a tensor whose type llmq cannot write likewise; with
 * --folding off groups keep their shared factors and nothing before them changes.
 * Reference: smooth.h. Worked number: Llama has four groups a layer: two norms, values, up.
 */
#include "converter/smooth.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "converter/live_model.h"
#include "converter/smooth_choose.h"
#include "converter/smooth_recipe.h"
#include "converter/statistics.h"
#include "smoothquant/arch.h"

/* ---- opening ---------------------------------------------------------------------------------------------------------------------- */

/* The groups of the model's architecture. Without folding a model of no known architecture has none, and that is no error. */
static enum status open_groups(struct app *app, struct plan *plan, struct smoothing *smoothing, struct err *err)
{
    struct arch *arch = NULL;
    enum status status = live_arch_open(app, plan->container, &arch, err);
    if (status == ERR_UNSUPPORTED && !smoothing->options.folding) return OK;
    if (!status) status = arch_groups(arch, &smoothing->groups, err);
    if (!status && !(smoothing->transposed = calloc(plan->n_tensors + 1, sizeof *smoothing->transposed)))
        status = err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < plan->n_tensors && !status; i++) smoothing->transposed[i] = arch_is_transposed(arch, plan->entries[i].tensor);
    if (!status && !(smoothing->arch = strdup(arch_name(arch)))) status = err_set(err, ERR_MEMORY, "out of memory");
    arch_close(arch);
    return status;
}

/* ---- which groups ----------------------------------------------------------------------------------------------------------------- */

static void leave(struct smooth_outcome *outcome, const char *format, ...) LLMQ_PRINTF(2, 3);

static void leave(struct smooth_outcome *outcome, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(outcome->why, sizeof outcome->why, format, args);
    va_end(args);
    outcome->fate = SMOOTH_LEFT;
}

/* Why a tensor cannot be multiplied; NULL: it can. */
static const char *cannot_change(const struct plan *plan, size_t tensor)
{
    const struct plan_entry *entry = &plan->entries[tensor];
    const struct dtype *dtype = plan->container->tensors[tensor].dtype;
    if (entry->fate == FATE_CARRY) return "its codes go as they are";
    if (entry->fate == FATE_KEEP && (dtype->class != DTYPE_FLOAT || !dtype->narrow)) return "its type cannot be written";
    return NULL;
}

/* Leaves the outcome when one of the sides cannot change. */
static bool check_sides(const struct plan *plan, const struct smooth_side *sides, size_t n, struct smooth_outcome *outcome)
{
    for (size_t i = 0; i < n; i++) {
        const char *why = cannot_change(plan, sides[i].tensor);
        if (!why) continue;
        leave(outcome, "'%.120s': %s", plan->container->tensors[sides[i].tensor].name, why);
        return false;
    }
    return true;
}

static bool has_target(const struct plan *plan, const struct smooth_group *group)
{
    for (size_t i = 0; i < group->n_consumers; i++)
        if (smooth_target(plan, group->consumers[i].tensor)) return true;
    return false;
}

/* The statistics of the group's input: those of the first consumer that has some. */
static enum status find_statistics(const struct statistics *statistics, const struct plan *plan, struct choice *choice, struct err *err)
{
    const struct smooth_group *group = choice->outcome->group;
    enum status status = OK;
    for (size_t i = 0; statistics->lookup && i < group->n_consumers && !choice->slice.entry && !status; i++) {
        const struct smooth_side *side = &group->consumers[i];
        const struct tensor *tensor = &plan->container->tensors[side->tensor];
        const uint64_t n_mats = plan->entries[side->tensor].shape.n_matrices;
        status = stats_lookup_find(statistics->lookup, tensor->name, n_mats, side->mat, group->n, &choice->slice, err);
    }
    return status;
}

/* Layers behind one norm read the same activations, so statistics that are not the same were made on another model, or in another way. Experts see the
 * tokens that are sent to them. */
static enum status compare_statistics(struct app *app, const struct statistics *statistics, const struct plan *plan, const struct choice *choice,
                                      bool *told, struct err *err)
{
    const struct smooth_group *group = choice->outcome->group;
    const struct stats_slice *mine = &choice->slice;
    enum status status = OK;
    for (size_t i = 0; i < group->n_consumers && mine->entry && !*told && !status; i++) {
        const struct tensor *tensor = &plan->container->tensors[group->consumers[i].tensor];
        struct stats_slice other;
        if (group->on_request || plan->entries[group->consumers[i].tensor].shape.n_matrices > 1) return OK;
        status = stats_lookup_find(statistics->lookup, tensor->name, 1, 0, group->n, &other, err);
        if (status || !other.entry || !other.entry->values[STATS_SUM2] || !mine->entry->values[STATS_SUM2]) continue;
        const double *a = mine->entry->values[STATS_SUM2] + mine->mat * mine->entry->n_in + mine->first;
        const double *b = other.entry->values[STATS_SUM2] + other.mat * other.entry->n_in + other.first;
        if (memcmp(a, b, (size_t)group->n * sizeof *a) == 0) continue;
        app_note(app, "the statistics of '%s' and '%s' differ, though both read the same activations; the first are used", mine->entry->name,
                 other.entry->name);
        *told = true;
    }
    return status;
}

/* True when the matrix of the slice has seen a token, or has what needs none. */
static bool has_tokens(const struct stats_slice *slice)
{
    const struct stats_entry *entry = slice->entry;
    return !entry->counts || entry->counts[slice->mat] > 0;
}

/* Whether a consumer is multiplied: factors that are stored stand beside codes whose inputs lie along the columns, other consumers see their inputs as
 * they were. */
static bool takes_factors(const struct plan *plan, const struct smooth_outcome *outcome, const struct smooth_side *side)
{
    return outcome->fate == SMOOTH_FOLDED || (plan->entries[side->tensor].fate == FATE_QUANTISE && !side->along_rows);
}

static bool can_take(const struct plan *plan, const struct smooth_outcome *outcome)
{
    for (size_t i = 0; i < outcome->group->n_consumers; i++)
        if (takes_factors(plan, outcome, &outcome->group->consumers[i])) return true;
    return false;
}

static bool can_store(const struct plan *plan)
{
    return plan->writer->quantised && !plan->writer->blocks;
}

bool smooth_check_sides(const struct plan *plan, struct smooth_outcome *outcome)
{
    const struct smooth_group *group = outcome->group;
    if (outcome->fate == SMOOTH_STORED && !can_store(plan)) leave(outcome, "factors beside the weights are held by .llmq files only");
    else if (!can_take(plan, outcome) && group->consumers[0].along_rows)
        leave(outcome, "its inputs lie along the rows, beside which no factors can stand");
    else if (!can_take(plan, outcome)) leave(outcome, "its weights are not quantised, and factors stand beside quantised ones only");
    else if (outcome->fate == SMOOTH_FOLDED && check_sides(plan, group->consumers, group->n_consumers, outcome))
        check_sides(plan, group->producers, group->n_producers, outcome);
    return outcome->fate != SMOOTH_LEFT;
}

static void check_group(const struct plan *plan, const struct smooth_options *options, struct smooth_outcome *outcome)
{
    const struct smooth_group *group = outcome->group;
    outcome->fate = options->folding && group->n_producers ? SMOOTH_FOLDED : SMOOTH_STORED;
    if (group->n_producers && !(options->kinds >> group->kind & 1)) leave(outcome, "--smooth-groups leaves it out");
    else if (!has_target(plan, group)) leave(outcome, "nothing behind it is quantised");
    else if (group->on_request && !smooth_is_searched(plan, options, group))
        leave(outcome, "all experts stand behind it: only --alpha auto tries it");
    else if (smooth_check_sides(plan, outcome) && options->gain && !smooth_has_gain(plan, group))
        leave(outcome, "there is no norm before it, whose gain could be its statistic");
}

/* What a search cannot judge it leaves; factors that are given need no judgement. */
static void check_search(const struct plan *plan, const struct smooth_options *options, const struct choice *choice)
{
    const struct smooth_group *group = choice->outcome->group;
    if (choice->outcome->fate == SMOOTH_LEFT || !smooth_is_searched(plan, options, group) || smooth_is_judged(plan, group)) return;
    if (smooth_is_given(&choice->slice)) return;
    leave(choice->outcome, "its matrices are stored as [in, out], so their groups of weights share a factor, and a search has nothing to judge");
}

static enum status make_choice(struct app *app, const struct statistics *statistics, const struct plan *plan, const struct smooth_options *options,
                               struct choice *choice, bool *told, struct err *err)
{
    struct smooth_outcome *outcome = choice->outcome;
    check_group(plan, options, outcome);
    if (options->gain) check_search(plan, options, choice);
    if (outcome->fate == SMOOTH_LEFT || options->gain) return OK;
    enum status status = find_statistics(statistics, plan, choice, err);
    if (!status && statistics->lookup) status = compare_statistics(app, statistics, plan, choice, told, err);
    if (!status && !choice->slice.entry) leave(outcome, "there are no statistics of its input");
    else if (!status && !has_tokens(&choice->slice)) leave(outcome, "no token of the statistics went through it");
    if (!status) check_search(plan, options, choice);
    return status;
}

/* ---- groups of single tensors, for run time --------------------------------------------------------------------------------------- */

static bool is_stored_candidate(const struct plan *plan, const struct smoothing *smoothing, const bool *served, size_t i)
{
    const struct plan_entry *entry = &plan->entries[i];
    return entry->fate == FATE_QUANTISE && !served[i] && entry->shape.cols > 1 && !(smoothing->transposed && smoothing->transposed[i]);
}

/* A group a matrix of every quantised tensor that no group of the map serves. */
static enum status add_single(struct smooth_groups *stored, const struct plan *plan, size_t tensor, uint64_t mat, struct err *err)
{
    const struct plan_entry *entry = &plan->entries[tensor];
    const char *name = plan->container->tensors[tensor].name;
    struct smooth_group *groups = realloc(stored->groups, (stored->n_groups + 1) * sizeof *groups);
    if (!groups) return err_set(err, ERR_MEMORY, "out of memory");
    stored->groups = groups;
    struct smooth_group *group = &groups[stored->n_groups++];
    const size_t n = strlen(name) + 32;
    *group = (struct smooth_group){ .kind = SMOOTH_KIND_COUNT,
                                    .id = malloc(n),
                                    .layer = UINT32_MAX,
                                    .n = entry->shape.cols,
                                    .share_heads = 1,
                                    .share_run = 1,
                                    .consumers = calloc(1, sizeof *group->consumers),
                                    .n_consumers = 1 };
    if (!group->id || !group->consumers) return err_set(err, ERR_MEMORY, "out of memory");
    if (entry->shape.n_matrices > 1) snprintf(group->id, n, "%s[%llu]", name, (unsigned long long)mat);
    else snprintf(group->id, n, "%s", name);
    group->consumers[0] = (struct smooth_side){ .tensor = tensor, .run = group->n, .step = group->n, .mat = mat, .n_mats = 1 };
    return OK;
}

static enum status add_singles(const struct plan *plan, struct smoothing *smoothing, const bool *served, struct err *err)
{
    enum status status = OK;
    for (size_t i = 0; i < plan->n_tensors && !status; i++)
        for (uint64_t m = 0; is_stored_candidate(plan, smoothing, served, i) && m < plan->entries[i].shape.n_matrices && !status; m++)
            status = add_single(&smoothing->stored, plan, i, m, err);
    return status;
}

/* ---- from factors to tensors ------------------------------------------------------------------------------------------------------ */

static enum status fold_group(const struct plan *plan, struct smoothing *smoothing, const struct smooth_outcome *outcome, struct err *err)
{
    const struct smooth_group *group = outcome->group;
    const struct container *container = plan->container;
    enum status status = OK;
    for (size_t i = 0; i < group->n_consumers && !status; i++)
        if (takes_factors(plan, outcome, &group->consumers[i]))
            status = folds_add(&smoothing->folds, container, &group->consumers[i], outcome->consumers, group->n, err);
    for (size_t i = 0; outcome->fate == SMOOTH_FOLDED && i < group->n_producers && !status; i++)
        status = folds_add(&smoothing->folds, container, &group->producers[i], i == 0 ? outcome->producers : outcome->others,
                           smooth_group_producers(group), err);
    return status;
}

static enum status check_storage(const struct plan *plan, const struct smooth_options *options, struct err *err)
{
    if (can_store(plan) || (options->folding && !options->runtime)) return OK;
    return err_set(err, ERR_USAGE, "%s stores factors beside the weights, which only .llmq files hold",
                   options->folding ? "--smooth-runtime" : "--folding off");
}

/* The plane of factors that undo what the columns were multiplied by. */
static enum status store_group(struct plan *plan, struct smoothing *smoothing, const struct smooth_outcome *outcome, struct err *err)
{
    const struct smooth_group *group = outcome->group;
    for (size_t i = 0; i < group->n_consumers; i++) {
        const struct smooth_side *side = &group->consumers[i];
        struct plan_entry *entry = &plan->entries[side->tensor];
        const uint64_t n = entry->shape.n_matrices * entry->shape.cols;
        float **scales = &smoothing->input_scales[side->tensor];
        if (!takes_factors(plan, outcome, side)) continue;
        if (!*scales) {
            *scales = malloc((size_t)n * sizeof **scales + 1);
            if (!*scales) return err_set(err, ERR_MEMORY, "out of memory for factors");
            for (uint64_t k = 0; k < n; k++) (*scales)[k] = 1.0f;
        }
        for (uint64_t m = side->mat; m < side->mat + side->n_mats; m++)
            for (uint64_t j = 0; j < group->n; j++) (*scales)[m * entry->shape.cols + smooth_side_place(side, j)] = 1.0f / outcome->consumers[j];
    }
    return OK;
}

/* Tensors behind a group that is not left. Caller frees. */
static bool *find_served(const struct plan *plan, const struct smoothing *smoothing)
{
    bool *served = calloc(plan->n_tensors + 1, sizeof *served);
    for (size_t i = 0; served && i < smoothing->n_outcomes; i++) {
        const struct smooth_outcome *outcome = &smoothing->outcomes[i];
        for (size_t k = 0; outcome->fate != SMOOTH_LEFT && k < outcome->group->n_consumers; k++) served[outcome->group->consumers[k].tensor] = true;
    }
    return served;
}

static enum status apply_outcome(struct plan *plan, struct smoothing *smoothing, const struct smooth_outcome *outcome, struct err *err)
{
    if (outcome->fate == SMOOTH_LEFT || outcome->identity) return OK;
    enum status status = outcome->fate == SMOOTH_STORED ? store_group(plan, smoothing, outcome, err) : OK;
    return status ? status : fold_group(plan, smoothing, outcome, err);
}

/* Frees the factors of the groups, once the tensors have theirs, and returns how many bytes they were. */
static uint64_t drop_factors(struct smoothing *smoothing)
{
    uint64_t nbytes = 0;
    for (size_t i = 0; i < smoothing->n_outcomes; i++) {
        struct smooth_outcome *outcome = &smoothing->outcomes[i];
        if (outcome->s) nbytes += (outcome->group->n + smooth_group_producers(outcome->group)) * 2 * sizeof(float);
        free(outcome->s);
        free(outcome->consumers);
        free(outcome->producers);
        free(outcome->others);
        outcome->s = outcome->consumers = outcome->producers = outcome->others = NULL;
    }
    return nbytes;
}

/* Consumers were read once for their maxima. */
static void count_reads(struct plan *plan, const struct smoothing *smoothing)
{
    bool *served = find_served(plan, smoothing);
    for (size_t i = 0; served && i < plan->n_tensors; i++) plan->entries[i].n_scans += served[i] && smooth_target(plan, i);
    free(served);
}

static enum status apply_all(struct plan *plan, struct smoothing *smoothing, struct err *err)
{
    enum status status = folds_make(plan->container->n_tensors, &smoothing->folds, err);
    smoothing->n_tensors = plan->n_tensors;
    smoothing->input_scales = calloc(plan->n_tensors + 1, sizeof *smoothing->input_scales);
    if (!status && !smoothing->input_scales) status = err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < smoothing->n_outcomes && !status; i++) {
        struct smooth_outcome *outcome = &smoothing->outcomes[i];
        smoothing->n_folded += outcome->fate == SMOOTH_FOLDED;
        smoothing->n_stored += outcome->fate == SMOOTH_STORED;
        status = apply_outcome(plan, smoothing, outcome, err);
    }
    for (size_t i = 0; i < plan->n_tensors && !status; i++)
        status = plan_set_migration(plan, i, smoothing->folds.of[i], smoothing->input_scales[i], err);
    if (!smoothing->options.recipe && !smoothing->options.inverse) count_reads(plan, smoothing);
    return status;
}

/* ---- all of it -------------------------------------------------------------------------------------------------------------------- */

static enum status make_outcomes(struct smoothing *smoothing, struct err *err)
{
    const size_t n = smoothing->groups.n_groups + smoothing->stored.n_groups;
    struct smooth_outcome *outcomes = realloc(smoothing->outcomes, (n + 1) * sizeof *outcomes);
    if (!outcomes) return err_set(err, ERR_MEMORY, "out of memory for %zu groups", n);
    smoothing->outcomes = outcomes;
    for (size_t i = smoothing->n_outcomes; i < n; i++)
        outcomes[i] = (struct smooth_outcome){ .group = i < smoothing->groups.n_groups ? &smoothing->groups.groups[i]
                                                                                       : &smoothing->stored.groups[i - smoothing->groups.n_groups],
                                               .alpha = (double)NAN,
                                               .loss = (double)NAN,
                                               .identity_loss = (double)NAN };
    smoothing->n_outcomes = n;
    return OK;
}

/* Decides groups [first, n_outcomes). */
static enum status decide(struct app *app, struct plan *plan, struct smoothing *smoothing, const struct statistics *statistics, size_t first,
                          struct err *err)
{
    const size_t n = smoothing->n_outcomes - first;
    struct choice *choices = calloc(n + 1, sizeof *choices);
    bool told = false;
    enum status status = choices ? OK : err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < n && !status; i++) {
        choices[i].outcome = &smoothing->outcomes[first + i];
        status = make_choice(app, statistics, plan, &smoothing->options, &choices[i], &told, err);
    }
    if (!status) status = smooth_choose_all(app, plan, &smoothing->options, choices, n, err);
    free(choices);
    return status;
}

static enum status decide_stored(struct app *app, struct plan *plan, struct smoothing *smoothing, const struct statistics *statistics,
                                 struct err *err)
{
    const size_t first = smoothing->n_outcomes;
    if ((!smoothing->options.runtime && smoothing->options.folding) || smoothing->options.gain) return OK;
    bool *served = find_served(plan, smoothing);
    enum status status = served ? add_singles(plan, smoothing, served, err) : err_set(err, ERR_MEMORY, "out of memory");
    free(served);
    if (!status) status = make_outcomes(smoothing, err);
    return status ? status : decide(app, plan, smoothing, statistics, first, err);
}

static enum status from_statistics(struct app *app, struct plan *plan, struct smoothing *smoothing, struct err *err)
{
    struct statistics statistics = { 0 };
    char name[200];
    const char *path = smoothing->options.path;
    smooth_stat_text(&smoothing->options.stat, smoothing->stat);
    enum status status = path ? statistics_open(app, path, &statistics, err) : OK;
    if (!status) status = make_outcomes(smoothing, err);
    if (!status) status = decide(app, plan, smoothing, &statistics, 0, err);
    if (!status) status = decide_stored(app, plan, smoothing, &statistics, err);
    if (statistics.set) smoothing->statistics_nbytes = statistics.set->nbytes;
    if (status && path) status = err_wrap(err, status, "--smooth '%s'", err_name(path, strlen(path), name, sizeof name));
    statistics_close(&statistics);
    return status;
}

/* Migration was asked for, so something must come of it. */
static enum status check_effect(const struct smoothing *smoothing, struct err *err)
{
    if (smoothing->n_folded + smoothing->n_stored) return OK;
    const char *why = "the model has no groups";
    char name[200] = "";
    for (size_t i = smoothing->n_outcomes; i-- > 0;) {
        why = smoothing->outcomes[i].why;
        err_name(smoothing->outcomes[i].group->id, strlen(smoothing->outcomes[i].group->id), name, sizeof name);
    }
    if (smoothing->n_outcomes == 0 && smoothing->groups.n_refusals) {
        why = smoothing->groups.refusals[0].why;
        err_name(smoothing->groups.refusals[0].id, strlen(smoothing->groups.refusals[0].id), name, sizeof name);
    }
    return err_set(err, ERR_USAGE, "no group could be migrated%s%s%s: %s", *name ? " ('" : "", name, *name ? "' and others)" : "", why);
}

/* What stays for the run, and what was there before it. */
static void count_memory(struct plan *plan, struct smoothing *smoothing)
{
    uint64_t stays = smoothing->folds.nbytes + smoothing->recipe_json_nbytes + smoothing->recipe_scales_nbytes + smoothing->inc_json_nbytes;
    for (size_t i = 0; smoothing->input_scales && i < plan->n_tensors; i++)
        if (smoothing->input_scales[i]) stays += plan->entries[i].shape.n_matrices * plan->entries[i].shape.cols * sizeof(float);
    plan->smoothing_nbytes = stays;
    plan->planning_nbytes = size_max(plan->planning_nbytes, smoothing->statistics_nbytes + drop_factors(smoothing));
}

enum status plan_smooth(struct app *app, struct plan *plan, struct err *err)
{
    struct smooth_options options;
    bool any = false;
    enum status status = smooth_options_read(&app->settings, &options, &any, err);
    if (status || !any) return status;
    struct smoothing *smoothing = calloc(1, sizeof *smoothing);
    if (!smoothing) return err_set(err, ERR_MEMORY, "out of memory");
    plan->smoothing = smoothing;
    smoothing->options = options;
    status = check_storage(plan, &options, err);
    if (!status) status = open_groups(app, plan, smoothing, err);
    if (!status && (options.recipe || options.inverse)) status = smooth_recipe_replay(app, plan, smoothing, err);
    else if (!status) status = from_statistics(app, plan, smoothing, err);
    if (!status) status = apply_all(plan, smoothing, err);
    if (!status) status = check_effect(smoothing, err);
    if (!status) status = smooth_recipe_make(app, plan, smoothing, err);
    count_memory(plan, smoothing);
    return status;
}

void smoothing_free(struct smoothing *smoothing)
{
    if (!smoothing) return;
    drop_factors(smoothing);
    for (uint64_t i = 0; smoothing->input_scales && i < smoothing->n_tensors; i++) free(smoothing->input_scales[i]);
    free(smoothing->input_scales);
    free(smoothing->outcomes);
    free(smoothing->transposed);
    folds_free(&smoothing->folds);
    smooth_groups_free(&smoothing->groups);
    smooth_groups_free(&smoothing->stored);
    free(smoothing->recipe_json);
    free(smoothing->recipe_scales);
    free(smoothing->inc_json);
    free(smoothing->arch);
    free(smoothing);
}
