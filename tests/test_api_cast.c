/* test_api_cast.c: casts to one element, rounding codes of other tools, and multiplier quantisers through llmq.h.
 *
 * Why this way: expected codes are those of the specification's worked tables.
 * Corner cases: Inf, NaN, -0, subnormals, ties; unknown names and codes; scales out of range.
 * Reference: the specification's 1, 4.1, 4.2, 8.4, 8.6.4. Worked number: E4M3 of 0.3 is 2A, 0.3125.
 */
#include "support/api_support.h"

#include <math.h>

static void check_codes(const char *element, const float *x, const uint16_t *want, size_t n)
{
    uint16_t codes[32];
    assert_done(llmq_element_encode(element, NULL, 0, x, n, codes, &error));
    for (size_t i = 0; i < n; i++)
        if (codes[i] != want[i]) fail_msg("%s of %g: %02X, not %02X", element, (double)x[i], codes[i], want[i]);
}

static void test_fp8(void **state)
{
    (void)state;
    const float a[] = {
        0.3f, -0.3f, 1, 448, 464, 500, INFINITY, -1e6f, 0x1p-9f, 0x1p-10f, 1.5f * 0x1p-9f, 2.5f * 0x1p-9f, 0.0156f, 17, 19, NAN, -0.0f
    };
    const uint16_t a_codes[] = { 0x2A, 0xAA, 0x38, 0x7E, 0x7E, 0x7E, 0x7E, 0xFE, 0x01, 0x00, 0x02, 0x02, 0x08, 0x58, 0x5A, 0x7F, 0x80 };
    const float b[] = { 0.3f, 1, 57344, 61440, 1e6f, INFINITY, 0x1p-16f, 0x1p-17f, 1.5f * 0x1p-16f, 1.125f, 1.375f, NAN, -0.0f };
    const uint16_t b_codes[] = { 0x35, 0x3C, 0x7B, 0x7B, 0x7B, 0x7B, 0x01, 0x00, 0x02, 0x3C, 0x3E, 0x7F, 0x80 };
    float y[3];
    check_codes("fp8_e4m3", a, a_codes, 17);
    check_codes("e5m2", b, b_codes, 13);
    assert_done(llmq_element_decode("e4m3", 0, (const uint16_t[]){ 0x2A, 0x7E, 0x58 }, 3, y, &error));
    assert_true(y[0] == 0.3125f && y[1] == 448 && y[2] == 16);
    assert_done(llmq_element_decode("e4m3", 0.5f, (const uint16_t[]){ 0x2A, 0x7E, 0x7F }, 3, y, &error));
    assert_true(y[0] == 0.15625f && y[1] == 224 && isnan(y[2]));
    assert_done(llmq_element_cast("e4m3", NULL, 0.5f, (const float[]){ 8.5f, 9.5f, -300 }, 3, y, &error));
    assert_true(y[0] == 8 && y[1] == 10 && y[2] == -224);
}

static void test_other_elements(void **state)
{
    (void)state;
    check_codes("fp4", (const float[]){ .5f, -1, 6, -6, 0, 1.5f, 3, -.5f, -0.0f, INFINITY }, (const uint16_t[]){ 1, 0xA, 7, 0xF, 0, 3, 5, 9, 8, 7 },
                10);
    check_codes("fp6_e2m3", (const float[]){ 7.5f, -.125f, 1, -4.5f }, (const uint16_t[]){ 0x1F, 0x21, 0x08, 0x39 }, 4);
    check_codes("fp6_e3m2", (const float[]){ 28, -.0625f, 1, -3.5f }, (const uint16_t[]){ 0x1F, 0x21, 0x0C, 0x33 }, 4);
    check_codes("int4", (const float[]){ -9, -8, -2.5f, 1.5f, 8, 7 }, (const uint16_t[]){ 8, 8, 0xE, 2, 7, 7 }, 6);
    check_codes("uint4", (const float[]){ -1, 2.5f, 99 }, (const uint16_t[]){ 0, 2, 15 }, 3);
    check_codes("float16", (const float[]){ 1, 65504, 1e6f, -0.0f, 0x1p-24f }, (const uint16_t[]){ 0x3C00, 0x7BFF, 0x7C00, 0x8000, 1 }, 5);
    check_codes("bf16", (const float[]){ 1, 1.00390625f, -2, INFINITY }, (const uint16_t[]){ 0x3F80, 0x3F80, 0xC000, 0x7F80 }, 4);
    uint16_t codes[6];
    const float ties[] = { -2.5f, -1.5f, -.5f, .5f, 1.5f, 2.5f };
    assert_done(llmq_element_encode("int8", "up", 0, ties, 6, codes, &error));
    for (int i = 0; i < 6; i++) assert_int_equal((int8_t)codes[i], i - 2);
    uint32_t bits;
    assert_done(llmq_element_bits("fp6_e3m2", &bits, &error));
    assert_int_equal(bits, 6);
    assert_done(llmq_element_bits("bfloat16", &bits, &error));
    assert_int_equal(bits, 16);
}

static void test_denied(void **state)
{
    (void)state;
    uint16_t codes[2];
    float y[2];
    const float nan = NAN;
    assert_denied(llmq_element_encode("e9m9", NULL, 0, &nan, 1, codes, &error), LLMQ_ERR_USAGE, "unknown element");
    assert_denied(llmq_element_encode(NULL, NULL, 0, &nan, 1, codes, &error), LLMQ_ERR_USAGE, "element is NULL");
    assert_denied(llmq_element_encode("int4", "odd", 0, y, 1, codes, &error), LLMQ_ERR_USAGE, "rounding 'odd'");
    assert_denied(llmq_element_encode("f16", "up", 0, y, 1, codes, &error), LLMQ_ERR_USAGE, "nearest even only");
    assert_denied(llmq_element_encode("nf4", "up", 0, y, 1, codes, &error), LLMQ_ERR_USAGE, "nearest even only");
    assert_denied(llmq_element_encode("int4", NULL, -1, y, 1, codes, &error), LLMQ_ERR_USAGE, "scale -1");
    assert_denied(llmq_element_encode("int4", NULL, nan, y, 1, codes, &error), LLMQ_ERR_USAGE, "scale nan");
    assert_denied(llmq_element_cast("fp4", NULL, 0, &nan, 1, y, &error), LLMQ_ERR_DATA, "number 0 is NaN");
    assert_denied(llmq_element_cast("fp4", NULL, 0, NULL, 1, y, &error), LLMQ_ERR_USAGE, "x is NULL");
    assert_denied(llmq_element_decode("fp4", 0, NULL, 1, y, &error), LLMQ_ERR_USAGE, "codes is NULL");
    assert_denied(llmq_element_bits("fp4", NULL, &error), LLMQ_ERR_USAGE, "bits is NULL");
}

static void test_rounding_codes(void **state)
{
    (void)state;
    static const struct {
        const char *vocabulary;
        int32_t code;
        const char *rounding;
    } rows[] = { { "onnx", 0, "away" }, { "onnx", 1, "up" },    { "onnx", 2, "nearest-even" },
                 { "torch", 2, "up" },  { "torch", 3, "away" }, { "torch", 8, "nearest-even" } };
    const char *rounding;
    int32_t code;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_done(llmq_rounding_of_code(rows[i].vocabulary, rows[i].code, &rounding, &error));
        assert_string_equal(rounding, rows[i].rounding);
        assert_done(llmq_code_of_rounding(rows[i].vocabulary, rounding, &code, &error));
        assert_int_equal(code, rows[i].code);
    }
    assert_denied(llmq_rounding_of_code("torch", 0, &rounding, &error), LLMQ_ERR_USAGE, "no rounding code of torch");
    assert_denied(llmq_rounding_of_code("torch", -1, &rounding, &error), LLMQ_ERR_USAGE, "no rounding code");
    assert_denied(llmq_rounding_of_code("onnx", 3, &rounding, &error), LLMQ_ERR_USAGE, "no rounding code of onnx");
    assert_denied(llmq_rounding_of_code("gpu", 0, &rounding, &error), LLMQ_ERR_USAGE, "none of onnx, torch");
    assert_denied(llmq_rounding_of_code(NULL, 0, &rounding, &error), LLMQ_ERR_USAGE, "none of onnx, torch");
    assert_denied(llmq_code_of_rounding("onnx", "truncate", &code, &error), LLMQ_ERR_USAGE, "no code for rounding truncate");
    assert_denied(llmq_code_of_rounding("onnx", "odd", &code, &error), LLMQ_ERR_USAGE, "rounding 'odd'");
}

static const float X[8] = { 0.9f, -0.35f, 0.12f, -1.4f, 0.61f, 0.05f, -0.77f, 2.6f };

static void test_approx(void **state)
{
    (void)state;
    const float want8[8] = { 44, -17, 6, -68, 30, 2, -38, 127 }, want4[8] = { 2, -1, 0, -4, 2, 0, -2, 7 };
    const float alpha8[8] = { 52, -20, 7, -81, 35, 3, -44, 127 };
    struct llmq_approx approx;
    float q[8], x[8], dx[8];
    assert_done(llmq_approx_minmax(8, X, 8, &approx, &error));
    assert_true(fabsf(approx.factor - 48.84615f) < 1e-4f && approx.int_max == 127);
    assert_done(llmq_approx_quantize(&approx, X, 8, q, &error));
    assert_memory_equal(q, want8, sizeof q);
    assert_done(llmq_approx_minmax(4, X, 8, &approx, &error));
    assert_done(llmq_approx_quantize(&approx, X, 8, q, &error));
    assert_memory_equal(q, want4, sizeof q);
    assert_done(llmq_approx_dequantize(&approx, q, 8, x, &error));
    assert_true(fabsf(x[0] - .742857f) < 1e-6f && x[7] == 2.6f);
    assert_done(llmq_approx_for_range(8, 2.2f, &approx, &error));
    assert_done(llmq_approx_quantize(&approx, X, 8, q, &error));
    assert_memory_equal(q, alpha8, sizeof q);
    assert_done(llmq_approx_backward(&approx, 0, NULL, want4, 8, dx, &error));
    assert_true(dx[7] == 7 * approx.factor);
    assert_done(llmq_approx_backward(&approx, 1, X, want4, 8, dx, &error));
    assert_true(dx[7] == 0 && dx[0] == 2 * approx.factor);
    assert_done(llmq_approx_for_range(8, 0, &approx, &error));
    assert_true(approx.factor == 1);
    assert_denied(llmq_approx_for_range(1, 1, &approx, &error), LLMQ_ERR_USAGE, "1 bits");
    assert_denied(llmq_approx_for_range(17, 1, &approx, &error), LLMQ_ERR_USAGE, "17 bits");
    assert_denied(llmq_approx_for_range(8, -1, &approx, &error), LLMQ_ERR_USAGE, "the range");
    assert_denied(llmq_approx_minmax(8, &(float){ NAN }, 1, &approx, &error), LLMQ_ERR_DATA, "NaN or Inf");
    approx.factor = 0;
    assert_denied(llmq_approx_quantize(&approx, X, 8, q, &error), LLMQ_ERR_USAGE, "the factor");
    assert_denied(llmq_approx_quantize(NULL, X, 8, q, &error), LLMQ_ERR_USAGE, "approx is NULL");
}

/* MinMaxQuant as a setting of the converter's format: the same codes, scale 1 / factor. */
static void test_half_range(void **state)
{
    (void)state;
    struct llmq_quant *quant;
    const struct llmq_view view = { DIMS(8), 1, 0 };
    const int32_t want[8] = { 2, -1, 0, -4, 2, 0, -2, 7 };
    unsigned char codes[4], scales[4];
    int32_t read[8];
    float scale;
    assert_done(llmq_quant_open("int4:scale=f32,half-range=int_max", &quant, &error));
    assert_done(llmq_quantise(quant, &view, X, NULL, codes, scales, NULL, &error));
    assert_done(llmq_planes_read(quant, &view, codes, scales, NULL, read, &scale, NULL, NULL, &error));
    assert_memory_equal(read, want, sizeof want);
    assert_true(scale == 2.6f / 7.0f);
    llmq_quant_close(quant);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fp8),    cmocka_unit_test(test_other_elements), cmocka_unit_test(test_denied), cmocka_unit_test(test_rounding_codes),
        cmocka_unit_test(test_approx), cmocka_unit_test(test_half_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
