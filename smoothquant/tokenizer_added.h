/* tokenizer_added.h: tokens that are found in a text by their name before it is cut into words: "<|endoftext|>", and what users added.
 *
 *   "a<s>b<s>" -> text "a", token <s>, text "b", token <s>
 *
 * Why this way: sorted names are searched like a suffix array: one narrowing for each byte, so that 6000 names cost no more than one.
 * Corner cases: at one place the longest name wins; a token of single words must have no \w on its sides; lstrip and rstrip take the white space beside it
 * along; names without a byte are left out.
 * Reference: tokenizers added_vocabulary.rs (leftmost, longest). Worked number: names "ab", "abc" in "xabcd": one match, 1..4.
 */
#ifndef LLMQ_SMOOTHQUANT_TOKENIZER_ADDED_H
#define LLMQ_SMOOTHQUANT_TOKENIZER_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct added_token {
    char *text; /* owned, not empty */
    size_t n;
    int32_t id;
    bool single_word, strips_left, strips_right;
};

/* A zeroed struct is empty. */
struct added_set {
    struct added_token *tokens; /* sorted by added_close_set */
    size_t n_tokens, capacity;
    bool begins[256]; /* bytes with which names begin */
};

/* Copies the text; one without a byte is left out. */
enum status added_add(struct added_set *set, const struct added_token *token, struct err *err);

/* Sorts; of equal names the first one added stays. */
void added_close_set(struct added_set *set);

struct added_match {
    const struct added_token *token;
    size_t start, end; /* with the white space that goes along */
    size_t next; /* where to search on */
};

/* The first token in text[from, n); what was found before ends at used, white space before it stays where it is. False when there is none. */
bool added_find(const struct added_set *set, const char *text, size_t n, size_t from, size_t used, struct added_match *match);

void added_free(struct added_set *set);

#endif
