/* api_matrix.c: see api_matrix.h.
 *
 * Formula: the scale of a spanning group = the candidate with the least sum of its tiles' errors, added in binary64 in tile order.
 * Why this way: see api_matrix.h; one thread, so every pass is a plain loop over tiles.
 * Corner cases: without candidates to choose from the second pass is left out; zero points of fewer than 8 bits take a byte a row.
 * Reference: NUMERICS.md 3 to 5. Worked number: int4, channel, 2 rows: given has 2 scales, the plane "scales" 4 bytes.
 */
#include "api_matrix.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "number/choose.h"

enum status matrix_make(const struct quant *quant, const struct kernels *kernels, const struct dtype *dtype, const struct shape *shape,
                        struct matrix *matrix, struct err *err)
{
    const uint64_t n_rows = shape->rows, cols = shape->cols;
    uint64_t n_weights, n_bits;
    struct err why = { OK, "" };
    if (!size_mul(n_rows, cols, &n_weights) || !size_mul(n_weights, 64, &n_bits) || n_rows > INT64_MAX / 64 || cols > INT64_MAX / 64)
        return err_set(err, ERR_UNSUPPORTED, "%" PRIu64 " x %" PRIu64 " weights are too many", n_rows, cols);
    if (!quant_fits(quant, cols))
        return err_set(err, ERR_USAGE, "rows of %" PRIu64 " weights are no multiple of the %u of a block of %s", cols, quant->format->block->elements,
                       quant->format->name);
    *matrix = (struct matrix){ .quant = quant, .kernels = kernels, .dtype = dtype, .shape = *shape, .spans = codec_spans(quant, n_rows, cols) };
    matrix->observed = matrix->spans || quant->tensor_scale;
    if (matrix->spans && choose_reads(quant->rule) && quant->group_kind != GROUP_TENSOR)
        return err_set(err, ERR_UNSUPPORTED, "rule %s takes rows of at most %u weights", scale_rule_name(quant->rule), TILE_WEIGHTS);
    matrix->n_planes = codec_planes(quant, shape, matrix->planes);
    uint64_t tile_rows, tile_cols;
    codec_tile_shape(quant, shape, &tile_rows, &tile_cols);
    matrix->source = (struct plane){ "data", dtype->bits, n_rows, cols, tile_rows, tile_cols };
    enum status status = plane_check(&matrix->source, &why);
    for (uint32_t k = 0; k < matrix->n_planes && status == OK; k++) status = plane_check(&matrix->planes[k], &why);
    return status == OK ? OK : err_set(err, ERR_UNSUPPORTED, "%" PRIu64 " x %" PRIu64 " weights: %s", n_rows, cols, why.text);
}

enum status matrix_scratch_open(const struct matrix *matrix, struct codec_scratch *scratch, struct err *err)
{
    size_t n = codec_scratch_weights(matrix->quant, matrix->source.rows, matrix->source.cols);
    *scratch = (struct codec_scratch){ malloc((n + 1) * sizeof(float)), malloc((n + 1) * sizeof(float)), malloc((n + 1) * sizeof(uint16_t)), n };
    return scratch->x && scratch->y && scratch->codes ? OK : err_set(err, ERR_MEMORY, "out of memory for %zu weights", n);
}

void matrix_scratch_close(struct codec_scratch *scratch)
{
    free(scratch->x);
    free(scratch->y);
    free(scratch->codes);
    *scratch = (struct codec_scratch){ 0 };
}

static enum status fault_status(const struct matrix *matrix, const struct tile *place, const struct codec_fault *fault, struct err *err)
{
    uint64_t row = place->row + fault->row, col = place->col + fault->col;
    if (fault->kind == CODEC_NO_PLACE)
        return err_set(err, ERR_DATA, "the scale of the group at row %" PRIu64 ", column %" PRIu64 " has no place in a block of GGUF", row, col);
    if (fault->kind == CODEC_NONFINITE) return err_set(err, ERR_DATA, "the weight at row %" PRIu64 ", column %" PRIu64 " is NaN or Inf", row, col);
    return err_set(err, ERR_DATA, "the scale of the group at row %" PRIu64 ", column %" PRIu64 " is too large for %s", row, col,
                   scale_type_name(matrix->quant->scale));
}

static struct codec_tile codec_tile_of(const struct matrix *matrix, const struct tile *place, const uint8_t *bytes)
{
    return (
        struct codec_tile){ .source = bytes, .dtype = matrix->dtype, .n_rows = place->n_rows, .n_cols = place->n_cols, .nonfinite = NONFINITE_ERROR };
}

/* Where the weights of a tile go. */
struct span_target {
    struct choose_stream *stream;
    struct learn_part part;
};

/* ---- groups over several tiles -------------------------------------------------------------------------------------------------- */

static enum status find_ranges(const struct matrix *matrix, const uint8_t *bytes, const struct codec_scratch *scratch, struct range *ranges,
                               struct err *err)
{
    for (uint64_t t = 0; t < plane_tile_count(&matrix->source); t++) {
        struct tile place = plane_tile(&matrix->source, t);
        const struct codec_tile tile = codec_tile_of(matrix, &place, bytes + plane_tile_offset(&matrix->source, t));
        struct codec_piece piece = { 0 };
        struct codec_fault fault;
        struct range range;
        while (codec_next_piece(matrix->quant, &matrix->shape, &place, &piece)) {
            const struct codec_tile part = codec_part(&tile, &piece.at);
            if (!codec_observe_range(matrix->kernels, &part, scratch, &range, &fault)) {
                fault.row += piece.at.row;
                fault.col += piece.at.col;
                return fault_status(matrix, &place, &fault, err);
            }
            range_add(&ranges[piece.group], range);
        }
    }
    return OK;
}

/* The choice is made anew after every tile, so it stands once the group's last tile has passed. */
static void choose(const struct matrix *matrix, const uint8_t *bytes, const struct codec_scratch *scratch, const struct range *ranges,
                   double (*sums)[CANDIDATES_MAX], struct group_scale *given)
{
    double part_sums[CANDIDATES_MAX];
    for (uint64_t t = 0; t < plane_tile_count(&matrix->source); t++) {
        struct tile place = plane_tile(&matrix->source, t);
        const struct codec_tile tile = codec_tile_of(matrix, &place, bytes + plane_tile_offset(&matrix->source, t));
        struct codec_piece piece = { 0 };
        while (codec_next_piece(matrix->quant, &matrix->shape, &place, &piece)) {
            const struct codec_tile part = codec_part(&tile, &piece.at);
            const uint64_t g = piece.group;
            codec_observe_errors(matrix->quant, matrix->kernels, &part, scratch, ranges[g], part_sums);
            for (uint32_t c = 0; c < CANDIDATES_MAX; c++) sums[g][c] += part_sums[c];
            quant_choose(matrix->quant, ranges[g], sums[g], &given[g]);
        }
    }
}

static enum status first_candidates(const struct matrix *matrix, size_t n_groups, const struct range *ranges, struct group_scale *given,
                                    struct err *err)
{
    const struct quant *quant = matrix->quant;
    const uint64_t per_row = matrix->planes[1].cols;
    for (size_t g = 0; g < n_groups; g++) {
        if (quant->format->family->candidate(quant, ranges[g], 0, &given[g])) continue;
        const struct tile place = { .row = quant_first_row(quant, shape_matrix_rows(&matrix->shape), g / per_row),
                                    .col = g % per_row * quant->group };
        return fault_status(matrix, &place, &(struct codec_fault){ CODEC_SCALE_OVERFLOW, 0, 0 }, err);
    }
    return OK;
}

static void take_span(void *context, const float *x, const float *weight, size_t n)
{
    struct span_target *target = context;
    if (target->stream->learns) choose_stream_observe(target->stream, x, weight, n, &target->part);
    else choose_stream_span(target->stream, x, n);
}

/* The scale of the one group of all weights, by a rule that reads them as often as it likes. */
static enum status find_scale_of_weights(const struct matrix *matrix, const uint8_t *bytes, const struct codec_scratch *scratch, struct range range,
                                         struct group_scale *given, struct err *err)
{
    struct choose_stream stream;
    uint64_t *memory = malloc(CHOOSE_NBYTES);
    if (!memory) return err_set(err, ERR_MEMORY, "out of memory");
    choose_stream_begin(&stream, matrix->quant, matrix->kernels, memory);
    while (choose_stream_next(&stream))
        for (uint64_t t = 0; t < plane_tile_count(&matrix->source); t++) {
            struct tile place = plane_tile(&matrix->source, t);
            const struct codec_tile tile = codec_tile_of(matrix, &place, bytes + plane_tile_offset(&matrix->source, t));
            struct span_target target = { .stream = &stream };
            struct codec_fault unused; /* the ranges have found them */
            codec_observe_spans(matrix->kernels, &tile, scratch, take_span, &target, &unused);
            if (stream.learns) choose_stream_add(&stream, &target.part);
        }
    const bool done = choose_stream_finish(&stream, range, given);
    free(memory);
    return done ? OK : first_candidates(matrix, 1, &range, given, err);
}

static enum status find_scales(const struct matrix *matrix, const uint8_t *bytes, const struct codec_scratch *scratch, struct group_scale **out,
                               struct err *err)
{
    const bool searched = !choose_reads(matrix->quant->rule) && matrix->quant->format->family->candidates(matrix->quant) > 1;
    size_t n_groups = (size_t)(matrix->planes[1].rows * matrix->planes[1].cols);
    struct range *ranges = calloc(n_groups + 1, sizeof *ranges);
    double(*sums)[CANDIDATES_MAX] = calloc(searched ? n_groups + 1 : 1, sizeof *sums);
    struct group_scale *given = *out = calloc(n_groups + 1, sizeof *given);
    enum status status = ranges && sums && given ? OK : err_set(err, ERR_MEMORY, "out of memory for %zu scales", n_groups);
    if (status == OK) status = find_ranges(matrix, bytes, scratch, ranges, err);
    if (status == OK && choose_reads(matrix->quant->rule)) status = find_scale_of_weights(matrix, bytes, scratch, ranges[0], given, err);
    else if (status == OK) status = first_candidates(matrix, n_groups, ranges, given, err);
    if (status == OK && searched) choose(matrix, bytes, scratch, ranges, sums, given);
    free(sums);
    free(ranges);
    return status;
}

/* The scale of each matrix, from its range. */
static enum status find_tensor_scales(const struct matrix *matrix, const uint8_t *bytes, const struct codec_scratch *scratch, float **out,
                                      struct err *err)
{
    const uint64_t n = matrix->shape.n_matrices, rows = matrix->shape.rows / n, row_nbytes = plane_row_nbytes(&matrix->source);
    struct range *ranges = calloc((size_t)n, sizeof *ranges);
    *out = calloc((size_t)n, sizeof **out);
    enum status status = ranges && *out ? OK : err_set(err, ERR_MEMORY, "out of memory for %" PRIu64 " scales", n);
    for (uint64_t r = 0; r < matrix->shape.rows && status == OK; r++) {
        const struct tile place = { .row = r, .n_rows = 1, .n_cols = matrix->shape.cols };
        struct codec_tile tile = codec_tile_of(matrix, &place, bytes + r * row_nbytes);
        struct codec_fault fault;
        struct range part;
        if (!codec_observe_range(matrix->kernels, &tile, scratch, &part, &fault)) status = fault_status(matrix, &place, &fault, err);
        else range_add(&ranges[r / rows], part);
    }
    for (uint64_t m = 0; m < n && status == OK; m++) (*out)[m] = matrix->quant->format->family->tensor_scale(ranges[m]);
    free(ranges);
    return status;
}

enum status matrix_observe(const struct matrix *matrix, const uint8_t *bytes, const struct codec_scratch *scratch, struct matrix_scales *observed,
                           struct err *err)
{
    *observed = (struct matrix_scales){ NULL, NULL };
    enum status status = matrix->spans ? find_scales(matrix, bytes, scratch, &observed->given, err) : OK;
    if (status == OK && matrix->quant->tensor_scale) status = find_tensor_scales(matrix, bytes, scratch, &observed->tensor_scales, err);
    return status;
}

void matrix_scales_free(struct matrix_scales *observed)
{
    free(observed->given);
    free(observed->tensor_scales);
    *observed = (struct matrix_scales){ NULL, NULL };
}

bool matrix_is_whole(const struct matrix *matrix, uint32_t plane)
{
    return codec_is_whole(matrix->quant, &matrix->shape, &matrix->planes[plane]);
}

void matrix_store_whole(const struct matrix *matrix, const struct matrix_scales *observed, uint8_t *const planes[CODEC_PLANES_MAX])
{
    codec_store_whole(matrix->quant, &matrix->shape, observed->given, observed->tensor_scales, planes);
}

/* ---- tiles ---------------------------------------------------------------------------------------------------------------------- */

enum status matrix_encode(const struct matrix *matrix, uint64_t index, const uint8_t *bytes, const struct matrix_scales *observed,
                          const struct codec_scratch *scratch, uint8_t *const planes[CODEC_PLANES_MAX], struct err *err)
{
    struct tile place = plane_tile(&matrix->source, index);
    struct codec_tile tile = codec_tile_of(matrix, &place, bytes);
    struct codec_fault fault;
    tile.given = observed->given;
    tile.given_cols = quant_groups_per_row(matrix->quant, matrix->shape.cols);
    tile.tensor_scales = observed->tensor_scales;
    tile.first_row = place.row;
    tile.first_col = place.col;
    tile.matrix_rows = shape_matrix_rows(&matrix->shape);
    for (uint32_t k = 0; k < matrix->n_planes; k++) tile.planes[k] = planes[k];
    if (codec_encode(matrix->quant, matrix->kernels, &tile, scratch, &fault)) return OK;
    return fault_status(matrix, &place, &fault, err);
}

/* What is observed, with the scale of the matrix as given. */
static enum status observe_beside(const struct matrix *matrix, const uint8_t *bytes, float tensor_scale, const struct codec_scratch *scratch,
                                  struct matrix_scales *observed, struct err *err)
{
    *observed = (struct matrix_scales){ NULL, NULL };
    observed->tensor_scales = malloc(sizeof tensor_scale);
    if (!observed->tensor_scales) return err_set(err, ERR_MEMORY, "out of memory");
    *observed->tensor_scales = tensor_scale;
    return matrix->spans ? find_scales(matrix, bytes, scratch, &observed->given, err) : OK;
}

enum status matrix_encode_all(const struct matrix *matrix, const uint8_t *bytes, const float *tensor_scale, const struct codec_scratch *scratch,
                              uint8_t *const whole[CODEC_PLANES_MAX], struct err *err)
{
    struct matrix_scales observed = { NULL, NULL };
    enum status status = OK;
    if (matrix->quant->tensor_scale && tensor_scale) status = observe_beside(matrix, bytes, *tensor_scale, scratch, &observed, err);
    else if (matrix->observed) status = matrix_observe(matrix, bytes, scratch, &observed, err);
    for (uint64_t t = 0; t < plane_tile_count(&matrix->source) && status == OK; t++) {
        uint8_t *planes[CODEC_PLANES_MAX] = { NULL };
        for (uint32_t k = 0; k < matrix->n_planes; k++)
            if (!matrix_is_whole(matrix, k)) planes[k] = whole[k] + plane_tile_offset(&matrix->planes[k], t);
        status = matrix_encode(matrix, t, bytes + plane_tile_offset(&matrix->source, t), &observed, scratch, planes, err);
    }
    if (status == OK) matrix_store_whole(matrix, &observed, whole);
    matrix_scales_free(&observed);
    return status;
}
