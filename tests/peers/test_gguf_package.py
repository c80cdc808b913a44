"""GGUF files against the gguf package of llama.cpp's project: its reader parses what llmq writes, its numpy code decodes the same weights.

What it is
  Written   every type: metadata as in the source but for the two keys that name the quantisation, tensors of the same names, shapes
            and order, types as asked, and gguf.quants.dequantize equal to `llmq dequantize`, bit for bit.
  Read      files that the package (and, where it is there, llama.cpp) quantised: `llmq dequantize` decodes them like the package.
  Public    vocabularies without tensors, and models with 4-D tensors, of ../shared/data/gguf.

Worked number
  A Q8_0 block with scale 0.5 (f16 3800) and a code of -3 is -1.5, sign and all, in both.
"""

import glob
import os
import unittest

import gguf
import numpy as np
from safetensors.numpy import load_file

from gguf_model import finish, write_random, write_tiny
from gguf_types import NO_FALLBACK, TYPES, Type, is_linear, options, stored_type
from llama_peer import MISSING, quantize_file
from peers_support import PeerTest, llmq, odd_weights, shared_data, skip_aloud

QUANTISATION = ("general.file_type", "general.quantization_version")
GGUF_QUANTIZES = {Type.Q8_0, Type.Q5_1, Type.Q5_0, Type.Q4_1, Type.Q4_0, Type.BF16, Type.MXFP4}


def metadata(reader):
    """[(key, types, value)] in the order of the file, without what names the quantisation or the split."""
    return [(key, field.types, field.contents()) for key, field in reader.fields.items()
            if not key.startswith(("GGUF.", "split.")) and key not in QUANTISATION]


def shapes(reader):
    return [(t.name, t.shape.tolist()) for t in reader.tensors]


def decode(tensor):
    """float32 of a tensor, by the package."""
    if tensor.tensor_type in (Type.F32, Type.F16):
        return np.asarray(tensor.data, np.float32)
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type)


class GgufPackage(PeerTest):
    def check_metadata(self, path, source):
        ours, theirs = metadata(gguf.GGUFReader(path)), metadata(gguf.GGUFReader(source))
        self.assertEqual([key for key, *_ in ours], [key for key, *_ in theirs], "keys or their order")
        for one, two in zip(ours, theirs):
            self.assertEqual(one, two)

    def check_decoding(self, path):
        llmq("dequantize", "--in", path, "--out", self.path("decoded.safetensors"), "--dtype", "f32", "--force", "--quiet")
        decoded = load_file(self.path("decoded.safetensors"))
        for tensor in gguf.GGUFReader(path).tensors:
            x = decoded[tensor.name]
            self.assertSame(x if tensor.tensor_type not in (Type.F16, Type.BF16) else x.astype(np.float32), decode(tensor), tensor.name)


class Written(GgufPackage):
    def check(self, source, name, *more):
        out = self.convert(source, "out.gguf", *options(name), *more)
        llmq("verify", out, "--quiet")
        before, after = gguf.GGUFReader(source), gguf.GGUFReader(out)
        self.check_metadata(out, source)
        self.assertEqual(shapes(after), shapes(before))
        self.assertEqual(after.get_field("general.quantization_version").contents(), 2)
        self.assertIsNotNone(after.get_field("general.file_type"))
        for old, new in zip(before.tensors, after.tensors):
            wanted = stored_type(TYPES[name], int(old.shape[0])) if is_linear(old) else old.tensor_type
            if TYPES[name] not in NO_FALLBACK or wanted == TYPES[name]:
                self.assertEqual(new.tensor_type, wanted, old.name)
        self.check_decoding(out)

    def test_types(self):
        tiny, experts = write_tiny(self.path("tiny.gguf")), write_random(self.path("experts.gguf"), layers=2, experts=4, ffn=512)
        for source in (tiny, experts):
            for name in TYPES:
                with self.subTest(source=os.path.basename(source), type=name):
                    self.check(source, name)

    def test_stories(self):
        for name in TYPES:
            with self.subTest(type=name):
                self.check(shared_data(self, "llm", "stories260K", "stories260K.gguf"), name)

    def test_from_16_bits(self):
        for dtype in ("BF16", "F16"):
            source = write_tiny(self.path(f"{dtype}.gguf"), dtype)
            for name in ("f32", "bf16", "f16", "q8_0", "q4_k"):
                with self.subTest(source=dtype, type=name):
                    self.check(source, name)


class Read(GgufPackage):
    def test_package_quantises(self):
        """Files with blocks of the package's own making, of weights of any magnitude that the types can hold."""
        x = np.clip(odd_weights(64, 1024), -60000, 60000)
        for kind in sorted(GGUF_QUANTIZES):
            with self.subTest(type=kind.name), np.errstate(all="ignore"):
                writer = gguf.GGUFWriter(self.path("package.gguf"), "llama")
                writer.add_tensor("blk.0.ffn_up.weight", gguf.quants.quantize(x, kind), raw_dtype=kind)
                finish(writer)
                self.check_decoding(self.path("package.gguf"))

    def test_llama_quantises(self):
        if MISSING:
            skip_aloud(self, MISSING)
        source = write_random(self.path("random.gguf"), layers=8, kv_heads=2)
        for name in ("q2_k", "q3_k_l", "q4_k_m", "q5_k_m", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl", "iq4_xs", "tq1_0", "tq2_0"):
            with self.subTest(type=name):
                self.check_decoding(quantize_file(source, self.path("llama.gguf"), gguf.LlamaFileType[f"MOSTLY_{name.upper()}"]))


class Public(GgufPackage):
    def test_vocabularies(self):
        """Nothing but metadata: all of it travels."""
        for path in sorted(glob.glob(os.path.join(shared_data(self, "gguf", "vocab"), "*.gguf"))):
            with self.subTest(file=os.path.basename(path)):
                out = self.convert(path, "out.gguf", "--format", "q8_0")
                self.check_metadata(out, path)

    def test_four_dimensions(self):
        source = shared_data(self, "gguf", "taesd-decoder.gguf")
        out = self.convert(source, "out.gguf", *options("q8_0"), "--rule", "re:.*weight=f16")
        self.check_metadata(out, source)
        self.assertEqual(shapes(gguf.GGUFReader(out)), shapes(gguf.GGUFReader(source)))
        self.check_decoding(out)

    def test_model_of_f16(self):
        source = shared_data(self, "gguf", "llama-2-tiny-random.gguf")
        for name in ("q8_0", "q4_0", "bf16"):
            with self.subTest(type=name):
                out = self.convert(source, "out.gguf", *options(name))
                self.check_metadata(out, source)
                self.check_decoding(out)


if __name__ == "__main__":
    unittest.main()
