/* eval.h: what a model's weights are worth on a text: perplexity, and how far its predictions are from those of another set of weights.
 *
 *   nll = sum over scored tokens of ln sum_v exp(l_v) - l_target      perplexity = exp(nll / tokens)      bits per byte = nll / ln 2 / bytes
 *   KL = sum_v p_v ln(p_v / q_v), p of the reference, q of the judged     top1: share of tokens with the same most likely entry
 *
 * Why this way: both passes end in a spill each, and one walk over the vocabulary in panels of 1024 entries gathers the sums of both, so that no row of
 * logits is ever whole in memory.
 * Corner cases: windows never cross documents and do not overlap; every token after a window's first is scored; windows of one token are left out. A KL
 * that rounds below 0 is 0. Bytes are known for texts only: then bits per byte = bits per scored token * tokens of the text per byte, which is exact where
 * every document is one window behind a token that begins it. The same numbers for any number of threads.
 * Reference: the project's smoothquant notes 5. Worked number: stories260K on 75 stories: 20034 tokens, perplexity 4.3594.
 */
#ifndef LLMQ_SMOOTHQUANT_EVAL_H
#define LLMQ_SMOOTHQUANT_EVAL_H

#include "smoothquant/forward.h"
#include "smoothquant/tokens.h"

struct eval_options {
    const struct io_calls *io;
    struct gemm gemm;
    unsigned n_workers;
    uint64_t max_ram;
    const volatile sig_atomic_t *stop; /* may be NULL */
    const char *spill_dir;
    size_t seq; /* tokens of a window */
    size_t n_lead; /* tokens in front of every document that stand for no text */
    void (*progress)(void *context, uint64_t n_tokens); /* tokens that went through a layer; may be NULL */
    void *context;
    /* Logits of vocabulary entries [first, first + n) of the judged model for n_rows tokens from token number row of all windows on, [n_rows][n]; may be
     * NULL. From several threads at once. */
    enum status (*logits)(void *context, uint64_t row, size_t n_rows, size_t first, size_t n, const float *logits, struct err *err);
    void *logits_context;
};

/* A set of weights: where the model has them, and how they are read. */
struct eval_model {
    const struct arch_model *model;
    struct weight_source source;
};

struct eval_result {
    uint64_t n_tokens; /* scored */
    uint64_t n_windows;
    double perplexity, reference_perplexity; /* NaN without a reference */
    double bits_per_byte; /* NaN for ids */
    double kl_mean, kl_p99, kl_max, top1; /* NaN without a reference; nats */
};

struct eval;

/* Windows of the documents, which must outlive *out; with a reference its pass is run, once for all that will be judged. ERR_DATA when no token can be
 * scored, or an id is not in the vocabulary of the reference. */
enum status eval_open(const struct eval_options *options, const struct token_docs *docs, const struct eval_model *reference, struct eval **out,
                      struct err *err);

/* Judges one set of weights. ERR_USAGE when its vocabulary is not that of the reference. */
enum status eval_judge(struct eval *eval, const struct eval_model *model, struct eval_result *result, struct err *err);

/* Tokens of all windows, for progress: they go through every layer of every model. */
uint64_t eval_tokens(const struct eval *eval);

void eval_close(struct eval *eval); /* NULL allowed */

#endif
