"""How smoothly the figures follow: time between frames, and time spent drawing one, while something is dragged.

    python -m tests.pages.frames            every figure, in headless Chromium on this machine

Not a test: times differ from machine to machine. A screen of 60 frames a second leaves 16.7 ms for one.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, sync_playwright

from attnlib import data, widgets
from tests.pages.browser import FLAGS, find_chromium
from tests.pages.figures import FIGURES, alive

MOVES = 240
# Frames come at most 60 times a second; what the page itself takes for one shows in how long its callbacks run.
RECORD = """() => {
  window.frames_ = []; window.busy_ = [];
  const ask = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (draw) => ask((now) => { const began = performance.now(); draw(now); window.busy_.push(performance.now() - began); });
  let last = performance.now();
  const tick = (now) => { window.frames_.push(now - last); last = now; ask(tick); };
  ask(tick);
}"""


def by_circle(selector: str) -> Callable[[Page], None]:
    """Drag an element round a circle."""
    def drag(tab: Page) -> None:
        box = tab.locator(selector).first.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        tab.mouse.move(x, y)
        tab.mouse.down()
        for i in range(MOVES):
            angle = 2 * np.pi * i / 60
            tab.mouse.move(x - 40 + 40 * np.cos(angle), y - 40 * np.sin(angle))
        tab.mouse.up()
    return drag


def by_slider(number: int = 0) -> Callable[[Page], None]:
    """Pull a slider to and fro."""
    def drag(tab: Page) -> None:
        box = tab.locator("figure.lf-alive .lf-controls input[type=range]").nth(number).bounding_box()
        y = box["y"] + box["height"] / 2
        tab.mouse.move(box["x"] + 4, y)
        tab.mouse.down()
        for i in range(MOVES):
            tab.mouse.move(box["x"] + box["width"] * (0.5 + 0.48 * np.sin(i / 9)), y)
        tab.mouse.up()
    return drag


def by_hovering(selector: str) -> Callable[[Page], None]:
    """Run the pointer over a row of elements."""
    def drag(tab: Page) -> None:
        first, last = (getattr(tab.locator(selector), end).bounding_box() for end in ("first", "last"))
        for i in range(MOVES):
            share = 0.5 + 0.49 * np.sin(i / 7)
            tab.mouse.move(first["x"] + 8, first["y"] + share * (last["y"] + last["height"] - first["y"]))
    return drag


DRAGS: dict[str, Callable[[Page], None]] = {
    "attention_explorer": by_hovering(".al-queries button"),
    "score_geometry": by_circle(".lf-query circle:not(.lf-reach)"),
    "softmax_explorer": by_slider(1),
}


def all_heads(rng: np.random.Generator) -> widgets.AttentionExplorer:
    """The explorer as in the book: 72 heads on 15 tokens."""
    found = data.real_attention()
    return widgets.AttentionExplorer({"tired": found.tokens}, {"tired": found.weights}, {"tired": found.norms}, head=(3, 1), other=(3, 5))


def whole_sentence(rng: np.random.Generator) -> widgets.FlashStepper:
    """The stepper with as many queries and keys as the sentence has, in small tiles: a long walk."""
    tokens = data.real_attention().tokens
    return widgets.FlashStepper(rng.normal(size=(15, 15)), rng.normal(size=(15, 32)), tokens, dim_head=32, tile_q=4, tile_k=2)


def longest_text(rng: np.random.Generator) -> widgets.PatternExplorer:
    """256 tokens, eight layers, most parts at once: what takes longest to draw."""
    return widgets.PatternExplorer("Longformer (2004.05150)", seq=256, block=1, depth=8, parts={"blocks": True, "dilated": True})


LARGE = {"attention_explorer": all_heads, "flash_stepper": whole_sentence, "pattern_explorer": longest_text}  # where a random state may be smaller than what the book shows


def main() -> int:
    """Print one line for each figure."""
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(FLAGS))
        for name, make in (FIGURES | LARGE).items():
            with alive(browser, make(np.random.default_rng(1)), Path(folder) / name) as tab:
                tab.evaluate(RECORD)
                DRAGS.get(name, by_slider())(tab)
                frames, busy = tab.evaluate("[window.frames_, window.busy_]")
            print(f"{name:20} {len(frames):4} frames, median {statistics.median(frames):5.1f} ms apart, "
                  f"drawing takes {statistics.median(busy):4.1f} ms, at most {max(busy):5.1f} ms", flush=True)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
