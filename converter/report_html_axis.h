/* report_html_axis.h: from values to pixels: an axis with its ticks, straight or by decades.
 *
 *   low |----+---------+---------+----| high          pixel = from + (to - from) (value - low) / (high - low)      log: of the logarithms
 *
 * Why this way: all plots share one choice of round numbers, so they read alike.
 * Corner cases: one value, or equal ones, get room around them; a logarithmic axis falls back to a straight one where a value is not above 0, and has
 * ticks of a straight one where its range is less than a factor of 4.
 * Reference: Heckbert, Nice numbers for graph labels, 1990. Worked number: 3.1 .. 8.4 in about 6 steps: step 1, ticks 4 .. 8.
 */
#ifndef LLMQ_CONVERTER_REPORT_HTML_AXIS_H
#define LLMQ_CONVERTER_REPORT_HTML_AXIS_H

#include <stdbool.h>
#include <stddef.h>

#define AXIS_TICKS_MAX 24

struct axis {
    double low, high; /* values at the ends */
    double from, to; /* pixels of low and high */
    bool log;
    double ticks[AXIS_TICKS_MAX];
    size_t n_ticks;
    int digits; /* behind the point, so that ticks differ */
};

/* An axis for finite values low .. high, with some room at the ends and about wanted ticks. */
struct axis axis_make(double low, double high, bool log, double from, double to, int wanted);

double axis_pixel(const struct axis *axis, double value);

#endif
