#!/usr/bin/env python3
"""Perplexity of a model in several formats: plain, migrated, weighted by importance, and both; as it is and with channels of its norms rescaled. For README.md.

    scripts/eval_table.py --program build/llmq --model DIR (--text FILE | --tokens FILE)

Statistics are collected by `llmq calibrate` on the model itself, before and after the injection (smooth_table.py: 4 channels of each norm times 16).
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

from smooth_table import inject, read_model, write_model

FORMATS = [("int4", "32", "mse"), ("int4", "128", "mse"), ("int3", "32", "mse"), ("mxfp4", "", "search"), ("nvfp4", "", "search"), ("bfp16", "", "search"), ("mx6", "", "search")]


def run(program, *args):
    done = subprocess.run([program, *args, "--quiet"], capture_output=True, text=True)
    if done.returncode:
        sys.exit("%s: %s" % (" ".join(args), done.stderr))
    return done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text")
    parser.add_argument("--tokens")
    args = parser.parse_args()
    data = ["--text", args.text] if args.text else ["--tokens", args.tokens]
    base = {k: v.astype(np.float32) for k, v in read_model(args.model).items()}
    print("| format | injected | default | `--smooth` | `--alpha auto` | searched scales | and importance | and `--alpha auto` |\n|---|---|---|---|---|---|---|---|")
    for factor in (1, 16):
        with tempfile.TemporaryDirectory() as work:
            tensors, _ = inject(base, {}, np.float32(factor), np.random.default_rng(3))
            model, stats, out = (os.path.join(work, name) for name in ("m", "s.safetensors", "o.llmq"))
            write_model(model, args.model, tensors)
            run(args.program, "calibrate", "--in", model, *data, "--out", stats)

            def perplexity(*options):
                run(args.program, "convert", "--in", model, *options, "--out", out, "--force")
                return json.loads(run(args.program, "eval", "--in", out, *data, "--json"))["perplexity"]

            for form, group, rule in FORMATS:
                options = ["--format", form] + (["--group-size", group] if group else [])
                smooth, auto, search, weigh = ["--smooth", stats], ["--smooth", stats, "--alpha", "auto"], ["--scale-rule", rule], ["--imatrix", stats]
                cells = [perplexity(*options, *more) for more in ([], smooth, auto, search, search + weigh, search + weigh + auto)]
                print("| %s%s | %s | %s |" % (form, " g" + group if group else "", "x %d" % factor if factor > 1 else "", " | ".join("%.4g" % c if c > 100 else "%.4f" % c for c in cells)), flush=True)
            print("unquantised %.4f" % json.loads(run(args.program, "eval", "--in", model, *data, "--json"))["perplexity"], file=sys.stderr)


if __name__ == "__main__":
    main()
