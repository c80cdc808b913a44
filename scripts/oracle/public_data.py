"""Public vectors of other projects, where the data folder is there."""

import json
import os
import re
from fractions import Fraction

from oracle.affine import encode_int
from oracle.binary import BF16, F16, F32, Binary, f32_value, fl
from oracle.distributions import one_row
from oracle.elements import E2M1, E2M3, E3M2, E4M3, E5M2, FLOAT_ELEMENTS
from oracle.mx import clamp_exponent, exponent_rceil
from oracle.rounding import INF, pow2
from oracle.tensors import Params, quantize


def table_value(text):
    """(negative, magnitude or "nan"/"inf") of one gfloat table entry such as -0b1.001*2^-6."""
    text = text.strip()
    if text.lstrip("-") in ("nan", "inf"):
        return text.startswith("-"), text.lstrip("-")
    found = re.fullmatch(r"([+-])0b([01])\.([01]+)\*2\^(-?\d+)", text)
    if not found:
        return text.startswith("-"), abs(Fraction(text))
    minus, whole, part, e = found.groups()
    return minus == "-", (int(whole) + Fraction(int(part, 2), 1 << len(part))) * pow2(int(e))


def gfloat_entries(path):
    with open(path, encoding="ascii") as f:
        for line in f:
            code, _, value, _ = line.split("=")[0].strip(), *[p.strip() for p in line.split("=")[1:]]
            yield int(code, 16), table_value(value)


def check_gfloat(folder):
    count = 0
    for elem in FLOAT_ELEMENTS:
        for code, (neg, a) in gfloat_entries(os.path.join(folder, f"ocp_{elem.name}_table.txt")):
            special = elem.specials.get(code & (elem.sign_bit - 1))
            if special is None:
                got_neg, v = elem.decode(code)
                assert (bool(got_neg), abs(v)) == (neg, a), (elem.name, code)
            else:
                assert special == a, (elem.name, code)
            count += 1
    for code, (_, a) in gfloat_entries(os.path.join(folder, "ocp_e8m0_table.txt")):
        assert a == ("nan" if code == 255 else pow2(code - 127))
        count += 1
    return count


def load_json(*parts):
    with open(os.path.join(*parts), encoding="utf-8") as f:
        return json.load(f)


def check_torchao_elements(folder):
    cases = load_json(folder, "fp4_e2m1_rounding_cases.json")
    for case in cases:
        code = int(case["magnitude_bits"], 2)
        assert E2M1.encode(0, fl(Fraction(case["in"])), "nearest-even") == code, case
        assert E2M1.decode(code)[1] == Fraction(case["out"])
    fp6 = load_json(folder, "fp6_e3m2_rounding_cases.json")
    for case in fp6:
        assert E3M2.encode(0, fl(Fraction(case["in"])), "nearest-even") == case["code"], case
    return len(cases) + len(fp6)


def check_torchao_e8m0(folder):
    """Rule rceil for an element whose maximum is 1; byte 255 (overflow, NaN) is outside our range."""
    class One:
        max, emax = Fraction(1), 0

    count = 0
    for case in load_json(folder, "f32_to_e8m0_rceil.json"):
        a = f32_value(int(case["f32_bits"], 16))
        if case["e8m0"] != 255 and a:
            assert clamp_exponent(exponent_rceil(a, One), One) + 127 == case["e8m0"], case
            count += 1
    return count


def check_torchao_blocks(folder):
    """MXFP8 blocks with torchao's rceil (a product with 1/448; the same as the exact rule on these inputs)."""
    count = 0
    for case in load_json(folder, "mxfp8_e4m3_rceil_blocks.json"):
        if "e4m3" not in case:
            continue
        shift = 16 if case["input_dtype"] == "bf16" else 0
        bits = [b << shift for b in case["input_bits"]]
        result = quantize("mxfp8_e4m3", one_row("", bits), Params(32, "rceil", "nearest-even", None))
        assert result["scales"] == case["e8m0"] and result["codes"] == case["e4m3"], case["e8m0"]
        count += 1
    return count


def check_torchao_values(folder):
    """Field by field: sign, exponent field, mantissa field of named values."""
    types = {"torch.float": F32, "torch.bfloat16": BF16, "torch.float16": F16, "torch.float8_e4m3fn": E4M3,
             "torch.float8_e5m2": E5M2, "float4_e2m1_interesting_values": E2M1,
             "float6_e3m2_interesting_values": E3M2, "float6_e2m3_interesting_values": E2M3}
    count = 0
    for key, rows in load_json(folder, "interesting_values.json").items():
        for row in rows:
            text, fields = row[0], row[-4:-1]
            if "nan" in text or "inf" in text:
                continue
            bits, kind, neg = int("".join(fields), 2), types[key], text.startswith("-")
            if isinstance(kind, Binary):
                assert kind.bits(kind.round(Fraction(text)), neg) == bits, (key, row)
            else:
                assert kind.encode(neg, Fraction(text), "nearest-even") == bits, (key, row)
            count += 1
    return count

ONNX_ELEMENTS = {"e2m1": E2M1, "e4m3fn": E4M3, "e5m2": E5M2}
ONNX_FLOATS = {"f32": F32, "f16": F16, "bf16": BF16}


def onnx_numbers(tensor):
    """Raw stored numbers of an ONNX tensor; packed 4- and 2-bit types are unpacked low bits first."""
    n = 1
    for d in tensor["dims"]:
        n *= d
    dtype = tensor["dtype"]
    width = {"f32": 4, "f16": 2, "bf16": 2, "i16": 2, "u16": 2}.get(dtype, 1)
    data = bytes.fromhex(tensor["hex"]) if tensor.get("hex") else bytes(tensor["int32_data"])
    bits = {"e2m1": 4, "i4": 4, "u4": 4, "i2": 2, "u2": 2}.get(dtype)
    if bits:
        return [b >> at & ((1 << bits) - 1) for b in data for at in range(0, 8, bits)][:n]
    return [int.from_bytes(data[i:i + width], "little") for i in range(0, n * width, width)]


def finite_pairs(source, target):
    """(negative, value, target number) of an ONNX cast from a float type, without NaN and Inf."""
    for bits, out in zip(onnx_numbers(source), onnx_numbers(target)):
        neg, v = ONNX_FLOATS[source["dtype"]].value(bits)
        if v is not None and abs(v) != INF:
            yield neg, v, out


def check_onnx_cast(case):
    """Casts between a float type and an element (or a smaller float type)."""
    source, target = case["in"][0], case["out"][0]
    count = 0
    if source["dtype"] in ONNX_FLOATS and target["dtype"] in ONNX_ELEMENTS:
        for neg, v, code in finite_pairs(source, target):
            assert ONNX_ELEMENTS[target["dtype"]].encode(neg, v, "nearest-even") == code, (source, target)
            count += 1
    elif source["dtype"] in ONNX_FLOATS and target["dtype"] in ONNX_FLOATS:
        binary = ONNX_FLOATS[target["dtype"]]
        for neg, v, bits in finite_pairs(source, target):
            assert binary.bits(binary.round(v), neg) == bits, (source, target)
            count += 1
    elif source["dtype"] in ONNX_ELEMENTS and target["dtype"] in ONNX_FLOATS:
        elem, binary = ONNX_ELEMENTS[source["dtype"]], ONNX_FLOATS[target["dtype"]]
        for code, bits in zip(onnx_numbers(source), onnx_numbers(target)):
            if code & (elem.sign_bit - 1) not in elem.specials:
                neg, v = elem.decode(code)
                assert binary.bits(v, neg) == bits, (source, target)
                count += 1
    return count


def scale_index(i, dims, axis_len, blocked):
    """Which scale serves flat element i: per tensor (axis_len 1), per axis, or blocks of the last axis."""
    if blocked:
        row, col = divmod(i, dims[-1])
        return row * axis_len + col * axis_len // dims[-1]
    if axis_len == 1:
        return 0
    axis = 1 if len(dims) == 4 else 0
    inner = 1
    for d in dims[axis + 1:]:
        inner *= d
    return i // inner % dims[axis]


def check_onnx_quantize(name, case):
    """QuantizeLinear to unsigned integers and elements: true division, round, then add the zero point."""
    x, scale, target = case["in"][0], case["in"][1], case["out"][0]
    kind = {"u2": 2, "u4": 4, "u8": 8}.get(target["dtype"]) or ONNX_ELEMENTS.get(target["dtype"])
    if kind is None:
        return 0
    scales = [F32.value(b)[1] for b in onnx_numbers(scale)]
    zeros = onnx_numbers(case["in"][2]) if len(case["in"]) > 2 else [0] * len(scales)
    zeros += [zeros[-1]] * (len(scales) - len(zeros))
    blocked, axis_len = "blocked" in name, scale["dims"][-1] if scale["dims"] else 1
    got = []
    for i, bits in enumerate(onnx_numbers(x)):
        neg, v = F32.value(bits)
        j = scale_index(i, x["dims"], axis_len, blocked)
        got.append(encode_int("uint", kind, v, scales[j], zeros[j], "nearest-even") if isinstance(kind, int)
                   else kind.encode(neg and v != 0, fl(v / scales[j]), "nearest-even"))  # ONNX adds +0 first
    assert got == onnx_numbers(target), name
    return len(got)


def check_onnx(path):
    count = 0
    for name, case in load_json(path).items():
        if name.startswith("test_cast_") and "no_saturate" not in name and "e8m0" not in name:
            count += check_onnx_cast(case)
        elif name.startswith("test_quantizelinear"):
            count += check_onnx_quantize(name, case)
    return count


def check_public_data(data):
    golden = os.path.join(data, "golden")
    table = [("gfloat", "gfloat", check_gfloat), ("torchao elements", "torchao", check_torchao_elements),
             ("torchao e8m0", "torchao", check_torchao_e8m0), ("torchao blocks", "torchao", check_torchao_blocks),
             ("torchao values", "torchao", check_torchao_values), ("onnx", "onnx_cast_qdq.json", check_onnx)]
    for label, name, check in table:
        path = os.path.join(golden, name)
        if os.path.exists(path):
            print(f"ok   {label}: {check(path)} numbers agree")
        else:
            print(f"SKIP {label}: {path} is missing")
