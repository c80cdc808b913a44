"""Float elements with a float scale (NUMERICS_BLOCK.md 4)."""

from fractions import Fraction

from oracle.affine import MSE_STEPS
from oracle.binary import F32, fl
from oracle.elements import E2M1, E2M3, E3M2, E4M3, E5M2
from oracle.errors import least_error, squared_terms
from oracle.rounding import clamp, ilog2, pow2
from oracle.scales import ScaleOverflow, store_scale

SCALED_FLOATS = {"fp8_e4m3": E4M3, "fp8_e5m2": E5M2, "fp6_e3m2": E3M2, "fp6_e2m3": E2M3, "fp4_e2m1": E2M1}


def amax_of(xs):
    return max(abs(x.value) for x in xs)


def amax_terms(xs, ys, weights):
    """Error terms in units of the power of two below the largest weight."""
    amax = amax_of(xs)
    unit = pow2(-clamp(ilog2(amax), -126, 126)) if amax else Fraction(1)
    return squared_terms([fl(fl(x.value - y) * unit) for x, y in zip(xs, ys)], weights)


def part_of_amax(amax, k):
    return fl(amax * Fraction(k, 64))


def mse_over_steps(scale_of, values_of, xs, weights):
    """[(error terms, scale), ..] of the rule mse: scale_of(k) may overflow, at k = 64 for good."""
    out = []
    for k in MSE_STEPS:
        try:
            s = scale_of(k)
        except ScaleOverflow:
            if k == 64:
                raise
            continue
        out.append((amax_terms(xs, values_of(s), weights), s))
    return out


def float_codes(xs, elem, s, rounding):
    return [elem.encode(x.neg, fl(x.value / s), rounding) for x in xs]


def float_values(codes, elem, s):
    """[(negative, value), ..]"""
    return [(neg, fl(v * s)) for neg, v in map(elem.decode, codes)]


def float_mse_candidates(xs, elem, rounding, scale_type, weights=None):
    amax = amax_of(xs)

    def values_of(s):
        return [y for _, y in float_values(float_codes(xs, elem, s, rounding), elem, s)]

    return mse_over_steps(lambda k: store_scale(fl(part_of_amax(amax, k) / elem.max), scale_type, elem.max), values_of,
                          xs, weights)


def quantize_float_group(xs, elem, rule, rounding, scale_type, weights=None):
    """Scale bits, codes, bit patterns of the decoded values."""
    if rule == "mse":
        s = least_error(float_mse_candidates(xs, elem, rounding, scale_type, weights))
    else:
        s = store_scale(fl(amax_of(xs) / elem.max), scale_type, elem.max)
    codes = float_codes(xs, elem, s, rounding)
    return scale_type.bits(s), codes, [F32.bits(y, neg) for neg, y in float_values(codes, elem, s)]
