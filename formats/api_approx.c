/* api_approx.c: the multiplier quantisers of number/approx.h behind llmq.h.
 *
 *   factor = int_max / minmax      q = RNE(clip(fl(x * factor), -int_max, int_max))      x = fl(q / factor)
 *
 * Why this way: only checks stand here; the numbers are approx.c's.
 * Corner cases: a tensor of zeros has factor 1; NaN and Inf are refused, as the factor would be 0.
 * Reference: NUMERICS_LEARNED.md 6. Worked number: 4 bits, max|x| = 2.6: factor 2.692308.
 */
#include <math.h>

#include "api.h"
#include "number/approx.h"

static enum status check_bits(uint32_t bits, struct err *err)
{
    return bits >= 2 && bits <= 16 ? OK : err_set(err, ERR_USAGE, "%u bits are not 2 .. 16", bits);
}

static enum status check_approx(const struct llmq_approx *approx, struct err *err)
{
    if (!approx) return err_set(err, ERR_USAGE, "approx is NULL");
    if (!(approx->factor > 0.0f && isfinite(approx->factor)))
        return err_set(err, ERR_USAGE, "the factor, %g, is not positive and finite", (double)approx->factor);
    return check_bits(approx->bits, err);
}

static void set(struct llmq_approx *out, struct approx approx)
{
    *out = (struct llmq_approx){ .bits = approx.bits, .int_max = approx_int_max(approx.bits), .factor = approx.factor };
}

enum llmq_status llmq_approx_for_range(uint32_t bits, float minmax, struct llmq_approx *approx, struct llmq_error *error)
{
    if (!approx) return api_null("approx", error);
    enum status status = check_bits(bits, api_err(error));
    if (status == OK && !(minmax >= 0.0f && isfinite(minmax)))
        status = err_set(api_err(error), ERR_USAGE, "the range, %g, is not finite and at least 0", (double)minmax);
    if (status == OK) set(approx, approx_for_range(bits, minmax));
    return api_status(status);
}

enum llmq_status llmq_approx_minmax(uint32_t bits, const float *x, size_t n, struct llmq_approx *approx, struct llmq_error *error)
{
    if (!approx || (n && !x)) return api_null(approx ? "x" : "approx", error);
    enum status status = check_bits(bits, api_err(error));
    for (size_t i = 0; i < n && status == OK; i++)
        if (!isfinite(x[i])) status = err_set(api_err(error), ERR_DATA, "weight number %zu is NaN or Inf", i);
    if (status == OK) set(approx, approx_minmax(bits, x, n));
    return api_status(status);
}

enum llmq_status llmq_approx_quantize(const struct llmq_approx *approx, const float *x, size_t n, float *q, struct llmq_error *error)
{
    enum status status = check_approx(approx, api_err(error));
    if (status != OK) return api_status(status);
    if (n && (!x || !q)) return api_null(x ? "q" : "x", error);
    approx_quantize(&(struct approx){ approx->bits, approx->factor }, x, n, q);
    return LLMQ_OK;
}

enum llmq_status llmq_approx_dequantize(const struct llmq_approx *approx, const float *q, size_t n, float *x, struct llmq_error *error)
{
    enum status status = check_approx(approx, api_err(error));
    if (status != OK) return api_status(status);
    if (n && (!x || !q)) return api_null(q ? "x" : "q", error);
    approx_dequantize(&(struct approx){ approx->bits, approx->factor }, q, n, x);
    return LLMQ_OK;
}

enum llmq_status llmq_approx_backward(const struct llmq_approx *approx, int masked, const float *x, const float *g, size_t n, float *dx,
                                      struct llmq_error *error)
{
    enum status status = check_approx(approx, api_err(error));
    if (status != OK) return api_status(status);
    if (n && (!g || !dx || (masked && !x))) return api_null(!g ? "g" : !dx ? "dx" : "x", error);
    approx_backward(&(struct approx){ approx->bits, approx->factor }, masked ? APPROX_MASKED : APPROX_UNMASKED, x, g, n, dx);
    return LLMQ_OK;
}
