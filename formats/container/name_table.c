/* name_table.c: see name_table.h.
 *
 * Formula: home slot = XXH3-64(name) folded to 32 bits, modulo n_slots; the next slots follow until an empty one. n_slots = 2 * capacity, so at
 * least half of the slots are empty.
 * Why this way: growing re-places the stored hashes and never touches the names again.
 * Corner cases: honest names take below 2 probes each on average; an average of more than 32 over all calls of name_table_add is an attack.
 * Reference: see name_table.h. Worked number: 64 names have 128 slots; the 65th name makes it 256.
 */
#include "container/name_table.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"

#define CAPACITY_MAX ((size_t)1 << 31)

static uint32_t hash_name(const char *name)
{
    uint64_t digest = digest64(name, strlen(name));
    return (uint32_t)(digest ^ digest >> 32);
}

static void place(struct name_slot *slots, size_t n_slots, struct name_slot slot)
{
    size_t at = slot.hash & (n_slots - 1);
    while (slots[at].number) at = (at + 1) & (n_slots - 1);
    slots[at] = slot;
}

static enum status grow(struct name_table *table, struct err *err)
{
    size_t capacity = table->capacity ? table->capacity * 2 : 64;
    if (capacity > CAPACITY_MAX) return err_set(err, ERR_UNSUPPORTED, "more than 2^31 names");
    struct name_slot *slots = calloc(capacity * 2, sizeof *slots);
    const char **names = slots ? realloc(table->names, capacity * sizeof *names) : NULL;
    if (!names) {
        free(slots);
        return err_set(err, ERR_MEMORY, "out of memory for a table of %zu names", capacity);
    }
    for (size_t i = 0; i < table->n_slots; i++)
        if (table->slots[i].number) place(slots, capacity * 2, table->slots[i]);
    free(table->slots);
    table->slots = slots;
    table->n_slots = capacity * 2;
    table->names = names;
    table->capacity = capacity;
    return OK;
}

/* The number of name, or SIZE_MAX; adds the slots it looked at to *n_probes. */
static size_t look_up(const struct name_table *table, const char *name, uint32_t hash, uint64_t *n_probes)
{
    if (table->n_slots == 0) return SIZE_MAX;
    for (size_t at = hash & (table->n_slots - 1); table->slots[at].number; at = (at + 1) & (table->n_slots - 1)) {
        ++*n_probes;
        size_t index = table->slots[at].number - 1;
        if (table->slots[at].hash == hash && strcmp(table->names[index], name) == 0) return index;
    }
    return SIZE_MAX;
}

enum status name_table_add(struct name_table *table, const char *name, size_t *index, struct err *err)
{
    uint32_t hash = hash_name(name);
    *index = look_up(table, name, hash, &table->n_probes);
    table->n_calls++;
    if (table->n_probes > 4096 && table->n_probes / 32 > table->n_calls) return err_set(err, ERR_DATA, "names made to collide");
    if (*index != SIZE_MAX) return OK;
    if (table->n_names == table->capacity) {
        enum status status = grow(table, err);
        if (status != OK) return status;
    }
    *index = table->n_names++;
    table->names[*index] = name;
    place(table->slots, table->n_slots, (struct name_slot){ .hash = hash, .number = (uint32_t)*index + 1 });
    return OK;
}

size_t name_table_find(const struct name_table *table, const char *name)
{
    uint64_t n_probes = 0;
    return look_up(table, name, hash_name(name), &n_probes);
}

void name_table_free(struct name_table *table)
{
    if (!table) return;
    free(table->names);
    free(table->slots);
    *table = (struct name_table){ 0 };
}
