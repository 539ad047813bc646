"""Figures of chapter 16: how far real heads look, windows and their shifts, two levels, and spans that were learned."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from attnlib.plots.style import BLUE, GREEN, GREY, ORANGE, PURPLE, matrix_map, new_figure

__all__ = ["distances", "influence", "learned_spans", "levels", "reaches", "regions", "span_paths"]

_HEADS = (BLUE, ORANGE, GREEN, PURPLE)
_LIGHT = ("#9ecae1", "#fdbe85", "#a1d99b", "#d4b9da", "#ffff99", "#d9d9d9", "#fbb4ae", "#c7f0ec", "#e0c9a6")  # numbers can be read on them


def distances(within: np.ndarray, named: dict[int, str]) -> Figure:
    """For each head, the share of its weight that lies within a distance.

    Parameters
    ----------
    within : (heads, distances)
        Share of the weight at distance 0, up to 1, up to 2, ...
    named : dict of int to str
        Heads to draw in colour, and what to call them.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.2)
    at, colours = axes[0, 0], iter(_HEADS)
    for h, curve in enumerate(within):
        if h not in named:
            at.plot(curve, color="#bbbbbb", marker="", linewidth=1)
    for h, name in named.items():
        at.plot(within[h], color=next(colours), marker="o", label=name)
    at.set_xlabel("up to this many tokens away")
    at.set_ylabel("share of the weight")
    at.set_ylim(0, 1.05)
    at.legend(loc="lower right")
    return figure


def reaches(panels: dict[str, np.ndarray], query: int) -> Figure:
    """Which input positions reach one output position, after each number of layers.

    Parameters
    ----------
    panels : dict of str to (layers, seq) bool array
        Title -> what has an influence; row 0 is one layer.
    query : int
        The output position.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(1.05 * len(panels) + 0.6, rows=len(panels), sharex=True)
    for at, (title, reached) in zip(axes[:, 0], panels.items(), strict=True):
        matrix_map(at, reached.astype(float), title=title, limit=1.4)
        at.set_yticks(range(len(reached)), labels=range(1, len(reached) + 1))
        at.axvline(query, color=ORANGE, linewidth=1.5)
        at.set_ylabel("layers")
    axes[-1, 0].set_xticks(range(0, reached.shape[1], 8))
    axes[-1, 0].tick_params(axis="x", length=3)
    axes[-1, 0].set_xlabel("input position (orange: the output asked about)")
    return figure


def regions(before: np.ndarray, after: np.ndarray, window: int, shift: int) -> Figure:
    """An image cut by shifted windows, and the same rolled into windows of one shape.

    Parameters
    ----------
    before, after : (height, width) int
        Which shifted window each token belongs to, from 0 to 8, in place and rolled.
    window, shift : int
        Where the cuts are.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.1, 2)
    cuts = [range(shift, len(before), window), range(window, len(before), window)]
    for at, labels, lines, title in zip(axes[0], (before, after), cuts, ("in place: nine windows", "rolled: four windows"), strict=True):
        for (row, column), label in np.ndenumerate(labels):
            at.add_patch(_square(row, column, _LIGHT[label]))
            at.text(column + 0.5, row + 0.5, f"{label}", ha="center", va="center", fontsize=9)
        for line in lines:
            at.axhline(line, color="black", linewidth=2)
            at.axvline(line, color="black", linewidth=2)
        at.set_xlim(0, labels.shape[1])
        at.set_ylim(labels.shape[0], 0)
        at.set_aspect("equal")
        at.set_title(title)
        at.set_xticks([])
        at.set_yticks([])
        at.grid(False)
    return figure


def _square(row, column, colour):
    return Rectangle((column, row), 1, 1, facecolor=colour, edgecolor="white", linewidth=1.5)


def influence(panels: dict[str, np.ndarray], source: tuple[int, int]) -> Figure:
    """Which outputs of an image change when one input changes.

    Parameters
    ----------
    panels : dict of str to (height, width) bool array
        Title -> what changes.
    source : (int, int)
        The input that was changed.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.0, len(panels))
    for at, (title, change) in zip(axes[0], panels.items(), strict=True):
        matrix_map(at, change.astype(float), title=title, limit=1.4)
        at.set_aspect("equal")
        at.plot(source[1], source[0], marker="x", color=ORANGE, markersize=10, markeredgewidth=3)
        at.set_yticks(range(len(change)), labels=range(len(change)))
        at.set_xticks(range(len(change)), labels=range(len(change)))
        for edge in np.arange(len(change) + 1) - 0.5:
            at.axhline(edge, color="#dddddd", linewidth=0.6)
            at.axvline(edge, color="#dddddd", linewidth=0.6)
        at.set_xlabel("column")
    axes[0, 0].set_ylabel("row")
    return figure


def levels(blocks: list[int], scores: list[float], errors: dict[str, list[float]], best: float) -> Figure:
    """What two-level attention costs and what it loses, over the size of its blocks.

    Parameters
    ----------
    blocks : list of int
        Tokens in a block.
    scores : list of float
        Scores computed, as a share of all pairs.
    errors : dict of str to list of float
        Legend -> distance from full attention, relative to the size of its result.
    best : float
        The block size that the formula calls cheapest.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(4.6, rows=2, sharex=True)
    top, bottom = axes[:, 0]
    top.plot(blocks, scores, color=BLUE)
    top.axvline(best, color=GREY, linestyle="--", linewidth=1)
    top.text(best * 1.06, 0.9 * max(scores), "√(n / 3)", color=GREY, va="top")
    top.set_ylabel("share of all scores")
    top.set_ylim(0, 1.1 * max(scores))
    for name, curve in errors.items():
        bottom.plot(blocks, curve, label=name)
    bottom.set_ylabel("error")
    bottom.set_ylim(0, 1.25)
    bottom.set_xscale("log", base=2)
    bottom.set_xticks(blocks, labels=blocks)
    bottom.set_xlabel("tokens in a block")
    bottom.legend(loc="center right", bbox_to_anchor=(1, 0.42))
    return figure


def learned_spans(masks: np.ndarray, ranges: tuple[int, ...]) -> Figure:
    """The learned soft mask of each head, with the distances the task asks for.

    Parameters
    ----------
    masks : (heads, distances)
        From 0 to 1.
    ranges : tuple of int
        Known distances.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(2.9)
    at = axes[0, 0]
    for head, (mask, colour) in enumerate(zip(masks, _HEADS, strict=True)):
        at.plot(mask, color=colour, marker="", label=f"head {head}")
    for distance in ranges:
        at.axvline(distance, ymax=1.03 / 1.15, color=GREY, linestyle="--", linewidth=1)
        at.text(distance, 1.06, f"{distance}", color=GREY, ha="center")
    at.set_xlabel("distance from the query (dashed: what the task asks for)")
    at.set_ylabel("soft mask")
    at.set_ylim(0, 1.15)
    at.legend(loc="center right")
    return figure


def span_paths(steps: np.ndarray, panels: dict[str, np.ndarray], ranges: dict[str, list[int]]) -> Figure:
    """How far each head reaches, over the steps of training.

    Parameters
    ----------
    steps : (times,)
        When it was noted.
    panels : dict of str to (times, heads) array
        Title -> reach.
    ranges : dict of str to list of int
        Title -> known distances.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(2.9, len(panels), sharey=True)
    for at, (title, paths) in zip(axes[0], panels.items(), strict=True):
        for path, colour in zip(paths.T, _HEADS, strict=True):
            at.plot(steps, path, color=colour, marker="")
        for distance in ranges[title]:
            at.axhline(distance, color=GREY, linestyle="--", linewidth=1)
        at.set_title(title)
        at.set_xlabel("step")
    axes[0, 0].set_ylabel("reach (tokens)")
    axes[0, 0].set_ylim(0, None)
    return figure
