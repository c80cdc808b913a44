/* ggml_simple.c: F32, F16, BF16, and blocks of 32 with one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
 *
 *   Q4_0  | d f16 | 16 nibbles |              y = (q - 8) * d         Q5_0  | d f16 | 5th bits u32 | 16 nibbles |              y = (q - 16) * d
 *   Q4_1  | d f16 | m f16 | 16 nibbles |      y = q * d + m           Q5_1  | d f16 | m f16 | 5th bits u32 | 16 nibbles |      y = q * d + m
 *   Q8_0  | d f16 | 32 int8 |                 y = q * d
 *
 * Why this way: symmetric and affine types differ in their number of levels alone; one pair of functions finds codes for both, another packs them.
 * Corner cases: d is F16, so amax beyond 65504 * 8 gives Inf; codes come from the d before that rounding; 1/d overflows for d below 2^-128, where
 * ggml's conversion of Inf and NaN to integers leaves code 0; Q4_0 of zeros has codes 8, and codes 0 with importance weights.
 * Reference: layouts.md 2(f). Worked number: Q4_0, x = {-4, 1, 0, ...}: d = 0.5, codes 0, 10, 8.
 */
#include "number/ggml.h"
#include "number/ggml_bits.h"
#include "number/ggml_mse.h"
#include "number/ggml_pack.h"
#include "number/ggml_search.h"

#define BLOCK 32u

/* ---- plain floats --------------------------------------------------------------------------------------------------------------- */

/* F32   little-endian binary32 */
static void decode_f32(const uint8_t *blocks, size_t n_blocks, float *y)
{
    for (size_t i = 0; i < n_blocks; i++, blocks += 4)
        y[i] = f32_from_bits((uint32_t)blocks[0] | (uint32_t)blocks[1] << 8 | (uint32_t)blocks[2] << 16 | (uint32_t)blocks[3] << 24);
}

static void encode_f32(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    (void)weight;
    for (size_t i = 0; i < n_blocks; i++, blocks += 4) {
        store_u16(blocks, f32_bits(x[i]));
        store_u16(blocks + 2, f32_bits(x[i]) >> 16);
    }
}

/* F16   seeeeemm mmmmmmmm, low byte first */
static void decode_f16(const uint8_t *blocks, size_t n_blocks, float *y)
{
    for (size_t i = 0; i < n_blocks; i++) y[i] = load_f16(blocks + 2 * i);
}

static void encode_f16(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    (void)weight;
    for (size_t i = 0; i < n_blocks; i++) store_u16(blocks + 2 * i, f32_to_f16(x[i]));
}

/* BF16  seeeeeee emmmmmmm, low byte first */
static void decode_bf16(const uint8_t *blocks, size_t n_blocks, float *y)
{
    for (size_t i = 0; i < n_blocks; i++) y[i] = bf16_to_f32((uint16_t)(blocks[2 * i] | blocks[2 * i + 1] << 8));
}

static void encode_bf16(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    (void)weight;
    for (size_t i = 0; i < n_blocks; i++) store_u16(blocks + 2 * i, f32_to_bf16(x[i]));
}

/* ---- codes ---------------------------------------------------------------------------------------------------------------------- */

/* Codes 0 .. 2*half-1 around half; returns d. mean: mean square of the row, for importance weights. */
static float symmetric_codes(const float *x, const float *importance, float mean, int32_t half, uint8_t *codes)
{
    float weight[BLOCK];
    if (importance) {
        heed_importance(x, importance, mean, BLOCK, weight);
        return ggml_search_symmetric(x, weight, BLOCK, half, codes);
    }
    const float d = extreme(x, BLOCK) / (float)-half, scale = inverse(d), middle = (float)half + 0.5f;
    const int32_t top = 2 * half - 1;
    for (size_t i = 0; i < BLOCK; i++) {
        int32_t code = is_overflow(scale) ? 0 : (int32_t)(x[i] * scale + middle);
        codes[i] = (uint8_t)(code < top ? code : top);
    }
    return d;
}

/* A few affine blocks at once. */
#define AFFINE_BLOCKS 16u
struct affine_blocks {
    float d[AFFINE_BLOCKS], minima[AFFINE_BLOCKS];
    uint8_t codes[AFFINE_BLOCKS * BLOCK];
};

/* Codes 0 .. top of a block from its minimum on; returns d. */
static float affine_codes(const float *x, int32_t top, uint8_t *codes, float *minimum)
{
    float low = x[0], high = x[0];
    for (size_t i = 1; i < BLOCK; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    const float d = (high - low) / (float)top, scale = inverse(d);
    const bool lost = is_overflow(d) || is_overflow(scale);
    for (size_t i = 0; i < BLOCK; i++) {
        int32_t code = lost ? 0 : (int32_t)((x[i] - low) * scale + 0.5f);
        codes[i] = (uint8_t)(code < top ? code : top);
    }
    *minimum = low;
    return d;
}

static void encode_affine(const float *x, const float *importance, float mean, int32_t top, size_t n_blocks, struct affine_blocks *blocks)
{
    if (importance) {
        const struct ggml_affine how = { top, -0.9f, 0.05f, 36, false };
        float weight[AFFINE_BLOCKS * BLOCK];
        heed_importance(x, importance, mean, BLOCK * n_blocks, weight);
        ggml_search_affine(&how, x, weight, BLOCK, n_blocks, blocks->codes, blocks->d, blocks->minima);
        for (size_t b = 0; b < n_blocks; b++) blocks->minima[b] = -blocks->minima[b];
    } else {
        for (size_t b = 0; b < n_blocks; b++) blocks->d[b] = affine_codes(x + BLOCK * b, top, blocks->codes + BLOCK * b, &blocks->minima[b]);
    }
}

static float row_mean(const float *x, const float *importance, size_t n_blocks)
{
    return importance ? sum_squares(x, BLOCK * n_blocks) / (float)(BLOCK * n_blocks) : 0.0f;
}

/* ---- four bits ------------------------------------------------------------------------------------------------------------------ */

/* Q4_0   byte 0: d f16    2 + j: code[j + 16] code[j], 4 bits each */
static void decode_q4_0(const uint8_t *blocks, size_t n_blocks, float *y)
{
    uint8_t codes[BLOCK];
    for (; n_blocks > 0; n_blocks--, blocks += 18, y += BLOCK) {
        const float d = load_f16(blocks);
        unpack_nibbles(blocks + 2, 16, codes);
        for (size_t i = 0; i < BLOCK; i++) y[i] = (float)(codes[i] - 8) * d;
    }
}

static void encode_q4_0(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    uint8_t codes[BLOCK];
    const float mean = row_mean(x, weight, n_blocks);
    for (size_t b = 0; b < n_blocks; b++, blocks += 18) {
        store_f16(blocks, symmetric_codes(x + BLOCK * b, weight ? weight + BLOCK * b : NULL, mean, 8, codes));
        pack_nibbles(codes, 16, blocks + 2);
    }
}

/* Q4_1   byte 0: d f16    2: m f16    4 + j: code[j + 16] code[j], 4 bits each */
static void decode_q4_1(const uint8_t *blocks, size_t n_blocks, float *y)
{
    uint8_t codes[BLOCK];
    for (; n_blocks > 0; n_blocks--, blocks += 20, y += BLOCK) {
        const float d = load_f16(blocks), m = load_f16(blocks + 2);
        unpack_nibbles(blocks + 4, 16, codes);
        for (size_t i = 0; i < BLOCK; i++) y[i] = (float)codes[i] * d + m;
    }
}

static void encode_q4_1(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    struct affine_blocks found;
    const float mean = row_mean(x, weight, n_blocks);
    for (size_t first = 0; first < n_blocks; first += AFFINE_BLOCKS) {
        const size_t count = n_blocks - first < AFFINE_BLOCKS ? n_blocks - first : AFFINE_BLOCKS;
        encode_affine(x + BLOCK * first, weight ? weight + BLOCK * first : NULL, mean, 15, count, &found);
        for (size_t b = 0; b < count; b++, blocks += 20) {
            store_f16(blocks, found.d[b]);
            store_f16(blocks + 2, found.minima[b]);
            pack_nibbles(found.codes + BLOCK * b, 16, blocks + 4);
        }
    }
}

/* ---- five bits ------------------------------------------------------------------------------------------------------------------ */

/* byte j / 8, bit j % 8: 5th bit of code[j]    4 + j: code[j + 16] code[j], low 4 bits each */
static void unpack_fives(const uint8_t *bytes, uint8_t *codes)
{
    unpack_nibbles(bytes + 4, 16, codes);
    for (size_t i = 0; i < BLOCK; i++) codes[i] = (uint8_t)(codes[i] | (bytes[i / 8] >> (i % 8) & 1) << 4);
}

/* Q5_0   byte 0: d f16    2: 32 fives */
static void decode_q5_0(const uint8_t *blocks, size_t n_blocks, float *y)
{
    uint8_t codes[BLOCK];
    for (; n_blocks > 0; n_blocks--, blocks += 22, y += BLOCK) {
        const float d = load_f16(blocks);
        unpack_fives(blocks + 2, codes);
        for (size_t i = 0; i < BLOCK; i++) y[i] = (float)(codes[i] - 16) * d;
    }
}

static void encode_q5_0(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    uint8_t codes[BLOCK];
    const float mean = row_mean(x, weight, n_blocks);
    for (size_t b = 0; b < n_blocks; b++, blocks += 22) {
        store_f16(blocks, symmetric_codes(x + BLOCK * b, weight ? weight + BLOCK * b : NULL, mean, 16, codes));
        pack_block_fives(codes, blocks + 2);
    }
}

/* Q5_1   byte 0: d f16    2: m f16    4: 32 fives */
static void decode_q5_1(const uint8_t *blocks, size_t n_blocks, float *y)
{
    uint8_t codes[BLOCK];
    for (; n_blocks > 0; n_blocks--, blocks += 24, y += BLOCK) {
        const float d = load_f16(blocks), m = load_f16(blocks + 2);
        unpack_fives(blocks + 4, codes);
        for (size_t i = 0; i < BLOCK; i++) y[i] = (float)codes[i] * d + m;
    }
}

static void encode_q5_1(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    struct affine_blocks found;
    const float mean = row_mean(x, weight, n_blocks);
    for (size_t first = 0; first < n_blocks; first += AFFINE_BLOCKS) {
        const size_t count = n_blocks - first < AFFINE_BLOCKS ? n_blocks - first : AFFINE_BLOCKS;
        encode_affine(x + BLOCK * first, weight ? weight + BLOCK * first : NULL, mean, 31, count, &found);
        for (size_t b = 0; b < count; b++, blocks += 24) {
            store_f16(blocks, found.d[b]);
            store_f16(blocks + 2, found.minima[b]);
            pack_block_fives(found.codes + BLOCK * b, blocks + 4);
        }
    }
}

/* ---- eight bits ----------------------------------------------------------------------------------------------------------------- */

/* Q8_0   byte 0: d f16    2 + j: code[j], two's complement */
static void decode_q8_0(const uint8_t *blocks, size_t n_blocks, float *y)
{
    for (; n_blocks > 0; n_blocks--, blocks += 34, y += BLOCK) {
        const float d = load_f16(blocks);
        for (size_t i = 0; i < BLOCK; i++) y[i] = (float)signed_byte(blocks[2 + i]) * d;
    }
}

static void encode_q8_0(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    (void)weight;
    for (; n_blocks > 0; n_blocks--, blocks += 34, x += BLOCK) {
        const float d = largest_magnitude(x, BLOCK) / 127.0f, scale = inverse(d);
        store_f16(blocks, d);
        for (size_t i = 0; i < BLOCK; i++) blocks[2 + i] = (uint8_t)(is_overflow(scale) ? 0 : round_away(x[i] * scale));
    }
}

/* ---- rows ----------------------------------------------------------------------------------------------------------------------- */

const struct ggml_type ggml_f32 = { "F32", "f32", "32-bit floats", 0, 1, 4, false, false, decode_f32, encode_f32, NULL, 0x1.FFFFFEp127f };
const struct ggml_type ggml_f16 = { "F16", "f16", "16-bit floats", 1, 1, 2, false, false, decode_f16, encode_f16, NULL, 65504.0f };
const struct ggml_type ggml_bf16 = { "BF16", "bf16", "brain floats", 30, 1, 2, false, false, decode_bf16, encode_bf16, NULL, 0x1.FEp127f };
const struct ggml_type ggml_q4_0 = { "Q4_0",        "q4_0", "4.5 bits: 4-bit codes, a scale for 32", 2, 32, 18, true, true, decode_q4_0, encode_q4_0,
                                     ggml_mse_q4_0, 0.0f };
const struct ggml_type ggml_q4_1 = {
    "Q4_1", "q4_1", "5 bits: 4-bit codes, a scale and a minimum for 32", 3, 32, 20, true, true, decode_q4_1, encode_q4_1, ggml_mse_q4_1, 0.0f
};
const struct ggml_type ggml_q5_0 = { "Q5_0",        "q5_0", "5.5 bits: 5-bit codes, a scale for 32", 6, 32, 22, true, true, decode_q5_0, encode_q5_0,
                                     ggml_mse_q5_0, 0.0f };
const struct ggml_type ggml_q5_1 = {
    "Q5_1", "q5_1", "6 bits: 5-bit codes, a scale and a minimum for 32", 7, 32, 24, true, true, decode_q5_1, encode_q5_1, ggml_mse_q5_1, 0.0f
};
const struct ggml_type ggml_q8_0 = {
    "Q8_0", "q8_0", "8.5 bits: 8-bit codes, a scale for 32", 8, 32, 34, false, false, decode_q8_0, encode_q8_0, ggml_mse_q8_0, 0.0f
};
