/* test_glob.c: name patterns.
 *
 * Why this way: one table of pattern, name and verdict.
 * Corner cases: brackets without end, expressions that would balance only inside added parentheses, long names.
 * Reference: glob.h.
 */
#include "support/support.h"

#include <time.h>

#include "base/glob.h"

static const struct {
    const char *pattern;
    enum pattern_kind kind;
    const char *name;
    bool match;
} samples[] = {
    { "model.norm.weight", PATTERN_EXACT, "model.norm.weight", true },
    { "model.norm.weight", PATTERN_EXACT, "model.norm.weights", false },
    { "model.norm.weight", PATTERN_EXACT, "modelxnormxweight", false },
    { "model.norm.weight", PATTERN_EXACT, "", false },
    { "a\\b", PATTERN_EXACT, "a\\b", true },
    { "a\\b", PATTERN_EXACT, "ab", false },
    { "a]b", PATTERN_EXACT, "a]b", true },
    { "*", PATTERN_GLOB, "", true },
    { "*", PATTERN_GLOB, "a/b.c", true },
    { "*", PATTERN_GLOB, ".hidden", true },
    { "*.down_proj.weight", PATTERN_GLOB, "model.layers.3.mlp.down_proj.weight", true },
    { "*.down_proj.weight", PATTERN_GLOB, "model.layers.3.mlp.down_proj.bias", false },
    { "*.down_proj.weight", PATTERN_GLOB, "down_proj.weight", false },
    { "layers.?.w", PATTERN_GLOB, "layers.3.w", true },
    { "layers.?.w", PATTERN_GLOB, "layers.13.w", false },
    { "layers.[0-3].w", PATTERN_GLOB, "layers.2.w", true },
    { "layers.[0-3].w", PATTERN_GLOB, "layers.4.w", false },
    { "layers.[!0-3].w", PATTERN_GLOB, "layers.4.w", true },
    { "a[b", PATTERN_GLOB, "a[b", true },
    { "a[b", PATTERN_GLOB, "ab", false },
    { "a[]]b", PATTERN_GLOB, "a]b", true },
    { "a\\*b*", PATTERN_GLOB, "a*bc", true },
    { "a\\*b*", PATTERN_GLOB, "axbc", false },
    { "a*b*c", PATTERN_GLOB, "a/b/c", true },
    { "?", PATTERN_GLOB, "\xc3", true },
    { "*\xc3\xa9*", PATTERN_GLOB, "caf\xc3\xa9.w", true },
    { "re:layers\\.[0-3]\\..*", PATTERN_REGEX, "layers.2.mlp", true },
    { "re:layers\\.[0-3]\\..*", PATTERN_REGEX, "layers.4.mlp", false },
    { "re:layers\\.[0-3]\\..*", PATTERN_REGEX, "model.layers.2.mlp", false },
    { "re:a|ab", PATTERN_REGEX, "ab", true },
    { "re:a|ab", PATTERN_REGEX, "a", true },
    { "re:a|ab", PATTERN_REGEX, "abb", false },
    { "re:(a|ab)(c|bcd)", PATTERN_REGEX, "abcd", true },
    { "re:b", PATTERN_REGEX, "abc", false },
    { "re:^abc$", PATTERN_REGEX, "abc", true },
    { "re:.*", PATTERN_REGEX, "", true },
    { "re:x{2,3}", PATTERN_REGEX, "xxx", true },
    { "re:x{2,3}", PATTERN_REGEX, "xxxx", false },
    { "re:[[:digit:]]+", PATTERN_REGEX, "0123", true },
    { "re:[[:digit:]]+", PATTERN_REGEX, "0x", false },
    { "re:(model\\.)?norm", PATTERN_REGEX, "norm", true },
    { "re:a\\*b", PATTERN_REGEX, "a*b", true },
    { "re:a[)]b", PATTERN_REGEX, "a)b", true },
    { "re:a\\)b", PATTERN_REGEX, "a)b", true },
    { "re:[(]a", PATTERN_REGEX, "(a", true },
    { "re:a|", PATTERN_REGEX, "", true },
    { "re", PATTERN_EXACT, "re", true },
    { "Re:a", PATTERN_EXACT, "Re:a", true },
};

static void test_samples(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        struct err err;
        struct pattern *pattern;
        assert_ok(pattern_open(samples[i].pattern, &pattern, &err));
        assert_string_equal(pattern_text(pattern), samples[i].pattern);
        if (pattern_kind(pattern) != samples[i].kind) fail_msg("%s: kind", samples[i].pattern);
        if (pattern_match(pattern, samples[i].name) != samples[i].match) fail_msg("%s against %s", samples[i].pattern, samples[i].name);
        pattern_close(pattern);
    }
    pattern_close(NULL);
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const bad[] = { "re:(",  "re:a)(b", "re:[a", "re:[b-a]",  "re:a{2,1}", "re:[[:nope:]]", "re:(a", "re:a{1",
                                       "re:\\", "re:*(",   "re:a)", "re:a)b(c)", "re:)",      "re:(a)\\1",     "re:a))" };
    struct err err;
    struct pattern *pattern;
    assert_refused(pattern_open("", &pattern, &err), ERR_USAGE, "empty");
    assert_refused(pattern_open("re:", &pattern, &err), ERR_USAGE, "empty");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (pattern_open(bad[i], &pattern, &err) != ERR_USAGE) fail_msg("%s accepted", bad[i]);
        assert_non_null(strstr(err.text, "pattern 're:"));
        assert_null(pattern);
    }
}

static void test_long_names(void **state)
{
    (void)state;
    static const char *const patterns[] = { "*a*a*a*a*a*a*b", "re:(a*)*b", "re:.*a.*a.*a.*b", "*[a-z]?[a-z]*x" };
    char *name = malloc(65537);
    memset(name, 'a', 65536);
    name[65536] = '\0';
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        struct err err;
        struct pattern *pattern;
        clock_t start = clock();
        assert_ok(pattern_open(patterns[i], &pattern, &err));
        assert_false(pattern_match(pattern, name));
        double took = (double)(clock() - start) / CLOCKS_PER_SEC;
        printf("%s against 64 KiB: %.3f s\n", patterns[i], took);
        assert_true(took < 1);
        pattern_close(pattern);
    }
    free(name);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_samples), cmocka_unit_test(test_refused), cmocka_unit_test(test_long_names) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
