/* ggml_bits.h: what the block types share: scales in F16, roundings, packing of small codes.
 *
 *   nibbles   byte j = code[j + 16] << 4 | code[j]        crumbs   byte l = code[l + 96] << 6 | code[l + 64] << 4 | code[l + 32] << 2 | code[l]
 *
 * Why this way: bytes are loaded and stored one by one, so a block has any alignment and the host any byte order. nearest_int is the addition of
 * 1.5 * 2^23, of which ggml keeps the low 23 bits: nearest even up to 2^22, and something reproducible beyond, which the K types reach for blocks
 * that F16 cannot hold.
 * Corner cases: a NaN scale (sums of huge weights) is always stored as 0xFE00, the one x86 makes: its sign would else differ between processors.
 * Reference: layouts.md 2(f). Worked numbers: nearest_int(2.5) = 2, nearest_int(NaN) = 0, round_away(2.5) = 3.
 */
#ifndef LLMQ_NUMBER_GGML_BITS_H
#define LLMQ_NUMBER_GGML_BITS_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "number/half.h"

static inline float load_f16(const uint8_t *bytes)
{
    return f16_to_f32((uint16_t)(bytes[0] | bytes[1] << 8));
}

static inline void store_u16(uint8_t *bytes, uint32_t value)
{
    bytes[0] = (uint8_t)value;
    bytes[1] = (uint8_t)(value >> 8);
}

static inline void store_f16(uint8_t *bytes, float value)
{
    store_u16(bytes, value != value ? 0xFE00u : f32_to_f16(value));
}

static inline int32_t nearest_int(float value)
{
    return (int32_t)(f32_bits(value + 0x1.8p23f) & 0x7FFFFFu) - 0x400000;
}

static inline int32_t clamp_int(int32_t value, int32_t low, int32_t high)
{
    value = value < high ? value : high;
    return value > low ? value : low;
}

/* The low 8 bits as a signed number. */
static inline int32_t signed_byte(int32_t value)
{
    return ((value & 0xFF) ^ 0x80) - 0x80;
}

/* Nearest, ties away from zero, for |value| < 2^22. */
static inline int32_t round_away(float value)
{
    int32_t whole = (int32_t)value;
    float rest = value - (float)whole;
    return whole + (rest >= 0.5f) - (rest <= -0.5f);
}

/* Largest magnitude. Finite floats are ordered as their bits are. */
static inline float largest_magnitude(const float *x, size_t n)
{
    int32_t largest = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t magnitude = (int32_t)(f32_bits(x[i]) & 0x7FFFFFFFu);
        largest = magnitude > largest ? magnitude : largest;
    }
    return f32_from_bits((uint32_t)largest);
}

/* The weight of largest magnitude with its sign, the first of equals; 0 if all are zero. */
static inline float extreme(const float *x, size_t n)
{
    float largest = largest_magnitude(x, n);
    for (size_t i = 0; i < n; i++)
        if (largest > 0.0f && fabsf(x[i]) == largest) return x[i];
    return 0.0f;
}

/* 1/d; 0 for 0. */
static inline float inverse(float d)
{
    return d != 0.0f ? 1.0f / d : 0.0f;
}

static inline int is_overflow(float value)
{
    return value > FLT_MAX || value < -FLT_MAX;
}

/* Sum of squares, in element order. */
static inline float sum_squares(const float *x, size_t n)
{
    float sum = 0.0f;
    for (size_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sum;
}

/* Weight of each element in a search: importance, larger for elements that are large beside mean, a mean square. */
static inline void heed_importance(const float *x, const float *importance, float mean, size_t n, float *weight)
{
    for (size_t i = 0; i < n; i++) weight[i] = importance[i] * sqrtf(mean + x[i] * x[i]);
}

/* Codes anew under a stored scale: nearest((x + offset) / d) between low and high, minus low. */
static inline void requantise(const float *x, size_t n, float d, float offset, int32_t low, int32_t high, uint8_t *codes)
{
    if (d == 0.0f) return;
    for (size_t i = 0; i < n; i++) codes[i] = (uint8_t)(clamp_int(nearest_int((x[i] + offset) / d), low, high) - low);
}

static inline float sum_of(const float *x, size_t n)
{
    float sum = 0.0f;
    for (size_t i = 0; i < n; i++) sum += x[i];
    return sum;
}

/* The number of largest magnitude with its sign, the first of equals; NaN is passed over. */
static inline float peak_of(const float *x, size_t n)
{
    float peak = 0.0f;
    for (size_t i = 0; i < n; i++) peak = fabsf(x[i]) > fabsf(peak) ? x[i] : peak;
    return peak;
}

/* 2 * n codes of 4 bits: n low nibbles first, then n high ones. */
static inline void pack_nibbles(const uint8_t *codes, size_t n, uint8_t *bytes)
{
    for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)((codes[i] & 15) | codes[i + n] << 4);
}

static inline void unpack_nibbles(const uint8_t *bytes, size_t n, uint8_t *codes)
{
    for (size_t i = 0; i < n; i++) codes[i] = bytes[i] & 15;
    for (size_t i = 0; i < n; i++) codes[i + n] = bytes[i] >> 4;
}

/* 128 codes of 2 bits: four planes of 32. */
static inline void pack_crumbs(const uint8_t *codes, uint8_t *bytes)
{
    for (size_t i = 0; i < 32; i++)
        bytes[i] = (uint8_t)((codes[i] & 3) | (codes[i + 32] & 3) << 2 | (codes[i + 64] & 3) << 4 | (codes[i + 96] & 3) << 6);
}

static inline void unpack_crumbs(const uint8_t *bytes, uint8_t *codes)
{
    for (size_t plane = 0; plane < 4; plane++)
        for (size_t i = 0; i < 32; i++) codes[32 * plane + i] = bytes[i] >> (2 * plane) & 3;
}

#endif
