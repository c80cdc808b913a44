/* test_tokenizer_pattern.c: what patterns match, piece by piece, and which syntax is refused.
 *
 * Formula: all matches in a text, in brackets: "a|b" in "xaby" is x[a][b]y.
 * Why this way: rows by hand from Oniguruma's documentation; tests/peers holds the patterns of models against Oniguruma itself.
 * Corner cases: greedy, lazy and possessive repetition, looks, case, classes in classes, empty matches, patterns made to take for ever.
 * Reference: Oniguruma doc/RE. Worked number: \s+(?!\S)|\s+ in "a  b": a[ ][ ]b.
 */
#include "support/support.h"

#include "smoothquant/tokenizer_pattern.h"
#include "smoothquant/unicode.h"

static struct err err;

static const struct {
    const char *pattern, *text, *matches;
} rows[] = {
    { "a|b", "xaby", "x[a][b]y" },
    { "ab|abc", "abcd", "[ab]cd" }, /* the first alternative that matches, not the longest */
    { "abc|ab", "abcd", "[abc]d" },
    { "a*", "baac", "b[aa]c" }, /* empty matches are not shown */
    { "a+?", "aaa", "[a][a][a]" },
    { "a??b", "ab", "[ab]" },
    { "a*+a", "aaa", "aaa" }, /* possessive: nothing is given back */
    { "a?+ab", "ab aab", "ab [aab]" },
    { "(?:ab)++c", "ababc", "[ababc]" },
    { "(?>a|ab)c", "abc", "abc" },
    { "a{2}", "aaaaa", "[aa][aa]a" },
    { "a{2,3}", "aaaaaaa", "[aaa][aaa]a" },
    { "a{,2}b", "aaab", "a[aab]" },
    { "a{2,}b", "ab aaab", "ab [aaab]" },
    { "(?:ab){2,3}", "abababab", "[ababab]ab" },
    { "(ab)?c", "abc c", "[abc] [c]" },
    { "(?:ab)*c", "ababc", "[ababc]" },
    { "(?:a|b)+?c", "abc", "[abc]" },
    { "(?:a(?:b(?:c)?)?)+", "abcaba", "[abcaba]" },
    { "\\s+(?!\\S)|\\s+", "a  b", "a[ ][ ]b" },
    { "\\s+(?!\\S)", "a   b ", "a[  ] b[ ]" },
    { "a(?=b)", "abac", "[a]bac" },
    { "(?=[a-c])[^b]", "abcd", "[a]b[c]d" },
    { "(?i:'s|'LL)", "'S 'll 's 'Ll", "['S] ['ll] ['s] ['Ll]" },
    { "(?i:s)", "sS\xc5\xbf", "[s][S][\xc5\xbf]" }, /* U+017F */
    { "(?i:[k-m])x", "Kx\xe2\x84\xaaxmx", "[Kx][\xe2\x84\xaax][mx]" }, /* U+212A */
    { "(?i:a)b", "Ab AB", "[Ab] AB" },
    { "[^a-c]+", "abxyc", "ab[xy]c" },
    { "[a-]+", "a-b", "[a-]b" },
    { "[\\]\\[\\\\^-]+", "x[]\\^-y", "x[[]\\^-]y" },
    { "[a[bc]]+", "abcd", "[abc]d" },
    { "[^(\\s|[.,])]+", "a(b|c.d e)", "[a]([b]|[c].[d] [e])" },
    { "[a[^b-z]]+", "aAb", "[aA]b" },
    { "\\p{Lu}\\p{Ll}+", "Ab ABc", "[Ab] A[Bc]" },
    { "\\P{L}+", "a12b", "a[12]b" },
    { "\\p{^L}+", "a12b", "a[12]b" },
    { "[^\\P{L}x]+", "abxy1", "[ab]x[y]1" },
    { "\\p{N}{1,3}", "12345\xc2\xbd", "[123][45\xc2\xbd]" },
    { "[\xe4\xb8\x80-\xe9\xbe\xa5]+",
      "a\xe6\x97\xa5\xe6\x9c\xac"
      "b",
      "a[\xe6\x97\xa5\xe6\x9c\xac]b" },
    { "\\x{65e5}|\\u672c|\\x41",
      "\xe6\x97\xa5\xe6\x9c\xac"
      "A",
      "[\xe6\x97\xa5][\xe6\x9c\xac][A]" },
    { "\\d+",
      "1\xd9\xa1"
      "a",
      "[1\xd9\xa1]a" },
    { "\\w+", "a_1-\xc3\xa9", "[a_1]-[\xc3\xa9]" },
    { "\\W", "a-b", "a[-]b" },
    { "\\D", "1a", "1[a]" },
    { ".", "a\nb", "[a]\n[b]" },
    { "a$", "a\nba", "[a]\nb[a]" },
    { "a\\z", "a\nba", "a\nb[a]" },
    { "\\ba", "a ba a", "[a] ba [a]" },
    { "a\\B", "ab a", "[a]b a" },
    { "\\r\\n|\\t", "a\r\n\t", "a[\r\n][\t]" },
    { "\\.\\*\\/", "a.*/", "a[.*/]" },
    { "", "ab", "ab" },
    { "a||b", "ab", "[a]b" }, /* the empty alternative wins over the last one */
    { "(a|)b", "ab b", "[ab] [b]" },
};

static void find_all(const struct tokenizer_pattern *pattern, const char *text, char *out)
{
    struct pattern_work work = { .steps = 1000000 };
    const size_t n = strlen(text);
    char *copy = malloc(n + !n); /* of the exact size */
    size_t at = 0, from = 0, start, end;
    bool found = true;
    assert_non_null(copy);
    if (n) memcpy(copy, text, n);
    while (from <= n) {
        assert_ok(tokenizer_pattern_find(pattern, &work, copy, n, from, &start, &end, &found, &err));
        if (!found) break;
        if (start < end) out += sprintf(out, "%.*s[%.*s]", (int)(start - at), copy + at, (int)(end - start), copy + start), at = end;
        from = start < end ? end : end + (end < n ? unicode_length(copy[end]) : 1);
    }
    sprintf(out, "%.*s", (int)(n - at), copy + at);
    free(copy);
    pattern_work_free(&work);
}

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct tokenizer_pattern *pattern = NULL;
        char got[512];
        if (tokenizer_pattern_open(rows[i].pattern, strlen(rows[i].pattern), &pattern, &err) != OK) fail_msg("%s: %s", rows[i].pattern, err.text);
        find_all(pattern, rows[i].text, got);
        if (strcmp(got, rows[i].matches) != 0) fail_msg("%s in '%s': %s, not %s", rows[i].pattern, rows[i].text, got, rows[i].matches);
        tokenizer_pattern_close(pattern);
    }
}

static const struct {
    const char *pattern;
    enum status status;
    const char *part;
} refusals[] = {
    { "(a", ERR_DATA, "byte 2: ')' is missing" },
    { "a)", ERR_DATA, "byte 1: ')' without '('" },
    { "[a", ERR_DATA, "']' is missing" },
    { "[]a]", ERR_UNSUPPORTED, "']' first in a class" },
    { "[b-a]", ERR_DATA, "ends before it begins" },
    { "[[:alpha:]]", ERR_UNSUPPORTED, "a POSIX class" },
    { "[a&&b]", ERR_UNSUPPORTED, "'&&' in a class" },
    { "*a", ERR_UNSUPPORTED, "without anything before it" },
    { "a**", ERR_UNSUPPORTED, "a quantifier after a quantifier" },
    { "a{2}+", ERR_UNSUPPORTED, "a quantifier after '}'" },
    { "a{2}?", ERR_UNSUPPORTED, "a quantifier after '}'" },
    { "a{3,2}", ERR_DATA, "below its beginning" },
    { "a{99999}", ERR_UNSUPPORTED, "more than 10000" },
    { "a{x}", ERR_UNSUPPORTED, "'{' without a number" },
    { "a{2", ERR_DATA, "'}' is missing" },
    { "^a", ERR_UNSUPPORTED, "'^'" },
    { "(?<=a)b", ERR_UNSUPPORTED, "this kind of group" },
    { "(?<n>a)", ERR_UNSUPPORTED, "this kind of group" },
    { "(?i)a", ERR_UNSUPPORTED, "this kind of group" },
    { "(a)\\1", ERR_UNSUPPORTED, "this escape is not known" },
    { "\\h", ERR_UNSUPPORTED, "this escape is not known" },
    { "\\p{Han}", ERR_UNSUPPORTED, "this property is not known" },
    { "\\pL", ERR_UNSUPPORTED, "'{' expected" },
    { "\\p{L", ERR_DATA, "'}' is missing" },
    { "(?i:\\p{Lu})", ERR_UNSUPPORTED, "a property of case" },
    { "(?i:\xc3\xa9)", ERR_UNSUPPORTED, "letters beyond ASCII" },
    { "\\x{110000}", ERR_DATA, "this is no code point" },
    { "\\u12", ERR_DATA, "hexadecimal digits are missing" },
    { "a\\", ERR_DATA, "ends early" },
    { "a\xff", ERR_DATA, "invalid UTF-8" },
    { "((((((((((((((((((a))))))))))))))))))", ERR_UNSUPPORTED, "nested too deeply" },
    { "[[[[[[[[[[[[[[[[[[a]]]]]]]]]]]]]]]]]]", ERR_UNSUPPORTED, "nested too deeply" },
    { "(?:(?:(?:a{1}b){100}){100}){100}", ERR_UNSUPPORTED, "becomes too long" },
    { "((((((((((a+)+)+)+)+)+)+)+)+)+){9}", ERR_UNSUPPORTED, "becomes too long" },
};

static void test_refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        struct tokenizer_pattern *pattern = NULL;
        const enum status status = tokenizer_pattern_open(refusals[i].pattern, strlen(refusals[i].pattern), &pattern, &err);
        if (status != refusals[i].status || !strstr(err.text, refusals[i].part))
            fail_msg("%s: status %d, %s", refusals[i].pattern, (int)status, err.text);
        assert_null(pattern);
    }
}

/* Patterns made to take for ever run out of steps; long texts do not. */
static void test_steps(void **state)
{
    static const char *const endless[] = { "(?:a|a)*b", "(?:a+)+b", "(?:a*)*b", "(?:|a)+b" };
    struct tokenizer_pattern *pattern = NULL;
    size_t start, end, n = 1 << 20;
    bool found;
    char *text = malloc(n);
    (void)state;
    assert_non_null(text);
    memset(text, 'a', n);
    for (size_t i = 0; i < sizeof endless / sizeof endless[0]; i++) {
        struct pattern_work work = { .steps = 1000000 };
        assert_ok(tokenizer_pattern_open(endless[i], strlen(endless[i]), &pattern, &err));
        assert_refused(tokenizer_pattern_find(pattern, &work, text, 40, 0, &start, &end, &found, &err), ERR_UNSUPPORTED, "too many steps");
        tokenizer_pattern_close(pattern);
        pattern_work_free(&work);
    }
    struct pattern_work work = { .steps = 1000 };
    assert_ok(tokenizer_pattern_open("[a-z]+", 6, &pattern, &err));
    assert_ok(tokenizer_pattern_find(pattern, &work, text, n, 0, &start, &end, &found, &err));
    assert_true(found && start == 0 && end == n);
    tokenizer_pattern_close(pattern);
    pattern_work_free(&work);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_rows), cmocka_unit_test(test_refusals), cmocka_unit_test(test_steps) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
