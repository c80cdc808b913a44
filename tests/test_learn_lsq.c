/* test_learn_lsq.c: LSQ: start, gradient, the walk of the specification, and what the optimiser makes of the same weights.
 *
 * Formula: dL/ds = grad_factor sum g tau.
 * Why this way: the specification's worked numbers, to the digits it prints.
 * Corner cases: per channel, where the grad_factor counts the whole tensor; a walk that only passes the optimum.
 * Reference: the specification's 4.10, 4.11, 8.6.2.
 */
#include "support/support.h"

#include <math.h>

#include "number/learn.h"
#include "number/learn_sums.h"

static const float X[8] = { 0.9f, -0.35f, 0.12f, -1.4f, 0.61f, 0.05f, -0.77f, 2.6f };
static const struct fakequant int4 = { -8, 7, 0, ROUND_NEAREST_EVEN };
static const struct fakequant_axis whole = { 1, 8 };

static void close_to(double got, double want, double tolerance)
{
    if (fabs(got - want) > tolerance) fail_msg("%.9g, not %.9g", got, want);
}

/* Loss and, where wanted, grad_factor * slope at s. */
static double loss_at(float s, float *slope)
{
    float y[8], g[8];
    double loss = 0;
    fakequant_forward(&int4, &s, whole, X, 8, y);
    for (int i = 0; i < 8; i++) {
        g[i] = 2 * (y[i] - X[i]);
        loss += (double)(y[i] - X[i]) * (double)(y[i] - X[i]);
    }
    if (slope) lsq_backward(&int4, &s, whole, lsq_grad_factor(8, 7), X, g, 8, NULL, slope);
    return loss;
}

static void test_worked(void **state)
{
    (void)state;
    static const float codes[8] = { 1, -1, 0, -2, 1, 0, -1, 4 };
    const float s0 = lsq_start(X, 8, 7), factor = lsq_grad_factor(8, 7);
    float y[8], slope;
    close_to((double)s0, .6425396, 1e-7);
    close_to((double)factor, .1336306, 5e-8);
    fakequant_forward(&int4, &s0, whole, X, 8, y);
    for (int i = 0; i < 8; i++) assert_true(y[i] == codes[i] * s0);
    close_to(loss_at(s0, &slope), .200167, 1e-6);
    close_to((double)slope, .0832587, 1e-7);
    close_to((double)slope / (double)factor, .623051, 1e-6);
    close_to((double)s0 - .05 * (double)slope, .6383767, 1e-7);
    close_to(loss_at(2.6f / 7.5f, NULL), .079556, 1e-6);
}

/* 400 steps of rate 0.02: the best loss met is near the optimum of a grid, the last one is not what counts. */
static void test_walk(void **state)
{
    (void)state;
    double best = HUGE_VAL;
    float s = lsq_start(X, 8, 7), at = 0;
    for (int step = 0; step < 400; step++) {
        float slope;
        const double loss = loss_at(s, &slope);
        if (loss < best) at = s;
        best = fmin(best, loss);
        s = fmaxf(s - .02f * slope, 0x1p-23f);
    }
    close_to(best, .066913, 1e-6);
    close_to((double)at, .367932, 1e-5);
}

static void test_learned(void **state)
{
    (void)state;
    struct learn_params params = learn_defaults(LEARN_LSQ);
    struct learned learned;
    learn_group(LEARN_LSQ, &params, X, NULL, 8, -8, 7, &learned);
    close_to(learned.loss, .066912, 5e-7);
    close_to((double)learned.scale, .3681, 5e-5);
    close_to(learned.start_loss, .079556, 1e-6);
    assert_true(learn_scale(LEARN_LSQ, &params, X, NULL, 8, -8, 7) == learned.scale);
}

/* Alternating least squares from s0 stays far off, from absmax it ends near, as the specification says; the refit here starts from the best. */
static void test_refit(void **state)
{
    (void)state;
    static const double want[2][2] = { { .193196, 1e-6 }, { .071122, 1e-6 } };
    const float starts[2] = { lsq_start(X, 8, 7), 2.6f / 7.5f };
    for (int k = 0; k < 2; k++) {
        float s = starts[k];
        for (int round = 0; round < (k == 0 ? 20 : 1); round++) {
            struct learn_sums sums = { 0 };
            learn_eval_for(NULL)->fit(&int4, s, X, NULL, 8, &sums);
            s = (float)(sums.xq / sums.qq);
        }
        if (k == 1) close_to((double)s, .356747, 1e-6);
        close_to(loss_at(s, NULL), want[k][0], want[k][1]);
    }
}

static void test_channels(void **state)
{
    (void)state;
    static const float scales[2] = { 0.3f, 0.41f };
    float g[8] = { 1, -1, 2, 0.5f, 1, 1, 1, 1 }, dx[8], slopes[2];
    lsq_backward(&int4, scales, (struct fakequant_axis){ 2, 1 }, lsq_grad_factor(8, 7), X, g, 8, dx, slopes);
    for (size_t c = 0; c < 2; c++) {
        double want = 0;
        for (size_t i = c; i < 8; i += 2) {
            const double u = (double)X[i] / (double)scales[c], r = rint(u);
            want += (double)g[i] * (r < -8 ? -8 : r > 7 ? 7 : r - u);
            assert_true(dx[i] == (r < -8 || r > 7 ? 0.0f : g[i]));
        }
        close_to((double)slopes[c], want / sqrt(56), 1e-6);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_worked), cmocka_unit_test(test_walk), cmocka_unit_test(test_learned),
                                        cmocka_unit_test(test_refit), cmocka_unit_test(test_channels) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
