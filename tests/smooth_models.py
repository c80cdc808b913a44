"""Tiny random models of many architectures, and what migration may touch in each: written from the models' definitions, without any of our C.

What it is
  ARCHITECTURES                {name: function(seed, **changes) -> Model}
  Model.tensors                {Hugging Face name: binary32 array}; .config: config.json; .groups: [Group]; .logits(tensors): the dense forward, binary64
  Group                        producers and consumers of one set of channels: where in which stored tensor each channel lies
  Model.save(folder, dtype)    config.json and model.safetensors

Formula
  Side(tensor, axis, index, mat): channel j is position index[j] along the axis of the stored array (of matrix mat of a stack, None: of all)
  Group.owner[j]: producer channel of consumer channel j (query heads that share a value head share it)

Why this way
  A group is typed here from the definition of the model (which norm feeds which matrix, in what order a fused matrix has its rows), never from the maps
  of the program, so a wrong map and a wrong test do not agree by accident; and logits() of the folded tensors tells whether the group is right at all.

Corner cases
  Statistics spread over decades, so that a fold of the wrong channel is seen; gains away from 0; biases are never 0.

Worked number
  BLOOM with 4 heads of 8: head h has rows 24 h of q, 24 h + 8 of k, 24 h + 16 .. + 23 of v; channel 13 (head 1, 5) is row 45.
"""
import json
import os

import numpy as np

import smooth_forward


class Side:
    def __init__(self, tensor, axis, index, mat=None):
        self.tensor, self.axis, self.index, self.mat = tensor, axis, np.asarray(index, np.int64), mat

    def factors(self, shape, values):
        """An array of the tensor's shape: values of the channels at their places, 1 elsewhere."""
        out = np.ones(shape, np.float32)
        where = [slice(None)] * len(shape)
        if self.mat is not None:
            where[0] = self.mat
            view = out[self.mat]
            place = [slice(None)] * view.ndim
            place[self.axis - 1] = self.index
            view[tuple(place)] = values.reshape([-1 if a == self.axis - 1 else 1 for a in range(view.ndim)])
            return out
        where[self.axis] = self.index
        out[tuple(where)] = values.reshape([-1 if a == self.axis else 1 for a in range(len(shape))])
        return out

    def channels_first(self, x):
        """The channels' numbers: [n, everything else]."""
        x = x if self.mat is None else x[self.mat]
        axis = self.axis if self.mat is None else self.axis - 1
        return np.moveaxis(x, axis, 0)[self.index].reshape(len(self.index), -1)


class Group:
    def __init__(self, kind, ident, producers, consumers, share=(1, 1), on_request=False):
        self.kind, self.id, self.producers, self.consumers, self.on_request = kind, ident, producers, consumers, on_request
        heads, run = share
        j = np.arange(len(consumers[0].index))
        self.n, self.share = len(j), share
        self.owner = j if heads == 1 else j // run // heads * run + j % run

    @property
    def is_norm(self):
        return self.kind in ("N", "N1", "G") or (self.kind == "M" and self.id.endswith("norm"))


class Model:
    def __init__(self, arch, config, seed):
        self.arch, self.config, self.rng = arch, config, np.random.default_rng(seed)
        self.tensors, self.groups, self.refused = {}, [], []
        self.tokens = self.rng.integers(0, config.get("vocab_size", 40), 11)

    # ---- making tensors

    def linear(self, name, n_out, n_in, bias=False, conv1d=False):
        x = (self.rng.standard_normal((n_out, n_in)) / np.sqrt(n_in)).astype(np.float32)
        self.tensors[name + ".weight"] = np.ascontiguousarray(x.T) if conv1d else x
        if bias:
            self.tensors[name + ".bias"] = (0.2 * self.rng.standard_normal(n_out)).astype(np.float32)

    def norm(self, name, n, bias=False, plus_one=False):
        gain = self.rng.uniform(0.5, 1.5, n) * np.where(self.rng.random(n) < 0.1, 8.0, 1.0)
        self.tensors[name + ".weight"] = (gain - 1.0 if plus_one else gain).astype(np.float32)
        if bias:
            self.tensors[name + ".bias"] = (0.2 * self.rng.standard_normal(n)).astype(np.float32)

    def stack(self, name, *shape, fan_in):
        self.tensors[name] = (self.rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)

    def table(self, name, n, width):
        self.tensors[name] = self.rng.standard_normal((n, width)).astype(np.float32)

    # ---- groups

    def group(self, kind, ident, producers, consumers, share=(1, 1), on_request=False):
        """producers and consumers: names of weights, or Sides; a bias of a plain producer comes along by itself."""
        def consumer(c):
            return c if isinstance(c, Side) else Side(c + ".weight", 1, np.arange(self.tensors[c + ".weight"].shape[1]))

        def producer(p):
            if isinstance(p, Side):
                return [p]
            sides = [Side(p + ".weight", 0, np.arange(self.tensors[p + ".weight"].shape[0]))]
            return sides + ([Side(p + ".bias", 0, sides[0].index)] if p + ".bias" in self.tensors else [])

        self.groups.append(Group(kind, ident, [s for p in producers for s in producer(p)], [consumer(c) for c in consumers], share, on_request))

    def statistics(self, seed=7, spread=2.0):
        """{(tensor, matrix): E[x^2] of its channels, binary64}: every consumer of a group has the same."""
        rng, out = np.random.default_rng(seed), {}
        for g in self.groups:
            energy = np.ones(g.n)
            ex2 = 10.0**rng.uniform(-spread, spread, g.n) * energy
            for side in g.consumers:
                out.setdefault((side.tensor, side.mat), ex2)
        return out

    # ---- files

    def logits(self, tensors=None):
        w = {n: np.asarray(x, np.float64) for n, x in (tensors or self.tensors).items()}
        return smooth_forward.FORWARD[self.arch](self.config, w, self.tokens)


# ---- pieces --------------------------------------------------------------------------------------------------------------------------

VOCAB = 40


def rows_of_heads(first, step, n_heads, hd):
    """Places of the channels of heads that repeat every `step`, beginning at `first`."""
    return np.concatenate([first + h * step + np.arange(hd) for h in range(n_heads)])


def base_config(architecture, model_type, hidden, layers, heads, kv, ffn, **more):
    return {"architectures": [architecture], "model_type": model_type, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": kv, "intermediate_size": ffn, "vocab_size": VOCAB, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 64, **more}


def attention(m, p, hidden, heads, kv, hd, bias=False, o_bias=False, norm="input_layernorm", norm_bias=False, plus_one=False, also=()):
    """q, k, v, o under p + self_attn., their norm and the two groups."""
    m.norm(p + norm, hidden, norm_bias, plus_one)
    for name, n in (("q_proj", heads * hd), ("k_proj", kv * hd), ("v_proj", kv * hd)):
        m.linear(p + "self_attn." + name, n, hidden, bias)
    m.linear(p + "self_attn.o_proj", hidden, heads * hd, o_bias)
    m.group("N1" if plus_one else "N", p + norm, [p + norm], [p + "self_attn." + n for n in ("q_proj", "k_proj", "v_proj")] + list(also))
    value_group(m, p + "self_attn.v_proj", p + "self_attn.o_proj", heads, kv, hd)


def value_group(m, v, o, heads, kv, hd, rows=None, sides=None):
    m.group("V" if heads == kv else "VG", v, sides or [v], [o], (heads // kv, hd) if heads != kv else (1, 1))


def gated_mlp(m, p, norm, hidden, ffn, plus_one=False):
    m.norm(norm, hidden, False, plus_one)
    expert(m, p, hidden, ffn)
    m.group("N1" if plus_one else "N", norm, [norm], [p + "gate_proj", p + "up_proj"])
    m.group("U", p + "up_proj", [p + "up_proj"], [p + "down_proj"])


def expert(m, p, hidden, ffn, names=("gate_proj", "up_proj", "down_proj")):
    m.linear(p + names[0], ffn, hidden)
    m.linear(p + names[1], ffn, hidden)
    m.linear(p + names[2], hidden, ffn)


def ends(m, hidden, embed="model.embed_tokens.weight", norm="model.norm", head="lm_head", norm_bias=False, plus_one=False, tied=False):
    m.table(embed, VOCAB, hidden)
    m.norm(norm, hidden, norm_bias, plus_one)
    if not tied:
        m.linear(head, VOCAB, hidden)


# ---- architectures -------------------------------------------------------------------------------------------------------------------


def llama(seed, heads=8, kv=2, hd=4, hidden=32, ffn=56, layers=2, bias=False, architecture="LlamaForCausalLM", model_type="llama", arch="llama", qk_norm=False, **more):
    m = Model(arch, base_config(architecture, model_type, hidden, layers, heads, kv, ffn, head_dim=hd, hidden_act="silu", **more), seed)
    ends(m, hidden)
    for i in range(layers):
        p = f"model.layers.{i}."
        attention(m, p, hidden, heads, kv, hd, bias)
        if qk_norm:
            m.norm(p + "self_attn.q_norm", hd)
            m.norm(p + "self_attn.k_norm", hd)
        gated_mlp(m, p + "mlp.", p + "post_attention_layernorm", hidden, ffn)
    return m


def gemma(seed, version, heads=4, kv=2, hd=8, hidden=24, ffn=40, layers=2):
    names = {1: ("GemmaForCausalLM", "gemma"), 2: ("Gemma2ForCausalLM", "gemma2"), 3: ("Gemma3ForCausalLM", "gemma3_text")}[version]
    more = {"hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu_pytorch_tanh", "query_pre_attn_scalar": 8, "tie_word_embeddings": True}
    if version == 2:
        more.update(attn_logit_softcapping=50.0, final_logit_softcapping=30.0, sliding_window=6)
    if version == 3:
        more.update(sliding_window=6, sliding_window_pattern=2, rope_local_base_freq=10000.0)
    m = Model("gemma", {**base_config(*names, hidden, layers, heads, kv, ffn, head_dim=hd), **more, "gemma": version}, seed)
    ends(m, hidden, plus_one=True, tied=True)
    for i in range(layers):
        p = f"model.layers.{i}."
        attention(m, p, hidden, heads, kv, hd, plus_one=True)
        if version == 3:
            m.norm(p + "self_attn.q_norm", hd, plus_one=True)
            m.norm(p + "self_attn.k_norm", hd, plus_one=True)
        if version > 1:
            m.norm(p + "post_attention_layernorm", hidden, plus_one=True)
            m.norm(p + "post_feedforward_layernorm", hidden, plus_one=True)
        gated_mlp(m, p + "mlp.", p + ("post_attention_layernorm" if version == 1 else "pre_feedforward_layernorm"), hidden, ffn, True)
    return m


def phi3(seed, heads=8, kv=2, hd=4, hidden=32, ffn=40, layers=2):
    m = Model("phi3", base_config("Phi3ForCausalLM", "phi3", hidden, layers, heads, kv, ffn, hidden_act="silu"), seed)
    ends(m, hidden)
    for i in range(layers):
        p = f"model.layers.{i}."
        qkv, o, gate_up, down = p + "self_attn.qkv_proj", p + "self_attn.o_proj", p + "mlp.gate_up_proj", p + "mlp.down_proj"
        m.norm(p + "input_layernorm", hidden)
        m.norm(p + "post_attention_layernorm", hidden)
        m.linear(qkv, (heads + 2 * kv) * hd, hidden)
        m.linear(o, hidden, heads * hd)
        m.linear(gate_up, 2 * ffn, hidden)
        m.linear(down, hidden, ffn)
        m.group("N", p + "input_layernorm", [p + "input_layernorm"], [qkv])
        m.group("VG", qkv, [Side(qkv + ".weight", 0, (heads + kv) * hd + np.arange(kv * hd))], [o], (heads // kv, hd))
        m.group("N", p + "post_attention_layernorm", [p + "post_attention_layernorm"], [gate_up])
        m.group("U", gate_up, [Side(gate_up + ".weight", 0, ffn + np.arange(ffn))], [down])
    return m


def opt(seed, heads=4, hd=8, ffn=48, layers=2, act="relu", before=True):
    hidden = heads * hd
    m = Model("opt", {"architectures": ["OPTForCausalLM"], "model_type": "opt", "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
                      "ffn_dim": ffn, "vocab_size": VOCAB, "activation_function": act, "do_layer_norm_before": before, "word_embed_proj_dim": hidden,
                      "max_position_embeddings": 64, "tie_word_embeddings": True}, seed)
    m.table("model.decoder.embed_tokens.weight", VOCAB, hidden)
    m.table("model.decoder.embed_positions.weight", 66, hidden)
    m.norm("model.decoder.final_layer_norm", hidden, True)
    for i in range(layers):
        p = f"model.decoder.layers.{i}."
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            m.linear(p + "self_attn." + name, hidden, hidden, True)
        m.norm(p + "self_attn_layer_norm", hidden, True)
        m.linear(p + "fc1", ffn, hidden, True)
        m.linear(p + "fc2", hidden, ffn, True)
        m.norm(p + "final_layer_norm", hidden, True)
        if before:
            m.group("N", p + "self_attn_layer_norm", [p + "self_attn_layer_norm"], [p + "self_attn." + n for n in ("q_proj", "k_proj", "v_proj")])
        m.group("V", p + "self_attn.v_proj", [p + "self_attn.v_proj"], [p + "self_attn.out_proj"])
        if before:
            m.group("N", p + "final_layer_norm", [p + "final_layer_norm"], [p + "fc1"])
        if act == "relu":
            m.group("R", p + "fc1", [p + "fc1"], [p + "fc2"])
    return m


def gpt2(seed, heads=4, hd=8, layers=2, prefix=""):
    hidden = heads * hd
    m = Model("gpt2", {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": hidden, "n_layer": layers, "n_head": heads, "n_positions": 64, "vocab_size": VOCAB,
                       "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "prefix": prefix}, seed)
    m.table(prefix + "wte.weight", VOCAB, hidden)
    m.table(prefix + "wpe.weight", 64, hidden)
    m.norm(prefix + "ln_f", hidden, True)
    for i in range(layers):
        p = f"{prefix}h.{i}."
        m.norm(p + "ln_1", hidden, True)
        m.norm(p + "ln_2", hidden, True)
        m.linear(p + "attn.c_attn", 3 * hidden, hidden, True, conv1d=True)
        m.linear(p + "attn.c_proj", hidden, hidden, True, conv1d=True)
        m.linear(p + "mlp.c_fc", 4 * hidden, hidden, True, conv1d=True)
        m.linear(p + "mlp.c_proj", hidden, 4 * hidden, True, conv1d=True)
        m.tensors[p + "attn.bias"] = np.tril(np.ones((64, 64), np.float32)).reshape(1, 1, 64, 64)
        channels, values = np.arange(hidden), 2 * hidden + np.arange(hidden)
        m.group("N", p + "ln_1", [p + "ln_1"], [Side(p + "attn.c_attn.weight", 0, channels)])
        m.group("V", p + "attn.c_attn", [Side(p + "attn.c_attn.weight", 1, values), Side(p + "attn.c_attn.bias", 0, values)], [Side(p + "attn.c_proj.weight", 0, channels)])
        m.group("N", p + "ln_2", [p + "ln_2"], [Side(p + "mlp.c_fc.weight", 0, channels)])
    return m


def interleaved(m, p, qkv, dense, heads, hd):
    """The value group of a fused matrix that has q, k and v of each head side by side."""
    rows = rows_of_heads(2 * hd, 3 * hd, heads, hd)
    m.group("V", qkv, [Side(qkv + ".weight", 0, rows), Side(qkv + ".bias", 0, rows)], [dense])


def bloom(seed, heads=4, hd=8, layers=2, residual=False, prefix=""):
    hidden = heads * hd
    m = Model("bloom", {"architectures": ["BloomForCausalLM"], "model_type": "bloom", "hidden_size": hidden, "n_layer": layers, "n_head": heads, "vocab_size": VOCAB,
                        "layer_norm_epsilon": 1e-5, "apply_residual_connection_post_layernorm": residual, "prefix": prefix}, seed)
    m.table(prefix + "word_embeddings.weight", VOCAB, hidden)
    m.norm(prefix + "word_embeddings_layernorm", hidden, True)
    m.norm(prefix + "ln_f", hidden, True)
    for i in range(layers):
        p = f"{prefix}h.{i}."
        for name, n_out, n_in in (("self_attention.query_key_value", 3 * hidden, hidden), ("self_attention.dense", hidden, hidden), ("mlp.dense_h_to_4h", 4 * hidden, hidden),
                                  ("mlp.dense_4h_to_h", hidden, 4 * hidden)):
            m.linear(p + name, n_out, n_in, True)
        m.norm(p + "input_layernorm", hidden, True)
        m.norm(p + "post_attention_layernorm", hidden, True)
        if not residual:
            m.group("N", p + "input_layernorm", [p + "input_layernorm"], [p + "self_attention.query_key_value"])
        interleaved(m, p, p + "self_attention.query_key_value", p + "self_attention.dense", heads, hd)
        if not residual:
            m.group("N", p + "post_attention_layernorm", [p + "post_attention_layernorm"], [p + "mlp.dense_h_to_4h"])
    return m


def gpt_neox(seed, heads=4, hd=8, layers=2, parallel=True):
    hidden = heads * hd
    m = Model("gpt_neox", {"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
                           "intermediate_size": 4 * hidden, "vocab_size": VOCAB, "rotary_pct": 0.5, "rotary_emb_base": 10000, "layer_norm_eps": 1e-5, "hidden_act": "gelu",
                           "use_parallel_residual": parallel, "tie_word_embeddings": False}, seed)
    m.table("gpt_neox.embed_in.weight", VOCAB, hidden)
    m.norm("gpt_neox.final_layer_norm", hidden, True)
    m.linear("embed_out", VOCAB, hidden)
    for i in range(layers):
        p = f"gpt_neox.layers.{i}."
        for name, n_out, n_in in (("attention.query_key_value", 3 * hidden, hidden), ("attention.dense", hidden, hidden), ("mlp.dense_h_to_4h", 4 * hidden, hidden),
                                  ("mlp.dense_4h_to_h", hidden, 4 * hidden)):
            m.linear(p + name, n_out, n_in, True)
        m.norm(p + "input_layernorm", hidden, True)
        m.norm(p + "post_attention_layernorm", hidden, True)
        m.tensors[p + "attention.rotary_emb.inv_freq"] = np.array([1.0, 0.01], np.float32)
        m.tensors[p + "attention.masked_bias"] = np.array(-1e9, np.float32)
        m.group("N", p + "input_layernorm", [p + "input_layernorm"], [p + "attention.query_key_value"])
        interleaved(m, p, p + "attention.query_key_value", p + "attention.dense", heads, hd)
        m.group("N", p + "post_attention_layernorm", [p + "post_attention_layernorm"], [p + "mlp.dense_h_to_4h"])
    return m


def falcon(seed, new=False, heads=8, kv=2, hd=4, layers=2):
    hidden = heads * hd
    more = {"new_decoder_architecture": True, "num_kv_heads": kv, "multi_query": False} if new else {"new_decoder_architecture": False, "multi_query": True}
    m = Model("falcon", {"architectures": ["FalconForCausalLM"], "model_type": "falcon", "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
                         "vocab_size": VOCAB, "parallel_attn": True, "bias": False, "alibi": False, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True, **more}, seed)
    kv = kv if new else 1
    rep = heads // kv
    m.table("transformer.word_embeddings.weight", VOCAB, hidden)
    m.norm("transformer.ln_f", hidden, True)
    for i in range(layers):
        p = f"transformer.h.{i}."
        qkv, dense, up, down = p + "self_attention.query_key_value", p + "self_attention.dense", p + "mlp.dense_h_to_4h", p + "mlp.dense_4h_to_h"
        m.linear(qkv, (heads + 2 * kv) * hd, hidden)
        m.linear(dense, hidden, hidden)
        m.linear(up, 4 * hidden, hidden)
        m.linear(down, hidden, 4 * hidden)
        values = rows_of_heads((rep + 1) * hd, (rep + 2) * hd, kv, hd)
        if new:
            m.norm(p + "ln_attn", hidden, True)
            m.norm(p + "ln_mlp", hidden, True)
            m.group("N", p + "ln_attn", [p + "ln_attn"], [qkv])
            m.group("N", p + "ln_mlp", [p + "ln_mlp"], [up])
        else:
            m.norm(p + "input_layernorm", hidden, True)
            m.group("N", p + "input_layernorm", [p + "input_layernorm"], [qkv, up])
        m.group("VG", qkv, [Side(qkv + ".weight", 0, values)], [dense], (rep, hd))
    return m


def starcoder2(seed, heads=8, kv=2, hd=4, layers=2):
    hidden, ffn = heads * hd, 48
    m = Model("starcoder2", base_config("Starcoder2ForCausalLM", "starcoder2", hidden, layers, heads, kv, ffn, hidden_act="gelu_pytorch_tanh", norm_epsilon=1e-5, use_bias=True,
                                        tie_word_embeddings=True), seed)
    ends(m, hidden, norm_bias=True, tied=True)
    for i in range(layers):
        p = f"model.layers.{i}."
        attention(m, p, hidden, heads, kv, hd, True, True, norm_bias=True)
        m.norm(p + "post_attention_layernorm", hidden, True)
        m.linear(p + "mlp.c_fc", ffn, hidden, True)
        m.linear(p + "mlp.c_proj", hidden, ffn, True)
        m.group("N", p + "post_attention_layernorm", [p + "post_attention_layernorm"], [p + "mlp.c_fc"])
    return m


def olmo2(seed, heads=8, kv=2, hd=4, layers=2, ffn=40):
    hidden = heads * hd
    m = Model("olmo2", base_config("Olmo2ForCausalLM", "olmo2", hidden, layers, heads, kv, ffn, hidden_act="silu", tie_word_embeddings=False), seed)
    ends(m, hidden)
    for i in range(layers):
        p = f"model.layers.{i}."
        for name, n in (("q_proj", heads * hd), ("k_proj", kv * hd), ("v_proj", kv * hd)):
            m.linear(p + "self_attn." + name, n, hidden)
        m.linear(p + "self_attn.o_proj", hidden, heads * hd)
        m.norm(p + "self_attn.q_norm", heads * hd)
        m.norm(p + "self_attn.k_norm", kv * hd)
        m.norm(p + "post_attention_layernorm", hidden)
        m.norm(p + "post_feedforward_layernorm", hidden)
        expert(m, p + "mlp.", hidden, ffn)
        value_group(m, p + "self_attn.v_proj", p + "self_attn.o_proj", heads, kv, hd)
        m.group("U", p + "mlp.up_proj", [p + "mlp.up_proj"], [p + "mlp.down_proj"])
    return m


def mixtral(seed, heads=4, kv=2, hd=8, layers=2, experts=3, ffn=24):
    hidden = heads * hd
    m = Model("mixtral", base_config("MixtralForCausalLM", "mixtral", hidden, layers, heads, kv, ffn, hidden_act="silu", num_local_experts=experts, num_experts_per_tok=2), seed)
    ends(m, hidden)
    for i in range(layers):
        p = f"model.layers.{i}."
        attention(m, p, hidden, heads, kv, hd)
        moe = p + "block_sparse_moe."
        m.norm(p + "post_attention_layernorm", hidden)
        m.linear(moe + "gate", experts, hidden)
        for e in range(experts):
            expert(m, f"{moe}experts.{e}.", hidden, ffn, ("w1", "w3", "w2"))
            m.group("U", f"{moe}experts.{e}.w3", [f"{moe}experts.{e}.w3"], [f"{moe}experts.{e}.w2"])
        m.group("N", p + "post_attention_layernorm", [p + "post_attention_layernorm"],
                [moe + "gate"] + [f"{moe}experts.{e}.{w}" for e in range(experts) for w in ("w1", "w3")], on_request=True)
    return m


def qwen_moe(seed, version, heads=4, kv=2, hd=8, layers=3, experts=4, ffn=40, expert_ffn=16, shared_ffn=24):
    """Layer 1 is dense (mlp_only_layers)."""
    hidden = 32
    names = {2: ("Qwen2MoeForCausalLM", "qwen2_moe"), 3: ("Qwen3MoeForCausalLM", "qwen3_moe")}[version]
    m = Model("qwen_moe", base_config(*names, hidden, layers, heads, kv, ffn, head_dim=hd, hidden_act="silu", num_experts=experts, num_experts_per_tok=2, moe_intermediate_size=expert_ffn,
                                      mlp_only_layers=[1], decoder_sparse_step=1, norm_topk_prob=version == 3, tie_word_embeddings=False), seed)
    if version == 2:
        m.config["shared_expert_intermediate_size"] = shared_ffn
    ends(m, hidden)
    for i in range(layers):
        p = f"model.layers.{i}."
        attention(m, p, hidden, heads, kv, hd, version == 2)
        if version == 3:
            m.norm(p + "self_attn.q_norm", hd)
            m.norm(p + "self_attn.k_norm", hd)
        if i == 1:
            gated_mlp(m, p + "mlp.", p + "post_attention_layernorm", hidden, ffn)
            continue
        m.norm(p + "post_attention_layernorm", hidden)
        m.linear(p + "mlp.gate", experts, hidden)
        parts = [f"{p}mlp.experts.{e}." for e in range(experts)]
        for part in parts:
            expert(m, part, hidden, expert_ffn)
        consumers = [p + "mlp.gate"]
        if version == 2:
            parts.append(p + "mlp.shared_expert.")
            expert(m, parts[-1], hidden, shared_ffn)
            m.linear(p + "mlp.shared_expert_gate", 1, hidden)
            consumers.append(p + "mlp.shared_expert_gate")
        for part in parts:
            m.group("U", part + "up_proj", [part + "up_proj"], [part + "down_proj"])
        m.group("N", p + "post_attention_layernorm", [p + "post_attention_layernorm"], consumers + [part + n for part in parts for n in ("gate_proj", "up_proj")], on_request=True)
    return m


def deepseek(seed, version=2, heads=4, layers=2, nope=8, rope=4, vd=6, q_rank=20, kv_rank=12, experts=4, ffn=40, expert_ffn=16):
    """Layer 0 is dense. q_rank 0: one q_proj, as in V2-Lite."""
    hidden = 32
    more = {"topk_method": "greedy", "scoring_func": "softmax"} if version == 2 else {"topk_method": "noaux_tc", "scoring_func": "sigmoid"}
    m = Model("deepseek", {**base_config(f"DeepseekV{version}ForCausalLM", f"deepseek_v{version}", hidden, layers, heads, heads, ffn, hidden_act="silu"), "q_lora_rank": q_rank or None,
                           "kv_lora_rank": kv_rank, "qk_nope_head_dim": nope, "qk_rope_head_dim": rope, "v_head_dim": vd, "n_routed_experts": experts, "num_experts_per_tok": 2,
                           "n_shared_experts": 2, "moe_intermediate_size": expert_ffn, "first_k_dense_replace": 1, "moe_layer_freq": 1, "n_group": 1, "topk_group": 1,
                           "norm_topk_prob": version == 3, "routed_scaling_factor": 1.5, "tie_word_embeddings": False, **more}, seed)
    ends(m, hidden)
    for i in range(layers):
        p = f"model.layers.{i}."
        a = p + "self_attn."
        m.norm(p + "input_layernorm", hidden)
        if q_rank:
            m.linear(a + "q_a_proj", q_rank, hidden)
            m.norm(a + "q_a_layernorm", q_rank)
            m.linear(a + "q_b_proj", heads * (nope + rope), q_rank)
            m.group("M", a + "q_a_layernorm", [a + "q_a_layernorm"], [a + "q_b_proj"])
        else:
            m.linear(a + "q_proj", heads * (nope + rope), hidden)
        m.linear(a + "kv_a_proj_with_mqa", kv_rank + rope, hidden)
        m.norm(a + "kv_a_layernorm", kv_rank)
        m.linear(a + "kv_b_proj", heads * (nope + vd), kv_rank)
        m.linear(a + "o_proj", hidden, heads * vd)
        m.group("N", p + "input_layernorm", [p + "input_layernorm"], [a + ("q_a_proj" if q_rank else "q_proj"), a + "kv_a_proj_with_mqa"])
        m.group("M", a + "kv_a_layernorm", [a + "kv_a_layernorm"], [a + "kv_b_proj"])
        m.group("M", a + "kv_b_proj", [Side(a + "kv_b_proj.weight", 0, rows_of_heads(nope, nope + vd, heads, vd))], [a + "o_proj"])
        if i == 0:
            gated_mlp(m, p + "mlp.", p + "post_attention_layernorm", hidden, ffn)
            continue
        m.norm(p + "post_attention_layernorm", hidden)
        m.linear(p + "mlp.gate", experts, hidden)
        if version == 3:
            m.tensors[p + "mlp.gate.e_score_correction_bias"] = (0.1 * m.rng.standard_normal(experts)).astype(np.float32)
        parts = [f"{p}mlp.experts.{e}." for e in range(experts)] + [p + "mlp.shared_experts."]
        for part in parts:
            expert(m, part, hidden, expert_ffn if "experts." in part and "shared" not in part else 2 * expert_ffn)
            m.group("U", part + "up_proj", [part + "up_proj"], [part + "down_proj"])
        m.group("N", p + "post_attention_layernorm", [p + "post_attention_layernorm"], [p + "mlp.gate"] + [part + n for part in parts for n in ("gate_proj", "up_proj")], on_request=True)
    return m


def gpt_oss(seed, heads=8, kv=2, hd=4, layers=2, experts=3, ffn=20):
    hidden = 24
    m = Model("gpt_oss", base_config("GptOssForCausalLM", "gpt_oss", hidden, layers, heads, kv, ffn, head_dim=hd, hidden_act="silu", num_local_experts=experts, num_experts_per_tok=2,
                                     experts_per_token=2, attention_bias=True, swiglu_limit=7.0, sliding_window=6, layer_types=["sliding_attention", "full_attention"] * (layers // 2),
                                     tie_word_embeddings=False), seed)
    ends(m, hidden)
    for i in range(layers):
        p = f"model.layers.{i}."
        attention(m, p, hidden, heads, kv, hd, True, True)
        m.tensors[p + "self_attn.sinks"] = m.rng.standard_normal(heads).astype(np.float32)
        m.norm(p + "post_attention_layernorm", hidden)
        m.linear(p + "mlp.router", experts, hidden, True)
        m.stack(p + "mlp.experts.gate_up_proj", experts, hidden, 2 * ffn, fan_in=hidden)
        m.stack(p + "mlp.experts.gate_up_proj_bias", experts, 2 * ffn, fan_in=25)
        m.stack(p + "mlp.experts.down_proj", experts, ffn, hidden, fan_in=ffn)
        m.stack(p + "mlp.experts.down_proj_bias", experts, hidden, fan_in=25)
        m.group("N", p + "post_attention_layernorm", [p + "post_attention_layernorm"], [p + "mlp.router", Side(p + "mlp.experts.gate_up_proj", 1, np.arange(hidden))], on_request=True)
    return m


# ---- further ones --------------------------------------------------------------------------------------------------------------------


def parallel(seed, kind, heads=8, kv=2, hd=4, ffn=40, layers=2):
    """Attention and feed forward read one norm: Cohere, Phi-2, GPT-J, StableLM when it says so."""
    hidden = heads * hd
    names = {"cohere": ("CohereForCausalLM", "cohere"), "phi2": ("PhiForCausalLM", "phi"), "gptj": ("GPTJForCausalLM", "gptj"), "stablelm": ("StableLmForCausalLM", "stablelm")}[kind]
    kv = heads if kind in ("phi2", "gptj") else kv
    config = base_config(*names, hidden, layers, heads, kv, ffn, tie_word_embeddings=kind == "cohere")
    if kind == "gptj":
        config.update(n_embd=hidden, n_head=heads, n_layer=layers, n_inner=ffn, rotary_dim=4, activation_function="gelu_new", layer_norm_epsilon=1e-5)
    config.update({"cohere": {"hidden_act": "silu", "logit_scale": 0.5, "layer_norm_eps": 1e-5}, "phi2": {"hidden_act": "gelu_new", "partial_rotary_factor": 0.5, "layer_norm_eps": 1e-5},
                   "stablelm": {"hidden_act": "silu", "use_parallel_residual": True, "partial_rotary_factor": 0.5, "layer_norm_eps": 1e-5}, "gptj": {}}[kind])
    m = Model("parallel", {**config, "kind": kind}, seed)
    p, attn, mlp, gated = {"cohere": ("model.layers.{}.", "self_attn.", "mlp.", True), "stablelm": ("model.layers.{}.", "self_attn.", "mlp.", True), "phi2": ("model.layers.{}.", "self_attn.", "mlp.", False),
                           "gptj": ("transformer.h.{}.", "attn.", "mlp.", False)}[kind]
    out, norm, bias = {"cohere": ("o_proj", "input_layernorm", False), "stablelm": ("o_proj", "input_layernorm", False), "phi2": ("dense", "input_layernorm", True), "gptj": ("out_proj", "ln_1", False)}[kind]
    embed, last = {"phi2": ("model.embed_tokens", "model.final_layernorm"), "gptj": ("transformer.wte", "transformer.ln_f")}.get(kind, ("model.embed_tokens", "model.norm"))
    ends(m, hidden, embed + ".weight", last, norm_bias=kind != "cohere", tied=kind == "cohere")
    for i in range(layers):
        q = p.format(i)
        m.norm(q + norm, hidden, kind != "cohere")
        for name, n in (("q_proj", heads * hd), ("k_proj", kv * hd), ("v_proj", kv * hd)):
            m.linear(q + attn + name, n, hidden, bias)
        m.linear(q + attn + out, hidden, heads * hd, bias)
        if gated:
            expert(m, q + mlp, hidden, ffn)
        else:
            fc = ("fc1", "fc2") if kind == "phi2" else ("fc_in", "fc_out")
            m.linear(q + mlp + fc[0], ffn, hidden, True)
            m.linear(q + mlp + fc[1], hidden, ffn, True)
        first = ["gate_proj", "up_proj"] if gated else [fc[0]]
        m.group("N", q + norm, [q + norm], [q + attn + n for n in ("q_proj", "k_proj", "v_proj")] + [q + mlp + n for n in first])
        value_group(m, q + attn + "v_proj", q + attn + out, heads, kv, hd)
        if gated:
            m.group("U", q + mlp + "up_proj", [q + mlp + "up_proj"], [q + mlp + "down_proj"])
    m.config["places"] = (p, attn, mlp, gated, out, norm, embed, last)
    return m


def fused(seed, kind, heads=8, kv=2, hd=4, ffn=40, layers=2, experts=3):
    """q, k and v in one matrix: MPT, BigCode, InternLM2, ChatGLM, Baichuan, DBRX."""
    hidden = heads * hd
    names = {"mpt": ("MPTForCausalLM", "mpt"), "bigcode": ("GPTBigCodeForCausalLM", "gpt_bigcode"), "internlm2": ("InternLM2ForCausalLM", "internlm2"), "chatglm": ("ChatGLMModel", "chatglm"),
             "baichuan": ("BaichuanForCausalLM", "baichuan"), "dbrx": ("DbrxForCausalLM", "dbrx")}[kind]
    kv = {"mpt": heads, "bigcode": 1, "baichuan": heads}.get(kind, kv)
    config = base_config(*names, hidden, layers, heads, kv, ffn, tie_word_embeddings=False)
    config.update({"mpt": {"d_model": hidden, "n_heads": heads, "n_layers": layers, "attn_config": {"alibi": True}, "no_bias": True},
                   "bigcode": {"n_embd": hidden, "n_head": heads, "n_layer": layers, "n_inner": ffn, "multi_query": True, "activation_function": "gelu_pytorch_tanh"},
                   "chatglm": {"num_layers": layers, "ffn_hidden_size": ffn, "multi_query_attention": True, "multi_query_group_num": kv, "kv_channels": hd, "padded_vocab_size": VOCAB, "add_qkv_bias": True},
                   "dbrx": {"d_model": hidden, "n_heads": heads, "n_layers": layers, "attn_config": {"kv_n_heads": kv}, "ffn_config": {"ffn_hidden_size": ffn, "moe_num_experts": experts, "moe_top_k": 2}},
                   }.get(kind, {"hidden_act": "silu"}))
    for k in {"mpt": ("hidden_size", "num_attention_heads", "num_hidden_layers", "num_key_value_heads"), "dbrx": ("hidden_size", "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "intermediate_size"),
              "bigcode": ("num_key_value_heads",), "chatglm": ("num_key_value_heads", "intermediate_size", "num_hidden_layers")}.get(kind, ()):
        del config[k]
    m = Model("fused", config, seed)
    P = {"mpt": ("transformer.blocks.{}.", "norm_1", "attn.Wqkv", "attn.out_proj", "norm_2", "transformer.wte", "transformer.norm_f"),
         "bigcode": ("transformer.h.{}.", "ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "transformer.wte", "transformer.ln_f"),
         "internlm2": ("model.layers.{}.", "attention_norm", "attention.wqkv", "attention.wo", "ffn_norm", "model.tok_embeddings", "model.norm"),
         "chatglm": ("transformer.encoder.layers.{}.", "input_layernorm", "self_attention.query_key_value", "self_attention.dense", "post_attention_layernorm", "transformer.embedding.word_embeddings",
                     "transformer.encoder.final_layernorm"),
         "baichuan": ("model.layers.{}.", "input_layernorm", "self_attn.W_pack", "self_attn.o_proj", "post_attention_layernorm", "model.embed_tokens", "model.norm"),
         "dbrx": ("transformer.blocks.{}.", "norm_attn_norm.norm_1", "norm_attn_norm.attn.Wqkv", "norm_attn_norm.attn.out_proj", "norm_attn_norm.norm_2", "transformer.wte", "transformer.norm_f")}[kind]
    m.config["fused"] = (kind, heads, kv, hd, layers, P)
    biased = kind == "bigcode"
    head = {"internlm2": "output", "chatglm": "transformer.output_layer"}.get(kind, "lm_head")
    ends(m, hidden, P[5] + ".weight", P[6], head, norm_bias=biased, tied=kind in ("mpt", "bigcode"))
    if biased:
        m.table("transformer.wpe.weight", 64, hidden)
    for i in range(layers):
        p, norm1, qkv, o, norm2 = [P[0].format(i) + (n if k else "") for k, n in enumerate(P[:5])]
        m.norm(norm1, hidden, biased)
        m.norm(norm2, hidden, biased)
        m.linear(qkv, (heads + 2 * kv) * hd, hidden, biased or kind == "chatglm")
        m.linear(o, hidden, heads * hd, biased)
        rep = heads // kv
        rows = rows_of_heads((rep + 1) * hd, (rep + 2) * hd, kv, hd) if kind == "internlm2" else (heads + kv) * hd + np.arange(kv * hd)
        m.group("N", norm1, [norm1], [qkv])
        m.group("V" if rep == 1 else "VG", qkv, [Side(qkv + ".weight", 0, rows)] + ([Side(qkv + ".bias", 0, rows)] if qkv + ".bias" in m.tensors else []), [o], (rep, hd) if rep > 1 else (1, 1))
        if kind in ("mpt", "bigcode"):
            up, down = p + ("ffn.up_proj" if kind == "mpt" else "mlp.c_fc"), p + ("ffn.down_proj" if kind == "mpt" else "mlp.c_proj")
            m.linear(up, ffn, hidden, biased)
            m.linear(down, hidden, ffn, biased)
            m.group("N", norm2, [norm2], [up])
        elif kind == "chatglm":
            up, down = p + "mlp.dense_h_to_4h", p + "mlp.dense_4h_to_h"
            m.linear(up, 2 * ffn, hidden)
            m.linear(down, hidden, ffn)
            m.group("N", norm2, [norm2], [up])
            m.group("U", up, [Side(up + ".weight", 0, ffn + np.arange(ffn))], [down])
        elif kind == "dbrx":
            e = p + "ffn.experts.mlp."
            m.linear(p + "ffn.router.layer", experts, hidden)
            for name in ("w1", "v1", "w2"):
                m.stack(e + name, experts * ffn, hidden, fan_in=hidden if name != "w2" else ffn)
            for k in range(experts):
                places = k * ffn + np.arange(ffn)
                m.group("U", f"{e}v1[{k}]", [Side(e + "v1", 0, places)], [Side(e + "w2", 0, places)])
            m.group("N", norm2, [norm2], [p + "ffn.router.layer", Side(e + "w1", 1, np.arange(hidden)), Side(e + "v1", 1, np.arange(hidden))], on_request=True)
        else:
            names3 = ("feed_forward.w1", "feed_forward.w3", "feed_forward.w2") if kind == "internlm2" else ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
            expert(m, p, hidden, ffn, names3)
            m.group("N", norm2, [norm2], [p + names3[0], p + names3[1]])
            m.group("U", p + names3[1], [p + names3[1]], [p + names3[2]])
    return m


def stacked(seed, kind, heads=8, kv=2, hd=4, ffn=20, layers=2, experts=3):
    """Experts in stacks: Llama 4 [E, in, out], Granite MoE [E, out, in]; gate and up one after the other."""
    hidden = 24
    names = {"llama4": ("Llama4ForCausalLM", "llama4_text"), "granite": ("GraniteMoeForCausalLM", "granitemoe")}[kind]
    m = Model("stacked", base_config(*names, hidden, layers, heads, kv, ffn, head_dim=hd, hidden_act="silu", num_local_experts=experts, num_experts_per_tok=1 if kind == "llama4" else 2,
                                     tie_word_embeddings=False, kind=kind), seed)
    if kind == "llama4":
        m.config.update(interleave_moe_layer_step=1, intermediate_size_mlp=48)
    else:
        m.config.update(embedding_multiplier=1.0, residual_multiplier=1.0, attention_multiplier=hd**-0.5, logits_scaling=1.0)
    ends(m, hidden)
    for i in range(layers):
        p = f"model.layers.{i}."
        attention(m, p, hidden, heads, kv, hd)
        norm = p + "post_attention_layernorm"
        m.norm(norm, hidden)
        if kind == "llama4":
            f = p + "feed_forward."
            m.linear(f + "router", experts, hidden)
            m.stack(f + "experts.gate_up_proj", experts, hidden, 2 * ffn, fan_in=hidden)
            m.stack(f + "experts.down_proj", experts, ffn, hidden, fan_in=ffn)
            expert(m, f + "shared_expert.", hidden, ffn)
            for e in range(experts):
                m.group("U", f"{f}experts.gate_up_proj[{e}]", [Side(f + "experts.gate_up_proj", 2, ffn + np.arange(ffn), e)], [Side(f + "experts.down_proj", 1, np.arange(ffn), e)])
            m.group("U", f + "shared_expert.up_proj", [f + "shared_expert.up_proj"], [f + "shared_expert.down_proj"])
            m.group("N", norm, [norm], [f + "router", Side(f + "experts.gate_up_proj", 1, np.arange(hidden)), f + "shared_expert.gate_proj", f + "shared_expert.up_proj"], on_request=True)
        else:
            f = p + "block_sparse_moe."
            m.linear(f + "router.layer", experts, hidden)
            m.stack(f + "input_linear.weight", experts, 2 * ffn, hidden, fan_in=hidden)
            m.stack(f + "output_linear.weight", experts, hidden, ffn, fan_in=ffn)
            for e in range(experts):
                m.group("U", f"{f}input_linear[{e}]", [Side(f + "input_linear.weight", 1, ffn + np.arange(ffn), e)], [Side(f + "output_linear.weight", 2, np.arange(ffn), e)])
            m.group("N", norm, [norm], [f + "router.layer", Side(f + "input_linear.weight", 2, np.arange(hidden))], on_request=True)
    return m


def qwen3_next(seed, layers=2, heads=4, kv=2, hd=8, k_heads=2, v_heads=4, k_dim=4, v_dim=6, experts=3, ffn=16):
    """Layer 0 has linear attention (a norm of its heads whose gain all share), layer 1 attention with a gate in q."""
    hidden = 32
    m = Model("qwen3_next", base_config("Qwen3NextForCausalLM", "qwen3_next", hidden, layers, heads, kv, ffn, head_dim=hd, hidden_act="silu", num_experts=experts, num_experts_per_tok=2,
                                        moe_intermediate_size=ffn, shared_expert_intermediate_size=ffn, norm_topk_prob=True, mlp_only_layers=[], decoder_sparse_step=1,
                                        layer_types=["linear_attention", "full_attention"], linear_num_key_heads=k_heads, linear_num_value_heads=v_heads, linear_key_head_dim=k_dim,
                                        linear_value_head_dim=v_dim, linear_conv_kernel_dim=4, tie_word_embeddings=False), seed)
    ends(m, hidden, plus_one=True)
    for i in range(layers):
        p = f"model.layers.{i}."
        norm, post = p + "input_layernorm", p + "post_attention_layernorm"
        m.norm(norm, hidden, plus_one=True)
        m.norm(post, hidden, plus_one=True)
        if i == 0:
            a = p + "linear_attn."
            m.linear(a + "in_proj_qkvz", 2 * k_heads * k_dim + 2 * v_heads * v_dim, hidden)
            m.linear(a + "in_proj_ba", 2 * v_heads, hidden)
            m.tensors[a + "conv1d.weight"] = (0.5 * m.rng.standard_normal((2 * k_heads * k_dim + v_heads * v_dim, 1, 4))).astype(np.float32)
            m.tensors[a + "A_log"] = m.rng.uniform(0, 1, v_heads).astype(np.float32)
            m.tensors[a + "dt_bias"] = m.rng.uniform(0, 1, v_heads).astype(np.float32)
            m.norm(a + "norm", v_dim)
            m.linear(a + "out_proj", hidden, v_heads * v_dim)
            m.group("N1", norm, [norm], [a + "in_proj_qkvz", a + "in_proj_ba"])
            m.group("G", a + "norm", [a + "norm"], [a + "out_proj"], (v_heads, v_dim))
        else:
            a = p + "self_attn."
            for name, n in (("q_proj", 2 * heads * hd), ("k_proj", kv * hd), ("v_proj", kv * hd)):
                m.linear(a + name, n, hidden)
            m.linear(a + "o_proj", hidden, heads * hd)
            m.norm(a + "q_norm", hd, plus_one=True)
            m.norm(a + "k_norm", hd, plus_one=True)
            m.group("N1", norm, [norm], [a + n for n in ("q_proj", "k_proj", "v_proj")])
            value_group(m, a + "v_proj", a + "o_proj", heads, kv, hd)
        m.linear(p + "mlp.gate", experts, hidden)
        m.linear(p + "mlp.shared_expert_gate", 1, hidden)
        parts = [f"{p}mlp.experts.{e}." for e in range(experts)] + [p + "mlp.shared_expert."]
        for part in parts:
            expert(m, part, hidden, ffn)
            m.group("U", part + "up_proj", [part + "up_proj"], [part + "down_proj"])
        m.group("N1", post, [post], [p + "mlp.gate", p + "mlp.shared_expert_gate"] + [part + n for part in parts for n in ("gate_proj", "up_proj")], on_request=True)
    return m


def bitnet(seed, heads=8, kv=2, hd=4, ffn=40, layers=2):
    hidden = heads * hd
    m = Model("bitnet", base_config("BitNetForCausalLM", "bitnet", hidden, layers, heads, kv, ffn, hidden_act="relu2", tie_word_embeddings=True), seed)
    ends(m, hidden, tied=True)
    for i in range(layers):
        p = f"model.layers.{i}."
        for name, n in (("input_layernorm", hidden), ("post_attention_layernorm", hidden), ("self_attn.attn_sub_norm", hidden), ("mlp.ffn_sub_norm", ffn)):
            m.norm(p + name, n)
        for name, n in (("q_proj", heads * hd), ("k_proj", kv * hd), ("v_proj", kv * hd)):
            m.linear(p + "self_attn." + name, n, hidden)
        m.linear(p + "self_attn.o_proj", hidden, heads * hd)
        expert(m, p + "mlp.", hidden, ffn)
        m.group("N", p + "input_layernorm", [p + "input_layernorm"], [p + "self_attn." + n for n in ("q_proj", "k_proj", "v_proj")])
        m.group("N", p + "self_attn.attn_sub_norm", [p + "self_attn.attn_sub_norm"], [p + "self_attn.o_proj"])
        m.group("N", p + "post_attention_layernorm", [p + "post_attention_layernorm"], [p + "mlp.gate_proj", p + "mlp.up_proj"])
        m.group("N", p + "mlp.ffn_sub_norm", [p + "mlp.ffn_sub_norm"], [p + "mlp.down_proj"])
    return m


ARCHITECTURES = {
    "llama-gqa4": lambda seed=1: llama(seed), "llama-mha": lambda seed=2: llama(seed, kv=8), "llama-mqa": lambda seed=3: llama(seed, kv=1),
    "mistral": lambda seed=4: llama(seed, architecture="MistralForCausalLM", model_type="mistral", sliding_window=None),
    "qwen2": lambda seed=5: llama(seed, bias=True, architecture="Qwen2ForCausalLM", model_type="qwen2"),
    "qwen3": lambda seed=6: llama(seed, hidden=24, qk_norm=True, architecture="Qwen3ForCausalLM", model_type="qwen3"),
    "gemma": lambda seed=7: gemma(seed, 1), "gemma2": lambda seed=8: gemma(seed, 2), "gemma3": lambda seed=9: gemma(seed, 3),
    "phi3": lambda seed=10: phi3(seed), "opt": lambda seed=11: opt(seed), "opt-gelu": lambda seed=12: opt(seed, act="gelu"), "opt-350m": lambda seed=13: opt(seed, before=False),
    "gpt2": lambda seed=14: gpt2(seed), "gpt2-prefixed": lambda seed=15: gpt2(seed, prefix="transformer."),
    "bloom": lambda seed=16: bloom(seed), "bloom-residual": lambda seed=17: bloom(seed, residual=True),
    "gpt-neox": lambda seed=18: gpt_neox(seed), "gpt-neox-sequential": lambda seed=19: gpt_neox(seed, parallel=False),
    "falcon-7b": lambda seed=20: falcon(seed), "falcon-40b": lambda seed=21: falcon(seed, new=True),
    "starcoder2": lambda seed=22: starcoder2(seed), "olmo2": lambda seed=23: olmo2(seed),
    "mixtral": lambda seed=24: mixtral(seed), "qwen2-moe": lambda seed=25: qwen_moe(seed, 2), "qwen3-moe": lambda seed=26: qwen_moe(seed, 3),
    "deepseek-v2": lambda seed=27: deepseek(seed), "deepseek-v2-lite": lambda seed=28: deepseek(seed, q_rank=0), "deepseek-v3": lambda seed=29: deepseek(seed, 3),
    "gpt-oss": lambda seed=30: gpt_oss(seed),
    "cohere": lambda seed=31: parallel(seed, "cohere"), "phi2": lambda seed=32: parallel(seed, "phi2"), "gptj": lambda seed=33: parallel(seed, "gptj"),
    "stablelm-parallel": lambda seed=34: parallel(seed, "stablelm"), "mpt": lambda seed=35: fused(seed, "mpt"), "bigcode": lambda seed=36: fused(seed, "bigcode"),
    "internlm2": lambda seed=37: fused(seed, "internlm2"), "chatglm": lambda seed=38: fused(seed, "chatglm"), "baichuan": lambda seed=39: fused(seed, "baichuan"),
    "dbrx": lambda seed=40: fused(seed, "dbrx"), "llama4": lambda seed=41: stacked(seed, "llama4"), "granite-moe": lambda seed=42: stacked(seed, "granite"),
    "qwen3-next": lambda seed=43: qwen3_next(seed), "bitnet": lambda seed=44: bitnet(seed),
}


def llama_of(config, tensors):
    """A Model around the tensors of a Llama that exists."""
    c = config
    hd = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    m = llama(1, c["num_attention_heads"], c["num_key_value_heads"], hd, c["hidden_size"], c["intermediate_size"], c["num_hidden_layers"])
    assert {n for n in m.tensors if n != "lm_head.weight"} <= set(tensors)
    m.config, m.tensors = dict(config), dict(tensors)
    m.tokens = np.random.default_rng(3).integers(3, c["vocab_size"], 24)
    return m


def inject(model, ex2, c, kinds=("N",), n_channels=2, seed=5):
    """(tensors, statistics) of the same function with outliers: in each group of these kinds, producer channels times c, their consumers' columns divided by it."""
    rng = np.random.default_rng(seed)
    tensors, ex2 = {n: x.copy() for n, x in model.tensors.items()}, {k: v.copy() for k, v in ex2.items()}
    for g in model.groups:
        if g.kind not in kinds:
            continue
        p = rng.choice(g.owner.max() + 1, n_channels, replace=False)
        producer, consumer = np.ones(g.owner.max() + 1, np.float32), np.ones(g.n, np.float32)
        producer[p] = c
        consumer[np.isin(g.owner, p)] = c
        for side in g.producers:
            tensors[side.tensor] = tensors[side.tensor] * side.factors(tensors[side.tensor].shape, producer)
        for side in g.consumers:
            tensors[side.tensor] = tensors[side.tensor] / side.factors(tensors[side.tensor].shape, consumer)
        seen = set()
        for side in g.consumers:
            if (side.tensor, side.mat) not in seen:
                ex2[(side.tensor, side.mat)] = ex2[(side.tensor, side.mat)] * consumer.astype(np.float64)**2
                seen.add((side.tensor, side.mat))
    return tensors, ex2
