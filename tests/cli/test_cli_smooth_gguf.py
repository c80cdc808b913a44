"""Migration of GGUF files: the same groups under their names and shapes, in and out."""
import unittest

import numpy as np

from cli_support import read_bytes, write_bytes
from gguf_support import gguf_reader
from smooth_support import COUNT, F32, Recipe, SmoothTest, expected_tensors, rounded, smooth_models, write_stats
import smooth_gguf
import stats_oracle as oracle

TARGET = ["--format", "int4", "--group-size", "channel"]


class GgufModels(SmoothTest):
    def make(self, name, kind="F32"):
        g = smooth_gguf.of(name)
        before = {}
        rows = []
        for n, x in g.tensors.items():
            dtype = kind if x.ndim > 1 and "norm" not in n else "F32"
            rows.append((n, dtype, x.shape, x))
            before[n] = (dtype, rounded(dtype, x).reshape(x.shape))
        gguf_reader.write(self.path("m.gguf"), g.keys, rows)
        write_stats(self.path("s"), g.statistics())
        return g, before

    def read(self, name):
        return {n: (i.type, i.decode().reshape(i.dims)) for n, i in gguf_reader.read(self.path(name)).tensors.items()}

    def change(self, g, before, after):
        a, b = (g.model.logits(g.back({n: x for n, (_, x) in t.items()})) for t in (before, after))
        return np.abs(a - b).max() / np.abs(a).max()

    def one(self, name, kind="F32", alpha="0.5"):
        g, before = self.make(name, kind)
        self.smooth("m.gguf", "o.gguf", "--smooth", "s", "--alpha", alpha, "--smooth-recipe-out", "r.json", "--force", *TARGET)
        after, recipe = self.read("o.gguf"), Recipe(self.path("r.json"))
        want = {x.id for x in g.groups if alpha == "auto" or not x.on_request}
        self.assertEqual(set(recipe.groups), want)
        for x in g.groups:
            if x.id in recipe.groups:
                self.assertEqual(set(recipe.groups[x.id]["consumers"]), {s.tensor for s in x.consumers}, x.id)
                self.assertEqual(set(recipe.groups[x.id]["absorb"]), {s.tensor for s in x.producers}, x.id)
        self.assert_same_tensors(after, expected_tensors(g.groups, before, recipe), name)
        keys = [gguf_reader.read(self.path(n)).keys for n in ("m.gguf", "o.gguf")]
        self.assertEqual({k: v.raw for k, v in keys[0].items()}, {k: v.raw for k, v in keys[1].items()})
        self.assertLess(self.change(g, before, after), 2e-6 if kind == "F32" else 0.02)
        return g, before, after, recipe

    def test_every_architecture(self):
        for name in smooth_gguf.ARCHS:
            with self.subTest(name=name):
                self.one(name)

    def test_norms_before_stacks_of_experts(self):
        for name in ("mixtral", "qwen2-moe", "qwen3-moe", "deepseek-v3", "gpt-oss"):
            with self.subTest(name=name):
                self.one(name, alpha="auto")

    def test_half_precision(self):
        for kind in ("F16", "BF16"):
            for name in ("llama-gqa4", "gemma2", "bloom", "mixtral"):
                with self.subTest(name=name, kind=kind):
                    self.one(name, kind) if kind == "F16" else self.make(name, kind)

    def test_blocks_are_those_of_the_folded_file(self):
        """convert --smooth writes what smooth and convert write one after the other."""
        model = smooth_models.llama(1, heads=8, kv=2, hd=8, hidden=64, ffn=96)
        smooth_models.ARCHITECTURES["x"], smooth_gguf.ARCHS["x"] = (lambda: model), "llama"
        self.addCleanup(lambda: (smooth_models.ARCHITECTURES.pop("x"), smooth_gguf.ARCHS.pop("x")))
        g, before = self.make("x")
        for how in ("q4_0", "q8_0", "q5_1", "iq4_nl", "mxfp4"):
            with self.subTest(how=how):
                self.convert("m.gguf", "a.gguf", "--format", how, "--smooth", "s", "--alpha", "0.5", "--force")
                self.smooth("m.gguf", "d.gguf", "--format", how, "--smooth", "s", "--alpha", "0.5", "--force")
                self.convert("d.gguf", "b.gguf", "--format", how, "--force")
                a, b = (gguf_reader.read(self.path(n)).tensors for n in ("a.gguf", "b.gguf"))
                self.assertEqual({n: (t.type, t.data) for n, t in a.items()}, {n: (t.type, t.data) for n, t in b.items()})
                self.convert("m.gguf", "c.gguf", "--format", how, "--force")
                self.assertNotEqual(a["blk.0.attn_q.weight"].data, gguf_reader.read(self.path("c.gguf")).tensors["blk.0.attn_q.weight"].data)

    def test_a_format_that_gguf_cannot_hold(self):
        """Nothing is quantised, so the format that alphas are meant for need not be one of GGUF; nobody says it is a dequantisation."""
        self.make("llama-gqa4")
        result = self.ok("smooth", "--in", "m.gguf", "--smooth", "s", "--format", "int4", "--group-size", "16", "--out", "o.gguf", "--progress", "plain")
        self.assertIn("folded", result.out)
        self.assertNotIn("dequantize", result.err)

    def test_statistics_of_llama_cpp(self):
        """An imatrix, both kinds, gives the factors of llmq's own file; its names serve Hugging Face models too."""
        g, before = self.make("llama-gqa4")
        ex2 = g.statistics()
        write_bytes(self.path("i.gguf"), oracle.write_gguf({**{n + ".in_sum2": ([len(v), 1], [float(F32(x * COUNT)) for x in v]) for (n, _), v in ex2.items()},
                                                            **{n + ".counts": ([1, 1], [float(COUNT)]) for n, _ in ex2}}, ["t"], 1, 512))
        write_bytes(self.path("i.dat"), oracle.write_dat([(n, 1, [float(F32(x)) for x in v]) for (n, _), v in ex2.items()], 1, "t"))
        args = ["--alpha", "0.5", "--force", *TARGET]
        self.smooth("m.gguf", "a.gguf", "--smooth", "s", "--smooth-recipe-out", "a.json", *args)
        for f in ("i.gguf", "i.dat"):
            self.smooth("m.gguf", "b.gguf", "--smooth", f, "--smooth-recipe-out", "b.json", *args)
            self.assertEqual(read_bytes(self.path("a.json.safetensors")), read_bytes(self.path("b.json.safetensors")))
            self.assertEqual(read_bytes(self.path("a.gguf")), read_bytes(self.path("b.gguf")))

    def test_experts_of_a_stack_have_their_own_factors(self):
        g, before, after, recipe = self.one("mixtral")
        own = [recipe.s(f"blk.0.ffn_up_exps[{e}]") for e in range(3)]
        self.assertFalse(np.array_equal(own[0], own[1]))
        stats = {k: v for k, v in g.statistics().items() if k != ("blk.0.ffn_down_exps.weight", 1)}
        write_stats(self.path("s"), stats)  # expert 1 saw no token
        self.smooth("m.gguf", "p.gguf", "--smooth", "s", "--alpha", "0.5", "--smooth-recipe-out", "q.json", *TARGET)
        recipe, after = Recipe(self.path("q.json")), self.read("p.gguf")
        self.assertIn("no token", recipe.unfolded["blk.0.ffn_up_exps[1]"])
        self.assert_same_tensors(after, expected_tensors(g.groups, before, recipe))
        np.testing.assert_array_equal(after["blk.0.ffn_up_exps.weight"][1][1], before["blk.0.ffn_up_exps.weight"][1][1])

    def test_the_other_form_of_latent_attention(self):
        """attn_k_b [heads, rank, nope] and attn_v_b [heads, v, rank] instead of attn_kv_b."""
        g, before = self.make("deepseek-v2")
        c = g.model.config
        n, nope, vd = c["num_attention_heads"], c["qk_nope_head_dim"], c["v_head_dim"]
        rows = []
        for name, x in g.tensors.items():
            if "attn_kv_b" not in name:
                rows.append((name, "F32", x.shape, x))
                continue
            y = x.reshape(n, nope + vd, -1)
            k, v = np.ascontiguousarray(y[:, :nope].transpose(0, 2, 1)), np.ascontiguousarray(y[:, nope:])
            rows += [(name.replace("kv_b", "k_b"), "F32", k.shape, k), (name.replace("kv_b", "v_b"), "F32", v.shape, v)]
        gguf_reader.write(self.path("m.gguf"), g.keys, rows)
        ex2 = {(k[0].replace("kv_b", "v_b"), k[1]): v for k, v in g.statistics().items()}
        write_stats(self.path("s"), {k if "v_b" not in k[0] else (k[0], m): v for k, v in ex2.items() for m in (range(n) if "v_b" in k[0] else (0,))})
        result = self.llmq("smooth", "--in", "m.gguf", "--out", "o.gguf", "--smooth", "s", "--alpha", "0.5", "--smooth-recipe-out", "r.json", *TARGET)
        self.assertEqual(result.code, 0, str(result))
        after = self.read("o.gguf")
        joined = {}
        for name in g.tensors:
            if "attn_kv_b" not in name:
                joined[name] = after[name]
                continue
            k, v = after[name.replace("kv_b", "k_b")][1], after[name.replace("kv_b", "v_b")][1]
            joined[name] = ("F32", np.concatenate([k.transpose(0, 2, 1), v], 1).reshape(g.tensors[name].shape))
        self.assertLess(self.change(g, before, joined), 2e-6)
        recipe = Recipe(self.path("r.json"))
        self.assertIn("blk.0.attn_norm", recipe.groups)
        self.assertTrue({"blk.0.attn_q_a_norm", "blk.0.attn_kv_a_norm", "blk.0.attn_v_b"} <= set(recipe.groups), set(recipe.groups))

    def test_quantised_files_are_refused(self):
        g, before = self.make("llama-gqa4")
        self.convert("m.gguf", "q.gguf", "--format", "q8_0")
        for how in (["smooth", "--in", "q.gguf", "--out", "x.gguf", "--smooth", "s"], ["convert", "--in", "q.gguf", "--out", "x.gguf", "--format", "q8_0", "--smooth", "s"]):
            result = self.llmq(*how)
            self.assertNotEqual(result.code, 0)
            self.assertIn("quantised already", result.err)
        self.refused(2, ["convert", "--in", "m.gguf", "--out", "x.gguf", "--format", "q8_0", "--smooth", "s", "--smooth-runtime"], ".llmq")
        self.refused(2, ["convert", "--in", "m.gguf", "--out", "x.gguf", "--format", "q8_0", "--smooth", "s", "--folding", "off"], ".llmq")


class Models(unittest.TestCase):
    def test_back(self):
        for name in smooth_gguf.ARCHS:
            g = smooth_gguf.of(name)
            a, b = g.model.logits(), g.model.logits(g.back(g.tensors))
            assert np.abs(a - b).max() < 1e-5 * np.abs(a).max(), name  # 1 + w - 1 is rounded


if __name__ == "__main__":
    unittest.main()
