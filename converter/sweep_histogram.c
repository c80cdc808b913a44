/* sweep_histogram.c: how often each code and each size of scale stands in the planes of one tensor, variant by variant.
 *
 *   tensor with most of the error -> read once more -> counts of each lane -> histograms
 *
 * Why this way: one tensor is read once more at the end, so that the one with most of the error can be chosen when it is known.
 * Corner cases: types of blocks have no codes of their own and are left out; a weight that a sample left out is not counted.
 * Reference: code_counts.h, sweep_table.h.
 */
#include <stdlib.h>
#include <string.h>

#include "converter/code_counts.h"
#include "converter/sweep_run.h"

struct sweep_counts {
    pthread_mutex_t lock;
    struct code_counts counts; /* not open: not counted */
};

void sweep_count(struct sweep *sweep, size_t lane, const uint16_t *codes, size_t n, const struct group_scale *scales, size_t n_scales)
{
    struct sweep_counts *counts = &sweep->counts[lane];
    if (!counts->counts.codes) return;
    pthread_mutex_lock(&counts->lock);
    code_counts_add(&counts->counts, codes, n);
    code_counts_add_scales(&counts->counts, scales, n_scales);
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

enum status sweep_histogram_tensor(const struct sweep *sweep, size_t *chosen, struct err *err)
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

static enum status fill(struct sweep *sweep, struct err *err)
{
    struct sweep_table *table = sweep->table;
    enum status status = OK;
    table->histograms = calloc(sweep->n_lanes + 1, sizeof *table->histograms);
    if (!table->histograms) return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t v = 0; v < sweep->n_lanes && !status; v++) {
        const struct sweep_counts *counts = &sweep->counts[v];
        if (!counts->counts.codes || sweep->lanes[v].failed) continue;
        struct sweep_histogram *out = &table->histograms[table->n_histograms++];
        out->variant = (uint32_t)sweep->lanes[v].variant;
        status = code_counts_fill(&counts->counts, out, err);
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
        if (!code_counts_apply(quant) || sweep->lanes[v].failed) continue;
        const enum status status = code_counts_open(quant->elem, &sweep->counts[v].counts, err);
        if (status) return status;
    }
    return OK;
}

static void close_counts(struct sweep *sweep)
{
    for (size_t v = 0; sweep->counts && v < sweep->n_lanes; v++) {
        code_counts_close(&sweep->counts[v].counts);
        pthread_mutex_destroy(&sweep->counts[v].lock);
    }
    free(sweep->counts);
    sweep->counts = NULL;
}

enum status sweep_histograms_make(struct sweep *sweep, struct err *err)
{
    size_t item;
    enum status status = sweep_histogram_tensor(sweep, &item, err);
    if (status || item == SIZE_MAX) return status;
    status = open_counts(sweep, item, err);
    if (!status) status = sweep_read_again(sweep, item, err);
    if (!status) status = fill(sweep, err);
    if (!status) {
        sweep->table->histogram_tensor = strdup(sweep->items[item].name);
        if (!sweep->table->histogram_tensor) status = err_set(err, ERR_MEMORY, "out of memory");
    }
    close_counts(sweep);
    return status;
}
