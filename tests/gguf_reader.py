"""GGUF files in plain Python: a strict reader and a small writer, sharing nothing with the C sources.

What it is
  read(path)                          Gguf: .version, .alignment, .keys {name: Key}, .tensors {name: Info}, in file order; everything checked
  write(path, keys, tensors, ...)     makes input files, also odd ones
  Key.raw                             the bytes of the whole entry, name and value
  Info.dims                           outermost first; .data: the tensor's bytes; .decode(): binary32

Formula
  "GGUF" | version u32 | n_tensors u64 | n_keys u64 | keys | infos | zeros to the alignment | data
  key: length u64, name, type u32, value; info: length u64, name, n_dims u32, dims u64 (innermost first), type u32, offset u64

Corner cases
  The reader is strict: offsets are the running sum of padded sizes, padding is zero, nothing stands behind the last tensor's padding, names are
  unique, at most 63 bytes, rows are whole blocks.

Worked number
  No keys, one F32 tensor "a" of 3 weights: 24 + 33 bytes, data at 64, 12 bytes and 20 zeros, 96 bytes in all.
"""
import struct
from collections import namedtuple

import numpy as np

import ggml_blocks

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
NAMES = {"u8": 0, "i8": 1, "u16": 2, "i16": 3, "u32": 4, "i32": 5, "f32": 6, "bool": 7, "string": 8, "array": 9, "u64": 10, "i64": 11, "f64": 12}
STRING, ARRAY = 8, 9
PLAIN = {24: ("I8", 1), 25: ("I16", 2), 26: ("I32", 4), 27: ("I64", 8), 28: ("F64", 8)}
Key = namedtuple("Key", "name type value raw")


class GgufError(Exception):
    """The file is not what a strict reader takes; the text says why."""


def check(condition, text):
    if not condition:
        raise GgufError(text)


def align(n, alignment):
    return -(-n // alignment) * alignment


class Cursor:
    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def bytes(self, n):
        check(self.at + n <= len(self.data), f"cut at byte {self.at}")
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, code):
        return struct.unpack("<" + code, self.bytes(struct.calcsize("<" + code)))[0]

    def string(self):
        return self.bytes(self.number("Q"))

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            item, count = self.number("I"), self.number("Q")
            return [self.value(item) for _ in range(count)]
        check(kind in SCALARS, f"value type {kind}")
        return self.number(SCALARS[kind])


class Info:
    """One tensor of a file."""

    def __init__(self, name, dims, kind, offset):
        self.name, self.dims, self.kind, self.offset = name, dims, kind, offset
        self.type = PLAIN[kind][0] if kind in PLAIN else ggml_blocks.type_of_id(kind)
        check(self.type is not None, f"tensor '{name}': type {kind}")
        block, block_nbytes = (1, PLAIN[kind][1]) if kind in PLAIN else ggml_blocks.TYPES[self.type][1:]
        self.count = int(np.prod(dims, dtype=object)) if dims else 1
        check(not dims or dims[-1] % block == 0, f"tensor '{name}': rows are no whole blocks")
        self.nbytes = self.count // block * block_nbytes
        self.data = b""

    def decode(self):
        return ggml_blocks.decode(self.type, self.data, self.count).reshape(self.dims)


class Gguf:
    """One file; see the head of this file."""

    def __init__(self, data, strict=True):
        cursor = Cursor(data)
        check(cursor.bytes(4) == b"GGUF", "no GGUF")
        self.version = cursor.number("I")
        check(self.version in (2, 3), f"version {self.version}")
        n_tensors, n_keys = cursor.number("Q"), cursor.number("Q")
        self.keys, self.tensors = {}, {}
        for _ in range(n_keys):
            begin = cursor.at
            name = cursor.string().decode()
            check(name not in self.keys, f"key '{name}' is there twice")
            kind = cursor.number("I")
            value = cursor.value(kind)
            self.keys[name] = Key(name, kind, value, data[begin:cursor.at])
        self.alignment = self.keys["general.alignment"].value if "general.alignment" in self.keys else 32
        check(self.alignment and self.alignment & (self.alignment - 1) == 0, f"alignment {self.alignment}")
        for _ in range(n_tensors):
            self._read_info(cursor)
        self._read_data(data, cursor.at, strict)

    def _read_info(self, cursor):
        name = cursor.string().decode()
        check(name not in self.tensors, f"tensor '{name}' is there twice")
        check(len(name.encode()) < 64, f"name '{name}' is too long")
        rank = cursor.number("I")
        check(rank <= 4, f"tensor '{name}': {rank} dims")
        dims = tuple(cursor.number("Q") for _ in range(rank))[::-1]
        kind, offset = cursor.number("I"), cursor.number("Q")
        self.tensors[name] = Info(name, dims, kind, offset)

    def _read_data(self, data, end_of_infos, strict):
        self.data_offset = begin = align(end_of_infos, self.alignment)
        check(not strict or begin <= len(data) or not self.tensors, "cut before the data")
        check(not any(data[end_of_infos:begin]), "padding before the data is not zero")
        at = 0
        for info in self.tensors.values():
            check(info.offset == at, f"tensor '{info.name}': offset {info.offset}, not {at}")
            info.data = data[begin + at:begin + at + info.nbytes]
            check(len(info.data) == info.nbytes, f"tensor '{info.name}' is cut")
            end = at + info.nbytes
            at = align(end, self.alignment)
            check(not any(data[begin + end:begin + at]), f"padding behind '{info.name}' is not zero")
        if strict:
            check(len(data) == begin + at, f"{len(data)} bytes, not {begin + at}")


def read(path, strict=True):
    with open(path, "rb") as f:
        return Gguf(f.read(), strict)


# ---- writing ------------------------------------------------------------------------------------------------------------------------


def pack_string(text):
    text = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(text)) + text


def pack_value(kind, value):
    """kind: a name of NAMES, or ("array", kind of the items)."""
    if isinstance(kind, tuple):
        item = kind[1]
        head = struct.pack("<IQ", NAMES["array"] if isinstance(item, tuple) else NAMES[item], len(value))
        return head + b"".join(pack_value(item, v) for v in value)
    return pack_string(value) if kind == "string" else struct.pack("<" + SCALARS[NAMES[kind]], value)


def pack_key(name, kind, value):
    return pack_string(name) + struct.pack("<I", NAMES["array" if isinstance(kind, tuple) else kind]) + pack_value(kind, value)


def stored(kind, x):
    """Weights as bytes of a plain type; bytes are taken as they are."""
    if isinstance(x, bytes):
        return x
    x = np.ascontiguousarray(x)
    if kind == "BF16":
        bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
        bits = np.where(np.isfinite(x), bits + 0x7FFF + (bits >> 16 & 1), bits)
        return (bits >> 16).astype("<u2").tobytes()
    with np.errstate(over="ignore"):
        return x.astype({"F32": "<f4", "F16": "<f2", "F64": "<f8", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}[kind]).tobytes()


def image(keys, tensors, version=3, pad_last=True):
    """Bytes of a file. keys: [(name, kind, value)]; tensors: [(name, type, dims outermost first, array or bytes)]."""
    ids = {**{name: row[0] for name, row in ggml_blocks.TYPES.items()}, **{row[0]: kind for kind, row in PLAIN.items()}}
    alignment = next((value for name, _, value in keys if name == "general.alignment"), 32)
    infos, data = b"", b""
    for name, kind, dims, x in tensors:
        number = ids[kind] if isinstance(kind, str) else kind
        infos += pack_string(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims[::-1]) + struct.pack("<IQ", number, len(data))
        piece = stored(kind, x)
        data += piece + b"\0" * (align(len(piece), alignment) - len(piece))
        last = len(piece)
    if tensors and not pad_last:
        data = data[:len(data) - (align(last, alignment) - last)]
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(pack_key(*key) for key in keys) + infos
    return head + b"\0" * (align(len(head), alignment) - len(head)) + data


def write(path, keys, tensors, **kwargs):
    with open(path, "wb") as f:
        f.write(image(keys, tensors, **kwargs))
    return path


def write_split(stem, keys, parts):
    """STEM-0000i-of-0000n.gguf; keys go into the first part. Returns the paths."""
    total, paths = sum(len(p) for p in parts), []
    for i, part in enumerate(parts):
        own = [("split.no", "u16", i), ("split.count", "u16", len(parts)), ("split.tensors.count", "i32", total)]
        extra = keys if i == 0 else [k for k in keys if k[0] == "general.alignment"]
        paths.append(write(f"{stem}-{i + 1:05d}-of-{len(parts):05d}.gguf", extra + own, part))
    return paths


if __name__ == "__main__":
    import sys
    for path in sys.argv[1:]:
        model = read(path, strict=False)
        print(path, "version", model.version, "alignment", model.alignment)
        for key in model.keys.values():
            print(" ", key.name, key.type, repr(key.value)[:80])
        for info in model.tensors.values():
            print(" ", info.name, info.type, info.dims, info.nbytes)
