"""What comes back: inspect, verify of damage, dequantize, extract, compare."""
import json
import os
import random
import unittest

import numpy as np

from cli_support import CliTest, LINEAR, TINY, random_weights, read_bytes, small_tensors, write_bytes, write_folder, write_model


def load(path):
    """{name: (dtype, shape, bytes)} and the metadata of a safetensors file."""
    data = read_bytes(path)
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + n])
    metadata = header.pop("__metadata__", {})
    return {k: (v["dtype"], v["shape"], data[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]]) for k, v in header.items()}, metadata


class Verify(CliTest):
    def setUp(self):
        super().setUp()
        self.small("m.safetensors")
        self.ok("convert", "--in", "m.safetensors", "--format", "int4", "--out", "x.llmq", "--quiet")
        self.whole = read_bytes(self.path("x.llmq"))

    def damage(self, data, code=3, command="verify"):
        write_bytes(self.path("d.llmq"), data)
        args = {"verify": ["verify", "d.llmq"], "dequantize": ["dequantize", "--in", "d.llmq", "--out", "y.safetensors"]}[command]
        return self.refused(code, args, "d.llmq")

    def test_sound(self):
        self.assertRegex(self.ok("verify", "x.llmq").out, r"^x.llmq: sound: 16 tensors, \d+ chunks, ")
        for threads in ("1", "7"):
            self.ok("verify", "x.llmq", "--threads", threads, "--max-ram", "8M")

    def test_flipped_bits(self):
        rng = random.Random(1)
        places = [rng.randrange(len(self.whole)) for _ in range(150)] + list(range(8, 64)) + [len(self.whole) - k for k in range(1, 60)]
        for at in places:
            data = bytearray(self.whole)
            data[at] ^= 1 << rng.randrange(8)
            with self.subTest(at):
                self.damage(bytes(data))

    def test_truncated_and_extended(self):
        for n in (16, 100, len(self.whole) // 2, len(self.whole) - 1):
            with self.subTest(n):
                self.damage(self.whole[:n])
        self.damage(self.whole + b"x")
        self.damage(self.whole + self.whole)
        self.damage(self.whole + bytes(4096))

    def test_damage_names_the_tensor_and_stops_reading_commands(self):
        entry = next(t for t in self.ok_json("inspect", "x.llmq")["tensors"] if t["name"] == LINEAR[0])
        codes = next(p for p in entry["planes"] if p["name"] == "codes")
        data = bytearray(self.whole)
        data[codes["offset"] + codes["nbytes"] // 2] ^= 1
        self.assertIn(LINEAR[0], self.damage(bytes(data)))
        self.assertIn("codes", self.damage(bytes(data)))
        before = set(os.listdir(self.dir))
        result = self.llmq("dequantize", "--in", "d.llmq", "--out", "y.safetensors")
        self.assertIn(result.code, (1, 3), str(result))
        self.check_refusal(result, result.code, "dequantize", LINEAR[0])
        self.assertEqual(set(os.listdir(self.dir)), before)
        result = self.llmq("compare", "--in", "m.safetensors", "--against", "d.llmq")
        self.assertIn(result.code, (1, 3), str(result))
        self.check_refusal(result, result.code, "compare", LINEAR[0])

    def test_no_container(self):
        self.refused(1, ["verify", "m.safetensors"], "m.safetensors", "neither a .llmq container nor GGUF")
        os.mkdir(self.path("dir"))
        self.refused(1, ["verify", "dir"], "dir")
        self.refused(1, ["verify", "/dev/zero"], "/dev/zero")

    def test_split_containers(self):
        plan = self.ok_json("convert", "--in", "m.safetensors", "--format", "int4", "--out", "s.llmq", "--split-max-size", "8K", "--compress", "none", "--align", "64")
        self.assertGreater(plan["files"], 2)
        names = sorted(n for n in os.listdir(self.dir) if n.startswith("s-"))
        self.assertEqual(len(names), plan["files"])
        self.ok("verify", names[0])
        self.ok("compare", "--in", "m.safetensors", "--against", names[0], "--quiet")
        whole = read_bytes(self.path(names[1]))
        write_bytes(self.path(names[1]), whole[:-1])
        self.refused(3, ["verify", names[0]], names[1])
        os.remove(self.path(names[1]))
        result = self.llmq("verify", names[0])
        self.assertIn(result.code, (1, 3), str(result))
        self.check_refusal(result, result.code, "verify", names[1])
        write_bytes(self.path(names[1]), whole)
        self.refused(1, ["convert", "--in", "m.safetensors", "--format", "int4", "--out", "s.llmq", "--split-max-size", "8K", "--compress", "none", "--align", "64"], "exists")


class Dequantize(CliTest):
    def test_folder_comes_back(self):
        tensors = small_tensors()
        write_folder(self.path("m"), tensors)
        write_bytes(self.path("m", "merges.txt"), b"a b\n")
        self.ok("convert", "--in", "m", "--format", "int8", "--out", "x.llmq", "--quiet")
        for out in ("back/", "again"):
            self.ok("dequantize", "--in", "x.llmq", "--out", out, "--quiet")
            self.assertEqual(sorted(os.listdir(self.path(out))), sorted(os.listdir(self.path("m"))))
            for name in ("config.json", "tokenizer.json", "merges.txt"):
                self.assertEqual(read_bytes(self.path(out, name)), read_bytes(self.path("m", name)))
            found, metadata = load(self.path(out, "model.safetensors"))
            self.assertEqual(metadata.get("format"), "pt")
            source, _ = load(self.path("m", "model.safetensors"))
            self.assertEqual(set(found), set(source))
            for name, (dtype, shape, data) in source.items():
                self.assertEqual(found[name][:2], (dtype, shape))
                (self.assertNotEqual if name in LINEAR else self.assertEqual)(found[name][2], data, name)
            compared = self.ok_json("compare", "--in", "x.llmq", "--against", out)
            self.assertGreater(min(t["sqnr_db"] for t in compared["tensors"] if not t["identical"]), 40)
            self.ok("convert", "--in", out, "--format", "int8", "--out", out.strip("/") + ".llmq", "--quiet")

    def test_single_file_and_dtypes(self):
        write_folder(self.path("m"))
        self.ok("convert", "--in", "m", "--format", "mxfp4", "--out", "x.llmq", "--quiet")
        for dtype, stored_as in (("source", "BF16"), ("f32", "F32"), ("bf16", "BF16"), ("f16", "F16")):
            result = self.ok("dequantize", "--in", "x.llmq", "--out", f"{dtype}.safetensors", "--dtype", dtype)
            self.assertIn("config.json", result.err)
            found, _ = load(self.path(f"{dtype}.safetensors"))
            self.assertEqual({found[n][0] for n in LINEAR}, {stored_as})
            self.assertEqual(found["model.norm.weight"][0], "BF16")
            self.assertEqual(found["model.position_ids"][0], "I64")
        compared = self.ok_json("compare", "--in", "x.llmq", "--against", "f32.safetensors")
        self.assertTrue(all(t["identical"] for t in compared["tensors"]))
        self.assertTrue(all(t["identical"] for t in self.ok_json("compare", "--in", "x.llmq", "--against", "bf16.safetensors")["tensors"]))

    def test_same_bytes_for_any_threads(self):
        self.ok("convert", "--in", TINY, "--format", "uint3:group=100", "--out", "x.llmq", "--quiet")
        results = []
        for options in (["--threads", "1"], ["--threads", "7"], ["--max-ram", "8M"]):
            self.ok("dequantize", "--in", "x.llmq", "--out", "y.safetensors", "--force", "--quiet", *options)
            results.append(read_bytes(self.path("y.safetensors")))
        self.assertTrue(results[0] == results[1] == results[2])

    def test_metadata_travels(self):
        write_model(self.path("m.safetensors"), small_tensors(), metadata={"format": "pt", "author": "\u00e9 \"quoted\""})
        self.ok("convert", "--in", "m.safetensors", "--format", "int4", "--out", "x.llmq", "--quiet")
        self.assertEqual(self.ok_json("inspect", "x.llmq")["metadata"], {"format": "pt", "author": "\u00e9 \"quoted\""})
        self.ok("dequantize", "--in", "x.llmq", "--out", "y.safetensors", "--quiet")
        self.assertEqual(load(self.path("y.safetensors"))[1], {"format": "pt", "author": "\u00e9 \"quoted\""})

    def test_split_folder(self):
        self.ok("convert", "--in", TINY, "--format", "int4", "--out", "x.llmq", "--quiet")
        self.ok("dequantize", "--in", "x.llmq", "--out", "d/", "--split-max-size", "1M", "--quiet")
        names = os.listdir(self.path("d"))
        self.assertIn("model.safetensors.index.json", names)
        self.assertGreater(sum(n.endswith(".safetensors") for n in names), 1)
        self.ok("compare", "--in", "x.llmq", "--against", "d", "--quiet")


class Extract(CliTest):
    def setUp(self):
        super().setUp()
        write_folder(self.path("m"))
        self.ok("convert", "--in", "m", "--format", "int4", "--out", "x.llmq", "--quiet")

    def test_tensors(self):
        self.ok("extract", "x.llmq", LINEAR[0], "model.norm.weight")
        found, _ = load(self.path("extract.safetensors"))
        self.assertEqual(set(found), {LINEAR[0], "model.norm.weight"})
        self.ok("extract", "x.llmq", "*.q_proj.weight", "--out", "q.safetensors", "--dtype", "f32")
        found, _ = load(self.path("q.safetensors"))
        self.assertEqual({(n, d) for n, (d, _, _) in found.items()}, {(n, "F32") for n in LINEAR if "q_proj" in n})

    def test_files(self):
        self.ok("extract", "x.llmq", "config.json", "tokenizer.json", "--out", "d")
        self.assertEqual(read_bytes(self.path("d", "config.json")), read_bytes(self.path("m", "config.json")))
        self.assertEqual(sorted(os.listdir(self.path("d"))), ["config.json", "tokenizer.json"])
        self.ok("extract", "x.llmq", "config.json")
        self.assertEqual(read_bytes(self.path("config.json")), read_bytes(self.path("m", "config.json")))
        self.refused(1, ["extract", "x.llmq", "config.json"], "config.json", "exists")

    def test_raw_planes(self):
        self.ok("extract", "x.llmq", LINEAR[0], "--raw", "--out", "p")
        planes = next(t for t in self.ok_json("inspect", "x.llmq")["tensors"] if t["name"] == LINEAR[0])["planes"]
        self.assertEqual({n: os.path.getsize(self.path("p", n)) for n in os.listdir(self.path("p"))}, {f"{LINEAR[0]}.{p['name']}": p["nbytes"] for p in planes})
        codes = next(p for p in planes if p["name"] == "codes")
        self.assertEqual(read_bytes(self.path("p", LINEAR[0] + ".codes")), read_bytes(self.path("x.llmq"))[codes["offset"]:codes["offset"] + codes["nbytes"]])

    def test_refusals(self):
        self.refused(2, ["extract", "x.llmq", "nothing"], "'nothing'", "x.llmq")
        self.refused(2, ["extract", "x.llmq", LINEAR[0], "*.nothing.*"], "*.nothing.*")
        self.refused(2, ["extract", "x.llmq", LINEAR[0], "config.json"], "one after the other")
        self.refused(2, ["extract", "x.llmq", LINEAR[0], "config.json", "--out", "d"], "one after the other")
        self.refused(1, ["extract", "m/model.safetensors", LINEAR[0]], "m/model.safetensors", "no .llmq container")
        write_bytes(self.path("f"), b"precious")
        self.refused(1, ["extract", "x.llmq", "config.json", "--out", "f"], "'f'")
        self.refused(1, ["extract", "x.llmq", LINEAR[0], "--raw", "--out", "no/where"], "no/where")


class Compare(CliTest):
    def setUp(self):
        super().setUp()
        self.tensors = small_tensors("F32")
        write_model(self.path("a.safetensors"), self.tensors)

    def other(self, **changes):
        tensors = dict(self.tensors)
        for name, value in changes.pop("put", {}).items():
            if value is None:
                del tensors[name]
            else:
                tensors[name] = value
        return write_model(self.path("b.safetensors"), tensors)

    def compare(self, *args):
        return ["compare", "--in", "a.safetensors", "--against", "b.safetensors", *args]

    def test_equal(self):
        self.other()
        result = self.ok_json(*self.compare())
        self.assertTrue(all(t["identical"] and t["mse"] == 0 and t["cosine"] == 1 and t["sqnr_db"] is None for t in result["tensors"]), result)
        self.assertIn("inf", self.ok(*self.compare()).out)

    def test_figures(self):
        name = LINEAR[1]
        x = self.tensors[name][2]
        y = x + random_weights(99, *x.shape, scale=0.001)
        self.other(put={name: ("F32", x.shape, y)})
        result = self.ok_json(*self.compare("--threads", "3"))
        worst = result["tensors"][0]
        self.assertEqual(worst["name"], name)
        d = x.astype(np.float64) - y
        x = x.astype(np.float64)
        self.assertAlmostEqual(worst["mse"], (d * d).mean(), delta=1e-6 * (d * d).mean())
        self.assertAlmostEqual(worst["sqnr_db"], 10 * np.log10((x * x).sum() / (d * d).sum()), places=4)
        self.assertAlmostEqual(worst["max_error"], np.abs(d).max(), delta=1e-8)
        self.assertAlmostEqual(worst["cosine"], (x * y).sum() / np.sqrt((x * x).sum() * (y.astype(np.float64) ** 2).sum()), places=6)
        self.assertEqual([t["identical"] for t in result["tensors"]], [False] + [True] * (len(self.tensors) - 1))

    def test_missing_extra_and_other_shapes_are_mismatches(self):
        self.other(put={"model.norm.weight": None})
        sentence = self.refused(3, self.compare(), "model.norm.weight", "missing")
        self.assertIn("1 tensor ", sentence)
        self.other(put={"model.extra.weight": ("F32", (4,), np.ones(4))})
        self.refused(3, self.compare(), "model.extra.weight")
        self.other(put={"model.norm.weight": ("F32", (24, 2), np.ones((24, 2)))})
        self.refused(3, self.compare(), "model.norm.weight", "shape")
        self.other(put={"model.norm.weight": ("I64", (48,), np.ones(48))})
        self.refused(3, self.compare(), "model.norm.weight", "dtype")
        result = self.llmq(*self.compare("--json"))
        self.assertEqual((result.code, [t["problem"] for t in result.json["tensors"] if "problem" in t]), (3, ["has another kind of dtype on the other side"]))

    def test_integer_tensors_are_compared(self):
        self.other(put={"model.position_ids": ("I64", (1, 8), np.arange(8)[::-1])})
        worst = self.ok_json(*self.compare())["tensors"][0]
        self.assertEqual((worst["name"], worst["identical"]), ("model.position_ids", False))

    def test_different_dtypes_of_one_model(self):
        write_model(self.path("b.safetensors"), {n: (("BF16" if d == "F32" else d), s, x) for n, (d, s, x) in self.tensors.items()})
        self.assertGreater(self.ok_json(*self.compare())["total"]["sqnr_db"], 45)


class Inspect(CliTest):
    def test_summary_tensors_and_blobs(self):
        write_folder(self.path("m"), shards=2)
        text = self.ok("inspect", "m").out
        self.assertRegex(text, r"^m: .*, 16 tensors, \d+ weights, .* in \d files of ")
        self.assertIn("config.json", text)
        self.assertNotIn("q_proj", text)
        self.assertEqual(self.ok("inspect", "m", "--tensors").out.count("q_proj"), 2)
        self.ok("convert", "--in", "m", "--format", "int4", "--out", "x.llmq", "--quiet")
        text = self.ok("inspect", "x.llmq", "--tensors").out
        self.assertRegex(text, r"q_proj.weight +q +48 x 48 +int4")
        self.assertIn("written by llmq ", text)
        scan = self.entries(self.ok_json("inspect", "x.llmq", "--scan"))
        self.assertEqual(scan[LINEAR[0]]["nan"], 0)
        self.assertGreater(scan[LINEAR[0]]["max"], 0)

    def test_names_are_escaped(self):
        write_model(self.path("m.safetensors"), {'a"b\\c': ("F32", (1,), [1.0]), "\u00e9\u4e2d": ("F32", (1,), [1.0])})
        self.assertEqual([t["name"] for t in self.ok_json("inspect", "m.safetensors")["tensors"]], ['a"b\\c', "\u00e9\u4e2d"])


if __name__ == "__main__":
    unittest.main()
