/* ggml_mse_simple.c: least square error for blocks of 32 with scales in F16: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL.
 *
 *   search -> the best scale (line) -> its 32 neighbours among the F16 numbers: the best by the error as stored -> nearest codes
 *
 * Why this way: what is stored is F16, so the last choice is among F16 numbers by the error under each of them. Q8_0 has so many patterns of codes,
 * which one F16 step hardly moves, that a range of F16 numbers itself is the grid.
 * Corner cases: a scale of 0 gives zeros; -128 is never written.
 * Reference: NUMERICS_GGML.md 3. Worked number: Q8_0, amax 1: candidates from F16 0x1FFC (1/128.2) on, every second, to 0x2176 (1/93.75).
 */
#include "number/ggml_bits.h"
#include "number/ggml_mse.h"
#include "number/ggml_mse_search.h"
#include "number/ggml_pack.h"

#define BLOCK 32u
#define SMALLEST 0x1p-25f
#define LARGEST 65504.0f
#define F16_MAX 0x7BFF
#define Q8_STRIDE 2u

static const struct mse_scale_codes scale_q4 = { -8.0f, 7.0f, false, 5.5f, 0.125f, 3 };
static const struct mse_scale_codes scale_q5 = { -16.0f, 15.0f, false, 12.0f, 0.21875f, 3 };
static const struct mse_scale_codes scale_q8 = { -127.0f, 127.0f, false, 0.0f, 0.0f, 0 };
static const struct mse_scale_codes scale_iq4 = { 0.0f, 0.0f, true, 90.0f, 4.0f, 1 };
static const struct mse_line_codes line_q4 = { 15.0f, -1.5f, 0.2f, 3, false };
static const struct mse_line_codes line_q5 = { 31.0f, -1.5f, 0.2f, 3, false };

/* The F16 number steps beyond d, away from 0, at least 0 and finite; keeps the sign. */
static float f16_beyond(float d, int32_t steps)
{
    const uint16_t bits = f32_to_f16(d);
    const int32_t magnitude = clamp_int((bits & 0x7FFF) + steps, 0, F16_MAX);
    return f16_to_f32((uint16_t)((bits & 0x8000) | magnitude));
}

/* ---- one scale ------------------------------------------------------------------------------------------------------------------ */

/* The best of d and its neighbours among the F16 numbers. */
static float best_neighbour(const struct mse_group *group, const struct mse_scale_codes *codes, float d)
{
    float scales[MSE_LANES], errors[MSE_LANES];
    for (size_t k = 0; k < MSE_LANES; k++) scales[k] = f16_beyond(d, (int32_t)k - (int32_t)MSE_LANES / 2);
    mse_scale_errors(group, codes, scales, errors);
    return scales[mse_least(errors)];
}

/* Scale in F16 and codes. */
static float best_scale(const struct mse_group *group, const struct mse_scale_codes *codes, uint8_t *out)
{
    float loss_positive, loss_negative;
    const float positive = mse_search_scale(group, codes, false, &loss_positive);
    const float negative = mse_search_scale(group, codes, true, &loss_negative);
    const float d = best_neighbour(group, codes, loss_negative < loss_positive ? negative : positive);
    mse_scale_nearest(group, codes, d, out);
    return d;
}

static bool search_q4_0(const float *x, const float *w, uint8_t *block)
{
    const struct mse_group group = { x, w, BLOCK };
    uint8_t codes[BLOCK];
    store_f16(block, best_scale(&group, &scale_q4, codes));
    pack_nibbles(codes, 16, block + 2);
    return true;
}

static bool search_q5_0(const float *x, const float *w, uint8_t *block)
{
    const struct mse_group group = { x, w, BLOCK };
    uint8_t codes[BLOCK];
    store_f16(block, best_scale(&group, &scale_q5, codes));
    pack_block_fives(codes, block + 2);
    return true;
}

static bool search_iq4_nl(const float *x, const float *w, uint8_t *block)
{
    const struct mse_group group = { x, w, BLOCK };
    uint8_t codes[BLOCK];
    store_f16(block, best_scale(&group, &scale_iq4, codes));
    pack_nibbles(codes, 16, block + 2);
    return true;
}

/* Every second F16 scale from amax / 128.25 to amax / 93.75, then the neighbours of the best. */
static bool search_q8_0(const float *x, const float *w, uint8_t *block)
{
    const struct mse_group group = { x, w, BLOCK };
    const float amax = largest_magnitude(x, BLOCK);
    const uint32_t last = f32_to_f16(amax / 93.75f);
    uint8_t codes[BLOCK];
    float d = 0.0f, least = INFINITY;
    for (uint32_t first = f32_to_f16(amax / 128.25f); first <= last; first += Q8_STRIDE * MSE_LANES) {
        float scales[MSE_LANES], errors[MSE_LANES];
        for (uint32_t k = 0; k < MSE_LANES; k++) scales[k] = f16_to_f32((uint16_t)(first + Q8_STRIDE * k));
        mse_scale_errors(&group, &scale_q8, scales, errors);
        const size_t best = mse_least(errors);
        d = errors[best] < least ? scales[best] : d;
        least = errors[best] < least ? errors[best] : least;
    }
    d = best_neighbour(&group, &scale_q8, d);
    store_f16(block, d);
    mse_scale_nearest(&group, &scale_q8, d, codes);
    for (size_t i = 0; i < BLOCK; i++) block[2 + i] = (uint8_t)(codes[i] - 127);
    return true;
}

/* ---- scale and minimum ---------------------------------------------------------------------------------------------------------- */

/* The line's two numbers in F16, the best among their neighbours, and codes. */
static void best_line(const struct mse_group *group, const struct mse_line_codes *codes, float *d, float *minimum, uint8_t *out)
{
    float scales[MSE_LANES], minima[MSE_LANES], errors[MSE_LANES];
    struct mse_line line;
    mse_search_line(group, codes, &line);
    for (size_t k = 0; k < MSE_LANES; k++) {
        scales[k] = f16_beyond(line.s, (int32_t)(k / 8) - 2);
        minima[k] = f16_beyond(line.m, (int32_t)(k % 8) - 4);
    }
    mse_line_errors(group, codes->top, scales, minima, errors);
    const size_t best = mse_least(errors);
    *d = scales[best];
    *minimum = minima[best];
    mse_line_nearest(group, codes->top, *d, *minimum, out);
}

static bool search_q4_1(const float *x, const float *w, uint8_t *block)
{
    const struct mse_group group = { x, w, BLOCK };
    uint8_t codes[BLOCK];
    float d, minimum;
    best_line(&group, &line_q4, &d, &minimum, codes);
    store_f16(block, d);
    store_f16(block + 2, minimum);
    pack_nibbles(codes, 16, block + 4);
    return true;
}

static bool search_q5_1(const float *x, const float *w, uint8_t *block)
{
    const struct mse_group group = { x, w, BLOCK };
    uint8_t codes[BLOCK];
    float d, minimum;
    best_line(&group, &line_q5, &d, &minimum, codes);
    store_f16(block, d);
    store_f16(block + 2, minimum);
    pack_block_fives(codes, block + 4);
    return true;
}

/* ---- encoders ------------------------------------------------------------------------------------------------------------------- */

void ggml_mse_q4_0(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    mse_improve(&ggml_q4_0, search_q4_0, SMALLEST, LARGEST, x, weight, n_blocks, blocks);
}

void ggml_mse_q4_1(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    mse_improve(&ggml_q4_1, search_q4_1, SMALLEST, LARGEST, x, weight, n_blocks, blocks);
}

void ggml_mse_q5_0(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    mse_improve(&ggml_q5_0, search_q5_0, SMALLEST, LARGEST, x, weight, n_blocks, blocks);
}

void ggml_mse_q5_1(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    mse_improve(&ggml_q5_1, search_q5_1, SMALLEST, LARGEST, x, weight, n_blocks, blocks);
}

void ggml_mse_q8_0(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    mse_improve(&ggml_q8_0, search_q8_0, SMALLEST, LARGEST, x, weight, n_blocks, blocks);
}

void ggml_mse_iq4_nl(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    mse_improve(&ggml_iq4_nl, search_iq4_nl, SMALLEST, LARGEST, x, weight, n_blocks, blocks);
}
