/* budget_solve.h: one option for each item, so that the sum of errors is least while the sum of bits stays within a budget.
 *
 *   items   q,k,v of layer 0      {int3: 98304 bits, error .31}  {int4: 131072 bits, error .07}  ...
 *           gate,up of layer 0    {...}
 *   minimise  sum over items of error[choice]     such that     sum over items of cost_bits[choice] <= budget
 *
 * Why this way: choosing a format for every set of tensors under a size is the multiple-choice knapsack problem; its linear relaxation is two sorts,
 * and the few items that the relaxation leaves open are enumerated. An answer that is not proven best says how far from the best it can be.
 * Corner cases: an item is a set of tensors that must share a choice, its costs and errors are the sums over the set; equal errors take fewer bits;
 * an item of one option is fixed; options that another one beats in both are never taken; a budget below the least possible cost is an error that
 * names the least one; no items cost nothing.
 * Reference: E. Zemel 1984 (relaxation), D. Pisinger, A minimal algorithm for the multiple-choice knapsack problem, EJOR 83 (1995).
 */
#ifndef LLMQ_CONVERTER_BUDGET_SOLVE_H
#define LLMQ_CONVERTER_BUDGET_SOLVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Budgets above this count as this: half an exabyte. */
#define BUDGET_BITS_MAX ((uint64_t)1 << 62)

struct budget_option {
    uint64_t cost_bits;
    double error; /* finite, >= 0; any unit, the same for all items */
};

struct budget_item {
    const struct budget_option *options;
    size_t n_options; /* at least 1 */
};

struct budget_answer {
    uint64_t cost_bits; /* of all choices, at most the budget */
    double error; /* of all choices, added in the order of the items */
    double bound; /* no choice within the budget has less error than this; equals error when exact */
    bool exact; /* proven best, but for errors rounded to 2^-50 of the part of the answer's error that is open to choice */
};

/* Chooses. choices: n_items option numbers, written on OK only. The result depends on the arguments alone (no time limit, no randomness); memory is
 * at most 16 MB and 100 bytes an option, allocated within. Thread-safe.
 * ERR_USAGE: an item without options or the budget is below the least cost ("... needs at least N bits"); ERR_DATA: an error that is negative or not
 * finite; ERR_MEMORY. */
enum status budget_solve(const struct budget_item *items, size_t n_items, uint64_t budget_bits, size_t *choices, struct budget_answer *answer,
                         struct err *err);

#endif
