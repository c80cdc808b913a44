"""llmq's MX formats against ml_dtypes, an independent implementation of the small floats.

What it is
  Golden vectors: the value of every code and every nearest-even pair of tests/golden/elements.json, by ml_dtypes.
  Whole tensors: formats/NUMERICS.md sections 2, 3 and 5 written a second time, in numpy + ml_dtypes, must give the codes,
  scale bytes and decoded weights of `llmq convert`, bit for bit, for all MX formats and scale rules.

Worked number
  mxfp4, rule even, amax 3.5 = 1.75 * 2^1: the bits plus 2^21 carry into the exponent, so e = 2 - emax = 0; 3.5 is a tie
  between 3 and 4 and goes to 4, code 6.
"""

import itertools
import json
import os
import unittest

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file, save_file

from peers_support import FLOAT_ELEMENTS, GOLDEN, MX_ELEMENTS, PeerTest, WEIGHT, llmq, odd_weights, ordinary_weights

RULES = ("floor", "even", "ceil", "rceil", "search")
SHAPES = {WEIGHT: (1024, 1024), "model.layers.0.self_attn.q_proj.weight": (56, 1000)}  # the second has tails of 8


def from_hex(texts):
    """float32 of bit patterns, or of the words inf, -inf and nan."""
    return np.array([float(t) if t.lstrip("-") in ("inf", "nan") else np.uint32(int(t, 16)).view(np.float32) for t in texts], np.float32)


def encode(element, u):
    """Codes of u (float32) by ml_dtypes, saturated; mxint8 by numpy's rint."""
    if element == "mxint8":
        return np.clip(np.rint(u * np.float32(64)), -127, 127).astype(np.int8).view(np.uint8)
    dtype, _, _, _, largest = FLOAT_ELEMENTS[element]
    return np.clip(u, np.float32(-largest), np.float32(largest)).astype(dtype).view(np.uint8)


def value(element, codes):
    if element == "mxint8":
        return codes.view(np.int8).astype(np.float32) / np.float32(64)
    return codes.view(FLOAT_ELEMENTS[element][0]).astype(np.float32)


# --- NUMERICS.md section 3 --------------------------------------------------------------------------------------------

def ilog2(a):
    """floor(log2 a) of float32 > 0, exact."""
    return np.frexp(a.astype(np.float64))[1] - 1


def exponents(rule, element, amax):
    """The shared exponent e of each group, clamped; amax float32, > 0."""
    m, emax, largest = (8, 0, 127 / 64) if element == "mxint8" else FLOAT_ELEMENTS[element][2:]
    log2 = ilog2(amax)
    if rule == "floor":
        e = log2 - emax
    elif rule == "even":
        e = ((amax.view(np.uint32) + np.uint32(1 << (22 - m))) >> 23).astype(np.int64) - 127 - emax
    elif rule == "ceil":
        e = log2 + (amax > np.ldexp(1.0, log2)) - emax
    else:
        e = log2 - emax
        e = e + (amax.astype(np.float64) > np.ldexp(largest, e))
    return np.clip(e, -127, 127 - emax)


def scaled(x, e):
    """fl(x * 2^-e); binary64 holds the product of a normal result exactly, and ldexp of binary32 could not take 2^127."""
    return (x.astype(np.float64) * np.ldexp(1.0, -e)[..., None]).astype(np.float32)


def group_sums(t):
    """Sums of the terms t[groups, 32] in the order of section 5."""
    lanes = t[:, :16] + t[:, 16:]
    for half in (8, 4, 2, 1):
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]


def candidate_error(element, x, e, e0):
    u = scaled(x, e)
    d = np.ldexp(u - value(element, encode(element, u)), (e - e0)[:, None])
    with np.errstate(over="ignore", under="ignore"):
        return group_sums((d * d).astype(np.float32))


def search_exponents(element, x, amax):
    emax = 0 if element == "mxint8" else FLOAT_ELEMENTS[element][3]
    e0 = exponents("floor", element, amax)
    best, least = e0, candidate_error(element, x, e0, e0)
    for step in (1, -1):
        e = np.clip(e0 + step, -127, 127 - emax)
        error = candidate_error(element, x, e, e0)
        better = error < least  # an exponent that the clamp made equal to an earlier one never is
        best, least = np.where(better, e, best), np.where(better, error, least)
    return best


def quantize(element, rule, x, group=32):
    """Codes (rows x cols) and scale bytes (rows x groups) of float32 x."""
    rows, cols = x.shape
    groups = -(-cols // group)
    padded = np.zeros((rows, groups * group), np.float32)  # zeros behind a tail change neither its maximum nor its error
    padded[:, :cols] = x
    padded = padded.reshape(-1, group)
    amax = np.abs(padded).max(axis=1)
    filled = amax > 0
    some = np.where(filled, amax, np.float32(1))
    e = search_exponents(element, padded, some) if rule == "search" else exponents(rule, element, some)
    e = np.where(filled, e, -127)
    codes = encode(element, scaled(padded, e)).reshape(rows, -1)[:, :cols]
    return np.ascontiguousarray(codes), (e + 127).astype(np.uint8).reshape(rows, groups)


# --- tests ------------------------------------------------------------------------------------------------------------

class GoldenElements(PeerTest):
    def test_values_and_codes(self):
        with open(os.path.join(GOLDEN, "elements.json")) as f:
            elements = json.load(f)["elements"]
        self.assertEqual({e["name"] for e in elements}, set(FLOAT_ELEMENTS))
        n = 0
        for element in elements:
            name, bits = element["name"], element["bits"]
            with self.subTest(element=name):
                self.assertEqual(bits, FLOAT_ELEMENTS[name][1])
                ours, theirs = from_hex(element["values"]), value(name, np.arange(1 << bits, dtype=np.uint8))
                nan = np.isnan(theirs)
                self.assertSame(np.isnan(ours), nan, f"{name}: NaN codes")
                self.assertSame(ours[~nan], theirs[~nan], f"{name}: values")
                x, codes = zip(*element["encode"]["nearest-even"])
                self.assertSame(np.array(codes, np.uint8), encode(name, from_hex(x)), f"{name}: codes")
                n += len(codes) + len(theirs)
        print(f"\n  {n} golden values and codes agree with ml_dtypes {ml_dtypes.__version__}", flush=True)

    def test_scales(self):
        """E8M0: byte b is 2^(b-127); byte 0 is a binary32 subnormal, 255 NaN."""
        theirs = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
        self.assertSame(theirs[:255], np.ldexp(1.0, np.arange(255) - 127).astype(np.float32), "E8M0")
        self.assertTrue(np.isnan(theirs[255]))


class WholeTensors(PeerTest):
    def check(self, dtype, make):
        weights = {n: make(*shape).astype(dtype) for n, shape in SHAPES.items()}
        source = self.path("source.safetensors")
        save_file(weights, source)
        for form, rule in itertools.product(MX_ELEMENTS, RULES):
            with self.subTest(format=form, rule=rule):
                container = self.convert(source, "out.llmq", "--format", form, "--scale-rule", rule)
                llmq("dequantize", "--in", container, "--out", self.path("out.safetensors"), "--dtype", "f32", "--force", "--quiet")
                decoded = load_file(self.path("out.safetensors"))
                tensors = self.quantized(container)
                self.assertEqual(set(tensors), set(weights))
                for name, tensor in tensors.items():
                    codes, scales = quantize(MX_ELEMENTS[form], rule, weights[name].astype(np.float32))
                    self.assertSame(tensor.scales, scales, f"{form} {rule} {name}: scales")
                    self.assertSame(tensor.codes.astype(np.uint8), codes, f"{form} {rule} {name}: codes")
                    self.assertSame(decoded[name], tensor.decode(), f"{form} {rule} {name}: decoded weights")
        n = sum(w.size for w in weights.values())
        print(f"\n  {n} weights ({np.dtype(dtype).name}) x {len(MX_ELEMENTS)} formats x {len(RULES)} rules: compared bit for bit", flush=True)

    def test_bf16_ordinary(self):
        self.check(ml_dtypes.bfloat16, ordinary_weights)

    def test_f32_ordinary(self):
        self.check(np.float32, ordinary_weights)

    def test_f32_odd(self):
        self.check(np.float32, odd_weights)

    def test_other_group_sizes(self):
        """Groups of 16 and 64, in mxfp4 and mxint8."""
        source, x = self.path("source.safetensors"), ordinary_weights(64, 1000)
        save_file({WEIGHT: x}, source)
        for form, group, rule in itertools.product(("mxfp4", "mxint8"), (16, 64), ("floor", "even", "ceil", "rceil")):
            with self.subTest(format=form, group=group, rule=rule):
                tensor = self.quantized(self.convert(source, "out.llmq", "--format", form, "--group-size", group, "--scale-rule", rule))[WEIGHT]
                codes, scales = quantize(MX_ELEMENTS[form], rule, x, group)
                self.assertSame(tensor.scales, scales, "scales")
                self.assertSame(tensor.codes.astype(np.uint8), codes, "codes")


if __name__ == "__main__":
    unittest.main()
