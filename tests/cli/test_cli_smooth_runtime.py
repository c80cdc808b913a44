"""Factors beside the weights: what cannot be folded is stored as a plane and undone by every reader."""
import json
import os
import unittest

import numpy as np

from cli_support import read_bytes, write_bytes
from smooth_support import F32, Recipe, SmoothTest, read_safetensors, reader, save_model, smooth_models, write_stats


def sqnr(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    return 10 * np.log10((x**2).sum() / max(((x - y)**2).sum(), 1e-300))


class Runtime(SmoothTest):
    def make(self, arch, extra=()):
        """A model with statistics of all groups, and of further tensors [(name, n_in)]."""
        model = smooth_models.ARCHITECTURES[arch]()
        before = save_model(self.path("m"), model)
        ex2 = model.statistics()
        for i, name in enumerate(extra):
            ex2[(name, None)] = 10.0**np.random.default_rng(i).uniform(-2, 2, before[name][1].shape[-1])
        write_stats(self.path("s"), ex2)
        return model, {n: x for n, (_, x) in before.items()}

    def tensors(self, name):
        return reader.read(self.path(name)).tensors

    def factors(self, tensor):
        return tensor.planes["input_scale"].fields.view("<f4").reshape(-1, tensor.cols) if "input_scale" in tensor.planes else None

    def dequantized(self, name):
        self.ok("dequantize", "--in", name, "--out", "back.safetensors", "--dtype", "f32", "--force", "--quiet")
        return {n: x for n, (_, x) in read_safetensors(self.path("back.safetensors")).items()}

    # ---- layers behind what does not commute with a scale

    def test_behind_gelu(self):
        for arch, down in (("starcoder2", "model.layers.{}.mlp.c_proj"), ("bloom", "h.{}.mlp.dense_4h_to_h"), ("opt-gelu", "model.decoder.layers.{}.fc2"), ("falcon-7b", "transformer.h.{}.mlp.dense_4h_to_h")):
            with self.subTest(arch=arch):
                names = [down.format(i) + ".weight" for i in range(2)]
                model, before = self.make(arch, names)
                self.convert("m", "a.llmq", "--format", "int8", "--group-size", "16", "--smooth", "s", "--alpha", "0.5", "--smooth-runtime", "--smooth-recipe-out", "r.json", "--force")
                recipe, found = Recipe(self.path("r.json")), self.tensors("a.llmq")
                stored = {g["id"]: g for g in recipe.groups.values() if g["fate"] == "stored"}
                self.assertEqual({i.removesuffix(".weight") for i in stored}, {n.removesuffix(".weight") for n in names})
                self.assertEqual({n for n, t in found.items() if self.factors(t) is not None}, set(names))
                for g in model.groups:
                    self.assertEqual(recipe.groups[g.id]["fate"], "folded")
                back = self.dequantized("a.llmq")
                for n in names:
                    group = next(g for g in stored.values() if g["consumers"] == [n])
                    s = recipe.factors[group["s"]]
                    np.testing.assert_array_equal(recipe.factors[group["columns"]], s)
                    np.testing.assert_array_equal(self.factors(found[n])[0], F32(1) / s)
                    self.assertGreater(s.max() / s.min(), 4.0)
                    self.assertGreater(sqnr(before[n], back[n]), 35.0)  # the weights as they were
                for n, t in found.items():
                    np.testing.assert_array_equal(t.decode().reshape(before[n].shape), back[n], n)
                a, b = model.logits(), model.logits(back)
                self.assertGreater(sqnr(a, b), 24.0)
                self.ok("verify", "a.llmq")
                self.convert("m", "b.llmq", "--format", "int8", "--group-size", "16", "--smooth-recipe", "r.json", "--force")
                self.assertEqual(read_bytes(self.path("a.llmq")), read_bytes(self.path("b.llmq")))

    # ---- nothing folded

    def test_folding_off(self):
        for arch in ("llama-gqa4", "gemma2", "phi3", "mixtral", "olmo2"):
            for how in (["int8", "--group-size", "16"], ["q8_0"], ["mxint8"]):
                with self.subTest(arch=arch, how=how):
                    model, before = self.make(arch)
                    self.convert("m", "a.llmq", "--smooth", "s", "--alpha", "0.5", "--folding", "off", "--smooth-recipe-out", "r.json", "--force", "--format", *how)
                    recipe, found, back = Recipe(self.path("r.json")), self.tensors("a.llmq"), self.dequantized("a.llmq")
                    self.assertEqual({g["fate"] for g in recipe.groups.values()}, {"stored"})
                    consumers = {s.tensor for g in model.groups if g.id in recipe.groups for s in g.consumers}
                    self.assertTrue(consumers)
                    for n, t in found.items():
                        factors = self.factors(t)
                        single = any(n == s.tensor for g in model.groups if g.on_request for s in g.consumers)  # stored on their own
                        self.assertEqual(factors is not None, (n in consumers or single) and t.format is not None, n)
                        if t.format is None:
                            np.testing.assert_array_equal(back[n], before[n], n)
                        else:
                            self.assertGreater(sqnr(before[n], back[n]), 28.0, n)
                    for g in model.groups:
                        if g.id in recipe.groups:
                            for side in g.consumers:
                                if self.factors(found[side.tensor]) is not None:
                                    np.testing.assert_array_equal(self.factors(found[side.tensor])[0], F32(1) / recipe.s(g.id), side.tensor)
                    if arch != "mixtral":  # whose router may choose another expert
                        self.assertGreater(sqnr(model.logits(), model.logits(back)), 15.0)
                    self.ok("verify", "a.llmq")

    def test_kept_consumers_stay_as_they_are(self):
        """Beside a kept matrix nothing can stand, and its inputs do not change: it keeps its bytes, and the others of its group have factors."""
        model, before = self.make("llama-gqa4")
        self.convert("m", "a.llmq", "--smooth", "s", "--alpha", "0.5", "--folding", "off", "--format", "int8", "--group-size", "16", "--keep", "*k_proj*", "--keep", "*.up_proj*")
        found, back = self.tensors("a.llmq"), self.dequantized("a.llmq")
        for n, t in found.items():
            if "_proj" in n:
                self.assertEqual(self.factors(t) is None, "k_proj" in n or "up_proj" in n, n)
            if t.format is None:
                np.testing.assert_array_equal(back[n], before[n])
        self.assertGreater(sqnr(model.logits(), model.logits(back)), 18.0)
        model, before = self.make("mixtral")  # the router
        self.convert("m", "a.llmq", "--smooth", "s", "--alpha", "auto", "--folding", "off", "--format", "int8", "--group-size", "16", "--force")
        back = self.dequantized("a.llmq")
        for n, x in before.items():
            self.assertGreater(sqnr(x, back[n]), 28.0, n)
        self.assertIsNone(self.tensors("a.llmq")["model.layers.0.block_sparse_moe.gate.weight"].format)

    def test_compare_sees_the_weights_as_they_were(self):
        model, before = self.make("llama-gqa4")
        self.convert("m", "a.llmq", "--smooth", "s", "--alpha", "0.5", "--folding", "off", "--format", "int8", "--group-size", "16")
        found = self.ok_json("compare", "--in", "a.llmq", "--against", "m")
        back = {n: t.decode().reshape(before[n].shape) for n, t in self.tensors("a.llmq").items()}
        entries = {t["name"]: t for t in found["tensors"]}
        for n, x in before.items():
            if self.factors(self.tensors("a.llmq")[n]) is not None:
                self.assertAlmostEqual(entries[n]["sqnr_db"], sqnr(x, back[n]), places=1)

    def test_statistics_decide_what_is_stored(self):
        """Tensors without statistics, and those kept, have no factors; a model of no known architecture can still have them."""
        model, before = self.make("starcoder2")
        result = self.ok_json("plan", "--in", "m", "--format", "int8", "--group-size", "16", "--smooth", "s", "--smooth-runtime")["smoothing"]
        self.assertEqual({g["fate"] for g in result["groups"]}, {"folded"})
        self.assertTrue(any("c_proj" in e["id"] and "statistics" in e["why"] for e in result["left"]), result["left"])
        with open(self.path("m", "config.json"), "w") as f:
            json.dump({"architectures": ["NobodyKnowsForCausalLM"], "model_type": "nobody", "hidden_size": 32}, f)
        self.refused(1, ["convert", "--in", "m", "--out", "a.llmq", "--format", "int8", "--smooth", "s"], "NobodyKnowsForCausalLM")
        self.convert("m", "a.llmq", "--format", "int8", "--group-size", "16", "--smooth", "s", "--folding", "off", "--alpha", "0.5")
        found, back = self.tensors("a.llmq"), self.dequantized("a.llmq")
        stored = {n for n, t in found.items() if self.factors(t) is not None}
        self.assertIn("model.layers.0.self_attn.q_proj.weight", stored)
        for n in stored:
            self.assertGreater(sqnr(before[n], back[n]), 28.0, n)

    def test_transposed_layers_are_left(self):
        """Conv1D has its inputs along the rows: no plane of inputs, and no number that is taken for one."""
        model, before = self.make("gpt2", [])
        ex2 = model.statistics()
        for i in range(2):
            ex2[(f"h.{i}.mlp.c_proj.weight", None)] = np.full(before[f"h.{i}.mlp.c_proj.weight"].shape[0], 2.0)
        write_stats(self.path("s"), ex2)
        self.convert("m", "a.llmq", "--format", "int8", "--group-size", "16", "--smooth", "s", "--alpha", "0.5", "--smooth-runtime")
        found, back = self.tensors("a.llmq"), self.dequantized("a.llmq")
        self.assertEqual([n for n, t in found.items() if self.factors(t) is not None], [])
        self.assertGreater(sqnr(model.logits(), model.logits(back)), 25.0)
        model, before = self.make("gpt-oss", [])
        ex2 = model.statistics()
        ex2[("model.layers.0.mlp.experts.down_proj", None)] = np.full(20, 2.0)
        write_stats(self.path("s"), ex2)
        self.convert("m", "b.llmq", "--format", "int8", "--group-size", "16", "--smooth", "s", "--alpha", "0.5", "--smooth-runtime")
        self.assertEqual([n for n, t in self.tensors("b.llmq").items() if "experts" in n and self.factors(t) is not None], [])

    def test_nothing_can_be_stored_elsewhere(self):
        model, before = self.make("llama-gqa4")
        self.refused(2, ["smooth", "--in", "m", "--out", "d", "--smooth", "s", "--folding", "off"], "--folding off", ".llmq")
        self.refused(2, ["smooth", "--in", "m", "--out", "d", "--smooth", "s", "--smooth-runtime"], "--smooth-runtime")
        self.convert("m", "a.llmq", "--format", "int8", "--group-size", "16", "--smooth", "s", "--folding", "off", "--smooth-recipe-out", "r.json")
        self.refused(1, ["smooth", "--in", "m", "--out", "d", "--smooth-recipe", "r.json"], "beside the weights", ".llmq")

    def test_codes_with_factors_move(self):
        """An .llmq file with factors read again: quantised anew from the weights as they were."""
        model, before = self.make("llama-gqa4")
        self.convert("m", "a.llmq", "--smooth", "s", "--alpha", "0.5", "--folding", "off", "--format", "int8", "--group-size", "16")
        self.refused(1, ["convert", "--in", "a.llmq", "--out", "b.llmq", "--format", "int8"], "already quantised")
        self.convert("a.llmq", "c.llmq", "--format", "int6", "--group-size", "16", "--allow-requantize")
        found = self.tensors("c.llmq")
        for n, t in found.items():
            self.assertIsNone(self.factors(t))
            self.assertGreater(sqnr(before[n], t.decode().reshape(before[n].shape)), 25.0, n)


if __name__ == "__main__":
    unittest.main()
