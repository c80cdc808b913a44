/* test_api.c: every function of llmq.h, used as a program outside would, and misused.
 *
 * Drawing: floats -> llmq_writer -> file -> llmq_model -> floats, bytes, planes; compared with one group at a time through quant_group, and with
 * what `llmq convert` writes.
 * Why this way: only llmq.h is called; the internal headers serve as the second opinion. The strongest test is that program and library write the
 * same file.
 * Corner cases: pieces of any size, groups over several tiles, tensors without weights, scalars, elements below 8 bits, shards, damage, NULL
 * everywhere.
 * Reference: llmq.h. Worked number: int4:group=64, 2 x 100: 100 bytes of codes, 8 of scales.
 */
#include "support/api_support.h"

#include <math.h>
#include <sys/wait.h>

#include "container/llmq_read.h"
#include "layout/pack.h"
#include "number/kernel.h"

static void *new_bytes(uint64_t nbytes)
{
    void *out = malloc((size_t)nbytes + 1);
    assert_non_null(out);
    memset(out, 0x55, (size_t)nbytes + 1);
    return out;
}

/* n weights of plausible sizes, from very small ones to a few outliers. */
static float *new_weights(uint64_t n, uint64_t seed)
{
    float *x = new_bytes(n * sizeof *x);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t r = test_random(&seed);
        x[i] = (float)((int32_t)(r & 0xFFFF) - 32768) * (r >> 60 ? 1e-6f : 1e-4f);
    }
    return x;
}

static struct llmq_quant *new_quant(const char *text)
{
    struct llmq_quant *quant = NULL;
    assert_done(llmq_quant_open(text, &quant, &error));
    return quant;
}

/* ---- version and formats -------------------------------------------------------------------------------------------------------- */

static void test_version(void **state)
{
    (void)state;
    assert_string_equal(llmq_version(), LLMQ_VERSION); /* of the build */
    char text[64];
    snprintf(text, sizeof text, "%d.%d.%d", LLMQ_VERSION_MAJOR, LLMQ_VERSION_MINOR, LLMQ_VERSION_PATCH);
    assert_string_equal(llmq_version(), text);
}

static void test_formats(void **state)
{
    (void)state;
    struct llmq_format_info info;
    assert_int_equal(llmq_format_count(), format_count());
    for (size_t i = 0; i < llmq_format_count(); i++) {
        const struct format *format = format_at(i);
        assert_done(llmq_format(i, &info, &error));
        assert_string_equal(info.name, format->name);
        assert_string_equal(info.summary, format->summary);
        assert_string_equal(info.default_scale, scale_type_name(format->default_scale));
        const uint32_t group = format->default_kind == GROUP_CHANNEL ? LLMQ_GROUP_CHANNEL : format->default_group;
        assert_true(info.bits == (format->elem ? format->elem->bits : 0) && info.default_group == group && info.zero_point == format->zero_point);
        llmq_quant_close(new_quant(info.name));
    }
    assert_denied(llmq_format(llmq_format_count(), &info, &error), LLMQ_ERR_USAGE, "there is no format number");
    assert_denied(llmq_format(0, NULL, &error), LLMQ_ERR_USAGE, "format is NULL");
    assert_int_equal(llmq_format(SIZE_MAX, &info, NULL), LLMQ_ERR_USAGE);
}

/* ---- quantising in memory ------------------------------------------------------------------------------------------------------- */

static void test_quant_open(void **state)
{
    (void)state;
    struct llmq_quant *quant = (void *)&error;
    assert_denied(llmq_quant_open("int9", &quant, &error), LLMQ_ERR_USAGE, "unknown format 'int9'");
    assert_null(quant);
    assert_denied(llmq_quant_open("mxfp4:scale=f16", &quant, &error), LLMQ_ERR_USAGE, "only e8m0");
    assert_denied(llmq_quant_open("int4:group=0", &quant, &error), LLMQ_ERR_USAGE, "1 to 32768");
    assert_denied(llmq_quant_open("int4:rule=search", &quant, &error), LLMQ_ERR_USAGE, "absmax, mse");
    assert_denied(llmq_quant_open("int4:size=3", &quant, &error), LLMQ_ERR_USAGE, "none of group, scale, rule, rounding");
    assert_denied(llmq_quant_open(NULL, &quant, &error), LLMQ_ERR_USAGE, "text is NULL");
    assert_denied(llmq_quant_open("int4", NULL, &error), LLMQ_ERR_USAGE, "quant is NULL");
    assert_int_equal(llmq_quant_open("", &quant, NULL), LLMQ_ERR_USAGE);
    llmq_quant_close(NULL);
}

static void test_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t rows, cols;
        struct llmq_sizes wanted;
    } cases[] = {
        { "int4:group=64", 2, 100, { 100, 8, 0, 50, 4, 0 } },
        { "mxfp4", 3, 33, { 51, 6, 0, 17, 2, 0 } },
        { "mxfp6_e2m3", 1, 5, { 4, 1, 0, 4, 1, 0 } },
        { "uint3:group=10,scale=f32", 4, 95, { 144, 160, 16, 36, 40, 4 } },
        { "uint5:group=channel", 7, 9, { 42, 14, 7, 6, 2, 1 } },
        { "uint4:group=tensor,scale=f16", 1000, 1000, { 500000, 2, 1, 500, 2, 1 } },
        { "int8:group=channel", 2, 300000, { 600000, 4, 0, 300000, 2, 0 } },
        { "uint8", 0, 5, { 0, 0, 0, 0, 0, 0 } },
        { "uint8", 5, 0, { 0, 0, 0, 0, 0, 0 } },
    };
    struct llmq_sizes sizes;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct llmq_quant *quant = new_quant(cases[i].text);
        assert_done(llmq_quant_sizes(quant, cases[i].rows, cases[i].cols, &sizes, &error));
        assert_memory_equal(&sizes, &cases[i].wanted, sizeof sizes);
        llmq_quant_close(quant);
    }
    struct llmq_quant *quant = new_quant("int4");
    assert_denied(llmq_quant_sizes(quant, UINT64_MAX, 2, &sizes, &error), LLMQ_ERR_UNSUPPORTED, "are too many");
    assert_denied(llmq_quant_sizes(quant, UINT64_C(1) << 40, UINT64_C(1) << 40, &sizes, &error), LLMQ_ERR_UNSUPPORTED, "are too many");
    assert_denied(llmq_quant_sizes(NULL, 1, 1, &sizes, &error), LLMQ_ERR_USAGE, "quant is NULL");
    assert_denied(llmq_quant_sizes(quant, 1, 1, NULL, &error), LLMQ_ERR_USAGE, "sizes is NULL");
    llmq_quant_close(quant);
}

/* The planes of a matrix in buffers of exact size. */
struct planes {
    struct llmq_sizes sizes;
    uint8_t *codes, *scales, *zeros;
};

static struct planes new_planes(const struct llmq_quant *quant, uint64_t rows, uint64_t cols)
{
    struct planes planes;
    assert_done(llmq_quant_sizes(quant, rows, cols, &planes.sizes, &error));
    planes.codes = new_bytes(planes.sizes.codes);
    planes.scales = new_bytes(planes.sizes.scales);
    planes.zeros = planes.sizes.zeros ? new_bytes(planes.sizes.zeros) : NULL;
    return planes;
}

static void free_planes(struct planes *planes)
{
    free(planes->codes);
    free(planes->scales);
    free(planes->zeros);
}

/* Each group alone: fields of the planes as FORMAT.md 3.2 says; only for groups within a row. */
static struct planes reference_planes(const char *text, const float *x, uint64_t rows, uint64_t cols, const struct llmq_quant *public, float *y)
{
    struct planes planes = new_planes(public, rows, cols);
    struct quant quant;
    struct err err;
    assert_ok(quant_parse(text, NULL, &quant, &err));
    uint64_t groups = quant_groups_per_row(&quant, cols), length = quant_group_len(&quant, cols);
    const size_t unit = quant.sub_block ? quant.sub_block : (size_t)length, n_sides = (size_t)((cols + unit - 1) / unit);
    uint16_t *codes = new_bytes(cols * 2), *sides = new_bytes(n_sides * 2);
    for (uint64_t r = 0; r < rows; r++) {
        for (uint64_t g = 0; g < groups; g++) {
            struct group_scale scales[SUB_BLOCKS_MAX];
            size_t at = (size_t)(g * length), n = (size_t)(cols - at < length ? cols - at : length);
            assert_true(quant_group(&quant, kernels_at(0), x + r * cols + at, NULL, n, scales, codes + at));
            for (size_t k = at; k < at + n; k++) {
                const struct group_scale *scale = &scales[(k - at) / unit];
                y[r * cols + k] = (elem_decode(quant.elem, codes[k]) - (float)scale->zero) * scale->value;
                sides[k / unit] = (uint16_t)(quant.sub_block ? (int32_t)scale->shift : scale->zero);
            }
            memcpy(planes.scales + r * planes.sizes.scales_row + g * scale_type_bits(quant.scale) / 8, &scales[0].bits,
                   scale_type_bits(quant.scale) / 8);
        }
        pack_bits(codes, (size_t)cols, quant.elem->bits, planes.codes + r * planes.sizes.codes_row);
        if (planes.zeros) pack_bits(sides, n_sides, quant_side_bits(&quant), planes.zeros + r * planes.sizes.zeros_row);
    }
    free(codes);
    free(sides);
    return planes;
}

static void test_quantise(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t rows, cols;
    } cases[] = {
        { "mxfp4", 5, 100 },
        { "mxfp4:rule=floor", 3, 4096 },
        { "mxfp6_e3m2", 3, 77 },
        { "mxfp8_e5m2:rule=rceil", 2, 64 },
        { "mxint8:group=5", 4, 23 },
        { "int3:group=7,rule=mse", 3, 50 },
        { "int4:group=64", 600, 500 },
        { "int8:rounding=up", 2, 129 },
        { "uint5:group=channel", 9, 31 },
        { "uint2:group=1,scale=f32", 2, 9 },
        { "uint7:group=48,scale=f16", 2, 270000 },
        { "int6:group=32768", 1, 300000 },
        { "int4", 1, 1 },
        { "bfp24:rule=search", 3, 50 },
        { "mx6", 3, 77 },
        { "mx4:group=24,sub-block=3,shift-bits=3,rule=search", 2, 270000 },
        { "fp8_e4m3", 4, 70 },
        { "nf4:rule=mse", 3, 100 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const uint64_t rows = cases[i].rows, cols = cases[i].cols, half = rows / 2;
        struct llmq_quant *quant = new_quant(cases[i].text);
        float *x = new_weights(rows * cols, i + 1), *y = new_bytes(rows * cols * sizeof *y), *back = new_bytes(rows * cols * sizeof *back);
        struct planes wanted = reference_planes(cases[i].text, x, rows, cols, quant, y), got = new_planes(quant, rows, cols);
        const struct llmq_sizes *sizes = &got.sizes;
        /* in two calls, each with its own rows of the planes */
        assert_done(llmq_quantise_rows(quant, x + half * cols, rows - half, cols, got.codes + half * sizes->codes_row,
                                       got.scales + half * sizes->scales_row, got.zeros ? got.zeros + half * sizes->zeros_row : NULL, &error));
        assert_done(llmq_quantise_rows(quant, x, half, cols, got.codes, got.scales, got.zeros, &error));
        assert_memory_equal(got.codes, wanted.codes, sizes->codes + 1);
        assert_memory_equal(got.scales, wanted.scales, sizes->scales + 1);
        if (got.zeros) assert_memory_equal(got.zeros, wanted.zeros, sizes->zeros + 1);
        assert_done(llmq_dequantise_rows(quant, got.codes, got.scales, got.zeros, rows, cols, back, &error));
        assert_memory_equal(back, y, rows * cols * sizeof *y + 1);
        free(x);
        free(y);
        free(back);
        free_planes(&wanted);
        free_planes(&got);
        llmq_quant_close(quant);
    }
}

/* A matrix of squares in one call: each square is the group of its weights, row by row. */
static void test_squares(void **state)
{
    (void)state;
    enum { ROWS = 131, COLS = 300 };
    struct llmq_quant *public = new_quant("fp8_e4m3:group=128x128,rule=mse");
    struct quant quant;
    struct err err;
    assert_ok(quant_parse("fp8_e4m3:group=128x128,rule=mse", NULL, &quant, &err));
    float *x = new_weights(ROWS * COLS, 9), *back = new_bytes(ROWS * COLS * sizeof *back), *square = new_bytes(128 * 128 * sizeof *square);
    uint16_t *codes = new_bytes(128 * 128 * sizeof *codes);
    struct planes got = new_planes(public, ROWS, COLS);
    assert_true(got.sizes.scales == 2 * 3 * 4 && got.sizes.scales_row == 3 * 4 && got.sizes.codes == ROWS * COLS && got.sizes.zeros == 0);
    assert_done(llmq_quantise_rows(public, x, ROWS, COLS, got.codes, got.scales, NULL, &error));
    assert_done(llmq_dequantise_rows(public, got.codes, got.scales, NULL, ROWS, COLS, back, &error));
    for (size_t row = 0; row < ROWS; row += 128)
        for (size_t col = 0; col < COLS; col += 128) {
            const size_t n_rows = ROWS - row < 128 ? ROWS - row : 128, n_cols = COLS - col < 128 ? COLS - col : 128;
            struct group_scale scale;
            for (size_t i = 0; i < n_rows * n_cols; i++) square[i] = x[(row + i / n_cols) * COLS + col + i % n_cols];
            assert_true(quant_group(&quant, kernels_at(0), square, NULL, n_rows * n_cols, &scale, codes));
            assert_memory_equal(got.scales + (row / 128 * 3 + col / 128) * 4, &scale.bits, 4);
            for (size_t i = 0; i < n_rows * n_cols; i++) {
                const size_t at = (row + i / n_cols) * COLS + col + i % n_cols;
                assert_int_equal(got.codes[at], codes[i]);
                assert_true(back[at] == elem_decode(quant.elem, codes[i]) * scale.value);
            }
        }
    free(x);
    free(back);
    free(square);
    free(codes);
    free_planes(&got);
    llmq_quant_close(public);
}

static void test_quantise_refusals(void **state)
{
    (void)state;
    float x[6] = { 1, 2, 3, 4, NAN, 6 }, y[6];
    uint8_t codes[16], scales[16], zeros[16];
    struct llmq_quant *quant = new_quant("uint4:group=3,scale=f16");
    assert_denied(llmq_quantise_rows(quant, x, 2, 3, codes, scales, zeros, &error), LLMQ_ERR_DATA, "the weight at row 1, column 1 is NaN or Inf");
    x[4] = 3e38f;
    assert_denied(llmq_quantise_rows(quant, x, 2, 3, codes, scales, zeros, &error), LLMQ_ERR_DATA,
                  "the scale of the group at row 1, column 0 is too large for f16");
    assert_denied(llmq_quantise_rows(quant, NULL, 2, 3, codes, scales, zeros, &error), LLMQ_ERR_USAGE, "x is NULL");
    assert_denied(llmq_quantise_rows(quant, x, 2, 3, NULL, scales, zeros, &error), LLMQ_ERR_USAGE, "codes is NULL");
    assert_denied(llmq_quantise_rows(quant, x, 2, 3, codes, NULL, zeros, &error), LLMQ_ERR_USAGE, "scales is NULL");
    assert_denied(llmq_quantise_rows(quant, x, 2, 3, codes, scales, NULL, &error), LLMQ_ERR_USAGE, "zeros is NULL");
    assert_denied(llmq_quantise_rows(NULL, x, 2, 3, codes, scales, zeros, &error), LLMQ_ERR_USAGE, "quant is NULL");
    assert_denied(llmq_quantise_rows(quant, x, UINT64_MAX, 3, codes, scales, zeros, &error), LLMQ_ERR_UNSUPPORTED, "too many");
    assert_done(llmq_quantise_rows(quant, NULL, 0, 3, NULL, NULL, NULL, &error));
    assert_done(llmq_dequantise_rows(quant, NULL, NULL, NULL, 3, 0, NULL, &error));
    assert_denied(llmq_dequantise_rows(NULL, codes, scales, zeros, 2, 3, y, &error), LLMQ_ERR_USAGE, "quant is NULL");
    assert_denied(llmq_dequantise_rows(quant, NULL, scales, zeros, 2, 3, y, &error), LLMQ_ERR_USAGE, "codes is NULL");
    assert_denied(llmq_dequantise_rows(quant, codes, NULL, zeros, 2, 3, y, &error), LLMQ_ERR_USAGE, "scales is NULL");
    assert_denied(llmq_dequantise_rows(quant, codes, scales, NULL, 2, 3, y, &error), LLMQ_ERR_USAGE, "zeros is NULL");
    assert_denied(llmq_dequantise_rows(quant, codes, scales, zeros, 2, 3, NULL, &error), LLMQ_ERR_USAGE, "out is NULL");
    llmq_quant_close(quant);
    /* where one group reaches over several tiles */
    float *large = new_weights(300000, 1);
    uint8_t *many = new_bytes(300000);
    quant = new_quant("int8:group=channel,scale=f16");
    large[290000] = -INFINITY;
    assert_denied(llmq_quantise_rows(quant, large, 1, 300000, many, scales, NULL, &error), LLMQ_ERR_DATA, "row 0, column 290000 is NaN or Inf");
    large[290000] = 1e38f;
    assert_denied(llmq_quantise_rows(quant, large, 1, 300000, many, scales, NULL, &error), LLMQ_ERR_DATA, "row 0, column 0 is too large for f16");
    llmq_quant_close(quant);
    free(large);
    free(many);
}

/* ---- a model that has everything ------------------------------------------------------------------------------------------------ */

static const uint64_t dims_3d[] = { 3, 50, 130 }, dims_2d[] = { 700, 900 }, dims_long[] = { 2, 300000 }, dims_1d[] = { 77 }, dims_empty[] = { 4, 0 },
                      dims_small[] = { 2, 3, 4 };

static const struct declared {
    const char *name, *dtype, *role, *format;
    uint32_t rank;
    const uint64_t *dims;
} everything[] = {
    { "embed", "BF16", "embedding", NULL, 2, dims_2d },
    { "a.mxfp4", NULL, "q", "mxfp4", 2, dims_2d },
    { "b.int4", "F32", "experts", "int4:group=64", 3, dims_3d },
    { "empty", "F16", NULL, NULL, 2, dims_empty },
    { "c.uint3", "F32", "down", "uint3:group=channel,rule=mse", 3, dims_3d },
    { "norm", "F16", "norm", NULL, 1, dims_1d },
    { "d.tensor", "F32", NULL, "uint4:group=tensor,rule=mse", 2, dims_2d }, /* spans tiles */
    { "e.small-tensor", "F32", NULL, "int8:group=tensor,scale=f32", 3, dims_small },
    { "f.long", "F32", NULL, "int5:group=32", 2, dims_long },
    { "g.long-channel", "F32", NULL, "uint6:group=channel,scale=f16", 2, dims_long }, /* spans tiles */
    { "scalar", "F64", NULL, NULL, 0, NULL },
    { "sub-byte", "F4", NULL, NULL, 3, dims_small },
    { "long-kept", "BF16", NULL, NULL, 2, dims_long },
    { "counts", "I64", NULL, NULL, 1, dims_1d },
    { "h.vector", "F32", NULL, "mxint8", 1, dims_1d },
    { "caf\xc3\xa9 \"x\"", "U8", "a/b", NULL, 1, dims_1d },
    { "last.empty", "I8", NULL, NULL, 2, dims_empty },
};

enum { N_EVERYTHING = sizeof everything / sizeof everything[0] };

static const struct llmq_blob_spec blobs[] = { { "config.json", "{\"model_type\": \"llama\"}", 23 },
                                               { "empty.txt", NULL, 0 },
                                               { "notes.txt", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 55 } };

struct source {
    struct llmq_tensor_spec specs[N_EVERYTHING];
    uint8_t *bytes[N_EVERYTHING];
    uint64_t rows[N_EVERYTHING], cols[N_EVERYTHING], nbytes[N_EVERYTHING];
};

static struct source new_source(void)
{
    struct source source;
    for (size_t i = 0; i < N_EVERYTHING; i++) {
        const struct declared *d = &everything[i];
        const char *dtype = d->dtype ? d->dtype : "F32";
        source.rows[i] = source.cols[i] = 1;
        for (uint32_t k = 0; k < d->rank; k++) *(k + 1 < d->rank ? &source.rows[i] : &source.cols[i]) *= d->dims[k];
        uint64_t n = source.rows[i] * source.cols[i];
        source.nbytes[i] = n * dtype_find(dtype, strlen(dtype))->bits / 8;
        float *x = new_weights(n, i + 17);
        if (strcmp(dtype, "F32") == 0) source.bytes[i] = (uint8_t *)x;
        else {
            uint64_t seed = i + 1;
            source.bytes[i] = new_bytes(source.nbytes[i]);
            if (strcmp(dtype, "BF16") == 0) dtype_find("BF16", 4)->narrow(x, (size_t)n, source.bytes[i]);
            else
                for (uint64_t k = 0; k < source.nbytes[i]; k++) source.bytes[i][k] = (uint8_t)(test_random(&seed) & 0x3F);
            free(x);
        }
        source.specs[i] = (struct llmq_tensor_spec){ d->name, d->dims, d->rank, d->dtype, d->role, d->format ? new_quant(d->format) : NULL };
    }
    return source;
}

static void free_quants(struct source *source)
{
    for (size_t i = 0; i < N_EVERYTHING; i++) {
        struct llmq_quant *quant;
        memcpy(&quant, &source->specs[i].quant, sizeof quant);
        llmq_quant_close(quant);
        source->specs[i].quant = NULL;
    }
}

static void free_source(struct source *source)
{
    free_quants(source);
    for (size_t i = 0; i < N_EVERYTHING; i++) free(source->bytes[i]);
}

/* Puts every tensor in pieces of at most most bytes, of random size if seed is not 0. */
static void put_all(struct llmq_writer *writer, const struct source *source, uint64_t most, uint64_t seed)
{
    for (size_t i = 0; i < N_EVERYTHING; i++)
        for (uint64_t at = 0; at < source->nbytes[i];) {
            uint64_t n = seed ? test_random(&seed) % most + 1 : most;
            if (n > source->nbytes[i] - at) n = source->nbytes[i] - at;
            uint8_t *piece = new_bytes(n); /* its own place, so that nobody may keep a pointer */
            memcpy(piece, source->bytes[i] + at, (size_t)n);
            assert_done(llmq_writer_put(writer, i, piece, (size_t)n, &error));
            free(piece);
            at += n;
        }
}

static void write_everything(const char *path, struct source *source, const struct llmq_write_options *options, uint64_t most, uint64_t seed)
{
    struct llmq_writer *writer = NULL;
    assert_done(llmq_writer_open(path, source->specs, N_EVERYTHING, blobs, 3, options, &writer, &error));
    put_all(writer, source, most, seed);
    assert_false(file_exists(path) && !(options && options->replace));
    assert_done(llmq_writer_finish(writer, &error));
    llmq_writer_close(writer);
}

/* As `llmq verify`: every chunk and every padding byte. */
static void verify(const char *path)
{
    struct container *container = NULL;
    struct err err;
    assert_ok(container_open(&io_system, path, &container, &err));
    for (size_t i = 0; i < container->n_tensors; i++) {
        const struct llmq_entry *entry = llmq_entry_of(container, i);
        for (uint32_t p = 0; p < entry->n_planes; p++)
            for (uint64_t t = 0; t < plane_tile_count(&entry->planes[p].plane); t++) assert_ok(llmq_check_chunk(container, i, p, t, &err));
    }
    for (size_t i = 0; i < container->n_files; i++) assert_ok(llmq_check_padding(container, i, &err));
    container_close(container);
}

/* ---- reading it back ------------------------------------------------------------------------------------------------------------ */

static void check_info(const struct llmq_tensor_info *info, size_t i, const struct source *source)
{
    const struct declared *d = &everything[i];
    assert_string_equal(info->name, d->name);
    assert_string_equal(info->dtype, d->dtype ? d->dtype : "F32");
    assert_string_equal(info->role, d->role ? d->role : "other");
    assert_true(info->rank == d->rank && info->rows == source->rows[i] && info->cols == source->cols[i]);
    if (d->rank) assert_memory_equal(info->dims, d->dims, d->rank * sizeof *d->dims);
    assert_true(info->nbytes == (d->format ? 0 : source->nbytes[i]));
    assert_true(!info->format == !d->format);
    if (!info->format) {
        assert_true(info->group == 0 && !info->scale && !info->scale_rule && !info->rounding);
        return;
    }
    struct quant quant;
    struct err err;
    assert_ok(quant_parse(d->format, NULL, &quant, &err));
    assert_string_equal(info->format, quant.format->name);
    assert_string_equal(info->scale, scale_type_name(quant.scale));
    assert_string_equal(info->scale_rule, scale_rule_name(quant.rule));
    assert_string_equal(info->rounding, rounding_name(quant.rounding));
    assert_int_equal(info->n_planes, quant.format->zero_point ? 3 : 2);
    assert_int_equal(info->group, quant.group_kind == GROUP_SIZE      ? quant.group
                                  : quant.group_kind == GROUP_CHANNEL ? LLMQ_GROUP_CHANNEL
                                                                      : LLMQ_GROUP_TENSOR);
}

/* The plane's rows in pieces, compared with wanted, and where it is mapped with the file. */
static void check_plane(struct llmq_model *model, size_t index, uint32_t plane, const char *name, const uint8_t *wanted, uint64_t nbytes,
                        uint64_t *seed)
{
    struct llmq_plane_info info;
    assert_done(llmq_model_plane(model, index, plane, &info, &error));
    assert_string_equal(info.name, name);
    assert_true(info.nbytes == nbytes && info.nbytes == info.rows * info.row_nbytes && info.row_nbytes == (info.cols * info.bits + 7) / 8);
    for (int i = 0; i < 3; i++) {
        uint64_t first = i ? test_random(seed) % info.rows : 0, n = i ? test_random(seed) % (info.rows - first) + 1 : info.rows;
        uint8_t *got = new_bytes(n * info.row_nbytes);
        assert_done(llmq_read_plane(model, index, plane, first, n, got, &error));
        assert_memory_equal(got, wanted + first * info.row_nbytes, n * info.row_nbytes);
        assert_int_equal(got[n * info.row_nbytes], 0x55);
        free(got);
    }
    assert_denied(llmq_read_plane(model, index, plane, info.rows, 1, NULL, &error), LLMQ_ERR_USAGE, "first row");
    if (!info.offset) return;
    size_t n_file;
    char *file = read_file(info.file, &n_file);
    assert_true(info.offset + nbytes <= n_file);
    assert_memory_equal(file + info.offset, wanted, nbytes);
    free(file);
}

/* Rows of weights in pieces, compared with wanted. */
static void check_rows(struct llmq_model *model, size_t index, const float *wanted, uint64_t rows, uint64_t cols, uint64_t *seed)
{
    for (int i = 0; i < 4; i++) {
        uint64_t first = i ? test_random(seed) % rows : 0, n = i ? test_random(seed) % (rows - first) + 1 : rows;
        float *got = new_bytes(n * cols * sizeof *got);
        assert_done(llmq_read_rows(model, index, first, n, got, &error));
        assert_memory_equal(got, wanted + first * cols, n * cols * sizeof *got);
        assert_int_equal(((uint8_t *)got)[n * cols * sizeof *got], 0x55);
        free(got);
    }
    assert_denied(llmq_read_rows(model, index, 1, rows, NULL, &error), LLMQ_ERR_USAGE, "exceed its");
    assert_denied(llmq_read_rows(model, index, UINT64_MAX, 2, NULL, &error), LLMQ_ERR_USAGE, "exceed its");
    assert_denied(llmq_read_rows(model, index, 0, 1, NULL, &error), LLMQ_ERR_USAGE, "out is NULL");
}

static void check_quantised(struct llmq_model *model, size_t index, size_t i, const struct source *source, uint64_t *seed)
{
    const uint64_t rows = source->rows[i], cols = source->cols[i];
    struct llmq_quant *quant = NULL, *declared = new_quant(everything[i].format);
    assert_done(llmq_quant_of_tensor(model, index, &quant, &error)); /* the one of the file makes and reads the same bytes */
    struct planes planes = new_planes(declared, rows, cols), again = new_planes(quant, rows, cols);
    float *y = new_bytes(rows * cols * sizeof *y);
    const float *x = (const float *)(const void *)source->bytes[i];
    assert_done(llmq_quantise_rows(declared, x, rows, cols, planes.codes, planes.scales, planes.zeros, &error));
    assert_done(llmq_quantise_rows(quant, x, rows, cols, again.codes, again.scales, again.zeros, &error));
    assert_memory_equal(planes.codes, again.codes, planes.sizes.codes);
    assert_memory_equal(planes.scales, again.scales, planes.sizes.scales);
    assert_done(llmq_dequantise_rows(quant, planes.codes, planes.scales, planes.zeros, rows, cols, y, &error));
    check_plane(model, index, 0, "codes", planes.codes, planes.sizes.codes, seed);
    check_plane(model, index, 1, "scales", planes.scales, planes.sizes.scales, seed);
    if (planes.zeros) check_plane(model, index, 2, "zeros", planes.zeros, planes.sizes.zeros, seed);
    check_rows(model, index, y, rows, cols, seed);
    assert_denied(llmq_read_bytes(model, index, 0, 1, y, &error), LLMQ_ERR_USAGE, "it is quantised");
    free(y);
    free_planes(&planes);
    free_planes(&again);
    llmq_quant_close(quant);
    llmq_quant_close(declared);
}

static void check_kept(struct llmq_model *model, size_t index, size_t i, const struct source *source, uint64_t *seed)
{
    const char *name = everything[i].dtype;
    const struct dtype *dtype = dtype_find(name, strlen(name));
    uint64_t n = source->rows[i] * source->cols[i], nbytes = source->nbytes[i];
    struct llmq_quant *quant;
    struct llmq_plane_info plane;
    uint8_t *got = new_bytes(nbytes);
    assert_done(llmq_read_bytes(model, index, 0, (size_t)nbytes, got, &error));
    assert_memory_equal(got, source->bytes[i], nbytes + 1);
    free(got);
    assert_denied(llmq_read_bytes(model, index, nbytes, 1, &n, &error), LLMQ_ERR_USAGE, "exceeds its");
    assert_denied(llmq_quant_of_tensor(model, index, &quant, &error), LLMQ_ERR_USAGE, "is kept, not quantised");
    assert_done(llmq_model_plane(model, index, 0, &plane, &error));
    if (strcmp(plane.name, "data") == 0 && nbytes) check_plane(model, index, 0, "data", source->bytes[i], nbytes, seed);
    if (!dtype->widen) {
        assert_denied(llmq_read_rows(model, index, 0, 1, NULL, &error), LLMQ_ERR_UNSUPPORTED, "dtype F4 has no numbers");
        return;
    }
    if (n == 0) {
        assert_done(llmq_read_rows(model, index, 1, 3, NULL, &error));
        assert_true(plane.nbytes == 0 && plane.offset == 0);
        return;
    }
    float *wanted = new_bytes(n * sizeof *wanted);
    dtype->widen(source->bytes[i], (size_t)n, wanted);
    check_rows(model, index, wanted, source->rows[i], source->cols[i], seed);
    free(wanted);
}

static void check_everything(const char *path, const struct source *source)
{
    struct llmq_model *model = NULL;
    uint64_t seed = 99;
    assert_done(llmq_model_open(path, &model, &error));
    assert_int_equal(llmq_model_tensor_count(model), N_EVERYTHING);
    for (size_t i = 0; i < N_EVERYTHING; i++) {
        struct llmq_tensor_info info;
        struct llmq_plane_info plane;
        size_t index = SIZE_MAX;
        assert_done(llmq_model_find(model, everything[i].name, &index, &error));
        assert_int_equal(index, i);
        assert_done(llmq_model_tensor(model, index, &info, &error));
        check_info(&info, i, source);
        assert_denied(llmq_model_plane(model, index, info.n_planes, &plane, &error), LLMQ_ERR_USAGE, "there is no plane number");
        assert_denied(llmq_read_plane(model, index, info.n_planes, 0, 1, NULL, &error), LLMQ_ERR_USAGE, "there is no plane number");
        if (everything[i].format) check_quantised(model, index, i, source, &seed);
        else check_kept(model, index, i, source, &seed);
    }
    assert_int_equal(llmq_model_blob_count(model), 3);
    for (size_t i = 0; i < 3; i++) {
        struct llmq_blob_info info;
        char text[64] = "";
        assert_done(llmq_model_blob(model, i, &info, &error));
        assert_string_equal(info.name, blobs[i].name);
        assert_int_equal(info.nbytes, blobs[i].nbytes);
        assert_done(llmq_read_blob(model, i, 0, (size_t)info.nbytes, text, &error));
        assert_memory_equal(text, blobs[i].bytes ? blobs[i].bytes : "", info.nbytes);
        assert_denied(llmq_read_blob(model, i, 1, (size_t)info.nbytes, text, &error), LLMQ_ERR_USAGE, "exceeds its");
    }
    assert_done(llmq_model_check_unchanged(model, &error));
    llmq_model_close(model);
    verify(path);
}

static void assert_same_files(const char *a, const char *b)
{
    size_t n_a, n_b;
    char *x = read_file(a, &n_a), *y = read_file(b, &n_b);
    if (n_a != n_b || memcmp(x, y, n_a) != 0) fail_msg("'%s' (%zu bytes) and '%s' (%zu bytes) differ", a, n_a, b, n_b);
    free(x);
    free(y);
}

static void test_write_read(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct source source = new_source();
    for (int mode = 0; mode < 3; mode++) {
        struct llmq_write_options options = { .compress = (enum llmq_compress)mode, .metadata = "{\"format\": \"pt\"}" };
        write_everything(temp_path(dir, "whole.llmq"), &source, &options, UINT64_MAX, 0);
        write_everything(temp_path(dir, "pieces.llmq"), &source, &options, 700001, 5);
        assert_same_files(temp_path(dir, "whole.llmq"), temp_path(dir, "pieces.llmq"));
        check_everything(temp_path(dir, "whole.llmq"), &source);
        remove(temp_path(dir, "whole.llmq"));
        remove(temp_path(dir, "pieces.llmq"));
    }
    free_source(&source);
    temp_dir_remove(dir);
}

static void test_split(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct source source = new_source();
    struct llmq_write_options options = { .split_nbytes = 1 << 20, .align = 64, .program = "test 1" };
    write_everything(temp_path(dir, "m.llmq"), &source, &options, UINT64_MAX, 0);
    assert_false(file_exists(temp_path(dir, "m.llmq")));
    struct llmq_model *model = NULL;
    struct llmq_plane_info first, last;
    char name[64];
    unsigned count = 2;
    for (; count < 20; count++) {
        snprintf(name, sizeof name, "m-%05u-of-%05u.llmq", count, count);
        if (file_exists(temp_path(dir, name))) break;
    }
    check_everything(temp_path(dir, name), &source);
    assert_done(llmq_model_open(temp_path(dir, name), &model, &error));
    assert_done(llmq_model_plane(model, 0, 0, &first, &error));
    assert_done(llmq_model_plane(model, N_EVERYTHING - 1, 0, &last, &error));
    assert_non_null(strstr(first.file, "m-00001-of-"));
    assert_string_equal(last.file, temp_path(dir, name));
    llmq_model_close(model);
    free_source(&source);
    temp_dir_remove(dir);
}

/* Arguments are copied; the same model written without them gives the same bytes. */
static void test_arguments_are_copied(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct source source = new_source();
    write_everything(temp_path(dir, "a.llmq"), &source, &(struct llmq_write_options){ .metadata = "{\"k\": \"v\"}", .program = "p" }, UINT64_MAX, 0);
    char metadata[] = "{\"k\": \"v\"}", program[] = "p", name[] = "config.json", text[] = "{\"model_type\": \"llama\"}";
    struct llmq_blob_spec own[] = { { name, text, 23 }, blobs[1], blobs[2] };
    struct llmq_tensor_spec *specs = new_bytes(sizeof source.specs);
    memcpy(specs, source.specs, sizeof source.specs);
    char *first = strdup(specs[0].name), *role = strdup(specs[0].role);
    uint64_t *dims = new_bytes(sizeof dims_2d);
    memcpy(dims, dims_2d, sizeof dims_2d);
    specs[0] = (struct llmq_tensor_spec){ first, dims, 2, "BF16", role, NULL };
    struct llmq_write_options options = { .metadata = metadata, .program = program };
    struct llmq_writer *writer = NULL;
    assert_done(llmq_writer_open(temp_path(dir, "b.llmq"), specs, N_EVERYTHING, own, 3, &options, &writer, &error));
    memset(metadata, 'x', sizeof metadata - 1);
    program[0] = name[0] = text[0] = 'x';
    free(first);
    free(role);
    free(dims);
    free(specs);
    free_quants(&source);
    put_all(writer, &source, UINT64_MAX, 0);
    assert_done(llmq_writer_finish(writer, &error));
    llmq_writer_close(writer);
    assert_same_files(temp_path(dir, "a.llmq"), temp_path(dir, "b.llmq"));
    free_source(&source);
    temp_dir_remove(dir);
}

/* ---- the program writes the same ------------------------------------------------------------------------------------------------ */

static int run(const char *command)
{
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Writes what is in the program's file again, from the source model, with what the public interface tells about it. */
static void write_again(const char *source_path, const char *made_path, const char *path, enum llmq_compress compress)
{
    enum { MOST = 64 };
    struct llmq_model *source = NULL, *made = NULL;
    struct llmq_tensor_spec specs[MOST];
    struct llmq_blob_spec files[MOST];
    struct llmq_tensor_info plain[MOST];
    struct llmq_writer *writer = NULL;
    assert_done(llmq_model_open(source_path, &source, &error));
    assert_done(llmq_model_open(made_path, &made, &error));
    size_t n = llmq_model_tensor_count(source), n_files = llmq_model_blob_count(source);
    assert_true(n <= MOST && n_files <= MOST && n == llmq_model_tensor_count(made));
    for (size_t i = 0; i < n; i++) {
        struct llmq_tensor_info info;
        struct llmq_quant *quant = NULL;
        assert_done(llmq_model_tensor(source, i, &plain[i], &error));
        assert_done(llmq_model_tensor(made, i, &info, &error));
        if (info.format) assert_done(llmq_quant_of_tensor(made, i, &quant, &error));
        specs[i] = (struct llmq_tensor_spec){ plain[i].name, plain[i].dims, plain[i].rank, plain[i].dtype, info.role, quant };
    }
    for (size_t i = 0; i < n_files; i++) {
        struct llmq_blob_info info;
        assert_done(llmq_model_blob(source, i, &info, &error));
        void *bytes = new_bytes(info.nbytes);
        assert_done(llmq_read_blob(source, i, 0, (size_t)info.nbytes, bytes, &error));
        files[i] = (struct llmq_blob_spec){ info.name, bytes, (size_t)info.nbytes };
    }
    struct llmq_write_options options = { .compress = compress, .metadata = llmq_model_metadata(source), .replace = 1 };
    assert_done(llmq_writer_open(path, specs, n, files, n_files, &options, &writer, &error));
    for (size_t i = 0; i < n; i++) {
        uint8_t *bytes = new_bytes(plain[i].nbytes);
        assert_done(llmq_read_bytes(source, i, 0, (size_t)plain[i].nbytes, bytes, &error));
        assert_done(llmq_writer_put(writer, i, bytes, (size_t)plain[i].nbytes, &error));
        free(bytes);
        struct llmq_quant *quant;
        memcpy(&quant, &specs[i].quant, sizeof quant);
        llmq_quant_close(quant);
    }
    for (size_t i = 0; i < n_files; i++) {
        void *bytes;
        memcpy(&bytes, &files[i].bytes, sizeof bytes);
        free(bytes);
    }
    assert_done(llmq_writer_finish(writer, &error));
    llmq_writer_close(writer);
    llmq_model_close(source);
    llmq_model_close(made);
}

/* A safetensors file with one 2-D F32 and one BF16 tensor of n_rows x n_cols. */
static void write_safetensors(const char *path, uint64_t n_rows, uint64_t n_cols)
{
    char header[512];
    uint64_t n = n_rows * n_cols;
    int length = snprintf(header + 8, sizeof header - 8,
                          "{\"__metadata__\":{\"format\":\"pt\"},\"a.q_proj.weight\":{\"dtype\":\"F32\",\"shape\":[%d,%d],\"data_offsets\":[0,%d]},"
                          "\"b.q_proj.weight\":{\"dtype\":\"BF16\",\"shape\":[%d,%d],\"data_offsets\":[%d,%d]}}",
                          (int)n_rows, (int)n_cols, (int)(4 * n), (int)n_rows, (int)n_cols, (int)(4 * n), (int)(6 * n));
    for (int i = 0; i < 8; i++) header[i] = (char)((uint64_t)length >> (8 * i));
    float *x = new_weights(n, 3);
    uint8_t *file = new_bytes(8 + (uint64_t)length + 6 * n);
    memcpy(file, header, 8 + (size_t)length);
    memcpy(file + 8 + length, x, (size_t)(4 * n));
    dtype_find("BF16", 4)->narrow(x, (size_t)n, file + 8 + (size_t)length + 4 * n);
    write_file(path, file, 8 + (size_t)length + (size_t)(6 * n));
    free(file);
    free(x);
}

static void test_same_as_program(void **state)
{
    (void)state;
    static const char *const modes[] = { [LLMQ_COMPRESS_DEFAULT] = "default", [LLMQ_COMPRESS_NONE] = "none", [LLMQ_COMPRESS_MAX] = "max" };
    static const char *const formats[] = { "mxfp4",
                                           "mxfp4:rule=floor",
                                           "int4:group=64,scale=f16,rule=mse",
                                           "uint3:group=channel,rounding=away",
                                           "int8:group=tensor,rule=mse",
                                           "uint5:group=tensor",
                                           "mxfp6_e2m3:group=48",
                                           "int4:group=tensor,rule=lsq",
                                           "uint4:group=tensor,rule=percentile,percentile=99.9" };
    char *dir = temp_dir(), command[4096];
    write_safetensors(temp_path(dir, "wide.safetensors"), 2, 300000);
    write_safetensors(temp_path(dir, "tall.safetensors"), 3000, 100);
    for (size_t f = 0; f < sizeof formats / sizeof formats[0]; f++)
        for (size_t m = 0; m < 3; m++) {
            const char *wide = temp_path(dir, f % 2 ? "wide.safetensors" : "tall.safetensors");
            char source[2048];
            snprintf(source, sizeof source, "%s", m == 0 ? tests_path("data/tiny-llama") : wide);
            snprintf(command, sizeof command, "%s convert --in '%s' --out '%s/made.llmq' --format %s --compress %s --force --quiet >/dev/null",
                     LLMQ_PROGRAM, source, dir, formats[f], modes[m]);
            if (run(command) != 0) fail_msg("failed: %s", command);
            write_again(source, temp_path(dir, "made.llmq"), temp_path(dir, "again.llmq"), (enum llmq_compress)m);
            assert_same_files(temp_path(dir, "made.llmq"), temp_path(dir, "again.llmq"));
        }
    temp_dir_remove(dir);
}

/* ---- other containers ----------------------------------------------------------------------------------------------------------- */

static void test_folder(void **state)
{
    (void)state;
    struct llmq_model *model = NULL;
    struct llmq_tensor_info info;
    struct llmq_blob_info blob;
    bool config = false;
    uint64_t seed = 1;
    assert_done(llmq_model_open(tests_path("data/tiny-llama"), &model, &error));
    assert_true(llmq_model_tensor_count(model) > 10);
    for (size_t i = 0; i < llmq_model_tensor_count(model); i++) {
        assert_done(llmq_model_tensor(model, i, &info, &error));
        assert_string_equal(info.role, "other");
        assert_true(!info.format && info.n_planes == 1 && info.nbytes > 0);
        const struct dtype *dtype = dtype_find(info.dtype, strlen(info.dtype));
        uint8_t *bytes = new_bytes(info.nbytes);
        float *x = new_bytes(info.rows * info.cols * sizeof *x);
        assert_done(llmq_read_bytes(model, i, 0, (size_t)info.nbytes, bytes, &error));
        dtype->widen(bytes, (size_t)(info.rows * info.cols), x);
        check_rows(model, i, x, info.rows, info.cols, &seed);
        check_plane(model, i, 0, "data", bytes, info.nbytes, &seed);
        free(bytes);
        free(x);
    }
    for (size_t i = 0; i < llmq_model_blob_count(model); i++) {
        assert_done(llmq_model_blob(model, i, &blob, &error));
        config |= strcmp(blob.name, "config.json") == 0;
    }
    assert_true(config);
    assert_null(llmq_model_note(model, 1000));
    assert_done(llmq_model_check_unchanged(model, &error));
    llmq_model_close(model);
}

static void test_metadata_and_notes(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct llmq_model *model = NULL;
    write_safetensors(temp_path(dir, "model.safetensors"), 3, 5);
    assert_done(llmq_model_open(temp_path(dir, "model.safetensors"), &model, &error));
    assert_string_equal(llmq_model_metadata(model), "{\"format\":\"pt\"}");
    assert_null(llmq_model_note(model, 0));
    write_safetensors(temp_path(dir, "model.safetensors"), 3, 6); /* someone writes into it */
    assert_denied(llmq_model_check_unchanged(model, &error), LLMQ_ERR_DATA, "changed while it was read");
    llmq_model_close(model);
    temp_dir_remove(dir);
}

static void test_model_misuse(void **state)
{
    (void)state;
    struct llmq_model *model = (void *)&error;
    struct llmq_tensor_info info;
    struct llmq_plane_info plane;
    struct llmq_blob_info blob;
    struct llmq_quant *quant;
    size_t index = 7;
    uint8_t byte;
    float x;
    assert_denied(llmq_model_open("/no/such/file", &model, &error), LLMQ_ERR_IO, "/no/such/file");
    assert_null(model);
    assert_denied(llmq_model_open(tests_path("test_api.c"), &model, &error), LLMQ_ERR_UNSUPPORTED, "is no model file that llmq knows");
    assert_denied(llmq_model_open(NULL, &model, &error), LLMQ_ERR_USAGE, "path is NULL");
    assert_denied(llmq_model_open("x", NULL, &error), LLMQ_ERR_USAGE, "model is NULL");
    assert_int_equal(llmq_model_open("/no/such/file", &model, NULL), LLMQ_ERR_IO);
    assert_true(llmq_model_tensor_count(NULL) == 0 && llmq_model_blob_count(NULL) == 0 && !llmq_model_metadata(NULL) && !llmq_model_note(NULL, 0));
    assert_denied(llmq_model_tensor(NULL, 0, &info, &error), LLMQ_ERR_USAGE, "model is NULL");
    assert_denied(llmq_model_find(NULL, "x", &index, &error), LLMQ_ERR_USAGE, "model is NULL");
    assert_denied(llmq_model_plane(NULL, 0, 0, &plane, &error), LLMQ_ERR_USAGE, "model is NULL");
    assert_denied(llmq_model_blob(NULL, 0, &blob, &error), LLMQ_ERR_USAGE, "model is NULL");
    assert_denied(llmq_model_check_unchanged(NULL, &error), LLMQ_ERR_USAGE, "model is NULL");
    assert_denied(llmq_read_rows(NULL, 0, 0, 1, &x, &error), LLMQ_ERR_USAGE, "model is NULL");
    assert_denied(llmq_read_bytes(NULL, 0, 0, 1, &byte, &error), LLMQ_ERR_USAGE, "model is NULL");
    assert_denied(llmq_read_plane(NULL, 0, 0, 0, 1, &byte, &error), LLMQ_ERR_USAGE, "model is NULL");
    assert_denied(llmq_read_blob(NULL, 0, 0, 1, &byte, &error), LLMQ_ERR_USAGE, "model is NULL");
    assert_denied(llmq_quant_of_tensor(NULL, 0, &quant, &error), LLMQ_ERR_USAGE, "model is NULL");
    llmq_model_close(NULL);

    assert_done(llmq_model_open(tests_path("data/tiny-llama"), &model, &error));
    size_t n = llmq_model_tensor_count(model), n_blobs = llmq_model_blob_count(model);
    assert_denied(llmq_model_tensor(model, n, &info, &error), LLMQ_ERR_USAGE, "there is no tensor number");
    assert_denied(llmq_model_tensor(model, 0, NULL, &error), LLMQ_ERR_USAGE, "tensor is NULL");
    assert_denied(llmq_model_find(model, "nope\n", &index, &error), LLMQ_ERR_USAGE, "has no tensor 'nope\\x0a'");
    assert_int_equal(index, 7);
    assert_denied(llmq_model_find(model, NULL, &index, &error), LLMQ_ERR_USAGE, "name is NULL");
    assert_denied(llmq_model_find(model, "x", NULL, &error), LLMQ_ERR_USAGE, "index is NULL");
    assert_denied(llmq_model_plane(model, n, 0, &plane, &error), LLMQ_ERR_USAGE, "there is no tensor number");
    assert_denied(llmq_model_plane(model, 0, 0, NULL, &error), LLMQ_ERR_USAGE, "info is NULL");
    assert_denied(llmq_model_blob(model, n_blobs, &blob, &error), LLMQ_ERR_USAGE, "there is no small file number");
    assert_denied(llmq_model_blob(model, 0, NULL, &error), LLMQ_ERR_USAGE, "blob is NULL");
    assert_denied(llmq_read_rows(model, n, 0, 1, &x, &error), LLMQ_ERR_USAGE, "there is no tensor number");
    assert_denied(llmq_read_bytes(model, n, 0, 1, &byte, &error), LLMQ_ERR_USAGE, "there is no tensor number");
    assert_denied(llmq_read_bytes(model, 0, 0, 1, NULL, &error), LLMQ_ERR_USAGE, "out is NULL");
    assert_denied(llmq_read_plane(model, n, 0, 0, 1, &byte, &error), LLMQ_ERR_USAGE, "there is no tensor number");
    assert_denied(llmq_read_plane(model, 0, 0, 0, 1, NULL, &error), LLMQ_ERR_USAGE, "out is NULL");
    assert_denied(llmq_read_blob(model, n_blobs, 0, 1, &byte, &error), LLMQ_ERR_USAGE, "there is no small file number");
    assert_denied(llmq_read_blob(model, 0, 0, 1, NULL, &error), LLMQ_ERR_USAGE, "out is NULL");
    assert_denied(llmq_quant_of_tensor(model, n, &quant, &error), LLMQ_ERR_USAGE, "there is no tensor number");
    assert_denied(llmq_quant_of_tensor(model, 0, NULL, &error), LLMQ_ERR_USAGE, "quant is NULL");
    assert_null(quant);
    llmq_model_close(model);
}

static void test_damage(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct source source = new_source();
    struct llmq_model *model = NULL;
    struct llmq_plane_info plane;
    const char *path = temp_path(dir, "m.llmq");
    write_everything(path, &source, NULL, UINT64_MAX, 0);
    assert_done(llmq_model_open(path, &model, &error));
    assert_done(llmq_model_plane(model, 1, 0, &plane, &error));
    assert_true(plane.offset > 0 && strcmp(plane.file, path) == 0);
    uint64_t at = plane.offset + plane.nbytes - 1;
    llmq_model_close(model);
    size_t nbytes;
    char *file = read_file(path, &nbytes);
    file[at] = (char)(file[at] ^ 1);
    write_file(path, file, nbytes);
    assert_done(llmq_model_open(path, &model, &error));
    float *x = new_bytes(900 * sizeof *x);
    uint8_t *codes = new_bytes(plane.nbytes);
    assert_done(llmq_read_rows(model, 1, 0, 1, x, &error));
    assert_denied(llmq_read_rows(model, 1, 699, 1, x, &error), LLMQ_ERR_MISMATCH,
                  "cannot read tensor 'a.mxfp4' of 'm.llmq': plane 'codes', tile 2: it is damaged: the checksum is wrong");
    assert_denied(llmq_read_plane(model, 1, 0, 0, 700, codes, &error), LLMQ_ERR_MISMATCH, "plane 'codes', tile 2");
    llmq_model_close(model);
    write_file(path, file, nbytes - 1);
    assert_denied(llmq_model_open(path, &model, &error), LLMQ_ERR_DATA, "truncated");
    free(file);
    free(x);
    free(codes);
    free_source(&source);
    temp_dir_remove(dir);
}

/* ---- writing: order, refusals, atomicity ---------------------------------------------------------------------------------------- */

static const uint64_t dims_4x3[] = { 4, 3 };

/* A writer for two F32 tensors of 4 x 3: "a" in int8, "b" kept. */
static struct llmq_writer *small_writer(const char *dir)
{
    struct llmq_quant *quant = new_quant("int8");
    const struct llmq_tensor_spec specs[] = { { "a", dims_4x3, 2, "F32", NULL, quant }, { "b", dims_4x3, 2, NULL, NULL, NULL } };
    struct llmq_writer *writer = NULL;
    assert_done(llmq_writer_open(temp_path(dir, "m.llmq"), specs, 2, NULL, 0, NULL, &writer, &error));
    llmq_quant_close(quant);
    return writer;
}

static void assert_nothing_left(const char *dir)
{
    assert_false(file_exists(temp_path(dir, "m.llmq")));
    assert_false(file_exists(temp_path(dir, "m.llmq.partial")));
}

static void test_order(void **state)
{
    (void)state;
    char *dir = temp_dir();
    float x[13] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };
    struct llmq_writer *writer = small_writer(dir);
    assert_true(file_exists(temp_path(dir, "m.llmq.partial")));
    assert_done(llmq_writer_put(writer, 0, x, 5, &error)); /* any piece */
    assert_denied(llmq_writer_put(writer, 1, x, 48, &error), LLMQ_ERR_USAGE, "cannot put tensor 'b' yet: tensor 'a' still lacks 43 of its 48 bytes");
    assert_denied(llmq_writer_put(writer, 0, x, 43, &error), LLMQ_ERR_USAGE, "has failed before");
    assert_denied(llmq_writer_finish(writer, &error), LLMQ_ERR_USAGE, "has failed before");
    llmq_writer_close(writer);
    assert_nothing_left(dir);

    writer = small_writer(dir);
    assert_done(llmq_writer_put(writer, 0, x, 0, &error));
    assert_denied(llmq_writer_put(writer, 0, x, 52, &error), LLMQ_ERR_USAGE, "tensor 'a' has 48 bytes, 48 of them to come; 52 more were put");
    llmq_writer_close(writer);

    writer = small_writer(dir);
    assert_done(llmq_writer_put(writer, 0, x, 48, &error));
    assert_denied(llmq_writer_put(writer, 0, x, 4, &error), LLMQ_ERR_USAGE, "tensor 'a' has 48 bytes, 0 of them to come");
    llmq_writer_close(writer);

    writer = small_writer(dir);
    assert_denied(llmq_writer_put(writer, 2, x, 4, &error), LLMQ_ERR_USAGE, "there is no tensor number 2, only 2");
    llmq_writer_close(writer);
    writer = small_writer(dir);
    assert_denied(llmq_writer_put(writer, 0, NULL, 4, &error), LLMQ_ERR_USAGE, "bytes is NULL");
    llmq_writer_close(writer);
    assert_denied(llmq_writer_put(NULL, 0, x, 4, &error), LLMQ_ERR_USAGE, "writer is NULL");
    assert_denied(llmq_writer_finish(NULL, &error), LLMQ_ERR_USAGE, "writer is NULL");
    llmq_writer_close(NULL);

    writer = small_writer(dir);
    assert_done(llmq_writer_put(writer, 0, x, 48, &error));
    assert_done(llmq_writer_put(writer, 1, x, 47, &error));
    assert_denied(llmq_writer_finish(writer, &error), LLMQ_ERR_USAGE, "cannot finish: tensor 'b' still lacks 1 of its 48 bytes");
    llmq_writer_close(writer);

    writer = small_writer(dir);
    assert_int_equal(llmq_writer_finish(writer, NULL), LLMQ_ERR_USAGE);
    llmq_writer_close(writer);
    assert_nothing_left(dir);

    writer = small_writer(dir);
    x[7] = NAN;
    assert_denied(llmq_writer_put(writer, 0, x, 48, &error), LLMQ_ERR_DATA,
                  "cannot quantise tensor 'a': the weight at row 2, column 1 is NaN or Inf");
    llmq_writer_close(writer);
    assert_nothing_left(dir);
    temp_dir_remove(dir);
}

static void test_atomic(void **state)
{
    (void)state;
    char *dir = temp_dir();
    const float x[12] = { 1, 2, 3 };
    const char *path = temp_path(dir, "m.llmq");
    struct llmq_writer *writer = small_writer(dir), *second = NULL;
    const struct llmq_tensor_spec spec = { "a", dims_4x3, 2, NULL, NULL, NULL };
    assert_done(llmq_writer_put(writer, 0, x, 48, &error));
    assert_done(llmq_writer_put(writer, 1, x, 48, &error));
    assert_denied(llmq_writer_open(path, &spec, 1, NULL, 0, NULL, &second, &error), LLMQ_ERR_EXISTS, "in use by another run");
    assert_null(second);
    assert_false(file_exists(path));
    assert_done(llmq_writer_finish(writer, &error));
    assert_true(file_exists(path));
    assert_false(file_exists(temp_path(dir, "m.llmq.partial")));
    assert_denied(llmq_writer_put(writer, 1, x, 4, &error), LLMQ_ERR_USAGE, "has finished");
    assert_denied(llmq_writer_finish(writer, &error), LLMQ_ERR_USAGE, "has finished");
    llmq_writer_close(writer);
    assert_true(file_exists(path));

    size_t before, after;
    free(read_file(path, &before));
    assert_denied(llmq_writer_open(path, &spec, 1, NULL, 0, NULL, &writer, &error), LLMQ_ERR_EXISTS, "exists");
    struct llmq_write_options replace = { .replace = 1 };
    assert_done(llmq_writer_open(path, &spec, 1, NULL, 0, &replace, &writer, &error));
    llmq_writer_close(writer); /* given up: the old file stays */
    free(read_file(path, &after));
    assert_int_equal(before, after);
    assert_done(llmq_writer_open(path, &spec, 1, NULL, 0, &replace, &writer, &error));
    assert_done(llmq_writer_put(writer, 0, x, 48, &error));
    assert_done(llmq_writer_finish(writer, &error));
    llmq_writer_close(writer);
    free(read_file(path, &after));
    assert_true(after != before);
    verify(path);
    temp_dir_remove(dir);
}

static void test_writer_arguments(void **state)
{
    (void)state;
    static const uint64_t huge[] = { UINT64_C(1) << 40, UINT64_C(1) << 40 }, beyond[] = { UINT64_C(1) << 54, 0 }, odd[] = { 3 };
    static uint64_t many[65];
    struct llmq_quant *int4 = new_quant("int4");
    const struct {
        struct llmq_tensor_spec spec;
        const char *part;
    } cases[] = {
        { { NULL, dims_4x3, 2, NULL, NULL, NULL }, "the name of tensor number 0 is NULL" },
        { { "", dims_4x3, 2, NULL, NULL, NULL }, "the name of a tensor has 0 bytes" },
        { { "a\tb", dims_4x3, 2, NULL, NULL, NULL }, "'a\\x09b' is not UTF-8 without control characters" },
        { { "a\xff", dims_4x3, 2, NULL, NULL, NULL }, "is not UTF-8" },
        { { "a", dims_4x3, 2, "BF8", NULL, NULL }, "cannot store tensor 'a': its dtype 'BF8' is unknown" },
        { { "a", dims_4x3, 2, NULL, "", NULL }, "its role has 0 bytes" },
        { { "a", NULL, 2, NULL, NULL, NULL }, "its dims are NULL" },
        { { "a", many, 65, NULL, NULL, NULL }, "it has 65 dims, more than 64" },
        { { "a", huge, 2, NULL, NULL, NULL }, "the product of its dims is too large" },
        { { "a", beyond, 2, NULL, NULL, NULL }, "more than 2^53 - 1" },
        { { "a", odd, 1, "F4", NULL, NULL }, "no whole number of bytes" },
        { { "a", dims_4x3, 2, "I32", NULL, int4 }, "dtype I32 cannot be quantised" },
        { { "a", dims_4x3, 2, "F4", NULL, int4 }, "dtype F4 cannot be quantised" },
        { { "a", dims_empty, 2, "F32", NULL, int4 }, "it has no weights that could be quantised" },
    };
    char *dir = temp_dir();
    const char *path = temp_path(dir, "m.llmq");
    struct llmq_writer *writer = (void *)&error;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        enum llmq_status status = llmq_writer_open(path, &cases[i].spec, 1, NULL, 0, NULL, &writer, &error);
        assert_true(status == LLMQ_ERR_USAGE || (status == LLMQ_ERR_UNSUPPORTED && cases[i].spec.dims == beyond));
        if (!strstr(error.text, cases[i].part)) fail_msg("'%s' lacks '%s'", error.text, cases[i].part);
        assert_null(writer);
    }
    const struct llmq_tensor_spec twice[] = { { "a", dims_4x3, 2, NULL, NULL, NULL }, { "a", dims_4x3, 2, NULL, NULL, int4 } };
    assert_denied(llmq_writer_open(path, twice, 2, NULL, 0, NULL, &writer, &error), LLMQ_ERR_USAGE, "cannot store tensor 'a': it is declared twice");

    static const struct {
        struct llmq_blob_spec blobs[2];
        const char *part;
    } files[] = {
        { { { NULL, "x", 1 } }, "the name of small file number 0 is NULL" },
        { { { "a/b", "x", 1 } }, "cannot store file 'a/b': it is no plain file name" },
        { { { "..", "x", 1 } }, "it is no plain file name" },
        { { { "a\xff", "x", 1 } }, "is not UTF-8" },
        { { { "a", NULL, 1 } }, "its bytes are NULL" },
        { { { "a", "x", 1 }, { "a", "y", 1 } }, "it is given twice" },
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        assert_denied(llmq_writer_open(path, NULL, 0, files[i].blobs, files[i].blobs[1].name ? 2 : 1, NULL, &writer, &error), LLMQ_ERR_USAGE,
                      files[i].part);

    static const struct {
        struct llmq_write_options options;
        const char *part;
    } options[] = {
        { { .compress = (enum llmq_compress)3 }, "there is no compression number 3" },
        { { .align = 100 }, "not a power of two" },
        { { .metadata = "[]" }, "metadata is not a JSON object of strings" },
        { { .metadata = "{\"a\": 1}" }, "'a' is not a string" },
        { { .metadata = "{\"a\": \"b\"} x" }, "metadata is not a JSON object of strings" },
        { { .program = "" }, "the program's name has 0 bytes" },
        { { .program = "a\nb" }, "is not UTF-8 without control characters" },
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        assert_denied(llmq_writer_open(path, twice, 1, NULL, 0, &options[i].options, &writer, &error), LLMQ_ERR_USAGE, options[i].part);

    assert_denied(llmq_writer_open(NULL, twice, 1, NULL, 0, NULL, &writer, &error), LLMQ_ERR_USAGE, "path is NULL");
    assert_denied(llmq_writer_open(path, NULL, 1, NULL, 0, NULL, &writer, &error), LLMQ_ERR_USAGE, "tensors is NULL");
    assert_denied(llmq_writer_open(path, twice, 1, NULL, 1, NULL, &writer, &error), LLMQ_ERR_USAGE, "blobs is NULL");
    assert_denied(llmq_writer_open(path, twice, 1, NULL, 0, NULL, NULL, &error), LLMQ_ERR_USAGE, "writer is NULL");
    assert_denied(llmq_writer_open("/no/such/folder/m.llmq", twice, 1, NULL, 0, NULL, &writer, &error), LLMQ_ERR_IO, "/no/such/folder");
    assert_int_equal(llmq_writer_open(path, NULL, 1, NULL, 0, NULL, &writer, NULL), LLMQ_ERR_USAGE);
    assert_nothing_left(dir);

    /* nothing at all is a model, too */
    struct llmq_model *model = NULL;
    assert_done(llmq_writer_open(path, NULL, 0, NULL, 0, NULL, &writer, &error));
    assert_done(llmq_writer_finish(writer, &error));
    llmq_writer_close(writer);
    assert_done(llmq_model_open(path, &model, &error));
    assert_int_equal(llmq_model_tensor_count(model), 0);
    assert_null(llmq_model_metadata(model));
    llmq_model_close(model);
    llmq_quant_close(int4);
    temp_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_quant_open),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_quantise),
        cmocka_unit_test(test_squares),
        cmocka_unit_test(test_quantise_refusals),
        cmocka_unit_test(test_write_read),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_arguments_are_copied),
        cmocka_unit_test(test_same_as_program),
        cmocka_unit_test(test_folder),
        cmocka_unit_test(test_metadata_and_notes),
        cmocka_unit_test(test_model_misuse),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_atomic),
        cmocka_unit_test(test_writer_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
