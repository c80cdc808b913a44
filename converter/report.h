/* report.h: the plan before a run and the report after it, as text and as JSON.
 *
 * Why this way: both list every tensor with the rule that decided, so nothing happens to a tensor that nobody was told.
 * Corner cases: bits per weight are plane bits (scales and zero points included) over weights; the file's own bits per weight include everything.
 * Reference: design.md 1 (promise 1).
 */
#ifndef LLMQ_CONVERTER_REPORT_H
#define LLMQ_CONVERTER_REPORT_H

#include <stdbool.h>
#include <stdio.h>

#include "converter/pipeline.h"
#include "converter/plan.h"

/* result NULL: the plan. JSON: one object; members are documented in README.md. */
void report_text(FILE *out, const struct plan *plan, const struct result *result);
void report_json(FILE *out, const struct plan *plan, const struct result *result);

#endif
