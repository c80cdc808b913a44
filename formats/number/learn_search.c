/* learn_search.c: see learn_search.h.
 *
 * Formula, one step of a descent: m = clamp(rate * (s dL/ds) / L, -1/4, 1/4), s <- fl(s (1 - m)).
 * Why this way: the slope of ln L over ln s has no unit: 2 where all error is rounding (L ~ s^2), strongly negative where much is clipped. The same rate
 * serves weights of any size, any bit width and any importance, which a slope of L, even divided by sum x^2, does not. The loss is ragged between
 * rounding jumps, so the walk itself explores and the best point met counts, not the last.
 * Corner cases: a loss of 0 ends everything; a refit with no code but 0 is left out; the grid stops where clipped weights alone cost what the best
 * does, as each of them only moves further from its end when the scale shrinks.
 * Reference: NUMERICS_LEARNED.md 4, 5. Worked number: codes -8 .. 7, range -1.4 .. 2.6: absmax 2.6 / 7.5 = 0.346667, grid from 0.393939 down.
 */
#include "number/learn_search.h"

#include <math.h>
#include <string.h>

#include "number/elem.h"

#define SCALE_LEAST 0x1p-23f
#define MOVE_MOST 0.25
#define DECAY 0.875
#define REFITS 8

/* ---- statistics ------------------------------------------------------------------------------------------------------------------ */

void learn_stats_add(struct learn_stats *stats, const float *x, const float *weight, size_t n)
{
    double w[16] = { 0 }, wx[16] = { 0 }, wa[16] = { 0 }, wxx[16] = { 0 };
    for (size_t i = 0; i < n; i++) {
        const double value = (double)x[i], one = weight ? (double)weight[i] : 1.0;
        const float seen = one > 0.0 ? x[i] : 0.0f;
        stats->min = x[i] < stats->min ? x[i] : stats->min;
        stats->max = x[i] > stats->max ? x[i] : stats->max;
        stats->live_min = seen < stats->live_min ? seen : stats->live_min;
        stats->live_max = seen > stats->live_max ? seen : stats->live_max;
        w[i % 16] += one;
        wx[i % 16] += one * value;
        wa[i % 16] += one * fabs(value);
        wxx[i % 16] += one * value * value;
    }
    stats->w += fakequant_lane_sum(w);
    stats->wx += fakequant_lane_sum(wx);
    stats->wa += fakequant_lane_sum(wa);
    stats->wxx += fakequant_lane_sum(wxx);
}

/* Range to be covered: the larger side for symmetric codes, both for others. */
static float span_of(const struct fakequant *codes, float min, float max)
{
    return codes->code_min == 0 ? max - min : fmaxf(-min, max);
}

static float absmax_of(const struct fakequant *codes, float min, float max)
{
    return span_of(codes, min, max) / ((float)(codes->code_max - codes->code_min) * (codes->code_min == 0 ? 1.0f : 0.5f));
}

void learn_begin(struct learn_problem *problem, int32_t code_min, int32_t code_max)
{
    const struct learn_stats *stats = &problem->stats;
    problem->codes = (struct fakequant){ code_min, code_max, 0, problem->params->rounding };
    problem->absmax = absmax_of(&problem->codes, stats->min, stats->max);
    problem->anchor = absmax_of(&problem->codes, stats->live_min, stats->live_max);
    problem->best = (struct learned){ .scale = HUGE_VALF, .loss = HUGE_VAL };
    if (code_min < 0) return;
    const float zero = -round_to_integer(stats->min / learn_stored(problem, problem->absmax), ROUND_NEAREST_EVEN);
    problem->codes.zero = problem->best.zero = (int32_t)fminf(fmaxf(zero, 0.0f), (float)code_max);
}

float learn_mean_start(const struct learn_problem *problem)
{
    if (!(problem->stats.w > 0.0)) return 0.0f;
    return (float)(2.0 * (problem->stats.wa / problem->stats.w) / sqrt((double)problem->codes.code_max));
}

static float threshold_3sd(const struct learn_stats *stats)
{
    if (!(stats->w > 0.0)) return 0.0f;
    const double mean = stats->wx / stats->w, variance = stats->wxx / stats->w - mean * mean;
    return (float)(fabs(mean + 1e-6) + 3.0 * sqrt(variance > 0.0 ? variance : 0.0));
}

float tqt_threshold_3sd(const float *x, size_t n)
{
    struct learn_stats stats = { 0 };
    learn_stats_add(&stats, x, NULL, n);
    return threshold_3sd(&stats);
}

static uint32_t bits_of(const struct fakequant *codes)
{
    return (uint32_t)exact_ilog2((float)codes->code_max + 1.0f) + (codes->code_min < 0 ? 1u : 0u);
}

float learn_threshold(const struct learn_problem *problem, enum learn_start start)
{
    if (start == LEARN_FROM_3SD) return threshold_3sd(&problem->stats);
    if (start == LEARN_FROM_CONSTANT) return PACT_ALPHA;
    if (start == LEARN_FROM_KLJ && problem->n > 0) return tqt_threshold_klj(bits_of(&problem->codes), problem->x, problem->n);
    return span_of(&problem->codes, problem->stats.live_min, problem->stats.live_max);
}

/* ---- offers ---------------------------------------------------------------------------------------------------------------------- */

float learn_stored(const struct learn_problem *problem, float s)
{
    const enum scale_type type = problem->params->stored;
    return scale_load(type, scale_store(type, s > SCALE_LEAST ? s : SCALE_LEAST));
}

static bool overflows(const struct fakequant *codes, float scale)
{
    return isinf(scale * (float)(codes->code_min == 0 ? codes->code_max : -codes->code_min));
}

bool learn_take(struct learn_problem *problem, float scale, double loss)
{
    if (overflows(&problem->codes, scale)) loss = HUGE_VAL;
    if (problem->best.judged++ == 0) problem->best.start_loss = loss;
    if (!(loss < problem->best.loss)) return false;
    problem->best.scale = scale;
    problem->best.loss = loss;
    return true;
}

struct learn_sums learn_offer(struct learn_problem *problem, float s, bool slope)
{
    struct learn_sums sums = { .inside = HUGE_VAL };
    const float scale = learn_stored(problem, s);
    if (!overflows(&problem->codes, scale)) {
        sums.inside = 0.0;
        (slope ? problem->eval->slope : problem->eval->loss)(&problem->codes, scale, problem->x, problem->weight, problem->n, &sums);
    }
    learn_take(problem, scale, learn_loss(&sums));
    return sums;
}

/* ---- ways to look for a scale ---------------------------------------------------------------------------------------------------- */

float learn_grid_scale(const struct learn_problem *problem, uint32_t k)
{
    return problem->anchor * ((float)k / (float)LEARN_GRID_ONE);
}

void learn_grid(struct learn_problem *problem)
{
    float last = 0.0f;
    for (uint32_t k = LEARN_GRID; k >= 1 && problem->best.loss > 0.0; k--) {
        const float s = learn_grid_scale(problem, k), scale = learn_stored(problem, s);
        if (scale == last) continue;
        last = scale;
        if (learn_offer(problem, s, false).clipped >= problem->best.loss) return;
    }
}

void learn_descend(struct learn_problem *problem, float start)
{
    const struct learn_params *params = problem->params;
    double least = HUGE_VAL, rate = (double)params->rate;
    uint32_t stale = 0;
    float s = start > SCALE_LEAST ? start : SCALE_LEAST;
    for (uint32_t step = 0; step < params->steps && problem->best.loss > 0.0; step++) {
        const float scale = learn_stored(problem, s);
        const struct learn_sums sums = learn_offer(problem, s, true);
        const double loss = learn_loss(&sums);
        if (!(loss > 0.0 && loss < HUGE_VAL)) return;
        stale = loss < least ? 0 : stale + 1;
        least = loss < least ? loss : least;
        if (stale >= params->patience) return;
        rate *= stale > 0 ? DECAY : 1.0;
        const double move = rate * ((double)scale * learn_slope(&sums, scale) / loss);
        s = (float)((double)s * (1.0 - fmin(fmax(move, -MOVE_MOST), MOVE_MOST)));
        s = s > SCALE_LEAST ? s : SCALE_LEAST;
    }
}

void learn_refit(struct learn_problem *problem)
{
    for (int round = 0; round < REFITS && problem->best.loss > 0.0 && !isinf(problem->best.scale); round++) {
        struct learn_sums sums = { 0 };
        const double before = problem->best.loss;
        problem->eval->fit(&problem->codes, problem->best.scale, problem->x, problem->weight, problem->n, &sums);
        if (!(sums.qq > 0.0)) return;
        learn_offer(problem, (float)(sums.xq / sums.qq), false);
        if (!(problem->best.loss < before)) return;
    }
}

/* ---- powers of two --------------------------------------------------------------------------------------------------------------- */

static int32_t ceil_log2(float a)
{
    const int32_t e = exact_ilog2(a);
    return e >= -149 && exact_exp2(e) < a ? e + 1 : e;
}

int32_t learn_exponent_least(const struct learn_problem *problem)
{
    return exact_ilog2((float)problem->codes.code_max + 1.0f) - 23;
}

int32_t learn_exponent(const struct learn_problem *problem)
{
    const int32_t k = ceil_log2(span_of(&problem->codes, problem->stats.min, problem->stats.max)), least = learn_exponent_least(problem);
    return k > least ? k : least;
}

float learn_exponent_scale(const struct learn_problem *problem, int32_t k)
{
    return exact_exp2(k - exact_ilog2((float)problem->codes.code_max + 1.0f));
}

/* ---- entry ----------------------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    void (*learn)(struct learn_problem *problem);
    enum learn_method method;
    uint32_t steps, patience;
    float rate;
} rules[LEARN_RULE_COUNT] = {
    [LEARN_TQT] = { "tqt", learn_tqt, LEARN_SEARCH, 64, 16, 0.2f },
    [LEARN_LSQ] = { "lsq", learn_lsq, LEARN_BEST, 64, 16, 0.05f },
    [LEARN_PACT] = { "pact", learn_pact, LEARN_DESCENT, 64, 16, 0.05f },
};

const char *learn_rule_name(enum learn_rule rule)
{
    return rules[rule].name;
}

enum learn_rule learn_rule_find(const char *name)
{
    unsigned i = 0;
    while (i < LEARN_RULE_COUNT && strcmp(rules[i].name, name) != 0) i++;
    return (enum learn_rule)i;
}

struct learn_params learn_defaults(enum learn_rule rule)
{
    return (struct learn_params){ .rounding = ROUND_NEAREST_EVEN,
                                  .stored = SCALE_F32,
                                  .method = rules[rule].method,
                                  .start = LEARN_FROM_MAX,
                                  .steps = rules[rule].steps,
                                  .patience = rules[rule].patience,
                                  .rate = rules[rule].rate };
}

void learn_group(enum learn_rule rule, const struct learn_params *params, const float *x, const float *weight, size_t n, int32_t code_min,
                 int32_t code_max, struct learned *learned)
{
    struct learn_problem problem = { .params = params, .eval = learn_eval_for(params->kernels), .x = x, .weight = weight, .n = n };
    learn_stats_add(&problem.stats, x, weight, n);
    learn_begin(&problem, code_min, code_max);
    rules[rule].learn(&problem);
    *learned = problem.best;
}

float learn_scale(enum learn_rule rule, const struct learn_params *params, const float *x, const float *weight, size_t n, int32_t code_min,
                  int32_t code_max)
{
    struct learned learned;
    learn_group(rule, params, x, weight, n, code_min, code_max, &learned);
    return learned.scale;
}
