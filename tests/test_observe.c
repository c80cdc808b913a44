/* test_observe.c: every observer against the oracle's vectors, for every cut into slices, and the worked numbers of the page.
 *
 * Drawing: golden/observers.json (tests/oracle_observers.py): inputs, observations, grids, blocks; LLMQ_OBSERVERS names another file of that kind.
 * Why this way: ranges, bins and counts are compared as bits; each observation is made whole, in random slices, weight by weight, after a reset with
 * other data, and by observe_range.
 * Corner cases: no weights, one, zeros, -0, subnormals, the largest numbers, NaN and Inf, constants, one bin.
 * Reference: NUMERICS_OBSERVERS.md.
 */
#include "support/support.h"

#include <cjson/cJSON.h>
#include <math.h>

#include "number/half.h"
#include "number/observe.h"

static uint32_t hex_number(const char *text, size_t index)
{
    char digits[9] = { 0 };
    memcpy(digits, text + 8 * index, 8);
    return (uint32_t)strtoul(digits, NULL, 16);
}

static const cJSON *member(const cJSON *item, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(item, name);
}

static const char *text_of(const cJSON *item, const char *name)
{
    const cJSON *value = member(item, name);
    if (!cJSON_IsString(value)) fail_msg("no text '%s'", name);
    return value->valuestring;
}

static void read_number(const cJSON *item, const char *name, uint32_t *out)
{
    if (cJSON_IsNumber(member(item, name))) *out = (uint32_t)member(item, name)->valueint;
}

static cJSON *parse_vectors(void)
{
    const char *other = getenv("LLMQ_OBSERVERS");
    char *text = read_file(other ? other : tests_path("golden/observers.json"), NULL);
    cJSON *root = cJSON_Parse(text);
    assert_non_null(root);
    free(text);
    return root;
}

/* ---- inputs --------------------------------------------------------------------------------------------------------------------- */

struct input {
    float *x; /* exactly n, so that a sanitizer sees one too many */
    size_t n;
};

static struct input find_input(const cJSON *root, const char *name)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, member(root, "inputs")) if (strcmp(text_of(item, "name"), name) == 0)
    {
        const char *text = text_of(item, "x");
        struct input input = { NULL, strlen(text) / 8 };
        input.x = malloc(input.n ? input.n * sizeof *input.x : 1);
        assert_non_null(input.x);
        for (size_t i = 0; i < input.n; i++) input.x[i] = f32_from_bits(hex_number(text, i));
        return input;
    }
    fail_msg("no input '%s'", name);
    return (struct input){ 0 };
}

static void read_rule(const cJSON *item, struct qparams_rule *rule)
{
    static const char *const zeros[QPARAMS_ZERO_COUNT] = { "none", "int", "float", "middle" };
    assert_true(qparams_type_find(text_of(item, "type"), &rule->type));
    rule->symmetric = cJSON_IsTrue(member(item, "symmetric"));
    rule->reduce_range = cJSON_IsTrue(member(item, "reduce_range"));
    rule->half = strcmp(text_of(item, "half"), "half") == 0 ? HALF_RANGE_HALF : HALF_RANGE_INT_MAX;
    rule->scale = scale_type_find(text_of(item, "scale"));
    for (int i = 0; i < QPARAMS_ZERO_COUNT; i++)
        if (strcmp(zeros[i], text_of(item, "zero")) == 0) rule->zero = (enum qparams_zero)i;
}

static struct observe_params read_params(const cJSON *item, const struct observer *observer)
{
    struct observe_params params = observer->defaults;
    if (member(item, "symmetric")) params.symmetric = cJSON_IsTrue(member(item, "symmetric"));
    if (member(item, "percentile")) params.percentile = member(item, "percentile")->valuedouble;
    if (member(item, "quantiser")) read_rule(member(item, "quantiser"), &params.quantiser);
    read_number(item, "bins", &params.bins);
    read_number(item, "start_bin", &params.start_bin);
    read_number(item, "stride", &params.stride);
    read_number(item, "bits", &params.bits);
    return params;
}

/* ---- observations --------------------------------------------------------------------------------------------------------------- */

struct job {
    const struct observer *observer;
    const struct observe_params *params;
    const struct observe_grid *grid; /* or NULL */
    struct input input;
};

/* Slices of 1 .. most weights; each is copied to memory of its own size. */
static void feed(struct observe *observe, const struct input *input, size_t most, uint64_t *seed)
{
    for (size_t at = 0, n; at < input->n; at += n) {
        n = (size_t)(test_random(seed) >> 33) % most + 1;
        n = n < input->n - at ? n : input->n - at;
        float *slice = malloc(n * sizeof *slice);
        assert_non_null(slice);
        memcpy(slice, input->x + at, n * sizeof *slice);
        observe_span(observe, at, slice, n);
        free(slice);
    }
    observe_span(observe, input->n, input->x, 0);
}

static void run(struct observe *observe, const struct input *input, size_t most, uint64_t *seed, struct observed *out)
{
    do feed(observe, input, most, seed);
    while (observe_next(observe));
    observe_finish(observe, out);
}

static void *new_slots(const struct job *job, size_t *nbytes)
{
    assert_true(observe_size(job->observer, job->params, job->grid, nbytes));
    assert_int_equal(job->observer->size(job->params) % 8, 0);
    void *memory = malloc(*nbytes ? *nbytes : 1);
    assert_non_null(memory);
    memset(memory, 0xA5, *nbytes);
    return memory;
}

static void check_pair(const char *what, struct observed got, uint32_t min, uint32_t max)
{
    if (f32_bits(got.min + 0.0f) != min || f32_bits(got.max + 0.0f) != max)
        fail_msg("%s: (%.9g, %.9g) = %08x %08x, not (%.9g, %.9g) = %08x %08x", what, (double)got.min, (double)got.max, f32_bits(got.min + 0.0f),
                 f32_bits(got.max + 0.0f), (double)f32_from_bits(min), (double)f32_from_bits(max), min, max);
}

static void check_edges(const char *what, const struct histogram *histogram, const cJSON *edges)
{
    const cJSON *row;
    cJSON_ArrayForEach(row, edges)
    {
        const uint32_t i = (uint32_t)cJSON_GetArrayItem(row, 0)->valueint;
        const float got[] = { histogram_edge(histogram, i), histogram_centre(histogram, i), histogram_edge(histogram, i + 1) };
        for (int k = 0; k < 3; k++)
            if (f32_bits(got[k] + 0.0f) != hex_number(cJSON_GetArrayItem(row, k + 1)->valuestring, 0))
                fail_msg("%s: edge or centre %d of bin %u is %.9g", what, k, i, (double)got[k]);
    }
}

static void check_histogram(const char *what, const struct histogram *histogram, const cJSON *item)
{
    uint64_t total = 0, want = 0;
    const cJSON *pair;
    assert_non_null(histogram);
    assert_int_equal(f32_bits(histogram->lo), hex_number(text_of(item, "lo"), 0));
    assert_int_equal(f32_bits(histogram->hi), hex_number(text_of(item, "hi"), 0));
    assert_int_equal(histogram->extremes.dropped, member(item, "dropped")->valueint);
    cJSON_ArrayForEach(pair, member(item, "counts"))
    {
        const int i = cJSON_GetArrayItem(pair, 0)->valueint, count = cJSON_GetArrayItem(pair, 1)->valueint;
        if (histogram->counts[i] != (uint64_t)count) fail_msg("%s: bin %d has %d, not %d", what, i, (int)histogram->counts[i], count);
        want += (uint64_t)count;
    }
    for (uint32_t i = 0; i < histogram->bins; i++) total += histogram->counts[i];
    assert_int_equal(total, want);
    assert_int_equal(histogram->total, want);
    check_edges(what, histogram, member(item, "edges"));
}

static void run_job(const char *what, const struct job *job, const cJSON *item, uint64_t *seed)
{
    static const size_t cuts[] = { SIZE_MAX, 100, 9, 1 };
    const float other[] = { -7.0f, 3.0f, 0.5f };
    const uint32_t min = hex_number(text_of(item, "min"), 0), max = hex_number(text_of(item, "max"), 0);
    struct err err;
    struct observe observe;
    struct observed got, again;
    size_t nbytes;
    void *memory = new_slots(job, &nbytes);
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        assert_ok(observe_init(&observe, job->observer, job->params, NULL, memory, &err));
        run(&observe, &job->input, cuts[i], seed, &got);
        check_pair(what, got, min, max);
        if (member(item, "counts")) check_histogram(what, observe_histogram(&observe, 0), item);
        observe_finish(&observe, &again);
        check_pair(what, again, min, max);
        observe_reset(&observe);
        do observe_span(&observe, 0, other, 3);
        while (observe_next(&observe));
        observe_finish(&observe, &again);
        observe_reset(&observe);
        run(&observe, &job->input, cuts[i], seed, &again);
        check_pair(what, again, min, max);
    }
    const struct range range = observe_range(job->observer, job->params, job->input.x, job->input.n, memory);
    const struct range want = observed_range((struct observed){ f32_from_bits(min), f32_from_bits(max) });
    check_pair(what, (struct observed){ range.min, range.max }, f32_bits(want.min + 0.0f), f32_bits(want.max + 0.0f));
    free(memory);
}

static void test_observations(void **state)
{
    (void)state;
    cJSON *root = parse_vectors();
    const cJSON *item;
    uint64_t seed = 7;
    size_t n = 0, seen = 0;
    cJSON_ArrayForEach(item, member(root, "observations"))
    {
        const struct observer *observer = observer_find(text_of(item, "observer"));
        assert_non_null(observer);
        const struct observe_params params = read_params(item, observer);
        const struct job job = { observer, &params, NULL, find_input(root, text_of(item, "input")) };
        char *what = cJSON_PrintUnformatted(item);
        if (strlen(what) > 300) what[300] = '\0';
        run_job(what, &job, item, &seed);
        cJSON_free(what);
        free(job.input.x);
        for (size_t i = 0; i < observer_count(); i++) seen |= observer_at(i) == observer ? (size_t)1 << i : 0;
        n++;
    }
    cJSON_Delete(root);
    printf("%zu observations\n", n);
    assert_true(n > 1000);
    for (size_t i = 0; i < observer_count(); i++)
        if (strncmp(observer_at(i)->name, "block-", 6) != 0 && !(seen >> i & 1)) fail_msg("no vectors for observer %s", observer_at(i)->name);
}

/* ---- grids ---------------------------------------------------------------------------------------------------------------------- */

static void check_grid(const struct job *job, const char *min, const char *max, uint64_t *seed)
{
    static const size_t cuts[] = { SIZE_MAX, 17, 3, 1 };
    struct err err;
    struct observe observe;
    size_t nbytes;
    void *memory = new_slots(job, &nbytes);
    struct observed *got = malloc((size_t)job->grid->slots * sizeof *got);
    assert_non_null(got);
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        assert_ok(observe_init(&observe, job->observer, job->params, job->grid, memory, &err));
        run(&observe, &job->input, cuts[i], seed, got);
        for (size_t k = 0; k < job->grid->slots; k++) {
            if (min) assert_int_equal(f32_bits(got[k].min), hex_number(min, k));
            assert_int_equal(f32_bits(got[k].max), hex_number(max, k));
        }
    }
    free(got);
    free(memory);
}

static void test_grids(void **state)
{
    (void)state;
    cJSON *root = parse_vectors();
    struct input input = find_input(root, "normal");
    const cJSON *item, *dim;
    struct err err;
    uint64_t seed = 3;
    input.n = 60;
    cJSON_ArrayForEach(item, member(root, "grids"))
    {
        struct observe_grid grid;
        uint64_t shape[4];
        uint32_t rank = 0;
        const enum granularity granularity = strcmp(text_of(item, "granularity"), "channel") == 0 ? PER_CHANNEL : PER_GROUP;
        cJSON_ArrayForEach(dim, member(item, "shape")) shape[rank++] = (uint64_t)dim->valueint;
        assert_ok(observe_grid_of(shape, rank, member(item, "axis")->valueint, granularity, member(item, "group")->valueint, &grid, &err));
        assert_int_equal(grid.slots, strlen(text_of(item, "min")) / 8);
        const struct job minmax = { &observer_minmax, &observer_minmax.defaults, &grid, input };
        const struct job sd = { &observer_3sd, &observer_3sd.defaults, &grid, input };
        check_grid(&minmax, text_of(item, "min"), text_of(item, "max"), &seed);
        check_grid(&sd, NULL, text_of(item, "sd"), &seed);
    }
    free(input.x);
    cJSON_Delete(root);
}

/* Two-pass observers in groups give what observe_range gives for each group. */
static void test_groups_alone(void **state)
{
    (void)state;
    cJSON *root = parse_vectors();
    const struct input input = find_input(root, "outliers");
    const uint64_t shape[] = { 4, 64 };
    struct observe_grid grid;
    struct observe observe;
    struct err err;
    assert_ok(observe_grid_of(shape, 2, 1, PER_GROUP, 24, &grid, &err));
    assert_int_equal(grid.slots, 12);
    for (size_t i = 0; i < observer_count(); i++) {
        const struct observer *observer = observer_at(i);
        struct observe_params params = observer->defaults;
        params.bins = params.bins ? 32 : 0;
        params.start_bin = 2;
        params.bits = 2;
        const struct job job = { observer, &params, &grid, input };
        struct observed got[12];
        size_t nbytes;
        void *memory = new_slots(&job, &nbytes), *one = malloc(nbytes ? nbytes : 1);
        uint64_t seed = 11;
        assert_non_null(one);
        assert_ok(observe_init(&observe, observer, &params, &grid, memory, &err));
        run(&observe, &input, 50, &seed, got);
        for (size_t k = 0; k < 12; k++) {
            const size_t first = k / 3 * 64 + k % 3 * 24, n = k % 3 == 2 ? 16 : 24;
            const struct range want = observe_range(observer, &params, input.x + first, n, one), range = observed_range(got[k]);
            assert_int_equal(f32_bits(range.min), f32_bits(want.min));
            assert_int_equal(f32_bits(range.max), f32_bits(want.max));
        }
        free(one);
        free(memory);
    }
    free(input.x);
    cJSON_Delete(root);
}

static void test_grid_refusals(void **state)
{
    (void)state;
    static const uint64_t shape[] = { 3, 8 }, huge[] = { UINT64_C(1) << 33, UINT64_C(1) << 33 }, none[] = { 0, 8 };
    struct observe_grid grid;
    struct err err;
    assert_refused(observe_grid_of(shape, 2, 2, PER_CHANNEL, 0, &grid, &err), ERR_USAGE, "axis 2");
    assert_refused(observe_grid_of(shape, 2, -3, PER_CHANNEL, 0, &grid, &err), ERR_USAGE, "axis -3");
    assert_refused(observe_grid_of(shape, 2, 1, PER_GROUP, 0, &grid, &err), ERR_USAGE, "group size 0");
    assert_refused(observe_grid_of(shape, 2, 1, PER_GROUP, -2, &grid, &err), ERR_USAGE, "group size -2");
    assert_refused(observe_grid_of(huge, 2, 1, PER_GROUP, 1, &grid, &err), ERR_DATA, "2^64");
    assert_ok(observe_grid_of(none, 2, 1, PER_GROUP, 4, &grid, &err));
    assert_int_equal(grid.slots, 0);
    assert_ok(observe_grid_of(shape, 2, 1, PER_GROUP, -1, &grid, &err));
    assert_int_equal(grid.slots, 3);
    assert_ok(observe_grid_of(shape, 2, 0, PER_TENSOR, 0, &grid, &err));
    assert_int_equal(grid.slots, 1);
    size_t nbytes;
    grid.slots = UINT64_MAX / 2;
    assert_false(observe_size(&observer_minmax, &observer_minmax.defaults, &grid, &nbytes));
}

static void test_parameter_refusals(void **state)
{
    (void)state;
    struct err err;
    struct observe_params params = observer_percentile.defaults;
    params.percentile = 100.5;
    assert_refused(observe_check(&observer_percentile, &params, &err), ERR_USAGE, "percentile 100.5");
    params.percentile = (double)NAN;
    assert_refused(observe_check(&observer_percentile, &params, &err), ERR_USAGE, "percentile");
    assert_ok(observe_check(&observer_minmax, &params, &err));
    params = observer_mse.defaults;
    params.stride = 0;
    assert_refused(observe_check(&observer_mse, &params, &err), ERR_USAGE, "stride");
    params = observer_mse.defaults;
    params.bins = 0;
    assert_refused(observe_check(&observer_mse, &params, &err), ERR_USAGE, "bins");
    params.bins = BINS_MAX + 1;
    assert_refused(observe_check(&observer_mse, &params, &err), ERR_USAGE, "bins");
    params = observer_mse.defaults;
    params.quantiser.type = (struct qparams_type){ 0 };
    assert_refused(observe_check(&observer_mse, &params, &err), ERR_USAGE, "type");
    params = observer_kl_j.defaults;
    params.bits = 1;
    assert_refused(observe_check(&observer_kl_j, &params, &err), ERR_USAGE, "bits");
    for (size_t i = 0; i < observer_count(); i++) assert_ok(observe_check(observer_at(i), &observer_at(i)->defaults, &err));
}

static void test_names(void **state)
{
    (void)state;
    static const struct {
        const char *name, *row;
    } names[] = {
        { "PerTensorMinMaxObserver", "minmax" },
        { "PerChannelMinMaxObserver", "minmax" },
        { "PerGroupMinMaxObserver", "minmax" },
        { "PerTensorPercentileObserver", "percentile" },
        { "PerTensorMSEObserver", "mse-hist" },
        { "PerTensorHistogramObserver", "histogram" },
        { "PerTensorHistogramObserverPro", "histogram-pro" },
        { "PerBlockMXObserver", "block-mx" },
        { "PerBlockBFPObserver", "block-bfp" },
        { "PlaceholderObserver", "placeholder" },
        { "3sd", "3sd" },
        { "kl-j", "kl-j" },
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_non_null(observer_find(names[i].name));
        assert_string_equal(observer_find(names[i].name)->name, names[i].row);
    }
    for (size_t i = 0; i < observer_count(); i++) assert_ptr_equal(observer_find(observer_at(i)->name), observer_at(i));
    assert_null(observer_find("Minmax"));
}

/* ---- blocks --------------------------------------------------------------------------------------------------------------------- */

static uint32_t block_byte(const cJSON *item, const float *x, size_t n)
{
    struct group_scale scale = { 0 };
    const char *mode = text_of(item, "mode");
    struct extremes memory;
    if (strcmp(mode, "bfp") == 0) {
        scale = observe_bfp_scale(observe_range(&observer_block_bfp, &observer_block_bfp.defaults, x, n, &memory));
        assert_true(scale.value == exact_exp2((int32_t)scale.bits - 127 - 6));
        return scale.bits;
    }
    const struct range range = observe_range(&observer_block_mx, &observer_block_mx.defaults, x, n, &memory);
    if (strcmp(mode, "prime") == 0) scale = observe_prime_exponent(range);
    else assert_true(observe_mx_scale(elem_find(text_of(item, "element")), scale_rule_find(mode), range, &scale));
    assert_true(scale.value == exact_exp2((int32_t)scale.bits - 127));
    return scale.bits;
}

static void test_blocks(void **state)
{
    (void)state;
    cJSON *root = parse_vectors();
    const cJSON *item;
    cJSON_ArrayForEach(item, member(root, "blocks"))
    {
        const struct input input = find_input(root, text_of(item, "input"));
        const size_t block = (size_t)member(item, "block")->valueint;
        int i = 0;
        for (size_t at = 0; at < input.n; at += block, i++) {
            const uint32_t got = block_byte(item, input.x + at, input.n - at < block ? input.n - at : block);
            const int want = cJSON_GetArrayItem(member(item, "bytes"), i)->valueint;
            if (got != (uint32_t)want) fail_msg("%s %s: block %d has %u, not %d", text_of(item, "input"), text_of(item, "mode"), i, got, want);
        }
        free(input.x);
    }
    struct group_scale scale;
    assert_false(observe_mx_scale(elem_find("int4"), RULE_FLOOR, (struct range){ 0.0f, 1.0f }, &scale));
    cJSON_Delete(root);
}

/* ---- worked numbers ------------------------------------------------------------------------------------------------------------- */

static const float page[] = { 0.9f, -0.35f, 0.12f, -1.4f, 0.61f, 0.05f, -0.77f, 2.6f, 0.0f, 0.33f, -0.2f, 1.1f };

static struct observed observe_page(const struct observer *observer, const struct observe_params *params, const uint64_t *counts)
{
    struct observe observe;
    struct observed got;
    struct err err;
    void *memory = malloc(observer->size(params) + 1);
    assert_non_null(memory);
    assert_ok(observe_init(&observe, observer, params, NULL, memory, &err));
    do observe_span(&observe, 0, page, 12);
    while (observe_next(&observe));
    observe_finish(&observe, &got);
    if (counts) assert_memory_equal(observe_histogram(&observe, 0)->counts, counts, 8 * sizeof *counts);
    free(memory);
    return got;
}

static void expect(struct observed got, float min, float max)
{
    check_pair("page", got, f32_bits(min + 0.0f), f32_bits(max + 0.0f));
}

static void test_page_histograms(void **state)
{
    (void)state;
    static const uint64_t symmetric[] = { 4, 3, 2, 1, 1, 0, 0, 1 }, signed_counts[] = { 1, 1, 4, 2, 2, 1, 0, 1 },
                          no_zeros[] = { 3, 3, 2, 1, 1, 0, 0, 1 };
    struct observe_params params = observer_histogram.defaults;
    params.bins = 8;
    expect(observe_page(&observer_histogram, &params, symmetric), HUGE_VALF, -HUGE_VALF);
    params.symmetric = false;
    observe_page(&observer_histogram, &params, signed_counts);
    params = observer_percentile.defaults;
    params.bins = 8;
    observe_page(&observer_percentile, &params, no_zeros);
}

static void test_page_percentile(void **state)
{
    (void)state;
    struct observe_params params = observer_percentile.defaults;
    assert_true(params.percentile == 99.99 && params.bins == 4200);
    params.bins = 8;
    static const struct {
        double percentile;
        float max;
    } cases[] = { { 99.99999999, 2.27499986f }, { 100.0, 2.27499986f }, { 90.0, 1.3f }, { 50.0, 0.325f } };
    for (size_t i = 0; i < 4; i++) {
        params.percentile = cases[i].percentile;
        expect(observe_page(&observer_percentile, &params, NULL), 0.0f, cases[i].max);
    }
    params.symmetric = false;
    params.percentile = 99.99999999;
    expect(observe_page(&observer_percentile, &params, NULL), -1.4f, 2.6f);
}

static void test_page_searches(void **state)
{
    (void)state;
    struct observe_params params = observer_mse.defaults;
    assert_true(params.bins == 2048 && params.start_bin == 128 && params.stride == 1);
    params.bins = 8;
    params.quantiser.type = qparams_type_integer(4, true);
    params.start_bin = 7;
    expect(observe_page(&observer_mse, &params, NULL), 0.0f, 2.4375f);
    params.start_bin = 0;
    expect(observe_page(&observer_mse, &params, NULL), 0.0f, 2.1125f);
    assert_true(qparams_type_find("fp8_e4m3", &params.quantiser.type));
    expect(observe_page(&observer_mse, &params, NULL), 0.0f, 2.4375f);
    params = observer_pro.defaults;
    assert_true(params.bins == 256 && params.upsample_rate == 384);
    params.bins = 8;
    expect(observe_page(&observer_pro, &params, NULL), -1.4f, 2.1f);
}

static void test_page_thresholds(void **state)
{
    (void)state;
    const float t = observe_page(&observer_3sd, &observer_3sd.defaults, NULL).max;
    assert_true(t == 3.1536846f);
    assert_true(fabsf(observe_log_threshold(t) - 1.657038f) < 5e-7f);
    struct observe_params params = observer_kl_j.defaults;
    params.bits = 2;
    assert_true(fabsf(observe_page(&observer_kl_j, &params, NULL).max - 2.275f) < 5e-7f);
    params.bits = 8;
    assert_true(observe_page(&observer_kl_j, &params, NULL).max == 2.6f);
}

static void test_page_blocks(void **state)
{
    (void)state;
    static const float mx[] = { 0.25f, 0.5f, 0.25f }, bfp[] = { 0x1p-6f, 0x1p-5f, 0x1p-6f };
    for (size_t i = 0; i < 3; i++) {
        struct extremes memory;
        struct group_scale scale;
        const struct range range = observe_range(&observer_minmax, &observer_minmax.defaults, page + 4 * i, 4, &memory);
        assert_true(observe_mx_scale(elem_find("e2m1"), RULE_FLOOR, range, &scale));
        assert_true(scale.value == mx[i]);
        assert_true(observe_bfp_scale(range).value == bfp[i]);
    }
    /* +128 bumps the exponent, -128 does not; subnormals: step 2^-132; no bump at the top */
    assert_true(observe_bfp_scale((struct range){ -1.999f, 1.999f }).value == 0x1p-5f);
    assert_true(observe_bfp_scale((struct range){ -1.999f, 1.99f }).value == 0x1p-6f);
    assert_true(observe_bfp_scale((struct range){ 0.0f, f32_from_bits(0x007FFFFF) }).value == 0x1p-132f);
    assert_int_equal(observe_bfp_scale((struct range){ 0.0f, f32_from_bits(0x7F7FFFFF) }).bits, 254);
    assert_int_equal(observe_bfp_scale((struct range){ 0.0f, 0.0f }).bits, 0);
}

static void test_log2(void **state)
{
    (void)state;
    uint64_t seed = 5;
    for (int i = -300; i < 300; i++) assert_true(observe_log2(ldexp(1.0, i)) == (double)i);
    for (int i = 0; i < 200000; i++) {
        const double a = ldexp(1.0 + (double)(test_random(&seed) >> 12) * 0x1p-52, (int)(test_random(&seed) >> 33) % 80 - 40), want = log2(a);
        if (fabs(observe_log2(a) - want) > 4e-16 * fabs(want) + 2e-16) fail_msg("log2(%.17g) = %.17g, not %.17g", a, observe_log2(a), want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_observations),
        cmocka_unit_test(test_grids),
        cmocka_unit_test(test_groups_alone),
        cmocka_unit_test(test_grid_refusals),
        cmocka_unit_test(test_parameter_refusals),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_page_histograms),
        cmocka_unit_test(test_page_percentile),
        cmocka_unit_test(test_page_searches),
        cmocka_unit_test(test_page_thresholds),
        cmocka_unit_test(test_page_blocks),
        cmocka_unit_test(test_log2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
