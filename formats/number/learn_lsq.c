/* learn_lsq.c: LSQ, the scale itself is learned.
 *
 * Formula: dL/ds = grad_factor * sum g tau, grad_factor = 1 / sqrt(n code_max); start s0 = 2 mean|x| / sqrt(code_max).
 * Why this way: at 4 bits the loss has many local minima. From s0 a descent meets the best one only in passing, alternating least squares stays where it
 * started; a grid of clip ratios misses no valley but only samples it. So: grid, a descent from s0, one from absmax, the best of all, then least squares.
 * Corner cases: offline the grad_factor cancels, as a step is relative (learn_search.c); a refit that does not help is dropped.
 * Reference: Esser et al., arXiv 1902.08153. Worked number: n = 8, code_max 7: grad_factor 0.1336306; NUMERICS_LEARNED.md 8: s0 = 0.6425396.
 */
#include "number/learn_search.h"

#include <math.h>

float lsq_start(const float *x, size_t n, int32_t code_max)
{
    struct learn_problem problem = { .codes = { .code_max = code_max } };
    learn_stats_add(&problem.stats, x, NULL, n);
    return learn_mean_start(&problem);
}

float lsq_grad_factor(size_t n, int32_t code_max)
{
    return (float)(1.0 / sqrt((double)n * (double)code_max));
}

void lsq_backward(const struct fakequant *codes, const float *scales, struct fakequant_axis axis, float grad_factor, const float *x, const float *g,
                  size_t n, float *dx, float *dscales)
{
    for (size_t c = 0; c < axis.count; c++) dscales[c] = (float)((double)grad_factor * fakequant_backward(codes, scales[c], axis, c, x, g, n, dx));
}

void learn_lsq(struct learn_problem *problem)
{
    const enum learn_method method = problem->params->method;
    learn_offer(problem, problem->absmax, false);
    if (method != LEARN_DESCENT) learn_grid(problem);
    if (method != LEARN_SEARCH) {
        learn_descend(problem, learn_mean_start(problem));
        learn_descend(problem, problem->anchor);
    }
    learn_refit(problem);
}
