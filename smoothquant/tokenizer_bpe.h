/* tokenizer_bpe.h: byte-pair encoding: a word becomes its symbols, and the pair of the lowest rank is merged until no pair has one.
 *
 *   word "abcab", merges (a, b) rank 0, (ab, c) rank 1:   a b c a b -> ab c ab -> abc ab
 *
 * Why this way: byte-level BPE, SentencePiece's BPE with merges, and SentencePiece's BPE with scores (rank = place of the score) are the same machine over
 * ids; only what becomes of a character without a token differs, and that is data too.
 * Corner cases: of equal ranks the leftmost goes first. A character without a token becomes its bytes <0xXX> if all are tokens, else the unknown token, one
 * for each or one for a row of them; without either it is an error, never dropped. Characters that only longer tokens contain are symbols all the same.
 * Reference: Sennrich 2016; tokenizers models/bpe; llama.cpp's SPM session. Worked number: see the drawing.
 */
#ifndef LLMQ_SMOOTHQUANT_TOKENIZER_BPE_H
#define LLMQ_SMOOTHQUANT_TOKENIZER_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "smoothquant/tokenizer_vocab.h"

#define BPE_SHORT_CODES 2048u

struct bpe_merge {
    uint32_t left, right; /* left is UINT32_MAX in an empty slot */
    uint32_t rank, id;
};

/* Constant while it is used. A zeroed struct is empty. */
struct bpe {
    struct vocab vocab; /* ids from n_real on are characters without a token of their own */
    uint32_t n_real;
    struct bpe_merge *merges; /* open addressing */
    size_t n_merges, n_slots;
    int32_t byte_ids[256]; /* of <0x00> .. <0xFF>; -1: none */
    int32_t short_ids[BPE_SHORT_CODES]; /* of the code points below; -1: none */
    uint64_t *joints; /* pairs of code points inside of tokens: open addressing, 0 empty; NULL: words are not cut further */
    size_t n_joints, n_joint_slots;
    int32_t unknown; /* -1: none */
    bool has_bytes; /* byte_ids are there and used */
    bool fuses_unknown;
    bool ignores_merges; /* a word that is a token is that token */
    bool knows_newlines; /* the same for words of line feeds alone */
};

/* Adds a merge of two ids into a third; of the same pair the last one counts. */
enum status bpe_add_merge(struct bpe *bpe, uint32_t left, uint32_t right, uint32_t rank, uint32_t id, struct err *err);

/* Adds every way to part every token of at least two characters in two tokens, with ranks by the scores of all ids below n_real. */
enum status bpe_add_scored(struct bpe *bpe, const float *scores, struct err *err);

/* To be called once all tokens are there: n_real, byte_ids, short_ids. */
void bpe_index(struct bpe *bpe);

/* Makes joints, with which long words are cut where no token reaches over: for tokenizers whose words are whole lines. */
enum status bpe_make_joints(struct bpe *bpe, struct err *err);

void bpe_free(struct bpe *bpe);

/* Growing ids. */
struct id_list {
    int32_t *ids;
    size_t n, capacity;
};

enum status id_list_add(struct id_list *list, int32_t id, struct err *err);

struct bpe_symbol;
struct bpe_waiting;
struct bpe_cached;

/* Memory of encoding, for one thread. A zeroed struct is empty. */
struct bpe_work {
    struct bpe_symbol *symbols;
    size_t n_symbols, symbols_capacity;
    struct bpe_waiting *heap;
    size_t n_heap, heap_capacity;
    struct bpe_cached *cache; /* words met before */
};

void bpe_work_free(struct bpe_work *work);

/* Appends the ids of one word of well-formed UTF-8. ERR_DATA for a character that has no token. */
enum status bpe_encode(const struct bpe *bpe, struct bpe_work *work, const char *word, size_t n, struct id_list *out, struct err *err);

#endif
