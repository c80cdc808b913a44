/* ggml_mse_search.c: see ggml_mse_search.h.
 *
 *   scale   b = sum w x q    c = sum w q q                           s = b / c,  loss = -s b
 *   line    z = x - middle   b = sum w z q    c = sum w q q    g = sum w q    W = sum w    Z = sum w z
 *           across = b - (g / W) Z    spread = c - (g / W) g         s = across / spread,  m = (Z - s g) / W + middle,  loss = -s across
 *
 * Why this way: loops over lanes have a constant length and no branch; minimum and maximum are written as processors have them; a code is rounded by
 * adding 1.5 * 2^23 after the clamp, so it is exact.
 * Candidates of one pass lie near each other, so that an element meets few of the midpoints between the levels of IQ4.
 * Corner cases: weights of 2^-60 (no importance) do not count for the range of candidates, unless there are no others; a line whose codes are all
 * equal is flat.
 * Reference: NUMERICS_GGML.md 2. Worked number: 3 shifts: the range is clipped at its top alone, at both ends alike, at its bottom alone.
 */
#include "number/ggml_mse_search.h"

#include <string.h>

#include "number/ggml_bits.h"

#define LANES MSE_LANES
#define MAGIC 0x1.8p23f
#define IDLE 0x1p-60f

static inline float nearest_whole(float u, float low, float high)
{
    u = u > low ? u : low;
    u = u < high ? u : high;
    return (u + MAGIC) - MAGIC;
}

size_t mse_least(const float *errors)
{
    size_t best = 0;
    for (size_t k = 1; k < LANES; k++) best = errors[k] < errors[best] ? k : best;
    return best;
}

/* ---- levels --------------------------------------------------------------------------------------------------------------------- */

static const float levels[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
static const float midpoints[15] = {
    -115.5f, -93.5f, -74.0f, -57.0f, -42.0f, -28.5f, -16.0f, -4.5f, 7.0f, 19.0f, 31.5f, 45.5f, 61.0f, 79.0f, 101.0f
};

/* Inverse scales of all lanes, and their range. */
struct inverses {
    float t[LANES], least, most;
};

static void find_range(struct inverses *inverses)
{
    inverses->least = inverses->most = inverses->t[0];
    for (size_t k = 1; k < LANES; k++) {
        const float t = inverses->t[k];
        inverses->least = t < inverses->least ? t : inverses->least;
        inverses->most = t > inverses->most ? t : inverses->most;
    }
}

static inline int32_t level_index(float u)
{
    int32_t index = 0;
    for (size_t m = 0; m < 15; m++) index += u >= midpoints[m];
    return index;
}

/* Levels nearest to x * t in all lanes. Only the midpoints within their range need a look. */
static inline void nearest_levels(float x, const struct inverses *inverses, float *q)
{
    const float one = x * inverses->least, other = x * inverses->most;
    const float least = one < other ? one : other, most = one < other ? other : one;
    const int32_t first = level_index(least), last = level_index(most);
    for (size_t k = 0; k < LANES; k++) q[k] = levels[first];
    for (int32_t m = first; m < last; m++) {
        const float at = midpoints[m], step = levels[m + 1] - levels[m];
        for (size_t k = 0; k < LANES; k++) q[k] += x * inverses->t[k] >= at ? step : 0.0f;
    }
}

/* ---- scales --------------------------------------------------------------------------------------------------------------------- */

/* Sums over the codes of each lane. */
struct scan {
    float b[LANES], c[LANES], g[LANES];
};

static void scan_whole(const struct mse_group *group, const struct mse_scale_codes *codes, const float *inverses, struct scan *sums)
{
    float t[LANES], b[LANES] = { 0 }, c[LANES] = { 0 };
    const float low = codes->low, high = codes->high;
    memcpy(t, inverses, sizeof t);
    for (size_t i = 0; i < group->n; i++) {
        const float x = group->x[i], w = group->w[i], wx = w * x;
        for (size_t k = 0; k < LANES; k++) {
            const float q = nearest_whole(x * t[k], low, high);
            b[k] += wx * q;
            c[k] += w * q * q;
        }
    }
    memcpy(sums->b, b, sizeof b);
    memcpy(sums->c, c, sizeof c);
}

static void scan_levels(const struct mse_group *group, const float *inverse_scales, struct scan *sums)
{
    struct inverses inverses;
    float q[LANES], b[LANES] = { 0 }, c[LANES] = { 0 };
    memcpy(inverses.t, inverse_scales, sizeof inverses.t);
    find_range(&inverses);
    for (size_t i = 0; i < group->n; i++) {
        const float x = group->x[i], w = group->w[i], wx = w * x;
        nearest_levels(x, &inverses, q);
        for (size_t k = 0; k < LANES; k++) {
            b[k] += wx * q[k];
            c[k] += w * q[k] * q[k];
        }
    }
    memcpy(sums->b, b, sizeof b);
    memcpy(sums->c, c, sizeof c);
}

/* Largest magnitude among the weights that count. */
static float heeded_magnitude(const struct mse_group *group)
{
    float largest = 0.0f;
    for (size_t i = 0; i < group->n; i++) {
        const float magnitude = group->w[i] > IDLE ? fabsf(group->x[i]) : 0.0f;
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest > 0.0f ? largest : largest_magnitude(group->x, group->n);
}

float mse_search_scale(const struct mse_group *group, const struct mse_scale_codes *codes, bool negative, float *loss)
{
    const float amax = heeded_magnitude(group), unit = inverse(negative ? -amax : amax);
    float found = 0.0f;
    *loss = 0.0f;
    for (uint32_t pass = 0; pass < codes->passes; pass++) {
        float inverses[LANES], scales[LANES], losses[LANES];
        struct scan sums;
        for (size_t k = 0; k < LANES; k++) inverses[k] = (codes->first + codes->step * (float)(LANES * pass + k)) * unit;
        if (codes->levels) scan_levels(group, inverses, &sums);
        else scan_whole(group, codes, inverses, &sums);
        for (size_t k = 0; k < LANES; k++) {
            scales[k] = sums.c[k] > 0.0f ? sums.b[k] / sums.c[k] : 0.0f;
            losses[k] = -scales[k] * sums.b[k];
        }
        const size_t best = mse_least(losses);
        if (!(losses[best] < *loss)) continue;
        *loss = losses[best];
        found = scales[best];
    }
    return found;
}

static void whole_errors(const struct mse_group *group, const struct mse_scale_codes *codes, const float *scales, float *errors)
{
    float s[LANES], t[LANES], e[LANES] = { 0 };
    const float low = codes->low, high = codes->high;
    memcpy(s, scales, sizeof s);
    for (size_t k = 0; k < LANES; k++) t[k] = inverse(s[k]);
    for (size_t i = 0; i < group->n; i++) {
        const float x = group->x[i], w = group->w[i];
        for (size_t k = 0; k < LANES; k++) {
            const float r = x - s[k] * nearest_whole(x * t[k], low, high);
            e[k] += w * r * r;
        }
    }
    memcpy(errors, e, sizeof e);
}

static void level_errors(const struct mse_group *group, const float *scales, float *errors)
{
    struct inverses inverses;
    float s[LANES], q[LANES], e[LANES] = { 0 };
    memcpy(s, scales, sizeof s);
    for (size_t k = 0; k < LANES; k++) inverses.t[k] = inverse(s[k]);
    find_range(&inverses);
    for (size_t i = 0; i < group->n; i++) {
        const float x = group->x[i], w = group->w[i];
        nearest_levels(x, &inverses, q);
        for (size_t k = 0; k < LANES; k++) {
            const float r = x - s[k] * q[k];
            e[k] += w * r * r;
        }
    }
    memcpy(errors, e, sizeof e);
}

void mse_scale_errors(const struct mse_group *group, const struct mse_scale_codes *codes, const float *scales, float *errors)
{
    if (codes->levels) level_errors(group, scales, errors);
    else whole_errors(group, codes, scales, errors);
}

void mse_scale_nearest(const struct mse_group *group, const struct mse_scale_codes *codes, float s, uint8_t *out)
{
    const float t = inverse(s);
    for (size_t i = 0; i < group->n; i++) {
        const float u = group->x[i] * t;
        if (codes->levels) {
            out[i] = (uint8_t)level_index(u);
        } else {
            out[i] = (uint8_t)(int32_t)(nearest_whole(u, codes->low, codes->high) - codes->low);
        }
    }
}

float mse_scale_value(const struct mse_scale_codes *codes, uint8_t code)
{
    return codes->levels ? levels[code] : codes->low + (float)code;
}

/* ---- lines ---------------------------------------------------------------------------------------------------------------------- */

/* A group as the scan of its lines sees it. */
struct line_group {
    float low, high; /* range of the candidates */
    float middle; /* what z = x - middle counts from */
    float weight, wz; /* W and Z */
};

/* Range of the weights that count; lines from below start at 0 or lower. */
static void look_at(const struct mse_group *group, bool below, struct line_group *line)
{
    *line = (struct line_group){ .low = INFINITY, .high = -INFINITY };
    for (size_t i = 0; i < group->n; i++) {
        if (!(group->w[i] > IDLE)) continue;
        line->low = group->x[i] < line->low ? group->x[i] : line->low;
        line->high = group->x[i] > line->high ? group->x[i] : line->high;
    }
    if (line->low > line->high) line->low = line->high = group->x[0];
    if (below) line->low = line->low < 0.0f ? line->low : 0.0f;
    line->middle = below ? 0.0f : 0.5f * line->low + 0.5f * line->high;
    for (size_t i = 0; i < group->n; i++) {
        line->weight += group->w[i];
        line->wz += group->w[i] * (group->x[i] - line->middle);
    }
}

static void scan_lines(const struct mse_group *group, float top, const float *inverses, const float *minima, float middle, struct scan *sums)
{
    float t[LANES], m[LANES], b[LANES] = { 0 }, c[LANES] = { 0 }, g[LANES] = { 0 };
    memcpy(t, inverses, sizeof t);
    memcpy(m, minima, sizeof m);
    for (size_t i = 0; i < group->n; i++) {
        const float x = group->x[i], w = group->w[i], wz = w * (x - middle);
        for (size_t k = 0; k < LANES; k++) {
            const float q = nearest_whole((x - m[k]) * t[k], 0.0f, top), wq = w * q;
            b[k] += wz * q;
            c[k] += wq * q;
            g[k] += wq;
        }
    }
    memcpy(sums->b, b, sizeof b);
    memcpy(sums->c, c, sizeof c);
    memcpy(sums->g, g, sizeof g);
}

/* The least-squares line of one lane's sums; returns its loss. One that may not start above 0 but would goes through 0. */
static float solve_line(const struct line_group *line, bool below, float b, float c, float g, struct mse_line *out)
{
    const float mean = g / line->weight, across = b - mean * line->wz, spread = c - mean * g;
    const float s = spread > 0x1p-18f * c ? across / spread : 0.0f, m = (line->wz - s * g) / line->weight + line->middle;
    *out = (struct mse_line){ s, m, mean };
    if (!below || m <= 0.0f) return -s * across;
    const float through = c > 0.0f ? b / c : 0.0f;
    *out = (struct mse_line){ through, 0.0f, mean };
    return line->wz * line->wz / line->weight - through * b;
}

void mse_search_line(const struct mse_group *group, const struct mse_line_codes *codes, struct mse_line *found)
{
    struct line_group line;
    float least = INFINITY;
    look_at(group, codes->below, &line);
    *found = (struct mse_line){ 0.0f, line.low, 0.0f };
    for (uint32_t shift = 0; shift < codes->shifts; shift++) {
        const float part = (float)shift / (float)(codes->shifts - 1);
        float inverses[LANES], minima[LANES];
        struct scan sums;
        for (size_t k = 0; k < LANES; k++) {
            const float clip = codes->first + codes->step * (float)k, s = (line.high - line.low) / (codes->top + clip);
            const float m = line.low + part * clip * s;
            inverses[k] = inverse(s);
            minima[k] = codes->below && m > 0.0f ? 0.0f : m;
        }
        scan_lines(group, codes->top, inverses, minima, line.middle, &sums);
        for (size_t k = 0; k < LANES; k++) {
            struct mse_line candidate;
            const float loss = solve_line(&line, codes->below, sums.b[k], sums.c[k], sums.g[k], &candidate);
            if (!(loss < least)) continue;
            least = loss;
            *found = candidate;
        }
    }
}

void mse_line_errors(const struct mse_group *group, float top, const float *scales, const float *minima, float *errors)
{
    float s[LANES], m[LANES], t[LANES], e[LANES] = { 0 };
    memcpy(s, scales, sizeof s);
    memcpy(m, minima, sizeof m);
    for (size_t k = 0; k < LANES; k++) t[k] = inverse(s[k]);
    for (size_t i = 0; i < group->n; i++) {
        const float x = group->x[i], w = group->w[i];
        for (size_t k = 0; k < LANES; k++) {
            const float r = x - (s[k] * nearest_whole((x - m[k]) * t[k], 0.0f, top) + m[k]);
            e[k] += w * r * r;
        }
    }
    memcpy(errors, e, sizeof e);
}

void mse_line_nearest(const struct mse_group *group, float top, float s, float m, uint8_t *out)
{
    const float t = inverse(s);
    for (size_t i = 0; i < group->n; i++) out[i] = (uint8_t)(int32_t)nearest_whole((group->x[i] - m) * t, 0.0f, top);
}
