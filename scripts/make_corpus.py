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
    llmq_seeds(sys.argv[1])


if __name__ == "__main__":
    main()
