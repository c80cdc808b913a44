"""Block floating point: one shared exponent byte a block (NUMERICS_BLOCK.md 1)."""

from oracle.binary import F32, fl
from oracle.errors import least_error, squared_terms
from oracle.rounding import ROUNDINGS, clamp, pow2


def field_of(x):
    """The exponent field of a binary32 value: 0 for zeros and subnormals."""
    return F32.bits(abs(x)) >> 23


def largest_field(xs):
    return max(field_of(x.value) for x in xs)


def step_of(e, m):
    """The weight of the lowest magnitude bit under the byte e."""
    return pow2(e - 127 - m + 1)


def code_limits(m, kernel, e):
    top = (1 << m) - 1
    return (-top - 1 if kernel and e < 254 else -top), top


def bfp_codes(xs, m, kernel, e, rounding):
    step = step_of(e, m)
    return [clamp(ROUNDINGS[rounding](fl(x.value / step)), *code_limits(m, kernel, e)) for x in xs]


def bfp_values(codes, m, e):
    values = [c * step_of(e, m) for c in codes]
    assert all(fl(v) == v for v in values)  # every weight is a binary32 number
    return values


def unit_terms(xs, ys, e0, weights):
    """Error terms in units of the exponent of the rule floor."""
    return squared_terms([fl(fl(x.value - y) * pow2(127 - e0)) for x, y in zip(xs, ys)], weights)


def bytes_around(e0):
    return [e for e in (e0, e0 + 1, e0 - 1) if 0 <= e <= 254]


def bfp_search_candidates(xs, m, kernel, rounding, weights=None):
    """[(error terms, byte), ..]"""
    e0 = largest_field(xs)
    return [(unit_terms(xs, bfp_values(bfp_codes(xs, m, kernel, e, rounding), m, e), e0, weights), e)
            for e in bytes_around(e0)]


def bfp_floor(xs, m, kernel, rounding):
    e0 = largest_field(xs)
    if kernel and e0 < 254:
        step = step_of(e0, m)
        if any(ROUNDINGS[rounding](fl(x.value / step)) > code_limits(m, kernel, e0)[1] for x in xs):
            return e0 + 1
    return e0


def quantize_bfp_group(xs, m, kernel, rule, rounding, weights=None):
    """Exponent byte, codes, bit patterns of the decoded values."""
    if rule == "search":
        e = least_error(bfp_search_candidates(xs, m, kernel, rounding, weights))
    else:
        e = bfp_floor(xs, m, kernel, rounding)
    codes = bfp_codes(xs, m, kernel, e, rounding)
    return e, codes, [F32.bits(y) for y in bfp_values(codes, m, e)]
