"""Every format of the table from outside: a small model converts, on 1 and 4 threads to the same bytes, verifies, and the independent reader decodes what
`llmq dequantize` decodes, bit for bit. The list comes from the program, so a new format is in it at once."""
import json
import os
import sys
import unittest

import numpy as np

from cli_support import ROOT, CliTest, random_weights, read_bytes, write_model

sys.path.insert(0, os.path.join(ROOT, "tests"))
import reader  # noqa: E402

SHAPES = {"plain": (40, 512), "stack": (3, 8, 256), "tails": (7, 100), "one": (1, 1)}
WHOLE = ("plain", "stack")  # rows that are whole blocks of every format


def dequantized(path):
    data = read_bytes(path)
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + n])
    return {k: np.frombuffer(data[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]], dtype=np.uint32).reshape(v["shape"])
            for k, v in header.items() if k != "__metadata__"}


class AllFormats(CliTest):
    def check(self, name, bits_per_weight):
        source = "m-f32.safetensors" if name == "bf16" else "m.safetensors"  # weights that are bf16 already would be kept
        for threads in (1, 4):
            self.ok("convert", "--in", source, "--rule", f"*={name}", "--out", f"{threads}.llmq", "--threads", threads, "--force", "--quiet")
        self.assertEqual(read_bytes(self.path("1.llmq")), read_bytes(self.path("4.llmq")))
        self.ok("verify", "1.llmq", "--quiet")
        self.ok("dequantize", "--in", "1.llmq", "--out", "d.safetensors", "--dtype", "f32", "--force", "--quiet")
        model, decoded = reader.read(self.path("1.llmq")), dequantized(self.path("d.safetensors"))
        self.assertEqual(set(decoded), set(SHAPES))
        for tensor in model.tensors.values():
            self.assertEqual(decoded[tensor.name].shape, SHAPES[tensor.name])
            self.assertTrue(np.array_equal(tensor.decode().view(np.uint32), decoded[tensor.name]), tensor.name)
        for tensor in WHOLE:
            self.assertEqual(model.tensors[tensor].format, name)
        stored = 8 * sum(len(p.data) for p in model.tensors["plain"].planes.values()) / (40 * 512)
        self.assertLess(abs(stored - bits_per_weight), 0.2, "bits a weight")

    def test_every_format(self):
        for path, dtype in (("m.safetensors", "BF16"), ("m-f32.safetensors", "F32")):
            write_model(self.path(path), {name: (dtype, shape, random_weights(i, *shape)) for i, (name, shape) in enumerate(SHAPES.items())})
        formats = self.ok_json("formats")["formats"]
        self.assertGreater(len(formats), 80)
        for row in formats:
            with self.subTest(row["name"]):
                self.check(row["name"], row["bits_per_weight"])


if __name__ == "__main__":
    unittest.main()
