/* qparams.c: see qparams.h.
 *
 * Formula: symmetric s = max(amax / half, 2^-23), z = 0; asymmetric s = max((b - a) / (Q+ - Q-), 2^-23), z = clamp(Q- - RNE(a / s)); float zero point
 * s = (max - min) / (Q+ - Q-), 1 when that is at most 2^-23, z = Q- - min / s; float element s = amax / max.
 * Why this way: every step in f32, as the codes are; the scale is rounded to its stored type first, so that z goes with the scale that is read back.
 * Corner cases: see qparams.h; a float zero point counts from Q-, which is what makes it right for signed integers, too; NaN in a range counts as 0;
 * a reduced range of 2 bits has an int_max of 1, not 0.
 * Reference: NUMERICS_OBSERVERS.md 1. Worked number: uint4, -1.4 .. 2.6: s = 4 / 15 = 0.266666681, z = 5.
 */
#include "number/qparams.h"

#include <math.h>
#include <string.h>

#define LEAST_SCALE 0x1p-23f

static const struct {
    const char *name;
    enum elem_id elem;
} aliases[] = {
    { "fp8_e4m3", ELEM_E4M3 }, { "fp8_e5m2", ELEM_E5M2 }, { "fp6_e3m2", ELEM_E3M2 },
    { "fp6_e2m3", ELEM_E2M3 }, { "fp4_e2m1", ELEM_E2M1 }, { "fp4", ELEM_E2M1 },
};

struct qparams_type qparams_type_integer(uint32_t bits, bool with_sign)
{
    const int64_t half = (int64_t)1 << (bits - 1);
    return with_sign ? (struct qparams_type){ NULL, -half, half - 1 } : (struct qparams_type){ NULL, 0, 2 * half - 1 };
}

bool qparams_type_of(const struct elem *elem, struct qparams_type *type)
{
    if (elem->kind != ELEM_FLOAT && elem->fraction_bits > 0) return false;
    *type = elem->kind == ELEM_FLOAT ? (struct qparams_type){ .elem = elem } : (struct qparams_type){ NULL, elem->code_min, elem->code_max };
    return true;
}

/* 2 .. 32 as digits alone, else 0. */
static uint32_t read_bits(const char *digits)
{
    uint32_t bits = 0;
    if (*digits < '1' || *digits > '9') return 0;
    for (; *digits; digits++) {
        if (*digits < '0' || *digits > '9') return 0;
        bits = bits * 10 + (uint32_t)(*digits - '0');
        if (bits > 32) return 0;
    }
    return bits >= 2 ? bits : 0;
}

bool qparams_type_find(const char *name, struct qparams_type *type)
{
    const bool with_sign = name[0] != 'u';
    const char *rest = with_sign ? name : name + 1;
    if (strncmp(rest, "int", 3) == 0) {
        uint32_t bits = read_bits(rest + 3);
        if (bits > 0) *type = qparams_type_integer(bits, with_sign);
        return bits > 0;
    }
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++)
        if (strcmp(aliases[i].name, name) == 0) return qparams_type_of(&elem_rows[aliases[i].elem], type);
    const struct elem *elem = elem_find(name);
    return elem && qparams_type_of(elem, type);
}

/* ---- scale and zero point ------------------------------------------------------------------------------------------------------- */

static int64_t floor_half(int64_t n)
{
    return n >= 0 ? n / 2 : -((1 - n) / 2);
}

struct limits {
    int64_t low, high;
};

static struct limits limits_of(const struct qparams_rule *rule)
{
    const struct limits full = { rule->type.low, rule->type.high };
    return rule->reduce_range ? (struct limits){ floor_half(full.low), floor_half(full.high) } : full;
}

static float stored(const struct qparams_rule *rule, float s)
{
    return rule->scale == SCALE_E8M0 ? s : scale_load(rule->scale, scale_store(rule->scale, s));
}

static float at_least(float s, float least)
{
    return s > least ? s : least;
}

static double within(double q, struct limits limits)
{
    return fmin(fmax(q, (double)limits.low), (double)limits.high);
}

static struct qparams float_qparams(const struct qparams_rule *rule, float amax)
{
    const float s = stored(rule, amax / rule->type.elem->max);
    return (struct qparams){ s == 0.0f ? LEAST_SCALE : s, 0.0 };
}

static struct qparams symmetric_qparams(const struct qparams_rule *rule, struct limits limits, float amax)
{
    const int64_t int_max = limits.low < 0 ? limits.high : floor_half(limits.high);
    const float most = (float)(int_max > 1 ? int_max : 1), half = (float)((double)(limits.high - limits.low) / 2.0);
    const float s = at_least(amax / (rule->half == HALF_RANGE_INT_MAX ? most : half), LEAST_SCALE);
    const bool middle = rule->zero == QPARAMS_ZERO_MIDDLE && limits.low == 0;
    return (struct qparams){ stored(rule, s), middle ? (double)floor_half(limits.high) : 0.0 };
}

static struct qparams asymmetric_qparams(const struct qparams_rule *rule, struct limits limits, float a, float b)
{
    const float s = stored(rule, at_least((b - a) / (float)(limits.high - limits.low), LEAST_SCALE));
    return (struct qparams){ s, within((double)limits.low - (double)round_to_integer(a / s, ROUND_NEAREST_EVEN), limits) };
}

static struct qparams float_zero_qparams(const struct qparams_rule *rule, struct limits limits, float min, float max)
{
    const float exact = (max - min) / (float)(limits.high - limits.low);
    const float s = stored(rule, exact <= LEAST_SCALE ? 1.0f : exact);
    return (struct qparams){ s, (double)((float)limits.low - min / s) };
}

struct qparams qparams_of(const struct qparams_rule *rule, float min, float max)
{
    const float a = min < 0.0f ? min : 0.0f, b = max > 0.0f ? max : 0.0f, amax = -a > b ? -a : b;
    const struct limits limits = limits_of(rule);
    if (min > max) return (struct qparams){ 1.0f, 0.0 };
    if (rule->type.elem) return float_qparams(rule, amax);
    if (rule->symmetric) return symmetric_qparams(rule, limits, amax);
    if (rule->zero == QPARAMS_ZERO_FLOAT) return float_zero_qparams(rule, limits, min, max);
    return asymmetric_qparams(rule, limits, a, b);
}

/* ---- codes ---------------------------------------------------------------------------------------------------------------------- */

double qparams_encode(const struct qparams_rule *rule, const struct qparams *qparams, float x, enum rounding rounding)
{
    const float u = x / qparams->scale;
    if (rule->type.elem) return (double)elem_encode(rule->type.elem, u, rounding);
    const bool before = rule->zero == QPARAMS_ZERO_FLOAT && !rule->symmetric; /* else no code would be an integer */
    const double q = before ? (double)round_to_integer(u + (float)qparams->zero, rounding) : (double)round_to_integer(u, rounding) + qparams->zero;
    return within(q, limits_of(rule));
}

float qparams_decode(const struct qparams_rule *rule, const struct qparams *qparams, double code)
{
    if (rule->type.elem) return elem_decode(rule->type.elem, (uint32_t)code) * qparams->scale;
    return (float)(code - qparams->zero) * qparams->scale;
}
