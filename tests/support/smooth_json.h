/* smooth_json.h: numbers of tests/golden/smooth.json.
 *
 * Why this way: three test programs read the same file.
 * Corner cases: a file that is missing, or a member that is, fails the test.
 * Reference: header of tests/oracle_smooth.py. Worked number: "3f800000" is 1.
 */
#ifndef LLMQ_TESTS_SMOOTH_JSON_H
#define LLMQ_TESTS_SMOOTH_JSON_H

#include "support/support.h"

#include <cjson/cJSON.h>

#include "number/half.h"

static inline const cJSON *member_of(const cJSON *item, const char *key)
{
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(item, key);
    if (!member) fail_msg("smooth.json: a case lacks '%s'", key);
    return member;
}

static inline const char *text_of(const cJSON *item, const char *key)
{
    const char *text = cJSON_GetStringValue(member_of(item, key));
    if (!text) fail_msg("smooth.json: '%s' is no text", key);
    return text;
}

static inline double number_of(const cJSON *item, const char *key)
{
    return member_of(item, key)->valuedouble;
}

static inline bool bool_of(const cJSON *item, const char *key)
{
    return cJSON_IsTrue(member_of(item, key));
}

static inline double number_at(const cJSON *list, size_t index)
{
    const cJSON *item = cJSON_GetArrayItem(list, (int)index);
    assert_non_null(item);
    return item->valuedouble;
}

/* Floats of their bits; NULL for an empty text. The caller frees. */
static inline float *floats_of_hex(const char *hex, size_t *n)
{
    *n = strlen(hex) / 8;
    if (*n == 0) return NULL;
    float *out = calloc(*n, sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < *n; i++) {
        char digits[9] = { 0 };
        memcpy(digits, hex + 8 * i, 8);
        out[i] = f32_from_bits((uint32_t)strtoul(digits, NULL, 16));
    }
    return out;
}

static inline float *floats_of(const cJSON *item, const char *key, size_t *n)
{
    return floats_of_hex(text_of(item, key), n);
}

/* Calls check for each case of a list; returns how many there were. */
static inline size_t smooth_cases(const char *list, void (*check)(const cJSON *golden, size_t number))
{
    char *text = read_file(tests_path("golden/smooth.json"), NULL);
    cJSON *tree = cJSON_Parse(text);
    const cJSON *item;
    size_t count = 0;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(tree, list)) check(item, count++);
    cJSON_Delete(tree);
    free(text);
    return count;
}

#endif
