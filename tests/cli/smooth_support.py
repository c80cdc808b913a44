"""Shared by the command-line tests of migration: models and statistics as files, what a fold must do to every stored number, recipes.

expected_scales() makes the factors of a group from the definition (x^a / w^(1-a), heads that share, clamp, power of two) in Python's numbers;
expected_tensors() makes every tensor of the folded model from the factors a recipe records, bit for bit.
"""
import json
import math
import os
import struct
import sys

import numpy as np

from cli_support import ITEM_NBYTES, ROOT, CliTest, bf16, read_bytes, write_bytes, write_model

sys.path.insert(0, os.path.join(ROOT, "tests"))
import reader  # noqa: E402
import smooth_models  # noqa: E402
import stats_oracle as oracle  # noqa: E402

COUNT = 512
F32 = np.float32


def widen(dtype, data, shape):
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(F32).reshape(shape)
    return np.frombuffer(data, {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8", "U8": "u1"}[dtype]).reshape(shape)


def rounded(dtype, x):
    """binary32 values as the dtype keeps them."""
    if dtype in ("F32", "F64"):
        return x.astype(F32)
    return widen(dtype, bf16(x) if dtype == "BF16" else np.asarray(x).astype(np.float16).tobytes(), np.shape(x)).astype(F32)


def read_safetensors(path):
    """{name: (dtype, array)} of a file, or of all files of a folder."""
    if os.path.isdir(path):
        return {k: v for f in sorted(os.listdir(path)) if f.endswith(".safetensors") for k, v in read_safetensors(os.path.join(path, f)).items()}
    data = read_bytes(path)
    n, = struct.unpack_from("<Q", data)
    out = {}
    for name, entry in json.loads(data[8:8 + n]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            out[name] = (entry["dtype"], widen(entry["dtype"], data[8 + n + begin:8 + n + end], entry["shape"]))
    return out


def save_model(folder, model, dtype="F32", norm_dtype=None, shards=1, tensors=None):
    """config.json and the weights; the values as stored come back: {name: (dtype, array)}."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump({k: v for k, v in model.config.items() if k not in ("prefix", "gemma", "kind", "places", "fused")}, f)
    rows = {}
    for name, x in (tensors or model.tensors).items():
        kind = norm_dtype if norm_dtype and x.ndim == 1 else dtype
        rows[name] = (kind, x.shape, x)
    names = list(rows)
    if shards == 1:
        write_model(os.path.join(folder, "model.safetensors"), rows)
    else:
        weight_map = {}
        for s in range(shards):
            part = names[s * len(names) // shards:(s + 1) * len(names) // shards]
            file = f"model-{s + 1:05d}-of-{shards:05d}.safetensors"
            write_model(os.path.join(folder, file), {n: rows[n] for n in part})
            weight_map.update({n: file for n in part})
        with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
            json.dump({"metadata": {}, "weight_map": weight_map}, f)
    return {n: (kind, rounded(kind, np.asarray(x, F32)).reshape(shape)) for n, (kind, shape, x) in rows.items()}


def write_stats(path, ex2, count=COUNT, **more):
    """Statistics in llmq's form. ex2: {(tensor, matrix or None): E[x^2]}; more: {field: the same} of other fields, values as given."""
    fields, names = {}, {}
    for (name, mat), values in ex2.items():
        names.setdefault(name, {})[mat or 0] = np.atleast_1d(values)
    for name, mats in names.items():
        rows = [mats.get(m, np.zeros(len(mats[max(mats)]))) for m in range(max(mats) + 1)]
        fields[name + ".counts"] = ("I64", [len(rows)], [count if m in mats else 0 for m in range(len(rows))])
        fields[name + ".in_sum2"] = ("F32", [len(rows), len(rows[0])], [float(F32(v * count)) for r in rows for v in r])
    for field, entries in more.items():
        for name, (dtype, shape, values) in entries.items():
            fields[f"{name}.{field}"] = (dtype, list(shape), list(values))
    return write_bytes(path, oracle.write_safetensors(fields, {"format": "llmq-actstats", "version": "1"}))


def rms_of(ex2, count=COUNT):
    """x_j as the program has it: the square root of the mean, rounded to binary32."""
    return np.array([F32(math.sqrt(float(F32(v * count)) / count)) for v in ex2], F32)


def column_maxima(group, tensors, counts=lambda name: True):
    """w_j over all consumers that count."""
    w = np.zeros(group.n)
    for side in group.consumers:
        if counts(side.tensor):
            w = np.maximum(w, np.abs(side.channels_first(tensors[side.tensor])).max(1))
    return w.astype(F32)


def expected_scales(group, x, w, alpha, gain=None):
    """Factors of one group in binary64, from the definition; channels with x = 0 or gain 0 are 0 (dead)."""
    x, w = x.astype(np.float64), w.astype(np.float64)
    power = x**alpha
    s = np.where(power > 0, np.maximum(power / np.maximum(w, 1e-5)**(1 - alpha), 1e-5), 0.0)
    if gain is not None:
        s[gain[group.owner] == 0] = 0.0
    heads, run = group.share
    if heads > 1:
        for p in range(group.owner.max() + 1):
            members = np.where((group.owner == p) & (s > 0))[0]
            if len(members):
                s[members] = np.exp(np.log(s[members]).mean())
    live = s > 0
    mean = np.exp(np.log(s[live]).mean())
    s[live] = np.clip(s[live], 1e-4 * mean, 1e4 * mean)
    return np.where(live, s * 2.0**-math.frexp((w * s).max())[1], 0.0)


class Recipe:
    """What --smooth-recipe-out wrote."""

    def __init__(self, path):
        with open(path) as f:
            self.json = json.load(f)
        self.factors = {k: x for k, (_, x) in read_safetensors(path + ".safetensors").items()}
        self.groups = {g["id"]: g for g in self.json["groups"]}
        self.unfolded = {u["id"]: u["why"] for u in self.json["unfolded"]}

    def s(self, ident):
        return self.factors[self.groups[ident]["s"]]

    def columns(self, ident):
        return self.factors[self.groups[ident]["columns"]]


def first_of(values, group):
    """Values of the consumers' channels as the producer's."""
    out = np.zeros(group.owner.max() + 1, F32)
    out[group.owner[::-1]] = values[::-1]
    return out


def expected_tensors(groups, before, recipe):
    """{name: (dtype, array)} after folding: what is multiplied by what is fixed, so are the bits."""
    cols = {n: np.ones(x.shape, F32) for n, (_, x) in before.items()}
    rows = {n: np.ones(x.shape, F32) for n, (_, x) in before.items()}
    plus_one, touched = set(), set()

    def multiply(side, values):
        table = cols if side.axis == before[side.tensor][1].ndim - 1 else rows  # a vector's numbers are columns
        table[side.tensor] *= side.factors(before[side.tensor][1].shape, values)
        touched.add(side.tensor)

    for g in groups:
        if g.id not in recipe.groups:
            continue
        s, left = recipe.s(g.id), recipe.columns(g.id)
        for side in g.consumers:
            multiply(side, left)
        one, other = (F32(1) / first_of(v, g) for v in (s, left))
        if g.is_norm:
            dtype, gain = before[g.producers[0].tensor]
            gain = g.producers[0].channels_first(gain)[:, 0] + F32(g.kind == "N1")
            one = np.where(first_of(s, g) == 1, F32(1), one)
        for i, side in enumerate(g.producers):
            multiply(side, one if i == 0 else other)
        if g.kind == "N1":
            plus_one.add(g.producers[0].tensor)
    out = dict(before)
    for n in touched:
        dtype, x = before[n]
        if n in plus_one:
            y = np.where(cols[n] == 1, x, (F32(1) + x) * cols[n] - F32(1))
        else:
            y = x * cols[n] * rows[n]
        out[n] = (dtype, rounded(dtype, y))
    return out


class SmoothTest(CliTest):
    def assert_same_tensors(self, got, want, what=""):
        self.assertEqual(list(sorted(got)), list(sorted(want)))
        for name, (dtype, x) in want.items():
            self.assertEqual(got[name][0], dtype, f"{what} {name}")
            a, b = (np.ascontiguousarray(v.astype(F32) if v.dtype != np.int64 else v) for v in (got[name][1], x))
            if not np.array_equal(a, b, equal_nan=True):
                bad = np.argwhere(a != b)
                self.fail(f"{what} {name}: {len(bad)} of {a.size} differ, first at {bad[0]}: {a[tuple(bad[0])]!r}, not {b[tuple(bad[0])]!r}")

    def smooth(self, source, out, *args, **kwargs):
        return self.ok("smooth", "--in", source, "--out", out, "--quiet", *args, **kwargs)

    def convert(self, source, out, *args, **kwargs):
        return self.ok("convert", "--in", source, "--out", out, "--quiet", *args, **kwargs)

    def planes(self, name):
        """{(tensor, plane): bytes} of an .llmq file, by the independent reader."""
        return {(n, p.name): bytes(p.data) for n, t in reader.read(self.path(name)).tensors.items() for p in t.planes.values()}
