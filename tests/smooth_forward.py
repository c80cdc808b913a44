"""Dense forward passes in binary64, one an architecture, from the models' definitions: tokens to logits, no cache, nothing of our C.

What it is
  FORWARD[arch](config, weights, tokens) -> logits [n_tokens, vocab]; weights: {Hugging Face name: binary64 array}

Formula
  x = embed(t);  per layer x += attention(norm(x)), x += mlp(norm(x)) (parallel: both of the same x);  logits = head(norm(x))

Why this way
  Migration changes no function: the same pass over the folded tensors must give the same logits. The pass knows no groups, so it cannot share their
  mistakes. Every architecture is written out where it differs, for reading beside its original.

Corner cases
  Query head h uses value head h // rep. Routers choose their experts by value: ties do not occur in random weights.

Worked number
  RMS norm of (3, 4) with gain (1, 2): 3 / 3.5355, 8 / 3.5355.
"""
import numpy as np


def rms(x, gain, eps=1e-5):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * gain


def layer_norm(x, gain, bias, eps=1e-5):
    d = x - x.mean(-1, keepdims=True)
    return d / np.sqrt((d * d).mean(-1, keepdims=True) + eps) * gain + bias


def linear(w, name, x):
    y = x @ w[name + ".weight"].T
    return y + w[name + ".bias"] if name + ".bias" in w else y


def conv1d(w, name, x):
    return x @ w[name + ".weight"] + w[name + ".bias"]


def silu(x):
    return x / (1.0 + np.exp(-x))


def gelu_tanh(x):
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))


def gelu(x):
    """By the error function (Abramowitz 7.1.26 would be too coarse: math.erf a value)."""
    import math
    return 0.5 * x * (1.0 + np.vectorize(math.erf)(x / np.sqrt(2.0)))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def rotate(x, theta=10000.0, n=None):
    """Rotary positions on the first n of every head's numbers, halves paired. x: [T, heads, hd]"""
    n = n or x.shape[-1]
    angle = np.arange(len(x))[:, None] * theta**(-np.arange(0, n, 2) / n)[None, :]
    c, s = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
    a, b = x[..., :n // 2], x[..., n // 2:n]
    return np.concatenate([a * c - b * s, b * c + a * s, x[..., n:]], -1)


def attend(q, k, v, scale, window=None, softcap=None, sinks=None, slopes=None):
    """q [T, heads, hd], k and v [T, kv, ..]: [T, heads * vd]"""
    n, rep = len(q), q.shape[1] // k.shape[1]
    out = []
    for h in range(q.shape[1]):
        scores = q[:, h] @ k[:, h // rep].T * scale
        if softcap:
            scores = softcap * np.tanh(scores / softcap)
        if slopes is not None:
            scores = scores + slopes[h] * np.arange(n)[None, :]
        i, j = np.arange(n)[:, None], np.arange(n)[None, :]
        scores = np.where((j <= i) & ((i - j < window) if window else True), scores, -np.inf)
        if sinks is not None:
            scores = np.concatenate([scores, np.full((n, 1), sinks[h])], 1)
        out.append(softmax(scores)[:, :n] @ v[:, h // rep])
    return np.concatenate(out, 1)


def heads(x, hd):
    return x.reshape(len(x), -1, hd)


def gated(w, p, x, act=silu, names=("gate_proj", "up_proj", "down_proj")):
    return linear(w, p + names[2], act(linear(w, p + names[0], x)) * linear(w, p + names[1], x))


def self_attention(c, w, p, x, theta=10000.0, q_norm=None, scale=None, **kwargs):
    """Separate q, k, v, o under p; q_norm(name, heads) norms the heads of q and k."""
    hd = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    q, k, v = (heads(linear(w, p + n, x), hd) for n in ("q_proj", "k_proj", "v_proj"))
    if q_norm:
        q, k = q_norm(p + "q_norm", q), q_norm(p + "k_norm", k)
    return linear(w, p + "o_proj", attend(rotate(q, theta), rotate(k, theta), v, scale or hd**-0.5, **kwargs))


def head_of(w, x, embed="model.embed_tokens.weight", head="lm_head.weight"):
    return x @ w.get(head, w[embed]).T


# ---- architectures -------------------------------------------------------------------------------------------------------------------


def llama(c, w, tokens):
    x = w["model.embed_tokens.weight"][tokens]
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        norm = (lambda name, y: rms(y, w[name + ".weight"])) if p + "self_attn.q_norm.weight" in w else None
        x = x + self_attention(c, w, p + "self_attn.", rms(x, w[p + "input_layernorm.weight"]), q_norm=norm)
        x = x + gated(w, p + "mlp.", rms(x, w[p + "post_attention_layernorm.weight"]))
    return head_of(w, rms(x, w["model.norm.weight"]))


def gemma(c, w, tokens):
    def norm(name, y):
        return rms(y, 1.0 + w[name + ".weight"])

    version, x = c["gemma"], w["model.embed_tokens.weight"][tokens] * np.sqrt(c["hidden_size"])
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        local = version > 1 and i % 2 == 0
        y = self_attention(c, w, p + "self_attn.", norm(p + "input_layernorm", x), q_norm=norm if version == 3 else None, window=6 if local else None,
                           scale=c["query_pre_attn_scalar"]**-0.5 if version > 1 else None, softcap=c.get("attn_logit_softcapping"))
        x = x + (norm(p + "post_attention_layernorm", y) if version > 1 else y)
        y = gated(w, p + "mlp.", norm(p + ("pre_feedforward_layernorm" if version > 1 else "post_attention_layernorm"), x), gelu_tanh)
        x = x + (norm(p + "post_feedforward_layernorm", y) if version > 1 else y)
    y = head_of(w, norm("model.norm", x))
    return 30.0 * np.tanh(y / 30.0) if version == 2 else y


def phi3(c, w, tokens):
    n, kv = c["num_attention_heads"], c["num_key_value_heads"]
    hd, x = c["hidden_size"] // n, w["model.embed_tokens.weight"][tokens]
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        y = linear(w, p + "self_attn.qkv_proj", rms(x, w[p + "input_layernorm.weight"]))
        q, k, v = (heads(part, hd) for part in np.split(y, [n * hd, (n + kv) * hd], 1))
        x = x + linear(w, p + "self_attn.o_proj", attend(rotate(q), rotate(k), v, hd**-0.5))
        gate, up = np.split(linear(w, p + "mlp.gate_up_proj", rms(x, w[p + "post_attention_layernorm.weight"])), 2, 1)
        x = x + linear(w, p + "mlp.down_proj", up * silu(gate))
    return head_of(w, rms(x, w["model.norm.weight"]))


def opt(c, w, tokens):
    def norm(name, y):
        return layer_norm(y, w[name + ".weight"], w[name + ".bias"])

    d = "model.decoder."
    hd, before = c["hidden_size"] // c["num_attention_heads"], c["do_layer_norm_before"]
    act = {"relu": lambda y: np.maximum(y, 0.0), "gelu": gelu}[c["activation_function"]]
    x = w[d + "embed_tokens.weight"][tokens] + w[d + "embed_positions.weight"][2 + np.arange(len(tokens))]
    for i in range(c["num_hidden_layers"]):
        p = f"{d}layers.{i}."
        y = norm(p + "self_attn_layer_norm", x) if before else x
        q, k, v = (heads(linear(w, p + "self_attn." + n, y), hd) for n in ("q_proj", "k_proj", "v_proj"))
        x = x + linear(w, p + "self_attn.out_proj", attend(q, k, v, hd**-0.5))
        if not before:
            x = norm(p + "self_attn_layer_norm", x)
        y = norm(p + "final_layer_norm", x) if before else x
        x = x + linear(w, p + "fc2", act(linear(w, p + "fc1", y)))
        if not before:
            x = norm(p + "final_layer_norm", x)
    return (norm(d + "final_layer_norm", x) if before else x) @ w[d + "embed_tokens.weight"].T


def gpt2(c, w, tokens):
    def norm(name, y):
        return layer_norm(y, w[name + ".weight"], w[name + ".bias"])

    t, hd = c["prefix"], c["n_embd"] // c["n_head"]
    x = w[t + "wte.weight"][tokens] + w[t + "wpe.weight"][np.arange(len(tokens))]
    for i in range(c["n_layer"]):
        p = f"{t}h.{i}."
        q, k, v = (heads(part, hd) for part in np.split(conv1d(w, p + "attn.c_attn", norm(p + "ln_1", x)), 3, 1))
        x = x + conv1d(w, p + "attn.c_proj", attend(q, k, v, hd**-0.5))
        x = x + conv1d(w, p + "mlp.c_proj", gelu_tanh(conv1d(w, p + "mlp.c_fc", norm(p + "ln_2", x))))
    return norm(t + "ln_f", x) @ w[t + "wte.weight"].T


def bloom(c, w, tokens):
    def norm(name, y):
        return layer_norm(y, w[name + ".weight"], w[name + ".bias"])

    t, n, after = c["prefix"], c["n_head"], c["apply_residual_connection_post_layernorm"]
    hd, slopes = c["hidden_size"] // n, 2.0**(-8.0 * np.arange(1, n + 1) / n)
    x = norm(t + "word_embeddings_layernorm", w[t + "word_embeddings.weight"][tokens])
    for i in range(c["n_layer"]):
        p = f"{t}h.{i}."
        y = norm(p + "input_layernorm", x)
        qkv = linear(w, p + "self_attention.query_key_value", y).reshape(len(x), n, 3, hd)
        x = (y if after else x) + linear(w, p + "self_attention.dense", attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], hd**-0.5, slopes=slopes))
        y = norm(p + "post_attention_layernorm", x)
        x = (y if after else x) + linear(w, p + "mlp.dense_4h_to_h", gelu_tanh(linear(w, p + "mlp.dense_h_to_4h", y)))
    return norm(t + "ln_f", x) @ w[t + "word_embeddings.weight"].T


def gpt_neox(c, w, tokens):
    def norm(name, y):
        return layer_norm(y, w[name + ".weight"], w[name + ".bias"])

    n, x = c["num_attention_heads"], w["gpt_neox.embed_in.weight"][tokens]
    hd = c["hidden_size"] // n
    for i in range(c["num_hidden_layers"]):
        p = f"gpt_neox.layers.{i}."
        qkv = linear(w, p + "attention.query_key_value", norm(p + "input_layernorm", x)).reshape(len(x), n, 3 * hd)
        q, k, v = np.split(qkv, 3, 2)
        part = int(hd * c["rotary_pct"])
        y = linear(w, p + "attention.dense", attend(rotate(q, n=part), rotate(k, n=part), v, hd**-0.5))
        behind = x if c["use_parallel_residual"] else x + y
        x = x + y + linear(w, p + "mlp.dense_4h_to_h", gelu(linear(w, p + "mlp.dense_h_to_4h", norm(p + "post_attention_layernorm", behind))))
    return linear(w, "embed_out", norm("gpt_neox.final_layer_norm", x))


def falcon(c, w, tokens):
    def norm(name, y):
        return layer_norm(y, w[name + ".weight"], w[name + ".bias"])

    n, new = c["num_attention_heads"], c["new_decoder_architecture"]
    kv, hd = c["num_kv_heads"] if new else 1, c["hidden_size"] // n
    x = w["transformer.word_embeddings.weight"][tokens]
    for i in range(c["num_hidden_layers"]):
        p = f"transformer.h.{i}."
        a, b = (norm(p + "ln_attn", x), norm(p + "ln_mlp", x)) if new else (norm(p + "input_layernorm", x),) * 2
        qkv = linear(w, p + "self_attention.query_key_value", a).reshape(len(x), kv, n // kv + 2, hd)
        q = qkv[:, :, :-2].reshape(len(x), n, hd)
        y = linear(w, p + "self_attention.dense", attend(rotate(q), rotate(qkv[:, :, -2]), qkv[:, :, -1], hd**-0.5))
        x = x + y + linear(w, p + "mlp.dense_4h_to_h", gelu(linear(w, p + "mlp.dense_h_to_4h", b)))
    return norm("transformer.ln_f", x) @ w["transformer.word_embeddings.weight"].T


def starcoder2(c, w, tokens):
    def norm(name, y):
        return layer_norm(y, w[name + ".weight"], w[name + ".bias"])

    x = w["model.embed_tokens.weight"][tokens]
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        x = x + self_attention(c, w, p + "self_attn.", norm(p + "input_layernorm", x))
        x = x + linear(w, p + "mlp.c_proj", gelu_tanh(linear(w, p + "mlp.c_fc", norm(p + "post_attention_layernorm", x))))
    return head_of(w, norm("model.norm", x))


def olmo2(c, w, tokens):
    x = w["model.embed_tokens.weight"][tokens]
    hd = c["hidden_size"] // c["num_attention_heads"]
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        a = p + "self_attn."
        q, k = (heads(rms(linear(w, f"{a}{n}_proj", x), w[f"{a}{n}_norm.weight"]), hd) for n in "qk")
        y = linear(w, a + "o_proj", attend(rotate(q), rotate(k), heads(linear(w, a + "v_proj", x), hd), hd**-0.5))
        x = x + rms(y, w[p + "post_attention_layernorm.weight"])
        x = x + rms(gated(w, p + "mlp.", x), w[p + "post_feedforward_layernorm.weight"])
    return head_of(w, rms(x, w["model.norm.weight"]))


def routed(x, scores, used, run, renormalise, scale=1.0, choose_by=None):
    """sum over the chosen experts of score * run(expert, x)."""
    out = np.zeros_like(x)
    for t in range(len(x)):
        best = np.argsort(-(choose_by if choose_by is not None else scores)[t], kind="stable")[:used]
        share = scores[t, best] / scores[t, best].sum() if renormalise else scores[t, best]
        for e, s in zip(best, share):
            out[t] += scale * s * run(e, x[t:t + 1])[0]
    return out


def mixtral(c, w, tokens):
    x = w["model.embed_tokens.weight"][tokens]
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        x = x + self_attention(c, w, p + "self_attn.", rms(x, w[p + "input_layernorm.weight"]))
        y, moe = rms(x, w[p + "post_attention_layernorm.weight"]), p + "block_sparse_moe."
        x = x + routed(y, softmax(linear(w, moe + "gate", y)), 2, lambda e, z: gated(w, f"{moe}experts.{e}.", z, names=("w1", "w3", "w2")), True)
    return head_of(w, rms(x, w["model.norm.weight"]))


def qwen_moe(c, w, tokens):
    x = w["model.embed_tokens.weight"][tokens]
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        norm = (lambda name, y: rms(y, w[name + ".weight"])) if p + "self_attn.q_norm.weight" in w else None
        x = x + self_attention(c, w, p + "self_attn.", rms(x, w[p + "input_layernorm.weight"]), q_norm=norm)
        y, moe = rms(x, w[p + "post_attention_layernorm.weight"]), p + "mlp."
        if i in c["mlp_only_layers"]:
            x = x + gated(w, moe, y)
            continue
        z = routed(y, softmax(linear(w, moe + "gate", y)), c["num_experts_per_tok"], lambda e, t: gated(w, f"{moe}experts.{e}.", t), c["norm_topk_prob"])
        if moe + "shared_expert_gate.weight" in w:
            z = z + gated(w, moe + "shared_expert.", y) / (1.0 + np.exp(-linear(w, moe + "shared_expert_gate", y)))
        x = x + z
    return head_of(w, rms(x, w["model.norm.weight"]))


def deepseek(c, w, tokens):
    n, nope, rope, vd = c["num_attention_heads"], c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
    x = w["model.embed_tokens.weight"][tokens]
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        a, y = p + "self_attn.", rms(x, w[p + "input_layernorm.weight"])
        q = linear(w, a + "q_b_proj", rms(linear(w, a + "q_a_proj", y), w[a + "q_a_layernorm.weight"])) if c["q_lora_rank"] else linear(w, a + "q_proj", y)
        q = heads(q, nope + rope)
        latent = linear(w, a + "kv_a_proj_with_mqa", y)
        k_rope = rotate(latent[:, None, c["kv_lora_rank"]:])
        kv = heads(linear(w, a + "kv_b_proj", rms(latent[:, :c["kv_lora_rank"]], w[a + "kv_a_layernorm.weight"])), nope + vd)
        q = np.concatenate([q[..., :nope], rotate(q[..., nope:])], -1)
        k = np.concatenate([kv[..., :nope], np.repeat(k_rope, n, 1)], -1)
        x = x + linear(w, a + "o_proj", attend(q, k, kv[..., nope:], (nope + rope)**-0.5))
        y, moe = rms(x, w[p + "post_attention_layernorm.weight"]), p + "mlp."
        if i < c["first_k_dense_replace"]:
            x = x + gated(w, moe, y)
            continue
        scores = y @ w[moe + "gate.weight"].T
        scores = softmax(scores) if c["scoring_func"] == "softmax" else 1.0 / (1.0 + np.exp(-scores))
        choose_by = scores + w[moe + "gate.e_score_correction_bias"] if moe + "gate.e_score_correction_bias" in w else None
        x = x + routed(y, scores, 2, lambda e, t: gated(w, f"{moe}experts.{e}.", t), c["norm_topk_prob"], c["routed_scaling_factor"], choose_by)
        x = x + gated(w, moe + "shared_experts.", y)
    return head_of(w, rms(x, w["model.norm.weight"]))


def gpt_oss(c, w, tokens):
    x = w["model.embed_tokens.weight"][tokens]
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        x = x + self_attention(c, w, p + "self_attn.", rms(x, w[p + "input_layernorm.weight"]), sinks=w[p + "self_attn.sinks"], window=6 if i % 2 == 0 else None)
        y, e = rms(x, w[p + "post_attention_layernorm.weight"]), p + "mlp.experts."

        def run(number, z):
            both = z @ w[e + "gate_up_proj"][number] + w[e + "gate_up_proj_bias"][number]
            gate, up = np.minimum(both[:, ::2], 7.0), np.clip(both[:, 1::2], -7.0, 7.0)
            return ((up + 1.0) * gate / (1.0 + np.exp(-1.702 * gate))) @ w[e + "down_proj"][number] + w[e + "down_proj_bias"][number]

        scores = linear(w, p + "mlp.router", y)
        best = np.sort(scores, 1)[:, -2:].min(1, keepdims=True)
        x = x + routed(y, softmax(np.where(scores >= best, scores, -np.inf)), 2, run, False)
    return head_of(w, rms(x, w["model.norm.weight"]))


def parallel(c, w, tokens):
    p, attn, mlp, gate, out, norm, embed, last = c["places"]
    n, kv, kind = c["num_attention_heads"], c["num_key_value_heads"], c["kind"]
    hd, x = c["hidden_size"] // n, w[embed + ".weight"][tokens]
    for i in range(c["num_hidden_layers"]):
        q = p.format(i)
        y = layer_norm(x, w[q + norm + ".weight"], w.get(q + norm + ".bias", 0.0))
        a, k, v = (heads(linear(w, q + attn + name, y), hd) for name in ("q_proj", "k_proj", "v_proj"))
        part = hd if kind == "cohere" else hd // 2
        z = linear(w, q + attn + out, attend(rotate(a, n=part), rotate(k, n=part), v, hd**-0.5))
        fc = ("fc1", "fc2") if kind == "phi2" else ("fc_in", "fc_out")
        x = x + z + (gated(w, q + mlp, y) if gate else linear(w, q + mlp + fc[1], gelu_tanh(linear(w, q + mlp + fc[0], y))))
    return head_of(w, layer_norm(x, w[last + ".weight"], w.get(last + ".bias", 0.0)), embed + ".weight")


def fused(c, w, tokens):
    kind, n, kv, hd, layers, P = c["fused"]
    x = w[P[5] + ".weight"][tokens]
    if kind == "bigcode":
        x = x + w["transformer.wpe.weight"][np.arange(len(x))]

    def norm(name, y):
        if kind in ("mpt", "bigcode", "dbrx"):
            return layer_norm(y, w[name + ".weight"], w.get(name + ".bias", 0.0))
        return rms(y, w[name + ".weight"])

    for i in range(layers):
        p, norm1, qkv, o, norm2 = [P[0].format(i) + (name if k else "") for k, name in enumerate(P[:5])]
        y = linear(w, qkv, norm(norm1, x))
        if kind == "internlm2":
            y = y.reshape(len(x), kv, n // kv + 2, hd)
            q, k, v = y[:, :, :-2].reshape(len(x), n, hd), y[:, :, -2], y[:, :, -1]
        else:
            q, k, v = (heads(part, hd) for part in np.split(y, [n * hd, (n + kv) * hd], 1))
        if kind == "mpt":
            z = attend(q, k, v, hd**-0.5, slopes=2.0**(-8.0 * np.arange(1, n + 1) / n))
        else:
            z = attend(q, k, v, hd**-0.5) if kind == "bigcode" else attend(rotate(q), rotate(k), v, hd**-0.5)
        x = x + linear(w, o, z)
        y = norm(norm2, x)
        if kind in ("mpt", "bigcode"):
            up, down = ("ffn.up_proj", "ffn.down_proj") if kind == "mpt" else ("mlp.c_fc", "mlp.c_proj")
            x = x + linear(w, p + down, gelu(linear(w, p + up, y)))
        elif kind == "chatglm":
            gate, up = np.split(linear(w, p + "mlp.dense_h_to_4h", y), 2, 1)
            x = x + linear(w, p + "mlp.dense_4h_to_h", silu(gate) * up)
        elif kind == "dbrx":
            e, f = p + "ffn.experts.mlp.", c["ffn_config"]["ffn_hidden_size"]
            run = (lambda k, t: (silu(t @ w[e + "w1"][k * f:k * f + f].T) * (t @ w[e + "v1"][k * f:k * f + f].T)) @ w[e + "w2"][k * f:k * f + f])
            x = x + routed(y, softmax(linear(w, p + "ffn.router.layer", y)), 2, run, True)
        else:
            x = x + gated(w, p, y, names=("feed_forward.w1", "feed_forward.w3", "feed_forward.w2") if kind == "internlm2" else ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"))
    head = {"internlm2": "output.weight", "chatglm": "transformer.output_layer.weight"}.get(kind, "lm_head.weight")
    return head_of(w, norm(P[6], x), P[5] + ".weight", head)


def stacked(c, w, tokens):
    x = w["model.embed_tokens.weight"][tokens]
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        x = x + self_attention(c, w, p + "self_attn.", rms(x, w[p + "input_layernorm.weight"]))
        y, ffn = rms(x, w[p + "post_attention_layernorm.weight"]), c["intermediate_size"]
        if c["kind"] == "llama4":  # the score of the one expert multiplies its input
            f = p + "feed_forward."
            scores = linear(w, f + "router", y)
            z = gated(w, f + "shared_expert.", y)
            for t in range(len(x)):
                e = int(np.argmax(scores[t]))
                both = y[t] / (1.0 + np.exp(-scores[t, e])) @ w[f + "experts.gate_up_proj"][e]
                z[t] += (silu(both[:ffn]) * both[ffn:]) @ w[f + "experts.down_proj"][e]
        else:
            f = p + "block_sparse_moe."
            scores = linear(w, f + "router.layer", y)
            best = np.sort(scores, 1)[:, -2:].min(1, keepdims=True)

            def run(e, t):
                both = t @ w[f + "input_linear.weight"][e].T
                return (silu(both[:, :ffn]) * both[:, ffn:]) @ w[f + "output_linear.weight"][e].T

            z = routed(y, softmax(np.where(scores >= best, scores, -np.inf)), 2, run, False)
        x = x + z
    return head_of(w, rms(x, w["model.norm.weight"]))


def qwen3_next(c, w, tokens):
    def norm(name, y):
        return rms(y, 1.0 + w[name + ".weight"])

    x, hd = w["model.embed_tokens.weight"][tokens], c["head_dim"]
    kh, vh, kd, vd = c["linear_num_key_heads"], c["linear_num_value_heads"], c["linear_key_head_dim"], c["linear_value_head_dim"]
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        y = norm(p + "input_layernorm", x)
        if c["layer_types"][i] == "linear_attention":  # a plain decaying state stands for the delta rule: what matters is what reads what
            a = p + "linear_attn."
            parts = linear(w, a + "in_proj_qkvz", y)
            q, k, v, z = np.split(parts, np.cumsum([kh * kd, kh * kd, vh * vd]), 1)
            beta, decay = np.split(linear(w, a + "in_proj_ba", y), 2, 1)
            mixed = np.concatenate([q, k, v], 1)
            mixed = silu(sum(np.concatenate([np.zeros((3 - j, mixed.shape[1])), mixed])[:len(x)] * w[a + "conv1d.weight"][:, 0, j] for j in range(4)))
            q, k, v = (heads(t, d) for t, d in zip(np.split(mixed, [kh * kd, 2 * kh * kd], 1), (kd, kd, vd)))
            out, state = np.zeros((len(x), vh, vd)), np.zeros((vh, kd, vd))
            for t in range(len(x)):
                g = np.exp(-np.exp(w[a + "A_log"]) * np.log1p(np.exp(decay[t] + w[a + "dt_bias"])))
                for h in range(vh):
                    state[h] = state[h] * g[h] + np.outer(k[t, h // (vh // kh)], v[t, h]) / (1.0 + np.exp(-beta[t, h]))
                    out[t, h] = q[t, h // (vh // kh)] @ state[h]
            y = rms(out, w[a + "norm.weight"]) * silu(heads(z, vd))
            x = x + linear(w, a + "out_proj", y.reshape(len(x), -1))
        else:
            a = p + "self_attn."
            q, gate = np.split(linear(w, a + "q_proj", y).reshape(len(x), -1, 2 * hd), 2, 2)
            k, v = (heads(linear(w, a + n, y), hd) for n in ("k_proj", "v_proj"))
            z = attend(rotate(norm(a + "q_norm", q)), rotate(norm(a + "k_norm", k)), v, hd**-0.5)
            x = x + linear(w, a + "o_proj", z / (1.0 + np.exp(-gate.reshape(len(x), -1))))
        y, moe = norm(p + "post_attention_layernorm", x), p + "mlp."
        z = routed(y, softmax(linear(w, moe + "gate", y)), 2, lambda e, t: gated(w, f"{moe}experts.{e}.", t), True)
        x = x + z + gated(w, moe + "shared_expert.", y) / (1.0 + np.exp(-linear(w, moe + "shared_expert_gate", y)))
    return head_of(w, norm("model.norm", x))


def bitnet(c, w, tokens):
    x, hd = w["model.embed_tokens.weight"][tokens], c["hidden_size"] // c["num_attention_heads"]
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        a, y = p + "self_attn.", rms(x, w[p + "input_layernorm.weight"])
        q, k, v = (heads(linear(w, a + n, y), hd) for n in ("q_proj", "k_proj", "v_proj"))
        x = x + linear(w, a + "o_proj", rms(attend(rotate(q), rotate(k), v, hd**-0.5), w[a + "attn_sub_norm.weight"]))
        y = rms(x, w[p + "post_attention_layernorm.weight"])
        z = np.maximum(linear(w, p + "mlp.gate_proj", y), 0.0)**2 * linear(w, p + "mlp.up_proj", y)
        x = x + linear(w, p + "mlp.down_proj", rms(z, w[p + "mlp.ffn_sub_norm.weight"]))
    return head_of(w, rms(x, w["model.norm.weight"]))


FORWARD = {f.__name__: f for f in (llama, gemma, phi3, opt, gpt2, bloom, gpt_neox, falcon, starcoder2, olmo2, mixtral, qwen_moe, deepseek, gpt_oss, parallel, fused, stacked, qwen3_next, bitnet)}
