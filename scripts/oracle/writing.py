"""Cases and files as JSON; scripts/gen_golden.py says what the fields mean."""

import json

from oracle.scales import ScaleOverflow
from oracle.tensors import quantize


def hex32(bits):
    return "".join("%08x" % b for b in bits)


def hex8(codes):
    return "".join("%02x" % (c & 0xFF) for c in codes)


def case_head(name, data, params):
    return {"name": name, "group": params.group, "rule": params.rule, "rounding": params.rounding,
            "scale_dtype": params.scale_dtype, "rows": data.rows, "cols": data.cols, "x": hex32(data.bits)}


def case_result(result):
    return {"codes": hex8(result["codes"]), "scales": result["scales"], "zeros": result["zeros"],
            "y": hex32(result["y"])}


def make_case(fmt, data, params):
    parts = [params.rule, data.name, f"g{params.group}" if isinstance(params.group, int) else params.group,
             params.scale_dtype, params.rounding]
    case = case_head("-".join(p for p in parts if p), data, params)
    try:
        case.update(case_result(quantize(fmt, data, params)))
    except ScaleOverflow:
        case["error"] = "scale overflow"
    return case


def write_lines(path, head, key, items):
    """One JSON object whose list `key` has one item a line."""
    dumps = json.JSONEncoder(separators=(",", ":")).encode
    with open(path, "w", encoding="ascii", newline="\n") as f:
        f.write(dumps(head)[:-1] + "," * bool(head) + f'"{key}":[\n')
        f.write(",\n".join(map(dumps, items)) + "\n]}\n")
