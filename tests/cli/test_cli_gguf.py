"""GGUF in, GGUF and .llmq out: formats, keys, fallbacks, parts, the same bytes everywhere."""
import os
import unittest
import zlib

import numpy as np

import gguf_support as support
from cli_support import LIGHT, SHARED, read_bytes, skip_aloud, write_bytes
from gguf_support import FILE_TYPES, GgufTest, KEYS, OTHER_FORMATS, OUT_FORMATS, gguf_reader, weights

# What ggml's own quantiser gives for golden_input(): bytes, CRC-32 of the blocks, CRC-32 of the decoded weights, the first 20 bytes.
GOLDEN = {
    "q4_0": (576, "0b93ad26", "587a956b", "402b70839598aa6d7f70839598aa6d7f8183d027"), "q4_1": (640, "9f10b888", "53d9c6ab", "892b40b770828597aa6c7f70838598aa6d7f7183"),
    "q5_0": (704, "19199931", "f8392638", "4027703c1e8ff0051a3f44caeff1062b3045daef"), "q5_1": (768, "60935590", "43352eba", "4a2740b7703c1e8ff0051a3f44c9eef1061b3045"),
    "q8_0": (1088, "1c2f6edf", "e6c49f69", "4f1b81aad2fb234c7485aed6ff2750788ab2f701"), "mxfp4": (544, "0fef26e4", "6740f66f", "7b9f0e1d2944b6a79f0e1c3044b6a79f0e7af1f1"),
    "nvfp4": (576, "88dd227f", "93ce056e", "1a0a0312efce0c406375f7ef1b406476e7dfbd1b"), "q2_k": (336, "e03be90b", "b2c54d13", "ff34118822ef34117722ee44117722fed81c2d61"),
    "q3_k": (440, "0fe85c08", "53dc047a", "d8143427efebdb58143427efcbd95034e179781e"), "q4_k": (576, "ff48c45b", "fea1b802", "9314032073da72ce78e073d0c9ff99b29092a587"),
    "q5_k": (704, "bcdfed58", "ca778c61", "22100c2079dc78d07adf74d0ccffade9da92b2a6"), "q6_k": (840, "03c7b9ae", "6a44b96e", "40ea943fd913bd51fba640ea24ce621c59bf15db"),
    "iq4_nl": (576, "1f886793", "c64aedca", "3f1b708294a7ab5d6f708295a8bb6e6f70827417"), "iq4_xs": (544, "0329d1bd", "3f52862a", "2c887421248c023e708294a7ab6d6f708295a8bb"),
    "tq1_0": (216, "fe768806", "52435eee", "2b2b808080d5d52b2b808080d5d52b2b80898976"), "tq2_0": (264, "ea34cbf4", "52435eee", "5454555555565654545555555656545455656545"),
    "q1_0": (144, "cafdd88e", "38e6c62a", "9f2e70381e8fc7e370381c8ec7e3f1381c0e222f"), "q2_0": (288, "1767c8e8", "2ef97099", "40375029540a5555555555555555541555455037"),
    "f16": (2048, "f919993e", "4a31486b", "40b7f0b440b100a500305034a03600b7b0b4c0b0"), "bf16": (2048, "db6786f8", "4a31486b", "e8be9ebe28bea0bc003e8a3ed43ee0be96be18be"),
}


def golden_input():
    i = np.arange(1024)
    s = (i * 37 + 11) % 255 - 127
    return np.ldexp(s.astype(np.float32), -(8 + i // 16 * 7 % 5)).astype(np.float32).reshape(4, 256)


def crc(data):
    return f"{zlib.crc32(data):08x}"


def random_bytes(n):
    """The generator behind the lines `decode` of golden/ggml.tsv."""
    state, out = 77, bytearray(n)
    for i in range(n):
        state ^= state >> 12
        state = (state ^ state << 25) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 27
        out[i] = ((state * 2685821657736338717) & 0xFFFFFFFFFFFFFFFF) >> 33 & 255
    return bytes(out)


class Decoders(unittest.TestCase):
    def test_the_decoders_of_these_tests_against_ggmls(self):
        """4096 weights of random bytes, NaN and Inf among their scales; ggml's own decoders gave the checksums."""
        done = set()
        with open(os.path.join(support.ROOT, "tests", "golden", "ggml.tsv"), encoding="ascii") as f:
            for line in f:
                name, _, kind, wanted, _ = line.split()
                if kind != "decode":
                    continue
                kind = name.upper()
                _, elements, nbytes = support.ggml_blocks.TYPES[kind]
                values = support.ggml_blocks.decode(kind, random_bytes(4096 // elements * nbytes), 4096)
                words = np.where(np.isnan(values), 0x7FC00000, values.view(np.uint32)).astype("<u4")
                self.assertEqual(crc(words.tobytes()), wanted, name)
                done.add(kind)
        self.assertEqual(done, set(support.ggml_blocks.TYPES) - {"F32", "F16", "BF16"})


class Formats(GgufTest):
    def test_ggmls_own_bytes(self):
        x = golden_input()
        self.assertEqual(crc(x.astype("<f4").tobytes()), "4a31486b")
        self.model([("blk.0.ffn_up.weight", "F32", (4, 256), x)])
        for name, (nbytes, blocks, values, first) in GOLDEN.items():
            with self.subTest(name):
                args = ["--scale-rule", "reference"] + (["--nvfp4-scale", "none"] if name == "nvfp4" else [])
                for out in ("o.gguf", "o.llmq"):
                    self.convert("m.gguf", out, "--format", name, "--force", *args)
                    self.assertEqual(crc(self.decoded(out)["blk.0.ffn_up.weight"].tobytes()), values)
                data = self.gguf("o.gguf").tensors["blk.0.ffn_up.weight"].data
                self.assertEqual((len(data), crc(data), data[:20].hex()), (nbytes, blocks, first))

    def test_every_format_in_both_containers_decodes_alike(self):
        self.tiny()
        source = self.decoded("tiny.gguf")
        for name in OUT_FORMATS + OTHER_FORMATS:
            if name == "f16":
                continue  # what the model is already
            with self.subTest(name):
                plan = self.entries(self.ok_json("convert", "--in", "tiny.gguf", "--out", "o.gguf", "--format", name, "--force"))
                self.convert("tiny.gguf", "o.llmq", "--format", name, "--force", *(["--rule", "role:down=keep"] if name == "nvfp4" else []))
                self.ok("verify", "o.gguf")
                self.ok("verify", "o.llmq")
                gguf, llmq = self.decoded("o.gguf"), self.decoded("o.llmq")
                self.assert_same_weights(gguf, self.dequantized("o.gguf"))
                self.assert_same_weights(llmq, self.dequantized("o.llmq"))
                if name != "nvfp4":  # 352 columns are whole groups of .llmq, and no whole blocks of GGUF
                    self.assert_equal_weights(gguf, llmq)
                self.assertEqual(self.ok_json("compare", "--in", "o.gguf", "--against", "o.llmq", "--quiet")["total"]["mse"], 0)
                for tensor, entry in plan.items():
                    if entry["fate"] != "quantise":
                        np.testing.assert_array_equal(support.bits(gguf[tensor]), support.bits(source[tensor]), tensor)
                        continue
                    error = np.sum((gguf[tensor].astype(np.float64) - source[tensor]) ** 2)
                    power = np.sum(source[tensor].astype(np.float64) ** 2)
                    db = 10 * np.log10(power / error) if error else None
                    if db is not None:
                        self.assertAlmostEqual(entry["sqnr_db"], db, 3, f"{name} {tensor}")

    def test_file_type_and_quantization_version(self):
        for name in OUT_FORMATS + ("q1_0", "q2_0"):
            self.small(kind="F16" if name == "f32" else "F32")
            self.convert("m.gguf", "o.gguf", "--rule", f"*={name}", "--force")
            keys = self.gguf("o.gguf").keys
            self.assertEqual((keys["general.file_type"].value, keys["general.file_type"].type), (FILE_TYPES[name], 4), name)
            self.assertEqual(keys["general.quantization_version"].value, 2)
        self.convert("m.gguf", "o.gguf", "--format", "q4_k", "--gguf-file-type", "15", "--force")
        self.assertEqual(self.gguf("o.gguf").keys["general.file_type"].value, 15)

    def test_dtypes_of_the_source(self):
        x = np.ldexp(np.round(weights(5, 4, 256) * 4096).astype(np.float32), -12)  # the same in every dtype
        images = set()
        for kind in ("F32", "F16", "BF16", "F64"):
            self.model([("blk.0.ffn_up.weight", kind, (4, 256), np.clip(x, -0.06, 0.06).astype(np.float16).astype(np.float32) if kind == "F16" else x)], "m.gguf")
            self.convert("m.gguf", "o.gguf", "--format", "q8_0", "--force")
            images.add(read_bytes(self.path("o.gguf"))) if kind in ("F32", "F64") else self.ok("verify", "o.gguf")
        self.assertEqual(len(images), 1)


class Keys(GgufTest):
    def check_keys(self, source, out, changed=("general.file_type", "general.quantization_version")):
        a = [k for k in self.gguf(source, strict=False).keys.values() if k.name not in changed and not k.name.startswith("split.")]
        b = [k for k in self.gguf(out).keys.values() if k.name not in changed]
        self.assertEqual([k.raw for k in a], [k.raw for k in b])

    def test_keys_are_copied_byte_for_byte(self):
        self.tiny()
        self.convert("tiny.gguf", "o.gguf", "--format", "q4_k")
        self.check_keys("tiny.gguf", "o.gguf")
        names = [k for k in self.gguf("o.gguf").keys]
        self.assertEqual(names.index("general.file_type"), 2)  # changed where it stands
        source, out = self.gguf("tiny.gguf"), self.gguf("o.gguf")
        self.assertEqual([(t.name, t.dims) for t in source.tensors.values()], [(t.name, t.dims) for t in out.tensors.values()])

    def test_alignments(self):
        for alignment in (8, 32, 64, 4096, 65536):
            keys = [("general.alignment", "u32", alignment), ("general.architecture", "string", "llama")]
            self.small(keys=keys)
            self.convert("m.gguf", "o.gguf", "--format", "q4_0", "--force")
            self.assertEqual(self.gguf("o.gguf").alignment, alignment)
            self.check_keys("m.gguf", "o.gguf")

    def test_version_2_unpadded_and_foreign_keys(self):
        keys = [("general.architecture", "string", "llama"), ("general.quantization_version", "u64", 7), ("general.file_type", "string", "odd"), ("splitter", "u32", 3)]
        self.model([("blk.0.ffn_up.weight", "F32", (3, 32), weights(1, 3, 32)), ("a.bias", "F32", (5,), weights(2, 5))], keys=keys, version=2, pad_last=False)
        self.convert("m.gguf", "o.gguf", "--format", "q5_1")
        self.check_keys("m.gguf", "o.gguf")
        out = self.gguf("o.gguf")
        self.assertEqual((out.version, out.keys["general.quantization_version"].value, out.keys["general.file_type"].value), (3, 2, 9))
        self.assertEqual([k for k in out.keys], [k[0] for k in keys])

    def test_nothing_but_an_architecture_and_not_even_that(self):
        for keys in ([("general.architecture", "string", "nobody-knows")], []):
            self.small(keys=keys)
            self.convert("m.gguf", "o.gguf", "--format", "q4_k", "--force")
            self.check_keys("m.gguf", "o.gguf")
            self.convert("m.gguf", "o.llmq", "--format", "q4_k", "--force")
            self.convert("o.llmq", "p.gguf", "--force")
            self.assert_same_file("o.gguf", "p.gguf")

    def test_no_tensors(self):
        self.model([], keys=KEYS)
        self.convert("m.gguf", "o.gguf")
        self.check_keys("m.gguf", "o.gguf")
        self.convert("m.gguf", "p.gguf", "--format", "q4_0")
        self.check_keys("m.gguf", "p.gguf")

    def test_shapes_and_kept_types(self):
        tensors = [("empty.weight", "F32", (0, 32), b""), ("scalar", "F32", (), weights(1, 1)), ("one", "I32", (3,), np.arange(3)), ("four.weight", "F16", (2, 3, 4, 32), weights(2, 2, 3, 4, 32)),
                   ("i8", "I8", (7,), np.arange(7)), ("i16", "I16", (7,), np.arange(7)), ("i64", "I64", (1, 7), np.arange(7)), ("f64", "F64", (5,), np.arange(5)),
                   ("blk.0.ffn_up.weight", "BF16", (3, 32), weights(3, 3, 32)), ("n" * 63, "F32", (1,), weights(4, 1))]
        self.model(tensors)
        self.convert("m.gguf", "o.gguf", "--format", "q4_1", "--rule", "four.weight=q8_0")
        source, out = self.gguf("m.gguf"), self.gguf("o.gguf")
        self.assertEqual({n: (t.type, t.dims) for n, t in out.tensors.items()},
                         {n: ({"blk.0.ffn_up.weight": "Q4_1", "four.weight": "Q8_0"}.get(n, t.type), t.dims) for n, t in source.tensors.items()})
        for name, info in source.tensors.items():
            if info.type == out.tensors[name].type:
                self.assertEqual(info.data, out.tensors[name].data, name)
        self.convert("m.gguf", "o.llmq", "--format", "q4_1", "--rule", "four.weight=q8_0")
        self.convert("o.llmq", "p.gguf")
        self.assert_same_file("o.gguf", "p.gguf")


class Fallbacks(GgufTest):
    def plan(self, cols, name, *args, out="o.gguf"):
        self.model([("blk.0.ffn_up.weight", "F32", (4, cols), weights(1, 4, cols))])
        report = self.ok_json("plan", "--in", "m.gguf", "--out", out, "--format", name, *args)
        return report, report["tensors"][0]

    def test_chains(self):
        for cols, name, wanted in ((96, "q2_k", "q4_0"), (96, "q3_k", "q4_0"), (96, "q4_k", "q5_0"), (96, "q5_k", "q5_1"), (96, "q6_k", "q8_0"), (96, "iq4_xs", "iq4_nl"), (33, "q4_k", "f16"),
                                   (33, "q6_k", "f16"), (33, "iq4_xs", "f16"), (96, "nvfp4", "f16"), (33, "mxfp4", "f16"), (33, "q8_0", "f16"), (256, "q4_k", "q4_k"), (1, "q4_0", "f16")):
            for out in ("o.gguf", "o.llmq"):
                if out == "o.llmq" and name in ("nvfp4", "mxfp4"):
                    continue  # planes have tails
                with self.subTest(f"{cols} {name} {out}"):
                    report, entry = self.plan(cols, name, out=out)
                    self.assertEqual((entry["format"], entry["fallback_from"]), (wanted, name if wanted != name else None))

    def test_named_counted_and_refused(self):
        self.tiny()
        text = self.ok("convert", "--in", "tiny.gguf", "--format", "q4_k", "--out", "o.gguf").out
        self.assertIn("not q4_k: rows of 352", text)
        self.assertIn("3 tensors have rows that are no multiple of the block", text)
        report = self.ok_json("plan", "--in", "tiny.gguf", "--format", "q4_k", "--out", "p.gguf")
        self.assertEqual({t["name"] for t in report["tensors"] if t["fallback_from"]}, {f"blk.{i}.ffn_down.weight" for i in range(3)})
        self.refused(2, ["convert", "--in", "tiny.gguf", "--format", "q4_k", "--out", "p.gguf", "--no-fallback", "--quiet"], "blk.0.ffn_down.weight", "352", "q4_k", "--no-fallback")
        self.ok("plan", "--in", "tiny.gguf", "--format", "q4_0", "--out", "p.gguf", "--no-fallback")

    def test_a_recipe_has_its_own(self):
        write_bytes(self.path("r.yaml"), b"format: q4_k\nfallback: {q4_k: q6_k, q6_k: q5_1}\n")
        self.model([("blk.0.ffn_up.weight", "F32", (4, 96), weights(1, 4, 96))])
        entry = self.ok_json("plan", "--in", "m.gguf", "--out", "o.gguf", "--recipe", "r.yaml")["tensors"][0]
        self.assertEqual((entry["format"], entry["fallback_from"]), ("q5_1", "q4_k"))
        for text, needle in ((b"fallback: {q4_k: q4_z}", "fallback"), (b"fallback: {z: q4_0}", "fallback"), (b"fallback: [q4_k]", "r.yaml"), (b"fallback: {q4_k: int6}", "int6")):
            write_bytes(self.path("r.yaml"), b"format: q4_k\n" + text + b"\n")
            result = self.llmq("plan", "--in", "m.gguf", "--out", "o.gguf", "--recipe", "r.yaml")
            self.assertIn(result.code, (1, 2))
            self.check_refusal(result, result.code, "plan", needle)

    def test_a_circle_of_fallbacks_ends(self):
        write_bytes(self.path("r.yaml"), b"format: q4_k\nfallback: {q4_k: q6_k, q6_k: q4_k}\n")
        self.model([("blk.0.ffn_up.weight", "F32", (4, 96), weights(1, 4, 96))])
        self.refused(2, ["plan", "--in", "m.gguf", "--out", "o.gguf", "--recipe", "r.yaml"], "blk.0.ffn_up.weight", "fallback", timeout=20)


class Parts(GgufTest):
    def test_split_and_joined_again(self):
        self.tiny()
        self.convert("tiny.gguf", "whole.gguf", "--format", "q4_0")
        report = self.ok_json("convert", "--in", "tiny.gguf", "--out", "s.gguf", "--format", "q4_0", "--split-max-size", "300K")
        files = sorted(n for n in self.tree() if n.startswith("s-"))
        n = len(files)
        self.assertGreater(n, 2)
        self.assertEqual(files, [f"s-{i + 1:05d}-of-{n:05d}.gguf" for i in range(n)])
        parts = [self.gguf(f) for f in files]
        whole = self.gguf("whole.gguf")
        self.assertEqual([t for p in parts for t in p.tensors], list(whole.tensors))
        for i, part in enumerate(parts):
            self.assertLessEqual(os.path.getsize(self.path(files[i])), 300 << 10)
            self.assertEqual([part.keys[k].value for k in ("split.no", "split.count", "split.tensors.count")], [i, n, len(whole.tensors)])
            self.assertEqual([part.keys[k].type for k in ("split.no", "split.count", "split.tensors.count")], [2, 2, 5])
            for name, info in part.tensors.items():
                self.assertEqual(info.data, whole.tensors[name].data)
        self.assertEqual(report["out_nbytes"] if "out_nbytes" in report else sum(os.path.getsize(self.path(f)) for f in files), sum(os.path.getsize(self.path(f)) for f in files))
        self.convert(files[0], "joined.gguf")
        self.assert_same_file("joined.gguf", "whole.gguf")
        self.convert("whole.gguf", "s.gguf", "--split-max-size", "300K", "--force")
        self.convert(files[1], "joined.gguf", "--force")
        self.assert_same_file("joined.gguf", "whole.gguf")
        self.ok("verify", files[0])
        self.convert(files[0], "o.llmq")
        self.convert("o.llmq", "joined.gguf", "--force")
        self.assert_same_file("joined.gguf", "whole.gguf")

    def test_a_set_made_elsewhere(self):
        keys = [("general.alignment", "u32", 64), ("general.architecture", "string", "llama")]
        tensors = [[(f"blk.{i}.ffn_up.weight", "F32", (4, 64), weights(i, 4, 64))] for i in range(3)]
        gguf_reader.write_split(self.path("x"), keys, tensors)
        self.convert("x-00002-of-00003.gguf", "o.gguf", "--format", "q8_0")
        out = self.gguf("o.gguf")
        self.assertEqual((list(out.tensors), out.alignment), ([t[0][0] for t in tensors], 64))
        self.assertFalse([k for k in out.keys if k.startswith("split.")])

    def test_a_weight_and_its_scale_stay_together(self):
        self.model([(f"blk.{i}.ffn_up.weight", "F32", (4, 64), weights(i, 4, 64)) for i in range(8)])
        self.convert("m.gguf", "s.gguf", "--format", "nvfp4", "--split-max-size", "700")
        files = sorted(n for n in self.tree() if n.startswith("s-"))
        self.assertGreater(len(files), 3)
        for file in files:
            names = set(self.gguf(file).tensors)
            self.assertEqual({n.removesuffix(".weight") for n in names if n.endswith(".weight")}, {n.removesuffix(".scale") for n in names if n.endswith(".scale")})


class SameBytes(GgufTest):
    def test_threads_memory_kernels(self):
        tensors = [("blk.0.ffn_up.weight", "BF16", (1100, 768), weights(1, 1100, 768)), ("blk.0.ffn_up_exps.weight", "F16", (3, 200, 512), weights(2, 3, 200, 512)),
                   ("blk.0.attn_q.weight", "F32", (3, 1024), weights(3, 3, 1024)), ("token_embd.weight", "F16", (700, 768), weights(4, 700, 768))]
        self.model(tensors)
        runs = [(["--threads", "1", "--max-ram", "8M"], {}), (["--threads", "2"], {}), (["--threads", "7", "--max-ram", "64M"], {}), (["--threads", "7", "--measure", "off"], {})]
        runs += [(["--threads", "2"], {"LLMQ_KERNELS": k}) for k in ("portable", "avx2", "avx512")]
        for args in (["--format", "q8_0"], ["--format", "q4_k"], ["--format", "mxfp4"], ["--format", "nvfp4"], ["--format", "mxint8"], ["--format", "iq4_nl", "--scale-rule", "mse"],
                     ["--format", "nvfp4", "--scale-rule", "absmax", "--nvfp4-scale", "none"], ["--format", "bf16"]):
            for ending in ("gguf", "llmq"):
                seen = set()
                for extra, env in runs:
                    self.convert("m.gguf", f"o.{ending}", *args, *extra, "--force", env=env)
                    seen.add(read_bytes(self.path(f"o.{ending}")))
                self.assertEqual(len(seen), 1, f"{args} {ending}")

    def test_rows_longer_than_a_tile(self):
        if LIGHT:
            skip_aloud(self, "LLMQ_CLI_LIGHT is set")
        cols = 262144 + 4096 + 256
        self.model([("blk.0.ffn_up.weight", "F16", (3, cols), weights(1, 3, cols)), ("blk.0.ffn_down.weight", "F16", (7, 131072), weights(2, 7, 131072)),
                    ("blk.0.ffn_gate.weight", "F16", (2, 2 * 262144), weights(3, 2, 2 * 262144))])
        for name in ("q4_k", "mxfp4", "nvfp4", "q8_0", "mxint8"):
            with self.subTest(name):
                self.convert("m.gguf", "o.gguf", "--format", name, "--force", "--max-ram", "8M")
                self.convert("m.gguf", "o.llmq", "--format", name, "--force")
                self.assert_equal_weights(self.decoded("o.gguf"), self.decoded("o.llmq"))
                self.assert_same_weights(self.decoded("o.gguf"), self.dequantized("o.gguf"))
                self.convert("o.llmq", "p.gguf", "--force", "--max-ram", "8M", "--threads", "1")
                self.assert_same_file("o.gguf", "p.gguf")
                self.convert("o.gguf", "p.llmq", "--force", "--threads", "3")
                self.assert_same_weights(self.decoded("p.llmq"), self.decoded("o.llmq"))


class PublicFiles(GgufTest):
    def test_public_models(self):
        for name in ("llama-2-tiny-random.gguf", "taesd-decoder.gguf", "vocab/vocab-bpe-qwen2.gguf"):
            path = os.path.join(SHARED, "gguf", name)
            if not os.path.exists(path):
                skip_aloud(self, f"no {path}")
            with self.subTest(name):
                source = gguf_reader.read(path, strict=False)
                weighty = [n for n, t in source.tensors.items() if len(t.dims) > 1 and t.type in ("F32", "F16", "BF16")]
                if not weighty:
                    self.convert(path, "o.gguf", "--force")
                else:
                    fits = all(source.tensors[n].dims[-1] % 32 == 0 for n in weighty)
                    for out in ("o.gguf", "o.llmq"):
                        self.convert(path, out, "--rule", "*=q8_0" if fits else "*=bf16", "--force")
                    self.convert("o.llmq", "p.gguf", "--force")
                    self.assert_same_file("o.gguf", "p.gguf")
                    self.assert_same_weights(self.decoded("o.gguf"), self.dequantized("o.gguf"))
                out = self.gguf("o.gguf")
                keep = lambda m: [k.raw for k in m.keys.values() if k.name not in ("general.file_type", "general.quantization_version")]  # noqa: E731
                self.assertEqual(keep(source), keep(out))
                self.ok("verify", "o.gguf")


if __name__ == "__main__":
    unittest.main()
