/* learn_stream.c: see learn_stream.h.
 *
 * Formula: pass 2: absmax, the rule's start, then anchor * k / 56 for k = 62 .. 1; pass 3: best + (anchor / 56) * j / 32 for j = -31 .. 31 without 0; pass 4:
 * sum w x q / sum w q^2 of the best.
 * Why this way: see learn_stream.h.
 * Corner cases: a candidate that overflows is summed and then not taken; a best found in pass 2 and not bettered in pass 3 has no sums for a refit, so pass 3
 * sums it again as its last candidate.
 * Reference: NUMERICS_LEARNED.md 7. Worked number: absmax 0.346667: anchor / 56 = 0.0061905, finer steps of 0.00019345.
 */
#include "number/learn_stream.h"

#include <math.h>

enum { COARSE = 62, COARSE_ONE = 56, FINE = 32, FIRST_EXPONENTS = 16 };

static void ask(struct learn_stream *stream, float s)
{
    stream->scales[stream->count++] = learn_stored(&stream->problem, s);
}

static void ask_exponents(struct learn_stream *stream, uint32_t count)
{
    const int32_t k0 = learn_exponent(&stream->problem), least = learn_exponent_least(&stream->problem);
    if (stream->pass == 2) {
        ask(stream, learn_exponent_scale(&stream->problem, k0));
        ask(stream, learn_exponent_scale(&stream->problem, k0 + 1));
    }
    while (stream->count < count && k0 - (int32_t)stream->exponents > least)
        ask(stream, learn_exponent_scale(&stream->problem, k0 - (int32_t)++stream->exponents));
}

static void ask_coarse(struct learn_stream *stream)
{
    const struct learn_problem *problem = &stream->problem;
    ask(stream, problem->absmax);
    ask(stream,
        stream->rule == LEARN_LSQ ? learn_mean_start(problem) : learn_threshold(problem, problem->params->start) / (float)problem->codes.code_max);
    for (uint32_t k = COARSE; k >= 1; k--) ask(stream, problem->anchor * ((float)k / (float)COARSE_ONE));
}

static void ask_fine(struct learn_stream *stream)
{
    const float step = stream->problem.anchor / (float)COARSE_ONE, best = stream->problem.best.scale;
    for (int32_t j = 1 - FINE; j < FINE; j++)
        if (j != 0) ask(stream, best + step * ((float)j / (float)FINE));
    ask(stream, best);
    stream->fit = stream->problem.params->method != LEARN_SEARCH;
}

/* Takes the sums of a pass; returns the number of the best candidate among them, or count. */
static uint32_t take(struct learn_stream *stream)
{
    uint32_t best = stream->count;
    for (uint32_t i = 0; i < stream->count; i++)
        if (learn_take(&stream->problem, stream->scales[i], learn_loss(&stream->total.sums[i]))) best = i;
    return best;
}

static bool next_tqt(struct learn_stream *stream)
{
    if (stream->pass == 2) ask_exponents(stream, FIRST_EXPONENTS);
    else {
        const uint32_t last = stream->count - 1;
        take(stream);
        stream->count = 0;
        const bool ended = stream->total.sums[last].clipped >= stream->problem.best.loss; /* not for the NaN of an overflow */
        if (!ended && stream->pass == 3) ask_exponents(stream, LEARN_BATCH - FIRST_EXPONENTS);
    }
    return stream->count > 0;
}

/* The refit of the best of pass 3: of the candidate just taken, or else of the last one, which is the best of before. */
static void ask_refit(struct learn_stream *stream, uint32_t best, uint32_t count)
{
    const struct learn_sums *sums = &stream->total.sums[best < count ? best : count - 1];
    if (stream->fit && sums->qq > 0.0) ask(stream, (float)(sums->xq / sums->qq));
    stream->fit = false;
}

static bool next_search(struct learn_stream *stream)
{
    const uint32_t count = stream->count, best = take(stream);
    stream->count = 0;
    if (stream->pass > 2 && (!(stream->problem.best.loss > 0.0) || isinf(stream->problem.best.scale))) return false;
    if (stream->pass == 2) ask_coarse(stream);
    else if (stream->pass == 3) ask_fine(stream);
    else ask_refit(stream, best, count);
    return stream->count > 0;
}

void learn_stream_begin(struct learn_stream *stream, enum learn_rule rule, const struct learn_params *params, int32_t code_min, int32_t code_max)
{
    *stream = (struct learn_stream){ .rule = rule, .code_min = code_min, .code_max = code_max };
    stream->problem.params = params;
    stream->problem.eval = learn_eval_for(params->kernels);
}

bool learn_stream_next(struct learn_stream *stream)
{
    stream->pass++;
    if (stream->pass == 1) return true;
    if (stream->pass == 2) {
        stream->problem.stats = stream->total.stats;
        learn_begin(&stream->problem, stream->code_min, stream->code_max);
    }
    const bool more = stream->rule == LEARN_TQT ? next_tqt(stream) : next_search(stream);
    stream->total = (struct learn_part){ 0 };
    return more;
}

void learn_stream_observe(const struct learn_stream *stream, const float *x, const float *weight, size_t n, struct learn_part *part)
{
    const struct learn_problem *problem = &stream->problem;
    if (stream->pass == 1) learn_stats_add(&part->stats, x, weight, n);
    for (uint32_t i = 0; i < stream->count; i++) {
        problem->eval->loss(&problem->codes, stream->scales[i], x, weight, n, &part->sums[i]);
        if (stream->fit) problem->eval->fit(&problem->codes, stream->scales[i], x, weight, n, &part->sums[i]);
    }
}

void learn_stream_add(struct learn_stream *stream, const struct learn_part *part)
{
    struct learn_stats *stats = &stream->total.stats;
    stats->min = fminf(stats->min, part->stats.min);
    stats->max = fmaxf(stats->max, part->stats.max);
    stats->live_min = fminf(stats->live_min, part->stats.live_min);
    stats->live_max = fmaxf(stats->live_max, part->stats.live_max);
    stats->w += part->stats.w;
    stats->wx += part->stats.wx;
    stats->wa += part->stats.wa;
    stats->wxx += part->stats.wxx;
    for (uint32_t i = 0; i < stream->count; i++) {
        struct learn_sums *sums = &stream->total.sums[i];
        sums->inside += part->sums[i].inside;
        sums->clipped += part->sums[i].clipped;
        sums->xq += part->sums[i].xq;
        sums->qq += part->sums[i].qq;
    }
}

void learn_stream_finish(const struct learn_stream *stream, struct learned *learned)
{
    *learned = stream->problem.best;
}
