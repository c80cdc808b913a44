/* test_elem.c: every element, every code, every rounding; then the vector kernels against elem.c.
 *
 * Formula: the code of u is that of the nearest value among the sorted values of all codes; at equal distance the mode decides.
 * Why this way: a sorted list of values needs no exponent, no grid and no bit trick.
 * Corner cases: midpoints and their f32 neighbours, both signs, -0, subnormals, beyond the largest value, NaN and Inf codes, all 65536 BF16 patterns.
 * Reference: NUMERICS.md 1, 2.
 */
#include "support/support.h"

#include <math.h>

#include "number/half.h"
#include "number/kernel.h"

/* The values an encoder may choose from, rising; the odd one of two neighbours is known by its code. */
struct ladder {
    const struct elem *elem;
    size_t n;
    struct rung {
        double value;
        uint32_t code; /* magnitudes of floats: positive codes; integers: the code */
    } rungs[1 << 16];
};

static int compare_rungs(const void *a, const void *b)
{
    const double x = ((const struct rung *)a)->value, y = ((const struct rung *)b)->value;
    return (x > y) - (x < y);
}

/* The values of all codes that an encoder may write, ascending. The ladder is the same one each time. */
static const struct ladder *make_ladder(const struct elem *elem)
{
    static struct ladder ladder;
    ladder.elem = elem;
    ladder.n = 0;
    for (uint32_t code = 0; code < 1u << elem->bits; code++) {
        const double value = (double)elem_decode(elem, code), steps = value * exp2(elem->fraction_bits);
        const bool is_integer = elem->kind == ELEM_SIGNED || elem->kind == ELEM_UNSIGNED;
        const bool written = is_integer ? steps >= elem->code_min && steps <= elem->code_max : isfinite(value) && !(signbit(value) && value == 0);
        if (written) ladder.rungs[ladder.n++] = (struct rung){ value, code };
    }
    qsort(ladder.rungs, ladder.n, sizeof ladder.rungs[0], compare_rungs);
    return &ladder;
}

/* True when u, between the neighbours low and high, goes to high. */
static bool goes_up(const struct elem *elem, double u, double low, double high, bool low_even, enum rounding rounding)
{
    if (elem->kind == ELEM_CODEBOOK) return u - low > high - u; /* whatever the rounding */
    if (rounding == ROUND_TRUNCATE) return low < 0 && u > low; /* 0 is a value, so both have the same sign or are 0 */
    double below = u - low, above = high - u;
    if (below != above) return below > above;
    if (rounding == ROUND_AWAY) return low >= 0;
    return rounding == ROUND_UP || !low_even;
}

/* The last rung not above u, or the first one. */
static size_t rung_below(const struct ladder *ladder, double u)
{
    size_t low = 0, high = ladder->n;
    while (high - low > 1) {
        const size_t middle = (low + high) / 2;
        if (ladder->rungs[middle].value <= u) low = middle;
        else high = middle;
    }
    return low;
}

static uint32_t nearest(const struct ladder *ladder, float x, enum rounding rounding)
{
    const struct elem *elem = ladder->elem;
    const double u = (double)x;
    size_t i = rung_below(ladder, u);
    const struct rung *low = &ladder->rungs[i];
    if (u > low->value && i + 1 < ladder->n) i += goes_up(elem, u, low->value, low[1].value, !(low->code & 1u), rounding);
    uint32_t code = ladder->rungs[i].code;
    if (elem->kind != ELEM_FLOAT) return code;
    uint32_t sign_bit = 1u << (elem->bits - 1);
    return (code & ~sign_bit) | (signbit(x) ? sign_bit : 0u);
}

static void check(const struct ladder *ladder, float u)
{
    for (int r = 0; r < ROUND_COUNT; r++) {
        uint32_t got = elem_encode(ladder->elem, u, (enum rounding)r), want = nearest(ladder, u, (enum rounding)r);
        if (got != want) fail_msg("%s %s of %a: code %x, not %x", ladder->elem->name, rounding_name((enum rounding)r), (double)u, got, want);
    }
}

static void check_near(const struct ladder *ladder, double u)
{
    check(ladder, (float)u);
    check(ladder, nextafterf((float)u, HUGE_VALF));
    check(ladder, nextafterf((float)u, -HUGE_VALF));
}

static void test_facts(void **state)
{
    (void)state;
    for (size_t e = 0; e < elem_count(); e++) {
        const struct elem *elem = elem_at(e);
        const struct ladder *ladder = make_ladder(elem);
        assert_ptr_equal(elem_find(elem->name), elem);
        assert_true((double)elem->max == ladder->rungs[ladder->n - 1].value);
        assert_int_equal(elem->emax, exact_ilog2(elem->max));
        if (elem->kind == ELEM_FLOAT) assert_int_equal(1 + elem->exp_bits + elem->man_bits, elem->bits);
    }
    assert_null(elem_find("e2m2"));
    assert_null(elem_find(""));
}

/* Every code that an encoder may write decodes to a number that encodes to that code, whatever the rounding. */
static void test_round_trip(void **state)
{
    (void)state;
    for (size_t e = 0; e < elem_count(); e++) {
        const struct elem *elem = elem_at(e);
        for (uint32_t code = 0; code < 1u << elem->bits; code++) {
            float value = elem_decode(elem, code);
            assert_true(f32_bits(elem_decode(elem, code | 1u << elem->bits)) == f32_bits(value)); /* higher bits do not count */
            if (!isfinite(value)) continue;
            for (int r = 0; r < ROUND_COUNT; r++) {
                const bool lowest = elem->kind == ELEM_SIGNED && code == 1u << (elem->bits - 1),
                           unwritten = lowest && elem->code_min == -elem->code_max;
                const bool negative_zero = elem->kind == ELEM_CODEBOOK && value == 0 && signbit(value);
                assert_int_equal(elem_encode(elem, value, (enum rounding)r), negative_zero ? 0 : unwritten ? code + 1 : code);
            }
        }
    }
}

static void test_nearest(void **state)
{
    (void)state;
    static const float extremes[] = { 0.0f, 0x1p-149f, 0x1p-126f, 0x1.fffffep-127f, 1e6f, 0x1p31f, 0x1p32f, 0x1.fffffep127f };
    for (size_t e = 0; e < elem_count(); e++) {
        const struct ladder *ladder = make_ladder(elem_at(e));
        const struct rung *rungs = ladder->rungs;
        uint64_t seed = e + 1;
        for (size_t i = 0; i < ladder->n; i++) {
            check_near(ladder, rungs[i].value);
            if (i + 1 < ladder->n) check_near(ladder, (rungs[i].value + rungs[i + 1].value) / 2);
        }
        double span = rungs[ladder->n - 1].value * 1.25, step = span / 8192;
        for (double u = -span; u <= span; u += step) check(ladder, (float)u);
        for (size_t i = 0; i < sizeof extremes / sizeof extremes[0]; i++) {
            check(ladder, extremes[i]);
            check(ladder, -extremes[i]);
        }
        for (size_t i = 0; i < 20000; i++) {
            float u = f32_from_bits((uint32_t)test_random(&seed));
            if (isfinite(u)) check(ladder, u);
        }
    }
}

static void test_exact_powers(void **state)
{
    (void)state;
    for (int32_t e = -160; e <= 140; e++) assert_true(exact_exp2(e) == ldexpf(1.0f, e));
    assert_int_equal(exact_ilog2(0.0f), -150);
    uint64_t seed = 1;
    for (size_t i = 0; i < 1000000; i++) {
        float a = f32_from_bits((uint32_t)test_random(&seed) & 0x7FFFFFFFu);
        if (isfinite(a) && a > 0) assert_int_equal(exact_ilog2(a), ilogbf(a));
    }
    for (int32_t e = -149; e <= 127; e++) {
        assert_int_equal(exact_ilog2(exact_exp2(e)), e);
        if (e > -149) assert_int_equal(exact_ilog2(nextafterf(exact_exp2(e), 0.0f)), e - 1);
    }
}

/* ---- kernels -------------------------------------------------------------------------------------------------------------------- */

/* Codes of n numbers under a scale of 1 equal elem_encode's, and decode to elem_decode's. A zero point of 0 keeps unsigned integers comparable. */
static void check_kernel(const struct elem *elem, const struct kernels *kernels, enum rounding rounding, const float *x, size_t n)
{
    const struct group_scale one = { .bits = 127, .value = 1.0f };
    const struct groups groups = { n, n, &one };
    static uint16_t codes[65536];
    static float y[65536], decoded[65536];
    kernels->encode(elem, rounding, &groups, x, codes, y);
    kernels->decode(elem, &groups, codes, decoded);
    for (size_t i = 0; i < n; i++) {
        uint32_t want = elem_encode(elem, x[i], rounding), bits = f32_bits(elem_decode(elem, want));
        if (codes[i] != want)
            fail_msg("%s %s %s: %a gives %x, not %x", kernels->name, elem->name, rounding_name(rounding), (double)x[i], codes[i], want);
        if (f32_bits(y[i]) != bits || f32_bits(decoded[i]) != bits)
            fail_msg("%s %s: code %x gives %a and %a", kernels->name, elem->name, want, (double)y[i], (double)decoded[i]);
    }
}

static void test_kernels(void **state)
{
    (void)state;
    static float x[65536];
    for (size_t e = 0; e < elem_count(); e++)
        for (size_t k = 0; k < kernels_count(); k++) {
            const struct elem *elem = elem_at(e);
            uint64_t seed = e + 1;
            for (size_t i = 0; i < 65536; i++) x[i] = (i >> 7 & 255) == 255 ? 0.0f : bf16_to_f32((uint16_t)i);
            for (int r = 0; r < ROUND_COUNT; r++) check_kernel(elem, kernels_at(k), (enum rounding)r, x, 65536);
            for (size_t round = 0; round < 32; round++) {
                float span = elem->max * (round % 2 ? 1.5f : 0x1p-6f);
                for (size_t i = 0; i < 65536; i++) {
                    uint32_t bits = (uint32_t)test_random(&seed);
                    x[i] = round % 4 < 2 ? ((float)(bits >> 8) * 0x1p-23f - 1.0f) * span : f32_from_bits(bits & 0xBFFFFFFFu);
                }
                check_kernel(elem, kernels_at(k), ROUND_NEAREST_EVEN, x, 65536);
            }
        }
}

static void test_kernel_decodes(void **state)
{
    (void)state;
    static uint16_t codes[1 << 16];
    static float y[1 << 16];
    const struct group_scale scale = { .bits = 130, .value = 8.0f };
    for (size_t e = 0; e < elem_count(); e++)
        for (size_t k = 0; k < kernels_count(); k++) {
            const struct elem *elem = elem_at(e);
            const struct groups groups = { (size_t)1 << elem->bits, (size_t)1 << elem->bits, &scale };
            for (size_t i = 0; i < groups.n; i++) codes[i] = (uint16_t)i;
            kernels_at(k)->decode(elem, &groups, codes, y);
            for (size_t i = 0; i < groups.n; i++) {
                float want = elem_decode(elem, (uint32_t)i) * 8.0f;
                if (isnan(want) ? !isnan(y[i]) : f32_bits(want) != f32_bits(y[i]))
                    fail_msg("%s %s: code %zx gives %a", kernels_at(k)->name, elem->name, i, (double)y[i]);
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_facts),        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_exact_powers), cmocka_unit_test(test_kernels),    cmocka_unit_test(test_kernel_decodes)
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
