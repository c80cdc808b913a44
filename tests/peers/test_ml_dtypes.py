"""llmq's MX formats against ml_dtypes, an independent implementation of the small floats.

What it is
  Golden vectors: the value of every code and every nearest-even pair of tests/golden/elements.json, by ml_dtypes.
  Whole tensors: formats/NUMERICS.md sections 2, 3 and 5 written a second time, in numpy + ml_dtypes, must give the codes,
  scale bytes and decoded weights of `llmq convert`, bit for bit, for all MX formats and scale rules.
  Every cast: under a scale of exactly 1 a code is a cast, so `llmq convert` must give the codes of ml_dtypes for every
  float16 within the range of an element (beyond it llmq saturates and ml_dtypes has Inf or NaN), every code must occur,
  and decode to ml_dtypes' value; so for the floats of 4 to 8 bits, int2, int4, int8, uint2, uint4, uint8 and E8M0.

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


class EveryCast(PeerTest):
    SCALED = {"fp4_e2m1": "e2m1", "fp6_e2m3": "e2m3", "fp6_e3m2": "e3m2", "fp8_e4m3": "e4m3", "fp8_e5m2": "e5m2"}
    INTEGERS = {  # type of the codes, least and largest weight for which the scale is 1 (NUMERICS.md 4)
        "int2": (ml_dtypes.int2, -1.5, 1.5), "int4": (ml_dtypes.int4, -7.5, 7.5), "int8": (np.int8, -127.5, 127.5),
        "uint2": (ml_dtypes.uint2, 0, 3), "uint4": (ml_dtypes.uint4, 0, 15), "uint8": (np.uint8, 0, 255),
    }

    def all_float16(self, low, high):
        x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
        return x[(x >= low) & (x <= high)]

    def cast(self, x, text):
        """The one tensor of a container made of x in format text, and what llmq decodes."""
        source, out = self.path("source.safetensors"), self.path("decoded.safetensors")
        save_file({WEIGHT: x.reshape(1, -1)}, source)
        container = self.convert(source, "out.llmq", "--format", text)
        llmq("dequantize", "--in", container, "--out", out, "--dtype", "f32", "--force", "--quiet")
        tensor = self.quantized(container)[WEIGHT]
        return tensor, tensor.codes.reshape(-1).astype(np.uint8), load_file(out)[WEIGHT].reshape(-1)

    def check_scale(self, tensor):
        self.assertSame(tensor.scales.astype(np.uint32), np.full((1, 1), 0x3F800000, np.uint32), "the scale is 1")

    def test_floats(self):
        n = 0
        for text, element in self.SCALED.items():
            with self.subTest(format=text):
                dtype, bits, _, _, largest = FLOAT_ELEMENTS[element]
                x = self.all_float16(-largest, largest)
                tensor, codes, decoded = self.cast(x, f"{text}:group=tensor,scale=f32")
                self.check_scale(tensor)
                self.assertSame(codes, x.astype(dtype).view(np.uint8), "codes")
                self.assertSame(decoded, codes.view(dtype).astype(np.float32), "values")
                finite = np.isfinite(value(element, np.arange(1 << bits, dtype=np.uint8)))
                self.assertEqual(set(codes.tolist()), set(np.flatnonzero(finite).tolist()), "every code occurs")
                n += x.size
        print(f"\n  {n} casts of float16 to {len(self.SCALED)} elements: the codes and values of ml_dtypes", flush=True)

    def test_integers(self):
        for text, (dtype, low, high) in self.INTEGERS.items():
            with self.subTest(format=text):
                bits = int(text.lstrip("uint"))
                x = self.all_float16(low, high)
                tensor, codes, decoded = self.cast(x, f"{text}:group=tensor,scale=f32")
                self.check_scale(tensor)
                if tensor.zeros is not None:
                    self.assertEqual(int(tensor.zeros[0, 0]), 0)
                least, most = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if text[0] == "i" else (0, (1 << bits) - 1)
                wanted = np.clip(np.rint(x.astype(np.float32)), least, most).astype(np.int16).astype(dtype)  # ml_dtypes' own cast truncates
                self.assertSame(codes, wanted.view(np.uint8) & np.uint8((1 << bits) - 1), "codes")
                self.assertSame(decoded, wanted.astype(np.float32), "values")
                self.assertEqual(len(set(codes.tolist())), 1 << bits, "every code occurs")

    def test_e8m0(self):
        """A group of one weight 2^k under rule floor has byte k - emax + 127, and its weight is exact."""
        for form, element in MX_ELEMENTS.items():
            with self.subTest(format=form):
                emax = 0 if element == "mxint8" else FLOAT_ELEMENTS[element][3]
                x = np.ldexp(np.float32(1), np.arange(emax - 127, 128)).astype(np.float32)
                tensor, codes, decoded = self.cast(x, f"{form}:group=1,rule=floor")
                bytes_ = tensor.scales.reshape(-1).astype(np.uint8)
                self.assertSame(bytes_, np.arange(255 - emax, dtype=np.uint8), "bytes")
                scales = bytes_.view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
                self.assertSame(decoded, value(element, codes) * scales, "values")
                self.assertSame(decoded, x, "weights")


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
