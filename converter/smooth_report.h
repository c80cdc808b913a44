/* smooth_report.h: what is said of a migration: a line for each group, and why others were left.
 *
 *   model.layers.0.input_layernorm   N  64  alpha 0.45 sq   loss 1.00 -> 0.31   clipped 0  dead 2
 *
 * Why this way: plan and report say the same of the same struct.
 * Corner cases: a loss that nobody could measure is left out; reasons that repeat are told once, with how many they are of.
 * Reference: smooth.h. Example: llmq plan --in model --format int4 --smooth gain.
 */
#ifndef LLMQ_CONVERTER_SMOOTH_REPORT_H
#define LLMQ_CONVERTER_SMOOTH_REPORT_H

#include <stdio.h>

#include "converter/plan.h"

/* Both print nothing where nothing is migrated. JSON: the member "smoothing" with a comma before it. */
void smooth_report_text(FILE *out, const struct plan *plan);
void smooth_report_json(FILE *out, const struct plan *plan);

#endif
