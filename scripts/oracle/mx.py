"""MX formats: one E8M0 exponent a group (NUMERICS.md 3)."""

from oracle.binary import F32, fl
from oracle.elements import E2M1, E2M3, E3M2, E4M3, E5M2, MxInt8Element
from oracle.errors import least_error, squared_terms
from oracle.rounding import ceil_log2, clamp, ilog2, pow2

MX_FORMATS = {
    "mxfp4": E2M1, "mxfp6_e3m2": E3M2, "mxfp6_e2m3": E2M3,
    "mxfp8_e4m3": E4M3, "mxfp8_e5m2": E5M2, "mxint8": MxInt8Element(),
}


def clamp_exponent(e, elem):
    return clamp(e, -127, 127 - elem.emax)


def exponent_floor(amax, elem):
    return ilog2(amax) - elem.emax


def exponent_even(amax, elem):
    bits = F32.bits(amax) + (1 << (22 - elem.m))
    return (bits >> 23 & 0xFF) - 127 - elem.emax


def exponent_ceil(amax, elem):
    return ceil_log2(amax) - elem.emax


def exponent_rceil(amax, elem):
    e = ilog2(amax / elem.max)
    return e if amax <= elem.max * pow2(e) else e + 1

PLAIN_MX_RULES = {
    "floor": exponent_floor, "even": exponent_even, "ceil": exponent_ceil, "rceil": exponent_rceil,
}
MX_RULES = [*PLAIN_MX_RULES, "search"]


def encode_mx(xs, elem, e, rounding):
    """Scaled weights u and their codes."""
    if isinstance(elem, MxInt8Element) and e == 127:
        elem = MxInt8Element()  # -128 would stand for -2^128
    us = [fl(x.value * pow2(-e)) for x in xs]
    return us, [elem.encode(x.neg, u, rounding) for x, u in zip(xs, us)]


def mx_error_terms(xs, elem, e, e0, rounding, weights):
    us, codes = encode_mx(xs, elem, e, rounding)
    shift = pow2(e - e0)
    deviations = [fl(fl(u - elem.decode(c)[1]) * shift) for u, c in zip(us, codes)]
    return squared_terms(deviations, weights)


def search_candidates(xs, amax, elem, rounding, weights=None):
    e0 = clamp_exponent(exponent_floor(amax, elem), elem)
    tried = []
    for e in (e0, clamp_exponent(e0 + 1, elem), clamp_exponent(e0 - 1, elem)):
        if e not in tried:
            tried.append(e)
    return [(mx_error_terms(xs, elem, e, e0, rounding, weights), e) for e in tried]


def quantize_mx_group(xs, elem, rule, rounding, weights=None):
    """Scale byte, codes, bit patterns of the decoded values."""
    amax = max(abs(x.value) for x in xs)
    if amax == 0:
        e = -127
    elif rule == "search":
        e = least_error(search_candidates(xs, amax, elem, rounding, weights))
    else:
        e = clamp_exponent(PLAIN_MX_RULES[rule](amax, elem), elem)
    codes = encode_mx(xs, elem, e, rounding)[1]
    ys = []
    for neg, value in map(elem.decode, codes):
        ys.append(F32.bits(fl(value * pow2(e)), neg))
    return e + 127, codes, ys
