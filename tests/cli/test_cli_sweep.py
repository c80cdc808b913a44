"""sweep: rows against separate conversions by hash, figures against numpy, skipped combinations, samples, resuming, outputs, refusals."""
import csv
import io
import shlex
import signal
import unittest

from cli_support import *

COLUMNS = ["format", "group_size", "scale_rule", "alpha", "scope", "name", "bpw", "role", "layer", "tensor_format", "weights", "measured", "bits",
           "plane_bpw", "mse", "sqnr_db", "wsqnr_db", "max_error", "clipped", "perplexity", "kl", "hash", "sample",
           "settings", "skipped"]


class SweepTest(CliTest):
    def sweep(self, model, *args, **kwargs):
        """Rows as the JSON has them; the CSV must say the same."""
        self.ok("sweep", "--in", model, "--csv", "s.csv", "--json", "s.json", "--force", "--quiet", *args, **kwargs)
        with open(self.path("s.json")) as f:
            self.document = json.load(f)
        with open(self.path("s.csv"), newline="") as f:
            rows = list(csv.DictReader(f))
        self.assertEqual(len(rows), len(self.document["rows"]))
        for a, b in zip(rows, self.document["rows"]):
            self.assertEqual(list(a), COLUMNS)
            self.assertEqual(list(b), COLUMNS)
            for key in COLUMNS:
                if b[key] is None:
                    self.assertIn(a[key], ("", "nan", "inf", "-inf"), key)
                elif isinstance(b[key], str):
                    self.assertEqual(a[key], b[key])
                else:
                    self.assertEqual(float(a[key]), b[key])
        return self.document["rows"]

    def variants(self, rows):
        found = {}
        for row in rows:
            if row["skipped"] is None:
                found.setdefault(row["settings"], []).append(row)
        return found

    def check_against_convert(self, model, rows, *common, move=1):
        """Every variant's rows against a conversion with its settings: hashes, bits, errors, the size of the file; of some variants what is recorded when
        the file is moved."""
        variants = self.variants(rows)
        for number, (settings, group) in enumerate(variants.items()):
            report = self.ok_json("convert", "--in", model, "--out", "one.llmq", "--force", "--compress", "none", *shlex.split(settings), *common)
            hashes = {t["name"]: t["hash"] for t in self.ok_json("inspect", "one.llmq", "--hashes")["tensors"]}
            moved = hashes
            if number % 7 == move % 7:
                self.ok("convert", "--in", "one.llmq", "--out", "moved.llmq", "--force", "--quiet", "--format", "int8", "--keep", "*")
                moved = {t["name"]: t["source_digest"] for t in self.ok_json("inspect", "moved.llmq")["tensors"]}
            tensors = self.entries(report)
            names = [r["name"] for r in group if r["scope"] == "tensor"]
            self.assertEqual(names, [t["name"] for t in report["tensors"]], settings)
            for row in group:
                if row["scope"] != "tensor":
                    continue
                there = tensors[row["name"]]
                self.assertEqual(row["hash"], hashes[row["name"]], (settings, row["name"]))
                self.assertEqual(row["hash"], moved[row["name"]], (settings, row["name"]))
                self.assertEqual(row["bits"], 8 * there["nbytes"])
                self.assertEqual(row["tensor_format"], there["format"])
                if row["measured"]:
                    self.assertLessEqual(abs(row["mse"] - there["mse"]), 1e-8 * there["mse"])
                    self.assertLessEqual(abs(row["max_error"] - there["max_error"]), 1e-7 * there["max_error"])
            total = group[-1]
            self.assertEqual((total["scope"], total["name"]), ("total", "total"))
            size = os.path.getsize(self.path("one.llmq"))
            self.assertEqual(total["bits"], 8 * size)
            self.assertAlmostEqual(total["bpw"], 8 * size / total["weights"], places=9)
        return len(variants)


class Hashes(SweepTest):
    def test_bundled_model(self):
        rows = self.sweep(TINY, "--formats", "int4,int3,mxfp4,bfp16,nvfp4", "--group-sizes", "16,32,64,128")
        self.assertEqual(self.check_against_convert(TINY, rows), 20)

    def test_every_kind_of_group(self):
        rows = self.sweep(TINY, "--formats", "uint4,nf4,fp8_e4m3,q8_0,q4_k,mx6,bf16", "--group-sizes", "32,channel,tensor,128x128,256")
        self.assertGreaterEqual(self.check_against_convert(TINY, rows), 15)

    @unittest.skipIf(LIGHT, "slow")
    def test_every_rule(self):
        rules = "absmax,mse,minmax,percentile,mse-hist,histogram-pro,3sd,kl-j,tqt,lsq,pact,floor,even,ceil,rceil,search,reference"
        rows = self.sweep(TINY, "--formats", "int4,mxfp4,uint3,bfp12", "--scale-rules", rules, "--tensors", "role:down")
        self.assertEqual(len(self.variants(rows)), 30)
        for settings, group in self.variants(rows).items():
            self.ok("convert", "--in", TINY, "--out", "one.llmq", "--force", "--quiet", *shlex.split(settings))
            hashes = {t["name"]: t["hash"] for t in self.ok_json("inspect", "one.llmq", "--hashes")["tensors"]}
            for row in group:
                if row["scope"] == "tensor":
                    self.assertEqual(row["hash"], hashes[row["name"]], settings)

    def awkward(self):
        """Long rows, stacks, tails, every float dtype, fused sets."""
        shapes = {"model.embed_tokens.weight": ("BF16", (40, 48)), "model.layers.0.self_attn.q_proj.weight": ("BF16", (600, 500)),
                  "model.layers.0.self_attn.k_proj.weight": ("F16", (300, 500)), "model.layers.0.self_attn.v_proj.weight": ("F32", (300, 500)),
                  "model.layers.0.mlp.down_proj.weight": ("BF16", (2, 300001)), "model.layers.0.mlp.up_proj.weight": ("F64", (350, 900)),
                  "model.layers.1.mlp.experts.gate_up_proj": ("BF16", (5, 100, 300)), "model.layers.1.mlp.gate_proj.weight": ("BF16", (131, 257)),
                  "model.layers.1.mlp.up_proj.weight": ("BF16", (131, 257)), "model.norm.weight": ("BF16", (48,))}
        tensors = {n: (d, s, random_weights(i, *s, scale=0.02 * (1 + i))) for i, (n, (d, s)) in enumerate(shapes.items())}
        tensors["ids"] = ("I64", (1, 8), np.arange(8))
        return write_model(self.path("awkward.safetensors"), tensors)

    def test_groups_over_tiles_stacks_and_fused_sets(self):
        model = self.awkward()
        rows = self.sweep(model, "--formats", "int4,uint3,mxfp4,nvfp4,fp8_e4m3,mx6,int5:rule=mse,q8_0", "--group-sizes", "32,48,channel,tensor,128x128")
        self.assertGreater(self.check_against_convert(model, rows), 20)

    @unittest.skipIf(LIGHT, "slow")
    def test_observed_and_learned_scales_of_whole_tensors(self):
        model = self.awkward()
        rows = self.sweep(model, "--formats", "int4", "--group-sizes", "tensor", "--scale-rules", "absmax,mse,percentile,tqt,lsq,pact,kl-j,histogram-pro")
        self.assertEqual(self.check_against_convert(model, rows), 8)

    def test_rules_keeps_and_what_is_quantised_already(self):
        model = self.awkward()
        common = ["--keep", "*up_proj*", "--rule", "role:down=int8", "--scale-dtype", "f16"]
        rows = self.sweep(model, "--formats", "nvfp4,int4", *common)
        self.assertEqual(len([r for r in rows if r["skipped"]]), 1)
        self.assertEqual(self.check_against_convert(model, rows, "--keep", "*up_proj*", "--rule", "role:down=int8"), 1)
        self.ok("convert", "--in", model, "--out", "q.llmq", "--format", "int4", "--quiet", *common)
        rows = self.sweep("q.llmq", "--formats", "int4,mxfp4", "--scale-dtype", "f16", "--allow-requantize")
        self.sweep("q.llmq", "--formats", "int4,mxfp4", "--allow-requantize")

    @unittest.skipIf(LIGHT, "slow")
    def test_smoothing(self):
        text = os.path.join(ROOT, "tests", "data", "tiny-text.txt")
        short = write_bytes(self.path("short.txt"), read_bytes(text)[:1500])
        self.ok("calibrate", "--in", TINY, "--text", short, "--out", "st.safetensors", "--seq", "128", "--quiet")
        stats = self.path("st.safetensors")
        rows = self.sweep(TINY, "--formats", "int4,nvfp4,q8_0,fp8_e4m3", "--group-sizes", "32,128x128", "--smooth", stats, "--alphas", "0,0.5")
        self.assertEqual({r["alpha"] for r in rows}, {0, 0.5})
        self.assertEqual(self.check_against_convert(TINY, rows), 10)
        rows = self.sweep(TINY, "--formats", "nvfp4", "--smooth", stats, "--alphas", "0.5", "--eval-text", short, "--seq", "128", "--imatrix", stats)
        self.assertEqual(self.check_against_convert(TINY, rows, "--imatrix", stats), 1)
        there = self.ok_json("eval", "--in", "one.llmq", "--against", TINY, "--text", short, "--seq", "128")
        self.assertAlmostEqual(rows[-1]["perplexity"], there["perplexity"], places=6)

    @unittest.skipIf(LIGHT, "slow")
    def test_the_same_for_threads_memory_and_kernels(self):
        model = self.awkward()
        args = ["--formats", "int4,uint3,mxfp4,nvfp4,fp8_e4m3,mx6", "--group-sizes", "32,channel,tensor,128x128", "--scale-rules", "absmax,mse,tqt"]
        seen = set()
        for env in ({}, {"LLMQ_KERNELS": "portable"}):
            for more in (["--threads", "1", "--max-ram", "16M"], ["--threads", "2"], ["--threads", "7", "--max-ram", "64M"]):
                self.sweep(model, *args, *more, env=env)
                seen.add((read_bytes(self.path("s.csv")), read_bytes(self.path("s.json"))))
        self.assertEqual(len(seen), 1)


class Figures(SweepTest):
    def test_against_numpy(self):
        x = {"model.layers.0.mlp.up_proj.weight": random_weights(1, 30, 96), "model.layers.0.mlp.down_proj.weight": random_weights(2, 20, 64),
             "model.layers.1.mlp.down_proj.weight": random_weights(3, 20, 64, scale=0.5)}
        x["model.layers.0.mlp.up_proj.weight"][3, 5] = 1.0
        model = write_model(self.path("m.safetensors"), {n: ("F32", v.shape, v) for n, v in x.items()})
        rows = self.sweep(model, "--formats", "int4,int3:rule=mse,mxfp4,uint4,nf4:scale=bf16", "--group-sizes", "32")
        for settings, group in self.variants(rows).items():
            self.ok("convert", "--in", model, "--out", "o.llmq", "--force", "--quiet", *shlex.split(settings))
            y = {}
            for name in x:
                self.ok("extract", "o.llmq", name, "--out", "t.safetensors", "--dtype", "f32", "--force", "--quiet")
                raw = read_bytes(self.path("t.safetensors"))
                y[name] = np.frombuffer(raw[-x[name].nbytes:], np.float32).reshape(x[name].shape)
            for row in group:
                chosen = [n for n in x if row["scope"] == "total" or n == row["name"] or (row["scope"] == "role" and row["name"] == n.split(".")[-2][:-5])]
                d = np.concatenate([(x[n].astype(np.float64) - y[n]).ravel() for n in chosen])
                s = np.concatenate([x[n].astype(np.float64).ravel() for n in chosen])
                self.assertAlmostEqual(row["mse"] / np.mean(d * d), 1.0, places=6)
                self.assertAlmostEqual(row["sqnr_db"], 10 * np.log10(np.sum(s * s) / np.sum(d * d)), places=5)
                self.assertAlmostEqual(row["max_error"] / np.max(np.abs(d)), 1.0, places=6)
                self.assertEqual(row["weights"], len(d))
                self.assertEqual(row["measured"], len(d))
                if row["scope"] == "tensor":
                    clipped = self.clipped(settings, x[row["name"]], y[row["name"]])
                    self.assertAlmostEqual(row["clipped"] * len(d), clipped, places=6, msg=(settings, row["name"]))

    def clipped(self, settings, x, y):
        """Weights farther beyond the last level than half the last step. Levels are those of the format; the scale of a group is found from its weights."""
        levels = {"int4": np.arange(-8, 8), "int3": np.arange(-4, 4), "mxfp4": np.array([-6, -4, -3, -2, -1.5, -1, -.5, 0, .5, 1, 1.5, 2, 3, 4, 6]), "uint4": None,
                  "nf4": None}[settings.split()[1].split(":")[0]]
        if levels is None:
            return self.clipped_by_codes(settings, x, y)
        count = 0
        for r in range(x.shape[0]):
            for c in range(0, x.shape[1], 32):
                a, b = x[r, c:c + 32].astype(np.float64), y[r, c:c + 32].astype(np.float64)
                scale = self.scale_of(b, levels)
                high, low = levels[-1] * scale, levels[0] * scale
                up, down = (levels[-1] - levels[-2]) / 2 * scale, (levels[1] - levels[0]) / 2 * scale
                count += np.sum((np.abs(b - high) < 1e-9) & (a - high > up * (1 + 1e-6))) + np.sum((np.abs(b - low) < 1e-9) & (low - a > down * (1 + 1e-6)))
        return count

    def scale_of(self, y, levels):
        """The largest scale under which all of y are levels."""
        top = np.max(np.abs(y))
        for level in sorted(set(np.abs(levels)) - {0}):
            scale = top / level
            near = np.min(np.abs(y[:, None] / scale - levels[None, :]), axis=1)
            if np.all(near < 1e-5):
                best = scale
                break
        return best

    def clipped_by_codes(self, settings, x, y):
        """By the planes themselves."""
        name = [n for n, v in self._current().items() if v.shape == x.shape and np.array_equal(v, x)][0]
        shutil.rmtree(self.path("raw"), ignore_errors=True)
        self.ok("extract", "o.llmq", name, "--raw", "--out", "raw", "--quiet")
        planes = {f.split(".")[-1]: read_bytes(self.path("raw", f)) for f in os.listdir(self.path("raw"))}
        codes = np.frombuffer(planes["codes"], np.uint8)
        codes = np.stack([codes & 15, codes >> 4], 1).reshape(x.shape)
        scales = (np.frombuffer(planes["scales"], np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(x.shape[0], -1).astype(np.float64)
        scale = np.repeat(scales, 32, axis=1)[:, :x.shape[1]]
        nf4 = settings.split()[1].startswith("nf4")
        up = (1 - 0.7229568362236023) / 2 if nf4 else 0.5
        down = (1 - 0.6961928009986877) / 2 if nf4 else 0.5
        d = x.astype(np.float64) - y
        return np.sum((codes == 15) & (d > up * scale * (1 + 1e-7))) + np.sum((codes == 0) & (-d > down * scale * (1 + 1e-7)))

    def _current(self):
        raw = read_bytes(self.path("m.safetensors"))
        n = struct.unpack("<Q", raw[:8])[0]
        return {k: np.frombuffer(raw[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]], np.float32).reshape(v["shape"])
                for k, v in json.loads(raw[8:8 + n]).items()}

    def test_weighed_error(self):
        x = random_weights(5, 24, 64)
        weight = np.random.default_rng(6).random(64).astype(np.float32) * 3 + 0.01
        model = write_model(self.path("m.safetensors"), {"model.layers.0.mlp.down_proj.weight": ("F32", x.shape, x),
                                                         "model.layers.1.mlp.down_proj.weight": ("F32", x.shape, x)})
        name = "model.layers.0.mlp.down_proj.weight"
        data = struct.pack("<i", 1) + struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", 10, 64) + (weight * 10).tobytes()
        write_bytes(self.path("im.dat"), data)
        rows = self.sweep(model, "--formats", "int4,mxfp4,q8_0", "--group-sizes", "32", "--imatrix", "im.dat", "--scale-rules", "mse")
        self.assertTrue(self.document["weighted"])
        w = weight.astype(np.float64) / weight.max()
        w = w * 64 / w.sum()
        for settings, group in self.variants(rows).items():
            self.ok("convert", "--in", model, "--out", "o.llmq", "--force", "--quiet", *shlex.split(settings))
            self.ok("extract", "o.llmq", name, "--out", "t.safetensors", "--dtype", "f32", "--force", "--quiet")
            y = np.frombuffer(read_bytes(self.path("t.safetensors"))[-x.nbytes:], np.float32).reshape(x.shape)
            d, s = x.astype(np.float64) - y, x.astype(np.float64)
            self.assertAlmostEqual(group[0]["wsqnr_db"], 10 * np.log10(np.sum(w * s * s) / np.sum(w * d * d)), places=4, msg=settings)

    def test_kept_tensors_count(self):
        rows = self.sweep(self.small(), "--formats", "int4")
        total = rows[-1]
        tensors = [r for r in rows if r["scope"] == "tensor"]
        self.assertEqual(total["weights"], sum(r["weights"] for r in tensors))
        self.assertAlmostEqual(total["plane_bpw"], sum(r["bits"] for r in tensors) / total["weights"], places=9)
        for role in {r["role"] for r in tensors}:
            row = next(r for r in rows if r["scope"] == "role" and r["name"] == role)
            self.assertEqual(row["bits"], sum(r["bits"] for r in tensors if r["role"] == role))
        norm = next(r for r in tensors if r["name"] == "model.norm.weight")
        self.assertEqual((norm["tensor_format"], norm["measured"], norm["mse"], norm["bpw"], norm["sqnr_db"]), ("keep", 0, 0, 16, None))

    def test_perplexity_is_that_of_the_file(self):
        text = os.path.join(ROOT, "tests", "data", "tiny-text.txt")
        short = write_bytes(self.path("short.txt"), read_bytes(text)[:1500])
        rows = self.sweep(TINY, "--formats", "int3,nvfp4", "--eval-text", short, "--seq", "128")
        for settings, group in self.variants(rows).items():
            self.ok("convert", "--in", TINY, "--out", "o.llmq", "--force", "--quiet", *shlex.split(settings))
            there = self.ok_json("eval", "--in", "o.llmq", "--against", TINY, "--text", short, "--seq", "128")
            self.assertAlmostEqual(group[-1]["perplexity"], there["perplexity"], places=6)
            self.assertAlmostEqual(group[-1]["kl"], there["kl_mean"], places=8)
            self.assertAlmostEqual(self.document["reference_perplexity"], there["perplexity_against"], places=6)
        only = self.sweep(TINY, "--formats", "int3", "--eval-text", short, "--seq", "128", "--tensors", "role:down")
        self.assertLess(only[-1]["perplexity"], group[-1]["perplexity"] + 10)
        self.assertIsNotNone(only[-1]["perplexity"])


class Skipped(SweepTest):
    def test_reasons(self):
        rows = self.sweep(TINY, "--formats", "mxfp4,int4", "--group-sizes", "32,channel", "--scale-rules", "absmax,mse,search")
        skipped = {(r["format"], r["group_size"], r["scale_rule"]): r for r in rows if r["skipped"]}
        self.assertIn("channel", skipped[("mxfp4", "channel", "search")]["skipped"])
        self.assertIn("does not take scale rule 'absmax'", skipped[("mxfp4", "32", "absmax")]["skipped"])
        self.assertIn("does not take scale rule 'search'", skipped[("int4", "32", "search")]["skipped"])
        self.assertIn("the same as", skipped[("mxfp4", "32", "search")]["skipped"])
        for row in skipped.values():
            self.assertEqual((row["scope"], row["name"], row["bpw"], row["hash"]), ("total", "total", None, None))
        shown = self.ok("sweep", "--in", TINY, "--formats", "mxfp4,int4", "--group-sizes", "32,channel").out
        self.assertIn("skipped: ", shown)
        noted = self.ok("sweep", "--in", TINY, "--formats", "mxfp4,int4", "--group-sizes", "32,channel", "--csv", "-").err
        self.assertIn("note: skipped mxfp4, group size channel", noted)

    def test_an_overflowing_variant_is_skipped_and_the_rest_goes_on(self):
        x = random_weights(1, 64, 64)
        x[40, 3] = 3e7
        model = write_model(self.path("m.safetensors"), {"model.layers.0.mlp.up_proj.weight": ("F32", (64, 64), x)})
        rows = self.sweep(model, "--formats", "mxfp4,q8_0,int4,int4:scale=f16", "--group-sizes", "32")
        by = {r["format"]: r for r in rows if r["scope"] == "total"}
        self.assertIn("row 40", by["q8_0"]["skipped"])
        self.assertIn("too large for scales of type f16", by["int4:scale=f16"]["skipped"])
        self.assertIsNone(by["int4"]["skipped"])
        self.assertEqual(self.check_against_convert(model, rows), 2)

    def test_nothing_makes_sense(self):
        self.refused(2, ["sweep", "--in", TINY, "--formats", "mxfp4", "--group-sizes", "channel,tensor"], "none of the 2 combinations")

    def test_words_that_mean_nothing(self):
        for args, needle in ((["--formats", "int4,intx"], "unknown format 'intx'"), (["--formats", "int4", "--group-sizes", "32,x"], "'x'"),
                             (["--formats", "int4", "--scale-rules", "abmax"], "'abmax'"), (["--formats", "int4,,mxfp4"], "empty entry"),
                             ([], "--formats is missing"), (["--formats", "int4", "--sample", "0"], "--sample '0'"), (["--formats", "int4", "--sample", "1.5"], "1.5"),
                             (["--formats", "int4", "--tensors", "nope*"], "selects no tensor"), (["--formats", "int4", "--alphas", "0.5"], "--smooth"),
                             (["--formats", "int4", "--csv", "a", "--json", "a"], "the same file"), (["--formats", "int4", "--csv", "-", "--json", "-"], "stdout"),
                             (["--formats", "int4", "--resume"], "--resume needs"), (["--formats", "int4", "--histogram", "nope"], "nope"),
                             (["--formats", "int4", "extra"], "extra")):
            self.refused(2, ["sweep", "--in", TINY, *args], needle)
        self.refused(2, ["sweep", "--formats", "int4"], "--in is missing")

    def test_nan_is_refused_as_by_convert(self):
        x = random_weights(1, 64, 64)
        x[7, 9] = np.nan
        model = write_model(self.path("m.safetensors"), {"model.layers.0.mlp.up_proj.weight": ("BF16", (64, 64), x)})
        self.refused(1, ["sweep", "--in", model, "--formats", "int4,mxfp4"], "NaN or Inf at row 7, column 9", tree=False)
        rows = self.sweep(model, "--formats", "int4,mxfp4,q8_0", "--nonfinite", "zero")
        self.assertEqual(self.check_against_convert(model, rows, "--nonfinite", "zero"), 3)


class Sample(SweepTest):
    def test_a_share_of_the_tiles(self):
        x = random_weights(1, 2048, 1024)
        model = write_model(self.path("m.safetensors"), {"model.layers.0.mlp.up_proj.weight": ("BF16", x.shape, x)})
        rows = self.sweep(model, "--formats", "int4,nvfp4", "--sample", "0.25")
        self.assertIsNone(self.document["input_digest"])
        for settings, group in self.variants(rows).items():
            full = self.ok_json("convert", "--in", model, "--out", "o.llmq", "--force", *shlex.split(settings))["tensors"][0]
            self.assertEqual((group[0]["measured"], group[0]["weights"], group[0]["sample"]), (x.size // 4, x.size, 0.25))
            self.assertIsNone(group[0]["hash"])
            self.assertAlmostEqual(group[0]["sqnr_db"], full["sqnr_db"], places=1)
            self.assertEqual(group[0]["bits"], 8 * full["nbytes"])
        self.assertIn("(of a sample)", self.ok("sweep", "--in", model, "--formats", "int4", "--sample", "0.01").out)


class Resume(SweepTest):
    ARGS = ["--formats", "int4,mxfp4", "--group-sizes", "16,32", "--scale-rules", "mse,search"]

    def model(self):
        tensors = {f"model.layers.{i}.mlp.{n}_proj.weight": ("BF16", (256, 1024), random_weights(i, 256, 1024)) for i in range(12) for n in ("up", "down")}
        return write_model(self.path("m.safetensors"), tensors)

    def interrupt(self, model, sig, *args):
        process = start("sweep", "--in", model, "--csv", "k.csv", "--json", "k.json", "--threads", "1", *self.ARGS, *args, cwd=self.dir)
        state = self.path("k.csv.state")
        wait_for(lambda: os.path.exists(state) and read_bytes(state).count(b"\n") > 6, process, seconds=200)
        process.send_signal(sig)
        return finish(process)

    def test_killed_and_gone_on_with(self):
        model = self.model()
        self.sweep(model, *self.ARGS)
        for sig, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143)):
            for resume in ([], ["--resume"]):
                result = self.interrupt(model, sig)
                self.assertEqual(result.code, code, str(result))
                self.assertFalse(os.path.exists(self.path("k.csv")))
                result = self.ok("sweep", "--in", model, "--csv", "k.csv", "--json", "k.json", *self.ARGS, *resume)
                done = int(re.search(r"going on with 'k.csv.state': (\d+) of 24 tensors", result.err).group(1))
                self.assertGreaterEqual(done, 6)
                for end in ("csv", "json"):
                    self.assertEqual(read_bytes(self.path("k." + end)), read_bytes(self.path("s." + end)))
                    os.remove(self.path("k." + end))
                self.assertFalse(os.path.exists(self.path("k.csv.state")))

    def test_a_state_that_does_not_fit(self):
        model = self.model()
        self.interrupt(model, signal.SIGKILL)
        state = read_bytes(self.path("k.csv.state"))
        self.refused(2, ["sweep", "--in", model, "--csv", "k.csv", "--formats", "int4", "--resume"], "of other options or of another model")
        result = self.ok("sweep", "--in", model, "--csv", "k.csv", "--formats", "int4")
        self.assertIn("beginning anew", result.err)
        self.sweep(model, "--formats", "int4,int8")
        write_bytes(self.path("k.csv.state"), state)  # finished tensors of other variants, behind a first line of these
        process = start("sweep", "--in", model, "--csv", "k.csv", "--force", "--formats", "int4,int8", "--threads", "1", cwd=self.dir)
        wait_for(lambda: os.path.exists(self.path("k.csv.state")) and read_bytes(self.path("k.csv.state"))[:46] != state[:46], process)
        process.kill()
        finish(process)
        self.ok("sweep", "--in", model, "--csv", "k.csv", "--force", "--formats", "int4,int8")
        self.assertEqual(read_bytes(self.path("k.csv")), read_bytes(self.path("s.csv")))
        self.sweep(model, *self.ARGS)
        for damage in (state[:-20], state[:len(state) // 2], state[:100] + b"X" + state[101:], state + b"T 1 junk\n", state + b"\0" * 50, b"llmq-sweep 1 0\n"):
            write_bytes(self.path("k.csv.state"), damage)
            self.ok("sweep", "--in", model, "--csv", "k.csv", "--force", *self.ARGS)
            self.assertEqual(read_bytes(self.path("k.csv")), read_bytes(self.path("s.csv")))

    def test_the_model_changed(self):
        model = self.model()
        self.interrupt(model, signal.SIGKILL)
        os.utime(model, (1, 1))
        self.refused(2, ["sweep", "--in", model, "--csv", "k.csv", "--json", "k.json", *self.ARGS, "--resume"], "another model")

    def test_two_at_once(self):
        model = self.model()
        process = start("sweep", "--in", model, "--csv", "k.csv", "--threads", "1", *self.ARGS, cwd=self.dir)
        wait_for(lambda: os.path.exists(self.path("k.csv.state")), process)
        result = self.llmq("sweep", "--in", model, "--csv", "k.csv", *self.ARGS)
        if process.poll() is None:
            self.check_refusal(result, 1, "sweep", "in use by another run")
        process.kill()
        finish(process)


class Outputs(SweepTest):
    def test_stdout_is_the_csv_alone(self):
        out = self.ok("sweep", "--in", TINY, "--formats", "int4", "--csv", "-", "--quiet").out
        rows = list(csv.DictReader(io.StringIO(out)))
        self.assertEqual(rows[-1]["scope"], "total")
        self.assertEqual(json.loads(self.ok("sweep", "--in", TINY, "--formats", "int4", "--json", "-", "--quiet").out)["rows"][-1]["name"], "total")

    def test_names_are_quoted(self):
        name = 'model.layers.0.mlp,"x"\u00e9.up_proj.weight'
        model = write_model(self.path("m.safetensors"), {name: ("BF16", (32, 32), random_weights(1, 32, 32))})
        self.assertEqual(self.sweep(model, "--formats", "int4", "--rule", "*up_proj*=int4")[0]["name"], name)
        self.assertIn(b'"model.layers.0.mlp,""x""', read_bytes(self.path("s.csv")))
        self.assertIn(b"\r\n", read_bytes(self.path("s.csv")))

    def test_existing_outputs_are_kept(self):
        write_bytes(self.path("a.csv"), b"mine")
        self.refused(1, ["sweep", "--in", TINY, "--formats", "int4", "--csv", "a.csv"], "exists; use --force")
        self.ok("sweep", "--in", TINY, "--formats", "int4", "--csv", "a.csv", "--force", "--quiet")
        self.assertTrue(read_bytes(self.path("a.csv")).startswith(b"format,group_size,scale_rule,"))

    def test_memory_stays_bounded(self):
        if LIGHT:
            skip_aloud(self, "sanitizers take memory of their own")
        tensors = {f"model.layers.{i}.mlp.up_proj.weight": ("BF16", (2048, 2048), random_weights(i, 2048, 2048)) for i in range(6)}
        model = write_model(self.path("m.safetensors"), tensors)
        done = subprocess.run(["/usr/bin/env", "time", "-f", "%M", PROGRAM, "sweep", "--in", model, "--formats", "int4,mxfp4,int3", "--group-sizes", "32,128",
                               "--quiet", "--max-ram", "16M", "--csv", self.path("s.csv")], capture_output=True, text=True, env=environment())
        if done.returncode == 127:
            skip_aloud(self, "no program time")
        self.assertLess(int(done.stderr.split()[-1]), 20 << 10)


if __name__ == "__main__":
    unittest.main()
