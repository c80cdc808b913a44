/* budget.h: a format for each linear layer, so that the file stays under a size and the error is least; as a recipe.
 *
 *   candidates --sweep--> error and bytes of each tensor in each format --solver--> choice --> recipe text --plan--> size of the file <= target
 *
 * Why this way: the recipe is what convert runs, in the same run or later, so what was chosen is what is written; the size is that of the plan, which
 * knows every byte.
 * Corner cases: q, k and v of a layer, and gate and up, get one format unless --free-fused; tensors that --rule or --keep decide are left as they say;
 * a target below what the least candidates need is an error that says how much that is.
 * Reference: SWEEP.md; budget_solve.h.
 */
#ifndef LLMQ_CONVERTER_BUDGET_H
#define LLMQ_CONVERTER_BUDGET_H

#include "converter/app.h"
#include "converter/recipe.h"

struct budget_use {
    char name[64]; /* of the candidate */
    uint64_t n_tensors, n_weights;
};

/* What came of it. */
struct budget_report {
    uint64_t target_nbytes, predicted_nbytes; /* of the whole file, or at most, as the plan says */
    bool exact_size; /* predicted is what will be written, to the byte */
    double target_bpw, predicted_bpw; /* over all weights of the model */
    double error, bound; /* sum of squared errors (weighted: by importance) of the choice, and what none of this size goes below */
    bool exact; /* proven best */
    bool weighted;
    size_t n_items; /* sets of tensors that were chosen for */
    struct budget_use *uses; /* one a candidate */
    size_t n_uses;
};

/* --target-bpw or --target-size is given. */
bool budget_wanted(const struct app *app);

/* Measures, chooses, writes --recipe-out, and opens the recipe in place of recipe_open. */
enum status budget_recipe(struct app *app, struct recipe *recipe, struct budget_report *report, struct err *err);
void budget_report_free(struct budget_report *report);

#endif
