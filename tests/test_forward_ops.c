/* test_forward_ops.c: norms, activations and softmax against binary64 and worked numbers; corner cases of exp. */
#include "smoothquant/forward_ops.h"
#include "support/support.h"

#include <math.h>

static void near(double found, double wanted, double tolerance, const char *what)
{
    if (!(fabs(found - wanted) <= tolerance * (1.0 + fabs(wanted)))) fail_msg("%s is %.9g, wanted %.9g", what, found, wanted);
}

static void test_exp(void **state)
{
    (void)state;
    double worst = 0.0, worst_tanh = 0.0;
    for (double x = -87.0; x < 88.5; x += 0.00137) {
        const float f = (float)x;
        const double e = exp((double)f), t = tanh((double)f / 8.0);
        worst = fmax(worst, fabs((double)exp_f32(f) - e) / e);
        worst_tanh = fmax(worst_tanh, fabs((double)tanh_f32(f / 8.0f) - t));
    }
    assert_true(worst < 2.0 * 0x1p-23);
    assert_true(worst_tanh < 4e-7);
    assert_true(exp_f32(0.0f) == 1.0f && exp_f32(-HUGE_VALF) == 0.0f && exp_f32(-200.0f) == 0.0f && exp_f32(100.0f) == HUGE_VALF &&
                isnan(exp_f32(NAN)));
    assert_true(exp_f32(-100.0f) > 0.0f); /* a subnormal number */
    assert_true(tanh_f32(HUGE_VALF) == 1.0f && tanh_f32(-HUGE_VALF) == -1.0f && isnan(tanh_f32(NAN)) && tanh_f32(1e-10f) == 1e-10f);
    assert_true(sigmoid_f32(0.0f) == 0.5f && sigmoid_f32(-200.0f) == 0.0f && sigmoid_f32(200.0f) == 1.0f);
}

static void test_norms(void **state)
{
    (void)state;
    const float x[] = { 3, 4 }, y[] = { 1, 3 }, gain[] = { 2, -1 }, bias[] = { 0.5f, 1 };
    float out[2];
    norm_rows(&(struct norm){ .kind = NORM_RMS, .n = 2 }, x, 2, 1, out, 2);
    near((double)out[0], 0.848528137, 1e-6, "rms");
    near((double)out[1], 1.131370850, 1e-6, "rms");
    norm_rows(&(struct norm){ .kind = NORM_RMS, .n = 2, .gain = gain, .plus_one = true }, x, 2, 1, out, 2);
    near((double)out[0], 3 * 0.848528137, 1e-6, "1 + gain");
    near((double)out[1], 0.0, 1e-6, "1 + gain");
    norm_rows(&(struct norm){ .kind = NORM_LAYER, .n = 2, .gain = gain, .bias = bias }, y, 2, 1, out, 2);
    near((double)out[0], -1.5, 1e-6, "layer norm");
    near((double)out[1], 0.0, 1e-6, "layer norm");
    norm_rows(&(struct norm){ .kind = NORM_LAYER, .n = 2, .eps = 3.0f }, y, 2, 1, out, 2);
    near((double)out[1], 0.5, 1e-6, "epsilon");
    norm_rows(&(struct norm){ .kind = NORM_NONE, .n = 2 }, x, 2, 1, out, 2);
    assert_memory_equal(out, x, sizeof x);

    /* rows with gaps, in place, lengths with tails */
    uint64_t seed = 5;
    for (size_t n = 1; n < 40; n += 3) {
        float rows[3 * 41], before[3 * 41];
        for (size_t i = 0; i < 123; i++) rows[i] = (float)((double)(test_random(&seed) >> 11) * 0x1p-53) - 0.3f;
        memcpy(before, rows, sizeof rows);
        norm_rows(&(struct norm){ .kind = NORM_RMS, .n = n, .eps = 1e-6f }, rows, 41, 3, rows, 41);
        for (size_t r = 0; r < 3; r++) {
            double sum = 0.0;
            for (size_t j = 0; j < n; j++) sum += (double)before[r * 41 + j] * (double)before[r * 41 + j];
            for (size_t j = 0; j < 41; j++)
                near((double)rows[r * 41 + j], j < n ? (double)before[r * 41 + j] / sqrt(sum / (double)n + 1e-6) : (double)before[r * 41 + j], 1e-6,
                     "row");
        }
    }
}

static double exact(enum activation kind, double x)
{
    if (kind == ACT_SILU) return x / (1.0 + exp(-x));
    if (kind == ACT_GELU) return 0.5 * x * (1.0 + erf(x / sqrt(2.0)));
    if (kind == ACT_GELU_TANH) return 0.5 * x * (1.0 + tanh(sqrt(2.0 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    if (kind == ACT_QUICK_GELU) return x / (1.0 + exp(-1.702 * x));
    const double r = x > 0.0 ? x : 0.0;
    return kind == ACT_RELU ? r : r * r;
}

static void test_activations(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < ACT_COUNT; kind++)
        for (int i = -200; i <= 200; i++) {
            float x[3] = { (float)i / 20.0f, 1.0f, -1.0f }, y[3], up[3] = { 3, 2, 1 };
            memcpy(y, x, sizeof x);
            activate((enum activation)kind, x, 3);
            near((double)x[0], exact((enum activation)kind, (double)y[0]), 2e-6, "activation");
            near((double)x[2], exact((enum activation)kind, -1.0), 2e-6, "activation");
            activate_gated((enum activation)kind, y, up, 3);
            assert_true(y[0] == x[0] * 3.0f && y[1] == x[1] * 2.0f && y[2] == x[2]);
        }
    static const struct {
        const char *name;
        enum activation kind;
    } names[] = { { "silu", ACT_SILU },
                  { "swish", ACT_SILU },
                  { "gelu", ACT_GELU },
                  { "gelu_new", ACT_GELU_TANH },
                  { "gelu_pytorch_tanh", ACT_GELU_TANH },
                  { "relu", ACT_RELU },
                  { "relu2", ACT_RELU2 },
                  { "quick_gelu", ACT_QUICK_GELU },
                  { "mish", ACT_COUNT },
                  { "", ACT_COUNT } };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) assert_int_equal(activation_find(names[i].name), names[i].kind);
    float gate[] = { 9.0f, -2.0f }, up[] = { 8.0f, -9.0f };
    activate_clamped(gate, up, 2, 7.0f);
    near((double)gate[0], 7.0 / (1.0 + exp(-1.702 * 7.0)) * 8.0, 1e-6, "clamped");
    near((double)gate[1], -2.0 / (1.0 + exp(1.702 * 2.0)) * -6.0, 1e-6, "clamped");
    float capped[] = { 100.0f, -1.0f, 0.0f };
    softcap(capped, 3, 5.0f);
    near((double)capped[0], 5.0, 1e-6, "cap");
    near((double)capped[1], 5.0 * tanh(-0.2), 1e-6, "cap");
    float biased[] = { 1, 2, 9, 3, 4, 9 };
    add_bias(biased, 2, 2, 3, (const float[]){ 10, 20 });
    assert_memory_equal(biased, ((const float[]){ 11, 22, 9, 13, 24, 9 }), sizeof biased);
}

static void test_softmax(void **state)
{
    (void)state;
    float x[] = { 0.0f, 1.0986123f }, far[] = { -1000.0f, 1000.0f }, with_sink[] = { 0.0f, 0.0f }, none[] = { -HUGE_VALF, -HUGE_VALF };
    const float sink = 0.6931472f;
    softmax(x, 2, NULL);
    near((double)x[0], 0.25, 1e-6, "softmax");
    near((double)x[1], 0.75, 1e-6, "softmax");
    softmax(far, 2, NULL);
    assert_true(far[0] == 0.0f && far[1] == 1.0f);
    softmax(with_sink, 2, &sink);
    near((double)with_sink[0], 0.25, 1e-6, "sink");
    softmax(none, 2, NULL);
    assert_true(none[0] == 0.0f && none[1] == 0.0f);
    softmax(none, 0, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_exp), cmocka_unit_test(test_norms), cmocka_unit_test(test_activations),
                                        cmocka_unit_test(test_softmax) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
