/* arch_expr.h: small sums over the facts of a model, as architecture maps write them.
 *
 *   "n_heads * head_dim + n_kv_heads * head_dim"   with 32, 128, 8   ->   5120
 *
 * Why this way: where the values stand in a fused projection is arithmetic on a few facts; with it a map needs no code of its own.
 * Corner cases: whole numbers from 0 to 2^64 - 1 only: a sum below 0, a product beyond, a division by 0 or with a remainder are errors; an unknown fact
 * is no error of the map, the answer names it; nesting is limited.
 * Reference: configs/arch/README.md. Worked number: 2 + 3 * (4 - 1) is 11.
 */
#ifndef LLMQ_SMOOTHQUANT_ARCH_EXPR_H
#define LLMQ_SMOOTHQUANT_ARCH_EXPR_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum expr_answer {
    EXPR_OK,
    EXPR_UNKNOWN, /* a fact that this model does not have */
    EXPR_BAD /* not an expression, a name that is no fact, or a number out of range */
};

/* Value of the n bytes of name: EXPR_OK, EXPR_UNKNOWN, or EXPR_BAD for a name that means nothing. */
typedef enum expr_answer expr_lookup_fn(void *context, const char *name, size_t n, uint64_t *out);

#define EXPR_WHY_MAX 160

/* *out is written for EXPR_OK only; why gets the name that is unknown, or what is wrong. */
enum expr_answer expr_value(const char *text, expr_lookup_fn *lookup, void *context, uint64_t *out, char why[EXPR_WHY_MAX]);

/* Whether the text is an expression over names that lookup knows (an EXPR_UNKNOWN counts); values are not looked at. */
enum expr_answer expr_check(const char *text, expr_lookup_fn *lookup, void *context, char why[EXPR_WHY_MAX]);

#endif
