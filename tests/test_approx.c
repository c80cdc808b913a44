/* test_approx.c: MinMaxQuant and the multiplier interface.
 *
 * Formula: factor = int_max / minmax, q = RNE(clip(x factor)), x = q / factor.
 * Why this way: codes and factors of the specification's worked examples.
 * Corner cases: zeros, subnormals, the masked and the unmasked gradient.
 * Reference: the specification's 6, 8.6.3, 8.6.4.
 */
#include "support/support.h"

#include <math.h>

#include "number/approx.h"

static const float X[8] = { 0.9f, -0.35f, 0.12f, -1.4f, 0.61f, 0.05f, -0.77f, 2.6f };

static const struct {
    uint32_t bits;
    float minmax; /* 0: of the weights */
    double factor, tolerance;
    float codes[8];
    double back[8]; /* all 0: not stated */
} rows[] = {
    { 8, 0, 48.84615, 1e-5, { 44, -17, 6, -68, 30, 2, -38, 127 }, { 0 } },
    { 4, 0, 2.692308, 1e-6, { 2, -1, 0, -4, 2, 0, -2, 7 }, { .742857, -.371429, 0, -1.485714, .742857, 0, -.742857, 2.6 } },
    { 8, 2.2f, 57.72727, 1e-5, { 52, -20, 7, -81, 35, 3, -44, 127 }, { 0 } },
    { 4, 2.2f, 3.181818, 1e-6, { 3, -1, 0, -4, 2, 0, -2, 7 }, { .942857, -.314286, 0, -1.257143, .628571, 0, -.628571, 2.2 } },
};

static void test_worked(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        const struct approx approx = rows[k].minmax > 0 ? approx_for_range(rows[k].bits, rows[k].minmax) : approx_minmax(rows[k].bits, X, 8);
        float q[8], back[8];
        assert_true(fabs((double)approx.factor - rows[k].factor) <= rows[k].tolerance);
        approx_quantize(&approx, X, 8, q);
        approx_dequantize(&approx, q, 8, back);
        for (int i = 0; i < 8; i++) {
            assert_true(q[i] == rows[k].codes[i]);
            if (rows[k].back[7] > 0) assert_true(fabs((double)back[i] - rows[k].back[i]) <= 6e-7);
        }
    }
    assert_int_equal(approx_int_max(8), 127);
    assert_int_equal(approx_int_max(4), 7);
    assert_int_equal(approx_int_max(2), 1);
}

static void test_zeros(void **state)
{
    (void)state;
    static const float zeros[3] = { 0.0f, -0.0f, 0x1p-149f };
    for (size_t n = 0; n <= 3; n++) {
        const struct approx approx = approx_minmax(8, zeros, n);
        float q[3];
        assert_true(approx.factor == 1.0f);
        approx_quantize(&approx, zeros, n, q);
        for (size_t i = 0; i < n; i++) assert_true(q[i] == 0.0f && !signbit(q[i]));
    }
}

static void test_backward(void **state)
{
    (void)state;
    const struct approx approx = { 4, 5.0f };
    static const float x[4] = { 1.3f, 1.41f, -1.5f, 0.0f }, g[4] = { 1, 2, 3, -4 };
    float dx[4];
    approx_backward(&approx, APPROX_UNMASKED, NULL, g, 4, dx);
    for (int i = 0; i < 4; i++) assert_true(dx[i] == 5.0f * g[i]);
    approx_backward(&approx, APPROX_MASKED, x, g, 4, dx);
    assert_true(dx[0] == 5 && dx[1] == 0 && dx[2] == 0 && dx[3] == -20);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_worked), cmocka_unit_test(test_zeros), cmocka_unit_test(test_backward) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
