/* json.c: the strict JSON scanner, the walk over the members of an object, and the guarded cJSON tree; see json.h.
 *
 *   value  = object | array | string | number | true | false | null, each counted against max_values
 *   key set: list  = the keys of all open objects, outermost first, as (offset, hash)
 *            slots = open addressing over list; when an object closes its keys are the last of list and leave in reverse order,
 *                    so that emptying their slots restores the table of before
 *
 * Why this way: one key set for all depths makes duplicates linear in time and memory bounded by the keys that are open. Recursion is bounded
 * by DEPTH_CAP, which is also where cJSON stops.
 * Corner cases: keys are compared after unescaping; a text whose keys collide in the hash more often than chance allows is refused instead
 * of scanned in quadratic time; numbers over NUMBER_MAX characters and texts from 4 GiB are refused; a blank text is refused. cJSON keeps
 * one static error pointer, so json_parse must not run on two threads at once; the check and the walk may.
 * Reference: RFC 8259. Worked number: "\ud83d\ude00" is U+1F600 = 0x10000 + (0x3d << 10) + 0x200, the bytes f0 9f 98 80.
 */
#include "base/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/size.h"
#include "base/utf8.h"

#define DEPTH_CAP 1000
#define NUMBER_MAX 1024
#define KEY_TEXT_MAX 80 /* bytes of a key in a message */

/* ---- unescaping ----------------------------------------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The four hexadecimal digits at text; false when they are not four. */
static bool read_unit(const char *text, size_t n, uint32_t *unit)
{
    if (n < 4) return false;
    *unit = 0;
    for (size_t i = 0; i < 4; i++) {
        int digit = hex_digit(text[i]);
        if (digit < 0) return false;
        *unit = *unit << 4 | (uint32_t)digit;
    }
    return true;
}

static bool is_high_surrogate(uint32_t unit)
{
    return unit >= 0xd800 && unit < 0xdc00;
}

static bool is_low_surrogate(uint32_t unit)
{
    return unit >= 0xdc00 && unit < 0xe000;
}

/* Unescapes one checked character of a string (escape or byte) into out, at most 4 bytes; returns the bytes of text it took. */
static size_t unescape_one(const char *text, char out[4], size_t *n_out)
{
    *n_out = 1;
    out[0] = text[0];
    if (text[0] != '\\') return 1;
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    if (text[1] != 'u') {
        const char *found = strchr(from, text[1]);
        out[0] = found ? to[found - from] : text[1];
        return 2;
    }
    uint32_t unit = 0, low = 0;
    read_unit(text + 2, 4, &unit);
    if (!is_high_surrogate(unit)) {
        *n_out = utf8_put(unit, out);
        return 6;
    }
    read_unit(text + 8, 4, &low);
    *n_out = utf8_put(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00), out);
    return 12;
}

/* Unescapes n checked bytes; out has room for n + 1. Returns the bytes written before the NUL. */
static size_t unescape(const char *text, size_t n, char *out)
{
    size_t used = 0;
    for (size_t at = 0; at < n;) {
        const char *escape = memchr(text + at, '\\', n - at);
        size_t plain = escape ? (size_t)(escape - text) - at : n - at;
        memcpy(out + used, text + at, plain);
        used += plain;
        at += plain;
        if (at < n) {
            size_t length;
            at += unescape_one(text + at, out + used, &length); /* never longer than its escape */
            used += length;
        }
    }
    out[used] = '\0';
    return used;
}

/* ---- key set -------------------------------------------------------------------------------------------------------------------- */

struct key {
    uint32_t at; /* of the byte after its opening quote */
    uint32_t hash;
};

struct key_set {
    struct key *list;
    uint32_t n_keys;
    uint32_t capacity;
    uint32_t *slots; /* index into list + 1, or 0 */
    uint32_t n_slots; /* a power of two, at least twice n_keys */
    uint64_t n_added;
    uint64_t n_probes;
};

static void key_set_free(struct key_set *keys)
{
    free(keys->list);
    free(keys->slots);
}

static void key_set_place(struct key_set *keys, uint32_t index)
{
    uint32_t slot = keys->list[index].hash & (keys->n_slots - 1);
    while (keys->slots[slot]) slot = (slot + 1) & (keys->n_slots - 1);
    keys->slots[slot] = index + 1;
}

/* Doubles the room; keys are placed again in their order, which keeps leaving in reverse order exact. */
static bool key_set_grow(struct key_set *keys)
{
    uint32_t capacity = keys->capacity ? keys->capacity * 2 : 64;
    struct key *list = realloc(keys->list, capacity * sizeof *list);
    if (!list) return false;
    keys->list = list;
    uint32_t *slots = calloc((size_t)capacity * 2, sizeof *slots);
    if (!slots) return false;
    free(keys->slots);
    keys->slots = slots;
    keys->n_slots = capacity * 2;
    keys->capacity = capacity;
    for (uint32_t i = 0; i < keys->n_keys; i++) key_set_place(keys, i);
    return true;
}

/* Takes the keys from the index first on out again. */
static void key_set_cut(struct key_set *keys, uint32_t first)
{
    while (keys->n_keys > first) {
        uint32_t index = --keys->n_keys;
        uint32_t slot = keys->list[index].hash & (keys->n_slots - 1);
        while (keys->slots[slot] != index + 1) slot = (slot + 1) & (keys->n_slots - 1);
        keys->slots[slot] = 0;
    }
}

/* Reads a checked string byte by byte as it is after unescaping. */
struct reader {
    const char *at;
    char piece[4];
    size_t n_piece;
    size_t n_used;
};

/* The next byte, or -1 at the closing quote. */
static int next_byte(struct reader *reader)
{
    if (reader->n_used == reader->n_piece) {
        if (*reader->at == '"') return -1;
        reader->at += unescape_one(reader->at, reader->piece, &reader->n_piece);
        reader->n_used = 0;
    }
    return (unsigned char)reader->piece[reader->n_used++];
}

/* Compares two checked strings, given from the byte after their opening quote. */
static bool same_string(const char *a, const char *b)
{
    struct reader from_a = { .at = a }, from_b = { .at = b };
    int byte;
    do {
        byte = next_byte(&from_a);
        if (byte != next_byte(&from_b)) return false;
    } while (byte >= 0);
    return true;
}

/* True when one of the keys from the index first on is the string at text + key.at. */
static bool key_set_has(struct key_set *keys, const char *text, struct key key, uint32_t first)
{
    uint32_t mask = keys->n_slots - 1;
    for (uint32_t slot = key.hash & mask; keys->slots[slot]; slot = (slot + 1) & mask) {
        uint32_t index = keys->slots[slot] - 1;
        keys->n_probes++;
        if (index >= first && keys->list[index].hash == key.hash && same_string(text + keys->list[index].at, text + key.at)) return true;
    }
    return false;
}

static bool key_set_is_attacked(const struct key_set *keys)
{
    return keys->n_probes > 4096 && keys->n_probes / 32 > keys->n_added;
}

/* ---- scanner -------------------------------------------------------------------------------------------------------------------- */

struct scan {
    const char *text;
    size_t nbytes;
    size_t at;
    unsigned depth;
    uint64_t n_values;
    const struct json_limits *limits;
    struct key_set keys;
    char *unescaped; /* the key last unescaped */
    size_t unescaped_capacity;
    struct err *err;
};

/* Receiver of the members of the outermost object; NULL members everywhere else. */
struct members {
    json_member_fn *fn;
    void *context;
};

static enum status scan_value(struct scan *s);

static enum status refuse(struct scan *s, const char *what)
{
    return err_set(s->err, ERR_DATA, "byte %zu: %s", s->at, s->at < s->nbytes ? what : "the text ends early");
}

static enum status short_of_memory(struct scan *s)
{
    return err_set(s->err, ERR_MEMORY, "byte %zu: out of memory for the keys of this text", s->at);
}

static bool is_at(const struct scan *s, char c)
{
    return s->at < s->nbytes && s->text[s->at] == c;
}

static void skip_blanks(struct scan *s)
{
    while (s->at < s->nbytes) {
        char c = s->text[s->at];
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t') return;
        s->at++;
    }
}

static enum status scan_unicode_escape(struct scan *s)
{
    const char *text = s->text + s->at;
    size_t n = s->nbytes - s->at;
    uint32_t unit, low;
    if (!read_unit(text + 2, n - 2, &unit)) return refuse(s, "\\u without four hexadecimal digits");
    if (unit == 0) return refuse(s, "\\u0000 is not allowed");
    if (is_low_surrogate(unit)) return refuse(s, "lone surrogate escape");
    s->at += 6;
    if (!is_high_surrogate(unit)) return OK;
    if (n < 12 || text[6] != '\\' || text[7] != 'u' || !read_unit(text + 8, 4, &low) || !is_low_surrogate(low))
        return refuse(s, "lone surrogate escape");
    s->at += 6;
    return OK;
}

static enum status scan_escape(struct scan *s)
{
    char c = s->nbytes - s->at > 1 ? s->text[s->at + 1] : '\0';
    if (c == 'u') return scan_unicode_escape(s);
    if (c == '\0' || !strchr("\"\\/bfnrt", c)) return refuse(s, "unknown escape");
    s->at += 2;
    return OK;
}

/* From the opening quote to behind the closing one. */
static enum status scan_string(struct scan *s)
{
    s->at++;
    for (;;) {
        while (s->at < s->nbytes) {
            unsigned char c = (unsigned char)s->text[s->at];
            if (c < 0x20 || c >= 0x80 || c == '"' || c == '\\') break;
            s->at++;
        }
        if (s->at == s->nbytes) return refuse(s, "");
        unsigned char c = (unsigned char)s->text[s->at];
        if (c == '"') break;
        if (c == '\\') {
            enum status status = scan_escape(s);
            if (status != OK) return status;
            continue;
        }
        if (c < 0x20) return refuse(s, "control character in a string");
        size_t length = utf8_length(s->text + s->at, s->nbytes - s->at);
        if (length == 0) return refuse(s, "invalid UTF-8");
        s->at += length;
    }
    s->at++;
    return OK;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool skip_digits(struct scan *s, size_t end)
{
    size_t start = s->at;
    while (s->at < end && is_digit(s->text[s->at])) s->at++;
    return s->at > start;
}

/* Fraction and exponent; a part that runs into end is left for the caller to refuse. */
static enum status scan_fraction(struct scan *s, size_t end)
{
    if (is_at(s, '.')) {
        s->at++;
        if (!skip_digits(s, end) && s->at < end) return refuse(s, "a digit is missing after the point");
    }
    if (is_at(s, 'e') || is_at(s, 'E')) {
        s->at++;
        if (is_at(s, '+') || is_at(s, '-')) s->at++;
        if (!skip_digits(s, end) && s->at < end) return refuse(s, "a digit is missing in the exponent");
    }
    return OK;
}

static enum status scan_number(struct scan *s)
{
    size_t start = s->at;
    size_t end = (size_t)size_min(s->nbytes, start + NUMBER_MAX + 1);
    if (is_at(s, '-')) s->at++;
    bool zero = is_at(s, '0');
    if (zero) s->at++;
    bool more = skip_digits(s, end);
    if (!zero && !more) return refuse(s, "a digit is missing");
    bool leading_zero = zero && more;
    size_t n_integer = s->at - start;
    enum status status = scan_fraction(s, end);
    if (status != OK) return status;
    size_t length = s->at - start;
    if (length <= NUMBER_MAX && !is_digit(s->text[s->at - 1])) return refuse(s, "a digit is missing");
    s->at = start;
    if (leading_zero) return refuse(s, "leading zero in a number");
    if (length > NUMBER_MAX) return refuse(s, "number of more than 1024 characters");
    if (s->limits->plain_integers && (length > n_integer || s->text[start] == '-')) return refuse(s, "number that is not a plain integer");
    s->at = start + length;
    return OK;
}

static enum status scan_word(struct scan *s, const char *word)
{
    size_t n = strlen(word);
    if (s->nbytes - s->at < n || memcmp(s->text + s->at, word, n) != 0) return refuse(s, "unknown word");
    s->at += n;
    return OK;
}

static enum status enter(struct scan *s)
{
    if (s->depth >= s->limits->max_depth || s->depth >= DEPTH_CAP) return refuse(s, "nested too deeply");
    s->depth++;
    s->at++;
    skip_blanks(s);
    return OK;
}

/* Behind one item of an array or object: sets *more at a comma and passes it, or passes the closing bracket. */
static enum status scan_separator(struct scan *s, char close, bool *more)
{
    skip_blanks(s);
    *more = is_at(s, ',');
    if (!*more && !is_at(s, close)) return refuse(s, close == '}' ? "',' or '}' expected" : "',' or ']' expected");
    s->at++;
    if (*more) skip_blanks(s);
    return OK;
}

static enum status scan_array(struct scan *s)
{
    enum status status = enter(s);
    if (status != OK) return status;
    bool more = !is_at(s, ']');
    if (!more) s->at++;
    while (more) {
        status = scan_value(s);
        if (status == OK) status = scan_separator(s, ']', &more);
        if (status != OK) return status;
    }
    s->depth--;
    return OK;
}

/* Unescapes the n bytes at text + at into s->unescaped. */
static enum status unescape_key(struct scan *s, size_t at, size_t n, size_t *n_out)
{
    if (n >= s->unescaped_capacity) {
        size_t capacity = n < 128 ? 256 : n + n / 2 + 1;
        char *grown = realloc(s->unescaped, capacity);
        if (!grown) return short_of_memory(s);
        s->unescaped = grown;
        s->unescaped_capacity = capacity;
    }
    *n_out = unescape(s->text + at, n, s->unescaped);
    return OK;
}

static enum status hash_key(struct scan *s, size_t at, size_t n, uint32_t *hash)
{
    const char *bytes = s->text + at;
    if (memchr(bytes, '\\', n)) {
        enum status status = unescape_key(s, at, n, &n);
        if (status != OK) return status;
        bytes = s->unescaped;
    }
    uint64_t mixed = digest64(bytes, n) ^ s->depth * UINT64_C(0x9e3779b97f4a7c15);
    *hash = (uint32_t)(mixed ^ mixed >> 32);
    return OK;
}

static enum status refuse_duplicate(struct scan *s, size_t at, size_t n)
{
    char name[KEY_TEXT_MAX];
    enum status status = unescape_key(s, at, n, &n);
    if (status != OK) return status;
    return err_set(s->err, ERR_DATA, "byte %zu: duplicate key '%s'", at - 1, err_name(s->unescaped, n, name, sizeof name));
}

/* One key with its colon. Sets where the key's bytes stand between their quotes. first: index of the object's first key. */
static enum status scan_key(struct scan *s, uint32_t first, size_t *key_at, size_t *key_nbytes)
{
    if (!is_at(s, '"')) return refuse(s, "a key in double quotes expected");
    *key_at = s->at + 1;
    enum status status = scan_string(s);
    if (status != OK) return status;
    *key_nbytes = s->at - 1 - *key_at;
    struct key key = { .at = (uint32_t)*key_at };
    status = hash_key(s, *key_at, *key_nbytes, &key.hash);
    if (status != OK) return status;
    if (s->keys.n_keys == s->keys.capacity && !key_set_grow(&s->keys)) return short_of_memory(s);
    if (key_set_has(&s->keys, s->text, key, first)) return refuse_duplicate(s, *key_at, *key_nbytes);
    s->keys.n_added++;
    if (key_set_is_attacked(&s->keys)) return refuse(s, "keys made to collide");
    s->keys.list[s->keys.n_keys] = key;
    key_set_place(&s->keys, s->keys.n_keys++);
    skip_blanks(s);
    if (!is_at(s, ':')) return refuse(s, "':' expected");
    s->at++;
    skip_blanks(s);
    return OK;
}

static enum status scan_member(struct scan *s, uint32_t first, const struct members *members)
{
    size_t key_at = 0, key_nbytes = 0, length = 0;
    enum status status = scan_key(s, first, &key_at, &key_nbytes);
    if (status != OK) return status;
    size_t value_at = s->at;
    if (members) s->n_values = 0;
    status = scan_value(s);
    if (status != OK || !members) return status;
    status = unescape_key(s, key_at, key_nbytes, &length);
    if (status != OK) return status;
    return members->fn(members->context, s->unescaped, length, s->text + value_at, s->at - value_at, s->err);
}

static enum status scan_object(struct scan *s, const struct members *members)
{
    uint32_t first = s->keys.n_keys;
    enum status status = enter(s);
    if (status != OK) return status;
    bool more = !is_at(s, '}');
    if (!more) s->at++;
    while (more) {
        status = scan_member(s, first, members);
        if (status == OK) status = scan_separator(s, '}', &more);
        if (status != OK) return status;
    }
    key_set_cut(&s->keys, first);
    s->depth--;
    return OK;
}

static enum status scan_value(struct scan *s)
{
    if (s->at == s->nbytes) return refuse(s, "");
    if (s->n_values >= s->limits->max_values)
        return err_set(s->err, ERR_DATA, "byte %zu: more than %llu values", s->at, (unsigned long long)s->limits->max_values);
    s->n_values++;
    char c = s->text[s->at];
    if (c == '{') return scan_object(s, NULL);
    if (c == '[') return scan_array(s);
    if (c == '"') return scan_string(s);
    if (c == '-' || (c >= '0' && c <= '9')) return scan_number(s);
    if (c == 't') return scan_word(s, "true");
    if (c == 'f') return scan_word(s, "false");
    if (c == 'n') return scan_word(s, "null");
    return refuse(s, "a value expected");
}

/* The whole text: one value, or with members one object. */
static enum status scan_text(struct scan *s, const struct members *members)
{
    if (s->nbytes > UINT32_MAX) return err_set(s->err, ERR_UNSUPPORTED, "%zu bytes of JSON, more than 4 GiB", s->nbytes);
    skip_blanks(s);
    if (members && !is_at(s, '{')) return refuse(s, "an object expected");
    enum status status = members ? scan_object(s, members) : scan_value(s);
    if (status != OK) return status;
    skip_blanks(s);
    if (s->at < s->nbytes) return refuse(s, "text after the end of the value");
    return OK;
}

static enum status scan_run(const char *text, size_t nbytes, const struct json_limits *limits, const struct members *members, struct err *err)
{
    struct scan scan = { .text = text, .nbytes = nbytes, .limits = limits, .err = err };
    enum status status = scan_text(&scan, members);
    key_set_free(&scan.keys);
    free(scan.unescaped);
    return status;
}

enum status json_check(const char *text, size_t nbytes, const struct json_limits *limits, struct err *err)
{
    return scan_run(text, nbytes, limits, NULL, err);
}

enum status json_walk_object(const char *text, size_t nbytes, const struct json_limits *limits, json_member_fn *fn, void *context, struct err *err)
{
    struct members members = { .fn = fn, .context = context };
    return scan_run(text, nbytes, limits, &members, err);
}

/* ---- tree ----------------------------------------------------------------------------------------------------------------------- */

enum status json_parse_checked(const char *text, size_t nbytes, cJSON **tree, struct err *err)
{
    *tree = cJSON_ParseWithLengthOpts(text, nbytes, NULL, 0);
    if (!*tree) return err_set(err, ERR_DATA, "no tree of %zu bytes of JSON: a number of over 63 digits, or out of memory", nbytes);
    return OK;
}

enum status json_parse(const char *text, size_t nbytes, const struct json_limits *limits, cJSON **tree, struct err *err)
{
    *tree = NULL;
    enum status status = json_check(text, nbytes, limits, err);
    return status == OK ? json_parse_checked(text, nbytes, tree, err) : status;
}

const cJSON *json_get(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

enum status json_u64(const cJSON *item, const char *what, uint64_t *out, struct err *err)
{
    if (!item) return err_set(err, ERR_DATA, "%s is missing", what);
    if (!cJSON_IsNumber(item)) return err_set(err, ERR_DATA, "%s is not a number", what);
    double value = item->valuedouble;
    if (!(value >= 0 && value <= 9007199254740991.0) || (double)(uint64_t)value != value)
        return err_set(err, ERR_DATA, "%s is %.17g, not an integer from 0 to 2^53-1", what, value);
    *out = (uint64_t)value;
    return OK;
}

enum status json_string(const cJSON *item, const char *what, const char **out, struct err *err)
{
    if (!item) return err_set(err, ERR_DATA, "%s is missing", what);
    if (!cJSON_IsString(item)) return err_set(err, ERR_DATA, "%s is not a string", what);
    *out = item->valuestring;
    return OK;
}

enum status json_u64_in(const cJSON *object, const char *name, uint64_t low, uint64_t high, uint64_t *out, struct err *err)
{
    enum status status = json_u64(json_get(object, name), name, out, err);
    if (status == OK && (*out < low || *out > high))
        return err_set(err, ERR_DATA, "%s is %" PRIu64 ", not %" PRIu64 " .. %" PRIu64, name, *out, low, high);
    return status;
}

enum status json_u32_in(const cJSON *object, const char *name, uint32_t low, uint32_t high, uint32_t *out, struct err *err)
{
    uint64_t value = 0;
    enum status status = json_u64_in(object, name, low, high, &value, err);
    *out = (uint32_t)value;
    return status;
}

enum status json_optional_u32(const cJSON *object, const char *name, uint32_t high, uint32_t *out, struct err *err)
{
    *out = 0;
    return json_get(object, name) ? json_u32_in(object, name, 0, high, out, err) : OK;
}

enum status json_bool(const cJSON *object, const char *name, bool *out, struct err *err)
{
    const cJSON *item = json_get(object, name);
    *out = item && cJSON_IsTrue(item);
    if (!item || cJSON_IsBool(item)) return OK;
    return err_set(err, ERR_DATA, "%s is neither true nor false", name);
}

enum status json_pair(const cJSON *object, const char *name, uint64_t *a, uint64_t *b, struct err *err)
{
    const cJSON *item = json_get(object, name);
    if (!item || !cJSON_IsArray(item) || !item->child || !item->child->next || item->child->next->next)
        return err_set(err, ERR_DATA, "%s is not an array of two numbers", name);
    enum status status = json_u64(item->child, name, a, err);
    return status == OK ? json_u64(item->child->next, name, b, err) : status;
}
