/* scan.c: see scan.h.
 *
 * Drawing: tensor -> tiles of 262144 weights -> f32 -> counts; tiles of one tensor are added in order.
 * Why this way: see scan.h. A tensor is one job's unit of result, its tiles are shared out and folded in ticket order.
 * Corner cases: a tensor without weights has an empty scan.
 * Reference: scan.h. Worked number: weights 1, NaN, 0: n_weights 3, n_nan 1, n_zero 1, bad_col 1, min 0, max 1.
 */
#include "converter/scan.h"

#include <math.h>
#include <stdlib.h>

#include "base/pool.h"
#include "converter/jobs.h"
#include "converter/tile_read.h"

enum { PIECE = 8192 };

static struct plane geometry_of(const struct tensor *tensor)
{
    struct plane plane = { .name = "data", .bits = tile_read_dtype(tensor)->bits, .rows = tensor_rows(tensor), .cols = tensor_cols(tensor) };
    tile_shape(plane.rows, plane.cols, 1, &plane.tile_rows, &plane.tile_cols);
    return plane;
}

static bool is_scanned(const struct tensor *tensor)
{
    return tensor->dtype->class == DTYPE_FLOAT && tensor->n_weights > 0;
}

/* One weight after the other; only pieces with something odd come here. */
static void count_odd(const float *x, size_t n, const struct tile *tile, uint64_t at, struct scan *scan)
{
    for (size_t i = 0; i < n; i++) {
        if (isfinite(x[i])) continue;
        if (scan->n_nan + scan->n_inf == 0) {
            scan->bad_row = tile->row + (at + i) / tile->n_cols;
            scan->bad_col = tile->col + (at + i) % tile->n_cols;
        }
        if (isnan(x[i])) scan->n_nan++;
        else scan->n_inf++;
    }
}

static void count_piece(const struct kernels *kernels, const float *x, size_t n, const struct tile *tile, uint64_t at, struct scan *scan)
{
    bool first = scan->n_weights == scan->n_nan + scan->n_inf;
    if (!kernels->all_finite(x, n)) count_odd(x, n, tile, at, scan);
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) continue;
        scan->n_zero += x[i] == 0.0f;
        scan->sum_abs += fabs((double)x[i]);
        if (first || x[i] < scan->min) scan->min = x[i];
        if (first || x[i] > scan->max) scan->max = x[i];
        first = false;
    }
    scan->n_weights += n;
}

static void scan_tile(const struct kernels *kernels, const struct dtype *dtype, const uint8_t *stored, const struct tile *tile, struct scan *scan)
{
    float x[PIECE];
    uint64_t n = tile->n_rows * tile->n_cols;
    for (uint64_t at = 0; at < n; at += PIECE) {
        size_t count = (size_t)(n - at < PIECE ? n - at : PIECE);
        dtype->widen(stored + at * dtype->bits / 8, count, x);
        count_piece(kernels, x, count, tile, at, scan);
    }
}

/* Adds part, whose tiles come after those of total. */
static void scan_join(struct scan *total, const struct scan *part)
{
    bool total_none = total->n_weights == total->n_nan + total->n_inf, part_none = part->n_weights == part->n_nan + part->n_inf;
    if (total->n_nan + total->n_inf == 0) {
        total->bad_row = part->bad_row;
        total->bad_col = part->bad_col;
    }
    if (!part_none && (total_none || part->min < total->min)) total->min = part->min;
    if (!part_none && (total_none || part->max > total->max)) total->max = part->max;
    total->n_weights += part->n_weights;
    total->n_nan += part->n_nan;
    total->n_inf += part->n_inf;
    total->n_zero += part->n_zero;
    total->sum_abs += part->sum_abs;
}

enum status scan_tensor(struct container *container, size_t index, const struct kernels *kernels, struct scan *scan, struct err *err)
{
    const struct tensor *tensor = &container->tensors[index];
    *scan = (struct scan){ 0 };
    if (!is_scanned(tensor)) return OK;
    struct plane plane = geometry_of(tensor);
    uint8_t *buf = malloc((size_t)TILE_WEIGHTS * plane.bits / 8);
    if (!buf) return err_set(err, ERR_MEMORY, "out of memory");
    enum status status = OK;
    for (uint64_t i = 0; i < plane_tile_count(&plane) && !status; i++) {
        struct tile tile = plane_tile(&plane, i);
        status = tile_read(container, index, &plane, i, 1, buf, err);
        if (!status) scan_tile(kernels, tile_read_dtype(tensor), buf, &tile, scan);
    }
    free(buf);
    return status;
}

/* ---- the whole model ------------------------------------------------------------------------------------------------------------ */

struct scan_run {
    const struct app *app;
    struct container *container;
    const bool *wanted;
    struct scan *scans;
    struct progress *progress;
    struct turn turn;
    uint8_t *buffers;
    size_t buffer_nbytes;
};

static uint64_t scan_tiles(void *context, size_t tensor)
{
    const struct scan_run *run = context;
    if (!is_scanned(&run->container->tensors[tensor]) || (run->wanted && !run->wanted[tensor])) return 0;
    struct plane plane = geometry_of(&run->container->tensors[tensor]);
    return plane_tile_count(&plane);
}

static enum status scan_job(void *context, unsigned worker, const struct job *job, struct err *err)
{
    struct scan_run *run = context;
    const struct tensor *tensor = &run->container->tensors[job->tensor];
    struct plane plane = geometry_of(tensor);
    struct tile tile = plane_tile(&plane, job->first_tile);
    uint8_t *buf = run->buffers + worker * run->buffer_nbytes;
    struct scan part = { 0 };
    enum status status = tile_read(run->container, job->tensor, &plane, job->first_tile, 1, buf, err);
    if (status) return status;
    scan_tile(run->app->kernels, tile_read_dtype(tensor), buf, &tile, &part);
    if (!turn_wait(&run->turn, job->ticket)) return err_set(err, ERR_CANCELLED, "stopped");
    scan_join(&run->scans[job->tensor], &part);
    turn_done(&run->turn, job->ticket);
    progress_add(run->progress, plane_tile_nbytes(&plane, job->first_tile));
    return OK;
}

static void scan_failed(void *context)
{
    turn_abort(&((struct scan_run *)context)->turn);
}

enum status scan_model(const struct app *app, struct container *container, const bool *wanted, unsigned n_workers, struct scan *scans,
                       struct err *err)
{
    struct scan_run run = { .app = app, .container = container, .wanted = wanted, .scans = scans, .buffer_nbytes = (size_t)TILE_WEIGHTS * 8 };
    uint64_t total = 0;
    for (size_t i = 0; i < container->n_tensors; i++) {
        scans[i] = (struct scan){ 0 };
        if (scan_tiles(&run, i)) total += container->tensors[i].n_weights * tile_read_dtype(&container->tensors[i])->bits / 8;
    }
    run.buffers = malloc(n_workers * run.buffer_nbytes);
    if (!run.buffers) return err_set(err, ERR_MEMORY, "out of memory");
    turn_init(&run.turn);
    run.progress = progress_open(app, "scan", total);
    struct job_list list = { container->n_tensors, scan_tiles, 1, n_workers, app->stop, scan_job, scan_failed, &run, NULL };
    enum status status = jobs_run(&list, err);
    progress_close(run.progress);
    turn_destroy(&run.turn);
    free(run.buffers);
    return status;
}
