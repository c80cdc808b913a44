/* test_smooth_power.c: powers against the C library's, and what they must keep exactly.
 *
 * Formula: (4^k x)^(1/2) = 2^k x^(1/2), x^1 = x, x^0 = 1.
 * Why this way: pow of binary64 rounded to binary32 is an independent definition; the two differ only where it lies within 2^-44 of a tie.
 * Corner cases: 0, subnormal numbers, the largest number, overflow, squares.
 * Reference: smooth_power.h. Worked number: 2^0.5 is 0x3fb504f3.
 */
#include "support/support.h"

#include <float.h>
#include <math.h>

#include "number/half.h"
#include "smoothquant/smooth_power.h"

static float random_float(uint64_t *state)
{
    const uint32_t bits = (uint32_t)(test_random(state) >> 32) & 0x7fffffffu;
    return bits < 0x7f800000u ? f32_from_bits(bits) : 1.0f;
}

static void test_against_pow(void **state)
{
    (void)state;
    uint64_t seed = 7;
    for (int i = 0; i < 200000; i++) {
        const float x = random_float(&seed);
        const double a = (double)(int32_t)(test_random(&seed) % 401) / 200.0 - 1.0;
        const float mine = smooth_pow(x, a), wanted = (float)pow((double)x, a);
        if (mine != wanted) fail_msg("%a^%g: %a, not %a", (double)x, a, (double)mine, (double)wanted);
    }
}

static void test_logarithm(void **state)
{
    (void)state;
    uint64_t seed = 8;
    for (int i = 0; i < 100000; i++) {
        const double x = (double)random_float(&seed) * (double)random_float(&seed);
        int32_t e;
        if (x == 0.0) continue;
        const double fraction = smooth_log2(x, &e);
        assert_true(fabs(fraction) <= 0.5 + 1e-15);
        assert_true(fabs((double)e + fraction - log2(x)) <= 1e-13);
    }
    int32_t e;
    assert_true(smooth_log2(0x1p-1074, &e) == 0.0 && e == -1074);
    assert_true(smooth_log2(0x1p1023, &e) == 0.0 && e == 1023);
    assert_true(smooth_log2(0x1.8p1023, &e) < 0.0 && e == 1024);
}

static void test_exact(void **state)
{
    (void)state;
    uint64_t seed = 9;
    for (int i = 0; i < 100000; i++) {
        const float x = random_float(&seed), y = fminf(x, 0x1p100f);
        assert_true(smooth_pow(x, 1.0) == x || x == 0.0f);
        assert_true(smooth_pow(x, 0.0) == 1.0f);
        assert_true(smooth_pow(x, 0.5) == sqrtf(x));
        for (int k = 1; k <= 6 && y > 0x1p-100f; k++) {
            assert_true(smooth_pow(ldexpf(y, 2 * k), 0.5) == ldexpf(smooth_pow(y, 0.5), k));
            assert_true(smooth_pow(ldexpf(y, -4 * k), 0.25) == ldexpf(smooth_pow(y, 0.25), -k));
            assert_true(smooth_pow(ldexpf(y, 4 * k), 0.75) == ldexpf(smooth_pow(y, 0.75), 3 * k));
        }
    }
}

static void test_corners(void **state)
{
    (void)state;
    assert_int_equal(f32_bits(smooth_pow(2.0f, 0.5)), 0x3fb504f3);
    assert_true(smooth_pow(0.0f, 0.0) == 1.0f);
    assert_true(smooth_pow(0.0f, 0.3) == 0.0f);
    assert_true(isinf(smooth_pow(0.0f, -0.3)));
    assert_true(smooth_pow(FLT_MAX, 1.0) == FLT_MAX);
    assert_true(isinf(smooth_pow(FLT_MAX, 2.0)));
    assert_true(smooth_pow(0x1p-149f, 1.0) == 0x1p-149f);
    assert_true(smooth_pow(0x1p-149f, 2.0) == 0.0f);
    assert_true(smooth_exp2(-150, 0.0) == 0.0f); /* half of the least: to even */
    assert_true(smooth_exp2(-150, 0.01) == 0x1p-149f);
    assert_true(smooth_exp2(100, -250.0) == 0x1p-149f * 0.0f);
    assert_true(smooth_exp2(127, 0.9999999) <= FLT_MAX);
    assert_true(isinf(smooth_exp2(128, 0.0)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_pow),
        cmocka_unit_test(test_logarithm),
        cmocka_unit_test(test_exact),
        cmocka_unit_test(test_corners),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
