/* test_yaml.c: the YAML subset: what is taken, what is refused and how fast.
 *
 * Why this way: one table; a tree is compared through a one-line dump of it: maps {k:v}, sequences [a,b], scalars as they are, quoted ones in quotes.
 * Corner cases: everything libyaml takes and yaml.h does not, and the inputs on which libyaml itself is quadratic.
 * Reference: yaml.h.
 */
#include "support/support.h"

#include <time.h>

#include "base/text.h"
#include "base/yaml.h"

static void dump(const struct yaml_node *node, struct text *out)
{
    if (node->key) text_add(out, "%s:", node->key);
    if (node->kind == YAML_SCALAR_VALUE) text_add(out, node->quoted ? "\"%s\"" : "%s", node->value);
    else {
        text_add(out, node->kind == YAML_MAP ? "{" : "[");
        for (size_t i = 0; i < node->n_items; i++) {
            if (i) text_add(out, ",");
            dump(node->items[i], out);
        }
        text_add(out, node->kind == YAML_MAP ? "}" : "]");
    }
}

struct sample {
    const char *text;
    size_t nbytes;
    const char *wanted; /* the dump, or a part of the sentence */
    bool good;
};

#define GOOD(text, dumped)                                                                                                                           \
    {                                                                                                                                                \
        text, sizeof(text) - 1, dumped, true                                                                                                         \
    }
#define BAD(text, part)                                                                                                                              \
    {                                                                                                                                                \
        text, sizeof(text) - 1, part, false                                                                                                          \
    }

static const struct sample samples[] = {
    GOOD("", "{}"),
    GOOD("# only a comment\n\n", "{}"),
    GOOD("---\n", "{}"),
    GOOD("---\n...\n", "{}"),
    GOOD("a: 1\n", "{a:1}"),
    GOOD("a: 1", "{a:1}"),
    GOOD("a: 1\r\nb: 2\r\n", "{a:1,b:2}"),
    GOOD("---\na: 1\n...\n", "{a:1}"),
    GOOD("\xef\xbb\xbf"
         "a: 1\n",
         "{a:1}"),
    GOOD("a: '1'\nb: \"x\\ty\"\nc: |\n  two\n  lines\nd: >\n  one\n  line\n", "{a:\"1\",b:\"x\ty\",c:\"two\nlines\n\",d:\"one line\n\"}"),
    GOOD("rules:\n  - match: \"*.down_proj.*\"\n", "{rules:[{match:\"*.down_proj.*\"}]}"),
    GOOD("a: [1, 2, {b: c}]\n", "{a:[1,2,{b:c}]}"),
    GOOD("a: {b: {c: {}}}\n", "{a:{b:{c:{}}}}"),
    GOOD("a:\n- 1\n- 2\n", "{a:[1,2]}"),
    GOOD("a:\nb: ~\nc: null\nd: yes\ne: 0x10\n", "{a:,b:~,c:null,d:yes,e:0x10}"),
    GOOD("- a\n- b\n", "[a,b]"),
    GOOD("just text\n", "just text"),
    GOOD("'': 1\n", "{:1}"),
    GOOD("'a b': 1\n1: 2\n", "{a b:1,1:2}"),
    GOOD("\xc3\xa9: \xe2\x82\xac\n", "{\xc3\xa9:\xe2\x82\xac}"),
    GOOD("a: 50% # not a directive\n", "{a:50%}"),
    GOOD("a: x&y\nb: x*y\nc: x!y\n", "{a:x&y,b:x*y,c:x!y}"),
    GOOD("a: '&x'\nb: '*x'\nc: '!x'\n", "{a:\"&x\",b:\"*x\",c:\"!x\"}"),
    GOOD("a: {x: 1}\nb: {x: 1}\n", "{a:{x:1},b:{x:1}}"),
    GOOD("? a\n: 1\n", "{a:1}"),
    GOOD("[[[[[[[[[[[[[[[[x]]]]]]]]]]]]]]]]", "[[[[[[[[[[[[[[[[x]]]]]]]]]]]]]]]]"),
    BAD("[[[[[[[[[[[[[[[[[x]]]]]]]]]]]]]]]]]", "t.yaml:1: nested more than 16 deep"),
    BAD("a:\n  b: &x 1\n", "t.yaml:2: key 'b': anchors (&)"),
    BAD("a: &x [1]\n", "key 'a': anchors"),
    BAD("a: &x {b: 1}\n", "anchors"),
    BAD("&x a: 1\n", "anchors"),
    BAD("&a [*a]\n", "anchors"),
    BAD("a: *x\n", "t.yaml:1: key 'a': aliases (*)"),
    BAD("- *x\n", "aliases"),
    BAD("*x : 1\n", "aliases"),
    BAD("a: !!str 1\n", "key 'a': tags (!)"),
    BAD("a: !x {b: 1}\n", "tags"),
    BAD("a: ! [1]\n", "tags"),
    BAD("!!map {a: 1}\n", "tags"),
    BAD("!x a: 1\n", "tags"),
    BAD("<<: {a: 1}\n", "merge keys (<<)"),
    BAD("a:\n  <<: b\n", "t.yaml:2: key 'a': merge keys"),
    BAD("'<<': 1\n", "merge keys"),
    BAD("a: 1\n---\nb: 2\n", "t.yaml:2: a second document"),
    BAD("a: 1\n...\n---\n", "a second document"),
    BAD("---\n---\n", "a second document"),
    BAD("a: 1\nb: 2\na: 3\n", "t.yaml:3: key 'a': this key is there already"),
    BAD("x:\n  a: 1\n  'a': 2\n", "t.yaml:3: key 'a': this key"),
    BAD("{a: 1, b: 2, \"\\x61\": 3}", "key 'a': this key"),
    BAD("- {k: 1, k: 1}\n", "key 'k': this key"),
    BAD("b: 1\nb: 2\na: 1\na: 2\n", "t.yaml:2: key 'b': this key"),
    BAD("'': 1\n'': 2\n", "key '': this key"),
    BAD("a: \"x\\0y\"\n", "key 'a': NUL"),
    BAD("\"a\\0\": 1\n", "NUL"),
    BAD("a: x\0y\n", "t.yaml:1: control characters are not allowed"),
    BAD("a: 1\nb: \x01\n", "t.yaml:2: control characters"),
    BAD("? [a]\n: 1\n", "a key that is a map or a sequence"),
    BAD("{[a]: 1}", "a key that is"),
    BAD("? {a: 1}\n: 1\n", "a key that is"),
    BAD("%YAML 1.1\n---\na: 1\n", "t.yaml:1: a line that begins with %"),
    BAD("a: 1\n%TAG ! x\n", "t.yaml:2: a line that begins with %"),
    BAD("a: \xff\n", "t.yaml:1: invalid"),
    BAD("a: 1\nb: \xc3(\n", "t.yaml:2: invalid"),
    BAD("\xff\xfe"
        "a\0:\0",
        "t.yaml:1: "),
    BAD("a: [1, 2\n", "t.yaml:2: did not find expected ',' or ']'"),
    BAD("a: {b: 1\n", "did not find expected ',' or '}'"),
    BAD("a: 'x\n", "unexpected end of stream"),
    BAD("a: 1\n b: 2\n", "t.yaml:2: mapping values are not allowed"),
    BAD("a: b: c\n", "mapping values are not allowed"),
    BAD("\ta: 1\n", "cannot start any token"),
    BAD("a: 1\nnonsense\n", "could not find expected ':'"),
    BAD("a: @x\n", "cannot start any token"),
    BAD("a: \"\\q\"\n", "unknown escape"),
    BAD("]\n", "t.yaml:1: did not find expected"),
};

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

#if defined(__SANITIZE_ADDRESS__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define IS_SANITIZED 1
#endif
#endif
#ifdef IS_SANITIZED
#define SECONDS_MAX 1.0
#else
#define SECONDS_MAX 0.05
#endif

/* Parses text and gives the best time of five, so that a busy machine does not decide. */
static double time_of(const char *text, size_t n, struct err *err)
{
    double best = 1e9;
    for (int i = 0; i < 5 && best > SECONDS_MAX; i++) {
        struct yaml_doc *doc;
        double start = seconds();
        yaml_parse(text, n, "t", &doc, err);
        double took = seconds() - start;
        if (took < best) best = took;
        yaml_close(doc);
    }
    return best;
}

static void check_sample(const struct sample *sample)
{
    struct err err = { .code = OK };
    struct yaml_doc *doc;
    char *exact = malloc(sample->nbytes ? sample->nbytes : 1);
    memcpy(exact, sample->text, sample->nbytes);
    enum status status = yaml_parse(exact, sample->nbytes, "t.yaml", &doc, &err);
    if (sample->good) {
        if (status != OK) fail_msg("'%s': %s", sample->text, err.text);
        struct text out = text_make(10000);
        dump(doc->root, &out);
        assert_string_equal(out.data, sample->wanted);
        text_free(&out);
    } else {
        if (status != ERR_DATA || !strstr(err.text, sample->wanted))
            fail_msg("'%s': status %d '%s' lacks '%s'", sample->text, (int)status, err.text, sample->wanted);
        assert_null(doc);
        assert_int_equal(yaml_parse(exact, sample->nbytes, "t.yaml", &doc, NULL), ERR_DATA);
    }
    yaml_close(doc);
    free(exact);
}

static void test_samples(void **state)
{
    (void)state;
    double longest = 0;
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        check_sample(&samples[i]);
        double took = time_of(samples[i].text, samples[i].nbytes, NULL);
        if (took > longest) longest = took;
    }
    printf("%zu crafted texts, the slowest %.4f s\n", sizeof samples / sizeof samples[0], longest);
    assert_true(longest < SECONDS_MAX);
}

/* 1 MiB of each: refused or read in a time that grows with its length, not with its square: four times the text may take eight times as long, where it
 * takes so long at all that a clock tells. */
static void test_hostile(void **state)
{
    (void)state;
    static const char *const units[] = { "[",
                                         "{",
                                         "&a ",
                                         "&a\n",
                                         "- ",
                                         "? ",
                                         "*a ",
                                         "%TAG !a! b\n",
                                         "!!a ",
                                         "---\n",
                                         "a",
                                         "a ",
                                         "\"",
                                         "'",
                                         "a: ",
                                         "a: b\n",
                                         "[],",
                                         "#",
                                         "\n",
                                         "\xc3\xa9",
                                         "- a\n",
                                         "\xff",
                                         " ",
                                         "|\n",
                                         "- [[[[[[[[[[[[[[]]]]]]]]]]]]]]\n",
                                         "\"\\x41",
                                         "a: &a",
                                         "[a, ",
                                         "{a: ",
                                         "- - - - " };
    size_t n = 1 << 20;
    char *text = malloc(n);
    for (int inside = 0; inside < 3; inside++) /* bare, in a sequence, in quotes */
        for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
            size_t unit = strlen(units[i]);
            for (size_t at = 0; at < n; at++) text[at] = units[i][at % unit];
            if (inside) text[0] = inside == 1 ? '[' : '"';
            struct err err = { .code = OK };
            double took = time_of(text, n, &err);
            char name[40];
            printf("%d %s: %.4f s %s\n", inside, err_name(units[i], unit, name, sizeof name), took, err.text);
            if (took <= SECONDS_MAX) continue;
            const double quarter = time_of(text, n / 4, NULL);
            if (took > 8 * quarter) fail_msg("%s took %.3f s, a quarter of it %.3f s", units[i], took, quarter);
        }
    free(text);
}

static void test_many_nodes(void **state)
{
    (void)state;
    struct err err;
    struct yaml_doc *doc;
    struct text text = text_make(1 << 20);
    text_add(&text, "list: [");
    for (unsigned i = 0; i < 998; i++) text_add(&text, "%x, ", i);
    text_add(&text, "x]\n");
    for (unsigned i = 0; i < 49499; i++) text_add(&text, "%x: \n", i);
    double start = seconds();
    assert_ok(yaml_parse(text.data, text.nbytes, "t", &doc, &err));
    printf("100000 nodes: %.4f s\n", seconds() - start);
    assert_int_equal(doc->root->n_items, 49500);
    assert_string_equal(yaml_get(doc->root, "c15a")->key, "c15a");
    assert_int_equal(yaml_get(doc->root, "c15a")->line, 0xc15a + 2);
    yaml_close(doc);
    text_add(&text, "x: \n");
    assert_refused(yaml_parse(text.data, text.nbytes, "t", &doc, &err), ERR_DATA, "more than 100000 keys and values");
    text_free(&text);
}

static void test_open(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct err err;
    struct yaml_doc *doc;
    const char *path = temp_path(dir, "r.yaml");
    write_file(path, "a: 1\nb: [x]\n", 12);
    assert_ok(yaml_open(&io_system, path, &doc, &err));
    assert_string_equal(doc->path, path);
    assert_string_equal(yaml_get(doc->root, "a")->value, "1");
    assert_int_equal(yaml_get(doc->root, "b")->line, 2);
    assert_null(yaml_get(doc->root, "c"));
    assert_null(yaml_get(yaml_get(doc->root, "a"), "c"));
    assert_null(yaml_get(NULL, "c"));
    yaml_close(doc);
    assert_refused(yaml_open(&io_system, temp_path(dir, "none"), &doc, &err), ERR_IO, "No such file");
    assert_null(doc);
    char *big = calloc(1, (1 << 20) + 1);
    memset(big, '#', (1 << 20) + 1);
    write_file(path, big, 1 << 20);
    assert_ok(yaml_open(&io_system, path, &doc, &err));
    yaml_close(doc);
    write_file(path, big, (1 << 20) + 1);
    assert_refused(yaml_open(&io_system, path, &doc, &err), ERR_DATA, "more than the limit of 1048576");
    assert_refused(yaml_parse(big, (1 << 20) + 1, "t", &doc, &err), ERR_DATA, "more than the limit of 1048576");
    free(big);
    temp_dir_remove(dir);
}

static void test_readers(void **state)
{
    (void)state;
    static const char text[] = "a: true\nb: false\nc: 'true'\nd: yes\ne: [1]\nf: {x: 1}\n";
    static const char *const all[] = { "a", "b", "c", "d", "e", "f", NULL };
    static const char *const some[] = { "a", "b", "c", "d", "e", NULL };
    static const char *const none[] = { NULL };
    struct err err;
    struct yaml_doc *doc;
    bool value = false;
    assert_ok(yaml_parse(text, sizeof text - 1, "t\n.yaml", &doc, &err));
    const struct yaml_node *root = doc->root;
    assert_ok(yaml_bool(doc, yaml_get(root, "a"), &value, &err));
    assert_true(value);
    assert_ok(yaml_bool(doc, yaml_get(root, "b"), &value, &err));
    assert_false(value);
    assert_refused(yaml_bool(doc, yaml_get(root, "c"), &value, &err), ERR_DATA, "t\\x0a.yaml:3: key 'c': true or false is wanted");
    assert_refused(yaml_bool(doc, yaml_get(root, "d"), &value, &err), ERR_DATA, "true or false is wanted");
    assert_refused(yaml_bool(doc, yaml_get(root, "e"), &value, &err), ERR_DATA, "a single value is wanted, this is a sequence");
    assert_refused(yaml_bool(doc, NULL, &value, &err), ERR_DATA, "a single value is missing");
    assert_ok(yaml_check_keys(doc, root, all, &err));
    assert_refused(yaml_check_keys(doc, root, some, &err), ERR_DATA, ":6: key 'f': unknown; known here: a, b, c, d, e");
    assert_refused(yaml_check_keys(doc, root, none, &err), ERR_DATA, ":1: key 'a': unknown");
    assert_refused(yaml_check_keys(doc, yaml_get(root, "e"), all, &err), ERR_DATA, ":5: key 'e': a map (key: value) is wanted, this is a sequence");
    assert_ok(yaml_expect(doc, yaml_get(root, "e"), YAML_SEQUENCE, &err));
    assert_refused(yaml_expect(doc, yaml_get(root, "e")->items[0], YAML_MAP, &err), ERR_DATA, ":5: a map");
    assert_refused(yaml_error(doc, yaml_get(root, "a"), &err, "%d of %s", 5, "it"), ERR_DATA, ":1: key 'a': 5 of it");
    yaml_close(doc);
    yaml_close(NULL);
}

/* Every beginning of a valid text is read or refused, without a report of the sanitizers. */
static void test_every_cut(void **state)
{
    (void)state;
    static const char text[] = "a: [1, {b: 'c'}]\nd:\n  - |\n    x\n  - ? e\n    : \"\\x41\"\n";
    for (size_t n = 0; n < sizeof text; n++) {
        struct yaml_doc *doc;
        char *cut = malloc(n ? n : 1);
        memcpy(cut, text, n);
        yaml_parse(cut, n, "t", &doc, NULL);
        yaml_close(doc);
        free(cut);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples), cmocka_unit_test(test_hostile), cmocka_unit_test(test_many_nodes),
        cmocka_unit_test(test_open),    cmocka_unit_test(test_readers), cmocka_unit_test(test_every_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
