/* metric.c: see metric.h.
 *
 * Formula: as in metric.h.
 * Why this way: see metric.h.
 * Corner cases: see metric.h.
 * Reference: usual definitions. Worked number: x = (3, 4), y = (3, 0): MSE 8, SQNR 1.938 dB, cosine 0.6.
 */
#include "number/metric.h"

#include <math.h>

void measure_exact(const float *x, const float *y, size_t n, struct measure *part)
{
    *part = (struct measure){ .n = n };
    for (size_t i = 0; i < n; i++) {
        double a = (double)x[i], b = (double)y[i], d = (double)(x[i] - y[i]);
        part->sum_xx += a * a;
        part->sum_yy += b * b;
        part->sum_xy += a * b;
        part->sum_dd += d * d;
        part->max_d = fabs(d) > part->max_d ? fabs(d) : part->max_d;
    }
}

static bool moderate(double sum)
{
    return sum > 0x1p-90 && sum < 0x1p120;
}

bool measure_in_range(const struct measure *part)
{
    return moderate(part->sum_xx) && part->sum_yy < 0x1p120 && (part->max_d == 0.0 || moderate(part->sum_dd));
}

void measure_add(struct measure *total, const struct measure *part)
{
    total->n += part->n;
    total->sum_xx += part->sum_xx;
    total->sum_yy += part->sum_yy;
    total->sum_xy += part->sum_xy;
    total->sum_dd += part->sum_dd;
    if (part->max_d > total->max_d) total->max_d = part->max_d;
}

double measure_mse(const struct measure *measure)
{
    return measure->n ? measure->sum_dd / (double)measure->n : 0.0;
}

double measure_sqnr_db(const struct measure *measure)
{
    if (measure->sum_dd == 0.0) return HUGE_VAL;
    if (measure->sum_xx == 0.0) return -HUGE_VAL;
    return 10.0 * log10(measure->sum_xx / measure->sum_dd);
}

double measure_cosine(const struct measure *measure)
{
    if (measure->sum_xx == 0.0 && measure->sum_yy == 0.0) return 1.0;
    if (measure->sum_xx == 0.0 || measure->sum_yy == 0.0) return 0.0;
    return measure->sum_xy / sqrt(measure->sum_xx) / sqrt(measure->sum_yy);
}
