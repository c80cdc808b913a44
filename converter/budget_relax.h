/* budget_relax.h: the linear relaxation of the choice under a budget: a bound, a choice within the budget, and the price of a bit where they part.
 *
 *   error                        the lower hull of an item's options, steps from the least cost on; all items' steps
 *     |*                         in the order of their slopes, until one does not fit: the break
 *     | \                        slope = (error before - error after) / (cost after - cost before)
 *     |  \  o
 *     |    *----___              bound = error at the break - slope of the break * bits left over
 *     +-------------*- cost
 *
 * Why this way: two sorts, no linear program; the bound needs no sum of large numbers that cancel, for the bits left over are few.
 * Corner cases: where every step fits there is no break, slope is 0 and the choice is the best one; steps of equal slope come in the order of the
 * items; slopes of one item fall strictly as they are computed, so the order of steps is an order of options too.
 * Reference: E. Zemel 1984. Worked number: two items {0: 10, 4: 2}, {0: 9, 6: 0} and 7 bits: slopes 2 and 1.5, break at the second with 3 bits left:
 * bound 2 + 9 - 1.5 * 3 = 6.5, best choice 10 + 0 or 2 + 9: 10.
 */
#ifndef LLMQ_CONVERTER_BUDGET_RELAX_H
#define LLMQ_CONVERTER_BUDGET_RELAX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* One option, counted from the cheapest one and from the most exact one of its item. */
struct excess {
    uint64_t cost;
    double error;
    size_t index; /* in the list of the caller */
};

/* Options by cost, which rises strictly, while error falls strictly: the first has cost 0, the last error 0. */
struct excess_item {
    struct excess *options;
    size_t n;
};

struct relaxation {
    size_t *base; /* options at the break, one an item */
    size_t *greedy; /* base, and after it every step and every option that still fits */
    uint64_t base_cost, greedy_cost;
    double base_error, greedy_error;
    double slope; /* of the break: error a bit; 0 when there is none */
};

/* Fills relaxation, whose lists the caller brings. budget: bits beyond the cheapest choice. */
enum status budget_relax(const struct excess_item *items, size_t n_items, uint64_t budget, struct relaxation *relaxation, struct err *err);

#endif
