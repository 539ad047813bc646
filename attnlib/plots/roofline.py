"""Figures of chapter 19: the roofline, least times, and memories to scale."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from attnlib.plots.style import BLUE, CYCLE, GREY, ORANGE, new_figure

__all__ = ["bounds", "hierarchy", "roof"]


def roof(peak: float, bandwidth: float, points: dict[str, tuple[float, float]]) -> Figure:
    """A roofline on logarithmic axes, and programs under it.

    Parameters
    ----------
    peak : float
        FLOP/s.
    bandwidth : float
        Bytes/s.
    points : dict of str to (float, float)
        Legend -> FLOPs per byte, and FLOP/s reached.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.6)
    at, intensity = axes[0, 0], np.logspace(-2, 3, 200)
    at.loglog(intensity, np.minimum(peak, intensity * bandwidth) / 1e9, color=GREY, marker="")
    at.axvline(peak / bandwidth, color=GREY, linestyle=":", linewidth=1)
    at.annotate("balance", (peak / bandwidth, at.get_ylim()[0]), xytext=(4, 4), textcoords="offset points", color=GREY, fontsize=9)
    for style, (name, (x, y)) in zip(CYCLE, points.items(), strict=False):  # hollow: points may lie on one another
        at.loglog([x], [y / 1e9], linestyle="", markersize=9, markerfacecolor="none", markeredgewidth=2, label=name, **style)
    at.set_xlabel("FLOPs per byte moved")
    at.set_ylabel("GFLOP/s")
    at.legend(loc="lower right")
    return figure


def bounds(lengths: list[int], milliseconds: dict[str, list[float]]) -> Figure:
    """Least times against length, on logarithmic axes.

    Parameters
    ----------
    lengths : list of int
        Tokens.
    milliseconds : dict of str to list of float
        Legend -> a time for each length.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.0)
    at = axes[0, 0]
    for name, values in milliseconds.items():
        at.loglog(lengths, values, label=name)
    at.set_xscale("log", base=2)
    at.set_xticks(lengths, [f"{each // 1024}k" if each >= 1024 else str(each) for each in lengths])
    at.set_xlabel("tokens")
    at.set_ylabel("at least (ms)")
    at.legend()
    return figure


def hierarchy(sizes: dict[str, float]) -> Figure:
    """Squares whose areas are sizes of memories, the largest to the left.

    Parameters
    ----------
    sizes : dict of str to float
        Name -> size, in MB.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.6)
    at, largest = axes[0, 0], max(sizes.values())
    small = {name: size for name, size in sizes.items() if size < largest}
    side = np.sqrt(largest)
    at.add_patch(Rectangle((0, 0), side, side, color=BLUE, alpha=0.25))
    at.text(side / 2, side / 2, f"{next(name for name, size in sizes.items() if size == largest)}\n{largest / 1000:,.0f} GB", ha="center", va="center")
    for i, (name, size) in enumerate(small.items()):
        edge, bottom = np.sqrt(size), side * (0.86 - 0.27 * i)
        at.add_patch(Rectangle((1.08 * side, bottom), edge, edge, color=ORANGE))
        at.text(1.2 * side, bottom + edge / 2, f"{name}: {size:,.0f} MB", va="center")
    at.set_xlim(-0.02 * side, 2.3 * side)
    at.set_ylim(-0.02 * side, 1.02 * side)
    at.set_aspect("equal")
    at.axis("off")
    return figure
