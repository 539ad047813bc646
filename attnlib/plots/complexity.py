"""Figures of chapter 14: FLOPs, memory and time against length, where costs meet, and where a model spends its FLOPs."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from attnlib.plots.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, new_figure

__all__ = ["flops_by_length", "meetings", "memory_by_length", "shares", "times_by_length"]

_COLOURS = {"attention": BLUE, "naive": ORANGE, "fused": BLUE, "LSTM": GREEN, "GRU": PURPLE, "RNN": SKY, "convolution": GREY}
_MARKERS = {"attention": "o", "naive": "s", "fused": "o", "LSTM": "^", "GRU": "D", "RNN": "v", "convolution": "P"}


def flops_by_length(lengths: np.ndarray, per_token: dict[str, np.ndarray], points: dict[str, tuple[float, float]]) -> Figure:
    """FLOPs for each token, in squared widths, against the length, with the lengths at which two layers cost the same.

    Parameters
    ----------
    lengths : (sizes,)
        Tokens.
    per_token : dict of str to (sizes,)
        Layer -> FLOPs divided by tokens and by the square of the width.
    points : dict of str to (length, value)
        What to write beside a point -> where it lies.

    Returns
    -------
    Figure
    """
    figure, ((at,),) = new_figure(3.4)
    for name, values in per_token.items():
        at.plot(lengths, values, label=name, color=_COLOURS[name], marker="", linewidth=2.4 if name == "attention" else 1.6,
                linestyle="-" if name == "attention" else "--")
        at.annotate(name, (lengths[-1], values[-1]), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9.5,
                    color=_COLOURS[name])
    for label, (length, value) in points.items():
        at.plot(length, value, marker="o", color=BLUE, markersize=7)
        at.annotate(label, (length, value), xytext=(-6, 6), textcoords="offset points", ha="right", fontsize=9.5)
    _log(at, lengths)
    at.set_yscale("log", base=2)
    at.yaxis.set_minor_locator(NullLocator())
    ticks = (4, 6, 8, 12, 16, 32, 64)
    at.set_yticks(ticks, labels=[f"{tick} d²" for tick in ticks])
    at.set_ylabel("FLOPs per token")
    at.margins(x=0.02)
    return figure


def memory_by_length(lengths: np.ndarray, measured: dict[str, np.ndarray], predicted: dict[str, np.ndarray]) -> Figure:
    """Bytes allocated at most, against the length of the sequence: measured as points, predicted as lines.

    Parameters
    ----------
    lengths : (sizes,)
        Tokens.
    measured, predicted : dict of str to (sizes,)
        Label -> bytes; the keys are ``"naive"`` and ``"fused"``, followed by what is run.

    Returns
    -------
    Figure
    """
    figure, ((at,),) = new_figure(3.2)
    for name, values in predicted.items():
        style = "-" if "backward" in name else ":"
        at.plot(lengths, np.asarray(values) / 2**20, color=_COLOURS[name.split()[0]], linestyle=style, marker="")
    for name, values in measured.items():
        kind = name.split()[0]
        at.plot(lengths, np.asarray(values) / 2**20, color=_COLOURS[kind], marker=_MARKERS[kind], linestyle="",
                fillstyle="full" if "backward" in name else "none", label=name)
    at.plot([], [], color=GREY, marker="", label="lines: predicted")
    _log(at, lengths)
    at.set_yscale("log")
    at.set_ylabel("MiB allocated at most")
    at.legend()
    return figure


def times_by_length(
    lengths: np.ndarray, measured: dict[str, np.ndarray], predicted: dict[str, np.ndarray], columns: int = 3
) -> Figure:
    """CPU time against the length of the sequence, a panel for each layer, beside what one rate predicts.

    Parameters
    ----------
    lengths : (sizes,)
        Tokens.
    measured, predicted : dict of str to (sizes,)
        Layer -> seconds; NaN where it was not run.
    columns : int
        Panels in a row.

    Returns
    -------
    Figure
    """
    rows = -(-len(measured) // columns)
    figure, axes = new_figure(2.0 * rows + 0.5, columns, rows, sharex=True, sharey=True)
    for at, (name, values) in zip(axes.flat, measured.items(), strict=False):
        at.plot(lengths, 1e3 * np.asarray(predicted[name]), color=GREY, marker="", linestyle="--", label="FLOPs / rate")
        at.plot(lengths, 1e3 * np.asarray(values, float), color=_COLOURS[name], marker=_MARKERS[name])
        at.set_title(name)
        _log(at, lengths, every=2)
        at.set_yscale("log")
        at.set_xlabel("")
    axes.flat[0].legend(loc="upper left", fontsize=9)
    figure.supxlabel("tokens", fontsize=10.5)
    figure.supylabel("milliseconds", fontsize=10.5)
    return figure


def meetings(rows: dict[str, dict[str, float | None]], width: int) -> Figure:
    """At which length two costs meet: counted, predicted from rates, found by the clock.

    Parameters
    ----------
    rows : dict of str to dict
        Which costs -> {"counted": n, "from rates": n, "measured": n}; None where they were not seen to meet. What lies
        left of an eighth of the width is drawn as an arrow at the edge.
    width : int
        The layer's width, the unit of the axis.

    Returns
    -------
    Figure
    """
    figure, ((at,),) = new_figure(0.42 * len(rows) + 1.0)
    styles = {"counted": dict(marker="|", color=GREY, markersize=16, markeredgewidth=2.5),
              "from rates": dict(marker="D", color=ORANGE, markersize=7, fillstyle="none", markeredgewidth=1.8),
              "measured": dict(marker="o", color=BLUE, markersize=7)}
    edge = 1 / 8
    for i, points in enumerate(rows.values()):
        known = [max(edge, n / width) for n in points.values() if n]
        at.plot([min(known), max(known)], [i, i], color="#cccccc", marker="", linewidth=1, zorder=0)
        beyond = [kind for kind, n in points.items() if n and n / width < edge]
        for kind, n in points.items():
            if n:  # arrows at the edge stand one above the other
                shift = 0.36 * (beyond.index(kind) - (len(beyond) - 1) / 2) if kind in beyond else 0
                style = styles[kind] | ({"marker": "<", "markersize": 7, "markeredgewidth": 1.8} if kind in beyond else {})
                at.plot(max(edge, n / width), i + shift, linestyle="", **style)
    for kind, style in styles.items():
        at.plot([], [], linestyle="", label=kind, **style)
    at.plot([], [], linestyle="", marker="<", markersize=7, color="#333333", fillstyle="none", label="from the first token")
    at.set_yticks(range(len(rows)), labels=rows)
    at.set_ylim(len(rows) - 0.5, -0.5)
    at.set_xscale("log", base=2)
    ticks = [2.0**i for i in range(-3, 5)]
    at.set_xticks(ticks, labels=["d/8", "d/4", "d/2", "d", "2d", "4d", "8d", "16d"])
    at.xaxis.set_minor_locator(NullLocator())
    at.set_xlabel("tokens, in widths d")
    at.legend(loc="upper center", bbox_to_anchor=(0.3, 1.17), ncols=4)
    return figure


def shares(parts: dict[str, dict[str, int]]) -> Figure:
    """Where the FLOPs of a model go, at several lengths.

    Parameters
    ----------
    parts : dict of str to dict of str to int
        Length in words -> {part: FLOPs}; the same parts in all.

    Returns
    -------
    Figure
    """
    figure, ((at,),) = new_figure(0.5 * len(parts) + 1.1)
    left = np.zeros(len(parts))
    for part, colour in zip(next(iter(parts.values())), (ORANGE, SKY, GREEN, "#bbbbbb"), strict=False):
        share = np.array([100 * each[part] / sum(each.values()) for each in parts.values()])
        at.barh(range(len(parts)), share, left=left, color=colour, label=part, edgecolor="white")
        for i, (start, wide) in enumerate(zip(left, share, strict=True)):
            if wide > 6:
                at.text(start + wide / 2, i, f"{wide:.0f}%", ha="center", va="center", fontsize=9.5)
        left += share
    at.set_yticks(range(len(parts)), labels=parts)
    at.set_ylim(len(parts) - 0.5, -0.5)
    at.set_xlabel("share of the forward FLOPs, %")
    at.grid(False)
    at.legend(loc="upper center", bbox_to_anchor=(0.45, 1.32), ncols=2)
    return figure


def _log(at, lengths, every=1):
    at.set_xscale("log", base=2)
    ticks = [n for n in lengths if n & (n - 1) == 0][::every] if all(isinstance(n, int) for n in lengths) else None
    if ticks:
        at.set_xticks(ticks, labels=[f"{n}" if n < 1024 else f"{n // 1024}k" for n in ticks])
    at.xaxis.set_minor_locator(NullLocator())
    at.set_xlabel("tokens")
