"""make_corpus.py: the seeds of the fuzz targets, written into tests/fuzz/corpus/<target>/. Run once with a built program:
/usr/bin/python3 scripts/make_corpus.py build/llmq. Seeds are small valid inputs of every kind; findings are added beside them by hand."""

import json
import os
import struct
import subprocess
import sys
import tempfile

import zstandard

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
CORPUS = os.path.join(ROOT, "tests", "fuzz", "corpus")


def seed(target, name, data):
    folder = os.path.join(CORPUS, target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data)


def safetensors(tensors, metadata=None):
    """A file of (name, dtype, bits, shape) tensors filled with a counting pattern."""
    entries, offset = ({"__metadata__": metadata} if metadata else {}), 0
    for name, dtype, bits, shape in tensors:
        n = 1
        for dim in shape:
            n *= dim
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + n * bits // 8]}
        offset += n * bits // 8
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(i % 61 for i in range(offset))


def text_seeds():
    for name, text in {"scalars": "[null,true,false,0,-1.5e-3,\"\\u00e9\\ud83d\\ude00\"]", "nested": "{\"a\":{\"b\":[{},[]]},\"c\":\"\"}",
                       "config": json.dumps({"architectures": ["LlamaForCausalLM"], "hidden_size": 256, "rope_theta": 1e4})}.items():
        seed("json", name, text.encode())
    seed("yaml", "recipe", b"format: int4\nrules:\n  - {match: 'role:down', format: int8}\n  - match: \"*.layers.0.*\"\n    keep: true\n")
    seed("yaml", "roles", b"roles:\n  - role: norm\n    match: ['re:.*norm.*', \"*.ln\"]\n  - {role: q, linear: true, match: [a]}\n")
    seed("yaml", "block", b"a: |\n  text\n  more\nb: >-\n  folded\nc: []\n")
    shards = {f"model.layers.{i}.w": f"model-0000{i + 1}-of-00003.safetensors" for i in range(3)}
    seed("index", "three", json.dumps({"metadata": {"total_size": 12}, "weight_map": shards}).encode())
    seed("index", "one", b'{"weight_map":{"a":"model.safetensors"}}')


def safetensors_seeds():
    seed("safetensors", "empty", safetensors([]))
    seed("safetensors", "kinds", safetensors([("a", "F32", 32, (2, 3)), ("b.weight", "BF16", 16, (4,)), ("s", "I64", 64, ()), ("z", "F16", 16, (0, 5))], {"format": "pt"}))
    seed("safetensors", "bytes", safetensors([("odd", "U8", 8, (3,)), ("f8", "F8_E4M3", 8, (2, 2)), ("f4", "F4", 4, (2, 4)), ("\u00fc", "BOOL", 8, (1,))]))


def gguf(version, keys, tensors, alignment=32, trim=0):
    """A file of (name, value) keys and (name, type, block, block bytes, dims innermost first) tensors; a value is (type, bytes)."""
    def string(text):
        return struct.pack("<Q", len(text.encode())) + text.encode()
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys))
    for name, (kind, data) in keys:
        head += string(name) + struct.pack("<I", kind) + data
    data = b""
    for name, kind, block, nbytes, dims in tensors:
        n = 1
        for dim in dims:
            n *= dim
        head += string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, len(data))
        data += bytes(i % 61 for i in range(n // block * nbytes))
        data += bytes(-len(data) % alignment)
    head += bytes(-len(head) % alignment)
    return (head + data)[:len(head + data) - trim]


def gguf_seeds():
    def text(*strings):
        return b"".join(struct.pack("<Q", len(s)) + s for s in strings)
    def array(kind, count, data):
        return 9, struct.pack("<IQ", kind, count) + data
    architecture = ("general.architecture", (8, text(b"llama")))
    plain = [("u8", (0, b"\1")), ("i8", (1, b"\xff")), ("u16", (2, b"\1\0")), ("i16", (3, b"\1\0")), ("u32", (4, bytes(4))), ("i32", (5, bytes(4))), ("f32", (6, bytes(4))), ("bool", (7, b"\1")),
             ("u64", (10, bytes(8))), ("i64", (11, bytes(8))), ("f64", (12, bytes(8)))]
    seed("gguf", "empty", gguf(3, [], []))
    seed("gguf", "bare", gguf(2, [], [], trim=8))
    seed("gguf", "values", gguf(3, [architecture] + plain, []))
    seed("gguf", "arrays", gguf(3, [("tokenizer.ggml.tokens", array(8, 3, text(b"a", b"", "\u20ac".encode()))), ("b", array(7, 2, b"\0\1")), ("e", array(6, 0, b"")),
                                    ("n", array(9, 2, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 0, 2) + b"\1\2" + struct.pack("<IQ", 8, 1) + text(b"x")))], []))
    seed("gguf", "tensors", gguf(3, [architecture, ("general.alignment", (4, struct.pack("<I", 8)))],
                                 [("token_embd.weight", 1, 1, 2, (8, 4)), ("blk.0.attn_q.weight", 2, 32, 18, (64, 3)), ("n", 0, 1, 4, (5,)), ("s", 27, 1, 8, ()), ("z", 12, 256, 144, (0, 2))], 8))
    seed("gguf", "unpadded", gguf(3, [], [("a", 24, 1, 1, (3, 1, 2, 1))], trim=26))
    seed("gguf", "split", gguf(3, [("split.no", (2, b"\0\0")), ("split.count", (2, b"\3\0")), ("split.tensors.count", (5, b"\1\0\0\0"))], [("a", 30, 1, 2, (2,))]))


def llmq_seeds(program):
    rows = safetensors([("model.layers.0.mlp.up_proj.weight", "BF16", 16, (4, 40)), ("model.norm.weight", "F32", 32, (8,))])
    with tempfile.TemporaryDirectory() as folder:
        source, out = os.path.join(folder, "m.safetensors"), os.path.join(folder, "m.llmq")
        with open(source, "wb") as f:
            f.write(rows)
        for form in ("mxfp4", "uint3:group=16", "int4:group=channel"):
            subprocess.run([program, "convert", "--in", source, "--out", out, "--format", form, "--compress", "none", "--nonfinite", "zero", "--force", "--quiet"], check=True)
            with open(out, "rb") as f:
                data = f.read()
            offset, stored, _, n_chunks = struct.unpack_from("<4Q", data, len(data) - 96)
            table, text = data[offset + stored:offset + stored + 24 * n_chunks], data[offset:offset + stored]
            seed("llmq", form.split(":")[0], bytes([1, n_chunks, 0]) + table + text)
    frame = zstandard.ZstdCompressor(write_content_size=True).compress(bytes(160))
    seed("llmq", "frame", bytes([0, 10]) + frame)


def main():
    text_seeds()
    safetensors_seeds()
    gguf_seeds()
    llmq_seeds(sys.argv[1])


if __name__ == "__main__":
    main()
