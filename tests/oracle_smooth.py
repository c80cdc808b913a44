#!/usr/bin/env python3
"""Independent oracle for smoothing factors, their search and AutoAlpha, and the generator of tests/golden/smooth.json.

What it is
  A second implementation of what smoothquant/smooth_scale.h, smooth_search.h, smooth_loss.h, qdq8.h and autoalpha.h say, in plain Python (standard
  library only). It shares no code with the C sources: the powers are those of Python's floats, losses are math.fsum over dense matrices, the alphas
  are found by sorting.

Arithmetic
  Binary32 operations are done in binary64 and rounded once more (53 >= 2 * 24 + 2 bits: the same result as a direct rounding). Losses are exact sums of
  binary64 terms, so those of the C sources agree to rounding (the tests allow 1e-9 of the loss); factors and alphas agree to the last bit.

How to run
  tests/oracle_smooth.py --self-check      asserts the worked numbers of the specification
  tests/oracle_smooth.py --out FILE        writes the vectors
  tests/oracle_smooth.py --check FILE      fails unless FILE is what --out would write

Lists of binary32 numbers are strings of 8 hex digits each; binary64 numbers are decimal, to 17 digits.
"""

import argparse
import json
import math
import struct
import sys

INF = float("inf")
FLT_MIN, FLT_MAX = 2.0 ** -126, struct.unpack("<f", struct.pack("<I", 0x7F7FFFFF))[0]
EPS = 2.0 ** -23


def f32(x):
    if x != x or x in (INF, -INF):
        return x
    try:
        return struct.unpack("<f", struct.pack("<f", x))[0]
    except OverflowError:
        return math.copysign(INF, x)


def hex_of(values):
    return "".join("%08x" % struct.unpack("<I", struct.pack("<f", v))[0] for v in values)


def rne(x):
    """To the nearest whole number, ties to even."""
    return float(round(x))


def bf16(x):
    bits = struct.unpack("<I", struct.pack("<f", f32(x)))[0]
    bits = bits + 0x7FFF + (bits >> 16 & 1) >> 16 << 16
    return struct.unpack("<f", struct.pack("<I", bits))[0]


class Draw:
    """xorshift64*, as in tests/support."""

    def __init__(self, seed):
        self.state = seed

    def word(self):
        x = self.state
        x ^= x >> 12
        x ^= x << 25 & (1 << 64) - 1
        x ^= x >> 27
        self.state = x
        return x * 2685821657736338717 & (1 << 64) - 1

    def uniform(self):
        return (self.word() >> 11) * 2.0 ** -53

    def normal(self):
        return sum(self.uniform() for _ in range(12)) - 6.0

    def normals(self, n, scale=1.0):
        return [f32(self.normal() * scale) for _ in range(n)]


# ---- factors ---------------------------------------------------------------------------------------------------------------------------


def power(x, a):
    return f32(math.pow(x, a))


def cal_scale(x, w, alpha, low=f32(1e-5)):
    p = power(x, alpha)
    if p == 0:
        return 1.0
    return max(f32(p / power(max(w, low), 1.0 - alpha)), f32(1e-5))


def family_scale(family, x, w, wmean, alpha):
    if family == "sq":
        return cal_scale(x, w, alpha)
    if family == "awq":
        return max(power(x, alpha), f32(1e-4))
    if not 0 <= wmean < INF:
        return 0.0
    return max(f32(power(x, alpha) / f32(power(wmean, 1.0 - alpha) + f32(1e-4))), f32(1e-4))


def geomean(values):
    return f32(2.0 ** (math.fsum(math.log2(v) for v in values) / len(values)))


def is_factor(s):
    return FLT_MIN <= s <= FLT_MAX


def heads_of(n, share):
    """Channels of each producer channel."""
    heads, run = share if share[0] > 1 else (1, 1)
    groups = {}
    for j in range(n):
        groups.setdefault((j // run // heads, j % run), []).append(j)
    return [groups[key] for key in sorted(groups)]


def scales(case, family, alpha):
    """Factors, dead, clipped, exponent."""
    n, x, w = len(case["x"]), case["x"], case["w"]
    s = [0.0] * n
    for j in range(n):
        live = 0 < x[j] < INF and 0 <= w[j] < INF and not (case.get("dead") and case["dead"][j])
        value = family_scale(family, x[j], w[j], case["wmean"][j] if case.get("wmean") else 0.0, alpha) if live else 0.0
        s[j] = value if is_factor(value) else 0.0
    groups = heads_of(n, case.get("share", (1, 1)))
    for group in groups:
        live = [s[j] for j in group if s[j]]
        if len(group) > 1:
            value = 0.0 if not live else max(live) if case.get("reduce") == "max" or len(live) == 1 else geomean(live)
            for j in group:
                s[j] = value if is_factor(value) else 0.0
    live = [v for v in s if v]
    mean = geomean(live) if live else 1.0
    low, high = mean * (case.get("clamp") or (1e-4, 1e4))[0], mean * (case.get("clamp") or (1e-4, 1e4))[1]
    least, most = max(f32(low), FLT_MIN), f32(min(high, FLT_MAX))
    clipped = 0
    for j in range(n):
        if s[j] and not least <= s[j] <= most:
            s[j] = least if s[j] < least else most
            clipped += 1
    exponent = 0
    if not case.get("no_power"):
        top = max([w[j] * s[j] for j in range(n) if s[j]], default=0.0)
        exponent = -math.frexp(top)[1] if top else 0
        s = [f32(v * 2.0 ** exponent) for v in s]
    dead = 0
    for group in groups:
        if s[group[0]]:
            continue
        top = max([w[j] for j in group if w[j] < INF], default=0.0)
        for j in group:
            s[j] = 2.0 ** -math.frexp(top)[1] if top >= 1 and not case.get("no_power") else 1.0
            dead += 1
    return s, dead, clipped, exponent


# ---- formats ---------------------------------------------------------------------------------------------------------------------------


def code_symmetric(xs, bits):
    half = 2.0 ** (bits - 1) - 0.5
    s = bf16(max(f32(max(map(abs, xs)) / half), EPS))
    return [f32(min(max(rne(f32(x / s)), -2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) * s) for x in xs]


def code_asymmetric(xs, bits):
    a, b, top = min(min(xs), 0.0), max(max(xs), 0.0), 2.0 ** bits - 1
    s = bf16(max(f32(f32(b - a) / top), EPS))
    z = min(max(-rne(f32(a / s)), 0.0), top)
    return [f32((min(max(rne(f32(x / s)) + z, 0.0), top) - z) * s) for x in xs]


def target(text, row):
    """A row through "int4:group=16", "uint4:group=16" or "int8:group=channel" and back."""
    name, _, params = text.partition(":")
    group = params.partition("=")[2]
    width = len(row) if group == "channel" else int(group)
    coder = code_asymmetric if name.startswith("u") else code_symmetric
    out = []
    for at in range(0, len(row), width):
        out += coder(row[at:at + width], int(name.strip("uint")))
    return out


# ---- the reference's fake quantisation -------------------------------------------------------------------------------------------------


def qdq_row(xs):
    scale = max(f32(max(map(abs, xs)) / 127.5), EPS)
    return [f32(min(max(rne(f32(x / scale)), -128.0), 127.0) * scale) for x in xs]


def act_params(low, high):
    scale = max(f32(f32(high - low) / 255.0), EPS)
    return scale, rne(f32(-f32(low / scale)))


def qdq_acts(xs, params):
    scale, zero = params
    return [f32(f32(min(max(rne(f32(f32(x / scale) + zero)), 0.0), 255.0) - zero) * scale) for x in xs]


# ---- losses ----------------------------------------------------------------------------------------------------------------------------


def dense(gram, n):
    h, k = [[0.0] * n for _ in range(n)], 0
    for i in range(n):
        for j in range(i, n):
            h[i][j] = h[j][i] = gram[k]
            k += 1
    return h


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b))


def outputs(rows, tokens):
    return [[dot(row, token) for row in rows] for token in tokens]


def w8a8_loss(case, rows, s):
    inverse = [f32(1.0 / v) for v in s]
    tokens = case["sample"]
    acts = [[f32(x * i) for x, i in zip(token, inverse)] for token in tokens]
    if case.get("act_min"):
        low = min(f32(m * i) for m, i in zip(case["act_min"], inverse))
        high = max(f32(m * i) for m, i in zip(case["act_max"], inverse))
    else:
        low, high = min(map(min, acts)), max(map(max, acts))
    params = act_params(low, high)
    plain = outputs(rows, tokens)
    coded = outputs([qdq_row([f32(w * v) for w, v in zip(row, s)]) for row in rows], [qdq_acts(token, params) for token in acts])
    top = max(max(abs(v) for v in line) for line in plain)
    top = max(top, 1e-5)
    return math.fsum(math.sqrt(abs(p / top - c / top)) for a, b in zip(plain, coded) for p, c in zip(a, b))


def rows_loss(case, loss, v_rows, y_rows, s):
    n = len(s)
    errors = [[f32(y - v) for y, v in zip(ys, vs)] for ys, vs in zip(y_rows, v_rows)]
    if loss == "diag":
        return math.fsum(e * e * (case["ex2"][j] / (s[j] * s[j])) for row in errors for j, e in enumerate(row))
    d = [[e / s[j] for j, e in enumerate(row)] for row in errors]
    if loss == "sample":
        return math.fsum(dot(row, token) ** 2 for row in d for token in case["sample"]) / len(case["sample"])
    h = dense(case["gram"], n)
    return math.fsum(row[i] * h[i][j] * row[j] for row in d for i in range(n) for j in range(n)) * case["gram_factor"]


def member_loss(case, member, s, norm=False):
    if not member["format"]:
        return 0.0
    rows = member["rows"]
    if case["loss"] == "w8a8":
        value = w8a8_loss(case, rows, s)
    elif norm:
        value = rows_loss(case, case["loss"], [[0.0] * len(s)] * len(rows), rows, [1.0] * len(s))
    else:
        v_rows = [[f32(w * v) for w, v in zip(row, s)] for row in rows]
        value = rows_loss(case, case["loss"], v_rows, [target(member["format"], row) for row in v_rows], s)
    return value * (member.get("weight") or 1.0)


# ---- search ----------------------------------------------------------------------------------------------------------------------------


def grid(low, high, step):
    """Alphas to the decimals that the step is printed with."""
    decimals = max(len(repr(v).partition(".")[2]) for v in (float(step), float(low)))
    out, i = [], 0
    while round(low + i * step, decimals) <= high + 1e-9:
        out.append(round(low + i * step, decimals))
        i += 1
    return out


def criterion_pick(criterion, losses, alphas, norms=None):
    """Index in alphas; losses: a list for each member that counts."""
    if criterion in ("joint", "mean"):
        norms = norms if norms and criterion == "mean" else [1.0] * len(losses)
        return min(range(len(alphas)), key=lambda i: sum(m[i] / k for m, k in zip(losses, norms)))
    own = [min(range(len(alphas)), key=lambda i: m[i]) for m in losses]
    return (min if criterion == "min" else max)(own, key=lambda i: alphas[i])


def wmean_of(case):
    n, total = len(case["x"]), sum(len(m["rows"]) for m in case["members"])
    sums = [0.0] * n
    for member in case["members"]:
        group = member["format"].partition("=")[2] if member["format"] else "channel"
        width = n if group == "channel" else int(group)
        for row in member["rows"]:
            for at in range(0, n, width):
                top = max(map(abs, row[at:at + width]))
                for j in range(at, min(at + width, n)):
                    sums[j] += abs(row[j]) / (top + 1e-6)
    return [f32(v / total) for v in sums]


def search(case):
    n = len(case["x"])
    if "duo" in case["families"]:
        case = dict(case, wmean=wmean_of(case))
    candidates = [None] + [(f, a) for f in ("sq", "awq", "duo") if f in case["families"] for a in grid(*case["grid"])]
    counted = [m for m in case["members"] if m["format"]]
    norms = [member_loss(case, m, [1.0] * n, norm=True) for m in counted] if case["loss"] != "w8a8" else None

    def factors(candidate):
        return [1.0] * n if candidate is None else scales(case, *candidate)[0]

    table = [[member_loss(case, m, factors(c)) for c in candidates] for m in case["members"]]

    def pick():
        losses = [row[1:] for row, m in zip(table, case["members"]) if m["format"]]
        return 1 + criterion_pick(case["criterion"], losses, [c[1] for c in candidates[1:]], norms)

    step = case["grid"][2]
    for _ in range(case.get("refine", 0)):
        family, alpha = candidates[pick()]
        step /= 2
        for value in (round(alpha - step, 9), round(alpha + step, 9)):
            if case["grid"][0] <= value <= case["grid"][1] and (family, value) not in candidates:
                candidates.append((family, value))
                for row, m in zip(table, case["members"]):
                    row.append(member_loss(case, m, factors((family, value))))
    best = pick()
    joint = [sum(row[i] for row in table) for i in range(len(candidates))]
    if not joint[best] < joint[0]:
        best = 0
    return {"candidates": [["identity", 0.0] if c is None else list(c) for c in candidates], "losses": table, "best": best,
            "s": factors(candidates[best])}


# ---- AutoAlpha -------------------------------------------------------------------------------------------------------------------------


class Tuned:
    """Linears with groups and blocks; the model is a chain of gated MLPs with a residual: x + W2 (relu(W0 x) * (W1 x))."""

    def __init__(self, case):
        self.case, self.grid = case, grid(*case["grid"])
        self.linears = case["linears"]
        self.used = [case["folding"] or case["stats"][l["group"]] for l in self.linears]
        self.alphas = {l["group"]: case["init_alpha"] for l, used in zip(self.linears, self.used) if used}
        for name, l in enumerate(self.linears):
            l["number"] = name

    def factors(self, group, alpha):
        members = [l for l in self.linears if l["group"] == group]
        n = len(members[0]["rows"][0])
        if alpha < 0:
            return [1.0] * n
        x = [max(abs(a), abs(b)) for a, b in zip(members[0]["min"], members[0]["max"])]
        w = [max(abs(row[j]) for l in members for row in l["rows"]) for j in range(n)]
        return [cal_scale(a, b, alpha) for a, b in zip(x, w)]

    def plain(self, l, tokens):
        return [[f32(dot(row, t) + b) for row, b in zip(l["rows"], l["bias"])] for t in tokens]

    def coded(self, l, tokens, alpha):
        s = self.factors(l["group"], alpha)
        inverse = [f32(1.0 / v) for v in s]
        params = act_params(min(f32(m * i) for m, i in zip(l["min"], inverse)), max(f32(m * i) for m, i in zip(l["max"], inverse)))
        acts = [qdq_acts([f32(x * i) for x, i in zip(t, inverse)], params) for t in tokens]
        rows = [qdq_row([f32(w * v) for w, v in zip(row, s)]) for row in l["rows"]]
        return [[f32(dot(row, t) + b) for row, b in zip(rows, l["bias"])] for t in acts]

    def block(self, number, tokens, run):
        a, b, c = self.linears[3 * number:3 * number + 3]
        up, gate = run(a, tokens), run(b, tokens)
        hidden = [[f32(max(u, 0.0) * g) for u, g in zip(us, gs)] for us, gs in zip(up, gate)]
        return [[f32(x + y) for x, y in zip(xs, ys)] for xs, ys in zip(tokens, run(c, hidden))]

    def forward(self, tokens, run, shown):
        for number in range(len(self.linears) // 3):
            out = self.block(number, tokens, run)
            shown[number] = (tokens, out)
            tokens = out

    def loss(self, plain, coded):
        n = self.case["sequences"] or 1
        part, terms = len(plain) // n, []
        for q in range(n):
            p = [v for t in plain[q * part:q * part + part] for v in t]
            c = [v for t in coded[q * part:q * part + part] for v in t]
            top = max(max(map(abs, p)), 1e-5)
            terms += [abs(a / top - b / top) for a, b in zip(p, c)]
        return math.fsum(math.sqrt(d) if self.case["power"] == 0.5 else d * d for d in terms)

    def tune(self):
        sums = [[0.0] * len(self.grid) for _ in self.linears]
        n = min(self.case["n_samples"], len(self.case["samples"]))
        period = n // 4 if n >= 4 else n
        for i in range(n):
            self.sample(self.case["samples"][i], sums)
            if (i + 1) % period == 0 or i + 1 == n:
                self.choose(sums)
        return sums

    def choose(self, sums):
        for group in self.alphas:
            losses = [sums[l["number"]] for l in self.linears if l["group"] == group]
            self.alphas[group] = self.grid[criterion_pick(self.case["criterion"], losses, self.grid)]

    def sample(self, tokens, sums):
        fp, entered, plain_blocks, coded_blocks = {}, {}, {}, {}

        def run_plain(l, x):
            fp[l["number"]] = self.plain(l, x)
            return fp[l["number"]]

        def run_coded(l, x):
            if not self.used[l["number"]]:
                return self.plain(l, x)
            entered[l["number"]] = x
            return self.coded(l, x, self.alphas[l["group"]])

        self.forward(tokens, run_plain, plain_blocks)
        self.forward(tokens, run_coded, coded_blocks)
        for a, alpha in enumerate(self.grid):
            if not self.case["blockwise"]:
                for number, x in entered.items():
                    sums[number][a] += self.loss(fp[number], self.coded(self.linears[number], x, alpha))
                continue
            for block, (x, _) in coded_blocks.items():
                out = self.block(block, x, lambda l, t: self.coded(l, t, alpha) if self.used[l["number"]] else self.plain(l, t))
                for number in range(3 * block, 3 * block + 3):
                    if self.used[number]:
                        sums[number][a] += self.loss(plain_blocks[block][1], out)


def calibrate(case):
    """Ranges of every linear's input over all samples."""
    model = Tuned(case)
    for l in case["linears"]:
        l["min"], l["max"] = [INF] * len(l["rows"][0]), [-INF] * len(l["rows"][0])

    def run(l, tokens):
        for t in tokens:
            l["min"] = [min(a, b) for a, b in zip(l["min"], t)]
            l["max"] = [max(a, b) for a, b in zip(l["max"], t)]
        return model.plain(l, tokens)

    for tokens in case["samples"]:
        model.forward(tokens, run, {})


# ---- cases -----------------------------------------------------------------------------------------------------------------------------


def scale_cases(draw):
    cases = []
    for number in range(40):
        n = 48
        case = {"x": [abs(v) for v in draw.normals(n)], "w": [abs(v) for v in draw.normals(n, 0.1)],
                "wmean": [f32(draw.uniform()) for _ in range(n)], "dead": [draw.uniform() < 0.05 for _ in range(n)]}
        case["x"][number % n] = 0.0 if number % 3 else f32(1e3)
        case["w"][number * 7 % n] = [0.0, f32(1e-7), f32(3.5)][number % 3]
        case["share"] = [(1, 1), (4, 4), (3, 2), (2, 8)][number % 4]
        case["reduce"] = "max" if number % 5 == 4 else "geomean"
        case["no_power"] = number % 6 == 5
        case["clamp"] = (0.05, 20.0) if number % 4 == 3 else None
        case["family"], case["alpha"] = ["sq", "awq", "duo"][number % 3], number % 21 / 20
        s, dead, clipped, exponent = scales(case, case["family"], case["alpha"])
        cases.append({"x": hex_of(case["x"]), "w": hex_of(case["w"]), "wmean": hex_of(case["wmean"]), "dead": "".join("01"[d] for d in case["dead"]),
                      "share": list(case["share"]), "reduce": case["reduce"], "no_power": case["no_power"], "clamp": list(case["clamp"] or (0, 0)),
                      "family": case["family"], "alpha": case["alpha"], "s": hex_of(s), "n_dead": dead, "n_clipped": clipped, "exponent": exponent})
    return cases


def search_case(draw, number):
    n = [48, 32, 40][number % 3]
    spread = [2.0 ** (2 * draw.normal()) for _ in range(n)]
    sample = [[f32(draw.normal() * v) for v in spread] for _ in range(6)]
    case = {"loss": ["diag", "gram", "sample", "w8a8"][number % 4], "criterion": ["joint", "mean", "min", "max"][number // 4 % 4],
            "families": [["sq"], ["sq", "awq"], ["sq", "awq", "duo"]][number % 3], "grid": [(0, 1, 0.25), (0.1, 0.7, 0.2), (0.0, 1.0, 0.5)][number % 3],
            "refine": number % 3, "sample": sample}
    case["ex2"] = [math.fsum(t[j] * t[j] for t in sample) / len(sample) for j in range(n)]
    case["x"] = [f32(math.sqrt(v)) for v in case["ex2"]]
    case["gram"] = [f32(math.fsum(t[i] * t[j] for t in sample)) for i in range(n) for j in range(i, n)]
    case["gram_factor"] = 1.0 / len(sample)
    if number % 2:
        case["act_min"] = [min(t[j] for t in sample) for j in range(n)]
        case["act_max"] = [max(t[j] for t in sample) for j in range(n)]
    formats = ["int4:group=16", "uint4:group=16", "int8:group=channel", ""]
    case["members"] = [{"rows": [draw.normals(n, 0.05 * 4 ** k) for _ in range(3 + 2 * k)], "format": formats[(number + k) % 4],
                        "weight": [0.0, 2.5][(number + k) % 2]} for k in range(3)]
    case["w"] = [max(abs(row[j]) for m in case["members"] for row in m["rows"]) for j in range(n)]
    case["share"] = (2, 8) if n == 48 and number % 2 else (1, 1)
    return case


def search_cases(draw):
    cases = []
    for number in range(32):
        case = search_case(draw, number)
        found = search(case)
        plain = {k: case[k] for k in ("loss", "criterion", "families", "refine", "ex2", "gram_factor")}
        plain.update(grid=list(case["grid"]), share=list(case["share"]), x=hex_of(case["x"]), w=hex_of(case["w"]), gram=hex_of(case["gram"]),
                     sample=hex_of(v for t in case["sample"] for v in t), act_min=hex_of(case.get("act_min", [])), act_max=hex_of(case.get("act_max", [])),
                     members=[{"w": hex_of(v for row in m["rows"] for v in row), "format": m["format"], "weight": m["weight"]} for m in case["members"]])
        found["s"] = hex_of(found["s"])
        cases.append(dict(plain, found=found))
    return cases


def autoalpha_cases(draw):
    cases = []
    for number in range(6):
        n, hidden = 12, 20
        case = {"grid": [(0.0, 1.0, 0.25), (0.3, 0.7, 0.1), (0.0, 1.0, 0.2)][number % 3], "criterion": ["max", "mean", "min"][number % 3],
                "init_alpha": [0.5, 0.5, 0.5, -1.0, 0.5, 0.4][number], "n_samples": [8, 3, 5, 6, 8, 9][number], "sequences": [0, 2][number % 2],
                "blockwise": number in (2, 4), "folding": number != 5, "power": 2.0 if number == 3 else 0.5, "stats": [True, number != 5, True, True]}
        gain = [2.0 ** (2 * draw.normal()) for _ in range(n)]
        case["linears"] = []
        for block in range(2):
            for place in range(3):
                rows = [draw.normals(hidden if place == 2 else n, 0.4) for _ in range(n if place == 2 else hidden)]
                case["linears"].append({"rows": rows, "bias": draw.normals(len(rows), 0.1), "group": 2 * block + (place == 2)})
        case["samples"] = [[[f32(draw.normal() * g) for g in gain] for _ in range(4)] for _ in range(8)]
        calibrate(case)
        model = Tuned(case)
        sums = model.tune()
        plain = {k: case[k] for k in ("criterion", "init_alpha", "n_samples", "sequences", "blockwise", "folding", "power", "stats")}
        plain.update(grid=list(case["grid"]), samples=[hex_of(v for t in tokens for v in t) for tokens in case["samples"]],
                     linears=[{"w": hex_of(v for row in l["rows"] for v in row), "bias": hex_of(l["bias"]), "group": l["group"], "min": hex_of(l["min"]),
                               "max": hex_of(l["max"])} for l in case["linears"]])
        plain["alphas"] = [model.alphas.get(g) for g in range(4)]
        plain["losses"] = sums
        plain["scales"] = [hex_of(model.factors(g, model.alphas[g])) if g in model.alphas else "" for g in range(4)]
        cases.append(plain)
    return cases


def self_check():
    x, rows = [1.0, 4.0, 0.0, 2.0], [[.5, -1, 2, 0], [.25, .5, -1, 0]]
    w = [max(abs(r[j]) for r in rows) for j in range(4)]
    assert [cal_scale(a, b, .5) for a, b in zip(x, w)] == [f32(1.4142135), 2.0, 1.0, f32(447.21360)]
    assert [cal_scale(a, b, 0) for a, b in zip(x, w)] == [2, 1, .5, f32(1e5)]
    assert [cal_scale(a, b, 1) for a, b in zip(x, w)] == [1, 4, 1, 2]
    assert cal_scale(f32(1e-30), 1.0, 1) == f32(1e-5)
    params = act_params(-1.0, 3.0)
    assert params == (f32(4 / 255), 64.0)
    assert [round(v, 6) for v in qdq_acts([-1.0, 0.0, .5, 3.0], params)] == [-1.003922, 0.0, .501961, 2.996078]
    assert qdq_row([127.5, -127.5]) == [127, -128]
    a, b, alphas = [1, 3, 2], [4, 1, 2], [.3, .5, .7]
    assert [alphas[criterion_pick(c, [a, b], alphas)] for c in ("min", "max", "mean")] == [.3, .5, .5]
    assert grid(0, 1, .05)[-1] == 1.0 and len(grid(0, 1, .05)) == 21 and grid(.3, .7, .1) == [.3, .4, .5, .6, .7]
    assert code_symmetric([1.0, -2.0, 3.0, 7.0], 4) == [f32(v * bf16(7 / 7.5)) for v in (1, -2, 3, 7)]


def vectors():
    return {"scales": scale_cases(Draw(1)), "search": search_cases(Draw(2)), "autoalpha": autoalpha_cases(Draw(3))}


def text_of(data):
    lines = []
    for key in data:
        lines.append("%s: [\n%s\n]" % (json.dumps(key), ",\n".join(json.dumps(case, separators=(",", ":")) for case in data[key])))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main():
    parser = argparse.ArgumentParser(description="Oracle of smoothing factors, their search and AutoAlpha.")
    parser.add_argument("--self-check", action="store_true", help="assert the worked numbers of the specification")
    parser.add_argument("--out", metavar="FILE", help="write the vectors")
    parser.add_argument("--check", metavar="FILE", help="fail unless FILE is what --out would write")
    args = parser.parse_args()
    if args.self_check:
        self_check()
    if args.out:
        with open(args.out, "w", encoding="ascii") as file:
            file.write(text_of(vectors()))
    if args.check:
        with open(args.check, encoding="ascii") as file:
            if file.read() != text_of(vectors()):
                sys.exit("%s is not what this oracle writes" % args.check)


if __name__ == "__main__":
    main()
