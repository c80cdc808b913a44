/* cmd_calibrate.c: the command calibrate: activation statistics of a model on a text, on token ids, or on what it writes itself.
 *
 *   llmq calibrate --in MODEL --text FILE --samples 32 --seq 512 --out stats.safetensors | imatrix.gguf | imatrix.dat
 *
 * Drawing: tokens -> windows -> calibrate_run (layer by layer; OUT.resume.safetensors after each) -> statistics -> --out by its ending.
 * Why this way: the pass is in smoothquant/; here are the options, the names of the files and what is said.
 * Corner cases: an interrupted run keeps its state and says how to go on; --sequential quantises what a conversion to that format would by default; kinds
 * that other tools read get GGUF names.
 * Reference: smoothquant/calibrate.h, STATS.md. Worked number: 32 windows of 512 tokens.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "converter/live_model.h"
#include "converter/print.h"
#include "converter/statistics.h"
#include "converter/version.h"
#include "smoothquant/calibrate.h"
#include "smoothquant/forward_quantised.h"
#include "smoothquant/forward_sample.h"
#include "smoothquant/name_map.h"
#include "smoothquant/stats_kind.h"
#include "smoothquant/stats_names.h"

struct job {
    struct live_model live;
    struct token_docs docs;
    struct windows windows;
    struct quant quant;
    struct quantised_weights *quantised; /* NULL: not sequential */
    struct weight_source source, stream;
    struct calibrate_options options;
    char *state;
    char key[DIGEST128_HEX], model_digest[DIGEST128_HEX], data_digest[DIGEST128_HEX];
    struct stats_set *set;
    double seconds;
    struct gemm gemm;
};

/* ---- options ----------------------------------------------------------------------------------------------------------------------- */

/* --collect hist,gram,sample=256 */
static enum status parse_collect(const struct app *app, struct calibrate_options *options, struct err *err)
{
    const char *at = settings_text(&app->settings, SET_COLLECT);
    while (at && *at) {
        const size_t n = strcspn(at, ",");
        char *end = NULL;
        const unsigned long long rows = n > 7 && strncmp(at, "sample=", 7) == 0 ? strtoull(at + 7, &end, 10) : 0;
        if (n == 4 && strncmp(at, "hist", 4) == 0) options->hist = true;
        else if (n == 4 && strncmp(at, "gram", 4) == 0) options->gram = true;
        else if (end == at + n && rows >= 1 && rows <= 1 << 20) options->n_sample = rows;
        else return err_set(err, ERR_USAGE, "--collect '%s' is not made of hist, gram and sample=N", settings_text(&app->settings, SET_COLLECT));
        at += n + (at[n] == ',');
    }
    return OK;
}

static enum status check_options(const struct app *app, struct err *err)
{
    const struct settings *s = &app->settings;
    char shown[129];
    const bool sources[] = { settings_given(s, SET_TEXT), settings_given(s, SET_TOKENS), settings_given(s, SET_SELF) };
    if (s->n_arguments) return err_set(err, ERR_USAGE, "unexpected argument '%s'", s->arguments[0]);
    if (!settings_given(s, SET_IN)) return err_set(err, ERR_USAGE, "which model? --in MODEL");
    if (!settings_given(s, SET_OUT)) return err_set(err, ERR_USAGE, "where to? --out FILE.safetensors, FILE.gguf or FILE.dat");
    if (!stats_kind_of_path(settings_text(s, SET_OUT)))
        return err_set(err, ERR_USAGE, "--out '%s' ends in none of .safetensors, .gguf, .dat", show_name(settings_text(s, SET_OUT), shown, 128));
    if (sources[0] + sources[1] + sources[2] != 1) return err_set(err, ERR_USAGE, "on which tokens? one of --text FILE, --tokens FILE, --self NxL");
    if (path_exists(settings_text(s, SET_OUT)) && !settings_flag(s, SET_FORCE))
        return err_set(err, ERR_EXISTS, "'%s' exists; use --force to replace it", show_name(settings_text(s, SET_OUT), shown, 128));
    return OK;
}

/* ---- who is who -------------------------------------------------------------------------------------------------------------------- */

static void add_text(struct digest_stream *stream, const char *text)
{
    digest_add(stream, text, strlen(text) + 1);
}

/* Names, types and shapes of the tensors; with times: also when the files were written. */
static void add_model(struct digest_stream *stream, const struct container *container, bool times)
{
    for (size_t i = 0; i < container->n_tensors; i++) {
        const struct tensor *t = &container->tensors[i];
        add_text(stream, t->name);
        add_text(stream, t->format ? t->format : t->dtype->name);
        digest_add(stream, t->dims, t->rank * sizeof *t->dims);
        digest_add(stream, &t->offset, sizeof t->offset);
    }
    for (size_t i = 0; i < container->n_files && times; i++) {
        digest_add(stream, &container->files[i].nbytes, sizeof container->files[i].nbytes);
        digest_add(stream, &container->files[i].at_open.st_mtim, sizeof container->files[i].at_open.st_mtim);
    }
}

static void take(struct digest_stream *stream, char out[DIGEST128_HEX])
{
    const struct digest128 digest = digest_value(stream);
    digest128_hex(&digest, out);
    digest_reset(stream);
}

static enum status identify(const struct app *app, struct job *job, struct err *err)
{
    struct digest_stream *stream = digest_open();
    const enum setting_id ids[] = { SET_SAMPLES, SET_SEQ, SET_SKIP_FIRST, SET_COLLECT, SET_SEQUENTIAL };
    if (!stream) return err_set(err, ERR_MEMORY, "out of memory");
    add_model(stream, job->live.container, false);
    take(stream, job->model_digest);
    digest_add(stream, job->docs.ids, job->docs.starts[job->docs.n_docs] * sizeof *job->docs.ids);
    digest_add(stream, job->docs.starts, (job->docs.n_docs + 1) * sizeof *job->docs.starts);
    take(stream, job->data_digest);
    add_text(stream, job->data_digest);
    add_text(stream, job->gemm.name);
    add_model(stream, job->live.container, true);
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        const char *value = settings_text(&app->settings, ids[i]);
        add_text(stream, value ? value : "");
    }
    take(stream, job->key);
    digest_close(stream);
    return OK;
}

/* ---- the run ----------------------------------------------------------------------------------------------------------------------- */

static void add_progress(void *context, uint64_t n)
{
    progress_add(context, n);
}

/* --self NxL: N documents of L tokens that the model writes. */
static enum status write_own(const struct app *app, struct job *job, struct err *err)
{
    const char *text = settings_text(&app->settings, SET_SELF);
    char *end = NULL;
    const unsigned long long n = strtoull(text, &end, 10), length = *end == 'x' ? strtoull(end + 1, &end, 10) : 0;
    double first = -1.0;
    if (*end || n < 1 || n > 1 << 16 || length < 2 || length > 1 << 20)
        return err_set(err, ERR_USAGE, "--self '%s' is not NxL, documents and their tokens: 16x512", text);
    if (!arch_number(job->live.arch, "bos", &first) || !(first >= 0 && first < (double)job->live.model->vocab)) first = -1.0;
    job->docs.n_docs = (size_t)n;
    job->docs.ids = calloc((size_t)(n * length), sizeof *job->docs.ids);
    job->docs.starts = calloc((size_t)n + 1, sizeof *job->docs.starts);
    job->docs.nbytes = calloc((size_t)n, sizeof *job->docs.nbytes);
    if (!job->docs.ids || !job->docs.starts || !job->docs.nbytes) return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t d = 0; d <= n; d++) job->docs.starts[d] = d * length;
    struct progress *progress = progress_open_count(app, "writing", n * (length - 1), 1, "tokens");
    const struct sample_options options = { .io = app->io,
                                            .model = job->live.model,
                                            .source = weight_source_container(job->live.container),
                                            .gemm = job->gemm,
                                            .n_workers = live_workers(app),
                                            .max_ram = live_max_ram(app),
                                            .stop = app->stop,
                                            .spill_dir = live_spill_dir(),
                                            .seed = 1,
                                            .first = (int32_t)first,
                                            .n_documents = (size_t)n,
                                            .length = (size_t)length,
                                            .progress = add_progress,
                                            .context = progress };
    enum status status = sample_run(&options, job->docs.ids, err);
    progress_close(progress);
    return status;
}

static enum status make_tokens(const struct app *app, struct job *job, struct err *err)
{
    size_t n_lead;
    if (settings_given(&app->settings, SET_SELF)) return write_own(app, job, err);
    return live_model_tokens(app, &job->live, &job->docs, &n_lead, err);
}

static enum status make_windows(const struct app *app, struct job *job, struct err *err)
{
    const struct settings *s = &app->settings;
    enum status status = windows_make(job->docs.ids, job->docs.starts, job->docs.n_docs, (size_t)settings_number(s, SET_SEQ), 1,
                                      (size_t)settings_number(s, SET_SAMPLES), &job->windows, err);
    if (status == OK && job->windows.n < settings_number(s, SET_SAMPLES) && settings_given(s, SET_SAMPLES))
        app_note(app, "the text has %zu windows, fewer than --samples %s", job->windows.n, settings_text(s, SET_SAMPLES));
    return status;
}

static enum status make_stream(const struct app *app, struct job *job, struct err *err)
{
    const char *format = settings_text(&app->settings, SET_SEQUENTIAL);
    job->source = weight_source_container(job->live.container);
    if (!format) return OK;
    const struct quant_params none = { 0 };
    enum status status = quant_parse(format, &none, &job->quant, err);
    if (status == OK) status = quantised_weights_open(&job->quant, job->live.model, &job->source, job->live.container, &job->quantised, err);
    if (status != OK) return err_wrap(err, status, "--sequential");
    job->stream = quantised_weights_source(job->quantised);
    return OK;
}

static enum status name_state(const struct app *app, struct job *job, struct err *err)
{
    const char *out = settings_text(&app->settings, SET_OUT);
    const size_t n = strlen(out) + sizeof ".resume.safetensors";
    job->state = malloc(n);
    if (!job->state) return err_set(err, ERR_MEMORY, "out of memory");
    snprintf(job->state, n, "%s.resume.safetensors", out);
    return OK;
}

static enum status run(struct app *app, struct job *job, struct err *err)
{
    const struct settings *s = &app->settings;
    const size_t n_layers = job->live.model->n_layers;
    const double start = clock_seconds();
    size_t first_layer = 0;
    struct progress *progress = progress_open_count(app, "calibrate", job->windows.n_rows * n_layers, n_layers, "tokens");
    struct calibrate_options *o = &job->options;
    o->io = app->io;
    o->gemm = job->gemm;
    o->n_workers = live_workers(app);
    o->max_ram = live_max_ram(app);
    o->stop = app->stop;
    o->spill_dir = live_spill_dir();
    o->model = job->live.model;
    o->container = job->live.container;
    o->source = job->source;
    o->stream = job->quantised ? &job->stream : NULL;
    o->skip_first = (size_t)settings_number(s, SET_SKIP_FIRST);
    o->state = job->state;
    o->resume = settings_flag(s, SET_RESUME);
    o->key = job->key;
    o->progress = add_progress;
    o->context = progress;
    enum status status = calibrate_run(o, &job->windows, &job->set, &first_layer, err);
    progress_close(progress);
    job->seconds = clock_seconds() - start;
    if (status == OK && first_layer) app_note(app, "went on with layer %zu of %zu", first_layer, n_layers);
    if (status == ERR_CANCELLED && path_exists(job->state))
        return err_set(err, ERR_CANCELLED, "stopped; --resume goes on behind the last finished layer");
    return status;
}

/* ---- the output -------------------------------------------------------------------------------------------------------------------- */

static enum status add_facts(const struct app *app, struct job *job, struct err *err)
{
    const struct settings *s = &app->settings;
    const char *text = settings_text(s, SET_TEXT) ? settings_text(s, SET_TEXT) : settings_text(s, SET_TOKENS);
    char dataset[256], tokens[24], weights[160];
    if (text) snprintf(dataset, sizeof dataset, "%s", path_base(text));
    else snprintf(dataset, sizeof dataset, "self %s", settings_text(s, SET_SELF));
    snprintf(tokens, sizeof tokens, "%" PRIu64, calibrate_tokens(&job->windows, job->options.skip_first));
    snprintf(weights, sizeof weights, job->quantised ? "sequential:%s" : "fp", job->quantised ? settings_text(s, SET_SEQUENTIAL) : "");
    const char *const pairs[][2] = { { "names", arch_is_gguf(job->live.arch) ? "gguf" : "hf" },
                                     { "arch", arch_name(job->live.arch) },
                                     { "model_xxh128", job->model_digest },
                                     { "dataset_xxh128", job->data_digest },
                                     { "tokens", tokens },
                                     { "skip_first", settings_text(s, SET_SKIP_FIRST) },
                                     { "weights", weights },
                                     { "tool", "llmq " LLMQ_VERSION_TEXT } };
    enum status status = stats_add_dataset(job->set, dataset, strlen(dataset), err);
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0] && status == OK; i++) status = stats_add_pair(job->set, pairs[i][0], pairs[i][1], err);
    return status;
}

/* Other tools know GGUF names only. */
static enum status rename_entries(const struct app *app, struct job *job, const struct stats_kind *kind, struct err *err)
{
    struct name_map *map = NULL;
    struct stats_set *renamed = NULL;
    struct stats_renamed done = { 0 };
    if (kind == &stats_kind_safetensors || arch_is_gguf(job->live.arch)) return OK;
    enum status status = names_open(app, &map, err);
    if (status == OK) status = stats_to_gguf_names(job->set, map, &renamed, &done, err);
    name_map_close(map);
    if (status != OK) return status;
    stats_close(job->set);
    job->set = renamed;
    if (done.n_unmatched) app_note(app, "%llu names are in no pattern of names.yaml and stay as they are", (unsigned long long)done.n_unmatched);
    return OK;
}

static uint64_t missing_of(const struct stats_set *set)
{
    uint64_t n = 0;
    for (size_t i = 0; i < set->n_entries; i++) n += stats_missing(&set->entries[i]);
    return n;
}

static enum status write_set(struct app *app, struct job *job, struct err *err)
{
    const char *out = settings_text(&app->settings, SET_OUT), *in = settings_text(&app->settings, SET_IN);
    const struct stats_kind *kind = stats_kind_of_path(out);
    struct stats_left left = { 0 };
    uint64_t nbytes = 0;
    const uint64_t missing = missing_of(job->set), tokens = calibrate_tokens(&job->windows, job->options.skip_first);
    enum status status = add_facts(app, job, err);
    if (status == OK) status = rename_entries(app, job, kind, err);
    if (status == OK) status = stats_save(app->io, job->set, out, settings_flag(&app->settings, SET_FORCE), NULL, 0, &left, &nbytes, err);
    if (status != OK) return status;
    statistics_note_left(app, kind, &left);
    if (missing) app_note(app, "%llu experts saw no token", (unsigned long long)missing);
    if (settings_flag(&app->settings, SET_JSON)) {
        printf("{\"in\":");
        print_json_string(stdout, in);
        printf(",\"out\":");
        print_json_string(stdout, out);
        printf(
            ",\"kind\":\"%s\",\"entries\":%zu,\"tokens\":%llu,\"windows\":%zu,\"missing\":%llu,\"nbytes\":%llu,\"seconds\":%.3f,\"gemm\":\"%s\"}\n",
            kind->name, job->set->n_entries, (unsigned long long)tokens, job->windows.n, (unsigned long long)missing, (unsigned long long)nbytes,
            job->seconds, job->gemm.name);
    } else
        printf("wrote %s: %s, %zu entries of %llu tokens in %zu windows, %llu bytes, %.1f s\n", out, kind->name, job->set->n_entries,
               (unsigned long long)tokens, job->windows.n, (unsigned long long)nbytes, job->seconds);
    return OK;
}

enum status cmd_calibrate(struct app *app, struct err *err)
{
    struct job job = { 0 };
    enum status status = check_options(app, err);
    if (status == OK) status = parse_collect(app, &job.options, err);
    if (status == OK) job.gemm = live_gemm(app);
    if (status == OK) status = live_model_open(app, settings_text(&app->settings, SET_IN), &job.live, err);
    if (status == OK) status = make_tokens(app, &job, err);
    if (status == OK) status = make_windows(app, &job, err);
    if (status == OK) status = make_stream(app, &job, err);
    if (status == OK) status = identify(app, &job, err);
    if (status == OK) status = name_state(app, &job, err);
    if (status == OK) status = run(app, &job, err);
    if (status == OK) status = container_check_unchanged(job.live.container, err);
    if (status == OK) status = write_set(app, &job, err);
    stats_close(job.set);
    quantised_weights_close(job.quantised);
    free(job.state);
    windows_free(&job.windows);
    tokens_free(&job.docs);
    live_model_close(&job.live);
    return status;
}
