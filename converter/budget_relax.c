/* budget_relax.c: see budget_relax.h.
 *
 * Drawing: options -> hull of each item -> steps, sorted by slope -> base (up to the break) -> greedy (whatever fits after it).
 * Why this way: a step that is taken after the break only if it goes on from where its item stands keeps the walk on the hulls; the last look over all
 * options fills what is left.
 * Corner cases: options on a straight line of the hull between two others are left out of it; they come back in the last look.
 * Reference: budget_relax.h. Worked number: options 0: 10, 1: 9, 2: 4, 4: 2: slopes 1 then 5 bend inwards, so the hull is 0, 2, 4 with slopes 3 and 1.
 */
#include "converter/budget_relax.h"

#include <stdlib.h>

struct step {
    double slope;
    size_t item, from, to; /* options */
};

static double slope_between(const struct excess *from, const struct excess *to)
{
    return (from->error - to->error) / (double)(to->cost - from->cost);
}

/* Steep ones first; of equal ones the earlier item. Steps of one item never tie. */
static int by_slope(const void *a, const void *b)
{
    const struct step *x = a, *y = b;
    if (x->slope != y->slope) return x->slope > y->slope ? -1 : 1;
    return x->item < y->item ? -1 : x->item > y->item;
}

/* Writes the steps of the lower hull of an item; returns how many. */
static size_t hull_steps(const struct excess_item *item, size_t number, struct step *out)
{
    size_t n = 0;
    for (size_t next = 1; next < item->n; next++) {
        struct step step = { .item = number, .to = next };
        for (;; n--) {
            step.from = n ? out[n - 1].to : 0;
            step.slope = slope_between(&item->options[step.from], &item->options[next]);
            if (n == 0 || step.slope < out[n - 1].slope) break;
        }
        out[n++] = step;
    }
    return n;
}

/* The most exact option of every item that the bits left over pay for, item after item. */
static void fill(const struct excess_item *items, size_t n_items, uint64_t budget, struct relaxation *relaxation)
{
    for (size_t i = 0; i < n_items; i++) {
        const struct excess *options = items[i].options;
        size_t *at = &relaxation->greedy[i];
        for (size_t k = items[i].n; k-- > *at + 1;) {
            const uint64_t more = options[k].cost - options[*at].cost;
            if (more > budget - relaxation->greedy_cost) continue;
            relaxation->greedy_cost += more;
            *at = k;
            break;
        }
    }
}

static void walk(const struct excess_item *items, const struct step *steps, size_t n_steps, uint64_t budget, struct relaxation *relaxation)
{
    bool broken = false;
    for (size_t s = 0; s < n_steps; s++) {
        const struct step *step = &steps[s];
        const struct excess *options = items[step->item].options;
        const uint64_t more = options[step->to].cost - options[step->from].cost;
        if (relaxation->greedy[step->item] != step->from) continue;
        if (more > budget - relaxation->greedy_cost) {
            if (!broken) relaxation->slope = step->slope;
            broken = true;
            continue;
        }
        relaxation->greedy[step->item] = step->to;
        relaxation->greedy_cost += more;
        if (broken) continue;
        relaxation->base[step->item] = step->to;
        relaxation->base_cost += more;
    }
}

enum status budget_relax(const struct excess_item *items, size_t n_items, uint64_t budget, struct relaxation *relaxation, struct err *err)
{
    size_t n_options = 0, n_steps = 0;
    for (size_t i = 0; i < n_items; i++) {
        n_options += items[i].n;
        relaxation->base[i] = relaxation->greedy[i] = 0;
    }
    relaxation->base_cost = relaxation->greedy_cost = 0;
    relaxation->base_error = relaxation->greedy_error = relaxation->slope = 0.0;
    struct step *steps = malloc(n_options * sizeof *steps + 1);
    if (!steps) return err_set(err, ERR_MEMORY, "out of memory for the choice of formats");
    for (size_t i = 0; i < n_items; i++) n_steps += hull_steps(&items[i], i, steps + n_steps);
    qsort(steps, n_steps, sizeof *steps, by_slope);
    walk(items, steps, n_steps, budget, relaxation);
    fill(items, n_items, budget, relaxation);
    for (size_t i = 0; i < n_items; i++) {
        relaxation->base_error += items[i].options[relaxation->base[i]].error;
        relaxation->greedy_error += items[i].options[relaxation->greedy[i]].error;
    }
    free(steps);
    return OK;
}
