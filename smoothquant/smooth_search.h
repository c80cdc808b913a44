/* smooth_search.h: searches the smoothing factors of one group that cost the least after the real quantisation.
 *
 *   candidates   identity (number 0), then family by family alpha_min .. alpha_max, then refined ones
 *   member       V = fl(W * s), Y = Q(V) by the target format, D = (Y - V) / s         (what the layer's weights are wrong by)
 *   diag         sum_ij D_ij^2 E[x_j^2]          gram   sum_i D_i H D_i^T          sample   mean over t of sum_i (D_i x_t)^2
 *   w8a8         the original's: int8 weights a row, uint8 activations, sum |d|^0.5 of outputs over their largest
 *   group        joint: sum of members; mean: sum of members' relative losses; min, max: least, largest of the members' own best alphas
 *
 * Why this way: D is taken from what codec_encode and codec_decode_row make of the smoothed rows, so every format, rule, rounding and second-level scale
 * is judged by itself. Never worse: identity is always there, and a choice whose joint loss is above identity's is replaced by identity.
 * Order of sums: within a row over columns (diag: 8 lanes j mod 8, then their tree; gram, sample: ascending), rows ascending within blocks of rows, blocks
 * ascending, members ascending, all binary64: the same for any number of workers.
 * Invariance: V, Y and E[x_j^2] / s_j^2 do not move under the injection of smooth_scale.h, so losses of family sq, diag, do not; gram and sample agree
 * to rounding.
 * Corner cases: a member without a format is scaled but costs nothing; a candidate whose scales overflow, or whose smoothed weights do, costs Inf; no
 * member with a format: identity, loss 0. Ties go to the first in the order above.
 * Reference: the project's smoothquant notes 1b (AutoAlpha), 4c, 6e.5. Worked number: losses A {.3: 1, .5: 3, .7: 2}, B {.3: 4, .5: 1, .7: 2}: min .3, max
 * .5, sums 5, 4, 4: .5.
 */
#ifndef LLMQ_SMOOTHQUANT_SMOOTH_SEARCH_H
#define LLMQ_SMOOTHQUANT_SMOOTH_SEARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "number/format.h"
#include "smoothquant/smooth_scale.h"
#include "smoothquant/smooth_target.h"

#define SMOOTH_ALPHAS_MAX 1001u /* of one family */

enum smooth_loss { SMOOTH_LOSS_DIAG, SMOOTH_LOSS_GRAM, SMOOTH_LOSS_SAMPLE, SMOOTH_LOSS_W8A8, SMOOTH_LOSS_COUNT };
enum smooth_criterion { SMOOTH_JOINT, SMOOTH_MEAN, SMOOTH_MIN, SMOOTH_MAX, SMOOTH_CRITERION_COUNT };

/* "diag", "gram", "sample", "w8a8"; "joint", "mean", "min", "max"; .._COUNT for another word. */
const char *smooth_loss_name(enum smooth_loss loss);
enum smooth_loss smooth_loss_find(const char *name);
enum smooth_criterion smooth_criterion_find(const char *name);

struct smooth_settings {
    bool families[SMOOTH_FAMILY_COUNT]; /* none: no search, identity alone */
    double alpha_min, alpha_max, alpha_step; /* 0 <= min <= max <= 1, step > 0; decimals of the step are kept (at most 6) */
    enum smooth_criterion criterion;
    enum smooth_loss loss;
    double power; /* of loss w8a8: .5 (anything else: squares, as in the original) */
    uint32_t refine; /* times the step around the best is halved, at most 8 */
    bool importance; /* the format's scales are searched with importance E[x^2] / s^2, as the run does */
    bool refuse_worse; /* compare with identity and fall back to it; false only to follow the original */
};

/* families sq, alpha 0 .. 1 by .05, joint, diag, power .5, no refinement, no importance, refuse_worse. */
struct smooth_settings smooth_settings_default(void);

/* Alphas of the grid: round(min + i * step) to the decimals of the step, up to max (as numpy's arange(min, max + step, step), values above max left
 * out). alphas has SMOOTH_ALPHAS_MAX places. ERR_USAGE for bad or too many values. */
enum status smooth_grid(double alpha_min, double alpha_max, double alpha_step, double *alphas, size_t *n, struct err *err);

/* Rows of one consumer of the group. */
struct smooth_member {
    const float *w; /* n_rows x n, contiguous: rows of one matrix as they are before migration (times what other migrations do to its rows, if that is
                       known), all finite. For formats with squares, row 0 is the first of a square. May be NULL where quant is */
    uint64_t n_rows;
    const struct quant *quant; /* the format it will have; NULL: it is scaled, and costs nothing */
    const float *wmax; /* column maxima over ALL rows of its matrix, for formats whose matrices have a scale; NULL: those of w */
    double weight; /* its loss counts so often: rows of the matrix / n_rows; 0: 1 */
};

/* One group. Everything stays with the caller. */
struct smooth_problem {
    struct smooth_channels channels; /* wmean may be NULL: made from the members' rows where duo asks for it */
    const struct smooth_member *members;
    size_t n_members;
    const double *ex2; /* E[x_j^2]; for diag, importance and as the norm of criterion mean; may be NULL for gram, sample and w8a8 */
    const float *gram; /* packed rows of the upper triangle, as in stats.h; for gram */
    double gram_factor; /* H = gram * factor: 1 / count */
    const float *sample; /* n_sample x n tokens; for sample and w8a8 */
    uint64_t n_sample;
    const float *act_min, *act_max; /* ranges of the channels over all tokens; for w8a8; NULL: those of sample */
};

/* One line of the table of losses. */
struct smooth_candidate {
    bool identity;
    enum smooth_family family;
    double alpha;
    double loss; /* joint */
    uint64_t n_clipped, n_dead;
};

struct smooth_result {
    float *s; /* [n]; 1 for identity. Owned, as all arrays here */
    size_t best; /* number in candidates; 0: identity */
    double loss, identity_loss; /* joint losses of the best and of identity */
    bool fell_back; /* the criterion's choice was worse than identity and was replaced by it */
    struct smooth_scale_report report; /* of the best */
    struct smooth_candidate *candidates;
    size_t n_candidates;
    double *losses; /* [n_members][n_candidates]: members' own, times their weight; 0 for members without a format */
    size_t n_members;
};

/* Searches with n_workers threads (base/pool.h); the result does not depend on their number. *result is filled, smooth_result_free frees it, also after
 * an error. ERR_USAGE for settings or statistics that are missing, ERR_UNSUPPORTED for rows beyond a tile, ERR_MEMORY. */
enum status smooth_search(const struct smooth_problem *problem, const struct smooth_settings *settings, unsigned n_workers,
                          struct smooth_result *result, struct err *err);
void smooth_result_free(struct smooth_result *result);

/* Joint loss of given factors (s NULL: identity), by the loss of settings; losses[n_members], may be NULL, gets the members' own. */
enum status smooth_judge(const struct smooth_problem *problem, const struct smooth_settings *settings, const float *s, unsigned n_workers,
                         double *losses, double *joint, struct err *err);

/* Which of n alphas (in grid order) a criterion takes: losses[m * stride + i] of member m; members without a format (counts[m] false; counts NULL: all
 * count) are passed over. For joint and mean the least sum, sums over members in order; first on ties. norms NULL, or a divisor for each member
 * (mean). Returns n when no loss is finite. */
size_t smooth_criterion_pick(enum smooth_criterion criterion, const double *losses, size_t stride, size_t n_members, const bool *counts,
                             const double *norms, const double *alphas, size_t n);

#endif
