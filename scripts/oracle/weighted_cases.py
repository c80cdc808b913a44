"""Golden cases with importance weights."""

from fractions import Fraction

from oracle.binary import F32, f32_bits_of, fl
from oracle.distributions import Lcg, gauss_input, one_row
from oracle.rounding import pow2
from oracle.tensors import Params, quantize
from oracle.writing import case_head, case_result, hex32


def column_weights(lcg, cols):
    """Spread over many binades, with zeros and ones."""
    values = [pow2(lcg.below(24) - 12) * (1 + lcg.unit()) for _ in range(cols)]
    values[1], values[2 % cols] = Fraction(0), Fraction(1)
    return [fl(v) for v in values]


def weighted_case(fmt, name, data, params, column_weights):
    w = [Fraction(v) for v in column_weights]
    head = {"format": fmt, **case_head(name, data, params), "w": hex32(map(F32.bits, w))}
    return {**head, **case_result(quantize(fmt, data, params, w))}


def weighted_cases():
    table = [("mxfp4", 32, "search", None), ("mxfp6_e2m3", 16, "search", None), ("mxfp8_e4m3", 32, "search", None),
             ("mxint8", 5, "search", None), ("int4", 32, "mse", "bf16"), ("int8", "channel", "mse", "f32"),
             ("int3", "tensor", "mse", "f16"), ("uint4", 16, "mse", "bf16"), ("uint2", "tensor", "mse", "f32")]
    for fmt, group, rule, dtype in table:
        lcg = Lcg("weighted" + fmt)
        data, params = gauss_input(lcg, "gauss-f32", 2, 37, F32), Params(group, rule, "nearest-even", dtype)
        w = column_weights(lcg, data.cols)
        yield weighted_case(fmt, f"{fmt}-{rule}", data, params, w)
    # [7.5, .25] with the weights [1, 320]: e0 = 0 has the error 22.25, e0+1 and e0-1 both 20.25, so e0+1 must win
    tie = one_row("", [f32_bits_of("7.5"), f32_bits_of(".25")])
    yield weighted_case("mxfp4", "mxfp4-search-tie", tie, Params(32, "search", "nearest-even", None), [1, 320])
