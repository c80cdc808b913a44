"""llama.cpp loads what llmq writes into GGUF files, and its quantisers make the same bytes.

What it is
  Conversion   the bundled model as GGUF (gguf_model.py) is the same model: tokens and perplexity.
  Evaluation   every type and both models: perplexity in llama.cpp, in its order; the text that the model writes; split files.
  Bytes        every quantised tensor against ggml_quantize_chunk, fed with the rows of the source.
  Recipes      whole files against llama.cpp's own llama_model_quantize: type and bytes of every tensor, for dense models and
               mixtures of experts, shared keys (1, 4, 8 query heads each), with and without a head, rows of any length.

Worked number
  The bundled model has 0.797 bits a byte on tests/data/tiny-text.txt, a perplexity of 2^0.797 = 1.738.
"""

import glob
import hashlib
import math
import os
import shutil
import tempfile
import unittest

import gguf
import numpy as np
from safetensors.numpy import load_file

from gguf_model import write_matrices, write_random, write_tiny
from gguf_types import NO_FALLBACK, PLAIN, RECIPES, TYPES, Type, is_linear, options, stored_type
from llama_peer import LlamaTest, Model, byte_windows, divergence, nats_of, quantize_file, quantize_rows, rows_of
from peers_support import llmq, ordinary_weights, shared_data, tensors_of

BITS_A_BYTE = 0.797  # of the bundled model, by transformers
STORIES_PERPLEXITY = 4.3594  # of stories260K on its forty stories, by a numpy program
PROMPT = b"Once upon a time"
SAME_TEXT = ("f32", "bf16", "q8_0")
# (better, worse) by perplexity; TOLERANCE is for luck, which a small model has
ORDER = [("f32", "q8_0"), ("bf16", "q8_0"), ("q8_0", "q6_k"), ("q6_k", "q5_k"), ("q5_k", "q4_k"), ("q4_k", "q3_k"), ("q3_k", "q2_k"), ("q5_0", "q4_0"), ("q5_1", "q4_1"),
         ("q8_0", "mxfp4"), ("q8_0", "nvfp4"), ("q5_0", "iq4_nl"), ("q5_k", "iq4_xs")]
TOLERANCE = 0.004  # nats
ROUNDING = 1e-5  # nats of divergence that have other causes than the codes of weights


def tensors(path):
    """{name: tensor of gguf.GGUFReader}"""
    return {t.name: t for t in gguf.GGUFReader(path).tensors}


def stored_bytes(tensor):
    return np.asarray(tensor.data).view(np.uint8).tobytes()


class GgufTest(LlamaTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.sources = tempfile.mkdtemp(prefix="llmq-peers-")
        cls.addClassCleanup(shutil.rmtree, cls.sources, ignore_errors=True)
        cls.tiny = write_tiny(os.path.join(cls.sources, "tiny.gguf"))

    def stories(self):
        return shared_data(self, "llm", "stories260K", "stories260K.gguf")

    def story_parts(self, n):
        """n stories as tokens, everything behind <s> scored."""
        with open(shared_data(self, "text", "stories260K_ids.txt"), encoding="ascii") as f:
            return [(np.array(line.split(), int), 0) for line in f][:n]

    def byte_parts(self, model, n=None):
        return list(byte_windows(lambda text: model.llama.tokenize(text.encode(), add_bos=True)))[:n]


class Conversion(GgufTest):
    def test_bundled_model(self):
        """All of the text in F32; the two 16-bit types hold the same weights, or nearly, and need less of it."""
        with Model(self.tiny) as model:
            self.assertEqual(model.llama.tokenize(PROMPT, add_bos=True), [256, *PROMPT])
            self.assertEqual(model.llama.detokenize(list(range(256))), bytes(range(256)))
            bits, some = model.nats(self.byte_parts(model)) / math.log(2), model.nats(self.byte_parts(model, 3))
        print(f"\n  bundled model: {bits:.5f} bits a byte", flush=True)
        self.assertAlmostEqual(bits, BITS_A_BYTE, delta=0.0006)
        for dtype in ("BF16", "F16"):
            with self.subTest(dtype=dtype), Model(write_tiny(self.path(f"{dtype}.gguf"), dtype)) as model:
                self.assertAlmostEqual(model.nats(self.byte_parts(model, 3)), some, delta=0.001)

    def test_stories(self):
        with Model(self.stories()) as model:
            self.assertAlmostEqual(math.exp(model.nats(self.story_parts(40))), STORIES_PERPLEXITY, places=3)


class Evaluation(GgufTest):
    def evaluate(self, source, parts_of, prompt_of):
        """Perplexities of all types, checked and printed."""
        with Model(source) as model:
            parts, prompt = parts_of(model), prompt_of(model)
            scores, text = model.scores(parts), model.greedy(prompt, 32)
        original, table, far, measured, lines = nats_of(scores, parts), {}, {}, {}, []
        for name, kind in TYPES.items():
            for rule in ("reference",) if kind in PLAIN else ("reference", "mse"):
                with self.subTest(type=name, rule=rule):
                    out = self.convert(source, "out.gguf", *options(name, rule))
                    weights = hashlib.sha256(b"".join(map(stored_bytes, gguf.GGUFReader(out).tensors))).digest()  # rows that fall back make types alike
                    with Model(out) as model:
                        if weights not in measured:
                            found = model.scores(parts)
                            measured[weights] = nats_of(found, parts), divergence(scores, found)
                        table[name, rule], far[name, rule] = measured[weights]
                        self.assertTrue(math.isfinite(table[name, rule]))
                        if name in SAME_TEXT and rule == "reference":
                            self.assertEqual(model.greedy(prompt, 32), text, "the text is another one")
            lines.append(f"{name:<8}" + "".join(f"{math.exp(table[name, r]):>12.4f}{far[name, r]:>10.5f}" for r in ("reference", "mse") if (name, r) in table))
        print(f"\n  {os.path.basename(source)}, {sum(len(ids) - 1 - first for ids, first in parts)} tokens, perplexity of the source {math.exp(original):.4f}\n"
              f"  {'type':<8}{'reference':>12}{'KL':>10}{'mse':>12}{'KL':>10}\n  " + "\n  ".join(lines), flush=True)
        for better, worse in ORDER:
            with self.subTest(better=better, worse=worse):
                self.assertLess(table[better, "reference"], table[worse, "reference"] + TOLERANCE)
        for name, kind in TYPES.items():
            if kind not in PLAIN:
                with self.subTest(type=name, rules="mse against reference"):
                    self.assertLess(far[name, "mse"], far[name, "reference"] + ROUNDING)
        ratios = [far[name, "mse"] / far[name, "reference"] for name, kind in TYPES.items() if kind not in PLAIN]
        self.assertLess(np.log(ratios).mean(), -0.03, ratios)
        self.assertLess(abs(table["f32", "reference"] - original), 1e-9)

    def test_bundled_model(self):
        self.evaluate(self.tiny, lambda model: self.byte_parts(model, 24), lambda model: model.llama.tokenize(PROMPT, add_bos=True))

    def test_stories(self):
        self.evaluate(self.stories(), lambda model: self.story_parts(40), lambda model: self.story_parts(1)[0][0][:8])

    def test_split(self):
        """Parts of at most the size asked for; llama.cpp follows them from the first."""
        llmq("convert", "--in", self.tiny, "--out", self.path("part.gguf"), *options("q8_0"), "--split-max-size", "500K", "--quiet")
        llmq("convert", "--in", self.tiny, "--out", self.path("whole.gguf"), *options("q8_0"), "--quiet")
        paths = sorted(glob.glob(self.path("part*-of-*.gguf")))
        self.assertGreater(len(paths), 1)
        for i, path in enumerate(paths):
            reader = gguf.GGUFReader(path)
            self.assertEqual([reader.get_field(f"split.{key}").contents() for key in ("no", "count", "tensors.count")], [i, len(paths), len(tensors(self.tiny))])
        whole, parts = tensors(self.path("whole.gguf")), {n: t for path in paths for n, t in tensors(path).items()}
        self.assertEqual({n: stored_bytes(t) for n, t in parts.items()}, {n: stored_bytes(t) for n, t in whole.items()})
        with Model(paths[0]) as one, Model(self.path("whole.gguf")) as two:
            ids = two.llama.tokenize(PROMPT, add_bos=True)
            self.assertSame(one.log_probabilities(ids), two.log_probabilities(ids))

    def test_back_from_container(self):
        """Codes of a container in a GGUF file: the same weights, and llama.cpp runs them."""
        container = self.convert(self.tiny, "tiny.llmq", "--format", "int4", "--group-size", "64")
        back = self.path("back.gguf")
        llmq("convert", "--in", container, "--out", back, "--quiet")
        for name, source in (("a", container), ("b", back)):
            llmq("dequantize", "--in", source, "--out", self.path(f"{name}.safetensors"), "--dtype", "f32", "--quiet")
        ours, theirs = (load_file(self.path(f"{name}.safetensors")) for name in "ab")
        self.assertEqual(set(ours), set(theirs))
        for name, x in ours.items():
            self.assertSame(theirs[name], x, name)
        self.assertIn(Type.Q4_0, {t.tensor_type for t in tensors(back).values()})
        with Model(back) as model:
            self.assertLess(model.nats(self.byte_parts(model, 1)), 2)


HARD_ROWS = {
    "ordinary": ordinary_weights(6, 1024),
    "constant": np.repeat(np.array([[0.0], [-0.0], [1.0], [-1.0], [0.013], [-3e-5]], np.float32), 512, axis=1),
    "one number": np.eye(8, 512, dtype=np.float32) * np.float32(-0.7) + np.eye(8, 512, 300, dtype=np.float32) * np.float32(0.2),
    "of one sign": np.abs(ordinary_weights(4, 512)) * np.repeat(np.array([[1], [-1], [1], [-1]], np.float32), 512, axis=1),
    "ties": np.ldexp(np.random.default_rng(3).integers(-128, 129, (8, 768)).astype(np.float32), -7),
    "small and large": np.ldexp(ordinary_weights(8, 1024), np.random.default_rng(4).integers(-24, 12, (8, 32)).repeat(32, axis=1)),
    "subnormal scales": np.ldexp(ordinary_weights(4, 512), -16),
    "outliers": ordinary_weights(4, 512) + np.float32(40) * (np.random.default_rng(5).random((4, 512)) < 0.004).astype(np.float32),
}


class Bytes(GgufTest):
    def check(self, source, name, convert_options=()):
        """Every linear tensor of the type asked for holds ggml's bytes; every other one is as it was."""
        out, before = self.convert(source, "out.gguf", *options(name), *convert_options), tensors(source)
        after = tensors(out)
        self.assertEqual(list(after), list(before), "names or their order")
        for key, tensor in before.items():
            kind = stored_type(TYPES[name], int(tensor.shape[0])) if is_linear(tensor) else tensor.tensor_type
            if is_linear(tensor) and TYPES[name] in NO_FALLBACK and kind != TYPES[name]:
                continue
            self.assertEqual(after[key].tensor_type, kind, key)
            expected = stored_bytes(tensor) if kind == tensor.tensor_type else quantize_rows(rows_of(tensor), kind).tobytes()
            self.assertEqual(stored_bytes(after[key]), expected, f"{key}: bytes of {kind.name}")

    def check_all(self, *sources):
        for name in TYPES:
            for source in sources:
                with self.subTest(type=name, source=os.path.basename(source)):
                    self.check(source, name)

    def test_bundled_model(self):
        self.check_all(self.tiny)

    def test_stories(self):
        self.check_all(self.stories())

    def test_hard_rows(self):
        self.check_all(write_matrices(self.path("hard.gguf"), HARD_ROWS))

    def test_sources_of_16_bits_and_experts(self):
        self.check_all(write_tiny(self.path("bf16.gguf"), "BF16"), write_tiny(self.path("f16.gguf"), "F16"),
                       write_random(self.path("experts.gguf"), layers=2, experts=8, ffn=512))

    def test_rule_takes_more(self):
        out = tensors(self.convert(self.tiny, "out.gguf", *options("q4_k"), "--rule", "token_embd.weight=q8_0"))
        self.assertEqual(stored_bytes(out["token_embd.weight"]), quantize_rows(rows_of(tensors(self.tiny)["token_embd.weight"]), Type.Q8_0).tobytes())


# what a mix may depend on
MODELS = {
    "tied": {"head": False}, "head": {}, "4 heads a key": {"kv_heads": 2}, "8 heads a key": {"kv_heads": 1, "layers": 37},
    "two layers": {"layers": 2}, "80 layers": {"layers": 80, "kv_heads": 1}, "80 layers of qwen2": {"arch": "qwen2", "layers": 80, "head": False},
    "8 experts": {"experts": 8, "layers": 24}, "8 experts, shared keys": {"experts": 8, "kv_heads": 2}, "4 experts": {"experts": 4, "head": False},
    "16 experts": {"arch": "qwen3moe", "experts": 16, "kv_heads": 1}, "shared experts": {"arch": "deepseek2", "experts": 8, "layers": 12},
    "falcon": {"arch": "falcon", "layers": 32, "kv_heads": 1}, "fused attention": {"arch": "gptneox", "layers": 18},
    "rows of 32": {"cols": 352, "head": False}, "odd rows": {"ffn": 172}, "all rows odd": {"cols": 100, "ffn": 60},
    "BF16": {"dtype": "BF16", "kv_heads": 2}, "F16": {"dtype": "F16", "head": False},
}


class Recipes(GgufTest):
    def check(self, source, recipe, *extra, **params):
        """Same names, types and bytes as llama.cpp's file; it orders tensors by name, llmq keeps their order."""
        theirs_path = quantize_file(source, self.path("theirs.gguf"), RECIPES[recipe], **params)
        ours_path = self.convert(source, "ours.gguf", "--recipe", recipe, *extra)
        readers = [gguf.GGUFReader(path) for path in (ours_path, theirs_path)]
        ours, theirs = ({t.name: t for t in reader.tensors} for reader in readers)
        self.assertEqual(set(ours), set(theirs))
        self.assertEqual({n: t.tensor_type.name for n, t in ours.items()}, {n: t.tensor_type.name for n, t in theirs.items()})
        self.assertEqual([n for n, t in ours.items() if stored_bytes(t) != stored_bytes(theirs[n])], [], "bytes differ")
        for key in ("general.file_type", "general.quantization_version"):
            self.assertEqual(*(reader.get_field(key).contents() for reader in readers), key)
        return ours_path

    def test_mixes(self):
        for name, facts in MODELS.items():
            source = write_random(self.path("random.gguf"), **facts)
            for recipe in RECIPES:
                with self.subTest(model=name, recipe=recipe):
                    self.check(source, recipe)

    def test_real_models(self):
        """The same for trained models; the results run."""
        lines = []
        for source in (self.tiny, self.stories()):
            for recipe in RECIPES:
                with self.subTest(model=os.path.basename(source), recipe=recipe):
                    with Model(self.check(source, recipe)) as model:
                        nats = model.nats(self.byte_parts(model, 3) if source == self.tiny else self.story_parts(2))
                    self.assertLess(nats, 3)
                    lines.append(f"{os.path.basename(source):<18} {recipe:<8} {math.exp(nats):>8.4f}")
        print("\n  perplexity of the recipes\n  " + "\n  ".join(lines), flush=True)

    def test_requantize(self):
        """From Q8_0, decoded first, as llama.cpp does when it is told to."""
        source = quantize_file(self.tiny, self.path("q8_0.gguf"), RECIPES["q8_0"])
        for recipe in ("q4_k_m", "q4_0"):
            with self.subTest(recipe=recipe):
                self.check(source, recipe, "--allow-requantize", allow_requantize=True)


class Reader(GgufTest):
    def test_reads_what_llama_writes(self):
        """Sizes, types and shapes of files that llama.cpp quantised."""
        for recipe, file_type in RECIPES.items():
            with self.subTest(recipe=recipe):
                path = quantize_file(self.tiny, self.path("theirs.gguf"), file_type)
                facts, expected = tensors_of(path), tensors(path)
                self.assertEqual({n: (t["shape"], t["nbytes"]) for n, t in facts.items()},
                                 {n: ([int(d) for d in reversed(t.shape)], t.n_bytes) for n, t in expected.items()})


if __name__ == "__main__":
    unittest.main()
