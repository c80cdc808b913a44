"""The safetensors package against llmq, both ways.

What it is
  It reads what llmq writes: `llmq dequantize` into a file, a folder and shards, with every --dtype; quantised tensors must
  be the decoded planes rounded once to that type, kept ones the bytes of the source, metadata the source's.
  llmq reads what it writes: a tensor of every dtype that the package offers, with random bytes, odd shapes, no dims and no
  elements; llmq must name it alike, keep it bit for bit, and widen the float types as PyTorch does when it quantises them.

Worked number
  BF16 0x3f81 is 1.0078125 in binary32; mxint8 of a group of it alone: amax 1.0078125, e = 0, code rint(64.5) = 64.
"""

import itertools
import json
import os
import unittest
import warnings

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from peers_support import PeerTest, TINY, WEIGHT, llmq, ordinary_weights, tensors_of

TORCH = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
FORMATS = ("mxfp4", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp8_e4m3", "mxfp8_e5m2", "mxint8", "int4:group=64", "int3:group=channel,scale=f16", "uint5", "int8:group=tensor,scale=f32")


def raw(tensor):
    """Bytes of a tensor of any dtype."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def load_header(path):
    with open(path, "rb") as f:
        return json.loads(f.read(int.from_bytes(f.read(8), "little")))


def body(path):
    with open(path, "rb") as f:
        f.read(int.from_bytes(f.read(8), "little"))
        return f.read()


def random_tensor(rng, dtype, shape):
    """Random bytes (true and false for bool)."""
    data = rng.integers(0, 2 if dtype is torch.bool else 256, int(np.prod(shape)) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(data).view(dtype).reshape(shape) if data.size else torch.empty(shape, dtype=dtype)


def offered_tensors(rng):
    """{name: tensor} of every dtype and shape that the package saves, found by trying."""
    found = {}
    dtypes = {d for d in vars(torch).values() if isinstance(d, torch.dtype)}
    for dtype, shape in itertools.product(sorted(dtypes, key=str), ((3, 64), (6,), (), (0, 4), (2, 3, 7))):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's remarks on rare types
                tensor = random_tensor(rng, dtype, shape)
            safetensors.torch.save({"x": tensor})
        except Exception:  # not offered: torch has no such view, or the package raises KeyError, ValueError or an error of its own
            continue
        found[f"{str(dtype).removeprefix('torch.')}.{'x'.join(map(str, shape)) or 'scalar'}"] = tensor
    return found


class ReadsWhatLlmqWrites(PeerTest):
    def check_tensors(self, read, container, dtype):
        """read: {name: tensor} of the package; against the planes of the container and the source."""
        source = load_file(os.path.join(TINY, "model.safetensors"))
        quantized = self.quantized(container)
        self.assertEqual(list(sorted(read)), list(sorted(source)))
        self.assertGreater(len(quantized), 10)
        for name, tensor in read.items():
            if name in quantized:
                expected = torch.from_numpy(quantized[name].decode()).to(TORCH[dtype])
            else:
                expected = source[name]
            self.assertEqual((tensor.shape, tensor.dtype), (expected.shape, expected.dtype), name)
            self.assertEqual(raw(tensor), raw(expected), name)

    def test_file(self):
        for form in FORMATS:
            container = self.convert(TINY, "tiny.llmq", "--format", form)
            for dtype in ("source", "f32", "bf16", "f16"):
                with self.subTest(format=form, dtype=dtype):
                    out = self.path("out.safetensors")
                    llmq("dequantize", "--in", container, "--out", out, "--dtype", dtype, "--force", "--quiet")
                    self.check_tensors(load_file(out), container, "bf16" if dtype == "source" else dtype)
                    with safe_open(out, "pt") as f:
                        self.assertEqual(f.metadata(), {"format": "pt"})

    def test_folder_and_shards(self):
        container = self.convert(TINY, "tiny.llmq", "--format", "mxfp6_e2m3")
        for options, n_files in (((), 1), (("--split-max-size", "1M"), 3)):
            with self.subTest(options=options):
                out = self.path(f"folder-{n_files}")
                llmq("dequantize", "--in", container, "--out", out, "--force", "--quiet", *options)
                files = sorted(n for n in os.listdir(out) if n.endswith(".safetensors"))
                self.assertGreaterEqual(len(files), n_files)
                read = {}
                for name in files:
                    read.update(load_file(os.path.join(out, name)))
                self.check_tensors(read, container, "bf16")
                if options:
                    with open(os.path.join(out, "model.safetensors.index.json")) as f:
                        index = json.load(f)["weight_map"]
                    for name, file in index.items():
                        with safe_open(os.path.join(out, file), "pt") as f:
                            self.assertIn(name, f.keys())
                    self.assertEqual(set(index), set(read))
                    self.assertEqual(set(index.values()), set(files))

    def test_slices(self):
        """safe_open's lazy slices, as loaders use them."""
        container = self.convert(TINY, "tiny.llmq", "--format", "int4")
        llmq("dequantize", "--in", container, "--out", self.path("out.safetensors"), "--quiet")
        name = "model.layers.1.mlp.down_proj.weight"
        whole = load_file(self.path("out.safetensors"))[name]
        with safe_open(self.path("out.safetensors"), "pt") as f:
            self.assertTrue(torch.equal(f.get_slice(name)[10:20, 30:40], whole[10:20, 30:40]))


class LlmqReadsWhatItWrites(PeerTest):
    def test_every_dtype_kept(self):
        tensors = offered_tensors(np.random.default_rng(8))
        # one tensor that is quantised: a conversion that quantises nothing is refused
        tensors[WEIGHT] = torch.from_numpy(ordinary_weights(4, 64))
        source, metadata = self.path("source.safetensors"), {"format": "pt", "note": "caf\u00e9 \u2603 \"quoted\" \\"}
        save_file(tensors, source, metadata)
        stated = load_header(source)
        seen = tensors_of(source)
        container = self.convert(source, "kept.llmq", "--format", "int8", "--nonfinite", "keep")
        kept = tensors_of(container)
        llmq("dequantize", "--in", container, "--out", self.path("out.safetensors"), "--quiet")
        back = load_header(self.path("out.safetensors"))
        self.assertEqual(back.pop("__metadata__"), metadata)
        stated.pop("__metadata__")
        self.assertEqual(set(seen), set(stated))
        self.assertEqual(set(back), set(stated))
        data, data_back = body(source), body(self.path("out.safetensors"))
        for name, facts in stated.items():
            for other in (seen[name], kept[name], back[name]):
                self.assertEqual((other["dtype"], list(other["shape"])), (facts["dtype"], facts["shape"]), name)
            if name != WEIGHT:
                self.assertIsNone(kept[name]["format"], name)
                self.assertEqual(data_back[slice(*back[name]["data_offsets"])], data[slice(*facts["data_offsets"])], name)
        # and the package reads the file again
        with safe_open(self.path("out.safetensors"), "pt") as f:
            self.assertEqual(set(f.keys()), set(tensors))
            self.assertEqual(f.metadata(), metadata)
        names = sorted({facts["dtype"] for facts in stated.values()})
        print(f"\n  dtypes that safetensors {safetensors.__version__} offers, kept bit for bit: {' '.join(names)}", flush=True)

    def test_float_dtypes_quantized(self):
        """A weight of each float dtype gives the planes of the same weight widened by PyTorch."""
        x = torch.from_numpy(ordinary_weights(64, 256, seed=9))
        save_file({WEIGHT: x.double()}, self.path("f64.safetensors"))
        for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2):
            with self.subTest(dtype=dtype):
                narrow = x.double() * 1.0000001 if dtype is torch.float64 else x.to(dtype)
                planes = []
                for name, tensor in (("narrow", narrow), ("wide", narrow.float())):
                    save_file({WEIGHT: tensor}, self.path(f"{name}.safetensors"))
                    planes.append(self.quantized(self.convert(self.path(f"{name}.safetensors"), "out.llmq", "--format", "mxint8"))[WEIGHT])
                self.assertSame(planes[0].codes, planes[1].codes, "codes")
                self.assertSame(planes[0].scales, planes[1].scales, "scales")

    def test_numpy_writer(self):
        """The package's numpy side, with ml_dtypes.bfloat16, writes what its torch side writes."""
        x = ordinary_weights(32, 96, seed=10)
        safetensors.numpy.save_file({WEIGHT: x.astype(ml_dtypes.bfloat16)}, self.path("numpy.safetensors"))
        save_file({WEIGHT: torch.from_numpy(x).bfloat16()}, self.path("torch.safetensors"))
        one, two = (self.quantized(self.convert(self.path(f"{n}.safetensors"), f"{n}.llmq", "--format", "mxfp4"))[WEIGHT] for n in ("numpy", "torch"))
        self.assertSame(one.codes, two.codes)
        self.assertSame(one.scales, two.scales)


if __name__ == "__main__":
    unittest.main()
