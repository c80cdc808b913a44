"""Cases of the block families as JSON; formats/NUMERICS_BLOCK.md 10 says what the fields mean."""

from oracle.block_formats import code_bits, quantize_blocks
from oracle.scales import ScaleOverflow
from oracle.writing import case_head, hex32

SHORT_OPTIONS = {"kernel": "k", "sub_block": "sub", "shift_bits": "d", "negative_end": "", "tensor_scale": "ts-",
                 "amax": "amax-"}


def hex_codes(fmt, codes):
    bits = code_bits(fmt)
    return "".join("%0*x" % (2 if bits <= 8 else 4, c & ((1 << bits) - 1)) for c in codes)


def block_case_head(name, data, params):
    return {**case_head(name, data, params), **params.options}


def block_case_result(fmt, result):
    out = {"codes": hex_codes(fmt, result["codes"]), "scales": result["scales"]}
    if result["shifts"]:
        out["shifts"] = result["shifts"]
    if "g" in result:
        out["g"] = "%08x" % result["g"]
    return {**out, "y": hex32(result["y"])}


def case_name(data, params):
    group = f"g{params.group}" if isinstance(params.group, int) else params.group
    options = [SHORT_OPTIONS[key] + str(value) for key, value in params.options.items()]
    parts = [params.rule, data.name, group, params.scale_dtype, params.rounding, *options]
    return "-".join(str(p) for p in parts if p)


def make_block_case(fmt, data, params):
    case = block_case_head(case_name(data, params), data, params)
    try:
        case.update(block_case_result(fmt, quantize_blocks(fmt, data, params)))
    except ScaleOverflow:
        case["error"] = "scale overflow"
    return case
