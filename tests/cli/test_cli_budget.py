"""convert and plan under --target-bpw and --target-size: sizes, replayed recipes, fused sets, the solver's choice against brute force, refusals."""
import itertools

from cli_support import *

FUSED = (("q", "k", "v"), ("gate", "up"))


class BudgetTest(CliTest):
    def budget(self, model, *args, out="b.llmq", recipe="b.yaml"):
        """Converts; checks the prediction and that the recipe gives the same bytes again, without the options that made it."""
        report = self.ok_json("convert", "--in", model, "--out", out, "--recipe-out", recipe, "--force", *args)
        budget = report["budget"]
        size = os.path.getsize(self.path(out))
        self.assertLessEqual(size, budget["target_nbytes"])
        self.assertLessEqual(budget["predicted_nbytes"], budget["target_nbytes"])
        if budget["exact_size"]:
            self.assertEqual(size, budget["predicted_nbytes"])
        self.assertLessEqual(budget["bound"], budget["error"])
        self.ok("convert", "--in", model, "--out", "again" + os.path.splitext(out)[1], "--recipe", self.path(recipe), "--force", "--quiet")
        self.assertEqual(read_bytes(self.path(out)), read_bytes(self.path("again" + os.path.splitext(out)[1])))
        return report

    def check_fused(self, report):
        chosen = {}
        for tensor in report["tensors"]:
            for kind in FUSED:
                if tensor["role"] in kind and tensor["fate"] == "quantise":
                    chosen.setdefault((tensor["name"].rsplit(".", 2)[0], kind), set()).add((tensor["format"], tensor["group"]))
        self.assertTrue(chosen)
        for place, formats in chosen.items():
            self.assertEqual(len(formats), 1, place)


class Sizes(BudgetTest):
    def test_bundled_model(self):
        errors = []
        for bpw in ("4.3", "5", "5.6", "7", "9.5"):
            report = self.budget(TINY, "--target-bpw", bpw, "--compress", "none")
            budget = report["budget"]
            self.assertTrue(budget["exact_size"])
            self.assertAlmostEqual(budget["target_nbytes"], int(float(bpw) * report["weights"] / 8))
            self.assertEqual(sum(u["tensors"] for u in budget["uses"]), report["tensors_quantised"])
            self.check_fused(report)
            errors.append(budget["error"])
            self.assertAlmostEqual(sum(t["mse"] * np.prod(t["shape"]) for t in report["tensors"] if "mse" in t) / budget["error"], 1.0, places=5)
        self.assertEqual(errors, sorted(errors, reverse=True))

    def test_compressed_files_stay_below(self):
        for compress in ("default", "max"):
            budget = self.budget(TINY, "--target-size", "900K", "--compress", compress)["budget"]
            self.assertFalse(budget["exact_size"])
            self.assertEqual(budget["target_nbytes"], 900 << 10)

    def test_all_candidates_are_as_sweep_measures_them(self):
        report = self.budget(TINY, "--target-bpw", "5.2", "--compress", "none", "--candidates", "nvfp4,int3,mxfp4,q4_k,int4:group=32,scale=f16,bf16", "--align", "64")
        self.assertEqual([u["format"] for u in report["budget"]["uses"]], ["nvfp4", "int3", "mxfp4", "q4_k", "int4:group=32,scale=f16", "bf16"])
        self.assertAlmostEqual(sum(t["mse"] * np.prod(t["shape"]) for t in report["tensors"] if "mse" in t) / report["budget"]["error"], 1.0, places=5)

    def test_free_fused(self):
        model = write_model(self.path("m.safetensors"), {f"model.layers.0.self_attn.{r}_proj.weight": ("BF16", (256, 256), random_weights(i, 256, 256, scale=s))
                                                         for i, (r, s) in enumerate((("q", 0.5), ("k", 0.01), ("v", 0.01)))})
        args = ("--target-size", "98K", "--compress", "none", "--candidates", "int3,int4,int8")
        tied, free = self.budget(model, *args), self.budget(model, *args, "--free-fused")
        self.check_fused(tied)
        self.assertEqual(free["budget"]["sets"], 3)
        self.assertLess(free["budget"]["error"], tied["budget"]["error"])
        self.assertGreater(len({t["format"] for t in free["tensors"]}), 1)

    def test_own_rules_go_before(self):
        report = self.budget(TINY, "--target-bpw", "6.5", "--compress", "none", "--candidates", "int3,int4,int8", "--group-size", "64", "--scale-rule", "mse",
                             "--rule", "role:down=int8", "--keep", "*layers.1.*q_proj*")
        for tensor in report["tensors"]:
            if tensor["role"] == "down":
                self.assertEqual((tensor["format"], tensor["group"], tensor["scale_rule"]), ("int8", 64, "mse"))
            if "layers.1.self_attn.q_proj" in tensor["name"]:
                self.assertEqual(tensor["format"], "keep")

    def test_importance(self):
        x = {f"model.layers.{i}.mlp.down_proj.weight": random_weights(i, 128, 256) for i in range(4)}
        model = write_model(self.path("m.safetensors"), {n: ("F32", v.shape, v) for n, v in x.items()})
        data = struct.pack("<i", len(x))
        for i, name in enumerate(x):
            weight = np.where(np.arange(256) < 10 + 40 * i, 5.0, 0.01).astype(np.float32)
            data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", 1, 256) + weight.tobytes()
        write_bytes(self.path("im.dat"), data)
        report = self.budget(model, "--target-size", "85K", "--compress", "none", "--imatrix", self.path("im.dat"), "--candidates", "int3,int4,int8", "--scale-rule", "mse")
        self.assertTrue(report["budget"]["weighted"])

    def test_gguf(self):
        source = os.path.join(SHARED, "llm", "stories260K", "stories260K.gguf")
        if not os.path.exists(source):
            skip_aloud(self, f"{source} is not there")
        report = self.budget(source, "--target-bpw", "14", "--candidates", "q4_0,q5_0,q8_0", out="b.gguf")
        self.check_fused(report)

    def test_hostile_names(self):
        names = ["re:model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.it's[x]*?\\.down_proj.weight", "role:model.layers.1.mlp.down_proj.weight",
                 "model.layers.2.mlp.down_proj.weight", "#: {a}.layers.3.down_proj.weight"]
        model = write_model(self.path("m.safetensors"), {n: ("BF16", (64, 128), random_weights(i, 64, 128, scale=0.02 * 4 ** i)) for i, n in enumerate(names)})
        report = self.budget(model, "--target-size", "30K", "--compress", "none", "--candidates", "int2,int4,int8")
        self.assertGreater(len({t["format"] for t in report["tensors"]}), 1)

    def test_plan_says_the_same(self):
        plan = self.ok_json("plan", "--in", TINY, "--target-bpw", "5", "--compress", "none")
        report = self.budget(TINY, "--target-bpw", "5", "--compress", "none")
        self.assertEqual(plan["budget"], report["budget"])
        self.assertEqual(self.formats_of("--in", TINY, "--target-bpw", "5", "--compress", "none"), {t["name"]: t["format"] for t in report["tensors"]})
        text = self.ok("plan", "--in", TINY, "--target-bpw", "5", "--compress", "none").out
        self.assertIn("target       917920 bytes, 5.0000 bits per weight of the file; predicted", text)


class Choice(BudgetTest):
    """The choice against all choices, each really converted: plan says what its file comes to, sweep what its error is."""

    def test_brute_force(self):
        candidates = ["int2", "int4", "int8"]
        for seed in range(3):
            rng = np.random.default_rng(seed)
            shapes = {f"model.layers.{i}.mlp.down_proj.weight": (int(rng.integers(20, 200)), int(rng.integers(1, 6)) * 64) for i in range(4)}
            model = write_model(self.path("m.safetensors"), {n: ("BF16", s, random_weights(seed * 10 + i, *s, scale=float(rng.random() + 0.01)))
                                                             for i, (n, s) in enumerate(shapes.items())})
            self.ok("sweep", "--in", model, "--formats", ",".join(candidates), "--json", "s.json", "--force", "--quiet")
            with open(self.path("s.json")) as f:
                rows = json.load(f)["rows"]
            error = {(r["format"], r["name"]): r["mse"] * r["measured"] for r in rows if r["scope"] == "tensor"}
            sizes = {}
            for choice in itertools.product(candidates, repeat=4):
                rules = sum((["--rule", f"{n}={f}"] for n, f in zip(shapes, choice)), [])
                sizes[choice] = self.ok_json("plan", "--in", model, "--compress", "none", *rules)["file_nbytes"]
            for share in (0.1, 0.4, 0.7):
                target = int(min(sizes.values()) + share * (max(sizes.values()) - min(sizes.values())))
                best = min(sum(error[f, n] for n, f in zip(shapes, c)) for c, s in sizes.items() if s <= target)
                report = self.budget(model, "--target-size", str(target), "--compress", "none", "--candidates", ",".join(candidates))
                self.assertAlmostEqual(report["budget"]["error"] / best, 1.0, places=6, msg=(seed, share))


class Refusals(BudgetTest):
    def test_what_cannot_be(self):
        for args, needle in ((["--target-bpw", "1"], "is too small: the least the candidates come to is"), (["--target-bpw", "x"], "'x'"),
                             (["--target-bpw", "5", "--target-size", "1M"], "one of them"), (["--target-bpw", "5", "--format", "int4"], "--candidates"),
                             (["--target-bpw", "5", "--recipe", "edge-mixed"], "--recipe"), (["--target-bpw", "5", "--candidates", "intx"], "intx"),
                             (["--candidates", "int4", "--format", "int4"], "--candidates needs --target-bpw"), (["--recipe-out", "x", "--format", "int4"], "--recipe-out needs"),
                             (["--target-bpw", "5", "--smooth", "gain"], "llmq smooth first")):
            result = self.llmq("convert", "--in", TINY, "--out", "x.llmq", *args)
            self.check_refusal(result, 2, "convert", needle)
            self.assertFalse(os.path.exists(self.path("x.llmq")))

    def test_nothing_is_replaced(self):
        write_bytes(self.path("r.yaml"), b"mine")
        self.refused(1, ["convert", "--in", TINY, "--target-bpw", "5", "--recipe-out", "r.yaml", "--out", "x.llmq"], "exists; use --force")

    def test_a_candidate_that_no_tensor_takes(self):
        result = self.llmq("convert", "--in", TINY, "--target-bpw", "6", "--candidates", "int3,mxfp4,int8", "--group-size", "channel", "--out", "x.llmq", "--quiet")
        self.assertEqual(result.code, 0, str(result))
        noted = self.ok("plan", "--in", TINY, "--target-bpw", "6", "--candidates", "int3,mxfp4,int8", "--group-size", "channel")
        self.assertIn("candidate mxfp4 is left out", noted.err)


if __name__ == "__main__":
    unittest.main()
