/* json.h: strict JSON: a scanner that refuses everything RFC 8259 refuses and more, then cJSON for the tree. The only user of cJSON.
 *
 *   text -> json_walk_object: strict check of every byte, one callback per top-level member, in file order
 *        -> json_parse: the same check, then a cJSON tree of one value
 *
 * Why this way: cJSON takes `01`, raw control bytes, \uZZZZ, \u0000, duplicate keys and trailing text, keeps integers as doubles, and builds 3.9 GB
 * from 100 MB of `0,0,0`. The scan closes all of that before cJSON sees a byte, in one linear pass without a tree, and counts the values so that
 * the tree's memory is bounded. A header of 600 000 tensors is walked member by member: only one entry's tree exists at a time.
 * Corner cases: leading and trailing blanks (the four of JSON) are accepted; BOM, NUL, trailing text, invalid UTF-8, lone surrogate escapes,
 * \u0000, depth beyond the limit, duplicate keys in any object (compared after unescaping), more values than the limit are refused with line-free
 * offsets ("byte 17").
 * Reference: RFC 8259; nst/JSONTestSuite (188 of 188 must-reject files).
 */
#ifndef LLMQ_BASE_JSON_H
#define LLMQ_BASE_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct json_limits {
    unsigned max_depth; /* nesting of arrays and objects, the top level counts 1 */
    uint64_t max_values; /* values of all kinds below one walked member, or in one parsed text */
    bool plain_integers; /* every number must be decimal digits only: no sign, point, exponent, leading zero */
};

/* The strict check alone, of one whole text. */
enum status json_check(const char *text, size_t nbytes, const struct json_limits *limits, struct err *err);

/* One top-level member: key unescaped (key_nbytes bytes, NUL-terminated too), value the bytes of its text, a piece of the
 * walked text. The key lives only during the call. */
typedef enum status json_member_fn(void *context, const char *key, size_t key_nbytes, const char *value, size_t value_nbytes, struct err *err);

/* Checks that text is one object and calls fn for each member in order; stops at the first status that is not OK. Each member's value is fully
 * checked before its call, duplicate top-level keys are found by a hash table (linear time). Memory: 16 to 32 bytes per key besides text. */
enum status json_walk_object(const char *text, size_t nbytes, const struct json_limits *limits, json_member_fn *fn, void *context, struct err *err);

/* Strict check, then the tree; the caller deletes it with cJSON_Delete. Only parse, iterate, cJSON_GetObjectItemCaseSensitive and delete are used
 * on it. Not from two threads at once (cJSON keeps one static error pointer); the check and the walk may. */
enum status json_parse(const char *text, size_t nbytes, const struct json_limits *limits, cJSON **tree, struct err *err);

/* The tree of a value that json_walk_object has handed over, that is, of text already checked. */
enum status json_parse_checked(const char *text, size_t nbytes, cJSON **tree, struct err *err);

/* Member of an object by exact key, or NULL. */
const cJSON *json_get(const cJSON *object, const char *key);

/* Integral number 0 .. 2^53-1, else ERR_DATA naming what. */
enum status json_u64(const cJSON *item, const char *what, uint64_t *out, struct err *err);

/* Member name of an object as a number from low to high; as one that may be absent, which means 0; as true or false, absent means false; as an array of
 * two numbers. Else ERR_DATA naming the member. */
enum status json_u64_in(const cJSON *object, const char *name, uint64_t low, uint64_t high, uint64_t *out, struct err *err);
enum status json_u32_in(const cJSON *object, const char *name, uint32_t low, uint32_t high, uint32_t *out, struct err *err);
enum status json_optional_u32(const cJSON *object, const char *name, uint32_t high, uint32_t *out, struct err *err);
enum status json_bool(const cJSON *object, const char *name, bool *out, struct err *err);
enum status json_pair(const cJSON *object, const char *name, uint64_t *a, uint64_t *b, struct err *err);

/* The string of item, else ERR_DATA naming what. The pointer lives as long as the tree. */
enum status json_string(const cJSON *item, const char *what, const char **out, struct err *err);

#endif
