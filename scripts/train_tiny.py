#!/usr/bin/env python3
r"""Train the tiny Llama of tests/data/tiny-llama and sample tests/data/tiny-text.txt from it.

Kept for the record: it was run once, and nothing in the build or the tests runs it.
Needs torch, numpy and safetensors. See tests/data/tiny-llama/README.md for the run's figures.

  train_tiny.py --text tinystories_1000.json@0:700=0.8 --text war-and-peace.txt=0.15 \
                --text tinyshakespeare.txt=0.05 --steps 4800 --warmup 150 --batch 4 --lr 2.5e-3 --bf16 \
                --ckpt tiny.pt --out tests/data/tiny-llama --sample tests/data/tiny-text.txt

Each --text is PATH[@FIRST:LAST][=WEIGHT]: a .json list of strings (one document each; FIRST:LAST
takes a slice of it) or plain text, which is cut at blank lines into documents of about 1500 bytes.
WEIGHT is the share of training windows from that text. Every 25th document is held out of training
for the validation figure. With --ckpt an interrupted run goes on where it stopped.
"""
import argparse, json, math, os, re, time
import numpy as np
import torch, torch.nn as nn, torch.nn.functional as F
from safetensors.torch import save_file

HIDDEN, LAYERS, HEADS, KV, DIM, FFN, CTX, THETA, EPS = 256, 3, 8, 4, 32, 352, 512, 10000.0, 1e-5
BOS, EOS, VOCAB = 256, 257, 258


# ---- model: module names are those of the Hugging Face checkpoint --------------------------------
class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(HIDDEN))

    def forward(self, x):
        return F.rms_norm(x, (HIDDEN,), self.weight, EPS)


def linear(n_in, n_out):
    return nn.Linear(n_in, n_out, bias=False)


def rope(x, cos, sin):  # half-split pairs: (i, i + DIM/2)
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.o_proj = linear(HIDDEN, HEADS * DIM), linear(HEADS * DIM, HIDDEN)
        self.k_proj, self.v_proj = linear(HIDDEN, KV * DIM), linear(HIDDEN, KV * DIM)

    def forward(self, x, cos, sin, cache):
        B, T, _ = x.shape
        q = rope(self.q_proj(x).view(B, T, HEADS, DIM).transpose(1, 2), cos, sin)
        k = rope(self.k_proj(x).view(B, T, KV, DIM).transpose(1, 2), cos, sin)
        v = self.v_proj(x).view(B, T, KV, DIM).transpose(1, 2)
        if cache is not None:
            if "k" in cache:
                k, v = torch.cat((cache["k"], k), 2), torch.cat((cache["v"], v), 2)
            cache["k"], cache["v"] = k, v
        k, v = (t.repeat_interleave(HEADS // KV, 1) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=T > 1)  # T > 1 only from position 0
        return self.o_proj(y.transpose(1, 2).reshape(B, T, HEADS * DIM))


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = linear(HIDDEN, FFN), linear(HIDDEN, FFN), linear(FFN, HIDDEN)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn, self.mlp = Attention(), MLP()
        self.input_layernorm, self.post_attention_layernorm = Norm(), Norm()

    def forward(self, x, cos, sin, cache):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCAB, HIDDEN)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = Norm()


class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Body()
        freq = THETA ** (-torch.arange(0, DIM, 2).float() / DIM)
        angle = torch.outer(torch.arange(CTX).float(), freq)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                out = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(p, std=0.04 / (math.sqrt(2 * LAYERS) if out else 1))

    def forward(self, ids, caches=None, pos=0):
        cos, sin = self.cos[pos:pos + ids.shape[1]], self.sin[pos:pos + ids.shape[1]]
        x = self.model.embed_tokens(ids)
        for i, layer in enumerate(self.model.layers):
            x = layer(x, cos, sin, caches[i] if caches else None)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)


# ---- text ----------------------------------------------------------------------------------------
def ascii_text(s):
    """The stories hold some typographic quotes and dashes, many of them UTF-8 once read as cp1252."""
    s = re.sub("\u00e2\u20ac(\u2122|\u02dc)", "'", s)
    s = re.sub("\u00e2\u20ac(\u201c|\u201d)", " - ", s)
    s = re.sub("\u00e2\u20ac\u00a6", "...", s)
    s = re.sub("\u00e2\u20ac(\u0153|\u009d)?", '"', s)
    return s.translate({0x201c: '"', 0x201d: '"', 0x2018: "'", 0x2019: "'", 0x2013: "-", 0x2014: "-", 0x2026: "..."})


class Text:
    """A text's documents; the training part as one token stream, BOS document EOS BOS ..."""

    def __init__(self, spec):
        path, first, last, weight = re.fullmatch(r"(.+?)(?:@(\d+):(\d+))?(?:=([\d.]+))?", spec).groups()
        raw = open(path, encoding="utf-8").read()
        if path.endswith(".json"):
            docs = json.loads(raw)
        else:
            docs = [""]
            for para in raw.split("\n\n"):
                if len(docs[-1]) > 1500:
                    docs.append("")
                docs[-1] += ("\n\n" if docs[-1] else "") + para
        docs = docs[int(first):int(last)] if first else docs
        docs = [list(ascii_text(d.strip()).encode()) for d in docs]
        self.name, self.weight = os.path.basename(path), float(weight or 1)
        self.held = docs[24::25]
        self.docs = [d for i, d in enumerate(docs) if i % 25 != 24]
        self.bytes = sum(map(len, self.docs))
        self.starts = np.cumsum([0] + [len(d) + 2 for d in self.docs[:-1]])
        stream = [t for d in self.docs for t in [BOS, *d, EOS]]
        self.stream = torch.tensor(stream + stream[:CTX + 1])  # wraps round

    def window(self, rng, n):
        """n + 1 tokens: half the windows begin with a document, half anywhere."""
        at = int(rng.choice(self.starts) if rng.random() < 0.5 else rng.integers(len(self.stream) - CTX - 1))
        return self.stream[at:at + n + 1]


@torch.no_grad()
def bits_per_byte(model, docs):
    """Each document alone after BOS; windows of CTX, which after the first score their last half."""
    nats = 0.0
    for d in docs:
        ids, done = torch.tensor([BOS, *d]), 0
        while done < len(d):
            begin = 0 if done == 0 else done - CTX // 2
            x = ids[begin:begin + CTX + 1]
            loss = F.cross_entropy(model(x[None, :-1])[0].float(), x[1:], reduction="none")
            nats += loss[done - begin:].double().sum().item()
            done = begin + len(x) - 1
    return nats / math.log(2) / sum(map(len, docs))


# ---- training ------------------------------------------------------------------------------------
def batch(texts, a, step):
    rng = np.random.default_rng([a.seed, step])  # a function of the step: a resumed run sees the same data
    w = np.array([t.weight for t in texts])
    rows = [texts[i].window(rng, a.seq) for i in rng.choice(len(texts), a.batch, p=w / w.sum())]
    b = torch.stack(rows)
    return b[:, :-1], b[:, 1:]


def train(model, texts, a):
    mats = [p for p in model.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if p.dim() != 2]
    opt = torch.optim.AdamW([{"params": mats, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
                            lr=a.lr, betas=(0.9, 0.95), fused=True)
    step, spent, mean = 0, 0.0, None
    if a.ckpt and os.path.exists(a.ckpt):
        c = torch.load(a.ckpt)
        model.load_state_dict(c["model"]); opt.load_state_dict(c["opt"])
        step, spent, mean = c["step"], c["spent"], c["mean"]
        print("resumed at step", step, flush=True)

    def save():
        if a.ckpt:
            torch.save({"model": model.state_dict(), "opt": opt.state_dict(), "step": step,
                        "mean": mean, "spent": spent + time.time() - begin}, a.ckpt + ".new")
            os.replace(a.ckpt + ".new", a.ckpt)

    run = torch.compile(model) if a.compile else model
    begin = time.time()
    while step < a.steps:
        t = (step - a.warmup) / max(1, a.steps - a.warmup)
        lr = a.lr * ((step + 1) / a.warmup if t < 0 else 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * t)))
        for g in opt.param_groups:
            g["lr"] = lr
        x, y = batch(texts, a, step)
        with torch.autocast("cpu", torch.bfloat16, enabled=a.bf16):
            loss = F.cross_entropy(run(x).float().flatten(0, 1), y.flatten())
        opt.zero_grad(); loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        step += 1
        mean = loss.item() if mean is None else 0.97 * mean + 0.03 * loss.item()
        if step % 20 == 0:
            print(f"step {step}/{a.steps} loss {mean:.4f} lr {lr:.2e} {spent + time.time() - begin:.0f}s", flush=True)
        if step % 100 == 0 or step == a.steps:
            save()
        if step % 1000 == 0:
            print("held out, bits per byte:",
                  *(f"{t.name} {bits_per_byte(model, t.held[:14]):.4f}" for t in texts), flush=True)
    return mean, spent + time.time() - begin


# ---- output --------------------------------------------------------------------------------------
def byte_symbols():
    """GPT-2's printable stand-in for each byte, in byte order."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = iter(range(256, 512))
    return [chr(b if b in keep else next(other)) for b in range(256)]


def write_model(model, out):
    def put(name, obj):
        with open(os.path.join(out, name), "w", encoding="utf-8") as f:
            f.write(json.dumps(obj, indent=2, ensure_ascii=False) + "\n")

    os.makedirs(out, exist_ok=True)
    tensors = {k: v.detach().to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
    put("config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False,
        "attention_dropout": 0.0, "bos_token_id": BOS, "eos_token_id": EOS, "head_dim": DIM,
        "hidden_act": "silu", "hidden_size": HIDDEN, "initializer_range": 0.04, "intermediate_size": FFN,
        "max_position_embeddings": CTX, "mlp_bias": False, "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS, "num_key_value_heads": KV, "pretraining_tp": 1, "rms_norm_eps": EPS,
        "rope_scaling": None, "rope_theta": THETA, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "use_cache": True, "vocab_size": VOCAB})
    put("generation_config.json", {"bos_token_id": BOS, "eos_token_id": EOS, "do_sample": True, "temperature": 0.7})
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    put("special_tokens_map.json", special)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    put("tokenizer_config.json", {
        **special, "add_bos_token": True, "add_eos_token": False, "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {str(i): {"content": s, **flags} for i, s in ((BOS, "<s>"), (EOS, "</s>"))},
        "model_max_length": CTX, "tokenizer_class": "PreTrainedTokenizerFast"})
    # ByteLevel with its own regex is GPT-2's pre-tokenizer; without merges every byte is a token anyway.
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    put("tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": s, **flags} for i, s in ((BOS, "<s>"), (EOS, "</s>"))],
        "normalizer": None, "pre_tokenizer": level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": "<s>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BOS], "tokens": ["<s>"]}}},
        "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {s: i for i, s in enumerate(byte_symbols())}, "merges": []}})


@torch.no_grad()
def sample(model, rows, limit, temperature, seed):
    """Documents that came to their end within the limit; a full context goes on from its last half."""
    gen = torch.Generator().manual_seed(seed)
    ids = torch.full((rows, 1), BOS)
    held, caches = 0, [{} for _ in range(LAYERS)]
    while ids.shape[1] <= limit:
        if held == CTX:
            held, caches = 0, [{} for _ in range(LAYERS)]
        new = ids[:, -1:] if held else ids[:, -CTX // 2:]
        logits = model(new, caches, held)[:, -1]
        held += new.shape[1]
        ids = torch.cat((ids, torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=gen)), 1)
    rows = (r[1:] for r in ids.tolist())
    return [bytes(r[:r.index(EOS)]) for r in rows if EOS in r and BOS not in r[:r.index(EOS)]]


def sample_text(model, a):
    """ASCII documents of 300 to 1200 bytes, blank lines only between them, until there are 7000 bytes."""
    text, seed = "", a.seed
    while len(text) < 7000:
        for d in sample(model, 16, 1200, a.temperature, seed):
            if len(d) >= 300 and d.isascii() and len(text) < 7000:
                text += re.sub(r"\s*\n\s*", "\n", d.decode().strip()) + "\n\n"
        seed += 1
    return text[:-1]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--text", action="append", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--sample")
    p.add_argument("--ckpt")
    p.add_argument("--steps", type=int, default=4800)
    p.add_argument("--warmup", type=int, default=150)
    p.add_argument("--batch", type=int, default=4)
    p.add_argument("--seq", type=int, default=CTX)
    p.add_argument("--lr", type=float, default=2.5e-3)
    p.add_argument("--temperature", type=float, default=0.7)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--bf16", action="store_true", help="bfloat16 autocast in training")
    p.add_argument("--compile", action="store_true", help="torch.compile in training")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(a.seed)
    texts = [Text(s) for s in a.text]
    model = Llama()
    print("parameters", sum(q.numel() for q in model.parameters()))
    for t in texts:
        print(f"{t.name}: {len(t.docs)} documents, {t.bytes} bytes;",
              f"held out {len(t.held)}, {sum(map(len, t.held))} bytes")
    loss, seconds = train(model, texts, a)
    print(f"final loss {loss:.4f} nats per token, {a.steps * a.batch * a.seq} tokens, {seconds:.0f} s")
    for q in model.parameters():  # from here on the model as it is stored
        q.data = q.data.to(torch.bfloat16).float()
    model.eval()
    for t in texts:
        print(f"held out, as stored: {t.name} {bits_per_byte(model, t.held):.4f} bits per byte")
    write_model(model, a.out)
    if a.sample:
        with open(a.sample, "w", encoding="ascii") as f:
            f.write(sample_text(model, a))


if __name__ == "__main__":
    main()
