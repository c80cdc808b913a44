/* test_smooth_search.c: losses, criteria and the search against the oracle's, and what must hold for any search.
 *
 * Drawing: tests/golden/smooth.json -> smooth_scales, smooth_search: factors and choice bit for bit, losses to 1e-9.
 * Why this way: the oracle sums exactly, the sources in the order of their definition; the difference is that of rounding alone.
 * Corner cases: no member with a format, a member that overflows, statistics that are missing, all formats, threads, injected channels.
 * Reference: header of tests/oracle_smooth.py; the project's smoothquant notes 6e.5, 6e.9, 6e.13. Worked number: losses A {.3: 1, .5: 3, .7: 2}, B {.3: 4,
 * .5: 1, .7: 2}: min .3, max .5, mean .5.
 */
#include "support/smooth_json.h"

#include <float.h>
#include <math.h>

#include "smoothquant/autoalpha.h"
#include "smoothquant/smooth_search.h"
#include "support/weights.h"

static struct err err;

static bool near(double a, double b)
{
    return a == b || fabs(a - b) <= 1e-9 * fmax(fabs(a), fabs(b));
}

/* ---- the oracle's cases --------------------------------------------------------------------------------------------------------- */

static void check_scales(const cJSON *golden, size_t number)
{
    size_t n, unused;
    float *x = floats_of(golden, "x", &n), *w = floats_of(golden, "w", &unused), *wmean = floats_of(golden, "wmean", &unused);
    float *wanted = floats_of(golden, "s", &unused), s[64];
    bool dead[64];
    for (size_t j = 0; j < n; j++) dead[j] = text_of(golden, "dead")[j] == '1';
    const struct smooth_channels channels = { .n = n,
                                              .x = x,
                                              .w = w,
                                              .wmean = wmean,
                                              .dead = dead,
                                              .share_heads = (uint64_t)number_at(member_of(golden, "share"), 0),
                                              .share_run = (uint64_t)number_at(member_of(golden, "share"), 1),
                                              .reduce = smooth_reduce_find(text_of(golden, "reduce")),
                                              .clamp_low = number_at(member_of(golden, "clamp"), 0),
                                              .clamp_high = number_at(member_of(golden, "clamp"), 1),
                                              .no_power = bool_of(golden, "no_power") };
    struct smooth_scale_report report;
    assert_ok(smooth_scales(&channels, smooth_family_find(text_of(golden, "family")), number_of(golden, "alpha"), s, &report, &err));
    for (size_t j = 0; j < n; j++)
        if (s[j] != wanted[j]) fail_msg("case %zu, channel %zu: %a, not %a", number, j, (double)s[j], (double)wanted[j]);
    assert_int_equal(report.n_dead, (uint64_t)number_of(golden, "n_dead"));
    assert_int_equal(report.n_clipped, (uint64_t)number_of(golden, "n_clipped"));
    assert_int_equal(report.exponent, (int32_t)number_of(golden, "exponent"));
    free(x);
    free(w);
    free(wmean);
    free(wanted);
}

static void test_golden_scales(void **state)
{
    (void)state;
    assert_int_equal(smooth_cases("scales", check_scales), 40);
}

/* A problem of the file. */
struct loaded {
    struct smooth_problem problem;
    struct smooth_settings settings;
    struct smooth_member members[4];
    struct quant quants[4];
    double *ex2;
    float *own[16];
    size_t n_own;
};

static float *load(struct loaded *loaded, const cJSON *golden, const char *key, size_t *n)
{
    return loaded->own[loaded->n_own++] = floats_of(golden, key, n);
}

static void open_case(struct loaded *loaded, const cJSON *golden)
{
    const cJSON *item, *members = member_of(golden, "members"), *grid = member_of(golden, "grid");
    size_t n, count;
    *loaded = (struct loaded){ .settings = smooth_settings_default() };
    struct smooth_problem *problem = &loaded->problem;
    struct smooth_settings *settings = &loaded->settings;
    problem->channels.x = load(loaded, golden, "x", &n);
    problem->channels.n = n;
    problem->channels.w = load(loaded, golden, "w", &count);
    problem->channels.share_heads = (uint64_t)number_at(member_of(golden, "share"), 0);
    problem->channels.share_run = (uint64_t)number_at(member_of(golden, "share"), 1);
    problem->gram = load(loaded, golden, "gram", &count);
    problem->gram_factor = number_of(golden, "gram_factor");
    problem->sample = load(loaded, golden, "sample", &count);
    problem->n_sample = count / n;
    problem->act_min = load(loaded, golden, "act_min", &count);
    problem->act_max = load(loaded, golden, "act_max", &count);
    problem->ex2 = loaded->ex2 = calloc(n, sizeof *loaded->ex2);
    assert_non_null(loaded->ex2);
    for (size_t j = 0; j < n; j++) loaded->ex2[j] = number_at(member_of(golden, "ex2"), j);
    problem->members = loaded->members;
    cJSON_ArrayForEach(item, members)
    {
        const size_t m = problem->n_members++;
        loaded->members[m].w = load(loaded, item, "w", &count);
        loaded->members[m].n_rows = count / n;
        loaded->members[m].weight = number_of(item, "weight");
        if (!*text_of(item, "format")) continue;
        assert_ok(quant_parse(text_of(item, "format"), NULL, &loaded->quants[m], &err));
        loaded->members[m].quant = &loaded->quants[m];
    }
    memset(settings->families, 0, sizeof settings->families);
    cJSON_ArrayForEach(item, member_of(golden, "families")) settings->families[smooth_family_find(cJSON_GetStringValue(item))] = true;
    settings->alpha_min = number_at(grid, 0);
    settings->alpha_max = number_at(grid, 1);
    settings->alpha_step = number_at(grid, 2);
    settings->loss = smooth_loss_find(text_of(golden, "loss"));
    settings->criterion = smooth_criterion_find(text_of(golden, "criterion"));
    settings->refine = (uint32_t)number_of(golden, "refine");
}

static void close_case(struct loaded *loaded)
{
    for (size_t i = 0; i < loaded->n_own; i++) free(loaded->own[i]);
    free(loaded->ex2);
}

static void check_candidates(const cJSON *wanted, const struct smooth_result *result, size_t number)
{
    assert_int_equal(cJSON_GetArraySize(wanted), result->n_candidates);
    for (size_t i = 0; i < result->n_candidates; i++) {
        const cJSON *pair = cJSON_GetArrayItem(wanted, (int)i);
        const struct smooth_candidate *candidate = &result->candidates[i];
        const char *family = candidate->identity ? "identity" : smooth_family_name(candidate->family);
        if (strcmp(cJSON_GetStringValue(cJSON_GetArrayItem(pair, 0)), family) != 0 || number_at(pair, 1) != candidate->alpha)
            fail_msg("case %zu: candidate %zu is %s %.17g", number, i, family, candidate->alpha);
    }
}

static void check_result(const cJSON *golden, const struct loaded *loaded, const struct smooth_result *result, size_t number)
{
    const cJSON *found = member_of(golden, "found"), *losses = member_of(found, "losses");
    size_t n;
    check_candidates(member_of(found, "candidates"), result, number);
    for (size_t m = 0; m < result->n_members; m++)
        for (size_t i = 0; i < result->n_candidates; i++) {
            const double mine = result->losses[m * result->n_candidates + i], wanted = number_at(cJSON_GetArrayItem(losses, (int)m), i);
            if (!near(mine, wanted)) fail_msg("case %zu: member %zu, candidate %zu: loss %.17g, not %.17g", number, m, i, mine, wanted);
        }
    if (result->best != (size_t)number_of(found, "best")) fail_msg("case %zu: candidate %zu is not the best", number, result->best);
    float *s = floats_of(found, "s", &n);
    assert_memory_equal(s, result->s, n * sizeof *s);
    free(s);
    double joint = 0.0, own[4];
    assert_ok(smooth_judge(&loaded->problem, &loaded->settings, result->best ? result->s : NULL, 1, own, &joint, &err));
    assert_true(joint == result->loss && joint <= result->identity_loss);
    for (size_t m = 0; m < result->n_members; m++) assert_true(own[m] == result->losses[m * result->n_candidates + result->best]);
}

static void check_search(const cJSON *golden, size_t number)
{
    struct loaded loaded;
    struct smooth_result result, threaded;
    open_case(&loaded, golden);
    assert_ok(smooth_search(&loaded.problem, &loaded.settings, 1, &result, &err));
    check_result(golden, &loaded, &result, number);
    for (unsigned n_workers = 2; n_workers <= 7; n_workers += 5) {
        assert_ok(smooth_search(&loaded.problem, &loaded.settings, n_workers, &threaded, &err));
        assert_memory_equal(result.losses, threaded.losses, result.n_members * result.n_candidates * sizeof *result.losses);
        assert_memory_equal(result.s, threaded.s, loaded.problem.channels.n * sizeof *result.s);
        assert_int_equal(result.best, threaded.best);
        smooth_result_free(&threaded);
    }
    smooth_result_free(&result);
    close_case(&loaded);
}

static void test_golden_search(void **state)
{
    (void)state;
    assert_int_equal(smooth_cases("search", check_search), 32);
}

/* ---- single steps --------------------------------------------------------------------------------------------------------------- */

static void test_criteria(void **state)
{
    (void)state;
    const double losses[] = { 1, 3, 2, 4, 1, 2 }, alphas[] = { .3, .5, .7 }, norms[] = { 1, 100 };
    assert_int_equal(smooth_criterion_pick(SMOOTH_MIN, losses, 3, 2, NULL, NULL, alphas, 3), 0);
    assert_int_equal(smooth_criterion_pick(SMOOTH_MAX, losses, 3, 2, NULL, NULL, alphas, 3), 1);
    assert_int_equal(smooth_criterion_pick(SMOOTH_MEAN, losses, 3, 2, NULL, NULL, alphas, 3), 1); /* 4 = 4: the first */
    assert_int_equal(smooth_criterion_pick(SMOOTH_JOINT, losses, 3, 2, NULL, norms, alphas, 3), 1);
    assert_int_equal(smooth_criterion_pick(SMOOTH_MEAN, losses, 3, 2, NULL, norms, alphas, 3), 0);
    const bool second[] = { false, true };
    assert_int_equal(smooth_criterion_pick(SMOOTH_MIN, losses, 3, 2, second, NULL, alphas, 3), 1);
    const double broken[] = { HUGE_VAL, (double)NAN, 2, HUGE_VAL, HUGE_VAL, HUGE_VAL };
    assert_int_equal(smooth_criterion_pick(SMOOTH_MAX, broken, 3, 2, NULL, NULL, alphas, 3), 2);
    assert_int_equal(smooth_criterion_pick(SMOOTH_JOINT, broken, 3, 2, NULL, NULL, alphas, 3), 3);
    assert_int_equal(smooth_criterion_pick(SMOOTH_JOINT, broken, 3, 1, NULL, NULL, alphas, 3), 2);
    assert_int_equal(smooth_criterion_pick(SMOOTH_MIN, losses, 3, 0, NULL, NULL, alphas, 3), 3);
    assert_int_equal(smooth_criterion_find("mean"), SMOOTH_MEAN);
    assert_int_equal(smooth_loss_find("x"), SMOOTH_LOSS_COUNT);
}

static void test_grid(void **state)
{
    (void)state;
    static double alphas[SMOOTH_ALPHAS_MAX];
    size_t n;
    assert_ok(smooth_grid(0, 1, 0.05, alphas, &n, &err));
    assert_int_equal(n, 21);
    assert_true(alphas[3] == 0.15 && alphas[7] == 0.35 && alphas[19] == 0.95 && alphas[20] == 1.0);
    assert_ok(smooth_grid(0.3, 0.7, 0.1, alphas, &n, &err));
    assert_int_equal(n, 5);
    assert_true(alphas[0] == 0.3 && alphas[1] == 0.4 && alphas[4] == 0.7);
    assert_ok(smooth_grid(0.25, 1, 0.5, alphas, &n, &err));
    assert_int_equal(n, 2);
    assert_true(alphas[1] == 0.75);
    assert_ok(smooth_grid(0, 1, 0.001, alphas, &n, &err));
    assert_int_equal(n, 1001);
    assert_true(alphas[333] == 0.333);
    assert_ok(smooth_grid(0.5, 0.5, 0.1, alphas, &n, &err));
    assert_int_equal(n, 1);
    assert_refused(smooth_grid(0, 1, 0.0009, alphas, &n, &err), ERR_USAGE, "more than 1001");
    assert_refused(smooth_grid(0, 1, 0, alphas, &n, &err), ERR_USAGE, "step");
    assert_refused(smooth_grid(0.5, 0.4, 0.1, alphas, &n, &err), ERR_USAGE, "alphas from");
    assert_refused(smooth_grid(0, (double)NAN, 0.1, alphas, &n, &err), ERR_USAGE, "alphas from");
    assert_refused(smooth_grid(-0.1, 1, 0.1, alphas, &n, &err), ERR_USAGE, "alphas from");
}

/* ---- any search ----------------------------------------------------------------------------------------------------------------- */

enum { N = 256, ROWS = 40 };

struct made {
    float w[ROWS * N], x[N], wmax[N];
    double ex2[N];
    struct smooth_member member;
    struct smooth_problem problem;
};

/* Channels with outliers, times c in some channels and divided in the weights. */
static void make(struct made *made, const struct quant *quant, float c)
{
    uint64_t seed = 5;
    weights_make(WEIGHTS_GAUSS, 6, ROWS * N, made->w);
    memset(made->wmax, 0, sizeof made->wmax);
    for (int j = 0; j < N; j++) {
        made->x[j] = (float)(test_random(&seed) % 1000 + 1) * (j % 50 == 7 ? 0x1p-2f : 0x1p-8f);
        if (j % 60 == 3) {
            made->x[j] *= c;
            for (int r = 0; r < ROWS; r++) made->w[r * N + j] /= c;
        }
        made->ex2[j] = (double)made->x[j] * (double)made->x[j];
    }
    smooth_wmax_add(made->w, ROWS, N, made->wmax);
    made->member = (struct smooth_member){ .w = made->w, .n_rows = ROWS, .quant = quant };
    made->problem =
        (struct smooth_problem){ .channels = { .n = N, .x = made->x, .w = made->wmax }, .members = &made->member, .n_members = 1, .ex2 = made->ex2 };
}

/* For every format: never worse, and of injected channels the same losses but for identity's. */
static void test_formats_and_injection(void **state)
{
    (void)state;
    static struct made made;
    for (size_t f = 0; f < format_count(); f++)
        for (int importance = 0; importance < 2; importance++) {
            struct smooth_settings settings = smooth_settings_default();
            struct smooth_result plain, injected;
            struct quant quant;
            assert_ok(quant_parse(format_at(f)->name, NULL, &quant, &err));
            settings.alpha_step = 0.5;
            settings.importance = importance;
            make(&made, &quant, 1);
            assert_ok(smooth_search(&made.problem, &settings, 1, &plain, &err));
            assert_true(plain.loss <= plain.identity_loss && isfinite(plain.loss));
            for (float c = 4; c <= 64; c *= 4) {
                make(&made, &quant, c);
                assert_ok(smooth_search(&made.problem, &settings, 1, &injected, &err));
                for (size_t i = 1; i < plain.n_candidates; i++)
                    if (plain.losses[i] != injected.losses[i])
                        fail_msg("%s, c = %g: alpha %g costs %.17g, not %.17g", format_at(f)->name, (double)c, plain.candidates[i].alpha,
                                 injected.losses[i], plain.losses[i]);
                assert_true(injected.loss <= injected.identity_loss);
                smooth_result_free(&injected);
            }
            smooth_result_free(&plain);
        }
}

static void test_importance_helps(void **state)
{
    (void)state;
    static struct made made;
    struct smooth_settings settings = smooth_settings_default();
    struct quant quant;
    double with, without;
    assert_ok(quant_parse("int4:rule=mse", NULL, &quant, &err));
    make(&made, &quant, 1);
    assert_ok(smooth_judge(&made.problem, &settings, NULL, 1, NULL, &without, &err));
    settings.importance = true;
    assert_ok(smooth_judge(&made.problem, &settings, NULL, 1, NULL, &with, &err));
    assert_true(with < without);
}

/* Rows of a part of the matrix: the scale of the matrix is that of all its rows. */
static void test_scale_of_matrix(void **state)
{
    (void)state;
    static struct made made;
    struct smooth_settings settings = smooth_settings_default();
    struct quant quant;
    double whole, parts[2];
    assert_ok(quant_parse("nvfp4", NULL, &quant, &err));
    make(&made, &quant, 1);
    made.w[3] = 4096; /* in the first half */
    smooth_wmax_add(made.w, ROWS, N, made.wmax);
    assert_ok(smooth_judge(&made.problem, &settings, made.x, 1, NULL, &whole, &err));
    struct smooth_member halves[] = { { .w = made.w, .n_rows = ROWS / 2, .quant = &quant, .wmax = made.wmax },
                                      { .w = made.w + ROWS / 2 * N, .n_rows = ROWS / 2, .quant = &quant, .wmax = made.wmax, .weight = 2 } };
    made.problem.members = halves;
    made.problem.n_members = 2;
    double joint;
    assert_ok(smooth_judge(&made.problem, &settings, made.x, 1, parts, &joint, &err));
    assert_true(near(parts[0] + parts[1] / 2, whole) && joint == parts[0] + parts[1]);
    halves[1].wmax = NULL;
    assert_ok(smooth_judge(&made.problem, &settings, made.x, 1, parts, &joint, &err));
    assert_false(near(parts[0] + parts[1] / 2, whole));
}

static void test_corners(void **state)
{
    (void)state;
    static struct made made;
    struct smooth_settings settings = smooth_settings_default();
    struct smooth_result result;
    struct quant quant;
    assert_ok(quant_parse("int4:group=64,scale=f16", NULL, &quant, &err));
    make(&made, &quant, 1);
    /* nobody is quantised */
    made.member.quant = NULL;
    made.member.w = NULL;
    assert_ok(smooth_search(&made.problem, &settings, 2, &result, &err));
    assert_true(result.best == 0 && result.loss == 0 && result.s[5] == 1 && !result.fell_back && result.n_candidates == 22);
    smooth_result_free(&result);
    /* one of two is not */
    make(&made, &quant, 1);
    struct smooth_member two[] = { made.member, { .w = NULL, .n_rows = 100 } };
    assert_ok(smooth_search(&made.problem, &settings, 1, &result, &err));
    const double alone = result.loss;
    assert_true(result.best > 0);
    smooth_result_free(&result);
    made.problem.members = two;
    made.problem.n_members = 2;
    assert_ok(smooth_search(&made.problem, &settings, 1, &result, &err));
    assert_true(result.loss == alone && result.losses[result.n_candidates + 3] == 0);
    smooth_result_free(&result);
    /* no families: identity alone */
    made.problem.n_members = 1;
    settings.families[SMOOTH_SQ] = false;
    assert_ok(smooth_search(&made.problem, &settings, 1, &result, &err));
    assert_true(result.n_candidates == 1 && result.best == 0 && result.loss > 0);
    smooth_result_free(&result);
    settings.families[SMOOTH_SQ] = true;
    /* a NaN, and weights whose scale overflows F16: nothing can be judged */
    for (int k = 0; k < 2; k++) {
        made.w[77] = k ? FLT_MAX : NAN;
        made.wmax[77] = k ? FLT_MAX : HUGE_VALF;
        assert_ok(smooth_search(&made.problem, &settings, 1, &result, &err));
        assert_true(isinf(result.identity_loss));
        assert_true(k || (result.best == 0 && isinf(result.loss) && result.s[0] == 1));
        smooth_result_free(&result);
    }
    /* no rows, no channels */
    make(&made, &quant, 1);
    made.member.n_rows = 0;
    assert_ok(smooth_search(&made.problem, &settings, 3, &result, &err));
    assert_true(result.best == 0 && result.loss == 0);
    smooth_result_free(&result);
    made.problem.channels.n = 0;
    assert_ok(smooth_search(&made.problem, &settings, 3, &result, &err));
    smooth_result_free(&result);
    made.problem.n_members = 0;
    assert_ok(smooth_search(&made.problem, &settings, 3, &result, &err));
    smooth_result_free(&result);
}

static void test_refusals(void **state)
{
    (void)state;
    static struct made made;
    struct smooth_settings settings = smooth_settings_default();
    struct smooth_result result;
    struct quant quant;
    static const struct {
        enum smooth_loss loss;
        const char *part;
    } rows[] = {
        { SMOOTH_LOSS_DIAG, "in_sum2" }, { SMOOTH_LOSS_GRAM, "in_gram" }, { SMOOTH_LOSS_SAMPLE, "in_sample" }, { SMOOTH_LOSS_W8A8, "w8a8 needs" }
    };
    assert_ok(quant_parse("q4_k", NULL, &quant, &err));
    make(&made, &quant, 1);
    made.problem.ex2 = NULL;
    for (size_t i = 0; i < 4; i++) {
        settings.loss = rows[i].loss;
        assert_refused(smooth_search(&made.problem, &settings, 1, &result, &err), ERR_USAGE, rows[i].part);
        smooth_result_free(&result);
    }
    settings = smooth_settings_default();
    make(&made, &quant, 1);
    settings.refine = 9;
    assert_refused(smooth_search(&made.problem, &settings, 1, &result, &err), ERR_USAGE, "at most 8");
    settings.refine = 0;
    settings.alpha_step = 0;
    assert_refused(smooth_search(&made.problem, &settings, 1, &result, &err), ERR_USAGE, "step");
    smooth_result_free(&result);
    settings.alpha_step = 0.5;
    made.problem.channels.n = 100;
    assert_refused(smooth_search(&made.problem, &settings, 1, &result, &err), ERR_UNSUPPORTED, "no multiple");
    smooth_result_free(&result);
    made.problem.channels.x = NULL;
    assert_refused(smooth_search(&made.problem, &settings, 1, &result, &err), ERR_USAGE, "without statistics");
    smooth_result_free(&result);
}

/* A criterion whose choice costs the group more than identity is refused; the original follows it. */
static void test_never_worse(void **state)
{
    (void)state;
    static struct made made;
    static float large[ROWS * N];
    struct smooth_settings settings = smooth_settings_default();
    struct smooth_result result;
    struct quant quant;
    assert_ok(quant_parse("int4:group=64", NULL, &quant, &err));
    make(&made, &quant, 1);
    for (int j = 0; j < N; j++) made.ex2[j] = 1 / made.ex2[j]; /* the loss wants the opposite */
    for (int i = 0; i < ROWS * N; i++) large[i] = made.w[i];
    struct smooth_member two[] = { made.member, { .w = large, .n_rows = ROWS, .quant = &quant } };
    made.problem.members = two;
    made.problem.n_members = 2;
    settings.alpha_min = 0.8;
    for (size_t c = 0; c < SMOOTH_CRITERION_COUNT; c++) {
        settings.criterion = (enum smooth_criterion)c;
        settings.refuse_worse = true;
        assert_ok(smooth_search(&made.problem, &settings, 1, &result, &err));
        assert_true(result.best == 0 && result.fell_back && result.s[0] == 1 && result.loss == result.identity_loss);
        smooth_result_free(&result);
        settings.refuse_worse = false;
        assert_ok(smooth_search(&made.problem, &settings, 1, &result, &err));
        assert_true(result.best > 0 && !result.fell_back && result.loss > result.identity_loss);
        smooth_result_free(&result);
    }
}

static void test_tuners(void **state)
{
    (void)state;
    static const char *const names[] = { "inc-v1", "diag", "gram", "sample", "w8a8", "awq", "awq-duo" };
    struct smooth_settings settings = smooth_settings_default();
    assert_int_equal(smooth_tuner_count(), 7);
    for (size_t i = 0; i < 7; i++) assert_ptr_equal(smooth_tuner_find(names[i]), smooth_tuner_at(i));
    assert_null(smooth_tuner_find("version1"));
    smooth_tuner_set(smooth_tuner_find("awq-duo"), &settings);
    assert_true(settings.families[SMOOTH_DUO] && !settings.families[SMOOTH_SQ] && settings.loss == SMOOTH_LOSS_SAMPLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_scales),    cmocka_unit_test(test_golden_search),
        cmocka_unit_test(test_criteria),         cmocka_unit_test(test_grid),
        cmocka_unit_test(test_never_worse),      cmocka_unit_test(test_formats_and_injection),
        cmocka_unit_test(test_importance_helps), cmocka_unit_test(test_scale_of_matrix),
        cmocka_unit_test(test_corners),          cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_tuners),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
