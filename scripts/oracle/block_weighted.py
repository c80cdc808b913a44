"""Golden cases of the block families with importance weights."""

from fractions import Fraction

from oracle.bfp import bfp_search_candidates, largest_field
from oracle.binary import F32
from oracle.block_formats import BlockParams, quantize_blocks
from oracle.block_ties import weighted_ties
from oracle.block_writing import block_case_head, block_case_result, case_name
from oracle.distributions import Lcg, gauss_input, one_row
from oracle.nvfp4 import byte_mapping_amax_to, nvfp4_search_candidates
from oracle.prime import Prime, prime_search_candidates
from oracle.scaled_float import amax_of
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


def weighted_case(fmt, data, params, w):
    head = {"format": fmt, **block_case_head(case_name(data, params), data, params), "w": hex32(map(F32.bits, w))}
    return {**head, **block_case_result(fmt, quantize_blocks(fmt, data, params, w))}


def byte_pairs(xs):
    e = largest_field(xs)
    return [(e + 1, e - 1)]


def prime_pairs(xs):
    results = [result for _, result in prime_search_candidates(xs, TIED_PRIME, PLAIN)]
    return [tuple(results[1:])] if len(results) == 3 else []


def nvfp4_pairs(xs):
    if amax_of(xs) == 0:
        return []
    c6, c4 = (byte_mapping_amax_to(amax_of(xs), target) for target in (6, 4))
    return [(c6 + 1, c6 - 1), (c6 + 2, c6 - 2), (c4 + 1, c4 - 1)]


# two candidates after the first are equal and best: their order decides
TIED_PRIME = Prime(2, 1, 1)
TIES = [
    ("bfp4_b", {}, lambda xs, w: bfp_search_candidates(xs, 3, 0, PLAIN, w), byte_pairs),
    ("mx4", {"sub_block": 1, "shift_bits": 1}, lambda xs, w: prime_search_candidates(xs, TIED_PRIME, PLAIN, w),
     prime_pairs),
    ("nvfp4", {"tensor_scale": "none"}, lambda xs, w: nvfp4_search_candidates(xs, PLAIN, w), nvfp4_pairs),
]


def tied_cases():
    for fmt, options, candidates_of, pairs_of in TIES:
        lcg = Lcg("tied" + fmt)
        found = weighted_ties(lcg, candidates_of, lambda: Fraction(lcg.below(128) - 64, 16), pairs_of, 4)
        for i, (bits, w) in enumerate(found):
            params = BlockParams(16, "search", PLAIN, None, options)
            yield weighted_case(fmt, one_row(f"{fmt}-tie-{i}", bits), params, w)


def block_weighted_cases():
    for fmt, group, rule, dtype, options in TABLE:
        lcg = Lcg("weighted" + fmt + str(options))
        data, params = gauss_input(lcg, fmt, 2, 37, F32), BlockParams(group, rule, PLAIN, dtype, options)
        yield weighted_case(fmt, data, params, [Fraction(v) for v in column_weights(lcg, data.cols)])
    yield from tied_cases()
