/* report_html_style.h: how the page looks and what little it does by itself: a style sheet and a script, line by line.
 *
 * Why this way: within the program, so that a page needs no second file; lines and not one string, because C promises only 4095 characters of it.
 * Corner cases: without the script all is readable, only not sortable; colours of both schemes are set once, as variables.
 * Reference: CSS Color Adjustment 1 (prefers-color-scheme); Okabe and Ito 2008 (colours that the colour-blind tell apart).
 */
#ifndef LLMQ_CONVERTER_REPORT_HTML_STYLE_H
#define LLMQ_CONVERTER_REPORT_HTML_STYLE_H

#define STYLE_COLOURS 8 /* classes k0 .. k7: marks of formats */
#define STYLE_HEATS 9 /* classes h0 .. h8: heat, most error last */

/* Ends with NULL. */
extern const char *const style_lines[];
extern const char *const script_lines[];

/* What the Content-Security-Policy allows to run: the script above and nothing else. */
extern const char script_hash[];

#endif
