/* observe_histogram.c: the observer that only collects a histogram, and what the observers built on one share.
 *
 * Drawing: reading 1 the ends, reading 2 the bins (histogram.h).
 * Why this way: the collecting observer has no rule for a range: what it found is read with observe_histogram.
 * Corner cases: its result is (+Inf, -Inf), hence scale 1, zero point 0.
 * Reference: NUMERICS_OBSERVERS.md 4. Worked number: 8 bins of |x| over 0 .. 2.6 for the 12 weights of the page: [4, 3, 2, 1, 1, 0, 0, 1].
 */
#include "number/observe.h"

#include <math.h>

size_t observe_binned_size(const struct observe_params *params)
{
    return histogram_size(params->bins);
}

void observe_binned_begin(void *slot, const struct observe_params *params, uint32_t pass)
{
    if (pass == 0) histogram_init(slot, params->symmetric, false);
    else histogram_begin(slot, params->bins);
}

void observe_binned_add(void *slot, const float *x, size_t n)
{
    histogram_add(slot, x, n);
}

struct observed observe_binned_ends(const struct histogram *histogram)
{
    if (histogram->extremes.count == 0) return (struct observed){ HUGE_VALF, -HUGE_VALF };
    return (struct observed){ histogram_lowest(histogram), histogram_highest(histogram) };
}

static struct observed collect_finish(void *slot, const struct observe_params *params)
{
    (void)slot;
    (void)params;
    return (struct observed){ HUGE_VALF, -HUGE_VALF };
}

const struct observer observer_histogram = {
    .name = "histogram",
    .answers = { "PerTensorHistogramObserver" },
    .summary = "collects a histogram, finds no range",
    .passes = 2,
    .granularities = PER_TENSOR,
    .uses = USE_SYMMETRIC | USE_BINS,
    .defaults = { .symmetric = true, .bins = 2048 },
    .size = observe_binned_size,
    .begin = observe_binned_begin,
    .add = observe_binned_add,
    .finish = collect_finish,
};
