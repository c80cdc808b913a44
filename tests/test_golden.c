/* test_golden.c: the golden vectors: what scripts/gen_golden.py computed with exact fractions, byte for byte.
 *
 * Drawing: case -> codec_encode -> planes -> unpacked codes, scales, zeros; codec_decode_row -> y. All of it for every kernel set, for F32 sources
 * and, where the weights fit, BF16 ones.
 * Why this way: bytes first; a tolerance would pass a nibble order that is wrong in both directions. The oracle shares no code with C.
 * Corner cases: "channel" and "tensor" cases run a second time as a spanning group does (observed range, observed errors, given scale), those of
 * squares only so; refused cases must report the overflow. Casts have no groups; they are compared in nearest-even, up to the first weight that
 * only saturation brings in, because a cast refuses it.
 * Reference: header of scripts/gen_golden.py; NUMERICS.md, NUMERICS_BLOCK.md 10.
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
    uint32_t *scales; /* stored bits */
    size_t n_sides; /* zero points or shifts */
    uint16_t *sides;
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

/* The parameters that a case may have beside those of all formats. */
static const struct {
    const char *field, *key;
} inlines[] = { { "kernel", "kernel" }, { "sub_block", "sub-block" }, { "shift_bits", "shift-bits" }, { "negative_end", "negative-end" } };

static void parse_quant(const cJSON *item, const char *format, struct quant *quant)
{
    char number[16], text[128];
    const cJSON *group = cJSON_GetObjectItemCaseSensitive(item, "group");
    snprintf(number, sizeof number, "%d", group->valueint);
    snprintf(text, sizeof text, "%s", format);
    for (size_t i = 0; i < sizeof inlines / sizeof inlines[0]; i++) {
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(item, inlines[i].field);
        if (!value) continue;
        char *end = text + strlen(text);
        const size_t room = sizeof text - strlen(text);
        const char mark = strchr(text, ':') ? ',' : ':';
        if (cJSON_IsString(value)) snprintf(end, room, "%c%s=%s", mark, inlines[i].key, value->valuestring);
        else snprintf(end, room, "%c%s=%d", mark, inlines[i].key, value->valueint);
    }
    struct quant_params params = { .group = cJSON_IsString(group) ? group->valuestring : number,
                                   .scale = text_of(item, "scale_dtype"),
                                   .rule = text_of(item, "rule"),
                                   .rounding = text_of(item, "rounding") };
    struct err err;
    assert_ok(quant_parse(text, &params, quant, &err));
}

static void parse_results(const cJSON *item, struct golden *golden)
{
    const cJSON *scales = cJSON_GetObjectItemCaseSensitive(item, "scales");
    const cJSON *sides = cJSON_GetObjectItemCaseSensitive(item, golden->quant.sub_block ? "shifts" : "zeros");
    const uint32_t mask = (1u << golden->quant.elem->bits) - 1u;
    const size_t digits = golden->quant.elem->bits <= 8 ? 2 : 4;
    assert_int_equal(strlen(text_of(item, "codes")), golden->n * digits);
    for (size_t i = 0; i < golden->n; i++) {
        golden->codes[i] = (uint16_t)(hex_number(text_of(item, "codes"), i, digits) & mask);
        golden->y[i] = hex_number(text_of(item, "y"), i, 8);
    }
    assert_int_equal(cJSON_GetArraySize(scales), golden->n_scales);
    for (size_t i = 0; i < golden->n_scales; i++) golden->scales[i] = (uint32_t)cJSON_GetArrayItem(scales, (int)i)->valuedouble;
    if (golden->n_sides) assert_int_equal(cJSON_GetArraySize(sides), golden->n_sides);
    for (size_t i = 0; i < golden->n_sides; i++) golden->sides[i] = (uint16_t)cJSON_GetArrayItem(sides, (int)i)->valueint;
}

static struct shape shape_of(const struct golden *golden)
{
    return (struct shape){ golden->rows, golden->cols, 1 };
}

static void parse_case(const char *file, const char *format, const cJSON *item, struct golden *golden)
{
    struct plane planes[CODEC_PLANES_MAX];
    *golden = (struct golden){ .file = file, .name = text_of(item, "name") };
    parse_quant(item, format, &golden->quant);
    golden->rows = (size_t)cJSON_GetObjectItemCaseSensitive(item, "rows")->valueint;
    golden->cols = (size_t)cJSON_GetObjectItemCaseSensitive(item, "cols")->valueint;
    golden->n = golden->rows * golden->cols;
    const struct shape shape = shape_of(golden);
    const uint32_t n_planes = codec_planes(&golden->quant, &shape, planes);
    golden->n_scales = (size_t)(planes[1].rows * planes[1].cols);
    golden->n_sides = n_planes > 2 ? (size_t)(planes[2].rows * planes[2].cols) : 0;
    golden->x = floats_of(text_of(item, "x"), golden->n);
    golden->y = new_array(golden->n, sizeof *golden->y);
    golden->codes = new_array(golden->n, sizeof *golden->codes);
    golden->scales = new_array(golden->n_scales, sizeof *golden->scales);
    golden->sides = new_array(golden->n_sides, sizeof *golden->sides);
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
    free(golden->sides);
}

/* ---- running a case ------------------------------------------------------------------------------------------------------------- */

static struct planes new_planes(const struct golden *golden)
{
    struct plane plane[CODEC_PLANES_MAX];
    struct planes out = { { NULL } };
    const struct shape shape = shape_of(golden);
    uint32_t n = codec_planes(&golden->quant, &shape, plane);
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
    struct codec_tile tile = { .source = source, .dtype = dtype, .n_rows = golden->rows, .n_cols = golden->cols, .matrix_rows = golden->rows };
    memcpy(tile.planes, planes->bytes, sizeof tile.planes);
    return tile;
}

static void check_codes(const struct golden *golden, const char *how, const uint8_t *stream, size_t row)
{
    uint32_t bits = golden->quant.elem->bits;
    uint16_t *got = new_array(golden->cols, sizeof *got);
    unpack_bits(stream + row * ((golden->cols * bits + 7) / 8), 0, golden->cols, bits, got);
    for (size_t i = 0; i < golden->cols; i++)
        if (got[i] != golden->codes[row * golden->cols + i])
            fail_msg("%s %s (%s): code %zu of row %zu is %02x, not %02x", golden->file, golden->name, how, i, row, got[i],
                     golden->codes[row * golden->cols + i]);
    free(got);
}

/* Field number i of a plane, counted row by row. */
static uint16_t field_of(const struct plane *plane, const uint8_t *bytes, size_t i)
{
    uint16_t field;
    unpack_bits(bytes + i / plane->cols * plane_row_nbytes(plane), i % plane->cols, 1, plane->bits, &field);
    return field;
}

static void check_scales(const struct golden *golden, const char *how, const struct planes *planes)
{
    const uint32_t nbytes = scale_type_bits(golden->quant.scale) / 8;
    struct plane plane[CODEC_PLANES_MAX];
    const struct shape shape = shape_of(golden);
    codec_planes(&golden->quant, &shape, plane);
    for (size_t i = 0; i < golden->n_scales; i++) {
        uint32_t bits = 0;
        for (uint32_t k = 0; k < nbytes; k++) bits |= (uint32_t)planes->bytes[1][i * nbytes + k] << (8 * k);
        if (bits != golden->scales[i]) fail_msg("%s %s (%s): scale %zu is %x, not %x", golden->file, golden->name, how, i, bits, golden->scales[i]);
    }
    for (size_t i = 0; i < golden->n_sides; i++) {
        const uint16_t side = field_of(&plane[2], planes->bytes[2], i);
        if (side != golden->sides[i])
            fail_msg("%s %s (%s): zero point or shift %zu is %u, not %u", golden->file, golden->name, how, i, side, golden->sides[i]);
    }
}

static void check_decoded(const struct golden *golden, const struct kernels *kernels, const struct planes *planes)
{
    struct plane plane[CODEC_PLANES_MAX];
    const struct shape shape = shape_of(golden);
    const uint32_t n = codec_planes(&golden->quant, &shape, plane);
    float *y = new_array(golden->cols, sizeof *y);
    for (size_t row = 0; row < golden->rows; row++) {
        const uint64_t scale_row = quant_scale_row(&golden->quant, golden->rows, row);
        const uint8_t *streams[CODEC_PLANES_MAX] = { planes->bytes[0] + row * plane_row_nbytes(&plane[0]) };
        for (uint32_t k = 1; k < n; k++) streams[k] = planes->bytes[k] + scale_row * plane_row_nbytes(&plane[k]);
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

/* Scales of all groups as spanning ones: ranges, errors, choice; false when one overflows. */
static bool observe(const struct golden *golden, const struct kernels *kernels, const struct codec_tile *tile, const struct codec_scratch *scratch,
                    struct group_scale *given)
{
    const struct shape shape = shape_of(golden);
    const struct tile place = { .n_rows = golden->rows, .n_cols = golden->cols };
    struct codec_piece piece = { 0 };
    size_t n = 0;
    for (; codec_next_piece(&golden->quant, &shape, &place, &piece); n++) {
        /* an observed channel lies in tiles of one row */
        const uint64_t rows = golden->quant.group_kind == GROUP_CHANNEL ? piece.at.n_rows : 1;
        for (uint64_t r = 0; r < rows; r++) {
            struct tile at = piece.at;
            if (rows > 1) at.row += r, at.n_rows = 1;
            const struct codec_tile part = codec_part(tile, &at);
            struct range range;
            struct codec_fault fault;
            double errors[CANDIDATES_MAX];
            assert_true(codec_observe_range(kernels, &part, scratch, &range, &fault));
            codec_observe_errors(&golden->quant, kernels, &part, scratch, range, errors);
            if (!quant_choose(&golden->quant, range, errors, &given[piece.group + r])) return false;
        }
        assert_int_equal(piece.complete, golden->quant.group_kind == GROUP_SQUARE);
    }
    assert_int_equal(n, golden->quant.group_kind == GROUP_SQUARE ? golden->n_scales : 1);
    return true;
}

static void run_spanning(const struct golden *golden, const struct kernels *kernels)
{
    struct planes planes = new_planes(golden);
    struct codec_scratch scratch = new_scratch(golden);
    struct codec_tile tile = tile_of(golden, (const uint8_t *)golden->x, dtype_find("F32", 3), &planes);
    struct group_scale *given = new_array(golden->n_scales, sizeof *given);
    const struct shape shape = shape_of(golden);
    struct codec_fault fault;
    const bool fine = observe(golden, kernels, &tile, &scratch, given);
    assert_int_equal(fine, !golden->refused);
    tile.given = given;
    tile.given_cols = quant_groups_per_row(&golden->quant, golden->cols);
    if (fine) {
        assert_true(codec_encode(&golden->quant, kernels, &tile, &scratch, &fault));
        codec_store_whole(&golden->quant, &shape, given, NULL, planes.bytes);
        check_planes(golden, kernels, "given", &planes);
    }
    free(given);
    free_scratch(&scratch);
    free_planes(&planes);
}

/* One group, of n_rows x n_cols weights from (row, col) on, with importance. */
static void check_group(const struct golden *golden, const struct kernels *kernels, size_t row, size_t col, size_t n_rows, size_t n_cols,
                        size_t scale, size_t side)
{
    const struct quant *quant = &golden->quant;
    const size_t n = n_rows * n_cols, n_sides = quant_scales(quant, n, n);
    float *x = new_array(n, sizeof *x), *weights = new_array(n, sizeof *weights);
    uint16_t *codes = new_array(n, sizeof *codes);
    struct group_scale *scales = new_array(n_sides, sizeof *scales);
    for (size_t i = 0; i < n; i++) {
        const size_t from = (row + i / n_cols) * golden->cols + col + i % n_cols;
        x[i] = golden->x[from];
        weights[i] = golden->weights[from];
    }
    assert_true(quant_group(quant, kernels, x, weights, n, scales, codes));
    bool same = scales[0].bits == golden->scales[scale];
    for (size_t i = 0; i < n; i++) same = same && codes[i] == golden->codes[(row + i / n_cols) * golden->cols + col + i % n_cols];
    for (size_t i = 0; golden->n_sides && i < n_sides; i++)
        same = same && (quant->sub_block ? (int32_t)scales[i].shift : scales[i].zero) == golden->sides[side + i];
    if (!same)
        fail_msg("%s %s (%s): weighted group at %zu, %zu: scale %x, not %x, or its codes", golden->file, golden->name, kernels->name, row, col,
                 scales[0].bits, golden->scales[scale]);
    free(x);
    free(weights);
    free(codes);
    free(scales);
}

static void run_weighted(const struct golden *golden, const struct kernels *kernels)
{
    const struct quant *quant = &golden->quant;
    const size_t height = quant->group_kind == GROUP_TENSOR ? golden->rows : quant->group_kind == GROUP_SQUARE ? SQUARE_SIDE : 1;
    const size_t width = (size_t)quant_group_len(quant, golden->cols);
    size_t scale = 0, side = 0;
    for (size_t row = 0; row < golden->rows; row += height)
        for (size_t col = 0; col < golden->cols; col += width) {
            const size_t n_rows = height < golden->rows - row ? height : golden->rows - row;
            const size_t n_cols = width < golden->cols - col ? width : golden->cols - col;
            check_group(golden, kernels, row, col, n_rows, n_cols, scale++, side);
            side += golden->n_sides ? quant_scales(quant, n_rows * n_cols, n_rows * n_cols) : 0;
        }
    assert_int_equal(scale, golden->n_scales);
    assert_int_equal(side, golden->n_sides);
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
        if (whole) run_spanning(golden, kernels);
        if (golden->quant.group_kind == GROUP_SQUARE) continue;
        run_codec(golden, kernels, (const uint8_t *)golden->x, dtype_find("F32", 3), false);
        if (fits) run_codec(golden, kernels, bf16, dtype_find("BF16", 4), true);
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

static size_t run_list(const char *file, const cJSON *root, const char *list)
{
    const cJSON *item;
    size_t n_cases = 0;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(root, list))
    {
        struct golden golden;
        const char *name = text_of(item, "format") ? text_of(item, "format") : text_of(root, "format");
        const struct format *format = name ? format_find(name) : NULL; /* vectors of something else have none */
        if (!format) continue;
        if (format->family->blocks || format->tensor_scale) continue; /* casts: test_casts; scales of matrices: test_family_nvfp4 */
        parse_case(file, name, item, &golden);
        run_case(&golden);
        free_case(&golden);
        n_cases++;
    }
    return n_cases;
}

static void test_cases(void **state)
{
    (void)state;
    size_t n_files = 0, n_cases = 0;
    DIR *dir = opendir(tests_path("golden"));
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL; n_files++) {
        const char *dot = strrchr(entry->d_name, '.');
        if (!dot || strcmp(dot, ".json") != 0) continue;
        cJSON *root = parse_file(entry->d_name);
        n_cases += run_list(entry->d_name, root, "cases") + run_list(entry->d_name, root, "block_cases");
        cJSON_Delete(root);
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

/* A cast has neither scales nor a rounding of its own, and what would become Inf is refused where the vectors saturate. */
static size_t check_cast(const char *file, const struct ggml_type *type, const cJSON *item)
{
    const size_t n = (size_t)(cJSON_GetObjectItemCaseSensitive(item, "rows")->valueint * cJSON_GetObjectItemCaseSensitive(item, "cols")->valueint);
    size_t n_checked = 0;
    for (size_t i = 0; i < n; i++) {
        const float x = f32_from_bits(hex_number(text_of(item, "x"), i, 8));
        const uint32_t want = hex_number(text_of(item, "codes"), i, 4);
        uint8_t bytes[2];
        float y;
        type->encode(&x, NULL, 1, bytes);
        type->decode(bytes, 1, &y);
        if (y - y != 0.0f) continue;
        const uint32_t got = (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8;
        if (got != want || f32_bits(y) != hex_number(text_of(item, "y"), i, 8)) fail_msg("%s: %a is %04x, not %04x", file, (double)x, got, want);
        n_checked++;
    }
    return n_checked;
}

static void test_casts(void **state)
{
    (void)state;
    static const char *const names[] = { "f16", "bf16" };
    for (size_t k = 0; k < 2; k++) {
        char path[16];
        size_t n = 0;
        snprintf(path, sizeof path, "%s.json", names[k]);
        cJSON *root = parse_file(path);
        const cJSON *item;
        cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(root, "block_cases"))
        {
            if (strcmp(text_of(item, "rounding"), "nearest-even") == 0) n += check_cast(path, ggml_type_find(names[k]), item);
        }
        cJSON_Delete(root);
        printf("%s: %zu weights\n", names[k], n);
        assert_true(n > 100);
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
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_cases), cmocka_unit_test(test_casts), cmocka_unit_test(test_elements),
                                        cmocka_unit_test(test_spec_encodes) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
