/* arch_map.c: see arch_map.h.
 *
 * Drawing: documents -> facts -> keys -> patterns -> claims -> parts -> groups; each step may name what the ones before it made.
 * Why this way: one pass in that order finds every name that means nothing.
 * Corner cases: the order of keys, facts and groups is that of the file, what the file below adds coming first.
 * Reference: see arch_map.h. Worked number: none needed.
 */
#include "smoothquant/arch_map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "smoothquant/arch_expr.h"

#define NAME_NBYTES_MAX 256u

static enum status no_memory(struct err *err)
{
    return err_set(err, ERR_MEMORY, "out of memory for an architecture map");
}

static enum status wrong(struct arch_at at, struct err *err, const char *what, const char *text)
{
    return yaml_error(at.doc, at.node, err, "%s '%s'", what, text);
}

static struct arch_at inside(struct arch_at at, const char *name)
{
    return (struct arch_at){ at.doc, at.node && at.node->kind == YAML_MAP ? yaml_get(at.node, name) : NULL };
}

static struct arch_at item(struct arch_at at, size_t i)
{
    return (struct arch_at){ at.doc, at.node->items[i] };
}

/* A scalar or a list: how many, and the i-th. */
static size_t list_length(struct arch_at at)
{
    if (!at.node) return 0;
    return at.node->kind == YAML_SEQUENCE ? at.node->n_items : 1;
}

static struct arch_at list_item(struct arch_at at, size_t i)
{
    return at.node->kind == YAML_SEQUENCE ? item(at, i) : at;
}

static enum status scalar(struct arch_at at, const char **out, struct err *err)
{
    enum status status = at.node ? yaml_expect(at.doc, at.node, YAML_SCALAR_VALUE, err) : OK;
    if (status == OK && at.node) *out = at.node->value;
    return status;
}

/* Every item a scalar. */
static enum status scalars(struct arch_at at, struct err *err)
{
    enum status status = OK;
    const char *text = NULL;
    if (at.node && at.node->kind == YAML_MAP) return yaml_expect(at.doc, at.node, YAML_SEQUENCE, err);
    for (size_t i = 0; i < list_length(at) && status == OK; i++) status = scalar(list_item(at, i), &text, err);
    return status;
}

static enum status flag(struct arch_at at, bool *out, struct err *err)
{
    return at.node ? yaml_bool(at.doc, at.node, out, err) : OK;
}

/* ---- sections ----------------------------------------------------------------------------------------------------------------------- */

static struct arch_at section_of(const struct yaml_doc *doc, const char *name)
{
    return (struct arch_at){ doc, doc ? yaml_get(doc->root, name) : NULL };
}

struct arch_at arch_map_section(const struct arch_map *map, const char *name)
{
    struct arch_at at = section_of(map->doc, name);
    return at.node || !map->base ? at : section_of(map->base, name);
}

/* Calls fn for each member of a section of maps: those of the file below first, in its order, each replaced by the file's own of that name. */
typedef enum status member_fn(struct arch_map *map, struct arch_at at, struct err *err);

static enum status each_member(struct arch_map *map, const char *name, member_fn *fn, struct err *err)
{
    struct arch_at own = section_of(map->doc, name), base = section_of(map->base, name);
    enum status status = own.node ? yaml_expect(own.doc, own.node, YAML_MAP, err) : OK;
    if (status == OK && base.node) status = yaml_expect(base.doc, base.node, YAML_MAP, err);
    for (size_t i = 0; base.node && i < base.node->n_items && status == OK; i++) {
        struct arch_at at = item(base, i), mine = inside(own, at.node->key);
        status = fn(map, mine.node ? mine : at, err);
    }
    for (size_t i = 0; own.node && i < own.node->n_items && status == OK; i++) {
        struct arch_at at = item(own, i);
        if (!inside(base, at.node->key).node) status = fn(map, at, err);
    }
    return status;
}

static size_t members(const struct arch_map *map, const char *name)
{
    struct arch_at own = section_of(map->doc, name), base = section_of(map->base, name);
    return (own.node ? own.node->n_items : 0) + (base.node ? base.node->n_items : 0);
}

static enum status text_list(struct arch_at at, const char ***out, struct err *err)
{
    enum status status = scalars(at, err);
    if (status != OK) return status;
    *out = calloc(list_length(at) + 1, sizeof **out);
    if (!*out) return no_memory(err);
    for (size_t i = 0; i < list_length(at); i++) (*out)[i] = list_item(at, i).node->value;
    return OK;
}

/* ---- facts -------------------------------------------------------------------------------------------------------------------------- */

struct arch_at arch_fact_member(const struct arch_fact_spec *fact, const char *name)
{
    for (size_t i = 0; i < 3; i++) {
        struct arch_at at = inside(fact->at[i], name);
        if (at.node) return at;
    }
    return (struct arch_at){ NULL, NULL };
}

static enum status add_fact(struct arch_map *map, struct arch_at at, size_t level, struct err *err)
{
    static const char *const known[] = { "hf", "gguf", "type", "default", NULL };
    size_t index = 0;
    enum status status = yaml_expect(at.doc, at.node, YAML_MAP, err);
    if (status == OK) status = yaml_check_keys(at.doc, at.node, known, err);
    if (status == OK) status = name_table_add(&map->fact_names, at.node->key, &index, err);
    if (status == OK) status = scalars(inside(at, "hf"), err);
    if (status == OK) status = scalars(inside(at, "gguf"), err);
    const char *type = "number", *text = NULL;
    if (status == OK) status = scalar(inside(at, "type"), &type, err);
    if (status == OK) status = scalar(inside(at, "default"), &text, err);
    if (status != OK) return status;
    if (strcmp(type, "number") != 0 && strcmp(type, "text") != 0 && strcmp(type, "flag") != 0)
        return wrong(inside(at, "type"), err, "a type is number, text or flag, not", type);
    if (map->fact_names.n_names > map->n_facts) map->facts[map->n_facts++] = (struct arch_fact_spec){ .name = at.node->key };
    map->facts[index].at[level] = at;
    return OK;
}

static enum status read_facts(struct arch_map *map, struct err *err)
{
    const struct yaml_doc *docs[3] = { map->doc, map->base, map->common };
    size_t n = 0;
    enum status status = OK;
    for (size_t level = 0; level < 3 && status == OK; level++) {
        struct arch_at at = section_of(docs[level], "facts");
        if (at.node) status = yaml_expect(at.doc, at.node, YAML_MAP, err);
        n += at.node ? at.node->n_items : 0;
    }
    if (status != OK) return status;
    map->facts = calloc(n + 1, sizeof *map->facts);
    if (!map->facts) return no_memory(err);
    for (size_t level = 3; level-- > 0;) {
        struct arch_at at = section_of(docs[level], "facts");
        for (size_t i = 0; at.node && i < at.node->n_items && status == OK; i++) status = add_fact(map, item(at, i), level, err);
    }
    return status;
}

/* Names that an expression may hold: facts, and n, e. */
static enum expr_answer lookup_name(void *context, const char *name, size_t n, uint64_t *out)
{
    const struct arch_map *map = context;
    char text[NAME_NBYTES_MAX];
    (void)out;
    if (n >= sizeof text) return EXPR_BAD;
    memcpy(text, name, n);
    text[n] = '\0';
    if (strcmp(text, "n") == 0 || strcmp(text, "e") == 0) return EXPR_OK;
    return name_table_find(&map->fact_names, text) == SIZE_MAX ? EXPR_BAD : EXPR_UNKNOWN;
}

static enum status expression(struct arch_map *map, struct arch_at at, const char **out, struct err *err)
{
    char why[EXPR_WHY_MAX];
    enum status status = scalar(at, out, err);
    if (status != OK || !at.node) return status;
    if (expr_check(at.node->value, lookup_name, map, why) == EXPR_BAD) return yaml_error(at.doc, at.node, err, "'%s': %s", at.node->value, why);
    return OK;
}

static enum status check_defaults(struct arch_map *map, struct err *err)
{
    enum status status = OK;
    for (size_t i = 0; i < map->n_facts && status == OK; i++) {
        struct arch_at type = arch_fact_member(&map->facts[i], "type"), value = arch_fact_member(&map->facts[i], "default");
        const char *text = value.node ? value.node->value : NULL;
        char *end = NULL;
        bool truth = false;
        if (!text || strcmp(text, "unknown") == 0) continue;
        if (type.node && strcmp(type.node->value, "flag") == 0) status = yaml_bool(value.doc, value.node, &truth, err);
        if (type.node && strcmp(type.node->value, "number") != 0) continue;
        (void)strtod(text, &end);
        if (*text == '\0' || *end != '\0') status = expression(map, value, &text, err);
    }
    return status;
}

/* ---- keys and their names ------------------------------------------------------------------------------------------------------------ */

const char *arch_key_name(const struct arch_key *key, bool gguf, size_t i)
{
    struct arch_at names = gguf ? inside(key->at, "gguf") : key->at.node->kind == YAML_MAP ? inside(key->at, "hf") : key->at;
    if (gguf && !names.node) return i == 0 ? key->name : NULL;
    return i < list_length(names) ? list_item(names, i).node->value : NULL;
}

static enum status add_pattern(struct arch_map *map, struct arch_patterns *patterns, struct arch_at at, const char *name, struct arch_pattern pattern,
                               struct err *err)
{
    char text[NAME_NBYTES_MAX + 2];
    size_t index = 0, before = patterns->texts.n_names;
    const struct arch_key *key = &map->keys[pattern.key];
    const char *mark = strstr(name, "{e}");
    if (strlen(name) > NAME_NBYTES_MAX || *name == '\0') return yaml_error(at.doc, at.node, err, "a name has 1 to %u bytes", NAME_NBYTES_MAX);
    if (strcspn(name, "{}") != strlen(name) && (!mark || strcspn(mark + 3, "{}") != strlen(mark + 3) || strcspn(name, "{}") != (size_t)(mark - name)))
        return wrong(at, err, "only one {e} may stand in", name);
    if (mark) map->keys[pattern.key].experts = true;
    if (mark && !key->in_layer) return wrong(at, err, "{e} stands in a layer only, not in", name);
    snprintf(text, sizeof text, "%c%s", key->in_layer ? 'L' : 'M', name);
    if (before == patterns->capacity) {
        size_t capacity = before ? before * 2 : 64;
        char **copies = realloc(patterns->copies, capacity * sizeof *copies);
        if (copies) patterns->copies = copies;
        struct arch_pattern *items = copies ? realloc(patterns->items, capacity * sizeof *items) : NULL;
        if (!items) return no_memory(err);
        patterns->items = items;
        patterns->capacity = capacity;
    }
    char *copy = strdup(text);
    if (!copy) return no_memory(err);
    enum status status = name_table_add(&patterns->texts, copy, &index, err);
    if (status == OK && patterns->texts.n_names > before) {
        pattern.has_e = mark != NULL;
        patterns->copies[index] = copy;
        patterns->items[index] = pattern;
        return OK;
    }
    free(copy);
    return status != OK ? status
                        : yaml_error(at.doc, at.node, err, "'%s' is a name of '%s' already", name, map->keys[patterns->items[index].key].name);
}

static enum status add_names(struct arch_map *map, uint32_t key, bool gguf, struct err *err)
{
    struct arch_at at = map->keys[key].at;
    struct arch_patterns *patterns = gguf ? &map->gguf : &map->hf;
    enum status status = OK;
    const char *name = NULL;
    for (uint32_t i = 0; status == OK && (name = arch_key_name(&map->keys[key], gguf, i)); i++)
        status = add_pattern(map, patterns, at, name, (struct arch_pattern){ .key = key, .style = i }, err);
    struct arch_at biases = inside(at, "bias");
    for (uint32_t i = 0; !gguf && i < list_length(biases) && status == OK; i++)
        status =
            add_pattern(map, patterns, at, list_item(biases, i).node->value, (struct arch_pattern){ .key = key, .style = i, .is_bias = true }, err);
    return status;
}

/* hf or gguf. */
static enum status read_transposed(struct arch_at at, struct arch_key *key, struct err *err)
{
    const char *text = "";
    enum status status = scalar(at, &text, err);
    if (status != OK || !at.node) return status;
    key->transposed[0] = strcmp(text, "hf") == 0;
    key->transposed[1] = strcmp(text, "gguf") == 0;
    return key->transposed[0] || key->transposed[1] ? OK : wrong(at, err, "transposed is hf or gguf, not", text);
}

static enum status add_key(struct arch_map *map, struct arch_at at, bool in_layer, struct err *err)
{
    static const char *const known[] = { "hf", "gguf", "bias", "transposed", "plus_one", "experts", "out", NULL };
    struct arch_key *key = &map->keys[map->n_keys];
    size_t index = 0;
    *key = (struct arch_key){ .name = at.node->key, .in_layer = in_layer, .at = at };
    enum status status = at.node->kind == YAML_MAP ? yaml_check_keys(at.doc, at.node, known, err) : scalars(at, err);
    if (status == OK) status = name_table_add(&map->key_names, at.node->key, &index, err);
    if (status == OK && index != map->n_keys) return wrong(at, err, "there are two keys", at.node->key);
    if (status == OK) status = scalars(inside(at, "hf"), err);
    if (status == OK) status = scalars(inside(at, "gguf"), err);
    if (status == OK) status = scalars(inside(at, "bias"), err);
    if (status == OK) status = read_transposed(inside(at, "transposed"), key, err);
    if (status == OK) status = flag(inside(at, "plus_one"), &key->plus_one, err);
    if (status == OK) status = flag(inside(at, "experts"), &key->experts, err);
    if (status == OK) status = expression(map, inside(at, "out"), &key->out, err);
    if (status != OK) return status;
    uint32_t number = map->n_keys++;
    status = add_names(map, number, false, err);
    return status == OK ? add_names(map, number, true, err) : status;
}

static enum status add_model_key(struct arch_map *map, struct arch_at at, struct err *err)
{
    return add_key(map, at, false, err);
}

static enum status add_layer_key(struct arch_map *map, struct arch_at at, struct err *err)
{
    return add_key(map, at, true, err);
}

static enum status read_keys(struct arch_map *map, struct err *err)
{
    map->keys = calloc(members(map, "model") + members(map, "layer") + 1, sizeof *map->keys);
    if (!map->keys) return no_memory(err);
    enum status status = each_member(map, "model", add_model_key, err);
    return status == OK ? each_member(map, "layer", add_layer_key, err) : status;
}

uint32_t arch_map_key(const struct arch_map *map, const char *name)
{
    size_t index = name_table_find(&map->key_names, name);
    return index == SIZE_MAX ? ARCH_KEY_NONE : (uint32_t)index;
}

static enum status find_key(const struct arch_map *map, struct arch_at at, const char *name, uint32_t *key, struct err *err)
{
    *key = arch_map_key(map, name);
    return *key == ARCH_KEY_NONE ? wrong(at, err, "there is no tensor", name) : OK;
}

/* ---- claims ------------------------------------------------------------------------------------------------------------------------- */

static enum status claim(struct arch_map *map, struct arch_at at, const char *name, enum arch_claim how, const char *why, struct err *err)
{
    uint32_t key = 0;
    enum status status = find_key(map, at, name, &key, err);
    if (status != OK) return status;
    if (map->keys[key].claim != ARCH_UNCLAIMED) return wrong(at, err, "two of ignore, never and unfolded list", name);
    map->keys[key].claim = how;
    map->keys[key].why = why;
    return OK;
}

static enum status add_never(struct arch_map *map, struct arch_at at, struct err *err)
{
    const char *why = "";
    enum status status = scalar(at, &why, err);
    return status == OK ? claim(map, at, at.node->key, ARCH_NEVER, why, err) : status;
}

static enum status add_unfolded(struct arch_map *map, struct arch_at at, struct err *err)
{
    const char *why = "";
    enum status status = scalar(at, &why, err);
    return status == OK ? claim(map, at, at.node->key, ARCH_UNFOLDED, why, err) : status;
}

static enum status read_needs(struct arch_map *map, struct err *err)
{
    struct arch_at needs = arch_map_section(map, "needs");
    uint32_t key = 0;
    enum status status = scalars(needs, err);
    for (size_t i = 0; i < list_length(needs) && status == OK; i++) {
        status = find_key(map, list_item(needs, i), list_item(needs, i).node->value, &key, err);
        if (status == OK) map->keys[key].needed = true;
    }
    return status;
}

static enum status read_claims(struct arch_map *map, struct err *err)
{
    struct arch_at ignore = arch_map_section(map, "ignore");
    enum status status = scalars(ignore, err);
    for (size_t i = 0; i < list_length(ignore) && status == OK; i++) {
        struct arch_at at = list_item(ignore, i);
        status = claim(map, at, at.node->value, ARCH_IGNORED, NULL, err);
    }
    if (status == OK) status = each_member(map, "never", add_never, err);
    return status == OK ? each_member(map, "unfolded", add_unfolded, err) : status;
}

/* ---- conditions, parts, groups ------------------------------------------------------------------------------------------------------- */

static enum status check_condition(struct arch_map *map, struct arch_at at, bool needs_why, struct err *err);

/* A list of conditions, which must all hold. */
static enum status check_conditions(struct arch_map *map, struct arch_at list, struct err *err)
{
    enum status status = OK;
    for (size_t i = 0; i < list.node->n_items && status == OK; i++) {
        status = yaml_expect(list.doc, list.node->items[i], YAML_MAP, err);
        if (status == OK) status = check_condition(map, item(list, i), false, err);
    }
    return status;
}

/* has and lacks name tensors, file is hf or gguf, why is text, all other members are facts. */
static enum status check_condition(struct arch_map *map, struct arch_at at, bool needs_why, struct err *err)
{
    if (at.node && at.node->kind == YAML_SEQUENCE && !needs_why) return check_conditions(map, at, err);
    enum status status = at.node ? yaml_expect(at.doc, at.node, YAML_MAP, err) : OK;
    if (status == OK && needs_why && !inside(at, "why").node) return yaml_error(at.doc, at.node, err, "a reason to refuse a group needs 'why'");
    for (size_t i = 0; at.node && i < at.node->n_items && status == OK; i++) {
        struct arch_at member = item(at, i);
        const char *name = member.node->key;
        bool tensors = strcmp(name, "has") == 0 || strcmp(name, "lacks") == 0;
        uint32_t key = 0;
        status = scalars(member, err);
        for (size_t k = 0; tensors && k < list_length(member) && status == OK; k++)
            status = find_key(map, list_item(member, k), list_item(member, k).node->value, &key, err);
        if (tensors || status != OK || (needs_why && strcmp(name, "why") == 0)) continue;
        if (strcmp(name, "file") == 0) {
            if (member.node->kind != YAML_SCALAR_VALUE || (strcmp(member.node->value, "hf") != 0 && strcmp(member.node->value, "gguf") != 0))
                return yaml_error(at.doc, member.node, err, "file is hf or gguf");
        } else if (name_table_find(&map->fact_names, name) == SIZE_MAX) return wrong(member, err, "there is no fact", name);
    }
    return status;
}

static enum status add_part(struct arch_map *map, struct arch_at at, struct err *err)
{
    static const char *const known[] = { "of", "name", "size", "first", "run", "step", "if", NULL };
    struct arch_part *part = &map->parts[map->n_parts++];
    const char *of = NULL;
    enum status status = yaml_expect(at.doc, at.node, YAML_MAP, err);
    if (status == OK) status = yaml_check_keys(at.doc, at.node, known, err);
    if (status == OK) status = scalar(inside(at, "of"), &of, err);
    if (status == OK) status = scalar(inside(at, "name"), &part->name, err);
    if (status != OK) return status;
    if (!of || !part->name || !inside(at, "size").node) return yaml_error(at.doc, at.node, err, "a part needs 'of', 'name' and 'size'");
    status = find_key(map, inside(at, "of"), of, &part->key, err);
    if (status == OK) status = expression(map, inside(at, "size"), &part->size, err);
    if (status == OK) status = expression(map, inside(at, "first"), &part->first, err);
    if (status == OK) status = expression(map, inside(at, "run"), &part->run, err);
    if (status == OK) status = expression(map, inside(at, "step"), &part->step, err);
    part->when = inside(at, "if");
    return status == OK ? check_condition(map, part->when, false, err) : status;
}

static enum status read_parts(struct arch_map *map, struct err *err)
{
    struct arch_at list = arch_map_section(map, "parts");
    enum status status = list.node ? yaml_expect(list.doc, list.node, YAML_SEQUENCE, err) : OK;
    if (status != OK || !list.node) return status;
    map->parts = calloc(list.node->n_items + 1, sizeof *map->parts);
    if (!map->parts) return no_memory(err);
    for (size_t i = 0; i < list.node->n_items && status == OK; i++) status = add_part(map, item(list, i), err);
    return status;
}

static bool has_part(const struct arch_map *map, uint32_t key, const char *name)
{
    for (size_t i = 0; i < map->n_parts; i++)
        if (map->parts[i].key == key && strcmp(map->parts[i].name, name) == 0) return true;
    return false;
}

/* "attn_qkv.v", "attn_q", "shared?" */
static enum status read_ref(struct arch_map *map, struct arch_at at, struct arch_ref *ref, struct err *err)
{
    char name[NAME_NBYTES_MAX];
    const char *text = at.node->value, *dot = strchr(text, '.');
    size_t n = dot ? (size_t)(dot - text) : strlen(text);
    ref->optional = n > 0 && text[n - 1] == '?';
    ref->part = dot ? dot + 1 : NULL;
    if (ref->optional) n--;
    if (n >= sizeof name) return wrong(at, err, "there is no tensor", text);
    memcpy(name, text, n);
    name[n] = '\0';
    enum status status = find_key(map, at, name, &ref->key, err);
    if (status != OK) return status;
    if (!map->keys[ref->key].in_layer) return wrong(at, err, "groups are made of tensors of a layer, not of", name);
    if (ref->part && !has_part(map, ref->key, ref->part)) return wrong(at, err, "there is no part", text);
    return OK;
}

static enum status read_refs(struct arch_map *map, struct arch_at at, struct arch_ref **refs, size_t *n, struct err *err)
{
    enum status status = scalars(at, err);
    if (status != OK) return status;
    *refs = calloc(list_length(at) + 1, sizeof **refs);
    if (!*refs) return no_memory(err);
    for (size_t i = 0; i < list_length(at) && status == OK; i++) status = read_ref(map, list_item(at, i), &(*refs)[(*n)++], err);
    return status;
}

static enum status read_kind(struct arch_at at, enum smooth_kind *kind, struct err *err)
{
    static const struct {
        const char *name;
        enum smooth_kind kind;
    } kinds[] = { { "N", SMOOTH_N }, { "U", SMOOTH_U }, { "R", SMOOTH_R }, { "V", SMOOTH_V }, { "M", SMOOTH_M }, { "G", SMOOTH_G } };
    for (size_t i = 0; at.node && at.node->kind == YAML_SCALAR_VALUE && i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(at.node->value, kinds[i].name) != 0) continue;
        *kind = kinds[i].kind;
        return OK;
    }
    return yaml_error(at.doc, at.node, err, "a kind is N, U, R, V, M or G");
}

static enum status read_unless(struct arch_map *map, struct arch_at list, struct err *err)
{
    enum status status = list.node ? yaml_expect(list.doc, list.node, YAML_SEQUENCE, err) : OK;
    for (size_t i = 0; list.node && i < list.node->n_items && status == OK; i++) status = check_condition(map, item(list, i), true, err);
    return status;
}

static enum status read_share(struct arch_map *map, struct arch_at at, struct arch_group *group, struct err *err)
{
    static const char *const known[] = { "heads", "run", NULL };
    if (!at.node) return OK;
    enum status status = yaml_expect(at.doc, at.node, YAML_MAP, err);
    if (status == OK) status = yaml_check_keys(at.doc, at.node, known, err);
    if (status == OK) status = expression(map, inside(at, "heads"), &group->heads, err);
    if (status == OK) status = expression(map, inside(at, "run"), &group->run, err);
    if (status == OK && (!group->heads || !group->run)) return yaml_error(at.doc, at.node, err, "share needs 'heads' and 'run'");
    return status;
}

static enum status add_group(struct arch_map *map, struct arch_at at, struct err *err)
{
    static const char *const known[] = {
        "kind", "absorb", "consumers", "channels", "share", "root", "on_request", "by_expert", "if", "unless", NULL
    };
    struct arch_group *group = &map->groups[map->n_groups++];
    enum status status = yaml_expect(at.doc, at.node, YAML_MAP, err);
    if (status == OK) status = yaml_check_keys(at.doc, at.node, known, err);
    if (status != OK) return status;
    struct arch_at kind = inside(at, "kind");
    status = read_kind(kind.node ? kind : at, &group->kind, err);
    if (status == OK) status = read_refs(map, inside(at, "absorb"), &group->absorb, &group->n_absorb, err);
    if (status == OK) status = read_refs(map, inside(at, "consumers"), &group->consumers, &group->n_consumers, err);
    if (status != OK) return status;
    if (group->n_absorb == 0 || group->n_consumers == 0) return yaml_error(at.doc, at.node, err, "a group needs 'absorb' and 'consumers'");
    status = expression(map, inside(at, "channels"), &group->channels, err);
    if (status == OK) status = read_share(map, inside(at, "share"), group, err);
    if (status == OK) status = flag(inside(at, "root"), &group->root, err);
    if (status == OK) status = flag(inside(at, "on_request"), &group->on_request, err);
    if (status == OK) status = flag(inside(at, "by_expert"), &group->by_expert, err);
    group->when = inside(at, "if");
    group->unless = inside(at, "unless");
    if (status == OK) status = check_condition(map, group->when, false, err);
    return status == OK ? read_unless(map, group->unless, err) : status;
}

static enum status read_groups(struct arch_map *map, struct err *err)
{
    struct arch_at list = arch_map_section(map, "groups");
    if (!list.node) return yaml_error(map->doc, map->doc->root, err, "there is no list 'groups'");
    enum status status = yaml_expect(list.doc, list.node, YAML_SEQUENCE, err);
    if (status != OK) return status;
    map->groups = calloc(list.node->n_items + 1, sizeof *map->groups);
    if (!map->groups) return no_memory(err);
    for (size_t i = 0; i < list.node->n_items && status == OK; i++) status = add_group(map, item(list, i), err);
    return status;
}

/* ---- documents ---------------------------------------------------------------------------------------------------------------------- */

bool arch_match_has(const struct yaml_node *root, const char *section, const char *text)
{
    const struct yaml_node *match = yaml_get(root, "match");
    struct arch_at list = inside((struct arch_at){ NULL, match }, section);
    for (size_t i = 0; i < list_length(list); i++) {
        const struct yaml_node *name = list_item(list, i).node;
        if (name->kind == YAML_SCALAR_VALUE && strcmp(name->value, text) == 0) return true;
    }
    return false;
}

static enum status check_document(const struct yaml_doc *doc, struct err *err)
{
    static const char *const known[] = { "match", "like",   "layers",   "model",  "layer", "needs",   "facts",
                                         "parts", "groups", "unfolded", "ignore", "never", "forward", NULL };
    static const char *const matches[] = { "hf", "gguf", NULL };
    struct arch_at match = section_of(doc, "match");
    enum status status = yaml_check_keys(doc, doc->root, known, err);
    if (status == OK && match.node) status = yaml_expect(doc, match.node, YAML_MAP, err);
    if (status == OK && match.node) status = yaml_check_keys(doc, match.node, matches, err);
    if (status == OK) status = scalars(inside(match, "hf"), err);
    return status == OK ? scalars(inside(match, "gguf"), err) : status;
}

static enum status open_in(const struct io_calls *io, const char *dir, const char *name, const char *ending, struct yaml_doc **doc, struct err *err)
{
    char file[NAME_NBYTES_MAX];
    int n = snprintf(file, sizeof file, "%s%s", name, ending);
    if (n < 0 || (size_t)n >= sizeof file || strchr(name, '/')) return err_set(err, ERR_DATA, "'%s' is no name of an architecture", name);
    char *path = path_join(dir, file);
    if (!path) return no_memory(err);
    enum status status = yaml_open(io, path, doc, err);
    free(path);
    return status;
}

enum status arch_common_open(const struct io_calls *io, const char *dir, struct arch_common *out, struct err *err)
{
    enum status status = open_in(io, dir, ARCH_FACTS_FILE, "", &out->doc, err);
    return status == OK ? text_list(section_of(out->doc, "nested"), &out->nested, err) : status;
}

void arch_common_close(struct arch_common *common)
{
    free(common->nested);
    yaml_close(common->doc);
}

static enum status open_base(const struct io_calls *io, const char *dir, struct arch_map *map, struct err *err)
{
    struct arch_at like = section_of(map->doc, "like");
    const char *name = NULL;
    enum status status = scalar(like, &name, err);
    if (status != OK || !name) return status;
    status = open_in(io, dir, name, ".yaml", &map->base, err);
    if (status == OK) status = check_document(map->base, err);
    if (status == OK && yaml_get(map->base->root, "like")) return wrong(like, err, "like names a map that builds on another itself:", name);
    return status;
}

static enum status read_common(struct arch_map *map, struct err *err)
{
    static const char *const known[] = { "prefixes", "drop", "nested", "facts", NULL };
    enum status status = yaml_check_keys(map->common, map->common->root, known, err);
    if (status == OK) status = text_list(section_of(map->common, "prefixes"), &map->prefixes, err);
    if (status == OK) status = text_list(section_of(map->common, "drop"), &map->drops, err);
    if (status == OK) status = text_list(section_of(map->common, "nested"), &map->nested, err);
    return status;
}

/* Every text has {n} once, behind a dot or at the start, and ends in a dot. */
static enum status read_layers(struct arch_map *map, struct err *err)
{
    struct arch_at at = arch_map_section(map, "layers");
    if (!at.node) return yaml_error(map->doc, map->doc->root, err, "there is no list 'layers'");
    enum status status = text_list(at, &map->layers, err);
    for (size_t i = 0; status == OK && map->layers[i]; i++) {
        const char *text = map->layers[i], *mark = strstr(text, "{n}.");
        if (!mark || mark[4] != '\0' || (mark > text && mark[-1] != '.')) return wrong(at, err, "a beginning of names ends in '{n}.', not", text);
    }
    return status;
}

static enum status read_map(const struct io_calls *io, const char *dir, struct arch_map *map, struct err *err)
{
    enum status status = check_document(map->doc, err);
    if (status == OK) status = open_base(io, dir, map, err);
    if (status == OK) status = open_in(io, dir, ARCH_FACTS_FILE, "", &map->common, err);
    if (status == OK) status = read_common(map, err);
    if (status == OK) status = read_layers(map, err);
    if (status == OK) status = read_facts(map, err);
    if (status == OK) status = check_defaults(map, err);
    if (status == OK) status = read_keys(map, err);
    if (status == OK) status = read_needs(map, err);
    if (status == OK) status = read_claims(map, err);
    if (status == OK) status = read_parts(map, err);
    return status == OK ? read_groups(map, err) : status;
}

static char *name_of(const char *path)
{
    char *name = strdup(path_base(path));
    char *end = name ? strstr(name, ".yaml") : NULL;
    if (end && end > name && end[5] == '\0') *end = '\0';
    return name;
}

enum status arch_map_open(const struct io_calls *io, const char *dir, const char *path, struct arch_map **out, struct err *err)
{
    struct arch_map *map = calloc(1, sizeof *map);
    if (!map) return no_memory(err);
    map->name = name_of(path);
    enum status status = map->name ? yaml_open(io, path, &map->doc, err) : no_memory(err);
    if (status == OK) status = read_map(io, dir, map, err);
    if (status == OK) *out = map;
    else arch_map_close(map);
    return status;
}

static void free_patterns(struct arch_patterns *patterns)
{
    for (size_t i = 0; i < patterns->texts.n_names; i++) free(patterns->copies[i]);
    name_table_free(&patterns->texts);
    free(patterns->copies);
    free(patterns->items);
}

void arch_map_close(struct arch_map *map)
{
    if (!map) return;
    for (size_t i = 0; i < map->n_groups; i++) {
        free(map->groups[i].absorb);
        free(map->groups[i].consumers);
    }
    free(map->groups);
    free(map->parts);
    free_patterns(&map->hf);
    free_patterns(&map->gguf);
    name_table_free(&map->key_names);
    name_table_free(&map->fact_names);
    free(map->keys);
    free(map->facts);
    free(map->prefixes);
    free(map->drops);
    free(map->layers);
    free(map->nested);
    yaml_close(map->doc);
    yaml_close(map->base);
    yaml_close(map->common);
    free(map->name);
    free(map);
}
