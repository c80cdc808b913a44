/* test_histogram.c: the bin of every weight, edges, 64-bit counts.
 *
 * Drawing: bin = trunc( fl(fl(x - lo) * B) / fl(hi - lo) ).
 * Why this way: the vectors in test_observe.c bind whole histograms; here stand the single corners.
 * Corner cases: one value, more than 2^24 and 2^32 weights in a bin, the largest and the least numbers, values beyond the ends, NaN.
 * Reference: NUMERICS_OBSERVERS.md 2. Worked number: 0.9 of 0 .. 2.6 in 8 bins: trunc(7.2 / 2.6) = 2.
 */
#include "support/support.h"

#include <float.h>
#include <math.h>

#include "number/half.h"
#include "number/histogram.h"

static struct histogram *new_histogram(uint32_t bins)
{
    struct histogram *histogram = malloc(histogram_size(bins));
    assert_non_null(histogram);
    return histogram;
}

static void read_twice(struct histogram *histogram, uint32_t bins, bool absolute, bool skip_zeros, const float *x, size_t n)
{
    histogram_init(histogram, absolute, skip_zeros);
    histogram_add(histogram, x, n);
    histogram_begin(histogram, bins);
    histogram_add(histogram, x, n);
}

static uint32_t bin_of(const struct histogram *histogram)
{
    for (uint32_t i = 0; i < histogram->bins; i++)
        if (histogram->counts[i]) return i;
    return histogram->bins;
}

static void test_one_value(void **state)
{
    (void)state;
    static const float values[] = { 0.0f, -0.0f, 1.0f, -3.5f, 0x1p25f, 0x1p100f, -FLT_MAX, 0x1p-149f };
    struct histogram *histogram = new_histogram(10);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        read_twice(histogram, 10, false, false, &values[i], 1);
        assert_int_equal(histogram->total, 1);
        assert_int_equal(bin_of(histogram), fabsf(values[i]) < 0x1p24f ? 5 : 0);
        assert_true(histogram_lowest(histogram) == values[i] && histogram_highest(histogram) == values[i]);
    }
    free(histogram);
}

static void test_none(void **state)
{
    (void)state;
    static const float x[] = { NAN, HUGE_VALF, -HUGE_VALF, -0.0f };
    struct histogram *histogram = new_histogram(3);
    read_twice(histogram, 3, true, true, x, 4);
    assert_int_equal(histogram->total, 0);
    assert_int_equal(histogram->extremes.count, 0);
    assert_int_equal(histogram->extremes.dropped, 3);
    assert_int_equal(bin_of(histogram), 3);
    read_twice(histogram, 3, false, false, x, 0);
    assert_int_equal(histogram->total, 0);
    assert_true(histogram_edge(histogram, 0) == -1.0f && histogram_edge(histogram, 3) == 1.0f);
    free(histogram);
}

/* Every weight lies in its bin's edges, but for the rounding of one step in the formula. */
static void test_edges(void **state)
{
    (void)state;
    static const float ends[][2] = { { 0.0f, 2.6f },        { -1.4f, 2.6f },     { -FLT_MAX, FLT_MAX },
                                     { 0x1p99f, 0x1p101f }, { 0.0f, 0x1p-140f }, { -3.0f, -2.0f } };
    uint64_t seed = 9;
    struct histogram *histogram = new_histogram(100);
    for (size_t k = 0; k < sizeof ends / sizeof ends[0]; k++) {
        read_twice(histogram, 100, false, false, ends[k], 2);
        assert_int_equal(histogram->counts[0], 1);
        assert_int_equal(histogram->counts[99], 1);
        assert_true(histogram_edge(histogram, 0) == ends[k][0] && histogram_edge(histogram, 100) == ends[k][1]);
        for (uint32_t i = 0; i < 100; i++) {
            assert_true(histogram_edge(histogram, i) <= histogram_centre(histogram, i));
            assert_true(histogram_centre(histogram, i) <= histogram_edge(histogram, i + 1));
        }
        const double lo = (double)ends[k][0], width = ((double)ends[k][1] - lo) / 100.0;
        for (int i = 0; i < 1000; i++) {
            const float x = (float)(lo + (double)(test_random(&seed) >> 12) * 0x1p-52 * width * 100.0);
            const double place = ((double)x - lo) / width;
            histogram_begin(histogram, 100);
            histogram_add(histogram, &x, 1);
            const uint32_t bin = bin_of(histogram);
            assert_true((double)bin > place - 1.0 - 1e-4 && (double)bin < place + 1e-4);
        }
    }
    free(histogram);
}

static void test_outside(void **state)
{
    (void)state;
    static const float ends[] = { -1.0f, 1.0f }, outside[] = { -1.0000001f, 1.0000001f, NAN, HUGE_VALF, -HUGE_VALF };
    struct histogram *histogram = new_histogram(4);
    read_twice(histogram, 4, false, false, ends, 2);
    histogram_add(histogram, outside, 5);
    assert_int_equal(histogram->total, 2);
    free(histogram);
}

static void test_counts(void **state)
{
    (void)state;
    enum { BLOCK = 1 << 16 };
    float *x = malloc(BLOCK * sizeof *x);
    struct histogram *histogram = new_histogram(2);
    assert_non_null(x);
    for (size_t i = 0; i < BLOCK; i++) x[i] = i ? 1.0f : 4.0f;
    read_twice(histogram, 2, true, false, x, BLOCK);
    for (size_t i = 1; i < 512; i++) histogram_add(histogram, x, BLOCK);
    assert_int_equal(histogram->counts[0], 512 * (BLOCK - 1)); /* beyond 2^24, where a float stands still */
    histogram->counts[0] = UINT32_MAX;
    histogram_add(histogram, x, BLOCK);
    assert_int_equal(histogram->counts[0], (uint64_t)UINT32_MAX + BLOCK - 1);
    free(histogram);
    free(x);
}

static void test_extremes(void **state)
{
    (void)state;
    static const float x[] = { 0.5f, -0.0f, NAN, -2.0f, HUGE_VALF, 0x1p-149f };
    struct extremes extremes;
    extremes_reset(&extremes);
    extremes_add(&extremes, x, 6, false);
    assert_true(extremes.min == -2.0f && extremes.max == 0.5f && extremes.least == 0.0f);
    assert_int_equal(extremes.count, 4);
    assert_int_equal(extremes.dropped, 2);
    extremes_reset(&extremes);
    extremes_add(&extremes, x, 6, true);
    assert_true(extremes.least == 0x1p-149f);
    assert_int_equal(extremes.count, 3);
    extremes_reset(&extremes);
    extremes_add(&extremes, x + 1, 1, false);
    assert_int_equal(f32_bits(extremes.min), 0);
    assert_int_equal(f32_bits(extremes.max), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_one_value), cmocka_unit_test(test_none),   cmocka_unit_test(test_edges),
                                        cmocka_unit_test(test_outside),   cmocka_unit_test(test_counts), cmocka_unit_test(test_extremes) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
