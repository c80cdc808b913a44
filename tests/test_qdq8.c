/* test_qdq8.c: the reference's 8-bit quantise-dequantise: worked numbers.
 *
 * Formula: (clamp(round(x / scale + zero)) - zero) * scale.
 * Why this way: the expected numbers are those of the specification, worked out by hand in binary32; random ones are in test_smooth_search.c's vectors.
 * Corner cases: ties, zeros, one number, ranges that do not hold 0, conv layout.
 * Reference: the project's smoothquant notes 6e.2 to 6e.4. Worked number: sym, 4 bits, 1, -.5, .26: codes 7, -4, 2.
 */
#include "support/support.h"

#include <math.h>

#include "smoothquant/qdq8.h"

static void check(const float *y, const float *wanted, size_t n)
{
    for (size_t j = 0; j < n; j++)
        if (y[j] != wanted[j]) fail_msg("number %zu: %.9g, not %.9g", j, (double)y[j], (double)wanted[j]);
}

static void test_weights(void **state)
{
    (void)state;
    struct qdq_params params[2];
    float y[8];
    qdq_weight_linear((const float[]){ 1, -.5f, .26f }, 1, 3, 4, QDQ_SYM, y, params);
    assert_true(params[0].scale == 1 / 7.5f && params[0].zero == 0);
    check(y, (const float[]){ 7 * (1 / 7.5f), -4 * (1 / 7.5f), 2 * (1 / 7.5f) }, 3);
    assert_true(fabsf(y[0] - .9333333f) < 1e-6f && fabsf(y[1] + .5333333f) < 1e-6f && fabsf(y[2] - .2666667f) < 1e-6f);
    qdq_weight_linear((const float[]){ .2f, .8f }, 1, 2, 4, QDQ_ASYM, y, params);
    assert_true(params[0].zero == -4);
    check(y, (const float[]){ 4 * params[0].scale, 15 * params[0].scale }, 2);
    assert_true(fabsf(y[0] - .2133333f) < 1e-6f && fabsf(y[1] - .8f) < 1e-6f);
    /* two rows, each its own scale; a row of zeros */
    qdq_weight_linear((const float[]){ 0, 0, 127.5f, -127.5f }, 2, 2, 8, QDQ_SYM, y, params);
    assert_true(params[0].scale == 0x1p-23f && params[1].scale == 1);
    check(y, (const float[]){ 0, 0, 127, -128 }, 4);
    /* ties to even */
    qdq_weight_linear((const float[]){ .5f, 1.5f, 2.5f, -.5f, -2.5f, 127.5f }, 1, 6, 8, QDQ_SYM, y, NULL);
    check(y, (const float[]){ 0, 2, 2, 0, -2, 127 }, 6);
}

static void test_conv(void **state)
{
    (void)state;
    struct qdq_params params[2];
    /* [2 out, 2 in, 1, 1]: channel 0 has 7, -3.4, channel 1 has .5, 14 */
    float w[] = { 7, .5f, -3.4f, 14 };
    qdq_weight_conv(w, 2, 2, 1, 1, 4, QDQ_SYM, w, params);
    assert_true(params[0].scale == 1 && params[1].scale == 2);
    check(w, (const float[]){ 7, 0, -3, 14 }, 4);
    /* [1, 2, 1, 2], asym: 0 .. 15 and -1 .. 14 */
    float v[] = { 0, 15, -1, 14 };
    qdq_weight_conv(v, 1, 2, 1, 2, 4, QDQ_ASYM, v, params);
    assert_true(params[0].zero == 0 && params[1].zero == 1);
    check(v, (const float[]){ 0, 15, -1, 14 }, 4);
}

static void test_activations(void **state)
{
    (void)state;
    const float x[] = { -1, 0, .5f, 3 };
    struct qdq_params params;
    float y[4];
    qdq_act(x, 4, NULL, NULL, 0, 8, y, &params);
    assert_true(params.scale == 4.0f / 255 && params.zero == 64);
    check(y, (const float[]){ -64 * params.scale, 0, 32 * params.scale, 191 * params.scale }, 4);
    assert_true(fabsf(y[0] + 1.0039216f) < 1e-6f && fabsf(y[2] - .5019608f) < 1e-6f && fabsf(y[3] - 2.9960784f) < 1e-6f);
    /* given ranges: channels' own */
    qdq_act(x, 4, (const float[]){ 0, -1 }, (const float[]){ 1, .5f }, 2, 8, y, &params);
    assert_true(params.scale == 2.0f / 255);
    assert_true(y[3] == (255 - params.zero) * params.scale);
    /* a range without 0 keeps its own zero point */
    const struct qdq_params far = qdq_act_params(10, 12, 8);
    assert_true(far.zero == -1275);
    float one[] = { 11 };
    qdq_act(one, 1, NULL, NULL, 0, 8, one, &params); /* no range: scale 2^-23, clamped */
    assert_true(params.scale == 0x1p-23f);
}

static void test_linear(void **state)
{
    (void)state;
    const float min[] = { -2, 1 }, max[] = { 4, 3 }, inverse[] = { .5f, 2 };
    const struct qdq_linear linear = qdq_linear_params(min, max, inverse, 2);
    assert_true(linear.low == -1 && linear.high == 6 && linear.scale == 7.0f / 255 && linear.zero == 36);
    const struct qdq_linear positive = qdq_linear_params(min + 1, max + 1, NULL, 1);
    assert_true(positive.low == 0 && positive.high == 3 && positive.zero == 0);
    const struct qdq_linear none = qdq_linear_params(min, max, NULL, 0);
    assert_true(none.scale == 0x1p-23f && none.zero == 0);
    float scales[2];
    qdq_row_scales((const float[]){ 255, -1, 0, 0 }, 2, 2, scales);
    check(scales, (const float[]){ 2, 0x1p-23f }, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_conv),
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
