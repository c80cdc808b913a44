/* pack.c: see pack.h.
 *
 * Formula: code i stands at bits i*b .. i*b+b-1 of the stream.
 * Why this way: see pack.h.
 * Corner cases: see pack.h.
 * Reference: FORMAT.md 3. Worked number: 6-bit codes 1F 21 08 39 give bytes 5F 88 E4.
 */
#include "layout/pack.h"

#include <string.h>

static void pack_4(const uint16_t *codes, size_t n, uint8_t *out)
{
    for (size_t i = 0; i < n / 2; i++) out[i] = (uint8_t)((codes[2 * i] & 15u) | (uint32_t)codes[2 * i + 1] << 4);
    if (n % 2) out[n / 2] = (uint8_t)(codes[n - 1] & 15u);
}

static void pack_8(const uint16_t *codes, size_t n, uint8_t *out)
{
    for (size_t i = 0; i < n; i++) out[i] = (uint8_t)codes[i];
}

/* Eight codes of up to 8 bits are `bits` whole bytes. */
static size_t pack_eights(const uint16_t *codes, size_t n, uint32_t bits, uint8_t *out)
{
    const uint64_t mask = (1u << bits) - 1u;
    size_t i = 0;
    for (; i + 8 <= n; i += 8, out += bits) {
        uint64_t word = 0;
        for (uint32_t k = 0; k < 8; k++) word |= (codes[i + k] & mask) << k * bits;
        for (uint32_t k = 0; k < bits; k++) out[k] = (uint8_t)(word >> 8 * k);
    }
    return i;
}

void pack_bits(const uint16_t *codes, size_t n, uint32_t bits, uint8_t *out)
{
    if (bits == 4) pack_4(codes, n, out);
    else if (bits == 8) pack_8(codes, n, out);
    else {
        uint32_t pending = 0, n_pending = 0, mask = (1u << bits) - 1u;
        size_t done = bits < 8 ? pack_eights(codes, n, bits, out) : 0;
        out += done * bits / 8;
        for (size_t i = done; i < n; i++) {
            pending |= (codes[i] & mask) << n_pending;
            for (n_pending += bits; n_pending >= 8; n_pending -= 8) {
                *out++ = (uint8_t)pending;
                pending >>= 8;
            }
        }
        if (n_pending) *out = (uint8_t)pending;
    }
}

static void unpack_4(const uint8_t *stream, size_t n, uint16_t *codes)
{
    for (size_t i = 0; i < n / 2; i++) {
        codes[2 * i] = stream[i] & 15u;
        codes[2 * i + 1] = stream[i] >> 4;
    }
    if (n % 2) codes[n - 1] = stream[n / 2] & 15u;
}

static void unpack_8(const uint8_t *stream, size_t n, uint16_t *codes)
{
    for (size_t i = 0; i < n; i++) codes[i] = stream[i];
}

void unpack_bits(const uint8_t *stream, uint64_t first, size_t n, uint32_t bits, uint16_t *codes)
{
    uint64_t bit = first * bits;
    if (n == 0) return;
    if (bits == 8) unpack_8(stream + first, n, codes);
    else if (bits == 4 && bit % 8 == 0) unpack_4(stream + bit / 8, n, codes);
    else {
        uint32_t mask = (1u << bits) - 1u;
        stream += bit / 8;
        uint32_t skip = (uint32_t)(bit % 8), pending = 0, n_pending = 0;
        pending = (uint32_t)*stream++ >> skip;
        n_pending = 8 - skip;
        for (size_t i = 0; i < n; i++) {
            for (; n_pending < bits; n_pending += 8) pending |= (uint32_t)*stream++ << n_pending;
            codes[i] = (uint16_t)(pending & mask);
            pending >>= bits;
            n_pending -= bits;
        }
    }
}
