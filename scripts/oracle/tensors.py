"""Tensors: their groups, and quantizing all of them."""

from collections import namedtuple

from oracle.affine import INT_FORMATS, quantize_int_group
from oracle.binary import F32
from oracle.elements import Weight
from oracle.mx import MX_FORMATS, quantize_mx_group
from oracle.scales import SCALE_TYPES

Input = namedtuple("Input", "name rows cols bits")
Params = namedtuple("Params", "group rule rounding scale_dtype")


def group_indices(rows, cols, group):
    if group == "tensor":
        return [list(range(rows * cols))]
    if group == "128x128":
        return [[r * cols + c for r in range(top, min(top + 128, rows)) for c in range(left, min(left + 128, cols))]
                for top in range(0, rows, 128) for left in range(0, cols, 128)]
    size = cols if group == "channel" else group
    return [list(range(r * cols + at, r * cols + min(at + size, cols)))
            for r in range(rows) for at in range(0, cols, size)]


def quantize(fmt, data, params, column_weights=None):
    """codes (ints), scales (stored bits), zeros, y (binary32 bits) of a whole tensor held in one chunk."""
    xs = [Weight(*F32.value(b)) for b in data.bits]
    out = {"codes": [0] * len(xs), "scales": [], "zeros": [], "y": [0] * len(xs)}
    for members in group_indices(data.rows, data.cols, params.group):
        part = [xs[i] for i in members]
        weights = column_weights and [column_weights[i % data.cols] for i in members]
        if fmt in MX_FORMATS:
            scale, codes, ys = quantize_mx_group(part, MX_FORMATS[fmt], params.rule, params.rounding, weights)
        else:
            scale, zero, codes, ys = quantize_int_group(
                part, *INT_FORMATS[fmt], params.rule, params.rounding, SCALE_TYPES[params.scale_dtype], weights)
            if INT_FORMATS[fmt][0] == "uint":
                out["zeros"].append(zero)
        out["scales"].append(scale)
        for i, c, y in zip(members, codes, ys):
            out["codes"][i], out["y"][i] = c, y
    return out
