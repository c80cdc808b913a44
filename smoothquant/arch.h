/* arch.h: what stands where in a model, from the architecture files in configs/arch: tensors by their role, facts, and the groups that smoothing may touch.
 *
 *   arch_open(container)     "LlamaForCausalLM" -> configs/arch/llama.yaml
 *   arch_tensor(attn_q, 3)   model.layers.3.self_attn.q_proj.weight, or blk.3.attn_q.weight, or layers.3.attention.wq.weight
 *   arch_number("head_dim")  128
 *   arch_groups              norm -> q, k, v;  v -> o;  norm -> gate, up;  up -> down;  each layer, checked
 *
 * Why this way: no model is known by name in C: its tensors, facts and groups are data, and so is what a forward pass needs to know. A model is a closed
 * world: a tensor that the file does not explain might read what a group rescales, and refuses the groups of its layer.
 * Corner cases: keys are the words of GGUF (attn_q, ffn_down_exps, ...); a stack of experts has expert ARCH_NONE, single ones their number; wrappers'
 * prefixes (model., language_model., ...) and pieces (.base_layer) are looked through; a model that no file describes is refused by its name.
 * Reference: configs/arch/README.md; the project's smoothquant notes 1b, 3. Worked number: a Llama of 2 layers has 8 groups.
 */
#ifndef LLMQ_SMOOTHQUANT_ARCH_H
#define LLMQ_SMOOTHQUANT_ARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/io.h"
#include "base/yaml.h"
#include "container/container.h"
#include "smoothquant/group.h"

#define ARCH_NONE UINT32_MAX /* no layer, no single expert */

struct arch;

/* dir: the folder with the architecture files. file: the one to use, NULL to choose: by architectures[0] or model_type of config.json (then those of its
 * text_config), by general.architecture of GGUF keys; with neither, the only file that all tensors fit. ERR_UNSUPPORTED with the name that no file lists;
 * ERR_DATA for a malformed file or configuration. The container must outlive *out. */
enum status arch_open(const struct io_calls *io, const char *dir, const char *file, struct container *container, struct arch **out, struct err *err);
void arch_close(struct arch *arch); /* NULL allowed */

const char *arch_name(const struct arch *arch); /* of the file, without .yaml */
uint32_t arch_layers(const struct arch *arch);
bool arch_is_gguf(const struct arch *arch); /* its tensors have GGUF's names and shapes */

/* Facts, as configs/arch/facts.yaml and the architecture file list them. False when the model does not say, or says it layer by layer with different
 * values. A text lives as long as arch. */
bool arch_number(const struct arch *arch, const char *fact, double *out);
bool arch_flag(const struct arch *arch, const char *fact, bool *out);
bool arch_text(const struct arch *arch, const char *fact, const char **out);

/* Item i (of a layer) of a fact that is a list; of a single value that value. False behind the end. */
bool arch_number_at(const struct arch *arch, const char *fact, size_t i, double *out);
bool arch_text_at(const struct arch *arch, const char *fact, size_t i, const char **out);

/* Container index of a tensor, or SIZE_MAX. layer ARCH_NONE for those outside (token_embd, output_norm, output). expert ARCH_NONE for whole tensors. */
size_t arch_tensor(const struct arch *arch, const char *key, uint32_t layer, uint32_t expert, bool bias);

/* The same for one that must be there: ERR_DATA names the one that is missing. */
enum status arch_require(const struct arch *arch, const char *key, uint32_t layer, uint32_t expert, size_t *out, struct err *err);

/* Whether the stored gain of a norm is gain - 1, and whether a matrix (not that of a single expert) is stored as [in, out], in this model's files. */
bool arch_plus_one(const struct arch *arch, const char *key);
bool arch_transposed(const struct arch *arch, const char *key);
bool arch_is_transposed(const struct arch *arch, size_t tensor); /* the same by container index */

/* A top-level section of the architecture file ("forward"), or NULL. doc (may be NULL) gets its document, for yaml_error. */
const struct yaml_node *arch_section(const struct arch *arch, const char *section, const struct yaml_doc **doc);

/* All groups of all layers, and everything that is not folded with its reason; the caller frees *out with smooth_groups_free. ERR_MEMORY only: what the
 * model does not allow is a refusal. */
enum status arch_groups(const struct arch *arch, struct smooth_groups *out, struct err *err);

#endif
