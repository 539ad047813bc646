"""Draw `_static/card.png`, the picture that others show beside a link to the book: the title, and one real head's attention.

    python -m tools.card
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
SIZE = (1200, 630)  # what those who show cards ask for
FINER = 2           # drawn twice as large, then reduced: smooth edges
INK, MUTED, BLUE, AMBER, GROUND = "#22262b", "#565d66", "#1b5e8c", "#8f4e00", "#fdfdfb"
TITLE = ("Self-Attention,", "Step by Step")
SUBTITLE = ("Built from nothing, one short cell", "at a time, up to the heads of a", "real model and the GPU’s kernels.")
LEFT, RIGHT, TOP, ROW = 790, 1010, 52, 37.5  # where the two columns of words stand


def mixed(colour: str, share: float) -> tuple[int, ...]:
    """A colour laid over the ground: 0 is the ground, 1 the colour."""
    over, under = (np.array([int(text[i:i + 2], 16) for i in (1, 3, 5)]) for text in (colour, GROUND))
    return tuple(int(value) for value in np.round(under + share * (over - under)))


def draw(tokens: list[str], weights: np.ndarray) -> Image.Image:
    """The card, from the words of the sentence and the weights (seq_q, seq_k) of a head."""
    picture = Image.new("RGB", (SIZE[0] * FINER, SIZE[1] * FINER), GROUND)
    pen = ImageDraw.Draw(picture)

    def text(x: float, y: float, words: str, size: float, colour: object, anchor: str = "lm") -> None:
        pen.text((x * FINER, y * FINER), words, colour, ImageFont.load_default(size * FINER), anchor)

    chosen = tokens.index("it")
    lines = [(weights[i, j], i, j) for i in range(len(tokens)) for j in range(len(tokens)) if weights[i, j] > 0.04]
    for weight, i, j in sorted(lines, key=lambda line: (line[1] == chosen, line[0])):  # faint ones first, the chosen word last
        colour = mixed(AMBER, 1.0) if i == chosen else mixed(BLUE, min(0.55 * float(weight) + 0.06, 0.5))
        start, end = ((x * FINER, (TOP + row * ROW) * FINER) for x, row in ((LEFT, i), (RIGHT, j)))
        pen.line([start, end], colour, max(1, round(float(weight) * 11 * FINER)))
    for row, word in enumerate(tokens):
        y, mine = TOP + row * ROW, row == chosen
        text(LEFT - 14, y, word, 23, AMBER if mine else MUTED, "rm")
        share = float(weights[chosen, row])
        text(RIGHT + 14, y, word, 23, AMBER if share > 0.1 else MUTED)
    for number, line in enumerate(TITLE):
        text(72, 168 + number * 84, line, 74, INK)
    pen.rectangle([72 * FINER, 318 * FINER, 168 * FINER, 324 * FINER], fill=AMBER)
    for number, line in enumerate(SUBTITLE):
        text(72, 384 + number * 42, line, 29, MUTED)
    return picture.resize(SIZE, Image.Resampling.LANCZOS).quantize(128, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


def main() -> None:
    """Write the file."""
    data = ROOT / "attnlib" / "data"
    tokens = json.loads((data / "minilm.json").read_text(encoding="utf8"))["tokens"]
    with np.load(data / "minilm_heads.npz") as arrays:
        weights = arrays["pronoun/weights"]
    draw(tokens, weights).save(ROOT / "_static" / "card.png", optimize=True)


if __name__ == "__main__":
    main()
