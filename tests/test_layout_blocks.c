/* test_layout_blocks.c: groups in blocks of GGUF and back: every packing, what has no place, ggml's own rule, decoding from any place.
 *
 * Drawing: planes (codes, scales) --codec_transcode--> blocks: compared with bytes laid here by hand; --codec_transcode--> the same planes.
 * Why this way: the layouts of the blocks are written here a second time, from the specification; what goes there and comes back is compared byte by
 * byte, and its meaning weight by weight.
 * Corner cases: every byte of a scale, every code in every place; exponents of mxint8 that F16 has not; groups of zeros; blocks that are no groups of
 * ours; tails under ggml's rule; more groups a row than are moved at once.
 * Reference: layouts.md 1.7, 2(f). Worked number: mxint8 of byte 128 and code 96: d = 2^(128 - 127 - 6) = 0x2800, the code 0x60.
 */
#include "support/support.h"

#include <math.h>

#include "layout/codec.h"
#include "layout/layout.h"
#include "layout/pack.h"
#include "number/half.h"
#include "number/kernel.h"

static struct err err;

static struct quant quant_of(const char *text, bool blocks)
{
    struct quant quant;
    assert_ok(quant_parse(text, NULL, &quant, &err));
    if (blocks && strcmp(quant.format->family->name, "bfp") == 0) quant.group = 32;
    quant.blocks = blocks;
    quant.tensor_scale = false;
    return quant;
}

static struct codec_scratch scratch_make(size_t n)
{
    struct codec_scratch scratch = { malloc(n * sizeof(float)), malloc(n * sizeof(float)), malloc(n * sizeof(uint16_t)), n };
    assert_true(scratch.x && scratch.y && scratch.codes);
    return scratch;
}

static void scratch_free(struct codec_scratch *scratch)
{
    free(scratch->x);
    free(scratch->y);
    free(scratch->codes);
}

/* n_rows x n_cols from one layout to the other. */
static bool move(const struct quant *from, const uint8_t *a, const uint8_t *b, const struct quant *to, uint64_t n_rows, uint64_t n_cols, uint8_t *c,
                 uint8_t *d, struct codec_fault *fault)
{
    struct codec_scratch scratch = scratch_make(4096);
    const uint8_t *source[CODEC_PLANES_MAX] = { a, b };
    uint8_t *planes[CODEC_PLANES_MAX] = { c, d };
    bool done = codec_transcode(from, source, to, n_rows, n_cols, &scratch, planes, fault);
    scratch_free(&scratch);
    return done;
}

/* ---- packings ------------------------------------------------------------------------------------------------------------------- */

/* One group or four in a block, laid by hand. */
struct packing {
    const char *text;
    size_t elements, group, nbytes;
    uint32_t bits, last_scale; /* of a code; scales are 0 .. last_scale */
    void (*lay)(const uint8_t *scales, const uint8_t *codes, uint8_t *block);
};

static void lay_mxfp4(const uint8_t *scales, const uint8_t *codes, uint8_t *block)
{
    block[0] = scales[0];
    for (size_t j = 0; j < 16; j++) block[1 + j] = (uint8_t)(codes[j] + 16 * codes[16 + j]);
}

static void lay_nvfp4(const uint8_t *scales, const uint8_t *codes, uint8_t *block)
{
    memcpy(block, scales, 4);
    for (size_t j = 0; j < 32; j++) {
        const uint8_t *own = codes + j / 8 * 16 + j % 8;
        block[4 + j] = (uint8_t)(own[0] + 16 * own[8]);
    }
}

/* 2^(b - 133) as F16: a normal number from exponent -14 on, a bit below. */
static void lay_mxint8(const uint8_t *scales, const uint8_t *codes, uint8_t *block)
{
    const int exponent = scales[0] - 133;
    const unsigned d = exponent >= -14 ? (unsigned)(exponent + 15) << 10 : 1u << (exponent + 24);
    block[0] = (uint8_t)d;
    block[1] = (uint8_t)(d >> 8);
    memcpy(block + 2, codes, 32);
}

static const struct packing packings[] = {
    { "mxfp4", 32, 32, 17, 4, 254, lay_mxfp4 },
    { "nvfp4", 64, 16, 36, 4, 126, lay_nvfp4 },
    { "mxint8", 32, 32, 34, 8, 148, lay_mxint8 },
};

/* Blocks of a row, many enough for several pieces. */
enum { BLOCKS = 1200 };

static void test_there_and_back(void **state)
{
    (void)state;
    for (size_t p = 0; p < sizeof packings / sizeof packings[0]; p++) {
        const struct packing *packing = &packings[p];
        const struct quant planes = quant_of(packing->text, false), blocks = quant_of(packing->text, true);
        const size_t n = BLOCKS * packing->elements, n_scales = n / packing->group, first_scale = packing->bits == 8 ? 109 : 0;
        uint8_t *codes = malloc(2 * n), *scales = malloc(2 * n_scales), *packed = calloc(1, 2 * n), *want = calloc(2 * BLOCKS, packing->nbytes);
        uint8_t *got = malloc(2 * BLOCKS * packing->nbytes), *codes_back = calloc(1, 2 * n), *scales_back = malloc(2 * n_scales);
        uint16_t *wide = malloc(2 * n * sizeof *wide);
        uint64_t seed = 3;
        for (size_t i = 0; i < 2 * n; i++) { /* each code in each place: a block begins with code number (its own number) */
            const uint32_t mask = (1u << packing->bits) - 1;
            codes[i] = (uint8_t)((i % packing->elements + i / packing->elements + (test_random(&seed) & 1)) & mask);
            wide[i] = codes[i];
        }
        for (size_t i = 0; i < 2 * n_scales; i++) scales[i] = (uint8_t)(first_scale + i % (packing->last_scale + 1 - first_scale));
        pack_bits(wide, 2 * n, packing->bits, packed);
        for (size_t b = 0; b < 2 * BLOCKS; b++)
            packing->lay(scales + b * packing->elements / packing->group, codes + b * packing->elements, want + b * packing->nbytes);
        struct codec_fault fault;
        assert_true(move(&planes, packed, scales, &blocks, 2, n, got, NULL, &fault));
        assert_memory_equal(got, want, 2 * BLOCKS * packing->nbytes);
        assert_true(move(&blocks, got, NULL, &planes, 2, n, codes_back, scales_back, &fault));
        assert_memory_equal(codes_back, packed, 2 * n * packing->bits / 8);
        assert_memory_equal(scales_back, scales, 2 * n_scales);
        free(codes);
        free(scales);
        free(packed);
        free(want);
        free(got);
        free(codes_back);
        free(scales_back);
        free(wide);
    }
}

/* What a block decodes to is what its codes and scale stand for; -0 is +0 there. */
static void test_meaning(void **state)
{
    (void)state;
    for (size_t p = 0; p < sizeof packings / sizeof packings[0]; p++) {
        const struct packing *packing = &packings[p];
        const struct quant planes = quant_of(packing->text, false), blocks = quant_of(packing->text, true);
        for (uint32_t s = packing->bits == 8 ? 109 : 0; s <= packing->last_scale; s++) {
            uint8_t scales[4] = { (uint8_t)s, (uint8_t)s, (uint8_t)s, (uint8_t)s }, packed[64], block[64];
            uint16_t codes[64];
            float a[64], b[64];
            for (size_t i = 0; i < packing->elements; i++)
                codes[i] = (uint16_t)((i * (packing->bits == 8 ? 37 : 1) + s) & ((1u << packing->bits) - 1));
            pack_bits(codes, packing->elements, packing->bits, packed);
            struct codec_fault fault;
            assert_true(move(&planes, packed, scales, &blocks, 1, packing->elements, block, NULL, &fault));
            codec_decode_row(&planes, kernels_at(0), (const uint8_t *[CODEC_PLANES_MAX]){ packed, scales }, 1.0f, 0, packing->elements, a);
            codec_decode_row(&blocks, kernels_at(0), (const uint8_t *[CODEC_PLANES_MAX]){ block }, 1.0f, 0, packing->elements, b);
            for (size_t i = 0; i < packing->elements; i++) assert_true(a[i] == b[i]);
        }
    }
}

/* ---- no place ------------------------------------------------------------------------------------------------------------------- */

static void test_exponents_of_mxint8(void **state)
{
    (void)state;
    const struct quant planes = quant_of("mxint8", false), blocks = quant_of("mxint8", true);
    for (uint32_t s = 0; s < 256; s++) {
        uint8_t codes[96] = { 0 }, scales[3] = { 120, (uint8_t)s, 120 }, out[3 * 34], zeros[34] = { 0 };
        struct codec_fault fault;
        assert_true(move(&planes, codes, scales, &blocks, 1, 96, out, NULL, &fault)); /* a group of zeros has a place always */
        assert_memory_equal(out + 34, zeros, 34);
        codes[40] = 1;
        const bool fits = s >= 109 && s <= 148;
        assert_int_equal(move(&planes, codes, scales, &blocks, 1, 96, out, NULL, &fault), fits);
        if (fits) continue;
        assert_int_equal(fault.kind, CODEC_NO_PLACE);
        assert_true(fault.row == 0 && fault.col == 32);
    }
}

static void test_worked_number(void **state)
{
    (void)state;
    const struct quant planes = quant_of("mxint8", false), blocks = quant_of("mxint8", true);
    uint8_t codes[32] = { 96 }, scales[1] = { 128 }, out[34];
    struct codec_fault fault;
    assert_true(move(&planes, codes, scales, &blocks, 1, 32, out, NULL, &fault));
    assert_memory_equal(out, "\x00\x28\x60", 3);
    float x;
    codec_decode_row(&blocks, kernels_at(0), (const uint8_t *[CODEC_PLANES_MAX]){ out }, 1.0f, 0, 1, &x);
    assert_true(x == 3.0f);
}

/* A block of another program may be no group of ours: it is named by its own column. */
static void test_foreign_blocks(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n_cols, nbytes, at; /* of a row; the byte that is poked, from the start of row 1 */
        uint8_t bytes[2];
        size_t n_poked;
        bool fine;
        uint64_t col;
    } cases[] = {
        { "mxfp4", 96, 51, 34, { 255 }, 1, false, 64 },          { "mxfp4", 96, 51, 34, { 254 }, 1, true, 0 },
        { "nvfp4", 128, 72, 36, { 0xFF }, 1, false, 64 },        { "nvfp4", 128, 72, 36, { 0x7F }, 1, true, 0 },
        { "nvfp4", 128, 72, 36, { 0x85 }, 1, true, 0 },          { "mxint8", 96, 102, 34, { 0x01, 0x28 }, 2, false, 32 }, /* no power of two */
        { "mxint8", 96, 102, 34, { 0x00, 0xA8 }, 2, false, 32 }, /* negative */
        { "mxint8", 96, 102, 34, { 0x00, 0x7C }, 2, false, 32 }, /* Inf */
        { "mxint8", 96, 102, 34, { 0x00, 0x7E }, 2, false, 32 }, /* NaN */
        { "mxint8", 96, 102, 34, { 0x00, 0x00 }, 2, false, 32 }, /* zero, but codes that are not */
        { "mxint8", 96, 102, 34, { 0x01, 0x00 }, 2, true, 0 }, /* 2^-24 */
        { "mxint8", 96, 102, 34, { 0x00, 0x78 }, 2, true, 0 }, /* 2^15 */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct quant planes = quant_of(cases[i].text, false), blocks = quant_of(cases[i].text, true);
        uint8_t source[256], codes[256], scales[32];
        struct codec_fault fault;
        memset(source, 0x11, sizeof source);
        for (size_t at = 0; blocks.format->block == &ggml_q8_0 && at < 204; at += 34) memcpy(source + at, "\x00\x28", 2);
        memcpy(source + cases[i].nbytes + cases[i].at, cases[i].bytes, cases[i].n_poked);
        const bool done = move(&blocks, source, NULL, &planes, 2, cases[i].n_cols, codes, scales, &fault);
        if (done != cases[i].fine) fail_msg("case %zu (%s)", i, cases[i].text);
        if (done) continue;
        assert_int_equal(fault.kind, CODEC_NO_PLACE);
        if (fault.row != 1 || fault.col != cases[i].col) fail_msg("case %zu: column %u", i, (unsigned)fault.col);
    }
}

static void test_check(void **state)
{
    (void)state;
    for (size_t i = 0; i < format_count(); i++) {
        struct quant quant = quant_of(format_at(i)->name, true);
        if (format_at(i)->block) assert_ok(layout_check_blocks(&quant, &err));
        else assert_refused(layout_check_blocks(&quant, &err), ERR_USAGE, "has no GGUF type");
    }
    static const char *const texts[] = { "mxfp4:group=16", "mxfp4:group=64", "nvfp4:group=32", "mxint8:group=8" };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct quant quant = quant_of(texts[i], true);
        assert_refused(layout_check_blocks(&quant, &err), ERR_USAGE, "groups of");
    }
}

/* ---- ggml's rule ---------------------------------------------------------------------------------------------------------------- */

static float weight_of(uint64_t *seed)
{
    const uint64_t r = test_random(seed);
    return (float)((double)(int64_t)r / 9.2e18 * ldexp(1.0, -(int)(r % 12)));
}

/* Codes and scales by rule reference are those of ggml's encoder, whole blocks or a tail that zeros follow. */
static void test_reference(void **state)
{
    (void)state;
    static const char *const texts[] = { "mxfp4:rule=reference", "nvfp4:rule=reference" };
    static const size_t counts[] = { 1, 5, 16, 17, 31, 32, 33, 63, 64, 65, 96, 100, 128, 1000, 4095 };
    uint64_t seed = 11;
    for (size_t f = 0; f < 2; f++) {
        const struct quant quant = quant_of(texts[f], false), blocks = quant_of(texts[f], true);
        const struct ggml_type *type = quant.format->block;
        for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
            const size_t n = counts[k], n_blocks = (n + type->elements - 1) / type->elements, n_groups = (n + quant.group - 1) / quant.group;
            float *x = calloc(n_blocks * type->elements, sizeof *x), *y = malloc(n_blocks * type->elements * sizeof *y),
                  *tight = malloc(n * sizeof *x);
            uint8_t *want = malloc(n_blocks * type->bytes), *codes = calloc(1, 4096 * 2), *scales = calloc(1, 4096);
            struct group_scale *found = malloc(n_groups * sizeof *found);
            uint16_t *wide = malloc(n * sizeof *wide), *wanted = malloc(n_blocks * type->elements * sizeof *wanted);
            for (size_t i = 0; i < n; i++) x[i] = tight[i] = i % 50 == 7 ? 0.0f : weight_of(&seed);
            type->encode(x, NULL, n_blocks, want);
            assert_int_equal(layout_reference(&quant, tight, n, found, wide), n_groups);
            struct codec_fault fault;
            const struct quant planes = quant;
            assert_true(move(&blocks, want, NULL, &planes, 1, n_blocks * type->elements, codes, scales, &fault));
            unpack_bits(codes, 0, n, 4, wanted);
            assert_memory_equal(wide, wanted, n * sizeof *wide);
            for (size_t g = 0; g < n_groups; g++) assert_int_equal(found[g].bits, scales[g]);
            free(x);
            free(y);
            free(tight);
            free(want);
            free(codes);
            free(scales);
            free(found);
            free(wide);
            free(wanted);
        }
    }
}

/* ---- tiles ---------------------------------------------------------------------------------------------------------------------- */

/* codec_encode to blocks is the type's own encoder for ggml's formats, and planes moved to blocks for the others; both rules. */
static void test_encode(void **state)
{
    (void)state;
    static const enum scale_rule rules[] = { RULE_REFERENCE, RULE_MSE, RULE_SEARCH, RULE_FLOOR, RULE_ABSMAX };
    static const uint64_t n_rows = 5, n_cols = 5120; /* more than a strip, whole blocks of every type */
    const size_t n = (size_t)(n_rows * n_cols);
    float *x = malloc(n * sizeof *x);
    uint8_t *want = malloc(n * 4), *got = malloc(n * 4), *own_planes[CODEC_PLANES_MAX] = { malloc(n), malloc(n), malloc(n) };
    uint64_t seed = 5;
    for (size_t i = 0; i < n; i++) x[i] = weight_of(&seed);
    for (size_t f = 0; f < format_count(); f++) {
        if (!format_at(f)->block) continue;
        for (size_t r = 0; r < sizeof rules / sizeof rules[0]; r++) {
            if (!(format_at(f)->rules & 1u << rules[r])) continue;
            struct quant quant = quant_of(format_at(f)->name, true), planes = quant;
            quant.rule = planes.rule = rules[r];
            planes.blocks = quant.format->family->blocks;
            const struct ggml_type *type = quant.format->block;
            const size_t n_blocks = n / type->elements;
            struct codec_scratch scratch = scratch_make(codec_scratch_weights(&quant, n_rows, n_cols));
            struct codec_fault fault;
            struct measure measure = { 0 };
            struct codec_tile tile = { .source = (const uint8_t *)x,
                                       .dtype = dtype_find("F32", 3),
                                       .n_rows = n_rows,
                                       .n_cols = n_cols,
                                       .matrix_rows = n_rows,
                                       .planes = { got },
                                       .measure = &measure };
            bool fits = true;
            if (type->encode && (quant.format->family->blocks || rules[r] == RULE_REFERENCE)) {
                (rules[r] == RULE_MSE && type->encode_mse ? type->encode_mse : type->encode)(x, NULL, n_blocks, want);
            } else {
                struct codec_tile own = tile;
                const uint8_t *moved[CODEC_PLANES_MAX] = { own_planes[0], own_planes[1], own_planes[2] };
                memcpy(own.planes, own_planes, sizeof own.planes);
                own.measure = NULL;
                assert_true(codec_encode(&planes, kernels_at(0), &own, &scratch, &fault));
                fits = codec_transcode(&planes, moved, &quant, n_rows, n_cols, &scratch, (uint8_t *[CODEC_PLANES_MAX]){ want }, &fault);
                assert_true(fits || quant.format->elem->kind == ELEM_UNSIGNED); /* zero point times scale is rarely a number of F16 */
            }
            for (size_t k = 0; k < kernels_count(); k++) {
                memset(got, 0xA5, n_blocks * type->bytes);
                assert_int_equal(codec_encode(&quant, kernels_at(k), &tile, &scratch, &fault), fits);
                if (fits && memcmp(got, want, n_blocks * type->bytes) != 0) fail_msg("%s, rule %s", quant.format->name, scale_rule_name(rules[r]));
            }
            scratch_free(&scratch);
        }
    }
    free(x);
    free(want);
    free(got);
    for (size_t i = 0; i < CODEC_PLANES_MAX; i++) free(own_planes[i]);
}

/* Any run of weights of a row is that part of the whole. */
static void test_decode_anywhere(void **state)
{
    (void)state;
    uint64_t seed = 17;
    for (size_t f = 0; f < format_count(); f++) {
        const struct ggml_type *type = format_at(f)->block;
        if (!type) continue;
        const struct quant quant = quant_of(format_at(f)->name, true);
        const size_t n_blocks = 1 + 2048 / type->elements, n = n_blocks * type->elements;
        uint8_t *blocks = malloc(n_blocks * type->bytes);
        float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
        for (size_t i = 0; i < n_blocks * type->bytes; i++) blocks[i] = (uint8_t)(test_random(&seed) >> 24);
        type->decode(blocks, n_blocks, want);
        for (int k = 0; k < 300; k++) {
            const size_t first = (size_t)(test_random(&seed) % n), count = 1 + (size_t)(test_random(&seed) % (n - first));
            codec_decode_row(&quant, kernels_at(0), (const uint8_t *[CODEC_PLANES_MAX]){ blocks }, 1.0f, first, count, got);
            assert_memory_equal(got, want + first, count * sizeof *got);
        }
        free(blocks);
        free(want);
        free(got);
    }
}

/* A weight whose block overflows is named by row and column; nothing decodes to zeros in silence. */
static void test_overflow(void **state)
{
    (void)state;
    static const float large[] = { 1e10f, 1e18f, 1e20f, 1e30f, 3.4e38f, -3.4e38f };
    float x[4 * 512];
    uint8_t out[4 * 512 * 4];
    for (size_t f = 0; f < format_count(); f++) {
        const struct quant quant = quant_of(format_at(f)->name, true);
        if (!quant.format->family->blocks || quant.format->block == &ggml_f32 || quant.format->block == &ggml_bf16) continue;
        for (size_t k = 0; k < sizeof large / sizeof large[0]; k++) {
            uint64_t seed = 23;
            for (size_t i = 0; i < 4 * 512; i++) x[i] = weight_of(&seed);
            x[2 * 512 + 300] = large[k];
            struct codec_scratch scratch = scratch_make(4096);
            struct codec_fault fault;
            struct codec_tile tile = {
                .source = (const uint8_t *)x, .dtype = dtype_find("F32", 3), .n_rows = 4, .n_cols = 512, .matrix_rows = 4, .planes = { out }
            };
            if (codec_encode(&quant, kernels_at(0), &tile, &scratch, &fault)) fail_msg("%s takes %g", quant.format->name, (double)large[k]);
            assert_int_equal(fault.kind, CODEC_SCALE_OVERFLOW);
            assert_true(fault.row == 2 && fault.col == 300);
            scratch_free(&scratch);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_meaning),        cmocka_unit_test(test_exponents_of_mxint8),
        cmocka_unit_test(test_worked_number),  cmocka_unit_test(test_foreign_blocks), cmocka_unit_test(test_check),
        cmocka_unit_test(test_reference),      cmocka_unit_test(test_encode),         cmocka_unit_test(test_decode_anywhere),
        cmocka_unit_test(test_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
