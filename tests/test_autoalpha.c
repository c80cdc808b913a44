/* test_autoalpha.c: AutoAlpha on a chain of gated MLPs against the oracle's alphas, losses and factors.
 *
 * Drawing: block: x + W2 (relu(W0 x) * (W1 x)); W0 and W1 are one group, W2 another; two blocks.
 * Why this way: the second block's inputs carry the first one's errors, members share a group, and the oracle runs the same model in plain Python.
 * Corner cases: start alphas below 0 and beside the grid, fewer samples than quarters, a group without statistics, blockwise, sequences, squares, refusals,
 * a model that fails.
 * Reference: header of tests/oracle_smooth.py; the project's smoothquant notes 6e.12. Worked number: 8 samples: alphas are chosen anew after 2, 4, 6, 8.
 */
#include "support/smooth_json.h"

#include <math.h>

#include "smoothquant/autoalpha.h"

static struct err err;

enum { BLOCKS = 2, LINEARS = 3 * BLOCKS, GROUPS = 2 * BLOCKS, SAMPLES = 8, TOKENS = 4, WIDTH = 12, HIDDEN = 20 };

struct chain {
    struct autoalpha_linear linears[LINEARS];
    struct autoalpha_model model;
    struct autoalpha_settings settings;
    bool stats[GROUPS];
    float *samples[SAMPLES];
    float *own[4 * LINEARS];
    size_t n_own;
    size_t n_forward;
    bool fails;
};

static enum status run_block(struct chain *chain, size_t block, const float *x, uint64_t n_tokens, struct autoalpha_hook *hook, float *y,
                             struct err *e)
{
    float up[TOKENS * HIDDEN], gate[TOKENS * HIDDEN];
    assert_true(n_tokens <= TOKENS);
    if (chain->fails && chain->n_forward == 3) return err_set(e, ERR_DATA, "the model stops");
    enum status status = autoalpha_linear_run(hook, 3 * block, x, n_tokens, up, e);
    if (status == OK) status = autoalpha_linear_run(hook, 3 * block + 1, x, n_tokens, gate, e);
    for (size_t i = 0; i < n_tokens * HIDDEN; i++) up[i] = fmaxf(up[i], 0.0f) * gate[i];
    if (status == OK) status = autoalpha_linear_run(hook, 3 * block + 2, up, n_tokens, y, e);
    for (size_t i = 0; i < n_tokens * WIDTH; i++) y[i] = x[i] + y[i];
    return status;
}

static enum status forward(void *context, uint64_t sample, struct autoalpha_hook *hook, struct err *e)
{
    struct chain *chain = context;
    float x[TOKENS * WIDTH], y[TOKENS * WIDTH];
    enum status status = OK;
    memcpy(x, chain->samples[sample], sizeof x);
    chain->n_forward++;
    for (size_t b = 0; b < BLOCKS && status == OK; b++) {
        status = autoalpha_block_enter(hook, b, x, TOKENS, WIDTH, e);
        if (status == OK) status = run_block(chain, b, x, TOKENS, hook, y, e);
        if (status == OK) status = autoalpha_block_leave(hook, b, y, TOKENS, WIDTH, e);
        memcpy(x, y, sizeof x);
    }
    return status;
}

static enum status forward_block(void *context, uint64_t sample, size_t block, const float *x, uint64_t n_tokens, struct autoalpha_hook *hook,
                                 float *y, struct err *e)
{
    assert_true(sample < SAMPLES);
    return run_block(context, block, x, n_tokens, hook, y, e);
}

static float *load(struct chain *chain, const char *hex)
{
    size_t n;
    return chain->own[chain->n_own++] = floats_of_hex(hex, &n);
}

static void open_chain(struct chain *chain, const cJSON *golden)
{
    const cJSON *item, *grid = member_of(golden, "grid");
    size_t l = 0, i = 0, g = 0;
    *chain = (struct chain){ .settings = autoalpha_settings_default() };
    cJSON_ArrayForEach(item, member_of(golden, "linears"))
    {
        chain->linears[l] = (struct autoalpha_linear){ .w = load(chain, text_of(item, "w")),
                                                       .bias = load(chain, text_of(item, "bias")),
                                                       .in_min = load(chain, text_of(item, "min")),
                                                       .in_max = load(chain, text_of(item, "max")),
                                                       .n_out = l % 3 == 2 ? WIDTH : HIDDEN,
                                                       .n_in = l % 3 == 2 ? HIDDEN : WIDTH,
                                                       .group = (size_t)number_of(item, "group"),
                                                       .block = l / 3 };
        l++;
    }
    cJSON_ArrayForEach(item, member_of(golden, "samples")) chain->samples[i++] = floats_of_hex(cJSON_GetStringValue(item), &(size_t){ 0 });
    cJSON_ArrayForEach(item, member_of(golden, "stats")) chain->stats[g++] = cJSON_IsTrue(item);
    chain->model = (struct autoalpha_model){ .linears = chain->linears,
                                             .n_linears = LINEARS,
                                             .n_groups = GROUPS,
                                             .n_blocks = BLOCKS,
                                             .group_has_stats = chain->stats,
                                             .n_samples = SAMPLES,
                                             .n_sequences = (uint64_t)number_of(golden, "sequences"),
                                             .context = chain,
                                             .forward = forward,
                                             .forward_block = forward_block };
    chain->settings.alpha_min = number_at(grid, 0);
    chain->settings.alpha_max = number_at(grid, 1);
    chain->settings.alpha_step = number_at(grid, 2);
    chain->settings.shared_criterion = smooth_criterion_find(text_of(golden, "criterion"));
    chain->settings.init_alpha = number_of(golden, "init_alpha");
    chain->settings.n_samples = (uint64_t)number_of(golden, "n_samples");
    chain->settings.do_blockwise = bool_of(golden, "blockwise");
    chain->settings.folding = bool_of(golden, "folding");
    chain->settings.power = number_of(golden, "power");
}

static void close_chain(struct chain *chain)
{
    for (size_t i = 0; i < chain->n_own; i++) free(chain->own[i]);
    for (size_t i = 0; i < SAMPLES; i++) free(chain->samples[i]);
}

static void check_groups(const cJSON *golden, const struct autoalpha_result *result, size_t number)
{
    for (size_t g = 0; g < GROUPS; g++) {
        const cJSON *alpha = cJSON_GetArrayItem(member_of(golden, "alphas"), (int)g);
        size_t n;
        float *s = floats_of_hex(cJSON_GetStringValue(cJSON_GetArrayItem(member_of(golden, "scales"), (int)g)), &n);
        if (cJSON_IsNull(alpha)) {
            assert_true(isnan(result->alphas[g]) && !result->scales[g]);
        } else {
            if (alpha->valuedouble != result->alphas[g])
                fail_msg("case %zu, group %zu: alpha %g, not %g", number, g, result->alphas[g], alpha->valuedouble);
            assert_memory_equal(s, result->scales[g], n * sizeof *s);
        }
        free(s);
    }
}

static void check(const cJSON *golden, size_t number)
{
    struct chain chain;
    struct autoalpha_result result, again;
    open_chain(&chain, golden);
    assert_ok(autoalpha_tune(&chain.model, &chain.settings, &result, &err));
    assert_int_equal(chain.n_forward, 2 * result.n_samples);
    for (size_t l = 0; l < LINEARS; l++)
        for (size_t a = 0; a < result.n_grid; a++) {
            const double wanted = number_at(cJSON_GetArrayItem(member_of(golden, "losses"), (int)l), a), mine = result.losses[l * result.n_grid + a];
            if (!(fabs(mine - wanted) <= 1e-9 * wanted))
                fail_msg("case %zu, linear %zu, alpha %zu: loss %.17g, not %.17g", number, l, a, mine, wanted);
        }
    check_groups(golden, &result, number);
    chain.settings.max_ram = 1; /* no room for the factors */
    assert_ok(autoalpha_tune(&chain.model, &chain.settings, &again, &err));
    assert_memory_equal(result.losses, again.losses, LINEARS * result.n_grid * sizeof *result.losses);
    autoalpha_result_free(&result, GROUPS);
    autoalpha_result_free(&again, GROUPS);
    close_chain(&chain);
}

static void test_golden(void **state)
{
    (void)state;
    assert_int_equal(smooth_cases("autoalpha", check), 6);
}

static void refuse(const cJSON *golden, size_t number)
{
    struct chain chain;
    struct autoalpha_result result;
    if (number > 0) return;
    open_chain(&chain, golden);
    chain.settings.shared_criterion = SMOOTH_JOINT;
    assert_refused(autoalpha_tune(&chain.model, &chain.settings, &result, &err), ERR_USAGE, "min, max and mean");
    chain.settings.shared_criterion = SMOOTH_MAX;
    chain.settings.alpha_step = 0;
    assert_refused(autoalpha_tune(&chain.model, &chain.settings, &result, &err), ERR_USAGE, "step");
    autoalpha_result_free(&result, GROUPS);
    chain.settings.alpha_step = 0.5;
    chain.settings.init_alpha = (double)NAN;
    assert_refused(autoalpha_tune(&chain.model, &chain.settings, &result, &err), ERR_USAGE, "start alpha");
    chain.settings.init_alpha = 0.3;
    chain.settings.do_blockwise = true;
    chain.model.forward_block = NULL;
    assert_refused(autoalpha_tune(&chain.model, &chain.settings, &result, &err), ERR_USAGE, "blocks run alone");
    chain.settings.do_blockwise = false;
    chain.linears[2].group = 0;
    assert_refused(autoalpha_tune(&chain.model, &chain.settings, &result, &err), ERR_USAGE, "members of group 0 have 12 and 20 inputs");
    autoalpha_result_free(&result, GROUPS);
    chain.linears[2].group = GROUPS;
    assert_refused(autoalpha_tune(&chain.model, &chain.settings, &result, &err), ERR_USAGE, "linear 2 is of a group");
    chain.linears[2].group = AUTOALPHA_NONE;
    chain.fails = true;
    assert_refused(autoalpha_tune(&chain.model, &chain.settings, &result, &err), ERR_DATA, "the model stops");
    autoalpha_result_free(&result, GROUPS);
    chain.fails = false;
    chain.model.n_sequences = 3;
    assert_refused(autoalpha_tune(&chain.model, &chain.settings, &result, &err), ERR_USAGE, "of 3 sequences");
    autoalpha_result_free(&result, GROUPS);
    chain.model.n_sequences = 0;
    assert_ok(autoalpha_tune(&chain.model, &chain.settings, &result, &err));
    assert_true(isnan(result.alphas[1]) && result.losses[2 * result.n_grid] == 0); /* its only linear has left it */
    autoalpha_result_free(&result, GROUPS);
    /* no samples: the start alpha, of the grid or not; linears outside blocks are their own */
    chain.settings.n_samples = 0;
    assert_ok(autoalpha_tune(&chain.model, &chain.settings, &result, &err));
    assert_true(result.alphas[0] == 0.3 && result.n_samples == 0);
    autoalpha_result_free(&result, GROUPS);
    chain.settings.n_samples = 4;
    assert_ok(autoalpha_tune(&chain.model, &chain.settings, &result, &err));
    chain.settings.do_blockwise = true;
    chain.model.forward_block = forward_block;
    for (size_t l = 0; l < LINEARS; l++) chain.linears[l].block = AUTOALPHA_NONE;
    struct autoalpha_result outside;
    assert_ok(autoalpha_tune(&chain.model, &chain.settings, &outside, &err));
    assert_memory_equal(result.losses, outside.losses, LINEARS * result.n_grid * sizeof *result.losses);
    autoalpha_result_free(&result, GROUPS);
    autoalpha_result_free(&outside, GROUPS);
    close_chain(&chain);
}

static void test_refusals(void **state)
{
    (void)state;
    smooth_cases("autoalpha", refuse);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
