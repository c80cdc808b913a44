/* report_html_out.h: HTML text on its way into a file: escaped names, figures with the digits people read.
 *
 *   struct html --put, text, figure--> buffer --64 KiB at a time--> outfile
 *
 * Why this way: a page of 100 000 rows is streamed; errors are sticky, so that a writer of many pieces asks once, at the end.
 * Corner cases: & < > " ' become entities; control characters, bytes that are no UTF-8, and characters that reorder or hide text (U+061C,
 * U+200B..200F, U+2028..202E, U+2060..206F, U+FEFF) are spelt \xNN or \u{NNNN}; a figure that is NaN is an en dash, infinities are signed.
 * Reference: HTML Living Standard 13.1 (text, attribute values); Unicode TR 36 (bidirectional spoofing).
 */
#ifndef LLMQ_CONVERTER_REPORT_HTML_OUT_H
#define LLMQ_CONVERTER_REPORT_HTML_OUT_H

#include <stdint.h>

#include "base/err.h"
#include "base/io.h"
#include "base/text.h"

struct html {
    struct outfile *file;
    struct text buffer;
    uint64_t offset; /* bytes in the file */
    enum status status; /* of the first failure; its sentence is in err */
    struct err *err;
    unsigned n_ids; /* of plots so far, for ids */
};

/* Opens on a new output file; html_end writes what is left and tells whether all went well. */
void html_begin(struct html *html, struct outfile *file, struct err *err);
enum status html_end(struct html *html);

/* Markup, as printf. Nothing that comes from a file may go this way. */
void html_put(struct html *html, const char *format, ...) LLMQ_PRINTF(2, 3);

/* Text from anywhere, escaped for content and for attribute values in double quotes. */
void html_text(struct html *html, const char *text);

/* Figures: with digits behind the point; with significant digits, zeros at the end kept or not; a share of 1 in percent, without the sign; a whole number. */
void html_fixed(struct html *html, double value, int digits);
void html_figure(struct html *html, double value, int digits);
void html_short(struct html *html, double value, int digits);
void html_percent(struct html *html, double share);
void html_count(struct html *html, uint64_t n);

#endif
