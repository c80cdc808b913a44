"""Shared by the command-line tests of GGUF: models made by tests/gguf_reader.py, and what both containers decode to without any of our C."""
import json
import os
import struct
import sys

import numpy as np

from cli_support import ROOT, TINY, CliTest, read_bytes

sys.path.insert(0, os.path.join(ROOT, "tests"))
import ggml_blocks  # noqa: E402
import gguf_reader  # noqa: E402
import reader  # noqa: E402

OUT_FORMATS = ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "mxfp4", "nvfp4", "f16", "bf16", "f32")
OTHER_FORMATS = ("tq1_0", "tq2_0", "q1_0", "q2_0")
FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q2_k": 10, "q3_k": 11, "q4_k": 14, "q5_k": 16, "q6_k": 18, "iq4_nl": 25,
              "iq4_xs": 30, "bf16": 32, "mxfp4": 38, "nvfp4": 39, "q1_0": 40, "q2_0": 41}
HF_NAMES = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
LAYER_NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
               "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}

# Every type of value, names and strings that are long or odd, and keys that a converter must not touch.
KEYS = [
    ("general.architecture", "string", "llama"), ("general.name", "string", "tiny\u00e9 \U0001f600"), ("general.file_type", "u32", 1), ("llama.context_length", "u32", 512),
    ("t.u8", "u8", 200), ("t.i8", "i8", -3), ("t.u16", "u16", 60000), ("t.i16", "i16", -30000), ("t.i32", "i32", -7), ("t.f32", "f32", 1e-5), ("t.true", "bool", True),
    ("t.u64", "u64", 1 << 60), ("t.i64", "i64", -(1 << 60)), ("t.f64", "f64", 0.1), ("t.empty", "string", ""), ("t.long", "string", "x" * 100000),
    ("tokenizer.ggml.tokens", ("array", "string"), [f"tok{i}" for i in range(258)]), ("tokenizer.ggml.scores", ("array", "f32"), [float(-i) for i in range(258)]),
    ("t.none", ("array", "i32"), []), ("t.nested", ("array", ("array", "i16")), [[1, 2], [], [3]]), ("k" * 300, "u32", 9),
]


def tiny_weights():
    """[(GGUF name, binary32 weights)] of the bundled model."""
    data = read_bytes(os.path.join(TINY, "model.safetensors"))
    n = struct.unpack("<Q", data[:8])[0]
    out = []
    for name, facts in json.loads(data[8:8 + n]).items():
        if name == "__metadata__":
            continue
        begin, end = facts["data_offsets"]
        x = (np.frombuffer(data[8 + n + begin:8 + n + end], "<u2").astype(np.uint32) << 16).view(np.float32).reshape(facts["shape"])
        if name.startswith("model.layers."):
            _, _, number, rest = name.split(".", 3)
            name = f"blk.{number}.{LAYER_NAMES[rest.removesuffix('.weight')]}.weight"
        out.append((HF_NAMES.get(name, name), x))
    return out


def weights(seed, *shape, scale=0.02):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def bits(x):
    return np.ascontiguousarray(x, np.float32).view(np.uint32)


class GgufTest(CliTest):
    """A test with models in GGUF."""

    def model(self, tensors, name="m.gguf", keys=(("general.architecture", "string", "llama"),), **kwargs):
        return gguf_reader.write(self.path(name), list(keys), tensors, **kwargs)

    def small(self, name="m.gguf", kind="F32", cols=256, **kwargs):
        """Two linear layers, an embedding, a norm."""
        self.model([("token_embd.weight", kind, (8, cols), weights(1, 8, cols)), ("blk.0.attn_q.weight", kind, (16, cols), weights(2, 16, cols)),
                    ("blk.0.ffn_up.weight", kind, (5, cols), weights(3, 5, cols)), ("output_norm.weight", "F32", (cols,), weights(4, cols))], name, **kwargs)
        return self.path(name)

    def tiny(self, name="tiny.gguf", kind="F16"):
        tensors = [(n, kind if x.ndim > 1 else "F32", x.shape, x) for n, x in tiny_weights()]
        return gguf_reader.write(self.path(name), KEYS, tensors)

    def convert(self, source, out, *args, **kwargs):
        return self.ok("convert", "--in", source, "--out", out, "--quiet", *args, **kwargs)

    def gguf(self, name, strict=True):
        return gguf_reader.read(self.path(name), strict)

    def decoded(self, name):
        """{tensor: binary32 weights} by the independent readers; scales of matrices multiplied in."""
        if name.endswith(".llmq"):
            return {n: t.decode() for n, t in reader.read(self.path(name)).tensors.items()}
        model, out = self.gguf(name), {}
        for n, info in model.tensors.items():
            if n.endswith(".scale") and n.removesuffix(".scale") + ".weight" in model.tensors:
                continue
            x = info.decode()
            scale = model.tensors.get(n.removesuffix(".weight") + ".scale") if info.type == "NVFP4" else None
            if scale:
                x = (x.reshape(scale.count, -1) * scale.decode().reshape(-1, 1)).reshape(info.dims)
            out[n] = x
        return out

    def dequantized(self, name):
        """{tensor: binary32 weights} by the program itself."""
        self.ok("dequantize", "--in", name, "--out", "back.safetensors", "--dtype", "f32", "--force", "--quiet")
        data = read_bytes(self.path("back.safetensors"))
        n = struct.unpack("<Q", data[:8])[0]
        out = {}
        for tensor, facts in json.loads(data[8:8 + n]).items():
            if tensor == "__metadata__":
                continue
            begin, end = facts["data_offsets"]
            piece = data[8 + n + begin:8 + n + end]
            kind = facts["dtype"]
            out[tensor] = (ggml_blocks.decode(kind, piece, len(piece) // ggml_blocks.TYPES[kind][2])).reshape(facts["shape"])
        return out

    def assert_same_weights(self, a, b):
        self.assertEqual(set(a), set(b))
        for name in a:
            self.assertEqual(a[name].shape, b[name].shape, name)
            np.testing.assert_array_equal(bits(a[name]), bits(b[name]), name)

    def assert_equal_weights(self, a, b):
        """Alike but for the sign of zeros, which GGUF's FP4 types have not."""
        self.assertEqual(set(a), set(b))
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], name)

    def assert_same_file(self, a, b):
        self.assertTrue(read_bytes(self.path(a)) == read_bytes(self.path(b)), f"{a} and {b} differ")
