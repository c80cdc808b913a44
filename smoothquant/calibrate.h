/* calibrate.h: activation statistics of a model on windows of tokens: a forward pass whose linear layers' inputs are watched.
 *
 *   windows -> forward pass, layer by layer -> what every distinct input sees -> struct stats_set, entries named after the weights that read it
 *
 * Formula: per channel sums of x^2, x, |x| in binary64, tokens of a window in their order, windows in theirs; largest, least; counts of tokens.
 *   histogram: bin of |x| = its binary32 bits >> 20: 8 bins an octave; bin b begins at the number with the bits b << 20
 *   sample:    N rows at evenly spaced tokens of all, BF16;     Gram matrix: sum of x x^T in binary32, windows in their order
 * Why this way: weights that read one input share an entry, the others are aliases. The bins need no range that would have to be known before, or agree
 * between files that are merged.
 * Corner cases: an expert counts the tokens it was sent; one without tokens has count 0. Sampled rows are not kept of experts, whose tokens are not
 * known in advance. Histograms, Gram matrices and samples are kept on request. The input of the head is kept where the head has weights of its own. The
 * set is the same for any number of threads.
 * Reference: STATS.md; the project's smoothquant notes 1 (Calibration), 4b. Worked number: |x| = 1: bits 0x3f800000, bin 1016; 1.2 lies in bin 1017.
 */
#ifndef LLMQ_SMOOTHQUANT_CALIBRATE_H
#define LLMQ_SMOOTHQUANT_CALIBRATE_H

#include "smoothquant/forward.h"
#include "smoothquant/stats.h"

struct calibrate_options {
    const struct io_calls *io;
    struct gemm gemm;
    unsigned n_workers;
    uint64_t max_ram;
    const volatile sig_atomic_t *stop; /* may be NULL */
    const char *spill_dir;
    const struct arch_model *model;
    const struct container *container; /* for names */
    struct weight_source source;
    const struct weight_source *stream; /* weights whose outputs the next layer sees; NULL: those of source */
    size_t skip_first; /* tokens of every window that are left out */
    uint64_t n_sample; /* rows to keep; 0: none */
    bool hist, gram;
    const char *state; /* path of a file to go on from: written after every layer, with STATE.activations beside it; NULL: none */
    bool resume; /* state is there, if its key is that of this run */
    const char *key; /* identifies model, tokens and options */
    void (*progress)(void *context, uint64_t n_tokens); /* tokens that went through a layer; may be NULL */
    void *context;
};

/* Runs the windows through the model. *out (stats_close) has entries in the order of the layers, chunk size and count, and no facts. On failure state and
 * activations stay where a layer was finished; on success they are removed. *first_layer (may be NULL): the layer it went on with. */
enum status calibrate_run(const struct calibrate_options *options, const struct windows *windows, struct stats_set **out, size_t *first_layer,
                          struct err *err);

/* Tokens that the statistics will count. */
uint64_t calibrate_tokens(const struct windows *windows, size_t skip_first);

#endif
