/* test_unicode.c: categories, white space, words, and the normal form C.
 *
 * Formula: tests/golden/tokenizers.json holds strings and their NFC, made by tests/tokenizer_oracle.py.
 * Why this way: the oracle is Python's own unicodedata; its strings mix starters, marks in any order, Hangul parts and what decomposes.
 * Corner cases: the first and last code points; runs without gaps; a cap that is too small.
 * Reference: Unicode 16.0. Worked number: U+1E0B U+0323 becomes U+1E0D U+0307.
 */
#include "support/support.h"

#include <cjson/cJSON.h>

#include "base/utf8.h"
#include "smoothquant/unicode.h"

static struct err err;

static void test_categories(void **state)
{
    static const struct {
        uint32_t code;
        const char *name;
    } rows[] = { { 0, "Cc" },      { 'A', "Lu" },    { 'z', "Ll" },    { '0', "Nd" },      { '_', "Pc" },      { 0xaa, "Lo" },    { 0x1c5, "Lt" },
                 { 0x2b0, "Lm" },  { 0x301, "Mn" },  { 0x903, "Mc" },  { 0x20dd, "Me" },   { 0x2160, "Nl" },   { 0xb2, "No" },    { 0x2028, "Zl" },
                 { 0x2029, "Zp" }, { 0x3000, "Zs" }, { '+', "Sm" },    { '$', "Sc" },      { '^', "Sk" },      { 0xa9, "So" },    { 0xad, "Cf" },
                 { 0xe000, "Co" }, { 0x4e00, "Lo" }, { 0x9fff, "Lo" }, { 0x10fffd, "Co" }, { 0x10ffff, "Cn" }, { 0x105c9, "Lo" }, { '(', "Ps" } };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (unicode_category(rows[i].code) != unicode_category_mask(rows[i].name, 2))
            fail_msg("U+%04X is no %s", (unsigned)rows[i].code, rows[i].name);
    assert_int_equal(unicode_category_mask("Xx", 2), 0);
    assert_int_equal(unicode_category_mask("", 0), 0);
    assert_int_equal(unicode_category_mask("Lul", 3), 0);
    assert_int_equal(unicode_category_mask("L&", 2),
                     unicode_category_mask("Lu", 2) | unicode_category_mask("Ll", 2) | unicode_category_mask("Lt", 2));
}

static void test_runs(void **state)
{
    uint32_t first, last, bit, next = 0;
    (void)state;
    for (size_t i = 0; unicode_category_run(i, &first, &last, &bit); i++) {
        assert_int_equal(first, next);
        assert_true(last >= first && unicode_category(first) == bit && unicode_category(last) == bit);
        next = last + 1;
    }
    assert_int_equal(next, UNICODE_MAX + 1);
}

static void test_classes(void **state)
{
    static const uint32_t spaces[] = { 9, 10, 11, 12, 13, 32, 0x85, 0xa0, 0x1680, 0x2000, 0x200a, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000 };
    static const uint32_t others[] = { 0, 8, 14, 31, 33, 0x84, 0x200b, 0x180e, 0xfeff, 0x2581 };
    static const uint32_t words[] = { 'a', 'Z', '0', '_', 0xe9, 0x301, 0x2160, 0x24b6, 0x200d, 0x4e00 };
    static const uint32_t no_words[] = { ' ', '-', 0xb2, 0xd7, 0x2581, 0x1f600 };
    (void)state;
    for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++) assert_true(unicode_is_space(spaces[i]));
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) assert_false(unicode_is_space(others[i]));
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) assert_true(unicode_is_word(words[i]));
    for (size_t i = 0; i < sizeof no_words / sizeof no_words[0]; i++) assert_false(unicode_is_word(no_words[i]));
}

static void check_nfc(const char *text, const char *wanted)
{
    struct text out = text_make(1 << 20);
    assert_ok(unicode_nfc(text, strlen(text), &out, &err));
    if (strcmp(out.data, wanted) != 0) fail_msg("'%s' becomes '%s', not '%s'", text, out.data, wanted);
    text_free(&out);
}

static void test_nfc(void **state)
{
    static const char *const rows[][2] = {
        { "", "" },
        { "plain", "plain" },
        { "e\xcc\x81", "\xc3\xa9" },
        { "\xc3\xa9", "\xc3\xa9" },
        { "xe\xcc\x81y", "x\xc3\xa9y" },
        { "\xe1\xb8\x8b\xcc\xa3", "\xe1\xb8\x8d\xcc\x87" }, /* 1e0b 0323 */
        { "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81" }, /* 1100 1161 11a8: ac01 */
        { "\xea\xb0\x80\xe1\x86\xa8", "\xea\xb0\x81" },
        { "\xe2\x84\xab", "\xc3\x85" }, /* 212b: c5 */
        { "\xcd\x84", "\xcc\x88\xcc\x81" }, /* 0344, never composed */
        { "\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc" }, /* 0958, excluded from composition */
        { "\xe6\x97\xa5\xe6\x9c\xac", "\xe6\x97\xa5\xe6\x9c\xac" },
    };
    size_t n;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) check_nfc(rows[i][0], rows[i][1]);
    char *text = read_file(tests_path("golden/tokenizers.json"), &n);
    cJSON *tree = cJSON_Parse(text), *pair;
    assert_true(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(tree, "nfc")) >= 100);
    cJSON_ArrayForEach(pair, cJSON_GetObjectItemCaseSensitive(tree, "nfc")) check_nfc(pair->child->valuestring, pair->child->next->valuestring);
    cJSON_Delete(tree);
    free(text);
}

/* The normal form of every code point is its own normal form, alone and before a mark. */
static void test_every_code(void **state)
{
    struct text once = text_make(256), twice = text_make(256);
    (void)state;
    for (uint32_t code = 1; code <= UNICODE_MAX; code++) {
        char text[8];
        if (code >= 0xd800 && code < 0xe000) continue;
        size_t n = utf8_put(code, text);
        n += utf8_put(code % 2 ? 0x301 : 0x323, text + n);
        text_reset(&once);
        text_reset(&twice);
        assert_ok(unicode_nfc(text, n, &once, &err));
        assert_ok(unicode_nfc(once.data, once.nbytes, &twice, &err));
        if (once.nbytes != twice.nbytes || memcmp(once.data, twice.data, once.nbytes) != 0) fail_msg("U+%04X changes twice", (unsigned)code);
    }
    text_free(&once);
    text_free(&twice);
}

static void test_cap(void **state)
{
    struct text out = text_make(3);
    (void)state;
    assert_refused(unicode_nfc("abcd", 4, &out, &err), ERR_MEMORY, "normal form");
    text_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_categories), cmocka_unit_test(test_runs),       cmocka_unit_test(test_classes),
        cmocka_unit_test(test_nfc),        cmocka_unit_test(test_every_code), cmocka_unit_test(test_cap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
