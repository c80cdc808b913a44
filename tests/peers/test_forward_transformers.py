"""Logits of llmq's forward pass against transformers, on random tiny models of every architecture that configs/arch has a forward section for.

What it is
  Each case is a configuration; transformers makes the model, every parameter is drawn anew (norm gains around their neutral value, biases that are not
  0), save_pretrained writes it. `llmq eval --logits` must give the same logits in binary32, for windows shorter and longer than any sliding window.

Worked number
  Two implementations in binary32 of a model of 4 layers differ by about 1e-6 of the largest logit; 1e-4 is accepted.
"""

import os
import unittest

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from peers_support import PeerTest, TINY, llmq

torch.set_num_threads(1)
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

LENGTHS = (1, 2, 7, 40, 23)
BASE = dict(vocab_size=211, hidden_size=48, intermediate_size=72, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=64)
MOE = dict(BASE, moe_intermediate_size=24, num_experts=6, num_experts_per_tok=2)
CASES = {
    "llama": ("llama", BASE),
    "llama head_dim, biases": ("llama", dict(BASE, head_dim=12, attention_bias=True, mlp_bias=True, tie_word_embeddings=True)),
    "llama linear": ("llama", dict(BASE, rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=10000.0))),
    "llama dynamic": ("llama", dict(BASE, rope_parameters=dict(rope_type="dynamic", factor=4.0, rope_theta=10000.0))),
    "llama3": ("llama", dict(BASE, rope_parameters=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                        original_max_position_embeddings=32, rope_theta=500000.0))),
    "llama yarn": ("llama", dict(BASE, rope_parameters=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, rope_theta=10000.0))),
    "mistral window": ("mistral", dict(BASE, sliding_window=9)),
    "qwen2": ("qwen2", BASE),
    "qwen2 window": ("qwen2", dict(BASE, use_sliding_window=True, sliding_window=9, max_window_layers=2)),
    "qwen3": ("qwen3", dict(BASE, head_dim=16)),
    "granite": ("granite", dict(BASE, embedding_multiplier=6.0, attention_multiplier=0.2, residual_multiplier=0.4, logits_scaling=3.0)),
    "smollm3": ("smollm3", dict(BASE, no_rope_layers=[1, 0, 1, 1], pad_token_id=0)),
    "helium": ("helium", dict(BASE, head_dim=8)),
    "seed_oss": ("seed_oss", dict(BASE, head_dim=8, attention_bias=True)),
    "gemma": ("gemma", dict(BASE, head_dim=16)),
    "gemma2": ("gemma2", dict(BASE, head_dim=16, sliding_window=9, query_pre_attn_scalar=24, attn_logit_softcapping=5.0, final_logit_softcapping=6.0)),
    "gemma3": ("gemma3_text", dict(BASE, num_hidden_layers=7, head_dim=16, sliding_window=9, query_pre_attn_scalar=24,
                                   rope_parameters=dict(full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1000000.0),
                                                        sliding_attention=dict(rope_type="default", rope_theta=10000.0)))),
    "phi3": ("phi3", dict(BASE, pad_token_id=0)),
    "phi3 window, partial": ("phi3", dict(BASE, pad_token_id=0, sliding_window=9, rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5))),
    "phi3 longrope": ("phi3", dict(BASE, pad_token_id=0, original_max_position_embeddings=32,
                                   rope_parameters=dict(rope_type="longrope", rope_theta=10000.0, long_factor=[1.5, 2.0, 3.0, 4.0], short_factor=[1.0, 1.1, 1.2, 1.3],
                                                        original_max_position_embeddings=32))),
    "mixtral": ("mixtral", dict(BASE, num_local_experts=5, num_experts_per_tok=2)),
    "qwen2_moe": ("qwen2_moe", dict(MOE, shared_expert_intermediate_size=40, decoder_sparse_step=1, norm_topk_prob=False)),
    "qwen2_moe dense layers": ("qwen2_moe", dict(MOE, shared_expert_intermediate_size=40, decoder_sparse_step=1, mlp_only_layers=[0, 2], norm_topk_prob=True)),
    "qwen3_moe": ("qwen3_moe", dict(MOE, head_dim=8, norm_topk_prob=True)),
    "olmoe": ("olmoe", dict(MOE, num_key_value_heads=6, intermediate_size=24, clip_qkv=0.6)),
    "olmo2": ("olmo2", BASE),
    "olmo3": ("olmo3", dict(BASE, sliding_window=9)),
    "opt": ("opt", dict(vocab_size=211, hidden_size=48, ffn_dim=72, num_hidden_layers=4, num_attention_heads=6, max_position_embeddings=64, word_embed_proj_dim=48)),
    "gpt2": ("gpt2", dict(vocab_size=211, n_embd=48, n_layer=4, n_head=6, n_positions=64)),
    "gpt_neox": ("gpt_neox", dict(vocab_size=211, hidden_size=48, intermediate_size=72, num_hidden_layers=4, num_attention_heads=6, max_position_embeddings=64, rotary_pct=0.5)),
    "gpt_neox sequential": ("gpt_neox", dict(vocab_size=211, hidden_size=48, intermediate_size=72, num_hidden_layers=4, num_attention_heads=6, max_position_embeddings=64,
                                             rotary_pct=0.25, use_parallel_residual=False)),
    "bloom": ("bloom", dict(vocab_size=211, hidden_size=48, n_layer=4, n_head=6)),
    "falcon 7b": ("falcon", dict(vocab_size=211, hidden_size=48, num_hidden_layers=4, num_attention_heads=6, multi_query=True, parallel_attn=True, bias=False, alibi=False)),
    "falcon 40b": ("falcon", dict(vocab_size=211, hidden_size=48, num_hidden_layers=4, num_attention_heads=6, num_kv_heads=2, new_decoder_architecture=True, bias=False, alibi=False)),
    "starcoder2": ("starcoder2", dict(BASE, sliding_window=9)),
    "gpt_oss": ("gpt_oss", dict(BASE, head_dim=8, num_local_experts=5, num_experts_per_tok=2, sliding_window=9)),
}


def draw(model, seed):
    """Parameters of a size at which every part of the model matters."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        last = name.rsplit(".", 1)[-1]
        if p.ndim == 1 and "norm" in name.lower() + ("norm" if ".ln_" in name else "") and last == "weight":
            p.data += 0.3 * noise
        elif p.ndim == 1:
            p.data = 0.3 * noise
        else:
            p.data = noise * (1.5 / p.shape[-1] ** 0.5 if "embed" not in name and "wte" not in name else 0.7)


@torch.no_grad()
def logits_of(model, documents):
    return np.concatenate([model(torch.tensor(ids)[None]).logits[0].float().numpy() for ids in documents])


class Logits(PeerTest):
    def compare(self, folder, documents, reference, *options):
        ids = self.path("ids.txt")
        with open(ids, "w", encoding="ascii") as f:
            f.writelines(" ".join(map(str, d)) + "\n" for d in documents)
        llmq("eval", "--in", folder, "--tokens", ids, "--logits", self.path("logits.npy"), "--force", "--quiet", "--seq", "64", *options)
        found = np.load(self.path("logits.npy"))
        keep = np.concatenate([np.full(len(d), len(d) > 1) for d in documents])  # windows of one token are left out
        self.assertEqual(found.shape, reference[keep].shape)
        return float(np.abs(found - reference[keep]).max() / np.abs(reference).max())

    def test_every_architecture(self):
        lines = []
        for number, (name, (kind, facts)) in enumerate(CASES.items()):
            with self.subTest(case=name):
                torch.manual_seed(number)
                config = AutoConfig.for_model(kind, **facts)
                model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
                draw(model, number)
                folder = self.path("model-" + name.replace(" ", "-").replace(",", ""))
                model.save_pretrained(folder)
                generator = np.random.default_rng(number)
                documents = [generator.integers(0, 211, n).tolist() for n in LENGTHS]
                error = self.compare(folder, documents, logits_of(model, documents))
                lines.append(f"{name:<26} {error:.2e}")
                self.assertLess(error, 1e-4)
                self.assertLess(self.compare(folder, documents, logits_of(model, documents), "--max-ram", "9M"), 1e-4)
        print(f"\n  largest difference of logits over largest logit, transformers {transformers.__version__}\n  " + "\n  ".join(lines), flush=True)

    def test_bundled(self):
        model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32).eval()
        generator = np.random.default_rng(5)
        documents = [[256] + generator.integers(32, 122, n).tolist() for n in (60, 33)]
        self.assertLess(self.compare(TINY, documents, logits_of(model, documents)), 1e-4)


if __name__ == "__main__":
    unittest.main()
