/* convert_report.c: see convert_report.h.
 *
 * Drawing: finished file -> container_open -> plane_hash of each tensor; rows of tensors -> sums of roles -> total.
 * Why this way: see convert_report.h.
 * Corner cases: of several output files the first is opened, which finds the others.
 * Reference: convert_report.h. Worked number: tensors of 544 and 1088 bits in a role of 384 weights: 4.25 bits per weight.
 */
#include "converter/convert_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/text.h"
#include "converter/code_counts.h"
#include "converter/plane_hash.h"
#include "converter/report_html.h"
#include "converter/table_head.h"

/* A sum of tensors: a tensor, a role, all. */
struct summing {
    uint64_t n_weights, plane_nbytes;
    struct measure measure;
    struct digest_stream *hash; /* over the hashes of tensors */
    bool hashed; /* all of them have one */
};

struct making {
    const struct plan *plan;
    const struct result *result;
    struct container *written;
    struct sweep_table *table;
    struct digest128 *hashes; /* one a tensor */
    bool *hashed;
    struct digest_stream *stream;
};

static enum status no_memory(struct err *err)
{
    return err_set(err, ERR_MEMORY, "out of memory for the report");
}

/* ---- what the variant is called ------------------------------------------------------------------------------------------------------ */

/* "64" of the JSON text 64, "channel" of "channel". */
static void plain_group(const char *json, char *out, size_t out_size)
{
    const size_t n = strlen(json), cut = json[0] == '"';
    snprintf(out, out_size, "%.*s", (int)(n - 2 * cut), json + cut);
}

/* What all quantised tensors have in common, else "mixed"; "" when none is quantised. */
static void common_name(const struct plan *plan, const char *(*field)(const struct out_tensor *), char *out, size_t out_size)
{
    const char *found = NULL;
    out[0] = '\0';
    for (size_t i = 0; i < plan->n_tensors; i++) {
        const char *own = plan->outs[i].format ? field(&plan->outs[i]) : NULL;
        if (!own) continue;
        if (found && strcmp(found, own) != 0) {
            snprintf(out, out_size, "mixed");
            return;
        }
        found = own;
    }
    if (found) plain_group(found, out, out_size);
}

static const char *format_of(const struct out_tensor *out)
{
    return out->format;
}

static const char *group_of(const struct out_tensor *out)
{
    return out->group;
}

static const char *rule_of(const struct out_tensor *out)
{
    return out->scale_rule;
}

static void add_word(struct text *text, const char *name, const char *value)
{
    const bool plain = value[0] && strspn(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-+=:,/@%") == strlen(value);
    text_add(text, "%s--%s ", text->nbytes ? " " : "", name);
    if (!plain) text_add(text, "'");
    for (const char *at = value; *at; at++) text_add(text, *at == '\'' && !plain ? "'\\''" : "%c", *at);
    if (!plain) text_add(text, "'");
}

/* The options as they were given, for the same bytes again. */
static char *command_of(const struct settings *settings)
{
    struct text text = text_make(1u << 20);
    for (size_t i = 0; i < SET_COUNT; i++) {
        const enum setting_id id = (enum setting_id)i;
        if (!settings_given(settings, id) || settings->from_recipe[i] || !table_tells(id)) continue;
        if (settings_table[i].type == SETTING_FLAG) text_add(&text, "%s--%s", text.nbytes ? " " : "", settings_table[i].name);
        else add_word(&text, settings_table[i].name, settings_text(settings, id));
    }
    for (size_t i = 0; i < settings->n_rules; i++) add_word(&text, settings->rules[i].keep ? "keep" : "rule", settings->rules[i].text);
    char *out = text.failed ? NULL : strdup(text.data);
    text_free(&text);
    return out;
}

static enum status make_variant(const struct app *app, const struct plan *plan, struct sweep_table *table, struct err *err)
{
    char format[64], group[64], rule[64];
    common_name(plan, format_of, format, sizeof format);
    common_name(plan, group_of, group, sizeof group);
    common_name(plan, rule_of, rule, sizeof rule);
    table->variants = calloc(1, sizeof *table->variants);
    if (!table->variants) return no_memory(err);
    table->n_variants = 1;
    struct sweep_variant *variant = table->variants;
    variant->format = strdup(*format ? format : "keep");
    variant->group_size = strdup(group);
    variant->scale_rule = strdup(rule);
    variant->settings = command_of(&app->settings);
    return variant->format && variant->group_size && variant->scale_rule && variant->settings ? OK : no_memory(err);
}

/* ---- rows ---------------------------------------------------------------------------------------------------------------------------- */

static void finish_row(const struct summing *summing, uint64_t nbytes, struct sweep_row *row)
{
    const double unknown = (double)NAN;
    const struct measure *measure = &summing->measure;
    row->n_weights = summing->n_weights;
    row->n_measured = measure->n;
    row->bits = 8 * nbytes;
    row->plane_bits = 8 * summing->plane_nbytes;
    row->bpw = row->n_weights ? (double)row->bits / (double)row->n_weights : unknown;
    row->mse = measure->n ? measure_mse(measure) : unknown;
    row->sqnr_db = measure->n ? measure_sqnr_db(measure) : unknown;
    row->max_error = measure->n ? measure->max_d : unknown;
    row->sum_dd = measure->sum_dd;
    row->sum_xx = measure->sum_xx;
    row->wsqnr_db = row->sum_wdd = row->sum_wxx = row->clipped = unknown;
    row->perplexity = row->kl = unknown;
}

static void add_tensor(const struct making *making, size_t i, struct summing *summing)
{
    const struct out_tensor *out = &making->plan->outs[i];
    summing->n_weights += plan_tensor(making->plan, i)->n_weights;
    for (uint32_t k = 0; k < out->n_planes; k++) summing->plane_nbytes += plane_nbytes(&out->planes[k].plane);
    measure_add(&summing->measure, &making->result->measures[i]);
    summing->hashed &= making->hashed[i];
    if (summing->hash) digest_add(summing->hash, &making->hashes[i], sizeof making->hashes[i]);
}

/* The role's text of an earlier tensor, where it has the same. */
static const char *role_text(const struct making *making, size_t before, const char *role)
{
    for (size_t i = before; i-- > 0;)
        if (strcmp(making->table->rows[i].role, role) == 0) return making->table->rows[i].role;
    return table_text(making->table, role);
}

static enum status tensor_row(const struct making *making, size_t i, struct err *err)
{
    const struct out_tensor *out = &making->plan->outs[i];
    struct sweep_row *row = &making->table->rows[i];
    struct summing summing = { .hashed = true };
    add_tensor(making, i, &summing);
    *row = (struct sweep_row){ .scope = SWEEP_TENSOR,
                               .name = table_text(making->table, plan_tensor(making->plan, i)->name),
                               .role = role_text(making, i, out->role),
                               .layer = table_layer(plan_tensor(making->plan, i)->name),
                               .format = out->format ? out->format : "keep" };
    finish_row(&summing, summing.plane_nbytes, row);
    if (summing.hashed) digest128_hex(&making->hashes[i], row->hash);
    return row->name && row->role ? OK : no_memory(err);
}

/* The row of a role, or with NULL the total. */
static void sum_row(const struct making *making, const char *role, struct sweep_row *row)
{
    struct summing summing = { .hash = making->stream, .hashed = true };
    digest_reset(making->stream);
    for (size_t i = 0; i < making->plan->n_tensors; i++)
        if (!role || making->table->rows[i].role == role) add_tensor(making, i, &summing);
    const char *name = role ? role : sweep_scope_names[SWEEP_TOTAL];
    *row = (struct sweep_row){
        .scope = role ? SWEEP_ROLE : SWEEP_TOTAL, .name = name, .role = name, .layer = SWEEP_NO_LAYER, .format = making->table->variants[0].format
    };
    finish_row(&summing, role ? summing.plane_nbytes : making->result->out_nbytes, row);
    const struct digest128 digest = digest_value(making->stream);
    if (summing.hashed) digest128_hex(&digest, row->hash);
}

static enum status make_rows(const struct making *making, struct err *err)
{
    struct sweep_table *table = making->table;
    const size_t n = making->plan->n_tensors;
    enum status status = OK;
    for (size_t i = 0; i < n && !status; i++) status = tensor_row(making, i, err);
    if (status) return status;
    table->n_rows = n;
    for (size_t i = 0; i < n; i++) {
        size_t first = 0;
        while (table->rows[first].role != table->rows[i].role) first++;
        if (first == i) sum_row(making, table->rows[i].role, &table->rows[table->n_rows++]);
    }
    sum_row(making, NULL, &table->rows[table->n_rows++]);
    table->variants[0].n_rows = table->n_rows;
    return OK;
}

/* ---- what was written ---------------------------------------------------------------------------------------------------------------- */

/* NAME-00001-of-0000N of several output files. */
static enum status open_written(const struct app *app, const struct plan *plan, struct container **written, struct err *err)
{
    const char *path = plan->out_path, *dot = strrchr(path_base(path), '.');
    struct text name = text_make(1u << 16);
    text_add(&name, "%s", path);
    if (plan->size.n_files > 1) {
        const char *extension = dot && (strcmp(dot, ".llmq") == 0 || strcmp(dot, ".gguf") == 0) ? dot : "";
        text_reset(&name);
        text_add_bytes(&name, path, strlen(path) - strlen(extension));
        text_add(&name, "-%05u-of-%05u%s", 1u, plan->size.n_files, *extension ? extension : ".llmq");
    }
    enum status status = text_ok(&name, "a path", err);
    if (!status) status = container_open(app->io, name.data, written, err);
    text_free(&name);
    return status;
}

static enum status hash_all(const struct making *making, struct err *err)
{
    enum status status = OK;
    for (size_t i = 0; i < making->plan->n_tensors && !status; i++) {
        const size_t at = container_find(making->written, plan_tensor(making->plan, i)->name);
        if (at == SIZE_MAX || (making->written->tensors[at].quantised && !making->written->tensors[at].quant)) continue;
        status = plane_hash(making->written, at, &making->hashes[i], err);
        making->hashed[i] = status == OK;
    }
    return status;
}

/* Codes and scales of the tensor with most of the error. */
static enum status count_worst(const struct making *making, struct err *err)
{
    struct sweep_table *table = making->table;
    size_t worst = SIZE_MAX, at = 0;
    for (size_t i = 0; i < making->plan->n_tensors; i++) {
        const size_t found = container_find(making->written, plan_tensor(making->plan, i)->name);
        if (found == SIZE_MAX || !code_counts_apply(making->written->tensors[found].quant)) continue;
        if (worst != SIZE_MAX && !(making->result->measures[i].sum_dd > making->result->measures[worst].sum_dd)) continue;
        worst = i;
        at = found;
    }
    if (worst == SIZE_MAX) return OK;
    struct code_counts *counts = calloc(1, sizeof *counts);
    table->histograms = calloc(1, sizeof *table->histograms);
    table->histogram_tensor = strdup(plan_tensor(making->plan, worst)->name);
    enum status status = counts && table->histograms && table->histogram_tensor ? OK : no_memory(err);
    if (!status) status = code_counts_open(making->written->tensors[at].quant->elem, counts, err);
    if (!status) status = code_counts_read(making->written, at, counts, err);
    if (!status) {
        table->n_histograms = 1;
        status = code_counts_fill(counts, table->histograms, err);
    }
    if (counts) code_counts_close(counts);
    free(counts);
    return status;
}

/* ---- all together -------------------------------------------------------------------------------------------------------------------- */

static enum status make_table(const struct app *app, struct making *making, struct err *err)
{
    const size_t n = making->plan->n_tensors;
    struct sweep_table *table = making->table;
    enum status status = table_head(&app->settings, "convert", table, err);
    if (!status) status = make_variant(app, making->plan, table, err);
    if (status) return status;
    table->seconds = making->result->seconds;
    table->read_nbytes = making->plan->read_nbytes;
    table->rows = calloc(2 * n + 1, sizeof *table->rows);
    making->hashes = calloc(n + 1, sizeof *making->hashes);
    making->hashed = calloc(n + 1, sizeof *making->hashed);
    making->stream = digest_open();
    if (!table->rows || !making->hashes || !making->hashed || !making->stream) return no_memory(err);
    status = hash_all(making, err);
    if (!status) status = make_rows(making, err);
    if (!status) status = count_worst(making, err);
    return status;
}

/* A set that refuses the files of the model, and those of the finished output (NULL: there is none yet). */
static enum status open_set(const struct app *app, const struct plan *plan, const struct container *written, struct outset **set, struct err *err)
{
    enum status status = outset_open(app->io, settings_flag(&app->settings, SET_FORCE), set, err);
    for (size_t i = 0; i < plan->container->n_files && !status; i++) status = outset_add_input(*set, &plan->container->files[i], err);
    for (size_t i = 0; written && i < written->n_files && !status; i++) status = outset_add_input(*set, &written->files[i], err);
    return status;
}

static enum status write_page(const struct app *app, const struct making *making, struct err *err)
{
    struct outset *set = NULL;
    enum status status = open_set(app, making->plan, making->written, &set, err);
    if (!status) status = report_html_add(set, settings_text(&app->settings, SET_REPORT), making->table, err);
    if (!status) status = outset_commit(set, err);
    outset_close(set);
    return status;
}

/* Begins the file and gives it up again: whatever stands in its way is told before the work. */
enum status convert_report_check(const struct app *app, const struct plan *plan, struct err *err)
{
    struct outset *set = NULL;
    struct outfile *file;
    if (!settings_given(&app->settings, SET_REPORT)) return OK;
    const char *path = settings_text(&app->settings, SET_REPORT);
    if (strcmp(path, plan->out_path) == 0) return err_set(err, ERR_USAGE, "--report '%s' is the output itself", path);
    enum status status = open_set(app, plan, NULL, &set, err);
    if (!status) status = outset_add(set, path, &file, err);
    outset_close(set);
    return status;
}

enum status convert_report_write(const struct app *app, const struct plan *plan, const struct result *result, struct err *err)
{
    struct sweep_table table = { 0 };
    struct making making = { .plan = plan, .result = result, .table = &table };
    if (!settings_given(&app->settings, SET_REPORT)) return OK;
    enum status status = open_written(app, plan, &making.written, err);
    if (!status) status = make_table(app, &making, err);
    if (!status) status = write_page(app, &making, err);
    container_close(making.written);
    digest_close(making.stream);
    free(making.hashes);
    free(making.hashed);
    sweep_table_free(&table);
    return status ? err_wrap(err, status, "the model is written, the report is not") : OK;
}
