/* smooth_stat.c: see smooth_stat.h.
 *
 * Formula: rms sqrt(sum2 / count), mean sumabs / count, in binary64, then one rounding to binary32.
 * Why this way: see smooth_stat.h.
 * Corner cases: a percentile of n tokens is the number ceil(P / 100 * n) of the sorted ones, at least the first; P / 100 * n within 1e-9 of a whole
 * number counts as that. A value beyond binary32 is Inf, which makes a channel dead.
 * Reference: see smooth_stat.h. Worked number: 99.9 of 512 tokens: 511.488: the token number 512, the largest.
 */
#include "smoothquant/smooth_stat.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "container/shown.h"
#include "number/format.h"
#include "number/half.h"

#define INFINITE_BIN (0x7f800000u >> 20) /* of calibrate.h: bin b begins at the number with the bits b << 20 */

static const char *const names[SMOOTH_STAT_COUNT] = { "rms", "absmax", "mean", "pctl", "gain" };

/* ---- text ----------------------------------------------------------------------------------------------------------------------- */

enum status smooth_stat_parse(const char *text, struct smooth_stat *stat, struct err *err)
{
    *stat = (struct smooth_stat){ SMOOTH_STAT_RMS, 0.0 };
    for (size_t i = 0; i < SMOOTH_STAT_COUNT; i++)
        if (i != SMOOTH_STAT_PERCENTILE && strcmp(text, names[i]) == 0) {
            stat->kind = (enum smooth_stat_kind)i;
            return OK;
        }
    if (strncmp(text, "pctl:", 5) == 0 && quant_read_percentile(text + 5, &stat->percentile) && stat->percentile > 0.0) {
        stat->kind = SMOOTH_STAT_PERCENTILE;
        return OK;
    }
    return err_set(err, ERR_USAGE, "'%s' is no statistic of activations: rms, absmax, mean, pctl:P (0 < P <= 100) or gain", shown_str(text).text);
}

const char *smooth_stat_text(const struct smooth_stat *stat, char *out)
{
    struct quant like = { .rule = RULE_PERCENTILE, .percentile = stat->percentile };
    char number[24];
    if (stat->kind != SMOOTH_STAT_PERCENTILE) snprintf(out, 32, "%s", names[stat->kind]);
    else snprintf(out, 32, "pctl:%.24s", quant_percentile_text(&like, number));
    return out;
}

/* ---- values --------------------------------------------------------------------------------------------------------------------- */

static const struct stats_entry *entry_of(const struct smooth_stat_source *source)
{
    return source->slice ? source->slice->entry : NULL;
}

/* Values of a field from the slice's first channel on, or NULL. */
static const double *field_of(const struct smooth_stat_source *source, enum stats_field field)
{
    const struct stats_entry *entry = entry_of(source);
    if (!entry || !entry->values[field]) return NULL;
    return entry->values[field] + source->slice->mat * entry->n_in + source->slice->first;
}

/* Tokens of the slice's matrix; 0 when they are unknown, too. */
static double count_of(const struct smooth_stat_source *source)
{
    const struct stats_entry *entry = entry_of(source);
    return entry && entry->counts ? (double)entry->counts[source->slice->mat] : 0.0;
}

static bool is_unseen(const struct smooth_stat_source *source)
{
    const struct stats_entry *entry = entry_of(source);
    return entry && entry->counts && entry->counts[source->slice->mat] == 0;
}

static enum status lacks(const struct smooth_stat_source *source, const char *what, struct err *err)
{
    const struct stats_entry *entry = entry_of(source);
    if (!entry) return err_set(err, ERR_DATA, "there are no statistics");
    if (is_unseen(source))
        return err_set(err, ERR_DATA, "'%s': no token has reached matrix %" PRIu64, shown_str(entry->name).text, source->slice->mat);
    return err_set(err, ERR_DATA, "the statistics of '%s' have no %s", shown_str(entry->name).text, what);
}

/* max |x| of channel j; false when neither in_absmax nor in_min and in_max are there. */
static bool absmax_at(const struct smooth_stat_source *source, uint64_t j, double *out)
{
    const double *absmax = field_of(source, STATS_ABSMAX), *min = field_of(source, STATS_MIN), *max = field_of(source, STATS_MAX);
    if (absmax) *out = absmax[j];
    else if (min && max) *out = fmax(fabs(min[j]), fabs(max[j]));
    return absmax || (min && max);
}

static bool read_rms(const struct smooth_stat_source *source, float *x)
{
    const double *sum2 = field_of(source, STATS_SUM2), count = count_of(source);
    if (!sum2 || count == 0.0) return false;
    for (uint64_t j = 0; j < source->n; j++) x[j] = (float)sqrt(sum2[j] / count);
    return true;
}

static bool read_mean(const struct smooth_stat_source *source, float *x)
{
    const double *sumabs = field_of(source, STATS_SUMABS), count = count_of(source);
    if (!sumabs || count == 0.0) return false;
    for (uint64_t j = 0; j < source->n; j++) x[j] = (float)(sumabs[j] / count);
    return true;
}

static bool read_absmax(const struct smooth_stat_source *source, float *x)
{
    double most = 0.0;
    if (!entry_of(source) || is_unseen(source)) return false;
    for (uint64_t j = 0; j < source->n; j++) {
        if (!absmax_at(source, j, &most)) return false;
        x[j] = (float)most;
    }
    return true;
}

static bool read_gain(const struct smooth_stat_source *source, float *x)
{
    if (!source->gain) return false;
    for (uint64_t j = 0; j < source->n; j++) x[j] = fabsf(source->gain[j]);
    return true;
}

/* ---- percentiles ---------------------------------------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* How many of n lie at or below the percentile, 1 .. n. */
static double rank_of(double percentile, double n)
{
    const double rank = ceil(percentile / 100.0 * n - 1e-9);
    return rank < 1.0 ? 1.0 : rank > n ? n : rank;
}

static enum status percentiles_of_sample(const struct smooth_stat_source *source, double percentile, float *x, struct err *err)
{
    const struct stats_entry *entry = entry_of(source);
    const size_t n = (size_t)entry->n_sample, at = (size_t)rank_of(percentile, (double)n) - 1;
    float *column = malloc(n * sizeof *column);
    if (!column) return err_set(err, ERR_MEMORY, "out of memory for %zu tokens", n);
    for (uint64_t j = 0; j < source->n; j++) {
        for (size_t t = 0; t < n; t++) column[t] = fabsf(bf16_to_f32(entry->sample[t * entry->n_in + source->slice->first + j]));
        qsort(column, n, sizeof *column, ascending);
        x[j] = column[at];
    }
    free(column);
    return OK;
}

/* The upper edge of the bin in which the percentile lies. */
static double edge_of(const struct stats_entry *entry, double percentile, double top)
{
    double total = 0.0, sum = 0.0;
    size_t bin = 0;
    for (size_t i = 0; i < STATS_HIST_BINS; i++) total += (double)entry->hist[i];
    const double rank = rank_of(percentile, total);
    for (; bin < STATS_HIST_BINS; bin++) {
        sum += (double)entry->hist[bin];
        if (sum >= rank) break;
    }
    if (++bin >= STATS_HIST_BINS) return HUGE_VAL;
    return top > 0.0 ? (double)bin * (top / STATS_HIST_BINS) : bin < INFINITE_BIN ? (double)f32_from_bits((uint32_t)bin << 20) : HUGE_VAL;
}

static enum status read_percentile(const struct smooth_stat_source *source, double percentile, float *x, struct err *err)
{
    const struct stats_entry *entry = entry_of(source);
    if (!entry || is_unseen(source)) return lacks(source, "", err);
    if (entry->sample && entry->n_sample && entry->n_mat == 1) return percentiles_of_sample(source, percentile, x, err);
    if (!entry->hist || !read_absmax(source, x)) return lacks(source, "in_sample, nor in_hist with in_absmax", err);
    const float edge = (float)edge_of(entry, percentile, source->hist_top);
    for (uint64_t j = 0; j < source->n; j++) x[j] = fminf(x[j], edge);
    return OK;
}

enum status smooth_stat_read(const struct smooth_stat_source *source, const struct smooth_stat *stat, float *x, struct err *err)
{
    static const struct {
        bool (*read)(const struct smooth_stat_source *source, float *x);
        const char *needs;
    } readers[SMOOTH_STAT_COUNT] = { [SMOOTH_STAT_RMS] = { read_rms, "in_sum2 with counts" },
                                     [SMOOTH_STAT_ABSMAX] = { read_absmax, "in_absmax, nor in_min and in_max" },
                                     [SMOOTH_STAT_MEAN] = { read_mean, "in_sumabs with counts" } };
    if (stat->kind == SMOOTH_STAT_PERCENTILE) return read_percentile(source, stat->percentile, x, err);
    if (stat->kind == SMOOTH_STAT_GAIN) return read_gain(source, x) ? OK : err_set(err, ERR_DATA, "there is no norm whose gain could be taken");
    return readers[stat->kind].read(source, x) ? OK : lacks(source, readers[stat->kind].needs, err);
}

/* ---- E[x^2] --------------------------------------------------------------------------------------------------------------------- */

bool smooth_stat_ex2(const struct smooth_stat_source *source, double *ex2, bool *exact)
{
    const double *sum2 = field_of(source, STATS_SUM2), *sumabs = field_of(source, STATS_SUMABS), count = count_of(source);
    double most = 0.0;
    if (exact) *exact = sum2 && count > 0.0;
    if (entry_of(source) && !is_unseen(source)) {
        for (uint64_t j = 0; sum2 && j < source->n; j++) ex2[j] = sum2[j] / (count > 0.0 ? count : 1.0);
        if (sum2) return true;
        for (uint64_t j = 0; sumabs && count > 0.0 && j < source->n; j++) ex2[j] = sumabs[j] / count * (sumabs[j] / count);
        if (sumabs && count > 0.0) return true;
        for (uint64_t j = 0; j < source->n && absmax_at(source, j, &most); j++) ex2[j] = most * most;
        if (source->n && absmax_at(source, 0, &most)) return true;
    }
    for (uint64_t j = 0; source->gain && j < source->n; j++) ex2[j] = (double)source->gain[j] * (double)source->gain[j];
    return source->gain != NULL;
}
