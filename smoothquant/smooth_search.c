/* smooth_search.c: see smooth_search.h.
 *
 * Drawing: grid -> candidates -> engine -> members' losses -> criterion -> refined candidates -> .. -> identity?
 * Why this way: the table of losses is whole before anything is chosen, so reports can show it and every criterion reads the same one.
 * Corner cases: see smooth_search.h; alphas beside the best that leave the grid's ends are not tried; one that was tried is not tried again.
 * Reference: see smooth_search.h. Worked number: 0 .. 1 by .05: 21 alphas; refined twice: at most 4 more.
 */
#include "smoothquant/smooth_search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "smoothquant/smooth_engine.h"

#define REFINE_MAX 8u
#define DECIMALS_MAX 6

static const char *const loss_names[SMOOTH_LOSS_COUNT] = { "diag", "gram", "sample", "w8a8" };
static const char *const criterion_names[SMOOTH_CRITERION_COUNT] = { "joint", "mean", "min", "max" };

static size_t find_name(const char *const *names, size_t n, const char *name)
{
    size_t i = 0;
    while (i < n && strcmp(names[i], name) != 0) i++;
    return i;
}

const char *smooth_loss_name(enum smooth_loss loss)
{
    return loss_names[loss];
}

enum smooth_loss smooth_loss_find(const char *name)
{
    return (enum smooth_loss)find_name(loss_names, SMOOTH_LOSS_COUNT, name);
}

enum smooth_criterion smooth_criterion_find(const char *name)
{
    return (enum smooth_criterion)find_name(criterion_names, SMOOTH_CRITERION_COUNT, name);
}

struct smooth_settings smooth_settings_default(void)
{
    return (struct smooth_settings){ .families = { [SMOOTH_SQ] = true },
                                     .alpha_max = 1.0,
                                     .alpha_step = 0.05,
                                     .criterion = SMOOTH_JOINT,
                                     .loss = SMOOTH_LOSS_DIAG,
                                     .power = 0.5,
                                     .refuse_worse = true };
}

/* ---- grid ----------------------------------------------------------------------------------------------------------------------- */

/* value to so many decimals, as their nearest binary64. */
static double rounded(double value, int decimals)
{
    double unit = 1.0;
    for (int i = 0; i < decimals; i++) unit *= 10.0;
    return floor(value * unit + 0.5) / unit;
}

static int decimals_of(double value)
{
    int decimals = 0;
    while (decimals < DECIMALS_MAX && fabs(rounded(value, decimals) - value) > 1e-9) decimals++;
    return decimals;
}

enum status smooth_grid(double alpha_min, double alpha_max, double alpha_step, double *alphas, size_t *n, struct err *err)
{
    *n = 0;
    if (!(alpha_min >= 0.0 && alpha_min <= alpha_max && alpha_max <= 1.0))
        return err_set(err, ERR_USAGE, "alphas from %g to %g: wanted 0 <= from <= to <= 1", alpha_min, alpha_max);
    if (!(alpha_step >= 1e-6)) return err_set(err, ERR_USAGE, "a step of alphas of %g: wanted at least 0.000001", alpha_step);
    const int a = decimals_of(alpha_step), b = decimals_of(alpha_min), decimals = a > b ? a : b;
    for (size_t i = 0;; i++) {
        const double alpha = rounded(alpha_min + (double)i * alpha_step, decimals);
        if (alpha > alpha_max + 1e-9) return OK;
        if (i == SMOOTH_ALPHAS_MAX) return err_set(err, ERR_USAGE, "more than %u alphas from %g to %g", SMOOTH_ALPHAS_MAX, alpha_min, alpha_max);
        alphas[(*n)++] = alpha;
    }
}

/* ---- criteria ------------------------------------------------------------------------------------------------------------------- */

/* Number of the least finite loss, n when there is none. */
static size_t least_of(const double *losses, size_t n)
{
    size_t best = n;
    for (size_t i = 0; i < n; i++)
        if (losses[i] <= HUGE_VAL && isfinite(losses[i]) && (best == n || losses[i] < losses[best])) best = i;
    return best;
}

static size_t pick_by_sum(const double *losses, size_t stride, size_t n_members, const bool *counts, const double *norms, size_t n)
{
    size_t best = n;
    double least = 0.0;
    for (size_t i = 0; i < n; i++) {
        double sum = 0.0;
        for (size_t m = 0; m < n_members; m++)
            if (!counts || counts[m]) sum += norms ? losses[m * stride + i] / norms[m] : losses[m * stride + i];
        if (!isfinite(sum) || (best < n && !(sum < least))) continue;
        best = i;
        least = sum;
    }
    return best;
}

size_t smooth_criterion_pick(enum smooth_criterion criterion, const double *losses, size_t stride, size_t n_members, const bool *counts,
                             const double *norms, const double *alphas, size_t n)
{
    size_t best = n;
    if (criterion == SMOOTH_JOINT || criterion == SMOOTH_MEAN)
        return pick_by_sum(losses, stride, n_members, counts, criterion == SMOOTH_MEAN ? norms : NULL, n);
    for (size_t m = 0; m < n_members; m++) {
        const size_t own = counts && !counts[m] ? n : least_of(losses + m * stride, n);
        if (own == n) continue;
        const bool better = best < n && (criterion == SMOOTH_MIN ? alphas[own] < alphas[best] : alphas[own] > alphas[best]);
        if (best == n || better) best = own;
    }
    return best;
}

/* ---- the search ----------------------------------------------------------------------------------------------------------------- */

struct search {
    struct engine engine;
    struct smooth_channels channels; /* with wmean */
    struct smooth_result *result;
    size_t stride; /* candidates there is room for */
    float *s; /* [n] */
    double *norms; /* [n_members], or NULL */
    bool *counts; /* [n_members] */
    double *alphas; /* [stride] */
    float *wmean;
};

static enum status make_wmean(struct search *search, struct err *err)
{
    const struct smooth_problem *problem = search->engine.problem;
    const size_t n = (size_t)problem->channels.n;
    uint64_t n_rows = 0;
    search->channels = problem->channels;
    if (!search->engine.settings->families[SMOOTH_DUO] || problem->channels.wmean) return OK;
    double *sum = calloc(n + 1, sizeof *sum);
    search->wmean = calloc(n + 1, sizeof *search->wmean);
    if (!sum || !search->wmean) {
        free(sum);
        return err_set(err, ERR_MEMORY, "out of memory for %zu channels", n);
    }
    for (size_t m = 0; m < problem->n_members; m++) {
        const struct smooth_member *member = &problem->members[m];
        if (!member->w) continue;
        smooth_wmean_add(member->w, member->n_rows, n, member->quant ? member->quant->group : 0, sum);
        n_rows += member->n_rows;
    }
    for (size_t j = 0; j < n && n_rows; j++) search->wmean[j] = (float)(sum[j] / (double)n_rows);
    search->channels.wmean = search->wmean;
    free(sum);
    return OK;
}

/* Sum of members' losses of candidate i, in order. */
static double joint_of(const struct search *search, size_t i)
{
    double sum = 0.0;
    for (size_t m = 0; m < search->result->n_members; m++)
        if (search->counts[m]) sum += search->result->losses[m * search->stride + i];
    return sum;
}

/* Losses of candidates first .. result->n_candidates - 1. */
static enum status judge_from(struct search *search, size_t first, struct err *err)
{
    struct smooth_result *result = search->result;
    struct engine *engine = &search->engine;
    enum status status = OK;
    for (size_t i = first; i < result->n_candidates && status == OK; i++) {
        struct smooth_candidate *candidate = &result->candidates[i];
        struct smooth_scale_report report = { 0 };
        if (!candidate->identity) status = smooth_scales(&search->channels, candidate->family, candidate->alpha, search->s, &report, err);
        if (status != OK) return status;
        candidate->n_clipped = report.n_clipped;
        candidate->n_dead = report.n_dead;
        status = engine_add(engine, candidate->identity ? NULL : search->s, false, err);
        if (engine_is_full(engine) || i + 1 == result->n_candidates) engine_flush(engine, result->losses + i + 1 - engine->n_views, search->stride);
    }
    for (size_t i = first; i < result->n_candidates; i++) result->candidates[i].loss = joint_of(search, i);
    return status;
}

static void add_candidate(struct search *search, enum smooth_family family, double alpha)
{
    struct smooth_result *result = search->result;
    for (size_t i = 1; i < result->n_candidates; i++)
        if (result->candidates[i].family == family && result->candidates[i].alpha == alpha) return;
    search->alphas[result->n_candidates] = alpha;
    result->candidates[result->n_candidates++] = (struct smooth_candidate){ .family = family, .alpha = alpha };
}

/* What the criterion takes, identity left out; 0 when it takes nothing. */
static size_t pick(const struct search *search)
{
    const struct smooth_result *result = search->result;
    const size_t n = result->n_candidates - 1;
    const size_t at = smooth_criterion_pick(search->engine.settings->criterion, result->losses + 1, search->stride, result->n_members, search->counts,
                                            search->norms, search->alphas + 1, n);
    return at == n ? 0 : at + 1;
}

/* Halves the step around the best alpha. */
static enum status refine(struct search *search, struct err *err)
{
    const struct smooth_settings *settings = search->engine.settings;
    double step = settings->alpha_step;
    enum status status = OK;
    for (uint32_t i = 0; i < settings->refine && status == OK; i++) {
        const size_t best = pick(search), first = search->result->n_candidates;
        if (best == 0) return OK;
        const struct smooth_candidate center = search->result->candidates[best];
        step /= 2.0;
        const double below = rounded(center.alpha - step, 9), above = rounded(center.alpha + step, 9);
        if (below >= settings->alpha_min) add_candidate(search, center.family, below);
        if (above <= settings->alpha_max) add_candidate(search, center.family, above);
        status = judge_from(search, first, err);
    }
    return status;
}

static enum status find_norms(struct search *search, struct err *err)
{
    struct engine *engine = &search->engine;
    if (engine->settings->criterion != SMOOTH_MEAN || engine->settings->loss == SMOOTH_LOSS_W8A8) return OK;
    search->norms = calloc(search->result->n_members + 1, sizeof *search->norms);
    if (!search->norms) return err_set(err, ERR_MEMORY, "out of memory");
    enum status status = engine_add(engine, NULL, true, err);
    if (status != OK) return status;
    engine_flush(engine, search->norms, 1);
    for (size_t m = 0; m < search->result->n_members; m++) search->norms[m] = search->norms[m] > 0.0 ? search->norms[m] : 1.0;
    return OK;
}

static enum status make_table(struct search *search, struct err *err)
{
    const struct smooth_problem *problem = search->engine.problem;
    const struct smooth_settings *settings = search->engine.settings;
    struct smooth_result *result = search->result;
    double *grid = calloc(SMOOTH_ALPHAS_MAX + 1, sizeof *grid);
    size_t n_grid = 0, n_families = 0;
    if (!grid) return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t f = 0; f < SMOOTH_FAMILY_COUNT; f++) n_families += settings->families[f];
    enum status status = n_families ? smooth_grid(settings->alpha_min, settings->alpha_max, settings->alpha_step, grid, &n_grid, err) : OK;
    search->stride = 1 + n_families * n_grid + 2 * (size_t)settings->refine;
    if (status == OK) {
        result->n_members = problem->n_members;
        result->candidates = calloc(search->stride, sizeof *result->candidates);
        result->losses = calloc(problem->n_members * search->stride + 1, sizeof *result->losses);
        result->s = malloc(((size_t)problem->channels.n + 1) * sizeof *result->s);
        search->alphas = calloc(search->stride, sizeof *search->alphas);
        search->counts = calloc(problem->n_members + 1, sizeof *search->counts);
        search->s = calloc((size_t)problem->channels.n + 1, sizeof *search->s);
        if (!result->candidates || !result->losses || !result->s || !search->alphas || !search->counts || !search->s)
            status = err_set(err, ERR_MEMORY, "out of memory for %zu candidates", search->stride);
    }
    if (status == OK) {
        for (size_t m = 0; m < problem->n_members; m++) search->counts[m] = problem->members[m].quant != NULL;
        result->candidates[0].identity = true;
        result->n_candidates = 1;
        for (size_t f = 0; f < SMOOTH_FAMILY_COUNT; f++)
            for (size_t i = 0; settings->families[f] && i < n_grid; i++) add_candidate(search, (enum smooth_family)f, grid[i]);
    }
    free(grid);
    return status;
}

/* The criterion's choice, or identity where that costs no more. */
static enum status conclude(struct search *search, struct err *err)
{
    struct smooth_result *result = search->result;
    const struct smooth_settings *settings = search->engine.settings;
    size_t best = pick(search);
    result->identity_loss = result->candidates[0].loss;
    if (best && settings->refuse_worse && !(result->candidates[best].loss < result->identity_loss)) {
        result->fell_back = result->candidates[best].loss > result->identity_loss;
        best = 0;
    }
    result->best = best;
    result->loss = result->candidates[best].loss;
    if (best)
        return smooth_scales(&search->channels, result->candidates[best].family, result->candidates[best].alpha, result->s, &result->report, err);
    for (uint64_t j = 0; j < search->channels.n; j++) result->s[j] = 1.0f;
    return OK;
}

/* Makes losses[m][candidate] dense. */
static void pack_losses(struct search *search)
{
    struct smooth_result *result = search->result;
    for (size_t m = 0; m < result->n_members; m++)
        memmove(result->losses + m * result->n_candidates, result->losses + m * search->stride, result->n_candidates * sizeof *result->losses);
}

enum status smooth_search(const struct smooth_problem *problem, const struct smooth_settings *settings, unsigned n_workers,
                          struct smooth_result *result, struct err *err)
{
    struct search search = { .result = result };
    *result = (struct smooth_result){ 0 };
    if (settings->refine > REFINE_MAX) return err_set(err, ERR_USAGE, "a grid refined %u times: at most %u", settings->refine, REFINE_MAX);
    enum status status = engine_open(problem, settings, n_workers, &search.engine, err);
    if (status == OK) status = make_wmean(&search, err);
    if (status == OK) status = make_table(&search, err);
    if (status == OK) status = find_norms(&search, err);
    if (status == OK) status = judge_from(&search, 0, err);
    if (status == OK) status = refine(&search, err);
    if (status == OK) status = conclude(&search, err);
    if (status == OK) pack_losses(&search);
    engine_close(&search.engine);
    free(search.s);
    free(search.norms);
    free(search.counts);
    free(search.alphas);
    free(search.wmean);
    return status;
}

void smooth_result_free(struct smooth_result *result)
{
    free(result->s);
    free(result->candidates);
    free(result->losses);
    *result = (struct smooth_result){ 0 };
}

enum status smooth_judge(const struct smooth_problem *problem, const struct smooth_settings *settings, const float *s, unsigned n_workers,
                         double *losses, double *joint, struct err *err)
{
    struct engine engine;
    *joint = 0.0;
    double *own = calloc(problem->n_members + 1, sizeof *own);
    if (!own) return err_set(err, ERR_MEMORY, "out of memory");
    enum status status = engine_open(problem, settings, n_workers, &engine, err);
    if (status == OK) status = engine_add(&engine, s, false, err);
    if (status == OK) engine_flush(&engine, own, 1);
    for (size_t m = 0; m < problem->n_members && status == OK; m++) {
        if (losses) losses[m] = own[m];
        *joint += own[m];
    }
    engine_close(&engine);
    free(own);
    return status;
}
