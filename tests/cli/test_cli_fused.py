"""llmq convert --nvfp4-scale fused: q, k and v of a layer, and gate and up, have the scale of their matrices in common."""
import unittest

import numpy as np

from cli_support import read_bytes, write_model
from gguf_support import GgufTest, reader, weights

L = "model.layers.{}."
SIZES = {"self_attn.q_proj": 0.5, "self_attn.k_proj": 0.25, "self_attn.v_proj": 2.0, "self_attn.o_proj": 8.0, "mlp.gate_proj": 0.125, "mlp.up_proj": 1.0, "mlp.down_proj": 4.0}


def tensor(seed, amax, *shape):
    """Weights of exactly this largest magnitude in every matrix."""
    x = weights(seed, *shape).reshape(-1, shape[-2] * shape[-1])
    x = np.clip(x, -0.07, 0.07) * np.float32(amax)
    x[:, 3] = -amax
    return x.reshape(shape)


def g(amax):
    return np.float32(amax) / np.float32(2688)


class Fused(GgufTest):
    def scales(self, name):
        """{tensor: [g of each matrix]} of a .llmq file."""
        tensors = reader.read(self.path(name)).tensors
        return {n: np.frombuffer(t.planes["tensor_scale"].data, "<f4") for n, t in tensors.items() if "tensor_scale" in t.planes}

    def layers(self, **changes):
        tensors = {L.format(i) + n + ".weight": ("F32", (32, 64), tensor(i, amax * (i + 1), 32, 64)) for i in range(2) for n, amax in SIZES.items()}
        tensors.update(changes)
        return write_model(self.path("m.safetensors"), tensors)

    def test_sets_of_a_layer(self):
        self.layers()
        report = self.ok_json("convert", "--in", "m.safetensors", "--out", "a.llmq", "--format", "nvfp4")
        self.assertEqual((report["fused_sets"], report["tensors_fused"]), (4, 10))
        found = self.scales("a.llmq")
        for i in range(2):
            for n, amax in SIZES.items():
                want = 2.0 if "q_p" in n or "k_p" in n or "v_p" in n else 1.0 if "gate" in n or "up" in n else amax
                self.assertEqual(list(found[L.format(i) + n + ".weight"]), [g(want * (i + 1))], n)
        self.convert("m.safetensors", "b.llmq", "--format", "nvfp4", "--nvfp4-scale", "fused", "--threads", "1", env={"LLMQ_KERNELS": "portable"})
        self.assertEqual(read_bytes(self.path("a.llmq")), read_bytes(self.path("b.llmq")))
        self.ok("verify", "a.llmq")

    def test_each_its_own_and_none(self):
        self.layers()
        report = self.ok_json("convert", "--in", "m.safetensors", "--out", "a.llmq", "--format", "nvfp4", "--nvfp4-scale", "tensor")
        self.assertEqual((report["fused_sets"], report["tensors_fused"]), (0, 0))
        for n, found in self.scales("a.llmq").items():
            self.assertEqual(list(found), [g(SIZES[n.split(".", 3)[3].removesuffix(".weight")] * (int(n.split(".")[2]) + 1))], n)
        self.convert("m.safetensors", "c.llmq", "--format", "nvfp4", "--nvfp4-scale", "none", "--force")
        self.assertEqual(self.scales("c.llmq"), {})
        self.assertNotIn("fused", self.ok("plan", "--in", "m.safetensors", "--format", "nvfp4", "--nvfp4-scale", "tensor").out)
        self.assertIn("fused        10 tensors in 4 sets", self.ok("plan", "--in", "m.safetensors", "--format", "nvfp4").out)

    def test_what_is_in_no_set(self):
        q, k, up = (L.format(0) + n + ".weight" for n in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj"))
        self.layers(**{q: ("F32", (32, 128), tensor(5, 3.0, 32, 128)), L.format(1) + "self_attn.wq.weight": ("F32", (32, 64), tensor(6, 1.0, 32, 64))})
        report = self.ok_json("convert", "--in", "m.safetensors", "--out", "a.llmq", "--format", "nvfp4", "--keep", up, "--rule", f"{k}=int4")
        found = self.scales("a.llmq")
        self.assertEqual((report["fused_sets"], report["tensors_fused"]), (1, 2))  # gate and up of layer 1
        own = {q: 3.0, L.format(0) + "self_attn.v_proj.weight": 2.0, L.format(0) + "mlp.gate_proj.weight": 0.125, L.format(1) + "self_attn.q_proj.weight": 1.0,
               L.format(1) + "self_attn.k_proj.weight": 0.5, L.format(1) + "mlp.gate_proj.weight": 2.0}
        for n, amax in own.items():
            self.assertEqual(list(found[n]), [g(amax)], n)

    def test_experts(self):
        names = [L.format(0) + f"mlp.experts.{e}.{p}_proj.weight" for e in range(3) for p in ("gate", "up", "down")]
        write_model(self.path("m.safetensors"), {n: ("F32", (16, 32), tensor(i, 1.0 + i, 16, 32)) for i, n in enumerate(names)})
        self.convert("m.safetensors", "a.llmq", "--format", "nvfp4")
        found = self.scales("a.llmq")
        self.assertEqual([float(found[n][0]) for n in names], [float(g(a)) for e in range(3) for a in (2 + 3 * e, 2 + 3 * e, 3 + 3 * e)])

    def test_stacks_and_gguf(self):
        gate, up = tensor(1, 1.0, 3, 16, 64), tensor(2, 1.0, 3, 16, 64)
        gate[0], up[1], up[2] = gate[0] * 4, up[1] * 2, up[2] / 2
        self.model([("blk.0.ffn_gate_exps.weight", "F32", gate.shape, gate), ("blk.0.ffn_up_exps.weight", "F32", up.shape, up),
                    ("blk.0.ffn_gate.weight", "F32", (16, 64), tensor(3, 16.0, 16, 64)), ("blk.0.attn_q.weight", "F32", (16, 64), tensor(4, 1.0, 16, 64)),
                    ("blk.0.attn_v.weight", "F32", (16, 64), tensor(5, 0.5, 16, 64))])
        want = [g(4), g(2), g(1)]
        self.convert("m.gguf", "a.llmq", "--format", "nvfp4")
        found = self.scales("a.llmq")
        self.assertEqual([list(found[f"blk.0.ffn_{p}_exps.weight"]) for p in ("gate", "up")], [want, want])
        self.assertEqual([float(found[f"blk.0.{n}.weight"][0]) for n in ("ffn_gate", "attn_q", "attn_v")], [float(g(16)), float(g(1)), float(g(1))])
        self.convert("m.gguf", "a.gguf", "--format", "nvfp4")
        tensors = self.gguf("a.gguf").tensors
        self.assertEqual([list(tensors[f"blk.0.ffn_{p}_exps.scale"].decode().ravel()) for p in ("gate", "up")], [want, want])

    def test_beside_tensors_whose_groups_span_tiles(self):
        """Many observed scales (9000 squares of a matrix each) part the run into pieces; a set that lies in two of them is observed as one."""
        tensors = {}
        for i in range(3):
            for n in ("self_attn.q_proj", "self_attn.a_proj", "self_attn.k_proj", "self_attn.v_proj"):
                shape = (9000, 1, 64) if "a_proj" in n else (16, 64)
                tensors[L.format(i) + n + ".weight"] = ("F32", shape, tensor(i, SIZES.get(n, 1.0), *shape))
        write_model(self.path("m.safetensors"), tensors)
        args = ["--format", "nvfp4", "--rule", "*a_proj*=fp8_e4m3:group=128x128"]
        self.convert("m.safetensors", "a.llmq", *args)
        for n, found in self.scales("a.llmq").items():
            self.assertEqual(list(found), [g(2.0)], n)


if __name__ == "__main__":
    unittest.main()
