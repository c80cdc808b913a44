"""Golden cases of the integer formats."""

from fractions import Fraction

from oracle.affine import INT_FORMATS, full_range_of
from oracle.binary import BF16, F32, FLT_MAX, NEG_ZERO, f32_value, fl
from oracle.distributions import (
    Lcg, calm_rows, first_group_positive, flt_max_row, gauss_input, huge_row, one_row, single_column, stack, to_bits,
    with_neighbours,
)
from oracle.near_ties import int_order_sensitive, mse_ties
from oracle.rounding import HALF, ROUNDINGS, clamp, nearest_even, pow2
from oracle.scales import SCALE_TYPES
from oracle.tensors import Params


def symmetric_ties(lcg, n, s, count):
    half = (1 << n - 1) - HALF
    return [half * s] + [(lcg.below(1 << n) - (1 << n - 1) + HALF) * s for _ in range(count - 1)]


def asymmetric_ties(lcg, n, s, count, zero):
    """Range (0 - zero) .. (levels - zero) steps of s, the rest halfway between two codes."""
    levels = (1 << n) - 1
    inner = [(lcg.below(levels) + HALF - nearest_even(zero)) * s for _ in range(count - 2)]
    ends = -zero * s, (levels - zero) * s
    return [ends[0], ends[1]] + [clamp(v, *ends) for v in inner]


def int_ties(lcg, kind, n):
    """Scales that every scale type holds; 41 times its binary32 reciprocal is not 1."""
    steps = [pow2(-6), 41 * pow2(-12), 3 * pow2(-8)]
    sizes = [16, 16, 9]
    if kind == "int":
        groups = [symmetric_ties(lcg, n, s, c) for s, c in zip(steps, sizes)]
    else:
        zero = Fraction(1 + lcg.below((1 << n) - 2))
        zeros = [zero, zero - HALF, zero + HALF]  # the last two put the zero point itself on a tie
        groups = [asymmetric_ties(lcg, n, s, c, z) for s, c, z in zip(steps, sizes, zeros)]
    return one_row("ties", to_bits(v for g in groups for v in g))

SCALE_POINTS = {
    "f32": [pow2(-23), pow2(-24), Fraction(3, 2) * pow2(-23)],
    "bf16": [pow2(-23), 1 + pow2(-8), 1 + 3 * pow2(-8)],
    "f16": [pow2(-23), 5 * pow2(-25), 7 * pow2(-25), 1 + pow2(-11), 1 + 3 * pow2(-11)],
}


def scale_points(lcg, kind, n, dtype):
    """Groups of 4 led by an amax (or span) at, and one ulp beside, the ties and the floor of the stored scale."""
    bits = []
    for t in SCALE_POINTS[dtype]:
        for lead in with_neighbours(F32.bits(t * full_range_of(kind, n))):
            flip = lcg.below(2) << 31
            bits += [lead | flip] + [F32.bits(fl(f32_value(lead) / d)) | flip for d in (3, 7)] + [0]
    return one_row("scale-points", bits)


def int_extremes(lcg):
    return stack("extremes", calm_rows(lcg, 13) + [huge_row(lcg, 13, first_group_positive)])


def one_sided(lcg, cols):
    """One row all positive, one all negative."""
    rows = [[abs(lcg.gauss()) / 8 for _ in range(cols)], [-abs(lcg.gauss()) / 8 for _ in range(cols)]]
    return stack("one-sided", [to_bits(r) for r in rows])


def int_common_cases(fmt, rule):
    kind, n = INT_FORMATS[fmt]
    lcg, plain = Lcg(fmt + rule), "nearest-even"
    matrix = gauss_input(lcg, "gauss-f32", 3, 11, F32)
    ties = int_ties(lcg, kind, n)
    yield gauss_input(lcg, "gauss-bf16", 1, 150, BF16), Params(128, rule, plain, "bf16")
    heavy = gauss_input(lcg, "heavy-f32", 1, 37, F32, 3)
    yield heavy, Params(16, rule, plain, "f16")
    yield heavy, Params("channel", rule, plain, "f32")
    for rounding, dtype in zip(ROUNDINGS, ("bf16", "f16", "f32", "bf16")):
        yield ties, Params(16, rule, rounding, dtype)
    for group, dtype in ((5, "bf16"), ("channel", "f16"), ("tensor", "f32"), ("tensor", "bf16"), (1, "bf16")):
        yield matrix, Params(group, rule, plain, dtype)
    yield one_sided(lcg, 9), Params(8, rule, plain, "bf16")
    yield int_extremes(lcg), Params(8, rule, plain, "bf16")
    yield stack("calm", calm_rows(lcg, 13)), Params(8, rule, plain, "f16")
    yield one_row("flt-max", flt_max_row(lcg, 13, first_group_positive)), Params(8, rule, plain, "bf16")
    yield single_column("column", full_range_of(kind, n)), Params(128, rule, plain, "f32")


def int_range_cases(fmt):
    """absmax only: the stored scale's ties, the floor 2^-23, the largest scales and the refused ones."""
    kind, n = INT_FORMATS[fmt]
    lcg, plain, full = Lcg(fmt + "range"), "nearest-even", full_range_of(kind, n)
    for dtype in SCALE_TYPES:
        yield scale_points(lcg, kind, n, dtype), Params(4, "absmax", plain, dtype)
    yield int_extremes(lcg), Params(8, "absmax", plain, "f32")
    for name, scale in (("largest", 65504), ("rounds-down", 65505), ("too-large", 65520)):
        yield one_row("f16-" + name, to_bits([full * scale, full, Fraction(0)])), Params(8, "absmax", plain, "f16")
    million = one_row("amax-1e6", to_bits([Fraction(1), Fraction(-1000000), Fraction(5)]))
    for rule in ("absmax", "mse"):
        yield million, Params("channel", rule, plain, "f16")
    nearly = to_bits([-full * 64500, full * 30000 if kind == "int" else Fraction(0), full * -777])
    yield one_row("f16-k65-overflows", nearly), Params("channel", "mse", plain, "f16")
    if kind == "uint":
        both_ends = one_row("span-overflows", [FLT_MAX, FLT_MAX | NEG_ZERO, 0])
        for rule in ("absmax", "mse"):
            yield both_ends, Params(8, rule, plain, "f32")


def int_cases(fmt):
    for rule in ("absmax", "mse"):
        yield from int_common_cases(fmt, rule)
    yield from int_range_cases(fmt)
    kind, n = INT_FORMATS[fmt]
    lcg = Lcg(fmt + "order")
    if n <= 4:  # in wider codes these ties are too rare to look for
        yield mse_ties(lcg, kind, n), Params(4, "mse", "nearest-even", "bf16")
    if n in (2, 4):
        yield int_order_sensitive(lcg, kind, n, 3), Params(32, "mse", "nearest-even", "f32")
