/* sweep.h: a model through many formats in one read: every slice is read and decoded once and coded by every variant.
 *
 *   formats x group sizes x scale rules x alphas -> variants -> for each the plan of convert -> tile -> f32 -> codes, scales -> error, digest -> rows
 *
 * Why this way: what a variant does to a tensor is what plan_convert says, so a row's hash is that of a separate conversion; only the writer is left
 * out.
 * Corner cases: combinations that a format does not have are listed with the reason; a variant that fails on the way (a scale overflows) is too; NaN
 * in a weight fails the sweep as it fails a conversion. Tensors longer than a tile whose groups are cut differently are read once for each cut.
 * Reference: converter/SWEEP.md.
 */
#ifndef LLMQ_CONVERTER_SWEEP_H
#define LLMQ_CONVERTER_SWEEP_H

#include "converter/app.h"
#include "converter/sweep_table.h"

/* What is asked. Lists are texts with commas; NULL: the format's default. Other options (--imatrix, --keep, --rule, --scale-dtype, ...) are those of
 * app->settings, as for convert. */
struct sweep_spec {
    const char *formats; /* "int4,nf4:scale=f16" */
    const char *group_sizes, *scale_rules, *alphas;
    const char *tensors; /* pattern, or role:ROLE, of the tensors that are measured; NULL: all */
    double sample; /* share of the tiles of each tensor, (0, 1] */
    const char *state_path; /* where finished tensors are kept until the end; NULL: nowhere */
    bool resume; /* what is there must fit; without it what does not fit is begun anew */
    const char *eval_text, *eval_tokens; /* files that perplexity is of, one of them; NULL: none */
    bool histograms;
    const char *histogram_tensor; /* NULL: the one with most of the error */
};

/* Runs the sweep; the caller frees the table (also after an error) and removes the state file once its results are safe (sweep_forget). */
enum status sweep_run(struct app *app, const struct sweep_spec *spec, struct sweep_table *table, struct err *err);
void sweep_forget(const struct app *app, const struct sweep_spec *spec);

#endif
