/* histogram.h: equal bins between the least and the greatest weight, counted in a second reading.
 *
 *   reading 1: min, max      reading 2: bin = trunc( fl(fl(x - lo) * B) / fl(hi - lo) ), at most B - 1
 *
 *   lo = 0         .325        .65                               2.275        hi = 2.6
 *   | counts[0]     | counts[1] | ...                              | counts[7] |            edges 0 .. B
 *
 * Why this way: memory is B counters, whatever the tensor; counts have 64 bits, where a float counter stands still at 2^24.
 * Corner cases: NaN and Inf are dropped and counted as dropped; -0 is 0; lo = hi is widened to lo - 1, hi + 1; no weight at all leaves all counts 0;
 * where lo or hi reaches 2^100 all three are taken times 2^-64, so that no product overflows.
 * Reference: NUMERICS_OBSERVERS.md 2. Answers to the binning of PerTensorHistogramObserver (torch.histc, torch.linspace).
 */
#ifndef LLMQ_NUMBER_HISTOGRAM_H
#define LLMQ_NUMBER_HISTOGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BINS_MAX 65536u

/* What one reading tells; min = +Inf, max = -Inf, least = +Inf while count is 0. */
struct extremes {
    float min, max;
    float least; /* least magnitude */
    uint64_t count; /* finite weights, those of value 0 left out where zeros are skipped */
    uint64_t dropped; /* NaN and Inf */
};

void extremes_reset(struct extremes *extremes);
void extremes_add(struct extremes *extremes, const float *x, size_t n, bool skip_zeros);

/* One histogram; lies in memory of histogram_size(bins) bytes, aligned for uint64_t. */
struct histogram {
    struct extremes extremes;
    bool absolute; /* of |x| over 0 .. max|x|, else of x over min .. max */
    bool skip_zeros;
    uint32_t bins; /* 0 during the first reading */
    float lo, hi; /* the ends of the bins */
    float unit; /* 1, or 2^-64 for huge weights */
    uint64_t total; /* weights counted */
    uint64_t counts[];
};

size_t histogram_size(uint32_t bins);

/* Begins the first reading. */
void histogram_init(struct histogram *histogram, bool absolute, bool skip_zeros);

/* Begins the second one: 1 <= bins <= what the memory was sized for. */
void histogram_begin(struct histogram *histogram, uint32_t bins);

/* n weights of either reading. */
void histogram_add(struct histogram *histogram, const float *x, size_t n);

/* The ends of what was read, before any widening: 0 and max|x|, or min and max. */
float histogram_lowest(const struct histogram *histogram);
float histogram_highest(const struct histogram *histogram);

/* Edge 0 .. bins, centre of bin 0 .. bins - 1. */
float histogram_edge(const struct histogram *histogram, uint32_t index);
float histogram_centre(const struct histogram *histogram, uint32_t index);

#endif
