"""What scaling of channels through a model cannot change: after migration codes, scales and norms are the same bytes with and without it."""
import json
import os
import unittest

import numpy as np

from cli_support import LIGHT, SHARED, TINY, skip_aloud
from smooth_support import SmoothTest, read_safetensors, reader, save_model, smooth_models, write_stats

FORMATS = (["int4", "--group-size", "32"], ["int4", "--group-size", "128"], ["int3", "--group-size", "32"], ["uint4", "--group-size", "64"], ["int8", "--group-size", "channel"],
           ["int4:rule=mse", "--group-size", "32"], ["mxfp4"], ["mxfp4", "--scale-rule", "search"], ["mxint8"], ["bfp16"], ["bfp12", "--scale-rule", "search"], ["nvfp4"], ["fp8_e4m3"], ["nf4"],
           ["q4_0"], ["mx6"])
FEW = (FORMATS[0], FORMATS[6], FORMATS[9], FORMATS[11], FORMATS[13], FORMATS[14])
MODELS = {"tiny": TINY, "stories": os.path.join(SHARED, "llm", "stories260K-hf-f32")}


class Invariance(SmoothTest):
    def load(self, which):
        """(Model, dtype, E[x^2])"""
        path = MODELS[which]
        if not os.path.isdir(path):
            skip_aloud(self, f"no {path}")
        with open(os.path.join(path, "config.json")) as f:
            config = json.load(f)
        found = read_safetensors(path)
        model = smooth_models.llama_of(config, {n: x.astype(np.float32) for n, (_, x) in found.items()})
        return model, next(iter(found.values()))[0], model.statistics(spread=1.5)

    def write(self, name, model, dtype, tensors, ex2):
        save_model(self.path(name), model, dtype, tensors=tensors)
        write_stats(self.path(name + ".stats"), ex2)

    def codes(self, name, how, *args):
        self.convert(name, name + ".llmq", "--smooth", name + ".stats", *(args or ("--alpha", "0.5")), "--force", "--format", *how)
        return self.planes(name + ".llmq")

    def assert_same_planes(self, got, want, what):
        self.assertEqual(set(got), set(want))
        differ = [key for key in want if got[key] != want[key]]
        self.assertEqual(differ, [], f"{what}: {len(differ)} of {len(want)} planes differ")

    def powers(self, which, kinds, more=(), formats=FORMATS, factors=(4.0, 16.0, 64.0)):
        model, dtype, ex2 = self.load(which)
        self.write("plain", model, dtype, model.tensors, ex2)
        names = []
        for c in factors:
            names.append(f"c{int(c)}")
            self.write(names[-1], model, dtype, *smooth_models.inject(model, ex2, c, kinds))
        for how in formats[::4] if LIGHT else formats:
            want = self.codes("plain", [*how, *more], "--alpha", "0.5")
            for name in names:
                with self.subTest(how=how, name=name):
                    self.assert_same_planes(self.codes(name, [*how, *more], "--alpha", "0.5"), want, name)

    # ---- norms

    def test_norms_of_the_bundled_model(self):
        self.powers("tiny", ("N",), formats=FEW)

    def test_norms_of_a_trained_model(self):
        self.powers("stories", ("N",))

    def test_without_migration_they_do_change(self):
        model, dtype, ex2 = self.load("tiny")
        self.write("plain", model, dtype, model.tensors, ex2)
        self.write("c16", model, dtype, *smooth_models.inject(model, ex2, 16.0))
        a, b = ((self.convert(n, n + ".llmq", "--format", "int4", "--group-size", "32"), self.planes(n + ".llmq"))[1] for n in ("plain", "c16"))
        self.assertGreater(sum(a[k] != b[k] for k in a), 10)

    def test_without_statistics(self):
        """The gain as statistic moves with the channel, so it is as invariant."""
        model, dtype, ex2 = self.load("tiny")
        self.write("plain", model, dtype, model.tensors, ex2)
        self.write("c16", model, dtype, *smooth_models.inject(model, ex2, 16.0))
        for how in FEW:
            want, got = ((self.convert(n, n + ".llmq", "--smooth", "gain", "--alpha", "0.5", "--force", "--format", *how), self.planes(n + ".llmq"))[1] for n in ("plain", "c16"))
            self.assert_same_planes(got, want, how)

    # ---- values and up, one kind of group at a time: a scaled row of up is also a larger weight of the norm before it

    def test_values(self):
        for which in MODELS:
            with self.subTest(which=which):
                self.powers(which, ("VG",), ("--smooth-groups", "vo"), FEW, (4.0, 64.0))

    def test_up(self):
        for which in MODELS:
            with self.subTest(which=which):
                self.powers(which, ("U",), ("--smooth-groups", "updown"), FEW, (4.0, 64.0))

    # ---- a search

    def test_searched(self):
        """c = 16 and alphas in quarters: c^alpha is a power of two for every candidate."""
        model, dtype, ex2 = self.load("stories" if os.path.isdir(MODELS["stories"]) else "tiny")
        self.write("plain", model, dtype, model.tensors, ex2)
        self.write("c16", model, dtype, *smooth_models.inject(model, ex2, 16.0))
        self.write("c256", model, dtype, *smooth_models.inject(model, ex2, 256.0))
        args = ("--alpha", "auto", "--alpha-min", "0.25", "--alpha-step", "0.25")
        for how in FORMATS[::4] if LIGHT else FORMATS:
            want = None
            for name in ("plain", "c16", "c256"):
                with self.subTest(how=how, name=name):
                    found = self.ok_json("plan", "--in", name, "--smooth", name + ".stats", *args, "--format", *how)["smoothing"]["groups"]
                    chosen = {g["id"]: (g["alpha"], g["loss"]) for g in found}
                    if want is None:
                        want, same = self.codes(name, how, *args), chosen
                        continue
                    injected = {i for i, (alpha, _) in same.items() if i.endswith("layernorm") and alpha is None}  # identity is what an injected model cannot afford
                    self.assertEqual({i: c for i, c in chosen.items() if i not in injected}, {i: c for i, c in same.items() if i not in injected})
                    self.assertLess(len(injected), len(same) / 2)
                    if not injected:
                        self.assert_same_planes(self.codes(name, how, *args), want, name)

    # ---- any factor

    def test_other_factors_change_roundings_only(self):
        model, dtype, ex2 = self.load("tiny")
        self.write("plain", model, "F32", model.tensors, ex2)
        for c in (3.0, 10.0, 1000.0):
            tensors, stats = smooth_models.inject(model, ex2, c)
            self.write("c", model, "F32", tensors, stats)
            args = ("--alpha", "0.5", "--format", "int4", "--group-size", "32", "--force")
            for name in ("plain", "c"):
                self.smooth(name, name + ".out", "--smooth", name + ".stats", *args)
            a, b = (read_safetensors(self.path(n + ".out")) for n in ("plain", "c"))
            for n in a:
                np.testing.assert_allclose(b[n][1], a[n][1], rtol=2e-6, atol=0, err_msg=f"{c} {n}")
            x, y = ({n: t.decode() for n, t in reader.read((self.codes(m, ["int4", "--group-size", "32"]), self.path(m + ".llmq"))[1]).tensors.items()} for m in ("plain", "c"))
            for n in x:
                self.assertLess((np.abs(x[n] - y[n]) > 1e-5 * np.abs(x[n]).max()).mean(), 1e-3, (c, n))

    def test_the_function_is_that_of_the_model(self):
        model, dtype, ex2 = self.load("stories" if os.path.isdir(MODELS["stories"]) else "tiny")
        logits = model.logits()
        for c in (1.0, 16.0):
            tensors, stats = smooth_models.inject(model, ex2, c)
            self.assertLess(np.abs(model.logits(tensors) - logits).max(), 1e-9 * np.abs(logits).max())
            self.write("m", model, "F32", tensors, stats)
            self.smooth("m", "o", "--smooth", "m.stats", "--alpha", "0.5", "--format", "int4", "--group-size", "32", "--force")
            after = {n: x for n, (_, x) in read_safetensors(self.path("o")).items()}
            self.assertLess(np.abs(model.logits(after) - logits).max(), 2e-6 * np.abs(logits).max())


if __name__ == "__main__":
    unittest.main()
