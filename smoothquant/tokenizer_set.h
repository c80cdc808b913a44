/* tokenizer_set.h: a set of code points, as classes of patterns are: sorted ranges, with a bit for each of the first 2048.
 *
 *   [^\r\n\p{L}]  =  complement(10, 13, the runs of L)
 *
 * Why this way: all classes become the same ranges, whatever they are made of, and what matching asks for most often is one bit.
 * Corner cases: ranges may be added in any order and overlap; the set is usable after tokenizer_set_close_ranges; surrogates may be inside and never occur.
 * Reference: unicode.h. Worked number: \d has the ranges 48..57, 1632..1641, ...
 */
#ifndef LLMQ_SMOOTHQUANT_TOKENIZER_SET_H
#define LLMQ_SMOOTHQUANT_TOKENIZER_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOKENIZER_SET_BITS 2048u

struct code_range {
    uint32_t first, last;
};

/* A zeroed struct is the empty set. */
struct tokenizer_set {
    struct code_range *ranges;
    size_t n_ranges, capacity;
    uint64_t bits[TOKENIZER_SET_BITS / 64];
};

/* The functions that add return false when out of memory. */
bool tokenizer_set_add(struct tokenizer_set *set, uint32_t first, uint32_t last);
bool tokenizer_set_add_categories(struct tokenizer_set *set, uint32_t mask);
bool tokenizer_set_add_spaces(struct tokenizer_set *set);
bool tokenizer_set_add_set(struct tokenizer_set *set, const struct tokenizer_set *other);

/* Sorts and joins the ranges; complement: then turns the set inside out. */
bool tokenizer_set_close_ranges(struct tokenizer_set *set, bool complement);

/* For sets that are closed. */
bool tokenizer_set_search(const struct tokenizer_set *set, uint32_t code);

static inline bool tokenizer_set_has(const struct tokenizer_set *set, uint32_t code)
{
    if (code < TOKENIZER_SET_BITS) return set->bits[code / 64] >> (code % 64) & 1;
    return tokenizer_set_search(set, code);
}

void tokenizer_set_free(struct tokenizer_set *set);

#endif
