/* test_codec_importance.c: tiles with importance weights.
 *
 * Drawing: tensor + rows of importance -> (observe passes) -> codec_encode per tile -> planes -> decoded -> error in binary64, weighted.
 * Why this way: what importance does to one group is held by the golden vectors; here it is that every group gets the weights of its own columns, on
 * whatever way through strips, pieces and matrices.
 * Corner cases: weights of 1 change no byte; a group or block of zeros is coded as without; a matrix of a stack without weights too; weights from
 * 1e-12 to 1, and rows of a matrix that begin within a tile; groups over several tiles; types of ggml that need whole rows.
 * Reference: codec.h; NUMERICS.md 5. Worked number: weights 1 and 0 in turn: only every second weight of a row counts.
 */
#include "support/spanning.h"
#include "support/support.h"

#include <math.h>

#include "layout/codec.h"
#include "number/kernel.h"

static const struct sample {
    const char *text;
    uint64_t rows, cols, n_matrices;
} samples[] = {
    { "int4:rule=mse,group=32", 9, 4224, 1 },
    { "int4:rule=mse", 12, 300, 4 },
    { "uint4:rule=mse,group=channel", 6, 999, 2 },
    { "uint7:group=tensor,rule=mse", 9, 21, 1 },
    { "int4:group=tensor,rule=mse", 900, 300, 1 },
    { "uint3:group=channel,rule=mse", 2, 262151, 2 },
    { "int4:rule=lsq", 12, 300, 4 },
    { "int5:group=tensor,rule=lsq", 90, 300, 1 },
    { "mxfp4", 70, 992, 7 },
    { "mxfp4:rule=floor", 7, 1024, 1 },
    { "mxint8", 5, 100, 1 },
    { "nvfp4:rule=search", 12, 160, 3 },
    { "bfp16:rule=search", 5, 1003, 1 },
    { "mx6:rule=search", 5, 1003, 1 },
    { "nf4:rule=mse", 5, 1001, 1 },
    { "fp8_e4m3:group=128x128,rule=mse", 300, 1000, 3 },
    { "iq4nl:group=channel,rule=mse", 2, 262151, 1 },
};

/* A tensor, F32, and its importance. */
struct tensor {
    struct quant quant;
    struct shape shape;
    size_t n;
    float *x, *weights;
    const float **rows;
    float *tensor_scales;
    struct plane plane[CODEC_PLANES_MAX];
    uint32_t n_planes;
};

static void *zeros(size_t n, size_t size)
{
    void *out = calloc(n + 1, size);
    assert_non_null(out);
    return out;
}

static float uniform(uint64_t *seed)
{
    return (float)(test_random(seed) >> 40) * 0x1p-24f;
}

static struct tensor new_tensor(const struct sample *sample, bool blocks)
{
    struct tensor tensor = { .shape = { sample->rows, sample->cols, sample->n_matrices }, .n = (size_t)(sample->rows * sample->cols) };
    struct err err;
    uint64_t seed = 7;
    assert_ok(quant_parse(sample->text, NULL, &tensor.quant, &err));
    tensor.quant.blocks = blocks;
    tensor.x = zeros(tensor.n, sizeof *tensor.x);
    tensor.weights = zeros((size_t)(sample->cols * sample->n_matrices), sizeof *tensor.weights);
    tensor.rows = zeros((size_t)sample->n_matrices, sizeof *tensor.rows);
    tensor.tensor_scales = zeros((size_t)sample->n_matrices, sizeof *tensor.tensor_scales);
    for (size_t i = 0; i < tensor.n; i++) tensor.x[i] = (uniform(&seed) + uniform(&seed) + uniform(&seed) - 1.5f) * 0.03f;
    for (size_t m = 0; m < sample->n_matrices; m++) {
        tensor.rows[m] = tensor.weights + m * sample->cols;
        tensor.tensor_scales[m] = tensor.quant.format->family->tensor_scale ? 0.0001f * (float)(m + 1) : 1.0f;
    }
    tensor.n_planes = codec_planes(&tensor.quant, &tensor.shape, tensor.plane);
    return tensor;
}

/* Weights; those of columns 64 .. 127 are 0; a third of them span 1e12; the last of several matrices has none. */
static void spread_weights(struct tensor *tensor)
{
    uint64_t seed = 99;
    for (size_t i = 0; i < (size_t)(tensor->shape.cols * tensor->shape.n_matrices); i++) {
        const size_t col = i % (size_t)tensor->shape.cols;
        tensor->weights[i] = (float)pow(10.0, i % 3 ? -12.0 * (double)uniform(&seed) : 0.5 * (double)uniform(&seed));
        if (fabsf(tensor->x[col]) < 0.008f) tensor->weights[i] *= 1000.0f; /* small weights of the first row count: it wants smaller scales */
        if (col >= 64 && col < 128) tensor->weights[i] = 0.0f;
    }
    if (tensor->shape.n_matrices > 1) tensor->rows[tensor->shape.n_matrices - 1] = NULL;
}

static void free_tensor(struct tensor *tensor)
{
    free(tensor->x);
    free(tensor->weights);
    free(tensor->rows);
    free(tensor->tensor_scales);
}

/* ---- the codec, driven as a converter drives it ----------------------------------------------------------------------------------- */

static struct codec_tile tile_at(const struct tensor *tensor, uint64_t index, bool weighted, uint8_t *const planes[CODEC_PLANES_MAX])
{
    const struct plane *codes = &tensor->plane[0];
    struct tile at = plane_tile(codes, index);
    const uint64_t width = tensor->quant.blocks ? tensor->quant.format->block->elements : 1;
    struct codec_tile tile = { .source = (const uint8_t *)(tensor->x + at.row * tensor->shape.cols + at.col * width),
                               .dtype = dtype_find("F32", 3),
                               .n_rows = at.n_rows,
                               .n_cols = at.n_cols * width,
                               .first_row = at.row,
                               .first_col = at.col * width,
                               .importance = weighted ? tensor->rows : NULL,
                               .tensor_scales = tensor->quant.tensor_scale ? tensor->tensor_scales : NULL,
                               .matrix_rows = shape_matrix_rows(&tensor->shape) };
    for (uint32_t i = 0; planes && i < tensor->n_planes; i++)
        if (!codec_is_whole(&tensor->quant, &tensor->shape, &tensor->plane[i]))
            tile.planes[i] = planes[i] + plane_tile_offset(&tensor->plane[i], index);
    return tile;
}

static struct codec_tile plain_tile(const void *tensor, uint64_t index)
{
    return tile_at(tensor, index, false, NULL);
}

static struct codec_tile weighted_tile(const void *tensor, uint64_t index)
{
    return tile_at(tensor, index, true, NULL);
}

/* All planes, one behind the other in bytes that the caller frees; planes points at each. */
static uint8_t *run(const struct tensor *tensor, const struct kernels *kernels, bool weighted, uint8_t *planes[CODEC_PLANES_MAX], size_t *nbytes)
{
    const size_t n = weighted ? codec_scratch_importance(&tensor->quant, tensor->shape.rows, tensor->shape.cols)
                              : codec_scratch_weights(&tensor->quant, tensor->shape.rows, tensor->shape.cols);
    struct codec_scratch scratch = { zeros(n, 4), zeros(n, 4), zeros(n, 2), n };
    struct group_scale *given = NULL;
    struct codec_fault fault;
    *nbytes = 0;
    for (uint32_t i = 0; i < tensor->n_planes; i++) *nbytes += (size_t)plane_nbytes(&tensor->plane[i]);
    uint8_t *bytes = zeros(*nbytes, 1), *at = bytes;
    for (uint32_t i = 0; i < tensor->n_planes; i++, at += plane_nbytes(&tensor->plane[i - 1])) planes[i] = at;
    if (codec_spans(&tensor->quant, tensor->shape.rows, tensor->shape.cols))
        given = spanning_scales(&tensor->quant, &tensor->shape, tensor->plane, kernels, &scratch, weighted ? weighted_tile : plain_tile, tensor);
    for (uint64_t i = 0; i < plane_tile_count(&tensor->plane[0]); i++) {
        struct codec_tile tile = tile_at(tensor, i, weighted, planes);
        struct measure measure = { 0 };
        tile.given = given;
        tile.given_cols = quant_groups_per_row(&tensor->quant, tensor->shape.cols);
        tile.measure = &measure;
        assert_true(codec_encode(&tensor->quant, kernels, &tile, &scratch, &fault));
    }
    codec_store_whole(&tensor->quant, &tensor->shape, given, tensor->quant.tensor_scale ? tensor->tensor_scales : NULL, planes);
    free(given);
    free(scratch.x);
    free(scratch.y);
    free(scratch.codes);
    return bytes;
}

/* The weighted error of what the planes stand for, every weight of it finite. */
static double weighted_error(const struct tensor *tensor, uint8_t *const planes[CODEC_PLANES_MAX], float *y)
{
    const uint64_t cols = tensor->shape.cols, matrix_rows = shape_matrix_rows(&tensor->shape);
    double sum = 0.0;
    for (uint64_t r = 0; r < tensor->shape.rows; r++, y += cols) {
        const uint8_t *streams[CODEC_PLANES_MAX] = { NULL };
        const float *weight = tensor->rows[r / matrix_rows];
        for (uint32_t k = 0; k < tensor->n_planes; k++) {
            const uint64_t row = tensor->plane[k].rows == tensor->shape.rows ? r : quant_scale_row(&tensor->quant, matrix_rows, r);
            streams[k] = planes[k] + row * plane_row_nbytes(&tensor->plane[k]);
        }
        codec_decode_row(&tensor->quant, kernels_at(0), streams, tensor->tensor_scales[r / matrix_rows], 0, (size_t)cols, y);
        for (uint64_t c = 0; c < cols; c++) {
            const double d = (double)tensor->x[r * cols + c] - (double)y[c];
            assert_true(isfinite(y[c]));
            sum += d * d * (weight ? (double)weight[c] : 1.0);
        }
    }
    return sum;
}

/* ---- groups ----------------------------------------------------------------------------------------------------------------------- */

static void test_ones_change_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        struct tensor tensor = new_tensor(&samples[i], false);
        for (size_t k = 0; k < (size_t)(tensor.shape.cols * tensor.shape.n_matrices); k++) tensor.weights[k] = 1.0f;
        for (size_t k = 0; k < kernels_count(); k++) {
            uint8_t *planes[CODEC_PLANES_MAX];
            size_t nbytes;
            uint8_t *without = run(&tensor, kernels_at(k), false, planes, &nbytes), *with = run(&tensor, kernels_at(k), true, planes, &nbytes);
            if (memcmp(without, with, nbytes) != 0) fail_msg("%s: weights of 1 change bytes (%s)", samples[i].text, kernels_at(k)->name);
            free(without);
            free(with);
        }
        free_tensor(&tensor);
    }
}

/* Rows of the last matrix, which has no weights, and columns 64 .. 127, whose groups have none that is not 0. */
static void check_unweighted_parts(const struct tensor *tensor, const float *with, const float *without, const char *text)
{
    const uint64_t cols = tensor->shape.cols, matrix_rows = shape_matrix_rows(&tensor->shape), group = quant_group_len(&tensor->quant, cols);
    const bool fits = tensor->quant.group_kind == GROUP_SIZE && 64 % group == 0, alone = tensor->quant.group_kind != GROUP_TENSOR;
    for (uint64_t r = 0; r < tensor->shape.rows; r++)
        for (uint64_t c = 0; c < cols; c++) {
            const bool same = (alone && !tensor->rows[r / matrix_rows]) || (fits && c >= 64 && c < 128);
            if (same && with[r * cols + c] != without[r * cols + c]) fail_msg("%s: row %d, column %d is coded otherwise", text, (int)r, (int)c);
        }
}

static void test_weights_count(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        struct tensor tensor = new_tensor(&samples[i], false);
        spread_weights(&tensor);
        uint8_t *planes[CODEC_PLANES_MAX], *other[CODEC_PLANES_MAX];
        size_t nbytes;
        float *y = zeros(tensor.n, sizeof *y), *y_without = zeros(tensor.n, sizeof *y_without);
        uint8_t *without = run(&tensor, kernels_at(0), false, planes, &nbytes), *with = run(&tensor, kernels_at(0), true, other, &nbytes);
        const double before = weighted_error(&tensor, planes, y_without), after = weighted_error(&tensor, other, y);
        const bool heeds = codec_heeds_importance(&tensor.quant);
        print_message("%-36s weighted error %.6g, without %.6g\n", samples[i].text, after, before);
        if (heeds ? after > before * (1 + 1e-6) : memcmp(without, with, nbytes) != 0) fail_msg("%s: it is not better", samples[i].text);
        assert_true(!heeds || tensor.quant.group_kind == GROUP_TENSOR || memcmp(without, with, nbytes) != 0);
        check_unweighted_parts(&tensor, y, y_without, samples[i].text);
        for (size_t k = 1; k < kernels_count(); k++) {
            uint8_t *again = run(&tensor, kernels_at(k), true, other, &nbytes);
            if (memcmp(again, with, nbytes) != 0) fail_msg("%s: %s gives other bytes", samples[i].text, kernels_at(k)->name);
            free(again);
        }
        free(with);
        free(without);
        free(y);
        free(y_without);
        free_tensor(&tensor);
    }
}

/* ---- blocks of ggml --------------------------------------------------------------------------------------------------------------- */

static void check_blocks(const struct ggml_type *type, bool mse)
{
    char text[64];
    snprintf(text, sizeof text, "%s%s", type->format, mse ? ":rule=mse" : "");
    const struct sample sample = { text, 6, 20 * 256, 3 };
    struct tensor tensor = new_tensor(&sample, true);
    ggml_encode *encode = mse ? type->encode_mse : type->encode;
    const size_t cols = (size_t)sample.cols, row_nbytes = cols / type->elements * type->bytes;
    const bool heeds = mse || type->weighted;
    uint8_t *planes[CODEC_PLANES_MAX], *want = zeros(row_nbytes, 1);
    size_t nbytes;
    spread_weights(&tensor);
    for (size_t c = 512; c < 1024; c++) tensor.weights[c] = 0.0f; /* whole blocks of every type */
    uint8_t *got = run(&tensor, kernels_at(0), true, planes, &nbytes);
    assert_int_equal(codec_heeds_importance(&tensor.quant), heeds);
    assert_int_equal(nbytes, row_nbytes * sample.rows);
    for (size_t r = 0; r < sample.rows; r++) {
        const float *x = tensor.x + r * cols, *weight = heeds ? tensor.rows[r / 2] : NULL;
        encode(x, weight, cols / type->elements, want);
        for (size_t b = 0; weight && b < cols / type->elements; b++) {
            bool zero = true;
            for (size_t k = 0; k < type->elements; k++) zero = zero && weight[b * type->elements + k] == 0.0f;
            if (zero) encode(x + b * type->elements, NULL, 1, want + b * type->bytes);
        }
        if (memcmp(want, got + r * row_nbytes, row_nbytes) != 0) fail_msg("%s: row %zu has other bytes", text, r);
    }
    float *y = zeros(tensor.n, sizeof *y);
    weighted_error(&tensor, planes, y); /* all finite */
    free(y);
    free(got);
    free(want);
    free_tensor(&tensor);
}

static void test_blocks(void **state)
{
    (void)state;
    for (size_t i = 0; i < ggml_type_count(); i++) {
        const struct ggml_type *type = ggml_type_at(i);
        if (type->elements == 1 || !format_find(type->format) || !format_find(type->format)->family->blocks) continue;
        check_blocks(type, false);
        if (type->encode_mse) check_blocks(type, true);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ones_change_nothing),
        cmocka_unit_test(test_weights_count),
        cmocka_unit_test(test_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
