/* observe_tqt.c: first thresholds for TQT's learned power-of-two scales: three standard deviations, and KL-J.
 *
 * Formula: 3SD: t = |mean(x) + 10^-6| + 3 * std (population). KL-J, a = |x|, N weights: n_bins = ceil(max a * sqrt(N) / (max a - min a)) over 0 ..
 * max a, C its cumulative share, n = 2^(bits - 1); for i = n + 1 .. n_bins: P = C with 1 from index i - 1 on; Q = P[0 .. i) resampled to n points and
 * back, then P's tail; J = sum over C > 0 of (C - Q) * log2(C / Q); t_i = (i + 0.5) * max a / n_bins; the t of the least J, the first on ties.
 * Why this way: J compares candidates, so each of its terms is rounded to f32 and the logarithm is a fixed series of our own: the choice is the same
 * on every machine. The tail, where Q = 1, is summed once for all candidates, from the last bin down.
 * Corner cases: n_bins never exceeds params.bins; n + 1 > n_bins gives t = max a; t may exceed max a by half a bin, but never the largest f32; Q = 0
 * gives J = Inf.
 * Reference: NUMERICS_OBSERVERS.md 9; arXiv 1805.07941, algorithm 1. Worked number: the 12 weights of the page: 3SD 3.1536846, KL-J for 2 bits 2.275.
 */
#include "number/observe.h"

#include <float.h>
#include <math.h>

#include "number/half.h"

double observe_log2(double a)
{
    int exponent;
    double m = frexp(a, &exponent);
    if (m < 0x1.6a09e667f3bcdp-1) {
        m *= 2.0;
        exponent--;
    }
    const double t = (m - 1.0) / (m + 1.0), tt = t * t; /* |t| < 0.172 */
    double series = 0.0;
    for (int k = 25; k >= 1; k -= 2) series = series * tt + 1.0 / (double)k;
    return (double)exponent + 0x1.71547652b82fep+1 * (t * series); /* 2 / ln 2 */
}

float observe_log_threshold(float threshold)
{
    return (float)observe_log2((double)threshold);
}

static struct observed around_zero(double threshold)
{
    const float t = (float)fmin(threshold, (double)FLT_MAX);
    return (struct observed){ -t, t };
}

/* ---- 3SD ------------------------------------------------------------------------------------------------------------------------ */

struct moments {
    uint64_t count;
    double sum, square;
};

static size_t moments_size(const struct observe_params *params)
{
    (void)params;
    return sizeof(struct moments);
}

static void moments_begin(void *slot, const struct observe_params *params, uint32_t pass)
{
    (void)params;
    (void)pass;
    *(struct moments *)slot = (struct moments){ 0 };
}

static void moments_add(void *slot, const float *x, size_t n)
{
    struct moments *moments = slot;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) continue;
        const double value = (double)x[i];
        moments->count++;
        moments->sum += value;
        moments->square += value * value;
    }
}

static struct observed moments_finish(void *slot, const struct observe_params *params)
{
    const struct moments *moments = slot;
    const double n = (double)moments->count;
    (void)params;
    if (moments->count == 0) return (struct observed){ HUGE_VALF, -HUGE_VALF };
    const double mean = moments->sum / n, variance = moments->square / n - mean * mean;
    return around_zero(fabs(mean + 1e-6) + 3.0 * sqrt(variance > 0.0 ? variance : 0.0));
}

/* ---- KL-J ----------------------------------------------------------------------------------------------------------------------- */

/* A slot is a histogram, then room for as many numbers twice: C, and the n points. */
static size_t kl_size(const struct observe_params *params)
{
    return histogram_size(params->bins) + 2 * (size_t)params->bins * sizeof(double);
}

static uint32_t kl_bins(const struct extremes *extremes, float amax, uint32_t most)
{
    if (!(extremes->least < amax)) return 1;
    const double bins = ceil((double)amax * sqrt((double)extremes->count) / ((double)amax - (double)extremes->least));
    return bins < (double)most ? (uint32_t)bins : most;
}

static void kl_begin(void *slot, const struct observe_params *params, uint32_t pass)
{
    struct histogram *histogram = slot;
    if (pass == 0) histogram_init(histogram, true, false);
    else histogram_begin(histogram, kl_bins(&histogram->extremes, histogram_highest(histogram), params->bins));
}

/* Point `at` of `count` over the numbers y, first to last, linearly between neighbours: position at * (length - 1) / (count - 1). */
static double resampled(const double *y, uint64_t length, uint64_t at, uint64_t count)
{
    const uint64_t position = at * (length - 1), index = position / (count - 1), rest = position % (count - 1);
    return rest == 0 ? y[index] : y[index] + (y[index + 1] - y[index]) * ((double)rest / (double)(count - 1));
}

static double term(double c, double q)
{
    if (q == 0.0) return HUGE_VAL;
    return (double)(float)((c - q) * observe_log2(c / q));
}

/* J of the head: C and P agree but for P[i - 1] = 1. */
static double head(double *shares, double *points, uint32_t n, uint32_t i)
{
    const double last = shares[i - 1];
    double sum = 0.0;
    shares[i - 1] = 1.0;
    for (uint32_t k = 0; k < n; k++) points[k] = resampled(shares, i, k, n);
    shares[i - 1] = last;
    for (uint32_t k = 0; k < i; k++)
        if (shares[k] > 0.0) sum += term(shares[k], resampled(points, n, k, i));
    return sum;
}

static void cumulate(const struct histogram *histogram, double *shares)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < histogram->bins; i++) {
        sum += histogram->counts[i];
        shares[i] = (double)sum / (double)histogram->total;
    }
}

static struct observed kl_finish(void *slot, const struct observe_params *params)
{
    struct histogram *histogram = slot;
    double *shares = (double *)(void *)(histogram->counts + params->bins), *points = shares + params->bins;
    const uint32_t n = 1u << (params->bits - 1), bins = histogram->bins;
    const double max = (double)histogram_highest(histogram);
    if (histogram->total == 0) return (struct observed){ HUGE_VALF, -HUGE_VALF };
    if (n + 1 > bins) return around_zero(max);
    double least = HUGE_VAL, tail = 0.0, best = max;
    cumulate(histogram, shares);
    for (uint32_t i = bins; i > n; i--) {
        const double j = head(shares, points, n, i) + tail;
        if (j <= least) {
            least = j;
            best = ((double)i + 0.5) * (max / (double)bins);
        }
        if (shares[i - 1] > 0.0) tail += term(shares[i - 1], 1.0);
    }
    return around_zero(best);
}

const struct observer observer_3sd = {
    .name = "3sd",
    .answers = { "TQTObserver._3SD" },
    .summary = "mean and three standard deviations",
    .passes = 1,
    .granularities = PER_TENSOR,
    .size = moments_size,
    .begin = moments_begin,
    .add = moments_add,
    .finish = moments_finish,
};

const struct observer observer_kl_j = {
    .name = "kl-j",
    .answers = { "TQTObserver._KL_J" },
    .summary = "the threshold whose code distribution differs least",
    .passes = 2,
    .granularities = PER_TENSOR,
    .uses = USE_BINS | USE_BITS,
    .defaults = { .symmetric = true, .bins = 32768, .bits = 8 },
    .size = kl_size,
    .begin = kl_begin,
    .add = observe_binned_add,
    .finish = kl_finish,
};
