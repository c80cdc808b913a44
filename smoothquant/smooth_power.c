/* smooth_power.c: see smooth_power.h.
 *
 * Formula: log2 m = 2 / ln 2 * (z + z^3/3 + ... + z^23/23), z = (m - 1) / (m + 1), |z| <= 0.1716
 *          2^f = sum of (f ln 2)^k / k!, k = 0 .. 15, |f| <= 1/2
 * Why this way: see smooth_power.h; series are enough where a call is one channel and not one weight.
 * Corner cases: a result of more than 2^128 is Inf, of less than 2^-151 is 0; subnormal results are rounded once, from binary64.
 * Reference: truncation: z^25/25 < 2^-68, (ln 2 / 2)^16 / 16! < 2^-68. Worked number: log2 10 = 3 + 0.3219280948873623.
 */
#include "smoothquant/smooth_power.h"

#include <math.h>
#include <string.h>

#define LN2 0.6931471805599453
#define TWO_OVER_LN2 2.8853900817779268
#define SQRT2 1.4142135623730951

static uint64_t bits_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* 2^e, -1022 <= e <= 1023. */
static double two_to(int32_t e)
{
    const uint64_t bits = (uint64_t)(e + 1023) << 52;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* x = m * 2^*e, m in [1, 2). */
static double split(double x, int32_t *e)
{
    int32_t lift = 0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        lift = 54;
    }
    const int32_t field = (int32_t)(bits_of(x) >> 52 & 0x7ff);
    *e = field - 1023 - lift;
    return x * two_to(1023 - field > -1022 ? 1023 - field : -1022) * (1023 - field > -1022 ? 1.0 : 0.5);
}

double smooth_log2(double x, int32_t *e)
{
    double m = split(x, e), sum = 0.0;
    if (m >= SQRT2) {
        m *= 0.5;
        ++*e;
    }
    const double z = (m - 1.0) / (m + 1.0), z2 = z * z;
    for (int k = 23; k >= 1; k -= 2) sum = sum * z2 + 1.0 / k;
    return TWO_OVER_LN2 * (z * sum);
}

float smooth_exp2(int32_t e, double fraction)
{
    const int32_t whole = (int32_t)(fraction + (fraction < 0.0 ? -0.5 : 0.5));
    const double y = (fraction - whole) * LN2;
    double sum = 1.0;
    for (int k = 15; k >= 1; k--) sum = 1.0 + sum * (y / k);
    const int64_t exponent = (int64_t)e + whole;
    if (exponent > 129) return HUGE_VALF;
    return exponent < -152 ? 0.0f : (float)(sum * two_to((int32_t)exponent));
}

float smooth_pow(float x, double a)
{
    int32_t e;
    if (!(x > 0.0f)) return a > 0.0 ? 0.0f : a < 0.0 ? HUGE_VALF : 1.0f;
    const double fraction = smooth_log2((double)x, &e), whole = a * e, below = floor(whole);
    return smooth_exp2((int32_t)below, (whole - below) + a * fraction);
}
