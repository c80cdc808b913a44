/* sweep_observe.c: what must be known of a tensor before its first tile is coded: scales of groups over several tiles, scales of matrices.
 *
 *   read 1: ranges of groups, of matrices, weights for observers      read 2: errors of candidates, further weights      ... as long as a lane wants more
 *
 * Why this way: one reading serves every lane that wants anything, so that a sweep reads a tensor once more than a conversion's longest observation at
 * most, however many lanes there are.
 * Corner cases: lanes whose tiles are cut differently are observed under their own cut; ranges of matrices are the same for all lanes with the same
 * factors; with --sample
 * only the sampled tiles are seen, and the scales are estimates; a scale that overflows fails its lane, NaN fails the sweep.
 * Reference: pipeline.c (the same for one conversion), NUMERICS.md 5. Worked number: nvfp4 and int4 by channel over rows of 300000: 2 readings.
 */
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "converter/group_observe.h"
#include "converter/jobs.h"
#include "converter/sweep_run.h"

enum want { WANT_RANGES, WANT_ERRORS, WANT_WEIGHTS, WANT_NOTHING };

/* A lane whose groups span tiles. */
struct watch {
    size_t lane;
    enum want want;
    struct range *ranges; /* per group */
    size_t n_groups, per_row;
    struct error_total *totals; /* per_row: of the groups that lie side by side */
    struct choose_stream stream;
    uint64_t *memory;
};

/* Ranges of the matrices of a tensor, for each fold that a lane which wants them has. */
struct matrix_ranges {
    const struct fold **folds; /* [n] */
    size_t n;
    uint64_t n_matrices;
    struct range *ranges; /* [n][n_matrices] */
};

struct sweep_watching {
    size_t item;
    const struct sweep_stream *stream;
    struct watch *watches;
    size_t n;
    const struct matrix_ranges *matrices; /* NULL: not wanted in this pass */
    pthread_mutex_t lock; /* of ranges */
    uint64_t number; /* of the stream */
};

static const struct sweep_cell *cell_of(const struct sweep *sweep, const struct watch *watch)
{
    return &sweep->lanes[watch->lane].cells[sweep->watching->item];
}

static bool is_active(const struct sweep *sweep, const struct watch *watch)
{
    return watch->want != WANT_NOTHING && cell_of(sweep, watch)->stream == sweep->watching->number;
}

/* ---- one tile ---------------------------------------------------------------------------------------------------------------------- */

/* Adds the range of a part of the tile. Ranges need no order. */
static enum status add_range(struct sweep *sweep, const struct codec_tile *tile, const struct tile *at, struct range *total,
                             struct sweep_worker *worker, struct err *err)
{
    const struct codec_tile part = codec_part(tile, at);
    struct codec_fault fault;
    struct range range;
    if (!codec_observe_range(sweep->app->kernels, &part, &worker->scratch, &range, &fault)) return sweep_nonfinite(sweep, sweep->watching->item, err);
    pthread_mutex_lock(&sweep->watching->lock);
    range_add(total, range);
    pthread_mutex_unlock(&sweep->watching->lock);
    return OK;
}

static enum status add_ranges(struct sweep *sweep, const struct watch *watch, const struct codec_tile *tile, const struct tile *place,
                              struct sweep_worker *worker, struct err *err)
{
    const struct sweep_cell *cell = cell_of(sweep, watch);
    struct codec_piece piece = { 0 };
    enum status status = OK;
    while (!status && codec_next_piece(cell->quant, &sweep->items[sweep->watching->item].shape, place, &piece))
        status = add_range(sweep, tile, &piece.at, &watch->ranges[piece.group], worker, err);
    return status;
}

/* Ranges of the matrices that the tile has rows of. */
static enum status add_matrices(struct sweep *sweep, const struct codec_tile *tile, const struct tile *place, struct range *ranges,
                                struct sweep_worker *worker, struct err *err)
{
    struct codec_piece piece = { 0 };
    enum status status = OK;
    while (!status && matrix_next_piece(&sweep->items[sweep->watching->item].shape, place, &piece))
        status = add_range(sweep, tile, &piece.at, &ranges[piece.group], worker, err);
    return status;
}

/* The same under every fold. */
static enum status add_all_matrices(struct sweep *sweep, const struct tile *place, const float *x, struct sweep_worker *worker, struct err *err)
{
    const struct matrix_ranges *matrices = sweep->watching->matrices;
    enum status status = OK;
    for (size_t k = 0; matrices && k < matrices->n && !status; k++) {
        const float *migrated = sweep_migrate(matrices->folds[k], place, x, worker);
        const struct codec_tile tile = sweep_codec_tile(sweep, NULL, sweep->watching->item, place, migrated);
        status = add_matrices(sweep, &tile, place, matrices->ranges + k * matrices->n_matrices, worker, err);
    }
    return status;
}

static struct observed_tile observed_of(const struct sweep *sweep, const struct watch *watch, const struct tile *place, const struct codec_tile *tile,
                                        const struct sweep_worker *worker)
{
    const size_t item = sweep->watching->item;
    return (struct observed_tile){ cell_of(sweep, watch)->quant, sweep->app->kernels, &sweep->items[item].shape, place, tile, &worker->scratch };
}

static struct group_scale *given_of(const struct sweep *sweep, const struct watch *watch)
{
    return sweep->lanes[watch->lane].given[sweep->watching->item];
}

/* What a watch does before the tile's turn. */
static enum status look(struct sweep *sweep, size_t w, const struct tile *place, const float *x, struct sweep_worker *worker,
                        struct error_total **errors, struct err *err)
{
    struct watch *watch = &sweep->watching->watches[w];
    if (!is_active(sweep, watch)) return OK;
    x = sweep_migrate(cell_of(sweep, watch)->fold, place, x, worker);
    const struct codec_tile tile = sweep_codec_tile(sweep, cell_of(sweep, watch), sweep->watching->item, place, x);
    const struct observed_tile observed = observed_of(sweep, watch, place, &tile, worker);
    worker->n_errors[w] = 0;
    if (watch->want == WANT_ERRORS) {
        worker->n_errors[w] = group_errors(&observed, watch->ranges, given_of(sweep, watch), *errors);
        *errors += worker->n_errors[w];
        return OK;
    }
    enum status status = OK;
    if (watch->want == WANT_RANGES || watch->stream.pass == 1) status = add_ranges(sweep, watch, &tile, place, worker, err);
    if (status || watch->want == WANT_RANGES || !watch->stream.learns) return status;
    worker->learnt[w] = (struct learn_part){ 0 };
    group_weights(&observed, &watch->stream, &worker->learnt[w]);
    return OK;
}

/* In the tile's turn. */
static void settle(struct sweep *sweep, const struct tile *place, const float *x, const struct sweep_worker *worker)
{
    const struct error_total *errors = worker->errors;
    for (size_t w = 0; w < sweep->watching->n; w++) {
        struct watch *watch = &sweep->watching->watches[w];
        if (!is_active(sweep, watch)) continue;
        group_errors_add(cell_of(sweep, watch)->quant, watch->ranges, errors, worker->n_errors[w], watch->totals, watch->per_row,
                         given_of(sweep, watch));
        errors += worker->n_errors[w];
        if (watch->want != WANT_WEIGHTS) continue;
        if (watch->stream.learns) {
            choose_stream_add(&watch->stream, &worker->learnt[w]);
            continue;
        }
        const float *migrated = sweep_migrate(cell_of(sweep, watch)->fold, place, x, worker);
        const struct codec_tile tile = sweep_codec_tile(sweep, cell_of(sweep, watch), sweep->watching->item, place, migrated);
        const struct observed_tile observed = observed_of(sweep, watch, place, &tile, worker);
        group_weights(&observed, &watch->stream, NULL);
    }
}

static enum status observe_job(void *context, unsigned number, const struct job *job, struct err *err)
{
    struct sweep *sweep = context;
    struct sweep_watching *watching = sweep->watching;
    struct sweep_worker *worker = &sweep->workers[number];
    const uint64_t index = sweep_tile(sweep, watching->stream, job->first_tile);
    const struct tile place = plane_tile(&watching->stream->geometry, index);
    struct error_total *errors = worker->errors;
    const float *x;
    enum status status = sweep_read(sweep, watching->stream, index, worker, &x, err);
    if (status) return status;
    status = add_all_matrices(sweep, &place, x, worker, err);
    for (size_t w = 0; w < watching->n && !status; w++) status = look(sweep, w, &place, x, worker, &errors, err);
    if (status) return status;
    if (!turn_wait(&sweep->turn, job->ticket)) return err_set(err, ERR_CANCELLED, "stopped");
    settle(sweep, &place, x, worker);
    turn_done(&sweep->turn, job->ticket);
    return OK;
}

static uint64_t observe_tiles(void *context, size_t number)
{
    const struct sweep *sweep = context;
    return number == sweep->watching->number ? sweep->streams[number].n_tiles : 0;
}

static void observe_failed(void *context)
{
    turn_abort(&((struct sweep *)context)->turn);
}

static enum status read_once(struct sweep *sweep, struct err *err)
{
    turn_init(&sweep->turn);
    struct job_list list = { sweep->n_streams, observe_tiles, 1, sweep->n_workers, sweep->app->stop, observe_job, observe_failed, sweep, NULL };
    enum status status = jobs_run(&list, err);
    turn_destroy(&sweep->turn);
    return status;
}

/* ---- one tensor -------------------------------------------------------------------------------------------------------------------- */

static void fail_lane(struct sweep *sweep, struct watch *watch)
{
    struct sweep_lane *lane = &sweep->lanes[watch->lane];
    watch->want = WANT_NOTHING;
    if (!lane->failed)
        snprintf(lane->failure, sizeof lane->failure, "weights of tensor '%.100s' are too large for scales of type %s",
                 sweep->items[sweep->watching->item].name, scale_type_name(cell_of(sweep, watch)->quant->scale));
    lane->failed = true;
}

/* Candidate 0 of each group, which must exist. */
static void first_candidates(struct sweep *sweep, struct watch *watch)
{
    const struct quant *quant = cell_of(sweep, watch)->quant;
    struct group_scale *given = given_of(sweep, watch);
    for (size_t g = 0; g < watch->n_groups; g++)
        if (!quant->format->family->candidate(quant, watch->ranges[g], 0, &given[g])) {
            fail_lane(sweep, watch);
            return;
        }
}

/* What a watch wants after a reading. */
static void advance(struct sweep *sweep, struct watch *watch)
{
    const struct quant *quant = cell_of(sweep, watch)->quant;
    struct group_scale *given = given_of(sweep, watch);
    if (watch->want == WANT_WEIGHTS) {
        if (choose_stream_next(&watch->stream)) return;
        watch->want = WANT_NOTHING;
        if (!choose_stream_finish(&watch->stream, watch->ranges[0], given)) first_candidates(sweep, watch);
    } else if (watch->want == WANT_RANGES) {
        watch->want = quant->format->family->candidates(quant) > 1 ? WANT_ERRORS : WANT_NOTHING;
        first_candidates(sweep, watch);
    } else {
        watch->want = WANT_NOTHING;
    }
}

static enum status begin_watch(struct sweep *sweep, size_t lane, struct watch *watch, struct err *err)
{
    const size_t item = sweep->watching->item;
    const struct quant *quant = sweep->lanes[lane].cells[item].quant;
    const struct shape *shape = &sweep->items[item].shape;
    *watch = (struct watch){ .lane = lane, .want = choose_reads(quant->rule) ? WANT_WEIGHTS : WANT_RANGES };
    watch->per_row = (size_t)quant_groups_per_row(quant, shape->cols);
    watch->n_groups = watch->per_row * (size_t)quant_scale_rows(quant, shape->rows, shape_matrix_rows(shape));
    watch->ranges = calloc(watch->n_groups + 1, sizeof *watch->ranges);
    watch->totals = malloc((watch->per_row + 1) * sizeof *watch->totals);
    watch->memory = malloc(CHOOSE_NBYTES);
    free(sweep->lanes[lane].given[item]);
    sweep->lanes[lane].given[item] = calloc(watch->n_groups + 1, sizeof **sweep->lanes[lane].given);
    if (!watch->ranges || !watch->totals || !watch->memory || !sweep->lanes[lane].given[item])
        return err_set(err, ERR_MEMORY, "out of memory for the scales of '%s'", sweep->items[item].name);
    for (size_t k = 0; k < watch->per_row; k++) watch->totals[k].group = UINT64_MAX;
    if (watch->want != WANT_WEIGHTS) return OK;
    choose_stream_begin(&watch->stream, quant, sweep->app->kernels, watch->memory);
    if (!choose_stream_next(&watch->stream)) watch->want = WANT_NOTHING;
    return OK;
}

static void end_watch(struct watch *watch)
{
    free(watch->ranges);
    free(watch->totals);
    free(watch->memory);
}

static enum status give_workers(struct sweep *sweep, const struct watch *watches, size_t n, struct err *err)
{
    size_t n_open = 1;
    for (size_t k = 0; k < n; k++) {
        const struct sweep_cell *cell = cell_of(sweep, &watches[k]);
        n_open += group_open_count(cell->quant, &sweep->streams[cell->stream].geometry);
    }
    for (unsigned w = 0; w < sweep->n_workers; w++) {
        struct sweep_worker *worker = &sweep->workers[w];
        worker->errors = malloc(n_open * sizeof *worker->errors);
        worker->learnt = malloc((n + 1) * sizeof *worker->learnt);
        worker->n_errors = malloc((n + 1) * sizeof *worker->n_errors);
        if (!worker->errors || !worker->learnt || !worker->n_errors) return err_set(err, ERR_MEMORY, "out of memory for what is observed");
    }
    return OK;
}

static void take_workers(struct sweep *sweep)
{
    for (unsigned w = 0; w < sweep->n_workers; w++) {
        struct sweep_worker *worker = &sweep->workers[w];
        free(worker->errors);
        free(worker->learnt);
        free(worker->n_errors);
        worker->errors = NULL;
        worker->learnt = NULL;
        worker->n_errors = NULL;
    }
}

static bool is_lane_wanted(const struct sweep *sweep, size_t lane)
{
    return (sweep->only == SIZE_MAX || sweep->only == lane) && !sweep->lanes[lane].failed;
}

static bool watched(const struct sweep *sweep, size_t lane, size_t item)
{
    const struct sweep_cell *cell = &sweep->lanes[lane].cells[item];
    return sweep->items[item].wanted && cell->quant && cell->spans && is_lane_wanted(sweep, lane);
}

static bool has_matrices(const struct sweep *sweep, size_t lane, size_t item)
{
    const struct sweep_cell *cell = &sweep->lanes[lane].cells[item];
    return cell->quant && cell->quant->tensor_scale && is_lane_wanted(sweep, lane);
}

/* All readings of one stream of the tensor. */
static enum status watch_stream(struct sweep *sweep, uint32_t number, const struct matrix_ranges *matrices, struct err *err)
{
    struct sweep_watching *watching = sweep->watching;
    enum status status = OK;
    watching->number = number;
    watching->stream = &sweep->streams[number];
    watching->matrices = matrices;
    for (bool more = true; more && !status;) {
        more = watching->matrices != NULL;
        for (size_t w = 0; w < watching->n; w++) more |= is_active(sweep, &watching->watches[w]);
        if (!more) break;
        status = read_once(sweep, err);
        for (size_t w = 0; w < watching->n && !status; w++)
            if (is_active(sweep, &watching->watches[w])) advance(sweep, &watching->watches[w]);
        watching->matrices = NULL;
    }
    return status;
}

/* The stream in which the ranges of matrices are taken. */
static uint32_t matrix_stream(const struct sweep *sweep, size_t item)
{
    for (size_t v = 0; v < sweep->n_lanes; v++)
        if (has_matrices(sweep, v, item)) return sweep->lanes[v].cells[item].stream;
    return UINT32_MAX;
}

/* Ranges under this fold; NULL: no lane wants them. */
static struct range *ranges_of(const struct matrix_ranges *matrices, const struct fold *fold)
{
    for (size_t k = 0; k < matrices->n; k++)
        if (matrices->folds[k] == fold) return matrices->ranges + k * matrices->n_matrices;
    return NULL;
}

static enum status open_matrices(const struct sweep *sweep, size_t item, struct matrix_ranges *matrices, struct err *err)
{
    matrices->n_matrices = sweep->items[item].shape.n_matrices;
    matrices->folds = calloc(sweep->n_lanes + 1, sizeof *matrices->folds);
    if (!matrices->folds) return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t v = 0; v < sweep->n_lanes; v++) {
        const struct fold *fold = sweep->lanes[v].cells[item].fold;
        size_t k = 0;
        while (k < matrices->n && matrices->folds[k] != fold) k++;
        if (k == matrices->n && has_matrices(sweep, v, item)) matrices->folds[matrices->n++] = fold;
    }
    matrices->ranges = calloc(matrices->n * (size_t)matrices->n_matrices + 1, sizeof *matrices->ranges);
    return matrices->ranges ? OK : err_set(err, ERR_MEMORY, "out of memory");
}

static enum status observe_item(struct sweep *sweep, size_t item, struct matrix_ranges *matrices, struct err *err)
{
    const struct sweep_item *it = &sweep->items[item];
    const uint32_t taken = matrix_stream(sweep, item);
    struct sweep_watching watching = { .item = item };
    enum status status = OK;
    sweep->watching = &watching;
    pthread_mutex_init(&watching.lock, NULL);
    watching.watches = calloc(sweep->n_lanes + 1, sizeof *watching.watches);
    if (!watching.watches) status = err_set(err, ERR_MEMORY, "out of memory");
    if (!status && taken != UINT32_MAX) status = open_matrices(sweep, item, matrices, err);
    for (size_t v = 0; v < sweep->n_lanes && !status; v++)
        if (watched(sweep, v, item)) status = begin_watch(sweep, v, &watching.watches[watching.n++], err);
    if (!status) status = give_workers(sweep, watching.watches, watching.n, err);
    for (uint32_t s = it->first_stream; s < it->first_stream + it->n_streams && !status; s++)
        status = watch_stream(sweep, s, s == taken ? matrices : NULL, err);
    for (size_t w = 0; w < watching.n; w++) end_watch(&watching.watches[w]);
    free(watching.watches);
    take_workers(sweep);
    pthread_mutex_destroy(&watching.lock);
    sweep->watching = NULL;
    return status;
}

/* ---- one unit ---------------------------------------------------------------------------------------------------------------------- */

/* Where an item of the unit stands in it. */
static size_t place_in(const size_t *items, size_t n, size_t item)
{
    size_t k = 0;
    while (k < n && items[k] != item) k++;
    return k;
}

/* Scales of the matrices of a ring, from the ranges of all its tensors. */
static enum status scale_ring(struct sweep *sweep, size_t v, size_t item, const size_t *items, size_t n, const struct matrix_ranges *matrices,
                              struct err *err)
{
    struct sweep_lane *lane = &sweep->lanes[v];
    const size_t n_matrices = (size_t)sweep->items[item].shape.n_matrices;
    size_t k = item;
    if (lane->tensor_scales[item]) return OK; /* one that shares them was here before */
    do {
        lane->tensor_scales[k] = calloc(n_matrices + 1, sizeof **lane->tensor_scales);
        if (!lane->tensor_scales[k]) return err_set(err, ERR_MEMORY, "out of memory");
        k = lane->cells[k].fused_next;
    } while (k != item);
    for (size_t m = 0; m < n_matrices; m++) {
        struct range range = { 0, 0 };
        do {
            const size_t at = place_in(items, n, k);
            const struct range *ranges = at < n ? ranges_of(&matrices[at], lane->cells[k].fold) : NULL;
            if (ranges) range_add(&range, ranges[m]);
            k = lane->cells[k].fused_next;
        } while (k != item);
        do {
            lane->tensor_scales[k][m] = lane->cells[k].quant->format->family->tensor_scale(range);
            k = lane->cells[k].fused_next;
        } while (k != item);
    }
    return OK;
}

enum status sweep_observe(struct sweep *sweep, const size_t *items, size_t n, struct err *err)
{
    struct matrix_ranges *matrices = calloc(n + 1, sizeof *matrices);
    enum status status = matrices ? OK : err_set(err, ERR_MEMORY, "out of memory");
    for (size_t k = 0; k < n && !status; k++)
        if (sweep_observe_reads(sweep, items[k], UINT32_MAX)) status = observe_item(sweep, items[k], &matrices[k], err);
    for (size_t v = 0; v < sweep->n_lanes && !status; v++)
        for (size_t k = 0; k < n && !status; k++)
            if (has_matrices(sweep, v, items[k])) status = scale_ring(sweep, v, items[k], items, n, matrices, err);
    for (size_t k = 0; matrices && k < n; k++) {
        free(matrices[k].folds);
        free(matrices[k].ranges);
    }
    free(matrices);
    return status;
}

uint64_t sweep_observe_reads(const struct sweep *sweep, size_t item, uint32_t stream)
{
    uint64_t reads = 0;
    for (size_t v = 0; v < sweep->n_lanes; v++) {
        const struct quant *quant = sweep->lanes[v].cells[item].quant;
        if (stream != UINT32_MAX && sweep->lanes[v].cells[item].stream != stream) continue;
        if (has_matrices(sweep, v, item)) reads = size_max(reads, 1);
        if (!watched(sweep, v, item)) continue;
        reads = size_max(reads, choose_reads(quant->rule) ? choose_passes(quant->rule) : quant->format->family->candidates(quant) > 1 ? 2 : 1);
    }
    return reads;
}

/* Ranges, scales, sums and slots of the lanes that are watched, and what the workers hold of them. */
uint64_t sweep_held_nbytes(const struct sweep *sweep, size_t item)
{
    const struct shape *shape = &sweep->items[item].shape;
    uint64_t total = 0;
    for (size_t v = 0; v < sweep->n_lanes; v++) {
        const struct sweep_cell *cell = &sweep->lanes[v].cells[item];
        const struct quant *quant = cell->quant;
        if (has_matrices(sweep, v, item)) total += shape->n_matrices * (sizeof(float) + sizeof(struct range));
        if (!watched(sweep, v, item)) continue;
        const uint64_t per_row = quant_groups_per_row(quant, shape->cols), rows = quant_scale_rows(quant, shape->rows, shape_matrix_rows(shape));
        total += per_row * rows * (sizeof(struct range) + sizeof(struct group_scale)) + per_row * sizeof(struct error_total) + CHOOSE_NBYTES +
                 sweep->n_workers *
                     (group_open_count(quant, &sweep->streams[cell->stream].geometry) * sizeof(struct error_total) + sizeof(struct learn_part));
    }
    return total;
}

void sweep_release(struct sweep *sweep, size_t item)
{
    for (size_t v = 0; v < sweep->n_lanes; v++) {
        free(sweep->lanes[v].given[item]);
        free(sweep->lanes[v].tensor_scales[item]);
        sweep->lanes[v].given[item] = NULL;
        sweep->lanes[v].tensor_scales[item] = NULL;
    }
}
