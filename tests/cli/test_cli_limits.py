"""Large models on small machines: memory, time, threads. Sparse files stand in for large ones; nothing over 1 GB is written."""
import fcntl
import json
import os
import shutil
import time
import unittest

from cli_support import CliTest, LIGHT, random_weights, skip_aloud, start, stored, wait_for, write_model

MEBI = 1 << 20
F_SETPIPE_SZ = 1031


def peak_rss(args, cwd):
    """(peak RSS in bytes, report) of a run with --json. The run is held at its last step by a full pipe while its high-water mark is read: a maximum taken from rusage would begin with
    that of this Python."""
    r, w = os.pipe()
    size = fcntl.fcntl(w, F_SETPIPE_SZ, 4096)
    os.write(w, b" " * size)
    process = start(*args, "--json", "--progress", "none", cwd=cwd, stdout=w)
    os.close(w)
    peak = 0
    try:
        calm = 0  # polls in a row in which its only thread slept: it waits for the pipe

        def asleep_at_the_end():
            nonlocal calm
            with open(f"/proc/{process.pid}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            calm = calm + 1 if (fields[0], fields[17]) == ("S", "1") else 0
            return calm >= 20 or fields[0] == "Z"

        if not wait_for(asleep_at_the_end, process, 120):
            raise RuntimeError("did not end")
        with open(f"/proc/{process.pid}/status") as f:
            peak = next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM:"))
    finally:
        with os.fdopen(r, "rb") as f:
            out = f.read()
        _, err = process.communicate(timeout=60)
    return peak, process.returncode, out.decode(), err.decode()


class Memory(CliTest):
    GIGA = 1 << 30

    def setUp(self):
        super().setUp()
        if LIGHT:
            self.skipTest("LLMQ_CLI_LIGHT")
        if shutil.disk_usage(self.dir).free < 3 * self.GIGA:
            skip_aloud(self, "less than 3 GB free")

    def sparse(self, name, shapes, dtype="BF16"):
        """About 1 GB, with random weights at the beginning of the first tensor."""
        path = write_model(self.path(name), {n: (dtype, s, None) for n, s in shapes.items()})
        with open(path, "r+b") as f:
            n = int.from_bytes(f.read(8), "little")
            f.seek(8 + n)
            f.write(stored(dtype, random_weights(1, 1 << 18)))
        return path

    def check(self, what, budget, *args):
        peak, code, out, err = peak_rss([*args, "--max-ram", f"{budget}M"], self.dir)
        self.assertEqual(code, 0, err)
        report = json.loads(out)
        index = report.get("index_nbytes", 0)  # commands without a plan: nothing worth counting for so few tensors
        print(f"memory: {what}, --max-ram {budget}M: peak {peak / MEBI:.2f} MiB, index {index / MEBI:.2f} MiB", flush=True)
        self.assertLessEqual(peak, budget * MEBI + index, what)
        return peak, report

    def converted(self, what, source, options, budgets=((8, 7), (32, 2))):
        for budget, threads in budgets:
            _, report = self.check(f"{what}, {' '.join(options)}, {threads} threads asked", budget, "convert", "--in", source, *options, "--threads", threads, "--out", "x.llmq", "--force")
            self.assertLessEqual(report["ram_nbytes"], budget * MEBI)

    def test_one_tensor_of_a_gigabyte(self):
        self.sparse("one.safetensors", {"model.layers.0.mlp.up_proj.weight": (131072, 4096)})
        self.converted("one tensor of 1 GiB", "one.safetensors", ["--format", "int4"])

    def test_one_tensor_with_one_scale(self):
        self.sparse("one.safetensors", {"model.layers.0.mlp.up_proj.weight": (4, 1 << 24)})
        self.converted("four rows of 2^24, one scale for all", "one.safetensors", ["--format", "int4:group=tensor"], ((8, 7),))
        self.converted("four rows of 2^24, one scale a row", "one.safetensors", ["--format", "int8:group=channel"], ((8, 7), (32, 2)))

    def test_many_tensors_in_a_gigabyte(self):
        shapes = {f"model.layers.{i}.mlp.up_proj.weight": (512, 512) for i in range(1990)}
        shapes["model.embed_tokens.weight"] = (2048, 4096)
        self.sparse("many.safetensors", shapes)
        self.converted("1991 tensors, 1 GiB", "many.safetensors", ["--format", "int4"])

    def test_many_tensors_without_compression(self):
        self.sparse("many.safetensors", {f"model.layers.{i}.mlp.up_proj.weight": (128, 256) for i in range(2000)})
        self.converted("2000 tensors, 131 MB", "many.safetensors", ["--format", "int4", "--compress", "none"])

    def test_the_other_commands(self):
        self.sparse("m.safetensors", {f"model.layers.{i}.mlp.up_proj.weight": (4096, 4096) for i in range(3)})
        self.ok("convert", "--in", "m.safetensors", "--format", "int4", "--out", "x.llmq", "--quiet")
        for budget in (8, 32):
            for args in (["inspect", "m.safetensors", "--scan"], ["verify", "x.llmq"], ["compare", "--in", "m.safetensors", "--against", "x.llmq"],
                         ["dequantize", "--in", "x.llmq", "--out", "y.safetensors", "--force"]):
                self.check(args[0], budget, *args, "--threads", "7")

    def test_size_of_the_model_does_not_matter(self):
        peaks = []
        for n in (1, 8):
            self.sparse("m.safetensors", {f"model.layers.{i}.mlp.up_proj.weight": (2048, 4096) for i in range(n)})
            peaks.append(self.check(f"{n} tensors of 16 MiB", 16, "convert", "--in", "m.safetensors", "--format", "int4", "--threads", "2", "--out", "x.llmq", "--force")[0])
        self.assertLess(peaks[1], peaks[0] * 1.1)


class Budget(CliTest):
    def test_too_small_for_the_threads_asked(self):
        write_model(self.path("m.safetensors"), {"a.q_proj.weight": ("BF16", (2048, 2048), random_weights(1, 2048, 2048)), "a.embed_tokens.weight": ("BF16", (2048, 1024), random_weights(2, 2048, 1024))})
        base = ["--in", "m.safetensors", "--format", "mxfp4", "--threads", "7"]
        plan = self.ok_json("plan", *base, "--max-ram", "8M")
        self.assertLess(plan["threads"], 7)
        self.assertEqual(plan["threads_asked"], 7)
        self.assertLessEqual(plan["ram_nbytes"], 8 * MEBI)
        self.assertIn("fewer than asked: --max-ram", self.ok("plan", *base, "--max-ram", "8M").out)
        self.assertNotIn("fewer than asked", self.ok("plan", *base, "--max-ram", "256M").out)
        results = []
        for options in (["--max-ram", "8M"], ["--max-ram", "256M"]):
            self.ok("convert", *base, *options, "--out", "x.llmq", "--force", "--quiet")
            with open(self.path("x.llmq"), "rb") as f:
                results.append(f.read())
        self.assertEqual(results[0], results[1])

    def test_8M_is_enough(self):
        """For 16-bit models and ordinary groups always; for 32-bit ones when nothing large is compressed, or with 4-bit formats."""
        every = (["--format", "mxfp4"], ["--format", "uint8:group=channel,rule=mse"], ["--format", "int4:group=1024", "--compress", "max"], ["--format", "int8:group=tensor", "--compress", "none"])
        for dtype, variants in (("BF16", every), ("F16", every), ("F32", (every[0], every[3]))):
            write_model(self.path("m.safetensors"), {"a.q_proj.weight": (dtype, (1024, 2048), None), "a.embed_tokens.weight": (dtype, (1024, 2048), None), "a.down_proj.weight": ("BF16", (1024, 2048), None)})
            for options in variants:
                with self.subTest(f"{dtype} {options}"):
                    plan = self.ok_json("plan", "--in", "m.safetensors", *options, "--max-ram", "8M", "--threads", "4")
                    self.assertGreaterEqual(plan["threads"], 1)

    def test_too_small_for_one_thread_says_how_much_is_needed(self):
        write_model(self.path("m.safetensors"), {"a.q_proj.weight": ("F64", (64, 65536), None)})
        args = ["convert", "--in", "m.safetensors", "--format", "int4:group=32768"]
        sentence = self.refused(1, [*args, "--max-ram", "8M"], "--max-ram 8M is too small", "needs")
        needed = sentence.split("needs ")[1].split()[0]
        self.ok(*args, "--max-ram", needed, "--quiet")


class Many(CliTest):
    def test_hundred_thousand_tensors(self):
        if LIGHT:
            self.skipTest("LLMQ_CLI_LIGHT")
        n = 100000
        write_model(self.path("m.safetensors"), {f"model.layers.{i}.mlp.up_proj.weight" if i % 2 else f"model.layers.{i}.input_layernorm.weight": ("BF16", (4, 8) if i % 2 else (8,), None) for i in range(n)})
        begin = time.monotonic()
        report = self.ok_json("convert", "--in", "m.safetensors", "--format", "int4", "--out", "x.llmq")
        converted = time.monotonic() - begin
        self.assertEqual((report["tensors_total"], report["tensors_quantised"]), (n, n // 2))
        begin = time.monotonic()
        self.ok("inspect", "m.safetensors", "--quiet")
        inspected = time.monotonic() - begin
        begin = time.monotonic()
        self.ok("verify", "x.llmq", "--quiet")
        verified = time.monotonic() - begin
        begin = time.monotonic()
        self.ok("dequantize", "--in", "x.llmq", "--out", "y.safetensors", "--quiet")
        back = time.monotonic() - begin
        self.ok("compare", "--in", "m.safetensors", "--against", "x.llmq", "--quiet")
        print(f"100000 tensors: convert {converted:.2f} s, inspect {inspected:.2f} s, verify {verified:.2f} s, dequantize {back:.2f} s", flush=True)
        self.assertLess(converted, 30)
        self.assertLess(inspected, 10)
        self.assertLess(verified, 20)
        self.assertLess(back, 30)


if __name__ == "__main__":
    unittest.main()
