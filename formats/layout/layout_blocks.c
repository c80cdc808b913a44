/* layout_blocks.c: the layout of GGUF: whole blocks of a ggml type, one behind the other.
 *
 *   mxfp4  | e u8 | 16 nibbles |       code[j] low, code[j + 16] high        nvfp4  | 4 scales | 4 * 8 nibbles |      q8_0  | d f16 | 32 int8 |
 *   q4_0   | d f16 | 16 nibbles |      code + 8                              q5_0   | d f16 | 32 fifth bits | 16 nibbles |      code + 16
 *
 * Why this way: a group whose codes and scale a block can hold goes in and comes out without rounding; a table says how, one row a pair of element
 * and type. Formats of family ggml are blocks from the start.
 * Corner cases: scales of integers must be numbers of F16, those of bigger groups stand in each of their blocks; the scale of mxint8 and bfp must be a
 * power of two that F16 has, such as 2^(e-6) >= 2^-24, or the group be zero; a block that another program wrote may have a scale that is no such power:
 * then it is no group of ours (load says so).
 * Reference: layouts.md 1.7, 2(f). Worked number: mxint8 of exponent 1, code 96: Q8_0 of d = 2^-5 = 0x2800, 3.0.
 */
#include <string.h>

#include "base/size.h"
#include "layout/codec.h"
#include "layout/layout.h"
#include "number/half.h"
#include "number/kernel.h"

#define BLOCK_MAX 256u

/* How codes and scales of an element go into a block and out of it. */
struct packing {
    const struct elem *elem;
    const struct ggml_type *type;
    uint32_t group; /* weights of a scale in the block; a format's group may be a multiple of it, and its scale then stand in several blocks */
    enum scale_type scale; /* SCALE_TYPE_COUNT: any */
    bool (*pack)(const struct group_scale *scales, const uint16_t *codes, uint8_t *block); /* false: the block has no place for a scale */
    bool (*unpack)(const uint8_t *block, struct group_scale *scales, uint16_t *codes); /* NULL: such blocks are never read as this element */
};

static void put_nibbles(const uint16_t *codes, size_t half, uint8_t *out)
{
    for (size_t j = 0; j < half; j++) out[j] = (uint8_t)((codes[j] & 15u) | (codes[j + half] & 15u) << 4);
}

static void get_nibbles(const uint8_t *bytes, size_t half, uint16_t *codes)
{
    for (size_t j = 0; j < half; j++) {
        codes[j] = bytes[j] & 15u;
        codes[j + half] = bytes[j] >> 4;
    }
}

static bool pack_mxfp4(const struct group_scale *scales, const uint16_t *codes, uint8_t *block)
{
    block[0] = (uint8_t)scales[0].bits;
    put_nibbles(codes, 16, block + 1);
    return scales[0].bits < 255;
}

static bool unpack_mxfp4(const uint8_t *block, struct group_scale *scales, uint16_t *codes)
{
    scales[0] = (struct group_scale){ .bits = block[0], .value = scale_load(SCALE_E8M0, block[0]) };
    get_nibbles(block + 1, 16, codes);
    return block[0] < 255;
}

static bool pack_nvfp4(const struct group_scale *scales, const uint16_t *codes, uint8_t *block)
{
    for (size_t s = 0; s < 4; s++) {
        block[s] = (uint8_t)scales[s].bits;
        put_nibbles(codes + 16 * s, 8, block + 4 + 8 * s);
    }
    return true;
}

/* Readers of GGUF ignore the sign of a scale and take 0x7F for 0, but 0xFF for 480, which E4M3 has not. */
static bool unpack_nvfp4(const uint8_t *block, struct group_scale *scales, uint16_t *codes)
{
    for (size_t s = 0; s < 4; s++) {
        if (block[s] == 0xFFu) return false;
        const uint32_t bits = block[s] == 0x7Fu ? 0 : block[s] & 0x7Fu;
        scales[s] = (struct group_scale){ .bits = bits, .value = scale_load(SCALE_E4M3, bits) };
        get_nibbles(block + 4 + 8 * s, 8, codes + 16 * s);
    }
    return true;
}

static bool is_zero(const uint16_t *codes)
{
    bool zero = true;
    for (size_t i = 0; i < 32; i++) zero = zero && codes[i] == 0;
    return zero;
}

/* A power of two as F16: byte e8m0 b and fraction bits f mean 2^(b - 127 - f). Codes of zero stand under 0. */
static bool pack_power(const struct group_scale *scale, const uint16_t *codes, int32_t fraction_bits, uint8_t *block)
{
    const int32_t exponent = (int32_t)scale->bits - 127 - fraction_bits;
    const bool zero = is_zero(codes);
    const uint16_t d = zero || exponent < -24 || exponent > 15 ? 0 : f32_to_f16(exact_exp2(exponent));
    block[0] = (uint8_t)d;
    block[1] = (uint8_t)(d >> 8);
    return zero || d != 0;
}

static bool unpack_power(const uint8_t *block, const uint16_t *codes, int32_t fraction_bits, struct group_scale *scale)
{
    const float d = f16_to_f32((uint16_t)(block[0] | block[1] << 8));
    const int32_t bits = d > 0.0f ? exact_ilog2(d) + 127 + fraction_bits : 0;
    *scale = (struct group_scale){ .bits = (uint32_t)bits, .value = scale_load(SCALE_E8M0, (uint32_t)bits) };
    return d == 0.0f ? is_zero(codes) : d > 0.0f && f32_bits(d) << 9 == 0 && bits < 255;
}

static bool pack_mxint8(const struct group_scale *scales, const uint16_t *codes, uint8_t *block)
{
    for (size_t i = 0; i < 32; i++) block[2 + i] = (uint8_t)codes[i];
    return pack_power(scales, codes, 6, block);
}

static bool unpack_mxint8(const uint8_t *block, struct group_scale *scales, uint16_t *codes)
{
    for (size_t i = 0; i < 32; i++) codes[i] = block[2 + i];
    return unpack_power(block, codes, 6, scales);
}

/* Signed integers of 4 or 5 bits are stored with an offset that makes them unsigned, which inverts their top bit. */
static bool pack_block_m3(const struct group_scale *scales, const uint16_t *codes, uint8_t *block)
{
    put_nibbles(codes, 16, block + 2);
    for (size_t j = 0; j < 16; j++) block[2 + j] ^= 0x88u;
    return pack_power(scales, codes, 2, block);
}

static bool unpack_block_m3(const uint8_t *block, struct group_scale *scales, uint16_t *codes)
{
    get_nibbles(block + 2, 16, codes);
    for (size_t i = 0; i < 32; i++) codes[i] ^= 8u;
    return unpack_power(block, codes, 2, scales);
}

static bool pack_block_m4(const struct group_scale *scales, const uint16_t *codes, uint8_t *block)
{
    uint8_t *fifths = block + 2;
    put_nibbles(codes, 16, block + 6);
    memset(fifths, 0xFF, 4);
    for (size_t i = 0; i < 32; i++) fifths[i / 8] ^= (uint8_t)((codes[i] >> 4 & 1u) << i % 8);
    return pack_power(scales, codes, 3, block);
}

static bool unpack_block_m4(const uint8_t *block, struct group_scale *scales, uint16_t *codes)
{
    const uint8_t *fifths = block + 2;
    get_nibbles(block + 6, 16, codes);
    for (size_t i = 0; i < 32; i++) codes[i] |= (uint16_t)((~(uint32_t)fifths[i / 8] >> i % 8 & 1u) << 4);
    return unpack_power(block, codes, 3, scales);
}

/* value as F16 in two bytes; false when it is rounded. */
static bool put_f16(float value, uint8_t *bytes)
{
    const uint16_t stored = f32_to_f16(value);
    bytes[0] = (uint8_t)stored;
    bytes[1] = (uint8_t)(stored >> 8);
    return f16_to_f32(stored) == value;
}

static void put_fives(const uint16_t *codes, uint8_t *bytes)
{
    memset(bytes, 0, 4);
    for (size_t i = 0; i < 32; i++) bytes[i / 8] = (uint8_t)(bytes[i / 8] | (codes[i] >> 4 & 1u) << (i % 8));
    put_nibbles(codes, 16, bytes + 4);
}

/* Two's complement codes from half a range on. */
static void lift_codes(const uint16_t *codes, uint16_t half, uint16_t *lifted)
{
    for (size_t i = 0; i < 32; i++) lifted[i] = (uint16_t)(codes[i] ^ half);
}

static bool pack_int4(const struct group_scale *scales, const uint16_t *codes, uint8_t *block)
{
    uint16_t lifted[32];
    lift_codes(codes, 8, lifted);
    put_nibbles(lifted, 16, block + 2);
    return put_f16(scales[0].value, block);
}

static bool pack_int5(const struct group_scale *scales, const uint16_t *codes, uint8_t *block)
{
    uint16_t lifted[32];
    lift_codes(codes, 16, lifted);
    put_fives(lifted, block + 2);
    return put_f16(scales[0].value, block);
}

static bool pack_int8(const struct group_scale *scales, const uint16_t *codes, uint8_t *block)
{
    for (size_t i = 0; i < 32; i++) block[2 + i] = (uint8_t)codes[i];
    return put_f16(scales[0].value, block);
}

/* (code - zero) * s = code * s + m with m = -zero * s, which has to be a number of F16. */
static bool put_line(const struct group_scale *scale, uint8_t *block)
{
    const bool slope = put_f16(scale->value, block), offset = put_f16((float)-scale->zero * scale->value, block + 2);
    return slope && offset;
}

static bool pack_uint4(const struct group_scale *scales, const uint16_t *codes, uint8_t *block)
{
    put_nibbles(codes, 16, block + 4);
    return put_line(scales, block);
}

static bool pack_uint5(const struct group_scale *scales, const uint16_t *codes, uint8_t *block)
{
    put_fives(codes, block + 4);
    return put_line(scales, block);
}

static const struct packing packings[] = {
    { &elem_rows[ELEM_E2M1], &ggml_mxfp4, 32, SCALE_E8M0, pack_mxfp4, unpack_mxfp4 },
    { &elem_rows[ELEM_E2M1], &ggml_nvfp4, 16, SCALE_E4M3, pack_nvfp4, unpack_nvfp4 },
    { &elem_rows[ELEM_MXINT8], &ggml_q8_0, 32, SCALE_E8M0, pack_mxint8, unpack_mxint8 },
    { &elem_rows[ELEM_INT4], &ggml_q4_0, 32, SCALE_TYPE_COUNT, pack_int4, NULL },
    { &elem_rows[ELEM_INT5], &ggml_q5_0, 32, SCALE_TYPE_COUNT, pack_int5, NULL },
    { &elem_rows[ELEM_INT8], &ggml_q8_0, 32, SCALE_TYPE_COUNT, pack_int8, NULL },
    { &elem_rows[ELEM_UINT4], &ggml_q4_1, 32, SCALE_TYPE_COUNT, pack_uint4, NULL },
    { &elem_rows[ELEM_UINT5], &ggml_q5_1, 32, SCALE_TYPE_COUNT, pack_uint5, NULL },
    { &elem_rows[ELEM_MXINT8_FULL], &ggml_q8_0, 32, SCALE_E8M0, pack_mxint8, unpack_mxint8 },
    { &elem_rows[ELEM_BLOCK_M3], &ggml_q4_0, 32, SCALE_E8M0, pack_block_m3, unpack_block_m3 },
    { &elem_rows[ELEM_BLOCK_M4], &ggml_q5_0, 32, SCALE_E8M0, pack_block_m4, unpack_block_m4 },
};

static const struct packing *packing_of(const struct quant *quant)
{
    for (size_t i = 0; i < sizeof packings / sizeof packings[0]; i++)
        if (packings[i].elem == quant->elem && packings[i].type == quant->format->block &&
            (packings[i].scale == quant->scale || packings[i].scale == SCALE_TYPE_COUNT))
            return &packings[i];
    return NULL;
}

enum status layout_check_blocks(const struct quant *quant, struct err *err)
{
    const struct format *format = quant->format;
    if (!format->block) return err_set(err, ERR_USAGE, "format %s has no GGUF type", format->name);
    if (format->family->blocks) return OK;
    const struct packing *packing = packing_of(quant);
    const bool many = packing && !packing->unpack; /* a scale may be repeated */
    if (packing && quant->group_kind == GROUP_SIZE && (many ? quant->group % packing->group == 0 : quant->group == packing->group)) return OK;
    if (many && quant->group_kind == GROUP_CHANNEL) return OK;
    return err_set(err, ERR_USAGE, "GGUF holds format %s in groups of %u%s only", format->name, packing ? packing->group : format->default_group,
                   many ? ", their multiples, and channels" : "");
}

/* A tail is coded as a block that ends with zeros, which change neither the scale nor the other codes. */
size_t layout_reference(const struct quant *quant, const float *x, size_t n, struct group_scale *scales, uint16_t *codes)
{
    const struct ggml_type *type = quant->format->block;
    const struct packing *packing = packing_of(quant);
    const size_t elements = type->elements, groups = elements / packing->group;
    uint8_t block[BLOCK_MAX];
    for (size_t i = 0; i < n; i += elements) {
        const size_t count = n - i < elements ? n - i : elements, n_groups = (count + packing->group - 1) / packing->group;
        float padded[BLOCK_MAX] = { 0 };
        uint16_t block_codes[BLOCK_MAX];
        struct group_scale block_scales[BLOCK_MAX / 16];
        memcpy(padded, x + i, count * sizeof *x);
        type->encode(padded, NULL, 1, block);
        if (!packing->unpack || !packing->unpack(block, block_scales, block_codes)) return i / elements * groups;
        memcpy(codes + i, block_codes, count * sizeof *codes);
        memcpy(scales + i / packing->group, block_scales, n_groups * sizeof *scales);
    }
    return (n + packing->group - 1) / packing->group;
}

/* ---- the row -------------------------------------------------------------------------------------------------------------------- */

static uint32_t planes_of(const struct quant *quant, const struct shape *shape, struct plane planes[LAYOUT_PLANES_MAX])
{
    const struct ggml_type *type = quant->format->block;
    uint64_t tile_rows, tile_cols;
    codec_tile_shape(quant, shape, &tile_rows, &tile_cols);
    planes[0] =
        (struct plane){ "blocks", 8 * type->bytes, shape->rows, shape->cols / type->elements, tile_rows, size_max(1, tile_cols / type->elements) };
    return 1;
}

static bool store(const struct quant *quant, uint64_t n_cols, const struct row_piece *piece, uint8_t *const planes[LAYOUT_PLANES_MAX], size_t *bad)
{
    const struct ggml_type *type = quant->format->block;
    const struct packing *packing = packing_of(quant);
    const size_t group = (size_t)quant_group_len(quant, n_cols);
    uint8_t *block = planes[0] + (piece->row * (n_cols / type->elements) + piece->col / type->elements) * type->bytes;
    for (size_t i = 0; i < piece->n; i += type->elements, block += type->bytes)
        if (!packing->pack(piece->scales + i / group, piece->codes + i, block)) {
            *bad = i / group;
            return false;
        }
    return true;
}

static void decode(const struct quant *quant, const struct kernels *kernels, const uint8_t *const planes[LAYOUT_PLANES_MAX], uint64_t first, size_t n,
                   float *out)
{
    const struct ggml_type *type = quant->format->block;
    const size_t elements = type->elements;
    float edge[BLOCK_MAX];
    (void)kernels;
    while (n > 0) {
        const uint8_t *block = planes[0] + first / elements * type->bytes;
        const size_t skip = (size_t)(first % elements), whole = skip ? 0 : n / elements;
        size_t done = whole * elements;
        if (whole > 0) {
            type->decode(block, whole, out);
        } else {
            type->decode(block, 1, edge);
            done = n < elements - skip ? n : elements - skip;
            memcpy(out, edge + skip, done * sizeof *out);
        }
        first += done;
        out += done;
        n -= done;
    }
}

static bool load(const struct quant *quant, const uint8_t *const planes[LAYOUT_PLANES_MAX], uint64_t col, size_t n, struct group_scale *scales,
                 uint16_t *codes, size_t *bad)
{
    const struct ggml_type *type = quant->format->block;
    const struct packing *packing = packing_of(quant);
    const uint8_t *block = planes[0] + col / type->elements * type->bytes;
    *bad = 0;
    for (size_t i = 0; packing && i < n; i += type->elements, block += type->bytes) {
        *bad = i / packing->group;
        if (!packing->unpack || !packing->unpack(block, scales + i / packing->group, codes + i)) return false;
    }
    return packing != NULL;
}

const struct layout layout_blocks = { .name = "blocks", .planes = planes_of, .store = store, .decode = decode, .load = load };
