/* test_metric.c: the figures of a measure.
 *
 * Why this way: worked numbers, then sums of parts.
 * Corner cases: nothing measured, no error, no signal.
 * Reference: metric.h.
 */
#include "support/support.h"

#include <math.h>

#include "number/metric.h"

static const struct {
    struct measure measure; /* n, sum_xx, sum_yy, sum_xy, sum_dd, max_d */
    double mse, sqnr, cosine;
} samples[] = {
    { { 2, 25, 9, 9, 16, 4 }, 8, 1.9382002601611283, 0.6 }, /* (3, 4) and (3, 0) */
    { { 1, 1, 0.81, 0.9, 0.01, 0.1 }, 0.01, 20, 1 },
    { { 0, 0, 0, 0, 0, 0 }, 0, HUGE_VAL, 1 },
    { { 4, 8, 8, 8, 0, 0 }, 0, HUGE_VAL, 1 },
    { { 1, 0, 4, 0, 4, 2 }, 4, -HUGE_VAL, 0 },
    { { 1, 4, 0, 0, 4, 2 }, 4, 0, 0 },
    { { 1, 1e200, 1e200, 1e200, 1e180, 1e90 }, 1e180, 200, 1 }, /* the product of the squares would overflow */
};

static bool near(double a, double b)
{
    return a == b || fabs(a - b) <= 1e-12 * fabs(b);
}

static void test_figures(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        assert_true(near(measure_mse(&samples[i].measure), samples[i].mse));
        assert_true(near(measure_sqnr_db(&samples[i].measure), samples[i].sqnr));
        assert_true(near(measure_cosine(&samples[i].measure), samples[i].cosine));
    }
}

static void test_add(void **state)
{
    (void)state;
    struct measure total = { 0 }, a = { 2, 25, 9, 8, 16, 4 }, b = { 3, 1, 2, 3, 4, 5 };
    measure_add(&total, &a);
    measure_add(&total, &b);
    measure_add(&total, &a);
    assert_int_equal(total.n, 7);
    assert_true(total.sum_xx == 51 && total.sum_yy == 20 && total.sum_xy == 19 && total.sum_dd == 36 && total.max_d == 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_figures), cmocka_unit_test(test_add) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
