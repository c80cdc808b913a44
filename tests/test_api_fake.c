/* test_api_fake.c: tensors along any axis through llmq.h: worked examples, golden vectors, and every format of the table against itself.
 *
 * Drawing: x -> llmq_quantise -> planes -> llmq_planes_read -> given -> the same planes; x turned by hand -> the same planes.
 * Why this way: only llmq.h is called; expected numbers come from the specification's worked examples and from the exact oracle's vectors.
 * Corner cases: tails, rank 0 to 3, every axis, empty tensors, scales and zero points out of range, NULL.
 * Reference: the specification's 8.1 to 8.3, 8.5; tests/golden. Worked number: X as int4 with F32 scales: s 0.346666654, codes 3 -1 0 -4 2 0 -2 7.
 */
#include "support/api_support.h"

#include <cjson/cJSON.h>
#include <math.h>

static const float V[8] = { 0.1f, -0.25f, 0.5f, -1, 1.5f, -1.99f, 0.03f, 3 }, X[8] = { 0.9f, -0.35f, 0.12f, -1.4f, 0.61f, 0.05f, -0.77f, 2.6f };
static const float P[16] = { 3, .1f, .75f, -.6f, .3f, .2f, -1.7f, .05f, 0, 0, 1, -.01f, .49f, .51f, -2.2f, 2.6f };
static const float W[8] = { 7.9f, -7, 6.1f, 5, 2.5f, -1.75f, .3f, .2f };

/* A tensor's planes. */
struct planes {
    struct llmq_view_sizes sizes;
    unsigned char *codes, *scales, *zeros;
};

static struct planes new_planes(const struct llmq_quant *quant, const struct llmq_view *view)
{
    struct planes planes;
    assert_done(llmq_view_measure(quant, view, &planes.sizes, &error));
    planes.codes = calloc(1, (size_t)planes.sizes.planes.codes + 1);
    planes.scales = calloc(1, (size_t)planes.sizes.planes.scales + 1);
    planes.zeros = calloc(1, (size_t)planes.sizes.planes.zeros + 1);
    return planes;
}

static void free_planes(struct planes *planes)
{
    free(planes->codes);
    free(planes->scales);
    free(planes->zeros);
}

static struct planes quantised(const struct llmq_quant *quant, const struct llmq_view *view, const float *x, const struct llmq_given *given)
{
    struct planes planes = new_planes(quant, view);
    assert_done(llmq_quantise(quant, view, x, given, planes.codes, planes.scales, planes.zeros, &error));
    return planes;
}

static void assert_same(const struct planes *a, const struct planes *b, const char *what)
{
    if (memcmp(&a->sizes, &b->sizes, sizeof a->sizes) || memcmp(a->codes, b->codes, (size_t)a->sizes.planes.codes) ||
        memcmp(a->scales, b->scales, (size_t)a->sizes.planes.scales) || memcmp(a->zeros, b->zeros, (size_t)a->sizes.planes.zeros))
        fail_msg("planes differ: %s", what);
}

static struct llmq_quant *open_quant(const char *text)
{
    struct llmq_quant *quant;
    assert_done(llmq_quant_open(text, &quant, &error));
    return quant;
}

/* ---- worked examples ------------------------------------------------------------------------------------------------------------ */

static void check_fake(const char *text, const float *x, size_t n, const float *want)
{
    struct llmq_quant *quant = open_quant(text);
    const struct llmq_view view = { DIMS(n), 1, 0 };
    float y[32];
    assert_done(llmq_fake_quantise(quant, &view, x, NULL, y, &error));
    for (size_t i = 0; i < n; i++)
        if (y[i] != want[i]) fail_msg("%s: %zu: %.9g, not %.9g", text, i, (double)y[i], (double)want[i]);
    llmq_quant_close(quant);
}

static void check_codes(const char *text, const float *x, size_t n, const int32_t *want, const struct llmq_given *given)
{
    struct llmq_quant *quant = open_quant(text);
    const struct llmq_view view = { DIMS(n), 1, 0 };
    struct planes planes = quantised(quant, &view, x, given);
    int32_t codes[32];
    assert_done(llmq_planes_read(quant, &view, planes.codes, planes.scales, planes.zeros, codes, NULL, NULL, NULL, &error));
    for (size_t i = 0; i < n; i++)
        if (codes[i] != want[i]) fail_msg("%s: %zu: %d, not %d", text, i, codes[i], want[i]);
    free_planes(&planes);
    llmq_quant_close(quant);
}

#define LIST(type, ...)                                                                                                                              \
    (const type[])                                                                                                                                   \
    {                                                                                                                                                \
        __VA_ARGS__                                                                                                                                  \
    }

static void test_worked_bfp(void **state)
{
    (void)state;
    const float v16[] = { 0.09375f, -0.25f, 0.5f, -1, 1.5f, -2, 0.03125f, 3 };
    const float ties[] = { 1, 0x1p-7f, -0x1p-7f, 3 * 0x1p-7f, -3 * 0x1p-7f, 5 * 0x1p-7f, -5 * 0x1p-7f, 0 };
    const float top[] = { 1.999f, -1.999f, 1, -1, 0.01f, -0.01f, 0, 0.5f }, edge[] = { 1.99f, -1.999f, 1, -1, 0.01f, -0.01f, 0, 0.5f };
    check_fake("bfp16:rounding=away", V, 8, v16);
    check_fake("bfp16:rounding=away,kernel=1", V, 8, v16);
    check_codes("bfp16:rounding=away", V, 8, LIST(int32_t, 3, -8, 16, -32, 48, -64, 1, 96), NULL);
    check_codes("bfp13:rounding=away", V, 8, LIST(int32_t, 0, -1, 2, -4, 6, -8, 0, 12), NULL);
    check_codes("bfp11:rounding=away", V, 8, LIST(int32_t, 0, 0, 1, -1, 2, -2, 0, 3), NULL);
    check_codes("bfp16:rounding=away", ties, 8, LIST(int32_t, 64, 1, -1, 2, -2, 3, -3, 0), NULL);
    check_codes("bfp16:rounding=up", ties, 8, LIST(int32_t, 64, 1, 0, 2, -1, 3, -2, 0), NULL);
    check_codes("bfp16", ties, 8, LIST(int32_t, 64, 0, 0, 2, -2, 2, -2, 0), NULL);
    check_codes("bfp16:rounding=away", top, 8, LIST(int32_t, 127, -127, 64, -64, 1, -1, 0, 32), NULL);
    check_codes("bfp16:rounding=away,kernel=1", top, 8, LIST(int32_t, 64, -64, 32, -32, 0, 0, 0, 16), NULL);
    check_codes("bfp16:rounding=away,kernel=1", edge, 8, LIST(int32_t, 127, -128, 64, -64, 1, -1, 0, 32), NULL);
    check_codes("bfp16:rounding=away", LIST(float, .1f, -.25f, .5f, -1, 1.5f), 5, LIST(int32_t, 6, -16, 32, -64, 96), NULL);
}

static void test_worked_prime(void **state)
{
    (void)state;
    const float top[16] = { 1.999f, 1, .999f, .5f, -.999f, .1f, .25f, .25f };
    check_codes("bfpprime16", P, 16, LIST(int32_t, 96, 3, 48, -38, 19, 13, -109, 3, 0, 0, 64, -1, 31, 33, -70, 83), NULL);
    check_codes("mx9", P, 16, LIST(int32_t, 96, 3, 48, -38, 19, 13, -109, 3, 0, 0, 64, -1, 31, 33, -70, 83), NULL);
    check_codes("mx6", P, 16, LIST(int32_t, 12, 0, 6, -5, 2, 2, -14, 0, 0, 0, 8, 0, 4, 4, -9, 10), NULL);
    check_fake("mx6", P, 16, LIST(float, 3, 0, .75f, -.625f, .25f, .25f, -1.75f, 0, 0, 0, 1, 0, .5f, .5f, -2.25f, 2.5f));
    check_codes("mx4", P, 16, LIST(int32_t, 3, 0, 2, -1, 1, 0, -3, 0, 0, 0, 2, 0, 1, 1, -2, 3), NULL);
    check_codes("mx9", top, 16, LIST(int32_t, 127, 64, 127, 64, -127, 13, 32, 32, 0, 0, 0, 0, 0, 0, 0, 0), NULL);
    check_codes("mx4", top, 16, LIST(int32_t, 3, 2, 3, 2, -3, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0), NULL);
}

/* Weights that round beyond the largest code keep what they round to. */
static void test_unsaturated(void **state)
{
    (void)state;
    const float top[16] = { 1.999f, 1, .999f, .5f, -.999f, .1f, .25f, .25f };
    const float ties[16] = { 1, .25f, .75f, -.75f, 1.25f, -1.25f, 1.75f, -1.75f };
    static const struct {
        const char *text;
        float want[8];
        bool of_ties;
    } cases[] = {
        { "mx9", { 2, 1, 1, .5f, -1, .1015625f, .25f, .25f }, false }, /* codes 128 64 128 64 -128 13 32 32, steps 2^-6 and 2^-7 */
        { "mx4", { 2, 1, 1, .5f, -1, 0, .25f, .25f }, false }, /* codes 4 2 4 2 -4 0 1 1 */
        { "bfpprime11:rounding=away", { 1, .5f, .75f, -.75f, 1.5f, -1.5f, 2, -2 }, true },
        { "bfpprime11:rounding=up", { 1, .5f, .75f, -.75f, 1.5f, -1, 2, -1.5f }, true },
        { "bfpprime11", { 1, 0, .75f, -.75f, 1, -1, 2, -2 }, true },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const uint64_t dims[2] = { 16, 1 };
        float y[16];
        for (uint32_t axis = 0; axis < 2; axis++) { /* 1 x 16, then the same along the first axis */
            const struct llmq_view view = { .rank = 2, .dims = axis ? dims : (const uint64_t[]){ 1, 16 }, .axis = axis ? 0 : 1 };
            struct llmq_quant *quant = NULL;
            assert_done(llmq_quant_open(cases[i].text, &quant, &error));
            assert_done(llmq_fake_quantise_unsaturated(quant, &view, cases[i].of_ties ? ties : top, y, &error));
            assert_memory_equal(y, cases[i].want, sizeof cases[i].want);
            llmq_quant_close(quant);
        }
    }
}

/* Rounding codes on sub-blocks, two shift bits, subnormal weights, an unsigned type without zero point. */
static void test_worked_rest(void **state)
{
    (void)state;
    const float ties[16] = { 1, .25f, .75f, -.75f, 1.25f, -1.25f, 1.75f, -1.75f }, subnormal[3] = { 0x1p-127f, 0x1p-149f, 0x1.FFFFFCp-127f };
    const float eight = 2.6f / 127.5f;
    float y[16];
    check_fake("bfpprime11:rounding=away", ties, 16, LIST(float, 1, .5f, .75f, -.75f, 1.5f, -1.5f, 1.5f, -1.5f, 0, 0, 0, 0, 0, 0, 0, 0));
    check_fake("bfpprime11:rounding=up", ties, 16, LIST(float, 1, .5f, .75f, -.75f, 1.5f, -1, 1.5f, -1.5f, 0, 0, 0, 0, 0, 0, 0, 0));
    check_fake("bfpprime11", ties, 16, LIST(float, 1, 0, .75f, -.75f, 1, -1, 1.5f, -1.5f, 0, 0, 0, 0, 0, 0, 0, 0));
    check_codes("bfp16:rounding=away", subnormal, 3, LIST(int32_t, 64, 0, 127), NULL);
    check_codes("bfp16:rounding=away,kernel=1", subnormal, 3, LIST(int32_t, 32, 0, 64), NULL);
    check_codes("uint8:scale=f32", X, 8, LIST(int32_t, 44, 0, 6, 0, 30, 2, 0, 128), &(struct llmq_given){ .scales = &eight });
    struct llmq_quant *quant = open_quant("bfpprime16:shift-bits=2");
    assert_done(llmq_fake_quantise(quant, &(struct llmq_view){ DIMS(16), 1, 0 }, P, NULL, y, &error));
    assert_true(y[3] == -.6015625f && y[4] == .30078125f);
    llmq_quant_close(quant);
}

static void test_worked_mx(void **state)
{
    (void)state;
    check_fake("mxfp8_e4m3:group=8,rule=floor", V, 8, LIST(float, .1015625f, -.25f, .5f, -1, 1.5f, -2, .029296875f, 3));
    check_fake("mxfp8_e5m2:group=8,rule=floor", V, 8, LIST(float, .09375f, -.25f, .5f, -1, 1.5f, -2, .03125f, 3));
    check_fake("mxfp6_e3m2:group=8,rule=floor", V, 8, LIST(float, .09375f, -.25f, .5f, -1, 1.5f, -2, .03125f, 3));
    check_fake("mxfp6_e2m3:group=8,rule=floor", V, 8, LIST(float, .125f, -.25f, .5f, -1, 1.5f, -2, 0, 3));
    check_fake("mxfp4:group=8,rule=floor", V, 8, LIST(float, 0, -.25f, .5f, -1, 1.5f, -2, 0, 3));
    check_codes("mxint8:group=8,rule=floor,rounding=away", V, 8, LIST(int32_t, 3, -8, 16, -32, 48, -64, 1, 96), NULL);
    check_fake("mxfp4:group=8,rule=floor", W, 8, LIST(float, 6, -6, 6, 4, 2, -2, .5f, 0));
    check_fake("mxfp6_e2m3:group=8,rule=floor", W, 8, LIST(float, 7.5f, -7, 6, 5, 2.5f, -1.75f, .25f, .25f));
    check_fake("mxfp6_e3m2:group=8,rule=floor", W, 8, LIST(float, 7, -7, 6, 5, 2.5f, -1.75f, .3125f, .1875f));
    check_fake("mxfp8_e4m3:group=8,rule=floor", W, 8, LIST(float, 7, -7, 6, 5, 2.5f, -1.75f, .3125f, .203125f));
    check_codes("mxint8:group=8,rule=floor", LIST(float, -1.999f, 1.999f, .5f), 3, LIST(int32_t, -127, 127, 32), NULL);
    check_codes("mxint8:group=8,rule=floor,negative-end=full", LIST(float, -1.999f, 1.999f, .5f), 3, LIST(int32_t, -128, 127, 32), NULL);
    check_codes("mxint8:group=8,rule=even", LIST(float, -1.999f, 1.999f, .5f), 3, LIST(int32_t, -64, 64, 16), NULL);
}

static void test_worked_integers(void **state)
{
    (void)state;
    const float pairs[] = { -2.5f, -1.5f, -.5f, .5f, 1.5f, 2.5f }, half[] = { .5f, 1.5f, 2.5f, -.5f }, one = 1;
    const int32_t point = 1;
    const struct llmq_given unit = { .scales = &one }, odd = { .scales = &one, .zeros = &point };
    check_codes("int8:scale=f32,group=tensor", X, 8, LIST(int32_t, 44, -17, 6, -69, 30, 2, -38, 127), NULL);
    check_codes("int4:scale=f32", X, 8, LIST(int32_t, 3, -1, 0, -4, 2, 0, -2, 7), NULL);
    check_codes("int3:scale=f32", X, 8, LIST(int32_t, 1, 0, 0, -2, 1, 0, -1, 3), NULL);
    check_codes("int2:scale=f32", X, 8, LIST(int32_t, 1, 0, 0, -1, 0, 0, 0, 1), NULL);
    check_codes("uint4:scale=f32", X, 8, LIST(int32_t, 8, 4, 5, 0, 7, 5, 2, 15), NULL);
    check_codes("uint8:scale=f32", X, 8, LIST(int32_t, 146, 67, 97, 0, 128, 92, 40, 255), NULL);
    check_codes("int4:scale=f32,group=4", LIST(float, .1f, -.2f, .3f, .7f, 4, -2, 1, .5f), 8, LIST(int32_t, 1, -2, 3, 7, 7, -4, 2, 1), NULL);
    check_codes("int4:scale=f32,group=8", LIST(float, .1f, -.2f, .3f, .7f, 4, -2, 1, .5f), 8, LIST(int32_t, 0, 0, 1, 1, 7, -4, 2, 1), NULL);
    check_codes("int8:rounding=up,group=tensor", pairs, 6, LIST(int32_t, -2, -1, 0, 1, 2, 3), &unit);
    check_codes("int8:rounding=away,group=tensor", pairs, 6, LIST(int32_t, -3, -2, -1, 1, 2, 3), &unit);
    check_codes("int8:group=tensor", pairs, 6, LIST(int32_t, -2, -2, 0, 0, 2, 2), &unit);
    check_codes("uint4:group=tensor", half, 4, LIST(int32_t, 1, 3, 3, 1), &odd);
    check_codes("int8:group=tensor", LIST(float, -9, 9, 1), 3, LIST(int32_t, -4, 3, 1),
                &(struct llmq_given){ .scales = &one, .code_min = -4, .code_max = 3 });
    const float fp[] = { 0.3f, -0.3f, 1, 448, 464, 17, 19, 0.0156f };
    check_codes("fp8_e4m3:group=tensor", fp, 8, LIST(int32_t, 0x2A, 0xAA, 0x38, 0x7E, 0x7E, 0x58, 0x5A, 0x08), &unit);
}

/* ---- every format --------------------------------------------------------------------------------------------------------------- */

enum { ROWS = 5, COLS = 512 };

static void fill(float *x, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) {
        const uint64_t r = test_random(&seed);
        x[i] = (float)((int32_t)(r & 0xFFFF) - 32768) * (r >> 60 ? 1e-6f : 1e-4f);
    }
}

/* Planes read as numbers and given back make the same planes. */
static void check_given(const struct llmq_quant *quant, const struct llmq_view *view, const float *x, const struct planes *planes, const char *text)
{
    float *values = malloc(((size_t)planes->sizes.n_scales + 1) * sizeof *values), tensor_scale = 1;
    int32_t *points = malloc(((size_t)planes->sizes.n_zeros + 1) * sizeof *points);
    assert_done(llmq_planes_read(quant, view, planes->codes, planes->scales, planes->zeros, NULL, values, points, &tensor_scale, &error));
    const bool has_scale = strncmp(text, "nvfp4", 5) == 0 && !strstr(text, "none");
    struct llmq_given given = { .scales = values, .zeros = planes->sizes.n_zeros ? points : NULL, .tensor_scale = has_scale ? &tensor_scale : NULL };
    struct planes again = quantised(quant, view, x, &given);
    assert_same(planes, &again, text);
    free_planes(&again);
    if (has_scale) { /* each alone */
        given.tensor_scale = NULL;
        again = quantised(quant, view, x, &given);
        assert_same(planes, &again, text);
        free_planes(&again);
        again = quantised(quant, view, x, &(struct llmq_given){ .tensor_scale = &tensor_scale });
        assert_same(planes, &again, text);
        free_planes(&again);
    }
    free(values);
    free(points);
}

static void check_turned(const struct llmq_quant *quant, bool channels, const float *x, const struct planes *planes, const char *text)
{
    static float turned[COLS * ROWS], y[COLS * ROWS], z[COLS * ROWS];
    const struct llmq_view view = { DIMS(ROWS, COLS), 2, channels ? 0 : 1 }, other = { DIMS(COLS, ROWS), 2, channels ? -1 : -2 };
    for (size_t r = 0; r < ROWS; r++)
        for (size_t c = 0; c < COLS; c++) turned[c * ROWS + r] = x[r * COLS + c];
    struct planes again = quantised(quant, &other, turned, NULL);
    assert_same(planes, &again, text);
    assert_done(llmq_dequantise(quant, &view, planes->codes, planes->scales, planes->zeros, y, &error));
    assert_done(llmq_dequantise(quant, &other, again.codes, again.scales, again.zeros, z, &error));
    for (size_t r = 0; r < ROWS; r++)
        for (size_t c = 0; c < COLS; c++) assert_memory_equal(&z[c * ROWS + r], &y[r * COLS + c], sizeof *y);
    memcpy(z, x, sizeof z);
    assert_done(llmq_fake_quantise(quant, &view, z, NULL, z, &error)); /* in place */
    assert_memory_equal(z, y, sizeof y);
    free_planes(&again);
}

static void check_format(const char *text, bool channels, bool tensor)
{
    static float x[ROWS * COLS];
    struct llmq_quant *quant = open_quant(text);
    struct llmq_sizes sizes;
    const struct llmq_view view = { DIMS(ROWS, COLS), 2, channels ? 0 : 1 };
    fill(x, ROWS * COLS, 7);
    struct planes planes = quantised(quant, &view, x, NULL), rows = new_planes(quant, &view);
    assert_done(llmq_quant_sizes(quant, ROWS, COLS, &sizes, &error));
    assert_memory_equal(&sizes, &planes.sizes.planes, sizeof sizes);
    assert_done(llmq_quantise_rows(quant, x, ROWS, COLS, rows.codes, rows.scales, rows.zeros, &error));
    assert_same(&planes, &rows, text);
    if (!tensor) check_turned(quant, channels, x, &planes, text);
    float one = 1;
    if (planes.sizes.n_scales == 0)
        assert_denied(llmq_quantise(quant, &view, x, &(struct llmq_given){ .scales = &one }, planes.codes, planes.scales, planes.zeros, &error),
                      LLMQ_ERR_USAGE, "blocks");
    else if (strstr(text, "rule=reference"))
        assert_denied(llmq_quantise(quant, &view, x, &(struct llmq_given){ .scales = &one }, planes.codes, planes.scales, planes.zeros, &error),
                      LLMQ_ERR_USAGE, "reference");
    else check_given(quant, &view, x, &planes, text);
    free_planes(&planes);
    free_planes(&rows);
    llmq_quant_close(quant);
}

static void test_every_format(void **state)
{
    (void)state;
    static const char *const variants[] = { "",
                                            ":group=48",
                                            ":group=channel",
                                            ":group=tensor",
                                            ":group=128x128",
                                            ":rule=mse",
                                            ":rule=search",
                                            ":rule=reference",
                                            ":scale=f32",
                                            ":rounding=away",
                                            ":rounding=up",
                                            ":half-range=int_max",
                                            ":kernel=1",
                                            ":negative-end=full",
                                            ":tensor-scale=none",
                                            ":sub-block=4,shift-bits=2",
                                            ":shift-bits=0" };
    size_t n = 0;
    for (size_t i = 0; i < llmq_format_count(); i++) {
        struct llmq_format_info info;
        assert_done(llmq_format(i, &info, &error));
        for (size_t v = 0; v < sizeof variants / sizeof variants[0]; v++) {
            char text[128];
            struct llmq_quant *quant;
            snprintf(text, sizeof text, "%s%s", info.name, variants[v]);
            if (llmq_quant_open(text, &quant, NULL) != LLMQ_OK) continue;
            llmq_quant_close(quant);
            const bool channels = strstr(text, "channel") || (v != 1 && info.default_group == LLMQ_GROUP_CHANNEL && !strstr(text, "group="));
            check_format(text, channels, strstr(text, "tensor") && !strstr(text, "none"));
            n++;
        }
    }
    assert_true(n > 4 * llmq_format_count());
}

/* ---- the same bytes as a file ----------------------------------------------------------------------------------------------------- */

/* What a container of this one tensor holds, plane by plane, and decodes to. */
static void check_file_bytes(const char *dir, const char *text, const float *x, uint64_t rows, uint64_t cols)
{
    struct llmq_quant *quant = open_quant(text), *found;
    struct llmq_writer *writer;
    struct llmq_model *model;
    struct llmq_tensor_info info;
    const char *path = temp_path(dir, "one.llmq");
    const struct llmq_tensor_spec spec = { .name = "w", .dims = DIMS(rows, cols), .rank = 2, .quant = quant };
    assert_done(llmq_writer_open(path, &spec, 1, NULL, 0, &(struct llmq_write_options){ .replace = 1 }, &writer, &error));
    assert_done(llmq_writer_put(writer, 0, x, (size_t)(rows * cols) * sizeof *x, &error));
    assert_done(llmq_writer_finish(writer, &error));
    llmq_writer_close(writer);
    assert_done(llmq_model_open(path, &model, &error));
    assert_done(llmq_model_tensor(model, 0, &info, &error));
    assert_done(llmq_quant_of_tensor(model, 0, &found, &error));
    const struct llmq_view view = { DIMS(rows, cols), 2, info.group == LLMQ_GROUP_CHANNEL ? 0 : 1 };
    struct planes planes = quantised(found, &view, x, NULL);
    const unsigned char *const mine[3] = { planes.codes, planes.scales, planes.zeros };
    const uint64_t sizes[3] = { planes.sizes.planes.codes, planes.sizes.planes.scales, planes.sizes.planes.zeros };
    for (uint32_t k = 0; k < 3; k++) {
        struct llmq_plane_info plane = { 0 };
        if (k < info.n_planes) assert_done(llmq_model_plane(model, 0, k, &plane, &error));
        assert_int_equal(plane.nbytes, sizes[k]);
        unsigned char *bytes = malloc((size_t)plane.nbytes + 1);
        if (plane.nbytes) assert_done(llmq_read_plane(model, 0, k, 0, plane.rows, bytes, &error));
        if (memcmp(bytes, mine[k], (size_t)plane.nbytes) != 0) fail_msg("%s: plane %s differs", text, plane.name);
        free(bytes);
    }
    const size_t n = (size_t)(rows * cols);
    float *y = malloc((n + 1) * sizeof *y), *z = malloc((n + 1) * sizeof *z);
    assert_done(llmq_read_rows(model, 0, 0, rows, y, &error));
    assert_done(llmq_fake_quantise(quant, &view, x, NULL, z, &error));
    assert_memory_equal(y, z, n * sizeof *y);
    free(y);
    free(z);
    free_planes(&planes);
    llmq_quant_close(quant);
    llmq_quant_close(found);
    llmq_model_close(model);
}

static void test_files(void **state)
{
    (void)state;
    static const char *const spanning[] = {
        "int4:group=tensor,rule=mse", "uint3:group=tensor", "fp8_e4m3:group=128x128", "int8:group=channel", "nvfp4", "nvfp4:tensor-scale=none"
    };
    enum { TALL = 700 }; /* two tiles */
    char *dir = temp_dir();
    float *x = malloc(TALL * COLS * sizeof *x);
    fill(x, TALL * COLS, 11);
    for (size_t i = 0; i < llmq_format_count(); i++) {
        struct llmq_format_info info;
        assert_done(llmq_format(i, &info, &error));
        check_file_bytes(dir, info.name, x, ROWS, COLS);
    }
    for (size_t i = 0; i < sizeof spanning / sizeof spanning[0]; i++) check_file_bytes(dir, spanning[i], x, TALL, COLS);
    free(x);
    temp_dir_remove(dir);
}

/* ---- axes ----------------------------------------------------------------------------------------------------------------------- */

static void test_axes(void **state)
{
    (void)state;
    static float x[2 * 3 * 5 * 4], m[2 * 3 * 5 * 4], y[2 * 3 * 5 * 4];
    const uint64_t dims[] = { 2, 3, 5, 4 };
    fill(x, 120, 9);
    struct llmq_quant *quant = open_quant("int4:group=2,scale=f32"), *channel = open_quant("uint4:group=channel,scale=f32");
    size_t k = 0; /* axis 1 of 4, by hand: dims become 2, 4, 5, 3 */
    for (size_t a = 0; a < 2; a++)
        for (size_t d = 0; d < 4; d++)
            for (size_t c = 0; c < 5; c++)
                for (size_t b = 0; b < 3; b++) m[k++] = x[((a * 3 + b) * 5 + c) * 4 + d];
    const struct llmq_view view = { dims, 4, 1 }, matrix = { DIMS(40, 3), 2, 1 };
    struct planes one = quantised(quant, &view, x, NULL), two = quantised(quant, &matrix, m, NULL);
    assert_int_equal(one.sizes.rows, 40);
    assert_int_equal(one.sizes.n_scales, 80);
    assert_same(&one, &two, "axis 1");
    free_planes(&one);
    free_planes(&two);
    k = 0; /* channels of axis 2 */
    for (size_t c = 0; c < 5; c++)
        for (size_t a = 0; a < 2; a++)
            for (size_t b = 0; b < 3; b++)
                for (size_t d = 0; d < 4; d++) m[k++] = x[((a * 3 + b) * 5 + c) * 4 + d];
    const struct llmq_view channels = { dims, 4, -2 }, rows = { DIMS(5, 24), 2, 0 };
    one = quantised(channel, &channels, x, NULL);
    two = quantised(channel, &rows, m, NULL);
    assert_int_equal(one.sizes.n_scales, 5);
    assert_int_equal(one.sizes.n_zeros, 5);
    assert_same(&one, &two, "channels of axis 2");
    assert_done(llmq_dequantise(channel, &channels, one.codes, one.scales, one.zeros, y, &error));
    for (size_t i = 0; i < 120; i++) assert_true(fabsf(y[i] - x[i]) <= 0.3f);
    free_planes(&one);
    free_planes(&two);
    const float scalar = 0.5f;
    assert_done(llmq_fake_quantise(quant, &(struct llmq_view){ NULL, 0, 0 }, &scalar, NULL, y, &error));
    assert_true(fabsf(y[0] - 0.5f) < 0.04f);
    assert_done(llmq_fake_quantise(quant, &(struct llmq_view){ DIMS(3, 0), 2, 0 }, NULL, NULL, NULL, &error));
    assert_done(llmq_straight_through(x, 120, y, &error));
    assert_memory_equal(x, y, sizeof x);
    llmq_quant_close(quant);
    llmq_quant_close(channel);
}

/* Given per channel with a scale and a zero point for each. */
static void test_given_channels(void **state)
{
    (void)state;
    const float x[6] = { 1, 10, 100, 2, 20, 200 }, scales[3] = { .5f, 5, 50 }, want[6] = { 1, 10, 100, 2, 20, 200 };
    const int32_t zeros[3] = { 1, 2, 3 };
    struct llmq_quant *quant = open_quant("uint4:group=channel,scale=f32");
    float y[6];
    assert_done(
        llmq_fake_quantise(quant, &(struct llmq_view){ DIMS(2, 3), 2, 1 }, x, &(struct llmq_given){ .scales = scales, .zeros = zeros }, y, &error));
    for (int i = 0; i < 6; i++) assert_true(y[i] == want[i]);
    llmq_quant_close(quant);
}

/* ---- golden vectors ------------------------------------------------------------------------------------------------------------- */

static const char *text_of(const cJSON *item, const char *key)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, key));
}

static void describe(const cJSON *item, const char *format, char *text, size_t size)
{
    static const char *const keys[][2] = { { "group", "group" },
                                           { "scale_dtype", "scale" },
                                           { "rule", "rule" },
                                           { "rounding", "rounding" },
                                           { "kernel", "kernel" },
                                           { "sub_block", "sub-block" },
                                           { "shift_bits", "shift-bits" },
                                           { "negative_end", "negative-end" } };
    size_t used = (size_t)snprintf(text, size, "%s", format);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(item, keys[i][0]);
        const char mark = strchr(text, ':') ? ',' : ':';
        if (cJSON_IsString(value)) used += (size_t)snprintf(text + used, size - used, "%c%s=%s", mark, keys[i][1], value->valuestring);
        else if (cJSON_IsNumber(value)) used += (size_t)snprintf(text + used, size - used, "%c%s=%d", mark, keys[i][1], value->valueint);
    }
}

static uint32_t hex_at(const char *hex, size_t index, size_t digits)
{
    char copy[9] = { 0 };
    memcpy(copy, hex + index * digits, digits);
    return (uint32_t)strtoul(copy, NULL, 16);
}

static void check_golden(const char *text, const cJSON *item)
{
    const uint64_t rows = (uint64_t)cJSON_GetObjectItemCaseSensitive(item, "rows")->valueint;
    const uint64_t cols = (uint64_t)cJSON_GetObjectItemCaseSensitive(item, "cols")->valueint;
    const size_t n = (size_t)(rows * cols);
    const struct llmq_view view = { DIMS(rows, cols), 2, strstr(text, "group=channel") ? 0 : 1 };
    struct llmq_quant *quant = open_quant(text);
    uint32_t *x = malloc((n + 1) * sizeof *x), *y = malloc((n + 1) * sizeof *y);
    for (size_t i = 0; i < n; i++) x[i] = hex_at(text_of(item, "x"), i, 8);
    const enum llmq_status status = llmq_fake_quantise(quant, &view, (const float *)(const void *)x, NULL, (float *)(void *)y, &error);
    if (text_of(item, "error")) assert_int_equal(status, LLMQ_ERR_DATA);
    else {
        assert_done(status);
        for (size_t i = 0; i < n; i++)
            if (y[i] != hex_at(text_of(item, "y"), i, 8)) fail_msg("%s %s: weight %zu: %08X", text, text_of(item, "name"), i, y[i]);
    }
    free(x);
    free(y);
    llmq_quant_close(quant);
}

static size_t check_file(const char *format)
{
    char name[96];
    size_t nbytes, n = 0;
    snprintf(name, sizeof name, "golden/%s.json", format);
    if (!file_exists(tests_path(name))) return 0;
    char *text = read_file(tests_path(name), &nbytes);
    cJSON *file = cJSON_Parse(text), *item;
    const cJSON *cases = cJSON_GetObjectItemCaseSensitive(file, "cases");
    cJSON_ArrayForEach(item, cases)
    {
        char described[192];
        describe(item, format, described, sizeof described);
        if (text_of(item, "w") || !cJSON_GetObjectItemCaseSensitive(item, "group")) continue;
        check_golden(described, item);
        n++;
    }
    cJSON_Delete(file);
    free(text);
    return n;
}

static void test_golden(void **state)
{
    (void)state;
    size_t n = 0;
    for (size_t i = 0; i < llmq_format_count(); i++) {
        struct llmq_format_info info;
        assert_done(llmq_format(i, &info, &error));
        n += check_file(info.name);
    }
    if (n < 900) fail_msg("only %zu cases", n);
}

/* ---- refusals ------------------------------------------------------------------------------------------------------------------- */

static void deny_given(const char *text, const struct llmq_given *given, const char *part)
{
    struct llmq_quant *quant = open_quant(text);
    unsigned char codes[64], scales[64], zeros[64];
    assert_denied(llmq_quantise(quant, &(struct llmq_view){ DIMS(8), 1, 0 }, X, given, codes, scales, zeros, &error), LLMQ_ERR_USAGE, part);
    llmq_quant_close(quant);
}

static void test_refusals(void **state)
{
    (void)state;
    const float one = 1, zero = 0, minus = -1, nan = NAN, inf = INFINITY, three = 3, huge = 1e38f, tiny = 1e-30f;
    const int32_t below = -1, above = 16, most = 15;
    deny_given("int4", &(struct llmq_given){ .scales = &zero }, "positive and finite");
    deny_given("int4", &(struct llmq_given){ .scales = &minus }, "positive and finite");
    deny_given("int4", &(struct llmq_given){ .scales = &nan }, "positive and finite");
    deny_given("int4", &(struct llmq_given){ .scales = &inf }, "positive and finite");
    deny_given("int8", &(struct llmq_given){ .scales = &huge }, "out of range");
    deny_given("int4:scale=f16", &(struct llmq_given){ .scales = &tiny }, "out of range as f16");
    deny_given("mxfp4", &(struct llmq_given){ .scales = &three }, "no power of two");
    deny_given("uint4", &(struct llmq_given){ .scales = &one, .zeros = &below }, "none of 0 .. 15");
    deny_given("uint4", &(struct llmq_given){ .scales = &one, .zeros = &above }, "none of 0 .. 15");
    deny_given("int4", &(struct llmq_given){ .scales = &one, .zeros = &most }, "no zero points");
    deny_given("int4", &(struct llmq_given){ .zeros = &most }, "with scales only");
    deny_given("int4", &(struct llmq_given){ .code_max = 3 }, "with scales only");
    deny_given("int4", &(struct llmq_given){ .scales = &one, .code_min = -9, .code_max = 7 }, "no range within -8 .. 7");
    deny_given("int4", &(struct llmq_given){ .scales = &one, .code_min = 3, .code_max = 3 }, "no range");
    deny_given("fp8_e4m3:group=tensor", &(struct llmq_given){ .scales = &one, .code_min = 0, .code_max = 3 }, "no range of codes");
    deny_given("int4", &(struct llmq_given){ .tensor_scale = &one }, "no scale of a matrix");
    deny_given("nvfp4", &(struct llmq_given){ .tensor_scale = &zero }, "scale of the matrix");
    deny_given("f16", &(struct llmq_given){ .scales = &one }, "blocks");
    struct llmq_quant *quant = open_quant("int4"), *blocks = open_quant("q4_0");
    struct llmq_view_sizes sizes;
    float y[8];
    unsigned char bytes[64];
    assert_denied(llmq_view_measure(quant, &(struct llmq_view){ DIMS(8), 1, 1 }, &sizes, &error), LLMQ_ERR_USAGE, "axis 1 does not exist");
    assert_denied(llmq_view_measure(quant, &(struct llmq_view){ DIMS(8), 1, -2 }, &sizes, &error), LLMQ_ERR_USAGE, "axis -2 does not exist");
    assert_denied(llmq_view_measure(quant, &(struct llmq_view){ NULL, 1, 0 }, &sizes, &error), LLMQ_ERR_USAGE, "dims is NULL");
    assert_denied(llmq_view_measure(quant, &(struct llmq_view){ DIMS(8), 65, 0 }, &sizes, &error), LLMQ_ERR_USAGE, "rank 65");
    assert_denied(llmq_view_measure(quant, &(struct llmq_view){ DIMS(UINT64_MAX, 3), 2, 0 }, &sizes, &error), LLMQ_ERR_UNSUPPORTED, "2^64");
    assert_denied(llmq_view_measure(quant, &(struct llmq_view){ DIMS(1ull << 61, 2), 2, 0 }, &sizes, &error), LLMQ_ERR_UNSUPPORTED, "too many");
    assert_denied(llmq_view_measure(blocks, &(struct llmq_view){ DIMS(8), 1, 0 }, &sizes, &error), LLMQ_ERR_USAGE, "no multiple of the 32");
    assert_denied(llmq_view_measure(NULL, NULL, &sizes, &error), LLMQ_ERR_USAGE, "quant is NULL");
    assert_denied(llmq_fake_quantise(quant, &(struct llmq_view){ DIMS(8), 1, 0 }, NULL, NULL, y, &error), LLMQ_ERR_USAGE, "x is NULL");
    assert_denied(llmq_fake_quantise(quant, &(struct llmq_view){ DIMS(8), 1, 0 }, X, NULL, NULL, &error), LLMQ_ERR_USAGE, "y is NULL");
    assert_denied(llmq_quantise(quant, &(struct llmq_view){ DIMS(8), 1, 0 }, X, NULL, bytes, NULL, NULL, &error), LLMQ_ERR_USAGE, "scales is NULL");
    assert_denied(llmq_fake_quantise(quant, &(struct llmq_view){ DIMS(1), 1, 0 }, &nan, NULL, y, &error), LLMQ_ERR_DATA, "row 0, column 0");
    assert_denied(llmq_fake_quantise(quant, &(struct llmq_view){ DIMS(1), 1, 0 }, &inf, &(struct llmq_given){ .scales = &one }, y, &error),
                  LLMQ_ERR_DATA, "NaN or Inf");
    assert_denied(llmq_straight_through(NULL, 1, y, &error), LLMQ_ERR_USAGE, "g is NULL");
    assert_denied(llmq_planes_read(blocks, &(struct llmq_view){ DIMS(32), 1, 0 }, bytes, NULL, NULL, NULL, NULL, NULL, NULL, &error), LLMQ_ERR_USAGE,
                  "blocks");
    llmq_quant_close(quant);
    llmq_quant_close(blocks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worked_bfp),     cmocka_unit_test(test_worked_prime), cmocka_unit_test(test_worked_mx),
        cmocka_unit_test(test_unsaturated),    cmocka_unit_test(test_worked_rest),  cmocka_unit_test(test_worked_integers),
        cmocka_unit_test(test_every_format),   cmocka_unit_test(test_axes),         cmocka_unit_test(test_files),
        cmocka_unit_test(test_given_channels), cmocka_unit_test(test_golden),       cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
