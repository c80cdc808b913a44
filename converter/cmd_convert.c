/* cmd_convert.c: the commands convert and plan: the same plan, executed or printed.
 *
 * Drawing: settings -> recipe -> plan -> (print | pipeline -> report).
 * Why this way: what `plan` says is what `convert` does, because it is the same struct.
 * Corner cases: --quiet leaves out the report unless --json asks for it; the one thing a plan writes is a recipe of migration, when it is asked to.
 * Reference: design.md 1. Example: llmq convert --in model.safetensors --format mxfp4 writes ./model.mxfp4.llmq.
 */
#include "converter/app.h"
#include "converter/budget.h"
#include "converter/convert_report.h"
#include "converter/report.h"
#include "converter/smooth_check.h"
#include "converter/smooth.h"

/* What a plan may write: the recipe of its migration. */
static enum status write_recipes(struct app *app, const struct plan *plan, struct err *err)
{
    struct outset *set = NULL;
    enum status status = outset_open(app->io, settings_flag(&app->settings, SET_FORCE), &set, err);
    for (size_t i = 0; i < plan->container->n_files && !status; i++) status = outset_add_input(set, &plan->container->files[i], err);
    if (!status) status = smooth_write_files(plan, set, err);
    if (!status) status = outset_commit(set, err);
    outset_close(set);
    return status;
}

/* The recipe, or under a bit budget the one that is chosen. */
static enum status open_recipe(struct app *app, struct recipe *recipe, struct budget_report *budget, struct err *err)
{
    static const enum setting_id budgets[] = { SET_CANDIDATES, SET_FREE_FUSED, SET_RECIPE_OUT };
    *budget = (struct budget_report){ 0 };
    if (budget_wanted(app)) return budget_recipe(app, recipe, budget, err);
    for (size_t i = 0; i < sizeof budgets / sizeof budgets[0]; i++)
        if (settings_given(&app->settings, budgets[i]))
            return err_set(err, ERR_USAGE, "--%s needs --target-bpw or --target-size", settings_table[budgets[i]].name);
    return recipe_open(app, recipe, err);
}

enum status cmd_plan(struct app *app, struct err *err)
{
    struct recipe recipe = { 0 };
    struct plan plan = { 0 };
    struct budget_report budget;
    enum status status = open_recipe(app, &recipe, &budget, err);
    if (!status) status = plan_convert(app, &recipe, &plan, err);
    if (!status) status = smooth_check(app, &plan, err);
    if (!status && budget_wanted(app)) plan.budget = &budget;
    if (!status) status = write_recipes(app, &plan, err);
    if (!status && settings_flag(&app->settings, SET_JSON)) report_json(stdout, &plan, NULL);
    else if (!status) report_text(stdout, &plan, NULL);
    plan_close(&plan);
    recipe_close(&recipe);
    budget_report_free(&budget);
    return status;
}

enum status cmd_convert(struct app *app, struct err *err)
{
    struct recipe recipe = { 0 };
    struct plan plan = { 0 };
    struct result result = { 0 };
    struct budget_report budget;
    enum status status = open_recipe(app, &recipe, &budget, err);
    if (!status) status = plan_convert(app, &recipe, &plan, err);
    if (!status) status = smooth_check(app, &plan, err);
    if (!status && budget_wanted(app)) plan.budget = &budget;
    if (!status) status = convert_report_check(app, &plan, err);
    if (!status) status = pipeline_execute(app, &plan, &result, err);
    if (!status) status = convert_report_write(app, &plan, &result, err);
    if (!status && settings_flag(&app->settings, SET_JSON)) report_json(stdout, &plan, &result);
    else if (!status && !settings_flag(&app->settings, SET_QUIET)) report_text(stdout, &plan, &result);
    result_free(&result);
    plan_close(&plan);
    recipe_close(&recipe);
    budget_report_free(&budget);
    return status;
}
