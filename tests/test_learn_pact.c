/* test_learn_pact.c: PACT: forward, both gradients, starts.
 *
 * Formula: clip form sum over |x| > alpha of g sgn(x); step form sum g tau / int_max.
 * Why this way: the specification's worked numbers; the clip form against finite differences of the clip function itself, which is smooth there.
 * Corner cases: weights of both signs beyond alpha, a negative alpha, alpha 0, the constant 2.2 on small weights.
 * Reference: the specification's 6, 8.6.3.
 */
#include "support/support.h"

#include <math.h>

#include "number/learn.h"

static const float X[8] = { 0.9f, -0.35f, 0.12f, -1.4f, 0.61f, 0.05f, -0.77f, 2.6f };
static const struct fakequant_axis whole = { 1, 8 };

/* g = 2 (y - x) of the 4-bit forward. */
static void gradient_at(float alpha, const float *x, float *g)
{
    float y[8];
    pact_forward(4, &alpha, whole, x, 8, y);
    for (int i = 0; i < 8; i++) g[i] = 2 * (y[i] - x[i]);
}

static void test_worked(void **state)
{
    (void)state;
    static const double back[8] = { .942857, -.314286, 0, -1.257143, .628571, 0, -.628571, 2.2 };
    static const float alphas[2] = { 2.2f, 1.5f };
    static const double slopes[2] = { -.8, -2.2 };
    float y[8], g[8], dx[8], slope;
    pact_forward(4, alphas, whole, X, 8, y);
    for (int i = 0; i < 8; i++) assert_true(fabs((double)y[i] - back[i]) < 6e-7);
    for (int k = 0; k < 2; k++) {
        gradient_at(alphas[k], X, g);
        pact_backward(4, PACT_CLIP, &alphas[k], whole, X, g, 8, dx, &slope);
        if (fabs((double)slope - slopes[k]) > 1e-6) fail_msg("dL/dalpha %g, not %g", (double)slope, slopes[k]);
        for (int i = 0; i < 8; i++) assert_true(dx[i] == (fabsf(X[i]) <= alphas[k] ? g[i] : 0.0f));
    }
}

/* L(alpha) = sum (clip(x, +-alpha) - t)^2 for fixed targets t is smooth where no |x| is alpha. */
static double clip_loss(double alpha, const float *x, const float *target)
{
    double loss = 0;
    for (int i = 0; i < 8; i++) {
        const double d = fmin(fmax((double)x[i], -alpha), alpha) - (double)target[i];
        loss += d * d;
    }
    return loss;
}

static void test_clip_differences(void **state)
{
    (void)state;
    uint64_t seed = 4;
    for (int round = 0; round < 200; round++) {
        float x[8], target[8], g[8], slope, alpha = 0.2f + 0.003f * (float)round;
        for (int i = 0; i < 8; i++) {
            x[i] = (float)((double)(int64_t)test_random(&seed) / 9.3e18);
            target[i] = (float)((double)(int64_t)test_random(&seed) / 9.3e18);
            if (fabsf(fabsf(x[i]) - alpha) < 1e-3f) x[i] = 0.0f;
            g[i] = 2 * (fminf(fmaxf(x[i], -alpha), alpha) - target[i]);
        }
        pact_backward(4, PACT_CLIP, &alpha, whole, x, g, 8, NULL, &slope);
        const double want = (clip_loss((double)alpha + 1e-5, x, target) - clip_loss((double)alpha - 1e-5, x, target)) / 2e-5;
        if (fabs((double)slope - want) > 1e-4) fail_msg("dL/dalpha %g, not %g", (double)slope, want);
        alpha = -alpha;
        float mirrored;
        pact_backward(4, PACT_CLIP, &alpha, whole, x, g, 8, NULL, &mirrored);
        assert_true(mirrored == -slope);
    }
}

/* The step form is LSQ with s = alpha / 7 and codes -7 .. 7. */
static void test_step_form(void **state)
{
    (void)state;
    const struct fakequant codes = { -7, 7, 0, ROUND_NEAREST_EVEN };
    for (int k = 1; k < 60; k++) {
        const float alpha = 0.05f * (float)k, scale = alpha / 7.0f;
        float g[8], dx[8], want_dx[8], slope, want;
        gradient_at(alpha, X, g);
        pact_backward(4, PACT_STEP, &alpha, whole, X, g, 8, dx, &slope);
        lsq_backward(&codes, &scale, whole, 1.0f, X, g, 8, want_dx, &want);
        assert_true(fabs((double)slope - (double)want / 7) <= 1e-6 * fabs((double)want));
        assert_memory_equal(dx, want_dx, sizeof dx);
    }
    float alpha = 2.6f, g[8], pure, step;
    gradient_at(alpha, X, g);
    pact_backward(4, PACT_CLIP, &alpha, whole, X, g, 8, NULL, &pure);
    pact_backward(4, PACT_STEP, &alpha, whole, X, g, 8, NULL, &step);
    assert_true(pure == 0.0f && step > 0.0f); /* nothing is clipped: only the step form pulls */
}

static void test_zero_alpha(void **state)
{
    (void)state;
    const float alphas[2] = { 0.0f, 1e-40f };
    float y[8];
    pact_forward(8, alphas, (struct fakequant_axis){ 2, 4 }, X, 8, y);
    for (int i = 0; i < 8; i++) assert_true(y[i] == 0.0f);
}

/* Weights near 0.02: the constant start ends no worse than absmax, the data-driven ones do better. */
static void test_starts(void **state)
{
    (void)state;
    float x[128];
    uint64_t seed = 8;
    for (int i = 0; i < 128; i++) {
        double sum = 0;
        for (int k = 0; k < 12; k++) sum += (double)(int64_t)test_random(&seed) / 9.3e18;
        x[i] = (float)(0.01 * sum);
    }
    struct learn_params params = learn_defaults(LEARN_PACT);
    struct learned learned[3];
    const enum learn_start starts[3] = { LEARN_FROM_MAX, LEARN_FROM_3SD, LEARN_FROM_CONSTANT };
    for (int k = 0; k < 3; k++) {
        params.start = starts[k];
        learn_group(LEARN_PACT, &params, x, NULL, 128, -7, 7, &learned[k]);
        assert_true(learned[k].loss <= learned[k].start_loss);
    }
    assert_true(learned[0].loss < 0.95 * learned[0].start_loss && learned[1].loss < 0.95 * learned[1].start_loss);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_worked), cmocka_unit_test(test_clip_differences), cmocka_unit_test(test_step_form),
                                        cmocka_unit_test(test_zero_alpha), cmocka_unit_test(test_starts) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
