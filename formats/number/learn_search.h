/* learn_search.h: the search for a scale that TQT, LSQ and PACT share: statistics, offers, a grid, a descent, a refit. Internal to learn*.c.
 *
 *   statistics -> absmax offered -> [grid | descents | powers of two] -> refit -> the best offer
 *
 * Why this way: whatever a learner tries is an offer: stored, judged, kept when it is better. So "never worse than the start" holds by construction.
 * Corner cases: an offer equal in loss to the best loses to it, the earlier one wins; one that overflows is not judged.
 * Reference: NUMERICS_LEARNED.md 4, 5. Worked number: NUMERICS_LEARNED.md 8.
 */
#ifndef LLMQ_NUMBER_LEARN_SEARCH_H
#define LLMQ_NUMBER_LEARN_SEARCH_H

#include "number/learn.h"
#include "number/learn_sums.h"

/* What one pass over the weights tells. Maxima need no order; sums are of 16 lanes a span. */
struct learn_stats {
    float min, max; /* of all weights, with 0 included */
    float live_min, live_max; /* of the weights whose importance is > 0, with 0 included */
    double w, wx, wa, wxx; /* sums of w, w x, w |x|, w x^2 */
};

struct learn_problem {
    const struct learn_params *params;
    const struct learn_eval *eval;
    struct fakequant codes;
    const float *x, *weight; /* NULL, NULL, 0 when judged span by span */
    size_t n;
    struct learn_stats stats;
    float absmax, anchor; /* absmax over all weights, over those of importance > 0; not stored */
    struct learned best;
};

enum { LEARN_GRID = 100, LEARN_GRID_ONE = 88 };

void learn_stats_add(struct learn_stats *stats, const float *x, const float *weight, size_t n);

/* Fills codes, absmax and anchor from the statistics and sets best to nothing (loss Inf). */
void learn_begin(struct learn_problem *problem, int32_t code_min, int32_t code_max);

/* max(s, 2^-23) as stored. */
float learn_stored(const struct learn_problem *problem, float s);

/* Takes a stored scale of known loss if it is better than the best; learn_offer stores and judges s first, over the problem's weights, and returns the
 * sums, which with slope hold the cross sum too. An overflowing scale has loss Inf. */
bool learn_take(struct learn_problem *problem, float scale, double loss);
struct learn_sums learn_offer(struct learn_problem *problem, float s, bool slope);

/* Mean |x| start of LSQ; threshold of a start of TQT and PACT. */
float learn_mean_start(const struct learn_problem *problem);
float learn_threshold(const struct learn_problem *problem, enum learn_start start);

/* Scale number k = LEARN_GRID .. 1 of the grid: anchor * k / 88. */
float learn_grid_scale(const struct learn_problem *problem, uint32_t k);

void learn_grid(struct learn_problem *problem); /* until clipping alone costs more than the best */
void learn_descend(struct learn_problem *problem, float start);
void learn_refit(struct learn_problem *problem); /* least squares, repeated while it helps */

/* The exponents k of TQT: s = 2^k / (code_max + 1); the one of the whole range; and the least allowed. */
int32_t learn_exponent(const struct learn_problem *problem);
int32_t learn_exponent_least(const struct learn_problem *problem);
float learn_exponent_scale(const struct learn_problem *problem, int32_t k);

/* The learners, over a problem whose absmax has not been offered yet. */
void learn_tqt(struct learn_problem *problem);
void learn_lsq(struct learn_problem *problem);
void learn_pact(struct learn_problem *problem);

#endif
