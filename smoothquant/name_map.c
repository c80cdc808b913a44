/* name_map.c: see name_map.h.
 *
 * Drawing: YAML -> rules; each pattern with each prefix -> template (numbers as {}) -> table of templates.
 * Why this way: the table is built once; sixteen prefixes times 170 patterns are 3000 short strings.
 * Corner cases: GGUF names take no prefix; a pattern has {n} and {e} at most once each, {e} in `experts` only and always there; a piece of digits in
 * a pattern is refused, since it would be taken for a number of any value.
 * Reference: see name_map.h. Worked number: "h.0.attn.c_attn.weight" has the template "h.{}.attn.c_attn", number 0 is the layer.
 */
#include "smoothquant/name_map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/yaml.h"
#include "container/name_table.h"

#define NAME_NBYTES_MAX 512u
#define DIGITS_MAX 7u
#define NUMBERS_MAX 4u
#define WEIGHT_ENDING ".weight"

struct rule {
    const char *gguf; /* pattern, of the document */
    const char *input; /* NULL: shares with none */
    bool has_layer;
    bool is_stack; /* has names of single experts */
};

struct template
{
    uint32_t rule;
    uint32_t n_at, e_at; /* which number of the name; NAME_NONE: has none */
};

struct name_map {
    struct yaml_doc *doc;
    struct rule *rules;
    uint32_t n_rules;
    const char **drops;
    size_t n_drops;
    struct name_table texts;
    char **copies; /* owned texts */
    struct template *templates; /* of text number i */
    size_t capacity;
};

static enum status no_memory(struct err *err)
{
    return err_set(err, ERR_MEMORY, "out of memory for names");
}

/* ---- names ------------------------------------------------------------------------------------------------------------------------ */

struct parsed {
    char text[NAME_NBYTES_MAX * 2]; /* every number becomes two bytes */
    uint32_t numbers[NUMBERS_MAX];
    uint32_t n_numbers;
};

/* A piece of only digits, without a leading zero. */
static bool is_number(const char *piece, size_t n)
{
    if (n == 0 || n > DIGITS_MAX || (piece[0] == '0' && n > 1)) return false;
    for (size_t i = 0; i < n; i++)
        if (piece[i] < '0' || piece[i] > '9') return false;
    return true;
}

/* Turns numbers into {}; false when the name is too long or has too many numbers. */
static bool parse_name(const char *name, size_t n, struct parsed *out)
{
    size_t used = 0;
    out->n_numbers = 0;
    if (n > NAME_NBYTES_MAX) return false;
    for (size_t at = 0; at <= n;) {
        const char *dot = memchr(name + at, '.', n - at);
        size_t length = dot ? (size_t)(dot - (name + at)) : n - at;
        if (at > 0) out->text[used++] = '.';
        if (is_number(name + at, length)) {
            if (out->n_numbers == NUMBERS_MAX) return false;
            out->numbers[out->n_numbers++] = (uint32_t)strtoul(name + at, NULL, 10);
            out->text[used++] = '{';
            out->text[used++] = '}';
        } else {
            memcpy(out->text + used, name + at, length);
            used += length;
        }
        at += length + 1;
    }
    out->text[used] = '\0';
    return true;
}

/* Copies name without the pieces to drop and without .weight. */
static bool strip_name(const struct name_map *map, const char *name, char out[NAME_NBYTES_MAX + 1], size_t *n)
{
    const size_t n_ending = sizeof WEIGHT_ENDING - 1;
    *n = strlen(name);
    if (*n > NAME_NBYTES_MAX) return false;
    memcpy(out, name, *n + 1);
    for (size_t i = 0; i < map->n_drops; i++) {
        size_t length = strlen(map->drops[i]);
        for (char *at = strstr(out, map->drops[i]); at; at = strstr(at, map->drops[i])) {
            if (at[length] != '.' && at[length] != '\0') {
                at += length;
                continue;
            }
            memmove(at, at + length, strlen(at + length) + 1);
        }
    }
    *n = strlen(out);
    if (*n > n_ending && strcmp(out + *n - n_ending, WEIGHT_ENDING) == 0) *n -= n_ending;
    out[*n] = '\0';
    return true;
}

bool name_map_find(const struct name_map *map, const char *name, struct name_place *place)
{
    char text[NAME_NBYTES_MAX + 1];
    struct parsed parsed;
    size_t n = 0;
    if (!strip_name(map, name, text, &n) || !parse_name(text, n, &parsed)) return false;
    size_t index = name_table_find(&map->texts, parsed.text);
    if (index == SIZE_MAX) return false;
    const struct template *found = &map->templates[index];
    *place = (struct name_place){ found->rule, found->n_at == NAME_NONE ? NAME_NONE : parsed.numbers[found->n_at],
                                  found->e_at == NAME_NONE ? NAME_NONE : parsed.numbers[found->e_at] };
    return true;
}

bool name_map_gguf(const struct name_map *map, const struct name_place *place, char *out, size_t out_size)
{
    const char *pattern = map->rules[place->rule].gguf, *mark = strstr(pattern, "{n}");
    int n = mark ? snprintf(out, out_size, "%.*s%u%s" WEIGHT_ENDING, (int)(mark - pattern), pattern, place->layer, mark + 3)
                 : snprintf(out, out_size, "%s" WEIGHT_ENDING, pattern);
    return n >= 0 && (size_t)n < out_size;
}

bool name_map_is_stack(const struct name_map *map, uint32_t rule)
{
    return map->rules[rule].is_stack;
}

uint32_t name_map_sibling(const struct name_map *map, uint32_t rule, uint32_t after)
{
    const char *input = map->rules[rule].input;
    for (uint32_t i = after == NAME_NONE ? 0 : after + 1; input && i < map->n_rules; i++)
        if (i != rule && map->rules[i].input && strcmp(map->rules[i].input, input) == 0) return i;
    return NAME_NONE;
}

/* ---- patterns --------------------------------------------------------------------------------------------------------------------- */

/* Turns {n} and {e} into {}; which of the numbers they are goes to t. */
static enum status parse_pattern(const struct yaml_doc *doc, const struct yaml_node *node, const char *text, struct parsed *out, struct template *t,
                                 struct err *err)
{
    size_t used = 0;
    t->n_at = t->e_at = NAME_NONE;
    if (strlen(text) > NAME_NBYTES_MAX) return yaml_error(doc, node, err, "the pattern is too long");
    if (!parse_name(text, strlen(text), out) || out->n_numbers > 0)
        return yaml_error(doc, node, err, "'%s' has a piece of digits; write {n} or {e}", text);
    for (const char *at = text; *at; at++) {
        bool is_layer = strncmp(at, "{n}", 3) == 0, is_expert = strncmp(at, "{e}", 3) == 0;
        if (!is_layer && !is_expert) {
            if (*at == '{' || *at == '}') return yaml_error(doc, node, err, "'%s' has a brace that is neither {n} nor {e}", text);
            out->text[used++] = *at;
            continue;
        }
        uint32_t *place = is_layer ? &t->n_at : &t->e_at;
        bool is_piece = (at == text || at[-1] == '.') && (at[3] == '.' || at[3] == '\0');
        if (*place != NAME_NONE || !is_piece) return yaml_error(doc, node, err, "'%s': {n} and {e} are whole pieces, once each", text);
        *place = out->n_numbers++;
        out->text[used++] = '{';
        out->text[used++] = '}';
        at += 2;
    }
    out->text[used] = '\0';
    return OK;
}

static enum status add_template(struct name_map *map, const struct yaml_node *node, const char *text, const struct template *t, struct err *err)
{
    size_t index = 0, before = map->texts.n_names;
    if (before == map->capacity) {
        size_t capacity = before ? before * 2 : 256;
        char **copies = realloc(map->copies, capacity * sizeof *copies);
        if (copies) map->copies = copies;
        struct template *templates = copies ? realloc(map->templates, capacity * sizeof *templates) : NULL;
        if (!templates) return no_memory(err);
        map->templates = templates;
        map->capacity = capacity;
    }
    char *copy = strdup(text);
    if (!copy) return no_memory(err);
    enum status status = name_table_add(&map->texts, copy, &index, err);
    if (status == OK && map->texts.n_names > before) {
        map->copies[index] = copy;
        map->templates[index] = *t;
        return OK;
    }
    free(copy);
    if (status != OK) return status;
    return yaml_error(map->doc, node, err, "'%s' fits two patterns, the other one is of '%s'", text, map->rules[map->templates[index].rule].gguf);
}

/* One pattern of rule number rule with every prefix, or with none. */
static enum status add_pattern(struct name_map *map, const struct yaml_node *node, uint32_t rule, bool is_expert, const struct yaml_node *prefixes,
                               struct err *err)
{
    struct parsed parsed;
    struct template t = { .rule = rule };
    enum status status = yaml_expect(map->doc, node, YAML_SCALAR_VALUE, err);
    if (status == OK) status = parse_pattern(map->doc, node, node->value, &parsed, &t, err);
    if (status != OK) return status;
    if ((t.e_at != NAME_NONE) != is_expert) return yaml_error(map->doc, node, err, "'%s' %s {e}", node->value, is_expert ? "lacks" : "may not have");
    if ((t.n_at != NAME_NONE) != map->rules[rule].has_layer)
        return yaml_error(map->doc, node, err, "'%s' and its GGUF name must both have {n} or both not", node->value);
    if (!prefixes) return add_template(map, node, parsed.text, &t, err);
    for (size_t i = 0; i < prefixes->n_items && status == OK; i++) {
        char text[NAME_NBYTES_MAX * 3];
        int n = snprintf(text, sizeof text, "%s%s", prefixes->items[i]->value, parsed.text);
        if (n < 0 || (size_t)n >= sizeof text) return yaml_error(map->doc, node, err, "the pattern is too long");
        status = add_template(map, node, text, &t, err);
    }
    return status;
}

static enum status add_patterns(struct name_map *map, const struct yaml_node *list, uint32_t rule, bool is_expert, const struct yaml_node *prefixes,
                                struct err *err)
{
    enum status status = list ? yaml_expect(map->doc, list, YAML_SEQUENCE, err) : OK;
    for (size_t i = 0; list && i < list->n_items && status == OK; i++) status = add_pattern(map, list->items[i], rule, is_expert, prefixes, err);
    return status;
}

/* ---- the document ----------------------------------------------------------------------------------------------------------------- */

static enum status read_rule(struct name_map *map, const struct yaml_node *node, const struct yaml_node *prefixes, struct err *err)
{
    static const char *const known[] = { "gguf", "input", "hf", "experts", NULL };
    uint32_t rule = map->n_rules;
    enum status status = yaml_expect(map->doc, node, YAML_MAP, err);
    if (status == OK) status = yaml_check_keys(map->doc, node, known, err);
    if (status != OK) return status;
    const struct yaml_node *gguf = yaml_get(node, "gguf"), *input = yaml_get(node, "input");
    if (!gguf) return yaml_error(map->doc, node, err, "an entry needs 'gguf'");
    status = yaml_expect(map->doc, gguf, YAML_SCALAR_VALUE, err);
    if (status == OK && input) status = yaml_expect(map->doc, input, YAML_SCALAR_VALUE, err);
    if (status != OK) return status;
    map->rules[map->n_rules++] =
        (struct rule){ gguf->value, input ? input->value : NULL, strstr(gguf->value, "{n}") != NULL, yaml_get(node, "experts") != NULL };
    status = add_pattern(map, gguf, rule, false, NULL, err);
    if (status == OK) status = add_patterns(map, yaml_get(node, "hf"), rule, false, prefixes, err);
    if (status == OK) status = add_patterns(map, yaml_get(node, "experts"), rule, true, prefixes, err);
    return status;
}

/* A list of texts at the top level, or NULL where it is missing. */
static enum status text_list(const struct name_map *map, const char *key, const struct yaml_node **list, struct err *err)
{
    *list = yaml_get(map->doc->root, key);
    enum status status = *list ? yaml_expect(map->doc, *list, YAML_SEQUENCE, err) : OK;
    for (size_t i = 0; *list && i < (*list)->n_items && status == OK; i++) status = yaml_expect(map->doc, (*list)->items[i], YAML_SCALAR_VALUE, err);
    return status;
}

static enum status read_drops(struct name_map *map, struct err *err)
{
    const struct yaml_node *list = NULL;
    enum status status = text_list(map, "drop", &list, err);
    if (status != OK || !list) return status;
    map->drops = calloc(list->n_items + 1, sizeof *map->drops);
    if (!map->drops) return no_memory(err);
    for (size_t i = 0; i < list->n_items; i++) {
        if (list->items[i]->value[0] != '.')
            return yaml_error(map->doc, list->items[i], err, "'%s' does not begin with a dot", list->items[i]->value);
        map->drops[map->n_drops++] = list->items[i]->value;
    }
    return OK;
}

static enum status read_map(struct name_map *map, struct err *err)
{
    static const char *const known[] = { "prefixes", "drop", "tensors", NULL };
    const struct yaml_node *prefixes = NULL, *list = yaml_get(map->doc->root, "tensors");
    enum status status = yaml_check_keys(map->doc, map->doc->root, known, err);
    if (status == OK) status = text_list(map, "prefixes", &prefixes, err);
    if (status == OK) status = read_drops(map, err);
    if (status != OK) return status;
    if (!list) return yaml_error(map->doc, map->doc->root, err, "there is no list 'tensors'");
    status = yaml_expect(map->doc, list, YAML_SEQUENCE, err);
    if (status != OK) return status;
    map->rules = calloc(list->n_items + 1, sizeof *map->rules);
    if (!map->rules) return no_memory(err);
    for (size_t i = 0; i < list->n_items && status == OK; i++) status = read_rule(map, list->items[i], prefixes, err);
    return status;
}

static enum status finish_open(struct name_map *map, enum status status, struct name_map **out, struct err *err)
{
    if (status == OK) status = read_map(map, err);
    if (status == OK) *out = map;
    else name_map_close(map);
    return status;
}

enum status name_map_open(const struct io_calls *io, const char *path, struct name_map **out, struct err *err)
{
    struct name_map *map = calloc(1, sizeof *map);
    if (!map) return no_memory(err);
    return finish_open(map, yaml_open(io, path, &map->doc, err), out, err);
}

enum status name_map_parse(const char *text, size_t nbytes, const char *path, struct name_map **out, struct err *err)
{
    struct name_map *map = calloc(1, sizeof *map);
    if (!map) return no_memory(err);
    return finish_open(map, yaml_parse(text, nbytes, path, &map->doc, err), out, err);
}

void name_map_close(struct name_map *map)
{
    if (!map) return;
    for (size_t i = 0; i < map->texts.n_names; i++) free(map->copies[i]);
    name_table_free(&map->texts);
    free(map->copies);
    free(map->templates);
    free(map->rules);
    free(map->drops);
    yaml_close(map->doc);
    free(map);
}
