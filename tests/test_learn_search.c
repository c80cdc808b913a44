/* test_learn_search.c: the learned scales: golden vectors of tests/oracle_learn.py, and what must hold for any weights.
 *
 * Drawing: case -> learn_group with every kernel set -> bits of scale, zero point, losses, number judged.
 * Why this way: bytes first; the oracle decides codes on exact numbers and shares no code with C. Then properties on many random groups.
 * Corner cases: in the vectors: all widths, tails, zeros, importance of 0 alone and spread over 1e12, weights of 1e-12 and 1e38, F16 overflow; here: never worse
 * than absmax as stored nor than the rule's start, steps 0, an empty group.
 * Reference: NUMERICS_LEARNED.md; header of tests/oracle_learn.py.
 */
#include "support/support.h"

#include <cjson/cJSON.h>
#include <math.h>

#include "number/half.h"
#include "number/kernel.h"
#include "number/learn.h"
#include "number/learn_sums.h"
#include "support/learn_case.h"

static void check_case(const struct learn_case *golden)
{
    for (size_t k = 0; k <= kernels_count(); k++) {
        struct learn_params params = golden->params;
        struct learned learned;
        params.kernels = k < kernels_count() ? kernels_at(k) : NULL;
        learn_group(golden->rule, &params, golden->x, golden->weight, golden->n, golden->code_min, golden->code_max, &learned);
        learn_case_check(golden, &learned);
    }
}

static void test_golden(void **state)
{
    (void)state;
    assert_true(learn_cases("groups", check_case) > 80);
}

/* ---- properties ------------------------------------------------------------------------------------------------------------------ */

static double loss_under(const struct fakequant *codes, float scale, const float *x, const float *weight, size_t n)
{
    struct learn_sums sums = { 0 };
    learn_eval_for(NULL)->loss(codes, scale, x, weight, n, &sums);
    return learn_loss(&sums);
}

static float stored(enum scale_type type, float s)
{
    return scale_load(type, scale_store(type, fmaxf(s, 0x1p-23f)));
}

/* The same as the family's rule absmax, written down again. */
static void absmax(const float *x, size_t n, int32_t code_min, int32_t code_max, enum scale_type type, float *scale, int32_t *zero)
{
    float low = 0, high = 0;
    for (size_t i = 0; i < n; i++) {
        low = fminf(low, x[i]);
        high = fmaxf(high, x[i]);
    }
    *zero = 0;
    if (code_min < 0) {
        *scale = stored(type, fmaxf(-low, high) / ((float)code_max + 0.5f));
        return;
    }
    *scale = stored(type, (high - low) / (float)code_max);
    *zero = (int32_t)fminf(fmaxf(-rintf(low / *scale), 0.0f), (float)code_max);
}

static void fill(uint64_t *seed, int round, float *x, float *weight, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double sum = round % 3 == 0 ? 0.3 : 0.0;
        for (int k = 0; k < 4; k++) sum += (double)(int64_t)test_random(seed) / 9.3e18;
        x[i] = (float)(sum * 0.02 * (test_random(seed) % 29 == 0 ? 20.0 : 1.0));
        weight[i] = test_random(seed) % 3 == 0 ? 0.0f : (float)pow(10.0, (double)(test_random(seed) % 25) - 12.0);
    }
}

static void check_group(enum learn_rule rule, const struct learn_params *params, const float *x, const float *weight, size_t n, int32_t low,
                        int32_t high)
{
    struct learned learned;
    float scale;
    int32_t zero;
    learn_group(rule, params, x, weight, n, low, high, &learned);
    absmax(x, n, low, high, params->stored, &scale, &zero);
    const struct fakequant codes = { low, high, zero, params->rounding };
    assert_int_equal(learned.zero, zero);
    assert_true(learned.loss == loss_under(&codes, learned.scale, x, weight, n));
    assert_true(learned.scale == stored(params->stored, learned.scale) && learned.scale >= 0x1p-23f);
    assert_true(learned.loss <= learned.start_loss);
    if (rule == LEARN_TQT) {
        const float power = ldexpf(1.0f, (int)ceilf(log2f(scale))); /* any power of two near it is judged */
        assert_true(learned.loss <= loss_under(&codes, power, x, weight, n));
    } else {
        assert_true(learned.start_loss == loss_under(&codes, scale, x, weight, n));
    }
    if (rule == LEARN_LSQ && params->method == LEARN_DESCENT && !weight && params->steps > 0)
        assert_true(learned.loss <= loss_under(&codes, stored(params->stored, lsq_start(x, n, high)), x, NULL, n));
}

static void test_never_worse(void **state)
{
    (void)state;
    static const int32_t ranges[][2] = { { -2, 1 }, { -4, 3 }, { -8, 7 }, { -16, 15 }, { -128, 127 }, { 0, 3 }, { 0, 15 }, { 0, 255 } };
    static const enum scale_type types[] = { SCALE_F32, SCALE_BF16, SCALE_F16 };
    uint64_t seed = 21;
    for (int round = 0; round < 36; round++) {
        float x[100], weight[100];
        fill(&seed, round, x, weight, 100);
        for (int rule = 0; rule < LEARN_RULE_COUNT; rule++)
            for (size_t k = 0; k < sizeof ranges / sizeof ranges[0]; k++) {
                struct learn_params params = learn_defaults((enum learn_rule)rule);
                params.stored = types[round % 3];
                params.method = (enum learn_method)(round / 3 % 3);
                params.start = (enum learn_start)(round % 4);
                params.rounding = (enum rounding)(round / 9 % ROUND_COUNT);
                if (round == 35) params.steps = 0;
                check_group((enum learn_rule)rule, &params, x, round % 2 ? weight : NULL, 100 - (size_t)round, ranges[k][0], ranges[k][1]);
            }
    }
}

/* The start itself is among what is judged: PACT from 3 sigma, TQT's descent from each threshold. */
static void test_never_worse_than_start(void **state)
{
    (void)state;
    uint64_t seed = 5;
    for (int round = 0; round < 50; round++) {
        float x[64], weight[64];
        struct learned learned;
        fill(&seed, round, x, weight, 64);
        const struct fakequant codes = { -8, 7, 0, ROUND_NEAREST_EVEN };
        struct learn_params params = learn_defaults(LEARN_PACT);
        params.start = LEARN_FROM_3SD;
        const float threshold = tqt_threshold_3sd(x, 64), klj = tqt_threshold_klj(4, x, 64);
        learn_group(LEARN_PACT, &params, x, NULL, 64, -8, 7, &learned);
        assert_true(learned.loss <= loss_under(&codes, fmaxf(threshold / 7, 0x1p-23f), x, NULL, 64));
        params = learn_defaults(LEARN_TQT);
        params.method = LEARN_DESCENT;
        params.start = LEARN_FROM_3SD;
        learn_group(LEARN_TQT, &params, x, NULL, 64, -8, 7, &learned);
        assert_true(learned.loss <= loss_under(&codes, tqt_scale(4, (float)log2((double)threshold)), x, NULL, 64));
        params.start = LEARN_FROM_KLJ;
        learn_group(LEARN_TQT, &params, x, NULL, 64, -8, 7, &learned);
        assert_true(learned.loss <= loss_under(&codes, tqt_scale(4, (float)log2((double)klj)), x, NULL, 64));
    }
}

static void test_degenerate(void **state)
{
    (void)state;
    static const float zeros[5] = { 0, -0.0f, 0, 0, 0 }, big[2] = { 3.4e38f, -3.4e38f };
    for (int rule = 0; rule < LEARN_RULE_COUNT; rule++) {
        struct learn_params params = learn_defaults((enum learn_rule)rule);
        struct learned learned;
        for (size_t n = 0; n <= 5; n++) {
            learn_group((enum learn_rule)rule, &params, zeros, NULL, n, -8, 7, &learned);
            assert_true(learned.scale == 0x1p-23f && learned.loss == 0.0 && learned.judged <= 2);
            learn_group((enum learn_rule)rule, &params, zeros, NULL, n, 0, 15, &learned);
            assert_true(learned.scale == 0x1p-23f && learned.zero == 0);
        }
        params.stored = SCALE_F16; /* the range does not fit, and what fits clips nearly all: still finite or refused, never NaN */
        learn_group((enum learn_rule)rule, &params, big, NULL, 2, -8, 7, &learned);
        assert_true(learned.scale > 0.0f);
        params.stored = SCALE_F32;
        learn_group((enum learn_rule)rule, &params, big, NULL, 2, 0, 3, &learned);
        assert_true(learned.scale > 0.0f);
        assert_string_equal(learn_rule_name(learn_rule_find(learn_rule_name((enum learn_rule)rule))), learn_rule_name((enum learn_rule)rule));
    }
    assert_int_equal(learn_rule_find("absmax"), LEARN_RULE_COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_golden), cmocka_unit_test(test_never_worse),
                                        cmocka_unit_test(test_never_worse_than_start), cmocka_unit_test(test_degenerate) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
