"""Ids of texts against Hugging Face tokenizers and llama.cpp: trained tokenizers of every kind, many texts of odd Unicode.

What it is
  tests/peers/tokenize.c prints what llmq makes of texts; the peers say what it should be. Tokenizers are trained here on
  tests/data/tiny-text.txt, with the normalisers, pre-tokenizers and post-processors of the models named beside them.

Worked number
  tests/data/tiny-llama, bytes with <s> = 256 in front: "A" is 256 65.
"""

import json
import os
import random
import subprocess
import sys
import unittest

from peers_support import PROGRAM, TEXT, TINY, PeerTest, shared_data, skip_aloud

TOKENIZE = os.path.join(os.path.dirname(PROGRAM), "llmq_tokenize")

GPT4O = ("[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")
LLAMA3 = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")
QWEN2 = LLAMA3.replace("\\p{N}{1,3}", "\\p{N}")
DEEPSEEK3 = ("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|"
             "\\s*[\r\n]+|\\s+(?!\\S)|\\s+")
POSSESSIVE = "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"
BLOOM = " ?[^(\\s|[.,!?…。，、।۔،])]+"
EXAONE = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|"
          "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+")

PIECES = (
    "the and of to in is was he for it with as his on be at by had not are but from or have an they which one you were her all she there would "
    "I'll you've DON'T it's he'D we'RE 'ſ hello world Hello WORLD camelCase HTTPServer ßtraße naïve café café Å Å été 0 7 42 123 1234 12345678 3.14 "
    "１２３ ²³ Ⅷ ½ ... !!! ?! -- — “quoted” 'single' (parens) [x] {y} <tag> </s> <s> <|end|> a_b a-b a/b // \\\\ $5 €20 %s @me #tag ~ ` ^ | = + * & "
    "日本語 中文字 漢字かな カタカナ 한국어 한국 русский язык Ελληνικά עברית العربية हिन्दी ไทย ไทย ภาษา ქართული "
    "😀 👩‍👩‍👧 🇩🇪 ❤️ 𝒳𝓎 \U0001F600\U0001F468 é ḍ̇ ḍ̇ q̣̇ 각 ﬁ ǅ ǈ ʰ ª "
).split() + [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", " \n ", "\u00a0", "\u2003", "\u3000", "\u2028", "\u0085", "\u200b", "\u00ad", "\x01", "\x7f",
             "\u2581", "\u2581\u2581", "\ufeff", "\U0010ffff", "\u0300", "\u0344", "\u1e0b\u0323", "\uac00\u11a8", "\u1100\u1161"]


def texts(n, seed):
    rng = random.Random(seed)
    with open(TEXT, encoding="utf-8") as f:
        story = f.read()
    out = ["", " ", "a", "\n", " a", "a ", "  a  ", "<s>", "a<s>b", " <s> ", "<|end|>", "x<|end|>  y", "</s></s>", story[:3000]]
    for _ in range(n):
        glue = rng.choice(["", " ", " "])
        out.append(glue.join(rng.choice(PIECES) for _ in range(rng.randrange(1, 14))))
    for _ in range(n // 10):
        out.append("".join(chr(rng.choice([rng.randrange(32, 0x250), rng.randrange(0x250, 0x3400), rng.randrange(0xE000, 0x11000), rng.randrange(0x1F300, 0x1FA00)]))
                           for _ in range(rng.randrange(1, 30))))
        at = rng.randrange(len(story) - 200)
        out.append(story[at:at + rng.randrange(200)])
    return [t.replace("\0", "") for t in out]


class TokenizerTest(PeerTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if not os.access(TOKENIZE, os.X_OK):
            raise unittest.SkipTest(f"no program at {TOKENIZE}: build the target llmq_tokenize")

    def ids_of(self, model, items):
        with open(self.path("texts.json"), "w", encoding="utf-8") as f:
            json.dump(items, f)
        done = subprocess.run([TOKENIZE, model, self.path("texts.json")], capture_output=True, text=True, timeout=600, check=True)
        lines = done.stdout.split("\n")
        self.assertEqual(lines[0], "ok")
        return [line if line.startswith("error") else [int(x) for x in line.split()] for line in lines[1:-1]]

    def compare(self, model, items, expected):
        for text, got, want in zip(items, self.ids_of(model, items), expected, strict=True):
            self.assertEqual(got, want, f"{text!r}")


class HuggingFace(TokenizerTest):
    def setUp(self):
        super().setUp()
        try:
            import tokenizers
        except ImportError:
            skip_aloud(self, "no package tokenizers")
        self.t = tokenizers

    def check(self, tokenizer, front=None, n=3000, without=None, **config):
        """Saves, encodes with both. front: what the config files want in front; without: leaves out texts with these characters."""
        folder = self.path("model")
        os.makedirs(folder, exist_ok=True)
        tokenizer.save(os.path.join(folder, "tokenizer.json"))
        if config:
            with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
                json.dump(config, f)
        items = [text for text in texts(n, 7) if not without or not without & set(text)]
        plain = [tokenizer.encode(text, add_special_tokens=False).ids for text in items]
        if front is None:
            full = tokenizer.encode("a").ids
            front = full[:next((i for i in range(len(full)) if full[i:i + 1] == plain[items.index("a")][:1]), 0)]
        self.compare(folder, items, [front + ids for ids in plain])

    def train(self, normalizer, pre_tokenizer, specials=("<unk>", "<s>", "</s>"), bytes_too=False, **model):
        t = self.t
        tokenizer = t.Tokenizer(t.models.BPE(**model))
        if normalizer:
            tokenizer.normalizer = normalizer
        if pre_tokenizer:
            tokenizer.pre_tokenizer = pre_tokenizer
        alphabet = t.pre_tokenizers.ByteLevel.alphabet() if bytes_too is False else []
        specials = list(specials) + ([f"<0x{b:02X}>" for b in range(256)] if bytes_too else [])
        trainer = t.trainers.BpeTrainer(vocab_size=1500 + len(specials), special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
        with open(TEXT, encoding="utf-8") as f:
            lines = f.read().split("\n")
        tokenizer.train_from_iterator(lines + PIECES * 3, trainer)
        if bytes_too:  # byte tokens are not found by name
            data = json.loads(tokenizer.to_str())
            data["added_tokens"] = [a for a in data["added_tokens"] if not a["content"].startswith("<0x")]
            tokenizer = t.Tokenizer.from_str(json.dumps(data))
        return tokenizer

    def split(self, pattern, behavior="isolated", invert=False):
        return self.t.pre_tokenizers.Split(self.t.Regex(pattern), behavior, invert)

    def bytes(self, **options):
        return self.t.pre_tokenizers.ByteLevel(**{"add_prefix_space": False, "use_regex": False, **options})

    def disputed(self):
        """Characters that Punctuation and Digits of the peer judge by another Unicode than its patterns."""
        p = self.t.pre_tokenizers
        pairs = ((p.Punctuation(), self.split("[!-/:-@\\[-`{-~\\p{P}]")), (p.Digits(True), self.split("\\p{N}")))
        chars = [chr(c) for c in range(32, 0x20000) if not 0xD800 <= c < 0xE000]
        return {c for c in chars for a, b in pairs if len(a.pre_tokenize_str("a" + c)) != len(b.pre_tokenize_str("a" + c))}

    def sequence(self, *parts):
        return self.t.pre_tokenizers.Sequence(list(parts))

    def test_tiny_llama(self):
        self.check(self.t.Tokenizer.from_file(os.path.join(TINY, "tokenizer.json")), front=[256])

    def test_gpt2(self):
        self.check(self.train(None, self.bytes(use_regex=True)))

    def test_gpt2_prefix_space(self):
        self.check(self.train(None, self.bytes(use_regex=True, add_prefix_space=True)))

    def test_patterns(self):
        for pattern in (LLAMA3, QWEN2, GPT4O, POSSESSIVE, BLOOM, EXAONE):
            with self.subTest(pattern):
                self.check(self.train(None, self.sequence(self.split(pattern), self.bytes())))

    def test_llama3_ignores_merges(self):
        tokenizer = self.train(None, self.sequence(self.split(LLAMA3), self.bytes()), ignore_merges=True)
        data = json.loads(tokenizer.to_str())
        data["model"]["merges"] = data["model"]["merges"][:100]  # words that are tokens and have no merges
        tokenizer = self.t.Tokenizer.from_str(json.dumps(data))
        s = tokenizer.token_to_id("<s>")
        tokenizer.post_processor = self.t.processors.Sequence([
            self.t.processors.ByteLevel(trim_offsets=False),
            self.t.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", s)])])
        self.check(tokenizer, front=[s])

    def test_qwen2_normal_form(self):
        self.check(self.train(self.t.normalizers.NFC(), self.sequence(self.split(QWEN2), self.bytes())))

    def test_inverted_removed(self):
        self.check(self.train(None, self.sequence(self.split(LLAMA3, "removed", True), self.bytes())))

    def test_deepseek(self):
        letters = "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳ]+"
        self.check(self.train(None, self.sequence(
            self.split("[\r\n]"), self.split(letters), self.split("\\s?[!-/:-~！-／：-～‘-‟　-。]+"), self.split("\\s+$"),
            self.split("[一-龥ࠀ-一가-퟿]+"), self.t.pre_tokenizers.Digits(individual_digits=True), self.bytes())))
        self.check(self.train(None, self.sequence(
            self.split("\\p{N}{1,3}"), self.split("[一-龥぀-ゟ゠-ヿ]+"), self.split(DEEPSEEK3), self.bytes())))

    def test_falcon(self):
        p = self.t.pre_tokenizers
        self.check(self.train(None, self.sequence(p.Punctuation("contiguous"), self.bytes(use_regex=True), p.Digits(False), self.split("[0-9][0-9][0-9]"))),
                   without=self.disputed())

    def test_behaviors(self):
        for behavior in ("isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"):
            for invert in (False, True):
                for pattern in ("[aeiou \n]", "\\s+|\\p{N}"):
                    with self.subTest(behavior=behavior, invert=invert, pattern=pattern):
                        self.check(self.train(None, self.sequence(self.split(pattern, behavior, invert), self.bytes())), n=400)

    def test_empty_matches(self):
        for pattern in ("(?=(\\d{3})+(?!\\d))", "\\b", "x*", "\\d{1,3}(?=(?:\\d{3})*\\b)"):
            for behavior in ("isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"):
                with self.subTest(pattern=pattern, behavior=behavior):
                    self.check(self.train(None, self.sequence(self.split(pattern, behavior), self.bytes())), n=300)

    def test_literal_split(self):
        p = self.t.pre_tokenizers
        self.check(self.train(None, self.sequence(p.Split(" ", "merged_with_previous"), self.bytes())), n=400)

    def test_words(self):
        p = self.t.pre_tokenizers
        for parts in ((p.Whitespace(),), (p.WhitespaceSplit(),), (p.WhitespaceSplit(), p.Punctuation()), (p.Digits(),)):
            for fuse in (False, True):
                with self.subTest(parts=str(parts), fuse=fuse):
                    self.check(self.train(None, self.sequence(*parts), unk_token="<unk>", fuse_unk=fuse, bytes_too=None), n=1000, without=self.disputed())

    def test_llama2(self):
        n = self.t.normalizers
        tokenizer = self.train(n.Sequence([n.Prepend("▁"), n.Replace(" ", "▁")]), None, bytes_too=True, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
        s = tokenizer.token_to_id("<s>")
        tokenizer.post_processor = self.t.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", s)])
        self.check(tokenizer, front=[s])
        self.check(tokenizer, front=[], add_bos_token=False, bos_token="<s>")

    def test_llama2_normalized_names(self):
        n = self.t.normalizers
        tokenizer = self.train(n.Sequence([n.Prepend("▁"), n.Replace(" ", "▁")]), None, bytes_too=True, unk_token="<unk>", byte_fallback=True)
        tokenizer.add_tokens([self.t.AddedToken("cl", normalized=True), self.t.AddedToken("he said", normalized=True), self.t.AddedToken("王", normalized=False)])
        self.check(tokenizer)

    def test_metaspace(self):
        for scheme in ("always", "first", "never"):
            for split in (True, False):
                with self.subTest(scheme=scheme, split=split):
                    self.check(self.train(None, self.t.pre_tokenizers.Metaspace("▁", scheme, split), bytes_too=True, unk_token="<unk>", byte_fallback=True))

    def test_gemma(self):
        self.check(self.train(self.t.normalizers.Replace(" ", "▁"), self.t.pre_tokenizers.Split(" ", "merged_with_previous"), bytes_too=True,
                              unk_token="<unk>", fuse_unk=True, byte_fallback=True))

    def test_without_bytes(self):
        for fuse in (False, True):
            self.check(self.train(None, self.t.pre_tokenizers.Metaspace("▁"), bytes_too=None, unk_token="<unk>", fuse_unk=fuse))

    def test_added_tokens(self):
        a = self.t.AddedToken
        tokenizer = self.train(None, self.bytes(use_regex=True))
        tokenizer.add_tokens([a("the", single_word=True), a("<|end|>", lstrip=True, rstrip=True), a("</s>", rstrip=True), a("日本"), a("日本語"), a("  "), a("é")])
        self.check(tokenizer)

    def test_added_tokens_with_normal_form(self):
        a = self.t.AddedToken
        tokenizer = self.train(self.t.normalizers.NFC(), self.bytes(use_regex=True))
        tokenizer.add_tokens([a("cafe\u0301", normalized=True), a("A\u030a", normalized=False), a("한", normalized=True)])
        self.check(tokenizer)

    def test_add_bos_token(self):
        tokenizer = self.train(None, self.bytes(use_regex=True))
        self.check(tokenizer, front=[tokenizer.token_to_id("</s>")], n=10, add_bos_token=True, bos_token={"content": "</s>"})

    def test_long_word(self):
        tokenizer = self.train(self.t.normalizers.Replace(" ", "▁"), None, bytes_too=True, unk_token="<unk>", byte_fallback=True)
        folder = self.path("long")
        os.makedirs(folder)
        tokenizer.save(os.path.join(folder, "tokenizer.json"))
        with open(TEXT, encoding="utf-8") as f:
            story = f.read()
        items = [story, story.replace(" ", ""), "ab" * 20000, "a" * 30000]
        self.compare(folder, items, [tokenizer.encode(text).ids for text in items])

    def test_refused(self):
        t = self.t
        cases = [
            (t.Tokenizer(t.models.Unigram([("a", 0.0)])), "Unigram"), (t.Tokenizer(t.models.WordPiece({"a": 0}, unk_token="a")), "WordPiece"),
        ]
        for normalizer in (t.normalizers.NFKC(), t.normalizers.Lowercase(), t.normalizers.StripAccents()):
            tokenizer = t.Tokenizer(t.models.BPE({"a": 0}, []))
            tokenizer.normalizer = normalizer
            cases.append((tokenizer, type(normalizer).__name__))
        for pre in (t.pre_tokenizers.BertPreTokenizer(), t.pre_tokenizers.UnicodeScripts(), self.split("(?<=a)b"), self.split("\\p{Han}")):
            tokenizer = t.Tokenizer(t.models.BPE({"a": 0}, []))
            tokenizer.pre_tokenizer = pre
            cases.append((tokenizer, "pattern" if type(pre).__name__ == "Split" else type(pre).__name__))
        folder = self.path("bad")
        os.makedirs(folder)
        with open(self.path("texts.json"), "w", encoding="utf-8") as f:
            f.write("[]")
        for tokenizer, name in cases:
            tokenizer.save(os.path.join(folder, "tokenizer.json"))
            done = subprocess.run([TOKENIZE, folder, self.path("texts.json")], capture_output=True, text=True, timeout=60, check=True)
            self.assertIn(name, done.stdout)


class Containers(TokenizerTest):
    """A tokenizer travels with its model into llmq's own container."""

    def test_folder_and_gguf(self):
        program = os.path.join(os.path.dirname(PROGRAM), "llmq")
        if not os.access(program, os.X_OK):
            skip_aloud(self, f"no program at {program}")
        items = texts(100, 3)
        for model in (TINY, shared_data(self, "llm", "stories260K", "stories260K.gguf")):
            self.convert(model, "x.llmq", "--format", "int8")
            self.compare(self.path("x.llmq"), items, self.ids_of(model, items))


class LlamaCpp(TokenizerTest):
    """Texts without names of tokens: the program tells the peer to take none, as llama.cpp's own tools do with a text to be judged."""

    def check(self, name, n=1500):
        path = shared_data(self, "gguf", "vocab", name)
        items = [t for t in texts(n, 11) if "<s>" not in t and "</s>" not in t]
        done = subprocess.run([sys.executable, "-c", LLAMA_TOKENIZE, path], input=json.dumps(items), capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            skip_aloud(self, f"llama.cpp does not open {name}: {done.stderr[-200:]}")
        self.compare(path, items, json.loads(done.stdout))

    def test_llama(self):
        self.check("vocab-spm.gguf")

    def test_llama_equal_scores(self):
        self.check("vocab-spm-zeroscores.gguf")

    def test_gpt2(self):
        for name in ("gpt4o", "llama3", "qwen2", "qwen35", "smollm"):
            with self.subTest(name):
                self.check(f"vocab-bpe-{name}.gguf")

    def test_gemma4(self):
        self.check("vocab-bpe-spm-gemma4.gguf")


LLAMA_TOKENIZE = """
import json, sys
import llama_cpp
model = llama_cpp.Llama(sys.argv[1], vocab_only=True, verbose=False)
print(json.dumps([model.tokenize(text.encode(), add_bos=True, special=False) for text in json.load(sys.stdin)]))
"""

if __name__ == "__main__":
    unittest.main()
