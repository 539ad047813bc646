"""Score geometry: a query and keys in the plane, and what follows from where they are."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import traitlets

from attnlib.reference import softmax
from attnlib.widgets._figure import Figure, Value, fixed, vectors

__all__ = ["ScoreGeometry"]

WHO = "ScoreGeometry"


class ScoreGeometry(Figure):
    """Drag a query and keys in the plane; scores, weights and the output follow.

    The plane may be a slice of a wider space: if the query lies in it, the scores are exact, since the part of a key
    that sticks out of the plane is at right angles to the query. The output is a weighted mean, so its picture is
    exact in any plane that the values are projected on.

    Parameters
    ----------
    query : (2,)
        Where the query is.
    keys : (n, 2)
        Where the keys are, in the same plane.
    values : (n, 2)
        Where the values are, in a plane of their own.
    words : list of n str
        The tokens that keys and values belong to.
    word : str
        The token that asks.
    dim_head : int
        Width d of the head; scores are divided by its root.
    caption : str
        Stands below the figure.

    Raises
    ------
    ValueError
        If a shape does not fit, or a number is not finite.

    Notes
    -----
    Scaled dot-product attention, Vaswani et al. (2017), Equation 1.
    """

    module = "score_geometry"
    title = "Score geometry"
    fields: ClassVar = ("query", "keys_at", "values_at", "words", "word", "dim_head", "scaled")
    columns: ClassVar = ("key", "score", "weight")

    query = traitlets.List().tag(sync=True)
    keys_at = traitlets.List().tag(sync=True)
    values_at = traitlets.List().tag(sync=True)
    words = traitlets.List(traitlets.Unicode()).tag(sync=True)
    word = traitlets.Unicode("query").tag(sync=True)
    dim_head = traitlets.Int(2).tag(sync=True)
    scaled = traitlets.Bool(True).tag(sync=True)

    def __init__(
        self, query: np.ndarray, keys: np.ndarray, values: np.ndarray, words: list[str], *, word: str = "query",
        dim_head: int = 2, scaled: bool = True, caption: str = "",
    ) -> None:
        keys = vectors(WHO, "keys", keys)
        if len(words) != len(keys):
            raise ValueError(f"{WHO}: words has {len(words)} entries, expected {len(keys)}, one for each key")
        if dim_head < 1:
            raise ValueError(f"{WHO}: dim_head is {dim_head}, expected at least 1")
        super().__init__(
            query=vectors(WHO, "query", np.reshape(np.asarray(query, float), (1, -1)))[0], keys_at=keys,
            values_at=vectors(WHO, "values", values, len(keys)), words=list(words), word=word, dim_head=int(dim_head),
            scaled=bool(scaled), caption=caption)

    def computed(self) -> dict[str, Value]:
        """Scores, weights and the output for where the points are now.

        Returns
        -------
        dict
            ``scores`` and ``weights``, n numbers each, and ``out``, two.
        """
        scores = np.asarray(self.keys_at) @ np.asarray(self.query)
        if self.scaled:
            scores = scores / np.sqrt(self.dim_head)
        weights = softmax(scores)
        return {"scores": scores.tolist(), "weights": weights.tolist(), "out": (weights @ np.asarray(self.values_at)).tolist()}

    def rows(self) -> list[list[str]]:
        """One row for each key: its word, its score, its weight.

        Returns
        -------
        list of n lists of 3 str
        """
        now = self.computed()
        return [[word, fixed(score), fixed(weight)]
                for word, score, weight in zip(self.words, now["scores"], now["weights"], strict=True)]
