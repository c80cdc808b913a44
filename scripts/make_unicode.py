#!/usr/bin/env python3
"""make_unicode.py: writes smoothquant/unicode_table.c from the Unicode data of the package unicodedata2, or of the Python that runs it.

What it writes
  general categories as the first code point of each run of one category; combining classes the same way; canonical decompositions
  of one step, and the compositions that are not excluded. Hangul follows by arithmetic and is left out.

How to run
  pip install unicodedata2==16.0.0 && python3 scripts/make_unicode.py > smoothquant/unicode_table.c        (the version of Oniguruma in tokenizers)

Worked number
  U+00E9 (e with acute) is a Ll and decomposes to U+0065 U+0301, which compose to it again.
"""
import sys

try:
    import unicodedata2 as unicodedata
except ImportError:
    import unicodedata

CATEGORIES = "Cn Cc Cf Co Cs Ll Lm Lo Lt Lu Mc Me Mn Nd Nl No Pc Pd Pe Pf Pi Po Ps Sc Sk Sm So Zl Zp Zs".split()
HANGUL = range(0xAC00, 0xD7A4)


def runs(value_of):
    last, out = None, []
    for code in range(0x110000):
        value = value_of(chr(code))
        if value != last:
            out.append((code, value))
            last = value
    return out


def rows(texts, per_line):
    return "".join("    " + " ".join(texts[i:i + per_line]) + "\n" for i in range(0, len(texts), per_line))


def table(kind, name, texts, per_line):
    return f"const {kind} {name}[] = {{\n{rows(texts, per_line)}}};\nconst size_t {name}_count = sizeof {name} / sizeof {name}[0];\n\n"


def main():
    steps = []
    for code in range(0x110000):
        text = unicodedata.decomposition(chr(code))
        if text and not text.startswith("<") and code not in HANGUL:
            parts = [int(p, 16) for p in text.split()]
            steps.append((code, parts[0], parts[1] if len(parts) > 1 else 0))
    pairs = sorted((a, b, code) for code, a, b in steps if b and unicodedata.normalize("NFC", chr(a) + chr(b)) == chr(code))
    out = f"""/* unicode_table.c: tables of Unicode {unicodedata.unidata_version}; see unicode.h. Made by scripts/make_unicode.py, not by hand.
 *
 * Formula: runs hold (first code point << 5 | category) and (first code point << 8 | combining class), each up to the next one's.
 * Why this way: {len(CATEGORIES)} categories in a few thousand runs are searched in twelve steps; a table for each code point would have a megabyte.
 * Corner cases: Hangul syllables decompose by arithmetic and are not listed; pairs excluded from composition are not among the pairs.
 * Reference: the Unicode Character Database {unicodedata.unidata_version}. Worked number: 0x41 << 5 | 9: from U+0041 on Lu.
 */
#include "smoothquant/unicode_table.h"

/* clang-format off */
"""
    out += table("uint32_t", "unicode_categories", [f"0x{c << 5 | CATEGORIES.index(v):x}," for c, v in runs(unicodedata.category)], 14)
    out += table("uint32_t", "unicode_combining", [f"0x{c << 8 | v:x}," for c, v in runs(unicodedata.combining)], 14)
    out += table("struct unicode_step", "unicode_steps", [f"{{ 0x{c:x}, 0x{a:x}, 0x{b:x} }}," for c, a, b in steps], 6)
    out += table("struct unicode_pair", "unicode_pairs", [f"{{ 0x{a:x}, 0x{b:x}, 0x{c:x} }}," for a, b, c in pairs], 6)
    sys.stdout.write(out.rstrip("\n") + "\n/* clang-format on */\n")


main()
