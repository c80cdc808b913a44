/* yaml.c: the strict YAML subset built from libyaml's events; see yaml.h.
 *
 *   stack: open maps and sequences, innermost last, each with the key that waits for its value
 *   event -> check_event (anchor, tag, NUL, node count, depth) -> new node -> member of the innermost open one
 *
 * Why this way: each thing refused is refused at its event, before libyaml has gathered the rest; so its quadratic places (nesting, anchors,
 * %TAG lines) never see more than a few entries.
 * Corner cases: a line that begins with '%' is refused wherever it stands (a directive, or text that looks like one); input is UTF-8 only; the line
 * of a member is the line of its key; a document without content is a map without members, as an empty file; "<<" is refused also in quotes.
 * Reference: see yaml.h. Worked number: "a:\n- 1\n- 2\n" is 5 nodes: the map, its key, a sequence, 2 scalars.
 */
#include "base/yaml.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/io_call.h"
#include "base/text.h"

#define FILE_MAX ((size_t)1 << 20)
#define NODES_MAX 100000
#define DEPTH_MAX 16
#define KEY_TEXT_MAX 80 /* bytes of a key in a message */

struct open_node {
    struct yaml_node *node;
    char *key; /* waits for its value; NULL when a key is next, and in sequences */
    unsigned key_line;
    size_t capacity; /* of node->items */
};

struct build {
    struct yaml_doc *doc;
    struct open_node stack[DEPTH_MAX];
    size_t depth;
    size_t n_nodes;
    bool document_seen;
    struct err *err;
};

/* ---- messages ------------------------------------------------------------------------------------------------------------------- */

static const char *key_name(const char *key, char out[KEY_TEXT_MAX])
{
    return err_name(key, strlen(key), out, KEY_TEXT_MAX);
}

static enum status error_at(const char *path, size_t line, struct err *err, const char *what)
{
    return err_set(err, ERR_DATA, "%s:%zu: %s", io_name(path).text, line, what);
}

/* Refuses an event; the key that waits, or the innermost one above, is named. */
static enum status refuse(struct build *b, unsigned line, const char *what)
{
    const char *key = NULL;
    for (size_t i = b->depth; i > 0 && !key; i--) key = b->stack[i - 1].key ? b->stack[i - 1].key : b->stack[i - 1].node->key;
    if (!key) return error_at(b->doc->path, line, b->err, what);
    char name[KEY_TEXT_MAX];
    return err_set(b->err, ERR_DATA, "%s:%u: key '%s': %s", io_name(b->doc->path).text, line, key_name(key, name), what);
}

static enum status short_of_memory(const char *path, struct err *err)
{
    return err_set(err, ERR_MEMORY, "cannot read '%s': out of memory", io_name(path).text);
}

enum status yaml_error(const struct yaml_doc *doc, const struct yaml_node *node, struct err *err, const char *format, ...)
{
    struct err what = { .code = OK };
    char name[KEY_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(what.text, sizeof what.text, format, args);
    va_end(args);
    if (!node) return err_set(err, ERR_DATA, "%s: %s", io_name(doc->path).text, what.text);
    if (!node->key) return error_at(doc->path, node->line, err, what.text);
    return err_set(err, ERR_DATA, "%s:%u: key '%s': %s", io_name(doc->path).text, node->line, key_name(node->key, name), what.text);
}

/* ---- nodes ---------------------------------------------------------------------------------------------------------------------- */

static void node_free(struct yaml_node *node)
{
    if (!node) return;
    for (size_t i = 0; i < node->n_items; i++) node_free(node->items[i]);
    free(node->items);
    free(node->key);
    free(node->value);
    free(node);
}

static struct open_node *innermost(struct build *b)
{
    return b->depth ? &b->stack[b->depth - 1] : NULL;
}

/* Puts node under the innermost open node, with the key that waits there; or makes it the root. Owns node from here on. */
static enum status attach(struct build *b, struct yaml_node *node)
{
    struct open_node *parent = innermost(b);
    if (!parent) {
        b->doc->root = node;
        return OK;
    }
    if (parent->node->n_items == parent->capacity) {
        size_t capacity = parent->capacity ? parent->capacity * 2 : 8;
        struct yaml_node **items = realloc(parent->node->items, capacity * sizeof *items);
        if (!items) {
            node_free(node);
            return short_of_memory(b->doc->path, b->err);
        }
        parent->node->items = items;
        parent->capacity = capacity;
    }
    if (parent->key) {
        node->key = parent->key;
        node->line = parent->key_line;
        parent->key = NULL;
    }
    parent->node->items[parent->node->n_items++] = node;
    return OK;
}

static enum status count_node(struct build *b, unsigned line)
{
    return ++b->n_nodes > NODES_MAX ? refuse(b, line, "more than 100000 keys and values") : OK;
}

/* Makes a node for the event and attaches it. */
static enum status add_node(struct build *b, enum yaml_kind kind, unsigned line, struct yaml_node **out)
{
    *out = NULL;
    enum status status = count_node(b, line);
    if (status != OK) return status;
    struct yaml_node *node = calloc(1, sizeof *node);
    *out = node;
    if (!node) return short_of_memory(b->doc->path, b->err);
    node->kind = kind;
    node->line = line;
    return attach(b, node);
}

/* ---- events --------------------------------------------------------------------------------------------------------------------- */

static enum status on_key(struct build *b, const yaml_event_t *event, unsigned line)
{
    struct open_node *map = innermost(b);
    const char *text = (const char *)event->data.scalar.value;
    if (strcmp(text, "<<") == 0) return refuse(b, line, "merge keys (<<) are not allowed");
    enum status status = count_node(b, line);
    if (status != OK) return status;
    map->key = strdup(text);
    map->key_line = line;
    return map->key ? OK : short_of_memory(b->doc->path, b->err);
}

static enum status on_scalar(struct build *b, const yaml_event_t *event, unsigned line)
{
    struct open_node *parent = innermost(b);
    const char *text = (const char *)event->data.scalar.value;
    if (memchr(text, '\0', event->data.scalar.length)) return refuse(b, line, "NUL byte in a value");
    if (parent && parent->node->kind == YAML_MAP && !parent->key) return on_key(b, event, line);
    struct yaml_node *node;
    enum status status = add_node(b, YAML_SCALAR_VALUE, line, &node);
    if (status != OK) return status;
    node->value = strdup(text);
    node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return node->value ? OK : short_of_memory(b->doc->path, b->err);
}

static enum status on_start(struct build *b, enum yaml_kind kind, unsigned line)
{
    struct open_node *parent = innermost(b);
    if (parent && parent->node->kind == YAML_MAP && !parent->key) return refuse(b, line, "a key that is a map or a sequence");
    if (b->depth == DEPTH_MAX) return refuse(b, line, "nested more than 16 deep");
    struct yaml_node *node;
    enum status status = add_node(b, kind, line, &node);
    if (status == OK) b->stack[b->depth++] = (struct open_node){ .node = node };
    return status;
}

static int compare_members(const void *a, const void *b)
{
    const struct yaml_node *const *x = a, *const *y = b;
    int order = strcmp((*x)->key, (*y)->key);
    if (order) return order;
    return ((*x)->line > (*y)->line) - ((*x)->line < (*y)->line);
}

/* The member that repeats an earlier key and stands first in the file, or NULL. *failed: out of memory. */
static const struct yaml_node *find_duplicate(const struct yaml_node *map, bool *failed)
{
    size_t n = map->n_items;
    const struct yaml_node *found = NULL;
    if (n < 2) return NULL;
    const struct yaml_node **sorted = malloc(n * sizeof *sorted);
    *failed = !sorted;
    if (!sorted) return NULL;
    for (size_t i = 0; i < n; i++) sorted[i] = map->items[i];
    qsort(sorted, n, sizeof *sorted, compare_members);
    for (size_t i = 1; i < n; i++)
        if (strcmp(sorted[i - 1]->key, sorted[i]->key) == 0 && (!found || sorted[i]->line < found->line)) found = sorted[i];
    free(sorted);
    return found;
}

static enum status on_end(struct build *b)
{
    struct open_node *closed = &b->stack[--b->depth];
    if (closed->node->kind != YAML_MAP) return OK;
    bool failed = false;
    const struct yaml_node *again = find_duplicate(closed->node, &failed);
    if (failed) return short_of_memory(b->doc->path, b->err);
    return again ? yaml_error(b->doc, again, b->err, "this key is there already") : OK;
}

static enum status on_document(struct build *b, unsigned line)
{
    if (b->document_seen) return refuse(b, line, "a second document");
    b->document_seen = true;
    return OK;
}

static enum status check_properties(struct build *b, const yaml_char_t *anchor, const yaml_char_t *tag, unsigned line)
{
    if (anchor) return refuse(b, line, "anchors (&) are not allowed");
    if (tag) return refuse(b, line, "tags (!) are not allowed");
    return OK;
}

static enum status on_event(struct build *b, const yaml_event_t *event)
{
    unsigned line = (unsigned)event->start_mark.line + 1;
    enum status status;
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        return on_document(b, line);
    case YAML_ALIAS_EVENT:
        return refuse(b, line, "aliases (*) are not allowed");
    case YAML_SCALAR_EVENT:
        status = check_properties(b, event->data.scalar.anchor, event->data.scalar.tag, line);
        return status == OK ? on_scalar(b, event, line) : status;
    case YAML_SEQUENCE_START_EVENT:
        status = check_properties(b, event->data.sequence_start.anchor, event->data.sequence_start.tag, line);
        return status == OK ? on_start(b, YAML_SEQUENCE, line) : status;
    case YAML_MAPPING_START_EVENT:
        status = check_properties(b, event->data.mapping_start.anchor, event->data.mapping_start.tag, line);
        return status == OK ? on_start(b, YAML_MAP, line) : status;
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return on_end(b);
    default:
        return OK;
    }
}

/* ---- document ------------------------------------------------------------------------------------------------------------------- */

static size_t line_of(const char *text, size_t offset)
{
    size_t line = 1;
    for (size_t i = 0; i < offset; i++) line += text[i] == '\n';
    return line;
}

/* The sentence for what libyaml itself refuses. */
static enum status parser_error(const yaml_parser_t *parser, const char *text, size_t nbytes, const char *path, struct err *err)
{
    if (parser->error == YAML_MEMORY_ERROR) return short_of_memory(path, err);
    size_t line = parser->problem_mark.line + 1;
    if (parser->error == YAML_READER_ERROR) line = line_of(text, parser->problem_offset < nbytes ? parser->problem_offset : nbytes);
    const char *problem = parser->problem ? parser->problem : "malformed YAML";
    if (!parser->context) return error_at(path, line, err, problem);
    return err_set(err, ERR_DATA, "%s:%zu: %s (%s)", io_name(path).text, line, problem, parser->context);
}

static enum status check_text(const char *text, size_t nbytes, const char *path, struct err *err)
{
    if (nbytes > FILE_MAX) return err_set(err, ERR_DATA, "'%s' is %zu bytes, more than the limit of %zu", io_name(path).text, nbytes, FILE_MAX);
    for (size_t i = 0; i < nbytes; i++)
        if (text[i] == '%' && (i == 0 || text[i - 1] == '\n' || text[i - 1] == '\r'))
            return error_at(path, line_of(text, i), err, "a line that begins with % (directives are not allowed)");
    return OK;
}

static enum status take_events(struct build *b, const char *text, size_t nbytes)
{
    yaml_parser_t parser;
    enum status status = OK;
    if (!yaml_parser_initialize(&parser)) return short_of_memory(b->doc->path, b->err);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, nbytes);
    for (bool more = true; more && status == OK;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            status = parser_error(&parser, text, nbytes, b->doc->path, b->err);
            break;
        }
        more = event.type != YAML_STREAM_END_EVENT;
        status = on_event(b, &event);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return status;
}

/* An empty document is a map without members. */
static enum status fill_empty(struct build *b)
{
    struct yaml_node *root = b->doc->root;
    if (root && (root->kind != YAML_SCALAR_VALUE || root->quoted || *root->value)) return OK;
    node_free(root);
    b->doc->root = NULL;
    return add_node(b, YAML_MAP, 1, &root);
}

static struct yaml_doc *doc_make(const char *path)
{
    struct yaml_doc *doc = calloc(1, sizeof *doc);
    if (!doc) return NULL;
    doc->path = strdup(path);
    if (doc->path) return doc;
    free(doc);
    return NULL;
}

enum status yaml_parse(const char *text, size_t nbytes, const char *path, struct yaml_doc **out, struct err *err)
{
    *out = NULL;
    enum status status = check_text(text, nbytes, path, err);
    if (status != OK) return status;
    struct build b = { .doc = doc_make(path), .err = err };
    if (!b.doc) return short_of_memory(path, err);
    status = take_events(&b, text, nbytes);
    if (status == OK) status = fill_empty(&b);
    for (size_t i = 0; i < b.depth; i++) free(b.stack[i].key);
    if (status == OK) *out = b.doc;
    else yaml_close(b.doc);
    return status;
}

enum status yaml_open(const struct io_calls *io, const char *path, struct yaml_doc **doc, struct err *err)
{
    char *text;
    size_t nbytes;
    *doc = NULL;
    enum status status = file_slurp(io, path, FILE_MAX, &text, &nbytes, err);
    if (status != OK) return status;
    status = yaml_parse(text, nbytes, path, doc, err);
    free(text);
    return status;
}

void yaml_close(struct yaml_doc *doc)
{
    if (!doc) return;
    node_free(doc->root);
    free(doc->path);
    free(doc);
}

/* ---- reading the tree ----------------------------------------------------------------------------------------------------------- */

const struct yaml_node *yaml_get(const struct yaml_node *map, const char *key)
{
    if (!map || map->kind != YAML_MAP) return NULL;
    for (size_t i = 0; i < map->n_items; i++)
        if (strcmp(map->items[i]->key, key) == 0) return map->items[i];
    return NULL;
}

static bool is_known(const char *const *known, const char *key)
{
    for (; *known; known++)
        if (strcmp(*known, key) == 0) return true;
    return false;
}

enum status yaml_check_keys(const struct yaml_doc *doc, const struct yaml_node *map, const char *const *known, struct err *err)
{
    enum status status = yaml_expect(doc, map, YAML_MAP, err);
    if (status != OK) return status;
    for (size_t i = 0; i < map->n_items; i++) {
        if (is_known(known, map->items[i]->key)) continue;
        struct text list = text_make(ERR_TEXT_MAX);
        for (size_t k = 0; known[k]; k++) text_add(&list, "%s%s", k ? ", " : "", known[k]);
        status = yaml_error(doc, map->items[i], err, "unknown; known here: %s", list.data);
        text_free(&list);
        return status;
    }
    return OK;
}

static const char *kind_name(enum yaml_kind kind)
{
    if (kind == YAML_MAP) return "a map (key: value)";
    return kind == YAML_SEQUENCE ? "a sequence (- item)" : "a single value";
}

enum status yaml_expect(const struct yaml_doc *doc, const struct yaml_node *node, enum yaml_kind kind, struct err *err)
{
    if (!node) return yaml_error(doc, node, err, "%s is missing", kind_name(kind));
    if (node->kind == kind) return OK;
    return yaml_error(doc, node, err, "%s is wanted, this is %s", kind_name(kind), kind_name(node->kind));
}

enum status yaml_bool(const struct yaml_doc *doc, const struct yaml_node *node, bool *out, struct err *err)
{
    enum status status = yaml_expect(doc, node, YAML_SCALAR_VALUE, err);
    if (status != OK) return status;
    bool yes = strcmp(node->value, "true") == 0;
    if (node->quoted || (!yes && strcmp(node->value, "false") != 0)) return yaml_error(doc, node, err, "true or false is wanted");
    *out = yes;
    return OK;
}
