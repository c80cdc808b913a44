"""Golden cases of float elements with a float scale, and of the casts."""

from fractions import Fraction

from oracle.binary import BF16, F32, FLT_MAX, NEG_ZERO
from oracle.block_formats import BlockParams
from oracle.block_ties import mse_ties
from oracle.casts import CASTS
from oracle.distributions import (
    Lcg, calm_rows, flt_max_row, gauss_input, huge_row, one_row, single_column, stack, subnormals, to_bits,
    with_neighbours,
)
from oracle.elements import positive_midpoints
from oracle.rounding import ROUNDINGS, pow2
from oracle.scaled_float import SCALED_FLOATS, float_mse_candidates
from oracle.scales import SCALE_TYPES

PLAIN = "nearest-even"
# where a stored scale ties or reaches its floor: amax / max
SCALE_POINTS = {
    "f32": [pow2(-23), pow2(-24), Fraction(3, 2) * pow2(-23)],
    "bf16": [pow2(-23), 1 + pow2(-8), 1 + 3 * pow2(-8)],
    "f16": [pow2(-23), 5 * pow2(-25), 7 * pow2(-25), 1 + pow2(-11), 1 + 3 * pow2(-11)],
}
STEPS = [pow2(-6), 41 * pow2(-12), 3 * pow2(-8)]  # scales that every type holds


def scale_params(group, rule, dtype, rounding=PLAIN):
    return BlockParams(group, rule, rounding, dtype, {})


def alternating(i):
    return (-1) ** i


def float_ties(lcg, elem):
    """Under three scales: the largest value, the others halfway between two values of the element, or on one."""
    middles, values = positive_midpoints(elem), sorted(elem.code_of)
    out = []
    for s, n in zip(STEPS, (16, 16, 9)):
        inner = [lcg.pick(middles) for _ in range(n - 4)] + [middles[0], middles[-1], lcg.pick(values)]
        out += [elem.max * s] + [v * s * lcg.sign() for v in inner]
    return one_row("ties", to_bits(out))


def scale_points(lcg, name, largest, dtype):
    """Groups of 4 led by an amax at, and one ulp beside, the ties and the floor of the stored scale."""
    bits = []
    for t in SCALE_POINTS[dtype]:
        for lead in with_neighbours(F32.bits(F32.round(t * largest))):
            flip = lcg.below(2) << 31
            bits += [lead | flip] + [F32.bits(F32.round(F32.value(lead)[1] / d)) | flip for d in (3, 7)] + [0]
    return one_row("scale-points", bits)


def scale_ends(largest):
    """f16: the largest scale, one that rounds down to it, one too large; and a step k > 64 that overflows."""
    for name, scale in (("largest", 65504), ("rounds-down", 65505), ("too-large", 65520)):
        yield one_row("f16-" + name, to_bits([largest * scale, largest, Fraction(0)])), "absmax"
    yield one_row("f16-too-large", to_bits([largest * 65520, largest, Fraction(0)])), "mse"
    yield one_row("f16-k65-overflows", to_bits([-largest * 64500, largest * 30000, largest * -777])), "mse"


def extremes(lcg):
    return stack("extremes", calm_rows(lcg, 13) + [huge_row(lcg, 13, alternating)])


def float_cases(fmt):
    elem = SCALED_FLOATS[fmt]
    for rule in ("absmax", "mse"):
        lcg = Lcg(fmt + rule)
        matrix, heavy = gauss_input(lcg, "gauss-f32", 3, 11, F32), gauss_input(lcg, "heavy-f32", 1, 37, F32, 3)
        halfway = float_ties(lcg, elem)
        yield gauss_input(lcg, "gauss-bf16", 1, 72, BF16), scale_params(32, rule, "bf16")
        yield heavy, scale_params(16, rule, "f16")
        yield heavy, scale_params("channel", rule, "f32")
        for rounding, dtype in zip(ROUNDINGS, ("f32", "f16", "bf16", "f32")):
            yield halfway, scale_params(16, rule, dtype, rounding)
        for group, dtype in ((5, "bf16"), ("channel", "f16"), ("tensor", "f32"), (1, "bf16"), ("128x128", "f32")):
            yield matrix, scale_params(group, rule, dtype)
        yield extremes(lcg), scale_params(8, rule, "f32")
        yield stack("calm", calm_rows(lcg, 13)), scale_params(8, rule, "f16")
        yield one_row("flt-max", flt_max_row(lcg, 13, alternating)), scale_params(8, rule, "bf16")
        yield single_column("column", elem.max), scale_params(128, rule, "f32")
    lcg = Lcg(fmt + "range")
    for dtype in SCALE_TYPES:
        yield scale_points(lcg, fmt, elem.max, dtype), scale_params(4, "absmax", dtype)
    yield one_row("flt-max-f32", flt_max_row(lcg, 13, alternating)), scale_params(8, "absmax", "f32")
    for data, rule in scale_ends(elem.max):
        yield data, scale_params("channel", rule, "f16")
    if fmt == "fp4_e2m1":
        ties = mse_ties(fmt, lambda xs: float_mse_candidates(xs, elem, PLAIN, BF16))
        yield ties, scale_params(4, "mse", "bf16")
    if fmt in ("fp8_e4m3", "fp4_e2m1"):
        yield gauss_input(lcg, "tall", 131, 2, BF16), scale_params("128x128", "mse", "f32")
        yield gauss_input(lcg, "wide", 2, 131, BF16), scale_params("128x128", "absmax", "bf16")


def cast_bits(lcg, binary):
    """Values of the type, the midpoints above them, and their neighbours; its ends; random patterns."""
    bits = []
    one, largest = 1 << binary.mbits, binary.bits(binary.max)
    codes = [0, 1, 2, one - 1, one, largest + 1 - one, largest - 1, largest]
    for code in codes + [lcg.below(largest) for _ in range(12)]:
        value = binary.value(code)[1]
        ulp = pow2(max(code >> binary.mbits, 1) - binary.bias - binary.mbits)
        for v in (value, value + ulp / 2):
            bits += [b for b in with_neighbours(F32.bits(F32.round(v))) if 0 <= b <= FLT_MAX]
    bits += [1, 2, 0x007FFFFF, 0x00800000, FLT_MAX, FLT_MAX - 0x7FFF]
    bits += [lcg.below(FLT_MAX) for _ in range(16)] + subnormals(lcg, 6)
    return [b ^ (NEG_ZERO if lcg.below(2) else 0) for b in bits]


def cast_cases(fmt):
    lcg = Lcg(fmt)
    edges = one_row("edges", cast_bits(lcg, CASTS[fmt].binary))
    for rounding in ROUNDINGS:
        yield edges, BlockParams(None, None, rounding, None, {})
    yield gauss_input(lcg, "gauss-f32", 3, 11, F32), BlockParams(None, None, PLAIN, None, {})
