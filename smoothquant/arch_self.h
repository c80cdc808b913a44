/* arch_self.h: what the files behind arch.h share.
 *
 *   config -> facts (arch_facts.c);  names of the container -> places (arch_names.c);  map + facts + places -> groups (arch_groups.c, arch_build.c)
 *
 * Why this way: each step is a file; users see arch.h only.
 * Corner cases: places are sorted by layer, key, bias and expert, so that one layer is one range.
 * Reference: arch.h. Worked number: none needed.
 */
#ifndef LLMQ_SMOOTHQUANT_ARCH_SELF_H
#define LLMQ_SMOOTHQUANT_ARCH_SELF_H

#include "smoothquant/arch.h"
#include "smoothquant/arch_config.h"
#include "smoothquant/arch_expr.h"
#include "smoothquant/arch_map.h"

#define ARCH_LAYERS_MAX 65536u
#define ARCH_EXPERTS_MAX 65536u

/* Where a tensor of the container stands in the model. */
struct arch_place {
    uint32_t layer; /* ARCH_NONE: outside the layers */
    uint32_t key; /* ARCH_KEY_NONE: in a layer, but called like nothing the map knows */
    uint32_t expert; /* ARCH_NONE: a whole tensor */
    bool is_bias;
    size_t tensor;
};

struct arch_fact {
    enum arch_fact_type { ARCH_NUMBER, ARCH_TEXT, ARCH_FLAG } type;
    bool known;
    struct config_value value; /* number, text, and lists */
};

struct arch {
    struct arch_map *map;
    struct arch_config *config;
    const struct container *container;
    struct arch_fact *facts; /* of map->facts */
    struct arch_place *places;
    size_t n_places;
    uint32_t n_layers;
    char *layer_start; /* "model.layers.{n}." as the container has it */
    uint32_t style; /* which of the names of a key this model uses most */
    bool gguf;
};

/* Reads all facts. */
enum status arch_facts_read(struct arch *arch, struct err *err);
void arch_facts_free(struct arch *arch);

/* The fact called name (n bytes), known or not; NULL when there is none. */
const struct arch_fact *arch_fact_find(const struct arch *arch, const char *name, size_t n);

/* Whether a condition (a map of the file; node NULL: always) holds in a layer. */
bool arch_condition(const struct arch *arch, struct arch_at condition, uint32_t layer);

/* Whether any tensor of the key stands in the layer, a whole one or one of an expert. */
bool arch_has(const struct arch *arch, uint32_t key, uint32_t layer);

/* Value of an expression over the facts; n and e as given. */
struct arch_scope {
    const struct arch *arch;
    uint64_t n, e;
    bool has_n, has_e;
};
enum expr_answer arch_expression(const struct arch_scope *scope, const char *text, uint64_t *out, char why[EXPR_WHY_MAX]);

/* Gives every tensor of the container its place. */
enum status arch_names_read(struct arch *arch, struct err *err);

/* First place of a layer, and the first behind it. */
size_t arch_layer_begin(const struct arch *arch, uint32_t layer);

/* Container index of a tensor by the number of its key, or SIZE_MAX. */
size_t arch_place_find(const struct arch *arch, uint32_t key, uint32_t layer, uint32_t expert, bool is_bias);

/* The name the container would have for a tensor, without .weight; cut to out_size. */
void arch_name_of(const struct arch *arch, uint32_t key, uint32_t layer, uint32_t expert, char *out, size_t out_size);

/* The container's name of a tensor, without .weight, into out. */
void arch_id_of(const struct arch *arch, size_t tensor, char *out, size_t out_size);

#define ARCH_WHY_MAX 700

/* One group to be made. */
struct arch_attempt {
    const struct arch *arch;
    const struct arch_group *spec;
    uint32_t layer;
    uint32_t expert; /* ARCH_NONE: for all of a layer */
    struct smooth_group group; /* what came out of it; owned */
    char id[512];
    char why[ARCH_WHY_MAX]; /* of a refusal; "" when the group stands */
};

/* Fills in group, id and why. ERR_MEMORY only; a group that cannot be is no error. */
enum status arch_build(struct arch_attempt *attempt, struct err *err);

/* How many experts the layer has of a key: as the stack says, else the configuration, else the single ones that are there. 0: none. */
uint32_t arch_experts(const struct arch *arch, uint32_t key, uint32_t layer);

/* Moves groups that would rescale the same channels of one tensor to the refusals. */
enum status arch_drop_conflicts(const struct arch *arch, struct smooth_groups *groups, struct err *err);

/* Appends; strings are copied. A group is taken over, also after an error. */
enum status arch_add_group(struct smooth_groups *groups, struct smooth_group *group, struct err *err);
enum status arch_add_refusal(struct smooth_groups *groups, const char *id, const char *why, struct err *err);

/* Whether the map explains every tensor in the layers and lacks none that its groups need. */
enum status arch_fits(const struct arch *arch, bool *fits, struct err *err);

#endif
