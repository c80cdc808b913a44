/* model_facts.h: what a recipe may ask of a model as a whole: how many blocks, experts and query heads a key head, whether the head is tied.
 *
 *   blk.0 .. blk.31, attn_q [4096, ..], attn_k [1024, ..], no output.weight  ->  32 blocks, gqa 4, tied
 *
 * Why this way: counted from names, roles and shapes, so that it works for every container, and no model is known by name; the keys of a GGUF file go
 * before what is counted.
 * Corner cases: the number of a block is the first number between dots in a name; a model without query or key matrices of its own (fused ones) has gqa
 * 0; ranks of blocks count those that have a tensor of the role.
 * Reference: llama.cpp's mixes depend on these facts.
 */
#ifndef LLMQ_CONVERTER_MODEL_FACTS_H
#define LLMQ_CONVERTER_MODEL_FACTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "container/container.h"
#include "converter/roles.h"

struct model_facts {
    uint32_t blocks, gqa, experts;
    bool tied;
    char *arch; /* general.architecture of a GGUF file, else NULL; owned */
    struct model_facts_role *roles; /* which blocks have tensors of which role; owned */
    size_t n_roles;
};

enum status model_facts_make(const struct container *container, const struct roles *roles, struct model_facts *facts, struct err *err);
void model_facts_free(struct model_facts *facts);

/* Whether the block of the tensor called name is one of `layers`: "3" or "0-2" (counted among the blocks that have a tensor of the role), "first/8"
 * (of their number, rounded down), "last/8", "more-bits" (the first and the last eighth, and every third between). False for tensors outside of
 * blocks. */
bool model_facts_in_layers(const struct model_facts *facts, const struct role *role, const char *name, const char *layers);

/* True when text is of that form. */
bool model_facts_is_layers(const char *text);

#endif
