/* test_half.c: conversions between f32 and the small floats, exhaustively.
 *
 * Formula: value of sign, exponent, mantissa by ldexp in binary64, which holds all of them; encoding by midpoints: between neighbouring codes c and
 * c+1 lies exactly one midpoint m; below m the code is c, above it c+1, at m the even one.
 * Why this way: the oracle is the definition of "nearest", not another bit trick.
 * Corner cases: subnormals, the midpoint to Inf, NaN with any payload, both signs.
 * Reference: IEEE 754-2019; half.h.
 */
#include "support/support.h"

#include <math.h>

#include "number/elem.h"
#include "number/half.h"

/* A 16-bit float type under test. */
static const struct small {
    const char *name;
    int exp_bits, man_bits;
    float (*load)(uint16_t bits);
    uint16_t (*store)(float x);
} smalls[] = { { "f16", 5, 10, f16_to_f32, f32_to_f16 }, { "bf16", 8, 7, bf16_to_f32, f32_to_bf16 } };

static double value_of(const struct small *small, uint32_t magnitude)
{
    int field = (int)(magnitude >> small->man_bits), mantissa = (int)(magnitude & ((1u << small->man_bits) - 1u));
    int bias = (1 << (small->exp_bits - 1)) - 1;
    if (field == 0) return ldexp(mantissa, 1 - bias - small->man_bits);
    return ldexp(mantissa + (1 << small->man_bits), field - bias - small->man_bits);
}

static uint32_t infinity_of(const struct small *small)
{
    return ((1u << small->exp_bits) - 1u) << small->man_bits;
}

static void check_store(const struct small *small, double x, uint32_t want)
{
    uint32_t got = small->store((float)x), negative = small->store((float)-x);
    if (got != want || negative != (want | 0x8000u)) fail_msg("%s of %a: %04x and %04x, not %04x", small->name, x, got, negative, want);
}

static void test_load(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++)
        for (uint32_t bits = 0; bits < 65536; bits++) {
            uint32_t magnitude = bits & 0x7FFFu, infinity = infinity_of(&smalls[k]);
            float got = smalls[k].load((uint16_t)bits);
            assert_int_equal(f32_bits(got) >> 31, bits >> 15);
            if (magnitude > infinity) assert_true(isnan(got));
            else if (magnitude == infinity) assert_true(isinf(got));
            else assert_true((double)fabsf(got) == value_of(&smalls[k], magnitude));
        }
}

static void test_store(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++)
        for (uint32_t code = 0; code < infinity_of(&smalls[k]); code++) {
            double low = value_of(&smalls[k], code), high = value_of(&smalls[k], code + 1); /* the last high is 2^(emax+1), where Inf begins */
            float middle = (float)(low / 2 + high / 2);
            check_store(&smalls[k], low, code);
            check_store(&smalls[k], (double)middle, code + (code & 1u));
            check_store(&smalls[k], (double)nextafterf(middle, 0.0f), code);
            if (middle < 0x1.fffffep127f) check_store(&smalls[k], (double)nextafterf(middle, HUGE_VALF), code + 1);
        }
}

static void test_random_store(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (size_t i = 0; i < 4000000; i++) {
        uint32_t bits = (uint32_t)test_random(&seed) & 0x7FFFFFFFu;
        float x = f32_from_bits(bits);
        for (size_t k = 0; k < 2; k++) {
            uint32_t got = smalls[k].store(x), infinity = infinity_of(&smalls[k]);
            if (isnan(x)) {
                assert_true(got > infinity && (got & 1u << (smalls[k].man_bits - 1)));
            } else if (got < infinity) {
                double error = fabs((double)x - value_of(&smalls[k], got));
                assert_true(error <= fabs((double)x - value_of(&smalls[k], got + 1)));
                assert_true(got == 0 || error <= fabs((double)x - value_of(&smalls[k], got - 1)));
            } else {
                assert_true(got == infinity && (double)x >= value_of(&smalls[k], infinity) / 2 + value_of(&smalls[k], infinity - 1) / 2);
            }
        }
    }
}

static void test_nan(void **state)
{
    (void)state;
    static const uint32_t nans[] = { 0x7F800001u, 0x7FFFFFFFu, 0x7FC00000u, 0xFF800001u, 0xFFFFFFFFu };
    for (size_t i = 0; i < sizeof nans / sizeof nans[0]; i++)
        for (size_t k = 0; k < 2; k++) {
            float back = smalls[k].load(smalls[k].store(f32_from_bits(nans[i])));
            assert_true(isnan(back));
            assert_int_equal(f32_bits(back) >> 31, nans[i] >> 31);
        }
    for (size_t k = 0; k < 2; k++) assert_int_equal(smalls[k].store(-HUGE_VALF), infinity_of(&smalls[k]) | 0x8000u);
}

static void test_f8(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < 256; code++) {
        const struct elem *e4m3 = &elem_rows[ELEM_E4M3], *e5m2 = &elem_rows[ELEM_E5M2];
        assert_int_equal(f32_bits(f8_to_f32((uint8_t)code, 3, 7, false)), f32_bits(elem_decode(e4m3, code)));
        assert_int_equal(f32_bits(f8_to_f32((uint8_t)code, 2, 15, true)), f32_bits(elem_decode(e5m2, code)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_load), cmocka_unit_test(test_store), cmocka_unit_test(test_random_store),
                                        cmocka_unit_test(test_nan), cmocka_unit_test(test_f8) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
