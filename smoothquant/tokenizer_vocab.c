/* tokenizer_vocab.c: the tokens of a tokenizer; see tokenizer_vocab.h.
 *
 * Formula: slot of a text = its XXH3-64 modulo n_slots, then the next ones.
 * Why this way: see tokenizer_vocab.h.
 * Corner cases: an empty text is a token like any other; the arena stops at 4 GiB.
 * Reference: see tokenizer_vocab.h. Worked number: 3 tokens lie in 64 slots.
 */
#include "smoothquant/tokenizer_vocab.h"

#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "container/shown.h"
#include "smoothquant/tokenizer.h"

static bool is_text(const struct vocab *vocab, uint32_t id, const char *text, size_t n)
{
    const struct vocab_token *token = &vocab->tokens[id];
    return token->n == n && memcmp(vocab->texts + token->at, text, n) == 0;
}

int32_t vocab_find(const struct vocab *vocab, const char *text, size_t n)
{
    if (vocab->n_slots == 0) return -1;
    const uint32_t mask = vocab->n_slots - 1;
    for (uint32_t slot = (uint32_t)digest64(text, n) & mask; vocab->slots[slot]; slot = (slot + 1) & mask)
        if (is_text(vocab, vocab->slots[slot] - 1, text, n)) return (int32_t)(vocab->slots[slot] - 1);
    return -1;
}

static void place(struct vocab *vocab, uint32_t id)
{
    const uint32_t mask = vocab->n_slots - 1;
    const struct vocab_token *token = &vocab->tokens[id];
    uint32_t slot = (uint32_t)digest64(vocab->texts + token->at, token->n) & mask;
    for (; vocab->slots[slot]; slot = (slot + 1) & mask) vocab->n_probes++;
    vocab->slots[slot] = id + 1;
}

static bool grow_slots(struct vocab *vocab)
{
    if ((vocab->n_used + 1) * 2 <= vocab->n_slots) return true;
    const uint32_t n_slots = vocab->n_slots ? vocab->n_slots * 2 : 64;
    uint32_t *slots = calloc(n_slots, sizeof *slots);
    if (!slots) return false;
    free(vocab->slots);
    vocab->slots = slots;
    vocab->n_slots = n_slots;
    vocab->n_probes = 0;
    for (uint32_t id = 0; id < vocab->n_ids; id++)
        if (vocab->tokens[id].n != VOCAB_HOLE) place(vocab, id);
    return true;
}

static bool grow_tokens(struct vocab *vocab, uint32_t id)
{
    if (id < vocab->n_ids) return true;
    if (id >= vocab->tokens_capacity) {
        uint32_t capacity = vocab->tokens_capacity ? vocab->tokens_capacity * 2 : 256;
        if (capacity <= id) capacity = id + 1;
        struct vocab_token *tokens = realloc(vocab->tokens, capacity * sizeof *tokens);
        if (!tokens) return false;
        vocab->tokens = tokens;
        vocab->tokens_capacity = capacity;
    }
    for (; vocab->n_ids <= id; vocab->n_ids++) vocab->tokens[vocab->n_ids] = (struct vocab_token){ 0, VOCAB_HOLE };
    return true;
}

static bool grow_texts(struct vocab *vocab, size_t n)
{
    if (n > UINT32_MAX - vocab->n_texts) return false;
    if (vocab->n_texts + n <= vocab->texts_capacity) return true;
    size_t capacity = vocab->texts_capacity ? vocab->texts_capacity * 2 : 4096;
    if (capacity < vocab->n_texts + n) capacity = vocab->n_texts + n;
    char *texts = realloc(vocab->texts, capacity);
    if (!texts) return false;
    vocab->texts = texts;
    vocab->texts_capacity = capacity;
    return true;
}

enum status vocab_add(struct vocab *vocab, const char *text, size_t n, uint64_t id, struct err *err)
{
    if (id >= TOKENIZER_IDS_MAX)
        return err_set(err, ERR_DATA, "token '%s' has the id %llu, not below %u", shown(text, n).text, (unsigned long long)id, TOKENIZER_IDS_MAX);
    if (n > TOKENIZER_TOKEN_MAX)
        return err_set(err, ERR_DATA, "token %llu has %zu bytes, more than %u", (unsigned long long)id, n, TOKENIZER_TOKEN_MAX);
    if (vocab_has(vocab, (uint32_t)id)) return err_set(err, ERR_DATA, "two tokens have the id %llu", (unsigned long long)id);
    if (vocab_find(vocab, text, n) >= 0) return err_set(err, ERR_DATA, "token '%s' is there twice", shown(text, n).text);
    if (!grow_tokens(vocab, (uint32_t)id) || !grow_texts(vocab, n) || !grow_slots(vocab)) return err_set(err, ERR_MEMORY, "out of memory for tokens");
    if (n) memcpy(vocab->texts + vocab->n_texts, text, n);
    vocab->tokens[id] = (struct vocab_token){ (uint32_t)vocab->n_texts, (uint32_t)n };
    vocab->n_texts += n;
    vocab->n_used++;
    place(vocab, (uint32_t)id);
    if (vocab->n_probes > 65536 && vocab->n_probes / 32 > vocab->n_used) return err_set(err, ERR_DATA, "tokens made to collide");
    return OK;
}

void vocab_free(struct vocab *vocab)
{
    free(vocab->texts);
    free(vocab->tokens);
    free(vocab->slots);
    *vocab = (struct vocab){ 0 };
}
