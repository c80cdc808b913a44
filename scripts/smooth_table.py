#!/usr/bin/env python3
"""Error-weighted SQNR of a model converted plain and with migration, as it is and with channels of its norms rescaled, for README.md.

    scripts/smooth_table.py --program build/llmq --model DIR --stats S.safetensors

For each quantised matrix W with input statistics E[x_j^2] the error of the function is sum_ij D_ij^2 E[x_j^2], D = (W_q' / F - W) with F what migration
multiplied W by; the table gives 10 log10 of sum_ij W_ij^2 E[x_j^2] over it, summed over all matrices. With `injected` 4 channels of each norm are
multiplied by 16 and the columns behind them divided by 16: the same function.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

FORMATS = [("int4", "32"), ("int4", "128"), ("int3", "32"), ("mxfp4", ""), ("mxint8", ""), ("bfp16", ""), ("nvfp4", ""), ("mx6", "")]


def read_safetensors(path):
    with open(path, "rb") as file:
        data = file.read()
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + n])
    out = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        a, b = entry["data_offsets"]
        raw = data[8 + n + a:8 + n + b]
        if entry["dtype"] == "BF16":
            value = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            value = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2", "I64": "<i8", "U64": "<u8", "F64": "<f8"}[entry["dtype"]])
        out[name] = value.reshape(entry["shape"])
    return out


def write_safetensors(path, tensors):
    header, at = {}, 0
    for name, value in tensors.items():
        kind = {"float32": "F32", "int64": "I64"}[str(value.dtype)]
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [at, at + value.nbytes]}
        at += value.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + b"".join(v.tobytes() for v in tensors.values()))


def read_model(folder):
    out = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            out.update(read_safetensors(os.path.join(folder, name)))
    return out


def write_model(folder, source, tensors):
    os.makedirs(folder)
    for name in os.listdir(source):
        if name.endswith((".json", ".model")) and "index" not in name:
            with open(os.path.join(source, name), "rb") as a, open(os.path.join(folder, name), "wb") as b:
                b.write(a.read())
    write_safetensors(os.path.join(folder, "model.safetensors"), tensors)


BEHIND = {"input_layernorm": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], "post_attention_layernorm": ["mlp.gate_proj", "mlp.up_proj"]}


def inject(tensors, stats, factor, rng):
    """Multiplies 4 channels of each norm, divides the columns behind it; E[x^2] follows."""
    tensors, stats = {k: v.copy() for k, v in tensors.items()}, {k: v.copy() for k, v in stats.items()}
    for name in list(tensors):
        for norm, linears in BEHIND.items():
            if not name.endswith(norm + ".weight"):
                continue
            prefix = name[:-len(norm + ".weight")]
            channels = rng.choice(tensors[name].size, 4, replace=False)
            tensors[name][channels] *= factor
            for linear in linears:
                tensors[prefix + linear + ".weight"][:, channels] /= factor
                key = prefix + linear + ".weight.in_sum2"
                if key in stats:
                    stats[key].reshape(-1)[channels] *= factor * factor
    return tensors, {k: v for k, v in stats.items() if ".in_sum2" in k or ".counts" in k}


def run(program, *args):
    done = subprocess.run([program, *args, "--quiet", "--force"], capture_output=True, text=True)
    if done.returncode:
        sys.exit("%s: %s" % (" ".join(args), done.stderr))


def weighted(original, migrated, decoded, stats, names):
    signal = noise = 0.0
    for name in names:
        w, m, d = (x[name].astype(np.float64) for x in (original, migrated, decoded))
        ex2 = stats[name + ".in_sum2"].reshape(-1) / float(stats[name + ".counts"].reshape(-1)[0])
        factor = np.where(w != 0, m / np.where(w != 0, w, 1), 1)
        error = (d - m) / factor
        signal += float((w * w * ex2).sum())
        noise += float((error * error * ex2).sum())
    return 10 * np.log10(signal / noise)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--program", "--model", "--stats"):
        parser.add_argument(option, required=True)
    args = parser.parse_args()
    stats = read_safetensors(args.stats)
    base = {k: v.astype(np.float32) for k, v in read_model(args.model).items()}
    with open(args.stats, "rb") as file:
        n = int.from_bytes(file.read(8), "little")
        aliases = json.loads(json.loads(file.read(n)).get("__metadata__", {}).get("alias", "{}"))
    for name, source in aliases.items():
        for field in ("in_sum2", "counts"):
            if source + "." + field in stats:
                stats[name + "." + field] = stats[source + "." + field]
    print("| format | plain | injected | `--smooth` | injected | `--alpha auto` | injected | bytes |\n|---|---|---|---|---|---|---|---|")
    for form, group in FORMATS:
        cells, size = [], 0
        for mode in ([], ["--smooth"], ["--smooth", "auto"]):
            for factor in (1, 16):
                with tempfile.TemporaryDirectory() as work:
                    tensors, sums = inject(base, stats, np.float32(factor), np.random.default_rng(3))
                    model, s = os.path.join(work, "m"), os.path.join(work, "s.safetensors")
                    write_model(model, args.model, tensors)
                    write_safetensors(s, {k: (v.astype(np.int64) if "counts" in k else v.astype(np.float32)) for k, v in sums.items()})
                    options = ["--in", model, "--format", form] + (["--group-size", group] if group else [])
                    smooth = (["--smooth", s] + (["--alpha", "auto"] if len(mode) > 1 else [])) if mode else []
                    out, back = os.path.join(work, "o.llmq"), os.path.join(work, "b")
                    run(args.program, "convert", *options, *smooth, "--out", out)
                    run(args.program, "dequantize", "--in", out, "--out", back, "--dtype", "f32")
                    migrated = tensors
                    if mode:
                        folded = os.path.join(work, "f")
                        run(args.program, "smooth", *options, *smooth, "--out", folded)
                        migrated = read_model(folded)
                    decoded = read_model(back)
                    names = [k for k, v in tensors.items() if k + ".in_sum2" in sums and v.ndim == 2]
                    cells.append("%.2f" % weighted(tensors, migrated, decoded, sums, names))
                    size = os.path.getsize(out)
        print("| %s%s | %s | %d |" % (form, " g" + group if group else "", " | ".join(cells), size))


if __name__ == "__main__":
    main()
