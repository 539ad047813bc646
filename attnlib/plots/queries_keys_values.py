"""Figures of chapter 2: three roles of a token, similarity against scores, symmetry, bases, contributions."""

import numpy as np
from matplotlib.figure import Figure

from attnlib.plots.style import BLUE, GREY, ORANGE, WIDTH, matrix_map, new_figure, plt

__all__ = ["contributions", "rows_of_weights", "same_scores", "score_maps", "three_roles"]


def three_roles(
    x: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, tokens: list[str], first: int = 0, limit: float = 2.0
) -> Figure:
    """Part of the token vectors above the queries, keys and values made from them, one colour scale.

    Parameters
    ----------
    x : (seq, dim)
        Token vectors; three times `dim_head` coordinates are drawn, so that squares are equally wide below.
    q, k, v : (seq, dim_head)
        What the three projections make of them.
    tokens : list of str
        One per row.
    first : int
        The first coordinate of the token vectors to draw.
    limit : float
        Entry at the end of the colour scale; larger ones look like it.

    Returns
    -------
    Figure
    """
    figure = plt.figure(figsize=(WIDTH, 5.6), layout="constrained")
    grid = figure.add_gridspec(2, 3)
    axes = [figure.add_subplot(grid[0, :]), *(figure.add_subplot(grid[1, i]) for i in range(3))]
    last = first + 3 * q.shape[1]
    names = [f"token vectors: coordinates {first} to {last - 1} of {x.shape[1]}", "queries: ask", "keys: offer", "values: hand over"]
    for at, matrix, name in zip(axes, (x[:, first:last], q, k, v), names, strict=True):
        labels = tokens if at in axes[:2] else None
        image = matrix_map(at, matrix, rows=labels, signed=True, limit=limit, title=name)
    figure.supxlabel(f"{q.shape[1]} coordinates each", fontsize=10.5)
    figure.colorbar(image, ax=axes, label="entry", shrink=0.6, aspect=30, extend="both")
    return figure


def score_maps(
    panels: dict[str, np.ndarray], tokens: list[str], *, best: bool = False, height: float = 4.0, label: str = "score"
) -> Figure:
    """Signed matrices side by side on one diverging scale, queries down, keys across.

    Parameters
    ----------
    panels : dict of str to (seq_q, seq_k) array
        Title -> scores.
    tokens : list of str
        Labels of queries and keys.
    best : bool
        Put a dot on each query's largest entry, its own token left out.
    height : float
        Inches.
    label : str
        Of the colour bar.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(height, len(panels))
    limit = max(np.abs(matrix).max() for matrix in panels.values())
    for i, (title, matrix) in enumerate(panels.items()):
        at = axes[0, i]
        image = matrix_map(at, matrix, rows=tokens if i == 0 else None, columns=tokens, signed=True, limit=limit, title=title)
        at.set_xlabel("key")
        if best:
            others = np.where(np.eye(len(matrix), dtype=bool), -np.inf, matrix)
            at.plot(others.argmax(axis=1), range(len(matrix)), "o", color="black", markersize=3.5, markeredgecolor="white")
    axes[0, 0].set_ylabel("query")
    figure.colorbar(image, ax=axes, label=label, orientation="horizontal", shrink=0.6, aspect=40)
    return figure


def same_scores(queries: dict[str, np.ndarray], scores: dict[str, np.ndarray], tokens: list[str]) -> Figure:
    """One query in two bases, and the scores it gets in each.

    Parameters
    ----------
    queries : dict of str to (dim_head,) array
        Name of the basis -> the query's coordinates in it; two of them.
    scores : dict of str to (seq_k,) array
        The same names -> the query's row of scores.
    tokens : list of str
        The keys.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(5.0, rows=3, height_ratios=[1, 1, 1.2])
    for at, colour, (name, query) in zip(axes[:2, 0], (BLUE, ORANGE), queries.items(), strict=True):
        at.bar(range(len(query)), query, color=colour, width=0.7)
        at.axhline(0, color=GREY, linewidth=0.8)
        at.set_title(f"the query “it”, {name}")
        at.set_ylabel("entry")
        at.set_xticks([])
    axes[1, 0].set_xlabel(f"the {len(query)} coordinates")
    last = axes[2, 0]
    styles = ({"marker": "o", "markersize": 9, "markerfacecolor": "none", "color": BLUE}, {"marker": "x", "color": ORANGE})
    for style, (name, row) in zip(styles, scores.items(), strict=True):
        last.plot(range(len(row)), row, linestyle="none", label=name, **style)
    last.margins(y=0.15)
    last.axhline(0, color=GREY, linewidth=0.8)
    last.set_title("its scores, in both bases")
    last.set_ylabel("score")
    last.set_xticks(range(len(tokens)), labels=tokens, rotation=90)
    last.set_xlabel("key")
    last.legend(loc="upper right", ncols=2)
    return figure


def contributions(weights: dict[str, np.ndarray], lengths: dict[str, np.ndarray], tokens: list[str]) -> Figure:
    """For one query in several heads: the weight of each key, and the length of what it adds.

    Parameters
    ----------
    weights : dict of str to (seq_k,) array
        Title of the head -> the query's weights.
    lengths : dict of str to (seq_k,) array
        The same titles -> the norm of weight times value.
    tokens : list of str
        The keys.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(4.4, len(weights), 2, sharex=True, sharey="row")
    for i, title in enumerate(weights):
        for at, row in ((axes[0, i], weights[title]), (axes[1, i], lengths[title])):
            at.bar(range(len(row)), row, color=[ORANGE if j == 0 else BLUE for j in range(len(row))], width=0.75)
            at.grid(axis="x", visible=False)
        axes[0, i].set_title(title)
        axes[1, i].set_xticks(range(len(tokens)), labels=tokens, rotation=90)
        axes[1, i].set_xlabel("key")
    axes[0, 0].set_ylabel("weight")
    axes[0, 0].set_ylim(0, 1)
    axes[1, 0].set_ylabel("length of\nweight × value")
    return figure


def rows_of_weights(rows: dict[str, np.ndarray], tokens: list[str], height: float = 2.6) -> Figure:
    """Rows of weights under one another, with the numbers that matter printed.

    Parameters
    ----------
    rows : dict of str to (seq_k,) array
        Label -> weights.
    tokens : list of str
        The keys.
    height : float
        Inches.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(height)
    stacked = np.stack(list(rows.values()))
    image = matrix_map(axes[0, 0], stacked, rows=list(rows), columns=tokens)
    for (i, j), weight in np.ndenumerate(stacked):
        if weight >= 0.1:
            axes[0, 0].text(j, i, f".{100 * weight:02.0f}", ha="center", va="center", fontsize=8.5,
                            color="white" if weight > 0.6 else "black")
    axes[0, 0].set_xlabel("key")
    figure.colorbar(image, ax=axes, label="weight", aspect=12)
    return figure
