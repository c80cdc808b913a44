/* yaml.h: a small, strict subset of YAML as a tree: maps, sequences and scalars. The only user of libyaml (event API).
 *
 * Why this way: libyaml's document loader is quadratic in anchors and keeps duplicates; the events let us refuse them as they pass.
 * Corner cases refused, each with file, line and key: anchors, aliases, tags, merge keys (<<), a second document, duplicate keys (a hash or sort
 * per map, not quadratic), NUL in a scalar, keys that are not scalars, depth over 16, files over 1 MiB, more than 100 000 nodes (keys count). An
 * empty file is an empty map. Scalars stay text: what "yes", "0x10" or "1e3" mean is the reader's business, the value functions below are strict.
 * Example: `rules:` / `  - match: "*.down_proj.*"` gives a map with one member whose value is a sequence of one map.
 * Reference: YAML 1.1 events as libyaml 0.2.5 gives them.
 */
#ifndef LLMQ_BASE_YAML_H
#define LLMQ_BASE_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/io.h"

enum yaml_kind { YAML_SCALAR_VALUE, YAML_SEQUENCE, YAML_MAP };

struct yaml_node {
    enum yaml_kind kind;
    unsigned line; /* 1-based */
    char *key; /* of this node in its map; NULL elsewhere */
    char *value; /* scalars only, NUL-terminated */
    bool quoted; /* scalars: written in quotes or as a block */
    struct yaml_node **items; /* members of a map or sequence, in file order */
    size_t n_items;
};

struct yaml_doc {
    char *path; /* for messages */
    struct yaml_node *root;
};

/* Parses the file at path (yaml_open) or nbytes of text called path in messages (yaml_parse). */
enum status yaml_open(const struct io_calls *io, const char *path, struct yaml_doc **doc, struct err *err);
enum status yaml_parse(const char *text, size_t nbytes, const char *path, struct yaml_doc **doc, struct err *err);
void yaml_close(struct yaml_doc *doc);

/* Member of a map by key, or NULL. */
const struct yaml_node *yaml_get(const struct yaml_node *map, const char *key);

/* ERR_DATA "PATH:LINE: ..." with the message appended. */
enum status yaml_error(const struct yaml_doc *doc, const struct yaml_node *node, struct err *err, const char *format, ...) LLMQ_PRINTF(4, 5);

/* ERR_DATA unless every key of map is in the NULL-terminated list known; the message names the unknown key and the known ones. */
enum status yaml_check_keys(const struct yaml_doc *doc, const struct yaml_node *map, const char *const *known, struct err *err);

/* ERR_DATA unless node has the kind; the message says which kind was wanted and names the key. */
enum status yaml_expect(const struct yaml_doc *doc, const struct yaml_node *node, enum yaml_kind kind, struct err *err);

/* true/false (exactly these words, unquoted). */
enum status yaml_bool(const struct yaml_doc *doc, const struct yaml_node *node, bool *out, struct err *err);

#endif
