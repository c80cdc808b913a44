/* budget_core.c: see budget_core.h.
 *
 * Formula: with base cost C, base error E, budget B and the break's slope s, an option that adds c bits and e error to the base can be part of a
 * choice of error U only if   E + e + s c - s (B - C) <= U.   A state of cost c and error e, with items k .. open, whose steps up the base have at
 * most slope u and whose steps down have at least slope d, ends with at least   e - u (B - c)   for c <= B,   e + d (c - B)   for c > B.
 * Why this way: see budget_core.h. A node is made only where an item leaves its base, so that a choice is a short list.
 * Corner cases: bounds are rounded in binary64; GUARD units of error and a share of 2^-48 make up for it, so nothing is cut that could be best.
 * Reference: budget_core.h. Worked number: base 2 + 9 with 3 bits left and slope 1.5: leaving item 1 for {6: 0} adds 6 bits and -9: 11 - 9 + 9 - 4.5 =
 * 6.5 <= 11, so it stays open.
 */
#include "converter/budget_core.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GIVEN UINT32_MAX

enum {
    STATES_MIN = 64,
    STATES_MAX = 1 << 14, /* live after an item, fewer where there are many items */
    MERGED_MAX = 2 * STATES_MAX, /* while they are merged */
    NODES_MAX = 1 << 20,
    WORK_MAX = 1 << 27 /* heads looked at */
};

/* An item that may leave its base. */
struct open_item {
    size_t item;
    struct excess *options; /* those that may be taken, the base among them */
    size_t n;
    struct excess base;
    double distance; /* of the nearest slope to that of the break */
};

/* What the open items from some number on can do. */
struct rest {
    double up; /* largest saving of error for a bit more; 0: none */
    double down; /* least error for a bit less; +infinity: none */
    uint64_t saves; /* bits, at most */
    double gains; /* error, at most */
};

struct state {
    uint64_t cost;
    double error;
    uint32_t node;
};

/* One departure from the base, and those before it. */
struct node {
    uint32_t parent, open, option;
};

struct core {
    uint64_t budget;
    struct open_item *open;
    struct rest *rests; /* n_open + 1 */
    size_t n_open;
    struct state *live, *merged;
    size_t n_live, n_merged;
    double *bounds; /* MERGED_MAX */
    size_t *heads; /* one an option */
    struct node *nodes;
    uint32_t n_nodes;
    uint64_t work;
    size_t n_kept; /* live states at most after an item */
    struct state best; /* node GIVEN: the choice that was given */
    double dropped; /* least bound of what was dropped */
    double guard;
};

/* ---- which items are open ---------------------------------------------------------------------------------------------------------- */

static double signed_bits(uint64_t cost, uint64_t base)
{
    return cost >= base ? (double)(cost - base) : -(double)(base - cost);
}

static int by_distance(const void *a, const void *b)
{
    const struct open_item *x = a, *y = b;
    if (x->distance != y->distance) return x->distance < y->distance ? -1 : 1;
    return x->item < y->item ? -1 : x->item > y->item;
}

/* Moves the options of an item that may be part of a better choice to out; the item's distance comes with them. */
static void open_options(const struct core *core, const struct excess_item *item, const struct relaxation *relaxation, struct open_item *out)
{
    const double slack = relaxation->slope * (double)(core->budget - relaxation->base_cost);
    out->distance = HUGE_VAL;
    for (size_t k = 0; k < item->n; k++) {
        const struct excess *option = &item->options[k];
        const double bits = signed_bits(option->cost, out->base.cost), error = option->error - out->base.error;
        const double bound = relaxation->base_error + error + relaxation->slope * bits - slack;
        const double margin = core->guard + 0x1p-48 * (relaxation->base_error + fabs(relaxation->slope * bits) + slack);
        if (k != relaxation->base[out->item] && bound - margin > core->best.error) continue;
        out->options[out->n++] = *option;
        if (bits != 0.0) out->distance = fmin(out->distance, fabs(-error / bits - relaxation->slope));
    }
}

static void open_items(struct core *core, const struct excess_item *items, size_t n_items, const struct relaxation *relaxation,
                       struct excess *options)
{
    for (size_t i = 0; i < n_items; i++) {
        struct open_item *open = &core->open[core->n_open];
        *open = (struct open_item){ .item = i, .options = options, .base = items[i].options[relaxation->base[i]] };
        open_options(core, &items[i], relaxation, open);
        if (open->n < 2) continue;
        options += open->n;
        core->n_open++;
    }
    qsort(core->open, core->n_open, sizeof *core->open, by_distance);
}

static void add_rest(const struct open_item *open, const struct rest *after, struct rest *out)
{
    uint64_t saves = 0;
    double gains = 0.0;
    *out = *after;
    for (size_t k = 0; k < open->n; k++) {
        const struct excess *option = &open->options[k];
        const double bits = signed_bits(option->cost, open->base.cost), error = option->error - open->base.error;
        if (bits > 0.0) out->up = fmax(out->up, -error / bits);
        if (bits < 0.0) out->down = fmin(out->down, -error / bits);
        if (bits < 0.0 && open->base.cost - option->cost > saves) saves = open->base.cost - option->cost;
        gains = fmax(gains, -error);
    }
    out->saves += saves;
    out->gains += gains;
}

/* ---- states ------------------------------------------------------------------------------------------------------------------------ */

static double state_bound(const struct core *core, const struct state *state, const struct rest *rest)
{
    const bool over = state->cost > core->budget;
    const double bits = over ? (double)(state->cost - core->budget) : (double)(core->budget - state->cost);
    if (over && state->cost - core->budget > rest->saves) return HUGE_VAL;
    const double change = over ? rest->down * bits : -rest->up * bits;
    const double bound = state->error + change - core->guard - 0x1p-48 * (state->error + fabs(change));
    return fmax(bound, state->error - rest->gains);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Keeps the wanted states of the best bounds, in their order. */
static void thin(struct core *core, const struct rest *rest, size_t wanted)
{
    size_t n = 0;
    if (core->n_merged <= wanted) return;
    for (size_t k = 0; k < core->n_merged; k++) core->bounds[k] = state_bound(core, &core->merged[k], rest);
    qsort(core->bounds, core->n_merged, sizeof *core->bounds, by_value);
    const double limit = core->bounds[wanted];
    size_t ties = wanted;
    while (ties > 0 && core->bounds[ties - 1] == limit) ties--;
    ties = wanted - ties; /* of those at the limit, so many stay */
    for (size_t k = 0; k < core->n_merged; k++) {
        const double bound = state_bound(core, &core->merged[k], rest);
        const bool tie = bound == limit && ties > 0;
        if (tie) ties--;
        if (bound < limit || tie) core->merged[n++] = core->merged[k];
        else core->dropped = fmin(core->dropped, bound);
    }
    core->n_merged = n;
}

static bool is_better(const struct state *state, const struct core *core)
{
    if (state->cost > core->budget) return false;
    return state->error < core->best.error || (state->error == core->best.error && state->cost < core->best.cost);
}

/* Adds a state that nothing beats so far. False: no memory left for its node. */
static bool keep_state(struct core *core, size_t k, uint32_t option, struct state state)
{
    const struct open_item *open = &core->open[k];
    const struct rest *rest = &core->rests[k + 1];
    if (core->n_merged && core->merged[core->n_merged - 1].error <= state.error) return true;
    if (state_bound(core, &state, rest) > core->best.error) return true;
    if (open->options[option].index != open->base.index) {
        if (core->n_nodes == NODES_MAX) return false;
        core->nodes[core->n_nodes] = (struct node){ state.node, (uint32_t)k, option };
        state.node = core->n_nodes++;
    }
    if (is_better(&state, core)) core->best = state;
    if (core->n_merged == MERGED_MAX) thin(core, rest, core->n_kept);
    core->merged[core->n_merged++] = state;
    return true;
}

static struct state leave(const struct state *state, const struct open_item *open, size_t option)
{
    return (struct state){ state->cost - open->base.cost + open->options[option].cost, state->error - open->base.error + open->options[option].error,
                           state->node };
}

/* Merges the live states with every option of open item k, by cost, then error, then option. False when memory or work is used up. */
static bool merge(struct core *core, size_t k)
{
    const struct open_item *open = &core->open[k];
    core->n_merged = 0;
    for (size_t o = 0; o < open->n; o++) core->heads[o] = 0;
    for (;;) {
        size_t chosen = open->n;
        struct state least = { 0 };
        for (size_t o = 0; o < open->n; o++) {
            if (core->heads[o] == core->n_live) continue;
            const struct state state = leave(&core->live[core->heads[o]], open, o);
            if (chosen < open->n && (state.cost > least.cost || (state.cost == least.cost && state.error >= least.error))) continue;
            least = state;
            chosen = o;
        }
        if (chosen == open->n) return true;
        core->heads[chosen]++;
        core->work += open->n;
        if (core->work > WORK_MAX || !keep_state(core, k, (uint32_t)chosen, least)) return false;
    }
}

/* What is live before open item k can end no better than this. */
static void drop_live(struct core *core, size_t k)
{
    for (size_t s = 0; s < core->n_live; s++) core->dropped = fmin(core->dropped, state_bound(core, &core->live[s], &core->rests[k]));
}

/* As many states as the work allows for every open item. */
static size_t states_of(const struct core *core)
{
    uint64_t heads = 1;
    for (size_t k = 0; k < core->n_open; k++) heads += (uint64_t)core->open[k].n * core->open[k].n;
    const uint64_t n = WORK_MAX / heads;
    return n > STATES_MAX ? STATES_MAX : n < STATES_MIN ? STATES_MIN : (size_t)n;
}

static void search(struct core *core)
{
    core->n_kept = states_of(core);
    for (size_t k = 0; k < core->n_open && core->n_live; k++) {
        if (!merge(core, k)) {
            drop_live(core, k);
            return;
        }
        thin(core, &core->rests[k + 1], core->n_kept);
        struct state *swap = core->live;
        core->live = core->merged;
        core->merged = swap;
        core->n_live = core->n_merged;
    }
}

/* ---- all together ------------------------------------------------------------------------------------------------------------------ */

static bool core_make(struct core *core, size_t n_items, size_t n_options)
{
    core->open = malloc(n_items * sizeof *core->open + 1);
    core->rests = malloc((n_items + 1) * sizeof *core->rests);
    core->live = malloc(MERGED_MAX * sizeof *core->live);
    core->merged = malloc(MERGED_MAX * sizeof *core->merged);
    core->bounds = malloc(MERGED_MAX * sizeof *core->bounds);
    core->heads = malloc(n_options * sizeof *core->heads + 1);
    core->nodes = malloc(NODES_MAX * sizeof *core->nodes);
    return core->open && core->rests && core->live && core->merged && core->bounds && core->heads && core->nodes;
}

static void core_free(struct core *core)
{
    free(core->open);
    free(core->rests);
    free(core->live);
    free(core->merged);
    free(core->bounds);
    free(core->heads);
    free(core->nodes);
}

/* The choice that the best state's nodes tell. */
static void take_best(const struct core *core, const struct excess_item *items, size_t n_items, struct relaxation *relaxation)
{
    if (core->best.node == GIVEN) return; /* the one given stays */
    memcpy(relaxation->greedy, relaxation->base, n_items * sizeof *relaxation->greedy);
    for (uint32_t at = core->best.node; at; at = core->nodes[at].parent) {
        const struct node *node = &core->nodes[at];
        const struct open_item *open = &core->open[node->open];
        size_t k = 0;
        while (items[open->item].options[k].index != open->options[node->option].index) k++;
        relaxation->greedy[open->item] = k;
    }
    relaxation->greedy_cost = core->best.cost;
    relaxation->greedy_error = core->best.error;
}

enum status budget_core(const struct excess_item *items, size_t n_items, uint64_t budget, struct relaxation *relaxation, double *bound,
                        struct err *err)
{
    size_t n_options = 0;
    for (size_t i = 0; i < n_items; i++) n_options += items[i].n;
    struct core core = { .budget = budget,
                         .n_live = 1,
                         .n_nodes = 1,
                         .best = { relaxation->greedy_cost, relaxation->greedy_error, GIVEN },
                         .dropped = HUGE_VAL,
                         .guard = 1.0 + (double)n_items };
    struct excess *options = malloc(n_options * sizeof *options + 1);
    const bool fine = core_make(&core, n_items, n_options) && options;
    if (fine) {
        open_items(&core, items, n_items, relaxation, options);
        core.rests[core.n_open] = (struct rest){ .down = HUGE_VAL };
        for (size_t k = core.n_open; k-- > 0;) add_rest(&core.open[k], &core.rests[k + 1], &core.rests[k]);
        core.live[0] = (struct state){ relaxation->base_cost, relaxation->base_error, 0 };
        if (is_better(&core.live[0], &core)) core.best = core.live[0];
        search(&core);
        take_best(&core, items, n_items, relaxation);
        *bound = fmax(0.0, fmin(core.best.error, core.dropped));
    }
    free(options);
    core_free(&core);
    return fine ? OK : err_set(err, ERR_MEMORY, "out of memory for the choice of formats");
}
