/* test_forward_quantised.c: weights that are encoded and decoded on their way: parts of a matrix are parts of the whole, for every kind of group. */
#include "smoothquant/forward_quantised.h"
#include "smoothquant/smooth_target.h"
#include "support/live.h"
#include "support/support.h"

#include <math.h>

static void check(struct live *live, const char *format)
{
    struct err err;
    struct quant quant;
    const struct quant_params none = { 0 };
    struct quantised_weights *weights;
    struct smooth_target *target;
    const size_t tensor = live->model->layers[1].experts[0].down.weight.tensor, norm = live->model->layers[1].attn_norm.gain.tensor;
    const uint64_t rows = 256, cols = 352;
    float *plain = malloc(rows * cols * sizeof *plain), *whole = malloc(rows * cols * sizeof *whole), *part = malloc(rows * cols * sizeof *part);
    assert_ok(quant_parse(format, &none, &quant, &err));
    assert_ok(quantised_weights_open(&quant, live->model, &live->options.source, live->container, &weights, &err));
    const struct weight_source source = quantised_weights_source(weights);
    assert_ok(live->options.source.read(live->options.source.context, tensor, 0, rows, 0, cols, plain, &err));
    assert_ok(smooth_target_open(&quant, rows, cols, &target, &err));
    assert_true(smooth_target_run(target, plain, rows, NULL, -1.0f, whole));
    assert_memory_not_equal(plain, whole, rows * cols * sizeof *plain);
    static const uint64_t parts[][4] = { { 0, 256, 0, 352 }, { 100, 30, 10, 300 }, { 127, 2, 0, 352 }, { 255, 1, 351, 1 }, { 3, 200, 32, 64 } };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        const uint64_t *p = parts[i];
        assert_ok(source.read(source.context, tensor, p[0], p[1], p[2], p[3], part, &err));
        for (uint64_t r = 0; r < p[1]; r++)
            for (uint64_t c = 0; c < p[3]; c++)
                if (part[r * p[3] + c] != whole[(p[0] + r) * cols + p[2] + c])
                    fail_msg("%s: row %d, column %d differ", format, (int)(p[0] + r), (int)(p[2] + c));
    }
    /* norms and embeddings pass as they are */
    float a[256], b[256];
    for (size_t i = 0; i < 2; i++) {
        const size_t kept = i ? live->model->token_embd.tensor : norm;
        assert_ok(source.read(source.context, kept, 0, 1, 0, 256, a, &err));
        assert_ok(live->options.source.read(live->options.source.context, kept, 0, 1, 0, 256, b, &err));
        assert_memory_equal(a, b, sizeof a);
    }
    smooth_target_close(target);
    quantised_weights_close(weights);
    free(plain), free(whole), free(part);
}

static void test_formats(void **state)
{
    (void)state;
    static const char *const formats[] = {
        "int4:group=32", "int8:group=channel", "fp8_e4m3:group=128x128", "mxfp4", "nvfp4", "bfp16", "mx6", "uint3"
    };
    struct live live;
    live_open(&live, NULL);
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) check(&live, formats[i]);
    live_close(&live);
}

static enum status read_nan(void *context, size_t tensor, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols, float *out, struct err *err)
{
    (void)context, (void)tensor, (void)row, (void)col, (void)err;
    for (uint64_t i = 0; i < n_rows * n_cols; i++) out[i] = NAN;
    return OK;
}

static void test_refusals(void **state)
{
    (void)state;
    struct err err;
    struct quant quant;
    const struct quant_params none = { 0 };
    struct quantised_weights *weights = NULL;
    struct live live;
    float out[352];
    live_open(&live, NULL);
    assert_ok(quant_parse("int8:group=tensor", &none, &quant, &err));
    assert_refused(quantised_weights_open(&quant, live.model, &live.options.source, live.container, &weights, &err), ERR_UNSUPPORTED, "whole tensor");
    assert_ok(quant_parse("int8", &none, &quant, &err));
    const struct weight_source bad = { read_nan, NULL };
    assert_ok(quantised_weights_open(&quant, live.model, &bad, live.container, &weights, &err));
    const struct weight_source source = quantised_weights_source(weights);
    assert_refused(source.read(source.context, live.model->layers[1].experts[0].down.weight.tensor, 0, 1, 0, 352, out, &err), ERR_DATA,
                   "model.layers.1.mlp.down_proj.weight");
    quantised_weights_close(weights);
    quantised_weights_close(NULL);
    live_close(&live);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_formats), cmocka_unit_test(test_refusals) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
