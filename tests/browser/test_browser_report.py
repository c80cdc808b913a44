#!/usr/bin/python3
"""The report in headless Chromium: opened from its file, light, dark and on a phone; sorted by mouse and keyboard; no word on the console.

What it is
  Pages of tests/browser/report_page (a made-up table with hostile names) and of the program itself, opened through WebDriver.

Why this way
  Only a browser says whether the policy lets the script run, whether a page is wider than a phone, and whether a click sorts. Orders are checked
  against what Python makes of the cells' texts.

Corner cases
  Without Chromium, its driver or python3-selenium the test is skipped (exit status 77) with the reason; with LLMQ_BROWSER=required it fails instead.
  LLMQ_SHOTS names a folder for the pictures.

Worked number
  The policy's hash is base64(SHA-256) of the text of the page's one script.
"""

import base64
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile

SKIPPED = 77
PHONE, SCREEN = (390, 844), (1200, 900)


def skip(reason):
    if os.environ.get("LLMQ_BROWSER") == "required":
        sys.exit(f"failed: {reason}")
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


try:
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
except ImportError:
    skip("python3-selenium is not installed")


def find(*names):
    path = next((shutil.which(n) for n in names if shutil.which(n)), None)
    return path or skip(f"none of {', '.join(names)} is installed")


def open_browser(folder, script=True):
    options = Options()
    options.binary_location = find("chromium", "chromium-browser", "google-chrome")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", f"--user-data-dir={folder}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if not script:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    try:
        return webdriver.Chrome(service=Service(find("chromedriver")), options=options)
    except WebDriverException as error:
        skip(f"Chromium does not start: {str(error).splitlines()[0]}")


class Page:
    def __init__(self, browser, path, size=SCREEN, scheme="light"):
        self.browser = browser
        command = browser.execute_cdp_cmd
        command("Emulation.setDeviceMetricsOverride", {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE})
        command("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        browser.get("file://" + path)

    def js(self, text, *arguments):
        return self.browser.execute_script("return " + text, *arguments)

    def shot(self, name):
        folder = os.environ.get("LLMQ_SHOTS")
        if folder:
            os.makedirs(folder, exist_ok=True)
            size = self.js("[innerWidth, Math.min(document.documentElement.scrollHeight, 4000)]")
            clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
            data = self.browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True, "clip": clip})["data"]
            with open(os.path.join(folder, name + ".png"), "wb") as f:
                f.write(base64.b64decode(data))


def check(condition, text):
    if not condition:
        sys.exit(f"failed: {text}")


def figure(text):
    text = text.strip().replace("\u202f", "")
    if text in ("", "–"):
        return None
    if text in ("∞", "-∞"):
        return math.inf if text == "∞" else -math.inf
    found = re.match(r"-?[0-9.]+(e[-+]?[0-9]+)?", text)
    return float(found.group()) if found else None


def column(page, table, index):
    return page.js("Array.from(arguments[0].tBodies[0].rows, r => r.cells[arguments[1]].getAttribute('data-v') || r.cells[arguments[1]].textContent)", table, index)


def is_sorted(values, numeric, descending):
    if numeric:
        numbers = [figure(v) for v in values]
        known = [n for n in numbers if n is not None]
        return numbers[len(known):] == [None] * (len(numbers) - len(known)) and known == sorted(known, reverse=descending)
    return len(values) < 2 or all((a >= b) if descending else (a <= b) for a, b in zip(values, values[1:])) or not all(v.isascii() and v.isalpha() for v in values)


def check_sorting(page, path, n_columns):
    """The first columns of the first table, up and down, by mouse and by keyboard; rows stay whole."""
    table = page.browser.find_elements(By.CSS_SELECTOR, "table.sorts")[0]
    rows = sorted(page.js("Array.from(arguments[0].tBodies[0].rows, r => r.textContent)", table))
    heads = table.find_elements(By.CSS_SELECTOR, "thead th")
    check(len(heads) > 5, f"{path}: the table of variants has {len(heads)} columns")
    for index, head in enumerate(heads[:n_columns]):
        button, numeric = head.find_element(By.TAG_NAME, "button"), "n" in head.get_attribute("class").split()
        for turn, wanted in enumerate(("ascending", "descending", "ascending")):
            if turn == 2:
                button.send_keys(Keys.ENTER)
            else:
                button.click()
            values = column(page, table, index)
            check(head.get_attribute("aria-sort") == wanted, f"{path}: column {index} is {head.get_attribute('aria-sort')}, not {wanted}")
            check(is_sorted(values, numeric, wanted == "descending"), f"{path}: column {index} '{button.text}' {wanted}: {values}")
        others = [h.get_attribute("aria-sort") for h in heads if h != head]
        check(set(others) <= {"none"}, f"{path}: two columns say that they are sorted by")
    check(rows == sorted(page.js("Array.from(arguments[0].tBodies[0].rows, r => r.textContent)", table)), f"{path}: sorting changed rows")
    check("sorted by" in page.js("document.getElementById('told').textContent"), f"{path}: sorting is not told")


def check_console(page, path):
    said = [entry for entry in page.browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    check(not said, f"{path}: the console says {said}")
    asked = [json.loads(e["message"])["message"] for e in page.browser.get_log("performance")]
    urls = {m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"}
    check(all(u.startswith(("file://", "data:", "chrome://")) for u in urls), f"{path}: asked for {urls}")


def check_access(page, path):
    """Every picture has a title and a description, every table a caption and heads, ids are unique, headings do not skip a level."""
    bad = page.js("""Array.from(document.querySelectorAll('svg[role=img]')).filter(s => {
        const t = document.getElementById(s.getAttribute('aria-labelledby')), d = document.getElementById(s.getAttribute('aria-describedby'));
        return !t || !d || !t.textContent || !d.textContent }).length""")
    check(bad == 0, f"{path}: {bad} pictures without texts")
    bad = page.js("Array.from(document.querySelectorAll('svg')).filter(s => s.getAttribute('role') !== 'img' && !s.closest('[aria-hidden=true]')).length")
    check(bad == 0, f"{path}: {bad} pictures that are neither described nor hidden")
    check(page.js("Array.from(document.querySelectorAll('table')).every(t => t.caption && t.tHead && t.querySelector('tbody tr') === null || t.querySelector('th[scope=row]'))"),
          f"{path}: a table without caption or heads")
    ids = page.js("Array.from(document.querySelectorAll('[id]'), e => e.id)")
    check(len(ids) == len(set(ids)), f"{path}: ids are not unique")
    levels = [int(t[1]) for t in page.js("Array.from(document.querySelectorAll('h1,h2,h3'), h => h.tagName)")]
    check(levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:])), f"{path}: headings go {levels}")
    check(page.js("document.documentElement.lang") == "en" and page.js("document.title"), f"{path}: no language or title")


def contrast(page, selector):
    """WCAG 2 ratio of an element's colour to the page's."""
    def light(colour):
        parts = [int(float(c)) / 255 for c in re.findall(r"[0-9.]+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    ink = page.js("getComputedStyle(document.querySelector(arguments[0])).color", selector)
    paper = page.js("getComputedStyle(document.body).backgroundColor")
    a, b = sorted((light(ink), light(paper)), reverse=True)
    return (a + 0.05) / (b + 0.05)


def check_policy(path):
    with open(path, encoding="utf-8") as f:
        text = f.read()
    script = re.search(r"<script>(.*)</script>", text, re.S).group(1)
    wanted = "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    check(f"script-src '{wanted}'" in text, f"{path}: script_hash of converter/report_html_style.c must be {wanted}")


def check_page(browser, path, name):
    check_policy(path)
    for scheme in ("light", "dark"):
        page = Page(browser, path, scheme=scheme)
        for selector in ("body", ".model", "a", "thead th", "p.soft"):
            if page.js("!!document.querySelector(arguments[0])", selector):
                ratio = contrast(page, selector)
                check(ratio >= 4.5, f"{path}: {selector} in {scheme} has contrast {ratio:.2f}")
        page.shot(f"{name}-{scheme}")
    check_access(page, path)
    check_sorting(page, path, 99 if name == "sweep" else 3)
    page.js("document.querySelectorAll('details').forEach(d => { d.open = true })")
    check(page.js("document.documentElement.scrollWidth <= innerWidth"), f"{path}: wider than a screen")
    check_console(page, path)
    page = Page(browser, path, PHONE)
    page.shot(f"{name}-phone")
    page.js("document.querySelectorAll('details').forEach(d => { d.open = true })")
    check(page.js("document.documentElement.scrollWidth") <= PHONE[0], f"{path}: {page.js('document.documentElement.scrollWidth')} pixels wide on a phone")
    small = page.js("""Array.from(document.querySelectorAll('svg text')).filter(t => t.getClientRects().length && t.closest('svg').clientWidth)
        .map(t => parseFloat(getComputedStyle(t).fontSize) * t.closest('svg').getBoundingClientRect().width / t.closest('svg').viewBox.baseVal.width)""")
    check(not small or min(small) >= 9.5, f"{path}: letters of {min(small or [0]):.1f} pixels on a phone")
    check_console(page, path)


def check_links(browser, path):
    """A link of the table opens the variant's part."""
    page = Page(browser, path)
    link = browser.find_element(By.CSS_SELECTOR, "table.sorts a")
    target = link.get_attribute("href").split("#")[1]
    check(not page.js("document.getElementById(arguments[0]).open", target), f"{path}: {target} is open already")
    link.click()
    check(page.js("document.getElementById(arguments[0]).open", target), f"{path}: {target} does not open")
    check_console(page, path)


def check_without_script(folder, path):
    browser = open_browser(os.path.join(folder, "no-script"), script=False)
    try:
        browser.get("file://" + path)
        check(not browser.find_elements(By.CSS_SELECTOR, "thead button"), "the script ran, though it was switched off")
        check(len(browser.find_elements(By.CSS_SELECTOR, "table.sorts tbody tr")) > 5, f"{path}: no rows without script")
        browser.find_elements(By.CSS_SELECTOR, "details.variant > summary")[0].click()
        check(browser.find_element(By.CSS_SELECTOR, "details.variant").get_attribute("open"), f"{path}: details do not open without script")
    finally:
        browser.quit()


def make_real(folder, pages):
    """The bundled model, swept and converted by the program itself."""
    program = os.environ.get("LLMQ_PROGRAM") or sys.exit("LLMQ_PROGRAM names no program")
    model = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data", "tiny-llama")
    pages["real-sweep"], pages["real-convert"] = (os.path.join(folder, n) for n in ("real-sweep.html", "real-convert.html"))
    subprocess.run([program, "sweep", "--in", model, "--formats", "int4,int3,mxfp4,nvfp4,nf4,q4_k", "--group-sizes", "16,32,64,128", "--quiet",
                    "--report", pages["real-sweep"]], check=True)
    subprocess.run([program, "convert", "--in", model, "--format", "int4", "--group-size", "32", "--rule", "role:down=int8", "--quiet",
                    "--out", os.path.join(folder, "real.llmq"), "--report", pages["real-convert"]], check=True)


def main():
    maker = os.environ.get("LLMQ_REPORT_PAGE") or sys.exit("LLMQ_REPORT_PAGE names no program")
    with tempfile.TemporaryDirectory() as folder:
        pages = {}
        for name, arguments in (("sweep", ["perplexity", "weighted"]), ("hostile", ["hostile"]), ("one", ["one"])):
            pages[name] = os.path.join(folder, name + ".html")
            subprocess.run([maker, pages[name], *arguments], check=True)
        make_real(folder, pages)
        browser = open_browser(os.path.join(folder, "profile"))
        try:
            for name, path in pages.items():
                check_page(browser, path, name)
            check_links(browser, pages["sweep"])
        finally:
            browser.quit()
        check_without_script(folder, pages["sweep"])
    print(f"{len(pages)} pages, as they should be")


if __name__ == "__main__":
    main()
