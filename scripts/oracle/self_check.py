"""Worked numbers and properties that the oracle must have."""

from fractions import Fraction

from oracle.affine import INT_FORMATS
from oracle.binary import BF16, F16, F32, FLT_MAX, NEG_ZERO, f32_bits_of, f32_value
from oracle.distributions import Lcg, one_row, with_neighbours
from oracle.element_tables import encode_inputs
from oracle.elements import E2M1, E2M3, E3M2, E4M3, E5M2, FLOAT_ELEMENTS
from oracle.mx import MX_FORMATS, MX_RULES, PLAIN_MX_RULES, exponent_ceil, exponent_even, exponent_rceil
from oracle.mx_cases import MX_THRESHOLDS
from oracle.rounding import INF, ROUNDINGS, pow2
from oracle.spec_vectors import X, floats, layout_vector, near_decimal
from oracle.tensors import Input, Params, quantize


def check_rounding_table():
    points = [Fraction(k, 2) for k in (-5, -3, -1, 1, 3, 5)]
    table = {"nearest-even": [-2, -2, 0, 0, 2, 2], "away": [-3, -2, -1, 1, 2, 3], "up": [-2, -1, 0, 1, 2, 3],
             "truncate": [-2, -1, 0, 0, 1, 2]}
    for name, expected in table.items():
        assert [ROUNDINGS[name](u) for u in points] == expected, name


def check_binary_types():
    """Every bf16 and f16 pattern survives value -> bits; a few known binary32 patterns."""
    for binary in (BF16, F16):
        for bits in range(1 << 16):
            neg, v = binary.value(bits)
            if v is not None:
                assert binary.bits(binary.round(v), neg) == bits
                assert abs(v) == INF or F32.round(v) == v
    for text, bits in (("1", 0x3F800000), ("-2.6", 0xC0266666), ("0.1", 0x3DCCCCCD), ("1e-45", 1), ("-0", NEG_ZERO)):
        assert f32_bits_of(text) == bits, text
    assert F32.bits(F32.max) == FLT_MAX and F16.max == 65504
    assert F16.round(Fraction(65519)) == 65504 and F16.round(Fraction(65520)) == INF
    assert F32.bits(pow2(-127)) == 0x00400000  # the E8M0 byte 0 is a binary32 subnormal


def check_element_facts():
    """The tables of numerics 3 and layouts 1.1: maximum, smallest normal, smallest subnormal."""
    table = [(E5M2, 57344, -14, -16), (E4M3, 448, -6, -9), (E3M2, 28, -2, -4), (E2M3, Fraction("7.5"), 0, -3),
             (E2M1, 6, 0, -1)]
    for elem, biggest, normal, subnormal in table:
        assert elem.max == biggest and elem.max < pow2(elem.emax + 1) and elem.max >= pow2(elem.emax)
        assert elem.magnitude(1 << elem.m) == pow2(normal) and elem.magnitude(1) == pow2(subnormal)
        assert elem.code_of[elem.max] == max(elem.code_of.values())
    assert [E2M1.magnitude(c) for c in range(8)] == floats("0 .5 1 1.5 2 3 4 6")


def check_nearest_by_search():
    """Rounding on the grid equals the nearest table entry, ties to the even code."""
    for elem in FLOAT_ELEMENTS:
        values = sorted(elem.code_of)
        for bits in encode_inputs(elem):
            u = f32_value(bits)
            best = min(values, key=lambda v: (abs(v - u), elem.code_of[v] & 1))
            assert elem.encode(0, u, "nearest-even") == elem.code_of[best], (elem.name, bits)


def check_e2m1_thresholds():
    """layouts 1.4: nearest-even changes E2M1 at >.25 >=.75 >1.25 >=1.75 >2.5 >=3.5 >5."""
    table = [(".25", 0), (".75", 1), ("1.25", 0), ("1.75", 1), ("2.5", 0), ("3.5", 1), ("5", 0)]
    for lower_code, (text, inclusive) in enumerate(table):
        bits = f32_bits_of(text)
        codes = [E2M1.encode(0, f32_value(b), "nearest-even") for b in with_neighbours(bits)]
        assert codes == [lower_code, lower_code + inclusive, lower_code + 1]


def check_rule_thresholds():
    """Where a rule's exponent rises above floor: numerics 3, layouts 1.3."""
    even = {"mxfp4": "1.75", "mxfp8_e5m2": "1.875", "mxfp6_e3m2": "1.875", "mxfp8_e4m3": "1.9375",
            "mxfp6_e2m3": "1.9375", "mxint8": "1.998046875"}
    rceil = {"mxfp4": "1.5", "mxfp8_e4m3": "1.75"}
    for fmt, elem in MX_FORMATS.items():
        for k in (-30, 0, 7):
            at = F32.bits(Fraction(even[fmt]) * pow2(k))
            rises = [exponent_even(f32_value(b), elem) - (k - elem.emax) for b in with_neighbours(at)]
            assert rises == [0, 1, 1], (fmt, "even")
            at = F32.bits(pow2(k))
            rises = [exponent_ceil(f32_value(b), elem) - (k - elem.emax) for b in with_neighbours(at)]
            assert rises == [0, 0, 1], (fmt, "ceil")
            if fmt in rceil:
                at = F32.bits(Fraction(rceil[fmt]) * pow2(k))
                rises = [exponent_rceil(f32_value(b), elem) - (k - elem.emax) for b in with_neighbours(at)]
                assert rises == [0, 0, 1], (fmt, "rceil")


def check_scaled_maxima():
    """layouts 1.3: the interval of amax / 2^e. (rule, lower, upper, lower included, upper included)"""
    table = {"mxfp4": [("floor", "4", "8", 1, 0), ("even", "3.5", "7", 1, 0), ("rceil", "3", "6", 0, 1),
                       ("ceil", "2", "4", 0, 1)],
             "mxfp8_e4m3": [("floor", "256", "512", 1, 0), ("even", "248", "496", 1, 0), ("rceil", "224", "448", 0, 1),
                            ("ceil", "128", "256", 0, 1)]}
    lcg = Lcg("scaled maxima")
    samples = [0x30000000 + lcg.below(0x20000000) for _ in range(400)]
    samples += [b for t in MX_THRESHOLDS for b in with_neighbours(F32.bits(t))]
    for fmt, rows in table.items():
        for rule, lower, upper, with_lower, with_upper in rows:
            for bits in samples:
                amax = f32_value(bits)
                u = amax / pow2(PLAIN_MX_RULES[rule](amax, MX_FORMATS[fmt]))
                lo, hi = Fraction(lower), Fraction(upper)
                assert lo < u < hi or (u == lo and with_lower) or (u == hi and with_upper), (fmt, rule, bits)


def check_int_facts():
    """What numerics 8.5 states beyond codes and scales."""
    def run(fmt, x):
        data = Input("", 1, len(x), [f32_bits_of(v) for v in x])
        result = quantize(fmt, data, Params(8, "absmax", "nearest-even", "f32"))
        return result["codes"], result["zeros"], [f32_value(b) for b in result["y"]]

    assert near_decimal(run("int8", X)[2][7], "2.5898")
    stated = "1.04 -.346667 0 -1.38667 .693333 0 -.693333 2.42667".split()
    assert all(near_decimal(y, t) for y, t in zip(run("int4", X)[2], stated))
    # 8.5.3, signed asymmetric int4: the unsigned codes and zero point moved by 8
    codes, zeros, _ = run("uint4", X)
    assert [c - 8 for c in codes] == [0, -4, -3, -8, -1, -3, -6, 7] and zeros[0] - 8 == -3


def check_layout_vector():
    first = floats("-0.453125 -0.30859375 -0.1640625 -0.01953125 0.125 0.26953125 0.4140625 -0.4375")
    values = layout_vector()
    assert values[:8] == first and all(BF16.round(v) == v for v in values)
    assert max(map(abs, values[:32])) == Fraction("1.8125") / 4
    assert max(map(abs, values[32:64])) == Fraction("1.953125") / 8


def check_zero_groups():
    """Section 6: zero groups give byte 0 (or the scale 2^-23) and exact zeros."""
    data = one_row("", [0, NEG_ZERO, 0])
    for fmt in [*MX_FORMATS, *INT_FORMATS]:
        for rule in MX_RULES if fmt in MX_FORMATS else ("absmax", "mse"):
            dtype = None if fmt in MX_FORMATS else "f16"
            result = quantize(fmt, data, Params(8, rule, "nearest-even", dtype))
            assert result["scales"] == ([0] if dtype is None else [F16.bits(pow2(-23))])
            assert all(f32_value(b) == 0 for b in result["y"])

SELF_CHECKS = [check_rounding_table, check_binary_types, check_element_facts, check_nearest_by_search,
               check_e2m1_thresholds, check_rule_thresholds, check_scaled_maxima, check_int_facts, check_layout_vector,
               check_zero_groups]
