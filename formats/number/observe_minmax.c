/* observe_minmax.c: the observers that keep no more than a minimum and a maximum, and the one that keeps nothing.
 *
 * Formula: min and max of the finite weights of a slot; amax of a block is the larger of -min and max.
 * Why this way: the block observers of MX and BFP need amax, and BFP the greatest weight too: both follow from min and max (observe_block.c).
 * Corner cases: -0 counts as 0; a slot without a finite weight keeps (+Inf, -Inf); the placeholder has slots of no bytes.
 * Reference: NUMERICS_OBSERVERS.md 4. Worked number: [0.9, -0.35, NaN, -0] gives (-0.35, 0.9).
 */
#include "number/observe.h"

#include <math.h>

static size_t minmax_size(const struct observe_params *params)
{
    (void)params;
    return sizeof(struct extremes);
}

static void minmax_begin(void *slot, const struct observe_params *params, uint32_t pass)
{
    (void)params;
    (void)pass;
    extremes_reset(slot);
}

static void minmax_add(void *slot, const float *x, size_t n)
{
    extremes_add(slot, x, n, false);
}

static struct observed minmax_finish(void *slot, const struct observe_params *params)
{
    const struct extremes *extremes = slot;
    (void)params;
    return (struct observed){ extremes->min, extremes->max };
}

static size_t no_size(const struct observe_params *params)
{
    (void)params;
    return 0;
}

static void no_begin(void *slot, const struct observe_params *params, uint32_t pass)
{
    (void)slot;
    (void)params;
    (void)pass;
}

static void no_add(void *slot, const float *x, size_t n)
{
    (void)slot;
    (void)x;
    (void)n;
}

static struct observed no_finish(void *slot, const struct observe_params *params)
{
    (void)slot;
    (void)params;
    return (struct observed){ HUGE_VALF, -HUGE_VALF };
}

const struct observer observer_placeholder = {
    .name = "placeholder",
    .answers = { "PlaceholderObserver" },
    .summary = "no range: for what is stored as a 16-bit float",
    .granularities = PER_TENSOR,
    .size = no_size,
    .begin = no_begin,
    .add = no_add,
    .finish = no_finish,
};

const struct observer observer_minmax = {
    .name = "minmax",
    .answers = { "PerTensorMinMaxObserver", "PerChannelMinMaxObserver", "PerGroupMinMaxObserver" },
    .summary = "least and greatest weight",
    .passes = 1,
    .granularities = PER_TENSOR | PER_CHANNEL | PER_GROUP,
    .size = minmax_size,
    .begin = minmax_begin,
    .add = minmax_add,
    .finish = minmax_finish,
};

const struct observer observer_block_mx = {
    .name = "block-mx",
    .answers = { "PerBlockMXObserver" },
    .summary = "range of a block, for the shared exponent of MX formats",
    .passes = 1,
    .granularities = PER_GROUP,
    .size = minmax_size,
    .begin = minmax_begin,
    .add = minmax_add,
    .finish = minmax_finish,
};

const struct observer observer_block_bfp = {
    .name = "block-bfp",
    .answers = { "PerBlockBFPObserver" },
    .summary = "range of a block, for the shared exponent of BFP16",
    .passes = 1,
    .granularities = PER_GROUP,
    .size = minmax_size,
    .begin = minmax_begin,
    .add = minmax_add,
    .finish = minmax_finish,
};
