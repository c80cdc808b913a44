/* api_fake.c: tensors of any rank along any axis to planes and back, with scales that are computed or given.
 *
 *   dims, axis -> matrix rows x cols (axis swapped with the last, or moved to the front for channels) -> planes -> matrix -> tensor
 *   given: x / tensor scale -> codes under the given scales and zero points -> planes
 *
 * Why this way: what the converter does stands in api_matrix.c; this file adds the turn of the axis, and codes under scales that come from outside,
 * made by the same kernels. So bytes cannot differ.
 * Corner cases: an axis that lies right already is not copied; a given scale is rounded to its stored type first, as the stored scale is the one used;
 * bfp-prime takes subnormal weights for 0; tensors without weights have planes of 0 bytes.
 * Reference: NUMERICS.md 4, NUMERICS_BLOCK.md. Worked number: 0.5, 1.5, 2.5, -0.5 as uint4 with s = 1, z = 1: codes 1 3 3 1.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "api_matrix.h"
#include "base/size.h"
#include "layout/pack.h"
#include "number/round.h"

/* ---- views ---------------------------------------------------------------------------------------------------------------------- */

/* A tensor [outer, length, middle, last], its axis being length. */
struct turn {
    uint64_t outer, length, middle, last, rows, cols;
    bool to_front; /* else swapped with the last */
    bool plain; /* nothing moves */
};

static bool product(const uint64_t *dims, uint32_t first, uint32_t end, uint64_t *out)
{
    *out = 1;
    for (uint32_t i = first; i < end; i++)
        if (!size_mul(*out, dims[i], out)) return false;
    return true;
}

static bool has_empty(const struct llmq_view *view)
{
    for (uint32_t i = 0; i < view->rank; i++)
        if (view->dims[i] == 0) return true;
    return false;
}

/* The four lengths; group "tensor" has its axis last. */
static bool lengths(const struct llmq_view *view, const struct quant *quant, struct turn *turn)
{
    const uint32_t rank = view->rank, last = rank - 1;
    uint32_t axis = (uint32_t)(view->axis < 0 ? view->axis + (int32_t)rank : view->axis);
    if (quant->group_kind == GROUP_TENSOR) axis = last;
    turn->length = view->dims[axis];
    turn->last = axis < last ? view->dims[last] : 1;
    return product(view->dims, 0, axis, &turn->outer) && product(view->dims, axis + 1, axis < last ? last : axis + 1, &turn->middle);
}

static enum status turn_of(const struct llmq_quant *quant, const struct llmq_view *view, struct turn *turn, struct err *err)
{
    const int64_t rank = view->rank ? view->rank : 1;
    uint64_t inner, weights;
    if (view->rank > 64) return err_set(err, ERR_USAGE, "rank %u is more than 64", view->rank);
    if (view->rank && !view->dims) return err_set(err, ERR_USAGE, "dims is NULL");
    if (view->axis < -rank || view->axis >= rank)
        return err_set(err, ERR_USAGE, "axis %d does not exist in a tensor of rank %u", view->axis, view->rank);
    *turn = (struct turn){ .outer = 1, .length = 1, .middle = 1, .last = 1, .to_front = quant->quant.group_kind == GROUP_CHANNEL };
    if (view->rank && has_empty(view)) {
        *turn = (struct turn){ .to_front = turn->to_front, .plain = true };
        return OK;
    }
    bool fits = view->rank == 0 || (lengths(view, &quant->quant, turn) && product(view->dims, 0, view->rank, &weights));
    fits = fits && size_mul(turn->middle, turn->last, &inner) && size_mul(turn->outer, inner, &weights);
    if (!fits) return err_set(err, ERR_UNSUPPORTED, "the tensor has more than 2^64 weights");
    turn->rows = turn->to_front ? turn->length : weights;
    turn->cols = turn->to_front ? weights : turn->length;
    turn->plain = turn->to_front ? turn->outer == 1 : inner == 1;
    return OK;
}

/* Where weight col of row row of the matrix stands in the tensor. */
static size_t place_of(const struct turn *turn, uint64_t row, uint64_t col)
{
    const uint64_t inner = turn->middle * turn->last;
    if (turn->to_front) return (size_t)((col / inner * turn->length + row) * inner + col % inner);
    const uint64_t m = row % turn->middle, l = row / turn->middle % turn->last, o = row / turn->middle / turn->last;
    return (size_t)(((o * turn->length + col) * turn->middle + m) * turn->last + l);
}

static void to_matrix(const struct turn *turn, const float *x, float *matrix)
{
    for (uint64_t r = 0; r < turn->rows; r++)
        for (uint64_t c = 0; c < turn->cols; c++) *matrix++ = x[place_of(turn, r, c)];
}

static void from_matrix(const struct turn *turn, const float *matrix, float *x)
{
    for (uint64_t r = 0; r < turn->rows; r++)
        for (uint64_t c = 0; c < turn->cols; c++) x[place_of(turn, r, c)] = *matrix++;
}

static enum status new_floats(const struct turn *turn, float **out, struct err *err)
{
    const uint64_t n = turn->rows * turn->cols;
    *out = n < SIZE_MAX / sizeof **out ? malloc(((size_t)n + 1) * sizeof **out) : NULL;
    return *out ? OK : err_set(err, ERR_MEMORY, "out of memory for %" PRIu64 " weights", n);
}

static enum status make(const struct llmq_quant *quant, const struct turn *turn, struct matrix *matrix, struct err *err)
{
    const struct shape shape = { turn->rows, turn->cols, 1 };
    return matrix_make(&quant->quant, quant->kernels, dtype_find("F32", 3), &shape, matrix, err);
}

/* Counts of values in planes. */
static uint64_t count_of(const struct matrix *matrix, uint32_t plane)
{
    if (matrix->quant->blocks || (plane == 2 && !quant_side_bits(matrix->quant))) return 0;
    return matrix->shape.rows && matrix->shape.cols ? matrix->planes[plane].rows * matrix->planes[plane].cols : 0;
}

enum llmq_status llmq_view_measure(const struct llmq_quant *quant, const struct llmq_view *view, struct llmq_view_sizes *sizes,
                                   struct llmq_error *error)
{
    struct turn turn;
    struct matrix matrix;
    struct llmq_sizes planes;
    if (!quant || !view || !sizes) return api_null(!quant ? "quant" : !view ? "view" : "sizes", error);
    enum status status = turn_of(quant, view, &turn, api_err(error));
    if (status == OK) status = make(quant, &turn, &matrix, api_err(error));
    if (status != OK) return api_status(status);
    enum llmq_status result = llmq_quant_sizes(quant, turn.rows, turn.cols, &planes, error);
    if (result != LLMQ_OK) return result;
    *sizes = (struct llmq_view_sizes){ turn.rows, turn.cols, count_of(&matrix, 1), count_of(&matrix, 2), planes };
    return LLMQ_OK;
}

/* ---- given scales --------------------------------------------------------------------------------------------------------------- */

/* The element with the codes that the caller allows. */
static enum status narrow(const struct quant *quant, const struct llmq_given *given, struct elem *elem, struct err *err)
{
    *elem = *quant->elem;
    if (given->code_min == 0 && given->code_max == 0) return OK;
    if (!quant->format->family->integers) return err_set(err, ERR_USAGE, "format %s has no range of codes to choose", quant->format->name);
    if (given->code_min < elem->code_min || given->code_max > elem->code_max || given->code_min >= given->code_max)
        return err_set(err, ERR_USAGE, "codes %d .. %d are no range within %d .. %d of format %s", given->code_min, given->code_max, elem->code_min,
                       elem->code_max, quant->format->name);
    elem->code_min = given->code_min;
    elem->code_max = given->code_max;
    return OK;
}

/* The bits of a power of two as E8M0; 255 for another number. */
static uint32_t e8m0_of(float s)
{
    const int32_t e = s > 0.0f && isfinite(s) ? exact_ilog2(s) : 128;
    return e >= -127 && e <= 127 && exact_exp2(e) == s ? (uint32_t)(e + 127) : 255;
}

/* Largest size of a decoded code in units of its scale. */
static float widest_of(const struct elem *elem)
{
    if (elem->kind == ELEM_CODEBOOK) return fabsf(elem->book->largest);
    if (elem->kind == ELEM_SIGNED && elem->fraction_bits == 0) return (float)-elem->code_min;
    return elem->max;
}

static enum status store_given(const struct quant *quant, float s, uint64_t index, struct group_scale *scale, struct err *err)
{
    const bool free_sign = quant->elem->kind == ELEM_CODEBOOK;
    const char *type = scale_type_name(quant->scale);
    if (!isfinite(s) || (!free_sign && !(s > 0.0f)))
        return err_set(err, ERR_USAGE, "scale number %" PRIu64 ", %g, is not positive and finite", index, (double)s);
    scale->bits = quant->scale == SCALE_E8M0 ? e8m0_of(s) : scale_store(quant->scale, s);
    if (quant->scale == SCALE_E8M0 && scale->bits == 255)
        return err_set(err, ERR_USAGE, "scale number %" PRIu64 ", %g, is no power of two from 2^-127 to 2^127", index, (double)s);
    scale->value = scale_load(quant->scale, scale->bits);
    if (!isfinite(scale->value * widest_of(quant->elem)) || (scale->value == 0.0f && s != 0.0f))
        return err_set(err, ERR_USAGE, "scale number %" PRIu64 ", %g, is out of range as %s", index, (double)s, type);
    return OK;
}

static int32_t most_side(const struct quant *quant)
{
    return quant->format->zero_point ? quant->elem->code_max : (1 << quant->shift_bits) - 1;
}

static enum status check_zeros(const struct quant *quant, const int32_t *zeros, uint64_t n, struct err *err)
{
    for (uint64_t i = 0; zeros && i < n; i++)
        if (zeros[i] < 0 || zeros[i] > most_side(quant))
            return err_set(err, ERR_USAGE, "%s number %" PRIu64 ", %d, is none of 0 .. %d", quant->sub_block ? "shift" : "zero point", i, zeros[i],
                           most_side(quant));
    return OK;
}

static enum status check_given(const struct quant *quant, const struct llmq_given *given, struct err *err)
{
    const float *g = given->tensor_scale;
    if (g && !quant->tensor_scale) return err_set(err, ERR_USAGE, "format %s has no scale of a matrix here", quant->format->name);
    if (g && !(*g > 0.0f && isfinite(*g))) return err_set(err, ERR_USAGE, "the scale of the matrix, %g, is not positive and finite", (double)*g);
    if (!given->scales && (given->zeros || given->code_min || given->code_max))
        return err_set(err, ERR_USAGE, "zero points and ranges of codes are given with scales only");
    if (given->scales && quant->blocks)
        return err_set(err, ERR_USAGE, "format %s has its scales inside its blocks, none can be given", quant->format->name);
    if (given->scales && quant->rule == RULE_REFERENCE) return err_set(err, ERR_USAGE, "rule=reference finds its own scales, none can be given");
    if (given->zeros && !quant_side_bits(quant)) return err_set(err, ERR_USAGE, "format %s has no zero points", quant->format->name);
    return OK;
}

/* A matrix on its way to codes under given scales. */
struct given_job {
    const struct matrix *matrix;
    struct elem elem;
    struct group_scale *scales; /* of all fields of the finest plane */
    uint64_t per_row; /* of them in a row of that plane */
    float tensor_scale;
    float *row; /* cols */
    uint16_t *codes;
};

/* Fills in all scales, each with its zero point or shift. */
static enum status set_scales(struct given_job *job, const struct llmq_given *given, struct err *err)
{
    const struct quant *quant = job->matrix->quant;
    const struct plane *plane = &job->matrix->planes[1];
    const uint64_t subs = quant_scales_per_group(quant);
    enum status status = check_zeros(quant, given->zeros, plane->rows * job->per_row, err);
    for (uint64_t r = 0; r < plane->rows; r++)
        for (uint64_t i = 0; i < job->per_row && status == OK; i++) {
            struct group_scale *scale = &job->scales[r * job->per_row + i];
            const uint64_t index = r * plane->cols + i / subs;
            const int32_t side = given->zeros ? given->zeros[r * job->per_row + i] : 0;
            *scale = (struct group_scale){ 0 };
            status = store_given(quant, given->scales[index], index, scale, err);
            if (quant->sub_block) scale->shift = (uint32_t)side;
            else scale->zero = side;
            scale->value *= exact_exp2(-(int32_t)scale->shift);
        }
    return status;
}

static enum status load_row(const struct given_job *job, uint64_t r, const float *x, struct err *err)
{
    const struct quant *quant = job->matrix->quant;
    const uint64_t cols = job->matrix->shape.cols;
    for (uint64_t c = 0; c < cols; c++) {
        if (!isfinite(x[c])) return err_set(err, ERR_DATA, "the weight at row %" PRIu64 ", column %" PRIu64 " is NaN or Inf", r, c);
        const bool flushed = quant->format->family->encode && fabsf(x[c]) < 0x1p-126f; /* bfp-prime */
        job->row[c] = flushed ? 0.0f : quant->tensor_scale ? x[c] / job->tensor_scale : x[c];
    }
    return OK;
}

static enum status encode_rows(const struct given_job *job, const float *x, uint8_t *const planes[CODEC_PLANES_MAX], struct err *err)
{
    const struct matrix *matrix = job->matrix;
    const struct quant *quant = matrix->quant;
    const size_t cols = (size_t)matrix->shape.cols, unit = quant->sub_block ? quant->sub_block : quant->group ? quant->group : cols;
    enum status status = OK;
    for (uint64_t r = 0; r < matrix->shape.rows && status == OK; r++) {
        const struct group_scale *scales = job->scales + quant_scale_row(quant, matrix->shape.rows, r) * job->per_row;
        const struct groups groups = { cols, unit < cols ? unit : cols, scales };
        status = load_row(job, r, x + r * cols, err);
        if (status != OK) break;
        matrix->kernels->encode(&job->elem, quant->rounding, &groups, job->row, job->codes, NULL);
        pack_bits(job->codes, cols, quant->elem->bits, planes[0] + r * plane_row_nbytes(&matrix->planes[0]));
    }
    return status;
}

static void store_scales(const struct given_job *job, uint8_t *const planes[CODEC_PLANES_MAX])
{
    const struct matrix *matrix = job->matrix;
    for (uint64_t r = 0; r < matrix->planes[1].rows; r++) {
        const struct group_scale *scales = job->scales + r * job->per_row;
        layout_store_scales(matrix->quant, scales, (size_t)matrix->planes[1].cols, planes[1] + r * plane_row_nbytes(&matrix->planes[1]));
        if (quant_side_bits(matrix->quant))
            layout_store_sides(matrix->quant, scales, (size_t)job->per_row, planes[2] + r * plane_row_nbytes(&matrix->planes[2]));
    }
    if (matrix->quant->tensor_scale) ggml_f32.encode(&job->tensor_scale, NULL, 1, planes[2]);
}

/* The scale of the matrix as the caller or the format says. */
static enum status find_tensor_scale(const struct matrix *matrix, const float *x, const struct llmq_given *given, float *scale, struct err *err)
{
    struct codec_scratch scratch;
    struct matrix_scales observed = { NULL, NULL };
    *scale = given->tensor_scale ? *given->tensor_scale : 1.0f;
    if (!matrix->quant->tensor_scale || given->tensor_scale) return OK;
    enum status status = matrix_scratch_open(matrix, &scratch, err);
    if (status == OK) status = matrix_observe(matrix, (const uint8_t *)(const void *)x, &scratch, &observed, err);
    if (status == OK) *scale = observed.tensor_scales[0];
    matrix_scales_free(&observed);
    matrix_scratch_close(&scratch);
    return status;
}

static enum status encode_given(const struct matrix *matrix, const float *x, const struct llmq_given *given, uint8_t *const planes[CODEC_PLANES_MAX],
                                struct err *err)
{
    const struct quant *quant = matrix->quant;
    struct given_job job = { .matrix = matrix, .per_row = matrix->planes[quant->sub_block ? 2 : 1].cols };
    const size_t n = (size_t)(matrix->planes[1].rows * job.per_row), cols = (size_t)matrix->shape.cols;
    enum status status = narrow(quant, given, &job.elem, err);
    if (status != OK) return status;
    job.scales = malloc((n + 1) * sizeof *job.scales);
    job.row = malloc((cols + 1) * sizeof *job.row);
    job.codes = malloc((cols + 1) * sizeof *job.codes);
    if (!job.scales || !job.row || !job.codes) status = err_set(err, ERR_MEMORY, "out of memory for %zu scales", n);
    if (status == OK) status = set_scales(&job, given, err);
    if (status == OK) status = find_tensor_scale(matrix, x, given, &job.tensor_scale, err);
    if (status == OK) status = encode_rows(&job, x, planes, err);
    if (status == OK) store_scales(&job, planes);
    free(job.scales);
    free(job.row);
    free(job.codes);
    return status;
}

/* ---- quantising ----------------------------------------------------------------------------------------------------------------- */

static enum status encode(const struct matrix *matrix, const float *x, const struct llmq_given *given, uint8_t *const planes[CODEC_PLANES_MAX],
                          struct err *err)
{
    static const struct llmq_given nothing = { 0 };
    struct codec_scratch scratch;
    given = given ? given : &nothing;
    enum status status = check_given(matrix->quant, given, err);
    if (status != OK || matrix->shape.rows == 0 || matrix->shape.cols == 0) return status;
    if (given->scales) return encode_given(matrix, x, given, planes, err);
    status = matrix_scratch_open(matrix, &scratch, err);
    if (status == OK) status = matrix_encode_all(matrix, (const uint8_t *)(const void *)x, given->tensor_scale, &scratch, planes, err);
    matrix_scratch_close(&scratch);
    return status;
}

/* The first of the planes that is missing, NULL when none is. */
static const char *missing_plane(const struct matrix *matrix, const void *codes, const void *scales, const void *zeros)
{
    if (matrix->shape.rows == 0 || matrix->shape.cols == 0) return NULL;
    return !codes ? "codes" : !scales && matrix->n_planes > 1 ? "scales" : !zeros && matrix->n_planes > 2 ? "zeros" : NULL;
}

enum llmq_status llmq_quantise(const struct llmq_quant *quant, const struct llmq_view *view, const float *x, const struct llmq_given *given,
                               void *codes, void *scales, void *zeros, struct llmq_error *error)
{
    struct err *err = api_err(error);
    struct turn turn;
    struct matrix matrix;
    if (!quant || !view) return api_null(!quant ? "quant" : "view", error);
    enum status status = turn_of(quant, view, &turn, err);
    if (status == OK) status = make(quant, &turn, &matrix, err);
    if (status != OK) return api_status(status);
    const char *missing = missing_plane(&matrix, codes, scales, zeros);
    if (missing || (!x && turn.rows && turn.cols)) return api_null(missing ? missing : "x", error);
    uint8_t *const planes[CODEC_PLANES_MAX] = { codes, scales, zeros, NULL };
    float *turned = NULL;
    if (!turn.plain) status = new_floats(&turn, &turned, err);
    if (turned) to_matrix(&turn, x, turned);
    if (status == OK) status = encode(&matrix, turned ? turned : x, given, planes, err);
    free(turned);
    return api_status(status);
}

enum llmq_status llmq_dequantise(const struct llmq_quant *quant, const struct llmq_view *view, const void *codes, const void *scales,
                                 const void *zeros, float *out, struct llmq_error *error)
{
    struct turn turn;
    if (!quant || !view) return api_null(!quant ? "quant" : "view", error);
    enum status status = turn_of(quant, view, &turn, api_err(error));
    if (status != OK) return api_status(status);
    if (turn.plain) return llmq_dequantise_rows(quant, codes, scales, zeros, turn.rows, turn.cols, out, error);
    if (!out) return api_null("out", error);
    float *turned;
    status = new_floats(&turn, &turned, api_err(error));
    if (status != OK) return api_status(status);
    enum llmq_status result = llmq_dequantise_rows(quant, codes, scales, zeros, turn.rows, turn.cols, turned, error);
    if (result == LLMQ_OK) from_matrix(&turn, turned, out);
    free(turned);
    return result;
}

enum llmq_status llmq_fake_quantise(const struct llmq_quant *quant, const struct llmq_view *view, const float *x, const struct llmq_given *given,
                                    float *y, struct llmq_error *error)
{
    struct llmq_view_sizes sizes;
    enum llmq_status result = llmq_view_measure(quant, view, &sizes, error);
    if (result != LLMQ_OK) return result;
    if (!y && sizes.rows && sizes.cols) return api_null("y", error);
    void *codes = malloc((size_t)sizes.planes.codes + 1), *scales = malloc((size_t)sizes.planes.scales + 1),
         *zeros = malloc((size_t)sizes.planes.zeros + 1);
    if (!codes || !scales || !zeros) result = api_status(err_set(api_err(error), ERR_MEMORY, "out of memory for planes"));
    if (result == LLMQ_OK) result = llmq_quantise(quant, view, x, given, codes, scales, zeros, error);
    if (result == LLMQ_OK) result = llmq_dequantise(quant, view, codes, scales, zeros, y, error);
    free(codes);
    free(scales);
    free(zeros);
    return result;
}

/* The largest codes again, rounded without an end: their step is |y| / largest code, a power of two. */
static void lift_ends(const struct quant *quant, const struct turn *turn, const int32_t *codes, const float *x, float *y)
{
    for (uint64_t r = 0; r < turn->rows; r++)
        for (uint64_t c = 0; c < turn->cols; c++, codes++) {
            const size_t at = place_of(turn, r, c);
            if (abs(*codes) != quant->elem->code_max) continue;
            const float step = fabsf(y[at]) / (float)quant->elem->code_max;
            y[at] = round_to_integer(x[at] / step, quant->rounding) * step;
        }
}

enum llmq_status llmq_fake_quantise_unsaturated(const struct llmq_quant *quant, const struct llmq_view *view, const float *x, float *y,
                                                struct llmq_error *error)
{
    struct err *err = api_err(error);
    struct llmq_view_sizes sizes;
    struct turn turn;
    enum llmq_status result = llmq_view_measure(quant, view, &sizes, error);
    if (result != LLMQ_OK) return result;
    if (!quant->quant.sub_block || quant->quant.rule != RULE_FLOOR)
        return api_status(err_set(err, ERR_USAGE,
                                  "format %s: only formats with shifts of sub-blocks under rule floor have codes that do not saturate",
                                  quant->quant.format->name));
    if ((!x || !y || x == y) && sizes.rows && sizes.cols) return api_null(!x ? "x" : "y", error);
    void *codes = malloc((size_t)sizes.planes.codes + 1), *scales = malloc((size_t)sizes.planes.scales + 1),
         *shifts = malloc((size_t)sizes.planes.zeros + 1);
    int32_t *numbers = calloc((size_t)(sizes.rows * sizes.cols) + 1, sizeof *numbers);
    if (!codes || !scales || !shifts || !numbers) result = api_status(err_set(err, ERR_MEMORY, "out of memory for planes"));
    if (result == LLMQ_OK) result = llmq_quantise(quant, view, x, NULL, codes, scales, shifts, error);
    if (result == LLMQ_OK) result = llmq_dequantise(quant, view, codes, scales, shifts, y, error);
    if (result == LLMQ_OK) result = llmq_planes_read(quant, view, codes, scales, shifts, numbers, NULL, NULL, NULL, error);
    if (result == LLMQ_OK) result = api_status(turn_of(quant, view, &turn, err));
    if (result == LLMQ_OK) lift_ends(&quant->quant, &turn, numbers, x, y);
    free(codes);
    free(scales);
    free(shifts);
    free(numbers);
    return result;
}

enum llmq_status llmq_straight_through(const float *g, size_t n, float *dx, struct llmq_error *error)
{
    if (n && (!g || !dx)) return api_null(g ? "dx" : "g", error);
    if (n) memmove(dx, g, n * sizeof *dx);
    return LLMQ_OK;
}

/* ---- planes as numbers ---------------------------------------------------------------------------------------------------------- */

/* A code as a number: of integers without fraction its value. */
static int32_t number_of(const struct elem *elem, uint16_t code)
{
    const bool negative = elem->kind == ELEM_SIGNED && code >> (elem->bits - 1) & 1;
    return negative ? (int32_t)code - (1 << elem->bits) : (int32_t)code;
}

static enum status read_codes(const struct matrix *matrix, const uint8_t *codes, int32_t *out, struct err *err)
{
    const size_t cols = (size_t)matrix->shape.cols;
    uint16_t *row = malloc((cols + 1) * sizeof *row);
    if (!row) return err_set(err, ERR_MEMORY, "out of memory for %zu codes", cols);
    for (uint64_t r = 0; r < matrix->shape.rows; r++) {
        unpack_bits(codes + r * plane_row_nbytes(&matrix->planes[0]), 0, cols, matrix->quant->elem->bits, row);
        for (size_t c = 0; c < cols; c++) *out++ = number_of(matrix->quant->elem, row[c]);
    }
    free(row);
    return OK;
}

static void read_scales(const struct matrix *matrix, const uint8_t *scales, float *out)
{
    const uint64_t nbytes = scale_type_bits(matrix->quant->scale) / 8, n = count_of(matrix, 1);
    for (uint64_t i = 0; i < n; i++, scales += nbytes) {
        uint32_t bits = 0;
        for (uint64_t k = 0; k < nbytes; k++) bits |= (uint32_t)scales[k] << (8 * k);
        *out++ = scale_load(matrix->quant->scale, bits);
    }
}

static void read_sides(const struct matrix *matrix, const uint8_t *zeros, int32_t *out)
{
    const struct plane *plane = &matrix->planes[2];
    uint16_t side;
    for (uint64_t r = 0; r < plane->rows; r++)
        for (uint64_t c = 0; c < plane->cols; c++) {
            unpack_bits(zeros + r * plane_row_nbytes(plane), c, 1, plane->bits, &side);
            *out++ = side;
        }
}

enum llmq_status llmq_planes_read(const struct llmq_quant *quant, const struct llmq_view *view, const void *codes, const void *scales,
                                  const void *zeros, int32_t *codes_out, float *values, int32_t *points, float *tensor_scale,
                                  struct llmq_error *error)
{
    struct turn turn;
    struct matrix matrix;
    if (!quant || !view) return api_null(!quant ? "quant" : "view", error);
    enum status status = turn_of(quant, view, &turn, api_err(error));
    if (status == OK) status = make(quant, &turn, &matrix, api_err(error));
    if (status != OK) return api_status(status);
    if (quant->quant.blocks)
        return api_status(err_set(api_err(error), ERR_USAGE, "format %s has blocks, not codes and scales", quant->quant.format->name));
    if (turn.rows == 0 || turn.cols == 0) return LLMQ_OK;
    if ((codes_out && !codes) || (values && !scales) || ((points || tensor_scale) && !zeros && matrix.n_planes > 2))
        return api_null("a plane", error);
    if (values) read_scales(&matrix, scales, values);
    if (points && count_of(&matrix, 2)) read_sides(&matrix, zeros, points);
    if (tensor_scale) *tensor_scale = 1.0f;
    if (tensor_scale && quant->quant.tensor_scale) ggml_f32.decode(zeros, 1, tensor_scale);
    return api_status(codes_out ? read_codes(&matrix, codes, codes_out, api_err(error)) : OK);
}
