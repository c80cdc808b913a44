"""Casts: weights as binary16 or bfloat16 numbers (NUMERICS_BLOCK.md 5)."""

from oracle.binary import BF16, F16, F32
from oracle.elements import IeeeElement

CASTS = {"f16": IeeeElement(F16), "bf16": IeeeElement(BF16)}


def cast_weights(xs, elem, rounding):
    """Codes, bit patterns of the decoded values."""
    codes = [elem.encode(x.neg, x.value, rounding) for x in xs]
    return codes, [F32.bits(v, neg) for neg, v in map(elem.decode, codes)]
