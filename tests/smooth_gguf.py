"""The models of smooth_models.py as GGUF files name and shape them: what llama.cpp's converter does to each tensor, and back.

What it is
  of(name) -> Gguf: .keys, .tensors {GGUF name: binary32 array}, .groups, .back(tensors) -> Hugging Face tensors for the forward pass

Formula
  A rule turns Hugging Face tensors into one of GGUF: renamed, rows put in another order, transposed, 1 added (Gemma's norms), experts stacked.
  A side of a group follows its tensor: row r of the old is row place[r] of the new; an expert is a matrix of the stack.

Why this way
  Groups are those of smooth_models.py, carried over by what was done to the tensors, not typed from the program's maps.

Corner cases
  Biases follow their weights' rows. Interleaved q, k, v become [q; k; v].

Worked number
  BLOOM, 4 heads of 8: the value channel in row 45 (head 1, 5) goes to row 2 * 32 + 8 + 5 = 77.
"""
import re

import numpy as np

import smooth_models
from smooth_models import Group, Side

LAYER = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
    "ln_1": "attn_norm", "ln_2": "ffn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
    "self_attention.query_key_value": "attn_qkv", "self_attention.dense": "attn_output", "attention.query_key_value": "attn_qkv", "attention.dense": "attn_output",
    "mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down", "ln_mlp": "attn_norm", "ln_attn": "attn_norm_2",
    "block_sparse_moe.gate": "ffn_gate_inp", "mlp.gate": "ffn_gate_inp", "mlp.router": "ffn_gate_inp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp", "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp", "mlp.shared_experts.up_proj": "ffn_up_shexp", "mlp.shared_experts.down_proj": "ffn_down_shexp",
    "self_attn.q_a_proj": "attn_q_a", "self_attn.q_a_layernorm": "attn_q_a_norm", "self_attn.q_b_proj": "attn_q_b", "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm", "self_attn.kv_b_proj": "attn_kv_b",
}
POST = {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm"}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm",
           "word_embeddings": "token_embd", "word_embeddings_layernorm": "token_embd_norm", "gpt_neox.embed_in": "token_embd", "gpt_neox.final_layer_norm": "output_norm", "embed_out": "output",
           "transformer.word_embeddings": "token_embd", "transformer.ln_f": "output_norm"}
EXPERT = {"w1": "gate", "w3": "up", "w2": "down", "gate_proj": "gate", "up_proj": "up", "down_proj": "down"}
LAYER_RE = re.compile(r"^(?:model\.|gpt_neox\.|transformer\.)?(?:layers|h)\.(\d+)\.(.*)$")
ARCHS = {"llama-gqa4": "llama", "llama-mha": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3", "phi3": "phi3", "gpt2": "gpt2", "bloom": "bloom",
         "gpt-neox": "gptneox", "falcon-7b": "falcon", "falcon-40b": "falcon", "starcoder2": "starcoder2", "olmo2": "olmo2", "mixtral": "llama", "qwen2-moe": "qwen2moe", "qwen3-moe": "qwen3moe",
         "deepseek-v2": "deepseek2", "deepseek-v2-lite": "deepseek2", "deepseek-v3": "deepseek2", "gpt-oss": "gpt-oss"}


def contiguous(model):
    """Order of the rows of a fused q, k, v matrix whose heads are interleaved: new row i is old row order[i]."""
    c = model.config
    n = c.get("n_head") or c["num_attention_heads"]
    kv = {"falcon": c.get("num_kv_heads", 1)}.get(model.arch, n)
    hd, rep = c["hidden_size"] // n, n // kv
    rows = np.arange((n + 2 * kv) * hd).reshape(kv, rep + 2, hd)
    return np.concatenate([rows[:, :-2].ravel(), rows[:, -2].ravel(), rows[:, -1].ravel()])


class Gguf:
    def __init__(self, name):
        self.name, self.arch, self.model = name, ARCHS[name], smooth_models.ARCHITECTURES[name]()
        self.tensors, self.moves, self.groups = {}, {}, []
        self.keys = self._keys()
        stacks = {}
        for tensor, x in self.model.tensors.items():
            self._move(tensor, x, stacks)
        for (new, ending), parts in stacks.items():
            self.tensors[new] = np.stack([x for _, x in sorted(parts, key=lambda p: p[0])])
        for g in self.model.groups:
            self._group(g)

    # ---- tensors: moves[old] = (new, matrix or None, order of rows or None, transposed, added)

    def _move(self, tensor, x, stacks):
        m = self.model
        stem, ending = tensor.rsplit(".", 1) if tensor.endswith((".weight", ".bias")) else (tensor, "weight")
        at = LAYER_RE.match(stem)
        if tensor.endswith((".attn.bias", "masked_bias", "inv_freq")):
            return  # buffers are not converted
        order, transposed, added, mat = None, False, 0.0, None
        if not at:
            new = OUTSIDE[stem]
        else:
            layer, rest = at.groups()
            single = re.match(r"(?:block_sparse_moe|mlp)\.experts\.(\d+)\.(\w+)$", rest)
            if single:
                mat, word = int(single.group(1)), f"ffn_{EXPERT[single.group(2)]}_exps"
            elif rest == "self_attn.sinks":
                word = "attn_sinks"
            elif rest == "mlp.gate.e_score_correction_bias":
                word, ending = "exp_probs_b", "bias"
            elif rest.startswith("mlp.experts."):  # gpt-oss
                return self._gpt_oss(tensor, layer, rest, x)
            elif m.arch == "gemma" and m.config["gemma"] > 1 and rest in POST or self.arch == "olmo2" and rest in POST:
                word = POST[rest]
            elif self.arch == "gpt-oss" and rest == "post_attention_layernorm":
                word = "post_attention_norm"
            else:
                word = LAYER[rest]
            new = f"blk.{layer}.{word}"
            if word == "attn_qkv" and m.arch in ("bloom", "gpt_neox", "falcon"):
                order = contiguous(m)
            transposed = m.arch == "gpt2" and ending == "weight" and x.ndim == 2
        if m.arch == "gemma" and "norm" in stem:
            added = 1.0
        new += "." + ending
        self.moves[tensor] = (new, mat, order, transposed, added)
        y = x.T if transposed else x
        y = y[order] if order is not None else y
        y = np.ascontiguousarray(y + np.float32(added) if added else y)
        if mat is None:
            self.tensors[new] = y
        else:
            stacks.setdefault((new, ending), []).append((mat, y))

    def _gpt_oss(self, tensor, layer, rest, x):
        for word, place in {"gate_up_proj": (("gate", 0), ("up", 1)), "gate_up_proj_bias": (("gate", 0), ("up", 1)), "down_proj": (("down", None),), "down_proj_bias": (("down", None),)}[rest.split(".")[-1]]:
            y = x if place is None else x[..., place::2]
            new = f"blk.{layer}.ffn_{word}_exps." + ("bias" if rest.endswith("bias") else "weight")
            self.tensors[new] = np.ascontiguousarray(y if rest.endswith("bias") else y.transpose(0, 2, 1))
            self.moves.setdefault(tensor, []).append((new, place))

    def back(self, tensors):
        out = {}
        for old, x in self.model.tensors.items():
            if old not in self.moves:
                out[old] = x
                continue
            if isinstance(self.moves[old], list):
                y = np.zeros(x.shape)
                for new, place in self.moves[old]:
                    part = tensors[new] if old.endswith("bias") else tensors[new].transpose(0, 2, 1)
                    y[..., slice(None) if place is None else slice(place, None, 2)] = part
                out[old] = y
                continue
            new, mat, order, transposed, added = self.moves[old]
            y = np.asarray(tensors[new], np.float64)
            y = y if mat is None else y[mat]
            if order is not None:
                y = y[np.argsort(order)]
            out[old] = (y.T if transposed else y) - added
        return out

    # ---- groups

    def _side(self, side):
        if isinstance(self.moves[side.tensor], list):
            return [Side(new, 2, side.index) for new, _ in self.moves[side.tensor]]  # [E, in, 2 out] became two of [E, out, in]
        new, mat, order, transposed, _ = self.moves[side.tensor]
        index, axis = side.index, side.axis
        if transposed:
            axis = 1 - axis
        if order is not None and axis == 0:
            index = np.argsort(order)[index]
        return [Side(new, axis + (mat is not None), index, mat)]

    def _group(self, g):
        producers = [s for p in g.producers for s in self._side(p)]
        consumers = [s for c in g.consumers for s in self._side(c)]
        ident = producers[0].tensor.removesuffix(".weight") + (f"[{producers[0].mat}]" if producers[0].mat is not None else "")
        self.groups.append(Group("N" if g.kind == "N1" else g.kind, ident, producers, consumers, g.share, g.on_request))

    def statistics(self):
        rng, out = np.random.default_rng(11), {}
        for g in self.groups:
            ex2 = 10.0**rng.uniform(-2, 2, g.n)
            for side in g.consumers:
                out.setdefault((side.tensor, side.mat), ex2)
        return out

    # ---- keys

    def _keys(self):
        c, a = self.model.config, self.arch
        heads = c.get("num_attention_heads") or c["n_head"]
        hidden = c.get("hidden_size") or c["n_embd"]
        layers = c.get("num_hidden_layers") or c["n_layer"]
        kv = {"falcon": c.get("num_kv_heads", 1)}.get(self.model.arch, c.get("num_key_value_heads", heads))
        keys = [("general.architecture", "string", a), (f"{a}.block_count", "u32", layers), (f"{a}.context_length", "u32", 64), (f"{a}.embedding_length", "u32", hidden),
                (f"{a}.feed_forward_length", "u32", c.get("intermediate_size", 4 * hidden)), (f"{a}.attention.head_count", "u32", heads), (f"{a}.attention.head_count_kv", "u32", kv),
                (f"{a}.attention.layer_norm_rms_epsilon" if "rms_norm_eps" in c else f"{a}.attention.layer_norm_epsilon", "f32", 1e-5)]
        if "head_dim" in c:
            keys += [(f"{a}.attention.key_length", "u32", c["head_dim"]), (f"{a}.attention.value_length", "u32", c["head_dim"])]
        experts = c.get("num_local_experts") or c.get("num_experts") or c.get("n_routed_experts")
        if experts:
            keys += [(f"{a}.expert_count", "u32", experts), (f"{a}.expert_used_count", "u32", 2)]
        if "moe_intermediate_size" in c:
            keys += [(f"{a}.expert_feed_forward_length", "u32", c["moe_intermediate_size"])]
        if a == "deepseek2":
            keys += [(f"{a}.leading_dense_block_count", "u32", 1), (f"{a}.attention.kv_lora_rank", "u32", c["kv_lora_rank"]), (f"{a}.rope.dimension_count", "u32", c["qk_rope_head_dim"]),
                     (f"{a}.attention.key_length", "u32", c["qk_nope_head_dim"] + c["qk_rope_head_dim"]), (f"{a}.attention.value_length", "u32", c["v_head_dim"]), (f"{a}.expert_shared_count", "u32", 2)]
            if c["q_lora_rank"]:
                keys += [(f"{a}.attention.q_lora_rank", "u32", c["q_lora_rank"])]
        if a == "gptneox":
            keys += [(f"{a}.use_parallel_residual", "bool", c["use_parallel_residual"])]
        return keys


def of(name):
    return Gguf(name)
