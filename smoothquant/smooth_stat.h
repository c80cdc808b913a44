/* smooth_stat.h: which number of a channel's statistics is its x_j, and E[x_j^2].
 *
 *   absmax | rms = sqrt(sum2 / count) | mean = sum|x| / count | pctl:P | gain = |gain of the norm before it|
 *
 * Why this way: SmoothQuant takes maxima and AWQ means; the root mean square is least upset by a few tokens, an imatrix has it, and a norm's gain needs
 * no file at all.
 * pctl:P is per channel the smallest sampled |x| that P percent of the sampled tokens do not exceed (in_sample); without a sample, absmax_j but at most
 * the edge of in_hist below which P percent of all |x| lie (the histogram is of all channels together).
 * Corner cases: a matrix of count 0, a field that is missing: false, with a sentence; nothing is made up.
 * Reference: STATS.md 1; the project's smoothquant notes 1b. Worked number: sample |x| = 4, 1, 3, 2: pctl:50 is 2 (2 of 4 tokens), pctl:75 is 3, pctl:100
 * is 4.
 */
#ifndef LLMQ_SMOOTHQUANT_SMOOTH_STAT_H
#define LLMQ_SMOOTHQUANT_SMOOTH_STAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "smoothquant/stats_lookup.h"

enum smooth_stat_kind { SMOOTH_STAT_RMS, SMOOTH_STAT_ABSMAX, SMOOTH_STAT_MEAN, SMOOTH_STAT_PERCENTILE, SMOOTH_STAT_GAIN, SMOOTH_STAT_COUNT };

struct smooth_stat {
    enum smooth_stat_kind kind;
    double percentile; /* of pctl, 0 < P <= 100 */
};

/* "rms", "absmax", "mean", "pctl:99.9", "gain". ERR_USAGE for another text. */
enum status smooth_stat_parse(const char *text, struct smooth_stat *stat, struct err *err);

/* The text that smooth_stat_parse reads again; out has at least 32 bytes. */
const char *smooth_stat_text(const struct smooth_stat *stat, char *out);

/* What smooth_stat_read takes beside the slice. */
struct smooth_stat_source {
    const struct stats_slice *slice; /* may be NULL, or have no entry, for gain */
    uint64_t n; /* channels; the slice has as many */
    const float *gain; /* n gains of the norm (of 1 + w already 1 + w), for gain alone */
    double hist_top; /* 0: bins of in_hist as calibrate.h makes them (8 an octave); else bin b counts |x| in [b, b + 1) * hist_top / 2048 */
};

/* x[n], rounded to binary32 once, each finite and >= 0. ERR_DATA, naming the field, when the statistics do not have what it needs. */
enum status smooth_stat_read(const struct smooth_stat_source *source, const struct smooth_stat *stat, float *x, struct err *err);

/* E[x_j^2] = in_sum2 / counts: ex2[n]; without in_sum2 or counts it is approximated where it can be: mean^2, absmax^2 (only ratios matter then), gain^2.
 * *exact (may be NULL) says that it is not. False when there is nothing: ex2 is untouched. */
bool smooth_stat_ex2(const struct smooth_stat_source *source, double *ex2, bool *exact);

#endif
