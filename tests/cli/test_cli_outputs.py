"""Outputs appear whole or not at all: what is in the way, who may write, full disks, signals, two runs at once, broken stdout."""
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from cli_support import (CliTest, LIGHT, PROGRAM, ROOT, TINY, environment, finish, random_weights, read_bytes, run, skip_aloud, start, wait_for, write_bytes, write_folder,
                         write_model)

NOBODY = 65534


def slow_model(path, n=36):
    """About 300 MB, nearly all holes; int4:rule=mse on one thread needs a few seconds for it."""
    return write_model(path, {f"model.layers.{i}.self_attn.q_proj.weight": ("BF16", (2048, 2048), random_weights(i, 2048, 2048) if i == 0 else None) for i in range(n)})


SLOW = ["--format", "int4:rule=mse", "--threads", "1", "--progress", "none"]


class InTheWay(CliTest):
    def setUp(self):
        super().setUp()
        self.small("m.safetensors")

    def convert(self, out, *args, source="m.safetensors"):
        return ["convert", "--in", source, "--format", "int4", "--out", out, *args]

    def test_output_is_the_input(self):
        os.symlink("m.safetensors", self.path("link.llmq"))
        os.link(self.path("m.safetensors"), self.path("hard.llmq"))
        os.mkdir(self.path("sub"))
        os.symlink("..", self.path("sub", "up"))
        before = read_bytes(self.path("m.safetensors"))
        for out in ("m.safetensors", "./m.safetensors", self.path("m.safetensors"), "sub/../m.safetensors", "sub/up/m.safetensors", "link.llmq", "hard.llmq"):
            for force in ([], ["--force"]):
                with self.subTest(f"{out} {force}"):
                    result = self.llmq(*self.convert(out, *force))
                    self.assertIn(result.code, (1, 2))
                    self.check_refusal(result, result.code, "convert", "same file as input")
                    self.assertEqual(read_bytes(self.path("m.safetensors")), before)
        self.no_partial()

    def test_output_is_a_shard_an_index_or_a_small_file_of_the_input(self):
        write_folder(self.path("d"), shards=2)
        for out in ("d/model-00001-of-00002.safetensors", "d/model-00002-of-00002.safetensors", "d/model.safetensors.index.json", "d/config.json", "d/tokenizer.json"):
            with self.subTest(out):
                result = self.llmq(*self.convert(out, "--force", source="d"))
                self.assertIn(result.code, (1, 2))
                self.check_refusal(result, result.code, "convert", "same file as input")
        self.no_partial()
        self.ok(*self.convert("d/out.llmq", source="d"))
        self.ok("compare", "--in", "d", "--against", "d/out.llmq", "--quiet")

    def test_dequantize_onto_its_input(self):
        self.ok(*self.convert("x.llmq"))
        os.link(self.path("x.llmq"), self.path("y.safetensors"))
        result = self.llmq("dequantize", "--in", "x.llmq", "--out", "y.safetensors", "--force")
        self.check_refusal(result, result.code, "dequantize", "same file as input")
        self.ok("verify", "x.llmq")

    def test_special_files_as_output(self):
        os.mkfifo(self.path("fifo"))
        os.mkdir(self.path("folder"))
        os.symlink("nothing", self.path("dangling"))
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(self.path("socket"))
            for out in ("fifo", "socket", "folder", "dangling", "/dev/null", "/dev/full", "/dev/zero", "/dev/stdout", "/proc/self/fd/1"):
                for force in ([], ["--force"]):
                    with self.subTest(f"{out} {force}"):
                        self.refused(1, self.convert(out, *force), out)

    def test_partial_of_a_run_that_died_is_replaced(self):
        write_bytes(self.path("x.llmq.partial"), b"left behind")
        self.ok(*self.convert("x.llmq"))
        self.ok("verify", "x.llmq")
        self.no_partial()

    def test_partial_that_is_no_file(self):
        os.mkdir(self.path("x.llmq.partial"))
        self.refused(1, self.convert("x.llmq"), "x.llmq.partial", "directory")
        os.rmdir(self.path("x.llmq.partial"))
        os.symlink("m.safetensors", self.path("x.llmq.partial"))
        self.refused(1, self.convert("x.llmq"), "x.llmq.partial")

    def test_force_replaces_a_link_and_not_what_it_means(self):
        write_bytes(self.path("target"), b"precious")
        os.symlink("target", self.path("x.llmq"))
        self.ok(*self.convert("x.llmq", "--force"))
        self.assertEqual(read_bytes(self.path("target")), b"precious")
        self.assertFalse(os.path.islink(self.path("x.llmq")))

    def test_mode_follows_the_umask(self):
        for mask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664), (0, 0o666)):
            self.ok(*self.convert("x.llmq", "--force"), umask=mask)
            self.assertEqual(os.stat(self.path("x.llmq")).st_mode & 0o777, mode)

    def test_folder_output_of_dequantize(self):
        self.ok(*self.convert("x.llmq"))
        write_bytes(self.path("file"), b"precious")
        self.refused(1, ["dequantize", "--in", "x.llmq", "--out", "file/"], "file")
        self.refused(1, ["dequantize", "--in", "x.llmq", "--out", "no/where/"], "no/where")
        self.ok("dequantize", "--in", "x.llmq", "--out", "new/")
        self.refused(1, ["dequantize", "--in", "x.llmq", "--out", "new/"], "exists", "--force")
        self.ok("dequantize", "--in", "x.llmq", "--out", "new/", "--force")


class Permissions(CliTest):
    def setUp(self):
        super().setUp()
        if os.geteuid() == 0:
            # a copy that nobody can reach, wherever the build and the sources are
            public = tempfile.mkdtemp()
            self.addCleanup(shutil.rmtree, public)
            shutil.copytree(os.path.join(ROOT, "configs"), os.path.join(public, "configs"))
            program = shutil.copy(PROGRAM, public)
            for path in (public, self.dir, program):
                os.chmod(path, 0o755)
            self.user = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "program": program, "env": {"LLMQ_CONFIG": os.path.join(public, "configs")}}
            try:
                run("--version", cwd="/", **self.user)
            except PermissionError:
                skip_aloud(self, f"nobody cannot run {program}")
        else:
            self.user = {}
        self.small("m.safetensors")
        os.chmod(self.path("m.safetensors"), 0o644)

    def folder(self, name, mode, owner=NOBODY):
        os.mkdir(self.path(name))
        if self.user:
            os.chown(self.path(name), owner, owner)
        return name, mode

    def test_unwritable_folder(self):
        self.folder("d", 0o500)
        os.chmod(self.path("d"), 0o500)
        self.refused(1, ["convert", "--in", "m.safetensors", "--format", "int4", "--out", "d/x.llmq"], "d/x.llmq", "Permission denied", **self.user)

    def test_folder_without_search_permission(self):
        self.folder("d", 0o600)
        os.chmod(self.path("d"), 0o600)
        self.addCleanup(os.chmod, self.path("d"), 0o700)
        self.refused(1, ["convert", "--in", "m.safetensors", "--format", "int4", "--out", "d/x.llmq"], "d", "Permission denied", tree=False, **self.user)
        self.refused(1, ["inspect", "d/m.safetensors"], "d/m.safetensors", "Permission denied", tree=False, **self.user)

    def test_unreadable_input(self):
        shutil.copy(self.path("m.safetensors"), self.path("n.safetensors"))
        if self.user:
            os.chown(self.path("n.safetensors"), NOBODY, NOBODY)
        os.chmod(self.path("n.safetensors"), 0)
        self.refused(1, ["convert", "--in", "n.safetensors", "--format", "int4", "--out", "/tmp/never.llmq"], "n.safetensors", "Permission denied", **self.user)
        write_folder(self.path("f"), shards=2)
        for name in os.listdir(self.path("f")):
            os.chmod(self.path("f", name), 0o644)
        os.chmod(self.path("f"), 0o755)
        for name in ("model-00002-of-00002.safetensors", "model.safetensors.index.json"):
            os.chmod(self.path("f", name), 0)
            if self.user:
                self.refused(1, ["plan", "--in", "f", "--format", "int4"], name, "Permission denied", **self.user)
            os.chmod(self.path("f", name), 0o644)

    def test_read_only_output_can_be_replaced_where_the_folder_allows_it(self):
        self.folder("d", 0o700)
        write_bytes(self.path("d", "x.llmq"), b"old")
        os.chmod(self.path("d", "x.llmq"), 0o444)
        self.refused(1, ["convert", "--in", "m.safetensors", "--format", "int4", "--out", "d/x.llmq"], "exists", **self.user)
        self.ok("convert", "--in", "m.safetensors", "--format", "int4", "--out", "d/x.llmq", "--force", **self.user)


class Disk(CliTest):
    def mount(self, size):
        os.mkdir(self.path("full"))
        if os.geteuid() != 0:
            skip_aloud(self, "a small file system needs root")
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", self.path("full")], capture_output=True, text=True)
        if done.returncode:
            skip_aloud(self, f"cannot mount a tmpfs: {done.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", self.path("full")])

    def test_too_little_space_is_seen_before_the_work(self):
        self.mount("512k")
        write_bytes(self.path("full", "x.llmq"), b"old")
        for force in ([], ["--force"]):
            sentence = self.refused(1, ["convert", "--in", TINY, "--format", "int4", "--out", "full/y.llmq", *force], "full/y.llmq")
            self.assertRegex(sentence, r"\d+ .*\d+")
        self.refused(1, ["convert", "--in", TINY, "--format", "int4", "--out", "full/x.llmq", "--force"], "x.llmq")
        self.assertEqual(read_bytes(self.path("full", "x.llmq")), b"old")
        self.assertEqual(os.listdir(self.path("full")), ["x.llmq"])

    def test_disk_that_fills_up_during_the_work(self):
        """Another program takes the space after it was checked."""
        self.mount("32m")
        slow_model(self.path("m.safetensors"), n=3)
        process = start("convert", "--in", "m.safetensors", *SLOW, "--out", "full/x.llmq", cwd=self.dir)
        self.assertTrue(wait_for(lambda: os.path.exists(self.path("full", "x.llmq.partial")), process))
        try:
            write_bytes(self.path("full", "filler"), bytes(31 << 20))
        except OSError:
            pass
        result = finish(process)
        self.check_refusal(result, 1, "convert", "full/x.llmq", "No space left")
        self.assertEqual(os.listdir(self.path("full")), ["filler"])

    def test_dequantize_and_extract_on_a_full_disk(self):
        self.mount("64k")
        self.ok("convert", "--in", TINY, "--format", "int4", "--out", "x.llmq", "--quiet")
        self.refused(1, ["dequantize", "--in", "x.llmq", "--out", "full/y.safetensors"], "full/y.safetensors")
        self.refused(1, ["dequantize", "--in", "x.llmq", "--out", "full/d/"], "full")
        self.refused(1, ["extract", "x.llmq", "*.q_proj.weight", "--out", "full/e.safetensors"], "full/e.safetensors")
        self.refused(1, ["extract", "x.llmq", "*.q_proj.weight", "--raw", "--out", "full/r"], "full/r")
        self.assertEqual(os.listdir(self.path("full")), [])

    def test_file_size_limit(self):
        for limit in (1000, 100000, 500000):
            with self.subTest(limit):
                self.refused(1, ["convert", "--in", TINY, "--format", "int4", "--out", "x.llmq"], "x.llmq", "File too large",
                             preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))

    def test_few_file_descriptors(self):
        write_folder(self.path("m"), shards=9)
        self.refused(1, ["convert", "--in", "m", "--format", "int4", "--out", "x.llmq"], "Too many open files", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8)))

    def test_little_address_space(self):
        """Out of memory is a sentence too."""
        if LIGHT:
            self.skipTest("sanitizers need address space")
        for megabytes in (16, 20, 24, 32):
            result = self.llmq("convert", "--in", TINY, "--format", "int4", "--out", "x.llmq", "--threads", "4", "--force",
                               preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20)))
            if result.code == 127:
                continue  # not even the libraries could be loaded
            with self.subTest(megabytes):
                self.assertIn(result.code, (0, 1), str(result))
                if result.code:
                    self.check_refusal(result, 1, "convert", "memory")
        self.no_partial()


class Signals(CliTest):
    def test_stopped_by_a_signal(self):
        slow_model(self.path("m.safetensors"))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            for delay in (0.0, 0.15):
                with self.subTest(f"{number} {delay}"):
                    process = start("convert", "--in", "m.safetensors", *SLOW, "--out", "x.llmq", cwd=self.dir)
                    self.assertTrue(wait_for(lambda: os.path.exists(self.path("x.llmq.partial")), process))
                    time.sleep(delay)
                    process.send_signal(number)
                    begin = time.monotonic()
                    result = finish(process)
                    self.assertLess(time.monotonic() - begin, 10.0 if LIGHT else 3.0)
                    self.check_refusal(result, 128 + number, "convert", "stopped")
                    self.assertEqual(os.listdir(self.dir), ["m.safetensors"])

    def test_other_commands_stop_too(self):
        slow_model(self.path("m.safetensors"), n=150)
        for args in (["inspect", "m.safetensors", "--scan", "--threads", "1"], ["compare", "--in", "m.safetensors", "--against", "m.safetensors", "--threads", "1"]):
            with self.subTest(args[0]):
                process = start(*args, "--progress", "none", cwd=self.dir)
                time.sleep(0.1)
                process.send_signal(signal.SIGTERM)
                result = finish(process)
                self.check_refusal(result, 143, args[0], "stopped")

    def test_kill_leaves_no_output_and_the_next_run_works(self):
        slow_model(self.path("m.safetensors"), n=4)
        process = start("convert", "--in", "m.safetensors", *SLOW, "--out", "x.llmq", cwd=self.dir)
        self.assertTrue(wait_for(lambda: os.path.exists(self.path("x.llmq.partial")), process))
        process.kill()
        finish(process)
        self.assertFalse(os.path.exists(self.path("x.llmq")))
        self.ok("convert", "--in", "m.safetensors", "--format", "mxfp4:rule=floor", "--out", "x.llmq", "--quiet")
        self.ok("verify", "x.llmq", "--quiet")
        self.no_partial()

    def test_existing_output_survives_a_stopped_run(self):
        slow_model(self.path("m.safetensors"))
        write_bytes(self.path("x.llmq"), b"precious")
        process = start("convert", "--in", "m.safetensors", *SLOW, "--out", "x.llmq", "--force", cwd=self.dir)
        self.assertTrue(wait_for(lambda: os.path.exists(self.path("x.llmq.partial")), process))
        process.send_signal(signal.SIGTERM)
        self.assertEqual(finish(process).code, 143)
        self.assertEqual(read_bytes(self.path("x.llmq")), b"precious")
        self.no_partial()


class TwoRuns(CliTest):
    def test_second_run_is_told_that_the_output_is_in_use(self):
        slow_model(self.path("m.safetensors"), n=12)
        first = start("convert", "--in", "m.safetensors", *SLOW, "--out", "x.llmq", cwd=self.dir)
        self.assertTrue(wait_for(lambda: os.path.exists(self.path("x.llmq.partial")), first))
        for force in ([], ["--force"]):
            result = self.llmq("convert", "--in", "m.safetensors", "--format", "int4", "--out", "x.llmq", *force)
            self.check_refusal(result, 1, "convert", "x.llmq", "in use")
        self.assertEqual(finish(first).code, 0)
        self.ok("verify", "x.llmq", "--quiet")
        self.no_partial()

    def test_races_have_one_winner(self):
        self.small("m.safetensors")
        for _ in range(15):
            runs = [start("convert", "--in", "m.safetensors", "--format", "int4", "--out", "x.llmq", "--quiet", cwd=self.dir) for _ in range(4)]
            results = [finish(r) for r in runs]
            self.assertEqual(sorted(r.code for r in results), [0, 1, 1, 1], "\n".join(map(str, results)))
            for r in results:
                if r.code:
                    self.assertTrue("in use" in r.err or "exists" in r.err, str(r))
            self.ok("verify", "x.llmq", "--quiet")
            self.no_partial()
            os.remove(self.path("x.llmq"))


class Streams(CliTest):
    """A report that could not be delivered is a failure."""

    def setUp(self):
        super().setUp()
        self.small("m.safetensors")
        self.ok("convert", "--in", "m.safetensors", "--format", "int4", "--out", "x.llmq", "--quiet")

    COMMANDS = (["plan", "--in", "m.safetensors", "--format", "int4"], ["inspect", "x.llmq", "--tensors"], ["verify", "x.llmq"], ["formats"], ["formats", "--json"], ["--help"], ["--version"],
                ["convert", "--help"], ["compare", "--in", "m.safetensors", "--against", "x.llmq"], ["convert", "--in", "m.safetensors", "--format", "int4", "--out", "y.llmq", "--force"])

    def check_undelivered(self, result, reason):
        self.assertEqual(result.code, 1, str(result))
        lines = [l for l in result.err.splitlines() if l.startswith("llmq")]
        self.assertEqual(len(lines), 1, str(result))
        self.assertIn("cannot write to standard output", lines[0])
        self.assertIn(reason, lines[0])

    def test_full_stdout(self):
        for args in self.COMMANDS:
            with self.subTest(" ".join(args)), open("/dev/full", "wb") as full:
                self.check_undelivered(self.llmq(*args, stdout=full), "No space left")

    def test_closed_stdout(self):
        for args in self.COMMANDS:
            with self.subTest(" ".join(args)):
                self.check_undelivered(self.llmq(*args, stdout=None, preexec_fn=lambda: os.close(1)), "Bad file descriptor")

    def test_reader_that_went_away(self):
        for args in self.COMMANDS:
            with self.subTest(" ".join(args)):
                r, w = os.pipe()
                os.close(r)
                self.check_undelivered(self.llmq(*args, stdout=w), "Broken pipe")
                os.close(w)

    def test_head(self):
        """A reader that takes one line and leaves: no signal, no hang, no crash."""
        script = '"$0" inspect "$1" --tensors; echo "code $?" >&2'
        done = subprocess.run(["sh", "-c", f"({script}) | head -1", PROGRAM, TINY], capture_output=True, text=True, env=environment(), timeout=60)
        self.assertEqual(done.stdout.count("\n"), 1)
        self.assertRegex(done.stderr, r"code [01]\n")

    def test_streams_closed_from_the_start_never_reach_a_model_file(self):
        for closed in ((0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)):
            with self.subTest(closed):
                result = self.llmq("convert", "--in", "m.safetensors", "--format", "int4", "--out", "z.llmq", "--force", "--progress", "jsonl", stdout=None if 1 in closed else subprocess.PIPE,
                                   stderr=None if 2 in closed else subprocess.PIPE, preexec_fn=lambda: [os.close(fd) for fd in closed])
                self.assertEqual(result.code, 1 if 1 in closed else 0, str(result))
                self.assertEqual(read_bytes(self.path("z.llmq")), read_bytes(self.path("x.llmq")))

    def test_stdin_is_never_read(self):
        r, w = os.pipe()
        result = self.llmq("plan", "--in", "m.safetensors", "--format", "int4", stdin=r, timeout=20)
        self.assertEqual(result.code, 0)
        os.close(r)
        os.close(w)


if __name__ == "__main__":
    unittest.main()
