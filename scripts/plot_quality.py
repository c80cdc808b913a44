#!/usr/bin/env python3
"""Draws formats/quality.svg and writes the short table of README.md from tests/golden/quality.csv.

What it is
  One mark and one label for each format: SQNR in dB on Gaussian weights against bits a weight, a colour for each family.
  The table between the two marks of README.md: some formats on all made-up weights.

Why this way
  Plain Python, so that it runs where the tests run. Labels are placed one after the other at the nearest place that is free
  of marks and other labels; stacks of marks from the top down, so the picture is the same each time.

Corner cases
  Formats of more than 9.5 bits (long block floating point, 16 and 32-bit floats) are left out: they add 6 dB a bit.

Worked number
  A lossless code of b bits of a Gaussian cannot be better than 6.0206 * b dB: the thin line.

  scripts/plot_quality.py            writes both
  scripts/plot_quality.py --check    exit status 1 when one of them is not what this script would write
"""

import csv
import os
import re
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
CSV, SVG, README = (os.path.join(ROOT, *p) for p in (("tests", "golden", "quality.csv"), ("formats", "quality.svg"), ("README.md",)))
BEGIN, END = "<!-- quality table: scripts/plot_quality.py -->", "<!-- end of the quality table -->"

FAMILIES = (  # pattern of names, title, colour
    (r"nvfp4$", "NVFP4", "#b8860b"),
    (r"mx(fp|int)", "OCP MX", "#c0392b"),
    (r"(bfpprime|mx[469]$)", "block floating point with shifts", "#8e44ad"),
    (r"bfp", "block floating point", "#d35400"),
    (r"uint", "asymmetric integers", "#16a085"),
    (r"int", "symmetric integers", "#1f5fbf"),
    (r"fp[468]_e", "floats with a scale", "#5d6d7e"),
    (r"(nf4|fp4_bnb|iq4nl)$", "codebooks", "#a0522d"),
    (r"", "types of GGUF (bytes of ggml)", "#2e8b20"),
)
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 1120, 1000, 56, 16, 16, 46
BITS, DB = (1.0, 9.5), (0.0, 54.0)
FONT, LETTER, LINE = 11, 6.7, 12  # pixels: size, width of a letter, height of a label

SHORT = ("mxfp4", "nvfp4", "nf4", "int4", "uint4", "q4_0", "q4_k", "iq4_xs", "mx4", "q3_k", "q2_k", "mxfp6_e2m3", "q6_k", "mxint8", "fp8_e4m3", "int8", "q8_0")


def family(name):
    return next(f for f in FAMILIES if re.match(f[0], name))


def x_of(bits):
    return LEFT + (bits - BITS[0]) / (BITS[1] - BITS[0]) * (WIDTH - LEFT - RIGHT)


def y_of(db):
    return HEIGHT - BOTTOM - (db - DB[0]) / (DB[1] - DB[0]) * (HEIGHT - TOP - BOTTOM)


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def places(x, y, width):
    """Boxes for a label, nearest first: right, left, then rings around the mark."""
    for away in range(7, 220, 6):
        for dx, dy in ((1, 0), (-1, 0), (1, 0.6), (-1, 0.6), (1, -0.6), (-1, -0.6), (0.3, 1), (-0.3, -1), (0.3, -1), (-0.3, 1)):
            left = x + dx * away if dx > 0 else x + dx * away - width
            middle = y + dy * away
            yield left, middle - LINE / 2, left + width, middle + LINE / 2


def place_labels(points):
    """name -> box; no label on a mark or on another label."""
    taken = [(x - 4, y - 4, x + 4, y + 4) for _, x, y in points]
    out = {}
    for name, x, y in sorted(points, key=lambda p: (round(p[1]), p[2])):  # stacks from the top down
        for box in places(x, y, LETTER * len(name) + 2):
            inside = box[0] > LEFT + 2 and box[2] < WIDTH - RIGHT and box[1] > TOP and box[3] < HEIGHT - BOTTOM
            if inside and not any(overlap(box, other) for other in taken):
                break
        taken.append(box)
        out[name] = box
    return out


def axes(out):
    for bits in range(1, 10):
        x = x_of(bits)
        out.append(f'<path d="M{x:.0f} {TOP}V{HEIGHT - BOTTOM}" class="g"/><text x="{x:.0f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{bits}</text>')
    for db in range(0, int(DB[1]) + 1, 6):
        y = y_of(db)
        out.append(f'<path d="M{LEFT} {y:.0f}H{WIDTH - RIGHT}" class="g"/><text x="{LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{db}</text>')
    top = DB[1] / 6.0206
    out.append(f'<path d="M{x_of(1):.0f} {y_of(6.0206):.0f}L{x_of(top):.0f} {y_of(DB[1]):.0f}" class="b"/>')
    out.append(f'<text x="{x_of(top) - 60:.0f}" y="{TOP + 26}" text-anchor="end" fill="#777">6.02 dB a bit: no code of a Gaussian is above this line</text>')
    out.append(f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 10}" text-anchor="middle" class="t">bits a weight, scales included</text>')
    out.append(f'<text transform="translate(18 {HEIGHT / 2:.0f})rotate(-90)" text-anchor="middle" class="t">SQNR on Gaussian weights, dB</text>')


def legend(out):
    height = 18 * len(FAMILIES)
    for i, (_, title, colour) in enumerate(FAMILIES):
        y = HEIGHT - BOTTOM - height + 18 * i
        out.append(f'<circle cx="{WIDTH - 240}" cy="{y}" r="5" fill="{colour}"/><text x="{WIDTH - 228}" y="{y + 4}" class="t">{title}</text>')


def draw(rows):
    points = [(r["format"], x_of(float(r["bits_per_weight"])), y_of(float(r["sqnr_db"]))) for r in rows
              if r["weights"] == "gauss" and float(r["bits_per_weight"]) <= BITS[1]]
    boxes = place_labels(points)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="{FONT}">',
           "<style>.g{stroke:#e4e4e4;fill:none}.b{stroke:#999;stroke-dasharray:5 4;fill:none}.l{stroke-width:.6;fill:none}.t{font-size:13px}</style>",
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']
    axes(out)
    legend(out)
    for name, x, y in points:
        colour, box = family(name)[2], boxes[name]
        end, middle = (box[0] if box[0] > x else min(box[2], x) if box[2] > x else box[2]), (box[1] + box[3]) / 2
        if (end - x) ** 2 + (middle - y) ** 2 > 90:
            out.append(f'<path d="M{x:.1f} {y:.1f}L{end:.1f} {middle:.1f}" class="l" stroke="{colour}"/>')
        out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/><text x="{box[0] + 1:.1f}" y="{middle + 4:.1f}" fill="{colour}">{name}</text>')
    return "\n".join(out + ["</svg>", ""])


def table(rows):
    kinds = (("gauss", "Gaussian"), ("laplace", "Laplace"), ("t5", "Student t, 5 degrees"), ("outlier", "Gaussian with outliers"), ("llama-up", "bundled model, `up`"))
    found = {(r["format"], r["weights"]): r for r in rows}
    lines = ["| format | bits per weight | " + " | ".join(title for _, title in kinds) + " |", "|---|---|" + "---|" * len(kinds)]
    for name in sorted(SHORT, key=lambda n: float(found[n, "gauss"]["bits_per_weight"])):
        figures = " | ".join(f'{float(found[name, kind]["sqnr_db"]):.2f}' for kind, _ in kinds)
        lines.append(f'| `{name}` | {float(found[name, "gauss"]["bits_per_weight"]):.4g} | {figures} |')
    return "\n".join(lines)


def main():
    with open(CSV, newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    with open(README, encoding="utf-8") as f:
        readme = f.read()
    before, rest = readme.split(BEGIN)
    made = {SVG: draw(rows), README: before + BEGIN + "\n" + table(rows) + "\n" + END + rest.split(END)[1]}
    status = 0
    for path, text in made.items():
        kept = open(path, encoding="utf-8").read() if os.path.exists(path) else None
        if kept == text:
            continue
        if "--check" in sys.argv[1:]:
            print(f"{os.path.relpath(path, ROOT)} is not what scripts/plot_quality.py makes of tests/golden/quality.csv", file=sys.stderr)
            status = 1
            continue
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
