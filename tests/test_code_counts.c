/* test_code_counts.c: codes and scales as they are counted, and the histograms made of them.
 *
 * Drawing: codes 7 7 8 15 of int4 -> values -8 .. 7; scales 0.3, 0, -1 -> bins of a quarter of a power of two.
 * Why this way: what stands in files is counted by the command-line tests, which compare a conversion with a sweep; here stand the bins.
 * Corner cases: NaN codes, elements of more than 8 bits, scales of 0 and beyond the bins, nothing counted.
 * Reference: code_counts.h. Worked number: log2 0.3 = -1.74: the bin that begins at -1.75.
 */
#include "support/support.h"

#include <math.h>

#include "converter/code_counts.h"
#include "converter/table_head.h"

static void free_histogram(struct sweep_histogram *histogram)
{
    free(histogram->codes);
    free(histogram->code_values);
    free(histogram->scales);
}

static void test_codes_by_value(void **state)
{
    (void)state;
    static const struct {
        const char *elem;
        uint16_t codes[4];
        size_t n_codes;
        double first, last;
    } cases[] = {
        { "int4", { 7, 7, 8, 15 }, 16, -8.0, 7.0 }, /* two's complement: 7, 7, -8, -1 */
        { "e2m1", { 7, 7, 15, 1 }, 16, -6.0, 6.0 },
        { "e4m3", { 126, 126, 254, 127 }, 254, -448.0, 448.0 }, /* two of its codes are NaN */
    };
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        const struct elem *elem = elem_find(cases[k].elem);
        struct code_counts *counts = calloc(1, sizeof *counts);
        struct sweep_histogram histogram = { 0 };
        struct err err;
        assert_true(elem && counts);
        assert_ok(code_counts_open(elem, counts, &err));
        code_counts_add(counts, cases[k].codes, 4);
        assert_ok(code_counts_fill(counts, &histogram, &err));
        assert_int_equal(histogram.n_codes, cases[k].n_codes);
        assert_true(histogram.code_values[0] == cases[k].first && histogram.code_values[histogram.n_codes - 1] == cases[k].last);
        assert_int_equal(histogram.codes[histogram.n_codes - 1], 2);
        assert_int_equal(histogram.codes[0], 1);
        for (size_t i = 1; i < histogram.n_codes; i++) assert_true(histogram.code_values[i] >= histogram.code_values[i - 1]);
        assert_int_equal(histogram.n_scales + histogram.n_scale_bins, 0);
        free_histogram(&histogram);
        code_counts_close(counts);
        free(counts);
    }
}

static void test_scales(void **state)
{
    (void)state;
    const struct group_scale scales[] = { { .value = 0.3f }, { .value = 0.0f }, { .value = -1.0f }, { .value = 0.31f }, { .value = 1.18f } };
    struct code_counts *counts = calloc(1, sizeof *counts);
    struct sweep_histogram histogram = { 0 };
    struct err err;
    assert_non_null(counts);
    assert_ok(code_counts_open(elem_find("int4"), counts, &err));
    code_counts_add_scales(counts, scales, 5);
    assert_ok(code_counts_fill(counts, &histogram, &err));
    assert_int_equal(histogram.n_scales, 5);
    assert_int_equal(histogram.n_zero_scales, 1);
    assert_true(histogram.scale_log2_low == -1.75 && histogram.scale_log2_step == 0.25);
    assert_int_equal(histogram.n_scale_bins, 8); /* -1.75 .. 0.25 */
    assert_int_equal(histogram.scales[0], 2);
    assert_int_equal(histogram.scales[7], 2);
    free_histogram(&histogram);
    histogram = (struct sweep_histogram){ 0 };
    code_counts_add_scales(counts, &(struct group_scale){ .value = 0x1p-149f }, 1);
    code_counts_add_scales(counts, &(struct group_scale){ .value = HUGE_VALF }, 1);
    assert_ok(code_counts_fill(counts, &histogram, &err));
    assert_true(histogram.scale_log2_low == -149.0);
    assert_true(histogram.scale_log2_low + 0.25 * (double)histogram.n_scale_bins == COUNTS_HIGHEST);
    free_histogram(&histogram);
    code_counts_close(counts);
    free(counts);
}

static void test_layers(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t layer;
    } cases[] = {
        { "model.layers.3.mlp.up_proj.weight", 3 },
        { "blk.12.ffn_up.weight", 12 },
        { "model.layers.7.mlp.experts.31.w1.weight", 7 },
        { "0.weight", 0 },
        { "output.weight", SWEEP_NO_LAYER },
        { "conv1d.weight", SWEEP_NO_LAYER },
        { "a.123456789.b", SWEEP_NO_LAYER },
        { "a.5", SWEEP_NO_LAYER },
        { "", SWEEP_NO_LAYER },
    };
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) assert_int_equal(table_layer(cases[k].name), cases[k].layer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes_by_value),
        cmocka_unit_test(test_scales),
        cmocka_unit_test(test_layers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
