/* test_tokenizer_gguf.c: tokenizers in the keys of GGUF files: scores, merges, what begins a text, and what is refused.
 *
 * Formula: files are built here, key by key; ids are those of tests/golden/tokenizers.json, of the file of stories in the shared data, or by hand.
 * Why this way: a vocabulary with merges means the same in tokenizer.json and in GGUF, so the oracle's ids of one are those of the other.
 * Corner cases: keys of wrong types and lengths; every key left out; equal scores; a real vocabulary without a BOS of its own.
 * Reference: llama.cpp's llama-vocab.cpp; header of tests/tokenizer_oracle.py. Worked number: scores "ab" -1, "bc" -2: "abc" is ab c.
 */
#include "support/support.h"

#include <cjson/cJSON.h>

#include "base/utf8.h"
#include "container/container.h"
#include "container/gguf_header.h"
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

/* ---- building --------------------------------------------------------------------------------------------------------------------- */

struct bytes {
    uint8_t *data;
    size_t n;
    uint64_t n_keys;
};

static void add(struct bytes *b, const void *data, size_t n)
{
    b->data = realloc(b->data, b->n + n + 1);
    assert_non_null(b->data);
    if (n) memcpy(b->data + b->n, data, n);
    b->n += n;
}

static void add_uint(struct bytes *b, uint64_t value, unsigned n)
{
    for (unsigned i = 0; i < n; i++) add(b, &(uint8_t){ (uint8_t)(value >> (8 * i) & 255) }, 1);
}

static void add_text(struct bytes *b, const char *text)
{
    add_uint(b, strlen(text), 8);
    add(b, text, strlen(text));
}

static void add_key(struct bytes *b, const char *name, uint32_t type)
{
    b->n_keys++;
    add_text(b, name);
    add_uint(b, type, 4);
}

static void add_string(struct bytes *b, const char *name, const char *value)
{
    add_key(b, name, GGUF_STRING);
    add_text(b, value);
}

static void add_u32(struct bytes *b, const char *name, uint32_t value)
{
    add_key(b, name, GGUF_U32);
    add_uint(b, value, 4);
}

static void add_bool(struct bytes *b, const char *name, bool value)
{
    add_key(b, name, GGUF_BOOL);
    add_uint(b, value, 1);
}

static void add_array(struct bytes *b, const char *name, uint32_t type, uint64_t n)
{
    add_key(b, name, GGUF_ARRAY);
    add_uint(b, type, 4);
    add_uint(b, n, 8);
}

/* Texts between blanks. */
static void add_strings(struct bytes *b, const char *name, const char *texts)
{
    struct bytes items = { 0 };
    uint64_t n = 0;
    for (const char *at = texts; *at; n++) {
        const size_t length = strcspn(at, " ");
        add_uint(&items, length, 8);
        add(&items, at, length);
        at += length + (at[length] == ' ');
    }
    add_array(b, name, GGUF_STRING, n);
    add(b, items.data, items.n);
    free(items.data);
}

static enum status open_keys(const struct bytes *keys, struct tokenizer **out)
{
    struct bytes file = { 0 };
    struct gguf_header header = { 0 };
    add(&file, "GGUF", 4);
    add_uint(&file, 3, 4);
    add_uint(&file, 0, 8);
    add_uint(&file, keys->n_keys, 8);
    add(&file, keys->data, keys->n);
    uint8_t *exact = malloc(file.n);
    assert_non_null(exact);
    memcpy(exact, file.data, file.n);
    struct gguf_source source = { .read = gguf_read_memory, .context = exact, .nbytes = file.n };
    *out = NULL;
    err.text[0] = '\0';
    assert_ok(gguf_header_parse(&source, &header, &err));
    enum status status = tokenizer_open_gguf(&header, &source, out, &err);
    if ((status == OK) != (*out != NULL)) fail_msg("status %d, sentence '%s'", (int)status, err.text);
    if (strchr(err.text, '\n')) fail_msg("'%s' has two lines", err.text);
    gguf_header_free(&header);
    free(exact);
    free(file.data);
    return status;
}

static const char *encoded(const struct tokenizer *tokenizer, const char *text)
{
    static char out[512];
    int32_t *ids = NULL;
    size_t n_ids = 0, used = 0;
    if (tokenizer_encode(tokenizer, text, strlen(text), true, &ids, &n_ids, &err) != OK) return err.text;
    out[0] = '\0';
    for (size_t i = 0; i < n_ids && used < sizeof out - 16; i++)
        used += (size_t)snprintf(out + used, sizeof out - used, i ? " %d" : "%d", (int)ids[i]);
    free(ids);
    return out;
}

static void check_all(const struct tokenizer *tokenizer, const char *name, const cJSON *wanted, bool with_bos)
{
    const cJSON *texts = cJSON_GetObjectItemCaseSensitive(golden, "texts");
    for (int i = 0; i < cJSON_GetArraySize(texts); i++) {
        const char *text = cJSON_GetArrayItem(texts, i)->valuestring;
        int32_t *ids = NULL;
        size_t n_ids = 0, j = 0;
        const cJSON *id;
        if (tokenizer_encode(tokenizer, text, strlen(text), with_bos, &ids, &n_ids, &err) != OK) fail_msg("%s, '%s': %s", name, text, err.text);
        cJSON_ArrayForEach(id, cJSON_GetArrayItem(wanted, i))
        {
            if (j >= n_ids || ids[j] != id->valueint)
                fail_msg("%s, '%s': id %zu is %d, not %d", name, text, j, j < n_ids ? ids[j] : -1, id->valueint);
            j++;
        }
        assert_int_equal(j, n_ids);
        free(ids);
    }
}

/* ---- scores ----------------------------------------------------------------------------------------------------------------------- */

static void add_scores(struct bytes *b, const cJSON *scores)
{
    const cJSON *score;
    add_array(b, "tokenizer.ggml.scores", GGUF_F32, (uint64_t)cJSON_GetArraySize(scores));
    cJSON_ArrayForEach(score, scores)
    {
        const float value = (float)score->valuedouble;
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        add_uint(b, bits, 4);
    }
}

static void test_scored(void **state)
{
    const cJSON *spm = cJSON_GetObjectItemCaseSensitive(golden, "scored"), *tokens = cJSON_GetObjectItemCaseSensitive(spm, "tokens"), *item;
    struct bytes b = { 0 };
    struct tokenizer *tokenizer = NULL;
    (void)state;
    add_string(&b, "tokenizer.ggml.model", "llama");
    add_array(&b, "tokenizer.ggml.tokens", GGUF_STRING, (uint64_t)cJSON_GetArraySize(tokens));
    cJSON_ArrayForEach(item, tokens) add_text(&b, item->valuestring);
    add_scores(&b, cJSON_GetObjectItemCaseSensitive(spm, "scores"));
    add_array(&b, "tokenizer.ggml.token_type", GGUF_I32, (uint64_t)cJSON_GetArraySize(tokens));
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(spm, "types")) add_uint(&b, (uint64_t)item->valueint, 4);
    assert_ok(open_keys(&b, &tokenizer));
    assert_true(tokenizer_adds_bos(tokenizer));
    assert_int_equal(tokenizer_bos(tokenizer), 1);
    check_all(tokenizer, "scored", cJSON_GetObjectItemCaseSensitive(spm, "ids"), true);
    tokenizer_close(tokenizer);
    free(b.data);
}

#define MARK "\xe2\x96\x81"

/* tokens, scores, bytes for add_space_prefix and add_bos_token (2: no key), a text and its ids */
static const struct {
    const char *tokens;
    float scores[10];
    int prefixes, adds_bos;
    const char *text, *ids;
} scoreds[] = {
    { "<unk> <s> a b c ab bc", { 0, 0, 0, 0, 0, -1, -2 }, 0, 0, "abc", "5 4" },
    { "<unk> <s> a b c ab bc", { 0, 0, 0, 0, 0, -2, -1 }, 0, 0, "abc", "2 6" },
    { "<unk> <s> a b c ab bc", { 0, 0, 0, 0, 0, -1, -1 }, 0, 0, "abcab", "5 4 5" },
    { "<unk> <s> a b c ab bc " MARK "a", { 0, 0, 0, 0, 0, -1, -2, 0 }, 2, 2, "ab", "1 7 3" },
    { "<unk> <s> a b c ab bc " MARK "a", { 0, 0, 0, 0, 0, -1, -2, 0 }, 0, 2, "ab", "1 5" },
    { "<unk> <s> a b c ab bc " MARK, { 0, 0, 0, 0, 0, -1, -2, 0 }, 1, 1, "a b", "1 7 2 7 3" },
    { "<unk> <s> a b c ab bc " MARK, { 0, 0, 0, 0, 0, -1, -2, 0 }, 0, 0, "axyb", "2 0 3" }, /* a row of unknown ones is one */
    { "<unk> <s> ab bc <0x61> <0x62>", { 0, 0, -1, -2, 0, 0 }, 0, 0, "abba", "2 5 4" }, /* characters that only longer tokens have */
    { "<unk> <s> aa aaa", { 0, 0, -1, -2 }, 0, 0, "aaaaa", "2 3" },
};

static void test_scored_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof scoreds / sizeof scoreds[0]; i++) {
        struct bytes b = { 0 };
        struct tokenizer *tokenizer = NULL;
        add_string(&b, "tokenizer.ggml.model", "llama");
        add_strings(&b, "tokenizer.ggml.tokens", scoreds[i].tokens);
        add_array(&b, "tokenizer.ggml.scores", GGUF_F32, 10);
        for (size_t j = 0; j < 10; j++) {
            uint32_t bits;
            memcpy(&bits, &scoreds[i].scores[j], sizeof bits);
            add_uint(&b, bits, 4);
        }
        if (scoreds[i].prefixes < 2) add_bool(&b, "tokenizer.ggml.add_space_prefix", scoreds[i].prefixes);
        if (scoreds[i].adds_bos < 2) add_bool(&b, "tokenizer.ggml.add_bos_token", scoreds[i].adds_bos);
        assert_ok(open_keys(&b, &tokenizer));
        const char *got = encoded(tokenizer, scoreds[i].text);
        if (strcmp(got, scoreds[i].ids) != 0) fail_msg("row %zu: '%s', not '%s'", i, got, scoreds[i].ids);
        tokenizer_close(tokenizer);
        free(b.data);
    }
}

/* ---- merges ----------------------------------------------------------------------------------------------------------------------- */

static const cJSON *find_case(const char *name)
{
    const cJSON *item;
    cJSON_ArrayForEach(
        item, cJSON_GetObjectItemCaseSensitive(golden, "cases")) if (strcmp(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "name")),
                                                                            name) == 0) return item;
    fail_msg("no case '%s'", name);
    return NULL;
}

/* The keys of a case's vocabulary and merges; its last n_names tokens are control tokens. */
static void add_case(struct bytes *b, const cJSON *item, int n_names)
{
    cJSON *tree = cJSON_Parse(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "tokenizer")));
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(tree, "model"), *vocab = cJSON_GetObjectItemCaseSensitive(model, "vocab"), *each;
    const cJSON *merges = cJSON_GetObjectItemCaseSensitive(model, "merges");
    const int n = cJSON_GetArraySize(vocab);
    int at = 0;
    add_array(b, "tokenizer.ggml.tokens", GGUF_STRING, (uint64_t)n);
    cJSON_ArrayForEach(each, vocab)
    {
        assert_int_equal(each->valueint, at++);
        add_text(b, each->string);
    }
    add_array(b, "tokenizer.ggml.token_type", GGUF_I32, (uint64_t)n);
    for (int i = 0; i < n; i++) add_uint(b, i < n - n_names ? 1 : 3, 4);
    add_array(b, "tokenizer.ggml.merges", GGUF_STRING, (uint64_t)cJSON_GetArraySize(merges));
    cJSON_ArrayForEach(each, merges)
    {
        char merge[256];
        if (cJSON_IsString(each)) snprintf(merge, sizeof merge, "%s", each->valuestring);
        else snprintf(merge, sizeof merge, "%s %s", each->child->valuestring, each->child->next->valuestring);
        add_text(b, merge);
    }
    cJSON_Delete(tree);
}

static void test_merges(void **state)
{
    static const char *const rows[][2] = { { "gpt2", "gpt-2" }, { "llama3", "llama-bpe" }, { "llama3", "falcon3" } };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const cJSON *item = find_case(rows[i][0]), *ids = cJSON_GetObjectItemCaseSensitive(item, "ids");
        struct bytes b = { 0 };
        struct tokenizer *tokenizer = NULL;
        add_string(&b, "tokenizer.ggml.model", "gpt2");
        add_string(&b, "tokenizer.ggml.pre", rows[i][1]);
        add_case(&b, item, 3);
        if (rows[i][0][0] == 'l') add_u32(&b, "tokenizer.ggml.bos_token_id", (uint32_t)cJSON_GetArrayItem(cJSON_GetArrayItem(ids, 0), 0)->valueint);
        assert_ok(open_keys(&b, &tokenizer));
        assert_int_equal(tokenizer_adds_bos(tokenizer), rows[i][0][0] == 'l');
        check_all(tokenizer, rows[i][1], ids, true);
        tokenizer_close(tokenizer);
        free(b.data);
    }
}

/* Every name of the table opens: its patterns are known. */
static void test_names(void **state)
{
    static const char names[] =
        "llama3 dbrx qwen2 qwen35 gpt-4o tekken gpt-2 smollm falcon deepseek-coder deepseek-v3 bailingmoe seed-coder bloom viking "
        "default command-r llama4";
    (void)state;
    for (const char *at = names; *at;) {
        char name[32];
        const size_t n = strcspn(at, " ");
        struct bytes b = { 0 };
        struct tokenizer *tokenizer = NULL;
        snprintf(name, sizeof name, "%.*s", (int)n, at);
        add_string(&b, "tokenizer.ggml.model", "gpt2");
        add_string(&b, "tokenizer.ggml.pre", name);
        add_u32(&b, "tokenizer.ggml.bos_token_id", 0);
        add_bool(&b, "tokenizer.ggml.add_bos_token", false);
        add_strings(&b, "tokenizer.ggml.tokens", "a b ab 1 \xc4\xa0");
        add_array(&b, "tokenizer.ggml.merges", GGUF_STRING, 1);
        add_text(&b, "a b");
        assert_ok(open_keys(&b, &tokenizer));
        const char *got = encoded(tokenizer, "ab 11");
        if (strcmp(got, "2 4 3 3") != 0) fail_msg("%s: %s", name, got);
        tokenizer_close(tokenizer);
        free(b.data);
        at += n + (at[n] == ' ');
    }
}

/* ---- refusals --------------------------------------------------------------------------------------------------------------------- */

enum change {
    NO_MODEL,
    ODD_MODEL,
    WPM_MODEL,
    ODD_PRE,
    NO_TOKENS,
    ODD_TOKENS,
    TWICE,
    NO_MERGES,
    BAD_MERGE,
    NO_RESULT,
    ODD_TYPES,
    SHORT_TYPES,
    BOS_OVER,
    BOS_MISSING,
    ODD_ADDS,
    CHANGE_COUNT
};

static const struct {
    enum status status;
    const char *part;
} wanted[CHANGE_COUNT] = {
    [NO_MODEL] = { ERR_UNSUPPORTED, "no key 'tokenizer.ggml.model'" },
    [ODD_MODEL] = { ERR_DATA, "key 'tokenizer.ggml.model' is u32, not string" },
    [WPM_MODEL] = { ERR_UNSUPPORTED, "tokenizer model 'bert'" },
    [ODD_PRE] = { ERR_UNSUPPORTED, "pre-tokenizer 'odd'" },
    [NO_TOKENS] = { ERR_DATA, "no key 'tokenizer.ggml.tokens'" },
    [ODD_TOKENS] = { ERR_DATA, "'tokenizer.ggml.tokens' is u32" },
    [TWICE] = { ERR_DATA, "token 'a' is there twice" },
    [NO_MERGES] = { ERR_DATA, "no key 'tokenizer.ggml.merges'" },
    [BAD_MERGE] = { ERR_DATA, "merge 0, 'ab'" },
    [NO_RESULT] = { ERR_DATA, "merge 0, 'b a'" },
    [ODD_TYPES] = { ERR_DATA, "'tokenizer.ggml.token_type' is array, not an array of i32" },
    [SHORT_TYPES] = { ERR_DATA, "'tokenizer.ggml.token_type' has 1 items for 3 tokens" },
    [BOS_OVER] = { ERR_DATA, "the token that begins a text is 9, not below 3" },
    [BOS_MISSING] = { ERR_DATA, "no key names it" },
    [ODD_ADDS] = { ERR_DATA, "'tokenizer.ggml.add_bos_token' is u32, not bool" },
};

static void add_changed(struct bytes *b, enum change change)
{
    if (change == ODD_MODEL) add_u32(b, "tokenizer.ggml.model", 1);
    else if (change != NO_MODEL) add_string(b, "tokenizer.ggml.model", change == WPM_MODEL ? "bert" : "gpt2");
    add_string(b, "tokenizer.ggml.pre", change == ODD_PRE ? "odd" : "gpt-2");
    if (change == ODD_TOKENS) add_u32(b, "tokenizer.ggml.tokens", 1);
    else if (change != NO_TOKENS) add_strings(b, "tokenizer.ggml.tokens", change == TWICE ? "a a ab" : "a b ab");
    if (change != NO_MERGES) {
        add_array(b, "tokenizer.ggml.merges", GGUF_STRING, 1);
        add_text(b, change == BAD_MERGE ? "ab" : change == NO_RESULT ? "b a" : "a b");
    }
    if (change == ODD_TYPES || change == SHORT_TYPES) {
        add_array(b, "tokenizer.ggml.token_type", change == ODD_TYPES ? GGUF_F32 : GGUF_I32, change == ODD_TYPES ? 3 : 1);
        for (int i = 0; i < (change == ODD_TYPES ? 3 : 1); i++) add_uint(b, 1, 4);
    }
    if (change == BOS_OVER) add_u32(b, "tokenizer.ggml.bos_token_id", 9);
    if (change == BOS_MISSING) add_bool(b, "tokenizer.ggml.add_bos_token", true);
    if (change == ODD_ADDS) add_u32(b, "tokenizer.ggml.add_bos_token", 1);
}

static void test_refusals(void **state)
{
    (void)state;
    for (unsigned change = 0; change <= CHANGE_COUNT; change++) {
        struct bytes b = { 0 };
        struct tokenizer *tokenizer = NULL;
        add_changed(&b, (enum change)change);
        const enum status status = open_keys(&b, &tokenizer);
        if (change == CHANGE_COUNT) assert_int_equal(status, OK);
        else if (status != wanted[change].status || !strstr(err.text, wanted[change].part))
            fail_msg("change %u: status %d, '%s'", change, (int)status, err.text);
        tokenizer_close(tokenizer);
        free(b.data);
    }
}

static void test_scores_refused(void **state)
{
    struct bytes b = { 0 };
    struct tokenizer *tokenizer = NULL;
    (void)state;
    add_string(&b, "tokenizer.ggml.model", "llama");
    add_strings(&b, "tokenizer.ggml.tokens", "a b");
    add_array(&b, "tokenizer.ggml.scores", GGUF_F32, 2);
    add_uint(&b, 0x7fc00000, 4);
    add_uint(&b, 0, 4);
    assert_refused(open_keys(&b, &tokenizer), ERR_DATA, "the score of token 0 is not a number");
    free(b.data);
}

/* ---- real files ------------------------------------------------------------------------------------------------------------------- */

static struct tokenizer *open_shared(const char *name)
{
    struct container *container = NULL;
    struct tokenizer *tokenizer = NULL;
    const char *path = shared_data(name);
    if (!path) return NULL;
    assert_ok(container_open(&io_system, path, &container, &err));
    assert_ok(tokenizer_of_container(container, &tokenizer, &err));
    container_close(container);
    return tokenizer;
}

/* One story's text from a JSON array of strings, against a line of ids cut at 512. */
static void check_story(const struct tokenizer *tokenizer, const char *story, const char **line)
{
    int32_t *ids = NULL;
    size_t n_ids = 0, i = 0;
    assert_ok(tokenizer_encode(tokenizer, story, strlen(story), true, &ids, &n_ids, &err));
    for (; **line && **line != '\n'; i++) {
        char *end = NULL;
        const long id = strtol(*line, &end, 10);
        assert_true(end > *line && i < n_ids && ids[i] == id);
        *line = end + strspn(end, " ");
    }
    assert_int_equal(i, n_ids < 512 ? n_ids : 512);
    *line += **line == '\n';
    free(ids);
}

static void test_stories(void **state)
{
    struct tokenizer *tokenizer = open_shared("llm/stories260K/stories260K.gguf");
    const char *path = shared_data("text/tinystories_1000.json"), *ids_path = shared_data("text/stories260K_ids.txt");
    size_t n;
    (void)state;
    if (!tokenizer || !path || !ids_path) {
        tokenizer_close(tokenizer);
        skip();
    }
    char *text = read_file(path, &n), *ids = read_file(ids_path, &n);
    const char *line = ids;
    cJSON *stories = cJSON_Parse(text);
    for (int i = 700; i < 740; i++) check_story(tokenizer, cJSON_GetArrayItem(stories, i)->valuestring, &line);
    assert_true(*line == '\0');
    cJSON_Delete(stories);
    free(text);
    free(ids);
    tokenizer_close(tokenizer);
}

/* Ids of Llama 2's vocabulary as its users know them. */
static void test_llama2(void **state)
{
    struct tokenizer *tokenizer = open_shared("gguf/vocab/vocab-spm.gguf");
    (void)state;
    if (!tokenizer) skip();
    assert_string_equal(encoded(tokenizer, "Hello world"), "1 15043 3186");
    assert_string_equal(encoded(tokenizer, ""), "1");
    assert_string_equal(encoded(tokenizer, "\n"), "1 29871 13");
    assert_string_equal(encoded(tokenizer, "\xf0\x9f\x98\x80"), "1 29871 243 162 155 131");
    assert_string_equal(encoded(tokenizer, "a</s>b"), "1 263 2 289");
    assert_int_equal(tokenizer_vocab(tokenizer), 32000);
    tokenizer_close(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scored),   cmocka_unit_test(test_scored_rows),    cmocka_unit_test(test_merges),  cmocka_unit_test(test_names),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_scores_refused), cmocka_unit_test(test_stories), cmocka_unit_test(test_llama2),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
