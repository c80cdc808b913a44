"""BFP prime: blocks whose sub-blocks carry a small shift each (NUMERICS_BLOCK.md 2)."""

from collections import namedtuple
from fractions import Fraction

from oracle.bfp import bfp_codes, bfp_values, bytes_around, largest_field, unit_terms
from oracle.binary import F32
from oracle.elements import Weight
from oracle.errors import least_error
from oracle.rounding import clamp

Prime = namedtuple("Prime", "m sub_block shift_bits")


def flushed(x):
    return x if abs(x.value) >= Fraction(1, 1 << 126) else Weight(0, Fraction(0))


def parts_of(items, size):
    return [items[at:at + size] for at in range(0, len(items), size)] if items is not None else None


def floor_shift(e, part, prime):
    return clamp(e - largest_field(part), 0, (1 << prime.shift_bits) - 1)


def part_values(part, prime, e, shift, rounding):
    codes = bfp_codes(part, prime.m, 0, e - shift, rounding)
    return codes, bfp_values(codes, prime.m, e - shift)


def shift_candidates(part, prime, e, e0, rounding, weights):
    """[(error terms, (shift, error terms)), ..] of one sub-block."""
    shift = floor_shift(e, part, prime)
    out = []
    for s in [shift, shift - 1][:1 + (shift > 0)]:
        terms = unit_terms(part, part_values(part, prime, e, s, rounding)[1], e0, weights)
        out.append((terms, (s, terms)))
    return out


def prime_search_candidates(xs, prime, rounding, weights=None):
    """[(error terms, (byte, shifts)), ..]"""
    e0 = largest_field(xs)
    parts = parts_of(xs, prime.sub_block)
    parts_weights = parts_of(weights, prime.sub_block) or [None] * len(parts)
    out = []
    for e in bytes_around(e0):
        best = [least_error(shift_candidates(part, prime, e, e0, rounding, w)) for part, w in zip(parts, parts_weights)]
        out.append(([t for _, terms in best for t in terms], (e, [s for s, _ in best])))
    return out


def prime_floor(xs, prime):
    e0 = largest_field(xs)
    return e0, [floor_shift(e0, part, prime) for part in parts_of(xs, prime.sub_block)]


def quantize_prime_group(xs, prime, rule, rounding, weights=None):
    """Exponent byte, shifts, codes, bit patterns of the decoded values."""
    xs = [flushed(x) for x in xs]
    if rule == "search":
        e, shifts = least_error(prime_search_candidates(xs, prime, rounding, weights))
    else:
        e, shifts = prime_floor(xs, prime)
    codes, ys = [], []
    for part, s in zip(parts_of(xs, prime.sub_block), shifts):
        part_codes, values = part_values(part, prime, e, s, rounding)
        codes += part_codes
        ys += [F32.bits(v) for v in values]
    return e, shifts, codes, ys
