/* test_ggml.c: ggml's block types, byte for byte.
 *
 * Drawing: section 5 of layouts.md (every type, encode and decode); a line of golden/ggml.tsv: type, "-" or "w" (with importance weights), kind of
 * input, CRC-32 of all bytes, first block.
 * Why this way: the vectors come from ggml itself (llama-cpp-python 0.3.36, gcc -O2 -ffp-contract=off), which shares no code with ours; inputs are
 * made here from integers alone, so no library decides them. 16 blocks of 256 elements each, as four rows where there are importance weights.
 * Corner cases: zeros, constants, one weight a group, ties, subnormals, weights whose squares overflow; every byte in every place; odd addresses;
 * numbers just below a power of two.
 * Reference: layouts.md 1.4, 1.5, 2(f), 5. Worked number: CRC-32 of "123456789" is cbf43926.
 */
#include "support/draw.h"
#include "support/support.h"

#include <ctype.h>
#include <math.h>

#include "number/elem.h"
#include "number/ggml.h"
#include "number/half.h"

#define ROWS 4u
#define ROW 1024u
#define VALUES (ROWS * ROW)

static uint32_t crc32_of(const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

static void hex_of(const uint8_t *bytes, size_t n, char *out)
{
    for (size_t i = 0; i < n; i++) snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

static size_t blocks_of(const struct ggml_type *type, size_t n)
{
    return n / type->elements;
}

static void encode(const struct ggml_type *type, const float *x, const float *weight, size_t n, uint8_t *bytes)
{
    type->encode(x, weight, blocks_of(type, n), bytes);
}

/* Exactly sized, so that a sanitizer sees one byte too many; at an odd address. */
static uint8_t *new_bytes(size_t n, uint8_t **base)
{
    *base = malloc(n + 1);
    assert_non_null(*base);
    memset(*base, 0xA5, n + 1);
    return *base + 1;
}

/* ---- inputs (the maker of golden/ggml.tsv has a copy of this part) ---------------------------------------------------------------- */

static const char *const kinds[] = { DRAW_SHAPES, "positive", "tiny", "huge", "bits" };
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static float draw_value(size_t kind, size_t i, float level, uint64_t *state)
{
    float normal = draw_normal(state);
    if (kind < DRAW_SHAPES_COUNT) return draw_shape(kind, i, level, normal, state);
    switch (kind) {
    case 8:
        return fabsf(normal) + 0.25f;
    case 9:
        return normal * exact_exp2(-(int32_t)(fabsf(level) * 64.0f) % 64 - 80);
    case 10:
        return normal * exact_exp2((int32_t)(fabsf(level) * 64.0f) % 74 + 50);
    default:
        return f32_from_bits((draw(state, 254) << 23 | draw(state, 1u << 23)) | draw(state, 2) << 31);
    }
}

static void make_input(size_t kind, float *x, float *weight)
{
    uint64_t state = 1000 + kind;
    draw_row(draw_value, kind, VALUES, &state, x);
    for (size_t i = 0; i < ROW; i++) {
        float normal = draw_normal(&state);
        weight[i] = draw(&state, 8) == 0 ? 0.0f : normal * normal;
    }
}

static void make_bytes(uint8_t *bytes, size_t n)
{
    uint64_t state = 77;
    for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)draw(&state, 256);
}

/* One pattern for every NaN. */
static void plain_nans(float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = isnan(y[i]) ? f32_from_bits(0x7FC00000u) : y[i];
}

/* ---- the table ------------------------------------------------------------------------------------------------------------------ */

static void test_table(void **state)
{
    (void)state;
    assert_int_equal(ggml_type_count(), 21);
    for (size_t i = 0; i < ggml_type_count(); i++) {
        const struct ggml_type *type = ggml_type_at(i);
        assert_ptr_equal(ggml_type_find(type->name), type);
        assert_ptr_equal(ggml_type_find(type->format), type);
        assert_ptr_equal(ggml_type_by_id(type->id), type);
        assert_int_equal(strlen(type->name), strlen(type->format));
        for (size_t c = 0; type->name[c]; c++) assert_int_equal(tolower((unsigned char)type->name[c]), type->format[c]);
        assert_non_null(type->decode);
        assert_non_null(type->encode);
        assert_true(type->summary[0] && VALUES % type->elements == 0 && (type->weighted || !type->row_mean));
    }
    assert_null(ggml_type_find("q4"));
    assert_null(ggml_type_find("q4_kk"));
    assert_null(ggml_type_find(""));
    assert_null(ggml_type_by_id(9));
    assert_null(ggml_type_by_id(43));
}

/* ---- vectors -------------------------------------------------------------------------------------------------------------------- */

/* Section 5 of layouts.md. */
static const struct {
    const char *name;
    size_t nbytes;
    uint32_t crc, crc_decoded;
    const char *start;
} table[] = {
    { "q4_0", 576, 0x0b93ad26, 0x587a956b, "402b70839598aa6d7f70839598aa6d7f8183d027" },
    { "q4_1", 640, 0x9f10b888, 0x53d9c6ab, "892b40b770828597aa6c7f70838598aa6d7f7183" },
    { "q5_0", 704, 0x19199931, 0xf8392638, "4027703c1e8ff0051a3f44caeff1062b3045daef" },
    { "q5_1", 768, 0x60935590, 0x43352eba, "4a2740b7703c1e8ff0051a3f44c9eef1061b3045" },
    { "q8_0", 1088, 0x1c2f6edf, 0xe6c49f69, "4f1b81aad2fb234c7485aed6ff2750788ab2f701" },
    { "mxfp4", 544, 0x0fef26e4, 0x6740f66f, "7b9f0e1d2944b6a79f0e1c3044b6a79f0e7af1f1" },
    { "nvfp4", 576, 0x88dd227f, 0x93ce056e, "1a0a0312efce0c406375f7ef1b406476e7dfbd1b" },
    { "q1_0", 144, 0xcafdd88e, 0x38e6c62a, "9f2e70381e8fc7e370381c8ec7e3f1381c0e222f" },
    { "q2_0", 288, 0x1767c8e8, 0x2ef97099, "40375029540a5555555555555555541555455037" },
    { "q2_k", 336, 0xe03be90b, 0xb2c54d13, "ff34118822ef34117722ee44117722fed81c2d61" },
    { "q3_k", 440, 0x0fe85c08, 0x53dc047a, "d8143427efebdb58143427efcbd95034e179781e" },
    { "q4_k", 576, 0xff48c45b, 0xfea1b802, "9314032073da72ce78e073d0c9ff99b29092a587" },
    { "q5_k", 704, 0xbcdfed58, 0xca778c61, "22100c2079dc78d07adf74d0ccffade9da92b2a6" },
    { "q6_k", 840, 0x03c7b9ae, 0x6a44b96e, "40ea943fd913bd51fba640ea24ce621c59bf15db" },
    { "iq4_nl", 576, 0x1f886793, 0xc64aedca, "3f1b708294a7ab5d6f708295a8bb6e6f70827417" },
    { "iq4_xs", 544, 0x0329d1bd, 0x3f52862a, "2c887421248c023e708294a7ab6d6f708295a8bb" },
    { "tq1_0", 216, 0xfe768806, 0x52435eee, "2b2b808080d5d52b2b808080d5d52b2b80898976" },
    { "tq2_0", 264, 0xea34cbf4, 0x52435eee, "5454555555565654545555555656545455656545" },
    { "f32", 4096, 0x4a31486b, 0x4a31486b, "" },
    { "f16", 2048, 0xf919993e, 0x4a31486b, "40b7f0b440b100a500305034a03600b7b0b4c0b0" },
    { "bf16", 2048, 0xdb6786f8, 0x4a31486b, "e8be9ebe28bea0bc003e8a3ed43ee0be96be18be" },
};

static void test_specification(void **state)
{
    (void)state;
    static float x[1024], y[1024];
    char start[41];
    for (int i = 0; i < 1024; i++) x[i] = (float)((i * 37 + 11) % 255 - 127) * exact_exp2(-(8 + ((i / 16) * 7 % 5)));
    assert_int_equal(sizeof table / sizeof table[0], ggml_type_count());
    assert_int_equal(crc32_of("123456789", 9), 0xcbf43926u);
    assert_int_equal(crc32_of(x, sizeof x), 0x4a31486bu);
    for (size_t t = 0; t < sizeof table / sizeof table[0]; t++) {
        const struct ggml_type *type = ggml_type_find(table[t].name);
        uint8_t *base, *bytes = new_bytes(table[t].nbytes, &base);
        assert_int_equal(blocks_of(type, 1024) * type->bytes, table[t].nbytes);
        encode(type, x, NULL, 1024, bytes);
        hex_of(bytes, 20, start);
        if (table[t].start[0]) assert_string_equal(start, table[t].start);
        type->decode(bytes, blocks_of(type, 1024), y);
        if (crc32_of(bytes, table[t].nbytes) != table[t].crc) fail_msg("%s: bytes differ", type->name);
        if (crc32_of(y, sizeof y) != table[t].crc_decoded) fail_msg("%s: decoded values differ", type->name);
        free(base);
    }
}

static size_t kind_of(const char *name)
{
    size_t kind = 0;
    while (kind < KINDS && strcmp(kinds[kind], name) != 0) kind++;
    return kind;
}

/* One line of golden/ggml.tsv; of the kind "decode" it holds the decoded values' CRC and no block. */
static void check_line(const char *name, const char *weights, const char *kind, uint32_t crc, const char *first)
{
    static float x[VALUES], weight[ROW];
    static char text[1024];
    const struct ggml_type *type = ggml_type_find(name);
    const size_t nbytes = blocks_of(type, VALUES) * type->bytes, n = weights[0] == 'w' ? ROW : VALUES;
    uint8_t *base, *bytes = new_bytes(nbytes, &base);
    if (strcmp(kind, "decode") == 0) {
        make_bytes(bytes, nbytes);
        type->decode(bytes, blocks_of(type, VALUES), x);
        plain_nans(x, VALUES);
        if (crc32_of(x, sizeof x) != crc) fail_msg("%s: decoded values differ", name);
    } else {
        assert_true(kind_of(kind) < KINDS);
        make_input(kind_of(kind), x, weight);
        for (size_t i = 0; i < VALUES; i += n) encode(type, x + i, n == ROW ? weight : NULL, n, bytes + blocks_of(type, i) * type->bytes);
        hex_of(bytes, type->bytes, text);
        if (strcmp(text, first) != 0) fail_msg("%s %s %s: first block %s, not %s", name, weights, kind, text, first);
        if (crc32_of(bytes, nbytes) != crc) fail_msg("%s %s %s: bytes differ", name, weights, kind);
    }
    free(base);
}

static void test_golden(void **state)
{
    (void)state;
    size_t nbytes, lines = 0;
    char *text = read_file(tests_path("golden/ggml.tsv"), &nbytes), *rest = text;
    char name[16], weights[4], kind[16], first[600];
    unsigned crc;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest), lines++) {
        if (sscanf(line, "%15s %3s %15s %8x %599s", name, weights, kind, &crc, first) != 5) fail_msg("golden/ggml.tsv: bad line %zu", lines + 1);
        check_line(name, weights, kind, crc, first);
    }
    assert_true(lines > 250);
    free(text);
}

/* ---- properties of every type ----------------------------------------------------------------------------------------------------- */

/* Every byte in every place of a block decodes, and each block by itself as in a row. */
static void test_any_bytes(void **state)
{
    (void)state;
    static float alone[256], all[512];
    for (size_t t = 0; t < ggml_type_count(); t++) {
        const struct ggml_type *type = ggml_type_at(t);
        uint8_t *base, *bytes = new_bytes(2 * type->bytes, &base);
        for (uint32_t value = 0; value < 256; value++)
            for (size_t place = 0; place < type->bytes; place++) {
                make_bytes(bytes, 2 * type->bytes);
                bytes[type->bytes + place] = (uint8_t)value;
                type->decode(bytes, 2, all);
                type->decode(bytes + type->bytes, 1, alone);
                assert_memory_equal(alone, all + type->elements, type->elements * sizeof(float));
            }
        memset(bytes, 0xFF, 2 * type->bytes);
        type->decode(bytes, 2, all);
        free(base);
    }
}

/* Without weights, and with them unless the row's mean counts, a block's bytes do not depend on its neighbours. */
static void test_blocks_alone(void **state)
{
    (void)state;
    static float x[VALUES], weight[ROW];
    static uint8_t all[4 * ROW], alone[4 * ROW];
    for (size_t t = 0; t < ggml_type_count(); t++)
        for (size_t kind = 0; kind < KINDS; kind++)
            for (int weighted = 0; weighted < 2; weighted++) {
                const struct ggml_type *type = ggml_type_at(t);
                if (weighted && type->row_mean) continue;
                make_input(kind, x, weight);
                const float *w = weighted ? weight : NULL;
                encode(type, x, w, ROW, all);
                for (size_t b = 0; b < blocks_of(type, ROW); b++)
                    type->encode(x + b * type->elements, w ? w + b * type->elements : NULL, 1, alone + b * type->bytes);
                assert_memory_equal(all, alone, blocks_of(type, ROW) * type->bytes);
            }
}

/* What was decoded encodes to the same bytes, where the scale comes straight from the largest weight; and unweighted types ignore weights. */
static void test_stable(void **state)
{
    (void)state;
    static const char *const names[] = { "f32", "f16", "bf16", "q4_0", "q5_0", "q8_0", "q1_0", "q2_0", "tq1_0", "tq2_0", "mxfp4" };
    static float x[VALUES], weight[ROW], y[VALUES];
    static uint8_t once[4 * VALUES], twice[4 * VALUES];
    for (size_t t = 0; t < sizeof names / sizeof names[0]; t++) {
        const struct ggml_type *type = ggml_type_find(names[t]);
        const size_t n = blocks_of(type, VALUES);
        make_input(0, x, weight);
        type->encode(x, NULL, n, once);
        type->decode(once, n, y);
        type->encode(y, NULL, n, twice);
        if (memcmp(once, twice, n * type->bytes) != 0) fail_msg("%s is not stable", type->name);
        if (type->weighted) continue;
        type->encode(x, x, n, twice);
        assert_memory_equal(once, twice, n * type->bytes);
    }
}

/* Zeros decode to zeros. */
static void test_zeros(void **state)
{
    (void)state;
    static const float zeros[512];
    static float ones[512], y[512];
    static uint8_t bytes[2048];
    for (size_t i = 0; i < 512; i++) ones[i] = 1.0f;
    for (size_t t = 0; t < ggml_type_count(); t++)
        for (int weighted = 0; weighted < 2; weighted++) {
            const struct ggml_type *type = ggml_type_at(t);
            encode(type, zeros, weighted ? ones : NULL, 512, bytes);
            type->decode(bytes, blocks_of(type, 512), y);
            for (size_t i = 0; i < 512; i++) assert_true(y[i] == 0.0f);
        }
}

/* ---- FP4 ------------------------------------------------------------------------------------------------------------------------ */

static uint8_t mxfp4_byte(float amax)
{
    float x[32] = { amax };
    uint8_t block[17];
    ggml_mxfp4.encode(x, NULL, 1, block);
    return block[0];
}

/* ggml takes floor(log2f(amax)): for some numbers below 2^k log2f gives k. */
static void test_mxfp4_exponent(void **state)
{
    (void)state;
    static const struct {
        int k, taken; /* how many binary32 numbers below 2^k count as 2^k */
    } cases[] = { { 128, 44 }, { 65, 44 }, { 64, 22 }, { 33, 22 }, { 16, 5 }, { 9, 5 },  { 8, 2 },    { 5, 2 },    { 4, 1 },    { 3, 1 },    { 2, 0 },
                  { 1, 0 },    { 0, 0 },   { -1, 0 },  { -2, 1 },  { -4, 2 }, { -8, 5 }, { -16, 11 }, { -32, 22 }, { -64, 44 }, { -122, 44 } };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        const uint32_t power = (uint32_t)(cases[c].k + 127) << 23, taken = (uint32_t)cases[c].taken;
        const int byte = cases[c].k + 125;
        if (cases[c].k < 128) assert_int_equal(mxfp4_byte(f32_from_bits(power)), byte);
        if (taken > 0) assert_int_equal(mxfp4_byte(f32_from_bits(power - taken)), byte);
        assert_int_equal(mxfp4_byte(f32_from_bits(power - taken - 1)), byte - 1);
    }
    assert_int_equal(mxfp4_byte(0.0f), 0);
    assert_int_equal(mxfp4_byte(0x1p-125f), 0);
    assert_int_equal(mxfp4_byte(0x1p-126f), 255); /* wraps */
    assert_int_equal(mxfp4_byte(0x1p-149f), (uint8_t)-24);
}

static uint8_t nvfp4_byte(float scale)
{
    float x[64] = { scale * 6.0f };
    uint8_t block[36];
    ggml_nvfp4.encode(x, NULL, 1, block);
    return block[0];
}

static void test_nvfp4_scale(void **state)
{
    (void)state;
    static const struct {
        float scale;
        uint8_t byte;
    } cases[] = { { 0.0f, 0 },       { 0x1p-11f, 0 },  { 0x1p-10f, 1 },  { 0x1p-9f, 1 },    { 0x1.7p-9f, 1 }, { 0x1.8p-9f, 2 },  { 0x1.ep-7f, 7 },
                  { 0x1.fcp-7f, 7 }, { 0x1p-6f, 8 },   { 0x1.1p-6f, 9 }, { 0x1.0fp-6f, 8 }, { 1.0f, 0x38 },   { 1.0625f, 0x39 }, { 1.9375f, 0x40 },
                  { 240.0f, 0x77 },  { 247.5f, 0x77 }, { 248.0f, 0x7E }, { 448.0f, 0x7E },  { 1e30f, 0x7E } };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++)
        if (nvfp4_byte(cases[c].scale) != cases[c].byte)
            fail_msg("scale %a: byte %02x, not %02x", (double)cases[c].scale, nvfp4_byte(cases[c].scale), cases[c].byte);
}

/* The nearest of the eight magnitudes, the smaller one of two, by exact arithmetic. */
static float nearest_fp4(float x, float scale)
{
    static const double magnitudes[8] = { 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0 };
    double best = 0.0;
    for (int k = 1; k < 8; k++)
        if (fabs(magnitudes[k] * (double)scale - fabs((double)x)) < fabs(best - fabs((double)x))) best = magnitudes[k] * (double)scale;
    return (float)(x < 0.0f ? -best : best);
}

static void check_fp4(const struct ggml_type *type, float scale)
{
    static const float midpoints[7] = { 0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f };
    float x[64], y[64];
    uint8_t block[36];
    for (uint32_t i = 0; i < 64; i++) {
        const float middle = midpoints[i % 7] * scale;
        x[i] = f32_from_bits(f32_bits(middle) + i % 3 - 1);
        x[i] = i % 2 ? -x[i] : x[i];
        if (i % 16 == 0) x[i] = 6.0f * scale;
    }
    encode(type, x, NULL, 64, block);
    type->decode(block, blocks_of(type, 64), y);
    for (size_t i = 0; i < 64; i++)
        if (y[i] != nearest_fp4(x[i], scale)) fail_msg("%s: %a under %a became %a", type->name, (double)x[i], (double)scale, (double)y[i]);
}

static void test_fp4_ties(void **state)
{
    (void)state;
    for (int32_t e = -120; e <= 124; e++) check_fp4(&ggml_mxfp4, exact_exp2(e));
    for (uint32_t byte = 8; byte < 0x78; byte++) check_fp4(&ggml_nvfp4, f8_to_f32((uint8_t)byte, 3, 7, false));
}

/* ---- files made by ggml ----------------------------------------------------------------------------------------------------------- */

static uint32_t word_at(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* A tensor of an rwkv.cpp file: n_dims, length of the name, type, dims, name, data. */
struct rwkv_tensor {
    uint32_t type;
    size_t n;
    const uint8_t *data;
};

static const uint8_t *next_tensor(const uint8_t *at, struct rwkv_tensor *tensor)
{
    const uint32_t n_dims = word_at(at), name = word_at(at + 4);
    tensor->type = word_at(at + 8);
    tensor->n = 1;
    for (uint32_t d = 0; d < n_dims; d++) tensor->n *= word_at(at + 12 + 4 * d);
    tensor->data = at + 12 + 4 * n_dims + name;
    return tensor->data + tensor->n / 32 * (tensor->type == 7 ? 22 : tensor->type == 8 ? 24 : 128) + (tensor->type == 0 ? tensor->n % 32 * 4 : 0);
}

static size_t check_rwkv(const char *plain, const char *packed, const struct ggml_type *type)
{
    size_t n_plain, n_packed, blocks = 0;
    uint8_t *x_file = (uint8_t *)read_file(plain, &n_plain), *q_file = (uint8_t *)read_file(packed, &n_packed);
    const uint8_t *x_at = x_file + 24, *q_at = q_file + 24;
    while (x_at < x_file + n_plain) {
        struct rwkv_tensor x, q;
        x_at = next_tensor(x_at, &x);
        q_at = next_tensor(q_at, &q);
        assert_int_equal(x.n, q.n);
        if (q.type == 0) continue;
        float *values = malloc(x.n * sizeof *values);
        uint8_t *bytes = malloc(x.n);
        ggml_f32.decode(x.data, x.n, values);
        encode(type, values, NULL, x.n, bytes);
        assert_memory_equal(bytes, q.data, blocks_of(type, x.n) * type->bytes);
        blocks += blocks_of(type, x.n);
        free(values);
        free(bytes);
    }
    assert_ptr_equal(q_at, q_file + n_packed);
    free(x_file);
    free(q_file);
    return blocks;
}

static void test_rwkv(void **state)
{
    (void)state;
    const char *plain = shared_data("llm/rwkv/tiny-rwkv-7v0-834K-FP32.bin"), *q5_0 = shared_data("llm/rwkv/tiny-rwkv-7v0-834K-Q5_0.bin"),
               *q5_1 = shared_data("llm/rwkv/tiny-rwkv-7v0-834K-Q5_1.bin");
    if (!plain || !q5_0 || !q5_1) skip();
    assert_int_equal(check_rwkv(plain, q5_0, &ggml_q5_0), 18432);
    assert_int_equal(check_rwkv(plain, q5_1, &ggml_q5_1), 18432);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),     cmocka_unit_test(test_specification),  cmocka_unit_test(test_golden),
        cmocka_unit_test(test_any_bytes), cmocka_unit_test(test_blocks_alone),   cmocka_unit_test(test_stable),
        cmocka_unit_test(test_zeros),     cmocka_unit_test(test_mxfp4_exponent), cmocka_unit_test(test_nvfp4_scale),
        cmocka_unit_test(test_fp4_ties),  cmocka_unit_test(test_rwkv),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
