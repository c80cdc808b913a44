/* pipeline.c: see pipeline.h.
 *
 * Drawing: observe passes of a few spanning tensors (range, then candidate errors; or the weights, as often as a scale rule wants them) and of
 * matrices with scales, then for every job of these tensors
 *   tile_read -> per tile: digest of the source, encode / move / split / narrow -> parts -> writer_put; in ticket order: add measures and digests
 * Why this way: all buffers of a worker are made once; a job never allocates.
 * Corner cases: a NaN or an overflow names tensor, row, column and count; whatever fails wakes the workers that wait for their turn.
 * Reference: plan.h, writer.h. Worked number: a job of 8 tiles of BF16 -> mxfp4 reads 4 MiB and writes 1 MiB of codes and 64 KiB of scales.
 */
#include "converter/pipeline.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/pool.h"
#include "converter/group_observe.h"
#include "converter/jobs.h"
#include "converter/progress.h"
#include "converter/scan.h"
#include "converter/smooth.h"
#include "converter/tile_read.h"

struct worker {
    uint8_t *source; /* tiles of a job as read */
    uint8_t *planes[OUT_PLANES_MAX]; /* packed tiles of a job, plane by plane */
    struct codec_scratch scratch;
    struct part *parts;
    struct measure *measures; /* one a tile of the job */
    struct digest128 *digests; /* one a tile of the job */
    struct error_total *errors; /* of groups that a tile ends in the middle of */
    size_t n_errors;
    struct learn_part part; /* what a tile adds to what is learned */
    float *migrated; /* a tile of a tensor that migration changes */
};

struct pipeline {
    const struct app *app;
    const struct plan *plan;
    struct writer *writer;
    struct worker *workers;
    struct group_scale **given; /* per entry: scales of a spanning tensor, else NULL */
    float **tensor_scales; /* per entry: scales of its matrices, else NULL */
    struct progress *progress;
    struct result *result;
    struct digest128 *digests; /* per entry */
    struct digest_stream *stream; /* of the tensor whose turn it is */
    struct observing *observing;
    size_t first, end; /* tensors that are being encoded */
};

/* ---- memory of the workers ------------------------------------------------------------------------------------------------------- */

static void worker_free(struct worker *worker)
{
    free(worker->source);
    for (uint32_t k = 0; k < OUT_PLANES_MAX; k++) free(worker->planes[k]);
    free(worker->scratch.x);
    free(worker->scratch.y);
    free(worker->scratch.codes);
    free(worker->parts);
    free(worker->measures);
    free(worker->digests);
    free(worker->errors);
    free(worker->migrated);
}

/* Largest tile of plane number k over all tensors. */
static uint64_t largest_tile(const struct plan *plan, uint32_t k)
{
    uint64_t largest = 1;
    for (size_t i = 0; i < plan->n_tensors; i++) {
        if (k >= plan->outs[i].n_planes || !plan_packs(plan, i)) continue;
        const struct plane *plane = &plan->outs[i].planes[k].plane;
        uint64_t nbytes = plane_tile_count(plane) ? plane_tile_nbytes(plane, 0) : 0;
        if (nbytes > largest) largest = nbytes;
    }
    return largest;
}

static enum status worker_make(const struct plan *plan, struct worker *worker, struct err *err)
{
    size_t tiles = plan->options.tiles_per_job, n = plan->scratch_weights + 1;
    bool fine = (worker->source = malloc((size_t)(tiles * plan->source_tile_nbytes + 1))) != NULL;
    for (uint32_t k = 0; k < OUT_PLANES_MAX; k++) fine = (worker->planes[k] = malloc((size_t)(tiles * largest_tile(plan, k)))) != NULL && fine;
    worker->scratch =
        (struct codec_scratch){ malloc(n * sizeof(float)), malloc(n * sizeof(float)), malloc(n * sizeof(uint16_t)), plan->scratch_weights };
    worker->parts = malloc(tiles * OUT_PLANES_MAX * sizeof *worker->parts);
    worker->measures = malloc(tiles * sizeof *worker->measures);
    worker->digests = malloc(tiles * sizeof *worker->digests);
    worker->errors = malloc(plan->n_open_groups * sizeof *worker->errors + 1);
    worker->migrated = malloc(plan->migrated_tile_nbytes + 1);
    fine = fine && worker->errors && worker->migrated && worker->scratch.x && worker->scratch.y && worker->scratch.codes && worker->parts &&
           worker->measures && worker->digests;
    return fine ? OK : err_set(err, ERR_MEMORY, "out of memory for the buffers of a thread");
}

/* ---- faults --------------------------------------------------------------------------------------------------------------------- */

static enum status describe_fault(struct pipeline *pipeline, size_t i, const struct tile *tile, const struct codec_fault *fault, struct err *err)
{
    const struct tensor *tensor = plan_tensor(pipeline->plan, i);
    const struct plan_entry *entry = &pipeline->plan->entries[i];
    char name[200];
    err_name(tensor->name, strlen(tensor->name), name, sizeof name);
    unsigned long long row = tile->row + fault->row, col = tile->col + fault->col;
    if (fault->kind == CODEC_NO_PLACE && !entry->verdict.quant.blocks)
        return err_set(
            err, ERR_DATA,
            "cannot take tensor '%s' of '%s' out of its blocks: the one at row %llu, column %llu is no group of format %s; another --format "
            "with --allow-requantize may do",
            name, pipeline->plan->container->path, row, col, entry->verdict.quant.format->name);
    if (fault->kind == CODEC_NO_PLACE)
        return err_set(err, ERR_DATA,
                       "cannot put tensor '%s' of '%s' into blocks of GGUF: scale or zero point of the group at row %llu, column %llu have no place "
                       "there without rounding; another --format, or --scale-dtype f16, may do",
                       name, pipeline->plan->container->path, row, col);
    if (fault->kind == CODEC_SCALE_OVERFLOW && entry->verdict.quant.scale == SCALE_NONE)
        return err_set(err, ERR_DATA,
                       "cannot quantise tensor '%s' of '%s': weights at row %llu, column %llu are too large for format %s, which has 16-bit floats; "
                       "an MX format, bf16 or --keep may do",
                       name, pipeline->plan->container->path, row, col, entry->verdict.quant.format->name);
    if (fault->kind == CODEC_SCALE_OVERFLOW)
        return err_set(err, ERR_DATA,
                       "cannot quantise tensor '%s' of '%s': weights at row %llu, column %llu are too large for scales of type %s; a wider "
                       "--scale-dtype, an MX format or --keep may do",
                       name, pipeline->plan->container->path, row, col, scale_type_name(entry->verdict.quant.scale));
    struct scan scan;
    enum status status = scan_tensor(pipeline->plan->container, entry->tensor, pipeline->app->kernels, &scan, err);
    if (status) return status;
    if (entry->fold && scan.n_nan + scan.n_inf == 0)
        return err_set(err, ERR_DATA, "cannot migrate tensor '%s' of '%s': the weight at row %llu, column %llu becomes infinite", name,
                       pipeline->plan->container->path, row, col);
    return err_set(err, ERR_DATA,
                   "cannot quantise tensor '%s' of '%s': NaN or Inf at row %llu, column %llu (%llu NaN, %llu Inf in the tensor); --nonfinite zero, "
                   "clamp or keep allows it",
                   name, pipeline->plan->container->path, (unsigned long long)scan.bad_row, (unsigned long long)scan.bad_col,
                   (unsigned long long)scan.n_nan, (unsigned long long)scan.n_inf);
}

/* ---- observe passes ------------------------------------------------------------------------------------------------------------- */

/* Passes: ranges of groups; candidate errors of groups; ranges of matrices; all weights of the one group, for a scale rule that reads them. */
enum pass { OBSERVE_RANGES, OBSERVE_ERRORS, OBSERVE_MATRICES, OBSERVE_WEIGHTS };

/* State of the pass over one spanning tensor; errors are folded in ticket order. */
struct observing {
    size_t entry;
    enum pass pass;
    struct range *ranges; /* per group or matrix */
    struct error_total *totals; /* of the groups that lie side by side */
    size_t n_totals;
    struct choose_stream *stream; /* of a pass over the weights of the group */
    struct turn turn;
    pthread_mutex_t lock; /* of ranges */
};

static uint64_t observe_tiles(void *context, size_t i)
{
    const struct pipeline *pipeline = context;
    return i == pipeline->observing->entry ? plan_tile_count(pipeline->plan, i) : 0;
}

static void observe_failed(void *context)
{
    turn_abort(&((struct pipeline *)context)->observing->turn);
}

/* What the encoder sees of the tile at place: as it was read, or migrated, which is then in f32. */
static const uint8_t *migrate(const struct pipeline *pipeline, size_t i, const struct tile *place, const uint8_t *source, struct worker *worker)
{
    const struct plan_entry *entry = &pipeline->plan->entries[i];
    if (!entry->fold) return source;
    tile_read_dtype(plan_tensor(pipeline->plan, i))->widen(source, (size_t)(place->n_rows * place->n_cols), worker->migrated);
    fold_apply(entry->fold, place, worker->migrated);
    return (const uint8_t *)worker->migrated;
}

/* The tile at place as it was read, or migrated. */
static struct codec_tile tile_of(const struct pipeline *pipeline, size_t i, const uint8_t *source, const struct tile *place)
{
    const struct plan_entry *entry = &pipeline->plan->entries[i];
    return (struct codec_tile){ .source = source,
                                .dtype = entry->fold ? dtype_find("F32", 3) : tile_read_dtype(plan_tensor(pipeline->plan, i)),
                                .n_rows = place->n_rows,
                                .n_cols = place->n_cols,
                                .nonfinite = pipeline->plan->nonfinite,
                                .first_row = place->row,
                                .first_col = place->col,
                                .importance = entry->importance.rows,
                                .matrix_rows = shape_matrix_rows(&entry->shape) };
}

/* The next piece of a tile that belongs to one group, or to one matrix. */
static bool next_piece(const struct pipeline *pipeline, size_t i, const struct tile *place, struct codec_piece *piece)
{
    const struct plan_entry *entry = &pipeline->plan->entries[i];
    if (pipeline->observing->pass == OBSERVE_MATRICES) return matrix_next_piece(&entry->shape, place, piece);
    return codec_next_piece(&entry->verdict.quant, &entry->shape, place, piece);
}

static struct observed_tile observed_of(const struct pipeline *pipeline, size_t i, const struct tile *place, const struct codec_tile *tile,
                                        const struct worker *worker)
{
    const struct plan_entry *entry = &pipeline->plan->entries[i];
    return (struct observed_tile){ &entry->verdict.quant, pipeline->app->kernels, &entry->shape, place, tile, &worker->scratch };
}

/* Adds the ranges of a tile to those of its groups or matrices. Ranges need no order. */
static enum status observe_ranges(struct pipeline *pipeline, size_t i, const struct tile *place, struct worker *worker, struct err *err)
{
    struct observing *observing = pipeline->observing;
    const struct codec_tile tile = tile_of(pipeline, i, migrate(pipeline, i, place, worker->source, worker), place);
    struct codec_piece piece = { 0 };
    struct codec_fault fault;
    struct range range;
    while (next_piece(pipeline, i, place, &piece)) {
        const struct codec_tile part = codec_part(&tile, &piece.at);
        if (!codec_observe_range(pipeline->app->kernels, &part, &worker->scratch, &range, &fault)) {
            fault.row += piece.at.row;
            fault.col += piece.at.col;
            return describe_fault(pipeline, i, place, &fault, err);
        }
        pthread_mutex_lock(&observing->lock);
        range_add(&observing->ranges[piece.group], range);
        pthread_mutex_unlock(&observing->lock);
    }
    return OK;
}

static void observe_errors(struct pipeline *pipeline, size_t i, const struct tile *place, struct worker *worker)
{
    const struct codec_tile tile = tile_of(pipeline, i, migrate(pipeline, i, place, worker->source, worker), place);
    const struct observed_tile observed = observed_of(pipeline, i, place, &tile, worker);
    worker->n_errors = group_errors(&observed, pipeline->observing->ranges, pipeline->given[i], worker->errors);
}

/* ---- the weights of the one group ---- */

static void read_spans(struct pipeline *pipeline, size_t i, const struct tile *place, struct worker *worker, struct learn_part *part)
{
    const struct codec_tile tile = tile_of(pipeline, i, migrate(pipeline, i, place, worker->source, worker), place);
    const struct observed_tile observed = observed_of(pipeline, i, place, &tile, worker);
    group_weights(&observed, pipeline->observing->stream, part);
}

/* Before a tile's turn: its range, in the first pass, and what a learner asks of it. */
static enum status observe_weights(struct pipeline *pipeline, size_t i, const struct tile *place, struct worker *worker, struct err *err)
{
    const struct choose_stream *stream = pipeline->observing->stream;
    enum status status = stream->pass == 1 ? observe_ranges(pipeline, i, place, worker, err) : OK;
    if (status || !stream->learns) return status;
    worker->part = (struct learn_part){ 0 };
    read_spans(pipeline, i, place, worker, &worker->part);
    return OK;
}

/* In its turn: tiles add up in order. */
static void fold_weights(struct pipeline *pipeline, size_t i, const struct tile *place, struct worker *worker)
{
    struct choose_stream *stream = pipeline->observing->stream;
    if (stream->learns) choose_stream_add(stream, &worker->part);
    else read_spans(pipeline, i, place, worker, NULL);
}

static enum status observe_job(void *context, unsigned worker_index, const struct job *job, struct err *err)
{
    struct pipeline *pipeline = context;
    struct observing *observing = pipeline->observing;
    const struct plan_entry *entry = &pipeline->plan->entries[job->tensor];
    struct worker *worker = &pipeline->workers[worker_index];
    struct tile place = plane_tile(&entry->source, job->first_tile);
    enum status status = tile_read(pipeline->plan->container, entry->tensor, &entry->source, job->first_tile, 1, worker->source, err);
    if (!status && observing->pass == OBSERVE_ERRORS) observe_errors(pipeline, job->tensor, &place, worker);
    else if (!status && observing->pass == OBSERVE_WEIGHTS) status = observe_weights(pipeline, job->tensor, &place, worker, err);
    else if (!status) status = observe_ranges(pipeline, job->tensor, &place, worker, err);
    if (status) return status;
    if (!turn_wait(&observing->turn, job->ticket)) return err_set(err, ERR_CANCELLED, "stopped");
    if (observing->pass == OBSERVE_ERRORS)
        group_errors_add(&entry->verdict.quant, observing->ranges, worker->errors, worker->n_errors, observing->totals, observing->n_totals,
                         pipeline->given[job->tensor]);
    if (observing->pass == OBSERVE_WEIGHTS) fold_weights(pipeline, job->tensor, &place, worker);
    turn_done(&observing->turn, job->ticket);
    progress_add(pipeline->progress, plane_tile_nbytes(&entry->source, job->first_tile));
    return OK;
}

static enum status observe_pass(struct pipeline *pipeline, enum pass pass, struct err *err)
{
    struct observing *observing = pipeline->observing;
    observing->pass = pass;
    turn_init(&observing->turn);
    pthread_mutex_init(&observing->lock, NULL);
    struct job_list list = {
        pipeline->plan->n_tensors, observe_tiles, 1, pipeline->plan->n_workers, pipeline->app->stop, observe_job, observe_failed, pipeline, NULL
    };
    enum status status = jobs_run(&list, err);
    turn_destroy(&observing->turn);
    pthread_mutex_destroy(&observing->lock);
    return status;
}

/* Candidate 0 of each group, which must exist. */
static enum status first_candidates(struct pipeline *pipeline, size_t i, size_t n_groups, struct err *err)
{
    const struct plan_entry *entry = &pipeline->plan->entries[i];
    const struct quant *quant = &entry->verdict.quant;
    const uint64_t per_row = quant_groups_per_row(quant, entry->shape.cols);
    for (size_t g = 0; g < n_groups; g++) {
        if (quant->format->family->candidate(quant, pipeline->observing->ranges[g], 0, &pipeline->given[i][g])) continue;
        const struct codec_fault fault = { CODEC_SCALE_OVERFLOW, 0, 0 };
        const struct tile place = { .row = quant_first_row(quant, shape_matrix_rows(&entry->shape), g / per_row), .col = g % per_row * quant->group };
        return describe_fault(pipeline, i, &place, &fault, err);
    }
    return OK;
}

/* The scale of the one group of a tensor, by a rule that reads its weights. Readings that the plan has counted and nobody wants count as done. */
static enum status observe_group(struct pipeline *pipeline, size_t i, struct err *err)
{
    const struct plan_entry *entry = &pipeline->plan->entries[i];
    const struct quant *quant = &entry->verdict.quant;
    struct choose_stream stream;
    uint64_t *memory = malloc(CHOOSE_NBYTES);
    if (!memory) return err_set(err, ERR_MEMORY, "out of memory");
    enum status status = OK;
    choose_stream_begin(&stream, quant, pipeline->app->kernels, memory);
    pipeline->observing->stream = &stream;
    while (!status && choose_stream_next(&stream)) status = observe_pass(pipeline, OBSERVE_WEIGHTS, err);
    if (!status && !choose_stream_finish(&stream, pipeline->observing->ranges[0], pipeline->given[i])) status = first_candidates(pipeline, i, 1, err);
    for (uint32_t pass = stream.pass - 1; pass < choose_passes(quant->rule) && !status; pass++)
        progress_add(pipeline->progress, plane_nbytes(&entry->source));
    free(memory);
    return status;
}

/* Scales of the groups of one spanning tensor. */
static enum status observe_groups(struct pipeline *pipeline, size_t i, struct err *err)
{
    const struct plan_entry *entry = &pipeline->plan->entries[i];
    const struct quant *quant = &entry->verdict.quant;
    const size_t per_row = (size_t)quant_groups_per_row(quant, entry->shape.cols);
    const size_t n_groups = per_row * (size_t)quant_scale_rows(quant, entry->shape.rows, shape_matrix_rows(&entry->shape));
    struct observing observing = { .entry = i, .n_totals = per_row };
    observing.ranges = calloc(n_groups, sizeof *observing.ranges);
    observing.totals = malloc(per_row * sizeof *observing.totals);
    pipeline->given[i] = calloc(n_groups, sizeof **pipeline->given);
    pipeline->observing = &observing;
    enum status status = observing.ranges && observing.totals && pipeline->given[i] ? OK : err_set(err, ERR_MEMORY, "out of memory");
    for (size_t k = 0; k < per_row && !status; k++) observing.totals[k].group = UINT64_MAX;
    const bool reads = choose_reads(quant->rule);
    if (!status && reads) status = observe_group(pipeline, i, err);
    if (!status && !reads) status = observe_pass(pipeline, OBSERVE_RANGES, err);
    if (!status && !reads) status = first_candidates(pipeline, i, n_groups, err);
    if (!status && !reads && quant->format->family->candidates(quant) > 1) status = observe_pass(pipeline, OBSERVE_ERRORS, err);
    free(observing.totals);
    free(observing.ranges);
    pipeline->observing = NULL;
    return status;
}

/* Scales of the matrices of one tensor and of those that share them: matrix by matrix, from the range of all. */
static enum status observe_matrices(struct pipeline *pipeline, size_t i, struct err *err)
{
    const struct plan_entry *entries = pipeline->plan->entries;
    const size_t n = (size_t)entries[i].shape.n_matrices;
    if (pipeline->tensor_scales[i]) return OK; /* one that shares them was here before */
    struct observing observing = { .ranges = calloc(n, sizeof *observing.ranges) };
    pipeline->observing = &observing;
    enum status status = observing.ranges ? OK : err_set(err, ERR_MEMORY, "out of memory");
    size_t k = i;
    do {
        observing.entry = k;
        if (!status && plan_tile_count(pipeline->plan, k)) status = observe_pass(pipeline, OBSERVE_MATRICES, err);
        k = entries[k].fused_next;
    } while (k != i && !status);
    do {
        if (!status) pipeline->tensor_scales[k] = calloc(n, sizeof **pipeline->tensor_scales);
        if (!status && !pipeline->tensor_scales[k]) status = err_set(err, ERR_MEMORY, "out of memory");
        for (size_t m = 0; m < n && !status; m++)
            pipeline->tensor_scales[k][m] = entries[k].verdict.quant.format->family->tensor_scale(observing.ranges[m]);
        k = entries[k].fused_next;
    } while (k != i && !status);
    free(observing.ranges);
    pipeline->observing = NULL;
    return status;
}

static enum status observe_tensor(struct pipeline *pipeline, size_t i, struct err *err)
{
    const struct plan_entry *entry = &pipeline->plan->entries[i];
    enum status status = entry->spans ? observe_groups(pipeline, i, err) : OK;
    if (!status && entry->fate == FATE_QUANTISE && entry->verdict.quant.tensor_scale) status = observe_matrices(pipeline, i, err);
    return status;
}

/* ---- the encode pass ------------------------------------------------------------------------------------------------------------ */

static void add_part(struct worker *worker, size_t *n_parts, uint32_t plane, uint64_t tile, const uint8_t *bytes, uint64_t nbytes)
{
    worker->parts[(*n_parts)++] = (struct part){ plane, tile, bytes, (size_t)nbytes };
}

static enum status quantise_tile(struct pipeline *pipeline, size_t i, const struct tile *place, const uint8_t *source, uint8_t *const planes[],
                                 struct worker *worker, struct measure *measure, struct err *err)
{
    const struct plan_entry *entry = &pipeline->plan->entries[i];
    const struct quant *quant = &entry->verdict.quant;
    struct codec_fault fault;
    struct codec_tile tile = tile_of(pipeline, i, migrate(pipeline, i, place, source, worker), place);
    tile.measure = pipeline->plan->measure ? measure : NULL;
    tile.tensor_scales = pipeline->tensor_scales[i];
    tile.given = pipeline->given[i];
    tile.given_cols = quant_groups_per_row(quant, entry->shape.cols);
    for (uint32_t k = 0; k < CODEC_PLANES_MAX; k++) tile.planes[k] = planes[k];
    if (codec_encode(quant, pipeline->app->kernels, &tile, &worker->scratch, &fault)) return OK;
    return describe_fault(pipeline, i, place, &fault, err);
}

/* source: the tile's bytes of each plane of the source, one plane behind the other. Between equal layouts these are the output's. */
static enum status carry_tile(struct pipeline *pipeline, size_t i, uint64_t index, const struct tile *place, const uint8_t *source,
                              uint8_t *const planes[], struct worker *worker, struct err *err)
{
    const struct plan *plan = pipeline->plan;
    const struct plan_entry *entry = &plan->entries[i];
    const struct quant *from = plan_tensor(plan, i)->quant, *to = &entry->verdict.quant;
    const uint8_t *bytes[CODEC_PLANES_MAX] = { NULL };
    struct codec_fault fault;
    for (uint32_t k = 0; k < entry->n_from; k++) {
        const size_t nbytes = (size_t)plan_from(plan, i, k, index).nbytes;
        bytes[k] = source;
        source += nbytes;
        if (from->blocks == to->blocks) memcpy(planes[k], bytes[k], nbytes);
        else if (codec_is_whole(from, &entry->shape, &entry->from[k]) && nbytes) memcpy(planes[plan->outs[i].n_planes - 1], bytes[k], nbytes);
    }
    if (from->blocks == to->blocks) return OK;
    if (codec_transcode(from, bytes, to, place->n_rows, place->n_cols, &worker->scratch, planes, &fault)) return OK;
    return describe_fault(pipeline, i, place, &fault, err);
}

/* Planes of the tensor as a whole, made by its first job. A carried tensor's are there already. */
static void store_whole(struct pipeline *pipeline, size_t i, uint8_t *const planes[])
{
    const struct plan_entry *entry = &pipeline->plan->entries[i];
    const struct quant *quant = &entry->verdict.quant;
    if (entry->fate != FATE_QUANTISE) return;
    codec_store_whole(quant, &entry->shape, pipeline->given[i], pipeline->tensor_scales[i], planes);
    if (quant->input_scale) codec_store_input_scale(quant, &entry->shape, entry->input_scale, entry->n_input_sets, planes);
}

/* Migrates a tile of a kept tensor where it lies; what is kept is then its source. */
static enum status migrate_kept(struct pipeline *pipeline, size_t i, uint64_t index, uint8_t *source, struct worker *worker, struct err *err)
{
    const struct plan_entry *entry = &pipeline->plan->entries[i];
    if (entry->fate != FATE_KEEP || !entry->fold) return OK;
    const struct tile place = plane_tile(&entry->source, index);
    const struct tensor *tensor = plan_tensor(pipeline->plan, i);
    const struct kernels *kernels = pipeline->app->kernels;
    const size_t n = (size_t)(place.n_rows * place.n_cols);
    char name[200];
    tensor->dtype->widen(source, n, worker->migrated);
    const bool finite = kernels->all_finite(worker->migrated, n);
    fold_apply(entry->fold, &place, worker->migrated);
    tensor->dtype->narrow(worker->migrated, n, source);
    tensor->dtype->widen(source, n, worker->migrated);
    if (!finite || kernels->all_finite(worker->migrated, n)) return OK;
    return err_set(err, ERR_DATA, "cannot migrate tensor '%s' of '%s': a number near row %llu, column %llu becomes too large for %s",
                   err_name(tensor->name, strlen(tensor->name), name, sizeof name), pipeline->plan->container->path, (unsigned long long)place.row,
                   (unsigned long long)place.col, tensor->dtype->name);
}

/* Encodes, moves, splits or narrows one tile into planes (each pointing at this tile's place) and lists its parts. */
static enum status do_tile(struct pipeline *pipeline, size_t i, uint64_t index, uint8_t *source, uint8_t *const planes[], struct worker *worker,
                           struct measure *measure, size_t *n_parts, struct err *err)
{
    const struct plan_entry *entry = &pipeline->plan->entries[i];
    const struct out_tensor *out = &pipeline->plan->outs[i];
    struct tile place = plane_tile(&entry->source, index);
    size_t n_items = (size_t)(place.n_rows * place.n_cols);
    enum status status = OK;
    if (entry->fate == FATE_QUANTISE) status = quantise_tile(pipeline, i, &place, source, planes, worker, measure, err);
    else if (entry->fate == FATE_CARRY) status = carry_tile(pipeline, i, index, &place, source, planes, worker, err);
    else if (entry->fate == FATE_CAST) entry->cast->narrow((const float *)(const void *)source, n_items, planes[0]);
    else if (entry->kept.kind == KEPT_DATA) {
        add_part(worker, n_parts, 0, index, source, plane_tile_nbytes(&entry->source, index));
        return OK;
    } else kept_split(entry->kept.kind, entry->kept.item_nbytes, source, n_items, planes);
    if (!status && index == 0) store_whole(pipeline, i, planes);
    for (uint32_t k = 0; k < out->n_planes && !status; k++)
        if (!entry->whole[k] || index == 0) add_part(worker, n_parts, k, index, planes[k], plane_tile_nbytes(&out->planes[k].plane, index));
    return status;
}

/* Results of a job, added in ticket order. */
struct folding {
    struct pipeline *pipeline;
    const struct job *job;
    const struct worker *worker;
};

static void fold(void *context)
{
    const struct folding *folding = context;
    struct pipeline *pipeline = folding->pipeline;
    size_t i = folding->job->tensor;
    uint64_t n = folding->job->n_tiles;
    if (folding->job->first_tile == 0) digest_reset(pipeline->stream);
    for (uint64_t k = 0; k < n; k++) {
        digest_add(pipeline->stream, &folding->worker->digests[k], sizeof folding->worker->digests[k]);
        measure_add(&pipeline->result->measures[i], &folding->worker->measures[k]);
    }
    if (folding->job->first_tile + n == plan_tile_count(pipeline->plan, i)) pipeline->digests[i] = digest_value(pipeline->stream);
}

/* Planes of the source for each tile of the job, one behind the other. */
static enum status carry_read(const struct plan *plan, const struct job *job, uint8_t *buf, struct err *err)
{
    const struct plan_entry *entry = &plan->entries[job->tensor];
    enum status status = OK;
    for (uint64_t tile = job->first_tile; tile < job->first_tile + job->n_tiles; tile++)
        for (uint32_t k = 0; k < entry->n_from && !status; k++) {
            const struct span span = plan_from(plan, job->tensor, k, tile);
            status = container_read_plane(plan->container, entry->tensor, k, span.offset, (size_t)span.nbytes, buf, err);
            buf += span.nbytes;
        }
    return status;
}

static enum status encode_job(void *context, unsigned worker_index, const struct job *job, struct err *err)
{
    struct pipeline *pipeline = context;
    const struct plan *plan = pipeline->plan;
    const struct plan_entry *entry = &plan->entries[job->tensor];
    const struct out_tensor *out = &plan->outs[job->tensor];
    struct worker *worker = &pipeline->workers[worker_index];
    uint8_t *planes[OUT_PLANES_MAX], *source = worker->source;
    size_t n_parts = 0;
    memcpy(planes, worker->planes, sizeof planes);
    enum status status = entry->n_from
                             ? carry_read(plan, job, worker->source, err)
                             : tile_read(plan->container, entry->tensor, &entry->source, job->first_tile, job->n_tiles, worker->source, err);
    for (uint64_t k = 0; k < job->n_tiles && !status; k++) {
        uint64_t index = job->first_tile + k, nbytes = plan_tile_nbytes(plan, job->tensor, index);
        worker->measures[k] = (struct measure){ 0 };
        status = migrate_kept(pipeline, job->tensor, index, source, worker, err);
        if (plan->writer->digests) worker->digests[k] = digest128(source, (size_t)nbytes);
        if (!status) status = do_tile(pipeline, job->tensor, index, source, planes, worker, &worker->measures[k], &n_parts, err);
        source += nbytes;
        for (uint32_t p = 0; p < out->n_planes; p++)
            if (!entry->whole[p]) planes[p] += plane_tile_nbytes(&out->planes[p].plane, index);
    }
    if (status) return status;
    struct folding folding = { pipeline, job, worker };
    status = plan->writer->put(pipeline->writer, worker_index, job->ticket, job->tensor, worker->parts, n_parts, fold, &folding, err);
    if (!status) progress_add(pipeline->progress, (uint64_t)(source - worker->source));
    return status;
}

static uint64_t encode_tiles(void *context, size_t i)
{
    const struct pipeline *pipeline = context;
    return i >= pipeline->first && i < pipeline->end ? plan_tile_count(pipeline->plan, i) : 0;
}

static void encode_failed(void *context)
{
    struct pipeline *pipeline = context;
    pipeline->plan->writer->abort(pipeline->writer);
}

/* ---- running -------------------------------------------------------------------------------------------------------------------- */

static enum status make_all(struct pipeline *pipeline, struct err *err)
{
    const struct plan *plan = pipeline->plan;
    pipeline->workers = calloc(plan->n_workers, sizeof *pipeline->workers);
    pipeline->given = calloc(plan->n_tensors + 1, sizeof *pipeline->given);
    pipeline->tensor_scales = calloc(plan->n_tensors + 1, sizeof *pipeline->tensor_scales);
    pipeline->digests = calloc(plan->n_tensors + 1, sizeof *pipeline->digests);
    pipeline->result->measures = calloc(plan->n_tensors + 1, sizeof *pipeline->result->measures);
    pipeline->stream = digest_open();
    if (!pipeline->workers || !pipeline->given || !pipeline->tensor_scales || !pipeline->digests || !pipeline->result->measures || !pipeline->stream)
        return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < plan->n_tensors; i++) pipeline->digests[i] = digest128("", 0);
    enum status status = OK;
    for (unsigned w = 0; w < plan->n_workers && !status; w++) status = worker_make(plan, &pipeline->workers[w], err);
    return status;
}

/* Bytes that the observed scales of one tensor take. */
static uint64_t observed_nbytes(const struct plan *plan, size_t i)
{
    const struct plan_entry *entry = &plan->entries[i];
    const struct quant *quant = &entry->verdict.quant;
    if (!entry->spans) return 0;
    return quant_scale_rows(quant, entry->shape.rows, shape_matrix_rows(&entry->shape)) * quant_groups_per_row(quant, entry->shape.cols) *
           sizeof(struct group_scale);
}

/* Observes tensors from number first on, as long as little memory is taken for their scales; *end is the first one left out. */
static enum status observe_some(struct pipeline *pipeline, size_t first, size_t *end, struct err *err)
{
    const struct plan *plan = pipeline->plan;
    uint64_t held = 0;
    enum status status = OK;
    for (*end = first; *end < plan->n_tensors && !status; ++*end) {
        held += observed_nbytes(plan, *end);
        if (held > PLAN_HELD_NBYTES && *end > first) break;
        if (plan_tile_count(plan, *end)) status = observe_tensor(pipeline, *end, err);
    }
    return status;
}

/* Encodes the tensors that have been observed; tickets go on from run to run. */
static enum status encode_some(struct pipeline *pipeline, size_t first, size_t end, uint64_t *ticket, struct err *err)
{
    const struct plan *plan = pipeline->plan;
    struct job_list list = {
        plan->n_tensors, encode_tiles, plan->options.tiles_per_job, plan->n_workers, pipeline->app->stop, encode_job, encode_failed, pipeline, ticket
    };
    pipeline->first = first;
    pipeline->end = end;
    enum status status = jobs_run(&list, err);
    for (size_t i = first; i < end; i++) {
        free(pipeline->given[i]);
        pipeline->given[i] = NULL;
    }
    return status;
}

static enum status run_passes(struct pipeline *pipeline, struct err *err)
{
    const struct plan *plan = pipeline->plan;
    enum status status = OK;
    uint64_t ticket = 0;
    for (size_t first = 0, end; first < plan->n_tensors && !status; first = end) {
        status = observe_some(pipeline, first, &end, err);
        if (!status) status = encode_some(pipeline, first, end, &ticket, err);
    }
    if (!status) status = container_check_unchanged(plan->container, err);
    return status ? status : plan->writer->finish(pipeline->writer, pipeline->digests, err);
}

static void free_all(struct pipeline *pipeline)
{
    const struct plan *plan = pipeline->plan;
    for (unsigned w = 0; pipeline->workers && w < plan->n_workers; w++) worker_free(&pipeline->workers[w]);
    for (size_t i = 0; pipeline->given && i < plan->n_tensors; i++) free(pipeline->given[i]);
    for (size_t i = 0; pipeline->tensor_scales && i < plan->n_tensors; i++) free(pipeline->tensor_scales[i]);
    free(pipeline->tensor_scales);
    free(pipeline->workers);
    free(pipeline->given);
    free(pipeline->digests);
    digest_close(pipeline->stream);
}

/* The name under which progress is shown. */
static const char *phase_of(const struct plan *plan)
{
    if (plan->smoothing && !plan->n_quantised) return "smooth";
    return plan->writer->quantised ? "convert" : "dequantize";
}

enum status pipeline_run(const struct app *app, const struct plan *plan, struct outset *set, struct result *result, struct err *err)
{
    struct pipeline pipeline = { .app = app, .plan = plan, .result = result };
    double start = clock_seconds();
    *result = (struct result){ 0 };
    enum status status = make_all(&pipeline, err);
    if (!status) status = plan->writer->open(set, plan->outs, plan->n_tensors, plan->blobs, plan->n_blobs, &plan->options, &pipeline.writer, err);
    if (!status) {
        pipeline.progress = progress_open(app, phase_of(plan), plan->read_nbytes - plan->scan_nbytes);
        status = run_passes(&pipeline, err);
        progress_close(pipeline.progress);
    }
    plan->writer->close(pipeline.writer);
    free_all(&pipeline);
    result->seconds = clock_seconds() - start;
    return status;
}

enum status pipeline_execute(const struct app *app, const struct plan *plan, struct result *result, struct err *err)
{
    struct outset *set = NULL;
    double start = clock_seconds();
    enum status status = outset_open(app->io, settings_flag(&app->settings, SET_FORCE), &set, err);
    for (size_t i = 0; i < plan->container->n_files && !status; i++) status = outset_add_input(set, &plan->container->files[i], err);
    if (!status) status = smooth_write_files(plan, set, err);
    if (!status) status = pipeline_run(app, plan, set, result, err);
    result->out_nbytes = outset_nbytes(set);
    if (!status) status = outset_commit(set, err);
    outset_close(set);
    result->seconds = clock_seconds() - start;
    return status;
}

void result_free(struct result *result)
{
    free(result->measures);
    *result = (struct result){ 0 };
}
