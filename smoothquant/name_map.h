/* name_map.h: what a weight is called elsewhere: GGUF names, names of checkpoints, single experts and stacks, from configs/names.yaml.
 *
 *   model.layers.3.mlp.experts.7.down_proj.weight --drop .weight, numbers to {}--> model.layers.{}.mlp.experts.{}.down_proj --table-->
 *   rule blk.{n}.ffn_down_exps, layer 3, expert 7
 *
 * Why this way: names are data; a name costs one hash look-up, however many patterns there are.
 * Corner cases: a name nothing fits is no error, the caller counts it; a pattern that two rules share is refused with its line; a number has at most 7
 * digits and no leading zero; pieces that wrappers add (drop) are taken out first; names of biases fit nothing.
 * Reference: llama.cpp gguf-py tensor_mapping.py; the project's layouts notes 3.2. Worked number: blk.12.attn_q.weight and
 * model.layers.12.self_attn.q_proj.weight are one place.
 */
#ifndef LLMQ_SMOOTHQUANT_NAME_MAP_H
#define LLMQ_SMOOTHQUANT_NAME_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/io.h"

#define NAME_NONE UINT32_MAX

struct name_map;

/* Where in a model a weight stands. */
struct name_place {
    uint32_t rule;
    uint32_t layer; /* NAME_NONE: outside the layers */
    uint32_t expert; /* NAME_NONE: no single expert */
};

enum status name_map_open(const struct io_calls *io, const char *path, struct name_map **map, struct err *err);
enum status name_map_parse(const char *text, size_t nbytes, const char *path, struct name_map **map, struct err *err);
void name_map_close(struct name_map *map); /* NULL allowed */

/* False when no pattern fits. */
bool name_map_find(const struct name_map *map, const char *name, struct name_place *place);

/* The name in GGUF files, with .weight: of the stack for a single expert. False when it does not fit into out_size bytes. */
bool name_map_gguf(const struct name_map *map, const struct name_place *place, char *out, size_t out_size);

/* True when the rule's GGUF tensor is a stack of experts. */
bool name_map_is_stack(const struct name_map *map, uint32_t rule);

/* The next rule after `after` (NAME_NONE: the first) that reads the same activations as rule, itself left out; NAME_NONE when there is none. */
uint32_t name_map_sibling(const struct name_map *map, uint32_t rule, uint32_t after);

#endif
