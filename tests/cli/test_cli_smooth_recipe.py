"""Recipes: the same migration again to the same bytes, its inverse, the fields of other tools, and every damage refused."""
import json
import os
import shutil
import unittest

import numpy as np

from cli_support import ITEM_NBYTES, read_bytes, write_bytes, write_model
from smooth_support import F32, Recipe, SmoothTest, column_maxima, oracle, read_safetensors, rounded, save_model, smooth_models, write_stats

TARGET = ["--format", "int4", "--group-size", "16"]


def ulps(a, b, dtype):
    """Distance in units of the last place of the stored type."""
    a, b = (np.ascontiguousarray(x, F32).view(np.int32).astype(np.int64) for x in (a, b))
    a, b = (np.where(x < 0, -(x & 0x7FFFFFFF), x) for x in (a, b))
    return np.abs(a - b) >> {"F32": 0, "BF16": 16}[dtype]


class Recipes(SmoothTest):
    def make(self, arch="llama-gqa4", dtype="F32", name="m"):
        model = smooth_models.ARCHITECTURES[arch]()
        before = save_model(self.path(name), model, dtype)
        write_stats(self.path(name + ".stats"), model.statistics())
        return model, before

    def write_scales(self, path, factors):
        write_model(path, {k: ("F32", x.shape, x) for k, x in factors.items()})

    # ---- replay

    def test_replay_gives_the_same_bytes(self):
        for arch, alpha in (("llama-gqa4", "0.5"), ("gemma3", "auto"), ("opt", "0.5"), ("mixtral", "auto")):
            for dtype in ("F32", "BF16"):
                with self.subTest(arch=arch, dtype=dtype):
                    self.make(arch, dtype)
                    common = [*TARGET, "--force"]
                    self.convert("m", "a.llmq", "--smooth", "m.stats", "--alpha", alpha, "--smooth-recipe-out", "r.json", *common)
                    self.convert("m", "b.llmq", "--smooth-recipe", "r.json", *common)
                    self.assertTrue(self.planes("a.llmq") == self.planes("b.llmq"))
                    self.assertEqual(len(read_bytes(self.path("a.llmq"))), len(read_bytes(self.path("b.llmq"))))
                    self.assertEqual(read_bytes(self.path("a.llmq")), read_bytes(self.path("b.llmq")))
                    self.smooth("m", "d", "--smooth", "m.stats", "--alpha", alpha, "--smooth-recipe-out", "q.json", *common)
                    self.smooth("m", "e", "--smooth-recipe", "q.json", "--smooth-recipe-out", "p.json", "--force")
                    self.assertEqual(read_bytes(self.path("d", "model.safetensors")), read_bytes(self.path("e", "model.safetensors")))
                    self.assertEqual(read_bytes(self.path("r.json.safetensors")), read_bytes(self.path("q.json.safetensors")))
                    self.assertEqual(set(Recipe(self.path("p.json")).groups), set(Recipe(self.path("q.json")).groups))
                    for ident, group in Recipe(self.path("q.json")).groups.items():
                        np.testing.assert_array_equal(Recipe(self.path("p.json")).columns(ident), Recipe(self.path("q.json")).columns(ident))

    def test_a_recipe_moves_with_its_scales(self):
        self.make()
        self.convert("m", "a.llmq", "--smooth", "m.stats", "--smooth-recipe-out", "r.json", *TARGET)
        os.mkdir(self.path("x"))
        for n in ("r.json", "r.json.safetensors"):
            os.rename(self.path(n), self.path("x", n))
        self.convert("m", "b.llmq", "--smooth-recipe", "x/r.json", *TARGET)
        self.assertEqual(read_bytes(self.path("a.llmq")), read_bytes(self.path("b.llmq")))
        self.convert("m", "c.llmq", "--smooth-recipe", self.path("x", "r.json"), *TARGET)
        self.assertEqual(read_bytes(self.path("a.llmq")), read_bytes(self.path("c.llmq")))

    def test_plan_replays_what_convert_did(self):
        self.make()
        self.convert("m", "a.llmq", "--smooth", "m.stats", "--alpha", "auto", "--smooth-recipe-out", "r.json", *TARGET)
        a, b = (self.ok_json("plan", "--in", "m", *how, *TARGET)["smoothing"]["groups"] for how in (["--smooth", "m.stats", "--alpha", "auto"], ["--smooth-recipe", "r.json"]))
        self.assertEqual([(g["id"], g["alpha"], g["loss"], g["identity_loss"]) for g in a], [(g["id"], g["alpha"], g["loss"], g["identity_loss"]) for g in b])

    def test_smooth_then_convert_is_convert(self):
        """F32 models: nothing is rounded between the two, so the codes are the same."""
        for arch in ("llama-gqa4", "gemma2", "phi3", "opt", "gpt2", "deepseek-v2", "gpt-oss"):
            for how in (["int4", "--group-size", "16"], ["mxfp4"], ["nvfp4"], ["int8:rule=mse", "--group-size", "channel"], ["q8_0"]):
                with self.subTest(arch=arch, how=how):
                    self.make(arch)
                    common = ["--smooth", "m.stats", "--alpha", "0.5", "--force", "--format", *how]
                    self.convert("m", "a.llmq", *common)
                    self.smooth("m", "d", *common)
                    self.convert("d", "b.llmq", "--force", "--format", *how)
                    a, b = self.planes("a.llmq"), self.planes("b.llmq")
                    self.assertEqual([k for k in a if a[k] != b[k]], [])
                    self.assertEqual(set(a), set(b))

    # ---- inverse

    def test_inverse(self):
        for arch in ("llama-gqa4", "gemma", "gemma3", "phi3", "opt", "gpt2", "bloom", "deepseek-v2", "gpt-oss"):
            for dtype in ("F32", "BF16"):
                with self.subTest(arch=arch, dtype=dtype):
                    model, before = self.make(arch, dtype)
                    self.smooth("m", "d", "--smooth", "m.stats", "--alpha", "0.5", "--smooth-recipe-out", "r.json", "--force", *TARGET)
                    self.smooth("d", "e", "--inverse", "r.json", "--force")
                    after, recipe = read_safetensors(self.path("e")), Recipe(self.path("r.json"))
                    n_groups = {}
                    for g in model.groups:
                        for t in {s.tensor for s in g.producers + g.consumers} if g.id in recipe.groups else ():
                            n_groups[t] = n_groups.get(t, 0) + 1
                    for name, (kind, x) in before.items():
                        self.assertEqual(after[name][0], kind)
                        n = n_groups.get(name, 0)
                        if any(g.kind == "N1" and name == g.producers[0].tensor for g in model.groups):
                            np.testing.assert_allclose(1 + after[name][1], 1 + x, rtol=2.0**(-22 if dtype == "F32" else -7), err_msg=name)
                        elif n == 0:
                            np.testing.assert_array_equal(after[name][1], x, name)
                        else:
                            # binary32: w s, 1 / s and their product are rounded once each
                            self.assertLessEqual(ulps(after[name][1], x, kind).max(), n * (3 if dtype == "F32" else 1), f"{name}, {n} groups")

    def powers_of_two(self, arch, dtype, exponents):
        """A model folded by a recipe whose factors are powers of two: (before, recipe path)."""
        model, before = self.make(arch, dtype)
        self.smooth("m", "d", "--smooth", "m.stats", "--alpha", "0.5", "--smooth-recipe-out", "r.json", "--force", *TARGET)
        factors = Recipe(self.path("r.json")).factors
        self.write_scales(self.path("r.json.safetensors"), {k: np.exp2(np.clip(np.round(np.log2(x)), *exponents)).astype(F32) for k, x in factors.items()})
        return model, before

    def test_inverse_of_powers_of_two_is_exact(self):
        for arch in ("llama-gqa4", "phi3", "opt", "gpt2", "bloom", "falcon-40b", "deepseek-v3"):
            for dtype in ("F32", "BF16"):
                with self.subTest(arch=arch, dtype=dtype):
                    model, before = self.powers_of_two(arch, dtype, (-6, 6))
                    self.smooth("m", "d", "--smooth-recipe", "r.json", "--smooth-recipe-out", "q.json", "--force")
                    changed = read_safetensors(self.path("d"))
                    self.assertTrue(any(not np.array_equal(changed[n][1], before[n][1]) for n in before))
                    logits = model.logits()
                    if dtype == "F32":
                        self.assertLess(np.abs(model.logits({n: x for n, (_, x) in changed.items()}) - logits).max(), 1e-12 * np.abs(logits).max())
                    self.smooth("d", "e", "--inverse", "q.json", "--force")
                    self.assert_same_tensors(read_safetensors(self.path("e")), before)

    def test_inverse_needs_its_own_words(self):
        self.make()
        self.smooth("m", "d", "--smooth", "m.stats", "--smooth-recipe-out", "r.json", *TARGET)
        self.refused(2, ["smooth", "--in", "d", "--out", "e", "--inverse", "r.json", "--smooth", "m.stats"], "exclude")
        self.refused(2, ["smooth", "--in", "d", "--out", "e", "--inverse", "r.json", "--smooth-recipe", "r.json"], "exclude")
        self.refused(2, ["smooth", "--in", "d", "--out", "e"], "nothing says how")
        self.refused(2, ["convert", "--in", "d", "--out", "e.llmq", "--format", "int4", "--inverse", "r.json"], "--inverse")

    # ---- what it says

    def test_fields(self):
        model, _ = self.make("olmo2")
        self.convert("m", "a.llmq", "--smooth", "m.stats", "--alpha", "auto", "--smooth-recipe-out", "r.json", *TARGET)
        recipe = Recipe(self.path("r.json"))
        self.assertEqual((recipe.json["format"], recipe.json["version"], recipe.json["scales"]), ("llmq-smooth", 1, "r.json.safetensors"))
        self.assertEqual(recipe.json["settings"]["smooth"], "m.stats")
        self.assertEqual(recipe.json["settings"]["alpha"], "auto")
        for g in model.groups:
            found = recipe.groups[g.id]
            self.assertEqual(found["channels"], g.n)
            self.assertEqual(recipe.s(g.id).shape, (g.n,))
            self.assertTrue(found["searched"])
            self.assertTrue(found["family"] == "identity" or 0 <= found["alpha"] <= 1)
            self.assertLessEqual(found["loss"]["best"], found["loss"]["identity"])
            self.assertLess(found["deviation"], 2.0**-22)
        self.assertTrue(any("post" in why for why in recipe.unfolded.values()), recipe.unfolded)
        first = read_bytes(self.path("r.json"))
        self.convert("m", "b.llmq", "--smooth", "m.stats", "--alpha", "auto", "--smooth-recipe-out", "r.json", "--force", *TARGET)
        self.assertEqual(read_bytes(self.path("r.json")), first)

    def test_fields_of_the_reference(self):
        model, before = self.make("llama-gqa4")
        ranges, keys = {}, {}
        rng = np.random.default_rng(4)
        for g in model.groups:
            name = g.consumers[0].tensor
            low, high = -rng.uniform(0, 3, g.n), rng.uniform(0, 3, g.n)
            ranges[name] = (low.astype(F32), high.astype(F32))
        write_stats(self.path("m.stats"), model.statistics(), in_min={n: ("F32", [1, len(r[0])], [float(v) for v in r[0]]) for n, r in ranges.items()},
                    in_max={n: ("F32", [1, len(r[1])], [float(v) for v in r[1]]) for n, r in ranges.items()})
        self.convert("m", "a.llmq", "--smooth", "m.stats", "--alpha", "0.5", "--smooth-recipe-out", "r.json", "--smooth-inc-json", "inc.json", *TARGET)
        with open(self.path("inc.json")) as f:
            inc = json.load(f)
        recipe = Recipe(self.path("r.json"))
        self.assertEqual(set(inc), {s.tensor.removesuffix(".weight") for g in model.groups for s in g.consumers})
        for g in model.groups:
            s, (low, high) = recipe.columns(g.id), ranges[g.consumers[0].tensor]
            for side in g.consumers:
                found = inc[side.tensor.removesuffix(".weight")]
                self.assertEqual(found["alpha"], 0.5)
                np.testing.assert_array_equal(np.array(found["smooth_quant_scaling_factor"], F32), s)
                np.testing.assert_array_equal(np.array(found["input_scale_for_mul"], F32), F32(1) / s)
                lo, hi = min((low / s).min(), 0.0), max((high / s).max(), 0.0)
                scale = max((hi - lo) / 255, 2.0**-23)
                self.assertAlmostEqual(found["input_scale_after_mul"] / scale, 1.0, places=5)
                self.assertEqual(found["input_zero_point_after_mul"], min(255, max(0, 0 - round(lo / scale))))
                w = np.abs(before[side.tensor][1] * s).max(1)
                np.testing.assert_allclose(found["weight_scale_after_mul"], np.maximum(w / 127.5, 2.0**-23), rtol=1e-6)

    # ---- what is refused

    def test_of_another_model(self):
        self.make()
        self.make("llama-mha", name="other")
        self.convert("m", "a.llmq", "--smooth", "m.stats", "--smooth-recipe-out", "r.json", *TARGET)
        for args in (["convert", "--in", "other", "--out", "b.llmq", "--smooth-recipe", "r.json", *TARGET], ["smooth", "--in", "other", "--out", "e", "--inverse", "r.json"],
                     ["plan", "--in", "other", "--smooth-recipe", "r.json", *TARGET]):
            self.refused(1, args, "r.json", "other tensors")

    def test_of_a_model_whose_types_cannot_be_written(self):
        """Names and shapes are those of the recipe's model, norms are F64: refused by name, whether it is replayed or undone."""
        model, _ = self.make()
        self.convert("m", "a.llmq", "--smooth", "m.stats", "--smooth-recipe-out", "r.json", *TARGET)
        save_model(self.path("wide"), model, norm_dtype="F64")
        for args in (["convert", "--in", "wide", "--out", "b.llmq", "--smooth-recipe", "r.json", *TARGET], ["smooth", "--in", "wide", "--out", "e", "--inverse", "r.json"]):
            self.refused(1, args, "r.json", "input_layernorm.weight", "cannot be written")

    def test_damage(self):
        self.make()
        self.convert("m", "a.llmq", "--smooth", "m.stats", "--alpha", "0.5", "--smooth-recipe-out", "r.json", *TARGET)
        good, scales = read_bytes(self.path("r.json")), read_bytes(self.path("r.json.safetensors"))
        tree = json.loads(good)

        def changed(change):
            copy = json.loads(good)
            change(copy)
            return json.dumps(copy).encode()

        first = tree["groups"][0]
        cases = [good[:len(good) // 2], b"", b"[]", b"{}", b"null", b"\xff\xfe", good + b"x"]
        for key in ("format", "version", "model", "scales", "groups"):
            cases.append(changed(lambda t: t.pop(key)))
            cases.append(changed(lambda t: t.__setitem__(key, 7)))
            cases.append(changed(lambda t: t.__setitem__(key, None)))
        cases.append(changed(lambda t: t.__setitem__("version", 2)))
        cases.append(changed(lambda t: t.__setitem__("scales", "../r.json.safetensors")))
        cases.append(changed(lambda t: t.__setitem__("scales", "nothing.safetensors")))
        cases.append(changed(lambda t: t["groups"].append(t["groups"][0])))
        cases.append(changed(lambda t: t["groups"].insert(0, 5)))
        for key in ("id", "kind", "fate", "s"):
            cases.append(changed(lambda t: t["groups"][0].pop(key)))
            cases.append(changed(lambda t: t["groups"][0].__setitem__(key, "nonsense")))
            cases.append(changed(lambda t: t["groups"][0].__setitem__(key, {})))
        cases.append(changed(lambda t: t["groups"][0].__setitem__("s", t["groups"][3]["s"])))  # of another size
        for i, data in enumerate(cases):
            with self.subTest(case=i):
                write_bytes(self.path("bad.json"), data)
                shutil.copy(self.path("r.json.safetensors"), self.path("bad.json.safetensors"))
                self.refused(1, ["convert", "--in", "m", "--out", "b.llmq", "--smooth-recipe", "bad.json", *TARGET], "bad.json")
        for change in (lambda t: t["groups"][0].__setitem__("columns", "9.s"), lambda t: t["groups"][0].pop("columns")):
            write_bytes(self.path("bad.json"), changed(change))
            self.refused(1, ["smooth", "--in", "m", "--out", "b", "--inverse", "bad.json"], "bad.json")
        # the same tensor stored twice
        write_bytes(self.path("bad.json"), changed(lambda t: t["groups"].extend([{"id": f"x{i}", "kind": "S", "fate": "stored", "absorb": [], "consumers": [first["consumers"][0]], "matrix": 0,
                                                                                 "s": first["s"], "columns": first["columns"]} for i in range(2)])))
        self.refused(1, ["convert", "--in", "m", "--out", "b.llmq", "--smooth-recipe", "bad.json", *TARGET], "bad.json", "twice")
        self.refused(1, ["convert", "--in", "m", "--out", "b.llmq", "--smooth-recipe", "gone.json", *TARGET], "gone.json")
        # scales
        factors = Recipe(self.path("r.json")).factors
        group = next(g for g in tree["groups"] if g["kind"] == "VG")
        for what, value in (("zero", 0.0), ("negative", -1.0), ("NaN", np.nan), ("Inf", np.inf), ("subnormal", 1e-40)):
            with self.subTest(what=what):
                bad = {k: x.copy() for k, x in factors.items()}
                bad[first["s"]][3] = value
                self.write_scales(self.path("r.json.safetensors"), bad)
                self.refused(1, ["convert", "--in", "m", "--out", "b.llmq", "--smooth-recipe", "r.json", *TARGET], "r.json", "factor 3")
        bad = {k: x.copy() for k, x in factors.items()}
        bad[group["s"]][0] *= 2  # heads that share a value head
        self.write_scales(self.path("r.json.safetensors"), bad)
        self.refused(1, ["convert", "--in", "m", "--out", "b.llmq", "--smooth-recipe", "r.json", *TARGET], "share a channel")
        bad = {k: x.copy() for k, x in factors.items()}
        bad[first["s"]] = bad[first["s"]][:-1]
        self.write_scales(self.path("r.json.safetensors"), bad)
        self.refused(1, ["convert", "--in", "m", "--out", "b.llmq", "--smooth-recipe", "r.json", *TARGET], "r.json")
        for cut in (0, 4, 100, len(scales) - 4):
            write_bytes(self.path("r.json.safetensors"), scales[:cut])
            self.refused(1, ["convert", "--in", "m", "--out", "b.llmq", "--smooth-recipe", "r.json", *TARGET], "r.json")
        os.unlink(self.path("r.json.safetensors"))
        self.refused(1, ["convert", "--in", "m", "--out", "b.llmq", "--smooth-recipe", "r.json", *TARGET], "r.json")

    def test_outputs_in_the_way(self):
        self.make()
        write_bytes(self.path("r.json"), b"old")
        args = ["convert", "--in", "m", "--out", "a.llmq", "--smooth", "m.stats", "--smooth-recipe-out", "r.json", *TARGET]
        self.refused(1, args, "r.json", "--force")
        self.ok(*args, "--force")
        self.assertNotEqual(read_bytes(self.path("r.json")), b"old")
        self.no_partial()
        self.llmq("convert", "--in", "m", "--out", "b.llmq", "--smooth", "m.stats", "--smooth-recipe-out", "nowhere/r.json", *TARGET)
        self.assertFalse(os.path.exists(self.path("b.llmq")))
        self.refused(2, ["convert", "--in", "m", "--out", "b.llmq", "--smooth-recipe-out", "q.json", *TARGET], "--smooth-recipe-out needs --smooth")


if __name__ == "__main__":
    unittest.main()
