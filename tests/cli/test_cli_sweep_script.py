"""scripts/sweep.sh: the pattern people copy into their jobs, on the bundled model."""
from cli_support import *

SCRIPT = os.path.join(ROOT, "scripts", "sweep.sh")


class ScriptTest(CliTest):
    def script(self, *args, **env):
        return subprocess.run(["sh", SCRIPT, *args], cwd=self.dir, env=environment(LLMQ=PROGRAM, **env), capture_output=True, text=True, timeout=600)

    def test_best_and_budget(self):
        done = self.script(TINY, "out", "5.3", FORMATS="int4,mxfp4,int4:group=64,scale=f16,nvfp4", GROUP_SIZES="32,channel")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("best under 5.3 bits per weight: --format ", done.stdout)
        self.assertRegex(done.stdout, r"hash [0-9a-f]{32}: out/best.llmq")
        self.assertRegex(done.stdout, r"target +\d+ bytes, 5.3000 bits per weight of the file")
        weights = 1468672
        for name in ("best", "budget"):
            self.assertLessEqual(8 * os.path.getsize(self.path("out", name + ".llmq")) / weights, 5.3)
        for name in ("sweep.csv", "sweep.json", "sweep.html", "budget.yaml"):
            self.assertTrue(os.path.exists(self.path("out", name)))
        again = self.script(TINY, "out", "5.3", FORMATS="int4,mxfp4", GROUP_SIZES="32")
        self.assertEqual(again.returncode, 0, again.stderr)

    def test_what_cannot_be(self):
        done = self.script(TINY, "out", "1", FORMATS="int4", GROUP_SIZES="32")
        self.assertEqual(done.returncode, 1)
        self.assertIn("nothing is under 1 bits per weight", done.stderr)
        self.assertEqual(self.script(self.path("nope"), "out", FORMATS="int4").returncode, 1)
        self.assertEqual(self.script(TINY, "out", FORMATS="intx").returncode, 2)


if __name__ == "__main__":
    unittest.main()
