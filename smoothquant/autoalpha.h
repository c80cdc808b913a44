/* autoalpha.h: the reference's AutoAlpha: alphas tuned by running the model, and the table of all tuners.
 *
 *   for every sample:  (a) the model as it is                           keeps every linear's output
 *                      (b) all linears quantised at the best alphas     keeps their inputs, which carry the errors of what came before; loss of (b)
 *                      (c) every other alpha of the grid on those inputs: Linear( QDQ8(x / s), QDQ8(W s) ) + bias; loss
 *   loss(member, alpha) summed over ALL samples; every n_samples / 4 samples, and at the end, each group takes its best alpha by the criterion
 *   loss of an output: both divided by the largest |output of (a)| (of each sequence of the sample; at least 1e-5), then sum |difference|^0.5
 *
 * Why this way: 8-bit weights and activations as in the original (qdq8.h), so that its results can be had again. What it sums up over samples it meant to
 * sum up: the original forgets all but the last sample.
 * Blockwise: a block's members share one alpha, judged on the block's output with all of them quantised at it.
 * Order: outputs are sums of products in binary64 over inputs ascending, the bias last, rounded to binary32; losses are binary64 sums, outputs of a token
 * ascending, tokens ascending, samples ascending.
 * Corner cases: alpha below 0 is s = 1; a group without statistics of its absorber is left out unless folding; a linear in no group stays as it is; a
 * start alpha that is not of the grid serves the first samples and is no candidate; a linear outside any block is its own block. Ties: first of the grid.
 * Reference: the project's smoothquant notes 1b, 6e.5, 6e.12. Worked number: 32 samples: alphas are chosen anew after 8, 16, 24 and 32.
 */
#ifndef LLMQ_SMOOTHQUANT_AUTOALPHA_H
#define LLMQ_SMOOTHQUANT_AUTOALPHA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "smoothquant/smooth_search.h"

#define AUTOALPHA_NONE SIZE_MAX

/* A linear layer y = W x + bias. Everything stays with the caller. */
struct autoalpha_linear {
    const float *w; /* n_out x n_in */
    uint64_t n_out, n_in;
    const float *bias; /* [n_out] or NULL */
    const float *in_min, *in_max; /* [n_in]: calibrated ranges of its input */
    size_t group; /* linears of one group share s; AUTOALPHA_NONE: is not touched */
    size_t block; /* AUTOALPHA_NONE: outside any block */
};

/* What the model's forward function calls at every linear and block; NULL context of a plain run is not allowed. */
struct autoalpha_hook;

/* y[n_tokens x n_out] of linear number `linear` on x[n_tokens x n_in], as the present pass wants it. */
enum status autoalpha_linear_run(struct autoalpha_hook *hook, size_t linear, const float *x, uint64_t n_tokens, float *y, struct err *err);

/* The input and the output of block number `block`, n_x and n_y numbers a token; for blockwise tuning, elsewhere without effect. */
enum status autoalpha_block_enter(struct autoalpha_hook *hook, size_t block, const float *x, uint64_t n_tokens, uint64_t n_x, struct err *err);
enum status autoalpha_block_leave(struct autoalpha_hook *hook, size_t block, const float *y, uint64_t n_tokens, uint64_t n_y, struct err *err);

/* The model. forward and forward_block call the functions above and are never called by two threads at once. */
struct autoalpha_model {
    const struct autoalpha_linear *linears;
    size_t n_linears;
    size_t n_groups, n_blocks;
    const bool *group_has_stats; /* [n_groups]: the absorber's statistics are known; NULL: all are */
    uint64_t n_samples; /* that forward can run */
    uint64_t n_sequences; /* of one sample, whose tokens they share evenly; 0: a sample is one matrix, with one largest output */
    void *context;
    enum status (*forward)(void *context, uint64_t sample, struct autoalpha_hook *hook, struct err *err);
    /* One block alone, again, on an input that autoalpha_block_enter was shown: y as shown to autoalpha_block_leave. For blockwise tuning only. */
    enum status (*forward_block)(void *context, uint64_t sample, size_t block, const float *x, uint64_t n_tokens, struct autoalpha_hook *hook,
                                 float *y, struct err *err);
};

/* The original's parameters. */
struct autoalpha_settings {
    double alpha_min, alpha_max, alpha_step;
    enum smooth_criterion shared_criterion; /* min, max or mean */
    double init_alpha;
    bool folding, do_blockwise;
    uint64_t n_samples; /* at most those of the model are used */
    double power; /* .5: as above; anything else: squares */
    uint64_t max_ram; /* budget for keeping the factors of all alphas, see smooth_cache.h; 0: none. Without room they are made anew each time */
};

/* 0 .. 1 by .1, max, .5, no folding, layer by layer, 32 samples, .5: those of the original's configuration. */
struct autoalpha_settings autoalpha_settings_default(void);

struct autoalpha_result {
    double *alphas; /* [n_groups]; NAN for a group that was left out. Owned, as all arrays here */
    double *grid; /* [n_grid] */
    size_t n_grid;
    double *losses; /* [n_linears][n_grid], summed over samples (blockwise: the block's loss); 0 for linears that were left out */
    float **scales; /* [n_groups]: s of the group, n_in of its members; NULL for a group that was left out */
    uint64_t n_samples; /* that were run */
};

/* Tunes. autoalpha_result_free frees *result, also after an error. ERR_USAGE: settings; members of a group with different n_in; a criterion joint. */
enum status autoalpha_tune(const struct autoalpha_model *model, const struct autoalpha_settings *settings, struct autoalpha_result *result,
                           struct err *err);
void autoalpha_result_free(struct autoalpha_result *result, size_t n_groups);

/* ---- the table of tuners ------------------------------------------------------------------------------------------------------- */

/* How alphas can be found: the counterpart of register_autotune. A new one is a row. */
struct smooth_tuner {
    const char *name; /* "inc-v1", "diag", "gram", "sample", "w8a8", "awq", "awq-duo" */
    const char *summary; /* one line */
    bool on_model; /* autoalpha_tune runs the model; else smooth_search judges statistics */
    bool families[SMOOTH_FAMILY_COUNT];
    enum smooth_loss loss;
    bool refuse_worse;
};

size_t smooth_tuner_count(void);
const struct smooth_tuner *smooth_tuner_at(size_t index);
const struct smooth_tuner *smooth_tuner_find(const char *name); /* NULL: there is none */

/* Families, loss and refuse_worse of the tuner into settings; the rest stays. */
void smooth_tuner_set(const struct smooth_tuner *tuner, struct smooth_settings *settings);

#endif
