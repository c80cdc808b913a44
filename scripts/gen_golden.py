#!/usr/bin/env python3
"""Exact oracle for the quantizers, and the generator of the golden vectors.

What it is
  A second implementation of formats/NUMERICS.md, written from that page alone. It shares no code with the C sources and
  none of their tricks: every number is a fractions.Fraction, every rounding (binary32, bfloat16, binary16, the element
  grids, the integers) is decided on exact rationals by the functions below. No value passes through the machine's own
  floating point.

How to run (python3, 3.8 or later, standard library only)
  scripts/gen_golden.py --out tests/golden
      writes the vectors, the same bytes on every run (about a minute)
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
from oracle.element_tables import element_entry
from oracle.elements import FLOAT_ELEMENTS
from oracle.mx import MX_FORMATS
from oracle.mx_cases import mx_cases
from oracle.public_data import check_public_data
from oracle.self_check import SELF_CHECKS
from oracle.spec_vectors import spec_cases, spec_encodes
from oracle.tensors import Input, Params, quantize  # noqa: F401 (for tests that import this file)
from oracle.weighted_cases import weighted_cases
from oracle.writing import make_case, write_lines


def self_check(data):
    for check in SELF_CHECKS:
        check()
        print(f"ok   {check.__name__}")
    print(f"ok   {len(spec_cases())} worked cases and {len(spec_encodes())} encode tables of the specification")
    check_public_data(data)


def generate(out):
    os.makedirs(out, exist_ok=True)
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
