/* sweep_rows.c: the rows of a sweep: one a tensor, one a role, one in total for every variant, from the cells.
 *
 *   bpw = bits / weights     role, total: bits, weights and sums added      total bits = the whole file under --compress none
 *
 * Why this way: roles and totals come from sums, not from figures of tensors, so that they are what one measure over all weights would be.
 * Corner cases: a variant that failed on the way has no rows and says why; without --tensors a total has the size of the file, with it that of the
 * planes; the hash of a role or total is over those of its tensors, in order.
 * Reference: SWEEP.md. Worked number: two tensors of 544 and 16 bits, 128 and 1 weights: role bpw 560 / 129.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "converter/plane_hash.h"
#include "converter/sweep_run.h"

static const double unknown = (double)NAN;

/* What a row is made of. */
struct summing {
    uint64_t n_weights, n_measured, plane_nbytes;
    struct sweep_sums sums;
    bool clipped_known, hashed;
    struct digest_stream *hash;
};

static void finish_row(const struct sweep *sweep, const struct summing *summing, uint64_t bits, struct sweep_row *row)
{
    const struct sweep_sums *sums = &summing->sums;
    const struct measure weighed = { .n = sums->measure.n, .sum_xx = sums->sum_wxx, .sum_dd = sums->sum_wdd };
    row->n_weights = summing->n_weights;
    row->n_measured = summing->n_measured;
    row->plane_bits = 8 * summing->plane_nbytes;
    row->bits = bits;
    row->bpw = row->n_weights ? (double)bits / (double)row->n_weights : unknown;
    row->sum_dd = sums->measure.sum_dd;
    row->sum_xx = sums->measure.sum_xx;
    row->mse = summing->n_measured ? measure_mse(&sums->measure) : 0.0;
    row->sqnr_db = measure_sqnr_db(&sums->measure);
    row->max_error = sums->measure.max_d;
    row->sum_wdd = sweep->table->weighted ? sums->sum_wdd : unknown;
    row->sum_wxx = sweep->table->weighted ? sums->sum_wxx : unknown;
    row->wsqnr_db = sweep->table->weighted ? measure_sqnr_db(&weighed) : unknown;
    row->clipped = summing->clipped_known ? (summing->n_measured ? (double)sums->n_clipped / (double)summing->n_measured : 0.0) : unknown;
    row->perplexity = row->kl = unknown;
    if (!summing->hashed) return;
    const struct digest128 digest = digest_value(summing->hash);
    digest128_hex(&digest, row->hash);
}

/* The hash is the lane's own where it changes the tensor. */
static const struct digest128 *hash_of(const struct sweep_item *item, const struct sweep_cell *cell)
{
    return cell->quant || cell->fold ? &cell->digest : &item->source_digest;
}

static void add_cell(const struct sweep_item *item, const struct sweep_cell *cell, uint64_t n_weights, bool hashed, struct summing *summing)
{
    struct sweep_sums *sums = &summing->sums;
    summing->n_weights += n_weights;
    summing->plane_nbytes += cell->plane_nbytes;
    summing->hashed &= hashed;
    digest_add(summing->hash, hash_of(item, cell), sizeof cell->digest);
    if (!cell->quant) return;
    summing->n_measured += cell->sums.measure.n;
    measure_add(&sums->measure, &cell->sums.measure);
    sums->sum_wxx += cell->sums.sum_wxx;
    sums->sum_wdd += cell->sums.sum_wdd;
    sums->n_clipped += cell->sums.n_clipped;
    if (!((const struct sweep_quant *)(const void *)cell->quant)->ends.known) summing->clipped_known = false;
}

static bool is_hashed(const struct sweep *sweep, size_t i, const struct sweep_cell *cell)
{
    const struct sweep_item *item = &sweep->items[i];
    if (cell->quant) return sweep_whole(sweep, &sweep->streams[cell->stream]);
    return item->source_stream != UINT32_MAX || (item->carried && sweep->spec->sample >= 1.0);
}

static struct summing begin(struct digest_stream *hash)
{
    digest_reset(hash);
    return (struct summing){ .clipped_known = true, .hashed = true, .hash = hash };
}

/* The hash of a tensor is its own, not one over it. */
static void tensor_row(const struct sweep *sweep, const struct sweep_lane *lane, size_t i, struct digest_stream *hash, struct sweep_row *row)
{
    const struct sweep_item *item = &sweep->items[i];
    const struct sweep_cell *cell = &lane->cells[i];
    struct summing summing = begin(hash);
    *row = (struct sweep_row){
        .variant = (uint32_t)lane->variant, .name = item->name, .role = item->role, .layer = item->layer, .format = cell->format
    };
    add_cell(item, cell, sweep->container->tensors[i].n_weights, is_hashed(sweep, i, cell), &summing);
    finish_row(sweep, &summing, 8 * cell->plane_nbytes, row);
    if (summing.hashed) digest128_hex(hash_of(item, cell), row->hash);
}

/* A role's row, or with role NULL the total. */
static void sum_row(const struct sweep *sweep, const struct sweep_lane *lane, const char *role, struct digest_stream *hash, struct sweep_row *row)
{
    const struct sweep_variant *variant = &sweep->table->variants[lane->variant];
    struct summing summing = begin(hash);
    *row = (struct sweep_row){ .variant = (uint32_t)lane->variant,
                               .scope = role ? SWEEP_ROLE : SWEEP_TOTAL,
                               .name = role ? role : sweep_scope_names[SWEEP_TOTAL],
                               .role = role ? role : sweep_scope_names[SWEEP_TOTAL],
                               .layer = SWEEP_NO_LAYER,
                               .format = variant->format };
    for (size_t i = 0; i < sweep->n_items; i++)
        if (sweep->items[i].wanted && (!role || sweep->items[i].role == role))
            add_cell(&sweep->items[i], &lane->cells[i], sweep->container->tensors[i].n_weights, is_hashed(sweep, i, &lane->cells[i]), &summing);
    finish_row(sweep, &summing, 8 * (role || sweep->spec->tensors ? summing.plane_nbytes : lane->file_nbytes), row);
}

/* Roles in order of appearance; returns how many. */
static size_t list_roles(const struct sweep *sweep, const char **roles)
{
    size_t n = 0;
    for (size_t i = 0; i < sweep->n_items; i++) {
        size_t k = 0;
        while (k < n && roles[k] != sweep->items[i].role) k++;
        if (sweep->items[i].wanted && k == n) roles[n++] = sweep->items[i].role;
    }
    return n;
}

/* Tensors that are quantised in the source and stay so: their planes as they are. */
static enum status hash_carried(struct sweep *sweep, struct err *err)
{
    enum status status = OK;
    for (size_t i = 0; i < sweep->n_items && !status; i++) {
        struct sweep_item *item = &sweep->items[i];
        if (item->wanted && sweep->container->tensors[i].quantised && sweep->spec->sample >= 1.0)
            status = plane_hash(sweep->container, i, &item->source_digest, err);
    }
    return status;
}

static void input_digest(const struct sweep *sweep, struct digest_stream *hash)
{
    if (sweep->spec->sample < 1.0) return;
    digest_reset(hash);
    for (size_t i = 0; i < sweep->n_items; i++)
        if (sweep->items[i].wanted) digest_add(hash, &sweep->items[i].source_digest, sizeof sweep->items[i].source_digest);
    const struct digest128 digest = digest_value(hash);
    digest128_hex(&digest, sweep->table->input_digest);
}

static enum status make_lane_rows(struct sweep *sweep, const struct sweep_lane *lane, const char *const *roles, size_t n_roles,
                                  struct digest_stream *hash, struct err *err)
{
    struct sweep_table *table = sweep->table;
    struct sweep_variant *variant = &table->variants[lane->variant];
    variant->first_row = table->n_rows;
    if (lane->failed) return sweep_skip(variant, lane->failure, err);
    for (size_t i = 0; i < sweep->n_items; i++)
        if (sweep->items[i].wanted) tensor_row(sweep, lane, i, hash, &table->rows[table->n_rows++]);
    for (size_t k = 0; k < n_roles; k++) sum_row(sweep, lane, roles[k], hash, &table->rows[table->n_rows++]);
    sum_row(sweep, lane, NULL, hash, &table->rows[table->n_rows++]);
    variant->n_rows = table->n_rows - variant->first_row;
    return OK;
}

enum status sweep_rows_make(struct sweep *sweep, struct err *err)
{
    struct sweep_table *table = sweep->table;
    const char **roles = calloc(sweep->n_items + 1, sizeof *roles);
    struct digest_stream *hash = digest_open();
    const size_t n_roles = roles ? list_roles(sweep, roles) : 0;
    table->rows = calloc(sweep->n_lanes * (sweep->n_items + n_roles + 1) + 1, sizeof *table->rows);
    enum status status = roles && hash && table->rows ? hash_carried(sweep, err) : err_set(err, ERR_MEMORY, "out of memory for the rows");
    if (!status) input_digest(sweep, hash);
    for (size_t v = 0; v < sweep->n_lanes && !status; v++) status = make_lane_rows(sweep, &sweep->lanes[v], roles, n_roles, hash, err);
    digest_close(hash);
    free(roles);
    return status;
}
