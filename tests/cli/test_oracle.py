#!/usr/bin/env python3
"""llmq from the outside, against independent implementations of everything it writes.

What it is
  Models are written here (standard library), converted by the program, and read back by tests/reader.py, which knows the
  container from formats/FORMAT.md alone. Codes, scales and zero points are computed a second time: by scripts/gen_golden.py
  (exact rationals, small tensors) and by the numpy binary32 implementation of formats/NUMERICS.md below (tensors of several
  tiles, long rows). Nothing here looks into the C sources.

How to run
  LLMQ_PROGRAM=build/llmq python3 tests/cli/test_oracle.py [-v] [TestClass[.test]]
      needs numpy, zstandard and xxhash. LLMQ_CONFIG: folder of roles.yaml, by default configs/ of this repository.

Worked number
  int4, absmax, f32 scale, group [0.75, -1.5]: amax 1.5, half 7.5, s = fl(0.2), codes rint(3.75) = 4 and rint(-7.5) = -8.
"""

import filecmp
import importlib.util
import itertools
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
from collections import namedtuple

import numpy as np
import zstandard

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(TESTS)
sys.path.insert(0, TESTS)
import reader  # noqa: E402  (found through the path set above)


def load_golden():
    spec = importlib.util.spec_from_file_location("gen_golden", os.path.join(ROOT, "scripts", "gen_golden.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden = load_golden()
PROGRAM = os.environ.get("LLMQ_PROGRAM")
ENVIRONMENT = {"LLMQ_CONFIG": os.path.join(ROOT, "configs"), **os.environ}
SCRATCH = None  # a temporary folder, removed at the end
KERNELS = ("portable", "avx2", "avx512")  # what the processor lacks falls back to less
TILE = 262144  # weights of a tile, FORMAT.md section 3


def setUpModule():
    global SCRATCH
    if not PROGRAM:
        raise unittest.SkipTest("LLMQ_PROGRAM does not name the program under test")
    SCRATCH = tempfile.mkdtemp(prefix="llmq-oracle-")


def tearDownModule():
    shutil.rmtree(SCRATCH)


def scratch(*parts):
    return os.path.join(SCRATCH, *parts)


# --- the program ------------------------------------------------------------------------------------------------------

def run(*args, env=None, cwd=None):
    """Runs llmq; returns the finished process, whatever its exit code."""
    command = [os.path.abspath(PROGRAM), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env={**ENVIRONMENT, **(env or {})}, cwd=cwd or SCRATCH)


def llmq(*args, **options):
    """Runs llmq, which must succeed; returns what it printed."""
    done = run(*args, **options)
    if done.returncode != 0:
        shown = " ".join(map(str, args))
        raise AssertionError(f"llmq {shown[:300]}: exit code {done.returncode}: {done.stderr}")
    return done.stdout


def convert(source, out, *options, **more):
    """Converts, verifies, reads with the independent reader."""
    path = scratch(out)
    llmq("convert", "--in", source, "--out", path, "--quiet", *options, **more)
    llmq("verify", path, "--quiet")
    model = reader.read(path)
    for shard in model.shards:
        shard.check_layout()
    return model


def shard_name(stem, index, count):
    return scratch(f"{stem}-{index + 1:05d}-of-{count:05d}.llmq")


# --- safetensors ------------------------------------------------------------------------------------------------------

Source = namedtuple("Source", "name dtype shape data")  # one tensor of a model: data are its bytes


def write_safetensors(path, sources, metadata=None):
    header, at = {}, 0
    if metadata:
        header["__metadata__"] = metadata
    for s in sources:
        header[s.name] = {"dtype": s.dtype, "shape": list(s.shape), "data_offsets": [at, at + len(s.data)]}
        at += len(s.data)
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for s in sources:
            f.write(s.data)
    return path


def read_safetensors(path):
    """{name: Source} and the metadata."""
    with open(path, "rb") as f:
        data = f.read()
    size = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8:8 + size])
    metadata = header.pop("__metadata__", {})
    body = data[8 + size:]
    assert sum(t["data_offsets"][1] - t["data_offsets"][0] for t in header.values()) == len(body)
    return {n: Source(n, t["dtype"], tuple(t["shape"]), body[slice(*t["data_offsets"])]) for n, t in header.items()}, metadata


def write_folder(name, shards, metadata=None, files=()):
    """A model folder: one file, or several with their index; files: (name, bytes)."""
    folder = scratch(name)
    os.makedirs(folder)
    names = ["model.safetensors"] if len(shards) == 1 else [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for file_name, sources in zip(names, shards):
        write_safetensors(os.path.join(folder, file_name), sources, metadata)
    if len(shards) > 1:
        weight_map = {s.name: file_name for file_name, sources in zip(names, shards) for s in sources}
        files = [*files, ("model.safetensors.index.json", json.dumps({"metadata": {}, "weight_map": weight_map}).encode())]
    for file_name, data in files:
        with open(os.path.join(folder, file_name), "wb") as f:
            f.write(data)
    return folder


# --- values -----------------------------------------------------------------------------------------------------------

def bf16_bits(x):
    """binary32 to bfloat16 bits, to nearest even; finite values and infinities."""
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def encode_dtype(values, dtype):
    """binary64 values as the bytes of a float dtype."""
    with np.errstate(over="ignore"):
        if dtype == "BF16":
            return bf16_bits(values.astype(np.float32)).tobytes()
        return values.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


def finite_f8(rng, dtype, count):
    """Random codes of an F8 dtype without NaN and Inf."""
    codes = rng.integers(0, 256, count, dtype=np.uint8)
    limit = 0x7F if dtype == "F8_E4M3" else 0x7C
    return np.where((codes & 0x7F) >= limit, codes & 0x8F, codes).astype(np.uint8).tobytes()


def gauss(rng, *shape):
    return rng.standard_normal(shape) * 0.02


def weights(name, dtype, shape, seed):
    """A tensor of ordinary weights."""
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape, dtype=np.int64))
    if dtype.startswith("F8"):
        return Source(name, dtype, shape, finite_f8(rng, dtype, count))
    return Source(name, dtype, shape, encode_dtype(gauss(rng, count), dtype))


def odd_values(rng, rows, cols):
    """Weights with zeros, -0, subnormals, outliers, powers of two, equal values and ties, mixed over groups; binary32."""
    x = gauss(rng, rows, cols).astype(np.float32)
    x[rng.random(x.shape) < 0.05] = 0.0
    x[rng.random(x.shape) < 0.05] = -0.0
    x[rng.random(x.shape) < 0.01] *= np.float32(300)
    ties = rng.random(x.shape) < 0.1
    x[ties] = np.ldexp(rng.integers(-16, 17, x.shape).astype(np.float32), -7)[ties]
    for row in range(rows):
        kind = row % 8
        if kind == 1:
            x[row, :cols // 2] = 0.0
        elif kind == 2:
            x[row] = rng.integers(0, 1 << 23, cols).astype(np.uint32).view(np.float32)  # subnormals
        elif kind == 3:
            x[row] = np.abs(x[row])
        elif kind == 4:
            x[row] *= np.float32(1e-36)
        elif kind == 5:
            x[row] *= np.float32(1e5)
        elif kind == 6:
            x[row] = np.float32(0.1)
    return x


def f32_source(name, x):
    return Source(name, "F32", x.shape, x.astype("<f4").tobytes())


def values_of(source):
    """The weights as binary32, rounded once where the dtype is wider."""
    bits = reader.DTYPE_BITS[source.dtype]
    return reader.kept_values(source.dtype, np.frombuffer(source.data, f"<u{bits // 8}")).reshape(source.shape)


def matrix(x):
    """rows x cols, as FORMAT.md sees a tensor."""
    return x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)


def same_bits(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


# --- a second quantiser: NUMERICS.md in numpy -------------------------------------------------------------------------
#
# x of one call are groups: an array [g, n] of binary32, one group a row. Arrays of binary32 keep every operation one
# binary32 rounding; where a product with a power of two, or a rounding on a grid, is wanted exactly, it is done in binary64.

F32 = np.float32
ROUNDINGS = {
    "nearest-even": np.rint,
    "away": lambda u: np.copysign(np.floor(np.abs(u) + 0.5), u),
    "up": lambda u: np.floor(u + 0.5),
    "truncate": np.trunc,
}
Quant = namedtuple("Quant", "format group rule rounding scale")  # scale: "e8m0" for MX


class Refused(Exception):
    """A scale does not fit its type."""


def scaled(x, exponent):
    """fl(x * 2^exponent)."""
    return np.ldexp(x.astype(np.float64), exponent).astype(F32)


def ilog2(a):
    return np.frexp(a.astype(np.float64))[1] - 1


def lane_sums(terms):
    """Section 5 for every row of terms."""
    padded = np.zeros((terms.shape[0], -(-terms.shape[1] // 16) * 16), dtype=F32)
    padded[:, :terms.shape[1]] = terms
    lanes = np.zeros((terms.shape[0], 16), dtype=F32)
    for at in range(0, padded.shape[1], 16):
        lanes += padded[:, at:at + 16]
    for width in (8, 4, 2, 1):
        lanes = lanes[:, :width] + lanes[:, width:2 * width]
    return lanes[:, 0]


def sums_of(terms, chunk_lengths):
    """Error of every group: one chunk in binary32, several added in binary64."""
    if len(chunk_lengths) == 1:
        return lane_sums(terms).astype(np.float64)
    total, at = np.zeros(terms.shape[0]), 0
    for n in chunk_lengths:
        total += lane_sums_long(terms[:, at:at + n]).astype(np.float64)
        at += n
    return total


def lane_sums_long(terms):
    """lane_sums for few long rows: numpy's cumulative sum adds in order, one rounding a step."""
    padded = np.zeros((terms.shape[0], -(-terms.shape[1] // 16), 16), dtype=F32)
    padded.reshape(terms.shape[0], -1)[:, :terms.shape[1]] = terms
    lanes = np.cumsum(padded, axis=1, dtype=F32)[:, -1]
    for width in (8, 4, 2, 1):
        lanes = lanes[:, :width] + lanes[:, width:2 * width]
    return lanes[:, 0]


class MxElement:
    """Encoding of binary32 values into the element of an MX format, on the grid of NUMERICS.md section 2."""

    def __init__(self, name):
        self.m, self.bias, self.emax, self.max = {
            "mxfp4": (1, 1, 2, 6.0), "mxfp6_e2m3": (3, 1, 2, 7.5), "mxfp6_e3m2": (2, 3, 4, 28.0),
            "mxfp8_e4m3": (3, 7, 8, 448.0), "mxfp8_e5m2": (2, 15, 15, 57344.0), "mxint8": (8, None, 0, 127 / 64),
        }[name]
        if self.bias is not None:
            bits = {"mxfp4": 4, "mxfp6_e2m3": 6, "mxfp6_e3m2": 6}.get(name, 8)
            self.sign = 1 << (bits - 1)
            magnitudes = reader.float_values(np.arange(self.sign), bits - 1 - self.m, self.m, self.bias, "none")
            self.magnitudes = magnitudes[magnitudes <= self.max]

    def encode(self, u, rounding):
        """Codes, and their values."""
        u = u.astype(np.float64)
        if self.bias is None:
            codes = np.clip(ROUNDINGS[rounding](u * 64), -127, 127)
            return codes.astype(np.int64), (codes / 64).astype(F32)
        step = np.ldexp(1.0, np.maximum(ilog2(np.where(u == 0, 1e-300, np.abs(u))), 1 - self.bias) - self.m)
        r = np.copysign(np.minimum(np.abs(ROUNDINGS[rounding](u / step) * step), self.max), u)
        return np.searchsorted(self.magnitudes, np.abs(r)) + np.where(np.signbit(u), self.sign, 0), r.astype(F32)


def clamped(e, elem):
    """Exponents in the range in which no code decodes to Inf."""
    return np.clip(e, -127, 127 - elem.emax)


def mx_exponent(amax, elem, rule):
    """e before the clamp, for amax > 0."""
    if rule == "even":
        return ((amax.view(np.uint32) + np.uint32(1 << (22 - elem.m))) >> 23 & 0xFF).astype(np.int64) - 127 - elem.emax
    a = amax.astype(np.float64)
    if rule == "ceil":
        fraction, power = np.frexp(a)
        return np.where(fraction == 0.5, power - 1, power) - elem.emax
    if rule == "rceil":
        e = ilog2(amax) - elem.emax - 2
        for _ in range(4):
            e = np.where(a <= np.ldexp(elem.max, e), e, e + 1)
        return e
    return ilog2(amax) - elem.emax


def mx_search(x, e0, elem, rounding):
    best_error, best = None, e0
    tried = [e0]
    for e in (e0, clamped(e0 + 1, elem), clamped(e0 - 1, elem)):
        u = scaled(x, -e[:, None])
        deviation = scaled(u - elem.encode(u, rounding)[1], (e - e0)[:, None])
        error = lane_sums(deviation * deviation)
        if best_error is None:
            best_error = error
            continue
        new = np.logical_and.reduce([e != t for t in tried])
        better = new & (error < best_error)
        best, best_error = np.where(better, e, best), np.where(better, error, best_error)
        tried.append(e)
    return best


def mx_groups(x, quant):
    elem = MxElement(quant.format)
    amax = np.abs(x).max(axis=1)
    some = np.where(amax > 0, amax, F32(1))
    if quant.rule == "search":
        e = mx_search(x, clamped(mx_exponent(some, elem, "floor"), elem), elem, quant.rounding)
    else:
        e = clamped(mx_exponent(some, elem, quant.rule), elem)
    e = np.where(amax > 0, e, -127)
    return e + 127, np.zeros(len(e), np.int64), elem.encode(scaled(x, -e[:, None]), quant.rounding)[0]


def store(s, kind):
    """Scales as stored: bits, and their binary32 values."""
    with np.errstate(over="ignore"):
        if kind == "f16":
            bits = s.astype(np.float16).view(np.uint16)
            return bits, bits.view(np.float16).astype(F32)
    if kind == "bf16":
        bits = bf16_bits(s)
        return bits, (bits.astype(np.uint32) << 16).view(F32)
    return s.view(np.uint32), s


class IntGroups:
    """Integer quantisation of groups; the range is found first, then candidates k/64 are tried."""

    def __init__(self, x, quant, chunk_lengths):
        self.x, self.quant, self.chunk_lengths = x, quant, chunk_lengths
        self.bits = int(quant.format.lstrip("uint"))
        self.unsigned = quant.format.startswith("u")
        self.lo = np.minimum(x.min(axis=1), F32(0))
        self.hi = np.maximum(x.max(axis=1), F32(0))
        self.amax = np.maximum(-self.lo, self.hi)

    def candidate(self, k):
        """Stored bits, value of the scale, zero point."""
        part, floor = F32(k / 64), F32(2.0 ** -23)
        with np.errstate(over="ignore", invalid="ignore"):
            if not self.unsigned:
                s = (self.amax * part) / F32(2.0 ** (self.bits - 1) - 0.5)
                return (*store(np.maximum(s, floor), self.quant.scale), np.zeros(len(s), np.int64))
            levels = (1 << self.bits) - 1
            s = ((self.hi - self.lo) * part) / F32(levels)
            bits, value = store(np.maximum(s, floor), self.quant.scale)
            zero = np.clip(-np.rint((self.lo * part) / value), 0, levels)
            return bits, value, zero.astype(np.int64)

    def fits(self, value):
        """Whether a scale leaves every code finite."""
        with np.errstate(over="ignore"):
            return np.isfinite(value * F32((1 << self.bits) - 1 if self.unsigned else 1 << (self.bits - 1)))

    def codes(self, value, zero):
        with np.errstate(over="ignore"):
            steps = ROUNDINGS[self.quant.rounding]((self.x / value[:, None]).astype(np.float64))
        if self.unsigned:
            return np.clip(steps + zero[:, None], 0, (1 << self.bits) - 1).astype(np.int64)
        return np.clip(steps, -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1).astype(np.int64)

    def error(self, value, zero):
        y = (self.codes(value, zero) - zero[:, None]).astype(F32) * value[:, None]
        p = np.clip(np.where(self.amax > 0, ilog2(np.where(self.amax > 0, self.amax, F32(1))), 0), -126, 126)
        deviation = scaled(self.x - y, -p[:, None])
        return sums_of(deviation * deviation, self.chunk_lengths)

    def best(self):
        found = self.candidate(64)
        if not self.fits(found[1]).all():
            raise Refused
        if self.quant.rule == "absmax":
            return found
        least = self.error(*found[1:])
        for k in [*range(63, 15, -1), *range(65, 73)]:
            bits, value, zero = self.candidate(k)
            fits = self.fits(value)
            with np.errstate(all="ignore"):
                error = self.error(np.where(fits, value, F32(1)), np.where(fits, zero, 0))
            better = fits & (error < least)
            least = np.where(better, error, least)
            found = tuple(np.where(better, new, old) for new, old in zip((bits, value, zero), found))
        return found

    def quantise(self):
        bits, value, zero = self.best()
        return bits, zero, self.codes(value, zero)


def quantise_groups(x, quant, chunk_lengths=(0,)):
    if quant.scale == "e8m0":
        return mx_groups(x, quant)
    return IntGroups(x, quant, chunk_lengths).quantise()


def chunk_lengths_of(rows, cols, group):
    """Weights in each chunk a spanning group is cut into; (0,): it lies in one."""
    if cols > TILE:
        one_row = [min(TILE, cols - at) for at in range(0, cols, TILE)]
        return one_row * (rows if group == "tensor" else 1)
    if group == "channel":
        return (0,)
    step = max(1, TILE // cols)
    return [min(step, rows - at) * cols for at in range(0, rows, step)]


def quantise_matrix(x, quant):
    """codes [rows, cols], scale bits and zeros [rows, groups a row] of a whole matrix."""
    rows, cols = x.shape
    if quant.group in ("channel", "tensor"):
        groups = x.reshape(1, -1) if quant.group == "tensor" else x
        scales, zeros, codes = quantise_groups(groups, quant, chunk_lengths_of(rows, cols, quant.group))
        return codes.reshape(rows, cols), scales.reshape(-1, 1), zeros.reshape(-1, 1)
    full = cols // quant.group
    parts = [(0, full, quant.group)] if full else []
    if cols % quant.group:
        parts.append((full * quant.group, 1, cols % quant.group))
    results = []
    for at, count, n in parts:
        groups = np.ascontiguousarray(x[:, at:at + count * n]).reshape(-1, n)
        scales, zeros, codes = quantise_groups(groups, quant)
        results.append((codes.reshape(rows, -1), scales.reshape(rows, -1), zeros.reshape(rows, -1)))
    return tuple(np.concatenate(column, axis=1) for column in zip(*results))


# --- what is asked of every converted model ---------------------------------------------------------------------------

class OracleTest(unittest.TestCase):
    """Checks shared by the tests below."""

    def check_model(self, model, sources, blobs=None, metadata=None):
        """Names, shapes, dtypes, digests of all tensors, kept ones bit for bit, blobs, metadata."""
        self.assertEqual(sorted(model.tensors), sorted(s.name for s in sources))
        for source in sources:
            tensor = model.tensors[source.name]
            self.assertEqual((tensor.shape, tensor.dtype), (tuple(source.shape), source.dtype), source.name)
            width = max(8, reader.DTYPE_BITS[source.dtype]) // 8
            digest = reader.source_digest(source.data, tensor.rows, tensor.cols, width, tensor.tile)
            self.assertEqual(tensor.source_digest, digest, source.name)
            if tensor.format is None:
                self.assertEqual(tensor.source_bytes(), source.data, source.name)
        if blobs is not None:
            self.assertEqual(model.blobs, blobs)
        if metadata is not None:
            self.assertEqual(model.metadata, metadata)

    def check_planned(self, plan, model):
        """The plan's planes are those written, byte for byte in size."""
        for planned in plan["tensors"]:
            tensor = model.tensors[planned["name"]]
            expected = [(p.name, p.bits, p.nbytes) for p in tensor.planes.values()]
            self.assertEqual([(p["name"], p["bits"], p["nbytes"]) for p in planned["planes"]], expected, tensor.name)
            self.assertEqual(planned["nbytes"], sum(p.nbytes for p in tensor.planes.values()))

    def check_quant(self, tensor, quant):
        stated = (tensor.format, tensor.group, tensor.scale_rule, tensor.rounding, tensor.scale)
        self.assertEqual(stated, (quant.format, quant.group, quant.rule, quant.rounding, quant.scale), tensor.name)

    def check_codes(self, tensor, codes, scales, zeros):
        """codes, scales, zeros: arrays or lists of the right count."""
        for plane, expected in (("scales", scales), ("zeros", zeros), ("codes", codes)):
            if plane == "zeros" and not tensor.facts.zero_point:
                continue
            got = tensor.signed_codes() if plane == "codes" else tensor.planes[plane].fields
            expected = np.asarray(expected).reshape(-1)
            wrong = np.flatnonzero(got.reshape(-1).astype(np.int64) != expected.astype(np.int64))
            if len(wrong):
                at = wrong[0]
                self.fail(f"{tensor.name}: {plane}: {len(wrong)} differ; the first, {at}, is {got.reshape(-1)[at]}, expected {expected[at]}")

    def check_oracle(self, tensor, x, quant):
        """A quantised tensor against the numpy implementation."""
        self.check_quant(tensor, quant)
        codes, scales, zeros = quantise_matrix(np.ascontiguousarray(matrix(x)), quant)
        self.check_codes(tensor, codes, scales, zeros)

    def check_golden(self, tensor, x, quant):
        """A quantised tensor against the exact implementation."""
        x = matrix(x)
        data = golden.Input(tensor.name, *x.shape, np.ascontiguousarray(x).view(np.uint32).reshape(-1).tolist())
        scale = None if quant.scale == "e8m0" else quant.scale
        result = golden.quantize(quant.format, data, golden.Params(quant.group, quant.rule, quant.rounding, scale))
        self.check_codes(tensor, result["codes"], result["scales"], result["zeros"])
        decoded = np.array(result["y"], dtype=np.uint32).view(F32).reshape(tensor.shape)
        self.assertTrue(same_bits(tensor.decode(), decoded), tensor.name)


def rule_text(name, quant):
    scale = "" if quant.scale == "e8m0" else f",scale={quant.scale}"
    return f"{name}={quant.format}:group={quant.group},rule={quant.rule},rounding={quant.rounding}{scale}"


def rules(quants):
    """--rule options, {name: Quant} -> arguments."""
    return [a for name, quant in quants.items() for a in ("--rule", rule_text(name, quant))]


# --- kept tensors, blobs, metadata ------------------------------------------------------------------------------------

FLOAT_DTYPES = ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"]
OTHER_DTYPES = ["F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "C64", "F4", "F6_E2M3", "F6_E3M2"]
SHAPES = [(), (1,), (8,), (0,), (0, 4), (4, 0), (5, 36), (2, 3, 40), (2, 2, 3, 8), (2, 1, 2, 3, 4)]
SMALL_FILES = {"config.json": b'{"model_type": "llama"}\n', "generation_config.json": b"{}", "tokenizer.json": b"{}\xc3\xa4\n",
               "tokenizer.model": bytes(range(256)) * 5000, "special_tokens_map.json": b"", "LICENSE": b"free\n"}


def random_bytes(rng, count):
    return rng.integers(0, 256, count, dtype=np.uint8).tobytes()


def zoo_sources():
    """Every dtype in every shape, random bits (NaN among them: kept tensors are bytes), odd offsets in the file."""
    rng = np.random.default_rng(1)
    sources = [Source("model.first.bias", "U8", (3,), b"abc")]
    for dtype, shape in itertools.product(FLOAT_DTYPES + OTHER_DTYPES, SHAPES):
        count = int(np.prod(shape, dtype=np.int64))
        nbits = count * reader.DTYPE_BITS[dtype]
        if nbits % 8:
            continue
        data = random_bytes(rng, nbits // 8)
        if dtype == "BOOL":
            data = bytes(b & 1 for b in data)
        sources.append(Source(f"kept.{dtype}.{'x'.join(map(str, shape))}.gewicht-ä重.bias", dtype, shape, data))
    return sources


def large_kept():
    """Kept tensors of several tiles, with rows cut and not, that compress well or not at all."""
    rng = np.random.default_rng(2)
    return [
        weights("model.embed_tokens.weight", "BF16", (700, 1000), 3),
        weights("a.norm.weight", "BF16", (2, 300001), 4),
        weights("b.norm.weight", "F16", (600001,), 5),
        weights("c.norm.weight", "F64", (1, 300001), 6),
        Source("d.norm.weight", "I64", (300, 300, 4), np.arange(360000, dtype="<i8").tobytes()),
        Source("e.norm.weight", "U8", (3, 270000), random_bytes(rng, 810000)),
        Source("f.norm.weight", "F4", (540000,), random_bytes(rng, 270000)),
        Source("g.norm.weight", "BF16", (1, 262144), bytes(524288)),
        Source("h.q_proj.weight", "BF16", (0, 64), b""),  # linear layers without weights
        Source("i.q_proj.weight", "BF16", (4, 0), b""),
        weights("j.q_proj.weight", "BF16", (16, 64), 7),
    ]


class KeptTest(OracleTest):
    """What is not quantised comes through bit for bit, at every level of compression."""

    @classmethod
    def setUpClass(cls):
        cls.sources = zoo_sources() + large_kept()
        cls.metadata = {"format": "pt", "größe": "ü\n\"quoted\"\\ \u0001"}
        half = len(cls.sources) // 2
        files = [*SMALL_FILES.items(), ("modeling_x.py", b"print()\n"), ("weights.bin.txt.png", b"\x89PNG")]
        cls.folder = write_folder("kept", [cls.sources[:half], cls.sources[half:]], cls.metadata, files)

    def convert_kept(self, compress, *options):
        model = convert(self.folder, f"kept-{compress}.llmq", "--format", "int4", "--compress", compress, "--force", *options)
        self.check_model(model, self.sources, SMALL_FILES, self.metadata)
        self.assertEqual([t.name for t in model.tensors.values() if t.format], ["j.q_proj.weight"])
        return model

    def test_compress_none(self):
        model = self.convert_kept("none")
        for tensor in model.tensors.values():
            self.assertTrue(all(p.offset is not None for p in tensor.planes.values() if p.nbytes), tensor.name)

    def test_compress_default(self):
        self.convert_kept("default")

    def test_compress_max(self):
        self.convert_kept("max", "--align", "64", "--max-ram", "64M")

    def test_alignment(self):
        model = self.convert_kept("none", "--align", "64K")
        self.assertEqual(model.shards[0].header.align, 65536)

    def test_predicted_bytes(self):
        for compress in ("none", "default", "max"):
            options = ["--in", self.folder, "--format", "int4", "--compress", compress, "--json", "--max-ram", "64M"]
            plan = json.loads(llmq("plan", *options))
            done = json.loads(llmq("convert", *options, "--out", scratch("planned.llmq"), "--force"))
            actual = os.path.getsize(scratch("planned.llmq"))
            self.assertEqual(done["written_nbytes"], actual)
            self.assertEqual(plan["file_nbytes_exact"], compress == "none")
            self.assertLessEqual(actual, plan["file_nbytes"])
            if compress == "none":
                self.assertEqual(plan["file_nbytes"], actual)
            self.check_planned(plan, reader.read(scratch("planned.llmq")))


# --- codes, scales, zeros ---------------------------------------------------------------------------------------------

MX_NAMES = list(golden.MX_FORMATS)
INT_NAMES = list(golden.INT_FORMATS)
MX_RULES = ["floor", "even", "ceil", "rceil", "search"]
INT_RULES = ["absmax", "mse", "minmax", "percentile", "mse-hist", "histogram-pro", "3sd", "kl-j", "tqt", "lsq", "pact"]  # all but the first two: test_cli_scale_rules.py
SCALE_TYPES = ["bf16", "f16", "f32"]


def mx_quants(groups):
    return [Quant(f, g, rule, rounding, "e8m0")
            for f, rule, rounding, g in itertools.product(MX_NAMES, MX_RULES, ROUNDINGS, groups)]


def int_quants(groups):
    return [Quant(f, g, rule, rounding, scale)
            for f, rule, rounding, scale, g in itertools.product(INT_NAMES, ("absmax", "mse"), ROUNDINGS, SCALE_TYPES, groups)]


def numbered(quants):
    return {f"t{i}.weight": quant for i, quant in enumerate(quants)}


class CodesTest(OracleTest):
    """Every combination of format, rule, rounding, scale type and group on small tensors."""

    def convert_all(self, stem, quants, values):
        """One model with one tensor for each Quant, the same bytes with all kernels; returns (tensor, x, quant) of each."""
        quants = numbered(quants)
        sources = [f32_source(name, values(i)) for i, name in enumerate(quants)]
        path = write_safetensors(scratch(stem + ".safetensors"), sources)
        model = convert(path, stem + ".llmq", *rules(quants))
        self.check_model(model, sources)
        for kernels in KERNELS:
            other = scratch(f"{stem}-{kernels}.llmq")
            llmq("convert", "--in", path, "--out", other, "--quiet", *rules(quants), env={"LLMQ_KERNELS": kernels})
            self.assertTrue(filecmp.cmp(scratch(stem + ".llmq"), other, shallow=False), kernels)
        return [(model.tensors[s.name], values_of(s), quants[s.name]) for s in sources]

    def test_formats_are_all_covered(self):
        listed = [f for f in json.loads(llmq("formats", "--json"))["formats"] if f["family"] in ("mx", "affine")]
        self.assertEqual({f["name"] for f in listed}, {*MX_NAMES, *INT_NAMES})
        for f in listed:
            mx = f["name"] in MX_NAMES
            self.assertEqual(sorted({*f["scale_rules"]} - {"reference"}), sorted(MX_RULES if mx else INT_RULES))
            self.assertEqual(f["scale_dtypes"], ["e8m0"] if mx else SCALE_TYPES)
            self.assertEqual((f["channel"], f["tensor"]), (not mx, not mx))

    def test_mx_exact(self):
        values = lambda i: odd_values(np.random.default_rng(100 + i), 8, 13)
        for tensor, x, quant in self.convert_all("mx-exact", mx_quants([8]), values):
            self.check_golden(tensor, x, quant)
            self.check_oracle(tensor, x, quant)

    def test_int_absmax_exact(self):
        values = lambda i: odd_values(np.random.default_rng(300 + i), 7, 13)[:, :13 - i % 3]
        quants = [q for q in int_quants([8, "channel", "tensor"]) if q.rule == "absmax"]
        chosen = random.Random(5).sample(quants, 160)
        for tensor, x, quant in self.convert_all("absmax-exact", chosen, self.fit(values, chosen)):
            self.check_golden(tensor, x, quant)
            self.check_oracle(tensor, x, quant)

    def test_int_mse_exact(self):
        values = lambda i: odd_values(np.random.default_rng(500 + i), 9, 11)[i % 7:i % 7 + 2]
        quants = [q for q in int_quants([6, "channel", "tensor"]) if q.rule == "mse"]
        chosen = random.Random(6).sample(quants, 24)
        for tensor, x, quant in self.convert_all("mse-exact", chosen, self.fit(values, chosen)):
            self.check_golden(tensor, x, quant)
            self.check_oracle(tensor, x, quant)

    @staticmethod
    def fit(values, quants):
        """values(i), scaled down where the scales are f16, which hold nothing beyond 65504."""
        return lambda i: np.clip(values(i), -1e4, 1e4).astype(F32) if quants[i].scale == "f16" else values(i)

    def test_mx_numpy(self):
        values = lambda i: odd_values(np.random.default_rng(900 + i), 16, 70 + i % 5)
        for tensor, x, quant in self.convert_all("mx-numpy", mx_quants([32, 16]), values):
            self.check_oracle(tensor, x, quant)

    def test_int_numpy(self):
        quants = random.Random(7).sample(int_quants([32, "channel", "tensor"]), 600)
        values = self.fit(lambda i: odd_values(np.random.default_rng(2000 + i), 8, 45 + i % 7), quants)
        for tensor, x, quant in self.convert_all("int-numpy", quants, values):
            self.check_oracle(tensor, x, quant)

    def test_huge(self):
        """Weights near the largest binary32 number; MX formats take all of them, integers as long as no code decodes to Inf."""
        def values(largest):
            def some(i):
                x = (np.random.default_rng(7000 + i).uniform(-1, 1, (4, 40)) * largest).astype(F32)
                x[0, 3], x[1, 5] = largest, -largest
                x[2:] = np.abs(x[2:])
                return x
            return some
        for tensor, x, quant in self.convert_all("huge-mx", mx_quants([32]), values(np.finfo(F32).max)):
            self.check_oracle(tensor, x, quant)
            self.assertTrue(np.isfinite(tensor.decode()).all(), tensor.name)
        quants = [q for q in int_quants([16, "channel", "tensor"]) if q.scale != "f16"][::3]
        for tensor, x, quant in self.convert_all("huge-int", quants, lambda i: values(3.1e38)(i) * F32(0.5 if quants[i].format[0] == "u" else 0.7)):
            self.check_oracle(tensor, x, quant)
            self.assertTrue(np.isfinite(tensor.decode()).all(), tensor.name)

    def test_scale_overflow_is_refused(self):
        """Scales beyond their type, and scales that fit but with which a code decodes to Inf."""
        largest = float(np.finfo(F32).max)
        cases = [("int4", 1e7, "f16"), ("uint2", 1e6, "f16"), ("int4", largest, "bf16"), ("int8", largest, "f32"), ("uint8", largest, "f32")]
        for (name, value, scale), rule, group in itertools.product(cases, ("absmax", "mse"), (8, "tensor")):
            x = np.full((2, 8), value, F32)
            x[1, 3] = -value if name == "uint8" else value
            quant = Quant(name, group, rule, "away", scale)
            with self.assertRaises(Refused):
                quantise_matrix(x, quant)
            path = write_safetensors(scratch("overflow.safetensors"), [f32_source("x.weight", x)])
            done = run("convert", "--in", path, "--out", scratch("overflow.llmq"), *rules({"x.weight": quant}))
            self.assertEqual(done.returncode, 1, quant)
            self.assertIn("x.weight", done.stderr)
            self.assertFalse(os.path.exists(scratch("overflow.llmq")))

    def test_dtypes_ranks_and_defaults(self):
        """Other source dtypes, stacks, single rows; what is quantised without a rule; defaults of the formats."""
        cases = [("l.q_proj.weight", d, (5, 300)) for d in FLOAT_DTYPES]
        cases += [("l.experts.down_proj", "BF16", (3, 10, 70)), ("vector", "F64", (77,)), ("deep", "F16", (2, 2, 3, 5, 9)),
                  ("one", "F32", (1, 1)), ("scalar", "F32", ())]
        sources = [weights(f"{i}.{n}", d, s, 40 + i) for i, (n, d, s) in enumerate(cases)]
        path = write_safetensors(scratch("dtypes.safetensors"), sources)
        exact = [f"{i}.{n}" for i, (n, _, s) in enumerate(cases) if n in ("vector", "deep", "one", "scalar")]
        defaults = {"mxfp4": (32, "search", "e8m0"), "mxint8": (32, "search", "e8m0"), "int4": (128, "absmax", "bf16"), "uint5": (128, "absmax", "bf16")}
        for name, (group, rule, scale) in defaults.items():
            model = convert(path, f"dtypes-{name}.llmq", "--format", name, *[a for n in exact for a in ("--rule", f"{n}={name}")])
            self.check_model(model, sources)
            for source in sources:
                self.check_oracle(model.tensors[source.name], values_of(source), Quant(name, group, rule, "nearest-even", scale))


class LargeTest(OracleTest):
    """Groups and rows that reach over tiles."""

    CASES = [
        ("BF16", (2, 300001), [("int4", "channel", "absmax", "bf16"), ("uint4", "channel", "mse", "f16"), ("int3", 128, "mse", "bf16"),
                               ("mxfp4", 32, "search", "e8m0"), ("uint3", 100, "absmax", "bf16"), ("int8", "tensor", "mse", "f32")]),
        ("F32", (14, 20011), [("uint4", "tensor", "mse", "bf16"), ("int5", "tensor", "absmax", "f16"), ("int4", "channel", "mse", "bf16"),
                              ("mxfp6_e2m3", 32, "rceil", "e8m0"), ("uint7", 128, "absmax", "bf16"), ("int2", 32768, "mse", "bf16")]),
        ("F16", (3, 90, 1500), [("uint2", "tensor", "mse", "f32"), ("mxfp8_e5m2", 24, "even", "e8m0"), ("int6", 7, "absmax", "f16")]),
        ("F32", (1, 524289), [("int4", "channel", "mse", "bf16"), ("uint6", "tensor", "mse", "bf16"), ("int7", 32768, "absmax", "bf16")]),
        ("F64", (1, 262144), [("int4", "channel", "mse", "bf16")]),
        ("F32", (1, 262145), [("uint4", "channel", "mse", "bf16"), ("int3", 31, "absmax", "bf16")]),
        ("F32", (300000, 1), [("int4", 32, "absmax", "f32"), ("uint8", "tensor", "mse", "bf16"), ("mxint8", 32, "floor", "e8m0")]),
        ("BF16", (70001, 5), [("int3", "channel", "absmax", "bf16"), ("uint3", "tensor", "absmax", "f16"), ("mxfp6_e3m2", 2, "search", "e8m0")]),
    ]

    def test_large(self):
        quants, sources = {}, []
        for i, (dtype, shape, kinds) in enumerate(self.CASES):
            for j, (name, group, rule, scale) in enumerate(kinds):
                sources.append(weights(f"large.{i}.{j}", dtype, shape, 60 + i))
                quants[sources[-1].name] = Quant(name, group, rule, list(ROUNDINGS)[(i + j) % 4], scale)
        path = write_safetensors(scratch("large.safetensors"), sources)
        model = convert(path, "large.llmq", *rules(quants), "--max-ram", "64M")
        os.unlink(path)
        self.check_model(model, sources)
        for source in sources:
            self.check_oracle(model.tensors[source.name], values_of(source), quants[source.name])


    # Groups of two tiles in which candidates of rule mse nearly tie: `ones` weights are 1, the others 0.11. The sums of section 5
    # choose k; exact sums, or (second of each pair) sums that run on over the tiles, would choose its neighbour.
    NEAR_TIES = {
        "channel": ((1, 300000), [(12390, 63), (12410, 64), (16605, 65), (16591, 64), (23360, 65)]),
        "tensor": ((300, 1001), [(12409, 63), (12425, 64), (16620, 65), (16608, 64)]),
    }

    def test_order_of_summation(self):
        sources, quants, expected = [], {}, {}
        for group, (shape, ties) in self.NEAR_TIES.items():
            count = shape[0] * shape[1]
            order = np.random.default_rng(5).permutation(count)
            for ones, k in ties:
                name = f"{group}.{ones}"
                sources.append(f32_source(name, np.where(order < ones, F32(1), F32(0.11)).reshape(shape)))
                quants[name] = Quant("int4", group, "mse", "nearest-even", "f32")
                expected[name] = F32(k / 64) / F32(7.5)
        path = write_safetensors(scratch("ties.safetensors"), sources)
        model = convert(path, "ties.llmq", *rules(quants))
        for name, scale in expected.items():
            self.assertEqual(model.tensors[name].planes["scales"].fields.view("<f4").tolist(), [[scale]], name)


# --- NaN and Inf ------------------------------------------------------------------------------------------------------

NONFINITE = {  # dtype: NaN, Inf, -Inf as stored (F8_E4M3 has no Inf)
    "F64": ("7ff8000000000001", "7ff0000000000000", "fff0000000000000"), "F32": ("7fc00001", "7f800000", "ff800000"),
    "F16": ("7e01", "7c00", "fc00"), "BF16": ("ffc1", "7f80", "ff80"), "F8_E4M3": ("ff", "7f", "7f"), "F8_E5M2": ("7d", "7c", "fc"),
}


class NonfiniteTest(OracleTest):
    """--nonfinite error, zero, clamp and keep."""

    @classmethod
    def setUpClass(cls):
        cls.sources = [cls.poisoned(i, dtype) for i, dtype in enumerate(NONFINITE)]
        cls.sources.append(weights("9.q_proj.weight", "BF16", (4, 50), 99))
        cls.path = write_safetensors(scratch("nonfinite.safetensors"), cls.sources)

    @staticmethod
    def poisoned(i, dtype):
        """Ordinary weights with NaN, Inf and -Inf among them."""
        source = weights(f"{i}.q_proj.weight", dtype, (6, 50), 80 + i)
        elements = np.frombuffer(source.data, f"<u{reader.DTYPE_BITS[dtype] // 8}").reshape(6, 50).copy()
        nan, inf, minus_inf = (int(bits, 16) for bits in NONFINITE[dtype])
        elements[1, 3], elements[2, 7], elements[2, 40], elements[5, 49], elements[3, 0] = nan, inf, minus_inf, inf, nan
        return source._replace(data=elements.tobytes())

    def test_error(self):
        done = run("convert", "--in", self.path, "--format", "mxfp8_e4m3", "--out", scratch("nonfinite.llmq"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("0.q_proj.weight", done.stderr)
        self.assertFalse(os.path.exists(scratch("nonfinite.llmq")))

    def test_zero_and_clamp(self):
        """Both choose scales as if NaN and Inf were 0; clamp then gives Inf the extreme codes."""
        for quant, low, high in ((Quant("mxfp8_e4m3", 32, "search", "nearest-even", "e8m0"), 0xFE, 0x7E), (Quant("int4", 32, "absmax", "nearest-even", "bf16"), 8, 7)):
            zeroed, clamped = (convert(self.path, f"nonfinite-{quant.format}-{mode}.llmq", "--format", f"{quant.format}:group=32", "--nonfinite", mode) for mode in ("zero", "clamp"))
            self.check_model(zeroed, self.sources)
            self.check_model(clamped, self.sources)
            for source in self.sources:
                x = values_of(source)
                self.check_oracle(zeroed.tensors[source.name], np.where(np.isfinite(x), x, F32(0)), quant)
                codes, scales = ([model.tensors[source.name].planes[plane].fields for model in (zeroed, clamped)] for plane in ("codes", "scales"))
                np.testing.assert_array_equal(codes[1], np.where(np.isinf(x), np.where(x < 0, low, high), codes[0]))
                np.testing.assert_array_equal(scales[1], scales[0])

    def test_keep(self):
        for compress in ("none", "default"):
            model = convert(self.path, f"nonfinite-keep-{compress}.llmq", "--format", "int4", "--nonfinite", "keep", "--compress", compress)
            self.check_model(model, self.sources)
            self.assertEqual([bool(model.tensors[s.name].format) for s in self.sources], [False] * len(NONFINITE) + [True])


# --- dequantize, extract, compare -------------------------------------------------------------------------------------

def mixed_sources():
    """A small model with every kind of tensor."""
    return [
        weights("model.embed_tokens.weight", "BF16", (40, 64), 200),
        weights("model.layers.0.input_layernorm.weight", "F32", (64,), 201),
        weights("model.layers.0.self_attn.q_proj.weight", "BF16", (48, 70), 202),
        weights("model.layers.0.self_attn.k_proj.weight", "F16", (33, 64), 203),
        weights("model.layers.0.self_attn.v_proj.weight", "F32", (20, 129), 204),
        weights("model.layers.0.self_attn.o_proj.weight", "F64", (12, 64), 205),
        weights("model.layers.0.mlp.up_proj.weight", "F8_E4M3", (16, 64), 206),
        weights("model.layers.0.mlp.gate_proj.weight", "F8_E5M2", (16, 64), 207),
        weights("model.layers.0.mlp.experts.down_proj", "BF16", (3, 10, 40), 208),
        weights("model.layers.1.mlp.down_proj.weight", "BF16", (300, 1000), 209),
        Source("steps", "I64", (3,), struct.pack("<3q", 1, -2, 3)),
        Source("mask", "BOOL", (2, 3), b"\1\0\1\1\0\0"),
        Source("empty", "F32", (0, 7), b""),
        Source("scalar", "F32", (), struct.pack("<f", 0.5)),
    ]


MIXED_OPTIONS = ["--format", "int4", "--rule", "role:down=mxfp4", "--rule", "*.k_proj.*=uint3:group=channel,rule=mse", "--rule", "*.v_proj.*=mxint8",
                 "--rule", "*.up_proj.*=uint8:group=tensor"]


class BackTest(OracleTest):
    """What dequantize, extract and compare say of a container."""

    @classmethod
    def setUpClass(cls):
        cls.sources = mixed_sources()
        cls.by_name = {s.name: s for s in cls.sources}
        cls.folder = write_folder("mixed", [cls.sources], {"format": "pt"}, SMALL_FILES.items())
        cls.path = scratch("mixed.llmq")
        cls.model = convert(cls.folder, "mixed.llmq", *MIXED_OPTIONS)

    def dequantize(self, out, *options):
        llmq("dequantize", "--in", self.path, "--out", scratch(out) + "/", "--quiet", *options)
        return read_safetensors(scratch(out, "model.safetensors"))

    def expected(self, tensor, dtype):
        """dtype and bytes that a tensor comes back with."""
        if tensor.format is None:
            return tensor.dtype, tensor.source_bytes()
        if dtype is None:  # "source": the dtype it had, where that is F32 or of 16 bits
            dtype = tensor.dtype if tensor.dtype in ("BF16", "F16") else "F32"
        return dtype, encode_dtype(tensor.decode().astype(np.float64), dtype)

    def check_back(self, found, dtype):
        self.assertEqual(sorted(found), sorted(self.by_name))
        for name, back in found.items():
            tensor = self.model.tensors[name]
            self.assertEqual(back.shape, tensor.shape)
            self.assertEqual((back.dtype, back.data), self.expected(tensor, dtype), name)

    def test_reader_and_blobs(self):
        self.check_model(self.model, self.sources, SMALL_FILES, {"format": "pt"})
        self.assertEqual(sum(t.format is not None for t in self.model.tensors.values()), 8)

    def test_plan(self):
        for options in ([], ["--compress", "none"]):
            plan = json.loads(llmq("plan", "--in", self.folder, *MIXED_OPTIONS, *options, "--json"))
            model = convert(self.folder, "mixed-planned.llmq", *MIXED_OPTIONS, *options, "--force")
            self.check_planned(plan, model)
            predicted, actual = plan["file_nbytes"], len(model.shards[0].data)
            self.assertTrue(predicted == actual if options else predicted >= actual, (predicted, actual))

    def test_dequantize(self):
        for option, dtype in (("f32", "F32"), ("bf16", "BF16"), ("f16", "F16"), ("source", None)):
            with self.subTest(option):
                found, metadata = self.dequantize("back-" + option, "--dtype", option)
                self.check_back(found, dtype)
                self.assertEqual(metadata, {"format": "pt"})

    def test_folder_again(self):
        self.dequantize("again")
        for name in SMALL_FILES:
            self.assertTrue(filecmp.cmp(os.path.join(self.folder, name), scratch("again", name), shallow=False), name)
        self.assertEqual(sorted(os.listdir(scratch("again"))), sorted([*SMALL_FILES, "model.safetensors"]))
        sources = list(read_safetensors(scratch("again", "model.safetensors"))[0].values())
        self.check_model(convert(scratch("again"), "again.llmq", *MIXED_OPTIONS), sources, SMALL_FILES, {"format": "pt"})

    def test_dequantize_split(self):
        llmq("dequantize", "--in", self.path, "--out", scratch("back-split") + "/", "--dtype", "f32", "--split-max-size", "1M", "--quiet")
        files = sorted(n for n in os.listdir(scratch("back-split")) if n.endswith(".safetensors"))
        self.assertGreater(len(files), 1)
        found = {}
        for name in files:
            found.update(read_safetensors(scratch("back-split", name))[0])
        self.check_back(found, "F32")
        with open(scratch("back-split", "model.safetensors.index.json"), encoding="utf-8") as f:
            weight_map = json.load(f)["weight_map"]
        self.assertEqual(sorted(weight_map), sorted(found))
        for name, file_name in weight_map.items():
            self.assertIn(name, read_safetensors(scratch("back-split", file_name))[0])

    def test_dequantize_rounds_to_nearest_even(self):
        """Scales of f32 and huge values: nothing of the decoded values is representable in 16 bits by accident."""
        x = odd_values(np.random.default_rng(210), 32, 100)
        path = write_safetensors(scratch("round.safetensors"), [f32_source("x", x)])
        model = convert(path, "round.llmq", "--rule", "x=uint8:group=16,scale=f32")
        for option, dtype in (("bf16", "BF16"), ("f16", "F16")):
            llmq("dequantize", "--in", scratch("round.llmq"), "--out", scratch(f"round-{option}.safetensors"), "--dtype", option, "--quiet")
            back = read_safetensors(scratch(f"round-{option}.safetensors"))[0]["x"]
            self.assertEqual(back.data, encode_dtype(model.tensors["x"].decode().astype(np.float64), dtype))

    def test_extract_decoded(self):
        names = ["model.layers.0.self_attn.v_proj.weight", "scalar", "*.k_proj.weight"]
        llmq("extract", self.path, *names, "--out", scratch("some.safetensors"), "--dtype", "f32", "--quiet")
        found = read_safetensors(scratch("some.safetensors"))[0]
        self.assertEqual(sorted(found), sorted([names[0], "scalar", "model.layers.0.self_attn.k_proj.weight"]))
        for name, back in found.items():
            self.assertEqual((back.dtype, back.data), self.expected(self.model.tensors[name], "F32"), name)

    def test_extract_raw(self):
        llmq("extract", self.path, "*", "--raw", "--out", scratch("raw"), "--quiet")
        for tensor in self.model.tensors.values():
            for plane in tensor.planes.values():
                with open(scratch("raw", f"{tensor.name}.{plane.name}"), "rb") as f:
                    self.assertEqual(f.read(), plane.data, plane.what)

    def test_extract_blobs(self):
        llmq("extract", self.path, *SMALL_FILES, "--out", scratch("blobs"), "--quiet")
        self.assertEqual(sorted(os.listdir(scratch("blobs"))), sorted(SMALL_FILES))
        for name, data in SMALL_FILES.items():
            with open(scratch("blobs", name), "rb") as f:
                self.assertEqual(f.read(), data, name)

    def near(self, got, expected, what):
        if expected is None or not np.isfinite(expected):
            self.assertNotIsInstance(got, float, what)
        else:
            self.assertIsNotNone(got, what)
            self.assertLessEqual(abs(got - expected), 1e-6 * abs(expected) + 1e-300, f"{what}: {got}, expected {expected}")

    def check_measure(self, said, x, y, what):
        x, y = x.astype(np.float64), y.astype(np.float64)
        d = x - y
        self.near(said["mse"], np.mean(d * d), what + " mse")
        self.near(said["max_error"], np.abs(d).max(), what + " max_error")
        self.near(said["cosine"], (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()), what + " cosine")
        if d.any():
            self.near(said["sqnr_db"], 10 * np.log10((x * x).sum() / (d * d).sum()), what + " sqnr_db")

    def test_compare(self):
        said = json.loads(llmq("compare", "--in", self.folder, "--against", self.path, "--json"))
        self.assertEqual(sorted(t["name"] for t in said["tensors"]), sorted(self.by_name))
        pairs = []
        for entry in said["tensors"]:
            source, tensor = self.by_name[entry["name"]], self.model.tensors[entry["name"]]
            self.assertEqual(entry["identical"], bool(tensor.format is None), entry["name"])
            if tensor.format:
                pairs.append((values_of(source).reshape(-1), tensor.decode().reshape(-1)))
                self.check_measure(entry, *pairs[-1], entry["name"])
        order = [t["sqnr_db"] for t in said["tensors"] if not t["identical"]]
        self.assertEqual(order, sorted(order))

    def test_convert_measures_the_same(self):
        said = json.loads(llmq("convert", "--in", self.folder, "--out", scratch("measured.llmq"), *MIXED_OPTIONS, "--json"))
        xs, ys = [], []
        for entry in said["tensors"]:
            tensor = self.model.tensors[entry["name"]]
            self.assertEqual("mse" in entry, tensor.format is not None)
            if tensor.format:
                xs.append(values_of(self.by_name[entry["name"]]).reshape(-1))
                ys.append(tensor.decode().reshape(-1))
                self.check_measure(entry, xs[-1], ys[-1], entry["name"])
        self.check_measure(said, np.concatenate(xs), np.concatenate(ys), "total")

    def test_compare_finds_differences(self):
        changed = [s._replace(data=s.data[:-1] + bytes([s.data[-1] ^ 1])) if s.name in ("steps", "scalar") else s for s in self.sources]
        path = write_safetensors(scratch("changed.safetensors"), changed)
        said = json.loads(llmq("compare", "--in", self.folder, "--against", path, "--json"))
        self.assertEqual({t["name"] for t in said["tensors"] if not t["identical"]}, {"steps", "scalar"})
        fewer = write_safetensors(scratch("fewer.safetensors"), self.sources[1:])
        self.assertEqual(run("compare", "--in", self.folder, "--against", fewer).returncode, 3)
        self.assertEqual(run("compare", "--in", fewer, "--against", self.folder).returncode, 3)


# --- the same bytes ---------------------------------------------------------------------------------------------------

class SameBytesTest(OracleTest):
    """Threads, memory, kernels and place do not change a byte."""

    @classmethod
    def setUpClass(cls):
        cls.sources = mixed_sources() + [weights("z.0.down_proj.weight", "F32", (2, 270000), 300), weights("z.0.up_proj.weight", "BF16", (900, 700), 301)]
        cls.folder = write_folder("same", [cls.sources[:5], cls.sources[5:]], {"a": "b"}, SMALL_FILES.items())
        cls.options = [*MIXED_OPTIONS[:2], "--rule", "z.0.down*=uint4:group=channel,rule=mse", *MIXED_OPTIONS[2:], "--quiet"]

    def bytes_of(self, name, *options, source=None, **more):
        llmq("convert", "--in", source or self.folder, "--out", scratch(name), *self.options, *options, **more)
        with open(scratch(name), "rb") as f:
            return f.read()

    def test_same_bytes(self):
        first = self.bytes_of("same.llmq")
        self.check_model(reader.read(scratch("same.llmq")), self.sources, SMALL_FILES, {"a": "b"})
        runs = [(["--threads", n, "--max-ram", ram], {}) for n, ram in itertools.product((1, 2, 7), ("8M", "64M"))]
        runs += [(["--threads", 2], {"LLMQ_KERNELS": k}) for k in KERNELS]
        runs += [(["--measure", "off"], {})]
        for i, (options, env) in enumerate(runs):
            with self.subTest(options=options, env=env):
                self.assertTrue(self.bytes_of(f"same-{i}.llmq", *options, env=env) == first)

    def test_another_place(self):
        first = self.bytes_of("place.llmq")
        os.makedirs(scratch("elsewhere", "deep"))
        moved = scratch("elsewhere", "deep", "model")
        shutil.copytree(self.folder, moved)
        self.assertTrue(self.bytes_of("elsewhere/out.llmq", source="model", cwd=scratch("elsewhere", "deep")) == first)

    def test_kernels_decode_alike(self):
        self.bytes_of("decode.llmq")
        results = []
        for kernels in KERNELS:
            out = scratch("decode-" + kernels)
            llmq("dequantize", "--in", scratch("decode.llmq"), "--out", out + "/", "--dtype", "bf16", "--quiet", env={"LLMQ_KERNELS": kernels})
            with open(os.path.join(out, "model.safetensors"), "rb") as f:
                results.append(f.read())
        self.assertTrue(results[0] == results[1] == results[2])


# --- sets of shards ---------------------------------------------------------------------------------------------------

class SplitTest(OracleTest):
    """--split-max-size: several files that are one model."""

    def setUp(self):
        self.sources = mixed_sources()
        self.folder = scratch("split-in")
        if not os.path.exists(self.folder):
            write_folder("split-in", [self.sources], {"format": "pt"}, SMALL_FILES.items())

    def split(self, stem, size, *options):
        """Converts; returns the set's files in order."""
        llmq("convert", "--in", self.folder, "--out", scratch(stem + ".llmq"), *MIXED_OPTIONS, "--split-max-size", size, "--quiet", *options)
        names = sorted(n for n in os.listdir(SCRATCH) if n.startswith(stem + "-0") and n.endswith(".llmq"))
        self.assertEqual([scratch(n) for n in names], [shard_name(stem, i, len(names)) for i in range(len(names))])
        return [scratch(n) for n in names]

    def test_sets(self):
        whole = convert(self.folder, "whole.llmq", *MIXED_OPTIONS)
        for size, compress in (("64K", "none"), ("100K", "default"), ("1.4M", "none")):
            with self.subTest(size):
                files = self.split(f"set-{size}", size, "--compress", compress)
                self.assertGreater(len(files), 1)
                for path in files:
                    llmq("verify", path, "--quiet")
                    self.check_set(reader.read(path), whole)
                for shard in reader.read(files[0]).shards:
                    shard.check_layout()

    def check_set(self, model, whole):
        self.check_model(model, self.sources, SMALL_FILES, {"format": "pt"})
        for name, tensor in model.tensors.items():
            if tensor.format:
                for plane in tensor.planes.values():
                    self.assertEqual(plane.data, whole.tensors[name].planes[plane.name].data, plane.what)

    def test_size_is_kept(self):
        files = self.split("kept-size", "1.4M", "--compress", "none")
        plan = json.loads(llmq("plan", "--in", self.folder, *MIXED_OPTIONS, "--split-max-size", "1.4M", "--compress", "none", "--json"))
        self.assertEqual(plan["files"], len(files))
        self.assertEqual(plan["file_nbytes"], sum(map(os.path.getsize, files)))
        self.assertTrue(all(os.path.getsize(p) <= 1.4 * (1 << 20) for p in files))

    def test_dequantize_a_set(self):
        files = self.split("back-set", "100K")
        llmq("dequantize", "--in", files[0], "--out", scratch("back-set") + "/", "--dtype", "f32", "--quiet")
        found = read_safetensors(scratch("back-set", "model.safetensors"))[0]
        for name, tensor in reader.read(files[0]).tensors.items():
            expected = tensor.source_bytes() if tensor.format is None else tensor.decode().tobytes()
            self.assertEqual(found[name].data, expected, name)

    def test_damage_in_another_shard(self):
        """Whichever shard is named, the whole set is read."""
        files = self.split("damaged", "100K")
        with open(files[-1], "r+b") as f:
            f.seek(100)
            byte = f.read(1)[0]
            f.seek(100)
            f.write(bytes([byte ^ 1]))
        for path in files:
            self.assertEqual(run("verify", path).returncode, 3)
            with self.assertRaises(reader.LlmqError):
                reader.read(path)

    def test_foreign_shard_is_refused(self):
        """Shards of two runs with other settings do not make a set; a missing one is an error."""
        files, other = self.split("ours", "100K"), self.split("theirs", "100K", "--rounding", "away")
        self.assertEqual(len(files), len(other))
        shutil.copy(other[1], files[1])
        for path in files:
            self.assertEqual(run("verify", path).returncode, 3)
            with self.assertRaises(reader.LlmqError):
                reader.read(path)
        os.unlink(files[1])
        self.assertNotEqual(run("verify", files[0]).returncode, 0)
        with self.assertRaises(reader.LlmqError):
            reader.read(files[0])


# --- damage -----------------------------------------------------------------------------------------------------------

class ExampleTest(OracleTest):
    """The file shown in FORMAT.md, put together from the page."""

    def page(self):
        with open(os.path.join(ROOT, "formats", "FORMAT.md"), encoding="utf-8") as f:
            return f.read().split("## 7. Example")[1]

    def test_example(self):
        page = self.page()
        data = bytearray(1164)
        for line in re.findall(r"^[0-9a-f]{8}(?:  [0-9a-f ]+)$", page, re.M):
            at, octets = int(line[:8], 16), bytes.fromhex(line[10:])
            data[at:at + len(octets)] = octets
        index = re.search(r"```json\n(.*?)\n?```", page, re.S).group(1).encode()
        self.assertEqual(len(data), 1164)
        data[0xC4:0xC4 + 800] = (index + b"\n" * 2)[:800]
        with open(scratch("example.llmq"), "wb") as f:
            f.write(data)
        model = reader.read(scratch("example.llmq"))
        self.assertEqual(model.tensors["w"].decode().tolist(), [[1, -2, 0.5, 6]])
        self.assertEqual(model.tensors["n"].decode().tolist(), [1, 1])
        llmq("verify", scratch("example.llmq"), "--quiet")


class ReaderProgramTest(OracleTest):
    """tests/reader.py as a program."""

    def reader(self, *args):
        return subprocess.run([sys.executable, os.path.join(TESTS, "reader.py"), *args], capture_output=True, text=True, cwd=SCRATCH)

    def test_program(self):
        source = weights("model.layers.0.q_proj.weight", "BF16", (6, 70), 600)
        model = convert(write_safetensors(scratch("program.safetensors"), [source]), "program.llmq", "--format", "mxfp4")
        done = self.reader("program.llmq", "--npz", "program.npz")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn(f"{source.name}  [6, 70] BF16 q  mxfp4 group=32", done.stdout)
        with np.load(scratch("program.npz")) as arrays:
            self.assertTrue(same_bits(arrays[source.name], model.tensors[source.name].decode()))
        self.assertEqual(self.reader("program.llmq", "--verify").stdout, "ok\n")
        self.assertEqual(self.reader("program.safetensors", "--verify").returncode, 3)


class DamageTest(OracleTest):
    """Any flipped byte is found, by llmq verify and by the reader."""

    SAMPLES = 150  # beside header, trailer and the ends of the parts

    def small_model(self, compress):
        sources = [weights("model.layers.0.q_proj.weight", "F32", (6, 70), 400), weights("model.norm.weight", "BF16", (200,), 401),
                   weights("model.layers.0.k_proj.weight", "BF16", (30, 40), 402), Source("empty", "F16", (0,), b"")]
        folder = scratch("damage-" + compress)
        if not os.path.exists(folder):
            write_folder("damage-" + compress, [sources], None, [("config.json", b'{"x": "' + b"y" * 300 + b'"}')])
        path = scratch(f"damage-{compress}.llmq")
        convert(folder, f"damage-{compress}.llmq", "--format", "uint4:group=16", "--compress", compress, "--align", "1024")
        return path

    def positions(self, data):
        size = len(data)
        index_offset = struct.unpack_from("<Q", data, size - 96)[0]
        chosen = {*range(64), *range(size - 96, size), index_offset - 1, index_offset, size - 97}
        return sorted(chosen | set(random.Random(8).sample(range(64, size - 96), self.SAMPLES)))

    def refused(self, path, data, what, codes=(3,)):
        with open(path, "wb") as f:
            f.write(data)
        done = run("verify", path)
        self.assertIn(done.returncode, codes, f"{what}: {done.stdout}{done.stderr}")
        with self.assertRaises(reader.LlmqError, msg=what):
            reader.read(path)

    def check_damage(self, compress):
        path = self.small_model(compress)
        with open(path, "rb") as f:
            data = f.read()
        bit = random.Random(9)
        for at in self.positions(data):
            changed = bytearray(data)
            changed[at] ^= 1 << bit.randrange(8)
            # without its magic number a file is no container
            self.refused(path, changed, f"byte {at} of {len(data)}", (1,) if at < 8 else (3,))

    def test_flipped_bytes_raw(self):
        self.check_damage("none")

    def test_flipped_bytes_zstd(self):
        self.check_damage("max")

    def test_cut_and_longer(self):
        path = self.small_model("default")
        with open(path, "rb") as f:
            data = f.read()
        for n in (len(data) - 1, len(data) - 96, len(data) // 2, 160, 64):
            self.refused(path, data[:n], f"cut to {n}")
        for tail in (b"\0", b"\0" * 96, data[-96:]):
            self.refused(path, data + tail, f"{len(tail)} bytes longer")


# --- crafted files ----------------------------------------------------------------------------------------------------

ODD_NUMBERS = [0, 1, 2, 3, 4, 8, 16, 64, (1 << 53) - 1, 1 << 53, -1, 1.5, "x", None, True, [], {}]
ODD_STRINGS = ["", "int4", "mx", "affine", "BF16", "F64", "f16", "codes", "scales", "data", "exponent", "tensor", "nan", "/", "..", 5, None]


def rebuild(data, index=None, chunks=None, body=None):
    """A file with another index (JSON value or text), chunk table or body, and all digests right again."""
    shard = reader.Shard(data)
    body = data[:shard.trailer.index_offset] if body is None else body
    index = shard.index if index is None else index
    text = index if isinstance(index, bytes) else json.dumps(index, ensure_ascii=False, separators=(",", ":")).encode()
    chunks = shard.chunks if chunks is None else chunks
    tail = text + b"".join(struct.pack("<QIIQ", *c) for c in chunks)
    digest = reader.digest128(tail)
    sizes = (len(body), len(text), len(text), len(chunks))
    trailer = struct.pack("<QQQQ16s16sQQ", *sizes, digest, reader.digest128(digest), len(body) + len(tail) + 96, shard.header.checksum)
    return body + tail + trailer + struct.pack("<Q", reader.digest64(trailer)) + reader.TAIL_MAGIC


def paths(node, path=()):
    """Paths to all values of a JSON value."""
    yield path
    for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield from paths(node[key], (*path, key))


def odd_values_for(value):
    if type(value) is int:
        return [*ODD_NUMBERS, value + 1, value - 1, 2 * value]
    if type(value) is str:
        return [*ODD_STRINGS, value + "x"]
    if type(value) is list:
        return [value + [1], value[:-1], value[::-1], value + value, [], {}, None]
    return [not value, 0, None, [], "true"] if type(value) is bool else [[], {}, None, "x"]


def mutations(index):
    """(description, index with one value replaced, removed or added)."""
    for path in paths(index):
        if not path:
            continue
        copy = json.loads(json.dumps(index))
        parent = copy
        for key in path[:-1]:
            parent = parent[key]
        value = parent[path[-1]]
        for odd in odd_values_for(value):
            parent[path[-1]] = odd
            yield f"{path} = {odd!r}", copy
            parent[path[-1]] = value
        if isinstance(value, dict):
            value["unknown"] = [{"x": [1, "y"]}]
            yield f"{path}: unknown member", copy
            del value["unknown"]
        del parent[path[-1]]
        yield f"{path} removed", copy


class CraftedTest(OracleTest):
    """Files with right checksums and wrong content: llmq and the reader agree on which of them are containers."""

    SAMPLES = 300  # of each file's mutations

    def setUp(self):
        sources = [weights("l.0.q_proj.weight", "F32", (6, 70), 500), weights("l.0.norm.weight", "BF16", (200,), 501),
                   weights("l.0.k_proj.weight", "BF16", (30, 40), 502), weights("l.0.v_proj.weight", "BF16", (30, 64), 503),
                   Source("empty", "F16", (0,), b""), weights("h.norm.weight", "F16", (64,), 504), Source("f4", "F4", (6,), b"abc")]
        folder = scratch("crafted")
        if not os.path.exists(folder):
            write_folder("crafted", [sources], {"a": "b"}, [("config.json", b'{"x":1}' * 30)])
        options = ["--format", "uint4:group=16", "--rule", "*k_proj*=int3:group=channel", "--rule", "*v_proj*=mxfp6_e2m3", "--align", "256", "--force"]
        self.bases = {c: convert(folder, f"crafted-{c}.llmq", *options, "--compress", c).shards[0] for c in ("none", "default")}

    def check_verdict(self, what, data, accepted=None):
        """Both accept or both refuse; accepted: what they must say."""
        path = scratch("crafted.llmq")
        with open(path, "wb") as f:
            f.write(data)
        done = run("verify", path)
        try:
            reader.read(path)
            refusal = None
        except reader.LlmqError as error:
            refusal = str(error)
        self.assertIn(done.returncode, (0, 1, 3), what)
        self.assertEqual(done.returncode == 0, refusal is None, f"{what}: llmq says {done.stderr.strip()!r}, the reader {refusal!r}")
        if accepted is not None:
            self.assertEqual(refusal is None, accepted, f"{what}: {refusal}")

    def test_index(self):
        for compress, base in self.bases.items():
            self.check_verdict("unchanged", rebuild(base.data), True)
            wanted = set(random.Random(10).sample(range(sum(1 for _ in mutations(base.index))), self.SAMPLES))
            for i, (what, index) in enumerate(mutations(base.index)):
                if i in wanted:
                    self.check_verdict(f"{compress}: {what}", rebuild(base.data, index))

    def test_json(self):
        base = self.bases["none"]
        text = json.dumps(base.index, separators=(",", ":"))
        role = '"role":"q"'
        self.assertIn(role, text)
        accepted = {" " + text + "\n": True, text[:-1] + ',"u":{"a":1}}': True, text.replace(role, '"r\\u006fle":"\\ud83d\\ude00"'): True,
                    text + "x": False, "\ufeff" + text: False, text[:-1] + ",}": False, text[:-1] + ',"tensors":{}}': False,
                    text[:-1] + ',"u":{"a":1,"a":2}}': False, text.replace(role, '"role":"q","r\\u006fle":"q"'): False,
                    text[:-1] + ',"u":-1}': False, text[:-1] + ',"u":1.5}': False, text[:-1] + ',"u":1e5}': False, text[:-1] + ',"u":NaN}': False,
                    text.replace('"bits":4', '"bits":04'): False, text.replace(role, '"role":"q\n"'): False,
                    text.replace(role, '"role":"\\ud800"'): False, text.replace(role, '"role":"\\u0000"'): False, "[]": False, "": False,
                    text[:-1] + ',"u":' + "[" * 15 + "]" * 15 + "}": True, text[:-1] + ',"u":' + "[" * 16 + "]" * 16 + "}": False}
        for changed, verdict in accepted.items():
            self.check_verdict(changed[-80:], rebuild(base.data, changed.encode()), verdict)
        for octets in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80"):
            changed = text.encode().replace(role.encode(), b'"role":"' + octets + b'"')
            self.check_verdict(f"UTF-8 {octets}", rebuild(base.data, changed), False)

    def test_chunk_table(self):
        for compress, base in self.bases.items():
            for i, field, value in itertools.product(range(len(base.chunks)), range(4), (0, 1, 2, -1, 1 << 31)):
                chunk = list(base.chunks[i])
                chunk[field] = (chunk[field] + value) % (1 << 32) if value not in (0, 2) else value
                changed = [*base.chunks[:i], reader.Chunk(*chunk), *base.chunks[i + 1:]]
                self.check_verdict(f"{compress}: chunk {i} {chunk}", rebuild(base.data, chunks=changed), changed == base.chunks)
            for changed in (base.chunks + base.chunks[:1], base.chunks[:-1], base.chunks[::-1]):
                self.check_verdict(f"{compress}: {len(changed)} chunks", rebuild(base.data, chunks=changed), False)

    def test_zstd_frames(self):
        """One chunk stored anew, behind the others, as frames that a reader must or must not take."""
        base = self.bases["default"]
        i = next(i for i, c in enumerate(base.chunks) if c.codec == 1)
        old = base.chunks[i]
        stored = base.data[old.offset:old.offset + old.stored]
        raw = zstandard.ZstdDecompressor().decompress(stored)
        frame = zstandard.ZstdCompressor(level=19).compress
        skippable = struct.pack("<II", 0x184D2A50, 4) + b"skip"
        unsized = zstandard.ZstdCompressor(level=19, write_content_size=False).compress(raw)
        dictionary = zstandard.ZstdCompressionDict(raw[:100], dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        half = len(raw) // 2
        cases = [("the same", stored, True), ("another level", frame(raw), True), ("with a checksum", zstandard.ZstdCompressor(write_checksum=True).compress(raw), True),
                 ("size not stated", unsized, False), ("skippable frame behind", stored + skippable, False), ("skippable frame before", skippable + stored, False),
                 ("two frames", frame(raw[:half]) + frame(raw[half:]), False), ("an empty frame behind", stored + frame(b""), False),
                 ("a byte behind", stored + b"\0", False), ("cut", stored[:-1], False), ("too short", frame(raw[:-1]), False), ("too long", frame(raw + b"\0"), False),
                 ("a dictionary", zstandard.ZstdCompressor(dict_data=dictionary).compress(raw), False), ("not zstd", b"\1" * 20, False), ("not smaller", frame(random_bytes(np.random.default_rng(1), len(raw))), False)]
        for what, changed, accepted in cases:
            body = bytearray(base.data[:base.trailer.index_offset])
            body[old.offset:old.offset + old.stored] = bytes(old.stored)
            chunk = reader.Chunk(len(body), len(changed), 1, reader.digest64(changed))
            chunks = [*base.chunks[:i], chunk, *base.chunks[i + 1:]]
            self.check_verdict(what, rebuild(base.data, chunks=chunks, body=bytes(body) + changed), accepted)


if __name__ == "__main__":
    unittest.main()
