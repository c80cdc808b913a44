"""GGUF files for the tests: the bundled model as llama.cpp wants it, and models of random weights in any shape a mix may meet.

What it is
  write_tiny     tests/data/tiny-llama as GGUF, architecture llama: names, metadata and the byte tokenizer. Rotary embedding pairs
                 neighbours there and halves in the Hugging Face layout, so the rows of q and k change places, head by head:
                     row 2 i + h of the file = row h * d/2 + i of the source, h = 0, 1, i = 0 .. d/2 - 1, d numbers a head
  write_random   an untrained model with chosen architecture, layers, heads, experts and row length. It has few rows: quantisers and
                 mixes look at row lengths, names and metadata alone. No program could run it.

Both are written with the gguf package, which shares nothing with llmq.

Worked number
  Head of d = 32: row 3 = 2 * 1 + 1 of the file is row 1 * 16 + 1 = 17 of the source.
"""

import json
import os

import gguf
import numpy as np
from safetensors.torch import load_file

from peers_support import TINY, ordinary_weights

NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
TOP_NAMES = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
MERGE = "\u0100 \u0100"  # an empty list is refused; two NUL bytes have no token of their own, so this one changes nothing
FILE_TYPES = {"F32": gguf.LlamaFileType.ALL_F32, "F16": gguf.LlamaFileType.MOSTLY_F16, "BF16": gguf.LlamaFileType.MOSTLY_BF16}


def gguf_name(name):
    """Name of a tensor of the Hugging Face layout."""
    if name in TOP_NAMES:
        return TOP_NAMES[name]
    layer, rest = name.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def interleave(rows, heads):
    """Rows of q or k from halves to neighbours."""
    return np.ascontiguousarray(rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2)).reshape(rows.shape)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tensor(writer, name, x, dtype):
    """Norms and other vectors stay F32, as in every GGUF."""
    if dtype == "F32" or x.ndim == 1:
        writer.add_tensor(name, x)
    elif dtype == "F16":
        writer.add_tensor(name, x.astype(np.float16))
    else:
        kind = gguf.GGMLQuantizationType[dtype]
        writer.add_tensor(name, gguf.quants.quantize(x, kind), raw_dtype=kind)


def write_tiny(path, dtype="F32"):
    """The bundled model with matrices in F32, F16 or BF16 (its own type)."""
    with open(os.path.join(TINY, "config.json")) as f:
        config = json.load(f)
    with open(os.path.join(TINY, "tokenizer.json")) as f:
        vocabulary = json.load(f)["model"]["vocab"]
    vocabulary = dict(vocabulary, **{"<s>": 256, "</s>": 257})
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny-llama")
    writer.add_file_type(FILE_TYPES[dtype])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads["q_proj"])
    writer.add_head_count_kv(heads["k_proj"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(sorted(vocabulary, key=vocabulary.get))
    writer.add_token_types([gguf.TokenType.CONTROL if i >= 256 else gguf.TokenType.NORMAL for i in range(len(vocabulary))])
    writer.add_token_merges([MERGE])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_add_bos_token(True)
    for name, tensor in load_file(os.path.join(TINY, "model.safetensors")).items():
        x = tensor.float().numpy()
        part = name.split(".")[-2]
        add_tensor(writer, gguf_name(name), interleave(x, heads[part]) if part in heads else x, dtype)
    finish(writer)
    return path


# --- random models ----------------------------------------------------------------------------------------------------

SEPARATE = ("attn_q", "attn_k", "attn_v", "attn_output")
ATTENTION = {"falcon": ("attn_qkv", "attn_output"), "gptneox": ("attn_qkv", "attn_output"),
             "deepseek2": ("attn_q_a", "attn_q_b", "attn_kv_a_mqa", "attn_kv_b", "attn_output")}
UNGATED = ("falcon", "gptneox")


def layer_tensors(arch, experts, cols, ffn):
    """{name in its layer: shape as numpy sees it}; the last size is the row length."""
    shapes = {f"{name}.weight": (4, cols) for name in ATTENTION.get(arch, SEPARATE)}
    shapes |= {"attn_norm.weight": (cols,), "ffn_norm.weight": (cols,), "attn_output.bias": (cols,)}
    parts = {"ffn_up": cols, "ffn_down": ffn} | ({} if arch in UNGATED else {"ffn_gate": cols})
    if experts:
        shapes |= {f"{name}_exps.weight": (experts, 2, size) for name, size in parts.items()} | {"ffn_gate_inp.weight": (experts, cols)}
    if not experts or arch == "deepseek2":
        shapes |= {f"{name}{'_shexp' if experts else ''}.weight": (4, size) for name, size in parts.items()}
    return shapes


def write_random(path, arch="llama", layers=16, heads=8, kv_heads=8, cols=256, ffn=256, experts=0, head=True, dtype="F32", seed=1):
    """cols and ffn: row lengths of ffn_down and of all others; head: with output.weight."""
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name(f"random {arch}")
    writer.add_file_type(FILE_TYPES[dtype])
    writer.add_vocab_size(8)
    writer.add_context_length(64)
    writer.add_embedding_length(cols)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_layer_norm_eps(1e-5)
    writer.add_parallel_residual(True)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(2)
    if arch == "deepseek2":
        writer.add_q_lora_rank(4)
        writer.add_kv_lora_rank(4)
        writer.add_expert_shared_count(1)
        writer.add_expert_feed_forward_length(ffn)
    shapes = {"token_embd.weight": (8, cols), "output_norm.weight": (cols,)} | ({"output.weight": (8, cols)} if head else {})
    for i in range(layers):
        shapes |= {f"blk.{i}.{name}": shape for name, shape in layer_tensors(arch, experts, cols, ffn).items()}
    for i, (name, shape) in enumerate(shapes.items()):
        add_tensor(writer, name, ordinary_weights(int(np.prod(shape[:-1])), shape[-1], seed + i).reshape(shape), dtype)
    finish(writer)
    return path


def write_matrices(path, matrices):
    """A llama of as many layers as there are matrices {anything: float32 rows x cols}; matrix i is ffn_up of layer i."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(len(matrices))
    for i, x in enumerate(matrices.values()):
        writer.add_tensor(f"blk.{i}.ffn_up.weight", x)
    finish(writer)
    return path
