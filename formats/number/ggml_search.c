/* ggml_search.c: see ggml_search.h.
 *
 *   candidate -> its inverse scale -> codes -> sums of w*x*q and w*q*q (affine: of w*q, w*q*q, w*q*x) -> its least-squares scale and its error; LANES at a time
 *
 * Why this way: a lane is a candidate (symmetric), or a group where each candidate starts from the minimum that an earlier one found (affine).
 * Loops over lanes have a constant length and no branch, which compilers turn into vectors without touching the order of any sum.
 * Corner cases: products are formed from the left, (w * x) * q and (w * q) * q; spare lanes are computed and never looked at.
 * Reference: layouts.md 2(f). Worked number: half 4, extreme -2: candidate inverse scales 2, then 1.55, 1.6, .. 2.45 (without 2).
 */
#include "number/ggml_search.h"

#include "number/ggml_bits.h"

#define LANES 16u
#define SYMMETRIC_CANDIDATES 19u
#define ROUNDS 5
#define TINY 1e-15f

/* ---- symmetric ------------------------------------------------------------------------------------------------------------------ */

/* Sums of a few candidates: numerator and denominator of the scale. */
struct ratio {
    float xq[LANES], qq[LANES];
};

static void symmetric_sums(const float *x, const float *weight, size_t n, int32_t half, const float *inverses, struct ratio *sums)
{
    float xq[LANES] = { 0 }, qq[LANES] = { 0 };
    for (size_t i = 0; i < n; i++) {
        const float wx = weight[i] * x[i];
        for (size_t k = 0; k < LANES; k++) {
            const float q = (float)clamp_int(nearest_int(inverses[k] * x[i]), -half, half - 1);
            xq[k] += wx * q;
            qq[k] += weight[i] * q * q;
        }
    }
    memcpy(sums->xq, xq, sizeof xq);
    memcpy(sums->qq, qq, sizeof qq);
}

/* Where candidate number stands: 0, then -9 .. 9 without 0. */
static int32_t symmetric_offset(size_t number)
{
    return number == 0 ? 0 : (int32_t)number - (number < 10 ? 10 : 9);
}

float ggml_search_symmetric(const float *x, const float *weight, size_t n, int32_t half, uint8_t *codes)
{
    const float peak = peak_of(x, n);
    if (fabsf(peak) < TINY) {
        memset(codes, 0, n);
        return 0.0f;
    }
    float scale = 0.0f, best = 0.0f, chosen = (float)-half / peak;
    for (size_t first = 0; first < SYMMETRIC_CANDIDATES; first += LANES) {
        float inverses[LANES] = { 0 };
        struct ratio sums;
        for (size_t k = 0; k < LANES && first + k < SYMMETRIC_CANDIDATES; k++)
            inverses[k] = -((float)half + 0.1f * (float)symmetric_offset(first + k)) / peak;
        symmetric_sums(x, weight, n, half, inverses, &sums);
        for (size_t k = 0; k < LANES && first + k < SYMMETRIC_CANDIDATES; k++) {
            const float xq = sums.xq[k], qq = sums.qq[k];
            if (first + k == 0) {
                scale = qq != 0.0f ? xq / qq : 0.0f;
            } else if (qq > 0.0f && xq * xq > best * qq) {
                chosen = inverses[k];
                scale = xq / qq;
            } else {
                continue;
            }
            best = scale * xq;
        }
    }
    for (size_t i = 0; i < n; i++) codes[i] = (uint8_t)(half + clamp_int(nearest_int(chosen * x[i]), -half, half - 1));
    return scale;
}

/* A fit in progress: codes and the sums that they make. */
struct fit {
    const float *x, *weight;
    size_t n;
    int32_t low, high; /* bounds of a code */
    bool bytes; /* codes wrap to 8 bits, and the sum without a code must be positive */
    int32_t q[GGML_GROUP_MAX];
    float xq, qq;
};

/* Moves code i to where the scale without it puts x[i], if that brings the fit forward. */
static bool move_code(struct fit *fit, size_t i)
{
    const float w = fit->weight[i], wx = w * fit->x[i], q = (float)fit->q[i];
    float xq = fit->xq - wx * q, qq = fit->qq - w * q * q;
    if (!(xq > 0.0f) || (fit->bytes && !(qq > 0.0f))) return false;
    const int32_t moved = clamp_int(nearest_int(fit->x[i] * qq / xq), fit->low, fit->high);
    if (moved == fit->q[i]) return false;
    xq += wx * (float)moved;
    qq += w * (float)moved * (float)moved;
    if (!(qq > 0.0f && xq * xq * fit->qq > fit->xq * fit->xq * qq)) return false;
    fit->q[i] = fit->bytes ? moved & 0xFF : moved;
    fit->xq = xq;
    fit->qq = qq;
    return true;
}

/* Rounds over all codes until one changes nothing; returns the scale. */
static float descend(struct fit *fit)
{
    bool changed = true;
    for (int round = 0; round < ROUNDS && changed; round++) {
        changed = false;
        for (size_t i = 0; i < fit->n; i++) changed |= move_code(fit, i);
    }
    return fit->qq > 0.0f ? fit->xq / fit->qq : 0.0f;
}

/* Sets code i and counts it in. */
static void start_code(struct fit *fit, size_t i, int32_t q)
{
    const float w = fit->weight[i];
    fit->q[i] = fit->bytes ? q & 0xFF : q;
    fit->xq += w * fit->x[i] * (float)q;
    fit->qq += w * (float)q * (float)q;
}

float ggml_descend_symmetric(const float *x, size_t n, int32_t half, uint8_t *codes)
{
    float weight[GGML_GROUP_MAX];
    struct fit fit = { .x = x, .weight = weight, .n = n, .low = -half, .high = half - 1 };
    const float peak = peak_of(x, n), inverse_scale = (float)-half / peak;
    if (fabsf(peak) < TINY) {
        memset(codes, 0, n);
        return 0.0f;
    }
    for (size_t i = 0; i < n; i++) {
        weight[i] = x[i] * x[i];
        start_code(&fit, i, clamp_int(nearest_int(inverse_scale * x[i]), -half, half - 1));
    }
    const float scale = descend(&fit);
    for (size_t i = 0; i < n; i++) codes[i] = (uint8_t)(fit.q[i] + half);
    return scale;
}

/* ---- positive ------------------------------------------------------------------------------------------------------------------- */

/* Weighted square error of x against its codes under a scale given by its inverse. The plain candidate keeps 8 bits of a code, the others bound it
 * above. */
static float positive_error(const float *x, const float *weight, size_t n, int32_t top, float inverse_scale, bool plain)
{
    const float scale = 1.0f / inverse_scale;
    float error = 0.0f;
    for (size_t i = 0; i < n; i++) {
        const int32_t q = nearest_int(inverse_scale * x[i]);
        const float difference = x[i] - scale * (float)(plain ? q & 0xFF : clamp_int(q, INT32_MIN, top));
        error += weight[i] * difference * difference;
    }
    return error;
}

float ggml_search_positive(const float *x, const float *weight, size_t n, int32_t top, uint8_t *codes)
{
    float peak = 0.0f;
    for (size_t i = 0; i < n; i++) peak = peak > x[i] ? peak : x[i];
    if (peak < TINY) {
        memset(codes, 0, n);
        return 0.0f;
    }
    float chosen = (float)top / peak, best = positive_error(x, weight, n, top, chosen, true);
    for (int32_t offset = -4; offset <= 4; offset++) {
        if (offset == 0) continue;
        const float candidate = (0.1f * (float)offset + (float)top) / peak;
        const float error = positive_error(x, weight, n, top, candidate, false);
        if (!(error < best)) continue;
        best = error;
        chosen = candidate;
    }
    struct fit fit = { .x = x, .weight = weight, .n = n, .low = INT32_MIN, .high = top, .bytes = true };
    for (size_t i = 0; i < n; i++) start_code(&fit, i, clamp_int(nearest_int(chosen * x[i]), INT32_MIN, top));
    const float scale = descend(&fit);
    for (size_t i = 0; i < n; i++) codes[i] = (uint8_t)fit.q[i];
    return scale;
}

/* ---- affine --------------------------------------------------------------------------------------------------------------------- */

/* LANES groups side by side: element i of group k is x[i][k]. */
struct lanes {
    size_t n;
    float x[GGML_GROUP_MAX][LANES], weight[GGML_GROUP_MAX][LANES];
    float low[LANES], high[LANES]; /* range with 0 included below; a found line moves low */
    float sum_w[LANES], sum_wx[LANES];
    float error[LANES], scale[LANES], inverse[LANES], from[LANES]; /* of the best line; its codes are nearest(inverse * (x - from)) */
};

/* A line through the codes of each lane. */
struct lines {
    float inverse[LANES], determinant[LANES], scale[LANES], low[LANES], error[LANES];
};

/* Spare lanes repeat the last group. */
static void load_lanes(const float *x, const float *weight, size_t n, size_t groups, struct lanes *lanes)
{
    lanes->n = n;
    for (size_t k = 0; k < LANES; k++) {
        const size_t from = n * (k < groups ? k : groups - 1);
        for (size_t i = 0; i < n; i++) {
            lanes->x[i][k] = x[from + i];
            lanes->weight[i][k] = weight[from + i];
        }
    }
}

static void look_at(struct lanes *lanes)
{
    for (size_t k = 0; k < LANES; k++) {
        lanes->low[k] = lanes->high[k] = lanes->x[0][k];
        lanes->sum_w[k] = lanes->weight[0][k];
        lanes->sum_wx[k] = lanes->weight[0][k] * lanes->x[0][k];
    }
    for (size_t i = 1; i < lanes->n; i++)
        for (size_t k = 0; k < LANES; k++) {
            const float x = lanes->x[i][k], w = lanes->weight[i][k];
            lanes->low[k] = x < lanes->low[k] ? x : lanes->low[k];
            lanes->high[k] = x > lanes->high[k] ? x : lanes->high[k];
            lanes->sum_w[k] += w;
            lanes->sum_wx[k] += w * x;
        }
    for (size_t k = 0; k < LANES; k++) lanes->low[k] = lanes->low[k] > 0.0f ? 0.0f : lanes->low[k];
}

static float code_at(float inverse, float above, int32_t top)
{
    return (float)clamp_int(nearest_int(inverse * above), 0, top);
}

/* Error of the lines over codes that lie at inverse and low. */
static void measure_lines(const struct lanes *lanes, const struct ggml_affine *how, struct lines *lines)
{
    float error[LANES] = { 0 };
    for (size_t i = 0; i < lanes->n; i++)
        for (size_t k = 0; k < LANES; k++) {
            const float x = lanes->x[i][k], q = code_at(lines->inverse[k], x - lanes->low[k], how->top);
            const float difference = lines->scale[k] * q + lines->low[k] - x;
            error[k] += lanes->weight[i][k] * (how->absolute ? fabsf(difference) : difference * difference);
        }
    memcpy(lines->error, error, sizeof error);
}

/* The least-squares line through the codes; one that would start above 0 is made to start there. */
static void fit_lines(const struct lanes *lanes, const struct ggml_affine *how, struct lines *lines)
{
    float wq[LANES] = { 0 }, wqq[LANES] = { 0 }, wqx[LANES] = { 0 };
    for (size_t i = 0; i < lanes->n; i++)
        for (size_t k = 0; k < LANES; k++) {
            const float x = lanes->x[i][k], q = code_at(lines->inverse[k], x - lanes->low[k], how->top), product = lanes->weight[i][k] * q;
            wq[k] += product;
            wqq[k] += product * q;
            wqx[k] += product * x;
        }
    for (size_t k = 0; k < LANES; k++) {
        const float determinant = lanes->sum_w[k] * wqq[k] - wq[k] * wq[k];
        const float scale = (lanes->sum_w[k] * wqx[k] - lanes->sum_wx[k] * wq[k]) / determinant;
        const float low = (wqq[k] * lanes->sum_wx[k] - wq[k] * wqx[k]) / determinant;
        lines->determinant[k] = determinant;
        lines->scale[k] = low > 0.0f ? wqx[k] / wqq[k] : scale;
        lines->low[k] = low > 0.0f ? 0.0f : low;
    }
}

/* Lines that are better take over, lane by lane; the next candidates start from their low. */
static void keep_better(const struct lines *lines, struct lanes *lanes)
{
    for (size_t k = 0; k < LANES; k++) {
        if (!(lines->determinant[k] > 0.0f && lines->error[k] < lanes->error[k])) continue;
        lanes->error[k] = lines->error[k];
        lanes->scale[k] = lines->scale[k];
        lanes->inverse[k] = lines->inverse[k];
        lanes->from[k] = lanes->low[k];
        lanes->low[k] = lines->low[k];
    }
}

static void spread(float levels, const struct lanes *lanes, float *inverse)
{
    for (size_t k = 0; k < LANES; k++) inverse[k] = levels / (lanes->high[k] - lanes->low[k]);
}

/* The codes that span the range evenly, before any fit. */
static void start_lines(const struct ggml_affine *how, struct lanes *lanes)
{
    struct lines lines;
    spread((float)how->top, lanes, lines.inverse);
    for (size_t k = 0; k < LANES; k++) {
        lines.scale[k] = 1.0f / lines.inverse[k];
        lines.low[k] = lanes->low[k];
    }
    measure_lines(lanes, how, &lines);
    memcpy(lanes->error, lines.error, sizeof lines.error);
    memcpy(lanes->scale, lines.scale, sizeof lines.scale);
    memcpy(lanes->inverse, lines.inverse, sizeof lines.inverse);
    memcpy(lanes->from, lanes->low, sizeof lanes->low);
}

static void search_lanes(const struct ggml_affine *how, struct lanes *lanes)
{
    struct lines lines;
    start_lines(how, lanes);
    for (uint32_t number = 0; number <= how->last; number++) {
        spread(how->first + how->step * (float)number + (float)how->top, lanes, lines.inverse);
        fit_lines(lanes, how, &lines);
        measure_lines(lanes, how, &lines);
        keep_better(&lines, lanes);
    }
}

void ggml_search_affine(const struct ggml_affine *how, const float *x, const float *weight, size_t n, size_t groups, uint8_t *codes, float *scales,
                        float *minima)
{
    bool flat[LANES];
    for (size_t first = 0; first < groups; first += LANES) {
        const size_t count = groups - first < LANES ? groups - first : LANES;
        struct lanes lanes;
        load_lanes(x + n * first, weight + n * first, n, count, &lanes);
        look_at(&lanes);
        for (size_t k = 0; k < count; k++) flat[k] = lanes.high[k] == lanes.low[k];
        search_lanes(how, &lanes);
        for (size_t k = 0; k < count; k++) {
            uint8_t *out = codes + n * (first + k);
            scales[first + k] = flat[k] ? 0.0f : lanes.scale[k];
            minima[first + k] = -(flat[k] ? lanes.high[k] : lanes.low[k]);
            for (size_t i = 0; i < n; i++)
                out[i] = flat[k] ? 0 : (uint8_t)clamp_int(nearest_int(lanes.inverse[k] * (lanes.x[i][k] - lanes.from[k])), 0, how->top);
        }
    }
}
