/* test_learn_sums.c: sums of one candidate: every instruction set alike, in agreement with fakequant.h.
 *
 * Formula: slope = sum g tau with g = 2 w (y - x); loss = sum w (y - x)^2; d loss / ds of the frozen surrogate.
 * Why this way: the levels bit for bit, on lengths around the chunk; the slope by the independent backward function, to what f32 d allows.
 * Corner cases: lengths 0 .. 70, starts at any alignment, importance 0 and 1e12, every rounding mode, overflowing x / s, both ends of the zero point.
 * Reference: NUMERICS_LEARNED.md 3.
 */
#include "support/support.h"

#include <math.h>

#include "number/kernel.h"
#include "number/learn_sums.h"

enum { N = 80 };

static const struct fakequant code_ranges[] = {
    { -8, 7, 0, ROUND_NEAREST_EVEN },
    { -128, 127, 0, ROUND_NEAREST_EVEN },
    { 0, 255, 100, ROUND_NEAREST_EVEN },
    { 0, 15, 15, ROUND_NEAREST_EVEN },
    { -8, 7, 0, ROUND_AWAY },
    { -2, 1, 0, ROUND_UP },
    { 0, 3, 0, ROUND_TRUNCATE },
};

static void fill(uint64_t seed, float *x, float *weight)
{
    for (size_t i = 0; i < N; i++) {
        x[i] = (float)((double)(int64_t)test_random(&seed) / 9.3e18) * (i % 7 == 0 ? 3.0f : 1.0f);
        if (i % 11 == 3) x[i] = 0.05f * (float)((int)i % 9 - 4) + 0.025f; /* ties under 0.05 */
        weight[i] = test_random(&seed) % 4 == 0 ? 0.0f : (float)pow(10.0, (double)(test_random(&seed) % 25) - 12.0);
    }
    x[5] = 3e38f;
    x[6] = -0x1p-149f;
}

static void check_levels(const struct fakequant *codes, float scale, const float *x, const float *weight, size_t n)
{
    struct learn_sums want = { 1, 2, 3, 4, 5 };
    const struct learn_eval *portable = learn_eval_for(NULL);
    portable->slope(codes, scale, x, weight, n, &want);
    portable->fit(codes, scale, x, weight, n, &want);
    for (size_t k = 0; k < kernels_count(); k++) {
        const struct learn_eval *eval = learn_eval_for(kernels_at(k));
        struct learn_sums got = { 1, 2, 3, 4, 5 }, loss = { 1, 2, 3, 4, 5 };
        assert_string_equal(eval->level, kernels_at(k)->name);
        eval->slope(codes, scale, x, weight, n, &got);
        eval->fit(codes, scale, x, weight, n, &got);
        eval->loss(codes, scale, x, weight, n, &loss);
        assert_memory_equal(&got, &want, sizeof got);
        assert_true(loss.inside == want.inside && loss.clipped == want.clipped && loss.cross == 3 && loss.xq == 4 && loss.qq == 5);
    }
}

static void test_levels(void **state)
{
    (void)state;
    static const float scales[] = { 0.05f, 0.25f, 0x1p-23f };
    float x[N], weight[N];
    fill(1, x, weight);
    for (size_t r = 0; r < sizeof code_ranges / sizeof code_ranges[0]; r++)
        for (size_t s = 0; s < 3; s++)
            for (size_t n = 0; n <= 70; n++)
                for (size_t start = 0; start < 3; start++) {
                    check_levels(&code_ranges[r], scales[s], x + start, NULL, n);
                    check_levels(&code_ranges[r], scales[s], x + start, weight + start, n);
                }
}

static void test_against_backward(void **state)
{
    (void)state;
    float x[N], weight[N], y[N], g[N];
    fill(2, x, weight);
    x[5] = 0.4f;
    for (size_t r = 0; r < sizeof code_ranges / sizeof code_ranges[0]; r++) {
        const struct fakequant *codes = &code_ranges[r];
        const struct fakequant_axis axis = { 1, N };
        const float scale = 0.043f;
        struct learn_sums sums = { 0 };
        double loss = 0;
        for (size_t i = 0; i < N; i++) weight[i] = (float)(1 + i % 5);
        learn_eval_for(NULL)->slope(codes, scale, x, weight, N, &sums);
        fakequant_forward(codes, &scale, axis, x, N, y);
        for (size_t i = 0; i < N; i++) {
            g[i] = 2.0f * weight[i] * (y[i] - x[i]);
            loss += (double)weight[i] * (double)(y[i] - x[i]) * (double)(y[i] - x[i]);
        }
        const double want = fakequant_backward(codes, scale, axis, 0, x, g, N, NULL), got = learn_slope(&sums, scale);
        if (fabs(got - want) > 1e-4 * (fabs(want) + loss)) fail_msg("range %zu: slope %g, not %g", r, got, want);
        assert_true(fabs(learn_loss(&sums) - loss) <= 1e-12 * loss);
    }
}

/* Loss under the frozen surrogate: each weight's rest of rounding, or its end code, stays. */
static double frozen(const struct fakequant *codes, float at, double s, const float *x, size_t n)
{
    double loss = 0;
    for (size_t i = 0; i < n; i++) {
        const float r = fakequant_round(codes, at, x[i]), q = fakequant_clip(codes, r);
        const double y = r == q ? (double)x[i] + s * ((double)r - (double)x[i] / (double)at) : s * (double)q;
        loss += (y - (double)x[i]) * (y - (double)x[i]);
    }
    return loss;
}

static void test_finite_differences(void **state)
{
    (void)state;
    float x[N], weight[N];
    fill(3, x, weight);
    x[5] = -0.9f;
    for (size_t r = 0; r < sizeof code_ranges / sizeof code_ranges[0]; r++)
        for (int k = 1; k < 40; k++) {
            const float scale = 0.005f * (float)k;
            const double h = (double)scale * 1e-5;
            struct learn_sums sums = { 0 };
            learn_eval_for(NULL)->slope(&code_ranges[r], scale, x, NULL, N, &sums);
            const double got = learn_slope(&sums, scale);
            const double want =
                (frozen(&code_ranges[r], scale, (double)scale + h, x, N) - frozen(&code_ranges[r], scale, (double)scale - h, x, N)) / (2 * h);
            if (fabs(got - want) > 1e-4 * (fabs(want) + learn_loss(&sums) / (double)scale))
                fail_msg("range %zu scale %g: slope %g, not %g", r, (double)scale, got, want);
        }
}

/* Refit: with the codes held, no other scale has less loss. */
static void test_fit(void **state)
{
    (void)state;
    float x[N], weight[N], q[N];
    fill(4, x, weight);
    x[5] = 0.3f;
    const struct fakequant codes = { -8, 7, 0, ROUND_NEAREST_EVEN };
    struct learn_sums sums = { 0 };
    learn_eval_for(NULL)->fit(&codes, 0.1f, x, NULL, N, &sums);
    const double best = sums.xq / sums.qq, one = 1.0;
    double losses[3] = { 0 };
    fakequant_forward(&codes, &(float){ 0.1f }, (struct fakequant_axis){ 1, N }, x, N, q);
    for (size_t i = 0; i < N; i++)
        for (int k = 0; k < 3; k++) {
            const double d = (double)x[i] - round((double)q[i] * 10) * best * (one + 0.01 * (k - 1));
            losses[k] += d * d;
        }
    assert_true(losses[1] < losses[0] && losses[1] < losses[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_levels), cmocka_unit_test(test_against_backward),
                                        cmocka_unit_test(test_finite_differences), cmocka_unit_test(test_fit) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
