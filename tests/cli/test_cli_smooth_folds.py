"""Every fold in every architecture: the folded model computes the same, each stored number is what the definition says, and nothing else changed."""
import unittest

import numpy as np

from cli_support import write_bytes
from smooth_support import (COUNT, F32, Recipe, SmoothTest, column_maxima, expected_scales, expected_tensors, first_of, read_safetensors, rms_of, save_model, smooth_models,
                            write_stats)

TARGET = ["--format", "int4", "--group-size", "channel"]
MOE = ("mixtral", "qwen2-moe", "qwen3-moe", "deepseek-v2", "deepseek-v3", "gpt-oss", "dbrx", "llama4", "granite-moe", "qwen3-next")


def biggest_change(model, before, after):
    a, b = model.logits({n: x for n, (_, x) in before.items()}), model.logits({n: x for n, (_, x) in after.items()})
    return np.abs(a - b).max() / np.abs(a).max()


class Folds(SmoothTest):
    def fold(self, name, *args, alpha="0.5", dtype="F32", norm_dtype=None, model=None):
        """Smooths a model of the architecture: (model, tensors before, after, recipe)."""
        model = model or smooth_models.ARCHITECTURES[name]()
        before = save_model(self.path(name), model, dtype, norm_dtype)
        write_stats(self.path(name + ".stats"), model.statistics())
        self.smooth(name, name + ".out", "--smooth", name + ".stats", "--alpha", alpha, "--smooth-recipe-out", name + ".json", "--force", *(args or TARGET))
        return model, before, read_safetensors(self.path(name + ".out")), Recipe(self.path(name + ".json"))

    def check_scales(self, name, model, before, recipe, alpha=0.5):
        """The factors of the recipe are those of the definition."""
        kept = {n for n, f in self.formats_of("--in", name, *TARGET).items() if f == "keep" or f is None}
        tensors, ex2 = {n: x for n, (_, x) in before.items()}, model.statistics()
        for g in model.groups:
            if g.id not in recipe.groups:
                continue
            gain = g.producers[0].channels_first(tensors[g.producers[0].tensor])[:, 0] + (g.kind == "N1") if g.is_norm else None
            quantised = [s for s in g.consumers if s.tensor not in kept]
            self.assertTrue(quantised, g.id)
            w = column_maxima(g, tensors, lambda n: n not in kept)
            want = expected_scales(g, rms_of(ex2[(g.consumers[0].tensor, g.consumers[0].mat)]), w, alpha, gain)
            live = want > 0
            self.assertTrue(live.all(), g.id)
            np.testing.assert_allclose(recipe.s(g.id), want, rtol=2e-6, err_msg=f"{name} {g.id}")
            self.assertTrue(0.5 <= (w * recipe.s(g.id)).max() < 1.0, g.id)

    def check_algebra(self, name, model, before, after, recipe):
        """What a producer lost its consumers have: products of channels stay within 2 ulp for each factor that touched them."""
        for g in model.groups:
            if g.id not in recipe.groups:
                continue
            others = {}
            for o in model.groups:
                if o is not g and o.id in recipe.groups:
                    s, left = (recipe.s(o.id), recipe.columns(o.id))
                    for i, side in enumerate(o.producers):
                        factor = 1.0 / first_of(s if i == 0 else left, o).astype(np.float64)
                        others.setdefault(side.tensor, []).append((side, factor))
                    for side in o.consumers:
                        others.setdefault(side.tensor, []).append((side, left.astype(np.float64)))

            def without_others(tensor):
                x = after[tensor][1].astype(np.float64)
                for side, factor in others.get(tensor, []):
                    x = self.divide(x, side, factor)
                return x

            side = g.producers[0]
            p0, p1 = side.channels_first(before[side.tensor][1].astype(np.float64)), side.channels_first(without_others(side.tensor))
            if g.kind == "N1":
                p0, p1 = 1.0 + p0, (F32(1) + p1.astype(F32)).astype(np.float64)
            for c in g.consumers:
                c0, c1 = c.channels_first(before[c.tensor][1].astype(np.float64)), c.channels_first(without_others(c.tensor))
                # relative change of (producer * consumer) of a channel: the same for all entries of a row up to rounding
                ratio_p, ratio_c = (p1 / p0)[g.owner, :1], c1 / c0
                np.testing.assert_array_less(np.abs(ratio_p * ratio_c - 1.0), 2 * 2.0**-23 * (1 + (c.tensor in others) + (side.tensor in others)), f"{name} {g.id} {c.tensor}")

    @staticmethod
    def divide(x, side, factor):
        x = x.copy()
        view = x if side.mat is None else x[side.mat]
        axis = side.axis if side.mat is None else side.axis - 1
        place = [slice(None)] * view.ndim
        place[axis] = side.index
        view[tuple(place)] /= factor.reshape([-1 if a == axis else 1 for a in range(view.ndim)])
        return x

    def check(self, name, searched=False, alpha="0.5", **kwargs):
        model, before, after, recipe = self.fold(name, alpha=alpha, **kwargs)
        want = {g.id for g in model.groups if searched or not g.on_request}
        if searched:  # experts stored as [in, out]: a factor of an input is one of whole groups of weights
            quantised = {n for n, f in self.formats_of("--in", name, *TARGET).items() if f not in ("keep", None)}
            blind = {g.id for g in model.groups if not any(s.tensor in quantised and s.axis == before[s.tensor][1].ndim - 1 for s in g.consumers)}
            self.assertTrue(all("[in, out]" in recipe.unfolded[i] for i in blind))
            want -= blind
        self.assertEqual(set(recipe.groups), want)
        for g in model.groups:
            if g.id in recipe.groups:
                found = recipe.groups[g.id]
                self.assertEqual((found["fate"], found["channels"]), ("folded", g.n), g.id)
                self.assertTrue(found["kind"] == g.kind or {found["kind"], g.kind} <= {"V", "VG"}, (g.id, found["kind"]))
                self.assertEqual(set(found["consumers"]), {s.tensor for s in g.consumers}, g.id)
                self.assertEqual(set(found["absorb"]), {s.tensor for s in g.producers}, g.id)
        self.assert_same_tensors(after, expected_tensors(model.groups, before, recipe), name)
        return model, before, after, recipe

    # ---- every architecture

    def one(self, name):
        model, before, after, recipe = self.check(name)
        self.check_scales(name, model, before, recipe)
        self.check_algebra(name, model, before, after, recipe)
        self.assertLess(biggest_change(model, before, after), 2e-6)
        changed = {n for n in before if not np.array_equal(before[n][1], after[n][1])}
        self.assertEqual(changed, {s.tensor for g in model.groups if not g.on_request for s in g.producers + g.consumers})

    def test_norms_that_are_rounded_cost_nothing(self):
        """Norms in BF16: the rounded gain is divided out of the weights, so the function stays as exact as with F32 norms."""
        for name in ("llama-gqa4", "gemma", "gemma2", "gemma3", "phi3", "qwen3", "deepseek-v2"):
            for norm_dtype in ("BF16", "F16"):
                with self.subTest(name=name, norm_dtype=norm_dtype):
                    model, before, after, recipe = self.check(name, norm_dtype=norm_dtype)
                    self.assertLess(biggest_change(model, before, after), 2e-6)
                    for g in model.groups:
                        if not g.is_norm or g.on_request:
                            continue
                        old, new = (g.producers[0].channels_first(t[g.producers[0].tensor][1].astype(F32))[:, 0] + F32(g.kind == "N1") for t in (before, after))
                        np.testing.assert_array_equal(recipe.columns(g.id), (old / new).astype(F32))  # one rounding
                        moved = np.abs(recipe.columns(g.id) / recipe.s(g.id) - 1.0)
                        self.assertLess(moved.max(), (2.0**-8 if norm_dtype == "BF16" else 2.0**-11) * (1.01 if g.kind == "N" or g.kind == "M" else 20), g.id)
                        self.assertGreater(moved.max(), 0.0)

    def test_weights_in_bf16(self):
        """Everything in BF16: each weight is rounded once."""
        for name in ("llama-gqa4", "gemma3", "opt", "gpt2", "bloom"):
            with self.subTest(name=name):
                model, before, after, recipe = self.check(name, dtype="BF16")
                self.assertLess(biggest_change(model, before, after), 0.05)

    def test_norms_before_experts_on_request(self):
        for name in MOE:
            with self.subTest(name=name):
                model, before, after, recipe = self.fold(name)
                asked = [g.id for g in model.groups if g.on_request]
                self.assertTrue(asked)
                for ident in asked:
                    self.assertIn("auto", recipe.unfolded[ident])
                model, before, after, recipe = self.check(name, searched=True, alpha="auto")
                moved = [i for i, g in recipe.groups.items() if g["family"] != "identity"]
                self.assertLess(biggest_change(model, before, after), 2e-6)
                for g in (g for g in model.groups if g.id in recipe.groups):
                    loss = recipe.groups[g.id]["loss"]
                    if loss["identity"] is not None:
                        self.assertLessEqual(loss["best"], loss["identity"], g.id)
                self.assertTrue(moved)

    # ---- channels that are left alone

    def test_zero_gains(self):
        """A gain of 0 (of 1 + w: w = -1) leaves its channel as it is."""
        for name in ("llama-gqa4", "gemma2", "opt"):
            with self.subTest(name=name):
                model = smooth_models.ARCHITECTURES[name]()
                norm = next(g for g in model.groups if g.is_norm)
                gain = model.tensors[norm.producers[0].tensor]
                gain[[0, 3, 8]] = -1.0 if norm.kind == "N1" else 0.0
                model, before, after, recipe = self.check(name, model=model)
                self.assertLess(biggest_change(model, before, after), 2e-6)
                self.assertEqual(recipe.groups[norm.id]["dead"], 3)
                self.assertTrue((after[norm.producers[0].tensor][1][[0, 3, 8]] == gain[[0, 3, 8]]).all())

    def test_channels_without_activations(self):
        model = smooth_models.ARCHITECTURES["llama-gqa4"]()
        before = save_model(self.path("m"), model)
        ex2 = {k: v.copy() for k, v in model.statistics().items()}
        for v in ex2.values():
            v[1::4] = 0.0
        write_stats(self.path("s"), ex2)
        self.smooth("m", "o", "--smooth", "s", "--alpha", "0.5", "--smooth-recipe-out", "r.json", *TARGET)
        recipe, after = Recipe(self.path("r.json")), read_safetensors(self.path("o"))
        self.assert_same_tensors(after, expected_tensors(model.groups, before, recipe))
        self.assertLess(biggest_change(model, before, after), 2e-6)
        for g in model.groups:
            s = recipe.s(g.id)
            if g.share == (1, 1):
                self.assertEqual(recipe.groups[g.id]["dead"], len(s[1::4]))
            self.assertTrue(np.isin(s[1::4], 2.0**np.arange(-40, 1)).all() or g.share != (1, 1), g.id)

    def test_wide_factors_are_clamped(self):
        model = smooth_models.ARCHITECTURES["llama-gqa4"]()
        before = save_model(self.path("m"), model)
        ex2 = {k: v.copy() for k, v in model.statistics().items()}
        for v in ex2.values():
            v[2] *= 1e24
        write_stats(self.path("s"), ex2)
        self.smooth("m", "o", "--smooth", "s", "--alpha", "0.5", "--smooth-recipe-out", "r.json", *TARGET)
        recipe, after = Recipe(self.path("r.json")), read_safetensors(self.path("o"))
        for g in model.groups:
            if g.share == (1, 1):  # of heads that agree one large factor is averaged away
                self.assertGreaterEqual(recipe.groups[g.id]["clipped"], 1)
            s = recipe.s(g.id).astype(np.float64)
            self.assertLessEqual(s.max() / s.min(), 1.01e8)
        self.assertLess(biggest_change(model, before, after), 2e-6)
        self.smooth("m", "p", "--smooth", "s", "--alpha", "0.5", "--smooth-clamp", "0.5", "--smooth-recipe-out", "q.json", *TARGET)
        for g in model.groups:
            s = Recipe(self.path("q.json")).s(g.id)
            self.assertLessEqual(s.max() / s.min(), 4.0001)

    def test_kinds_can_be_chosen(self):
        model, before, after, recipe = self.fold("llama-gqa4", "--smooth-groups", "norm", *TARGET)
        self.assertEqual({recipe.groups[i]["kind"] for i in recipe.groups}, {"N"})
        self.assert_same_tensors(after, expected_tensors(model.groups, before, recipe))
        model, before, after, recipe = self.fold("llama-gqa4", "--smooth-groups", "vo,updown", *TARGET)
        self.assertEqual(len(recipe.groups), 4)
        self.assertLess(biggest_change(model, before, after), 2e-6)
        self.refused(2, ["smooth", "--in", "llama-gqa4", "--out", "x", "--smooth", "llama-gqa4.stats", "--smooth-groups", "nonsense"], "nonsense", "norm")

    def test_heads_agree_by_the_largest(self):
        model, before, after, recipe = self.fold("llama-gqa4", "--smooth-reduce", "max", *TARGET)
        self.assertLess(biggest_change(model, before, after), 2e-6)
        tensors, ex2 = {n: x for n, (_, x) in before.items()}, model.statistics()
        for g in model.groups:
            if g.kind != "VG":
                continue
            x, w = rms_of(ex2[(g.consumers[0].tensor, None)]).astype(np.float64), column_maxima(g, tensors).astype(np.float64)
            s = x**0.5 / w**0.5
            want = np.array([s[g.owner == p].max() for p in range(g.owner.max() + 1)])
            got = first_of(recipe.s(g.id), g)
            np.testing.assert_allclose(got / got[0], want / want[0], rtol=2e-6)

    def test_data_free(self):
        """The gain as statistic: only norms have one."""
        model = smooth_models.ARCHITECTURES["gemma2"]()
        before = save_model(self.path("m"), model)
        out = self.ok("smooth", "--in", "m", "--out", "o", "--smooth", "gain", "--alpha", "0.5", "--smooth-recipe-out", "r.json", *TARGET).out
        self.assertIn("experimental", out)
        recipe, after = Recipe(self.path("r.json")), read_safetensors(self.path("o"))
        self.assertEqual(set(recipe.groups), {g.id for g in model.groups if g.is_norm})
        for g in model.groups:
            if g.is_norm:
                gain = before[g.producers[0].tensor][1] + F32(1)
                want = expected_scales(g, np.abs(gain), column_maxima(g, {n: x for n, (_, x) in before.items()}), 0.5, gain)
                np.testing.assert_allclose(recipe.s(g.id), want, rtol=2e-6)
        self.assertLess(biggest_change(model, before, after), 2e-6)


class Models(unittest.TestCase):
    """The groups typed in smooth_models keep the function of the forward pass: both are right, or wrong together."""

    def test_random_factors_change_nothing(self):
        for name, make in smooth_models.ARCHITECTURES.items():
            with self.subTest(name=name):
                model, rng = make(), np.random.default_rng(1)
                logits, w = model.logits(), {n: x.astype(np.float64) for n, x in model.tensors.items()}
                for g in model.groups:
                    s = 10.0**rng.uniform(-1, 1, g.owner.max() + 1)
                    for side in g.consumers:
                        w[side.tensor] = Folds.divide(w[side.tensor], side, 1.0 / s[g.owner])
                    for side in g.producers:
                        w[side.tensor] = (1.0 + w[side.tensor]) / s - 1.0 if g.kind == "N1" else Folds.divide(w[side.tensor], side, s)
                self.assertLess(np.abs(model.logits(w) - logits).max(), 1e-12 * np.abs(logits).max())


for _name in smooth_models.ARCHITECTURES:
    setattr(Folds, "test_" + _name.replace("-", "_"), lambda self, name=_name: self.one(name))

if __name__ == "__main__":
    unittest.main()
