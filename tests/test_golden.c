/* test_golden.c: the golden vectors: what scripts/gen_golden.py computed with exact fractions, byte for byte.
 *
 * Drawing: case -> codec_encode -> planes -> unpacked codes, scales, zeros; codec_decode_row -> y. All of it for every kernel set, for F32 sources
 * and, where the weights fit, BF16 ones.
 * Why this way: bytes first; a tolerance would pass a nibble order that is wrong in both directions. The oracle shares no code with C.
 * Corner cases: "channel" and "tensor" cases run a second time as a spanning group does (observed range, observed errors, given scale); refused
 * cases must report the overflow.
 * Reference: header of scripts/gen_golden.py; NUMERICS.md.
 */
#include "support/support.h"

#include <cjson/cJSON.h>
#include <dirent.h>

#include "layout/codec.h"
#include "layout/pack.h"
#include "number/half.h"
#include "number/kernel.h"

/* A case, decoded from JSON. */
struct golden {
    const char *file, *name;
    struct quant quant;
    size_t rows, cols, n, n_scales;
    bool refused;
    float *x, *weights; /* weights: one a weight, or NULL */
    uint32_t *y; /* bits */
    uint16_t *codes;
    struct group_scale *scales; /* bits and zero only */
};

/* What a run of the codec gave, in the case's own terms. */
struct planes {
    uint8_t *bytes[CODEC_PLANES_MAX];
};

/* ---- reading cases -------------------------------------------------------------------------------------------------------------- */

static const char *text_of(const cJSON *object, const char *key)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

static uint32_t hex_number(const char *hex, size_t index, size_t digits)
{
    char copy[9] = { 0 };
    memcpy(copy, hex + index * digits, digits);
    return (uint32_t)strtoul(copy, NULL, 16);
}

static void *new_array(size_t n, size_t size)
{
    void *out = calloc(n ? n : 1, size);
    assert_non_null(out);
    return out;
}

static float *floats_of(const char *hex, size_t n)
{
    float *out = new_array(n, sizeof *out);
    for (size_t i = 0; i < n; i++) out[i] = f32_from_bits(hex_number(hex, i, 8));
    return out;
}

static void parse_quant(const cJSON *item, const char *format, struct quant *quant)
{
    char number[16];
    const cJSON *group = cJSON_GetObjectItemCaseSensitive(item, "group");
    snprintf(number, sizeof number, "%d", group->valueint);
    struct quant_params params = { .group = cJSON_IsString(group) ? group->valuestring : number,
                                   .scale = text_of(item, "scale_dtype"),
                                   .rule = text_of(item, "rule"),
                                   .rounding = text_of(item, "rounding") };
    struct err err;
    assert_ok(quant_parse(format, &params, quant, &err));
}

static void parse_results(const cJSON *item, struct golden *golden)
{
    const cJSON *scales = cJSON_GetObjectItemCaseSensitive(item, "scales"), *zeros = cJSON_GetObjectItemCaseSensitive(item, "zeros");
    const uint32_t mask = (1u << golden->quant.format->elem->bits) - 1u;
    for (size_t i = 0; i < golden->n; i++) {
        golden->codes[i] = (uint16_t)(hex_number(text_of(item, "codes"), i, 2) & mask);
        golden->y[i] = hex_number(text_of(item, "y"), i, 8);
    }
    for (size_t i = 0; i < golden->n_scales; i++) {
        golden->scales[i].bits = (uint32_t)cJSON_GetArrayItem(scales, (int)i)->valuedouble;
        if (golden->quant.format->zero_point) golden->scales[i].zero = cJSON_GetArrayItem(zeros, (int)i)->valueint;
    }
    assert_int_equal(cJSON_GetArraySize(scales), golden->n_scales);
}

static void parse_case(const char *file, const char *format, const cJSON *item, struct golden *golden)
{
    *golden = (struct golden){ .file = file, .name = text_of(item, "name") };
    parse_quant(item, format, &golden->quant);
    golden->rows = (size_t)cJSON_GetObjectItemCaseSensitive(item, "rows")->valueint;
    golden->cols = (size_t)cJSON_GetObjectItemCaseSensitive(item, "cols")->valueint;
    golden->n = golden->rows * golden->cols;
    golden->n_scales = quant_groups_per_row(&golden->quant, golden->cols) * (golden->quant.group_kind == GROUP_TENSOR ? 1 : golden->rows);
    golden->x = floats_of(text_of(item, "x"), golden->n);
    golden->y = new_array(golden->n, sizeof *golden->y);
    golden->codes = new_array(golden->n, sizeof *golden->codes);
    golden->scales = new_array(golden->n_scales, sizeof *golden->scales);
    golden->refused = text_of(item, "error") != NULL;
    if (!golden->refused) parse_results(item, golden);
    if (!text_of(item, "w")) return;
    float *columns = floats_of(text_of(item, "w"), golden->cols);
    golden->weights = new_array(golden->n, sizeof *golden->weights);
    for (size_t i = 0; i < golden->n; i++) golden->weights[i] = columns[i % golden->cols];
    free(columns);
}

static void free_case(struct golden *golden)
{
    free(golden->x);
    free(golden->weights);
    free(golden->y);
    free(golden->codes);
    free(golden->scales);
}

/* ---- running a case ------------------------------------------------------------------------------------------------------------- */

static struct planes new_planes(const struct golden *golden)
{
    struct plane plane[CODEC_PLANES_MAX];
    struct planes out = { { NULL } };
    uint32_t n = codec_planes(&golden->quant, &(struct shape){ golden->rows, golden->cols, 1 }, plane);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(plane_tile_count(&plane[i]), 1);
        out.bytes[i] = new_array((size_t)plane_nbytes(&plane[i]), 1);
    }
    return out;
}

static void free_planes(struct planes *planes)
{
    for (size_t i = 0; i < CODEC_PLANES_MAX; i++) free(planes->bytes[i]);
}

static struct codec_scratch new_scratch(const struct golden *golden)
{
    size_t n = codec_scratch_weights(&golden->quant, golden->rows, golden->cols);
    return (struct codec_scratch){ new_array(n, 4), new_array(n, 4), new_array(n, 2), n };
}

static void free_scratch(struct codec_scratch *scratch)
{
    free(scratch->x);
    free(scratch->y);
    free(scratch->codes);
}

static struct codec_tile tile_of(const struct golden *golden, const uint8_t *source, const struct dtype *dtype, const struct planes *planes)
{
    struct codec_tile tile = { .source = source, .dtype = dtype, .n_rows = golden->rows, .n_cols = golden->cols };
    memcpy(tile.planes, planes->bytes, sizeof tile.planes);
    return tile;
}

static void check_codes(const struct golden *golden, const char *how, const uint8_t *stream, size_t row)
{
    uint32_t bits = golden->quant.format->elem->bits;
    uint16_t *got = new_array(golden->cols, sizeof *got);
    unpack_bits(stream + row * ((golden->cols * bits + 7) / 8), 0, golden->cols, bits, got);
    for (size_t i = 0; i < golden->cols; i++)
        if (got[i] != golden->codes[row * golden->cols + i])
            fail_msg("%s %s (%s): code %zu of row %zu is %02x, not %02x", golden->file, golden->name, how, i, row, got[i],
                     golden->codes[row * golden->cols + i]);
    free(got);
}

static void check_scales(const struct golden *golden, const char *how, const struct planes *planes)
{
    const uint32_t nbytes = scale_type_bits(golden->quant.scale) / 8, zero_bits = golden->quant.format->elem->bits;
    const size_t per_row = (size_t)quant_groups_per_row(&golden->quant, golden->cols), zero_row_nbytes = (per_row * zero_bits + 7) / 8;
    for (size_t i = 0; i < golden->n_scales; i++) {
        uint32_t bits = 0;
        for (uint32_t k = 0; k < nbytes; k++) bits |= (uint32_t)planes->bytes[1][i * nbytes + k] << (8 * k);
        if (bits != golden->scales[i].bits)
            fail_msg("%s %s (%s): scale %zu is %x, not %x", golden->file, golden->name, how, i, bits, golden->scales[i].bits);
        if (!golden->quant.format->zero_point) continue;
        uint16_t zero;
        unpack_bits(planes->bytes[2] + i / per_row * zero_row_nbytes, i % per_row, 1, zero_bits, &zero);
        if (zero != golden->scales[i].zero)
            fail_msg("%s %s (%s): zero point %zu is %u, not %d", golden->file, golden->name, how, i, zero, golden->scales[i].zero);
    }
}

static void check_decoded(const struct golden *golden, const struct kernels *kernels, const struct planes *planes)
{
    const size_t per_row = (size_t)quant_groups_per_row(&golden->quant, golden->cols), bits = golden->quant.format->elem->bits;
    float *y = new_array(golden->cols, sizeof *y);
    for (size_t row = 0; row < golden->rows; row++) {
        size_t scale_row = golden->quant.group_kind == GROUP_TENSOR ? 0 : row;
        const uint8_t *zeros = planes->bytes[2] ? planes->bytes[2] + scale_row * ((per_row * bits + 7) / 8) : NULL;
        const uint8_t *const streams[CODEC_PLANES_MAX] = { planes->bytes[0] + row * ((golden->cols * bits + 7) / 8),
                                                           planes->bytes[1] + scale_row * per_row * scale_type_bits(golden->quant.scale) / 8, zeros,
                                                           NULL };
        codec_decode_row(&golden->quant, kernels, streams, 1.0f, 0, golden->cols, y);
        for (size_t i = 0; i < golden->cols; i++)
            if (f32_bits(y[i]) != golden->y[row * golden->cols + i])
                fail_msg("%s %s (%s): weight %zu of row %zu is %08x, not %08x", golden->file, golden->name, kernels->name, i, row, f32_bits(y[i]),
                         golden->y[row * golden->cols + i]);
    }
    free(y);
}

static void check_planes(const struct golden *golden, const struct kernels *kernels, const char *how, const struct planes *planes)
{
    for (size_t row = 0; row < golden->rows; row++) check_codes(golden, how, planes->bytes[0], row);
    check_scales(golden, how, planes);
    check_decoded(golden, kernels, planes);
}

static void run_codec(const struct golden *golden, const struct kernels *kernels, const uint8_t *source, const struct dtype *dtype, bool measured)
{
    struct planes planes = new_planes(golden);
    struct codec_scratch scratch = new_scratch(golden);
    struct codec_tile tile = tile_of(golden, source, dtype, &planes);
    struct measure measure = { 0 };
    struct codec_fault fault;
    if (measured) tile.measure = &measure;
    bool done = codec_encode(&golden->quant, kernels, &tile, &scratch, &fault);
    if (done == golden->refused) fail_msg("%s %s: %s", golden->file, golden->name, done ? "not refused" : "refused");
    if (done) check_planes(golden, kernels, kernels->name, &planes);
    else assert_int_equal(fault.kind, CODEC_SCALE_OVERFLOW);
    free_scratch(&scratch);
    free_planes(&planes);
}

/* One group as a spanning one: observe range and errors of the tile, choose, encode with the given scale. */
static void run_given(const struct golden *golden, const struct kernels *kernels, const struct codec_tile *tile, const struct codec_scratch *scratch)
{
    struct range range;
    struct group_scale scale;
    struct codec_fault fault;
    double errors[CANDIDATES_MAX];
    struct codec_tile given = *tile;
    assert_true(codec_observe_range(kernels, tile, scratch, &range, &fault));
    codec_observe_errors(&golden->quant, kernels, tile, scratch, range, errors);
    assert_true(quant_choose(&golden->quant, range, errors, &scale));
    given.given = &scale;
    assert_true(codec_encode(&golden->quant, kernels, &given, scratch, &fault));
    layout_store_scales(&golden->quant, &scale, 1, tile->planes[1]);
    if (golden->quant.format->zero_point) layout_store_sides(&golden->quant, &scale, 1, tile->planes[2]);
}

static void run_spanning(const struct golden *golden, const struct kernels *kernels)
{
    struct planes planes = new_planes(golden);
    struct codec_scratch scratch = new_scratch(golden);
    const size_t groups = golden->n_scales, bits = golden->quant.format->elem->bits;
    struct codec_tile tile = tile_of(golden, NULL, dtype_find("F32", 3), &planes);
    tile.n_rows = golden->rows / groups;
    for (size_t g = 0; g < groups; g++) {
        tile.source = (const uint8_t *)(golden->x + g * golden->cols);
        tile.planes[0] = planes.bytes[0] + g * ((golden->cols * bits + 7) / 8);
        tile.planes[1] = planes.bytes[1] + g * scale_type_bits(golden->quant.scale) / 8;
        tile.planes[2] = planes.bytes[2] ? planes.bytes[2] + g * ((bits + 7) / 8) : NULL;
        run_given(golden, kernels, &tile, &scratch);
    }
    check_planes(golden, kernels, "given", &planes);
    free_scratch(&scratch);
    free_planes(&planes);
}

static void check_group(const struct golden *golden, const struct kernels *kernels, size_t first, size_t n, const struct group_scale *want)
{
    struct group_scale scale;
    uint16_t *codes = new_array(n, sizeof *codes);
    assert_true(quant_group(&golden->quant, kernels, golden->x + first, golden->weights + first, n, &scale, codes));
    if (scale.bits != want->bits || scale.zero != want->zero || memcmp(codes, golden->codes + first, n * sizeof *codes) != 0)
        fail_msg("%s %s (%s): weighted group at %zu: scale %x zero %d, not %x %d, or its codes", golden->file, golden->name, kernels->name, first,
                 scale.bits, scale.zero, want->bits, want->zero);
    free(codes);
}

static void run_weighted(const struct golden *golden, const struct kernels *kernels)
{
    size_t i = 0;
    if (golden->quant.group_kind == GROUP_TENSOR) {
        check_group(golden, kernels, 0, golden->n, &golden->scales[0]);
        return;
    }
    for (size_t row = 0; row < golden->rows; row++)
        for (size_t col = 0, n; col < golden->cols; col += n) {
            size_t group = (size_t)quant_group_len(&golden->quant, golden->cols);
            n = group < golden->cols - col ? group : golden->cols - col;
            check_group(golden, kernels, row * golden->cols + col, n, &golden->scales[i++]);
        }
}

static void run_case(const struct golden *golden)
{
    const bool whole = golden->quant.group_kind != GROUP_SIZE;
    uint8_t *bf16 = new_array(golden->n, 2);
    bool fits = true;
    for (size_t i = 0; i < golden->n; i++) {
        uint32_t bits = f32_bits(golden->x[i]);
        bf16[2 * i] = (uint8_t)(bits >> 16);
        bf16[2 * i + 1] = (uint8_t)(bits >> 24);
        fits = fits && (bits & 0xFFFFu) == 0;
    }
    for (size_t k = 0; k < kernels_count(); k++) {
        const struct kernels *kernels = kernels_at(k);
        if (golden->weights) {
            run_weighted(golden, kernels);
            continue;
        }
        run_codec(golden, kernels, (const uint8_t *)golden->x, dtype_find("F32", 3), false);
        if (fits) run_codec(golden, kernels, bf16, dtype_find("BF16", 4), true);
        if (whole && !golden->refused) run_spanning(golden, kernels);
    }
    free(bf16);
}

/* ---- files ---------------------------------------------------------------------------------------------------------------------- */

static cJSON *parse_file(const char *name)
{
    char path[300];
    snprintf(path, sizeof path, "golden/%s", name);
    char *text = read_file(tests_path(path), NULL);
    cJSON *root = cJSON_Parse(text);
    if (!root) fail_msg("%s is not JSON", name);
    free(text);
    return root;
}

static void test_cases(void **state)
{
    (void)state;
    size_t n_files = 0, n_cases = 0;
    DIR *dir = opendir(tests_path("golden"));
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        const char *dot = strrchr(entry->d_name, '.');
        if (!dot || strcmp(dot, ".json") != 0) continue;
        cJSON *root = parse_file(entry->d_name);
        const cJSON *item;
        cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(root, "cases"))
        {
            struct golden golden;
            const char *format = text_of(item, "format");
            parse_case(entry->d_name, format ? format : text_of(root, "format"), item, &golden);
            run_case(&golden);
            free_case(&golden);
            n_cases++;
        }
        cJSON_Delete(root);
        n_files++;
    }
    closedir(dir);
    printf("%zu files, %zu cases, %zu kernel sets\n", n_files, n_cases, kernels_count());
    for (size_t i = 0; i < format_count(); i++) {
        char path[64];
        if (format_at(i)->family->blocks) continue; /* golden/ggml.tsv, test_ggml.c */
        snprintf(path, sizeof path, "golden/%s.json", format_at(i)->name);
        if (!file_exists(tests_path(path))) fail_msg("no golden vectors for format %s", format_at(i)->name);
    }
}

static void check_value(const struct elem *elem, uint32_t code, const char *want)
{
    float value = elem_decode(elem, code);
    bool same = strcmp(want, "nan") == 0    ? value != value
                : strcmp(want, "inf") == 0  ? f32_bits(value) == 0x7F800000u
                : strcmp(want, "-inf") == 0 ? f32_bits(value) == 0xFF800000u
                                            : f32_bits(value) == hex_number(want, 0, 8);
    if (!same) fail_msg("%s: code %x is %08x, not %s", elem->name, code, f32_bits(value), want);
}

static void check_pairs(const struct elem *elem, const cJSON *pairs)
{
    enum rounding rounding = rounding_find(pairs->string);
    const cJSON *pair;
    assert_int_not_equal(rounding, ROUND_COUNT);
    cJSON_ArrayForEach(pair, pairs)
    {
        const char *x = cJSON_GetArrayItem(pair, 0)->valuestring;
        uint32_t want = (uint32_t)cJSON_GetArrayItem(pair, 1)->valueint, got = elem_encode(elem, f32_from_bits(hex_number(x, 0, 8)), rounding);
        if (got != want) fail_msg("%s %s: %s gives code %x, not %x", elem->name, pairs->string, x, got, want);
    }
}

static void test_elements(void **state)
{
    (void)state;
    cJSON *root = parse_file("elements.json");
    const cJSON *item, *pairs;
    assert_true(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(root, "elements")) > 0);
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(root, "elements"))
    {
        const struct elem *elem = elem_find(text_of(item, "name"));
        assert_non_null(elem);
        const cJSON *values = cJSON_GetObjectItemCaseSensitive(item, "values");
        assert_int_equal(cJSON_GetArraySize(values), 1 << elem->bits);
        for (int code = 0; code < 1 << elem->bits; code++) check_value(elem, (uint32_t)code, cJSON_GetArrayItem(values, code)->valuestring);
        cJSON_ArrayForEach(pairs, cJSON_GetObjectItemCaseSensitive(item, "encode")) check_pairs(elem, pairs);
    }
    cJSON_Delete(root);
}

static void test_spec_encodes(void **state)
{
    (void)state;
    cJSON *root = parse_file("spec_vectors.json");
    const cJSON *item;
    assert_true(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(root, "encode")) > 0);
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(root, "encode"))
    {
        const struct elem *elem = elem_find(text_of(item, "element"));
        const char *x = text_of(item, "x"), *codes = text_of(item, "codes");
        for (size_t i = 0; i < strlen(codes) / 2; i++)
            assert_int_equal(elem_encode(elem, f32_from_bits(hex_number(x, i, 8)), rounding_find(text_of(item, "rounding"))),
                             hex_number(codes, i, 2));
    }
    cJSON_Delete(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_cases), cmocka_unit_test(test_elements), cmocka_unit_test(test_spec_encodes) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
