/* convert_report.h: `convert --report`: what was written, read back, as the page that a sweep gives: one variant, a row a tensor, role and total.
 *
 *   plan + measured errors + the finished file (hashes of planes, codes and scales of one tensor) -> sweep_table -> report_html
 *
 * Why this way: hashes and counts are of what stands in the file, not of what was meant to be written.
 * Corner cases: a tensor that the output does not have under its name, or that llmq cannot decode, has no hash; sizes are those of the finished files,
 * compressed or not; a mix of formats is called so, its tensors say which they have.
 * Reference: sweep_table.h.
 */
#ifndef LLMQ_CONVERTER_CONVERT_REPORT_H
#define LLMQ_CONVERTER_CONVERT_REPORT_H

#include "converter/pipeline.h"

/* Before the work: OK without --report; ERR_EXISTS for a file that is there and not to be replaced, ERR_USAGE for the output itself or a file of the
 * model, ERR_IO where nothing can be written. */
enum status convert_report_check(const struct app *app, const struct plan *plan, struct err *err);

/* After it: nothing without --report. */
enum status convert_report_write(const struct app *app, const struct plan *plan, const struct result *result, struct err *err);

#endif
