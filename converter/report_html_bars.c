/* report_html_bars.c: see report_html_bars.h.
 *
 * Drawing: one card a variant: bars of codes, bars of scales, each with three labels along the bottom and the share of the tallest bar.
 * Why this way: bars stand side by side in the order of the codes; the values are written below the ends and the middle.
 * Corner cases: nothing counted: no plot. A texts for each bar up to TEXTS_MAX bars.
 * Reference: report_html_bars.h.
 */
#include "converter/report_html_bars.h"

#include <math.h>

enum { WIDTH = 336, HEIGHT = 142, TOP = 18, BOTTOM = 112, TEXTS_MAX = 64, FIGURES_MAX = 5 };

/* What one plot draws. */
struct bars {
    const char *title;
    const uint64_t *counts;
    size_t n;
    void (*value)(struct html *html, const struct sweep_histogram *histogram, size_t bin);
};

static void code_value(struct html *html, const struct sweep_histogram *histogram, size_t bin)
{
    html_short(html, histogram->code_values[bin], FIGURES_MAX);
}

static void scale_value(struct html *html, const struct sweep_histogram *histogram, size_t bin)
{
    html_put(html, "2^");
    html_short(html, histogram->scale_log2_low + (double)bin * histogram->scale_log2_step, FIGURES_MAX);
}

static void put_path(struct html *html, const struct bars *bars, size_t bin, double most, double step)
{
    const double height = (BOTTOM - TOP) * (double)bars->counts[bin] / most, x = step * (double)bin, gap = step > 4.0 ? 1.0 : 0.0;
    html_put(html, "M%.2f %dv-%.2fh%.2fv%.2fz", x, BOTTOM, height, step - gap, height);
}

static void put_bars(struct html *html, const struct sweep_histogram *histogram, const struct bars *bars, double most, double all)
{
    const double step = (double)WIDTH / (double)bars->n;
    const bool texts = bars->n <= TEXTS_MAX;
    if (!texts) html_put(html, "<path class=\"bar\" d=\"");
    for (size_t bin = 0; bin < bars->n; bin++) {
        if (bars->counts[bin] == 0) continue;
        if (texts) html_put(html, "<path class=\"bar\" d=\"");
        put_path(html, bars, bin, most, step);
        if (!texts) continue;
        html_put(html, "\"><title>");
        bars->value(html, histogram, bin);
        html_put(html, ": ");
        html_count(html, bars->counts[bin]);
        html_put(html, ", ");
        html_percent(html, (double)bars->counts[bin] / all);
        html_put(html, " %%</title></path>");
    }
    html_put(html, texts ? "\n" : "\"/>\n");
}

static void put_labels(struct html *html, const struct sweep_histogram *histogram, const struct bars *bars)
{
    static const char *const anchors[] = { "", " class=\"mid\"", " class=\"end\"" };
    const double step = (double)WIDTH / (double)bars->n;
    for (size_t k = 0; k < 3; k++) {
        const size_t bin = (bars->n - 1) * k / 2;
        if (k && bin == (bars->n - 1) * (k - 1) / 2) continue;
        html_put(html, "<text%s x=\"%.1f\" y=\"%d\">", anchors[k], k == 0 ? 0.0 : k == 2 ? WIDTH : step * ((double)bin + 0.5), BOTTOM + 16);
        bars->value(html, histogram, bin);
        html_put(html, "</text>");
    }
}

static void put_description(struct html *html, const struct sweep_histogram *histogram, const struct bars *bars, size_t tallest, double all)
{
    size_t empty = 0;
    for (size_t bin = 0; bin < bars->n; bin++) empty += bars->counts[bin] == 0;
    html_put(html, "%zu bins, %zu of them empty. Most often ", bars->n, empty);
    bars->value(html, histogram, tallest);
    html_put(html, ", ");
    html_percent(html, (double)bars->counts[tallest] / all);
    html_put(html, " %%; first bin ");
    html_percent(html, (double)bars->counts[0] / all);
    html_put(html, " %%, last bin ");
    html_percent(html, (double)bars->counts[bars->n - 1] / all);
    html_put(html, " %%.");
}

static void put_plot(struct html *html, const struct sweep_histogram *histogram, const struct bars *bars, const char *label)
{
    double all = 0.0;
    size_t tallest = 0;
    for (size_t bin = 0; bin < bars->n; bin++) {
        all += (double)bars->counts[bin];
        if (bars->counts[bin] > bars->counts[tallest]) tallest = bin;
    }
    if (bars->n == 0 || all == 0.0) return;
    const unsigned id = html->n_ids++;
    html_put(html,
             "<svg width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\" aria-labelledby=\"p%ut\" aria-describedby=\"p%ud\"><title "
             "id=\"p%ut\">%s, ",
             WIDTH, HEIGHT, WIDTH, HEIGHT, id, id, id, bars->title);
    html_text(html, label);
    html_put(html, "</title><desc id=\"p%ud\">", id);
    put_description(html, histogram, bars, tallest, all);
    html_put(html, "</desc><text x=\"0\" y=\"12\">%s</text><text class=\"end\" x=\"%d\" y=\"12\">", bars->title, WIDTH);
    html_percent(html, (double)bars->counts[tallest] / all);
    html_put(html, " %%</text><path class=\"grid\" d=\"M0 %dH%d\"/>\n", BOTTOM, WIDTH);
    put_bars(html, histogram, bars, (double)bars->counts[tallest], all);
    put_labels(html, histogram, bars);
    html_put(html, "</svg>\n");
}

void bars_section(struct html *html, const struct view *view)
{
    const struct sweep_table *table = view->table;
    if (!table->histogram_tensor || table->n_histograms == 0) return;
    html_put(html, "<section><h2>Codes and scales</h2>\n<p>What stands in the planes of <b class=\"tensor\"><bdi>");
    html_text(html, table->histogram_tensor);
    html_put(html, "</bdi></b>. The figure at the top right of a plot is the share of its tallest bar.</p>\n<div class=\"cards\">\n");
    for (size_t k = 0; k < table->n_histograms; k++) {
        const struct sweep_histogram *histogram = &table->histograms[k];
        const struct bars codes = { "codes", histogram->codes, histogram->codes ? histogram->n_codes : 0, code_value };
        const struct bars scales = { "magnitudes of scales", histogram->scales, histogram->scales ? histogram->n_scale_bins : 0, scale_value };
        char label[VIEW_LABEL_MAX];
        html_put(html, "<figure><h3>");
        html_text(html, view_full_label(view, histogram->variant, label));
        html_put(html, "</h3>\n");
        put_plot(html, histogram, &codes, label);
        put_plot(html, histogram, &scales, label);
        html_put(html, "<figcaption>");
        if (!histogram->codes) html_put(html, "The format has no codes of its own. ");
        html_count(html, histogram->n_scales);
        html_put(html, " scales, ");
        html_count(html, histogram->n_zero_scales);
        html_put(html, " of them 0</figcaption></figure>\n");
    }
    html_put(html, "</div></section>\n");
}
