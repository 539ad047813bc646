"""Figures of chapter 17: what is kept, chunk sizes, time against length, spectra, interference, recall."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from attnlib.plots.style import BLUE, GREEN, GREY, ORANGE, PURPLE, new_figure, weight_maps

__all__ = ["chunk_sizes", "features_needed", "interference", "kept", "recall", "times", "weight_maps"]


def kept(tokens: list[int], numbers: dict[str, list[int]], crossing: float) -> Figure:
    """Numbers kept per head against tokens read.

    Parameters
    ----------
    tokens : list of int
        Tokens read.
    numbers : dict of str to list of int
        Legend -> numbers kept.
    crossing : float
        Tokens at which the first two are equal, to be marked.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.0)
    at = axes[0, 0]
    for name, curve in numbers.items():
        at.loglog(tokens, curve, label=name)
    at.axvline(crossing, color=GREY, linestyle="--", linewidth=1)
    at.set_xlabel("tokens read")
    at.set_ylabel("numbers kept per head")
    at.legend()
    return figure


def chunk_sizes(chunks: list[int], flops: np.ndarray, seconds: np.ndarray) -> Figure:
    """Operations counted and time measured, against tokens per chunk.

    Parameters
    ----------
    chunks : list of int
        Tokens per chunk.
    flops : (sizes,)
        Operations, in units of 10⁹.
    seconds : (sizes,)
        CPU time in seconds.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(4.2, rows=2, sharex=True)
    for at, curve, label, colour in ((axes[0, 0], flops, "GFLOP", BLUE), (axes[1, 0], 1000 * seconds, "CPU time (ms)", ORANGE)):
        at.loglog(chunks, curve, color=colour)
        at.set_ylabel(label)
    axes[1, 0].set_xscale("log", base=2)
    axes[1, 0].set_xticks(chunks, labels=chunks)
    axes[1, 0].set_xlabel("tokens per chunk")
    for at in axes[:, 0]:
        _plain_ticks(at)
    return figure


def _plain_ticks(at: Axes) -> None:
    """1, 2, 5 per power of ten along a logarithmic vertical axis, written out."""
    at.minorticks_off()
    at.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    at.yaxis.set_major_formatter("{x:g}")


def times(lengths: list[int], seconds: dict[str, np.ndarray]) -> Figure:
    """Time against sequence length on logarithmic axes.

    Parameters
    ----------
    lengths : list of int
        Tokens.
    seconds : dict of str to (lengths,) array
        Legend -> CPU time in seconds.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.2)
    at = axes[0, 0]
    for name, curve in seconds.items():
        at.loglog(lengths, 1000 * np.asarray(curve), label=name)
    at.set_xticks(lengths, labels=lengths)
    _plain_ticks(at)
    at.set_xlabel("tokens")
    at.set_ylabel("CPU time (ms)")
    at.legend()
    return figure


def features_needed(
    spectra: dict[str, np.ndarray], features: list[int], random: dict[str, np.ndarray], fixed: dict[str, dict[str, float]],
    taylor: int, width: int = 32,
) -> Figure:
    """Singular values of heads' weights beside the error of feature maps on them.

    Parameters
    ----------
    spectra : dict of str to (seq,) array
        Head -> singular values, largest first.
    features : list of int
        Numbers of random features.
    random : dict of str to (len(features),) array
        Head -> mean share of weight in the wrong place.
    fixed : dict of str to dict of str to float
        Head -> the same error of "elu + 1" and of "Taylor".
    taylor : int
        Features of the Taylor map.
    width : int
        Features of "elu + 1".

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.7, columns=2)
    left, right = axes[0]
    for (name, values), colour, marker in zip(spectra.items(), (BLUE, ORANGE, GREEN), "os^", strict=True):
        left.plot(range(1, len(values) + 1), values, color=colour, marker=marker, label=name)
        right.semilogx(features, random[name], color=colour, marker=marker)
        right.plot(taylor, fixed[name]["Taylor"], color=colour, marker="*", markersize=13, linestyle="none")
        right.plot(width, fixed[name]["elu + 1"], color=colour, marker="X", markersize=10, linestyle="none")
    left.set_xlabel("which singular value")
    left.set_ylabel("singular value of the weights")
    left.legend()
    right.set_ylim(0, 1)
    right.set_xlabel("features")
    right.set_ylabel("weight in the wrong place")
    right.set_title("random; ★ Taylor; × elu + 1")
    return figure


def interference(ratio: np.ndarray, curves: dict[str, np.ndarray], predicted: np.ndarray) -> Figure:
    """Error of what a state answers, against how full it is.

    Parameters
    ----------
    ratio : (sizes,)
        Pairs per dimension.
    curves : dict of str to (sizes,) array
        Legend -> mean square error relative to the values' own size.
    predicted : (sizes,)
        The prediction for plain sums.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.3)
    at = axes[0, 0]
    for (name, curve), colour, marker in zip(curves.items(), (BLUE, ORANGE, GREEN), "os^", strict=True):
        at.plot(ratio, curve, color=colour, marker=marker, label=name)
    at.plot(ratio, predicted, color=GREY, linestyle="--", marker="", linewidth=1, label="predicted for the sum")
    at.axhline(1, color=GREY, linewidth=0.8)
    at.text(1.3, 1.02, "error of answering 0", color=GREY, va="bottom", fontsize=9.5)
    at.set_xlabel("pairs stored per key dimension")
    at.set_ylabel("relative squared error")
    at.set_ylim(0, 2.1)
    at.legend(loc="upper left")
    return figure


def recall(pairs: list[int], panels: dict[str, dict[str, np.ndarray]], chance: float) -> Figure:
    """Right answers over stored pairs, one panel per task, one curve per rule; thin lines are single seeds.

    Parameters
    ----------
    pairs : list of int
        Pairs in a story.
    panels : dict of str to dict of str to (seeds, len(pairs)) array
        Title -> rule -> share of right answers.
    chance : float
        A blind guess.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.9, columns=len(panels), sharey=True)
    styles = dict(zip(("softmax", "linear", "Taylor", "sum", "gated", "delta"),
                      ((BLUE, "o"), (GREY, "v"), (PURPLE, "D"), (GREEN, "^"), ("#56B4E9", "P"), (ORANGE, "s")), strict=True))
    for at, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for name, shares in curves.items():
            colour, marker = styles[name]
            ring = {"markerfacecolor": "none", "markersize": 10, "zorder": 3} if name == "softmax" else {}  # others lie on it
            at.plot(pairs, np.mean(shares, axis=0), color=colour, marker=marker, label=name, **ring)
            for share in shares:
                at.plot(pairs, share, color=colour, marker="", linewidth=0.6, alpha=0.6)
        at.axhline(chance, color=GREY, linestyle="--", linewidth=1, marker="", label="chance")
        at.set_xscale("log", base=2)
        at.set_xticks(pairs, labels=pairs)
        at.minorticks_off()
        at.set_xlabel("pairs in the story")
        at.set_title(title)
        at.set_ylim(0, 1.05)
    axes[0, 0].set_ylabel("right answers")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, columnspacing=1.0, handlelength=1.4)
    return figure
