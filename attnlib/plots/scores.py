"""Figures of chapter 3: a map of scores, what the width does to them, trained heads, masks."""

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from attnlib.plots.style import BLUE, GREY, ORANGE, matrix_map, new_figure, weight_maps

__all__ = ["masks", "score_map", "spread_and_entropy", "trained_spreads", "weight_maps"]


def score_map(scores: np.ndarray, tokens: list[str], query: str | None = None) -> Figure:
    """Signed map of scores, queries down, keys across, with one query's row framed.

    Parameters
    ----------
    scores : (seq_q, seq_k)
        Real numbers.
    tokens : list of str
        Labels of queries and keys.
    query : str, optional
        The token whose row is framed.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(4.6)
    at = axes[0, 0]
    limit = float(np.abs(scores).max())
    image = matrix_map(at, scores, rows=tokens, columns=tokens, signed=True, limit=limit)
    at.set_xlabel("key")
    at.set_ylabel("query")
    if query is not None:
        i = tokens.index(query)
        at.plot([-0.5, len(tokens) - 0.5, len(tokens) - 0.5, -0.5, -0.5], [i - 0.5, i - 0.5, i + 0.5, i + 0.5, i - 0.5],
                color=GREY, marker="", linewidth=1.5, clip_on=False)
    figure.colorbar(image, ax=axes, label="score", shrink=0.8)
    return figure


def spread_and_entropy(
    widths: np.ndarray, spreads: dict[str, np.ndarray], entropies: dict[str, np.ndarray], highest: float
) -> Figure:
    """Standard deviation of scores over the width, and below it the mean entropy of the rows they make.

    Parameters
    ----------
    widths : (steps,) int
        Widths of the head, d.
    spreads, entropies : dict of str to (steps,) array
        Label -> standard deviation of the scores; label -> mean entropy of the rows, in nats.
    highest : float
        Entropy of a row that spends the same on every key.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(5.0, rows=2, sharex=True)
    top, bottom = axes[:, 0]
    top.plot(widths, np.sqrt(widths), "--", marker="", color=GREY, linewidth=1.2, label="√d")
    for at, lines in ((top, spreads), (bottom, entropies)):
        for (label, values), colour, marker in zip(lines.items(), (ORANGE, BLUE), "so", strict=True):
            at.plot(widths, values, marker=marker, color=colour, label=label)
    bottom.axhline(highest, color=GREY, linestyle="--", linewidth=1.2)
    bottom.text(widths[0], highest + 0.06, "every key the same", va="bottom", color=GREY)
    top.set_yscale("log", base=2)
    top.set_yticks([1, 2, 4, 8, 16, 32], labels=["1", "2", "4", "8", "16", "32"])
    top.set_ylabel("standard deviation\nof the scores")
    top.legend()
    bottom.set_ylim(0, highest + 0.6)
    bottom.set_ylabel("mean entropy\nof a row (nats)")
    bottom.legend(loc="center right")
    bottom.set_xscale("log", base=2)
    bottom.set_xticks(widths, labels=[str(width) for width in widths])
    bottom.set_xlabel("width of a head, d")
    return figure


def trained_spreads(names: list[str], bars: dict[str, np.ndarray], assumed: float) -> Figure:
    """For each head, how far its unscaled scores spread, beside what independence would predict.

    Parameters
    ----------
    names : list of str
        The heads.
    bars : dict of str to (heads,) array
        Label -> standard deviation for each head; two entries.
    assumed : float
        The standard deviation that the assumption at initialisation gives: √d.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.2)
    at = axes[0, 0]
    for i, ((label, heights), colour, hatch) in enumerate(zip(bars.items(), (BLUE, ORANGE), ("", "//"), strict=True)):
        boxes = at.bar(np.arange(len(names)) + 0.38 * (i - 0.5), heights, width=0.36, label=label, color=colour,
                       hatch=hatch, edgecolor="white", linewidth=0)
        for text in at.bar_label(boxes, fmt="%.1f", padding=3, fontsize=9):
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})
    at.axhline(assumed, color=GREY, linestyle="--", linewidth=1.4, label=f"assumption: √d = {assumed:.2f}")
    at.set_xticks(range(len(names)), labels=names)
    at.set_xlabel("trained head")
    at.set_ylabel("standard deviation of q · k")
    at.grid(axis="x", visible=False)
    at.legend(loc="upper left")
    return figure


def masks(
    panels: dict[str, np.ndarray], *, height: float = 2.5, columns: int | None = None, first_query: int = 0
) -> Figure:
    """Boolean masks side by side: a filled square where the query (row) may attend to the key (column).

    Parameters
    ----------
    panels : dict of str to (seq_q, seq_k) bool array
        Title -> mask.
    height : float
        Inches.
    columns : int, optional
        Panels per row; default all in one row.
    first_query : int
        Position of the query in the first row.

    Returns
    -------
    Figure
    """
    columns = columns or len(panels)
    figure, axes = new_figure(height, columns, -(-len(panels) // columns))
    for i, (title, mask) in enumerate(panels.items()):
        at = axes.flat[i]
        at.imshow(mask, cmap=ListedColormap(["#e9e9e9", BLUE]), vmin=0, vmax=1, aspect="equal")
        at.set_title(title)
        seq_q, seq_k = mask.shape
        at.set_xticks(range(seq_k))
        at.set_yticks(range(seq_q), labels=range(first_query, first_query + seq_q))
        at.set_xticks(np.arange(-0.5, seq_k), minor=True)
        at.set_yticks(np.arange(-0.5, seq_q), minor=True)
        at.grid(False)
        at.grid(which="minor", color="white", linewidth=1.5)
        at.spines[:].set_visible(False)
        at.tick_params(length=0, which="both")
        at.set_xlabel("key position")
        if i % columns == 0:
            at.set_ylabel("query position")
    for spare in axes.flat[len(panels):]:
        spare.set_axis_off()
    return figure
