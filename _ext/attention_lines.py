"""The picture on the landing page: where one word of a real sentence looks, drawn at build time.

``{attention-lines}`` reads the weights of one head of the running example (``attnlib/data``) and writes
two panels of plain HTML and SVG, one for each ending of the sentence. The state in the page is complete
without a script; with one, every word on the left can be chosen.
"""

import html
import json
from pathlib import Path
from typing import ClassVar

import numpy as np
from docutils import nodes
from docutils.parsers.rst import Directive, directives
from sphinx.application import Sphinx

DATA = Path(__file__).parent.parent / "attnlib" / "data"
WORTH_A_NUMBER = 0.045  # weights that round to less than 0.05 are drawn, not written


def panel(name: str, tokens: list[str], weights: np.ndarray, query: int) -> str:
    """One sentence: its words as queries (buttons), lines as wide as the weights, its words as keys."""
    words = [html.escape(token) for token in tokens]
    row = weights[query]
    buttons = "".join(
        f'<button type="button" aria-pressed="{str(i == query).lower()}" data-row="{i}">{word}</button>'
        for i, word in enumerate(words)
    )
    lines = "".join(
        f'<line x1="0" y1="{query + 0.5}" x2="100" y2="{j + 0.5}" style="--w:{w:.3f}"/>' for j, w in enumerate(row)
    )
    keys = "".join(
        f'<li style="--w:{w:.3f}"><span>{word}</span><b>{f"{w:.2f}" if w >= WORTH_A_NUMBER else ""}</b></li>'
        for word, w in zip(words, row, strict=True)
    )
    values = html.escape(json.dumps(np.round(weights.astype(float), 3).tolist(), separators=(",", ":")))
    return (
        f'<div class="al-panel" data-weights="{values}">'
        f'<p class="al-name">… because it was too <strong>{html.escape(name)}</strong></p>'
        f'<div class="al-grid" style="--rows:{len(tokens)}">'
        f'<div class="al-queries" role="group" aria-label="query, sentence ending in {html.escape(name)}">{buttons}</div>'
        f'<svg aria-hidden="true" viewBox="0 0 100 {len(tokens)}" preserveAspectRatio="none">{lines}</svg>'
        f'<ul class="al-keys">{keys}</ul></div></div>'
    )


class AttentionLines(Directive):
    """``{attention-lines} head``, with the index of the first query shown; the content is the caption."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {"query": directives.nonnegative_int}

    def run(self) -> list[nodes.Node]:
        env = self.state.document.settings.env
        facts = json.loads((DATA / "minilm.json").read_text(encoding="utf8"))
        env.note_dependency(str(DATA / "minilm.json"))
        env.note_dependency(str(DATA / "minilm_heads.npz"))
        head, query = self.arguments[0], self.options.get("query", 0)
        with np.load(DATA / "minilm_heads.npz") as arrays:
            weights, weights_wide = arrays[f"{head}/weights"], arrays[f"{head}/weights_wide"]
        panels = panel(facts["tokens"][-2], facts["tokens"], weights, query) + panel(
            facts["tokens_wide"][-2], facts["tokens_wide"], weights_wide, query
        )
        figure = nodes.container(classes=["attention-lines"])
        figure += nodes.raw("", f'<div class="al-panels">{panels}</div>', format="html")
        caption = nodes.container(classes=["al-caption"])
        self.state.nested_parse(self.content, self.content_offset, caption)
        figure += caption
        return [figure]


def setup(app: Sphinx) -> dict:
    app.add_directive("attention-lines", AttentionLines)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}
