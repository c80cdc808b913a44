/* learn_tqt.c: TQT, a scale that is a power of two, through the logarithm l of its threshold.
 *
 * Formula: s = 2^ceil(l) / D; dL/dl = ln 2 * s * sum g tau. Search: k = ceil(l) from k0 = ceil(log2 range): k0, k0+1, k0-1, k0-2, ..
 * Why this way: the loss depends on ceil(l) alone, so the optimum is found by judging a few integers. Above k0+1 nothing is clipped and each grid is part
 * of the one before, so no k > k0+1 can win; below, the search ends where clipped weights alone cost what the best does. Descent, for parity, walks l and
 * then swings about an integer; it too keeps its best, and judges each k it visits.
 * Corner cases: KL-J has at most 2048 bins; with 2^(b-1) + 1 bins or fewer the threshold is the maximum; its logarithms are rounded to f32.
 * Reference: Jain et al., arXiv 1903.08066; KL-J: arXiv 1805.07941, algorithm 1. Worked number: max 2.6, 4 bits: k0 = 2, s = 0.5.
 */
#include "number/learn_search.h"

#include <math.h>
#include <string.h>

#include "number/elem.h"

#define LN2 0.69314718055994530942
enum { KLJ_BINS = 2048 };

/* ---- forward, backward ----------------------------------------------------------------------------------------------------------- */

static struct fakequant codes_of(const struct tqt *tqt)
{
    const int32_t domain = 1 << (tqt->bits - 1u);
    return (struct fakequant){ -domain, domain - 1, tqt->zero, tqt->rounding };
}

float tqt_scale(uint32_t bits, float log_threshold)
{
    const float k = fminf(fmaxf(ceilf(log_threshold), -256.0f), 256.0f);
    return exact_exp2((int32_t)k - (int32_t)bits + 1);
}

/* Channels one by one: axis with the parameter of channel c alone. */
void tqt_forward(const struct tqt *tqt, const float *log_thresholds, struct fakequant_axis axis, const float *x, size_t n, float *y)
{
    const struct fakequant codes = codes_of(tqt);
    const struct fakequant_axis all = { 1, axis.inner };
    for (size_t i = 0, run = 0; i < n; i += axis.inner, run++) {
        const float scale = tqt_scale(tqt->bits, log_thresholds[run % axis.count]);
        fakequant_forward(&codes, &scale, all, x + i, n - i < axis.inner ? n - i : axis.inner, y + i);
    }
}

void tqt_backward(const struct tqt *tqt, const float *log_thresholds, struct fakequant_axis axis, const float *x, const float *g, size_t n, float *dx,
                  float *dlog_thresholds)
{
    const struct fakequant codes = codes_of(tqt);
    for (size_t c = 0; c < axis.count; c++) {
        const float scale = tqt_scale(tqt->bits, log_thresholds[c]);
        dlog_thresholds[c] = (float)(LN2 * (double)scale * fakequant_backward(&codes, scale, axis, c, x, g, n, dx));
    }
}

/* ---- KL-J ------------------------------------------------------------------------------------------------------------------------ */

/* Linear interpolation of `count` points at position at, 0 .. count-1. */
static double point_at(const double *points, size_t count, double at)
{
    const size_t below = (size_t)at < count - 1 ? (size_t)at : count - 1;
    if (below == count - 1) return points[below];
    return points[below] + (at - (double)below) * (points[below + 1] - points[below]);
}

/* J of the first i bins, of the cumulative distribution cdf of `bins` bins, at n levels. */
static double divergence(const double *cdf, size_t bins, size_t i, size_t n)
{
    double clipped[KLJ_BINS], levels[KLJ_BINS], sum = 0.0;
    for (size_t j = 0; j < i; j++) clipped[j] = j + 1 < i ? cdf[j] : 1.0;
    for (size_t j = 0; j < n; j++) levels[j] = point_at(clipped, i, (double)(j * (i - 1)) / (double)(n - 1));
    for (size_t j = 0; j < bins; j++) {
        const double q = j < i ? point_at(levels, n, (double)(j * (n - 1)) / (double)(i - 1)) : 1.0;
        if (cdf[j] > 0.0 && q > 0.0) sum += (cdf[j] - q) * (double)(float)log2(cdf[j] / q);
    }
    return sum;
}

static void cumulate(const float *x, size_t n, double max, size_t bins, double *cdf)
{
    memset(cdf, 0, bins * sizeof *cdf);
    for (size_t i = 0; i < n; i++) {
        const size_t bin = (size_t)((double)fabsf(x[i]) / max * (double)bins);
        cdf[bin < bins ? bin : bins - 1] += 1.0;
    }
    for (size_t j = 1; j < bins; j++) cdf[j] += cdf[j - 1];
    for (size_t j = 0; j < bins; j++) cdf[j] /= (double)n;
}

float tqt_threshold_klj(uint32_t bits, const float *x, size_t n)
{
    double cdf[KLJ_BINS], least = HUGE_VAL;
    float max = 0.0f, min = HUGE_VALF;
    for (size_t i = 0; i < n; i++) {
        max = fmaxf(max, fabsf(x[i]));
        min = fminf(min, fabsf(x[i]));
    }
    const size_t levels = (size_t)1 << (bits - 1u);
    const double wanted = max > min ? ceil((double)max * sqrt((double)n) / ((double)max - (double)min)) : 1.0;
    const size_t bins = wanted < (double)KLJ_BINS ? (size_t)wanted : KLJ_BINS;
    if (levels < 2 || levels + 1 > bins) return max;
    cumulate(x, n, (double)max, bins, cdf);
    size_t best = bins;
    for (size_t i = levels + 1; i <= bins; i++) {
        const double j = divergence(cdf, bins, i, levels);
        if (j < least) {
            least = j;
            best = i;
        }
    }
    return (float)(((double)best + 0.5) * ((double)max / (double)bins));
}

/* ---- optimiser ------------------------------------------------------------------------------------------------------------------- */

static void search(struct learn_problem *problem, int32_t k0)
{
    const int32_t least = learn_exponent_least(problem);
    learn_offer(problem, learn_exponent_scale(problem, k0 + 1), false);
    for (int32_t k = k0 - 1; k >= least && problem->best.loss > 0.0; k--)
        if (learn_offer(problem, learn_exponent_scale(problem, k), false).clipped >= problem->best.loss) return;
}

static void descend(struct learn_problem *problem)
{
    const struct learn_params *params = problem->params;
    float l = (float)log2((double)learn_threshold(problem, params->start));
    const int32_t least = learn_exponent_least(problem);
    uint32_t stale = 0;
    for (uint32_t step = 0; step < params->steps && stale < params->patience && problem->best.loss > 0.0; step++) {
        l = l > (float)least ? l : (float)least;
        const double before = problem->best.loss;
        const float scale = learn_exponent_scale(problem, (int32_t)ceilf(l));
        const struct learn_sums sums = learn_offer(problem, scale, true);
        stale = problem->best.loss < before ? 0 : stale + 1;
        const double loss = learn_loss(&sums);
        if (!(loss > 0.0 && loss < HUGE_VAL)) return;
        const double move = (double)params->rate * (LN2 * (double)scale * learn_slope(&sums, scale) / loss);
        l -= (float)fmin(fmax(move, -1.0), 1.0);
    }
}

void learn_tqt(struct learn_problem *problem)
{
    const int32_t k0 = learn_exponent(problem);
    learn_offer(problem, learn_exponent_scale(problem, k0), false);
    if (problem->params->method == LEARN_DESCENT) descend(problem);
    else search(problem, k0);
}
