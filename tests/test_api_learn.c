/* test_api_learn.c: TQT, LSQ and PACT through llmq.h: worked examples, golden vectors of the optimisers, gradients, refusals.
 *
 * Why this way: the specification's numbers to the digits it prints; the optimisers bit for bit against the oracle's vectors.
 * Corner cases: channels along an axis, importance, no weights, parameters and shapes out of range.
 * Reference: the specification's 4.9 to 4.11, 8.6; tests/golden/learn.json. Worked number: LSQ int4 of X: s0 = .6425396.
 */
#include "support/api_support.h"

#include <math.h>

#include "number/half.h"
#include "support/learn_case.h"

static const float X[12] = { 0.9f, -0.35f, 0.12f, -1.4f, 0.61f, 0.05f, -0.77f, 2.6f, 0.0f, 0.33f, -0.2f, 1.1f };

static void close_to(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance)) fail_msg("%.9g, not %.9g", got, want);
}

/* Loss and dL/dy of y against X. */
static double gradient(const float *y, float *g)
{
    double loss = 0;
    for (int i = 0; i < 8; i++) {
        g[i] = 2 * (y[i] - X[i]);
        loss += (double)(y[i] - X[i]) * (double)(y[i] - X[i]);
    }
    return loss;
}

static void test_tqt(void **state)
{
    (void)state;
    static const struct {
        float l, scale, codes[8];
        double loss, slope;
        float last_dx;
    } rows[] = { { 1.3785116f, 0.5f, { 2, -1, 0, -3, 1, 0, -2, 5 }, .1344, .186318, 1 },
                 { 1.0f, 0.25f, { 4, -1, 0, -6, 2, 0, -3, 7 }, .7819, -1.979767, 0 } };
    float y[8], g[8], dx[8], slope, scale, threshold, l;
    for (size_t k = 0; k < 2; k++) {
        assert_done(llmq_tqt_scale(4, rows[k].l, &scale, &error));
        assert_true(scale == rows[k].scale);
        assert_done(llmq_tqt_forward(4, NULL, &rows[k].l, NULL, X, 8, y, &error));
        for (int i = 0; i < 8; i++) assert_true(y[i] == rows[k].codes[i] * scale);
        close_to(gradient(y, g), rows[k].loss, 5e-5);
        assert_done(llmq_tqt_backward(4, "nearest-even", &rows[k].l, NULL, X, g, 8, dx, &slope, &error));
        close_to((double)slope, rows[k].slope, 1e-6);
        assert_true(dx[0] == g[0] && dx[7] == rows[k].last_dx * g[7]);
    }
    assert_done(llmq_tqt_start("3sd", 8, X, 12, &threshold, &l, &error));
    close_to((double)threshold, 3.1536846, 5e-7);
    close_to((double)l, 1.657038, 5e-7);
    assert_done(llmq_tqt_start("kl-j", 2, X, 12, &threshold, NULL, &error));
    close_to((double)threshold, 2.275, 1e-6);
    assert_done(llmq_tqt_start("kl-j", 8, X, 12, &threshold, NULL, &error));
    close_to((double)threshold, 2.6, 1e-6);
}

static void test_lsq(void **state)
{
    (void)state;
    const struct llmq_codes int4 = { -8, 7, 0, NULL };
    const float want[8] = { 1, -1, 0, -2, 1, 0, -1, 4 };
    float s, factor, y[8], g[8], dx[8], slope;
    assert_done(llmq_lsq_start(X, 8, 7, &s, &error));
    assert_done(llmq_lsq_grad_factor(8, 7, &factor, &error));
    close_to((double)s, .6425396, 1e-7);
    close_to((double)factor, .1336306, 5e-8);
    assert_done(llmq_lsq_forward(&int4, &s, NULL, X, 8, y, &error));
    for (int i = 0; i < 8; i++) assert_true(y[i] == want[i] * s);
    close_to(gradient(y, g), .200167, 1e-6);
    assert_done(llmq_lsq_backward(&int4, &s, NULL, factor, X, g, 8, dx, &slope, &error));
    close_to((double)slope, .0832587, 1e-7);
    close_to((double)slope / (double)factor, .623051, 1e-6);
    assert_memory_equal(dx, g, sizeof dx);
    struct llmq_learned learned;
    assert_done(llmq_learn("lsq", NULL, X, NULL, 8, -8, 7, &learned, &error));
    close_to(learned.loss, .066912, 5e-7);
    close_to((double)learned.scale, .3681, 5e-5);
    close_to(learned.start_loss, .079556, 1e-6);
    /* what was learned, given to the format, has the learned loss */
    struct llmq_quant *quant;
    assert_done(llmq_quant_open("int4:scale=f32", &quant, &error));
    assert_done(llmq_fake_quantise(quant, &(struct llmq_view){ DIMS(8), 1, 0 }, X, &(struct llmq_given){ .scales = &learned.scale }, y, &error));
    close_to(gradient(y, g), learned.loss, 1e-9);
    llmq_quant_close(quant);
}

/* Channels of a tensor [2, 3, 2] along axis 1 against one channel at a time; and the format with the same given scales. */
static void test_channels(void **state)
{
    (void)state;
    const uint64_t dims[3] = { 2, 3, 2 };
    const struct llmq_view view = { dims, 3, 1 };
    const struct llmq_codes uint4 = { 0, 15, 4, NULL };
    const float scales[3] = { .25f, .5f, .125f };
    float y[12], fake[12], g[12], dx[12], slopes[3];
    struct llmq_channels channels;
    assert_done(llmq_channels_of(&view, &channels, &error));
    assert_true(channels.count == 3 && channels.inner == 2);
    assert_done(llmq_lsq_forward(&uint4, scales, &channels, X, 12, y, &error));
    struct llmq_quant *quant;
    assert_done(llmq_quant_open("uint4:group=channel,scale=f32", &quant, &error));
    assert_done(llmq_fake_quantise(quant, &view, X, &(struct llmq_given){ .scales = scales, .zeros = (const int32_t[]){ 4, 4, 4 } }, fake, &error));
    for (int i = 0; i < 12; i++) assert_true(y[i] == fake[i]);
    llmq_quant_close(quant);
    for (int i = 0; i < 12; i++) g[i] = (float)(i % 5) - 2;
    assert_done(llmq_lsq_backward(&uint4, scales, &channels, 1, X, g, 12, dx, slopes, &error));
    for (size_t c = 0; c < 3; c++) {
        const float x1[4] = { X[2 * c], X[2 * c + 1], X[6 + 2 * c], X[7 + 2 * c] }, g1[4] = { g[2 * c], g[2 * c + 1], g[6 + 2 * c], g[7 + 2 * c] };
        float slope;
        assert_done(llmq_lsq_backward(&uint4, &scales[c], NULL, 1, x1, g1, 4, NULL, &slope, &error));
        assert_true(slope == slopes[c]);
    }
}

static void test_pact(void **state)
{
    (void)state;
    const float alpha = 2.2f, small = 1.5f, want[8] = { .942857f, -.314286f, 0, -1.257143f, .628571f, 0, -.628571f, 2.2f };
    float y[8], g[8], dx[8], slope;
    assert_done(llmq_pact_forward(4, &alpha, NULL, X, 8, y, &error));
    for (int i = 0; i < 8; i++) close_to((double)y[i], (double)want[i], 1e-6);
    gradient(y, g);
    assert_done(llmq_pact_backward(4, 0, &alpha, NULL, X, g, 8, dx, &slope, &error));
    close_to((double)slope, -.8, 1e-6);
    assert_true(dx[7] == 0 && dx[0] == g[0]);
    assert_done(llmq_pact_forward(4, &small, NULL, X, 8, y, &error));
    gradient(y, g);
    assert_done(llmq_pact_backward(4, 0, &small, NULL, X, g, 8, NULL, &slope, &error));
    close_to((double)slope, -2.2, 1e-6);
    const float scale = alpha / 7;
    float lsq;
    assert_done(llmq_pact_backward(4, 1, &alpha, NULL, X, g, 8, NULL, &slope, &error));
    assert_done(llmq_lsq_backward(&(struct llmq_codes){ -7, 7, 0, NULL }, &scale, NULL, 1, X, g, 8, NULL, &lsq, &error));
    close_to((double)slope, (double)lsq / 7, 1e-6);
}

/* ---- the optimisers -------------------------------------------------------------------------------------------------------------- */

static size_t n_learned;

static void check_case(const struct learn_case *golden)
{
    static const char *const methods[] = { "best", "search", "descent" }, *const starts[] = { "max", "3sd", "kl-j", "constant" };
    const struct llmq_learn_options options = { .rounding = rounding_name(golden->params.rounding),
                                                .scale = scale_type_name(golden->params.stored),
                                                .method = methods[golden->params.method],
                                                .start = starts[golden->params.start],
                                                .steps = golden->params.steps,
                                                .patience = golden->params.patience,
                                                .rate = golden->params.rate };
    struct llmq_learned learned;
    const float scale = f32_from_bits(golden->scale);
    if (golden->n == 0) return;
    const enum llmq_status status = llmq_learn(learn_rule_name(golden->rule), &options, golden->x, golden->weight, golden->n, golden->code_min,
                                               golden->code_max, &learned, &error);
    if (!isfinite(scale)) {
        assert_int_equal(status, LLMQ_ERR_DATA);
        return;
    }
    assert_done(status);
    const struct learned same = { learned.scale, learned.zero, learned.loss, learned.start_loss, learned.judged };
    learn_case_check(golden, &same);
    n_learned++;
}

static void test_golden(void **state)
{
    (void)state;
    assert_true(learn_cases("groups", check_case) > 0);
    assert_true(n_learned > 10);
}

static void test_denied(void **state)
{
    (void)state;
    const struct llmq_codes int4 = { -8, 7, 0, NULL }, empty = { 3, 3, 0, NULL }, wide = { -32768, 65535, 0, NULL }, off = { 0, 15, 16, NULL };
    const float zero = 0, nan = NAN, one = 1, huge = 1e30f, inf = INFINITY;
    float y[8], out;
    struct llmq_learned learned;
    assert_denied(llmq_lsq_forward(&int4, &zero, NULL, X, 8, y, &error), LLMQ_ERR_USAGE, "scale number 0, 0,");
    assert_denied(llmq_lsq_forward(&int4, &nan, NULL, X, 8, y, &error), LLMQ_ERR_USAGE, "positive and finite");
    assert_denied(llmq_lsq_forward(&int4, NULL, NULL, X, 8, y, &error), LLMQ_ERR_USAGE, "scales is NULL");
    assert_denied(llmq_lsq_forward(&empty, &one, NULL, X, 8, y, &error), LLMQ_ERR_USAGE, "no range");
    assert_denied(llmq_lsq_forward(&wide, &one, NULL, X, 8, y, &error), LLMQ_ERR_USAGE, "no range");
    assert_denied(llmq_lsq_forward(&off, &one, NULL, X, 8, y, &error), LLMQ_ERR_USAGE, "zero point 16");
    assert_denied(llmq_lsq_forward(&int4, &one, &(struct llmq_channels){ 3, 1 }, X, 8, y, &error), LLMQ_ERR_USAGE, "no multiple");
    assert_denied(llmq_lsq_forward(&int4, &one, &(struct llmq_channels){ 0, 1 }, X, 8, y, &error), LLMQ_ERR_USAGE, "are 0");
    assert_denied(llmq_lsq_forward(&int4, &one, &(struct llmq_channels){ UINT64_MAX, 2 }, X, 8, y, &error), LLMQ_ERR_USAGE, "no multiple");
    assert_denied(llmq_lsq_forward(&int4, &one, NULL, NULL, 8, y, &error), LLMQ_ERR_USAGE, "x is NULL");
    assert_denied(llmq_lsq_backward(&int4, &one, NULL, 1, X, X, 8, y, NULL, &error), LLMQ_ERR_USAGE, "gradients is NULL");
    assert_denied(llmq_lsq_backward(&int4, &one, NULL, nan, X, X, 8, y, &out, &error), LLMQ_ERR_USAGE, "grad_factor");
    assert_denied(llmq_lsq_start(X, 0, 7, &out, &error), LLMQ_ERR_USAGE, "no weights");
    assert_denied(llmq_lsq_grad_factor(8, 0, &out, &error), LLMQ_ERR_USAGE, "below 1");
    assert_denied(llmq_tqt_forward(1, NULL, &one, NULL, X, 8, y, &error), LLMQ_ERR_USAGE, "1 bits");
    assert_denied(llmq_tqt_forward(4, "odd", &one, NULL, X, 8, y, &error), LLMQ_ERR_USAGE, "rounding 'odd'");
    assert_denied(llmq_tqt_forward(4, NULL, &huge, NULL, X, 8, y, &error), LLMQ_ERR_USAGE, "has no scale");
    assert_denied(llmq_tqt_scale(4, nan, &out, &error), LLMQ_ERR_USAGE, "has no scale");
    assert_denied(llmq_tqt_start("2sd", 4, X, 8, &out, NULL, &error), LLMQ_ERR_USAGE, "none of 3sd, kl-j");
    assert_denied(llmq_tqt_start("3sd", 4, &nan, 1, &out, NULL, &error), LLMQ_ERR_DATA, "weight number 0");
    assert_denied(llmq_pact_forward(4, &inf, NULL, X, 8, y, &error), LLMQ_ERR_USAGE, "alpha number 0");
    assert_denied(llmq_pact_backward(4, 1, &zero, NULL, X, X, 8, y, &out, &error), LLMQ_ERR_USAGE, "too small");
    assert_denied(llmq_learn("adam", NULL, X, NULL, 8, -8, 7, &learned, &error), LLMQ_ERR_USAGE, "none of tqt, lsq, pact");
    assert_denied(llmq_learn("lsq", NULL, X, NULL, 8, 1, 7, &learned, &error), LLMQ_ERR_USAGE, "no range around 0");
    assert_denied(llmq_learn("lsq", NULL, X, NULL, 8, -128, 255, &learned, &error), LLMQ_ERR_USAGE, "no range around 0");
    assert_denied(llmq_learn("tqt", NULL, X, NULL, 8, -8, 6, &learned, &error), LLMQ_ERR_USAGE, "power of two");
    assert_denied(llmq_learn("lsq", NULL, X, NULL, 0, -8, 7, &learned, &error), LLMQ_ERR_USAGE, "no weights");
    assert_denied(llmq_learn("lsq", NULL, &nan, NULL, 1, -8, 7, &learned, &error), LLMQ_ERR_DATA, "NaN or Inf");
    assert_denied(llmq_learn("lsq", NULL, X, &(float){ -1 }, 1, -8, 7, &learned, &error), LLMQ_ERR_DATA, "importance number 0");
    assert_denied(llmq_learn("lsq", &(struct llmq_learn_options){ .method = "x" }, X, NULL, 8, -8, 7, &learned, &error), LLMQ_ERR_USAGE,
                  "method 'x'");
    assert_denied(llmq_learn("lsq", &(struct llmq_learn_options){ .start = "x" }, X, NULL, 8, -8, 7, &learned, &error), LLMQ_ERR_USAGE, "start 'x'");
    assert_denied(llmq_learn("lsq", &(struct llmq_learn_options){ .scale = "e8m0" }, X, NULL, 8, -8, 7, &learned, &error), LLMQ_ERR_USAGE,
                  "scale 'e8m0'");
    assert_denied(llmq_learn("lsq", &(struct llmq_learn_options){ .rate = -1 }, X, NULL, 8, -8, 7, &learned, &error), LLMQ_ERR_USAGE, "rate -1");
    assert_done(llmq_lsq_forward(&int4, &one, NULL, NULL, 0, NULL, &error));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tqt),  cmocka_unit_test(test_lsq),    cmocka_unit_test(test_channels),
        cmocka_unit_test(test_pact), cmocka_unit_test(test_golden), cmocka_unit_test(test_denied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
