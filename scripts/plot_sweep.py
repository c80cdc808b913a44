#!/usr/bin/env python3
"""Draws converter/sweep.svg, the worked example of README.md, from tests/golden/sweep_example.csv.

What it is
  Perplexity above that of the model as it was read, in percent and on a logarithmic axis, against bits per weight: one mark for each
  uniform format, one for each file under a bit budget, and the line of the best uniform formats.

Why this way
  Plain Python, so that it runs where the tests run; the CSV is written by scripts/example_sweep.sh, the picture by this.

Corner cases
  A perplexity not above the model's is drawn at the bottom of the axis.

Worked number
  A model of perplexity 2.0 whose int4 has 2.1: 5 %.

  scripts/plot_sweep.py                    draws
  scripts/plot_sweep.py --check            exit status 1 when the picture is not what this script would draw
  scripts/plot_sweep.py --collect FOLDER   writes the CSV from sweep.csv and BITS.json, BITS.llmq in FOLDER
"""

import csv
import glob
import json
import math
import os
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
CSV, SVG = os.path.join(ROOT, "tests", "golden", "sweep_example.csv"), os.path.join(ROOT, "converter", "sweep.svg")
FIELDS = ("kind", "format", "group_size", "bpw", "perplexity", "kl")
COLOURS = {"int": "#0072b2", "mxfp": "#c84c00", "nvfp": "#00805c", "budget": "#b3410a"}
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 960, 520, 58, 42, 20, 46
LOWEST = 0.01  # percent


def collect(folder):
    rows, reference = [], None
    for path in sorted(glob.glob(os.path.join(folder, "*.json"))):
        with open(path, encoding="utf-8") as f:
            result = json.load(f)
        reference = result["perplexity_against"]
        weights = weights_of(os.path.join(folder, "sweep.csv"))
        bits = 8 * os.path.getsize(path[:-5] + ".llmq") / weights
        rows.append(("budget", "", "", f"{bits:.4f}", f'{result["perplexity"]:.4f}', f'{result["kl_mean"]:.5f}'))
    with open(os.path.join(folder, "sweep.csv"), newline="", encoding="utf-8") as f:
        for r in csv.DictReader(f):
            if r["scope"] == "total" and not r["skipped"]:
                rows.append(("uniform", r["format"], r["group_size"], f'{float(r["bpw"]):.4f}', f'{float(r["perplexity"]):.4f}', f'{float(r["kl"]):.5f}'))
    rows.append(("model", "bf16", "", "16", f"{reference:.4f}", "0"))
    with open(CSV, "w", newline="", encoding="utf-8") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow(FIELDS)
        out.writerows(sorted(rows, key=lambda r: (r[0], float(r[3]), r[1])))


def weights_of(path):
    with open(path, newline="", encoding="utf-8") as f:
        return next(int(r["weights"]) for r in csv.DictReader(f) if r["scope"] == "total" and not r["skipped"])


def read():
    with open(CSV, newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    reference = next(float(r["perplexity"]) for r in rows if r["kind"] == "model")
    points = [(r["kind"], r["format"], r["group_size"], float(r["bpw"]), max(100 * (float(r["perplexity"]) / reference - 1), LOWEST)) for r in rows if r["kind"] != "model"]
    return points, reference


def front(points):
    best, out = math.inf, []
    for p in sorted(points, key=lambda p: (p[3], p[4])):
        if p[4] < best:
            best = p[4]
            out.append(p)
    return out


class Scale:
    def __init__(self, points):
        self.bits = (min(p[3] for p in points) - 0.25, max(p[3] for p in points) + 0.35)
        self.loss = (min(p[4] for p in points) / 1.6, max(p[4] for p in points) * 1.6)

    def x(self, bits):
        return LEFT + (bits - self.bits[0]) / (self.bits[1] - self.bits[0]) * (WIDTH - LEFT - RIGHT)

    def y(self, loss):
        low, high = (math.log10(v) for v in self.loss)
        return HEIGHT - BOTTOM - (math.log10(loss) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def place(label, x, y, taken):
    """The first free place beside a mark, as (x, y, anchor)."""
    width = 6.6 * len(label)
    for dx, dy in ((9, -7), (9, 4), (-9, 14), (-9, 4), (9, 15), (-9, -8), (9, 26), (-9, 26), (9, -20), (-9, -20)):
        left = x + dx if dx > 0 else x + dx - width
        box = (left - 1, y + dy - 10, left + width + 1, y + dy + 3)
        if box[0] > LEFT and box[2] < WIDTH - 4 and box[3] < HEIGHT - BOTTOM and not any(box[0] < o[2] and o[0] < box[2] and box[1] < o[3] and o[1] < box[3] for o in taken):
            taken.append(box)
            return x + dx, y + dy, "start" if dx > 0 else "end"
    return None


def mark(kind, name, x, y, size=5.0):
    colour = COLOURS["budget" if kind == "budget" else next(k for k in COLOURS if name.startswith(k))]
    if kind == "budget":
        return f'<path d="M{x:.1f} {y - size - 1:.1f}l{size + 1:.1f} {size + 1:.1f}l{-size - 1:.1f} {size + 1:.1f}l{-size - 1:.1f} {-size - 1:.1f}z" fill="{colour}"/>'
    if name.startswith("int"):
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size - 0.5:.1f}" fill="#fff" stroke="{colour}" stroke-width="1.8"/>'
    if name.startswith("mx"):
        return f'<path d="M{x - 4:.1f} {y - 4:.1f}h8v8h-8z" fill="#fff" stroke="{colour}" stroke-width="1.8"/>'
    return f'<path d="M{x:.1f} {y - 5.4:.1f}l5.4 9.4h-10.8z" fill="#fff" stroke="{colour}" stroke-width="1.8"/>'


def axes(out, scale):
    for bits in range(math.ceil(scale.bits[0]), math.floor(scale.bits[1]) + 1):
        x = scale.x(bits)
        out.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" class="g"/><text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" class="m">{bits}</text>')
    for exponent in range(-3, 4):
        for step in (1, 3):
            loss = step * 10.0 ** exponent
            if scale.loss[0] <= loss <= scale.loss[1]:
                y = scale.y(loss)
                out.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" class="g"/><text x="{LEFT - 8}" y="{y + 4:.1f}" class="e">{loss:g}</text>')
    out.append(f'<text x="4" y="20" class="t">perplexity above the model\'s, %, log scale</text><text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" class="t e">bits per weight of the whole file</text>')


def legend(out):
    entries = (("uniform", "int4", "integers"), ("uniform", "mxfp4", "mxfp4"), ("uniform", "nvfp4", "nvfp4"), ("budget", "", "a format for each layer, under a bit budget"))
    x = WIDTH - 556
    for kind, name, title in entries:
        out.append(mark(kind, name, x, 16) + f'<text x="{x + 11}" y="20" class="t">{title}</text>')
        x += 11 + 7.0 * len(title) + 24


def path(points, scale, style):
    return f'<path d="{"L".join(f"{scale.x(p[3]):.1f} {scale.y(p[4]):.1f}" for p in points)}" class="{style}"/>'.replace('d="', 'd="M')


def draw():
    points, reference = read()
    scale = Scale(points)
    uniform, budget = ([p for p in points if p[0] == kind] for kind in ("uniform", "budget"))
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" fill="#555" role="img" aria-labelledby="t d">',
           "<title id=\"t\">Perplexity against bits per weight of the bundled model</title>",
           f'<desc id="d">Uniform formats and files under a bit budget; the model as it was read has perplexity {reference}. '
           + "; ".join(f"{bits} bits: {loss:.2g} %" for _, _, _, bits, loss in budget) + " under a budget.</desc>",
           "<style>.g{stroke:#e6e4df}.u{stroke:#0072b2;fill:none;opacity:.45}.b{stroke:#b3410a;fill:none;opacity:.5}.m{text-anchor:middle}.e{text-anchor:end}.t{font-size:13px}</style>",
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']
    axes(out, scale)
    legend(out)
    out += [path(front(uniform), scale, "u"), path(budget, scale, "b")]
    marks = [(scale.x(p[3]), scale.y(p[4])) for p in points]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in marks]
    for (kind, name, group, _, _), (x, y) in zip(points, marks):
        out.append(mark(kind, name, x, y))
        found = place(f"{name} {group}", x, y, taken) if kind == "uniform" else None
        if found:
            out.append(f'<text x="{found[0]:.1f}" y="{found[1]:.1f}" text-anchor="{found[2]}">{name} {group}</text>')
    return "\n".join(out + ["</svg>", ""])


def main():
    if sys.argv[1:2] == ["--collect"]:
        collect(sys.argv[2])
        return
    picture = draw()
    kept = open(SVG, encoding="utf-8").read() if os.path.exists(SVG) else None
    if kept == picture:
        return
    if "--check" in sys.argv[1:]:
        sys.exit("converter/sweep.svg is not what scripts/plot_sweep.py makes of tests/golden/sweep_example.csv")
    with open(SVG, "w", encoding="utf-8") as f:
        f.write(picture)


if __name__ == "__main__":
    main()
