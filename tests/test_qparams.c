/* test_qparams.c: scale and zero point from a range, against the oracle's vectors and the worked numbers of the specification.
 *
 * Drawing: "qparams" of golden/observers.json: rule, min, max -> scale bits, zero point, and what some weights decode to.
 * Why this way: scales are compared as bits, zero points as numbers; the worked integers bind encode, too.
 * Corner cases: never observed, zeros, spans beyond f32, 2 to 32 bits, 16-bit scale types, the reduced range.
 * Reference: NUMERICS_OBSERVERS.md 1. Worked number: int8, amax 2.6: 2.6 / 127.5 = 0.0203921561.
 */
#include "support/support.h"

#include <cjson/cJSON.h>
#include <math.h>

#include "number/half.h"
#include "number/qparams.h"

static uint32_t hex_number(const char *text, size_t index)
{
    char digits[9] = { 0 };
    memcpy(digits, text + 8 * index, 8);
    return (uint32_t)strtoul(digits, NULL, 16);
}

static const char *text_of(const cJSON *item, const char *name)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(item, name);
    if (!cJSON_IsString(value)) fail_msg("no text '%s'", name);
    return value->valuestring;
}

static bool is_true(const cJSON *item, const char *name)
{
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, name));
}

static struct qparams_rule read_rule(const cJSON *item)
{
    static const char *const zeros[QPARAMS_ZERO_COUNT] = { "none", "int", "float", "middle" };
    struct qparams_rule rule = { .symmetric = is_true(item, "symmetric"), .reduce_range = is_true(item, "reduce_range") };
    assert_true(qparams_type_find(text_of(item, "type"), &rule.type));
    rule.half = strcmp(text_of(item, "half"), "half") == 0 ? HALF_RANGE_HALF : HALF_RANGE_INT_MAX;
    rule.scale = scale_type_find(text_of(item, "scale"));
    for (int i = 0; i < QPARAMS_ZERO_COUNT; i++)
        if (strcmp(zeros[i], text_of(item, "zero")) == 0) rule.zero = (enum qparams_zero)i;
    return rule;
}

static void check_case(const cJSON *item, const char *what)
{
    const struct qparams_rule rule = read_rule(item);
    const struct qparams got =
        qparams_of(&rule, f32_from_bits(hex_number(text_of(item, "min"), 0)), f32_from_bits(hex_number(text_of(item, "max"), 0)));
    const cJSON *zero = cJSON_GetObjectItemCaseSensitive(item, "z");
    if (f32_bits(got.scale) != hex_number(text_of(item, "s"), 0)) fail_msg("%s: scale %.9g = %08x", what, (double)got.scale, f32_bits(got.scale));
    if (zero && got.zero != zero->valuedouble) fail_msg("%s: zero %.17g", what, got.zero);
    if (!cJSON_GetObjectItemCaseSensitive(item, "x")) return;
    const char *x = text_of(item, "x"), *y = text_of(item, "y");
    for (size_t i = 0; i < strlen(x) / 8; i++) {
        const float weight = f32_from_bits(hex_number(x, i));
        const float value = qparams_decode(&rule, &got, qparams_encode(&rule, &got, weight, ROUND_NEAREST_EVEN)) + 0.0f;
        if (f32_bits(value) != hex_number(y, i)) fail_msg("%s: %.9g decodes to %.9g", what, (double)weight, (double)value);
    }
}

static void test_vectors(void **state)
{
    (void)state;
    const char *other = getenv("LLMQ_OBSERVERS");
    char *text = read_file(other ? other : tests_path("golden/observers.json"), NULL);
    cJSON *root = cJSON_Parse(text);
    const cJSON *item;
    size_t n = 0;
    assert_non_null(root);
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(root, "qparams"))
    {
        char *what = cJSON_PrintUnformatted(item);
        check_case(item, what);
        cJSON_free(what);
        n++;
    }
    printf("%zu cases\n", n);
    assert_true(n > 500);
    cJSON_Delete(root);
    free(text);
}

/* ---- worked numbers ------------------------------------------------------------------------------------------------------------- */

static const float eight[] = { 0.9f, -0.35f, 0.12f, -1.4f, 0.61f, 0.05f, -0.77f, 2.6f };

static const struct {
    const char *type;
    bool symmetric;
    enum qparams_zero zero;
    enum half_range half;
    float scale;
    double zero_point;
    int32_t codes[8];
} worked[] = {
    { "int8", true, QPARAMS_ZERO_NONE, HALF_RANGE_HALF, 0.0203921561f, 0, { 44, -17, 6, -69, 30, 2, -38, 127 } },
    { "int4", true, QPARAMS_ZERO_NONE, HALF_RANGE_HALF, 0.346666654f, 0, { 3, -1, 0, -4, 2, 0, -2, 7 } },
    { "int3", true, QPARAMS_ZERO_INT, HALF_RANGE_HALF, 2.6f / 3.5f, 0, { 1, 0, 0, -2, 1, 0, -1, 3 } },
    { "int2", true, QPARAMS_ZERO_NONE, HALF_RANGE_HALF, 2.6f / 1.5f, 0, { 1, 0, 0, -1, 0, 0, 0, 1 } },
    { "uint4", false, QPARAMS_ZERO_INT, HALF_RANGE_HALF, 0.266666681f, 5, { 8, 4, 5, 0, 7, 5, 2, 15 } },
    { "int4", false, QPARAMS_ZERO_INT, HALF_RANGE_HALF, 0.266666681f, -3, { 0, -4, -3, -8, -1, -3, -6, 7 } },
    { "uint8", false, QPARAMS_ZERO_INT, HALF_RANGE_HALF, 0.015686275f, 89, { 146, 67, 97, 0, 128, 92, 40, 255 } },
    { "uint8", true, QPARAMS_ZERO_NONE, HALF_RANGE_HALF, 0.0203921561f, 0, { 44, 0, 6, 0, 30, 2, 0, 128 } },
    { "uint4", false, QPARAMS_ZERO_FLOAT, HALF_RANGE_HALF, 0.266666681f, (double)5.2499995f, { 9, 4, 6, 0, 8, 5, 2, 15 } },
    { "int8", true, QPARAMS_ZERO_NONE, HALF_RANGE_INT_MAX, 2.6f / 127.0f, 0, { 44, -17, 6, -68, 30, 2, -38, 127 } },
    { "int4", true, QPARAMS_ZERO_NONE, HALF_RANGE_INT_MAX, 2.6f / 7.0f, 0, { 2, -1, 0, -4, 2, 0, -2, 7 } },
    { "uint8", true, QPARAMS_ZERO_MIDDLE, HALF_RANGE_HALF, 0.0203921561f, 127, { 171, 110, 133, 58, 157, 129, 89, 255 } },
};

static void test_worked(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof worked / sizeof worked[0]; i++) {
        struct qparams_rule rule = { .symmetric = worked[i].symmetric, .zero = worked[i].zero, .half = worked[i].half, .scale = SCALE_F32 };
        assert_true(qparams_type_find(worked[i].type, &rule.type));
        const struct qparams got = qparams_of(&rule, -1.4f, 2.6f);
        if (got.scale != worked[i].scale) fail_msg("%zu: scale %.9g", i, (double)got.scale);
        if (got.zero != worked[i].zero_point) fail_msg("%zu: zero point %.9g", i, got.zero);
        for (size_t k = 0; k < 8; k++) {
            const double code = qparams_encode(&rule, &got, eight[k], ROUND_NEAREST_EVEN);
            if (code != (double)worked[i].codes[k]) fail_msg("%zu: code %zu is %g", i, k, code);
        }
    }
}

static void test_worked_bits(void **state)
{
    (void)state;
    struct qparams_rule rule = { .type = qparams_type_integer(4, false), .zero = QPARAMS_ZERO_INT, .scale = SCALE_F32 };
    assert_int_equal(f32_bits(qparams_of(&rule, -1.4f, 2.6f).scale), 0x3E888889);
    rule.type = qparams_type_integer(8, false);
    assert_int_equal(f32_bits(qparams_of(&rule, -1.4f, 2.6f).scale), 0x3C808081);
    rule = (struct qparams_rule){ .scale = SCALE_F32 };
    assert_true(qparams_type_find("fp8_e4m3", &rule.type));
    assert_true(qparams_of(&rule, -1.4f, 2.6f).scale == 0.005803571f);
    assert_true(qparams_type_find("fp4", &rule.type));
    assert_true(qparams_of(&rule, -1.4f, 2.6f).scale == 0.4333333f);
}

/* Groups of 4 and of 8, and the rounding modes, with a scale of 1 and a zero point of 1. */
static void test_worked_groups(void **state)
{
    (void)state;
    static const float x[] = { 0.1f, -0.2f, 0.3f, 0.7f, 4.0f, -2.0f, 1.0f, 0.5f }, ties[] = { -2.5f, -1.5f, -0.5f, 0.5f, 1.5f, 2.5f };
    static const double four[] = { 1, -2, 3, 7, 7, -4, 2, 1 }, whole[] = { 0, 0, 1, 1, 7, -4, 2, 1 };
    static const double modes[3][6] = { { -2, -1, 0, 1, 2, 3 }, { -3, -2, -1, 1, 2, 3 }, { -2, -2, 0, 0, 2, 2 } };
    static const enum rounding roundings[] = { ROUND_UP, ROUND_AWAY, ROUND_NEAREST_EVEN };
    const struct qparams_rule rule = { .type = qparams_type_integer(4, true), .symmetric = true, .scale = SCALE_F32 };
    const struct qparams scales[] = { qparams_of(&rule, -0.2f, 0.7f), qparams_of(&rule, -2.0f, 4.0f) }, unit = { 1.0f, 0.0 }, shifted = { 1.0f, 1.0 };
    assert_true(scales[0].scale == 0.7f / 7.5f && scales[1].scale == 4.0f / 7.5f);
    for (size_t i = 0; i < 8; i++) {
        assert_true(qparams_encode(&rule, &scales[i / 4], x[i], ROUND_NEAREST_EVEN) == four[i]);
        assert_true(qparams_encode(&rule, &scales[1], x[i], ROUND_NEAREST_EVEN) == whole[i]);
    }
    for (size_t k = 0; k < 3; k++)
        for (size_t i = 0; i < 6; i++) assert_true(qparams_encode(&rule, &unit, ties[i], roundings[k]) == modes[k][i]);
    assert_true(qparams_encode(&rule, &shifted, 0.5f, ROUND_NEAREST_EVEN) == 1.0); /* rounded, then shifted */
    assert_true(qparams_encode(&rule, &shifted, 1.5f, ROUND_NEAREST_EVEN) == 3.0);
    assert_true(qparams_encode(&rule, &shifted, -0.5f, ROUND_NEAREST_EVEN) == 1.0);
}

static void test_corners(void **state)
{
    (void)state;
    static const char *const names[] = { "int2", "int8", "int32", "uint4", "uint32", "fp8_e4m3", "fp4" };
    static const enum scale_type scales[] = { SCALE_F32, SCALE_BF16, SCALE_F16, SCALE_E8M0 };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        for (size_t k = 0; k < 4; k++) {
            struct qparams_rule rule = { .symmetric = i % 2 == 0, .scale = scales[k] };
            assert_true(qparams_type_find(names[i], &rule.type));
            const struct qparams never = qparams_of(&rule, HUGE_VALF, -HUGE_VALF), zero = qparams_of(&rule, 0.0f, -0.0f);
            assert_true(never.scale == 1.0f && never.zero == 0.0);
            assert_true(zero.scale == 0x1p-23f);
            assert_true(qparams_decode(&rule, &zero, qparams_encode(&rule, &zero, 0.0f, ROUND_NEAREST_EVEN)) == 0.0f);
        }
    struct qparams_rule rule = { .type = qparams_type_integer(4, false), .zero = QPARAMS_ZERO_INT, .scale = SCALE_F32 };
    assert_true(isinf(qparams_of(&rule, -3e38f, 3e38f).scale));
    rule.zero = QPARAMS_ZERO_FLOAT;
    assert_true(qparams_of(&rule, 5.0f, 5.0f).scale == 1.0f);
}

static void test_types(void **state)
{
    (void)state;
    static const char *const wrong[] = { "",      "u",       "int",  "uint",   "int1", "int33",         "int04",
                                         "int4x", "uint256", "fp16", "mxint8", "ufp4", "int99999999999" };
    struct qparams_type type;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        if (qparams_type_find(wrong[i], &type)) fail_msg("'%s' is taken for a type", wrong[i]);
    assert_true(qparams_type_find("int32", &type));
    assert_true(type.low == INT32_MIN && type.high == INT32_MAX);
    assert_true(qparams_type_find("uint32", &type));
    assert_true(type.low == 0 && type.high == UINT32_MAX);
    for (size_t i = 0; i < elem_count(); i++) {
        struct qparams_type by_name;
        const bool known = qparams_type_of(elem_at(i), &type);
        assert_int_equal(known, qparams_type_find(elem_at(i)->name, &by_name));
        if (known) assert_true(type.elem == by_name.elem && type.low == by_name.low && type.high == by_name.high);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_vectors),       cmocka_unit_test(test_worked),  cmocka_unit_test(test_worked_bits),
                                        cmocka_unit_test(test_worked_groups), cmocka_unit_test(test_corners), cmocka_unit_test(test_types) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
