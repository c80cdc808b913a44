"""What llmq can write into a GGUF file, and what ggml does in its place: names, types, options, fallbacks, recipes.

What it is
  TYPES     --format NAME -> type of gguf, block
  RECIPES   --recipe NAME -> file type of llama.cpp

Worked number
  A row of 352 = 11 * 32 is no multiple of 256: q4_k falls back to q5_0. A row of 172 = 5 * 32 + 12 goes on to f16.
"""

import gguf

Type = gguf.GGMLQuantizationType
File = gguf.LlamaFileType

TYPES = {name: Type[name.upper()] for name in (
    "f32", "bf16", "f16", "q8_0", "q6_k", "q5_1", "q5_0", "q5_k", "q4_1", "q4_0", "q4_k", "iq4_nl", "iq4_xs", "q3_k", "q2_k", "mxfp4", "nvfp4")}
PLAIN = {Type.F32, Type.F16, Type.BF16}
FALLBACKS = {Type.Q2_K: Type.Q4_0, Type.Q3_K: Type.Q4_0, Type.Q4_K: Type.Q5_0, Type.Q5_K: Type.Q5_1, Type.Q6_K: Type.Q8_0, Type.IQ4_XS: Type.IQ4_NL}
NO_FALLBACK = {Type.NVFP4}  # ggml refuses; what llmq does instead is its own affair

RECIPES = {"q2_k": File.MOSTLY_Q2_K, "q3_k_s": File.MOSTLY_Q3_K_S, "q3_k_m": File.MOSTLY_Q3_K_M, "q3_k_l": File.MOSTLY_Q3_K_L, "q4_0": File.MOSTLY_Q4_0,
           "q4_k_s": File.MOSTLY_Q4_K_S, "q4_k_m": File.MOSTLY_Q4_K_M, "q5_k_s": File.MOSTLY_Q5_K_S, "q5_k_m": File.MOSTLY_Q5_K_M, "q6_k": File.MOSTLY_Q6_K,
           "q8_0": File.MOSTLY_Q8_0, "iq4_nl": File.MOSTLY_IQ4_NL, "iq4_xs": File.MOSTLY_IQ4_XS}


def options(name, rule="reference"):
    """Options of `llmq convert` for that type. With the rule reference the bytes are ggml's."""
    if TYPES[name] in PLAIN:
        return ["--format", name]
    return ["--format", name, "--scale-rule", rule] + (["--nvfp4-scale", "none"] if name == "nvfp4" and rule == "reference" else [])


def stored_type(kind, row):
    """What a row of that length is stored as."""
    for _ in range(2):
        if row % gguf.GGML_QUANT_SIZES[kind][0] == 0:
            return kind
        kind = FALLBACKS.get(kind, Type.F16)
    return kind if row % gguf.GGML_QUANT_SIZES[kind][0] == 0 else Type.F16


def is_linear(tensor):
    """A weight that --format means: neither embedding nor head, norm, router or vector. tensor: of gguf.GGUFReader."""
    name = tensor.name
    return (name.startswith("blk.") and name.endswith(".weight") and "_norm." not in name and "ffn_gate_inp" not in name and sum(n > 1 for n in tensor.shape) > 1)
