"""The formats of NUMERICS_BLOCK.md: rows, parameters, and quantizing a tensor."""

from collections import namedtuple
from fractions import Fraction

from oracle.bfp import quantize_bfp_group
from oracle.binary import F32
from oracle.casts import CASTS, cast_weights
from oracle.codebook import CODEBOOKS, quantize_codebook_group
from oracle.elements import MxInt8Element, Weight
from oracle.mx import quantize_mx_group
from oracle.nvfp4 import quantize_nvfp4_group, tensor_scale
from oracle.prime import Prime, quantize_prime_group
from oracle.scaled_float import SCALED_FLOATS, amax_of, quantize_float_group
from oracle.scales import SCALE_TYPES
from oracle.tensors import group_indices

# options: kernel, sub_block, shift_bits, negative_end, tensor_scale, amax; those that a format has
BlockParams = namedtuple("BlockParams", "group rule rounding scale_dtype options")

BFP_BITS = range(10, 25)
BFP_FORMATS = {**{f"bfp{n}": n - 9 for n in BFP_BITS}, "bfp8_b": 7, "bfp4_b": 3}
PRIME_FORMATS = {**{f"bfpprime{n}": n - 9 for n in BFP_BITS}, "mx9": 7, "mx6": 4, "mx4": 2}
BLOCK_FORMATS = [*BFP_FORMATS, *PRIME_FORMATS, *SCALED_FLOATS, *CASTS, "nvfp4", *CODEBOOKS]


def code_bits(fmt):
    if fmt in BFP_FORMATS or fmt in PRIME_FORMATS:
        return 1 + (BFP_FORMATS.get(fmt) or PRIME_FORMATS[fmt])
    if fmt in CASTS:
        return 16
    return SCALED_FLOATS[fmt].nbits if fmt in SCALED_FLOATS else 8 if fmt == "mxint8" else 4


def bfp_coder(fmt, params, xs):
    kernel = params.options.get("kernel", 0)

    def code(part, weights):
        e, codes, ys = quantize_bfp_group(part, BFP_FORMATS[fmt], kernel, params.rule, params.rounding, weights)
        return [e], [], codes, ys
    return code


def prime_coder(fmt, params, xs):
    prime = Prime(PRIME_FORMATS[fmt], params.options["sub_block"], params.options["shift_bits"])

    def code(part, weights):
        e, shifts, codes, ys = quantize_prime_group(part, prime, params.rule, params.rounding, weights)
        return [e], shifts, codes, ys
    return code


def float_coder(fmt, params, xs):
    def code(part, weights):
        s, codes, ys = quantize_float_group(part, SCALED_FLOATS[fmt], params.rule, params.rounding,
                                            SCALE_TYPES[params.scale_dtype], weights)
        return [s], [], codes, ys
    return code


def cast_coder(fmt, params, xs):
    def code(part, weights):
        return [], [], *cast_weights(part, CASTS[fmt], params.rounding)
    return code


def tensor_scale_of(params, xs):
    if params.options["tensor_scale"] == "none":
        return Fraction(1)
    outside = params.options.get("amax")
    return tensor_scale(F32.value(int(outside, 16))[1] if outside else amax_of(xs))


def nvfp4_coder(fmt, params, xs):
    g, two_level = tensor_scale_of(params, xs), params.options["tensor_scale"] != "none"

    def code(part, weights):
        c, codes, ys = quantize_nvfp4_group(part, g, two_level, params.rule, params.rounding, weights)
        return [c], [], codes, ys
    return code


def codebook_coder(fmt, params, xs):
    def code(part, weights):
        s, codes, ys = quantize_codebook_group(part, CODEBOOKS[fmt], params.rule, SCALE_TYPES[params.scale_dtype],
                                               weights)
        return [s], [], codes, ys
    return code


def full_mxint8_coder(fmt, params, xs):
    elem = MxInt8Element(-128 if params.options["negative_end"] == "full" else -127)

    def code(part, weights):
        s, codes, ys = quantize_mx_group(part, elem, params.rule, params.rounding, weights)
        return [s], [], codes, ys
    return code


CODERS = {**dict.fromkeys(BFP_FORMATS, bfp_coder), **dict.fromkeys(PRIME_FORMATS, prime_coder),
          **dict.fromkeys(SCALED_FLOATS, float_coder), **dict.fromkeys(CASTS, cast_coder), "nvfp4": nvfp4_coder,
          **dict.fromkeys(CODEBOOKS, codebook_coder), "mxint8": full_mxint8_coder}


def quantize_blocks(fmt, data, params, column_weights=None):
    """codes (ints), scales (stored bits), shifts, y (binary32 bits), for nvfp4 g (bits), of a whole tensor."""
    xs = [Weight(*F32.value(b)) for b in data.bits]
    out = {"codes": [0] * len(xs), "scales": [], "shifts": [], "y": [0] * len(xs)}
    if fmt == "nvfp4" and params.options["tensor_scale"] != "none":
        out["g"] = F32.bits(tensor_scale_of(params, xs))
    code = CODERS[fmt](fmt, params, xs)
    for members in group_indices(data.rows, data.cols, params.group or "tensor"):
        weights = column_weights and [column_weights[i % data.cols] for i in members]
        scales, shifts, codes, ys = code([xs[i] for i in members], weights)
        out["scales"] += scales
        out["shifts"] += shifts
        for i, c, y in zip(members, codes, ys):
            out["codes"][i], out["y"][i] = c, y
    return out
