/* importance.h: importance weights of a plan's tensors, from a file of activation statistics (--imatrix).
 *
 *   file -> stats_set -> by name, name map or same input -> a row of weights of mean 1 for each matrix of each tensor that is quantised
 *
 * Why this way: all is read, checked and counted for the plan, so that convert meets no surprise; the statistics are freed then, and only weights
 * that can change a byte stay: 4 bytes a column of each matrix.
 * Corner cases: a tensor or expert without statistics is coded as without the option, and counted; a file of which no tensor is found is an error;
 * so is another number of channels; a run in which nothing searches by error says so.
 * Reference: smoothquant/STATS.md 5. Worked number: 1, 0, 3 -> 0.75, 0, 2.25.
 */
#ifndef LLMQ_CONVERTER_IMPORTANCE_H
#define LLMQ_CONVERTER_IMPORTANCE_H

#include "converter/app.h"
#include "converter/plan.h"

/* Fills plan->weighing and the importance of its entries; does nothing without --imatrix. Fates must be decided; memory and scratch are raised. */
enum status plan_weigh(struct app *app, struct plan *plan, struct err *err);

#endif
