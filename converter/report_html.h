/* report_html.h: the results of a sweep, or of one conversion, as one HTML page that needs nothing else.
 *
 *   head: figures     plots: error (and perplexity) against bits per weight     table of variants     skipped ones and why
 *   each variant:     layer x role heat map, roles, worst tensors, all tensors with hashes          codes and scales of one tensor     settings
 *
 * Why this way: a page without network, fonts or libraries can be mailed, archived and opened on a phone years later; plots are inline SVG, and all of
 * it can be read without script, which only adds sorting.
 * Corner cases: names of tensors are hostile: they are escaped, and control or direction characters are spelt out; what is left out to keep the page
 * small is said where it would stand; figures that were not measured are dashes.
 * Reference: HTML Living Standard; WAI-ARIA 1.2 (img, aria-sort); the table's meaning: sweep_table.h.
 */
#ifndef LLMQ_CONVERTER_REPORT_HTML_H
#define LLMQ_CONVERTER_REPORT_HTML_H

#include <stdbool.h>

#include "base/err.h"
#include "base/io.h"
#include "converter/sweep_table.h"

/* Writes the page into a file of a set. The bytes depend on the table alone. */
enum status report_html_put(struct outfile *file, const struct sweep_table *table, struct err *err);

/* Adds the page to a set of outputs at path; it appears when the set is committed. */
enum status report_html_add(struct outset *set, const char *path, const struct sweep_table *table, struct err *err);

/* The same as a set of its own: the page is there whole or not at all. force: an existing file is replaced. */
enum status report_html_write(const struct io_calls *io, const char *path, bool force, const struct sweep_table *table, struct err *err);

#endif
