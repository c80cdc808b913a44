"""Facts of the specification about the block families, typed in, against the oracle."""

from collections import namedtuple
from fractions import Fraction

from oracle.binary import f32_bits_of, f32_value
from oracle.block_formats import BlockParams, quantize_blocks
from oracle.block_writing import block_case_head, block_case_result
from oracle.elements import ELEMENT_BY_NAME
from oracle.rounding import pow2
from oracle.spec_vectors import ENCODE_FACTS, V, W, floats, layout_vector, low_nibble_first, near_decimal
from oracle.tensors import Input

# Left out: NaN and Inf (8.1.5, 8.3.5, 8.4), codes beyond the stored bits (8.2.4, 8.2.5: the saturating ones are taken).
# The float elements of 8.3 and the single numbers of 8.4 are in spec_vectors.json too.

# y: values of the leading weights; places: {index: value}; floor with nearest-even where nothing else is said
BlockFact = namedtuple(
    "BlockFact", "source format x scales codes shifts y places rule rounding group scale_dtype options")
P = "3 .1 .75 -.6 .3 .2 -1.7 .05 0 0 1 -.01 .49 .51 -2.2 2.6".split()
ZEROS = ["0"] * 8
PRIME_DEFAULTS = {"sub_block": 2, "shift_bits": 1}


def fact(source, fmt, x, scales=(), codes=(), shifts=(), y=(), places=(), rule="floor", rounding="nearest-even",
         group=8, scale_dtype=None, **options):
    return BlockFact(source, fmt, x, scales, codes, shifts, y, places, rule, rounding, group, scale_dtype, options)


def steps(*numerators, unit=7):
    """Multiples of 2^-unit."""
    return [n * pow2(-unit) for n in numerators]


def bfp_facts():
    def row(source, fmt, x, exponent, codes, rounding="away", kernel=None, **more):
        own = {} if kernel is None else {"kernel": kernel}
        return fact("numerics " + source, fmt, x, [exponent + 127], codes, rounding=rounding, **own, **more)

    q, y = [3, -8, 16, -32, 48, -64, 1, 96], floats("0.09375 -0.25 0.5 -1 1.5 -2 0.03125 3")
    for kernel in (0, 1):
        yield row("8.1.1", "bfp16", V, 1, q, y=y, kernel=kernel)
    yield row("8.1.2", "bfp13", V, 1, [0, -1, 2, -4, 6, -8, 0, 12])
    yield row("8.1.2", "bfp11", V, 1, [0, 0, 1, -1, 2, -2, 0, 3])
    ties = [Fraction(1), *steps(1, -1, 3, -3, 5, -5, 0)]
    for rounding, codes in (("away", [64, 1, -1, 2, -2, 3, -3, 0]), ("up", [64, 1, 0, 2, -1, 3, -2, 0]),
                            ("nearest-even", [64, 0, 0, 2, -2, 2, -2, 0])):
        yield row("8.1.3", "bfp16", ties, 0, codes, rounding)
    top = "1.999 -1.999 1 -1 0.01 -0.01 0 0.5".split()
    yield row("8.1.4", "bfp16", top, 0, [127, -127, 64, -64, 1, -1, 0, 32], kernel=0, y=floats("1.984375 -1.984375"))
    yield row("8.1.4", "bfp16", top, 1, [64, -64, 32, -32, 0, 0, 0, 16], kernel=1, y=floats("2 -2"))
    yield row("8.1.4", "bfp16", ["1.99"] + top[1:], 0, [127, -128, 64, -64, 1, -1, 0, 32], kernel=1)
    yield row("8.1.5 (finite part)", "bfp16", "1 -0.3 0.004 0 100 -100".split(), 6, [1, 0, 0, 0, 100, -100])
    yield row("8.1.5", "bfp16", V[:1] + "-0.25 0.5 -1 1.5".split(), 0, [6, -16, 32, -64, 96])
    subnormals = [f32_value(b) for b in (0x00400000, 0x00000001, 0x007FFFFF)]
    yield row("8.1.5", "bfp16", subnormals, -127, [64, 0, 127], kernel=0)
    yield row("8.1.5", "bfp16", subnormals, -126, [32, 0, 64], kernel=1)


def prime_facts():
    def row(source, fmt, x, exponent, codes, shifts, y="", rounding="nearest-even", **more):
        return fact("numerics " + source, fmt, x, [exponent + 127], codes, shifts, floats(y), rounding=rounding,
                    group=16, **{**PRIME_DEFAULTS, **more})

    shifts = [0, 1, 1, 1, 1, 1, 1, 0]
    yield row("8.2.1", "mx9", P, 1, [96, 3, 48, -38, 19, 13, -109, 3, 0, 0, 64, -1, 31, 33, -70, 83], shifts,
              "3 .09375 .75 -.59375 .296875 .203125 -1.703125 .046875 0 0 1 -.015625 .484375 .515625 -2.1875 2.59375")
    yield row("8.2.2", "mx6", P, 1, [12, 0, 6, -5, 2, 2, -14, 0, 0, 0, 8, 0, 4, 4, -9, 10], shifts,
              "3 0 .75 -.625 .25 .25 -1.75 0 0 0 1 0 .5 .5 -2.25 2.5")
    yield row("8.2.3", "mx4", P, 1, [3, 0, 2, -1, 1, 0, -3, 0, 0, 0, 2, 0, 1, 1, -2, 3], shifts,
              "3 0 1 -.5 .5 0 -1.5 0 0 0 1 0 .5 .5 -2 3")
    top = "1.999 1 .999 .5 -.999 .1 .25 .25".split() + ZEROS
    yield row("8.2.4", "mx9", top, 0, [127, 64, 127, 64, -127, 13, 32, 32], [0, 1, 1, 1, 1, 1, 1, 1])
    yield row("8.2.4", "mx4", top, 0, [3, 2, 3, 2, -3, 0, 1, 1], [0, 1, 1, 1, 1, 1, 1, 1])
    codes = "1 .25 .75 -.75 1.25 -1.25 1.75 -1.75".split() + ZEROS
    for rounding, y in (("away", "1 .5 .75 -.75 1.5 -1.5 1.5 -1.5"), ("up", "1 .5 .75 -.75 1.5 -1 1.5 -1.5"),
                        ("nearest-even", "1 0 .75 -.75 1 -1 1.5 -1.5")):
        yield row("8.2.5", "mx4", codes, 0, [], [0, 1, 0, 0], y, rounding)
    yield row("8.2.5", "mx9", P, 1, [], [0, 2, 3, 1, 3, 1, 2, 0], shift_bits=2,
              places={3: Fraction("-.6015625"), 4: Fraction(".30078125")})


def mxint8_facts():
    for source, k, x, codes in (("8.3.2", 1, V, [3, -8, 16, -32, 48, -64, 1, 96]),
                                ("8.3.3", 2, W, [126, -112, 98, 80, 40, -28, 5, 3]),
                                ("8.3.4 (ONNX)", 0, "-1.999 1.999 .5 0 0 0 0 0".split(), [-128, 127, 32])):
        yield fact("numerics " + source, "mxint8", x, [k + 127], codes, negative_end="full")


def fp8_facts():
    """numerics 8.4 under the scale 1: the numbers up to the element's maximum, that first."""
    for source, name, pairs in ENCODE_FACTS:
        if source == "numerics 8.4":
            elem = ELEMENT_BY_NAME[name]
            kept = [(v, c) for v, c in pairs if abs(Fraction(v)) <= elem.max]
            x, codes = [elem.max] + [v for v, _ in kept], [elem.code_of[elem.max]] + [c for _, c in kept]
            yield fact(source, "fp8_" + name, x, [0x3F800000], codes, rule="absmax", group="channel", scale_dtype="f32")


def nvfp4_facts():
    words = "ef9c63f7ce4876ef 0b64f7bd4176df1b 64e7ad4176de2a65 ef9c52f6ce3965ef".split()
    codes = [n for word in words for n in low_nibble_first(word)]
    amax = "%08x" % f32_bits_of("0.49609375")
    yield fact("layouts 5", "nvfp4", layout_vector()[:64], [0x7D, 0x6D, 0x5E, 0x76], codes, rule="absmax", group=16,
               tensor_scale="f32", amax=amax)


def cast_facts():
    for fmt, text in (("f16", "40b7f0b440b100a500305034a03600b7b0b4c0b0"),
                      ("bf16", "e8be9ebe28bea0bc003e8a3ed43ee0be96be18be")):
        data = bytes.fromhex(text)
        codes = [data[i] | data[i + 1] << 8 for i in range(0, len(data), 2)]
        yield fact("layouts 5", fmt, layout_vector()[:len(codes)], codes=codes, rule=None, group=None)


def check_block_fact(f):
    """Runs the oracle on a fact, asserts every stated number, returns the JSON case."""
    data = Input(f"{f.source} {f.format} {f.rule} {f.rounding}", 1, len(f.x), [f32_bits_of(v) for v in f.x])
    params = BlockParams(f.group, f.rule, f.rounding, f.scale_dtype, f.options)
    result = quantize_blocks(f.format, data, params)
    for key, stated in (("scales", f.scales), ("codes", f.codes), ("shifts", f.shifts)):
        got = result[key][:len(stated)]
        assert got == list(stated), f"{data.name}: {key} is {got}, the page states {stated}"
    ys = [f32_value(b) for b in result["y"]]
    assert ys[:len(f.y)] == list(f.y), f"{data.name}: y is {ys}"
    assert all(ys[i] == v for i, v in dict(f.places).items()), data.name
    if f.format == "nvfp4":
        assert near_decimal(f32_value(result["g"]), "0.00018455868")
    stated = {"codes": len(f.codes), "scales": len(f.scales), "shifts": len(f.shifts), "y": len(f.y)}
    return {"format": f.format, "source": f.source, "stated": stated, **block_case_head(data.name, data, params),
            **block_case_result(f.format, result)}


def block_facts():
    for group in (bfp_facts(), prime_facts(), mxint8_facts(), fp8_facts(), nvfp4_facts(), cast_facts()):
        yield from group


def block_spec_cases():
    return [check_block_fact(f) for f in block_facts()]
