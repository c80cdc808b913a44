/* name_table.h: a set of names, numbered in the order they were added, found by name in constant time.
 *
 *   add "a" -> 0, add "b" -> 1, add "a" -> 0 again and n_names stays 2; find "b" -> 1; find "c" -> SIZE_MAX
 *
 * Why this way: models have up to a million tensors, and looking them up one by one in a list takes hours; open addressing with the hash
 * beside the index touches one cache line a look-up.
 * Corner cases: names are not copied, they must live as long as the table; names made to collide in the hash are refused (ERR_DATA) instead of
 * searched in quadratic time; a zeroed struct is an empty table; at most 2^31 names.
 * Reference: Knuth, The Art of Computer Programming 3, 6.4 (linear probing).
 */
#ifndef LLMQ_CONTAINER_NAME_TABLE_H
#define LLMQ_CONTAINER_NAME_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct name_slot {
    uint32_t hash;
    uint32_t number; /* index + 1; 0 is an empty slot */
};

struct name_table {
    const char **names; /* NUL-terminated, belong to the caller */
    size_t n_names;
    size_t capacity;
    struct name_slot *slots;
    size_t n_slots; /* a power of two, twice the capacity */
    uint64_t n_calls; /* of name_table_add, and the slots they looked at */
    uint64_t n_probes;
};

/* Sets *index to the number of name; it is new when n_names grew. */
enum status name_table_add(struct name_table *table, const char *name, size_t *index, struct err *err);

/* The number of name, or SIZE_MAX. */
size_t name_table_find(const struct name_table *table, const char *name);

/* Frees the members, not the struct; NULL is allowed. */
void name_table_free(struct name_table *table);

#endif
