"""Elements: what a code stands for, and the code of a number (NUMERICS.md 2)."""

from collections import namedtuple
from fractions import Fraction

from oracle.rounding import ROUNDINGS, clamp, ilog2, pow2

Weight = namedtuple("Weight", "neg value")  # neg tells -0 from 0


class FloatElement:
    def __init__(self, name, ebits, mbits, bias, emax, maximum, specials):
        self.name, self.ebits, self.m, self.bias, self.emax = name, ebits, mbits, bias, emax
        self.nbits = 1 + ebits + mbits
        self.sign_bit = 1 << (self.nbits - 1)
        self.max = Fraction(maximum)
        self.specials = specials  # magnitude code -> "nan" or "inf"
        self.code_of = {self.magnitude(c): c for c in range(self.sign_bit) if c not in specials}
        assert max(self.code_of) == self.max

    def magnitude(self, code):
        field, mantissa = code >> self.m, code & ((1 << self.m) - 1)
        hidden = 1 << self.m if field else 0
        return (mantissa + hidden) * pow2(max(field, 1) - self.bias - self.m)

    def decode(self, code):
        """(negative, value) of a finite code."""
        neg = code >> (self.nbits - 1)
        a = self.magnitude(code & (self.sign_bit - 1))
        return neg, -a if neg else a

    def encode(self, neg, u, rounding):
        exponent = max(ilog2(abs(u)), 1 - self.bias) if u else 1 - self.bias
        step = pow2(exponent - self.m)
        a = min(abs(ROUNDINGS[rounding](u / step) * step), self.max)
        return self.code_of[a] | (self.sign_bit if neg else 0)


class MxInt8Element:
    """Signed codes with the implicit factor 2^-6; -128 is written with the full negative end alone."""
    name, emax, m, max = "mxint8", 0, 8, Fraction(127, 64)

    def __init__(self, lowest=-127):
        self.lowest = lowest

    def decode(self, code):
        return code < 0, Fraction(code, 64)

    def encode(self, neg, u, rounding):
        return clamp(ROUNDINGS[rounding](u * 64), self.lowest, 127)


class IeeeElement:
    """A binary type as an element: saturates, where the type itself would overflow to infinity."""

    def __init__(self, binary):
        self.name, self.binary, self.m, self.max = binary.name, binary, binary.mbits, binary.max

    def decode(self, code):
        return self.binary.value(code)

    def encode(self, neg, u, rounding):
        step = pow2((max(ilog2(abs(u)), self.binary.emin) if u else self.binary.emin) - self.m)
        a = min(abs(ROUNDINGS[rounding](u / step) * step), self.max)
        return self.binary.bits(-a if neg else a, neg)


def nan_tail(first, last):
    return {code: "nan" for code in range(first, last + 1)}


E2M1 = FloatElement("e2m1", 2, 1, 1, 2, 6, {})
E2M3 = FloatElement("e2m3", 2, 3, 1, 2, "7.5", {})
E3M2 = FloatElement("e3m2", 3, 2, 3, 4, 28, {})
E4M3 = FloatElement("e4m3", 4, 3, 7, 8, 448, nan_tail(0x7F, 0x7F))
E5M2 = FloatElement("e5m2", 5, 2, 15, 15, 57344, {0x7C: "inf", **nan_tail(0x7D, 0x7F)})
FLOAT_ELEMENTS = [E2M1, E2M3, E3M2, E4M3, E5M2]
ELEMENT_BY_NAME = {e.name: e for e in FLOAT_ELEMENTS}


def positive_midpoints(elem):
    if isinstance(elem, MxInt8Element):
        return [Fraction(2 * i + 1, 128) for i in range(127)]
    values = sorted(elem.code_of)
    return [(a + b) / 2 for a, b in zip(values, values[1:])]
