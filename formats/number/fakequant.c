/* fakequant.c: see fakequant.h.
 *
 *   channel c:  x[(o * count + c) * inner + k],  o = 0 ..,  k = 0 .. inner-1        lane of its i-th weight: i mod 16
 *
 * Why this way: one channel after the other, so that its sum stands in 16 lanes on the stack, whatever the stride.
 * Corner cases: a channel of no weights has gradient 0; -0 does not survive, y is +0.
 * Reference: NUMERICS_LEARNED.md 2, 3. Worked number: codes -8 .. 7, s = 0.5, x = -1.4: r = -3, y = -1.5, tau = -3 + 2.8 = -0.2.
 */
#include "number/fakequant.h"

void fakequant_forward(const struct fakequant *codes, const float *scales, struct fakequant_axis axis, const float *x, size_t n, float *y)
{
    for (size_t i = 0, run = 0; i < n; run++) {
        const float scale = scales[run % axis.count];
        for (size_t k = 0; k < axis.inner && i < n; k++, i++) y[i] = (fakequant_clip(codes, fakequant_round(codes, scale, x[i])) + 0.0f) * scale;
    }
}

double fakequant_lane_sum(double lanes[16])
{
    for (size_t width = 8; width > 0; width /= 2)
        for (size_t j = 0; j < width; j++) lanes[j] += lanes[j + width];
    return lanes[0];
}

double fakequant_backward(const struct fakequant *codes, float scale, struct fakequant_axis axis, size_t channel, const float *x, const float *g,
                          size_t n, float *dx)
{
    double lanes[16] = { 0 };
    size_t term = 0;
    for (size_t start = channel * axis.inner; start < n; start += axis.count * axis.inner) {
        for (size_t i = start; i < start + axis.inner && i < n; i++, term++) {
            const float r = fakequant_round(codes, scale, x[i]), q = fakequant_clip(codes, r);
            const float tau = r == q ? r - x[i] / scale : q;
            lanes[term % 16] += (double)g[i] * (double)tau;
            if (dx) dx[i] = r == q ? g[i] : 0.0f;
        }
    }
    return fakequant_lane_sum(lanes);
}
