/* test_tokens.c: files of ids and texts as documents, and every way to refuse them.
 *
 * Formula: a row is a file's bytes and the documents it holds, written "1 2|3".
 * Why this way: rows by hand; .npy files are built here as NumPy's NEP 1 draws them.
 * Corner cases: blanks of all kinds, no last line feed, pieces of a file that end in a number, empty files, ids over the vocabulary, shapes that lie.
 * Reference: tokens.h. Worked number: the lines "1 2 3" and "4": ids 1 2 3 4, starts 0 3 4.
 */
#include "support/support.h"

#include "smoothquant/tokens.h"

static struct err err;
static char *dir;

static int make_dir(void **state)
{
    (void)state;
    dir = temp_dir();
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    temp_dir_remove(dir);
    return 0;
}

/* Documents as text. */
static const char *shown_docs(const struct token_docs *docs)
{
    static char out[1024];
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < docs->n_docs; i++)
        for (uint64_t j = docs->starts[i]; j < docs->starts[i + 1]; j++)
            used += (size_t)snprintf(out + used, sizeof out - used, "%s%d", j == docs->starts[i] ? (i ? "|" : "") : " ", (int)docs->ids[j]);
    return out;
}

static enum status read_ids(const void *bytes, size_t n, uint32_t vocab, struct token_docs *docs)
{
    const char *path = temp_path(dir, "ids");
    write_file(path, bytes, n);
    err.text[0] = '\0';
    enum status status = tokens_read_ids(&io_system, path, vocab, docs, &err);
    if (strchr(err.text, '\n')) fail_msg("'%s' has two lines", err.text);
    if (status != OK) assert_true(docs->ids == NULL && docs->starts == NULL && docs->nbytes == NULL && docs->n_docs == 0);
    return status;
}

static const struct {
    const char *text;
    uint32_t vocab;
    const char *docs; /* or NULL: refused with part */
    const char *part;
} rows[] = {
    { "1 2 3\n4\n", 0, "1 2 3|4", NULL },
    { "1 2 3\n4", 5, "1 2 3|4", NULL },
    { "  1\t2 \r\n\n\n 3\r\n", 0, "1 2|3", NULL },
    { "0 007 2147483647", 0, "0 7 2147483647", NULL },
    { "1\n2\n3\n", 4, "1|2|3", NULL },
    { "", 0, NULL, "has no token ids" },
    { " \n\n", 0, NULL, "has no token ids" },
    { "1 2\n3 x\n", 0, NULL, "', line 2, column 3: ids are decimal digits divided by blanks" },
    { "1 -2\n", 0, NULL, "line 1, column 3" },
    { "1,2\n", 0, NULL, "line 1, column 2" },
    { "1.0\n", 0, NULL, "line 1, column 2" },
    { "+1", 0, NULL, "line 1, column 1" },
    { "0x1", 0, NULL, "line 1, column 2" },
    { "\xef\xbb\xbf"
      "1",
      0, NULL, "line 1, column 1" },
    { "1\n2 3 99\n", 99, NULL, "line 2, column 5: token 99 is not below the vocabulary's 99" },
    { "2147483648", 0, NULL, "line 1, column 1: a token id is below 2^31" },
    { "1\n\n 99999999999999999999999999", 0, NULL, "line 3, column 2: a token id is below 2^31" },
    { "{\"a\":1}", 0, NULL, "line 1, column 1" },
};

static void test_ids(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct token_docs docs;
        const enum status status = read_ids(rows[i].text, strlen(rows[i].text), rows[i].vocab, &docs);
        if (rows[i].docs) {
            if (status != OK || strcmp(shown_docs(&docs), rows[i].docs) != 0) fail_msg("row %zu: status %d, %s", i, (int)status, err.text);
            for (size_t j = 0; j < docs.n_docs; j++) assert_int_equal(docs.nbytes[j], 0);
            tokens_free(&docs);
        } else if (status != ERR_DATA || !strstr(err.text, rows[i].part)) {
            fail_msg("row %zu: status %d, '%s'", i, (int)status, err.text);
        }
    }
    struct token_docs docs;
    assert_refused(read_ids("1\0002", 3, 0, &docs), ERR_DATA, "line 1, column 2");
    assert_refused(tokens_read_ids(&io_system, temp_path(dir, "nothing"), 0, &docs, &err), ERR_IO, "nothing");
    assert_refused(tokens_read_ids(&io_system, dir, 0, &docs, &err), ERR_UNSUPPORTED, "directory");
    tokens_free(NULL);
}

/* More than two pieces of the reader, with numbers across their bounds. */
static void test_large(void **state)
{
    const size_t n = 400000;
    char *text = malloc(n * 8);
    size_t used = 0;
    struct token_docs docs;
    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < n; i++) used += (size_t)sprintf(text + used, "%zu%c", 100000 + i, i % 1000 == 999 ? '\n' : ' ');
    assert_ok(read_ids(text, used, 0, &docs));
    assert_int_equal(docs.n_docs, n / 1000);
    for (size_t i = 0; i < n; i++) assert_int_equal(docs.ids[i], 100000 + i);
    for (size_t i = 0; i <= docs.n_docs; i++) assert_int_equal(docs.starts[i], i * 1000);
    tokens_free(&docs);
    free(text);
}

/* ---- .npy ------------------------------------------------------------------------------------------------------------------------- */

static size_t build_npy(uint8_t *out, unsigned version, const char *header, const int64_t *ids, size_t n, unsigned nbytes)
{
    const size_t n_header = strlen(header), n_length = version == 1 ? 2 : 4;
    memcpy(out, "\x93NUMPY", 6);
    out[6] = (uint8_t)version;
    out[7] = 0;
    for (size_t i = 0; i < n_length; i++) out[8 + i] = (uint8_t)(n_header >> (8 * i) & 255);
    memcpy(out + 8 + n_length, header, n_header);
    size_t at = 8 + n_length + n_header;
    for (size_t i = 0; i < n; i++)
        for (unsigned j = 0; j < nbytes; j++) out[at++] = (uint8_t)((uint64_t)ids[i] >> (8 * j) & 255);
    return at;
}

#define HEADER(descr, order, shape) "{'descr': '" descr "', 'fortran_order': " order ", 'shape': " shape ", }         \n"

static const struct {
    unsigned version;
    const char *header;
    unsigned n, nbytes;
    const char *docs; /* or NULL: refused */
    enum status status;
    const char *part;
} npys[] = {
    { 1, HEADER("<i4", "False", "(2, 3)"), 6, 4, "1 2 3|4 5 6", OK, NULL },
    { 2, HEADER("<i8", "False", "(2, 3)"), 6, 8, "1 2 3|4 5 6", OK, NULL },
    { 3, HEADER("<i8", "False", "(6,)"), 6, 8, "1 2 3 4 5 6", OK, NULL },
    { 1, HEADER("<u2", "False", "(3, 2)"), 6, 2, "1 2|3 4|5 6", OK, NULL },
    { 1, HEADER("<u4", "True", "(4,)"), 4, 4, "1 2 3 4", OK, NULL },
    { 1, "{\"shape\":(1,2),\"descr\":\"<i4\",\"fortran_order\":False}", 2, 4, "1 2", OK, NULL },
    { 1, HEADER("<i4", "False", "(0,)"), 0, 4, NULL, ERR_DATA, "has no token ids" },
    { 1, HEADER("<i4", "False", "(3, 0)"), 0, 4, NULL, ERR_DATA, "has no token ids" },
    { 1, HEADER(">i4", "False", "(2, 3)"), 6, 4, NULL, ERR_UNSUPPORTED, "its numbers are '>i4'" },
    { 1, HEADER("<f4", "False", "(2, 3)"), 6, 4, NULL, ERR_UNSUPPORTED, "its numbers are '<f4'" },
    { 1, HEADER("<i4", "True", "(2, 3)"), 6, 4, NULL, ERR_UNSUPPORTED, "Fortran's order" },
    { 1, HEADER("<i4", "False", "(1, 2, 3)"), 6, 4, NULL, ERR_UNSUPPORTED, "it has 3 axes" },
    { 1, HEADER("<i4", "False", "()"), 1, 4, NULL, ERR_UNSUPPORTED, "it has 0 axes" },
    { 1, HEADER("<i4", "False", "(2, 4)"), 6, 4, NULL, ERR_DATA, "does not fit its 24 bytes" },
    { 1, HEADER("<i4", "False", "(2, 2)"), 6, 4, NULL, ERR_DATA, "does not fit" },
    { 1, HEADER("<i4", "False", "(4294967296, 4294967296)"), 6, 4, NULL, ERR_DATA, "does not fit" },
    { 1, HEADER("<i4", "False", "(99999999999999999999999,)"), 6, 4, NULL, ERR_DATA, "header is malformed" },
    { 1, HEADER("<i4", "Maybe", "(6,)"), 6, 4, NULL, ERR_DATA, "header is malformed" },
    { 1, "{'descr': '<i4', 'shape': (6,)}", 6, 4, NULL, ERR_DATA, "header is malformed" },
    { 1, "{'descr': '<i4', 'descr': '<i4', 'fortran_order': False, 'shape': (6,)}", 6, 4, NULL, ERR_DATA, "header is malformed" },
    { 1, "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (6,)}", 6, 4, NULL, ERR_DATA, "header is malformed" },
    { 1, HEADER("<i4", "False", "(6,"), 6, 4, NULL, ERR_DATA, "header is malformed" },
    { 4, HEADER("<i4", "False", "(6,)"), 6, 4, NULL, ERR_UNSUPPORTED, ".npy version is 4.0" },
};

static void test_npy(void **state)
{
    static const int64_t ids[] = { 1, 2, 3, 4, 5, 6 };
    uint8_t bytes[512];
    struct token_docs docs;
    (void)state;
    for (size_t i = 0; i < sizeof npys / sizeof npys[0]; i++) {
        const size_t n = build_npy(bytes, npys[i].version, npys[i].header, ids, npys[i].n, npys[i].nbytes);
        const enum status status = read_ids(bytes, n, 7, &docs);
        if (status != npys[i].status || (npys[i].part && !strstr(err.text, npys[i].part)))
            fail_msg("row %zu: status %d, '%s'", i, (int)status, err.text);
        if (status != OK) continue;
        assert_string_equal(shown_docs(&docs), npys[i].docs);
        tokens_free(&docs);
    }
}

static void test_npy_values(void **state)
{
    static const int64_t over[] = { 1, 7, 2 }, negative[] = { 1, 2, -1 }, large[] = { 1, INT64_C(1) << 33, 2 };
    uint8_t bytes[512];
    struct token_docs docs;
    (void)state;
    assert_refused(read_ids(bytes, build_npy(bytes, 1, HEADER("<i4", "False", "(3,)"), over, 3, 4), 7, &docs), ERR_DATA,
                   "its number 1 is not below the size");
    assert_refused(read_ids(bytes, build_npy(bytes, 1, HEADER("<i4", "False", "(3,)"), negative, 3, 4), 7, &docs), ERR_DATA,
                   "its number 2 is negative");
    assert_refused(read_ids(bytes, build_npy(bytes, 1, HEADER("<i8", "False", "(3,)"), negative, 3, 8), 0, &docs), ERR_DATA,
                   "its number 2 is negative");
    assert_refused(read_ids(bytes, build_npy(bytes, 1, HEADER("<i8", "False", "(3,)"), large, 3, 8), 0, &docs), ERR_DATA,
                   "its number 1 is not below 2^31");
    assert_refused(read_ids(bytes, build_npy(bytes, 1, HEADER("<u4", "False", "(3,)"), negative, 3, 4), 0, &docs), ERR_DATA,
                   "its number 2 is not below 2^31");
}

static void test_npy_cut(void **state)
{
    static const int64_t ids[] = { 1, 2, 3, 4, 5, 6 };
    uint8_t bytes[512];
    struct token_docs docs;
    uint64_t seed = 9;
    const size_t n = build_npy(bytes, 1, HEADER("<i4", "False", "(2, 3)"), ids, 6, 4);
    (void)state;
    for (size_t i = 0; i < n; i++) assert_int_not_equal(read_ids(bytes, i, 0, &docs), OK);
    for (size_t i = 6; i < n; i++) {
        const uint8_t before = bytes[i];
        bytes[i] = (uint8_t)test_random(&seed);
        if (read_ids(bytes, n, 0, &docs) == OK) tokens_free(&docs);
        bytes[i] = before;
    }
}

/* ---- texts ------------------------------------------------------------------------------------------------------------------------ */

static struct tokenizer *open_abc(void)
{
    static const char json[] =
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\" \":2,\"ab\":3,\"\\n\":4,\"\xc3\xa9\":5},\"merges\":[\"a b\"]},"
        "\"added_tokens\":[{\"id\":9,\"content\":\"<s>\"}]}";
    static const char config[] = "{\"add_bos_token\":true,\"bos_token\":\"<s>\"}";
    struct tokenizer_files files = { .tokenizer = { json, sizeof json - 1 }, .tokenizer_config = { config, sizeof config - 1 } };
    struct tokenizer *tokenizer = NULL;
    assert_ok(tokenizer_open_json(&files, &tokenizer, &err));
    return tokenizer;
}

static const struct {
    const char *name, *text, *docs;
    uint64_t nbytes[2];
    const char *part; /* of the refusal */
} texts[] = {
    { "a.txt", "ab a\nb", "9 3 2 0 4 1", { 6, 0 }, NULL },
    { "a", "ab<s>a", "9 3 9 0", { 6, 0 }, NULL },
    { "a.txt", "", NULL, { 0, 0 }, "has no text" },
    { "a.txt", "ab\xff", NULL, { 0, 0 }, "a.txt': byte 2: no valid UTF-8" },
    { "a.txt", "abz", NULL, { 0, 0 }, "no token for U+007A" },
    { "a.jsonl", "\"ab\"\n\n{\"text\": \"\\u00e9b\", \"id\": 3}\n", "9 3|9 5 1", { 2, 3 }, NULL },
    { "a.ndjson", "\"ab\"", "9 3", { 2, 0 }, NULL },
    { "a.jsonl", "\"ab\"\r\n\"\"\n", "9 3", { 2, 0 }, NULL },
    { "a.jsonl", "\"ab\"\n7\n", NULL, { 0, 0 }, "line 2: neither a string nor an object with a \"text\"" },
    { "a.jsonl", "\"ab\"\n\"a\n", NULL, { 0, 0 }, "line 2: byte 2" },
    { "a.json", "[\"ab\", {\"text\": \"a\"}]", "9 3|9 0", { 2, 1 }, NULL },
    { "a.json", " [ \"a\\nb\" ]\n", "9 0 4 1", { 3, 0 }, NULL },
    { "a.json", "[]", NULL, { 0, 0 }, "has no text" },
    { "a.json", "{\"text\": \"a\"}", NULL, { 0, 0 }, "it is not an array of texts" },
    { "a.json", "[\"a\", [\"b\"]]", NULL, { 0, 0 }, "item 1: neither a string" },
    { "a.json", "[\"a\"", NULL, { 0, 0 }, "byte 4" },
};

static void test_texts(void **state)
{
    struct tokenizer *tokenizer = open_abc();
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const char *path = temp_path(dir, texts[i].name);
        struct token_docs docs;
        write_file(path, texts[i].text, strlen(texts[i].text));
        err.text[0] = '\0';
        const enum status status = tokens_read_text(&io_system, path, tokenizer, &docs, &err);
        if (!texts[i].docs) {
            if (status != ERR_DATA || !strstr(err.text, texts[i].part)) fail_msg("row %zu: status %d, '%s'", i, (int)status, err.text);
            continue;
        }
        if (status != OK || strcmp(shown_docs(&docs), texts[i].docs) != 0) fail_msg("row %zu: status %d, %s", i, (int)status, err.text);
        for (size_t j = 0; j < docs.n_docs && j < 2; j++) assert_int_equal(docs.nbytes[j], texts[i].nbytes[j]);
        tokens_free(&docs);
    }
    struct token_docs docs;
    assert_refused(tokens_read_text(&io_system, temp_path(dir, "nothing"), tokenizer, &docs, &err), ERR_IO, "nothing");
    tokenizer_close(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids),        cmocka_unit_test(test_large),   cmocka_unit_test(test_npy),
        cmocka_unit_test(test_npy_values), cmocka_unit_test(test_npy_cut), cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
