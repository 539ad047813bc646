"""Figures of chapters 21 and 22: programs and what they touch, and what kernels compile to."""

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from attnlib.plots.style import BLUE, GREEN, GREY, ORANGE, SKY, new_figure

__all__ = ["kept", "kernel_walks", "orders", "programs_on_memory", "registers", "schedules", "tile_map"]


def programs_on_memory(rows: int, n_cols: int, block: int) -> Figure:
    """The first rows of a matrix as they lie in memory, and the block that each program lays over them.

    Parameters
    ----------
    rows : int
        Rows to show.
    n_cols : int
        Numbers in a row.
    block : int
        Numbers in a block, at least `n_cols`.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(2.3)
    at, colours = axes[0, 0], [BLUE, ORANGE, GREEN, SKY]
    for place in range(rows * n_cols + block - n_cols):
        row = place // n_cols
        own = row < rows
        at.add_patch(Rectangle((place, 0), 1, 1, facecolor=colours[row] if own else "white", alpha=0.45 if own else 1, edgecolor=GREY, lw=0.6))
    for row in range(rows):
        start, y = row * n_cols, -0.55 - 0.75 * row
        at.add_patch(Rectangle((start, y - 0.5), n_cols, 0.5, facecolor=colours[row], alpha=0.45, edgecolor=GREY, lw=0.6))
        at.add_patch(Rectangle((start + n_cols, y - 0.5), block - n_cols, 0.5, facecolor="white", edgecolor=ORANGE, hatch="/////", lw=0.6))
        end = start + block + 0.5
        right = end < rows * n_cols - 12
        at.text(end if right else start - 0.5, y - 0.28, f"program {row}: {n_cols} of {block} places", va="center",
                ha="left" if right else "right", fontsize=9.5)
    at.text(0, 1.2, f"memory: one row after the other ({rows} rows, then not ours)", fontsize=9.5)
    at.set_xlim(-0.5, rows * n_cols + block - n_cols + 0.5)
    at.set_ylim(-0.8 * rows - 0.6, 1.9)
    at.axis("off")
    at.legend(handles=[Patch(facecolor="white", edgecolor=ORANGE, hatch="/////", label="masked: not of this row")], loc="upper right",
              bbox_to_anchor=(1, 1.12))
    return figure


def tile_map(kinds: np.ndarray, seen: np.ndarray, block_q: int, block_k: int, orders: np.ndarray) -> Figure:
    """Which tiles the programs of one head compute, over the pattern of who sees whom.

    Parameters
    ----------
    kinds : (tiles of queries, tiles of keys) of int
        0 skipped, 1 without masks, 2 with masks.
    seen : (seq_q, seq_k) bool
        Who sees whom.
    block_q, block_k : int
        Size of a tile.
    orders : (tiles of queries,) of int
        Which program computes each row of tiles.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.6)
    at = axes[0, 0]
    at.imshow(np.where(seen, 1, 0), cmap=ListedColormap(["#ffffff", "#d9d9d9"]), extent=(0, seen.shape[1], seen.shape[0], 0), aspect="equal")
    for (i, j), kind in np.ndenumerate(kinds):
        if kind:
            at.add_patch(Rectangle((j * block_k, i * block_q), block_k, block_q, facecolor=BLUE if kind == 1 else ORANGE, alpha=0.35, edgecolor="black", lw=0.8))
    for i, program in enumerate(orders):
        at.text(-1.5, (i + 0.5) * block_q, f"program {program}", ha="right", va="center", fontsize=9)
    at.set_xlim(0, kinds.shape[1] * block_k)
    at.set_ylim(kinds.shape[0] * block_q, 0)
    at.set_xlabel("key")
    at.set_ylabel("query", labelpad=62)
    beyond = kinds.shape[0] * block_q - seen.shape[0]
    if beyond:
        at.text(kinds.shape[1] * block_k + 1, kinds.shape[0] * block_q - beyond / 2, "no such queries", va="center", fontsize=9)
    at.set_yticks([])
    at.grid(False)
    at.spines[:].set_visible(False)
    at.legend(handles=[Patch(facecolor=BLUE, alpha=0.35, edgecolor="black", label="tile without masks"),
                       Patch(facecolor=ORANGE, alpha=0.35, edgecolor="black", label="tile with masks"),
                       Patch(facecolor="#d9d9d9", label="darker: pair that is seen")], loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def registers(labels: list[str], used: list[int], spilled: list[int], limit: int = 255) -> Figure:
    """Registers of each tile as bars, and the bytes that did not fit.

    Parameters
    ----------
    labels : list of str
        Of the tiles.
    used : list of int
        Registers per thread.
    spilled : list of int
        Bytes per thread.
    limit : int
        The most there are.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.2)
    at, places = axes[0, 0], np.arange(len(labels))
    at.barh(places, used, color=[ORANGE if each else BLUE for each in spilled], height=0.65)
    for place, count, extra in zip(places, used, spilled, strict=True):
        at.text(count + 3, place, f"{extra} B spilled" if extra else "fits", va="center", fontsize=9)
    at.axvline(limit, color=GREY, linestyle="--", lw=1.2)
    at.text(limit - 3, -0.75, "no more than 255", color=GREY, fontsize=9, ha="right")
    at.set_yticks(places, labels)
    at.invert_yaxis()
    at.set_xlim(0, 340)
    at.set_xticks([0, 50, 100, 150, 200, 250])
    at.set_xlabel("registers per thread")
    at.grid(axis="y", visible=False)
    return figure


def kept(lengths: list[int], curves: dict[str, list[float]]) -> Figure:
    """Memory over the length of the sequence, one line for each way to compute.

    Parameters
    ----------
    lengths : list of int
        Tokens.
    curves : dict of str to list of float
        MiB for each length.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.0)
    at = axes[0, 0]
    for label, values in curves.items():
        at.plot(lengths, values, label=label)
    at.set_xscale("log", base=2)
    at.set_yscale("log", base=2)
    at.set_xticks(lengths, [f"{each:,}" for each in lengths])
    at.set_xlabel("length of the sequence")
    at.set_ylabel("MiB")
    at.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    at.legend()
    return figure


def kernel_walks(seen: np.ndarray, block: int) -> Figure:
    """The two walks of the backward pass over one causal square: down a column of tiles, and along a row.

    Parameters
    ----------
    seen : (seq_q, seq_k) bool
        Who sees whom.
    block : int
        Queries and keys to a tile.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.1, 2)
    tiles_q, tiles_k = -(-seen.shape[0] // block), -(-seen.shape[1] // block)
    for at, title, held, along in ((axes[0, 0], "d_k, d_v: a program holds keys", 1, "column"), (axes[0, 1], "d_q: a program holds queries", 2, "row")):
        at.imshow(np.where(seen, 1, 0), cmap=ListedColormap(["#ffffff", "#dddddd"]), extent=(0, seen.shape[1], seen.shape[0], 0), aspect="equal")
        order = 0
        for step in range(tiles_q if along == "column" else tiles_k):
            i, j = (step, held) if along == "column" else (held, step)
            if not seen[i * block:(i + 1) * block, j * block:(j + 1) * block].any():
                continue
            order += 1
            colour = BLUE if along == "column" else ORANGE
            at.add_patch(Rectangle((j * block, i * block), block, block, facecolor=colour, alpha=0.45, edgecolor="black", lw=0.8))
            at.text((j + 0.5) * block, (i + 0.5) * block, str(order), ha="center", va="center", fontsize=11)
        at.set_title(title, fontsize=10)
        at.set_xticks(range(0, seen.shape[1] + 1, block))
        at.set_yticks(range(0, seen.shape[0] + 1, block))
        at.set_xlabel("key")
        at.set_ylabel("query")
    return figure


def schedules(panels: dict[str, list[tuple[int, float, float]]], workers: int) -> Figure:
    """Who works when: one bar for each program, on the multiprocessor that took it.

    Parameters
    ----------
    panels : dict of str to list of (worker, start, length)
        Title -> bars.
    workers : int
        Multiprocessors.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.2, 1, len(panels), sharex=True)
    longest = max(length for bars in panels.values() for _, _, length in bars)
    for at, (title, bars) in zip(axes[:, 0], panels.items(), strict=True):
        for worker, start, length in bars:
            at.barh(worker, length, left=start, height=0.8, color=BLUE, alpha=0.25 + 0.65 * length / longest, edgecolor="white", lw=0.8)
        end = max(start + length for _, start, length in bars)
        at.axvline(end, color=ORANGE, lw=1.5)
        at.text(end + 0.6, (workers - 1) / 2, f"done\n{end:.0f}", color=ORANGE, va="center", fontsize=9.5)
        at.set_title(title)
        at.set_yticks([])
        at.set_ylabel("units")
        at.grid(axis="y", visible=False)
    axes[-1, 0].set_xlabel("time, in tiles")
    axes[-1, 0].set_xlim(right=axes[-1, 0].get_xlim()[1] * 1.05)
    return figure


def orders(sums: np.ndarray, exact: float) -> Figure:
    """How often each of several rounded sums came out.

    Parameters
    ----------
    sums : (trials,)
        Sums of the same numbers in different orders.
    exact : float
        The sum without rounding.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(2.7)
    at = axes[0, 0]
    values, counts = np.unique(sums, return_counts=True)
    at.bar(1e6 * (values - exact), counts, width=0.2, color=BLUE)
    at.axvline(0, color=ORANGE, lw=1.5, label="exact sum")
    at.set_xlabel("rounded sum less exact sum, in millionths")
    at.set_ylabel("orders out of 1000" if len(sums) == 1000 else "orders")
    at.grid(axis="x", visible=False)
    at.legend()
    return figure
