/* arch_map.h: one architecture file of configs/arch, read and checked: what tensors are called, what facts there are, which groups, what is left alone.
 *
 *   qwen3.yaml --like--> llama.yaml       --> keys, patterns of names, parts, groups, unfolded, ignore, never;  facts.yaml --> facts, prefixes, drop
 *
 * Why this way: everything a model family needs is data; the checks of the file, with their lines, stand here, so that what uses a map may trust it.
 * Corner cases: keys of the file nobody knows, names of tensors, facts and parts that are not there, and expressions that are none are refused with
 * their line; a file may build on one other, which itself builds on none: maps merge member by member, lists are replaced as a whole.
 * Reference: configs/arch/README.md describes the files. Worked number: none needed.
 */
#ifndef LLMQ_SMOOTHQUANT_ARCH_MAP_H
#define LLMQ_SMOOTHQUANT_ARCH_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/io.h"
#include "base/yaml.h"
#include "container/name_table.h"
#include "smoothquant/group.h"

#define ARCH_KEY_NONE UINT32_MAX
#define ARCH_FACTS_FILE "facts.yaml"

/* A node and the document it stands in. node NULL: missing. */
struct arch_at {
    const struct yaml_doc *doc;
    const struct yaml_node *node;
};

enum arch_claim { ARCH_UNCLAIMED, ARCH_IGNORED, ARCH_NEVER, ARCH_UNFOLDED };

/* A kind of tensor. */
struct arch_key {
    const char *name; /* "attn_q" */
    bool in_layer;
    bool transposed[2]; /* in files of Hugging Face and the like, in GGUF: a whole matrix or stack (not that of a single expert) is [in, out] */
    bool plus_one; /* in files that are no GGUF the stored number is gain - 1 */
    bool experts; /* one matrix an expert */
    bool needed; /* a model without it, chosen by names, is not of this family */
    const char *out; /* expression: outputs; NULL: not checked */
    enum arch_claim claim; /* by ignore, never, unfolded */
    const char *why; /* of never and unfolded */
    struct arch_at at;
};

/* What a name without prefix stands for. */
struct arch_pattern {
    uint32_t key;
    uint32_t style; /* which of the key's names it is */
    bool is_bias, has_e;
};

/* Names of one kind of file. Texts are "L" or "M" (in a layer, of the model) and a name with {e} for a number. */
struct arch_patterns {
    struct name_table texts;
    char **copies;
    struct arch_pattern *items; /* of text i */
    size_t capacity;
};

/* A part of an axis of a tensor. Expressions; NULL where the file says nothing. */
struct arch_part {
    uint32_t key;
    const char *name, *size, *first, *run, *step;
    struct arch_at when;
};

/* A tensor, or a part of it, in a group. */
struct arch_ref {
    uint32_t key;
    const char *part; /* NULL: the whole */
    bool optional;
};

struct arch_group {
    enum smooth_kind kind;
    struct arch_ref *absorb, *consumers; /* owned */
    size_t n_absorb, n_consumers;
    const char *channels, *heads, *run; /* expressions or NULL */
    bool root, on_request, by_expert;
    struct arch_at when; /* the group exists only then */
    struct arch_at unless; /* list of conditions with their reasons; then it is refused */
};

struct arch_fact_spec {
    const char *name;
    struct arch_at at[3]; /* own, of the map below, of facts.yaml; node NULL where one says nothing */
};

struct arch_map {
    char *name; /* file name without .yaml; owned */
    struct yaml_doc *doc, *base, *common; /* base: NULL without `like` */
    const char **prefixes, **drops, **layers, **nested; /* NULL-terminated; owned */
    struct arch_key *keys;
    uint32_t n_keys;
    struct name_table key_names;
    struct arch_patterns hf, gguf;
    struct arch_part *parts;
    size_t n_parts;
    struct arch_group *groups;
    size_t n_groups;
    struct arch_fact_spec *facts;
    size_t n_facts;
    struct name_table fact_names;
};

/* path: of the file; what it builds on and facts.yaml come from dir. */
enum status arch_map_open(const struct io_calls *io, const char *dir, const char *path, struct arch_map **out, struct err *err);
void arch_map_close(struct arch_map *map); /* NULL allowed */

/* What facts.yaml says of nested configurations, before a map is chosen. */
struct arch_common {
    struct yaml_doc *doc;
    const char **nested; /* NULL-terminated; owned */
};
enum status arch_common_open(const struct io_calls *io, const char *dir, struct arch_common *out, struct err *err);
void arch_common_close(struct arch_common *common);

/* Number of the key, or ARCH_KEY_NONE. */
uint32_t arch_map_key(const struct arch_map *map, const char *name);

/* A top-level section of the file, else of the file it builds on; node NULL when neither has it. */
struct arch_at arch_map_section(const struct arch_map *map, const char *name);

/* Member of a fact's description, in the nearest file that has it; node NULL when none has. */
struct arch_at arch_fact_member(const struct arch_fact_spec *fact, const char *name);

/* The i-th name of a key in files of Hugging Face and the like (gguf false) or GGUF; NULL behind the last. */
const char *arch_key_name(const struct arch_key *key, bool gguf, size_t i);

/* Whether one of the names a match section lists (hf or gguf) is text. */
bool arch_match_has(const struct yaml_node *root, const char *section, const char *text);

#endif
