"""Figures of chapter 6: how heads are cut, twelve of them at work, what each adds, and shared keys and values."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from attnlib.plots.style import BLUE, GREY, ORANGE, WIDTH, matrix_map, new_figure, plt

__all__ = ["cuts", "gallery", "head_bars", "sharing"]

_HEAD_COLOURS = ("#9ecae1", "#fdbe85", "#a1d99b", "#d4b9da")  # light, so that numbers can be read on them


def cuts(projected: np.ndarray, results: dict[str, np.ndarray]) -> Figure:
    """A small array of numbers and what ways of cutting it make of them, coloured by the head that owns each.

    Parameters
    ----------
    projected : (seq, heads·dim_head) int
        Distinct numbers; head h owns columns h·dim_head to (h+1)·dim_head.
    results : dict of str to (heads, seq, dim_head) int array
        Title -> the same numbers after a cut; at most four heads.

    Returns
    -------
    Figure
    """
    heads, seq, dim_head = next(iter(results.values())).shape
    owner = {int(number): column // dim_head for (_, column), number in np.ndenumerate(projected)}
    figure = plt.figure(figsize=(WIDTH, 1.75 * (1 + len(results))), layout="constrained")
    grid = figure.add_gridspec(1 + len(results), heads)
    at = figure.add_subplot(grid[0, :])
    _numbered(at, projected, owner)
    at.set_title(f"before: {seq} tokens × {projected.shape[1]} columns")
    at.set_ylabel("token")
    for i, (title, result) in enumerate(results.items(), start=1):
        for h in range(heads):
            at = figure.add_subplot(grid[i, h])
            _numbered(at, result[h], owner)
            at.set_title(f"{title}[{h}]", fontsize=9.5)
            at.set_ylabel("row" if h == 0 else "")
    return figure


def _numbered(at: Axes, matrix: np.ndarray, owner: dict[int, int]) -> None:
    for (row, column), number in np.ndenumerate(matrix):
        square = Rectangle((column, row), 1, 1, facecolor=_HEAD_COLOURS[owner[int(number)]], edgecolor="white", linewidth=1.5)
        at.add_patch(square)
        at.text(column + 0.5, row + 0.5, f"{number:02d}", ha="center", va="center", fontsize=10.5)
    at.set_xlim(0, matrix.shape[1])
    at.set_ylim(matrix.shape[0], 0)
    at.set_aspect("equal")
    at.grid(False)
    at.spines[:].set_visible(False)
    at.set_xticks([])
    at.set_yticks(np.arange(matrix.shape[0]) + 0.5, labels=range(matrix.shape[0]))
    at.tick_params(length=0)


def gallery(weights: np.ndarray, titles: list[str], tokens: list[str], marks: list[str], columns: int = 3) -> Figure:
    """One map of weights per head, all on one scale, queries down, keys across.

    Parameters
    ----------
    weights : (heads, seq, seq)
        Rows sum to 1.
    titles : list of str
        One per head.
    tokens : list of str
        All tokens, in order.
    marks : list of str
        The tokens to name along the axes.
    columns : int
        Panels in a row.

    Returns
    -------
    Figure
    """
    lines = -(-len(weights) // columns)
    figure, axes = new_figure(2.1 * lines + 0.4, columns, lines)
    places = [tokens.index(mark) for mark in marks]
    for i, (at, matrix, title) in enumerate(zip(axes.flat, weights, titles, strict=False)):
        image = matrix_map(at, matrix, title=title)
        at.set_yticks(places, labels=marks if i % columns == 0 else [])
        at.set_xticks(places, labels=marks if i >= len(weights) - columns else [], rotation=90)
        at.tick_params(length=3)
    figure.supylabel("query", fontsize=10.5)
    figure.supxlabel("key", fontsize=10.5)
    figure.colorbar(image, ax=axes, label="weight", location="top", shrink=0.6, aspect=40)
    return figure


def head_bars(series: dict[str, np.ndarray], label: str, titles: list[str]) -> Figure:
    """Horizontal bars, one group per head, sorted by the first series.

    Parameters
    ----------
    series : dict of str to (heads,) array
        Legend -> one number per head; two of them.
    label : str
        Name of the axis.
    titles : list of str
        One per head.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(4.6)
    at = axes[0, 0]
    order = np.argsort(next(iter(series.values())))
    for offset, colour, (name, values) in zip((0.2, -0.2), (BLUE, ORANGE), series.items(), strict=True):
        at.barh(np.arange(len(order)) + offset, values[order], height=0.38, color=colour, label=name)
    at.set_yticks(range(len(order)), labels=[titles[h] for h in order])
    at.tick_params(axis="y", length=0)
    at.grid(axis="y", visible=False)
    at.set_xlabel(label)
    at.legend(loc="lower right")
    return figure


def sharing(
    cache: dict[int, float], models: dict[str, int], change: dict[str, dict[int, float]], nothing: float
) -> Figure:
    """Size of a cache above the change of a layer's result, both against how many query heads share a key head.

    Parameters
    ----------
    cache : dict of int to float
        Query heads per key/value head -> KiB per token.
    models : dict of str to int
        Name -> query heads per key/value head, to be marked on the curve.
    change : dict of str to dict of int to float
        Legend -> (query heads per key/value head -> relative change of the result).
    nothing : float
        The change when all heads are left out.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(5.0, rows=2, sharex=True)
    top, bottom = axes[:, 0]
    top.plot(list(cache), list(cache.values()), color=BLUE)
    for name, group in models.items():
        top.annotate(f"{name}: {cache[group]:.0f} KiB", (group, cache[group]), xytext=(10, 4), textcoords="offset points")
    top.set_ylabel("KV cache (KiB per token)")
    top.set_ylim(0, 1.15 * max(cache.values()))
    for name, curve in change.items():
        bottom.plot(list(curve), list(curve.values()), label=name)
    bottom.axhline(nothing, color=GREY, linestyle="--", linewidth=1)
    bottom.text(32, nothing + 0.03, "all heads left out", color=GREY, ha="right")
    bottom.set_ylim(0, 1.3 * nothing)
    bottom.set_ylabel("change of our layer")
    bottom.set_xscale("log", base=2)
    bottom.set_xticks(list(cache), labels=list(cache))
    bottom.set_xlabel("query heads that share one key/value head")
    bottom.legend(loc="lower right")
    return figure
