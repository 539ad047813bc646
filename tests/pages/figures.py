"""The interactive figures, each on a page of its own: made with random states, opened, compared with `attnlib`.

A new figure is one entry of `FIGURES`: a function that makes it, in a random state, from a seeded generator.
"""

from __future__ import annotations

import contextlib
import html
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from attnlib import widgets
from attnlib.widgets._figure import Figure
from tests.pages.browser import Findings, opened, serve

ROOT = Path(__file__).resolve().parents[2]
MODULES = ROOT / "attnlib" / "widgets"
PAGE = """<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<link rel="stylesheet" href="book.css"><link rel="stylesheet" href="figure.css">
<style>body {{ margin: 1rem auto; max-width: 50rem; background: var(--pst-color-background); color: var(--pst-color-text-base) }}</style></head>
<body><main><h1>{title}</h1>{body}</main><script>
const dark = matchMedia("(prefers-color-scheme: dark)"), theme = () => {{ document.documentElement.dataset.theme = dark.matches ? "dark" : "light" }};
dark.addEventListener("change", theme); theme();
</script><script type="module" src="load.mjs"></script></body></html>"""


def score_geometry(rng: np.random.Generator) -> widgets.ScoreGeometry:
    """Two to eleven keys anywhere, scores up to some hundreds."""
    n = int(rng.integers(2, 12))
    reach = float(rng.choice([0.1, 1, 10]))
    return widgets.ScoreGeometry(
        reach * rng.normal(size=2), reach * rng.normal(size=(n, 2)), rng.normal(size=(n, 2)), [f"w{i}" for i in range(n)],
        word="w0", dim_head=int(rng.integers(1, 129)), scaled=bool(rng.integers(2)), caption="A caption.")


def softmax_explorer(rng: np.random.Generator) -> widgets.SoftmaxExplorer:
    """Any width and temperature; scores near each other, spread, or so far apart that powers become 0."""
    n = int(rng.integers(2, 25))
    return widgets.SoftmaxExplorer(
        float(rng.choice([0.01, 1, 30])) * rng.normal(size=n), [f"w{i}" for i in range(n)], width=int(2 ** rng.integers(0, 11)),
        scaled=bool(rng.integers(2)), temperature=float(2 ** (rng.integers(-12, 13) / 4)), picked=int(rng.integers(n)), caption="A caption.")


def attention_explorer(rng: np.random.Generator) -> widgets.AttentionExplorer:
    """One or two sentences, few heads, rows from even to hard, lengths with zeros among them."""
    layers, heads, n = (int(rng.integers(1, end)) for end in (4, 5, 8))
    names = ["first", "second"][: int(rng.integers(1, 3))]
    scores = {name: float(rng.choice([0.1, 3, 50])) * rng.normal(size=(layers, heads, n, n)) for name in names}
    powers = {name: np.exp(each - each.max(-1, keepdims=True)) for name, each in scores.items()}
    pick = [int(rng.integers(layers)), int(rng.integers(heads))]
    return widgets.AttentionExplorer(
        {name: [f"w{i % 5}" for i in range(n)] for name in names}, {name: each / each.sum(-1, keepdims=True) for name, each in powers.items()},
        {name: rng.choice([0.0, 0.5, 20.0], size=(layers, heads, n)) for name in names}, query=int(rng.integers(n)),
        key=int(rng.integers(n)), head=pick, other=[int(rng.integers(layers)), int(rng.integers(heads))], sentence=str(rng.choice(names)),
        measure=str(rng.choice(["weights", "norms"])), overview=str(rng.choice(["maps", "pair"])), caption="A caption.")


def flash_stepper(rng: np.random.Generator) -> widgets.FlashStepper:
    """Any tiles, dividing the lengths or not; more queries than keys, rows that see nothing; scores from level to so steep
    that powers become 0; any step of the walk."""
    seq_q, seq_k = (int(rng.integers(1, 17)) for _ in range(2))
    words = [f"w{i}" for i in range(max(seq_q, seq_k))]
    figure = widgets.FlashStepper(
        float(rng.choice([0.01, 1, 30, 1e4])) * rng.normal(size=(seq_q, seq_k)), rng.normal(size=(seq_k, int(rng.integers(1, 33)))),
        words[:seq_k], queries=words[:seq_q], dim_head=int(rng.integers(1, 129)), tile_q=int(rng.integers(1, seq_q + 1)),
        tile_k=int(rng.integers(1, seq_k + 1)), causal=bool(rng.integers(2)), reverse=bool(rng.integers(2)),
        query=int(rng.integers(seq_q)), fast=int(2 ** rng.integers(9, 16)), caption="A caption.")
    if rng.integers(4):
        figure.step = int(rng.integers(len(figure.computed()["walk"])))
    return figure


def cost_calculator(rng: np.random.Generator) -> widgets.CostCalculator:
    """A published shape, or one of sizes from 1 to those of the largest models; counts up to 10^27."""
    from attnlib.widgets.cost_calculator import PRESETS

    shape = {}
    if rng.integers(2):
        kv_heads = int(rng.integers(1, 20))
        shape = {"layers": int(rng.integers(1, 200)), "dim": int(rng.integers(1, 20_000)), "kv_heads": kv_heads, "heads": kv_heads * int(rng.integers(1, 9)),
                 "dim_head": int(rng.integers(1, 300)), "hidden": int(rng.integers(1, 60_000)), "vocab": int(rng.integers(1, 300_000)),
                 "positions": int(rng.integers(0, 5000)), **{name: bool(rng.integers(2)) for name in ("gated", "centred", "bias", "tied")}}
    return widgets.CostCalculator(str(rng.choice(list(PRESETS))), context=int(rng.integers(1, 2**21)), batch=int(rng.integers(1, 1000)),
                                  bytes_per_number=int(rng.choice([1, 2, 4])), causal=bool(rng.integers(2)), shape=shape, caption="A caption.")


def pattern_explorer(rng: np.random.Generator) -> widgets.PatternExplorer:
    """Any parts together, all switched off among them; blocks that divide the length or not; steps that double."""
    from attnlib.widgets.pattern_explorer import BLOCKS, FLAGS, LIMITS, PATTERNS

    parts = {}
    if rng.integers(4):
        parts = {name: bool(rng.integers(2)) for name in FLAGS} | {
            name: int(rng.integers(least, most + 1)) for name, (least, most) in LIMITS.items()}
    seq = 4 * int(rng.integers(2, 65))
    return widgets.PatternExplorer(
        str(rng.choice(list(PATTERNS))), seq=seq, block=int(rng.choice(BLOCKS)), depth=int(rng.integers(1, 9)),
        query=int(rng.integers(seq)), parts=parts, caption="A caption.")


FIGURES: dict[str, Callable[[np.random.Generator], Figure]] = {
    "attention_explorer": attention_explorer,
    "cost_calculator": cost_calculator,
    "flash_stepper": flash_stepper,
    "pattern_explorer": pattern_explorer,
    "score_geometry": score_geometry,
    "softmax_explorer": softmax_explorer,
}


@contextlib.contextmanager
def page_of(figure: Figure, folder: Path) -> Iterator[str]:
    """Serve one figure on a page as the book's pages are: its static form, the loader, the modules, the style."""
    folder.mkdir(exist_ok=True)
    for path in [*MODULES.glob("*.mjs"), MODULES / "figure.css", ROOT / "_static" / "book.css",
                 ROOT / "_static" / "live-figures" / "load.mjs"]:
        shutil.copy(path, folder)
    (folder / "index.html").write_text(PAGE.format(title=html.escape(figure.title), body=figure.static()), encoding="utf-8")
    with serve(folder) as base:
        yield base


@contextlib.contextmanager
def alive(chromium, figure: Figure, folder: Path, width: int = 1280, mode: str = "light", findings: Findings | None = None):
    """Open a figure's page and wait until the figure has drawn itself."""
    with page_of(figure, folder) as base, opened(chromium, base, "index", width, mode, findings) as tab:
        tab.wait_for_selector("figure.lf-alive", timeout=10_000)
        yield tab


def state_on_page(tab) -> dict:
    """The state that the figure on the page is in now."""
    return tab.evaluate("""() => {
      const { model } = document.querySelector("figure.lf-alive");
      return JSON.parse(JSON.stringify(model.state));
    }""")


def computed_on_page(tab, module: str, states: list[dict]) -> list[dict]:
    """What the module's own arithmetic makes of each state."""
    return tab.evaluate("""async ([module, states]) => {
      const { computed } = await import(`./${module}.mjs`);
      return states.map((state) => computed(state));
    }""", [module, states])


def furthest(ours: object, theirs: object, where: str = "") -> tuple[float, str]:
    """The largest difference between two nested results, relative to the larger number (or absolute below 1), and
    where it is; infinite if their shapes, keys or texts differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        return max((furthest(ours[key], theirs[key], f"{where}.{key}") for key in ours), default=(0.0, where))
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple) and len(ours) == len(theirs):
        return max((furthest(a, b, f"{where}[{i}]") for i, (a, b) in enumerate(zip(ours, theirs, strict=True))),
                   default=(0.0, where))
    number = (int, float)
    if isinstance(ours, number) and isinstance(theirs, number) and not isinstance(ours, bool) and not isinstance(theirs, bool):
        if math.isnan(ours) or math.isnan(theirs):
            return (math.inf, where)
        return (0.0 if ours == theirs else abs(ours - theirs) / max(1.0, abs(ours), abs(theirs)), where)
    return (0.0, where) if ours == theirs else (math.inf, f"{where}: {ours!r} against {theirs!r}")
