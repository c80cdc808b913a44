/* pack.h: codes of b bits as a little-endian bit stream, and back.
 *
 *   codes 1 2 3 (4 bits)  ->  bytes 21 03        codes 1 2 3 4 5 6 7 0 (3 bits)  ->  D1 58 1F
 *
 * Why this way: the natural order of most runtimes; 4 and 8 bits have their own loops, everything else one generic loop.
 * Corner cases: unused bits of the last byte are 0; a stream may begin at any bit when reading, only at a byte when writing.
 * Reference: FORMAT.md 3.
 */
#ifndef LLMQ_LAYOUT_PACK_H
#define LLMQ_LAYOUT_PACK_H

#include <stddef.h>
#include <stdint.h>

/* Writes ceil(n * bits / 8) bytes; codes above bits are cut. bits 1 .. 16. */
void pack_bits(const uint16_t *codes, size_t n, uint32_t bits, uint8_t *out);

/* Reads n codes that begin first codes into the stream. */
void unpack_bits(const uint8_t *stream, uint64_t first, size_t n, uint32_t bits, uint16_t *codes);

#endif
