/* test_foreign_rounding.c: codes of other tools, by what they do to halves.
 *
 * Drawing: (vocabulary, code) -> six results, as the tools give them.
 * Why this way: the results are typed in from the specification (8.5.5 for torch, the definitions of section 1 for onnx), not the modes' names.
 * Corner cases: codes of the other vocabulary, -1, huge ones.
 * Reference: the specification's sections 1 and 8.5.
 */
#include "support/support.h"

#include "number/foreign_rounding.h"

static const struct {
    enum foreign_rounding vocabulary;
    int32_t code;
    float results[6]; /* of -2.5 -1.5 -0.5 0.5 1.5 2.5 */
} rows[] = {
    { FOREIGN_TORCH, 2, { -2, -1, 0, 1, 2, 3 } }, { FOREIGN_TORCH, 3, { -3, -2, -1, 1, 2, 3 } }, { FOREIGN_TORCH, 8, { -2, -2, 0, 0, 2, 2 } },
    { FOREIGN_ONNX, 0, { -3, -2, -1, 1, 2, 3 } }, { FOREIGN_ONNX, 1, { -2, -1, 0, 1, 2, 3 } },   { FOREIGN_ONNX, 2, { -2, -2, 0, 0, 2, 2 } },
};

static void test_codes(void **state)
{
    (void)state;
    struct err err;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        enum rounding rounding = ROUND_COUNT;
        assert_ok(foreign_rounding_find(rows[i].vocabulary, rows[i].code, &rounding, &err));
        for (int k = 0; k < 6; k++) assert_true(round_to_integer((float)k - 2.5f, rounding) == rows[i].results[k]);
        assert_int_equal(foreign_rounding_code(rows[i].vocabulary, rounding), rows[i].code);
    }
}

static bool known(enum foreign_rounding vocabulary, int32_t code)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].vocabulary == vocabulary && rows[i].code == code) return true;
    return false;
}

static void test_refused(void **state)
{
    (void)state;
    struct err err;
    for (int v = 0; v < FOREIGN_COUNT; v++) {
        for (int32_t code = -300; code < 300; code++) {
            enum rounding rounding = ROUND_TRUNCATE;
            if (known((enum foreign_rounding)v, code)) continue;
            assert_refused(foreign_rounding_find((enum foreign_rounding)v, code, &rounding, &err), ERR_USAGE,
                           foreign_rounding_name((enum foreign_rounding)v));
            assert_int_equal(rounding, ROUND_TRUNCATE);
        }
        assert_int_equal(foreign_rounding_code((enum foreign_rounding)v, ROUND_TRUNCATE), -1);
    }
    enum rounding rounding;
    assert_refused(foreign_rounding_find(FOREIGN_ONNX, 8, &rounding, &err), ERR_USAGE, "8 is no rounding code of onnx; it has 0, 1 and 2");
    assert_refused(foreign_rounding_find(FOREIGN_TORCH, 0, &rounding, &err), ERR_USAGE, "0 is no rounding code of torch; it has 2, 3 and 8");
    assert_refused(foreign_rounding_find(FOREIGN_TORCH, -1, &rounding, &err), ERR_USAGE, "-1");
    assert_refused(foreign_rounding_find(FOREIGN_ONNX, INT32_MIN, &rounding, &err), ERR_USAGE, "-2147483648");
    assert_int_equal(foreign_rounding_find(FOREIGN_ONNX, 7, &rounding, NULL), ERR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_codes), cmocka_unit_test(test_refused) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
