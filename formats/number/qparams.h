/* qparams.h: scale and zero point from a clip range: one rule for every kind of element.
 *
 *   (min, max) --include 0--> (a, b) --rule--> scale, zero        symmetric int4, amax 2.6: 2.6 / 7.5 = 0.346666654, zero 0
 *
 * Why this way: observers differ in how they find a range, never in what follows from it, so that what follows stands in one function.
 * Corner cases: a range never observed (min > max) gives scale 1, zero 0; an integer scale is never below 2^-23, a float scale of 0 becomes 2^-23; a
 * span beyond the largest f32 gives a scale of Inf, which the caller refuses.
 * Reference: NUMERICS_OBSERVERS.md 1. Answers to UniformScalingObserver.calculate_qparams, and to MinMaxQuant and ApproxQuantizer (half-range rule
 * int_max; their scale_factor is 1 / scale).
 */
#ifndef LLMQ_NUMBER_QPARAMS_H
#define LLMQ_NUMBER_QPARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "number/elem.h"
#include "number/scale.h"

/* What is quantised to: integers low .. high, or the float element. */
struct qparams_type {
    const struct elem *elem; /* NULL for integers */
    int64_t low, high; /* integers */
};

/* By name: int2 .. int32, uint2 .. uint32, fp8_e4m3, fp8_e5m2, fp6_e3m2, fp6_e2m3, fp4_e2m1, fp4, and the names of elem.h. false when unknown. */
bool qparams_type_find(const char *name, struct qparams_type *type);

/* Integers of 2 .. 32 bits; an element of the table (false for mxint8, which has no free scale). */
struct qparams_type qparams_type_integer(uint32_t bits, bool with_sign);
bool qparams_type_of(const struct elem *elem, struct qparams_type *type);

/* Which zero point goes with the scale. middle: 0 for signed integers, (low + high) / 2 rounded down for unsigned ones. */
enum qparams_zero { QPARAMS_ZERO_NONE, QPARAMS_ZERO_INT, QPARAMS_ZERO_FLOAT, QPARAMS_ZERO_MIDDLE, QPARAMS_ZERO_COUNT };

/* What amax is divided by: half of high - low (7.5 for 4 bits), or the largest signed integer (7). */
enum half_range { HALF_RANGE_HALF, HALF_RANGE_INT_MAX, HALF_RANGE_COUNT };

struct qparams_rule {
    struct qparams_type type;
    bool symmetric; /* else from min to max; float elements are always symmetric */
    bool reduce_range; /* low / 2 .. high / 2, rounded down */
    enum qparams_zero zero; /* none and middle mean int where the rule is not symmetric; int and float mean none where it is */
    enum half_range half; /* symmetric integers */
    enum scale_type scale; /* stored as: the scale is rounded to it before the zero point is computed; e8m0 has no effect */
};

struct qparams {
    float scale;
    double zero; /* an integer, but for QPARAMS_ZERO_FLOAT */
};

/* The parameters for weights in min .. max (0 is included here, but for QPARAMS_ZERO_FLOAT, which takes the pair as it is). */
struct qparams qparams_of(const struct qparams_rule *rule, float min, float max);

/* The code of the finite weight x (integers: as a number, a float element: its bits), and what a code decodes to. */
double qparams_encode(const struct qparams_rule *rule, const struct qparams *qparams, float x, enum rounding rounding);
float qparams_decode(const struct qparams_rule *rule, const struct qparams *qparams, double code);

#endif
