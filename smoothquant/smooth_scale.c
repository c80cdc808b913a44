/* smooth_scale.c: see smooth_scale.h.
 *
 * Drawing: s[j] = 0 marks a dead channel until the last step.
 *   raw -> share (per producer channel over its heads) -> geometric mean -> clamp -> 2^k from max w s -> dead
 * Why this way: see smooth_scale.h; a mark in s itself needs no memory, and no factor is 0.
 * Corner cases: see smooth_scale.h; the mean of logarithms divides their whole parts as whole numbers, so that it moves with them exactly.
 * Reference: see smooth_scale.h. Worked number: w s = 0.7, 1.4, 707.1, 0.0045: max 707.1 in [512, 1024): 2^-10.
 */
#include "smoothquant/smooth_scale.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "smoothquant/smooth_power.h"

#define EXPONENT_MAX 100

static const char *const family_names[SMOOTH_FAMILY_COUNT] = { "sq", "awq", "duo" };
static const char *const reduce_names[SMOOTH_REDUCE_COUNT] = { "geomean", "max" };

static size_t find_name(const char *const *names, size_t n, const char *name)
{
    size_t i = 0;
    while (i < n && strcmp(names[i], name) != 0) i++;
    return i;
}

const char *smooth_family_name(enum smooth_family family)
{
    return family_names[family];
}

enum smooth_family smooth_family_find(const char *name)
{
    return (enum smooth_family)find_name(family_names, SMOOTH_FAMILY_COUNT, name);
}

enum smooth_reduce smooth_reduce_find(const char *name)
{
    return (enum smooth_reduce)find_name(reduce_names, SMOOTH_REDUCE_COUNT, name);
}

/* ---- families ------------------------------------------------------------------------------------------------------------------- */

static float cal_scale(float x, float w, double alpha, float weight_min)
{
    const float power = smooth_pow(x, alpha);
    if (power == 0.0f) return 1.0f;
    const float s = power / smooth_pow(w > weight_min ? w : weight_min, 1.0 - alpha);
    return s > SMOOTH_SCALE_MIN ? s : SMOOTH_SCALE_MIN;
}

void smooth_cal_scale(const float *x, const float *w, uint64_t n, double alpha, float weight_min, float *s)
{
    for (uint64_t j = 0; j < n; j++) s[j] = cal_scale(x[j], w[j], alpha, weight_min);
}

typedef float scale_of_channel(const struct smooth_channels *channels, uint64_t j, double alpha);

static float scale_sq(const struct smooth_channels *channels, uint64_t j, double alpha)
{
    return cal_scale(channels->x[j], channels->w[j], alpha, SMOOTH_WEIGHT_MIN);
}

static float scale_awq(const struct smooth_channels *channels, uint64_t j, double alpha)
{
    return fmaxf(smooth_pow(channels->x[j], alpha), SMOOTH_AWQ_MIN);
}

static float scale_duo(const struct smooth_channels *channels, uint64_t j, double alpha)
{
    const float mean = channels->wmean[j];
    if (!(mean >= 0.0f) || isinf(mean)) return 0.0f;
    return fmaxf(smooth_pow(channels->x[j], alpha) / (smooth_pow(mean, 1.0 - alpha) + 1e-4f), SMOOTH_AWQ_MIN);
}

static scale_of_channel *const families[SMOOTH_FAMILY_COUNT] = { scale_sq, scale_awq, scale_duo };

static bool is_live(const struct smooth_channels *channels, uint64_t j)
{
    if (channels->dead && channels->dead[j]) return false;
    return channels->x[j] > 0.0f && !isinf(channels->x[j]) && channels->w[j] >= 0.0f && !isinf(channels->w[j]);
}

static bool is_factor(float s)
{
    return s >= FLT_MIN && s <= FLT_MAX;
}

/* ---- channels of one producer channel ------------------------------------------------------------------------------------------- */

/* Channels d, d + run, .. : the heads of one producer channel, or one channel alone. */
struct share {
    uint64_t heads, run;
};

static enum status share_of(const struct smooth_channels *channels, struct share *share, struct err *err)
{
    *share = channels->share_heads > 1 ? (struct share){ channels->share_heads, channels->share_run } : (struct share){ 1, 1 };
    if (channels->n == 0 || share->heads == 1) return OK;
    if (share->run == 0 || share->heads > channels->n || channels->n % share->heads || channels->n / share->heads % share->run)
        return err_set(err, ERR_USAGE, "%" PRIu64 " channels are no heads of %" PRIu64 " that share by %" PRIu64, channels->n, share->run,
                       share->heads);
    return OK;
}

/* The first channel of producer channel p. */
static uint64_t first_of(struct share share, uint64_t p)
{
    return p / share.run * share.heads * share.run + p % share.run;
}

/* Mean of the logarithms of n numbers whose sums of whole and broken parts are given. */
static float mean_of_logs(int64_t whole, double broken, uint64_t n)
{
    int64_t below = whole / (int64_t)n, rest = whole % (int64_t)n;
    if (rest < 0) {
        rest += (int64_t)n;
        below--;
    }
    return smooth_exp2((int32_t)below, ((double)rest + broken) / (double)n);
}

/* One factor of the live ones among the heads; 0 when all are dead. */
static float agree(enum smooth_reduce reduce, const float *s, struct share share)
{
    int64_t whole = 0;
    double broken = 0.0;
    uint64_t n = 0;
    float most = 0.0f;
    for (uint64_t h = 0; h < share.heads; h++) {
        const float one = s[h * share.run];
        int32_t e;
        if (one == 0.0f) continue;
        most = fmaxf(most, one);
        broken += smooth_log2((double)one, &e);
        whole += e;
        n++;
    }
    return reduce == SMOOTH_REDUCE_MAX || n <= 1 ? most : mean_of_logs(whole, broken, n);
}

static void share_all(const struct smooth_channels *channels, struct share share, float *s)
{
    for (uint64_t p = 0; share.heads > 1 && p < channels->n / share.heads; p++) {
        float *first = s + first_of(share, p);
        const float one = agree(channels->reduce, first, share);
        for (uint64_t h = 0; h < share.heads; h++) first[h * share.run] = is_factor(one) ? one : 0.0f;
    }
}

/* ---- clamp ---------------------------------------------------------------------------------------------------------------------- */

static float geometric_mean(const float *s, uint64_t n)
{
    int64_t whole = 0;
    double broken = 0.0;
    uint64_t n_live = 0;
    for (uint64_t j = 0; j < n; j++) {
        int32_t e;
        if (s[j] == 0.0f) continue;
        broken += smooth_log2((double)s[j], &e);
        whole += e;
        n_live++;
    }
    return n_live ? mean_of_logs(whole, broken, n_live) : 1.0f;
}

static uint64_t clamp_all(const struct smooth_channels *channels, float *s)
{
    const double mean = (double)geometric_mean(s, channels->n);
    const double low = mean * (channels->clamp_low > 0.0 ? channels->clamp_low : SMOOTH_CLAMP_LOW);
    const double high = mean * (channels->clamp_high > 0.0 ? channels->clamp_high : SMOOTH_CLAMP_HIGH);
    const float least = low > (double)FLT_MIN ? (float)low : FLT_MIN, most = high < (double)FLT_MAX ? (float)high : FLT_MAX;
    uint64_t n_clipped = 0;
    for (uint64_t j = 0; j < channels->n; j++) {
        if (s[j] == 0.0f || (s[j] >= least && s[j] <= most)) continue;
        s[j] = s[j] < least ? least : most;
        n_clipped++;
    }
    return n_clipped;
}

/* ---- power of two --------------------------------------------------------------------------------------------------------------- */

/* Multiplies live factors by the power of two that brings max w s into [0.5, 1), as far as they stay normal; returns its exponent. */
static int32_t scale_by_power(const float *w, uint64_t n, float *s)
{
    double most = 0.0;
    int top = 0, high = -1000, low = 1000;
    for (uint64_t j = 0; j < n; j++) {
        int e;
        if (s[j] == 0.0f) continue;
        most = fmax(most, (double)w[j] * (double)s[j]);
        frexp((double)s[j], &e);
        high = e > high ? e : high;
        low = e < low ? e : low;
    }
    if (most == 0.0) return 0;
    frexp(most, &top);
    int k = -top;
    if (k > EXPONENT_MAX) k = EXPONENT_MAX;
    if (k < -EXPONENT_MAX) k = -EXPONENT_MAX;
    if (k > 0 && high + k > 127) k = high < 127 ? 127 - high : 0;
    if (k < 0 && low + k < -124) k = low > -124 ? -124 - low : 0;
    for (uint64_t j = 0; j < n; j++) s[j] = ldexpf(s[j], k);
    return k;
}

/* The factor of a channel that nothing is known of: 1, or less where its largest weight w would stand out. */
static float dead_factor(float w)
{
    int e;
    if (!(w >= 1.0f) || isinf(w)) return 1.0f;
    frexpf(w, &e);
    return ldexpf(1.0f, -(e < EXPONENT_MAX ? e : EXPONENT_MAX));
}

static uint64_t revive(const struct smooth_channels *channels, struct share share, float *s)
{
    uint64_t n_dead = 0;
    for (uint64_t p = 0; p < channels->n / share.heads; p++) {
        const uint64_t first = first_of(share, p);
        float most = 0.0f;
        if (s[first] != 0.0f) continue;
        for (uint64_t h = 0; h < share.heads; h++) {
            const float w = channels->w ? channels->w[first + h * share.run] : 0.0f;
            if (w > most && !isinf(w)) most = w;
        }
        for (uint64_t h = 0; h < share.heads; h++) s[first + h * share.run] = channels->no_power ? 1.0f : dead_factor(most);
        n_dead += share.heads;
    }
    return n_dead;
}

/* ---- all steps ------------------------------------------------------------------------------------------------------------------ */

enum status smooth_scales(const struct smooth_channels *channels, enum smooth_family family, double alpha, float *s,
                          struct smooth_scale_report *report, struct err *err)
{
    struct smooth_scale_report unused;
    struct share share;
    report = report ? report : &unused;
    *report = (struct smooth_scale_report){ 0 };
    enum status status = share_of(channels, &share, err);
    if (status != OK) return status;
    if (family == SMOOTH_DUO && !channels->wmean) return err_set(err, ERR_USAGE, "family duo needs means of the weights");
    for (uint64_t j = 0; j < channels->n; j++) {
        const float one = is_live(channels, j) ? families[family](channels, j, alpha) : 0.0f;
        s[j] = is_factor(one) ? one : 0.0f;
    }
    share_all(channels, share, s);
    report->n_clipped = clamp_all(channels, s);
    if (!channels->no_power) report->exponent = scale_by_power(channels->w, channels->n, s);
    report->n_dead = revive(channels, share, s);
    return OK;
}

enum status smooth_scales_take(const struct smooth_channels *channels, const float *given, float *s, struct smooth_scale_report *report,
                               struct err *err)
{
    struct smooth_scale_report unused;
    struct share share;
    struct smooth_channels plain = *channels;
    report = report ? report : &unused;
    *report = (struct smooth_scale_report){ 0 };
    plain.no_power = true;
    enum status status = share_of(channels, &share, err);
    if (status != OK) return status;
    for (uint64_t j = 0; j < channels->n; j++) s[j] = is_factor(given[j]) && !(channels->dead && channels->dead[j]) ? given[j] : 0.0f;
    share_all(channels, share, s);
    report->n_dead = revive(&plain, share, s);
    return OK;
}

/* ---- what goes in, and importance ----------------------------------------------------------------------------------------------- */

void smooth_wmean_add(const float *w, uint64_t n_rows, uint64_t n, uint64_t group, double *sum)
{
    const uint64_t width = group ? group : n;
    for (uint64_t r = 0; r < n_rows; r++, w += n)
        for (uint64_t at = 0; at < n; at += width) {
            const uint64_t end = n - at < width ? n : at + width;
            float most = 0.0f;
            for (uint64_t j = at; j < end; j++) most = fmaxf(most, fabsf(w[j]));
            for (uint64_t j = at; j < end; j++) sum[j] += (double)fabsf(w[j]) / ((double)most + 1e-6);
        }
}

void smooth_wmax_add(const float *w, uint64_t n_rows, uint64_t n, float *out)
{
    for (uint64_t r = 0; r < n_rows; r++, w += n)
        for (uint64_t j = 0; j < n; j++) {
            const float one = fabsf(w[j]);
            out[j] = one <= out[j] ? out[j] : one == one ? one : HUGE_VALF;
        }
}

/* E[x^2] / s^2 of a channel; 0 when it is no number. */
static double spread(const double *ex2, const float *s, uint64_t j)
{
    const double value = s ? ex2[j] / ((double)s[j] * (double)s[j]) : ex2[j];
    return value > 0.0 && value <= DBL_MAX ? value : 0.0;
}

bool smooth_importance(const double *ex2, const float *s, uint64_t n, float *out)
{
    double most = 0.0, sum = 0.0;
    for (uint64_t j = 0; j < n; j++) most = fmax(most, spread(ex2, s, j));
    if (!(most > 0.0)) return false;
    for (uint64_t j = 0; j < n; j++) sum += spread(ex2, s, j) / most;
    for (uint64_t j = 0; j < n; j++) {
        const double value = spread(ex2, s, j);
        const float w = (float)(value / most * (double)n / sum);
        out[j] = value > 0.0 && w < 0x1p-126f ? 0x1p-126f : w;
    }
    return true;
}
