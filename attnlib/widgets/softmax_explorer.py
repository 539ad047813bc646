"""Softmax: what width, the root of it and temperature do to weights, entropy and gradients."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import traitlets

from attnlib.reference import entropy, softmax
from attnlib.widgets._figure import Figure, Value, fixed

__all__ = ["SoftmaxExplorer"]

WHO = "SoftmaxExplorer"


class SoftmaxExplorer(Figure):
    """Turn width, the division by its root, and temperature; weights, entropy and the Jacobian follow.

    Unscaled scores of a head grow with the root of its width, if its queries and keys keep their statistics from
    number to number. So one row of *scaled* scores tells what the row would be at any width, with the division and
    without it.

    Parameters
    ----------
    scores : (n,)
        One row of scores, divided by the root of the width they were computed with. n from 2 to 24.
    words : list of n str
        The tokens that the scores belong to.
    width : int
        Width d of the head to begin with, from 1 to 1024; the slider knows powers of two.
    scaled : bool
        Whether scores are divided by the root of d.
    temperature : float
        Divides the scores once more; from 1/8 to 8.
    picked : int, optional
        The key whose score is nudged; by default the one with the largest score.
    caption : str
        Stands below the figure.

    Raises
    ------
    ValueError
        If a number of entries does not fit, or a number is not finite or out of its range.

    Notes
    -----
    Division by the root of d: Vaswani et al. (2017), Section 3.2.1, footnote 4. Entropy in nats; its exponential is a number of keys.
    """

    module = "softmax_explorer"
    title = "Softmax, its scale and its gradient"
    fields: ClassVar = ("scores", "words", "width", "scaled", "temperature", "picked")
    columns: ClassVar = ("key", "score", "weight", "change of the weight for each unit of the nudged score")

    scores = traitlets.List().tag(sync=True)
    words = traitlets.List(traitlets.Unicode()).tag(sync=True)
    width = traitlets.Int(64).tag(sync=True)
    scaled = traitlets.Bool(True).tag(sync=True)
    temperature = traitlets.Float(1.0).tag(sync=True)
    picked = traitlets.Int(0).tag(sync=True)

    def __init__(
        self, scores: np.ndarray, words: list[str], *, width: int = 64, scaled: bool = True, temperature: float = 1.0,
        picked: int | None = None, caption: str = "",
    ) -> None:
        row = np.asarray(scores, dtype=float)
        if row.ndim != 1 or not 2 <= row.size <= 24:
            raise ValueError(f"{WHO}: scores has shape {row.shape}, expected (n,), n from 2 to 24")
        if not np.isfinite(row).all():
            raise ValueError(f"{WHO}: scores holds {row[~np.isfinite(row)][0]}, expected finite numbers")
        if len(words) != row.size:
            raise ValueError(f"{WHO}: words has {len(words)} entries, expected {row.size}, one for each score")
        if not 1 <= width <= 1024:
            raise ValueError(f"{WHO}: width is {width}, expected 1 to 1024")
        if not 0.125 <= temperature <= 8:
            raise ValueError(f"{WHO}: temperature is {temperature}, expected 0.125 to 8")
        picked = int(row.argmax()) if picked is None else picked
        if not 0 <= picked < row.size:
            raise ValueError(f"{WHO}: picked is {picked}, expected 0 to {row.size - 1}")
        super().__init__(scores=np.round(row, 4).tolist(), words=list(words), width=int(width), scaled=bool(scaled),
                         temperature=float(temperature), picked=picked, caption=caption)

    def computed(self) -> dict[str, Value]:
        """The row at the present width and temperature, its softmax, and how that answers to a nudge.

        Returns
        -------
        dict
            ``scores`` and ``weights``, n numbers; ``entropy`` in nats; ``jacobian``, n rows of n numbers, row i column j
            the change of weight i for each unit of score j (after division by the temperature).
        """
        scores = np.asarray(self.scores) * (1.0 if self.scaled else math.sqrt(self.width)) / self.temperature
        weights = softmax(scores)
        jacobian = np.diag(weights) - np.outer(weights, weights)
        return {"scores": scores.tolist(), "weights": weights.tolist(), "entropy": float(entropy(weights)),
                "jacobian": jacobian.tolist()}

    def rows(self) -> list[list[str]]:
        """One row for each key: word, score, weight, and what a nudge of the picked score does to the weight.

        Returns
        -------
        list of n lists of 4 str
        """
        now = self.computed()
        return [[word, fixed(now["scores"][i]), fixed(now["weights"][i], 3), fixed(now["jacobian"][i][self.picked], 3)]
                for i, word in enumerate(self.words)]
