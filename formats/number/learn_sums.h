/* learn_sums.h: what one candidate scale costs over a span of weights: loss, its slope, and the sums of a least-squares refit.
 *
 *   d = fl(x - y)    loss = sum w d^2 = inside + clipped    dL/ds = 2 inside / s - 2 sum_clipped w d (q - z)    refit s = sum w x (q - z) / sum w (q - z)^2
 *
 * Why this way: terms and lanes are binary64, so weights of any size and importance weights from 1e-12 to 1e12 need no unit, and one pass gives all that
 * a learner asks. Spans add up: a tensor that does not fit in memory is summed span by span.
 * Corner cases: importance 0 leaves a weight out exactly; where clipped weights alone cost more than the best loss so far, no smaller scale can win,
 * because each of them only moves further from its end.
 * Reference: NUMERICS_LEARNED.md 3; the specification's 4.11. Worked number: int4, s = 0.5 over the 8 weights of NUMERICS_LEARNED.md 8: loss 0.1344.
 */
#ifndef LLMQ_NUMBER_LEARN_SUMS_H
#define LLMQ_NUMBER_LEARN_SUMS_H

#include <stddef.h>

#include "number/fakequant.h"

struct kernels;

struct learn_sums {
    double inside, clipped; /* loss of the weights whose code is in range, and of those clipped */
    double cross; /* sum over clipped of w d (q - z) */
    double xq, qq; /* sum of w x (q - z), of w (q - z)^2 */
};

/* Adds the sums of n finite weights under one scale; weight is NULL or n importance weights >= 0. The sum of a call is that of 16 lanes in the order of
 * NUMERICS.md 5; it is then added to *sums, so the calls' bounds and order belong to the result. */
typedef void learn_sums_fn(const struct fakequant *codes, float scale, const float *x, const float *weight, size_t n, struct learn_sums *sums);

/* The same bits at every level. Each function fills what its name says and leaves the other sums alone. */
struct learn_eval {
    const char *level; /* as struct kernels names it */
    learn_sums_fn *loss; /* inside, clipped */
    learn_sums_fn *slope; /* inside, clipped, cross */
    learn_sums_fn *fit; /* xq, qq */
};

/* The functions for the instruction set of a kernel set (NULL: portable). */
const struct learn_eval *learn_eval_for(const struct kernels *kernels);

static inline double learn_loss(const struct learn_sums *sums)
{
    return sums->inside + sums->clipped;
}

/* dL/ds: straight through inside, exact where clipped. */
static inline double learn_slope(const struct learn_sums *sums, float scale)
{
    return 2.0 * sums->inside / (double)scale - 2.0 * sums->cross;
}

#endif
