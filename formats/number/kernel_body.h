/* kernel_body.h: the kernels in plain C, compiled once per processor level by kernel_ref.c and kernel_x86.c (the only files that include it).
 *
 *   #define KERNEL(name) name##_avx2
 *   #define KERNEL_TARGET __attribute__((target("avx2")))
 *   #include "number/kernel_body.h"        -> static functions widen_bf16_avx2, all_finite_avx2, ...
 *
 * Formula, float elements, nearest-even, for v = min(|u|, max): magic = 2^(max(exponent of v, 1-bias) + 23 - m); r = (v + magic) - magic is v rounded to the element's grid, because
 * magic + v has its last bit at the grid step. The code is read off the bits of r.
 * Why this way: loops of 16 without branches, which compilers vectorise; every operation is one IEEE operation, so the width of the vectors cannot matter.
 * Corner cases: other rounding modes take the generic elem functions; lengths that are no multiple of 16; a start in the middle of the lanes.
 * Reference: NUMERICS.md. Worked number: e2m1, v = 2.5: exponent 1, magic 2^23, 2.5 + 2^23 rounds to 2^23 + 2, r = 2, code 4.
 */

static inline KERNEL_TARGET float KERNEL(round_even)(float u)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23, for |u| < 2^22 */
    return (u + magic) - magic;
}

static inline KERNEL_TARGET float KERNEL(clamp)(float u, float low, float high)
{
    float above = u > low ? u : low;
    return above < high ? above : high;
}

/* |u| rounded to the grid of a float element, to nearest even, saturated. */
static inline KERNEL_TARGET float KERNEL(grid_round)(float size, uint32_t lowest_bits, uint32_t lift_bits, float max)
{
    float v = size < max ? size : max;
    uint32_t exponent = f32_bits(v) & 0x7F800000u;
    exponent = exponent > lowest_bits ? exponent : lowest_bits;
    float magic = f32_from_bits(exponent + lift_bits);
    return (v + magic) - magic;
}

static KERNEL_TARGET void KERNEL(widen_bf16)(const uint8_t *stored, size_t n, float *x)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t b;
        memcpy(&b, stored + 2 * i, 2);
        x[i] = bf16_to_f32(b);
    }
}

static KERNEL_TARGET bool KERNEL(all_finite)(const float *x, size_t n)
{
    uint32_t worst = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t size = f32_bits(x[i]) & 0x7FFFFFFFu;
        worst = size > worst ? size : worst;
    }
    return worst < 0x7F800000u;
}

static KERNEL_TARGET struct range KERNEL(range)(const float *x, size_t n)
{
    float low[16] = { 0 }, high[16] = { 0 };
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (size_t j = 0; j < 16; j++) {
            low[j] = x[i + j] < low[j] ? x[i + j] : low[j];
            high[j] = x[i + j] > high[j] ? x[i + j] : high[j];
        }
    struct range range = { 0.0f, 0.0f };
    for (; i < n; i++) {
        range.min = x[i] < range.min ? x[i] : range.min;
        range.max = x[i] > range.max ? x[i] : range.max;
    }
    for (size_t j = 0; j < 16; j++) {
        range.min = low[j] < range.min ? low[j] : range.min;
        range.max = high[j] > range.max ? high[j] : range.max;
    }
    return range;
}

/* ---- float elements ------------------------------------------------------------------------------------------------------------- */

static KERNEL_TARGET void KERNEL(encode_float)(const struct elem *elem, enum rounding rounding, const float *restrict x, float multiplier, size_t n,
                                               uint16_t *restrict codes)
{
    if (rounding != ROUND_NEAREST_EVEN) {
        for (size_t i = 0; i < n; i++) codes[i] = (uint16_t)elem_encode(elem, x[i] * multiplier, rounding);
        return;
    }
    const uint32_t m = elem->man_bits;
    const uint32_t lowest_bits = (uint32_t)(128 - elem->bias) << 23, lift_bits = (23u - m) << 23;
    const uint32_t normal_offset = (uint32_t)(127 - elem->bias) << m, subnormal_offset = normal_offset + (1u << m);
    const uint32_t sign_shift = 32u - elem->bits, sign_bit = 1u << (elem->bits - 1u), code_shift = 23u - m;
    const float max = elem->max, lowest = exact_exp2(1 - elem->bias);
    for (size_t i = 0; i < n; i++) {
        float u = x[i] * multiplier;
        uint32_t sign = f32_bits(u) >> sign_shift & sign_bit;
        float r = KERNEL(grid_round)(fabsf(u), lowest_bits, lift_bits, max);
        bool subnormal = r < lowest;
        float shifted = subnormal ? r + lowest : r;
        uint32_t offset = subnormal ? subnormal_offset : normal_offset;
        codes[i] = (uint16_t)(sign | ((f32_bits(shifted) >> code_shift) - offset));
    }
}

static inline KERNEL_TARGET float KERNEL(float_term)(const struct elem *elem, enum rounding rounding, float u, float unit, const float *weight, size_t i)
{
    float r = elem_decode(elem, elem_encode(elem, u, rounding));
    float d = (u - r) * unit;
    float t = d * d;
    return weight ? t * weight[i] : t;
}

static KERNEL_TARGET void KERNEL(error_float)(const struct elem *elem, enum rounding rounding, const float *restrict x, float multiplier, float unit,
                                              const float *restrict weight, size_t n, uint32_t first, float lanes[16])
{
    size_t i = 0;
    float sums[16];
    memcpy(sums, lanes, sizeof sums);
    if (rounding == ROUND_NEAREST_EVEN && first % 16 == 0) {
        const uint32_t lowest_bits = (uint32_t)(128 - elem->bias) << 23, lift_bits = (23u - elem->man_bits) << 23;
        const float max = elem->max;
        for (; i + 16 <= n; i += 16)
            for (size_t j = 0; j < 16; j++) {
                float size = fabsf(x[i + j] * multiplier);
                float d = (size - KERNEL(grid_round)(size, lowest_bits, lift_bits, max)) * unit;
                float t = d * d;
                sums[j] += weight ? t * weight[i + j] : t;
            }
    }
    for (; i < n; i++) sums[(first + i) % 16] += KERNEL(float_term)(elem, rounding, x[i] * multiplier, unit, weight, i);
    memcpy(lanes, sums, sizeof sums);
}

static KERNEL_TARGET void KERNEL(decode_float)(const struct elem *elem, const uint16_t *restrict codes, float scale, size_t n, float *restrict y)
{
    const uint32_t m = elem->man_bits, magnitude_mask = (1u << (elem->bits - 1u)) - 1u, mantissa_mask = (1u << m) - 1u;
    const uint32_t special = elem->special == ELEM_NO_SPECIAL ? ~0u : elem->special == ELEM_NAN_ONLY ? magnitude_mask : magnitude_mask & ~mantissa_mask;
    const uint32_t up = 23u - m, sign_shift = 32u - elem->bits, offset = (uint32_t)(127 - elem->bias) << 23;
    const float step = exact_exp2(1 - elem->bias - (int32_t)m);
    for (size_t i = 0; i < n; i++) {
        uint32_t code = codes[i];
        uint32_t magnitude = code & magnitude_mask;
        uint32_t sign = code << sign_shift & 0x80000000u;
        uint32_t normal = (magnitude << up) + offset;
        float subnormal = (float)(int32_t)magnitude * step;
        uint32_t bits = magnitude > mantissa_mask ? normal : f32_bits(subnormal);
        bits = magnitude >= special ? 0x7F800000u | (magnitude & mantissa_mask) << up : bits;
        y[i] = f32_from_bits(sign | bits) * scale;
    }
}

/* ---- fixed point (mxint8) ------------------------------------------------------------------------------------------------------- */

static KERNEL_TARGET void KERNEL(encode_fixed)(const struct elem *elem, enum rounding rounding, const float *restrict x, float multiplier, size_t n,
                                               uint16_t *restrict codes)
{
    if (rounding != ROUND_NEAREST_EVEN) {
        for (size_t i = 0; i < n; i++) codes[i] = (uint16_t)elem_encode(elem, x[i] * multiplier, rounding);
        return;
    }
    const float steps = exact_exp2((int32_t)elem->fraction_bits), low = (float)elem->code_min, high = (float)elem->code_max;
    const uint32_t mask = (1u << elem->bits) - 1u;
    for (size_t i = 0; i < n; i++) {
        float u = x[i] * multiplier;
        float q = KERNEL(round_even)(KERNEL(clamp)(u * steps, low, high));
        codes[i] = (uint16_t)((uint32_t)(int32_t)q & mask);
    }
}

static KERNEL_TARGET void KERNEL(error_fixed)(const struct elem *elem, enum rounding rounding, const float *restrict x, float multiplier, float unit,
                                              const float *restrict weight, size_t n, uint32_t first, float lanes[16])
{
    size_t i = 0;
    float sums[16];
    memcpy(sums, lanes, sizeof sums);
    if (rounding == ROUND_NEAREST_EVEN && first % 16 == 0) {
        const float steps = exact_exp2((int32_t)elem->fraction_bits), step = exact_exp2(-(int32_t)elem->fraction_bits);
        const float low = (float)elem->code_min, high = (float)elem->code_max;
        for (; i + 16 <= n; i += 16)
            for (size_t j = 0; j < 16; j++) {
                float u = x[i + j] * multiplier;
                float r = KERNEL(round_even)(KERNEL(clamp)(u * steps, low, high)) * step;
                float d = (u - r) * unit;
                float t = d * d;
                sums[j] += weight ? t * weight[i + j] : t;
            }
    }
    for (; i < n; i++) sums[(first + i) % 16] += KERNEL(float_term)(elem, rounding, x[i] * multiplier, unit, weight, i);
    memcpy(lanes, sums, sizeof sums);
}

/* ---- integers with a scale ------------------------------------------------------------------------------------------------------ */

static inline KERNEL_TARGET float KERNEL(int_steps)(const struct int_coding *coding, float x)
{
    float u = KERNEL(clamp)(x / coding->scale, (float)(coding->low - coding->zero), (float)(coding->high - coding->zero));
    return round_to_integer(u, coding->rounding);
}

static KERNEL_TARGET void KERNEL(encode_int)(const struct int_coding *coding, const float *restrict x, size_t n, uint16_t *restrict codes)
{
    const uint32_t mask = (1u << coding->bits) - 1u;
    const int32_t zero = coding->zero;
    if (coding->rounding != ROUND_NEAREST_EVEN) {
        for (size_t i = 0; i < n; i++) codes[i] = (uint16_t)((uint32_t)((int32_t)KERNEL(int_steps)(coding, x[i]) + zero) & mask);
        return;
    }
    const float scale = coding->scale, low = (float)(coding->low - zero), high = (float)(coding->high - zero);
    for (size_t i = 0; i < n; i++) {
        float q = KERNEL(round_even)(KERNEL(clamp)(x[i] / scale, low, high));
        codes[i] = (uint16_t)((uint32_t)((int32_t)q + zero) & mask);
    }
}

static KERNEL_TARGET void KERNEL(error_int)(const struct int_coding *coding, const float *restrict x, float unit, const float *restrict weight, size_t n,
                                            uint32_t first, float lanes[16])
{
    const float scale = coding->scale;
    size_t i = 0;
    float sums[16];
    memcpy(sums, lanes, sizeof sums);
    if (coding->rounding == ROUND_NEAREST_EVEN && first % 16 == 0) {
        const float low = (float)(coding->low - coding->zero), high = (float)(coding->high - coding->zero);
        for (; i + 16 <= n; i += 16)
            for (size_t j = 0; j < 16; j++) {
                float y = KERNEL(round_even)(KERNEL(clamp)(x[i + j] / scale, low, high)) * scale;
                float d = (x[i + j] - y) * unit;
                float t = d * d;
                sums[j] += weight ? t * weight[i + j] : t;
            }
    }
    for (; i < n; i++) {
        float d = (x[i] - KERNEL(int_steps)(coding, x[i]) * scale) * unit;
        float t = d * d;
        sums[(first + i) % 16] += weight ? t * weight[i] : t;
    }
    memcpy(lanes, sums, sizeof sums);
}

static KERNEL_TARGET void KERNEL(decode_int)(const struct int_coding *coding, const uint16_t *restrict codes, size_t n, float *restrict y)
{
    const float scale = coding->scale;
    const int32_t zero = coding->zero;
    const uint32_t sign_bit = coding->is_signed ? 1u << (coding->bits - 1u) : 0u;
    for (size_t i = 0; i < n; i++) {
        int32_t value = (int32_t)(codes[i] ^ sign_bit) - (int32_t)sign_bit;
        y[i] = (float)(value - zero) * scale;
    }
}

/* ---- measuring ------------------------------------------------------------------------------------------------------------------ */

static KERNEL_TARGET void KERNEL(measure)(const float *restrict x, const float *restrict y, size_t n, struct measure *measure)
{
    double xx[8] = { 0 }, yy[8] = { 0 }, xy[8] = { 0 }, dd[8] = { 0 };
    float worst[8] = { 0 };
    for (size_t i = 0; i < n; i += 8) {
        float a8[8] = { 0 }, b8[8] = { 0 };
        size_t k = n - i < 8 ? n - i : 8;
        memcpy(a8, x + i, k * sizeof *x);
        memcpy(b8, y + i, k * sizeof *y);
        for (size_t j = 0; j < 8; j++) {
            float d = a8[j] - b8[j], size = fabsf(d);
            double a = (double)a8[j], b = (double)b8[j], c = (double)d;
            xx[j] += a * a;
            yy[j] += b * b;
            xy[j] += a * b;
            dd[j] += c * c;
            worst[j] = size > worst[j] ? size : worst[j];
        }
    }
    struct measure part = { .n = n };
    for (size_t j = 0; j < 8; j++) {
        part.sum_xx += xx[j];
        part.sum_yy += yy[j];
        part.sum_xy += xy[j];
        part.sum_dd += dd[j];
        part.max_d = (double)worst[j] > part.max_d ? (double)worst[j] : part.max_d;
    }
    measure_add(measure, &part);
}

/* ---- BF16 straight to MXFP4 ----------------------------------------------------------------------------------------------------- */

/* Codes of 32 weights whose scale byte is b >= 3: count the thresholds that |x| reaches. Thresholds between the eight magnitudes are (0.25 0.75 1.25 1.75 2.5 3.5 5) * 2^(b-127); as
 * BF16 bits all are exact, and ties go to the even code: 0.75, 1.75 and 3.5 upwards (>=), the others down (>, that is >= the next pattern). */
static inline KERNEL_TARGET void KERNEL(mxfp4_codes)(const uint16_t *restrict x, int b, uint8_t *restrict codes)
{
    const int16_t limits[7] = {
        (int16_t)((b - 2) * 128 + 1), (int16_t)((b - 1) * 128 + 64), (int16_t)(b * 128 + 33),      (int16_t)(b * 128 + 96),
        (int16_t)((b + 1) * 128 + 33), (int16_t)((b + 1) * 128 + 96), (int16_t)((b + 2) * 128 + 33),
    };
    uint16_t wide[32];
    for (size_t j = 0; j < 32; j++) {
        int16_t size = (int16_t)(x[j] & 0x7FFFu);
        int16_t code = 0;
        for (size_t k = 0; k < 7; k++) code = (int16_t)(code + (size >= limits[k]));
        wide[j] = (uint16_t)((uint16_t)code | (x[j] >> 12 & 8u));
    }
    for (size_t j = 0; j < 16; j++) codes[j] = (uint8_t)(wide[2 * j] | (uint32_t)wide[2 * j + 1] << 4);
}

static inline KERNEL_TARGET bool KERNEL(mxfp4_bf16)(const uint8_t *stored, size_t n_groups, enum scale_rule rule, uint8_t *codes, uint8_t *scales)
{
    uint16_t worst = 0;
    for (size_t g = 0; g < n_groups; g++, stored += 64, codes += 16) {
        uint16_t x[32];
        memcpy(x, stored, sizeof x);
        int16_t amax = 0;
        for (size_t j = 0; j < 32; j++) {
            int16_t size = (int16_t)(x[j] & 0x7FFFu);
            amax = size > amax ? size : amax;
        }
        worst = (uint16_t)amax > worst ? (uint16_t)amax : worst;
        int b = mxfp4_scale_byte((uint32_t)amax, rule);
        scales[g] = (uint8_t)b;
        if (b >= 3) KERNEL(mxfp4_codes)(x, b, codes);
        else mxfp4_codes_tiny(x, b, codes);
    }
    return worst < 0x7F80u;
}
