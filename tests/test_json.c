/* test_json.c: texts that json.c must take or refuse, JSONTestSuite, hostile sizes, the walk, the tree.
 *
 * Why this way: one table of crafted texts, each with the verdict and a part of the sentence; a NUL byte stands in some, so lengths are explicit.
 * Corner cases: four files of the suite are valid JSON that json.h refuses on purpose (duplicate keys, \u0000); they are named below.
 * Reference: RFC 8259; nst/JSONTestSuite.
 */
#include "support/support.h"

#include <dirent.h>
#include <sys/resource.h>
#include <time.h>

#include "base/digest.h"
#include "base/json.h"
#include "base/text.h"

static const struct json_limits loose = { .max_depth = 512, .max_values = 1000000 };
static const struct json_limits strict = { .max_depth = 4, .max_values = 1000, .plain_integers = true };

struct sample {
    const char *text;
    size_t nbytes;
    const char *part; /* of the sentence; NULL: accepted */
};

#define GOOD(text)                                                                                                                                   \
    {                                                                                                                                                \
        text, sizeof(text) - 1, NULL                                                                                                                 \
    }
#define BAD(text, part)                                                                                                                              \
    {                                                                                                                                                \
        text, sizeof(text) - 1, part                                                                                                                 \
    }

static const struct sample samples[] = {
    /* numbers */
    GOOD("0"),
    GOOD("-0"),
    GOOD("10"),
    GOOD("-1"),
    GOOD("1.5"),
    GOOD("0.0"),
    GOOD("1e5"),
    GOOD("1E+5"),
    GOOD("1e-5"),
    GOOD("0e0"),
    GOOD("123456789012345678901234567890"),
    GOOD("1e999"),
    GOOD("-0.000000000000000000000000000000000000000000000000001e-400"),
    BAD("00", "byte 0: leading zero"),
    BAD("01", "leading zero"),
    BAD("-01", "leading zero"),
    BAD("1.", "ends early"),
    BAD("[1.]", "byte 3: a digit"),
    BAD(".5", "a value"),
    BAD("[-.5]", "a digit"),
    BAD("-", "ends early"),
    BAD("[-]", "a digit"),
    BAD("+1", "a value"),
    BAD("1e", "ends early"),
    BAD("[1e+]", "exponent"),
    BAD("[1.e3]", "after the point"),
    BAD("1.2.3", "after the end"),
    BAD("0x10", "after the end"),
    BAD("1_000", "after the end"),
    BAD("Infinity", "a value"),
    BAD("NaN", "a value"),
    BAD("[nan]", "unknown word"),
    BAD("- 1", "a digit"),
    BAD("1 2", "after the end"),
    BAD("1a", "after the end"),
    BAD("\xef\xbc\x91", "a value"),
    BAD("[1e]", "exponent"),
    BAD("[1.5e1.5]", "',' or ']'"),
    /* words */
    GOOD("true"),
    GOOD("false"),
    GOOD("null"),
    BAD("tru", "unknown word"),
    BAD("True", "a value"),
    BAD("nul", "unknown word"),
    BAD("falsE", "unknown word"),
    BAD("truetrue", "after the end"),
    BAD("nullx", "after the end"),
    /* strings and escapes */
    GOOD("\"\""),
    GOOD("\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041z\""),
    GOOD("\"\\ud83d\\ude00\""),
    GOOD("\"\\uFFFF\\u0001\""),
    GOOD("\"\x7f\""),
    GOOD("\"\\\\u0000\""),
    BAD("\"", "ends early"),
    BAD("\"a", "ends early"),
    BAD("\"\\", "unknown escape"),
    BAD("\"\\\"", "ends early"),
    BAD("\"\\x41\"", "unknown escape"),
    BAD("\"\\a\"", "unknown escape"),
    BAD("\"\\'\"", "unknown escape"),
    BAD("\"\\U0041\"", "unknown escape"),
    BAD("\"\\u\"", "four hex"),
    BAD("\"\\u004\"", "four hex"),
    BAD("\"\\u00zz\"", "four hex"),
    BAD("\"\\uZZZZ\"", "four hex"),
    BAD("\"\\u0000\"", "\\u0000"),
    BAD("{\"a\\u0000b\":1}", "\\u0000"),
    BAD("\"\\ud800\"", "lone surrogate"),
    BAD("\"\\udc00\"", "lone surrogate"),
    BAD("\"\\ud800\\ud800\"", "lone surrogate"),
    BAD("\"\\ud800\\u0041\"", "lone surrogate"),
    BAD("\"\\ud800x\"", "lone surrogate"),
    BAD("\"\\ud83d\\ude0\"", "lone surrogate"),
    BAD("\"\\ud83d\\n\"", "lone surrogate"),
    BAD("\"a\nb\"", "control character"),
    BAD("\"a\tb\"", "control character"),
    BAD("\"\x1f\"", "control character"),
    BAD("\"a\0b\"", "control character"),
    BAD("'a'", "a value"),
    BAD("\"a\"x", "after the end"),
    BAD("a", "a value"),
    BAD("\"\\\0\"", "unknown escape"),
    /* UTF-8 */
    GOOD("\"\xc3\xa9\""),
    GOOD("\"\xe2\x82\xac\""),
    GOOD("\"\xf0\x9f\x98\x80\""),
    GOOD("\"\xf4\x8f\xbf\xbf\""),
    GOOD("\"\xef\xbf\xbf\""),
    GOOD("\"\xc2\x80\""),
    BAD("\"\x80\"", "byte 1: invalid UTF-8"),
    BAD("\"\xc3\"", "invalid UTF-8"),
    BAD("\"\xc0\xaf\"", "invalid UTF-8"),
    BAD("\"\xc1\xbf\"", "invalid UTF-8"),
    BAD("\"\xe0\x80\xaf\"", "invalid UTF-8"),
    BAD("\"\xed\xa0\x80\"", "invalid UTF-8"),
    BAD("\"\xed\xbf\xbf\"", "invalid UTF-8"),
    BAD("\"\xf0\x80\x80\x80\"", "invalid UTF-8"),
    BAD("\"\xf4\x90\x80\x80\"", "invalid UTF-8"),
    BAD("\"\xf5\x80\x80\x80\"", "invalid UTF-8"),
    BAD("\"\xff\"", "invalid UTF-8"),
    BAD("\"\xe2\x82\"", "invalid UTF-8"),
    BAD("\"\xf0\x9f\x98", "invalid UTF-8"),
    BAD("\xef\xbb\xbf{}", "a value"),
    BAD("\xef\xbb\xbf", "a value"),
    BAD("{\"\xe9\":1}", "invalid UTF-8"),
    BAD("[\xe9]", "a value"),
    /* arrays */
    GOOD("[]"),
    GOOD("[ ]"),
    GOOD("[1,2]"),
    GOOD("[[],[[]]]"),
    GOOD(" \t\r\n[1 , 2 ]\n"),
    GOOD("[null,1,\"a\",{}]"),
    BAD("[", "ends early"),
    BAD("]", "a value"),
    BAD("[1", "ends early"),
    BAD("[1,", "ends early"),
    BAD("[1,]", "a value"),
    BAD("[,]", "a value"),
    BAD("[,1]", "a value"),
    BAD("[1,,2]", "a value"),
    BAD("[1 2]", "',' or ']'"),
    BAD("[1;2]", "',' or ']'"),
    BAD("[1:2]", "',' or ']'"),
    BAD("[1]]", "after the end"),
    BAD("[1],", "after the end"),
    BAD("[1}", "',' or ']'"),
    BAD("[\v1]", "a value"),
    BAD("[\f]", "a value"),
    BAD("[*]", "a value"),
    BAD("[][]", "after the end"),
    BAD("<null>", "a value"),
    /* objects */
    GOOD("{}"),
    GOOD("{ }"),
    GOOD("{\"a\":1}"),
    GOOD("{\"a\":{\"a\":{\"a\":1}}}"),
    GOOD("{\"\":0}"),
    GOOD("{\"a\" : [ ] , \"A\" : null }"),
    GOOD("[{\"a\":1},{\"a\":2}]"),
    GOOD("{\"b\":{\"x\":1},\"c\":{\"x\":1},\"x\":{\"b\":0}}"),
    BAD("{", "ends early"),
    BAD("}", "a value"),
    BAD("{\"a\"", "ends early"),
    BAD("{\"a\":", "ends early"),
    BAD("{\"a\":1", "ends early"),
    BAD("{\"a\":1,", "ends early"),
    BAD("{\"a\":1,}", "a key"),
    BAD("{,}", "a key"),
    BAD("{\"a\":1,,\"b\":2}", "a key"),
    BAD("{\"a\" 1}", "':'"),
    BAD("{\"a\"::1}", "a value"),
    BAD("{\"a\",1}", "':'"),
    BAD("{a:1}", "a key"),
    BAD("{1:1}", "a key"),
    BAD("{'a':1}", "a key"),
    BAD("{null:null}", "a key"),
    BAD("{[:\"x\"}", "a key"),
    BAD("{\"a\":}", "a value"),
    BAD("{\"a\":1]", "',' or '}'"),
    BAD("{\"a\":1 \"b\":2}", "',' or '}'"),
    BAD("{\"a\":1}x", "after the end"),
    BAD("{}}", "after the end"),
    BAD("{\"a\":1}#", "after the end"),
    BAD("{\"a\":/*x*/1}", "a value"),
    BAD("{\"a\":1}//", "after the end"),
    BAD("{\"a\":\"b\"/**/}", "',' or '}'"),
    /* duplicate keys */
    BAD("{\"a\":1,\"a\":2}", "byte 7: duplicate key 'a'"),
    BAD("{\"a\":1,\"\\u0061\":2}", "duplicate key 'a'"),
    BAD("{\"\":1,\"b\":2,\"\":3}", "duplicate key ''"),
    BAD("[[{\"x\":{\"k\":1,\"j\":2,\"k\":3}}]]", "duplicate key 'k'"),
    BAD("{\"\xf0\x9f\x98\x80\":1,\"\\uD83D\\uDE00\":2}", "duplicate key"),
    BAD("{\"\\n\":1,\"\\u000a\":2}", "duplicate key '\\x0a'"),
    BAD("{\"a\":{\"b\":1},\"a\":{\"b\":1}}", "byte 13: duplicate key"),
    BAD("{\"\xc3\xa9x\":1,\"\\u00e9\\u0078\":2}", "duplicate key"),
    BAD("{\"/\":1,\"\\/\":2}", "duplicate key '/'"),
    GOOD("{\"a\":1,\"\\\\u0061\":2}"),
    GOOD("{\"ab\":1,\"a\":2,\"abc\":3}"),
    /* the outermost level */
    BAD("", "ends early"),
    BAD(" ", "ends early"),
    BAD("\0", "a value"),
    BAD("{}\0", "after the end"),
    BAD("[\0]", "a value"),
    BAD("\xc2\xa0"
        "1",
        "a value"),
    BAD("\xe2\x81\xa0", "a value"),
};

static void test_samples(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        struct err err = { .code = OK };
        char *exact = malloc(samples[i].nbytes ? samples[i].nbytes : 1); /* no byte behind the text, for the sanitizer */
        memcpy(exact, samples[i].text, samples[i].nbytes);
        enum status status = json_check(exact, samples[i].nbytes, &loose, &err);
        const char *part = samples[i].part;
        if (!part && status != OK) fail_msg("'%s' refused: %s", samples[i].text, err.text);
        if (part && (status != ERR_DATA || !strstr(err.text, part)))
            fail_msg("'%s': status %d '%s' lacks '%s'", samples[i].text, (int)status, err.text, part);
        cJSON *tree;
        assert_int_equal(json_parse(exact, samples[i].nbytes, &loose, &tree, NULL), status);
        assert_true((tree != NULL) == (status == OK));
        cJSON_Delete(tree);
        free(exact);
    }
    printf("%zu crafted texts\n", sizeof samples / sizeof samples[0]);
}

static void test_every_cut(void **state)
{
    (void)state;
    static const char text[] = " {\"a\\u00e9\":[1,-2.5e+3,true,{\"b\":\"\\ud83d\\ude00\xe2\x82\xac\"}],\"c\":null}";
    struct err err;
    assert_ok(json_check(text, sizeof text - 1, &loose, &err));
    for (size_t n = 0; n < sizeof text - 1; n++) {
        char *cut = malloc(n ? n : 1);
        memcpy(cut, text, n);
        assert_int_equal(json_check(cut, n, &loose, &err), ERR_DATA);
        free(cut);
    }
}

static bool is_refused_on_purpose(const char *name)
{
    static const char *const names[] = { "y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json", "y_string_null_escape.json",
                                         "y_object_escaped_null_in_key.json" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], name) == 0) return true;
    return false;
}

static void test_suite(void **state)
{
    (void)state;
    const char *found = shared_data("malformed/JSONTestSuite");
    if (!found) skip();
    char dir[4096];
    snprintf(dir, sizeof dir, "%s", found);
    unsigned n_yes = 0, n_no = 0, n_purpose = 0, n_either = 0;
    DIR *list = opendir(dir);
    assert_non_null(list);
    for (struct dirent *entry; (entry = readdir(list));) {
        const char *name = entry->d_name;
        if (!strstr(name, ".json")) continue;
        struct err err = { .code = OK };
        size_t nbytes;
        char *text = read_file(temp_path(dir, name), &nbytes);
        enum status status = json_check(text, nbytes, &loose, &err);
        bool purpose = is_refused_on_purpose(name);
        if (name[0] == 'n' || purpose) {
            if (status != ERR_DATA) fail_msg("%s accepted", name);
        } else if (name[0] == 'y' && status != OK) fail_msg("%s refused: %s", name, err.text);
        n_purpose += purpose;
        n_yes += name[0] == 'y' && !purpose;
        n_no += name[0] == 'n';
        n_either += name[0] == 'i';
        cJSON *tree;
        assert_int_equal(json_parse(text, nbytes, &loose, &tree, &err), status);
        cJSON_Delete(tree);
        free(text);
    }
    closedir(list);
    printf("JSONTestSuite: %u refused, %u accepted, %u refused on purpose, %u either way\n", n_no, n_yes, n_purpose, n_either);
    assert_int_equal(n_no, 188);
    assert_int_equal(n_yes + n_purpose, 95);
}

static void test_plain_integers(void **state)
{
    (void)state;
    static const char *const bad[] = { "-0", "-1", "16.0", "16e0", "1E1", "[0.0]" };
    struct err err;
    assert_ok(json_check("{\"a\":[0,18446744073709551616]}", 30, &strict, &err));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_refused(json_check(bad[i], strlen(bad[i]), &strict, &err), ERR_DATA, "plain integer");
}

static void test_limits(void **state)
{
    (void)state;
    struct err err;
    struct json_limits limits = { .max_depth = 3, .max_values = 4 };
    assert_ok(json_check("[[[0]]]", 7, &limits, &err));
    assert_refused(json_check("[[[[]]]]", 8, &limits, &err), ERR_DATA, "byte 3: nested too deeply");
    assert_refused(json_check("{\"a\":[[{}]]}", 12, &limits, &err), ERR_DATA, "nested too deeply");
    assert_ok(json_check("[0,0,0]", 7, &limits, &err));
    assert_refused(json_check("[0,0,0,0]", 9, &limits, &err), ERR_DATA, "more than 4 values");
    limits = (struct json_limits){ .max_depth = 1000000, .max_values = 1000000 };
    char *deep = malloc(4002);
    memset(deep, '[', 2001);
    memset(deep + 2001, ']', 2001);
    assert_ok(json_check(deep + 1001, 2000, &limits, &err));
    assert_refused(json_check(deep, 4002, &limits, &err), ERR_DATA, "nested too deeply");
    cJSON *tree;
    assert_ok(json_parse(deep + 1001, 2000, &limits, &tree, &err));
    cJSON_Delete(tree);
    free(deep);
}

/* ---- hostile sizes -------------------------------------------------------------------------------------------------------------- */

#define HOSTILE ((size_t)100000000)

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static long peak_kib(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

/* Fills HOSTILE bytes with prefix, then unit again and again. */
static char *hostile(const char *prefix, const char *unit)
{
    char *text = malloc(HOSTILE);
    size_t n = strlen(unit), used = strlen(prefix);
    memcpy(text, prefix, used);
    for (; used + n <= HOSTILE; used += n) memcpy(text + used, unit, n);
    memset(text + used, unit[0], HOSTILE - used);
    return text;
}

static enum status ignore_member(void *context, const char *key, size_t key_nbytes, const char *value, size_t value_nbytes, struct err *err)
{
    (void)key, (void)key_nbytes, (void)value, (void)value_nbytes, (void)err;
    ++*(size_t *)context;
    return OK;
}

static void test_hostile(void **state)
{
    (void)state;
    static const struct {
        const char *prefix, *unit, *part;
    } cases[] = {
        { "[", "0,0,", "values" },         { "[", "[],", "values" },
        { "[", "9", "1024 characters" },   { "[", "0", "leading zero" },
        { "[0.", "1", "1024 characters" }, { "", "[", "nested" },
        { "", "{\"a\":", "nested" },       { "\"", "a", "ends early" },
        { "\"", "\\n", "ends early" },     { "{\"", "\xc3\xa9", "UTF-8|early" },
        { "[", "\"\",", "values" },        { " ", " ", "ends early" },
        { "{\"a\":[", "{},", "values" },   { "{\"", "\\u0061", "hex|early" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text = hostile(cases[i].prefix, cases[i].unit);
        struct json_limits limits = { .max_depth = 16, .max_values = 1000000 };
        struct err err;
        size_t n_members = 0;
        long before = peak_kib();
        double start = seconds();
        enum status status = json_check(text, HOSTILE, &limits, &err);
        double check = seconds() - start;
        cJSON *tree;
        assert_int_equal(json_parse(text, HOSTILE, &limits, &tree, NULL), ERR_DATA);
        assert_int_equal(json_walk_object(text, HOSTILE, &limits, ignore_member, &n_members, NULL), ERR_DATA);
        printf("100 MB of %s%s: %.3f s, +%ld KiB: %s\n", cases[i].prefix, cases[i].unit, check, peak_kib() - before, err.text);
        assert_int_equal(status, ERR_DATA);
        assert_true(check < 2);
        free(text);
    }
}

/* 600 000 members as in a large safetensors header; one name given twice at the end on request. */
static struct text many_members(unsigned n, bool twice)
{
    struct text text = text_make(HOSTILE);
    text_add(&text, "{");
    for (unsigned i = 0; i < n; i++)
        text_add(&text, "%s\"model.layers.%u.mlp.experts.%u.down_proj.weight\":{\"dtype\":\"BF16\",\"shape\":[4096,1024],\"data_offsets\":[%u,%u]}",
                 i ? "," : "", i / 384, i % 384, i, i + 1);
    if (twice) text_add(&text, ",\"model.layers.0.mlp.experts.7.down_proj.weight\":{}");
    text_add(&text, "}");
    return text;
}

static void test_many_members(void **state)
{
    (void)state;
    struct err err;
    for (int twice = 0; twice < 2; twice++) {
        struct text text = many_members(600000, twice);
        assert_ok(text_ok(&text, "the header", &err));
        size_t n_members = 0;
        long before = peak_kib();
        double start = seconds();
        enum status status = json_walk_object(text.data, text.nbytes, &strict, ignore_member, &n_members, &err);
        double took = seconds() - start;
        printf("600000 members, %zu bytes: %.3f s, +%ld KiB, status %d\n", text.nbytes, took, peak_kib() - before, (int)status);
        assert_int_equal(n_members, 600000);
        assert_int_equal(status, twice ? ERR_DATA : OK);
        if (twice) assert_non_null(strstr(err.text, "duplicate key 'model.layers.0.mlp.experts.7.down_proj.weight'"));
        assert_true(took < 3);
        text_free(&text);
    }
}

/* Many objects opened and closed around each other: the key set must come back to what it was. */
static void test_key_set(void **state)
{
    (void)state;
    struct err err;
    struct text text = text_make(HOSTILE);
    text_add(&text, "{");
    for (unsigned i = 0; i < 3000; i++) {
        text_add(&text, "%s\"k%u\":{", i ? "," : "", i);
        for (unsigned j = 0; j < i % 200; j++) text_add(&text, "%s\"k%u\":{\"k%u\":%u}", j ? "," : "", j * 7, j, j);
        text_add(&text, "}");
    }
    text_add(&text, "}");
    struct json_limits limits = { .max_depth = 4, .max_values = 10000000 };
    assert_ok(json_check(text.data, text.nbytes, &limits, &err));
    text.data[text.nbytes - 1] = ',';
    text_add(&text, "\"k1234\":0}");
    assert_refused(json_check(text.data, text.nbytes, &limits, &err), ERR_DATA, "duplicate key 'k1234'");
    text_free(&text);
}

/* Keys chosen to share a slot would make the key set quadratic. */
static void test_colliding_keys(void **state)
{
    (void)state;
    struct err err;
    struct text text = text_make(HOSTILE);
    unsigned n_keys = 0;
    text_add(&text, "{");
    for (unsigned i = 0; n_keys < 400; i++) {
        char key[16];
        uint64_t mixed = digest64(key, (size_t)snprintf(key, sizeof key, "k%u", i)) ^ UINT64_C(0x9e3779b97f4a7c15);
        if (((mixed ^ mixed >> 32) & 1023) == 7) text_add(&text, "%s\"%s\":0", n_keys++ ? "," : "", key);
    }
    text_add(&text, "}");
    assert_refused(json_check(text.data, text.nbytes, &loose, &err), ERR_DATA, "collide");
    text_free(&text);
}

/* ---- walk ----------------------------------------------------------------------------------------------------------------------- */

struct seen {
    char keys[256];
    char values[256];
    unsigned stop_at;
    unsigned n;
};

static enum status see_member(void *context, const char *key, size_t key_nbytes, const char *value, size_t value_nbytes, struct err *err)
{
    struct seen *seen = context;
    assert_int_equal(strlen(key), key_nbytes);
    strcat(strcat(seen->keys, key), "|");
    strncat(seen->values, value, value_nbytes);
    strcat(seen->values, "|");
    if (++seen->n == seen->stop_at) return err_set(err, ERR_CANCELLED, "stopped");
    return OK;
}

static void test_walk(void **state)
{
    (void)state;
    static const char text[] = " { \"a\\n\\u00e9\" : [1, 2] , \"b\":{\"c\":1} ,\"\": \"x\\ty\" ,\"d\":-1.5e3 } ";
    struct err err;
    struct seen seen = { .n = 0 };
    assert_ok(json_walk_object(text, sizeof text - 1, &loose, see_member, &seen, &err));
    assert_string_equal(seen.keys, "a\n\xc3\xa9|b||d|");
    assert_string_equal(seen.values, "[1, 2]|{\"c\":1}|\"x\\ty\"|-1.5e3|");
    seen = (struct seen){ .stop_at = 2 };
    assert_refused(json_walk_object(text, sizeof text - 1, &loose, see_member, &seen, &err), ERR_CANCELLED, "stopped");
    assert_int_equal(seen.n, 2);
    seen = (struct seen){ .n = 0 };
    assert_ok(json_walk_object(" {} ", 4, &loose, see_member, &seen, &err));
    assert_refused(json_walk_object("[]", 2, &loose, see_member, &seen, &err), ERR_DATA, "an object expected");
    assert_refused(json_walk_object("", 0, &loose, see_member, &seen, &err), ERR_DATA, "ends early");
    assert_refused(json_walk_object("{} {}", 5, &loose, see_member, &seen, &err), ERR_DATA, "after the end");
    assert_int_equal(seen.n, 0);
    assert_refused(json_walk_object("{\"a\":01}", 8, &loose, see_member, &seen, &err), ERR_DATA, "leading zero");
    assert_int_equal(seen.n, 0);
    assert_refused(json_walk_object("{\"a\":1,\"\\u0061\":2}", 18, &loose, see_member, &seen, &err), ERR_DATA, "duplicate key 'a'");
    assert_int_equal(seen.n, 1);
}

static void test_walk_counts_per_member(void **state)
{
    (void)state;
    struct err err;
    size_t n = 0;
    struct json_limits limits = { .max_depth = 3, .max_values = 3 };
    assert_ok(json_walk_object("{\"a\":[1,2],\"b\":[1,2],\"c\":[[],[]]}", 33, &limits, ignore_member, &n, &err));
    assert_int_equal(n, 3);
    assert_refused(json_walk_object("{\"a\":[1,2],\"b\":[1,2,3]}", 23, &limits, ignore_member, &n, &err), ERR_DATA, "more than 3 values");
}

/* ---- tree ----------------------------------------------------------------------------------------------------------------------- */

static void test_tree(void **state)
{
    (void)state;
    static const char text[] = "{\"n\":9007199254740991,\"big\":9007199254740992,\"f\":1.5,\"s\":\"a\\u00e9\",\"neg\":-1,\"z\":0,\"N\":7}";
    struct err err;
    cJSON *tree;
    uint64_t n = 1;
    const char *s;
    assert_ok(json_parse(text, sizeof text - 1, &loose, &tree, &err));
    assert_ok(json_u64(json_get(tree, "n"), "n", &n, &err));
    assert_true(n == 9007199254740991u);
    assert_ok(json_u64(json_get(tree, "z"), "z", &n, &err));
    assert_true(n == 0);
    assert_ok(json_u64(json_get(tree, "N"), "N", &n, &err));
    assert_true(n == 7);
    assert_refused(json_u64(json_get(tree, "big"), "'big'", &n, &err), ERR_DATA, "'big' is 9007199254740992, not an integer");
    assert_refused(json_u64(json_get(tree, "f"), "'f'", &n, &err), ERR_DATA, "'f' is 1.5");
    assert_refused(json_u64(json_get(tree, "neg"), "'neg'", &n, &err), ERR_DATA, "'neg' is -1");
    assert_refused(json_u64(json_get(tree, "s"), "'s'", &n, &err), ERR_DATA, "'s' is not a number");
    assert_refused(json_u64(json_get(tree, "none"), "'none'", &n, &err), ERR_DATA, "'none' is missing");
    assert_ok(json_string(json_get(tree, "s"), "s", &s, &err));
    assert_string_equal(s, "a\xc3\xa9");
    assert_refused(json_string(json_get(tree, "z"), "'z'", &s, &err), ERR_DATA, "'z' is not a string");
    assert_refused(json_string(json_get(tree, "S"), "'S'", &s, &err), ERR_DATA, "'S' is missing");
    cJSON_Delete(tree);
    char digits[1100];
    for (unsigned length = 50; length <= 1024; length += 487) {
        memset(digits, '1', length);
        assert_ok(json_parse(digits, length, &loose, &tree, &err));
        assert_refused(json_u64(tree, "it", &n, &err), ERR_DATA, "not an integer");
        cJSON_Delete(tree);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples),
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_suite),
        cmocka_unit_test(test_plain_integers),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_many_members),
        cmocka_unit_test(test_key_set),
        cmocka_unit_test(test_colliding_keys),
        cmocka_unit_test(test_walk),
        cmocka_unit_test(test_walk_counts_per_member),
        cmocka_unit_test(test_tree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
