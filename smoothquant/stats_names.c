/* stats_names.c: see stats_names.h.
 *
 * Drawing: entries -> groups by GGUF name, in the order of their first entries -> a group of one whole entry is moved, one of experts is stacked.
 * Why this way: the groups are known before a value moves, so that the height of a stack is known.
 * Corner cases: an alias of an expert becomes an alias of the stack when it has the expert's own number.
 * Reference: see stats_names.h. Worked number: 128 experts of 2 layers and 2 attention weights: 4 entries.
 */
#include "smoothquant/stats_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "container/shown.h"

#define EXPERTS_MAX 4096u

struct group {
    char *name;
    uint32_t n_experts; /* 0: one whole entry */
    size_t taken_at; /* of expert 0 in is_taken */
    size_t first; /* entry */
    bool is_done;
};

struct member {
    size_t group;
    uint32_t expert; /* NAME_NONE: whole */
};

struct renaming {
    struct stats_set *from, *to;
    const struct name_map *map;
    struct stats_renamed *renamed;
    struct group *groups;
    size_t n_groups;
    struct name_table names;
    bool *is_taken; /* of place k of all stacks, one behind the other */
    struct member *members; /* of entry i of from */
    size_t *places; /* entry of to of group i */
};

static enum status no_memory(struct err *err)
{
    return err_set(err, ERR_MEMORY, "out of memory for names");
}

/* The GGUF name, or the name itself. */
static void gguf_name(const struct renaming *r, const char *name, char out[STATS_NAME_MAX + 1], uint32_t *expert, bool *is_matched)
{
    struct name_place place = { .expert = NAME_NONE };
    *is_matched = name_map_find(r->map, name, &place) && name_map_gguf(r->map, &place, out, STATS_NAME_MAX + 1);
    *expert = *is_matched ? place.expert : NAME_NONE;
    if (!*is_matched) snprintf(out, STATS_NAME_MAX + 1, "%s", name);
}

static enum status join_group(struct renaming *r, size_t entry, const char *name, uint32_t expert, struct err *err)
{
    size_t index = 0, before = r->names.n_names;
    char *copy = strdup(name);
    if (!copy) return no_memory(err);
    enum status status = name_table_add(&r->names, copy, &index, err);
    if (status != OK || r->names.n_names == before) free(copy);
    else r->groups[r->n_groups++] = (struct group){ .name = copy, .first = entry };
    if (status != OK) return status;
    struct group *group = &r->groups[index];
    const struct stats_entry *first = &r->from->entries[group->first], *own = &r->from->entries[entry];
    if (group->first != entry && (expert == NAME_NONE || group->n_experts == 0))
        return err_set(err, ERR_DATA, "'%s' and '%s' are both '%s' in GGUF files", shown_str(first->name).text, shown_str(own->name).text,
                       shown_str(name).text);
    if (expert != NAME_NONE && (own->n_mat != 1 || own->n_in != first->n_in))
        return err_set(err, ERR_DATA, "'%s' has %llu x %llu channels, which makes no stack with '%s'", shown_str(own->name).text,
                       (unsigned long long)own->n_mat, (unsigned long long)own->n_in, shown_str(first->name).text);
    if (expert != NAME_NONE && expert >= EXPERTS_MAX)
        return err_set(err, ERR_UNSUPPORTED, "'%s': its expert's number is over %u", shown_str(own->name).text, EXPERTS_MAX - 1);
    if (expert != NAME_NONE && expert >= group->n_experts) group->n_experts = expert + 1;
    r->members[entry] = (struct member){ index, expert };
    return OK;
}

/* Refuses two entries for one expert. */
static enum status check_experts(struct renaming *r, struct err *err)
{
    size_t n = 0;
    for (size_t g = 0; g < r->n_groups; g++) {
        r->groups[g].taken_at = n;
        n += r->groups[g].n_experts; /* at most EXPERTS_MAX each */
    }
    r->is_taken = calloc(n + 1, sizeof *r->is_taken);
    if (!r->is_taken) return no_memory(err);
    for (size_t i = 0; i < r->from->n_entries; i++) {
        const struct member *member = &r->members[i];
        const struct group *group = &r->groups[member->group];
        if (member->expert == NAME_NONE) continue;
        bool *taken = &r->is_taken[group->taken_at + member->expert];
        if (*taken)
            return err_set(err, ERR_DATA, "'%s' is expert %u of '%s', which is there already", shown_str(r->from->entries[i].name).text,
                           member->expert, shown_str(group->name).text);
        *taken = true;
    }
    return OK;
}

static enum status make_groups(struct renaming *r, struct err *err)
{
    enum status status = OK;
    for (size_t i = 0; i < r->from->n_entries && status == OK; i++) {
        char name[STATS_NAME_MAX + 1];
        uint32_t expert = NAME_NONE;
        bool is_matched = false;
        gguf_name(r, r->from->entries[i].name, name, &expert, &is_matched);
        r->renamed->n_unmatched += !is_matched;
        r->renamed->n_renamed += strcmp(name, r->from->entries[i].name) != 0;
        status = join_group(r, i, name, expert, err);
    }
    return status == OK ? check_experts(r, err) : status;
}

/* ---- stacks ----------------------------------------------------------------------------------------------------------------------- */

/* The fields that all experts have, as bits; bit STATS_FIELD_COUNT: counts. by_group: for every group. */
static void common_fields(struct renaming *r, uint32_t *by_group)
{
    for (size_t g = 0; g < r->n_groups; g++) by_group[g] = UINT32_MAX;
    for (size_t i = 0; i < r->from->n_entries; i++) {
        const struct stats_entry *entry = &r->from->entries[i];
        uint32_t own = entry->counts ? 1u << STATS_FIELD_COUNT : 0;
        for (size_t f = 0; f < STATS_FIELD_COUNT; f++) own |= entry->values[f] ? 1u << f : 0;
        by_group[r->members[i].group] &= own;
    }
}

/* Makes the empty stack of a group. */
static enum status make_stack(struct renaming *r, const struct group *group, uint32_t fields, size_t *place, struct err *err)
{
    enum status status = stats_add(r->to, group->name, group->n_experts, r->from->entries[group->first].n_in, place, err);
    if (status != OK) return status;
    struct stats_entry *stack = &r->to->entries[*place];
    for (size_t f = 0; f < STATS_FIELD_COUNT && status == OK; f++)
        if (fields >> f & 1) status = stats_make_field(r->to, stack, (enum stats_field)f, err);
    if (status == OK && (fields >> STATS_FIELD_COUNT & 1)) status = stats_make_counts(r->to, stack, err);
    return status;
}

static void fill_stack(struct renaming *r, struct stats_entry *stack, const struct stats_entry *expert, uint32_t number)
{
    for (size_t f = 0; f < STATS_FIELD_COUNT; f++) {
        if (stack->values[f]) memcpy(stack->values[f] + number * stack->n_in, expert->values[f], (size_t)stack->n_in * sizeof(double));
        else r->renamed->n_fields += expert->values[f] != NULL;
    }
    if (stack->counts) stack->counts[number] = expert->counts[0];
    else r->renamed->n_fields += expert->counts != NULL;
    r->renamed->n_fields += (uint64_t)(expert->hist != NULL) + (expert->gram != NULL) + (expert->sample != NULL);
}

static enum status move_values(struct renaming *r, const uint32_t *fields, struct err *err)
{
    enum status status = OK;
    for (size_t i = 0; i < r->from->n_entries && status == OK; i++) {
        struct group *group = &r->groups[r->members[i].group];
        size_t *place = &r->places[r->members[i].group];
        if (group->n_experts == 0) {
            *place = r->to->n_entries;
            status = stats_move(r->to, group->name, r->from, i, err);
            continue;
        }
        if (!group->is_done) status = make_stack(r, group, fields[r->members[i].group], place, err);
        group->is_done = true;
        if (status == OK) fill_stack(r, &r->to->entries[*place], &r->from->entries[i], r->members[i].expert);
    }
    return status;
}

/* ---- the rest --------------------------------------------------------------------------------------------------------------------- */

static enum status move_aliases(struct renaming *r, struct err *err)
{
    enum status status = OK;
    for (size_t i = 0; i < r->from->n_aliases && status == OK; i++) {
        char name[STATS_NAME_MAX + 1];
        const struct stats_alias *alias = &r->from->aliases[i];
        const struct member *member = &r->members[alias->entry];
        uint32_t expert = NAME_NONE;
        bool is_matched = false;
        gguf_name(r, alias->name, name, &expert, &is_matched);
        r->renamed->n_renamed += strcmp(name, alias->name) != 0;
        if (expert != member->expert)
            return err_set(err, ERR_DATA, "'%s' stands for '%s', which is another expert", shown_str(alias->name).text,
                           shown_str(r->from->entries[alias->entry].name).text);
        const struct stats_entry *target = &r->to->entries[r->places[member->group]];
        if (expert != NAME_NONE && stats_find(r->to, name) == target) continue;
        status = stats_add_alias(r->to, name, r->places[member->group], err);
    }
    return status;
}

static enum status move_facts(struct renaming *r, struct err *err)
{
    const struct stats_set *from = r->from;
    enum status status = OK;
    r->to->chunk_size = from->chunk_size;
    r->to->chunk_count = from->chunk_count;
    for (size_t i = 0; i < from->n_datasets && status == OK; i++)
        status = stats_add_dataset(r->to, from->datasets[i], strlen(from->datasets[i]), err);
    for (size_t i = 0; i < from->n_pairs && status == OK; i++) status = stats_add_pair(r->to, from->pairs[i].key, from->pairs[i].value, err);
    if (status == OK && stats_pair(from, "names")) status = stats_add_pair(r->to, "names", "gguf", err);
    return status;
}

enum status stats_to_gguf_names(struct stats_set *set, const struct name_map *map, struct stats_set **out, struct stats_renamed *renamed,
                                struct err *err)
{
    const size_t n = set->n_entries + 1;
    struct renaming r = { .from = set,
                          .to = stats_new(set->max_nbytes),
                          .map = map,
                          .renamed = renamed,
                          .groups = calloc(n, sizeof *r.groups),
                          .members = calloc(n, sizeof *r.members),
                          .places = calloc(n, sizeof *r.places) };
    uint32_t *fields = calloc(n, sizeof *fields);
    *renamed = (struct stats_renamed){ 0 };
    enum status status = r.to && r.groups && r.members && r.places && fields ? OK : no_memory(err);
    if (status == OK) status = make_groups(&r, err);
    if (status == OK) common_fields(&r, fields);
    if (status == OK) status = move_values(&r, fields, err);
    if (status == OK) status = move_aliases(&r, err);
    if (status == OK) status = move_facts(&r, err);
    for (size_t i = 0; i < r.n_groups; i++) free(r.groups[i].name);
    name_table_free(&r.names);
    free(r.groups);
    free(r.is_taken);
    free(r.members);
    free(r.places);
    free(fields);
    if (status == OK) *out = r.to;
    else stats_close(r.to);
    return status;
}
