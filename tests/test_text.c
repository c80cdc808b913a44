/* test_text.c: the growing buffer.
 *
 * Why this way: whole texts are compared; the cap is tried at every size around it.
 * Corner cases: nothing added, the cap reached exactly, additions after a failure.
 * Reference: text.h.
 */
#include "support/support.h"

#include "base/json.h"
#include "base/text.h"

static void test_add(void **state)
{
    (void)state;
    struct err err;
    struct text text = text_make(1000);
    assert_string_equal(text.data, "");
    text_add_bytes(&text, NULL, 0);
    assert_string_equal(text.data, "");
    text_add(&text, "%d-%s", 5, "x");
    text_add_bytes(&text, "a\0b", 3);
    text_add(&text, "%s", "");
    assert_int_equal(text.nbytes, 6);
    assert_memory_equal(text.data, "5-xa\0b", 7);
    assert_ok(text_ok(&text, "it", &err));
    text_free(&text);
    assert_string_equal(text.data, "");
    text_add(&text, "again");
    assert_string_equal(text.data, "again");
    text_free(&text);
    text_free(NULL);
}

static void test_cap(void **state)
{
    (void)state;
    for (size_t cap = 0; cap < 300; cap++) {
        struct err err;
        struct text text = text_make(cap);
        for (size_t i = 0; i < cap; i++) text_add(&text, "%c", 'a' + (int)(i % 26));
        assert_ok(text_ok(&text, "the list", &err));
        assert_int_equal(text.nbytes, cap);
        text_add_bytes(&text, "z", 1);
        assert_refused(text_ok(&text, "the list", &err), ERR_MEMORY, "cannot hold the list");
        text_add(&text, "%s", "");
        assert_int_equal(text.nbytes, cap);
        assert_int_equal(strlen(text.data), cap);
        assert_true(text.capacity <= cap + 1);
        text_free(&text);
    }
}

static void test_cap_takes_no_part(void **state)
{
    (void)state;
    struct text text = text_make(10);
    text_add(&text, "%s", "12345678");
    text_add(&text, "%s", "abc");
    text_add(&text, "d");
    assert_true(text.failed);
    assert_string_equal(text.data, "12345678");
    text_free(&text);
}

static void test_growth_is_linear(void **state)
{
    (void)state;
    struct text text = text_make(SIZE_MAX);
    for (unsigned i = 0; i < 2000000; i++) text_add_bytes(&text, "0123456789", 10);
    assert_int_equal(text.nbytes, 20000000);
    assert_true(text.capacity <= 2 * text.nbytes + 2);
    text_free(&text);
}

static void test_json(void **state)
{
    (void)state;
    struct text text = text_make(1000);
    text_add_json_str(&text, "plain \xc3\xa9 / \x7f");
    text_add_json_str(&text, NULL);
    text_add_json(&text, "", 0);
    text_add_json(&text, "\"\\\b\f\n\r\t\x01\x1f\0", 10);
    text_add_json_str(&text, "a\nb\"c");
    assert_string_equal(text.data, "\"plain \xc3\xa9 / \x7f\"null\"\"\"\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u001f\\u0000\"\"a\\nb\\\"c\"");
    text_free(&text);
}

/* What is written is read back as it was: every byte but NUL, and random UTF-8. */
static void test_json_round_trip(void **state)
{
    (void)state;
    struct err err;
    struct json_limits limits = { .max_depth = 1, .max_values = 1 };
    char all[128];
    for (int i = 0; i < 127; i++) all[i] = (char)(i + 1);
    all[127] = '\0';
    struct text text = text_make(1000);
    cJSON *tree;
    const char *back;
    text_add_json_str(&text, all);
    assert_ok(json_parse(text.data, text.nbytes, &limits, &tree, &err));
    assert_ok(json_string(tree, "it", &back, &err));
    assert_string_equal(back, all);
    cJSON_Delete(tree);
    text_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_add),
        cmocka_unit_test(test_cap),
        cmocka_unit_test(test_cap_takes_no_part),
        cmocka_unit_test(test_growth_is_linear),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_json_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
