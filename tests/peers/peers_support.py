"""Shared by the tests against peers: runs llmq, reads its planes, makes weights, and decodes with numpy + ml_dtypes.

What it is
  Nothing here looks into the C sources or into tests/reader.py. Containers are opened by the program itself
  (`llmq extract --raw`, `llmq inspect --json`); what their bytes mean is computed here from formats/FORMAT.md and
  formats/NUMERICS.md, with ml_dtypes for the small floats.

How to run
  scripts/test-peers.sh [--program PATH]
      or, with the packages at hand: LLMQ_PROGRAM=build/llmq python3 -m unittest discover -s tests/peers

Worked number
  A plane of 4-bit codes, bytes c2 71: fields 2, 12, 1, 7; as float4_e2m1fn the values 1, -2, 0.5, 6.
"""

import json
import os
import shutil
import subprocess
import tempfile
import unittest

import ml_dtypes
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TINY = os.path.join(ROOT, "tests", "data", "tiny-llama")
TEXT = os.path.join(ROOT, "tests", "data", "tiny-text.txt")
GOLDEN = os.path.join(ROOT, "tests", "golden")
SHARED = os.environ.get("LLMQ_SHARED_DATA", os.path.join(os.path.dirname(ROOT), "shared", "data"))  # public models; only read, never copied
PROGRAM = os.path.abspath(os.environ.get("LLMQ_PROGRAM") or os.path.join(ROOT, "build", "llmq"))
WEIGHT = "model.layers.0.mlp.up_proj.weight"  # a name that llmq takes for a linear layer

# NUMERICS.md section 2: element -> (ml_dtypes type, bits, mantissa bits m, emax, max)
FLOAT_ELEMENTS = {
    "e2m1": (ml_dtypes.float4_e2m1fn, 4, 1, 2, 6.0),
    "e2m3": (ml_dtypes.float6_e2m3fn, 6, 3, 2, 7.5),
    "e3m2": (ml_dtypes.float6_e3m2fn, 6, 2, 4, 28.0),
    "e4m3": (ml_dtypes.float8_e4m3fn, 8, 3, 8, 448.0),
    "e5m2": (ml_dtypes.float8_e5m2, 8, 2, 15, 57344.0),
}
MX_ELEMENTS = {"mxfp4": "e2m1", "mxfp6_e2m3": "e2m3", "mxfp6_e3m2": "e3m2", "mxfp8_e4m3": "e4m3", "mxfp8_e5m2": "e5m2", "mxint8": "mxint8"}
FLOAT_SCALES = {"bf16": ml_dtypes.bfloat16, "f16": np.dtype("<f2"), "f32": np.dtype("<f4")}


def skip_aloud(test, reason):
    """Skips, and says so where nobody reads unittest's own summary."""
    print(f"\nSKIPPED {test.id()}: {reason}", flush=True)
    raise unittest.SkipTest(reason)


def shared_data(test, *names):
    """Path of a public model; the test is skipped where there is none."""
    path = os.path.join(SHARED, *names)
    if not os.path.exists(path):
        skip_aloud(test, f"no {path}")
    return path


# --- the program ------------------------------------------------------------------------------------------------------

def llmq(*args):
    """Runs llmq, which must succeed; returns what it printed."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("LLMQ_")}
    env["LLMQ_CONFIG"] = os.path.join(ROOT, "configs")
    done = subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True, env=env, timeout=600)
    if done.returncode != 0:
        raise AssertionError(f"llmq {' '.join(map(str, args))[:300]}: exit code {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def tensors_of(path):
    """{name: facts} as `llmq inspect` reports them."""
    return {t["name"]: t for t in json.loads(llmq("inspect", path, "--tensors", "--json"))["tensors"]}


def read_bytes(path):
    with open(path, "rb") as f:
        return f.read()


class PeerTest(unittest.TestCase):
    """A test with an empty folder of its own."""

    @classmethod
    def setUpClass(cls):
        if not os.access(PROGRAM, os.X_OK):
            raise RuntimeError(f"no program at {PROGRAM}: set LLMQ_PROGRAM")

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="llmq-peers-")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def convert(self, source, out, *options):
        """Converts; returns the path of the container."""
        llmq("convert", "--in", source, "--out", self.path(out), "--quiet", "--force", "--measure", "off", *options)
        return self.path(out)

    def quantized(self, container, *names):
        """{name: Quantized} of the named tensors, or of all quantised ones, out of their raw planes."""
        facts = tensors_of(container)
        names = names or [n for n, t in facts.items() if t["format"]]
        folder = tempfile.mkdtemp(dir=self.dir)
        llmq("extract", container, *names, "--raw", "--out", folder, "--quiet", "--force")
        return {n: Quantized(facts[n], folder) for n in names}

    def assertSame(self, got, expected, what=""):
        """Equal shape and equal bits (floats by their bit patterns, so -0 differs from 0)."""
        got, expected = np.asarray(got), np.asarray(expected)
        self.assertEqual((got.shape, got.dtype), (expected.shape, expected.dtype), what)
        if got.dtype.kind == "f":
            got, expected = (np.ascontiguousarray(a).view(f"u{a.dtype.itemsize}") for a in (got, expected))
        wrong = np.flatnonzero(got != expected)
        if wrong.size:
            i = wrong[0]
            self.fail(f"{what}: {wrong.size} of {got.size} differ; number {i}: {got.flat[i]:#x}, expected {expected.flat[i]:#x}")


# --- planes (FORMAT.md sections 3 and 4) ------------------------------------------------------------------------------

def unpack(data, rows, cols, bits):
    """Fields of a plane, rows x cols, unsigned."""
    data = np.frombuffer(data, np.uint8).reshape(rows, -(-cols * bits // 8))
    if bits in (8, 16, 32):
        return data.view(f"<u{bits // 8}")
    stream = np.unpackbits(data, axis=1, bitorder="little")
    if stream[:, cols * bits:].any():
        raise AssertionError("unused bits of a plane are not 0")
    fields = stream[:, :cols * bits].reshape(rows, cols, bits)
    return (fields.astype(np.uint16) << np.arange(bits, dtype=np.uint16)).sum(axis=2, dtype=np.uint16)


class Quantized:
    """A quantised tensor: codes as stored (unsigned fields), scales as stored bits, zeros or None; rows x cols and rows x groups."""

    def __init__(self, facts, folder):
        self.format, self.shape, self.group, self.scale_type = facts["format"], tuple(facts["shape"]), facts["group"], facts["scale"]
        planes = {}
        for plane in facts["planes"]:
            data = read_bytes(os.path.join(folder, f"{facts['name']}.{plane['name']}"))
            planes[plane["name"]] = unpack(data, plane["rows"], plane["cols"], plane["bits"])
            if plane["name"] == "codes":
                self.bits = plane["bits"]
        self.codes, self.scales, self.zeros = planes["codes"], planes["scales"], planes.get("zeros")

    def per_weight(self, a):
        """One value a group -> one value a weight."""
        rows, cols = self.codes.shape
        if self.group == "tensor":
            return np.broadcast_to(a, (rows, cols))
        size = cols if self.group == "channel" else self.group
        return np.repeat(a, size, axis=1)[:, :cols]

    def signed_codes(self):
        """Two's complement of `bits` bits."""
        half = 1 << (self.bits - 1)
        return (self.codes.astype(np.int32) ^ half) - half

    def float_scales(self):
        if self.scale_type == "e8m0":
            return self.scales.astype(np.uint8).view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
        return np.ascontiguousarray(self.scales).view(FLOAT_SCALES[self.scale_type]).astype(np.float32)

    def decode(self):
        """float32 weights of the tensor's shape: one rounding, that of the product."""
        scale = self.per_weight(self.float_scales())
        if self.format == "mxint8":
            value = self.signed_codes().astype(np.float32) / np.float32(64)
        elif self.format in MX_ELEMENTS:
            value = self.codes.astype(np.uint8).view(FLOAT_ELEMENTS[MX_ELEMENTS[self.format]][0]).astype(np.float32)
        elif self.zeros is not None:
            value = (self.codes.astype(np.int32) - self.per_weight(self.zeros.astype(np.int32))).astype(np.float32)
        else:
            value = self.signed_codes().astype(np.float32)
        return (value * scale).astype(np.float32).reshape(self.shape)


# --- weights ----------------------------------------------------------------------------------------------------------

def ordinary_weights(rows, cols, seed=1):
    """float32 weights like those of a trained layer: Gaussian, with a spread over the rows and a few outliers."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, cols)) * 0.02 * np.exp(rng.standard_normal((rows, 1)))
    x[rng.random(x.shape) < 0.001] *= 30
    return x.astype(np.float32)


def odd_weights(rows, cols, seed=2):
    """float32 weights with zeros, -0, ties, subnormals, groups of any magnitude, and maxima at the limits of the rules."""
    rng = np.random.default_rng(seed)
    x = ordinary_weights(rows, cols, seed)
    x[rng.random(x.shape) < 0.05] = 0.0
    x[rng.random(x.shape) < 0.05] = -0.0
    ties = rng.random(x.shape) < 0.2
    x[ties] = np.ldexp(rng.integers(-64, 65, x.shape).astype(np.float32), -8)[ties]
    for row in range(rows):
        kind = row % 8
        if kind == 1:
            x[row, :cols // 2] = np.copysign(np.float32(0), x[row, :cols // 2])
        elif kind == 2:
            x[row] = (rng.integers(0, 1 << 24, cols).astype(np.uint32) | rng.integers(0, 2, cols).astype(np.uint32) << 31).view(np.float32)
        elif kind == 3:
            x[row] = np.ldexp(x[row], rng.integers(-120, 120, cols // 32 + 1).repeat(32)[:cols])
        elif kind == 4:  # maxima next to the thresholds: max, 1.5, 1.75, 1.9375 and 1 times a power of two, one ulp around
            m = rng.choice([1.0, 1.5, 1.75, 1.875, 1.9375, 1.984375], cols // 32 + 1).astype(np.float32)
            m = (m.view(np.int32) + rng.integers(-2, 3, m.size).astype(np.int32)).view(np.float32)
            x[row, ::32] = m[:x[row, ::32].size] * np.float32(4)
        elif kind == 5:
            x[row] = np.ldexp(np.sign(x[row]) * np.float32(1.9), 127) * rng.random(cols).astype(np.float32)
    if not np.isfinite(x).all():
        raise AssertionError("the weights must be finite")
    return x
