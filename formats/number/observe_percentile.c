/* observe_percentile.c: the range that holds a given share of the weights.
 *
 * Formula: share F_i = (counts 0 .. i) / total. Symmetric: (0, lower edge of the first bin with F >= p / 100). Asymmetric, with q = (1 - p / 100) /
 * 2: (lower edge of the first bin with F > q, upper edge of the first bin with F >= 1 - q).
 * Why this way: zeros say nothing about a range and are skipped in both readings; the asymmetric ends are those that are meant, not the exchanged
 * ones of the reference.
 * Corner cases: nothing but zeros gives (0, 0); lo = hi gives (lo, hi); ends that cross (p near 0) are put in order.
 * Reference: NUMERICS_OBSERVERS.md 5. Worked number: counts [3, 3, 2, 1, 1, 0, 0, 1] over 0 .. 2.6, p = 90: 10 / 11 >= 0.9 in bin 4, so (0, 1.3).
 */
#include "number/observe.h"

static void percentile_begin(void *slot, const struct observe_params *params, uint32_t pass)
{
    if (pass == 0) histogram_init(slot, params->symmetric, true);
    else histogram_begin(slot, params->bins);
}

/* The first bin whose share is at least (above: greater than) the given one; the last bin if none is. */
static uint32_t first_bin(const struct histogram *histogram, double share, bool above)
{
    uint64_t sum = 0;
    uint32_t i = 0;
    for (; i + 1 < histogram->bins; i++) {
        sum += histogram->counts[i];
        const double part = (double)sum / (double)histogram->total;
        if (above ? part > share : part >= share) break;
    }
    return i;
}

static struct observed percentile_finish(void *slot, const struct observe_params *params)
{
    const struct histogram *histogram = slot;
    const double share = params->percentile / 100.0, tail = (1.0 - share) / 2.0;
    if (histogram->total == 0) return (struct observed){ 0.0f, 0.0f };
    if (histogram_lowest(histogram) == histogram_highest(histogram)) return observe_binned_ends(histogram);
    if (params->symmetric) return (struct observed){ 0.0f, histogram_edge(histogram, first_bin(histogram, share, false)) };
    const float low = histogram_edge(histogram, first_bin(histogram, tail, true));
    const float high = histogram_edge(histogram, first_bin(histogram, 1.0 - tail, false) + 1);
    return low <= high ? (struct observed){ low, high } : (struct observed){ high, low };
}

const struct observer observer_percentile = {
    .name = "percentile",
    .answers = { "PerTensorPercentileObserver" },
    .summary = "the range that holds a share of the weights",
    .passes = 2,
    .granularities = PER_TENSOR,
    .uses = USE_SYMMETRIC | USE_BINS | USE_PERCENTILE,
    .defaults = { .symmetric = true, .bins = 4200, .percentile = 99.99 },
    .size = observe_binned_size,
    .begin = percentile_begin,
    .add = observe_binned_add,
    .finish = percentile_finish,
};
