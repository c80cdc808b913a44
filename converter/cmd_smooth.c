/* cmd_smooth.c: the command smooth: a checkpoint whose channels are scaled into the layers before, in the types it had, for anyone to quantise.
 *
 * Drawing: settings -> recipe (the format that alphas are meant for) -> plan of kept tensors with factors -> pipeline -> report.
 * Why this way: convert folds on the way; this is the same fold without a quantiser, and its inverse.
 * Corner cases: without --format factors are meant for int4 in groups of 128; --inverse needs no format.
 * Reference: smooth.h. Example: llmq smooth --in model --smooth stats.safetensors --out smoothed --smooth-recipe-out r.json.
 */
#include "converter/app.h"
#include "converter/report.h"
#include "converter/smooth_check.h"

enum status cmd_smooth(struct app *app, struct err *err)
{
    struct settings *settings = &app->settings;
    struct recipe recipe;
    struct plan plan = { 0 };
    struct result result = { 0 };
    if (!settings_given(settings, SET_FORMAT) && !settings_given(settings, SET_RECIPE) && settings->n_rules == 0)
        settings->values[SET_FORMAT] = settings_given(settings, SET_GROUP_SIZE) ? "int4" : "int4:group=128";
    enum status status = recipe_open(app, &recipe, err);
    if (status) return status;
    status = plan_smooth_only(app, &recipe, &plan, err);
    if (!status) status = smooth_check(app, &plan, err);
    if (!status) status = pipeline_execute(app, &plan, &result, err);
    if (!status && settings_flag(settings, SET_JSON)) report_json(stdout, &plan, &result);
    else if (!status && !settings_flag(settings, SET_QUIET)) report_text(stdout, &plan, &result);
    result_free(&result);
    plan_close(&plan);
    recipe_close(&recipe);
    return status;
}
