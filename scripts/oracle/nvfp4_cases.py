"""Golden cases of NVFP4."""

from fractions import Fraction

from oracle.bfp_cases import moving_maximum
from oracle.binary import BF16, F32, FLT_MAX, NEG_ZERO, fl
from oracle.block_formats import BlockParams
from oracle.block_ties import nvfp4_quotients, nvfp4_roundings
from oracle.distributions import (
    Lcg, calm_rows, filler, flt_max_row, gauss_input, huge_row, one_row, single_column, stack, subnormals, to_bits,
    with_neighbours, zero_row,
)
from oracle.elements import E2M1, E4M3, positive_midpoints
from oracle.near_ties import as_weights, order_sensitive
from oracle.nvfp4 import FULL, in_units, nvfp4_search_candidates, tensor_scale
from oracle.rounding import ROUNDINGS, pow2

PLAIN = "nearest-even"


def nvfp4_params(rule, rounding=PLAIN, scale="f32", amax=None):
    outside = {} if amax is None else {"amax": "%08x" % amax}
    return BlockParams(16, rule, rounding, None, {"tensor_scale": scale, **outside})


def code_ties(lcg):
    """g = 2^-6 and block scales 448, 1, 2^-9: largest weight 6 steps, the others halfway between two values."""
    middles = positive_midpoints(E2M1)
    values = []
    for scale in (448, 1, pow2(-9)):
        values += [6 * scale] + [lcg.sign() * lcg.pick(middles) * scale for _ in range(15)]
    return one_row("ties", to_bits(v * pow2(-6) for v in values))


def scale_ties(lcg):
    """Groups whose amax / 6 lies at, or beside, a midpoint of two E4M3 numbers, and at the ends; g = 1."""
    middles = positive_midpoints(E4M3)
    leads = [pow2(-9), pow2(-10), Fraction(448), middles[0], middles[1], middles[-1]]
    leads += [lcg.pick(middles) for _ in range(4)]
    bits = to_bits([Fraction(FULL)] + filler(lcg, Fraction(FULL), 15))
    for lead in leads:
        for b in with_neighbours(F32.bits(fl(lead * 6)))[:2 if lead == 448 else 3]:
            bits += [b | lcg.below(2) << 31] + to_bits(filler(lcg, F32.value(b)[1], 3)) + [0] * 12
    return one_row("scale-ties", bits)


def spread_groups(lcg):
    """Groups of 16 whose sizes cover all of E4M3 and more."""
    values = []
    for k in range(12):
        values += [lcg.gauss() * pow2(-2 * k) for _ in range(16)]
    return one_row("spread", to_bits(values, BF16))


def fives(lcg):
    """Groups in which a largest weight mapped to 4 beats one mapped to 6."""
    rows = []
    for _ in range(3):
        rows.append(to_bits([Fraction(4)] + [lcg.sign() * lcg.pick([3, Fraction(7, 2), 2, 1, 4]) for _ in range(15)]))
    return stack("four-over-six", rows)


def nvfp4_cases(fmt):
    lcg = Lcg(fmt)
    gauss = gauss_input(lcg, "gauss-bf16", 2, 40, BF16)
    small, heavy = gauss_input(lcg, "gauss-f32", 2, 11, F32), gauss_input(lcg, "heavy-f32", 1, 37, F32, 3)
    halfway, scales, spread, four = code_ties(lcg), scale_ties(lcg), spread_groups(lcg), fives(lcg)
    rows = stack("extremes", [r + r[:4] for r in calm_rows(lcg, 13)])
    tiny = one_row("subnormal", subnormals(lcg, 20) + [1, NEG_ZERO | 1, 0, NEG_ZERO])
    million = one_row("amax-1e6", to_bits([Fraction(1), Fraction(-1000000), Fraction(5)] * 6))
    for rule in ("absmax", "search"):
        for data in (gauss, heavy, scales, spread, four, rows, tiny, million):
            yield data, nvfp4_params(rule)
        for rounding in ROUNDINGS:
            yield halfway, nvfp4_params(rule, rounding)
        yield stack("zeros", [zero_row(20), [0] * 20]), nvfp4_params(rule)
        yield one_row("huge", huge_row(lcg, 20, lambda i: (-1) ** i)), nvfp4_params(rule)
        yield one_row("flt-max", flt_max_row(lcg, 20, lambda i: (-1) ** i)), nvfp4_params(rule)
        yield single_column("column", Fraction(6)), nvfp4_params(rule)
        for data in (gauss, scales, spread):
            yield data, nvfp4_params(rule, scale="none")
        yield million, nvfp4_params(rule, scale="none")
        yield small, nvfp4_params(rule, amax=F32.bits(fl(Fraction("0.3"))))
    for rounding in ROUNDINGS:
        yield small, nvfp4_params("search", rounding)
    yield small, nvfp4_params("absmax", amax=FLT_MAX)
    odd = fl(Fraction("0.3"))
    for data in (nvfp4_roundings(tensor_scale(odd)), nvfp4_quotients(tensor_scale(odd))):
        yield data, nvfp4_params("absmax", amax=F32.bits(odd))
    g = tensor_scale(Fraction(1, 4))
    data = order_sensitive(lcg, moving_maximum(lambda bits: nvfp4_search_candidates(in_units(as_weights(bits), g), PLAIN)), 2)
    yield data, nvfp4_params("search", amax=F32.bits(Fraction(1, 4)))
