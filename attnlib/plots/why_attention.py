"""Figures of chapter 1: one head looking back, three readers compared, how far a gradient reaches."""

import numpy as np
from matplotlib.figure import Figure

from attnlib.plots.style import BLUE, GREY, ORANGE, new_figure, weight_maps

__all__ = ["by_distance", "by_pairs", "capacity", "looking_back", "reaches", "weight_maps"]


def looking_back(weights: np.ndarray, tokens: list[str], query: int, left: int) -> Figure:
    """Arcs from one token to all others, as thick as the weight it gives them.

    Parameters
    ----------
    weights : (seq_k,)
        The query's row.
    tokens : list of str
        The keys.
    query : int
        Position of the token that asks.
    left : int
        Keys to the left in the window that is shaded.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.3)
    at = axes[0, 0]
    best = int(weights.argmax())
    angle = np.linspace(0, np.pi, 61)
    at.axvspan(query - left - 0.5, query + 0.5, color=GREY, alpha=0.15, linewidth=0)
    at.text(query + 0.7, 4.6, f"“{tokens[query]}” and the {left} tokens\nbefore it", color=GREY, fontsize=9.5, va="top")
    for j, weight in enumerate(weights):
        radius = (query - j) / 2
        at.plot((query + j) / 2 + radius * np.cos(angle), abs(radius) * np.sin(angle), marker="",
                color=ORANGE if j == best else BLUE, linewidth=0.4 + 11 * weight, solid_capstyle="butt")
        if weight >= 0.05 and j != query:
            at.annotate(f"{weight:.2f}", (j, 0), (0, -3), textcoords="offset points", ha="center", va="top", fontsize=9.5,
                        color=ORANGE if j == best else BLUE)
    at.set_ylim(-0.75, 5.4)
    at.set_xlim(-0.9, len(tokens) - 0.4)
    at.set_yticks([])
    at.grid(False)
    at.spines[:].set_visible(False)
    at.tick_params(length=0)
    at.set_xticks(range(len(tokens)), labels=tokens, rotation=60, ha="right", rotation_mode="anchor")
    for j, label in enumerate(at.get_xticklabels()):
        label.set_fontweight("bold" if j in (query, best) else "normal")
    return figure


def by_distance(distances: np.ndarray, rates: dict[str, np.ndarray], chance: float) -> Figure:
    """Share of right answers over the distance between the question and the value it asks for.

    Parameters
    ----------
    distances : (pairs,)
        In tokens.
    rates : dict of str to (pairs,) array
        Reader -> share of right answers, 0 to 1.
    chance : float
        What a blind guess gets.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.2)
    at = axes[0, 0]
    for name, rate in rates.items():
        at.plot(distances, rate, label=name, clip_on=False, zorder=3)
    at.axhline(chance, color=GREY, linestyle="--", linewidth=1)
    at.text(distances[0], chance + 0.02, "blind guess", color=GREY, va="bottom")
    at.set_xticks(distances)
    at.set_ylim(0, 1)
    at.set_xlabel("distance from the question back to the value (tokens)")
    at.set_ylabel("right answers (share)")
    figure.legend(loc="outside upper center", ncols=len(rates))
    return figure


def by_pairs(pairs: np.ndarray, rates: dict[str, np.ndarray], guess: np.ndarray) -> Figure:
    """Share of right answers over the number of pairs in the story.

    Parameters
    ----------
    pairs : (steps,)
        Numbers of pairs.
    rates : dict of str to (steps,) array
        Reader -> share of right answers.
    guess : (steps,)
        What naming the story's most frequent digit gets.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.4)
    at = axes[0, 0]
    at.plot(pairs, guess, color="#c8c8c8", linewidth=7, marker="", label="most frequent digit", solid_capstyle="butt")
    at.set_prop_cycle(None)
    for name, rate in rates.items():
        at.plot(pairs, rate, label=name, clip_on=False, zorder=3)
    at.set_xticks(pairs)
    at.set_ylim(0, 1)
    at.set_xlabel("pairs in the story")
    at.set_ylabel("right answers (share)")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def capacity(pairs: np.ndarray, rates: dict[str, np.ndarray], chance: float) -> Figure:
    """Share of right answers of untrained memories as the number of stored pairs grows.

    Parameters
    ----------
    pairs : (steps,)
        Numbers of pairs stored.
    rates : dict of str to (steps,) array
        Memory -> share of right answers.
    chance : float
        What a blind guess gets.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.4)
    at = axes[0, 0]
    for name, rate in rates.items():
        at.plot(pairs, rate, label=name, clip_on=False, zorder=3)
    at.axhline(chance, color=GREY, linestyle="--", linewidth=1)
    at.text(pairs[0], chance - 0.02, "blind guess", color=GREY, va="top")
    at.set_xscale("log", base=2)
    at.set_xticks(pairs, labels=[str(n) for n in pairs])
    at.minorticks_off()
    at.set_ylim(0, 1)
    at.set_xlabel("pairs stored")
    at.set_ylabel("right answers (share)")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def reaches(
    panels: dict[str, dict[str, np.ndarray]], asked: tuple[int, int] | None = None, floor: float = 1e-12
) -> Figure:
    """Size of the gradient that comes back to each token of the story, one panel per stage of training.

    Parameters
    ----------
    panels : dict of str to dict of str to (seq,) array
        Title -> reader -> gradient norm at distance 1, 2, ... from the question.
    asked : (int, int), optional
        Distances between which the last panel is shaded.
    floor : float
        Lower end of the vertical axis; zeros cannot be drawn on it, so a line that reaches zero ends.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(4.9, rows=len(panels))
    for at, (title, lines) in zip(axes[:, 0], panels.items(), strict=True):
        for name, values in lines.items():
            distance = np.arange(1, len(values) + 1)
            shown = values > 0
            at.plot(distance[shown], values[shown], label=name, markevery=max(1, len(values) // 16))
        at.set_yscale("log")
        at.set_title(title)
        at.set_ylabel("gradient norm")
        at.set_ylim(bottom=floor if min(v[v > 0].min() for v in lines.values()) < floor else None)
    if asked:
        axes[-1, 0].axvspan(asked[0] - 0.5, asked[1] + 0.5, color=GREY, alpha=0.2, linewidth=0)
    axes[-1, 0].set_xlabel("distance back from the question (tokens)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure
