/* cmd_compare.c: the command compare: error of every tensor between two models, worst first.
 *
 * Drawing: tensors of --in, found by name in --against -> tiles of both as f32 -> measure; folded in tile order; sorted by SQNR.
 * Why this way: both sides are read through the same row decoder as everything else, so any container can stand on either side.
 * Corner cases: a tensor missing on one side or of another shape is named and makes the comparison fail with exit code 3; NaN and Inf that agree
 * count as equal, others as an infinite error; tensors that are not floats are compared byte for byte.
 * Reference: number/metric.h. Example: llmq compare --in DIR --against x.llmq.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "base/size.h"
#include "container/llmq_read.h"
#include "converter/app.h"
#include "converter/jobs.h"
#include "converter/print.h"
#include "converter/progress.h"
#include "converter/tile_read.h"

struct comparison {
    const struct app *app;
    struct container *left, *right;
    size_t *partner; /* index on the right, SIZE_MAX for none */
    const char **problem; /* sentence, or NULL */
    struct measure *measures;
    uint64_t *nonfinite; /* weights that are not finite on either side and differ */
    struct progress *progress;
    struct turn turn;
    uint8_t *buffers;
    size_t buffer_nbytes; /* of one worker: two sides as stored, two as f32 */
    size_t side_nbytes;
};

static bool is_float(const struct tensor *tensor)
{
    return tensor->dtype->class == DTYPE_FLOAT;
}

/* Tiles as the quantised side has them, so that each of its tiles is decoded once. */
static struct plane geometry_of(const struct container *container, size_t i, const struct plane *shape)
{
    struct plane plane = *shape;
    const struct tensor *tensor = &container->tensors[i];
    plane.bits = tensor->dtype->bits < 8 ? 8 : tile_read_dtype(tensor)->bits;
    return plane;
}

static struct plane shape_of(const struct comparison *c, size_t i)
{
    const struct tensor *tensor = &c->left->tensors[i];
    struct plane plane = { "data", 8, tensor_rows(tensor), tensor_cols(tensor), 0, 0 };
    if (tensor->dtype->bits < 8) {
        plane.rows = 1;
        plane.cols = tensor->nbytes;
    }
    tile_shape(plane.rows, plane.cols, 1, &plane.tile_rows, &plane.tile_cols);
    const struct container *sides[] = { c->right, c->left };
    size_t indexes[] = { c->partner[i], i };
    for (size_t k = 0; k < 2; k++)
        if (indexes[k] != SIZE_MAX && sides[k]->tensors[indexes[k]].quantised && llmq_is(sides[k])) {
            const struct llmq_entry *entry = llmq_entry_of(sides[k], indexes[k]);
            plane.tile_rows = entry->tile_rows;
            plane.tile_cols = entry->tile_cols;
        }
    return plane;
}

static uint64_t compare_tiles(void *context, size_t i)
{
    const struct comparison *c = context;
    if (c->problem[i] || c->left->tensors[i].n_weights == 0) return 0;
    struct plane plane = shape_of(c, i);
    return plane_tile_count(&plane);
}

/* Weights of one tile of one side as f32 (floats) or as numbers 0 .. 255 of their bytes (everything else). */
static enum status load_side(struct container *container, size_t i, const struct plane *shape, uint64_t tile, uint8_t *stored, float *x, size_t *n,
                             struct err *err)
{
    const struct tensor *tensor = &container->tensors[i];
    struct plane plane = geometry_of(container, i, shape);
    enum status status = tile_read(container, i, &plane, tile, 1, stored, err);
    if (status) return status;
    size_t nbytes = (size_t)plane_tile_nbytes(&plane, tile);
    const struct dtype *dtype = is_float(tensor) ? tile_read_dtype(tensor) : dtype_find("U8", 2);
    *n = nbytes / (dtype->bits / 8);
    dtype->widen(stored, *n, x);
    return OK;
}

/* Equal weights that are not finite become 0 on both sides; others are counted and become 0 too. */
static uint64_t settle_nonfinite(float *x, float *y, size_t n)
{
    uint64_t differing = 0;
    for (size_t k = 0; k < n; k++) {
        if (isfinite(x[k]) && isfinite(y[k])) continue;
        if (!(isnan(x[k]) && isnan(y[k])) && x[k] != y[k]) differing++;
        x[k] = y[k] = 0.0f;
    }
    return differing;
}

static enum status compare_job(void *context, unsigned worker, const struct job *job, struct err *err)
{
    struct comparison *c = context;
    uint8_t *stored = c->buffers + worker * c->buffer_nbytes;
    float *x = (float *)(void *)(stored + c->side_nbytes), *y = (float *)(void *)(stored + 2 * c->side_nbytes);
    struct plane shape = shape_of(c, job->tensor);
    struct measure part = { 0 };
    size_t n_left = 0, n_right = 0;
    enum status status = load_side(c->left, job->tensor, &shape, job->first_tile, stored, x, &n_left, err);
    if (!status) status = load_side(c->right, c->partner[job->tensor], &shape, job->first_tile, stored, y, &n_right, err);
    if (status) return status;
    uint64_t differing = settle_nonfinite(x, y, n_left);
    c->app->kernels->measure(x, y, n_left, &part);
    if (!turn_wait(&c->turn, job->ticket)) return err_set(err, ERR_CANCELLED, "stopped");
    measure_add(&c->measures[job->tensor], &part);
    c->nonfinite[job->tensor] += differing;
    turn_done(&c->turn, job->ticket);
    struct plane plane = geometry_of(c->left, job->tensor, &shape);
    progress_add(c->progress, plane_tile_nbytes(&plane, job->first_tile));
    return OK;
}

static void compare_failed(void *context)
{
    turn_abort(&((struct comparison *)context)->turn);
}

/* ---- pairing -------------------------------------------------------------------------------------------------------------------- */

static bool same_shape(const struct tensor *a, const struct tensor *b)
{
    return a->rank == b->rank && (a->rank == 0 || memcmp(a->dims, b->dims, a->rank * sizeof *a->dims) == 0);
}

static void pair_tensors(struct comparison *c)
{
    for (size_t i = 0; i < c->left->n_tensors; i++) {
        const struct tensor *left = &c->left->tensors[i];
        c->partner[i] = container_find(c->right, left->name);
        const struct tensor *right = c->partner[i] == SIZE_MAX ? NULL : &c->right->tensors[c->partner[i]];
        if (!right) c->problem[i] = "missing on the other side";
        else if (!same_shape(left, right)) c->problem[i] = "has another shape on the other side";
        else if (is_float(left) != is_float(right) || (!is_float(left) && left->dtype != right->dtype))
            c->problem[i] = "has another kind of dtype on the other side";
    }
}

static size_t count_extra(const struct comparison *c, const char **first)
{
    size_t extra = 0;
    for (size_t i = 0; i < c->right->n_tensors; i++)
        if (container_find(c->left, c->right->tensors[i].name) == SIZE_MAX && extra++ == 0) *first = c->right->tensors[i].name;
    return extra;
}

/* ---- printing ------------------------------------------------------------------------------------------------------------------- */

struct ranked {
    size_t index;
    double sqnr;
};

static int worst_first(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->sqnr != y->sqnr) return x->sqnr < y->sqnr ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

static double sqnr_of(const struct comparison *c, size_t i)
{
    return c->problem[i] || c->nonfinite[i] ? -HUGE_VAL : measure_sqnr_db(&c->measures[i]);
}

static void print_json_measure(const struct measure *measure)
{
    printf("\"mse\":");
    print_json_number(stdout, measure_mse(measure));
    printf(",\"sqnr_db\":");
    print_json_number(stdout, measure_sqnr_db(measure));
    printf(",\"max_error\":");
    print_json_number(stdout, measure->max_d);
    printf(",\"cosine\":");
    print_json_number(stdout, measure_cosine(measure));
    printf(",\"identical\":%s", measure->sum_dd == 0.0 ? "true" : "false");
}

static void print_json(const struct comparison *c, const struct ranked *order, const struct measure *total)
{
    printf("{\"in\":");
    print_json_string(stdout, c->left->path);
    printf(",\"against\":");
    print_json_string(stdout, c->right->path);
    printf(",\"tensors\":[");
    for (size_t k = 0; k < c->left->n_tensors; k++) {
        size_t i = order[k].index;
        printf("%s\n{\"name\":", k ? "," : "");
        print_json_string(stdout, c->left->tensors[i].name);
        printf(",\"shape\":");
        print_json_dims(stdout, &c->left->tensors[i]);
        if (c->problem[i]) printf(",\"problem\":\"%s\"}", c->problem[i]);
        else {
            printf(",\"weights\":%llu,\"nonfinite_differing\":%llu,", (unsigned long long)c->left->tensors[i].n_weights,
                   (unsigned long long)c->nonfinite[i]);
            print_json_measure(&c->measures[i]);
            printf("}");
        }
    }
    printf("\n],\"total\":{");
    print_json_measure(total);
    printf("}}\n");
}

static void print_text(const struct comparison *c, const struct ranked *order, const struct measure *total)
{
    char name[49], db[16], dims[64];
    printf("%s against %s, worst first\n  %-48s %-18s %8s %12s %12s %10s\n", c->left->path, c->right->path, "tensor", "shape", "SQNR dB", "MSE",
           "max error", "cosine");
    for (size_t k = 0; k < c->left->n_tensors; k++) {
        size_t i = order[k].index;
        const struct measure *measure = &c->measures[i];
        printf("  %-48s %-18s ", show_name(c->left->tensors[i].name, name, 48), show_dims(&c->left->tensors[i], dims, sizeof dims));
        if (c->problem[i]) printf("%s\n", c->problem[i]);
        else if (c->nonfinite[i]) printf("%llu weights that are NaN or Inf on one side only\n", (unsigned long long)c->nonfinite[i]);
        else
            printf("%8s %12.5g %12.5g %10.7f\n", show_db(measure_sqnr_db(measure), db), measure_mse(measure), measure->max_d,
                   measure_cosine(measure));
    }
    printf("total: SQNR %s dB, MSE %.6g, largest error %.6g, cosine %.7f\n", show_db(measure_sqnr_db(total), db), measure_mse(total), total->max_d,
           measure_cosine(total));
}

static enum status print_result(const struct comparison *c, struct err *err)
{
    struct measure total = { 0 };
    struct ranked *order = calloc(c->left->n_tensors + 1, sizeof *order);
    const char *first = NULL;
    size_t problems = 0, first_problem = 0;
    if (!order) return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < c->left->n_tensors; i++) {
        order[i] = (struct ranked){ i, sqnr_of(c, i) };
        measure_add(&total, &c->measures[i]);
        if (c->problem[i] && problems++ == 0) first_problem = i;
    }
    qsort(order, c->left->n_tensors, sizeof *order, worst_first);
    if (settings_flag(&c->app->settings, SET_JSON)) print_json(c, order, &total);
    else print_text(c, order, &total);
    free(order);
    if (problems)
        return err_set(err, ERR_MISMATCH, "%zu tensor%s cannot be compared; first: '%s' %s", problems, problems == 1 ? "" : "s",
                       c->left->tensors[first_problem].name, c->problem[first_problem]);
    size_t extra = count_extra(c, &first);
    if (extra)
        return err_set(err, ERR_MISMATCH, "'%s' has %zu tensor%s that '%s' lacks; first: '%s'", c->right->path, extra, extra == 1 ? "" : "s",
                       c->left->path, first);
    return OK;
}

/* ---- the command ---------------------------------------------------------------------------------------------------------------- */

static enum status run(struct comparison *c, struct err *err)
{
    size_t n = c->left->n_tensors + 1;
    uint64_t asked = settings_number(&c->app->settings, SET_THREADS), total = 0;
    uint64_t workers = asked ? asked : pool_cpu_count();
    c->partner = calloc(n, sizeof *c->partner);
    c->problem = calloc(n, sizeof *c->problem);
    c->measures = calloc(n, sizeof *c->measures);
    c->nonfinite = calloc(n, sizeof *c->nonfinite);
    c->side_nbytes = (size_t)TILE_WEIGHTS * 8;
    c->buffer_nbytes = 3 * c->side_nbytes;
    workers = size_max(1, size_min(workers, (settings_number(&c->app->settings, SET_MAX_RAM) - (4u << 20)) / c->buffer_nbytes));
    c->buffers = malloc((size_t)workers * c->buffer_nbytes);
    if (!c->partner || !c->problem || !c->measures || !c->nonfinite || !c->buffers) return err_set(err, ERR_MEMORY, "out of memory");
    pair_tensors(c);
    for (size_t i = 0; i < c->left->n_tensors; i++)
        total += c->left->tensors[i].quantised ? 4 * c->left->tensors[i].n_weights : c->left->tensors[i].nbytes;
    turn_init(&c->turn);
    c->progress = progress_open(c->app, "compare", total);
    struct job_list list = { c->left->n_tensors, compare_tiles, 1, (unsigned)workers, c->app->stop, compare_job, compare_failed, c, NULL };
    enum status status = jobs_run(&list, err);
    progress_close(c->progress);
    turn_destroy(&c->turn);
    return status ? status : print_result(c, err);
}

enum status cmd_compare(struct app *app, struct err *err)
{
    struct comparison c = { .app = app };
    if (app->settings.n_arguments) return err_set(err, ERR_USAGE, "unexpected argument '%s'", app->settings.arguments[0]);
    if (!settings_given(&app->settings, SET_IN) || !settings_given(&app->settings, SET_AGAINST))
        return err_set(err, ERR_USAGE, "--in and --against are both needed");
    enum status status = container_open(app->io, settings_text(&app->settings, SET_IN), &c.left, err);
    if (!status) status = container_open(app->io, settings_text(&app->settings, SET_AGAINST), &c.right, err);
    if (!status) status = run(&c, err);
    free(c.partner);
    free(c.problem);
    free(c.measures);
    free(c.nonfinite);
    free(c.buffers);
    container_close(c.left);
    container_close(c.right);
    return status;
}
