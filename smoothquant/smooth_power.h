/* smooth_power.h: logarithms, exponentials and powers of positive numbers, the same bits on every machine.
 *
 *   x = 2^e * m, m in [sqrt(1/2), sqrt(2))     log2 x = e + log2 m     x^a = 2^(a e + a log2 m) = 2^n * 2^f, f in [-1/2, 1/2]
 *
 * Why this way: smoothing factors decide bytes, and pow of two C libraries, or of two processors under one, may differ in the last bit. Here is nothing
 * but + - * / of binary64. The integer part of the logarithm is kept apart: (c x)^a = c^a x^a to the last bit where c and c^a are powers of two.
 * Corner cases: 0^0 = 1, 0^a = 0; results beyond binary32 are Inf, below it subnormal or 0, each rounded once; NaN, Inf and negative numbers are not
 * taken. The error before the one rounding to binary32 is below 2^-44 of the result.
 * Reference: atanh series of the logarithm, Taylor series of the exponential. Worked number: 2^0.5 = 1.41421354 (0x3fb504f3).
 */
#ifndef LLMQ_SMOOTHQUANT_SMOOTH_POWER_H
#define LLMQ_SMOOTHQUANT_SMOOTH_POWER_H

#include <stdint.h>

/* log2 of a positive finite number in two parts: *e whole, the fraction returned in [-1/2, 1/2). */
double smooth_log2(double x, int32_t *e);

/* 2^(e + fraction), rounded to binary32 once; |fraction| < 2^20. */
float smooth_exp2(int32_t e, double fraction);

/* x^a for x >= 0 finite, -4 <= a <= 4, rounded to binary32 once. */
float smooth_pow(float x, double a);

#endif
