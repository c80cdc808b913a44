"""Integer formats in blocks of GGUF: int4, int5, int8, uint4, uint5 where their scales are F16 numbers; never a second rounding."""
import unittest

import numpy as np

from cli_support import LIGHT, read_bytes, skip_aloud
from gguf_support import GgufTest, weights

UP = "blk.0.ffn_up.weight"
TYPES = {"int4": "Q4_0", "int5": "Q5_0", "int8": "Q8_0", "uint4": "Q4_1", "uint5": "Q5_1"}


def on_a_grid(name, rows, cols, seed=1):
    """Weights whose groups of 32 have a scale of 2^-7 and, of unsigned codes, zero point 3: every number fits in F16."""
    levels = 1 << int(name[-1])
    q = np.random.default_rng(seed).integers(0, levels, (rows, cols))
    q[:, 0::32], q[:, 1::32] = 0, levels - 1
    return ((q - 3) * 2.0 ** -7).astype(np.float32)


class Integers(GgufTest):
    def both(self, *args, **kwargs):
        self.convert("m.gguf", "a.gguf", *args, "--force", **kwargs)
        self.convert("m.gguf", "a.llmq", *args, "--force", **kwargs)
        self.assert_equal_weights(self.decoded("a.gguf"), self.decoded("a.llmq"))
        self.assert_same_weights(self.decoded("a.gguf"), self.dequantized("a.gguf"))
        self.convert("a.llmq", "b.gguf", "--force")
        self.assert_same_file("a.gguf", "b.gguf")
        self.ok("verify", "a.gguf")

    def test_symmetric(self):
        for name in ("int4", "int5", "int8"):
            for cols, group in ((96, "32"), (96, "64"), (160, "128"), (160, "channel"), (32, "32768"), (4128, "channel"), (8192, "8192")):
                self.model([(UP, "F32", (7, cols), weights(cols, 7, cols)), ("blk.0.attn_q.weight", "BF16", (3, cols), weights(2, 3, cols))])
                for rule in ("absmax", "mse"):
                    with self.subTest(f"{name} {cols} {group} {rule}"):
                        self.both("--format", name, "--group-size", group, "--scale-dtype", "f16", "--scale-rule", rule)
                        self.assertEqual({t.type for t in self.gguf("a.gguf").tensors.values()}, {TYPES[name]})

    def test_with_zero_points(self):
        for name in ("uint4", "uint5"):
            for cols, group in ((96, "32"), (160, "64"), (160, "channel")):
                for scale in ("bf16", "f16", "f32"):
                    with self.subTest(f"{name} {cols} {group} {scale}"):
                        x = on_a_grid(name, 5, cols)
                        self.model([(UP, "F32", (5, cols), x)])
                        self.both("--format", name, "--group-size", group, "--scale-dtype", scale)
                        np.testing.assert_array_equal(self.decoded("a.gguf")[UP], x)

    def test_same_bytes(self):
        self.model([(UP, "F16", (900, 768), weights(1, 900, 768))])
        seen = set()
        for args, env in (([], {}), (["--threads", "1", "--max-ram", "8M"], {}), (["--threads", "7"], {"LLMQ_KERNELS": "portable"}), ([], {"LLMQ_KERNELS": "avx2"})):
            self.convert("m.gguf", "a.gguf", "--format", "int4:group=96,scale=f16", "--force", *args, env=env)
            seen.add(read_bytes(self.path("a.gguf")))
        self.assertEqual(len(seen), 1)

    def test_long_rows(self):
        if LIGHT:
            skip_aloud(self, "LLMQ_CLI_LIGHT is set")
        cols = 262144 + 8192 + 32
        self.model([(UP, "F16", (2, cols), weights(1, 2, cols))])
        for group in ("32", "64", "32768"):
            with self.subTest(group):
                self.both("--format", "int4", "--group-size", group, "--scale-dtype", "f16")
        for out in ("a.gguf",):
            result = self.llmq("convert", "--in", "m.gguf", "--out", out, "--format", "int4:group=channel,scale=f16", "--force", "--quiet")
            if result.code:
                self.check_refusal(result, result.code, "convert", UP)
            else:
                self.both("--format", "int4:group=channel,scale=f16")

    def test_scales_that_f16_has_not(self):
        x = weights(1, 4, 128)
        x[2, 64:96] *= 3e-4
        self.model([(UP, "F32", (4, 128), x)])
        self.convert("m.gguf", "a.llmq", "--format", "int4", "--group-size", "32")
        self.refused(1, ["convert", "--in", "a.llmq", "--out", "a.gguf", "--quiet"], UP, "row 2, column 64")
        self.refused(1, ["convert", "--in", "m.gguf", "--out", "a.gguf", "--format", "int4:group=32", "--quiet"], UP, "row 2, column 64")
        y = weights(3, 4, 128) * 3 + 1
        self.model([(UP, "F32", (4, 128), y)])
        result = self.llmq("convert", "--in", "m.gguf", "--out", "a.gguf", "--format", "uint4:group=32,scale=f32", "--quiet")
        self.check_refusal(result, 1, "convert", UP, "row 0, column 0")


if __name__ == "__main__":
    unittest.main()
