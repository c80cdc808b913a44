/* observe_mse.c: the range whose quantiser has the least squared error on the centres of a histogram.
 *
 * Formula: for i = start_bin, start_bin + stride, .. < B: candidate (0, c_i) of |x|, or (a * r, b * r) with r = (i + 0.5) / B of x; error = sum over
 * bins j, rising, of counts_j * (Q(c_j) - c_j)^2 in binary64; the least, the first on ties.
 * Why this way: the mean over bins is the sum by a constant; terms are >= 0, so a sum that has reached the least so far is given up without changing
 * the choice. Both ends shrink together where the reference sets the lower one to 0, which would clip every negative weight.
 * Corner cases: start_bin beyond the last bin is the last bin; lo = hi gives (lo, hi); an error that is not a number never wins, and when none wins
 * the result is the whole range.
 * Reference: NUMERICS_OBSERVERS.md 6. Worked number: the 12 weights of the page, 8 bins, int4, start_bin 0: bin 6, (0, 2.1125).
 */
#include "number/observe.h"

#include <math.h>

#include "base/size.h"

/* A slot is a histogram, then room for the centres of its bins. */
static size_t mse_size(const struct observe_params *params)
{
    return histogram_size(params->bins + (params->bins + 1) / 2);
}

static float *fill_centres(struct histogram *histogram)
{
    float *centres = (float *)(void *)(histogram->counts + histogram->bins);
    for (uint32_t i = 0; i < histogram->bins; i++) centres[i] = histogram_centre(histogram, i);
    return centres;
}

/* The error under these parameters, or some number >= limit once it has reached that. */
static double error_of(const struct histogram *histogram, const float *centres, const struct qparams_rule *rule, const struct qparams *qparams,
                       double limit)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < histogram->bins && sum < limit; i++) {
        if (histogram->counts[i] == 0) continue;
        const float centre = centres[i];
        const double d = (double)qparams_decode(rule, qparams, qparams_encode(rule, qparams, centre, ROUND_NEAREST_EVEN)) - (double)centre;
        sum += (double)histogram->counts[i] * (d * d);
    }
    return sum;
}

static struct observed candidate(const struct histogram *histogram, const float *centres, uint32_t index)
{
    if (histogram->absolute) return (struct observed){ 0.0f, centres[index] };
    const struct range whole = observed_range(observe_binned_ends(histogram));
    const float ratio = ((float)index + 0.5f) / (float)histogram->bins;
    return (struct observed){ whole.min * ratio, whole.max * ratio };
}

static struct observed mse_finish(void *slot, const struct observe_params *params)
{
    struct histogram *histogram = slot;
    struct observed best = observe_binned_ends(histogram);
    double least = HUGE_VAL;
    if (best.min >= best.max) return best;
    const float *centres = fill_centres(histogram);
    for (uint64_t i = size_min(params->start_bin, histogram->bins - 1); i < histogram->bins; i += params->stride) {
        const struct observed range = candidate(histogram, centres, (uint32_t)i);
        const struct qparams qparams = qparams_of(&params->quantiser, range.min, range.max);
        const double error = error_of(histogram, centres, &params->quantiser, &qparams, least);
        if (error < least) {
            least = error;
            best = range;
        }
    }
    return best;
}

const struct observer observer_mse = {
    .name = "mse-hist",
    .answers = { "PerTensorMSEObserver" },
    .summary = "the range of least squared error on a histogram",
    .passes = 2,
    .granularities = PER_TENSOR,
    .uses = USE_SYMMETRIC | USE_BINS | USE_START_BIN | USE_STRIDE | USE_QUANTISER,
    .defaults = { .symmetric = true,
                  .bins = 2048,
                  .start_bin = 128,
                  .stride = 1,
                  .quantiser = { .type = { NULL, -128, 127 }, .symmetric = true, .scale = SCALE_F32 } },
    .size = mse_size,
    .begin = observe_binned_begin,
    .add = observe_binned_add,
    .finish = mse_finish,
};
