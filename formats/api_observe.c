/* api_observe.c: observers and the parameters that follow from ranges, behind llmq.h.
 *
 *   llmq_observer_open -> { llmq_observe .. -> llmq_observe_next } -> llmq_observe_finish -> min, max -> llmq_calculate_qparams -> scale, zero
 *
 * Why this way: number/observe.h allocates nothing and trusts indexes; memory and checks stand here.
 * Corner cases: a slice that reaches beyond the tensor, a finish while a reading is missing, and names that are unknown are refused; strings that are
 * NULL mean the default.
 * Reference: NUMERICS_OBSERVERS.md. Worked number: uint4 of -1.4 .. 2.6: scale 0.266666681, zero 5.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "base/size.h"
#include "number/observe.h"

struct llmq_observer {
    struct observe observe;
    void *memory;
    uint64_t n_weights; /* UINT64_MAX: any */
};

/* ---- rules ----------------------------------------------------------------------------------------------------------------------- */

static enum status zero_of(const char *name, enum qparams_zero *zero, struct err *err)
{
    static const char *const names[QPARAMS_ZERO_COUNT] = { "none", "int", "float", "middle" };
    *zero = QPARAMS_ZERO_INT;
    for (int i = 0; name && i < (int)QPARAMS_ZERO_COUNT; i++)
        if (strcmp(name, names[i]) == 0) {
            *zero = (enum qparams_zero)i;
            return OK;
        }
    return name ? err_set(err, ERR_USAGE, "zero '%s' is none of none, int, float, middle", name) : OK;
}

static enum status rule_of(const struct llmq_qparams_rule *rule, struct qparams_rule *out, struct err *err)
{
    *out = (struct qparams_rule){ .symmetric = rule->symmetric != 0, .reduce_range = rule->reduce_range != 0, .scale = SCALE_F32 };
    if (!rule->type || !qparams_type_find(rule->type, &out->type))
        return err_set(err, ERR_USAGE, "type '%s' is none of int2 .. int32, uint2 .. uint32 and the float elements", rule->type ? rule->type : "");
    if (out->type.elem && out->type.elem->kind != ELEM_FLOAT) return err_set(err, ERR_USAGE, "type '%s' has no scale of this kind", rule->type);
    const char *half = rule->half_range ? rule->half_range : "half";
    if (strcmp(half, "half") != 0 && strcmp(half, "int_max") != 0) return err_set(err, ERR_USAGE, "half range '%s' is none of half, int_max", half);
    out->half = strcmp(half, "half") == 0 ? HALF_RANGE_HALF : HALF_RANGE_INT_MAX;
    if (rule->scale) out->scale = scale_type_find(rule->scale);
    if (out->scale != SCALE_F32 && out->scale != SCALE_BF16 && out->scale != SCALE_F16 && out->scale != SCALE_E8M0)
        return err_set(err, ERR_USAGE, "scale '%s' is none of f32, bf16, f16, e8m0", rule->scale);
    return zero_of(rule->zero, &out->zero, err);
}

enum llmq_status llmq_calculate_qparams(const struct llmq_qparams_rule *rule, float min, float max, struct llmq_qparams *qparams,
                                        struct llmq_error *error)
{
    struct err *err = api_err(error);
    struct qparams_rule own;
    if (!rule || !qparams) return api_null(rule ? "qparams" : "rule", error);
    enum status status = rule_of(rule, &own, err);
    if (status == OK && (isnan(min) || isnan(max))) status = err_set(err, ERR_USAGE, "the range has a NaN");
    if (status != OK) return api_status(status);
    const struct qparams found = qparams_of(&own, min, max);
    if (!isfinite(found.scale) || !isfinite(found.zero))
        return api_status(err_set(err, ERR_DATA, "the range %g .. %g is too wide for a scale", (double)min, (double)max));
    *qparams = (struct llmq_qparams){ found.scale, found.zero };
    return LLMQ_OK;
}

/* What both directions check. */
static enum status coder_of(const struct llmq_qparams_rule *rule, const struct llmq_qparams *qparams, struct qparams_rule *own, struct qparams *given,
                            struct err *err)
{
    if (!rule || !qparams) return err_set(err, ERR_USAGE, "%s is NULL", rule ? "qparams" : "rule");
    enum status status = rule_of(rule, own, err);
    if (status != OK) return status;
    *given = (struct qparams){ qparams->scale, qparams->zero };
    if (!(qparams->scale > 0.0f && isfinite(qparams->scale)))
        return err_set(err, ERR_USAGE, "the scale, %g, is not positive and finite", (double)qparams->scale);
    if (!isfinite(qparams->zero)) return err_set(err, ERR_USAGE, "the zero point is NaN or Inf");
    const bool free_zero = own->zero == QPARAMS_ZERO_FLOAT && !own->symmetric, none = own->type.elem || qparams->zero == 0.0;
    if (none || free_zero) return OK;
    if (qparams->zero < (double)own->type.low || qparams->zero > (double)own->type.high || qparams->zero != nearbyint(qparams->zero))
        return err_set(err, ERR_USAGE, "the zero point, %g, is no integer of %s", qparams->zero, rule->type);
    return OK;
}

enum llmq_status llmq_qparams_encode(const struct llmq_qparams_rule *rule, const struct llmq_qparams *qparams, const char *rounding, const float *x,
                                     size_t n, double *codes, struct llmq_error *error)
{
    struct err *err = api_err(error);
    struct qparams_rule own;
    struct qparams given;
    enum rounding mode;
    enum status status = coder_of(rule, qparams, &own, &given, err);
    if (status == OK) status = api_rounding(rounding, &mode, err);
    if (status == OK && n && (!x || !codes)) return api_null(x ? "codes" : "x", error);
    for (size_t i = 0; i < n && status == OK; i++) {
        if (!isfinite(x[i])) status = err_set(err, ERR_DATA, "weight number %zu is NaN or Inf", i);
        else codes[i] = qparams_encode(&own, &given, x[i], mode);
    }
    return api_status(status);
}

enum llmq_status llmq_qparams_decode(const struct llmq_qparams_rule *rule, const struct llmq_qparams *qparams, const double *codes, size_t n,
                                     float *x, struct llmq_error *error)
{
    struct err *err = api_err(error);
    struct qparams_rule own;
    struct qparams given;
    enum status status = coder_of(rule, qparams, &own, &given, err);
    if (status == OK && n && (!x || !codes)) return api_null(codes ? "x" : "codes", error);
    for (size_t i = 0; i < n && status == OK; i++) {
        const double most = own.type.elem ? (double)((1u << own.type.elem->bits) - 1u) : (double)own.type.high;
        if (!(codes[i] >= (own.type.elem ? 0.0 : (double)own.type.low) && codes[i] <= most))
            status = err_set(err, ERR_DATA, "code number %zu, %g, is none of %s", i, codes[i], rule->type);
        else x[i] = qparams_decode(&own, &given, codes[i]);
    }
    return api_status(status);
}

/* ---- the table ------------------------------------------------------------------------------------------------------------------- */

size_t llmq_observer_count(void)
{
    return observer_count();
}

enum llmq_status llmq_observer_describe(size_t index, struct llmq_observer_info *info, struct llmq_error *error)
{
    if (!info) return api_null("info", error);
    if (index >= observer_count()) return api_index("observer", index, observer_count(), error);
    const struct observer *observer = observer_at(index);
    *info = (struct llmq_observer_info){ .name = observer->name, .summary = observer->summary, .passes = observer->passes };
    for (size_t i = 0; i < OBSERVER_ANSWERS; i++) info->answers[i] = observer->answers[i];
    return LLMQ_OK;
}

static enum status find(const char *name, const struct observer **observer, struct err *err)
{
    *observer = name ? observer_find(name) : NULL;
    return *observer ? OK : err_set(err, ERR_USAGE, "there is no observer '%s'", name ? name : "");
}

enum llmq_status llmq_observe_defaults(const char *name, struct llmq_observe_options *options, struct llmq_error *error)
{
    const struct observer *observer;
    if (!options) return api_null("options", error);
    enum status status = find(name, &observer, api_err(error));
    if (status != OK) return api_status(status);
    const struct observe_params *params = &observer->defaults;
    *options = (struct llmq_observe_options){ .symmetric = params->symmetric,
                                              .bins = params->bins,
                                              .percentile = params->percentile,
                                              .start_bin = params->start_bin,
                                              .stride = params->stride,
                                              .bits = params->bits,
                                              .upsample_rate = params->upsample_rate,
                                              .quantiser = { .reduce_range = params->quantiser.reduce_range } };
    return LLMQ_OK;
}

static enum status params_of(const struct observer *observer, const struct llmq_observe_options *options, struct observe_params *params,
                             struct err *err)
{
    *params = observer->defaults;
    if (!options) return OK;
    params->symmetric = options->symmetric != 0;
    params->bins = options->bins;
    params->percentile = options->percentile;
    params->start_bin = options->start_bin;
    params->stride = options->stride;
    params->bits = options->bits;
    params->upsample_rate = options->upsample_rate;
    params->quantiser.reduce_range = options->quantiser.reduce_range != 0;
    return options->quantiser.type ? rule_of(&options->quantiser, &params->quantiser, err) : OK;
}

/* ---- an observation -------------------------------------------------------------------------------------------------------------- */

static enum status grid_of(const struct llmq_view *view, enum llmq_granularity granularity, int64_t group, struct observe_grid *grid,
                           uint64_t *n_weights, struct err *err)
{
    static const uint64_t one = 1;
    *grid = (struct observe_grid){ .granularity = PER_TENSOR, .slots = 1 };
    *n_weights = UINT64_MAX;
    if (granularity != LLMQ_PER_TENSOR && granularity != LLMQ_PER_CHANNEL && granularity != LLMQ_PER_GROUP)
        return err_set(err, ERR_USAGE, "granularity %d is none of LLMQ_PER_TENSOR, LLMQ_PER_CHANNEL, LLMQ_PER_GROUP", (int)granularity);
    if (!view) return granularity == LLMQ_PER_TENSOR ? OK : err_set(err, ERR_USAGE, "view is NULL");
    if (view->rank > 64 || (view->rank && !view->dims)) return err_set(err, ERR_USAGE, view->rank > 64 ? "the rank is more than 64" : "dims is NULL");
    const uint64_t *dims = view->rank ? view->dims : &one;
    const uint32_t rank = view->rank ? view->rank : 1;
    enum status status = observe_grid_of(dims, rank, view->axis, (enum granularity)granularity, group, grid, err);
    *n_weights = 1;
    for (uint32_t i = 0; i < rank; i++) *n_weights *= dims[i]; /* observe_grid_of has checked it */
    return status;
}

enum llmq_status llmq_observer_open(const char *name, const struct llmq_observe_options *options, const struct llmq_view *view,
                                    enum llmq_granularity granularity, int64_t group, struct llmq_observer **out, struct llmq_error *error)
{
    struct err *err = api_err(error);
    const struct observer *row;
    struct observe_params params;
    struct observe_grid grid;
    uint64_t n_weights;
    size_t nbytes;
    if (!out) return api_null("observer", error);
    *out = NULL;
    enum status status = find(name, &row, err);
    if (status == OK) status = params_of(row, options, &params, err);
    if (status == OK) status = observe_check(row, &params, err);
    if (status == OK) status = grid_of(view, granularity, group, &grid, &n_weights, err);
    if (status != OK) return api_status(status);
    if (!observe_size(row, &params, &grid, &nbytes)) return api_status(err_set(err, ERR_UNSUPPORTED, "%" PRIu64 " slots are too many", grid.slots));
    struct llmq_observer *observer = calloc(1, sizeof *observer);
    void *memory = calloc(1, nbytes ? nbytes : 1);
    status = observer && memory ? OK : err_set(err, ERR_MEMORY, "out of memory for %zu bytes of slots", nbytes);
    if (status == OK) {
        observer->memory = memory;
        observer->n_weights = n_weights;
        status = observe_init(&observer->observe, row, &params, &grid, memory, err);
    }
    if (status == OK) {
        *out = observer;
        return LLMQ_OK;
    }
    free(observer);
    free(memory);
    return api_status(status);
}

void llmq_observer_close(struct llmq_observer *observer)
{
    if (!observer) return;
    free(observer->memory);
    free(observer);
}

uint64_t llmq_observer_slots(const struct llmq_observer *observer)
{
    return observer ? observer->observe.grid.slots : 0;
}

enum llmq_status llmq_observe(struct llmq_observer *observer, uint64_t first, const float *x, size_t n, struct llmq_error *error)
{
    if (!observer || (n && !x)) return api_null(observer ? "x" : "observer", error);
    if (observer->n_weights != UINT64_MAX && (first > observer->n_weights || n > observer->n_weights - first))
        return api_status(err_set(api_err(error), ERR_USAGE, "%zu weights from number %" PRIu64 " on reach beyond the %" PRIu64 " of the tensor", n,
                                  first, observer->n_weights));
    observe_span(&observer->observe, first, x, n);
    return LLMQ_OK;
}

enum llmq_status llmq_observe_next(struct llmq_observer *observer, int *again, struct llmq_error *error)
{
    if (!observer || !again) return api_null(observer ? "again" : "observer", error);
    *again = observe_next(&observer->observe);
    return LLMQ_OK;
}

/* The readings that are missing. */
static enum status check_read(const struct llmq_observer *observer, struct err *err)
{
    const struct observe *observe = &observer->observe;
    if (observe->pass + 1 >= observe->observer->passes) return OK;
    return err_set(err, ERR_USAGE, "observer %s wants %u readings, this is number %u", observe->observer->name, observe->observer->passes,
                   observe->pass + 1);
}

enum llmq_status llmq_observe_finish(struct llmq_observer *observer, float *min, float *max, struct llmq_error *error)
{
    struct err *err = api_err(error);
    if (!observer || !min || !max) return api_null(!observer ? "observer" : !min ? "min" : "max", error);
    enum status status = check_read(observer, err);
    if (status != OK) return api_status(status);
    const size_t n = (size_t)observer->observe.grid.slots;
    struct observed *observed = n < SIZE_MAX / sizeof *observed ? malloc((n + 1) * sizeof *observed) : NULL;
    if (!observed) return api_status(err_set(err, ERR_MEMORY, "out of memory for %zu ranges", n));
    observe_finish(&observer->observe, observed);
    for (size_t i = 0; i < n; i++) {
        min[i] = observed[i].min;
        max[i] = observed[i].max;
    }
    free(observed);
    return LLMQ_OK;
}

enum llmq_status llmq_observe_histogram(struct llmq_observer *observer, uint64_t slot, uint32_t *bins, uint64_t *counts, float *edges,
                                        struct llmq_error *error)
{
    if (!observer || !bins) return api_null(observer ? "bins" : "observer", error);
    if (slot >= observer->observe.grid.slots) return api_index("slot", (size_t)slot, (size_t)observer->observe.grid.slots, error);
    const struct histogram *histogram = observe_histogram(&observer->observe, slot);
    if (!histogram) return api_status(err_set(api_err(error), ERR_USAGE, "observer %s has no histogram", observer->observe.observer->name));
    enum status status = check_read(observer, api_err(error));
    if (status != OK) return api_status(status);
    *bins = histogram->bins;
    for (uint32_t i = 0; counts && i < histogram->bins; i++) counts[i] = histogram->counts[i];
    for (uint32_t i = 0; edges && i <= histogram->bins; i++) edges[i] = histogram_edge(histogram, i);
    return LLMQ_OK;
}

enum llmq_status llmq_observe_reset(struct llmq_observer *observer, struct llmq_error *error)
{
    if (!observer) return api_null("observer", error);
    observe_reset(&observer->observe);
    return LLMQ_OK;
}

/* ---- blocks ---------------------------------------------------------------------------------------------------------------------- */

static enum status range_of(float min, float max, struct range *range, struct err *err)
{
    *range = (struct range){ min < 0.0f ? min : 0.0f, max > 0.0f ? max : 0.0f };
    if (!isfinite(min) || !isfinite(max) || min > max) return err_set(err, ERR_USAGE, "%g .. %g is no finite range", (double)min, (double)max);
    return OK;
}

static enum llmq_status put(struct group_scale found, uint32_t *byte, float *scale)
{
    if (byte) *byte = found.bits;
    if (scale) *scale = found.value;
    return LLMQ_OK;
}

enum llmq_status llmq_mx_block_scale(const char *element, const char *rule, float min, float max, uint32_t *byte, float *scale,
                                     struct llmq_error *error)
{
    struct err *err = api_err(error);
    struct qparams_type type;
    struct range range;
    struct group_scale found;
    if (!element || !rule) return api_null(element ? "rule" : "element", error);
    const struct elem *elem = qparams_type_find(element, &type) && type.elem ? type.elem : elem_find(element);
    const enum scale_rule which = scale_rule_find(rule);
    if (which != RULE_FLOOR && which != RULE_EVEN && which != RULE_CEIL && which != RULE_RCEIL)
        return api_status(err_set(err, ERR_USAGE, "rule '%s' is none of floor, even, ceil, rceil", rule));
    enum status status = range_of(min, max, &range, err);
    if (status != OK) return api_status(status);
    if (!elem || !observe_mx_scale(elem, which, range, &found))
        return api_status(err_set(err, ERR_USAGE, "no MX format has the element '%s'", element));
    return put(found, byte, scale);
}

enum llmq_status llmq_prime_block_scale(float min, float max, uint32_t *byte, float *scale, struct llmq_error *error)
{
    struct range range;
    enum status status = range_of(min, max, &range, api_err(error));
    return status == OK ? put(observe_prime_exponent(range), byte, scale) : api_status(status);
}

enum llmq_status llmq_bfp_block_scale(float min, float max, uint32_t *byte, float *scale, struct llmq_error *error)
{
    struct range range;
    enum status status = range_of(min, max, &range, api_err(error));
    return status == OK ? put(observe_bfp_scale(range), byte, scale) : api_status(status);
}
