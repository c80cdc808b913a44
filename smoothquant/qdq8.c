/* qdq8.c: see qdq8.h.
 *
 * Drawing: absmax or range -> scale, zero -> x / scale + zero -> round half to even -> clamp -> (q - zero) * scale
 * Why this way: the steps and their roundings are those of the original's tensors of binary32.
 * Corner cases: see qdq8.h; numbers from 2^23 on are whole already.
 * Reference: see qdq8.h. Worked number: asym, 4 bits, .2, .8: scale .8/15, zero -4, codes 0, 11: .2133333, .8.
 */
#include "smoothquant/qdq8.h"

#include <math.h>

/* To the nearest whole number, ties to even. */
static float round_even(float x)
{
    const float large = copysignf(0x1p23f, x);
    return fabsf(x) < 0x1p23f ? (x + large) - large : x;
}

static float at_least_min(float scale)
{
    return scale > QDQ_SCALE_MIN ? scale : QDQ_SCALE_MIN;
}

void qdq_apply(const struct qdq_params *params, const float *x, uint64_t n, float *y)
{
    for (uint64_t i = 0; i < n; i++) {
        const float q = round_even(x[i] / params->scale + params->zero);
        y[i] = (fminf(fmaxf(q, params->code_min), params->code_max) - params->zero) * params->scale;
    }
}

/* ---- weights -------------------------------------------------------------------------------------------------------------------- */

/* Numbers from `at` on, `step` apart, in runs of `run` numbers. */
struct lane {
    uint64_t n_runs, run, step;
};

static void range_of(const float *w, struct lane lane, float *min, float *max)
{
    *min = HUGE_VALF;
    *max = -HUGE_VALF;
    for (uint64_t k = 0; k < lane.n_runs; k++)
        for (uint64_t i = 0; i < lane.run; i++) {
            *min = fminf(*min, w[k * lane.step + i]);
            *max = fmaxf(*max, w[k * lane.step + i]);
        }
    if (lane.n_runs == 0 || lane.run == 0) *min = *max = 0.0f;
}

static struct qdq_params weight_params(float min, float max, uint32_t bits, enum qdq_scheme scheme, float half)
{
    const float codes = (float)((1u << bits) - 1), half_codes = (float)(1u << (bits - 1));
    if (scheme == QDQ_SYM) {
        const float scale = fmaxf(fabsf(min), fabsf(max)) / half;
        return (struct qdq_params){ at_least_min(scale), 0.0f, -half_codes, half_codes - 1.0f };
    }
    const float scale = at_least_min((fmaxf(max, 0.0f) - fminf(min, 0.0f)) / codes);
    return (struct qdq_params){ scale, round_even((0.0f - min) / scale), 0.0f, codes };
}

static struct qdq_params code_lane(const float *w, struct lane lane, uint32_t bits, enum qdq_scheme scheme, float half, float *y)
{
    float min, max;
    range_of(w, lane, &min, &max);
    const struct qdq_params params = weight_params(min, max, bits, scheme, half);
    for (uint64_t k = 0; k < lane.n_runs; k++) qdq_apply(&params, w + k * lane.step, lane.run, y + k * lane.step);
    return params;
}

void qdq_weight_linear(const float *w, uint64_t rows, uint64_t cols, uint32_t bits, enum qdq_scheme scheme, float *y, struct qdq_params *params)
{
    const float half = (float)((1u << bits) - 1) / 2.0f;
    for (uint64_t r = 0; r < rows; r++) {
        const struct qdq_params one = code_lane(w + r * cols, (struct lane){ 1, cols, cols }, bits, scheme, half, y + r * cols);
        if (params) params[r] = one;
    }
}

void qdq_weight_conv(const float *w, uint64_t out, uint64_t in, uint64_t height, uint64_t width, uint32_t bits, enum qdq_scheme scheme, float *y,
                     struct qdq_params *params)
{
    const uint64_t area = height * width;
    const float half = (float)((1u << (bits - 1)) - 1);
    for (uint64_t c = 0; c < in; c++) {
        const struct qdq_params one = code_lane(w + c * area, (struct lane){ out, area, in * area }, bits, scheme, half, y + c * area);
        if (params) params[c] = one;
    }
}

/* ---- activations ---------------------------------------------------------------------------------------------------------------- */

struct qdq_params qdq_act_params(float min, float max, uint32_t bits)
{
    const float codes = (float)((1u << bits) - 1), scale = at_least_min((max - min) / codes);
    return (struct qdq_params){ scale, round_even((0.0f - min) / scale), 0.0f, codes };
}

void qdq_act(const float *x, uint64_t n, const float *min, const float *max, uint64_t n_range, uint32_t bits, float *y, struct qdq_params *params)
{
    float low, high, unused;
    range_of(min && max ? min : x, (struct lane){ 1, min && max ? n_range : n, 0 }, &low, &unused);
    range_of(min && max ? max : x, (struct lane){ 1, min && max ? n_range : n, 0 }, &unused, &high);
    const struct qdq_params one = qdq_act_params(low, high, bits);
    qdq_apply(&one, x, n, y);
    if (params) *params = one;
}

struct qdq_linear qdq_linear_params(const float *min, const float *max, const float *input_scale, uint64_t n)
{
    struct qdq_linear out = { 0 };
    for (uint64_t j = 0; j < n; j++) {
        const float scale = input_scale ? input_scale[j] : 1.0f;
        out.low = fminf(out.low, min[j] * scale);
        out.high = fmaxf(out.high, max[j] * scale);
    }
    out.scale = at_least_min((out.high - out.low) / 255.0f);
    out.zero = (int32_t)fminf(fmaxf(0.0f - round_even(out.low / out.scale), 0.0f), 255.0f);
    return out;
}

void qdq_row_scales(const float *w, uint64_t rows, uint64_t cols, float *scales)
{
    for (uint64_t r = 0; r < rows; r++) {
        float most = 0.0f;
        for (uint64_t c = 0; c < cols; c++) most = fmaxf(most, fabsf(w[r * cols + c]));
        scales[r] = at_least_min(most / 127.5f);
    }
}
