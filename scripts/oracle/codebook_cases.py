"""Golden cases of the codebooks."""

from fractions import Fraction

from oracle.binary import BF16, F32, fl
from oracle.block_ties import mse_ties
from oracle.codebook import CODEBOOKS, codebook_mse_candidates
from oracle.distributions import (
    Lcg, calm_rows, flt_max_row, gauss_input, one_row, single_column, stack, to_bits, with_neighbours, zero_row,
)
from oracle.float_cases import alternating, extremes, scale_ends, scale_params, scale_points
from oracle.rounding import HALF
from oracle.scales import SCALE_TYPES


def threshold_row(book, sign):
    """Under the scale 1 (-1): every level, and every midpoint with its neighbours."""
    bits = [F32.bits(fl(sign * v)) for v in [-book.largest] + book.ascending]
    for middle in book.middles:
        bits += with_neighbours(F32.bits(fl(sign * middle)))
    return one_row("thresholds" if sign > 0 else "thresholds-negative", bits)


def peaks(lcg, book):
    """Groups of 5 led by a positive, a negative peak, by both of equal size, and one-sided groups."""
    values = []
    for lead in ([1, -HALF], [-1, HALF], [1, -1], [-1, 1], [1, HALF], [-1, -HALF]):
        if lead[0] * lead[1] > 0:
            inner = [lead[0] * lcg.unit() / 2 for _ in range(3)]
        else:
            inner = [lcg.gauss() / 8 for _ in range(3)]
        values += lead + inner
    return one_row("peaks", to_bits(v * Fraction(3, 32) for v in values))


def codebook_cases(fmt):
    book = CODEBOOKS[fmt]
    for rule in ("absmax", "mse"):
        lcg = Lcg(fmt + rule)
        matrix, heavy = gauss_input(lcg, "gauss-f32", 3, 11, F32), gauss_input(lcg, "heavy-f32", 1, 37, F32, 3)
        yield gauss_input(lcg, "gauss-bf16", 1, 144, BF16), scale_params(64 if book.largest == 1 else 32, rule, "f16")
        yield heavy, scale_params(16, rule, "bf16")
        yield heavy, scale_params("channel", rule, "f32")
        for group, dtype in ((5, "f16"), ("channel", "bf16"), ("tensor", "f32"), (1, "f16")):
            yield matrix, scale_params(group, rule, dtype)
        yield extremes(lcg), scale_params(8, rule, "f32")
        yield stack("calm", calm_rows(lcg, 13)), scale_params(8, rule, "f16")
        yield stack("zeros", [zero_row(12), [0] * 12]), scale_params(5, rule, "bf16")
        yield one_row("flt-max", flt_max_row(lcg, 13, alternating)), scale_params(8, rule, "f32")
        yield single_column("column", Fraction(book.largest)), scale_params(64, rule, "f32")
        yield peaks(lcg, book), scale_params(5, rule, "f16")
        for sign in (1, -1):
            yield threshold_row(book, sign), scale_params("channel", rule, "f32")
    lcg = Lcg(fmt + "range")
    for dtype in SCALE_TYPES:
        yield scale_points(lcg, fmt, book.largest, dtype), scale_params(4, "absmax", dtype)
    for data, rule in scale_ends(book.largest):
        yield data, scale_params("channel", rule, "f16")
    if fmt == "iq4nl":
        yield mse_ties(fmt, lambda xs: codebook_mse_candidates(xs, book, BF16)), scale_params(4, "mse", "bf16")
