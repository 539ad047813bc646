"""Figures of chapter 15: what a block computes in vain, patterns and the blocks they touch, the band in memory, costs."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from attnlib.plots.style import BLUE, GREY, ORANGE, new_figure

__all__ = ["band_in_memory", "block_sizes", "patterns", "predicted_and_measured", "receptive_fields"]


def block_sizes(blocks: list[int], computed: np.ndarray, seconds: np.ndarray) -> Figure:
    """Pairs computed for each pair needed, and time, against the size of a block.

    Parameters
    ----------
    blocks : list of int
        Queries to a block.
    computed : (sizes,)
        Computed pairs divided by needed ones.
    seconds : (sizes,)
        CPU time in seconds.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(4.2, rows=2, sharex=True)
    labels = "pairs computed\nper pair needed", "CPU time (ms)"
    for at, curve, label, colour, marker in zip(axes[:, 0], (computed, 1000 * seconds), labels, (BLUE, ORANGE), "os", strict=True):
        at.loglog(blocks, curve, color=colour, marker=marker)
        at.set_ylabel(label)
        at.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        at.yaxis.set_major_formatter(ScalarFormatter())
        at.yaxis.set_minor_formatter(NullFormatter())
    axes[1, 0].set_xscale("log", base=2)
    axes[1, 0].set_xticks(blocks, labels=[str(block) for block in blocks])
    axes[1, 0].set_xlabel("queries per block")
    axes[0, 0].axhline(1, color=GREY, linestyle="--", linewidth=1)
    axes[0, 0].annotate("nothing in vain", (blocks[-1], 1), (0, 4), textcoords="offset points", ha="right", fontsize=9, color=GREY)
    return figure


def patterns(masks: dict[str, np.ndarray], touched: dict[str, np.ndarray], block: int) -> Figure:
    """Allowed pairs, and the blocks that hold one.

    Parameters
    ----------
    masks : dict of str to (seq, seq) bool array
        Title -> allowed pairs.
    touched : dict of str to (blocks, blocks) bool array
        Title -> blocks that are computed.
    block : int
        Side of a block.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(6.2, 2, 2)
    for at, (title, mask) in zip(axes.flat, masks.items(), strict=True):
        at.imshow(mask, cmap="Blues", vmin=0, vmax=1.3)
        for i, j in np.argwhere(touched[title]):
            at.add_patch(Rectangle((j * block - 0.5, i * block - 0.5), block, block, fill=False, edgecolor=ORANGE, linewidth=1.4))
        at.set_title(f"{title}: {mask.mean():.0%} allowed,\n{touched[title].mean():.0%} of the blocks touched")
        at.grid(False)
        at.set_xticks([])
        at.set_yticks([])
        at.set_xlabel("key")
        at.set_ylabel("query")
    return figure


def band_in_memory(rows: int, width: int) -> Figure:
    """One tile of scores, row after row, and the same numbers as one line of memory.

    Parameters
    ----------
    rows : int
        Queries of the tile.
    width : int
        Keys in each window.

    Returns
    -------
    Figure
    """
    columns = rows + width - 1
    band = np.array([[i <= j < i + width for j in range(columns)] for i in range(rows)])
    figure, axes = new_figure(3.6, rows=2, height_ratios=(rows, 1.6))
    top, line = axes[:, 0]
    top.imshow(band, cmap="Blues", vmin=0, vmax=1.4)
    for i, j in np.ndindex(band.shape):
        top.text(j, i, str(i * columns + j), ha="center", va="center", fontsize=9, color="white" if band[i, j] else GREY)
    top.set_ylabel("query of the tile")
    top.set_xlabel("key of the tile; the number is the place in memory")
    line.imshow(band.reshape(1, -1), cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
    for i in range(rows):
        first = i * (columns + 1)
        label = f"row {i}\n{first}–{first + width - 1}"
        line.text(first + (width - 1) / 2, 0, label, ha="center", va="center", fontsize=9, color="white")
    line.set_xlabel(f"memory: each row of the band begins {columns + 1} places after the one before")
    for at in (top, line):
        at.grid(False)
        at.set_xticks([])
        at.set_yticks([])
    return figure


def receptive_fields(fields: dict[str, list[int]]) -> Figure:
    """Tokens within reach of the last one, layer by layer.

    Parameters
    ----------
    fields : dict of str to list of int
        Legend -> number of tokens after 1, 2, ... layers.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.2)
    at = axes[0, 0]
    for name, counts in fields.items():
        at.plot(range(1, len(counts) + 1), counts, label=name)
    at.set_yscale("log", base=2)
    at.set_yticks([4, 8, 16, 32, 64], labels=["4", "8", "16", "32", "64"])
    at.set_xticks(range(1, max(map(len, fields.values())) + 1))
    at.set_xlabel("layers")
    at.set_ylabel("tokens that can\nchange the last result")
    at.legend()
    return figure


def predicted_and_measured(predicted: dict[str, float], measured: dict[str, float]) -> Figure:
    """Share of the dense time: predicted from the pairs computed, and measured.

    Parameters
    ----------
    predicted, measured : dict of str to float
        Pattern -> share of the time of dense attention.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.4)
    at, place = axes[0, 0], np.arange(len(predicted))
    at.barh(place - 0.2, list(predicted.values()), 0.38, color=BLUE, label="predicted: pairs computed")
    at.barh(place + 0.2, [measured[name] for name in predicted], 0.38, color=ORANGE, hatch="//", edgecolor="white", label="measured: time")
    at.set_yticks(place, labels=list(predicted))
    at.invert_yaxis()
    at.set_xlabel("share of dense attention")
    at.legend()
    return figure
