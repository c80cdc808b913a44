#!/usr/bin/env python3
"""A second reader of .llmq containers, written from formats/FORMAT.md alone.

What it is
  The page says that it is all a reader needs; this file holds it to that. It shares no code with the C sources. It is
  simple rather than fast: a file is read into memory whole, every plane is decoded when the file is opened, and every
  check of section 5 is made, always. Whatever is wrong raises LlmqError with the reason.

As a module
  model = reader.read("model.mxfp4.llmq")       opens all shards of a set, whichever of them is named
  model.tensors["name"].decode()                numpy float32 of the tensor's shape
  model.tensors["name"].source_bytes()          a kept tensor's bytes, exactly those of the source
  model.tensors["name"].planes["codes"].fields  numpy unsigned integers, rows x cols
  model.blobs["config.json"]                    bytes
  model.metadata                                dict of strings
  reader.Shard(data, "label")                   one file held in memory, without its set

As a program (needs numpy, zstandard and xxhash)
  tests/reader.py FILE.llmq [--npz OUT.npz] [--verify]
      prints a listing; --npz writes the decoded tensors; --verify prints only "ok" or what is wrong. Exit code 0, or 3
      for a damaged file.

Worked number
  Plane of 4 bits, [1, 3], bytes 21 03: column 0 is 1 (low nibble), column 1 is 2, column 2 is 3; the top nibble must be 0.
"""

import argparse
import json
import os
import re
import struct
import sys
from collections import namedtuple

import numpy as np
import xxhash
import zstandard

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import ggml_blocks  # noqa: E402  (beside this file)

MIB = 1 << 20
GIB = 1 << 30
HEAD_MAGIC = b"\x89LMQ\r\n\x1a\n"
TAIL_MAGIC = b"\n\x1a\n\rQML\x89"
HEADER_BYTES, TRAILER_BYTES, ENTRY_BYTES = 64, 96, 24
FEATURE_ZSTD = 1
MAX_TILE = 16 * MIB
MAX_NUMBER = (1 << 53) - 1
MAX_CHUNKS = 1 << 24
MAX_SHARDS = 99999
MAX_DEPTH = 16
MAX_DIMS = 64
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

DTYPE_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64,
    "I64": 64, "F64": 64, "C64": 64,
}
NUMPY_DTYPES = {
    "BOOL": "u1", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8", "I64": "<i8",
    "F16": "<f2", "F32": "<f4", "F64": "<f8",
}
FAMILIES = ("mx", "affine", "nvfp4", "ggml", "bfp", "bfp-prime", "float", "codebook")
SIDE = 128  # rows and columns of a square
SCALE_BITS = {"e8m0": 8, "bf16": 16, "f16": 16, "f32": 32, "e4m3": 8}
MAX_FIELD_BITS = 4096
SPLIT_PLANES = {"BF16": ["exponent", "rest"], "F16": ["high", "low"]}
F8_FACTS = {"F8_E4M3": (4, 3, 7, "nan"), "F8_E5M2": (5, 2, 15, "ieee"), "F8_E4M3FNUZ": (4, 3, 8, "none"), "F8_E5M2FNUZ": (5, 2, 16, "none")}


class LlmqError(Exception):
    """The file is not a valid container; the text says why."""


def check(condition, text, *args):
    if not condition:
        raise LlmqError(text.format(*args) if args else text)


def digest128(data):
    return xxhash.xxh3_128_digest(data)


def digest64(data):
    return xxhash.xxh3_64_intdigest(data)


def ceil_div(a, b):
    return -(-a // b)


def product(numbers):
    result = 1
    for n in numbers:
        result *= n
    return result


# --- section 1: header, trailer, chunk table --------------------------------------------------------------------------

Header = namedtuple("Header", "major minor header_bytes required optional align shard_index shard_count checksum")
Trailer = namedtuple("Trailer", "index_offset index_stored index_raw n_chunks index_digest set_digest file_bytes header_checksum")
Chunk = namedtuple("Chunk", "offset stored codec checksum")


def parse_header(data):
    magic, *fields = struct.unpack_from("<8sHHIQQIIIIQQ", data, 0)
    major, minor, header_bytes, required, optional, align, shard_index, shard_count, zero32, zero64, checksum = fields
    check(magic == HEAD_MAGIC, "this is no llmq file: wrong magic number")
    check(checksum == digest64(data[:56]), "header: wrong checksum")
    check(major == 1, "header: major version {} is not 1", major)
    check(header_bytes == HEADER_BYTES, "header: header_bytes is {}, not 64", header_bytes)
    check(required & ~FEATURE_ZSTD == 0, "header: unknown required features {:#x}", required)
    check(64 <= align <= 1 << 21 and align & (align - 1) == 0, "header: align {} is no power of two in 64 .. 2^21", align)
    check(1 <= shard_count <= MAX_SHARDS, "header: shard_count {} is not 1 .. 99999", shard_count)
    check(shard_index < shard_count, "header: shard {} of {}", shard_index, shard_count)
    check(zero32 == 0 and zero64 == 0, "header: reserved fields are not 0")
    return Header(major, minor, header_bytes, required, optional, align, shard_index, shard_count, checksum)


def parse_trailer(data, header):
    *fields, checksum, magic = struct.unpack_from("<QQQQ16s16sQQQ8s", data, len(data) - TRAILER_BYTES)
    trailer = Trailer(*fields)
    check(magic == TAIL_MAGIC, "trailer: wrong magic number; the file is cut or longer than written")
    check(checksum == digest64(data[len(data) - TRAILER_BYTES:len(data) - 16]), "trailer: wrong checksum")
    check(trailer.file_bytes == len(data), "trailer: the file has {} bytes, not {}", len(data), trailer.file_bytes)
    check(trailer.header_checksum == header.checksum, "trailer: belongs to another header")
    check(trailer.index_raw <= GIB and trailer.index_raw <= 4096 * trailer.index_stored, "trailer: the index is too large")
    check(trailer.index_stored <= trailer.index_raw, "trailer: index_stored is larger than index_raw")
    check(trailer.n_chunks <= MAX_CHUNKS, "trailer: {} chunks are too many", trailer.n_chunks)
    end = trailer.index_offset + trailer.index_stored + ENTRY_BYTES * trailer.n_chunks + TRAILER_BYTES
    check(end == len(data), "trailer: index and chunk table do not end where the trailer begins")
    check(trailer.index_offset >= HEADER_BYTES, "trailer: the index lies in the header")
    check(digest128(data[trailer.index_offset:-TRAILER_BYTES]) == trailer.index_digest, "wrong digest of index and chunk table")
    return trailer


def parse_table(data, trailer):
    begin = trailer.index_offset + trailer.index_stored
    table = data[begin:begin + ENTRY_BYTES * trailer.n_chunks]
    return [Chunk(*entry) for entry in struct.iter_unpack("<QIIQ", table)]


def check_table(chunks, index_offset, required):
    """Ranges, codecs and overlap, for every chunk of the file."""
    for i, chunk in enumerate(chunks):
        check(chunk.stored >= 1, "chunk {}: no bytes", i)
        check(chunk.codec in (0, 1), "chunk {}: unknown codec {}", i, chunk.codec)
        check(chunk.codec == 0 or required & FEATURE_ZSTD, "chunk {}: zstd without its feature bit", i)
        check(HEADER_BYTES <= chunk.offset and chunk.offset + chunk.stored <= index_offset, "chunk {}: outside of the planes", i)
    end = HEADER_BYTES
    for chunk in sorted(chunks):
        check(chunk.offset >= end, "chunks overlap at byte {}", chunk.offset)
        end = chunk.offset + chunk.stored


def unzstd(stored, size, what):
    """Decodes one zstd frame that must state and give `size` bytes."""
    check(stored[:4] == ZSTD_MAGIC, "{}: this is no zstd frame", what)
    try:
        facts = zstandard.get_frame_parameters(stored)
        check(facts.content_size == size, "{}: the zstd frame states {} bytes, not {}", what, facts.content_size, size)
        check(facts.dict_id == 0, "{}: the zstd frame wants a dictionary", what)
        check(facts.window_size <= 16 * MIB, "{}: the zstd window has more than 16 MiB", what)
        decoder = zstandard.ZstdDecompressor(max_window_size=16 * MIB).decompressobj()
        out = decoder.decompress(stored)
    except zstandard.ZstdError as error:
        raise LlmqError(f"{what}: {error}") from None
    check(decoder.eof, "{}: the zstd frame is cut", what)
    check(decoder.unused_data == b"", "{}: bytes behind the zstd frame", what)
    check(len(out) == size, "{}: the zstd frame gives {} bytes, not {}", what, len(out), size)
    return out


# --- section 2: JSON --------------------------------------------------------------------------------------------------

def unique_object(pairs):
    result = dict(pairs)
    check(len(result) == len(pairs), "index: a name occurs twice in its object: {}", sorted(k for k, _ in pairs)[:8])
    return result


def plain_integer(text):
    check(text.isdigit(), "index: {} is not digits only", text)
    return int(text[:40])  # a longer one is beyond every limit anyway


def no_such_number(text):
    raise LlmqError(f"index: {text} is not a plain decimal integer")


def check_strings(text):
    """Refuses U+0000 and lone surrogates, which JSON can write as escapes."""
    check("\\u0000" not in text.replace("\\\\", ""), "index: U+0000 in a string")
    pairs = re.sub(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..", "", text.replace("\\\\", ""))
    check(not re.search(r"\\u[dD][89a-fA-F]", pairs), "index: a lone surrogate in a string")


def nesting(value):
    """Depth of nested objects and arrays; a plain value has 0."""
    deepest, stack = 0, [(value, 1)]
    while stack:
        node, depth = stack.pop()
        if isinstance(node, (dict, list)):
            deepest = max(deepest, depth)
            stack += [(child, depth + 1) for child in (node.values() if isinstance(node, dict) else node)]
    return deepest


def parse_index(text):
    try:
        text = text.decode("utf-8")
        check_strings(text)
        index = json.loads(text, object_pairs_hook=unique_object, parse_int=plain_integer,
                           parse_float=no_such_number, parse_constant=no_such_number)
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise LlmqError(f"index: {error}") from None
    check(isinstance(index, dict), "index: not an object")
    check(nesting(index) <= MAX_DEPTH, "index: nested more than 16 deep")
    return index


def member(node, key, kind, what):
    """A member that must be there and of this type (int: a number, never true or false)."""
    check(key in node, "{}: member '{}' is missing", what, key)
    check(type(node[key]) is kind, "{}: member '{}' is not a {}", what, key, kind.__name__)
    check(kind is not int or node[key] <= MAX_NUMBER, "{}: member '{}' is more than 2^53 - 1", what, key)
    return node[key]


def optional(node, key, kind, absent, what):
    """A member that may be missing, else of this type."""
    return member(node, key, kind, what) if key in node else absent


def numbers(node, key, count, what):
    """A member that is an array of numbers; count None: any length."""
    values = member(node, key, list, what)
    check(all(type(v) is int and v <= MAX_NUMBER for v in values), "{}: '{}' holds something that is no number up to 2^53 - 1", what, key)
    check(count is None or len(values) == count, "{}: '{}' does not hold {} numbers", what, key, count)
    return values


# --- section 4: formats -----------------------------------------------------------------------------------------------

class Format:
    """The facts of one format, and what its codes stand for. A family we do not know is not looked into."""

    def __init__(self, name, node):
        self.name, self.what = name, f"format '{name}'"
        check(isinstance(node, dict), "{}: not an object", self.what)
        self.family = optional(node, "family", str, "", self.what)
        optional(node, "element", str, "", self.what)
        self.known = self.family in FAMILIES
        self.zero_point = False
        if self.family == "ggml":
            self._read_blocks(node)
        elif self.family == "codebook":
            self._read_levels(node)
        elif self.known:
            self._read(node)

    def _read_blocks(self, node):
        self.type, self.block = member(node, "type", str, self.what), member(node, "block", int, self.what)
        self.block_bytes = member(node, "block_bytes", int, self.what)
        check(self.block >= 1 and 1 <= self.block_bytes <= MAX_FIELD_BITS // 8, "{}: {} weights in {} bytes", self.what, self.block, self.block_bytes)
        self.known = self.type in ggml_blocks.TYPES
        check(not self.known or ggml_blocks.TYPES[self.type][1:] == (self.block, self.block_bytes), "{}: {} has other blocks", self.what, self.type)

    def _read_levels(self, node):
        """A codebook: the numbers are all there is to know of its codes."""
        words = member(node, "levels", list, self.what)
        check(member(node, "bits", int, self.what) == 4 and len(words) == 16, "{}: not 16 levels of 4 bits", self.what)
        check(all(type(w) is str and re.fullmatch("[0-9a-f]{8}", w) for w in words), "{}: levels are not 8 hex digits each", self.what)
        self.bits, self.exponent_bits, self.signed, self.fraction_bits = 4, 0, False, 0
        self.zero_point = optional(node, "zero_point", bool, False, self.what)
        self.levels = np.array([int(w, 16) for w in words], dtype=np.uint32).view(np.float32).astype(np.float64)
        check(not self.zero_point and np.isfinite(self.levels).all(), "{}: a zero point, or a level that is not finite", self.what)

    def _read(self, node):
        what = self.what
        self.bits = member(node, "bits", int, what)
        self.exponent_bits, self.mantissa_bits = optional(node, "exponent_bits", int, 0, what), optional(node, "mantissa_bits", int, 0, what)
        self.fraction_bits = optional(node, "fraction_bits", int, 0, what)
        self.zero_point = optional(node, "zero_point", bool, False, what)
        self.special = optional(node, "special", str, "none", what)
        self.bias = member(node, "bias", int, what) if self.exponent_bits else 0
        self.signed = not self.exponent_bits and member(node, "signed", bool, what)
        check(1 <= self.bits <= 16, "{}: {} bits", self.what, self.bits)
        check(self.special in ("none", "nan", "ieee"), "{}: unknown special '{}'", self.what, self.special)
        check(self.family == "affine" or not self.zero_point, "{}: zero points belong to family affine", self.what)
        check(self.family != "affine" or not (self.exponent_bits or self.fraction_bits), "{}: affine elements are integers", self.what)
        check(self.fraction_bits <= 64 and self.bias < 1 << 16, "{}: facts beyond reason", self.what)
        if self.exponent_bits:
            check(1 + self.exponent_bits + self.mantissa_bits == self.bits, "{}: sign, exponent and mantissa are not {} bits", self.what, self.bits)

    def values(self):
        """What each code stands for, binary64, exactly. Index: the code as an unsigned number."""
        codes = np.arange(1 << self.bits, dtype=np.int64)
        if self.family == "codebook":
            return self.levels
        if self.exponent_bits:
            return float_values(codes, self.exponent_bits, self.mantissa_bits, self.bias, self.special)
        if self.signed:
            codes = np.where(codes >> (self.bits - 1), codes - (1 << self.bits), codes)
        return np.ldexp(codes.astype(np.float64), -self.fraction_bits)


def float_values(codes, exponent_bits, mantissa_bits, bias, special):
    field = codes >> mantissa_bits & ((1 << exponent_bits) - 1)
    mantissa = codes & ((1 << mantissa_bits) - 1)
    hidden = np.where(field > 0, 1 << mantissa_bits, 0)
    magnitude = np.ldexp((mantissa + hidden).astype(np.float64), np.maximum(field, 1) - bias - mantissa_bits)
    top = field == (1 << exponent_bits) - 1
    if special == "ieee":
        magnitude = np.where(top, np.where(mantissa == 0, np.inf, np.nan), magnitude)
    elif special == "nan":
        magnitude = np.where(top & (mantissa == (1 << mantissa_bits) - 1), np.nan, magnitude)
    return np.copysign(magnitude, np.where(codes >> (exponent_bits + mantissa_bits), -1.0, 1.0))


def bf16_to_f32(fields):
    return (fields.astype(np.uint32) << 16).view(np.float32)


def e8m0_values(fields):
    power = np.ldexp(np.float64(1), fields.astype(np.int64) - 127)
    return np.where(fields == 255, np.nan, power)


def scale_values(kind, fields):
    """Stored scales as binary64."""
    if kind == "e8m0":
        return e8m0_values(fields)
    if kind == "e4m3":
        return float_values(fields.astype(np.int64), *F8_FACTS["F8_E4M3"])
    if kind == "bf16":
        return bf16_to_f32(fields).astype(np.float64)
    return fields.view("<f2" if kind == "f16" else "<f4").astype(np.float64)


def kept_values(dtype, fields):
    """A kept tensor's fields as binary32, rounded once where the dtype is wider."""
    if dtype == "BF16":
        return bf16_to_f32(fields)
    if dtype == "F8_E8M0":
        return e8m0_values(fields).astype(np.float32)
    if dtype in F8_FACTS:
        values = float_values(fields.astype(np.int64), *F8_FACTS[dtype]).astype(np.float32)
        return np.where(fields == 0x80, np.float32(np.nan), values) if dtype.endswith("FNUZ") else values
    check(dtype in NUMPY_DTYPES, "dtype {} has no binary32 values here", dtype)
    with np.errstate(over="ignore"):
        return fields.view(NUMPY_DTYPES[dtype]).astype(np.float32)


# --- section 3: planes ------------------------------------------------------------------------------------------------

def unpack_fields(data, rows, cols, bits, what):
    """The fields of a plane, rows x cols, as the smallest numpy unsigned type that holds them."""
    row_bytes = ceil_div(cols * bits, 8)
    if bits > 64:
        return None  # blocks: there are no numbers so wide, and nobody asks for them
    width = next(w for w in (8, 16, 32, 64) if w >= bits)
    matrix = np.frombuffer(data, dtype=np.uint8).reshape(rows, row_bytes)
    if bits == width:
        return matrix.reshape(-1).view(f"<u{width // 8}").reshape(rows, cols)
    fields = np.zeros((rows, cols), dtype=f"<u{width // 8}")
    if rows == 0 or cols == 0:
        return fields
    stream = np.unpackbits(matrix, axis=1, bitorder="little")
    check(not stream[:, cols * bits:].any(), "{}: unused bits at the end of a row are not 0", what)
    for bit in range(bits):
        fields |= stream[:, bit:cols * bits:bits].astype(fields.dtype) << fields.dtype.type(bit)
    return fields


class Plane:
    """A matrix of fields: what the index says of it, and after load() its bytes and fields."""

    def __init__(self, node, what):
        check(isinstance(node, dict), "{}: a plane is no object", what)
        self.name = member(node, "name", str, what)
        self.what = f"{what}, plane '{self.name}'"
        self.bits = member(node, "bits", int, self.what)
        self.shape = tuple(numbers(node, "shape", 2, self.what))
        self.tile = tuple(numbers(node, "tile", 2, self.what))
        self.chunks = tuple(numbers(node, "chunks", 2, self.what))
        self.offset = member(node, "offset", int, self.what) if "offset" in node else None
        check(1 <= self.bits <= MAX_FIELD_BITS, "{}: {} bits", self.what, self.bits)
        self._check_tile()

    def _check_tile(self):
        rows, cols = self.shape
        tile_rows, tile_cols = self.tile
        check(tile_rows >= 1 and tile_cols >= 1, "{}: a tile of nothing", self.what)
        self.row_bytes = ceil_div(cols * self.bits, 8)
        self.nbytes = rows * self.row_bytes
        self.cut_rows = tile_cols < cols
        if self.cut_rows:
            check(tile_rows == 1 and tile_cols * self.bits % 8 == 0, "{}: rows are cut inside of a byte", self.what)
            self.n_tiles = rows * ceil_div(cols, tile_cols)
            largest = tile_cols * self.bits // 8 if rows else 0
        else:
            self.n_tiles = ceil_div(rows, tile_rows) if cols else 0
            largest = min(tile_rows, rows) * self.row_bytes
        check(largest <= MAX_TILE, "{}: a tile has more than 16 MiB", self.what)
        check(self.chunks[1] == self.n_tiles, "{}: {} chunks for {} tiles", self.what, self.chunks[1], self.n_tiles)
        check(self.offset is None or self.nbytes, "{}: an offset without bytes", self.what)

    def tile_sizes(self):
        """Bytes of each tile, in order."""
        rows, cols = self.shape
        if not rows or not cols:
            return []
        if not self.cut_rows:
            return [min(self.tile[0], rows - r) * self.row_bytes for r in range(0, rows, self.tile[0])]
        step = self.tile[1] * self.bits // 8
        return [min(step, self.row_bytes - at) for at in range(0, self.row_bytes, step)] * rows

    def load(self, shard):
        if self.offset is not None:
            align = shard.header.align if self.nbytes >= shard.header.align else 64
            check(self.offset % align == 0, "{}: its offset {} is not a multiple of {}", self.what, self.offset, align)
        self.data = shard.take_chunks(self.chunks[0], self.tile_sizes(), self.offset, self.what)
        check(len(self.data) == self.nbytes, "{}: {} bytes, not {}", self.what, len(self.data), self.nbytes)
        self.fields = unpack_fields(self.data, *self.shape, self.bits, self.what)


class Tensor:
    """One tensor: its facts and its planes."""

    def __init__(self, name, node, formats):
        what = self.what = f"tensor '{name}'"
        check(isinstance(node, dict), "{}: not an object", what)
        self.name = name
        self.shape = tuple(numbers(node, "shape", None, what))
        self.role = optional(node, "role", str, "other", what)
        self.dtype = member(node, "dtype", str, what)
        self.source_digest = member(node, "source_digest", str, what)
        self.tile = tuple(numbers(node, "tile", 2, what))
        self.format = member(node, "format", str, what) if "format" in node else None
        check(len(self.shape) <= MAX_DIMS, "{}: more than 64 dims", what)
        check(self.dtype in DTYPE_BITS, "{}: unknown dtype '{}'", what, self.dtype)
        check(re.fullmatch("[0-9a-f]{32}", self.source_digest), "{}: source_digest is not 32 hex digits", what)
        check(min(self.tile) >= 1, "{}: a tile of nothing", what)
        self._view()
        planes = [Plane(p, what) for p in member(node, "planes", list, what)]
        self.planes = {p.name: p for p in planes}
        check(len(self.planes) == len(planes), "{}: two planes of one name", what)
        if self.format is None:
            self._check_kept()
        else:
            self._check_quantised(node, formats)

    def _view(self):
        """The tensor as rows x cols."""
        bits = DTYPE_BITS[self.dtype]
        self.count = product(self.shape)
        self.cols = self.shape[-1] if self.shape else 1
        self.rows = product(self.shape[:-1])
        check(self.rows * self.cols * bits < 1 << 63 and self.rows < 1 << 63, "{}: too large", self.what)
        if bits < 8:
            check(self.count * bits % 8 == 0, "{}: {} elements of {} bits are no whole bytes", self.what, self.count, bits)
            self.rows, self.cols = 1, ceil_div(self.count * bits, 8)

    def _expect_plane(self, plane, bits, shape):
        check(plane.bits == bits, "{}: {} bits, not {}", plane.what, plane.bits, bits)
        check(plane.shape == shape, "{}: shape {}, not {}", plane.what, plane.shape, shape)

    def _check_kept(self):
        bits = max(8, DTYPE_BITS[self.dtype])
        names = list(self.planes)
        check(names == ["data"] or names == SPLIT_PLANES.get(self.dtype), "{}: planes {} of a kept {}", self.what, names, self.dtype)
        for plane in self.planes.values():
            self._expect_plane(plane, bits if plane.name == "data" else 8, (self.rows, self.cols))
            check(plane.tile == self.tile, "{}: tile {} is not the tensor's {}", plane.what, plane.tile, self.tile)

    def _check_quantised(self, node, formats):
        what = self.what
        check(self.format in formats, "{}: its format '{}' is not in 'formats'", what, self.format)
        check(self.count > 0, "{}: quantised, but without weights", what)
        self.facts = formats[self.format]
        self.group = node.get("group")
        self.scale = optional(node, "scale", str, "", what)
        self.scale_rule, self.rounding = optional(node, "scale_rule", str, None, what), optional(node, "rounding", str, None, what)
        blocks = self.facts.family == "ggml"
        self.known = self.facts.known and self.scale in (("none",) if blocks else SCALE_BITS)
        if not self.known:
            return
        numeric = type(self.group) is int and self.group >= 1
        check(numeric or self.group in ("channel", "tensor", "128x128"), "{}: group {}", what, self.group)
        check(member(node, "axis", int, what) == max(0, len(self.shape) - 1), "{}: groups do not run along the last dim", what)
        if "input_scale" in self.planes:
            self._expect_plane(self.planes["input_scale"], 32, (product(self.shape[:-2]) if len(self.shape) >= 3 else 1, self.cols))
        if blocks:
            self._check_blocks()
            return
        names = ["codes", "scales", "zeros"] if self.facts.zero_point else ["codes", "scales"]
        if self.facts.family == "bfp-prime" and "shifts" in self.planes:
            names = names + ["shifts"]
            self._check_shifts(node)
        if "tensor_scale" in self.planes:
            self._check_tensor_scale(self.planes["tensor_scale"])
        if "tensor_scale" in self.planes:
            names = names + ["tensor_scale"]
        if "input_scale" in self.planes:
            names = names + ["input_scale"]
        check(list(self.planes) == names, "{}: planes {}, not {}", what, list(self.planes), names)
        self._expect_plane(self.planes["codes"], self.facts.bits, (self.rows, self.cols))
        check(self.planes["codes"].tile == self.tile, "{}: the tile of its codes is not its tile", what)
        for name in (n for n in names[1:] if n in ("scales", "zeros")):
            self._check_group_plane(self.planes[name], SCALE_BITS[self.scale] if name == "scales" else self.facts.bits)

    def _check_shifts(self, node):
        """A field of 1 .. 3 bits for each sub-block."""
        self.sub_block = member(node, "sub_block", int, self.what)
        plane, numeric = self.planes["shifts"], type(self.group) is int
        check(numeric and self.sub_block >= 1 and self.group % self.sub_block == 0, "{}: sub-blocks of {}", self.what, self.sub_block)
        check(1 <= plane.bits <= 3, "{}: shifts of {} bits", self.what, plane.bits)
        self._expect_plane(plane, plane.bits, (self.rows, ceil_div(self.cols, self.sub_block)))
        single = plane.tile[0] >= plane.shape[0] and plane.tile[1] >= plane.shape[1] and self.tile[1] >= self.cols
        check(plane.tile == (self.tile[0], ceil_div(self.tile[1], self.sub_block)) or single, "{}: its tile is {}", plane.what, plane.tile)

    def _matrix_rows(self):
        return self.shape[-2] if len(self.shape) > 1 else 1

    def _square_rows(self):
        """For each row of the tensor its row of the plane of scales of squares."""
        rows, high = np.arange(self.rows), self._matrix_rows()
        return rows // high * ceil_div(high, SIDE) + rows % high // SIDE

    def _check_blocks(self):
        facts = self.facts
        check(list(self.planes) in (["blocks"], ["blocks", "input_scale"]), "{}: planes {}, not blocks", self.what, list(self.planes))
        check(self.group == facts.block and self.cols % facts.block == 0, "{}: {} columns are no blocks of {}", self.what, self.cols, facts.block)
        self._check_group_plane(self.planes["blocks"], 8 * facts.block_bytes)
        check(self.planes["blocks"].tile[0] == self.tile[0], "{}: the tile of its blocks is not its tile", self.what)

    def _check_tensor_scale(self, plane):
        """One binary32 a matrix, in one tile; mx and nvfp4 only."""
        check(self.facts.family in ("mx", "nvfp4"), "{}: family {} has no scale of matrices", self.what, self.facts.family)
        self.n_matrices = product(self.shape[:-2]) if len(self.shape) >= 3 else 1
        self._expect_plane(plane, 32, (1, self.n_matrices))
        check(plane.tile[1] >= self.n_matrices, "{}: more than one tile", plane.what)

    def group_shape(self):
        """Rows and columns of the planes with one field a group."""
        if self.group == "tensor":
            return 1, 1
        if self.group == "128x128":
            return self.rows // self._matrix_rows() * ceil_div(self._matrix_rows(), SIDE), ceil_div(self.cols, SIDE)
        return self.rows, 1 if self.group == "channel" else ceil_div(self.cols, self.group)

    def _check_group_plane(self, plane, bits):
        self._expect_plane(plane, bits, self.group_shape())
        numeric, cut = type(self.group) is int, self.tile[1] < self.cols
        same = (self.tile[0], ceil_div(self.tile[1], self.group) if numeric else 1)
        single = plane.tile[0] >= plane.shape[0] and plane.tile[1] >= plane.shape[1]
        if self.group == "128x128":
            check(single and not (cut and self.tile[1] % SIDE), "{}: squares reach over tiles, or their scales are not one", plane.what)
            return
        check(plane.tile == same or (single and not (cut and numeric)), "{}: its tile {} does not follow the tensor's", plane.what, plane.tile)

    # -- content --

    def load(self, shard):
        for plane in self.planes.values():
            plane.load(shard)
        if self.format is None:
            self._check_source_digest()

    def source_bytes(self):
        """The source's bytes of a kept tensor."""
        check(self.format is None, "{}: quantised, its source bytes are gone", self.what)
        return self.planes["data"].data if "data" in self.planes else self._joined().tobytes()

    def _joined(self):
        planes = {name: plane.fields.astype("<u2") for name, plane in self.planes.items()}
        if self.dtype == "F16":
            return planes["high"] << 8 | planes["low"]
        rest = planes["rest"]
        return (rest & 0x80) << 8 | planes["exponent"] << 7 | rest & 0x7F

    def _check_source_digest(self):
        digest = source_digest(self.source_bytes(), self.rows, self.cols, max(8, DTYPE_BITS[self.dtype]) // 8, self.tile)
        check(digest == self.source_digest, "{}: the kept bytes do not give source_digest", self.what)

    def signed_codes(self):
        """Codes as numbers: two's complement for signed integers, else unsigned."""
        codes = self.planes["codes"].fields.astype(np.int64)
        if self.facts.exponent_bits or not self.facts.signed:
            return codes
        return np.where(codes >> (self.facts.bits - 1), codes - (1 << self.facts.bits), codes)

    def _spread(self, values):
        """Values of the groups, repeated for each weight."""
        if self.group in ("tensor", "channel"):
            return values  # numpy broadcasts [1, 1] and [rows, 1]
        if self.group == "128x128":
            return np.repeat(values[self._square_rows()], SIDE, axis=1)[:, :self.cols]
        return np.repeat(values, self.group, axis=1)[:, :self.cols]

    def decode(self):
        """The weights, binary32, in the tensor's shape."""
        weights = self._stored_values()
        if "input_scale" in self.planes:
            factors = self.planes["input_scale"].fields.view("<f4").reshape(-1, self.cols)
            weights = (weights.reshape(len(factors), -1, self.cols) * factors[:, None, :]).reshape(self.shape)
        return weights

    def _stored_values(self):
        if self.format is None:
            check(DTYPE_BITS[self.dtype] >= 8, "{}: dtype {} has no values here", self.what, self.dtype)
            fields = self.planes["data"].fields if "data" in self.planes else self._joined()
            return kept_values(self.dtype, fields).reshape(self.shape)
        check(self.known, "{}: unknown family '{}' or type of scales '{}'", self.what, self.facts.family, self.scale)
        if self.facts.family == "ggml":
            return ggml_blocks.decode(self.facts.type, self.planes["blocks"].data, self.count).reshape(self.shape)
        scales = self._spread(scale_values(self.scale, self.planes["scales"].fields))
        if "shifts" in self.planes:
            shifts = np.repeat(self.planes["shifts"].fields.astype(np.int64), self.sub_block, axis=1)[:, :self.cols]
            scales = np.ldexp(scales, -shifts)
        values = self.facts.values()[self.planes["codes"].fields]
        if self.facts.zero_point:
            values = values - self._spread(np.ldexp(self.planes["zeros"].fields.astype(np.float64), -self.facts.fraction_bits))
        with np.errstate(over="ignore"):  # the product is exact in binary64, so there is one rounding
            weights = (values * scales).astype(np.float32)
            if "tensor_scale" in self.planes:
                matrix = self.planes["tensor_scale"].fields.view("<f4").reshape(-1)
                weights = weights * np.repeat(matrix, self.rows // self.n_matrices)[:, None]
            return weights.reshape(self.shape)


def source_digest(data, rows, cols, width, tile):
    """Hex digest of source bytes: XXH3-128 over the digests of the tiles."""
    step = tile[1] if tile[1] < cols else tile[0] * cols
    digests = []
    for row in range(0, rows, 1 if tile[1] < cols else tile[0]):
        begin, end = row * cols, min((row + 1) * cols if tile[1] < cols else row * cols + step, rows * cols)
        for at in range(begin, end, max(1, step)):
            digests.append(digest128(data[at * width:min(at + step, end) * width]))
    return digest128(b"".join(digests)).hex()


# --- one file ---------------------------------------------------------------------------------------------------------

class Shard:
    """One file. Opening it makes every check of section 5 that needs no other file."""

    def __init__(self, data, label="file"):
        self.data, self.label = data, label
        try:
            self._open()
        except LlmqError as error:
            raise LlmqError(f"{label}: {error}") from None

    def _open(self):
        check(len(self.data) >= HEADER_BYTES + TRAILER_BYTES, "too short for an llmq file")
        self.header = parse_header(self.data)
        self.trailer = parse_trailer(self.data, self.header)
        self.chunks = parse_table(self.data, self.trailer)
        check_table(self.chunks, self.trailer.index_offset, self.header.required)
        self.owners = [None] * len(self.chunks)
        self._read_index()
        self.blobs = {name: self._read_blob(name, node) for name, node in self.index.get("blobs", {}).items()}
        for tensor in self.tensors.values():
            tensor.load(self)
        unowned = [i for i, owner in enumerate(self.owners) if owner is None]
        check(not unowned, "chunk {} belongs to no plane and no blob", unowned[:1])
        self._check_padding()

    def _read_index(self):
        offset, stored, raw = self.trailer[:3]
        text = self.data[offset:offset + stored]
        if stored != raw:
            check(self.header.required & FEATURE_ZSTD, "index: zstd without its feature bit")
            text = unzstd(text, raw, "index")
        self.index = parse_index(text)
        for key in ("metadata", "formats", "blobs", "tensors"):
            check(type(self.index.get(key, {})) is dict, "index: '{}' is not an object", key)
        self.writer = optional(self.index, "writer", str, "", "index")
        self.metadata = self.index.get("metadata", {})
        check(all(type(v) is str for v in self.metadata.values()), "index: metadata holds something that is no string")
        first = self.header.shard_index == 0
        check(first or not (self.metadata or self.index.get("blobs")), "index: blobs or metadata outside of the first shard")
        self.formats = {name: Format(name, node) for name, node in self.index.get("formats", {}).items()}
        self.tensors = {name: Tensor(name, node, self.formats) for name, node in member(self.index, "tensors", dict, "index").items()}

    def _read_blob(self, name, node):
        what = f"blob '{name}'"
        bad = any(c in "/\\" or c < " " or c == "\x7f" for c in name) or name in ("", ".", "..")
        check(not bad, "{}: not a plain file name", what)
        check(isinstance(node, dict), "{}: not an object", what)
        nbytes, tile = member(node, "bytes", int, what), member(node, "tile", int, what)
        first, count = numbers(node, "chunks", 2, what)
        check(1 <= tile <= MAX_TILE, "{}: pieces of {} bytes", what, tile)
        check(count == ceil_div(nbytes, tile), "{}: {} chunks for {} bytes", what, count, nbytes)
        check(count <= len(self.chunks), "{}: more chunks than the file has", what)
        return self.take_chunks(first, [min(tile, nbytes - at) for at in range(0, nbytes, tile)], None, what)

    def take_chunks(self, first, sizes, offset, what):
        """Decodes the chunks of one owner; sizes are theirs after decoding; offset: they must lie there, raw, in one piece."""
        check(first + len(sizes) <= len(self.chunks), "{}: chunks {} .. beyond the table", what, first)
        parts = []
        for i, size in enumerate(sizes, first):
            check(self.owners[i] is None, "chunk {} belongs to {} and to {}", i, self.owners[i], what)
            self.owners[i] = what
            chunk = self.chunks[i]
            if offset is not None:
                check(chunk.codec == 0 and chunk.offset == offset, "{}: not raw at its offset", what)
                offset += chunk.stored
            parts.append(self._decode_chunk(i, size))
        return b"".join(parts)

    def _decode_chunk(self, i, size):
        chunk, what = self.chunks[i], f"chunk {i} ({self.owners[i]})"
        stored = self.data[chunk.offset:chunk.offset + chunk.stored]
        check(digest64(stored) == chunk.checksum, "{}: wrong checksum", what)
        if chunk.codec == 0:
            check(chunk.stored == size, "{}: {} bytes, not {}", what, chunk.stored, size)
            return stored
        check(chunk.stored < size, "{}: not smaller than what it gives", what)
        return unzstd(stored, size, what)

    def _check_padding(self):
        """Whatever lies before the index and in no chunk is zero."""
        at = HEADER_BYTES
        for chunk in sorted(self.chunks):
            check(not any(self.data[at:chunk.offset]), "the bytes {} .. {} belong to no chunk and are not zero", at, chunk.offset)
            at = chunk.offset + chunk.stored
        check(not any(self.data[at:self.trailer.index_offset]), "the bytes {} .. belong to no chunk and are not zero", at)

    def check_layout(self):
        """What a writer must do and a reader need not check: raw planes in order and aligned, then the chunks, back to back."""
        at = HEADER_BYTES
        in_place = set()
        for plane in (p for t in self.tensors.values() for p in t.planes.values() if p.offset is not None):
            align = self.header.align if plane.nbytes >= self.header.align else 64
            at = ceil_div(at, align) * align
            check(plane.offset == at, "{}: at byte {}, not {}", plane.what, plane.offset, at)
            at += plane.nbytes
            in_place.update(range(plane.chunks[0], sum(plane.chunks)))
        for chunk in sorted(c for i, c in enumerate(self.chunks) if i not in in_place):
            check(chunk.offset == at, "the chunk region has a gap at byte {}", at)
            at += chunk.stored
        check(at == self.trailer.index_offset, "bytes between the chunks and the index")


# --- section 6: the whole model ---------------------------------------------------------------------------------------

class Model:
    """All shards of a model as one."""

    def __init__(self, shards):
        self.shards = shards
        self.metadata, self.blobs = shards[0].metadata, shards[0].blobs
        count = len(shards)
        for i, shard in enumerate(shards):
            header = shard.header
            check(header.shard_index == i and header.shard_count == count, "{}: not shard {} of {}", shard.label, i, count)
        digest = digest128(b"".join(s.trailer.index_digest for s in shards))
        for shard in shards:
            check(shard.trailer.set_digest == digest, "{}: does not belong to this set (set_digest)", shard.label)
        self.tensors = {}
        for shard in shards:
            twice = self.tensors.keys() & shard.tensors.keys()
            check(not twice, "{}: tensors of another shard again: {}", shard.label, sorted(twice)[:4])
            self.tensors.update(shard.tensors)


def shard_paths(path, header):
    """The files of the set that `path` belongs to, in shard order."""
    if header.shard_count == 1:
        return [path]
    suffix = f"-{header.shard_index + 1:05d}-of-{header.shard_count:05d}.llmq"
    check(path.endswith(suffix), "{}: shard {} of {} is not called ...{}", path, header.shard_index, header.shard_count, suffix)
    stem = path[:-len(suffix)]
    return [f"{stem}-{i + 1:05d}-of-{header.shard_count:05d}.llmq" for i in range(header.shard_count)]


def read_bytes(path):
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError as error:
        raise LlmqError(f"{path}: {error.strerror}") from None


def read(path):
    """Opens the model of which `path` is a file; raises LlmqError."""
    path = os.fspath(path)
    first = Shard(read_bytes(path), path)
    paths = shard_paths(path, first.header)
    return Model([first if p == path else Shard(read_bytes(p), p) for p in paths])


# --- program ----------------------------------------------------------------------------------------------------------

def describe(tensor):
    stored = sum(p.nbytes for p in tensor.planes.values())
    text = tensor.format or "kept"
    if tensor.format and tensor.known:
        text += f" group={tensor.group} scale={tensor.scale} rule={tensor.scale_rule} rounding={tensor.rounding}"
    return f"{tensor.name}  {list(tensor.shape)} {tensor.dtype} {tensor.role}  {text}  {stored} bytes"


def print_listing(model):
    for shard in model.shards:
        print(f"{shard.label}: {len(shard.data)} bytes, {len(shard.chunks)} chunks, written by {shard.writer}")
    for key, value in model.metadata.items():
        print(f"metadata {key}: {value}")
    for name, data in model.blobs.items():
        print(f"blob {name}: {len(data)} bytes")
    for tensor in model.tensors.values():
        print(describe(tensor))


def decodable(model):
    def has_values(t):
        return t.known if t.format else DTYPE_BITS[t.dtype] >= 8 and t.dtype != "C64"

    return {name: t.decode() for name, t in model.tensors.items() if has_values(t)}


def main():
    parser = argparse.ArgumentParser(description="independent reader of .llmq containers")
    parser.add_argument("file")
    parser.add_argument("--npz", metavar="OUT", help="write the decoded tensors (binary32)")
    parser.add_argument("--verify", action="store_true", help="check only")
    args = parser.parse_args()
    try:
        model = read(args.file)
    except LlmqError as error:
        print(f"reader.py: {error}", file=sys.stderr)
        return 3
    if args.verify:
        print("ok")
    else:
        print_listing(model)
    if args.npz:
        np.savez(args.npz, **decodable(model))
    return 0


if __name__ == "__main__":
    sys.exit(main())
