/* report_html_scatter.h: the plots of error, or perplexity, against bits per weight.
 *
 *   one measure, one figure, drawn twice: .large for screens, .small for phones (one of them is shown)
 *
 * Why this way: a plot that is scaled down to a phone has letters of 5 pixels; drawing it again for 360 pixels has letters of 12.
 * Corner cases: marks on the front are filled and joined by a line, others are hollow; formats differ in colour and in shape; a name stands beside a
 * mark where it meets nothing else, those on the front first.
 * Reference: report_html_view.h.
 */
#ifndef LLMQ_CONVERTER_REPORT_HTML_SCATTER_H
#define LLMQ_CONVERTER_REPORT_HTML_SCATTER_H

#include "converter/report_html_out.h"
#include "converter/report_html_view.h"

/* The figure of a measure; nothing where fewer than two variants have it. front: one a variant, by this measure. */
void scatter_figure(struct html *html, const struct view *view, const struct view_measure *measure, const bool *front);

/* The list of formats with their marks. */
void scatter_legend(struct html *html, const struct view *view);

#endif
