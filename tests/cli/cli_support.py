"""Shared by the command-line tests: runs the program as a user does, builds small models, checks refusals.

LLMQ_PROGRAM         the program under test (default: llmq in ./B or on PATH)
LLMQ_CLI_LIGHT=1     leaves out the tests of memory, time and large sparse files (sanitizer builds)
LLMQ_SHARED_DATA     folder with public models (default: ../shared/data from the repository root); only read, never copied
"""
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TINY = os.path.join(ROOT, "tests", "data", "tiny-llama")
CONFIGS = os.path.join(ROOT, "configs")
SHARED = os.environ.get("LLMQ_SHARED_DATA", os.path.join(os.path.dirname(ROOT), "shared", "data"))
LIGHT = os.environ.get("LLMQ_CLI_LIGHT", "") not in ("", "0")
PROGRAM = os.path.abspath(os.environ.get("LLMQ_PROGRAM") or shutil.which("llmq") or os.path.join(ROOT, "B", "llmq"))
COMMANDS = ("convert", "plan", "inspect", "verify", "dequantize", "compare", "extract", "formats", "bench", "stats", "smooth", "calibrate", "eval", "sweep")
FORMATS = ("mxfp4", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp8_e4m3", "mxfp8_e5m2", "mxint8") + tuple(f"{s}int{n}" for s in ("", "u") for n in range(2, 9))
GGUF_FORMATS = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "tq1_0", "tq2_0", "q1_0", "q2_0", "f16", "bf16", "f32")
ITEM_NBYTES = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8, "I64": 8, "U8": 1, "I8": 1, "BOOL": 1, "F8_E4M3": 1}


def skip_aloud(test, reason):
    """Skips, and says so where nobody reads unittest's own summary."""
    print(f"\nSKIPPED {test.id()}: {reason}", file=sys.stderr, flush=True)
    raise unittest.SkipTest(reason)


def environment(**changes):
    """The environment of a child: ours without LLMQ_* and with a plain locale; None removes a variable."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("LLMQ_") and k not in ("LC_ALL", "LANG", "LC_NUMERIC")}
    env["LC_ALL"] = "C"
    for name, value in changes.items():
        if value is None:
            env.pop(name, None)
        else:
            env[name] = value
    return env


class Result:
    """What a run gave: exit code (negative: a signal), stdout, stderr."""

    def __init__(self, code, out, err, args):
        self.code, self.out, self.err, self.args = code, out, err, args

    @property
    def json(self):
        return json.loads(self.out)

    def __str__(self):
        return f"{' '.join(self.args)}\nexit {self.code}\nstdout: {self.out[-2000:]}\nstderr: {self.err[-2000:]}"


def run(*args, cwd=None, env=None, timeout=120, program=None, **kwargs):
    args = [program or PROGRAM] + [str(a) for a in args]
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run(args, cwd=cwd, env=environment(**(env or {})), timeout=timeout, stdout=kwargs.pop("stdout", subprocess.PIPE),
                          stderr=kwargs.pop("stderr", subprocess.PIPE), **kwargs)
    return Result(done.returncode, (done.stdout or b"").decode("utf-8", "replace"), (done.stderr or b"").decode("utf-8", "replace"), args)


def start(*args, cwd=None, env=None, **kwargs):
    """Starts the program in the background."""
    kwargs.setdefault("stdout", subprocess.PIPE)
    kwargs.setdefault("stderr", subprocess.PIPE)
    return subprocess.Popen([PROGRAM] + [str(a) for a in args], cwd=cwd, env=environment(**(env or {})), stdin=subprocess.DEVNULL, **kwargs)


def finish(process, timeout=60):
    out, err = process.communicate(timeout=timeout)
    return Result(process.returncode, (out or b"").decode("utf-8", "replace"), (err or b"").decode("utf-8", "replace"), process.args)


def wait_for(condition, process=None, seconds=20.0):
    """Waits until condition() is true; false when the process ended or the time is over."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end or (process is not None and process.poll() is not None):
            return condition()
        time.sleep(0.001)
    return True


def scratch_folder():
    """Where tests write: memory when there is plenty (fsync of hundreds of small files is most of the time otherwise), else the usual place."""
    roomy = os.environ.get("TMPDIR") is None and os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 4 << 30
    return "/dev/shm" if roomy else None


# ---- models -------------------------------------------------------------------------------------------------------------------------


def bf16(x):
    """float32 -> bytes of BF16, nearest even; NaN and Inf stay what they are."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32).astype(np.uint64)
    bits = np.where(np.isfinite(x), bits + 0x7FFF + ((bits >> 16) & 1), bits)
    return (bits >> 16).astype(np.uint16).tobytes()


def stored(dtype, x):
    if dtype == "BF16":
        return bf16(x)
    return np.ascontiguousarray(x).astype({"F16": np.float16, "F32": np.float32, "F64": np.float64, "I64": np.int64, "U8": np.uint8}[dtype]).tobytes()


def header_of(tensors, metadata=None):
    """(header bytes with length, data size); tensors: {name: (dtype, shape, ...)}."""
    header, at = {}, 0
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, (dtype, shape, *_) in tensors.items():
        nbytes = ITEM_NBYTES[dtype]
        for d in shape:
            nbytes *= d
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + nbytes]}
        at += nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, at


def write_model(path, tensors, metadata=None):
    """Writes a safetensors file. tensors: {name: (dtype, shape, array or None)}; None is a hole of the file (zeros that take no disk)."""
    head, size = header_of(tensors, metadata)
    with open(path, "wb") as f:
        f.write(head)
        at = len(head)
        for dtype, shape, x in tensors.values():
            nbytes = ITEM_NBYTES[dtype] * int(np.prod(shape, dtype=np.int64))
            if x is not None:
                f.seek(at)
                f.write(x if isinstance(x, bytes) else stored(dtype, np.asarray(x).reshape(shape)))
            at += nbytes
        f.truncate(len(head) + size)
    return path


def random_weights(seed, *shape, scale=0.02):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def small_tensors(dtype="BF16"):
    """Two layers with every role that matters, shapes with tails, a bias, an integer tensor."""
    shapes = {"model.embed_tokens.weight": (40, 48), "lm_head.weight": (40, 48), "model.norm.weight": (48,)}
    for i in range(2):
        layer = f"model.layers.{i}."
        shapes.update({layer + "input_layernorm.weight": (48,), layer + "self_attn.q_proj.weight": (48, 48), layer + "self_attn.k_proj.weight": (16, 48),
                       layer + "self_attn.k_proj.bias": (16,), layer + "mlp.up_proj.weight": (72, 48), layer + "mlp.down_proj.weight": (48, 72)})
    tensors = {name: (dtype, shape, random_weights(i, *shape)) for i, (name, shape) in enumerate(shapes.items())}
    tensors["model.position_ids"] = ("I64", (1, 8), np.arange(8))
    return tensors


LINEAR = [f"model.layers.{i}.{n}.weight" for i in range(2) for n in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.down_proj")]


def write_folder(path, tensors=None, shards=1):
    """A model folder: config.json, tokenizer files, weights in one file or in shards with an index."""
    tensors = tensors or small_tensors()
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump({"architectures": ["LlamaForCausalLM"], "hidden_size": 48}, f)
    with open(os.path.join(path, "tokenizer.json"), "w") as f:
        f.write('{"version": "1.0"}')
    if shards == 1:
        write_model(os.path.join(path, "model.safetensors"), tensors)
        return path
    names, weight_map = list(tensors), {}
    for s in range(shards):
        part = names[s * len(names) // shards:(s + 1) * len(names) // shards]
        file = f"model-{s + 1:05d}-of-{shards:05d}.safetensors"
        write_model(os.path.join(path, file), {n: tensors[n] for n in part})
        weight_map.update({n: file for n in part})
    write_index(path, weight_map)
    return path


def write_index(path, weight_map, **members):
    with open(os.path.join(path, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {}, "weight_map": weight_map, **members}, f)


def read_bytes(path):
    with open(path, "rb") as f:
        return f.read()


def write_bytes(path, data):
    with open(path, "wb") as f:
        f.write(data)
    return path


# ---- the test case ------------------------------------------------------------------------------------------------------------------

PROGRESS = re.compile(r"(convert|dequantize|compare|scan|verify|smooth|calibrate|eval|sweep|writing): .* of .*, .* s$")


class CliTest(unittest.TestCase):
    """A test with an empty folder of its own (self.dir), which is the current folder of every run."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        if not os.access(PROGRAM, os.X_OK):
            raise RuntimeError(f"no program at {PROGRAM}: set LLMQ_PROGRAM")

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="llmq-cli-", dir=scratch_folder())
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def llmq(self, *args, **kwargs):
        kwargs.setdefault("cwd", self.dir)
        return run(*args, **kwargs)

    def ok(self, *args, **kwargs):
        """Runs; must succeed."""
        result = self.llmq(*args, **kwargs)
        self.assertEqual(result.code, 0, str(result))
        self.assertNotIn("llmq ", "".join(l for l in result.err.splitlines(True) if l.startswith("llmq ")), str(result))
        return result

    def ok_json(self, *args, **kwargs):
        return self.ok(*args, "--json", **kwargs).json

    def tree(self):
        """Everything under self.dir: path -> (kind, size, mtime)."""
        found = {}
        for folder, folders, files in os.walk(self.dir):
            for name in folders + files:
                full = os.path.join(folder, name)
                st = os.lstat(full)
                found[os.path.relpath(full, self.dir)] = (st.st_mode, 0 if os.path.isdir(full) else st.st_size, 0 if os.path.isdir(full) else st.st_mtime_ns)
        return found

    def check_refusal(self, result, code, command, *needles):
        """Exit code, exactly one sentence of the command (and one usage line for code 2) that holds all needles, no stdout unless a report came first."""
        self.assertEqual(result.code, code, str(result))
        lines = [l for l in result.err.splitlines() if not l.startswith("note: ") and not PROGRESS.match(l)]
        self.assertEqual(len(lines), 2 if code == 2 else 1, str(result))
        self.assertTrue(lines[0].startswith(f"llmq {command}: "), str(result))
        if code == 2:
            self.assertTrue(lines[1].startswith(f"usage: llmq {command} "), str(result))
        for needle in needles:
            self.assertIn(needle, lines[0], str(result))
        return lines[0]

    def refused(self, code, args, *needles, tree=True, **kwargs):
        """Runs; must be refused with this exit code, and must leave everything as it was."""
        before = self.tree() if tree else None
        begin = time.monotonic()
        result = self.llmq(*args, **kwargs)
        self.assertLess(time.monotonic() - begin, 20.0)
        sentence = self.check_refusal(result, code, args[0], *needles)
        if tree:
            self.assertEqual(self.tree(), before, f"files changed: {result}")
        return sentence

    def no_partial(self):
        self.assertEqual([n for n in self.tree() if n.endswith(".partial")], [])

    def small(self, name="small.safetensors", **kwargs):
        return write_model(self.path(name), small_tensors(**kwargs))

    def entries(self, report):
        return {t["name"]: t for t in report["tensors"]}

    def formats_of(self, *args):
        """{tensor: format} of a plan with these options."""
        return {t["name"]: t["format"] for t in self.ok_json("plan", *args)["tensors"]}
