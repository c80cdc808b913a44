/* approx.c: see approx.h.
 *
 * Formula: q = RNE(clip(fl(x * factor), -int_max, int_max)), factor = fl(int_max / minmax).
 * Why this way: see approx.h; clip before rounding is the same as after it, as the bounds are integers.
 * Corner cases: -0 becomes +0; a minmax so small that the factor is Inf counts as 0.
 * Reference: NUMERICS_LEARNED.md 6. Worked number: 8 bits, alpha 2.2: factor 57.72727, 2.6 -> 127, -0.35 -> -20.
 */
#include "number/approx.h"

#include <math.h>
#include <stdbool.h>

#include "number/round.h"

int32_t approx_int_max(uint32_t bits)
{
    return (int32_t)((1u << (bits - 1u)) - 1u);
}

struct approx approx_for_range(uint32_t bits, float minmax)
{
    const float factor = (float)approx_int_max(bits) / minmax;
    return (struct approx){ bits, minmax > 0.0f && !isinf(factor) ? factor : 1.0f };
}

struct approx approx_minmax(uint32_t bits, const float *x, size_t n)
{
    float amax = 0.0f;
    for (size_t i = 0; i < n; i++) amax = fmaxf(amax, fabsf(x[i]));
    return approx_for_range(bits, amax);
}

void approx_quantize(const struct approx *approx, const float *x, size_t n, float *q)
{
    const float most = (float)approx_int_max(approx->bits);
    for (size_t i = 0; i < n; i++) q[i] = round_to_integer(fminf(fmaxf(x[i] * approx->factor, -most), most), ROUND_NEAREST_EVEN) + 0.0f;
}

void approx_dequantize(const struct approx *approx, const float *q, size_t n, float *x)
{
    for (size_t i = 0; i < n; i++) x[i] = q[i] / approx->factor;
}

void approx_backward(const struct approx *approx, enum approx_mask mask, const float *x, const float *g, size_t n, float *dx)
{
    const float most = (float)approx_int_max(approx->bits);
    for (size_t i = 0; i < n; i++) {
        const bool inside = mask == APPROX_UNMASKED || fabsf(x[i] * approx->factor) <= most;
        dx[i] = inside ? g[i] * approx->factor : 0.0f;
    }
}
