/* test_choose.c: scale rules that read the weights of a group, as the integer formats take them.
 *
 * Drawing: learn.json -> quant_group with every kernel set -> scale, zero point; observers -> observe_range -> qparams_of, the other road to a scale.
 * Why this way: the vectors are the oracle's; the program's own test (cli/test_cli_scale_rules.py) holds every observer's bytes to the oracle. Here: that
 * nothing is lost between quant_parse and the observers, in memory or cut into spans.
 * Corner cases: groups of zeros, of one value, of one weight; ranges whose scale overflows; slots of the greatest size.
 * Reference: NUMERICS_OBSERVERS.md 10, NUMERICS_LEARNED.md 10.
 */
#include "support/support.h"

#include <math.h>

#include "number/choose.h"
#include "number/half.h"
#include "number/kernel.h"
#include "support/learn_case.h"

static const char *const formats[] = { "int2",  "int3",  "int4",  "int5",  "int6",  "int7",  "int8",
                                       "uint2", "uint3", "uint4", "uint5", "uint6", "uint7", "uint8" };
enum { N_FORMATS = sizeof formats / sizeof formats[0], N = 700 };

static struct quant quant_of(const char *format, enum scale_rule rule, const char *scale)
{
    struct quant quant;
    struct err err;
    const struct quant_params params = { .rule = scale_rule_name(rule), .scale = scale };
    assert_ok(quant_parse(format, &params, &quant, &err));
    return quant;
}

static void test_names(void **state)
{
    (void)state;
    for (int i = 0; i < RULE_COUNT; i++) {
        const enum scale_rule rule = (enum scale_rule)i;
        const struct observer *observer = choose_observer(rule);
        const enum learn_rule learner = choose_learner(rule);
        assert_int_equal(choose_reads(rule), rule > RULE_MINMAX);
        assert_int_equal(choose_reads(rule), (observer != NULL) + (learner != LEARN_RULE_COUNT));
        if (observer) assert_string_equal(observer->name, scale_rule_name(rule));
        if (learner != LEARN_RULE_COUNT) assert_string_equal(learn_rule_name(learner), scale_rule_name(rule));
        assert_int_equal(choose_passes(rule) > 0, choose_reads(rule));
    }
    assert_string_equal(observer_find("minmax")->name, scale_rule_name(RULE_MINMAX));
}

static void test_parameters(void **state)
{
    (void)state;
    size_t largest = 0;
    struct err err;
    for (size_t f = 0; f < N_FORMATS; f++)
        for (int rule = RULE_PERCENTILE; rule <= RULE_KL_J; rule++) {
            const struct quant quant = quant_of(formats[f], (enum scale_rule)rule, "f32");
            const struct observe_params params = choose_observe_params(&quant);
            const size_t nbytes = choose_observer(quant.rule)->size(&params);
            assert_ok(observe_check(choose_observer(quant.rule), &params, &err));
            assert_true(nbytes <= CHOOSE_NBYTES);
            largest = nbytes > largest ? nbytes : largest;
            if (rule == RULE_PERCENTILE) assert_true(params.percentile == 99.99);
            if (rule == RULE_MSE_HIST) assert_int_equal((params.bins - 1 - params.start_bin) % params.stride, 0); /* the last bin is tried */
        }
    assert_true(largest > CHOOSE_NBYTES - 2048);
}

/* ---- learners -------------------------------------------------------------------------------------------------------------------- */

static size_t n_learned;

static void check_learned(const struct learn_case *golden)
{
    const struct learn_params preset = learn_defaults(golden->rule);
    const enum scale_rule rule = scale_rule_find(learn_rule_name(golden->rule));
    if (golden->params.method != preset.method || golden->params.start != preset.start || golden->n == 0 || golden->n > N) return;
    for (size_t f = 0; f < N_FORMATS; f++) {
        struct quant quant = quant_of(formats[f], rule, scale_type_name(golden->params.stored));
        if (quant.elem->code_min != golden->code_min || quant.elem->code_max != golden->code_max) continue;
        quant.rounding = golden->params.rounding;
        for (size_t k = 0; k < kernels_count(); k++) {
            struct group_scale scale;
            struct learned learned = { 0 };
            uint16_t codes[N];
            struct learn_params params = golden->params;
            params.kernels = kernels_at(k);
            learn_group(golden->rule, &params, golden->x, golden->weight, golden->n, golden->code_min, golden->code_max, &learned);
            const bool found = quant_group(&quant, kernels_at(k), golden->x, golden->weight, golden->n, &scale, codes);
            const struct quant absmax = quant_of(formats[f], RULE_ABSMAX, scale_type_name(golden->params.stored));
            struct group_scale start;
            assert_int_equal(found, quant_group(&absmax, kernels_at(k), golden->x, NULL, golden->n, &start, codes));
            if (!found || isinf(learned.scale)) continue; /* refused as by absmax, or its scale */
            learned.scale = scale.value;
            learned.zero = scale.zero;
            learn_case_check(golden, &learned);
            assert_true(scale_load(quant.scale, scale.bits) == scale.value);
        }
        n_learned++;
    }
}

static void test_learned_golden(void **state)
{
    (void)state;
    learn_cases("groups", check_learned);
    assert_true(n_learned > 60);
}

/* ---- observers ------------------------------------------------------------------------------------------------------------------- */

static void fill(uint64_t *seed, int kind, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double sum = 0.0;
        for (int k = 0; k < 4; k++) sum += (double)(int64_t)test_random(seed) / 9.3e18;
        x[i] = (float)(sum * 0.02);
        if (kind == 1 && test_random(seed) % 29 == 0) x[i] *= 20.0f;
        if (kind == 2) x[i] = fabsf(x[i]);
        if (kind == 3) x[i] = 0.75f;
        if (kind == 4) x[i] = 0.0f;
        if (kind == 5) x[i] *= 1e-9f;
    }
}

/* The scale by qparams_of, which shares nothing with the family but the page. */
static void check_observed(const struct quant *quant, const float *x, size_t n)
{
    static uint64_t memory[CHOOSE_NBYTES / 8];
    const struct observe_params params = choose_observe_params(quant);
    struct range range = observe_range(choose_observer(quant->rule), &params, x, n, memory);
    const struct range whole = observe_range(&observer_minmax, &observer_minmax.defaults, x, n, memory);
    if (range_amax(whole) == 0.0f) range = whole;
    const struct qparams_rule rule = { .type = { NULL, quant->elem->code_min, quant->elem->code_max },
                                       .symmetric = !quant->format->zero_point,
                                       .half = quant->int_max ? HALF_RANGE_INT_MAX : HALF_RANGE_HALF,
                                       .scale = quant->scale };
    const struct qparams want = qparams_of(&rule, range.min, range.max);
    for (size_t k = 0; k < kernels_count(); k++) {
        struct group_scale scale;
        uint16_t codes[N];
        assert_true(quant_group(quant, kernels_at(k), x, NULL, n, &scale, codes));
        assert_int_equal(f32_bits(scale.value), f32_bits(want.scale));
        assert_int_equal(scale.zero, (int32_t)want.zero);
        for (size_t i = 0; i < n; i++) {
            const int32_t code = (int32_t)qparams_encode(&rule, &want, x[i], ROUND_NEAREST_EVEN);
            assert_int_equal(codes[i], (uint32_t)code & ((1u << quant->elem->bits) - 1u));
        }
    }
}

static void test_observed(void **state)
{
    (void)state;
    static const char *const scales[] = { "f32", "bf16", "f16" };
    static const size_t sizes[] = { 1, 2, 13, 32, 128 };
    uint64_t seed = 3;
    for (size_t f = 0; f < N_FORMATS; f++)
        for (int rule = RULE_PERCENTILE; rule <= RULE_KL_J; rule++)
            for (int kind = 0; kind < 6; kind++) {
                float x[128];
                struct quant quant = quant_of(formats[f], (enum scale_rule)rule, scales[(kind + rule) % 3]);
                if (kind == 1 && quant.elem->code_min < 0) quant.int_max = true;
                if (rule == RULE_PERCENTILE && kind < 3) quant.percentile = 80.0;
                fill(&seed, kind, x, 128);
                check_observed(&quant, x, sizes[(size_t)(kind + rule) % 5]);
            }
}

/* minmax is absmax; weights of one value are kept by rules that clip nothing of them. */
static void test_minmax(void **state)
{
    (void)state;
    uint64_t seed = 9;
    for (size_t f = 0; f < N_FORMATS; f++)
        for (int kind = 0; kind < 6; kind++) {
            const struct quant minmax = quant_of(formats[f], RULE_MINMAX, "bf16"), absmax = quant_of(formats[f], RULE_ABSMAX, "bf16");
            float x[90];
            struct group_scale a, b;
            uint16_t codes[2][90];
            fill(&seed, kind, x, 90);
            assert_true(quant_group(&minmax, kernels_at(0), x, NULL, 90, &a, codes[0]) &&
                        quant_group(&absmax, kernels_at(0), x, NULL, 90, &b, codes[1]));
            assert_true(a.bits == b.bits && a.zero == b.zero);
            assert_memory_equal(codes[0], codes[1], sizeof codes[0]);
        }
}

/* 3SD and KL-J reach beyond the weights: where that scale overflows, the range's own is taken; where that does too, the group is refused. */
static void test_overflow(void **state)
{
    (void)state;
    const float x[] = { 4e5f, 4e5f, -4e5f, 3.9e5f }, huge[] = { 1e38f, -3e38f };
    struct group_scale scale;
    uint16_t codes[4];
    const struct quant f16 = quant_of("int4", RULE_3SD, "f16"), absmax = quant_of("int4", RULE_ABSMAX, "f16");
    struct group_scale want;
    assert_true(quant_group(&absmax, kernels_at(0), x, NULL, 4, &want, codes));
    assert_true(quant_group(&f16, kernels_at(0), x, NULL, 4, &scale, codes));
    assert_int_equal(scale.bits, want.bits);
    for (int rule = RULE_PERCENTILE; rule < RULE_COUNT; rule++) {
        const struct quant quant = quant_of("int8", (enum scale_rule)rule, "f16");
        if (quant_group(&quant, kernels_at(0), huge, NULL, 2, &scale, codes))
            fail_msg("%s takes %g", scale_rule_name(quant.rule), (double)scale.value);
    }
}

/* ---- cut into spans --------------------------------------------------------------------------------------------------------------- */

static void stream(const struct quant *quant, const float *x, size_t n, size_t span, struct group_scale *scale)
{
    static uint64_t memory[CHOOSE_NBYTES / 8];
    struct choose_stream stream;
    struct range range;
    uint32_t passes = 0;
    kernels_at(0)->ranges(x, n, n, &range);
    choose_stream_begin(&stream, quant, kernels_at(0), memory);
    while (choose_stream_next(&stream)) {
        passes++;
        for (size_t at = 0; at < n; at += span) {
            const size_t count = n - at < span ? n - at : span;
            struct learn_part part = { 0 };
            if (stream.learns) choose_stream_observe(&stream, x + at, NULL, count, &part);
            if (stream.learns) choose_stream_add(&stream, &part);
            else choose_stream_span(&stream, x + at, count);
        }
    }
    assert_in_range(passes, 1, choose_passes(quant->rule));
    assert_true(choose_stream_finish(&stream, range, scale));
}

static double error_under(const struct quant *quant, const float *x, size_t n, const struct group_scale *scale)
{
    double sum = 0.0;
    uint16_t codes[N];
    float y[N];
    const struct groups groups = { n, n, scale };
    kernels_at(0)->encode(quant->elem, quant->rounding, &groups, x, codes, y);
    for (size_t i = 0; i < n; i++) sum += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
    return sum;
}

static void test_spans(void **state)
{
    (void)state;
    uint64_t seed = 17;
    for (size_t f = 0; f < N_FORMATS; f++)
        for (int rule = RULE_PERCENTILE; rule < RULE_COUNT; rule++)
            for (int kind = 0; kind < 6; kind++) {
                const struct quant quant = quant_of(formats[f], (enum scale_rule)rule, "f32"), absmax = quant_of(formats[f], RULE_ABSMAX, "f32");
                float x[N];
                struct group_scale whole, cut;
                uint16_t codes[N];
                fill(&seed, kind, x, N);
                assert_true(quant_group(&quant, kernels_at(0), x, NULL, N, &whole, codes));
                stream(&quant, x, N, kind % 2 ? 64 : 101, &cut);
                assert_int_equal(cut.zero, whole.zero);
                if (choose_observer(quant.rule) || rule == RULE_TQT) assert_true(cut.bits == whole.bits);
                else {
                    assert_true(quant_group(&absmax, kernels_at(0), x, NULL, N, &whole, codes));
                    assert_true(error_under(&quant, x, N, &cut) <= error_under(&quant, x, N, &whole) * (1 + 1e-12));
                }
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),  cmocka_unit_test(test_parameters), cmocka_unit_test(test_learned_golden), cmocka_unit_test(test_observed),
        cmocka_unit_test(test_minmax), cmocka_unit_test(test_overflow),   cmocka_unit_test(test_spans),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
