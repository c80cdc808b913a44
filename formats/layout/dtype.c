/* dtype.c: the table of stored element types and their conversions.
 *
 * Formula: BF16 is the upper half of f32: widen(b) = b << 16; narrow adds 0x7FFF + (bit 16) before the shift (ties to even), a NaN keeps its upper
 * half and is made quiet. F16 is 1.5.10 with bias 15. F8_E4M3 is 1.4.3 bias 7 (no Inf, S.1111.111 NaN), F8_E5M2 1.5.2 bias 15.
 * Why this way: byte loads only, so the source may lie anywhere; loops that compilers vectorise.
 * Corner cases: subnormals are exact in both directions; f32 -> F16 overflow gives Inf (the caller decides whether that is allowed); I64, U64 and
 * F64 round once to f32; the FNUZ, sub-byte, E8M0 and complex types are opaque.
 * Reference: IEEE 754-2019, OCP 8-bit floating point 1.0. Worked numbers: BF16 0x3F80 is 1; f32 0x3F808000 narrows to 0x3F80, 0x3F818000 to 0x3F82;
 * F16 0x0001 is 2^-24.
 */
#include "layout/dtype.h"

#include <string.h>

#include "number/half.h"

static uint64_t load_le(const uint8_t *p, unsigned nbytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < nbytes; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static void widen_bf16(const uint8_t *p, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t b;
        memcpy(&b, p + 2 * i, 2);
        out[i] = bf16_to_f32(b);
    }
}

static void narrow_bf16(const float *x, size_t n, uint8_t *p)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t b = f32_to_bf16(x[i]);
        memcpy(p + 2 * i, &b, 2);
    }
}

static void widen_f16(const uint8_t *p, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t b;
        memcpy(&b, p + 2 * i, 2);
        out[i] = f16_to_f32(b);
    }
}

static void narrow_f16(const float *x, size_t n, uint8_t *p)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t b = f32_to_f16(x[i]);
        memcpy(p + 2 * i, &b, 2);
    }
}

static void widen_f32(const uint8_t *p, size_t n, float *out)
{
    memcpy(out, p, 4 * n);
}

static void narrow_f32(const float *x, size_t n, uint8_t *p)
{
    memcpy(p, x, 4 * n);
}

static void widen_f64(const uint8_t *p, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        double v;
        memcpy(&v, p + 8 * i, 8);
        out[i] = (float)v;
    }
}

static void widen_e4m3(const uint8_t *p, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) out[i] = f8_to_f32(p[i], 3, 7, false);
}

static void widen_e5m2(const uint8_t *p, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) out[i] = f8_to_f32(p[i], 2, 15, true);
}

static void widen_u8(const uint8_t *p, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) out[i] = (float)p[i];
}

static void widen_i8(const uint8_t *p, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) out[i] = (float)(int8_t)p[i];
}

static void widen_u16(const uint8_t *p, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) out[i] = (float)load_le(p + 2 * i, 2);
}

static void widen_i16(const uint8_t *p, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) out[i] = (float)(int16_t)load_le(p + 2 * i, 2);
}

static void widen_u32(const uint8_t *p, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) out[i] = (float)(uint32_t)load_le(p + 4 * i, 4);
}

static void widen_i32(const uint8_t *p, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) out[i] = (float)(int32_t)load_le(p + 4 * i, 4);
}

static void widen_u64(const uint8_t *p, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) out[i] = (float)load_le(p + 8 * i, 8);
}

static void widen_i64(const uint8_t *p, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) out[i] = (float)(int64_t)load_le(p + 8 * i, 8);
}

static const struct dtype rows[] = {
    { "F32", 32, DTYPE_FLOAT, widen_f32, narrow_f32, false },
    { "BF16", 16, DTYPE_FLOAT, widen_bf16, narrow_bf16, true },
    { "F16", 16, DTYPE_FLOAT, widen_f16, narrow_f16, false },
    { "F64", 64, DTYPE_FLOAT, widen_f64, NULL, false },
    { "F8_E4M3", 8, DTYPE_FLOAT, widen_e4m3, NULL, false },
    { "F8_E5M2", 8, DTYPE_FLOAT, widen_e5m2, NULL, false },
    { "BOOL", 8, DTYPE_INTEGER, widen_u8, NULL, false },
    { "U8", 8, DTYPE_INTEGER, widen_u8, NULL, false },
    { "I8", 8, DTYPE_INTEGER, widen_i8, NULL, false },
    { "U16", 16, DTYPE_INTEGER, widen_u16, NULL, false },
    { "I16", 16, DTYPE_INTEGER, widen_i16, NULL, false },
    { "U32", 32, DTYPE_INTEGER, widen_u32, NULL, false },
    { "I32", 32, DTYPE_INTEGER, widen_i32, NULL, false },
    { "U64", 64, DTYPE_INTEGER, widen_u64, NULL, false },
    { "I64", 64, DTYPE_INTEGER, widen_i64, NULL, false },
    { "F8_E8M0", 8, DTYPE_OPAQUE, NULL, NULL, false },
    { "F8_E4M3FNUZ", 8, DTYPE_OPAQUE, NULL, NULL, false },
    { "F8_E5M2FNUZ", 8, DTYPE_OPAQUE, NULL, NULL, false },
    { "F4", 4, DTYPE_OPAQUE, NULL, NULL, false },
    { "F6_E2M3", 6, DTYPE_OPAQUE, NULL, NULL, false },
    { "F6_E3M2", 6, DTYPE_OPAQUE, NULL, NULL, false },
    { "C64", 64, DTYPE_OPAQUE, NULL, NULL, false },
};

size_t dtype_count(void)
{
    return sizeof rows / sizeof rows[0];
}

const struct dtype *dtype_at(size_t index)
{
    return &rows[index];
}

const struct dtype *dtype_find(const char *name, size_t nbytes)
{
    for (size_t i = 0; i < dtype_count(); i++)
        if (strlen(rows[i].name) == nbytes && memcmp(rows[i].name, name, nbytes) == 0) return &rows[i];
    return NULL;
}
