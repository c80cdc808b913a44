/* ggml_pack.h: the small integers of a ggml block into its bytes, as the drawings in ggml_simple.c and ggml_k_*.c show.
 *
 *   fives    bits 4 of 32 codes, 4 bytes | 16 nibbles          sixes    8 scales and 8 minima of 6 bits, 12 bytes          sixteen    16 scales of 6 bits, 12 bytes
 *
 * Why this way: nibbles and crumbs stand in ggml_bits.h; these are what only one or two types have.
 * Corner cases: codes are unsigned, as stored; bits above a field must be 0.
 * Reference: layouts.md 2(f). Worked number: sixes, scale[4] = 33: byte 0 gets 2 << 6, byte 8 gets 1.
 */
#ifndef LLMQ_NUMBER_GGML_PACK_H
#define LLMQ_NUMBER_GGML_PACK_H

#include "number/ggml_bits.h"

/* byte j / 8, bit j % 8: 5th bit of code[j]    4 + j: code[j + 16] code[j] */
static inline void pack_block_fives(const uint8_t *codes, uint8_t *bytes)
{
    for (size_t byte = 0; byte < 4; byte++) {
        bytes[byte] = 0;
        for (size_t bit = 0; bit < 8; bit++) bytes[byte] = (uint8_t)(bytes[byte] | (codes[8 * byte + bit] >> 4 & 1) << bit);
    }
    pack_nibbles(codes, 16, bytes + 4);
}

/* byte j < 4: scale[j + 4] bits 5 4 | scale[j]    4 + j: minimum[j + 4] bits 5 4 | minimum[j]    8 + j: low 4 bits of minimum[j + 4], of scale[j + 4] */
static inline void pack_block_sixes(const uint8_t *scales, const uint8_t *minima, uint8_t *bytes)
{
    for (size_t j = 0; j < 4; j++) {
        bytes[j] = (uint8_t)(scales[j] | scales[j + 4] >> 4 << 6);
        bytes[j + 4] = (uint8_t)(minima[j] | minima[j + 4] >> 4 << 6);
        bytes[j + 8] = (uint8_t)((scales[j + 4] & 15) | (minima[j + 4] & 15) << 4);
    }
}

/* byte j < 8: low 4 bits of scale[j + 8], of scale[j]    8 + j: bits 5 4 of scale[j + 12], [j + 8], [j + 4], [j] */
static inline void pack_block_sixteen(const uint8_t *scales, uint8_t *bytes)
{
    for (size_t j = 0; j < 8; j++) bytes[j] = (uint8_t)((scales[j] & 15) | (scales[j + 8] & 15) << 4);
    for (size_t j = 0; j < 4; j++)
        bytes[8 + j] = (uint8_t)(scales[j] >> 4 | scales[j + 4] >> 4 << 2 | scales[j + 8] >> 4 << 4 | scales[j + 12] >> 4 << 6);
}

/* Bit b of bytes[i % 32], b = i / 32: bit `bit` of 256 codes. */
static inline void pack_block_bits(const uint8_t *codes, int bit, uint8_t *bytes)
{
    for (size_t i = 0; i < 32; i++) {
        bytes[i] = 0;
        for (size_t p = 0; p < 8; p++) bytes[i] = (uint8_t)(bytes[i] | (codes[32 * p + i] >> bit & 1) << p);
    }
}

#endif
