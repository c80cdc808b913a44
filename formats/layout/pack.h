/* pack.h: codes of b bits as a little-endian bit stream, and back; and the other orders in which tools pack codes.
 *
 *   codes 1 2 3 (4 bits)  ->  bytes 21 03        codes 1 2 3 4 5 6 7 0 (3 bits)  ->  D1 58 1F
 *
 * Why this way: the natural order of most runtimes; 4 and 8 bits have their own loops, everything else one generic loop.
 * Corner cases: unused bits of the last byte are 0; a stream may begin at any bit when reading, only at a byte when writing.
 * Reference: FORMAT.md 3; the specification's 4.8 and layouts.md 2.
 */
#ifndef LLMQ_LAYOUT_PACK_H
#define LLMQ_LAYOUT_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Writes ceil(n * bits / 8) bytes; codes above bits are cut. bits 1 .. 16. */
void pack_bits(const uint16_t *codes, size_t n, uint32_t bits, uint8_t *out);

/* Reads n codes that begin first codes into the stream. */
void unpack_bits(const uint8_t *stream, uint64_t first, size_t n, uint32_t bits, uint16_t *codes);

/* ---- orders --------------------------------------------------------------------------------------------------------------------- */

/* As enum llmq_order of llmq.h. */
enum pack_order { ORDER_STREAM, ORDER_WORDS, ORDER_AWQ, ORDER_HALVES_16, ORDER_HALVES_32, ORDER_HALVES_64, ORDER_MX_FP6, ORDER_COUNT };

/* Whether the order has codes of so many bits, 1 .. 32. */
bool pack_order_has(enum pack_order order, uint32_t bits);

/* Bytes of n codes, in whole units of the order; false on overflow. */
bool pack_order_nbytes(enum pack_order order, uint32_t bits, uint64_t n, uint64_t *nbytes);

/* ORs field number i into zeroed bytes, or reads it. Bits 32 w .. 32 w + 31 of the packing lie in the four bytes at out + w * stride (4: one behind
 * the other; more: a column of a matrix of words). */
void pack_field(enum pack_order order, uint32_t bits, uint64_t i, uint32_t field, uint8_t *out, uint64_t stride);
uint32_t unpack_field(enum pack_order order, uint32_t bits, uint64_t i, const uint8_t *bytes, uint64_t stride);

#endif
