"""NVFP4: E2M1 with E4M3 block scales under one tensor scale (NUMERICS_BLOCK.md 6)."""

from fractions import Fraction

from oracle.binary import F32, fl
from oracle.elements import E2M1, E4M3, Weight
from oracle.errors import least_error
from oracle.rounding import clamp, pow2
from oracle.scaled_float import amax_of, amax_terms
from oracle.scales import ScaleOverflow

LOWEST_SCALE, FULL = pow2(-9), 6 * 448


def tensor_scale(amax):
    if amax == 0:
        return Fraction(1)
    return max(fl(amax / FULL), pow2(-126))


def scale_byte(v):
    return E4M3.encode(0, clamp(v, LOWEST_SCALE, E4M3.max), "nearest-even")


def in_units(xs, g):
    """The weights divided by the tensor scale."""
    return [Weight(x.neg, fl(x.value / g)) for x in xs]


def byte_mapping_amax_to(amax, target):
    return scale_byte(fl(amax / target))


def bytes_to_try(amax):
    c6, c4 = byte_mapping_amax_to(amax, 6), byte_mapping_amax_to(amax, 4)
    tried = []
    for c in (c6, c6 + 1, c6 - 1, c6 + 2, c6 - 2, c4, c4 + 1, c4 - 1):
        if 1 <= c <= 0x7E and c not in tried:
            tried.append(c)
    return tried


def nvfp4_codes(xs, c, rounding):
    s = E4M3.decode(c)[1]
    return [E2M1.encode(x.neg, fl(x.value / s), rounding) for x in xs]


def nvfp4_products(codes, c):
    """[(negative, value), ..] in units of the tensor scale"""
    scale = E4M3.decode(c)[1]
    out = []
    for neg, v in map(E2M1.decode, codes):
        product = fl(v * scale)
        assert product == v * scale
        out.append((neg, product))
    return out


def nvfp4_search_candidates(xs, rounding, weights=None):
    """[(error terms, byte), ..] of weights in units of the tensor scale"""
    return [(amax_terms(xs, [y for _, y in nvfp4_products(nvfp4_codes(xs, c, rounding), c)], weights), c)
            for c in bytes_to_try(amax_of(xs))]


def quantize_nvfp4_group(xs, g, two_level, rule, rounding, weights=None):
    """Scale byte, codes, bit patterns of the decoded values."""
    xs = in_units(xs, g)
    amax = amax_of(xs)
    if not two_level and fl(amax / 6) > E4M3.max:
        raise ScaleOverflow
    if rule == "search":
        c = least_error(nvfp4_search_candidates(xs, rounding, weights))
    else:
        c = byte_mapping_amax_to(amax, 6)
    codes = nvfp4_codes(xs, c, rounding)
    return c, codes, [F32.bits(fl(y * g), neg) for neg, y in nvfp4_products(codes, c)]
