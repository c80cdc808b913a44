/* arch_facts.c: the facts of a model, the conditions of a map, and expressions over facts; see arch_self.h.
 *
 * Formula: fact = first of its names that the configuration has, else its default (a number or expression, a text, true or false).
 * Why this way: what a family's own configuration leaves out has the default of that family, which stands in its file.
 * Corner cases: a value of the wrong type is an error that names it; a list is a fact only where all its items are equal, and has no default then;
 * defaults may build on each other in any order; an expression that does not come out whole leaves its fact unknown.
 * Reference: configs/arch/facts.yaml. Worked number: hidden 4096, n_heads 32, no head_dim: 128.
 */
#include "smoothquant/arch_self.h"

#include <stdlib.h>
#include <string.h>

#define WHOLE_MAX 9007199254740992.0 /* 2^53 */

static size_t names_of(struct arch_at at)
{
    if (!at.node) return 0;
    return at.node->kind == YAML_SEQUENCE ? at.node->n_items : 1;
}

static const char *name_at(struct arch_at at, size_t i)
{
    return at.node->kind == YAML_SEQUENCE ? at.node->items[i]->value : at.node->value;
}

static bool all_equal(const struct config_value *value)
{
    for (size_t i = 1; i < value->n; i++) {
        if (value->numbers && value->numbers[i] < value->numbers[0]) return false;
        if (value->numbers && value->numbers[i] > value->numbers[0]) return false;
        if (value->texts && strcmp(value->texts[i], value->texts[0]) != 0) return false;
    }
    return value->n > 0;
}

/* Makes a fact of what the configuration says; false when it has the wrong type. */
static bool take(struct arch_fact *fact, struct config_value *value)
{
    static const enum config_kind wanted[][3] = { [ARCH_NUMBER] = { CONFIG_NUMBER, CONFIG_NUMBERS, CONFIG_NUMBERS },
                                                  [ARCH_TEXT] = { CONFIG_TEXT, CONFIG_TEXTS, CONFIG_TEXTS },
                                                  [ARCH_FLAG] = { CONFIG_FLAG, CONFIG_NUMBER, CONFIG_NUMBERS } };
    const enum config_kind *kinds = wanted[fact->type];
    if (value->kind != kinds[0] && value->kind != kinds[1] && value->kind != kinds[2]) return false;
    bool list = value->kind == CONFIG_NUMBERS || value->kind == CONFIG_TEXTS;
    fact->value = *value;
    *value = (struct config_value){ 0 };
    fact->known = !list || all_equal(&fact->value);
    if (list && fact->known && fact->value.numbers) fact->value.number = fact->value.numbers[0];
    return true;
}

static enum status read_fact(struct arch *arch, size_t index, struct err *err)
{
    const struct arch_fact_spec *spec = &arch->map->facts[index];
    struct arch_fact *fact = &arch->facts[index];
    struct arch_at names = arch_fact_member(spec, arch->gguf ? "gguf" : "hf"), type = arch_fact_member(spec, "type");
    struct config_value value = { 0 };
    if (type.node && strcmp(type.node->value, "text") == 0) fact->type = ARCH_TEXT;
    if (type.node && strcmp(type.node->value, "flag") == 0) fact->type = ARCH_FLAG;
    for (size_t i = 0; i < names_of(names); i++) {
        enum status status = arch_config_get(arch->config, name_at(names, i), &value, err);
        if (status != OK) return status;
        bool absent = value.kind == CONFIG_ABSENT || ((value.kind == CONFIG_NUMBERS || value.kind == CONFIG_TEXTS) && value.n == 0);
        bool taken = !absent && take(fact, &value);
        config_value_free(&value);
        if (taken) return OK;
        if (!absent) return err_set(err, ERR_DATA, "the configuration's '%s' is no %s", name_at(names, i), type.node ? type.node->value : "number");
    }
    return OK;
}

static bool has_list(const struct arch_fact *fact)
{
    return fact->value.kind == CONFIG_NUMBERS || fact->value.kind == CONFIG_TEXTS;
}

/* True when the fact became known. */
static bool take_default(struct arch *arch, size_t index)
{
    struct arch_fact *fact = &arch->facts[index];
    struct arch_at at = arch_fact_member(&arch->map->facts[index], "default");
    const struct arch_scope scope = { .arch = arch };
    char why[EXPR_WHY_MAX], *end = NULL;
    uint64_t whole = 0;
    if (fact->known || has_list(fact) || !at.node || strcmp(at.node->value, "unknown") == 0) return false;
    if (fact->type == ARCH_TEXT) {
        fact->value.text = strdup(at.node->value);
        return fact->known = fact->value.text != NULL;
    }
    fact->value.number = fact->type == ARCH_FLAG ? strcmp(at.node->value, "true") == 0 : strtod(at.node->value, &end);
    if (fact->type == ARCH_NUMBER && *end != '\0') {
        if (arch_expression(&scope, at.node->value, &whole, why) != EXPR_OK) return false;
        fact->value.number = (double)whole;
    }
    return fact->known = true;
}

enum status arch_facts_read(struct arch *arch, struct err *err)
{
    enum status status = OK;
    arch->facts = calloc(arch->map->n_facts + 1, sizeof *arch->facts);
    if (!arch->facts) return err_set(err, ERR_MEMORY, "out of memory for facts");
    for (size_t i = 0; i < arch->map->n_facts && status == OK; i++) status = read_fact(arch, i, err);
    for (bool changed = status == OK; changed;) {
        changed = false;
        for (size_t i = 0; i < arch->map->n_facts; i++) changed = take_default(arch, i) || changed;
    }
    return status;
}

void arch_facts_free(struct arch *arch)
{
    for (size_t i = 0; arch->facts && i < arch->map->n_facts; i++) config_value_free(&arch->facts[i].value);
    free(arch->facts);
    arch->facts = NULL;
}

const struct arch_fact *arch_fact_find(const struct arch *arch, const char *name, size_t n)
{
    char text[256];
    if (n >= sizeof text) return NULL;
    memcpy(text, name, n);
    text[n] = '\0';
    size_t index = name_table_find(&arch->map->fact_names, text);
    return index == SIZE_MAX ? NULL : &arch->facts[index];
}

/* ---- what users ask ----------------------------------------------------------------------------------------------------------------- */

static const struct arch_fact *fact_of(const struct arch *arch, const char *name, enum arch_fact_type type)
{
    const struct arch_fact *fact = arch_fact_find(arch, name, strlen(name));
    return fact && fact->type == type ? fact : NULL;
}

bool arch_number(const struct arch *arch, const char *name, double *out)
{
    const struct arch_fact *fact = fact_of(arch, name, ARCH_NUMBER);
    if (fact && fact->known) *out = fact->value.number;
    return fact && fact->known;
}

bool arch_flag(const struct arch *arch, const char *name, bool *out)
{
    const struct arch_fact *fact = fact_of(arch, name, ARCH_FLAG);
    if (fact && fact->known) *out = fact->value.number > 0;
    return fact && fact->known;
}

static const char *text_of(const struct arch_fact *fact)
{
    return fact->value.text ? fact->value.text : fact->value.texts[0];
}

bool arch_text(const struct arch *arch, const char *name, const char **out)
{
    const struct arch_fact *fact = fact_of(arch, name, ARCH_TEXT);
    if (fact && fact->known) *out = text_of(fact);
    return fact && fact->known;
}

bool arch_number_at(const struct arch *arch, const char *name, size_t i, double *out)
{
    const struct arch_fact *fact = arch_fact_find(arch, name, strlen(name));
    if (!fact || fact->type == ARCH_TEXT) return false;
    if (!has_list(fact)) {
        if (fact->known) *out = fact->value.number;
        return fact->known;
    }
    if (i < fact->value.n) *out = fact->value.numbers[i];
    return i < fact->value.n;
}

bool arch_text_at(const struct arch *arch, const char *name, size_t i, const char **out)
{
    const struct arch_fact *fact = fact_of(arch, name, ARCH_TEXT);
    if (!fact) return false;
    if (!has_list(fact)) return arch_text(arch, name, out);
    if (i < fact->value.n) *out = fact->value.texts[i];
    return i < fact->value.n;
}

/* ---- conditions and expressions ----------------------------------------------------------------------------------------------------- */

static bool equals(const struct arch_fact *fact, const char *text)
{
    char *end = NULL;
    bool present = fact->known && (fact->type == ARCH_TEXT || fact->value.number < 0 || fact->value.number > 0);
    if (strcmp(text, "set") == 0) return present || (has_list(fact) && !fact->known);
    if (strcmp(text, "unset") == 0) return !present && !(has_list(fact) && !fact->known);
    if (!fact->known) return false;
    if (fact->type == ARCH_TEXT) return strcmp(text_of(fact), text) == 0;
    if (fact->type == ARCH_FLAG) return strcmp(text, fact->value.number > 0 ? "true" : "false") == 0;
    double number = strtod(text, &end);
    return *text && *end == '\0' && !(number < fact->value.number) && !(number > fact->value.number);
}

static bool holds(const struct arch *arch, const char *name, const char *text, uint32_t layer)
{
    if (strcmp(name, "has") == 0) return arch_has(arch, arch_map_key(arch->map, text), layer);
    if (strcmp(name, "file") == 0) return (strcmp(text, "gguf") == 0) == arch->gguf;
    const struct arch_fact *fact = arch_fact_find(arch, name, strlen(name));
    return fact && equals(fact, text);
}

static bool all_hold(const struct arch *arch, struct arch_at list, uint32_t layer)
{
    for (size_t i = 0; i < list.node->n_items; i++)
        if (!arch_condition(arch, (struct arch_at){ list.doc, list.node->items[i] }, layer)) return false;
    return true;
}

bool arch_condition(const struct arch *arch, struct arch_at condition, uint32_t layer)
{
    if (condition.node && condition.node->kind == YAML_SEQUENCE) return all_hold(arch, condition, layer);
    for (size_t i = 0; condition.node && i < condition.node->n_items; i++) {
        struct arch_at member = { condition.doc, condition.node->items[i] };
        const char *name = member.node->key;
        bool lacks = strcmp(name, "lacks") == 0, any = false;
        if (strcmp(name, "why") == 0) continue;
        for (size_t k = 0; k < names_of(member) && !any; k++) any = holds(arch, lacks ? "has" : name, name_at(member, k), layer);
        if (any == lacks) return false;
    }
    return true;
}

static enum expr_answer lookup(void *context, const char *name, size_t n, uint64_t *out)
{
    const struct arch_scope *scope = context;
    if (n == 1 && (*name == 'n' || *name == 'e')) {
        *out = *name == 'n' ? scope->n : scope->e;
        return (*name == 'n' ? scope->has_n : scope->has_e) ? EXPR_OK : EXPR_UNKNOWN;
    }
    const struct arch_fact *fact = arch_fact_find(scope->arch, name, n);
    if (!fact) return EXPR_BAD;
    if (!fact->known || fact->type != ARCH_NUMBER || !(fact->value.number >= 0) || fact->value.number > WHOLE_MAX) return EXPR_UNKNOWN;
    *out = (uint64_t)fact->value.number;
    return (double)*out < fact->value.number ? EXPR_UNKNOWN : EXPR_OK;
}

enum expr_answer arch_expression(const struct arch_scope *scope, const char *text, uint64_t *out, char why[EXPR_WHY_MAX])
{
    struct arch_scope copy = *scope;
    return expr_value(text, lookup, &copy, out, why);
}
