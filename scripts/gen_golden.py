#!/usr/bin/env python3
"""Exact oracle for the quantizers, and the generator of the golden vectors.

What it is
  A second implementation of formats/NUMERICS.md and formats/NUMERICS_BLOCK.md, written from these pages alone (the
  package oracle beside this file). It shares no code with the C sources and none of their tricks: every number is a
  fractions.Fraction, every rounding (binary32, bfloat16, binary16, the element grids, the integers) is decided on exact
  rationals. No value passes through the machine's own floating point.

How to run (python3, 3.8 or later, standard library only)
  scripts/gen_golden.py --out tests/golden
      writes the vectors, the same bytes on every run (about three minutes)
  scripts/gen_golden.py --self-check [--data ../shared/data]
      asserts the worked numbers of the specification, and compares with the public vectors under --data

Files written
  <format>.json      {"format", "cases": [one case a line]}. A case: name, group (an integer, "channel" or "tensor"),
                     rule, rounding, scale_dtype ("bf16", "f16", "f32", null for MX), rows, cols, and
                       x       the weights, 8 hex digits each: the binary32 bit pattern as a number (1.0 = 3f800000)
                       codes   2 hex digits each, row-major; signed integers in two's complement of 8 bits (-1 = ff)
                       scales  list of stored bits (E8M0 byte, or the bf16 / f16 / f32 pattern), row-major
                       zeros   list of zero points, [] where the format has none
                       y       the decoded values, written like x
                     A case that must be refused has "error" in place of codes, scales, zeros and y.
  weighted.json      the same with "format" in each case and "w": one importance weight per column, written like x.
  elements.json      for each element the decoded value of every code, and [x, code] pairs for each rounding mode.
  spec_vectors.json  numbers taken from the specification, typed in here as facts. "stated" counts the leading codes,
                     scales, zeros and y that the source states; whatever is beyond these counts comes from the oracle.
  The formats of formats/NUMERICS_BLOCK.md: files of the same kind, but the list is called "block_cases" and there are
  no zeros; mxint8_full.json is mxint8 with its full negative end. Cases there have, where the format has them,
                       kernel, sub_block, shift_bits, negative_end, tensor_scale, amax   its parameters
                       shifts  list of the shifts of the sub-blocks, row-major
                       g       the tensor scale, written like x
                     group may also be "128x128", or null where there are no groups; codes of elements of more than 8
                     bits have 4 hex digits, and signed codes are cut to the element's bits (-1 in 5 bits = 1f).
  weighted_block.json, spec_block_vectors.json: as weighted.json and spec_vectors.json, with "block_cases".

Worked number
  mxfp4, rule floor, the group [7.9, 0.3]: amax = 7.9, ilog2 = 2, e = 2 - emax = 0, byte 127; u = 7.9 lies above 6 and
  saturates to code 7; u = 0.3 is 0.6 steps of the grid of step 0.5 and rounds to 1 step, code 1; y = [6, 0.5].
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # for those who load this file from elsewhere

from oracle.affine import INT_FORMATS
from oracle.affine_cases import int_cases
from oracle.bfp_cases import bfp_cases, full_mxint8_cases, prime_cases
from oracle.block_checks import BLOCK_CHECKS
from oracle.block_formats import BFP_FORMATS, PRIME_FORMATS
from oracle.block_vectors import block_spec_cases
from oracle.block_weighted import block_weighted_cases
from oracle.block_writing import make_block_case
from oracle.casts import CASTS
from oracle.codebook import CODEBOOKS
from oracle.codebook_cases import codebook_cases
from oracle.element_tables import element_entry
from oracle.elements import FLOAT_ELEMENTS
from oracle.float_cases import cast_cases, float_cases
from oracle.mx import MX_FORMATS
from oracle.mx_cases import mx_cases
from oracle.nvfp4_cases import nvfp4_cases
from oracle.public_data import check_public_data
from oracle.scaled_float import SCALED_FLOATS
from oracle.self_check import SELF_CHECKS
from oracle.spec_vectors import spec_cases, spec_encodes
from oracle.tensors import Input, Params, quantize  # noqa: F401 (for tests that import this file)
from oracle.weighted_cases import weighted_cases
from oracle.writing import make_case, write_lines


def self_check(data):
    for check in SELF_CHECKS + BLOCK_CHECKS:
        check()
        print(f"ok   {check.__name__}")
    print(f"ok   {len(spec_cases())} worked cases and {len(spec_encodes())} encode tables of the specification")
    print(f"ok   {len(block_spec_cases())} worked cases of the block families")
    check_public_data(data)


# the cases of one file: its name, the format, the cases
BLOCK_FILES = [
    *((fmt, fmt, bfp_cases) for fmt in BFP_FORMATS), *((fmt, fmt, prime_cases) for fmt in PRIME_FORMATS),
    ("mxint8_full", "mxint8", full_mxint8_cases), *((fmt, fmt, float_cases) for fmt in SCALED_FLOATS),
    *((fmt, fmt, cast_cases) for fmt in CASTS), ("nvfp4", "nvfp4", nvfp4_cases),
    *((fmt, fmt, codebook_cases) for fmt in CODEBOOKS),
]


def generate_blocks(out):
    for name, fmt, cases_of in BLOCK_FILES:
        cases = [make_block_case(fmt, data, params) for data, params in cases_of(fmt)]
        assert len({c["name"] for c in cases}) == len(cases), name
        write_lines(os.path.join(out, name + ".json"), {"format": fmt}, "block_cases", cases)
        print(f"{name}: {len(cases)} cases", flush=True)
    for name, cases in (("weighted_block", list(block_weighted_cases())), ("spec_block_vectors", block_spec_cases())):
        write_lines(os.path.join(out, name + ".json"), {"format": name}, "block_cases", cases)
        print(f"{name}: {len(cases)} cases")


def generate(out):
    os.makedirs(out, exist_ok=True)
    generate_blocks(out)
    for fmt in [*MX_FORMATS, *INT_FORMATS]:
        cases = [make_case(fmt, data, params) for data, params in (mx_cases if fmt in MX_FORMATS else int_cases)(fmt)]
        assert len({c["name"] for c in cases}) == len(cases), fmt
        write_lines(os.path.join(out, fmt + ".json"), {"format": fmt}, "cases", cases)
        print(f"{fmt}: {len(cases)} cases", flush=True)
    weighted = list(weighted_cases())
    write_lines(os.path.join(out, "weighted.json"), {"format": "weighted"}, "cases", weighted)
    entries = [element_entry(e) for e in FLOAT_ELEMENTS]
    write_lines(os.path.join(out, "elements.json"), {"format": "elements"}, "elements", entries)
    spec = spec_cases()
    write_lines(os.path.join(out, "spec_vectors.json"), {"format": "spec", "encode": spec_encodes()}, "cases", spec)
    print(f"weighted: {len(weighted)} cases; spec_vectors: {len(spec)} cases; elements: {len(entries)}")


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser(description="exact oracle for the quantizers; writes the golden vectors")
    parser.add_argument("--out", metavar="DIR", help="write the vectors into DIR (tests/golden)")
    parser.add_argument("--self-check", action="store_true", help="assert the worked numbers of the specification")
    parser.add_argument("--data", metavar="DIR", default=os.path.join(root, "..", "shared", "data"),
                        help="public vectors for --self-check (default ../shared/data beside the repository)")
    args = parser.parse_args()
    if not args.out and not args.self_check:
        parser.error("nothing to do: give --out DIR or --self-check")
    if args.self_check:
        self_check(os.path.normpath(args.data))
    if args.out:
        generate(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
