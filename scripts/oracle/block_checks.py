"""Properties of the block families: what NUMERICS_BLOCK.md states beside the rules."""

from fractions import Fraction

from oracle.bfp import bfp_codes, bfp_values, code_limits, largest_field, step_of
from oracle.binary import BF16, F32, FLT_MAX, NEG_ZERO, f32_bits_of, f32_value, fl
from oracle.block_formats import (
    BFP_FORMATS, BLOCK_FORMATS, CODEBOOKS, PRIME_FORMATS, SCALED_FLOATS, BlockParams, quantize_blocks,
)
from oracle.distributions import Lcg, gauss_input, one_row, to_bits, with_neighbours
from oracle.elements import E2M1, E4M3
from oracle.mx import clamp_exponent, exponent_floor
from oracle.near_ties import as_weights
from oracle.nvfp4 import FULL
from oracle.rounding import ROUNDINGS, pow2
from oracle.tensors import Params, quantize

PLAIN = "nearest-even"
# section 7: the thresholds between the levels in ascending order, as binary32
THRESHOLDS = {
    "nf4": "BF591CD9 BF1C5271 BEEB8480 BEADEA77 BE703CED BE0D38BC BD3A7871 3D22FAFF 3DF64862 3E5067E0 3E9582D4 "
           "3EC753F9 3F006D03 3F248DAF 3F5C89D9",
    "fp4_bnb": "BF555556 BF155556 BED55556 BE955556 BE555556 BDB00001 BB2AAAAB 3B2AAAAB 3DB00000 3E555555 3E955555 "
               "3ED55555 3F155555 3F555555",
    "iq4nl": " ".join("%08X" % f32_bits_of(v) for v in
                      "-115.5 -93.5 -74 -57 -42 -28.5 -16 -4.5 7 19 31.5 45.5 61 79 101".split()),
}


def defaults(fmt, rule=None, kernel=None):
    """Parameters of a format on groups of 16, f32 scales."""
    if fmt in PRIME_FORMATS:
        return BlockParams(16, rule or "floor", PLAIN, None, {"sub_block": 2, "shift_bits": 1})
    if fmt in BFP_FORMATS:
        return BlockParams(16, rule or "floor", PLAIN, None, {} if kernel is None else {"kernel": kernel})
    if fmt in ("f16", "bf16"):
        return BlockParams(None, None, PLAIN, None, {})
    if fmt == "nvfp4":
        return BlockParams(16, rule or "search", PLAIN, None, {"tensor_scale": "f32"})
    return BlockParams(16, rule or "absmax", PLAIN, "f32", {})


def check_bfp_is_like_mx():
    """Section 1: the byte of floor is that of an MX element with emax 0; every weight is exact; E8M0 times 2^-(m-1)."""
    class Emax0:
        emax = 0

    lcg = Lcg("bfp floor")
    for bits in [1, 2, 0x00400000, 0x007FFFFF, 0x00800000, FLT_MAX] + [1 + lcg.below(FLT_MAX) for _ in range(300)]:
        amax = f32_value(bits)
        assert largest_field(as_weights([bits])) == clamp_exponent(exponent_floor(amax, Emax0), Emax0) + 127
    for m in range(1, 16):
        for e in (0, 1, 2, 100, 253, 254):
            assert step_of(e, m) == pow2(e - 127) * pow2(1 - m) == fl(step_of(e, m))
            lo, hi = code_limits(m, m == 7, e)
            assert bfp_values([lo, hi, 1, -1], m, e)


def packed_bfp(bits, shared, m):
    """Tenstorrent's packer in our words: align the 24-bit significand, round to nearest even, saturate."""
    if bits & 0x7FFFFFFF == 0:
        return 0
    significand = 1 << 23 | bits & 0x7FFFFF
    significand >>= min(shared - (bits >> 23 & 0xFF), 24)
    whole, rest, half = significand >> 24 - m, significand & (1 << 24 - m) - 1, 1 << 23 - m
    whole = min(whole + (rest > half or (rest == half and whole & 1)), (1 << m) - 1)
    return -whole if bits >> 31 else whole


def check_tenstorrent():
    """Section 1: for BF16 weights their codes are ours."""
    lcg = Lcg("tenstorrent")
    for m in (7, 3):
        for _ in range(60):
            bits = to_bits([lcg.gauss() * pow2(-lcg.below(12)) for _ in range(16)], BF16)
            xs = as_weights(bits)
            e = largest_field(xs)
            assert bfp_codes(xs, m, 0, e, PLAIN) == [packed_bfp(b, e, m) for b in bits]


def check_prime_without_shifts():
    """Section 2: with d = 0 it is section 1, kernel 0, where there are no subnormals."""
    data = gauss_input(Lcg("d = 0"), "", 2, 40, F32)
    for rule in ("floor", "search"):
        for rounding in ROUNDINGS:
            a = quantize_blocks("bfp13", data, BlockParams(16, rule, rounding, None, {}))
            options = {"sub_block": 4, "shift_bits": 0}
            b = quantize_blocks("bfpprime13", data, BlockParams(16, rule, rounding, None, options))
            assert all(a[key] == b[key] for key in ("codes", "scales", "y"))


def check_symmetric_mxint8():
    data = gauss_input(Lcg("mxint8"), "", 1, 70, F32)
    for rule in ("floor", "even", "ceil", "rceil", "search"):
        a = quantize("mxint8", data, Params(32, rule, PLAIN, None))
        b = quantize_blocks("mxint8", data, BlockParams(32, rule, PLAIN, None, {"negative_end": "symmetric"}))
        assert all(a[key] == b[key] for key in ("codes", "scales", "y"))


def check_float_powers_of_two():
    """Section 4: under a scale that is a power of two, the codes of MX."""
    lcg = Lcg("float as mx")
    for fmt, mx in (("fp8_e4m3", "mxfp8_e4m3"), ("fp6_e2m3", "mxfp6_e2m3"), ("fp4_e2m1", "mxfp4")):
        top = SCALED_FLOATS[fmt].max * pow2(-9)
        data = one_row("", to_bits([top] + [top * (2 * lcg.unit() - 1) for _ in range(15)]))
        a = quantize_blocks(fmt, data, BlockParams(16, "absmax", PLAIN, "bf16", {}))
        b = quantize(mx, data, Params(16, "rceil", PLAIN, None))
        assert a["codes"] == b["codes"] and a["y"] == b["y"] and b["scales"] == [118]


def check_nvfp4_facts():
    """Section 6: no tensor is refused; value times block scale is exact."""
    assert fl(FULL * fl(f32_value(FLT_MAX) / FULL)) == f32_value(FLT_MAX)
    for c in range(1, 0x7F):
        for code in range(8):
            product = E2M1.decode(code)[1] * E4M3.decode(c)[1]
            assert fl(product) == product
    assert E4M3.encode(0, pow2(-9), PLAIN) == 1 and E4M3.encode(0, E4M3.max, PLAIN) == 0x7E


def check_thresholds():
    """Section 7: a level ends at the stated binary32 threshold, included."""
    for name, text in THRESHOLDS.items():
        book = CODEBOOKS[name]
        thresholds = text.split()
        assert len(thresholds) == len(book.ascending) - 1
        for i, threshold in enumerate(thresholds):
            at = int(threshold, 16)
            assert book.encode(f32_value(at)) == book.levels.index(book.ascending[i]), (name, threshold)
            above = with_neighbours(at)[0 if at & NEG_ZERO else 2]
            assert book.encode(f32_value(above)) == book.levels.index(book.ascending[i + 1]), (name, threshold)


def check_block_zero_groups():
    """A group of zeros decodes to zeros, in every format and rule."""
    expected = {"fp4_e2m1": [0x34000000], "nf4": [0x34000000], "iq4nl": [0], "nvfp4": [1], "bfp16": [0], "mx4": [0]}
    data = one_row("", [0, NEG_ZERO, 0])
    for fmt in BLOCK_FORMATS:
        for rule in (None, "floor") if fmt in BFP_FORMATS or fmt in PRIME_FORMATS else (None, "absmax"):
            result = quantize_blocks(fmt, data, defaults(fmt, rule))
            assert all(f32_value(b) == 0 for b in result["y"]), fmt
            assert result["scales"] == expected.get(fmt, result["scales"]), fmt


def check_block_worked_numbers():
    """The worked numbers at the ends of sections 4, 6 and 7."""
    def run(fmt, x, *params):
        return quantize_blocks(fmt, one_row("", [f32_bits_of(v) for v in x]), BlockParams(*params))

    result = run("fp8_e4m3", ["2.6", "0.3"], "channel", "absmax", PLAIN, "f32", {})
    assert result["scales"] == [0x3BBE2BE2] and result["codes"] == [0x7E, 0x65]
    result = run("nf4", ["0.5", "-0.25", "0.1"], 64, "absmax", PLAIN, "f16", {})
    assert result["scales"] == [0x3800] and result["codes"] == [15, 2, 9]
    amax = "%08x" % f32_bits_of("0.49609375")
    result = run("nvfp4", ["0.453125"], 16, "absmax", PLAIN, None, {"tensor_scale": "f32", "amax": amax})
    assert result["scales"] == [0x7D] and result["g"] == 0x39418618
    result = run("mx4", ["3", ".1", ".75", "-.6"], 4, "floor", PLAIN, None, {"sub_block": 2, "shift_bits": 1})
    assert (result["scales"], result["shifts"], result["codes"]) == ([128], [0, 1], [3, 0, 2, -1])
    assert [f32_value(b) for b in result["y"]] == [3, 0, 1, Fraction(-1, 2)]


BLOCK_CHECKS = [check_bfp_is_like_mx, check_tenstorrent, check_prime_without_shifts, check_symmetric_mxint8,
                check_float_powers_of_two, check_nvfp4_facts, check_thresholds, check_block_zero_groups,
                check_block_worked_numbers]
