/* weights.h: made-up weights of four shapes, from integers alone, the same on every machine.
 *
 *   gauss    sum of 12 uniform integers of 16 bits, less 393210                                             sigma 2^16
 *   laplace  sign * (k * 2^16 + u), k and u by von Neumann's comparisons                                    mean of |v| 2^16
 *   t5       (g << 16) / isqrt((g1^2 + .. + g5^2) / 5) of six gauss, clamped to 24 bits                     scale 2^16
 *   outlier  gauss, and in each 128 weights one, at a drawn place, times 16
 *   weight = v * 2^-22, exact in binary32 as |v| < 2^24
 *
 * Why this way: no logarithm, no square root of a library, no float but the last product with a power of two; so a table of hashes made from these
 * weights is one of the code under test alone. Von Neumann: an exponential number needs only comparisons: draw u, then a chain u > u1 > u2 .. as long
 * as it falls; a chain of odd length (u counted) accepts k + u, an even one adds 1 to k and begins anew.
 * Corner cases: t5's divisor is at least 1; the generator is test_random (xorshift64*), uniform numbers of 16 bits are taken from the top.
 * Reference: J. von Neumann, Various techniques used in connection with random digits, 1951. Worked number: v = 2^16 is the weight 2^-6.
 */
#ifndef LLMQ_TESTS_WEIGHTS_H
#define LLMQ_TESTS_WEIGHTS_H

#include <stddef.h>
#include <stdint.h>

enum weights_kind { WEIGHTS_GAUSS, WEIGHTS_LAPLACE, WEIGHTS_T5, WEIGHTS_OUTLIER, WEIGHTS_KINDS };

const char *weights_name(enum weights_kind kind); /* "gauss" */

/* n weights; seed is any number but 0. */
void weights_make(enum weights_kind kind, uint64_t seed, size_t n, float *x);

#endif
