/* cmd_eval.c: the command eval: perplexity of a model on a text, and how far its predictions are from another's.
 *
 *   llmq eval --in x.int4.llmq --against MODEL --text FILE     perplexity 6.21 (MODEL: 6.04), KL 0.031, top-1 agreement 93.1 %
 *
 * Why this way: everything is in smoothquant/eval.c; --against is the reference, p of the KL divergence.
 * Corner cases: bits per byte are known for texts only; --json gives one object with the numbers at its top.
 * Reference: smoothquant/eval.h. Worked number: perplexity 4.3594 on 20034 tokens: 1.4723 nats a token.
 */
#include <math.h>
#include <string.h>

#include "converter/live_model.h"
#include "converter/print.h"
#include "smoothquant/eval.h"

static void add_progress(void *context, uint64_t n)
{
    progress_add(context, n);
}

static void json_member(const char *name, double value)
{
    if (isnan(value)) return;
    printf(",\"%s\":", name);
    print_json_number(stdout, value);
}

static void print_json(const struct app *app, const struct eval_result *r, const char *gemm)
{
    printf("{\"in\":");
    print_json_string(stdout, settings_text(&app->settings, SET_IN));
    if (settings_given(&app->settings, SET_AGAINST)) {
        printf(",\"against\":");
        print_json_string(stdout, settings_text(&app->settings, SET_AGAINST));
    }
    printf(",\"tokens\":%llu,\"windows\":%llu,\"seq\":%llu", (unsigned long long)r->n_tokens, (unsigned long long)r->n_windows,
           (unsigned long long)settings_number(&app->settings, SET_SEQ));
    json_member("perplexity", r->perplexity);
    json_member("bits_per_byte", r->bits_per_byte);
    json_member("perplexity_against", r->reference_perplexity);
    json_member("kl_mean", r->kl_mean);
    json_member("kl_p99", r->kl_p99);
    json_member("kl_max", r->kl_max);
    json_member("top1", r->top1);
    printf(",\"gemm\":\"%s\"}\n", gemm);
}

static void print_text(const struct eval_result *r)
{
    printf("perplexity %.6g on %llu tokens in %llu windows", r->perplexity, (unsigned long long)r->n_tokens, (unsigned long long)r->n_windows);
    if (!isnan(r->bits_per_byte)) printf(", %.5g bits a byte", r->bits_per_byte);
    printf("\n");
    if (isnan(r->kl_mean)) return;
    printf("against: perplexity %.6g, KL divergence mean %.4g, 99 %% %.4g, largest %.4g nats, same top token %.3f %%\n", r->reference_perplexity,
           r->kl_mean, r->kl_p99, r->kl_max, 100.0 * r->top1);
}

/* ---- logits as a file -------------------------------------------------------------------------------------------------------------- */

enum { NPY_HEAD = 128 };

struct logits_file {
    struct outset *set;
    struct outfile *file;
    uint64_t vocab;
};

static enum status logits_open(struct app *app, const struct live_model *live, struct logits_file *logits, struct err *err)
{
    logits->vocab = live->model->vocab;
    enum status status = outset_open(app->io, settings_flag(&app->settings, SET_FORCE), &logits->set, err);
    return status == OK ? outset_add(logits->set, settings_text(&app->settings, SET_LOGITS), &logits->file, err) : status;
}

static enum status logits_add(void *context, uint64_t row, size_t n_rows, size_t first, size_t n, const float *x, struct err *err)
{
    const struct logits_file *logits = context;
    enum status status = OK;
    for (size_t t = 0; t < n_rows && status == OK; t++)
        status = outfile_write(logits->file, x + t * n, n * sizeof *x, NPY_HEAD + ((row + t) * logits->vocab + first) * sizeof *x, err);
    return status;
}

static enum status logits_close(struct logits_file *logits, uint64_t n_rows, struct err *err)
{
    char head[NPY_HEAD + 1];
    memcpy(head, "\x93NUMPY\x01\x00\x76\x00", 10);
    int n = snprintf(head + 10, sizeof head - 10, "{'descr': '<f4', 'fortran_order': False, 'shape': (%llu, %llu), }", (unsigned long long)n_rows,
                     (unsigned long long)logits->vocab);
    memset(head + 10 + n, ' ', (size_t)(NPY_HEAD - 10 - n));
    head[NPY_HEAD - 1] = '\n';
    enum status status = outfile_write(logits->file, head, NPY_HEAD, 0, err);
    return status == OK ? outset_commit(logits->set, err) : status;
}

/* ---- the command ------------------------------------------------------------------------------------------------------------------- */

/* Tokens in the windows, counted before they are made. */
static uint64_t tokens_of(const struct token_docs *docs)
{
    return docs->starts[docs->n_docs];
}

static enum status judge(struct app *app, const struct live_model *live, const struct live_model *against, const struct token_docs *docs,
                         size_t n_lead, struct err *err)
{
    struct logits_file logits = { 0 };
    const bool writes = settings_given(&app->settings, SET_LOGITS);
    const size_t n_layers = live->model->n_layers + (against->model ? against->model->n_layers : 0);
    const struct gemm gemm = live_gemm(app);
    struct progress *progress = progress_open_count(app, "eval", tokens_of(docs) * n_layers, n_layers, "tokens");
    const struct eval_options options = { .io = app->io,
                                          .gemm = gemm,
                                          .n_workers = live_workers(app),
                                          .max_ram = live_max_ram(app),
                                          .stop = app->stop,
                                          .spill_dir = live_spill_dir(),
                                          .seq = (size_t)settings_number(&app->settings, SET_SEQ),
                                          .n_lead = n_lead,
                                          .progress = add_progress,
                                          .context = progress,
                                          .logits = writes ? logits_add : NULL,
                                          .logits_context = &logits };
    const struct eval_model model = { live->model, weight_source_container(live->container) };
    const struct eval_model reference = { against->model, weight_source_container(against->container) };
    struct eval *eval = NULL;
    struct eval_result result;
    enum status status = writes ? logits_open(app, live, &logits, err) : OK;
    if (status == OK) status = eval_open(&options, docs, against->model ? &reference : NULL, &eval, err);
    if (status == OK) status = eval_judge(eval, &model, &result, err);
    if (status == OK && writes) status = logits_close(&logits, eval_tokens(eval), err);
    outset_close(logits.set);
    eval_close(eval);
    progress_close(progress);
    if (status != OK) return status;
    if (settings_flag(&app->settings, SET_JSON)) print_json(app, &result, gemm.name);
    else print_text(&result);
    return OK;
}

enum status cmd_eval(struct app *app, struct err *err)
{
    struct live_model live = { 0 }, against = { 0 };
    struct token_docs docs = { 0 };
    size_t n_lead = 0;
    if (app->settings.n_arguments) return err_set(err, ERR_USAGE, "unexpected argument '%s'", app->settings.arguments[0]);
    if (!settings_given(&app->settings, SET_IN)) return err_set(err, ERR_USAGE, "which model? --in MODEL");
    enum status status = live_model_open(app, settings_text(&app->settings, SET_IN), &live, err);
    if (status == OK && settings_given(&app->settings, SET_AGAINST))
        status = live_model_open(app, settings_text(&app->settings, SET_AGAINST), &against, err);
    if (status == OK) status = live_model_tokens(app, &live, &docs, &n_lead, err);
    if (status == OK) status = judge(app, &live, &against, &docs, n_lead, err);
    if (status == OK) status = container_check_unchanged(live.container, err);
    tokens_free(&docs);
    live_model_close(&live);
    live_model_close(&against);
    return status;
}
