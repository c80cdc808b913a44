/* choose.h: scale rules that look at the weights of a group, not at its range alone: range observers and learners behind one call.
 *
 *   weights --observer--> range worth coding --candidate 0 of the family--> scale, zero        percentile, mse-hist, histogram-pro, 3sd, kl-j
 *   weights --learner--> scale, zero                                                           tqt, lsq, pact
 *
 * Why this way: observers and learners know nothing of formats; what a rule's parameters are for a format of so many bits is said here and nowhere
 * else. What follows from an observed range is what follows from any range. Rule minmax is not here: its range is the group's own, so it is absmax.
 * Corner cases: a group of zeros has the scale of a group of zeros under every rule; where the scale of an observed range, or a learned one,
 * overflows its type, that of the whole range is taken; where that one does, the group is refused. So every rule takes and refuses what absmax does.
 * Reference: NUMERICS.md 4, NUMERICS_OBSERVERS.md 10, NUMERICS_LEARNED.md 5.
 */
#ifndef LLMQ_NUMBER_CHOOSE_H
#define LLMQ_NUMBER_CHOOSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "number/format.h"
#include "number/learn.h"
#include "number/learn_stream.h"
#include "number/observe.h"

#define CHOOSE_NBYTES 51200u /* a slot of any of the observers under choose_observe_params has at most so many bytes */

/* Whether the rule reads the weights of a group. */
bool choose_reads(enum scale_rule rule);

/* What the rule is: an observer (NULL: none), a learner (LEARN_RULE_COUNT: none). */
const struct observer *choose_observer(enum scale_rule rule);
enum learn_rule choose_learner(enum scale_rule rule);

/* The parameters of either for this format; kernels may be NULL. */
struct observe_params choose_observe_params(const struct quant *quant);
struct learn_params choose_learn_params(const struct quant *quant, const struct kernels *kernels);

/* How often a group's weights are read, at most: 0 for rules that do not read them. */
uint32_t choose_passes(enum scale_rule rule);

/* The scale that follows from what was observed in, or learned from, a group of this range; false when not even that of the range fits its type. */
bool choose_from_observed(const struct quant *quant, struct range range, struct observed observed, struct group_scale *scale);
bool choose_from_learned(const struct quant *quant, struct range range, const struct learned *learned, struct group_scale *scale);

/* All of it for one group of n finite weights in memory, as struct family's choose wants it. Observers ignore the importance. */
bool choose_scale_of_weights(const struct quant *quant, const struct kernels *kernels, struct range range, const float *x, const float *weight,
                             size_t n, struct group_scale *scale);

/* ---- a group that does not fit in memory ------------------------------------------------------------------------------------------- */

/* begin;  while (next) for each tile: learners: part = 0; observe(part, spans); add(part) in the tiles' order.  observers: span(spans) in order.
 * finish */
struct choose_stream {
    const struct quant *quant;
    bool learns;
    uint32_t pass; /* begun so far */
    struct observe observe;
    struct learn_params params;
    struct learn_stream learn;
};

/* memory: CHOOSE_NBYTES, aligned for uint64_t, of use until finish. The stream must not be moved, nor quant be changed, before that. */
void choose_stream_begin(struct choose_stream *stream, const struct quant *quant, const struct kernels *kernels, void *memory);

/* True: the group is to be read once (more); at most choose_passes times. */
bool choose_stream_next(struct choose_stream *stream);

/* Learners: adds a span of n finite weights (weight: their importance or NULL, which is 1) to a part (any number of parts at a time), and a part to
 * the pass. */
void choose_stream_observe(const struct choose_stream *stream, const float *x, const float *weight, size_t n, struct learn_part *part);
void choose_stream_add(struct choose_stream *stream, const struct learn_part *part);

/* Observers: the next n weights. */
void choose_stream_span(struct choose_stream *stream, const float *x, size_t n);

/* The scale of the group, whose range is given; false when it overflows. */
bool choose_stream_finish(const struct choose_stream *stream, struct range range, struct group_scale *scale);

#endif
