/* test_layout_packings.c: formats of codes and scales as blocks of GGUF: the same weights as in planes, there and back without rounding.
 *
 * Drawing: weights -> codes, scales -> planes          and -> blocks -> ggml's own decoder; blocks -> codes, scales -> planes again
 * Why this way: ggml's decoders know nothing of our elements.
 * Corner cases: every row of the table that has a block and elements; groups of zeros; scales that a block cannot hold.
 * Reference: layouts.md 2(f); NUMERICS_BLOCK.md 1. Worked number: bfp12, -0.75 of a group led by 1: byte 127, step 2^-2, code -3, as Q4_0 5 under d =
 * 2^-2.
 */
#include "support/support.h"

#include "layout/codec.h"
#include "number/half.h"
#include "number/kernel.h"

enum { ROWS = 5, COLS = 256, N = ROWS * COLS };

static const char *const texts[] = {
    "mxfp4",          "mxint8",          "mxint8:negative-end=full", "bfp12:group=32",          "bfp13:group=32",
    "bfp16:group=32", "bfp8_b:group=32", "bfp4_b:group=32",          "bfp16:group=32,kernel=1", "nvfp4:tensor-scale=none"
};

struct result {
    struct quant quant;
    uint8_t planes[CODEC_PLANES_MAX][4 * N];
    float y[N];
};

static bool encode(const char *text, bool blocks, const float *x, struct result *result, struct codec_fault *fault)
{
    static float room_x[N], room_y[N];
    static uint16_t codes[N];
    const struct codec_scratch scratch = { room_x, room_y, codes, N };
    struct codec_tile tile = { .source = (const uint8_t *)(const void *)x, .dtype = dtype_find("F32", 3), .n_rows = ROWS, .n_cols = COLS };
    struct err err;
    assert_ok(quant_parse(text, NULL, &result->quant, &err));
    result->quant.blocks = blocks;
    if (blocks) assert_ok(layout_check_blocks(&result->quant, &err));
    for (size_t k = 0; k < CODEC_PLANES_MAX; k++) tile.planes[k] = result->planes[k];
    return codec_encode(&result->quant, kernels_at(0), &tile, &scratch, fault);
}

static void decode(struct result *result)
{
    struct plane planes[CODEC_PLANES_MAX];
    const struct shape shape = { ROWS, COLS, 1 };
    const uint32_t n = codec_planes(&result->quant, &shape, planes);
    for (uint64_t r = 0; r < ROWS; r++) {
        const uint8_t *streams[CODEC_PLANES_MAX] = { NULL };
        for (uint32_t k = 0; k < n; k++) streams[k] = result->planes[k] + r * plane_row_nbytes(&planes[k]);
        codec_decode_row(&result->quant, kernels_at(0), streams, 1.0f, 0, COLS, result->y + r * COLS);
    }
}

static void fill(float *x)
{
    uint64_t seed = 7;
    for (size_t i = 0; i < N; i++) x[i] = ((float)(test_random(&seed) >> 40) * 0x1p-23f - 1.0f) * (i % 96 < 32 ? 0.3f : 3.9f);
    for (size_t i = 64; i < 96; i++) x[i] = 0.0f;
    x[0] = -3.999f;
}

static void test_same_weights(void **state)
{
    (void)state;
    static struct result planes, blocks, back;
    static float x[N];
    static uint16_t codes[N];
    const struct codec_scratch scratch = { NULL, NULL, codes, N };
    struct codec_fault fault;
    fill(x);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        memset(&planes, 0, sizeof planes);
        memset(&back, 0, sizeof back);
        assert_true(encode(texts[i], false, x, &planes, &fault));
        assert_true(encode(texts[i], true, x, &blocks, &fault));
        decode(&planes);
        decode(&blocks);
        for (size_t k = 0; k < N; k++)
            if (f32_bits(planes.y[k] + 0.0f) != f32_bits(blocks.y[k] + 0.0f))
                fail_msg("%s: weight %zu is %a in planes, %a in blocks", texts[i], k, (double)planes.y[k], (double)blocks.y[k]);
        uint8_t *out[CODEC_PLANES_MAX];
        const uint8_t *in[CODEC_PLANES_MAX];
        for (size_t k = 0; k < CODEC_PLANES_MAX; k++) {
            out[k] = back.planes[k];
            in[k] = blocks.planes[k];
        }
        assert_true(codec_transcode(&blocks.quant, in, &planes.quant, ROWS, COLS, &scratch, out, &fault));
        assert_memory_equal(back.planes[0], planes.planes[0], sizeof back.planes[0]);
    }
}

/* A scale of 2^-30 is no F16; that of a group of zeros does not count. */
static void test_no_place(void **state)
{
    (void)state;
    static struct result blocks;
    static float x[N];
    struct codec_fault fault;
    static const char *const power[] = { "mxint8", "bfp12:group=32", "bfp13:group=32", "bfp16:group=32" };
    for (size_t i = 0; i < 4; i++) {
        memset(x, 0, sizeof x);
        assert_true(encode(power[i], true, x, &blocks, &fault));
        x[COLS + 40] = 0x1p-30f;
        assert_false(encode(power[i], true, x, &blocks, &fault));
        assert_true(fault.kind == CODEC_NO_PLACE && fault.row == 1 && fault.col == 32);
    }
}

static void test_other_groups(void **state)
{
    (void)state;
    struct err err;
    struct quant quant;
    static const char *const refused[] = { "bfp12", "bfp16:group=64", "bfp8_b", "bfp14:group=32", "mx9", "nf4", "fp8_e4m3" };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        assert_ok(quant_parse(refused[i], NULL, &quant, &err));
        assert_refused(layout_check_blocks(&quant, &err), ERR_USAGE, quant.format->name);
    }
}

static void test_worked_number(void **state)
{
    (void)state;
    static struct result blocks;
    static float x[N];
    struct codec_fault fault;
    memset(x, 0, sizeof x);
    x[0] = 1.0f;
    x[17] = -0.75f;
    assert_true(encode("bfp12:group=32", true, x, &blocks, &fault));
    static const uint8_t want[] = { 0x00, 0x34, 0x8C, 0x58 }; /* d = 2^-2; codes 4 + 8 and 0 + 8; 0 + 8 and -3 + 8 */
    assert_memory_equal(blocks.planes[0], want, sizeof want);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_same_weights), cmocka_unit_test(test_no_place), cmocka_unit_test(test_other_groups),
                                        cmocka_unit_test(test_worked_number) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
