"""Figures of chapter 7: position vectors, rotations, biases, and what works beyond the training length."""

import numpy as np
from matplotlib.figure import Figure

from attnlib.plots.style import BLUE, GREY, ORANGE, matrix_map, new_figure, weight_maps

__all__ = ["bias_maps", "extrapolation", "rotation_scores", "sinusoid_map", "turning_pair", "weight_maps"]


def sinusoid_map(vectors: np.ndarray, similarity: np.ndarray) -> Figure:
    """Position vectors as a map, and how similar two of them are by distance.

    Parameters
    ----------
    vectors : (seq, dim)
        One row per position.
    similarity : (distances,)
        Dot product of two position vectors that far apart.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(5.0, rows=2, height_ratios=[1.5, 1])
    top, bottom = axes[:, 0]
    image = matrix_map(top, vectors, signed=True, title="position vectors")
    top.set_ylabel("position")
    top.set_xlabel(f"column, 0 to {vectors.shape[1] - 1}: fast pairs on the left, slow ones on the right")
    top.set_yticks([0, len(vectors) - 1])
    figure.colorbar(image, ax=top, label="value", aspect=12)
    bottom.plot(range(len(similarity)), similarity, marker="", color=BLUE)
    bottom.axhline(0, color=GREY, linewidth=0.8)
    bottom.set_xlabel("distance between two positions")
    bottom.set_ylabel("dot product")
    return figure


def turning_pair(points: np.ndarray, moved: np.ndarray) -> Figure:
    """One pair of columns at a few positions, as arrows in the plane.

    Parameters
    ----------
    points, moved : (positions, 2)
        The same two vectors, query and key, turned by their positions; first as they are,
        then with every position moved by the same amount.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.0, columns=2, sharey=True)
    for at, pairs, title in ((axes[0, 0], points, "query at 5, key at 2"), (axes[0, 1], moved, "query at 9, key at 6")):
        for (x, y), colour, name in zip(pairs, (ORANGE, BLUE), ("query", "key"), strict=True):
            at.annotate("", xy=(x, y), xytext=(0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 2})
            at.text(1.22 * x, 1.22 * y, name, color=colour, ha="center", va="center")
        at.set_xlim(-1.5, 1.5)
        at.set_ylim(-1.5, 1.5)
        at.set_aspect("equal")
        at.set_title(title)
        at.set_xlabel("first column")
    axes[0, 0].set_ylabel("second column")
    return figure


def rotation_scores(distances: np.ndarray, mean: np.ndarray, single: np.ndarray) -> Figure:
    """Score of a rotated query and key against their distance, as a cosine.

    Parameters
    ----------
    distances : (steps,)
        Positions between query and key.
    mean : (steps,)
        Cosine of rotated query and key, averaged over many vectors that serve as both.
    single : (steps,)
        The same for one query and another key.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(3.0)
    at = axes[0, 0]
    at.plot(distances, mean, marker="", label="the same vector as query and key, mean of 200")
    at.plot(distances, single, marker="", label="one random query and one random key")
    at.axhline(0, color=GREY, linewidth=0.8)
    at.set_xlabel("distance between query and key")
    at.set_ylabel("cosine")
    at.set_ylim(min(-0.5, single.min() - 0.05), 1.05)
    at.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def bias_maps(biases: np.ndarray, shown: list[int]) -> Figure:
    """What a distance costs, in a few heads.

    Parameters
    ----------
    biases : (heads, seq, seq)
        Added to the scores; zero or negative.
    shown : list of int
        Which heads to draw.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(2.7, columns=len(shown), sharey=True)
    for at, head in zip(axes[0], shown, strict=True):
        visible = np.where(np.tri(biases.shape[-1], dtype=bool), np.exp(biases[head]), np.nan)
        image = matrix_map(at, visible, title=f"head {head + 1}")
        at.set_xlabel("key")
    axes[0, 0].set_ylabel("query")
    figure.colorbar(image, ax=axes, label="factor on the weight", shrink=0.8)
    return figure


def extrapolation(lengths: list[int], tasks: dict[str, dict[str, np.ndarray]], trained: int) -> Figure:
    """Weight on the right token against the length of the sequence, by scheme: mean and range of the runs.

    Parameters
    ----------
    lengths : list of int
        Lengths tested.
    tasks : dict of str to dict of str to (runs, lengths) array
        Title -> scheme -> weight on the right token; NaN where a scheme cannot run.
    trained : int
        Length seen in training.

    Returns
    -------
    Figure
    """
    figure, axes = new_figure(5.2, rows=len(tasks), sharex=True)
    for at, (title, schemes) in zip(axes[:, 0], tasks.items(), strict=True):
        for scheme, weights in schemes.items():
            line = at.plot(lengths, weights.mean(axis=0), label=scheme)[0]
            if np.isfinite(weights[0]).sum() == 1:  # a single point: a ring around those it coincides with
                line.set(markersize=11, fillstyle="none", markeredgewidth=1.8, linestyle="")
            at.fill_between(lengths, weights.min(axis=0), weights.max(axis=0), color=line.get_color(), alpha=0.2, linewidth=0)
        at.axvline(trained, color=GREY, linestyle="--", linewidth=1)
        at.set_xscale("log", base=2)
        at.set_xticks(lengths, labels=[str(length) for length in lengths])
        at.set_ylim(-0.03, 1.09)
        at.set_ylabel("weight on the right token")
        at.set_title(title)
    axes[-1, 0].set_xlabel(f"length of the test sequence (trained at {trained})")
    axes[0, 0].legend(loc="upper center", bbox_to_anchor=(0.5, 1.42), ncols=3)
    return figure
