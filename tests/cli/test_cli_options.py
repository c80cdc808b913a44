"""Options, help, names, and what is printed where."""
import json
import os
import re
import unittest

from cli_support import COMMANDS, CliTest, FORMATS, GGUF_FORMATS, TINY, read_bytes, run, skip_aloud, small_tensors, write_bytes, write_folder, write_model

COMMON = {"threads", "max-ram", "json", "quiet", "progress"}
PLANS = {"in", "out", "format", "group-size", "scale-rule", "percentile", "scale-dtype", "rounding", "half-range", "rule", "keep", "recipe", "nonfinite", "compress", "split-max-size", "align", "force", "nvfp4-scale", "no-fallback", "allow-requantize", "gguf-file-type", "imatrix"}
SMOOTHS = {"smooth", "alpha", "smooth-family", "smooth-stat", "smooth-loss", "shared-criterion", "alpha-min", "alpha-max", "alpha-step", "init-alpha", "do-blockwise", "n-samples", "smooth-refine",
           "smooth-reduce", "smooth-clamp", "smooth-groups", "smooth-map", "folding", "smooth-recipe", "smooth-recipe-out", "smooth-inc-json", "smooth-check"}
TARGETS = {"in", "out", "format", "group-size", "scale-rule", "percentile", "scale-dtype", "rounding", "half-range", "rule", "keep", "recipe", "nvfp4-scale", "split-max-size", "align", "force"}
BUDGET = {"target-bpw", "target-size", "candidates", "free-fused", "recipe-out"}
SWEEP = {"in", "percentile", "scale-dtype", "rounding", "half-range", "rule", "keep", "recipe", "imatrix", "nvfp4-scale", "no-fallback", "allow-requantize", "nonfinite", "align", "seq", "resume", "force",
         "formats", "group-sizes", "scale-rules", "alphas", "tensors", "sample", "histogram", "eval-text", "eval-tokens", "report", "csv"}
OPTIONS = {
    "convert": COMMON | PLANS | SMOOTHS | BUDGET | {"measure", "smooth-runtime", "report"},
    "plan": COMMON | PLANS | SMOOTHS | BUDGET | {"smooth-runtime"},
    "smooth": COMMON | TARGETS | SMOOTHS | {"inverse"},
    "sweep": COMMON | SWEEP | (SMOOTHS - {"alpha", "folding", "smooth-recipe", "smooth-recipe-out", "smooth-inc-json", "smooth-check"}),
    "inspect": COMMON | {"tensors", "scan", "hashes"},
    "calibrate": COMMON | {"in", "out", "smooth-map", "text", "tokens", "self", "samples", "seq", "skip-first", "collect", "sequential", "resume", "force"},
    "eval": COMMON | {"in", "against", "smooth-map", "text", "tokens", "seq", "logits", "force"},
    "verify": COMMON,
    "dequantize": COMMON | {"in", "out", "dtype", "split-max-size", "force"},
    "compare": COMMON | {"in", "against"},
    "extract": COMMON | {"out", "dtype", "raw", "force"},
    "formats": COMMON,
    "bench": COMMON | {"nvfp4-scale", "format", "group-size", "scale-rule", "percentile", "scale-dtype", "rounding", "half-range", "seconds"},
    "stats": COMMON | {"out", "force", "experts"},
}


class Help(CliTest):
    def test_version(self):
        self.assertRegex(self.ok("--version").out, r"^llmq \d+\.\d+\.\d+\n$")

    def test_help_lists_every_command(self):
        for args in (["--help"], ["-h"], ["help"]):
            result = self.ok(*args)
            for command in COMMANDS:
                self.assertRegex(result.out, rf"(?m)^  {command} ")
            self.assertIn("Exit codes: 0 ok, 1 failed, 2 usage, 3 verification mismatch", result.out)

    def test_no_command_is_usage(self):
        result = self.llmq()
        self.assertEqual((result.code, result.out), (2, ""))
        self.assertIn("usage: llmq COMMAND", result.err)

    def test_unknown_command(self):
        result = self.llmq("covert")
        self.assertEqual((result.code, result.out), (2, ""))
        self.assertEqual(result.err, "llmq: unknown command 'covert' (llmq --help lists them)\n")

    def test_help_of_a_command_lists_its_settings_and_no_others(self):
        for command in COMMANDS:
            with self.subTest(command):
                out = self.ok(command, "--help").out
                self.assertIn(f"usage: llmq {command} ", out)
                self.assertEqual(set(re.findall(r"(?m)^  --([a-z0-9-]+)", out)), OPTIONS[command])

    def test_options_of_other_commands_are_refused(self):
        every = set().union(*OPTIONS.values())
        for command in COMMANDS:
            for option in sorted(every - OPTIONS[command]):
                with self.subTest(command=command, option=option):
                    self.refused(2, [command, f"--{option}", "1"], f"--{option}")


class Options(CliTest):
    def test_unknown_options_suggest_the_nearest(self):
        for given, meant in (("--fromat", "--format"), ("--groupsize", "--group-size"), ("--group", "--group-size"), ("--thread", "--threads"), ("--maxram=8M", "--max-ram"),
                             ("--recipee", "--recipe"), ("--nonfinit", "--nonfinite"), ("--froce", "--force"), ("--kep", "--keep")):
            with self.subTest(given):
                self.refused(2, ["convert", given], "unknown option", f"did you mean {meant}?")
        for given in ("--zzz", "--quux-plugh", "-x", "---", "--" + "f" * 5000):
            with self.subTest(given[:20]):
                self.assertNotIn("did you mean", self.refused(2, ["convert", given], "unknown option"))

    def test_values_out_of_range(self):
        for args, needle in ((["--threads", "-1"], "whole number"), (["--threads", "1025"], "between 0 and 1024"), (["--threads", "2.5"], "whole number"),
                             (["--threads", ""], "--threads"), (["--threads", "99999999999999999999"], "whole number"), (["--max-ram", "7M"], "less than 8M"),
                             (["--max-ram", "1e9"], "a size like"), (["--max-ram", "-8M"], "a size like"), (["--max-ram", "8MB"], "a size like"),
                             (["--max-ram", "nan"], "a size like"), (["--max-ram", "0x800000"], "a size like"), (["--max-ram", "99999999999G"], "a size like"),
                             (["--align", "3000"], "power of two"), (["--align", "32"], "between"), (["--align", "4M"], "between"), (["--split-max-size", "x"], "a size like"),
                             (["--rounding", "nearest"], "none of"), (["--nonfinite", "error|zero"], "none of"), (["--compress", "best"], "none of"),
                             (["--progress", "fancy"], "none of"), (["--measure", "yes"], "none of"), (["--out", ""], "not empty"), (["--format", ""], "not empty"),
                             (["--quiet=1"], "takes no value"), (["--json=true"], "takes no value"), (["--format"], "needs a value"), (["--in"], "needs a value"),
                             (["--rule", "int4"], "PATTERN=FORMAT"), (["--rule", "=int4"], "PATTERN=FORMAT"), (["--rule", "a="], "PATTERN=FORMAT")):
            with self.subTest(" ".join(args)):
                self.refused(2, ["convert", "--in", TINY, "--format", "int4", *args], needle)
        for seconds in ("0", "61", "x"):
            self.refused(2, ["bench", "--seconds", seconds], "--seconds")
        self.refused(2, ["dequantize", "--in", "x", "--out", "y", "--dtype", "f64"], "none of")

    def test_sizes_are_1024_based(self):
        for text, nbytes in (("8M", 8 << 20), ("8192K", 8 << 20), ("8388608", 8 << 20), ("1.5G", 3 << 29), ("64m", 64 << 20)):
            self.small()
            out = self.ok("plan", "--in", "small.safetensors", "--format", "int4", "--max-ram", text).out
            shown = {8 << 20: "8.39 MB", 3 << 29: "1.61 GB", 64 << 20: "67.1 MB"}[nbytes]
            self.assertRegex(out, rf"memory .* of {re.escape(shown)},")

    def test_missing_pieces(self):
        self.small()
        self.refused(2, ["convert"], "")
        self.refused(2, ["convert", "--format", "int4"], "--in is missing")
        self.refused(2, ["convert", "--in", "small.safetensors"], "give --format, --rule or --recipe")
        self.refused(2, ["convert", "small.safetensors", "--in", "small.safetensors", "--format", "int4"], "unexpected argument 'small.safetensors'")
        self.refused(2, ["plan", "--format", "int4"], "--in is missing")
        self.refused(2, ["inspect"], "which model?")
        self.refused(2, ["inspect", "a", "b"], "one model")
        self.refused(2, ["verify"], "which file?")
        self.refused(2, ["verify", "a", "b"], "one file")
        self.refused(2, ["dequantize", "--out", "y"], "--in is missing")
        self.refused(2, ["dequantize", "--in", "x"], "--out is missing")
        self.refused(2, ["dequantize", "x"], "unexpected argument")
        self.refused(2, ["compare", "--in", "x"], "--against")
        self.refused(2, ["compare", "x", "y"], "unexpected argument")
        self.refused(2, ["extract", "x"], "which names")
        self.refused(2, ["formats", "x"], "unexpected argument")
        self.refused(2, ["bench", "x"], "unexpected argument")

    def test_control_characters_never_break_the_sentence(self):
        for args in (["convert", "--in", "a\nllmq convert: b", "--format", "int4"], ["convert", "a\nb", "--in", "x", "--format", "int4"], ["inspect", "a\x1b[31m\n"],
                     ["plan", "--in", TINY, "--rule", "x\ny=int4"], ["plan", "--in", TINY, "--format", "a\nb"], ["convert", "-\n"], ["formats", "--a\nb"]):
            result = self.llmq(*args)
            self.assertIn(result.code, (1, 2))
            self.check_refusal(result, result.code, args[0])

    def test_double_dash_ends_options_and_equals_form_works(self):
        write_model(self.path("--odd.safetensors"), small_tensors())
        self.ok("inspect", "--", "--odd.safetensors")
        self.ok("convert", "--in=--odd.safetensors", "--format=int4", "--out=x.llmq", "--quiet")
        self.ok("verify", "x.llmq")

    def test_last_value_of_an_option_counts(self):
        self.small()
        self.assertIn("int4", set(self.formats_of("--in", "small.safetensors", "--format", "int8", "--format", "int4").values()))


class Names(CliTest):
    """Without --out: NAME.FORMAT.llmq in the current folder."""

    def expect(self, given, name, *args, cwd=None):
        result = self.ok("convert", "--in", given, *(args or ("--format", "mxfp4")), "--quiet", cwd=cwd or self.dir)
        full = os.path.join(cwd or self.dir, name)
        self.assertTrue(os.path.isfile(full), f"{name} was not written: {sorted(self.tree())}")
        os.remove(full)
        return result

    def test_default_output_names(self):
        self.small("model.safetensors")
        self.small("Qwen3-0.6B.safetensors")
        write_folder(self.path("My-Model"))
        write_folder(self.path("Sharded"), shards=3)
        os.symlink(self.path("My-Model"), self.path("link"))
        for given, name in (("model.safetensors", "model"), ("./model.safetensors", "model"), (self.path("model.safetensors"), "model"), ("Qwen3-0.6B.safetensors", "Qwen3-0.6B"),
                            ("My-Model", "My-Model"), ("My-Model/", "My-Model"), ("My-Model//", "My-Model"), ("My-Model/.", "My-Model"), ("./My-Model/../My-Model", "My-Model"),
                            ("My-Model/model.safetensors", "model"), ("Sharded", "Sharded"), ("Sharded/model.safetensors.index.json", "Sharded")):
            with self.subTest(given):
                self.expect(given, f"{name}.mxfp4.llmq")
        self.expect(".", "My-Model.mxfp4.llmq", cwd=self.path("My-Model"))
        self.expect("..", "Sharded.mxfp4.llmq", cwd=self.mkdir("Sharded", "sub"))
        self.expect("model.safetensors.index.json", "Sharded.mxfp4.llmq", cwd=self.path("Sharded"))
        self.expect(self.path("My-Model"), "My-Model.mxfp4.llmq", cwd=self.mkdir("elsewhere"))

    def mkdir(self, *names):
        os.makedirs(self.path(*names), exist_ok=True)
        return self.path(*names)

    def test_name_of_format_recipe_and_rules(self):
        self.small("m.safetensors")
        write_bytes(self.path("my.recipe.yaml"), b"rules: [{match: 'role:q', format: int4}]\n")
        self.expect("m.safetensors", "m.int4.llmq", "--format", "int4:group=64,scale=f16")
        self.expect("m.safetensors", "m.my.recipe.llmq", "--recipe", "my.recipe.yaml")
        self.expect("m.safetensors", "m.mixed.llmq", "--rule", "role:q=int4")
        self.expect("m.safetensors", "m.int8.llmq", "--recipe", "my.recipe.yaml", "--format", "int8")

    def test_out(self):
        self.small("m.safetensors")
        os.mkdir(self.path("sub"))
        self.ok("convert", "--in", "m.safetensors", "--format", "int4", "--out", "sub/any name \u00e9.bin", "--quiet")
        self.ok("verify", "sub/any name \u00e9.bin")
        for out, needle in (("sub", "directory"), ("sub/", "sub/"), (".", "'.'"), ("nowhere/x.llmq", "nowhere"), ("m.safetensors/x", "m.safetensors/x"), ("x/", "x/")):
            with self.subTest(out):
                result = self.llmq("convert", "--in", "m.safetensors", "--format", "int4", "--out", out)
                self.assertIn(result.code, (1, 2))
                self.check_refusal(result, result.code, "convert", needle)
        self.no_partial()
        self.assertEqual(set(os.listdir(self.dir)), {"m.safetensors", "sub"})

    def test_existing_output_needs_force(self):
        self.small("m.safetensors")
        write_bytes(self.path("x.llmq"), b"precious")
        args = ["convert", "--in", "m.safetensors", "--format", "int4", "--out", "x.llmq"]
        self.refused(1, args, "x.llmq", "exists; use --force")
        self.assertEqual(read_bytes(self.path("x.llmq")), b"precious")
        self.ok(*args, "--force")
        self.ok("verify", "x.llmq")
        self.refused(1, ["dequantize", "--in", "x.llmq", "--out", "m.safetensors"], "m.safetensors", "exists")
        self.ok("dequantize", "--in", "x.llmq", "--out", "m.safetensors", "--force")
        write_bytes(self.path("extract.safetensors"), b"precious")
        self.refused(1, ["extract", "x.llmq", "model.norm.weight"], "exists")
        self.ok("extract", "x.llmq", "model.norm.weight", "--force")


class Output(CliTest):
    """Results to stdout, talk to stderr."""

    def test_convert_json_has_the_documented_members(self):
        report = self.ok_json("convert", "--in", TINY, "--format", "int4", "--out", "x.llmq")
        self.assertEqual(set(report), {"in", "out", "tensors", "tensors_total", "tensors_quantised", "tensors_carried", "groups_carried", "fused_sets", "tensors_fused", "fallbacks", "weights", "weights_quantised", "source_nbytes", "quantised_source_nbytes",
                                       "quantised_share", "bits_per_weight", "bits_per_weight_all", "plane_nbytes", "file_nbytes", "file_nbytes_exact", "files", "read_nbytes",
                                       "ram_nbytes", "index_nbytes", "threads", "threads_asked", "written_nbytes", "seconds", "mse", "sqnr_db", "max_error", "cosine"})
        common = {"name", "role", "shape", "dtype", "format", "decided_by", "rule", "reason", "reads", "source_nbytes", "nbytes", "bits_per_weight", "planes"}
        for tensor in report["tensors"]:
            more = set() if tensor["format"] == "keep" else {"group", "scale_rule", "rounding", "scale", "mse", "sqnr_db", "max_error", "cosine"}
            self.assertEqual(set(tensor), common | more | {"fate", "fallback_from"}, tensor["name"])
            for plane in tensor["planes"]:
                self.assertEqual(set(plane), {"name", "bits", "nbytes", "raw"})
        plan = self.ok_json("plan", "--in", TINY, "--format", "int4")
        self.assertEqual(set(plan), set(report) - {"written_nbytes", "seconds", "mse", "sqnr_db", "max_error", "cosine"})

    def test_json_of_every_other_command(self):
        self.ok("convert", "--in", TINY, "--format", "int4", "--out", "x.llmq", "--quiet")
        inspect = self.ok_json("inspect", "x.llmq")
        self.assertEqual(set(inspect), {"path", "container", "files", "metadata", "blobs", "n_tensors", "tensors"})
        self.assertEqual((inspect["container"], inspect["n_tensors"]), ("llmq", len(inspect["tensors"])))
        self.assertEqual({b["name"] for b in inspect["blobs"]} >= {"config.json", "tokenizer.json"}, True)
        for t in inspect["tensors"]:
            self.assertLessEqual({"name", "role", "shape", "dtype", "format", "nbytes", "source_digest", "planes"}, set(t))
        scan = self.ok_json("inspect", TINY, "--scan")
        for t in scan["tensors"]:
            self.assertLessEqual({"nan", "inf", "zeros", "min", "max", "mean_abs"}, set(t))
        verify = self.ok_json("verify", "x.llmq")
        self.assertEqual((set(verify), verify["ok"]), ({"path", "ok", "files", "tensors", "chunks", "nbytes"}, True))
        self.assertEqual(verify["nbytes"], os.path.getsize(self.path("x.llmq")))
        compare = self.ok_json("compare", "--in", TINY, "--against", "x.llmq")
        self.assertEqual(set(compare), {"in", "against", "tensors", "total"})
        for t in compare["tensors"]:
            self.assertEqual(set(t), {"name", "shape", "weights", "nonfinite_differing", "mse", "sqnr_db", "max_error", "cosine", "identical"})
        back = self.ok_json("dequantize", "--in", "x.llmq", "--out", "y.safetensors")
        self.assertEqual(set(back), {"out", "tensors", "written_nbytes", "seconds"})
        self.assertEqual(back["written_nbytes"], os.path.getsize(self.path("y.safetensors")))
        self.assertEqual(set(self.ok_json("extract", "x.llmq", "model.norm.weight")), {"out", "tensors", "written_nbytes", "seconds"})
        formats = self.ok_json("formats")["formats"]
        self.assertEqual([f["name"] for f in formats if f["family"] in ("mx", "affine")], list(FORMATS))
        self.assertEqual({f["family"] for f in formats}, {"mx", "affine", "bfp", "bfp-prime", "float", "codebook", "nvfp4", "ggml"})
        self.assertEqual([f["name"] for f in formats if f["family"] == "ggml"], list(GGUF_FORMATS))
        for f in formats:
            self.assertEqual(set(f), {"name", "family", "element", "gguf_type", "bits", "bits_per_weight", "group", "channel", "tensor", "128x128", "zero_point", "sub_block", "shift_bits", "scale_dtypes",
                                      "scale_rules",                                      "default_scale_rule", "default_scale_dtype", "summary"})
        bench = self.ok_json("bench", "--format", "mxfp4:rule=floor", "--seconds", "1")
        self.assertEqual(set(bench), {"input", "results"})
        for r in bench["results"]:
            self.assertEqual(set(r), {"format", "kernels", "gb_per_s", "gb_per_s_measured", "same_bytes"})
            self.assertIs(r["same_bytes"], True)
            self.assertGreater(r["gb_per_s"], 0.0)

    def test_text_of_formats_and_bench(self):
        out = self.ok("formats").out
        for name in FORMATS:
            self.assertRegex(out, rf"(?m)^{name} ")
        self.assertIn("same bytes", self.ok("bench", "--format", "int4", "--seconds", "1").out)
        self.refused(2, ["bench", "--format", "int9"], "unknown format 'int9'")

    def test_quiet_is_silent(self):
        self.small()
        for args in (["convert", "--in", "small.safetensors", "--format", "int4", "--out", "x.llmq"], ["verify", "x.llmq"], ["dequantize", "--in", "x.llmq", "--out", "y.safetensors"],
                     ["extract", "x.llmq", "model.norm.weight"]):
            result = self.ok(*args, "--quiet")
            self.assertEqual((result.out, result.err), ("", ""), str(result))
        for args in (["compare", "--in", "small.safetensors", "--against", "x.llmq"], ["inspect", "small.safetensors", "--scan"]):
            self.assertEqual(self.ok(*args, "--quiet").err, "")
        self.assertEqual(self.ok("convert", "--in", "small.safetensors", "--format", "int4", "--out", "z.llmq", "--quiet", "--json").json["tensors_quantised"], 8)

    def test_quiet_hides_notes(self):
        folder = write_folder(self.path("m"), shards=2)
        write_model(os.path.join(folder, "stray.safetensors"), {"x": ("F32", (1,), [1.0])})
        self.assertIn("note: ", self.ok("inspect", "m").err)
        self.assertIn("stray.safetensors", self.ok("inspect", "m").err)
        self.assertEqual(self.ok("inspect", "m", "--quiet").err, "")

    def test_progress_goes_to_stderr_only(self):
        self.small()
        args = ["convert", "--in", "small.safetensors", "--format", "int4", "--out", "x.llmq", "--force", "--progress"]
        plain = self.ok(*args, "plain")
        self.assertRegex(plain.err, r"^convert: \d+(\.\d+)? kB of \d+(\.\d+)? kB, \d+\.\d s\n$")
        lines = [json.loads(l) for l in self.ok(*args, "jsonl").err.splitlines()]
        self.assertEqual(set(lines[-1]), {"phase", "done", "total", "seconds"})
        self.assertEqual((lines[-1]["phase"], lines[-1]["done"]), ("convert", lines[-1]["total"]))
        self.assertEqual(self.ok(*args, "none").err, "")
        bar = self.ok(*args, "bar")
        self.assertTrue(bar.err.endswith("\r\x1b[K"))
        self.assertEqual(self.ok(*args, "auto").err.count("\n"), 1)
        for how in ("plain", "jsonl", "none", "bar"):
            out = self.ok(*args, how).out
            self.assertNotIn("\r", out)
            json.loads(self.ok(*args, how, "--json").out)
        self.assertEqual(self.ok(*args, "jsonl", "--quiet").err, "")

    def test_bar_on_a_terminal(self):
        import pty
        self.small()
        try:
            master, slave = pty.openpty()
        except OSError as problem:
            skip_aloud(self, f"no terminal: {problem}")
        result = run("convert", "--in", "small.safetensors", "--format", "int4", "--out", "x.llmq", cwd=self.dir, stderr=slave)
        os.close(slave)
        shown = os.read(master, 4096).decode()
        os.close(master)
        self.assertEqual(result.code, 0)
        self.assertTrue(shown.endswith("\r\x1b[K"), repr(shown))


if __name__ == "__main__":
    unittest.main()
