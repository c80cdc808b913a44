"""Which alpha: defaults, fixed, searched; losses and criteria against numpy; every option of the search; what it says when data are missing."""
import unittest

import numpy as np

from cli_support import bf16, write_bytes
from smooth_support import (COUNT, F32, Recipe, SmoothTest, column_maxima, expected_scales, oracle, read_safetensors, reader, rms_of, rounded, save_model, smooth_models, widen, write_stats)

GRID = [round(0.05 * i, 2) for i in range(21)]


class Search(SmoothTest):
    def make(self, arch="llama-gqa4", tokens=0, **kwargs):
        """A model and its statistics; tokens: sampled inputs, whose Gram matrices and sums they are then."""
        model = smooth_models.ARCHITECTURES[arch](**kwargs)
        self.before = {n: x for n, (_, x) in save_model(self.path("m"), model).items()}
        self.ex2 = model.statistics()
        self.tokens = {}
        if not tokens:
            write_stats(self.path("s"), self.ex2)
            return model
        samples, grams, rng = {}, {}, np.random.default_rng(2)
        for g in model.groups:
            name = g.consumers[0].tensor
            mix = rng.standard_normal((g.n, g.n)) * 0.3 + np.eye(g.n)
            x = rounded("BF16", (rng.standard_normal((tokens, g.n)) @ mix * np.sqrt(self.ex2[(name, None)])).astype(F32)).astype(np.float64)
            gram = x.T @ x
            self.ex2[(name, None)] = np.diag(gram) / tokens
            self.tokens[name] = x
            samples[name] = ("BF16", x.shape, np.frombuffer(bf16(x), "<u2").tolist())
            grams[name] = ("F32", [1, g.n * (g.n + 1) // 2], [float(gram[i, j]) for i in range(g.n) for j in range(i, g.n)])
        first = {(g.consumers[0].tensor, None): self.ex2[(g.consumers[0].tensor, None)] for g in model.groups}
        write_stats(self.path("s"), first, tokens, in_sample=samples, in_gram=grams)
        return model

    def plan(self, *args, how=("int4", "--group-size", "16")):
        found = self.ok_json("plan", "--in", "m", "--smooth", "s", *args, "--format", *how)["smoothing"]
        return {g["id"]: g for g in found["groups"]}

    def quantised(self, alpha, how):
        """{tensor: (weights as smoothed, as decoded)} of a conversion at this alpha (None: none); only one kind of group, so that rows are as they were."""
        args = [] if alpha is None else ["--smooth", "s", "--alpha", str(alpha)]
        self.convert("m", "q.llmq", *args, "--format", *how, "--force")
        decoded = {n: t.decode() for n, t in reader.read(self.path("q.llmq")).tensors.items()}
        if alpha is None:
            return {n: (self.before[n], decoded[n].reshape(self.before[n].shape)) for n in decoded}
        self.smooth("m", "q", *args, "--format", *how, "--force")
        after = read_safetensors(self.path("q"))
        return {n: (after[n][1], decoded[n].reshape(after[n][1].shape)) for n in decoded}

    def losses(self, model, kind, alpha, how, loss):
        """{group: [loss of each member]} of groups of one kind: loss(D, name) where D is what a member's weights are wrong by."""
        groups = [g for g in model.groups if g.kind == kind]
        args = ["--smooth-groups", {"N": "norm", "U": "updown"}[kind]]
        weights = self.quantised(alpha, [*how, *args] if alpha is not None else how)
        out = {}
        for g in groups:
            s = np.ones(g.n)
            if alpha is not None:
                w = column_maxima(g, self.before)
                s = expected_scales(g, rms_of(self.ex2[(g.consumers[0].tensor, None)], self.count), w, alpha)
            out[g.id] = [loss((weights[c.tensor][1].astype(np.float64) - weights[c.tensor][0]) / s, g.consumers[0].tensor) for c in g.consumers]
        return out

    count = COUNT

    def diag(self, d, name):
        return float((d * d * self.ex2[(name, None)]).sum())

    # ---- defaults

    def test_defaults(self):
        """0.45 for groups of up to 64 weights, 0.35 beyond, a search for MX."""
        model = smooth_models.llama(1, heads=4, kv=4, hd=64, hidden=256, ffn=256, layers=1)
        self.before = save_model(self.path("m"), model)
        write_stats(self.path("s"), model.statistics())
        for how, want in ((("int4", "--group-size", "32"), 0.45), (("int4", "--group-size", "64"), 0.45), (("int4", "--group-size", "128"), 0.35), (("int8", "--group-size", "channel"), 0.35),
                          (("int3:group=32",), 0.45), (("nf4",), 0.45), (("fp8_e4m3",), 0.35), (("bfp16",), 0.45), (("nvfp4",), 0.45), (("q4_0",), 0.45), (("q4_k",), 0.35),
                          (("mxfp4",), "auto"), (("mxint8",), "auto"), (("mxfp8_e4m3",), "auto")):
            with self.subTest(how=how):
                found = self.plan(how=how)
                self.assertEqual(len(found), 4)
                for g in found.values():
                    self.assertEqual(g["searched"], want == "auto")
                    if want != "auto":
                        self.assertEqual(g["alpha"], want)
                text = self.ok("plan", "--in", "m", "--smooth", "s", "--format", *how).out
                self.assertIn("auto" if want == "auto" else f"{want} sq", text)

    def test_defaults_follow_the_format_of_each_group(self):
        self.make()
        found = self.plan("--rule", "*.mlp.*=mxint8", "--rule", "*.o_proj.weight=int4:group=8")
        for ident, g in found.items():
            self.assertEqual(g["searched"], "mlp" in ident or "post_attention" in ident, ident)
            if not g["searched"]:
                self.assertEqual(g["alpha"], 0.45)

    # ---- losses

    def test_losses_of_fixed_alphas(self):
        """Reported losses are those of what is really written."""
        model = self.make()
        for how in (("int4", "--group-size", "16"), ("mxfp4",), ("nf4",), ("int3", "--group-size", "channel"), ("bfp12",)):
            for kind in ("N", "U"):
                with self.subTest(how=how, kind=kind):
                    identity = self.losses(model, kind, None, how, self.diag)
                    for alpha in (0.1, 0.3, 0.5, 1.0):  # at 0 all columns end at a power of two, where one ulp of a factor is an exponent
                        want, found = self.losses(model, kind, alpha, how, self.diag), self.plan("--alpha", str(alpha), how=how)
                        for ident in want:
                            self.assertAlmostEqual(found[ident]["loss"] / sum(want[ident]), 1.0, places=4, msg=f"{ident} {alpha}")
                            self.assertAlmostEqual(found[ident]["identity_loss"] / sum(identity[ident]), 1.0, places=4)

    def test_the_best_is_taken(self):
        model = self.make()
        for how in (("int4", "--group-size", "16"), ("mxfp4",)):
            with self.subTest(how=how):
                fixed = {a: self.plan("--alpha", str(a), how=how) for a in GRID}
                found = self.plan("--alpha", "auto", how=how)
                for ident, g in found.items():
                    best = min(GRID, key=lambda a: fixed[a][ident]["loss"])
                    identity = fixed[0.5][ident]["identity_loss"]
                    self.assertEqual(g["identity_loss"], identity)
                    self.assertTrue(g["searched"])
                    if identity <= fixed[best][ident]["loss"]:
                        self.assertTrue(g["identity"])
                        self.assertIsNone(g["alpha"])
                        self.assertEqual(g["loss"], identity)
                    else:
                        self.assertEqual((g["alpha"], g["loss"], g["identity"]), (best, fixed[best][ident]["loss"], False), ident)
                    self.assertLessEqual(g["loss"], g["identity_loss"])

    def test_identity_writes_the_model_as_it_is(self):
        """Where no factor pays, nothing is multiplied."""
        model = self.make()
        write_stats(self.path("s"), {k: np.ones_like(v) for k, v in self.ex2.items()})
        found = self.plan("--alpha", "auto", how=("mxfp4",))
        alone = [i for i, g in found.items() if g["identity"]]
        self.smooth("m", "d", "--smooth", "s", "--alpha", "auto", "--format", "mxfp4", "--smooth-recipe-out", "r.json")
        after = read_safetensors(self.path("d"))
        for g in model.groups:
            if g.id in alone:
                self.assertTrue((Recipe(self.path("r.json")).s(g.id) == 1).all())
                if g.is_norm:
                    np.testing.assert_array_equal(after[g.producers[0].tensor][1], self.before[g.producers[0].tensor])
        self.convert("m", "a.llmq", "--smooth", "gain", "--alpha", "auto", "--alpha-min", "1", "--alpha-step", "1", "--format", "int8", "--group-size", "1")  # nothing to gain with a scale a weight
        self.assertTrue(all(g["loss"] <= g["identity_loss"] for g in self.ok_json("plan", "--in", "m", "--smooth", "gain", "--alpha", "auto", "--format", "int4")["smoothing"]["groups"]))

    def test_losses_of_samples_and_gram_matrices(self):
        self.count = 48
        model = self.make(tokens=48)
        how = ("int4", "--group-size", "16")

        def sample(d, name):
            return float(((self.tokens[name] @ d.T)**2).sum() / 48)

        for kind in ("N", "U"):
            for alpha in (0.4, 0.8):
                want = self.losses(model, kind, alpha, how, sample)
                for loss in ("sample", "gram"):
                    found = self.plan("--alpha", str(alpha), "--smooth-loss", loss, how=how)
                    for ident in want:
                        self.assertAlmostEqual(found[ident]["loss"] / sum(want[ident]), 1.0, places=4, msg=f"{loss} {ident}")
        for loss in ("sample", "gram", "w8a8"):
            fixed = {a: self.plan("--alpha", str(a), "--smooth-loss", loss, how=how) for a in (0.0, 0.25, 0.5, 0.75, 1.0)}
            found = self.plan("--alpha", "auto", "--alpha-step", "0.25", "--smooth-loss", loss, how=how)
            for ident, g in found.items():
                best = min(fixed, key=lambda a: fixed[a][ident]["loss"])
                self.assertEqual(g["loss"], min(fixed[best][ident]["loss"], g["identity_loss"]), (loss, ident))
        few, all_of_them = (self.plan("--alpha", "0.5", "--smooth-loss", "sample", "--n-samples", n, how=how) for n in ("7", "48"))
        self.assertTrue(all(few[i]["loss"] != all_of_them[i]["loss"] for i in few))
        first = {k: v[:7] for k, v in self.tokens.items()}
        want = self.losses(model, "N", 0.5, how, lambda d, name: float(((first[name] @ d.T)**2).sum() / 7))
        for ident in want:
            self.assertAlmostEqual(few[ident]["loss"] / sum(want[ident]), 1.0, places=4)

    def test_loss_of_eight_bits(self):
        """The original's: int8 weights a row, uint8 activations, the square root of differences of outputs over their largest."""
        model = self.make(tokens=32)
        self.count = 32
        found = self.plan("--alpha", "0.5", "--smooth-loss", "w8a8", how=("int8", "--group-size", "channel"))
        for g in model.groups:
            if g.kind != "N":
                continue
            x = self.tokens[g.consumers[0].tensor]
            s = expected_scales(g, rms_of(self.ex2[(g.consumers[0].tensor, None)], 32), column_maxima(g, self.before), 0.5)
            z = x / s
            lo, hi = min(z.min(), 0.0), max(z.max(), 0.0)
            scale = max((hi - lo) / 255, 2.0**-23)
            zero = np.round(-lo / scale)
            zq = (np.clip(np.round(z / scale + zero), 0, 255) - zero) * scale
            total = 0.0
            for c in g.consumers:
                w = self.before[c.tensor].astype(np.float64)
                v = w * s
                row = np.maximum(np.abs(v).max(1, keepdims=True) / 127.5, 2.0**-23)
                vq = np.clip(np.round(v / row), -128, 127) * row
                out, got = x @ w.T, zq @ vq.T
                most = max(np.abs(out).max(), 1e-5)
                total += (np.abs(out / most - got / most)**0.5).sum()
            self.assertAlmostEqual(found[g.id]["loss"] / total, 1.0, delta=0.02, msg=g.id)

    # ---- criteria

    def test_criteria(self):
        model = self.make()
        how, alphas = ("int3", "--group-size", "16"), (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
        members = {a: self.losses(model, "N", a, how, self.diag) for a in alphas}
        identity = self.losses(model, "N", None, how, self.diag)
        norms = {g.id: [self.diag(self.before[c.tensor].astype(np.float64), g.consumers[0].tensor) for c in g.consumers] for g in model.groups if g.kind == "N"}
        differ = set()
        for criterion in ("joint", "mean", "min", "max"):
            found = self.plan("--alpha", "auto", "--alpha-step", "0.2", "--shared-criterion", criterion, how=how)
            for ident, norm in norms.items():
                joint = {a: sum(members[a][ident]) for a in alphas}
                own = [min(alphas, key=lambda a: members[a][ident][m]) for m in range(len(norm))]
                want = {"joint": min(alphas, key=lambda a: joint[a]), "mean": min(alphas, key=lambda a: sum(l / n for l, n in zip(members[a][ident], norm))), "min": min(own), "max": max(own)}[criterion]
                differ.add((ident, want))
                if joint[want] > sum(identity[ident]):
                    self.assertTrue(found[ident]["identity"], (criterion, ident))
                else:
                    self.assertEqual(found[ident]["alpha"], want, (criterion, ident))
                    self.assertAlmostEqual(found[ident]["loss"] / joint[want], 1.0, places=4)
        self.assertGreater(len(differ), len(norms))  # criteria did not all agree

    def test_one_alpha_a_block(self):
        model = self.make()
        how = ("int3", "--group-size", "16")
        found = self.plan("--alpha", "auto", "--do-blockwise", "--alpha-step", "0.1", how=how)
        fixed = {round(a, 1): self.plan("--alpha", str(round(a, 1)), how=how) for a in np.arange(0, 1.05, 0.1)}
        for layer in ("model.layers.0.", "model.layers.1."):
            inside = {i: g for i, g in found.items() if i.startswith(layer)}
            self.assertEqual(len(inside), 4)
            alphas = {g["alpha"] for g in inside.values()}
            self.assertEqual(len(alphas), 1, alphas)
            totals = {a: sum(fixed[a][i]["loss"] / fixed[a][i]["identity_loss"] for i in inside) for a in fixed}
            best = min(totals, key=totals.get)
            if totals[best] < len(inside):
                self.assertEqual(alphas, {best})
            else:
                self.assertEqual(alphas, {None})
        self.assertNotEqual({g["alpha"] for g in self.plan("--alpha", "auto", how=how).values()}, {g["alpha"] for g in found.values()})

    def test_a_block_with_groups_that_are_not_searched(self):
        """Formats differ inside of a layer; a fixed alpha is no search; factors that are given stay so."""
        model = self.make()
        found = self.plan("--do-blockwise", "--rule", "*.mlp.*=mxint8")
        for ident, g in found.items():
            self.assertEqual(g["searched"], "mlp" in ident or "post_attention" in ident, ident)
            if not g["searched"]:
                self.assertEqual(g["alpha"], 0.45)
        for layer in "01":
            self.assertEqual(len({g["alpha"] for i, g in found.items() if g["searched"] and f".{layer}." in i}), 1)
        found = self.plan("--alpha", "auto", "--do-blockwise", "--smooth-loss", "gram", "--init-alpha", "0.3")
        self.assertEqual({(g["alpha"], g["searched"]) for g in found.values()}, {(0.3, False)})
        groups = [(g.id, [c.tensor.removesuffix(".weight") for c in g.consumers], [1.0 + 0.25 * (j % 5) for j in range(g.n)]) for g in model.groups]
        write_bytes(self.path("awq.pt"), oracle.write_awq(groups))
        found = self.ok_json("plan", "--in", "m", "--smooth", "awq.pt", "--alpha", "auto", "--do-blockwise", "--format", "int4")["smoothing"]["groups"]
        self.assertEqual({g["family"] for g in found}, {"given"})
        self.assertTrue(all(not g["identity"] for g in found))

    def test_options_of_a_search_without_one(self):
        self.make()
        for option in (["--do-blockwise"], ["--alpha-min", "0.2"], ["--alpha-max", "0.8"], ["--alpha-step", "0.1"], ["--init-alpha", "0.4"], ["--shared-criterion", "mean"], ["--smooth-refine", "2"]):
            self.refused(2, ["plan", "--in", "m", "--smooth", "s", "--alpha", "0.5", *option, "--format", "int4"], option[0], "--alpha auto")

    def test_transposed_storage_leaves_nothing_to_search(self):
        """GPT-2's matrices are [in, out]: quantised along the outputs, a factor of an input is one of whole groups."""
        self.make("gpt2")
        self.refused(2, ["plan", "--in", "m", "--smooth", "s", "--alpha", "auto", "--format", "int4"], "no group could be migrated", "[in, out]")
        self.refused(2, ["plan", "--in", "m", "--smooth", "s", "--format", "mxfp4"], "[in, out]")
        self.assertEqual(len(self.plan("--alpha", "0.5")), 6)

    # ---- families and statistics

    def test_families(self):
        model = self.make()
        self.smooth("m", "d", "--smooth", "s", "--alpha", "0.5", "--smooth-family", "awq", "--smooth-recipe-out", "r.json", "--format", "int4", "--group-size", "16")
        recipe = Recipe(self.path("r.json"))
        for g in model.groups:
            if g.share != (1, 1):
                continue
            x = rms_of(self.ex2[(g.consumers[0].tensor, None)]).astype(np.float64)
            want = np.maximum(x**0.5, 1e-4)
            s = recipe.s(g.id).astype(np.float64)
            np.testing.assert_allclose(s / s[0], want / want[0], rtol=3e-6)
        self.smooth("m", "e", "--smooth", "s", "--alpha", "0.5", "--smooth-family", "duo", "--smooth-recipe-out", "r2.json", "--format", "int4", "--group-size", "16")
        recipe = Recipe(self.path("r2.json"))
        for g in model.groups:
            if g.share != (1, 1):
                continue
            x = rms_of(self.ex2[(g.consumers[0].tensor, None)]).astype(np.float64)
            rows = np.concatenate([np.abs(self.before[c.tensor]).astype(np.float64) for c in g.consumers])
            pieces = [rows[:, a:a + 16] / (rows[:, a:a + 16].max(1, keepdims=True) + 1e-6) for a in range(0, g.n, 16)]
            mean = np.concatenate(pieces, 1).mean(0)
            want = np.maximum(x**0.5 / (mean**0.5 + 1e-4), 1e-4)
            s = recipe.s(g.id).astype(np.float64)
            np.testing.assert_allclose(s / s[0], want / want[0], rtol=3e-5, err_msg=g.id)
        each = {f: self.plan("--alpha", "auto", "--smooth-family", f) for f in ("sq", "awq", "duo", "any")}
        self.assertGreater(len({(i, g["family"]) for i, g in each["any"].items()}), 0)
        for ident in each["any"]:
            self.assertEqual(each["any"][ident]["loss"], min(each[f][ident]["loss"] for f in ("sq", "awq", "duo")), ident)
        self.refused(2, ["plan", "--in", "m", "--smooth", "s", "--alpha", "0.5", "--smooth-family", "any", "--format", "int4"], "--smooth-family any", "--alpha auto")

    def test_statistics_that_x_is_made_of(self):
        model = self.make()
        rng = np.random.default_rng(9)
        names = {g.consumers[0].tensor: g.n for g in model.groups}
        fields = {f: {n: ("F32", [1, k], [float(F32(v)) for v in rng.uniform(0.1, 50, k)]) for n, k in names.items()} for f in ("in_absmax", "in_sumabs")}
        samples = {n: rounded("BF16", rng.standard_normal((40, k)).astype(F32) * 3) for n, k in names.items()}
        fields["in_sample"] = {n: ("BF16", x.shape, np.frombuffer(bf16(x), "<u2").tolist()) for n, x in samples.items()}
        write_stats(self.path("s"), {k: v for k, v in self.ex2.items() if k[0] in names}, **fields)
        for stat in ("rms", "absmax", "mean", "pctl:75", "pctl:100"):
            self.smooth("m", "d", "--smooth", "s", "--alpha", "0.5", "--smooth-stat", stat, "--smooth-recipe-out", "r.json", "--format", "int4", "--group-size", "16", "--force")
            recipe = Recipe(self.path("r.json"))
            for g in model.groups:
                name = g.consumers[0].tensor
                x = {"rms": rms_of(self.ex2[(name, None)]), "absmax": np.array(fields["in_absmax"][name][2], F32), "mean": np.array(fields["in_sumabs"][name][2], F32) / F32(COUNT),
                     "pctl:75": np.sort(np.abs(samples[name]), 0)[29], "pctl:100": np.abs(samples[name]).max(0)}[stat]
                want = expected_scales(g, x, column_maxima(g, self.before), 0.5)
                np.testing.assert_allclose(recipe.s(g.id), want, rtol=2e-6, err_msg=f"{stat} {g.id}")
        for bad in ("median", "pctl:0", "pctl:101", "pctl:", "pctl:x"):
            self.refused(2, ["plan", "--in", "m", "--smooth", "s", "--smooth-stat", bad, "--format", "int4"], bad)
        write_stats(self.path("s"), self.ex2)
        for stat in ("absmax", "mean", "pctl:50"):
            self.refused(1, ["plan", "--in", "m", "--smooth", "s", "--smooth-stat", stat, "--format", "int4"], "'s'", "statistics of 'model.layers.0.self_attn")

    # ---- the grid

    def test_grid(self):
        model = self.make()
        how = ("int3", "--group-size", "16")
        found = self.plan("--alpha", "auto", "--alpha-min", "0.3", "--alpha-max", "0.7", "--alpha-step", "0.1", how=how)
        self.assertTrue({g["alpha"] for g in found.values()} <= {0.3, 0.4, 0.5, 0.6, 0.7, None})
        one = self.plan("--alpha", "auto", "--alpha-min", "0.42", "--alpha-max", "0.42", how=how)
        self.assertTrue({g["alpha"] for g in one.values()} <= {0.42, None})
        coarse, fine = (self.plan("--alpha", "auto", "--alpha-step", "0.2", *more, how=how) for more in ([], ["--smooth-refine", "3"]))
        self.assertTrue(all(fine[i]["loss"] <= coarse[i]["loss"] for i in fine))
        self.assertTrue(any(fine[i]["loss"] < coarse[i]["loss"] for i in fine))
        for bad in (["--alpha-min", "0.8", "--alpha-max", "0.2"], ["--alpha-step", "0"], ["--alpha-min", "-1"], ["--alpha-max", "1.5"], ["--alpha-step", "x"], ["--alpha-step", "0.0001"],
                    ["--smooth-refine", "99"], ["--n-samples", "0"], ["--init-alpha", "2"], ["--smooth-clamp", "0"], ["--smooth-clamp", "2"], ["--smooth-clamp", "x"],
                    ["--shared-criterion", "median"], ["--smooth-loss", "l1"], ["--smooth-family", "gptq"], ["--smooth-reduce", "mean"], ["--folding", "maybe"], ["--alpha", "1.5"], ["--alpha", "-0.1"],
                    ["--alpha", "much"], ["--alpha", "nan"], ["--alpha", ""], ["--alpha", "0.5x"]):
            with self.subTest(bad=bad):
                args = ["--alpha", "auto"] if bad[0] != "--alpha" else []
                self.refused(2, ["plan", "--in", "m", "--smooth", "s", *args, *bad, "--format", "int4"], bad[0] if bad[0] not in ("--alpha-min", "--alpha-step") else "alpha")

    # ---- what is missing

    def test_losses_without_their_data(self):
        """init_alpha where a search cannot judge."""
        self.make()
        for loss in ("gram", "sample", "w8a8"):
            for init in (None, "0.3"):
                found = self.plan("--alpha", "auto", "--smooth-loss", loss, *(["--init-alpha", init] if init else []))
                for g in found.values():
                    self.assertEqual((g["alpha"], g["searched"]), (float(init or 0.5), False))
                    self.assertIsNone(g["loss"])

    def test_files_that_do_not_fit(self):
        model = self.make()
        plan = ["plan", "--in", "m", "--format", "int4", "--smooth"]
        self.refused(1, [*plan, "gone"], "gone")
        write_bytes(self.path("bad"), b"nonsense")
        self.refused(1, [*plan, "bad"], "bad")
        write_stats(self.path("none"), {("model.layers.7.mlp.up_proj.weight", None): np.ones(32)})
        self.refused(2, [*plan, "none"], "no group could be migrated", "no statistics of its input")
        write_stats(self.path("wide"), {("model.layers.0.self_attn.q_proj.weight", None): np.ones(33)})
        self.refused(1, [*plan, "wide"], "wide", "model.layers.0.self_attn.q_proj.weight", "33", "32")
        write_stats(self.path("part"), {k: v for k, v in self.ex2.items() if "layers.0.self_attn.k_proj" in k[0]})
        found = self.ok_json(*plan, "part")["smoothing"]
        self.assertEqual([g["id"] for g in found["groups"]], ["model.layers.0.input_layernorm"])  # k's serve q and v
        self.assertEqual({e["id"] for e in found["left"]}, {g.id for g in model.groups} - {"model.layers.0.input_layernorm"})
        self.assertTrue(all("no statistics" in e["why"] for e in found["left"]))
        for option, value in (("--alpha", "0.5"), ("--smooth-family", "sq"), ("--do-blockwise", None), ("--smooth-runtime", None), ("--folding", "on")):
            self.refused(2, ["plan", "--in", "m", "--format", "int4", option] + ([value] if value else []), option, "--smooth")
        self.refused(2, ["plan", "--in", "m", "--format", "int4", "--smooth", "gain", "--smooth-stat", "absmax"], "gain", "absmax")
        self.refused(2, ["plan", "--in", "m", "--format", "int4", "--smooth", "s", "--keep", "*_proj*"], "no group could be migrated", "nothing behind it is quantised")

    def test_experts_without_tokens(self):
        model = self.make("mixtral")
        lost = "model.layers.0.block_sparse_moe.experts.1.w2.weight"
        fields, names = {}, {}
        for (name, _), v in self.ex2.items():
            fields[name + ".counts"] = ("I64", [1], [0 if name == lost else COUNT])
            fields[name + ".in_sum2"] = ("F32", [1, len(v)], [0.0 if name == lost else float(x) * COUNT for x in v])
        write_bytes(self.path("s"), oracle.write_safetensors(fields, {"format": "llmq-actstats", "version": "1"}))
        found = self.ok_json("plan", "--in", "m", "--smooth", "s", "--format", "int4", "--group-size", "8")["smoothing"]
        left = {e["id"]: e["why"] for e in found["left"]}
        self.assertIn("no token", left["model.layers.0.block_sparse_moe.experts.1.w3"])
        self.assertIn("model.layers.0.block_sparse_moe.experts.0.w3", {g["id"] for g in found["groups"]})

    def test_kept_consumers_have_no_say(self):
        """What is not quantised is scaled with the others but counts neither for the weights' maxima nor for the loss."""
        model = self.make()
        before = {n: x.copy() for n, x in self.before.items()}
        before["model.layers.0.self_attn.k_proj.weight"] *= 1000
        save_model(self.path("m"), model, tensors=before)
        self.smooth("m", "d", "--smooth", "s", "--alpha", "0.5", "--keep", "*k_proj*", "--smooth-recipe-out", "r.json", "--format", "int4", "--group-size", "16")
        g = model.groups[0]
        s = Recipe(self.path("r.json")).s(g.id)
        want = expected_scales(g, rms_of(self.ex2[(g.consumers[0].tensor, None)]), column_maxima(g, before, lambda n: "k_proj" not in n), 0.5)
        np.testing.assert_allclose(s, want, rtol=2e-6)
        after = {n: x for n, (_, x) in read_safetensors(self.path("d")).items()}
        self.assertFalse(np.array_equal(after["model.layers.0.self_attn.k_proj.weight"], before["model.layers.0.self_attn.k_proj.weight"]))
        a, b = model.logits(before), model.logits(after)
        self.assertLess(np.abs(a - b).max(), 1e-5 * np.abs(a).max())


if __name__ == "__main__":
    unittest.main()
