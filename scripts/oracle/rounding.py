"""Exact helpers on rationals, and the four rounding modes (NUMERICS.md 1)."""

from fractions import Fraction
from functools import lru_cache

INF = float("inf")  # the only float in the oracle: what an overflowing rounding yields
HALF = Fraction(1, 2)


@lru_cache(maxsize=None)
def pow2(e):
    return Fraction(1 << e) if e >= 0 else Fraction(1, 1 << -e)


def ilog2(a):
    """floor(log2 a) of a Fraction a > 0."""
    n, d = a.numerator, a.denominator
    e = n.bit_length() - d.bit_length()
    at_least = n >= d << e if e >= 0 else n << -e >= d
    return e if at_least else e - 1


def ceil_log2(a):
    e = ilog2(a)
    return e if pow2(e) == a else e + 1


def clamp(v, lo, hi):
    return max(lo, min(hi, v))


def sign(v):
    return -1 if v < 0 else 1


def nearest_even(u):
    below = u.numerator // u.denominator
    rest = u - below
    if rest == HALF:
        return below + (below & 1)
    return below if rest < HALF else below + 1


def nearest_away(u):
    v = abs(u) + HALF
    return sign(u) * (v.numerator // v.denominator)


def nearest_up(u):
    v = u + HALF
    return v.numerator // v.denominator


def toward_zero(u):
    return sign(u) * (abs(u.numerator) // u.denominator)

ROUNDINGS = {
    "nearest-even": nearest_even,
    "away": nearest_away,
    "up": nearest_up,
    "truncate": toward_zero,
}
