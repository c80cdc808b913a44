"""Inputs: pseudo-random weights, and rows chosen for the place they lie in."""

from fractions import Fraction

from oracle.binary import F32, FLT_MAX, NEG_ZERO, f32_bits_of, fl
from oracle.rounding import pow2
from oracle.tensors import Input


class Lcg:
    """Knuth's 64-bit linear congruential generator, seeded by a text; the top 32 bits of the state are used."""

    def __init__(self, text):
        self.state = 0
        for byte in text.encode():
            self.state = (self.state * 257 + byte + 1) % 2**64
        for _ in range(4):
            self.next()

    def next(self):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return self.state >> 32

    def below(self, n):
        return self.next() * n >> 32

    def pick(self, items):
        return items[self.below(len(items))]

    def sign(self):
        return 1 - 2 * self.below(2)

    def unit(self):
        """Uniform in [0, 1), 32 bits."""
        return Fraction(self.next(), 2**32)

    def gauss(self):
        """Sum of twelve uniforms: mean 0, variance 1."""
        return sum(self.unit() for _ in range(12)) - 6


def to_bits(values, binary=F32):
    """Binary32 patterns of values first rounded to `binary`."""
    return [F32.bits(binary.round(v)) for v in values]


def gauss_input(lcg, name, rows, cols, binary, power=1):
    values = [lcg.gauss() ** power / 50 for _ in range(rows * cols)]
    return Input(name, rows, cols, to_bits(values, binary))


def one_row(name, bits):
    return Input(name, 1, len(bits), bits)


def filler(lcg, amax, n):
    """n random values strictly inside (-amax, amax)."""
    return [lcg.sign() * amax * lcg.unit() * Fraction(15, 16) for _ in range(n)]


def subnormals(lcg, n):
    return [lcg.below(1 << 23) | lcg.below(2) << 31 for _ in range(n)]


def zero_row(n):
    """A group of mixed zeros, then only negative ones."""
    return [0, NEG_ZERO, 0] * 2 + [0, 0] + [NEG_ZERO] * (n - 8)


def outlier_row(lcg, n):
    values = [lcg.gauss() / 50 for _ in range(n)]
    values[3], values[9] = Fraction(-10000), Fraction(12345, 100)
    return to_bits(values)


def constant_row(n):
    return [f32_bits_of("0.1")] * 8 + [f32_bits_of("-0.3")] * (n - 8)


def huge_row(lcg, n, signs):
    """Large values whose amax is 1.4 * 2^127; signs: a function of the index."""
    amax = Fraction(7, 5) * pow2(127)
    values = [amax * Fraction(7 + lcg.below(8), 16) for _ in range(n)]
    values[5] = values[n - 2] = amax
    return to_bits(v * signs(i) for i, v in enumerate(values))


def flt_max_row(lcg, n, signs):
    row = huge_row(lcg, n, signs)
    for i in (2, n - 1):
        row[i] = FLT_MAX | (NEG_ZERO if signs(i) < 0 else 0)
    return row


def first_group_positive(i):
    return 1 if i < 8 else -1


def calm_rows(lcg, n):
    """Rows of one group of 8 and a tail that every scale type can hold."""
    tiny = [lcg.gauss() * Fraction("1e-30") for _ in range(n)]
    mixed = [b if i % 3 else f32_bits_of(Fraction(3, 2) * pow2(-126)) for i, b in enumerate(subnormals(lcg, n))]
    return [zero_row(n), mixed, subnormals(lcg, 8) + [1, 0x80000002, 3, 0, NEG_ZERO][:n - 8], to_bits(tiny),
            outlier_row(lcg, n), constant_row(n)]


def stack(name, rows):
    return Input(name, len(rows), len(rows[0]), [b for row in rows for b in row])


def with_neighbours(bits):
    return [bits - 1, bits, bits + 1]


def single_column(name, elem_max):
    values = ["0", "-0", "1", "-1", "3", "-7", "0.1", "1e-30"]
    bits = [f32_bits_of(v) for v in values] + with_neighbours(F32.bits(fl(elem_max * 8)))
    return Input(name, len(bits), 1, bits)
