"""Cells that run on a page: press their buttons, wait for them, and compare what they show with the notebook."""

import contextlib
import json
import os
import re
from dataclasses import dataclass

import pytest

from tests.pages.book import ROOT
from tests.pages.browser import Findings
from tools import pyodide

NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?(?![\w])|(?<![\w.])[-+]?(?:inf|nan)\b")
IDLE = "!document.querySelector('.live-bar[data-state=running], .live-bar[data-state=waiting]')"
SLOWEST = 60_000  # ms; far more than any cell that the tests run needs


def need_pyodide() -> None:
    """Skip where Pyodide cannot be had; fail instead where REQUIRE_PYODIDE=1."""
    if lacking := pyodide.missing():
        (pytest.fail if os.environ.get("REQUIRE_PYODIDE") == "1" else pytest.skip)(
            f"Pyodide is not in _vendor ({len(lacking)} files are missing): python -m tools.pyodide fetches it")


def different(stored: str, shown: str) -> str:
    """What is different between the notebook's text and the page's, or nothing.

    The words have to be the same, spaces aside. A number may differ by one unit of the last place that the
    notebook prints: another machine's `exp` and matrix product differ in the last bit, and a rounding then tips over.
    """
    words = [" ".join(NUMBER.sub("#", text).split()).replace("[ ", "[") for text in (stored, shown)]
    if words[0] != words[1]:
        return f"other words:\n{words[0]}\n{words[1]}"
    for was, now in zip(NUMBER.findall(stored), NUMBER.findall(shown), strict=True):
        mantissa, _, exponent = was.lower().partition("e")
        unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
        if was == now:
            continue
        if mantissa.lstrip("+-") in ("inf", "nan") or ("." not in was and not exponent):
            if was.lstrip("+") != now.lstrip("+"):
                return f"{now}, the notebook has {was}"
        elif not abs(float(was) - float(now)) <= 1.0001 * unit:
            return f"{now}, the notebook has {was}"
    return ""


@dataclass
class Stored:
    """A code cell of a notebook."""

    number: int
    source: str
    tags: set[str]
    text: str
    pictures: int
    markup: int
    alt: str


def stored_cells(page: str) -> list[Stored]:
    """The code cells of a page's notebook, in order."""
    nb = json.loads((ROOT / f"{page}.ipynb").read_text(encoding="utf8"))
    found = []
    for number, cell in enumerate((c for c in nb["cells"] if c["cell_type"] == "code"), start=1):
        text, pictures, markup = "", 0, 0
        for out in cell["outputs"]:
            data = out.get("data", {})
            pictures += "image/png" in data
            markup += "text/html" in data
            if out["output_type"] == "stream":
                text += "".join(out["text"])
            elif not {"image/png", "text/html"} & set(data):
                text += "".join(data["text/plain"]) + "\n"
        meta = cell["metadata"]
        found.append(Stored(number, "".join(cell["source"]), set(meta.get("tags", ())), text, pictures, markup,
                            meta.get("mystnb", {}).get("image", {}).get("alt", "")))
    return found


class LivePage:
    """A page with live cells in a tab."""

    def __init__(self, tab, findings: Findings) -> None:
        self.tab, self.findings = tab, findings
        self.kinds = json.loads(tab.locator("#live-cells").text_content())["cells"]

    def cell(self, number: int):
        return self.tab.locator("article div.cell").nth(number - 1)

    def press(self, number: int, word: str = "Run") -> None:
        """Press a button of a cell, folded away or not."""
        self.cell(number).locator(f".live-button:has-text('{word}')").evaluate("button => button.click()")

    def wait(self, milliseconds: int = SLOWEST) -> None:
        """Until nothing runs."""
        self.tab.wait_for_function(IDLE, timeout=milliseconds)

    def run(self, number: int, word: str = "Run") -> str:
        """Press, wait, and return what the cell shows."""
        self.press(number, word)
        self.wait()
        return self.shown(number)

    def type(self, number: int, code: str) -> None:
        """Put code into a cell, as a reader does."""
        if not self.cell(number).locator("textarea").is_visible():
            self.press(number, "Edit")
        self.cell(number).locator("textarea").fill(code)

    def state(self, number: int) -> str:
        return self.cell(number).locator(".live-bar").get_attribute("data-state")

    def status(self, number: int) -> str:
        return self.cell(number).locator(".live-state").text_content()

    def shown(self, number: int) -> str:
        """The text that a cell shows."""
        return "".join(self.cell(number).locator(".live-output pre").all_text_contents())

    def said(self) -> str:
        """What a screen reader was told last."""
        return self.tab.locator("article > [role=status]").text_content()

    def first(self, *kinds: str) -> int:
        return next(i for i, cell in enumerate(self.kinds, start=1) if cell.get("kind") in kinds)

    def last(self, *kinds: str) -> int:
        return max(i for i, cell in enumerate(self.kinds, start=1) if cell.get("kind") in kinds)


@contextlib.contextmanager
def live(context, base: str, page: str):
    """Open a page in a context (whose cache later pages share) and wait for its buttons."""
    findings = Findings()
    tab = context.new_page()
    ours = (base, "data:", "blob:")
    tab.on("request", lambda asked: asked.url.startswith(ours) or findings.external.append(asked.url))
    tab.on("console", lambda said: said.type in ("error", "warning") and findings.console.append(said.text))
    tab.on("pageerror", lambda error: findings.console.append(str(error)))
    tab.on("response", lambda answer: answer.status >= 400 and findings.missing.append(answer.url))
    try:
        tab.goto(f"{base}{page}.html", wait_until="load")
        tab.wait_for_selector("html[data-cells=ready]", state="attached")
        yield LivePage(tab, findings)
    finally:
        tab.close()
