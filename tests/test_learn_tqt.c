/* test_learn_tqt.c: TQT: forward, gradient, thresholds, and that the search finds the best power of two.
 *
 * Formula: s = 2^ceil(l) / D, dL/dl = ln 2 s sum g tau.
 * Why this way: the specification's worked numbers; the optimum by trying every exponent there is.
 * Corner cases: l on and just above an integer, extreme l, importance 0 on the largest weights, every rounding mode, KL-J with too few bins.
 * Reference: the specification's 4.9, 5.6, 8.6.1, 8.7.5.
 */
#include "support/support.h"

#include <math.h>

#include "number/elem.h"
#include "number/learn.h"
#include "number/learn_sums.h"

static const float X[12] = { 0.9f, -0.35f, 0.12f, -1.4f, 0.61f, 0.05f, -0.77f, 2.6f, 0.0f, 0.33f, -0.2f, 1.1f };

static const struct {
    float l, scale;
    float codes[8];
    double loss, loss_tolerance, slope, slope_tolerance;
    float last_dx; /* of 2.6, in units of its g */
} rows[] = {
    { 1.3785116f, 0.5f, { 2, -1, 0, -3, 1, 0, -2, 5 }, .1344, 5e-5, .186318, 5e-7, 1 },
    { 1.0f, 0.25f, { 4, -1, 0, -6, 2, 0, -3, 7 }, .7819, 5e-5, -1.979767, 1e-6, 0 },
};

static void test_worked(void **state)
{
    (void)state;
    const struct tqt tqt = { 4, 0, ROUND_NEAREST_EVEN };
    const struct fakequant_axis axis = { 1, 8 };
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        float y[8], g[8], dx[8], slope;
        double loss = 0;
        assert_true(tqt_scale(4, rows[k].l) == rows[k].scale);
        tqt_forward(&tqt, &rows[k].l, axis, X, 8, y);
        for (int i = 0; i < 8; i++) {
            assert_true(y[i] == rows[k].codes[i] * rows[k].scale);
            g[i] = 2 * (y[i] - X[i]);
            loss += (double)(y[i] - X[i]) * (double)(y[i] - X[i]);
        }
        tqt_backward(&tqt, &rows[k].l, axis, X, g, 8, dx, &slope);
        assert_true(fabs(loss - rows[k].loss) <= rows[k].loss_tolerance);
        if (fabs((double)slope - rows[k].slope) > rows[k].slope_tolerance) fail_msg("dL/dl is %.8f, not %.8f", (double)slope, rows[k].slope);
        for (int i = 0; i < 7; i++) assert_true(dx[i] == g[i]);
        assert_true(dx[7] == rows[k].last_dx * g[7]);
    }
}

static void test_scale(void **state)
{
    (void)state;
    assert_true(tqt_scale(8, 0.0f) == 0x1p-7f && tqt_scale(8, -0.5f) == 0x1p-7f && tqt_scale(8, 0x1p-100f) == 0x1p-6f);
    assert_true(tqt_scale(4, -140.0f) == 0x1p-143f && tqt_scale(4, -1e30f) == 0.0f && isinf(tqt_scale(4, 1e30f)));
}

static void test_channels(void **state)
{
    (void)state;
    const struct tqt tqt = { 4, 0, ROUND_NEAREST_EVEN };
    static const float ls[2] = { 1.0f, 1.5f };
    float y[8], g[8] = { 1, 1, 1, 1, 1, 1, 1, 1 }, slopes[2], alone;
    tqt_forward(&tqt, ls, (struct fakequant_axis){ 2, 4 }, X, 8, y);
    assert_true(y[0] == 1.0f && y[4] == 0.5f);
    tqt_backward(&tqt, ls, (struct fakequant_axis){ 2, 4 }, X, g, 8, NULL, slopes);
    tqt_backward(&tqt, ls + 1, (struct fakequant_axis){ 1, 4 }, X + 4, g, 4, NULL, &alone);
    assert_true(slopes[1] == alone);
}

static void test_thresholds(void **state)
{
    (void)state;
    assert_true(fabs((double)tqt_threshold_3sd(X, 12) - 3.1536846) < 5e-7);
    assert_true(fabs(log2((double)tqt_threshold_3sd(X, 12)) - 1.657038) < 5e-7);
    assert_true(fabs((double)tqt_threshold_klj(2, X, 12) - 2.275) < 1e-6);
    assert_true(tqt_threshold_klj(8, X, 12) == 2.6f);
    static const float same[4] = { 2, -2, 2, 2 }, zeros[4] = { 0 };
    assert_true(tqt_threshold_klj(2, same, 4) == 2 && tqt_threshold_klj(4, zeros, 4) == 0 && tqt_threshold_klj(4, NULL, 0) == 0);
    float many[20000];
    uint64_t seed = 5;
    for (size_t i = 0; i < 20000; i++) many[i] = (float)((double)(int64_t)test_random(&seed) / 9.3e18) * (i == 7 ? 30.0f : 1.0f);
    for (uint32_t bits = 2; bits <= 8; bits++) assert_true(tqt_threshold_klj(bits, many, 20000) <= 32.0f);
    many[8] = 0.0f;
    for (size_t i = 0; i < 20000; i++) many[i] = 1.0f + 1e-6f * (float)(i % 3); /* asks for millions of bins, gets 2048 */
    assert_true(tqt_threshold_klj(4, many, 20000) > 0.0f);
}

/* The least loss among all exponents from 2^-23 up. */
static double best_of_all(const struct fakequant *codes, const float *x, const float *weight, size_t n)
{
    double best = HUGE_VAL;
    for (int32_t e = -23; e <= 120; e++) {
        struct learn_sums sums = { 0 };
        learn_eval_for(NULL)->loss(codes, exact_exp2(e), x, weight, n, &sums);
        best = fmin(best, learn_loss(&sums));
    }
    return best;
}

static void test_optimum(void **state)
{
    (void)state;
    static const int32_t ranges[][2] = { { -2, 1 }, { -4, 3 }, { -8, 7 }, { -128, 127 }, { 0, 3 }, { 0, 15 }, { 0, 255 } };
    uint64_t seed = 9;
    for (int round = 0; round < 400; round++) {
        float x[40], weight[40];
        for (size_t i = 0; i < 40; i++) {
            x[i] = (float)((double)(int64_t)test_random(&seed) / 9.3e18 * pow(2.0, (double)(test_random(&seed) % 40) - 20.0));
            weight[i] = fabsf(x[i]) > 4.0f ? 0.0f : (float)(test_random(&seed) % 3);
        }
        for (size_t k = 0; k < sizeof ranges / sizeof ranges[0]; k++) {
            struct learn_params params = learn_defaults(LEARN_TQT);
            struct learned learned;
            params.rounding = (enum rounding)(round % ROUND_COUNT);
            const float *importance = round % 8 < 4 ? weight : NULL;
            learn_group(LEARN_TQT, &params, x, importance, 40, ranges[k][0], ranges[k][1], &learned);
            const struct fakequant codes = { ranges[k][0], ranges[k][1], learned.zero, params.rounding };
            const double best = best_of_all(&codes, x, importance, 40);
            if (!(learned.loss <= best))
                fail_msg("round %d, codes %d .. %d: loss %g, best %g", round, ranges[k][0], ranges[k][1], learned.loss, best);
            assert_true(exact_exp2(exact_ilog2(learned.scale)) == learned.scale);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_worked), cmocka_unit_test(test_scale), cmocka_unit_test(test_channels),
                                        cmocka_unit_test(test_thresholds), cmocka_unit_test(test_optimum) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
