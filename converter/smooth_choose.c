/* smooth_choose.c: see smooth_choose.h.
 *
 * Drawing: for a group: gain of its norm, x, E[x^2], maxima of its consumers -> smooth_scales (and smooth_judge), or smooth_search -> fold_factors_make.
 * Formula: the sample of a group has at most 2^20 weights, shared out evenly over its quantised consumers.
 * Why this way: see smooth_choose.h.
 * Corner cases: consumers that are not quantised are scaled like the others but have no say in w_j, nor in the loss.
 * Reference: see smooth_choose.h. Worked number: q, k and v of 4096 columns: 85 rows of each.
 */
#include "converter/smooth_choose.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "converter/jobs.h"
#include "converter/progress.h"
#include "converter/smooth_weights.h"

enum { SAMPLE_WEIGHTS = 1 << 20, WORKER_NBYTES = 20 << 20 };

struct chooser {
    const struct app *app;
    const struct plan *plan;
    const struct smooth_options *options;
    struct choice *choices;
    size_t n_choices;
    struct weights_reader *readers; /* one a thread */
    struct progress *progress;
};

/* What is at hand of one group while it is decided. */
struct study {
    struct choice *choice;
    const struct smooth_group *group;
    struct smooth_problem problem;
    float *x, *w, *gain, *wmean;
    double *ex2;
    bool *dead;
    float *tokens; /* sampled inputs */
    struct smooth_member *members;
    float **rows; /* of members */
    bool has_ex2;
};

const struct quant *smooth_target(const struct plan *plan, size_t tensor)
{
    const struct verdict *verdict = &plan->entries[tensor].verdict;
    return verdict->keep ? NULL : &verdict->quant;
}

bool smooth_has_gain(const struct plan *plan, const struct smooth_group *group)
{
    return group->n_producers && plan->container->tensors[group->producers[0].tensor].rank == 1 && !group->producers[0].is_bias;
}

/* ---- memory ----------------------------------------------------------------------------------------------------------------------- */

static enum status study_open(struct study *study, struct choice *choice, struct err *err)
{
    const struct smooth_group *group = choice->outcome->group;
    const size_t n = (size_t)group->n + 1;
    *study = (struct study){ .choice = choice,
                             .group = group,
                             .x = calloc(n, sizeof(float)),
                             .w = calloc(n, sizeof(float)),
                             .gain = calloc(n, sizeof(float)),
                             .ex2 = calloc(n, sizeof(double)),
                             .dead = calloc(n, sizeof(bool)),
                             .members = calloc(group->n_consumers + 1, sizeof *study->members),
                             .rows = calloc(group->n_consumers + 1, sizeof *study->rows) };
    choice->outcome->s = calloc(n, sizeof(float));
    const bool fine = study->x && study->w && study->gain && study->ex2 && study->dead && study->members && study->rows && choice->outcome->s;
    return fine ? OK : err_set(err, ERR_MEMORY, "out of memory for %zu channels", n);
}

static void study_close(struct study *study)
{
    for (size_t i = 0; study->rows && i < study->group->n_consumers; i++) free(study->rows[i]);
    free(study->rows);
    free(study->members);
    free(study->x);
    free(study->w);
    free(study->gain);
    free(study->wmean);
    free(study->ex2);
    free(study->dead);
    free(study->tokens);
}

/* ---- what the group is ------------------------------------------------------------------------------------------------------------ */

/* The gain of the norm before the group, as stored, and which channels it leaves no signal. */
static enum status read_gain(const struct chooser *chooser, struct weights_reader *reader, struct study *study, struct err *err)
{
    const struct smooth_group *group = study->group;
    if (!smooth_has_gain(chooser->plan, group)) return OK;
    const struct smooth_side *side = &group->producers[0];
    const uint64_t n = smooth_group_producers(group), length = tensor_cols(&chooser->plan->container->tensors[side->tensor]);
    float *stored = calloc((size_t)length + 1, sizeof *stored);
    enum status status = stored ? weights_read_vector(reader, side->tensor, length, stored, err) : err_set(err, ERR_MEMORY, "out of memory");
    for (uint64_t p = 0; p < n && !status; p++) study->gain[p] = stored[smooth_side_place(side, p)];
    for (uint64_t j = 0; j < group->n && !status; j++) {
        const float gain = study->gain[smooth_group_producer(group, j)] + (side->plus_one ? 1.0f : 0.0f);
        study->dead[j] = gain == 0.0f || !isfinite(gain);
    }
    free(stored);
    return status;
}

bool smooth_is_given(const struct stats_slice *slice)
{
    const struct stats_entry *entry = slice->entry;
    return entry && entry->values[STATS_SCALE] && !entry->values[STATS_SUM2] && !entry->values[STATS_ABSMAX];
}

static enum status read_statistics(const struct chooser *chooser, struct study *study, struct err *err)
{
    const struct smooth_options *options = chooser->options;
    const struct stats_slice *slice = &study->choice->slice;
    struct smooth_stat stat = options->stat;
    float *gain = calloc((size_t)study->group->n + 1, sizeof *gain);
    if (!gain) return err_set(err, ERR_MEMORY, "out of memory");
    for (uint64_t j = 0; j < study->group->n; j++)
        gain[j] =
            study->gain[smooth_group_producer(study->group, j)] + (study->group->n_producers && study->group->producers[0].plus_one ? 1.0f : 0.0f);
    const struct smooth_stat_source source = { slice, study->group->n, smooth_has_gain(chooser->plan, study->group) ? gain : NULL, 0.0 };
    if (!options->stat_given && !options->gain && !slice->entry->values[STATS_SUM2]) stat.kind = SMOOTH_STAT_ABSMAX;
    enum status status = smooth_stat_read(&source, &stat, study->x, err);
    study->has_ex2 = !status && smooth_stat_ex2(&source, study->ex2, NULL);
    free(gain);
    return status;
}

static enum status read_maxima(const struct chooser *chooser, struct weights_reader *reader, struct study *study, struct err *err)
{
    const struct smooth_group *group = study->group;
    enum status status = OK;
    for (size_t i = 0; i < group->n_consumers && !status; i++) {
        const uint64_t before = reader->n_read;
        if (!smooth_target(chooser->plan, group->consumers[i].tensor)) continue;
        status = weights_read_max(reader, &group->consumers[i], group->n, study->w, err);
        progress_add(chooser->progress, reader->n_read - before);
    }
    return status;
}

/* ---- what a search judges by ------------------------------------------------------------------------------------------------------ */

/* Consumers whose groups of weights run along the inputs. */
static size_t count_judged(const struct plan *plan, const struct smooth_group *group)
{
    size_t n = 0;
    for (size_t i = 0; i < group->n_consumers; i++) n += smooth_target(plan, group->consumers[i].tensor) && !group->consumers[i].along_rows;
    return n;
}

bool smooth_is_judged(const struct plan *plan, const struct smooth_group *group)
{
    return count_judged(plan, group) > 0;
}

static enum status read_members(const struct chooser *chooser, struct weights_reader *reader, struct study *study, struct err *err)
{
    const struct smooth_group *group = study->group;
    const size_t n_judged = count_judged(chooser->plan, group);
    enum status status = OK;
    for (size_t i = 0; i < group->n_consumers && !status; i++) {
        const struct smooth_side *side = &group->consumers[i];
        const struct quant *quant = smooth_target(chooser->plan, side->tensor);
        struct smooth_member *member = &study->members[i];
        if (!quant || side->along_rows) continue;
        status = weights_read_sample(reader, side, group->n, quant, SAMPLE_WEIGHTS / size_max(1, n_judged), &study->rows[i], &member->n_rows, err);
        member->w = study->rows[i];
        member->quant = quant;
        member->weight = member->n_rows ? (double)weights_rows(chooser->plan->container, side) / (double)member->n_rows : 1.0;
    }
    study->problem.members = study->members;
    study->problem.n_members = group->n_consumers;
    return status;
}

/* Sampled tokens as f32, at most --n-samples of them. */
static enum status read_tokens(const struct chooser *chooser, struct study *study, struct err *err)
{
    const struct stats_slice *slice = &study->choice->slice;
    const struct stats_entry *entry = slice->entry;
    if (!entry || !entry->sample || entry->n_in != study->group->n) return OK;
    const uint64_t n = size_min(entry->n_sample, chooser->options->n_samples);
    study->tokens = malloc((size_t)(n * entry->n_in) * sizeof *study->tokens + 1);
    if (!study->tokens) return err_set(err, ERR_MEMORY, "out of memory for sampled tokens");
    dtype_find("BF16", 4)->widen((const uint8_t *)entry->sample, (size_t)(n * entry->n_in), study->tokens);
    study->problem.sample = study->tokens;
    study->problem.n_sample = n;
    return OK;
}

static enum status make_problem(const struct chooser *chooser, struct weights_reader *reader, struct study *study, struct err *err)
{
    const struct stats_slice *slice = &study->choice->slice;
    const struct smooth_options *options = chooser->options;
    study->problem.channels = (struct smooth_channels){ .n = study->group->n,
                                                        .x = study->x,
                                                        .w = study->w,
                                                        .wmean = study->wmean,
                                                        .dead = study->dead,
                                                        .share_heads = study->group->share_heads,
                                                        .share_run = study->group->share_run,
                                                        .reduce = options->reduce,
                                                        .clamp_low = options->clamp,
                                                        .clamp_high = 1.0 / options->clamp };
    study->problem.ex2 = study->has_ex2 ? study->ex2 : NULL;
    enum status status = read_members(chooser, reader, study, err);
    if (status ||
        (options->search.loss != SMOOTH_LOSS_SAMPLE && options->search.loss != SMOOTH_LOSS_W8A8 && options->search.loss != SMOOTH_LOSS_GRAM))
        return status;
    if (options->search.loss == SMOOTH_LOSS_GRAM && slice->entry && slice->entry->gram && slice->entry->counts && slice->entry->counts[slice->mat]) {
        study->problem.gram = slice->entry->gram + slice->mat * (slice->entry->n_in * (slice->entry->n_in + 1) / 2);
        study->problem.gram_factor = 1.0 / (double)slice->entry->counts[slice->mat];
    }
    return read_tokens(chooser, study, err);
}

/* Mean relative magnitudes of columns, for family duo. */
static enum status make_wmean(struct study *study, struct err *err)
{
    const uint64_t n = study->group->n;
    double *sum = calloc((size_t)n + 1, sizeof *sum);
    uint64_t n_rows = 0;
    study->wmean = calloc((size_t)n + 1, sizeof *study->wmean);
    if (!sum || !study->wmean) {
        free(sum);
        return err_set(err, ERR_MEMORY, "out of memory");
    }
    for (size_t i = 0; i < study->group->n_consumers; i++) {
        if (!study->members[i].w) continue;
        smooth_wmean_add(study->members[i].w, study->members[i].n_rows, n, study->members[i].quant->group, sum);
        n_rows += study->members[i].n_rows;
    }
    for (uint64_t j = 0; j < n && n_rows; j++) study->wmean[j] = (float)(sum[j] / (double)n_rows);
    free(sum);
    study->problem.channels.wmean = study->wmean;
    return OK;
}

/* ---- the choice ------------------------------------------------------------------------------------------------------------------- */

static void take_report(struct smooth_outcome *outcome, const struct smooth_scale_report *report)
{
    outcome->n_clipped = report->n_clipped;
    outcome->n_dead = report->n_dead;
}

/* Statistics that the loss needs are there. */
static bool can_judge(const struct smooth_options *options, const struct study *study)
{
    switch (options->search.loss) {
    case SMOOTH_LOSS_GRAM:
        return study->problem.gram != NULL;
    case SMOOTH_LOSS_SAMPLE:
    case SMOOTH_LOSS_W8A8:
        return study->problem.sample != NULL;
    default:
        return study->has_ex2;
    }
}

static enum status judge_fixed(const struct chooser *chooser, struct study *study, struct err *err)
{
    struct smooth_outcome *outcome = study->choice->outcome;
    if (!can_judge(chooser->options, study) || !count_judged(chooser->plan, study->group)) return OK;
    enum status status = smooth_judge(&study->problem, &chooser->options->search, NULL, 1, NULL, &outcome->identity_loss, err);
    return status ? status : smooth_judge(&study->problem, &chooser->options->search, outcome->s, 1, NULL, &outcome->loss, err);
}

static enum status choose_fixed(const struct chooser *chooser, struct study *study, double alpha, struct err *err)
{
    struct smooth_outcome *outcome = study->choice->outcome;
    struct smooth_scale_report report = { 0 };
    outcome->family = chooser->options->family;
    outcome->alpha = alpha;
    enum status status = outcome->family == SMOOTH_DUO ? make_wmean(study, err) : OK;
    if (!status) status = smooth_scales(&study->problem.channels, outcome->family, alpha, outcome->s, &report, err);
    take_report(outcome, &report);
    return status ? status : judge_fixed(chooser, study, err);
}

static enum status choose_given(struct study *study, struct err *err)
{
    const struct stats_slice *slice = &study->choice->slice;
    struct smooth_scale_report report = { 0 };
    const double *values = slice->entry->values[STATS_SCALE] + slice->mat * slice->entry->n_in + slice->first;
    study->choice->outcome->given = true;
    for (uint64_t j = 0; j < study->group->n; j++) study->x[j] = (float)values[j];
    enum status status = smooth_scales_take(&study->problem.channels, study->x, study->choice->outcome->s, &report, err);
    take_report(study->choice->outcome, &report);
    return status;
}

static void take_candidate(struct smooth_outcome *outcome, const struct smooth_result *result, size_t index)
{
    const struct smooth_candidate *candidate = &result->candidates[index];
    outcome->searched = true;
    outcome->identity = candidate->identity;
    outcome->family = candidate->family;
    outcome->alpha = candidate->identity ? (double)NAN : candidate->alpha;
    outcome->loss = candidate->loss;
    outcome->identity_loss = result->identity_loss;
}

static enum status choose_searched(const struct chooser *chooser, struct study *study, struct err *err)
{
    struct smooth_outcome *outcome = study->choice->outcome;
    struct smooth_result result = { 0 };
    enum status status = smooth_search(&study->problem, &chooser->options->search, 1, &result, err);
    if (!status) {
        memcpy(outcome->s, result.s, (size_t)study->group->n * sizeof *outcome->s);
        take_candidate(outcome, &result, result.best);
        take_report(outcome, &result.report);
    }
    smooth_result_free(&result);
    return status;
}

/* The format that decides the alpha: that of the first consumer with one. */
static const struct quant *first_target(const struct plan *plan, const struct smooth_group *group)
{
    for (size_t i = 0; i < group->n_consumers; i++)
        if (smooth_target(plan, group->consumers[i].tensor)) return smooth_target(plan, group->consumers[i].tensor);
    return NULL;
}

bool smooth_is_searched(const struct plan *plan, const struct smooth_options *options, const struct smooth_group *group)
{
    bool search = false;
    const struct quant *quant = first_target(plan, group);
    if (quant) smooth_options_alpha(options, quant, &search);
    return search;
}

static enum status prepare(const struct chooser *chooser, struct weights_reader *reader, struct choice *choice, struct study *study, struct err *err)
{
    enum status status = study_open(study, choice, err);
    if (!status) status = read_gain(chooser, reader, study, err);
    if (!status && !smooth_is_given(&choice->slice)) status = read_statistics(chooser, study, err);
    if (!status) status = read_maxima(chooser, reader, study, err);
    return status ? status : make_problem(chooser, reader, study, err);
}

/* A search has what it needs. */
static bool can_search(const struct chooser *chooser, const struct study *study)
{
    return smooth_is_searched(chooser->plan, chooser->options, study->group) && !smooth_is_given(&study->choice->slice) &&
           smooth_is_judged(chooser->plan, study->group) && can_judge(chooser->options, study);
}

static enum status choose(const struct chooser *chooser, struct study *study, struct err *err)
{
    bool search = false;
    const double alpha = smooth_options_alpha(chooser->options, first_target(chooser->plan, study->group), &search);
    if (smooth_is_given(&study->choice->slice)) return choose_given(study, err);
    if (can_search(chooser, study)) return choose_searched(chooser, study, err);
    return choose_fixed(chooser, study, search ? chooser->options->init_alpha : alpha, err);
}

/* ---- the factors of both sides ---------------------------------------------------------------------------------------------------- */

enum status smooth_make_factors(const struct plan *plan, struct smooth_outcome *outcome, const float *gain, struct err *err)
{
    const struct smooth_group *group = outcome->group;
    const uint64_t n = group->n, n_producers = smooth_group_producers(group);
    outcome->consumers = calloc((size_t)n + 1, sizeof(float));
    outcome->producers = calloc((size_t)n_producers + 1, sizeof(float));
    outcome->others = calloc((size_t)n_producers + 1, sizeof(float));
    if (!outcome->consumers || !outcome->producers || !outcome->others)
        return err_set(err, ERR_MEMORY, "out of memory for %llu factors", (unsigned long long)n);
    if (outcome->fate == SMOOTH_FOLDED) {
        struct fold_factors factors = { .consumers = outcome->consumers, .producers = outcome->producers, .others = outcome->others };
        fold_factors_make(group, outcome->s, gain, plan->container->tensors[group->producers[0].tensor].dtype, &factors);
        outcome->deviation = factors.deviation;
    } else {
        memcpy(outcome->consumers, outcome->s, (size_t)n * sizeof(float));
    }
    outcome->identity = true;
    for (uint64_t j = 0; j < n; j++) outcome->identity &= outcome->consumers[j] == 1.0f;
    return OK;
}

/* Parameters of an 8-bit input, where its range is known. */
static enum status make_act(const struct chooser *chooser, struct study *study, struct err *err)
{
    const struct stats_slice *slice = &study->choice->slice;
    struct smooth_outcome *outcome = study->choice->outcome;
    const struct stats_entry *entry = slice->entry;
    if (!chooser->options->inc_json || !entry || !(entry->values[STATS_ABSMAX] || (entry->values[STATS_MIN] && entry->values[STATS_MAX]))) return OK;
    const uint64_t n = study->group->n, first = slice->mat * entry->n_in + slice->first;
    float *ranges = malloc((size_t)(3 * n + 1) * sizeof *ranges);
    if (!ranges) return err_set(err, ERR_MEMORY, "out of memory");
    for (uint64_t j = 0; j < n; j++) {
        ranges[j] = (float)(entry->values[STATS_MIN] ? entry->values[STATS_MIN][first + j] : -entry->values[STATS_ABSMAX][first + j]);
        ranges[n + j] = (float)(entry->values[STATS_MAX] ? entry->values[STATS_MAX][first + j] : entry->values[STATS_ABSMAX][first + j]);
        ranges[2 * n + j] = 1.0f / outcome->consumers[j];
    }
    outcome->act = qdq_linear_params(ranges, ranges + n, ranges + 2 * n, n);
    outcome->has_act = true;
    free(ranges);
    return OK;
}

static enum status finish(const struct chooser *chooser, struct study *study, struct err *err)
{
    const float *gain = smooth_has_gain(chooser->plan, study->group) ? study->gain : NULL;
    enum status status = smooth_make_factors(chooser->plan, study->choice->outcome, gain, err);
    return status ? status : make_act(chooser, study, err);
}

static enum status decide_alone(const struct chooser *chooser, struct study *study, struct err *err)
{
    enum status status = choose(chooser, study, err);
    return status ? status : finish(chooser, study, err);
}

static enum status choose_group(const struct chooser *chooser, struct weights_reader *reader, struct choice *choice, struct err *err)
{
    struct study study = { .group = choice->outcome->group };
    enum status status = prepare(chooser, reader, choice, &study, err);
    if (!status) status = decide_alone(chooser, &study, err);
    study_close(&study);
    return status ? err_wrap(err, status, "cannot migrate '%s'", choice->outcome->group->id) : OK;
}

/* ---- one alpha for the groups of a layer ------------------------------------------------------------------------------------------ */

static bool same_layer(const struct choice *a, const struct choice *b)
{
    return a == b || (a->outcome->group->layer != UINT32_MAX && a->outcome->group->layer == b->outcome->group->layer);
}

/* Adds relative losses of the group's candidates to totals. */
static void add_losses(const struct smooth_result *result, double *totals)
{
    for (size_t c = 0; c < result->n_candidates; c++)
        totals[c] += result->identity_loss > 0.0 ? result->candidates[c].loss / result->identity_loss : 0.0;
}

static enum status take_shared(const struct chooser *chooser, struct study *study, const struct smooth_result *result, size_t index, struct err *err)
{
    struct smooth_outcome *outcome = study->choice->outcome;
    struct smooth_scale_report report = { 0 };
    enum status status = OK;
    take_candidate(outcome, result, index);
    for (uint64_t j = 0; j < study->group->n; j++) outcome->s[j] = 1.0f;
    if (!outcome->identity && outcome->family == SMOOTH_DUO) status = make_wmean(study, err);
    if (!status && !outcome->identity) status = smooth_scales(&study->problem.channels, outcome->family, outcome->alpha, outcome->s, &report, err);
    take_report(outcome, &report);
    return status ? status : finish(chooser, study, err);
}

/* All groups of the layer of choices[first], the first of them; two passes over the group, since samples of a whole layer would not fit. */
static enum status choose_layer(const struct chooser *chooser, struct weights_reader *reader, size_t first, struct err *err)
{
    struct smooth_settings settings = chooser->options->search;
    double totals[SMOOTH_FAMILY_COUNT * SMOOTH_ALPHAS_MAX + 1] = { 0.0 };
    size_t best = SIZE_MAX, n_candidates = 0;
    enum status status = OK;
    settings.refine = 0;
    for (int pass = 0; pass < 2 && !status; pass++) {
        for (size_t i = first; i < chooser->n_choices && !status; i++) {
            struct choice *choice = &chooser->choices[i];
            struct smooth_result result = { 0 };
            struct study study = { .group = choice->outcome->group };
            if (choice->outcome->fate == SMOOTH_LEFT || !same_layer(&chooser->choices[first], choice)) continue;
            free(choice->outcome->s);
            status = prepare(chooser, reader, choice, &study, err);
            if (!status && !can_search(chooser, &study)) {
                if (pass == 1) status = decide_alone(chooser, &study, err);
            } else if (!status) {
                status = smooth_search(&study.problem, &settings, 1, &result, err);
                if (!status && pass == 0) add_losses(&result, totals);
                if (!status && pass == 1) status = take_shared(chooser, &study, &result, best, err);
                n_candidates = result.n_candidates;
            }
            smooth_result_free(&result);
            study_close(&study);
            if (status) status = err_wrap(err, status, "cannot migrate '%s'", choice->outcome->group->id);
        }
        best = 0;
        for (size_t c = 1; c < n_candidates; c++)
            if (totals[c] < totals[best]) best = c;
    }
    return status;
}

/* ---- all groups ------------------------------------------------------------------------------------------------------------------- */

static uint64_t is_job(void *context, size_t i)
{
    const struct chooser *chooser = context;
    if (chooser->choices[i].outcome->fate == SMOOTH_LEFT) return 0;
    for (size_t k = 0; k < i && chooser->options->blockwise; k++)
        if (chooser->choices[k].outcome->fate != SMOOTH_LEFT && same_layer(&chooser->choices[k], &chooser->choices[i])) return 0;
    return 1;
}

static enum status job(void *context, unsigned worker, const struct job *job, struct err *err)
{
    struct chooser *chooser = context;
    if (chooser->options->blockwise) return choose_layer(chooser, &chooser->readers[worker], job->tensor, err);
    return choose_group(chooser, &chooser->readers[worker], &chooser->choices[job->tensor], err);
}

/* Bytes of the consumers of all groups, read once. */
static uint64_t total_nbytes(const struct chooser *chooser)
{
    uint64_t total = 0;
    for (size_t i = 0; i < chooser->n_choices; i++) {
        const struct smooth_group *group = chooser->choices[i].outcome->group;
        for (size_t k = 0; chooser->choices[i].outcome->fate != SMOOTH_LEFT && k < group->n_consumers; k++)
            if (smooth_target(chooser->plan, group->consumers[k].tensor))
                total += plan_tensor(chooser->plan, group->consumers[k].tensor)->nbytes * group->consumers[k].n_mats /
                         size_max(1, chooser->plan->entries[group->consumers[k].tensor].shape.n_matrices);
    }
    return total;
}

enum status smooth_choose_all(struct app *app, struct plan *plan, const struct smooth_options *options, struct choice *choices, size_t n,
                              struct err *err)
{
    bool any = false;
    for (size_t i = 0; i < n; i++) any |= choices[i].outcome->fate != SMOOTH_LEFT;
    if (!any) return OK;
    const unsigned n_workers = (unsigned)size_max(1, size_min(plan->n_threads_asked, plan->max_ram / WORKER_NBYTES));
    struct chooser chooser = { app, plan, options, choices, n, calloc(n_workers, sizeof *chooser.readers), NULL };
    enum status status = chooser.readers ? OK : err_set(err, ERR_MEMORY, "out of memory");
    for (unsigned w = 0; w < n_workers && !status; w++) status = weights_reader_open(plan->container, &chooser.readers[w], err);
    if (!status) {
        struct job_list list = { n, is_job, 1, n_workers, app->stop, job, NULL, &chooser, NULL };
        chooser.progress = progress_open(app, "smooth", total_nbytes(&chooser));
        status = jobs_run(&list, err);
        progress_close(chooser.progress);
    }
    for (unsigned w = 0; chooser.readers && w < n_workers; w++) weights_reader_close(&chooser.readers[w]);
    free(chooser.readers);
    return status;
}
