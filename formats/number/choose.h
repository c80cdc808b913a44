/* choose.h: scale rules that look at the weights of a group, not at its range alone: range observers and learners behind one call.
 *
 *   weights --observer--> range worth coding --candidate 0 of the family--> scale, zero        percentile, mse-hist, histogram-pro, 3sd, kl-j
 *   weights --learner--> scale, zero                                                           tqt, lsq, pact
 *
 * Why this way: observers and learners know nothing of formats; what a rule's parameters are for a format of so many bits is said here and nowhere
 * else. What follows from an observed range is what follows from any range. Rule minmax is not here: its range is the group's own, so it is absmax.
 * Corner cases: a group of zeros has the scale of a group of zeros under every rule; where the scale of an observed range, or a learned one,
 * overflows its type, that of the whole range is taken, so no rule refuses what absmax takes.
 * Reference: NUMERICS.md 4, NUMERICS_OBSERVERS.md 10, NUMERICS_LEARNED.md 5.
 */
#ifndef LLMQ_NUMBER_CHOOSE_H
#define LLMQ_NUMBER_CHOOSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "number/format.h"
#include "number/learn.h"
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

#endif
