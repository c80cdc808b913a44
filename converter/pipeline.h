/* pipeline.h: executes a plan: bytes -> f32 -> codes and scales -> planes -> bytes, in slices, on several threads.
 *
 * Why this way: the one line of arrows; it knows no format, container or model by name, only what the plan holds.
 * Corner cases: an error leaves no output; a changed input is found before anything becomes visible; errors of tensors are measured on the way and
 * folded in tile order.
 * Reference: design.md 2.
 */
#ifndef LLMQ_CONVERTER_PIPELINE_H
#define LLMQ_CONVERTER_PIPELINE_H

#include "converter/app.h"
#include "converter/plan.h"

struct result {
    struct measure *measures; /* one a plan entry, all zero where nothing was measured */
    double seconds;
    uint64_t out_nbytes; /* of all files written */
};

/* Runs the plan with files of the set (which the caller commits). result->measures is owned by the caller (result_free). */
enum status pipeline_run(const struct app *app, const struct plan *plan, struct outset *set, struct result *result, struct err *err);

/* Opens an output set for the plan, runs it, checks the inputs, commits. phase names the progress. */
enum status pipeline_execute(const struct app *app, const struct plan *plan, struct result *result, struct err *err);

void result_free(struct result *result);

#endif
