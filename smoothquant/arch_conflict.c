/* arch_conflict.c: groups that would rescale the same channels of one tensor; see arch_self.h.
 *
 *   use = tensor, axis, matrices [mat, mat + n_mats), places; sorted by tensor, axis and mat, neighbours are compared
 *
 * Why this way: each factor is computed from the original weights of its own group; two factors on one axis would be one too many.
 * Corner cases: a tensor may be consumed along one axis and produce along the other; experts of one stack do not meet; parts that lie between each
 * other (gate and up row by row) do not meet when they have the same step; all groups that meet are refused.
 * Reference: the project's smoothquant notes 3c.8. Worked number: rows 0 1 2 . . 5 6 7 . . (run 3, step 5) and 3 4 . . . 8 9 do not meet.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "smoothquant/arch_self.h"

struct use {
    const struct smooth_side *side;
    size_t group;
    uint64_t n; /* channels on this side */
};

static int compare(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

static int compare_uses(const void *left, const void *right)
{
    const struct use *a = left, *b = right;
    int order = compare(a->side->tensor, b->side->tensor);
    if (order == 0) order = compare(a->side->along_rows, b->side->along_rows);
    if (order == 0) order = compare(a->side->mat, b->side->mat);
    return order != 0 ? order : compare(a->group, b->group);
}

static bool places_meet(const struct use *a, const struct use *b)
{
    const struct smooth_side *x = a->side, *y = b->side;
    if (smooth_side_place(x, a->n - 1) < y->first || smooth_side_place(y, b->n - 1) < x->first) return false;
    if (x->step != y->step || x->run > a->n || y->run > b->n) return true;
    uint64_t from = x->first % x->step, to = y->first % y->step;
    return from + x->run > x->step || to + y->run > y->step || (from < to + y->run && to < from + x->run);
}

static void mark(const struct use *a, const struct use *b, size_t *tensors, size_t *others)
{
    if (tensors[a->group] == SIZE_MAX) {
        tensors[a->group] = a->side->tensor;
        others[a->group] = b->group;
    }
    if (tensors[b->group] == SIZE_MAX) {
        tensors[b->group] = a->side->tensor;
        others[b->group] = a->group;
    }
}

static size_t collect(const struct smooth_groups *groups, struct use *uses)
{
    size_t n = 0;
    for (size_t i = 0; i < groups->n_groups; i++) {
        const struct smooth_group *group = &groups->groups[i];
        for (size_t k = 0; k < group->n_producers; k++) uses[n++] = (struct use){ &group->producers[k], i, smooth_group_producers(group) };
        for (size_t k = 0; k < group->n_consumers; k++) uses[n++] = (struct use){ &group->consumers[k], i, group->n };
    }
    return n;
}

/* Moves the marked groups to the refusals; the others close up. */
static enum status drop_marked(const struct arch *arch, struct smooth_groups *groups, const size_t *tensors, const size_t *others, struct err *err)
{
    enum status status = OK;
    for (size_t i = 0; i < groups->n_groups && status == OK; i++) {
        char name[256], why[ARCH_WHY_MAX];
        if (tensors[i] == SIZE_MAX) continue;
        arch_id_of(arch, tensors[i], name, sizeof name);
        snprintf(why, sizeof why, "'%s' would be scaled by the group '%.200s' as well", name, groups->groups[others[i]].id);
        status = arch_add_refusal(groups, groups->groups[i].id, why, err);
    }
    size_t kept = 0;
    for (size_t i = 0; i < groups->n_groups && status == OK; i++) {
        if (tensors[i] == SIZE_MAX) {
            groups->groups[kept++] = groups->groups[i];
            continue;
        }
        free(groups->groups[i].id);
        free(groups->groups[i].producers);
        free(groups->groups[i].consumers);
    }
    if (status == OK) groups->n_groups = kept;
    return status;
}

enum status arch_drop_conflicts(const struct arch *arch, struct smooth_groups *groups, struct err *err)
{
    size_t n_uses = 0, n = groups->n_groups;
    for (size_t i = 0; i < n; i++) n_uses += groups->groups[i].n_producers + groups->groups[i].n_consumers;
    struct use *uses = calloc(n_uses + 1, sizeof *uses);
    size_t *tensors = malloc((n + 1) * sizeof *tensors), *others = malloc((n + 1) * sizeof *others);
    enum status status = uses && tensors && others ? OK : err_set(err, ERR_MEMORY, "out of memory for groups");
    for (size_t i = 0; i < n && status == OK; i++) tensors[i] = others[i] = SIZE_MAX;
    if (status == OK) {
        collect(groups, uses);
        qsort(uses, n_uses, sizeof *uses, compare_uses);
    }
    for (size_t i = 0; i < n_uses && status == OK; i++)
        for (size_t k = i + 1; k < n_uses; k++) {
            const struct smooth_side *a = uses[i].side, *b = uses[k].side;
            if (a->tensor != b->tensor || a->along_rows != b->along_rows || b->mat >= a->mat + a->n_mats) break;
            if (places_meet(&uses[i], &uses[k])) mark(&uses[i], &uses[k], tensors, others);
        }
    if (status == OK) status = drop_marked(arch, groups, tensors, others, err);
    free(uses);
    free(tensors);
    free(others);
    return status;
}
