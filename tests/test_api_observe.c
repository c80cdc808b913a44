/* test_api_observe.c: observers and parameters of ranges through llmq.h: worked examples, golden vectors, life cycle, refusals.
 *
 * Drawing: golden/observers.json: inputs, observations, qparams, grids, blocks.
 * Why this way: ranges, bins and scales are compared as bits with what the oracle wrote.
 * Corner cases: finishes too early, slices beyond the tensor, resets, unknown names, huge grids.
 * Reference: the specification's 5, 8.5, 8.7; NUMERICS_OBSERVERS.md. Worked number: percentile 90 of the page's 12 weights, 8 bins: (0, 1.3).
 */
#include "support/api_support.h"

#include <cjson/cJSON.h>
#include <math.h>

#include "number/half.h"

static const float page[] = { 0.9f, -0.35f, 0.12f, -1.4f, 0.61f, 0.05f, -0.77f, 2.6f, 0.0f, 0.33f, -0.2f, 1.1f };

/* All readings, in slices of 5. */
static void read_all(struct llmq_observer *observer, const float *x, size_t n)
{
    for (int again = 1; again;) {
        for (size_t at = 0; at < n; at += 5) assert_done(llmq_observe(observer, at, x + at, n - at < 5 ? n - at : 5, &error));
        assert_done(llmq_observe_next(observer, &again, &error));
    }
}

static void check(const char *name, const struct llmq_observe_options *options, float min, float max)
{
    struct llmq_observer *observer;
    float got[2];
    assert_done(llmq_observer_open(name, options, NULL, LLMQ_PER_TENSOR, 0, &observer, &error));
    read_all(observer, page, 12);
    assert_done(llmq_observe_finish(observer, &got[0], &got[1], &error));
    if (fabsf(got[0] - min) > 1e-6f || fabsf(got[1] - max) > 1e-6f) fail_msg("%s: %.9g, %.9g", name, (double)got[0], (double)got[1]);
    llmq_observer_close(observer);
}

static void test_worked(void **state)
{
    (void)state;
    struct llmq_observe_options options;
    assert_done(llmq_observe_defaults("PerTensorPercentileObserver", &options, &error));
    options.bins = 8;
    options.percentile = 100;
    check("percentile", &options, 0, 2.275f);
    options.percentile = 90;
    check("percentile", &options, 0, 1.3f);
    options.percentile = 50;
    check("percentile", &options, 0, .325f);
    options.symmetric = 0;
    options.percentile = 99.99999999;
    check("percentile", &options, -1.4f, 2.6f);
    assert_done(llmq_observe_defaults("PerTensorMSEObserver", &options, &error));
    options.bins = 8;
    options.start_bin = 7;
    options.quantiser = (struct llmq_qparams_rule){ .type = "int4", .symmetric = 1 };
    check("PerTensorMSEObserver", &options, 0, 2.4375f);
    options.start_bin = 0;
    check("mse-hist", &options, 0, 2.1125f);
    options.quantiser.type = "fp8_e4m3";
    check("mse-hist", &options, 0, 2.4375f);
    assert_done(llmq_observe_defaults("histogram-pro", &options, &error));
    options.bins = 8;
    check("PerTensorHistogramObserverPro", &options, -1.4f, 2.1f);
    check("PerTensorMinMaxObserver", NULL, -1.4f, 2.6f);
}

static void test_histogram(void **state)
{
    (void)state;
    const uint64_t symmetric[8] = { 4, 3, 2, 1, 1, 0, 0, 1 }, both[8] = { 1, 1, 4, 2, 2, 1, 0, 1 };
    struct llmq_observe_options options;
    assert_done(llmq_observe_defaults("histogram", &options, &error));
    options.bins = 8;
    for (options.symmetric = 0; options.symmetric < 2; options.symmetric++) {
        struct llmq_observer *observer;
        uint64_t counts[8];
        uint32_t bins;
        float edges[9];
        assert_done(llmq_observer_open("PerTensorHistogramObserver", &options, NULL, LLMQ_PER_TENSOR, 0, &observer, &error));
        assert_denied(llmq_observe_histogram(observer, 0, &bins, counts, edges, &error), LLMQ_ERR_USAGE, "wants 2 readings");
        read_all(observer, page, 12);
        assert_done(llmq_observe_histogram(observer, 0, &bins, counts, edges, &error));
        assert_int_equal(bins, 8);
        assert_memory_equal(counts, options.symmetric ? symmetric : both, sizeof counts);
        assert_true(edges[0] == (options.symmetric ? 0.0f : -1.4f) && edges[8] == 2.6f);
        assert_denied(llmq_observe_histogram(observer, 1, &bins, counts, edges, &error), LLMQ_ERR_USAGE, "no slot number 1");
        llmq_observer_close(observer);
    }
}

static void check_params(const char *type, int symmetric, const char *zero, float scale, double point)
{
    const struct llmq_qparams_rule rule = { .type = type, .symmetric = symmetric, .zero = zero };
    struct llmq_qparams got;
    assert_done(llmq_calculate_qparams(&rule, -1.4f, 2.6f, &got, &error));
    if (fabsf(got.scale - scale) > 1e-7f || fabs(got.zero - point) > 1e-6) fail_msg("%s: %.9g, %.9g", type, (double)got.scale, got.zero);
}

static void test_qparams(void **state)
{
    (void)state;
    check_params("int8", 1, NULL, 0.0203921561f, 0);
    check_params("int4", 1, NULL, 0.346666654f, 0);
    check_params("uint4", 0, NULL, 0.266666681f, 5);
    check_params("int4", 0, NULL, 0.266666681f, -3);
    check_params("uint8", 0, NULL, 0.015686275f, 89);
    check_params("uint4", 0, "float", 0.266666681f, 5.2499995);
    check_params("fp8_e4m3", 1, NULL, .005803571f, 0);
    check_params("fp4", 1, NULL, .4333333f, 0);
    struct llmq_qparams_rule rule = { .type = "uint4" };
    struct llmq_qparams got;
    double codes[8];
    const double want[8] = { 8, 4, 5, 0, 7, 5, 2, 15 }, real[8] = { 9, 4, 6, 0, 8, 5, 2, 15 };
    float x[8];
    assert_done(llmq_calculate_qparams(&rule, -1.4f, 2.6f, &got, &error));
    assert_done(llmq_qparams_encode(&rule, &got, NULL, page, 8, codes, &error));
    assert_memory_equal(codes, want, sizeof want);
    assert_done(llmq_qparams_decode(&rule, &got, codes, 8, x, &error));
    assert_true(x[0] == 3 * got.scale);
    rule.zero = "float";
    assert_done(llmq_calculate_qparams(&rule, -1.4f, 2.6f, &got, &error));
    assert_done(llmq_qparams_encode(&rule, &got, NULL, page, 8, codes, &error));
    assert_memory_equal(codes, real, sizeof real);
    assert_done(llmq_calculate_qparams(&rule, INFINITY, -INFINITY, &got, &error));
    assert_true(got.scale == 1 && got.zero == 0);
}

static void test_blocks(void **state)
{
    (void)state;
    const float mx[] = { .25f, .5f, .25f }, bfp[] = { 0x1p-6f, 0x1p-5f, 0x1p-6f };
    for (size_t k = 0; k < 3; k++) {
        float min = 0, max = 0, scale;
        uint32_t byte;
        for (size_t i = 4 * k; i < 4 * k + 4; i++) {
            min = fminf(min, page[i]);
            max = fmaxf(max, page[i]);
        }
        assert_done(llmq_mx_block_scale("fp4", "floor", min, max, &byte, &scale, &error));
        assert_true(scale == mx[k] && ldexpf(1, (int)byte - 127) == scale);
        assert_done(llmq_bfp_block_scale(min, max, &byte, &scale, &error));
        assert_true(scale == bfp[k]);
        assert_done(llmq_prime_block_scale(min, max, &byte, &scale, &error));
        assert_true(ldexpf(1, (int)byte - 127) == scale);
    }
    static const struct {
        float amax, floor, ceil, even;
    } modes[] = { { 4, 1, 1, 1 }, { 5, 1, 2, 1 },    { 6, 1, 2, 1 },        { 6.9999f, 1, 2, 1 },
                  { 7, 1, 2, 2 }, { 7.9f, 1, 2, 2 }, { 3.4f, .5f, 1, .5f }, { 3.5f, .5f, 1, 1 } };
    for (size_t k = 0; k < sizeof modes / sizeof modes[0]; k++) {
        float scale;
        assert_done(llmq_mx_block_scale("e2m1", "floor", -modes[k].amax, 0, NULL, &scale, &error));
        assert_true(scale == modes[k].floor);
        assert_done(llmq_mx_block_scale("fp4", "ceil", 0, modes[k].amax, NULL, &scale, &error));
        assert_true(scale == modes[k].ceil);
        assert_done(llmq_mx_block_scale("fp4_e2m1", "even", 0, modes[k].amax, NULL, &scale, &error));
        assert_true(scale == modes[k].even);
    }
    assert_denied(llmq_mx_block_scale("int4", "floor", 0, 1, NULL, NULL, &error), LLMQ_ERR_USAGE, "no MX format");
    assert_denied(llmq_mx_block_scale("fp4", "absmax", 0, 1, NULL, NULL, &error), LLMQ_ERR_USAGE, "none of floor");
    assert_denied(llmq_bfp_block_scale(0, INFINITY, NULL, NULL, &error), LLMQ_ERR_USAGE, "no finite range");
}

/* ---- golden vectors -------------------------------------------------------------------------------------------------------------- */

static const cJSON *member(const cJSON *item, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(item, name);
}

static const char *text_of(const cJSON *item, const char *name)
{
    return cJSON_GetStringValue(member(item, name));
}

static float number_at(const char *hex, size_t index)
{
    char digits[9] = { 0 };
    memcpy(digits, hex + 8 * index, 8);
    return f32_from_bits((uint32_t)strtoul(digits, NULL, 16));
}

static float *input_of(const cJSON *root, const char *name, size_t *n)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, member(root, "inputs")) if (strcmp(text_of(item, "name"), name) == 0)
    {
        *n = strlen(text_of(item, "x")) / 8;
        float *x = malloc((*n + 1) * sizeof *x);
        for (size_t i = 0; i < *n; i++) x[i] = number_at(text_of(item, "x"), i);
        return x;
    }
    fail_msg("no input '%s'", name);
    return NULL;
}

static struct llmq_qparams_rule rule_of(const cJSON *item)
{
    return (struct llmq_qparams_rule){ .type = text_of(item, "type"),
                                       .symmetric = cJSON_IsTrue(member(item, "symmetric")),
                                       .reduce_range = cJSON_IsTrue(member(item, "reduce_range")),
                                       .zero = text_of(item, "zero"),
                                       .half_range = text_of(item, "half"),
                                       .scale = text_of(item, "scale") };
}

static void set_number(const cJSON *item, const char *name, uint32_t *out)
{
    if (cJSON_IsNumber(member(item, name))) *out = (uint32_t)member(item, name)->valueint;
}

static void check_observation(const cJSON *root, const cJSON *item)
{
    struct llmq_observe_options options;
    struct llmq_observer *observer;
    size_t n;
    float *x = input_of(root, text_of(item, "input"), &n), min, max;
    assert_done(llmq_observe_defaults(text_of(item, "observer"), &options, &error));
    if (member(item, "symmetric")) options.symmetric = cJSON_IsTrue(member(item, "symmetric"));
    if (member(item, "percentile")) options.percentile = member(item, "percentile")->valuedouble;
    if (member(item, "quantiser")) options.quantiser = rule_of(member(item, "quantiser"));
    set_number(item, "bins", &options.bins);
    set_number(item, "start_bin", &options.start_bin);
    set_number(item, "stride", &options.stride);
    set_number(item, "bits", &options.bits);
    assert_done(llmq_observer_open(text_of(item, "observer"), &options, NULL, LLMQ_PER_TENSOR, 0, &observer, &error));
    read_all(observer, page, 12); /* forgotten again */
    assert_done(llmq_observe_reset(observer, &error));
    read_all(observer, x, n);
    assert_done(llmq_observe_finish(observer, &min, &max, &error));
    if (min != number_at(text_of(item, "min"), 0) || f32_bits(max) != f32_bits(number_at(text_of(item, "max"), 0))) /* -0 == 0 */
        fail_msg("%s of %s: %.9g, %.9g", text_of(item, "observer"), text_of(item, "input"), (double)min, (double)max);
    llmq_observer_close(observer);
    free(x);
}

static void check_grid(const cJSON *root, const cJSON *item)
{
    uint64_t dims[8];
    uint32_t rank = 0;
    const cJSON *dim;
    size_t n;
    uint64_t weights = 1;
    float *x = input_of(root, "normal", &n);
    cJSON_ArrayForEach(dim, member(item, "shape")) weights *= dims[rank++] = (uint64_t)dim->valueint;
    const struct llmq_view view = { dims, rank, member(item, "axis")->valueint };
    const enum llmq_granularity granularity = strcmp(text_of(item, "granularity"), "channel") == 0 ? LLMQ_PER_CHANNEL : LLMQ_PER_GROUP;
    struct llmq_observer *observer;
    assert_done(llmq_observer_open("minmax", NULL, &view, granularity, member(item, "group")->valueint, &observer, &error));
    const uint64_t slots = llmq_observer_slots(observer);
    float *min = malloc((size_t)(slots + 1) * sizeof *min), *max = malloc((size_t)(slots + 1) * sizeof *max);
    read_all(observer, x, (size_t)weights);
    assert_done(llmq_observe_finish(observer, min, max, &error));
    assert_int_equal(slots, strlen(text_of(item, "min")) / 8);
    for (size_t i = 0; i < slots; i++) {
        assert_int_equal(f32_bits(min[i]), f32_bits(number_at(text_of(item, "min"), i)));
        assert_int_equal(f32_bits(max[i]), f32_bits(number_at(text_of(item, "max"), i)));
    }
    llmq_observer_close(observer);
    free(min);
    free(max);
    free(x);
}

static void check_rule(const cJSON *item)
{
    const struct llmq_qparams_rule rule = rule_of(item);
    const float min = number_at(text_of(item, "min"), 0), max = number_at(text_of(item, "max"), 0), scale = number_at(text_of(item, "s"), 0);
    struct llmq_qparams got;
    const enum llmq_status status = llmq_calculate_qparams(&rule, min, max, &got, &error);
    if (!isfinite(scale)) {
        assert_int_equal(status, LLMQ_ERR_DATA);
        return;
    }
    assert_done(status);
    if (f32_bits(got.scale) != f32_bits(scale)) fail_msg("%s: %.9g", rule.type, (double)got.scale);
    if (member(item, "z")) assert_true(got.zero == member(item, "z")->valuedouble);
    if (!member(item, "x")) return;
    for (size_t i = 0; i < strlen(text_of(item, "x")) / 8; i++) {
        const float x = number_at(text_of(item, "x"), i);
        double code;
        float y;
        assert_done(llmq_qparams_encode(&rule, &got, NULL, &x, 1, &code, &error));
        assert_done(llmq_qparams_decode(&rule, &got, &code, 1, &y, &error));
        assert_int_equal(f32_bits(y + 0.0f), f32_bits(number_at(text_of(item, "y"), i)));
    }
}

static void test_golden(void **state)
{
    (void)state;
    char *text = read_file(tests_path("golden/observers.json"), NULL);
    cJSON *root = cJSON_Parse(text);
    const cJSON *item;
    size_t n = 0;
    cJSON_ArrayForEach(item, member(root, "observations"))
    {
        check_observation(root, item);
        n++;
    }
    assert_true(n > 1000);
    cJSON_ArrayForEach(item, member(root, "qparams")) check_rule(item);
    cJSON_ArrayForEach(item, member(root, "grids")) check_grid(root, item);
    cJSON_Delete(root);
    free(text);
}

/* ---- table and refusals ---------------------------------------------------------------------------------------------------------- */

static void test_table(void **state)
{
    (void)state;
    static const char *const classes[] = { "PlaceholderObserver",    "PerTensorMinMaxObserver",       "PerChannelMinMaxObserver",
                                           "PerGroupMinMaxObserver", "PerTensorHistogramObserver",    "PerTensorPercentileObserver",
                                           "PerTensorMSEObserver",   "PerTensorHistogramObserverPro", "PerBlockMXObserver",
                                           "PerBlockBFPObserver" };
    struct llmq_observer_info info;
    for (size_t i = 0; i < llmq_observer_count(); i++) {
        struct llmq_observe_options options;
        assert_done(llmq_observer_describe(i, &info, &error));
        assert_non_null(info.summary);
        assert_done(llmq_observe_defaults(info.name, &options, &error));
    }
    assert_denied(llmq_observer_describe(llmq_observer_count(), &info, &error), LLMQ_ERR_USAGE, "no observer number");
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
        struct llmq_observer *observer;
        assert_done(llmq_observer_open(classes[i], NULL, NULL, LLMQ_PER_TENSOR, 0, &observer, &error));
        llmq_observer_close(observer);
    }
}

static void test_denied(void **state)
{
    (void)state;
    struct llmq_observer *observer;
    struct llmq_observe_options options = { .bins = 0 };
    const struct llmq_view view = { DIMS(3, 4), 2, 1 }, far = { DIMS(3, 4), 2, 2 }, huge = { DIMS(1ull << 40, 1ull << 40), 2, 0 };
    float min, max;
    int again;
    assert_denied(llmq_observer_open("nothing", NULL, NULL, LLMQ_PER_TENSOR, 0, &observer, &error), LLMQ_ERR_USAGE, "no observer 'nothing'");
    assert_null(observer);
    assert_denied(llmq_observer_open("minmax", NULL, NULL, LLMQ_PER_GROUP, 4, &observer, &error), LLMQ_ERR_USAGE, "view is NULL");
    assert_denied(llmq_observer_open("minmax", NULL, &far, LLMQ_PER_GROUP, 4, &observer, &error), LLMQ_ERR_USAGE, "axis 2");
    assert_denied(llmq_observer_open("minmax", NULL, &view, LLMQ_PER_GROUP, 0, &observer, &error), LLMQ_ERR_USAGE, "group size 0");
    assert_denied(llmq_observer_open("minmax", NULL, &view, (enum llmq_granularity)3, 4, &observer, &error), LLMQ_ERR_USAGE, "granularity 3");
    assert_denied(llmq_observer_open("minmax", NULL, &huge, LLMQ_PER_GROUP, 4, &observer, &error), LLMQ_ERR_DATA, "2^64");
    assert_denied(llmq_observer_open("histogram", &options, NULL, LLMQ_PER_TENSOR, 0, &observer, &error), LLMQ_ERR_USAGE, "0 bins");
    assert_denied(llmq_observe_defaults(NULL, &options, &error), LLMQ_ERR_USAGE, "no observer");
    assert_done(llmq_observer_open("percentile", NULL, &view, LLMQ_PER_CHANNEL, 0, &observer, &error));
    assert_int_equal(llmq_observer_slots(observer), 4);
    assert_denied(llmq_observe(observer, 1, page, 12, &error), LLMQ_ERR_USAGE, "reach beyond the 12");
    assert_denied(llmq_observe(observer, 13, page, 0, &error), LLMQ_ERR_USAGE, "reach beyond");
    assert_denied(llmq_observe(observer, 0, NULL, 1, &error), LLMQ_ERR_USAGE, "x is NULL");
    assert_denied(llmq_observe_finish(observer, &min, &max, &error), LLMQ_ERR_USAGE, "wants 2 readings, this is number 1");
    assert_denied(llmq_observe_next(observer, NULL, &error), LLMQ_ERR_USAGE, "again is NULL");
    assert_done(llmq_observe_next(observer, &again, &error));
    assert_int_equal(again, 1);
    llmq_observer_close(observer);
    llmq_observer_close(NULL);
    assert_int_equal(llmq_observer_slots(NULL), 0);
    struct llmq_qparams params = { 1, 0 };
    double code = 16;
    const struct llmq_qparams_rule rule = { .type = "uint4" }, unknown = { .type = "int99" }, half = { .type = "int4", .half_range = "x" };
    const struct llmq_qparams_rule zero = { .type = "int4", .zero = "x" }, scale = { .type = "int4", .scale = "x" }, wide = { .type = "int2" };
    assert_denied(llmq_calculate_qparams(&unknown, 0, 1, &params, &error), LLMQ_ERR_USAGE, "type 'int99'");
    assert_denied(llmq_calculate_qparams(&half, 0, 1, &params, &error), LLMQ_ERR_USAGE, "half range 'x'");
    assert_denied(llmq_calculate_qparams(&zero, 0, 1, &params, &error), LLMQ_ERR_USAGE, "zero 'x'");
    assert_denied(llmq_calculate_qparams(&scale, 0, 1, &params, &error), LLMQ_ERR_USAGE, "scale 'x'");
    assert_denied(llmq_calculate_qparams(&rule, NAN, 1, &params, &error), LLMQ_ERR_USAGE, "NaN");
    assert_denied(llmq_calculate_qparams(&wide, -3e38f, 3e38f, &params, &error), LLMQ_ERR_DATA, "too wide");
    assert_denied(llmq_qparams_decode(&rule, &params, &code, 1, &min, &error), LLMQ_ERR_DATA, "code number 0, 16,");
    assert_denied(llmq_qparams_encode(&rule, &(struct llmq_qparams){ 0, 0 }, NULL, page, 1, &code, &error), LLMQ_ERR_USAGE, "positive and finite");
    assert_denied(llmq_qparams_encode(&rule, &(struct llmq_qparams){ 1, 16 }, NULL, page, 1, &code, &error), LLMQ_ERR_USAGE, "the zero point, 16");
    assert_denied(llmq_qparams_encode(&rule, &(struct llmq_qparams){ 1, .5 }, NULL, page, 1, &code, &error), LLMQ_ERR_USAGE, "no integer");
    assert_denied(llmq_qparams_encode(&rule, &params, NULL, &(float){ NAN }, 1, &code, &error), LLMQ_ERR_DATA, "NaN or Inf");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worked), cmocka_unit_test(test_histogram), cmocka_unit_test(test_qparams), cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_golden), cmocka_unit_test(test_table),     cmocka_unit_test(test_denied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
