/* report_html_heat.h: where a variant hurts: the error of every layer and role as a map of cells.
 *
 *             q      k      v      o     gate    up    down
 *     -                                                         tensors of no layer
 *     0     21.3   20.9   21.7   21.4   21.0   21.2   18.6      SQNR in dB; the darker (in dark mode the lighter), the more error
 *     1     21.1   ...
 *
 * Why this way: layers run down the page, because roles are few and layers are many: that fits a phone and a screen.
 * Corner cases: tensors of the same layer and role (experts) share a cell, their squares are added; a cell of kept tensors is empty with a border;
 * roles of which nothing was quantised have no column; at most HEAT_LAYERS_MAX rows and HEAT_ROLES_MAX columns, and the caption says what is missing.
 * Reference: sweep_table.h. Worked number: SQNR of a cell is 10 log10(sum of sum_xx / sum of sum_dd).
 */
#ifndef LLMQ_CONVERTER_REPORT_HTML_HEAT_H
#define LLMQ_CONVERTER_REPORT_HTML_HEAT_H

#include "converter/report_html_out.h"
#include "converter/report_html_view.h"

#define HEAT_LAYERS_MAX 512
#define HEAT_ROLES_MAX 24

/* The figure of variant v; nothing where no tensor of it was measured. ERR_MEMORY. */
enum status heat_figure(struct html *html, const struct view *view, size_t v, struct err *err);

#endif
