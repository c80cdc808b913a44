/* importance.c: see importance.h.
 *
 * Drawing: --imatrix FILE -> statistics_open -> for each quantised tensor stats_importance -> counted -> kept where the format heeds it.
 * Why this way: see importance.h.
 * Corner cases: experts are counted in stacks, and where each has a tensor of its own; a tensor all of whose matrices lack statistics counts as one
 * without, whatever their number; entries of the file that belong to no quantised tensor (a head that is kept) are named in a note.
 * Reference: smoothquant/stats_lookup.h. Worked number: a stack of 8 experts of 2048 channels holds 64 KiB of weights.
 */
#include "converter/importance.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/size.h"
#include "base/text.h"
#include "converter/statistics.h"

/* True for a matrix that is one expert, by itself. */
static bool is_expert(const struct statistics *statistics, const char *name)
{
    struct name_place place;
    return name_map_find(statistics->map, name, &place) && place.expert != NAME_NONE;
}

static enum status weigh_tensor(const struct statistics *statistics, struct plan *plan, size_t i, struct err *err)
{
    struct plan_entry *entry = &plan->entries[i];
    struct weighing *weighing = &plan->weighing;
    const struct quant *quant = &entry->verdict.quant;
    const struct tensor *tensor = plan_tensor(plan, i);
    struct importance *importance = &entry->importance;
    const float *factors = entry->fold ? entry->fold->cols : NULL;
    enum status status = stats_importance_migrated(statistics->lookup, tensor->name, entry->shape.n_matrices, entry->shape.cols, factors,
                                                   factors ? entry->fold->n_sets : 0, importance, err);
    if (status) return status;
    const bool found = importance->n_without < importance->n_mat;
    weighing->n_of++;
    weighing->n_tensors += found;
    if (importance->n_mat > 1 || is_expert(statistics, tensor->name)) weighing->n_experts_without += importance->n_without;
    const bool heeds = found && codec_heeds_importance(quant);
    weighing->n_heeding += heeds;
    if (!heeds) {
        importance_free(importance);
        return OK;
    }
    weighing->nbytes += importance->n_mat * (importance->n_in * sizeof(float) + sizeof *importance->rows);
    plan->scratch_weights = (size_t)size_max(plan->scratch_weights, codec_scratch_importance(quant, entry->shape.rows, entry->shape.cols));
    return OK;
}

/* What the user should know of a file that was read well. */
static enum status judge(const struct app *app, const struct statistics *statistics, const struct weighing *weighing, struct err *err)
{
    const size_t n_unused = stats_lookup_unused(statistics->lookup);
    char name[200];
    const char *first = n_unused ? statistics->set->entries[stats_lookup_next_unused(statistics->lookup, SIZE_MAX)].name : "";
    err_name(first, strlen(first), name, sizeof name);
    if (weighing->n_of && !weighing->n_tensors)
        return err_set(err, ERR_USAGE, "--imatrix '%s': none of its %zu entries is about a tensor that is quantised%s%s%s", weighing->path,
                       statistics->set->n_entries, n_unused ? " (the first: '" : "", name, n_unused ? "')" : "");
    if (n_unused)
        app_note(app, "%zu of %zu entries of '%s' are about no tensor that is quantised (the first: '%s')", n_unused, statistics->set->n_entries,
                 weighing->path, name);
    if (weighing->n_tensors && !weighing->n_heeding)
        app_note(app, "no scale is searched by error, so that '%s' changes nothing; --scale-rule mse or search would", weighing->path);
    return OK;
}

/* ---- what the output says of it --------------------------------------------------------------------------------------------------- */

#define RECORD_KEY "llmq.imatrix"

static enum status copy_member(void *context, const char *key, size_t key_nbytes, const char *value, size_t value_nbytes, struct err *err)
{
    struct text *text = context;
    (void)err;
    if (strcmp(key, RECORD_KEY) == 0) return OK;
    text_add_json(text, key, key_nbytes);
    text_add(text, ":");
    text_add_bytes(text, value, value_nbytes);
    text_add(text, ",");
    return OK;
}

/* The name into the metadata of the output, in place of one that the source has. */
static enum status record(struct plan *plan, struct err *err)
{
    const struct json_limits limits = { 2, UINT64_MAX, false };
    const char *source = plan->options.metadata_json, *base = path_base(plan->weighing.path);
    struct text text = text_make((source ? 2 * strlen(source) : 0) + 1024);
    plan->options.imatrix_name = err_name(base, strlen(base), plan->weighing.name, sizeof plan->weighing.name);
    text_add(&text, "{");
    enum status status = source ? json_walk_object(source, strlen(source), &limits, copy_member, &text, err) : OK;
    text_add(&text, "\"" RECORD_KEY "\":");
    text_add_json_str(&text, plan->weighing.name);
    text_add(&text, "}");
    if (!status) status = text_ok(&text, "metadata", err);
    if (!status) plan->weighing.metadata_json = strdup(text.data);
    if (!status && !plan->weighing.metadata_json) status = err_set(err, ERR_MEMORY, "out of memory");
    if (!status) plan->options.metadata_json = plan->weighing.metadata_json;
    text_free(&text);
    return status;
}

enum status plan_weigh(struct app *app, struct plan *plan, struct err *err)
{
    struct statistics statistics = { 0 };
    char name[200];
    if (!settings_given(&app->settings, SET_IMATRIX)) return OK;
    const char *path = settings_text(&app->settings, SET_IMATRIX);
    plan->weighing.path = path;
    enum status status = statistics_open(app, path, &statistics, err);
    for (size_t i = 0; i < plan->n_tensors && !status; i++) {
        if (plan->entries[i].fate != FATE_QUANTISE) continue;
        status = weigh_tensor(&statistics, plan, i, err);
        if (status) status = err_wrap(err, status, "--imatrix '%s'", err_name(path, strlen(path), name, sizeof name));
    }
    if (!status) status = judge(app, &statistics, &plan->weighing, err);
    if (!status) plan->planning_nbytes = size_max(plan->planning_nbytes, statistics.set->nbytes);
    if (!status && plan->weighing.n_heeding) status = record(plan, err);
    statistics_close(&statistics);
    return status;
}
