/* observe.c: the table of observers, the grid that sends weights to slots, and the life of an observation.
 *
 * Drawing: tensor [o, a, m, z], axis a: weight ((o * length + a) * middle + m) * last + z goes to slot a (channel), or to slot ((o * last + z) *
 * middle + m) * groups + a / group (group), which is its place once a and z have been swapped.
 * Why this way: a span is cut into runs of weights of one slot, longest first; rows know nothing of shapes.
 * Corner cases: see observe.h; dimensions of 0 make a grid without weights; the number of weights is checked to fit 64 bits.
 * Reference: NUMERICS_OBSERVERS.md 3. Worked number: shape [2, 6], axis -1, groups of 4: two groups a row, of 4 and 2; weight 10 = (1, 4) goes to
 * slot 3.
 */
#include "number/observe.h"

#include <string.h>

#include "base/size.h"

static const struct observer *const rows[] = {
    &observer_placeholder, &observer_minmax, &observer_histogram, &observer_percentile, &observer_mse,
    &observer_pro,         &observer_3sd,    &observer_kl_j,      &observer_block_mx,   &observer_block_bfp,
};

size_t observer_count(void)
{
    return sizeof rows / sizeof rows[0];
}

const struct observer *observer_at(size_t index)
{
    return rows[index];
}

static bool answers(const struct observer *observer, const char *name)
{
    if (strcmp(observer->name, name) == 0) return true;
    for (size_t i = 0; i < OBSERVER_ANSWERS && observer->answers[i]; i++)
        if (strcmp(observer->answers[i], name) == 0) return true;
    return false;
}

const struct observer *observer_find(const char *name)
{
    for (size_t i = 0; i < observer_count(); i++)
        if (answers(rows[i], name)) return rows[i];
    return NULL;
}

enum status observe_check(const struct observer *observer, const struct observe_params *params, struct err *err)
{
    const uint32_t uses = observer->uses;
    if ((uses & USE_BINS) && (params->bins < 1 || params->bins > BINS_MAX))
        return err_set(err, ERR_USAGE, "observer %s: %u bins are not 1 to %u", observer->name, params->bins, BINS_MAX);
    if ((uses & USE_PERCENTILE) && !(params->percentile >= 0.0 && params->percentile <= 100.0))
        return err_set(err, ERR_USAGE, "observer %s: percentile %g is not from 0 to 100", observer->name, params->percentile);
    if ((uses & USE_STRIDE) && params->stride < 1) return err_set(err, ERR_USAGE, "observer %s: stride 0 is not at least 1", observer->name);
    if ((uses & USE_BITS) && (params->bits < 2 || params->bits > 16))
        return err_set(err, ERR_USAGE, "observer %s: %u bits are not 2 to 16", observer->name, params->bits);
    if ((uses & USE_QUANTISER) && !params->quantiser.type.elem && params->quantiser.type.low >= params->quantiser.type.high)
        return err_set(err, ERR_USAGE, "observer %s: no type to quantise to", observer->name);
    return OK;
}

struct range observed_range(struct observed observed)
{
    return (struct range){ observed.min < 0.0f ? observed.min : 0.0f, observed.max > 0.0f ? observed.max : 0.0f };
}

/* ---- grid ----------------------------------------------------------------------------------------------------------------------- */

static bool product(const uint64_t *shape, uint32_t first, uint32_t end, uint64_t *out)
{
    *out = 1;
    for (uint32_t i = first; i < end; i++)
        if (!size_mul(*out, shape[i], out)) return false;
    return true;
}

static uint64_t groups_per_run(const struct observe_grid *grid)
{
    return size_ceil_div(grid->length, grid->group);
}

static uint64_t slots_of(const struct observe_grid *grid)
{
    if (grid->granularity == PER_TENSOR) return 1;
    if (grid->granularity == PER_CHANNEL) return grid->length;
    return grid->outer * grid->middle * grid->last * groups_per_run(grid); /* at most the number of weights */
}

enum status observe_grid_of(const uint64_t *shape, uint32_t rank, int32_t axis, enum granularity granularity, int64_t group,
                            struct observe_grid *grid, struct err *err)
{
    const int64_t at = axis < 0 ? (int64_t)axis + rank : axis;
    uint64_t weights;
    if (at < 0 || at >= rank) return err_set(err, ERR_USAGE, "axis %d does not exist in a tensor of rank %u", axis, rank);
    if (granularity == PER_GROUP && group != -1 && group < 1)
        return err_set(err, ERR_USAGE, "group size %lld is neither positive nor -1", (long long)group);
    const uint32_t axis_at = (uint32_t)at, last = rank - 1;
    *grid = (struct observe_grid){ .granularity = granularity, .length = shape[axis_at], .middle = 1, .last = axis_at < last ? shape[last] : 1 };
    if (!product(shape, 0, rank, &weights) || !product(shape, 0, axis_at, &grid->outer) ||
        !product(shape, axis_at + 1, last > axis_at ? last : axis_at + 1, &grid->middle))
        return err_set(err, ERR_DATA, "a tensor of more than 2^64 weights");
    const uint64_t whole = grid->length ? grid->length : 1;
    grid->group = group > 0 && (uint64_t)group < whole ? (uint64_t)group : whole;
    grid->slots = weights || granularity != PER_GROUP ? slots_of(grid) : 0;
    return OK;
}

/* Place of a weight: index before the axis, along it, behind it. */
struct place {
    uint64_t outer, along, inner;
};

static struct place place_of(const struct observe_grid *grid, uint64_t index)
{
    const uint64_t inner = grid->middle * grid->last, rest = index / inner;
    return (struct place){ rest / grid->length, rest % grid->length, index % inner };
}

static uint64_t slot_of(const struct observe_grid *grid, struct place place)
{
    if (grid->granularity == PER_TENSOR) return 0;
    if (grid->granularity == PER_CHANNEL) return place.along;
    uint64_t run = grid->middle == 1 ? place.inner : place.inner % grid->last * grid->middle + place.inner / grid->last;
    return (place.outer * grid->last * grid->middle + run) * groups_per_run(grid) + place.along / grid->group;
}

/* How many weights from place on belong to its slot, without a turn to the next index along or before the axis. */
static uint64_t run_of(const struct observe_grid *grid, struct place place)
{
    const uint64_t inner = grid->middle * grid->last;
    if (inner > 1) return grid->granularity == PER_CHANNEL ? inner - place.inner : 1;
    if (grid->granularity == PER_CHANNEL) return 1;
    return size_min(grid->group - place.along % grid->group, grid->length - place.along);
}

static struct place advanced(const struct observe_grid *grid, struct place place, uint64_t run)
{
    const uint64_t inner = grid->middle * grid->last;
    place.inner += run % inner;
    place.along += run / inner;
    if (place.inner == inner) {
        place.inner = 0;
        place.along++;
    }
    if (place.along == grid->length) {
        place.along = 0;
        place.outer++;
    }
    return place;
}

/* ---- life of an observation ----------------------------------------------------------------------------------------------------- */

bool observe_size(const struct observer *observer, const struct observe_params *params, const struct observe_grid *grid, size_t *nbytes)
{
    uint64_t total;
    if (!size_mul(observer->size(params), grid ? grid->slots : 1, &total) || total > SIZE_MAX) return false;
    *nbytes = (size_t)total;
    return true;
}

static void *slot_at(const struct observe *observe, uint64_t slot)
{
    return observe->slot_size ? observe->slots + slot * observe->slot_size : NULL;
}

static void begin_pass(struct observe *observe, uint32_t pass)
{
    observe->pass = pass;
    for (uint64_t slot = 0; slot < observe->grid.slots; slot++) observe->observer->begin(slot_at(observe, slot), &observe->params, pass);
}

enum status observe_init(struct observe *observe, const struct observer *observer, const struct observe_params *params,
                         const struct observe_grid *grid, void *memory, struct err *err)
{
    static const struct observe_grid whole = { .granularity = PER_TENSOR, .slots = 1 };
    *observe =
        (struct observe){ .observer = observer, .params = params ? *params : observer->defaults, .grid = grid ? *grid : whole, .slots = memory };
    enum status status = observe_check(observer, &observe->params, err);
    if (status) return status;
    observe->slot_size = observer->size(&observe->params);
    begin_pass(observe, 0);
    return OK;
}

void observe_span(struct observe *observe, uint64_t first, const float *x, size_t n)
{
    const struct observe_grid *grid = &observe->grid;
    if (observe->observer->passes == 0 || n == 0) return;
    if (grid->granularity == PER_TENSOR) {
        observe->observer->add(slot_at(observe, 0), x, n);
        return;
    }
    struct place place = place_of(grid, first);
    for (size_t at = 0, run; at < n; at += run, place = advanced(grid, place, run)) {
        run = (size_t)size_min(run_of(grid, place), n - at);
        observe->observer->add(slot_at(observe, slot_of(grid, place)), x + at, run);
    }
}

bool observe_next(struct observe *observe)
{
    if (observe->pass + 1 >= observe->observer->passes) return false;
    begin_pass(observe, observe->pass + 1);
    return true;
}

void observe_finish(const struct observe *observe, struct observed *observed)
{
    for (uint64_t slot = 0; slot < observe->grid.slots; slot++) observed[slot] = observe->observer->finish(slot_at(observe, slot), &observe->params);
}

void observe_reset(struct observe *observe)
{
    begin_pass(observe, 0);
}

const struct histogram *observe_histogram(const struct observe *observe, uint64_t slot)
{
    return observe->observer->add == observe_binned_add ? slot_at(observe, slot) : NULL;
}

struct range observe_range(const struct observer *observer, const struct observe_params *params, const float *x, size_t n, void *memory)
{
    observer->begin(memory, params, 0);
    for (uint32_t pass = 0; pass < observer->passes; pass++) {
        if (pass > 0) observer->begin(memory, params, pass);
        observer->add(memory, x, n);
    }
    return observed_range(observer->finish(memory, params));
}
