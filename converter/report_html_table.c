/* report_html_table.c: see report_html_table.h.
 *
 * Drawing: <table class="sorts"><caption/> <thead> th, th class="n" ... <tbody> th scope="row", td class="n" ...
 * Why this way: see report_html_table.h.
 * Corner cases: share of the error: of the sum of squares of all tensors of the variant; a dash where there is no error at all.
 * Reference: report_html_table.h. Worked number: a tensor with sum_dd 2 of a total of 8 has a share of 25 %.
 */
#include "converter/report_html_table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "converter/progress.h"

/* What cells are written from. */
struct cell_of {
    struct html *html;
    const struct view *view;
    const struct sweep_row *row, *total; /* of the row's variant; total may be NULL */
    const bool *linked;
};

struct column {
    const char *head, *kind; /* kind: class of the cells, "n" for numbers */
    bool (*shown)(const struct view *view); /* NULL: always */
    void (*put)(const struct cell_of *cell);
    double (*value)(const struct sweep_row *row); /* what to sort by, where the text does not do; NULL: the text */
};

/* ---- who shows a column ------------------------------------------------------------------------------------------------------------- */

static bool shows_weighted(const struct view *view)
{
    return view->table->weighted;
}

static bool shows_alpha(const struct view *view)
{
    return view->has_alpha;
}

static bool shows_perplexity(const struct view *view)
{
    return view->has_perplexity;
}

static bool shows_kl(const struct view *view)
{
    return view->has_kl;
}

static bool shows_front(const struct view *view)
{
    return view->main && view->n_shown > 1;
}

static bool shows_hash(const struct view *view)
{
    for (size_t r = 0; r < view->table->n_rows; r++)
        if (view->table->rows[r].hash[0]) return true;
    return false;
}

static bool shows_clipped(const struct view *view)
{
    for (size_t r = 0; r < view->table->n_rows; r++)
        if (!isnan(view->table->rows[r].clipped)) return true;
    return false;
}

/* ---- cells -------------------------------------------------------------------------------------------------------------------------- */

static void put_variant(const struct cell_of *cell)
{
    const size_t v = cell->row->variant;
    const bool linked = cell->linked && cell->linked[v];
    if (linked) html_put(cell->html, "<a href=\"#v%zu\">", v);
    html_text(cell->html, cell->view->table->variants[v].format);
    if (linked) html_put(cell->html, "</a>");
}

static void put_group(const struct cell_of *cell)
{
    html_text(cell->html, cell->view->table->variants[cell->row->variant].group_size);
}

static void put_rule(const struct cell_of *cell)
{
    html_text(cell->html, cell->view->table->variants[cell->row->variant].scale_rule);
}

static void put_alpha(const struct cell_of *cell)
{
    char text[32];
    html_text(cell->html, view_alpha(&cell->view->table->variants[cell->row->variant], text));
}

static void put_name(const struct cell_of *cell)
{
    html_put(cell->html, "<bdi>");
    html_text(cell->html, cell->row->name);
    html_put(cell->html, "</bdi>");
}

static void put_role(const struct cell_of *cell)
{
    html_text(cell->html, cell->row->role);
}

static void put_layer(const struct cell_of *cell)
{
    if (cell->row->layer == SWEEP_NO_LAYER) html_put(cell->html, "–");
    else html_put(cell->html, "%u", (unsigned)cell->row->layer);
}

static void put_format(const struct cell_of *cell)
{
    html_text(cell->html, cell->row->format);
}

static void put_weights(const struct cell_of *cell)
{
    html_count(cell->html, cell->row->n_weights);
}

static void put_bpw(const struct cell_of *cell)
{
    html_fixed(cell->html, cell->row->bpw, 3);
}

static double size_value(const struct sweep_row *row)
{
    return (double)(row->bits / 8);
}

static void put_size(const struct cell_of *cell)
{
    char text[24];
    html_text(cell->html, show_bytes(cell->row->bits / 8, text));
}

static void put_perplexity(const struct cell_of *cell)
{
    html_fixed(cell->html, cell->row->perplexity, 3);
}

static void put_kl(const struct cell_of *cell)
{
    html_figure(cell->html, cell->row->kl, 3);
}

/* A figure of errors, or a dash of a row of which nothing was quantised. */
static double measured(const struct sweep_row *row, double value)
{
    return row->n_measured ? value : (double)NAN;
}

static void put_error(const struct cell_of *cell)
{
    html_figure(cell->html, measured(cell->row, view_measures[MEASURE_ERROR].of(cell->row)), 3);
}

static void put_sqnr(const struct cell_of *cell)
{
    html_fixed(cell->html, measured(cell->row, cell->row->sqnr_db), 2);
}

static void put_weighted_sqnr(const struct cell_of *cell)
{
    html_fixed(cell->html, measured(cell->row, cell->row->wsqnr_db), 2);
}

static void put_mse(const struct cell_of *cell)
{
    html_figure(cell->html, measured(cell->row, cell->row->mse), 3);
}

static void put_max_error(const struct cell_of *cell)
{
    html_figure(cell->html, measured(cell->row, cell->row->max_error), 3);
}

static void put_clipped(const struct cell_of *cell)
{
    html_percent(cell->html, measured(cell->row, cell->row->clipped));
}

static void put_share(const struct cell_of *cell)
{
    const bool has = cell->total && cell->total->sum_dd > 0.0;
    html_percent(cell->html, measured(cell->row, has ? cell->row->sum_dd / cell->total->sum_dd : (double)NAN));
}

static void put_front(const struct cell_of *cell)
{
    if (cell->view->front[cell->row->variant]) html_put(cell->html, "<span class=\"front-yes\">front</span>");
}

static void put_hash(const struct cell_of *cell)
{
    html_put(cell->html, "%s", cell->row->hash[0] ? "" : "–");
    html_text(cell->html, cell->row->hash);
}

/* ---- the tables' columns ------------------------------------------------------------------------------------------------------------ */

static const struct column variant_columns[] = {
    { "format", "w", NULL, put_variant, NULL },
    { "group", "n", NULL, put_group, NULL },
    { "bits per weight", "n", NULL, put_bpw, NULL },
    { "perplexity", "n", shows_perplexity, put_perplexity, NULL },
    { "error, %", "n", NULL, put_error, NULL },
    { "SQNR, dB", "n", NULL, put_sqnr, NULL },
    { "weighted SQNR, dB", "n", shows_weighted, put_weighted_sqnr, NULL },
    { "front", "", shows_front, put_front, NULL },
    { "scale rule", "w", NULL, put_rule, NULL },
    { "α", "n", shows_alpha, put_alpha, NULL },
    { "file", "n", NULL, put_size, size_value },
    { "KL, nats", "n", shows_kl, put_kl, NULL },
    { "MSE", "n", NULL, put_mse, NULL },
    { "largest error", "n", NULL, put_max_error, NULL },
    { "clipped, %", "n", shows_clipped, put_clipped, NULL },
};

static const struct column role_columns[] = {
    { "role", "w", NULL, put_role, NULL },
    { "weights", "n", NULL, put_weights, NULL },
    { "bits per weight", "n", NULL, put_bpw, NULL },
    { "SQNR, dB", "n", NULL, put_sqnr, NULL },
    { "weighted SQNR, dB", "n", shows_weighted, put_weighted_sqnr, NULL },
    { "share of the error, %", "n", NULL, put_share, NULL },
};

static const struct column worst_columns[] = {
    { "tensor", "tensor", NULL, put_name, NULL },
    { "format", "w", NULL, put_format, NULL },
    { "SQNR, dB", "n", NULL, put_sqnr, NULL },
    { "weighted SQNR, dB", "n", shows_weighted, put_weighted_sqnr, NULL },
    { "share of the error, %", "n", NULL, put_share, NULL },
};

static const struct column tensor_columns[] = {
    { "tensor", "tensor", NULL, put_name, NULL },
    { "role", "w", NULL, put_role, NULL },
    { "layer", "n", NULL, put_layer, NULL },
    { "format", "w", NULL, put_format, NULL },
    { "weights", "n", NULL, put_weights, NULL },
    { "bits per weight", "n", NULL, put_bpw, NULL },
    { "SQNR, dB", "n", NULL, put_sqnr, NULL },
    { "weighted SQNR, dB", "n", shows_weighted, put_weighted_sqnr, NULL },
    { "MSE", "n", NULL, put_mse, NULL },
    { "largest error", "n", NULL, put_max_error, NULL },
    { "clipped, %", "n", shows_clipped, put_clipped, NULL },
    { "share of the error, %", "n", NULL, put_share, NULL },
    { "hash", "hash", shows_hash, put_hash, NULL },
};

enum { COLUMNS_MAX = 16 };

struct shape_of_table {
    const struct column *columns[COLUMNS_MAX];
    size_t n;
};

static struct shape_of_table choose_columns(const struct view *view, const struct column *columns, size_t n)
{
    struct shape_of_table shape = { .n = 0 };
    for (size_t k = 0; k < n; k++)
        if (!columns[k].shown || columns[k].shown(view)) shape.columns[shape.n++] = &columns[k];
    return shape;
}

#define COLUMNS(view, list) choose_columns(view, list, sizeof(list) / sizeof(list)[0])

/* ---- tables ------------------------------------------------------------------------------------------------------------------------- */

/* caption: a sentence above the table; "" for none. It stands outside, so that it does not scroll with the columns. */
static void open_div(struct html *html, const char *what, const char *caption)
{
    if (*caption) html_put(html, "<p class=\"soft\">%s</p>\n", caption);
    html_put(html, "<div class=\"wide\" tabindex=\"0\" role=\"group\" aria-label=\"%s\"><table class=\"sorts\"><caption class=\"seen\">%s</caption>",
             what, what);
}

static void open_table(struct html *html, const struct shape_of_table *shape, const char *what, const char *caption)
{
    open_div(html, what, caption);
    html_put(html, "<thead><tr>");
    for (size_t k = 0; k < shape->n; k++) html_put(html, "<th scope=\"col\" class=\"%s\">%s</th>", shape->columns[k]->kind, shape->columns[k]->head);
    html_put(html, "</tr></thead>\n<tbody>\n");
}

static void put_row(const struct shape_of_table *shape, const struct cell_of *cell)
{
    struct html *html = cell->html;
    html_put(html, "<tr>");
    for (size_t k = 0; k < shape->n; k++) {
        const struct column *column = shape->columns[k];
        html_put(html, k ? "<td class=\"%s\"" : "<th scope=\"row\" class=\"%s\"", column->kind);
        if (column->value) html_put(html, " data-v=\"%.17g\"", column->value(cell->row));
        html_put(html, ">");
        column->put(cell);
        html_put(html, k ? "</td>" : "</th>");
    }
    html_put(html, "</tr>\n");
}

static void close_table(struct html *html)
{
    html_put(html, "</tbody></table></div>\n");
}

void table_variants(struct html *html, const struct view *view, const bool *linked)
{
    const struct shape_of_table shape = COLUMNS(view, variant_columns);
    open_table(html, &shape, "Variants",
               "Bits per weight are those of the whole file over all weights. Error, SQNR and MSE are of the weights that were quantised.");
    for (size_t v = 0; v < view->table->n_variants; v++)
        if (view->totals[v]) put_row(&shape, &(struct cell_of){ html, view, view->totals[v], view->totals[v], linked });
    close_table(html);
}

void table_skipped(struct html *html, const struct view *view)
{
    if (view->n_skipped == 0) return;
    html_put(html, "<h3>Skipped</h3>\n");
    open_div(html, "Skipped", "Combinations that make no sense for their format, or could not be done.");
    html_put(html, "<thead><tr><th scope=\"col\">format</th><th scope=\"col\" class=\"n\">group</th><th scope=\"col\">scale rule</th>");
    if (view->has_alpha) html_put(html, "<th scope=\"col\" class=\"n\">α</th>");
    html_put(html, "<th scope=\"col\">reason</th></tr></thead>\n<tbody>\n");
    for (size_t v = 0; v < view->table->n_variants; v++) {
        const struct sweep_variant *variant = &view->table->variants[v];
        char alpha[32];
        if (!variant->skipped) continue;
        html_put(html, "<tr><th scope=\"row\" class=\"w\">");
        html_text(html, variant->format);
        html_put(html, "</th><td class=\"n\">");
        html_text(html, variant->group_size);
        html_put(html, "</td><td class=\"w\">");
        html_text(html, variant->scale_rule);
        if (view->has_alpha) {
            html_put(html, "</td><td class=\"n\">");
            html_text(html, view_alpha(variant, alpha));
        }
        html_put(html, "</td><td>");
        html_text(html, variant->skipped);
        html_put(html, "</td></tr>\n");
    }
    close_table(html);
}

/* All rows of one scope of variant v. */
static void put_rows(struct html *html, const struct view *view, size_t v, enum sweep_scope scope, const struct shape_of_table *shape)
{
    const struct sweep_variant *variant = &view->table->variants[v];
    for (size_t r = variant->first_row; r < variant->first_row + variant->n_rows; r++)
        if (view->table->rows[r].scope == scope) put_row(shape, &(struct cell_of){ html, view, &view->table->rows[r], view->totals[v], NULL });
}

void table_roles(struct html *html, const struct view *view, size_t v)
{
    const struct shape_of_table shape = COLUMNS(view, role_columns);
    open_table(html, &shape, "Roles", "");
    put_rows(html, view, v, SWEEP_ROLE, &shape);
    close_table(html);
}

void table_tensors(struct html *html, const struct view *view, size_t v)
{
    const struct shape_of_table shape = COLUMNS(view, tensor_columns);
    open_table(html, &shape, "All tensors", "");
    put_rows(html, view, v, SWEEP_TENSOR, &shape);
    close_table(html);
}

/* Of least SQNR first; of equal ones the earlier row. */
static int by_sqnr(const void *a, const void *b)
{
    const struct sweep_row *x = *(const struct sweep_row *const *)a, *y = *(const struct sweep_row *const *)b;
    if (x->sqnr_db < y->sqnr_db || x->sqnr_db > y->sqnr_db) return x->sqnr_db < y->sqnr_db ? -1 : 1;
    return x < y ? -1 : x > y;
}

enum status table_worst(struct html *html, const struct view *view, size_t v, size_t n, struct err *err)
{
    const struct sweep_variant *variant = &view->table->variants[v];
    const struct shape_of_table shape = COLUMNS(view, worst_columns);
    size_t n_rows = 0;
    const struct sweep_row **rows = malloc(variant->n_rows * sizeof *rows + 1);
    if (!rows) return err_set(err, ERR_MEMORY, "out of memory for the report");
    for (size_t r = variant->first_row; r < variant->first_row + variant->n_rows; r++) {
        const struct sweep_row *row = &view->table->rows[r];
        if (row->scope == SWEEP_TENSOR && row->n_measured && !isnan(row->sqnr_db)) rows[n_rows++] = row;
    }
    qsort(rows, n_rows, sizeof *rows, by_sqnr);
    open_table(html, &shape, "Worst tensors", "");
    for (size_t k = 0; k < n_rows && k < n; k++) put_row(&shape, &(struct cell_of){ html, view, rows[k], view->totals[v], NULL });
    close_table(html);
    free(rows);
    return OK;
}
