/* half.h: scalar conversions between f32 and the 16- and 8-bit floats.
 *
 *   f32   s eeeeeeee mmmmmmmmmmmmmmmmmmmmmmm      bf16  s eeeeeeee mmmmmmm      f16  s eeeee mmmmmmmmmm      e4m3  s eeee mmm      e5m2  s eeeee mm
 *
 * Why this way: integer arithmetic on the bits only, so that no compiler option, processor mode or library changes a result.
 * Corner cases: rounding is to nearest even; subnormals are exact; overflow to F16 gives Inf; a NaN stays a (quiet) NaN with its sign.
 * Reference: IEEE 754-2019. Worked numbers: f32 65520 -> F16 Inf, 65519 -> 65504; 2^-25 -> 0 (a tie), 1.5 * 2^-25 -> 2^-24.
 */
#ifndef LLMQ_NUMBER_HALF_H
#define LLMQ_NUMBER_HALF_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t f32_bits(float x)
{
    uint32_t b;
    memcpy(&b, &x, sizeof b);
    return b;
}

static inline float f32_from_bits(uint32_t b)
{
    float x;
    memcpy(&x, &b, sizeof x);
    return x;
}

static inline float bf16_to_f32(uint16_t b)
{
    return f32_from_bits((uint32_t)b << 16);
}

static inline uint16_t f32_to_bf16(float x)
{
    uint32_t b = f32_bits(x);
    uint32_t rounded = (b + 0x7FFFu + ((b >> 16) & 1u)) >> 16;
    uint32_t quiet = (b >> 16) | 0x40u;
    return (uint16_t)((b & 0x7FFFFFFFu) > 0x7F800000u ? quiet : rounded);
}

static inline float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t magnitude = h & 0x7FFFu;
    if (magnitude >= 0x7C00u) return f32_from_bits(sign | 0x7F800000u | (magnitude & 0x3FFu) << 13);
    if (magnitude >= 0x400u) return f32_from_bits(sign | ((magnitude << 13) + 0x38000000u));
    float tiny = (float)magnitude * 0x1p-24f;
    return f32_from_bits(sign | f32_bits(tiny));
}

static inline uint16_t f32_to_f16(float x)
{
    uint32_t b = f32_bits(x);
    uint32_t sign = (b >> 16) & 0x8000u;
    uint32_t a = b & 0x7FFFFFFFu;
    if (a > 0x7F800000u) return (uint16_t)(sign | 0x7E00u | ((a >> 13) & 0x3FFu));
    if (a >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u); /* 65520 and more */
    if (a >= 0x38800000u) { /* 2^-14 and more: normal */
        uint32_t r = a - 0x38000000u;
        return (uint16_t)(sign | (r + 0xFFFu + ((r >> 13) & 1u)) >> 13);
    }
    if (a < 0x33000000u) return (uint16_t)sign; /* below 2^-25 */
    uint32_t shift = 126u - (a >> 23); /* 14 .. 24: bits to drop from the 24-bit significand */
    uint32_t significand = (a & 0x7FFFFFu) | 0x800000u;
    uint32_t kept = significand >> shift;
    uint32_t rest = significand & ((1u << shift) - 1u);
    uint32_t half = 1u << (shift - 1u);
    kept += rest > half || (rest == half && (kept & 1u));
    return (uint16_t)(sign | kept);
}

/* An 8-bit float with man_bits mantissa bits and the given bias; ieee: the top exponent holds Inf and NaN, else only all-ones is NaN. */
static inline float f8_to_f32(uint8_t code, uint32_t man_bits, int32_t bias, bool ieee)
{
    uint32_t sign = (uint32_t)(code & 0x80u) << 24;
    uint32_t magnitude = code & 0x7Fu;
    uint32_t exponent = magnitude >> man_bits;
    uint32_t mantissa = magnitude & ((1u << man_bits) - 1u);
    uint32_t top = 0x7Fu >> man_bits;
    if (ieee && exponent == top) return f32_from_bits(sign | 0x7F800000u | mantissa << (23u - man_bits));
    if (!ieee && magnitude == 0x7Fu) return f32_from_bits(sign | 0x7FC00000u);
    if (exponent == 0) {
        float step = f32_from_bits((uint32_t)(127 + 1 - bias - (int32_t)man_bits) << 23);
        return f32_from_bits(sign | f32_bits((float)mantissa * step));
    }
    return f32_from_bits(sign | (uint32_t)((int32_t)exponent - bias + 127) << 23 | mantissa << (23u - man_bits));
}

#endif
