/* test_smooth_scale.c: smoothing factors: worked numbers, sharing heads, clamp, power of two, dead channels, and what injected channels leave alone.
 *
 * Formula: x -> c x, w -> w / c gives s -> c s and the same W s, bit for bit.
 * Why this way: tests/oracle_smooth.py makes the factors again in Python; here stand the single steps and the invariance of all formats.
 * Corner cases: 0, NaN, Inf, tiny and huge statistics, no live channel, all weights 0.
 * Reference: the project's smoothquant notes 6e.1, 6e.9. Worked number: x = 1, 4, 0, 2: s = 1.4142135, 2, 1, 447.2136.
 */
#include "support/support.h"

#include <float.h>
#include <math.h>

#include "smoothquant/smooth_scale.h"

static struct err err;

static void check(const float *s, const float *wanted, size_t n)
{
    for (size_t j = 0; j < n; j++)
        if (s[j] != wanted[j]) fail_msg("channel %zu: %.9g, not %.9g", j, (double)s[j], (double)wanted[j]);
}

static void test_cal_scale(void **state)
{
    (void)state;
    static const float x[] = { 1, 4, 0, 2 }, rows[] = { .5f, -1, 2, 0, .25f, .5f, -1, 0 };
    float w[4] = { 0 }, s[4];
    smooth_wmax_add(rows, 2, 4, w);
    check(w, (const float[]){ .5f, 1, 2, 0 }, 4);
    smooth_cal_scale(x, w, 4, 0.5, SMOOTH_WEIGHT_MIN, s);
    check(s, (const float[]){ 1.4142135f, 2, 1, 447.21360f }, 4);
    smooth_cal_scale(x, w, 4, 0.0, SMOOTH_WEIGHT_MIN, s);
    check(s, (const float[]){ 2, 1, .5f, 1e5f }, 4);
    smooth_cal_scale(x, w, 4, 1.0, SMOOTH_WEIGHT_MIN, s);
    check(s, (const float[]){ 1, 4, 1, 2 }, 4);
    const float tiny[] = { 1e-30f }, one[] = { 1 };
    smooth_cal_scale(tiny, one, 1, 1.0, SMOOTH_WEIGHT_MIN, s);
    check(s, (const float[]){ 1e-5f }, 1);
}

static void test_power_of_two(void **state)
{
    (void)state;
    const float x[] = { 1, 4, 0, 2 }, w[] = { .5f, 1, 2, 1e-5f };
    struct smooth_channels channels = { .n = 4, .x = x, .w = w };
    struct smooth_scale_report report;
    float s[4];
    assert_ok(smooth_scales(&channels, SMOOTH_SQ, 0.5, s, &report, &err));
    /* w s = 0.707, 2, dead, 0.00447: 2 comes to 0.5; the dead channel's 2 would stand out: 2 * 2^-2 */
    check(s, (const float[]){ 1.4142135f / 4, 2.0f / 4, .25f, 447.21360f / 4 }, 4);
    assert_int_equal(report.exponent, -2);
    assert_int_equal(report.n_dead, 1);
    assert_int_equal(report.n_clipped, 0);
    channels.no_power = true;
    assert_ok(smooth_scales(&channels, SMOOTH_SQ, 0.5, s, NULL, &err));
    check(s, (const float[]){ 1.4142135f, 2, 1, 447.21360f }, 4);
    const float zeros[4] = { 0 };
    channels = (struct smooth_channels){ .n = 4, .x = x, .w = zeros };
    assert_ok(smooth_scales(&channels, SMOOTH_SQ, 1.0, s, &report, &err));
    check(s, (const float[]){ 1, 4, 1, 2 }, 4); /* weights of 0: no power */
    assert_int_equal(report.exponent, 0);
}

static void test_families(void **state)
{
    (void)state;
    const float x[] = { 1, 4, 9, 1e-20f }, w[] = { .5f, 1, 2, .25f }, wmean[] = { .25f, .0625f, 0, 1 };
    struct smooth_channels channels = { .n = 4, .x = x, .w = w, .wmean = wmean, .no_power = true, .clamp_low = 1e-30, .clamp_high = 1e30 };
    float s[4];
    assert_ok(smooth_scales(&channels, SMOOTH_AWQ, 0.5, s, NULL, &err));
    check(s, (const float[]){ 1, 2, 3, 1e-4f }, 4);
    assert_ok(smooth_scales(&channels, SMOOTH_DUO, 0.5, s, NULL, &err));
    check(s, (const float[]){ 1 / (.5f + 1e-4f), 2 / (.25f + 1e-4f), 3 / 1e-4f, 1e-4f }, 4);
    channels.wmean = NULL;
    assert_refused(smooth_scales(&channels, SMOOTH_DUO, 0.5, s, NULL, &err), ERR_USAGE, "means of the weights");
    assert_int_equal(smooth_family_find("duo"), SMOOTH_DUO);
    assert_int_equal(smooth_family_find("x"), SMOOTH_FAMILY_COUNT);
    assert_int_equal(smooth_reduce_find("max"), SMOOTH_REDUCE_MAX);
    double sum[4] = { 0 };
    const float rows[] = { 1, -2, .5f, .25f, 0, 0, 4, -1 };
    smooth_wmean_add(rows, 2, 4, 2, sum);
    assert_true(sum[0] == 1 / (2 + 1e-6) && sum[1] == 2 / (2 + 1e-6) && sum[2] == .5 / (.5 + 1e-6) + 4 / (4 + 1e-6));
}

/* Two heads of 2 share one producer channel each: channels 0 2 | 1 3 | 4 6 | 5 7. */
static void test_sharing(void **state)
{
    (void)state;
    const float x[] = { 1, 8, 4, 2, 0, 0, 9, 0 }, w[] = { 1, 1, 1, 1, 1, 1, 1, 2 };
    struct smooth_channels channels = { .n = 8, .x = x, .w = w, .share_heads = 2, .share_run = 2, .no_power = true };
    struct smooth_scale_report report;
    float s[8];
    assert_ok(smooth_scales(&channels, SMOOTH_SQ, 1.0, s, &report, &err));
    check(s, (const float[]){ 2, 4, 2, 4, 9, 1, 9, 1 }, 8); /* a dead head follows the live one */
    assert_int_equal(report.n_dead, 2);
    channels.reduce = SMOOTH_REDUCE_MAX;
    assert_ok(smooth_scales(&channels, SMOOTH_SQ, 1.0, s, &report, &err));
    check(s, (const float[]){ 4, 8, 4, 8, 9, 1, 9, 1 }, 8);
    channels.no_power = false;
    assert_ok(smooth_scales(&channels, SMOOTH_SQ, 1.0, s, &report, &err));
    check(s, (const float[]){ 4 / 16.f, 8 / 16.f, 4 / 16.f, 8 / 16.f, 9 / 16.f, .25f, 9 / 16.f, .25f }, 8); /* w = 2 of channel 7 */
    channels.share_run = 3;
    assert_refused(smooth_scales(&channels, SMOOTH_SQ, 1.0, s, &report, &err), ERR_USAGE, "8 channels are no heads of 3 that share by 2");
    channels.share_heads = 16;
    assert_refused(smooth_scales(&channels, SMOOTH_SQ, 1.0, s, &report, &err), ERR_USAGE, "share by 16");
    /* all heads behind one norm */
    channels = (struct smooth_channels){ .n = 8, .x = x, .w = w, .share_heads = 4, .share_run = 2, .no_power = true };
    assert_ok(smooth_scales(&channels, SMOOTH_SQ, 1.0, s, &report, &err));
    assert_true(s[0] == s[2] && s[0] == s[4] && s[0] == s[6] && s[1] == s[7] && s[1] == 4);
    assert_true(fabsf(s[0] - cbrtf(36.0f)) < 1e-6f);
}

static void test_clamp(void **state)
{
    (void)state;
    float x[8], w[8], s[8];
    struct smooth_channels channels = { .n = 8, .x = x, .w = w, .no_power = true, .clamp_low = 0.1, .clamp_high = 10 };
    struct smooth_scale_report report;
    for (int j = 0; j < 8; j++) x[j] = w[j] = 1;
    x[0] = 256; /* geometric mean 2 */
    assert_ok(smooth_scales(&channels, SMOOTH_SQ, 1.0, s, &report, &err));
    check(s, (const float[]){ 20, 1, 1, 1, 1, 1, 1, 1 }, 8);
    assert_int_equal(report.n_clipped, 1);
    x[0] = 0x1p-8f;
    assert_ok(smooth_scales(&channels, SMOOTH_SQ, 1.0, s, &report, &err));
    check(s, (const float[]){ .05f, 1, 1, 1, 1, 1, 1, 1 }, 8);
    channels.clamp_low = channels.clamp_high = 0; /* the defaults take neither */
    assert_ok(smooth_scales(&channels, SMOOTH_SQ, 1.0, s, &report, &err));
    assert_int_equal(report.n_clipped, 0);
}

static void test_dead_and_broken(void **state)
{
    (void)state;
    const float x[] = { 1, NAN, INFINITY, -1, 2, 3, 4, 5 }, w[] = { 1, 1, 1, 1, NAN, INFINITY, 1, 1 };
    const bool dead[] = { 0, 0, 0, 0, 0, 0, 1, 0 };
    struct smooth_channels channels = { .n = 8, .x = x, .w = w, .dead = dead };
    struct smooth_scale_report report;
    float s[8];
    assert_ok(smooth_scales(&channels, SMOOTH_SQ, 0.5, s, &report, &err));
    assert_int_equal(report.n_dead, 6);
    assert_int_equal(report.exponent, -2); /* sqrt 5 */
    check(s, (const float[]){ .25f, .5f, .5f, .5f, 1, 1, .5f, sqrtf(5) / 4 }, 8); /* dead: w = 1 comes below 1 */
    const float none[8] = { 0 };
    channels.x = none;
    channels.w = none;
    assert_ok(smooth_scales(&channels, SMOOTH_SQ, 0.5, s, &report, &err));
    check(s, (const float[]){ 1, 1, 1, 1, 1, 1, 1, 1 }, 8);
    assert_int_equal(report.n_dead, 8);
    channels.n = 0;
    assert_ok(smooth_scales(&channels, SMOOTH_SQ, 0.5, s, &report, &err));
    /* what is huge or tiny stays a normal number */
    for (int k = 0; k < 2; k++) {
        const float far[] = { k ? 1e-38f : 3e38f, 1, k ? 1e-45f : 1e38f, 1 }, heavy[] = { 1e-38f, 3e38f, 1e38f, 1e-30f };
        for (int family = 0; family < 2; family++)
            for (int a = 0; a <= 10; a++) {
                channels = (struct smooth_channels){ .n = 4, .x = far, .w = heavy };
                assert_ok(smooth_scales(&channels, (enum smooth_family)family, a / 10.0, s, &report, &err));
                for (int j = 0; j < 4; j++) assert_true(s[j] >= FLT_MIN && s[j] <= FLT_MAX);
            }
    }
}

static void test_taken(void **state)
{
    (void)state;
    const float given[] = { 2, 8, 0, NAN, INFINITY, 3, 4, 1e-40f };
    struct smooth_channels channels = { .n = 8 };
    struct smooth_scale_report report;
    float s[8];
    assert_ok(smooth_scales_take(&channels, given, s, &report, &err));
    check(s, (const float[]){ 2, 8, 1, 1, 1, 3, 4, 1 }, 8);
    assert_int_equal(report.n_dead, 4);
    channels.share_heads = 2;
    channels.share_run = 1;
    assert_ok(smooth_scales_take(&channels, given, s, &report, &err));
    check(s, (const float[]){ 4, 4, 1, 1, 3, 3, 4, 4 }, 8);
}

static void test_importance(void **state)
{
    (void)state;
    const double ex2[] = { 1, 0, 3, 1e-60 };
    const float s[] = { 2, 1, 2, 1 };
    float w[4] = { -1, -1, -1, -1 };
    assert_true(smooth_importance(ex2, NULL, 3, w));
    check(w, (const float[]){ .75f, 0, 2.25f, -1 }, 4);
    assert_true(smooth_importance(ex2, s, 4, w));
    check(w, (const float[]){ 1, 0, 3, 0x1p-126f }, 4);
    assert_false(smooth_importance(ex2 + 1, NULL, 1, w));
    assert_false(smooth_importance((const double[]){ (double)NAN, HUGE_VAL }, NULL, 2, w));
}

/* ---- invariance ----------------------------------------------------------------------------------------------------------------- */

#define N 96
#define ROWS 24

struct model {
    float x[N], w[ROWS * N], wmax[N], s[N], v[ROWS * N];
};

static void smooth(struct model *model, struct smooth_channels channels, double alpha)
{
    struct smooth_scale_report report;
    memset(model->wmax, 0, sizeof model->wmax);
    smooth_wmax_add(model->w, ROWS, N, model->wmax);
    channels.n = N;
    channels.x = model->x;
    channels.w = model->wmax;
    assert_ok(smooth_scales(&channels, SMOOTH_SQ, alpha, model->s, &report, &err));
    assert_int_equal(report.n_clipped, 0);
    double most = 0.0;
    for (int j = 0; j < N; j++) most = fmax(most, (double)model->s[j] * (double)model->wmax[j]);
    assert_true(most >= 0.5 && most < 1.0);
    for (int i = 0; i < ROWS * N; i++) model->v[i] = model->w[i] * model->s[i % N];
}

static float normal(uint64_t *state)
{
    double sum = 0.0;
    for (int i = 0; i < 12; i++) sum += (double)(test_random(state) >> 40) * 0x1p-24;
    return (float)(sum - 6.0);
}

static void check_injection(double alpha, float c, struct smooth_channels channels, uint64_t *seed)
{
    static struct model plain, injected;
    for (int j = 0; j < N; j++) plain.x[j] = fabsf(normal(seed)) * ldexpf(1.0f, (int)(test_random(seed) % 9) - 4) + 1e-3f;
    for (int i = 0; i < ROWS * N; i++) plain.w[i] = normal(seed) * 0.05f;
    injected = plain;
    const uint64_t heads = channels.share_heads ? channels.share_heads : 1, run = channels.share_heads ? channels.share_run : 1;
    for (int k = 0; k < 4; k++) {
        const uint64_t quarter = N / heads / 4, p = (uint64_t)k * quarter + test_random(seed) % quarter; /* producer channel */
        for (uint64_t h = 0; h < heads; h++) {
            const uint64_t j = (p / run * heads + h) * run + p % run;
            injected.x[j] *= c;
            for (int r = 0; r < ROWS; r++) injected.w[(uint64_t)r * N + j] /= c;
        }
    }
    smooth(&plain, channels, alpha);
    smooth(&injected, channels, alpha);
    for (int i = 0; i < ROWS * N; i++)
        if (plain.v[i] != injected.v[i]) fail_msg("c = %g, weight %d: %a, not %a", (double)c, i, (double)injected.v[i], (double)plain.v[i]);
}

static void test_injection(void **state)
{
    (void)state;
    uint64_t seed = 11;
    for (int i = 0; i < 300; i++)
        for (float c = 4; c <= 64; c *= 4) {
            check_injection(0.5, c, (struct smooth_channels){ 0 }, &seed);
            check_injection(0.5, c, (struct smooth_channels){ .share_heads = 3, .share_run = 8 }, &seed);
            check_injection(0.5, c, (struct smooth_channels){ .share_heads = 2, .share_run = 16, .reduce = SMOOTH_REDUCE_MAX }, &seed);
        }
    for (int i = 0; i < 100; i++) {
        check_injection(0.25, 16, (struct smooth_channels){ 0 }, &seed);
        check_injection(0.75, 16, (struct smooth_channels){ .share_heads = 3, .share_run = 8 }, &seed);
        check_injection(0.0, 4, (struct smooth_channels){ 0 }, &seed);
        check_injection(1.0, 8, (struct smooth_channels){ 0 }, &seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cal_scale), cmocka_unit_test(test_power_of_two), cmocka_unit_test(test_families),
        cmocka_unit_test(test_sharing),   cmocka_unit_test(test_clamp),        cmocka_unit_test(test_dead_and_broken),
        cmocka_unit_test(test_taken),     cmocka_unit_test(test_importance),   cmocka_unit_test(test_injection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
