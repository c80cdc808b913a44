/* tokenizer_self.h: what a tokenizer consists of, for the readers that fill it and the code that runs it.
 *
 *   text --raw--> pieces --normalizer--> --normalized--> pieces --cuts--> words --bpe--> ids
 *
 * Why this way: tokenizer.json and GGUF describe the same parts in two ways; each reader fills this, and one function encodes.
 * Corner cases: names holds added tokens that are not in the vocabulary of merges, so that no merge can make them.
 * Reference: tokenizer.h. Worked number: "<s>hi" with the raw name "<s>": id of <s>, then the words of "hi".
 */
#ifndef LLMQ_SMOOTHQUANT_TOKENIZER_SELF_H
#define LLMQ_SMOOTHQUANT_TOKENIZER_SELF_H

#include "smoothquant/tokenizer.h"
#include "smoothquant/tokenizer_added.h"
#include "smoothquant/tokenizer_bpe.h"
#include "smoothquant/tokenizer_step.h"

#define TOKENIZER_FRONT_MAX 8u

struct tokenizer {
    struct added_set raw, normalized; /* tokens found before and after the normaliser */
    struct step_list normalizer, cuts;
    struct bpe bpe;
    struct vocab names;
    int32_t front[TOKENIZER_FRONT_MAX]; /* what the model wants before a text */
    size_t n_front;
    int32_t bos;
    uint32_t n_ids; /* largest id + 1 */
    bool spells_bytes; /* tokens are spelt bytes */
};

/* Adds a token that is found by name; normalized: in the normalised text (the text given is then already normalised). */
enum status tokenizer_add_name(struct tokenizer *tokenizer, const struct added_token *token, bool normalized, struct err *err);

/* The id of a token by its text, in either vocabulary; -1 without it. */
int32_t tokenizer_find(const struct tokenizer *tokenizer, const char *text, size_t n);

/* To be called last: sorts, counts, checks that front and bos are tokens. */
enum status tokenizer_complete(struct tokenizer *tokenizer, struct err *err);

/* Runs the normaliser over a short text. */
enum status tokenizer_normalize(const struct tokenizer *tokenizer, const char *text, size_t n, struct text *out, struct err *err);

#endif
