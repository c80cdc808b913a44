/* fuzz_json.c: libFuzzer target of the JSON scanner, the walk and the tree.
 *
 * Why this way: beside crashes it checks what must hold for every text: json_check, json_parse and, for objects, json_walk_object give one verdict;
 * what a walk hands out is JSON itself; what is accepted is still accepted after cJSON has printed it.
 * Corner cases: the first byte chooses the limits; numbers that cJSON prints as null (beyond the range of a double) end the last check.
 * Reference: libFuzzer, LLVMFuzzerTestOneInput. Run: fuzz_json -max_len=4096 CORPUS.
 */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

static void require(bool holds)
{
    if (!holds) abort();
}

static enum status check_member(void *context, const char *key, size_t key_nbytes, const char *value, size_t value_nbytes, struct err *err)
{
    require(strlen(key) == key_nbytes);
    require(json_check(value, value_nbytes, context, err) == OK);
    return OK;
}

static void check_tree(const cJSON *tree)
{
    static const struct json_limits loose = { .max_depth = 1000, .max_values = 1000000 };
    char *printed = cJSON_PrintUnformatted(tree);
    require(printed != NULL);
    require(json_check(printed, strlen(printed), &loose, NULL) == OK);
    uint64_t n;
    const char *string;
    json_u64(tree, "it", &n, NULL);
    json_string(tree, "it", &string, NULL);
    cJSON_free(printed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static const struct json_limits choices[] = {
        { .max_depth = 4, .max_values = 100, .plain_integers = true },
        { .max_depth = 64, .max_values = 100000 },
        { .max_depth = 1000, .max_values = UINT64_MAX },
        { .max_depth = 2, .max_values = 3 },
    };
    if (nbytes == 0) return 0;
    struct json_limits limits = choices[data[0] % 4];
    const char *text = (const char *)data + 1;
    nbytes--;
    struct err err = { .code = OK };
    enum status checked = json_check(text, nbytes, &limits, &err);
    require((checked == OK) == (err.text[0] == '\0'));
    cJSON *tree;
    require(json_parse(text, nbytes, &limits, &tree, &err) == checked);
    enum status walked = json_walk_object(text, nbytes, &limits, check_member, &limits, &err);
    if (checked == OK) require((walked == OK) == cJSON_IsObject(tree));
    if (tree) check_tree(tree);
    cJSON_Delete(tree);
    return 0;
}
