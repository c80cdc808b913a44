/* ggml_mse_fp4.c: least square error for 4-bit floats under a shared scale: MXFP4, NVFP4 (one level).
 *
 *   MXFP4   e of 2^e: floor(log2 amax) - 2, then one more, then one less             NVFP4   scale bytes from 6 below to 5 above that of amax / 5
 *   code    the count of midpoints 0.25 0.75 1.25 1.75 2.5 3.5 5 (times the scale) below |x|, and the sign of x unless the count is 0
 *
 * Why this way: scales are so coarse that all that can win are tried. Codes are ggml's: a tie goes toward zero and there is no -0.
 * Corner cases: e from -127 to 125, so that no code overflows; an exponent that this makes equal to another is harmless. A UE4M3 byte is 1 to 0x7E.
 * NVFP4 beyond 6 * 448 saturates.
 * Reference: NUMERICS_GGML.md 6. Worked number: MXFP4 of amax 0.453125: e = -4, -3, -5; NVFP4 of amax 6: 1.2 is above byte 0x39, candidates 0x33 to 0x3E.
 */
#include "number/elem.h"
#include "number/ggml_bits.h"
#include "number/ggml_mse.h"

#define MX_BLOCK 32u
#define NV_GROUP 16u
#define NV_CANDIDATES 12
#define LARGEST 65504.0f

static const float midpoints[7] = { 0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f };
static const float values[8] = { 0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f };

/* Codes of n weights under a scale; returns their error. */
static float encode_group(const float *x, const float *w, size_t n, float scale, uint8_t *codes)
{
    float error = 0.0f;
    for (size_t i = 0; i < n; i++) {
        const float a = fabsf(x[i]);
        size_t code = 0;
        for (size_t m = 0; m < 7; m++) code += a > midpoints[m] * scale;
        const float r = a - values[code] * scale;
        error += w[i] * r * r;
        codes[i] = (uint8_t)(code + (code > 0 && x[i] < 0.0f ? 8 : 0));
    }
    return error;
}

/* ---- MXFP4 ---------------------------------------------------------------------------------------------------------------------- */

static bool search_mxfp4(const float *x, const float *w, uint8_t *block)
{
    static const int32_t offsets[3] = { 0, 1, -1 };
    const int32_t floor_e = clamp_int(exact_ilog2(largest_magnitude(x, MX_BLOCK)) - 2, -127, 125);
    const float unit = exact_exp2(-floor_e);
    float scaled[MX_BLOCK], least = INFINITY;
    for (size_t i = 0; i < MX_BLOCK; i++) scaled[i] = x[i] * unit;
    for (size_t k = 0; k < 3; k++) {
        uint8_t codes[MX_BLOCK];
        const int32_t e = floor_e + offsets[k];
        const float error = encode_group(scaled, w, MX_BLOCK, exact_exp2(offsets[k]), codes);
        if (e < -127 || e > 125 || !(error < least)) continue;
        least = error;
        block[0] = (uint8_t)(e + 127);
        pack_nibbles(codes, 16, block + 1);
    }
    return least < INFINITY;
}

void ggml_mse_mxfp4(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    mse_improve(&ggml_mxfp4, search_mxfp4, 0.0f, FLT_MAX, x, weight, n_blocks, blocks);
}

/* ---- NVFP4 ---------------------------------------------------------------------------------------------------------------------- */

/* eeee mmm, bias 7. */
static float ue4m3_value(int32_t byte)
{
    const int32_t exponent = byte >> 3, mantissa = byte & 7;
    return exponent == 0 ? (float)mantissa * 0x1p-9f : (float)(8 + mantissa) * exact_exp2(exponent - 10);
}

/* The largest byte of a value <= scale, at most 0x7E. */
static int32_t ue4m3_below(float scale)
{
    if (scale >= 448.0f) return 0x7E;
    return scale < 0x1p-6f ? (int32_t)(scale * 512.0f) : (int32_t)(f32_bits(scale) >> 20) - (120 << 3);
}

static void search_nv_group(const float *x, const float *w, uint8_t *byte, uint8_t *nibbles)
{
    const int32_t first = ue4m3_below(largest_magnitude(x, NV_GROUP) / 5.0f) - NV_CANDIDATES / 2;
    float least = INFINITY;
    for (int32_t k = 0; k < NV_CANDIDATES; k++) {
        uint8_t codes[NV_GROUP];
        const int32_t candidate = clamp_int(first + k, 1, 0x7E);
        const float error = encode_group(x, w, NV_GROUP, ue4m3_value(candidate), codes);
        if (!(error < least)) continue;
        least = error;
        *byte = (uint8_t)candidate;
        pack_nibbles(codes, 8, nibbles);
    }
}

static bool search_nvfp4(const float *x, const float *w, uint8_t *block)
{
    for (size_t s = 0; s < 4; s++) search_nv_group(x + NV_GROUP * s, w + NV_GROUP * s, block + s, block + 4 + 8 * s);
    return true;
}

void ggml_mse_nvfp4(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    mse_improve(&ggml_nvfp4, search_nvfp4, 0.0f, LARGEST, x, weight, n_blocks, blocks);
}
