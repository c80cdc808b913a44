/* sweep_encode.c: every tile once through every lane: codes and scales as convert makes them, their digest, their error.
 *
 *   tile --read, widen--> x --(migrate a copy)--> --lane--> planes --digest--> 16 bytes      planes --unpack--> codes, scales --> y --> clipped, weighed error
 *   in ticket order: sums += tile's, digest of digests
 *
 * Why this way: planes of one tile and one lane at a time, so that memory does not grow with the number of lanes.
 * Corner cases: a scale that overflows fails its lane alone, by the first tile in order; a weight counts as clipped when its code is the format's last
 * and it lies farther beyond than half the last step; NaN and Inf that --nonfinite lets pass are left out of weighed sums and of clipping.
 * Reference: SWEEP.md; FORMAT.md 2.1 (digest of planes). Worked number: int4, scale 1: 7.5 is not clipped, 7.6 is.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "converter/jobs.h"
#include "converter/scan.h"
#include "converter/sweep_run.h"
#include "converter/tile_read.h"
#include "layout/pack.h"

enum { PIECE = 1024 }; /* weights that are reviewed at a time */

/* ---- reading ------------------------------------------------------------------------------------------------------------------------ */

enum status sweep_read(struct sweep *sweep, const struct sweep_stream *stream, uint64_t tile, struct sweep_worker *worker, const float **x,
                       struct err *err)
{
    const struct dtype *dtype = tile_read_dtype(&sweep->container->tensors[stream->item]);
    const struct tile place = plane_tile(&stream->geometry, tile);
    const size_t n = (size_t)(place.n_rows * place.n_cols);
    enum status status = tile_read(sweep->container, stream->item, &stream->geometry, tile, 1, worker->source, err);
    if (status) return status;
    progress_add(sweep->progress, plane_tile_nbytes(&stream->geometry, tile));
    atomic_fetch_add(&sweep->read_nbytes, plane_tile_nbytes(&stream->geometry, tile));
    *x = worker->x;
    if (!stream->coded) return OK;
    if (strcmp(dtype->name, "F32") == 0) *x = (const float *)(const void *)worker->source;
    else if (dtype->widen_fast) sweep->app->kernels->widen_bf16(worker->source, n, worker->x);
    else dtype->widen(worker->source, n, worker->x);
    return OK;
}

struct codec_tile sweep_codec_tile(const struct sweep *sweep, const struct sweep_cell *cell, size_t item, const struct tile *place, const float *x)
{
    const struct sweep_item *it = &sweep->items[item];
    return (struct codec_tile){ .source = (const uint8_t *)(const void *)x,
                                .dtype = dtype_find("F32", 3),
                                .n_rows = place->n_rows,
                                .n_cols = place->n_cols,
                                .nonfinite = sweep->nonfinite,
                                .first_row = place->row,
                                .first_col = place->col,
                                .importance = cell && cell->heeds && cell->importance->n_mat ? cell->importance->rows : NULL,
                                .matrix_rows = shape_matrix_rows(&it->shape) };
}

enum status sweep_nonfinite(struct sweep *sweep, size_t item, struct err *err)
{
    char name[200];
    struct scan scan;
    enum status status = scan_tensor(sweep->container, item, sweep->app->kernels, &scan, err);
    if (status) return status;
    if (scan.n_nan + scan.n_inf == 0)
        return err_set(err, ERR_DATA, "cannot migrate tensor '%s' of '%s': a weight becomes infinite",
                       err_name(sweep->items[item].name, strlen(sweep->items[item].name), name, sizeof name), sweep->container->path);
    return err_set(err, ERR_DATA,
                   "cannot quantise tensor '%s' of '%s': NaN or Inf at row %llu, column %llu (%llu NaN, %llu Inf in the tensor); --nonfinite zero, "
                   "clamp or keep allows it",
                   err_name(sweep->items[item].name, strlen(sweep->items[item].name), name, sizeof name), sweep->container->path,
                   (unsigned long long)scan.bad_row, (unsigned long long)scan.bad_col, (unsigned long long)scan.n_nan,
                   (unsigned long long)scan.n_inf);
}

/* ---- the ends of a format ------------------------------------------------------------------------------------------------------------ */

/* The code with the largest value times sign, and half the step to the next one. */
static bool find_end(const struct elem *elem, float sign, uint16_t *end, float *half)
{
    float best = -INFINITY, second = -INFINITY;
    for (uint32_t code = 0; code < 1u << elem->bits; code++) {
        const float value = sign * elem_decode(elem, code);
        if (!isfinite(value)) continue;
        if (value > best) {
            second = best;
            best = value;
            *end = (uint16_t)code;
        } else if (value > second && value < best) second = value;
    }
    *half = (best - second) * 0.5f;
    return isfinite(second);
}

struct sweep_ends sweep_ends_of(const struct quant *quant)
{
    struct sweep_ends ends = { 0 };
    if (!quant->elem || quant->blocks) return ends;
    ends.known = find_end(quant->elem, 1.0f, &ends.high, &ends.high_half) && find_end(quant->elem, -1.0f, &ends.low, &ends.low_half);
    return ends;
}

/* Weights of one group that lie beyond its codes. A negative scale turns the ends around, and the differences with them. */
static uint64_t count_clipped(const struct sweep_ends *ends, float scale, const float *x, const float *y, const uint16_t *codes, size_t n)
{
    const float sign = scale < 0.0f ? -1.0f : 1.0f, high = ends->high_half * fabsf(scale), low = ends->low_half * fabsf(scale);
    uint64_t count = 0;
    for (size_t i = 0; i < n; i++) {
        const float d = sign * (x[i] - y[i]);
        count += (codes[i] == ends->high && d > high && d < INFINITY) || (codes[i] == ends->low && -d > low && -d < INFINITY);
    }
    return count;
}

/* ---- one tile in one lane ------------------------------------------------------------------------------------------------------------ */

/* A tile that was coded. */
struct coded {
    struct sweep *sweep;
    size_t lane, item;
    const struct sweep_cell *cell;
    const struct shape *shape;
    const struct tile *place;
    const float *x;
    struct plane planes[CODEC_PLANES_MAX];
    uint32_t n_planes;
    uint64_t row_nbytes[CODEC_PLANES_MAX]; /* of the tile's rows in each plane; 0: a plane of the whole tensor */
    uint8_t *bytes[CODEC_PLANES_MAX];
};

static void weigh(const float *x, const float *y, const float *weight, size_t n, struct sweep_sums *sums)
{
    double wxx = 0.0, wdd = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double a = (double)x[i], d = a - (double)y[i], w = weight ? (double)weight[i] : 1.0;
        if (!isfinite(x[i])) continue;
        wxx += w * a * a;
        wdd += w * d * d;
    }
    sums->sum_wxx += wxx;
    sums->sum_wdd += wdd;
}

/* Row r of the tile and its importance. */
struct review {
    const struct coded *coded;
    struct sweep_worker *worker;
    struct sweep_sums *sums;
    uint64_t row;
    const float *x, *weight;
    float tensor_scale;
    bool weighted;
};

/* Only groups in which some error is larger than half a last step are looked at weight by weight. */
static void clip_piece(const struct review *review, const struct groups *groups, const float *x, const float *y, const uint16_t *codes)
{
    const struct sweep *sweep = review->coded->sweep;
    const struct sweep_ends *ends = &((const struct sweep_quant *)(const void *)review->coded->cell->quant)->ends;
    const float least = ends->high_half < ends->low_half ? ends->high_half : ends->low_half;
    float d[PIECE];
    struct range ranges[PIECE];
    const bool finite = sweep->nonfinite == NONFINITE_ERROR;
    for (size_t i = 0; i < groups->n; i++) d[i] = x[i] - y[i];
    if (finite) sweep->app->kernels->ranges(d, groups->n, groups->group, ranges);
    for (size_t i = 0, g = 0; i < groups->n; i += groups->group, g++) {
        const float scale = groups->scales[g].value * review->tensor_scale;
        if (finite && !(range_amax(ranges[g]) > least * fabsf(scale))) continue;
        review->sums->n_clipped += count_clipped(ends, scale, x + i, y + i, codes + i, (size_t)size_min(groups->group, groups->n - i));
    }
}

/* Weights [at, at + n) of the row, whose scales (one for each `group` of them) are known. */
static void review_piece(const struct review *review, uint64_t at, const struct groups *groups, const uint16_t *codes)
{
    const struct coded *coded = review->coded;
    const struct sweep_ends *ends = &((const struct sweep_quant *)(const void *)coded->cell->quant)->ends;
    const float *x = review->x + at;
    float *y = review->worker->y;
    coded->sweep->app->kernels->decode(coded->cell->quant->elem, groups, codes, y);
    for (size_t i = 0; coded->cell->quant->tensor_scale && i < groups->n; i++) y[i] *= review->tensor_scale;
    if (ends->known) clip_piece(review, groups, x, y, codes);
    if (review->weighted) weigh(x, y, review->weight ? review->weight + at : NULL, groups->n, review->sums);
    if (review->worker->decoded) memcpy(review->worker->decoded + review->row * coded->place->n_cols + at, y, groups->n * sizeof *y);
    if (coded->sweep->counts)
        sweep_count(coded->sweep, coded->lane, codes, groups->n, groups->scales, (size_t)size_ceil_div(groups->n, groups->group));
}

/* Pieces that are whole groups or sub-blocks, or lie in one. */
static void review_row(const struct review *review)
{
    const struct coded *coded = review->coded;
    const struct quant *quant = coded->cell->quant;
    const uint64_t unit = quant->sub_block ? quant->sub_block : quant->group, n_cols = coded->place->n_cols;
    const uint8_t *streams[3] = { NULL };
    uint16_t codes[PIECE];
    struct group_scale scales[PIECE];
    const uint64_t matrix_rows = shape_matrix_rows(coded->shape), scale_row = quant_scale_row(quant, matrix_rows, coded->place->row + review->row);
    const uint64_t row_of_scales = scale_row - quant_scale_row(quant, matrix_rows, coded->place->row);
    for (uint32_t k = 0; k < coded->n_planes && k < 3; k++) streams[k] = coded->bytes[k] + (k ? row_of_scales : review->row) * coded->row_nbytes[k];
    const struct group_scale *given = coded->sweep->lanes[coded->lane].given[coded->item];
    if (given) given += scale_row * quant_groups_per_row(quant, coded->shape->cols);
    for (uint64_t at = 0, n; at < n_cols; at += n) {
        n = size_min(n_cols - at, PIECE);
        if (unit && unit <= PIECE) n = size_min(n, PIECE / unit * unit);
        else if (unit) n = size_min(n, unit - at % unit);
        const struct groups groups = { (size_t)n, unit && unit < n ? (size_t)unit : (size_t)n, scales };
        const size_t n_scales = (size_t)size_ceil_div(n, groups.group);
        if (given) memcpy(scales, given + (quant->group ? (coded->place->col + at) / quant->group : 0), n_scales * sizeof *scales);
        else layout_load_scales(quant, streams[1], streams[2], unit ? at / unit : 0, n_scales, scales);
        unpack_bits(streams[0], at, (size_t)n, quant->elem->bits, codes);
        review_piece(review, at, &groups, codes);
    }
}

/* Types of blocks: decoded as they are. */
static void review_blocks(const struct review *review)
{
    const struct coded *coded = review->coded;
    const uint8_t *streams[CODEC_PLANES_MAX] = { coded->bytes[0] + review->row * coded->row_nbytes[0] };
    const uint64_t step = PIECE / size_max(coded->cell->quant->group, 1) * size_max(coded->cell->quant->group, 1);
    for (uint64_t at = 0, n; at < coded->place->n_cols && (review->weighted || review->worker->decoded); at += n) {
        float *y = review->worker->y;
        n = size_min(step, coded->place->n_cols - at);
        codec_decode_row(coded->cell->quant, coded->sweep->app->kernels, streams, 1.0f, at, (size_t)n, y);
        if (review->weighted) weigh(review->x + at, y, review->weight ? review->weight + at : NULL, (size_t)n, review->sums);
        if (review->worker->decoded) memcpy(review->worker->decoded + review->row * coded->place->n_cols + at, y, (size_t)n * sizeof *y);
    }
}

static void review_tile(const struct coded *coded, struct sweep_worker *worker, struct sweep_sums *sums)
{
    const struct importance *importance = coded->cell->importance;
    const float *scales = coded->sweep->lanes[coded->lane].tensor_scales[coded->item];
    struct review review = { .coded = coded, .worker = worker, .sums = sums, .weighted = coded->sweep->table->weighted };
    for (review.row = 0; review.row < coded->place->n_rows; review.row++) {
        const uint64_t matrix = (coded->place->row + review.row) / shape_matrix_rows(coded->shape);
        const float *weight = importance->n_mat ? importance->rows[matrix] : NULL;
        review.x = coded->x + review.row * coded->place->n_cols;
        review.weight = weight ? weight + coded->place->col : NULL;
        review.tensor_scale = scales ? scales[matrix] : 1.0f;
        if (!coded->cell->quant->elem || coded->cell->quant->blocks) review_blocks(&review);
        else review_row(&review);
    }
}

static void lay_planes(struct coded *coded, uint64_t index, uint8_t *at)
{
    struct tile fields;
    coded->n_planes = codec_planes(coded->cell->quant, coded->shape, coded->planes);
    for (uint32_t k = 0; k < coded->n_planes; k++) {
        const struct plane *plane = &coded->planes[k];
        const bool tiled = codec_fields(coded->cell->quant, coded->shape, plane, coded->place, &fields);
        coded->bytes[k] = at;
        coded->row_nbytes[k] = tiled ? size_ceil_div(fields.n_cols * plane->bits, 8) : 0;
        at += tiled ? coded->row_nbytes[k] * fields.n_rows : index == 0 ? plane_nbytes(plane) : 0;
    }
    for (uint32_t k = coded->n_planes; k < CODEC_PLANES_MAX; k++) coded->bytes[k] = at;
}

/* Digest of what the tile has of each plane, one behind the other; whole planes count to the first tile. */
static struct digest128 digest_planes(const struct coded *coded, const struct sweep_worker *worker)
{
    digest_reset(worker->stream);
    for (uint32_t k = 0; k < coded->n_planes; k++)
        digest_add(worker->stream, coded->bytes[k], (size_t)(coded->bytes[k + 1 < CODEC_PLANES_MAX ? k + 1 : k] - coded->bytes[k]));
    return digest_value(worker->stream);
}

static void code_tile(struct sweep *sweep, size_t v, const struct sweep_stream *stream, uint64_t index, const struct tile *place, const float *x,
                      struct sweep_worker *worker)
{
    struct sweep_lane *lane = &sweep->lanes[v];
    struct sweep_part *part = &worker->parts[v];
    const struct sweep_cell *cell = &lane->cells[stream->item];
    x = sweep_migrate(cell->fold, place, x, worker);
    struct coded coded = {
        .sweep = sweep, .lane = v, .item = stream->item, .cell = cell, .shape = &sweep->items[stream->item].shape, .place = place, .x = x
    };
    *part = (struct sweep_part){ 0 };
    lay_planes(&coded, index, worker->planes);
    struct codec_tile tile = sweep_codec_tile(sweep, cell, stream->item, place, x);
    tile.measure = &part->sums.measure;
    tile.tensor_scales = lane->tensor_scales[stream->item];
    tile.given = lane->given[stream->item];
    tile.given_cols = quant_groups_per_row(cell->quant, coded.shape->cols);
    memcpy(tile.planes, coded.bytes, sizeof tile.planes);
    if (!codec_encode(cell->quant, sweep->app->kernels, &tile, &worker->scratch, &part->fault)) return;
    part->fault.kind = CODEC_FINE;
    if (index == 0) codec_store_whole(cell->quant, coded.shape, tile.given, tile.tensor_scales, coded.bytes);
    part->digest = digest_planes(&coded, worker);
    review_tile(&coded, worker, &part->sums);
}

/* A tile of a kept tensor that the lane migrates. */
static void keep_tile(const struct sweep *sweep, size_t v, size_t item, const struct tile *place, struct sweep_worker *worker)
{
    struct sweep_part *part = &worker->parts[v];
    *part = (struct sweep_part){ .fault.kind = CODEC_FINE };
    part->infinite = !sweep_migrate_kept(sweep, item, sweep->lanes[v].cells[item].fold, place, worker, &part->digest);
}

enum status sweep_decode_tile(struct sweep *sweep, size_t lane, const struct sweep_stream *stream, uint64_t tile, struct sweep_worker *worker,
                              struct err *err)
{
    const struct tile place = plane_tile(&stream->geometry, tile);
    const float *x;
    enum status status = sweep_read(sweep, stream, tile, worker, &x, err);
    if (status) return status;
    code_tile(sweep, lane, stream, tile, &place, x, worker);
    if (worker->parts[lane].fault.kind == CODEC_FINE) return OK;
    if (worker->parts[lane].fault.kind == CODEC_NONFINITE) return sweep_nonfinite(sweep, stream->item, err);
    return err_set(err, ERR_DATA, "a scale of tensor '%s' overflows", sweep->items[stream->item].name);
}

/* ---- in ticket order ------------------------------------------------------------------------------------------------------------------ */

static void add_sums(struct sweep_sums *total, const struct sweep_sums *part)
{
    measure_add(&total->measure, &part->measure);
    total->sum_wxx += part->sum_wxx;
    total->sum_wdd += part->sum_wdd;
    total->n_clipped += part->n_clipped;
}

static void fail_lane(struct sweep *sweep, struct sweep_lane *lane, size_t item, const struct tile *place, const struct codec_fault *fault)
{
    const struct quant *quant = lane->cells[item].quant;
    if (!lane->failed)
        snprintf(lane->failure, sizeof lane->failure, "tensor '%.100s': weights at row %llu, column %llu are too large for scales of type %s",
                 sweep->items[item].name, (unsigned long long)(place->row + fault->row), (unsigned long long)(place->col + fault->col),
                 quant->scale == SCALE_NONE ? "f16" : scale_type_name(quant->scale));
    lane->failed = true;
}

static void fold_lane(struct sweep *sweep, struct sweep_lane *lane, const struct sweep_stream *stream, uint64_t k, const struct tile *place,
                      const struct sweep_part *part)
{
    struct sweep_cell *cell = &lane->cells[stream->item];
    if (lane->failed) return;
    if (part->infinite) {
        snprintf(lane->failure, sizeof lane->failure,
                 "tensor '%.100s': a number near row %llu, column %llu becomes too large for %s when it is migrated", sweep->items[stream->item].name,
                 (unsigned long long)place->row, (unsigned long long)place->col, sweep->container->tensors[stream->item].dtype->name);
        lane->failed = true;
        return;
    }
    if (part->fault.kind != CODEC_FINE) {
        fail_lane(sweep, lane, stream->item, place, &part->fault);
        return;
    }
    if (k == 0) {
        cell->sums = (struct sweep_sums){ 0 };
        digest_reset(lane->stream);
    }
    add_sums(&cell->sums, &part->sums);
    digest_add(lane->stream, &part->digest, sizeof part->digest);
    if (k + 1 == stream->n_tiles) cell->digest = digest_value(lane->stream);
}

static bool takes(const struct sweep *sweep, size_t v, const struct sweep_stream *stream, uint32_t number)
{
    const struct sweep_cell *cell = &sweep->lanes[v].cells[stream->item];
    if (!sweep->items[stream->item].wanted || sweep->lanes[v].failed) return false;
    return cell->quant ? cell->stream == number : cell->fold && sweep->items[stream->item].source_stream == number;
}

static enum status fold(struct sweep *sweep, uint32_t number, const struct job *job, const struct tile *place, const struct sweep_worker *worker,
                        struct err *err)
{
    const struct sweep_stream *stream = &sweep->streams[number];
    struct sweep_item *item = &sweep->items[stream->item];
    for (size_t v = 0; v < sweep->n_lanes; v++)
        if (takes(sweep, v, stream, number)) fold_lane(sweep, &sweep->lanes[v], stream, job->first_tile, place, &worker->parts[v]);
    if (number == item->source_stream) {
        if (job->first_tile == 0) digest_reset(sweep->source_stream);
        digest_add(sweep->source_stream, &worker->source_digest, sizeof worker->source_digest);
        if (job->first_tile + 1 == stream->n_tiles) item->source_digest = digest_value(sweep->source_stream);
    }
    const bool last = job->first_tile + 1 == stream->n_tiles && number + 1 == item->first_stream + item->n_streams;
    return last && !sweep->counts ? sweep_state_put(sweep, stream->item, err) : OK;
}

static enum status encode_job(void *context, unsigned number, const struct job *job, struct err *err)
{
    struct sweep *sweep = context;
    struct sweep_worker *worker = &sweep->workers[number];
    const uint32_t at = (uint32_t)job->tensor;
    const struct sweep_stream *stream = &sweep->streams[at];
    const uint64_t index = sweep_tile(sweep, stream, job->first_tile);
    const struct tile place = plane_tile(&stream->geometry, index);
    const float *x;
    enum status status = sweep_read(sweep, stream, index, worker, &x, err);
    if (status) return status;
    if (at == sweep->items[stream->item].source_stream)
        worker->source_digest = digest128(worker->source, (size_t)plane_tile_nbytes(&stream->geometry, index));
    for (size_t v = 0; v < sweep->n_lanes; v++) {
        if (!takes(sweep, v, stream, at)) {
            worker->parts[v] = (struct sweep_part){ 0 };
            continue;
        }
        if (sweep->lanes[v].cells[stream->item].quant) code_tile(sweep, v, stream, index, &place, x, worker);
        else keep_tile(sweep, v, stream->item, &place, worker);
        if (worker->parts[v].fault.kind == CODEC_NONFINITE) return sweep_nonfinite(sweep, stream->item, err);
    }
    if (!turn_wait(&sweep->turn, job->ticket)) return err_set(err, ERR_CANCELLED, "stopped");
    status = fold(sweep, at, job, &place, worker, err);
    turn_done(&sweep->turn, job->ticket);
    return status;
}

static uint64_t encode_tiles(void *context, size_t number)
{
    const struct sweep *sweep = context;
    return sweep->batch[number] ? sweep->streams[number].n_tiles : 0;
}

static void encode_failed(void *context)
{
    turn_abort(&((struct sweep *)context)->turn);
}

enum status sweep_encode(struct sweep *sweep, struct err *err)
{
    turn_init(&sweep->turn);
    struct job_list list = { sweep->n_streams, encode_tiles, 1, sweep->n_workers, sweep->app->stop, encode_job, encode_failed, sweep, NULL };
    enum status status = jobs_run(&list, err);
    turn_destroy(&sweep->turn);
    return status;
}
