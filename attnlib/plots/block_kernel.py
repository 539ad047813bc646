"""Figures of chapter 23: a map beside its lists, what the size of a block costs and buys, when the last program ends."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import NullFormatter, ScalarFormatter

from attnlib.plots.style import BLUE, GREY, ORANGE, SKY, new_figure

__all__ = ["block_sizes", "finish", "map_and_lists"]


def map_and_lists(kinds: np.ndarray, first: np.ndarray, partial: np.ndarray, blocks: np.ndarray) -> Figure:
    """A map of blocks, and beside each of its rows the list that a kernel walks.

    Parameters
    ----------
    kinds : (blocks_q, blocks_k) of int
        0 left out, 1 partial, 2 whole.
    first, partial, blocks : (blocks_q + 1,), (blocks_q,), (entries,) of int
        Where each list begins, where its partial blocks begin, and the blocks.

    Returns
    -------
    Figure
    """
    longest = int(np.diff(first).max())
    figure, axes = new_figure(3.7, 2, sharey=True, width_ratios=(kinds.shape[1], longest + 0.5))
    colours = {0: "#ffffff", 1: "#f0b48c", 2: "#8cbfdc"}     # white, light orange, light blue

    def square(at, x, y, kind, word=""):
        at.add_patch(Rectangle((x, y), 1, 1, facecolor=colours[kind], edgecolor="#a0a0a0" if kind else "#dddddd", lw=1, zorder=1 + kind))
        at.text(x + 0.5, y + 0.52, word, ha="center", va="center", fontsize=11, zorder=5)

    for (i, j), kind in np.ndenumerate(kinds):
        square(axes[0, 0], j, i, int(kind))
    for i in range(len(kinds)):
        for place, entry in enumerate(range(first[i], first[i + 1])):
            square(axes[0, 1], place, i, 2 if entry < partial[i] else 1, str(blocks[entry]))
    for at, width, title in ((axes[0, 0], kinds.shape[1], "the map"), (axes[0, 1], longest, "its lists")):
        at.set_xlim(0, width)
        at.set_ylim(len(kinds), 0)
        at.set_title(title)
        at.set_aspect("equal")
        at.grid(False)
        at.spines[:].set_visible(False)
        at.tick_params(length=0)
    axes[0, 0].set_xticks(np.arange(kinds.shape[1]) + 0.5, range(kinds.shape[1]))
    axes[0, 0].set_yticks(np.arange(len(kinds)) + 0.5, range(len(kinds)))
    axes[0, 1].set_xticks([])
    axes[0, 0].set_xlabel("block of keys")
    axes[0, 0].set_ylabel("block of queries")
    figure.legend(handles=[Patch(facecolor=colours[2], edgecolor="#a0a0a0", label="whole: no mask"),
                           Patch(facecolor=colours[1], edgecolor="#a0a0a0", label="partial: masked")], loc="outside upper center", ncols=2)
    return figure


def block_sizes(sizes: list[int], computed: dict[str, list[float]], intensity: list[float], units: list[str]) -> Figure:
    """What a large block computes in vain, and what a small one cannot use.

    Parameters
    ----------
    sizes : list of int
        Side of a block.
    computed : dict of str to list of float
        For each pattern pairs computed for each pair allowed.
    intensity : list of float
        FLOPs of a step for each byte that it loads.
    units : list of str
        Instruction of the matrix units that the kernel compiles to.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(5.4, rows=2, sharex=True, height_ratios=(3, 2))
    top, bottom = axes[:, 0]
    for label, curve in computed.items():
        top.plot(sizes, curve, label=label)
    top.set_yscale("log", base=2)
    top.set_ylabel("pairs computed\nper pair allowed")
    top.set_ylim(0.9, 30)                                     # room for the names
    top.set_yticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    top.yaxis.set_minor_formatter(NullFormatter())
    top.axhline(1, color=GREY, linestyle="--", lw=1)
    top.legend(ncols=2, loc="upper left")
    bottom.set_xscale("log", base=2)
    bottom.plot(sizes, intensity, color=GREY, marker="", lw=1)
    for unit, colour, marker in zip(dict.fromkeys(units), (ORANGE, BLUE), "so", strict=False):
        own = [i for i, each in enumerate(units) if each == unit]
        bottom.plot([sizes[i] for i in own], [intensity[i] for i in own], color=colour, marker=marker, markersize=8, lw=0, label=unit)
    bottom.set_yscale("log", base=2)
    bottom.set_ylim(8, max(intensity) * 2)
    bottom.set_xticks(sizes, [str(each) for each in sizes])
    bottom.legend(title="matrix instruction", loc="lower right")
    bottom.xaxis.set_minor_formatter(NullFormatter())
    bottom.yaxis.set_major_formatter(ScalarFormatter())
    bottom.set_ylabel("FLOPs per byte\nof a step")
    bottom.set_xlabel("side of a block")
    bottom.grid(axis="x", visible=False)
    return figure


def finish(ends: dict[str, dict[str, float]]) -> Figure:
    """When the last program ends, as a multiple of a perfectly even share, for several patterns and orders.

    Parameters
    ----------
    ends : dict of str to dict of str to float
        Pattern -> order -> multiple.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(4.0)
    at, orders = axes[0, 0], list(next(iter(ends.values())))
    height = 0.8 / len(orders)
    for k, (order, colour) in enumerate(zip(orders, (SKY, BLUE, ORANGE, GREY), strict=False)):
        places = np.arange(len(ends)) + (k - (len(orders) - 1) / 2) * height
        values = [each[order] for each in ends.values()]
        at.barh(places, values, height=0.9 * height, color=colour, label=order)
        for place, value in zip(places, values, strict=True):
            at.text(value + 0.03, place, f"{value:.2f}", va="center", fontsize=8.5)
    at.axvline(1, color=GREY, linestyle="--", lw=1.2)
    at.set_yticks(range(len(ends)), list(ends))
    at.invert_yaxis()
    at.set_xlim(0, 1.12 * max(max(each.values()) for each in ends.values()))
    at.set_xlabel("end of the last program, over an even share")
    at.grid(axis="y", visible=False)
    figure.legend(loc="outside upper center", ncols=2)
    return figure
