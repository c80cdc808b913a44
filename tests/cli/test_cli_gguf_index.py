"""What .llmq files say of blocks and of scales of matrices: damaged indexes are refused by the program and by the second reader; the stored keys are a GGUF file."""
import json
import struct
import unittest

import xxhash

from cli_support import read_bytes, write_bytes
from gguf_support import GgufTest, KEYS, gguf_reader, reader, weights

UP = "blk.0.ffn_up.weight"


class Index(GgufTest):
    def setUp(self):
        super().setUp()
        self.model([(UP, "F32", (3, 4, 512), weights(1, 3, 4, 512)), ("blk.0.attn_q.weight", "F32", (8, 512), weights(2, 8, 512))], keys=KEYS)

    def make(self, name):
        self.convert("m.gguf", "a.llmq", "--rule", f"{UP}={name}", "--compress", "none", "--force")
        data = read_bytes(self.path("a.llmq"))
        offset, stored, raw = struct.unpack_from("<QQQ", data, len(data) - 96)
        self.assertEqual(stored, raw)
        return data, offset, data[offset:offset + stored].decode()

    def tampered(self, made, *changes):
        """The file with another index, all checksums right."""
        data, offset, text = made
        for old, new in changes:
            self.assertIn(old, text)
            text = text.replace(old, new, 1)
        trailer = bytearray(data[-96:])
        n_chunks = struct.unpack_from("<Q", trailer, 24)[0]
        body = text.encode() + data[len(data) - 96 - 24 * n_chunks:-96]
        struct.pack_into("<QQ", trailer, 8, len(text.encode()), len(text.encode()))
        trailer[32:48] = xxhash.xxh3_128_digest(body)
        trailer[48:64] = xxhash.xxh3_128_digest(bytes(trailer[32:48]))
        struct.pack_into("<Q", trailer, 64, offset + len(body) + 96)
        struct.pack_into("<Q", trailer, 80, xxhash.xxh3_64_intdigest(bytes(trailer[:80])))
        write_bytes(self.path("t.llmq"), data[:offset] + body + bytes(trailer))

    def both_refuse(self, made, *changes):
        with self.subTest(str(changes)):
            self.tampered(made, *changes)
            result = self.llmq("verify", "t.llmq", "--quiet")
            self.assertEqual(result.code, 3, str(result))
            result = self.llmq("dequantize", "--in", "t.llmq", "--out", "o.safetensors", "--quiet")
            self.check_refusal(result, 1, "dequantize", "t.llmq")
            with self.assertRaises(reader.LlmqError):
                reader.read(self.path("t.llmq"))

    def both_read(self, made, *changes):
        self.tampered(made, *changes)
        self.ok("verify", "t.llmq", "--quiet")
        reader.read(self.path("t.llmq"))

    def test_blocks(self):
        made = self.make("q4_k")
        self.assertIn('{"family":"ggml","type":"Q4_K","block":256,"block_bytes":144}', made[2])
        self.both_read(made, ("blob", "blob"))
        self.both_refuse(made, ('"block":256', '"block":128'))
        self.both_refuse(made, ('"block":256', '"block":0'))
        self.both_refuse(made, ('"block_bytes":144', '"block_bytes":145'))
        self.both_refuse(made, ('"block_bytes":144', '"block_bytes":0'))
        self.both_refuse(made, ('"type":"Q4_K",', ''))
        self.both_refuse(made, ('"type":"Q4_K"', '"type":"Q5_K"'))
        self.both_refuse(made, ('"type":"Q4_K"', '"type":12'))
        self.both_refuse(made, ('"group":256', '"group":128'))
        self.both_refuse(made, ('"group":256', '"group":"channel"'))
        self.both_refuse(made, ('"bits":1152,"shape":[12,2]', '"bits":1152,"shape":[24,1]'))
        self.both_refuse(made, ('"bits":1152,"shape":[12,2]', '"bits":576,"shape":[12,4]'))
        self.both_refuse(made, ('"name":"blocks"', '"name":"codes"'))
        self.both_refuse(made, ('"shape":[3,4,512]', '"shape":[12,256]'), ('"axis":2', '"axis":1'))
        self.both_refuse(made, ('"shape":[3,4,512]', '"shape":[3,8,256]'))

    def test_a_type_that_nobody_knows_is_listed(self):
        made = self.make("q4_k")
        self.tampered(made, ('"type":"Q4_K"', '"type":"Q9_K"'))
        self.ok("verify", "t.llmq", "--quiet")
        self.assertIn(UP, self.ok("inspect", "t.llmq", "--tensors").out)
        self.check_refusal(self.llmq("dequantize", "--in", "t.llmq", "--out", "o.safetensors", "--quiet"), 1, "dequantize", UP)
        self.check_refusal(self.llmq("convert", "--in", "t.llmq", "--out", "o.gguf", "--quiet"), 1, "convert", UP)
        self.assertFalse(reader.read(self.path("t.llmq")).tensors[UP].known)

    def test_scales_of_matrices(self):
        made = self.make("nvfp4")
        self.both_read(made, ("blob", "blob"))
        self.assertIn('"name":"tensor_scale","bits":32,"shape":[1,3]', made[2])
        self.both_refuse(made, ('"name":"tensor_scale","bits":32,"shape":[1,3]', '"name":"tensor_scale","bits":32,"shape":[3,1]'))
        self.both_refuse(made, ('"name":"tensor_scale","bits":32,"shape":[1,3]', '"name":"tensor_scale","bits":16,"shape":[1,6]'))
        self.both_refuse(made, ('"name":"tensor_scale"', '"name":"tensor_scales"'))
        self.both_refuse(made, ('"shape":[3,4,512]', '"shape":[4,3,512]'))
        self.both_refuse(made, ('"shape":[3,4,512]', '"shape":[12,512]'), ('"axis":2', '"axis":1'))
        self.both_refuse(made, ('"family":"nvfp4"', '"family":"affine"'))

    def test_scales_are_never_zero_nor_nan(self):
        made = self.make("nvfp4")
        model = reader.read(self.path("a.llmq"))
        plane = model.tensors[UP].planes["scales"]
        self.assertEqual(plane.bits, 8)
        self.assertTrue((plane.fields >= 1).all() and (plane.fields <= 126).all())
        self.assertTrue(made)

    def test_the_stored_keys_are_a_gguf_file(self):
        self.make("q8_0")
        self.ok("extract", "a.llmq", "metadata.gguf", "--out", "e", "--quiet")
        keys = gguf_reader.read(self.path("e", "metadata.gguf"), strict=False)
        self.assertEqual([k.raw for k in keys.keys.values()], [k.raw for k in self.gguf("m.gguf").keys.values()])
        self.assertEqual((keys.version, len(keys.tensors)), (3, 0))
        blob = reader.read(self.path("a.llmq")).blobs["metadata.gguf"]
        self.assertEqual(blob, read_bytes(self.path("e", "metadata.gguf")))

    def test_extract_of_tensors_and_planes(self):
        self.make("nvfp4")
        self.ok("extract", "a.llmq", UP, "--out", "w.safetensors", "--dtype", "f32", "--quiet")
        data = read_bytes(self.path("w.safetensors"))
        n = struct.unpack("<Q", data[:8])[0]
        self.assertEqual(json.loads(data[8:8 + n])[UP]["shape"], [3, 4, 512])
        tensor = reader.read(self.path("a.llmq")).tensors[UP]
        self.assertEqual(data[8 + n:], tensor.decode().tobytes())
        self.ok("extract", "a.llmq", UP, "--raw", "--out", "p", "--quiet")
        for plane in tensor.planes.values():
            self.assertEqual(read_bytes(self.path("p", f"{UP}.{plane.name}")), plane.data)

    def test_shards(self):
        self.model([(f"blk.{i}.ffn_up.weight", "F32", (64, 512), weights(i, 64, 512)) for i in range(6)], keys=KEYS)
        self.convert("m.gguf", "s.llmq", "--format", "q4_k", "--split-max-size", "60K")
        files = sorted(n for n in self.tree() if n.startswith("s-"))
        self.assertGreater(len(files), 2)
        self.convert(files[1], "a.gguf")
        self.convert("m.gguf", "b.gguf", "--format", "q4_k")
        self.assert_same_file("a.gguf", "b.gguf")


if __name__ == "__main__":
    unittest.main()
