/* budget.c: see budget.h.
 *
 * Drawing: sweep of the candidates -> for each the plan of convert: bytes of every tensor -> items -> solve -> size of the file -> too large? less : more
 * Formula: bits for the solver = 8 (target - what the file of the last choice has beside what it counts); repeated until the choice stands.
 * Why this way: what a file has beside its planes (padding, index, small files) depends a little on the choice; the writer's own plan is asked instead of
 * guessing, and on small models, where padding matters, changes of one or two items are tried as well.
 * Corner cases: the best choice whose file fits counts; every format for all is tried too, so none of these that fits is better; with --compress other than none the
 * size is an upper bound, so the file is never above the target.
 * Reference: budget.h. Worked number: the bundled model at 5 bits a weight: 917920 bytes.
 */
#include "converter/budget.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "base/text.h"
#include "converter/budget_choice.h"
#include "converter/budget_solve.h"
#include "converter/plan.h"
#include "converter/sweep.h"

enum {
    ROUNDS = 24,
    SINGLES_MAX = 1024, /* options of all items up to which changes of one item are tried, */
    PAIRS_MAX = 128 /* and of two */
};

bool budget_wanted(const struct app *app)
{
    return settings_given(&app->settings, SET_TARGET_BPW) || settings_given(&app->settings, SET_TARGET_SIZE);
}

static enum status check_settings(const struct app *app, struct err *err)
{
    static const enum setting_id others[] = { SET_FORMAT, SET_RECIPE, SET_SMOOTH, SET_SMOOTH_RECIPE };
    const char *target = settings_given(&app->settings, SET_TARGET_BPW) ? "target-bpw" : "target-size";
    if (settings_given(&app->settings, SET_TARGET_BPW) && settings_given(&app->settings, SET_TARGET_SIZE))
        return err_set(err, ERR_USAGE, "--target-bpw and --target-size: one of them");
    if (settings_given(&app->settings, SET_SMOOTH) || settings_given(&app->settings, SET_SMOOTH_RECIPE))
        return err_set(err, ERR_USAGE, "--%s measures weights as they are in the file: run llmq smooth first, then convert what it wrote", target);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (settings_given(&app->settings, others[i]))
            return err_set(err, ERR_USAGE, "--%s chooses the formats, so --%s says too much; --candidates lists them, --rule and --keep go before",
                           target, settings_table[others[i]].name);
    return OK;
}

static enum status read_target(const struct app *app, uint64_t n_weights, struct budget_report *report, struct err *err)
{
    if (settings_given(&app->settings, SET_TARGET_SIZE)) {
        report->target_nbytes = settings_number(&app->settings, SET_TARGET_SIZE);
    } else {
        const char *text = settings_text(&app->settings, SET_TARGET_BPW);
        char *end;
        const double bpw = strtod(text, &end);
        if (*end || strspn(text, "0123456789.") != strlen(text) || !(bpw > 0.0 && bpw <= 64.0))
            return err_set(err, ERR_USAGE, "--target-bpw '%s' is no number of bits above 0 and up to 64", text);
        report->target_nbytes = (uint64_t)(bpw * (double)n_weights / 8.0);
    }
    report->target_bpw = n_weights ? 8.0 * (double)report->target_nbytes / (double)n_weights : 0.0;
    return OK;
}

/* ---- the search for the target ------------------------------------------------------------------------------------------------------------ */

struct search {
    struct budget_choice *choice;
    uint64_t target; /* bytes */
    size_t *now, *best; /* choices, one an item */
    uint64_t best_nbytes;
    double best_error, bound;
    uint64_t overhead; /* the least that a choice had beside what the solver counts, bytes */
    uint64_t low, high; /* bits for the solver that fitted, and that did not (UINT64_MAX: none yet) */
    size_t n_tries;
};

/* Size of the choice now; remembers it if it fits and is better. */
static enum status try_now(struct search *search, uint64_t *nbytes, struct err *err)
{
    struct writer_size size;
    enum status status = budget_choice_size(search->choice, search->now, &size, err);
    if (status) return status;
    const uint64_t cost = budget_choice_cost(search->choice, search->now) / 8;
    const double error = budget_choice_error(search->choice, search->now);
    *nbytes = size.nbytes;
    search->n_tries++;
    search->overhead = size_min(search->overhead, size.nbytes > cost ? size.nbytes - cost : 0);
    if (size.nbytes > search->target) return OK;
    if (search->best_nbytes && (error > search->best_error || (error >= search->best_error && size.nbytes >= search->best_nbytes))) return OK;
    memcpy(search->best, search->now, search->choice->n_items * sizeof *search->now);
    search->best_nbytes = size.nbytes;
    search->best_error = error;
    return OK;
}

/* The choice with the fewest bits, which every target must have room for. */
static void least_choice(const struct budget_choice *choice, size_t *choices)
{
    for (size_t i = 0; i < choice->n_items; i++) {
        const struct budget_option *options = choice->items[i].options;
        choices[i] = 0;
        for (size_t k = 1; k < choice->items[i].n_options; k++)
            if (options[k].cost_bits < options[choices[i]].cost_bits ||
                (options[k].cost_bits == options[choices[i]].cost_bits && options[k].error < options[choices[i]].error))
                choices[i] = k;
    }
}

/* The next number of bits after some that made a file of nbytes; 0: there is none worth trying. */
static uint64_t next_bits(struct search *search, uint64_t bits, uint64_t nbytes)
{
    const uint64_t target = search->target;
    uint64_t next;
    if (nbytes <= target) {
        search->low = size_max(search->low, bits);
        next = bits + 8 * (target - nbytes);
        if (next >= search->high) next = search->low + (search->high - search->low) / 2;
        return next > search->low + 64 ? next : 0;
    }
    search->high = size_min(search->high, bits);
    next = bits > 8 * (nbytes - target) ? bits - 8 * (nbytes - target) : 0;
    if (next <= search->low) next = search->low + (search->high - search->low) / 2;
    return next + 64 < search->high ? next : 0;
}

/* By the solver, with as many bits as turn out to fit. */
static enum status solve_rounds(struct search *search, uint64_t bits, struct err *err)
{
    const struct budget_choice *choice = search->choice;
    struct budget_answer answer;
    enum status status = OK;
    for (size_t round = 0; !status && bits && round < ROUNDS; round++) {
        uint64_t nbytes = 0;
        status = budget_solve(choice->items, choice->n_items, bits, search->now, &answer, err);
        if (!status) status = try_now(search, &nbytes, err);
        if (!status) bits = next_bits(search, bits, nbytes);
    }
    return status;
}

/* Tries option k for item i on top of now. */
static enum status try_move(struct search *search, size_t i, size_t k, double *error, struct err *err)
{
    const size_t before = search->now[i];
    uint64_t nbytes;
    search->now[i] = k;
    enum status status = OK;
    if (budget_choice_error(search->choice, search->now) < search->best_error) status = try_now(search, &nbytes, err);
    *error = search->best_error;
    search->now[i] = before;
    return status;
}

/* Changes one item, or two, of the best choice as long as that makes the error less: what the solver's rounded costs did not see. */
static enum status improve(struct search *search, struct err *err)
{
    const struct budget_choice *choice = search->choice;
    const size_t n = choice->n_items, k = choice->n_candidates;
    const bool pairs = n * k <= PAIRS_MAX;
    enum status status = OK;
    for (double before = (double)INFINITY, error; search->best_error < before && !status && n * k <= SINGLES_MAX;) {
        before = search->best_error;
        for (size_t i = 0; i < n * k && !status; i++) {
            memcpy(search->now, search->best, n * sizeof *search->now);
            search->now[i / k] = i % k;
            status = try_move(search, i / k, i % k, &error, err);
            for (size_t j = (i / k + 1) * k; pairs && j < n * k && !status; j++) status = try_move(search, j / k, j % k, &error, err);
        }
    }
    return status;
}

/* What no choice goes below that has as little beside its planes as any that was tried. */
static enum status bound_error(struct search *search, struct err *err)
{
    const struct budget_choice *choice = search->choice;
    struct budget_answer answer;
    const uint64_t most = search->target > search->overhead ? 8 * (search->target - search->overhead) : 0;
    const uint64_t bits = size_max(most, budget_choice_cost(choice, search->best));
    enum status status = budget_solve(choice->items, choice->n_items, bits, search->now, &answer, err);
    search->bound = fmin(answer.bound, search->best_error);
    return status;
}

/* The choice with the fewest bits, and one format for all, whichever: the least file of these is what a target must have room for. */
static enum status try_plain(struct search *search, struct err *err)
{
    const struct budget_choice *choice = search->choice;
    uint64_t nbytes = 0, least = 0;
    least_choice(choice, search->now);
    search->low = budget_choice_cost(choice, search->now);
    enum status status = try_now(search, &least, err);
    for (size_t k = 0; k < choice->n_candidates && !status; k++) {
        for (size_t i = 0; i < choice->n_items; i++) search->now[i] = k;
        status = try_now(search, &nbytes, err);
        least = size_min(least, nbytes);
    }
    if (!status && least > search->target)
        return err_set(err, ERR_USAGE, "the target of %llu bytes is too small: the least the candidates come to is %llu bytes (%.4f bits per weight)",
                       (unsigned long long)search->target, (unsigned long long)least, 8.0 * (double)least / (double)choice->n_weights);
    return status;
}

static enum status search_target(struct search *search, struct err *err)
{
    enum status status = try_plain(search, err);
    const uint64_t room = !status && search->target > search->overhead ? 8 * (search->target - search->overhead) : 0;
    if (!status && room >= search->low) status = solve_rounds(search, room, err);
    if (!status) status = improve(search, err);
    return status ? status : bound_error(search, err);
}

/* ---- what is said and written ---------------------------------------------------------------------------------------------------------- */

static enum status count_uses(const struct budget_choice *choice, const size_t *choices, struct budget_report *report, struct err *err)
{
    report->uses = calloc(choice->n_candidates + 1, sizeof *report->uses);
    if (!report->uses) return err_set(err, ERR_MEMORY, "out of memory");
    report->n_uses = choice->n_candidates;
    for (size_t k = 0; k < choice->n_candidates; k++)
        snprintf(report->uses[k].name, sizeof report->uses[k].name, "%s", choice->candidates[k]->format);
    for (size_t t = 0; t < choice->n_tensors; t++) {
        const struct budget_tensor *tensor = &choice->tensors[t];
        if (tensor->item == SIZE_MAX) continue;
        report->uses[choices[tensor->item]].n_tensors++;
        report->uses[choices[tensor->item]].n_weights += tensor->n_weights;
    }
    return OK;
}

static enum status write_recipe(const struct app *app, const struct text *text, struct err *err)
{
    struct outset *set = NULL;
    struct outfile *file = NULL;
    if (!settings_given(&app->settings, SET_RECIPE_OUT)) return OK;
    enum status status = outset_open(app->io, settings_flag(&app->settings, SET_FORCE), &set, err);
    if (!status) status = outset_add(set, settings_text(&app->settings, SET_RECIPE_OUT), &file, err);
    if (!status) status = outfile_write(file, text->data, text->nbytes, 0, err);
    if (!status) status = outset_commit(set, err);
    outset_close(set);
    return status;
}

/* The recipe, and a last plan of it: its size is what is predicted. */
static enum status make_recipe(struct app *app, const struct text *text, struct recipe *recipe, struct budget_report *report, struct err *err)
{
    struct plan plan = { 0 };
    const char *quiet = app->settings.values[SET_QUIET];
    app->settings.values[SET_QUIET] = "true"; /* notes come with the plan of convert */
    enum status status = recipe_parse(app, text->data, text->nbytes, "budget", recipe, err);
    if (!status) status = plan_convert(app, recipe, &plan, err);
    app->settings.values[SET_QUIET] = quiet;
    report->predicted_nbytes = plan.size.nbytes;
    report->exact_size = plan.size.exact;
    plan_close(&plan);
    recipe_close(recipe); /* it counts what its rules select */
    return status ? status : recipe_parse(app, text->data, text->nbytes, "budget", recipe, err);
}

static enum status finish(struct app *app, const struct search *search, struct recipe *recipe, struct budget_report *report, struct err *err)
{
    const struct budget_choice *choice = search->choice;
    struct text text = text_make(1u << 28);
    report->error = search->best_error;
    report->bound = search->bound;
    report->exact = report->error <= report->bound;
    report->weighted = choice->weighted;
    report->n_items = choice->n_items;
    enum status status = count_uses(choice, search->best, report, err);
    budget_choice_write(choice, search->best, NULL, &text);
    if (!status) status = text_ok(&text, "a recipe", err);
    if (!status) status = make_recipe(app, &text, recipe, report, err);
    report->predicted_bpw = 8.0 * (double)report->predicted_nbytes / (double)choice->n_weights;
    if (!status && report->predicted_nbytes > report->target_nbytes)
        status = err_set(err, ERR_DATA, "the recipe comes to %llu bytes, not to %llu", (unsigned long long)report->predicted_nbytes,
                         (unsigned long long)search->best_nbytes);
    text_reset(&text);
    budget_choice_write(choice, search->best, report, &text);
    if (!status) status = text_ok(&text, "a recipe", err);
    if (!status) status = write_recipe(app, &text, err);
    text_free(&text);
    return status;
}

static enum status choose(struct app *app, struct budget_choice *choice, struct recipe *recipe, struct budget_report *report, struct err *err)
{
    struct search search = { .choice = choice, .high = UINT64_MAX, .overhead = UINT64_MAX };
    enum status status = read_target(app, choice->n_weights, report, err);
    search.target = report->target_nbytes;
    search.now = calloc(choice->n_items + 1, sizeof *search.now);
    search.best = calloc(choice->n_items + 1, sizeof *search.best);
    if (!status && (!search.now || !search.best)) status = err_set(err, ERR_MEMORY, "out of memory");
    if (!status) status = search_target(&search, err);
    if (!status) status = finish(app, &search, recipe, report, err);
    free(search.now);
    free(search.best);
    return status;
}

enum status budget_recipe(struct app *app, struct recipe *recipe, struct budget_report *report, struct err *err)
{
    const struct sweep_spec spec = { .formats = settings_text(&app->settings, SET_CANDIDATES),
                                     .group_sizes = app->settings.values[SET_GROUP_SIZE],
                                     .scale_rules = app->settings.values[SET_SCALE_RULE],
                                     .sample = 1.0 };
    struct sweep_table table = { 0 };
    struct budget_choice choice = { 0 };
    *report = (struct budget_report){ 0 };
    enum status status = check_settings(app, err);
    if (!status && settings_given(&app->settings, SET_RECIPE_OUT) && !settings_flag(&app->settings, SET_FORCE) &&
        path_exists(settings_text(&app->settings, SET_RECIPE_OUT)))
        status = err_set(err, ERR_EXISTS, "'%s' exists; use --force to replace it", settings_text(&app->settings, SET_RECIPE_OUT));
    if (!status) status = sweep_run(app, &spec, &table, err);
    if (!status) status = budget_choice_make(app, &table, &choice, err);
    if (!status) status = choose(app, &choice, recipe, report, err);
    budget_choice_free(&choice);
    sweep_table_free(&table);
    return status;
}

void budget_report_free(struct budget_report *report)
{
    free(report->uses);
    *report = (struct budget_report){ 0 };
}
