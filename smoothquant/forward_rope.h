/* forward_rope.h: rotary positions: the frequencies of a model's scaling, and the turn of queries and keys.
 *
 *   pair i of n/2 is turned by pos * f_i,  f_i = theta^(-2i/n) / what the scaling says     (a, b) -> (a cos - b sin, b cos + a sin)
 *   half split: pair i is dims i and i + n/2       interleaved: dims 2i and 2i + 1
 *   linear    f_i / factor
 *   llama3    wavelength w = 2 pi / f_i: below old/high f_i; above old/low f_i / factor; between (1-s) f_i/factor + s f_i, s = (old/w - low) / (high - low)
 *   yarn      (1-r) f_i/factor + r f_i with a ramp r over i between the dims of beta_fast and beta_slow turns in old positions; attention factor
 *             0.1 ln factor + 1
 *   longrope  f_i / factors_i, the long list for windows above old positions, else the short; attention factor sqrt(1 + ln(max/old) / ln old)
 *
 *   dynamic   beyond max positions: theta (factor n / max - factor + 1)^(d / (d - 2)) in place of theta, d the turned dims, n the window
 *
 * Why this way: angles in binary64, rounded once as cos and sin; the table is made once for all layers that share it.
 * Corner cases: fewer dims than the head has (partial): the rest stays; an attention factor multiplies cos and sin, as the models' own code does.
 * Reference: Su et al., arXiv 2104.09864; transformers modeling_rope_utils.py; Peng et al., arXiv 2309.00071 (YaRN); arXiv 2402.13753 (LongRoPE).
 * Worked number: theta 10000, n 4: f = 1, 0.01; position 1 turns (1, 0) to (0.540302, 0.841471).
 */
#ifndef LLMQ_SMOOTHQUANT_FORWARD_ROPE_H
#define LLMQ_SMOOTHQUANT_FORWARD_ROPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum rope_scaling { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN, ROPE_LONGROPE, ROPE_DYNAMIC, ROPE_SCALING_COUNT };

/* How a model turns queries and keys. Zero values of the optional ones mean the model's defaults. */
struct rope {
    enum rope_scaling scaling;
    bool interleaved;
    size_t n_dims; /* turned dims of a head, even */
    double theta;
    double factor; /* linear, llama3, yarn, longrope */
    double old_positions; /* positions before the extension: llama3, yarn, longrope */
    double max_positions; /* longrope: after it; 0: from factor */
    double low, high; /* llama3: low and high frequency factor */
    double beta_fast, beta_slow; /* yarn; 0: 32 and 1 */
    double attention_factor; /* 0: from the scaling */
    double mscale, mscale_all; /* yarn; 0: not given */
    bool no_truncate; /* yarn: the ramp's ends are not rounded to whole dims */
    const float *factors_short,
        *factors_long; /* longrope, n_dims / 2 each; factors_short alone divides any scaling's frequencies (GGUF rope_freqs) */
};

/* cos and sin of n_positions: table[pos][n_dims / 2][2]. */
struct rope_table {
    size_t n_dims, n_positions;
    bool interleaved;
    float *table; /* owned; NULL when n_dims is 0 */
};

/* Frequencies of all n_dims / 2 pairs for sequences of `length` tokens, and the factor of cos and sin. */
void rope_frequencies(const struct rope *rope, size_t length, double *frequencies, double *attention_factor);

/* Longest sequence that has the frequencies of short ones; SIZE_MAX where the length does not matter. */
size_t rope_long_from(const struct rope *rope);

/* A table of positions below n_positions, for sequences of `length` tokens. ERR_MEMORY when out of memory. */
enum status rope_table_make(const struct rope *rope, size_t n_positions, size_t length, struct rope_table *table, struct err *err);
void rope_table_free(struct rope_table *table);

/* Turns n_heads heads of head_dim (one behind the other) in place; position is below table->n_positions. */
void rope_turn(const struct rope_table *table, size_t position, float *x, size_t n_heads, size_t head_dim);

#endif
