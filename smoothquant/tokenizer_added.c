/* tokenizer_added.c: tokens found by their name; see tokenizer_added.h.
 *
 * Formula: names with the prefix text[at, at + k) are one run of the sorted list; its first entry is the name itself if it has k bytes.
 * Why this way: see tokenizer_added.h.
 * Corner cases: a match that \w beside it forbids is passed over whole, as the reference does.
 * Reference: see tokenizer_added.h. Worked number: "<s>" with rstrip in "<s> \n a" ends at 6.
 */
#include "smoothquant/tokenizer_added.h"

#include <stdlib.h>
#include <string.h>

#include "smoothquant/unicode.h"

enum status added_add(struct added_set *set, const struct added_token *token, struct err *err)
{
    if (token->n == 0) return OK;
    if (set->n_tokens == set->capacity) {
        size_t capacity = set->capacity ? set->capacity * 2 : 16;
        struct added_token *tokens = realloc(set->tokens, capacity * sizeof *tokens);
        if (!tokens) return err_set(err, ERR_MEMORY, "out of memory for added tokens");
        set->tokens = tokens;
        set->capacity = capacity;
    }
    char *text = malloc(token->n);
    if (!text) return err_set(err, ERR_MEMORY, "out of memory for added tokens");
    memcpy(text, token->text, token->n);
    set->tokens[set->n_tokens] = *token;
    set->tokens[set->n_tokens++].text = text;
    set->begins[(unsigned char)text[0]] = true;
    return OK;
}

static int compare_texts(const struct added_token *a, const struct added_token *b)
{
    const int order = memcmp(a->text, b->text, a->n < b->n ? a->n : b->n);
    return order ? order : (a->n > b->n) - (a->n < b->n);
}

/* A merge sort, which is stable: qsort need not be. */
static void sort(struct added_token *tokens, struct added_token *room, size_t n)
{
    if (n < 2) return;
    const size_t half = n / 2;
    sort(tokens, room, half);
    sort(tokens + half, room, n - half);
    memcpy(room, tokens, n * sizeof *room);
    for (size_t i = 0, a = 0, b = half; i < n; i++) {
        const bool left = b == n || (a < half && compare_texts(&room[a], &room[b]) <= 0);
        tokens[i] = left ? room[a++] : room[b++];
    }
}

void added_close_set(struct added_set *set)
{
    struct added_token *room = malloc((set->n_tokens + 1) * sizeof *room);
    size_t n = 0;
    if (room) {
        sort(set->tokens, room, set->n_tokens);
    } else {
        for (size_t i = 1; i < set->n_tokens; i++) { /* without memory by insertion */
            const struct added_token token = set->tokens[i];
            size_t at = i;
            for (; at > 0 && compare_texts(&set->tokens[at - 1], &token) > 0; at--) set->tokens[at] = set->tokens[at - 1];
            set->tokens[at] = token;
        }
    }
    free(room);
    for (size_t i = 0; i < set->n_tokens; i++) {
        if (n > 0 && compare_texts(&set->tokens[n - 1], &set->tokens[i]) == 0) free(set->tokens[i].text);
        else set->tokens[n++] = set->tokens[i];
    }
    set->n_tokens = n;
}

/* First entry of [low, high) whose byte number depth is at least byte. */
static size_t lower_bound(const struct added_set *set, size_t low, size_t high, size_t depth, unsigned byte)
{
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const struct added_token *token = &set->tokens[middle];
        if (token->n <= depth || (unsigned char)token->text[depth] < byte) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* The longest name at the start of text, or NULL. */
static const struct added_token *longest(const struct added_set *set, const char *text, size_t n)
{
    const struct added_token *found = NULL;
    size_t low = 0, high = set->n_tokens;
    for (size_t depth = 0; depth < n && low < high; depth++) {
        const unsigned byte = (unsigned char)text[depth];
        low = lower_bound(set, low, high, depth, byte);
        high = lower_bound(set, low, high, depth, byte + 1);
        if (low < high && set->tokens[low].n == depth + 1) found = &set->tokens[low];
    }
    return found;
}

static size_t step_back(const char *text, size_t at)
{
    do at--;
    while (at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80);
    return at;
}

static uint32_t code_at(const char *text, size_t at)
{
    return unicode_decode(text + at, unicode_length(text[at]));
}

static bool stands_alone(const char *text, size_t n, size_t start, size_t end)
{
    if (start > 0 && unicode_is_word(code_at(text, step_back(text, start)))) return false;
    return end == n || !unicode_is_word(code_at(text, end));
}

static void strip(struct added_match *match, const char *text, size_t n, size_t used)
{
    if (match->token->strips_left)
        while (match->start > used && unicode_is_space(code_at(text, step_back(text, match->start)))) match->start = step_back(text, match->start);
    if (match->token->strips_right)
        while (match->end < n && unicode_is_space(code_at(text, match->end))) match->end += unicode_length(text[match->end]);
}

bool added_find(const struct added_set *set, const char *text, size_t n, size_t from, size_t used, struct added_match *match)
{
    if (set->n_tokens == 0) return false;
    for (size_t at = from; at < n; at++) {
        if (!set->begins[(unsigned char)text[at]]) continue;
        const struct added_token *token = longest(set, text + at, n - at);
        if (!token) continue;
        *match = (struct added_match){ token, at, at + token->n, at + token->n };
        if (token->single_word && !stands_alone(text, n, at, match->end)) {
            at = match->end - 1;
            continue;
        }
        strip(match, text, n, used);
        return true;
    }
    return false;
}

void added_free(struct added_set *set)
{
    for (size_t i = 0; i < set->n_tokens; i++) free(set->tokens[i].text);
    free(set->tokens);
    *set = (struct added_set){ 0 };
}
