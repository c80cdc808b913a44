/* histogram.c: see histogram.h.
 *
 * Formula: bin as in histogram.h; edge i = lo + i * step for i < (B + 1) / 2, else hi - (B - i) * step, step = fl((hi - lo) / B); centre = the mean
 * of two edges. All in f32, every operator rounded.
 * Why this way: the edges are those of the usual linspace, counted from the nearer end, so that the last one is hi itself.
 * Corner cases: see histogram.h; an index is compared with B - 1 as a float before it is converted.
 * Reference: NUMERICS_OBSERVERS.md 2. Worked number: lo 0, hi 2.6, 8 bins: 0.9 is in bin trunc(7.2 / 2.6) = 2, the edges are 0.325 apart.
 */
#include "number/histogram.h"

#include <math.h>

#include "number/half.h"

#define HUGE_END 0x1p100f
#define HUGE_UNIT 0x1p-64f
#define INF_BITS 0x7F800000
#define PART ((size_t)1 << 20)

void extremes_reset(struct extremes *extremes)
{
    *extremes = (struct extremes){ .min = HUGE_VALF, .max = -HUGE_VALF, .least = HUGE_VALF };
}

/* Numbers as integers in the same order: magnitude bits with the sign in front. */
static float of_key(int32_t key)
{
    return key < 0 ? -f32_from_bits((uint32_t)-key) : f32_from_bits((uint32_t)key);
}

/* Integers alone, which compilers make vectors of; n fits 32 bits. */
static struct extremes extremes_of(const float *x, size_t n, bool skip_zeros)
{
    const int32_t first = skip_zeros, end = INF_BITS;
    int32_t min = INT32_MAX, max = -INT32_MAX, least = INT32_MAX, count = 0, dropped = 0;
    for (size_t i = 0; i < n; i++) {
        const int32_t bits = (int32_t)f32_bits(x[i]), size = bits & INT32_MAX, key = bits < 0 ? -size : size; /* -0 is 0 */
        const bool counts = (size >= first) & (size < end);
        const int32_t low = counts ? key : INT32_MAX, high = counts ? key : -INT32_MAX, magnitude = counts ? size : INT32_MAX;
        min = low < min ? low : min;
        max = high > max ? high : max;
        least = magnitude < least ? magnitude : least;
        count += counts;
        dropped += size >= end;
    }
    if (count == 0) return (struct extremes){ HUGE_VALF, -HUGE_VALF, HUGE_VALF, 0, (uint64_t)dropped };
    return (struct extremes){ of_key(min), of_key(max), of_key(least), (uint64_t)count, (uint64_t)dropped };
}

static void merge(struct extremes *extremes, struct extremes more)
{
    if (more.min < extremes->min) extremes->min = more.min;
    if (more.max > extremes->max) extremes->max = more.max;
    if (more.least < extremes->least) extremes->least = more.least;
    extremes->count += more.count;
    extremes->dropped += more.dropped;
}

void extremes_add(struct extremes *extremes, const float *x, size_t n, bool skip_zeros)
{
    for (size_t at = 0, part; at < n; at += part) {
        part = n - at < PART ? n - at : PART;
        merge(extremes, extremes_of(x + at, part, skip_zeros));
    }
}

size_t histogram_size(uint32_t bins)
{
    return sizeof(struct histogram) + (size_t)bins * sizeof(uint64_t);
}

void histogram_init(struct histogram *histogram, bool absolute, bool skip_zeros)
{
    *histogram = (struct histogram){ .absolute = absolute, .skip_zeros = skip_zeros, .unit = 1.0f };
    extremes_reset(&histogram->extremes);
}

float histogram_lowest(const struct histogram *histogram)
{
    return histogram->absolute || histogram->extremes.count == 0 ? 0.0f : histogram->extremes.min;
}

float histogram_highest(const struct histogram *histogram)
{
    const struct extremes *extremes = &histogram->extremes;
    if (extremes->count == 0) return 0.0f;
    return histogram->absolute && -extremes->min > extremes->max ? -extremes->min : extremes->max;
}

void histogram_begin(struct histogram *histogram, uint32_t bins)
{
    const float lo = histogram_lowest(histogram), hi = histogram_highest(histogram);
    histogram->bins = bins;
    histogram->lo = lo < hi ? lo : lo - 1.0f;
    histogram->hi = lo < hi ? hi : hi + 1.0f;
    histogram->unit = fabsf(lo) >= HUGE_END || fabsf(hi) >= HUGE_END ? HUGE_UNIT : 1.0f;
    histogram->total = 0;
    for (uint32_t i = 0; i < bins; i++) histogram->counts[i] = 0;
}

static float span_of(const struct histogram *histogram)
{
    return histogram->hi * histogram->unit - histogram->lo * histogram->unit;
}

static void count(struct histogram *histogram, const float *x, size_t n)
{
    const float lo = histogram->lo, hi = histogram->hi, unit = histogram->unit, bins = (float)histogram->bins;
    const float origin = lo * unit, span = span_of(histogram), last = bins - 1.0f;
    uint64_t total = 0;
    for (size_t i = 0; i < n; i++) {
        const float value = histogram->absolute ? fabsf(x[i]) : x[i];
        if (!(value >= lo && value <= hi) || (histogram->skip_zeros && value == 0.0f)) continue;
        const float at = span > 0.0f ? (value * unit - origin) * bins / span : 0.0f; /* lo + 1 is lo from 2^25 on */
        histogram->counts[(uint32_t)(at < last ? at : last)]++;
        total++;
    }
    histogram->total += total;
}

void histogram_add(struct histogram *histogram, const float *x, size_t n)
{
    if (histogram->bins == 0) extremes_add(&histogram->extremes, x, n, histogram->skip_zeros);
    else count(histogram, x, n);
}

float histogram_edge(const struct histogram *histogram, uint32_t index)
{
    const uint32_t bins = histogram->bins;
    const float unit = histogram->unit, step = span_of(histogram) / (float)bins;
    const float edge = index < (bins + 1) / 2 ? histogram->lo * unit + step * (float)index : histogram->hi * unit - step * (float)(bins - index);
    return edge / unit;
}

float histogram_centre(const struct histogram *histogram, uint32_t index)
{
    const float unit = histogram->unit;
    return (histogram_edge(histogram, index) * unit + histogram_edge(histogram, index + 1) * unit) / 2.0f / unit;
}
