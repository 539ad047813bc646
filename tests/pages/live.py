"""Running a page's cells, and what has to be the same as in the notebook."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.pages.book import ROOT

NUMBER = re.compile(r"(?<![\w.])[-−+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?(?![\w])")
IDLE = "![...document.querySelectorAll('.live-button')].some((button) => button.disabled)"


def cells(tab) -> list:
    """The page's code cells, those that cannot run included."""
    return tab.locator("article div.cell:has(div.cell_input)").all()


def button(cell, name: str):
    return cell.locator(f".live-button[aria-label^='{name} ']")


def runnable(cell) -> bool:
    return cell.locator(".live-button").count() > 0


def unfold(tab) -> None:
    tab.evaluate("document.querySelectorAll('article details').forEach((box) => { box.open = true })")


def run(tab, cell, seconds: int = 120) -> str:
    """Click Run (or Check), wait until all is still, and return what the cell's status says."""
    cell.locator(".live-button").first.click()
    tab.wait_for_function(IDLE, timeout=1000 * seconds)
    return cell.locator(".live-status").inner_text()


def written(cell) -> str:
    """What a run has printed and shown, errors included."""
    return "\n".join(cell.locator(".live-output pre").all_inner_texts())


def stored(chapter: str) -> list[dict]:
    """Of each code cell of the notebook: its tags, its text, how many figures it has."""
    notebook = json.loads((ROOT / f"{chapter}.ipynb").read_text(encoding="utf8"))
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            texts, figures = [], 0
            for out in cell["outputs"]:
                data = out.get("data", {})
                figures += "image/png" in data
                texts.append("".join(out.get("text", [])) or ("" if "image/png" in data else "".join(data.get("text/plain", []))))
            found.append({"tags": cell["metadata"].get("tags", []), "text": "\n".join(filter(None, texts)), "figures": figures})
    return found


def unlike(ours: str, theirs: str) -> str | None:
    """Where two outputs differ, or None.

    The words must be the same, spaces aside. A number may be off by one in its last printed digit: the page computes
    exp, tanh and sums with other last bits, and what lies between two roundings may fall to either side.
    """
    words = [re.sub(r"\s+", "", NUMBER.sub("#", text)) for text in (ours, theirs)]
    if words[0] != words[1]:
        return f"{ours[:200]!r} against {theirs[:200]!r}"
    for a, b in zip(NUMBER.findall(ours), NUMBER.findall(theirs), strict=True):
        x, y = (float(each.replace(",", "").replace("−", "-")) for each in (a, b))
        digits, _, power = b.partition("e")
        last = 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))
        if abs(x - y) > last * (1 if "." in digits or power else 0) + 1e-9 * abs(y):
            return f"{a} against {b} in {ours[:200]!r}"
    return None


def need_python(site_html: Path) -> None:
    """Skip with a sentence where Pyodide could not be fetched; fail instead where REQUIRE_PYODIDE=1."""
    import os

    if not (site_html / "_static" / "live" / "pyodide" / "pyodide.asm.wasm").exists():
        sentence = "Pyodide is not in the site: `python -m tools.pyodide` fetches it"
        (pytest.fail if os.environ.get("REQUIRE_PYODIDE") == "1" else pytest.skip)(sentence)
