/* observe_pro.c: the range found by cutting a histogram from both ends as long as the error falls.
 *
 * Formula: B bins of width 1, s .. e those kept, K = 256 cells of D = (e - s + 1) / K. A bin j is a uniform density over b = j - s .. b + 1; its ends
 * lie in cells i0, i1 (clamped to 0 .. K - 1), and its error is counts_j times
 *   ( (D/2)^3 - (b - m0)^3 ) / 3 + (i1 - i0 - 1) * D^3 / 12 + ( (b + 1 - m1)^3 + (D/2)^3 ) / 3,   m = (i + 0.5) * D.
 * Why this way: with a bin as the unit of length the search depends on counts alone; b, D, m are exact and i0, i1 come from integer division, so ties
 * are where they ought to be. The order of operations is the one written below.
 * Corner cases: lo = hi gives (lo, hi); s = 0, e = B - 1 give min and (rounded) max; K is 256 for 4-bit types too, as in the reference.
 * Reference: NUMERICS_OBSERVERS.md 7; PyTorch's HistogramObserver. Worked number: the 12 weights of the page, 8 bins: e = 6, (-1.4, 2.1).
 */
#include "number/observe.h"

#include <float.h>
#include <math.h>

#define CELLS 256
#define STEP 1e-5

/* The bins that are kept. */
struct cut {
    int64_t start, end;
};

static double cube(double x)
{
    return x * x * x;
}

/* floor(j * CELLS / width) within the cells, for j that may be negative. */
static int64_t cell_of(int64_t j, int64_t width)
{
    const int64_t cell = j < 0 ? 0 : j * CELLS / width;
    return cell < CELLS ? cell : CELLS - 1;
}

static double bin_error(int64_t b, int64_t width)
{
    const double d = (double)width / CELLS;
    const int64_t i0 = cell_of(b, width), i1 = cell_of(b + 1, width);
    const double half = cube(d / 2.0), low = (double)b - ((double)i0 + 0.5) * d, high = (double)(b + 1) - ((double)i1 + 0.5) * d;
    return (half - cube(low)) / 3.0 + (double)(i1 - i0 - 1) * cube(d) / 12.0 + (cube(high) + half) / 3.0;
}

static double cut_error(const struct histogram *histogram, struct cut cut)
{
    double sum = 0.0;
    for (int64_t j = 0; j < histogram->bins; j++)
        if (histogram->counts[j]) sum += (double)histogram->counts[j] * bin_error(j - cut.start, cut.end - cut.start + 1);
    return sum;
}

/* The first bin whose cumulative count reaches the lower share, and the last one whose cumulative count does not exceed the upper share (bin 0 where
 * there is none), each with its cumulative count. Both only ever walk inwards. */
struct walkers {
    int64_t low, high;
    uint64_t low_sum, high_sum;
};

static void walk(const struct histogram *histogram, double lower, double upper, struct walkers *at)
{
    const int64_t last = (int64_t)histogram->bins - 1;
    while (at->low < last && (double)at->low_sum < lower) at->low_sum += histogram->counts[++at->low];
    while (at->high > 0 && (double)at->high_sum > upper) at->high_sum -= histogram->counts[at->high--];
}

static int64_t between(int64_t i, struct cut cut)
{
    return i < cut.start ? cut.start : i > cut.end ? cut.end : i;
}

static struct cut search(const struct histogram *histogram)
{
    struct cut kept = { 0, (int64_t)histogram->bins - 1 };
    struct walkers at = { 0, kept.end, histogram->counts[0], histogram->total };
    double alpha = 0.0, beta = 1.0, least = HUGE_VAL;
    while (alpha < beta) {
        const double next_alpha = alpha + STEP, next_beta = beta - STEP, total = (double)histogram->total;
        struct cut next = kept;
        walk(histogram, next_alpha * total, next_beta * total, &at);
        const int64_t low = between(at.low, kept), high = between(at.high, kept);
        if (low - kept.start > kept.end - high) {
            next.start = low;
            alpha = next_alpha;
        } else {
            next.end = high;
            beta = next_beta;
        }
        if (next.start == kept.start && next.end == kept.end) continue;
        const double error = cut_error(histogram, next);
        if (error > least) break;
        least = error;
        kept = next;
    }
    return kept;
}

static void pro_begin(void *slot, const struct observe_params *params, uint32_t pass)
{
    if (pass == 0) histogram_init(slot, false, false);
    else histogram_begin(slot, params->bins);
}

static struct observed pro_finish(void *slot, const struct observe_params *params)
{
    const struct histogram *histogram = slot;
    const struct observed ends = observe_binned_ends(histogram);
    (void)params;
    if (ends.min >= ends.max) return ends;
    const struct cut kept = search(histogram);
    const float unit = histogram->unit, origin = ends.min * unit, width = (ends.max * unit - origin) / (float)histogram->bins;
    const float min = origin + width * (float)kept.start, max = origin + width * (float)(kept.end + 1);
    return (struct observed){ min / unit, fminf(max / unit, FLT_MAX) };
}

const struct observer observer_pro = {
    .name = "histogram-pro",
    .answers = { "PerTensorHistogramObserverPro" },
    .summary = "the range left by cutting a histogram while the error falls",
    .passes = 2,
    .granularities = PER_TENSOR,
    .uses = USE_BINS | USE_UPSAMPLE_RATE | USE_REDUCE_RANGE,
    .defaults = { .bins = 256, .upsample_rate = 384 },
    .size = observe_binned_size,
    .begin = pro_begin,
    .add = observe_binned_add,
    .finish = pro_finish,
};
