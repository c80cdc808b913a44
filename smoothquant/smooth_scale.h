/* smooth_scale.h: smoothing factors: from what the activations and the weights of a group are to one number a channel.
 *
 *   x_j activation statistic, w_j = max over the rows of all consumers of |W_ij|, a = alpha
 *   sq   s_j = max( x_j^a / max(w_j, 1e-5)^(1-a), 1e-5 ), 1 where x_j^a = 0        (Intel's cal_scale, SmoothQuant)
 *   awq  s_j = max( x_j^a, 1e-4 )                                duo  s_j = max( x_j^a / (m_j^(1-a) + 1e-4), 1e-4 )
 *   every power is rounded to binary32 (smooth_power.h), then the sum, the quotient and the maximum, one rounding each
 *
 *   smooth_scales: family -> heads that share a producer channel -> clamp -> power of two -> dead channels
 *
 * Why this way: one function makes the factors of a fixed alpha and of every candidate of a search, so what was judged is what is folded.
 * Invariance: when a producer channel is multiplied by c and the consumers' column divided by c (the model computes the same), s_j of sq becomes c s_j
 * and W_ij s_j stays, to the last bit, if c and c^a are powers of two, as long as w_j / c >= 1e-5, s_j > 1e-5 and the clamp takes no channel. Sharing
 * keeps it (logarithms of a head move by whole numbers), the power of two keeps it (it is chosen from W s, which does not move). The clamp refers to a
 * geometric mean, which does move: a channel it takes is not invariant, so its default bounds are wide and what it took is counted. awq and duo are
 * not invariant, and dead channels are not: nothing is known of them.
 * Corner cases: a channel is dead when its statistic is 0 or not finite, its column is not finite, its factor is not finite or 0, or the caller says so
 * (a producer gain of 0): s = 1, or the power of two that brings w_j s_j into [0.5, 1) where w_j >= 1, so that it never sets the range of its
 * neighbours. Where heads share a producer channel it is dead only if it is in all of them. No live channel: all 1.
 * Reference: the project's smoothquant notes 1a, 2a, 2b, 6e.1, 6e.9. Worked number: x = 1, 4, 0, 2, w = .5, 1, 2, 1e-5, a = .5: sq gives 1.4142135, 2, 1,
 * 447.2136.
 */
#ifndef LLMQ_SMOOTHQUANT_SMOOTH_SCALE_H
#define LLMQ_SMOOTHQUANT_SMOOTH_SCALE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define SMOOTH_WEIGHT_MIN 1e-5f /* weight_max_lb of the original */
#define SMOOTH_SCALE_MIN 1e-5f /* least factor of sq, before the power of two */
#define SMOOTH_AWQ_MIN 1e-4f
#define SMOOTH_CLAMP_LOW 1e-4 /* of the geometric mean */
#define SMOOTH_CLAMP_HIGH 1e4

enum smooth_family { SMOOTH_SQ, SMOOTH_AWQ, SMOOTH_DUO, SMOOTH_FAMILY_COUNT };

/* How heads that share a producer channel agree on one factor. */
enum smooth_reduce { SMOOTH_REDUCE_GEOMEAN, SMOOTH_REDUCE_MAX, SMOOTH_REDUCE_COUNT };

/* "sq", "awq", "duo"; "geomean", "max". SMOOTH_FAMILY_COUNT, SMOOTH_REDUCE_COUNT for another word. */
const char *smooth_family_name(enum smooth_family family);
enum smooth_family smooth_family_find(const char *name);
enum smooth_reduce smooth_reduce_find(const char *name);

/* Intel's cal_scale for n channels, x >= 0 and w >= 0 finite: no sharing, no clamp, no power of two. weight_min is SMOOTH_WEIGHT_MIN in the original. */
void smooth_cal_scale(const float *x, const float *w, uint64_t n, double alpha, float weight_min, float *s);

/* What the factors of a group are made from. All arrays have n numbers and stay with the caller. */
struct smooth_channels {
    uint64_t n;
    const float *x; /* activation statistic, see smooth_stat.h */
    const float *w; /* column maxima over all rows of all consumers, as they are before migration */
    const float *wmean; /* mean over rows of |W_ij| / (largest of its quantisation group + 1e-6), for duo alone; may be NULL elsewhere */
    const bool *dead; /* channels to leave alone, say of a producer gain of 0; may be NULL */
    uint64_t share_heads, share_run; /* as in struct smooth_group; share_heads 0 or 1: every channel has its own producer channel */
    enum smooth_reduce reduce;
    double clamp_low, clamp_high; /* of the geometric mean of the live factors; 0: the defaults */
    bool no_power; /* leaves the factors where the family puts them */
};

/* What was done to the factors. */
struct smooth_scale_report {
    uint64_t n_dead; /* channels */
    uint64_t n_clipped; /* channels */
    int32_t exponent; /* live factors were multiplied by 2^exponent, -100 .. 100 */
};

/* The factors of one family and alpha, the steps above: s[n], each positive, finite and normal. report may be NULL. ERR_USAGE: duo without wmean;
 * share_heads * share_run no divisor of n. */
enum status smooth_scales(const struct smooth_channels *channels, enum smooth_family family, double alpha, float *s,
                          struct smooth_scale_report *report, struct err *err);

/* Factors that come from elsewhere (an AWQ cache, a recipe), made to agree over sharing heads; dead where not positive and finite. Nothing else is
 * done to them. ERR_USAGE as smooth_scales. */
enum status smooth_scales_take(const struct smooth_channels *channels, const float *given, float *s, struct smooth_scale_report *report,
                               struct err *err);

/* Adds n_rows of a consumer to wmean sums (sum[n], zeroed before): |W_ij| / (largest |W| of the row's group of `group` columns + 1e-6), group 0: the
 * row; sums in binary64 row by row. The mean is sum[j] / rows, rounded to binary32. */
void smooth_wmean_add(const float *w, uint64_t n_rows, uint64_t n, uint64_t group, double *sum);

/* Column maxima: raises out[n] (zeroed before) to |W_ij| of n_rows rows; NaN and Inf make a column Inf. */
void smooth_wmax_add(const float *w, uint64_t n_rows, uint64_t n, float *out);

/* Importance weights after migration: those of STATS.md 5 from E[x^2]_j / s_j^2; s NULL: from E[x^2]. False when all are 0 or not one is finite: no
 * importance, out untouched. */
bool smooth_importance(const double *ex2, const float *s, uint64_t n, float *out);

#endif
