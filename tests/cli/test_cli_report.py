"""--report of convert and of sweep: one page, the hashes of the file and of the sweep, refusals before the work, hostile names."""
import csv
import html
import os
import re
import unittest

from cli_support import TINY, random_weights, read_bytes, write_bytes, write_model
from gguf_support import GgufTest

HOSTILE = "</script><img src=x onerror=alert(1)>\u202e&\"'.weight"


def rows_of(page):
    """name -> hash of the table of all tensors of each variant, in order."""
    tables = re.findall(r"<summary>All tensors</summary>(.*?)</table>", page, re.S)
    return [{html.unescape(re.sub(r"<[^>]*>", "", name)): digest for name, digest in
             re.findall(r'<tr><th scope="row" class="tensor">(.*?)</th>.*?<td class="hash">([0-9a-f]{32}|–)</td></tr>', table, re.S)} for table in tables]


class Report(GgufTest):
    def page(self, *names):
        return read_bytes(self.path(*names)).decode("utf-8")

    def convert(self, *args, report="r.html", out="o.llmq", model=TINY):
        self.ok("convert", "--in", model, "--out", self.path(out), "--report", self.path(report), "--quiet", *args)
        return self.page(report)

    def sweep(self, *args):
        self.ok("sweep", "--in", TINY, "--report", self.path("s.html"), "--csv", self.path("s.csv"), "--quiet", *args)
        with open(self.path("s.csv"), newline="", encoding="utf-8") as f:
            return self.page("s.html"), list(csv.DictReader(f))

    def test_a_sweep_has_the_rows_of_its_csv(self):
        page, rows = self.sweep("--formats", "int4,mxfp4,q4_k", "--group-sizes", "32,64")
        tables = rows_of(page)
        done = list(dict.fromkeys((r["format"], r["group_size"]) for r in rows if not r["skipped"]))
        self.assertEqual(len(tables), len(done))
        for variant, table in zip(done, tables):
            wanted = {r["name"]: r["hash"] for r in rows if (r["format"], r["group_size"]) == variant and r["scope"] == "tensor"}
            self.assertEqual(table, wanted)
        for reason in {r["skipped"] for r in rows if r["skipped"]}:
            self.assertIn(html.escape(reason), page)

    def test_a_conversion_has_the_hashes_of_a_sweep(self):
        for arguments in (["int4", "32"], ["uint4", "64"], ["mxfp4", "32"], ["nvfp4", "16"], ["nf4", "64"], ["int4", "channel"], ["bfp16", "16"]):
            with self.subTest(arguments):
                for name in ("s.html", "s.csv", "o.llmq", "r.html"):
                    if os.path.exists(self.path(name)):
                        os.remove(self.path(name))
                page, _ = self.sweep("--formats", arguments[0], "--group-sizes", arguments[1])
                own = self.convert("--format", arguments[0], "--group-size", arguments[1])
                self.assertEqual(rows_of(own), rows_of(page))
                self.assertEqual(len(rows_of(own)[0]), 29)
                whole = r"Hash over the hashes of all tensors: <code>([0-9a-f]{32})"
                self.assertEqual(re.findall(whole, own), re.findall(whole, page))
                counts = r'<section><h2>Codes and scales</h2>.*?</section>'
                mine, swept = (re.sub(r'id="p\d+[td]"|"p\d+[td]"', "", re.search(counts, p, re.S).group()) for p in (own, page))
                self.assertEqual(mine, swept)

    def test_the_same_page_for_any_number_of_threads(self):
        pages = [re.sub(r"-?[0-9]+ threads", "", self.convert("--format", "int4", "--threads", n, report=f"{n}.html", out=f"{n}.llmq")) for n in (1, 3)]
        self.assertEqual(*pages)

    def test_of_several_files_and_compressed(self):
        for arguments in (["--split-max-size", "400K"], ["--compress", "max"], ["--compress", "none"]):
            with self.subTest(arguments):
                name = arguments[1]
                page = self.convert("--format", "int4", *arguments, report=name + ".html", out=name + ".llmq")
                self.assertEqual(list(rows_of(page)[0].values()), list(rows_of(self.page("none.html" if name == "none" else name + ".html"))[0].values()))
                self.assertNotIn("–", rows_of(page)[0].values())

    def test_gguf(self):
        self.tiny("m.gguf")
        page = self.convert("--format", "q4_0", model=self.path("m.gguf"), out="n.gguf")
        self.assertIn("q4_0", page)
        self.assertEqual(len(rows_of(page)[0]), 29)
        self.assertNotIn("–", rows_of(page)[0].values())

    def test_hostile_names(self):
        model = self.path("h.safetensors")
        write_model(model, {HOSTILE: ("BF16", (4, 64), random_weights(1, 4, 64))})
        page = self.convert("--format", "int4", "--rule", "*.weight=int4", "--group-size", "32", model=model)
        self.assertEqual(page.count("<script"), 1)
        self.assertNotIn("<img", page)
        self.assertNotIn("\u202e", page)
        self.assertIn(html.escape(HOSTILE, quote=False).replace("\u202e", "\\u{202e}").replace('"', "&quot;").replace("'", "&#39;"), page)

    def test_refused_before_the_work(self):
        write_bytes(self.path("there.html"), b"mine")
        base = ["convert", "--in", TINY, "--format", "int4", "--out", self.path("o.llmq"), "--report"]
        self.refused(1, base + [self.path("there.html")], "exists")
        self.refused(2, base + [self.path("o.llmq")], "the output itself")
        self.refused(1, base + [self.path("no", "r.html")], "No such file")
        model = self.small()
        kept = read_bytes(model)
        self.refused(2, ["convert", "--in", model, "--format", "int4", "--out", self.path("o.llmq"), "--force", "--report", model], "same file as input")
        self.assertEqual(read_bytes(model), kept)
        self.refused(2, ["sweep", "--in", TINY, "--formats", "int4", "--report", "-"], "--report needs a file")
        self.ok(*base, self.path("there.html"), "--force", "--quiet")
        self.assertIn("<!DOCTYPE html>", self.page("there.html"))
        self.no_partial()


if __name__ == "__main__":
    unittest.main()
