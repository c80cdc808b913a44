/* budget_choice.h: what can be chosen under a bit budget: sets of tensors, for each set the candidates with their cost and error; and a choice written
 * as a recipe.
 *
 *   tensors q k v of layer 0 -> item 0: int3 {bits, error} int4 {..} ...         choice -> {match: 'role:q', format: int4, group-size: 128, ...}
 *
 * Why this way: costs are the bytes that the plan of each candidate gives the tensor, rounded up as the container aligns them; a recipe has a rule for
 * each role, and names the tensors that differ from the rest of their role before it.
 * Corner cases: names that hold characters of patterns are written as patterns that match only them; the command line's own rules stand first, so the
 * recipe says the same without it; a candidate that a tensor falls back from counts as its fallback.
 * Reference: budget.h. Worked number: 3 layers, 7 linear layers each: 15 items.
 */
#ifndef LLMQ_CONVERTER_BUDGET_CHOICE_H
#define LLMQ_CONVERTER_BUDGET_CHOICE_H

#include "base/text.h"
#include "converter/app.h"
#include "converter/budget.h"
#include "converter/budget_solve.h"
#include "converter/plan.h"
#include "converter/sweep_table.h"

struct budget_tensor {
    const char *name, *role; /* of the table */
    uint64_t n_weights;
    size_t item; /* SIZE_MAX: not chosen for */
    char *key; /* what the set has in common; NULL: alone */
    size_t slot; /* which of q, k, v or gate, up it is; then how far behind the first of its set it stands, SIZE_MAX for none */
};

struct budget_choice {
    const struct settings *settings;
    const struct sweep_table *table;
    struct budget_tensor *tensors; /* in the container's order */
    size_t n_tensors;
    struct budget_item *items;
    struct budget_option *options; /* of all items, n_candidates each */
    size_t n_items;
    const struct sweep_variant **candidates; /* those that are not skipped */
    size_t n_candidates;
    struct recipe *recipes; /* n_candidates, of plans */
    struct plan *plans; /* n_candidates: every linear layer in this format */
    struct out_tensor *outs; /* n_tensors: a choice for the writer */
    uint64_t n_weights; /* of the model */
    bool weighted;
};

/* From a sweep over all tensors, which must outlive the choice. ERR_USAGE when there is nothing to choose for. */
enum status budget_choice_make(struct app *app, const struct sweep_table *table, struct budget_choice *choice, struct err *err);
void budget_choice_free(struct budget_choice *choice);

/* Bytes of the file that a choice makes, all in all, and whether they are exact or an upper bound. */
enum status budget_choice_size(struct budget_choice *choice, const size_t *choices, struct writer_size *size, struct err *err);
uint64_t budget_choice_cost(const struct budget_choice *choice, const size_t *choices); /* bits, as the solver counts */
double budget_choice_error(const struct budget_choice *choice, const size_t *choices);

/* Appends the recipe; report (may be NULL) goes into its comments. */
void budget_choice_write(const struct budget_choice *choice, const size_t *choices, const struct budget_report *report, struct text *text);

#endif
