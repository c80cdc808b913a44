/* test_all_formats.c: one loop over the table of formats: what must hold for any row, whatever its family.
 *
 * Drawing: row x weights x kernel set x cut into tiles -> the same bytes -> decoded, bounded; and row -> llmq_writer -> file -> llmq_model -> the same.
 * Why this way: a new row of format.c is tested the day it is written, before anybody thought of tests for it. Values are the business of
 * test_golden, test_ggml and test_quality, bounds on Gaussian weights of test_format; here are the properties.
 * Corner cases: rows with tails (of group, sub-block and byte) where the format has no blocks; groups of +0, of -0, of subnormals, all near the
 * largest f32 (refused by every kernel set at the same place, or finite); NaN and Inf in the last weight; scales of matrices.
 * Reference: format.h. Worked number: q4_k: 5 rows of 3 blocks are 5 * 3 * 144 bytes.
 */
#include "support/support.h"

#include <math.h>

#include "layout/codec.h"
#include "llmq.h"
#include "number/half.h"
#include "number/kernel.h"
#include "support/weights.h"

enum { ROWS = 5, MOST = ROWS * 3 * 256, PLANE_NBYTES = MOST * 4, SCRATCH = 1 << 18 };

/* A format with its defaults, and a tensor for it. */
struct sample {
    struct quant quant;
    size_t cols, n;
    struct shape shape;
    uint32_t n_planes;
    struct plane plane[CODEC_PLANES_MAX];
};

struct result {
    bool done;
    struct codec_fault fault;
    struct measure measure;
    uint8_t bytes[CODEC_PLANES_MAX][PLANE_NBYTES];
};

static struct sample sample_of(const struct format *format)
{
    struct sample sample = { .n_planes = 0 };
    struct err err;
    assert_ok(quant_parse(format->name, NULL, &sample.quant, &err));
    const size_t unit = sample.quant.blocks ? format->block->elements : sample.quant.group ? sample.quant.group : 128;
    sample.cols = sample.quant.blocks ? 3 * unit : 2 * unit - unit / 2 + 1; /* the tail: half a group and a weight */
    sample.n = ROWS * sample.cols;
    assert_true(sample.n <= MOST);
    sample.shape = (struct shape){ ROWS, sample.cols, 1 };
    sample.n_planes = codec_planes(&sample.quant, &sample.shape, sample.plane);
    return sample;
}

/* ---- weights -------------------------------------------------------------------------------------------------------------------- */

static void fill(float *x, size_t n, float value)
{
    for (size_t i = 0; i < n; i++) x[i] = value;
}

static void ordinary(float *x, size_t n)
{
    weights_make(WEIGHTS_T5, 7, n, x);
    for (size_t i = 0; i < n; i += 37) x[i] = i % 2 ? 0.0f : -0.0f;
    fill(x + n / 2, n / 5, 0.0f);
}

static void zeros(float *x, size_t n)
{
    fill(x, n, 0.0f);
}

static void negative_zeros(float *x, size_t n)
{
    fill(x, n, -0.0f);
}

static void times(float *x, size_t n, float factor)
{
    weights_make(WEIGHTS_GAUSS, 8, n, x);
    for (size_t i = 0; i < n; i++) x[i] *= factor;
}

static void subnormals(float *x, size_t n)
{
    times(x, n, 0x1p-125f);
}

static void tiny(float *x, size_t n)
{
    times(x, n, 0x1p-100f);
}

static void huge(float *x, size_t n)
{
    times(x, n, 0x1p127f);
    for (size_t i = 0; i < n; i++) x[i] *= 16.0f; /* six sigma are 1.5 * 2^127 */
}

static void one_of_a_kind(float *x, size_t n)
{
    fill(x, n, -0.37f);
}

static const struct {
    const char *name;
    void (*make)(float *x, size_t n);
    bool may_overflow;
} kinds[] = {
    { "ordinary", ordinary, false }, { "zeros", zeros, false }, { "negative zeros", negative_zeros, false }, { "subnormals", subnormals, false },
    { "tiny", tiny, false },         { "huge", huge, true },    { "one value", one_of_a_kind, false },
};

/* ---- runs ----------------------------------------------------------------------------------------------------------------------- */

/* Encodes in tiles of n_rows rows. */
static void encode(const struct sample *sample, const struct kernels *kernels, const float *x, size_t n_rows, struct result *result)
{
    static float a[SCRATCH], b[SCRATCH];
    static uint16_t codes[SCRATCH];
    const struct codec_scratch scratch = { a, b, codes, SCRATCH };
    struct range range = { 0, 0 };
    float scale = 1.0f;
    assert_true(codec_scratch_weights(&sample->quant, ROWS, sample->cols) <= SCRATCH);
    memset(result, 0, sizeof *result);
    if (sample->quant.tensor_scale) {
        for (size_t i = 0; i < sample->n; i++) range_add(&range, (struct range){ fminf(x[i], 0.0f), fmaxf(x[i], 0.0f) });
        scale = sample->quant.format->family->tensor_scale(range);
    }
    result->done = true;
    for (size_t row = 0; row < ROWS && result->done; row += n_rows) {
        struct codec_tile tile = { .source = (const uint8_t *)(const void *)(x + row * sample->cols),
                                   .dtype = dtype_find("F32", 3),
                                   .n_rows = row + n_rows > ROWS ? ROWS - row : n_rows,
                                   .n_cols = sample->cols,
                                   .tensor_scales = sample->quant.tensor_scale ? &scale : NULL,
                                   .first_row = row,
                                   .matrix_rows = ROWS,
                                   .measure = &result->measure };
        for (uint32_t k = 0; k < sample->n_planes; k++) tile.planes[k] = result->bytes[k] + row * plane_row_nbytes(&sample->plane[k]);
        result->done = codec_encode(&sample->quant, kernels, &tile, &scratch, &result->fault);
        result->fault.row += row;
    }
    uint8_t *const planes[CODEC_PLANES_MAX] = { result->bytes[0], result->bytes[1], result->bytes[2], result->bytes[3] };
    codec_store_whole(&sample->quant, &sample->shape, NULL, sample->quant.tensor_scale ? &scale : NULL, planes);
}

/* Row by row, each in two pieces. */
static void decode(const struct sample *sample, const struct kernels *kernels, const struct result *result, float *y)
{
    float scale = 1.0f;
    const size_t first = sample->cols / 3;
    if (sample->quant.tensor_scale) ggml_f32.decode(result->bytes[sample->n_planes - 1], 1, &scale);
    for (size_t row = 0; row < ROWS; row++) {
        const uint8_t *streams[CODEC_PLANES_MAX] = { NULL };
        for (uint32_t k = 0; k < sample->n_planes; k++) streams[k] = result->bytes[k] + row * plane_row_nbytes(&sample->plane[k]);
        codec_decode_row(&sample->quant, kernels, streams, scale, 0, first, y + row * sample->cols);
        codec_decode_row(&sample->quant, kernels, streams, scale, first, sample->cols - first, y + row * sample->cols + first);
    }
}

/* ---- what must hold ------------------------------------------------------------------------------------------------------------- */

static void check_sizes(const struct sample *sample)
{
    const double tails = 8.0 * 4 * ROWS * sample->n_planes; /* bits: less than a scale and a byte a row of a plane */
    double bits = 0;
    struct err err;
    assert_true(quant_fits(&sample->quant, sample->cols));
    assert_int_equal(sample->plane[0].rows, ROWS);
    for (uint32_t k = 0; k < sample->n_planes; k++) {
        assert_ok(plane_check(&sample->plane[k], &err));
        assert_true(plane_nbytes(&sample->plane[k]) <= PLANE_NBYTES);
        bits += 8.0 * (double)plane_nbytes(&sample->plane[k]);
    }
    const double wanted = quant_bits_per_weight(&sample->quant, sample->cols, sample->n) * (double)sample->n;
    if (bits < wanted - 1e-6 || bits > wanted + tails + 32) fail_msg("%s: %.0f bits, not %.1f", sample->quant.format->name, bits, wanted);
}

static void check_same(const struct sample *sample, const char *what, const struct result *got, const struct result *want)
{
    const char *name = sample->quant.format->name;
    if (got->done != want->done) fail_msg("%s %s: done in one run, refused in the other", name, what);
    if (!got->done && (got->fault.kind != want->fault.kind || got->fault.row != want->fault.row || got->fault.col != want->fault.col))
        fail_msg("%s %s: refused at different places", name, what);
    for (uint32_t k = 0; k < sample->n_planes && got->done; k++)
        if (memcmp(got->bytes[k], want->bytes[k], PLANE_NBYTES) != 0) fail_msg("%s %s: plane %s differs", name, what, sample->plane[k].name);
}

/* The decoded weights y: finite, no larger than the weights allow, 0 for weights that are 0 only; and as the measure saw them. */
static void check_decoded(const struct sample *sample, const char *what, const float *x, const float *y, const struct measure *measure)
{
    const char *name = sample->quant.format->name;
    float amax = 0, worst = 0, largest = 0;
    for (size_t i = 0; i < sample->n; i++) amax = fmaxf(amax, fabsf(x[i]));
    for (size_t i = 0; i < sample->n; i++) {
        if (!isfinite(y[i])) fail_msg("%s %s: weight %zu decodes to %g", name, what, i, (double)y[i]);
        worst = fmaxf(worst, fabsf(x[i] - y[i]));
        largest = fmaxf(largest, fabsf(y[i]));
    }
    if ((double)worst != measure->max_d) fail_msg("%s %s: worst error %g, measured %g", name, what, (double)worst, measure->max_d);
    if (amax == 0 && largest != 0) fail_msg("%s %s: zeros decode to %g", name, what, (double)largest);
    /* the least scale of integers and codebooks is 2^-23, their codes of small numbers are a step at most */
    if ((double)largest > 2 * (double)amax + 0x1p-22) fail_msg("%s %s: %g from weights up to %g", name, what, (double)largest, (double)amax);
}

static void check_kind(const struct sample *sample, size_t kind)
{
    static float x[MOST], y[MOST], z[MOST];
    static struct result first, other;
    kinds[kind].make(x, sample->n);
    encode(sample, kernels_at(0), x, ROWS, &first);
    if (!first.done && (!kinds[kind].may_overflow || first.fault.kind != CODEC_SCALE_OVERFLOW))
        fail_msg("%s %s: refused", sample->quant.format->name, kinds[kind].name);
    for (size_t k = 0; k < kernels_count(); k++)
        for (size_t n_rows = 1; n_rows <= ROWS; n_rows += 2) {
            encode(sample, kernels_at(k), x, n_rows, &other);
            check_same(sample, kinds[kind].name, &other, &first);
        }
    if (!first.done) return;
    decode(sample, kernels_at(0), &first, y);
    check_decoded(sample, kinds[kind].name, x, y, &first.measure);
    for (size_t k = 1; k < kernels_count(); k++) {
        decode(sample, kernels_at(k), &first, z);
        assert_memory_equal(z, y, sample->n * sizeof *y);
    }
}

static void check_nonfinite(const struct sample *sample)
{
    static const float bad[] = { NAN, -NAN, INFINITY, -INFINITY };
    static float x[MOST];
    static struct result result;
    for (size_t i = 0; i < 4 * 3; i++) {
        const size_t row = i % 3 == 0 ? 0 : ROWS - 1, col = i % 3 == 1 ? 0 : sample->cols - 1;
        ordinary(x, sample->n);
        x[row * sample->cols + col] = bad[i / 3];
        if (sample->quant.tensor_scale) continue; /* the observation refuses it: test_codec */
        for (size_t k = 0; k < kernels_count(); k++) {
            encode(sample, kernels_at(k), x, 2, &result);
            if (result.done || result.fault.kind != CODEC_NONFINITE || result.fault.row != row || result.fault.col != col)
                fail_msg("%s: %g in row %zu, column %zu is not refused there", sample->quant.format->name, (double)bad[i / 3], row, col);
        }
    }
}

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < format_count(); i++) {
        const struct sample sample = sample_of(format_at(i));
        check_sizes(&sample);
        for (size_t kind = 0; kind < sizeof kinds / sizeof kinds[0]; kind++) check_kind(&sample, kind);
        check_nonfinite(&sample);
    }
}

/* ---- the container -------------------------------------------------------------------------------------------------------------- */

static struct llmq_error error;

#define assert_done(call)                                                                                                                            \
    do {                                                                                                                                             \
        if ((call) != LLMQ_OK) fail_msg("%s: %s", #call, error.text);                                                                                \
    } while (0)

static void check_stored(struct llmq_model *model, const struct sample *sample, const float *x)
{
    static struct result want;
    static float y[MOST], z[MOST];
    static uint8_t bytes[PLANE_NBYTES];
    const char *name = sample->quant.format->name;
    struct llmq_tensor_info info;
    size_t index = 0;
    encode(sample, kernels_at(0), x, ROWS, &want);
    decode(sample, kernels_at(0), &want, y);
    assert_done(llmq_model_find(model, name, &index, &error));
    assert_done(llmq_model_tensor(model, index, &info, &error));
    assert_string_equal(info.format, name);
    assert_int_equal(info.n_planes, sample->n_planes);
    for (uint32_t k = 0; k < info.n_planes; k++) {
        struct llmq_plane_info plane;
        assert_done(llmq_model_plane(model, index, k, &plane, &error));
        assert_string_equal(plane.name, sample->plane[k].name);
        assert_int_equal(plane.nbytes, plane_nbytes(&sample->plane[k]));
        assert_done(llmq_read_plane(model, index, k, 0, plane.rows, bytes, &error));
        assert_memory_equal(bytes, want.bytes[k], plane.nbytes);
    }
    assert_done(llmq_read_rows(model, index, 0, ROWS, z, &error));
    assert_memory_equal(z, y, sample->n * sizeof *y);
}

static void test_container(void **state)
{
    (void)state;
    enum { FORMATS_MAX = 256 };
    static struct llmq_tensor_spec specs[FORMATS_MAX];
    static struct sample samples[FORMATS_MAX];
    static uint64_t dims[FORMATS_MAX][2];
    static float x[MOST];
    struct llmq_writer *writer;
    struct llmq_model *model;
    char *dir = temp_dir();
    const char *path = temp_path(dir, "all.llmq");
    const size_t n = format_count();
    assert_true(n <= FORMATS_MAX);
    ordinary(x, MOST);
    for (size_t i = 0; i < n; i++) {
        struct llmq_quant *quant;
        samples[i] = sample_of(format_at(i));
        dims[i][0] = ROWS;
        dims[i][1] = samples[i].cols;
        assert_done(llmq_quant_open(format_at(i)->name, &quant, &error));
        specs[i] = (struct llmq_tensor_spec){ .name = format_at(i)->name, .dims = dims[i], .rank = 2, .dtype = "F32", .quant = quant };
    }
    assert_done(llmq_writer_open(path, specs, n, NULL, 0, NULL, &writer, &error));
    for (size_t i = 0; i < n; i++) {
        assert_done(llmq_writer_put(writer, i, x, samples[i].n * sizeof *x, &error));
        llmq_quant_close((struct llmq_quant *)(uintptr_t)specs[i].quant);
    }
    assert_done(llmq_writer_finish(writer, &error));
    llmq_writer_close(writer);
    assert_done(llmq_model_open(path, &model, &error));
    assert_int_equal(llmq_model_tensor_count(model), n);
    for (size_t i = 0; i < n; i++) check_stored(model, &samples[i], x);
    llmq_model_close(model);
    temp_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_rows), cmocka_unit_test(test_container) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
