/* forward_sample.h: documents that a model writes itself, for calibration without a data set.
 *
 *   token(t + 1) = argmax_v ( logit_v + g_v ),  g_v = -ln(-ln u),  u in (0, 1) made from seed, document, position and v
 *
 * Why this way: with that noise the largest is a draw from the softmax (temperature 1), found in one walk over the vocabulary in panels; the noise of an
 * entry depends on nothing but its place, so the documents are the same for any number of threads. All documents advance together, so that weights are
 * read once for all; they stay in memory where they fit, else they are read again for every position.
 * Corner cases: a document begins with the model's first token, or a drawn one where it has none; what follows an end token is sampled on, as models see
 * it in training.
 * Reference: Liu et al., LLM-QAT, arXiv 2305.17888 (data from the model); Gumbel's maximum. Worked number: logits 0, ln 3: the second with 3/4.
 */
#ifndef LLMQ_SMOOTHQUANT_FORWARD_SAMPLE_H
#define LLMQ_SMOOTHQUANT_FORWARD_SAMPLE_H

#include "smoothquant/forward.h"

struct sample_options {
    const struct io_calls *io;
    const struct arch_model *model;
    struct weight_source source;
    struct gemm gemm;
    unsigned n_workers;
    uint64_t max_ram;
    const volatile sig_atomic_t *stop; /* may be NULL */
    const char *spill_dir; /* for keys and values, where memory is short */
    uint64_t seed;
    int32_t first; /* token that begins documents; -1: drawn */
    size_t n_documents, length;
    void (*progress)(void *context, uint64_t n_tokens); /* tokens written; may be NULL */
    void *context;
};

/* Writes n_documents documents of `length` tokens to ids, one behind the other. */
enum status sample_run(const struct sample_options *options, int32_t *ids, struct err *err);

/* The noise of an entry: deterministic, and different for every place. */
double sample_noise(uint64_t seed, uint64_t document, uint64_t position, uint64_t entry);

#endif
