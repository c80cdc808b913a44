/* test_tokenizer.c: tokenizer.json: the oracle's ids, what begins a text, pieces, long words, and what is refused.
 *
 * Formula: tests/golden/tokenizers.json holds tokenizers and the ids of texts that tests/tokenizer_oracle.py makes of them.
 * Why this way: the oracle cuts words without patterns and merges by looking at every pair; equal ids are no accident.
 * Corner cases: texts that are no UTF-8; characters without a token; files cut at every byte and with every byte changed; many threads.
 * Reference: header of tests/tokenizer_oracle.py. Worked number: merges "a b", "ab c": "abcab" is abc, ab.
 */
#include "support/support.h"

#include <cjson/cJSON.h>
#include <pthread.h>

#include "container/container.h"
#include "smoothquant/tokenizer.h"

static struct err err;
static char *golden_text;
static cJSON *golden;

static int open_golden(void **state)
{
    size_t n;
    (void)state;
    golden_text = read_file(tests_path("golden/tokenizers.json"), &n);
    golden = cJSON_Parse(golden_text);
    return golden ? 0 : -1;
}

static int close_golden(void **state)
{
    (void)state;
    cJSON_Delete(golden);
    free(golden_text);
    return 0;
}

/* A copy of the exact size, so that a sanitizer sees an over-read. */
static struct tokenizer_file file_of(const char *text, size_t n)
{
    char *copy = malloc(n + !n);
    assert_non_null(copy);
    if (n) memcpy(copy, text, n);
    return (struct tokenizer_file){ copy, n };
}

static enum status open_text(const char *json, const char *tokenizer_config, const char *config, struct tokenizer **out)
{
    struct tokenizer_files files = { .tokenizer = file_of(json, strlen(json)) };
    if (tokenizer_config) files.tokenizer_config = file_of(tokenizer_config, strlen(tokenizer_config));
    if (config) files.config = file_of(config, strlen(config));
    err.text[0] = '\0';
    enum status status = tokenizer_open_json(&files, out, &err);
    if ((status == OK) != (*out != NULL) || (status == OK) != (err.text[0] == '\0')) fail_msg("status %d, sentence '%s'", (int)status, err.text);
    if (strchr(err.text, '\n')) fail_msg("'%s' has two lines", err.text);
    free((void *)(uintptr_t)files.tokenizer.text);
    free((void *)(uintptr_t)files.tokenizer_config.text);
    free((void *)(uintptr_t)files.config.text);
    return status;
}

static void check_ids(const struct tokenizer *tokenizer, const char *name, const char *text, const cJSON *wanted)
{
    int32_t *ids = NULL;
    size_t n_ids = 0, i = 0;
    const cJSON *id;
    struct tokenizer_file copy = file_of(text, strlen(text));
    if (tokenizer_encode(tokenizer, copy.text, copy.nbytes, true, &ids, &n_ids, &err) != OK) fail_msg("%s, '%s': %s", name, text, err.text);
    cJSON_ArrayForEach(id, wanted)
    {
        if (i >= n_ids || ids[i] != id->valueint) fail_msg("%s, '%s': id %zu is %d, not %d", name, text, i, i < n_ids ? ids[i] : -1, id->valueint);
        i++;
    }
    if (i != n_ids) fail_msg("%s, '%s': %zu ids, not %zu", name, text, n_ids, i);
    free(ids);
    free((void *)(uintptr_t)copy.text);
}

static void check_case(const cJSON *item)
{
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "name"));
    const char *json = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "tokenizer"));
    const char *config = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "config"));
    const cJSON *texts = cJSON_GetObjectItemCaseSensitive(golden, "texts"), *ids = cJSON_GetObjectItemCaseSensitive(item, "ids");
    struct tokenizer *tokenizer = NULL;
    assert_ok(open_text(json, config, NULL, &tokenizer));
    assert_int_equal(cJSON_GetArraySize(texts), cJSON_GetArraySize(ids));
    for (int i = 0; i < cJSON_GetArraySize(texts); i++)
        check_ids(tokenizer, name, cJSON_GetArrayItem(texts, i)->valuestring, cJSON_GetArrayItem(ids, i));
    tokenizer_close(tokenizer);
}

static void test_golden(void **state)
{
    const cJSON *cases = cJSON_GetObjectItemCaseSensitive(golden, "cases"), *item;
    (void)state;
    assert_true(cJSON_GetArraySize(cases) >= 6);
    cJSON_ArrayForEach(item, cases) check_case(item);
}

/* ---- small tokenizers ------------------------------------------------------------------------------------------------------------- */

/* A model of a, b, c, ab = 3, abc = 4 with members in front of vocab. */
#define ABC(members) "{\"type\":\"BPE\"," members "\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4},\"merges\":[\"a b\",[\"ab\",\"c\"]]}"
#define MODEL "\"model\":" ABC("")

static const char *encoded(const struct tokenizer *tokenizer, const char *text, bool with_bos)
{
    static char out[512];
    int32_t *ids = NULL;
    size_t n_ids = 0, used = 0;
    if (tokenizer_encode(tokenizer, text, strlen(text), with_bos, &ids, &n_ids, &err) != OK) return err.text;
    out[0] = '\0';
    for (size_t i = 0; i < n_ids && used < sizeof out - 16; i++)
        used += (size_t)snprintf(out + used, sizeof out - used, i ? " %d" : "%d", (int)ids[i]);
    free(ids);
    return out;
}

static const struct {
    const char *json, *tokenizer_config, *config, *text, *ids;
} smalls[] = {
    { "{" MODEL "}", NULL, NULL, "abcab", "4 3" },
    { "{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}", NULL, NULL, "abab", "2 2" }, /* without a type */
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"aa\":1},\"merges\":[\"a a\"]}}", NULL, NULL, "aaaaa", "1 1 0" },
    /* the lower rank first, whatever is left of it */
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"bc\":4},\"merges\":[\"b c\",\"a b\"]}}", NULL, NULL, "abc", "0 4" },
    { "{" MODEL "}", NULL, NULL, "abx", "the tokenizer has no token for U+0078 and none for what is unknown" },
    { "{" MODEL "}", NULL, NULL, "ab\xff", "byte 2: no valid UTF-8" },
    { "{\"model\":" ABC("\"unk_token\":\"c\",") "}", NULL, NULL, "axyb", "0 2 2 1" },
    { "{\"model\":" ABC("\"unk_token\":\"c\",\"fuse_unk\":true,") "}", NULL, NULL, "axyb", "0 2 1" },
    { "{\"model\":" ABC("\"dropout\":null,\"continuing_subword_prefix\":\"\",") "}", NULL, NULL, "ab", "3" },
    /* what begins a text */
    { "{" MODEL "}", "{\"add_bos_token\":true,\"bos_token\":\"c\"}", NULL, "a", "2 0" },
    { "{" MODEL "}", "{\"add_bos_token\":true,\"bos_token\":{\"content\":\"c\"}}", NULL, "a", "2 0" },
    { "{" MODEL "}", "{\"add_bos_token\":true}", "{\"bos_token_id\":1}", "a", "1 0" },
    { "{" MODEL "}", "{\"add_bos_token\":false,\"bos_token\":\"c\"}", "{\"bos_token_id\":1}", "a", "0" },
    { "{" MODEL ",\"post_processor\":{\"type\":\"RobertaProcessing\",\"sep\":[\"b\",1],\"cls\":[\"c\",2]}}", NULL, NULL, "a", "2 0" },
    { "{" MODEL ",\"post_processor\":{\"type\":\"RobertaProcessing\",\"sep\":[\"b\",1],\"cls\":[\"c\",2]}}", "{\"add_bos_token\":false}", NULL, "a",
      "0" },
    { "{" MODEL ",\"added_tokens\":[{\"id\":7,\"content\":\"<s>\"}]}", "{\"add_bos_token\":true,\"bos_token\":\"<s>\"}", NULL, "a<s>ab", "7 0 7 3" },
    /* steps */
    { "{" MODEL ",\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"xy\"},\"content\":\"b\"}}", NULL, NULL, "axyxyc", "3 1 2" },
    { "{" MODEL ",\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x+\"},\"content\":\"b\"}}", NULL, NULL, "axxxc", "4" },
    { "{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\".\"},\"behavior\":\"Removed\",\"invert\":false}}", NULL, NULL,
      "a.b.ab", "0 1 3" },
    { "{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?=b)\"},\"behavior\":\"Isolated\",\"invert\":false}}", NULL, NULL,
      "abab", "0 1 0 1" },
    { "{" MODEL ",\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"}}", NULL, NULL, " a b\tab\n", "0 1 3" },
};

static void test_smalls(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof smalls / sizeof smalls[0]; i++) {
        struct tokenizer *tokenizer = NULL;
        assert_ok(open_text(smalls[i].json, smalls[i].tokenizer_config, smalls[i].config, &tokenizer));
        const char *got = encoded(tokenizer, smalls[i].text, true);
        if (strcmp(got, smalls[i].ids) != 0) fail_msg("row %zu: '%s', not '%s'", i, got, smalls[i].ids);
        tokenizer_close(tokenizer);
    }
}

static void test_bos(void **state)
{
    struct tokenizer *tokenizer = NULL;
    (void)state;
    assert_ok(open_text("{" MODEL "}", "{\"bos_token\":\"c\"}", NULL, &tokenizer));
    assert_false(tokenizer_adds_bos(tokenizer));
    assert_int_equal(tokenizer_bos(tokenizer), 2);
    assert_int_equal(tokenizer_vocab(tokenizer), 5);
    tokenizer_close(tokenizer);
    assert_ok(open_text("{" MODEL "}", "{\"bos_token\":null}", "{\"bos_token_id\":99}", &tokenizer));
    assert_int_equal(tokenizer_bos(tokenizer), -1);
    tokenizer_close(tokenizer);
    assert_ok(open_text("{" MODEL ",\"added_tokens\":[{\"id\":40,\"content\":\"<s>\"}]}", "{\"add_bos_token\":true,\"bos_token\":\"<s>\"}", NULL,
                        &tokenizer));
    assert_true(tokenizer_adds_bos(tokenizer));
    assert_int_equal(tokenizer_bos(tokenizer), 40);
    assert_int_equal(tokenizer_vocab(tokenizer), 41);
    assert_string_equal(encoded(tokenizer, "ab", false), "3");
    assert_string_equal(encoded(tokenizer, "", true), "40");
    assert_string_equal(encoded(tokenizer, "", false), "");
    tokenizer_close(tokenizer);
    tokenizer_close(NULL);
}

/* ---- refusals --------------------------------------------------------------------------------------------------------------------- */

#define WITH(member) "{" MODEL "," member "}"

static const struct {
    const char *json;
    enum status status;
    const char *part;
} refusals[] = {
    { "", ERR_DATA, "tokenizer.json: byte 0" },
    { "[]", ERR_DATA, "an object expected" },
    { "{}", ERR_DATA, "model is not an object" },
    { "{\"model\":{}}", ERR_UNSUPPORTED, "its model has no type" },
    { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", ERR_UNSUPPORTED, "model type \"Unigram\"" },
    { "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", ERR_UNSUPPORTED, "model type \"WordPiece\"" },
    { "{\"model\":{\"type\":\"BPE\",\"merges\":[]}}", ERR_DATA, "vocab is not an object" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", ERR_DATA, "it has no tokens" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", ERR_DATA, "merges is not an array" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", ERR_DATA, "token 'a' has no id" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1.5},\"merges\":[]}}", ERR_DATA, "token 'a' has no id" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999},\"merges\":[]}}", ERR_DATA, "token 'a' has the id 99999999" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999999999999999},\"merges\":[]}}", ERR_DATA, "token 'a' has no id" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", ERR_DATA, "two tokens have the id 0" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}", ERR_DATA, "duplicate key 'a'" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}}", ERR_DATA, "merge 0: 'a' and 'b'" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"aa\":1},\"merges\":[\"a a\",\"a\"]}}", ERR_DATA, "merge 1 is neither" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"aa\":1},\"merges\":[\"a a a\"]}}", ERR_DATA, "merge 0 is neither" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"aa\":1},\"merges\":[[\"a\"]]}}", ERR_DATA, "merge 0 is neither" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"aa\":1},\"merges\":[[\"a\",\"a\",\"a\"]]}}", ERR_DATA, "merge 0 is neither" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"aa\":1},\"merges\":[7]}}", ERR_DATA, "merge 0 is neither" },
    { "{\"model\":" ABC("\"dropout\":0.1,") "}", ERR_UNSUPPORTED, "dropout" },
    { "{\"model\":" ABC("\"continuing_subword_prefix\":\"##\",") "}", ERR_UNSUPPORTED, "continuing_subword_prefix" },
    { "{\"model\":" ABC("\"end_of_word_suffix\":\"</w>\",") "}", ERR_UNSUPPORTED, "end_of_word_suffix" },
    { "{\"model\":" ABC("\"unk_token\":\"zz\",") "}", ERR_DATA, "unk_token 'zz' is no token" },
    { "{\"model\":" ABC("\"unk_token\":3,") "}", ERR_DATA, "unk_token is not a string" },
    { "{\"model\":" ABC("\"fuse_unk\":1,") "}", ERR_DATA, "fuse_unk is neither true nor false" },
    { WITH("\"normalizer\":{\"type\":\"NFKC\"}"), ERR_UNSUPPORTED, "llmq does not know the normalizer 'NFKC'" },
    { WITH("\"normalizer\":{\"type\":\"Precompiled\"}"), ERR_UNSUPPORTED, "normalizer 'Precompiled'" },
    { WITH("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"}]}"), ERR_UNSUPPORTED, "normalizer 'Lowercase'" },
    { WITH("\"normalizer\":{\"type\":\"Sequence\"}"), ERR_DATA, "normalizers is not an array" },
    { WITH("\"normalizer\":{\"type\":7}"), ERR_DATA, "type is not a string" },
    { WITH("\"normalizer\":[]"), ERR_DATA, "its normalizer is not an object" },
    { WITH("\"normalizer\":{\"type\":\"Prepend\"}"), ERR_DATA, "prepend is missing" },
    { WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"b\"}"), ERR_DATA, "a replacement of nothing" },
    { WITH("\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}"), ERR_UNSUPPORTED, "pre-tokenizer 'BertPreTokenizer'" },
    { WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?<=a)b\"},\"behavior\":\"Isolated\"}"), ERR_UNSUPPORTED, "(?<=a)b" },
    { WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Odd\"}"), ERR_UNSUPPORTED, "behavior 'Odd'" },
    { WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\"}"), ERR_DATA, "pattern is missing" },
    { WITH("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}"), ERR_DATA, "replacement is not one character" },
    { WITH("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"last\"}"), ERR_UNSUPPORTED, "prepend_scheme 'last'" },
    { WITH("\"post_processor\":{\"type\":\"Odd\"}"), ERR_UNSUPPORTED, "post-processor 'Odd'" },
    { WITH("\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"c\"]}"), ERR_DATA, "cls is not a token and its id" },
    { WITH("\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"c\",9]}"), ERR_DATA, "token 9, which begins a text, is not below 5" },
    { WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"c\"}}]}"), ERR_DATA,
      "it has no ids for 'c'" },
    { WITH("\"added_tokens\":7"), ERR_DATA, "added_tokens is not an array" },
    { WITH("\"added_tokens\":[7]"), ERR_DATA, "added token 0: it is not an object" },
    { WITH("\"added_tokens\":[{\"content\":\"x\"}]"), ERR_DATA, "added token 0: id is missing" },
    { WITH("\"added_tokens\":[{\"content\":\"x\",\"id\":5,\"lstrip\":1}]"), ERR_DATA, "lstrip is neither true nor false" },
    { WITH("\"added_tokens\":[{\"content\":\"x\",\"id\":99999999}]"), ERR_DATA, "id is 99999999" },
    { WITH("\"added_tokens\":[{\"content\":\"x\",\"id\":5},{\"content\":\"y\",\"id\":5}]"), ERR_DATA, "added token 1: two tokens have the id 5" },
};

static void test_refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        struct tokenizer *tokenizer = NULL;
        const enum status status = open_text(refusals[i].json, NULL, NULL, &tokenizer);
        if (status != refusals[i].status || !strstr(err.text, refusals[i].part)) fail_msg("row %zu: status %d, '%s'", i, (int)status, err.text);
    }
    struct tokenizer *tokenizer = NULL;
    assert_refused(open_text("{" MODEL "}", "[]", NULL, &tokenizer), ERR_DATA, "tokenizer_config.json: it is not an object");
    assert_refused(open_text("{" MODEL "}", NULL, "{", &tokenizer), ERR_DATA, "config.json: byte 1");
    assert_refused(open_text("{" MODEL "}", "{\"add_bos_token\":true}", NULL, &tokenizer), ERR_DATA, "no file names a token for it");
}

static void test_nested_too_deeply(void **state)
{
    struct tokenizer *tokenizer = NULL;
    char json[4096] = WITH("\"normalizer\":");
    (void)state;
    json[strlen(json) - 1] = '\0';
    for (int i = 0; i < 20; i++) strcat(json, "{\"type\":\"Sequence\",\"normalizers\":[");
    strcat(json, "{\"type\":\"NFC\"}");
    for (int i = 0; i < 20; i++) strcat(json, "]}");
    strcat(json, "}");
    assert_refused(open_text(json, NULL, NULL, &tokenizer), ERR_UNSUPPORTED, "nested too deeply");
}

/* What opens after a change must still encode. */
static void encode_some(const struct tokenizer *tokenizer)
{
    static const char *const some[] = { "", "ab <s> c\n", "\xc3\xa9\xf0\x9f\x98\x80  12" };
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++) {
        int32_t *ids = NULL;
        size_t n_ids = 0;
        if (tokenizer_encode(tokenizer, some[i], strlen(some[i]), true, &ids, &n_ids, &err) != OK) continue;
        for (size_t j = 0; j < n_ids; j++) assert_true(ids[j] >= 0 && (uint32_t)ids[j] < tokenizer_vocab(tokenizer));
        free(ids);
    }
}

static void test_broken_files(void **state)
{
    static const char json[] =
        "{\"added_tokens\":[{\"id\":5,\"content\":\"<s>\",\"rstrip\":true,\"normalized\":false}],\"normalizer\":{\"type\":\"Sequence\","
        "\"normalizers\":"
        "[{\"type\":\"NFC\"},{\"type\":\"Prepend\",\"prepend\":\"b\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"c\"}]},"
        "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?i:'s)|[^\\\\r\\\\p{L}]?\\\\p{L}+|"
        "\\\\s+(?!\\\\S)|x{1,3}\"},"
        "\"behavior\":\"MergedWithNext\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true}]},\"post_"
        "processor\":"
        "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}}],\"special_tokens\":{\"<s>\":{\"ids\":[5]}}},"
        "\"model\":" ABC("\"unk_token\":\"c\",\"byte_fallback\":true,") "}";
    uint64_t seed = 3;
    char changed[sizeof json];
    struct tokenizer *tokenizer = NULL;
    (void)state;
    assert_ok(open_text(json, NULL, NULL, &tokenizer));
    encode_some(tokenizer);
    tokenizer_close(tokenizer);
    for (size_t i = 0; i + 1 < sizeof json; i++) {
        memcpy(changed, json, sizeof json);
        changed[i] = '\0';
        assert_int_not_equal(open_text(changed, NULL, NULL, &tokenizer), OK);
        changed[i] = (char)(test_random(&seed) % 2 ? json[test_random(&seed) % (sizeof json - 1)] : (char)(json[i] ^ 1 << test_random(&seed) % 7));
        if (changed[i] == '\0' || open_text(changed, NULL, NULL, &tokenizer) != OK) continue;
        encode_some(tokenizer);
        tokenizer_close(tokenizer);
    }
}

/* ---- words and pieces ------------------------------------------------------------------------------------------------------------- */

/* Merges of a vocabulary by looking at every pair, for words of a, b and c; ids are those of longs below. */
static size_t merge_slowly(int32_t *ids, size_t n)
{
    static const int merges[][3] = { { 0, 1, 3 }, { 3, 2, 4 }, { 2, 2, 5 }, { 4, 4, 6 }, { 1, 5, 7 }, { 0, 0, 8 }, { 8, 3, 9 } };
    for (;;) {
        size_t best = SIZE_MAX, at = 0;
        for (size_t i = 0; i + 1 < n; i++)
            for (size_t m = 0; m < sizeof merges / sizeof merges[0] && m < best; m++)
                if (ids[i] == merges[m][0] && ids[i + 1] == merges[m][1]) best = m, at = i;
        if (best == SIZE_MAX) return n;
        ids[at] = merges[best][2];
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
    }
}

static void test_long_words(void **state)
{
    static const char longs[] =
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4,\"cc\":5,\"abcabc\":6,\"bcc\":7,\"aa\":8,\"aaab\":9},"
        "\"merges\":[\"a b\",\"ab c\",\"c c\",\"abc abc\",\"b cc\",\"a a\",\"aa ab\"]}}";
    struct tokenizer *tokenizer = NULL;
    uint64_t seed = 1;
    static char word[2000];
    static int32_t wanted[2000];
    (void)state;
    assert_ok(open_text(longs, NULL, NULL, &tokenizer));
    for (int round = 0; round < 300; round++) {
        size_t n = test_random(&seed) % (round % 10 ? 50 : sizeof word), n_ids = 0;
        int32_t *ids = NULL;
        for (size_t i = 0; i < n; i++) wanted[i] = (int32_t)(test_random(&seed) % 3), word[i] = (char)('a' + wanted[i]);
        assert_ok(tokenizer_encode(tokenizer, word, n, false, &ids, &n_ids, &err));
        assert_int_equal(n_ids, merge_slowly(wanted, n));
        assert_memory_equal(ids, wanted, n_ids * sizeof *ids);
        free(ids);
    }
    tokenizer_close(tokenizer);
}

static void test_pieces(void **state)
{
    struct tokenizer *tokenizer = NULL;
    char out[8];
    const cJSON *cases = cJSON_GetObjectItemCaseSensitive(golden, "cases"), *item;
    (void)state;
    assert_ok(open_text("{" MODEL ",\"added_tokens\":[{\"id\":9,\"content\":\"<s>\"}]}", NULL, NULL, &tokenizer));
    assert_int_equal(tokenizer_piece(tokenizer, 4, out, sizeof out), 3);
    assert_memory_equal(out, "abc", 3);
    assert_int_equal(tokenizer_piece(tokenizer, 4, out, 1), 3);
    assert_int_equal(tokenizer_piece(tokenizer, 9, NULL, 0), 3);
    assert_int_equal(tokenizer_piece(tokenizer, 7, out, sizeof out), 0);
    assert_int_equal(tokenizer_piece(tokenizer, -1, out, sizeof out), 0);
    assert_int_equal(tokenizer_piece(tokenizer, INT32_MAX, out, sizeof out), 0);
    tokenizer_close(tokenizer);
    /* Pieces of a byte-level tokenizer, and of one with bytes after its first blank, are the text again. */
    cJSON_ArrayForEach(item, cases)
    {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "name"));
        const bool is_marked = strcmp(name, "llama2") == 0;
        static const char text[] = "Hello the  w\xc3\xb6rld\n\xf0\x9f\x98\x80 12!";
        char again[128];
        size_t n_ids = 0, n = 0;
        int32_t *ids = NULL;
        if (strncmp(name, "metaspace", 9) == 0) continue;
        assert_ok(open_text(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "tokenizer")), NULL, NULL, &tokenizer));
        assert_ok(tokenizer_encode(tokenizer, text, sizeof text - 1, false, &ids, &n_ids, &err));
        for (size_t i = 0; i < n_ids; i++) n += tokenizer_piece(tokenizer, ids[i], again + n, sizeof again - n);
        assert_int_equal(n, sizeof text - 1 + is_marked);
        assert_memory_equal(again + is_marked, text, sizeof text - 1);
        free(ids);
        tokenizer_close(tokenizer);
    }
}

/* ---- containers and threads ------------------------------------------------------------------------------------------------------- */

static void test_folder(void **state)
{
    struct container *container = NULL;
    struct tokenizer *tokenizer = NULL;
    (void)state;
    assert_ok(container_open(&io_system, tests_path("data/tiny-llama"), &container, &err));
    assert_ok(tokenizer_of_container(container, &tokenizer, &err));
    container_close(container);
    assert_true(tokenizer_adds_bos(tokenizer));
    assert_int_equal(tokenizer_bos(tokenizer), 256);
    assert_int_equal(tokenizer_vocab(tokenizer), 258);
    assert_string_equal(encoded(tokenizer, "A \xc3\xa9</s>", true), "256 65 32 195 169 257");
    tokenizer_close(tokenizer);
    assert_ok(container_open(&io_system, tests_path("data/tiny-llama/model.safetensors"), &container, &err));
    assert_refused(tokenizer_of_container(container, &tokenizer, &err), ERR_UNSUPPORTED, "name its folder");
    assert_null(tokenizer);
    container_close(container);
}

static struct tokenizer *shared_tokenizer;

static void *encode_all(void *argument)
{
    const cJSON *texts = cJSON_GetObjectItemCaseSensitive(golden, "texts"), *item;
    uint64_t *sum = argument;
    cJSON_ArrayForEach(item, texts)
    {
        struct err own;
        int32_t *ids = NULL;
        size_t n_ids = 0;
        if (tokenizer_encode(shared_tokenizer, item->valuestring, strlen(item->valuestring), true, &ids, &n_ids, &own) != OK) return NULL;
        for (size_t i = 0; i < n_ids; i++) *sum = *sum * 31 + (uint64_t)ids[i];
        free(ids);
    }
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t threads[4];
    uint64_t sums[4] = { 0 };
    const cJSON *first = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(golden, "cases"), 0);
    (void)state;
    assert_ok(open_text(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(first, "tokenizer")), NULL, NULL, &shared_tokenizer));
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, encode_all, &sums[i]), 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    for (int i = 1; i < 4; i++) assert_true(sums[i] == sums[0] && sums[0] != 0);
    tokenizer_close(shared_tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_smalls),
        cmocka_unit_test(test_bos),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_nested_too_deeply),
        cmocka_unit_test(test_broken_files),
        cmocka_unit_test(test_long_words),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_folder),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
