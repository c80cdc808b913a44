"""Same bytes however it is run; importance weights follow the migration; statistics of every kind of file."""
import os
import shutil
import unittest

import numpy as np

from cli_support import LIGHT, read_bytes, write_bytes
from smooth_support import COUNT, F32, Recipe, SmoothTest, column_maxima, expected_scales, expected_tensors, first_of, oracle, read_safetensors, rms_of, save_model, smooth_models, write_stats

BIG = dict(heads=8, kv=2, hd=16, hidden=128, ffn=320, layers=2)


class SameBytes(SmoothTest):
    def make(self, **kwargs):
        self.model = smooth_models.llama(1, **BIG)
        self.before = save_model(self.path("m"), self.model, **kwargs)
        self.ex2 = self.model.statistics()
        write_stats(self.path("s"), self.ex2)

    def test_threads_memory_and_processors(self):
        self.make()
        for how in (["int4", "--group-size", "32"], ["mxfp4"], ["nvfp4"], ["int4:rule=mse,group=64", "--imatrix", "s"], ["int8", "--group-size", "tensor"], ["q4_0"]):
            for alpha in ("auto",) if LIGHT else ("0.5", "auto"):
                with self.subTest(how=how, alpha=alpha):
                    common = ["--smooth", "s", "--alpha", alpha, "--smooth-recipe-out", "r.json", "--force", "--format", *how]
                    self.convert("m", "a.llmq", *common, "--threads", "1")
                    want = [read_bytes(self.path(n)) for n in ("a.llmq", "r.json", "r.json.safetensors")]
                    for more, env in ((["--threads", "2"], {}), (["--threads", "7"], {}), (["--threads", "1", "--max-ram", "16M"], {}), (["--threads", "3"], {"LLMQ_KERNELS": "portable"})):
                        self.convert("m", "b.llmq", *common, *more, env=env)
                        got = [read_bytes(self.path(n)) for n in ("b.llmq", "r.json", "r.json.safetensors")]
                        self.assertEqual([a == b for a, b in zip(got, want)], [True] * 3, (more, env))

    def test_plain_checkpoints(self):
        self.make(dtype="BF16")
        common = ["--smooth", "s", "--format", "int4", "--group-size", "32", "--force"]
        self.smooth("m", "a", *common, "--threads", "1")
        for more in (["--threads", "2"], ["--threads", "7"], ["--max-ram", "16M"]):
            self.smooth("m", "b", *common, *more)
            self.assertEqual(read_bytes(self.path("a", "model.safetensors")), read_bytes(self.path("b", "model.safetensors")))

    def test_order_of_shards(self):
        self.make()
        common = ["--smooth", "s", "--alpha", "auto", "--format", "int4", "--group-size", "32", "--force"]
        self.convert("m", "a.llmq", *common, "--smooth-recipe-out", "r.json")
        names = list(self.model.tensors)
        np.random.default_rng(1).shuffle(names)
        for shards, order in ((3, list(self.model.tensors)), (2, names), (5, names[::-1])):
            shutil.rmtree(self.path("n"), ignore_errors=True)
            save_model(self.path("n"), self.model, shards=shards, tensors={n: self.model.tensors[n] for n in order})
            self.convert("n", "b.llmq", *common, "--smooth-recipe-out", "q.json")
            self.assertTrue(self.planes("a.llmq") == self.planes("b.llmq"))
            a, b = Recipe(self.path("r.json")), Recipe(self.path("q.json"))
            self.assertEqual(a.json["model"], b.json["model"])
            self.assertEqual(set(a.groups), set(b.groups))
            for ident in a.groups:
                np.testing.assert_array_equal(a.columns(ident), b.columns(ident))
                self.assertEqual(a.groups[ident]["loss"], b.groups[ident]["loss"])
            self.convert("n", "c.llmq", "--smooth-recipe", "r.json", "--format", "int4", "--group-size", "32", "--force")
            self.assertTrue(self.planes("a.llmq") == self.planes("c.llmq"))
        self.smooth("n", "d", *common, "--split-max-size", "100K")
        self.smooth("m", "e", *common)
        self.assertGreater(len([f for f in os.listdir(self.path("d")) if f.endswith(".safetensors")]), 2)
        self.assert_same_tensors(read_safetensors(self.path("d")), read_safetensors(self.path("e")))

    def test_every_way_to_a_scale(self):
        """Rules that read a matrix several times, and groups over several tiles, see the migrated weights each time: as from the folded file."""
        self.model = smooth_models.llama(1, heads=8, kv=2, hd=32, hidden=256, ffn=512, layers=1)
        self.before, self.ex2 = save_model(self.path("m"), self.model), self.model.statistics()
        write_stats(self.path("s"), self.ex2)
        common = ["--smooth", "s", "--alpha", "0.5", "--force"]
        self.smooth("m", "d", *common, "--format", "int4")
        formats = (["int8", "--group-size", "tensor"], ["fp8_e4m3", "--group-size", "128x128"], ["fp8_e4m3", "--group-size", "tensor"], ["int4:rule=minmax"], ["int4:rule=percentile"],
                    ["int4:rule=mse-hist", "--group-size", "tensor"], ["int4:rule=3sd", "--group-size", "channel"], ["int8:rule=kl-j", "--group-size", "tensor"], ["int4:rule=lsq"], ["int4:rule=pact"],
                    ["int4:rule=tqt", "--group-size", "tensor"], ["nvfp4"], ["nvfp4", "--nvfp4-scale", "tensor"], ["q4_k"], ["q6_k", "--scale-rule", "mse"], ["iq4_xs"], ["mx9"], ["bfpprime12"], ["q2_0"])
        for how in formats[::5] if LIGHT else formats:
            with self.subTest(how=how):
                self.convert("m", "a.llmq", *common, "--format", *how)
                self.convert("d", "b.llmq", "--force", "--format", *how)
                a, b = self.planes("a.llmq"), self.planes("b.llmq")
                self.assertEqual([k for k in a if a[k] != b[k]], [])
                self.assertEqual(set(a), set(b))

    # ---- importance

    def test_importance_follows(self):
        """--imatrix beside --smooth: the weights of errors are those of E[x^2] / s^2, which the folded model's own statistics would give."""
        self.make()
        for how in (["int4:rule=mse", "--group-size", "32"], ["q4_0", "--scale-rule", "mse"], ["nf4:rule=mse"]):
            with self.subTest(how=how):
                common = ["--smooth", "s", "--alpha", "0.5", "--force"]
                self.smooth("m", "d", *common, "--smooth-recipe-out", "r.json", "--format", *how)
                recipe, fields = Recipe(self.path("r.json")), {}
                for g in self.model.groups:
                    s = recipe.columns(g.id).astype(np.float64)
                    for side in g.consumers:
                        sums = np.array([float(F32(v * COUNT)) for v in self.ex2[(side.tensor, None)]])
                        fields[side.tensor + ".counts"] = ("I64", [1], [COUNT])
                        fields[side.tensor + ".in_sum2"] = ("F64", [1, g.n], list(sums / (s * s)))
                write_bytes(self.path("t"), oracle.write_safetensors(fields, {"format": "llmq-actstats", "version": "1"}))
                self.convert("m", "a.llmq", *common, "--imatrix", "s", "--format", *how)
                self.convert("d", "b.llmq", "--imatrix", "t", "--force", "--format", *how)
                self.convert("d", "c.llmq", "--imatrix", "s", "--force", "--format", *how)
                a, b, c = (self.planes(n) for n in ("a.llmq", "b.llmq", "c.llmq"))
                differ = sum(a[k] != b[k] for k in a)
                self.assertEqual(differ, 0)
                self.assertNotEqual([k for k in a if a[k] != c[k]], [])  # unscaled it would be wrong

    def test_weights_of_the_search_too(self):
        """A search judges by the scales that importance will choose."""
        self.make()
        found = {}
        for more in ([], ["--imatrix", "s"]):
            found[len(more)] = [g["loss"] for g in self.ok_json("plan", "--in", "m", "--smooth", "s", "--alpha", "0.5", *more, "--format", "int3:rule=mse", "--group-size", "64")["smoothing"]["groups"]]
        self.assertTrue(all(a != b for a, b in zip(found[0], found[2])))
        self.assertLess(sum(found[2]), sum(found[0]))

    # ---- files of other tools

    def test_maxima_of_smoothquant(self):
        """act_scales: absolute maxima by module name."""
        self.make()
        scales = {}
        for g in self.model.groups:
            for side in g.consumers:
                scales[side.tensor.removesuffix(".weight")] = [float(F32(v)) for v in np.sqrt(self.ex2[(side.tensor, None)])]
        write_bytes(self.path("a.pt"), oracle.write_act_scales(scales))
        self.smooth("m", "d", "--smooth", "a.pt", "--alpha", "0.5", "--smooth-recipe-out", "r.json", "--format", "int4", "--group-size", "32")
        recipe, tensors = Recipe(self.path("r.json")), {n: x for n, (_, x) in self.before.items()}
        self.assertEqual(len(recipe.groups), len(self.model.groups))
        for g in self.model.groups:
            want = expected_scales(g, np.array(scales[g.consumers[0].tensor.removesuffix(".weight")], F32), column_maxima(g, tensors), 0.5)
            np.testing.assert_allclose(recipe.s(g.id), want, rtol=2e-6)
        self.assert_same_tensors(read_safetensors(self.path("d")), expected_tensors(self.model.groups, self.before, recipe))
        found = self.ok_json("plan", "--in", "m", "--smooth", "a.pt", "--alpha", "auto", "--format", "int4", "--group-size", "32")["smoothing"]
        self.assertEqual(len(found["groups"]), len(self.model.groups))
        self.assertTrue(all(g["loss"] <= g["identity_loss"] for g in found["groups"] if g["loss"] is not None))

    def test_factors_of_awq(self):
        """An AWQ cache has the factors themselves: they are folded as they are; heads that share agree first."""
        self.make()
        rng, groups = np.random.default_rng(3), []
        for g in self.model.groups:
            values = rng.uniform(0.25, 4, g.n).astype(np.float16)
            groups.append((g.id, [c.tensor.removesuffix(".weight") for c in g.consumers], [float(v) for v in values]))
        write_bytes(self.path("awq.pt"), oracle.write_awq(groups))
        for how in (["--alpha", "auto"], []):
            self.smooth("m", "d", "--smooth", "awq.pt", *how, "--smooth-recipe-out", "r.json", "--format", "int4", "--group-size", "32", "--force")
            recipe = Recipe(self.path("r.json"))
            self.assertEqual(len(recipe.groups), len(self.model.groups))
            for g, (_, _, values) in zip(self.model.groups, groups):
                v = np.array(values)
                if g.share == (1, 1):
                    np.testing.assert_array_equal(recipe.s(g.id), v.astype(F32))
                else:
                    want = np.array([np.exp(np.log(v[g.owner == p]).mean()) for p in range(g.owner.max() + 1)])
                    np.testing.assert_allclose(first_of(recipe.s(g.id), g), want, rtol=1e-6)
                self.assertEqual((recipe.groups[g.id]["family"], recipe.groups[g.id]["alpha"], recipe.groups[g.id]["searched"]), ("given", None, False))
            after = read_safetensors(self.path("d"))
            self.assert_same_tensors(after, expected_tensors(self.model.groups, self.before, recipe))
            a, b = self.model.logits(), self.model.logits({n: x for n, (_, x) in after.items()})
            self.assertLess(np.abs(a - b).max(), 2e-6 * np.abs(a).max())
        self.assertIn("given", self.ok("plan", "--in", "m", "--smooth", "awq.pt", "--format", "int4").out)

    def test_names_of_llama_cpp_on_checkpoints(self):
        """An imatrix names tensors as GGUF does; a checkpoint finds them."""
        self.make()
        names = {"self_attn.q_proj": "attn_q", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.down_proj": "ffn_down"}
        entries, plain = [], {}
        for g in self.model.groups:
            name = g.consumers[0].tensor
            layer, rest = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
            entries.append((f"blk.{layer}.{names[rest]}.weight", 1, [float(F32(v)) for v in self.ex2[(name, None)]]))
            plain[(name, None)] = self.ex2[(name, None)]
        write_bytes(self.path("i.dat"), oracle.write_dat(entries, 1, "t"))
        write_stats(self.path("p"), plain)
        for f in ("i.dat", "p"):
            self.smooth("m", f + ".out", "--smooth", f, "--smooth-recipe-out", f + ".json", "--alpha", "0.5", "--format", "int4", "--group-size", "32")
        self.assertEqual(read_bytes(self.path("i.dat.json.safetensors")), read_bytes(self.path("p.json.safetensors")))


if __name__ == "__main__":
    unittest.main()
