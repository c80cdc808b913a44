/* ggml_fp4.c: 4-bit floats (e2m1) under a shared scale: MXFP4, NVFP4 by ggml's own rule of one level.
 *
 *   MXFP4 | e u8 | 16 nibbles |                    y = e2m1 * 2^(e - 127)         32 elements
 *   NVFP4 | 4 scales ue4m3 | 4 * 8 nibbles |       y = e2m1 * scale               64 elements, a scale for 16
 *
 * Why this way: e2m1 doubled is an integer, 0 1 2 3 4 6 8 12, so scales are halved and every product is exact. ggml takes the nearest value by
 * |value - x| in binary32, which is exact wherever two values are about equally near, and the first of equals: a tie goes toward zero, and there is
 * no -0.
 * Corner cases: ggml takes floor(log2f(amax)), and log2f rounds up to the next whole number m for the last floor(ln2 * 2^e) of the 2^-24 steps
 * below 2^m, 2^e the binade just inside |m|: counted here in integers, so that no library decides it. The byte of MXFP4 wraps below 2^-125, as in
 * ggml; byte 255 decodes to 2^128, not NaN. A UE4M3 byte of 0 or 0x7F is zero, its sign bit counts for nothing else. The UE4M3 encoder rounds
 * halves up, stays below the first normal from within the subnormals, and sends 248 and more to 448.
 * Reference: layouts.md 1.4, 1.5, 2(f). Worked numbers: amax 0.453125: e = 127 - 2 - 2 = 123; amax 7.9999995 is taken as 8: e = 128.
 */
#include "number/elem.h"
#include "number/ggml.h"
#include "number/ggml_bits.h"
#include "number/ggml_mse.h"

static const int8_t doubled[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

/* Codes of n weights under half a scale, by the definition: the first value of least |value - x|. */
static void search_codes(const float *x, size_t n, float half_scale, uint8_t *codes)
{
    for (size_t i = 0; i < n; i++) {
        const float a = fabsf(x[i]);
        float best = a;
        uint8_t code = 0;
        for (uint8_t k = 1; k < 8; k++) {
            const float error = fabsf((float)doubled[k] * half_scale - a);
            if (!(error < best)) continue;
            code = k;
            best = error;
        }
        codes[i] = (uint8_t)(code + (code > 0 && x[i] < 0.0f ? 8 : 0));
    }
}

/* The same by counting the midpoints below each magnitude, where no product overflows or underflows and amax is near the scale: every usual group. */
static void nearest_codes(const float *x, size_t n, float amax, float half_scale, uint8_t *codes)
{
    static const float midpoints[7] = { 0.5f, 1.5f, 2.5f, 3.5f, 5.0f, 7.0f, 10.0f };
    if (half_scale < 0x1p-100f || half_scale > 0x1p100f || amax > 32.0f * half_scale) {
        search_codes(x, n, half_scale, codes);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const float a = fabsf(x[i]);
        int32_t code = 0;
        for (size_t m = 0; m < 7; m++) code += a > midpoints[m] * half_scale;
        codes[i] = (uint8_t)(code + (code > 0 && x[i] < 0.0f ? 8 : 0));
    }
}

/* ---- MXFP4 ---------------------------------------------------------------------------------------------------------------------- */

/* byte 0: e    1 + j: code[j + 16] code[j], 4 bits each */
static void decode_mxfp4(const uint8_t *blocks, size_t n_blocks, float *y)
{
    uint8_t codes[32];
    for (; n_blocks > 0; n_blocks--, blocks += 17, y += 32) {
        const float half_scale = exact_exp2(blocks[0] - 128);
        unpack_nibbles(blocks + 1, 16, codes);
        for (size_t i = 0; i < 32; i++) y[i] = (float)doubled[codes[i]] * half_scale;
    }
}

/* floor(log2f(a)) with log2f rounded to binary32, for a > 0. */
static int32_t floor_log2f(float a)
{
    static const uint32_t taken[8] = { 0, 1, 2, 5, 11, 22, 44, 88 }; /* floor(ln2 * 2^e) */
    const int32_t exponent = exact_ilog2(a), next = exponent + 1;
    const int32_t inside = next > 0 ? next - 1 : -next; /* magnitude of log2 just below next, rounded down */
    if (inside < 1) return exponent;
    const float normal = a * exact_exp2(exponent < -64 ? 64 : 0) * exact_exp2(exponent < -64 ? -exponent - 64 : -exponent);
    const uint32_t below = (uint32_t)((2.0f - normal) * 0x1p23f); /* steps of 2^-24 relative to 2^next */
    return below <= taken[exact_ilog2((float)inside)] ? next : exponent;
}

static void encode_mxfp4(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    uint8_t codes[32];
    (void)weight;
    for (; n_blocks > 0; n_blocks--, blocks += 17, x += 32) {
        const float amax = largest_magnitude(x, 32);
        blocks[0] = (uint8_t)(amax > 0.0f ? floor_log2f(amax) - 2 + 127 : 0);
        nearest_codes(x, 32, amax, exact_exp2(blocks[0] - 128), codes);
        pack_nibbles(codes, 16, blocks + 1);
    }
}

/* ---- NVFP4 ---------------------------------------------------------------------------------------------------------------------- */

/* Half the value of a UE4M3 byte: eeee mmm below an idle sign bit, bias 7. */
static float half_ue4m3(uint8_t byte)
{
    const uint32_t exponent = byte >> 3 & 15, mantissa = byte & 7;
    if (byte == 0 || byte == 0x7F) return 0.0f;
    return exponent == 0 ? (float)mantissa * 0x1p-10f : (float)(8 + mantissa) * exact_exp2((int32_t)exponent - 11);
}

/* The byte for a scale >= 0: bits 20 and up of its binary32, rebiased, plus the bit below them. */
static uint8_t encode_ue4m3(float scale)
{
    if (scale < 0x1p-6f) {
        int32_t steps = (int32_t)(scale * 512.0f + 0.5f);
        return (uint8_t)(steps < 7 ? steps : 7);
    }
    if (scale >= 256.0f) return 0x7E;
    const uint32_t byte = ((f32_bits(scale) >> 19) - ((127u - 7u) << 4) + 1u) >> 1;
    return (uint8_t)(byte < 0x78 ? byte : 0x7E);
}

/* byte s: scale of elements 16 * s ..    4 + 8 * s + j: code[16 * s + j + 8] code[16 * s + j], 4 bits each */
static void decode_nvfp4(const uint8_t *blocks, size_t n_blocks, float *y)
{
    uint8_t codes[16];
    for (; n_blocks > 0; n_blocks--, blocks += 36)
        for (size_t s = 0; s < 4; s++, y += 16) {
            const float half_scale = half_ue4m3(blocks[s]);
            unpack_nibbles(blocks + 4 + 8 * s, 8, codes);
            for (size_t i = 0; i < 16; i++) y[i] = (float)doubled[codes[i]] * half_scale;
        }
}

static void encode_nvfp4(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    uint8_t codes[16];
    (void)weight;
    for (; n_blocks > 0; n_blocks--, blocks += 36)
        for (size_t s = 0; s < 4; s++, x += 16) {
            const float amax = largest_magnitude(x, 16);
            blocks[s] = encode_ue4m3(amax / 6.0f);
            nearest_codes(x, 16, amax, half_ue4m3(blocks[s]), codes);
            pack_nibbles(codes, 8, blocks + 4 + 8 * s);
        }
}

/* ---- rows ----------------------------------------------------------------------------------------------------------------------- */

const struct ggml_type ggml_mxfp4 = {
    "MXFP4", "mxfp4", "4.25 bits: e2m1, a power of two for 32", 39, 32, 17, false, false, decode_mxfp4, encode_mxfp4, ggml_mse_mxfp4, 0.0f
};
const struct ggml_type ggml_nvfp4 = {
    "NVFP4", "nvfp4", "4.5 bits: e2m1, a UE4M3 scale for 16", 40, 64, 36, false, false, decode_nvfp4, encode_nvfp4, ggml_mse_nvfp4, 0.0f
};
