/* cmd_sweep.c: the command sweep: a model in many formats, measured in one read, as CSV, JSON, a report, and a few lines on stdout.
 *
 * Drawing: settings -> sweep_run -> outputs (all or none) -> the state file is removed.
 * Why this way: outputs appear whole, so the state of an interrupted run is the only thing that is half done.
 * Corner cases: "-" is stdout, for one output; without any, only the lines for people are printed, and an interrupted run cannot go on; existing files
 * need --force, and are refused before the work, not after it.
 * Reference: SWEEP.md. Example: llmq sweep --in MODEL --formats int4,mxfp4 --group-sizes 32,64 --csv sweep.csv.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "converter/app.h"
#include "converter/report_html.h"
#include "converter/sweep.h"
#include "converter/sweep_write.h"

struct output {
    enum setting_id id;
    enum status (*write)(struct sweep_sink *sink, const struct sweep_table *table, struct err *err);
};

/* Its sink is always a file. */
static enum status write_report(struct sweep_sink *sink, const struct sweep_table *table, struct err *err)
{
    return report_html_put(sink->file, table, err);
}

static const struct output outputs[] = { { SET_CSV, sweep_write_csv }, { SET_SWEEP_JSON, sweep_write_json }, { SET_REPORT, write_report } };

enum { N_OUTPUTS = sizeof outputs / sizeof outputs[0] };

static const char *path_of(const struct app *app, size_t i)
{
    return settings_given(&app->settings, outputs[i].id) ? settings_text(&app->settings, outputs[i].id) : NULL;
}

static bool is_stdout(const char *path)
{
    return path && strcmp(path, "-") == 0;
}

static enum status check_outputs(const struct app *app, struct err *err)
{
    size_t n_stdout = 0;
    for (size_t i = 0; i < N_OUTPUTS; i++) {
        const char *path = path_of(app, i);
        n_stdout += is_stdout(path);
        if (is_stdout(path) && outputs[i].id == SET_REPORT)
            return err_set(err, ERR_USAGE, "--report needs a file; only --csv and --json can go to stdout");
        if (path && !is_stdout(path) && !settings_flag(&app->settings, SET_FORCE) && path_exists(path))
            return err_set(err, ERR_EXISTS, "'%s' exists; use --force to replace it", path);
        for (size_t k = 0; k < i; k++)
            if (path && path_of(app, k) && !is_stdout(path) && strcmp(path, path_of(app, k)) == 0)
                return err_set(err, ERR_USAGE, "--%s and --%s are the same file", settings_table[outputs[k].id].name,
                               settings_table[outputs[i].id].name);
    }
    return n_stdout > 1 ? err_set(err, ERR_USAGE, "only one output can go to stdout") : OK;
}

/* Beside the first output that is a file; NULL: there is none. */
static enum status make_state_path(const struct app *app, char **path, struct err *err)
{
    *path = NULL;
    for (size_t i = 0; i < N_OUTPUTS && !*path; i++) {
        const char *out = path_of(app, i);
        if (!out || is_stdout(out)) continue;
        *path = malloc(strlen(out) + 8);
        if (!*path) return err_set(err, ERR_MEMORY, "out of memory");
        snprintf(*path, strlen(out) + 8, "%s.state", out);
    }
    if (!*path && settings_flag(&app->settings, SET_RESUME))
        return err_set(err, ERR_USAGE, "--resume needs the --csv, --json or --report of the run that was interrupted");
    return OK;
}

static enum status read_sample(const struct app *app, double *sample, struct err *err)
{
    const char *text = settings_given(&app->settings, SET_SAMPLE) ? settings_text(&app->settings, SET_SAMPLE) : "1";
    char *end;
    *sample = strtod(text, &end);
    if (*end || strspn(text, "0123456789.") != strlen(text) || !(*sample > 0.0 && *sample <= 1.0))
        return err_set(err, ERR_USAGE, "--sample '%s' is no share above 0 and up to 1", text);
    return OK;
}

static const char *given(const struct app *app, enum setting_id id)
{
    return settings_given(&app->settings, id) ? settings_text(&app->settings, id) : NULL;
}

static enum status write_one(struct outset *set, const char *path, const struct output *output, const struct sweep_table *table, struct err *err)
{
    struct sweep_sink sink = { .stream = stdout };
    enum status status = is_stdout(path) ? OK : outset_add(set, path, &sink.file, err);
    return status ? status : output->write(&sink, table, err);
}

static enum status write_all(const struct app *app, const struct sweep_table *table, struct err *err)
{
    struct outset *set = NULL;
    enum status status = outset_open(app->io, settings_flag(&app->settings, SET_FORCE), &set, err);
    for (size_t i = 0; i < N_OUTPUTS && !status; i++)
        if (path_of(app, i)) status = write_one(set, path_of(app, i), &outputs[i], table, err);
    if (!status) status = outset_commit(set, err);
    outset_close(set);
    return status;
}

static void note_skipped(const struct app *app, const struct sweep_table *table)
{
    for (size_t v = 0; v < table->n_variants; v++)
        if (table->variants[v].skipped)
            app_note(app, "skipped %s, group size %s, scale rule %s%s%s: %s", table->variants[v].format, table->variants[v].group_size,
                     table->variants[v].scale_rule, table->variants[v].alpha_text ? ", alpha " : "",
                     table->variants[v].alpha_text ? table->variants[v].alpha_text : "", table->variants[v].skipped);
}

static enum status sweep(struct app *app, const struct sweep_spec *spec, struct err *err)
{
    struct sweep_table table;
    bool to_stdout = false;
    for (size_t i = 0; i < N_OUTPUTS; i++) to_stdout |= is_stdout(path_of(app, i));
    enum status status = sweep_run(app, spec, &table, err);
    if (!status) status = write_all(app, &table, err);
    if (!status) sweep_forget(app, spec);
    if (!status && to_stdout) note_skipped(app, &table);
    if (!status && !to_stdout && !settings_flag(&app->settings, SET_QUIET)) sweep_print(stdout, &table);
    sweep_table_free(&table);
    return status;
}

enum status cmd_sweep(struct app *app, struct err *err)
{
    char *state = NULL;
    struct sweep_spec spec = { .formats = given(app, SET_FORMATS),
                               .group_sizes = given(app, SET_GROUP_SIZES),
                               .scale_rules = given(app, SET_SCALE_RULES),
                               .alphas = given(app, SET_ALPHAS),
                               .tensors = given(app, SET_TENSORS_OF),
                               .eval_text = given(app, SET_EVAL_TEXT),
                               .eval_tokens = given(app, SET_EVAL_TOKENS),
                               .resume = settings_flag(&app->settings, SET_RESUME),
                               .histogram_tensor = given(app, SET_HISTOGRAM) };
    if (app->settings.n_arguments) return err_set(err, ERR_USAGE, "unexpected argument '%s'", app->settings.arguments[0]);
    enum status status = read_sample(app, &spec.sample, err);
    if (!status) status = check_outputs(app, err);
    if (!status) status = make_state_path(app, &state, err);
    spec.state_path = state;
    spec.histograms = settings_given(&app->settings, SET_REPORT) || spec.histogram_tensor;
    if (!status) status = sweep(app, &spec, err);
    free(state);
    return status;
}
