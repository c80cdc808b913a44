/* kernel_body.h: the kernels in plain C, compiled once per processor level by kernel_ref.c and kernel_x86.c (the only files that include it).
 *
 *   #define KERNEL(name) name##_avx2
 *   #define KERNEL_TARGET __attribute__((target("avx2")))
 *   #include "number/kernel_body.h"        -> static functions widen_bf16_avx2, all_finite_avx2, ...
 *
 * Formula: chunk.h, over groups and chunks of 16.
 * Why this way: one text for all processors cannot disagree with itself.
 * Corner cases: lengths that are no multiple of 16; a start in the middle of the lanes; NaN and Inf only in widen_bf16, all_finite, mxfp4_bf16 (as
 * an answer) and measure.
 * Reference: NUMERICS.md. Worked number: 20 weights in groups of 16 are two chunks, the second one padded with 12 zeros.
 */

static KERNEL_TARGET bool KERNEL(widen_bf16)(const uint8_t *restrict stored, size_t n, float *restrict x)
{
    int16_t worst = 0;
    for (size_t i = 0; i < n; i++) {
        uint16_t b;
        memcpy(&b, stored + 2 * i, 2);
        int16_t size = (int16_t)(b & 0x7FFFu);
        x[i] = bf16_to_f32(b);
        worst = size > worst ? size : worst;
    }
    return worst < 0x7F80;
}

static KERNEL_TARGET bool KERNEL(all_finite)(const float *x, size_t n)
{
    int32_t worst = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t size = (int32_t)(f32_bits(x[i]) & 0x7FFFFFFFu);
        worst = size > worst ? size : worst;
    }
    return worst < 0x7F800000;
}

/* As integers the bits of positive numbers rise with the number; with the sign flipped, so do those of negative numbers with their size. */
static inline KERNEL_TARGET struct range KERNEL(range)(const float *x, size_t n)
{
    int32_t low = 0, high = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t positive = (int32_t)f32_bits(x[i]), negative = (int32_t)(f32_bits(x[i]) ^ 0x80000000u);
        high = positive > high ? positive : high;
        low = negative > low ? negative : low;
    }
    return (struct range){ low ? -f32_from_bits((uint32_t)low) : 0.0f, f32_from_bits((uint32_t)high) };
}

static KERNEL_TARGET void KERNEL(ranges)(const float *x, size_t n, size_t group, struct range *ranges)
{
    for (; n > group; n -= group, x += group) *ranges++ = KERNEL(range)(x, group);
    *ranges = KERNEL(range)(x, n);
}

/* ---- codes ---------------------------------------------------------------------------------------------------------------------- */

/* Weights in units of the scale of a codebook, which is perhaps 0: then the weights are. n is at most RUN, here and below. */
static inline KERNEL_TARGET void KERNEL(in_levels)(float value, size_t n, const float *restrict x, float *restrict u)
{
    const bool none = value == 0.0f;
    for (size_t i = 0; i < n; i++) u[i] = none ? 0.0f : x[i] / value;
}

/* The levels by the number of thresholds below u, picked one threshold after the other: no branch and no table look-up, so that compilers make
 * vectors of it. */
static inline KERNEL_TARGET void KERNEL(nearest_levels)(const struct codebook *book, size_t n, const float *restrict u, float *restrict level)
{
    float above[CODEBOOK_LEVELS], thresholds[CODEBOOK_LEVELS - 1];
    memcpy(thresholds, book->thresholds, sizeof thresholds);
    for (size_t k = 0; k < CODEBOOK_LEVELS; k++) above[k] = book->levels[book->codes[k]];
    for (size_t i = 0; i < n; i++) {
        float nearest = above[0];
        for (size_t k = 0; k < CODEBOOK_LEVELS - 1; k++) nearest = u[i] > thresholds[k] ? above[k + 1] : nearest;
        level[i] = nearest;
    }
}

static inline KERNEL_TARGET void KERNEL(nearest_codes)(const struct codebook *book, size_t n, const float *restrict u, int32_t *restrict code)
{
    int32_t above[CODEBOOK_LEVELS];
    float thresholds[CODEBOOK_LEVELS - 1];
    memcpy(thresholds, book->thresholds, sizeof thresholds);
    for (size_t k = 0; k < CODEBOOK_LEVELS; k++) above[k] = book->codes[k];
    for (size_t i = 0; i < n; i++) {
        int32_t nearest = above[0];
        for (size_t k = 0; k < CODEBOOK_LEVELS - 1; k++) nearest = u[i] > thresholds[k] ? above[k + 1] : nearest;
        code[i] = nearest;
    }
}

static inline KERNEL_TARGET void KERNEL(encode_levels)(const struct codebook *book, float value, size_t n, const float *restrict x,
                                                       uint16_t *restrict codes, float *restrict y)
{
    float u[RUN], level[RUN];
    int32_t code[RUN];
    KERNEL(in_levels)(value, n, x, u);
    KERNEL(nearest_levels)(book, n, u, level);
    KERNEL(nearest_codes)(book, n, u, code);
    for (size_t i = 0; i < n; i++) {
        codes[i] = (uint16_t)code[i];
        y[i] = level[i] * value;
    }
}

static KERNEL_TARGET void KERNEL(encode)(const struct elem *elem, enum rounding rounding, const struct groups *groups, const float *x,
                                         uint16_t *codes, float *y)
{
    const struct coding coding = coding_of(elem, rounding);
    for (size_t i = 0, g = 0; i < groups->n; i += groups->group, g++) {
        const struct coding_scale scale = coding_scale_of(&coding, &groups->scales[g]);
        const size_t n = groups->n - i < groups->group ? groups->n - i : groups->group;
        float unwanted[RUN];
        for (size_t k = 0, count; k < n; k += count) {
            count = n - k < RUN ? n - k : RUN;
            float *run_y = y ? y + i + k : unwanted;
            if (coding.book) KERNEL(encode_levels)(coding.book, scale.value, count, x + i + k, codes + i + k, run_y);
            else encode_run(&coding, &scale, count, x + i + k, codes + i + k, run_y);
        }
    }
}

/* value = significand * 2^(max(field, 1) - bias - m), where the significand has its leading bit when the exponent field is not 0. */
static inline KERNEL_TARGET void KERNEL(decode_float)(const struct elem *elem, float value, size_t n, const uint16_t *restrict codes,
                                                      float *restrict y)
{
    const int32_t m = (int32_t)elem->man_bits, magnitude_mask = (1 << (elem->bits - 1u)) - 1, offset = 127 - elem->bias - m;
    const uint32_t sign_shift = 32u - elem->bits;
    int32_t largest = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t magnitude = codes[i] & magnitude_mask, field = magnitude >> m, power = field > 1 ? field : 1;
        float size = (float)(magnitude - ((power - 1) << m)) * f32_from_bits((uint32_t)(power + offset) << 23);
        y[i] = f32_from_bits(f32_bits(size) | ((uint32_t)codes[i] << sign_shift & 0x80000000u)) * value;
        largest = magnitude > largest ? magnitude : largest;
    }
    if (elem->special == ELEM_NO_SPECIAL || largest < magnitude_mask - (1 << m) + 1) return;
    for (size_t i = 0; i < n; i++) y[i] = elem_decode(elem, codes[i]) * value; /* perhaps Inf or NaN among them */
}

static inline KERNEL_TARGET void KERNEL(decode_int)(const struct elem *elem, float value, int32_t zero, size_t n, const uint16_t *restrict codes,
                                                    float *restrict y)
{
    const int32_t sign_bit = elem->kind == ELEM_SIGNED ? 1 << (elem->bits - 1u) : 0;
    for (size_t i = 0; i < n; i++) y[i] = (float)(((int32_t)codes[i] ^ sign_bit) - sign_bit - zero) * value;
}

static inline KERNEL_TARGET void KERNEL(decode_levels)(const struct elem *elem, float value, size_t n, const uint16_t *restrict codes,
                                                       float *restrict y)
{
    const float *levels = elem->book->levels;
    for (size_t i = 0; i < n; i++) y[i] = levels[codes[i] & (CODEBOOK_LEVELS - 1)] * value;
}

static KERNEL_TARGET void KERNEL(decode)(const struct elem *elem, const struct groups *groups, const uint16_t *codes, float *y)
{
    const float step = exact_exp2(-(int32_t)elem->fraction_bits);
    for (size_t i = 0, g = 0; i < groups->n; i += groups->group, g++) {
        const struct group_scale *scale = &groups->scales[g];
        size_t n = groups->n - i < groups->group ? groups->n - i : groups->group;
        if (elem->kind == ELEM_FLOAT) KERNEL(decode_float)(elem, scale->value, n, codes + i, y + i);
        else if (elem->kind == ELEM_CODEBOOK) KERNEL(decode_levels)(elem, scale->value, n, codes + i, y + i);
        else KERNEL(decode_int)(elem, scale->value * step, scale->zero, n, codes + i, y + i);
    }
}

/* ---- errors --------------------------------------------------------------------------------------------------------------------- */

/* Integers, nearest-even, without importance; n a multiple of 16. */
static inline KERNEL_TARGET void KERNEL(add_terms_int)(const struct coding_scale *scale, float unit, size_t n, const float *x, float lanes[CHUNK])
{
    const float value = scale->value, low = scale->low, high = scale->high;
    for (size_t i = 0; i < n; i += CHUNK) LANES
    for (size_t j = 0; j < CHUNK; j++) lanes[j] += term_int(x[i + j], value, low, high, unit);
}

static inline KERNEL_TARGET void KERNEL(terms_levels)(const struct codebook *book, float value, float unit, size_t n, const float *restrict x,
                                                      float *restrict terms)
{
    float u[RUN], level[RUN];
    KERNEL(in_levels)(value, n, x, u);
    KERNEL(nearest_levels)(book, n, u, level);
    for (size_t i = 0; i < n; i++) {
        const float d = (x[i] - level[i] * value) * unit;
        terms[i] = d * d;
    }
}

/* All other cases; weight may be NULL. */
static inline KERNEL_TARGET void KERNEL(add_terms)(const struct coding *coding, const struct coding_scale *scale, float unit, size_t n,
                                                   const float *x, const float *weight, float lanes[CHUNK])
{
    float terms[RUN];
    if (coding->book) KERNEL(terms_levels)(coding->book, scale->value, unit, n, x, terms);
    else terms_run(coding, scale, unit, n, x, terms);
    for (size_t i = 0; weight && i < n; i++) terms[i] *= weight[i];
    for (size_t i = 0; i < n; i += CHUNK) LANES
    for (size_t j = 0; j < CHUNK; j++) lanes[j] += terms[i + j];
}

static KERNEL_TARGET void KERNEL(error)(const struct elem *elem, enum rounding rounding, const struct group_scale *scale, struct error_sum *sum)
{
    const struct coding coding = coding_of(elem, rounding);
    const struct coding_scale coding_scale = coding_scale_of(&coding, scale);
    const ptrdiff_t n = (ptrdiff_t)sum->n, start = -(ptrdiff_t)(sum->first % CHUNK);
    const bool simple = !coding.is_float && !coding.book && !sum->weight && rounding == ROUND_NEAREST_EVEN;
    float lanes[CHUNK], padded_x[RUN], padded_weight[RUN];
    memset(lanes, 0, sizeof lanes);
    if (sum->first > 0) memcpy(lanes, sum->lanes, sizeof lanes);
    for (ptrdiff_t i = start; i < n; i += RUN) {
        const size_t count = n - i < RUN ? (size_t)(n - i + CHUNK - 1) / CHUNK * CHUNK : RUN;
        const float *x = run_at(sum->x, n, i, count, padded_x), *weight = sum->weight ? run_at(sum->weight, n, i, count, padded_weight) : NULL;
        if (coding.book && !weight && x == padded_x) weight = ones_at(n, i, count, padded_weight);
        if (simple) KERNEL(add_terms_int)(&coding_scale, sum->unit, count, x, lanes);
        else KERNEL(add_terms)(&coding, &coding_scale, sum->unit, count, x, weight, lanes);
    }
    memcpy(sum->lanes, lanes, sizeof lanes);
    sum->total = chunk_sum(lanes);
}

/* A power of two among the scales gives the same terms by division as by a product. */
static KERNEL_TARGET void KERNEL(errors)(const struct elem *elem, const float *x, size_t n, const float *scales, size_t n_scales, float unit,
                                         float *sums)
{
    const struct coding coding = coding_of(elem, ROUND_NEAREST_EVEN);
    const int32_t lift = coding.lift, lowest = coding.lowest;
    const float max = coding.max;
    for (size_t s = 0; s < n_scales; s++) {
        const float value = scales[s];
        float lanes[CHUNK] = { 0 };
        for (size_t i = 0; i < n; i += CHUNK) LANES
        for (size_t j = 0; j < CHUNK; j++) {
            float size = fabsf(x[i + j]), u = size / value, v = u < max ? u : max;
            float magic = magic_of(at_least(power_of(v), lowest), lift), d = (size - ((v + magic) - magic) * value) * unit;
            lanes[j] += d * d;
        }
        sums[s] = chunk_sum(lanes);
    }
}

static KERNEL_TARGET void KERNEL(terms)(const struct elem *elem, enum rounding rounding, const float *restrict values, float unit, size_t n,
                                        const float *restrict x, float *restrict terms)
{
    const float step = exact_exp2(-(int32_t)elem->fraction_bits), low = (float)elem->code_min, high = (float)elem->code_max;
    if (rounding == ROUND_NEAREST_EVEN) {
        for (size_t i = 0; i < n; i++) terms[i] = term_int(x[i], values[i] * step, low, high, unit);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const float value = values[i] * step, q = round_to_integer(fminf(fmaxf(x[i] / value, low), high), rounding), d = (x[i] - q * value) * unit;
        terms[i] = d * d;
    }
}

static inline KERNEL_TARGET void KERNEL(search)(const struct elem *elem, const struct groups *groups, const struct range *ranges, const float *x,
                                                int8_t *steps)
{
    const struct coding coding = coding_of(elem, ROUND_NEAREST_EVEN);
    const struct search_grid here = search_grid_of(&coding, 0), above = search_grid_of(&coding, 1), below = search_grid_of(&coding, -1);
    const size_t group = groups->group;
    for (size_t g = 0; g < groups->n / group; g++, x += group) {
        const float multiplier = exact_exp2(127 - (int32_t)groups->scales[g].bits);
        float a[CHUNK] = { 0 }, b[CHUNK] = { 0 }, c[CHUNK] = { 0 };
        for (size_t i = 0; i < group; i += CHUNK) LANES
        for (size_t j = 0; j < CHUNK; j++) {
            float size = fabsf(x[i + j] * multiplier);
            int32_t power = power_of(size);
            a[j] += search_term(size, power, here, coding.lift);
            b[j] += search_term(size, power, above, coding.lift);
        }
        float here_sum = chunk_sum(a), above_sum = chunk_sum(b), least = above_sum < here_sum ? above_sum : here_sum;
        steps[g] = above_sum < here_sum;
        if (search_hopeless(ranges[g], multiplier, below, least)) continue;
        for (size_t i = 0; i < group; i += CHUNK) LANES
        for (size_t j = 0; j < CHUNK; j++) {
            float size = fabsf(x[i + j] * multiplier);
            c[j] += search_term(size, power_of(size), below, coding.lift);
        }
        if (chunk_sum(c) < least) steps[g] = -1;
    }
}

/* ---- measuring ------------------------------------------------------------------------------------------------------------------ */

/* Sums of one block of at most MEASURE_BLOCK weights, in f32 (their errors are independent and average out): false when squares left the range of
 * f32. */
static inline KERNEL_TARGET bool KERNEL(measure_block)(const float *x, const float *y, size_t n, struct measure *part)
{
    float xx[CHUNK] = { 0 }, yy[CHUNK] = { 0 }, dd[CHUNK] = { 0 }, worst[CHUNK] = { 0 }, padded_x[CHUNK], padded_y[CHUNK];
    for (size_t i = 0; i < n; i += CHUNK) {
        const float *a = run_at(x, (ptrdiff_t)n, (ptrdiff_t)i, CHUNK, padded_x), *b = run_at(y, (ptrdiff_t)n, (ptrdiff_t)i, CHUNK, padded_y);
        LANES
        for (size_t j = 0; j < CHUNK; j++) {
            float d = a[j] - b[j], size = fabsf(d);
            xx[j] += a[j] * a[j];
            yy[j] += b[j] * b[j];
            dd[j] += d * d;
            worst[j] = size > worst[j] ? size : worst[j];
        }
    }
    for (size_t width = CHUNK / 2; width > 0; width /= 2)
        for (size_t j = 0; j < width; j++) worst[j] = worst[j + width] > worst[j] ? worst[j + width] : worst[j];
    part->sum_xx = (double)chunk_sum(xx);
    part->sum_yy = (double)chunk_sum(yy);
    part->sum_dd = (double)chunk_sum(dd);
    part->max_d = (double)worst[0];
    return measure_in_range(part);
}

static inline KERNEL_TARGET bool KERNEL(all_zero)(const float *x, size_t n)
{
    struct range range = KERNEL(range)(x, n);
    return range.min == 0.0f && range.max == 0.0f;
}

static KERNEL_TARGET void KERNEL(measure)(const float *x, const float *y, size_t n, struct measure *measure)
{
    for (size_t i = 0; i < n; i += MEASURE_BLOCK) {
        size_t count = n - i < MEASURE_BLOCK ? n - i : MEASURE_BLOCK;
        struct measure part = { .n = count };
        bool fine = KERNEL(measure_block)(x + i, y + i, count, &part);
        if (!fine && part.sum_xx == 0.0 && part.sum_yy == 0.0) fine = KERNEL(all_zero)(x + i, count) && KERNEL(all_zero)(y + i, count);
        if (!fine) measure_exact(x + i, y + i, count, &part);
        else part.sum_xy = (part.sum_xx + part.sum_yy - part.sum_dd) / 2; /* d^2 = x^2 - 2xy + y^2 */
        measure_add(measure, &part);
    }
}

/* ---- BF16 straight to MXFP4 ----------------------------------------------------------------------------------------------------- */

/* Codes of 32 weights whose scale byte is b >= 3: count the thresholds that |x| reaches. Thresholds between the eight magnitudes are (0.25 0.75
 * 1.25 1.75 2.5 3.5 5) * 2^(b-127); as BF16 bits all are exact, and ties go to the even code: 0.75, 1.75 and 3.5 upwards (>=), the others down (>,
 * that is >= the next pattern). */
static inline KERNEL_TARGET void KERNEL(mxfp4_codes)(const uint16_t *restrict x, int b, uint8_t *restrict codes)
{
    const int16_t limits[7] = {
        (int16_t)((b - 2) * 128 + 1),  (int16_t)((b - 1) * 128 + 64), (int16_t)(b * 128 + 33),       (int16_t)(b * 128 + 96),
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
        else mxfp4_codes_tiny(x, (uint32_t)amax, b, codes);
    }
    return worst < 0x7F80u;
}

static inline KERNEL_TARGET void KERNEL(mxfp4_f32)(const uint8_t *codes, const uint8_t *scales, size_t n_groups, float *y)
{
    static const float values[16] = { 0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f };
    for (size_t g = 0; g < n_groups; g++) {
        const float value = scale_load(SCALE_E8M0, scales[g]);
        for (size_t j = 0; j < 16; j++, codes++, y += 2) {
            y[0] = values[*codes & 15u] * value;
            y[1] = values[*codes >> 4] * value;
        }
    }
}
