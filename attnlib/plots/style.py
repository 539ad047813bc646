"""The house style: colours, sizes, and the few shapes of figure every chapter shares.

One message per figure. Weights: one sequential map from 0 to 1. Signed values: one diverging map
centred on zero. Lines: colours that survive colour blindness, with markers. The page shows figures on white and, in
dark mode, inverts them with hues kept, so no meaning rests on black against white.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

__all__ = ["BLUE", "CYCLE", "GREY", "ORANGE", "SIGNED", "WEIGHTS", "WIDTH", "matrix_map", "new_figure", "weight_maps"]

WIDTH = 6.0  # inches: readable at phone width, crisp at column width
BLUE, ORANGE, GREEN, PURPLE, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#56B4E9", "#6b6b6b"
CYCLE = cycler(color=[BLUE, ORANGE, GREEN, PURPLE, SKY], marker=["o", "s", "^", "D", "v"])
WEIGHTS, SIGNED = "Blues", "RdBu_r"

_RC = {
    "figure.dpi": 160, "figure.facecolor": "white", "savefig.facecolor": "white",
    "font.size": 10.5, "axes.titlesize": 10.5, "axes.labelsize": 10.5, "legend.fontsize": 9.5,
    "xtick.labelsize": 9.5, "ytick.labelsize": 9.5, "axes.titlelocation": "left",
    "axes.prop_cycle": CYCLE, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.6, "axes.axisbelow": True,
    "figure.figsize": (WIDTH, 3.2), "lines.linewidth": 1.8, "lines.markersize": 5, "legend.frameon": False,
}
plt.rcParams.update(_RC)  # importing a figure module sets the style for the whole notebook


def new_figure(height: float, columns: int = 1, rows: int = 1, **subplots: object) -> tuple[Figure, np.ndarray]:
    """A figure in the house style.

    Parameters
    ----------
    height : float
        Inches; the width is always `WIDTH`.
    columns, rows : int
        Panels.
    **subplots
        Passed on to `matplotlib.pyplot.subplots`.

    Returns
    -------
    figure : Figure
    axes : (rows, columns) array of Axes
        Always two-dimensional.
    """
    return plt.subplots(rows, columns, figsize=(WIDTH, height), squeeze=False, layout="constrained", **subplots)


def matrix_map(
    axes: Axes, matrix: np.ndarray, *, rows: list[str] | None = None, columns: list[str] | None = None,
    signed: bool = False, limit: float = 1.0, numbers: str | None = None, title: str = "",
) -> AxesImage:
    """Draw one matrix as coloured squares, row 0 on top.

    Parameters
    ----------
    axes : Axes
        Where to draw.
    matrix : (rows, columns)
        Weights from 0 to `limit`, or signed values from -limit to limit; NaN is left grey.
    rows, columns : list of str, optional
        Tick labels.
    signed : bool
        Diverging colours around zero instead of sequential ones from zero.
    limit : float
        End of the colour scale, the same across panels that are compared.
    numbers : str, optional
        Format such as ``".2f"`` to print each entry in its square.
    title : str
        Above the panel.

    Returns
    -------
    AxesImage
        For a colour bar.
    """
    colours = plt.get_cmap(SIGNED if signed else WEIGHTS).with_extremes(bad="#c8c8c8")
    image = axes.imshow(matrix, cmap=colours, vmin=-limit if signed else 0, vmax=limit, aspect="auto")
    axes.set_title(title)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for labels, set_ticks in ((rows, axes.set_yticks), (columns, axes.set_xticks)):
        set_ticks(range(len(labels)) if labels else [], labels=labels)
    if columns and max(map(len, columns)) > 2:
        axes.tick_params(axis="x", labelrotation=90)
    if numbers:
        for (i, j), value in np.ndenumerate(matrix):
            dark = abs(value) > 0.6 * limit
            axes.text(j, i, format(value, numbers), ha="center", va="center", fontsize=9, color="white" if dark else "black")
    return image


def weight_maps(
    panels: dict[str, np.ndarray], tokens: list[str] | None = None, *, height: float = 3.2, columns: int | None = None,
    limit: float = 1.0,
) -> Figure:
    """Attention weights side by side on one scale, queries down, keys across.

    Parameters
    ----------
    panels : dict of str to (seq_q, seq_k) array
        Title -> weights; at most a dozen.
    tokens : list of str, optional
        Labels of queries and keys.
    height : float
        Inches.
    columns : int, optional
        Panels per row; default all in one row.
    limit : float
        Weight at the dark end of the scale.

    Returns
    -------
    Figure
    """
    columns = columns or len(panels)
    figure, axes = new_figure(height, columns, -(-len(panels) // columns))
    for i, (title, weights) in enumerate(panels.items()):
        at = axes.flat[i]
        bottom, room = i >= len(panels) - columns, columns < 3  # narrow panels have no room for names below
        image = matrix_map(at, weights, rows=tokens if i % columns == 0 else None,
                           columns=tokens if bottom and room else None, title=title, limit=limit)
        if i % columns == 0:
            at.set_ylabel("query")
        if bottom:
            at.set_xlabel("key" if room or tokens is None else "key (same order)")
    for spare in axes.flat[len(panels):]:
        spare.set_axis_off()
    figure.colorbar(image, ax=axes, label="weight", shrink=0.8, aspect=30)
    return figure
