/* tokenizer_json_step.c: the steps that a tokenizer.json names; see tokenizer_json_step.h.
 *
 * Formula: ByteLevel = prefix " " if wanted, cut by GPT-2's pattern if wanted, bytes. Metaspace = replace " ", prefix, cut before each mark if wanted.
 * Why this way: see tokenizer_json_step.h.
 * Corner cases: a Metaspace of before 2024 says add_prefix_space and not prepend_scheme; a ByteLevel without use_regex cuts. Normal forms but C change
 * letters for good and belong to models of other kinds: refused, as lower case, stripping of accents and precompiled maps are. A post-processor may put
 * tokens behind the text too: not used here, a text that is judged does not end where its window ends.
 * Reference: see tokenizer_json_step.h. Worked number: the template <s> $A </s> has the front <s>.
 */
#include "smoothquant/tokenizer_json_step.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "container/shown.h"

#define DEPTH_MAX 8
#define GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

typedef enum status read_fn(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err);

struct reader {
    const char *type;
    read_fn *read;
};

/* Finds the reader of tree's type. */
static enum status dispatch(const cJSON *tree, const char *kind, const struct reader *readers, size_t n_readers, struct tokenizer *tokenizer,
                            int depth, struct err *err)
{
    const char *type = NULL;
    if (!tree || cJSON_IsNull(tree)) return OK;
    if (!cJSON_IsObject(tree)) return err_set(err, ERR_DATA, "its %s is not an object", kind);
    enum status status = json_string(json_get(tree, "type"), "type", &type, err);
    if (status != OK) return err_wrap(err, status, "its %s", kind);
    if (depth > DEPTH_MAX) return err_set(err, ERR_UNSUPPORTED, "its %s is nested too deeply", kind);
    for (size_t i = 0; i < n_readers; i++) {
        if (strcmp(readers[i].type, type) != 0) continue;
        status = readers[i].read(tree, tokenizer, depth, err);
        return status == OK ? OK : err_wrap(err, status, "%s '%s'", kind, type);
    }
    return err_set(err, ERR_UNSUPPORTED, "llmq does not know the %s '%s'", kind, shown_str(type).text);
}

static enum status each(const cJSON *list, const char *what, read_fn *read, struct tokenizer *tokenizer, int depth, struct err *err)
{
    const cJSON *item;
    enum status status = OK;
    if (!list || !cJSON_IsArray(list)) return err_set(err, ERR_DATA, "%s is not an array", what);
    cJSON_ArrayForEach(item, list)
    {
        status = read(item, tokenizer, depth + 1, err);
        if (status != OK) break;
    }
    return status;
}

/* A member that is a string; absent: *out stays. */
static enum status optional_string(const cJSON *tree, const char *name, const char **out, struct err *err)
{
    return json_get(tree, name) ? json_string(json_get(tree, name), name, out, err) : OK;
}

static enum status bool_or(const cJSON *tree, const char *name, bool otherwise, bool *out, struct err *err)
{
    const cJSON *item = json_get(tree, name);
    *out = otherwise;
    return item && !cJSON_IsNull(item) ? json_bool(tree, name, out, err) : OK;
}

/* The pattern of a Split or Replace: *literal for a String. */
static enum status read_pattern(const cJSON *tree, const char **text, bool *literal, struct err *err)
{
    const cJSON *pattern = json_get(tree, "pattern");
    const cJSON *string = pattern && cJSON_IsObject(pattern) ? json_get(pattern, "String") : NULL;
    *literal = string != NULL;
    if (string) return json_string(string, "pattern", text, err);
    if (pattern && cJSON_IsString(pattern)) *literal = true;
    if (*literal) return json_string(pattern, "pattern", text, err);
    return json_string(pattern && cJSON_IsObject(pattern) ? json_get(pattern, "Regex") : NULL, "pattern", text, err);
}

/* ---- normalisers ------------------------------------------------------------------------------------------------------------------ */

static enum status read_normalizer(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err);

static enum status read_normalizers(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err)
{
    return each(json_get(tree, "normalizers"), "normalizers", read_normalizer, tokenizer, depth, err);
}

static enum status read_nfc(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err)
{
    (void)tree;
    (void)depth;
    return step_add_kind(&tokenizer->normalizer, STEP_NFC, err);
}

static enum status read_prepend(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err)
{
    const char *text = NULL;
    (void)depth;
    enum status status = json_string(json_get(tree, "prepend"), "prepend", &text, err);
    return status == OK ? step_add_prefix(&tokenizer->normalizer, text, strlen(text), false, false, err) : status;
}

static enum status read_replace(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err)
{
    const char *from = NULL, *to = NULL;
    bool literal = false;
    (void)depth;
    enum status status = read_pattern(tree, &from, &literal, err);
    if (status == OK) status = json_string(json_get(tree, "content"), "content", &to, err);
    if (status != OK) return status;
    if (literal) return step_add_replace(&tokenizer->normalizer, from, strlen(from), to, strlen(to), err);
    struct step step = { .kind = STEP_REPLACE, .n_text = strlen(to) };
    if (step.n_text > sizeof step.text) return err_set(err, ERR_UNSUPPORTED, "its content has %zu bytes", step.n_text);
    memcpy(step.text, to, step.n_text);
    status = tokenizer_pattern_open(from, strlen(from), &step.pattern, err);
    return status == OK ? step_add(&tokenizer->normalizer, &step, err) : status;
}

static const struct reader normalizers[] = {
    { "Sequence", read_normalizers },
    { "NFC", read_nfc },
    { "Prepend", read_prepend },
    { "Replace", read_replace },
};

static enum status read_normalizer(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err)
{
    return dispatch(tree, "normalizer", normalizers, sizeof normalizers / sizeof normalizers[0], tokenizer, depth, err);
}

enum status json_read_normalizer(const cJSON *tree, struct tokenizer *tokenizer, struct err *err)
{
    return read_normalizer(tree, tokenizer, 0, err);
}

/* ---- pre-tokenizers --------------------------------------------------------------------------------------------------------------- */

static enum status read_pre_tokenizer(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err);

static enum status read_pre_tokenizers(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err)
{
    return each(json_get(tree, "pretokenizers"), "pretokenizers", read_pre_tokenizer, tokenizer, depth, err);
}

static enum status read_byte_level(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err)
{
    bool prefixes = true, cuts = true;
    (void)depth;
    enum status status = bool_or(tree, "add_prefix_space", true, &prefixes, err);
    if (status == OK) status = bool_or(tree, "use_regex", true, &cuts, err);
    if (status == OK && prefixes) status = step_add_prefix(&tokenizer->cuts, " ", 1, false, true, err);
    if (status == OK && cuts) status = step_add_cut(&tokenizer->cuts, GPT2_PATTERN, sizeof GPT2_PATTERN - 1, CUT_ISOLATED, false, err);
    if (status == OK) status = step_add_kind(&tokenizer->cuts, STEP_BYTES, err);
    tokenizer->spells_bytes = true;
    return status;
}

static enum status read_rule(const cJSON *tree, const char *otherwise, enum cut_rule *rule, struct err *err)
{
    static const char *const rules[CUT_RULE_COUNT] = { "Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous" };
    const char *name = otherwise;
    enum status status = optional_string(tree, "behavior", &name, err);
    if (status != OK) return status;
    for (unsigned i = 0; name && i < CUT_RULE_COUNT; i++) {
        if (strcmp(rules[i], name) != 0) continue;
        *rule = (enum cut_rule)i;
        return OK;
    }
    return name ? err_set(err, ERR_UNSUPPORTED, "llmq does not know the behavior '%s'", shown_str(name).text)
                : err_set(err, ERR_DATA, "behavior is missing");
}

/* A cut by a text that stands for itself. */
static enum status add_literal_cut(struct tokenizer *tokenizer, const char *text, enum cut_rule rule, bool inverts, struct err *err)
{
    struct text pattern = text_make(TOKENIZER_PATTERN_MAX);
    for (size_t i = 0; text[i]; i++) {
        const unsigned char c = (unsigned char)text[i];
        const bool is_plain = c >= 0x80 || c <= ' ' || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == 0x7f;
        if (!is_plain) text_add_bytes(&pattern, "\\", 1);
        text_add_bytes(&pattern, text + i, 1);
    }
    enum status status = text_ok(&pattern, "a pattern", err);
    if (status == OK) status = step_add_cut(&tokenizer->cuts, pattern.data, pattern.nbytes, rule, inverts, err);
    text_free(&pattern);
    return status;
}

static enum status read_split(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err)
{
    const char *text = NULL;
    bool literal = false, inverts = false;
    enum cut_rule rule = CUT_ISOLATED;
    (void)depth;
    enum status status = read_pattern(tree, &text, &literal, err);
    if (status == OK) status = read_rule(tree, NULL, &rule, err);
    if (status == OK) status = bool_or(tree, "invert", false, &inverts, err);
    if (status != OK) return status;
    if (literal) return add_literal_cut(tokenizer, text, rule, inverts, err);
    return step_add_cut(&tokenizer->cuts, text, strlen(text), rule, inverts, err);
}

static enum status read_digits(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err)
{
    bool single = false;
    (void)depth;
    enum status status = bool_or(tree, "individual_digits", false, &single, err);
    return status == OK ? step_add_cut(&tokenizer->cuts, "\\p{N}", 5, single ? CUT_ISOLATED : CUT_JOINED, false, err) : status;
}

static enum status read_punctuation(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err)
{
    static const char pattern[] = "[!-/:-@\\[-`{-~\\p{P}]";
    enum cut_rule rule = CUT_ISOLATED;
    (void)depth;
    enum status status = read_rule(tree, "Isolated", &rule, err);
    return status == OK ? step_add_cut(&tokenizer->cuts, pattern, sizeof pattern - 1, rule, false, err) : status;
}

static enum status read_whitespace(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err)
{
    static const char pattern[] =
        "[\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}\\x{200c}\\x{200d}]+|"
        "[^\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}\\x{200c}\\x{200d}\\s]"
        "+";
    (void)tree;
    (void)depth;
    return step_add_cut(&tokenizer->cuts, pattern, sizeof pattern - 1, CUT_REMOVED, true, err);
}

static enum status read_whitespace_split(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err)
{
    (void)tree;
    (void)depth;
    return step_add_cut(&tokenizer->cuts, "\\s", 2, CUT_REMOVED, false, err);
}

static enum status read_metaspace(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err)
{
    const char *mark = "\xe2\x96\x81", *scheme = "always";
    bool prefixes = true, cuts = true;
    (void)depth;
    enum status status = optional_string(tree, "replacement", &mark, err);
    if (status == OK) status = optional_string(tree, "prepend_scheme", &scheme, err);
    if (status == OK) status = bool_or(tree, "add_prefix_space", true, &prefixes, err);
    if (status == OK) status = bool_or(tree, "split", true, &cuts, err);
    if (status != OK) return status;
    if (utf8_length(mark, strlen(mark)) != strlen(mark)) return err_set(err, ERR_DATA, "replacement is not one character");
    const bool is_first = strcmp(scheme, "first") == 0, is_always = strcmp(scheme, "always") == 0;
    if (!is_first && !is_always && strcmp(scheme, "never") != 0)
        return err_set(err, ERR_UNSUPPORTED, "llmq does not know the prepend_scheme '%s'", shown_str(scheme).text);
    status = step_add_replace(&tokenizer->cuts, " ", 1, mark, strlen(mark), err);
    if (status == OK && prefixes && (is_first || is_always)) status = step_add_prefix(&tokenizer->cuts, mark, strlen(mark), is_first, true, err);
    if (status == OK && cuts) status = add_literal_cut(tokenizer, mark, CUT_TO_NEXT, false, err);
    return status;
}

static const struct reader pre_tokenizers[] = {
    { "Sequence", read_pre_tokenizers },
    { "ByteLevel", read_byte_level },
    { "Split", read_split },
    { "Digits", read_digits },
    { "Punctuation", read_punctuation },
    { "Whitespace", read_whitespace },
    { "WhitespaceSplit", read_whitespace_split },
    { "Metaspace", read_metaspace },
};

static enum status read_pre_tokenizer(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err)
{
    return dispatch(tree, "pre-tokenizer", pre_tokenizers, sizeof pre_tokenizers / sizeof pre_tokenizers[0], tokenizer, depth, err);
}

enum status json_read_pre_tokenizer(const cJSON *tree, struct tokenizer *tokenizer, struct err *err)
{
    return read_pre_tokenizer(tree, tokenizer, 0, err);
}

/* ---- post-processors -------------------------------------------------------------------------------------------------------------- */

static enum status add_front(struct tokenizer *tokenizer, const cJSON *id, struct err *err)
{
    uint64_t value = 0;
    enum status status = json_u64(id, "the id of a special token", &value, err);
    if (status != OK) return status;
    if (value >= TOKENIZER_IDS_MAX) return err_set(err, ERR_DATA, "token %llu is not below %u", (unsigned long long)value, TOKENIZER_IDS_MAX);
    if (tokenizer->n_front == TOKENIZER_FRONT_MAX) return err_set(err, ERR_UNSUPPORTED, "more than %u tokens before a text", TOKENIZER_FRONT_MAX);
    tokenizer->front[tokenizer->n_front++] = (int32_t)value;
    return OK;
}

static enum status read_post_processor(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err);

static enum status read_post_processors(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err)
{
    return each(json_get(tree, "processors"), "processors", read_post_processor, tokenizer, depth, err);
}

static enum status add_special(const cJSON *tree, const cJSON *special, struct tokenizer *tokenizer, struct err *err)
{
    const char *name = NULL;
    enum status status = json_string(json_get(special, "id"), "id", &name, err);
    if (status != OK) return status;
    const cJSON *tokens = json_get(tree, "special_tokens");
    const cJSON *token = tokens && cJSON_IsObject(tokens) ? json_get(tokens, name) : NULL;
    const cJSON *ids = token && cJSON_IsObject(token) ? json_get(token, "ids") : NULL, *id;
    if (!ids || !cJSON_IsArray(ids)) return err_set(err, ERR_DATA, "it has no ids for '%s'", shown_str(name).text);
    cJSON_ArrayForEach(id, ids)
    {
        status = add_front(tokenizer, id, err);
        if (status != OK) break;
    }
    return status;
}

/* One processor after another: what a later one puts in front stands before what is there. */
static enum status read_template(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err)
{
    const cJSON *single = json_get(tree, "single"), *item;
    const size_t n_before = tokenizer->n_front;
    int32_t before[TOKENIZER_FRONT_MAX];
    enum status status = OK;
    (void)depth;
    if (!single || !cJSON_IsArray(single)) return err_set(err, ERR_DATA, "single is not an array");
    memcpy(before, tokenizer->front, sizeof before);
    tokenizer->n_front = 0;
    cJSON_ArrayForEach(item, single)
    {
        const cJSON *special = cJSON_IsObject(item) ? json_get(item, "SpecialToken") : NULL;
        if (!special || !cJSON_IsObject(special)) break; /* the text itself */
        status = add_special(tree, special, tokenizer, err);
        if (status != OK) return status;
    }
    for (size_t i = 0; i < n_before; i++) {
        if (tokenizer->n_front == TOKENIZER_FRONT_MAX) return err_set(err, ERR_UNSUPPORTED, "more than %u tokens before a text", TOKENIZER_FRONT_MAX);
        tokenizer->front[tokenizer->n_front++] = before[i];
    }
    return OK;
}

/* RobertaProcessing, BertProcessing: "cls": ["<s>", 0] */
static enum status read_cls(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err)
{
    const cJSON *cls = json_get(tree, "cls");
    (void)depth;
    if (!cls || !cJSON_IsArray(cls) || !cls->child || !cls->child->next) return err_set(err, ERR_DATA, "cls is not a token and its id");
    return add_front(tokenizer, cls->child->next, err);
}

static enum status read_nothing(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err)
{
    (void)tree;
    (void)tokenizer;
    (void)depth;
    (void)err;
    return OK;
}

static const struct reader post_processors[] = {
    { "Sequence", read_post_processors }, { "ByteLevel", read_nothing },  { "TemplateProcessing", read_template },
    { "RobertaProcessing", read_cls },    { "BertProcessing", read_cls },
};

static enum status read_post_processor(const cJSON *tree, struct tokenizer *tokenizer, int depth, struct err *err)
{
    return dispatch(tree, "post-processor", post_processors, sizeof post_processors / sizeof post_processors[0], tokenizer, depth, err);
}

enum status json_read_post_processor(const cJSON *tree, struct tokenizer *tokenizer, struct err *err)
{
    return read_post_processor(tree, tokenizer, 0, err);
}
