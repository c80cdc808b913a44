"""Codebooks: sixteen levels under a scale (NUMERICS_BLOCK.md 7)."""

from bisect import bisect_left
from fractions import Fraction

from oracle.binary import F32, NEG_ZERO, f32_bits_of, fl
from oracle.errors import least_error
from oracle.scaled_float import amax_of, mse_over_steps, part_of_amax
from oracle.scales import store_scale

NF4_LEVELS = """
    -1 -0.6961928009986877 -0.5250730514526367 -0.39491748809814453 -0.28444138169288635
    -0.18477343022823334 -0.09105003625154495 0 0.07958029955625534 0.16093020141124725
    0.24611230194568634 0.33791524171829224 0.44070982933044434 0.5626170039176941 0.7229568362236023 1
""".split()
FP4_TWELFTHS = "0 0.0625 8 12 4 6 2 3".split()
IQ4_LEVELS = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]


class Codebook:
    def __init__(self, name, level_bits):
        self.name, self.level_bits = name, level_bits
        self.levels = [F32.value(b)[1] for b in level_bits]
        self.ascending = sorted(set(self.levels))
        self.middles = [(a + b) / 2 for a, b in zip(self.ascending, self.ascending[1:])]
        self.largest = max(map(abs, self.levels))
        self.negative_end = -self.largest in self.levels and self.largest not in self.levels

    def encode(self, u):
        """The nearest level, of two the lower one, of equal ones the lower index."""
        return self.levels.index(self.ascending[bisect_left(self.middles, u)])

    def sign_of_scale(self, xs):
        return -1 if self.negative_end and max(x.value for x in xs) > -min(x.value for x in xs) else 1

    def zero_scale(self):
        """The scale of a group of zeros where no level is zero."""
        return None if 0 in self.levels else Fraction(0)


FP4_LEVELS = [f32_bits_of(Fraction(v) / 12) | neg for neg in (0, NEG_ZERO) for v in FP4_TWELFTHS]
CODEBOOKS = {
    "nf4": Codebook("nf4", [f32_bits_of(v) for v in NF4_LEVELS]),
    "fp4_bnb": Codebook("fp4_bnb", FP4_LEVELS),
    "iq4nl": Codebook("iq4nl", [f32_bits_of(v) for v in IQ4_LEVELS]),
}


def codebook_codes(xs, book, s):
    return [book.encode(fl(x.value / s) if s else Fraction(0)) for x in xs]


def codebook_values(codes, book, s):
    return [fl(book.levels[c] * s) for c in codes]


def codebook_mse_candidates(xs, book, scale_type, weights=None):
    amax, sign = amax_of(xs), book.sign_of_scale(xs)
    return mse_over_steps(
        lambda k: sign * store_scale(fl(part_of_amax(amax, k) / book.largest), scale_type, book.largest),
        lambda s: codebook_values(codebook_codes(xs, book, s), book, s), xs, weights)


def codebook_scale(xs, book, rule, scale_type, weights):
    if amax_of(xs) == 0 and book.zero_scale() is not None:
        return book.zero_scale()
    if rule == "mse":
        return least_error(codebook_mse_candidates(xs, book, scale_type, weights))
    return book.sign_of_scale(xs) * store_scale(fl(amax_of(xs) / book.largest), scale_type, book.largest)


def quantize_codebook_group(xs, book, rule, scale_type, weights=None):
    """Scale bits, codes, bit patterns of the decoded values."""
    s = codebook_scale(xs, book, rule, scale_type, weights)
    codes = codebook_codes(xs, book, s)
    ys = codebook_values(codes, book, s)
    return scale_type.bits(s), codes, [F32.bits(y) for y in ys]
