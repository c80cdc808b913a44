/* learn_stream.h: the learned scale of a tensor that does not fit in memory: candidates by the batch, whole passes over the tensor, sums per slice.
 *
 *   begin;  while (next) { for each slice: part = 0; observe(part, spans of it); add(part) in slice order }  finish
 *   pass 1 statistics | 2 grid of 64 | 3 finer around the best | 4 least-squares refit            (TQT: statistics | 16 exponents | 48 more if needed)
 *
 * Why this way: a descent would need a pass a step. A batch of 64 candidates costs one pass, and the loss is flat on the scale of the second batch, 1/32 of
 * 1/56 of the range: on large groups what a descent adds to that is lost in the rounding of the scale. Fewer passes mean a coarser grid; more, reading the
 * tensor again for less than 0.001 dB. A caller that wants the descent itself can sum learn_eval's slope over its spans, a pass a step.
 * Corner cases: observe changes nothing but the part, so slices may be observed side by side; the result depends on the spans and their order, not on who
 * observed them. As in memory, the result is never worse than absmax. KL-J is not available: FROM_KLJ counts as FROM_MAX. Method LEARN_SEARCH leaves
 * out pass 4.
 * Reference: NUMERICS_LEARNED.md 7. Worked number: int4, the 8 weights of NUMERICS_LEARNED.md 8: 4 passes, s = 0.368, loss 0.06691.
 */
#ifndef LLMQ_NUMBER_LEARN_STREAM_H
#define LLMQ_NUMBER_LEARN_STREAM_H

#include "number/learn_search.h"

enum { LEARN_BATCH = 64, LEARN_PASSES = 4 };

/* What a slice adds in one pass; all zero at first. */
struct learn_part {
    struct learn_stats stats;
    struct learn_sums sums[LEARN_BATCH];
};

struct learn_stream {
    enum learn_rule rule;
    int32_t code_min, code_max;
    struct learn_problem problem;
    uint32_t pass; /* the one being observed, from 1 */
    uint32_t count, exponents; /* candidates of this pass; TQT: exponents below k0 tried so far */
    bool fit; /* whether this pass sums for the refit too */
    float scales[LEARN_BATCH];
    struct learn_part total;
};

/* params must stay valid until finish. */
void learn_stream_begin(struct learn_stream *stream, enum learn_rule rule, const struct learn_params *params, int32_t code_min, int32_t code_max);

/* True: the tensor is to be observed once (more), false: there is nothing more to ask. At most LEARN_PASSES times true. */
bool learn_stream_next(struct learn_stream *stream);

/* Adds a span of n weights to a part. */
void learn_stream_observe(const struct learn_stream *stream, const float *x, const float *weight, size_t n, struct learn_part *part);

/* Adds a part to the pass. */
void learn_stream_add(struct learn_stream *stream, const struct learn_part *part);

void learn_stream_finish(const struct learn_stream *stream, struct learned *learned);

#endif
