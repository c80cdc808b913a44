"""`when:` in recipes: layers, blocks, query heads a key head, experts, a tied head; on GGUF and Hugging Face names alike."""
import unittest

from cli_support import random_weights, write_bytes, write_model
from gguf_support import GgufTest, weights


def more_bits(i, n):
    """llama.cpp's rule, written again."""
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


class Conditions(GgufTest):
    def llama(self, n_blocks, q_rows=32, k_rows=8, tied=False, experts=0, skip=()):
        tensors = [("token_embd.weight", "F32", (4, 32), weights(1, 4, 32))]
        for i in range(n_blocks):
            shapes = {"attn_q": (q_rows, 32), "attn_k": (k_rows, 32), "attn_v": (k_rows, 32)}
            if i not in skip:
                shapes["ffn_down_exps" if experts else "ffn_down"] = (experts, 8, 32) if experts else (8, 32)
            tensors += [(f"blk.{i}.{n}.weight", "F32", s, weights(2, *s)) for n, s in shapes.items()]
        if not tied:
            tensors.append(("output.weight", "F32", (4, 32), weights(3, 4, 32)))
        self.model(tensors)

    def selected(self, when, match="role:down"):
        """Blocks whose tensors the rule selects."""
        write_bytes(self.path("r.yaml"), f"format: q4_0\nrules:\n  - {{match: '{match}', format: q8_0, when: {when}}}\n".encode())
        report = self.ok_json("plan", "--in", "m.gguf", "--out", "o.gguf", "--recipe", "r.yaml")
        return [int(t["name"].split(".")[1]) for t in report["tensors"] if t["format"] == "q8_0"]

    def test_layers(self):
        for n in (1, 2, 3, 7, 8, 16, 22, 32):
            self.llama(n)
            for layers, wanted in (("more-bits", [i for i in range(n) if more_bits(i, n)]), ("first/8", list(range(n // 8))), ("first/1", list(range(n))), ("last/8", [i for i in range(n) if i >= n * 7 // 8]),
                                   ("last/1", list(range(n))), ("0", [0]), ("1-4", [i for i in range(1, 5) if i < n]), ("'2'", [2] if n > 2 else [])):
                self.assertEqual(self.selected(f"{{layers: {layers}}}"), wanted, f"{layers} of {n}")

    def test_worked_number(self):
        self.llama(22)
        self.assertEqual(self.selected("{layers: more-bits}"), [0, 1, 4, 7, 10, 13, 16, 19, 20, 21])

    def test_layers_are_counted_among_those_that_have_the_role(self):
        self.llama(12, skip=(0, 1, 2, 3))
        self.assertEqual(self.selected("{layers: first/8}"), [4])
        self.assertEqual(self.selected("{layers: 0-1}"), [4, 5])
        self.assertEqual(self.selected("{layers: more-bits}"), [4 + i for i in range(8) if more_bits(i, 8)])
        self.assertEqual(self.selected("{layers: first/8}", "role:q"), [0])
        self.assertEqual(self.selected("{layers: 0}", "role:embedding"), [])

    def test_blocks_gqa_experts_tied(self):
        every = [0, 1, 2]
        self.llama(3, q_rows=32, k_rows=8)
        for when, wanted in (("{blocks: 3}", every), ("{blocks: 4}", []), ("{gqa: 4}", every), ("{gqa: 5}", []), ("{gqa: 1}", every), ("{experts: 8}", []), ("{tied: true}", []), ("{tied: false}", every),
                             ("{blocks: 3, gqa: 4, layers: 1, tied: false}", [1]), ("{blocks: 3, gqa: 8}", [])):
            self.assertEqual(self.selected(when), wanted, when)
        self.llama(3, tied=True, experts=8, k_rows=32)
        for when, wanted in (("{tied: true}", every), ("{tied: false}", []), ("{experts: 8}", every), ("{experts: 4}", []), ("{gqa: 1}", every), ("{gqa: 2}", [])):
            self.assertEqual(self.selected(when), wanted, when)
            self.assertEqual(self.selected(when, "role:expert"), wanted, when)

    def test_hugging_face_names(self):
        tensors = {"model.embed_tokens.weight": ("F32", (4, 32), random_weights(1, 4, 32))}
        for i in range(8):
            layer = f"model.layers.{i}."
            tensors[layer + "self_attn.q_proj.weight"] = ("F32", (16, 32), random_weights(i, 16, 32))
            tensors[layer + "self_attn.k_proj.weight"] = ("F32", (4, 32), random_weights(i, 4, 32))
            for e in range(4):
                tensors[layer + f"mlp.experts.{e}.down_proj.weight"] = ("F32", (4, 32), random_weights(i, 4, 32))
        write_model(self.path("m.safetensors"), tensors)
        write_bytes(self.path("r.yaml"), b"format: int4\nrules:\n  - {match: 'role:expert', format: int8, when: {layers: last/8, experts: 4, gqa: 4, blocks: 8, tied: true}}\n")
        report = self.ok_json("plan", "--in", "m.safetensors", "--recipe", "r.yaml")
        self.assertEqual([t["name"] for t in report["tensors"] if t["format"] == "int8"], [f"model.layers.7.mlp.experts.{e}.down_proj.weight" for e in range(4)])

    def test_bad_conditions(self):
        self.llama(2)
        for when in ("{layers: many}", "{layers: first/0}", "{layers: first/}", "{layers: 3-1}", "{layers: '-1'}", "{layers: 1-}", "{blocks: 0}", "{blocks: x}", "{gqa: -1}", "{experts: 1.5}", "{tied: perhaps}",
                     "{layer: 1}", "[1]", "3", "{blocks: 100000}", "{layers: [1, 2]}", "{layers: 70000}", "{layers: first/8/8}", "{layers: more-bits-}", "{layers: ''}", "{layers: 99999999999999999999}"):
            write_bytes(self.path("r.yaml"), f"format: q4_0\nrules:\n  - {{match: '*', format: q8_0, when: {when}}}\n".encode())
            result = self.llmq("plan", "--in", "m.gguf", "--out", "o.gguf", "--recipe", "r.yaml")
            self.assertIn(result.code, (1, 2), when)
            self.check_refusal(result, result.code, "plan", "r.yaml:3")

    def test_a_rule_with_a_condition_may_select_nothing(self):
        self.llama(2)
        self.assertEqual(self.selected("{blocks: 80}"), [])
        write_bytes(self.path("r.yaml"), b"format: q4_0\nrules:\n  - {match: 'role:router', format: q8_0}\n")
        self.refused(2, ["plan", "--in", "m.gguf", "--out", "o.gguf", "--recipe", "r.yaml"], "role:router", "selects no tensor")

    def test_conditions_see_the_first_rule_that_applies(self):
        self.llama(8)
        write_bytes(self.path("r.yaml"), b"format: q4_0\nrules:\n  - {match: 'role:down', keep: true, when: {layers: 0}}\n  - {match: 'role:down', format: q8_0, when: {layers: 0-2}}\n  - {match: 'role:down', format: q5_0}\n")
        report = self.ok_json("plan", "--in", "m.gguf", "--out", "o.gguf", "--recipe", "r.yaml")
        self.assertEqual([t["format"] for t in report["tensors"] if "ffn_down" in t["name"]], ["keep", "q8_0", "q8_0"] + ["q5_0"] * 5)


if __name__ == "__main__":
    unittest.main()
