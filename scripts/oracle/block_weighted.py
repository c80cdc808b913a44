"""Golden cases of the block families with importance weights."""

from fractions import Fraction

from oracle.binary import F32
from oracle.block_formats import BlockParams, quantize_blocks
from oracle.block_writing import block_case_head, block_case_result, case_name
from oracle.distributions import Lcg, gauss_input
from oracle.weighted_cases import column_weights
from oracle.writing import hex32

PLAIN = "nearest-even"
TABLE = [
    ("bfp16", 8, "search", None, {}), ("bfp16", 16, "search", None, {"kernel": 1}), ("bfp4_b", 16, "search", None, {}),
    ("bfp11", 32, "search", None, {}), ("mx9", 16, "search", None, {"sub_block": 2, "shift_bits": 1}),
    ("mx4", 16, "search", None, {"sub_block": 2, "shift_bits": 1}),
    ("mx6", 16, "search", None, {"sub_block": 4, "shift_bits": 2}),
    ("mxint8", 32, "search", None, {"negative_end": "full"}), ("fp8_e4m3", "channel", "mse", "f32", {}),
    ("fp4_e2m1", 32, "mse", "bf16", {}), ("fp6_e2m3", "128x128", "mse", "f16", {}),
    ("nvfp4", 16, "search", None, {"tensor_scale": "f32"}), ("nvfp4", 16, "search", None, {"tensor_scale": "none"}),
    ("nf4", 64, "mse", "f16", {}), ("fp4_bnb", 16, "mse", "f32", {}), ("iq4nl", 32, "mse", "f16", {}),
]


def block_weighted_cases():
    for fmt, group, rule, dtype, options in TABLE:
        lcg = Lcg("weighted" + fmt + str(options))
        data, params = gauss_input(lcg, fmt, 2, 37, F32), BlockParams(group, rule, PLAIN, dtype, options)
        w = [Fraction(v) for v in column_weights(lcg, data.cols)]
        head = {"format": fmt, **block_case_head(case_name(data, params), data, params), "w": hex32(map(F32.bits, w))}
        yield {**head, **block_case_result(fmt, quantize_blocks(fmt, data, params, w))}
