/* metric.h: what a conversion cost: squared error, signal, largest error, and the figures people read (MSE, SQNR, cosine).
 *
 *   SQNR = 10 log10( sum x^2 / sum (x-y)^2 ) dB      cosine = sum xy / sqrt(sum x^2 sum y^2)
 *
 * Why this way: sums in binary64, collected per tile in a fixed order and added in tile order, so that a report does not depend on threads.
 * Corner cases: no error gives SQNR = +infinity; no signal and an error gives -infinity; a zero vector has cosine 1 to itself, 0 to others.
 * Reference: usual definitions. Worked number: x = 1, y = 0.9: SQNR 20 dB.
 */
#ifndef LLMQ_NUMBER_METRIC_H
#define LLMQ_NUMBER_METRIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct measure {
    uint64_t n;
    double sum_xx, sum_yy, sum_xy, sum_dd; /* d = x - y */
    double max_d; /* largest |x - y| */
};

/* Sums are made block by block, n of at most this many weights. */
enum { MEASURE_BLOCK = 256 };

/* Sums of n pairs in binary64: what a block takes whose squares could leave the range of f32. True when the f32 sums of a block, xy aside, cannot
 * have been hurt by that. */
void measure_exact(const float *x, const float *y, size_t n, struct measure *part);
bool measure_in_range(const struct measure *part);

void measure_add(struct measure *total, const struct measure *part);
double measure_mse(const struct measure *measure); /* 0 for n = 0 */
double measure_sqnr_db(const struct measure *measure);
double measure_cosine(const struct measure *measure);

#endif
