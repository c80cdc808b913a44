"""llmq's per-channel integers against PyTorch's own quantisers, with the scales that llmq chose.

What it is
  `llmq convert` to int8, int4, uint8 and uint4, one F32 scale a row. torch.round(x / s) must give every code. torch's
  fake_quantize_per_channel_affine and quantize_per_channel multiply by fl(1/s) instead of dividing, so they may differ by
  one step next to a tie, and only there; elsewhere the dequantised weights must be equal bit for bit.

Worked number
  s = fl(0.3), x = 2.25: fl(x / s) = 7.4999995 goes to 7; fl(x * fl(1 / s)) = 7.5 is a tie and goes to 8.
"""

import unittest
import warnings

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from peers_support import PeerTest, WEIGHT, llmq, odd_weights, ordinary_weights


class PerChannel(PeerTest):
    def check(self, x, form):
        save_file({WEIGHT: x}, self.path("source.safetensors"))
        container = self.convert(self.path("source.safetensors"), "out.llmq", "--format", f"{form}:group=channel,scale=f32")
        llmq("dequantize", "--in", container, "--out", self.path("out.safetensors"), "--dtype", "f32", "--force", "--quiet")
        decoded = load_file(self.path("out.safetensors"))[WEIGHT]
        tensor = self.quantized(container)[WEIGHT]
        signed = tensor.zeros is None
        low, high = (-(1 << (tensor.bits - 1)), (1 << (tensor.bits - 1)) - 1) if signed else (0, (1 << tensor.bits) - 1)
        codes = tensor.signed_codes() if signed else tensor.codes.astype(np.int32)
        scale = torch.from_numpy(tensor.float_scales()[:, 0].copy())
        zero = torch.zeros_like(scale, dtype=torch.int32) if signed else torch.from_numpy(tensor.zeros[:, 0].astype(np.int32))
        # the definition, in torch: a division, ties to even
        exact = torch.clamp(torch.round(x / scale[:, None]) + zero[:, None], low, high)
        self.assertSame(codes, exact.to(torch.int32).numpy(), f"{form}: codes by torch.round(x / s)")
        # torch's quantisers
        fake = torch.fake_quantize_per_channel_affine(x, scale, zero, 0, low, high)
        near = np.abs(np.abs((x.double() / scale[:, None].double()).numpy()) % 1 - 0.5) < 1e-3
        differ = (fake != decoded).numpy()
        self.assertFalse((differ & ~near).any(), f"{form}: weights differ away from a tie")
        self.assertTrue(((fake - decoded).abs().double() <= scale[:, None].double() * 1.0001).all(), f"{form}: more than a step apart")
        self.assertSame(np.where(differ, 0, fake.numpy() + 0.0), np.where(differ, 0, decoded.numpy() + 0.0), f"{form}: weights")
        if tensor.bits == 8:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it is to go in a later torch
                theirs = torch.quantize_per_channel(x, scale.double(), zero.long(), 0, torch.qint8 if signed else torch.quint8)
            apart = np.abs(theirs.int_repr().numpy().astype(np.int32) - codes)
            self.assertLessEqual(apart.max(), 1, f"{form}: codes of quantize_per_channel")
            self.assertFalse(((apart > 0) & ~near).any(), f"{form}: codes of quantize_per_channel differ away from a tie")
        return int(differ.sum())

    def test_against_torch(self):
        ordinary = torch.from_numpy(ordinary_weights(1024, 1024, seed=6))
        found = {form: self.check(ordinary, form) for form in ("int8", "int4", "uint8", "uint4")}
        for form, n in found.items():
            self.assertLess(n, ordinary.numel() * 1e-3, form)
        print(f"\n  {ordinary.numel()} weights: all codes as torch.round(x / s); weights next to a tie where fake_quantize differs: {found}", flush=True)

    def test_ties_and_zeros(self):
        """Rows of ties, zeros and -0, subnormals (the scale stops at 2^-23) and large numbers."""
        x = torch.from_numpy(odd_weights(64, 1024, seed=7)).clamp(-1e30, 1e30)
        for form in ("int8", "int4", "uint8", "uint4"):
            with self.subTest(format=form):
                self.check(x, form)


if __name__ == "__main__":
    unittest.main()
