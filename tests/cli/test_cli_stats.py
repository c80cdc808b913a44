"""llmq stats: show, merge, convert, against files written and read without llmq (tests/stats_oracle.py)."""
import json
import os
import re
import sys
import unittest

from cli_support import CliTest, SHARED, read_bytes, skip_aloud, write_bytes, write_model, small_tensors

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import stats_oracle as oracle  # noqa: E402  (found through the path set above)

DAT = [("blk.1.attn_q.weight", 365, [22.5, 0.0, 1e-6, 4.0]), ("blk.0.ffn_down.weight", 365, [1.0, 2.0]), ("output.weight", 0, [3.0])]
HF = "model.layers.0."


class Stats(CliTest):
    def write(self, name, data):
        return write_bytes(self.path(name), data)

    def notes(self, result):
        return [l for l in result.err.splitlines() if l.startswith("note: ")]

    # ---- show -----------------------------------------------------------------------------------------------------------------------

    def test_show(self):
        self.write("a.dat", oracle.write_dat(DAT, 365, "wiki"))
        lines = self.ok("stats", "show", "a.dat").out.splitlines()
        self.assertIn("a.dat: imatrix-dat, 3 entries, 365 chunks of 512 tokens; from wiki", lines[0])
        self.assertEqual(len(lines), 4)
        self.assertIn("1 dead", lines[1])
        self.assertIn("1 missing", lines[3])
        files = self.ok_json("stats", "show", "a.dat")["files"]
        entries = {e["name"]: e for e in files[0]["entries"]}
        q = entries["blk.1.attn_q.weight"]
        self.assertEqual((q["n_mat"], q["n_in"], q["tokens"], q["dead"], q["missing"], q["statistic"]), (1, 4, [186880, 186880], 1, 0, "rms"))
        rms = sorted((v / 365) ** 0.5 for v in map(oracle.f32, DAT[0][2]))
        self.assertAlmostEqual(q["median"], (rms[1] + rms[2]) / 2, places=9)
        self.assertAlmostEqual(q["spread"], rms[3] / ((rms[1] + rms[2]) / 2), places=6)
        self.assertEqual(entries["output.weight"]["missing"], 1)
        self.assertIsNone(entries["output.weight"]["statistic"])
        self.assertEqual((files[0]["chunk_count"], files[0]["datasets"], files[0]["kind"]), (365, ["wiki"], "imatrix-dat"))

    def test_show_of_every_kind_and_of_several_files(self):
        for name, data in oracle.seeds().items():
            if not name.startswith("pickle"):
                self.write(name, data)
        files = self.ok_json("stats", "show", "dat", "gguf", "safetensors", "act_scales", "awq")["files"]
        self.assertEqual([f["kind"] for f in files], ["imatrix-dat", "imatrix-gguf", "safetensors", "torch-pt", "torch-pt"])
        self.assertEqual([e["statistic"] for f in files for e in f["entries"]], ["rms", None, "rms", "rms", "absmax", "absmax", "scale", "scale"])
        self.assertEqual(files[2]["aliases"], {"k": "w"})
        self.assertEqual(files[2]["metadata"], {"tool": "t"})
        self.assertEqual(files[1]["entries"][0]["missing"], 1)
        self.assertEqual(files[2]["entries"][0]["fields"], ["in_sum2", "in_absmax", "in_min", "in_max", "counts", "in_hist", "in_gram", "in_sample"])
        text = self.ok("stats", "show", "awq")
        self.assertIn("clipping limits", text.err)

    def test_show_of_a_spread_without_a_median(self):
        self.write("a.dat", oracle.write_dat([("w", 1, [0.0, 0.0, 5.0])]))
        self.assertIn("spread inf", self.ok("stats", "show", "a.dat").out)
        self.assertIsNone(self.ok_json("stats", "show", "a.dat")["files"][0]["entries"][0]["spread"])

    # ---- convert --------------------------------------------------------------------------------------------------------------------

    def test_round_trip(self):
        dat = [DAT[0], DAT[1]]
        self.write("a.dat", oracle.write_dat(dat, 365, "wiki"))
        self.ok("stats", "convert", "a.dat", "--out", "a.safetensors")
        metadata, tensors = oracle.read_safetensors(read_bytes(self.path("a.safetensors")))
        self.assertEqual(metadata, {"format": "llmq-actstats", "version": "1", "seq_len": "512", "sequences": "365", "dataset": "wiki", "names": "gguf"})
        self.assertEqual(tensors["blk.1.attn_q.weight.in_sum2"], ("F32", [1, 4], [oracle.f32(oracle.f32(v) * 512) for v in dat[0][2]]))
        self.assertEqual(tensors["blk.1.attn_q.weight.counts"], ("I64", [1], [365 * 512]))
        self.ok("stats", "convert", "a.safetensors", "--out", "a.gguf")
        keys, tensors = oracle.read_gguf(read_bytes(self.path("a.gguf")))
        self.assertEqual(keys, {"general.type": "imatrix", "imatrix.datasets": ["wiki"], "imatrix.chunk_count": 365, "imatrix.chunk_size": 512})
        self.assertEqual(tensors["blk.0.ffn_down.weight.in_sum2"], ([2, 1], [512.0, 1024.0]))
        self.assertEqual(tensors["blk.0.ffn_down.weight.counts"], ([1, 1], [186880.0]))
        self.ok("stats", "convert", "a.gguf", "--out", "b.dat")
        self.assertEqual(read_bytes(self.path("b.dat")), read_bytes(self.path("a.dat")))
        self.ok("stats", "convert", "a.gguf", "--out", "c.gguf")
        self.assertEqual(read_bytes(self.path("c.gguf")), read_bytes(self.path("a.gguf")))
        self.no_partial()

    def test_experts_in_a_dat(self):
        sums, counts = [float(i) for i in range(6)], [1000.0, 0.0, 512.0]
        self.write("a.gguf", oracle.write_gguf({"blk.0.ffn_up_exps.weight.in_sum2": ([2, 3], sums), "blk.0.ffn_up_exps.weight.counts": ([1, 3], counts)}, ["d"], 2, 512))
        self.ok("stats", "convert", "a.gguf", "--out", "a.dat")
        entries, chunks, dataset = oracle.read_dat(read_bytes(self.path("a.dat")))
        self.assertEqual(entries, [("blk.0.ffn_up_exps.weight", *oracle.legacy_of(sums, counts, 2))])
        self.assertEqual((chunks, dataset), (2, "d"))

    def test_experts_side_by_side_are_divided(self):
        name = "blk.0.ffn_up_exps.weight"
        self.write("a.dat", oracle.write_dat([(name, 2, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), ("blk.0.attn_q.weight", 2, [1.0, 2.0])], 2, "d"))
        result = self.ok("stats", "convert", "a.dat", "--out", "a.gguf")
        self.assertIn("1 stacks of experts have one row", result.err)
        self.assertEqual(oracle.read_gguf(read_bytes(self.path("a.gguf")))[1][name + ".in_sum2"][0], [6, 1])
        for out in ("b.gguf", "b.safetensors", "b.dat"):
            result = self.ok("stats", "convert", "a.dat", "--out", out, "--experts", "3")
            self.assertNotIn("one row", result.err)
        tensors = oracle.read_gguf(read_bytes(self.path("b.gguf")))[1]
        self.assertEqual(tensors[name + ".in_sum2"], ([2, 3], [512.0 * i for i in range(1, 7)]))
        self.assertEqual(tensors[name + ".counts"], ([1, 3], [1024.0] * 3))
        self.assertEqual(oracle.read_safetensors(read_bytes(self.path("b.safetensors")))[1][name + ".in_sum2"][1], [3, 2])
        self.assertEqual(read_bytes(self.path("b.dat")), read_bytes(self.path("a.dat")))
        self.refused(1, ["stats", "convert", "a.dat", "--out", "c.gguf", "--experts", "4"], name, "cannot be divided into 4")
        self.refused(2, ["stats", "convert", "b.gguf", "--out", "c.gguf", "--experts", "3"], "no stack of experts has one row")
        self.refused(2, ["stats", "show", "a.dat", "--experts", "3"], "writes nothing")

    def test_names_of_checkpoints_become_gguf_names(self):
        def entry(name, values, count):
            return {f"{name}.counts": ("I64", [1], [count]), f"{name}.in_sum2": ("F32", [1, len(values)], values)}
        tensors = {**entry(HF + "self_attn.q_proj.weight", [1.0, 2.0], 512), **entry(HF + "mlp.experts.0.up_proj.weight", [3.0], 512), **entry(HF + "mlp.experts.2.up_proj.weight", [5.0], 1024),
                   **entry("vision.x.weight", [1.0], 512)}
        alias = json.dumps({HF + "self_attn.k_proj.weight": HF + "self_attn.q_proj.weight"})
        self.write("a.safetensors", oracle.write_safetensors(tensors, {"format": "llmq-actstats", "version": "1", "names": "hf", "alias": alias}))
        result = self.ok("stats", "convert", "a.safetensors", "--out", "a.gguf")
        self.assertIn("note: 4 names became GGUF names", self.notes(result))
        self.assertIn("note: 1 names are in no pattern of names.yaml and stay as they are", self.notes(result))
        _, out = oracle.read_gguf(read_bytes(self.path("a.gguf")))
        self.assertEqual(out["blk.0.attn_k.weight.in_sum2"], ([2, 1], [1.0, 2.0]))
        self.assertEqual(out["blk.0.ffn_up_exps.weight.in_sum2"], ([1, 3], [3.0, 0.0, 5.0]))
        self.assertEqual(out["blk.0.ffn_up_exps.weight.counts"], ([1, 3], [512.0, 0.0, 1024.0]))
        self.assertIn("vision.x.weight.in_sum2", out)
        self.ok("stats", "convert", "a.safetensors", "--out", "b.safetensors", "--quiet")  # our own kind keeps names
        self.assertIn(HF + "self_attn.q_proj.weight.in_sum2", oracle.read_safetensors(read_bytes(self.path("b.safetensors")))[1])

    def test_torch_files(self):
        scales = {HF + "self_attn.q_proj": [1.5, 2.0, 0.0], "lm_head": [4.0]}
        for protocol in (2, 4):
            for dtype in ("F32", "F16", "F64"):
                with self.subTest(protocol=protocol, dtype=dtype):
                    self.write("a.pt", oracle.write_act_scales(scales, protocol, dtype))
                    self.ok("stats", "convert", "a.pt", "--out", "a.safetensors", "--force")
                    metadata, tensors = oracle.read_safetensors(read_bytes(self.path("a.safetensors")))
                    self.assertEqual(tensors, {f"{n}.weight.in_absmax": ("F32", [1, len(v)], v) for n, v in scales.items()})
                    self.assertEqual(metadata["names"], "hf")
        self.write("b.pt", oracle.write_awq([("input_layernorm", ["q_proj", "k_proj"], [1.0, 0.5])]))
        self.ok("stats", "convert", "b.pt", "--out", "b.safetensors")
        metadata, tensors = oracle.read_safetensors(read_bytes(self.path("b.safetensors")))
        self.assertEqual(tensors, {"q_proj.weight.in_scale": ("F32", [1, 2], [1.0, 0.5])})
        self.assertEqual(json.loads(metadata["alias"]), {"k_proj.weight": "q_proj.weight"})
        self.refused(1, ["stats", "convert", "a.pt", "--out", "a.dat"], "in_sum2 and counts")

    def test_what_is_left_out_is_said(self):
        tensors = {"blk.0.attn_q.weight.counts": ("I64", [1], [512]), "blk.0.attn_q.weight.in_sum2": ("F32", [1, 1], [1.0]), "blk.0.attn_q.weight.in_absmax": ("F32", [1, 1], [1.0]),
                   "blk.1.attn_q.weight.in_absmax": ("F32", [1, 1], [1.0])}
        self.write("a.safetensors", oracle.write_safetensors(tensors))
        result = self.ok("stats", "convert", "a.safetensors", "--out", "a.gguf", "--json")
        self.assertEqual(result.json["left_out"], {"entries": 1, "fields": 1, "facts": 0})
        self.assertEqual(result.json["entries"], 1)
        self.assertIn("note: imatrix-gguf cannot hold 1 entries, and 1 fields of others", self.notes(result))

    def test_the_real_file(self):
        real = os.path.join(SHARED, "imatrix", "imatrix.dat")
        if not os.path.exists(real):
            skip_aloud(self, "no shared data")
        for a, b in ((real, "a.gguf"), ("a.gguf", "b.safetensors"), ("b.safetensors", "c.dat")):
            self.ok("stats", "convert", a, "--out", b)
        self.assertEqual(read_bytes(self.path("c.dat")), read_bytes(real))
        entries = {n: (c, v) for n, c, v in oracle.read_dat(read_bytes(real))[0]}
        keys, tensors = oracle.read_gguf(read_bytes(self.path("a.gguf")))
        self.assertEqual(len(tensors), 2 * 154)
        for name, (calls, values) in entries.items():
            self.assertEqual(tensors[name + ".in_sum2"][1], [v * 512 for v in values])
            self.assertEqual(tensors[name + ".counts"][1], [calls * 512.0])

    # ---- merge ----------------------------------------------------------------------------------------------------------------------

    def test_merge(self):
        self.write("a.dat", oracle.write_dat([("blk.0.attn_q.weight", 2, [1.0, 2.0]), ("only", 1, [1.0])], 2, "x"))
        self.write("b.dat", oracle.write_dat([("blk.0.attn_q.weight", 3, [10.0, 0.5])], 3, "y"))
        self.ok("stats", "merge", "a.dat", "b.dat", "--out", "m.dat")
        self.ok("stats", "merge", "b.dat", "a.dat", "--out", "n.dat")
        self.assertEqual(read_bytes(self.path("m.dat")), read_bytes(self.path("n.dat")))
        entries, chunks, dataset = oracle.read_dat(read_bytes(self.path("m.dat")))
        self.assertEqual(entries, [("blk.0.attn_q.weight", 5, [11.0, 2.5]), ("only", 1, [1.0])])
        self.assertEqual((chunks, dataset), (5, "x"))
        self.ok("stats", "merge", "a.dat", "b.dat", "--out", "m.safetensors")
        metadata, _ = oracle.read_safetensors(read_bytes(self.path("m.safetensors")))
        self.assertEqual((json.loads(metadata["datasets"]), metadata["sequences"]), (["x", "y"], "5"))
        twice = self.ok("stats", "merge", "a.dat", "a.dat", "--out", "t.dat")
        self.assertIn("the same file; it counts twice", twice.err)
        self.assertEqual(oracle.read_dat(read_bytes(self.path("t.dat")))[0][0][1:], (4, [2.0, 4.0]))

    def test_merge_drops_what_not_all_have(self):
        def file(name, fields):
            self.write(name, oracle.write_safetensors({f"w.{f}": ("I64" if f == "counts" else "F32", [1] if f == "counts" else [1, 1], [512 if f == "counts" else 1.0]) for f in fields}))
        file("a.safetensors", ["counts", "in_sum2", "in_sumabs", "in_absmax"])
        file("b.safetensors", ["counts", "in_sum2", "in_absmax"])
        result = self.ok("stats", "merge", "a.safetensors", "b.safetensors", "--out", "m.safetensors")
        self.assertIn("note: 1 fields were dropped, which not all files have", self.notes(result))
        _, tensors = oracle.read_safetensors(read_bytes(self.path("m.safetensors")))
        self.assertEqual(tensors, {"w.counts": ("I64", [1], [1024]), "w.in_sum2": ("F32", [1, 1], [2.0]), "w.in_absmax": ("F32", [1, 1], [1.0])})

    def test_merge_refuses_other_shapes(self):
        self.write("a.dat", oracle.write_dat([("w", 1, [1.0])]))
        self.write("b.dat", oracle.write_dat([("w", 1, [1.0, 2.0])]))
        self.refused(1, ["stats", "merge", "a.dat", "b.dat", "--out", "m.dat"], "cannot merge", "'w' has", "channels in one file")

    def test_help(self):
        out = self.ok("stats", "--help").out
        self.assertIn("usage: llmq stats show|merge|convert FILE... [--out OUT]", out)
        self.assertEqual(set(re.findall(r"(?m)^  --([a-z0-9-]+)", out)), {"out", "force", "experts", "json", "quiet", "progress", "threads", "max-ram"})
        self.assertRegex(self.ok("--help").out, r"(?m)^  stats ")

    # ---- refusals -------------------------------------------------------------------------------------------------------------------

    def test_usage(self):
        self.write("a.dat", oracle.write_dat(DAT))
        self.refused(2, ["stats"], "show, merge or convert?")
        self.refused(2, ["stats", "shw", "a.dat"], "'shw' is none of show, merge, convert")
        self.refused(2, ["stats", "show"], "which file?")
        self.refused(2, ["stats", "show", "a.dat", "--out", "x.dat"], "writes nothing")
        self.refused(2, ["stats", "convert", "a.dat"], "where to?")
        self.refused(2, ["stats", "convert", "a.dat", "a.dat", "--out", "x.dat"], "one file at a time")
        self.refused(2, ["stats", "convert", "a.dat", "--out", "x.bin"], "'x.bin' ends in none of .safetensors, .gguf, .dat")
        self.refused(2, ["stats", "convert", "a.dat", "--out", "a.dat"], "a.dat")
        self.refused(2, ["stats", "convert", "a.dat", "--out", "a.dat", "--force"], "a.dat")
        self.refused(2, ["stats", "show", "a.dat", "--format", "int4"], "--format")

    def test_outputs_in_the_way(self):
        self.write("a.dat", oracle.write_dat(DAT[:2]))
        self.write("b.dat", b"old")
        self.refused(1, ["stats", "convert", "a.dat", "--out", "b.dat"], "b.dat", "--force")
        self.ok("stats", "convert", "a.dat", "--out", "b.dat", "--force")
        self.assertEqual(read_bytes(self.path("b.dat")), read_bytes(self.path("a.dat")))
        self.refused(1, ["stats", "convert", "a.dat", "--out", "nowhere/b.dat"], "nowhere")

    def test_bad_inputs(self):
        write_model(self.path("model.safetensors"), small_tensors())
        self.refused(1, ["stats", "show", "model.safetensors"], "cannot read statistics from 'model.safetensors'", "holds no statistics")
        self.refused(1, ["stats", "show", "nothing.dat"], "nothing.dat", "No such file")
        self.refused(1, ["stats", "show", "."], "directory")
        self.write("model.gguf", oracle.write_gguf({"blk.0.attn_q.weight": ([2], [1.0, 2.0])}, kind="model"))
        self.refused(1, ["stats", "show", "model.gguf"], "of type 'model', not imatrix")
        self.write("cut.dat", oracle.write_dat(DAT)[:-1])
        self.refused(1, ["stats", "show", "cut.dat"], "entry 'output.weight'", "claims 1 values")
        self.write("nan.dat", oracle.write_dat([("w", 1, [float("nan")])]))
        self.refused(1, ["stats", "show", "nan.dat"], "'w': in_sum2 of channel 0 is NaN or Inf")
        p = oracle.Pickle()
        p.name("os", "system")
        self.write("evil.pt", oracle.write_pt(p.text("touch owned").out + b"\x85R.", []))
        self.refused(1, ["stats", "show", "evil.pt"], "data.pkl: it wants 'os.system', which llmq does not take from a pickle")
        self.write("deflated.pt", oracle.write_zip([("a/data.pkl", b"\x80\x02}." * 50)], method=8))
        self.refused(1, ["stats", "show", "deflated.pt"], "compressed")
        # several files: the bad one is named, whatever came before it
        self.write("good.dat", oracle.write_dat(DAT))
        result = self.llmq("stats", "show", "good.dat", "cut.dat")
        self.check_refusal(result, 1, "stats", "cut.dat")

    def test_an_ending_says_nothing_about_an_input(self):
        self.write("a.gguf", oracle.write_dat(DAT, 1, "d"))
        self.assertEqual(self.ok_json("stats", "show", "a.gguf")["files"][0]["kind"], "imatrix-dat")

    def test_names_with_odd_letters(self):
        self.write("a.dat", oracle.write_dat([("w\u00e9\u4e2d", 1, [1.0])]))
        self.refused(1, ["stats", "show", "a.dat"], "no file of statistics")  # a first name that is no ASCII is no imatrix
        self.write("b.dat", oracle.write_dat([("w", 1, [1.0]), ("\u00e9\u4e2d", 1, [1.0])]))
        self.assertEqual(self.ok_json("stats", "show", "b.dat")["files"][0]["entries"][1]["name"], "\u00e9\u4e2d")


class Oracle(unittest.TestCase):
    def test_self_check(self):
        oracle.self_check()


if __name__ == "__main__":
    unittest.main()
