/* smooth_choose.h: the factors of each group: reads maxima of its weights, takes the statistics of its input, computes or searches, on several threads.
 *
 *   group -> x_j (statistics), w_j (weights) -> fixed alpha, or search through the format -> s_j -> factors of both sides
 *
 * Why this way: groups are independent, so a thread takes a whole group and the result does not depend on threads.
 * Corner cases: with one alpha a layer, a thread takes the layer, and groups that are not searched are decided as without; a search without the
 * statistics it needs takes --init-alpha.
 * Reference: smooth_search.h. Worked number: see smooth_scale.h.
 */
#ifndef LLMQ_CONVERTER_SMOOTH_CHOOSE_H
#define LLMQ_CONVERTER_SMOOTH_CHOOSE_H

#include "converter/smooth.h"
#include "smoothquant/stats_lookup.h"

/* One group that is to be decided. */
struct choice {
    struct smooth_outcome *outcome;
    struct stats_slice slice; /* entry NULL: none (gain) */
};

/* Fills outcomes: s, losses, factors. Left ones (fate SMOOTH_LEFT) are passed over. */
enum status smooth_choose_all(struct app *app, struct plan *plan, const struct smooth_options *options, struct choice *choices, size_t n,
                              struct err *err);

/* The format that a tensor's weights go to; NULL when they are not quantised. */
const struct quant *smooth_target(const struct plan *plan, size_t tensor);

/* True when the group's first producer is a vector, that is, a norm. */
bool smooth_has_gain(const struct plan *plan, const struct smooth_group *group);

/* True when the alpha of the group is searched: its first quantised consumer's format decides. */
bool smooth_is_searched(const struct plan *plan, const struct smooth_options *options, const struct smooth_group *group);

/* True when a consumer's groups of weights lie along the inputs, so that a search has something to judge. */
bool smooth_is_judged(const struct plan *plan, const struct smooth_group *group);

/* True when the statistics are factors, of an AWQ cache, and nothing else. */
bool smooth_is_given(const struct stats_slice *slice);

/* Vectors of the outcome from s. gain: numbers of the norm, or NULL. */
enum status smooth_make_factors(const struct plan *plan, struct smooth_outcome *outcome, const float *gain, struct err *err);

#endif
