"""Figures of chapter 4: from scores to weights, temperature, the Jacobian, dispersion."""

import numpy as np
from matplotlib.figure import Figure

from attnlib.plots.style import BLUE, GREY, ORANGE, matrix_map, new_figure, weight_maps

__all__ = ["dispersion", "jacobian", "scores_and_weights", "temperatures", "weight_maps"]


def scores_and_weights(scores: np.ndarray, weights: np.ndarray, tokens: list[str], query: str) -> Figure:
    """Bars of one query's scores above bars of the weights they become.

    Parameters
    ----------
    scores, weights : (seq_k,)
        One row each.
    tokens : list of str
        The keys.
    query : str
        The token that asks.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.9, rows=2, sharex=True)
    for at, row, label in ((axes[0, 0], scores, "score"), (axes[1, 0], weights, "weight")):
        at.bar(range(len(row)), row, color=[ORANGE if value == row.max() else BLUE for value in row], width=0.7)
        at.axhline(0, color=GREY, linewidth=0.8)
        at.set_ylabel(label)
        at.grid(axis="x", visible=False)
    axes[0, 0].set_title(f"scores of the query “{query}”: any real numbers")
    axes[1, 0].set_title("weights: shares that sum to 1")
    axes[1, 0].set_ylim(0, 1)
    axes[1, 0].set_xticks(range(len(tokens)), labels=tokens, rotation=90)
    axes[1, 0].set_xlabel("key")
    return figure


def temperatures(
    rows: dict[float, np.ndarray], tokens: list[str], curve: np.ndarray, entropies: np.ndarray
) -> Figure:
    """One query's weights at a few temperatures, and its entropy over a range of them.

    Parameters
    ----------
    rows : dict of float to (seq_k,) array
        Temperature -> weights.
    tokens : list of str
        The keys.
    curve, entropies : (steps,)
        Temperatures and the entropy at each, in nats.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(4.6, rows=2, height_ratios=[1, 1.1])
    top, bottom = axes[:, 0]
    names = [f"T = {temperature:g}" for temperature in rows]
    image = matrix_map(top, np.stack(list(rows.values())), rows=names, columns=tokens, title="weights of “it”")
    figure.colorbar(image, ax=top, label="weight", aspect=10)
    bottom.plot(curve, entropies, marker="", color=BLUE)
    bottom.axhline(np.log(len(tokens)), color=GREY, linestyle="--", linewidth=1)
    bottom.text(curve[0], np.log(len(tokens)) - 0.08, f"all {len(tokens)} keys equal: ln {len(tokens)}", va="top", color=GREY)
    at = np.interp(np.log(list(rows)), np.log(curve), entropies)
    bottom.plot(list(rows), at, "o", color=ORANGE)
    bottom.set_xscale("log")
    bottom.set_xlabel("temperature T (scores are divided by it)")
    bottom.set_ylabel("entropy (nats)")
    return figure


def jacobian(matrix: np.ndarray, tokens: list[str]) -> Figure:
    """How each weight answers to each score, for one row.

    Parameters
    ----------
    matrix : (seq_k, seq_k)
        Entry (i, j): change of weight i per change of score j.
    tokens : list of str
        The keys.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(4.4)
    limit = np.abs(matrix).max()
    image = matrix_map(axes[0, 0], matrix, rows=tokens, columns=tokens, signed=True, limit=limit)
    axes[0, 0].set_ylabel("key whose weight answers")
    axes[0, 0].set_xlabel("key whose score is raised")
    figure.colorbar(image, ax=axes, label="change of weight per unit of score", shrink=0.8)
    return figure


def dispersion(lengths: np.ndarray, best: dict[float, np.ndarray]) -> Figure:
    """Weight of the one best key as the row grows, for several leads over the rest.

    Parameters
    ----------
    lengths : (steps,)
        Numbers of keys.
    best : dict of float to (steps,) array
        Lead of the best score -> its weight.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.0)
    at = axes[0, 0]
    for lead, weights in best.items():
        at.plot(lengths, weights, label=f"leads by {lead:g}", markevery=4)
    at.set_xscale("log")
    at.set_ylim(0, 1.02)
    at.set_xlabel("number of keys")
    at.set_ylabel("weight of the best key")
    at.legend()
    return figure
