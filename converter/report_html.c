/* report_html.c: see report_html.h.
 *
 * Drawing: head (policy, style) -> figures -> plots -> variants, skipped -> one <details> a variant -> codes and scales -> settings -> script.
 * Why this way: a variant's own part is a <details>, which opens without script; #vN in the address opens it with one.
 * Corner cases: parts with all tensors are written for as many variants as ROWS_MAX rows allow, those on the front first; the others say so.
 * Reference: report_html.h. Worked number: 20 variants of 171 tensors are 3420 rows, about 1.5 MB.
 */
#include "converter/report_html.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "converter/progress.h"
#include "converter/report_html_bars.h"
#include "converter/report_html_heat.h"
#include "converter/report_html_out.h"
#include "converter/report_html_scatter.h"
#include "converter/report_html_style.h"
#include "converter/report_html_table.h"
#include "converter/report_html_view.h"

enum { ROWS_MAX = 20000, WORST = 12 };

/* ---- head --------------------------------------------------------------------------------------------------------------------------- */

static void put_lines(struct html *html, const char *const *lines)
{
    for (; *lines; lines++) html_put(html, "%s\n", *lines);
}

/* The last component of a path that may end in slashes. */
static const char *last_part(const char *path, char *out, size_t out_size)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    size_t first = n;
    while (first > 0 && path[first - 1] != '/') first--;
    snprintf(out, out_size, "%.*s", (int)(n - first < out_size ? n - first : out_size - 1), path + first);
    return out;
}

static void put_head(struct html *html, const struct sweep_table *table)
{
    char name[256];
    last_part(table->model, name, sizeof name);
    html_put(html, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                   "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
                   "<meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n");
    html_put(html,
             "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';style-src 'unsafe-inline';img-src data:;script-src '%s'\">\n",
             script_hash);
    html_put(html, "<link rel=\"icon\" href=\"data:,\">\n<title>");
    html_text(html, table->title);
    html_put(html, " of ");
    html_text(html, name);
    html_put(html, "</title>\n<style>\n");
    put_lines(html, style_lines);
    html_put(html, "</style>\n</head>\n<body>\n<main>\n<header><h1>");
    html_text(html, name);
    html_put(html, "</h1>\n<p class=\"model\">");
    html_text(html, table->title);
    html_put(html, " of <bdi>");
    html_text(html, table->model);
    html_put(html, "</bdi></p>\n");
}

/* ---- the figures at the top --------------------------------------------------------------------------------------------------------- */

static void open_fact(struct html *html, const char *name)
{
    html_put(html, "<div><dt>%s</dt><dd>", name);
}

static void close_fact(struct html *html, const char *unit)
{
    html_put(html, "%s%s%s</dd></div>\n", *unit ? " <small>" : "", unit, *unit ? "</small>" : "");
}

static void count_fact(struct html *html, const char *name, uint64_t n)
{
    open_fact(html, name);
    html_count(html, n);
    close_fact(html, "");
}

/* "1.24 billion". */
static void weights_fact(struct html *html, uint64_t n)
{
    static const struct {
        double one;
        const char *name;
    } units[] = { { 1e12, "trillion" }, { 1e9, "billion" }, { 1e6, "million" } };
    open_fact(html, "weights");
    for (size_t k = 0; k < sizeof units / sizeof units[0]; k++)
        if ((double)n >= units[k].one) {
            html_short(html, (double)n / units[k].one, 4);
            close_fact(html, units[k].name);
            return;
        }
    html_count(html, n);
    close_fact(html, "");
}

static void total_facts(struct html *html, const struct view *view, const struct sweep_row *total)
{
    char text[24];
    open_fact(html, "bits per weight");
    html_fixed(html, total->bpw, 3);
    close_fact(html, "");
    open_fact(html, "file");
    html_text(html, show_bytes(total->bits / 8, text));
    close_fact(html, "");
    if (total->n_measured) {
        open_fact(html, "SQNR");
        html_fixed(html, total->sqnr_db, 2);
        close_fact(html, "dB");
        open_fact(html, "error");
        html_figure(html, view_measures[MEASURE_ERROR].of(total), 3);
        close_fact(html, "% of the weights");
    }
    if (isnan(total->perplexity)) return;
    open_fact(html, "perplexity");
    html_fixed(html, total->perplexity, 3);
    close_fact(html, view->table->reference_name);
}

static void put_facts(struct html *html, const struct view *view)
{
    const struct sweep_table *table = view->table;
    const struct sweep_row *first = NULL;
    char text[24];
    for (size_t v = 0; v < table->n_variants && !first; v++) first = view->totals[v];
    html_put(html, "<dl class=\"facts\">\n");
    if (view->n_shown == 1) total_facts(html, view, first);
    else count_fact(html, "variants", view->n_shown);
    if (view->n_skipped) count_fact(html, "skipped", view->n_skipped);
    if (first) {
        const struct sweep_variant *variant = &table->variants[first->variant];
        uint64_t n_tensors = 0;
        for (size_t r = variant->first_row; r < variant->first_row + variant->n_rows; r++) n_tensors += table->rows[r].scope == SWEEP_TENSOR;
        weights_fact(html, first->n_weights);
        count_fact(html, "tensors", n_tensors);
    }
    if (isfinite(table->reference_perplexity)) {
        open_fact(html, "perplexity as it was read");
        html_fixed(html, table->reference_perplexity, 3);
        close_fact(html, "");
    }
    if (table->read_nbytes) {
        open_fact(html, "read");
        html_text(html, show_bytes(table->read_nbytes, text));
        close_fact(html, "");
    }
    html_put(html, "</dl></header>\n");
    if (!(table->sample < 1.0)) return;
    html_put(html, "<p><b>A sample.</b> ");
    html_percent(html, table->sample);
    html_put(html, " %% of the tiles of each tensor, at least one, were read: errors are estimates, and a tensor of which something was left out has "
                   "no hash.</p>\n");
}

/* ---- plots and tables --------------------------------------------------------------------------------------------------------------- */

static enum status put_plots(struct html *html, const struct view *view, struct err *err)
{
    bool *front = calloc(view->table->n_variants + 1, sizeof *front);
    if (!front) return err_set(err, ERR_MEMORY, "out of memory for the report");
    if (view->n_shown > 1 && view->main) {
        html_put(html, "<section><h2>Size and error</h2>\n");
        scatter_legend(html, view);
        for (size_t m = 0; m < VIEW_MEASURES; m++) {
            view_front(view, &view_measures[m], front);
            scatter_figure(html, view, &view_measures[m], front);
        }
        html_put(html, "</section>\n");
    }
    free(front);
    return OK;
}

/* Chooses the variants whose tensors are on the page: in two passes, those on the front first. */
static void choose_parts(const struct view *view, bool *parts)
{
    size_t rows = 0;
    for (int pass = 0; pass < 2; pass++)
        for (size_t v = 0; v < view->table->n_variants; v++) {
            const struct sweep_variant *variant = &view->table->variants[v];
            if (variant->skipped || variant->n_rows == 0 || view->front[v] != (pass == 0)) continue;
            parts[v] = variant->n_rows <= ROWS_MAX - rows;
            if (parts[v]) rows += variant->n_rows;
        }
}

static void put_summary(struct html *html, const struct view *view, size_t v)
{
    const struct sweep_row *total = view->totals[v];
    char label[VIEW_LABEL_MAX];
    html_put(html, "<summary><b>");
    html_text(html, view_full_label(view, v, label));
    html_put(html, "</b>");
    if (total) {
        html_put(html, "<span>");
        html_fixed(html, total->bpw, 3);
        html_put(html, " bits per weight</span>");
    }
    if (total && total->n_measured) {
        html_put(html, "<span>SQNR ");
        html_fixed(html, total->sqnr_db, 2);
        html_put(html, " dB</span>");
    }
    if (total && !isnan(total->perplexity)) {
        html_put(html, "<span>perplexity ");
        html_fixed(html, total->perplexity, 3);
        html_put(html, "</span>");
    }
    if (view->front[v] && view->n_shown > 1) html_put(html, "<span class=\"front-yes\">front</span>");
    if (!total) html_put(html, "<span>not finished</span>");
    html_put(html, "</summary>\n");
}

static enum status put_part(struct html *html, const struct view *view, size_t v, bool open, struct err *err)
{
    const struct sweep_variant *variant = &view->table->variants[v];
    html_put(html, "<details class=\"variant\" id=\"v%zu\"%s>", v, open ? " open" : "");
    put_summary(html, view, v);
    html_put(html, "<div>");
    if (*variant->settings) {
        html_put(html, "<p class=\"command\">The same bytes: <code>llmq convert --in MODEL ");
        html_text(html, variant->settings);
        html_put(html, "</code></p>\n");
    }
    if (view->totals[v] && view->totals[v]->hash[0]) {
        html_put(html, "<p class=\"soft\">Hash over the hashes of all tensors: <code>");
        html_text(html, view->totals[v]->hash);
        html_put(html, "</code></p>\n");
    }
    html_put(html, "<div class=\"pair\">\n");
    enum status status = heat_figure(html, view, v, err);
    html_put(html, "<div><h3>Worst tensors</h3>\n");
    if (!status) status = table_worst(html, view, v, WORST, err);
    html_put(html, "<h3>Roles</h3>\n");
    table_roles(html, view, v);
    html_put(html, "</div></div>\n<details><summary>All tensors</summary>\n");
    table_tensors(html, view, v);
    html_put(html, "</details></div></details>\n");
    return status;
}

static enum status put_parts(struct html *html, const struct view *view, const bool *parts, struct err *err)
{
    size_t n = 0, n_left_out = 0;
    enum status status = OK;
    for (size_t v = 0; v < view->table->n_variants; v++) {
        n += parts[v];
        n_left_out += !parts[v] && view->table->variants[v].n_rows > 0;
    }
    if (n + n_left_out == 0) return OK;
    html_put(html, "<section><h2>%s</h2>\n", n == 1 && n_left_out == 0 ? "Tensors" : "Variant by variant");
    for (size_t v = 0; v < view->table->n_variants && !status; v++)
        if (parts[v]) status = put_part(html, view, v, n == 1, err);
    if (n_left_out)
        html_put(html,
                 "<p class=\"soft\">The tensors of %zu more variants are left out to keep this page below %d rows; the CSV and JSON files have "
                 "them.</p>\n",
                 n_left_out, ROWS_MAX);
    html_put(html, "</section>\n");
    return status;
}

/* ---- settings ----------------------------------------------------------------------------------------------------------------------- */

static void put_setting(struct html *html, const char *name, const char *value, bool code)
{
    if (!value || !*value) return;
    html_put(html, "<dt>");
    html_text(html, name);
    html_put(html, "</dt><dd>%s", code ? "<code>" : "");
    html_text(html, value);
    html_put(html, "%s</dd>\n", code ? "</code>" : "");
}

static void put_settings(struct html *html, const struct sweep_table *table)
{
    html_put(html, "<section><h2>Settings and hashes</h2>\n<dl class=\"settings\">\n");
    put_setting(html, "model", table->model, false);
    put_setting(html, "digest of its weights", table->input_digest, true);
    put_setting(html, "written by", table->writer, false);
    put_setting(html, "evaluated on", table->reference_name, false);
    for (size_t k = 0; k < table->n_settings; k++) put_setting(html, table->settings[k].name, table->settings[k].value, false);
    html_put(
        html,
        "</dl>\n<p class=\"soft\">Hashes of codes, scales and zeros stand with the tensors of each variant, under All tensors.</p>\n</section>\n");
}

/* ---- all together ------------------------------------------------------------------------------------------------------------------- */

static enum status put_page(struct html *html, const struct view *view, struct err *err)
{
    bool *parts = calloc(view->table->n_variants + 1, sizeof *parts);
    if (!parts) return err_set(err, ERR_MEMORY, "out of memory for the report");
    choose_parts(view, parts);
    put_head(html, view->table);
    put_facts(html, view);
    enum status status = put_plots(html, view, err);
    if (!status) {
        html_put(html, "<section><h2>%s</h2>\n", view->n_shown == 1 && view->n_skipped == 0 ? "Result" : "Variants");
        table_variants(html, view, parts);
        table_skipped(html, view);
        html_put(html, "</section>\n");
        status = put_parts(html, view, parts, err);
        bars_section(html, view);
        put_settings(html, view->table);
        html_put(html, "</main>\n<div id=\"told\" class=\"seen\" role=\"status\"></div>\n<script>");
        put_lines(html, script_lines);
        html_put(html, "</script>\n</body>\n</html>\n");
    }
    free(parts);
    return status;
}

enum status report_html_put(struct outfile *file, const struct sweep_table *table, struct err *err)
{
    struct view view;
    struct html html;
    enum status status = view_make(table, &view, err);
    if (status) return status;
    html_begin(&html, file, err);
    status = put_page(&html, &view, err);
    if (status) html.status = status;
    status = html_end(&html);
    view_free(&view);
    return status;
}

enum status report_html_add(struct outset *set, const char *path, const struct sweep_table *table, struct err *err)
{
    struct outfile *file;
    const enum status status = outset_add(set, path, &file, err);
    return status ? status : report_html_put(file, table, err);
}

enum status report_html_write(const struct io_calls *io, const char *path, bool force, const struct sweep_table *table, struct err *err)
{
    struct outset *set = NULL;
    enum status status = outset_open(io, force, &set, err);
    if (!status) status = report_html_add(set, path, table, err);
    if (!status) status = outset_commit(set, err);
    outset_close(set);
    return status;
}
