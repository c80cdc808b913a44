/* test_smooth_stat.c: the statistic of a channel, its text, and E[x^2].
 *
 * Formula: rms sqrt(25 / 4) = 2.5; the 2nd of 4 sorted |x| is pctl:50.
 * Why this way: numbers small enough to be exact, so every comparison is one of bits.
 * Corner cases: slices of a matrix with several, a matrix that saw nothing, missing fields, a histogram in place of a sample.
 * Reference: smooth_stat.h; STATS.md. Worked number: in_sum2 25, counts 4: rms 2.5, E[x^2] 6.25.
 */
#include "support/support.h"

#include <float.h>
#include <math.h>

#include "number/half.h"
#include "smoothquant/smooth_stat.h"

static struct err err;

static void test_text(void **state)
{
    (void)state;
    static const char *const good[] = { "rms", "absmax", "mean", "gain", "pctl:99.9", "pctl:100", "pctl:0.5" };
    static const char *const bad[] = { "", "pctl", "pctl:", "pctl:0", "pctl:101", "pctl:1e1", "RMS", "pctl:-1", "absmax " };
    struct smooth_stat stat;
    char text[32];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_ok(smooth_stat_parse(good[i], &stat, &err));
        assert_string_equal(smooth_stat_text(&stat, text), good[i]);
    }
    assert_true(stat.kind == SMOOTH_STAT_PERCENTILE && stat.percentile == 0.5);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_refused(smooth_stat_parse(bad[i], &stat, &err), ERR_USAGE, "no statistic of activations");
}

static struct stats_set *set;

/* Two matrices of 4 channels; the slice is channels 2 and 3 of the second. */
static struct smooth_stat_source source(struct stats_slice *slice)
{
    *slice = (struct stats_slice){ .entry = &set->entries[0], .mat = 1, .first = 2, .how = STATS_EXACT };
    return (struct smooth_stat_source){ .slice = slice, .n = 2 };
}

static void fill(enum stats_field field, double a, double b)
{
    struct stats_entry *entry = &set->entries[0];
    if (!entry->values[field]) assert_ok(stats_make_field(set, entry, field, &err));
    for (int i = 0; i < 6; i++) entry->values[field][i] = 1e9;
    entry->values[field][6] = a;
    entry->values[field][7] = b;
}

static int open_set(void **state)
{
    (void)state;
    size_t index;
    set = stats_new(0);
    return set && stats_add(set, "w", 2, 4, &index, &err) == OK ? 0 : -1;
}

static int close_set(void **state)
{
    (void)state;
    stats_close(set);
    return 0;
}

static void check(const char *text, float a, float b)
{
    struct stats_slice slice;
    const struct smooth_stat_source from = source(&slice);
    struct smooth_stat stat;
    float x[2];
    assert_ok(smooth_stat_parse(text, &stat, &err));
    assert_ok(smooth_stat_read(&from, &stat, x, &err));
    if (x[0] != a || x[1] != b) fail_msg("%s: %g %g", text, (double)x[0], (double)x[1]);
}

static void refuse(const char *text, const char *part)
{
    struct stats_slice slice;
    const struct smooth_stat_source from = source(&slice);
    struct smooth_stat stat;
    float x[2];
    assert_ok(smooth_stat_parse(text, &stat, &err));
    assert_refused(smooth_stat_read(&from, &stat, x, &err), ERR_DATA, part);
}

static void check_ex2(double a, double b, bool is_exact)
{
    struct stats_slice slice;
    const struct smooth_stat_source from = source(&slice);
    double ex2[2];
    bool exact;
    assert_true(smooth_stat_ex2(&from, ex2, &exact));
    assert_true(ex2[0] == a && ex2[1] == b && exact == is_exact);
}

static void test_values(void **state)
{
    (void)state;
    struct stats_slice slice;
    double ex2[2];
    const struct smooth_stat_source from = source(&slice);
    refuse("rms", "no in_sum2 with counts");
    refuse("absmax", "no in_absmax, nor in_min and in_max");
    refuse("mean", "no in_sumabs");
    refuse("pctl:50", "no in_sample");
    refuse("gain", "no norm");
    assert_false(smooth_stat_ex2(&from, ex2, NULL));
    fill(STATS_MIN, -3, 1);
    fill(STATS_MAX, 2, 5);
    check("absmax", 3, 5);
    check_ex2(9, 25, false);
    fill(STATS_ABSMAX, 4, 6);
    check("absmax", 4, 6);
    fill(STATS_SUM2, 25, 16);
    refuse("rms", "no in_sum2 with counts");
    check_ex2(25, 16, false); /* without counts: their ratios */
    assert_ok(stats_make_counts(set, &set->entries[0], &err));
    set->entries[0].counts[1] = 4;
    fill(STATS_SUMABS, 8, 2);
    check("rms", 2.5f, 2);
    check("mean", 2, .5f);
    check_ex2(6.25, 4, true);
    stats_drop_field(set, &set->entries[0], STATS_SUM2);
    check_ex2(4, .25, false);
    set->entries[0].counts[1] = 0;
    refuse("absmax", "no token has reached matrix 1");
    refuse("pctl:50", "no token has reached matrix 1");
    assert_false(smooth_stat_ex2(&from, ex2, NULL));
    set->entries[0].counts[1] = 4;
}

static void test_histogram(void **state)
{
    (void)state;
    struct stats_slice slice;
    struct smooth_stat_source from = source(&slice);
    const struct smooth_stat stat = { SMOOTH_STAT_PERCENTILE, 90 };
    float x[2];
    fill(STATS_ABSMAX, 0.25, 60);
    assert_ok(stats_make_hist(set, &set->entries[0], &err));
    set->entries[0].hist[0] = 50;
    set->entries[0].hist[9] = 40; /* 90 of 100 below 10 bins */
    set->entries[0].hist[2047] = 10;
    from.hist_top = 2048;
    assert_ok(smooth_stat_read(&from, &stat, x, &err));
    assert_true(x[0] == 0.25f && x[1] == 10);
    const struct smooth_stat most = { SMOOTH_STAT_PERCENTILE, 95 };
    assert_ok(smooth_stat_read(&from, &most, x, &err));
    assert_true(x[1] == 60);
    /* bins of 8 an octave: 90 of 100 below the end of the bin of 5, which is 5.5 */
    uint64_t *hist = set->entries[0].hist;
    from.hist_top = 0;
    memset(hist, 0, STATS_HIST_BINS * sizeof *hist);
    hist[f32_bits(0.0f) >> 20] = 50;
    hist[f32_bits(5.0f) >> 20] = 40;
    hist[f32_bits(FLT_MAX) >> 20] = 10;
    assert_ok(smooth_stat_read(&from, &stat, x, &err));
    assert_true(x[0] == 0.25f && x[1] == 5.5f);
    assert_ok(smooth_stat_read(&from, &most, x, &err));
    assert_true(x[1] == 60);
    stats_drop_hist(set, &set->entries[0]);
    assert_refused(smooth_stat_read(&from, &stat, x, &err), ERR_DATA, "nor in_hist");
}

static void test_sample(void **state)
{
    (void)state;
    static const float rows[4][3] = { { 9, -4, 1 }, { 9, 1, 1 }, { 9, 3, 1 }, { 9, -2, 8 } };
    struct stats_set *own = stats_new(0);
    size_t index;
    assert_non_null(own);
    assert_ok(stats_add(own, "v", 1, 3, &index, &err));
    assert_ok(stats_make_sample(own, &own->entries[0], 4, &err));
    for (int t = 0; t < 4; t++)
        for (int j = 0; j < 3; j++) own->entries[0].sample[t * 3 + j] = f32_to_bf16(rows[t][j]);
    const struct stats_slice slice = { .entry = &own->entries[0], .first = 1 };
    const struct smooth_stat_source from = { .slice = &slice, .n = 2 };
    static const float wanted[][3] = { { 1, 1, 1 }, { 25, 1, 1 }, { 26, 2, 1 }, { 50, 2, 1 }, { 75, 3, 1 }, { 75.1f, 4, 8 }, { 100, 4, 8 } };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        const struct smooth_stat stat = { SMOOTH_STAT_PERCENTILE, (double)wanted[i][0] };
        float x[2];
        assert_ok(smooth_stat_read(&from, &stat, x, &err));
        if (x[0] != wanted[i][1] || x[1] != wanted[i][2]) fail_msg("pctl:%g: %g %g", (double)wanted[i][0], (double)x[0], (double)x[1]);
    }
    stats_close(own);
}

static void test_gain(void **state)
{
    (void)state;
    const struct smooth_stat_source from = { .n = 3, .gain = (const float[]){ -2, 0, .5f } };
    const struct smooth_stat stat = { .kind = SMOOTH_STAT_GAIN }, rms = { .kind = SMOOTH_STAT_RMS };
    float x[3];
    double ex2[3];
    bool exact;
    assert_ok(smooth_stat_read(&from, &stat, x, &err));
    assert_true(x[0] == 2 && x[1] == 0 && x[2] == .5f);
    assert_true(smooth_stat_ex2(&from, ex2, &exact) && ex2[0] == 4 && ex2[2] == .25 && !exact);
    assert_refused(smooth_stat_read(&from, &rms, x, &err), ERR_DATA, "no statistics");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test_setup_teardown(test_values, open_set, close_set),
        cmocka_unit_test_setup_teardown(test_histogram, open_set, close_set),
        cmocka_unit_test(test_sample),
        cmocka_unit_test(test_gain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
