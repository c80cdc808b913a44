"""convert and plan: formats, figures, the same bytes, NaN and Inf."""
import hashlib
import json
import os
import shutil
import subprocess
import unittest

import numpy as np

from cli_support import (CliTest, FORMATS, LINEAR, PROGRAM, SHARED, TINY, random_weights, read_bytes, run, skip_aloud, write_folder, write_model)


def digest(path):
    return hashlib.sha256(read_bytes(path)).hexdigest()


class Formats(CliTest):
    def test_every_format_with_a_few_options(self):
        self.small()
        for name in FORMATS:
            integer = "int" in name and not name.startswith("mx")
            variants = [[], ["--group-size", "7"], ["--scale-rule", "mse" if integer else "rceil", "--rounding", "away"]]
            variants += [["--group-size", "channel", "--scale-dtype", "f32"], ["--group-size", "tensor", "--scale-dtype", "f16"]] if integer else [["--scale-rule", "floor", "--rounding", "truncate"]]
            least = {2: -2, 3: 5, 4: 10}.get(int("".join(c for c in name.split("_")[0] if c.isdigit())), 14)
            for k, options in enumerate(variants):
                with self.subTest(f"{name} {options}"):
                    out = f"{name}.{k}.llmq"
                    report = self.ok_json("convert", "--in", "small.safetensors", "--format", name, *options, "--out", out)
                    self.assertEqual(report["tensors_quantised"], len(LINEAR))
                    self.assertGreater(report["sqnr_db"], least)
                    self.ok("verify", out, "--quiet")
                    compared = self.ok_json("compare", "--in", "small.safetensors", "--against", out)
                    errors = {t["name"]: t for t in compared["tensors"]}
                    for t in report["tensors"]:
                        if t["format"] == "keep":
                            self.assertTrue(errors[t["name"]]["identical"], t["name"])
                        else:
                            self.assertAlmostEqual(errors[t["name"]]["sqnr_db"], t["sqnr_db"], places=3)
                            self.assertAlmostEqual(errors[t["name"]]["cosine"], t["cosine"], places=6)
                    worst = [t["sqnr_db"] for t in compared["tensors"] if not t["identical"]]
                    self.assertEqual(worst, sorted(worst))

    def test_source_dtypes(self):
        for dtype in ("BF16", "F16", "F32", "F64"):
            self.small(f"{dtype}.safetensors", dtype=dtype)
            for name in ("mxfp4", "int4", "uint8:rule=mse,group=tensor"):
                report = self.ok_json("convert", "--in", f"{dtype}.safetensors", "--format", name, "--out", "x.llmq", "--force")
                self.assertEqual(report["tensors_quantised"], len(LINEAR))
                self.ok("verify", "x.llmq", "--quiet")

    def test_experts_and_odd_shapes(self):
        shapes = {"model.layers.0.mlp.experts.down_proj": (3, 5, 33), "model.layers.0.self_attn.q_proj.weight": (1, 1), "model.layers.0.self_attn.k_proj.weight": (3, 0),
                  "model.layers.0.self_attn.v_proj.weight": (0, 32), "model.layers.0.mlp.up_proj.weight": (2, 31), "model.layers.0.conv.weight": (2, 3, 4, 5), "scalar": (),
                  "model.layers.0.mlp.gate_proj.weight": (1, 70001)}
        write_model(self.path("m.safetensors"), {n: ("BF16", s, random_weights(i, *s)) for i, (n, s) in enumerate(shapes.items())})
        for name in ("mxfp4", "int3:group=channel", "uint5:group=tensor,rule=mse", "int8:group=32768", "int4:group=1"):
            with self.subTest(name):
                report = self.ok_json("convert", "--in", "m.safetensors", "--format", name, "--out", "x.llmq", "--force")
                kept = {t["name"] for t in report["tensors"] if t["format"] == "keep"}
                self.assertEqual(kept, {"scalar", "model.layers.0.conv.weight", "model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.v_proj.weight"})
                self.assertEqual({t["reason"] for t in report["tensors"] if 0 in t["shape"]}, {"has no weights"})
                self.ok("verify", "x.llmq", "--quiet")
                self.ok("compare", "--in", "m.safetensors", "--against", "x.llmq", "--quiet")
                self.ok("dequantize", "--in", "x.llmq", "--out", "y.safetensors", "--force", "--quiet")

    def test_no_weights_at_all(self):
        write_model(self.path("m.safetensors"), {})
        self.refused(2, ["convert", "--in", "m.safetensors", "--format", "int4"], "m.safetensors", "no tensor")

    def test_already_quantised_input_is_refused_by_name(self):
        self.small()
        self.ok("convert", "--in", "small.safetensors", "--format", "int4", "--out", "x.llmq", "--quiet")
        self.refused(1, ["convert", "--in", "x.llmq", "--format", "int8", "--out", "y.llmq"], "x.llmq", "already quantised (int4)", "--allow-requantize")
        q = "model.layers.0.self_attn.q_proj"
        for kind, tensors, needle in (("fp8", {q + ".weight": ("F8_E4M3", (4, 4), bytes(16)), q + ".weight_scale_inv": ("F32", (1, 1), np.ones((1, 1)))}, "FP8"),
                                      ("gptq", {q + ".qweight": ("U8", (4, 4), bytes(16)), q + ".qzeros": ("U8", (4, 4), bytes(16)), q + ".scales": ("F16", (4, 4), np.ones((4, 4)))}, "")):
            write_model(self.path(f"{kind}.safetensors"), {**tensors, "model.layers.1.self_attn.q_proj.weight": ("F32", (4, 4), np.ones((4, 4)))})
            with self.subTest(kind):
                self.refused(1, ["convert", "--in", f"{kind}.safetensors", "--format", "int4"], f"{kind}.safetensors", needle)
        folder = write_folder(self.path("m"))
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump({"quantization_config": {"quant_method": "gptq", "bits": 4}}, f)
        self.refused(1, ["plan", "--in", "m", "--format", "int4"], "GPTQ")


class PlanIsConvert(CliTest):
    VARIANTS = (["--format", "mxfp4"], ["--format", "int4", "--group-size", "64", "--compress", "none"], ["--format", "uint3", "--compress", "max", "--keep", "*.layers.0.*"],
                ["--recipe", "edge-mixed", "--rule", "role:embedding=int8:group=channel", "--align", "64"], ["--format", "int8", "--split-max-size", "400K", "--compress", "none"],
                ["--format", "int4:group=tensor,rule=mse", "--split-max-size", "300K"], ["--format", "int4", "--nonfinite", "keep"])

    def test_convert_executes_the_plan(self):
        for options in self.VARIANTS:
            with self.subTest(" ".join(options)):
                folder = self.path("out")
                os.mkdir(folder)
                plan = self.ok_json("plan", "--in", TINY, *options, "--out", "out/x.llmq")
                self.assertEqual(os.listdir(folder), [])
                done = self.ok_json("convert", "--in", TINY, *options, "--out", "out/x.llmq")
                for key, value in plan.items():
                    if key != "tensors":
                        self.assertEqual(done[key], value, key)
                for a, b in zip(plan["tensors"], done["tensors"], strict=True):
                    self.assertEqual(a, {k: b[k] for k in a})
                size = sum(os.path.getsize(os.path.join(folder, n)) for n in os.listdir(folder))
                self.assertEqual(len(os.listdir(folder)), plan["files"])
                self.assertEqual(done["written_nbytes"], size)
                if plan["file_nbytes_exact"]:
                    self.assertEqual(plan["file_nbytes"], size)
                else:
                    self.assertLessEqual(size, plan["file_nbytes"])
                self.assertEqual(plan["file_nbytes_exact"], "none" in options)
                first = sorted(os.listdir(folder))[0]
                self.assertEqual(first, "x.llmq" if plan["files"] == 1 else f"x-00001-of-{plan['files']:05d}.llmq")
                inspected = self.ok_json("inspect", os.path.join("out", first))
                stored = self.entries(inspected)
                for t in done["tensors"]:
                    self.assertEqual((stored[t["name"]]["nbytes"], stored[t["name"]]["format"] or "keep", stored[t["name"]]["role"]), (t["nbytes"], t["format"], t["role"]))
                self.ok("verify", os.path.join("out", first), "--quiet")
                self.ok("compare", "--in", TINY, "--against", os.path.join("out", first), "--quiet")
                shutil.rmtree(folder)

    def test_figures(self):
        for name, group, bits, extra in (("mxfp4", 32, 4, 8), ("int4", 128, 4, 16), ("uint4", 128, 4, 20), ("int8", 128, 8, 16)):
            report = self.ok_json("plan", "--in", TINY, "--format", name)
            total = weights = source = quantised = 0
            for t in report["tensors"]:
                rows, cols = int(np.prod(t["shape"][:-1], dtype=np.int64)), t["shape"][-1]
                n = rows * cols
                source += 2 * n
                if t["format"] == "keep":
                    self.assertEqual((t["nbytes"], t["bits_per_weight"]), (2 * n, 16))
                    continue
                groups = rows * -(-cols // group)
                self.assertEqual(sum(p["nbytes"] for p in t["planes"]), t["nbytes"])
                self.assertAlmostEqual(t["bits_per_weight"], 8 * t["nbytes"] / n, places=6)
                self.assertGreaterEqual(8 * t["nbytes"], bits * n + extra * groups)
                self.assertLess(8 * t["nbytes"], bits * n + extra * groups + 64 * rows)
                total, weights, quantised = total + t["nbytes"], weights + n, quantised + 2 * n
                self.assertEqual(t["source_nbytes"], 2 * n)
            self.assertAlmostEqual(report["bits_per_weight"], 8 * total / weights, places=6)
            self.assertAlmostEqual(report["quantised_share"], quantised / source, places=6)
            self.assertEqual((report["weights_quantised"], report["source_nbytes"], report["read_nbytes"]), (weights, source, source))

    def test_reads_are_counted(self):
        """A group that spans slices takes an observe pass; a search over it one more; --nonfinite keep a scan."""
        write_model(self.path("m.safetensors"), {"a.q_proj.weight": ("BF16", (1024, 1024), random_weights(1, 1024, 1024))})
        for options, reads in ((["--format", "int4"], 1), (["--format", "int4:group=tensor"], 2), (["--format", "int4:group=tensor,rule=mse"], 3), (["--format", "int4", "--nonfinite", "keep"], 2),
                               (["--format", "int4:group=tensor,rule=mse", "--nonfinite", "keep"], 4)):
            plan = self.ok_json("plan", "--in", "m.safetensors", *options)
            self.assertEqual((plan["tensors"][0]["reads"], plan["read_nbytes"]), (reads, reads * plan["source_nbytes"]), options)
            done = [json.loads(l) for l in self.ok("convert", "--in", "m.safetensors", *options, "--out", "x.llmq", "--force", "--progress", "jsonl").err.splitlines()]
            self.assertEqual(sum(d["done"] for d in done if d["done"] == d["total"]), plan["read_nbytes"], f"{options}: progress {done}")

    def test_text_names_rule_and_reason_of_every_tensor(self):
        out = self.ok("plan", "--in", TINY, "--format", "mxfp4", "--keep", "*.layers.0.*", "--rule", "role:down=mxfp6_e3m2").out
        self.assertEqual(out.count("--keep '*.layers.0.*'"), 7)  # not the two norms: a glob never selects a 1-D tensor
        self.assertEqual(out.count("--rule 'role:down'"), 2)
        self.assertIn("fewer than 2 dims", out)
        self.assertIn("not a linear layer", out)
        self.assertRegex(out, r"quantised +\d+ of 29 tensors")
        self.assertRegex(out, r"memory +.* of .*, \d+ threads?")

    def test_measure_off(self):
        report = self.ok_json("convert", "--in", TINY, "--format", "int4", "--measure", "off", "--out", "x.llmq")
        self.assertNotIn("mse", report)
        self.ok("convert", "--in", TINY, "--format", "int4", "--out", "y.llmq", "--quiet")
        self.assertEqual(digest(self.path("x.llmq")), digest(self.path("y.llmq")))


class SameBytes(CliTest):
    def test_threads_memory_place_and_environment(self):
        rows = {"a.q_proj.weight": ("BF16", (700, 1500), random_weights(1, 700, 1500)), "a.up_proj.weight": ("F32", (300, 999), random_weights(2, 300, 999)),
                "a.embed_tokens.weight": ("BF16", (500, 700), random_weights(3, 500, 700)), "a.norm.weight": ("F32", (1500,), random_weights(4, 1500))}
        write_model(self.path("m.safetensors"), rows, metadata={"format": "pt"})
        os.mkdir(self.path("elsewhere"))
        for fmt in ("mxfp4", "int4:rule=mse,group=48", "uint8:group=tensor", "mxint8:group=1000"):
            base = ["convert", "--in", self.path("m.safetensors"), "--format", fmt, "--out", self.path("x.llmq"), "--force", "--quiet"]
            self.ok(*base, "--threads", "1")
            expected = digest(self.path("x.llmq"))
            runs = [(["--threads", "2"], {}), (["--threads", "7"], {}), (["--threads", "7", "--max-ram", "8M"], {}), (["--max-ram", "512M"], {}), (["--measure", "off"], {}),
                    ([], {"LLMQ_KERNELS": "portable"}), ([], {"LLMQ_KERNELS": "avx2"}), ([], {"HOME": None, "TMPDIR": None, "PATH": None}), ([], {"LC_ALL": "en_US.UTF-8", "LANG": "de_DE.UTF-8"}),
                    ([], {"TMPDIR": "/nonexistent", "TZ": "Asia/Tokyo"})]
            for options, env in runs:
                with self.subTest(f"{fmt} {options} {env}"):
                    self.ok(*base, *options, env=env, cwd=self.path("elsewhere"))
                    self.assertEqual(digest(self.path("x.llmq")), expected)
        self.assertEqual(os.listdir(self.path("elsewhere")), [])

    def test_shards_or_one_file_change_no_plane(self):
        """The same tensors from one file or three: the same planes (tensor order and blobs may differ)."""
        write_folder(self.path("one"))
        write_folder(self.path("three"), shards=3)
        digests = []
        for folder in ("one", "three"):
            self.ok("convert", "--in", folder, "--format", "int4", "--out", folder + ".llmq", "--quiet")
            self.ok("extract", folder + ".llmq", *LINEAR, "--raw", "--out", folder + "-planes", "--quiet")
            digests.append({n: digest(self.path(folder + "-planes", n)) for n in os.listdir(self.path(folder + "-planes"))})
        self.assertEqual(digests[0], digests[1])
        self.assertEqual(len(digests[0]), 2 * len(LINEAR))

    def test_decimal_comma_locale(self):
        self.small()
        self.ok("convert", "--in", "small.safetensors", "--format", "int4", "--out", "a.llmq", "--quiet")
        folder = self.path("locales")
        os.mkdir(folder)
        made = None
        if shutil.which("localedef"):
            made = subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", os.path.join(folder, "de_DE.UTF-8")], capture_output=True)
        env = {"LC_ALL": "de_DE.UTF-8", "LOCPATH": folder}
        if not made or not os.path.exists(os.path.join(folder, "de_DE.UTF-8")):
            print("\nno German locale can be made here: LC_ALL set to one that may not exist", flush=True)
            env = {"LC_ALL": "de_DE.UTF-8"}
        report = self.ok("convert", "--in", "small.safetensors", "--format", "int4", "--out", "b.llmq", "--json", "--max-ram", "16.5M", env=env)
        self.assertGreater(report.json["sqnr_db"], 0)
        self.assertEqual(digest(self.path("a.llmq")), digest(self.path("b.llmq")))

    def test_program_works_from_any_folder_and_through_a_link(self):
        os.symlink(PROGRAM, self.path("llmq"))
        result = run("plan", "--in", TINY, "--recipe", "edge-mixed", program=self.path("llmq"), cwd="/")
        self.assertEqual(result.code, 0, str(result))
        copied = self.path("bin", "llmq")
        os.mkdir(self.path("bin"))
        shutil.copy(PROGRAM, copied)
        self.assertEqual(run("plan", "--in", TINY, "--format", "int4", program=copied, cwd="/").code, 0)
        shutil.copytree(os.path.join(os.path.dirname(TINY), "..", "..", "configs"), self.path("share", "llmq"))
        os.remove(self.path("share", "llmq", "recipes", "edge-mixed.yaml"))
        self.assertEqual(run("plan", "--in", TINY, "--recipe", "edge-mixed", program=copied, cwd="/").code, 0)

    def test_second_model(self):
        folder = os.path.join(SHARED, "llm", "stories260K-hf-bf16-3shards")
        if not os.path.isdir(folder):
            skip_aloud(self, f"no {folder}")
        report = self.ok_json("convert", "--in", folder, "--format", "int4", "--out", "x.llmq")
        self.assertGreater(report["tensors_quantised"], 0)
        self.ok("verify", "x.llmq")
        self.ok("compare", "--in", folder, "--against", "x.llmq", "--quiet")
        self.assertTrue(os.path.exists(self.path("x.llmq")))


class NonFinite(CliTest):
    Q, UP, NORM = "a.q_proj.weight", "a.up_proj.weight", "a.norm.weight"

    def model(self, dtype="BF16", **places):
        """places: tensor letter -> [(row, col, value)]."""
        x = {"q": random_weights(1, 200, 300), "u": random_weights(2, 20, 40), "n": random_weights(3, 40)}
        for letter, cells in places.items():
            for *index, value in cells:
                x[letter][tuple(index)] = value
        names = {"q": self.Q, "u": self.UP, "n": self.NORM}
        return write_model(self.path("m.safetensors"), {names[k]: (dtype, v.shape, v) for k, v in x.items()})

    def convert(self, *args):
        return ["convert", "--in", "m.safetensors", "--format", "int4", "--out", "x.llmq", *args]

    def test_error_names_tensor_row_column_and_count(self):
        for dtype in ("BF16", "F16", "F32", "F64"):
            self.model(dtype, q=[(3, 17, np.nan), (150, 2, np.inf), (199, 299, -np.inf)])
            for fmt in ("int4", "mxfp4", "uint8:group=channel", "int4:group=tensor,rule=mse", "mxint8:rule=floor"):
                for threads in ("1", "7"):
                    with self.subTest(f"{dtype} {fmt} {threads}"):
                        self.refused(1, ["convert", "--in", "m.safetensors", "--format", fmt, "--threads", threads], f"'{self.Q}'", "m.safetensors", "row 3, column 17", "1 NaN, 2 Inf", "--nonfinite")
        self.model(q=[(199, 299, np.inf)])
        self.refused(1, self.convert(), "row 199, column 299", "0 NaN, 1 Inf")

    def test_kept_tensors_may_have_nan(self):
        self.model(n=[(3, np.nan)])
        self.ok(*self.convert())
        self.ok("compare", "--in", "m.safetensors", "--against", "x.llmq")
        self.model(q=[(0, 0, np.nan)])
        self.ok(*self.convert("--force", "--keep", self.Q))

    def test_f64_beyond_f32_counts_as_inf(self):
        x = random_weights(1, 20, 40).astype(np.float64)
        x[3, 4] = 1e300
        write_model(self.path("m.safetensors"), {self.Q: ("F64", x.shape, x)})
        self.refused(1, self.convert(), "row 3, column 4", "1 Inf")

    def decoded(self):
        self.ok("dequantize", "--in", "x.llmq", "--out", "y.safetensors", "--dtype", "f32", "--force", "--quiet")
        data = read_bytes(self.path("y.safetensors"))
        n = int.from_bytes(data[:8], "little")
        header = json.loads(data[8:8 + n])
        return {k: np.frombuffer(data, dtype="<f4", count=int(np.prod(v["shape"])), offset=8 + n + v["data_offsets"][0]).reshape(v["shape"]) for k, v in header.items()
                if k != "__metadata__" and v["dtype"] == "F32"}

    def test_zero(self):
        self.model("F32", q=[(3, 17, np.nan), (3, 200, np.inf)])
        for fmt in ("int4", "mxfp4", "uint8:group=tensor,rule=mse"):
            self.ok(*self.convert("--nonfinite", "zero", "--format", fmt, "--force"))
            q = self.decoded()[self.Q]
            self.assertTrue(np.isfinite(q).all())
            self.assertEqual((q[3, 17], q[3, 200]), (0.0, 0.0))

    def test_clamp(self):
        """Inf takes the extreme code under the scale that the finite weights give; NaN becomes 0."""
        for dtype, fmt in (("F16", "int4"), ("BF16", "int4"), ("BF16", "mxfp4"), ("F32", "mxint8"), ("F32", "int8:group=tensor,rule=mse"), ("F16", "uint8:group=channel")):
            with self.subTest(f"{dtype} {fmt}"):
                self.model(dtype, q=[(3, 17, np.nan), (3, 200, np.inf), (4, 200, -np.inf)])
                self.ok(*self.convert("--nonfinite", "clamp", "--format", fmt, "--force"))
                q = self.decoded()[self.Q]
                self.assertTrue(np.isfinite(q).all())
                self.assertEqual(q[3, 17], 0.0)
                self.assertGreater(q[3, 200], 0.0)
                self.assertLess(q[4, 200], 0.0)
                self.assertLess(np.abs(q).max(), 1000.0)

    def test_keep_stores_that_tensor_bit_for_bit(self):
        self.model("F32", q=[(3, 17, np.nan)])
        plan = self.entries(self.ok_json("plan", *self.convert("--nonfinite", "keep")[1:]))
        self.assertEqual((plan[self.Q]["format"], plan[self.UP]["format"]), ("keep", "int4"))
        self.assertIn("NaN", plan[self.Q]["reason"])
        self.assertEqual(plan[self.UP]["reads"], 2)
        self.ok(*self.convert("--nonfinite", "keep"))
        compared = {t["name"]: t for t in self.ok_json("compare", "--in", "m.safetensors", "--against", "x.llmq")["tensors"]}
        self.assertTrue(compared[self.Q]["identical"])
        self.assertEqual(compared[self.Q]["nonfinite_differing"], 0)

    def test_compare_sees_nan_on_one_side(self):
        self.model("F32", q=[(3, 17, np.nan)])
        self.ok(*self.convert("--nonfinite", "zero"))
        worst = self.ok_json("compare", "--in", "m.safetensors", "--against", "x.llmq")["tensors"][0]
        self.assertEqual((worst["name"], worst["nonfinite_differing"]), (self.Q, 1))
        self.assertIn("NaN or Inf", self.ok("compare", "--in", "m.safetensors", "--against", "x.llmq").out)

    def test_scan(self):
        self.model("F32", q=[(3, 17, np.nan), (4, 5, np.inf), (4, 6, -np.inf), (5, 5, 0.0), (6, 6, 9.0), (7, 7, -8.0)], n=[(1, np.nan)])
        for threads in ("1", "3"):
            scan = self.entries(self.ok_json("inspect", "m.safetensors", "--scan", "--threads", threads))
            q = scan[self.Q]
            self.assertEqual((q["nan"], q["inf"], q["zeros"], q["min"], q["max"], q["first_nonfinite"]), (1, 2, 1, -8, 9, [3, 17]))
            self.assertAlmostEqual(q["mean_abs"], 0.016, delta=0.001)
            self.assertEqual((scan[self.NORM]["nan"], scan[self.UP]["nan"]), (1, 0))
        text = self.ok("inspect", "m.safetensors", "--scan").out
        self.assertIn("2 tensors with NaN or Inf", text)
        self.assertIn("first at row 3, column 17", text)

    def test_extremes_are_no_fault(self):
        x = np.zeros((8, 64), dtype=np.float32)
        x[0] = 1.0e38
        x[1] = 1e-40
        x[2, 5] = -0.0
        x[3, 7] = 1.7e38
        x[4] = np.linspace(-1, 1, 64)
        write_model(self.path("m.safetensors"), {self.Q: ("F32", x.shape, x)})
        for fmt in FORMATS:
            with self.subTest(fmt):
                result = self.llmq("convert", "--in", "m.safetensors", "--format", fmt, "--out", "x.llmq", "--force", "--quiet")
                self.assertEqual(result.code, 0, str(result))
                self.ok("verify", "x.llmq", "--quiet")
        result = self.llmq("convert", "--in", "m.safetensors", "--format", "int4", "--scale-dtype", "f16", "--out", "z.llmq")
        self.check_refusal(result, 1, "convert", self.Q, "row 0, column 0", "too large for scales of type f16", "--scale-dtype")


if __name__ == "__main__":
    unittest.main()
