"""Inputs that are no model, damaged, changing, or not files at all: one sentence, exit 1, nothing written."""
import io
import json
import os
import pickle
import shutil
import socket
import struct
import subprocess
import unittest
import zipfile

import numpy as np

from cli_support import (CliTest, PROGRAM, SHARED, environment, finish, header_of, random_weights, read_bytes, skip_aloud, small_tensors, start, wait_for, write_bytes,
                         write_folder, write_index, write_model)


class NoModel(CliTest):
    """The same sentence from every command that reads a model."""

    def refuse_everywhere(self, path, *needles, code=1):
        for args in (["convert", "--in", path, "--format", "int4"], ["plan", "--in", path, "--format", "int4"], ["inspect", path], ["inspect", path, "--scan"], ["verify", path],
                     ["dequantize", "--in", path, "--out", "y.safetensors"], ["compare", "--in", path, "--against", path], ["extract", path, "x"]):
            with self.subTest(" ".join(args)):
                self.refused(code, args, *needles)

    def test_missing(self):
        self.refuse_everywhere("nowhere.safetensors", "nowhere.safetensors", "No such file")
        self.refuse_everywhere("no/where.safetensors", "no/where.safetensors")
        os.symlink("nothing", self.path("dangling.safetensors"))
        self.refuse_everywhere("dangling.safetensors", "dangling.safetensors", "No such file")
        os.symlink("loop", self.path("loop"))
        self.refuse_everywhere("loop", "loop", "symbolic links")
        self.refuse_everywhere("x" * 5000, "too long")

    def test_usual_mistakes(self):
        zipped = io.BytesIO()
        with zipfile.ZipFile(zipped, "w") as z:
            z.writestr("archive/data.pkl", b"x")
        for name, data, needle in (("empty.safetensors", b"", "is empty"), ("short.safetensors", b"1234567", "shorter than 8 bytes"),
                                   ("lfs.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4976698672\n", "git-LFS pointer"),
                                   ("page.safetensors", b"<!DOCTYPE html>\n<html><title>404</title></html>", "web page"), ("page2.safetensors", b"\n  <HTML>no</HTML>", "web page"),
                                   ("pytorch_model.bin", zipped.getvalue(), "PyTorch (zip)"), ("old.bin", pickle.dumps({"a": 1}), "pickle"), ("m.gguf", b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "GGUF version 9"),
                                   ("m.safetensors", b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "GGUF"), ("a.npy", b"\x93NUMPY\1\0v\0" + b" " * 100, "NumPy"), ("h.h5", b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
                                   ("g.gz", b"\x1f\x8b\x08\0" + bytes(20), "gzip"), ("z.zst", b"\x28\xb5\x2f\xfd" + bytes(20), "zstd"), ("config.json", b'{"a": 1}', "JSON"),
                                   ("noise", bytes(range(255, 0, -1)) * 4, ""), ("text.txt", b"hello, this is no model at all\n", "")):
            write_bytes(self.path(name), data)
            with self.subTest(name):
                self.refuse_everywhere(name, name, needle)

    def test_damaged_safetensors(self):
        head, size = header_of({"a.q_proj.weight": ("F32", (4, 4))})
        good = head + bytes(size)
        text = head[8:]
        def with_text(t):
            t = t if isinstance(t, bytes) else t.encode()
            return struct.pack("<Q", len(t)) + t + bytes(64)
        for name, data, needle in (("one byte short", good[:-1], ""), ("one byte long", good + b"x", ""), ("cut in the header", good[:40], ""), ("only the length", good[:8], ""), ("no data", head, ""),
                                   ("length past the end", struct.pack("<Q", 1 << 40) + good[8:], ""), ("length 0", struct.pack("<Q", 0) + good[8:], ""), ("no JSON", with_text("hello world"), ""),
                                   ("array", with_text("[]"), ""), ("unknown dtype", good.replace(b"F32", b"F33"), "F33"), ("twice", with_text(text[:-1].rstrip(b" }") + b"}," + text[1:]), ""),
                                   ("negative", good.replace(b"[4, 4]", b"[-4,4]"), ""), ("too large shape", good.replace(b"[4, 4]", b"[4,99]"), "")):
            write_bytes(self.path("m.safetensors"), data)
            with self.subTest(name):
                self.refused(1, ["convert", "--in", "m.safetensors", "--format", "int4"], "m.safetensors", needle)

    def test_names_that_would_break_a_terminal(self):
        write_model(self.path("m.safetensors"), {"a\u202eb.q_proj.weight": ("F32", (4, 4), np.full((4, 4), np.nan))})
        sentence = self.refused(1, ["convert", "--in", "m.safetensors", "--format", "int4"], "NaN")
        self.assertNotIn("\u202e", sentence)
        write_model(self.path("n.safetensors"), {"a\x1b[31m.q_proj.weight": ("F32", (4, 4), np.zeros((4, 4)))})
        self.refused(1, ["convert", "--in", "n.safetensors", "--format", "int4"], "n.safetensors", "\\x1b")

    def test_special_files(self):
        os.mkfifo(self.path("fifo"))
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(self.path("socket"))
            for path in ("fifo", "socket", "/dev/zero", "/dev/random", "/dev/null", "/dev/stdin"):
                with self.subTest(path):
                    self.refuse_everywhere(path, path)
        os.symlink("/dev/zero", self.path("model.safetensors"))
        self.refuse_everywhere("model.safetensors", "device")
        self.refused(1, ["inspect", "."], "model.safetensors")

    def test_public_damaged_files(self):
        folder = os.path.join(SHARED, "malformed")
        if not os.path.isdir(folder):
            skip_aloud(self, f"no {folder}")
        for sub in ("natural", "safetensors_rust_tests"):
            for name in sorted(os.listdir(os.path.join(folder, sub))):
                full = os.path.join(folder, sub, name)
                if os.path.isfile(full) and name.endswith((".safetensors", ".gguf", ".bin")):
                    with self.subTest(name):
                        result = self.llmq("inspect", full)
                        self.assertIn(result.code, (0, 1), str(result))
                        if result.code:
                            self.check_refusal(result, 1, "inspect", name)


class Folders(CliTest):
    def bad(self, *needles, args=None):
        return self.refused(1, args or ["convert", "--in", "m", "--format", "int4", "--out", "x.llmq"], *needles)

    def test_folder_without_a_model(self):
        os.mkdir(self.path("m"))
        self.bad("'m'", "no model files")
        write_bytes(self.path("m", "config.json"), b"{}")
        self.bad("'m'", "*.safetensors")
        write_bytes(self.path("m", "pytorch_model.bin"), b"PK\3\4")
        self.bad("pytorch_model.bin", "PyTorch")
        os.remove(self.path("m", "pytorch_model.bin"))
        write_bytes(self.path("m", "x.gguf"), b"GGUF")
        self.bad("x.gguf")

    def test_several_files_without_an_index(self):
        write_folder(self.path("m"), shards=2)
        os.remove(self.path("m", "model.safetensors.index.json"))
        self.bad("2 safetensors files", "index")

    def test_missing_shard(self):
        write_folder(self.path("m"), shards=3)
        os.remove(self.path("m", "model-00002-of-00003.safetensors"))
        self.bad("model-00002-of-00003.safetensors")
        self.bad("model-00002-of-00003.safetensors", args=["inspect", "m/model.safetensors.index.json"])
        os.symlink("../../blobs/gone", self.path("m", "model-00002-of-00003.safetensors"))
        self.bad("model-00002-of-00003.safetensors")

    def test_damaged_shards(self):
        write_folder(self.path("m"), shards=3)
        shard = self.path("m", "model-00003-of-00003.safetensors")
        whole = read_bytes(shard)
        for name, data, needle in (("empty", b"", "empty"), ("LFS", b"version https://git-lfs.github.com/spec/v1\n", "git-LFS"), ("HTML", b"<html>" + bytes(20), "web page"), ("cut", whole[:-1], "")):
            write_bytes(shard, data)
            with self.subTest(name):
                self.bad("model-00003-of-00003.safetensors", needle)

    def test_stale_index(self):
        def index():
            with open(self.path("m", "model.safetensors.index.json")) as f:
                return json.load(f)["weight_map"]
        write_folder(self.path("m"), shards=3)
        good = index()
        names = list(good)
        for name, change, needle in (("too many", {**good, "model.extra.weight": good[names[0]]}, "model.extra.weight"), ("too few", {n: f for n, f in good.items() if n != names[0]}, names[0]),
                                     ("other shard", {**good, names[0]: good[names[-1]]}, names[0]), ("nothing", {}, "weight_map")):
            write_index(self.path("m"), change)
            with self.subTest(name):
                self.bad(needle)
        write_index(self.path("m"), good)
        self.ok("plan", "--in", "m", "--format", "int4")
        self.assertIn("total_size", (write_index(self.path("m"), good, metadata={"total_size": 3}), self.ok("plan", "--in", "m", "--format", "int4").err)[1])

    def test_bad_index(self):
        write_folder(self.path("m"), shards=2)
        for text in (b"", b"{", b"[]", b'{"weight_map": 3}', b'{"weight_map": {"a": 3}}', b'{"metadata": {}}', b'{"weight_map": {"a": "b.safetensors", "a": "b.safetensors"}}', b"\xff\xfe{}",
                     b'{"weight_map": {"a": "b.safetensors"}} x', b"<html></html>", b"[" * 100000):
            write_bytes(self.path("m", "model.safetensors.index.json"), text)
            with self.subTest(text[:40]):
                self.bad("model.safetensors.index.json")

    def test_shard_names_never_leave_the_folder(self):
        write_folder(self.path("m"), shards=2)
        write_model(self.path("outside.safetensors"), {"a.q_proj.weight": ("F32", (4, 4), np.ones((4, 4)))})
        shutil.copy(self.path("outside.safetensors"), self.path("m", "x.safetensors"))
        for name in ("../outside.safetensors", self.path("outside.safetensors"), "./x.safetensors", "sub/x.safetensors", "..\\x.safetensors", "", ".", "..", "x.safetensors\0", "x\nsafetensors",
                     "/proc/self/fd/0", "https://example.com/x.safetensors", "a" * 252 + ".safetensors", "a" * 4096 + ".safetensors", "x.bin", "..%2fx.safetensors/../x.safetensors", "//x.safetensors",
                     "x.safetensors/", " /x.safetensors", "~/x.safetensors"):
            write_index(self.path("m"), {"a.q_proj.weight": name})
            with self.subTest(name[:40]):
                self.bad("m", args=["plan", "--in", "m", "--format", "int4"])

    def test_nothing_outside_the_folder_is_opened(self):
        if not shutil.which("strace"):
            skip_aloud(self, "no strace")
        write_folder(self.path("m"), shards=2)
        write_model(self.path("secret.safetensors"), {"a.q_proj.weight": ("F32", (4, 4), np.ones((4, 4)))})
        for name in ("../secret.safetensors", self.path("secret.safetensors"), "../m/../secret.safetensors"):
            write_index(self.path("m"), {"a.q_proj.weight": name})
            done = subprocess.run(["strace", "-f", "-e", "trace=open,openat,openat2", PROGRAM, "plan", "--in", "m", "--format", "int4"], cwd=self.dir, env=environment(ASAN_OPTIONS="detect_leaks=0"), capture_output=True, text=True)
            if "llmq plan: " not in done.stderr:
                skip_aloud(self, f"strace does not work here: {done.stderr[-200:]}")
            self.assertEqual(done.returncode, 1)
            self.assertFalse([l for l in done.stderr.splitlines() if "open" in l.split("(")[0] and "secret" in l])

    def test_a_cache_of_links_is_a_model(self):
        write_folder(self.path("blobs"), shards=3)
        os.makedirs(self.path("snapshots", "abc"))
        for name in os.listdir(self.path("blobs")):
            os.symlink(f"../../blobs/{name}", self.path("snapshots", "abc", name))
        self.ok("convert", "--in", "snapshots/abc", "--format", "int4", "--quiet")
        self.ok("compare", "--in", "blobs", "--against", "abc.int4.llmq", "--quiet")

    def test_stray_file_is_ignored_with_a_note(self):
        write_folder(self.path("m"), shards=2)
        write_model(self.path("m", "stray.safetensors"), {"model.norm.weight": ("F32", (4,), np.ones(4))})
        self.assertIn("note: ", self.ok("plan", "--in", "m", "--format", "int4").err)

    def test_tensor_in_two_shards(self):
        write_folder(self.path("m"), shards=2)
        with open(self.path("m", "model.safetensors.index.json")) as f:
            weight_map = json.load(f)["weight_map"]
        name = next(iter(weight_map))
        tensors = small_tensors()
        write_model(self.path("m", "model-00002-of-00002.safetensors"), {n: tensors[n] for n in list(weight_map) if weight_map[n].endswith("2-of-00002.safetensors") or n == name})
        self.bad(name)


class Changing(CliTest):
    """The input changes while it is read: an error, and no output."""

    def begin(self):
        write_model(self.path("m.safetensors"), {f"l.{i}.q_proj.weight": ("F32", (2048, 2048), None) for i in range(8)})
        with open(self.path("m.safetensors"), "r+b") as f:
            f.seek(4096)
            f.write(random_weights(1, 2048, 2048).tobytes())
        process = start("convert", "--in", "m.safetensors", "--format", "int4:rule=mse", "--threads", "1", "--out", "x.llmq", "--progress", "none", cwd=self.dir)
        self.assertTrue(wait_for(lambda: os.path.exists(self.path("x.llmq.partial")), process), "conversion did not begin")
        return process

    def end(self, process, *needles):
        result = finish(process)
        self.check_refusal(result, 1, "convert", "m.safetensors", *needles)
        self.assertEqual(os.listdir(self.dir), ["m.safetensors"])

    def test_overwritten_in_place(self):
        process = self.begin()
        with open(self.path("m.safetensors"), "r+b") as f:
            f.seek(100000)
            f.write(b"x" * 100)
        self.end(process, "changed while it was read")

    def test_grown(self):
        process = self.begin()
        with open(self.path("m.safetensors"), "ab") as f:
            f.write(b"x")
        self.end(process, "changed while it was read")

    def test_truncated(self):
        process = self.begin()
        os.truncate(self.path("m.safetensors"), 50000000)
        self.end(process)

    def test_modification_time_put_back(self):
        process = self.begin()
        st = os.stat(self.path("m.safetensors"))
        with open(self.path("m.safetensors"), "r+b") as f:
            f.seek(100000)
            f.write(b"x" * 100)
        os.utime(self.path("m.safetensors"), ns=(st.st_atime_ns, st.st_mtime_ns))
        self.end(process, "changed while it was read")

    def test_replaced_by_rename(self):
        """Either the old file is read to its end, or the change is noticed; never a mix."""
        process = self.begin()
        write_model(self.path("new"), {"a.q_proj.weight": ("F32", (4, 4), np.ones((4, 4)))})
        os.rename(self.path("new"), self.path("m.safetensors"))
        result = finish(process)
        self.assertIn(result.code, (0, 1), str(result))
        self.assertEqual(os.path.exists(self.path("x.llmq")), result.code == 0)
        self.no_partial()


if __name__ == "__main__":
    unittest.main()
