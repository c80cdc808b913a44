/* ggml_ternary.c: codes of one or two bits around zero: TQ1_0, TQ2_0, Q1_0, Q2_0.
 *
 *   TQ1_0 | 32 bytes of 5 trits | 16 bytes of 5 trits | 4 bytes of 4 trits | d f16 |     y = (trit - 1) * d      256 = 160 + 80 + 16 elements
 *   TQ2_0 | 2 * 32 bytes of 4 crumbs | d f16 |                                           y = (crumb - 1) * d     256
 *   Q1_0  | d f16 | 16 bytes of 8 bits |                                                 y = bit ? d : -d        128
 *   Q2_0  | d f16 | 16 bytes of 4 crumbs |                                               y = (crumb - 1) * d      64
 *
 * A byte of trits holds the fraction 0.t0 t1 t2 t3 t4 in base 3, as ceil(256 * number / 243): multiplying the byte by 3 pushes the next trit out
 * above bit 7.
 *
 * Why this way: as ggml reads them; the fraction lets a decoder take trits from the front with one multiplication each.
 * Corner cases: d below 2^-128, whose inverse overflows: TQ types store trit 1 (zero), Q2_0 code 0; Q1_0 has no zero, zeros become +d; the sum of
 * Q1_0 runs in element order.
 * Reference: layouts.md 2(f). Worked number: trits 2 1 0 1 2 = 194: ceil(256 * 194 / 243) = 205; 205 * 3 = 615 = 2 * 256 + 103, and so on.
 */
#include "number/ggml.h"
#include "number/ggml_bits.h"

/* ---- TQ1_0 ---------------------------------------------------------------------------------------------------------------------- */

/* A run of bytes: trit t of byte b is element b + t * bytes of the run. */
struct trits {
    size_t bytes, each;
};

static const struct trits runs[] = { { 32, 5 }, { 16, 5 }, { 4, 4 } };

static uint8_t ternary_code(float value, float scale)
{
    return (uint8_t)(is_overflow(scale) ? 1 : round_away(value * scale) + 1);
}

/* byte: 0.t0 t1 t2 t3 t4 (base 3) * 256, rounded up */
static void decode_tq1_0(const uint8_t *blocks, size_t n_blocks, float *y)
{
    for (; n_blocks > 0; n_blocks--, blocks += 54) {
        const float d = load_f16(blocks + 52);
        const uint8_t *bytes = blocks;
        for (size_t run = 0; run < 3; run++) {
            const size_t stride = runs[run].bytes;
            for (size_t b = 0; b < stride; b++) {
                uint32_t fraction = bytes[b];
                for (size_t t = 0; t < runs[run].each; t++) {
                    y[b + t * stride] = (float)((int32_t)(fraction * 3 >> 8) - 1) * d;
                    fraction = fraction * 3 & 0xFF;
                }
            }
            y += stride * runs[run].each;
            bytes += stride;
        }
    }
}

static void encode_tq1_0(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    (void)weight;
    for (; n_blocks > 0; n_blocks--, blocks += 54) {
        const float d = largest_magnitude(x, 256), scale = inverse(d);
        uint8_t *bytes = blocks;
        for (size_t run = 0; run < 3; run++) {
            for (size_t b = 0; b < runs[run].bytes; b++) {
                uint32_t number = 0;
                for (size_t t = 0; t < 5; t++) number = 3 * number + (t < runs[run].each ? ternary_code(x[b + t * runs[run].bytes], scale) : 0);
                bytes[b] = (uint8_t)((number * 256 + 242) / 243);
            }
            x += runs[run].bytes * runs[run].each;
            bytes += runs[run].bytes;
        }
        store_f16(blocks + 52, d);
    }
}

/* ---- TQ2_0 ---------------------------------------------------------------------------------------------------------------------- */

/* byte l of each 32: code[l + 96] code[l + 64] code[l + 32] code[l], 2 bits each */
static void decode_tq2_0(const uint8_t *blocks, size_t n_blocks, float *y)
{
    uint8_t codes[256];
    for (; n_blocks > 0; n_blocks--, blocks += 66, y += 256) {
        const float d = load_f16(blocks + 64);
        unpack_crumbs(blocks, codes);
        unpack_crumbs(blocks + 32, codes + 128);
        for (size_t i = 0; i < 256; i++) y[i] = (float)(codes[i] - 1) * d;
    }
}

static void encode_tq2_0(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    uint8_t codes[256];
    (void)weight;
    for (; n_blocks > 0; n_blocks--, blocks += 66, x += 256) {
        const float d = largest_magnitude(x, 256), scale = inverse(d);
        for (size_t i = 0; i < 256; i++) codes[i] = ternary_code(x[i], scale);
        pack_crumbs(codes, blocks);
        pack_crumbs(codes + 128, blocks + 32);
        store_f16(blocks + 64, d);
    }
}

/* ---- Q1_0 ----------------------------------------------------------------------------------------------------------------------- */

/* byte j, bit i: element 8 * j + i */
static void decode_q1_0(const uint8_t *blocks, size_t n_blocks, float *y)
{
    for (; n_blocks > 0; n_blocks--, blocks += 18, y += 128) {
        const float d = load_f16(blocks);
        for (size_t i = 0; i < 128; i++) y[i] = blocks[2 + i / 8] >> (i % 8) & 1 ? d : -d;
    }
}

static void encode_q1_0(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    (void)weight;
    for (; n_blocks > 0; n_blocks--, blocks += 18, x += 128) {
        float sum = 0.0f;
        for (size_t i = 0; i < 128; i++) sum += fabsf(x[i]);
        store_f16(blocks, sum / 128.0f);
        for (size_t byte = 0; byte < 16; byte++) {
            uint32_t bits = 0;
            for (size_t i = 0; i < 8; i++) bits |= (uint32_t)(x[8 * byte + i] >= 0.0f) << i;
            blocks[2 + byte] = (uint8_t)bits;
        }
    }
}

/* ---- Q2_0 ----------------------------------------------------------------------------------------------------------------------- */

/* byte j: element 4 * j + 3 | 4 * j + 2 | 4 * j + 1 | 4 * j, 2 bits each */
static void decode_q2_0(const uint8_t *blocks, size_t n_blocks, float *y)
{
    for (; n_blocks > 0; n_blocks--, blocks += 18, y += 64) {
        const float d = load_f16(blocks);
        for (size_t i = 0; i < 64; i++) y[i] = (float)((blocks[2 + i / 4] >> (2 * (i % 4)) & 3) - 1) * d;
    }
}

static void encode_q2_0(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    (void)weight;
    for (; n_blocks > 0; n_blocks--, blocks += 18, x += 64) {
        const float d = largest_magnitude(x, 64), scale = inverse(d);
        store_f16(blocks, d);
        for (size_t byte = 0; byte < 16; byte++) {
            uint32_t bits = 0;
            for (size_t i = 0; i < 4; i++) bits |= (is_overflow(scale) ? 0u : (uint32_t)(round_away(x[4 * byte + i] * scale) + 1)) << (2 * i);
            blocks[2 + byte] = (uint8_t)bits;
        }
    }
}

/* ---- rows ----------------------------------------------------------------------------------------------------------------------- */

const struct ggml_type ggml_tq1_0 = {
    "TQ1_0", "tq1_0", "1.69 bits: ternary, 5 codes a byte, a scale for 256", 34, 256, 54, false, false, decode_tq1_0, encode_tq1_0, NULL, 0.0f
};
const struct ggml_type ggml_tq2_0 = {
    "TQ2_0", "tq2_0", "2.06 bits: ternary, 4 codes a byte, a scale for 256", 35, 256, 66, false, false, decode_tq2_0, encode_tq2_0, NULL, 0.0f
};
const struct ggml_type ggml_q1_0 = { "Q1_0", "q1_0", "1.13 bits: signs, a scale for 128", 41, 128, 18, false, false, decode_q1_0, encode_q1_0,
                                     NULL,   0.0f };
const struct ggml_type ggml_q2_0 = { "Q2_0", "q2_0", "2.25 bits: 2-bit codes, a scale for 64", 42, 64, 18, false, false, decode_q2_0, encode_q2_0,
                                     NULL,   0.0f };
