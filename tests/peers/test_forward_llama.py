"""Perplexity and logits of llmq's forward pass against llama.cpp, on GGUF files.

What it is
  Perplexity   the bundled model and stories260K, in F32 and quantised by llmq: llmq eval and llama.cpp on the same windows, within 1 %. (llama.cpp
               rounds activations to 8 bits where weights are quantised; in F32 the two agree to five digits.)
  Logits       random tiny models of several architectures, the same files as in the tests against numpy.

Worked number
  stories260K on 40 stories: perplexity 4.3594.
"""

import json
import math
import os
import sys
import unittest

import numpy as np

from llama_peer import LlamaTest, Model
from peers_support import ROOT, TEXT, llmq, shared_data
from gguf_model import write_tiny

sys.path.insert(0, os.path.join(ROOT, "tests"))
import forward_oracle  # noqa: E402
import gguf_reader  # noqa: E402

FORMS = (None, "q8_0", "q6_k", "q5_k", "q4_k", "q4_0", "iq4_nl", "mxfp4", "bf16")
EXACT = (None,)


class Perplexity(LlamaTest):
    def write_ids(self, documents):
        with open(self.path("ids.txt"), "w", encoding="ascii") as f:
            f.writelines(" ".join(map(str, d)) + "\n" for d in documents)

    def compare(self, source, documents, forms):
        self.write_ids(documents)
        lines = []
        for form in forms:
            path = source
            if form:
                path = self.path("q.gguf")
                llmq("convert", "--in", source, "--format", form, "--out", path, "--force", "--quiet")
            found = json.loads(llmq("eval", "--in", path, "--tokens", self.path("ids.txt"), "--json", "--quiet"))
            with Model(path) as model:
                nats = model.nats([(np.array(d, int), 0) for d in documents])
            lines.append(f"{form or 'as it is':<9} llmq {found['perplexity']:.5f}  llama.cpp {math.exp(nats):.5f}")
            self.assertEqual(found["tokens"], sum(len(d) - 1 for d in documents))
            self.assertLess(abs(math.log(found["perplexity"]) - nats), 1e-5 if form in EXACT else 0.01, lines[-1])
        print("\n  " + "\n  ".join([os.path.basename(str(source))] + lines), flush=True)

    def test_bundled(self):
        with open(TEXT, "rb") as f:
            documents = [[256, *d][:512] for d in f.read().strip().split(b"\n\n")]
        self.compare(write_tiny(self.path("tiny.gguf")), documents, FORMS)

    def test_stories(self):
        with open(shared_data(self, "text", "stories260K_ids.txt"), encoding="ascii") as f:
            documents = [[int(x) for x in line.split()] for line in f][:12]
        self.compare(shared_data(self, "llm", "stories260K", "stories260K.gguf"), documents, (None, "q8_0", "bf16"))


class Logits(LlamaTest):
    def test_random_models(self):
        rng = np.random.default_rng(7)
        documents = [rng.integers(0, forward_oracle.VOCAB, n).tolist() for n in (9, 14, 5)]
        more = [("tokenizer.ggml.model", "string", "gpt2"), ("tokenizer.ggml.pre", "string", "gpt-2"), ("tokenizer.ggml.merges", ("array", "string"), ["\u0100 \u0100"]),
                ("tokenizer.ggml.tokens", ("array", "string"), [f"t{i}" for i in range(forward_oracle.VOCAB)]),
                ("tokenizer.ggml.token_type", ("array", "i32"), [1] * forward_oracle.VOCAB), ("tokenizer.ggml.bos_token_id", "u32", 1), ("tokenizer.ggml.eos_token_id", "u32", 2)]
        lines = []
        for name, (_, keys, tensors) in forward_oracle.gguf_cases().items():
            with self.subTest(case=name):
                arch = keys[0][2]
                sizes = [(f"{arch}.feed_forward_length", "u32", 128 if name == "gpt2" else 24 if name == "mixtral" else forward_oracle.FFN), (f"{arch}.expert_feed_forward_length", "u32", 24),
                         (f"{arch}.expert_shared_feed_forward_length", "u32", 20)]
                sizes = [s for s in sizes if s[0] not in {k[0] for k in keys}]
                path = gguf_reader.write(self.path(f"{name}.gguf"), keys + sizes + more, tensors)
                # llama.cpp does not heed the window of this one
                some = [d[:5] for d in documents] if name == "phi3" else documents
                with open(self.path("ids.txt"), "w", encoding="ascii") as f:
                    f.writelines(" ".join(map(str, d)) + "\n" for d in some)
                llmq("eval", "--in", path, "--tokens", self.path("ids.txt"), "--logits", self.path("l.npy"), "--force", "--quiet")
                found = np.load(self.path("l.npy")).astype(np.float64)
                with Model(path) as model:
                    wanted = np.concatenate([model.log_probabilities(d) for d in some])
                found -= np.log(np.exp(found - found.max(1, keepdims=True)).sum(1, keepdims=True)) + found.max(1, keepdims=True)
                error = np.abs(found - wanted).max() / np.abs(wanted).max()
                lines.append(f"{name:<10} {error:.2e}")
                self.assertLess(error, 2e-3, name)  # its attention and some activations are in 16 bits
        print("\n  largest difference of log probabilities over the largest\n  " + "\n  ".join(lines), flush=True)


if __name__ == "__main__":
    unittest.main()
