/* fuzz_yaml.c: libFuzzer target of the YAML subset.
 *
 * Why this way: beside crashes and slow inputs it checks the shape of every tree: keys only and always in maps, no key twice, values only in scalars.
 * Corner cases: the depth of a tree is at most 16 maps and sequences and one scalar.
 * Reference: libFuzzer, LLVMFuzzerTestOneInput. Run: fuzz_yaml -max_len=4096 CORPUS.
 */
#include <stdlib.h>
#include <string.h>

#include "base/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

static void require(bool holds)
{
    if (!holds) abort();
}

static void check_node(const struct yaml_doc *doc, const struct yaml_node *node, bool in_map, unsigned depth)
{
    bool value;
    require(depth <= 17);
    require((node->key != NULL) == in_map);
    require((node->value != NULL) == (node->kind == YAML_SCALAR_VALUE));
    require(node->line >= 1);
    require(yaml_expect(doc, node, node->kind, NULL) == OK);
    yaml_bool(doc, node, &value, NULL);
    for (size_t i = 0; i < node->n_items; i++) {
        check_node(doc, node->items[i], node->kind == YAML_MAP, depth + 1);
        if (node->kind == YAML_MAP && node->n_items < 100) require(yaml_get(node, node->items[i]->key) == node->items[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    struct yaml_doc *doc;
    struct err err = { .code = OK };
    static const char *const known[] = { "a", "b", NULL };
    enum status status = yaml_parse((const char *)data, nbytes, "fuzz", &doc, &err);
    require((status == OK) == (doc != NULL) && (status == OK) == (err.text[0] == '\0'));
    if (doc) {
        check_node(doc, doc->root, false, 1);
        yaml_check_keys(doc, doc->root, known, &err);
    }
    yaml_close(doc);
    return 0;
}
