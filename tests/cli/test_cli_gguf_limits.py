"""Memory of conversions from and to GGUF."""
import json
import os
import unittest

import numpy as np

from cli_support import LIGHT, skip_aloud
from gguf_support import GgufTest, gguf_reader, weights
from test_cli_limits import MEBI, peak_rss


class Memory(GgufTest):
    def setUp(self):
        super().setUp()
        if LIGHT:
            self.skipTest("LLMQ_CLI_LIGHT")

    def sparse(self, name, dims, kind="F16"):
        """One tensor, with random weights at its beginning and zeros that take no disk behind them."""
        head = gguf_reader.image([("general.architecture", "string", "llama")], [(name, kind, dims, b"")])
        with open(self.path("m.gguf"), "wb") as f:
            f.write(head + gguf_reader.stored(kind, weights(1, 1 << 18)))
            f.truncate(len(head) + int(np.prod(dims)) * 2)

    def check(self, source, out, *args, budget=8):
        peak, code, text, err = peak_rss(["convert", "--in", source, "--out", out, "--force", "--max-ram", f"{budget}M", *args], self.dir)
        self.assertEqual(code, 0, err)
        report = json.loads(text)
        print(f"memory: {source} to {out} {' '.join(args)}: peak {peak / MEBI:.2f} MiB, index {report['index_nbytes'] / MEBI:.2f} MiB", flush=True)
        self.assertLessEqual(peak, budget * MEBI + report["index_nbytes"])
        self.assertLessEqual(report["ram_nbytes"], budget * MEBI)

    def check_all(self, name, threads):
        for args in ([name], [name, "--scale-rule", "reference"] if name != "mxint8" else [name, "--scale-rule", "floor"]):
            self.check("m.gguf", "a.gguf", "--threads", threads, "--format", *args)
        self.check("a.gguf", "a.llmq", "--threads", threads)
        self.check("a.llmq", "b.gguf", "--threads", threads)
        self.assertEqual(os.path.getsize(self.path("a.gguf")), os.path.getsize(self.path("b.gguf")))
        self.check("b.gguf", "c.gguf", "--threads", threads)

    def test_one_large_tensor(self):
        self.sparse("blk.0.ffn_up.weight", (16384, 8192))
        for name, threads in (("q8_0", "7"), ("mxfp4", "2"), ("nvfp4", "1"), ("mxint8", "7")):
            self.check_all(name, threads)

    def test_a_stack_of_experts(self):
        self.sparse("blk.0.ffn_up_exps.weight", (2048, 64, 512))
        self.check_all("nvfp4", "7")

    def test_long_rows(self):
        self.sparse("blk.0.ffn_up.weight", (3, 1 << 24))
        for name in ("mxfp4", "nvfp4", "q8_0"):
            self.check_all(name, "7")

    def test_a_large_vocabulary(self):
        keys = [("general.architecture", "string", "llama"), ("tokens", ("array", "string"), ["t%d" % i for i in range(300000)]), ("long", "string", "x" * (16 << 20))]
        self.model([("blk.0.ffn_up.weight", "F16", (64, 256), weights(1, 64, 256))], keys=keys)
        self.check("m.gguf", "a.gguf", "--format", "q8_0")
        self.check("m.gguf", "a.llmq", "--format", "q8_0")
        self.check("a.llmq", "b.gguf")
        self.assert_same_file("a.gguf", "b.gguf")


if __name__ == "__main__":
    unittest.main()
