/* test_kernel.c: every slot of every kernel set against the words of NUMERICS.md, one weight at a time, and against the portable set, bit for bit.
 *
 * Drawing: special and random weights -> slot -> equal to a loop over elem_encode, elem_decode and sixteen lanes written down here.
 * Why this way: the loops here are too simple to be wrong in the way a vector is.
 * Corner cases: all lengths 0 .. 70, every alignment, every first lane, groups that are no multiple of a vector, importance weights, -0,
 * subnormals, huge; NaN and Inf in the slots that answer for them; for mxfp4_bf16 every BF16 number as the largest of a group under every rule.
 * Reference: kernel.h; NUMERICS.md 2 to 6.
 */
#include "support/support.h"

#include <math.h>

#include "number/half.h"
#include "number/kernel.h"

enum { MOST = 70, ROOM = 4096 };

static const float specials[] = { 0.0f, -0.0f, 0x1p-149f, -0x1p-149f, 0x1.8p-127f, -0x1p-126f,      0x1p-60f,
                                  1.0f, -1.5f, 2.5f,      -6.0f,      0x1p100f,    -0x1.fffffep127f };

/* kind 0: ordinary weights; 1: specials among them; 2: any finite bits; 3: ties of every grid. */
static void fill(float *x, size_t n, int kind, uint64_t *seed)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t r = test_random(seed);
        float ordinary = ((float)(r >> 40) * 0x1p-23f - 1.0f) * 0.37f;
        uint32_t bits = (uint32_t)r;
        bits = (bits >> 23 & 255u) == 255u ? bits & 0xBFFFFFFFu : bits;
        if (kind == 1 && r % 3 == 0) x[i] = specials[(r >> 8) % (sizeof specials / sizeof specials[0])];
        else if (kind == 2) x[i] = f32_from_bits(bits);
        else if (kind == 3) x[i] = (float)((int32_t)(r % 512u) - 256) * 0.125f;
        else x[i] = ordinary;
    }
}

static bool same(float a, float b)
{
    return f32_bits(a) == f32_bits(b) || (isnan(a) && isnan(b));
}

/* ---- the choice of a set -------------------------------------------------------------------------------------------------------- */

static void test_select(void **state)
{
    (void)state;
    size_t best = kernels_count() - 1;
    assert_string_equal(kernels_at(0)->name, "portable");
    assert_ptr_equal(kernels_select(NULL), kernels_at(best));
    assert_ptr_equal(kernels_select(""), kernels_at(best));
    assert_ptr_equal(kernels_select("nonsense"), kernels_at(0));
    for (size_t k = 0; k <= best; k++) assert_ptr_equal(kernels_select(kernels_at(k)->name), kernels_at(k));
    printf("kernel sets:");
    for (size_t k = 0; k <= best; k++) printf(" %s", kernels_at(k)->name);
    printf("\n");
}

/* ---- loading -------------------------------------------------------------------------------------------------------------------- */

static void test_widen(void **state)
{
    (void)state;
    static uint8_t stored[2 * 65536 + 64];
    static float x[65536];
    for (size_t k = 0; k < kernels_count(); k++) {
        for (size_t i = 0; i < 65536; i++) {
            stored[1 + 2 * i] = (uint8_t)i;
            stored[2 + 2 * i] = (uint8_t)(i >> 8);
        }
        assert_false(kernels_at(k)->widen_bf16(stored + 1, 65536, x));
        for (uint32_t i = 0; i < 65536; i++) assert_int_equal(f32_bits(x[i]), i << 16);
        for (size_t n = 0; n <= MOST; n++) {
            memset(stored, 0x3F, sizeof stored);
            x[n] = 77.0f;
            assert_true(kernels_at(k)->widen_bf16(stored + n % 7, n, x));
            assert_true(x[n] == 77.0f);
            if (n == 0) continue;
            stored[n % 7 + 2 * (n * 5 % n) + 1] = 0xFF; /* a NaN somewhere */
            stored[n % 7 + 2 * (n * 5 % n)] = 0x80;
            assert_false(kernels_at(k)->widen_bf16(stored + n % 7, n, x));
        }
    }
}

static void test_all_finite(void **state)
{
    (void)state;
    float x[MOST + 8];
    static const uint32_t bad[] = { 0x7F800000u, 0xFF800000u, 0x7F800001u, 0xFFFFFFFFu };
    for (size_t k = 0; k < kernels_count(); k++)
        for (size_t n = 0; n <= MOST; n++)
            for (size_t shift = 0; shift < 4; shift++) {
                for (size_t i = 0; i < MOST + 8; i++) x[i] = i % 2 ? 0x1.fffffep127f : -0x1.fffffep127f;
                x[shift + n] = NAN; /* just behind */
                assert_true(kernels_at(k)->all_finite(x + shift, n));
                for (size_t i = 0; i < n; i++) {
                    x[shift + i] = f32_from_bits(bad[i % 4]);
                    assert_false(kernels_at(k)->all_finite(x + shift, n));
                    x[shift + i] = 0;
                }
            }
}

static void test_ranges(void **state)
{
    (void)state;
    float x[MOST + 8];
    struct range got[MOST];
    uint64_t seed = 1;
    for (size_t k = 0; k < kernels_count(); k++)
        for (size_t n = 1; n <= MOST; n++)
            for (size_t group = 1; group <= n; group += 1 + group / 2)
                for (int kind = 0; kind < 3; kind++) {
                    fill(x, MOST + 8, kind, &seed);
                    if (n % 5 == 0)
                        for (size_t i = 0; i < MOST + 8; i++) x[i] = n % 2 ? -fabsf(x[i]) : fabsf(x[i]);
                    kernels_at(k)->ranges(x + n % 4, n, group, got);
                    for (size_t g = 0; g * group < n; g++) {
                        float min = 0, max = 0;
                        for (size_t i = g * group; i < n && i < (g + 1) * group; i++) {
                            min = x[n % 4 + i] < min ? x[n % 4 + i] : min;
                            max = x[n % 4 + i] > max ? x[n % 4 + i] : max;
                        }
                        assert_true(same(got[g].min, min) && same(got[g].max, max)); /* never -0 */
                    }
                }
}

/* ---- codes ---------------------------------------------------------------------------------------------------------------------- */

/* A scale for this element; number picks among ordinary and extreme ones. */
static struct group_scale scale_for(const struct elem *elem, size_t number)
{
    static const int32_t exponents[] = { 0, -5, -127, -126, -100, 60, 112 };
    static const float values[] = { 0.0625f, 0.0604248046875f, 0x1p-23f, 0.3466667f, 1e-3f, 0x1p90f, 3e30f };
    bool mx = elem->kind == ELEM_FLOAT || elem->fraction_bits > 0;
    struct group_scale scale = { .value = mx ? exact_exp2(exponents[number % 7]) : values[number % 7] };
    scale.bits = mx ? (uint32_t)(exponents[number % 7] + 127) : 0;
    if (elem->kind == ELEM_CODEBOOK && number % 3) scale.value = number % 3 == 1 ? -scale.value : 0.0f;
    scale.zero = elem->kind == ELEM_UNSIGNED ? (int32_t)(number * 7 % (1u << elem->bits)) : 0;
    return scale;
}

static uint32_t naive_code(const struct elem *elem, enum rounding rounding, const struct group_scale *scale, float x)
{
    if (elem->kind == ELEM_FLOAT) return elem_encode(elem, x * exact_exp2(127 - (int32_t)scale->bits), rounding);
    if (elem->kind == ELEM_CODEBOOK) return elem_encode(elem, scale->value == 0 ? 0.0f : x / scale->value, rounding);
    float step = scale->value * exact_exp2(-(int32_t)elem->fraction_bits);
    double code = (double)round_to_integer(fminf(fmaxf(x / step, -1e6f), 1e6f), rounding) + scale->zero;
    code = fmin(fmax(code, elem->code_min), elem->code_max);
    return (uint32_t)(int32_t)code & ((1u << elem->bits) - 1u);
}

static float naive_value(const struct elem *elem, const struct group_scale *scale, uint32_t code)
{
    return (elem_decode(elem, code) - (float)scale->zero) * scale->value;
}

static void check_codes(const struct kernels *kernels, const struct elem *elem, enum rounding rounding, const float *x, size_t n, size_t group,
                        const struct group_scale *scales)
{
    const struct groups groups = { n, group, scales };
    uint16_t codes[MOST + 1], codes_only[MOST + 1];
    float y[MOST + 1], decoded[MOST + 1];
    codes[n] = codes_only[n] = 0x5555;
    y[n] = decoded[n] = 77.0f;
    kernels->encode(elem, rounding, &groups, x, codes, y);
    kernels->encode(elem, rounding, &groups, x, codes_only, NULL);
    kernels->decode(elem, &groups, codes, decoded);
    assert_true(codes[n] == 0x5555 && codes_only[n] == 0x5555 && y[n] == 77.0f && decoded[n] == 77.0f);
    for (size_t i = 0; i < n; i++) {
        uint32_t code = naive_code(elem, rounding, &scales[i / group], x[i]);
        float value = naive_value(elem, &scales[i / group], code);
        if (codes[i] != code || codes_only[i] != code || !same(y[i], value) || !same(decoded[i], value))
            fail_msg("%s %s %s: %a under %a, zero %d: code %x, %x, values %a, %a; not %x, %a", kernels->name, elem->name, rounding_name(rounding),
                     (double)x[i], (double)scales[i / group].value, scales[i / group].zero, codes[i], codes_only[i], (double)y[i], (double)decoded[i],
                     code, (double)value);
    }
}

static void test_codes(void **state)
{
    (void)state;
    float x[MOST + 8];
    struct group_scale scales[MOST];
    uint64_t seed = 1;
    for (size_t k = 0; k < kernels_count(); k++)
        for (size_t e = 0; e < elem_count(); e++)
            for (size_t n = 0; n <= MOST; n++)
                for (int kind = 0; kind < 4; kind++) {
                    const size_t groups[] = { 1, 5, 16, 32, n ? n : 1 };
                    for (size_t g = 0; g < n; g++) scales[g] = scale_for(elem_at(e), kind < 2 ? 0 : (size_t)test_random(&seed) % 100);
                    fill(x, MOST + 8, kind, &seed);
                    check_codes(kernels_at(k), elem_at(e), (enum rounding)(kind == 0 ? n % ROUND_COUNT : ROUND_NEAREST_EVEN), x + n % 5, n,
                                groups[n % 5], scales);
                }
}

/* ---- errors --------------------------------------------------------------------------------------------------------------------- */

static float naive_term(const struct elem *elem, enum rounding rounding, const struct group_scale *scale, float unit, float x)
{
    uint32_t code = naive_code(elem, rounding, scale, x);
    float d = elem->kind == ELEM_FLOAT ? (x * exact_exp2(127 - (int32_t)scale->bits) - elem_decode(elem, code)) * (unit * scale->value)
                                       : (x - naive_value(elem, scale, code)) * unit;
    return d * d;
}

static float tree(float lanes[16])
{
    for (size_t width = 8; width > 0; width /= 2)
        for (size_t j = 0; j < width; j++) lanes[j] += lanes[j + width];
    return lanes[0];
}

/* n weights in two calls, the second one beginning in lane first mod 16; weights are NULL or not. */
static void check_error(const struct kernels *kernels, const struct elem *elem, enum rounding rounding, const struct group_scale *scale,
                        const float *x, const float *weight, size_t first, size_t n)
{
    struct error_sum sum = { .x = x, .weight = weight, .n = first, .unit = 0x1p-3f, .limit = HUGE_VALF };
    float lanes[16] = { 0 };
    memset(sum.lanes, 0x55, sizeof sum.lanes); /* first = 0 begins anew */
    kernels->error(elem, rounding, scale, &sum);
    sum.x = x + first;
    sum.weight = weight ? weight + first : NULL;
    sum.n = n - first;
    sum.first = (uint32_t)first;
    kernels->error(elem, rounding, scale, &sum);
    for (size_t i = 0; i < n; i++) {
        float t = naive_term(elem, rounding, scale, sum.unit, x[i]);
        lanes[i % 16] += weight ? t * weight[i] : t;
    }
    for (size_t j = 0; j < 16; j++)
        if (!same(sum.lanes[j], lanes[j]))
            fail_msg("%s %s: lane %zu of %zu + %zu: %a, not %a", kernels->name, elem->name, j, first, n - first, (double)sum.lanes[j],
                     (double)lanes[j]);
    assert_true(same(sum.total, tree(lanes)));
}

static void test_errors(void **state)
{
    (void)state;
    float x[200], weight[200];
    uint64_t seed = 1;
    for (size_t k = 0; k < kernels_count(); k++)
        for (size_t e = 0; e < elem_count(); e++)
            for (size_t n = 0; n <= 2 * MOST; n += 1 + n / MOST * 9)
                for (int kind = 0; kind < 4; kind++) {
                    if (kind == 2) continue; /* squares of any bits overflow */
                    const struct group_scale scale = scale_for(elem_at(e), n % 2);
                    fill(x, 200, kind == 1 ? 0 : kind, &seed);
                    fill(weight, 200, 0, &seed);
                    for (size_t i = 0; i < 200; i++) weight[i] = fabsf(weight[i]);
                    enum rounding rounding = (enum rounding)(n % 3 == 0 ? n % ROUND_COUNT : ROUND_NEAREST_EVEN);
                    check_error(kernels_at(k), elem_at(e), rounding, &scale, x + n % 4, kind == 1 ? weight : NULL, n * 7 % (n + 1), n);
                }
}

/* Many scales at once give what each of them gives, powers of two among them. */
static void test_many_scales(void **state)
{
    (void)state;
    static const float scales[] = { 1.0f, 0.0703125f, 3.25f, 0x1p-9f, 448.0f, 0x1p-3f, 0.1f, 0x1.fffffep-5f };
    enum { N_SCALES = sizeof scales / sizeof scales[0] };
    float x[128];
    uint64_t seed = 5;
    for (size_t k = 0; k < kernels_count(); k++)
        for (size_t e = 0; e < elem_count(); e++)
            for (size_t n = 16; n <= 128; n += 16) {
                const struct elem *elem = elem_at(e);
                float sums[N_SCALES];
                if (elem->kind != ELEM_FLOAT) continue;
                fill(x, n, 0, &seed);
                kernels_at(k)->errors(elem, x, n, scales, N_SCALES, 0x1p-4f, sums);
                for (size_t s = 0; s < N_SCALES; s++) {
                    const struct group_scale scale = { .value = scales[s] };
                    struct error_sum sum = { .x = x, .n = n, .unit = 0x1p-4f, .limit = HUGE_VALF };
                    kernels_at(0)->error(elem, ROUND_NEAREST_EVEN, &scale, &sum);
                    assert_true(same(sums[s], sum.total));
                }
            }
}

static void test_terms(void **state)
{
    (void)state;
    float x[MOST + 8], values[MOST], terms[MOST + 1];
    uint64_t seed = 1;
    for (size_t k = 0; k < kernels_count(); k++)
        for (size_t e = 0; e < elem_count(); e++)
            for (size_t n = 0; n <= MOST; n++) {
                const struct elem *elem = elem_at(e);
                const enum rounding rounding = (enum rounding)(n % ROUND_COUNT);
                if (elem->kind != ELEM_SIGNED) continue;
                fill(x, MOST + 8, n % 3 ? 0 : 3, &seed);
                for (size_t i = 0; i < n; i++) values[i] = exact_exp2((int32_t)(test_random(&seed) % 9) - 7);
                terms[n] = 77.0f;
                kernels_at(k)->terms(elem, rounding, values, 0x1p-3f, n, x + n % 5, terms);
                assert_true(terms[n] == 77.0f);
                for (size_t i = 0; i < n; i++)
                    assert_true(same(terms[i], naive_term(elem, rounding, &(struct group_scale){ .value = values[i] }, 0x1p-3f, x[n % 5 + i])));
            }
}

/* ---- MX search ------------------------------------------------------------------------------------------------------------------ */

static int naive_step(const struct elem *elem, const struct group_scale *floor, const float *x, size_t n)
{
    static const int steps[] = { 0, 1, -1 };
    float least = HUGE_VALF;
    int best = 0;
    for (size_t c = 0; c < 3; c++) {
        struct group_scale scale = { .bits = floor->bits + (uint32_t)steps[c], .value = ldexpf(floor->value, steps[c]) };
        float lanes[16] = { 0 }, unit = 1.0f / floor->value;
        for (size_t i = 0; i < n; i++) lanes[i % 16] += naive_term(elem, ROUND_NEAREST_EVEN, &scale, unit, x[i]);
        float error = tree(lanes);
        if (error < least) best = steps[c];
        if (error < least) least = error;
    }
    return best;
}

static void test_search(void **state)
{
    (void)state;
    static float x[ROOM];
    static struct range ranges[ROOM];
    static struct group_scale scales[ROOM];
    static int8_t steps[ROOM];
    uint64_t seed = 1;
    size_t chosen[3] = { 0 };
    for (size_t k = 0; k < kernels_count(); k++)
        for (size_t e = 0; e < elem_count(); e++)
            for (size_t round = 0; round < 24; round++) {
                const struct elem *elem = elem_at(e);
                const size_t group = 16 * (1 + round % 5), n_groups = round % 3 == 0 ? 1 : ROOM / group;
                if (elem->kind != ELEM_FLOAT && (elem->fraction_bits == 0 || elem->code_min != -elem->code_max)) continue;
                fill(x, ROOM, round % 4 == 3 ? 3 : 0, &seed);
                for (size_t i = 0; i < ROOM; i++)
                    x[i] = round % 4 == 1 ? x[i] * x[i] * x[i] : round % 4 == 2 ? x[i] * 0x1p-20f + (i % group ? 0.0f : 0.3f) : x[i];
                kernels_at(k)->ranges(x, n_groups * group, group, ranges);
                for (size_t g = 0; g < n_groups; g++) {
                    int32_t e0 = exact_ilog2(fmaxf(-ranges[g].min, ranges[g].max)) - elem->emax;
                    scales[g] = (struct group_scale){ .bits = (uint32_t)(e0 + 127), .value = exact_exp2(e0) };
                }
                const struct groups groups = { n_groups * group, group, scales };
                kernels_at(k)->search(elem, &groups, ranges, x, steps);
                for (size_t g = 0; g < n_groups; g++) {
                    int want = naive_step(elem, &scales[g], x + g * group, group);
                    if (steps[g] != want) fail_msg("%s %s: group %zu: step %d, not %d", kernels_at(k)->name, elem->name, g, steps[g], want);
                    chosen[want + 1]++;
                }
            }
    assert_true(chosen[0] > 0 && chosen[1] > 0 && chosen[2] > 0);
}

/* ---- measuring ------------------------------------------------------------------------------------------------------------------ */

static bool near(double a, double b, double tolerance)
{
    return a == b || fabs(a - b) <= tolerance * fabs(b);
}

static void check_measure(const float *x, const float *y, size_t n)
{
    struct measure first = { 0 }, sums = { .n = n };
    for (size_t i = 0; i < n; i++) {
        double a = (double)x[i], b = (double)y[i], d = (double)(x[i] - y[i]);
        sums.sum_xx += a * a;
        sums.sum_yy += b * b;
        sums.sum_xy += a * b;
        sums.sum_dd += d * d;
        sums.max_d = fmax(sums.max_d, fabs(d));
    }
    for (size_t k = 0; k < kernels_count(); k++) {
        struct measure got = { 0 };
        kernels_at(k)->measure(x, y, n, &got);
        if (k == 0) first = got;
        assert_memory_equal(&got, &first, sizeof got);
    }
    assert_int_equal(first.n, n);
    assert_true(first.max_d == sums.max_d);
    assert_true(near(first.sum_xx, sums.sum_xx, 1e-6));
    assert_true(near(first.sum_yy, sums.sum_yy, 1e-6));
    assert_true(near(first.sum_dd, sums.sum_dd, 1e-6));
    assert_true(fabs(first.sum_xy - sums.sum_xy) <= 1e-6 * (sums.sum_xx + sums.sum_yy));
}

static void test_measure(void **state)
{
    (void)state;
    static float x[2000], y[2000];
    static const float units[] = { 1.0f, 0x1p-60f, 0x1p-75f, 0x1p-120f, 0x1p-140f, 0x1p60f, 0x1p100f };
    static const float errors[] = { 0.0f, 0.01f, 1e-6f, 0.3f };
    uint64_t seed = 1;
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++)
        for (size_t e = 0; e < sizeof errors / sizeof errors[0]; e++)
            for (size_t n = 0; n < 2000; n += n <= MOST ? 1 : 123) {
                fill(x, 2000, 0, &seed);
                fill(y, 2000, 0, &seed);
                for (size_t i = 0; i < 2000; i++) {
                    x[i] *= i % 300 < 3 ? units[u] * 100.0f : units[u];
                    y[i] = i % 7 ? x[i] + x[i] * errors[e] * y[i] : x[i];
                }
                check_measure(x + n % 4, y + n % 3 % (n % 4 + 1), n);
            }
    x[0] = 3.0f, x[1] = 4.0f, y[0] = 3.0f, y[1] = 0.0f;
    struct measure measure = { 0 };
    kernels_at(0)->measure(x, y, 2, &measure);
    assert_true(measure.sum_xx == 25 && measure.sum_yy == 9 && measure.sum_xy == 9 && measure.sum_dd == 16 && measure.max_d == 4);
}

/* ---- BF16 straight to MXFP4 and back -------------------------------------------------------------------------------------------- */

static const struct quant *mxfp4_with(enum scale_rule rule)
{
    static struct quant quant;
    struct err err;
    assert_ok(quant_parse("mxfp4", NULL, &quant, &err));
    quant.rule = rule;
    return &quant;
}

/* Groups of 32: the largest number first, then smaller ones, 0 and -0 among them. */
static void make_group(uint16_t largest, uint16_t *x, uint64_t *seed)
{
    for (size_t i = 0; i < 32; i++) {
        uint64_t r = test_random(seed);
        uint32_t size = r % 8 == 0 ? 0 : (uint32_t)(r >> 8) % ((largest & 0x7FFFu) + 1u);
        if (r % 8 < 5) size = (largest & 0x7FFFu) > (r >> 40) % 700 ? (largest & 0x7FFFu) - (uint32_t)((r >> 40) % 700) : 0;
        x[i] = (uint16_t)(size | (r & 16u ? 0x8000u : 0u));
    }
    x[largest % 32] = largest;
}

static void check_fused(const uint16_t *bf16, size_t n_groups, enum scale_rule rule)
{
    static uint8_t codes[ROOM], scales[ROOM], stored[2 * ROOM + 1];
    static float x[ROOM], y[ROOM], fused_y[ROOM];
    static uint16_t want[ROOM];
    static struct group_scale want_scales[ROOM];
    const size_t n = 32 * n_groups;
    memcpy(stored + 1, bf16, 2 * n);
    for (size_t i = 0; i < n; i++) x[i] = bf16_to_f32(bf16[i]);
    assert_int_equal(quant_encode(mxfp4_with(rule), kernels_at(0), x, NULL, n, 32, want_scales, want, y), n_groups);
    for (size_t k = 0; k < kernels_count(); k++) {
        assert_true(kernels_at(k)->mxfp4_bf16(stored + 1, n_groups, rule, codes, scales));
        for (size_t g = 0; g < n_groups; g++)
            if (scales[g] != want_scales[g].bits)
                fail_msg("%s %s: scale of %04x: %d, not %d", kernels_at(k)->name, scale_rule_name(rule), bf16[32 * g], scales[g],
                         (int)want_scales[g].bits);
        for (size_t i = 0; i < n; i++)
            if ((codes[i / 2] >> 4 * (i % 2) & 15) != want[i])
                fail_msg("%s %s: code of %04x under %d", kernels_at(k)->name, scale_rule_name(rule), bf16[i], scales[i / 32]);
        kernels_at(k)->mxfp4_f32(codes, scales, n_groups, fused_y);
        assert_memory_equal(fused_y, y, n * sizeof *y);
    }
}

static void test_fused(void **state)
{
    (void)state;
    static uint16_t x[ROOM];
    uint64_t seed = 1;
    for (int rule = RULE_FLOOR; rule <= RULE_RCEIL; rule++)
        for (uint32_t largest = 0, g = 0; largest < 65536; largest++) {
            if ((largest & 0x7FFFu) < 0x7F80u) make_group((uint16_t)largest, x + 32 * g++, &seed);
            if (g == ROOM / 32 || largest == 65535) check_fused(x, g, (enum scale_rule)rule);
            if (g == ROOM / 32) g = 0;
        }
}

static void test_fused_nonfinite(void **state)
{
    (void)state;
    uint16_t x[96];
    uint8_t codes[48], scales[3];
    static const uint16_t bad[] = { 0x7F80, 0xFF80, 0x7F81, 0xFFFF };
    for (size_t k = 0; k < kernels_count(); k++)
        for (size_t i = 0; i < 96; i++) {
            for (size_t j = 0; j < 96; j++) x[j] = 0x7F7F;
            assert_true(kernels_at(k)->mxfp4_bf16((const uint8_t *)x, 3, RULE_EVEN, codes, scales));
            x[i] = bad[i % 4];
            assert_false(kernels_at(k)->mxfp4_bf16((const uint8_t *)x, 3, RULE_EVEN, codes, scales));
        }
}

static void test_back_to_f32(void **state)
{
    (void)state;
    uint8_t codes[16 * 256], scales[256];
    static float y[32 * 256];
    for (size_t i = 0; i < sizeof codes; i++) codes[i] = (uint8_t)(i * 7 + i / 256);
    for (size_t i = 0; i < 256; i++) scales[i] = (uint8_t)i;
    for (size_t k = 0; k < kernels_count(); k++) {
        kernels_at(k)->mxfp4_f32(codes, scales, 256, y);
        for (size_t i = 0; i < 32 * 256; i++)
            assert_true(
                same(y[i], elem_decode(&elem_rows[ELEM_E2M1], (uint32_t)codes[i / 2] >> 4 * (i % 2) & 15u) * scale_load(SCALE_E8M0, scales[i / 32])));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_select),     cmocka_unit_test(test_widen),       cmocka_unit_test(test_all_finite),
                                        cmocka_unit_test(test_ranges),     cmocka_unit_test(test_codes),       cmocka_unit_test(test_errors),
                                        cmocka_unit_test(test_terms),      cmocka_unit_test(test_many_scales), cmocka_unit_test(test_search),
                                        cmocka_unit_test(test_measure),    cmocka_unit_test(test_fused),       cmocka_unit_test(test_fused_nonfinite),
                                        cmocka_unit_test(test_back_to_f32) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
