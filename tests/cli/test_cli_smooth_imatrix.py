"""Migration by a real importance matrix of llama.cpp: its names and shapes fit a model of that shape, and equal statistics name the groups."""
import json
import os
import struct
import unittest

import numpy as np

from cli_support import CliTest, skip_aloud, write_bytes

SHARED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "shared", "data", "imatrix")
LAYER = {"self_attn.q_proj": (2048, 2048), "self_attn.k_proj": (256, 2048), "self_attn.v_proj": (256, 2048), "self_attn.o_proj": (2048, 2048), "mlp.gate_proj": (5632, 2048),
         "mlp.up_proj": (5632, 2048), "mlp.down_proj": (2048, 5632)}
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048, "intermediate_size": 5632, "num_attention_heads": 32, "num_key_value_heads": 4,
          "num_hidden_layers": 1, "vocab_size": 32, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "hidden_act": "silu"}


def read_dat(path):
    """Entries of a legacy imatrix: name -> (calls, values)."""
    with open(path, "rb") as file:
        data = file.read()
    out, at = {}, 4
    for _ in range(struct.unpack_from("<i", data)[0]):
        n, = struct.unpack_from("<i", data, at)
        name = data[at + 4:at + 4 + n].decode()
        calls, n_values = struct.unpack_from("<ii", data, at + 4 + n)
        at += 12 + n
        out[name] = (calls, np.frombuffer(data, "<f4", n_values, at))
        at += 4 * n_values
    return out


def write_one_layer(folder):
    """One layer of the matrix's model with random BF16 weights."""
    rng, header, parts, at = np.random.default_rng(2), {}, [], 0
    tensors = {"model.embed_tokens.weight": (32, 2048), "lm_head.weight": (32, 2048), "model.norm.weight": (2048,), "model.layers.0.input_layernorm.weight": (2048,),
               "model.layers.0.post_attention_layernorm.weight": (2048,)}
    tensors.update({f"model.layers.0.{k}.weight": v for k, v in LAYER.items()})
    for name, shape in tensors.items():
        values = (rng.standard_normal(shape, np.float32) * 0.02 + (1 if len(shape) == 1 else 0)).astype(np.float32)
        raw = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + len(raw)]}
        parts.append(raw)
        at += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(folder)
    write_bytes(os.path.join(folder, "config.json"), json.dumps(CONFIG).encode())
    write_bytes(os.path.join(folder, "model.safetensors"), len(text).to_bytes(8, "little") + text + b"".join(parts))


class RealMatrix(CliTest):
    def setUp(self):
        super().setUp()
        self.matrix = os.path.join(SHARED, "imatrix.dat")
        if not os.path.exists(self.matrix):
            skip_aloud(self, "the optional folder with a real importance matrix is not there")

    def test_equal_statistics_are_the_groups(self):
        entries = read_dat(self.matrix)
        layers = {name.split(".")[1] for name in entries if name.startswith("blk.")}
        for layer in layers:
            groups = {}
            for name, (_, values) in entries.items():
                if name.startswith(f"blk.{layer}."):
                    groups.setdefault(values.tobytes(), set()).add(name.split(".")[2])
            self.assertEqual(sorted(map(sorted, groups.values())), [["attn_k", "attn_q", "attn_v"], ["attn_output"], ["ffn_down"], ["ffn_gate", "ffn_up"]], layer)

    def test_a_layer_is_migrated_by_it(self):
        model = self.path("one")
        write_one_layer(model)
        out = json.loads(self.ok("plan", "--in", model, "--format", "int4", "--group-size", "128", "--smooth", self.matrix, "--json", "--max-ram", "64M").out)
        groups = {group["id"]: group for group in out["smoothing"]["groups"]}
        self.assertEqual({name: group["kind"] for name, group in groups.items()},
                         {"model.layers.0.input_layernorm": "N", "model.layers.0.self_attn.v_proj": "VG", "model.layers.0.post_attention_layernorm": "N", "model.layers.0.mlp.up_proj": "U"})
        for group in groups.values():
            self.assertEqual(group["alpha"], 0.35)
        # Outliers of the residual stream are what migration is for: the largest channel before gate and up is 370 times the median.
        self.assertLess(groups["model.layers.0.post_attention_layernorm"]["loss"], 0.5 * groups["model.layers.0.post_attention_layernorm"]["identity_loss"])
        auto = json.loads(self.ok("plan", "--in", model, "--format", "mxfp4", "--smooth", self.matrix, "--json", "--max-ram", "64M").out)
        for group in auto["smoothing"]["groups"]:
            self.assertTrue(group["searched"])
            self.assertLessEqual(group["loss"], group["identity_loss"])


if __name__ == "__main__":
    unittest.main()
