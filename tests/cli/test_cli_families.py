"""Every format of the block, scaled-float and codebook families from outside: convert, verify, dequantize, compare, extract, plan; the bytes do not
depend on threads or memory; the independent reader decodes what the program decodes."""
import json
import os
import sys
import unittest

import numpy as np

from cli_support import ROOT, CliTest, read_bytes, write_bytes

sys.path.insert(0, os.path.join(ROOT, "tests"))
import reader  # noqa: E402

FORMATS = {
    "bfp": ("bfp10", "bfp13", "bfp16", "bfp24:group=5", "bfp8_b:rule=search", "bfp4_b", "bfp16:kernel=1", "bfp16:kernel=1,rule=search,rounding=away"),
    "bfp-prime": ("bfpprime10", "bfpprime24:rule=search", "mx9", "mx6:group=32,sub-block=4,shift-bits=3,rule=search", "mx4:shift-bits=0", "mx4:group=6,sub-block=3"),
    "float": ("fp8_e4m3", "fp8_e5m2:group=tensor,rule=mse", "fp8_e4m3:group=128x128", "fp8_e4m3:group=128x128,rule=mse,scale=bf16", "fp6_e3m2", "fp6_e2m3:rule=mse",
              "fp4_e2m1:group=128x128"),
    "codebook": ("nf4", "fp4_bnb:rule=mse", "iq4nl", "nf4:group=tensor,scale=f32", "iq4nl:group=channel,rule=mse"),
    "mx": ("mxint8:negative-end=full", "mxint8:negative-end=full,rule=floor,rounding=up"),
    "affine": ("int4:half-range=int_max", "int8:half-range=int_max,group=channel,rule=mse"),
}
SHAPES = {"small": (3, 7), "tails": (131, 300), "stack": (3, 150, 200), "wide": (2, 262400), "tall": (2100, 130), "one": (1, 1)}


def weights(seed, shape):
    """Ordinary weights with zeros, huge and tiny ones, and a row of zeros."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal(shape) * 0.02).astype(np.float32)
    flat = x.reshape(-1)
    flat[rng.integers(0, flat.size, flat.size // 50)] = 0
    flat[rng.integers(0, flat.size, flat.size // 300)] *= np.float32(2.0 ** 16)
    flat[rng.integers(0, flat.size, flat.size // 300)] *= np.float32(2.0 ** -125)
    if x.shape[-2] > 2:
        x[..., 2, :] = 0
    return x


def write_f32(path, tensors):
    header, data = {}, b""
    for name, x in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [len(data), len(data) + x.nbytes]}
        data += x.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    write_bytes(path, len(text).to_bytes(8, "little") + text + data)


def read_f32(path):
    data = read_bytes(path)
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + n])
    return {k: np.frombuffer(data[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]], dtype=np.float32).reshape(v["shape"])
            for k, v in header.items() if k != "__metadata__"}


class Families(CliTest):
    def setUp(self):
        super().setUp()
        self.sources = {name: weights(i, shape) for i, (name, shape) in enumerate(SHAPES.items())}
        write_f32(self.path("m.safetensors"), self.sources)

    def convert(self, fmt, out, *more):
        return self.ok("convert", "--in", "m.safetensors", "--rule", f"*={fmt}", "--out", out, "--quiet", "--force", *more)

    def check(self, fmt, family):
        self.convert(fmt, "a.llmq")
        first = read_bytes(self.path("a.llmq"))
        least = "12M" if "128x128,rule=mse" in fmt else "8M"  # the errors of 2050 squares side by side
        for i, more in enumerate((("--threads", "1"), ("--threads", "2", "--max-ram", least), ("--threads", "7"))):
            self.convert(fmt, f"b{i}.llmq", *more)
            self.assertEqual(read_bytes(self.path(f"b{i}.llmq")), first, more)
        self.ok("verify", "a.llmq", "--quiet")
        self.ok("dequantize", "--in", "a.llmq", "--out", "d.safetensors", "--force", "--quiet", "--dtype", "f32")
        compared = self.ok_json("compare", "--in", "a.llmq", "--against", "d.safetensors")
        decoded, model = read_f32(self.path("d.safetensors")), reader.read(self.path("a.llmq"))
        self.assertEqual(len(compared["tensors"]), len(SHAPES))
        for name, x in self.sources.items():
            tensor = model.tensors[name]
            self.assertEqual(tensor.facts.family, family)
            self.assertTrue(tensor.known)
            y = tensor.decode()
            self.assertTrue(np.array_equal(y.view(np.uint32), decoded[name].view(np.uint32)), name)
            self.assertLess(float(np.abs(y - x).max()), float(np.abs(x).max()) * 0.7 + 1e-6, name)
        self.ok("extract", "a.llmq", "tails", "--out", "e.safetensors", "--force", "--quiet", "--dtype", "f32")
        self.assertTrue(np.array_equal(read_f32(self.path("e.safetensors"))["tails"].view(np.uint32), decoded["tails"].view(np.uint32)))

    def test_families(self):
        for family, formats in FORMATS.items():
            for fmt in formats:
                with self.subTest(fmt):
                    self.check(fmt, family)
                    for name in os.listdir(self.dir):
                        if name != "m.safetensors":
                            os.remove(self.path(name))

    def test_carried_as_it_is(self):
        """A container as the source of a container: the same planes."""
        for fmt in ("mx6", "bfp16", "fp8_e4m3:group=128x128", "nf4"):
            with self.subTest(fmt):
                self.convert(fmt, "a.llmq")
                self.ok("convert", "--in", "a.llmq", "--out", "c.llmq", "--force", "--quiet")
                a, c = reader.read(self.path("a.llmq")), reader.read(self.path("c.llmq"))
                for name in SHAPES:
                    self.assertEqual([p.data for p in a.tensors[name].planes.values()], [p.data for p in c.tensors[name].planes.values()])
                    self.assertEqual(a.tensors[name].group, c.tensors[name].group)
                    self.assertTrue(np.array_equal(a.tensors[name].decode(), c.tensors[name].decode()))

    def test_plan_says_the_bytes(self):
        plan = self.ok_json("plan", "--in", "m.safetensors", "--rule", "*=mx6")
        stack = next(t for t in plan["tensors"] if t["name"] == "stack")
        self.assertEqual(stack["group"], 16)
        inspect = None
        self.convert("mx6", "a.llmq")
        inspect = next(t for t in self.ok_json("inspect", "a.llmq")["tensors"] if t["name"] == "stack")
        self.assertEqual((inspect["sub_block"], inspect["shift_bits"]), (2, 1))
        self.assertEqual([p["name"] for p in inspect["planes"]], ["codes", "scales", "shifts"])

    def test_refused(self):
        for fmt, *parts in (("bfp11:kernel=1", "bfp11", "kernel"), ("mxfp4:negative-end=full", "mxfp4", "negative-end"), ("mx9:group=5", "do not divide"),
                            ("mx9:group=512,sub-block=2", "more than 128 sub-blocks"), ("mx9:shift-bits=4", "0 to 3"), ("bfp16:sub-block=2", "no sub-blocks"),
                            ("int4:group=128x128", "int4", "128x128"), ("nf4:rounding=up", "nf4", "up"), ("uint4:half-range=int_max", "uint4"),
                            ("bfp16:group=channel", "fixed size"), ("mxint8:kernel=1", "kernel"), ("int8:half-range=all", "half, int_max")):
            with self.subTest(fmt):
                self.refused(2, ["convert", "--in", "m.safetensors", "--rule", f"*={fmt}", "--out", "x.llmq"], *parts)

    def test_option_and_recipe_keys(self):
        self.ok("convert", "--in", "m.safetensors", "--rule", "*=int4", "--half-range", "int_max", "--out", "a.llmq", "--quiet")
        self.convert("int4:half-range=int_max", "b.llmq")
        self.assertEqual(read_bytes(self.path("a.llmq")), read_bytes(self.path("b.llmq")))
        write_bytes(self.path("r.yaml"), b"rules:\n  - {match: '*', format: mx6, sub-block: 4, shift-bits: 2, group-size: 32}\n")
        self.ok("convert", "--in", "m.safetensors", "--recipe", "./r.yaml", "--out", "c.llmq", "--quiet")
        self.convert("mx6:group=32,sub-block=4,shift-bits=2", "d.llmq")
        self.assertEqual(read_bytes(self.path("c.llmq")), read_bytes(self.path("d.llmq")))


if __name__ == "__main__":
    unittest.main()
