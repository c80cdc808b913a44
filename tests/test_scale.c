/* test_scale.c: stored scale types and the names of rules.
 *
 * Why this way: every stored pattern of up to 16 bits is read and written again; e8m0 is compared with ldexp.
 * Corner cases: e8m0 0 is a subnormal, 255 NaN; values beyond the largest finite number store as Inf.
 * Reference: NUMERICS.md 3, 4.
 */
#include "support/support.h"

#include <math.h>

#include "number/half.h"
#include "number/scale.h"

static const struct {
    enum scale_type type;
    float value;
    uint32_t bits;
} samples[] = {
    { SCALE_BF16, 0.0604248f, 0x3D77 },     { SCALE_BF16, 0x1p-23f, 0x3400 },    { SCALE_BF16, 3.4e38f, 0x7F80 },
    { SCALE_BF16, 3.38953139e38f, 0x7F7F }, { SCALE_F16, 1.0f, 0x3C00 },         { SCALE_F16, 0x1p-23f, 0x0002 },
    { SCALE_F16, 65504.0f, 0x7BFF },        { SCALE_F16, 65519.0f, 0x7BFF },     { SCALE_F16, 65520.0f, 0x7C00 },
    { SCALE_F32, 0.1f, 0x3DCCCCCD },        { SCALE_F32, 0x1p-23f, 0x34000000 }, { SCALE_F32, HUGE_VALF, 0x7F800000 },
    { SCALE_BF16, 1.00390625f, 0x3F80 },    { SCALE_BF16, 1.01171875f, 0x3F82 },
};

static void test_samples(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) assert_int_equal(scale_store(samples[i].type, samples[i].value), samples[i].bits);
}

static void test_e8m0(void **state)
{
    (void)state;
    for (uint32_t b = 0; b < 255; b++) assert_true((double)scale_load(SCALE_E8M0, b) == ldexp(1.0, (int)b - 127));
    assert_true(isnan(scale_load(SCALE_E8M0, 255)));
}

static void test_patterns(void **state)
{
    (void)state;
    static const enum scale_type types[] = { SCALE_BF16, SCALE_F16 };
    for (size_t t = 0; t < 2; t++)
        for (uint32_t bits = 0; bits < 65536; bits++) {
            float value = scale_load(types[t], bits);
            if (!isnan(value)) assert_int_equal(scale_store(types[t], value), bits);
        }
    uint64_t seed = 1;
    for (size_t i = 0; i < 100000; i++) {
        uint32_t bits = (uint32_t)test_random(&seed);
        float value = scale_load(SCALE_F32, bits);
        if (!isnan(value)) assert_int_equal(scale_store(SCALE_F32, value), bits);
    }
}

static void test_names(void **state)
{
    (void)state;
    static const uint32_t bits[SCALE_TYPE_COUNT] = { 8, 16, 16, 32, 8, 0 };
    for (int i = 0; i < SCALE_TYPE_COUNT; i++) {
        assert_int_equal(scale_type_find(scale_type_name((enum scale_type)i)), i);
        assert_int_equal(scale_type_bits((enum scale_type)i), bits[i]);
    }
    for (int i = 0; i < RULE_COUNT; i++) assert_int_equal(scale_rule_find(scale_rule_name((enum scale_rule)i)), i);
    assert_int_equal(scale_type_find("BF16"), SCALE_TYPE_COUNT);
    assert_int_equal(scale_rule_find(""), RULE_COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_samples), cmocka_unit_test(test_e8m0), cmocka_unit_test(test_patterns),
                                        cmocka_unit_test(test_names) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
