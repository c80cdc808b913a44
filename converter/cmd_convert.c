/* cmd_convert.c: the commands convert and plan: the same plan, executed or printed.
 *
 * Drawing: settings -> recipe -> plan -> (print | pipeline -> report).
 * Why this way: what `plan` says is what `convert` does, because it is the same struct.
 * Corner cases: --quiet leaves out the report unless --json asks for it.
 * Reference: design.md 1. Example: llmq convert --in model.safetensors --format mxfp4 writes ./model.mxfp4.llmq.
 */
#include "converter/app.h"
#include "converter/report.h"

enum status cmd_plan(struct app *app, struct err *err)
{
    struct recipe recipe;
    struct plan plan = { 0 };
    enum status status = recipe_open(app, &recipe, err);
    if (status) return status;
    status = plan_convert(app, &recipe, &plan, err);
    if (!status && settings_flag(&app->settings, SET_JSON)) report_json(stdout, &plan, NULL);
    else if (!status) report_text(stdout, &plan, NULL);
    plan_close(&plan);
    recipe_close(&recipe);
    return status;
}

enum status cmd_convert(struct app *app, struct err *err)
{
    struct recipe recipe;
    struct plan plan = { 0 };
    struct result result = { 0 };
    enum status status = recipe_open(app, &recipe, err);
    if (status) return status;
    status = plan_convert(app, &recipe, &plan, err);
    if (!status) status = pipeline_execute(app, &plan, &result, err);
    if (!status && settings_flag(&app->settings, SET_JSON)) report_json(stdout, &plan, &result);
    else if (!status && !settings_flag(&app->settings, SET_QUIET)) report_text(stdout, &plan, &result);
    result_free(&result);
    plan_close(&plan);
    recipe_close(&recipe);
    return status;
}
