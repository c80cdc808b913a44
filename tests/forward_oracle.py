#!/usr/bin/env python3
"""The forward pass of every architecture in numpy, in binary64, straight from the definitions; shares nothing with the C.

What it is
  case(name) makes a random tiny model: its config.json, its tensors under the names of checkpoints, and a function that gives the logits of a sequence of
  ids. Where an architecture has GGUF files, gguf(case) gives the keys and tensors of one: names, order of rows, gains of that form.

Why this way
  Every model family is written down here in its own words (what is added to what, which positions turn which pairs); the C reads the same facts from
  configs/arch. A mistake in a map shows as a difference of logits.

Worked number
  RMS norm of 3, 4 with gain 1: 0.848528, 1.131371; softmax of 0, ln 3: 1/4, 3/4 (self-check below).

  forward_oracle.py --self-check
"""
import math
import sys

import numpy as np

VOCAB, HIDDEN, HEADS, KV, FFN, LAYERS = 67, 32, 4, 2, 40, 3


# ---- pieces --------------------------------------------------------------------------------------------------------------------------
def rms(x, gain, eps=1e-5):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * gain


def layer_norm(x, gain, bias, eps=1e-5):
    m = x.mean(-1, keepdims=True)
    return (x - m) / np.sqrt(((x - m) ** 2).mean(-1, keepdims=True) + eps) * gain + bias


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def relu(x):
    return np.maximum(x, 0)


def frequencies(theta, dims):
    return np.array([theta ** (-2 * i / dims) for i in range(dims // 2)])


def turned(x, freq, interleaved=False, factor=1.0):
    """x [tokens, heads, dim]: the first 2 * len(freq) dims turned by position * freq."""
    t, _, dim = x.shape
    half = len(freq)
    angle = np.arange(t)[:, None] * freq[None]
    c, s = np.cos(angle)[:, None] * factor, np.sin(angle)[:, None] * factor
    y = x.copy()
    if interleaved:
        a, b = x[..., 0:2 * half:2], x[..., 1:2 * half:2]
        y[..., 0:2 * half:2], y[..., 1:2 * half:2] = a * c - b * s, b * c + a * s
    else:
        a, b = x[..., :half], x[..., half:2 * half]
        y[..., :half], y[..., half:2 * half] = a * c - b * s, b * c + a * s
    return y


def attention(q, k, v, scale, window=0, cap=0.0, sinks=None, slopes=None):
    """q [t, heads, d], k and v [t, kv heads, d] -> [t, heads * d]."""
    t, heads, d = q.shape
    rep = heads // k.shape[1]
    out = np.zeros((t, heads, d))
    for h in range(heads):
        for i in range(t):
            first = max(0, i + 1 - window) if window else 0
            s = np.array([float(q[i, h] @ k[j, h // rep]) * scale for j in range(first, i + 1)])
            if cap:
                s = cap * np.tanh(s / cap)
            if slopes is not None:
                s = s + slopes[h] * (np.arange(first, i + 1) - i)
            p = softmax(np.append(s, sinks[h]))[:-1] if sinks is not None else softmax(s)
            out[i, h] = p @ v[first:i + 1, h // rep]
    return out.reshape(t, heads * d)


# ---- random models -------------------------------------------------------------------------------------------------------------------
class Case:
    """A model: config (of config.json), tensors {name: float32 array}, logits(ids)."""

    def __init__(self, name, seed):
        self.name, self.rng, self.tensors, self.config = name, np.random.default_rng(seed), {}, {}
        self.logits, self.seen = None, None

    def matrix(self, name, *shape, scale=1.3):
        x = (self.rng.standard_normal(shape) * (scale / math.sqrt(shape[-1]))).astype(np.float32)
        self.tensors[name] = x
        return x

    def vector(self, name, n, around=0.0):
        x = (around + 0.3 * self.rng.standard_normal(n)).astype(np.float32)
        self.tensors[name] = x
        return x

    def __getitem__(self, name):
        return self.tensors[name].astype(np.float64)

    def linear(self, x, name, transposed=False):
        """x W^T + b; what went in is kept where somebody wants to know (seen: {name: [rows]})."""
        w = self[name + ".weight"]
        if self.seen is not None:
            self.seen.setdefault(name, []).append(np.atleast_2d(x))
        y = x @ (w if transposed else w.T)
        return y + self[name + ".bias"] if name + ".bias" in self.tensors else y


def base_config(architecture, kind, **more):
    return dict(dict(architectures=[architecture], model_type=kind, vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
                     num_key_value_heads=KV, max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0, hidden_act="silu", tie_word_embeddings=False), **more)


def llama_family(name, seed, architecture="LlamaForCausalLM", kind="llama", dim=HIDDEN // HEADS, biases=(), qk_norm=None, plus_one=False, act=silu, embed_scale=1.0, post_norms=False,
                 pre_norms=True, tied=False, freqs=None, rope_factor=1.0, windows=None, scale=None, cap=0.0, final_cap=0.0, residual=1.0, logit_scale=1.0, moe=None, config=(),
                 skip_rope=(), clip=0.0, interleaved=False, dense_layers=(), layers=LAYERS, kv=KV):
    """Llama and everything that is Llama with something more."""
    c = Case(name, seed)
    c.config = base_config(architecture, kind, head_dim=dim, tie_word_embeddings=tied, num_hidden_layers=layers, num_key_value_heads=kv, **dict(config))
    c.facts = dict(dim=dim, plus_one=plus_one, kv=kv, layers=layers)
    around = 0.0 if plus_one else 1.0
    c.matrix("model.embed_tokens.weight", VOCAB, HIDDEN, scale=4)
    if not tied:
        c.matrix("lm_head.weight", VOCAB, HIDDEN, scale=2)
    c.vector("model.norm.weight", HIDDEN, around)
    norms = (["input_layernorm", "post_attention_layernorm"] if pre_norms and not post_norms else
             ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"] if pre_norms else
             ["post_attention_layernorm", "post_feedforward_layernorm"])
    for l in range(layers):
        p = f"model.layers.{l}."
        for n in norms:
            c.vector(p + n + ".weight", HIDDEN, around)
        for n, rows, cols in (("q", HEADS * dim, HIDDEN), ("k", kv * dim, HIDDEN), ("v", kv * dim, HIDDEN), ("o", HIDDEN, HEADS * dim)):
            c.matrix(p + f"self_attn.{n}_proj.weight", rows, cols)
            if n in biases:
                c.vector(p + f"self_attn.{n}_proj.bias", rows)
        if qk_norm:
            for n, heads in (("q", HEADS), ("k", kv)):
                c.vector(p + f"self_attn.{n}_norm.weight", dim if qk_norm == "head" else heads * dim, around)
        if moe and l not in dense_layers:
            moe.make(c, p)
        else:
            for n, rows, cols in (("gate", FFN, HIDDEN), ("up", FFN, HIDDEN), ("down", HIDDEN, FFN)):
                c.matrix(p + f"mlp.{n}_proj.weight", rows, cols)
    gain = lambda n: c[n] + (1.0 if plus_one else 0.0)
    freqs = freqs or (lambda l: frequencies(10000.0, dim))

    def mlp(x, p):
        return c.linear(act(c.linear(x, p + "mlp.gate_proj")) * c.linear(x, p + "mlp.up_proj"), p + "mlp.down_proj")

    def logits(ids):
        x = c["model.embed_tokens.weight"][ids] * embed_scale
        for l in range(layers):
            p = f"model.layers.{l}."
            h = rms(x, gain(p + "input_layernorm.weight")) if pre_norms else x
            q, k, v = (c.linear(h, p + f"self_attn.{n}_proj") for n in "qkv")
            if qk_norm == "all":
                q, k = rms(q, gain(p + "self_attn.q_norm.weight")), rms(k, gain(p + "self_attn.k_norm.weight"))
            if clip:
                q, k, v = (np.clip(y, -clip, clip) for y in (q, k, v))
            q, k, v = q.reshape(-1, HEADS, dim), k.reshape(-1, kv, dim), v.reshape(-1, kv, dim)
            if qk_norm == "head":
                q, k = rms(q, gain(p + "self_attn.q_norm.weight")), rms(k, gain(p + "self_attn.k_norm.weight"))
            if l not in skip_rope:
                q, k = (turned(y, freqs(l), interleaved, rope_factor) for y in (q, k))
            a = c.linear(attention(q, k, v, scale or 1 / math.sqrt(dim), windows(l) if windows else 0, cap), p + "self_attn.o_proj")
            if post_norms or not pre_norms:
                a = rms(a, gain(p + "post_attention_layernorm.weight"))
            x = x + residual * a
            h = rms(x, gain(p + ("pre_feedforward_layernorm.weight" if post_norms else "post_attention_layernorm.weight"))) if pre_norms else x
            m = moe.run(c, h, p) if moe and l not in dense_layers else mlp(h, p)
            if post_norms or not pre_norms:
                m = rms(m, gain(p + "post_feedforward_layernorm.weight"))
            x = x + residual * m
        y = rms(x, gain("model.norm.weight")) @ c["model.embed_tokens.weight" if tied else "lm_head.weight"].T * logit_scale
        return final_cap * np.tanh(y / final_cap) if final_cap else y

    c.logits = logits
    return c


class Experts:
    """Experts of Mixtral and Qwen: softmax over all, the best are chosen, perhaps normalised; perhaps a shared one."""

    def __init__(self, n, used, ffn, normalised, router, names, shared=0):
        self.n, self.used, self.ffn, self.normalised, self.router, self.names, self.shared = n, used, ffn, normalised, router, names, shared

    def make(self, c, p):
        c.matrix(p + self.router + ".weight", self.n, HIDDEN, scale=3)
        for e in range(self.n):
            for n, rows, cols in zip(self.names, (self.ffn, self.ffn, HIDDEN), (HIDDEN, HIDDEN, self.ffn)):
                c.matrix(p + n.format(e) + ".weight", rows, cols)
        if self.shared:
            for n, rows, cols in (("gate", self.shared, HIDDEN), ("up", self.shared, HIDDEN), ("down", HIDDEN, self.shared)):
                c.matrix(p + f"mlp.shared_expert.{n}_proj.weight", rows, cols)
            c.matrix(p + "mlp.shared_expert_gate.weight", 1, HIDDEN, scale=3)

    def run(self, c, h, p):
        out = np.zeros_like(h)
        for t, scores in enumerate(softmax(c.linear(h, p + self.router))):
            best = sorted(range(self.n), key=lambda e: -scores[e])[:self.used]
            total = sum(scores[e] for e in best) if self.normalised else 1.0
            for e in best:
                gate, up, down = (p + n.format(e) for n in self.names)
                out[t] += scores[e] / total * c.linear(silu(c.linear(h[t], gate)) * c.linear(h[t], up), down)
        if self.shared:
            s = p + "mlp.shared_expert."
            one = c.linear(silu(c.linear(h, s + "gate_proj")) * c.linear(h, s + "up_proj"), s + "down_proj")
            out += sigmoid(c.linear(h, p + "mlp.shared_expert_gate")) * one
        return out


def llama3_frequencies(theta, dims, factor, low, high, old):
    out = []
    for f in frequencies(theta, dims):
        length = 2 * math.pi / f
        s = (old / length - low) / (high - low)
        out.append(f if length < old / high else f / factor if length > old / low else (1 - s) * f / factor + s * f)
    return np.array(out)


def yarn_frequencies(theta, dims, factor, old):
    at = lambda turns: dims * math.log(old / (turns * 2 * math.pi)) / (2 * math.log(theta))
    low, high = max(math.floor(at(32)), 0), min(math.ceil(at(1)), dims - 1)
    ramp = [min(max((i - low) / max(high - low, 0.001), 0), 1) for i in range(dims // 2)]
    return np.array([f / factor * r + f * (1 - r) for f, r in zip(frequencies(theta, dims), ramp)])


def gemma2(name, seed, scalar):
    return llama_family(name, seed, "Gemma2ForCausalLM", "gemma2", dim=12, plus_one=True, act=gelu_tanh, embed_scale=math.sqrt(HIDDEN), tied=True, post_norms=True,
                        windows=lambda l: 5 if l % 2 == 0 else 0, scale=1 / math.sqrt(scalar), cap=4.0, final_cap=6.0,
                        config=dict(sliding_window=5, query_pre_attn_scalar=scalar, attn_logit_softcapping=4.0, final_logit_softcapping=6.0, hidden_activation="gelu_pytorch_tanh"))


def gemma3(name, seed, scalar):
    return llama_family(name, seed, "Gemma3ForCausalLM", "gemma3_text", dim=12, plus_one=True, act=gelu_tanh, embed_scale=math.sqrt(HIDDEN), tied=True, post_norms=True, qk_norm="head",
                        windows=lambda l: 0 if l % 6 == 5 else 5, scale=1 / math.sqrt(scalar), layers=7,
                        freqs=lambda l: frequencies(1e6, 12) / 8 if l % 6 == 5 else frequencies(10000.0, 12),
                        config=dict(sliding_window=5, query_pre_attn_scalar=scalar, sliding_window_pattern=6, rope_theta=1e6, rope_local_base_freq=10000.0,
                                    rope_scaling=dict(rope_type="linear", factor=8.0), hidden_activation="gelu_pytorch_tanh"))


def qwen2_moe(name, seed, dense_layers):
    names = ["mlp.experts.{}." + n for n in ("gate_proj", "up_proj", "down_proj")]
    return llama_family(name, seed, "Qwen2MoeForCausalLM", "qwen2_moe", biases="qkv", moe=Experts(5, 2, 24, False, "mlp.gate", names, shared=20), dense_layers=dense_layers,
                        config=dict(num_experts=5, num_experts_per_tok=2, norm_topk_prob=False))


def fuse(c, parts, into):
    """Matrices (and biases) stacked into one tensor."""
    c.tensors[into + ".weight"] = np.concatenate([c.tensors.pop(n + ".weight") for n in parts])


def phi3(name, seed, **more):
    """Llama whose projections are fused; the unfused model gives the logits."""
    c = llama_family(name, seed, **more)
    whole = dict(c.tensors)
    plain, c2 = c.logits, Case(name, 0)
    c2.plain = c
    c2.config = dict(c.config, architectures=["Phi3ForCausalLM"], model_type="phi3")
    c2.tensors = dict(whole)
    for l in range(LAYERS):
        p = f"model.layers.{l}."
        fuse(c2, [p + f"self_attn.{n}_proj" for n in "qkv"], p + "self_attn.qkv_proj")
        fuse(c2, [p + "mlp.gate_proj", p + "mlp.up_proj"], p + "mlp.gate_up_proj")
    c2.logits = plain
    return c2


def opt(name, seed):
    c = Case(name, seed)
    c.config = dict(architectures=["OPTForCausalLM"], model_type="opt", vocab_size=VOCAB, hidden_size=HIDDEN, ffn_dim=FFN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
                    max_position_embeddings=64, do_layer_norm_before=True, activation_function="relu", word_embed_proj_dim=HIDDEN, tie_word_embeddings=True)
    d = "model.decoder."
    c.matrix(d + "embed_tokens.weight", VOCAB, HIDDEN, scale=4)
    c.matrix(d + "embed_positions.weight", 66, HIDDEN, scale=3)
    for n in [d + "final_layer_norm"] + [d + f"layers.{l}.{n}" for l in range(LAYERS) for n in ("self_attn_layer_norm", "final_layer_norm")]:
        c.vector(n + ".weight", HIDDEN, 1.0)
        c.vector(n + ".bias", HIDDEN)
    for l in range(LAYERS):
        for n, rows, cols in [(f"self_attn.{x}", HIDDEN, HIDDEN) for x in ("q_proj", "k_proj", "v_proj", "out_proj")] + [("fc1", FFN, HIDDEN), ("fc2", HIDDEN, FFN)]:
            c.matrix(d + f"layers.{l}.{n}.weight", rows, cols)
            c.vector(d + f"layers.{l}.{n}.bias", rows)
    norm = lambda x, n: layer_norm(x, c[n + ".weight"], c[n + ".bias"])

    def logits(ids):
        x = c[d + "embed_tokens.weight"][ids] + c[d + "embed_positions.weight"][np.arange(len(ids)) + 2]
        for l in range(LAYERS):
            p = d + f"layers.{l}."
            h = norm(x, p + "self_attn_layer_norm")
            q, k, v = (c.linear(h, p + f"self_attn.{n}_proj").reshape(-1, HEADS, HIDDEN // HEADS) for n in "qkv")
            x = x + c.linear(attention(q, k, v, 1 / math.sqrt(HIDDEN // HEADS)), p + "self_attn.out_proj")
            x = x + c.linear(relu(c.linear(norm(x, p + "final_layer_norm"), p + "fc1")), p + "fc2")
        return norm(x, d + "final_layer_norm") @ c[d + "embed_tokens.weight"].T

    c.logits = logits
    return c


def fused_heads(c, x, name, layout, dim, kv, transposed=False):
    """q, k, v of one projection: blocks [q; k; v], or for each key head its query heads, its key, its value."""
    y, rep = c.linear(x, name, transposed), HEADS // kv
    if layout == "blocks":
        q, k, v = np.split(y, [HEADS * dim, (HEADS + kv) * dim], axis=1)
        return q.reshape(-1, HEADS, dim), k.reshape(-1, kv, dim), v.reshape(-1, kv, dim)
    y = y.reshape(len(x), kv, rep + 2, dim)
    return y[:, :, :rep].reshape(len(x), HEADS, dim), y[:, :, rep], y[:, :, rep + 1]


def decoder_with_bias(name, seed, config, names, act, qkv="blocks", kv=HEADS, parallel=False, shared_norm=False, rotary=0, positions=False, alibi=False, embed_norm=False, transposed=False,
                      head=None, bias=True):
    """GPT-2, GPT-NeoX, BLOOM, Falcon: LayerNorm, one matrix for q, k, v, an MLP without gate."""
    c, dim = Case(name, seed), HIDDEN // HEADS
    c.config, n = config, names
    c.matrix(n["embed"], VOCAB, HIDDEN, scale=4)
    if positions:
        c.matrix(n["positions"], 64, HIDDEN, scale=3)
    if head:
        c.matrix(head, VOCAB, HIDDEN, scale=2)
    all_norms = [n["final"]] + ([n["embed_norm"]] if embed_norm else [])
    for l in range(LAYERS):
        p = n["layer"].format(l)
        all_norms += [p + n["ln1"]] + ([] if shared_norm else [p + n["ln2"]])
        for key, rows, cols in (("qkv", (HEADS + 2 * kv) * dim, HIDDEN), ("o", HIDDEN, HIDDEN), ("up", 4 * HIDDEN, HIDDEN), ("down", HIDDEN, 4 * HIDDEN)):
            c.matrix(p + n[key] + ".weight", *((cols, rows) if transposed else (rows, cols)))
            if bias:
                c.vector(p + n[key] + ".bias", rows)
    for x in all_norms:
        c.vector(x + ".weight", HIDDEN, 1.0)
        c.vector(x + ".bias", HIDDEN)
    norm = lambda x, m: layer_norm(x, c[m + ".weight"], c[m + ".bias"])
    slopes = [2.0 ** (-8 * (h + 1) / HEADS) for h in range(HEADS)] if alibi else None

    def logits(ids):
        x = c[n["embed"]][ids]
        if positions:
            x = x + c[n["positions"]][:len(ids)]
        if embed_norm:
            x = norm(x, n["embed_norm"])
        for l in range(LAYERS):
            p = n["layer"].format(l)
            h = norm(x, p + n["ln1"])
            q, k, v = fused_heads(c, h, p + n["qkv"], qkv, dim, kv, transposed)
            if rotary:
                q, k = turned(q, frequencies(10000.0, rotary)), turned(k, frequencies(10000.0, rotary))
            a = c.linear(attention(q, k, v, 1 / math.sqrt(dim), slopes=slopes), p + n["o"], transposed)
            y = x if parallel else x + a
            h = h if shared_norm else norm(y, p + n["ln2"])
            m = c.linear(act(c.linear(h, p + n["up"], transposed)), p + n["down"], transposed)
            x = y + m + (a if parallel else 0)
        return norm(x, n["final"]) @ c[head or n["embed"]].T

    c.logits = logits
    return c


GPT2 = dict(embed="wte.weight", positions="wpe.weight", layer="h.{}.", ln1="ln_1", ln2="ln_2", qkv="attn.c_attn", o="attn.c_proj", up="mlp.c_fc", down="mlp.c_proj", final="ln_f")
NEOX = dict(embed="gpt_neox.embed_in.weight", layer="gpt_neox.layers.{}.", ln1="input_layernorm", ln2="post_attention_layernorm", qkv="attention.query_key_value", o="attention.dense",
            up="mlp.dense_h_to_4h", down="mlp.dense_4h_to_h", final="gpt_neox.final_layer_norm")
BLOOM = dict(embed="transformer.word_embeddings.weight", embed_norm="transformer.word_embeddings_layernorm", layer="transformer.h.{}.", ln1="input_layernorm", ln2="post_attention_layernorm",
             qkv="self_attention.query_key_value", o="self_attention.dense", up="mlp.dense_h_to_4h", down="mlp.dense_4h_to_h", final="transformer.ln_f")


def small(architecture, kind, **more):
    return dict(dict(architectures=[architecture], model_type=kind, vocab_size=VOCAB, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS, layer_norm_eps=1e-5,
                     layer_norm_epsilon=1e-5), **more)


def cases():
    """{name: function that makes the case}"""
    w1 = "block_sparse_moe.experts.{}."
    qwen = ["mlp.experts.{}." + n for n in ("gate_proj", "up_proj", "down_proj")]
    mixtral = lambda: Experts(4, 2, 24, True, "block_sparse_moe.gate", [w1 + "w1", w1 + "w3", w1 + "w2"])
    dim = HIDDEN // HEADS
    return {
        "llama": lambda n: llama_family(n, 1),
        "llama tied, biases": lambda n: llama_family(n, 2, tied=True, biases="qkvo", dim=12),
        "llama linear": lambda n: llama_family(n, 3, freqs=lambda l: frequencies(10000.0, dim) / 4, config=dict(rope_scaling=dict(type="linear", factor=4.0))),
        "llama3": lambda n: llama_family(n, 4, freqs=lambda l: llama3_frequencies(500000.0, dim, 8, 1, 4, 32),
                                         config=dict(rope_theta=500000.0, rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                                                            original_max_position_embeddings=32))),
        "llama yarn": lambda n: llama_family(n, 5, freqs=lambda l: yarn_frequencies(10000.0, dim, 4, 16), rope_factor=0.1 * math.log(4) + 1,
                                             config=dict(rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16))),
        "mistral": lambda n: llama_family(n, 6, "MistralForCausalLM", "mistral", windows=lambda l: 5, config=dict(sliding_window=5)),
        "qwen2": lambda n: llama_family(n, 7, "Qwen2ForCausalLM", "qwen2", biases="qkv", config=dict(sliding_window=5, use_sliding_window=False)),
        "qwen3": lambda n: llama_family(n, 8, "Qwen3ForCausalLM", "qwen3", dim=12, qk_norm="head"),
        "granite": lambda n: llama_family(n, 9, "GraniteForCausalLM", "granite", embed_scale=6, scale=0.3, residual=0.4, logit_scale=1 / 3,
                                          config=dict(embedding_multiplier=6.0, attention_multiplier=0.3, residual_multiplier=0.4, logits_scaling=3.0)),
        "smollm3": lambda n: llama_family(n, 10, "SmolLM3ForCausalLM", "smollm3", skip_rope=(1,), config=dict(no_rope_layers=[1, 0, 1])),
        "gemma": lambda n: llama_family(n, 11, "GemmaForCausalLM", "gemma", dim=12, plus_one=True, act=gelu_tanh, embed_scale=math.sqrt(HIDDEN), tied=True),
        "gemma2": lambda n: gemma2(n, 12, 20),
        "gemma3": lambda n: gemma3(n, 13, 20),
        "phi3": lambda n: phi3(n, 14, windows=lambda l: 5, freqs=lambda l: frequencies(10000.0, 4), config=dict(sliding_window=5, partial_rotary_factor=0.5)),
        "phi3 longrope": lambda n: phi3(n, 15, freqs=lambda l: frequencies(10000.0, dim) / np.array([1.0, 1.5, 2.0, 3.0]), rope_factor=math.sqrt(1 + math.log(2) / math.log(32)),
                                        config=dict(original_max_position_embeddings=32, max_position_embeddings=64,
                                                    rope_scaling=dict(type="longrope", short_factor=[1.0, 1.5, 2.0, 3.0], long_factor=[9.0, 9.0, 9.0, 9.0]))),
        "mixtral": lambda n: llama_family(n, 16, "MixtralForCausalLM", "mixtral", moe=mixtral(), config=dict(num_local_experts=4, num_experts_per_tok=2)),
        "qwen2_moe": lambda n: qwen2_moe(n, 17, (1,)),
        "qwen3_moe": lambda n: llama_family(n, 18, "Qwen3MoeForCausalLM", "qwen3_moe", qk_norm="head", moe=Experts(5, 3, 24, True, "mlp.gate", qwen),
                                            config=dict(num_experts=5, num_experts_per_tok=3, norm_topk_prob=True)),
        "olmoe": lambda n: llama_family(n, 19, "OlmoeForCausalLM", "olmoe", qk_norm="all", kv=HEADS, clip=0.8, moe=Experts(5, 2, 24, False, "mlp.gate", qwen),
                                        config=dict(num_experts=5, num_experts_per_tok=2, norm_topk_prob=False, clip_qkv=0.8)),
        "olmo2": lambda n: llama_family(n, 20, "Olmo2ForCausalLM", "olmo2", qk_norm="all", pre_norms=False),
        "opt": lambda n: opt(n, 21),
        "gpt2": lambda n: decoder_with_bias(n, 22, dict(architectures=["GPT2LMHeadModel"], model_type="gpt2", vocab_size=VOCAB, n_embd=HIDDEN, n_layer=LAYERS, n_head=HEADS, n_positions=64,
                                                        layer_norm_epsilon=1e-5, activation_function="gelu_new"), GPT2, gelu_tanh, positions=True, transposed=True),
        "gpt_neox": lambda n: decoder_with_bias(n, 23, small("GPTNeoXForCausalLM", "gpt_neox", rotary_pct=0.5, rotary_emb_base=10000, hidden_act="gelu", use_parallel_residual=True), NEOX, gelu,
                                                qkv="groups", parallel=True, rotary=4, head="embed_out.weight"),
        "bloom": lambda n: decoder_with_bias(n, 24, small("BloomForCausalLM", "bloom", n_layer=LAYERS, n_head=HEADS), BLOOM, gelu_tanh, qkv="groups", alibi=True, embed_norm=True),
        "falcon": lambda n: decoder_with_bias(n, 25, small("FalconForCausalLM", "falcon", multi_query=True, parallel_attn=True, new_decoder_architecture=False, bias=False, alibi=False), BLOOM, gelu,
                                              kv=1, parallel=True, shared_norm=True, rotary=dim, bias=False),
    }


def case(name):
    return cases()[name](name)


# ---- GGUF ----------------------------------------------------------------------------------------------------------------------------
LAYER_WORDS = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
               "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
               "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp", "block_sparse_moe.gate": "ffn_gate_inp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
               "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp", "mlp.shared_expert.down_proj": "ffn_down_shexp", "attn.c_attn": "attn_qkv",
               "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down", "ln_1": "attn_norm", "ln_2": "ffn_norm", "self_attn.qkv_proj": "attn_qkv",
               "mlp.gate_up_proj": "ffn_up"}
MODEL_WORDS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}
POST_WORDS = dict(LAYER_WORDS, post_attention_layernorm="post_attention_norm", pre_feedforward_layernorm="ffn_norm", post_feedforward_layernorm="post_ffw_norm")
EXPERT_WORDS = {"w1": "ffn_gate_exps", "w2": "ffn_down_exps", "w3": "ffn_up_exps", "gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps", "down_proj": "ffn_down_exps"}


def permuted(x, heads):
    """Rows of q or k in the order of GGUF's llama: dims i and i + half of a head become neighbours."""
    return x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def gguf(c, arch, keys, permute=False, plus_one=False, post_norms=False, transposed=False, more=()):
    """(keys, tensors) for gguf_reader.write."""
    words, stacks, out = POST_WORDS if post_norms else LAYER_WORDS, {}, []
    for name, x in c.tensors.items():
        module, ending = name.rsplit(".", 1)
        if module in MODEL_WORDS:
            new, layer = MODEL_WORDS[module], None
        else:
            layer, rest = module.removeprefix("model.layers.").removeprefix("h.").split(".", 1)
            if ".experts." in rest:
                _, _, number, which = rest.split(".")
                stacks.setdefault(f"blk.{layer}.{EXPERT_WORDS[which]}.weight", {})[int(number)] = x
                continue
            new = f"blk.{layer}.{words[rest]}"
        if permute and new.endswith(("attn_q", "attn_k")):
            x = permuted(x, HEADS if new.endswith("q") else KV)
        if plus_one and x.ndim == 1:
            x = x + np.float32(1)
        if transposed and x.ndim == 2 and layer is not None:
            x = np.ascontiguousarray(x.T)
        if new.endswith("inp_shexp"):
            x = x.reshape(-1)
        out.append((f"{new}.{ending}", "F32", x.shape, np.ascontiguousarray(x)))
    for name, members in stacks.items():
        x = np.stack([members[e] for e in range(len(members))])
        out.append((name, "F32", x.shape, x))
    sizes = {"block_count": LAYERS, "embedding_length": HIDDEN, "attention.head_count": HEADS, "attention.head_count_kv": KV, "context_length": 64}
    head = [("general.architecture", "string", arch)] + [(f"{arch}.{k}", "u32", v) for k, v in {**sizes, **{k: v for k, v in keys.items() if isinstance(v, int)}}.items()]
    return head + [(f"{arch}.{k}", "f32", v) for k, v in keys.items() if isinstance(v, float)] + list(more), out


def gguf_with_bias(c, names, arch, keys, head=None, grouped=False, kv=HEADS, more=()):
    """The same for models with one matrix for q, k, v, which files have as [q; k; v]."""
    words = {names["embed"].rsplit(".", 1)[0]: "token_embd", names["final"]: "output_norm", names.get("embed_norm"): "token_embd_norm", head: "output"}
    for l in range(LAYERS):
        for key, word in (("ln1", "attn_norm"), ("ln2", "ffn_norm"), ("qkv", "attn_qkv"), ("o", "attn_output"), ("up", "ffn_up"), ("down", "ffn_down")):
            words[names["layer"].format(l) + names[key]] = f"blk.{l}.{word}"
    out, dim, rep = [], HIDDEN // HEADS, HEADS // kv
    for name, x in c.tensors.items():
        module, ending = name.rsplit(".", 1)
        if words[module].endswith("qkv") and grouped:
            y = x.reshape(kv, rep + 2, dim, *x.shape[1:])
            x = np.concatenate([y[:, :rep].reshape(-1, *x.shape[1:]), y[:, rep].reshape(-1, *x.shape[1:]), y[:, rep + 1].reshape(-1, *x.shape[1:])])
        out.append((f"{words[module]}.{ending}", "F32", x.shape, np.ascontiguousarray(x)))
    sizes = {"block_count": LAYERS, "embedding_length": HIDDEN, "attention.head_count": HEADS, "attention.head_count_kv": kv, "context_length": 64, "feed_forward_length": 4 * HIDDEN}
    values = {**sizes, "attention.layer_norm_epsilon": 1e-5, **keys}
    return [("general.architecture", "string", arch)] + [(f"{arch}.{k}", "u32" if isinstance(v, int) else "f32", v) for k, v in values.items()] + list(more), out


RMS_KEY = {"attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 10000.0}


def gguf_cases():
    """{name: (case, keys, tensors)}"""
    dim = HIDDEN // HEADS
    made = {n: case(n) for n in ("llama", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gpt2", "phi3")}
    made["gemma3"] = gemma3("gemma3", 13, 12)
    made["qwen2_moe"] = qwen2_moe("qwen2_moe", 17, ())  # llama.cpp has no dense layers here
    made["gemma2"] = gemma2("gemma2", 12, 12)  # files do not say the scalar: it is that of a head
    neox, bloom, falcon = case("gpt_neox"), case("bloom"), case("falcon")
    return {
        "gpt_neox": (neox, *gguf_with_bias(neox, NEOX, "gptneox", {"rope.dimension_count": 4, "rope.freq_base": 10000.0}, head="embed_out", grouped=True,
                                           more=[("gptneox.use_parallel_residual", "bool", True)])),
        "bloom": (bloom, *gguf_with_bias(bloom, BLOOM, "bloom", {}, grouped=True)),
        "falcon": (falcon, *gguf_with_bias(falcon, BLOOM, "falcon", {"rope.freq_base": 10000.0, "rope.dimension_count": dim}, kv=1)),
        "llama": (made["llama"], *gguf(made["llama"], "llama", {**RMS_KEY, "rope.dimension_count": dim}, permute=True)),
        "mixtral": (made["mixtral"], *gguf(made["mixtral"], "llama", {**RMS_KEY, "rope.dimension_count": dim, "expert_count": 4, "expert_used_count": 2}, permute=True)),
        "qwen2": (made["qwen2"], *gguf(made["qwen2"], "qwen2", RMS_KEY)),
        "qwen2_moe": (made["qwen2_moe"], *gguf(made["qwen2_moe"], "qwen2moe", {**RMS_KEY, "expert_count": 5, "expert_used_count": 2})),
        "gemma2": (made["gemma2"], *gguf(made["gemma2"], "gemma2", {**RMS_KEY, "attention.key_length": 12, "attention.value_length": 12, "attention.sliding_window": 5,
                                                                      "attn_logit_softcapping": 4.0, "final_logit_softcapping": 6.0}, plus_one=True, post_norms=True)),
        "gemma3": (made["gemma3"], *gguf(made["gemma3"], "gemma3", {"block_count": 7, "attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 1e6, "attention.key_length": 12,
                                                                      "attention.value_length": 12, "attention.sliding_window": 5, "rope.scaling.factor": 8.0},
                                         plus_one=True, post_norms=True, more=[("gemma3.rope.scaling.type", "string", "linear")])),
        "qwen3": (made["qwen3"], *gguf(made["qwen3"], "qwen3", {**RMS_KEY, "attention.key_length": 12, "attention.value_length": 12})),
        "qwen3_moe": (made["qwen3_moe"], *gguf(made["qwen3_moe"], "qwen3moe", {**RMS_KEY, "attention.key_length": dim, "attention.value_length": dim, "expert_count": 5,
                                                                                 "expert_used_count": 3})),
        "gpt2": (made["gpt2"], *gguf(made["gpt2"], "gpt2", {"attention.layer_norm_epsilon": 1e-5, "attention.head_count_kv": HEADS}, transposed=True)),
        "phi3": (made["phi3"], *gguf(made["phi3"], "phi3", {**RMS_KEY, "rope.dimension_count": 4, "attention.sliding_window": 5})),
    }


def self_check():
    assert np.allclose(rms(np.array([3.0, 4.0]), 1.0, 0.0), [0.848528, 1.131371], atol=1e-6)
    assert np.allclose(softmax(np.array([0.0, math.log(3)])), [0.25, 0.75])
    assert np.allclose(layer_norm(np.array([1.0, 3.0]), 1.0, 0.5, 0.0), [-0.5, 1.5])
    assert abs(silu(np.array(1.0)) - 0.731059) < 1e-6 and abs(gelu(np.array(1.0)) - 0.841345) < 1e-6 and abs(gelu_tanh(np.array(1.0)) - 0.841192) < 1e-6
    x = turned(np.array([[[1.0, 0.0]], [[1.0, 0.0]]]), np.array([1.0]))
    assert np.allclose(x[1, 0], [math.cos(1), math.sin(1)])
    rows = np.arange(8.0).reshape(8, 1)
    assert permuted(rows, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-check"]:
        self_check()
        print("forward_oracle: fine")
    else:
        sys.exit(__doc__)
