/* smooth_engine.h: losses of candidates, over blocks of rows and threads.
 *
 *   engine_add(s) .. engine_add(s) -> jobs (candidate, block of rows) over workers -> slots -> engine_flush: slots in order -> losses of members
 *
 * Why this way: a job owns its slot and nothing else, so threads need no order; sums are made afterwards, in the order of the definition.
 * Corner cases: blocks have about 65536 weights, or what must stay together (a square's rows, a matrix of format "tensor"); a candidate of which a block
 * does not go through the format costs Inf.
 * Reference: smooth_search.h. Worked number: 1000 rows of 4096: 63 blocks of 16 rows; 22 candidates: 1386 jobs.
 */
#ifndef LLMQ_SMOOTHQUANT_SMOOTH_ENGINE_H
#define LLMQ_SMOOTHQUANT_SMOOTH_ENGINE_H

#include <stdatomic.h>

#include "smoothquant/smooth_loss.h"

#define ENGINE_BATCH 32u /* candidates at a time */

struct engine_block;
struct engine_desk;

struct engine {
    const struct smooth_problem *problem;
    const struct smooth_settings *settings;
    struct engine_block *blocks;
    size_t n_blocks;
    uint64_t max_rows; /* of a block */
    size_t *same; /* [n_members]: first member with the same format */
    float *own_wmax; /* [n_members][n], or NULL */
    struct engine_desk *desks;
    unsigned n_workers;
    struct smooth_view *views; /* [ENGINE_BATCH]: candidates as losses see them */
    size_t n_views;
    float *amax; /* [ENGINE_BATCH][n_members] */
    double *slots; /* [ENGINE_BATCH][n_blocks] */
    double *output_max; /* [n_members]: for w8a8 */
    bool measuring; /* the pass that finds output_max */
    atomic_size_t next; /* job */
};

/* ERR_USAGE for statistics that the loss needs and that are missing. engine_close frees, also after an error. */
enum status engine_open(const struct smooth_problem *problem, const struct smooth_settings *settings, unsigned n_workers, struct engine *engine,
                        struct err *err);
void engine_close(struct engine *engine);

/* True when engine_flush must come before the next engine_add. */
bool engine_is_full(const struct engine *engine);

/* Factors of a candidate; s NULL: identity. norm: no candidate, the weights themselves are what is lost. */
enum status engine_add(struct engine *engine, const float *s, bool norm, struct err *err);

/* Losses of what was added: losses[m * stride + i] of member m, 0 for members without a format. */
void engine_flush(struct engine *engine, double *losses, size_t stride);

#endif
