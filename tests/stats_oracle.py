#!/usr/bin/env python3
"""Activation statistics by hand: imatrix .dat and .gguf, torch-like .pt, llmq's statistics safetensors, written and read without llmq and without torch.

What it is
  The oracle of tests/cli/test_cli_stats.py and the maker of the seeds of fuzz_stats and of the vectors of the C tests: struct, zipfile, json and pickle opcodes
  written byte by byte. It shares nothing with the C sources.

How to run
  python3 tests/stats_oracle.py --corpus tests/fuzz/corpus/stats     writes the seeds
  python3 tests/stats_oracle.py --self-check                         the worked numbers below, and every writer against its reader

Worked numbers
  .dat: value 22.5 of 365 calls, chunk 512: in_sum2 11520, counts 186880, E[x^2] 22.5/365.
  importance of in_sum2 1, 0, 3: 0.75, 0, 2.25.
"""
import io
import json
import os
import pickletools
import struct
import sys
import zipfile

CHUNK = 512


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


# ---- imatrix .dat -------------------------------------------------------------------------------------------------------------------


def write_dat(entries, chunks=None, dataset=None):
    """entries: [(name, calls, [values])]"""
    out = struct.pack("<i", len(entries))
    for name, calls, values in entries:
        out += struct.pack("<i", len(name.encode())) + name.encode() + struct.pack("<ii", calls, len(values)) + struct.pack(f"<{len(values)}f", *values)
    if chunks is not None:
        out += struct.pack("<i", chunks)
        if dataset is not None:
            out += struct.pack("<i", len(dataset.encode())) + dataset.encode()
    return out


def read_dat(data):
    """([(name, calls, [values])], chunks or None, dataset or None); the whole file must be used."""
    n, at, entries = struct.unpack_from("<i", data)[0], 4, []
    for _ in range(n):
        length, = struct.unpack_from("<i", data, at)
        name = data[at + 4:at + 4 + length].decode()
        at += 4 + length
        calls, count = struct.unpack_from("<ii", data, at)
        entries.append((name, calls, list(struct.unpack_from(f"<{count}f", data, at + 8))))
        at += 8 + 4 * count
    chunks = dataset = None
    if at < len(data):
        chunks, at = struct.unpack_from("<i", data, at)[0], at + 4
    if at < len(data):
        length = struct.unpack_from("<i", data, at)[0]
        dataset, at = data[at + 4:at + 4 + length].decode(), at + 4 + length
    assert at == len(data)
    return entries, chunks, dataset


# ---- GGUF ---------------------------------------------------------------------------------------------------------------------------


def _string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def write_gguf(tensors, datasets=None, chunk_count=None, chunk_size=None, kind="imatrix", extra=(), alignment=32):
    """tensors: {name: (dims innermost first, [values])}, all F32. extra: [(key, type, bytes)]."""
    keys = []
    if kind is not None:
        keys.append(("general.type", 8, _string(kind)))
    if datasets is not None:
        keys.append(("imatrix.datasets", 9, struct.pack("<IQ", 8, len(datasets)) + b"".join(_string(d) for d in datasets)))
    if chunk_count is not None:
        keys.append(("imatrix.chunk_count", 4, struct.pack("<I", chunk_count)))
    if chunk_size is not None:
        keys.append(("imatrix.chunk_size", 4, struct.pack("<I", chunk_size)))
    keys += list(extra)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for name, number, data in keys:
        head += _string(name) + struct.pack("<I", number) + data
    data = b""
    for name, (dims, values) in tensors.items():
        head += _string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, 0, len(data))
        data += struct.pack(f"<{len(values)}f", *values)
        data += bytes(-len(data) % alignment)
    return head + bytes(-len(head) % alignment) + data


def read_gguf(data):
    """({key: value}, {tensor name: (dims innermost first, [values])})"""
    at = 0

    def take(fmt):
        nonlocal at
        values = struct.unpack_from("<" + fmt, data, at)
        at += struct.calcsize("<" + fmt)
        return values if len(values) > 1 else values[0]

    def text():
        nonlocal at
        n = take("Q")
        at += n
        return data[at - n:at].decode()

    def value(kind):
        if kind == 8:
            return text()
        if kind == 9:
            inner, n = take("IQ")
            return [value(inner) for _ in range(n)]
        return take({0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}[kind])

    assert data[:4] == b"GGUF"
    at = 4
    version, n_tensors, n_keys = take("IQQ")
    assert version == 3
    keys = {}
    for _ in range(n_keys):
        name = text()
        keys[name] = value(take("I"))
    infos = []
    for _ in range(n_tensors):
        name, rank = text(), take("I")
        dims = [take("Q") for _ in range(rank)]
        kind, offset = take("IQ")
        assert kind == 0, "F32 only"
        infos.append((name, dims, offset))
    base, out = at + (-at % 32), {}
    for name, dims, offset in infos:
        n = 1
        for d in dims:
            n *= d
        out[name] = (dims, list(struct.unpack_from(f"<{n}f", data, base + offset)))
    return keys, out


# ---- safetensors --------------------------------------------------------------------------------------------------------------------

FORMATS = {"F32": "f", "F64": "d", "I64": "q", "U64": "Q", "I32": "i", "BF16": "H", "F16": "e", "U8": "B"}


def write_safetensors(tensors, metadata=None):
    """tensors: {name: (dtype, shape, [values])}; BF16 values are given as 16-bit integers."""
    header, data = ({"__metadata__": metadata} if metadata is not None else {}), b""
    for name, (dtype, shape, values) in tensors.items():
        raw = struct.pack(f"<{len(values)}{FORMATS[dtype]}", *values)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def read_safetensors(data):
    """(metadata, {name: (dtype, shape, [values])}); tensors must be aligned to their values."""
    n, = struct.unpack_from("<Q", data)
    header, out = json.loads(data[8:8 + n]), {}
    metadata = header.pop("__metadata__", {})
    assert (8 + n) % 8 == 0
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        fmt = FORMATS[entry["dtype"]]
        assert begin % struct.calcsize(fmt) == 0
        out[name] = (entry["dtype"], entry["shape"], list(struct.unpack_from(f"<{(end - begin) // struct.calcsize(fmt)}{fmt}", data, 8 + n + begin)))
    return metadata, out


# ---- torch-like .pt -----------------------------------------------------------------------------------------------------------------

STORAGE = {"F32": ("FloatStorage", "f"), "F16": ("HalfStorage", "e"), "F64": ("DoubleStorage", "d"), "BF16": ("BFloat16Storage", "H")}


class Pickle:
    """Opcodes, one method a kind of value; protocol 2 as torch writes it, or 4."""

    def __init__(self, protocol=2):
        self.out, self.protocol, self.storages = b"\x80" + bytes([protocol]), protocol, []

    def text(self, text):
        raw = text.encode()
        self.out += (b"\x8c" + bytes([len(raw)]) + raw + b"\x94") if self.protocol >= 4 and len(raw) < 256 else b"X" + struct.pack("<I", len(raw)) + raw
        return self

    def integer(self, n):
        self.out += b"K" + bytes([n]) if 0 <= n < 256 else b"M" + struct.pack("<H", n) if 0 <= n < 65536 else b"J" + struct.pack("<i", n) if -2**31 <= n < 2**31 else b"\x8a\x08" + struct.pack("<q", n)
        return self

    def name(self, module, name):
        if self.protocol >= 4:
            self.text(module).text(name)
            self.out += b"\x93"
        else:
            self.out += b"c" + module.encode() + b"\n" + name.encode() + b"\n"
        return self

    def numbers(self, values):
        if len(values) > 3:
            self.out += b"("
        for v in values:
            self.integer(v)
        self.out += {0: b")", 1: b"\x85", 2: b"\x86", 3: b"\x87"}.get(len(values), b"t")
        return self

    def tensor(self, dtype, values, shape=None, offset=0, strides=None, key=None, numel=None):
        shape = [len(values)] if shape is None else shape
        if strides is None:
            strides = [1] * len(shape)
            for i in range(len(shape) - 1, 0, -1):
                strides[i - 1] = strides[i] * shape[i]
        if key is None:
            key = str(len(self.storages))
            self.storages.append((key, struct.pack(f"<{len(values)}{STORAGE[dtype][1]}", *values)))
        self.name("torch._utils", "_rebuild_tensor_v2")
        self.out += b"((" # arguments, persistent id
        self.text("storage").name("torch", STORAGE[dtype][0]).text(key).text("cpu").integer(len(values) if numel is None else numel)
        self.out += b"tQ"
        self.integer(offset).numbers(shape).numbers(strides)
        self.out += b"\x89"
        self.name("collections", "OrderedDict")
        self.out += b")RtR"
        return self

    def dict(self, pairs):
        """pairs: [(key, function that writes the value)]"""
        self.out += b"}("
        for key, write in pairs:
            self.text(key)
            write()
        self.out += b"u"
        return self

    def end(self):
        self.out += b"."
        return self.out


def write_zip(entries, method=zipfile.ZIP_STORED):
    """entries: [(name, bytes)]; every date is 1980, so that the bytes are always the same."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", method) as archive:
        for name, data in entries:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = method
            archive.writestr(info, data)
    return raw.getvalue()


def write_pt(pickle, storages, stem="archive", extra=()):
    return write_zip([(f"{stem}/data.pkl", pickle)] + [(f"{stem}/data/{key}", data) for key, data in storages] + [(f"{stem}/{n}", d) for n, d in extra] + [(f"{stem}/version", b"3\n")])


def write_act_scales(scales, protocol=2, dtype="F32"):
    """scales: {module name: [values]}"""
    p = Pickle(protocol)
    p.dict([(name, lambda v=values: p.tensor(dtype, v)) for name, values in scales.items()])
    return write_pt(p.end(), p.storages, extra=[("byteorder", b"little")])


def write_awq(groups, n_clips=1):
    """groups: [(absorber, [consumers], [values])]"""
    p = Pickle()

    def scales():
        p.out += b"]("
        for absorber, consumers, values in groups:
            p.text(absorber)
            p.out += b"("
            for consumer in consumers:
                p.text(consumer)
            p.out += b"t"
            p.tensor("F16", values)
            p.out += b"\x87"
        p.out += b"e"

    def clips():
        p.out += b"]("
        for i in range(n_clips):
            p.text(f"m.layers.{i}.c")
            p.tensor("F16", [1.0, 2.0], [2, 1, 1])
            p.out += b"\x86"
        p.out += b"e"

    p.dict([("scale", scales), ("clip", clips)])
    return write_pt(p.end(), p.storages)


# ---- formulas -----------------------------------------------------------------------------------------------------------------------


def importance(sum2):
    """The definition of stats_lookup.h in Python's doubles."""
    most = max(sum2)
    if most <= 0:
        return None
    u = [x / most for x in sum2]
    total = 0.0
    for x in u:
        total += x
    out = []
    for x, s in zip(u, sum2):
        w = f32(x * len(sum2) / total)
        out.append(2.0**-126 if s > 0 and w < 2.0**-126 else w)
    return out


def legacy_of(sum2, counts, n_in, chunk=CHUNK):
    """(calls, values) of a .dat entry; sum2: [n_mat * n_in] flat."""
    calls = -(-max(counts) // chunk)
    return calls, [f32(s * calls / counts[i // n_in]) if counts[i // n_in] else f32(calls) for i, s in enumerate(sum2)]


# ---- seeds and self-check -----------------------------------------------------------------------------------------------------------


def seeds():
    dat = [("blk.0.attn_q.weight", 3, [1.5, 0.0, 4.0]), ("blk.0.ffn_down.weight", 0, [1.0])]
    facts = {"format": "llmq-actstats", "version": "1", "seq_len": "512", "sequences": "2", "dataset": "d", "alias": '{"k":"w"}', "tool": "t"}
    fields = {"w.counts": ("I64", [2], [512, 0]), "w.in_hist": ("U64", [2048], [0] * 2048), "w.in_sum2": ("F32", [2, 2], [1.0, 2.0, 3.0, 4.0]), "w.in_absmax": ("F32", [2, 2], [1.0, 2.0, 3.0, 4.0]),
              "w.in_min": ("F32", [2, 2], [-1.0] * 4), "w.in_max": ("F32", [2, 2], [1.0] * 4), "w.in_gram": ("F32", [2, 3], [1.0] * 6), "w.in_sample": ("BF16", [1, 2], [0x3f80, 0x4000])}
    p = Pickle()
    p.out += b"ccollections\nOrderedDict\nq\x00)Rq\x01(X\x01\x00\x00\x00a"
    p.tensor("BF16", [0x3f80, 0x4000])
    p.out += b"u}X\x09\x00\x00\x00_metadata}sb"
    state = write_pt(p.end(), p.storages)
    return {
        "dat": write_dat(dat, 7, "text"), "dat_bare": write_dat(dat[:1]),
        "gguf": write_gguf({"a.in_sum2": ([3, 2], [1.0, 0.0, 2.0, 3.0, 4.0, 5.0]), "a.counts": ([1, 2], [10.0, 0.0])}, ["x", "y"], 5, 512),
        "gguf_sums": write_gguf({"a.sums": ([3], [1.0, 0.0, 2.0]), "a.counts": ([1], [10.0])}, kind=None),
        "safetensors": write_safetensors(fields, facts), "safetensors_plain": write_safetensors({"a.in_absmax": ("F16", [2], [1.0, 2.0])}),
        "act_scales": write_act_scales({"model.layers.0.self_attn.q_proj": [1.0, 2.0], "b": [3.0]}),
        "act_scales_4": write_act_scales({"a": [1.0, 2.0]}, protocol=4, dtype="F64"), "awq": write_awq([("n", ["q", "k"], [1.0, 2.0]), ("v", ["o"], [0.5])]), "state_dict": state, "pickle": zipfile.ZipFile(io.BytesIO(state)).read("archive/data.pkl"),
        "pickle_awq": zipfile.ZipFile(io.BytesIO(write_awq([("n", ["q", "k"], [1.0])]))).read("archive/data.pkl"),
        "pickle_4": zipfile.ZipFile(io.BytesIO(write_act_scales({"a": [1.0]}, protocol=4))).read("archive/data.pkl"),
    }


def self_check():
    assert importance([1.0, 0.0, 3.0]) == [0.75, 0.0, 2.25]
    dat = [("a", 365, [22.5, 0.0])]
    assert read_dat(write_dat(dat, 365, "d")) == (dat, 365, "d") and read_dat(write_dat(dat)) == (dat, None, None)
    assert legacy_of([22.5 * 512, 0.0], [365 * 512], 2) == (365, [22.5, 0.0])
    keys, tensors = read_gguf(seeds()["gguf"])
    assert keys["imatrix.datasets"] == ["x", "y"] and tensors["a.counts"] == ([1, 2], [10.0, 0.0])
    metadata, fields = read_safetensors(seeds()["safetensors"])
    assert metadata["version"] == "1" and fields["w.counts"] == ("I64", [2], [512, 0])
    for name in ("act_scales", "act_scales_4", "awq", "state_dict"):
        archive = zipfile.ZipFile(io.BytesIO(seeds()[name]))
        assert archive.testzip() is None
        pickletools.dis(archive.read("archive/data.pkl"), out=io.StringIO())
    print("stats_oracle: fine")


def main():
    if sys.argv[1:2] == ["--corpus"]:
        os.makedirs(sys.argv[2], exist_ok=True)
        for name, data in seeds().items():
            with open(os.path.join(sys.argv[2], name), "wb") as f:
                f.write(data)
        return
    self_check()


if __name__ == "__main__":
    main()
