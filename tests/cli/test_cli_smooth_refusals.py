"""What migration refuses, as a user sees it: groups with their reasons, models, files; and that nothing of a refused group changes."""
import json
import os
import unittest

import numpy as np

from cli_support import read_bytes, write_bytes, write_model
from smooth_support import F32, Recipe, SmoothTest, expected_tensors, read_safetensors, reader, save_model, smooth_models, write_stats

TARGET = ["--format", "int4", "--group-size", "channel"]
L = "model.layers."


class Refusals(SmoothTest):
    def look(self, model, stats=None, **more):
        """(groups, {id: reason of those refused}, {id: reason of those left}) of a plan; config members in `more` replace the model's (None: taken away)."""
        for k, v in more.items():
            model.config[k] = v
            if v is None:
                del model.config[k]
        self.before = save_model(self.path("m"), model)
        write_stats(self.path("s"), stats or model.statistics())
        found = self.ok_json("plan", "--in", "m", "--smooth", "s", "--alpha", "0.5", *TARGET)["smoothing"]
        return {g["id"] for g in found["groups"]}, {r["id"]: r["why"] for r in found["refused"]}, {r["id"]: r["why"] for r in found["left"]}

    def check_fold(self, model):
        """What is folded although something was refused keeps the function and touches nothing else."""
        self.smooth("m", "o", "--smooth", "s", "--alpha", "0.5", "--smooth-recipe-out", "r.json", "--force", *TARGET)
        after, recipe = read_safetensors(self.path("o")), Recipe(self.path("r.json"))
        self.assert_same_tensors(after, expected_tensors(model.groups, self.before, recipe))
        a, b = (model.logits({n: x for n, (_, x) in t.items() if n in model.tensors}) for t in (self.before, after))
        self.assertLess(np.abs(a - b).max(), 2e-6 * np.abs(a).max())
        return recipe

    def ids(self, model, *kinds):
        return {g.id for g in model.groups if g.kind in kinds and not g.on_request}

    # ---- where the function does not allow it

    def test_norms_behind_a_block(self):
        for name, posts in (("gemma2", ("post_attention_layernorm", "post_feedforward_layernorm")), ("gemma3", ("post_attention_layernorm", "post_feedforward_layernorm")),
                            ("olmo2", ("post_attention_layernorm", "post_feedforward_layernorm"))):
            with self.subTest(name=name):
                model = smooth_models.ARCHITECTURES[name]()
                groups, refused, left = self.look(model)
                self.assertEqual(groups, {g.id for g in model.groups})
                for i in range(2):
                    for p in posts:
                        self.assertIn("residual", refused[f"{L}{i}.{p}"])
                self.assertNotIn(f"{L}0.input_layernorm", groups if name == "olmo2" else ())
                text = self.ok("plan", "--in", "m", "--smooth", "s", *TARGET).out
                self.assertRegex(text, r"(?m)^  not foldable: .*post_attention_layernorm.*residual")

    def test_the_last_norm(self):
        """Tied or not, it is not touched; neither are the embeddings."""
        for name in ("llama-gqa4", "gemma", "opt", "gpt-neox", "falcon-7b"):
            with self.subTest(name=name):
                model = smooth_models.ARCHITECTURES[name]()
                groups, refused, left = self.look(model)
                last = {"opt": "model.decoder.final_layer_norm", "gpt-neox": "gpt_neox.final_layer_norm", "falcon-7b": "transformer.ln_f"}.get(name, "model.norm")
                self.assertIn("share", refused[last])
                self.assertNotIn(last, groups)
                self.check_fold(model)

    def test_behind_a_curve(self):
        """GELU, SiLU: no factor goes through."""
        for name, down in (("opt-gelu", "model.decoder.layers.{}.fc2"), ("gpt2", "h.{}.mlp.c_proj"), ("bloom", "h.{}.mlp.dense_4h_to_h"), ("gpt-neox", "gpt_neox.layers.{}.mlp.dense_4h_to_h"),
                           ("falcon-7b", "transformer.h.{}.mlp.dense_4h_to_h"), ("starcoder2", L + "{}.mlp.c_proj")):
            with self.subTest(name=name):
                model = smooth_models.ARCHITECTURES[name]()
                groups, refused, left = self.look(model)
                self.assertEqual(groups, {g.id for g in model.groups})
                for i in range(2):
                    self.assertRegex(refused[down.format(i)], "(?i)gelu|not ReLU")
                    self.assertFalse(any(g.endswith(("fc1", "c_fc", "h_to_4h")) for g in groups))

    def test_experts_with_a_clamp(self):
        model = smooth_models.ARCHITECTURES["gpt-oss"]()
        groups, refused, left = self.look(model)
        self.assertIn("clamp", refused[L + "0.mlp.experts.down_proj"])
        self.assertEqual(groups, {g.id for g in model.groups if not g.on_request})

    def test_norms_whose_output_is_the_residual_stream(self):
        model = smooth_models.ARCHITECTURES["bloom-residual"]()
        groups, refused, left = self.look(model)
        self.assertEqual(groups, self.ids(model, "V"))
        for i in range(2):
            for norm in ("input_layernorm", "post_attention_layernorm"):
                self.assertIn("apply_residual_connection_post_layernorm", refused[f"h.{i}.{norm}"])
        self.check_fold(model)

    def test_opt_350m(self):
        model = smooth_models.ARCHITECTURES["opt-350m"]()
        groups, refused, left = self.look(model)
        self.assertEqual(groups, {g.id for g in model.groups})
        self.assertTrue(groups)
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            self.assertIn("do_layer_norm_before", refused[f"model.decoder.layers.1.{norm}"])
        self.check_fold(model)

    def test_values_that_are_clamped(self):
        model = smooth_models.ARCHITECTURES["llama-gqa4"]()
        groups, refused, left = self.look(model, clip_qkv=8.0)
        self.assertEqual(groups, self.ids(model, "N", "U"))
        self.assertIn("clip_qkv", refused[L + "0.self_attn.v_proj"])
        groups, refused, left = self.look(model, clip_qkv=None)
        self.assertEqual(groups, self.ids(model, "N", "U", "VG"))

    # ---- the closed world

    def test_a_tensor_nobody_explains(self):
        """It may read what a norm gives: its layer is left alone, by its name."""
        for extra in ("self_attn.indexer.wk.weight", "mlp.adapter_proj.weight", "self_attn.lora_A.weight", "mtp_head.weight"):
            model = smooth_models.ARCHITECTURES["llama-gqa4"]()
            model.tensors[L + "1." + extra] = np.ones((4, 32), F32)
            groups, refused, left = self.look(model)
            self.assertEqual(groups, {g.id for g in model.groups if g.id.startswith(L + "0.")}, extra)
            for g in model.groups:
                if g.id.startswith(L + "1.") and g.kind == "N":
                    self.assertIn(extra.removesuffix(".weight"), refused[g.id])
            self.check_fold(model)
        model = smooth_models.ARCHITECTURES["deepseek-v3"]()
        model.tensors[L + "0.self_attn.indexer.wq_b.weight"] = np.ones((4, 20), F32)
        groups, refused, left = self.look(model)
        self.assertFalse(any(g.startswith(L + "0.") for g in groups))
        self.assertTrue(any("indexer" in why for why in refused.values()))

    def test_members_that_are_missing(self):
        for name, lost, hurt, unhurt in (
                ("llama-gqa4", "0.self_attn.k_proj.weight", ["0.input_layernorm"], ["0.mlp.up_proj", "1.input_layernorm"]),
                ("llama-gqa4", "0.mlp.gate_proj.weight", ["0.post_attention_layernorm"], ["0.input_layernorm", "0.self_attn.v_proj"]),
                ("qwen3", "1.mlp.down_proj.weight", ["1.mlp.up_proj"], ["1.post_attention_layernorm"]),
                ("llama-gqa4", "0.input_layernorm.weight", ["0.input_layernorm"], ["0.mlp.up_proj"])):
            with self.subTest(lost=lost):
                model = smooth_models.ARCHITECTURES[name]()
                stats = model.statistics()
                del model.tensors[L + lost]
                groups, refused, left = self.look(model, stats)
                for h in hurt:
                    self.assertNotIn(L + h, groups)
                    self.assertTrue(any(lost.removesuffix(".weight") in why for why in refused.values()), refused)
                for u in unhurt:
                    self.assertIn(L + u, groups)

    def test_routers_and_experts_that_are_missing(self):
        for name, lost in (("mixtral", "block_sparse_moe.gate"), ("mixtral", "block_sparse_moe.experts.1.w1"), ("mixtral", "block_sparse_moe.experts.2.w3"), ("qwen3-moe", "mlp.gate"),
                           ("qwen3-moe", "mlp.experts.3.up_proj"), ("qwen2-moe", "mlp.shared_expert.gate_proj"), ("deepseek-v2", "mlp.shared_experts.up_proj"), ("gpt-oss", "mlp.router")):
            with self.subTest(name=name, lost=lost):
                model = smooth_models.ARCHITECTURES[name]()
                layer = L + ("1." if name == "deepseek-v2" else "0.")
                stats = model.statistics()
                del model.tensors[layer + lost + ".weight"]
                self.look(model, stats)
                found = self.ok_json("plan", "--in", "m", "--smooth", "s", "--alpha", "auto", *TARGET)["smoothing"]
                norm = layer + "post_attention_layernorm"
                self.assertNotIn(norm, {g["id"] for g in found["groups"]})
                refused = {r["id"]: r["why"] for r in found["refused"]}
                self.assertIn(lost, refused[norm])

    def test_routers_are_scaled_along(self):
        """Peers forget them; here the norm's group has them, though they are not quantised."""
        for name in ("mixtral", "qwen2-moe", "qwen3-moe", "deepseek-v2"):
            with self.subTest(name=name):
                model = smooth_models.ARCHITECTURES[name]()
                self.look(model)
                self.smooth("m", "o", "--smooth", "s", "--alpha", "auto", "--smooth-recipe-out", "r.json", "--force", *TARGET)
                after, recipe = read_safetensors(self.path("o")), Recipe(self.path("r.json"))
                moved = [g for g in model.groups if g.on_request and recipe.groups[g.id]["family"] != "identity"]
                self.assertTrue(moved)
                for g in moved:
                    for side in g.consumers:
                        self.assertFalse(np.array_equal(after[side.tensor][1], self.before[side.tensor][1]), side.tensor)

    def test_shapes_that_disagree(self):
        model = smooth_models.ARCHITECTURES["llama-gqa4"]()
        groups, refused, left = self.look(model, num_key_value_heads=4)
        self.assertEqual(groups & {g.id for g in model.groups if g.kind == "VG"}, set())
        self.assertTrue(any("v_proj" in r for r in refused))
        model = smooth_models.ARCHITECTURES["llama-gqa4"]()
        model.tensors[L + "0.input_layernorm.weight"] = np.ones(31, F32)
        groups, refused, left = self.look(model)
        self.assertNotIn(L + "0.input_layernorm", groups)
        self.assertIn("31", refused[L + "0.input_layernorm"])
        self.assertIn(L + "1.input_layernorm", groups)

    # ---- models

    def test_unknown_architectures(self):
        model = smooth_models.ARCHITECTURES["llama-gqa4"]()
        self.look(model)
        for config, needle in (({"architectures": ["NobodyForCausalLM"], "model_type": "nobody"}, "NobodyForCausalLM"), ({"model_type": "nobody"}, "nobody")):
            with open(self.path("m", "config.json"), "w") as f:
                json.dump(config, f)
            for command, out in (("convert", "x.llmq"), ("smooth", "x")):
                self.refused(1, [command, "--in", "m", "--out", out, "--smooth", "s", *TARGET], needle)
        for text in ("{", "[]", "7", '{"architectures": 7}', '{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": -3}', "\x00"):
            with self.subTest(text=text):
                with open(self.path("m", "config.json"), "w") as f:
                    f.write(text)
                result = self.llmq("plan", "--in", "m", "--smooth", "s", *TARGET)
                self.assertIn(result.code, (0, 1, 2), str(result))
                if result.code:
                    self.assertEqual(sum(l.startswith("llmq plan: ") for l in result.err.splitlines()), 1, str(result))
        self.assertEqual(self.llmq("plan", "--in", "m", "--smooth", "s", *TARGET).code, 1)  # the last one is no JSON

    def test_models_without_a_configuration(self):
        """A bare file: taken for the one family that explains all of it, or refused."""
        model = smooth_models.ARCHITECTURES["gpt2"]()
        self.look(model)
        result = self.llmq("plan", "--in", "m/model.safetensors", "--smooth", "s", "--alpha", "0.5", "--json", *TARGET)
        os.rename(self.path("m", "config.json"), self.path("config.away"))
        again = self.llmq("plan", "--in", "m/model.safetensors", "--smooth", "s", "--alpha", "0.5", "--json", *TARGET)
        for r in (result, again):
            if r.code == 0:
                self.assertTrue({g["id"] for g in r.json["smoothing"]["groups"]} <= {g.id for g in model.groups})
            else:
                self.assertIn("config.json", r.err)
        write_bytes(self.path("odd.safetensors"), read_bytes(self.path("m", "model.safetensors")).replace(b"attn.c_attn", b"blob.c_blob"))
        self.refused(1, ["plan", "--in", "odd.safetensors", "--smooth", "s", *TARGET], "config.json")

    def test_maps_of_ones_own(self):
        model = smooth_models.ARCHITECTURES["llama-gqa4"]()
        self.look(model)
        with open(self.path("m", "config.json"), "w") as f:
            json.dump({**model.config, "architectures": ["NobodyForCausalLM"], "model_type": "nobody"}, f)
        text = """match: {hf: [NobodyForCausalLM]}
layers: ['layers.{n}.']
model: {token_embd: embed_tokens, output_norm: norm, output: lm_head}
layer:
  attn_norm: input_layernorm
  attn_q: self_attn.q_proj
  attn_k: self_attn.k_proj
  attn_v: self_attn.v_proj
  attn_output: self_attn.o_proj
  ffn_norm: post_attention_layernorm
  ffn_gate: mlp.gate_proj
  ffn_up: mlp.up_proj
  ffn_down: mlp.down_proj
groups:
  - {kind: N, absorb: attn_norm, consumers: [attn_q, attn_k, attn_v]}
  - {kind: U, absorb: ffn_up, consumers: ffn_down}
never: {ffn_norm: my reason, output_norm: of no group}
ignore: [attn_output, ffn_gate, ffn_up]
"""
        write_bytes(self.path("map.yaml"), text.encode())
        found = self.ok_json("plan", "--in", "m", "--smooth", "s", "--alpha", "0.5", "--smooth-map", "map.yaml", *TARGET)["smoothing"]
        self.assertEqual({g["id"] for g in found["groups"]}, {g.id for g in model.groups if "input_layernorm" in g.id or g.kind == "U"})
        self.assertIn({"id": L + "0.post_attention_layernorm", "why": "my reason"}, found["refused"])
        self.smooth("m", "o", "--smooth", "s", "--alpha", "0.5", "--smooth-map", "map.yaml", "--smooth-recipe-out", "r.json", *TARGET)
        after = read_safetensors(self.path("o"))
        self.assert_same_tensors(after, expected_tensors(model.groups, self.before, Recipe(self.path("r.json"))))
        for bad, line in (("kind: N,", 15), ("layers: [", 2), ("  ffn_down: mlp", 13)):
            broken = text.replace(bad, "nonsense: 1\n" + bad if bad.startswith("layers") else bad.replace("N", "Q").replace("ffn_down: mlp", "ffn_down: [{mlp"), 1)
            write_bytes(self.path("bad.yaml"), broken.encode())
            result = self.llmq("plan", "--in", "m", "--smooth", "s", "--smooth-map", "bad.yaml", *TARGET)
            self.assertNotEqual(result.code, 0)
            self.assertRegex(result.err, r"bad\.yaml.*\d", str(result))
        self.refused(1, ["plan", "--in", "m", "--smooth", "s", "--smooth-map", "gone.yaml", *TARGET], "gone.yaml")

    # ---- numbers

    def test_numbers_that_become_too_large(self):
        """A norm in F16 that division would make infinite is an error of the tensor's name, or its channel is left: never Inf in a file."""
        model = smooth_models.ARCHITECTURES["opt"]()
        norm = "model.decoder.layers.0.self_attn_layer_norm"
        model.tensors[norm + ".bias"][3] = 60000.0
        model.tensors[norm + ".weight"][5] = 60000.0
        stats = {k: v.copy() for k, v in model.statistics().items()}
        for v in stats.values():
            v[[3, 5]] = 1e-6
        save_model(self.path("m"), model, "F16")
        write_stats(self.path("s"), stats)
        result = self.llmq("smooth", "--in", "m", "--out", "o", "--smooth", "s", "--alpha", "0.5", *TARGET)
        if result.code == 0:
            for n, (_, x) in read_safetensors(self.path("o")).items():
                self.assertTrue(np.isfinite(x).all(), n)
        else:
            self.assertEqual(result.code, 1)
            self.assertIn(norm, result.err)
            self.assertFalse(os.path.exists(self.path("o", "model.safetensors")))
        self.no_partial()

    def test_weights_that_are_no_numbers(self):
        model = smooth_models.ARCHITECTURES["llama-gqa4"]()
        name = L + "0.self_attn.k_proj.weight"
        model.tensors[name][2, 7] = np.nan
        model.tensors[L + "1.input_layernorm.weight"][4] = np.inf
        self.before = save_model(self.path("m"), model)
        write_stats(self.path("s"), model.statistics())
        self.refused(1, ["convert", "--in", "m", "--out", "x.llmq", "--smooth", "s", *TARGET], name, "NaN", tree=False)
        for how in ("zero", "clamp", "keep"):
            self.convert("m", "x.llmq", "--smooth", "s", "--alpha", "0.5", "--nonfinite", how, "--force", *TARGET)
            found = reader.read(self.path("x.llmq")).tensors[name]
            self.assertEqual(found.format is None, how == "keep")
            x = found.decode()
            self.assertEqual(np.isnan(x).sum(), how == "keep")
        self.smooth("m", "o", "--smooth", "s", "--alpha", "0.5", "--smooth-recipe-out", "r.json", *TARGET)
        after, recipe = read_safetensors(self.path("o")), Recipe(self.path("r.json"))
        self.assertEqual(recipe.groups[L + "0.input_layernorm"]["dead"], 1)
        self.assertTrue(np.isnan(after[name][1][2, 7]))
        self.assertEqual(after[L + "1.input_layernorm.weight"][1][4], np.inf)
        for f in recipe.factors.values():
            self.assertTrue((np.isfinite(f) & (f > 0)).all())

    def test_integers_are_refused(self):
        """A tensor quantised by another tool (stored as integers) takes no factor."""
        model = smooth_models.ARCHITECTURES["llama-gqa4"]()
        self.look(model)
        rows = {n: ("U8" if n == L + "0.self_attn.q_proj.weight" else "F32", x.shape, x) for n, x in model.tensors.items()}
        write_model(self.path("m", "model.safetensors"), rows)
        found = self.ok_json("plan", "--in", "m", "--smooth", "s", "--alpha", "0.5", *TARGET)["smoothing"]
        self.assertNotIn(L + "0.input_layernorm", {g["id"] for g in found["groups"]})
        self.assertIn("quantised already", {r["id"]: r["why"] for r in found["refused"] + found["left"]}[L + "0.input_layernorm"])
        self.assertIn(L + "1.input_layernorm", {g["id"] for g in found["groups"]})


if __name__ == "__main__":
    unittest.main()
