/* tokenizer_json.c: opens a tokenizer.json, with what tokenizer_config.json and config.json say of the token that begins a text.
 *
 *   { "added_tokens": [...], "normalizer": ..., "pre_tokenizer": ..., "post_processor": ..., "model": { "type": "BPE", "vocab": {...}, "merges": [...] } }
 *
 * Why this way: vocabulary and merges, nearly all of up to 35 MB, are walked and never become trees.
 * Corner cases: a model without a type that has merges is BPE, as files of 2020 are. Merges are "a b" or ["a", "b"]; one whose parts or result are no
 * tokens is an error, so is a dropout above 0 (the ids would differ from run to run). In front of a text stands what the post-processor says; add_bos_token in
 * tokenizer_config.json overrules it, with its bos_token or the bos_token_id of config.json. The id of an added token that the vocabulary has is the
 * vocabulary's, as in the reference.
 * Reference: tokenizers 0.23, models/bpe/serialization.rs. Worked number: vocab a 0, b 1, ab 2, merges "a b": "abab" is 2 2.
 */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "container/shown.h"
#include "smoothquant/tokenizer_items.h"
#include "smoothquant/tokenizer_json_step.h"

#define VALUES_MAX ((uint64_t)1 << 25)
#define CONFIG_NBYTES_MAX ((size_t)16 << 20)

static const struct json_limits limits = { .max_depth = 64, .max_values = VALUES_MAX };

/* The text of a member; NULL: not there. */
struct member {
    const char *text;
    size_t n;
};

/* Members of an object, by the name's place in names. */
struct members {
    const char *const *names;
    size_t n_names;
    struct member *found;
};

static enum status take_member(void *context, const char *key, size_t key_nbytes, const char *value, size_t value_nbytes, struct err *err)
{
    const struct members *members = context;
    (void)err;
    for (size_t i = 0; i < members->n_names; i++)
        if (strlen(members->names[i]) == key_nbytes && memcmp(members->names[i], key, key_nbytes) == 0)
            members->found[i] = (struct member){ value, value_nbytes };
    return OK;
}

enum { TOP_ADDED, TOP_NORMALIZER, TOP_PRE, TOP_POST, TOP_MODEL, TOP_COUNT };
static const char *const top_names[TOP_COUNT] = { "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model" };

enum {
    MODEL_TYPE,
    MODEL_VOCAB,
    MODEL_MERGES,
    MODEL_DROPOUT,
    MODEL_UNKNOWN,
    MODEL_PREFIX,
    MODEL_SUFFIX,
    MODEL_FUSE,
    MODEL_BYTES,
    MODEL_IGNORE,
    MODEL_COUNT
};
static const char *const model_names[MODEL_COUNT] = {
    "type", "vocab", "merges", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges"
};

static bool is_null(const struct member *member)
{
    return !member->text || (member->n == 4 && memcmp(member->text, "null", 4) == 0);
}

/* ---- the model -------------------------------------------------------------------------------------------------------------------- */

static enum status take_token(void *context, const char *key, size_t key_nbytes, const char *value, size_t value_nbytes, struct err *err)
{
    struct tokenizer *tokenizer = context;
    uint64_t id = 0;
    for (size_t i = 0; i < value_nbytes; i++) {
        if (value[i] < '0' || value[i] > '9' || value_nbytes > 10) return err_set(err, ERR_DATA, "token '%s' has no id", shown(key, key_nbytes).text);
        id = id * 10 + (uint64_t)(value[i] - '0');
    }
    return vocab_add(&tokenizer->bpe.vocab, key, key_nbytes, id, err);
}

/* The two parts of a merge: ["a", "b"], or "a b". held: two buffers for what has escapes. */
static bool read_merge(const char *item, size_t n, char *held[2], struct member parts[2])
{
    struct items pair;
    if (items_open(&pair, item, n)) {
        const char *part;
        size_t n_part;
        for (unsigned i = 0; i < 2; i++)
            if (!items_next(&pair, &part, &n_part) || !items_string(part, n_part, &held[i], &parts[i].text, &parts[i].n)) return false;
        return !items_next(&pair, &part, &n_part);
    }
    if (!items_string(item, n, &held[0], &parts[0].text, &parts[0].n)) return false;
    const char *blank = memchr(parts[0].text, ' ', parts[0].n);
    if (!blank) return false;
    parts[1].text = blank + 1;
    parts[1].n = parts[0].n - (size_t)(blank + 1 - parts[0].text);
    parts[0].n = (size_t)(blank - parts[0].text);
    return !memchr(parts[1].text, ' ', parts[1].n);
}

static enum status add_merge(struct bpe *bpe, const struct member parts[2], uint32_t rank, struct err *err)
{
    char joined[2 * TOKENIZER_TOKEN_MAX];
    const size_t n = parts[0].n + parts[1].n;
    const int32_t left = vocab_find(&bpe->vocab, parts[0].text, parts[0].n), right = vocab_find(&bpe->vocab, parts[1].text, parts[1].n);
    int32_t id = -1;
    if (left >= 0 && right >= 0) {
        memcpy(joined, parts[0].text, parts[0].n);
        memcpy(joined + parts[0].n, parts[1].text, parts[1].n);
        id = vocab_find(&bpe->vocab, joined, n);
    }
    if (id < 0)
        return err_set(err, ERR_DATA, "merge %u: '%s' and '%s', or what they become, are no tokens", (unsigned)rank,
                       shown(parts[0].text, parts[0].n).text, shown(parts[1].text, parts[1].n).text);
    return bpe_add_merge(bpe, (uint32_t)left, (uint32_t)right, rank, (uint32_t)id, err);
}

static enum status read_merges(struct tokenizer *tokenizer, const struct member *merges, struct err *err)
{
    struct items items;
    const char *item;
    char *held[2] = { NULL, NULL };
    size_t n;
    enum status status = OK;
    if (!merges->text || !items_open(&items, merges->text, merges->n)) return err_set(err, ERR_DATA, "merges is not an array");
    for (uint32_t rank = 0; status == OK && items_next(&items, &item, &n); rank++) {
        struct member parts[2] = { { NULL, 0 }, { NULL, 0 } };
        status = read_merge(item, n, held, parts) ? add_merge(&tokenizer->bpe, parts, rank, err)
                                                  : err_set(err, ERR_DATA, "merge %u is neither \"a b\" nor [\"a\", \"b\"]", (unsigned)rank);
    }
    free(held[0]);
    free(held[1]);
    return status;
}

static enum status read_flag(const struct member *member, const char *name, bool *out, struct err *err)
{
    *out = member->n == 4 && member->text && memcmp(member->text, "true", 4) == 0;
    if (is_null(member) || *out || (member->n == 5 && memcmp(member->text, "false", 5) == 0)) return OK;
    return err_set(err, ERR_DATA, "%s is neither true nor false", name);
}

/* Members that must be null, an empty string, or 0 for a dropout. */
static enum status refuse_rest(const struct member *found, struct err *err)
{
    static const unsigned affixes[] = { MODEL_PREFIX, MODEL_SUFFIX };
    for (size_t i = 0; i < 2; i++) {
        const struct member *affix = &found[affixes[i]];
        if (!is_null(affix) && !(affix->n == 2 && memcmp(affix->text, "\"\"", 2) == 0))
            return err_set(err, ERR_UNSUPPORTED, "llmq does not know %s", model_names[affixes[i]]);
    }
    for (size_t i = 0; !is_null(&found[MODEL_DROPOUT]) && i < found[MODEL_DROPOUT].n; i++)
        if (!strchr("0.", found[MODEL_DROPOUT].text[i])) return err_set(err, ERR_UNSUPPORTED, "a dropout makes the tokens differ from run to run");
    return OK;
}

static enum status read_unknown(struct tokenizer *tokenizer, const struct member *unknown, struct err *err)
{
    char *held = NULL;
    const char *text;
    size_t n;
    tokenizer->bpe.unknown = -1;
    if (is_null(unknown)) return OK;
    if (!items_string(unknown->text, unknown->n, &held, &text, &n)) return err_set(err, ERR_DATA, "unk_token is not a string");
    tokenizer->bpe.unknown = vocab_find(&tokenizer->bpe.vocab, text, n);
    const bool is_bad = tokenizer->bpe.unknown < 0 && n > 0;
    if (is_bad) err_set(err, ERR_DATA, "unk_token '%s' is no token", shown(text, n).text);
    free(held);
    return is_bad ? ERR_DATA : OK;
}

static enum status check_type(const struct member *found, struct err *err)
{
    const struct member *type = &found[MODEL_TYPE];
    if (is_null(type) && found[MODEL_MERGES].text) return OK;
    if (is_null(type)) return err_set(err, ERR_UNSUPPORTED, "its model has no type");
    if (type->n == 5 && memcmp(type->text, "\"BPE\"", 5) == 0) return OK;
    return err_set(err, ERR_UNSUPPORTED, "llmq does not know the model type %.*s", (int)(type->n < 60 ? type->n : 60), type->text);
}

static enum status read_model(struct tokenizer *tokenizer, const struct member *model, struct err *err)
{
    struct member found[MODEL_COUNT] = { { NULL, 0 } };
    struct members members = { model_names, MODEL_COUNT, found };
    struct bpe *bpe = &tokenizer->bpe;
    if (!model->text || model->text[0] != '{') return err_set(err, ERR_DATA, "model is not an object");
    enum status status = json_walk_object(model->text, model->n, &limits, take_member, &members, err);
    if (status == OK) status = check_type(found, err);
    if (status == OK) status = refuse_rest(found, err);
    if (status == OK && (!found[MODEL_VOCAB].text || found[MODEL_VOCAB].text[0] != '{')) status = err_set(err, ERR_DATA, "vocab is not an object");
    if (status == OK) status = json_walk_object(found[MODEL_VOCAB].text, found[MODEL_VOCAB].n, &limits, take_token, tokenizer, err);
    if (status == OK) status = read_merges(tokenizer, &found[MODEL_MERGES], err);
    if (status == OK) status = read_flag(&found[MODEL_FUSE], "fuse_unk", &bpe->fuses_unknown, err);
    if (status == OK) status = read_flag(&found[MODEL_BYTES], "byte_fallback", &bpe->has_bytes, err);
    if (status == OK) status = read_flag(&found[MODEL_IGNORE], "ignore_merges", &bpe->ignores_merges, err);
    if (status == OK) status = read_unknown(tokenizer, &found[MODEL_UNKNOWN], err);
    if (status == OK) bpe_index(bpe);
    return status;
}

/* ---- added tokens ----------------------------------------------------------------------------------------------------------------- */

static enum status add_named(struct tokenizer *tokenizer, const char *content, struct added_token *token, bool normalized, struct err *err)
{
    enum status status = OK;
    token->n = strlen(content);
    const int32_t id = vocab_find(&tokenizer->bpe.vocab, content, token->n);
    if (id >= 0) token->id = id;
    else if (vocab_find(&tokenizer->names, content, token->n) < 0) status = vocab_add(&tokenizer->names, content, token->n, (uint64_t)token->id, err);
    if (status != OK || token->n == 0) return status;
    struct text text = text_make(TOKENIZER_TOKEN_MAX);
    if (normalized) status = tokenizer_normalize(tokenizer, content, token->n, &text, err);
    else text_add_bytes(&text, content, token->n);
    if (status == OK) status = text_ok(&text, "an added token", err);
    token->text = text.data;
    token->n = text.nbytes;
    if (status == OK) status = tokenizer_add_name(tokenizer, token, normalized, err);
    text_free(&text);
    return status;
}

static enum status read_added_token(struct tokenizer *tokenizer, const cJSON *tree, struct err *err)
{
    struct added_token token = { 0 };
    const char *content = NULL;
    bool normalized = false;
    uint32_t id = 0;
    if (!cJSON_IsObject(tree)) return err_set(err, ERR_DATA, "it is not an object");
    enum status status = json_string(json_get(tree, "content"), "content", &content, err);
    if (status == OK) status = json_u32_in(tree, "id", 0, TOKENIZER_IDS_MAX - 1, &id, err);
    if (status == OK) status = json_bool(tree, "single_word", &token.single_word, err);
    if (status == OK) status = json_bool(tree, "lstrip", &token.strips_left, err);
    if (status == OK) status = json_bool(tree, "rstrip", &token.strips_right, err);
    if (status == OK) status = json_bool(tree, "normalized", &normalized, err);
    token.id = (int32_t)id;
    return status == OK ? add_named(tokenizer, content, &token, normalized, err) : status;
}

/* Names go after the normaliser, which they may pass through. */
static enum status read_added(struct tokenizer *tokenizer, const struct member *added, struct err *err)
{
    struct items items;
    const char *item;
    size_t n;
    enum status status = OK;
    if (is_null(added)) return OK;
    if (!items_open(&items, added->text, added->n)) return err_set(err, ERR_DATA, "added_tokens is not an array");
    for (unsigned i = 0; status == OK && items_next(&items, &item, &n); i++) {
        cJSON *tree = NULL;
        status = json_parse_checked(item, n, &tree, err);
        if (status == OK) status = read_added_token(tokenizer, tree, err);
        if (status != OK) err_wrap(err, status, "added token %u", i);
        cJSON_Delete(tree);
    }
    return status;
}

typedef enum status read_tree_fn(const cJSON *tree, struct tokenizer *tokenizer, struct err *err);

static enum status read_tree(const struct member *member, read_tree_fn *read, struct tokenizer *tokenizer, struct err *err)
{
    cJSON *tree = NULL;
    if (is_null(member)) return OK;
    enum status status = json_parse_checked(member->text, member->n, &tree, err);
    if (status == OK) status = read(tree, tokenizer, err);
    cJSON_Delete(tree);
    return status;
}

static enum status read_tokenizer(const struct tokenizer_file *file, struct tokenizer *tokenizer, struct err *err)
{
    struct member found[TOP_COUNT] = { { NULL, 0 } };
    struct members members = { top_names, TOP_COUNT, found };
    if (file->nbytes > TOKENIZER_FILE_MAX) return err_set(err, ERR_UNSUPPORTED, "it has %zu bytes", file->nbytes);
    enum status status = json_walk_object(file->text, file->nbytes, &limits, take_member, &members, err);
    if (status == OK) status = read_model(tokenizer, &found[TOP_MODEL], err);
    if (status == OK) status = read_tree(&found[TOP_NORMALIZER], json_read_normalizer, tokenizer, err);
    if (status == OK) status = read_tree(&found[TOP_PRE], json_read_pre_tokenizer, tokenizer, err);
    if (status == OK) status = read_tree(&found[TOP_POST], json_read_post_processor, tokenizer, err);
    if (status == OK) status = read_added(tokenizer, &found[TOP_ADDED], err);
    if (status == OK && !tokenizer->spells_bytes && !tokenizer->bpe.ignores_merges) status = bpe_make_joints(&tokenizer->bpe, err);
    return status;
}

/* ---- what begins a text ----------------------------------------------------------------------------------------------------------- */

/* The tree of a small file, or NULL when it is not there. */
static enum status parse_file(const struct tokenizer_file *file, cJSON **tree, struct err *err)
{
    static const struct json_limits small = { .max_depth = 64, .max_values = 1u << 20 };
    *tree = NULL;
    if (!file->text) return OK;
    if (file->nbytes > CONFIG_NBYTES_MAX) return err_set(err, ERR_UNSUPPORTED, "it has %zu bytes", file->nbytes);
    enum status status = json_parse(file->text, file->nbytes, &small, tree, err);
    if (status != OK || cJSON_IsObject(*tree)) return status;
    cJSON_Delete(*tree);
    *tree = NULL;
    return err_set(err, ERR_DATA, "it is not an object");
}

/* bos_token is a string, or an object with its content. */
static int32_t named_bos(const struct tokenizer *tokenizer, const cJSON *config)
{
    const cJSON *token = json_get(config, "bos_token");
    if (token && cJSON_IsObject(token)) token = json_get(token, "content");
    return token && cJSON_IsString(token) ? tokenizer_find(tokenizer, token->valuestring, strlen(token->valuestring)) : -1;
}

static int32_t numbered_bos(const struct tokenizer *tokenizer, const cJSON *config)
{
    struct err err;
    uint64_t id = 0;
    const cJSON *item = json_get(config, "bos_token_id");
    if (!item || !cJSON_IsNumber(item) || json_u64(item, "bos_token_id", &id, &err) != OK) return -1;
    return id < tokenizer->n_ids || id < tokenizer->bpe.n_real ? (int32_t)id : -1;
}

static enum status read_bos(const cJSON *tokenizer_config, const cJSON *config, struct tokenizer *tokenizer, struct err *err)
{
    const cJSON *adds = tokenizer_config ? json_get(tokenizer_config, "add_bos_token") : NULL;
    tokenizer->bos = tokenizer->n_front ? tokenizer->front[0] : -1;
    if (tokenizer->bos < 0 && tokenizer_config) tokenizer->bos = named_bos(tokenizer, tokenizer_config);
    if (tokenizer->bos < 0 && config) tokenizer->bos = numbered_bos(tokenizer, config);
    if (!adds || !cJSON_IsBool(adds)) return OK;
    if (!cJSON_IsTrue(adds)) {
        tokenizer->n_front = 0;
    } else if (tokenizer->n_front == 0) {
        if (tokenizer->bos < 0) return err_set(err, ERR_DATA, "tokenizer_config.json: add_bos_token is true, and no file names a token for it");
        tokenizer->front[tokenizer->n_front++] = tokenizer->bos;
    }
    return OK;
}

static enum status read_configs(const struct tokenizer_files *files, struct tokenizer *tokenizer, struct err *err)
{
    cJSON *tokenizer_config = NULL, *config = NULL;
    enum status status = parse_file(&files->tokenizer_config, &tokenizer_config, err);
    if (status != OK) err_wrap(err, status, "tokenizer_config.json");
    if (status == OK) {
        status = parse_file(&files->config, &config, err);
        if (status != OK) err_wrap(err, status, "config.json");
    }
    if (status == OK) status = read_bos(tokenizer_config, config, tokenizer, err);
    cJSON_Delete(tokenizer_config);
    cJSON_Delete(config);
    return status;
}

enum status tokenizer_open_json(const struct tokenizer_files *files, struct tokenizer **out, struct err *err)
{
    *out = NULL;
    struct tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (!tokenizer) return err_set(err, ERR_MEMORY, "out of memory for a tokenizer");
    tokenizer->bos = -1;
    enum status status = read_tokenizer(&files->tokenizer, tokenizer, err);
    if (status != OK) err_wrap(err, status, "tokenizer.json");
    if (status == OK) status = read_configs(files, tokenizer, err);
    if (status == OK) status = tokenizer_complete(tokenizer, err);
    if (status == OK) *out = tokenizer;
    else tokenizer_close(tokenizer);
    return status;
}
