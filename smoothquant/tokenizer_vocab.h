/* tokenizer_vocab.h: the tokens of a tokenizer by id and by text.
 *
 *   texts: "he" "llo" ... in one arena     tokens[id] = (where, length)     slots: hash of a text -> id + 1
 *
 * Why this way: a quarter of a million tokens are two allocations that grow, and a look-up is one hash and mostly one comparison.
 * Corner cases: ids may have holes; a text may be there once, an id may be there once; texts made to collide in the hash are refused instead of searched
 * in quadratic time.
 * Reference: name_table.h, whose names have no NUL bytes and no ids of their own. Worked number: add "a" as 7: n_ids 8, find "a" = 7.
 */
#ifndef LLMQ_SMOOTHQUANT_TOKENIZER_VOCAB_H
#define LLMQ_SMOOTHQUANT_TOKENIZER_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define VOCAB_HOLE UINT32_MAX

struct vocab_token {
    uint32_t at, n; /* n is VOCAB_HOLE for an id without a token */
};

/* A zeroed struct is empty. */
struct vocab {
    char *texts;
    size_t n_texts, texts_capacity;
    struct vocab_token *tokens;
    uint32_t n_ids; /* largest id + 1 */
    uint32_t tokens_capacity;
    uint32_t *slots;
    uint32_t n_slots; /* a power of two, at least twice n_used */
    uint32_t n_used;
    uint64_t n_probes;
};

/* Adds the token with this id. ERR_DATA for an id or a text that is there, for an id from TOKENIZER_IDS_MAX on, a token over TOKENIZER_TOKEN_MAX. */
enum status vocab_add(struct vocab *vocab, const char *text, size_t n, uint64_t id, struct err *err);

/* The id of a text, or -1. */
int32_t vocab_find(const struct vocab *vocab, const char *text, size_t n);

/* The text of an id below n_ids that is no hole. */
static inline const char *vocab_text(const struct vocab *vocab, uint32_t id, size_t *n)
{
    *n = vocab->tokens[id].n;
    return vocab->texts + vocab->tokens[id].at;
}

static inline bool vocab_has(const struct vocab *vocab, uint32_t id)
{
    return id < vocab->n_ids && vocab->tokens[id].n != VOCAB_HOLE;
}

void vocab_free(struct vocab *vocab);

#endif
