"""IEEE binary types: rounding of rationals, and bit patterns."""

from fractions import Fraction

from oracle.rounding import INF, ilog2, pow2


class Binary:
    """An IEEE binary type with infinities: rounding of rationals, and bit patterns."""

    def __init__(self, name, ebits, mbits):
        self.name, self.ebits, self.mbits = name, ebits, mbits
        self.bias = (1 << (ebits - 1)) - 1
        self.emin, self.emax = 1 - self.bias, self.bias
        self.max = (2 - pow2(-mbits)) * pow2(self.emax)
        self.digits = (1 + ebits + mbits) // 4

    def round(self, v):
        """To nearest, ties to even, subnormals kept; +-INF beyond the range; infinities stay."""
        if isinstance(v, float) or v == 0:
            return v
        n, d = abs(v.numerator), v.denominator
        q = max(ilog2(abs(v)), self.emin) - self.mbits  # one unit in the last place is 2^q
        if q >= 0:
            d <<= q
        else:
            n <<= -q
        k, rest = divmod(n, d)
        if 2 * rest > d or (2 * rest == d and k & 1):
            k += 1
        r = Fraction(k) * pow2(q)
        if r > self.max:
            r = INF
        return -r if v < 0 else r

    def bits(self, v, neg=None):
        """The bit pattern of a representable value; neg gives the sign of a zero."""
        neg = v < 0 if neg is None or v != 0 else neg
        top = int(neg) << (self.ebits + self.mbits)
        field_max = (1 << self.ebits) - 1
        a = abs(v)
        if a == INF:
            return top | field_max << self.mbits
        if a == 0:
            return top
        e = max(ilog2(a), self.emin)
        significand = a / pow2(e - self.mbits)
        assert significand.denominator == 1, "not representable"
        # a normal significand has its leading one at bit mbits, which adds 1 to the exponent field below
        return top | ((e - self.emin << self.mbits) + significand.numerator)

    def value(self, bits):
        """(negative, value) of a bit pattern; the value is INF or None (NaN) for the top exponent field."""
        neg = bits >> (self.ebits + self.mbits) & 1
        field = bits >> self.mbits & ((1 << self.ebits) - 1)
        mantissa = bits & ((1 << self.mbits) - 1)
        if field == (1 << self.ebits) - 1:
            return neg, None if mantissa else (-INF if neg else INF)
        hidden = 1 << self.mbits if field else 0
        a = (mantissa + hidden) * pow2(max(field, 1) - self.bias - self.mbits)
        return neg, -a if neg else a


F32 = Binary("f32", 8, 23)
BF16 = Binary("bf16", 8, 7)
F16 = Binary("f16", 5, 10)


fl = F32.round
FLT_MAX = 0x7F7FFFFF
NEG_ZERO = 0x80000000


def f32_bits_of(v):
    """Bit pattern of the binary32 nearest to a number or to a decimal string ("-0" keeps its sign)."""
    neg = isinstance(v, str) and v.startswith("-")
    return F32.bits(fl(Fraction(v)), neg)


def f32_value(bits):
    return F32.value(bits)[1]
