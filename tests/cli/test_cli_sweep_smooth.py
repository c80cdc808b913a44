"""sweep --smooth --alphas: rows against separate conversions by hash, weighed error against numpy, perplexity of the file, resuming, refusals."""
import shlex
import unittest

from cli_support import *
from smooth_support import Recipe, read_safetensors, save_model, smooth_models, write_stats
import test_cli_sweep as base

TEXT = os.path.join(ROOT, "tests", "data", "tiny-text.txt")
STATS = None  # made once: of the bundled model on the bundled text


def statistics():
    global STATS
    if STATS is None:
        STATS = os.path.join(tempfile.mkdtemp(prefix="llmq-sweep-smooth-"), "S.safetensors")
        done = run("calibrate", "--in", TINY, "--text", TEXT, "--out", STATS, "--quiet")
        assert done.code == 0, str(done)
    return STATS


def tearDownModule():
    if STATS:
        shutil.rmtree(os.path.dirname(STATS))


def alphas(rows):
    seen = []
    for row in rows:
        if row["alpha"] not in seen:
            seen.append(row["alpha"])
    return seen


class SmoothSweepTest(base.SweepTest):
    def made(self, model, name="m", **kwargs):
        """A model of smooth_models and statistics, as files."""
        save_model(self.path(name), model, **kwargs)
        write_stats(self.path("s"), model.statistics())


class Hashes(SmoothSweepTest):
    def test_bundled_model(self):
        rows = self.sweep(TINY, "--formats", "int4,mxfp4,nvfp4,q4_0", "--smooth", statistics(), "--alphas", "0,0.5,auto")
        self.assertEqual(alphas(rows), [0, 0.5, "auto"])
        self.assertEqual(self.check_against_convert(TINY, rows, move=0), 12)
        by = {}
        for row in rows:
            by.setdefault((row["format"], row["name"]), {})[row["alpha"]] = row
        for (name, tensor), row in by.items():
            if tensor.endswith("layernorm.weight"):  # kept, and migrated: hashed as it is written
                self.assertEqual((row[0]["tensor_format"], row[0.5]["tensor_format"]), ("keep", "keep"))
                self.assertNotEqual(row[0]["hash"], row[0.5]["hash"])
            if tensor == "model.embed_tokens.weight":
                self.assertEqual(len({r["hash"] for r in row.values()}), 1)
        plain = self.sweep(TINY, "--formats", "int4")
        self.assertEqual([r["hash"] for r in plain], [r["hash"] for r in rows if r["format"] == "int4" and r["alpha"] == 0])

    @unittest.skipIf(LIGHT, "slow")
    def test_observed_groups_kept_consumers_and_rules(self):
        common = ["--keep", "*q_proj*", "--rule", "role:down=int8:group=tensor"]
        rows = self.sweep(TINY, "--formats", "int4,nvfp4,uint3:rule=mse", "--group-sizes", "16,channel,128x128", "--smooth", statistics(), "--alphas", "0.3,0", *common)
        self.assertGreaterEqual(self.check_against_convert(TINY, rows, *common), 10)

    def test_rows_over_several_tiles(self):
        self.made(smooth_models.llama(1, heads=16, kv=4, hd=32, hidden=512, ffn=1100, layers=1), dtype="BF16")
        rows = self.sweep("m", "--formats", "int4,nvfp4", "--group-sizes", "16,tensor", "--scale-rules", "absmax,mse,search", "--smooth", "s", "--alphas", "0,0.45")
        self.assertGreaterEqual(self.check_against_convert("m", rows), 10)
        rows = self.sweep("m", "--formats", "int4", "--group-sizes", "tensor", "--scale-rules", "percentile,tqt", "--smooth", "s", "--alphas", "0.45")
        self.assertEqual(self.check_against_convert("m", rows), 2)

    def test_experts_and_norms_stored_as_gain_minus_one(self):
        for model in (smooth_models.mixtral(3), smooth_models.gemma(4, 2)):
            with self.subTest(model=model.arch):
                self.made(model, name=model.arch, dtype="F16")
                rows = self.sweep(model.arch, "--formats", "int4,nvfp4,mxfp4", "--group-sizes", "16,32", "--smooth", "s", "--alphas", "0,0.5")
                self.assertGreaterEqual(self.check_against_convert(model.arch, rows), 6)

    def test_without_alphas_the_default(self):
        rows = self.sweep(TINY, "--formats", "int4,int4:group=32,mxfp4", "--smooth", statistics())
        self.assertEqual(alphas(rows), ["default"])
        for row in rows:
            self.assertNotIn("--alpha", row["settings"])
        self.assertEqual(self.check_against_convert(TINY, rows), 3)

    def test_options_of_the_search_go_to_those_that_search(self):
        more = ["--smooth-groups", "norm,updown", "--alpha-max", "0.6", "--do-blockwise", "--smooth-clamp", "1e-2"]
        rows = self.sweep(TINY, "--formats", "int4", "--smooth", statistics(), "--alphas", "0,0.5,auto", *more)
        settings = {row["alpha"]: row["settings"] for row in rows}
        self.assertNotIn("smooth", settings[0])
        self.assertNotIn("--alpha-max", settings[0.5])
        self.assertIn("--smooth-groups norm,updown", settings[0.5])
        self.assertIn("--alpha-max 0.6 --do-blockwise", settings["auto"])
        self.assertEqual(self.check_against_convert(TINY, rows), 3)

    def test_tensors_of_one_role(self):
        rows = self.sweep(TINY, "--formats", "nvfp4", "--smooth", statistics(), "--alphas", "0,0.5", "--tensors", "role:q")
        for settings, group in self.variants(rows).items():
            self.ok("convert", "--in", TINY, "--out", "one.llmq", "--force", "--quiet", *shlex.split(settings))
            hashes = {t["name"]: t["hash"] for t in self.ok_json("inspect", "one.llmq", "--hashes")["tensors"]}
            for row in group:
                if row["scope"] == "tensor":
                    self.assertEqual(row["hash"], hashes[row["name"]], settings)

    @unittest.skipIf(LIGHT, "slow")
    def test_the_same_for_threads_memory_and_kernels(self):
        self.made(smooth_models.llama(1, heads=8, kv=2, hd=32, hidden=256, ffn=1200, layers=1), dtype="BF16")
        args = ["--formats", "int4,nvfp4,mxfp4", "--group-sizes", "16,32,tensor", "--scale-rules", "mse,search", "--smooth", "s", "--alphas", "0.5,auto", "--alpha-step", "0.5", "--imatrix", "s"]
        seen = set()
        for env in ({}, {"LLMQ_KERNELS": "portable"}):
            for more in (["--threads", "1", "--max-ram", "16M"], ["--threads", "7"]):
                self.sweep("m", *args, *more, env=env)
                seen.add((read_bytes(self.path("s.csv")), read_bytes(self.path("s.json"))))
        self.assertEqual(len(seen), 1)
        self.check_against_convert("m", self.document["rows"])

    def test_settings_are_words_of_a_shell(self):
        shutil.copy(statistics(), self.path("it's S"))
        rows = self.sweep(TINY, "--formats", "int4", "--smooth", "it's S", "--alphas", "0.5")
        self.assertEqual(self.check_against_convert(TINY, rows), 1)


class Figures(SmoothSweepTest):
    def test_weighed_error_is_of_the_migrated_weights_and_inputs(self):
        name, ident = "model.layers.1.mlp.down_proj.weight", "model.layers.1.mlp.up_proj"
        rows = self.sweep(TINY, "--formats", "int4,mxfp4", "--group-sizes", "32", "--scale-rules", "mse,search", "--smooth", statistics(), "--alphas", "0,0.5,auto",
                          "--imatrix", statistics())
        self.assertTrue(self.document["weighted"])
        sums = read_safetensors(statistics())[f"{name}.in_sum2"][1].astype(np.float64).ravel()
        w = read_safetensors(os.path.join(TINY, "model.safetensors"))[name][1].astype(np.float32)
        self.assertEqual(len(self.variants(rows)), 6)
        for settings, group in self.variants(rows).items():
            columns = np.ones(w.shape[1], np.float32)
            recipe = ["--smooth-recipe-out", "R.json"] if "--smooth" in settings else []
            self.ok("convert", "--in", TINY, "--out", "o.llmq", "--force", "--quiet", *shlex.split(settings), *recipe)
            if recipe:
                found = Recipe(self.path("R.json"))
                if ident in found.groups:
                    columns = found.columns(ident)
            self.ok("extract", "o.llmq", name, "--out", "t.safetensors", "--dtype", "f32", "--force", "--quiet")
            y = read_safetensors(self.path("t.safetensors"))[name][1].astype(np.float64)
            x = (w * columns).astype(np.float64)
            weight = sums / columns.astype(np.float64)**2
            weight = weight / weight.mean()
            row = next(r for r in group if r["name"] == name)
            self.assertAlmostEqual(row["wsqnr_db"], 10 * np.log10(np.sum(weight * x * x) / np.sum(weight * (x - y)**2)), places=4, msg=settings)
            self.assertAlmostEqual(row["sqnr_db"], 10 * np.log10(np.sum(x * x) / np.sum((x - y)**2)), places=4, msg=settings)
            if "--alpha 0.5" in settings:
                self.assertFalse(np.all(columns == 1))

    def test_perplexity_is_that_of_the_file(self):
        short = write_bytes(self.path("short.txt"), read_bytes(TEXT)[:1200])
        common = ["--keep", "*k_proj*"]
        rows = self.sweep(TINY, "--formats", "int3,nvfp4", "--smooth", statistics(), "--alphas", "0,0.5", "--eval-text", short, "--seq", "128", *common)
        for settings, group in self.variants(rows).items():
            self.ok("convert", "--in", TINY, "--out", "o.llmq", "--force", "--quiet", *shlex.split(settings), *common)
            there = self.ok_json("eval", "--in", "o.llmq", "--against", TINY, "--text", short, "--seq", "128")
            self.assertAlmostEqual(group[-1]["perplexity"], there["perplexity"], places=6, msg=settings)
            self.assertAlmostEqual(group[-1]["kl"], there["kl_mean"], places=8, msg=settings)
        only = self.sweep(TINY, "--formats", "int8", "--smooth", statistics(), "--alphas", "0.5", "--eval-text", short, "--seq", "128", "--tensors", "role:down")
        self.assertLess(only[-1]["kl"], 1e-3)  # what is left out is migrated too, else the function were another


class Resume(SmoothSweepTest):
    ARGS = ["--in", TINY, "--formats", "int4", "--group-sizes", "32,64", "--smooth", "s", "--alphas", "0,0.5,auto", "--imatrix", "s"]

    @unittest.skipIf(LIGHT, "slow")
    def test_gone_on_with(self):
        """A run whose last step fails leaves the state of all tensors; of that some lines, as after a kill."""
        shutil.copy(statistics(), self.path("s"))
        self.sweep(*self.ARGS[1:])
        self.check_refusal(self.llmq("sweep", *self.ARGS, "--csv", "k.csv", "--json", "nowhere/k.json"), 1, "sweep", "nowhere")
        lines = read_bytes(self.path("k.csv.state")).splitlines(keepends=True)
        self.assertEqual(len(lines), 30)
        state = b"".join(lines[:14])
        for cut, done in ((state, 13), (b"".join(lines), 29), (state[:-40], 12)):
            write_bytes(self.path("k.csv.state"), cut)
            result = self.ok("sweep", *self.ARGS, "--csv", "k.csv", "--json", "k.json", "--resume", "--force", "--threads", "2")
            self.assertIn(f"going on with 'k.csv.state': {done} of 29 tensors", result.err)
            for end in ("csv", "json"):
                self.assertEqual(read_bytes(self.path("k." + end)), read_bytes(self.path("s." + end)))
        write_bytes(self.path("k.csv.state"), state)
        more = ["--csv", "k.csv", "--json", "k.json", "--resume", "--force"]
        for old, new in (("0,0.5,auto", "0,0.5"), ("0,0.5,auto", "0,auto,0.5"), ("0,0.5,auto", "0,0.6,auto")):
            self.refused(2, ["sweep", *[new if a == old else a for a in self.ARGS], *more], "of other options or of another model")
        self.refused(2, ["sweep", *self.ARGS, *more, "--alpha-max", "0.7"], "of other options or of another model")
        os.utime(self.path("s"), (1, 1))  # other statistics
        self.refused(2, ["sweep", *self.ARGS, *more], "of other options or of another model")


class Outputs(SmoothSweepTest):
    def test_words_in_every_output(self):
        self.ok("sweep", "--in", TINY, "--formats", "int4,mxfp4", "--group-sizes", "32,channel", "--smooth", statistics(), "--alphas", "0,0.25,auto", "--report", "r.html", "--csv", "s.csv")
        page = read_bytes(self.path("r.html")).decode()
        for needle in ("int4 32 α auto", "int4 32 α 0.25", "<td class=\"n\">auto</td>"):
            self.assertIn(needle, page)
        with open(self.path("s.csv"), newline="") as f:
            self.assertEqual({r["alpha"] for r in base.csv.DictReader(f)}, {"0", "0.25", "auto"})
        shown = self.ok("sweep", "--in", TINY, "--formats", "int4", "--smooth", statistics(), "--alphas", "0,auto,auto").out
        self.assertRegex(shown, r"int4 +128 +absmax +auto +\d")
        self.assertRegex(shown, r"skipped: the same as int4, group size 128, scale rule absmax, alpha auto")

    def test_a_variant_that_cannot_migrate_is_listed(self):
        rows = self.sweep(TINY, "--formats", "int4,mxfp4", "--smooth", statistics(), "--alphas", "0,0.5,auto", "--smooth-family", "any")
        skipped = {(r["format"], r["alpha"]): r["skipped"] for r in rows if r["skipped"]}
        self.assertEqual(set(skipped), {("int4", 0.5), ("mxfp4", 0.5)})
        self.assertIn("--smooth-family any needs --alpha auto", skipped[("int4", 0.5)])

    def test_a_kept_number_that_becomes_infinite_fails_its_variant_alone(self):
        model = smooth_models.llama(1)
        tensors = {n: x.copy() for n, x in model.tensors.items()}
        tensors["model.layers.1.self_attn.k_proj.weight"][3, :] = 6e4
        save_model(self.path("m"), model, dtype="F16", tensors=tensors)
        write_stats(self.path("s"), model.statistics())
        common = ["--smooth", "s", "--keep", "*k_proj*"]
        rows = self.sweep("m", "--formats", "int4,nvfp4", "--alphas", "0,0.5", *common)
        skipped = {(r["format"], r["alpha"]): r["skipped"] for r in rows if r["skipped"]}
        self.assertEqual(set(skipped), {("int4", 0.5), ("nvfp4", 0.5)})
        for reason in skipped.values():
            self.assertRegex(reason, "layers.1.self_attn.k_proj.weight': a number near row 0, column 0 becomes too large for F16 when it is migrated")
        self.assertEqual(self.check_against_convert("m", rows, "--keep", "*k_proj*"), 2)
        self.refused(1, ["convert", "--in", "m", "--format", "int4", "--alpha", "0.5", "--out", "x.llmq", *common], "cannot migrate tensor", tree=False)

    def test_factors_count_as_memory(self):
        self.made(smooth_models.llama(1, heads=8, kv=2, hd=4, hidden=32, ffn=200000, layers=1), dtype="BF16")
        self.ok("sweep", "--in", "m", "--formats", "int4", "--max-ram", "16M", "--threads", "1", "--quiet")
        many = ",".join(f"0.{k}" for k in range(10, 30))
        self.refused(1, ["sweep", "--in", "m", "--formats", "int4", "--smooth", "s", "--alphas", many, "--max-ram", "16M", "--threads", "1"], "--max-ram 16M is too small")


class Refusals(SmoothSweepTest):
    def test_words_that_mean_nothing(self):
        s = ["--smooth", statistics()]
        for args, needle in ((["--alphas", "0.5"], "--alphas '0.5' needs --smooth"), (["--alphas", "auto"], "--alphas 'auto' needs --smooth"),
                             ([*s, "--alphas", "1.5"], "'1.5' is neither a number from 0 to 1 nor auto"), ([*s, "--alphas", "0,,1"], "empty entry"),
                             ([*s, "--alphas", "0.5x"], "'0.5x'"), ([*s, "--alphas", "-0.5"], "'-0.5'"), ([*s, "--alphas", "."], "'.'"), ([*s, "--alphas", "nan"], "'nan'"),
                             ([*s, "--alphas", "default"], "'default'"), ([*s, "--alpha", "0.5"], "--alpha does not belong"),
                             ([*s, "--alphas", "0,0.5", "--alpha-min", "0.1"], "--alpha-min needs auto among the --alphas"),
                             (["--smooth-family", "awq"], "--smooth-family needs --smooth"), ([*s, "--smooth-runtime"], "does not belong"),
                             ([*s, "--folding", "off"], "does not belong"), ([*s, "--smooth-groups", "x"], "'x' is none of"),
                             ([*s, "--smooth-groups", "mla"], "no group could be migrated")):
            self.refused(2, ["sweep", "--in", TINY, "--formats", "int4", *args], needle)
        self.refused(1, ["sweep", "--in", TINY, "--formats", "int4", "--smooth", "nope.safetensors", "--alphas", "0.5"], "nope.safetensors")

    def test_a_recipe_may_not_migrate_by_itself(self):
        write_bytes(self.path("r.yaml"), f"smooth: {statistics()}\nalpha: 0.5\n".encode())
        self.refused(2, ["sweep", "--in", TINY, "--formats", "int4", "--recipe", "r.yaml"], "the recipe migrates")
        rows = self.sweep(TINY, "--formats", "int4", "--recipe", "r.yaml", "--smooth", statistics(), "--alphas", "0,0.5")
        self.assertEqual(self.check_against_convert(TINY, rows), 2)
        write_bytes(self.path("r.yaml"), b"folding: off\n")
        self.refused(2, ["sweep", "--in", TINY, "--formats", "int4", "--recipe", "r.yaml", "--smooth", statistics()], "may not set")

    def test_a_budget_does_not_migrate(self):
        for target in (["--target-bpw", "4.5"], ["--target-size", "800K"]):
            for command in ("convert", "plan"):
                self.refused(2, [command, "--in", TINY, *target, "--smooth", statistics(), "--out", "o.llmq"], target[0], "run llmq smooth first, then convert what it wrote")
        self.ok("smooth", "--in", TINY, "--smooth", statistics(), "--format", "int4", "--out", "smoothed", "--quiet")
        self.ok("convert", "--in", "smoothed", "--target-bpw", "6", "--out", "o.llmq", "--quiet")


if __name__ == "__main__":
    unittest.main()
