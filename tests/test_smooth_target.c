/* test_smooth_target.c: rows through every format and back are what the public interface makes of them.
 *
 * Drawing: all formats x group kinds x some rules: smooth_target_run == llmq_quantise_rows and llmq_dequantise_rows, bit for bit.
 * Why this way: the public interface goes through whole planes as a file has them, so a row of scales taken for another one shows.
 * Corner cases: groups over several tiles, fewer rows than there is room for, a scale of the matrix from outside, importance, NaN, overflow of a scale, no
 * rows at all.
 * Reference: smooth_target.h. Worked number: fp8_e4m3:group=128x128, 200 x 300: 6 scales.
 */
#include "support/api_support.h"

#include <float.h>
#include <math.h>

#include "layout/codec.h"
#include "smoothquant/smooth_scale.h"
#include "smoothquant/smooth_target.h"
#include "support/weights.h"

static struct err err;

/* What the public interface makes of the rows; false when it refuses them. */
static bool there_and_back(const struct llmq_quant *quant, const float *x, uint64_t rows, uint64_t cols, float *y)
{
    struct llmq_sizes sizes;
    if (llmq_quant_sizes(quant, rows, cols, &sizes, &error) != LLMQ_OK) return false;
    void *codes = malloc((size_t)sizes.codes + 1), *scales = malloc((size_t)sizes.scales + 1), *zeros = malloc((size_t)sizes.zeros + 1);
    const bool done = llmq_quantise_rows(quant, x, rows, cols, codes, scales, zeros, &error) == LLMQ_OK &&
                      llmq_dequantise_rows(quant, codes, scales, zeros, rows, cols, y, &error) == LLMQ_OK;
    free(codes);
    free(scales);
    free(zeros);
    return done;
}

/* Compares the whole of rows x cols weights; false when the format refuses them in both. */
static bool compare(const char *text, uint64_t rows, uint64_t cols, uint64_t room)
{
    struct quant quant;
    struct llmq_quant *other;
    if (quant_parse(text, NULL, &quant, &err) != OK) return false;
    assert_done(llmq_quant_open(text, &other, &error));
    const size_t n = (size_t)(rows * cols);
    float *x = malloc(n * sizeof *x), *mine = malloc(n * sizeof *mine), *theirs = malloc(n * sizeof *theirs);
    assert_true(x && mine && theirs);
    weights_make(WEIGHTS_OUTLIER, 3, n, x);
    for (size_t i = 0; i < n; i++) x[i] *= 0x1p-6f;
    struct smooth_target *target;
    const bool opened = smooth_target_open(&quant, room, cols, &target, &err) == OK;
    const bool done = there_and_back(other, x, rows, cols, theirs);
    if (opened && done) {
        assert_true(smooth_target_run(target, x, rows, NULL, -1.0f, mine));
        for (size_t i = 0; i < n; i++)
            if (mine[i] != theirs[i]) fail_msg("%s, weight %zu: %a, not %a", text, i, (double)mine[i], (double)theirs[i]);
    } else if (opened != done) fail_msg("%s: %s, %s", text, opened ? "opened" : err.text, done ? "done" : error.text);
    smooth_target_close(target);
    llmq_quant_close(other);
    free(x);
    free(mine);
    free(theirs);
    return opened;
}

static void test_all_formats(void **state)
{
    (void)state;
    static const char *const groups[] = { "", ":group=channel", ":group=tensor", ":group=128x128", ":group=64" };
    size_t n_done = 0;
    for (size_t f = 0; f < format_count(); f++)
        for (size_t g = 0; g < 5; g++) {
            char text[96];
            snprintf(text, sizeof text, "%s%s", format_at(f)->name, groups[g]);
            n_done += compare(text, 37, 512, 37);
            n_done += g == 3 && compare(text, 200, 300, 500);
        }
    if (n_done < 2 * format_count()) fail_msg("only %zu formats were compared", n_done);
}

static void test_spanning(void **state)
{
    (void)state;
    static const char *const texts[] = { "int4:group=tensor",
                                         "uint4:group=tensor,rule=mse",
                                         "int8:group=tensor,rule=percentile,percentile=99.9",
                                         "int4:group=tensor,rule=tqt",
                                         "fp8_e4m3:group=128x128",
                                         "fp8_e4m3:group=tensor",
                                         "nvfp4",
                                         "fp8_e4m3:group=128x128,rule=mse",
                                         "int4:group=channel,rule=mse" };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        for (int less = 0; less < 2; less++)
            if (!compare(texts[i], less ? 130 : 600, 700, 600)) fail_msg("%s: %s", texts[i], err.text);
}

/* A part of a matrix with the range of the whole. */
static void test_scale_of_matrix(void **state)
{
    (void)state;
    struct quant quant;
    struct smooth_target *target;
    static float x[64 * 64], whole[64 * 64], part[64 * 64];
    float amax = 0;
    weights_make(WEIGHTS_GAUSS, 4, 64 * 64, x);
    for (int i = 0; i < 64 * 64; i++) amax = fmaxf(amax, fabsf(x[i]));
    assert_ok(quant_parse("nvfp4", NULL, &quant, &err));
    assert_true(quant.tensor_scale);
    assert_ok(smooth_target_open(&quant, 64, 64, &target, &err));
    assert_true(smooth_target_run(target, x, 64, NULL, -1.0f, whole));
    for (uint64_t r = 0; r < 64; r += 8) assert_true(smooth_target_run(target, x + r * 64, 8, NULL, amax, part + r * 64));
    assert_memory_equal(whole, part, sizeof whole);
    smooth_target_close(target);
}

static double weighted_error(const float *x, const float *y, const float *weight, size_t rows, size_t cols)
{
    double sum = 0.0;
    for (size_t i = 0; i < rows * cols; i++) sum += (double)weight[i % cols] * ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
    return sum;
}

static void test_importance(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "int4:rule=mse", "mxfp4", "q4_k", "iq4_nl", "int4:group=tensor,rule=mse", "nvfp4", "fp8_e4m3:group=128x128,rule=mse", "int4:rule=lsq"
    };
    static float x[32 * 512], with[32 * 512], without[32 * 512], weight[512];
    double ex2[512];
    for (int j = 0; j < 512; j++) ex2[j] = j % 7 ? 0.01 : 1.0;
    assert_true(smooth_importance(ex2, NULL, 512, weight));
    weights_make(WEIGHTS_LAPLACE, 5, 32 * 512, x);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct quant quant;
        struct smooth_target *target;
        if (quant_parse(texts[i], NULL, &quant, &err) != OK) continue;
        assert_ok(smooth_target_open(&quant, 32, 512, &target, &err));
        assert_true(smooth_target_run(target, x, 32, weight, -1.0f, with));
        assert_true(smooth_target_run(target, x, 32, NULL, -1.0f, without));
        if (memcmp(with, without, sizeof with) == 0) assert_false(codec_heeds_importance(&quant));
        else assert_true(weighted_error(x, with, weight, 32, 512) < weighted_error(x, without, weight, 32, 512));
        smooth_target_close(target);
    }
}

static void test_corners(void **state)
{
    (void)state;
    struct quant quant;
    struct smooth_target *target;
    float x[64] = { 0 }, y[64];
    assert_ok(quant_parse("int4:group=32,scale=f16", NULL, &quant, &err));
    assert_ok(smooth_target_open(&quant, 2, 32, &target, &err));
    assert_true(smooth_target_run(target, x, 2, NULL, -1.0f, y));
    for (int i = 0; i < 64; i++) assert_true(y[i] == 0.0f);
    x[40] = FLT_MAX; /* its scale is Inf in F16 */
    assert_false(smooth_target_run(target, x, 2, NULL, -1.0f, y));
    x[40] = NAN;
    assert_false(smooth_target_run(target, x, 2, NULL, -1.0f, y));
    x[40] = -INFINITY;
    assert_false(smooth_target_run(target, x, 2, NULL, -1.0f, y));
    x[40] = 1;
    assert_true(smooth_target_run(target, x, 2, NULL, -1.0f, y));
    assert_true(smooth_target_run(target, x, 0, NULL, -1.0f, y));
    smooth_target_close(target);
    assert_ok(smooth_target_open(&quant, 0, 32, &target, &err));
    smooth_target_close(target);
    assert_refused(smooth_target_open(&quant, 1, (uint64_t)1 << 20, &target, &err), ERR_UNSUPPORTED, "too long");
    assert_ok(quant_parse("q4_k", NULL, &quant, &err));
    assert_refused(smooth_target_open(&quant, 1, 100, &target, &err), ERR_UNSUPPORTED, "no multiple of the 256");
    smooth_target_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_formats), cmocka_unit_test(test_spanning), cmocka_unit_test(test_scale_of_matrix),
        cmocka_unit_test(test_importance),  cmocka_unit_test(test_corners),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
