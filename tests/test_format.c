/* test_format.c: the table of formats: rows, parameters, quality, choice of scales.
 *
 * Formula: SQNR = 10 log10(sum x^2 / sum (x - y)^2) over one million Gaussian weights with the row's defaults.
 * Why this way: every test loops over the rows, so a new row is tested without a new test; the bound of a row lies 0.1 to 0.2 dB under what it
 * reaches, because a broken rule costs more.
 * Corner cases: every refused parameter with its sentence; a search is never worse than any fixed rule, group by group.
 * Reference: format.h; NUMERICS.md 3 to 5.
 */
#include "support/support.h"

#include <math.h>

#include "layout/codec.h"
#include "number/half.h"
#include "number/choose.h"
#include "number/kernel.h"
#include "number/metric.h"

enum { SAMPLE = 1 << 20 };

static float gaussian[SAMPLE];

/* Sums of twelve uniform numbers of 24 bits, rounded to BF16: the same on every machine, without a library function. */
static int make_sample(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (size_t i = 0; i < SAMPLE; i++) {
        float sum = 0;
        for (int k = 0; k < 12; k++) sum += (float)(test_random(&seed) >> 40) * 0x1p-24f;
        gaussian[i] = bf16_to_f32(f32_to_bf16((sum - 6.0f) * 0.02f));
    }
    return 0;
}

/* ---- rows ----------------------------------------------------------------------------------------------------------------------- */

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < format_count(); i++) {
        const struct format *format = format_at(i);
        assert_ptr_equal(format_find(format->name), format);
        assert_ptr_equal(family_find(format->family->name), format->family);
        assert_true(format->summary[0] && !strchr(format->summary, '\n'));
        assert_true(format->scale_types >> format->default_scale & 1u);
        assert_true(format->rules >> format->default_rule & 1u);
        assert_true(format->default_group >= 1 && format->default_group <= GROUP_MAX);
        if (format->block && format->block->elements > 1) assert_non_null(format_find(format->fallback));
        for (size_t k = 0; k < i; k++) assert_string_not_equal(format->name, format_at(k)->name);
        for (int rule = 0; rule < RULE_COUNT; rule++) {
            struct quant quant = { .format = format, .rule = (enum scale_rule)rule };
            if (format->family->blocks) assert_true(format->block && !format->elem && format->block->elements == format->default_group);
            else if (format->rules >> rule & 1u) assert_in_range(format->family->candidates(&quant), 1, CANDIDATES_MAX);
        }
    }
    assert_null(format_find("mxfp5"));
    assert_null(family_find("bfp_prime"));
}

/* ---- parameters ----------------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *text;
    struct quant_params params;
    const char *group; /* as JSON */
    enum scale_type scale;
    enum scale_rule rule;
    enum rounding rounding;
} accepted[] = {
    { "mxfp4", { 0 }, "32", SCALE_E8M0, RULE_SEARCH, ROUND_NEAREST_EVEN },
    { "mxfp4", { .group = "", .scale = "", .rule = "", .rounding = "" }, "32", SCALE_E8M0, RULE_SEARCH, ROUND_NEAREST_EVEN },
    { "mxfp4:group=16,rule=rceil", { 0 }, "16", SCALE_E8M0, RULE_RCEIL, ROUND_NEAREST_EVEN },
    { "mxint8:scale=e8m0,rounding=up", { 0 }, "32", SCALE_E8M0, RULE_SEARCH, ROUND_UP },
    { "int4", { 0 }, "128", SCALE_BF16, RULE_ABSMAX, ROUND_NEAREST_EVEN },
    { "int4:group=64,scale=f16,rule=mse,rounding=away", { 0 }, "64", SCALE_F16, RULE_MSE, ROUND_AWAY },
    { "uint3:group=channel,scale=f32", { 0 }, "\"channel\"", SCALE_F32, RULE_ABSMAX, ROUND_NEAREST_EVEN },
    { "int8:group=tensor", { 0 }, "\"tensor\"", SCALE_BF16, RULE_ABSMAX, ROUND_NEAREST_EVEN },
    { "int8:group=1", { 0 }, "1", SCALE_BF16, RULE_ABSMAX, ROUND_NEAREST_EVEN },
    { "int8:group=32768", { 0 }, "32768", SCALE_BF16, RULE_ABSMAX, ROUND_NEAREST_EVEN },
    { "int8", { .group = "channel", .scale = "f32", .rule = "mse", .rounding = "truncate" }, "\"channel\"", SCALE_F32, RULE_MSE, ROUND_TRUNCATE },
    { "int8:group=32,group=64", { .group = "channel" }, "64", SCALE_BF16, RULE_ABSMAX, ROUND_NEAREST_EVEN }, /* the last one counts */
    { "mxfp4", { .group = "channel", .scale = "f16", .rule = "mse", .where_valid = true }, "32", SCALE_E8M0, RULE_SEARCH, ROUND_NEAREST_EVEN },
    { "bfp16", { 0 }, "8", SCALE_E8M0, RULE_FLOOR, ROUND_NEAREST_EVEN },
    { "mx6:group=32,sub-block=4,shift-bits=3", { 0 }, "32", SCALE_E8M0, RULE_FLOOR, ROUND_NEAREST_EVEN },
    { "mx4:group=5,shift-bits=0", { 0 }, "5", SCALE_E8M0, RULE_FLOOR, ROUND_NEAREST_EVEN }, /* without shifts there are no sub-blocks */
    { "fp8_e4m3", { 0 }, "\"channel\"", SCALE_F32, RULE_ABSMAX, ROUND_NEAREST_EVEN },
    { "fp8_e4m3", { .group = "128x128", .half_range = "int_max", .where_valid = true }, "\"128x128\"", SCALE_F32, RULE_ABSMAX, ROUND_NEAREST_EVEN },
    { "iq4nl:rule=mse,scale=bf16", { 0 }, "32", SCALE_BF16, RULE_MSE, ROUND_NEAREST_EVEN },
    { "mxfp4", { .group = "64", .scale = "f16", .rule = "even", .where_valid = true }, "64", SCALE_E8M0, RULE_EVEN, ROUND_NEAREST_EVEN },
};

static void test_accepted(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof accepted / sizeof accepted[0]; i++) {
        struct err err;
        struct quant quant;
        char group[16];
        assert_ok(quant_parse(accepted[i].text, &accepted[i].params, &quant, &err));
        assert_memory_equal(quant.format->name, accepted[i].text, strlen(quant.format->name));
        assert_string_equal(quant_group_json(&quant, group), accepted[i].group);
        assert_int_equal(quant.scale, accepted[i].scale);
        assert_int_equal(quant.rule, accepted[i].rule);
        assert_int_equal(quant.rounding, accepted[i].rounding);
    }
}

static const struct {
    const char *text;
    struct quant_params params;
    const char *parts[3];
} refused[] = {
    { "", { 0 }, { "unknown format ''" } },
    { "mxfp5", { 0 }, { "unknown format 'mxfp5'" } },
    { "MXFP4", { 0 }, { "unknown format 'MXFP4'" } },
    { "mxfp4:", { 0 }, { "''", "key=value" } },
    { "mxfp4:group", { 0 }, { "'group'", "key=value" } },
    { "mxfp4:size=32",
      { 0 },
      { "'size'", "group, scale, rule, rounding, tensor-scale, half-range, percentile, sub-block, shift-bits, kernel, negative-end" } },
    { "mxfp4:group=0", { 0 }, { "'0'", "1 to 32768" } },
    { "mxfp4:group=32769", { 0 }, { "'32769'", "1 to 32768" } },
    { "mxfp4:group=18446744073709551648", { 0 }, { "'18446744073709551648'", "1 to 32768" } },
    { "mxfp4:group=-1", { 0 }, { "'-1'", "1 to 32768" } },
    { "mxfp4:group=32x", { 0 }, { "'32x'", "1 to 32768" } },
    { "mxfp4:group= 32", { 0 }, { "' 32'", "1 to 32768" } },
    { "mxfp4:group=", { 0 }, { "''", "1 to 32768" } },
    { "mxfp4:group=channel", { 0 }, { "mxfp4", "fixed size", "channel" } },
    { "mxfp4:group=tensor", { 0 }, { "mxfp4", "fixed size", "tensor" } },
    { "mxfp4:scale=bf16", { 0 }, { "mxfp4", "'bf16'", "e8m0" } },
    { "int4:tensor-scale=none", { 0 }, { "int4", "no scale of a matrix" } },
    { "bfp16:kernel=2", { 0 }, { "'2'", "0, 1" } },
    { "bfp15:kernel=1", { 0 }, { "bfp15", "kernel" } },
    { "mxint8:kernel=1", { 0 }, { "mxint8", "kernel" } },
    { "mxint8:negative-end=both", { 0 }, { "'both'", "symmetric, full" } },
    { "mxfp4:negative-end=full", { 0 }, { "mxfp4", "negative-end" } },
    { "mx9:sub-block=0", { 0 }, { "'0'", "1 to 32768" } },
    { "mx9:sub-block=2x", { 0 }, { "'2x'", "1 to 32768" } },
    { "mx9:shift-bits=4", { 0 }, { "'4'", "0 to 3" } },
    { "mx9:group=5", { 0 }, { "sub-blocks of 2", "group of 5" } },
    { "mx9:group=258", { 0 }, { "more than 128 sub-blocks" } },
    { "bfp16:shift-bits=1", { 0 }, { "bfp16", "no sub-blocks" } },
    { "bfp16:group=128x128", { 0 }, { "bfp16", "fixed size", "128x128" } },
    { "int4:group=128x128", { 0 }, { "int4", "channel or tensor", "128x128" } },
    { "nf4:rounding=up", { 0 }, { "nf4", "'up'" } },
    { "nf4:rule=search", { 0 }, { "nf4", "absmax, mse" } },
    { "uint4:half-range=int_max", { 0 }, { "uint4", "no half range" } },
    { "int4:half-range=full", { 0 }, { "'full'", "half, int_max" } },
    { "mxfp4", { .half_range = "int_max" }, { "mxfp4", "no half range" } },
    { "nvfp4:tensor-scale=row", { 0 }, { "'row'", "tensor, none" } },
    { "q4_k:group=32", { 0 }, { "q4_k", "groups of 256" } },
    { "q4_k:rounding=up", { 0 }, { "q4_k", "'up'" } },
    { "q4_k:rule=absmax", { 0 }, { "q4_k", "'absmax'", "mse, reference" } },
    { "mxfp4:rule=reference,group=16", { 0 }, { "reference", "groups of 32" } },
    { "int4:scale=e8m0", { 0 }, { "int4", "'e8m0'", "bf16, f16, f32" } },
    { "int4:scale=f8", { 0 }, { "int4", "'f8'", "bf16, f16, f32" } },
    { "int4:rule=floor", { 0 }, { "int4", "'floor'", "absmax, mse" } },
    { "mxfp4:rule=absmax", { 0 }, { "mxfp4", "'absmax'", "floor, even, ceil, rceil, search" } },
    { "mxfp4:rule=best", { 0 }, { "mxfp4", "'best'", "floor, even, ceil, rceil, search" } },
    { "int4:rounding=nearest", { 0 }, { "'nearest'", "nearest-even, away, up, truncate" } },
    { "int4", { .group = "0" }, { "'0'", "1 to 32768" } },
    { "mxfp4", { .scale = "f16" }, { "mxfp4", "'f16'", "e8m0" } },
    { "mxfp4", { .rule = "absmax" }, { "mxfp4", "'absmax'" } },
    { "int4", { .rounding = "odd" }, { "'odd'" } },
    { "mxfp4", { .group = "nonsense", .where_valid = true }, { "'nonsense'", "1 to 32768" } },
    { "mxfp4", { .rule = "best", .where_valid = true }, { "'best'" } },
    { "mxfp4", { .scale = "f8", .where_valid = true }, { "'f8'" } },
    { "int4", { .rounding = "odd", .where_valid = true }, { "'odd'" } },
};

static void test_refused(void **state)
{
    (void)state;
    struct err err;
    struct quant quant;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        for (size_t k = 0; k < 3 && refused[i].parts[k]; k++)
            assert_refused(quant_parse(refused[i].text, &refused[i].params, &quant, &err), ERR_USAGE, refused[i].parts[k]);
    char text[400];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    assert_refused(quant_parse(text, NULL, &quant, &err), ERR_USAGE, "too long");
}

/* Every row takes exactly the rules, scale types and kinds of group that it lists. */
static void test_every_parameter(void **state)
{
    (void)state;
    struct err err;
    struct quant quant;
    for (size_t i = 0; i < format_count(); i++) {
        const struct format *format = format_at(i);
        for (int rule = 0; rule < RULE_COUNT; rule++) {
            struct quant_params params = { .rule = scale_rule_name((enum scale_rule)rule) };
            bool taken = format->rules >> rule & 1u || (rule == RULE_MSE && format->rules >> RULE_SEARCH & 1u); /* mse asks for the search */
            assert_int_equal(quant_parse(format->name, &params, &quant, &err), taken ? OK : ERR_USAGE);
            if (taken) assert_true(format->rules >> quant.rule & 1u);
        }
        for (int type = 0; type < SCALE_TYPE_COUNT; type++) {
            struct quant_params params = { .scale = scale_type_name((enum scale_type)type) };
            assert_int_equal(quant_parse(format->name, &params, &quant, &err), format->scale_types >> type & 1u ? OK : ERR_USAGE);
        }
        static const char *const kinds[] = { [GROUP_CHANNEL] = "channel", [GROUP_TENSOR] = "tensor", [GROUP_SQUARE] = "128x128" };
        for (int kind = GROUP_CHANNEL; kind <= GROUP_SQUARE; kind++) {
            struct quant_params params = { .group = kinds[kind] };
            assert_int_equal(quant_parse(format->name, &params, &quant, &err), format->group_kinds >> kind & 1u ? OK : ERR_USAGE);
        }
    }
}

static void test_group_sizes(void **state)
{
    (void)state;
    struct quant quant = { .group_kind = GROUP_SIZE, .group = 32 };
    assert_int_equal(quant_group_len(&quant, 40), 32);
    assert_int_equal(quant_groups_per_row(&quant, 40), 2);
    assert_int_equal(quant_groups_per_row(&quant, 0), 0);
    assert_int_equal(quant_groups_per_row(&quant, UINT64_MAX), UINT64_MAX / 32 + 1);
    quant = (struct quant){ .group_kind = GROUP_CHANNEL };
    assert_int_equal(quant_group_len(&quant, 40), 40);
    assert_int_equal(quant_groups_per_row(&quant, 40), 1);
}

/* ---- quality -------------------------------------------------------------------------------------------------------------------- */

/* SQNR of the first n weights of the sample; *squared gets the summed squared error of each group. */
static double sqnr_of(const struct quant *quant, size_t n, double *squared)
{
    const struct kernels *kernels = kernels_select(NULL);
    const size_t group = quant->group_kind == GROUP_SIZE ? quant->group : 4096;
    double signal = 0, noise = 0;
    static uint16_t codes[GROUP_MAX];
    static float y[GROUP_MAX];
    for (size_t i = 0, g = 0; i < n; i += group, g++) {
        struct group_scale scales[SUB_BLOCKS_MAX];
        assert_true(quant_group(quant, kernels, gaussian + i, NULL, group, scales, codes));
        kernels->decode(quant->elem, &(struct groups){ group, quant->sub_block ? quant->sub_block : group, scales }, codes, y);
        double error = 0;
        for (size_t k = 0; k < group; k++) {
            double d = (double)gaussian[i + k] - (double)y[k];
            error += d * d;
            signal += (double)gaussian[i + k] * (double)gaussian[i + k];
        }
        noise += error;
        if (squared) squared[g] = error;
    }
    return 10 * log10(signal / noise);
}

/* SQNR of the sample as 256 rows through the codec, scale of the matrix included. */
static double encoded_sqnr(const struct quant *quant)
{
    enum { ROWS = 256, COLS = SAMPLE / ROWS };
    static uint8_t bytes[4][SAMPLE * 4];
    static float x[SAMPLE], y[SAMPLE];
    static uint16_t codes[SAMPLE];
    const struct kernels *kernels = kernels_select(NULL);
    const struct codec_scratch scratch = { x, y, codes, SAMPLE };
    struct measure measure = { 0 };
    struct codec_fault fault;
    struct codec_tile tile = { .source = (const uint8_t *)(const void *)gaussian, .dtype = dtype_find("F32", 3), .n_rows = ROWS, .n_cols = COLS };
    struct range range = { 0 };
    assert_true(codec_observe_range(kernels, &tile, &scratch, &range, &fault));
    const float scale = quant->tensor_scale ? quant->format->family->tensor_scale(range) : 1.0f;
    tile.measure = &measure;
    tile.matrix_rows = ROWS;
    if (quant->tensor_scale) tile.tensor_scales = &scale;
    for (size_t k = 0; k < 4; k++) tile.planes[k] = bytes[k];
    assert_true(codec_encode(quant, kernels, &tile, &scratch, &fault));
    return measure_sqnr_db(&measure);
}

static void test_quality(void **state)
{
    (void)state;
    int n_bad = 0;
    for (size_t i = 0; i < format_count(); i++) {
        struct err err;
        struct quant quant;
        assert_ok(quant_parse(format_at(i)->name, NULL, &quant, &err));
        double sqnr = encoded_sqnr(&quant), bound = (double)format_at(i)->sqnr_db;
        printf("%-11s %.3f dB, bound %.2f\n", format_at(i)->name, sqnr, bound);
        bool plain = format_at(i)->block && format_at(i)->block->elements == 1; /* exact for BF16 weights, or nearly so */
        n_bad += sqnr < bound || (!plain && sqnr > bound + 0.2);
    }
    if (n_bad) fail_msg("%d formats are not within 0.2 dB above their bounds", n_bad);
}

/* In every group the searched scale is at most as bad as that of every fixed rule (but for the last bits of the sums); of the MX rules floor and
 * ceil, even and rceil lie among the candidates. */
static void test_search_wins(void **state)
{
    (void)state;
    enum { N = 1 << 16 };
    static double searched[N], fixed[N];
    for (size_t i = 0; i < format_count(); i++) {
        const struct format *format = format_at(i);
        struct err err;
        struct quant quant;
        assert_ok(quant_parse(format->name, NULL, &quant, &err));
        if (format->family->blocks) continue;
        quant.rule = format->rules >> RULE_SEARCH & 1u ? RULE_SEARCH : RULE_MSE;
        sqnr_of(&quant, N, searched);
        for (int rule = 0; rule < RULE_COUNT; rule++) {
            if (!(format->rules >> rule & 1u) || rule == RULE_REFERENCE || choose_reads((enum scale_rule)rule)) continue;
            quant.rule = (enum scale_rule)rule;
            sqnr_of(&quant, N, fixed);
            for (size_t g = 0; g < N / (quant.group ? quant.group : 4096); g++)
                if (searched[g] > fixed[g] * (1 + 1e-5))
                    fail_msg("%s group %zu: %g by search, %g by %s", format->name, g, searched[g], fixed[g], scale_rule_name(quant.rule));
        }
    }
}

/* The largest weight on the largest code, or half a code beyond it. */
static void test_half_range(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        float scale;
        int codes[3];
    } cases[] = { { "int4:scale=f32", 14.0f / 7.5f, { 7, -7, 1 } }, { "int4:scale=f32,half-range=int_max", 2.0f, { 7, -7, 0 } } };
    const float x[] = { 14.0f, -13.5f, 1.0f };
    for (size_t i = 0; i < 2; i++) {
        struct err err;
        struct quant quant;
        struct group_scale scale;
        uint16_t codes[3];
        assert_ok(quant_parse(cases[i].text, NULL, &quant, &err));
        assert_true(quant_group(&quant, kernels_select(NULL), x, NULL, 3, &scale, codes));
        assert_true(scale.value == cases[i].scale);
        for (size_t k = 0; k < 3; k++) assert_int_equal((codes[k] ^ 8) - 8, cases[i].codes[k]);
    }
}

/* Left-out candidates never win; of equal errors the first does. */
static void test_choose(void **state)
{
    (void)state;
    struct err err;
    struct quant quant;
    struct group_scale scale;
    double errors[CANDIDATES_MAX] = { 1, 1, 0.5 };
    assert_ok(quant_parse("mxfp4", NULL, &quant, &err));
    assert_true(quant_choose(&quant, (struct range){ -4.0f, 1.0f }, errors, &scale));
    assert_int_equal(scale.bits, 126); /* candidates 127, 128, 126 */
    errors[2] = 1;
    assert_true(quant_choose(&quant, (struct range){ -4.0f, 1.0f }, errors, &scale));
    assert_int_equal(scale.bits, 127);
    errors[2] = 0;
    assert_true(quant_choose(&quant, (struct range){ 0.0f, 0x1p-140f }, errors, &scale));
    assert_int_equal(scale.bits, 0);
    assert_ok(quant_parse("int4:scale=f16", NULL, &quant, &err));
    assert_false(quant_choose(&quant, (struct range){ -1e6f, 0.0f }, errors, &scale));
}

/* Text and back, to the last of twelve decimals. */
static void test_percentiles(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double value;
        const char *again;
    } cases[] = { { "99.99", 99.99, "99.99" },
                  { "100", 100, "100" },
                  { "0", 0, "0" },
                  { ".5", 0.5, "0.5" },
                  { "50.", 50, "50" },
                  { "1e-05", -1, "" },
                  { "0.00001", 0.00001, "0.00001" },
                  { "99.999999999999", 99.999999999999, "99.999999999999" },
                  { "100.000000000001", -1, "" },
                  { "0.0000000000001", -1, "" },
                  { "33.333333333333", 33.333333333333, "33.333333333333" } };
    struct quant quant;
    struct err err;
    assert_ok(quant_parse("int4:rule=percentile", NULL, &quant, &err));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[24];
        assert_int_equal(quant_read_percentile(cases[i].text, &quant.percentile), cases[i].value >= 0);
        if (cases[i].value < 0) continue;
        assert_true(quant.percentile == cases[i].value);
        assert_string_equal(quant_percentile_text(&quant, text), cases[i].again);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_rows),        cmocka_unit_test(test_accepted),
                                        cmocka_unit_test(test_refused),     cmocka_unit_test(test_every_parameter),
                                        cmocka_unit_test(test_group_sizes), cmocka_unit_test(test_quality),
                                        cmocka_unit_test(test_search_wins), cmocka_unit_test(test_choose),
                                        cmocka_unit_test(test_half_range),  cmocka_unit_test(test_percentiles) };
    return cmocka_run_group_tests(tests, make_sample, NULL);
}
