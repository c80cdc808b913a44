/* unicode.c: categories by binary search over runs, and NFC by decomposing, ordering and composing; see unicode.h.
 *
 * Formula: NFC = compose(order by combining class(decompose until no step is left)); Hangul: code = AC00 + (l * 21 + v) * 28 + t.
 * Why this way: code points below U+0300 stand for themselves and never join what is before them, so a text is taken in pieces that begin at one: most
 * pieces are that one alone.
 * Corner cases: a mark whose class is not above the last one's is blocked from its starter; two starters compose where a pair says so.
 * Reference: see unicode.h; UAX 15 D117. Worked number: U+1E0B U+0323 (classes 230, 220) becomes U+1E0D U+0307.
 */
#include "smoothquant/unicode.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "smoothquant/unicode_table.h"

/* ---- categories ------------------------------------------------------------------------------------------------------------------- */

static const char names[30][3] = { "Cn", "Cc", "Cf", "Co", "Cs", "Ll", "Lm", "Lo", "Lt", "Lu", "Mc", "Me", "Mn", "Nd", "Nl",
                                   "No", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "Sc", "Sk", "Sm", "So", "Zl", "Zp", "Zs" };

uint32_t unicode_category_mask(const char *name, size_t n)
{
    uint32_t mask = 0;
    if (n == 0 || n > 2) return 0;
    for (unsigned i = 0; i < 30; i++)
        if (names[i][0] == name[0] && (n == 1 || names[i][1] == name[1])) mask |= UINT32_C(1) << i;
    if (n == 2 && name[0] == 'L' && name[1] == '&') mask = UINT32_C(1) << 5 | UINT32_C(1) << 8 | UINT32_C(1) << 9;
    return mask;
}

/* The last index whose entry's code point (its bits from shift on) is not above code; the first entry is that of 0. */
static size_t find_run(const uint32_t *runs, size_t n, unsigned shift, uint32_t code)
{
    size_t low = 0, high = n;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (runs[middle] >> shift <= code) low = middle;
        else high = middle;
    }
    return low;
}

uint32_t unicode_category(uint32_t code)
{
    return UINT32_C(1) << (unicode_categories[find_run(unicode_categories, unicode_categories_count, 5, code)] & 31);
}

bool unicode_category_run(size_t index, uint32_t *first, uint32_t *last, uint32_t *bit)
{
    if (index >= unicode_categories_count) return false;
    *first = unicode_categories[index] >> 5;
    *last = index + 1 < unicode_categories_count ? (unicode_categories[index + 1] >> 5) - 1 : UNICODE_MAX;
    *bit = UINT32_C(1) << (unicode_categories[index] & 31);
    return true;
}

bool unicode_is_space(uint32_t code)
{
    if (code < 0x80) return code == ' ' || (code >= 9 && code <= 13);
    return code == 0x85 || code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 ||
           code == 0x202f || code == 0x205f || code == 0x3000;
}

const uint32_t unicode_circled[UNICODE_CIRCLED_COUNT][2] = { { 0x24b6, 0x24e9 }, { 0x1f130, 0x1f149 }, { 0x1f150, 0x1f169 }, { 0x1f170, 0x1f189 } };

static bool is_circled(uint32_t code)
{
    for (unsigned i = 0; i < UNICODE_CIRCLED_COUNT; i++)
        if (code >= unicode_circled[i][0] && code <= unicode_circled[i][1]) return true;
    return false;
}

bool unicode_is_word(uint32_t code)
{
    if (code < 0x80) return (code >= '0' && code <= '9') || (code >= 'A' && code <= 'Z') || (code >= 'a' && code <= 'z') || code == '_';
    const uint32_t mask = unicode_category_mask("L", 1) | unicode_category_mask("M", 1) | unicode_category_mask("Nd", 2) |
                          unicode_category_mask("Nl", 2) | unicode_category_mask("Pc", 2);
    return (unicode_category(code) & mask) != 0 || is_circled(code) || code == 0x200c || code == 0x200d;
}

/* ---- NFC -------------------------------------------------------------------------------------------------------------------------- */

#define PLAIN_BELOW 0x300u
enum { HANGUL = 0xac00, HANGUL_L = 0x1100, HANGUL_V = 0x1161, HANGUL_T = 0x11a7, N_L = 19, N_V = 21, N_T = 28 };

/* Code points of one piece, decomposed. */
struct piece {
    uint32_t *codes;
    size_t n, capacity;
};

static uint32_t combining_class(uint32_t code)
{
    return code < PLAIN_BELOW ? 0 : unicode_combining[find_run(unicode_combining, unicode_combining_count, 8, code)] & 255;
}

static const struct unicode_step *find_step(uint32_t code)
{
    size_t low = 0, high = unicode_steps_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (unicode_steps[middle].code < code) low = middle + 1;
        else high = middle;
    }
    return low < unicode_steps_count && unicode_steps[low].code == code ? &unicode_steps[low] : NULL;
}

static bool push(struct piece *piece, uint32_t code)
{
    if (piece->n == piece->capacity) {
        size_t capacity = piece->capacity ? piece->capacity * 2 : 64;
        uint32_t *codes = realloc(piece->codes, capacity * sizeof *codes);
        if (!codes) return false;
        piece->codes = codes;
        piece->capacity = capacity;
    }
    piece->codes[piece->n++] = code;
    return true;
}

/* Appends the full decomposition; steps lead to the right at once and to the left again and again, at most four deep. */
static bool decompose(struct piece *piece, uint32_t code)
{
    uint32_t right[8];
    size_t n_right = 0;
    if (code >= HANGUL && code < HANGUL + N_L * N_V * N_T) {
        uint32_t index = code - HANGUL, t = index % N_T;
        return push(piece, HANGUL_L + index / (N_V * N_T)) && push(piece, HANGUL_V + index / N_T % N_V) && (t == 0 || push(piece, HANGUL_T + t));
    }
    for (const struct unicode_step *step = find_step(code); step; step = find_step(code)) {
        if (step->second && n_right < 8) right[n_right++] = step->second;
        code = step->first;
    }
    bool pushed = push(piece, code);
    while (n_right > 0 && pushed) pushed = decompose(piece, right[--n_right]); /* U+0344 alone has a right part with a step: none of it has another */
    return pushed;
}

/* Marks between starters by their class; equal ones keep their order. */
static void order(struct piece *piece)
{
    for (size_t i = 1; i < piece->n; i++) {
        uint32_t code = piece->codes[i], class = combining_class(code);
        size_t at = i;
        if (class == 0) continue;
        for (; at > 0 && combining_class(piece->codes[at - 1]) > class; at--) piece->codes[at] = piece->codes[at - 1];
        piece->codes[at] = code;
    }
}

static uint32_t compose_pair(uint32_t first, uint32_t second)
{
    if (first >= HANGUL_L && first < HANGUL_L + N_L && second >= HANGUL_V && second < HANGUL_V + N_V)
        return HANGUL + ((first - HANGUL_L) * N_V + (second - HANGUL_V)) * N_T;
    if (first >= HANGUL && first < HANGUL + N_L * N_V * N_T && (first - HANGUL) % N_T == 0 && second > HANGUL_T && second < HANGUL_T + N_T)
        return first + (second - HANGUL_T);
    size_t low = 0, high = unicode_pairs_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct unicode_pair *pair = &unicode_pairs[middle];
        if (pair->first < first || (pair->first == first && pair->second < second)) low = middle + 1;
        else high = middle;
    }
    const bool found = low < unicode_pairs_count && unicode_pairs[low].first == first && unicode_pairs[low].second == second;
    return found ? unicode_pairs[low].code : 0;
}

static void compose(struct piece *piece)
{
    size_t n = 0, starter = SIZE_MAX;
    uint32_t last_class = 0;
    for (size_t i = 0; i < piece->n; i++) {
        uint32_t code = piece->codes[i], class = combining_class(code), joined = 0;
        if (starter != SIZE_MAX && (n == starter + 1 || last_class < class)) joined = compose_pair(piece->codes[starter], code);
        if (joined) {
            piece->codes[starter] = joined;
            continue;
        }
        if (class == 0) starter = n;
        last_class = class;
        piece->codes[n++] = code;
    }
    piece->n = n;
}

static void put_piece(struct piece *piece, struct text *out)
{
    char bytes[4];
    order(piece);
    compose(piece);
    for (size_t i = 0; i < piece->n; i++) text_add_bytes(out, bytes, utf8_put(piece->codes[i], bytes));
    piece->n = 0;
}

/* End of the run of code points below PLAIN_BELOW that begins at at; the last of them belongs to what follows. */
static size_t plain_end(const char *text, size_t n, size_t at)
{
    size_t last = at;
    while (at < n && ((unsigned char)text[at] < 0xcc)) {
        last = at;
        at += unicode_length(text[at]);
    }
    return at == n ? n : last;
}

enum status unicode_nfc(const char *text, size_t n, struct text *out, struct err *err)
{
    struct piece piece = { 0 };
    bool has_memory = true;
    for (size_t at = 0; at < n && has_memory;) {
        size_t end = plain_end(text, n, at);
        text_add_bytes(out, text + at, end - at);
        at = end;
        for (bool first = true; at < n && has_memory && (first || (unsigned char)text[at] >= 0xcc); first = false) {
            size_t length = unicode_length(text[at]);
            has_memory = decompose(&piece, unicode_decode(text + at, length));
            at += length;
        }
        put_piece(&piece, out);
    }
    free(piece.codes);
    if (!has_memory) return err_set(err, ERR_MEMORY, "out of memory");
    return text_ok(out, "a text in its normal form", err);
}
