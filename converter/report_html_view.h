/* report_html_view.h: what the page is about: the variants with results, how each is called and coloured, what is compared, who is on the front.
 *
 *   table --> totals[v], styles[v] (number of the format), measures shown, front[v]: nobody else has both fewer bits and less of the main measure
 *
 * Why this way: plots, tables and sentences must agree on names, marks and front; they are decided here once.
 * Corner cases: a variant without a total (skipped, or the sweep was interrupted) is on no plot; of equal points the first is on the front; a measure
 * that some variant lacks is shown for the others, but is no main measure.
 * Reference: sweep_table.h. Worked number: squared error 0.01 of the signal: relative error 10 %, SQNR 20 dB.
 */
#ifndef LLMQ_CONVERTER_REPORT_HTML_VIEW_H
#define LLMQ_CONVERTER_REPORT_HTML_VIEW_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "converter/sweep_table.h"

#define VIEW_LABEL_MAX 128

/* Something that is less where a variant is better. */
struct view_measure {
    const char *name, *title, *axis; /* "error"; a heading; what the axis says */
    double (*of)(const struct sweep_row *row); /* NaN: not measured */
    bool log;
    const char *unit; /* after a figure: "" or " %" */
    int digits; /* of a figure in a sentence */
};

enum { MEASURE_PERPLEXITY, MEASURE_KL, MEASURE_WEIGHTED, MEASURE_ERROR, VIEW_MEASURES };
extern const struct view_measure view_measures[VIEW_MEASURES];

struct view {
    const struct sweep_table *table;
    const struct sweep_row **totals; /* one a variant; NULL: no results */
    unsigned *styles; /* one a variant: number of its format, in order of appearance */
    bool *front; /* one a variant */
    size_t n_formats, n_shown, n_skipped;
    const struct view_measure *main; /* NULL: nothing was measured */
    bool has_alpha, has_perplexity, has_kl;
};

enum status view_make(const struct sweep_table *table, struct view *view, struct err *err);
void view_free(struct view *view);

/* Marks in front (one a variant) those no other is better than, by a measure. */
void view_front(const struct view *view, const struct view_measure *measure, bool *front);

/* The shortest name that tells variant v from the others: "int4 64". All of it: "int4, group 64, mse". Return out, VIEW_LABEL_MAX bytes. */
const char *view_label(const struct view *view, size_t v, char *out);
const char *view_full_label(const struct view *view, size_t v, char *out);
const char *view_alpha(const struct sweep_variant *variant, char out[32]); /* "0.3", "auto" */

#endif
