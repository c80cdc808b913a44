"""llmq eval and calibrate: logits and statistics against the numpy oracle, on random tiny models of every architecture, in the forms of checkpoints and GGUF.

Worked number: binary32 against binary64 on models of 3 layers: about 1e-6 of the largest logit; 2e-5 is accepted.
"""
import json
import os
import sys
import unittest

import numpy as np

from cli_support import ROOT, CliTest, write_model

sys.path.insert(0, os.path.join(ROOT, "tests"))
import forward_oracle  # noqa: E402
import gguf_reader  # noqa: E402

CLOSE = 2e-5


class ForwardTest(CliTest):
    def folder(self, case, name="model"):
        os.makedirs(self.path(name), exist_ok=True)
        with open(self.path(name, "config.json"), "w", encoding="utf-8") as f:
            json.dump(case.config, f)
        write_model(self.path(name, "model.safetensors"), {n: ("F32", x.shape, x) for n, x in case.tensors.items()})
        return name

    def documents(self, lengths=(9, 2, 14), seed=3):
        rng = np.random.default_rng(seed)
        documents = [rng.integers(0, forward_oracle.VOCAB, n).tolist() for n in lengths]
        with open(self.path("ids.txt"), "w", encoding="ascii") as f:
            f.writelines(" ".join(map(str, d)) + "\n" for d in documents)
        return documents

    def logits(self, model, *options):
        self.ok("eval", "--in", model, "--tokens", "ids.txt", "--logits", "logits.npy", "--force", "--quiet", *options)
        return np.load(self.path("logits.npy"))

    def check(self, found, case, documents):
        wanted = np.concatenate([case.logits(d) for d in documents])
        self.assertEqual(found.shape, wanted.shape)
        self.assertLess(np.abs(found - wanted).max() / np.abs(wanted).max(), CLOSE)
        return wanted


class Logits(ForwardTest):
    def test_every_architecture(self):
        documents = self.documents()
        for name in forward_oracle.cases():
            with self.subTest(case=name):
                case = forward_oracle.case(name)
                self.check(self.logits(self.folder(case)), case, documents)

    def test_gguf(self):
        documents = self.documents()
        for name, (case, keys, tensors) in forward_oracle.gguf_cases().items():
            with self.subTest(case=name):
                gguf_reader.write(self.path("m.gguf"), keys, tensors)
                self.check(self.logits("m.gguf"), case, documents)

    def test_oracle(self):
        forward_oracle.self_check()


if __name__ == "__main__":
    unittest.main()
