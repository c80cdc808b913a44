/* budget_solve.c: see budget_solve.h.
 *
 * Drawing: options -> without beaten and unaffordable ones -> counted from the cheapest and the most exact -> relaxed once, which says how large the
 * error can be -> errors as whole numbers in units of 2^-50 of that -> relaxed again -> core -> choices.
 * Formula: unit = 2^(e - 50), with the greedy choice's error above the most exact one's in [2^(e-1), 2^e).
 * Why this way: whole numbers make sums exact and ties real; what all choices have in common is taken off first, so that one hopeless item does not
 * swallow the others' digits. Costs are divided by what divides them all: sets of equal tensors then often have a relaxation that is exact.
 * Corner cases: an option whose error alone is above that of the greedy choice is left out, be it the cheapest; costs beyond the budget are never
 * added up; sums of costs that overflow are only ever infeasible.
 * Reference: budget_solve.h. Worked number: {0: 10, 4: 2} and {0: 9, 6: 0} with 7 bits: 4 bits with error 2 + 9 = 11 is where steps of the relaxation
 * stop, 6 bits with error 10 + 0 is best.
 */
#include "converter/budget_solve.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "converter/budget_core.h"
#include "converter/budget_relax.h"

#define ERROR_MAX 0x1p900
#define ERROR_BITS 50

struct solving {
    const struct budget_item *given;
    size_t n_items;
    struct excess *options; /* of all items */
    struct excess_item *items;
    struct relaxation relaxation;
    uint64_t budget; /* beyond the cheapest choice, in units of all costs */
};

static int by_cost(const void *a, const void *b)
{
    const struct excess *x = a, *y = b;
    if (x->cost != y->cost) return x->cost < y->cost ? -1 : 1;
    if (x->error != y->error) return x->error < y->error ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* Of options sorted by cost, keeps those that no cheaper one equals or beats. */
static void drop_beaten(struct excess_item *item)
{
    size_t n = 1;
    for (size_t k = 1; k < item->n; k++)
        if (item->options[k].error < item->options[n - 1].error) item->options[n++] = item->options[k];
    item->n = n;
}

/* Counts costs and errors from the least ones of the item; returns the least cost. */
static uint64_t count_from_least(struct excess_item *item)
{
    const uint64_t cost = item->options[0].cost;
    const double error = item->options[item->n - 1].error;
    for (size_t k = 0; k < item->n; k++) {
        item->options[k].cost -= cost;
        item->options[k].error -= error;
    }
    return cost;
}

/* ---- reading ----------------------------------------------------------------------------------------------------------------------- */

static enum status check_items(const struct budget_item *items, size_t n_items, size_t *n_options, struct err *err)
{
    *n_options = 0;
    for (size_t i = 0; i < n_items; i++) {
        if (items[i].n_options == 0) return err_set(err, ERR_USAGE, "item %zu has nothing to choose from", i);
        *n_options += items[i].n_options;
        for (size_t k = 0; k < items[i].n_options; k++)
            if (!(items[i].options[k].error >= 0.0 && items[i].options[k].error <= ERROR_MAX))
                return err_set(err, ERR_DATA, "the error of option %zu of item %zu is %g", k, i, items[i].options[k].error);
    }
    return OK;
}

static enum status solving_make(struct solving *solving, size_t n_options, struct err *err)
{
    const size_t n = solving->n_items;
    solving->options = malloc(n_options * sizeof *solving->options + 1);
    solving->items = malloc(n * sizeof *solving->items + 1);
    solving->relaxation.base = malloc(n * sizeof(size_t) + 1);
    solving->relaxation.greedy = malloc(n * sizeof(size_t) + 1);
    if (solving->options && solving->items && solving->relaxation.base && solving->relaxation.greedy) return OK;
    return err_set(err, ERR_MEMORY, "out of memory for the choice of formats");
}

static void solving_free(struct solving *solving)
{
    free(solving->options);
    free(solving->items);
    free(solving->relaxation.base);
    free(solving->relaxation.greedy);
}

static void read_options(struct solving *solving)
{
    struct excess *out = solving->options;
    for (size_t i = 0; i < solving->n_items; i++) {
        const struct budget_item *given = &solving->given[i];
        solving->items[i] = (struct excess_item){ out, given->n_options };
        for (size_t k = 0; k < given->n_options; k++) out[k] = (struct excess){ given->options[k].cost_bits, given->options[k].error, k };
        qsort(out, given->n_options, sizeof *out, by_cost);
        drop_beaten(&solving->items[i]);
        out += given->n_options;
    }
}

/* Takes the cheapest choice off the budget. */
static enum status afford_cheapest(struct solving *solving, uint64_t budget, struct err *err)
{
    uint64_t least = 0;
    bool fine = true;
    for (size_t i = 0; i < solving->n_items && fine; i++) fine = size_add(least, solving->items[i].options[0].cost, &least);
    if (!fine) return err_set(err, ERR_USAGE, "the smallest choice of formats takes more than 2^64 bits");
    if (least > budget)
        return err_set(err, ERR_USAGE, "the smallest choice of formats needs at least %llu bits, %llu more than there are", (unsigned long long)least,
                       (unsigned long long)(least - budget));
    solving->budget = budget - least;
    return OK;
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b) {
        const uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Leaves out what the budget cannot pay for, counts from the least, in the largest unit of cost there is. */
static void count_all(struct solving *solving)
{
    uint64_t unit = 0;
    for (size_t i = 0; i < solving->n_items; i++) {
        struct excess_item *item = &solving->items[i];
        while (item->options[item->n - 1].cost - item->options[0].cost > solving->budget) item->n--;
        count_from_least(item);
        for (size_t k = 1; k < item->n; k++) unit = common_divisor(item->options[k].cost, unit);
    }
    if (unit == 0) unit = 1;
    solving->budget /= unit;
    for (size_t i = 0; i < solving->n_items; i++)
        for (size_t k = 0; k < solving->items[i].n; k++) solving->items[i].options[k].cost /= unit;
}

/* ---- whole numbers ----------------------------------------------------------------------------------------------------------------- */

/* Errors in whole numbers of 2^-shift, without options above the limit. */
static void round_errors(struct solving *solving, double limit, int shift)
{
    for (size_t i = 0; i < solving->n_items; i++) {
        struct excess_item *item = &solving->items[i];
        size_t n = 0;
        for (size_t k = 0; k < item->n; k++) {
            if (item->options[k].error > limit) continue;
            item->options[n] = item->options[k];
            item->options[n++].error = nearbyint(ldexp(item->options[k].error, shift));
        }
        item->n = n;
        drop_beaten(item);
        solving->budget -= count_from_least(item);
    }
}

/* Solves with whole numbers; *missing: the error by which the choice may be above the best one, 0 when it is the best. */
static enum status solve_rounded(struct solving *solving, double *missing, struct err *err)
{
    struct relaxation *relaxation = &solving->relaxation;
    int exponent;
    double bound;
    frexp(relaxation->greedy_error, &exponent);
    const int shift = ERROR_BITS - exponent;
    round_errors(solving, relaxation->greedy_error * (1.0 + 0x1p-40), shift);
    enum status status = budget_relax(solving->items, solving->n_items, solving->budget, relaxation, err);
    if (!status) status = budget_core(solving->items, solving->n_items, solving->budget, relaxation, &bound, err);
    if (status) return status;
    if (bound < relaxation->greedy_error) *missing = ldexp(relaxation->greedy_error - bound + (double)solving->n_items, -shift);
    return OK;
}

/* ---- the answer -------------------------------------------------------------------------------------------------------------------- */

static void write_answer(const struct solving *solving, double missing, size_t *choices, struct budget_answer *answer)
{
    *answer = (struct budget_answer){ .exact = missing == 0.0 };
    for (size_t i = 0; i < solving->n_items; i++) {
        const struct excess_item *item = &solving->items[i];
        choices[i] = item->options[solving->relaxation.greedy[i]].index;
        answer->cost_bits += solving->given[i].options[choices[i]].cost_bits;
        answer->error += solving->given[i].options[choices[i]].error;
    }
    answer->bound = answer->exact ? answer->error : fmax(0.0, answer->error - missing);
}

enum status budget_solve(const struct budget_item *items, size_t n_items, uint64_t budget_bits, size_t *choices, struct budget_answer *answer,
                         struct err *err)
{
    struct solving solving = { .given = items, .n_items = n_items };
    size_t n_options;
    double missing = 0.0;
    enum status status = check_items(items, n_items, &n_options, err);
    if (!status) status = solving_make(&solving, n_options, err);
    if (!status) {
        read_options(&solving);
        status = afford_cheapest(&solving, size_min(budget_bits, BUDGET_BITS_MAX), err);
    }
    if (!status) {
        count_all(&solving);
        status = budget_relax(solving.items, n_items, solving.budget, &solving.relaxation, err);
    }
    if (!status && solving.relaxation.greedy_error > 0.0) status = solve_rounded(&solving, &missing, err);
    if (!status) write_answer(&solving, missing, choices, answer);
    solving_free(&solving);
    return status;
}
