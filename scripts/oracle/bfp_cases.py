"""Golden cases of bfp, bfp-prime and mxint8 with its full negative end."""

from fractions import Fraction

from oracle.bfp import bfp_search_candidates, step_of
from oracle.binary import BF16, F32, FLT_MAX, NEG_ZERO, f32_value
from oracle.block_formats import BFP_FORMATS, PRIME_FORMATS, BlockParams
from oracle.distributions import (
    Lcg, calm_rows, filler, flt_max_row, gauss_input, huge_row, one_row, single_column, stack, to_bits, with_neighbours,
)
from oracle.elements import MxInt8Element
from oracle.errors import least_error
from oracle.mx import MX_RULES
from oracle.mx_cases import mx_extremes, mx_floor_minus_one, mx_threshold_groups, mx_ties
from oracle.near_ties import as_weights, flip_point, order_sensitive
from oracle.prime import Prime, prime_search_candidates
from oracle.rounding import HALF, ROUNDINGS, pow2

RULES = ("floor", "search")
PLAIN = "nearest-even"
NAMED = ("bfp16", "bfp8_b", "bfp4_b", "mx9", "mx6", "mx4")


def ties(lcg, m, n, low=-3):
    """A largest weight without error, all others halfway between two codes; both ends of the range of codes."""
    step, top = step_of(127 + low, m), (1 << m) - 1
    halves = [(lcg.below(top) + HALF) * lcg.sign() for _ in range(n - 4)]
    values = [top, top + HALF, -top - HALF, HALF - top] + halves
    return one_row("ties", to_bits(v * step for v in values))


def binade_ends(lcg, m):
    """Groups of 5 led by a weight at, or beside, a power of two, or the last code or half code below one."""
    leads = [1, 2 - pow2(-m), 2 - pow2(1 - m), 2 - pow2(-m) - pow2(1 - m)]
    bits = []
    for lead in leads:
        for b in with_neighbours(F32.bits(Fraction(lead) * pow2(lcg.below(60) - 30))):
            bits += [b | lcg.below(2) << 31] + to_bits(filler(lcg, f32_value(b), 4))
    return one_row("binade-ends", bits)


def both_ends(m):
    """Largest weights of either sign, alone and together, that round up beyond the last code."""
    top, over = (1 << m) - Fraction(1, 4), (1 << m) - HALF
    groups = [[over, 1, -1, 0], [-over, 1, -1, 0], [top, -top, 1, 0], [-top, over, 2, -2]]
    return one_row("both-ends", to_bits(Fraction(v) for g in groups for v in g))


def byte_ends(lcg):
    """Bytes 0, 1, 2 and 254, 253: largest weights around the smallest normal and up to FLT_MAX."""
    bits = []
    for lead in (0x00400000, 0x007FFFFF, 0x00800000, 0x00FFFFFF, 0x01000000, 0x01FFFFFF, 0x7E800000, 0x7EFFFFFF,
                 0x7F000000, FLT_MAX):
        for sign in (0, NEG_ZERO):
            inner = [b | lcg.below(2) << 31 for b in (lcg.below(lead), lead - 1, lcg.below(1 << 24))]
            bits += [lead | sign] + inner
    return one_row("byte-ends", bits)


def extremes(lcg):
    return stack("extremes", calm_rows(lcg, 13) + [huge_row(lcg, 13, lambda i: (-1) ** i),
                                                   flt_max_row(lcg, 13, lambda i: (-1) ** i)])


def one_lower(lcg, m):
    """A power of two and odd multiples of half a step: one exponent lower wins where that pays."""
    step = step_of(127, m)
    odd = [step * lcg.sign() * lcg.pick([HALF, HALF * 3]) for _ in range(31)]
    return one_row("floor-1", to_bits([Fraction(1)] + odd))


def moving_maximum(candidates_of):
    """Near ties of two candidates, found by moving the largest weight within its binade."""
    def tip_over(bits):
        def choice(b):
            return least_error(candidates_of([b] + bits[1:]))

        low = F32.bits(Fraction(1, 8))
        for b in flip_point(choice, low, low + (1 << 23) - 1):
            yield [b] + bits[1:], candidates_of([b] + bits[1:])
    return tip_over


def bfp_params(group, rule, rounding=PLAIN, **options):
    return BlockParams(group, rule, rounding, None, options)


def common_inputs(lcg, m):
    """(input, group) pairs for every rule."""
    return [(gauss_input(lcg, "gauss-bf16", 1, 72, BF16), 16), (gauss_input(lcg, "heavy-f32", 1, 37, F32, 3), 8),
            (binade_ends(lcg, m), 5), (extremes(lcg), 8), (byte_ends(lcg), 4), (both_ends(m), 4)]


def sum_order(lcg, candidates_of):
    return order_sensitive(lcg, moving_maximum(lambda bits: candidates_of(as_weights(bits))), 3)


def bfp_cases(fmt):
    m, lcg = BFP_FORMATS[fmt], Lcg(fmt)
    yield from named_bfp_cases(m, lcg) if fmt in NAMED else plain_bfp_cases(m, lcg)
    if m <= 4:
        yield sum_order(lcg, lambda xs: bfp_search_candidates(xs, m, 0, PLAIN)), bfp_params(32, "search")


def plain_bfp_cases(m, lcg):
    inputs, halfway = common_inputs(lcg, m), ties(lcg, m, 24)
    for rule in RULES:
        for data, group in inputs[:1] + inputs[4:]:
            yield data, bfp_params(group, rule)
    for rounding in ROUNDINGS:
        yield halfway, bfp_params(24, "search", rounding)


def named_bfp_cases(m, lcg):
    inputs, small = common_inputs(lcg, m), gauss_input(lcg, "gauss-f32", 2, 11, F32)
    halfway, lower = ties(lcg, m, 24), one_lower(lcg, m)
    for options in ({}, {"kernel": 1}) if m == 7 else ({},):
        for rule in RULES:
            for data, group in inputs:
                yield data, bfp_params(group, rule, **options)
            for rounding in ROUNDINGS:
                yield halfway, bfp_params(24, rule, rounding, **options)
        for rounding in ROUNDINGS:
            if rounding != PLAIN:
                yield inputs[-1][0], bfp_params(4, "floor", rounding, **options)
            yield small, bfp_params(5, "search", rounding, **options)
        yield lower, bfp_params(32, "search", **options)
    yield lower, bfp_params(32, "search", "truncate")
    yield single_column("column", Fraction((1 << m) - 1)), bfp_params(8, "search")
    for group in (1, 8, 64, 32768):
        yield small, bfp_params(group, "search")


def prime_params(group, rule, rounding=PLAIN, sub_block=2, shift_bits=1):
    return BlockParams(group, rule, rounding, None, {"sub_block": sub_block, "shift_bits": shift_bits})


def spread_pairs(lcg, m, n):
    """Pairs that lie 0 to 9 binades below the largest weight; in every third the larger one rounds up to 2^m."""
    values = []
    for i in range(n // 2):
        scale = pow2(-lcg.below(10) if i else 0)
        a = (2 - pow2(-m - 1)) if i % 3 == 0 else 1 + lcg.unit()
        values += [a * scale * lcg.sign(), lcg.gauss() / 6 * scale]
    return one_row("spread", to_bits(values))


def prime_cases(fmt):
    m, lcg = PRIME_FORMATS[fmt], Lcg(fmt)
    yield from named_prime_cases(m, lcg) if fmt in NAMED else plain_prime_cases(m, lcg)
    if fmt in ("mx4", "mx6"):
        prime = Prime(m, 2, 1)
        yield sum_order(lcg, lambda xs: prime_search_candidates(xs, prime, PLAIN)), prime_params(32, "search")


def plain_prime_cases(m, lcg):
    halfway, spread = ties(lcg, m, 24), spread_pairs(lcg, m, 38)
    for rule in RULES:
        yield spread, prime_params(16, rule)
        yield spread, prime_params(16, rule, PLAIN, 4, 3)
    yield byte_ends(lcg), prime_params(4, "search")
    for rounding in ROUNDINGS:
        yield halfway, prime_params(24, "search", rounding)


def named_prime_cases(m, lcg):
    inputs, small = common_inputs(lcg, m), gauss_input(lcg, "gauss-f32", 2, 11, F32)
    halfway, spread, lower = ties(lcg, m, 24), spread_pairs(lcg, m, 38), one_lower(lcg, m)
    for rule in RULES:
        for data, group in inputs:
            yield data, prime_params(group if group != 5 else 6, rule)
        yield spread, prime_params(16, rule)
        for rounding in ROUNDINGS:
            yield halfway, prime_params(24, rule, rounding)
            yield small, prime_params(6, rule, rounding, 3, 2)
        for shift_bits in (0, 2, 3):
            yield spread, prime_params(16, rule, PLAIN, 2, shift_bits)
        for sub_block in (1, 4, 16):
            yield spread, prime_params(16, rule, PLAIN, sub_block, 1 if sub_block != 4 else 3)
    yield lower, prime_params(32, "search")
    yield single_column("column", Fraction((1 << m) - 1)), prime_params(16, "search")
    yield small, prime_params(32768, "search", PLAIN, 32768, 3)


def full_mxint8_cases(fmt):
    lcg, elem = Lcg("mxint8-full"), MxInt8Element(-128)
    ends = "-1.999 1.999 .5 0 -1.9921875 1.9921875 -1.99 -2 2 -0.75".split()
    ends = one_row("ends", to_bits(map(Fraction, ends)))
    inputs = [(ends, 4), (gauss_input(lcg, "gauss-bf16", 1, 72, BF16), 32), (mx_threshold_groups(lcg), 5),
              (mx_extremes(lcg, elem), 8), (byte_ends(lcg), 4)]
    halfway, lower = mx_ties(lcg, elem), mx_floor_minus_one(lcg, elem)

    def params(group, rule, rounding=PLAIN):
        return BlockParams(group, rule, rounding, None, {"negative_end": "full"})

    for rule in MX_RULES:
        for data, group in inputs:
            yield data, params(group, rule)
    for rounding in ROUNDINGS:
        yield ends, params(10, "floor", rounding)
        yield halfway, params(32, "search", rounding)
        yield lower, params(32, "search", rounding)
