/* tokenizer_pattern_self.h: the program that a pattern becomes, shared by what makes it and what runs it.
 *
 *   0 split 1, 4 | 1 set {'} | 2 set {s} | 3 jump 5 | 4 loop {letters} 1..  | 5 end          of  's|\p{L}+
 *
 * Why this way: a repeated class, nearly all of every pattern, is one instruction and one entry on the stack, however long its run.
 * Corner cases: look and atomic are followed by their own program up to its end, x is what comes after it.
 * Reference: R. Cox, Regular Expression Matching: the Virtual Machine Approach. Worked number: see the drawing.
 */
#ifndef LLMQ_SMOOTHQUANT_TOKENIZER_PATTERN_SELF_H
#define LLMQ_SMOOTHQUANT_TOKENIZER_PATTERN_SELF_H

#include "smoothquant/tokenizer_pattern.h"
#include "smoothquant/tokenizer_set.h"

enum pattern_op {
    PATTERN_END,
    PATTERN_SET, /* one code point of set x */
    PATTERN_LOOP, /* min..max code points of set x, as many as there are; gives them back one by one unless possessive */
    PATTERN_SPLIT, /* x, and if that fails y */
    PATTERN_JUMP, /* x */
    PATTERN_LOOK, /* what follows must match here (negative: must not); x after it */
    PATTERN_ATOMIC, /* the first way that what follows matches, and no other; x after it */
    PATTERN_LINE_END,
    PATTERN_TEXT_END,
    PATTERN_WORD_EDGE /* between a code point of set x and another one or the text's end; negative: no edge */
};

struct pattern_code {
    enum pattern_op op;
    bool flag; /* negative, possessive */
    uint32_t x, y;
    uint32_t min, max;
};

struct tokenizer_pattern {
    struct pattern_code *codes;
    size_t n_codes, codes_capacity;
    struct tokenizer_set *sets;
    size_t *set_at; /* where in the text each stands; SIZE_MAX for \w of an edge */
    bool *set_folds;
    size_t n_sets, sets_capacity;
    char shown[160]; /* for messages */
};

#endif
