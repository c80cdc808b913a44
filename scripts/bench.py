"""bench.py: the measurements behind bench.sh. Each figure is a ratio of medians over pairs A B A B ... in one run, after a discarded warm-up;
memory is the kernel's own peak of the child process. Nothing is asserted: it reports."""

import argparse
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import time

import numpy as np

LAYER = [("input_layernorm", (4096,)), ("self_attn.q_proj", (4096, 4096)), ("self_attn.k_proj", (1024, 4096)),
         ("self_attn.v_proj", (1024, 4096)), ("self_attn.o_proj", (4096, 4096)), ("post_attention_layernorm", (4096,)),
         ("mlp.gate_proj", (11008, 4096)), ("mlp.up_proj", (11008, 4096)), ("mlp.down_proj", (4096, 11008))]
LAYER_NBYTES = sum(2 * int(np.prod(shape)) for _, shape in LAYER)


def header_of(tensors):
    """Safetensors header bytes and data size of (name, shape) BF16 tensors."""
    entries, offset = {}, 0
    for name, shape in tensors:
        nbytes = 2 * int(np.prod(shape))
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + nbytes]}
        offset += nbytes
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, offset


def llama(gigabytes):
    return [(f"model.layers.{i}.{name}.weight", shape) for i in range(max(1, round(gigabytes * 1e9 / LAYER_NBYTES))) for name, shape in LAYER]


def gaussian_bf16(n, seed=1):
    """n Gaussian BF16 weights of sigma 0.02 as bytes."""
    bits = (np.random.default_rng(seed).standard_normal(n).astype(np.float32) * np.float32(0.02)).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


def need_space(directory, nbytes):
    free = shutil.disk_usage(directory).free
    if free < nbytes * 1.05:
        sys.exit(f"bench: {directory} has {free / 1e9:.1f} GB free, {nbytes / 1e9:.1f} GB are needed (--dir names another folder)")


def write_model(path, tensors, sparse=False):
    head, nbytes = header_of(tensors)
    need_space(os.path.dirname(path), 0 if sparse else nbytes)
    with open(path, "wb") as f:
        f.write(head)
        if sparse:
            f.truncate(len(head) + nbytes)
            return nbytes
        block, left, skip = gaussian_bf16(16 << 20), nbytes, 0
        while left:
            piece = block[2 * skip:2 * skip + left]
            f.write(piece)
            left -= len(piece)
            skip = (skip + 12345) % 4096
    return nbytes


def run(command):
    """Seconds of wall clock of one run."""
    start = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    seconds = time.monotonic() - start
    if done.returncode:
        sys.exit(f"bench: {' '.join(command)} failed: {done.stderr.decode()}")
    return seconds


def run_watched(command):
    """Seconds and peak kilobytes of one run. The kernel's own high-water mark, looked at while it runs: that of the finished child would count the memory of this
    program from before the exec."""
    start, peak = time.monotonic(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            with open(f"/proc/{process.pid}/status") as status, open(f"/proc/{process.pid}/comm") as comm:
                if comm.read().strip() == os.path.basename(command[0]):
                    peak = max([peak] + [int(line.split()[1]) for line in status if line.startswith("VmHWM")])
        except OSError:
            pass
        time.sleep(0.01)
    if process.returncode:
        sys.exit(f"bench: {' '.join(command)} failed")
    return time.monotonic() - start, peak


def pairs(label, ours, theirs, n=5):
    run(ours), run(theirs)
    a, b = [], []
    for _ in range(n):
        a.append(run(ours))
        b.append(run(theirs))
    ratio = statistics.median(x / y for x, y in zip(a, b))
    print(f"{label:58} {statistics.median(a):7.3f} s  {statistics.median(b):7.3f} s  ratio {ratio:.2f}", flush=True)


def speed(program, directory, gigabytes):
    model, out, copy = (os.path.join(directory, name) for name in ("bench.safetensors", "bench.llmq", "bench.copy"))
    nbytes = write_model(model, llama(gigabytes))
    need_space(directory, 2 * nbytes)

    def convert(*options, path=model):
        return [program, "convert", "--in", path, "--out", out, "--force", "--quiet", *options]

    copying = ["cp", model, copy]
    reading = ["sh", "-c", f"cat {model} >/dev/null"]
    floor = ("--format", "mxfp4", "--scale-rule", "floor", "--threads", "2")
    print(f"{nbytes / 1e9:.2f} GB of BF16 in {directory}, {os.cpu_count()} processors; ours, theirs, median of pairwise ratios")
    pairs("mxfp4 floor against cp", convert(*floor), copying)
    pairs("mxfp4 floor, --measure off, against cp", convert(*floor, "--measure", "off"), copying)
    pairs("mxfp4 floor, --measure off, against cat", convert(*floor, "--measure", "off"), reading)
    pairs("mxfp4 search against mxfp4 floor", convert("--format", "mxfp4", "--threads", "2"), convert(*floor))
    pairs("int4 g128 against cp", convert("--format", "int4", "--threads", "2"), copying)
    pairs("int8 against cp", convert("--format", "int8", "--threads", "2"), copying)
    pairs("mxfp8_e4m3 floor against cp", convert("--format", "mxfp8_e4m3", "--scale-rule", "floor", "--threads", "2"), copying)
    pairs("mxfp4 floor: 1 thread against 2", convert(*floor[:-1], "1"), convert(*floor))
    half = os.path.join(directory, "bench-half.safetensors")
    write_model(half, llama(gigabytes / 2))
    pairs("mxfp4 floor: whole model against half of it", convert(*floor), convert(*floor, path=half))
    pairs("start-up: --version against true", [program, "--version"], ["true"])
    for path in (model, out, copy, half):
        if os.path.exists(path):
            os.remove(path)


def memory(program, directory):
    """Peak memory must not depend on the size of the model or of its largest tensor."""
    model, out = os.path.join(directory, "bench-memory.safetensors"), os.path.join(directory, "bench-memory.llmq")
    cases = [("16 GB sparse, 40 layers", llama(16.0), True, "mxfp4:rule=floor"), ("one tensor of 8 GB, random", [("model.layers.0.mlp.up_proj.weight", (65536, 65536))], False, "int4")]
    for label, tensors, sparse, form in cases:
        need_space(directory, (0 if sparse else 8.7e9) + 5e9)
        nbytes = write_model(model, tensors, sparse)
        for budget in ("8M", "32M"):
            for compress in ("default", "none"):
                seconds, kilobytes = run_watched([program, "convert", "--in", model, "--out", out, "--force", "--quiet", "--format", form, "--threads", "2", "--max-ram", budget,
                                          "--compress", compress])
                print(f"{label:30} {nbytes / 1e9:5.1f} GB  --max-ram {budget:4} --compress {compress:8} peak {kilobytes / 1024:6.1f} MiB  {seconds:6.1f} s", flush=True)
        os.remove(model), os.remove(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", default="build/llmq")
    parser.add_argument("--dir")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--memory", action="store_true")
    args = parser.parse_args()
    big = args.gigabytes * 3e9
    directory = args.dir or ("/dev/shm" if not args.memory and os.path.isdir("/dev/shm") and shutil.disk_usage("/dev/shm").free > big else os.getcwd())
    if args.memory:
        memory(args.program, directory)
        return
    subprocess.run([args.program, "bench"], check=True)
    speed(args.program, directory, args.gigabytes)


if __name__ == "__main__":
    main()
