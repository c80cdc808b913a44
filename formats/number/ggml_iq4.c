/* ggml_iq4.c: 4-bit codes into a table of 16 uneven levels: IQ4_NL, IQ4_XS.
 *
 *   IQ4_NL | d f16 | 16 nibbles |                                                        y = d * level               32 elements
 *   IQ4_XS | d f16 | high 2 bits of 8 scales u16 | low 4 bits, 4 bytes | 128 nibbles |   y = d * (s - 32) * level    256 elements, a scale for 32
 *
 *   levels   -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113
 *
 * Why this way: the nearest level is found by counting the midpoints that are not above a weight, which needs no branch; so the 16 candidates for a
 * scale run side by side, each with its sums in element order.
 * Corner cases: a weight on a midpoint, or NaN, takes the upper level; groups below 1e-15 have scale 0; IQ4_XS computes codes with the F32 scale,
 * not with the stored one.
 * Reference: layouts.md 2(f). Worked number: a group of extreme v: candidates 1/d = 127/v, then (-127 + k)/v for k = -7 .. 7.
 */
#include "number/ggml.h"
#include "number/ggml_bits.h"
#include "number/ggml_mse.h"

#define BLOCK 32u
#define TRIES 7
#define CANDIDATES 16u /* 1 + 2 * TRIES + 1 */
#define TINY 1e-15f

static const int8_t levels[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
static const float midpoints[15] = {
    -115.5f, -93.5f, -74.0f, -57.0f, -42.0f, -28.5f, -16.0f, -4.5f, 7.0f, 19.0f, 31.5f, 45.5f, 61.0f, 79.0f, 101.0f
};

static void nearest_levels(const float *x, size_t n, float inverse_scale, uint8_t *codes)
{
    for (size_t i = 0; i < n; i++) {
        const float value = inverse_scale * x[i];
        int32_t code = 0;
        for (size_t m = 0; m < 15; m++) code += !(value < midpoints[m]);
        codes[i] = (uint8_t)code;
    }
}

/* ---- search --------------------------------------------------------------------------------------------------------------------- */

static float nearest_level(float value)
{
    float level = (float)levels[0];
    for (size_t m = 0; m < 15; m++) level += value < midpoints[m] ? 0.0f : (float)(levels[m + 1] - levels[m]);
    return level;
}

/* Sums of w*level*x and w*level*level for all candidates. */
static void level_sums(const float *x, const float *weight, const float *inverses, float *level_x, float *level_level)
{
    float lx[CANDIDATES] = { 0 }, ll[CANDIDATES] = { 0 };
    for (size_t i = 0; i < BLOCK; i++)
        for (size_t k = 0; k < CANDIDATES; k++) {
            const float level = nearest_level(inverses[k] * x[i]), product = weight[i] * level;
            lx[k] += product * x[i];
            ll[k] += product * level;
        }
    memcpy(level_x, lx, sizeof lx);
    memcpy(level_level, ll, sizeof ll);
}

/* The scale of a block by weighted least squares, the best of the candidates. */
static float best_scale(const float *x, const float *weight)
{
    const float peak = extreme(x, BLOCK);
    float inverses[CANDIDATES], lx[CANDIDATES], ll[CANDIDATES];
    if (fabsf(peak) < TINY) return 0.0f;
    inverses[0] = 1.0f / (peak / 127.0f);
    for (int32_t k = 1; k < (int32_t)CANDIDATES; k++) inverses[k] = (float)(k - 1 - TRIES - 127) / peak;
    level_sums(x, weight, inverses, lx, ll);
    float scale = ll[0] > 0.0f ? lx[0] / ll[0] : 0.0f, best = scale * lx[0];
    for (size_t k = 1; k < CANDIDATES; k++) {
        if (!(ll[k] > 0.0f && lx[k] * lx[k] > best * ll[k])) continue;
        scale = lx[k] / ll[k];
        best = scale * lx[k];
    }
    return scale;
}

/* Scale of a block; mean: twice the mean square of what shares a scale of F16. */
static float block_scale(const float *x, const float *importance, float mean)
{
    float weight[BLOCK];
    if (importance) {
        heed_importance(x, importance, mean, BLOCK, weight);
    } else {
        for (size_t i = 0; i < BLOCK; i++) weight[i] = x[i] * x[i];
    }
    return best_scale(x, weight);
}

static float mean_of(const float *x, size_t n)
{
    return sum_squares(x, n) * (2.0f / (float)n);
}

/* ---- IQ4_NL --------------------------------------------------------------------------------------------------------------------- */

/* byte 0: d f16    2 + j: code[j + 16] code[j], 4 bits each */
static void decode_iq4_nl(const uint8_t *blocks, size_t n_blocks, float *y)
{
    uint8_t codes[BLOCK];
    for (; n_blocks > 0; n_blocks--, blocks += 18, y += BLOCK) {
        const float d = load_f16(blocks);
        unpack_nibbles(blocks + 2, 16, codes);
        for (size_t i = 0; i < BLOCK; i++) y[i] = d * (float)levels[codes[i]];
    }
}

static void encode_iq4_nl(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    uint8_t codes[BLOCK];
    for (; n_blocks > 0; n_blocks--, blocks += 18, x += BLOCK, weight = weight ? weight + BLOCK : NULL) {
        const float d = block_scale(x, weight, mean_of(x, BLOCK));
        store_f16(blocks, d);
        nearest_levels(x, BLOCK, inverse(d), codes);
        pack_nibbles(codes, 16, blocks + 2);
    }
}

/* ---- IQ4_XS --------------------------------------------------------------------------------------------------------------------- */

/* byte 0: d f16    2: u16, bits 2g: bits 4, 5 of scale g    4 + g / 2: low 4 bits of scale g (even g in the low nibble)
 * 8 + 16g + j: code[32g + j + 16] code[32g + j], 4 bits each */
static void decode_iq4_xs(const uint8_t *blocks, size_t n_blocks, float *y)
{
    uint8_t codes[BLOCK];
    for (; n_blocks > 0; n_blocks--, blocks += 136) {
        const float d = load_f16(blocks);
        const int32_t high = blocks[2] | blocks[3] << 8;
        for (int32_t g = 0; g < 8; g++, y += BLOCK) {
            const int32_t scale = (blocks[4 + g / 2] >> (4 * (g % 2)) & 15) | (high >> (2 * g) & 3) << 4;
            const float d_group = d * (float)(scale - 32);
            unpack_nibbles(blocks + 8 + 16 * g, 16, codes);
            for (size_t i = 0; i < BLOCK; i++) y[i] = d_group * (float)levels[codes[i]];
        }
    }
}

static void encode_iq4_xs_block(const float *x, const float *weight, uint8_t *block)
{
    float scales[8];
    uint8_t codes[BLOCK];
    uint32_t high = 0;
    const float mean = mean_of(x, 256);
    for (size_t g = 0; g < 8; g++) scales[g] = block_scale(x + BLOCK * g, weight ? weight + BLOCK * g : NULL, mean);
    const float d = -peak_of(scales, 8) / 32.0f, inverse_d = inverse(d);
    memset(block, 0, 8);
    store_f16(block, d);
    for (size_t g = 0; g < 8; g++) {
        const int32_t scale = clamp_int(nearest_int(inverse_d * scales[g]), -32, 31);
        nearest_levels(x + BLOCK * g, BLOCK, inverse(d * (float)scale), codes);
        pack_nibbles(codes, 16, block + 8 + 16 * g);
        block[4 + g / 2] = (uint8_t)(block[4 + g / 2] | ((scale + 32) & 15) << (4 * (g % 2)));
        high |= (uint32_t)(scale + 32) >> 4 << (2 * g);
    }
    store_u16(block + 2, high);
}

static void encode_iq4_xs(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    for (size_t b = 0; b < n_blocks; b++) encode_iq4_xs_block(x + 256 * b, weight ? weight + 256 * b : NULL, blocks + 136 * b);
}

/* ---- rows ----------------------------------------------------------------------------------------------------------------------- */

const struct ggml_type ggml_iq4_nl = {
    "IQ4_NL", "iq4_nl", "4.5 bits: 16 uneven levels, a scale for 32", 20, 32, 18, true, false, decode_iq4_nl, encode_iq4_nl, ggml_mse_iq4_nl, 0.0f
};
const struct ggml_type ggml_iq4_xs = {
    "IQ4_XS",        "iq4_xs", "4.25 bits: 16 uneven levels, 6-bit scales for 32 in 256", 23, 256, 136, true, false, decode_iq4_xs, encode_iq4_xs,
    ggml_mse_iq4_xs, 0.0f
};
