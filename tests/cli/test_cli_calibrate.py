"""llmq calibrate: statistics of every distinct input against numpy, threads, resuming, the quantised stream, the model's own text, outputs, refusals.

Worked number: documents of 9, 2 and 14 tokens in windows of 8: windows of 8, 1, 2, 8, 6, in all 25 tokens, 20 without the first of each.
"""
import json
import os
import shutil
import signal
import struct
import unittest

import numpy as np

from cli_support import LIGHT, TINY, finish, read_bytes, start, wait_for, write_bytes
from test_cli_forward import ForwardTest, forward_oracle, gguf_reader
from test_cli_limits import MEBI, peak_rss

LENGTHS, SEQ = (9, 2, 14), 8


def statistics(path):
    """({tensor: array}, metadata) of a safetensors file."""
    data = read_bytes(path)
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    kinds = {"F32": np.float32, "F64": np.float64, "I64": np.int64, "U64": np.uint64, "BF16": np.uint16}
    out = {}
    for name, facts in header.items():
        if name != "__metadata__":
            begin, end = facts["data_offsets"]
            x = np.frombuffer(data[8 + n + begin:8 + n + end], kinds[facts["dtype"]]).reshape(facts["shape"])
            out[name] = (x.astype(np.uint32) << 16).view(np.float32) if facts["dtype"] == "BF16" else x
    return out, header["__metadata__"]


class CalibrateTest(ForwardTest):
    def windows(self, documents, seq=SEQ):
        return [d[i:i + seq] for d in documents for i in range(0, len(d), seq)]

    def seen(self, case, windows, skip=0):
        """{linear: rows that went in}, of all windows in their order; skip: tokens left out of each (not for experts)."""
        source = getattr(case, "plain", case)
        out = {}
        for window in windows:
            source.seen = {}
            source.logits(window)
            for name, rows in source.seen.items():
                out.setdefault(name, []).append(np.concatenate(rows)[skip:])
        source.seen = None
        return {name: np.concatenate(rows) for name, rows in out.items()}

    def calibrate(self, model, *options, out="s.safetensors"):
        self.ok("calibrate", "--in", model, "--tokens", "ids.txt", "--out", out, "--force", "--quiet", "--seq", SEQ, *options)
        return statistics(self.path(out)) if out.endswith("safetensors") else None


class Statistics(CalibrateTest):
    def check(self, name, fields, aliases, seen, gram=True):
        """One linear's input."""
        x = seen[name]
        key = aliases.get(name + ".weight", name + ".weight")
        get = lambda field: fields[f"{key}.{field}"][0].astype(np.float64)
        self.assertEqual(fields[key + ".counts"].tolist(), [len(x)], name)
        if len(x) == 0:
            return
        for field, wanted in (("in_sum2", (x * x).sum(0)), ("in_sum", x.sum(0)), ("in_sumabs", np.abs(x).sum(0)), ("in_absmax", np.abs(x).max(0)), ("in_min", x.min(0)), ("in_max", x.max(0))):
            np.testing.assert_allclose(get(field), wanted, rtol=2e-5, atol=2e-5 * np.abs(wanted).max(), err_msg=f"{name} {field}")
        if gram:
            wanted = (x.T @ x)[np.triu_indices(x.shape[1])]
            np.testing.assert_allclose(get("in_gram"), wanted, rtol=2e-5, atol=2e-5 * np.abs(wanted).max(), err_msg=f"{name} gram")
            hist, bins = fields[key + ".in_hist"], np.bincount(np.abs(x).astype(np.float32).view(np.uint32).ravel() >> 20, minlength=2048)
            self.assertEqual(int(hist.sum()), x.size)
            self.assertLess(int(np.abs(hist.astype(np.int64) - bins).sum()), 0.01 * x.size + 3, name)

    def test_every_input(self):
        documents = self.documents(LENGTHS)
        windows = self.windows(documents)
        for name in ("llama", "qwen2", "gemma3", "olmo2", "opt", "mixtral", "qwen2_moe"):
            with self.subTest(case=name):
                case = forward_oracle.case(name)
                fields, facts = self.calibrate(self.folder(case), "--collect", "hist,gram,sample=7")
                aliases, seen = json.loads(facts.get("alias", "{}")), self.seen(case, windows)
                for linear in seen:
                    self.check(linear, fields, aliases, seen)
                self.assertEqual((facts["format"], facts["version"], facts["names"], facts["seq_len"], facts["sequences"], facts["tokens"]), ("llmq-actstats", "1", "hf", "8", "5", "25"))
                named = {n.rsplit(".", 1)[0] for n in fields} | set(aliases)
                self.assertLessEqual(named, {n + ".weight" for n in seen} | {"lm_head.weight"})

    def test_fused_and_transposed(self):
        """Fused projections have one name; the same input in attention and feed forward has one entry."""
        documents = self.documents(LENGTHS)
        windows = self.windows(documents)
        case = forward_oracle.case("phi3")
        fields, facts = self.calibrate(self.folder(case))
        seen = self.seen(case, windows)
        p = "model.layers.1."
        for fused, one in (("self_attn.qkv_proj", "self_attn.q_proj"), ("mlp.gate_up_proj", "mlp.up_proj"), ("self_attn.o_proj", "self_attn.o_proj"), ("mlp.down_proj", "mlp.down_proj")):
            self.check(p + fused, fields, {}, {p + fused: seen[p + one]}, gram=False)
        case = forward_oracle.case("gpt2")
        fields, facts = self.calibrate(self.folder(case))
        seen = self.seen(case, windows)
        for linear in seen:
            self.check(linear, fields, {}, seen, gram=False)
        case = forward_oracle.case("falcon")
        fields, facts = self.calibrate(self.folder(case))
        seen, aliases = self.seen(case, windows), json.loads(facts["alias"])
        self.assertEqual(aliases["transformer.h.0.mlp.dense_h_to_4h.weight"], "transformer.h.0.self_attention.query_key_value.weight")
        for linear in seen:
            self.check(linear, fields, aliases, seen, gram=False)

    def test_stacks_of_experts(self):
        """GGUF: one entry of as many matrices, with their own counts."""
        case, keys, tensors = forward_oracle.gguf_cases()["mixtral"]
        gguf_reader.write(self.path("m.gguf"), keys, tensors)
        windows = self.windows(self.documents(LENGTHS))
        fields, facts = self.calibrate("m.gguf", "--collect", "gram")
        seen = self.seen(case, windows)
        self.assertEqual(facts["names"], "gguf")
        for word, linear in (("ffn_gate_exps", "w1"), ("ffn_down_exps", "w2")):
            counts = fields[f"blk.1.{word}.weight.counts"]
            for e in range(4):
                x = seen.get(f"model.layers.1.block_sparse_moe.experts.{e}.{linear}", np.zeros((0, 1)))
                self.assertEqual(counts[e], len(x))
                if len(x):
                    np.testing.assert_allclose(fields[f"blk.1.{word}.weight.in_sum2"][e], (x * x).sum(0), rtol=5e-5)
                    wanted = (x.T @ x)[np.triu_indices(x.shape[1])]
                    np.testing.assert_allclose(fields[f"blk.1.{word}.weight.in_gram"][e], wanted, rtol=2e-5, atol=2e-5 * np.abs(wanted).max())

    def test_samples_and_skipped_tokens(self):
        case = forward_oracle.case("llama")
        windows = self.windows(self.documents(LENGTHS))
        fields, facts = self.calibrate(self.folder(case), "--collect", "sample=6", "--skip-first", "1")
        seen = self.seen(case, windows, skip=1)
        name = "model.layers.2.mlp.down_proj"
        self.assertEqual((len(seen[name]), facts["tokens"], facts["skip_first"]), (20, "20", "1"))
        self.check(name, fields, {}, seen, gram=False)
        rows = [int((i + 0.5) * 20 / 6) for i in range(6)]
        np.testing.assert_allclose(fields[name + ".weight.in_sample"], seen[name][rows], rtol=4e-3, atol=1e-4)

    def test_limits_of_windows(self):
        """--samples takes the first windows."""
        case = forward_oracle.case("llama")
        windows = self.windows(self.documents(LENGTHS))[:3]
        fields, facts = self.calibrate(self.folder(case), "--samples", "3")
        self.assertEqual((facts["sequences"], facts["tokens"]), ("3", "11"))
        self.check("model.layers.2.self_attn.o_proj", fields, {}, self.seen(case, windows), gram=False)


class Runs(CalibrateTest):
    def test_threads_and_memory(self):
        """The same bytes for any number of threads; pieces of layers change the last bits alone."""
        case = forward_oracle.llama_family("wide", 5, moe=forward_oracle.Experts(3, 2, 24, True, "block_sparse_moe.gate", ["block_sparse_moe.experts.{}." + w for w in ("w1", "w3", "w2")]),
                                           architecture="MixtralForCausalLM", kind="mixtral", config=dict(num_local_experts=3, num_experts_per_tok=2))
        self.documents((50, 40, 64, 3), seed=8)
        folder = self.folder(case)
        all_bytes = set()
        for threads in (1, 2, 7):
            self.calibrate(folder, "--collect", "hist,gram,sample=5", "--threads", threads)
            all_bytes.add(read_bytes(self.path("s.safetensors")))
        self.assertEqual(len(all_bytes), 1)

    def test_pieces(self):
        """A model whose layers do not fit is cut; peak memory stays under --max-ram."""
        old = forward_oracle.FFN
        try:
            forward_oracle.FFN = 60000
            case = forward_oracle.llama_family("long", 6, layers=2)
        finally:
            forward_oracle.FFN = old
        documents = self.documents((40, 30), seed=9)
        folder = self.folder(case)
        whole, _ = self.calibrate(folder, "--seq", "64")
        cut, _ = self.calibrate(folder, "--seq", "64", "--max-ram", "20M")
        self.assertEqual(set(whole), set(cut))
        for name in whole:
            np.testing.assert_allclose(cut[name], whole[name], rtol=1e-4, atol=1e-4 * max(1e-9, float(np.abs(whole[name]).max())), err_msg=name)
        found = self.logits(folder, "--max-ram", "20M")
        self.check(found, case, documents)
        self.check_refusal(self.llmq("calibrate", "--in", folder, "--tokens", "ids.txt", "--out", "t.safetensors", "--max-ram", "8M", "--quiet"), 1, "calibrate", "--max-ram")
        peak, code, _, err = peak_rss(["calibrate", "--in", folder, "--tokens", "ids.txt", "--out", "u.safetensors", "--max-ram", "20M"], self.dir)
        self.assertEqual(code, 0, err)
        print(f"memory: calibrate --max-ram 20M: peak {peak / MEBI:.2f} MiB", flush=True)
        self.assertTrue(LIGHT or peak <= 20 * MEBI, "sanitizers need more")

    def test_resume(self):
        rng = np.random.default_rng(2)
        with open(self.path("ids.txt"), "w", encoding="ascii") as f:
            for _ in range(40):
                f.write(" ".join(map(str, [256] + rng.integers(97, 122, 400).tolist())) + "\n")
        args = ["calibrate", "--in", TINY, "--tokens", "ids.txt", "--samples", "40", "--collect", "gram,sample=9", "--progress", "none"]
        self.ok(*args, "--out", "whole.safetensors")
        self.assertEqual(sorted(os.listdir(self.dir)), ["ids.txt", "whole.safetensors"])
        process = start(*args, "--out", "s.safetensors", "--threads", "1", cwd=self.dir)
        state = self.path("s.safetensors.resume.safetensors")
        self.assertTrue(wait_for(lambda: os.path.exists(state), process), "no state was written")
        process.send_signal(signal.SIGINT)
        result = finish(process)
        self.assertEqual(result.code, 128 + signal.SIGINT, str(result))
        self.assertIn("--resume", result.err)
        self.assertTrue(os.path.exists(state) and os.path.exists(state + ".activations"))
        self.check_refusal(self.llmq(*args, "--out", "s.safetensors", "--resume", "--skip-first", "1"), 3, "calibrate", "another model, other tokens or other options")
        result = self.ok(*args, "--out", "s.safetensors", "--resume")
        self.assertIn("went on with layer", result.err)
        self.assertEqual(read_bytes(self.path("s.safetensors")), read_bytes(self.path("whole.safetensors")))
        self.assertEqual(sorted(os.listdir(self.dir)), ["ids.txt", "s.safetensors", "whole.safetensors"])

    def test_broken_state(self):
        case = forward_oracle.case("llama")
        self.documents(LENGTHS)
        folder = self.folder(case)
        write_bytes(self.path("s.safetensors.resume.safetensors"), b"x" * 100)
        result = self.llmq("calibrate", "--in", folder, "--tokens", "ids.txt", "--out", "s.safetensors", "--resume", "--quiet")
        self.assertEqual(result.code, 1, str(result))
        self.ok("calibrate", "--in", folder, "--tokens", "ids.txt", "--out", "s.safetensors", "--quiet")

    def test_sequential(self):
        """What a layer sees is what it sees in the converted model."""
        self.documents((30, 20), seed=4)
        with open(self.path("ids.txt"), "w", encoding="ascii") as f:
            f.write("256 " + " ".join(str(97 + i % 20) for i in range(60)) + "\n")
        for form in ("int4:group=32", "mxfp4", "nvfp4"):
            with self.subTest(format=form):
                self.ok("convert", "--in", TINY, "--format", form, "--out", "q.llmq", "--force", "--quiet", "--nvfp4-scale", "tensor")
                plain, _ = self.calibrate(TINY)
                wanted, _ = self.calibrate("q.llmq")
                found, facts = self.calibrate(TINY, "--sequential", form)
                self.assertEqual(facts["weights"], "sequential:" + form)
                name = "model.layers.{}.self_attn.q_proj.weight.in_sum2"
                np.testing.assert_array_equal(found[name.format(0)], plain[name.format(0)])
                for l in (1, 2):
                    np.testing.assert_allclose(found[name.format(l)], wanted[name.format(l)], rtol=1e-4)
                    self.assertGreater(np.abs(found[name.format(l)] / plain[name.format(l)] - 1).max(), 1e-3)

    def test_self(self):
        """The model's own text: the same for any number of threads and any memory, and text the model finds likely."""
        self.ok("calibrate", "--in", TINY, "--self", "10x40", "--out", "a.safetensors", "--quiet", "--threads", "1")
        self.ok("calibrate", "--in", TINY, "--self", "10x40", "--out", "b.safetensors", "--quiet", "--threads", "3", "--max-ram", "18M")
        self.assertEqual(read_bytes(self.path("a.safetensors")), read_bytes(self.path("b.safetensors")))
        self.assertEqual(statistics(self.path("a.safetensors"))[1]["tokens"], "400")

    def test_outputs(self):
        """imatrix files for llama.cpp, with its names; convert takes them."""
        self.documents(LENGTHS)
        with open(self.path("ids.txt"), "w", encoding="ascii") as f:
            f.write("256 " + " ".join(str(97 + i % 20) for i in range(60)) + "\n")
        fields, _ = self.calibrate(TINY)
        for out in ("i.gguf", "i.dat"):
            self.calibrate(TINY, out=out)
            self.ok("convert", "--in", TINY, "--format", "int4:rule=mse", "--imatrix", out, "--out", "q.llmq", "--force", "--quiet")
            self.ok("stats", "convert", out, "--out", "back.safetensors", "--force", "--quiet")
            back, _ = statistics(self.path("back.safetensors"))
            self.assertIn("blk.2.ffn_down.weight.in_sum2", back)
            key = "model.layers.2.mlp.down_proj.weight"
            rms = lambda f, k: f[k + ".in_sum2"][0] / f[k + ".counts"][0]
            np.testing.assert_allclose(rms(back, "blk.2.ffn_down.weight"), rms(fields, key), rtol=1e-6)
        report = self.ok_json("calibrate", "--in", TINY, "--tokens", "ids.txt", "--out", "j.safetensors", "--quiet")
        self.assertEqual((report["tokens"], report["windows"], report["entries"], report["missing"]), (61, 1, 12, 0))

    def test_works_with_smoothing(self):
        """Losses by Gram matrix and by samples take what calibrate writes."""
        with open(self.path("ids.txt"), "w", encoding="ascii") as f:
            f.write("256 " + " ".join(str(97 + i % 20) for i in range(200)) + "\n")
        self.calibrate(TINY, "--collect", "gram,sample=32,hist", "--seq", "512")
        for loss in ("diag", "gram", "sample"):
            self.ok("convert", "--in", TINY, "--format", "int4:group=32", "--smooth", "s.safetensors", "--alpha", "auto", "--smooth-loss", loss, "--alpha-step", "0.5", "--out", "q.llmq", "--force",
                    "--quiet")

    def test_refusals(self):
        case = forward_oracle.case("llama")
        self.documents(LENGTHS)
        folder = self.folder(case)
        base = ["calibrate", "--in", folder, "--out", "s.safetensors", "--quiet"]
        self.check_refusal(self.llmq(*base), 2, "calibrate", "--text", "--tokens", "--self")
        self.check_refusal(self.llmq(*base, "--tokens", "ids.txt", "--self", "2x4"), 2, "calibrate", "one of")
        self.check_refusal(self.llmq(*base[:3], "--tokens", "ids.txt"), 2, "calibrate", "--out")
        self.check_refusal(self.llmq(*base[:3], "--tokens", "ids.txt", "--out", "s.txt"), 2, "calibrate", ".safetensors")
        for text in ("2", "x4", "2x", "0x4", "2x1", "2x4x"):
            self.check_refusal(self.llmq(*base, "--self", text), 2, "calibrate", "NxL")
        for text in ("gramm", "sample", "sample=", "sample=0", "hist;gram"):
            self.check_refusal(self.llmq(*base, "--tokens", "ids.txt", "--collect", text), 2, "calibrate", "hist, gram and sample=N")
        write_bytes(self.path("bad.txt"), b"1 2 67\n")
        self.check_refusal(self.llmq(*base, "--tokens", "bad.txt"), 1, "calibrate", "67")
        write_bytes(self.path("t.txt"), b"hello")
        self.check_refusal(self.llmq(*base, "--text", "t.txt"), 1, "calibrate", "no tokenizer")
        self.check_refusal(self.llmq(*base, "--tokens", "ids.txt", "--skip-first", "20"), 2, "calibrate", "no token is left")
        self.check_refusal(self.llmq(*base, "--tokens", "ids.txt", "--sequential", "int4:group=tensor"), 1, "calibrate", "--sequential")
        self.ok(*base, "--tokens", "ids.txt")
        self.check_refusal(self.llmq(*base, "--tokens", "ids.txt"), 1, "calibrate", "--force")
        case.config["architectures"] = ["DeepseekV3ForCausalLM"]
        self.folder(case)
        result = self.llmq(*base, "--tokens", "ids.txt", "--force")
        self.assertEqual(result.code, 1, str(result))

    def test_a_tokenizer_of_another_model(self):
        """A token that the model does not have is refused before the pass."""
        folder = self.path("other")
        shutil.copytree(TINY, folder)
        with open(os.path.join(folder, "tokenizer.json"), encoding="utf-8") as file:
            tokenizer = json.load(file)
        tokenizer["model"]["vocab"]["e"] = 99999
        write_bytes(os.path.join(folder, "tokenizer.json"), json.dumps(tokenizer).encode())
        write_bytes(self.path("t.txt"), b"here")
        self.check_refusal(self.llmq("calibrate", "--in", folder, "--text", "t.txt", "--out", "s.safetensors"), 1, "calibrate", "99999")

    def test_damaged_models(self):
        """A missing or misshapen weight, and a configuration that contradicts itself, are refused by name."""
        self.documents(LENGTHS)
        for change, needle in ((lambda c: c.tensors.pop("model.layers.1.mlp.up_proj.weight"), "up_proj"),
                               (lambda c: c.tensors.update({"model.layers.1.self_attn.k_proj.weight": np.zeros((3, 32), np.float32)}), "k_proj"),
                               (lambda c: c.config.pop("rms_norm_eps"), "norm_eps"), (lambda c: c.config.update(hidden_act="mish"), "mish"),
                               (lambda c: c.config.update(rope_scaling=dict(type="ntk2", factor=2.0)), "ntk2"), (lambda c: c.config.update(num_attention_heads=3), "heads"),
                               (lambda c: c.config.update(rope_scaling=dict(type="linear")), "factor")):
            case = forward_oracle.case("llama")
            change(case)
            result = self.llmq("eval", "--in", self.folder(case), "--tokens", "ids.txt", "--quiet")
            self.assertEqual(result.code, 1, str(result))
            self.assertIn(needle, result.err)


if __name__ == "__main__":
    unittest.main()
