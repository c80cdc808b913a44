/* report_html_view.c: see report_html_view.h.
 *
 * Formula: relative error = 100 sqrt(sum d^2 / sum x^2) %, d = x - y over the weights that were quantised; weighted: squares times importance.
 * Why this way: a percentage of the weights says more to most people than decibels, and is less where it is better, as perplexity is; the tables have
 * both.
 * Corner cases: the group size stands in a short name only where its format comes with several, the rule and alpha likewise.
 * Reference: report_html_view.h.
 */
#include "converter/report_html_view.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double ratio_percent(double noise, double signal)
{
    return signal > 0.0 ? 100.0 * sqrt(noise / signal) : (double)NAN;
}

static double error_of(const struct sweep_row *row)
{
    return ratio_percent(row->sum_dd, row->sum_xx);
}

static double weighted_of(const struct sweep_row *row)
{
    return ratio_percent(row->sum_wdd, row->sum_wxx);
}

static double perplexity_of(const struct sweep_row *row)
{
    return row->perplexity;
}

static double kl_of(const struct sweep_row *row)
{
    return row->kl;
}

const struct view_measure view_measures[VIEW_MEASURES] = {
    [MEASURE_PERPLEXITY] = { "perplexity", "Perplexity against size", "perplexity", perplexity_of, true, "", 5 },
    [MEASURE_KL] = { "KL divergence", "KL divergence against size", "nats, from the model as it was read", kl_of, true, "", 3 },
    [MEASURE_WEIGHTED] = { "weighted error", "Weighted error against size", "error weighed by importance, % of the weights", weighted_of, true, " %",
                           3 },
    [MEASURE_ERROR] = { "error", "Error against size", "error, % of the weights (root mean square)", error_of, true, " %", 3 },
};

static const struct sweep_row *total_of(const struct sweep_table *table, const struct sweep_variant *variant)
{
    for (size_t r = variant->first_row + variant->n_rows; r-- > variant->first_row;)
        if (table->rows[r].scope == SWEEP_TOTAL) return &table->rows[r];
    return NULL;
}

static bool has_all(const struct view *view, const struct view_measure *measure)
{
    for (size_t v = 0; v < view->table->n_variants; v++)
        if (view->totals[v] && !isfinite(measure->of(view->totals[v]))) return false;
    return view->n_shown > 0;
}

static void look_at(struct view *view, size_t v)
{
    const struct sweep_table *table = view->table;
    const struct sweep_variant *variant = &table->variants[v];
    size_t same = 0;
    while (strcmp(table->variants[same].format, variant->format) != 0) same++;
    view->styles[v] = same < v ? view->styles[same] : (unsigned)view->n_formats++;
    view->has_alpha |= variant->alpha != 0.0;
    if (variant->skipped) view->n_skipped++;
    else view->totals[v] = total_of(table, variant);
    if (!view->totals[v]) return;
    view->n_shown++;
    view->has_perplexity |= !isnan(view->totals[v]->perplexity);
    view->has_kl |= !isnan(view->totals[v]->kl);
}

enum status view_make(const struct sweep_table *table, struct view *view, struct err *err)
{
    const size_t n = table->n_variants + 1;
    *view = (struct view){ .table = table };
    view->totals = calloc(n, sizeof *view->totals);
    view->styles = calloc(n, sizeof *view->styles);
    view->front = calloc(n, sizeof *view->front);
    if (!view->totals || !view->styles || !view->front) {
        view_free(view);
        return err_set(err, ERR_MEMORY, "out of memory for the report");
    }
    for (size_t v = 0; v < table->n_variants; v++) look_at(view, v);
    for (size_t m = 0; m < VIEW_MEASURES && !view->main; m++)
        if (has_all(view, &view_measures[m])) view->main = &view_measures[m];
    if (view->main) view_front(view, view->main, view->front);
    return OK;
}

void view_free(struct view *view)
{
    free(view->totals);
    free(view->styles);
    free(view->front);
    *view = (struct view){ 0 };
}

void view_front(const struct view *view, const struct view_measure *measure, bool *front)
{
    const size_t n = view->table->n_variants;
    for (size_t v = 0; v < n; v++) {
        const struct sweep_row *own = view->totals[v];
        front[v] = own && isfinite(own->bpw) && isfinite(measure->of(own));
        for (size_t w = 0; w < n && front[v]; w++) {
            const struct sweep_row *other = view->totals[w];
            if (w == v || !other || !isfinite(other->bpw) || !isfinite(measure->of(other))) continue;
            const double bits = other->bpw - own->bpw, error = measure->of(other) - measure->of(own);
            if (bits <= 0.0 && error <= 0.0 && (bits < 0.0 || error < 0.0 || w < v)) front[v] = false;
        }
    }
}

/* ---- names -------------------------------------------------------------------------------------------------------------------------- */

/* True when variants of the same format differ in this. */
static bool differ(const struct view *view, size_t v, char *const *(*field)(const struct sweep_variant *))
{
    const struct sweep_variant *own = &view->table->variants[v];
    for (size_t w = 0; w < view->table->n_variants; w++) {
        const struct sweep_variant *other = &view->table->variants[w];
        if (!other->skipped && strcmp(other->format, own->format) == 0 && strcmp(*field(other), *field(own)) != 0) return true;
    }
    return false;
}

static char *const *group_size_of(const struct sweep_variant *variant)
{
    return &variant->group_size;
}

static char *const *scale_rule_of(const struct sweep_variant *variant)
{
    return &variant->scale_rule;
}

static void append(char *out, const char *before, const char *text)
{
    const size_t used = strlen(out);
    snprintf(out + used, VIEW_LABEL_MAX - used, "%s%s", before, text);
}

const char *view_alpha(const struct sweep_variant *variant, char out[32])
{
    if (isnan(variant->alpha)) snprintf(out, 32, "%s", variant->alpha_text);
    else snprintf(out, 32, "%.4g", variant->alpha);
    return out;
}

static void append_alpha(const struct view *view, size_t v, const char *before, char *out)
{
    char text[32];
    if (view->has_alpha) append(out, before, view_alpha(&view->table->variants[v], text));
}

const char *view_label(const struct view *view, size_t v, char *out)
{
    const struct sweep_variant *variant = &view->table->variants[v];
    out[0] = '\0';
    append(out, "", variant->format);
    if (differ(view, v, group_size_of)) append(out, " ", variant->group_size);
    if (differ(view, v, scale_rule_of)) append(out, " ", variant->scale_rule);
    append_alpha(view, v, " α ", out);
    return out;
}

const char *view_full_label(const struct view *view, size_t v, char *out)
{
    const struct sweep_variant *variant = &view->table->variants[v];
    out[0] = '\0';
    append(out, "", variant->format);
    if (*variant->group_size) append(out, ", group ", variant->group_size);
    if (*variant->scale_rule) append(out, ", ", variant->scale_rule);
    append_alpha(view, v, ", α ", out);
    return out;
}
