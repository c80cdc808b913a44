/* smooth_target.c: see smooth_target.h.
 *
 * Drawing: spanning groups: ranges -> error sums -> scales;  all: codec_encode of one tile of whole rows -> planes -> rows
 * Why this way: see smooth_target.h. Tiles are whole rows, so that how many there are at a time changes nothing but for spanning groups.
 * Corner cases: importance of a matrix that is all 0 is none; the planes of scales of a square's rows are those of its band.
 * Reference: NUMERICS.md 5. Worked number: int4, group 128x128, 200 rows of 300: 2 x 3 scales.
 */
#include "smoothquant/smooth_target.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "layout/codec.h"
#include "number/choose.h"
#include "number/kernel.h"

struct smooth_target {
    const struct quant *quant;
    const struct kernels *kernels;
    const struct dtype *dtype;
    uint64_t max_rows, n;
    struct codec_scratch scratch;
    uint8_t *planes[CODEC_PLANES_MAX];
    size_t n_groups; /* spanning groups there is room for, 0 where they do not span */
    struct range *ranges;
    double (*errors)[CANDIDATES_MAX];
    struct group_scale *given;
    uint64_t *memory; /* of a stream of weights */
};

uint64_t smooth_target_rows(const struct quant *quant)
{
    return quant->group_kind == GROUP_TENSOR ? 0 : quant->group_kind == GROUP_SQUARE ? SQUARE_SIDE : 1;
}

/* ---- memory --------------------------------------------------------------------------------------------------------------------- */

static enum status check(const struct quant *quant, uint64_t n_rows, uint64_t n, struct err *err)
{
    uint64_t n_weights, n_bits;
    if (n > TILE_WEIGHTS) return err_set(err, ERR_UNSUPPORTED, "rows of %" PRIu64 " weights are too long to search for their factors", n);
    if (!size_mul(n_rows, n, &n_weights) || !size_mul(n_weights, 64, &n_bits) || n_bits > INT64_MAX)
        return err_set(err, ERR_UNSUPPORTED, "%" PRIu64 " x %" PRIu64 " weights are too many", n_rows, n);
    if (!quant_fits(quant, n))
        return err_set(err, ERR_UNSUPPORTED, "rows of %" PRIu64 " weights are no multiple of the %u of a block of %s", n,
                       quant->format->block->elements, quant->format->name);
    if (quant->group_kind == GROUP_SQUARE && choose_reads(quant->rule))
        return err_set(err, ERR_UNSUPPORTED, "rule %s takes no squares", scale_rule_name(quant->rule));
    return OK;
}

static bool make_planes(struct smooth_target *target, const struct shape *shape)
{
    struct plane planes[CODEC_PLANES_MAX];
    const uint32_t n_planes = codec_planes(target->quant, shape, planes);
    bool done = true;
    for (uint32_t k = 0; k < n_planes; k++) {
        target->planes[k] = malloc((size_t)plane_nbytes(&planes[k]) + 8);
        done = done && target->planes[k];
    }
    if (codec_spans(target->quant, shape->rows, shape->cols)) target->n_groups = (size_t)(planes[1].rows * planes[1].cols);
    return done;
}

static bool make_scratch(struct smooth_target *target)
{
    const size_t some = codec_scratch_weights(target->quant, target->max_rows, target->n);
    size_t n = (size_t)size_max(some, codec_scratch_importance(target->quant, target->max_rows, target->n)) + 1;
    if (target->quant->group_kind == GROUP_TENSOR) n = (size_t)size_max(n, size_min(target->max_rows * target->n, TILE_WEIGHTS) + 1); /* fewer rows */
    target->scratch = (struct codec_scratch){ malloc(n * sizeof(float)), malloc(n * sizeof(float)), malloc(n * sizeof(uint16_t)), n - 1 };
    if (!target->scratch.x || !target->scratch.y || !target->scratch.codes) return false;
    if (target->n_groups == 0) return true;
    target->ranges = malloc(target->n_groups * sizeof *target->ranges);
    target->errors = malloc(target->n_groups * sizeof *target->errors);
    target->given = malloc(target->n_groups * sizeof *target->given);
    target->memory = malloc(CHOOSE_NBYTES);
    return target->ranges && target->errors && target->given && target->memory;
}

enum status smooth_target_open(const struct quant *quant, uint64_t n_rows, uint64_t n, struct smooth_target **out, struct err *err)
{
    const struct shape shape = { n_rows, n, 1 };
    *out = NULL;
    enum status status = check(quant, n_rows, n, err);
    if (status != OK) return status;
    struct smooth_target *target = calloc(1, sizeof *target);
    if (!target) return err_set(err, ERR_MEMORY, "out of memory");
    *target = (struct smooth_target){ .quant = quant, .kernels = kernels_select(NULL), .dtype = dtype_find("F32", 3), .max_rows = n_rows, .n = n };
    *out = target;
    if (n_rows == 0 || n == 0 || (make_planes(target, &shape) && make_scratch(target))) return OK;
    smooth_target_close(target);
    *out = NULL;
    return err_set(err, ERR_MEMORY, "out of memory for %" PRIu64 " x %" PRIu64 " weights", n_rows, n);
}

void smooth_target_close(struct smooth_target *target)
{
    if (!target) return;
    for (uint32_t k = 0; k < CODEC_PLANES_MAX; k++) free(target->planes[k]);
    free(target->scratch.x);
    free(target->scratch.y);
    free(target->scratch.codes);
    free(target->ranges);
    free(target->errors);
    free(target->given);
    free(target->memory);
    free(target);
}

/* ---- groups over several tiles -------------------------------------------------------------------------------------------------- */

struct run {
    struct smooth_target *target;
    struct shape shape;
    struct codec_tile whole; /* all rows */
    struct plane source; /* their tiles */
};

/* Where the weights of a tile go. */
struct span_target {
    struct choose_stream *stream;
    struct learn_part part;
};

static void take_span(void *context, const float *x, const float *weight, size_t n)
{
    struct span_target *span = context;
    if (span->stream->learns) choose_stream_observe(span->stream, x, weight, n, &span->part);
    else choose_stream_span(span->stream, x, n);
}

static struct codec_tile tile_of(const struct run *run, uint64_t t, struct tile *place)
{
    *place = plane_tile(&run->source, t);
    return codec_part(&run->whole, place);
}

static bool find_ranges(const struct run *run)
{
    struct smooth_target *target = run->target;
    for (size_t g = 0; g < target->n_groups; g++) target->ranges[g] = (struct range){ 0.0f, 0.0f };
    for (uint64_t t = 0; t < plane_tile_count(&run->source); t++) {
        struct tile place;
        const struct codec_tile tile = tile_of(run, t, &place);
        struct codec_piece piece = { 0 };
        while (codec_next_piece(target->quant, &run->shape, &place, &piece)) {
            const struct codec_tile part = codec_part(&tile, &piece.at);
            struct codec_fault fault;
            struct range range;
            if (!codec_observe_range(target->kernels, &part, &target->scratch, &range, &fault)) return false;
            range_add(&target->ranges[piece.group], range);
        }
    }
    return true;
}

static bool choose_by_errors(const struct run *run, size_t n_groups)
{
    struct smooth_target *target = run->target;
    double part_errors[CANDIDATES_MAX];
    memset(target->errors, 0, n_groups * sizeof *target->errors);
    for (uint64_t t = 0; t < plane_tile_count(&run->source) && target->quant->format->family->candidates(target->quant) > 1; t++) {
        struct tile place;
        const struct codec_tile tile = tile_of(run, t, &place);
        struct codec_piece piece = { 0 };
        while (codec_next_piece(target->quant, &run->shape, &place, &piece)) {
            const struct codec_tile part = codec_part(&tile, &piece.at);
            codec_observe_errors(target->quant, target->kernels, &part, &target->scratch, target->ranges[piece.group], part_errors);
            for (uint32_t c = 0; c < CANDIDATES_MAX; c++) target->errors[piece.group][c] += part_errors[c];
        }
    }
    for (size_t g = 0; g < n_groups; g++)
        if (!quant_choose(target->quant, target->ranges[g], target->errors[g], &target->given[g])) return false;
    return true;
}

static bool choose_by_weights(const struct run *run)
{
    struct smooth_target *target = run->target;
    struct choose_stream stream;
    choose_stream_begin(&stream, target->quant, target->kernels, target->memory);
    while (choose_stream_next(&stream))
        for (uint64_t t = 0; t < plane_tile_count(&run->source); t++) {
            struct tile place;
            const struct codec_tile tile = tile_of(run, t, &place);
            struct span_target span = { .stream = &stream };
            struct codec_fault unused;
            codec_observe_spans(target->kernels, &tile, &target->scratch, take_span, &span, &unused);
            if (stream.learns) choose_stream_add(&stream, &span.part);
        }
    if (choose_stream_finish(&stream, target->ranges[0], target->given)) return true;
    return target->quant->format->family->candidate(target->quant, target->ranges[0], 0, target->given);
}

static bool find_given(struct run *run)
{
    struct smooth_target *target = run->target;
    struct plane planes[CODEC_PLANES_MAX];
    codec_planes(target->quant, &run->shape, planes);
    run->source = (struct plane){ .name = "data", .bits = 32, .rows = run->shape.rows, .cols = run->shape.cols };
    codec_tile_shape(target->quant, &run->shape, &run->source.tile_rows, &run->source.tile_cols);
    if (!find_ranges(run)) return false;
    return choose_reads(target->quant->rule) ? choose_by_weights(run) : choose_by_errors(run, (size_t)(planes[1].rows * planes[1].cols));
}

/* ---- there and back ------------------------------------------------------------------------------------------------------------- */

static float tensor_scale_of(const struct quant *quant, const float *v, uint64_t n, float amax)
{
    if (amax < 0.0f)
        for (uint64_t i = 0; i < n; i++) amax = fmaxf(amax, fabsf(v[i]));
    return quant->format->family->tensor_scale((struct range){ 0.0f, amax < 0.0f ? 0.0f : amax });
}

static void decode(const struct run *run, float tensor_scale, float *y)
{
    const struct smooth_target *target = run->target;
    struct plane planes[CODEC_PLANES_MAX];
    const uint32_t n_planes = codec_planes(target->quant, &run->shape, planes);
    for (uint64_t r = 0; r < run->shape.rows; r++) {
        const uint8_t *streams[CODEC_PLANES_MAX] = { NULL };
        const uint64_t scale_row = quant_scale_row(target->quant, run->shape.rows, r);
        for (uint32_t k = 0; k < n_planes; k++) {
            const bool is_whole = strcmp(planes[k].name, PLANE_TENSOR_SCALE) == 0;
            streams[k] = target->planes[k] + (is_whole ? 0 : k == 0 ? r : scale_row) * plane_row_nbytes(&planes[k]);
        }
        codec_decode_row(target->quant, target->kernels, streams, tensor_scale, 0, (size_t)target->n, y + r * target->n);
    }
}

bool smooth_target_run(struct smooth_target *target, const float *v, uint64_t n_rows, const float *importance, float amax, float *y)
{
    struct run run = { .target = target, .shape = { n_rows, target->n, 1 } };
    struct codec_fault fault;
    const uint64_t n = n_rows * target->n;
    const float *const rows[] = { importance };
    if (n == 0) return true;
    const float tensor_scale = target->quant->tensor_scale ? tensor_scale_of(target->quant, v, n, amax) : 1.0f;
    run.whole = (struct codec_tile){ .source = (const uint8_t *)(const void *)v,
                                     .dtype = target->dtype,
                                     .n_rows = n_rows,
                                     .n_cols = target->n,
                                     .nonfinite = NONFINITE_ERROR,
                                     .tensor_scales = target->quant->tensor_scale ? &tensor_scale : NULL,
                                     .importance = importance ? rows : NULL,
                                     .matrix_rows = n_rows };
    for (uint32_t k = 0; k < CODEC_PLANES_MAX; k++) run.whole.planes[k] = target->planes[k];
    if (codec_spans(target->quant, n_rows, target->n)) {
        if (!find_given(&run)) return false;
        run.whole.given = target->given;
        run.whole.given_cols = quant_groups_per_row(target->quant, target->n);
        codec_store_whole(target->quant, &run.shape, target->given, NULL, target->planes);
    }
    if (!codec_encode(target->quant, target->kernels, &run.whole, &target->scratch, &fault)) return false;
    decode(&run, tensor_scale, y);
    return target->kernels->all_finite(y, (size_t)n);
}
