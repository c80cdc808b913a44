/* arch_build.c: one group of one layer (or expert): its tensors, their axes, and whether they agree; see arch_self.h.
 *
 *   { kind: V, absorb: attn_qkv.v, consumers: attn_output, share: { heads: rep, run: head_dim } }
 *   -> n = columns of attn_output; producers have n / rep channels: rows first .. of attn_qkv, and of its bias
 *
 * Formula: n = inputs of the first whole consumer; place of channel j = first + (j / run) * step + j % run, below the axis, whose length is the part's size.
 * Why this way: every number that a map gives is compared with one that the tensors have, so that a wrong map is refused and not applied.
 * Corner cases: a part is counted on the axis where its tensor produces or consumes: outputs are rows, or columns of a transposed matrix; a vector has one
 * axis; a stack takes part with all its matrices, or with that of the expert; a stack of heads (attn_v_b) as a producer is counted row by row over all
 * its matrices; what is stored in less than 16 bits or as integers is quantised already.
 * Reference: group.h; the project's smoothquant notes 3a, 3c. Worked number: Phi-3-mini: qkv 9216 rows, v first 6144, run 3072.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "smoothquant/arch_self.h"

/* The sentence of the refusal; the first one stays. */
LLMQ_PRINTF(2, 3) static void refuse(struct arch_attempt *attempt, const char *format, ...)
{
    va_list args;
    if (attempt->why[0]) return;
    va_start(args, format);
    vsnprintf(attempt->why, sizeof attempt->why, format, args);
    va_end(args);
}

static bool refused(const struct arch_attempt *attempt)
{
    return attempt->why[0] != '\0';
}

static const struct tensor *tensor_at(const struct arch *arch, size_t index)
{
    return &arch->container->tensors[index];
}

void arch_id_of(const struct arch *arch, size_t tensor, char *out, size_t out_size)
{
    const char *name = tensor_at(arch, tensor)->name;
    size_t n = strlen(name);
    if (n > 7 && strcmp(name + n - 7, ".weight") == 0) n -= 7;
    err_name(name, n, out, out_size);
}

static const char *shown(const struct arch *arch, size_t tensor, char out[256])
{
    const char *name = tensor_at(arch, tensor)->name;
    return err_name(name, strlen(name), out, 256);
}

/* ---- finding the tensors of a reference ---------------------------------------------------------------------------------------------- */

uint32_t arch_experts(const struct arch *arch, uint32_t key, uint32_t layer)
{
    double said = 0;
    size_t whole = arch_place_find(arch, key, layer, ARCH_NONE, false);
    if (whole != SIZE_MAX && tensor_at(arch, whole)->rank == 3) {
        uint64_t n = tensor_at(arch, whole)->dims[0];
        return n <= ARCH_EXPERTS_MAX ? (uint32_t)n : 0;
    }
    if (arch_number(arch, "n_experts", &said) && said >= 1 && said <= ARCH_EXPERTS_MAX) return (uint32_t)said;
    uint32_t last = 0;
    for (size_t i = arch_layer_begin(arch, layer); i < arch->n_places && arch->places[i].layer == layer; i++)
        if (arch->places[i].key == key && arch->places[i].expert != ARCH_NONE && arch->places[i].expert >= last) last = arch->places[i].expert + 1;
    return last <= ARCH_EXPERTS_MAX ? last : 0;
}

static void lacks(struct arch_attempt *attempt, uint32_t key, uint32_t expert)
{
    char name[512];
    arch_name_of(attempt->arch, key, attempt->layer, expert, name, sizeof name);
    refuse(attempt, "the model lacks '%s', which this group needs", name);
}

/* ---- one side ------------------------------------------------------------------------------------------------------------------------ */

/* A tensor in a role, and the length of the axis that counts. */
struct role {
    struct smooth_side side;
    const struct arch_key *key;
    uint64_t length;
};

static void check_stored(struct arch_attempt *attempt, size_t index)
{
    char name[256];
    const struct tensor *tensor = tensor_at(attempt->arch, index);
    if (tensor->quantised || tensor->quant)
        refuse(attempt, "'%s' is quantised already (%s)", shown(attempt->arch, index, name), tensor->format ? tensor->format : "in blocks");
    else if (tensor->dtype->class != DTYPE_FLOAT || tensor->dtype->bits < 16)
        refuse(attempt, "'%s' is quantised already (stored as %s)", shown(attempt->arch, index, name), tensor->dtype->name);
}

/* The axis of a tensor on the side of its outputs (producer) or inputs. */
static void find_axis(struct arch_attempt *attempt, size_t index, const struct arch_key *key, bool producer, uint32_t mat, struct role *role)
{
    char name[256];
    const struct tensor *tensor = tensor_at(attempt->arch, index);
    bool stack = tensor->rank == 3, transposed = key->transposed[attempt->arch->gguf] && tensor->rank > 1;
    if (key->experts && mat == ARCH_NONE && attempt->expert != ARCH_NONE) transposed = false; /* of a single expert */
    *role = (struct role){ .side = { .tensor = index, .n_mats = 1 }, .key = key };
    if (tensor->rank < 1 || tensor->rank > 3) {
        refuse(attempt, "'%s' has %u dims", shown(attempt->arch, index, name), tensor->rank);
        return;
    }
    role->side.along_rows = tensor->rank > 1 && producer != transposed;
    role->length = tensor->dims[tensor->rank - (role->side.along_rows ? 2 : 1)];
    if (stack && mat != ARCH_NONE) role->side.mat = mat;
    else if (stack && producer) { /* a stack of heads: rows of all matrices in a row */
        if (!role->side.along_rows || !size_mul(role->length, tensor->dims[0], &role->length))
            refuse(attempt, "'%s' is a stack without rows to divide", shown(attempt->arch, index, name));
    } else if (stack) role->side.n_mats = tensor->dims[0];
}

static const struct arch_part *find_part(const struct arch_attempt *attempt, const struct arch_ref *ref)
{
    const struct arch_map *map = attempt->arch->map;
    for (size_t i = 0; i < map->n_parts; i++)
        if (map->parts[i].key == ref->key && strcmp(map->parts[i].name, ref->part) == 0 &&
            arch_condition(attempt->arch, map->parts[i].when, attempt->layer))
            return &map->parts[i];
    return NULL;
}

static bool evaluate(struct arch_attempt *attempt, const char *text, uint64_t n, uint64_t otherwise, uint64_t *out)
{
    char why[EXPR_WHY_MAX];
    const struct arch_scope scope = { attempt->arch, n, attempt->expert == ARCH_NONE ? 0 : attempt->expert, n > 0, attempt->expert != ARCH_NONE };
    *out = otherwise;
    enum expr_answer answer = text ? arch_expression(&scope, text, out, why) : EXPR_OK;
    if (answer == EXPR_UNKNOWN) refuse(attempt, "the configuration does not say '%s'", why);
    if (answer == EXPR_BAD) refuse(attempt, "'%s' does not come out: %s", text, why);
    return answer == EXPR_OK;
}

/* Places n channels on the side. */
static void place_channels(struct arch_attempt *attempt, const struct arch_ref *ref, uint64_t n, struct role *role)
{
    char name[256];
    struct smooth_side *side = &role->side;
    const struct arch_part *part = ref->part ? find_part(attempt, ref) : NULL;
    uint64_t size = 0, end = 0;
    side->run = side->step = n;
    if (ref->part && !part) refuse(attempt, "the map says nothing of the part '%s' here", ref->part);
    if (part && (!evaluate(attempt, part->size, n, n, &size) || !evaluate(attempt, part->first, n, 0, &side->first) ||
                 !evaluate(attempt, part->run, n, n, &side->run) || !evaluate(attempt, part->step, n, side->run, &side->step)))
        return;
    if (!part) size = n;
    if (refused(attempt)) return;
    shown(attempt->arch, side->tensor, name);
    if (role->length != size)
        refuse(attempt, "'%s' has %llu channels, %llu are expected", name, (unsigned long long)role->length, (unsigned long long)size);
    else if (side->run < 1 || side->step < side->run || n % side->run != 0 || !size_mul(n / side->run - 1, side->step, &end) ||
             !size_add(end, side->run, &end) || !size_add(end, side->first, &end) || end > size)
        refuse(attempt, "the part '%s' of '%s' does not lie in its %llu channels", ref->part ? ref->part : "", name, (unsigned long long)size);
}

static void check_outputs(struct arch_attempt *attempt, const struct role *role)
{
    char why[EXPR_WHY_MAX], name[256];
    uint64_t wanted = 0;
    const struct arch_scope scope = { .arch = attempt->arch };
    const struct tensor *tensor = tensor_at(attempt->arch, role->side.tensor);
    if (!role->key->out || tensor->rank < 2 || arch_expression(&scope, role->key->out, &wanted, why) != EXPR_OK) return;
    bool transposed = role->key->transposed[attempt->arch->gguf];
    uint64_t outputs = tensor->dims[tensor->rank - (transposed ? 1 : 2)];
    if (outputs != wanted)
        refuse(attempt, "'%s' has %llu outputs, the configuration makes it %llu (%s)", shown(attempt->arch, role->side.tensor, name),
               (unsigned long long)outputs, (unsigned long long)wanted, role->key->out);
}

static enum status append_side(struct smooth_side **sides, size_t *n, const struct smooth_side *side, struct err *err)
{
    if ((*n & (*n - 1)) == 0) { /* 0 and powers of two: room for twice as many */
        struct smooth_side *bigger = realloc(*sides, (*n ? *n * 2 : 1) * sizeof **sides);
        if (!bigger) return err_set(err, ERR_MEMORY, "out of memory for groups");
        *sides = bigger;
    }
    (*sides)[(*n)++] = *side;
    return OK;
}

/* ---- consumers ----------------------------------------------------------------------------------------------------------------------- */

static enum status add_consumer(struct arch_attempt *attempt, const struct arch_ref *ref, size_t index, uint32_t mat, struct err *err)
{
    struct smooth_group *group = &attempt->group;
    struct role role;
    check_stored(attempt, index);
    find_axis(attempt, index, &attempt->arch->map->keys[ref->key], false, mat, &role);
    if (refused(attempt)) return OK;
    if (group->n == 0) group->n = role.length;
    if (group->n == 0) refuse(attempt, "it has no channels");
    check_outputs(attempt, &role);
    if (!refused(attempt)) place_channels(attempt, ref, group->n, &role);
    return refused(attempt) ? OK : append_side(&group->consumers, &group->n_consumers, &role.side, err);
}

/* Number of experts: that of the stack must be that of the configuration. */
static void check_stack(struct arch_attempt *attempt, const struct arch_key *key, size_t index)
{
    char name[256];
    double said = 0;
    const struct tensor *tensor = tensor_at(attempt->arch, index);
    if (!key->experts || tensor->rank != 3 || !arch_number(attempt->arch, "n_experts", &said)) return;
    if ((double)tensor->dims[0] < said || (double)tensor->dims[0] > said)
        refuse(attempt, "'%s' has %llu experts, the configuration says %g", shown(attempt->arch, index, name), (unsigned long long)tensor->dims[0],
               said);
}

/* All single experts of a layer. */
static enum status add_singles(struct arch_attempt *attempt, const struct arch_ref *ref, struct err *err)
{
    uint32_t n = arch_experts(attempt->arch, ref->key, attempt->layer);
    enum status status = OK;
    attempt->expert = 0;
    for (uint32_t e = 0; e < n && status == OK && !refused(attempt); e++) {
        size_t index = arch_place_find(attempt->arch, ref->key, attempt->layer, e, false);
        if (index == SIZE_MAX) lacks(attempt, ref->key, e);
        else status = add_consumer(attempt, ref, index, ARCH_NONE, err);
    }
    attempt->expert = ARCH_NONE;
    return status;
}

static enum status add_consumers(struct arch_attempt *attempt, const struct arch_ref *ref, struct err *err)
{
    const struct arch *arch = attempt->arch;
    const struct arch_key *key = &arch->map->keys[ref->key];
    size_t whole = arch_place_find(arch, ref->key, attempt->layer, ARCH_NONE, false);
    if (whole != SIZE_MAX) {
        check_stack(attempt, key, whole);
        return add_consumer(attempt, ref, whole, key->experts && tensor_at(arch, whole)->rank == 3 ? attempt->expert : ARCH_NONE, err);
    }
    if (!arch_has(arch, ref->key, attempt->layer)) {
        if (!ref->optional) lacks(attempt, ref->key, attempt->expert);
        return OK;
    }
    if (attempt->expert == ARCH_NONE) return add_singles(attempt, ref, err);
    size_t single = arch_place_find(arch, ref->key, attempt->layer, attempt->expert, false);
    if (single != SIZE_MAX) return add_consumer(attempt, ref, single, ARCH_NONE, err);
    lacks(attempt, ref->key, attempt->expert);
    return OK;
}

/* ---- producers ----------------------------------------------------------------------------------------------------------------------- */

static enum status add_producer(struct arch_attempt *attempt, const struct arch_ref *ref, size_t index, uint32_t mat, bool is_bias, struct err *err)
{
    const struct arch *arch = attempt->arch;
    struct smooth_group *group = &attempt->group;
    struct role role;
    char name[256];
    const struct arch_key *key = &arch->map->keys[ref->key];
    bool norm = tensor_at(arch, index)->rank == 1 && !is_bias, gains = group->kind == SMOOTH_N || group->kind == SMOOTH_N1 || group->kind == SMOOTH_G;
    if (group->kind == SMOOTH_M) gains = norm; /* low-rank norms and values alike */
    check_stored(attempt, index);
    find_axis(attempt, index, key, true, mat, &role);
    if (refused(attempt)) return OK;
    if (gains != norm && !is_bias)
        refuse(attempt, "'%s' has %u dims, which is not what the group's kind divides", shown(arch, index, name), tensor_at(arch, index)->rank);
    if (is_bias && tensor_at(arch, index)->rank != 1)
        refuse(attempt, "'%s' is a bias of %u dims", shown(arch, index, name), tensor_at(arch, index)->rank);
    role.side.is_bias = is_bias;
    role.side.root = attempt->spec->root;
    role.side.plus_one = norm && key->plus_one && !arch->gguf;
    if (role.side.plus_one && group->kind == SMOOTH_N) group->kind = SMOOTH_N1;
    if (!is_bias) check_outputs(attempt, &role);
    if (!refused(attempt)) place_channels(attempt, ref, smooth_group_producers(group), &role);
    return refused(attempt) ? OK : append_side(&group->producers, &group->n_producers, &role.side, err);
}

static enum status add_producers(struct arch_attempt *attempt, const struct arch_ref *ref, struct err *err)
{
    const struct arch *arch = attempt->arch;
    const struct arch_key *key = &arch->map->keys[ref->key];
    uint32_t expert = ARCH_NONE, mat = ARCH_NONE;
    size_t index = arch_place_find(arch, ref->key, attempt->layer, ARCH_NONE, false);
    if (index != SIZE_MAX && key->experts && tensor_at(arch, index)->rank == 3) mat = attempt->expert;
    if (index == SIZE_MAX && attempt->expert != ARCH_NONE) {
        expert = attempt->expert;
        index = arch_place_find(arch, ref->key, attempt->layer, expert, false);
    }
    if (index == SIZE_MAX) {
        if (!ref->optional) lacks(attempt, ref->key, attempt->expert);
        return OK;
    }
    enum status status = add_producer(attempt, ref, index, mat, false, err);
    size_t bias = arch_place_find(arch, ref->key, attempt->layer, expert, true);
    return status == OK && bias != SIZE_MAX && !refused(attempt) ? add_producer(attempt, ref, bias, mat, true, err) : status;
}

/* ---- the whole ----------------------------------------------------------------------------------------------------------------------- */

/* The name of the first producer, whether it is there or not. */
static void make_id(struct arch_attempt *attempt)
{
    const struct arch *arch = attempt->arch;
    const struct arch_ref *ref = &attempt->spec->absorb[0];
    for (size_t i = 0; i < attempt->spec->n_absorb; i++)
        if (arch_has(arch, attempt->spec->absorb[i].key, attempt->layer)) {
            ref = &attempt->spec->absorb[i];
            break;
        }
    size_t whole = arch_place_find(arch, ref->key, attempt->layer, ARCH_NONE, false);
    size_t index =
        whole == SIZE_MAX && attempt->expert != ARCH_NONE ? arch_place_find(arch, ref->key, attempt->layer, attempt->expert, false) : whole;
    if (index == SIZE_MAX) arch_name_of(arch, ref->key, attempt->layer, attempt->expert, attempt->id, sizeof attempt->id);
    else arch_id_of(arch, index, attempt->id, sizeof attempt->id - 16);
    size_t n = strlen(attempt->id);
    if (whole != SIZE_MAX && attempt->expert != ARCH_NONE) snprintf(attempt->id + n, sizeof attempt->id - n, "[%u]", attempt->expert);
}

/* The first reason of the map's list that holds. */
static void check_unless(struct arch_attempt *attempt)
{
    struct arch_at list = attempt->spec->unless;
    for (size_t i = 0; list.node && i < list.node->n_items; i++) {
        struct arch_at condition = { list.doc, list.node->items[i] };
        if (arch_condition(attempt->arch, condition, attempt->layer)) refuse(attempt, "%s", yaml_get(condition.node, "why")->value);
    }
}

/* n channels where the map says how many, and shared ones. */
static void check_channels(struct arch_attempt *attempt)
{
    const struct arch_group *spec = attempt->spec;
    struct smooth_group *group = &attempt->group;
    uint64_t wanted = group->n, of_head = 0;
    if (!evaluate(attempt, spec->channels, 0, group->n, &wanted)) return;
    if (wanted != group->n)
        refuse(attempt, "it has %llu channels, the configuration makes it %llu (%s)", (unsigned long long)group->n, (unsigned long long)wanted,
               spec->channels);
    if (!evaluate(attempt, spec->heads, 0, 1, &group->share_heads) || !evaluate(attempt, spec->run, 0, group->n, &group->share_run)) return;
    if (group->share_heads < 1 || group->share_run < 1 || !size_mul(group->share_heads, group->share_run, &of_head) || of_head < 1 ||
        group->n % of_head != 0)
        refuse(attempt, "its %llu channels are no heads of %llu, %llu of which share", (unsigned long long)group->n,
               (unsigned long long)group->share_run, (unsigned long long)group->share_heads);
    if (group->kind == SMOOTH_V && group->share_heads > 1) group->kind = SMOOTH_VG;
}

static void free_group(struct smooth_group *group)
{
    free(group->id);
    free(group->producers);
    free(group->consumers);
    *group = (struct smooth_group){ 0 };
}

enum status arch_build(struct arch_attempt *attempt, struct err *err)
{
    const struct arch_group *spec = attempt->spec;
    struct smooth_group *group = &attempt->group;
    enum status status = OK;
    *group = (struct smooth_group){ .kind = spec->kind, .layer = attempt->layer, .share_heads = 1, .share_run = 1, .on_request = spec->on_request };
    make_id(attempt);
    check_unless(attempt);
    if (spec->n_consumers > 0 && spec->consumers[0].part && !refused(attempt)) evaluate(attempt, spec->channels, 0, 0, &group->n);
    for (size_t i = 0; i < spec->n_consumers && status == OK && !refused(attempt); i++) status = add_consumers(attempt, &spec->consumers[i], err);
    if (status == OK && !refused(attempt) && group->n_consumers == 0) refuse(attempt, "none of its consumers is there");
    if (status == OK && spec->by_expert && attempt->expert == ARCH_NONE) refuse(attempt, "its experts cannot be told apart");
    if (status == OK && !refused(attempt)) check_channels(attempt);
    for (size_t i = 0; i < spec->n_absorb && status == OK && !refused(attempt); i++) status = add_producers(attempt, &spec->absorb[i], err);
    if (status == OK && !refused(attempt) && group->n_producers == 0) refuse(attempt, "none of its producers is there");
    if (status == OK && !refused(attempt) && !(group->id = strdup(attempt->id))) status = err_set(err, ERR_MEMORY, "out of memory for groups");
    if (status != OK || refused(attempt)) free_group(group);
    return status;
}
