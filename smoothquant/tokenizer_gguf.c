/* tokenizer_gguf.c: opens the tokenizer that the keys of a GGUF file hold.
 *
 *   tokenizer.ggml.model   llama: scores, blanks as U+2581, bytes <0xXX>     gpt2: merges over spelt bytes, words by tokenizer.ggml.pre
 *                          gemma4: merges, blanks as U+2581, bytes <0xXX>
 *
 * Why this way: the words of a gpt2 vocabulary are cut as the named model's tokenizer.json cuts them; the table says which names share a pattern, and a
 * name that it lacks is refused.
 * Corner cases: without tokenizer.ggml.pre words are those of "default", as in llama.cpp. All names of control and user tokens are found in a text. A llama
 * text gets a blank in front of every piece between names unless add_space_prefix is false; equal scores merge from the left. Without add_bos_token llama
 * vocabularies begin a text with their BOS, of the others those whose row says so.
 * Reference: llama.cpp's llama-vocab.cpp. Worked number: scores "ab" -1, "bc" -2: "abc" is ab c.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "container/shown.h"
#include "smoothquant/tokenizer_self.h"

enum token_type { TOKEN_NORMAL = 1, TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_USER = 4, TOKEN_UNUSED = 5, TOKEN_BYTE = 6 };

#define SPACE_MARK "\xe2\x96\x81"

/* ---- words by name ---------------------------------------------------------------------------------------------------------------- */

#define CONTRACTIONS "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
#define TAIL "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define LLAMA3 CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL
#define QWEN2 CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL
#define QWEN35 CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" TAIL
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(end) "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" end "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" end
#define GPT4O CASED(CONTRACTIONS "?") "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" TAIL
#define TEKKEN CASED("") "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" TAIL
#define DEEPSEEK3 "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*" TAIL
#define BAILING                                                                                                                                      \
    "'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"
#define SEED CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+" TAIL
#define BLOOM " ?[^(\\s|.,!?\xe2\x80\xa6\xe3\x80\x82\xef\xbc\x8c\xe3\x80\x81\xe0\xa5\xa4\xdb\x94\xd8\x8c)]+"
#define HAN "[\xe4\xb8\x80-\xe9\xbe\xa5\xe0\xa0\x80-\xe4\xb8\x80\xea\xb0\x80-\xed\x9f\xbf]+" /* 4e00-9fa5, 0800-4e00, ac00-d7ff */
#define KANA "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f\xe3\x82\xa0-\xe3\x83\xbf]+" /* 4e00-9fa5, 3040-309f, 30a0-30ff */

#define CUTS_MAX 5

struct words {
    const char *names; /* each between blanks */
    const char *cuts[CUTS_MAX];
    bool ignores_merges, adds_bos;
};

static const struct words words_table[] = {
    { " llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 ", { LLAMA3 }, true, true },
    { " dbrx smaug-bpe glm4 chatglm-bpe ", { LLAMA3 }, false, false },
    { " qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2 ", { QWEN2 }, false, false },
    { " qwen35 ", { QWEN35 }, false, false },
    { " gpt-4o llama4 kanana2 minimax-m2 ", { GPT4O }, false, false },
    { " tekken ", { TEKKEN }, true, true },
    { " gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert exaone4 mpt olmo jais trillion granite-docling ",
      { GPT2 },
      false,
      false },
    { " starcoder refact command-r smollm codeshell exaone minerva-7b mellum2 ", { "\\p{N}", GPT2 }, false, false },
    { " falcon ", { "[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]" }, false, false },
    { " deepseek-coder ", { "[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", HAN, "\\p{N}" }, false, false },
    { " deepseek-v3 hunyuan-dense joyai-llm ", { "\\p{N}{1,3}", KANA, DEEPSEEK3 }, false, false },
    { " bailingmoe bailingmoe2 llada-moe ", { BAILING }, false, false },
    { " seed-coder ", { SEED }, false, false },
    { " bloom gpt3-finnish poro-chat ", { BLOOM }, false, false },
    { " viking ", { BLOOM, "\\p{N}" }, false, false },
    { " default ", { "[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]" }, false, false },
};

static const struct words *find_words(const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof words_table / sizeof words_table[0]; i++)
        for (const char *at = words_table[i].names; (at = strchr(at, ' ')) && at[1]; at++)
            if (strncmp(at + 1, name, n) == 0 && at[1 + n] == ' ' && !memchr(name, ' ', n)) return &words_table[i];
    return NULL;
}

/* ---- values of keys --------------------------------------------------------------------------------------------------------------- */

struct keys {
    const struct gguf_header *header;
    const struct gguf_source *source;
    struct err *err;
};

/* The bytes of a value behind its length or its item type and count; *key NULL without the key. The caller frees *bytes. */
static enum status read_value(const struct keys *keys, const char *name, const struct gguf_key **key, uint8_t **bytes, size_t *n)
{
    *bytes = NULL;
    *n = 0;
    *key = gguf_find_key(keys->header, name);
    if (!*key) return OK;
    const uint64_t start = (*key)->value_offset + ((*key)->type == GGUF_ARRAY ? 12 : (*key)->type == GGUF_STRING ? 8 : 0);
    const uint64_t nbytes = (*key)->offset + (*key)->nbytes - start;
    if (nbytes > TOKENIZER_FILE_MAX) return err_set(keys->err, ERR_UNSUPPORTED, "key '%s' has %llu bytes", name, (unsigned long long)nbytes);
    *bytes = malloc((size_t)nbytes + 1);
    if (!*bytes) return err_set(keys->err, ERR_MEMORY, "key '%s': out of memory", name);
    *n = (size_t)nbytes;
    enum status status = keys->source->read(keys->source->context, *bytes, *n, start, keys->err);
    (*bytes)[*n] = '\0';
    if (status == OK) return OK;
    free(*bytes);
    *bytes = NULL;
    return err_wrap(keys->err, status, "key '%s'", name);
}

static enum status wrong_type(const struct keys *keys, const char *name, const struct gguf_key *key, const char *wanted)
{
    return err_set(keys->err, ERR_DATA, "key '%s' is %s, not %s", name, gguf_value_name(key->type), wanted);
}

/* A string; NULL without the key. The caller frees it. */
static enum status read_string(const struct keys *keys, const char *name, char **out, size_t *n)
{
    const struct gguf_key *key;
    uint8_t *bytes;
    *out = NULL;
    enum status status = read_value(keys, name, &key, &bytes, n);
    if (status == OK && key && key->type != GGUF_STRING) {
        free(bytes);
        return wrong_type(keys, name, key, "string");
    }
    *out = (char *)bytes;
    return status;
}

static uint64_t little(const uint8_t *bytes, size_t n)
{
    uint64_t value = 0;
    for (size_t i = n; i > 0; i--) value = value << 8 | bytes[i - 1];
    return value;
}

/* A small number or a bool; *out stays without the key. */
static enum status read_number(const struct keys *keys, const char *name, bool wants_bool, int32_t *out)
{
    const struct gguf_key *key;
    uint8_t *bytes;
    size_t n;
    enum status status = read_value(keys, name, &key, &bytes, &n);
    if (status != OK || !key) return status;
    const bool is_integer = key->type <= GGUF_I32 || key->type == GGUF_U64 || key->type == GGUF_I64;
    const uint64_t value = n <= 8 ? little(bytes, n) : UINT64_MAX;
    free(bytes);
    if (wants_bool ? key->type != GGUF_BOOL : !is_integer) return wrong_type(keys, name, key, wants_bool ? "bool" : "an integer");
    if (value >= TOKENIZER_IDS_MAX) return err_set(keys->err, ERR_DATA, "key '%s' is not below %u", name, TOKENIZER_IDS_MAX);
    *out = (int32_t)value;
    return OK;
}

/* An array of 4-byte items of this type with at least n_wanted of them; NULL without the key. */
static enum status read_array(const struct keys *keys, const char *name, uint32_t type, size_t n_wanted, uint8_t **out)
{
    const struct gguf_key *key;
    size_t n;
    enum status status = read_value(keys, name, &key, out, &n);
    if (status != OK || !key) return status;
    if (key->type != GGUF_ARRAY || key->array_type != type)
        status = wrong_type(keys, name, key, type == GGUF_F32 ? "an array of f32" : "an array of i32");
    else if (key->count < n_wanted || n / 4 < n_wanted)
        status = err_set(keys->err, ERR_DATA, "key '%s' has %llu items for %zu tokens", name, (unsigned long long)key->count, n_wanted);
    if (status == OK) return OK;
    free(*out);
    *out = NULL;
    return status;
}

/* Strings of an array, one after another. */
struct strings {
    uint8_t *bytes; /* owned; NULL without the key */
    size_t n, at;
    uint64_t count;
};

static enum status open_strings(const struct keys *keys, const char *name, struct strings *strings)
{
    const struct gguf_key *key;
    *strings = (struct strings){ 0 };
    enum status status = read_value(keys, name, &key, &strings->bytes, &strings->n);
    if (status != OK || !key) return status;
    strings->count = key->count;
    if (key->type == GGUF_ARRAY && key->array_type == GGUF_STRING) return OK;
    free(strings->bytes);
    strings->bytes = NULL;
    return wrong_type(keys, name, key, "an array of strings");
}

/* The next string; false at the end. The parser of the header has checked the lengths, and they are checked here again. */
static bool next_string(struct strings *strings, const char **text, size_t *n)
{
    if (strings->n - strings->at < 8) return false;
    const uint64_t length = little(strings->bytes + strings->at, 8);
    strings->at += 8;
    if (length > strings->n - strings->at) return false;
    *text = (const char *)strings->bytes + strings->at;
    *n = (size_t)length;
    strings->at += *n;
    return true;
}

static bool is_utf8(const char *text, size_t n)
{
    for (size_t at = 0, length; at < n; at += length) {
        length = utf8_length(text + at, n - at);
        if (length == 0) return false;
    }
    return true;
}

/* ---- tokens ----------------------------------------------------------------------------------------------------------------------- */

static enum status read_tokens(const struct keys *keys, struct tokenizer *tokenizer)
{
    struct strings strings;
    const char *text;
    size_t n;
    enum status status = open_strings(keys, "tokenizer.ggml.tokens", &strings);
    if (status == OK && !strings.bytes) status = err_set(keys->err, ERR_DATA, "it has no key 'tokenizer.ggml.tokens'");
    for (uint64_t id = 0; status == OK && next_string(&strings, &text, &n); id++) {
        if (!is_utf8(text, n)) status = err_set(keys->err, ERR_DATA, "token %llu is no valid UTF-8", (unsigned long long)id);
        else if (n) status = vocab_add(&tokenizer->bpe.vocab, text, n, id, keys->err);
        if (id < TOKENIZER_IDS_MAX && tokenizer->n_ids <= id) tokenizer->n_ids = (uint32_t)id + 1;
    }
    free(strings.bytes);
    return status;
}

static enum status read_merges(const struct keys *keys, struct bpe *bpe)
{
    struct strings strings;
    const char *text;
    size_t n;
    char joined[TOKENIZER_TOKEN_MAX + 1];
    enum status status = open_strings(keys, "tokenizer.ggml.merges", &strings);
    if (status == OK && !strings.bytes) status = err_set(keys->err, ERR_DATA, "it has no key 'tokenizer.ggml.merges'");
    for (uint32_t rank = 0; status == OK && next_string(&strings, &text, &n); rank++) {
        const char *blank = n > 1 && n <= TOKENIZER_TOKEN_MAX ? memchr(text + 1, ' ', n - 1) : NULL;
        const size_t n_left = blank ? (size_t)(blank - text) : 0;
        int32_t left = -1, right = -1, id = -1;
        if (blank) {
            memcpy(joined, text, n_left);
            memcpy(joined + n_left, blank + 1, n - n_left - 1);
            left = vocab_find(&bpe->vocab, text, n_left);
            right = vocab_find(&bpe->vocab, blank + 1, n - n_left - 1);
            id = vocab_find(&bpe->vocab, joined, n - 1);
        }
        if (left < 0 || right < 0 || id < 0)
            status =
                err_set(keys->err, ERR_DATA, "merge %u, '%s': its parts, or what they become, are no tokens", (unsigned)rank, shown(text, n).text);
        else status = bpe_add_merge(bpe, (uint32_t)left, (uint32_t)right, rank, (uint32_t)id, keys->err);
    }
    free(strings.bytes);
    return status;
}

static enum status read_scores(const struct keys *keys, struct bpe *bpe)
{
    uint8_t *bytes = NULL;
    float *scores = calloc(bpe->n_real + 1, sizeof *scores);
    if (!scores) return err_set(keys->err, ERR_MEMORY, "out of memory for scores");
    enum status status = read_array(keys, "tokenizer.ggml.scores", GGUF_F32, bpe->n_real, &bytes);
    for (uint32_t id = 0; bytes && id < bpe->n_real && status == OK; id++) {
        const uint32_t bits = (uint32_t)little(bytes + 4 * (size_t)id, 4);
        memcpy(&scores[id], &bits, sizeof bits);
        if (isnan(scores[id])) status = err_set(keys->err, ERR_DATA, "the score of token %u is not a number", (unsigned)id);
    }
    if (status == OK) status = bpe_add_scored(bpe, scores, keys->err);
    free(bytes);
    free(scores);
    return status;
}

/* Tokens of the types control, user and unknown are found by name. */
static enum status read_types(const struct keys *keys, struct tokenizer *tokenizer)
{
    uint8_t *bytes = NULL;
    struct bpe *bpe = &tokenizer->bpe;
    enum status status = read_array(keys, "tokenizer.ggml.token_type", GGUF_I32, bpe->n_real, &bytes);
    for (uint32_t id = 0; bytes && id < bpe->n_real && status == OK; id++) {
        const uint32_t type = (uint32_t)little(bytes + 4 * (size_t)id, 4);
        size_t n = 0;
        if (!vocab_has(&bpe->vocab, id) || (type != TOKEN_CONTROL && type != TOKEN_USER && type != TOKEN_UNKNOWN)) continue;
        const char *text = vocab_text(&bpe->vocab, id, &n);
        char *copy = malloc(n + 1);
        if (!copy) status = err_set(keys->err, ERR_MEMORY, "out of memory for tokens");
        else memcpy(copy, text, n);
        if (copy) status = tokenizer_add_name(tokenizer, &(struct added_token){ .text = copy, .n = n, .id = (int32_t)id }, false, keys->err);
        free(copy);
    }
    free(bytes);
    return status;
}

/* ---- models ----------------------------------------------------------------------------------------------------------------------- */

/* What a model's rows say of its default for add_bos_token, its BOS and its unknown token. */
struct defaults {
    bool adds_bos;
    int32_t bos, unknown;
};

static enum status make_llama(const struct keys *keys, struct tokenizer *tokenizer, struct defaults *defaults)
{
    int32_t prefixes = 1;
    struct bpe *bpe = &tokenizer->bpe;
    *defaults = (struct defaults){ true, 1, 0 };
    enum status status = read_number(keys, "tokenizer.ggml.add_space_prefix", true, &prefixes);
    if (status == OK && prefixes) status = step_add_prefix(&tokenizer->normalizer, " ", 1, false, false, keys->err);
    if (status == OK) status = step_add_replace(&tokenizer->normalizer, " ", 1, SPACE_MARK, 3, keys->err);
    if (status == OK) status = read_scores(keys, bpe);
    bpe_index(bpe);
    bpe->has_bytes = true;
    bpe->fuses_unknown = true;
    return status == OK ? bpe_make_joints(bpe, keys->err) : status;
}

static enum status make_gpt2(const struct keys *keys, struct tokenizer *tokenizer, struct defaults *defaults)
{
    char *name = NULL;
    size_t n = 0;
    enum status status = read_string(keys, "tokenizer.ggml.pre", &name, &n);
    if (status != OK) return status;
    const struct words *words = name ? find_words(name, n) : find_words("default", 7);
    if (!words) status = err_set(keys->err, ERR_UNSUPPORTED, "llmq does not know the pre-tokenizer '%s'", shown(name, n).text);
    free(name);
    for (unsigned i = 0; i < CUTS_MAX && status == OK && words->cuts[i]; i++)
        status = step_add_cut(&tokenizer->cuts, words->cuts[i], strlen(words->cuts[i]), CUT_ISOLATED, false, keys->err);
    if (status == OK) status = step_add_kind(&tokenizer->cuts, STEP_BYTES, keys->err);
    if (status == OK) status = read_merges(keys, &tokenizer->bpe);
    if (status != OK) return status;
    *defaults = (struct defaults){ words->adds_bos, 11, -1 };
    tokenizer->spells_bytes = true;
    tokenizer->bpe.ignores_merges = words->ignores_merges;
    bpe_index(&tokenizer->bpe);
    return OK;
}

static enum status make_gemma4(const struct keys *keys, struct tokenizer *tokenizer, struct defaults *defaults)
{
    static const char lines[] = "[^\\n]+|[\\n]+";
    struct bpe *bpe = &tokenizer->bpe;
    *defaults = (struct defaults){ true, -1, -1 };
    enum status status = step_add_replace(&tokenizer->normalizer, " ", 1, SPACE_MARK, 3, keys->err);
    if (status == OK) status = step_add_cut(&tokenizer->cuts, lines, sizeof lines - 1, CUT_ISOLATED, false, keys->err);
    if (status == OK) status = read_merges(keys, bpe);
    bpe_index(bpe);
    bpe->has_bytes = true;
    bpe->fuses_unknown = true;
    bpe->knows_newlines = true;
    return status == OK ? bpe_make_joints(bpe, keys->err) : status;
}

static const struct model {
    const char *name;
    enum status (*make)(const struct keys *keys, struct tokenizer *tokenizer, struct defaults *defaults);
    bool always_bos; /* whatever add_bos_token says, which is wrong in files of it */
} models[] = {
    { "llama", make_llama, false },
    { "gpt2", make_gpt2, false },
    { "gemma4", make_gemma4, true },
};

static enum status find_model(const struct keys *keys, const struct model **out)
{
    char *name = NULL;
    size_t n = 0;
    *out = NULL;
    enum status status = read_string(keys, "tokenizer.ggml.model", &name, &n);
    if (status == OK && !name) return err_set(keys->err, ERR_UNSUPPORTED, "it has no key 'tokenizer.ggml.model'");
    for (size_t i = 0; status == OK && i < sizeof models / sizeof models[0]; i++)
        if (strlen(models[i].name) == n && memcmp(models[i].name, name, n) == 0) *out = &models[i];
    if (status == OK && !*out) status = err_set(keys->err, ERR_UNSUPPORTED, "llmq does not know the tokenizer model '%s'", shown(name, n).text);
    free(name);
    return status;
}

/* A default that is no token of this vocabulary is none. */
static int32_t within(const struct tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && (uint32_t)id < tokenizer->bpe.n_real ? id : -1;
}

static enum status read_specials(const struct keys *keys, const struct model *model, struct tokenizer *tokenizer, const struct defaults *defaults)
{
    int32_t adds_bos = defaults->adds_bos, bos = within(tokenizer, defaults->bos), unknown = within(tokenizer, defaults->unknown);
    enum status status = read_number(keys, "tokenizer.ggml.add_bos_token", true, &adds_bos);
    if (status == OK) status = read_number(keys, "tokenizer.ggml.bos_token_id", false, &bos);
    if (status == OK) status = read_number(keys, "tokenizer.ggml.unknown_token_id", false, &unknown);
    if (status != OK) return status;
    tokenizer->bos = bos;
    tokenizer->bpe.unknown = tokenizer->spells_bytes ? -1 : within(tokenizer, unknown);
    if (!adds_bos && !model->always_bos) return OK;
    if (bos < 0) return err_set(keys->err, ERR_DATA, "it wants a token in front of a text, and no key names it");
    tokenizer->front[tokenizer->n_front++] = bos;
    return OK;
}

static enum status fill(const struct keys *keys, struct tokenizer *tokenizer)
{
    const struct model *model = NULL;
    struct defaults defaults = { 0 };
    enum status status = find_model(keys, &model);
    if (status == OK) status = read_tokens(keys, tokenizer);
    if (status != OK) return status;
    tokenizer->bpe.n_real = tokenizer->bpe.vocab.n_ids;
    if (tokenizer->bpe.n_real == 0) return err_set(keys->err, ERR_DATA, "it has no tokens");
    status = model->make(keys, tokenizer, &defaults);
    if (status == OK) status = read_types(keys, tokenizer);
    if (status == OK) status = read_specials(keys, model, tokenizer, &defaults);
    return status == OK ? tokenizer_complete(tokenizer, keys->err) : status;
}

enum status tokenizer_open_gguf(const struct gguf_header *header, const struct gguf_source *source, struct tokenizer **out, struct err *err)
{
    const struct keys keys = { header, source, err };
    *out = NULL;
    struct tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (!tokenizer) return err_set(err, ERR_MEMORY, "out of memory for a tokenizer");
    tokenizer->bos = -1;
    enum status status = fill(&keys, tokenizer);
    if (status == OK) *out = tokenizer;
    else tokenizer_close(tokenizer);
    return status;
}
