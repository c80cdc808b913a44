#!/usr/bin/env python3
"""Oracle of the learned scales, and the generator of tests/golden/learn.json.

What it is
  A second implementation of formats/NUMERICS_LEARNED.md in plain Python (standard library only). It shares no code with the C
  sources. Python's floats are binary64, fl() is struct's rounding to binary32; codes are decided on exact fractions.

How to run
  tests/oracle_learn.py --self-check        asserts the worked numbers of the page
  tests/oracle_learn.py --check             compares a fresh run with tests/golden/learn.json
  tests/oracle_learn.py --out FILE          writes the vectors, the same bytes on every run

File
  {"groups": [..], "streams": [..]}, one case a line. A case: name, rule, method, start, rounding, stored, code_min, code_max, x (8 hex digits a weight: the
  bits of a binary32), w (the same, or ""), scale (bits), zero, loss and start_loss (16 hex digits: the bits of a binary64), judged. A stream has "span", the
  weights of a span; three spans are a slice (a part).

Worked number
  The 8 weights X of the page, int4, TQT: k0 = 2, scale 0.5, loss 0.1344; no other power of two is better.
"""

import argparse
import json
import math
import os
import random
import struct
import sys
from fractions import Fraction

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "golden", "learn.json")
INF = math.inf
LEAST = 2.0 ** -23
X = [0.9, -0.35, 0.12, -1.4, 0.61, 0.05, -0.77, 2.6]


# ---- binary32 ----------------------------------------------------------------------------------------------------------

def fl(v):
    """v, a binary64 or a fraction, rounded once to binary32, as a Python float."""
    if isinstance(v, Fraction):
        return fl_exact(v)
    try:
        return struct.unpack("<f", struct.pack("<f", v))[0]
    except OverflowError:
        return math.copysign(INF, v)


def fl_exact(v):
    """A fraction to binary32, to nearest even."""
    if v == 0:
        return 0.0
    size = abs(v)
    e = size.numerator.bit_length() - size.denominator.bit_length()
    if Fraction(2) ** e > size:
        e -= 1
    ulp = Fraction(2) ** (max(e, -126) - 23)
    k = even(size / ulp) * ulp
    if k >= Fraction(2) ** 128:
        return math.copysign(INF, v)
    return float(k) if v > 0 else -float(k)


def bits32(v):
    return struct.unpack("<I", struct.pack("<f", v))[0]


def bits64(v):
    return "%016x" % struct.unpack("<Q", struct.pack("<d", v))[0]


def store(stored, s):
    """max(s, 2^-23) as the stored type keeps it."""
    s = max(s, LEAST)
    if stored == "f32" or s == INF:
        return s
    if stored == "f16":
        try:
            return struct.unpack("<e", struct.pack("<e", s))[0]
        except OverflowError:
            return INF
    b = bits32(s)
    b = (b + 0x7FFF + (b >> 16 & 1)) & 0xFFFF0000
    return struct.unpack("<f", struct.pack("<I", b))[0]


# ---- rounding ----------------------------------------------------------------------------------------------------------

def even(u):
    u = Fraction(u)
    below = u.numerator // u.denominator
    rest = u - below
    if rest == Fraction(1, 2):
        return below + (below & 1)
    return below + (rest > Fraction(1, 2))


def away(u):
    k = math.floor(abs(Fraction(u)) + Fraction(1, 2))
    return k if u >= 0 else -k


def up(u):
    return math.floor(Fraction(u) + Fraction(1, 2))


def truncate(u):
    return math.trunc(Fraction(u))


ROUND = {"nearest-even": even, "away": away, "up": up, "truncate": truncate}


def rounded(u, mode):
    if abs(u) > 1e6:
        return math.copysign(1e6, u)  # far beyond any code
    if mode == "nearest-even":
        return round(u)  # Python's own is exact and to even; even() above checks it in the self-check
    return ROUND[mode](u)


# ---- one candidate -----------------------------------------------------------------------------------------------------

def tree(lanes):
    lanes = list(lanes)
    width = 8
    while width:
        for j in range(width):
            lanes[j] = lanes[j] + lanes[j + width]
        width //= 2
    return lanes[0]


def lane_sum(terms):
    lanes = [0.0] * 16
    for i, t in enumerate(terms):
        lanes[i % 16] += t
    return tree(lanes)


class Codes:
    def __init__(self, low, high, mode):
        self.min, self.max, self.zero, self.mode = low, high, 0, mode

    def split(self, x, s):
        """(q - z, whether clipped, d) of each weight."""
        low, high = self.min - self.zero, self.max - self.zero
        for v in x:
            r = rounded(fl(v / s), self.mode)
            q = min(max(r, low), high)
            yield float(q), r != q, fl(v - fl(q * s))

    def widest(self):
        return self.max if self.min == 0 else -self.min


def sums(codes, s, x, w):
    inside, clipped, cross = [], [], []
    for (q, out, d), one in zip(codes.split(x, s), w):
        wd = one * d
        t = wd * d
        inside.append(0.0 if out else t)
        clipped.append(t if out else 0.0)
        cross.append(wd * q if out else 0.0)
    return lane_sum(inside), lane_sum(clipped), lane_sum(cross)


def fit_sums(codes, s, x, w):
    xq, qq = [], []
    for (q, _, _), v, one in zip(codes.split(x, s), x, w):
        wq = one * q
        xq.append(wq * v)
        qq.append(wq * q)
    return lane_sum(xq), lane_sum(qq)


def slope(s, inside, cross):
    return 2.0 * inside / s - 2.0 * cross


# ---- the learner -------------------------------------------------------------------------------------------------------

def stats_of(x, w):
    live = [v for v, one in zip(x, w) if one > 0.0]
    return {"min": min([0.0] + x), "max": max([0.0] + x), "live_min": min([0.0] + live), "live_max": max([0.0] + live), "w": lane_sum(w),
            "wx": lane_sum([a * b for a, b in zip(w, x)]), "wa": lane_sum([a * abs(b) for a, b in zip(w, x)]),
            "wxx": lane_sum([a * b * b for a, b in zip(w, x)])}


def add_stats(a, b):
    out = {k: min(a[k], b[k]) for k in ("min", "live_min")}
    out.update({k: max(a[k], b[k]) for k in ("max", "live_max")})
    out.update({k: a[k] + b[k] for k in ("w", "wx", "wa", "wxx")})
    return out


def span(codes, low, high):
    return fl(high - low) if codes.min == 0 else max(-low, high)


def absmax(codes, low, high):
    return fl(span(codes, low, high) / ((codes.max - codes.min) * (1.0 if codes.min == 0 else 0.5)))


def ceil_log2(a):
    """Exact, for a > 0."""
    f = Fraction(a)
    e = f.numerator.bit_length() - f.denominator.bit_length() - 1
    while Fraction(2) ** e < f:
        e += 1
    return e


class Learner:
    def __init__(self, case, stats, judge=None):
        self.case, self.stats = case, stats
        self.codes = Codes(case["code_min"], case["code_max"], case["rounding"])
        self.domain = (case["code_max"] + 1).bit_length() - 1
        self.absmax = absmax(self.codes, stats["min"], stats["max"])
        self.anchor = absmax(self.codes, stats["live_min"], stats["live_max"])
        if self.codes.min == 0:
            z = -even(fl(stats["min"] / self.store(self.absmax)))
            self.codes.zero = min(max(z, 0), self.codes.max)
        self.scale, self.loss, self.start_loss, self.judged = INF, INF, INF, 0
        self.x, self.w = case.get("values"), case.get("weights")

    def store(self, s):
        return store(self.case["stored"], s)

    def take(self, s, loss):
        if fl(s * self.codes.widest()) == INF:
            loss = INF
        if self.judged == 0:
            self.start_loss = loss
        self.judged += 1
        if loss < self.loss:
            self.scale, self.loss = s, loss
            return True
        return False

    def offer(self, s):
        s = self.store(s)
        if fl(s * self.codes.widest()) == INF:
            self.take(s, INF)
            return INF, 0.0, 0.0
        a, b, c = sums(self.codes, s, self.x, self.w)
        self.take(s, a + b)
        return a, b, c

    def mean_start(self):
        if not self.stats["w"] > 0.0:
            return 0.0
        return fl(2.0 * (self.stats["wa"] / self.stats["w"]) / math.sqrt(float(self.codes.max)))

    def threshold(self):
        start = self.case["start"]
        if start == "3sd":
            return three_sd(self.stats)
        if start == "constant":
            return fl(2.2)
        return span(self.codes, self.stats["live_min"], self.stats["live_max"])

    def grid(self):
        last = 0.0
        for k in range(100, 0, -1):
            if not self.loss > 0.0:
                return
            s = fl(self.anchor * fl(k / 88))
            if self.store(s) == last:
                continue
            last = self.store(s)
            if self.offer(s)[1] >= self.loss:
                return

    def descend(self, start, steps=64, patience=16):
        rate, least, stale, s = fl(0.05), INF, 0, max(start, LEAST)
        for _ in range(steps):
            if not self.loss > 0.0:
                return
            scale = self.store(s)
            a, b, c = self.offer(s)
            loss = a + b
            if loss in (0.0, INF):
                return
            stale = 0 if loss < least else stale + 1
            least = min(least, loss)
            if stale >= patience:
                return
            if stale:
                rate *= 0.875
            move = rate * (scale * slope(scale, a, c) / loss)
            s = max(fl(s * (1.0 - min(max(move, -0.25), 0.25))), LEAST)

    def refit(self):
        for _ in range(8):
            if not self.loss > 0.0 or self.scale == INF:
                return
            before = self.loss
            xq, qq = fit_sums(self.codes, self.scale, self.x, self.w)
            if not qq > 0.0:
                return
            self.offer(fl(xq / qq))
            if not self.loss < before:
                return

    # -- powers of two

    def exponent_least(self):
        return self.domain - 23

    def exponent(self):
        a = span(self.codes, self.stats["min"], self.stats["max"])
        return max(ceil_log2(a), self.exponent_least()) if a > 0 else self.exponent_least()

    def power(self, k):
        k -= self.domain
        return INF if k > 127 else 2.0 ** k

    def tqt(self):
        k0 = self.exponent()
        self.offer(self.power(k0))
        if self.case["method"] == "descent":
            return self.tqt_descend()
        self.offer(self.power(k0 + 1))
        k = k0 - 1
        while k >= self.exponent_least() and self.loss > 0.0:
            if self.offer(self.power(k))[1] >= self.loss:
                return
            k -= 1

    def tqt_descend(self, steps=64, patience=16):
        t, rate, stale = self.threshold(), fl(0.2), 0
        l = fl(math.log2(t)) if t > 0 else -INF
        for _ in range(steps):
            if stale >= patience or not self.loss > 0.0:
                return
            l = max(l, float(self.exponent_least()))
            before = self.loss
            s = self.power(math.ceil(l))
            a, b, c = self.offer(s)
            stale = 0 if self.loss < before else stale + 1
            if a + b in (0.0, INF):
                return
            move = rate * (math.log(2.0) * s * slope(s, a, c) / (a + b))
            l = fl(l - fl(min(max(move, -1.0), 1.0)))

    def lsq(self):
        self.offer(self.absmax)
        if self.case["method"] != "descent":
            self.grid()
        if self.case["method"] != "search":
            self.descend(self.mean_start())
            self.descend(self.anchor)
        self.refit()

    def pact(self):
        self.offer(self.absmax)
        if self.case["method"] != "descent":
            self.grid()
        self.descend(fl(self.threshold() / self.codes.max))


def three_sd(stats):
    if not stats["w"] > 0.0:
        return 0.0
    mean = stats["wx"] / stats["w"]
    return fl(abs(mean + 1e-6) + 3.0 * math.sqrt(max(stats["wxx"] / stats["w"] - mean * mean, 0.0)))


def learn(case):
    case["weights"] = case.get("weights") or [1.0] * len(case["values"])
    learner = Learner(case, stats_of(case["values"], case["weights"]))
    getattr(learner, case["rule"])()
    return learner


# ---- streamed ----------------------------------------------------------------------------------------------------------

def spans_of(case):
    """Slices of up to three spans of `span` weights."""
    step = case["span"]
    spans = [(case["values"][i:i + step], case["weights"][i:i + step]) for i in range(0, len(case["values"]), step)]
    return [spans[i:i + 3] for i in range(0, len(spans), 3)]


def over_slices(case, function):
    """function(x, w) gives a tuple per span; spans add up from 0 within a slice, slices from 0 in order."""
    total = None
    for part in spans_of(case):
        subtotal = None
        for x, w in part:
            terms = function(x, w)
            subtotal = [0.0 + t for t in terms] if subtotal is None else [a + b for a, b in zip(subtotal, terms)]
        total = [0.0 + t for t in subtotal] if total is None else [a + b for a, b in zip(total, subtotal)]
    return total


def judge(learner, scales):
    """Takes all scales; returns what over_slices gives for each, and the best one's index or None."""
    found, best = [], None
    for s in scales:
        found.append(over_slices(learner.case, lambda x, w: sums(learner.codes, s, x, w)))
    for i, s in enumerate(scales):
        if learner.take(s, found[i][0] + found[i][1]):
            best = i
    return found, best


def stream(case):
    case["weights"] = case.get("weights") or [1.0] * len(case["values"])
    stats = None
    for part in spans_of(case):
        subtotal = None
        for x, w in part:
            one = stats_of(x, w)
            subtotal = one if subtotal is None else add_stats(subtotal, one)
        stats = subtotal if stats is None else add_stats(stats, subtotal)
    learner = Learner(case, stats)
    if case["rule"] == "tqt":
        return stream_tqt(learner)
    start = learner.mean_start() if case["rule"] == "lsq" else fl(learner.threshold() / learner.codes.max)
    coarse = [learner.absmax, start] + [fl(learner.anchor * fl(k / 56)) for k in range(62, 0, -1)]
    judge(learner, [learner.store(s) for s in coarse])
    if not learner.loss > 0.0 or learner.scale == INF:
        return learner
    step, centre = fl(learner.anchor / 56), learner.scale
    fine = [fl(centre + fl(step * (j / 32))) for j in range(-31, 32) if j] + [centre]
    judge(learner, [learner.store(s) for s in fine])
    if not learner.loss > 0.0 or case["method"] == "search":
        return learner
    xq, qq = over_slices(case, lambda x, w: fit_sums(learner.codes, learner.scale, x, w))
    if qq > 0.0:
        judge(learner, [learner.store(fl(xq / qq))])
    return learner


def stream_tqt(learner):
    k0, least = learner.exponent(), learner.exponent_least()
    ks = [k0, k0 + 1] + [k for k in range(k0 - 1, k0 - 15, -1) if k >= least]
    found, _ = judge(learner, [learner.store(learner.power(k)) for k in ks])
    more = [k for k in range(k0 - 15, k0 - 63, -1) if k >= least]
    overflow = fl(learner.power(ks[-1]) * learner.codes.widest()) == INF
    if more and (overflow or found[-1][1] < learner.loss):
        judge(learner, [learner.store(learner.power(k)) for k in more])
    return learner


# ---- cases -------------------------------------------------------------------------------------------------------------

def draw(rng, shape, n):
    if shape == "gauss":
        return [fl(0.02 * rng.gauss(0, 1)) for _ in range(n)]
    if shape == "laplace":
        return [fl(0.02 * math.copysign(-math.log(1.0 - rng.random()), rng.random() - 0.5)) for _ in range(n)]
    if shape == "t5":
        return [fl(0.02 * rng.gauss(0, 1) / math.sqrt(sum(rng.gauss(0, 1) ** 2 for _ in range(5)) / 5)) for _ in range(n)]
    if shape == "shifted":
        return [fl(0.3 + 0.05 * rng.gauss(0, 1)) for _ in range(n)]
    if shape == "outlier":
        return [fl(0.01 * rng.gauss(0, 1)) for _ in range(n - 1)] + [1.0]
    if shape == "tiny":
        return [fl(1e-12 * rng.gauss(0, 1)) for _ in range(n)]
    if shape == "huge":
        return [fl(1e38 * rng.uniform(-1, 1)) for _ in range(n)]
    if shape == "ties":
        return [fl(0.125 * rng.randint(-40, 40)) for _ in range(n)]
    return [0.0] * n


def importance(rng, kind, n):
    if kind == "spread":
        return [0.0 if rng.random() < 0.2 else fl(10.0 ** rng.uniform(-6, 6)) for _ in range(n)]
    if kind == "live-small":  # all but a few small weights count for nothing
        return [1.0 if i % 5 == 0 else 0.0 for i in range(n - 1)] + [0.0]
    return [0.0] * n


def group_cases():
    rng = random.Random(20260806)
    plain = {"method": "best", "start": "max", "rounding": "nearest-even", "stored": "f32"}
    widths = {"int2": (-2, 1), "int3": (-4, 3), "int4": (-8, 7), "int8": (-128, 127), "narrow4": (-7, 7), "uint4": (0, 15), "uint8": (0, 255)}

    def case(name, rule, width, shape, n, weight="", **more):
        values = [fl(v) for v in X] if shape == "X" else draw(rng, shape, n)
        out = dict(plain, name=name, rule=rule, code_min=widths[width][0], code_max=widths[width][1], values=values, **more)
        if weight:
            out["weights"] = importance(rng, weight, len(values))
        return out

    for rule in ("tqt", "lsq", "pact"):
        method = {"tqt": "search", "lsq": "best", "pact": "descent"}[rule]
        for width in ("int2", "int3", "int4", "int8", "uint4", "uint8"):
            if rule == "tqt" or width != "int3":
                yield case("%s %s X" % (rule, width), rule, width, "X", 8, method=method)
            yield case("%s %s gauss" % (rule, width), rule, width, "gauss", 64, method=method, stored="bf16")
        yield case("%s int4 laplace tail" % rule, rule, "int4", "laplace", 45, method=method, stored="f16")
        yield case("%s int8 t5" % rule, rule, "int8", "t5", 128, method=method, stored="bf16")
        yield case("%s uint4 shifted" % rule, rule, "uint4", "shifted", 64, method=method, stored="bf16")
        yield case("%s int4 outlier" % rule, rule, "int4", "outlier", 64, method=method)
        yield case("%s int4 tiny" % rule, rule, "int4", "tiny", 32, method=method)
        yield case("%s int4 huge" % rule, rule, "int4", "huge", 32, method=method)
        yield case("%s int4 huge, f16" % rule, rule, "int4", "huge", 32, method=method, stored="f16")
        yield case("%s int4 zeros" % rule, rule, "int4", "zeros", 20, method=method)
        yield case("%s int4 one weight" % rule, rule, "int4", "gauss", 1, method=method)
        yield case("%s int4 spread importance" % rule, rule, "int4", "gauss", 64, "spread", method=method)
        yield case("%s uint4 spread importance" % rule, rule, "uint4", "shifted", 64, "spread", method=method)
        yield case("%s int4 importance of small weights" % rule, rule, "int4", "outlier", 64, "live-small", method=method)
        yield case("%s int4 no importance" % rule, rule, "int4", "gauss", 24, "none", method=method)
        for mode in ("away", "up", "truncate"):
            yield case("%s int4 ties %s" % (rule, mode), rule, "int4", "ties", 48, method=method, rounding=mode)
        for other in ("best", "search", "descent"):
            yield case("%s int4 %s" % (rule, other), rule, "int4", "t5", 64, method=other)
    yield from random_cases(9, 150)
    for start in ("3sd", "constant"):
        yield case("pact narrow4 %s" % start, "pact", "narrow4", "laplace", 64, method="descent", start=start)
        yield case("tqt int4 descent %s" % start, "tqt", "int4", "laplace", 64, method="descent", start=start)


def random_cases(seed, count):
    """Anything with anything."""
    rng = random.Random(seed)
    ranges = [(-1 << b, (1 << b) - 1) for b in range(1, 8)] + [(0, (1 << b) - 1) for b in range(2, 9)] + [(-7, 7), (-127, 127)]
    for i in range(count):
        low, high = rng.choice(ranges)
        n = rng.choice([1, 2, 7, 16, 31, 33, 64, 80])
        case = {"name": "random %d" % i, "rule": rng.choice(["tqt", "lsq", "pact"]), "method": rng.choice(["best", "search", "descent"]),
                "start": rng.choice(["max", "3sd", "constant"]), "rounding": rng.choice(["nearest-even", "nearest-even", "away", "up", "truncate"]),
                "stored": rng.choice(["f32", "bf16", "f16"]), "code_min": low, "code_max": high}
        case["values"] = draw(rng, rng.choice(["gauss", "laplace", "t5", "shifted", "outlier", "tiny", "huge", "ties"]), n)
        kind = rng.choice(["", "", "spread", "live-small", "none"])
        if kind:
            case["weights"] = importance(rng, kind, n)
        yield case


def stream_cases():
    rng = random.Random(7)
    for case in random_cases(8, 40):
        yield dict(case, span=rng.choice([5, 16, 24]))
    plain = {"start": "max", "rounding": "nearest-even"}
    for rule in ("tqt", "lsq", "pact"):
        for low, high in ((-8, 7), (-128, 127), (0, 15)):
            for method, stored in (("best", "bf16"), ("search", "f32")):
                yield dict(plain, name="%s %d..%d %s" % (rule, low, high, method), rule=rule, method=method, stored=stored, code_min=low, code_max=high,
                           values=draw(rng, "laplace", 150), weights=importance(rng, "spread", 150), span=20)
    yield dict(plain, name="lsq X", rule="lsq", method="best", stored="f32", code_min=-8, code_max=7, values=[fl(v) for v in X], span=8)
    yield dict(plain, name="tqt far below", rule="tqt", method="best", stored="f32", code_min=-8, code_max=7,
               values=draw(rng, "gauss", 40) + [1e6], weights=[1.0] * 40 + [0.0], span=16)


def hexes(values):
    return "".join("%08x" % bits32(v) for v in values)


def row(case, learner):
    keys = ("name", "rule", "method", "start", "rounding", "stored", "code_min", "code_max", "span")
    out = {k: case[k] for k in keys if k in case}
    weighted = any(w != 1.0 for w in case["weights"])
    out.update(x=hexes(case["values"]), w=hexes(case["weights"]) if weighted else "", scale=bits32(learner.scale), zero=learner.codes.zero,
               loss=bits64(learner.loss), start_loss=bits64(learner.start_loss), judged=learner.judged)
    return json.dumps(out)


def vectors():
    groups = [row(case, learn(case)) for case in group_cases()]
    streams = [row(case, stream(case)) for case in stream_cases()]
    return '{"groups": [\n%s\n], "streams": [\n%s\n]}\n' % (",\n".join(groups), ",\n".join(streams))


# ---- self-check --------------------------------------------------------------------------------------------------------

def near(got, want, digits):
    assert abs(got - want) <= 1.0 * 10.0 ** -digits, (got, want)


def self_check():
    for i in range(-400, 401):
        assert round(i / 8) == even(i / 8)
    assert fl(0.1) == fl(Fraction(0.1)) and fl(1e39) == INF and fl(Fraction(3, 2 ** 150)) == 2.0 ** -148
    x, ones, codes = [fl(v) for v in X], [1.0] * 8, Codes(-8, 7, "nearest-even")
    for s, q, loss, dl in ((0.5, [2, -1, 0, -3, 1, 0, -2, 5], .1344, .186318), (0.25, [4, -1, 0, -6, 2, 0, -3, 7], .7819, -1.979767)):
        a, b, c = sums(codes, s, x, ones)
        assert [int(t[0]) for t in codes.split(x, s)] == q
        near(a + b, loss, 4)
        near(math.log(2) * s * slope(s, a, c), dl, 6)
    base = {"rounding": "nearest-even", "stored": "f32", "start": "max", "code_min": -8, "code_max": 7, "values": x}
    assert learn(dict(base, rule="tqt", method="search")).scale == 0.5
    stats = stats_of(x, ones)
    s0 = Learner(dict(base, rule="lsq"), stats).mean_start()
    near(s0, .6425396, 7)
    a, b, c = sums(codes, s0, x, ones)
    factor = fl(1 / math.sqrt(8 * 7))
    near(factor, .1336306, 7)
    near(a + b, .200167, 6)
    near(slope(s0, a, c), .623051, 6)
    near(s0 - .05 * factor * slope(s0, a, c), .6383767, 7)
    best = learn(dict(base, rule="lsq", method="best"))
    near(best.loss, .066912, 6)
    near(best.start_loss, .079556, 6)
    s = s0
    least = (INF, 0.0)
    for _ in range(400):
        a, b, c = sums(codes, s, x, ones)
        least = min(least, (a + b, s))
        s = max(LEAST, s - .02 * factor * slope(s, a, c))
    near(least[0], .066913, 6)
    y = x + [fl(v) for v in (0, .33, -.2, 1.1)]
    near(three_sd(stats_of(y, [1.0] * 12)), 3.1536846, 7)
    print("oracle_learn: the worked numbers hold")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--self-check", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--out")
    args = parser.parse_args()
    if args.self_check:
        self_check()
    if args.out:
        with open(args.out, "w") as f:
            f.write(vectors())
    if args.check:
        with open(GOLDEN) as f:
            assert f.read() == vectors(), "tests/golden/learn.json is not what this oracle makes"
        print("oracle_learn: the golden vectors are reproduced")
    return 0


if __name__ == "__main__":
    sys.exit(main())
