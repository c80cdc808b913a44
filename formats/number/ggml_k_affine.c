/* ggml_k_affine.c: 256 elements with small integer scales and minima for 16 or 32 of them: Q2_K, Q4_K, Q5_K.
 *
 *   Q2_K | 16 bytes: minimum << 4 | scale | 64 crumbs | d f16 | dmin f16 |                         y = d * scale * q - dmin * minimum        16 groups of 16
 *   Q4_K | d f16 | dmin f16 | 12 bytes: scales, minima | 128 nibbles |                             the same                                  8 groups of 32
 *   Q5_K | d f16 | dmin f16 | 12 bytes: scales, minima | 32 bytes of 5th bits | 128 nibbles |      the same                                  8 groups of 32
 *
 * Why this way: encoding is the same three steps for all: a scale and a minimum for each group by search, integers for these, then codes anew under
 * both as stored.
 * Corner cases: a group whose stored scale is zero keeps the codes of its search; an integer out of range wraps to its 8 bits, as in ggml, which
 * bounds it in Q5_K and, without importance, in Q4_K.
 * Reference: layouts.md 2(f). Worked number: Q4_K with scale 2.0 in the largest group: d = 2/63, its integer 63.
 */
#include "number/ggml.h"
#include "number/ggml_bits.h"
#include "number/ggml_mse.h"
#include "number/ggml_pack.h"
#include "number/ggml_search.h"

#define SUPER 256u

/* ---- scales and minima (Q2_K, Q4_K, Q5_K) --------------------------------------------------------------------------------------- */

/* How the affine types differ. */
struct affine_type {
    size_t group; /* elements */
    int32_t top; /* largest integer of a scale */
    struct ggml_affine plain, weighted;
    float mean_factor; /* of the mean square in a weight */
};

static const struct affine_type affine_q2 = { 16, 15, { 3, -0.5f, 0.1f, 15, true }, { 3, -0.9f, 0.05f, 36, false }, 1.0f };
static const struct affine_type affine_q4 = { 32, 63, { 15, -1.0f, 0.1f, 20, false }, { 15, -0.9f, 0.05f, 36, false }, 2.0f };
static const struct affine_type affine_q5 = { 32, 63, { 31, -0.5f, 0.1f, 15, false }, { 31, -0.9f, 0.05f, 36, false }, 2.0f };

/* Two blocks of an affine type between search and packing: a search is fastest with 16 groups at once. */
#define PAIR 2u
struct affine_blocks {
    float d[PAIR], minimum_d[PAIR];
    uint8_t scales[PAIR][16], minima[PAIR][16]; /* may exceed their bits */
    uint8_t codes[PAIR * SUPER];
};

/* |x|, and for groups of 32 their root mean square more. */
static void plain_weights(const float *x, size_t n, float *weight)
{
    const float level = n == 32 ? sqrtf(sum_squares(x, n) / (float)n) : 0.0f;
    for (size_t i = 0; i < n; i++) weight[i] = level + fabsf(x[i]);
}

/* The largest positive number, 0 if there is none. */
static float largest_of(const float *x, size_t n)
{
    float largest = 0.0f;
    for (size_t i = 0; i < n; i++) largest = x[i] > largest ? x[i] : largest;
    return largest;
}

/* Integers for scales (or minima) by the largest; returns their unit. */
static float plain_integers(const float *scales, size_t n, int32_t top, uint8_t *integers)
{
    const float largest = largest_of(scales, n), inverse_unit = largest > 0.0f ? (float)top / largest : 0.0f;
    for (size_t g = 0; g < n; g++) integers[g] = (uint8_t)nearest_int(inverse_unit * scales[g]);
    return largest / (float)top;
}

/* Weights for the search, and their sums by group. */
static void affine_weights(const struct affine_type *type, const float *x, const float *importance, float *weight, float *sums)
{
    const size_t n = type->group;
    const float mean = importance ? type->mean_factor * sum_squares(x, SUPER) / (float)SUPER : 0.0f;
    for (size_t g = 0; g < SUPER / n; g++) {
        if (importance) heed_importance(x + n * g, importance + n * g, mean, n, weight + n * g);
        else plain_weights(x + n * g, n, weight + n * g);
        sums[g] = sum_of(weight + n * g, n);
    }
}

static void search_affine_blocks(const struct affine_type *type, const float *x, const float *importance, size_t n_blocks,
                                 struct affine_blocks *blocks)
{
    const size_t groups = SUPER / type->group;
    float weight[PAIR * SUPER], scales[PAIR * 16], minima[PAIR * 16], sums[PAIR * 16];
    for (size_t b = 0; b < n_blocks; b++)
        affine_weights(type, x + SUPER * b, importance ? importance + SUPER * b : NULL, weight + SUPER * b, sums + groups * b);
    ggml_search_affine(importance ? &type->weighted : &type->plain, x, weight, type->group, groups * n_blocks, blocks->codes, scales, minima);
    for (size_t b = 0; b < n_blocks; b++) {
        const float *s = scales + groups * b, *m = minima + groups * b, *w = sums + groups * b;
        blocks->d[b] =
            importance ? ggml_search_positive(s, w, groups, type->top, blocks->scales[b]) : plain_integers(s, groups, type->top, blocks->scales[b]);
        blocks->minimum_d[b] =
            importance ? ggml_search_positive(m, w, groups, type->top, blocks->minima[b]) : plain_integers(m, groups, type->top, blocks->minima[b]);
    }
}

/* 8 scales and 8 minima of 6 bits: byte j < 4: scale[j + 4] bits 5 4 | scale[j]      4 + j: minimum[j + 4] bits 5 4 | minimum[j]      8 + j:
 * minimum[j + 4] bits 3 .. 0 | scale[j + 4] bits 3 .. 0 */
static void unpack_sixes(const uint8_t *bytes, uint8_t *scales, uint8_t *minima)
{
    for (size_t j = 0; j < 4; j++) {
        scales[j] = bytes[j] & 63;
        minima[j] = bytes[j + 4] & 63;
        scales[j + 4] = (uint8_t)((bytes[j + 8] & 15) | bytes[j] >> 6 << 4);
        minima[j + 4] = (uint8_t)(bytes[j + 8] >> 4 | bytes[j + 4] >> 6 << 4);
    }
}

/* ---- Q2_K ----------------------------------------------------------------------------------------------------------------------- */

/* byte g: minimum[g] scale[g], 4 bits each    16 + 32h + l: codes l, l + 32, l + 64, l + 96 of half h, 2 bits each    80: d f16    82: dmin f16 */
static void decode_q2_k(const uint8_t *blocks, size_t n_blocks, float *y)
{
    uint8_t codes[SUPER];
    for (; n_blocks > 0; n_blocks--, blocks += 84) {
        const float d = load_f16(blocks + 80), minimum_d = load_f16(blocks + 82);
        unpack_crumbs(blocks + 16, codes);
        unpack_crumbs(blocks + 48, codes + 128);
        for (size_t g = 0; g < 16; g++, y += 16) {
            const float scale = d * (float)(blocks[g] & 15), minimum = minimum_d * (float)(blocks[g] >> 4);
            for (size_t i = 0; i < 16; i++) y[i] = scale * (float)codes[16 * g + i] - minimum;
        }
    }
}

static void pack_q2_k(const float *x, struct affine_blocks *found, size_t b, uint8_t *bytes)
{
    uint8_t *codes = found->codes + SUPER * b;
    store_f16(bytes + 80, found->d[b]);
    store_f16(bytes + 82, found->minimum_d[b]);
    const float d = load_f16(bytes + 80), minimum_d = load_f16(bytes + 82);
    for (size_t g = 0; g < 16; g++) {
        bytes[g] = (uint8_t)(found->scales[b][g] | found->minima[b][g] << 4);
        requantise(x + 16 * g, 16, d * (float)(bytes[g] & 15), minimum_d * (float)(bytes[g] >> 4), 0, 3, codes + 16 * g);
    }
    pack_crumbs(codes, bytes + 16);
    pack_crumbs(codes + 128, bytes + 48);
}

static void encode_q2_k(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    struct affine_blocks found;
    for (size_t first = 0; first < n_blocks; first += PAIR) {
        const size_t count = n_blocks - first < PAIR ? n_blocks - first : PAIR;
        search_affine_blocks(&affine_q2, x + SUPER * first, weight ? weight + SUPER * first : NULL, count, &found);
        for (size_t b = 0; b < count; b++) pack_q2_k(x + SUPER * (first + b), &found, b, blocks + 84 * (first + b));
    }
}

/* ---- Q4_K ----------------------------------------------------------------------------------------------------------------------- */

/* byte 0: d f16    2: dmin f16    4: 12 bytes of sixes    16 + 32c + l: code[64c + l + 32] code[64c + l], 4 bits each */
static void decode_q4_k(const uint8_t *blocks, size_t n_blocks, float *y)
{
    uint8_t codes[64], scales[8], minima[8];
    for (; n_blocks > 0; n_blocks--, blocks += 144) {
        const float d = load_f16(blocks), minimum_d = load_f16(blocks + 2);
        unpack_sixes(blocks + 4, scales, minima);
        for (size_t g = 0; g < 8; g++, y += 32) {
            const float scale = d * (float)scales[g], minimum = minimum_d * (float)minima[g];
            if (g % 2 == 0) unpack_nibbles(blocks + 16 + 16 * g, 32, codes);
            for (size_t i = 0; i < 32; i++) y[i] = scale * (float)codes[32 * (g % 2) + i] - minimum;
        }
    }
}

/* Integers as they are packed: up to 63, but Q4_K with importance lets them wrap. */
static void bound_integers(uint8_t *integers)
{
    for (size_t g = 0; g < 8; g++) integers[g] = integers[g] < 63 ? integers[g] : 63;
}

/* Writes the first 16 bytes of Q4_K and Q5_K and makes the codes final. */
static void pack_head(const struct affine_type *type, const float *x, struct affine_blocks *found, size_t b, uint8_t *bytes)
{
    uint8_t scales[8], minima[8];
    store_f16(bytes, found->d[b]);
    store_f16(bytes + 2, found->minimum_d[b]);
    pack_block_sixes(found->scales[b], found->minima[b], bytes + 4);
    unpack_sixes(bytes + 4, scales, minima);
    const float d = load_f16(bytes), minimum_d = load_f16(bytes + 2);
    for (size_t g = 0; g < 8; g++)
        requantise(x + 32 * g, 32, d * (float)scales[g], minimum_d * (float)minima[g], 0, type->plain.top, found->codes + SUPER * b + 32 * g);
}

static void pack_q4_k(const float *x, struct affine_blocks *found, size_t b, uint8_t *bytes)
{
    pack_head(&affine_q4, x, found, b, bytes);
    for (size_t c = 0; c < 4; c++) pack_nibbles(found->codes + SUPER * b + 64 * c, 32, bytes + 16 + 32 * c);
}

static void encode_q4_k(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    struct affine_blocks found;
    for (size_t first = 0; first < n_blocks; first += PAIR) {
        const size_t count = n_blocks - first < PAIR ? n_blocks - first : PAIR;
        search_affine_blocks(&affine_q4, x + SUPER * first, weight ? weight + SUPER * first : NULL, count, &found);
        for (size_t b = 0; b < count; b++) {
            if (!weight) bound_integers(found.scales[b]);
            if (!weight) bound_integers(found.minima[b]);
            pack_q4_k(x + SUPER * (first + b), &found, b, blocks + 144 * (first + b));
        }
    }
}

/* ---- Q5_K ----------------------------------------------------------------------------------------------------------------------- */

/* byte 0: d f16    2: dmin f16    4: 12 bytes of sixes    16 + l, bit g: 5th bit of code[32g + l]    48 + 32c + l: code[64c + l + 32] code[64c +
 * l], low 4 bits each */
static void decode_q5_k(const uint8_t *blocks, size_t n_blocks, float *y)
{
    uint8_t codes[64], scales[8], minima[8];
    for (; n_blocks > 0; n_blocks--, blocks += 176) {
        const float d = load_f16(blocks), minimum_d = load_f16(blocks + 2);
        unpack_sixes(blocks + 4, scales, minima);
        for (size_t g = 0; g < 8; g++, y += 32) {
            const float scale = d * (float)scales[g], minimum = minimum_d * (float)minima[g];
            if (g % 2 == 0) unpack_nibbles(blocks + 48 + 16 * g, 32, codes);
            for (size_t i = 0; i < 32; i++) y[i] = scale * (float)(codes[32 * (g % 2) + i] | (blocks[16 + i] >> g & 1) << 4) - minimum;
        }
    }
}

static void pack_q5_k(const float *x, struct affine_blocks *found, size_t b, uint8_t *bytes)
{
    uint8_t *codes = found->codes + SUPER * b;
    bound_integers(found->scales[b]);
    bound_integers(found->minima[b]);
    pack_head(&affine_q5, x, found, b, bytes);
    for (size_t c = 0; c < 4; c++) pack_nibbles(codes + 64 * c, 32, bytes + 48 + 32 * c);
    memset(bytes + 16, 0, 32);
    for (size_t i = 0; i < SUPER; i++) bytes[16 + i % 32] = (uint8_t)(bytes[16 + i % 32] | (codes[i] >> 4) << (i / 32));
}

static void encode_q5_k(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    struct affine_blocks found;
    for (size_t first = 0; first < n_blocks; first += PAIR) {
        const size_t count = n_blocks - first < PAIR ? n_blocks - first : PAIR;
        search_affine_blocks(&affine_q5, x + SUPER * first, weight ? weight + SUPER * first : NULL, count, &found);
        for (size_t b = 0; b < count; b++) pack_q5_k(x + SUPER * (first + b), &found, b, blocks + 176 * (first + b));
    }
}

/* ---- rows ----------------------------------------------------------------------------------------------------------------------- */

const struct ggml_type ggml_q2_k = { "Q2_K",      "q2_k",        "2.63 bits: 2-bit codes, 4-bit scales and minima for 16 in 256",
                                     10,          256,           84,
                                     true,        false,         decode_q2_k,
                                     encode_q2_k, ggml_mse_q2_k, 0.0f };
const struct ggml_type ggml_q4_k = { "Q4_K",      "q4_k",        "4.5 bits: 4-bit codes, 6-bit scales and minima for 32 in 256",
                                     12,          256,           144,
                                     true,        false,         decode_q4_k,
                                     encode_q4_k, ggml_mse_q4_k, 0.0f };
const struct ggml_type ggml_q5_k = { "Q5_K",      "q5_k",        "5.5 bits: 5-bit codes, 6-bit scales and minima for 32 in 256",
                                     13,          256,           176,
                                     true,        false,         decode_q5_k,
                                     encode_q5_k, ggml_mse_q5_k, 0.0f };
