/* round.h: the four rounding modes, exact on f32.
 *
 *   nearest-even  -2.5 -> -2     away  -2.5 -> -3     up  -2.5 -> -2     truncate  -2.5 -> -2
 *
 * Why this way: decided on the exact fraction u - trunc(u), never on u + 0.5, which is itself rounded (0.49999997 + 0.5 is 1).
 * Corner cases: |u| >= 2^23 is already an integer; the sign of zero is not kept.
 * Reference: NUMERICS.md 1.
 */
#ifndef LLMQ_NUMBER_ROUND_H
#define LLMQ_NUMBER_ROUND_H

#include <math.h>

enum rounding { ROUND_NEAREST_EVEN, ROUND_AWAY, ROUND_UP, ROUND_TRUNCATE, ROUND_COUNT };

/* Name as users write it ("nearest-even"), or the mode of a name (ROUND_COUNT when unknown). */
const char *rounding_name(enum rounding rounding);
enum rounding rounding_find(const char *name);

/* u rounded to an integer. */
static inline float round_to_integer(float u, enum rounding rounding)
{
    float whole = truncf(u);
    float part = u - whole; /* exact, |part| < 1, sign of u */
    float sign = u < 0.0f ? -1.0f : 1.0f;
    float size = fabsf(part);
    switch (rounding) {
    case ROUND_AWAY:
        return size >= 0.5f ? whole + sign : whole;
    case ROUND_UP:
        return (sign > 0.0f ? size >= 0.5f : size > 0.5f) ? whole + sign : whole;
    case ROUND_TRUNCATE:
        return whole;
    case ROUND_NEAREST_EVEN:
    case ROUND_COUNT:
        break;
    }
    if (size == 0.5f) return fmodf(whole, 2.0f) == 0.0f ? whole : whole + sign;
    return size > 0.5f ? whole + sign : whole;
}

#endif
