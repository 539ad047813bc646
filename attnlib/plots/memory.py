"""Figures of chapter 18: what a memory still holds, the relative shift, recall by distance, sinks, and bytes."""

import numpy as np
from matplotlib.figure import Figure

from attnlib.plots.style import BLUE, GREY, ORANGE, WEIGHTS, matrix_map, new_figure

__all__ = ["bytes_held", "eviction", "held", "recall", "shift"]


def held(shares: dict[str, np.ndarray], seq: int) -> Figure:
    """What is left of each token of a text in each kind of memory, one strip per memory.

    Parameters
    ----------
    shares : dict of str to (tokens,)
        Name -> the largest share of each token in any row of the memory: 1 kept as it is, between 0 and 1 mixed with others, 0 lost.
    seq : int
        Tokens per segment, for the ticks.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(0.62 * len(shares) + 0.7)
    strips = np.stack(list(shares.values()))
    at = axes[0, 0]
    at.imshow(np.sqrt(strips), cmap=WEIGHTS, vmin=0, vmax=1.15, aspect="auto", interpolation="nearest")  # root: a quarter is visible
    at.grid(False)
    at.spines[:].set_visible(False)
    at.set_yticks(range(len(shares)), labels=list(shares))
    at.set_yticks(np.arange(len(shares) + 1) - 0.5, minor=True)
    at.set_xticks(np.arange(0, strips.shape[1] + 1, seq) - 0.5, labels=np.arange(0, strips.shape[1] + 1, seq))
    at.grid(which="minor", axis="y", color="white", linewidth=6)
    at.grid(which="major", axis="x", color=GREY, linewidth=0.6, alpha=0.6)
    at.set_axisbelow(False)
    at.tick_params(which="both", length=0)
    at.set_xlabel("token of the text (lines: segments)")
    return figure


def shift(before: np.ndarray, after: np.ndarray) -> Figure:
    """Scores per distance and the same numbers per key, each printed; entries after the query are left grey.

    Parameters
    ----------
    before, after : (seq_q, seq_k)
        Column c of `before` belongs to the distance seq_k - 1 - c, column j of `after` to key j.

    Returns
    -------
    Figure
    """
    seq_q, seq_k = before.shape
    figure, axes = new_figure(2.3, 2)
    limit = 2.4 * float(before.max())         # so pale that all numbers are black
    later = np.arange(seq_k)[None] > np.arange(seq_k - seq_q, seq_k)[:, None]
    queries = [str(i) for i in range(seq_k - seq_q, seq_k)]
    distances = [str(t) for t in range(seq_k - 1, -1, -1)]
    matrix_map(axes[0, 0], before, rows=queries, columns=distances, limit=limit, numbers=".0f", title="a column per distance")
    matrix_map(axes[0, 1], np.where(later, np.nan, after), rows=queries, columns=[str(j) for j in range(seq_k)], limit=limit,
               title="a column per key")
    for (i, j), number in np.ndenumerate(after):
        axes[0, 1].text(j, i, f"{number:.0f}", ha="center", va="center", fontsize=9, color=GREY if later[i, j] else "black")
    axes[0, 0].set_ylabel("query at position")
    axes[0, 0].set_xlabel("distance")
    axes[0, 1].set_xlabel("key at position")
    return figure


def recall(curves: dict[str, np.ndarray]) -> Figure:
    """Share of right answers, a row per memory, a column per number of segments since the fact was told; each printed.

    Parameters
    ----------
    curves : dict of str to (distances,)
        Name -> share of right answers.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(0.42 * len(curves) + 0.8)
    shares = np.stack(list(curves.values()))
    matrix_map(axes[0, 0], shares, rows=list(curves), columns=[str(ago) for ago in range(shares.shape[1])], limit=1.0, numbers=".2f")
    axes[0, 0].set_xlabel("segments since the fact was told")
    return figure


def eviction(changes: np.ndarray, tokens: list[str]) -> Figure:
    """How much a head's results change when one key is taken away, one dot per key, on a logarithmic axis.

    Parameters
    ----------
    changes : (seq_k,)
        Length of the change over the length of the result.
    tokens : list of str
        Names of the keys.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.0)
    at = axes[0, 0]
    colours = [ORANGE if j == changes.argmax() else BLUE for j in range(len(tokens))]
    at.scatter(range(len(tokens)), changes, color=colours, s=45, zorder=3)
    at.axhline(1, color=GREY, linestyle="--", linewidth=1.2)
    at.text(len(tokens) - 0.5, 1.1, "as large as the result itself", color=GREY, ha="right", va="bottom")
    at.set_yscale("log")
    at.set_yticks([0.1, 1], labels=["0.1", "1"])
    at.set_xticks(range(len(tokens)), labels=tokens, rotation=90)
    at.set_xlabel("key taken away")
    at.set_ylabel("change / result")
    return figure


def bytes_held(tokens: np.ndarray, curves: dict[str, np.ndarray]) -> Figure:
    """Bytes that a memory holds per layer after so many tokens, one line per memory, both axes logarithmic.

    Parameters
    ----------
    tokens : (n,)
        Tokens read.
    curves : dict of str to (n,)
        Name -> bytes.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.4)
    at = axes[0, 0]
    for name, curve in curves.items():
        at.plot(tokens, np.asarray(curve) / 1024, label=name)
    at.set_xscale("log", base=2)
    at.set_yscale("log", base=2)
    at.set_xticks(tokens[::2], labels=[f"{n:,}" for n in tokens[::2]])
    kib = 4.0 ** np.arange(1, 1 + np.ceil(np.log(max(map(np.max, curves.values())) / 1024) / np.log(4)))
    at.set_yticks(kib, labels=[f"{n:,.0f}" for n in kib])
    at.minorticks_off()
    at.set_xlabel("tokens read")
    at.set_ylabel("KiB held per layer")
    figure.legend(loc="outside upper center", ncols=2)
    return figure
