/* choose.c: see choose.h.
 *
 * Formula: bins of mse-hist B = max(256, 8 * 2^N) for N bits, candidates are every (B/256)th bin beyond B/16, the last one among them; in groups of a
 * fixed size every (B/64)th beyond B/4; kl-j at most 2048 bins.
 * Why this way: an error that is measured on centres of bins needs a few bins a code, and eight are enough: more bins and candidates cost time, not
 * error. Slots so small lie on the stack of the one call that needs them.
 * Corner cases: see choose.h; the zero point of a learned scale is the learner's own.
 * Reference: NUMERICS_OBSERVERS.md 10. Worked number: int8, group 128: mse-hist has 2048 bins and tries bins 543, 575, .. 2047.
 */
#include "number/choose.h"

#include <math.h>

enum { MSE_BINS_LEAST = 256, KL_BINS = 2048, TQT_PASSES = 3 };

/* A rule has one of the two, or none. */
static const struct {
    const struct observer *observer;
    bool learns;
    enum learn_rule learner;
} rules[RULE_COUNT] = {
    [RULE_PERCENTILE] = { .observer = &observer_percentile },
    [RULE_MSE_HIST] = { .observer = &observer_mse },
    [RULE_HISTOGRAM_PRO] = { .observer = &observer_pro },
    [RULE_3SD] = { .observer = &observer_3sd },
    [RULE_KL_J] = { .observer = &observer_kl_j },
    [RULE_TQT] = { .learns = true, .learner = LEARN_TQT },
    [RULE_LSQ] = { .learns = true, .learner = LEARN_LSQ },
    [RULE_PACT] = { .learns = true, .learner = LEARN_PACT },
};

const struct observer *choose_observer(enum scale_rule rule)
{
    return rule < RULE_COUNT ? rules[rule].observer : NULL;
}

enum learn_rule choose_learner(enum scale_rule rule)
{
    return rule < RULE_COUNT && rules[rule].learns ? rules[rule].learner : LEARN_RULE_COUNT;
}

bool choose_reads(enum scale_rule rule)
{
    return choose_observer(rule) || choose_learner(rule) != LEARN_RULE_COUNT;
}

struct observe_params choose_observe_params(const struct quant *quant)
{
    const struct elem *elem = quant->elem;
    const bool symmetric = !quant->format->zero_point;
    struct observe_params params = choose_observer(quant->rule)->defaults;
    params.symmetric = symmetric || quant->rule == RULE_KL_J;
    params.percentile = quant->percentile;
    params.bits = elem->bits;
    params.quantiser = (struct qparams_rule){ .type = { NULL, elem->code_min, elem->code_max },
                                              .symmetric = symmetric,
                                              .half = quant->int_max ? HALF_RANGE_INT_MAX : HALF_RANGE_HALF,
                                              .scale = quant->scale };
    if (quant->rule == RULE_KL_J) params.bins = KL_BINS;
    if (quant->rule == RULE_MSE_HIST) {
        const uint32_t eight_a_code = 8u << elem->bits;
        params.bins = eight_a_code > MSE_BINS_LEAST ? eight_a_code : MSE_BINS_LEAST;
        const bool few = quant->group_kind == GROUP_SIZE; /* weights a group: no outlier is far from the rest */
        params.stride = params.bins / (few ? 64 : 256);
        params.start_bin = params.bins / (few ? 4 : 16) + params.stride - 1; /* so that the last bin is tried */
    }
    return params;
}

struct learn_params choose_learn_params(const struct quant *quant, const struct kernels *kernels)
{
    struct learn_params params = learn_defaults(choose_learner(quant->rule));
    params.rounding = quant->rounding;
    params.stored = quant->scale;
    params.kernels = kernels;
    return params;
}

uint32_t choose_passes(enum scale_rule rule)
{
    if (!choose_reads(rule)) return 0;
    if (choose_observer(rule)) return choose_observer(rule)->passes;
    return rule == RULE_TQT ? TQT_PASSES : LEARN_PASSES;
}

bool choose_from_observed(const struct quant *quant, struct range range, struct observed observed, struct group_scale *scale)
{
    const struct family *family = quant->format->family;
    struct group_scale found;
    if (!family->candidate(quant, range, 0, scale)) return false;
    if (range_amax(range) > 0.0f && family->candidate(quant, observed_range(observed), 0, &found)) *scale = found;
    return true;
}

bool choose_from_learned(const struct quant *quant, struct range range, const struct learned *learned, struct group_scale *scale)
{
    if (!quant->format->family->candidate(quant, range, 0, scale)) return false;
    if (!isfinite(learned->scale)) return true;
    const uint32_t bits = scale_store(quant->scale, learned->scale);
    *scale = (struct group_scale){ .bits = bits, .value = scale_load(quant->scale, bits), .zero = learned->zero };
    return true;
}

static bool choose_by_observer(const struct quant *quant, struct range range, const float *x, size_t n, struct group_scale *scale)
{
    uint64_t memory[CHOOSE_NBYTES / sizeof(uint64_t)];
    const struct observe_params params = choose_observe_params(quant);
    const struct range found = observe_range(choose_observer(quant->rule), &params, x, n, memory);
    return choose_from_observed(quant, range, (struct observed){ found.min, found.max }, scale);
}

bool choose_scale_of_weights(const struct quant *quant, const struct kernels *kernels, struct range range, const float *x, const float *weight,
                             size_t n, struct group_scale *scale)
{
    if (choose_observer(quant->rule)) return choose_by_observer(quant, range, x, n, scale);
    const struct learn_params params = choose_learn_params(quant, kernels);
    struct learned learned;
    learn_group(choose_learner(quant->rule), &params, x, weight, n, quant->elem->code_min, quant->elem->code_max, &learned);
    return choose_from_learned(quant, range, &learned, scale);
}

/* ---- a group that does not fit in memory ------------------------------------------------------------------------------------------- */

void choose_stream_begin(struct choose_stream *stream, const struct quant *quant, const struct kernels *kernels, void *memory)
{
    *stream = (struct choose_stream){ .quant = quant, .learns = choose_learner(quant->rule) != LEARN_RULE_COUNT };
    if (stream->learns) {
        stream->params = choose_learn_params(quant, kernels);
        learn_stream_begin(&stream->learn, choose_learner(quant->rule), &stream->params, quant->elem->code_min, quant->elem->code_max);
    } else {
        const struct observe_params params = choose_observe_params(quant);
        struct err unused; /* they are in range */
        observe_init(&stream->observe, choose_observer(quant->rule), &params, NULL, memory, &unused);
    }
}

bool choose_stream_next(struct choose_stream *stream)
{
    const bool first = stream->pass++ == 0;
    return stream->learns ? learn_stream_next(&stream->learn) : first || observe_next(&stream->observe);
}

void choose_stream_observe(const struct choose_stream *stream, const float *x, const float *weight, size_t n, struct learn_part *part)
{
    learn_stream_observe(&stream->learn, x, weight, n, part);
}

void choose_stream_add(struct choose_stream *stream, const struct learn_part *part)
{
    learn_stream_add(&stream->learn, part);
}

void choose_stream_span(struct choose_stream *stream, const float *x, size_t n)
{
    observe_span(&stream->observe, 0, x, n);
}

bool choose_stream_finish(const struct choose_stream *stream, struct range range, struct group_scale *scale)
{
    struct observed observed;
    struct learned learned;
    if (stream->learns) {
        learn_stream_finish(&stream->learn, &learned);
        return choose_from_learned(stream->quant, range, &learned, scale);
    }
    observe_finish(&stream->observe, &observed);
    return choose_from_observed(stream->quant, range, observed, scale);
}
