/* roles.c: reads roles.yaml and matches names.
 *
 * Drawing: entries in file order, each with patterns; name -> first entry with a pattern that matches.
 * Why this way: see roles.h. Regular expressions cost about a microsecond each; 100 000 tensors take a fraction of a second.
 * Corner cases: unknown keys, empty lists and bad patterns are errors with file and line.
 * Reference: configs/roles.yaml. Example: "model.norm.weight" is a norm.
 */
#include "converter/roles.h"

#include <stdlib.h>
#include <string.h>

#include "base/glob.h"
#include "base/yaml.h"

struct entry {
    struct role role;
    struct pattern **patterns;
    size_t n_patterns;
    const char **also;
};

struct roles {
    struct yaml_doc *doc; /* owns the strings */
    struct entry *entries;
    size_t n_entries;
};

static const char *const no_names[] = { NULL };
static const struct role other = { "other", no_names, false };

static enum status read_patterns(const struct yaml_doc *doc, const struct yaml_node *list, struct entry *entry, struct err *err)
{
    enum status status = yaml_expect(doc, list, YAML_SEQUENCE, err);
    if (status) return status;
    entry->patterns = calloc(list->n_items + 1, sizeof *entry->patterns);
    if (!entry->patterns) return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < list->n_items; i++) {
        status = yaml_expect(doc, list->items[i], YAML_SCALAR_VALUE, err);
        if (status) return status;
        status = pattern_open(list->items[i]->value, &entry->patterns[i], err);
        if (status) return yaml_error(doc, list->items[i], err, "%s", err->text);
        entry->n_patterns++;
    }
    return OK;
}

static enum status read_also(const struct yaml_doc *doc, const struct yaml_node *list, struct entry *entry, struct err *err)
{
    entry->role.also = no_names;
    if (!list) return OK;
    enum status status = yaml_expect(doc, list, YAML_SEQUENCE, err);
    if (status) return status;
    entry->also = calloc(list->n_items + 1, sizeof *entry->also);
    if (!entry->also) return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < list->n_items; i++) {
        status = yaml_expect(doc, list->items[i], YAML_SCALAR_VALUE, err);
        if (status) return status;
        entry->also[i] = list->items[i]->value;
    }
    entry->role.also = entry->also;
    return OK;
}

static enum status read_entry(const struct yaml_doc *doc, const struct yaml_node *node, struct entry *entry, struct err *err)
{
    static const char *const known[] = { "role", "also", "linear", "match", NULL };
    enum status status = yaml_expect(doc, node, YAML_MAP, err);
    if (!status) status = yaml_check_keys(doc, node, known, err);
    if (status) return status;
    const struct yaml_node *name = yaml_get(node, "role"), *match = yaml_get(node, "match"), *linear = yaml_get(node, "linear");
    if (!name || !match) return yaml_error(doc, node, err, "an entry needs 'role' and 'match'");
    status = yaml_expect(doc, name, YAML_SCALAR_VALUE, err);
    if (status) return status;
    entry->role.name = name->value;
    if (linear) status = yaml_bool(doc, linear, &entry->role.linear, err);
    if (!status) status = read_also(doc, yaml_get(node, "also"), entry, err);
    if (!status) status = read_patterns(doc, match, entry, err);
    return status;
}

static enum status read_entries(struct roles *roles, struct err *err)
{
    static const char *const known[] = { "roles", NULL };
    enum status status = yaml_check_keys(roles->doc, roles->doc->root, known, err);
    if (status) return status;
    const struct yaml_node *list = yaml_get(roles->doc->root, "roles");
    if (!list) return yaml_error(roles->doc, roles->doc->root, err, "there is no list 'roles'");
    status = yaml_expect(roles->doc, list, YAML_SEQUENCE, err);
    if (status) return status;
    roles->entries = calloc(list->n_items + 1, sizeof *roles->entries);
    if (!roles->entries) return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < list->n_items && !status; i++) status = read_entry(roles->doc, list->items[i], &roles->entries[roles->n_entries++], err);
    return status;
}

enum status roles_open(const struct io_calls *io, const char *path, struct roles **out, struct err *err)
{
    struct roles *roles = calloc(1, sizeof *roles);
    if (!roles) return err_set(err, ERR_MEMORY, "out of memory");
    enum status status = yaml_open(io, path, &roles->doc, err);
    if (!status) status = read_entries(roles, err);
    if (status) {
        roles_close(roles);
        return status;
    }
    *out = roles;
    return OK;
}

void roles_close(struct roles *roles)
{
    if (!roles) return;
    for (size_t i = 0; i < roles->n_entries; i++) {
        for (size_t k = 0; k < roles->entries[i].n_patterns; k++) pattern_close(roles->entries[i].patterns[k]);
        free(roles->entries[i].patterns);
        free(roles->entries[i].also);
    }
    free(roles->entries);
    yaml_close(roles->doc);
    free(roles);
}

const struct role *roles_of(const struct roles *roles, const char *tensor_name)
{
    for (size_t i = 0; i < roles->n_entries; i++)
        for (size_t k = 0; k < roles->entries[i].n_patterns; k++)
            if (pattern_match(roles->entries[i].patterns[k], tensor_name)) return &roles->entries[i].role;
    return &other;
}

bool role_is(const struct role *role, const char *name)
{
    if (strcmp(role->name, name) == 0) return true;
    for (size_t i = 0; role->also[i]; i++)
        if (strcmp(role->also[i], name) == 0) return true;
    return false;
}

bool roles_know(const struct roles *roles, const char *name)
{
    if (strcmp(name, other.name) == 0) return true;
    for (size_t i = 0; i < roles->n_entries; i++)
        if (role_is(&roles->entries[i].role, name)) return true;
    return false;
}
