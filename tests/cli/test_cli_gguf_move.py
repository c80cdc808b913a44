"""Quantised tensors of GGUF and .llmq files: kept, moved, quantised again; what is refused; verify, inspect, NVFP4's scales."""
import os
import signal
import struct
import unittest

import numpy as np

import gguf_support
from cli_support import LIGHT, read_bytes, skip_aloud, start, finish, wait_for, write_bytes
from gguf_support import GgufTest, OTHER_FORMATS, OUT_FORMATS, ggml_blocks, gguf_reader, reader, weights

UP = "blk.0.ffn_up.weight"


def blocks_of(kind, rows, cols, seed=1):
    """Random blocks of finite scales that a strict reader takes: scales are set to small numbers."""
    _, block, nbytes = ggml_blocks.TYPES[kind]
    b = np.random.default_rng(seed).integers(0, 256, (rows * cols // block, nbytes), dtype=np.uint8)
    halves = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "Q4_1": (0, 2), "Q5_1": (0, 2), "TQ1_0": (52,), "TQ2_0": (64,)}
    for at in halves.get(kind, (0,)):
        b[:, at + 1] &= 0x3F  # below 2
    if kind == "MXFP4":
        b[:, 0] = 100 + b[:, 0] % 30
    if kind == "NVFP4":
        b[:, :4] = b[:, :4] % 0x7F
    return b.tobytes()


class Moving(GgufTest):
    def test_every_type_goes_to_llmq_and_back(self):
        for name in OUT_FORMATS[:-3] + OTHER_FORMATS:
            kind = name.upper()
            with self.subTest(kind):
                self.model([(UP, kind, (6, 512), blocks_of(kind, 6, 512)), ("b.bias", "F32", (3,), weights(1, 3))], keys=[("general.architecture", "string", "llama"), ("general.file_type", "u32", 1)])
                report = self.ok_json("convert", "--in", "m.gguf", "--out", "a.llmq", "--force")
                entry = self.entries(report)[UP]
                self.assertEqual((entry["fate"], entry["format"]), ("carry", name))
                self.convert("m.gguf", "a.gguf", "--force")
                self.assertEqual(self.gguf("a.gguf").tensors[UP].data, self.gguf("m.gguf").tensors[UP].data)
                self.convert("a.llmq", "b.gguf", "--force")
                self.assertEqual(self.gguf("b.gguf").tensors[UP].data, self.gguf("m.gguf").tensors[UP].data)
                self.convert("b.gguf", "b.llmq", "--force")
                self.convert("b.llmq", "c.gguf", "--force")
                self.assert_same_file("b.gguf", "c.gguf")
                self.assert_equal_weights(self.decoded("a.llmq"), self.decoded("m.gguf"))
                self.assert_same_weights(self.decoded("a.llmq"), self.dequantized("a.llmq"))
                self.ok("verify", "a.llmq")

    def test_source_digest_of_moved_blocks(self):
        rows, cols = 1500, 512
        for kind in ("MXFP4", "Q4_K"):
            data = blocks_of(kind, rows, cols)
            self.model([(UP, kind, (rows, cols), data)])
            self.convert("m.gguf", "a.llmq", "--force")
            tensor = reader.read(self.path("a.llmq")).tensors[UP]
            _, block, nbytes = ggml_blocks.TYPES[kind]
            self.assertEqual(tensor.source_digest, reader.source_digest(data, rows, cols // block, nbytes, (tensor.tile[0], tensor.tile[1] // block)))
            self.convert("a.llmq", "b.llmq", "--force")
            again = reader.read(self.path("b.llmq")).tensors[UP]
            planes = [tensor.planes[p] for p in ("codes", "scales") if p in tensor.planes] or [tensor.planes["blocks"]]
            tiles = [b"".join(p.data[p.row_bytes * r:p.row_bytes * (r + tensor.tile[0])] for p in planes) for r in range(0, rows, tensor.tile[0])]
            self.assertEqual(again.source_digest, reader.digest128(b"".join(reader.digest128(t) for t in tiles)).hex())

    def test_quantised_by_llmq_carries_over_byte_for_byte(self):
        for args in (["q4_k"], ["mxfp4"], ["nvfp4"], ["mxint8"], ["nvfp4", "--nvfp4-scale", "none"], ["iq4_xs"], ["mxfp4", "--compress", "none"], ["q8_0", "--compress", "max"]):
            with self.subTest(" ".join(args)):
                self.small()
                gguf_args = [a for a in args if a not in ("--compress", "none", "max") or "--nvfp4-scale" in args]
                self.convert("m.gguf", "a.gguf", "--format", *gguf_args, "--force")
                self.convert("m.gguf", "a.llmq", "--format", *args, "--force")
                report = self.ok("convert", "--in", "a.llmq", "--out", "b.gguf", "--force")
                self.assert_same_file("a.gguf", "b.gguf")
                self.assertRegex(report.out, r"(?i)carried|moved")
                self.convert("b.gguf", "c.llmq", "--force")
                self.convert("c.llmq", "c.gguf", "--force")
                self.assert_same_file("a.gguf", "c.gguf")

    def test_counts(self):
        self.model([(UP, "MXFP4", (6, 512), blocks_of("MXFP4", 6, 512)), ("blk.0.attn_q.weight", "F32", (4, 64), weights(1, 4, 64))])
        report = self.ok_json("plan", "--in", "m.gguf", "--out", "a.llmq", "--format", "mxfp4")
        fates = {t["name"]: t["fate"] for t in report["tensors"]}
        self.assertEqual(fates, {UP: "carry", "blk.0.attn_q.weight": "quantise"})
        self.assertIn("96", self.ok("plan", "--in", "m.gguf", "--out", "a.llmq", "--format", "mxfp4").out.split("blk.0.attn_q.weight")[1])  # groups of 32 moved

    def test_same_bytes_of_moving(self):
        self.model([(UP, "MXFP4", (900, 1024), blocks_of("MXFP4", 900, 1024)), ("blk.0.attn_q.weight", "Q6_K", (700, 768), blocks_of("Q6_K", 700, 768)),
                    ("blk.1.ffn_up.weight", "NVFP4", (2, 300, 512), blocks_of("NVFP4", 600, 512)), ("blk.1.ffn_up.scale", "F32", (2,), np.array([0.5, 3.25]))])
        for source, out in (("m.gguf", "a.llmq"), ("a.llmq", "b.gguf"), ("b.gguf", "c.gguf"), ("a.llmq", "c.llmq")):
            seen = set()
            for args in (["--threads", "1", "--max-ram", "8M"], ["--threads", "2"], ["--threads", "7", "--max-ram", "64M"]):
                self.convert(source, out, *args, "--force")
                seen.add(read_bytes(self.path(out)))
            self.assertEqual(len(seen), 1, out)
        self.assert_equal_weights(self.decoded("a.llmq"), self.decoded("m.gguf"))
        self.assert_equal_weights(self.decoded("b.gguf"), self.decoded("m.gguf"))

    def test_scales_without_a_place(self):
        data = bytearray(blocks_of("MXFP4", 3, 512))
        data[17 * (16 + 5)] = 255  # NaN
        self.model([(UP, "MXFP4", (3, 512), bytes(data))])
        self.refused(1, ["convert", "--in", "m.gguf", "--out", "a.llmq", "--quiet"], UP, "row 1, column 160")
        self.small()
        x = weights(1, 3, 64)
        x[1, 32:] *= 2.0 ** -18  # 2^(e - 6) < 2^-24
        self.model([(UP, "F32", (3, 64), x)])
        self.convert("m.gguf", "a.llmq", "--format", "mxint8")
        self.refused(1, ["convert", "--in", "a.llmq", "--out", "a.gguf", "--quiet"], UP, "row 1, column 32")
        sentence = self.refused(1, ["convert", "--in", "m.gguf", "--out", "a.gguf", "--format", "mxint8", "--quiet"], UP, "row 1, column 32")
        self.assertNotIn("--allow-requantize", sentence)

    def test_codes_that_do_not_carry_over(self):
        self.small(cols=96)
        self.convert("m.gguf", "a.llmq", "--format", "int6", "--group-size", "64")
        self.assertEqual({t["group"] for t in self.ok_json("inspect", "a.llmq", "--tensors")["tensors"] if t.get("format") == "int6"}, {64})
        self.refused(2, ["convert", "--in", "a.llmq", "--out", "b.gguf", "--quiet"], "int6", "blk.0.attn_q.weight")
        self.convert("a.llmq", "b.gguf", "--format", "q4_0", "--allow-requantize")
        self.convert("m.gguf", "a.llmq", "--format", "mxfp4:group=16", "--force")
        self.refused(2, ["convert", "--in", "a.llmq", "--out", "c.gguf", "--quiet"], "mxfp4", "32", "blk.0.attn_q.weight")
        self.convert("m.gguf", "a.llmq", "--format", "nvfp4", "--force")
        sentence = self.refused(1, ["convert", "--in", "a.llmq", "--out", "c.gguf", "--quiet"], "rows of 96", "64")
        self.assertIn("=f16", sentence)
        name = "blk.0.attn_q.weight"
        self.convert("a.llmq", "c.gguf", "--rule", f"{name}=f16", "--rule", f"{UP}=f16", "--allow-requantize", "--force")

    def test_not_from_gguf(self):
        x = {"model.layers.0.mlp.up_proj.weight": ("F32", (4, 256), weights(1, 4, 256))}
        from cli_support import write_model
        write_model(self.path("m.safetensors"), x)
        self.refused(2, ["convert", "--in", "m.safetensors", "--format", "q4_k", "--out", "m.gguf", "--quiet"], "GGUF")
        self.convert("m.safetensors", "m.llmq", "--format", "q4_k")
        self.refused(2, ["convert", "--in", "m.llmq", "--out", "m.gguf", "--quiet"], "GGUF")
        self.refused(2, ["plan", "--in", "m.llmq", "--out", "m.gguf"], "GGUF")

    def test_requantising(self):
        self.model([(UP, "Q8_0", (4, 256), blocks_of("Q8_0", 4, 256)), ("blk.0.attn_q.weight", "F16", (4, 256), weights(1, 4, 256))])
        for command in ("plan", "convert"):
            self.refused(1, [command, "--in", "m.gguf", "--out", "a.gguf", "--format", "q4_k"] + (["--quiet"] if command == "convert" else []), UP, "q8_0", "--allow-requantize")
        self.convert("m.gguf", "a.gguf", "--format", "q4_k", "--allow-requantize")
        x = self.gguf("m.gguf").tensors[UP].decode()
        self.model([(UP, "F32", (4, 256), x), ("blk.0.attn_q.weight", "F16", (4, 256), weights(1, 4, 256))], "n.gguf")
        self.convert("n.gguf", "b.gguf", "--format", "q4_k")
        self.assertEqual(self.gguf("a.gguf").tensors[UP].data, self.gguf("b.gguf").tensors[UP].data)
        self.convert("m.gguf", "c.gguf", "--format", "q4_k", "--keep", UP)
        self.assertEqual(self.gguf("c.gguf").tensors[UP].data, self.gguf("m.gguf").tensors[UP].data)
        self.convert("m.gguf", "c.gguf", "--format", "q8_0", "--force")  # has it already
        self.assertEqual(self.gguf("c.gguf").tensors[UP].data, self.gguf("m.gguf").tensors[UP].data)
        self.convert("m.gguf", "a.llmq", "--format", "int4", "--group-size", "64", "--allow-requantize")
        self.convert("n.gguf", "b.llmq", "--format", "int4", "--group-size", "64")
        a, b = (reader.read(self.path(n)).tensors[UP] for n in ("a.llmq", "b.llmq"))
        self.assertEqual((a.planes["codes"].data, a.source_digest), (b.planes["codes"].data, b.source_digest))

    def test_types_that_nobody_decodes(self):
        self.model([(UP, 16, (8, 256), bytes(range(66)) * 8), ("blk.0.attn_q.weight", "F32", (4, 256), weights(1, 4, 256))])  # IQ2_XXS
        self.assertIn("IQ2_XXS", self.ok("inspect", "m.gguf", "--tensors").out)
        for args in (["--out", "a.llmq"], ["--out", "a.gguf", "--format", "q4_k"], ["--out", "a.gguf", "--format", "q4_k", "--allow-requantize"]):
            self.refused(1, ["plan", "--in", "m.gguf", *args], UP, "IQ2_XXS", "cannot decode")
        self.refused(1, ["verify", "m.gguf", "--quiet"], UP, "IQ2_XXS")
        self.refused(1, ["dequantize", "--in", "m.gguf", "--out", "a.safetensors", "--quiet"], UP, "IQ2_XXS")


class KeptFileType(GgufTest):
    def test_file_type_of_a_model_that_is_only_moved(self):
        keys = [("general.architecture", "string", "llama"), ("general.file_type", "u32", 15)]  # a mix that calls itself Q4_K_M
        self.model([(UP, "Q4_K", (6, 512), blocks_of("Q4_K", 6, 512)), ("blk.0.ffn_down.weight", "Q6_K", (2, 256), blocks_of("Q6_K", 2, 256))], keys=keys)
        self.convert("m.gguf", "a.gguf")
        self.assertEqual(self.gguf("a.gguf").keys["general.file_type"].value, 15)
        self.convert("m.gguf", "a.llmq")
        self.convert("a.llmq", "b.gguf")
        self.assertEqual(self.gguf("b.gguf").keys["general.file_type"].value, 15)

    def test_a_copy_keeps_every_byte(self):
        """Of files that another program made: no key is added, none changed."""
        for keys in ([], [("general.file_type", "u32", 7)], [("general.quantization_version", "u32", 1), ("general.file_type", "u64", 1024)], gguf_support.KEYS):
            self.model([(UP, "Q4_K", (6, 512), blocks_of("Q4_K", 6, 512)), ("blk.0.ffn_down.weight", "Q6_K", (20, 256), blocks_of("Q6_K", 20, 256))], keys=keys)
            self.convert("m.gguf", "a.gguf", "--force")
            self.assert_same_file("m.gguf", "a.gguf")
            self.convert("m.gguf", "s.gguf", "--split-max-size", "1K", "--force")
            self.convert("s-00001-of-00002.gguf", "a.gguf", "--force")
            self.assert_same_file("m.gguf", "a.gguf")
            self.convert("m.gguf", "a.gguf", "--format", "q4_k", "--keep", "role:down", "--force")  # has it already
            self.assert_same_file("m.gguf", "a.gguf")


class Nvfp4(GgufTest):
    def stack(self):
        x = weights(1, 3, 20, 128) * np.array([1, 1000, 0], np.float32)[:, None, None]
        self.model([("blk.0.ffn_up_exps.weight", "F32", (3, 20, 128), x), (UP, "F32", (5, 64), weights(2, 5, 64))])
        return x

    def test_one_scale_an_expert(self):
        x = self.stack()
        self.convert("m.gguf", "a.gguf", "--format", "nvfp4")
        out = self.gguf("a.gguf")
        self.assertEqual([(n, t.type, t.dims) for n, t in out.tensors.items()], [("blk.0.ffn_up_exps.weight", "NVFP4", (3, 20, 128)), ("blk.0.ffn_up_exps.scale", "F32", (3,)),
                                                                                 (UP, "NVFP4", (5, 64)), ("blk.0.ffn_up.scale", "F32", (1,))])
        wanted = [np.float32(np.abs(m).max()) / np.float32(2688) if np.abs(m).max() else np.float32(1) for m in x]
        self.assertEqual(out.tensors["blk.0.ffn_up_exps.scale"].decode().tolist(), [float(w) for w in wanted])
        report = self.ok_json("compare", "--in", "a.gguf", "--against", "m.gguf", "--quiet")
        self.assertGreater(report["total"]["sqnr_db"], 20)
        self.convert("m.gguf", "a.llmq", "--format", "nvfp4")
        self.assert_equal_weights(self.decoded("a.llmq"), self.decoded("a.gguf"))
        self.assert_same_weights(self.decoded("a.llmq"), self.dequantized("a.llmq"))
        self.assert_same_weights(self.decoded("a.gguf"), self.dequantized("a.gguf"))
        tensor = reader.read(self.path("a.llmq")).tensors["blk.0.ffn_up_exps.weight"]
        self.assertEqual(list(tensor.planes), ["codes", "scales", "tensor_scale"])

    def test_one_level(self):
        self.stack()
        self.convert("m.gguf", "a.gguf", "--format", "nvfp4", "--nvfp4-scale", "none")
        self.assertEqual(list(self.gguf("a.gguf").tensors), ["blk.0.ffn_up_exps.weight", UP])
        self.convert("m.gguf", "a.llmq", "--format", "nvfp4", "--nvfp4-scale", "none")
        self.assert_equal_weights(self.decoded("a.llmq"), self.decoded("a.gguf"))
        self.convert("a.llmq", "b.gguf")
        self.assert_same_file("a.gguf", "b.gguf")

    def test_scales_of_a_wrong_kind(self):
        data = blocks_of("NVFP4", 6, 64)
        for dims, kind, scale in (((2,), "F32", np.ones(2)), ((0,), "F32", b""), ((1,), "F16", np.ones(1)), ((1,), "I32", np.ones(1)), ((6,), "F32", np.ones(6))):
            self.model([(UP, "NVFP4", (6, 64), data), ("blk.0.ffn_up.scale", kind, dims, scale)])
            for command in (["inspect", "m.gguf"], ["convert", "--in", "m.gguf", "--out", "a.llmq"], ["dequantize", "--in", "m.gguf", "--out", "b.safetensors"]):
                self.refused(1, command, "blk.0.ffn_up.scale")
        for dims, scale in (((1,), [2.0]), ((1, 1), [2.0]), ((), [2.0])):
            self.model([(UP, "NVFP4", (6, 64), data), ("blk.0.ffn_up.scale", "F32", dims, np.array(scale))])
            self.assert_same_weights(self.decoded("m.gguf"), self.dequantized("m.gguf"))
        self.model([(UP, "NVFP4", (3, 2, 64), data), ("blk.0.ffn_up.scale", "F32", (3,), np.array([1, 2, 4]))])
        self.assert_same_weights(self.decoded("m.gguf"), self.dequantized("m.gguf"))

    def test_a_scale_in_front_and_a_name_that_is_taken(self):
        data = blocks_of("NVFP4", 6, 64)
        self.model([("blk.0.ffn_up.scale", "F32", (1,), np.array([0.25])), (UP, "NVFP4", (6, 64), data), ("last", "F32", (1,), np.ones(1))])
        self.assert_same_weights(self.decoded("m.gguf"), self.dequantized("m.gguf"))
        self.convert("m.gguf", "a.gguf")
        self.assert_same_weights(self.decoded("m.gguf"), self.decoded("a.gguf"))
        self.model([(UP, "F32", (6, 64), weights(1, 6, 64)), ("blk.0.ffn_up.scale", "F32", (1,), np.ones(1))])
        self.refused(1, ["convert", "--in", "m.gguf", "--out", "b.gguf", "--format", "nvfp4", "--quiet"], "blk.0.ffn_up.scale")

    def test_special_bytes_of_scales(self):
        data = bytearray(blocks_of("NVFP4", 1, 64))
        data[:4] = bytes([0x7F, 0x80, 0x85, 0x00])
        self.model([(UP, "NVFP4", (1, 64), bytes(data))])
        self.assert_same_weights(self.decoded("m.gguf"), self.dequantized("m.gguf"))
        self.convert("m.gguf", "a.llmq")
        self.assert_equal_weights(self.decoded("m.gguf"), self.decoded("a.llmq"))
        data[2] = 0xFF  # 480 to readers of GGUF
        self.model([(UP, "NVFP4", (1, 64), bytes(data))])
        self.assert_same_weights(self.decoded("m.gguf"), self.dequantized("m.gguf"))
        self.refused(1, ["convert", "--in", "m.gguf", "--out", "b.llmq", "--quiet"], UP, "row 0, column 0")


class Verify(GgufTest):
    def damaged(self, change, *needles, code=3, tensors=None, **kwargs):
        self.model(tensors or [(UP, "Q4_0", (6, 64), blocks_of("Q4_0", 6, 64)), ("a", "F32", (3,), weights(1, 3)), ("b", "F32", (2,), weights(2, 2))], **kwargs)
        self.ok("verify", "m.gguf")
        data = bytearray(read_bytes(self.path("m.gguf")))
        data = change(data, self.gguf("m.gguf")) or data
        write_bytes(self.path("m.gguf"), bytes(data))
        sentence = self.refused(code, ["verify", "m.gguf", "--quiet"], *needles)
        result = self.llmq("verify", "m.gguf", "--json", "--quiet")
        self.assertEqual((result.code, result.json["ok"]), (code, False))
        return sentence

    def test_sound(self):
        self.model([(UP, "Q4_0", (6, 64), blocks_of("Q4_0", 6, 64))])
        self.assertIn("no checksums", self.ok("verify", "m.gguf").out)
        report = self.ok_json("verify", "m.gguf")
        self.assertEqual((report["ok"], report["tensors"]), (True, 1))

    def test_cut(self):
        for n in (1, 31, 40, 200):
            self.damaged(lambda data, _, n=n: data[:-n], "m.gguf") if n > 24 else None  # the last padding may be missing
        self.damaged(lambda data, _: data[:30])

    def test_padding(self):
        def flip(name):
            def change(data, model):
                info = model.tensors[name]
                data[model.data_offset + info.offset + info.nbytes + 1] ^= 4
            return change
        self.damaged(flip(UP), "byte", "zero")
        self.damaged(flip("b"), "byte", "zero")

        def before_data(data, model):
            data[model.data_offset - 1] ^= 1
        for extra in ("", "x", "xyz"):  # padding before the data has some bytes for one of these at least
            keys = [("general.architecture", "string", "llama" + extra)]
            self.damaged(before_data, "zero", keys=keys)

    def test_numbers(self):
        def poke(at, values):
            def change(data, model):
                begin = model.data_offset + model.tensors[UP].offset + at
                data[begin:begin + len(values)] = values
            return change
        self.damaged(poke(18 * 3, b"\x00\x7e"), UP, "row 1, column 32")  # NaN
        self.damaged(poke(18 * 4, b"\x00\xfc"), UP, "row 2, column 0")  # -Inf
        tensors = [(UP, "MXFP4", (4, 64), blocks_of("MXFP4", 4, 64))]
        self.damaged(poke(17 * 5, b"\xff"), UP, "row 2, column 32", tensors=tensors)
        tensors = [(UP, "Q4_K", (4, 512), blocks_of("Q4_K", 4, 512))]
        self.damaged(poke(144 * 3 + 2, b"\x01\x7c"), UP, "row 1, column 256", tensors=tensors)
        tensors = [(UP, "NVFP4", (2, 2, 64), blocks_of("NVFP4", 4, 64)), ("blk.0.ffn_up.scale", "F32", (2,), np.array([1, 2]))]
        nan_scale = lambda data, model: data.__setitem__(slice(model.data_offset + model.tensors["blk.0.ffn_up.scale"].offset + 4, None), struct.pack("<f", float("nan")) + b"\0" * 24)  # noqa: E731
        self.damaged(nan_scale, UP, "row 2, column 0", tensors=tensors)


class Inspect(GgufTest):
    def test_text_and_json(self):
        self.tiny()
        self.convert("tiny.gguf", "a.gguf", "--format", "q4_k")
        text = self.ok("inspect", "a.gguf", "--tensors").out
        for needle in ("GGUF version 3", "alignment 32", "architecture llama", "q4_k", "q5_0", "blk.2.ffn_down.weight"):
            self.assertIn(needle, text)
        report = self.ok_json("inspect", "a.gguf", "--tensors")
        for name, info in self.gguf("a.gguf").tensors.items():
            entry = self.entries(report)[name]
            self.assertEqual(entry["shape"], list(info.dims))
            if info.type not in ("F16", "F32", "BF16"):
                self.assertEqual(entry["format"], info.type.lower())
        self.convert("tiny.gguf", "n.gguf", "--format", "nvfp4")
        names = [t["name"] for t in self.ok_json("inspect", "n.gguf", "--tensors")["tensors"]]
        self.assertFalse([n for n in names if n.endswith(".scale")])
        self.ok("inspect", "n.gguf", "--scan")


class Refusals(GgufTest):
    def test_names_dims_and_dtypes(self):
        name = "n" * 57 + ".weight"  # 64 bytes
        from cli_support import write_model
        self.model([("x" * 56 + ".weight", "F32", (4, 64), weights(1, 4, 64))])  # 63 bytes, its scale has 62
        self.convert("m.gguf", "a.gguf", "--rule", "*=nvfp4")
        self.model([("blk.0.ffn_up", "F32", (4, 64), weights(1, 4, 64))])
        self.refused(1, ["convert", "--in", "m.gguf", "--out", "b.gguf", "--rule", "*=nvfp4", "--quiet"], "blk.0.ffn_up", ".weight", "--nvfp4-scale none")
        self.convert("m.gguf", "b.gguf", "--rule", "*=nvfp4", "--nvfp4-scale", "none")
        self.assertEqual(len(name), 64)
        write_model(self.path("s.safetensors"), {name: ("F32", (4, 64), weights(1, 4, 64))})

    def test_nonfinite(self):
        x = weights(1, 4, 256)
        x[2, 40], x[2, 41], x[3, 200] = np.nan, np.inf, -np.inf
        y = weights(2, 4, 256)
        self.model([(UP, "F32", (4, 256), x), ("blk.0.attn_q.weight", "F32", (4, 256), y)])
        for name in OUT_FORMATS[:-1]:
            with self.subTest(name):
                self.refused(1, ["convert", "--in", "m.gguf", "--out", "a.gguf", "--format", name, "--quiet"], UP, "row 2, column 40", "1 NaN, 2 Inf")
        for name in OUT_FORMATS[:-1] + OTHER_FORMATS + ("mxint8",):
            for mode in ("zero", "clamp", "keep"):
                with self.subTest(f"{name} {mode}"):
                    self.convert("m.gguf", "o.gguf", "--format", name, "--nonfinite", mode, "--force")
                    out = self.gguf("o.gguf").tensors
                    self.assertEqual(out[UP].type == "F32", mode == "keep")
                    if mode == "keep":
                        self.assertEqual(out[UP].data, self.gguf("m.gguf").tensors[UP].data)
                        continue
                    got = self.decoded("o.gguf")[UP]
                    self.assertTrue(np.isfinite(got).all())
                    self.ok("verify", "o.gguf")
                    clean = np.where(np.isfinite(x), x, 0).astype(np.float32)
                    self.model([(UP, "F32", (4, 256), clean), ("blk.0.attn_q.weight", "F32", (4, 256), y)], "c.gguf")
                    self.convert("c.gguf", "p.gguf", "--format", name, "--force")
                    if mode == "zero":
                        self.assertEqual(out[UP].data, self.gguf("p.gguf").tensors[UP].data)
                    else:
                        self.assertEqual(out["blk.0.attn_q.weight"].data, self.gguf("p.gguf").tensors["blk.0.attn_q.weight"].data)
                        if name not in ("q1_0", "tq1_0", "tq2_0", "q2_0"):
                            self.assertGreater(got[2, 41], 0.5 * np.abs(clean[2, 32:64]).max(), name)
                            self.assertLess(got[3, 200], -0.5 * np.abs(clean[3, 192:224]).max(), name)

    def test_too_large_for_the_scales(self):
        x = weights(1, 4, 256)
        x[1, 100] = 3e38
        self.model([(UP, "F32", (4, 256), x)])
        for name in ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "f16", "q1_0", "q2_0", "tq1_0", "tq2_0"):
            for out in ("a.gguf", "a.llmq"):
                with self.subTest(f"{name} {out}"):
                    sentence = self.refused(1, ["convert", "--in", "m.gguf", "--out", out, "--format", name, "--quiet"], UP, "row 1, column 100", "too large", name)
                    self.assertNotIn("type none", sentence)
        for name in ("mxfp4", "nvfp4", "bf16"):
            with self.subTest(name):
                self.convert("m.gguf", "o.gguf", "--format", name, "--force")
                self.assertTrue(np.isfinite(self.decoded("o.gguf")[UP]).all())

    def test_output_exists(self):
        self.small()
        write_bytes(self.path("o.gguf"), b"mine")
        self.refused(1, ["convert", "--in", "m.gguf", "--out", "o.gguf", "--format", "q4_0", "--quiet"], "o.gguf", "--force")
        self.convert("m.gguf", "o.gguf", "--format", "q4_0", "--force")
        self.ok("verify", "o.gguf")
        self.refused(2, ["convert", "--in", "m.gguf", "--out", "m.gguf", "--format", "q4_0", "--force", "--quiet"], "m.gguf")
        self.refused(1, ["convert", "--in", "m.gguf", "--out", "no/such/o.gguf", "--format", "q4_0", "--quiet"], "no/such")
        self.no_partial()

    def test_formats_without_a_type(self):
        self.small()
        for name in ("int6", "uint8", "int4:group=48", "mxfp6_e2m3", "mxfp8_e4m3", "mxfp4:group=16", "mxint8:group=64"):
            self.refused(2, ["convert", "--in", "m.gguf", "--out", "a.gguf", "--format", name, "--quiet"], name.split(":")[0])
        self.refused(2, ["convert", "--in", "m.gguf", "--out", "a.gguf", "--format", "q4_k:group=32", "--quiet"], "256")

    def test_interrupted(self):
        if LIGHT:
            skip_aloud(self, "LLMQ_CLI_LIGHT is set")
        self.model([(f"blk.{i}.ffn_up.weight", "F16", (2048, 2048), weights(i, 2048, 2048)) for i in range(3)])
        before = self.tree()
        process = start("convert", "--in", "m.gguf", "--format", "q4_k", "--out", "o.gguf", "--threads", "2", cwd=self.dir)
        self.assertTrue(wait_for(lambda: any(n.endswith(".partial") for n in os.listdir(self.dir)), process))
        process.send_signal(signal.SIGINT)
        result = finish(process)
        self.assertNotEqual(result.code, 0)
        self.assertEqual(self.tree(), before)

    def test_no_room(self):
        self.small(cols=4096)
        result = self.llmq("convert", "--in", "m.gguf", "--format", "q8_0", "--out", "o.gguf", "--quiet", preexec_fn=limit_file_size)
        self.assertNotEqual(result.code, 0)
        self.assertIn("o.gguf", result.err)
        self.assertFalse([n for n in self.tree() if n.startswith("o.gguf")])


def limit_file_size():
    import resource
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))


if __name__ == "__main__":
    unittest.main()
