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
import json
import os
import re
import sys
from collections import namedtuple
from fractions import Fraction
from functools import lru_cache

INF = float("inf")  # the only float in this file: what an overflowing rounding yields
HALF = Fraction(1, 2)


class ScaleOverflow(Exception):
    """A scale beyond its type's largest finite number: the tensor is refused."""


# --- exact helpers ----------------------------------------------------------------------------------------------------

@lru_cache(maxsize=None)
def pow2(e):
    return Fraction(1 << e) if e >= 0 else Fraction(1, 1 << -e)


def ilog2(a):
    """floor(log2 a) of a Fraction a > 0."""
    n, d = a.numerator, a.denominator
    e = n.bit_length() - d.bit_length()
    at_least = n >= d << e if e >= 0 else n << -e >= d
    return e if at_least else e - 1


def ceil_log2(a):
    e = ilog2(a)
    return e if pow2(e) == a else e + 1


def clamp(v, lo, hi):
    return max(lo, min(hi, v))


def sign(v):
    return -1 if v < 0 else 1


def nearest_even(u):
    below = u.numerator // u.denominator
    rest = u - below
    if rest == HALF:
        return below + (below & 1)
    return below if rest < HALF else below + 1


def nearest_away(u):
    v = abs(u) + HALF
    return sign(u) * (v.numerator // v.denominator)


def nearest_up(u):
    v = u + HALF
    return v.numerator // v.denominator


def toward_zero(u):
    return sign(u) * (abs(u.numerator) // u.denominator)


ROUNDINGS = {
    "nearest-even": nearest_even,
    "away": nearest_away,
    "up": nearest_up,
    "truncate": toward_zero,
}


# --- binary floating types --------------------------------------------------------------------------------------------

class Binary:
    """An IEEE binary type with infinities: rounding of rationals, and bit patterns."""

    def __init__(self, name, ebits, mbits):
        self.name, self.ebits, self.mbits = name, ebits, mbits
        self.bias = (1 << (ebits - 1)) - 1
        self.emin, self.emax = 1 - self.bias, self.bias
        self.max = (2 - pow2(-mbits)) * pow2(self.emax)
        self.digits = (1 + ebits + mbits) // 4

    def round(self, v):
        """To nearest, ties to even, subnormals kept; +-INF beyond the range; infinities stay."""
        if isinstance(v, float) or v == 0:
            return v
        n, d = abs(v.numerator), v.denominator
        q = max(ilog2(abs(v)), self.emin) - self.mbits  # one unit in the last place is 2^q
        if q >= 0:
            d <<= q
        else:
            n <<= -q
        k, rest = divmod(n, d)
        if 2 * rest > d or (2 * rest == d and k & 1):
            k += 1
        r = Fraction(k) * pow2(q)
        if r > self.max:
            r = INF
        return -r if v < 0 else r

    def bits(self, v, neg=None):
        """The bit pattern of a representable value; neg gives the sign of a zero."""
        neg = v < 0 if neg is None or v != 0 else neg
        top = int(neg) << (self.ebits + self.mbits)
        field_max = (1 << self.ebits) - 1
        a = abs(v)
        if a == INF:
            return top | field_max << self.mbits
        if a == 0:
            return top
        e = max(ilog2(a), self.emin)
        significand = a / pow2(e - self.mbits)
        assert significand.denominator == 1, "not representable"
        # a normal significand has its leading one at bit mbits, which adds 1 to the exponent field below
        return top | ((e - self.emin << self.mbits) + significand.numerator)

    def value(self, bits):
        """(negative, value) of a bit pattern; the value is INF or None (NaN) for the top exponent field."""
        neg = bits >> (self.ebits + self.mbits) & 1
        field = bits >> self.mbits & ((1 << self.ebits) - 1)
        mantissa = bits & ((1 << self.mbits) - 1)
        if field == (1 << self.ebits) - 1:
            return neg, None if mantissa else (-INF if neg else INF)
        hidden = 1 << self.mbits if field else 0
        a = (mantissa + hidden) * pow2(max(field, 1) - self.bias - self.mbits)
        return neg, -a if neg else a


F32 = Binary("f32", 8, 23)
BF16 = Binary("bf16", 8, 7)
F16 = Binary("f16", 5, 10)
SCALE_TYPES = {"bf16": BF16, "f16": F16, "f32": F32}
fl = F32.round
FLT_MAX = 0x7F7FFFFF
NEG_ZERO = 0x80000000


def f32_bits_of(v):
    """Bit pattern of the binary32 nearest to a number or to a decimal string ("-0" keeps its sign)."""
    neg = isinstance(v, str) and v.startswith("-")
    return F32.bits(fl(Fraction(v)), neg)


def f32_value(bits):
    return F32.value(bits)[1]


# --- elements ---------------------------------------------------------------------------------------------------------

class FloatElement:
    def __init__(self, name, ebits, mbits, bias, emax, maximum, specials):
        self.name, self.ebits, self.m, self.bias, self.emax = name, ebits, mbits, bias, emax
        self.nbits = 1 + ebits + mbits
        self.sign_bit = 1 << (self.nbits - 1)
        self.max = Fraction(maximum)
        self.specials = specials  # magnitude code -> "nan" or "inf"
        self.code_of = {self.magnitude(c): c for c in range(self.sign_bit) if c not in specials}
        assert max(self.code_of) == self.max

    def magnitude(self, code):
        field, mantissa = code >> self.m, code & ((1 << self.m) - 1)
        hidden = 1 << self.m if field else 0
        return (mantissa + hidden) * pow2(max(field, 1) - self.bias - self.m)

    def decode(self, code):
        """(negative, value) of a finite code."""
        neg = code >> (self.nbits - 1)
        a = self.magnitude(code & (self.sign_bit - 1))
        return neg, -a if neg else a

    def encode(self, neg, u, rounding):
        exponent = max(ilog2(abs(u)), 1 - self.bias) if u else 1 - self.bias
        step = pow2(exponent - self.m)
        a = min(abs(ROUNDINGS[rounding](u / step) * step), self.max)
        return self.code_of[a] | (self.sign_bit if neg else 0)


class MxInt8Element:
    """Signed codes with the implicit factor 2^-6; -128 is never written."""
    name, emax, m, max = "mxint8", 0, 8, Fraction(127, 64)

    def decode(self, code):
        return code < 0, Fraction(code, 64)

    def encode(self, neg, u, rounding):
        return clamp(ROUNDINGS[rounding](u * 64), -127, 127)


def nan_tail(first, last):
    return {code: "nan" for code in range(first, last + 1)}


E2M1 = FloatElement("e2m1", 2, 1, 1, 2, 6, {})
E2M3 = FloatElement("e2m3", 2, 3, 1, 2, "7.5", {})
E3M2 = FloatElement("e3m2", 3, 2, 3, 4, 28, {})
E4M3 = FloatElement("e4m3", 4, 3, 7, 8, 448, nan_tail(0x7F, 0x7F))
E5M2 = FloatElement("e5m2", 5, 2, 15, 15, 57344, {0x7C: "inf", **nan_tail(0x7D, 0x7F)})
FLOAT_ELEMENTS = [E2M1, E2M3, E3M2, E4M3, E5M2]
ELEMENT_BY_NAME = {e.name: e for e in FLOAT_ELEMENTS}

MX_FORMATS = {
    "mxfp4": E2M1, "mxfp6_e3m2": E3M2, "mxfp6_e2m3": E2M3,
    "mxfp8_e4m3": E4M3, "mxfp8_e5m2": E5M2, "mxint8": MxInt8Element(),
}
INT_FORMATS = {f"{kind}{n}": (kind, n) for kind in ("int", "uint") for n in range(2, 9)}


# --- sums of squared errors (section 5) -------------------------------------------------------------------------------

def lanes_of(terms, count):
    lanes = [Fraction(0)] * count
    for i, t in enumerate(terms):
        lanes[i % count] = fl(lanes[i % count] + t)
    return lanes


def lane_sum(terms):
    """Sixteen binary32 lanes, then the fixed tree."""
    lanes = lanes_of(terms, 16)
    for width in (8, 4, 2):
        for j in range(width):
            lanes[j] = fl(lanes[j] + lanes[j + width])
    return fl(lanes[0] + lanes[1])


def squared_terms(deviations, weights):
    terms = [fl(d * d) for d in deviations]
    if weights is None:
        return terms
    assert INF not in terms
    return [fl(t * w) for t, w in zip(terms, weights)]


def least_error(candidates, total=None):
    """The result of least error of [(terms, result), ..]; a tie goes to the earlier."""
    best_error, best = None, None
    for terms, result in candidates:
        error = (total or lane_sum)(terms)
        if best is None or error < best_error:
            best_error, best = error, result
    return best


# --- MX formats (section 3) -------------------------------------------------------------------------------------------

Weight = namedtuple("Weight", "neg value")  # neg tells -0 from 0


def clamp_exponent(e, elem):
    return clamp(e, -127, 127 - elem.emax)


def exponent_floor(amax, elem):
    return ilog2(amax) - elem.emax


def exponent_even(amax, elem):
    bits = F32.bits(amax) + (1 << (22 - elem.m))
    return (bits >> 23 & 0xFF) - 127 - elem.emax


def exponent_ceil(amax, elem):
    return ceil_log2(amax) - elem.emax


def exponent_rceil(amax, elem):
    e = ilog2(amax / elem.max)
    return e if amax <= elem.max * pow2(e) else e + 1


PLAIN_MX_RULES = {
    "floor": exponent_floor, "even": exponent_even, "ceil": exponent_ceil, "rceil": exponent_rceil,
}
MX_RULES = [*PLAIN_MX_RULES, "search"]


def encode_mx(xs, elem, e, rounding):
    """Scaled weights u and their codes."""
    us = [fl(x.value * pow2(-e)) for x in xs]
    return us, [elem.encode(x.neg, u, rounding) for x, u in zip(xs, us)]


def mx_error_terms(xs, elem, e, e0, rounding, weights):
    us, codes = encode_mx(xs, elem, e, rounding)
    shift = pow2(e - e0)
    deviations = [fl(fl(u - elem.decode(c)[1]) * shift) for u, c in zip(us, codes)]
    return squared_terms(deviations, weights)


def search_candidates(xs, amax, elem, rounding, weights=None):
    e0 = clamp_exponent(exponent_floor(amax, elem), elem)
    tried = []
    for e in (e0, clamp_exponent(e0 + 1, elem), clamp_exponent(e0 - 1, elem)):
        if e not in tried:
            tried.append(e)
    return [(mx_error_terms(xs, elem, e, e0, rounding, weights), e) for e in tried]


def quantize_mx_group(xs, elem, rule, rounding, weights=None):
    """Scale byte, codes, bit patterns of the decoded values."""
    amax = max(abs(x.value) for x in xs)
    if amax == 0:
        e = -127
    elif rule == "search":
        e = least_error(search_candidates(xs, amax, elem, rounding, weights))
    else:
        e = clamp_exponent(PLAIN_MX_RULES[rule](amax, elem), elem)
    codes = encode_mx(xs, elem, e, rounding)[1]
    ys = []
    for neg, value in map(elem.decode, codes):
        ys.append(F32.bits(fl(value * pow2(e)), neg))
    return e + 127, codes, ys


# --- integer formats (section 4) --------------------------------------------------------------------------------------

SCALE_FLOOR = pow2(-23)
MSE_STEPS = [*range(64, 15, -1), *range(65, 73)]


def store_scale(s, scale_type, widest):
    """The stored scale; refused when it, or its product with the widest code, is beyond binary32."""
    stored = scale_type.round(max(s, SCALE_FLOOR))
    if stored == INF or fl(stored * widest) == INF:
        raise ScaleOverflow
    return stored


def symmetric_scale(amax, n, scale_type):
    return store_scale(fl(amax / (pow2(n - 1) - HALF)), scale_type, 1 << (n - 1)), 0


def asymmetric_scale(a, span, n, scale_type):
    """Scale and zero point of a range of length span whose lower end is a <= 0."""
    levels = (1 << n) - 1
    s = store_scale(fl(span / levels), scale_type, levels)
    return s, clamp(-nearest_even(fl(a / s)), 0, levels)


def int_range(kind, n, xs, scale_type, k=None):
    """Scale and zero point of one group; with k the mse candidate k/64."""
    part = Fraction(64 if k is None else k, 64)
    lo = min(Fraction(0), min(x.value for x in xs))
    hi = max(Fraction(0), max(x.value for x in xs))
    if kind == "int":
        return symmetric_scale(fl(max(-lo, hi) * part), n, scale_type)
    return asymmetric_scale(fl(lo * part), fl(fl(hi - lo) * part), n, scale_type)


def encode_int(kind, n, x, s, z, rounding):
    lo, hi = (-(1 << n - 1), (1 << n - 1) - 1) if kind == "int" else (0, (1 << n) - 1)
    return clamp(ROUNDINGS[rounding](fl(x / s)) + z, lo, hi)


def int_codes_and_values(kind, n, xs, s, z, rounding):
    codes = [encode_int(kind, n, x.value, s, z, rounding) for x in xs]
    return codes, [fl((c - z) * s) for c in codes]


def int_error_terms(kind, n, xs, s, z, rounding, p, weights):
    ys = int_codes_and_values(kind, n, xs, s, z, rounding)[1]
    unit = pow2(-p)
    deviations = [fl(fl(x.value - y) * unit) for x, y in zip(xs, ys)]
    return squared_terms(deviations, weights)


def mse_candidates(kind, n, xs, rounding, scale_type, weights=None, steps=MSE_STEPS):
    """[(error terms, (scale, zero point, k)), ..]"""
    amax = max(abs(x.value) for x in xs)
    p = clamp(ilog2(amax), -126, 126) if amax else 0
    candidates = []
    for k in steps:
        try:
            s, z = int_range(kind, n, xs, scale_type, k)
        except ScaleOverflow:
            if k == 64:
                raise  # the full range does not fit: the tensor is refused
            continue
        candidates.append((int_error_terms(kind, n, xs, s, z, rounding, p, weights), (s, z, k)))
    return candidates


def quantize_int_group(xs, kind, n, rule, rounding, scale_type, weights=None):
    if rule == "mse":
        s, z, _ = least_error(mse_candidates(kind, n, xs, rounding, scale_type, weights))
    else:
        s, z = int_range(kind, n, xs, scale_type)
    codes, ys = int_codes_and_values(kind, n, xs, s, z, rounding)
    return scale_type.bits(s), z, codes, [F32.bits(y) for y in ys]


# --- tensors ----------------------------------------------------------------------------------------------------------

Input = namedtuple("Input", "name rows cols bits")
Params = namedtuple("Params", "group rule rounding scale_dtype")


def group_indices(rows, cols, group):
    if group == "tensor":
        return [list(range(rows * cols))]
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


# --- cases as JSON ----------------------------------------------------------------------------------------------------

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


# --- inputs -----------------------------------------------------------------------------------------------------------

class Lcg:
    """Knuth's 64-bit linear congruential generator, seeded by a text; the top 32 bits of the state are used."""

    def __init__(self, text):
        self.state = 0
        for byte in text.encode():
            self.state = (self.state * 257 + byte + 1) % 2**64
        for _ in range(4):
            self.next()

    def next(self):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return self.state >> 32

    def below(self, n):
        return self.next() * n >> 32

    def pick(self, items):
        return items[self.below(len(items))]

    def sign(self):
        return 1 - 2 * self.below(2)

    def unit(self):
        """Uniform in [0, 1), 32 bits."""
        return Fraction(self.next(), 2**32)

    def gauss(self):
        """Sum of twelve uniforms: mean 0, variance 1."""
        return sum(self.unit() for _ in range(12)) - 6


def to_bits(values, binary=F32):
    """Binary32 patterns of values first rounded to `binary`."""
    return [F32.bits(binary.round(v)) for v in values]


def gauss_input(lcg, name, rows, cols, binary, power=1):
    values = [lcg.gauss() ** power / 50 for _ in range(rows * cols)]
    return Input(name, rows, cols, to_bits(values, binary))


def one_row(name, bits):
    return Input(name, 1, len(bits), bits)


def filler(lcg, amax, n):
    """n random values strictly inside (-amax, amax)."""
    return [lcg.sign() * amax * lcg.unit() * Fraction(15, 16) for _ in range(n)]


def subnormals(lcg, n):
    return [lcg.below(1 << 23) | lcg.below(2) << 31 for _ in range(n)]


def zero_row(n):
    """A group of mixed zeros, then only negative ones."""
    return [0, NEG_ZERO, 0] * 2 + [0, 0] + [NEG_ZERO] * (n - 8)


def outlier_row(lcg, n):
    values = [lcg.gauss() / 50 for _ in range(n)]
    values[3], values[9] = Fraction(-10000), Fraction(12345, 100)
    return to_bits(values)


def constant_row(n):
    return [f32_bits_of("0.1")] * 8 + [f32_bits_of("-0.3")] * (n - 8)


def huge_row(lcg, n, signs):
    """Large values whose amax is 1.4 * 2^127; signs: a function of the index."""
    amax = Fraction(7, 5) * pow2(127)
    values = [amax * Fraction(7 + lcg.below(8), 16) for _ in range(n)]
    values[5] = values[n - 2] = amax
    return to_bits(v * signs(i) for i, v in enumerate(values))


def flt_max_row(lcg, n, signs):
    row = huge_row(lcg, n, signs)
    for i in (2, n - 1):
        row[i] = FLT_MAX | (NEG_ZERO if signs(i) < 0 else 0)
    return row


def first_group_positive(i):
    return 1 if i < 8 else -1


def calm_rows(lcg, n):
    """Rows of one group of 8 and a tail that every scale type can hold."""
    tiny = [lcg.gauss() * Fraction("1e-30") for _ in range(n)]
    mixed = [b if i % 3 else f32_bits_of(Fraction(3, 2) * pow2(-126)) for i, b in enumerate(subnormals(lcg, n))]
    return [zero_row(n), mixed, subnormals(lcg, 8) + [1, 0x80000002, 3, 0, NEG_ZERO][:n - 8], to_bits(tiny),
            outlier_row(lcg, n), constant_row(n)]


def stack(name, rows):
    return Input(name, len(rows), len(rows[0]), [b for row in rows for b in row])


def with_neighbours(bits):
    return [bits - 1, bits, bits + 1]


def single_column(name, elem_max):
    values = ["0", "-0", "1", "-1", "3", "-7", "0.1", "1e-30"]
    bits = [f32_bits_of(v) for v in values] + with_neighbours(F32.bits(fl(elem_max * 8)))
    return Input(name, len(bits), 1, bits)


# --- groups in which the order of a sum, or of the candidates, decides ------------------------------------------------

def sum_in_order(terms):
    total = Fraction(0)
    for t in terms:
        total = fl(total + t)
    return total


def sum_neighbours(terms):
    """Sixteen lanes, folded by neighbours (0 + 1, 2 + 3, ..) in place of halves."""
    lanes = lanes_of(terms, 16)
    while len(lanes) > 1:
        lanes = [fl(a + b) for a, b in zip(lanes[::2], lanes[1::2])]
    return lanes[0]


WRONG_SUMS = [sum, sum_in_order, sum_neighbours, lambda terms: sum_in_order(lanes_of(terms, 8)),
              lambda terms: sum_in_order(lanes_of(terms, 16))]


def misled_by(candidates):
    """Which of WRONG_SUMS would choose another candidate."""
    right = least_error(candidates)
    return {i for i, wrong in enumerate(WRONG_SUMS) if least_error(candidates, wrong) != right}


def flip_point(choice, low, high):
    """Two neighbouring bit patterns with different choices, between low and high; () where these two agree."""
    first = choice(low)
    if choice(high) == first:
        return ()
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if choice(middle) == first else (low, middle)
    return low, high


def as_weights(bits):
    return [Weight(*F32.value(b)) for b in bits]


def order_sensitive(lcg, tip_over, rows):
    """Groups of 32, moved by tip_over to an almost equal error of two candidates, that mislead WRONG_SUMS."""
    found, caught = [], set()
    while len(found) < rows:
        inner = [clamp(lcg.gauss() / 60, Fraction(-1, 16), Fraction(1, 16)) for _ in range(30)]
        start = to_bits([Fraction(23 + lcg.below(8), 256), Fraction(-23, 256)] + inner)
        for group, candidates in tip_over(start):
            misled = misled_by(candidates)
            if len(found) < rows and (misled - caught or len(caught) == len(WRONG_SUMS)):
                found.append(group)
                caught |= misled
    return stack("sum-order", found)


def mx_order_sensitive(lcg, elem, rows):
    """The maximum moves within its binade: that is where the search changes its mind."""
    def candidates(bits):
        xs = as_weights(bits)
        return search_candidates(xs, max(abs(x.value) for x in xs), elem, "nearest-even")

    def tip_over(bits):
        def choice(b):
            return least_error(candidates([b] + bits[1:]))

        low = F32.bits(Fraction(1, 8))
        for b in flip_point(choice, low, low + (1 << 23) - 1):
            yield [b] + bits[1:], candidates([b] + bits[1:])

    return order_sensitive(lcg, tip_over, rows)


def int_order_sensitive(lcg, kind, n, rows):
    """An inner weight moves until the two best steps k have almost equal errors; the range stays."""
    def candidates(bits, steps):
        return mse_candidates(kind, n, as_weights(bits), "nearest-even", F32, steps=steps)

    def tip_over(bits):
        ranked = sorted(candidates(bits, MSE_STEPS), key=lambda c: lane_sum(c[0]))
        best_two = {result[2] for _, result in ranked[:2]}
        steps = [k for k in MSE_STEPS if k in best_two]

        def choice(b):
            return least_error(candidates(bits[:-1] + [b], steps))

        end = bits[-1] & NEG_ZERO | F32.bits(Fraction(1, 16))
        for b in flip_point(choice, min(bits[-1], end), max(bits[-1], end)):
            group = bits[:-1] + [b]
            yield group, candidates(group, MSE_STEPS)

    return order_sensitive(lcg, tip_over, rows)


def tied_steps(kind, n, values):
    """The k of least error, for whole numbers whose scale of step k is k itself."""
    lo, hi = (-(1 << n - 1), (1 << n - 1) - 1) if kind == "int" else (0, (1 << n) - 1)
    errors = {k: sum((x - clamp(nearest_even(Fraction(x, k)), lo, hi) * k) ** 2 for x in values) for k in MSE_STEPS}
    return [k for k in MSE_STEPS if errors[k] == min(errors.values())]


def mse_ties(lcg, kind, n):
    """Groups of 4 with several k of least error: one with k <= 64 and a smaller k, one with k <= 64 and k > 64."""
    top = int(full_range_of(kind, n) * 64)
    wanted = [lambda ks: ks[0] <= 64 and min(ks) < ks[0], lambda ks: ks[0] <= 64 < max(ks)]
    rows = []
    while wanted:
        low = -top + 1 if kind == "int" else 0
        values = [top] + [low + lcg.below(top - low) for _ in range(3)]
        if kind == "int":
            values[0] *= lcg.sign()
        steps = tied_steps(kind, n, values)
        if len(steps) > 1 and wanted[0](steps):
            rows.append(to_bits(map(Fraction, values)))
            wanted.pop(0)
    return stack("mse-ties", rows)


# --- MX cases ---------------------------------------------------------------------------------------------------------

MX_THRESHOLDS = [Fraction(1), Fraction(3, 2), Fraction(7, 4), Fraction(15, 8), Fraction(31, 16), Fraction(127, 64),
                 Fraction(1023, 512)]


def positive_midpoints(elem):
    if isinstance(elem, MxInt8Element):
        return [Fraction(2 * i + 1, 128) for i in range(127)]
    values = sorted(elem.code_of)
    return [(a + b) / 2 for a, b in zip(values, values[1:])]


def mx_ties(lcg, elem):
    """Groups whose maximum is the element's largest number, all others halfway between two element values."""
    middles = positive_midpoints(elem)
    values = [elem.max * pow2(-3)] + [lcg.sign() * lcg.pick(middles) * pow2(-3) for _ in range(31)]
    values += [-elem.max * pow2(5)] + [lcg.sign() * lcg.pick(middles) * pow2(5) for _ in range(12)]
    return one_row("ties", to_bits(values))


def mx_threshold_groups(lcg):
    """Groups of 5 led by a maximum at, or one ulp beside, the place where a rule changes its exponent."""
    bits = []
    for t in MX_THRESHOLDS:
        for lead in with_neighbours(F32.bits(t * pow2(lcg.below(40) - 20))):
            amax = f32_value(lead)
            bits += [lead | lcg.below(2) << 31] + to_bits(filler(lcg, amax, 4))
    return Input("thresholds", 3, 35, bits)


def mx_byte_limits(lcg, elem, n):
    """Maxima whose exponent lies near the lower end of E8M0."""
    above, below = pow2(elem.emax - 126), pow2(elem.emax - 128)
    return to_bits([above, *filler(lcg, above, 7), -below, *filler(lcg, below, n - 9)])


def mx_extremes(lcg, elem):
    huge = huge_row(lcg, 13, lambda i: (-1) ** i)
    return stack("extremes", calm_rows(lcg, 13) + [huge, mx_byte_limits(lcg, elem, 13)])


def mx_floor_minus_one(lcg, elem):
    """One power of two and 31 odd multiples of half the smallest subnormal: one exponent lower may win."""
    smallest = Fraction(1, 64) if isinstance(elem, MxInt8Element) else elem.magnitude(1)
    values = [pow2(elem.emax)] + [lcg.sign() * smallest * lcg.pick([HALF, HALF * 3]) for _ in range(31)]
    return one_row("floor-1", to_bits(values))


def mx_cases(fmt):
    elem, lcg, plain = MX_FORMATS[fmt], Lcg(fmt), "nearest-even"
    bf16 = gauss_input(lcg, "gauss-bf16", 1, 72, BF16)
    heavy = gauss_input(lcg, "heavy-f32", 1, 37, F32, 3)
    small = gauss_input(lcg, "gauss-f32", 2, 11, F32)
    ties, limits, extremes = mx_ties(lcg, elem), mx_threshold_groups(lcg), mx_extremes(lcg, elem)
    flt_max = one_row("flt-max", flt_max_row(lcg, 13, lambda i: (-1) ** i))
    lower, column = mx_floor_minus_one(lcg, elem), single_column("column", elem.max)
    for rule in MX_RULES:
        for data, group in ((bf16, 32), (heavy, 16), (limits, 5), (extremes, 8), (flt_max, 8), (column, 32)):
            yield data, Params(group, rule, plain, None)
        for rounding in ROUNDINGS if rule in ("floor", "ceil", "search") else [plain]:
            yield ties, Params(32, rule, rounding, None)
    if elem in (E2M1, E3M2, E2M3):  # in 8-bit elements such near ties are too rare to look for
        yield mx_order_sensitive(lcg, elem, 3), Params(32, "search", plain, None)
    for rounding in ROUNDINGS:
        yield small, Params(5, "search", rounding, None)
        yield lower, Params(32, "search", rounding, None)
    yield small, Params(64, "search", plain, None)
    yield small, Params(1, "search", plain, None)


# --- integer cases ----------------------------------------------------------------------------------------------------

def symmetric_ties(lcg, n, s, count):
    half = (1 << n - 1) - HALF
    return [half * s] + [(lcg.below(1 << n) - (1 << n - 1) + HALF) * s for _ in range(count - 1)]


def asymmetric_ties(lcg, n, s, count, zero):
    """Range (0 - zero) .. (levels - zero) steps of s, the rest halfway between two codes."""
    levels = (1 << n) - 1
    inner = [(lcg.below(levels) + HALF - nearest_even(zero)) * s for _ in range(count - 2)]
    ends = -zero * s, (levels - zero) * s
    return [ends[0], ends[1]] + [clamp(v, *ends) for v in inner]


def int_ties(lcg, kind, n):
    """Scales that every scale type holds; 41 times its binary32 reciprocal is not 1."""
    steps = [pow2(-6), 41 * pow2(-12), 3 * pow2(-8)]
    sizes = [16, 16, 9]
    if kind == "int":
        groups = [symmetric_ties(lcg, n, s, c) for s, c in zip(steps, sizes)]
    else:
        zero = Fraction(1 + lcg.below((1 << n) - 2))
        zeros = [zero, zero - HALF, zero + HALF]  # the last two put the zero point itself on a tie
        groups = [asymmetric_ties(lcg, n, s, c, z) for s, c, z in zip(steps, sizes, zeros)]
    return one_row("ties", to_bits(v for g in groups for v in g))


def full_range_of(kind, n):
    """amax (or span) divided by the scale."""
    return (1 << n - 1) - HALF if kind == "int" else Fraction((1 << n) - 1)


SCALE_POINTS = {
    "f32": [pow2(-23), pow2(-24), Fraction(3, 2) * pow2(-23)],
    "bf16": [pow2(-23), 1 + pow2(-8), 1 + 3 * pow2(-8)],
    "f16": [pow2(-23), 5 * pow2(-25), 7 * pow2(-25), 1 + pow2(-11), 1 + 3 * pow2(-11)],
}


def scale_points(lcg, kind, n, dtype):
    """Groups of 4 led by an amax (or span) at, and one ulp beside, the ties and the floor of the stored scale."""
    bits = []
    for t in SCALE_POINTS[dtype]:
        for lead in with_neighbours(F32.bits(t * full_range_of(kind, n))):
            flip = lcg.below(2) << 31
            bits += [lead | flip] + [F32.bits(fl(f32_value(lead) / d)) | flip for d in (3, 7)] + [0]
    return one_row("scale-points", bits)


def int_extremes(lcg):
    return stack("extremes", calm_rows(lcg, 13) + [huge_row(lcg, 13, first_group_positive)])


def one_sided(lcg, cols):
    """One row all positive, one all negative."""
    rows = [[abs(lcg.gauss()) / 8 for _ in range(cols)], [-abs(lcg.gauss()) / 8 for _ in range(cols)]]
    return stack("one-sided", [to_bits(r) for r in rows])


def int_common_cases(fmt, rule):
    kind, n = INT_FORMATS[fmt]
    lcg, plain = Lcg(fmt + rule), "nearest-even"
    matrix = gauss_input(lcg, "gauss-f32", 3, 11, F32)
    ties = int_ties(lcg, kind, n)
    yield gauss_input(lcg, "gauss-bf16", 1, 150, BF16), Params(128, rule, plain, "bf16")
    heavy = gauss_input(lcg, "heavy-f32", 1, 37, F32, 3)
    yield heavy, Params(16, rule, plain, "f16")
    yield heavy, Params("channel", rule, plain, "f32")
    for rounding, dtype in zip(ROUNDINGS, ("bf16", "f16", "f32", "bf16")):
        yield ties, Params(16, rule, rounding, dtype)
    for group, dtype in ((5, "bf16"), ("channel", "f16"), ("tensor", "f32"), ("tensor", "bf16"), (1, "bf16")):
        yield matrix, Params(group, rule, plain, dtype)
    yield one_sided(lcg, 9), Params(8, rule, plain, "bf16")
    yield int_extremes(lcg), Params(8, rule, plain, "bf16")
    yield stack("calm", calm_rows(lcg, 13)), Params(8, rule, plain, "f16")
    yield one_row("flt-max", flt_max_row(lcg, 13, first_group_positive)), Params(8, rule, plain, "bf16")
    yield single_column("column", full_range_of(kind, n)), Params(128, rule, plain, "f32")


def int_range_cases(fmt):
    """absmax only: the stored scale's ties, the floor 2^-23, the largest scales and the refused ones."""
    kind, n = INT_FORMATS[fmt]
    lcg, plain, full = Lcg(fmt + "range"), "nearest-even", full_range_of(kind, n)
    for dtype in SCALE_TYPES:
        yield scale_points(lcg, kind, n, dtype), Params(4, "absmax", plain, dtype)
    yield int_extremes(lcg), Params(8, "absmax", plain, "f32")
    for name, scale in (("largest", 65504), ("rounds-down", 65505), ("too-large", 65520)):
        yield one_row("f16-" + name, to_bits([full * scale, full, Fraction(0)])), Params(8, "absmax", plain, "f16")
    million = one_row("amax-1e6", to_bits([Fraction(1), Fraction(-1000000), Fraction(5)]))
    for rule in ("absmax", "mse"):
        yield million, Params("channel", rule, plain, "f16")
    nearly = to_bits([-full * 64500, full * 30000 if kind == "int" else Fraction(0), full * -777])
    yield one_row("f16-k65-overflows", nearly), Params("channel", "mse", plain, "f16")
    if kind == "uint":
        both_ends = one_row("span-overflows", [FLT_MAX, FLT_MAX | NEG_ZERO, 0])
        for rule in ("absmax", "mse"):
            yield both_ends, Params(8, rule, plain, "f32")


def int_cases(fmt):
    for rule in ("absmax", "mse"):
        yield from int_common_cases(fmt, rule)
    yield from int_range_cases(fmt)
    kind, n = INT_FORMATS[fmt]
    lcg = Lcg(fmt + "order")
    if n <= 4:  # in wider codes these ties are too rare to look for
        yield mse_ties(lcg, kind, n), Params(4, "mse", "nearest-even", "bf16")
    if n in (2, 4):
        yield int_order_sensitive(lcg, kind, n, 3), Params(32, "mse", "nearest-even", "f32")


# --- cases with importance weights ------------------------------------------------------------------------------------

def column_weights(lcg, cols):
    """Spread over many binades, with zeros and ones."""
    values = [pow2(lcg.below(24) - 12) * (1 + lcg.unit()) for _ in range(cols)]
    values[1], values[2 % cols] = Fraction(0), Fraction(1)
    return [fl(v) for v in values]


def weighted_case(fmt, name, data, params, column_weights):
    w = [Fraction(v) for v in column_weights]
    head = {"format": fmt, **case_head(name, data, params), "w": hex32(map(F32.bits, w))}
    return {**head, **case_result(quantize(fmt, data, params, w))}


def weighted_cases():
    table = [("mxfp4", 32, "search", None), ("mxfp6_e2m3", 16, "search", None), ("mxfp8_e4m3", 32, "search", None),
             ("mxint8", 5, "search", None), ("int4", 32, "mse", "bf16"), ("int8", "channel", "mse", "f32"),
             ("int3", "tensor", "mse", "f16"), ("uint4", 16, "mse", "bf16"), ("uint2", "tensor", "mse", "f32")]
    for fmt, group, rule, dtype in table:
        lcg = Lcg("weighted" + fmt)
        data, params = gauss_input(lcg, "gauss-f32", 2, 37, F32), Params(group, rule, "nearest-even", dtype)
        w = column_weights(lcg, data.cols)
        yield weighted_case(fmt, f"{fmt}-{rule}", data, params, w)
    # [7.5, .25] with the weights [1, 320]: e0 = 0 has the error 22.25, e0+1 and e0-1 both 20.25, so e0+1 must win
    tie = one_row("", [f32_bits_of("7.5"), f32_bits_of(".25")])
    yield weighted_case("mxfp4", "mxfp4-search-tie", tie, Params(32, "search", "nearest-even", None), [1, 320])


# --- element tables ---------------------------------------------------------------------------------------------------

def decoded_text(elem, code):
    special = elem.specials.get(code & (elem.sign_bit - 1))
    if special is None:
        neg, v = elem.decode(code)
        return "%08x" % F32.bits(v, neg)
    return "-inf" if special == "inf" and code & elem.sign_bit else special


def encode_inputs(elem):
    """Positive binary32 patterns: element values, midpoints and their neighbours, beyond the maximum, tiny."""
    values = sorted(elem.code_of)
    bits = {F32.bits(v) for v in values}
    for middle in positive_midpoints(elem) + [elem.max * pow2(1), elem.max + (elem.max - values[-2]) / 2]:
        bits.update(with_neighbours(F32.bits(middle)))
    bits.update([F32.bits(elem.max) - 1, F32.bits(elem.max) + 1, 1, 0x00800000, FLT_MAX, f32_bits_of(1000000)])
    return sorted(bits)


def encode_pairs(elem, rounding):
    for b in encode_inputs(elem):
        for bits in (b, b | NEG_ZERO):
            neg, u = F32.value(bits)
            yield ["%08x" % bits, elem.encode(neg, u, rounding)]


def element_entry(elem):
    return {"name": elem.name, "bits": elem.nbits,
            "values": [decoded_text(elem, c) for c in range(1 << elem.nbits)],
            "encode": {r: list(encode_pairs(elem, r)) for r in ROUNDINGS}}


# --- facts of the specification ---------------------------------------------------------------------------------------
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


# --- facts against the oracle -----------------------------------------------------------------------------------------

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


# --- self-check -------------------------------------------------------------------------------------------------------

def check_rounding_table():
    points = [Fraction(k, 2) for k in (-5, -3, -1, 1, 3, 5)]
    table = {"nearest-even": [-2, -2, 0, 0, 2, 2], "away": [-3, -2, -1, 1, 2, 3], "up": [-2, -1, 0, 1, 2, 3],
             "truncate": [-2, -1, 0, 0, 1, 2]}
    for name, expected in table.items():
        assert [ROUNDINGS[name](u) for u in points] == expected, name


def check_binary_types():
    """Every bf16 and f16 pattern survives value -> bits; a few known binary32 patterns."""
    for binary in (BF16, F16):
        for bits in range(1 << 16):
            neg, v = binary.value(bits)
            if v is not None:
                assert binary.bits(binary.round(v), neg) == bits
                assert abs(v) == INF or F32.round(v) == v
    for text, bits in (("1", 0x3F800000), ("-2.6", 0xC0266666), ("0.1", 0x3DCCCCCD), ("1e-45", 1), ("-0", NEG_ZERO)):
        assert f32_bits_of(text) == bits, text
    assert F32.bits(F32.max) == FLT_MAX and F16.max == 65504
    assert F16.round(Fraction(65519)) == 65504 and F16.round(Fraction(65520)) == INF
    assert F32.bits(pow2(-127)) == 0x00400000  # the E8M0 byte 0 is a binary32 subnormal


def check_element_facts():
    """The tables of numerics 3 and layouts 1.1: maximum, smallest normal, smallest subnormal."""
    table = [(E5M2, 57344, -14, -16), (E4M3, 448, -6, -9), (E3M2, 28, -2, -4), (E2M3, Fraction("7.5"), 0, -3),
             (E2M1, 6, 0, -1)]
    for elem, biggest, normal, subnormal in table:
        assert elem.max == biggest and elem.max < pow2(elem.emax + 1) and elem.max >= pow2(elem.emax)
        assert elem.magnitude(1 << elem.m) == pow2(normal) and elem.magnitude(1) == pow2(subnormal)
        assert elem.code_of[elem.max] == max(elem.code_of.values())
    assert [E2M1.magnitude(c) for c in range(8)] == floats("0 .5 1 1.5 2 3 4 6")


def check_nearest_by_search():
    """Rounding on the grid equals the nearest table entry, ties to the even code."""
    for elem in FLOAT_ELEMENTS:
        values = sorted(elem.code_of)
        for bits in encode_inputs(elem):
            u = f32_value(bits)
            best = min(values, key=lambda v: (abs(v - u), elem.code_of[v] & 1))
            assert elem.encode(0, u, "nearest-even") == elem.code_of[best], (elem.name, bits)


def check_e2m1_thresholds():
    """layouts 1.4: nearest-even changes E2M1 at >.25 >=.75 >1.25 >=1.75 >2.5 >=3.5 >5."""
    table = [(".25", 0), (".75", 1), ("1.25", 0), ("1.75", 1), ("2.5", 0), ("3.5", 1), ("5", 0)]
    for lower_code, (text, inclusive) in enumerate(table):
        bits = f32_bits_of(text)
        codes = [E2M1.encode(0, f32_value(b), "nearest-even") for b in with_neighbours(bits)]
        assert codes == [lower_code, lower_code + inclusive, lower_code + 1]


def check_rule_thresholds():
    """Where a rule's exponent rises above floor: numerics 3, layouts 1.3."""
    even = {"mxfp4": "1.75", "mxfp8_e5m2": "1.875", "mxfp6_e3m2": "1.875", "mxfp8_e4m3": "1.9375",
            "mxfp6_e2m3": "1.9375", "mxint8": "1.998046875"}
    rceil = {"mxfp4": "1.5", "mxfp8_e4m3": "1.75"}
    for fmt, elem in MX_FORMATS.items():
        for k in (-30, 0, 7):
            at = F32.bits(Fraction(even[fmt]) * pow2(k))
            rises = [exponent_even(f32_value(b), elem) - (k - elem.emax) for b in with_neighbours(at)]
            assert rises == [0, 1, 1], (fmt, "even")
            at = F32.bits(pow2(k))
            rises = [exponent_ceil(f32_value(b), elem) - (k - elem.emax) for b in with_neighbours(at)]
            assert rises == [0, 0, 1], (fmt, "ceil")
            if fmt in rceil:
                at = F32.bits(Fraction(rceil[fmt]) * pow2(k))
                rises = [exponent_rceil(f32_value(b), elem) - (k - elem.emax) for b in with_neighbours(at)]
                assert rises == [0, 0, 1], (fmt, "rceil")


def check_scaled_maxima():
    """layouts 1.3: the interval of amax / 2^e. (rule, lower, upper, lower included, upper included)"""
    table = {"mxfp4": [("floor", "4", "8", 1, 0), ("even", "3.5", "7", 1, 0), ("rceil", "3", "6", 0, 1),
                       ("ceil", "2", "4", 0, 1)],
             "mxfp8_e4m3": [("floor", "256", "512", 1, 0), ("even", "248", "496", 1, 0), ("rceil", "224", "448", 0, 1),
                            ("ceil", "128", "256", 0, 1)]}
    lcg = Lcg("scaled maxima")
    samples = [0x30000000 + lcg.below(0x20000000) for _ in range(400)]
    samples += [b for t in MX_THRESHOLDS for b in with_neighbours(F32.bits(t))]
    for fmt, rows in table.items():
        for rule, lower, upper, with_lower, with_upper in rows:
            for bits in samples:
                amax = f32_value(bits)
                u = amax / pow2(PLAIN_MX_RULES[rule](amax, MX_FORMATS[fmt]))
                lo, hi = Fraction(lower), Fraction(upper)
                assert lo < u < hi or (u == lo and with_lower) or (u == hi and with_upper), (fmt, rule, bits)


def check_int_facts():
    """What numerics 8.5 states beyond codes and scales."""
    def run(fmt, x):
        data = Input("", 1, len(x), [f32_bits_of(v) for v in x])
        result = quantize(fmt, data, Params(8, "absmax", "nearest-even", "f32"))
        return result["codes"], result["zeros"], [f32_value(b) for b in result["y"]]

    assert near_decimal(run("int8", X)[2][7], "2.5898")
    stated = "1.04 -.346667 0 -1.38667 .693333 0 -.693333 2.42667".split()
    assert all(near_decimal(y, t) for y, t in zip(run("int4", X)[2], stated))
    # 8.5.3, signed asymmetric int4: the unsigned codes and zero point moved by 8
    codes, zeros, _ = run("uint4", X)
    assert [c - 8 for c in codes] == [0, -4, -3, -8, -1, -3, -6, 7] and zeros[0] - 8 == -3


def check_layout_vector():
    first = floats("-0.453125 -0.30859375 -0.1640625 -0.01953125 0.125 0.26953125 0.4140625 -0.4375")
    values = layout_vector()
    assert values[:8] == first and all(BF16.round(v) == v for v in values)
    assert max(map(abs, values[:32])) == Fraction("1.8125") / 4
    assert max(map(abs, values[32:64])) == Fraction("1.953125") / 8


def check_zero_groups():
    """Section 6: zero groups give byte 0 (or the scale 2^-23) and exact zeros."""
    data = one_row("", [0, NEG_ZERO, 0])
    for fmt in [*MX_FORMATS, *INT_FORMATS]:
        for rule in MX_RULES if fmt in MX_FORMATS else ("absmax", "mse"):
            dtype = None if fmt in MX_FORMATS else "f16"
            result = quantize(fmt, data, Params(8, rule, "nearest-even", dtype))
            assert result["scales"] == ([0] if dtype is None else [F16.bits(pow2(-23))])
            assert all(f32_value(b) == 0 for b in result["y"])


SELF_CHECKS = [check_rounding_table, check_binary_types, check_element_facts, check_nearest_by_search,
               check_e2m1_thresholds, check_rule_thresholds, check_scaled_maxima, check_int_facts, check_layout_vector,
               check_zero_groups]


# --- public vectors under --data --------------------------------------------------------------------------------------

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


def self_check(data):
    for check in SELF_CHECKS:
        check()
        print(f"ok   {check.__name__}")
    print(f"ok   {len(spec_cases())} worked cases and {len(spec_encodes())} encode tables of the specification")
    check_public_data(data)


# --- main -------------------------------------------------------------------------------------------------------------

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
