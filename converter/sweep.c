/* sweep.c: see sweep.h.
 *
 * Drawing: variants -> cells -> units (tensors that share scales) -> batches: observe some units, code all their tensors -> rows -> histograms
 * Formula of memory: program + scales that are held + factors of migration + workers * (a tile as read, as f32, migrated, as planes of one lane +
 * scratch + a part for each lane)
 * Why this way: as the pipeline of convert, with lanes where it has a writer.
 * Corner cases: a batch ends when the scales it holds would be many, so memory does not depend on the model; tensors that need no observation are all
 * in one batch; a budget too small for the threads asked lowers the threads.
 * Reference: sweep.h. Worked number: 32M, 2 threads, BF16, 20 variants: 11 MB.
 */
#include "converter/sweep.h"

#include <math.h>

#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "converter/sweep_run.h"
#include "converter/table_head.h"

enum {
    PROGRAM_NBYTES = 9 << 19, /* as of plan.c */
    THREAD_NBYTES = 1 << 16,
    PIECE_NBYTES = 1 << 13, /* weights that are reviewed at a time */
    SLACK = 64
};

/* ---- memory --------------------------------------------------------------------------------------------------------------------------- */

uint64_t sweep_worker_nbytes(const struct sweep *sweep)
{
    return sweep->source_tile_nbytes + 4 * sweep->tile_weights + sweep_migrated_nbytes(sweep) + sweep->planes_tile_nbytes +
           10 * (uint64_t)sweep->scratch_weights + sweep->n_lanes * sizeof(struct sweep_part) + PIECE_NBYTES + THREAD_NBYTES;
}

enum status sweep_worker_make(const struct sweep *sweep, struct sweep_worker *worker, struct err *err)
{
    const size_t n = sweep->scratch_weights + 1;
    worker->source = malloc((size_t)sweep->source_tile_nbytes + SLACK);
    worker->x = malloc(4 * (size_t)sweep->tile_weights + SLACK);
    worker->y = malloc(PIECE_NBYTES);
    worker->migrated = malloc((size_t)sweep_migrated_nbytes(sweep) + SLACK);
    worker->planes = malloc((size_t)sweep->planes_tile_nbytes + SLACK);
    worker->scratch =
        (struct codec_scratch){ malloc(n * sizeof(float)), malloc(n * sizeof(float)), malloc(n * sizeof(uint16_t)), sweep->scratch_weights };
    worker->parts = calloc(sweep->n_lanes + 1, sizeof *worker->parts);
    worker->stream = digest_open();
    const bool fine = worker->source && worker->x && worker->y && worker->migrated && worker->planes && worker->scratch.x && worker->scratch.y &&
                      worker->scratch.codes && worker->parts && worker->stream;
    return fine ? OK : err_set(err, ERR_MEMORY, "out of memory for the buffers of a thread");
}

void sweep_worker_free(struct sweep_worker *worker)
{
    free(worker->source);
    free(worker->x);
    free(worker->y);
    free(worker->migrated);
    free(worker->planes);
    free(worker->scratch.x);
    free(worker->scratch.y);
    free(worker->scratch.codes);
    free(worker->parts);
    digest_close(worker->stream);
}

/* ---- units ---------------------------------------------------------------------------------------------------------------------------- */

/* The tensors that share scales with item in any lane, itself first; returns how many. items has room for all. */
static size_t collect_unit(const struct sweep *sweep, size_t item, bool *seen, size_t *items)
{
    size_t n = 0;
    items[n++] = item;
    seen[item] = true;
    for (size_t at = 0; at < n; at++)
        for (size_t v = 0; v < sweep->n_lanes; v++) {
            const struct sweep_cell *cells = sweep->lanes[v].cells;
            for (size_t k = cells[items[at]].fused_next; k != items[at]; k = cells[k].fused_next)
                if (!seen[k]) {
                    seen[k] = true;
                    items[n++] = k;
                }
        }
    return n;
}

static bool is_open(const struct sweep *sweep, const size_t *items, size_t n)
{
    for (size_t k = 0; k < n; k++)
        if (sweep->items[items[k]].wanted && !sweep->items[items[k]].done && sweep->items[items[k]].n_streams) return true;
    return false;
}

static void add_to_batch(struct sweep *sweep, const size_t *items, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        const struct sweep_item *item = &sweep->items[items[k]];
        for (uint32_t s = item->first_stream; s < item->first_stream + item->n_streams; s++) sweep->batch[s] = item->wanted && !item->done;
    }
}

/* Codes the batch, and forgets the scales that were held for it. */
static enum status finish_batch(struct sweep *sweep, uint64_t *held, struct err *err)
{
    enum status status = sweep_encode(sweep, err);
    for (size_t i = 0; i < sweep->n_items; i++) sweep_release(sweep, i);
    memset(sweep->batch, 0, sweep->n_streams * sizeof *sweep->batch);
    *held = 0;
    return status;
}

static enum status run_units(struct sweep *sweep, bool *seen, size_t *items, struct err *err)
{
    uint64_t held = 0;
    enum status status = OK;
    for (size_t i = 0; i < sweep->n_items && !status; i++) {
        if (seen[i] || !(sweep->items[i].wanted || sweep->items[i].observed)) continue;
        const size_t n = collect_unit(sweep, i, seen, items);
        uint64_t more = 0;
        if (!is_open(sweep, items, n)) continue;
        for (size_t k = 0; k < n; k++) more += sweep_held_nbytes(sweep, items[k]);
        if (held && held + more > PLAN_HELD_NBYTES) status = finish_batch(sweep, &held, err);
        if (!status && more) status = sweep_observe(sweep, items, n, err);
        held += more;
        add_to_batch(sweep, items, n);
    }
    return status ? status : finish_batch(sweep, &held, err);
}

static enum status with_units(struct sweep *sweep, enum status (*work)(struct sweep *, bool *, size_t *, struct err *), struct err *err)
{
    bool *seen = calloc(sweep->n_items + 1, sizeof *seen);
    size_t *items = calloc(sweep->n_items + 1, sizeof *items);
    enum status status = seen && items ? work(sweep, seen, items, err) : err_set(err, ERR_MEMORY, "out of memory");
    free(seen);
    free(items);
    return status;
}

static enum status run_counted(struct sweep *sweep, bool *seen, size_t *items, struct err *err)
{
    const struct sweep_item *item = &sweep->items[sweep->counted];
    uint64_t held;
    enum status status = sweep_observe(sweep, items, collect_unit(sweep, sweep->counted, seen, items), err);
    for (uint32_t s = item->first_stream; s < item->first_stream + item->n_streams; s++) sweep->batch[s] = sweep->streams[s].coded;
    return status ? status : finish_batch(sweep, &held, err);
}

static enum status observe_units(struct sweep *sweep, bool *seen, size_t *items, struct err *err)
{
    enum status status = OK;
    for (size_t i = 0; i < sweep->n_items && !status; i++)
        if (!seen[i] && (sweep->items[i].wanted || sweep->items[i].observed))
            status = sweep_observe(sweep, items, collect_unit(sweep, i, seen, items), err);
    return status;
}

enum status sweep_observe_all(struct sweep *sweep, struct err *err)
{
    return with_units(sweep, observe_units, err);
}

enum status sweep_read_again(struct sweep *sweep, size_t item, struct err *err)
{
    sweep->counted = item;
    return with_units(sweep, run_counted, err);
}

/* ---- the workers -------------------------------------------------------------------------------------------------------------------------- */

/* The most that one unit holds. */
static enum status most_held(struct sweep *sweep, bool *seen, size_t *items, struct err *err)
{
    (void)err;
    sweep->unit_nbytes = 0;
    for (size_t i = 0; i < sweep->n_items; i++) {
        uint64_t held = 0;
        if (seen[i] || !(sweep->items[i].wanted || sweep->items[i].observed)) continue;
        const size_t n = collect_unit(sweep, i, seen, items);
        for (size_t k = 0; k < n; k++) held += sweep_held_nbytes(sweep, items[k]);
        sweep->unit_nbytes = size_max(sweep->unit_nbytes, held);
    }
    return OK;
}

static enum status fit_memory(struct sweep *sweep, struct err *err)
{
    const uint64_t asked = settings_number(&sweep->app->settings, SET_THREADS);
    const uint64_t factors = sweep_migrations_nbytes(sweep);
    uint64_t need = 0;
    for (sweep->n_workers = asked ? (unsigned)asked : pool_cpu_count(); sweep->n_workers; sweep->n_workers--) {
        enum status status = with_units(sweep, most_held, err);
        need = PROGRAM_NBYTES + PLAN_HELD_NBYTES + factors + sweep->unit_nbytes + sweep->n_workers * sweep_worker_nbytes(sweep);
        if (status || need <= sweep->max_ram) return status;
    }
    return err_set(err, ERR_MEMORY, "--max-ram %lluM is too small: one thread needs %lluM for this sweep", (unsigned long long)(sweep->max_ram >> 20),
                   (unsigned long long)((need + (1 << 20) - 1) >> 20));
}

static enum status make_workers(struct sweep *sweep, struct err *err)
{
    enum status status = fit_memory(sweep, err);
    if (status) return status;
    sweep->workers = calloc(sweep->n_workers, sizeof *sweep->workers);
    sweep->batch = calloc(sweep->n_streams + 1, sizeof *sweep->batch);
    sweep->source_stream = digest_open();
    if (!sweep->workers || !sweep->batch || !sweep->source_stream) return err_set(err, ERR_MEMORY, "out of memory");
    for (unsigned w = 0; w < sweep->n_workers && !status; w++) status = sweep_worker_make(sweep, &sweep->workers[w], err);
    return status;
}

/* ---- what the table says of the run ----------------------------------------------------------------------------------------------------- */

static enum status describe(const struct app *app, const struct sweep_spec *spec, struct sweep_table *table, struct err *err)
{
    const enum status status = table_head(&app->settings, "sweep", table, err);
    table->sample = spec->sample;
    return status;
}

static uint64_t planned_nbytes(const struct sweep *sweep)
{
    uint64_t total = 0;
    for (size_t s = 0; s < sweep->n_streams; s++) {
        const struct sweep_stream *stream = &sweep->streams[s];
        const struct sweep_item *item = &sweep->items[stream->item];
        const uint64_t reads = (item->wanted && !item->done) + sweep_observe_reads(sweep, stream->item, (uint32_t)s);
        for (uint64_t k = 0; k < stream->n_tiles; k++) total += reads * plane_tile_nbytes(&stream->geometry, sweep_tile(sweep, stream, k));
    }
    return total;
}

/* ---- running ---------------------------------------------------------------------------------------------------------------------------- */

static enum status run(struct sweep *sweep, struct err *err)
{
    size_t unused;
    enum status status = sweep_plan(sweep, err);
    if (!status) status = sweep_histogram_tensor(sweep, &unused, err);
    if (!status) status = make_workers(sweep, err);
    if (!status) status = sweep_eval_open(sweep, err);
    if (!status) status = sweep_state_open(sweep, err);
    if (status) return status;
    const uint64_t planned = planned_nbytes(sweep);
    sweep->progress = progress_open(sweep->app, "sweep", planned);
    status = with_units(sweep, run_units, err);
    const uint64_t done = atomic_load(&sweep->read_nbytes);
    if (!status && done < planned) progress_add(sweep->progress, planned - done); /* readings that nobody wanted */
    progress_close(sweep->progress);
    sweep->progress = NULL;
    if (!status) status = sweep_rows_make(sweep, err);
    if (!status && sweep->spec->histograms) status = sweep_histograms_make(sweep, err);
    if (!status) status = sweep_eval(sweep, err);
    sweep->table->read_nbytes = atomic_load(&sweep->read_nbytes) + sweep->scan_nbytes;
    return status ? status : container_check_unchanged(sweep->container, err);
}

static void free_all(struct sweep *sweep)
{
    sweep_state_close(sweep);
    sweep_eval_close(sweep);
    for (unsigned w = 0; sweep->workers && w < sweep->n_workers; w++) sweep_worker_free(&sweep->workers[w]);
    free(sweep->workers);
    free(sweep->batch);
    digest_close(sweep->source_stream);
    sweep_plan_free(sweep);
    container_close(sweep->container);
}

enum status sweep_run(struct app *app, const struct sweep_spec *spec, struct sweep_table *table, struct err *err)
{
    struct sweep sweep = { .app = app, .spec = spec, .table = table, .max_ram = settings_number(&app->settings, SET_MAX_RAM), .only = SIZE_MAX };
    const double start = clock_seconds();
    *table = (struct sweep_table){ 0 };
    if (!settings_given(&app->settings, SET_IN)) return err_set(err, ERR_USAGE, "--in is missing: the model to read");
    enum status status = describe(app, spec, table, err);
    if (!status) status = sweep_variants_make(app, spec, table, err);
    if (!status) status = container_open(app->io, settings_text(&app->settings, SET_IN), &sweep.container, err);
    for (size_t i = 0; !status && i < sweep.container->n_notes; i++) app_note(app, "%s", sweep.container->notes[i]);
    if (!status) status = run(&sweep, err);
    free_all(&sweep);
    table->seconds = clock_seconds() - start;
    return status;
}
