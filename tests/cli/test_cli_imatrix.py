"""llmq convert and plan with --imatrix: statistics of every kind, made without llmq, weigh the errors of weights; errors are computed here from what
an independent reader decodes."""
import os
import sys
import unittest

import numpy as np

from cli_support import SHARED, read_bytes, skip_aloud, write_bytes, write_model
from gguf_support import GgufTest, reader, weights

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import stats_oracle as oracle  # noqa: E402  (found through the path set above)

COLS, EXPERTS, CALLS = 512, 4, 4
SHAPES = {"blk.0.attn_q": (64, COLS), "blk.0.attn_k": (16, COLS), "blk.0.attn_output": (32, COLS), "blk.0.ffn_up": (40, COLS), "blk.0.ffn_down": (24, 768),
          "blk.1.attn_q": (64, COLS), "blk.1.ffn_down_exps": (EXPERTS, 24, COLS)}
LINEAR = [n + ".weight" for n in SHAPES]
ENTRIES = [n for n in LINEAR if n != "blk.0.attn_k.weight"]
FORMATS = (["int4", "--scale-rule", "mse"], ["mxfp4", "--scale-rule", "search"], ["nvfp4"], ["q4_k"], ["q4_0", "--scale-rule", "mse"], ["iq4_nl"],
           ["fp8_e4m3", "--group-size", "128x128", "--scale-rule", "mse"], ["int3", "--group-size", "channel", "--scale-rule", "mse"])


def seed_of(name):
    return sum(map(ord, name))


def sums_of(name, spread=3.0):
    """The sums of squares of an entry's channels, as binary32: [n_mat, n_in]. Uneven by a factor of 10^spread."""
    shape = SHAPES[name.removesuffix(".weight")]
    n_mat = shape[0] if len(shape) == 3 else 1
    powers = np.random.default_rng(seed_of(name)).uniform(-spread, 0.0, (n_mat, shape[-1]))
    return (10.0**powers).astype(np.float32)


class Imatrix(GgufTest):
    def make(self):
        tensors = [(n, "F32", SHAPES[n.removesuffix(".weight")], weights(seed_of(n), *SHAPES[n.removesuffix(".weight")])) for n in LINEAR]
        self.model(tensors + [("output_norm.weight", "F32", (COLS,), weights(4, COLS))])
        return {n: np.asarray(x, np.float32).reshape(shape) for n, _, shape, x in tensors}

    def write_stats(self, sums, counts=None):
        """s.dat, s.gguf, s.safetensors of {name: [n_mat, n_in]}; counts: {name: [n_mat]}, CALLS calls of 512 tokens by default (.dat cannot say another)."""
        counts = counts or {}
        count = {n: counts.get(n, [CALLS * 512] * len(s)) for n, s in sums.items()}
        flat = {n: [float(v) for v in s.ravel()] for n, s in sums.items()}
        write_bytes(self.path("s.dat"), oracle.write_dat([(n, CALLS, [v for v in flat[n]]) for n in sums], 4, "text"))
        gguf, fields = {}, {}
        for n, s in sums.items():
            scaled = [v * 512 for v in flat[n]]
            gguf[n + ".in_sum2"] = ([s.shape[1], s.shape[0]], scaled)
            gguf[n + ".counts"] = ([1, s.shape[0]], [float(c) for c in count[n]])
            fields[n + ".counts"] = ("I64", [s.shape[0]], [int(c) for c in count[n]])
            fields[n + ".in_sum2"] = ("F32", list(s.shape), scaled)
        write_bytes(self.path("s.gguf"), oracle.write_gguf(gguf, ["text"], 4, 512))
        write_bytes(self.path("s.safetensors"), oracle.write_safetensors(fields, {"format": "llmq-actstats", "version": "1"}))

    def quantise(self, out, how, *more, **kwargs):
        self.convert("m.gguf", out, "--format", *how, *more, **kwargs)
        return self.decoded(out)

    def errors(self, x, y, sums):
        """{tensor: weighted error} in binary64, weights as the oracle defines them."""
        out = {}
        for n in LINEAR:
            s = sums.get("blk.0.attn_q.weight" if n == "blk.0.attn_k.weight" else n)
            d = (x[n].astype(np.float64) - y[n].reshape(x[n].shape))**2
            d = d.reshape(1 if d.ndim == 2 else d.shape[0], -1, d.shape[-1])
            w = [oracle.importance([float(v) for v in row]) or [1.0] * d.shape[-1] for row in s]
            out[n] = float(sum((d[m] * np.array(w[m])[None, :]).sum() for m in range(len(d))))
        return out

    # ---- what it is for -------------------------------------------------------------------------------------------------------------

    def test_the_weighted_error_falls(self):
        x, sums = self.make(), {n: sums_of(n) for n in ENTRIES}
        self.write_stats(sums)
        for how in FORMATS:
            with self.subTest(how=how):
                with_it, without = self.quantise("a.llmq", how, "--imatrix", "s.gguf", "--force"), self.quantise("b.llmq", how, "--force")
                after, before = self.errors(x, with_it, sums), self.errors(x, without, sums)
                for n in LINEAR:
                    self.assertTrue(np.isfinite(with_it[n]).all(), n)
                    self.assertLess(after[n], before[n], n)

    def test_same_bytes_of_every_kind_thread_count_and_processor(self):
        self.make()
        self.write_stats({n: sums_of(n) for n in ENTRIES})
        for kind in ("dat", "safetensors"):  # the output records the name, which says nothing of the kind
            os.mkdir(self.path(kind))
            os.rename(self.path("s." + kind), self.path(kind, "s.gguf"))
        for how in FORMATS:
            with self.subTest(how=how):
                self.quantise("a.llmq", how, "--imatrix", "s.gguf", "--threads", "1", "--force")
                want = read_bytes(self.path("a.llmq"))
                for out, more, env in (("b.llmq", ["s.gguf", "--threads", "4"], {}), ("c.llmq", ["s.gguf", "--threads", "2"], {"LLMQ_KERNELS": "portable"}),
                                       ("d.llmq", ["dat/s.gguf"], {}), ("e.llmq", ["safetensors/s.gguf", "--measure", "off"], {})):
                    self.quantise(out, how, "--imatrix", *more, "--force", env=env)
                    self.assertTrue(read_bytes(self.path(out)) == want, (out, how))

    def test_even_statistics_change_nothing_in_groups(self):
        self.make()
        self.write_stats({n: np.full_like(sums_of(n), 3.0) for n in ENTRIES})
        for how in (h for h in FORMATS if not h[0].startswith(("q4", "iq4"))):
            self.assert_same_weights(self.quantise("a.llmq", how, "--imatrix", "s.dat", "--force"), self.quantise("b.llmq", how, "--force"))

    def test_rules_that_do_not_search_say_so(self):
        self.make()
        self.write_stats({n: sums_of(n) for n in ENTRIES})
        self.convert("m.gguf", "b.llmq", "--format", "int4", "--scale-rule", "absmax")
        result = self.ok("convert", "--in", "m.gguf", "--out", "a.llmq", "--format", "int4", "--scale-rule", "absmax", "--imatrix", "s.dat")
        self.assertIn("changes nothing", result.err)
        self.assertIn("importance   7 of 7 tensors, 0 experts without data; 0 tensors heed it", result.out)
        self.assertEqual(read_bytes(self.path("a.llmq")), read_bytes(self.path("b.llmq")))

    # ---- what is missing --------------------------------------------------------------------------------------------------------------

    def test_missing_tensors_and_experts_are_counted(self):
        self.make()
        sums = {n: sums_of(n) for n in ENTRIES if n != "blk.0.ffn_down.weight"}
        sums["output.weight"] = np.ones((1, COLS), np.float32)
        self.write_stats(sums, {"blk.1.ffn_down_exps.weight": [512, 0, 512, 0]})
        for form in ("s.gguf", "s.safetensors"):
            report = self.ok_json("plan", "--in", "m.gguf", "--format", "int4", "--scale-rule", "mse", "--imatrix", form)
            found = report["importance"]
            self.assertEqual((found["file"], found["tensors"], found["of"], found["heeding"], found["experts_without"]), (form, 6, 7, 6, 2))
            self.assertGreaterEqual(found["nbytes"], (5 + EXPERTS) * COLS * 4)
            self.assertLess(found["nbytes"], 32768)
        result = self.ok("plan", "--in", "m.gguf", "--format", "int4", "--scale-rule", "mse", "--imatrix", "s.gguf")
        self.assertIn("importance   6 of 7 tensors, 2 experts without data; 6 tensors heed it\n", result.out)
        self.assertIn("1 of 6 entries of 's.gguf' are about no tensor that is quantised (the first: 'output.weight')", result.err)
        a, b = self.quantise("a.llmq", FORMATS[0], "--imatrix", "s.gguf"), self.quantise("b.llmq", FORMATS[0])
        same = {n: np.array_equal(a[n], b[n]) for n in LINEAR}
        self.assertEqual([n for n in LINEAR if same[n]], ["blk.0.ffn_down.weight"])
        stack = [np.array_equal(a["blk.1.ffn_down_exps.weight"].reshape(EXPERTS, -1)[m], b["blk.1.ffn_down_exps.weight"].reshape(EXPERTS, -1)[m]) for m in range(EXPERTS)]
        self.assertEqual(stack, [False, True, False, True])

    def test_single_experts(self):
        names = [f"model.layers.0.mlp.experts.{e}.down_proj.weight" for e in range(3)]
        write_model(self.path("m.safetensors"), {n: ("F32", (8, 64), weights(i, 8, 64)) for i, n in enumerate(names)})
        write_bytes(self.path("s.gguf"), oracle.write_gguf({"blk.0.ffn_down_exps.weight.in_sum2": ([64, 3], [float(1 + i % 7) for i in range(192)]),
                                                            "blk.0.ffn_down_exps.weight.counts": ([1, 3], [5.0, 0.0, 5.0])}, None, 1, 512))
        found = self.ok_json("plan", "--in", "m.safetensors", "--format", "int4", "--scale-rule", "mse", "--imatrix", "s.gguf")["importance"]
        self.assertEqual((found["tensors"], found["of"], found["experts_without"]), (2, 3, 1))

    # ---- wide and empty ---------------------------------------------------------------------------------------------------------------

    def test_wide_spreads_and_zeros(self):
        x = self.make()
        sums = {n: sums_of(n, 12.0) for n in ENTRIES}
        for s in sums.values():
            s[0, ::5] = 0.0
            s[0, 256:] = 0.0  # groups, squares and blocks of every size
        sums["blk.1.ffn_down_exps.weight"][2, :] = 0.0
        sums["blk.0.attn_output.weight"][0, :] = 0.0
        self.write_stats(sums)
        for how in FORMATS + (["q4_k", "--scale-rule", "mse"], ["q6_k"], ["q5_1"], ["iq4_xs", "--scale-rule", "mse"], ["nf4", "--scale-rule", "mse"], ["mx6"]):
            with self.subTest(how=how):
                a, b = self.quantise("a.llmq", how, "--imatrix", "s.gguf", "--force"), self.quantise("b.llmq", how, "--force")
                for n in LINEAR:
                    self.assertTrue(np.isfinite(a[n]).all(), n)
                np.testing.assert_array_equal(a["blk.0.attn_output.weight"], b["blk.0.attn_output.weight"])
                if "channel" not in how:
                    np.testing.assert_array_equal(a["blk.0.attn_q.weight"][:, 256:], b["blk.0.attn_q.weight"][:, 256:])
                    self.assertLess(np.abs(a["blk.0.attn_q.weight"][:, 256:] - x["blk.0.attn_q.weight"][:, 256:]).max(), 0.05)
        found = self.ok_json("plan", "--in", "m.gguf", "--format", "int4", "--imatrix", "s.gguf")["importance"]
        self.assertEqual((found["tensors"], found["experts_without"]), (6, 1))

    # ---- what is refused ----------------------------------------------------------------------------------------------------------------

    def test_wrong_sizes_and_files(self):
        self.make()
        plan = ["plan", "--in", "m.gguf", "--format", "int4", "--scale-rule", "mse", "--imatrix"]
        self.write_stats({"blk.0.ffn_down.weight": np.ones((1, 700), np.float32)})
        for form in ("s.dat", "s.gguf", "s.safetensors"):
            self.refused(1, plan + [form], form, "blk.0.ffn_down.weight", "1 x 700", "1 x 768")
        self.write_stats({"blk.1.ffn_down_exps.weight": np.ones((3, COLS), np.float32)})
        self.refused(1, plan + ["s.gguf"], "s.gguf", "blk.1.ffn_down_exps.weight", "3 x 512", "4 x 512")
        self.write_stats({"blk.7.ffn_down.weight": np.ones((1, 768), np.float32)})
        for command in ("plan", "convert"):
            self.refused(2, [command] + plan[1:] + ["s.dat"], "s.dat", "none of its 1 entries", "blk.7.ffn_down.weight")
        self.refused(1, plan + ["none.dat"], "none.dat")
        write_bytes(self.path("cut.dat"), read_bytes(self.path("s.dat"))[:40])
        self.refused(1, plan + ["cut.dat"], "cut.dat")

    def test_recipe_key(self):
        self.make()
        self.write_stats({n: sums_of(n) for n in ENTRIES})
        write_bytes(self.path("r.yaml"), b"format: int4\nscale-rule: mse\nimatrix: s.safetensors\n")
        self.convert("m.gguf", "a.llmq", "--recipe", "./r.yaml")
        self.quantise("b.llmq", FORMATS[0], "--imatrix", "s.safetensors")
        self.assertEqual(read_bytes(self.path("a.llmq")), read_bytes(self.path("b.llmq")))

    def test_the_name_is_recorded(self):
        self.make()
        self.write_stats({n: sums_of(n) for n in ENTRIES})
        os.rename(self.path("s.dat"), self.path('s"\u00e9.dat'))
        name = 's\\x22\u00e9.dat'
        self.quantise("a.llmq", FORMATS[0], "--imatrix", self.path('s"\u00e9.dat'))
        self.assertEqual(self.metadata("a.llmq"), {"llmq.imatrix": name})
        self.quantise("b.llmq", FORMATS[0])
        self.assertEqual(self.metadata("b.llmq"), {})
        self.convert("m.gguf", "a.gguf", "--format", "q4_0", "--imatrix", self.path('s"\u00e9.dat'))
        self.assertEqual(self.gguf("a.gguf").keys["quantize.imatrix.file"].value.decode(), name)
        self.convert("a.gguf", "b.gguf", "--format", "q5_0", "--allow-requantize", "--imatrix", "s.gguf")
        self.assertEqual(self.gguf("b.gguf").keys["quantize.imatrix.file"].value.decode(), "s.gguf")
        self.convert("a.llmq", "c.llmq", "--format", "int5", "--scale-rule", "mse", "--allow-requantize", "--imatrix", "s.gguf")
        self.assertEqual(self.metadata("c.llmq"), {"llmq.imatrix": "s.gguf"})

    def metadata(self, name):
        return reader.read(self.path(name)).metadata

    def test_memory_is_counted(self):
        self.make()
        self.write_stats({n: sums_of(n) for n in ENTRIES})
        with_it, without = (self.ok_json("plan", "--in", "m.gguf", *more, "--format", "int4", "--scale-rule", "mse") for more in (["--imatrix", "s.gguf"], []))
        more = with_it["index_nbytes"] - without["index_nbytes"] - with_it["importance"]["nbytes"]
        self.assertTrue(0 <= more < 256, more)  # the name, in the index of the output

    def test_real_statistics(self):
        path = os.path.join(SHARED, "imatrix", "imatrix.dat")
        if not os.path.exists(path):
            skip_aloud(self, f"no {path}")
        entries = {n: (calls, values) for n, calls, values in oracle.read_dat(read_bytes(path))[0]}
        names = [n for n in entries if n.startswith("blk.0.")]
        x = {n: weights(seed_of(n), 16, len(entries[n][1])) for n in names}
        self.model([(n, "F32", x[n].shape, x[n]) for n in names])
        for how in (["int4", "--scale-rule", "mse"], ["q4_k"], ["nvfp4"]):
            a, b = self.quantise("a.llmq", how, "--imatrix", path, "--force"), self.quantise("b.llmq", how, "--force")
            for n in names:
                w = np.array(oracle.importance(entries[n][1]))
                after, before = (float((((x[n].astype(np.float64) - y[n].reshape(x[n].shape))**2) * w).sum()) for y in (a, b))
                self.assertLess(after, before, (how, n))


if __name__ == "__main__":
    unittest.main()
