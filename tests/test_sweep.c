/* test_sweep.c: the variants of lists, the ends of formats, CSV and JSON of a small table.
 *
 * Drawing: lists -> variants, skipped or not; elements -> last codes; a table typed here -> bytes typed here
 * Why this way: rows against conversions are tests/cli/test_cli_sweep.py; here stands what a conversion does not show.
 * Corner cases: inline parameters with commas, doubles, words that mean nothing; names with commas, quotes and line breaks; NaN and infinity.
 * Reference: converter/SWEEP.md 1 and 2; RFC 4180.
 */
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "converter/sweep_run.h"
#include "converter/sweep_write.h"

/* ---- variants -------------------------------------------------------------------------------------------------------------------------- */

static enum status make(const char *formats, const char *groups, const char *rules, struct sweep_table *table, struct err *err)
{
    static const volatile sig_atomic_t stop = 0;
    struct app app = { .io = &io_system, .kernels = kernels_select(NULL), .stop = &stop };
    const struct sweep_spec spec = { .formats = formats, .group_sizes = groups, .scale_rules = rules, .sample = 1.0 };
    *table = (struct sweep_table){ 0 };
    return sweep_variants_make(&app, &spec, table, err);
}

struct expected {
    const char *format, *group, *rule, *settings, *skipped; /* skipped: part of the reason */
};

static void check_variants(const char *formats, const char *groups, const char *rules, const struct expected *expected, size_t n)
{
    struct sweep_table table;
    struct err err = { OK, "" };
    assert_int_equal(make(formats, groups, rules, &table, &err), OK);
    assert_int_equal(table.n_variants, n);
    for (size_t i = 0; i < n; i++) {
        const struct sweep_variant *variant = &table.variants[i];
        assert_string_equal(variant->format, expected[i].format);
        assert_string_equal(variant->group_size, expected[i].group);
        assert_string_equal(variant->scale_rule, expected[i].rule);
        if (expected[i].settings) assert_string_equal(variant->settings, expected[i].settings);
        assert_int_equal(variant->skipped != NULL, expected[i].skipped != NULL);
        if (expected[i].skipped && !strstr(variant->skipped, expected[i].skipped)) fail_msg("%s", variant->skipped);
    }
    sweep_table_free(&table);
}

static void lists(void **state)
{
    (void)state;
    static const struct expected own[] = {
        { "int4", "128", "absmax", "--format int4 --group-size 128 --scale-rule absmax", NULL },
        { "mxfp4", "32", "search", "--format mxfp4 --group-size 32 --scale-rule search", NULL },
        { "q4_k", "256", "reference", "--format q4_k --scale-rule reference", NULL },
    };
    static const struct expected grid[] = {
        { "int4", "32", "absmax", NULL, NULL },
        { "int4", "32", "mse", NULL, NULL },
        { "int4", "channel", "absmax", NULL, NULL },
        { "int4", "channel", "mse", NULL, NULL },
        { "mxfp4", "32", "absmax", NULL, "does not take scale rule 'absmax'" },
        { "mxfp4", "32", "search", NULL, NULL },
        { "mxfp4", "channel", "absmax", NULL, "mxfp4" },
        { "mxfp4", "channel", "mse", NULL, "not groups 'channel'" },
    };
    static const struct expected inline_parameters[] = {
        { "int4:group=64,scale=f16", "64", "absmax", "--format int4:group=64,scale=f16 --group-size 64 --scale-rule absmax", NULL },
        { "int4:group=64,scale=f16", "64", "absmax", NULL, "the same as int4:group=64,scale=f16, group size 64, scale rule absmax" },
        { "nf4", "32", "absmax", NULL, NULL },
        { "nf4", "64", "absmax", NULL, NULL },
    };
    check_variants("int4,mxfp4,q4_k", NULL, NULL, own, 3);
    check_variants("int4,mxfp4", "32,channel", "absmax,mse", grid, 8);
    check_variants("int4:group=64,scale=f16,nf4", "32,64", NULL, inline_parameters, 4);
}

static void refused_lists(void **state)
{
    (void)state;
    static const struct {
        const char *formats, *groups, *rules, *part;
    } cases[] = {
        { NULL, NULL, NULL, "--formats is missing" },
        { "intx", NULL, NULL, "unknown format 'intx'" },
        { "int4,", NULL, NULL, "empty entry" },
        { "int4", "32,0x", NULL, "'0x'" },
        { "int4", "32", "mse,none", "'none'" },
        { "mxfp4", "channel", NULL, "none of the 1" },
        { "int4", "32,,64", NULL, "--group-sizes has an " },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sweep_table table;
        struct err err = { OK, "" };
        assert_int_equal(make(cases[i].formats, cases[i].groups, cases[i].rules, &table, &err), ERR_USAGE);
        if (!strstr(err.text, cases[i].part)) fail_msg("%s", err.text);
        sweep_table_free(&table);
    }
}

/* ---- ends ------------------------------------------------------------------------------------------------------------------------------ */

/* Last values and half the step there: E2M1 6 and 4; two's complement; NF4 1 and 0.7229568. */
static void ends(void **state)
{
    (void)state;
    static const struct {
        const char *format;
        float high, low, high_half, low_half;
    } cases[] = {
        { "mxfp4", 6.0f, -6.0f, 1.0f, 1.0f },
        { "int4", 7.0f, -8.0f, 0.5f, 0.5f },
        { "uint3", 7.0f, 0.0f, 0.5f, 0.5f },
        { "fp8_e4m3", 448.0f, -448.0f, 16.0f, 16.0f },
        { "mxfp8_e5m2", 57344.0f, -57344.0f, 4096.0f, 4096.0f },
        { "nf4", 1.0f, -1.0f, 0.13852159f, 0.1519036f },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct quant quant;
        struct err err = { OK, "" };
        assert_int_equal(quant_parse(cases[i].format, &(struct quant_params){ 0 }, &quant, &err), OK);
        const struct sweep_ends found = sweep_ends_of(&quant);
        assert_true(found.known);
        assert_float_equal(elem_decode(quant.elem, found.high), cases[i].high, 0.0);
        assert_float_equal(elem_decode(quant.elem, found.low), cases[i].low, 0.0);
        assert_float_equal(found.high_half, cases[i].high_half, 1e-7);
        assert_float_equal(found.low_half, cases[i].low_half, 1e-7);
    }
    struct quant blocks;
    struct err err = { OK, "" };
    assert_int_equal(quant_parse("q4_k", &(struct quant_params){ 0 }, &blocks, &err), OK);
    assert_false(sweep_ends_of(&blocks).known);
}

/* ---- CSV and JSON ------------------------------------------------------------------------------------------------------------------------ */

static char *written(enum status (*write)(struct sweep_sink *, const struct sweep_table *, struct err *), const struct sweep_table *table)
{
    char *text = NULL;
    size_t nbytes = 0;
    struct err err = { OK, "" };
    struct sweep_sink sink = { .stream = open_memstream(&text, &nbytes) };
    assert_non_null(sink.stream);
    assert_int_equal(write(&sink, table, &err), OK);
    fclose(sink.stream);
    assert_int_equal(sink.offset, nbytes);
    return text;
}

static struct sweep_table small_table(struct sweep_variant variants[2], struct sweep_row rows[2])
{
    const double nan_ = (double)NAN;
    static char first[4][40] = { "int4:group=64,scale=f16", "64", "absmax", "--format int4" };
    static char second[5][40] = { "mxfp4", "channel", "default", "--format mxfp4", "no \"channel\", no" };
    variants[0] = (struct sweep_variant){ first[0], first[1], first[2], 0.0, NULL, first[3], NULL, 0, 2 };
    variants[1] = (struct sweep_variant){ second[0], second[1], second[2], 0.5, NULL, second[3], second[4], 0, 0 };
    rows[0] = (struct sweep_row){ .scope = SWEEP_TENSOR,
                                  .name = "a,\"b\"\n",
                                  .role = "down",
                                  .layer = 3,
                                  .format = "int4",
                                  .n_weights = 128,
                                  .n_measured = 128,
                                  .bits = 544,
                                  .plane_bits = 544,
                                  .bpw = 4.25,
                                  .mse = 1e-5,
                                  .sqnr_db = (double)INFINITY,
                                  .wsqnr_db = nan_,
                                  .max_error = 0.5,
                                  .clipped = nan_,
                                  .hash = "00ff",
                                  .perplexity = nan_,
                                  .kl = nan_ };
    rows[1] = rows[0];
    rows[1].scope = SWEEP_TOTAL;
    rows[1].name = rows[1].role = "total";
    rows[1].layer = SWEEP_NO_LAYER;
    rows[1].bits = 1088;
    rows[1].bpw = 8.5;
    rows[1].sqnr_db = 20.0;
    rows[1].clipped = 0.125;
    rows[1].perplexity = 4.5;
    static char model[] = "m", writer[] = "w", none[] = "";
    return (struct sweep_table){ .model = model,
                                 .writer = writer,
                                 .variants = variants,
                                 .n_variants = 2,
                                 .rows = rows,
                                 .n_rows = 2,
                                 .reference_name = none,
                                 .reference_perplexity = nan_,
                                 .sample = 1.0 };
}

static void csv(void **state)
{
    (void)state;
    struct sweep_variant variants[2];
    struct sweep_row rows[2];
    const struct sweep_table table = small_table(variants, rows);
    char *text = written(sweep_write_csv, &table);
    assert_string_equal(
        text, "format,group_size,scale_rule,alpha,scope,name,bpw,role,layer,tensor_format,weights,measured,bits,plane_bpw,mse,sqnr_db,wsqnr_db,"
              "max_error,clipped,perplexity,kl,hash,sample,settings,skipped\r\n"
              "\"int4:group=64,scale=f16\",64,absmax,0,tensor,\"a,\"\"b\"\"\n\",4.25,down,3,int4,128,128,544,4.25,1e-05,inf,,0.5,,,,00ff,1,"
              "--format int4,\r\n"
              "\"int4:group=64,scale=f16\",64,absmax,0,total,total,8.5,total,,int4,128,128,1088,4.25,1e-05,20,,0.5,0.125,4.5,,00ff,1,"
              "--format int4,\r\n"
              "mxfp4,channel,default,0.5,total,total,nan,total,,,,,,,,,,,,,,,1,--format mxfp4,\"no \"\"channel\"\", no\"\r\n");
    free(text);
}

static void json(void **state)
{
    (void)state;
    struct sweep_variant variants[2];
    struct sweep_row rows[2];
    const struct sweep_table table = small_table(variants, rows);
    char *text = written(sweep_write_json, &table);
    assert_non_null(strstr(
        text, "{\"writer\":\"w\",\"model\":\"m\",\"input_digest\":null,\"sample\":1,\"weighted\":false,\"eval\":null,\"reference_perplexity\":null,"
              "\"settings\":[],\"rows\":[\n{\"format\":\"int4:group=64,scale=f16\",\"group_size\":\"64\",\"scale_rule\":\"absmax\",\"alpha\":0,"
              "\"scope\":\"tensor\",\"name\":\"a,\\\"b\\\""));
    assert_non_null(strstr(text, "\"sqnr_db\":null,\"wsqnr_db\":null,\"max_error\":0.5,\"clipped\":null,\"perplexity\":null"));
    assert_non_null(strstr(text, "\"bpw\":null,\"role\":\"total\",\"layer\":null,\"tensor_format\":null,\"weights\":null"));
    assert_non_null(strstr(text, "\"skipped\":\"no \\\"channel\\\", no\"}\n]}\n"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists), cmocka_unit_test(refused_lists), cmocka_unit_test(ends), cmocka_unit_test(csv), cmocka_unit_test(json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
