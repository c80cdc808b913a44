/* test_err.c: sentences of errors and the names in them.
 *
 * Why this way: each case is one call and the whole text it must give.
 * Corner cases: cut texts, a NULL err, arguments that are the err's own text.
 * Reference: err.h.
 */
#include "support/support.h"

#include <errno.h>

#include "base/utf8.h"

static void test_set(void **state)
{
    (void)state;
    struct err err;
    assert_int_equal(err_set(&err, ERR_DATA, "offset %d + size %d exceeds %s", 12, 40, "file size"), ERR_DATA);
    assert_string_equal(err.text, "offset 12 + size 40 exceeds file size");
    assert_int_equal(err.code, ERR_DATA);
    assert_int_equal(err_set(&err, ERR_USAGE, "again: %s", err.text), ERR_USAGE);
    assert_string_equal(err.text, "again: offset 12 + size 40 exceeds file size");
    assert_int_equal(err_set(NULL, ERR_MEMORY, "x %d", 1), ERR_MEMORY);
}

static void test_set_errno(void **state)
{
    (void)state;
    struct err err;
    assert_int_equal(err_set_errno(&err, ENOENT, "cannot open '%s'", "x"), ERR_IO);
    assert_string_equal(err.text, "cannot open 'x': No such file or directory");
    assert_int_equal(err_set_errno(&err, 99999, "odd"), ERR_IO);
    assert_non_null(strstr(err.text, "99999"));
    assert_int_equal(err_set_errno(NULL, EIO, "x"), ERR_IO);
}

static void test_wrap(void **state)
{
    (void)state;
    struct err err;
    err_set(&err, ERR_DATA, "offset 12 is odd");
    assert_int_equal(err_wrap(&err, ERR_IO, "tensor '%s'", "t"), ERR_DATA);
    assert_int_equal(err_wrap(&err, ERR_IO, "cannot read '%s'", "m"), ERR_DATA);
    assert_string_equal(err.text, "cannot read 'm': tensor 't': offset 12 is odd");
    assert_int_equal(err_wrap(NULL, ERR_IO, "x"), ERR_IO);
    err = (struct err){ .code = OK };
    assert_int_equal(err_wrap(&err, ERR_IO, "alone"), ERR_IO);
    assert_string_equal(err.text, "alone");
}

static void test_long_texts(void **state)
{
    (void)state;
    char name[3000];
    struct err err;
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    err_set(&err, ERR_DATA, "%s", name);
    assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 1);
    assert_string_equal(err.text + ERR_TEXT_MAX - 1 - 4, "a...");
    err_set_errno(&err, ENOSPC, "cannot write '%s'", name);
    assert_string_equal(err.text + strlen(err.text) - strlen("...: No space left on device"), "...: No space left on device");
    err_set(&err, ERR_DATA, "the cause");
    err_wrap(&err, ERR_DATA, "%s", name);
    assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 1);
    assert_string_equal(err.text + strlen(err.text) - strlen("...: the cause"), "...: the cause");
    err_set(&err, ERR_DATA, "%s", name);
    err_wrap(&err, ERR_DATA, "%s", "in front");
    assert_memory_equal(err.text, "in front: aaa", 13);
    assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 1);
}

static void test_cut_keeps_utf8(void **state)
{
    (void)state;
    for (size_t shift = 0; shift < 4; shift++) {
        char name[1200];
        struct err err;
        memset(name, 'a', shift);
        for (size_t i = shift; i + 4 < sizeof name; i += 4) memcpy(name + i, "\xf0\x9f\x98\x80", 5);
        err_set(&err, ERR_DATA, "%s", name);
        size_t n = strlen(err.text);
        for (size_t i = 0, length; i < n; i += length) assert_true((length = utf8_length(err.text + i, n - i)) > 0);
        assert_string_equal(err.text + n - 3, "...");
    }
}

static void test_names(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t n;
        size_t size;
        const char *wanted;
    } cases[] = {
        { "plain.name", 10, 64, "plain.name" },
        { "", 0, 64, "" },
        { "a\nb", 3, 64, "a\\x0ab" },
        { "a\0b", 3, 64, "a\\x00b" },
        { "'\"\\", 3, 64, "\\x27\\x22\\x5c" },
        { "\x7f\x1b[2J", 5, 64, "\\x7f\\x1b[2J" },
        { "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9, 64, "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80" },
        { "\xff\xc3", 2, 64, "\\xff\\xc3" },
        { "\xed\xa0\x80", 3, 64, "\\xed\\xa0\\x80" },
        { "\xc2\x9b"
          "1m",
          4, 64, "\\xc2\\x9b1m" },
        { "\xe2\x80\xae"
          "x",
          4, 64, "\\xe2\\x80\\xaex" },
        { "\xe2\x80\xa8", 3, 64, "\\xe2\\x80\\xa8" },
        { "\xe2\x81\xa6", 3, 64, "\\xe2\\x81\\xa6" },
        { "\xe2\x80\x93", 3, 64, "\xe2\x80\x93" },
        { "abcdefgh", 8, 9, "abcdefgh" },
        { "abcdefghi", 9, 9, "abcde..." },
        { "abcd\n", 5, 9, "abcd\\x0a" },
        { "abcde\n", 6, 9, "abcde..." },
        { "abcdef\xc3\xa9z", 9, 9, "abcde..." },
        { "abcd\xc3\xa9zz", 8, 8, "abcd..." },
        { "abcdef", 6, 4, "..." },
        { "abcdef", 6, 3, ".." },
        { "abcdef", 6, 1, "" },
        { "ab", 2, 3, "ab" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *out = malloc(cases[i].size);
        assert_ptr_equal(err_name(cases[i].name, cases[i].n, out, cases[i].size), out);
        assert_string_equal(out, cases[i].wanted);
        free(out);
    }
    char untouched = 'x';
    err_name("a", 1, &untouched, 0);
    assert_int_equal(untouched, 'x');
}

/* Every two bytes: one line of well-formed UTF-8 without controls, whatever the size. */
static void test_names_sweep(void **state)
{
    (void)state;
    for (unsigned pair = 0; pair < 65536; pair++) {
        char name[3] = { (char)(pair >> 8), (char)(pair & 255), 'z' }, out[16];
        size_t size = 1 + pair % sizeof out;
        err_name(name, 3, out, size);
        size_t n = strlen(out);
        assert_true(n < size);
        for (size_t i = 0, length; i < n; i += length) {
            length = utf8_length(out + i, n - i);
            assert_true(length > 0 && (unsigned char)out[i] >= 0x20 && out[i] != 0x7f);
        }
    }
}

/* Every code point forth and back. */
static void test_utf8(void **state)
{
    (void)state;
    for (uint32_t code = 0; code <= 0x10ffff; code++) {
        char bytes[4];
        size_t n = utf8_put(code, bytes);
        bool surrogate = code >= 0xd800 && code < 0xe000;
        assert_int_equal(utf8_length(bytes, n), surrogate ? 0 : n);
        for (size_t cut = 0; cut < n; cut++) assert_int_equal(utf8_length(bytes, cut), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set),   cmocka_unit_test(test_set_errno),      cmocka_unit_test(test_wrap),        cmocka_unit_test(test_long_texts),
        cmocka_unit_test(test_names), cmocka_unit_test(test_cut_keeps_utf8), cmocka_unit_test(test_names_sweep), cmocka_unit_test(test_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
