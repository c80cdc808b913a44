/* test_fakequant.c: the integer core: worked numbers, order of rounding and zero point, axes, gradients against finite differences.
 *
 * Formula: with the rest c = r - x/s of each weight frozen, Q(s) = s (x/s + c) inside and s q outside is smooth, and dQ/ds = tau; between rounding jumps
 * the true dQ/ds is q - z, which is tau + x/s inside.
 * Why this way: straight-through gradients are not derivatives of the stair; they are of the surrogate, and differ from the stair's by a known term.
 * Corner cases: weights on the edge of being clipped, zero points at both ends, every rounding mode, a channel axis of stride 1, tails.
 * Reference: the specification's 4.3, 4.5, 4.9, 8.5.
 */
#include "support/support.h"

#include <math.h>

#include "number/fakequant.h"

enum { N = 96 };

static void fill(uint64_t seed, float *x, float *g)
{
    for (size_t i = 0; i < N; i++) {
        x[i] = (float)((double)(int64_t)test_random(&seed) / 9.3e18);
        g[i] = (float)((double)(int64_t)test_random(&seed) / 9.3e18);
    }
}

static void check_codes(const struct fakequant *codes, float scale, const float *x, size_t n, const int *want)
{
    for (size_t i = 0; i < n; i++) {
        int q = (int)fakequant_clip(codes, fakequant_round(codes, scale, x[i])) + codes->zero;
        if (q != want[i]) fail_msg("code of %g under %g is %d, not %d", (double)x[i], (double)scale, q, want[i]);
    }
}

static void test_worked(void **state)
{
    (void)state;
    static const float x[] = { 0.9f, -0.35f, 0.12f, -1.4f, 0.61f, 0.05f, -0.77f, 2.6f };
    check_codes(&(struct fakequant){ -128, 127, 0, ROUND_NEAREST_EVEN }, 0.0203921561f, x, 8, (int[]){ 44, -17, 6, -69, 30, 2, -38, 127 });
    check_codes(&(struct fakequant){ -8, 7, 0, ROUND_NEAREST_EVEN }, 0.346666654f, x, 8, (int[]){ 3, -1, 0, -4, 2, 0, -2, 7 });
    check_codes(&(struct fakequant){ -4, 3, 0, ROUND_NEAREST_EVEN }, 0.742857f, x, 8, (int[]){ 1, 0, 0, -2, 1, 0, -1, 3 });
    check_codes(&(struct fakequant){ -2, 1, 0, ROUND_NEAREST_EVEN }, 1.73333f, x, 8, (int[]){ 1, 0, 0, -1, 0, 0, 0, 1 });
    check_codes(&(struct fakequant){ 0, 15, 5, ROUND_NEAREST_EVEN }, 0.266666681f, x, 8, (int[]){ 8, 4, 5, 0, 7, 5, 2, 15 });
    check_codes(&(struct fakequant){ -8, 7, -3, ROUND_NEAREST_EVEN }, 0.266666681f, x, 8, (int[]){ 0, -4, -3, -8, -1, -3, -6, 7 });
    check_codes(&(struct fakequant){ 0, 255, 89, ROUND_NEAREST_EVEN }, 0.015686275f, x, 8, (int[]){ 146, 67, 97, 0, 128, 92, 40, 255 });
}

/* Round, then add z: [1 3 3 1], not the [2 2 4 0] of the other order. */
static void test_zero_after_rounding(void **state)
{
    (void)state;
    static const float x[] = { 0.5f, 1.5f, 2.5f, -0.5f };
    check_codes(&(struct fakequant){ -8, 7, 1, ROUND_NEAREST_EVEN }, 1.0f, x, 4, (int[]){ 1, 3, 3, 1 });
}

static void test_extremes(void **state)
{
    (void)state;
    static const float x[] = { 3e38f, -3e38f, 0x1p-149f, -0.0f };
    const struct fakequant codes = { -8, 7, 0, ROUND_NEAREST_EVEN };
    const float scale = 0x1p-23f;
    float y[4];
    for (int r = 0; r < ROUND_COUNT; r++) {
        const struct fakequant each = { -8, 7, 0, (enum rounding)r };
        check_codes(&each, scale, x, 4, (int[]){ 7, -8, 0, 0 });
    }
    fakequant_forward(&codes, &scale, (struct fakequant_axis){ 1, 4 }, x, 4, y);
    assert_true(y[0] == 7 * scale && y[1] == -8 * scale && y[2] == 0.0f && y[3] == 0.0f && !signbit(y[3]));
}

/* Each axis against weights picked by hand, one parameter at a time. */
static void test_axes(void **state)
{
    (void)state;
    static const struct fakequant_axis axes[] = { { 1, N }, { 1, 1 }, { 4, 24 }, { 4, 6 }, { 8, 1 }, { N, 1 } };
    float x[N], g[N], y[N], dx[N], scales[N];
    fill(3, x, g);
    for (size_t i = 0; i < N; i++) scales[i] = 0.05f + 0.001f * (float)i;
    for (size_t a = 0; a < sizeof axes / sizeof axes[0]; a++) {
        const struct fakequant codes = { -8, 7, 1, ROUND_NEAREST_EVEN };
        fakequant_forward(&codes, scales, axes[a], x, N, y);
        for (size_t c = 0; c < axes[a].count; c++) {
            float picked_x[N], picked_g[N], picked_y[N], picked_dx[N];
            size_t n = 0;
            for (size_t i = 0; i < N; i++) {
                if (i / axes[a].inner % axes[a].count != c) continue;
                picked_x[n] = x[i];
                picked_g[n++] = g[i];
            }
            const struct fakequant_axis whole = { 1, n };
            fakequant_forward(&codes, &scales[c], whole, picked_x, n, picked_y);
            const double want = fakequant_backward(&codes, scales[c], whole, 0, picked_x, picked_g, n, picked_dx);
            assert_true(fakequant_backward(&codes, scales[c], axes[a], c, x, g, N, dx) == want);
            for (size_t i = 0, k = 0; i < N; i++) {
                if (i / axes[a].inner % axes[a].count != c) continue;
                assert_true(y[i] == picked_y[k] && dx[i] == picked_dx[k]);
                k++;
            }
        }
    }
}

/* One weight with g = 1 gives tau. */
static double tau_of(const struct fakequant *codes, float scale, float x)
{
    const float g = 1.0f;
    return fakequant_backward(codes, scale, (struct fakequant_axis){ 1, 1 }, 0, &x, &g, 1, NULL);
}

static double stair(const struct fakequant *codes, double s, float x)
{
    float scale = (float)s;
    return (double)fakequant_clip(codes, fakequant_round(codes, scale, x)) * (double)scale;
}

static void check_differences(const struct fakequant *codes, float scale, float x)
{
    const float r = fakequant_round(codes, scale, x), q = fakequant_clip(codes, r);
    const double low = (double)scale * (1 - 0x1p-12), high = (double)scale * (1 + 0x1p-12), tau = tau_of(codes, scale, x);
    /* the surrogate: the rest of the rounding frozen */
    const double rest = (double)r - (double)x / (double)scale;
    const double smooth = r == q ? ((double)x + high * rest) - ((double)x + low * rest) : (high - low) * (double)q;
    if (fabs(smooth / (high - low) - tau) > 1e-5) fail_msg("tau of %g is %g, not %g", (double)x, tau, smooth / (high - low));
    /* the stair itself, where no jump lies between */
    if (fakequant_round(codes, (float)low, x) != r || fakequant_round(codes, (float)high, x) != r) return;
    const double true_slope = (stair(codes, high, x) - stair(codes, low, x)) / ((double)(float)high - (double)(float)low);
    const double expected = r == q ? tau + (double)x / (double)scale : tau;
    if (fabs(true_slope - expected) > 1e-3) fail_msg("slope of the stair at %g is %g, not %g", (double)x, true_slope, expected);
}

static void test_finite_differences(void **state)
{
    (void)state;
    static const int32_t ranges[][3] = { { -8, 7, 0 }, { -128, 127, 0 }, { 0, 15, 5 }, { 0, 15, 0 }, { 0, 15, 15 }, { -2, 1, 0 } };
    float x[N], g[N];
    fill(11, x, g);
    for (size_t k = 0; k < sizeof ranges / sizeof ranges[0]; k++)
        for (int r = 0; r < ROUND_COUNT; r++)
            for (size_t i = 0; i < N; i++) {
                const struct fakequant codes = { ranges[k][0], ranges[k][1], ranges[k][2], (enum rounding)r };
                check_differences(&codes, 1.2f / (float)(codes.code_max - codes.code_min), x[i]);
            }
}

/* dL/dx is g where the code before clipping is in range, the edges included. */
static void test_mask(void **state)
{
    (void)state;
    static const float x[] = { -8.5f, -8.51f, -8.0f, 7.49f, 7.5f, 7.51f, 0.0f, -0.0f };
    static const float want[] = { 1, 0, 1, 1, 0, 0, 1, 1 };
    const struct fakequant codes = { -8, 7, 0, ROUND_NEAREST_EVEN };
    float g[8] = { 1, 1, 1, 1, 1, 1, 1, 1 };
    fakequant_backward(&codes, 1.0f, (struct fakequant_axis){ 1, 8 }, 0, x, g, 8, g);
    for (int i = 0; i < 8; i++) assert_true(g[i] == want[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_worked), cmocka_unit_test(test_zero_after_rounding), cmocka_unit_test(test_extremes),
                                        cmocka_unit_test(test_axes),   cmocka_unit_test(test_finite_differences),  cmocka_unit_test(test_mask) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
