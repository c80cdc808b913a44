/* ggml_k_symmetric.c: 256 elements with small integer scales for 16 of them: Q3_K, Q6_K.
 *
 *   Q3_K | 32 bytes of 3rd bits | 64 crumbs | 12 bytes: scales | d f16 |      y = d * (scale - 32) * (q - 4)
 *   Q6_K | 128 nibbles | 64 crumbs | 16 int8 scales | d f16 |                 y = d * scale * (q - 32)
 *
 * Why this way: encoding is the same three steps for both: a scale for each group by search, integers for these, then codes anew under the scales
 * as stored.
 * Corner cases: scales have signs, the extreme weight takes the lowest code; a group whose stored scale is zero keeps the codes of its search; Q6_K
 * of zeros is a block of zero bytes.
 * Reference: layouts.md 2(f). Worked number: Q6_K, largest scale -0.5: d = 0.5/128 and its integer -128.
 */
#include "number/ggml.h"
#include "number/ggml_bits.h"
#include "number/ggml_mse.h"
#include "number/ggml_pack.h"
#include "number/ggml_search.h"

#define SUPER 256u

/* ---- Q3_K ----------------------------------------------------------------------------------------------------------------------- */

/* 16 scales of 6 bits: byte j < 8: scale[j + 8] bits 3 .. 0 | scale[j] bits 3 .. 0      8 + j: bits 5 4 of scale[j + 12] | of scale[j + 8] | of
 * scale[j + 4] | of scale[j] */
static void unpack_sixteen(const uint8_t *bytes, uint8_t *scales)
{
    for (size_t g = 0; g < 16; g++) scales[g] = (uint8_t)((bytes[g % 8] >> (g < 8 ? 0 : 4) & 15) | (bytes[8 + g % 4] >> (2 * (g / 4)) & 3) << 4);
}

/* byte l, bit p: 3rd bit of code[32p + l]    32 + 32h + l: codes l, l + 32, l + 64, l + 96 of half h, low 2 bits each    96: 12 bytes of scales
 * 108: d f16 */
static void decode_q3_k(const uint8_t *blocks, size_t n_blocks, float *y)
{
    uint8_t codes[SUPER], scales[16];
    for (; n_blocks > 0; n_blocks--, blocks += 110, y += SUPER) {
        const float d = load_f16(blocks + 108);
        unpack_sixteen(blocks + 96, scales);
        unpack_crumbs(blocks + 32, codes);
        unpack_crumbs(blocks + 64, codes + 128);
        for (size_t g = 0; g < 16; g++) {
            const uint8_t *third = blocks + 16 * (g % 2), *low = codes + 16 * g;
            const float scale = d * (float)(scales[g] - 32);
            for (size_t i = 0; i < 16; i++) y[16 * g + i] = scale * (float)((low[i] | (third[i] >> (g / 2) & 1) << 2) - 4);
        }
    }
}

/* Scales as integers 0 .. 63 around 32; returns d. */
static float plain_scales_q3(const float *scales, uint8_t *integers)
{
    const float peak = peak_of(scales, 16), inverse_unit = -32.0f / peak;
    memset(integers, 0, 16);
    if (peak == 0.0f) return 0.0f;
    for (size_t g = 0; g < 16; g++) integers[g] = (uint8_t)(clamp_int(signed_byte(nearest_int(inverse_unit * scales[g])), -32, 31) + 32);
    return 1.0f / inverse_unit;
}

static float search_q3(const float *x, const float *importance, uint8_t *integers, uint8_t *codes)
{
    float weight[16], scales[16], sums[16];
    if (!importance) {
        for (size_t g = 0; g < 16; g++) scales[g] = ggml_descend_symmetric(x + 16 * g, 16, 4, codes + 16 * g);
        return plain_scales_q3(scales, integers);
    }
    const float mean = 2.0f * sum_squares(x, SUPER) / (float)SUPER;
    for (size_t g = 0; g < 16; g++) {
        heed_importance(x + 16 * g, importance + 16 * g, mean, 16, weight);
        sums[g] = sum_of(weight, 16);
        scales[g] = ggml_search_symmetric(x + 16 * g, weight, 16, 4, codes + 16 * g);
    }
    return ggml_search_symmetric(scales, sums, 16, 32, integers);
}

static void encode_q3_k_block(const float *x, const float *weight, uint8_t *bytes)
{
    uint8_t codes[SUPER], scales[16];
    store_f16(bytes + 108, search_q3(x, weight, scales, codes));
    pack_block_sixteen(scales, bytes + 96);
    const float d = load_f16(bytes + 108);
    for (size_t g = 0; g < 16; g++) requantise(x + 16 * g, 16, d * (float)(scales[g] - 32), 0.0f, -4, 3, codes + 16 * g);
    memset(bytes, 0, 32);
    for (size_t i = 0; i < SUPER; i++) bytes[i % 32] = (uint8_t)(bytes[i % 32] | (codes[i] >> 2) << (i / 32));
    pack_crumbs(codes, bytes + 32);
    pack_crumbs(codes + 128, bytes + 64);
}

static void encode_q3_k(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    for (size_t b = 0; b < n_blocks; b++) encode_q3_k_block(x + SUPER * b, weight ? weight + SUPER * b : NULL, blocks + 110 * b);
}

/* ---- Q6_K ----------------------------------------------------------------------------------------------------------------------- */

/* of half h: byte 64h + l < 64: low 4 bits of codes l + 64 and l, l < 64    128 + 32h + l: bits 5 4 of codes l + 96, l + 64, l + 32, l, 2 bits each
 * 192 + g: scale[g], two's complement    208: d f16 */
static void decode_q6_k(const uint8_t *blocks, size_t n_blocks, float *y)
{
    uint8_t low[SUPER], high[SUPER];
    for (; n_blocks > 0; n_blocks--, blocks += 210, y += SUPER) {
        const float d = load_f16(blocks + 208);
        for (size_t half = 0; half < 2; half++) {
            unpack_nibbles(blocks + 64 * half, 64, low + 128 * half);
            unpack_crumbs(blocks + 128 + 32 * half, high + 128 * half);
        }
        for (size_t g = 0; g < 16; g++) {
            const float scale = d * (float)signed_byte(blocks[192 + g]);
            for (size_t i = 16 * g; i < 16 * g + 16; i++) y[i] = scale * (float)((low[i] | high[i] << 4) - 32);
        }
    }
}

static void encode_q6_k_block(const float *x, const float *importance, uint8_t *bytes)
{
    uint8_t codes[SUPER], high[SUPER];
    float weight[16], scales[16];
    for (size_t g = 0; g < 16; g++) {
        for (size_t i = 0; i < 16; i++) weight[i] = importance ? importance[16 * g + i] : x[16 * g + i] * x[16 * g + i];
        scales[g] = ggml_search_symmetric(x + 16 * g, weight, 16, 32, codes + 16 * g);
    }
    const float peak = peak_of(scales, 16), inverse_unit = -128.0f / peak;
    memset(bytes, 0, 210);
    if (fabsf(peak) < 1e-15f) return;
    store_f16(bytes + 208, 1.0f / inverse_unit);
    const float d = load_f16(bytes + 208);
    for (size_t g = 0; g < 16; g++) {
        const int32_t scale = signed_byte(clamp_int(nearest_int(inverse_unit * scales[g]), INT32_MIN, 127));
        bytes[192 + g] = (uint8_t)scale;
        requantise(x + 16 * g, 16, d * (float)scale, 0.0f, -32, 31, codes + 16 * g);
    }
    for (size_t i = 0; i < SUPER; i++) high[i] = codes[i] >> 4;
    for (size_t i = 0; i < SUPER; i++) codes[i] &= 15;
    for (size_t half = 0; half < 2; half++) {
        pack_nibbles(codes + 128 * half, 64, bytes + 64 * half);
        pack_crumbs(high + 128 * half, bytes + 128 + 32 * half);
    }
}

static void encode_q6_k(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    for (size_t b = 0; b < n_blocks; b++) encode_q6_k_block(x + SUPER * b, weight ? weight + SUPER * b : NULL, blocks + 210 * b);
}

/* ---- rows ----------------------------------------------------------------------------------------------------------------------- */

const struct ggml_type ggml_q3_k = {
    "Q3_K", "q3_k", "3.44 bits: 3-bit codes, 6-bit scales for 16 in 256", 11, 256, 110, true, false, decode_q3_k, encode_q3_k, ggml_mse_q3_k, 0.0f
};
const struct ggml_type ggml_q6_k = {
    "Q6_K", "q6_k", "6.56 bits: 6-bit codes, 8-bit scales for 16 in 256", 14, 256, 210, true, false, decode_q6_k, encode_q6_k, ggml_mse_q6_k, 0.0f
};
