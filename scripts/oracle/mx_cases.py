"""Golden cases of the MX formats."""

from fractions import Fraction

from oracle.binary import BF16, F32, f32_value
from oracle.distributions import (
    Lcg, calm_rows, filler, flt_max_row, gauss_input, huge_row, one_row, single_column, stack, to_bits,
    with_neighbours,
)
from oracle.elements import E2M1, E2M3, E3M2, MxInt8Element, positive_midpoints
from oracle.mx import MX_FORMATS, MX_RULES
from oracle.near_ties import mx_order_sensitive
from oracle.rounding import HALF, ROUNDINGS, pow2
from oracle.tensors import Input, Params

MX_THRESHOLDS = [Fraction(1), Fraction(3, 2), Fraction(7, 4), Fraction(15, 8), Fraction(31, 16), Fraction(127, 64),
                 Fraction(1023, 512)]


def mx_ties(lcg, elem):
    """Groups whose maximum is the element's largest number, all others halfway between two element values."""
    middles = positive_midpoints(elem)
    values = [elem.max * pow2(-3)] + [lcg.sign() * lcg.pick(middles) * pow2(-3) for _ in range(31)]
    values += [-elem.max * pow2(5)] + [lcg.sign() * lcg.pick(middles) * pow2(5) for _ in range(12)]
    return one_row("ties", to_bits(values))


def mx_threshold_groups(lcg):
    """Groups of 5 led by a maximum at, or one ulp beside, the place where a rule changes its exponent."""
    bits = []
    for t in MX_THRESHOLDS:
        for lead in with_neighbours(F32.bits(t * pow2(lcg.below(40) - 20))):
            amax = f32_value(lead)
            bits += [lead | lcg.below(2) << 31] + to_bits(filler(lcg, amax, 4))
    return Input("thresholds", 3, 35, bits)


def mx_byte_limits(lcg, elem, n):
    """Maxima whose exponent lies near the lower end of E8M0."""
    above, below = pow2(elem.emax - 126), pow2(elem.emax - 128)
    return to_bits([above, *filler(lcg, above, 7), -below, *filler(lcg, below, n - 9)])


def mx_extremes(lcg, elem):
    huge = huge_row(lcg, 13, lambda i: (-1) ** i)
    return stack("extremes", calm_rows(lcg, 13) + [huge, mx_byte_limits(lcg, elem, 13)])


def mx_floor_minus_one(lcg, elem):
    """One power of two and 31 odd multiples of half the smallest subnormal: one exponent lower may win."""
    smallest = Fraction(1, 64) if isinstance(elem, MxInt8Element) else elem.magnitude(1)
    values = [pow2(elem.emax)] + [lcg.sign() * smallest * lcg.pick([HALF, HALF * 3]) for _ in range(31)]
    return one_row("floor-1", to_bits(values))


def mx_cases(fmt):
    elem, lcg, plain = MX_FORMATS[fmt], Lcg(fmt), "nearest-even"
    bf16 = gauss_input(lcg, "gauss-bf16", 1, 72, BF16)
    heavy = gauss_input(lcg, "heavy-f32", 1, 37, F32, 3)
    small = gauss_input(lcg, "gauss-f32", 2, 11, F32)
    ties, limits, extremes = mx_ties(lcg, elem), mx_threshold_groups(lcg), mx_extremes(lcg, elem)
    flt_max = one_row("flt-max", flt_max_row(lcg, 13, lambda i: (-1) ** i))
    lower, column = mx_floor_minus_one(lcg, elem), single_column("column", elem.max)
    for rule in MX_RULES:
        for data, group in ((bf16, 32), (heavy, 16), (limits, 5), (extremes, 8), (flt_max, 8), (column, 32)):
            yield data, Params(group, rule, plain, None)
        for rounding in ROUNDINGS if rule in ("floor", "ceil", "search") else [plain]:
            yield ties, Params(32, rule, rounding, None)
    if elem in (E2M1, E3M2, E2M3):  # in 8-bit elements such near ties are too rare to look for
        yield mx_order_sensitive(lcg, elem, 3), Params(32, "search", plain, None)
    for rounding in ROUNDINGS:
        yield small, Params(5, "search", rounding, None)
        yield lower, Params(32, "search", rounding, None)
    yield small, Params(64, "search", plain, None)
    yield small, Params(1, "search", plain, None)
