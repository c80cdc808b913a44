/* pack.c: see pack.h.
 *
 * Formula: code i stands at bits i*b .. i*b+b-1 of the stream. In another order bit k of code i stands at the bit that its function says.
 * Why this way: see pack.h.
 * Corner cases: see pack.h.
 * Reference: FORMAT.md 3. Worked number: 6-bit codes 1F 21 08 39 give bytes 5F 88 E4.
 */
#include "layout/pack.h"

#include "base/size.h"

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

/* ---- orders --------------------------------------------------------------------------------------------------------------------- */

static uint64_t bit_in_stream(uint32_t bits, uint64_t i, uint32_t k)
{
    return i * bits + k;
}

/* Columns 0 2 4 6 1 3 5 7 from the lowest nibble up. */
static uint64_t bit_in_awq(uint32_t bits, uint64_t i, uint32_t k)
{
    const uint64_t slot = i % 2 * 4 + i % 8 / 2;
    return (i / 8 * 8 + slot) * bits + k;
}

static uint64_t bit_in_halves(uint64_t unit, uint64_t i, uint32_t k)
{
    const uint64_t half = unit / 2, j = i % unit;
    return i / unit * unit * 4 + j % half * 8 + j / half * 4 + k;
}

static uint64_t bit_in_halves_16(uint32_t bits, uint64_t i, uint32_t k)
{
    (void)bits;
    return bit_in_halves(16, i, k);
}

static uint64_t bit_in_halves_32(uint32_t bits, uint64_t i, uint32_t k)
{
    (void)bits;
    return bit_in_halves(32, i, k);
}

static uint64_t bit_in_halves_64(uint32_t bits, uint64_t i, uint32_t k)
{
    (void)bits;
    return bit_in_halves(64, i, k);
}

/* A byte of upper two bits, the first code's highest, then the low nibbles of two codes in each byte, the even one's high. */
static uint64_t bit_in_mx_fp6(uint32_t bits, uint64_t i, uint32_t k)
{
    const uint64_t j = i % 4;
    return i / 4 * 4 * bits + (k >= 4 ? 6 - 2 * j + (k - 4) : 8 + j / 2 * 8 + (1 - j % 2) * 4 + k);
}

static const struct {
    uint64_t (*bit)(uint32_t bits, uint64_t i, uint32_t k);
    uint32_t bits; /* 0: any up to 32 */
    uint32_t unit_bits; /* a packing is a multiple of them */
} orders[ORDER_COUNT] = {
    [ORDER_STREAM] = { bit_in_stream, 0, 8 },
    [ORDER_WORDS] = { bit_in_stream, 0, 32 },
    [ORDER_AWQ] = { bit_in_awq, 4, 32 },
    [ORDER_HALVES_16] = { bit_in_halves_16, 4, 64 },
    [ORDER_HALVES_32] = { bit_in_halves_32, 4, 128 },
    [ORDER_HALVES_64] = { bit_in_halves_64, 4, 256 },
    [ORDER_MX_FP6] = { bit_in_mx_fp6, 6, 24 },
};

bool pack_order_has(enum pack_order order, uint32_t bits)
{
    return orders[order].bits ? bits == orders[order].bits : bits >= 1 && bits <= 32;
}

bool pack_order_nbytes(enum pack_order order, uint32_t bits, uint64_t n, uint64_t *nbytes)
{
    uint64_t n_bits;
    if (!size_mul(n, bits, &n_bits)) return false;
    return size_mul(size_ceil_div(n_bits, orders[order].unit_bits), orders[order].unit_bits / 8, nbytes);
}

void pack_field(enum pack_order order, uint32_t bits, uint64_t i, uint32_t field, uint8_t *out, uint64_t stride)
{
    for (uint32_t k = 0; k < bits; k++) {
        const uint64_t bit = orders[order].bit(bits, i, k);
        out[bit / 32 * stride + bit % 32 / 8] |= (uint8_t)((field >> k & 1u) << bit % 8);
    }
}

uint32_t unpack_field(enum pack_order order, uint32_t bits, uint64_t i, const uint8_t *bytes, uint64_t stride)
{
    uint32_t field = 0;
    for (uint32_t k = 0; k < bits; k++) {
        const uint64_t bit = orders[order].bit(bits, i, k);
        field |= ((uint32_t)bytes[bit / 32 * stride + bit % 32 / 8] >> bit % 8 & 1u) << k;
    }
    return field;
}
