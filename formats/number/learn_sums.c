/* learn_sums.c: see learn_sums.h.
 *
 * Formula: u = clamp(fl(x / s), low - 1, high + 1), r = R(u), q = clamp(r, low, high), low and high being the ends of code - zero; out = (r != q) as 0 or
 * 1; d = fl(x - fl(q * s)); t = (w * d) * d in binary64; clipped += t * out, inside += t * (1 - out), cross += (w * d) * (q * out).
 * Why this way: one body of plain C without branches, 16 weights at a time, compiled for each instruction set by function-level targets (as
 * kernel_body.h); products with 0 and 1 are exact, so the selection costs no second rounding.
 * Corner cases: the clamp to one code beyond the ends keeps r != q where it was so, and keeps u small enough for round_even; what is no whole chunk is
 * padded with weights 0, whose terms are 0.
 * Reference: NUMERICS_LEARNED.md 3. Worked number: s = 0.25, x = 2.6, int4: u = 10.4 -> 8, q = 7, d = 0.85, out 1.
 */
#include "number/learn_sums.h"

#include <stdbool.h>

#include "number/chunk.h"

#if defined(__GNUC__)
#define EVERYWHERE static inline __attribute__((always_inline))
#else
#define EVERYWHERE static inline
#endif

/* Lanes of the sums. */
struct sum_lanes {
    double a[CHUNK], b[CHUNK], c[CHUNK];
};

/* r, q of a weight and the rest d under one scale. */
struct rounded {
    float q[CHUNK], out[CHUNK], d[CHUNK];
};

struct bounds {
    float scale, low, high;
    enum rounding rounding;
};

EVERYWHERE void round_chunk(const struct bounds *bounds, bool even, const float *x, struct rounded *to)
{
    const float scale = bounds->scale, low = bounds->low, high = bounds->high;
    LANES
    for (size_t j = 0; j < CHUNK; j++) {
        const float u = clamp(x[j] / scale, low - 1.0f, high + 1.0f);
        const float r = even ? round_even(u) : round_to_integer(u, bounds->rounding);
        const float q = clamp(r, low, high);
        to->q[j] = q;
        to->out[j] = r != q ? 1.0f : 0.0f;
        to->d[j] = x[j] - q * scale;
    }
}

EVERYWHERE void add_loss(const struct rounded *from, const float *weight, bool slope, struct sum_lanes *lanes)
{
    LANES
    for (size_t j = 0; j < CHUNK; j++) {
        const double d = (double)from->d[j], out = (double)from->out[j], wd = weight ? (double)weight[j] * d : d, t = wd * d;
        lanes->a[j] += t * (1.0 - out);
        lanes->b[j] += t * out;
        if (slope) lanes->c[j] += wd * ((double)from->q[j] * out);
    }
}

EVERYWHERE void add_fit(const struct rounded *from, const float *x, const float *weight, struct sum_lanes *lanes)
{
    LANES
    for (size_t j = 0; j < CHUNK; j++) {
        const double q = (double)from->q[j], wq = weight ? (double)weight[j] * q : q;
        lanes->a[j] += wq * (double)x[j];
        lanes->b[j] += wq * q;
    }
}

enum wanted { WANT_LOSS, WANT_SLOPE, WANT_FIT };

EVERYWHERE void add_chunk(const struct bounds *bounds, bool even, enum wanted wanted, const float *x, const float *weight, struct sum_lanes *lanes)
{
    struct rounded rounded;
    round_chunk(bounds, even, x, &rounded);
    if (wanted == WANT_FIT) add_fit(&rounded, x, weight, lanes);
    else add_loss(&rounded, weight, wanted == WANT_SLOPE, lanes);
}

EVERYWHERE void add_span(const struct bounds *bounds, bool even, enum wanted wanted, const float *x, const float *weight, size_t n,
                         struct sum_lanes *lanes)
{
    float tail_x[CHUNK] = { 0 }, tail_weight[CHUNK] = { 0 };
    const size_t whole = n - n % CHUNK;
    for (size_t i = 0; i < whole; i += CHUNK) add_chunk(bounds, even, wanted, x + i, weight ? weight + i : NULL, lanes);
    if (whole == n) return;
    for (size_t i = whole; i < n; i++) {
        tail_x[i - whole] = x[i];
        if (weight) tail_weight[i - whole] = weight[i];
    }
    add_chunk(bounds, even, wanted, tail_x, weight ? tail_weight : NULL, lanes);
}

EVERYWHERE void sums_body(enum wanted wanted, const struct fakequant *codes, float scale, const float *x, const float *weight, size_t n,
                          struct learn_sums *sums)
{
    const struct bounds bounds = { scale, (float)(codes->code_min - codes->zero), (float)(codes->code_max - codes->zero), codes->rounding };
    struct sum_lanes lanes = { { 0 }, { 0 }, { 0 } };
    if (codes->rounding != ROUND_NEAREST_EVEN) add_span(&bounds, false, wanted, x, weight, n, &lanes);
    else if (weight) add_span(&bounds, true, wanted, x, weight, n, &lanes);
    else add_span(&bounds, true, wanted, x, NULL, n, &lanes);
    const double a = fakequant_lane_sum(lanes.a), b = fakequant_lane_sum(lanes.b);
    if (wanted == WANT_FIT) {
        sums->xq += a;
        sums->qq += b;
        return;
    }
    sums->inside += a;
    sums->clipped += b;
    if (wanted == WANT_SLOPE) sums->cross += fakequant_lane_sum(lanes.c);
}

#define SUMS(name, target, wanted)                                                                                                                   \
    target static void name(const struct fakequant *codes, float scale, const float *x, const float *weight, size_t n, struct learn_sums *sums)      \
    {                                                                                                                                                \
        sums_body(wanted, codes, scale, x, weight, n, sums);                                                                                         \
    }
#define SUMS_OF_LEVEL(level, target) SUMS(loss_##level, target, WANT_LOSS) SUMS(slope_##level, target, WANT_SLOPE) SUMS(fit_##level, target, WANT_FIT)
#define NO_TARGET

SUMS_OF_LEVEL(portable, NO_TARGET)

#if defined(__x86_64__) && defined(__GNUC__)
#define TARGET_AVX2 __attribute__((target("avx2")))
#define TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
SUMS_OF_LEVEL(avx2, TARGET_AVX2)
SUMS_OF_LEVEL(avx512, TARGET_AVX512)
#endif

static const struct learn_eval levels[] = {
    { "portable", loss_portable, slope_portable, fit_portable },
#if defined(__x86_64__) && defined(__GNUC__)
    { "avx2", loss_avx2, slope_avx2, fit_avx2 },
    { "avx512", loss_avx512, slope_avx512, fit_avx512 },
#endif
};

const struct learn_eval *learn_eval_for(const struct kernels *kernels)
{
    for (size_t i = 0; kernels && i < sizeof levels / sizeof levels[0]; i++)
        if (strcmp(levels[i].level, kernels->name) == 0) return &levels[i];
    return &levels[0];
}
