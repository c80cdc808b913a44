/* budget_core.h: the exact part of the choice under a budget: the items that the relaxation leaves open, enumerated with bounds.
 *
 *   states after items 0 .. k of the core, by rising cost and falling error; all later items stand at the base
 *     (cost, error) x options of item k + 1 -> merged -> without those that another one beats, or whose bound is no better than the best choice known
 *
 * Why this way: an option far from the break's slope cannot be part of a better choice, which fixes nearly all items at once; the others come in the
 * order of their distance to that slope, so that bounds tighten as early as they can. Errors are whole numbers, so that sums are exact in any order.
 * Corner cases: states beyond a limit are dropped, the worst bounds first, and the best bound dropped limits what is proven; a state may be over
 * the budget while later items can still save; the work is limited by counting, never by a clock.
 * Reference: D. Pisinger 1995 (see budget_solve.h).
 */
#ifndef LLMQ_CONVERTER_BUDGET_CORE_H
#define LLMQ_CONVERTER_BUDGET_CORE_H

#include "converter/budget_relax.h"

/* Improves relaxation->greedy (with cost and error) to the best choice, and sets *bound: no choice within the budget has a smaller error. All errors
 * are whole numbers below 2^52, also in sum at base and greedy. */
enum status budget_core(const struct excess_item *items, size_t n_items, uint64_t budget, struct relaxation *relaxation, double *bound,
                        struct err *err);

#endif
