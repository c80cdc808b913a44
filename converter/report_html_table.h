/* report_html_table.h: the tables of the page: variants, skipped ones, roles, tensors.
 *
 *   columns (head, kind, who shows it, how a cell is written) x rows of the sweep -> <table class="sorts">
 *
 * Why this way: one writer for all tables; a column is one line, and stands only where some row has something to show.
 * Corner cases: the first cell of a row is its head (th scope=row); cells whose text is no number to sort by have it in data-v.
 * Reference: WAI-ARIA 1.2, aria-sort, which the script adds with the buttons.
 */
#ifndef LLMQ_CONVERTER_REPORT_HTML_TABLE_H
#define LLMQ_CONVERTER_REPORT_HTML_TABLE_H

#include "converter/report_html_out.h"
#include "converter/report_html_view.h"

/* All variants with results, one a row; linked: one a variant, those that have a part of their own on the page. */
void table_variants(struct html *html, const struct view *view, const bool *linked);

/* All combinations that were skipped, with the reasons; nothing where there are none. */
void table_skipped(struct html *html, const struct view *view);

/* Of variant v: its roles; its tensors of least SQNR, at most n; all its tensors. The last two: ERR_MEMORY. */
void table_roles(struct html *html, const struct view *view, size_t v);
enum status table_worst(struct html *html, const struct view *view, size_t v, size_t n, struct err *err);
void table_tensors(struct html *html, const struct view *view, size_t v);

#endif
