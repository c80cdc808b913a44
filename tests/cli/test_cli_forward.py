"""llmq eval and calibrate: logits and statistics against the numpy oracle, on random tiny models of every architecture, in the forms of checkpoints and GGUF.

Worked number: binary32 against binary64 on models of 3 layers: about 1e-6 of the largest logit; 2e-5 is accepted.
"""
import json
import os
import sys
import unittest

import numpy as np

from cli_support import ROOT, TINY, CliTest, write_model

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


class Eval(ForwardTest):
    def nll(self, case, documents, seq):
        """Sum over scored tokens, and their number."""
        total, n = 0.0, 0
        for d in documents:
            for at in range(0, len(d), seq):
                window = d[at:at + seq]
                if len(window) < 2:
                    continue
                x = case.logits(window)[:-1]
                x = x - x.max(1, keepdims=True)
                total -= (x[np.arange(len(window) - 1), window[1:]] - np.log(np.exp(x).sum(1))).sum()
                n += len(window) - 1
        return total, n

    def test_perplexity_and_threads(self):
        case = forward_oracle.case("qwen3")
        folder, documents = self.folder(case), self.documents((30, 17, 1, 25), seed=6)
        for seq in (512, 8, 2):
            with self.subTest(seq=seq):
                total, n = self.nll(case, documents, seq)
                found = [self.ok("eval", "--in", folder, "--tokens", "ids.txt", "--json", "--quiet", "--seq", seq, "--threads", t).out for t in (1, 2, 5)]
                self.assertEqual(len(set(found)), 1)
                result = json.loads(found[0])
                self.assertEqual(result["tokens"], n)
                self.assertAlmostEqual(np.log(result["perplexity"]), total / n, delta=1e-5)
                self.assertNotIn("bits_per_byte", result)
                self.assertNotIn("kl_mean", result)

    def test_npy(self):
        case = forward_oracle.case("llama")
        folder, documents = self.folder(case), self.documents((12, 12))
        one = self.ok_json("eval", "--in", folder, "--tokens", "ids.txt", "--quiet")
        np.save(self.path("ids.npy"), np.array(documents, np.int64))
        self.assertEqual(self.ok_json("eval", "--in", folder, "--tokens", "ids.npy", "--quiet"), one)

    def test_against(self):
        case, other = forward_oracle.case("llama"), forward_oracle.llama_family("llama", 1)
        rng = np.random.default_rng(3)
        for x in other.tensors.values():
            x += (0.02 * rng.standard_normal(x.shape)).astype(np.float32)
        documents = self.documents((20, 30), seed=2)
        a, b = (np.concatenate([c.logits(d)[:-1] for d in documents]) for c in (case, other))
        log = lambda x: x - x.max(1, keepdims=True) - np.log(np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True))
        kl = (np.exp(log(a)) * (log(a) - log(b))).sum(1)
        result = self.ok_json("eval", "--in", self.folder(other, "b"), "--against", self.folder(case, "a"), "--tokens", "ids.txt", "--quiet")
        self.assertAlmostEqual(result["kl_mean"], kl.mean(), delta=1e-5)
        self.assertAlmostEqual(result["kl_p99"], np.sort(kl)[int(np.ceil(0.99 * len(kl))) - 1], delta=1e-5)
        self.assertAlmostEqual(result["top1"], (a.argmax(1) == b.argmax(1)).mean(), places=9)
        same = self.ok_json("eval", "--in", "a", "--against", "a", "--tokens", "ids.txt", "--quiet")
        self.assertEqual((same["kl_mean"], same["kl_p99"], same["top1"], same["perplexity"]), (0, 0, 1, same["perplexity_against"]))

    def test_text_and_containers(self):
        """The bundled model on its text: every byte a token behind <s>; what convert writes is judged the same way."""
        with open(os.path.join(ROOT, "tests", "data", "tiny-text.txt"), "rb") as f:
            text = f.read()[:900]
        with open(self.path("t.txt"), "wb") as f:
            f.write(text)
        with open(self.path("ids.txt"), "w", encoding="ascii") as f:
            f.write(" ".join(map(str, [256, *text])) + "\n")
        by_text = self.ok_json("eval", "--in", TINY, "--text", "t.txt", "--quiet")
        by_ids = self.ok_json("eval", "--in", TINY, "--tokens", "ids.txt", "--quiet")
        self.assertEqual(by_text["perplexity"], by_ids["perplexity"])
        self.assertEqual(by_text["tokens"], 899)  # 901 ids in windows of 512 and 389
        self.assertAlmostEqual(by_text["bits_per_byte"], np.log2(by_text["perplexity"]), delta=1e-6)
        self.ok("convert", "--in", TINY, "--format", "int8", "--out", "q.llmq", "--quiet")
        self.ok("dequantize", "--in", "q.llmq", "--dtype", "f32", "--out", "q.safetensors", "--quiet")
        quantised = self.ok_json("eval", "--in", "q.llmq", "--against", TINY, "--text", "t.txt", "--quiet")
        self.assertGreater(quantised["kl_mean"], 0)
        self.assertLess(quantised["kl_mean"], 1e-3)
        self.assertEqual(quantised["perplexity_against"], by_text["perplexity"])
        self.assertIn("perplexity", self.ok("eval", "--in", "q.llmq", "--text", "t.txt", "--quiet").out)

    def test_refusals(self):
        case = forward_oracle.case("llama")
        folder = self.folder(case)
        self.documents()
        self.check_refusal(self.llmq("eval", "--tokens", "ids.txt"), 2, "eval", "--in")
        self.check_refusal(self.llmq("eval", "--in", folder), 2, "eval", "--text", "--tokens")
        self.check_refusal(self.llmq("eval", "--in", folder, "--tokens", "ids.txt", "--text", "ids.txt"), 2, "eval", "either")
        self.check_refusal(self.llmq("eval", "--in", folder, "--tokens", "nowhere.txt"), 1, "eval", "nowhere.txt")
        self.check_refusal(self.llmq("eval", "--in", folder, "--text", "ids.txt"), 1, "eval", "no tokenizer")
        self.check_refusal(self.llmq("eval", "--in", folder, "--tokens", "ids.txt", "--seq", "1"), 2, "eval", "--seq")
        self.check_refusal(self.llmq("eval", "--in", folder, "--against", TINY, "--tokens", "ids.txt", "--quiet"), 2, "eval", "67 and 258")
        with open(self.path("one.txt"), "w", encoding="ascii") as f:
            f.write("3\n4\n")
        self.check_refusal(self.llmq("eval", "--in", folder, "--tokens", "one.txt", "--quiet"), 1, "eval", "two tokens")
        self.ok("eval", "--in", folder, "--tokens", "ids.txt", "--quiet", "--logits", "l.npy")
        self.check_refusal(self.llmq("eval", "--in", folder, "--tokens", "ids.txt", "--quiet", "--logits", "l.npy"), 1, "eval", "--force")
        gpt2 = self.folder(forward_oracle.case("gpt2"), "gpt2")
        with open(self.path("long.txt"), "w", encoding="ascii") as f:
            f.write(" ".join("1" for _ in range(70)) + "\n")
        self.check_refusal(self.llmq("eval", "--in", gpt2, "--tokens", "long.txt", "--quiet"), 2, "eval", "64 positions")
        self.ok("eval", "--in", gpt2, "--tokens", "long.txt", "--quiet", "--seq", "64")


if __name__ == "__main__":
    unittest.main()
