"""Figures of chapter 20: the running maximum and sum, the walk over tiles, memory."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter, ScalarFormatter

from attnlib.plots.style import BLUE, GREY, ORANGE, new_figure

__all__ = ["memory", "running", "walk"]


def running(scores: np.ndarray, states: np.ndarray, tokens: list[str]) -> Figure:
    """Scores of one query as they come, with their running maximum; below, the running sum.

    Parameters
    ----------
    scores : (seq,)
        Scores of the keys, in the order in which they come.
    states : (seq, 2)
        Running maximum and running sum after each key.
    tokens : list of str
        The keys' tokens.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(4.4, rows=2, sharex=True)
    upper, lower, at = axes[0, 0], axes[1, 0], np.arange(len(tokens))
    upper.plot(at, scores, "o", color=BLUE, label="score")
    ends, states = np.append(at, len(at) - 0.5), np.vstack([states, states[-1:]])  # half a place for the last stair
    upper.step(ends, states[:, 0], where="post", color=ORANGE, marker="", label="running maximum")
    upper.set_ylabel("score")
    upper.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    lower.step(ends, states[:, 1], where="post", color=BLUE, marker="")
    lower.set_ylabel("running sum")
    lower.set_ylim(0)
    lower.set_xticks(at, tokens, rotation=90)
    return figure


def walk(scores: np.ndarray, seen: np.ndarray, pictures: list[tuple[slice, slice, np.ndarray, np.ndarray]]) -> Figure:
    """The tiles in the order of their visit, with the running maximum and sum of their rows.

    Parameters
    ----------
    scores : (seq_q, seq_k)
        All scores, which only the figure holds.
    seen : (seq_q, seq_k) bool
        Who may attend to whom.
    pictures : list of (rows, keys, row_max, row_sum)
        For each tile visited: its slices, and the state of its rows afterwards, (rows,) each.

    Returns
    -------
    Figure
    """
    columns = 2
    figure, axes = new_figure(1.75 * -(-len(pictures) // columns), columns, -(-len(pictures) // columns))
    gone = np.zeros(scores.shape, bool)
    limit = np.abs(scores[seen]).max()
    for number, at in enumerate(axes.flat):
        at.axis("off")
        if number >= len(pictures):
            continue
        rows, keys, row_max, row_sum = pictures[number]
        now = np.zeros_like(gone)
        now[rows, keys] = True
        shown = np.where(seen & now, scores, np.nan)
        for row, key in np.argwhere(now & ~seen):            # computed, and thrown away
            at.plot(key, row, "x", color=GREY, markersize=4)
        at.imshow(np.where(gone & seen, 0.0, np.nan), cmap="Greys", vmin=-1, vmax=4, aspect="equal")
        at.imshow(shown, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="equal")
        at.add_patch(Rectangle((-0.5, -0.5), scores.shape[1], scores.shape[0], fill=False, edgecolor=GREY, linewidth=0.8))
        at.add_patch(Rectangle((keys.start - 0.5, rows.start - 0.5), keys.stop - keys.start, rows.stop - rows.start,
                               fill=False, edgecolor=ORANGE, linewidth=2))
        for i, (largest, total) in enumerate(zip(row_max, row_sum, strict=True)):
            at.text(scores.shape[1] - 0.2, rows.start + i, f"m {largest:.2f}  ℓ {total:.2f}", va="center", fontsize=10)
        at.set_xlim(-0.6, scores.shape[1] + 6.5)
        at.set_title(f"tile {number + 1}")
        gone |= now
    for at in axes.flat[len(pictures):]:
        at.text(0, 0.5, "red: score above 0\nblue: below 0\n×: masked\ngrey: forgotten\nm, ℓ: maximum, sum", va="center", fontsize=10, transform=at.transAxes)
    return figure


def memory(tokens: list[int], mebibytes: dict[str, list[float]]) -> Figure:
    """Peak memory against the number of tokens, on logarithmic axes.

    Parameters
    ----------
    tokens : list of int
        Lengths.
    mebibytes : dict of str to list of float
        Legend -> MiB for each length.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.0)
    at = axes[0, 0]
    for name, values in mebibytes.items():
        at.loglog(tokens, values, label=name)
    at.set_xticks(tokens, [str(each) for each in tokens])
    at.xaxis.set_minor_formatter(NullFormatter())
    at.yaxis.set_major_formatter(ScalarFormatter())
    at.set_xlabel("tokens")
    at.set_ylabel("peak memory (MiB)")
    at.legend()
    return figure
