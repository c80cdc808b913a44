#!/usr/bin/env python3
"""Independent oracle for the range observers, and the generator of tests/golden/observers.json.

What it is
  A second implementation of formats/NUMERICS_OBSERVERS.md, written from that page alone, in plain Python (standard library only). It shares no
  code with the C sources and none of their shortcuts: sorted lists instead of streams, naive scans instead of walkers, a search over all values of
  an element instead of bit arithmetic, math.log2 instead of a series.

Arithmetic
  Binary32 operations are done in binary64 and rounded once more (53 >= 2 * 24 + 2 bits: the same result as a direct rounding). Python floats are
  binary64; sums are in the order the page states.

How to run
  tests/oracle_observers.py --self-check            asserts the worked numbers of the page
  tests/oracle_observers.py --out FILE [--seed N]   writes the vectors; seed 1 is the one that is kept, others are for further random runs
                                                    (LLMQ_OBSERVERS=FILE test_observe)
  tests/oracle_observers.py --check FILE            fails unless FILE is what --out would write

Numbers in the file are binary32 bit patterns in 8 hex digits, lists of them are strings.
"""

import argparse
import json
import math
import struct
import sys
from fractions import Fraction

INF = float("inf")
FLT_MAX = struct.unpack("<f", struct.pack("<I", 0x7F7FFFFF))[0]
EPS = 2.0 ** -23

# ---- binary32 ------------------------------------------------------------------------------------------------------------------------


def f32(x):
    if x != x or x in (INF, -INF):
        return x
    try:
        return struct.unpack("<f", struct.pack("<f", x))[0]
    except OverflowError:
        return math.copysign(INF, x)


def bits(x):
    return struct.unpack("<I", struct.pack("<f", x))[0]


def from_bits(b):
    return struct.unpack("<f", struct.pack("<I", b))[0]


def add(a, b):
    return f32(a + b)


def sub(a, b):
    return f32(a - b)


def mul(a, b):
    return f32(a * b)


def div(a, b):
    if b == 0:
        return math.nan if a == 0 or a != a else math.copysign(INF, a) * math.copysign(1, b)
    if b in (INF, -INF) and a in (INF, -INF):
        return math.nan
    return f32(a / b)


def rne(u):
    """Nearest integer, ties to even; Python's round of a float is that, exactly."""
    return u if u != u or u in (INF, -INF) else float(round(u))


def finite(x):
    return x == x and x not in (INF, -INF)


# ---- elements ------------------------------------------------------------------------------------------------------------------------

FLOATS = {  # exponent bits, mantissa bits, bias, largest value
    "e2m1": (2, 1, 1, 6.0),
    "e2m3": (2, 3, 1, 7.5),
    "e3m2": (3, 2, 3, 28.0),
    "e4m3": (4, 3, 7, 448.0),
    "e5m2": (5, 2, 15, 57344.0),
}
ALIASES = {"fp8_e4m3": "e4m3", "fp8_e5m2": "e5m2", "fp6_e3m2": "e3m2", "fp6_e2m3": "e2m3", "fp4_e2m1": "e2m1", "fp4": "e2m1"}
_values = {}


def float_values(name):
    """Magnitudes of all finite codes, ascending by code."""
    if name not in _values:
        e, m, bias, largest = FLOATS[name]
        out = []
        for code in range(1 << (e + m)):
            field, mantissa = code >> m, code & ((1 << m) - 1)
            v = math.ldexp(mantissa, 1 - bias - m) if field == 0 else math.ldexp((1 << m) + mantissa, field - bias - m)
            if v <= largest:
                out.append(v)
        _values[name] = out
    return _values[name]


def float_nearest(name, u):
    """The value u is encoded to."""
    values = float_values(name)
    size = abs(u)
    if size >= values[-1]:
        return math.copysign(values[-1], u)
    low = 0
    high = len(values) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if values[middle] <= size:
            low = middle
        else:
            high = middle
    below, above = Fraction(size) - Fraction(values[low]), Fraction(values[high]) - Fraction(size)
    pick = low if below < above or (below == above and low % 2 == 0) else high
    return math.copysign(values[pick], u)


def type_of(name):
    """("float", element) or ("int", low, high)."""
    name = ALIASES.get(name, name)
    if name in FLOATS:
        return ("float", name)
    n = int(name.lstrip("uint"))
    return ("int", 0, 2 ** n - 1) if name[0] == "u" else ("int", -2 ** (n - 1), 2 ** (n - 1) - 1)


# ---- section 1: parameters from a range ----------------------------------------------------------------------------------------------


def store(kind, s):
    if kind == "bf16":
        if s == 0 or not finite(s):
            return s
        exact = Fraction(s)
        e = max(math.frexp(s)[1] - 1, -126) - 7
        return f32(float(round(exact / Fraction(2) ** e) * Fraction(2) ** e))
    if kind == "f16":
        if s == 0 or not finite(s):
            return s
        e = max(math.frexp(s)[1] - 1, -14) - 10
        v = float(round(Fraction(s) / Fraction(2) ** e) * Fraction(2) ** e)
        return INF if v > 65504 else v
    return s


def rule(type="int8", symmetric=True, reduce_range=False, zero="none", half="half", scale="f32"):
    return dict(type=type, symmetric=symmetric, reduce_range=reduce_range, zero=zero, half=half, scale=scale)


def limits(r):
    _, low, high = type_of(r["type"])
    return (low // 2, high // 2) if r["reduce_range"] else (low, high)


def qparams(r, lo, hi):
    if lo > hi:
        return 1.0, 0.0
    a, b = min(lo, 0.0), max(hi, 0.0)
    amax = max(-a, b)
    kind = type_of(r["type"])
    if kind[0] == "float":
        s = store(r["scale"], div(amax, float_values(kind[1])[-1]))
        return (EPS if s == 0 else s), 0.0
    low, high = limits(r)
    if r["symmetric"]:
        int_max = max(high if low < 0 else high // 2, 1)
        half = f32((high - low) / 2) if r["half"] == "half" else f32(float(int_max))
        z = float(high // 2) if r["zero"] == "middle" and low == 0 else 0.0
        return store(r["scale"], max(div(amax, half), EPS)), z
    span = f32(float(high - low))
    if r["zero"] == "float":
        s = div(sub(hi, lo), span)
        s = store(r["scale"], 1.0 if s <= EPS else s)
        return s, sub(f32(float(low)), div(lo, s))
    s = store(r["scale"], max(div(sub(b, a), span), EPS))
    return s, min(max(low - rne(div(a, s)), low), high) + 0.0


def value(r, s, z, x):
    """What x decodes to."""
    u = div(x, s)
    kind = type_of(r["type"])
    if kind[0] == "float":
        return mul(float_nearest(kind[1], u), s)
    low, high = limits(r)
    q = rne(add(u, f32(z))) if r["zero"] == "float" and not r["symmetric"] else rne(u) + z
    return mul(f32(min(max(q, low), high) - z), s)


# ---- section 2: histograms -----------------------------------------------------------------------------------------------------------


class Histogram:
    def __init__(self, x, bins, absolute, skip_zeros=False):
        x = [v + 0.0 for v in x if finite(v)]
        if skip_zeros:
            x = [v for v in x if v != 0]
        if absolute:
            x = [abs(v) for v in x]
        self.x, self.bins, self.absolute = x, bins, absolute
        self.ends = None if not x else (0.0, max(x)) if absolute else (min(x), max(x))
        lo, hi = self.ends or (0.0, 0.0)
        self.unit = 2.0 ** -64 if max(abs(lo), abs(hi)) >= 2.0 ** 100 else 1.0
        if lo == hi:
            lo, hi = sub(lo, 1.0), add(hi, 1.0)
        self.lo, self.hi = lo, hi
        self.origin, self.end = mul(lo, self.unit), mul(hi, self.unit)
        self.span = sub(self.end, self.origin)
        self.counts = [0] * bins
        for v in x:
            index = 0
            if self.span > 0:
                index = int(div(mul(sub(mul(v, self.unit), self.origin), float(bins)), self.span))
            self.counts[min(index, bins - 1)] += 1
        self.total = len(x)
        step = div(self.span, float(bins))
        near = [add(self.origin, mul(step, float(i))) for i in range(bins + 1)]
        far = [sub(self.end, mul(step, float(bins - i))) for i in range(bins + 1)]
        edges = [near[i] if i < (bins + 1) // 2 else far[i] for i in range(bins + 1)]
        self.edges = [div(e, self.unit) for e in edges]
        self.centres = [div(div(add(edges[i], edges[i + 1]), 2.0), self.unit) for i in range(bins)]


NOTHING = (INF, -INF)

# ---- sections 4 to 7, 9: ranges ------------------------------------------------------------------------------------------------------


def minmax(x, p):
    x = [v + 0.0 for v in x if finite(v)]
    return (min(x), max(x)) if x else NOTHING


def collect(x, p):
    return NOTHING


def percentile(x, p):
    h = Histogram(x, p["bins"], p["symmetric"], True)
    if h.total == 0:
        return 0.0, 0.0
    if h.ends[0] == h.ends[1]:
        return h.ends
    shares, running = [], 0
    for c in h.counts:
        running += c
        shares.append(running / h.total)
    share = p["percentile"] / 100
    if p["symmetric"]:
        t = min(share, shares[-1])
        return 0.0, h.edges[[i for i in range(h.bins) if shares[i] >= t][0]]
    tail = (1 - share) / 2
    first = [i for i in range(h.bins) if shares[i] > tail] or [h.bins - 1]
    last = [i for i in range(h.bins) if shares[i] >= 1 - tail] or [h.bins - 1]
    return tuple(sorted((h.edges[first[0]], h.edges[last[0] + 1])))


def mse(x, p):
    h = Histogram(x, p["bins"], p["symmetric"])
    if h.total == 0:
        return NOTHING
    if h.ends[0] == h.ends[1]:
        return h.ends
    best, least = h.ends, INF
    used = [i for i in range(h.bins) if h.counts[i]]
    for i in range(min(p["start_bin"], h.bins - 1), h.bins, p["stride"]):
        if p["symmetric"]:
            pair = (0.0, h.centres[i])
        else:
            ratio = div(add(float(i), 0.5), float(h.bins))
            pair = (mul(min(h.ends[0], 0.0), ratio), mul(max(h.ends[1], 0.0), ratio))
        s, z = qparams(p["quantiser"], *pair)
        error = 0.0
        for j in used:
            d = value(p["quantiser"], s, z, h.centres[j]) - h.centres[j]
            error += h.counts[j] * (d * d)
        if error < least:
            best, least = pair, error
    return best


def pro_error(counts, s, e):
    width, total = e - s + 1, 0.0
    d = width / 256
    for j, c in enumerate(counts):
        if c == 0:
            continue
        b = j - s
        i0, i1 = (min(max(math.floor(Fraction(v * 256, width)), 0), 255) for v in (b, b + 1))
        half, low, high = d / 2, b - (i0 + 0.5) * d, b + 1 - (i1 + 0.5) * d
        half3, low3, high3, d3 = half * half * half, low * low * low, high * high * high, d * d * d
        total += c * ((half3 - low3) / 3 + (i1 - i0 - 1) * d3 / 12 + (high3 + half3) / 3)
    return total


def pro(x, p):
    h = Histogram(x, p["bins"], False)
    if h.total == 0:
        return NOTHING
    if h.ends[0] == h.ends[1]:
        return h.ends
    cumulative, running = [], 0
    for c in h.counts:
        running += c
        cumulative.append(float(running))
    total = float(h.total)
    s, e, alpha, beta, best = 0, h.bins - 1, 0.0, 1.0, INF
    while alpha < beta:
        next_alpha, next_beta = alpha + 1e-5, beta - 1e-5
        left, right = s, e
        while left < e and cumulative[left] < next_alpha * total:
            left += 1
        while right > s and cumulative[right] > next_beta * total:
            right -= 1
        pair = (s, e)
        if left - s > e - right:
            pair, alpha = (left, e), next_alpha
        else:
            pair, beta = (s, right), next_beta
        if pair == (s, e):
            continue
        error = pro_error(h.counts, *pair)
        if error > best:
            break
        best, (s, e) = error, pair
    w = div(h.span, float(h.bins))
    low, high = add(h.origin, mul(w, float(s))), add(h.origin, mul(w, float(e + 1)))
    return div(low, h.unit), min(div(high, h.unit), FLT_MAX)


def around_zero(t):
    t = f32(min(t, FLT_MAX))
    return -t, t


def three_sd(x, p):
    x = [v for v in x if finite(v)]
    if not x:
        return NOTHING
    total = square = 0.0
    for v in x:
        total += v
        square += v * v
    mean = total / len(x)
    return around_zero(abs(mean + 1e-6) + 3 * math.sqrt(max(square / len(x) - mean * mean, 0.0)))


def resample(y, count):
    """count points over y, from its first to its last number."""
    out = []
    for k in range(count):
        index, rest = divmod(k * (len(y) - 1), count - 1)
        out.append(y[index] if rest == 0 else y[index] + (y[index + 1] - y[index]) * (rest / (count - 1)))
    return out


def kl_j(x, p):
    a = [abs(v) for v in x if finite(v)]
    if not a:
        return NOTHING
    top, least = max(a), min(a)
    bins = 1 if least == top else min(math.ceil(top * math.sqrt(len(a)) / (top - least)), p["bins"])
    n = 2 ** (p["bits"] - 1)
    if n + 1 > bins:
        return around_zero(top)
    h = Histogram(a, bins, True)
    c, running = [], 0
    for k in h.counts:
        running += k
        c.append(running / h.total)
    best, least_j = None, None
    for i in range(n + 1, bins + 1):
        filled = c[:i - 1] + [1.0] * (bins - i + 1)
        q = resample(resample(filled[:i], n), i) + filled[i:]
        terms = [0.0 if c[k] == 0 else INF if q[k] == 0 else f32((c[k] - q[k]) * math.log2(c[k] / q[k])) for k in range(bins)]
        j = 0.0
        for k in range(i):
            j += terms[k]
        tail = 0.0
        for k in range(bins - 1, i - 1, -1):
            tail += terms[k]
        j += tail
        if best is None or j < least_j:
            best, least_j = (i + 0.5) * (top / bins), j
    return around_zero(best)


OBSERVERS = {
    "minmax": minmax, "histogram": collect, "percentile": percentile, "mse-hist": mse, "histogram-pro": pro, "3sd": three_sd, "kl-j": kl_j,
    "block-mx": minmax, "block-bfp": minmax, "placeholder": collect,
}

# ---- section 8: blocks ---------------------------------------------------------------------------------------------------------------

EMAX = {"e2m1": 2, "e2m3": 2, "e3m2": 4, "e4m3": 8, "e5m2": 15, "mxint8": 0}
MBITS = {"e2m1": 1, "e2m3": 3, "e3m2": 2, "e4m3": 3, "e5m2": 2, "mxint8": 8}


def mx_byte(element, mode, amax):
    if amax == 0:
        return 0
    exact, k = Fraction(amax), -160
    while Fraction(2) ** (k + 1) <= exact:
        k += 1
    if mode == "ceil" and Fraction(2) ** k < exact:
        k += 1
    if mode == "even" and amax >= 2.0 ** -126:
        k += exact / Fraction(2) ** k >= 2 - Fraction(1, 2 ** (MBITS[element] + 1))
    if mode == "even" and amax < 2.0 ** -126:
        k = -127
    return min(max(k - EMAX[element], -127), 127 - EMAX[element]) + 127


def exponent_field(amax):
    return bits(amax) >> 23


def bfp_byte(block):
    x = [v for v in block if finite(v)]
    field = exponent_field(max([abs(v) for v in x] or [0.0]))
    step = Fraction(2) ** (field - 127 - 6)
    if field < 254 and any(not -128 <= round(Fraction(v) / step) <= 127 for v in x):
        field += 1
    return field


def blocks_of(x, size):
    return [x[i:i + size] for i in range(0, len(x), size)]


def amax_of(block):
    return max([abs(v) for v in block if finite(v)] or [0.0])


# ---- grids ---------------------------------------------------------------------------------------------------------------------------


def grid_slots(shape, axis, granularity, group):
    """For each row-major index its slot, by swapping axes the plain way; and how many slots there are."""
    rank = len(shape)
    axis %= rank
    total = math.prod(shape)
    strides = [math.prod(shape[i + 1:]) for i in range(rank)]
    if granularity == "channel":
        return [i // strides[axis] % shape[axis] for i in range(total)], shape[axis]
    order = list(range(rank))
    order[axis], order[-1] = order[-1], order[axis]
    swapped = [shape[k] for k in order]
    group = shape[axis] if group == -1 else min(group, shape[axis])
    per_run = -(-shape[axis] // group)
    slots = []
    for i in range(total):
        index = [i // strides[k] % shape[k] for k in order]
        run = 0
        for k in range(rank - 1):
            run = run * swapped[k] + index[k]
        slots.append(run * per_run + index[-1] // group)
    return slots, math.prod(swapped[:-1]) * per_run


# ---- vectors -------------------------------------------------------------------------------------------------------------------------


class Draw:
    """xorshift64*."""

    def __init__(self, seed):
        self.state = seed * 0x9E3779B97F4A7C15 & (2 ** 64 - 1) or 1

    def below(self, n):
        x = self.state
        x ^= x >> 12
        x ^= x << 25 & (2 ** 64 - 1)
        x ^= x >> 27
        self.state = x
        return ((x * 0x2545F4914F6CDD1D & (2 ** 64 - 1)) >> 33) % n

    def normal(self):
        return f32(sum(self.below(65536) - 32767.5 for _ in range(12)) * 2.0 ** -16)

    def bits(self):
        return from_bits(self.below(1 << 16) << 16 | self.below(1 << 16))


X = [f32(v) for v in (0.9, -0.35, 0.12, -1.4, 0.61, 0.05, -0.77, 2.6)]
Y = X + [f32(v) for v in (0, .33, -.2, 1.1)]


def make_inputs(draw):
    inputs = {"page": Y, "empty": [], "zero": [0.0], "zeros": [0.0, -0.0] * 8, "minus_zero": [-0.0], "one": [f32(0.3)], "minus_one": [-1.0],
              "constant": [f32(0.07)] * 20, "huge_constant": [2.0 ** 30] * 5, "pair": [-FLT_MAX, FLT_MAX], "largest": [FLT_MAX, 0.0],
              "least": [from_bits(1), from_bits(0x80000001), 0.0], "only_nan": [math.nan, INF, -INF]}
    inputs["normal"] = [mul(draw.normal(), f32(0.02)) for _ in range(300)]
    inputs["normal_1000"] = [draw.normal() for _ in range(1000)]
    inputs["outliers"] = [mul(draw.normal(), 8.0 if i % 61 == 7 else f32(0.5)) for i in range(256)]
    inputs["sparse"] = [draw.normal() if draw.below(5) == 0 else 0.0 for _ in range(200)]
    inputs["positive"] = [abs(draw.normal()) for _ in range(128)]
    inputs["negative"] = [sub(-abs(draw.normal()), 1.0) for _ in range(64)]
    inputs["far"] = [add(draw.normal(), 100.0) for _ in range(100)]
    inputs["grid"] = [(draw.below(17) - 8) / 8 for _ in range(160)]
    inputs["bf16"] = [from_bits(bits(draw.normal()) & 0xFFFF0000) for _ in range(128)]
    inputs["tiny"] = [from_bits(draw.below(1 << 22) | draw.below(2) << 31) for _ in range(90)]
    inputs["huge"] = [mul(draw.normal(), f32(8e37)) for _ in range(90)]
    inputs["wild"] = [draw.bits() for _ in range(150)]
    inputs["holes"] = [math.nan if i % 7 == 3 else INF if i % 11 == 5 else -INF if i % 13 == 1 else draw.normal() for i in range(100)]
    inputs["tenths"] = [f32(i / 10) for i in range(-20, 101)]
    inputs["thirds"] = [f32(i / 3) for i in range(0, 91)]
    inputs["bump"] = [1.9921875, 0.5, 0.0, 0.0, -1.9921875, 0.5, -2.0, 1.9921875, 1.9921874, 1.0, -1.9999999, 0.0]
    inputs["bump"] = [f32(v) for v in inputs["bump"]]
    return inputs


def hexes(x):
    return "".join("%08x" % bits(v) for v in x)


RULES = [rule("int8"), rule("int4"), rule("fp8_e4m3"), rule("uint4", symmetric=False, zero="int"), rule("fp4"), rule("int4", half="int_max")]


def observations(inputs, draw):
    for name, x in inputs.items():
        yield name, "minmax", {}
        yield name, "3sd", {}
        yield name, "placeholder", {}
        for bins in (1, 7, 8, 60, 256, 2048):
            for symmetric in (True, False):
                yield name, "histogram", dict(bins=bins, symmetric=symmetric)
        for p in (0.0, 50.0, 90.0, 99.0, 99.99, 99.99999999, 100.0, draw.below(1000000) / 10000):
            for symmetric in (True, False):
                yield name, "percentile", dict(bins=4200 if p > 99 else 1 + draw.below(300), symmetric=symmetric, percentile=p)
        for r in RULES:
            bins = (8, 33, 64, 100)[draw.below(4)]
            yield name, "mse-hist", dict(bins=bins, symmetric=draw.below(3) > 0, start_bin=draw.below(bins + 3), stride=1 + draw.below(3),
                                         quantiser=r)
            yield name, "mse-hist", dict(bins=bins, symmetric=r["symmetric"], start_bin=0, stride=1, quantiser=r)
        for bins in (1, 8, 256, 1000):
            yield name, "histogram-pro", dict(bins=bins)
        for b in (2, 3, 4, 8):
            yield name, "kl-j", dict(bins=(64, 16, 40, 512)[draw.below(4)], bits=b)
    yield "normal", "mse-hist", dict(bins=2048, symmetric=True, start_bin=1536, stride=7, quantiser=rule("int4"))


def qparams_cases(draw):
    ranges = [(INF, -INF), (0.0, 0.0), (-0.0, 0.0), (f32(-1.4), f32(2.6)), (0.0, f32(2.6)), (f32(-2.6), 0.0), (1.0, 3.0), (-3.0, -1.0), (5.0, 5.0),
              (-FLT_MAX, FLT_MAX), (0.0, from_bits(1)), (-(2.0 ** -24), 2.0 ** -24), (0.0, FLT_MAX)]
    for _ in range(12):
        a, b = sorted((draw.normal(), draw.normal()))
        ranges.append((a, b))
    for _ in range(6):
        a, b = sorted((f32(draw.bits()), f32(draw.bits())))
        if finite(a) and finite(b):
            ranges.append((a, b))
    names = ["int2", "int3", "int4", "int5", "int8", "int16", "int32", "uint2", "uint4", "uint8", "uint16", "uint32"]
    names += ["fp8_e4m3", "fp8_e5m2", "fp6_e3m2", "fp6_e2m3", "fp4"]
    for name in names:
        for symmetric, zero, half, reduce_range in ((True, "none", "half", False), (True, "int", "int_max", False), (True, "middle", "half", False),
                                                    (True, "middle", "int_max", True), (False, "int", "half", False), (False, "int", "half", True),
                                                    (False, "float", "half", False)):
            if name[0] == "f" and not symmetric:
                continue
            for lo, hi in ranges[:3] + [ranges[3 + draw.below(len(ranges) - 3)] for _ in range(5)]:
                scale = ("f32", "f32", "bf16", "f16")[draw.below(4)]
                yield rule(name, symmetric, reduce_range, zero, half, scale), lo, hi
    for steps in (14.9999, 15.0, 15.0001):
        for zero in ("int", "float"):
            yield rule("uint4", False, zero=zero), 0.0, f32(steps * EPS)


GRIDS = [
    ([6, 10], 0, "channel", 0), ([6, 10], 1, "channel", 0), ([6, 10], -1, "group", 4), ([6, 10], 0, "group", 4), ([6, 10], 0, "group", -1),
    ([3, 4, 5], 1, "channel", 0), ([3, 4, 5], 1, "group", 2), ([3, 4, 5], 0, "group", 2), ([3, 4, 5], 2, "group", 3),
    ([2, 3, 2, 5], 0, "group", 1), ([2, 3, 2, 5], 1, "group", 2), ([2, 3, 2, 5], -2, "channel", 0),
    ([60], 0, "group", 7), ([60], 0, "channel", 0), ([1, 60], 0, "group", 32), ([60, 1], 1, "group", 8),
]


def number(z):
    return int(z) if z == int(z) else z


def generate(seed):
    draw = Draw(seed)
    inputs = make_inputs(draw)
    out = ["{", '"inputs": [']
    out.append(",\n".join(json.dumps({"name": k, "x": hexes(v)}) for k, v in inputs.items()))
    out.append('], "observations": [')
    rows = []
    for name, observer, p in observations(inputs, draw):
        lo, hi = OBSERVERS[observer](inputs[name], p)
        row = {"input": name, "observer": observer, **p, "min": "%08x" % bits(lo + 0.0), "max": "%08x" % bits(hi + 0.0)}
        if observer == "histogram":
            h = Histogram(inputs[name], p["bins"], p["symmetric"])
            row.update(lo="%08x" % bits(h.lo), hi="%08x" % bits(h.hi), dropped=sum(not finite(v) for v in inputs[name]),
                       counts=[[i, c] for i, c in enumerate(h.counts) if c])
            probes = sorted({0, 1, h.bins // 2, h.bins - 1} & set(range(h.bins)))
            row["edges"] = [[i] + ["%08x" % bits(v + 0.0) for v in (h.edges[i], h.centres[i], h.edges[i + 1])] for i in probes]
        rows.append(json.dumps(row))
    out.append(",\n".join(rows))
    out.append('], "qparams": [')
    rows = []
    for r, lo, hi in qparams_cases(draw):
        s, z = qparams(r, lo, hi)
        row = {**r, "min": "%08x" % bits(lo), "max": "%08x" % bits(hi), "s": "%08x" % bits(s)}
        if finite(z):
            row["z"] = number(z)
        if finite(s) and finite(z):
            x = [f32(f) for f in (lo, hi, 0.0, lo / 3, hi / 3, 2 * hi) if finite(f) and abs(f) <= FLT_MAX]
            row["x"], row["y"] = hexes(x), hexes([value(r, s, z, v) + 0.0 for v in x])
        rows.append(json.dumps(row))
    out.append(",\n".join(rows))
    out.append('], "grids": [')
    rows = []
    for shape, axis, granularity, group in GRIDS:
        x = inputs["normal"][:60]
        slots, n = grid_slots(shape, axis, granularity, group)
        parts = [minmax([v for v, at in zip(x, slots) if at == k], {}) for k in range(n)]
        sds = [three_sd([v for v, at in zip(x, slots) if at == k], {}) for k in range(n)]
        rows.append(json.dumps({"shape": shape, "axis": axis, "granularity": granularity, "group": group, "min": hexes(p[0] for p in parts),
                                "max": hexes(p[1] for p in parts), "sd": hexes(p[1] for p in sds)}))
    out.append(",\n".join(rows))
    out.append('], "blocks": [')
    rows = []
    for name, x in inputs.items():
        for size in (4 if len(x) < 100 else 16,):
            blocks = blocks_of(x, size)
            for element in EMAX:
                for mode in ("floor", "ceil", "even"):
                    rows.append({"input": name, "block": size, "element": element, "mode": mode,
                                 "bytes": [mx_byte(element, mode, amax_of(b)) for b in blocks]})
            rows.append({"input": name, "block": size, "mode": "prime", "bytes": [exponent_field(amax_of(b)) for b in blocks]})
            rows.append({"input": name, "block": size, "mode": "bfp", "bytes": [bfp_byte(b) for b in blocks]})
    out.append(",\n".join(json.dumps(r) for r in rows))
    out.append("]}")
    return "\n".join(out) + "\n"


# ---- worked numbers ------------------------------------------------------------------------------------------------------------------


def near(a, b, tolerance=6e-7):
    assert abs(a - b) <= tolerance * max(1, abs(b)), (a, b)


def self_check():
    assert bits(qparams(rule("uint4", False, zero="int"), *minmax(X, {}))[0]) == 0x3E888889
    assert qparams(rule("uint4", False, zero="int"), *minmax(X, {}))[1] == 5
    assert qparams(rule("int4", False, zero="int"), *minmax(X, {}))[1] == -3
    assert bits(qparams(rule("uint8", False, zero="int"), *minmax(X, {}))[0]) == 0x3C808081
    assert qparams(rule("uint8", False, zero="int"), *minmax(X, {}))[1] == 89
    assert qparams(rule("int8"), *minmax(X, {})) == (f32(0.0203921561), 0)
    assert qparams(rule("int4"), *minmax(X, {})) == (f32(0.346666654), 0)
    near(qparams(rule("uint4", False, zero="float"), *minmax(X, {}))[1], 5.2499995)
    assert Histogram(Y, 8, True).counts == [4, 3, 2, 1, 1, 0, 0, 1]
    assert Histogram(Y, 8, False).counts == [1, 1, 4, 2, 2, 1, 0, 1]
    assert Histogram(Y, 8, True, True).counts == [3, 3, 2, 1, 1, 0, 0, 1]
    for p, want in ((99.99999999, 2.275), (100, 2.275), (90, 1.3), (50, .325)):
        lo, hi = percentile(Y, dict(bins=8, symmetric=True, percentile=p))
        assert lo == 0
        near(hi, want)
    assert percentile(Y, dict(bins=8, symmetric=False, percentile=99.99999999)) == (f32(-1.4), f32(2.6))
    p = dict(bins=8, symmetric=True, stride=1)
    near(mse(Y, dict(p, start_bin=7, quantiser=rule("int4")))[1], 2.4375)
    near(mse(Y, dict(p, start_bin=0, quantiser=rule("int4")))[1], 2.1125)
    near(mse(Y, dict(p, start_bin=0, quantiser=rule("fp8_e4m3")))[1], 2.4375)
    near(pro(Y, dict(bins=8))[0], -1.4)
    near(pro(Y, dict(bins=8))[1], 2.1)
    near(qparams(rule("fp8_e4m3"), *minmax(Y, {}))[0], .005803571)
    near(qparams(rule("fp4"), *minmax(Y, {}))[0], .4333333)
    assert [mx_byte("e2m1", "floor", amax_of(b)) - 127 for b in blocks_of(Y, 4)] == [-2, -1, -2]
    assert [bfp_byte(b) - 127 - 6 for b in blocks_of(Y, 4)] == [-6, -5, -6]
    near(three_sd(Y, {})[1], 3.1536846)
    near(math.log2(three_sd(Y, {})[1]), 1.657038)
    near(kl_j(Y, dict(bins=64, bits=2))[1], 2.275)
    near(kl_j(Y, dict(bins=64, bits=8))[1], 2.6)
    for amax, exponents in ((4, (0, 0, 0)), (5, (0, 1, 0)), (6, (0, 1, 0)), (6.9999, (0, 1, 0)), (7, (0, 1, 1)), (7.9, (0, 1, 1)), (3.4, (-1, 0, -1)),
                            (3.5, (-1, 0, 0))):
        assert tuple(mx_byte("e2m1", m, f32(amax)) - 127 for m in ("floor", "ceil", "even")) == exponents, amax
    print("oracle_observers: worked numbers agree")


def main():
    parser = argparse.ArgumentParser(description="oracle for the range observers; writes the golden vectors")
    parser.add_argument("--self-check", action="store_true")
    parser.add_argument("--out", metavar="FILE")
    parser.add_argument("--check", metavar="FILE")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if not (args.self_check or args.out or args.check):
        parser.error("nothing to do: give --self-check, --out FILE or --check FILE")
    if args.self_check:
        self_check()
    if args.out:
        with open(args.out, "w") as file:
            file.write(generate(args.seed))
    if args.check:
        with open(args.check) as file:
            if file.read() != generate(args.seed):
                sys.exit("%s is not what --out writes" % args.check)


if __name__ == "__main__":
    main()
