"""Scale rules that read the weights of a group: range observers and learners, scales and zero points against the Python oracles.

The oracles (tests/oracle_observers.py, tests/oracle_learn.py) know no format; what the rules' parameters are for a format of so many bits is
said here a second time, from formats/NUMERICS_OBSERVERS.md section 10. Worked number: int4, group [0.75, -1.5], rule minmax, f32: fl(1.5 / 7.5) = fl(0.2).
"""
import os
import sys
import unittest
from unittest import mock

import numpy as np

from cli_support import CliTest, LIGHT, ROOT, TINY, read_bytes, write_bytes, write_model

sys.path.insert(0, os.path.join(ROOT, "tests"))
import oracle_learn  # noqa: E402
import oracle_observers  # noqa: E402
import reader  # noqa: E402

OBSERVERS = ("minmax", "percentile", "mse-hist", "histogram-pro", "3sd", "kl-j")
LEARNERS = ("tqt", "lsq", "pact")
RULES = OBSERVERS + LEARNERS
FORMATS = ("int2", "int4", "int8", "uint2", "uint4", "uint8")
STORED = ("bf16", "f16", "f32")
TILE = 262144


def groups_of(row, group):
    return [row[i:i + group] for i in range(0, len(row), group)]


def observer_params(name, rule, scale, percentile, few):
    """Section 10."""
    bits, signed = int(name.lstrip("uint")), name[0] != "u"
    params = {"symmetric": signed, "bins": {"percentile": 4200, "histogram-pro": 256, "kl-j": 2048}.get(rule, 0), "percentile": percentile, "bits": bits,
              "quantiser": oracle_observers.rule(name, symmetric=signed, scale=scale)}
    if rule == "mse-hist":
        params["bins"] = max(256, 8 * 2 ** bits)
        params["stride"] = params["bins"] // (64 if few else 256)
        params["start_bin"] = params["bins"] // (4 if few else 16) + params["stride"] - 1
    return params


def observed(name, rule, scale, x, percentile=99.99, few=True):
    """(scale, zero point) of the weights x, a list of Python floats."""
    affine = oracle_observers.rule(name, symmetric=name[0] != "u", scale=scale)
    whole = oracle_observers.minmax(x, None)
    found = oracle_observers.OBSERVERS[rule](x, observer_params(name, rule, scale, percentile, few)) if any(x) else whole
    return oracle_observers.qparams(affine, *found)


def learned(name, rule, scale, x, rounding="nearest-even"):
    low, high = oracle_observers.type_of(name)[1:]
    learner = oracle_learn.learn({"rule": rule, "method": {"tqt": "search", "lsq": "best", "pact": "descent"}[rule], "start": "max", "rounding": rounding,
                                  "stored": scale, "code_min": low, "code_max": high, "values": x})
    return learner.scale, learner.codes.zero


def expected(name, rule, scale, x, **more):
    return learned(name, rule, scale, x) if rule in LEARNERS else observed(name, rule, scale, x, **more)


# ---- tensors of several tiles: oracle_learn.stream over the spans of the program, its sums in numpy ------------------------------------


def spans_of_shape(rows, cols):
    """Lists of (start, end) in the flat tensor: the spans of each tile, as section 10 has them."""
    tiles = []
    if cols > TILE:
        for row in range(rows):
            for at in range(row * cols, (row + 1) * cols, TILE):
                end = min(at + TILE, (row + 1) * cols)
                tiles.append([(k, min(k + 4096, end)) for k in range(at, end, 4096)])
        return tiles
    step = TILE // cols
    for first in range(0, rows, step):
        last, spans = min(first + step, rows), []
        if cols <= 4096:
            for row in range(first, last, 4096 // cols):
                spans.append((row * cols, min(row + 4096 // cols, last) * cols))
        else:
            for row in range(first, last):
                spans += [(k, min(k + 4096, (row + 1) * cols)) for k in range(row * cols, (row + 1) * cols, 4096)]
        tiles.append(spans)
    return tiles


def lanes(terms):
    terms = np.concatenate([terms, np.zeros(-len(terms) % 16)]).reshape(-1, 16)
    return oracle_learn.tree([float(v) for v in np.cumsum(terms, axis=0)[-1]])


def parts(codes, s, x):
    r = np.rint(x / np.float32(s))
    q = np.clip(r, np.float32(codes.min - codes.zero), np.float32(codes.max - codes.zero))
    return q.astype(np.float64), r != q, (x - q * np.float32(s)).astype(np.float64)


def numpy_sums(codes, s, x, w):
    q, out, d = parts(codes, s, x)
    t = d * d
    return lanes(np.where(out, 0, t)), lanes(np.where(out, t, 0)), lanes(np.where(out, d * q, 0))


def numpy_fit(codes, s, x, w):
    q, _, _ = parts(codes, s, x)
    return lanes(q * x.astype(np.float64)), lanes(q * q)


def numpy_stats(x, w):
    wide = x.astype(np.float64)
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    return {"min": low, "max": high, "live_min": low, "live_max": high, "w": float(len(x)), "wx": lanes(wide), "wa": lanes(np.abs(wide)),
            "wxx": lanes(wide * wide)}


def streamed(name, rule, scale, x):
    low, high = oracle_observers.type_of(name)[1:]
    flat = x.reshape(-1)
    slices = [[(flat[a:b], None) for a, b in tile] for tile in spans_of_shape(*x.shape)]
    case = {"rule": rule, "method": {"tqt": "search", "lsq": "best", "pact": "descent"}[rule], "start": "max", "rounding": "nearest-even", "stored": scale,
            "code_min": low, "code_max": high, "values": [], "weights": [1.0]}
    with mock.patch.multiple(oracle_learn, spans_of=lambda _: slices, sums=numpy_sums, fit_sums=numpy_fit, stats_of=numpy_stats):
        learner = oracle_learn.stream(case)
    return learner.scale, learner.codes.zero


def encode(x, s, z, name):
    """Codes of section 4 of NUMERICS.md; every division is one of binary32."""
    low, high = oracle_observers.type_of(name)[1:]
    q = np.rint(np.asarray(x, np.float32) / np.float32(s))
    return np.clip(q + np.float32(z), low, high).astype(np.int64)


def odd_rows(seed, cols):
    """Rows as they come, with outliers, of zeros, of one value, of few values, one-sided, tiny and large."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((8, cols)) * 0.02).astype(np.float32)
    x[1] *= (1 + 30 * (rng.random(cols) > 0.97)).astype(np.float32)
    x[2] = 0
    x[3] = 0.75
    x[4] = rng.choice(np.array([-0.5, 0, 0.25, 0.5], np.float32), cols)
    x[5] = np.abs(x[5])
    x[6] *= np.float32(1e-9)
    x[7] *= np.float32(1e5)
    return x


class Bytes(CliTest):
    """Scales, zero points and codes of every rule."""

    def check(self, cases, x, few=True):
        """cases: (format, rule, scale type, group, percentile); one tensor each, all in one file, the same with all kernels and threads."""
        tensors = {f"t{i}.weight": ("F32", x.shape, x) for i in range(len(cases))}
        write_model(self.path("in.safetensors"), tensors)
        options = []
        for i, (name, rule, scale, group, percentile) in enumerate(cases):
            inline = f",percentile={percentile}" if rule == "percentile" else ""
            options += ["--rule", f"t{i}.weight={name}:group={group},scale={scale},rule={rule}{inline}"]
        for number, (threads, kernels) in enumerate((("1", "portable"), ("4", "avx2"), ("2", None))):
            self.ok("convert", "--in", "in.safetensors", "--out", f"{number}.llmq", "--force", "--threads", threads, *options, env={"LLMQ_KERNELS": kernels})
            self.assertEqual(read_bytes(self.path("0.llmq")), read_bytes(self.path(f"{number}.llmq")), (threads, kernels))
        model = reader.read(self.path("0.llmq"))
        for i, case in enumerate(cases):
            self.compare(model.tensors[f"t{i}.weight"], x, case, few)

    def compare(self, tensor, x, case, few):
        name, rule, scale, group, percentile = case
        rows = [x.reshape(-1)] if group == "tensor" else list(x)
        size = x.shape[1] if group == "channel" else x.size if group == "tensor" else group
        scales, zeros, codes = [], [], []
        for row in rows:
            for part in groups_of(row, size):
                values = [float(v) for v in part]
                more = {"percentile": percentile, "few": few and group not in ("channel", "tensor")} if rule not in LEARNERS else {}
                s, z = streamed(name, rule, scale, x) if len(part) > TILE and rule in LEARNERS else expected(name, rule, scale, values, **more)
                scales.append(s)
                zeros.append(int(z))
                codes.append(encode(part, s, z, name))
        got = reader.scale_values(scale, tensor.planes["scales"].fields)
        self.assertEqual(np.asarray(got, np.float64).reshape(-1).tolist(), scales, case)
        if name[0] == "u":
            self.assertEqual(tensor.planes["zeros"].fields.reshape(-1).tolist(), zeros, case)
        stored = tensor.signed_codes() if name[0] != "u" else tensor.planes["codes"].fields
        self.assertTrue(np.array_equal(np.asarray(stored, np.int64).reshape(-1), np.concatenate(codes)), case)

    def test_groups(self):
        x = odd_rows(1, 45)
        cases = [(name, rule, STORED[(i + k) % 3], 32, 99.99) for i, name in enumerate(FORMATS) for k, rule in enumerate(RULES)]
        self.check(cases, x)

    def test_groups_of_128(self):
        x = odd_rows(2, 150)[[0, 1, 4, 5]]
        self.check([(name, rule, "bf16", 128, 97.5) for name in ("int4", "uint4", "int8") for rule in RULES], x)

    def test_channels_and_tensors_in_memory(self):
        x = odd_rows(3, 70)[[0, 1, 5]]
        self.check([(name, rule, "f32", group, 90.0) for name in ("int4", "uint3") for group in ("channel", "tensor") for rule in RULES], x)

    @unittest.skipIf(LIGHT, "slow")
    def test_tensors_of_several_tiles(self):
        for seed, shape, names in ((4, (270, 1000), ("int4", "uint4")), (5, (2, 262147), ("int8",)), (6, (30, 9001), ("uint3", "int5"))):
            rng = np.random.default_rng(seed)
            x = (rng.standard_t(4, shape) * 0.02).astype(np.float32)
            x[0] += np.float32(0.01)
            self.check([(name, rule, STORED[i % 3], "tensor", 99.9) for name in names for i, rule in enumerate(RULES)], x)

    def test_channels_over_tiles_are_refused(self):
        write_model(self.path("in.safetensors"), {"model.layers.0.mlp.up_proj.weight": ("BF16", (1, TILE + 8), None)})
        for rule in RULES[1:]:
            self.refused(2, ["plan", "--in", "in.safetensors", "--format", f"int4:group=channel,rule={rule}"],
                         f"scale rule {rule} needs groups of at most {TILE} weights")
        self.ok("plan", "--in", "in.safetensors", "--format", "int4:group=channel,rule=minmax")

    def test_minmax_is_absmax(self):
        for name in FORMATS:
            for group in ("32", "channel", "tensor"):
                for rule in ("absmax", "minmax"):
                    self.ok("convert", "--in", TINY, "--format", name, "--group-size", group, "--scale-rule", rule, "--out", f"{rule}.llmq", "--force")
                a, b = (reader.read(self.path(f"{rule}.llmq")) for rule in ("absmax", "minmax"))
                for key, tensor in a.tensors.items():
                    for plane in tensor.planes:
                        self.assertTrue(np.array_equal(tensor.planes[plane].fields, b.tensors[key].planes[plane].fields), (name, group, key, plane))


class Commands(CliTest):
    def test_every_rule_through_every_command(self):
        for name in ("int4", "uint4"):
            for rule in RULES:
                with self.subTest(name=name, rule=rule):
                    args = ["--in", TINY, "--format", name, "--group-size", "channel", "--scale-rule", rule, "--out", "a.llmq", "--force"]
                    planned = self.ok_json("plan", *args)
                    done = self.ok_json("convert", *args)
                    for report in (planned, done):
                        quantised = [t for t in report["tensors"] if t["format"] == name]
                        self.assertEqual({t["scale_rule"] for t in quantised}, {rule})
                        self.assertEqual({t.get("percentile") for t in quantised}, {99.99 if rule == "percentile" else None})
                    self.ok("verify", "a.llmq")
                    self.assertIn(rule, self.ok("inspect", "a.llmq", "--tensors", "--json").out)
                    self.ok("compare", "--in", "a.llmq", "--against", TINY)
                    self.ok("dequantize", "--in", "a.llmq", "--out", "back.safetensors", "--force")

    def test_learned_scales_are_not_worse(self):
        for name in ("int2", "int4", "int8", "uint4", "uint8"):
            db = {}
            for rule in ("absmax", "lsq", "pact"):
                report = self.ok_json("convert", "--in", TINY, "--format", name, "--scale-rule", rule, "--out", "a.llmq", "--force")
                db[rule] = {t["name"]: t["sqnr_db"] for t in report["tensors"] if t["format"] == name}
            for key, least in db["absmax"].items():
                self.assertGreaterEqual(db["lsq"][key], least, (name, key))
                self.assertGreaterEqual(db["pact"][key], least, (name, key))

    def test_names_of_rules_in_help_and_formats(self):
        text = self.ok("convert", "--help").out
        listed = {f["name"]: f["scale_rules"] for f in self.ok_json("formats")["formats"]}
        for rule in RULES:
            self.assertIn(rule, text)
            self.assertIn(rule, listed["int4"])
            self.assertIn(rule, listed["uint8"])
            self.assertNotIn(rule, listed["mxfp4"] + listed["fp8_e4m3"] + listed["nf4"] + listed["q4_0"])


class Percentile(CliTest):
    def shares(self, *args):
        report = self.ok_json("plan", "--in", TINY, *args)
        return {t.get("percentile") for t in report["tensors"] if t["format"].startswith("int4")}

    def test_where_it_may_stand(self):
        self.assertEqual(self.shares("--format", "int4:rule=percentile"), {99.99})
        self.assertEqual(self.shares("--format", "int4:rule=percentile,percentile=99.9"), {99.9})
        self.assertEqual(self.shares("--format", "int4", "--scale-rule", "percentile", "--percentile", "50"), {50})
        self.assertEqual(self.shares("--format", "int4:percentile=100", "--scale-rule=percentile", "--percentile=50"), {100})
        self.assertEqual(self.shares("--rule", "role:q=int4:rule=percentile", "--percentile", "75.5"), {75.5})
        self.assertEqual(self.shares("--rule", "role:q=int4:rule=lsq", "--percentile", "75.5"), {None})
        write_bytes(self.path("r.yaml"), b"scale-rule: percentile\npercentile: 98\nrules:\n  - {match: 'role:q', format: int4}\n")
        self.assertEqual(self.shares("--recipe", "r.yaml"), {98})
        write_bytes(self.path("r.yaml"), b"rules:\n  - {match: 'role:q', format: int4, scale-rule: percentile, percentile: 99.5}\n")
        self.assertEqual(self.shares("--recipe", "r.yaml"), {99.5})

    def test_it_is_recorded(self):
        self.ok("convert", "--in", TINY, "--format", "int4:rule=percentile,percentile=99.9", "--out", "a.llmq")
        self.assertIn(b'"scale_rule":"percentile","percentile":"99.9",', self.index())
        for value in ("0.00001", "99.999999999999", "0", "100", "0.000000000001", "7.50"):
            with self.subTest(value):
                self.ok("convert", "--in", TINY, "--format", f"int4:rule=percentile,percentile={value}", "--out", "a.llmq", "--force")
                self.assertIn(f'"percentile":"{value.rstrip("0") if "." in value else value}",'.encode(), self.index())
                self.ok("verify", "a.llmq")

    def index(self):
        data = read_bytes(self.path("a.llmq"))
        trailer = reader.parse_trailer(data, reader.parse_header(data))
        stored = data[trailer.index_offset:trailer.index_offset + trailer.index_stored]
        return reader.unzstd(stored, trailer.index_raw, "index") if trailer.index_stored != trailer.index_raw else stored

    def test_refusals(self):
        for value in ("-1", "100.1", "nan", "inf", "1e2", "", "99.9%", ".", "0x10", "9.9.9", "99.9999999999999"):
            self.refused(2, ["plan", "--in", TINY, "--format", f"int4:rule=percentile,percentile={value}"], f"percentile '{value}' is not a number from 0 to 100")
            if value:
                self.refused(2, ["plan", "--in", TINY, "--format", "int4:rule=percentile", f"--percentile={value}"], f"percentile '{value}'")
        self.refused(2, ["plan", "--in", TINY, "--format", "int4:percentile=99"], "a percentile is for scale rule percentile, not for absmax")
        self.refused(2, ["plan", "--in", TINY, "--format", "int4:rule=lsq", "--percentile", "99"], "not for lsq")
        self.refused(2, ["plan", "--in", TINY, "--format", "mxfp4:percentile=99"], "format mxfp4 has no scale rule percentile")
        self.refused(2, ["plan", "--in", TINY, "--format", "fp8_e4m3:rule=percentile"], "does not take scale rule 'percentile'")
        self.refused(2, ["plan", "--in", TINY, "--format", "int4:rule=lsq,half-range=int_max"], "half range int_max is not for it")


if __name__ == "__main__":
    unittest.main()
