/* test_round.c: the rounding modes against binary64 arithmetic, which is exact here.
 *
 * Formula: nearest-even = rint, away = round, up = floor(u + 1/2), truncate = trunc, each of the binary64 value.
 * Why this way: the C library's functions share nothing with round.h.
 * Corner cases: every half up to 4096 and its two f32 neighbours; just below 1/2, where u + 0.5 in binary32 would round up; subnormals; 2^23 and
 * beyond.
 * Reference: NUMERICS.md 1.
 */
#include "support/support.h"

#include <math.h>

#include "number/half.h"
#include "number/round.h"

/* -2.5 -1.5 -0.5 0.5 1.5 2.5 by mode, the table of NUMERICS.md. */
static const float table[ROUND_COUNT][6] = {
    [ROUND_NEAREST_EVEN] = { -2, -2, 0, 0, 2, 2 },
    [ROUND_AWAY] = { -3, -2, -1, 1, 2, 3 },
    [ROUND_UP] = { -2, -1, 0, 1, 2, 3 },
    [ROUND_TRUNCATE] = { -2, -1, 0, 0, 1, 2 },
};

static double expected(double u, enum rounding rounding)
{
    switch (rounding) {
    case ROUND_AWAY:
        return round(u);
    case ROUND_UP:
        return floor(u + 0.5);
    case ROUND_TRUNCATE:
        return trunc(u);
    default:
        return rint(u);
    }
}

static void check(float u)
{
    for (int r = 0; r < ROUND_COUNT; r++) {
        double got = (double)round_to_integer(u, (enum rounding)r), want = expected((double)u, (enum rounding)r);
        if (got != want) fail_msg("%s of %a is %g, not %g", rounding_name((enum rounding)r), (double)u, got, want);
    }
}

static void test_table(void **state)
{
    (void)state;
    for (int r = 0; r < ROUND_COUNT; r++)
        for (int i = 0; i < 6; i++) assert_true(round_to_integer((float)i - 2.5f, (enum rounding)r) == table[r][i]);
}

static void test_halves(void **state)
{
    (void)state;
    for (int i = 0; i <= 8192; i++) {
        float half = (float)i * 0.5f;
        const float near[] = { half, nextafterf(half, HUGE_VALF), nextafterf(half, -HUGE_VALF) };
        for (size_t k = 0; k < 3; k++) {
            check(near[k]);
            check(-near[k]);
        }
    }
}

static void test_all_magnitudes(void **state)
{
    (void)state;
    static const float special[] = { 0.0f, -0.0f, 0x1p-149f, 0x1p-126f, 0x1.fffffep-2f, 8388607.5f, 8388608.0f, 16777216.0f, 0x1.fffffep127f };
    uint64_t seed = 1;
    for (size_t i = 0; i < sizeof special / sizeof special[0]; i++) {
        check(special[i]);
        check(-special[i]);
    }
    for (size_t i = 0; i < 2000000; i++) {
        float u = f32_from_bits((uint32_t)test_random(&seed));
        if (isfinite(u)) check(u);
    }
}

static void test_names(void **state)
{
    (void)state;
    for (int r = 0; r < ROUND_COUNT; r++) assert_int_equal(rounding_find(rounding_name((enum rounding)r)), r);
    static const char *const unknown[] = { "", "nearest", "Up", "up ", "8" };
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) assert_int_equal(rounding_find(unknown[i]), ROUND_COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_table), cmocka_unit_test(test_halves), cmocka_unit_test(test_all_magnitudes),
                                        cmocka_unit_test(test_names) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
