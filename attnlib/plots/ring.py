"""Figures of chapter 24: the ring, who computes what, work of the ranks, bytes sent."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle
from matplotlib.ticker import NullFormatter

from attnlib.plots.style import CYCLE, new_figure

__all__ = ["rounds", "traffic", "who_computes", "work"]

COLOURS = CYCLE.by_key()["color"]


def rounds(ranks: int) -> Figure:
    """The ring in each step: devices keep their queries, and the keys at hand move on by one.

    Parameters
    ----------
    ranks : int
        Devices, at most five.

    Returns
    -------
    Figure
    """
    columns = 2
    figure, axes = new_figure(2.5 * -(-ranks // columns), columns, -(-ranks // columns))
    angles = np.pi / 2 - 2 * np.pi * np.arange(ranks) / ranks
    centres = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    for step, at in enumerate(axes.flat):
        at.axis("off")
        if step >= ranks:
            continue
        for rank, centre in enumerate(centres):
            owner = (rank - step) % ranks
            at.add_patch(Circle(centre, 0.36, facecolor=COLOURS[owner], alpha=0.35, edgecolor=COLOURS[rank], linewidth=2.5))
            at.text(*centre, f"Q{rank}\nKV{owner}", ha="center", va="center", fontsize=10.5)
            if step + 1 < ranks:
                at.add_patch(FancyArrowPatch(centre, centres[(rank + 1) % ranks], shrinkA=25, shrinkB=25, arrowstyle="-|>",
                                             mutation_scale=13, color=COLOURS[owner], linewidth=1.8))
        at.set_xlim(-1.55, 1.55)
        at.set_ylim(-1.45, 1.45)
        at.set_aspect("equal")
        at.set_title(f"step {step}", loc="center")
    return figure


def who_computes(placements: dict[str, list[list[int]]]) -> Figure:
    """Causal attention cut into tiles: which rank computes each, and in which step.

    Parameters
    ----------
    placements : dict of str to list of list of int
        Title -> for each rank the numbers of its stretches; all stretches of one panel are equally long.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.3, len(placements))
    for at, (title, of_rank) in zip(axes.flat, placements.items(), strict=True):
        rank_of = {chunk: rank for rank, chunks in enumerate(of_rank) for chunk in chunks}
        cuts, ranks = len(rank_of), len(of_rank)
        for i in range(cuts):
            for j in range(i + 1):
                rank, step = rank_of[i], (rank_of[i] - rank_of[j]) % ranks
                at.add_patch(Rectangle((j, i), 1, 1, facecolor=COLOURS[rank], alpha=0.45, edgecolor="white", linewidth=1.5))
                at.text(j + (0.5 if i > j else 0.33), i + (0.5 if i > j else 0.67), str(step), ha="center", va="center", fontsize=9.5)
            at.add_patch(Rectangle((i, i), 1, 1, facecolor="none"))
            at.fill([i, i + 1, i + 1], [i, i, i + 1], color="white")
        at.set_xlim(0, cuts)
        at.set_ylim(cuts, 0)
        at.set_aspect("equal")
        at.grid(False)
        at.set_xticks(np.arange(cuts) + 0.5, [str(rank_of[each]) for each in range(cuts)])
        at.set_yticks(np.arange(cuts) + 0.5, [str(rank_of[each]) for each in range(cuts)])
        at.tick_params(length=0)
        at.set_xlabel("keys, by the rank that owns them")
        at.set_ylabel("queries, by rank")
        at.set_title(title)
    return figure


def work(seconds: dict[str, list[float]], expected: dict[str, list[float]]) -> Figure:
    """Measured seconds of each rank beside what the count of scores predicts.

    Parameters
    ----------
    seconds : dict of str to list of float
        Placement -> CPU seconds, one a rank.
    expected : dict of str to list of float
        Placement -> the same as predicted.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(2.8, len(seconds), sharey=True)
    for at, colour, (name, measured) in zip(axes.flat, COLOURS, seconds.items(), strict=False):
        ranks = np.arange(len(measured))
        at.bar(ranks, measured, width=0.6, color=colour, alpha=0.6, label="measured")
        at.plot(ranks, expected[name], "_", color="black", markersize=26, markeredgewidth=2, label="by scores")
        at.set_xticks(ranks)
        at.set_xlabel("rank")
        at.set_title(name)
    axes[0, 0].set_ylabel("CPU seconds, forward")
    axes[0, 0].set_ylim(0, 1.25 * max(max(each) for each in seconds.values()))
    axes[0, -1].legend(loc="upper right")
    return figure


def traffic(ranks: list[int], mebibytes: dict[str, list[float]]) -> Figure:
    """What one device sends for one layer, against the number of devices.

    Parameters
    ----------
    ranks : list of int
        Numbers of devices.
    mebibytes : dict of str to list of float
        Legend -> MiB for each number; NaN where the way is closed.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.2)
    at = axes[0, 0]
    for name, values in mebibytes.items():
        at.loglog(ranks, values, label=name)
    at.set_xticks(ranks, [str(each) for each in ranks])
    at.xaxis.set_minor_formatter(NullFormatter())
    at.set_yticks([125, 250, 500, 1000, 2000], ["125", "250", "500", "1000", "2000"])
    at.yaxis.set_minor_formatter(NullFormatter())
    at.set_xlabel("devices")
    at.set_ylabel("MiB sent by each, one layer")
    at.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure
