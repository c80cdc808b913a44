"""Every code of the float elements, and encodings around every step of their grids."""

from oracle.binary import F32, FLT_MAX, NEG_ZERO, f32_bits_of
from oracle.distributions import with_neighbours
from oracle.elements import positive_midpoints
from oracle.rounding import ROUNDINGS, pow2


def decoded_text(elem, code):
    special = elem.specials.get(code & (elem.sign_bit - 1))
    if special is None:
        neg, v = elem.decode(code)
        return "%08x" % F32.bits(v, neg)
    return "-inf" if special == "inf" and code & elem.sign_bit else special


def encode_inputs(elem):
    """Positive binary32 patterns: element values, midpoints and their neighbours, beyond the maximum, tiny."""
    values = sorted(elem.code_of)
    bits = {F32.bits(v) for v in values}
    for middle in positive_midpoints(elem) + [elem.max * pow2(1), elem.max + (elem.max - values[-2]) / 2]:
        bits.update(with_neighbours(F32.bits(middle)))
    bits.update([F32.bits(elem.max) - 1, F32.bits(elem.max) + 1, 1, 0x00800000, FLT_MAX, f32_bits_of(1000000)])
    return sorted(bits)


def encode_pairs(elem, rounding):
    for b in encode_inputs(elem):
        for bits in (b, b | NEG_ZERO):
            neg, u = F32.value(bits)
            yield ["%08x" % bits, elem.encode(neg, u, rounding)]


def element_entry(elem):
    return {"name": elem.name, "bits": elem.nbits,
            "values": [decoded_text(elem, c) for c in range(1 << elem.nbits)],
            "encode": {r: list(encode_pairs(elem, r)) for r in ROUNDINGS}}
