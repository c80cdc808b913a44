/* fused.h: tensors that share the scales of their matrices, because runtimes multiply by them as one.
 *
 *   layers.3.self_attn. q_proj k_proj v_proj  -> one g        layers.3.mlp. gate_proj up_proj -> one g       (--nvfp4-scale fused)
 *
 * Why this way: a runtime that puts q, k and v (or gate and up) into one matrix has one scale g for it; with different ones it must quantise again, or
 * take the largest and lose bits. Which tensor has which role is data (roles.yaml); what belongs together has the same name but for its last part.
 * Corner cases: single experts have pairs of their own, stacks share g expert by expert; a tensor that is kept, or has another format, other columns
 * or another number of experts, is in no set; two tensors of one role in one place (q_a, q_b of equal width) leave the set unfused.
 * Reference: NUMERICS_BLOCK.md 6. Worked number: largest weights 0.5 and 0.25: g = fl(0.5 / 2688) for both.
 */
#ifndef LLMQ_CONVERTER_FUSED_H
#define LLMQ_CONVERTER_FUSED_H

#include "converter/app.h"
#include "converter/plan.h"

/* Sets fused_next of every entry: alone, or in a ring with those that share its g. Fates must be decided. */
enum status plan_fuse(const struct app *app, struct plan *plan, struct err *err);

#endif
