/* arch_case.h: models made of a text, in memory, for the tests of architecture files; and their groups as text.
 *
 *   "@input_layernorm 16\n@self_attn.q_proj 24x16\nlm_head 50x16"  with start "model.layers.{n}.", 2 layers
 *   -> model.layers.0.input_layernorm.weight [16], ...   ->  "N input_layernorm 16: input_layernorm -> self_attn.q_proj self_attn.k_proj"
 *
 * Why this way: a case of the table is what a person can check against the notes: names, shapes, groups, each in a line.
 * Corner cases: a line that begins with @ stands in every layer, @N: in layer N only; names get .weight unless they end in .bias or in a star, which is cut;
 * a type behind the shape (I8, F8_E4M3, Q for a quantised tensor) replaces BF16; {e:N} makes N experts.
 * Reference: group.h. A side is NAME, with ^ when its channels lie along rows, @FIRST+RUN/STEP unless 0, all, all, #MAT+N unless 0, 1, ~ for a gain less 1,
 * ! before a squared ReLU. A group is KIND, ? on request, id, channels, /HEADSxRUN when shared. Worked number: see above.
 */
#ifndef LLMQ_TESTS_ARCH_CASE_H
#define LLMQ_TESTS_ARCH_CASE_H

#include "container/container.h"
#include "smoothquant/arch.h"

/* config: text of config.json; or, when it begins with "gguf ", keys as "name=value name=value ..." with general.architecture first; or NULL. */
struct container *arch_case_container(const char *config, const char *start, uint32_t n_layers, const char *tensors);

/* Groups of one layer, a line each, in order; names without the beginning of the layer. The caller frees. */
char *arch_case_groups(const struct container *container, const struct smooth_groups *groups, const char *start, uint32_t layer);

/* All refusals, "id: why", a line each. The caller frees. */
char *arch_case_refusals(const struct smooth_groups *groups);

#endif
