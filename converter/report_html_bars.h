/* report_html_bars.h: how often each code, and each size of scale, stands in the planes of one tensor.
 *
 *      codes           |  scales by powers of 2
 *       . | | .        |        . | .
 *     . | | | | .      |    . | | | | | .
 *    -8 ...  0 ... 7   |   2^-9  ...  2^-4
 *
 * Why this way: empty codes, codes that pile up at an end, and scales that cling to the least or largest number are what a wrong rule looks like.
 * Corner cases: codes are drawn where their values lie, so those of float elements lie closer near 0; bars of many codes are one path without texts;
 * a format without codes of its own has no such plot.
 * Reference: sweep_table.h, struct sweep_histogram.
 */
#ifndef LLMQ_CONVERTER_REPORT_HTML_BARS_H
#define LLMQ_CONVERTER_REPORT_HTML_BARS_H

#include "converter/report_html_out.h"
#include "converter/report_html_view.h"

/* The section of the table's chosen tensor; nothing where there is none. */
void bars_section(struct html *html, const struct view *view);

#endif
