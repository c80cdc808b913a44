/* test_codec.c: tensors to planes and back, tile by tile.
 *
 * Drawing: tensor -> (observe passes when a group spans tiles) -> codec_encode per tile -> planes      compared with: each group alone through
 * quant_group, bits set one by one.
 * Why this way: the reference knows neither tiles nor strips nor vector kernels, so whatever these do cannot hide in it.
 * Corner cases: tails, one weight, rows longer than a tile, groups of 32768 and odd ones, more groups a row than are stored at once, groups over
 * several tiles; any size of the scratch; NaN, Inf and overflow with their place; planes of exact size, so that a sanitizer sees every byte too
 * far.
 * Reference: FORMAT.md 3; NUMERICS.md 5, 6.
 */
#include "support/spanning.h"
#include "support/support.h"

#include <math.h>

#include "layout/codec.h"
#include "layout/pack.h"
#include "number/half.h"
#include "number/kernel.h"

static const struct sample {
    const char *text;
    uint64_t rows, cols;
    bool spans;
} shapes[] = {
    { "mxfp4", 1, 1, false },
    { "mxfp4", 3, 40, false },
    { "mxfp4", 70, 992, false },
    { "mxfp4", 2, 300000, false },
    { "mxfp4:rule=floor", 70, 1024, false }, /* BF16: the fused kernel */
    { "mxfp4:rule=even", 3, 5120, false },
    { "mxfp4:rule=rceil", 2, 262176, false },
    { "mxfp4:rule=ceil", 5, 48, false },
    { "mxfp4:group=32768", 1, 600000, false },
    { "mxfp4:group=5", 2, 262150, false },
    { "mxfp4:group=64,rounding=up", 3, 200, false },
    { "mxfp6_e2m3:group=5", 3, 1003, false },
    { "mxfp6_e3m2", 9, 70, false },
    { "mxfp8_e4m3", 5, 4100, false },
    { "mxfp8_e5m2:group=16,rule=even", 2, 333, false },
    { "mxint8", 7, 100, false },
    { "mxint8:group=48,rule=rceil", 33, 500, false },
    { "int2:group=7", 4, 99, false },
    { "int3:group=7,rule=mse", 5, 101, false },
    { "int4", 9, 4224, false },
    { "int4:rule=mse", 3, 300, false },
    { "int5:group=channel", 3, 17000, false },
    { "int6:group=32768", 1, 262144, false },
    { "int7:rounding=away,scale=f32", 3, 129, false },
    { "int8", 2, 270000, false },
    { "uint2:group=1", 3, 1030, false },
    { "uint3:group=3,scale=f16", 5, 2000, false },
    { "uint5:group=channel", 4, 999, false },
    { "uint4:group=tensor", 7, 33, false },
    { "uint7:group=tensor,rule=mse", 3, 21, false },
    { "uint8:group=64,rule=mse", 2, 200, false },
    { "int4:group=tensor,rule=mse", 900, 300, true },
    { "int8:group=tensor", 1, 300000, true },
    { "uint4:group=tensor", 263000, 1, true },
    { "uint3:group=channel,rule=mse", 2, 262151, true },
    { "int4:group=channel", 2, 300001, true },
    { "bfp16", 5, 1003, false },
    { "bfp24:group=5,rule=search", 3, 400, false },
    { "bfp10:rounding=up", 2, 262150, false },
    { "bfp16:kernel=1,group=64", 7, 500, false },
    { "mx9", 5, 1003, false },
    { "mx9:group=256", 3, 9001, false },
    { "mx4:group=6,sub-block=3,shift-bits=2,rule=search", 9, 1000, false },
    { "mx6:group=1024,sub-block=512,rule=search", 2, 5000, false },
    { "bfpprime24:group=128,sub-block=1,shift-bits=3", 2, 263000, false },
    { "mx6:shift-bits=0", 3, 100, false },
    { "fp8_e4m3", 9, 1000, false },
    { "fp8_e5m2:group=tensor,rule=mse", 900, 300, true },
    { "fp6_e2m3:rule=mse", 3, 100, false },
    { "nf4", 5, 1001, false },
    { "fp4_bnb:rule=mse,group=33", 3, 200, false },
    { "iq4nl:group=channel,rule=mse", 2, 262151, true },
    { "fp8_e4m3:group=128x128", 300, 1000, true },
    { "fp8_e4m3:group=128x128,rule=mse", 300, 1000, true },
    { "fp6_e3m2:group=128x128,rule=mse", 2, 263000, true },
};

/* Stacks of matrices, whose squares do not reach from one to the next. */
static const struct {
    struct sample sample;
    uint64_t n_matrices;
} stacks[] = {
    { { "fp4_e2m1:group=128x128,rule=mse,scale=f32", 3 * 140, 260, true }, 3 },
    { { "fp8_e4m3:group=128x128,rule=mse", 5, 70, true }, 5 },
};

/* A tensor and everything made of it. */
struct tensor {
    struct quant quant;
    uint64_t rows, cols;
    struct shape shape;
    const struct dtype *dtype;
    size_t n;
    float *x; /* as the codec must see it */
    uint8_t *source; /* as stored */
    uint32_t n_planes;
    struct plane plane[CODEC_PLANES_MAX];
};

static void *new_bytes(size_t nbytes)
{
    void *out = malloc(nbytes ? nbytes : 1);
    assert_non_null(out);
    memset(out, 0x55, nbytes);
    return out;
}

static float draw(uint64_t *seed)
{
    uint64_t r = test_random(seed);
    float sum = (float)(r & 0xFFFF) + (float)(r >> 16 & 0xFFFF) + (float)(r >> 32 & 0xFFFF) + (float)(r >> 48) - 131072.0f;
    int kind = (int)(test_random(seed) % 64);
    return kind == 0 ? 0.0f : kind == 1 ? -0.0f : kind == 2 ? sum * 3.7e-6f : sum * 2.3e-7f;
}

static struct tensor new_tensor(const struct sample *shape, uint64_t n_matrices, const char *dtype)
{
    struct tensor tensor = {
        .rows = shape->rows, .cols = shape->cols, .dtype = dtype_find(dtype, strlen(dtype)), .n = (size_t)(shape->rows * shape->cols)
    };
    tensor.shape = (struct shape){ shape->rows, shape->cols, n_matrices };
    struct err err;
    uint64_t seed = shape->cols;
    assert_ok(quant_parse(shape->text, NULL, &tensor.quant, &err));
    tensor.x = new_bytes(tensor.n * sizeof *tensor.x);
    tensor.source = new_bytes(tensor.n * tensor.dtype->bits / 8);
    for (size_t i = 0; i < tensor.n; i++) tensor.x[i] = draw(&seed);
    tensor.dtype->narrow(tensor.x, tensor.n, tensor.source);
    tensor.dtype->widen(tensor.source, tensor.n, tensor.x);
    tensor.n_planes = codec_planes(&tensor.quant, &tensor.shape, tensor.plane);
    return tensor;
}

static void free_tensor(struct tensor *tensor)
{
    free(tensor->x);
    free(tensor->source);
}

struct planes {
    uint8_t *bytes[CODEC_PLANES_MAX];
};

static struct planes new_planes(const struct tensor *tensor)
{
    struct planes planes = { { NULL } };
    struct err err;
    for (uint32_t i = 0; i < tensor->n_planes; i++) {
        assert_ok(plane_check(&tensor->plane[i], &err));
        planes.bytes[i] = new_bytes((size_t)plane_nbytes(&tensor->plane[i]));
    }
    return planes;
}

static void free_planes(struct planes *planes)
{
    for (size_t i = 0; i < CODEC_PLANES_MAX; i++) free(planes->bytes[i]);
}

static struct codec_scratch new_scratch(size_t n)
{
    return (struct codec_scratch){ new_bytes(n * 4), new_bytes(n * 4), new_bytes(n * 2), n };
}

static void free_scratch(struct codec_scratch *scratch)
{
    free(scratch->x);
    free(scratch->y);
    free(scratch->codes);
}

/* ---- the reference -------------------------------------------------------------------------------------------------------------- */

static void put_field(const struct plane *plane, uint8_t *bytes, uint64_t row, uint64_t col, uint64_t value)
{
    for (uint32_t k = 0; k < plane->bits; k++) {
        uint64_t bit = row * plane_row_nbytes(plane) * 8 + col * plane->bits + k;
        bytes[bit / 8] = (uint8_t)((bytes[bit / 8] & ~(1u << bit % 8)) | (value >> k & 1u) << bit % 8);
    }
}

/* The code of a weight, and what it stands for. */
static uint16_t naive_code(const struct quant *quant, const struct group_scale *scale, float x, float *y)
{
    const struct elem *elem = quant->elem;
    if (!quant->format->family->integers) {
        const uint32_t code = elem_encode(elem, scale->value == 0 ? 0.0f : x / scale->value, quant->rounding);
        *y = elem_decode(elem, code) * scale->value;
        return (uint16_t)code;
    }
    double code = rint((double)(x / scale->value)) + scale->zero;
    code = fmin(fmax(code, elem->code_min), elem->code_max);
    *y = (float)(code - scale->zero) * scale->value;
    return (uint16_t)(int)code;
}

/* Weights first .. first + n - 1 of rows row .. row + n_rows - 1. */
struct part {
    uint64_t row, n_rows, first, n;
};

/* Error of a candidate over a part whose rows, or pieces of a row, lie in different chunks. */
static double naive_error(const struct tensor *tensor, const struct group_scale *scale, float unit, const struct part *part)
{
    const struct plane *codes = &tensor->plane[0];
    uint64_t chunk = UINT64_MAX, i = 0;
    float lanes[16] = { 0 };
    double sum = 0;
    for (uint64_t r = part->row; r < part->row + part->n_rows; r++)
        for (uint64_t c = part->first; c < part->first + part->n; c++, i++) {
            const uint64_t here = r / codes->tile_rows * (tensor->cols / codes->tile_cols + 1) + c / codes->tile_cols;
            if (here != chunk) {
                for (size_t width = 8; width > 0; width /= 2)
                    for (size_t j = 0; j < width; j++) lanes[j] += lanes[j + width];
                sum += (double)lanes[0];
                memset(lanes, 0, sizeof lanes);
                chunk = here;
                i = 0;
            }
            float y, x = tensor->x[r * tensor->cols + c];
            naive_code(&tensor->quant, scale, x, &y);
            const float d = (x - y) * unit;
            lanes[i % 16] += d * d;
        }
    for (size_t width = 8; width > 0; width /= 2)
        for (size_t j = 0; j < width; j++) lanes[j] += lanes[j + width];
    return sum + (double)lanes[0];
}

/* Scale of a group that reaches over several chunks, by the words of NUMERICS.md 5. */
static struct group_scale naive_scale(const struct tensor *tensor, const struct part *part)
{
    const struct quant *quant = &tensor->quant;
    struct range range = { 0, 0 };
    struct group_scale best = { 0 }, candidate;
    double least = HUGE_VAL;
    for (uint64_t r = part->row; r < part->row + part->n_rows; r++)
        for (uint64_t c = part->first; c < part->first + part->n; c++) {
            range.min = fminf(range.min, tensor->x[r * tensor->cols + c]);
            range.max = fmaxf(range.max, tensor->x[r * tensor->cols + c]);
        }
    const float amax = fmaxf(-range.min, range.max), unit = amax > 0 ? ldexpf(1.0f, -ilogbf(amax)) : 1.0f;
    for (uint32_t i = 0; i < quant->format->family->candidates(quant); i++) {
        if (!quant->format->family->candidate(quant, range, i, &candidate)) continue;
        double error = naive_error(tensor, &candidate, unit, part);
        if (error < least) best = candidate;
        if (error < least) least = error;
    }
    return best;
}

/* A group whose scale is found over several chunks, or could be; its scale stands at (scale_row, scale_col). */
static void naive_spanning(const struct tensor *tensor, struct planes *planes, const struct part *part, uint64_t scale_row, uint64_t scale_col)
{
    const struct group_scale scale = naive_scale(tensor, part);
    for (uint64_t r = part->row; r < part->row + part->n_rows; r++)
        for (uint64_t c = part->first; c < part->first + part->n; c++) {
            float y;
            put_field(&tensor->plane[0], planes->bytes[0], r, c, naive_code(&tensor->quant, &scale, tensor->x[r * tensor->cols + c], &y));
        }
    put_field(&tensor->plane[1], planes->bytes[1], scale_row, scale_col, scale.bits);
    if (tensor->n_planes > 2) put_field(&tensor->plane[2], planes->bytes[2], scale_row, scale_col, (uint64_t)scale.zero);
}

static void naive_squares(const struct tensor *tensor, struct planes *planes)
{
    const uint64_t matrix_rows = tensor->rows / tensor->shape.n_matrices;
    uint64_t scale_row = 0;
    for (uint64_t m = 0; m < tensor->rows; m += matrix_rows)
        for (uint64_t r = 0; r < matrix_rows; r += 128, scale_row++)
            for (uint64_t c = 0; c < tensor->cols; c += 128) {
                const struct part part = { m + r, matrix_rows - r < 128 ? matrix_rows - r : 128, c, tensor->cols - c < 128 ? tensor->cols - c : 128 };
                naive_spanning(tensor, planes, &part, scale_row, c / 128);
            }
    assert_int_equal(scale_row, tensor->plane[1].rows);
}

/* One group alone: n weights whose first stands at (row, col), its scale at (scale_row, scale_col). */
static void naive_group(const struct tensor *tensor, struct planes *planes, uint64_t row, uint64_t col, size_t n, uint64_t scale_row,
                        uint64_t scale_col)
{
    const struct quant *quant = &tensor->quant;
    uint16_t *codes = new_bytes(n * sizeof *codes);
    struct group_scale scales[SUB_BLOCKS_MAX];
    assert_true(quant_group(quant, kernels_at(0), tensor->x + row * tensor->cols + col, NULL, n, scales, codes));
    for (size_t i = 0; i < n; i++) put_field(&tensor->plane[0], planes->bytes[0], row + (col + i) / tensor->cols, (col + i) % tensor->cols, codes[i]);
    put_field(&tensor->plane[1], planes->bytes[1], scale_row, scale_col, scales[0].bits);
    if (quant->sub_block)
        for (size_t i = 0; i * quant->sub_block < n; i++)
            put_field(&tensor->plane[2], planes->bytes[2], scale_row, col / quant->sub_block + i, scales[i].shift);
    else if (tensor->n_planes > 2) put_field(&tensor->plane[2], planes->bytes[2], scale_row, scale_col, (uint64_t)scales[0].zero);
    free(codes);
}

static struct planes naive_planes(const struct tensor *tensor, bool spans)
{
    struct planes planes = new_planes(tensor);
    for (uint32_t i = 0; i < tensor->n_planes; i++) memset(planes.bytes[i], 0, (size_t)plane_nbytes(&tensor->plane[i]));
    if (tensor->quant.group_kind == GROUP_SQUARE) {
        naive_squares(tensor, &planes);
        return planes;
    }
    if (tensor->quant.group_kind == GROUP_TENSOR) {
        const struct part all = { 0, tensor->rows, 0, tensor->cols };
        if (spans) naive_spanning(tensor, &planes, &all, 0, 0);
        else naive_group(tensor, &planes, 0, 0, tensor->n, 0, 0);
        return planes;
    }
    const uint64_t group = quant_group_len(&tensor->quant, tensor->cols);
    for (uint64_t row = 0; row < tensor->rows; row++)
        for (uint64_t col = 0; col < tensor->cols; col += group) {
            uint64_t n = group < tensor->cols - col ? group : tensor->cols - col;
            if (spans) naive_spanning(tensor, &planes, &(struct part){ row, 1, col, n }, row, col / group);
            else naive_group(tensor, &planes, row, col, (size_t)n, row, col / group);
        }
    return planes;
}

/* ---- the codec, driven as a converter drives it ----------------------------------------------------------------------------------- */

static struct codec_tile tile_at(const struct tensor *tensor, const struct planes *planes, uint64_t index)
{
    struct tile at = plane_tile(&tensor->plane[0], index);
    struct codec_tile tile = { .source = tensor->source + (at.row * tensor->cols + at.col) * tensor->dtype->bits / 8,
                               .dtype = tensor->dtype,
                               .n_rows = at.n_rows,
                               .n_cols = at.n_cols,
                               .first_row = at.row,
                               .first_col = at.col,
                               .matrix_rows = shape_matrix_rows(&tensor->shape) };
    for (uint32_t i = 0; i < tensor->n_planes; i++)
        if (planes->bytes[i] && plane_tile_count(&tensor->plane[i]) == plane_tile_count(&tensor->plane[0]))
            tile.planes[i] = planes->bytes[i] + plane_tile_offset(&tensor->plane[i], index);
    return tile;
}

static struct codec_tile source_tile(const void *tensor, uint64_t index)
{
    return tile_at(tensor, &(struct planes){ { NULL } }, index);
}

static void run(const struct tensor *tensor, const struct kernels *kernels, size_t n_scratch, struct planes *planes, struct measure *measure)
{
    struct codec_scratch scratch = new_scratch(n_scratch);
    struct group_scale *given = NULL;
    struct codec_fault fault;
    if (codec_spans(&tensor->quant, tensor->rows, tensor->cols))
        given = spanning_scales(&tensor->quant, &tensor->shape, tensor->plane, kernels, &scratch, source_tile, tensor);
    for (uint64_t i = 0; i < plane_tile_count(&tensor->plane[0]); i++) {
        struct codec_tile tile = tile_at(tensor, planes, i);
        tile.given = given;
        tile.given_cols = tensor->plane[1].cols;
        tile.measure = measure;
        assert_true(codec_encode(&tensor->quant, kernels, &tile, &scratch, &fault));
        assert_int_equal(fault.kind, CODEC_FINE);
    }
    if (given) codec_store_whole(&tensor->quant, &tensor->shape, given, NULL, planes->bytes);
    free(given);
    free_scratch(&scratch);
}

static void check_equal(const struct tensor *tensor, const struct planes *got, const struct planes *want, const char *text, const char *how)
{
    for (uint32_t i = 0; i < tensor->n_planes; i++)
        for (size_t k = 0; k < plane_nbytes(&tensor->plane[i]); k++)
            if (got->bytes[i][k] != want->bytes[i][k])
                fail_msg("%s %s (%s): byte %zu of plane %s is %02x, not %02x", text, tensor->dtype->name, how, k, tensor->plane[i].name,
                         got->bytes[i][k], want->bytes[i][k]);
}

/* All rows decoded, and pieces of them that must be the same; then the measure against the decoded weights. */
static void check_decoded(const struct tensor *tensor, const struct kernels *kernels, const struct planes *planes, const struct measure *measure,
                          const char *text)
{
    float *y = new_bytes((size_t)tensor->cols * sizeof *y), *piece = new_bytes((size_t)tensor->cols * sizeof *piece);
    struct measure sums = { .n = tensor->n };
    for (uint64_t row = 0; row < tensor->rows; row++) {
        const uint64_t scale_row = quant_scale_row(&tensor->quant, shape_matrix_rows(&tensor->shape), row);
        const uint8_t *const streams[CODEC_PLANES_MAX] = {
            planes->bytes[0] + row * plane_row_nbytes(&tensor->plane[0]), planes->bytes[1] + scale_row * plane_row_nbytes(&tensor->plane[1]),
            tensor->n_planes > 2 ? planes->bytes[2] + scale_row * plane_row_nbytes(&tensor->plane[2]) : NULL, NULL
        };
        codec_decode_row(&tensor->quant, kernels, streams, 1.0f, 0, (size_t)tensor->cols, y);
        for (uint64_t first = row; first < tensor->cols; first += 1 + tensor->cols / 3) {
            size_t n = (size_t)((tensor->cols - first) / (1 + first % 3));
            codec_decode_row(&tensor->quant, kernels, streams, 1.0f, first, n, piece);
            assert_memory_equal(piece, y + first, n * sizeof *y);
        }
        for (uint64_t i = 0; i < tensor->cols; i++) {
            float a = tensor->x[row * tensor->cols + i], d = a - y[i];
            sums.sum_xx += (double)a * (double)a;
            sums.sum_yy += (double)y[i] * (double)y[i];
            sums.sum_xy += (double)a * (double)y[i];
            sums.sum_dd += (double)d * (double)d;
            sums.max_d = fmax(sums.max_d, fabs((double)d));
        }
    }
    const double *got = &measure->sum_xx, *want = &sums.sum_xx; /* four sums in a row */
    for (size_t i = 0; i < 4; i++)
        if (fabs(got[i] - want[i]) > 1e-5 * fabs(want[i])) fail_msg("%s: sum %zu is %.9g, not %.9g", text, i, got[i], want[i]);
    assert_int_equal(measure->n, sums.n);
    assert_true(measure->max_d == sums.max_d);
    free(y);
    free(piece);
}

static void check_shape(const struct sample *shape, uint64_t n_matrices, const char *dtype)
{
    struct tensor tensor = new_tensor(shape, n_matrices, dtype);
    struct measure first = { 0 };
    assert_int_equal(codec_spans(&tensor.quant, tensor.rows, tensor.cols), shape->spans);
    struct planes want = naive_planes(&tensor, shape->spans);
    const size_t least = codec_scratch_weights(&tensor.quant, tensor.rows, tensor.cols), sizes[] = { least, least + 1, least * 2 + 3 };
    for (size_t k = 0; k < kernels_count(); k++)
        for (size_t s = 0; s < 3; s++) {
            struct planes got = new_planes(&tensor);
            struct measure measure = { 0 };
            run(&tensor, kernels_at(k), sizes[s], &got, s == 1 ? NULL : &measure);
            check_equal(&tensor, &got, &want, shape->text, kernels_at(k)->name);
            if (k == 0 && s == 0) first = measure;
            if (s != 1) assert_memory_equal(&measure, &first, sizeof first); /* the report does not depend on them either */
            if (s == 0) check_decoded(&tensor, kernels_at(k), &got, &measure, shape->text);
            free_planes(&got);
        }
    free_planes(&want);
    free_tensor(&tensor);
}

static void test_shapes(void **state)
{
    (void)state;
    static const char *const dtypes[] = { "BF16", "F32", "F16" };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (size_t d = 0; d < 3; d++)
            if (d == 0 || shapes[i].rows * shapes[i].cols < 100000) check_shape(&shapes[i], 1, dtypes[d]);
    for (size_t i = 0; i < sizeof stacks / sizeof stacks[0]; i++) check_shape(&stacks[i].sample, stacks[i].n_matrices, dtypes[0]);
}

/* ---- geometry ------------------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *text;
    uint64_t rows, cols, codes_tile[2], scales[2], scales_tile[2];
} geometries[] = {
    { "mxfp4", 5, 172, { 1524, 172 }, { 5, 6 }, { 1524, 6 } },
    { "mxfp4", 2, 300000, { 1, 262144 }, { 2, 9375 }, { 1, 8192 } },
    { "fp8_e4m3:group=128x128", 300, 1000, { 262, 1000 }, { 3, 8 }, { 3, 8 } },
    { "fp8_e4m3:group=128x128", 3, 300000, { 1, 262144 }, { 1, 2344 }, { 1, 2344 } },
    { "mxfp4:group=5", 2, 300000, { 1, 262120 }, { 2, 60000 }, { 1, 52424 } },
    { "mxfp4:group=32768", 1, 600000, { 1, 262144 }, { 1, 19 }, { 1, 8 } },
    { "int4:group=channel", 300, 1000, { 262, 1000 }, { 300, 1 }, { 262, 1 } },
    { "int4:group=channel", 3, 262145, { 1, 262144 }, { 3, 1 }, { 3, 1 } },
    { "int4:group=tensor", 10, 10, { 26214, 10 }, { 1, 1 }, { 26214, 1 } },
    { "int4:group=tensor", 300, 1000, { 262, 1000 }, { 1, 1 }, { 1, 1 } },
};

static void test_geometry(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof geometries / sizeof geometries[0]; i++) {
        struct err err;
        struct quant quant;
        struct plane planes[CODEC_PLANES_MAX];
        assert_ok(quant_parse(geometries[i].text, NULL, &quant, &err));
        assert_int_equal(codec_planes(&quant, &(struct shape){ geometries[i].rows, geometries[i].cols, 1 }, planes), 2);
        assert_string_equal(planes[0].name, "codes");
        assert_string_equal(planes[1].name, "scales");
        const uint64_t got[] = { planes[0].tile_rows, planes[0].tile_cols, planes[1].rows, planes[1].cols, planes[1].tile_rows, planes[1].tile_cols };
        const uint64_t want[] = { geometries[i].codes_tile[0], geometries[i].codes_tile[1],  geometries[i].scales[0],
                                  geometries[i].scales[1],     geometries[i].scales_tile[0], geometries[i].scales_tile[1] };
        for (size_t k = 0; k < 6; k++)
            if (got[k] != want[k])
                fail_msg("%s %d: number %zu is %d, not %d", geometries[i].text, (int)geometries[i].cols, k, (int)got[k], (int)want[k]);
    }
}

/* ---- what is refused ------------------------------------------------------------------------------------------------------------ */

static const struct {
    const char *text, *dtype;
    uint64_t rows, cols, row, col; /* where the bad weight stands */
    float bad;
    enum nonfinite nonfinite;
    int kind; /* of the fault */
    uint64_t fault_col;
    float instead; /* what the weight is taken for in choosing the scale, when there is no fault */
    int code; /* of an Inf that is clamped; -1: that of instead */
} bads[] = {
    { "mxfp4:rule=floor", "BF16", 9, 4096, 7, 4095, NAN, NONFINITE_ERROR, CODEC_NONFINITE, 4095, 0, -1 },
    { "mxfp4:rule=floor", "BF16", 9, 4096, 7, 4095, -INFINITY, NONFINITE_CLAMP, CODEC_FINE, 0, 0, 0xF },
    { "int4", "BF16", 9, 4096, 7, 4095, -INFINITY, NONFINITE_CLAMP, CODEC_FINE, 0, 0, 0x8 },
    { "uint4:group=tensor", "F32", 9, 96, 7, 5, -INFINITY, NONFINITE_CLAMP, CODEC_FINE, 0, 0, 0x0 },
    { "mxint8", "F32", 9, 96, 7, 5, -INFINITY, NONFINITE_CLAMP, CODEC_FINE, 0, 0, 0x81 },
    { "mxfp4:rule=floor", "BF16", 9, 4096, 7, 4095, -INFINITY, NONFINITE_ZERO, CODEC_FINE, 0, 0, -1 },
    { "mxfp4", "F32", 40, 992, 33, 17, INFINITY, NONFINITE_ERROR, CODEC_NONFINITE, 17, 0, -1 },
    { "mxfp4", "F32", 1, 100000, 0, 90001, NAN, NONFINITE_ERROR, CODEC_NONFINITE, 90001, 0, -1 },
    { "mxfp4", "F32", 1, 100000, 0, 90001, NAN, NONFINITE_CLAMP, CODEC_FINE, 0, 0, -1 },
    { "int4", "F16", 3, 256, 1, 3, INFINITY, NONFINITE_CLAMP, CODEC_FINE, 0, 0, 0x7 },
    { "uint4:group=channel", "F16", 3, 256, 1, 3, -NAN, NONFINITE_ZERO, CODEC_FINE, 0, 0, -1 },
    { "int8:group=tensor", "BF16", 5, 77, 4, 76, NAN, NONFINITE_ERROR, CODEC_NONFINITE, 76, 0, -1 },
    { "int8:scale=f16", "F32", 5, 300, 4, 299, 9e6f, NONFINITE_ERROR, CODEC_SCALE_OVERFLOW, 256, 0, -1 },
    { "int8:scale=f16", "F32", 1, 100000, 0, 99999, 9e6f, NONFINITE_ERROR, CODEC_SCALE_OVERFLOW, 99968, 0, -1 },
    { "int8:scale=f16,group=tensor", "F32", 5, 300, 4, 299, 9e6f, NONFINITE_ERROR, CODEC_SCALE_OVERFLOW, 0, 0, -1 },
    { "bfp16", "F32", 9, 96, 7, 5, -INFINITY, NONFINITE_CLAMP, CODEC_FINE, 0, 0, 0x81 },
    { "bfp16:kernel=1", "F32", 9, 96, 7, 5, -INFINITY, NONFINITE_CLAMP, CODEC_FINE, 0, 0, 0x80 },
    { "mxint8:negative-end=full", "F32", 9, 96, 7, 5, INFINITY, NONFINITE_CLAMP, CODEC_FINE, 0, 0, 0x7F },
    { "nf4", "F32", 9, 96, 7, 5, -INFINITY, NONFINITE_CLAMP, CODEC_FINE, 0, 0, 0x0 },
    { "fp8_e4m3", "F32", 9, 96, 7, 5, -INFINITY, NONFINITE_CLAMP, CODEC_FINE, 0, 0, 0xFE },
    { "fp6_e2m3:scale=f16", "F32", 1, 100000, 0, 99999, 9e6f, NONFINITE_ERROR, CODEC_SCALE_OVERFLOW, 99968, 0, -1 },
    { "iq4nl", "F32", 1, 100000, 0, 99999, 9e7f, NONFINITE_ERROR, CODEC_SCALE_OVERFLOW, 99968, 0, -1 },
    { "uint8:scale=f16,group=channel,rule=mse", "F32", 5, 300, 4, 299, 9e7f, NONFINITE_ERROR, CODEC_SCALE_OVERFLOW, 0, 0, -1 },
};

/* Writes a field of 4 or 8 bits. */
static void set_field(const struct plane *plane, uint8_t *bytes, uint64_t row, uint64_t col, unsigned code)
{
    uint8_t *byte = bytes + row * plane_row_nbytes(plane) + col * plane->bits / 8;
    unsigned shift = plane->bits == 4 && col % 2 ? 4 : 0, mask = ((1u << plane->bits) - 1u) << shift;
    *byte = (uint8_t)((*byte & ~mask) | code << shift);
}

static void check_bad(size_t index, const struct kernels *kernels)
{
    const struct sample shape = { bads[index].text, bads[index].rows, bads[index].cols, false };
    struct tensor tensor = new_tensor(&shape, 1, bads[index].dtype);
    size_t at = (size_t)(bads[index].row * tensor.cols + bads[index].col);
    tensor.dtype->narrow(&bads[index].bad, 1, tensor.source + at * tensor.dtype->bits / 8);
    tensor.x[at] = bads[index].instead;
    struct planes got = new_planes(&tensor);
    struct codec_scratch scratch = new_scratch(codec_scratch_weights(&tensor.quant, tensor.rows, tensor.cols));
    struct codec_tile tile = tile_at(&tensor, &got, 0);
    struct codec_fault fault;
    struct measure measure = { 0 };
    tile.nonfinite = bads[index].nonfinite;
    tile.measure = &measure;
    bool done = codec_encode(&tensor.quant, kernels, &tile, &scratch, &fault);
    if ((int)fault.kind != bads[index].kind || done != (fault.kind == CODEC_FINE))
        fail_msg("%s (case %zu): fault %d", shape.text, index, (int)fault.kind);
    if (done) {
        struct planes want = naive_planes(&tensor, false);
        if (bads[index].code >= 0) set_field(&tensor.plane[0], want.bytes[0], bads[index].row, bads[index].col, (unsigned)bads[index].code);
        check_equal(&tensor, &got, &want, shape.text, kernels->name);
        if (bads[index].code < 0) check_decoded(&tensor, kernels, &got, &measure, shape.text);
        free_planes(&want);
    } else {
        bool whole = tensor.quant.group_kind == GROUP_TENSOR && fault.kind == CODEC_SCALE_OVERFLOW;
        assert_int_equal(fault.row, whole ? 0 : bads[index].row);
        assert_int_equal(fault.col, bads[index].fault_col);
    }
    struct range range;
    bool observed = codec_observe_range(kernels, &tile, &scratch, &range, &fault);
    assert_int_equal(observed, bads[index].kind != CODEC_NONFINITE);
    if (!observed) assert_true(fault.kind == CODEC_NONFINITE && fault.row == bads[index].row && fault.col == bads[index].col);
    free_scratch(&scratch);
    free_planes(&got);
    free_tensor(&tensor);
}

static void test_bad_weights(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bads / sizeof bads[0]; i++)
        for (size_t k = 0; k < kernels_count(); k++) check_bad(i, kernels_at(k));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_shapes), cmocka_unit_test(test_geometry), cmocka_unit_test(test_bad_weights) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
