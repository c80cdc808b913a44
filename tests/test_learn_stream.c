/* test_learn_stream.c: the learned scale of a tensor that is seen slice by slice.
 *
 * Drawing: spans -> parts -> passes; the oracle's bits; and against the learner in memory.
 * Why this way: bytes by the oracle; what sampling costs, in dB, by comparison.
 * Corner cases: slices observed in reverse order but added in order give the same bits; a large tensor; zeros; at most LEARN_PASSES passes.
 * Reference: NUMERICS_LEARNED.md 7.
 */
#include "support/support.h"

#include <math.h>

#include "number/kernel.h"
#include "number/learn_stream.h"
#include "support/learn_case.h"

enum { SPANS_OF_PART = 3, PARTS_MAX = 64 };

/* A whole run over n weights in slices of three spans; backwards: slices are observed last to first. */
static uint32_t run(struct learn_stream *stream, const float *x, const float *weight, size_t n, size_t span, bool backwards)
{
    const size_t slice = span * SPANS_OF_PART, count = (n + slice - 1) / slice;
    uint32_t passes = 0;
    assert_true(count <= PARTS_MAX);
    while (learn_stream_next(stream)) {
        struct learn_part *parts = calloc(PARTS_MAX, sizeof *parts);
        assert_non_null(parts);
        for (size_t k = 0; k < count; k++) {
            const size_t part = backwards ? count - 1 - k : k, end = (part + 1) * slice < n ? (part + 1) * slice : n;
            for (size_t i = part * slice; i < end; i += span)
                learn_stream_observe(stream, x + i, weight ? weight + i : NULL, end - i < span ? end - i : span, &parts[part]);
        }
        for (size_t k = 0; k < count; k++) learn_stream_add(stream, &parts[k]);
        free(parts);
        passes++;
    }
    assert_true(passes <= LEARN_PASSES);
    return passes;
}

static void check_case(const struct learn_case *golden)
{
    for (size_t k = 0; k < kernels_count(); k++) {
        struct learn_params params = golden->params;
        struct learn_stream stream;
        struct learned learned;
        params.kernels = kernels_at(k);
        learn_stream_begin(&stream, golden->rule, &params, golden->code_min, golden->code_max);
        run(&stream, golden->x, golden->weight, golden->n, golden->span, k % 2 == 1);
        learn_stream_finish(&stream, &learned);
        learn_case_check(golden, &learned);
    }
}

static void test_golden(void **state)
{
    (void)state;
    assert_true(learn_cases("streams", check_case) >= 20);
}

static void fill(uint64_t seed, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (int k = 0; k < 12; k++) sum += (double)(int64_t)test_random(&seed) / 9.3e18;
        x[i] = (float)(sum * 0.01);
    }
}

/* On a tensor of 60 000 weights the sampled scale is as good as the learner in memory, within 0.001 dB. */
static void test_against_memory(void **state)
{
    (void)state;
    static const int32_t ranges[][2] = { { -8, 7 }, { -128, 127 }, { 0, 15 }, { 0, 255 } };
    const size_t n = 60000;
    float *x = calloc(n, sizeof *x);
    assert_non_null(x);
    fill(77, x, n);
    for (int rule = 0; rule < LEARN_RULE_COUNT; rule++)
        for (size_t k = 0; k < 4; k++) {
            struct learn_params params = learn_defaults((enum learn_rule)rule);
            struct learn_stream stream;
            struct learned learned, whole;
            params.kernels = kernels_select(NULL);
            learn_stream_begin(&stream, (enum learn_rule)rule, &params, ranges[k][0], ranges[k][1]);
            const uint32_t passes = run(&stream, x, NULL, n, 1000, false);
            learn_stream_finish(&stream, &learned);
            learn_group((enum learn_rule)rule, &params, x, NULL, n, ranges[k][0], ranges[k][1], &whole);
            const double loss_db = 10 * log10(learned.loss / whole.loss);
            print_message("%s codes %d .. %d: %u passes, %.5f dB off\n", learn_rule_name((enum learn_rule)rule), ranges[k][0], ranges[k][1], passes,
                          loss_db);
            assert_true(loss_db < 0.001);
            assert_true(learned.loss <= learned.start_loss);
        }
    free(x);
}

static void test_degenerate(void **state)
{
    (void)state;
    float zeros[40] = { 0 };
    for (int rule = 0; rule < LEARN_RULE_COUNT; rule++)
        for (int32_t low = -8; low <= 0; low += 8) {
            struct learn_params params = learn_defaults((enum learn_rule)rule);
            struct learn_stream stream;
            struct learned learned;
            learn_stream_begin(&stream, (enum learn_rule)rule, &params, low, low + 15);
            run(&stream, zeros, NULL, 40, 16, false);
            learn_stream_finish(&stream, &learned);
            assert_true(learned.scale == 0x1p-23f && learned.loss == 0.0);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_golden), cmocka_unit_test(test_against_memory), cmocka_unit_test(test_degenerate) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
