/* smooth_check.h: runs a model before and after its migration and compares what it says.
 *
 *   N token ids from a fixed sequence -> logits by the weights as they are; logits by the weights as they will be -> largest difference, KL divergence
 *
 * Why this way: the algebra of every group is checked when its factors are made; this checks the map too, on the function itself.
 * Corner cases: kept tensors are rounded to their type as they will be written, quantised ones are compared before they are quantised; a model whose
 * architecture llmq cannot run is refused, since the check was asked for.
 * Formula: passes when every |d| <= 1e-4 + 1e-5 |logit| (the reference's output_is_equal), or the mean KL divergence is below 1e-4 nats (16-bit weights
 * that are kept are rounded).
 * Reference: the project's smoothquant notes 1b, 5d. Worked number: stories260K in F32: 64 tokens, 1e-5.
 */
#ifndef LLMQ_CONVERTER_SMOOTH_CHECK_H
#define LLMQ_CONVERTER_SMOOTH_CHECK_H

#include "converter/smooth.h"

/* Does nothing unless --smooth-check is given and something is migrated. Fills smoothing->check; ERR_MISMATCH when the function has changed. */
enum status smooth_check(struct app *app, struct plan *plan, struct err *err);

#endif
