"""Figures of chapter 5: one token's walk, the model's head, order, sinks, credit."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnlib.plots.style import BLUE, GREY, ORANGE, matrix_map, new_figure

__all__ = ["beside_the_model", "orders", "position_leak", "product_bars", "walk"]


def walk(scores: np.ndarray, weights: np.ndarray, v: np.ndarray, tokens: list[str], query: str) -> Figure:
    """One query from left to right: scores, weights, weighted values, and their sum below.

    Parameters
    ----------
    scores, weights : (seq_k,)
        One row each.
    v : (seq_k, dim_v)
        Values.
    tokens : list of str
        The keys.
    query : str
        The token that asks.

    Returns
    -------
    Figure
    """
    parts = weights[:, None] * v                              # (seq_k, dim_v)
    limit = np.abs(parts).max()
    figure, axes = new_figure(4.6, columns=3, rows=2, width_ratios=[1.1, 1, 2.3], height_ratios=[len(tokens), 1.2])
    for at, row, title in ((axes[0, 0], scores, "1. scores"), (axes[0, 1], weights, "2. weights")):
        at.barh(range(len(row)), row, color=[ORANGE if value == row.max() else BLUE for value in row], height=0.7)
        at.axvline(0, color=GREY, linewidth=0.8)
        at.set_title(title)
        at.set_ylim(len(row) - 0.5, -0.5)
        at.set_yticks(range(len(tokens)), labels=tokens if at is axes[0, 0] else [])
        at.grid(axis="y", visible=False)
        at.tick_params(axis="y", length=0)
    axes[0, 0].set_xticks([-3, 0, 3])
    axes[0, 0].set_ylabel(f"keys, as “{query}” sees them")
    image = matrix_map(axes[0, 2], parts, signed=True, limit=limit, title="3. weight × value")
    matrix_map(axes[1, 2], parts.sum(axis=0)[None], signed=True, limit=limit, title="sum of all rows: out")
    axes[1, 2].set_xlabel(f"the {v.shape[1]} numbers of a value")
    for spare in axes[1, :2]:
        spare.set_axis_off()
    figure.colorbar(image, ax=axes[:, 2], aspect=30)
    return figure


def beside_the_model(yours: np.ndarray, model: np.ndarray, tokens: list[str]) -> Figure:
    """The reader's weights, the model's, and their difference a million times enlarged.

    Parameters
    ----------
    yours, model : (seq_q, seq_k)
        Weights.
    tokens : list of str
        Labels of the queries; the keys stand in the same order.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.4, columns=3)
    panels = ((yours, "yours", False), (model, "the model’s", False), (1e6 * (yours - model), "difference × 10⁶", True))
    for at, (matrix, title, signed) in zip(axes[0], panels, strict=True):
        image = matrix_map(at, matrix, rows=tokens if at is axes[0, 0] else None, signed=signed, title=title)
        at.set_xlabel("keys, same order")
        if at is not axes[0, 0]:
            under = axes[0, :2] if at is axes[0, 1] else at
            figure.colorbar(image, ax=under, location="bottom", shrink=0.8, aspect=24 if at is axes[0, 1] else 11,
                            label="weight" if at is axes[0, 1] else "millionths")
    axes[0, 0].set_ylabel("query")
    return figure


def orders(panels: dict[str, tuple[np.ndarray, list[str]]]) -> Figure:
    """Maps of weights, each with its own order of tokens; a line marks where queries look at themselves.

    Parameters
    ----------
    panels : dict of str to ((seq_q, seq_k), list of str)
        Title -> weights and the tokens in their order, for rows and columns alike.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.6, columns=len(panels))
    for at, (title, (weights, tokens)) in zip(axes[0], panels.items(), strict=True):
        image = matrix_map(at, weights, rows=tokens, title=title)
        at.plot([-0.5, len(tokens) - 0.5], [-0.5, len(tokens) - 0.5], color=ORANGE, linewidth=1.2, marker="")
        at.tick_params(labelsize=8.5)
        at.set_xlabel("keys, same order")
    axes[0, 0].set_ylabel("query")
    figure.colorbar(image, ax=axes, label="weight", location="bottom", shrink=0.5, aspect=30)
    return figure


def position_leak(positions: np.ndarray, curves: dict[str, np.ndarray]) -> Figure:
    """Typical size of a result's entries against the number of keys its query sees.

    Parameters
    ----------
    positions : (seq,)
        1 for the first query.
    curves : dict of str to (seq,) array
        Label -> root mean square of the entries of `out`.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.0)
    at = axes[0, 0]
    for label, sizes in curves.items():
        at.plot(positions, sizes, label=label, markevery=(7, 32))
    at.plot(positions, positions**-0.5, color=GREY, marker="", linestyle="--", linewidth=1.2, label="1/√(number of keys)")
    at.set_xscale("log", base=2)
    at.set_yscale("log", base=2)
    at.set_xlabel("keys that the query sees = its position, from 1")
    at.set_ylabel("size of out (root mean square)")
    at.legend(loc="lower left")
    return figure


def product_bars(factors: dict[str, np.ndarray], product: str, tokens: list[str], mark: str) -> Figure:
    """Two rows of bars and, below, their product, key by key.

    Parameters
    ----------
    factors : dict of str to (seq_k,) array
        Title -> one number for each key; two of them.
    product : str
        Title of the third panel.
    tokens : list of str
        The keys.
    mark : str
        The key to colour differently.

    Returns
    -------
    Figure
    """
    first, second = factors.values()
    figure, axes = new_figure(4.8, rows=3, sharex=True)
    rows = {**factors, product: first * second}
    for at, (title, row) in zip(axes[:, 0], rows.items(), strict=True):
        _bars(at, row, title, tokens.index(mark))
    axes[2, 0].set_xticks(range(len(tokens)), labels=tokens, rotation=90)
    axes[2, 0].set_xlabel("key")
    return figure


def _bars(at: Axes, row: np.ndarray, title: str, mark: int) -> None:
    at.bar(range(len(row)), row, color=[ORANGE if j == mark else BLUE for j in range(len(row))], width=0.7)
    at.axhline(0, color=GREY, linewidth=0.8)
    at.set_title(title)
    at.grid(axis="x", visible=False)
