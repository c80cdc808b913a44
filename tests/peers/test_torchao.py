"""llmq against torchao: MX formats byte for byte, integer scales and zero points bit for bit.

What it is
  MX: torchao's to_mx (scale modes FLOOR, EVEN, CEIL, RCEIL) and `llmq convert` (rules floor, even, ceil, rceil) on the same
  BF16 and F32 tensors. Ordinary weights must agree in every code and scale byte. Odd ones too, but for what is known to
  differ, and only there:
    zero byte   torchao divides groups of scale byte 0 by 2^-126 (RCEIL: by 1), not by the 2^-127 that the byte stands for,
                so their codes differ when they are not all 0; the byte itself agrees;
    top         llmq never writes an exponent above 127 - emax, so that no code decodes to Inf; torchao goes up to 128;
    log2        torchao's RCEIL takes ceil(log2f(amax / max)); the division and log2f round, so a group whose maximum lies a
                few ulps above max * 2^e may get e where llmq's exact rule says e + 1.
  Integers: torchao's choose_qparams_affine gives llmq's scales and zero points (F32 scales); its quantize_affine multiplies
  by a reciprocal where llmq divides, so codes may differ by one next to a tie, and only there. (The weight of largest
  magnitude in a group of symmetric integers is always next to one: amax / s is half = 2^(N-1) - 0.5.)

Worked number
  mxfp4, RCEIL, amax = nextafter(6, 7): amax / 6 rounds to 1, its log2 is 0, torchao's byte is 127; 6 * 2^0 < amax, so
  llmq's is 128.
"""

import itertools
import logging
import unittest

import numpy as np
import torch
from safetensors.torch import save_file

from peers_support import FLOAT_ELEMENTS, MX_ELEMENTS, PeerTest, WEIGHT, odd_weights, ordinary_weights

logging.disable(logging.WARNING)  # what torchao says about its GPU libraries while it is imported
try:
    import torchao
    from torchao.prototype.mx_formats.mx_tensor import ScaleCalculationMode, to_mx
    WITHOUT_MX = None
except Exception as error:  # whatever goes wrong when a peer is imported is a reason to skip, not to fail
    WITHOUT_MX = f"torchao's MX formats do not import: {type(error).__name__}: {error}"
try:
    from torchao.quantization.quant_primitives import MappingType, choose_qparams_affine, quantize_affine
    WITHOUT_INTEGERS = None
except Exception as error:
    WITHOUT_INTEGERS = f"torchao's integer primitives do not import: {type(error).__name__}: {error}"
logging.disable(logging.NOTSET)

RULES = ("floor", "even", "ceil", "rceil")
ELEMENTS = {"mxfp4": "float4_e2m1fn_x2", "mxfp6_e2m3": "fp6_e2m3", "mxfp6_e3m2": "fp6_e3m2", "mxfp8_e4m3": "float8_e4m3fn", "mxfp8_e5m2": "float8_e5m2"}
GROUP = 32


def skip_aloud(reason):
    print(f"\n  SKIPPED: {reason}", flush=True)
    raise unittest.SkipTest(reason)


def by_torchao(x, form, rule):
    """Codes (one a weight) and scale bytes of to_mx."""
    element = ELEMENTS[form]
    scales, data = to_mx(x, getattr(torch, element, element), GROUP, ScaleCalculationMode[rule.upper()])
    data = data.contiguous().view(torch.uint8).numpy().reshape(x.shape[0], -1)
    if form == "mxfp4":  # two codes a byte, the first one low
        data = np.stack((data & 15, data >> 4), axis=-1).reshape(x.shape)
    return data, scales.view(torch.uint8).numpy().reshape(x.shape[0], -1)


class MicroscalingFormats(PeerTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if WITHOUT_MX:
            skip_aloud(WITHOUT_MX)

    def both(self, x):
        """(format, rule, codes and scale bytes of llmq, codes and scale bytes of torchao) for all formats and rules."""
        save_file({WEIGHT: x}, self.path("source.safetensors"))
        for form, rule in itertools.product(ELEMENTS, RULES):
            tensor = self.quantized(self.convert(self.path("source.safetensors"), "out.llmq", "--format", form, "--scale-rule", rule))[WEIGHT]
            yield form, rule, (tensor.codes.astype(np.uint8), tensor.scales.astype(np.uint8)), by_torchao(x, form, rule)

    def test_ordinary_weights(self):
        for dtype in (torch.bfloat16, torch.float32):
            x = torch.from_numpy(ordinary_weights(1024, 1024, seed=3)).to(dtype)
            n = 0
            for form, rule, (codes, scales), (their_codes, their_scales) in self.both(x):
                self.assertSame(scales, their_scales, f"{form} {rule} {dtype}: scale bytes")
                self.assertSame(codes, their_codes, f"{form} {rule} {dtype}: codes")
                n += codes.size
            print(f"\n  {x.numel()} weights ({dtype}) x {len(ELEMENTS)} elements x {len(RULES)} modes: {n} codes agree with torchao {torchao.__version__}", flush=True)

    def test_odd_weights(self):
        for dtype in (torch.bfloat16, torch.float32):
            x = odd_weights(1024, 1024, seed=4)
            largest = torch.finfo(dtype).max
            x = torch.from_numpy(x).clamp(-largest, largest).to(dtype)
            known = {"zero byte": 0, "top": 0, "log2": 0}
            n = 0
            for form, rule, ours, theirs in self.both(x):
                self.compare_but_for_known(x.float().numpy(), form, rule, ours, theirs, known)
                n += ours[1].size
            print(f"\n  odd weights ({dtype}): {n} groups, known differences: {known}", flush=True)

    def compare_but_for_known(self, x, form, rule, ours, theirs, known):
        emax, largest = FLOAT_ELEMENTS[MX_ELEMENTS[form]][3:]
        amax = np.abs(x).reshape(x.shape[0], -1, GROUP).max(axis=2).astype(np.float64)
        scales, their_scales = ours[1].astype(int), theirs[1].astype(int)
        top = their_scales > 254 - emax
        self.assertTrue((scales[top] == 254 - emax).all(), f"{form} {rule}: exponents beyond the top")
        # log2: the exact rule is one above, and the maximum at most 64 ulps above max * 2^e
        log2 = ~top & (scales != their_scales)
        if log2.any():
            self.assertEqual(rule, "rceil", f"{form}: {log2.sum()} scale bytes differ")
            threshold = np.ldexp(largest, their_scales[log2] - 127)
            self.assertTrue((scales[log2] == their_scales[log2] + 1).all())
            self.assertTrue(((amax[log2] > threshold) & (amax[log2] <= threshold * (1 + 64 * 2.0**-23))).all(), f"{form} rceil: maxima far from a threshold")
        codes, their_codes = (c.reshape(*amax.shape, GROUP) for c in (ours[0], theirs[0]))
        differ = (codes != their_codes).any(axis=2) & ~top & ~log2
        self.assertTrue((scales[differ] == 0).all(), f"{form} {rule}: codes of {(differ & (scales != 0)).sum()} groups differ")
        for name, groups in (("zero byte", differ), ("top", top), ("log2", log2)):
            known[name] += int(groups.sum())

    def test_rceil_threshold(self):
        """The worked number: one ulp above max * 2^0."""
        for form in ELEMENTS:
            x = np.zeros((1, GROUP), np.float32)
            x[0, 0] = np.nextafter(np.float32(FLOAT_ELEMENTS[MX_ELEMENTS[form]][4]), np.float32(np.inf))
            save_file({WEIGHT: torch.from_numpy(x)}, self.path("source.safetensors"))
            tensor = self.quantized(self.convert(self.path("source.safetensors"), "out.llmq", "--format", form, "--scale-rule", "rceil"))[WEIGHT]
            self.assertEqual(tensor.scales[0, 0], 128, form)
            self.assertIn(by_torchao(torch.from_numpy(x), form, "rceil")[1][0, 0], (127, 128), form)


class Integers(PeerTest):
    """int2 .. int8 and uint2 .. uint8, groups of 64 and channel, scales in F32."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if WITHOUT_INTEGERS:
            skip_aloud(WITHOUT_INTEGERS)

    def test_scales_zeros_codes(self):
        x = torch.from_numpy(ordinary_weights(256, 1024, seed=5))
        save_file({WEIGHT: x}, self.path("source.safetensors"))
        n_codes = n_near = 0
        for bits, signed, group in itertools.product(range(2, 9), (True, False), (64, "channel")):
            form = f"{'' if signed else 'u'}int{bits}"
            with self.subTest(format=form, group=group):
                tensor = self.quantized(self.convert(self.path("source.safetensors"), "out.llmq", "--format", f"{form}:group={group},scale=f32"))[WEIGHT]
                low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
                block = (1, x.shape[1] if group == "channel" else group)
                mapping = MappingType.SYMMETRIC if signed else MappingType.ASYMMETRIC
                scale, zero = choose_qparams_affine(x, mapping, block, torch.int32, low, high, scale_dtype=torch.float32, zero_point_dtype=torch.int32)
                codes = quantize_affine(x, block, scale, zero, torch.int32, low, high).numpy()
                self.assertSame(tensor.float_scales(), scale.numpy().reshape(tensor.scales.shape), "scales")
                if not signed:
                    self.assertSame(tensor.zeros.astype(np.int32), zero.numpy().reshape(tensor.zeros.shape), "zero points")
                ours = tensor.signed_codes() if signed else tensor.codes.astype(np.int32)
                differ = ours != codes
                quotient = x.numpy().astype(np.float64) / tensor.per_weight(tensor.float_scales())
                self.assertTrue((np.abs(ours - codes)[differ] == 1).all(), "codes more than one apart")
                self.assertTrue((np.abs(np.abs(quotient - np.floor(quotient)) - 0.5)[differ] < 1e-4).all(), "codes differ away from a tie")
                n_codes, n_near = n_codes + codes.size, n_near + int(differ.sum())
        self.assertLess(n_near, n_codes * 1e-3)
        print(f"\n  integers: all scales and zero points agree with torchao; {n_near} of {n_codes} codes next to a tie differ by one", flush=True)


if __name__ == "__main__":
    unittest.main()
