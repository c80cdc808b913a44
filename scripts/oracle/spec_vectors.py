"""Facts of the specification, typed in, against the oracle."""

from collections import namedtuple
from fractions import Fraction

from oracle.binary import F32, f32_bits_of, f32_value, fl
from oracle.elements import ELEMENT_BY_NAME
from oracle.mx import MX_FORMATS
from oracle.rounding import pow2
from oracle.scales import SCALE_TYPES
from oracle.tensors import Input, Params, quantize
from oracle.writing import case_head, case_result, hex32, hex8

# "numerics 8.x" and "layouts x" name the sections of the two specification pages the numbers were typed from.
# Facts left out because they lie outside NUMERICS.md: NaN and Inf inputs (8.3.5, 8.4: never reach an encoder here), the
# scale 2^-23 of a zero block under floor and ceil (8.3.6: here byte 0), ONNX's MXINT8 code -128 (8.3.4), asymmetric
# signed integers and float zero points (8.5.3).

V = "0.1 -0.25 0.5 -1 1.5 -1.99 0.03 3".split()
X = "0.9 -0.35 0.12 -1.4 0.61 0.05 -0.77 2.6".split()
W = "7.9 -7 6.1 5 2.5 -1.75 0.3 0.2".split()
G = ".1 -.2 .3 .7 4 -2 1 .5".split()

Fact = namedtuple("Fact", "source format group rule rounding scale_dtype rows x scales codes zeros y elements decimals")
Fact.__new__.__defaults__ = (None, None, None, None, None, None)


def mx_fact(source, fmt, k, elements, x, rule="floor", group=8, y=None, rounding="nearest-even"):
    """k: scale exponents; elements: the unscaled element values (codes for mxint8)."""
    ks = k if isinstance(k, list) else [k]
    own = {"codes": elements} if fmt == "mxint8" else {"elements": elements}
    return Fact(source, fmt, group, rule, rounding, None, 1, x, scales=[e + 127 for e in ks], y=y, **own)


def scaled(text, k):
    return [Fraction(t) * pow2(-k) for t in text.split()]


def floats(text):
    return [Fraction(t) for t in text.split()]


def mx_floor_facts():
    """numerics 8.3 items 1 to 5; k and the decoded values are stated, elements are values / 2^k."""
    table = [
        ("8.3.1", "mxfp8_e4m3", -7, V, ".1015625 -.25 .5 -1 1.5 -2 .029296875 3"),
        ("8.3.2", "mxfp8_e5m2", -14, V, ".09375 -.25 .5 -1 1.5 -2 .03125 3"),
        ("8.3.2", "mxfp6_e3m2", -3, V, ".09375 -.25 .5 -1 1.5 -2 .03125 3"),
        ("8.3.2", "mxfp6_e2m3", -1, V, ".125 -.25 .5 -1 1.5 -2 0 3"),
        ("8.3.2", "mxfp4", -1, V, "0 -.25 .5 -1 1.5 -2 0 3"),
        ("8.3.3", "mxfp4", 0, W, "6 -6 6 4 2 -2 .5 0"),
        ("8.3.3", "mxfp6_e2m3", 0, W, "7.5 -7 6 5 2.5 -1.75 .25 .25"),
        ("8.3.3", "mxfp6_e3m2", -2, W, "7 -7 6 5 2.5 -1.75 .3125 .1875"),
        ("8.3.3", "mxfp8_e4m3", -6, W, "7 -7 6 5 2.5 -1.75 .3125 .203125"),
        ("8.3.5 (finite part)", "mxfp4", -2, "0 0 1 -0.1 0 0 0 0".split(), "0 0 1 -.125 0 0 0 0"),
    ]
    for source, fmt, k, x, y in table:
        yield mx_fact("numerics " + source, fmt, k, scaled(y, k), x, y=floats(y))
    yield mx_fact("numerics 8.3.1", "mxfp8_e4m3", -7, floats("13 -32 64 -128 192 -256 3.75 384"), V)
    end = "-1.999 1.999 .5 0 0 0 0 0".split()
    yield mx_fact("numerics 8.3.2", "mxint8", 1, [3, -8, 16, -32, 48, -64, 1, 96], V)
    yield mx_fact("numerics 8.3.3", "mxint8", 2, [126, -112, 98, 80, 40, -28, 5, 3], W)
    yield mx_fact("numerics 8.3.4 (torch)", "mxint8", 0, [-127, 127, 32, 0, 0, 0, 0, 0], end)
    yield mx_fact("numerics 8.3.4 (torch)", "mxint8", 1, [-64, 64, 16, 0, 0, 0, 0, 0], end, rule="even")


def mx_mode_facts():
    """numerics 8.3.6: block maxima and their scales."""
    maxima = "4 5 6 6.9999 7 7.9 3.4 3.5".split()
    table = {"floor": [0, 0, 0, 0, 0, 0, -1, -1], "ceil": [0, 1, 1, 1, 1, 1, 0, 0], "even": [0, 0, 0, 0, 1, 1, -1, 0]}
    for rule, exponents in table.items():
        yield Fact("numerics 8.3.6", "mxfp4", 32, rule, "nearest-even", None, len(maxima), maxima,
                   scales=[k + 127 for k in exponents])
    yield Fact("numerics 8.3.6", "mxfp4", 32, "even", "nearest-even", None, 1, ["0"], scales=[0], y=[0])


def int_facts():
    def fact(source, fmt, x, codes, decimals, group=8, zeros=None, y=None, rounding="nearest-even", scales=None):
        return Fact(source, fmt, group, "absmax", rounding, "f32", 1, x, codes=codes, decimals=decimals.split(),
                    zeros=zeros, y=y, scales=scales)

    # 8.5.1 and 8.5.2 print the quotient of binary32 2.6 and 127.5 (7.5) before its rounding; the binary32 nearest to
    # these decimals is the scale
    yield fact("numerics 8.5.1", "int8", X, [44, -17, 6, -69, 30, 2, -38, 127], "0.0203921561")
    yield fact("numerics 8.5.2", "int4", X, [3, -1, 0, -4, 2, 0, -2, 7], "0.346666654")
    yield fact("numerics 8.5.2", "int3", X, [1, 0, 0, -2, 1, 0, -1, 3], "0.742857")
    yield fact("numerics 8.5.2", "int2", X, [1, 0, 0, -1, 0, 0, 0, 1], "1.73333")
    yield fact("numerics 8.5.3", "uint4", X, [8, 4, 5, 0, 7, 5, 2, 15], "0.266666681", zeros=[5], scales=[0x3E888889])
    yield fact("numerics 8.5.3", "uint8", X, [146, 67, 97, 0, 128, 92, 40, 255], "0.015686275", zeros=[89],
               scales=[0x3C808081])
    yield fact("numerics 8.5.4", "int4", G, [1, -2, 3, 7, 7, -4, 2, 1], ".0933333 .533333", group=4)
    yield fact("numerics 8.5.4", "int4", G, [0, 0, 1, 1, 7, -4, 2, 1], ".533333")
    # 8.5.5: the codes of [-2.5 .. 2.5] on the integers; 3.5 is added to make the scale of int3 exactly 1
    grid = "-2.5 -1.5 -.5 .5 1.5 2.5 3.5".split()
    for rounding, codes in (("up", [-2, -1, 0, 1, 2, 3]), ("away", [-3, -2, -1, 1, 2, 3]),
                            ("nearest-even", [-2, -2, 0, 0, 2, 2])):
        yield fact("numerics 8.5.5", "int3", grid, codes, "1", rounding=rounding, scales=[0x3F800000])
    # 8.5.5: s = 1, z = 1 on [.5, 1.5, 2.5, -.5], the "fake" order; -1 and 14 are added to make that scale and zero
    yield fact("numerics 8.5.5", "uint4", ".5 1.5 2.5 -.5 -1 14".split(), [1, 3, 3, 1], "1", zeros=[1],
               scales=[0x3F800000])


def layout_vector():
    """layouts section 5: 1024 values, exact in bf16."""
    out = []
    for i in range(1024):
        s = (i * 37 + 11) % 255 - 127
        out.append(Fraction(s) * pow2(-(8 + (i // 16) * 7 % 5)))
    return out


def low_nibble_first(text):
    return [n for byte in bytes.fromhex(text) for n in (byte & 15, byte >> 4)]


def layout_facts():
    first, second = layout_vector()[:32], layout_vector()[32:64]

    def mx(fmt, rule, x, byte, codes):
        return Fact("layouts 5", fmt, 32, rule, "nearest-even", None, 1, x, scales=[byte], codes=codes)

    yield mx("mxfp4", "floor", first, 0x7B, low_nibble_first("ef9d64f7ce4876ef0921b49a1043ab09"))
    for rule in ("even", "rceil", "ceil"):
        yield mx("mxfp4", rule, first, 0x7C, low_nibble_first("ce8b42e5ac2854cd0911a28910219a08"))
    yield mx("mxfp4", "floor", second, 0x7A, low_nibble_first("11a2891021990811ffad63f7df3976ef"))
    yield mx("mxfp4", "even", second, 0x7B, low_nibble_first("1091880011890810de9b41e5bd2954ce"))
    int4 = [n - 8 for n in low_nibble_first("3085ca1f63a8fd3187996a8798a97688")]
    yield Fact("layouts 5", "int4", 32, "absmax", "nearest-even", "bf16", 1, first, scales=[0x3D77], codes=int4)
    for rule in ("floor", "even"):
        yield mx("mxfp8_e4m3", rule, first, 0x75, list(bytes.fromhex("fefaf2da70797dfe")))
    yield mx("mxfp8_e4m3", "rceil", first, 0x76, list(bytes.fromhex("f6f2ead2687175f6")))


def all_facts():
    for group in (mx_floor_facts(), mx_mode_facts(), int_facts(), layout_facts()):
        yield from group


# (source, element, rounding, [(value, code)]): encodings of single numbers
ENCODE_FACTS = [
    ("numerics 8.4", "e4m3", [
        ("0.3", 0x2A), ("-0.3", 0xAA), ("1", 0x38), ("448", 0x7E), ("464", 0x7E), ("500", 0x7E), ("-1e6", 0xFE),
        (pow2(-9), 0x01), (pow2(-10), 0x00), (Fraction(3, 2) * pow2(-9), 0x02), (Fraction(5, 2) * pow2(-9), 0x02),
        ("0.0156", 0x08), ("17", 0x58), ("19", 0x5A), ("-0", 0x80)]),
    ("numerics 8.4", "e5m2", [
        ("0.3", 0x35), ("1", 0x3C), ("57344", 0x7B), ("61440", 0x7B), ("1e6", 0x7B), (pow2(-16), 0x01),
        (pow2(-17), 0x00), (Fraction(3, 2) * pow2(-16), 0x02), ("1.125", 0x3C), ("1.375", 0x3E), ("-0", 0x80)]),
    ("numerics 8.5.6", "e2m1", list(zip(".5 -1 6 -6 0 1.5 3 -.5".split(), [1, 0xA, 7, 0xF, 0, 3, 5, 9]))),
    ("numerics 8.5.6", "e2m3", list(zip("7.5 -.125 1 -4.5".split(), [0x1F, 0x21, 0x08, 0x39]))),
    ("numerics 8.5.6", "e3m2", list(zip("28 -.0625 1 -3.5".split(), [0x1F, 0x21, 0x0C, 0x33]))),
    ("layouts 1.4", "e2m1", [("0.75", 2), ("1.75", 4), ("3.5", 6), (".25", 0), ("1.25", 2), ("2.5", 4), ("5", 6)]),
]


def near_decimal(value, text):
    """True where `text` is `value` written (rounded or cut) to the digits it shows."""
    digits = len(text.partition(".")[2])
    return abs(value - Fraction(text)) <= Fraction(1, 10 ** digits)


def fact_codes(fact):
    if fact.elements is None:
        return fact.codes
    code_of, sign_bit = MX_FORMATS[fact.format].code_of, MX_FORMATS[fact.format].sign_bit
    return [code_of[abs(v)] | (sign_bit if v < 0 else 0) for v in fact.elements]


def agree(fact, what, got, stated):
    assert got == stated, f"{fact.source} {fact.format} {fact.rule}: {what} is {got}, the page states {stated}"


def check_fact(fact):
    """Runs the oracle on a fact, asserts every stated number, returns the JSON case."""
    data = Input("", fact.rows, len(fact.x) // fact.rows, [f32_bits_of(v) for v in fact.x])
    params = Params(fact.group, fact.rule, fact.rounding, fact.scale_dtype)
    result = quantize(fact.format, data, params)
    stated = {"codes": fact_codes(fact), "scales": fact.scales, "zeros": fact.zeros, "y": fact.y}
    stated = {key: value or [] for key, value in stated.items()}
    for key in ("codes", "scales", "zeros"):
        agree(fact, key, result[key][:len(stated[key])], stated[key])
    ys = [f32_value(b) for b in result["y"]]  # compared as numbers: the sign of zero is not stated
    agree(fact, "y", ys[:len(stated["y"])], stated["y"])
    for bits, text in zip(result["scales"], fact.decimals or []):
        s = SCALE_TYPES[fact.scale_dtype].value(bits)[1]
        assert near_decimal(s, text) or fl(Fraction(text)) == s, f"{fact.source}: scale {float(s)} against {text}"
    name = f"{fact.source} {fact.format} {fact.rule} {fact.rounding} g{fact.group}"
    return {"format": fact.format, "source": fact.source, "stated": {k: len(v) for k, v in stated.items()},
            **case_head(name, data, params), **case_result(result)}


def check_encode_fact(source, name, pairs):
    bits = [f32_bits_of(v) for v, _ in pairs]
    codes = [ELEMENT_BY_NAME[name].encode(*F32.value(b), "nearest-even") for b in bits]
    assert codes == [c for _, c in pairs], f"{source} {name}: {codes}"
    return {"source": source, "element": name, "rounding": "nearest-even", "x": hex32(bits), "codes": hex8(codes)}


def spec_cases():
    return [check_fact(f) for f in all_facts()]


def spec_encodes():
    return [check_encode_fact(*f) for f in ENCODE_FACTS]
