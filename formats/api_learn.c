/* api_learn.c: TQT, LSQ and PACT behind llmq.h: forward, backward, starts and the offline optimiser.
 *
 *   checks -> number/learn.h                 weight i has parameter (i / inner) mod count
 *
 * Why this way: number/learn.h trusts its caller; every shape, range and number that it relies on is checked here, once for all three.
 * Corner cases: no weights give gradients of 0; a scale that is not positive and finite, a threshold without one and NaN weights of the optimiser are
 * refused with their number.
 * Reference: NUMERICS_LEARNED.md. Worked number: LSQ start of the page's 8 weights, 4 bits: 0.6425396.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "api.h"
#include "base/size.h"
#include "number/learn.h"
#include "number/observe.h"

/* ---- shapes and parameters ------------------------------------------------------------------------------------------------------- */

enum llmq_status llmq_channels_of(const struct llmq_view *view, struct llmq_channels *channels, struct llmq_error *error)
{
    struct err *err = api_err(error);
    if (!view || !channels) return api_null(view ? "channels" : "view", error);
    const int64_t rank = view->rank ? view->rank : 1;
    if (view->rank && !view->dims) return api_null("dims", error);
    if (view->rank > 64 || view->axis < -rank || view->axis >= rank)
        return api_status(err_set(err, ERR_USAGE, "axis %d does not exist in a tensor of rank %u", view->axis, view->rank));
    struct llmq_channels out = { 1, 1 };
    const uint32_t axis = (uint32_t)(view->axis < 0 ? view->axis + rank : view->axis);
    if (view->rank) out.count = view->dims[axis];
    for (uint32_t i = axis + 1; i < view->rank; i++)
        if (!size_mul(out.inner, view->dims[i], &out.inner))
            return api_status(err_set(err, ERR_UNSUPPORTED, "the tensor has more than 2^64 weights"));
    *channels = out;
    return LLMQ_OK;
}

static enum status axis_of(const struct llmq_channels *channels, size_t n, struct fakequant_axis *axis, struct err *err)
{
    uint64_t period;
    *axis = (struct fakequant_axis){ 1, n ? n : 1 };
    if (!channels) return OK;
    if (channels->count == 0 || channels->inner == 0) return err_set(err, ERR_USAGE, "count and inner of channels are 0");
    if (!size_mul(channels->count, channels->inner, &period) || period > SIZE_MAX || n % period != 0)
        return err_set(err, ERR_USAGE, "%zu weights are no multiple of %" PRIu64 " channels of %" PRIu64, n, channels->count, channels->inner);
    *axis = (struct fakequant_axis){ (size_t)channels->count, (size_t)channels->inner };
    return OK;
}

static enum status codes_of(const struct llmq_codes *codes, struct fakequant *out, struct err *err)
{
    if (!codes) return err_set(err, ERR_USAGE, "codes is NULL");
    if (codes->code_min >= codes->code_max || codes->code_min < -32768 || codes->code_max > 65535 || codes->code_max - codes->code_min > 65535)
        return err_set(err, ERR_USAGE, "codes %d .. %d are no range of at most 16 bits", codes->code_min, codes->code_max);
    if (codes->zero != 0 && (codes->zero < codes->code_min || codes->zero > codes->code_max))
        return err_set(err, ERR_USAGE, "zero point %d is none of %d .. %d", codes->zero, codes->code_min, codes->code_max);
    *out = (struct fakequant){ codes->code_min, codes->code_max, codes->zero, ROUND_NEAREST_EVEN };
    return api_rounding(codes->rounding, &out->rounding, err);
}

static enum status check_scales(const float *scales, size_t count, struct err *err)
{
    if (!scales) return err_set(err, ERR_USAGE, "scales is NULL");
    for (size_t i = 0; i < count; i++)
        if (!(scales[i] > 0.0f && isfinite(scales[i])))
            return err_set(err, ERR_USAGE, "scale number %zu, %g, is not positive and finite", i, (double)scales[i]);
    return OK;
}

static enum status check_bits(uint32_t bits, struct err *err)
{
    return bits >= 2 && bits <= 16 ? OK : err_set(err, ERR_USAGE, "%u bits are not 2 .. 16", bits);
}

/* Arrays of n weights; what is the name of the second. */
static enum status check_arrays(const float *x, const float *second, const char *what, size_t n, struct err *err)
{
    return n == 0 || (x && second) ? OK : err_set(err, ERR_USAGE, "%s is NULL", x ? what : "x");
}

static enum status check_gradients(const float *x, const float *g, const float *gradients, size_t n, struct err *err)
{
    return gradients ? check_arrays(x, g, "g", n, err) : err_set(err, ERR_USAGE, "the array of gradients is NULL");
}

/* ---- LSQ ------------------------------------------------------------------------------------------------------------------------- */

enum llmq_status llmq_lsq_forward(const struct llmq_codes *codes, const float *scales, const struct llmq_channels *channels, const float *x, size_t n,
                                  float *y, struct llmq_error *error)
{
    struct err *err = api_err(error);
    struct fakequant fake;
    struct fakequant_axis axis;
    enum status status = codes_of(codes, &fake, err);
    if (status == OK) status = axis_of(channels, n, &axis, err);
    if (status == OK) status = check_scales(scales, axis.count, err);
    if (status == OK) status = check_arrays(x, y, "y", n, err);
    if (status == OK) fakequant_forward(&fake, scales, axis, x, n, y);
    return api_status(status);
}

enum llmq_status llmq_lsq_backward(const struct llmq_codes *codes, const float *scales, const struct llmq_channels *channels, float grad_factor,
                                   const float *x, const float *g, size_t n, float *dx, float *dscales, struct llmq_error *error)
{
    struct err *err = api_err(error);
    struct fakequant fake;
    struct fakequant_axis axis;
    enum status status = codes_of(codes, &fake, err);
    if (status == OK) status = axis_of(channels, n, &axis, err);
    if (status == OK) status = check_scales(scales, axis.count, err);
    if (status == OK && !isfinite(grad_factor)) status = err_set(err, ERR_USAGE, "grad_factor %g is not finite", (double)grad_factor);
    if (status == OK) status = check_gradients(x, g, dscales, n, err);
    if (status == OK) lsq_backward(&fake, scales, axis, grad_factor, x, g, n, dx, dscales);
    return api_status(status);
}

static enum status check_code_max(uint64_t n, int32_t code_max, struct err *err)
{
    if (n == 0) return err_set(err, ERR_USAGE, "there are no weights");
    return code_max >= 1 ? OK : err_set(err, ERR_USAGE, "the largest code, %d, is below 1", code_max);
}

enum llmq_status llmq_lsq_start(const float *x, size_t n, int32_t code_max, float *scale, struct llmq_error *error)
{
    if (!x || !scale) return api_null(x ? "scale" : "x", error);
    enum status status = check_code_max(n, code_max, api_err(error));
    if (status == OK) *scale = lsq_start(x, n, code_max);
    return api_status(status);
}

enum llmq_status llmq_lsq_grad_factor(uint64_t n, int32_t code_max, float *grad_factor, struct llmq_error *error)
{
    if (!grad_factor) return api_null("grad_factor", error);
    enum status status = check_code_max(n, code_max, api_err(error));
    if (status == OK && n > SIZE_MAX) status = err_set(api_err(error), ERR_UNSUPPORTED, "%" PRIu64 " weights are too many", n);
    if (status == OK) *grad_factor = lsq_grad_factor((size_t)n, code_max);
    return api_status(status);
}

/* ---- TQT ------------------------------------------------------------------------------------------------------------------------- */

static enum status check_threshold(uint32_t bits, float log_threshold, size_t index, struct err *err)
{
    const float scale = isnan(log_threshold) ? 0.0f : tqt_scale(bits, log_threshold);
    if (scale > 0.0f && isfinite(scale)) return OK;
    return err_set(err, ERR_USAGE, "log threshold number %zu, %g, has no scale", index, (double)log_threshold);
}

static enum status check_tqt(uint32_t bits, const char *rounding, const float *log_thresholds, const struct llmq_channels *channels, size_t n,
                             struct tqt *tqt, struct fakequant_axis *axis, struct err *err)
{
    *tqt = (struct tqt){ .bits = bits };
    enum status status = check_bits(bits, err);
    if (status == OK) status = api_rounding(rounding, &tqt->rounding, err);
    if (status == OK) status = axis_of(channels, n, axis, err);
    if (status == OK && !log_thresholds) status = err_set(err, ERR_USAGE, "log_thresholds is NULL");
    for (size_t i = 0; status == OK && i < axis->count; i++) status = check_threshold(bits, log_thresholds[i], i, err);
    return status;
}

enum llmq_status llmq_tqt_scale(uint32_t bits, float log_threshold, float *scale, struct llmq_error *error)
{
    if (!scale) return api_null("scale", error);
    enum status status = check_bits(bits, api_err(error));
    if (status == OK) status = check_threshold(bits, log_threshold, 0, api_err(error));
    if (status == OK) *scale = tqt_scale(bits, log_threshold);
    return api_status(status);
}

enum llmq_status llmq_tqt_forward(uint32_t bits, const char *rounding, const float *log_thresholds, const struct llmq_channels *channels,
                                  const float *x, size_t n, float *y, struct llmq_error *error)
{
    struct tqt tqt;
    struct fakequant_axis axis;
    enum status status = check_tqt(bits, rounding, log_thresholds, channels, n, &tqt, &axis, api_err(error));
    if (status == OK) status = check_arrays(x, y, "y", n, api_err(error));
    if (status == OK) tqt_forward(&tqt, log_thresholds, axis, x, n, y);
    return api_status(status);
}

enum llmq_status llmq_tqt_backward(uint32_t bits, const char *rounding, const float *log_thresholds, const struct llmq_channels *channels,
                                   const float *x, const float *g, size_t n, float *dx, float *dlog_thresholds, struct llmq_error *error)
{
    struct tqt tqt;
    struct fakequant_axis axis;
    enum status status = check_tqt(bits, rounding, log_thresholds, channels, n, &tqt, &axis, api_err(error));
    if (status == OK) status = check_gradients(x, g, dlog_thresholds, n, api_err(error));
    if (status == OK) tqt_backward(&tqt, log_thresholds, axis, x, g, n, dx, dlog_thresholds);
    return api_status(status);
}

static enum status check_finite(const char *what, const float *x, size_t n, struct err *err)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return err_set(err, ERR_DATA, "%s number %zu is NaN or Inf", what, i);
    return OK;
}

enum llmq_status llmq_tqt_start(const char *start, uint32_t bits, const float *x, size_t n, float *threshold, float *log_threshold,
                                struct llmq_error *error)
{
    struct err *err = api_err(error);
    if (!start || !x || !threshold) return api_null(!start ? "start" : !x ? "x" : "threshold", error);
    const bool is_3sd = strcmp(start, "3sd") == 0;
    if (!is_3sd && strcmp(start, "kl-j") != 0) return api_status(err_set(err, ERR_USAGE, "start '%s' is none of 3sd, kl-j", start));
    enum status status = check_bits(bits, err);
    if (status == OK && n == 0) status = err_set(err, ERR_USAGE, "there are no weights");
    if (status == OK) status = check_finite("weight", x, n, err);
    if (status != OK) return api_status(status);
    *threshold = is_3sd ? tqt_threshold_3sd(x, n) : tqt_threshold_klj(bits, x, n);
    if (log_threshold) *log_threshold = observe_log_threshold(*threshold > 0.0f ? *threshold : 0x1p-23f);
    return LLMQ_OK;
}

/* ---- PACT ------------------------------------------------------------------------------------------------------------------------ */

static enum status check_pact(uint32_t bits, const float *alphas, const struct llmq_channels *channels, size_t n, struct fakequant_axis *axis,
                              struct err *err)
{
    enum status status = check_bits(bits, err);
    if (status == OK) status = axis_of(channels, n, axis, err);
    if (status == OK && !alphas) status = err_set(err, ERR_USAGE, "alphas is NULL");
    for (size_t i = 0; status == OK && i < axis->count; i++)
        if (!isfinite(alphas[i])) status = err_set(err, ERR_USAGE, "alpha number %zu is NaN or Inf", i);
    return status;
}

enum llmq_status llmq_pact_forward(uint32_t bits, const float *alphas, const struct llmq_channels *channels, const float *x, size_t n, float *y,
                                   struct llmq_error *error)
{
    struct fakequant_axis axis;
    enum status status = check_pact(bits, alphas, channels, n, &axis, api_err(error));
    if (status == OK) status = check_arrays(x, y, "y", n, api_err(error));
    if (status == OK) pact_forward(bits, alphas, axis, x, n, y);
    return api_status(status);
}

enum llmq_status llmq_pact_backward(uint32_t bits, int with_step, const float *alphas, const struct llmq_channels *channels, const float *x,
                                    const float *g, size_t n, float *dx, float *dalphas, struct llmq_error *error)
{
    struct fakequant_axis axis;
    enum status status = check_pact(bits, alphas, channels, n, &axis, api_err(error));
    for (size_t i = 0; status == OK && with_step && i < axis.count; i++)
        if (!(fabsf(alphas[i]) >= 0x1p-100f)) status = err_set(api_err(error), ERR_USAGE, "alpha number %zu is too small for a step", i);
    if (status == OK) status = check_gradients(x, g, dalphas, n, api_err(error));
    if (status == OK) pact_backward(bits, with_step ? PACT_STEP : PACT_CLIP, alphas, axis, x, g, n, dx, dalphas);
    return api_status(status);
}

/* ---- the optimiser --------------------------------------------------------------------------------------------------------------- */

/* The number of a name in a list; count when it is none. */
static int name_at(const char *name, const char *const *names, int count)
{
    int i = 0;
    while (i < count && strcmp(name, names[i]) != 0) i++;
    return i;
}

static enum status learn_params_of(const struct llmq_learn_options *options, struct learn_params *params, struct err *err)
{
    static const char *const methods[] = { "best", "search", "descent" }, *const starts[] = { "max", "3sd", "kl-j", "constant" };
    if (!options) return OK;
    if (options->method) {
        const int found = name_at(options->method, methods, 3);
        if (found == 3) return err_set(err, ERR_USAGE, "method '%s' is none of best, search, descent", options->method);
        params->method = (enum learn_method)found;
    }
    if (options->start) {
        const int found = name_at(options->start, starts, 4);
        if (found == 4) return err_set(err, ERR_USAGE, "start '%s' is none of max, 3sd, kl-j, constant", options->start);
        params->start = (enum learn_start)found;
    }
    if (options->scale) {
        params->stored = scale_type_find(options->scale);
        if (params->stored != SCALE_F32 && params->stored != SCALE_BF16 && params->stored != SCALE_F16)
            return err_set(err, ERR_USAGE, "scale '%s' is none of f32, bf16, f16", options->scale);
    }
    if (options->steps) params->steps = options->steps;
    if (options->patience) params->patience = options->patience;
    if (options->rate != 0.0f) params->rate = options->rate;
    if (!(params->rate > 0.0f && isfinite(params->rate))) return err_set(err, ERR_USAGE, "rate %g is not positive and finite", (double)params->rate);
    return api_rounding(options->rounding, &params->rounding, err);
}

static enum status check_range(enum learn_rule rule, int32_t code_min, int32_t code_max, struct err *err)
{
    if (code_min > 0 || code_max < 1 || code_min < -128 || code_max > 255 || code_max - code_min > 255)
        return err_set(err, ERR_USAGE, "codes %d .. %d are no range around 0 of at most 8 bits", code_min, code_max);
    if (rule == LEARN_TQT && (code_max & (code_max + 1)))
        return err_set(err, ERR_USAGE, "tqt has codes up to a power of two less 1, not up to %d", code_max);
    return OK;
}

static enum status check_weights(const float *x, const float *weight, size_t n, struct err *err)
{
    if (n == 0 || !x) return err_set(err, ERR_USAGE, n ? "x is NULL" : "there are no weights");
    enum status status = check_finite("weight", x, n, err);
    for (size_t i = 0; weight && status == OK && i < n; i++)
        if (!(weight[i] >= 0.0f && isfinite(weight[i])))
            status = err_set(err, ERR_DATA, "importance number %zu, %g, is not finite and at least 0", i, (double)weight[i]);
    return status;
}

enum llmq_status llmq_learn(const char *rule, const struct llmq_learn_options *options, const float *x, const float *weight, size_t n,
                            int32_t code_min, int32_t code_max, struct llmq_learned *learned, struct llmq_error *error)
{
    struct err *err = api_err(error);
    if (!rule || !learned) return api_null(rule ? "learned" : "rule", error);
    const enum learn_rule found = learn_rule_find(rule);
    if (found == LEARN_RULE_COUNT) return api_status(err_set(err, ERR_USAGE, "rule '%s' is none of tqt, lsq, pact", rule));
    struct learn_params params = learn_defaults(found);
    struct learned result;
    params.kernels = kernels_select(NULL);
    enum status status = learn_params_of(options, &params, err);
    if (status == OK) status = check_range(found, code_min, code_max, err);
    if (status == OK) status = check_weights(x, weight, n, err);
    if (status != OK) return api_status(status);
    learn_group(found, &params, x, weight, n, code_min, code_max, &result);
    if (!isfinite(result.scale)) return api_status(err_set(err, ERR_DATA, "no scale is in range of %s", scale_type_name(params.stored)));
    *learned = (struct llmq_learned){ result.scale, result.zero, result.loss, result.start_loss, result.judged };
    return LLMQ_OK;
}
