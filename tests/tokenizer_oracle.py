#!/usr/bin/env python3
"""tokenizer_oracle.py: small tokenizers and what they make of texts, in plain Python from the definitions.

What it is
  Words are cut by hand-written loops over Unicode categories (no regular expressions), merges are applied by looking at all
  pairs again and again, scores likewise. Nothing is shared with the C sources or with another tokenizer.

How to run
  tests/tokenizer_oracle.py --out tests/golden/tokenizers.json      writes the vectors
  tests/tokenizer_oracle.py --check tests/golden/tokenizers.json    compares them
  tests/tokenizer_oracle.py --self-check                            the worked numbers

Worked number
  merges (a, b) and (ab, c): "abcab" is abc, ab.
"""

import argparse
import json
import os
import random
import sys
import unicodedata

HERE = os.path.dirname(os.path.abspath(__file__))
MARK = "\u2581"


# --- Unicode ----------------------------------------------------------------------------------------------------------

def is_letter(c):
    return unicodedata.category(c)[0] == "L"


def is_number(c):
    return unicodedata.category(c)[0] == "N"


def is_space(c):
    return c in "\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" or "\u2000" <= c <= "\u200a"


# --- words ------------------------------------------------------------------------------------------------------------

def run(text, at, test):
    end = at
    while end < len(text) and test(text[end]):
        end += 1
    return end


def spaces(text, at):
    """\\s+(?!\\S)|\\s+: a row of blanks leaves its last one to what follows, unless it is alone or ends the text."""
    end = run(text, at, is_space)
    return end - 1 if end < len(text) and end - at > 1 else end


def gpt2_end(text, at):
    for contraction in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d"):
        if text.startswith(contraction, at):
            return at + len(contraction)
    start = at + (text[at] == " " and at + 1 < len(text))
    for test in (is_letter, is_number, lambda c: not is_space(c) and not is_letter(c) and not is_number(c)):
        if test(text[start]):
            return run(text, start, test)
    return spaces(text, at)


def llama3_end(text, at, digits=3):
    folded = text[at:at + 3].lower().replace("\u017f", "s")
    for contraction in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d"):
        if folded.startswith(contraction):
            return at + len(contraction)
    c = text[at]
    if is_letter(c):
        return run(text, at, is_letter)
    if c not in "\r\n" and not is_number(c) and at + 1 < len(text) and is_letter(text[at + 1]):
        return run(text, at + 1, is_letter)
    if is_number(c):
        return min(run(text, at, is_number), at + digits)
    other = lambda x: not is_space(x) and not is_letter(x) and not is_number(x)
    start = at + (c == " " and at + 1 < len(text))
    if other(text[start]):
        return run(text, run(text, start, other), lambda x: x in "\r\n")
    end = run(text, at, is_space)
    lines = max((i for i in range(at, end) if text[i] in "\r\n"), default=None)
    return lines + 1 if lines is not None else spaces(text, at)


def words_by(end_of):
    def cut(text):
        out, at = [], 0
        while at < len(text):
            end = end_of(text, at)
            out.append(text[at:end])
            at = end
        return out
    return cut


def spelt(data):
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return "".join(chr(b) if b in plain else chr(256 + others.index(b)) for b in data)


# --- merges -----------------------------------------------------------------------------------------------------------

def merge(symbols, rank_of):
    """Merges the pair of the lowest rank, of equal ones the leftmost, until none has one. rank_of(a, b) is None without."""
    symbols = list(symbols)
    while True:
        best = None
        for i in range(len(symbols) - 1):
            rank = rank_of(symbols[i], symbols[i + 1])
            if rank is not None and (best is None or rank < best[0]):
                best = (rank, i)
        if best is None:
            return symbols
        symbols[best[1]:best[1] + 2] = [symbols[best[1]] + symbols[best[1] + 1]]


def train(words, n):
    """n merges: the most frequent pair each time, of equal ones the smallest."""
    words = {w: (list(w), words.count(w)) for w in dict.fromkeys(words)}
    merges = []
    for _ in range(n):
        pairs = {}
        for symbols, count in words.values():
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] = pairs.get(pair, 0) + count
        if not pairs:
            break
        pair = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(pair)
        for w, (symbols, count) in words.items():
            words[w] = (merge(symbols, lambda a, b: 0 if (a, b) == pair else None), count)
    return merges


def byte_ids(char, vocab):
    return [vocab[f"<0x{b:02X}>"] for b in char.encode()]


class Tokenizer:
    def __init__(self, name, tokens, merges, normalize, cut, fallback=None, names=(), front=(), whole=False, fuse=False):
        self.name, self.tokens, self.merges, self.normalize, self.cut = name, tokens, merges, normalize, cut
        self.vocab = {t: i for i, t in enumerate(tokens)}
        self.ranks = {pair: i for i, pair in enumerate(merges)}
        self.fallback, self.names, self.front, self.whole, self.fuse = fallback, list(names), list(front), whole, fuse

    def word(self, word):
        if self.whole and word in self.vocab:
            return [self.vocab[word]]
        symbols = []
        for c in word:  # (text, ids): what has no token carries its ids along
            if c in self.vocab:
                symbols.append(c)
            elif self.fallback == "bytes":
                symbols += [("id", i) for i in byte_ids(c, self.vocab)]
            elif not (self.fuse and symbols and symbols[-1] == ("id", 0)):
                symbols.append(("id", 0))
        rank = lambda a, b: self.ranks.get((a, b)) if isinstance(a, str) and isinstance(b, str) else None
        out = []
        chunk = []
        for s in symbols + [None]:
            if isinstance(s, str):
                chunk.append(s)
                continue
            out += [self.vocab[t] for t in merge(chunk, rank)]
            chunk = []
            if s:
                out.append(s[1])
        return out

    def encode(self, text):
        ids, at = list(self.front), 0
        pieces, plain = [], 0
        while at < len(text):
            name = max((n for n in self.names if text.startswith(n, at)), key=len, default=None)
            if name is None:
                at += 1
                continue
            pieces += [text[plain:at], self.vocab[name]]
            at += len(name)
            plain = at
        for piece in pieces + [text[plain:]]:
            if isinstance(piece, int):
                ids.append(piece)
            elif piece:
                for word in self.cut(self.normalize(piece)):
                    ids += self.word(word)
        return ids


# --- the tokenizers of the vectors ------------------------------------------------------------------------------------

def same(text):
    return text


def added(tokenizer):
    return [{"id": tokenizer.vocab[n], "content": n, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
            for n in tokenizer.names]


def file_of(tokenizer, normalizer, pre_tokenizer, post_processor=None, pairs=False, **model):
    return {
        "version": "1.0", "added_tokens": added(tokenizer), "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": post_processor,
        "model": {"type": "BPE", **model, "vocab": tokenizer.vocab, "merges": [list(m) if pairs else " ".join(m) for m in tokenizer.merges]},
    }


def template(name, token_id):
    single = [{"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": single, "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {name: {"id": name, "ids": [token_id], "tokens": [name]}}}


LLAMA3 = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"


def split(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def byte_level(regex):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": regex}


def byte_tokenizer(name, sample, end_of, n_merges, normalize=same, **options):
    cut = words_by(end_of)
    spell = lambda text: [spelt(w.encode()) for w in cut(text)]
    merges = train(spell(normalize(sample)), n_merges)
    tokens = [spelt(bytes([b])) for b in range(256)]
    for a, b in merges:
        if a + b not in tokens:
            tokens.append(a + b)
    tokens += ["<s>", "</s>", "<|end|>"]
    return Tokenizer(name, tokens, merges, normalize, spell, names=["<s>", "</s>", "<|end|>"], **options)


def make(sample):
    out = []
    gpt2 = byte_tokenizer("gpt2", sample, gpt2_end, 120)
    out.append((gpt2, file_of(gpt2, None, byte_level(True)), None))

    llama3 = byte_tokenizer("llama3", sample, llama3_end, 120, whole=True)
    llama3.front = [llama3.vocab["<s>"]]
    post = {"type": "Sequence", "processors": [byte_level(True), template("<s>", llama3.front[0])]}
    out.append((llama3, file_of(llama3, None, {"type": "Sequence", "pretokenizers": [split(LLAMA3), byte_level(False)]}, post, pairs=True, ignore_merges=True), None))

    qwen2 = byte_tokenizer("qwen2", sample, lambda t, a: llama3_end(t, a, 1), 60, normalize=lambda t: unicodedata.normalize("NFC", t))
    pattern = LLAMA3.replace("{1,3}", "")
    out.append((qwen2, file_of(qwen2, {"type": "NFC"}, {"type": "Sequence", "pretokenizers": [split(pattern), byte_level(False)]}), None))

    words = lambda text: [text]
    marked = lambda text: MARK + text.replace(" ", MARK)
    merges = train([MARK + w for w in sample.split()], 120)
    chars = sorted(set(MARK + "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'\"-é日本"))
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + chars
    pieces += [a + b for a, b in merges if a + b not in pieces]
    llama2 = Tokenizer("llama2", pieces, merges, marked, words, fallback="bytes", names=["<unk>", "<s>", "</s>"], front=[1])
    normalizer = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": MARK}, {"type": "Replace", "pattern": {"String": " "}, "content": MARK}]}
    out.append((llama2, file_of(llama2, normalizer, None, None, unk_token="<unk>", fuse_unk=True, byte_fallback=True),
                {"add_bos_token": True, "bos_token": "<s>"}))

    small = ["<unk>"] + chars
    small += [a + b for a, b in merges if a + b not in small]

    def marked_words(text):
        text = text.replace(" ", MARK)
        text = text if text.startswith(MARK) else MARK + text
        out, last = [], 0
        for i, c in enumerate(text):
            if c == MARK and i > last:
                out.append(text[last:i])
                last = i
        return out + [text[last:]]

    for fuse in (False, True):
        plain = Tokenizer(f"metaspace{'_fused' if fuse else ''}", small, merges, same, marked_words, names=["<unk>"], fuse=fuse)
        pre = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": True}
        out.append((plain, file_of(plain, None, pre, None, unk_token="<unk>", fuse_unk=fuse), None))
    return out


def scored(sample):
    """A vocabulary with scores, as a GGUF file holds it: (tokens, scores, types). Scores repeat; some characters are only in longer tokens."""
    rng = random.Random(8)
    words = [MARK + w for w in sample.split()]
    subwords = {}
    for w in words:
        for i in range(len(w)):
            for n in range(2, 7):
                if i + n <= len(w):
                    subwords[w[i:i + n]] = subwords.get(w[i:i + n], 0) + 1
    best = sorted(subwords, key=lambda t: (-subwords[t], t))[:250]
    chars = sorted(set(MARK + "abcdefghijklmnopqrstuvwxyzAHIT.,'\"日"))
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + chars + best + ["é" + MARK, "日本", "語w", "\n\n"]
    types = [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 259)
    scores = [0.0] * 259 + [float(-rng.randrange(100)) for _ in tokens[259:]]
    return tokens, scores, types


def encode_scored(tokens, scores, text):
    """SentencePiece: of all neighbours that together are a token, the best score first, of equal ones the leftmost; then bytes."""
    vocab = {t: i for i, t in enumerate(tokens)}
    ids, at, pieces = [1], 0, []
    names = ["<unk>", "<s>", "</s>"]
    while at < len(text):
        name = next((n for n in names if text.startswith(n, at)), None)
        if name:
            pieces.append(vocab[name])
            at += len(name)
            continue
        if not pieces or isinstance(pieces[-1], int):
            pieces.append("")
        pieces[-1] += text[at]
        at += 1
    for piece in pieces:
        if isinstance(piece, int):
            ids.append(piece)
            continue
        rank = lambda a, b: -scores[vocab[a + b]] if a + b in vocab else None
        for symbol in merge((" " + piece).replace(" ", MARK), rank):
            ids += [vocab[symbol]] if symbol in vocab else byte_ids(symbol, vocab)
    return ids


PIECES = ("the and hello Hello world I'll you've DON'T it'S 0 7 123 12345 3.14 ... !!! -- “q” 'x' (p) <tag> <s> </s> <|end|> <unk> a_b é e\u0301 ñ 日本語 한국 "
          "привет עברית 😀 ½ ² Ⅷ ー").split() + [" ", "  ", "   ", "\t", "\n", "\n\n", " \n ", "\r\n", "\u00a0", "\u3000", MARK, "\x01"]


def texts():
    rng = random.Random(5)
    out = ["", " ", "a", " a", "a  b", "<s>", "x<s>y", "a\n", "\n\n a"]
    for _ in range(60):
        glue = rng.choice(["", " "])
        out.append(glue.join(rng.choice(PIECES) for _ in range(rng.randrange(1, 10))))
    return out


def normal_forms():
    """Strings and their NFC, of code points that Unicode has had for long."""
    rng = random.Random(6)
    marks = [c for c in range(0x300, 0x370)] + [0x591, 0x5B0, 0x64B, 0x650, 0x93C, 0x9BE, 0xDCF, 0x3099, 0x309A]
    starters = ["a", "e", "q", "\u00e9", "\u1e0b", "\u1100", "\u1161", "\u11a8", "\uac00", "\uac01", "\u0915", "\u09c7", "\u0dd9", "\u304b", "\u212b", "\u2126", "\uf900", "\u1f71",
                "\u0344", "\U0002f800", "\u0958", "\u2adc"]
    out = []
    for _ in range(150):
        text = "".join(rng.choice(starters) if rng.random() < 0.45 else chr(rng.choice(marks)) for _ in range(rng.randrange(1, 8)))
        out.append([text, unicodedata.normalize("NFC", text)])
    return out


def vectors():
    with open(os.path.join(HERE, "data", "tiny-text.txt"), encoding="utf-8") as f:
        sample = f.read()[:6000]
    items = texts()
    cases = []
    for tokenizer, file, config in make(sample):
        cases.append({"name": tokenizer.name, "tokenizer": json.dumps(file, ensure_ascii=False, separators=(",", ":")),
                      "config": json.dumps(config) if config else None, "ids": [tokenizer.encode(t) for t in items]})
    tokens, scores, types = scored(sample)
    spm = {"tokens": tokens, "scores": scores, "types": types, "ids": [encode_scored(tokens, scores, t) for t in items]}
    return json.dumps({"texts": items, "cases": cases, "nfc": normal_forms(), "scored": spm}, ensure_ascii=True, separators=(",", ":")).replace('},{"name"', '},\n{"name"') + "\n"


def self_check():
    ranks = {("a", "b"): 0, ("ab", "c"): 1}
    assert merge("abcab", lambda a, b: ranks.get((a, b))) == ["abc", "ab"]
    assert words_by(gpt2_end)("I'll  go 42!") == ["I", "'ll", " ", " go", " 42", "!"]
    assert words_by(llama3_end)("a\n\n b1234 ") == ["a", "\n\n", " b", "123", "4", " "]
    assert spelt(b" A\x00") == "\u0120A\u0100"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out")
    parser.add_argument("--check")
    parser.add_argument("--self-check", action="store_true")
    args = parser.parse_args()
    if args.self_check:
        self_check()
    if args.out:
        with open(args.out, "w", encoding="utf-8") as f:
            f.write(vectors())
    if args.check:
        with open(args.check, encoding="utf-8") as f:
            if f.read() != vectors():
                sys.exit(f"{args.check} is not what tokenizer_oracle.py makes")


main()
