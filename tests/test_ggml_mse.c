/* test_ggml_mse.c: ggml's block types by least square error: never worse than ggml's rule, better where it can be, the same bytes everywhere.
 *
 * Drawing: inputs of 1024 values (a row) x importance weights x types; error of a block in binary64 as NUMERICS_GGML.md 1 defines it, computed here
 * anew.
 * Why this way: the promise is about every single block, so every block is compared; the searches are held against the true optimum where all stored
 * scales can be tried. The CRCs watch for change; a second implementation, in plain Python from NUMERICS_GGML.md alone, met the same bytes.
 * Corner cases: zeros, -0, subnormals, constants, one weight a block, offsets, beyond F16; weights of 0 alone, 0 among others, spread over 1e12, huge.
 * Reference: NUMERICS_GGML.md; layouts.md 5 for the golden input. Worked number: x = {3, 1, 0, ...}, Q8_0: d = 3/k for a whole k is exact up to F16.
 */
#include "support/draw.h"
#include "support/support.h"

#include <float.h>
#include <math.h>

#include "number/elem.h"
#include "number/ggml.h"
#include "number/half.h"

#define ROW 1024u
#define SAMPLE 16384u

/* Least gain in dB over ggml's rule on Gaussian weights, without and with importance; CRC-32 of the bytes of the golden input, likewise. */
static const struct {
    const char *name;
    double gain, weighted_gain;
    uint32_t crc, weighted_crc;
} types[] = {
    { "q4_0", 0.45, 0.35, 0x345433bf, 0x3610c5a6 },  { "q4_1", 1.00, 0.35, 0x8da5ad96, 0xb6019367 },  { "q5_0", 0.50, 0.40, 0xa4481414, 0x1ca26715 },
    { "q5_1", 1.05, 0.35, 0xb01f767e, 0x37ef0121 },  { "q8_0", 1.10, 2.50, 0x6f1d4641, 0x8639b414 },  { "q2_k", 1.00, 0.50, 0xa94e48d4, 0xa94d734f },
    { "q3_k", 0.38, 0.30, 0xcfc4dbc1, 0xf067bd54 },  { "q4_k", 0.22, 0.40, 0x326a94b4, 0x6b9f2c88 },  { "q5_k", 0.48, 0.70, 0x19600939, 0x96c82305 },
    { "q6_k", 0.60, 0.90, 0x3e1baece, 0x95381ed4 },  { "iq4_nl", 0.28, 0.5, 0xef52f023, 0xc6804db0 }, { "iq4_xs", 0.30, 0.5, 0x21283d12, 0x7314bb91 },
    { "mxfp4", 0.15, 0.25, 0x004296cc, 0xbb22b469 }, { "nvfp4", 1.10, 2.00, 0x2ed4fae8, 0x930dd7d1 },
};
enum { TYPES = sizeof types / sizeof types[0] };

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

/* ---- inputs --------------------------------------------------------------------------------------------------------------------- */

static const char *const kinds[] = { DRAW_SHAPES, "offset", "far offset", "subnormal",   "tiny", "edge of F16",
                                     "mixed big", "huge",   "bits",       "subnormal d", "zeros" };
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static float draw_value(size_t kind, size_t i, float level, uint64_t *state)
{
    const float normal = draw_normal(state);
    if (kind < DRAW_SHAPES_COUNT) return draw_shape(kind, i, level, normal, state);
    switch (kind) {
    case 8:
        return fabsf(normal) + 0.25f;
    case 9:
        return 1000.0f * level + normal;
    case 10:
        return normal * 0x1p-140f;
    case 11:
        return normal * exact_exp2(-(int32_t)(fabsf(level) * 64.0f) % 64 - 80);
    case 12:
        return normal * 16000.0f;
    case 13:
        return normal * exact_exp2((int32_t)draw(state, 24) - 4);
    case 14:
        return normal * exact_exp2((int32_t)(fabsf(level) * 64.0f) % 74 + 50);
    case 15:
        return f32_from_bits((draw(state, 254) << 23 | draw(state, 1u << 23)) | draw(state, 2) << 31);
    case 16:
        return normal * 0x1p-20f;
    default:
        return draw(state, 2) ? -0.0f : 0.0f;
    }
}

static void make_row(size_t kind, uint64_t seed, float *x)
{
    uint64_t state = seed;
    draw_row(draw_value, kind, ROW, &state, x);
}

/* Importance: none, moderate with zeros, over 1e12, almost only zeros, all zeros, huge, tiny. */
enum { WEIGHTS = 7 };

static const float *make_weights(size_t kind, uint64_t seed, float *weight)
{
    uint64_t state = seed + 99;
    for (size_t i = 0; i < ROW; i++) {
        const float square = draw_normal(&state) * draw_normal(&state), size = fabsf(square) + 0.001f;
        const uint32_t one = draw(&state, 8), forty = draw(&state, 41);
        switch (kind) {
        case 1:
            weight[i] = one == 0 ? 0.0f : size;
            break;
        case 2:
            weight[i] = size * exact_exp2((int32_t)forty - 20);
            break;
        case 3:
            weight[i] = forty == 0 ? size : 0.0f;
            break;
        case 4:
            weight[i] = 0.0f;
            break;
        case 5:
            weight[i] = size * 0x1p100f;
            break;
        default:
            weight[i] = size * 0x1p-130f;
        }
    }
    return kind == 0 ? NULL : weight;
}

/* ---- the measure ---------------------------------------------------------------------------------------------------------------- */

static double error_of(const float *x, const float *y, const float *weight, size_t n)
{
    double lanes[16] = { 0 };
    for (size_t i = 0; i < n; i++) {
        const double d = (double)x[i] - (double)y[i];
        lanes[i % 16] += d * d * (weight ? (double)weight[i] : 1.0);
    }
    for (size_t j = 0; j < 8; j++) lanes[j] += lanes[j + 8];
    for (size_t j = 0; j < 4; j++) lanes[j] += lanes[j + 4];
    return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
}

static bool all_finite(const float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(y[i])) return false;
    return true;
}

static float largest(const float *x, size_t n)
{
    float most = 0.0f;
    for (size_t i = 0; i < n; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    return most;
}

/* ---- never worse ---------------------------------------------------------------------------------------------------------------- */

/* Every block of one row. */
static void compare_row(const struct ggml_type *type, const char *kind, const float *x, const float *weight)
{
    static uint8_t plain[4 * ROW], better[4 * ROW];
    static float y[ROW], z[ROW];
    const size_t n = type->elements, n_blocks = ROW / n;
    type->encode(x, weight, n_blocks, plain);
    type->encode_mse(x, weight, n_blocks, better);
    type->decode(plain, n_blocks, y);
    type->decode(better, n_blocks, z);
    for (size_t b = 0; b < n_blocks; b++) {
        const size_t at = n * b;
        const double error = error_of(x + at, y + at, weight ? weight + at : NULL, n);
        const double mine = error_of(x + at, z + at, weight ? weight + at : NULL, n);
        if (mine > error || (mine != mine && error == error))
            fail_msg("%s %s, block %zu: error %.17g, ggml's %.17g", type->name, kind, b, mine, error);
        if (mine == error && memcmp(plain + b * type->bytes, better + b * type->bytes, type->bytes) != 0)
            fail_msg("%s %s, block %zu: other bytes for nothing", type->name, kind, b);
        if (largest(x + at, n) <= 65504.0f && !all_finite(z + at, n)) fail_msg("%s %s, block %zu: not finite", type->name, kind, b);
    }
}

static void test_never_worse(void **state)
{
    (void)state;
    static float x[ROW], weight[ROW];
    for (size_t t = 0; t < TYPES; t++)
        for (size_t kind = 0; kind < KINDS; kind++)
            for (size_t w = 0; w < WEIGHTS; w++)
                for (uint64_t seed = 1; seed < 3; seed++) {
                    make_row(kind, 1000 * seed + kind, x);
                    compare_row(ggml_type_find(types[t].name), kinds[kind], x, make_weights(w, seed, weight));
                }
}

/* ---- better --------------------------------------------------------------------------------------------------------------------- */

static double gain_db(const struct ggml_type *type, const float *x, const float *weight)
{
    static uint8_t plain[4 * SAMPLE], better[4 * SAMPLE];
    static float y[SAMPLE], z[SAMPLE];
    double error = 0.0, mine = 0.0;
    for (size_t at = 0; at < SAMPLE; at += ROW) {
        const size_t n_blocks = ROW / type->elements;
        type->encode(x + at, weight, n_blocks, plain);
        type->encode_mse(x + at, weight, n_blocks, better);
        type->decode(plain, n_blocks, y);
        type->decode(better, n_blocks, z);
        error += error_of(x + at, y, weight, ROW);
        mine += error_of(x + at, z, weight, ROW);
    }
    return 10.0 * log10(error / mine);
}

static void test_gain(void **state)
{
    (void)state;
    static float x[SAMPLE], weight[ROW];
    uint64_t random = 7;
    for (size_t i = 0; i < SAMPLE; i++) x[i] = bf16_to_f32(f32_to_bf16(draw_normal(&random) * 0.02f));
    for (size_t i = 0; i < ROW; i++) weight[i] = exact_exp2((int32_t)draw(&random, 9) - 4);
    for (size_t t = 0; t < TYPES; t++) {
        const struct ggml_type *type = ggml_type_find(types[t].name);
        const double gain = gain_db(type, x, NULL), weighted = gain_db(type, x, weight);
        print_message("%-7s %.3f dB, weighted %.3f dB\n", types[t].name, gain, weighted);
        if (gain < types[t].gain) fail_msg("%s: gain %.3f dB, not %.2f", types[t].name, gain, types[t].gain);
        if (weighted < types[t].weighted_gain) fail_msg("%s: weighted gain %.3f dB, not %.2f", types[t].name, weighted, types[t].weighted_gain);
    }
}

/* ---- the optimum ---------------------------------------------------------------------------------------------------------------- */

static double nearest_error(const float *x, double d, double low, double high)
{
    double error = 0.0;
    for (size_t i = 0; i < 32; i++) {
        double q = rint((double)x[i] / d);
        q = q < low ? low : q > high ? high : q;
        error += ((double)x[i] - q * d) * ((double)x[i] - q * d);
    }
    return error;
}

/* The least error over every F16 number from amax / most to amax / least, of both signs. */
static double brute_force(const float *x, double low, double high, float most, float least)
{
    const float amax = largest(x, 32);
    double best = HUGE_VAL;
    for (uint32_t bits = f32_to_f16(amax / most); bits <= f32_to_f16(amax / least); bits++)
        for (int sign = -1; sign <= 1; sign += 2) {
            const double error = nearest_error(x, sign * (double)f16_to_f32((uint16_t)bits), low, high);
            best = error < best ? error : best;
        }
    return best;
}

static void test_optimum(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double low, high;
        float most, least; /* range of amax / d */
        double excess, mean_excess; /* at most */
    } cases[] = { { "q4_0", -8, 7, 26.0f, 4.0f, 0.001, 0.0001 },
                  { "q5_0", -16, 15, 52.0f, 8.0f, 0.001, 0.0001 },
                  { "q8_0", -127, 127, 170.0f, 80.0f, 0.05, 0.001 } };
    enum { BLOCKS = 96 };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        const struct ggml_type *type = ggml_type_find(cases[c].name);
        uint64_t random = 31;
        double sum = 0.0, best_sum = 0.0;
        for (size_t b = 0; b < BLOCKS; b++) {
            float x[32], y[32];
            uint8_t block[64];
            for (size_t i = 0; i < 32; i++) x[i] = draw_normal(&random) * (b % 3 == 2 && draw(&random, 16) == 0 ? 0.1f : 0.02f);
            type->encode_mse(x, NULL, 1, block);
            type->decode(block, 1, y);
            const double error = error_of(x, y, NULL, 32), best = brute_force(x, cases[c].low, cases[c].high, cases[c].most, cases[c].least);
            if (error > best * (1.0 + cases[c].excess)) fail_msg("%s, block %zu: error %g, best %g", type->name, b, error, best);
            sum += error;
            best_sum += best;
        }
        if (sum > best_sum * (1.0 + cases[c].mean_excess)) fail_msg("%s: error %g, best %g", type->name, sum, best_sum);
    }
}

static double fp4_error(const float *x, size_t n, double scale)
{
    static const double values[8] = { 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0 };
    double error = 0.0;
    for (size_t i = 0; i < n; i++) {
        double least = HUGE_VAL;
        for (size_t v = 0; v < 8; v++) least = fmin(least, fabs(fabs((double)x[i]) - values[v] * scale));
        error += least * least;
    }
    return error;
}

/* Every exponent, every scale byte: what all candidates of FP4 together reach. */
static void test_optimum_fp4(void **state)
{
    (void)state;
    uint64_t random = 32;
    for (size_t b = 0; b < 200; b++) {
        float x[64], y[64];
        uint8_t block[36];
        for (size_t i = 0; i < 64; i++) x[i] = draw_normal(&random) * 0.3f;
        double best = HUGE_VAL;
        for (int e = -30; e < 10; e++) best = fmin(best, fp4_error(x, 32, ldexp(1.0, e)));
        ggml_mxfp4.encode_mse(x, NULL, 1, block);
        ggml_mxfp4.decode(block, 1, y);
        if (error_of(x, y, NULL, 32) > best * 1.000001) fail_msg("mxfp4, block %zu: %g, best %g", b, error_of(x, y, NULL, 32), best);
        ggml_nvfp4.encode_mse(x, NULL, 1, block);
        ggml_nvfp4.decode(block, 1, y);
        for (size_t s = 0; s < 64; s += 16) {
            best = HUGE_VAL;
            for (uint32_t byte = 1; byte < 0x7F; byte++) best = fmin(best, fp4_error(x + s, 16, (double)f8_to_f32((uint8_t)byte, 3, 7, false)));
            if (error_of(x + s, y + s, NULL, 16) > best * 1.000001)
                fail_msg("nvfp4, block %zu: %g, best %g", b, error_of(x + s, y + s, NULL, 16), best);
        }
    }
}

/* ---- what a type can hold survives ---------------------------------------------------------------------------------------------- */

/* A block of any codes and usual scales; returns its (least) reach: the largest value, for lines the range, in scales. */
static float make_grid_block(const struct ggml_type *type, uint64_t *random, float *y)
{
    uint8_t block[36];
    const uint16_t d = (uint16_t)(0x1000 + draw(random, 0x1800)), sign = (uint16_t)(draw(random, 2) << 15);
    const bool line = type == &ggml_q4_1 || type == &ggml_q5_1;
    const uint16_t m = f32_to_f16(f16_to_f32(d) * -(float)draw(random, 16)), stored = line ? d : d | sign;
    for (size_t i = 0; i < type->bytes; i++) block[i] = (uint8_t)draw(random, 256);
    float scale = f16_to_f32(d), reach = INFINITY;
    const size_t n_groups = type == &ggml_nvfp4 ? 4 : 1, n = type->elements / n_groups;
    if (type == &ggml_mxfp4) block[0] = (uint8_t)(100 + draw(random, 40));
    else if (type != &ggml_nvfp4) memcpy(block, (uint8_t[2]){ (uint8_t)stored, (uint8_t)(stored >> 8) }, 2);
    if (line) memcpy(block + 2, (uint8_t[2]){ (uint8_t)m, (uint8_t)(m >> 8) }, 2);
    for (size_t i = 2; type == &ggml_q8_0 && i < 34; i++) block[i] = block[i] == 0x80 ? 0x81 : block[i];
    for (size_t s = 0; type == &ggml_nvfp4 && s < 4; s++) block[s] = (uint8_t)(8 + draw(random, 0x68));
    type->decode(block, 1, y);
    for (size_t g = 0; g < n_groups; g++) {
        float least = line ? y[0] : 0.0f, most = least;
        for (size_t i = n * g; i < n * g + n; i++) {
            const float value = line ? y[i] : fabsf(y[i]);
            least = value < least ? value : least;
            most = value > most ? value : most;
        }
        if (type == &ggml_mxfp4) scale = exact_exp2(block[0] - 127);
        if (type == &ggml_nvfp4) scale = f8_to_f32(block[g], 3, 7, false);
        reach = fminf(reach, (most - least) / scale);
    }
    return reach;
}

/* What such a block decodes to comes back exactly, unless it leaves much of the range of codes idle. (A line that leaves
 * one idle has two equal lines, of which one minimum need not be an F16 number.) */
static void test_exact(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        float reach;
    } cases[] = { { "q4_0", 6 },  { "q4_1", 14.9f }, { "q5_0", 13 }, { "q5_1", 30.9f },
                  { "q8_0", 94 }, { "iq4_nl", 104 }, { "mxfp4", 1 }, { "nvfp4", 4 } };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        const struct ggml_type *type = ggml_type_find(cases[c].name);
        uint64_t random = 5;
        size_t met = 0;
        for (size_t b = 0; b < 500; b++) {
            float y[64], z[64];
            uint8_t block[36];
            if (make_grid_block(type, &random, y) < cases[c].reach) continue;
            type->encode_mse(y, NULL, 1, block);
            type->decode(block, 1, z);
            const double error = error_of(y, z, NULL, type->elements);
            if (error != 0.0) fail_msg("%s, block %zu: error %g", type->name, b, error);
            met++;
        }
        if (met < 150) fail_msg("%s: %zu blocks", type->name, met);
    }
}

/* ---- bytes that stay ------------------------------------------------------------------------------------------------------------ */

/* Blocks without weights do not depend on their neighbours; no byte beyond them is written; an odd address is as good. */
static void test_alone(void **state)
{
    (void)state;
    static float x[ROW];
    static uint8_t all[4 * ROW];
    for (size_t t = 0; t < TYPES; t++) {
        const struct ggml_type *type = ggml_type_find(types[t].name);
        make_row(2, 17, x);
        type->encode_mse(x, NULL, ROW / type->elements, all);
        uint8_t *alone = malloc(type->bytes + 1);
        assert_non_null(alone);
        for (size_t b = 0; b < ROW / type->elements; b++) {
            type->encode_mse(x + b * type->elements, NULL, 1, alone + 1);
            assert_memory_equal(alone + 1, all + b * type->bytes, type->bytes);
        }
        free(alone);
    }
}

/* Zeros, and what F16 cannot hold, keep ggml's bytes. */
static void test_kept(void **state)
{
    (void)state;
    static float x[ROW];
    static uint8_t plain[4 * ROW], better[4 * ROW];
    for (size_t t = 0; t < TYPES; t++)
        for (size_t kind = 14; kind < KINDS; kind += 3) {
            const struct ggml_type *type = ggml_type_find(types[t].name);
            if (type == &ggml_mxfp4 && kind == 14) continue;
            make_row(kind, 3, x);
            type->encode(x, NULL, ROW / type->elements, plain);
            type->encode_mse(x, NULL, ROW / type->elements, better);
            assert_memory_equal(plain, better, ROW / type->elements * type->bytes);
        }
}

static void test_rows(void **state)
{
    (void)state;
    size_t n = 0;
    for (size_t i = 0; i < ggml_type_count(); i++) n += ggml_type_at(i)->encode_mse != NULL;
    assert_int_equal(n, TYPES);
    for (size_t t = 0; t < TYPES; t++) assert_non_null(ggml_type_find(types[t].name)->encode_mse);
}

/* The input of layouts.md 5, four rows of 256; weights 1 + (29 i mod 64). */
static void test_golden(void **state)
{
    (void)state;
    static float x[ROW], weight[ROW];
    static uint8_t bytes[2 * ROW];
    bool same = true;
    for (int i = 0; i < (int)ROW; i++) {
        x[i] = (float)((i * 37 + 11) % 255 - 127) * exact_exp2(-(8 + ((i / 16) * 7 % 5)));
        weight[i] = (float)(1 + i * 29 % 64);
    }
    assert_int_equal(crc32_of(x, sizeof x), 0x4a31486bu);
    for (size_t t = 0; t < TYPES; t++) {
        const struct ggml_type *type = ggml_type_find(types[t].name);
        uint32_t crcs[2];
        for (int weighted = 0; weighted < 2; weighted++) {
            for (size_t at = 0; at < ROW; at += 256)
                type->encode_mse(x + at, weighted ? weight + at : NULL, 256 / type->elements, bytes + at / type->elements * type->bytes);
            crcs[weighted] = crc32_of(bytes, ROW / type->elements * type->bytes);
        }
        if (crcs[0] == types[t].crc && crcs[1] == types[t].weighted_crc) continue;
        print_message("%s: 0x%08x, 0x%08x\n", types[t].name, crcs[0], crcs[1]);
        same = false;
    }
    assert_true(same);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),  cmocka_unit_test(test_golden),  cmocka_unit_test(test_never_worse),
        cmocka_unit_test(test_gain),  cmocka_unit_test(test_optimum), cmocka_unit_test(test_optimum_fp4),
        cmocka_unit_test(test_exact), cmocka_unit_test(test_alone),   cmocka_unit_test(test_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
