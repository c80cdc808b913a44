/* forward_attention.h: causal attention of some query heads over the keys and values of one sequence.
 *
 *   S = scale Q K^T (softcap) - where key > query, or key <= query - window;  P = softmax S;  A = P V       one head after the other
 *
 *   queries   |****....|   blocks of 128 queries see only the keys up to their last one
 *             |********|
 *
 * Why this way: a block's scores are the only memory that grows with the sequence squared; half of the square is never computed.
 * Corner cases: n_keys > n_queries: the queries are the last of the sequence (keys from a cache); window 0: no limit; a sink is a score that takes part
 * in the sum and has no value.
 * Reference: Vaswani et al., arXiv 1706.03762; Ainslie et al., arXiv 2305.13245 (GQA). Worked number: one key: its value, whatever the score.
 */
#ifndef LLMQ_SMOOTHQUANT_FORWARD_ATTENTION_H
#define LLMQ_SMOOTHQUANT_FORWARD_ATTENTION_H

#include "smoothquant/gemm.h"

#define ATTENTION_BLOCK ((size_t)128) /* queries at once; scores take ATTENTION_BLOCK * n_keys floats */

struct attention {
    const struct gemm *gemm;
    size_t n_heads, n_kv_heads; /* query heads, a multiple of the key heads: head h reads key head h / (n_heads / n_kv_heads) */
    size_t head_dim;
    float scale, softcap; /* softcap 0: none */
    size_t window; /* keys a query sees, itself included; 0: all */
    const float *sinks; /* one a query head, or NULL */
    const float *slopes; /* ALiBi: score += slope * (key - query), one a query head, or NULL */
};

/* q: n_queries rows of n_heads * head_dim, q_stride apart; k, v: n_keys rows, kv_stride apart; out like q. scores: ATTENTION_BLOCK * n_keys floats;
 * gemm_scratch: GEMM_SCRATCH floats. */
void attend(const struct attention *attention, const float *q, size_t q_stride, size_t n_queries, const float *k, const float *v, size_t kv_stride,
            size_t n_keys, float *out, size_t out_stride, float *scores, float *gemm_scratch);

#endif
