/* learn_pact.c: PACT, a learned clip value alpha.
 *
 * Formula: y = clip(x, -alpha, alpha) on the grid alpha / int_max. Clip form: dL/dalpha = sum over |x| > alpha of g sgn(x). Step form, alpha = s int_max:
 * dL/dalpha = sum g tau / int_max.
 * Why this way: the pure clip form has no term that shrinks alpha while nothing is clipped, so the optimiser takes the step form. It starts from the data:
 * weights are near 0.02, and the constant 2.2 of the original would make nearly all of them 0.
 * Corner cases: |alpha| counts; alpha 0 gives weights 0, and has no gradient. The sign of the negative side, which the original lacks, is here. Codes that reach below
 * -int_max are used when the element has them.
 * Reference: Choi et al., arXiv 1805.06085. Worked number: 4 bits, alpha 2.2, x = 2.6, g = 2 (y - x) = -0.8: dL/dalpha = -0.8.
 */
#include "number/learn_search.h"

#include <math.h>

#include "number/approx.h"

void pact_forward(uint32_t bits, const float *alphas, struct fakequant_axis axis, const float *x, size_t n, float *y)
{
    for (size_t i = 0, run = 0; i < n; i += axis.inner, run++) {
        const float alpha = fabsf(alphas[run % axis.count]);
        const struct approx approx = approx_for_range(bits, alpha);
        const size_t count = n - i < axis.inner ? n - i : axis.inner;
        if ((float)approx_int_max(bits) / alpha < HUGE_VALF) approx_quantize(&approx, x + i, count, y + i);
        else
            for (size_t k = 0; k < count; k++) y[i + k] = 0.0f;
        approx_dequantize(&approx, y + i, count, y + i);
    }
}

/* Pure clipping of one channel. */
static double clip_backward(float alpha, struct fakequant_axis axis, size_t channel, const float *x, const float *g, size_t n, float *dx)
{
    double lanes[16] = { 0 };
    size_t term = 0;
    for (size_t start = channel * axis.inner; start < n; start += axis.count * axis.inner) {
        for (size_t i = start; i < start + axis.inner && i < n; i++, term++) {
            const bool inside = fabsf(x[i]) <= alpha;
            lanes[term % 16] += inside ? 0.0 : x[i] > 0.0f ? (double)g[i] : -(double)g[i];
            if (dx) dx[i] = inside ? g[i] : 0.0f;
        }
    }
    return fakequant_lane_sum(lanes);
}

void pact_backward(uint32_t bits, enum pact_form form, const float *alphas, struct fakequant_axis axis, const float *x, const float *g, size_t n,
                   float *dx, float *dalphas)
{
    const int32_t most = approx_int_max(bits);
    const struct fakequant codes = { -most, most, 0, ROUND_NEAREST_EVEN };
    for (size_t c = 0; c < axis.count; c++) {
        const float alpha = fabsf(alphas[c]);
        const double slope = form == PACT_CLIP ? clip_backward(alpha, axis, c, x, g, n, dx)
                                               : fakequant_backward(&codes, alpha / (float)most, axis, c, x, g, n, dx) / (double)most;
        dalphas[c] = (float)(alphas[c] < 0.0f ? -slope : slope);
    }
}

void learn_pact(struct learn_problem *problem)
{
    learn_offer(problem, problem->absmax, false);
    if (problem->params->method != LEARN_DESCENT) learn_grid(problem);
    learn_descend(problem, learn_threshold(problem, problem->params->start) / (float)problem->codes.code_max);
}
