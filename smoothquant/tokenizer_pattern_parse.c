/* tokenizer_pattern_parse.c: from the text of a pattern to its program; see tokenizer_pattern.h.
 *
 * Formula: x* = L: split +1, E | x | jump L | E:      x{2,3} = x x split +1, E | x | E:      a|b = split +1, B | a | jump E | B: jump +1 | b | E:
 * Why this way: what is repeated is read again for each of its copies, from the place where it began; there is no tree. A class is read once, its place
 * in the text is its key.
 * Corner cases: nesting, reading again, instructions and classes have limits. A quantifier after a quantifier, a possessive or lazy {n,m} and unknown
 * escapes are refused. An empty alternative matches the empty string.
 * Reference: see tokenizer_pattern.h. Worked number: \p{N}{1,3} is one instruction: loop {digits} 1..3.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "container/shown.h"
#include "smoothquant/tokenizer_pattern_self.h"
#include "smoothquant/unicode.h"

#define DEPTH_MAX 16u
#define CODES_MAX 16384u
#define SETS_MAX 512u
#define READS_MAX 200000u
#define REPEAT_MAX 10000u
#define NO_LIMIT UINT32_MAX

struct parse {
    struct tokenizer_pattern *out;
    const char *text;
    size_t n, at;
    unsigned depth;
    bool folds; /* inside (?i: */
    uint32_t n_reads;
    struct err *err;
};

static enum status refuse(struct parse *p, enum status code, const char *what)
{
    return err_set(p->err, code, "pattern '%s': byte %zu: %s", p->out->shown, p->at, what);
}

static enum status unknown(struct parse *p, const char *what)
{
    return refuse(p, ERR_UNSUPPORTED, what);
}

static enum status no_memory(struct parse *p)
{
    return refuse(p, ERR_MEMORY, "out of memory");
}

static bool is_at(const struct parse *p, const char *what)
{
    size_t n = strlen(what);
    return p->n - p->at >= n && memcmp(p->text + p->at, what, n) == 0;
}

static bool take(struct parse *p, const char *what)
{
    if (!is_at(p, what)) return false;
    p->at += strlen(what);
    return true;
}

/* ---- program ---------------------------------------------------------------------------------------------------------------------- */

static enum status emit(struct parse *p, struct pattern_code code, size_t *index)
{
    struct tokenizer_pattern *out = p->out;
    if (out->n_codes >= CODES_MAX) return unknown(p, "the pattern becomes too long");
    if (out->n_codes == out->codes_capacity) {
        size_t capacity = out->codes_capacity ? out->codes_capacity * 2 : 64;
        struct pattern_code *codes = realloc(out->codes, capacity * sizeof *codes);
        if (!codes) return no_memory(p);
        out->codes = codes;
        out->codes_capacity = capacity;
    }
    if (index) *index = out->n_codes;
    out->codes[out->n_codes++] = code;
    return OK;
}

static uint32_t here(const struct parse *p)
{
    return (uint32_t)p->out->n_codes;
}

/* ---- classes ---------------------------------------------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* Up to n_max hexadecimal digits, at least n_min. */
static enum status take_hex(struct parse *p, size_t n_min, size_t n_max, uint32_t *code)
{
    size_t n = 0;
    *code = 0;
    for (; n < n_max && p->at < p->n && hex_digit(p->text[p->at]) >= 0; n++) *code = *code << 4 | (uint32_t)hex_digit(p->text[p->at++]);
    if (n < n_min) return refuse(p, ERR_DATA, "hexadecimal digits are missing");
    return *code > UNICODE_MAX ? refuse(p, ERR_DATA, "this is no code point") : OK;
}

static enum status take_numbered(struct parse *p, uint32_t *code)
{
    if (take(p, "\\u")) return take_hex(p, 4, 4, code);
    p->at += 2;
    if (!take(p, "{")) return take_hex(p, 2, 2, code);
    enum status status = take_hex(p, 1, 6, code);
    if (status == OK && !take(p, "}")) return refuse(p, ERR_DATA, "'}' is missing");
    return status;
}

/* An escape that means one code point, at its backslash. */
static enum status take_escape(struct parse *p, uint32_t *code)
{
    static const char from[] = "rntfvae", to[] = "\r\n\t\f\v\a\x1b";
    if (p->n - p->at < 2) return refuse(p, ERR_DATA, "the pattern ends early");
    char c = p->text[p->at + 1];
    if (c == 'x' || c == 'u') return take_numbered(p, code);
    const char *found = memchr(from, c, sizeof from - 1);
    const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (unsigned char)c >= 0x80;
    if (!found && is_letter) return unknown(p, "this escape is not known");
    *code = (unsigned char)(found ? to[found - from] : c);
    p->at += 2;
    return OK;
}

static enum status take_character(struct parse *p, uint32_t *code)
{
    if (is_at(p, "\\")) return take_escape(p, code);
    size_t length = utf8_length(p->text + p->at, p->n - p->at);
    if (length == 0) return refuse(p, ERR_DATA, "invalid UTF-8");
    *code = unicode_decode(p->text + p->at, length);
    p->at += length;
    return OK;
}

/* \p{Name}, \P{Name}, \p{^Name}; *complement when it is what is not called so. */
static enum status take_property(struct parse *p, uint32_t *mask, bool *complement)
{
    *complement = is_at(p, "\\P");
    p->at += 2;
    if (!take(p, "{")) return unknown(p, "'{' expected after \\p");
    if (take(p, "^")) *complement = !*complement;
    const char *end = memchr(p->text + p->at, '}', p->n - p->at);
    if (!end) return refuse(p, ERR_DATA, "'}' is missing");
    size_t n = (size_t)(end - p->text) - p->at;
    *mask = unicode_category_mask(p->text + p->at, n);
    if (*mask == 0) return unknown(p, "this property is not known");
    if (p->folds && n == 2) return unknown(p, "a property of case without case");
    p->at += n + 1;
    return OK;
}

/* \w as Oniguruma has it: Alphabetic, marks, decimal digits, connectors, and six numbers of Latin-1. */
static bool add_word(struct tokenizer_set *set)
{
    static const uint32_t latin[][2] = { { 0xb2, 0xb3 }, { 0xb9, 0xb9 }, { 0xbc, 0xbe } };
    bool added = tokenizer_set_add_categories(set, unicode_category_mask("L", 1) | unicode_category_mask("M", 1) | unicode_category_mask("Nd", 2) |
                                                       unicode_category_mask("Nl", 2) | unicode_category_mask("Pc", 2));
    for (unsigned i = 0; i < 3; i++) added = added && tokenizer_set_add(set, latin[i][0], latin[i][1]);
    for (unsigned i = 0; i < UNICODE_CIRCLED_COUNT; i++) added = added && tokenizer_set_add(set, unicode_circled[i][0], unicode_circled[i][1]);
    return added;
}

/* A named class into set; *is_class says whether there is one here. */
static enum status take_named(struct parse *p, struct tokenizer_set *set, bool *is_class)
{
    struct tokenizer_set named = { 0 };
    uint32_t mask = 0;
    *is_class = p->n - p->at >= 2 && p->text[p->at] == '\\' && p->text[p->at + 1] != '\0' && strchr("pPsSdDwW", p->text[p->at + 1]);
    if (!*is_class) return OK;
    const char c = p->text[p->at + 1], lower = (char)(c | 0x20);
    bool complement = c != lower;
    if (lower == 'p') {
        enum status status = take_property(p, &mask, &complement);
        if (status != OK) return status;
    } else {
        p->at += 2;
    }
    bool made = lower == 's'   ? tokenizer_set_add_spaces(&named)
                : lower == 'w' ? add_word(&named)
                               : tokenizer_set_add_categories(&named, lower == 'd' ? unicode_category_mask("Nd", 2) : mask);
    made = made && tokenizer_set_close_ranges(&named, complement) && tokenizer_set_add_set(set, &named);
    tokenizer_set_free(&named);
    return made ? OK : no_memory(p);
}

/* The other case of the ASCII letters of first..last, and what folds to s and k. */
static bool add_other_case(struct tokenizer_set *set, uint32_t first, uint32_t last)
{
    for (uint32_t code = first; code <= last && code < 0x80; code++) {
        uint32_t lower = code | 0x20;
        if (lower < 'a' || lower > 'z') continue;
        if (!tokenizer_set_add(set, code ^ 0x20, code ^ 0x20)) return false;
        if (lower == 's' && !tokenizer_set_add(set, 0x17f, 0x17f)) return false;
        if (lower == 'k' && !tokenizer_set_add(set, 0x212a, 0x212a)) return false;
    }
    return true;
}

static enum status add_range(struct parse *p, struct tokenizer_set *set, uint32_t first, uint32_t last)
{
    if (p->folds && last >= 0x80) return unknown(p, "letters beyond ASCII without case");
    if (!tokenizer_set_add(set, first, last)) return no_memory(p);
    return !p->folds || add_other_case(set, first, last) ? OK : no_memory(p);
}

static enum status take_class(struct parse *p, struct tokenizer_set *set);

/* One member of a class: a nested class, a named one, a character, a range. */
static enum status take_member(struct parse *p, struct tokenizer_set *set)
{
    bool is_named = false;
    uint32_t first = 0, last = 0;
    if (is_at(p, "[:")) return unknown(p, "a POSIX class");
    if (is_at(p, "&&")) return unknown(p, "'&&' in a class");
    if (is_at(p, "[")) {
        struct tokenizer_set nested = { 0 };
        if (++p->depth > DEPTH_MAX) return unknown(p, "nested too deeply");
        enum status status = take_class(p, &nested);
        p->depth--;
        if (status == OK && !tokenizer_set_add_set(set, &nested)) status = no_memory(p);
        tokenizer_set_free(&nested);
        return status;
    }
    enum status status = take_named(p, set, &is_named);
    if (status != OK || is_named) return status;
    status = take_character(p, &first);
    last = first;
    if (status == OK && is_at(p, "-") && p->n - p->at > 1 && p->text[p->at + 1] != ']') {
        p->at++;
        if (is_at(p, "[")) return unknown(p, "a range that ends in '['");
        status = take_character(p, &last);
        if (status == OK && last < first) return refuse(p, ERR_DATA, "a range that ends before it begins");
    }
    return status == OK ? add_range(p, set, first, last) : status;
}

/* From '[' to behind ']'. */
static enum status take_class(struct parse *p, struct tokenizer_set *set)
{
    p->at++;
    bool complement = take(p, "^"), first = true;
    for (;; first = false) {
        if (p->at == p->n) return refuse(p, ERR_DATA, "']' is missing");
        if (is_at(p, "]")) {
            if (first) return unknown(p, "']' first in a class");
            p->at++;
            return tokenizer_set_close_ranges(set, complement) ? OK : no_memory(p);
        }
        enum status status = take_member(p, set);
        if (status != OK) return status;
    }
}

/* A single code point, a class, or '.'. */
static enum status take_set(struct parse *p, struct tokenizer_set *set)
{
    bool is_named = false;
    uint32_t code = 0;
    if (is_at(p, "[")) return take_class(p, set);
    if (take(p, ".")) return tokenizer_set_add(set, '\n', '\n') && tokenizer_set_close_ranges(set, true) ? OK : no_memory(p);
    enum status status = take_named(p, set, &is_named);
    if (status == OK && !is_named) {
        status = take_character(p, &code);
        if (status == OK) status = add_range(p, set, code, code);
    }
    if (status != OK) return status;
    return tokenizer_set_close_ranges(set, false) ? OK : no_memory(p);
}

static bool grow_sets(struct tokenizer_pattern *out)
{
    size_t capacity = out->sets_capacity ? out->sets_capacity * 2 : 16;
    struct tokenizer_set *sets = realloc(out->sets, capacity * sizeof *sets);
    if (sets) out->sets = sets;
    size_t *at = realloc(out->set_at, capacity * sizeof *at);
    if (at) out->set_at = at;
    bool *folds = realloc(out->set_folds, capacity * sizeof *folds);
    if (folds) out->set_folds = folds;
    if (!sets || !at || !folds) return false;
    out->sets_capacity = capacity;
    return true;
}

/* The number of the class with this key, which is set unless it is there already; set is taken over. */
static enum status keep_set(struct parse *p, struct tokenizer_set *set, size_t key, uint32_t *index)
{
    struct tokenizer_pattern *out = p->out;
    enum status status = OK;
    for (size_t i = 0; i < out->n_sets; i++) {
        if (out->set_at[i] != key || out->set_folds[i] != p->folds) continue;
        tokenizer_set_free(set);
        *index = (uint32_t)i;
        return OK;
    }
    if (out->n_sets >= SETS_MAX) status = unknown(p, "too many classes");
    else if (out->n_sets == out->sets_capacity && !grow_sets(out)) status = no_memory(p);
    if (status != OK) {
        tokenizer_set_free(set);
        return status;
    }
    out->set_at[out->n_sets] = key;
    out->set_folds[out->n_sets] = p->folds;
    *index = (uint32_t)out->n_sets;
    out->sets[out->n_sets++] = *set;
    return OK;
}

/* The number of the class that begins here, and p behind it. */
static enum status find_set(struct parse *p, uint32_t *index)
{
    const size_t at = p->at;
    struct tokenizer_set set = { 0 };
    enum status status = take_set(p, &set);
    if (status == OK) return keep_set(p, &set, at, index);
    tokenizer_set_free(&set);
    return status;
}

/* The number of \w, for its edges. */
static enum status find_word(struct parse *p, uint32_t *index)
{
    struct tokenizer_set set = { 0 };
    if (add_word(&set) && tokenizer_set_close_ranges(&set, false)) return keep_set(p, &set, SIZE_MAX, index);
    tokenizer_set_free(&set);
    return no_memory(p);
}

/* ---- atoms and their repetition --------------------------------------------------------------------------------------------------- */

enum greed { GREEDY, LAZY, POSSESSIVE };

struct repeat {
    uint32_t min, max;
    enum greed greed;
};

static enum status take_count(struct parse *p, uint32_t *out, bool *is_there)
{
    *out = 0;
    *is_there = false;
    for (; p->at < p->n && p->text[p->at] >= '0' && p->text[p->at] <= '9'; p->at++) {
        *is_there = true;
        *out = *out * 10 + (uint32_t)(p->text[p->at] - '0');
        if (*out > REPEAT_MAX) return unknown(p, "a repetition of more than 10000");
    }
    return OK;
}

/* {n}, {n,}, {n,m}, {,m} */
static enum status take_interval(struct parse *p, struct repeat *repeat)
{
    bool has_min, has_max;
    enum status status = take_count(p, &repeat->min, &has_min);
    if (status != OK) return status;
    repeat->max = repeat->min;
    if (take(p, ",")) {
        status = take_count(p, &repeat->max, &has_max);
        if (status != OK) return status;
        if (!has_max && !has_min) return unknown(p, "'{' without a number");
        if (!has_max) repeat->max = NO_LIMIT;
    } else if (!has_min) {
        return unknown(p, "'{' without a number");
    }
    if (!take(p, "}")) return refuse(p, ERR_DATA, "'}' is missing");
    if (repeat->max < repeat->min) return refuse(p, ERR_DATA, "a repetition whose end is below its beginning");
    return is_at(p, "?") || is_at(p, "+") ? unknown(p, "a quantifier after '}'") : OK;
}

static enum status take_repeat(struct parse *p, struct repeat *repeat)
{
    *repeat = (struct repeat){ 1, 1, GREEDY };
    const char c = p->at < p->n ? p->text[p->at] : '\0';
    if (c != '*' && c != '+' && c != '?' && c != '{') return OK;
    p->at++;
    enum status status = OK;
    if (c == '{') {
        status = take_interval(p, repeat);
    } else {
        *repeat = (struct repeat){ c == '+', c == '?' ? 1 : NO_LIMIT, GREEDY };
        repeat->greed = take(p, "?") ? LAZY : take(p, "+") ? POSSESSIVE : GREEDY;
    }
    if (status == OK && (is_at(p, "*") || is_at(p, "+") || is_at(p, "?") || is_at(p, "{"))) status = unknown(p, "a quantifier after a quantifier");
    return status;
}

static enum status take_alternatives(struct parse *p);

/* What follows up to ')' as a program of its own, for look and atomic. */
static enum status take_enclosed(struct parse *p, enum pattern_op op, bool flag)
{
    size_t index = 0;
    enum status status = emit(p, (struct pattern_code){ .op = op, .flag = flag }, &index);
    if (status == OK) status = take_alternatives(p);
    if (status == OK) status = emit(p, (struct pattern_code){ .op = PATTERN_END }, NULL);
    if (status == OK) p->out->codes[index].x = here(p);
    return status;
}

/* From '(' to behind ')'. */
static enum status take_group(struct parse *p)
{
    const bool folds = p->folds;
    enum status status = OK;
    if (++p->depth > DEPTH_MAX) return unknown(p, "nested too deeply");
    p->at++;
    if (take(p, "?:")) status = take_alternatives(p);
    else if (take(p, "?i:")) p->folds = true, status = take_alternatives(p);
    else if (take(p, "?=")) status = take_enclosed(p, PATTERN_LOOK, false);
    else if (take(p, "?!")) status = take_enclosed(p, PATTERN_LOOK, true);
    else if (take(p, "?>")) status = take_enclosed(p, PATTERN_ATOMIC, false);
    else if (is_at(p, "?")) return unknown(p, "this kind of group");
    else status = take_alternatives(p);
    p->folds = folds;
    p->depth--;
    if (status == OK && !take(p, ")")) return refuse(p, ERR_DATA, "')' is missing");
    return status;
}

static enum status take_anchor(struct parse *p, bool *is_anchor)
{
    static const struct {
        const char *text;
        enum pattern_op op;
        bool flag;
    } anchors[] = {
        { "$", PATTERN_LINE_END, false }, { "\\z", PATTERN_TEXT_END, false }, { "\\b", PATTERN_WORD_EDGE, false }, { "\\B", PATTERN_WORD_EDGE, true }
    };
    for (size_t i = 0; i < sizeof anchors / sizeof anchors[0]; i++) {
        uint32_t word = 0;
        *is_anchor = take(p, anchors[i].text);
        if (!*is_anchor) continue;
        enum status status = anchors[i].op == PATTERN_WORD_EDGE ? find_word(p, &word) : OK;
        return status == OK ? emit(p, (struct pattern_code){ .op = anchors[i].op, .flag = anchors[i].flag, .x = word }, NULL) : status;
    }
    return OK;
}

/* Reads the group at from once more, behind what is there. */
static enum status again(struct parse *p, size_t from)
{
    const size_t end = p->at;
    if (++p->n_reads > READS_MAX) return unknown(p, "the pattern becomes too long");
    p->at = from;
    enum status status = take_group(p);
    if (status == OK) p->at = end;
    return status;
}

static enum status optional(struct parse *p, size_t from, bool lazy, bool loops)
{
    size_t split = 0;
    enum status status = emit(p, (struct pattern_code){ .op = PATTERN_SPLIT }, &split);
    if (status == OK) status = again(p, from);
    if (status == OK && loops) status = emit(p, (struct pattern_code){ .op = PATTERN_JUMP, .x = (uint32_t)split }, NULL);
    if (status != OK) return status;
    const uint32_t in = (uint32_t)split + 1, out = here(p);
    p->out->codes[split].x = lazy ? out : in;
    p->out->codes[split].y = lazy ? in : out;
    return OK;
}

/* (x?(x?(x?)...)) would be nested; one after another matches the same, as an empty one leads to empty ones alone. */
static enum status repeat_group(struct parse *p, size_t from, const struct repeat *repeat)
{
    enum status status = OK;
    for (uint32_t i = 0; i < repeat->min && status == OK; i++) status = again(p, from);
    if (repeat->max == NO_LIMIT) return status == OK ? optional(p, from, repeat->greed == LAZY, true) : status;
    for (uint32_t i = repeat->min; i < repeat->max && status == OK; i++) status = optional(p, from, repeat->greed == LAZY, false);
    return status;
}

static enum status take_repeated_group(struct parse *p)
{
    const size_t from = p->at, n_codes = p->out->n_codes;
    size_t atomic = 0;
    struct repeat repeat;
    enum status status = take_group(p);
    if (status == OK) status = take_repeat(p, &repeat);
    if (status != OK || (repeat.min == 1 && repeat.max == 1)) return status;
    p->out->n_codes = n_codes;
    if (repeat.greed == POSSESSIVE) status = emit(p, (struct pattern_code){ .op = PATTERN_ATOMIC }, &atomic);
    if (status == OK) status = repeat_group(p, from, &repeat);
    if (status != OK || repeat.greed != POSSESSIVE) return status;
    status = emit(p, (struct pattern_code){ .op = PATTERN_END }, NULL);
    if (status == OK) p->out->codes[atomic].x = here(p);
    return status;
}

/* A class that is repeated lazily: x*? = L: split E, +1 | set | jump L | E: */
static enum status emit_lazy(struct parse *p, uint32_t set, const struct repeat *repeat)
{
    const struct pattern_code one = { .op = PATTERN_SET, .x = set };
    enum status status = repeat->min ? emit(p, one, NULL) : OK;
    const uint32_t split = here(p), end = split + (repeat->max == NO_LIMIT ? 3 : 2);
    if (status == OK) status = emit(p, (struct pattern_code){ .op = PATTERN_SPLIT, .x = end, .y = split + 1 }, NULL);
    if (status == OK) status = emit(p, one, NULL);
    if (status == OK && repeat->max == NO_LIMIT) status = emit(p, (struct pattern_code){ .op = PATTERN_JUMP, .x = split }, NULL);
    return status;
}

static enum status take_repeated_set(struct parse *p)
{
    uint32_t set = 0;
    struct repeat repeat;
    enum status status = find_set(p, &set);
    if (status == OK) status = take_repeat(p, &repeat);
    if (status != OK) return status;
    if (repeat.greed == LAZY) return emit_lazy(p, set, &repeat);
    if (repeat.min == 1 && repeat.max == 1) return emit(p, (struct pattern_code){ .op = PATTERN_SET, .x = set }, NULL);
    return emit(p, (struct pattern_code){ .op = PATTERN_LOOP, .flag = repeat.greed == POSSESSIVE, .x = set, .min = repeat.min, .max = repeat.max },
                NULL);
}

static enum status take_piece(struct parse *p)
{
    bool is_anchor = false;
    if (++p->n_reads > READS_MAX) return unknown(p, "the pattern becomes too long");
    if (is_at(p, "(")) return take_repeated_group(p);
    if (is_at(p, "*") || is_at(p, "+") || is_at(p, "?") || is_at(p, "{")) return unknown(p, "a quantifier without anything before it");
    if (is_at(p, "^")) return unknown(p, "'^'");
    enum status status = take_anchor(p, &is_anchor);
    if (status != OK || is_anchor) return status;
    return take_repeated_set(p);
}

/* Alternatives up to ')' or the end. */
static enum status take_alternatives(struct parse *p)
{
    uint32_t last_jump = NO_LIMIT; /* the jumps to the end are a list through their x */
    enum status status = OK;
    for (bool more = true; more && status == OK;) {
        size_t split = 0, jump = 0;
        status = emit(p, (struct pattern_code){ .op = PATTERN_SPLIT }, &split);
        while (status == OK && p->at < p->n && !is_at(p, "|") && !is_at(p, ")")) status = take_piece(p);
        if (status != OK) return status;
        more = take(p, "|");
        p->out->codes[split].x = (uint32_t)split + 1;
        if (!more) {
            p->out->codes[split].op = PATTERN_JUMP;
            continue;
        }
        status = emit(p, (struct pattern_code){ .op = PATTERN_JUMP, .x = last_jump }, &jump);
        if (status != OK) return status;
        last_jump = (uint32_t)jump;
        p->out->codes[split].y = here(p);
    }
    while (status == OK && last_jump != NO_LIMIT) {
        const uint32_t next = p->out->codes[last_jump].x;
        p->out->codes[last_jump].x = here(p);
        last_jump = next;
    }
    return status;
}

enum status tokenizer_pattern_open(const char *text, size_t n, struct tokenizer_pattern **out, struct err *err)
{
    *out = NULL;
    struct tokenizer_pattern *pattern = calloc(1, sizeof *pattern);
    if (!pattern) return err_set(err, ERR_MEMORY, "out of memory for a pattern");
    err_name(text, n, pattern->shown, sizeof pattern->shown);
    struct parse parse = { .out = pattern, .text = text, .n = n, .err = err };
    enum status status = n > TOKENIZER_PATTERN_MAX ? unknown(&parse, "the pattern is too long") : take_alternatives(&parse);
    if (status == OK && parse.at < n) status = refuse(&parse, ERR_DATA, "')' without '('");
    if (status == OK) status = emit(&parse, (struct pattern_code){ .op = PATTERN_END }, NULL);
    if (status == OK) *out = pattern;
    else tokenizer_pattern_close(pattern);
    return status;
}

void tokenizer_pattern_close(struct tokenizer_pattern *pattern)
{
    if (!pattern) return;
    for (size_t i = 0; i < pattern->n_sets; i++) tokenizer_set_free(&pattern->sets[i]);
    free(pattern->sets);
    free(pattern->set_at);
    free(pattern->set_folds);
    free(pattern->codes);
    free(pattern);
}
