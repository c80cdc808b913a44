/* sweep_histogram.c: how often each code and each size of scale stands in the planes of one tensor, variant by variant.
 *
 *   codes by value: -8 -7 .. 7        scales: bins of a quarter of a power of two
 *
 * Why this way: one tensor is read once more at the end, so that the one with most of the error can be chosen when it is known; counts are integers,
 * so the order in which threads bring them does not matter.
 * Corner cases: types of blocks have no codes of their own and are left out; elements of more than 8 bits have 256 bins; a scale of 0 has no logarithm
 * and is counted apart; a weight that a sample left out is not counted.
 * Reference: sweep_table.h. Worked number: scale 0.3: log2 is -1.74, bin [2^-1.75, 2^-1.5).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "converter/sweep_run.h"

enum { BINS_PER_OCTAVE = 4, LOWEST = -160, HIGHEST = 130, N_BINS = (HIGHEST - LOWEST) * BINS_PER_OCTAVE, CODE_BINS = 256 };

struct sweep_counts {
    pthread_mutex_t lock;
    uint64_t *codes; /* 1 << bits; NULL: not counted */
    uint64_t scales[N_BINS], n_scales, n_zero;
};

static size_t bin_of(float scale)
{
    const double at = (log2((double)scale) - LOWEST) * BINS_PER_OCTAVE;
    return at < 0.0 ? 0 : at >= N_BINS ? N_BINS - 1 : (size_t)at;
}

void sweep_count(struct sweep *sweep, size_t lane, const uint16_t *codes, size_t n, const struct group_scale *scales, size_t n_scales)
{
    struct sweep_counts *counts = &sweep->counts[lane];
    if (!counts->codes) return;
    pthread_mutex_lock(&counts->lock);
    for (size_t i = 0; i < n; i++) counts->codes[codes[i]]++;
    for (size_t i = 0; i < n_scales; i++) {
        const float scale = fabsf(scales[i].value);
        counts->n_scales++;
        if (scale > 0.0f) counts->scales[bin_of(scale)]++;
        else counts->n_zero++;
    }
    pthread_mutex_unlock(&counts->lock);
}

/* ---- which tensor -------------------------------------------------------------------------------------------------------------------- */

/* Its share of the squared error, all variants together. */
static double share_of(const struct sweep *sweep, size_t i)
{
    double share = 0.0;
    for (size_t v = 0; v < sweep->n_lanes; v++) {
        const struct sweep_variant *variant = &sweep->table->variants[sweep->lanes[v].variant];
        if (!variant->n_rows) continue;
        const double total = sweep->table->rows[variant->first_row + variant->n_rows - 1].sum_dd;
        if (sweep->lanes[v].cells[i].quant && total > 0.0) share += sweep->lanes[v].cells[i].sums.measure.sum_dd / total;
    }
    return share;
}

static bool is_coded(const struct sweep *sweep, size_t i)
{
    for (size_t v = 0; v < sweep->n_lanes; v++)
        if (sweep->lanes[v].cells[i].quant && sweep->items[i].wanted) return true;
    return false;
}

static enum status choose_tensor(const struct sweep *sweep, size_t *chosen, struct err *err)
{
    const char *name = sweep->spec->histogram_tensor;
    double most = -1.0;
    *chosen = SIZE_MAX;
    for (size_t i = 0; i < sweep->n_items; i++) {
        if (!is_coded(sweep, i) || (name && strcmp(name, sweep->items[i].name) != 0)) continue;
        const double share = share_of(sweep, i);
        if (share > most) {
            most = share;
            *chosen = i;
        }
    }
    return *chosen != SIZE_MAX || !name ? OK : err_set(err, ERR_USAGE, "--histogram '%s': no tensor of this name is quantised", name);
}

/* ---- counts to histograms ------------------------------------------------------------------------------------------------------------ */

struct valued {
    double value;
    uint64_t count;
};

static int by_value(const void *a, const void *b)
{
    const struct valued *x = a, *y = b;
    return x->value < y->value ? -1 : x->value > y->value;
}

/* Codes by their value; what is no number (NaN codes) is never written and left out. */
static enum status fill_codes(const struct elem *elem, const struct sweep_counts *counts, struct sweep_histogram *out, struct err *err)
{
    const size_t n_codes = (size_t)1 << elem->bits;
    struct valued *valued = malloc(n_codes * sizeof *valued);
    size_t n = 0;
    if (!valued) return err_set(err, ERR_MEMORY, "out of memory");
    for (uint32_t code = 0; code < n_codes; code++) {
        const double value = (double)elem_decode(elem, code);
        if (isfinite(value)) valued[n++] = (struct valued){ value, counts->codes[code] };
    }
    qsort(valued, n, sizeof *valued, by_value);
    out->n_codes = n < CODE_BINS ? n : CODE_BINS;
    out->codes = calloc(out->n_codes + 1, sizeof *out->codes);
    out->code_values = calloc(out->n_codes + 1, sizeof *out->code_values);
    for (size_t i = n; out->codes && out->code_values && i-- > 0;) {
        out->codes[i * out->n_codes / n] += valued[i].count;
        out->code_values[i * out->n_codes / n] = valued[i].value;
    }
    free(valued);
    return out->codes && out->code_values ? OK : err_set(err, ERR_MEMORY, "out of memory");
}

static enum status fill_scales(const struct sweep_counts *counts, struct sweep_histogram *out, struct err *err)
{
    size_t first = 0, end = N_BINS;
    while (first < end && !counts->scales[first]) first++;
    while (end > first && !counts->scales[end - 1]) end--;
    out->n_scales = counts->n_scales;
    out->n_zero_scales = counts->n_zero;
    out->scale_log2_step = 1.0 / BINS_PER_OCTAVE;
    out->scale_log2_low = LOWEST + (double)first / BINS_PER_OCTAVE;
    out->n_scale_bins = end - first;
    out->scales = calloc(out->n_scale_bins + 1, sizeof *out->scales);
    if (!out->scales) return err_set(err, ERR_MEMORY, "out of memory");
    memcpy(out->scales, counts->scales + first, out->n_scale_bins * sizeof *out->scales);
    return OK;
}

static enum status fill(struct sweep *sweep, size_t item, struct err *err)
{
    struct sweep_table *table = sweep->table;
    enum status status = OK;
    table->histograms = calloc(sweep->n_lanes + 1, sizeof *table->histograms);
    if (!table->histograms) return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t v = 0; v < sweep->n_lanes && !status; v++) {
        const struct sweep_counts *counts = &sweep->counts[v];
        if (!counts->codes || sweep->lanes[v].failed) continue;
        struct sweep_histogram *out = &table->histograms[table->n_histograms++];
        out->variant = (uint32_t)sweep->lanes[v].variant;
        status = fill_codes(sweep->lanes[v].cells[item].quant->elem, counts, out, err);
        if (!status) status = fill_scales(counts, out, err);
    }
    return status;
}

/* ---- the reading --------------------------------------------------------------------------------------------------------------------- */

static enum status open_counts(struct sweep *sweep, size_t item, struct err *err)
{
    sweep->counts = calloc(sweep->n_lanes + 1, sizeof *sweep->counts);
    if (!sweep->counts) return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t v = 0; v < sweep->n_lanes; v++) pthread_mutex_init(&sweep->counts[v].lock, NULL);
    for (size_t v = 0; v < sweep->n_lanes; v++) {
        const struct quant *quant = sweep->lanes[v].cells[item].quant;
        if (!quant || !quant->elem || quant->blocks || sweep->lanes[v].failed) continue;
        sweep->counts[v].codes = calloc((size_t)1 << quant->elem->bits, sizeof *sweep->counts[v].codes);
        if (!sweep->counts[v].codes) return err_set(err, ERR_MEMORY, "out of memory");
    }
    return OK;
}

static void close_counts(struct sweep *sweep)
{
    for (size_t v = 0; sweep->counts && v < sweep->n_lanes; v++) {
        free(sweep->counts[v].codes);
        pthread_mutex_destroy(&sweep->counts[v].lock);
    }
    free(sweep->counts);
    sweep->counts = NULL;
}

enum status sweep_histograms_make(struct sweep *sweep, struct err *err)
{
    size_t item;
    enum status status = choose_tensor(sweep, &item, err);
    if (status || item == SIZE_MAX) return status;
    status = open_counts(sweep, item, err);
    if (!status) status = sweep_read_again(sweep, item, err);
    if (!status) status = fill(sweep, item, err);
    if (!status) {
        sweep->table->histogram_tensor = strdup(sweep->items[item].name);
        if (!sweep->table->histogram_tensor) status = err_set(err, ERR_MEMORY, "out of memory");
    }
    close_counts(sweep);
    return status;
}
