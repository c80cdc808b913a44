/* report_html_axis.c: see report_html_axis.h.
 *
 * Formula: step = {1, 2, 5} 10^k the least not below range / wanted; decades: {1, 2, 5} 10^k within the range, or 10^k where those are too many.
 * Why this way: see report_html_axis.h.
 * Corner cases: room at the ends is a twentieth of the range on each side; ticks are counted from a whole number, so they do not drift.
 * Reference: report_html_axis.h. Worked number: 3.1 .. 8.4 in 5 steps: 1.06, so the step is 2: ticks 4, 6, 8.
 */
#include "converter/report_html_axis.h"

#include <math.h>

static double nice_step(double range, int wanted)
{
    const double rough = range / wanted, decade = pow(10.0, floor(log10(rough)));
    static const double nice[] = { 1.0, 2.0, 5.0, 10.0 };
    size_t k = 0;
    while (k < 3 && nice[k] * decade < rough * 0.999) k++;
    return nice[k] * decade;
}

static int digits_of(double step)
{
    const double digits = ceil(-log10(step) - 1e-9);
    return digits > 0.0 ? (int)fmin(digits, 12.0) : 0;
}

static void straight_ticks(struct axis *axis, double low, double high, int wanted)
{
    const double step = nice_step(high - low, wanted);
    axis->digits = digits_of(step);
    for (double k = ceil(low / step - 1e-9); k * step <= high * (1.0 + 1e-12) && axis->n_ticks < AXIS_TICKS_MAX; k++)
        axis->ticks[axis->n_ticks++] = k * step;
}

static void decade_ticks(struct axis *axis, double low, double high)
{
    const double decades = log10(high / low);
    static const double within[] = { 1.0, 2.0, 5.0 };
    const size_t each = decades > 3.0 ? 1 : 3;
    const double skip = ceil(decades / 10.0);
    for (double k = floor(log10(low)); k <= log10(high) && axis->n_ticks < AXIS_TICKS_MAX; k += each == 1 ? skip : 1.0)
        for (size_t i = 0; i < each && axis->n_ticks < AXIS_TICKS_MAX; i++) {
            const double tick = within[i] * pow(10.0, k);
            if (tick >= low && tick <= high) axis->ticks[axis->n_ticks++] = tick;
        }
    axis->digits = -1; /* significant digits serve better */
}

struct axis axis_make(double low, double high, bool log, double from, double to, int wanted)
{
    struct axis axis = { .from = from, .to = to, .log = log && low > 0.0 };
    if (axis.log) {
        const double room = high > low * 1.001 ? pow(high / low, 0.06) : 1.3;
        axis.low = low / room;
        axis.high = high * room;
        if (axis.high < axis.low * 4.0) straight_ticks(&axis, axis.low, axis.high, wanted);
        else decade_ticks(&axis, axis.low, axis.high);
        return axis;
    }
    const double spread = high - low, room = spread > 1e-9 * fabs(high) ? 0.06 * spread : fmax(0.5 * fabs(high), 0.5);
    axis.low = low - room;
    axis.high = high + room;
    straight_ticks(&axis, axis.low, axis.high, wanted);
    return axis;
}

double axis_pixel(const struct axis *axis, double value)
{
    const double share = axis->log ? log10(value / axis->low) / log10(axis->high / axis->low) : (value - axis->low) / (axis->high - axis->low);
    return axis->from + (axis->to - axis->from) * share;
}
