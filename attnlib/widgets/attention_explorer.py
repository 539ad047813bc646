"""Attention explorer: every head of the real encoder on the running sentence, two at a time."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import traitlets

from attnlib.widgets._figure import Figure, Value, fixed

__all__ = ["AttentionExplorer", "packed", "unpacked"]

WHO = "AttentionExplorer"
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
STEPS = len(DIGITS) ** 2 - 1  # shares are stored in steps of 1/4095, as two letters each
MEASURES = ("weights", "norms")


def packed(shares: np.ndarray) -> str:
    """Numbers from 0 to 1 as text, two letters each, in steps of 1/4095.

    Parameters
    ----------
    shares : array
        Any shape, from 0 to 1.

    Returns
    -------
    str
        Twice as many letters as there are numbers.
    """
    steps = np.rint(np.asarray(shares, float).ravel() * STEPS).astype(int)
    return "".join(DIGITS[step // 64] + DIGITS[step % 64] for step in steps)


def unpacked(text: str, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers that `packed` wrote.

    Parameters
    ----------
    text : str
        Two letters for each number.
    shape : tuple of int
        Of the array wanted.

    Returns
    -------
    array of float64
        Within 1/8190 of the numbers that were packed.
    """
    values = np.array([DIGITS.index(letter) for letter in text])
    return ((values[0::2] * 64 + values[1::2]) / STEPS).reshape(shape)


class AttentionExplorer(Figure):
    """Browse all heads of a model on one sentence, or on two: pick a word, pick heads, compare.

    Parameters
    ----------
    tokens : dict of str to list of n str
        The sentences, by a short name each.
    weights : dict of str to (layers, heads, n, n)
        Their attention weights, by the same names.
    norms : dict of str to (layers, heads, n)
        How long each token's value is when it reaches the result.
    query : int
        The token that asks.
    key : int
        The token asked for when the overview shows one pair.
    head, other : [int, int]
        Layer and head shown, and those of the head compared with it, counted from 0.
    measure : {"weights", "norms"}
        Shares of the weight, or of weight times length.
    overview : {"maps", "pair"}
        What the small squares show: whole maps, or the share that `query` gives `key` in each head.
    caption : str
        Stands below the figure.

    Raises
    ------
    ValueError
        If names or shapes do not fit, or a number is out of its range.

    Notes
    -----
    Weights times the lengths of the transformed values: Kobayashi et al. (2020). Shares are kept in steps of 1/4095.
    """

    module = "attention_explorer"
    title = "All heads of a real encoder"
    fields: ClassVar = ("tokens", "shares", "lengths", "sizes", "sentence", "query", "key", "head", "other", "measure", "overview")
    columns: ClassVar = ("key", "share in the head shown", "share in the head compared")

    tokens = traitlets.Dict().tag(sync=True)
    shares = traitlets.Dict().tag(sync=True)
    lengths = traitlets.Dict().tag(sync=True)
    sizes = traitlets.List().tag(sync=True)
    sentence = traitlets.Unicode().tag(sync=True)
    query = traitlets.Int(0).tag(sync=True)
    key = traitlets.Int(0).tag(sync=True)
    head = traitlets.List().tag(sync=True)
    other = traitlets.List().tag(sync=True)
    measure = traitlets.Unicode("weights").tag(sync=True)
    overview = traitlets.Unicode("maps").tag(sync=True)

    def __init__(
        self, tokens: dict[str, list[str]], weights: dict[str, np.ndarray], norms: dict[str, np.ndarray], *, query: int = 0,
        key: int = 0, head: tuple[int, int] = (0, 0), other: tuple[int, int] = (0, 1), measure: str = "weights",
        overview: str = "maps", sentence: str | None = None, caption: str = "",
    ) -> None:
        if not tokens or list(tokens) != list(weights) or list(tokens) != list(norms):
            raise ValueError(f"{WHO}: tokens, weights and norms have the names {list(tokens)}, {list(weights)} and {list(norms)}, "
                             "expected the same ones, at least one")
        first = np.shape(next(iter(weights.values())))
        for name in tokens:
            n = len(tokens[name])
            if len(first) != 4 or np.shape(weights[name]) != first or first[2:] != (n, n):
                raise ValueError(f"{WHO}: weights[{name!r}] has shape {np.shape(weights[name])}, expected (layers, heads, {n}, {n})")
            if np.shape(norms[name]) != first[:3]:
                raise ValueError(f"{WHO}: norms[{name!r}] has shape {np.shape(norms[name])}, expected {first[:3]}")
            if not (np.min(weights[name]) >= 0 and np.max(weights[name]) <= 1.0001):
                raise ValueError(f"{WHO}: weights[{name!r}] goes from {np.min(weights[name])} to {np.max(weights[name])}, expected 0 to 1")
            if not (np.min(norms[name]) >= 0 and np.isfinite(norms[name]).all()):
                raise ValueError(f"{WHO}: norms[{name!r}] holds a negative or infinite number, expected lengths")
        layers, heads, n, _ = first
        for label, value, end in (("query", query, n), ("key", key, n)):
            if not 0 <= value < end:
                raise ValueError(f"{WHO}: {label} is {value}, expected 0 to {end - 1}")
        for label, pair in (("head", head), ("other", other)):
            if len(pair) != 2 or not (0 <= pair[0] < layers and 0 <= pair[1] < heads):
                raise ValueError(f"{WHO}: {label} is {list(pair)}, expected a layer from 0 to {layers - 1} and a head from 0 to {heads - 1}")
        if measure not in MEASURES:
            raise ValueError(f"{WHO}: measure is {measure!r}, expected 'weights' or 'norms'")
        if overview not in ("maps", "pair"):
            raise ValueError(f"{WHO}: overview is {overview!r}, expected 'maps' or 'pair'")
        sentence = next(iter(tokens)) if sentence is None else sentence
        if sentence not in tokens:
            raise ValueError(f"{WHO}: sentence is {sentence!r}, expected one of {list(tokens)}")
        super().__init__(
            tokens={name: list(words) for name, words in tokens.items()},
            shares={name: packed(np.clip(each, 0, 1)) for name, each in weights.items()},
            lengths={name: np.round(np.asarray(each, float), 2).ravel().tolist() for name, each in norms.items()},
            sizes=[int(layers), int(heads), int(n)], sentence=sentence, query=int(query), key=int(key), head=[int(x) for x in head],
            other=[int(x) for x in other], measure=measure, overview=overview, caption=caption)

    def maps(self) -> np.ndarray:
        """The shares of all heads for the sentence and the measure chosen.

        Returns
        -------
        (layers, heads, n, n) float64
            Rows sum to 1, but for the rounding of the stored weights.
        """
        layers, heads, n = self.sizes
        shares = unpacked(self.shares[self.sentence], (layers, heads, n, n))
        if self.measure == "norms":
            parts = shares * np.reshape(self.lengths[self.sentence], (layers, heads, 1, n))
            total = parts.sum(-1, keepdims=True)
            shares = parts / np.where(total > 0, total, 1)
        return shares

    def computed(self) -> dict[str, Value]:
        """The two heads chosen, and the pair of query and key in every head.

        Returns
        -------
        dict
            ``head`` and ``other``, n rows of n shares each; ``pair``, layers rows of heads shares.
        """
        maps = self.maps()
        return {"head": maps[tuple(self.head)].tolist(), "other": maps[tuple(self.other)].tolist(),
                "pair": maps[:, :, self.query, self.key].tolist()}

    def rows(self) -> list[list[str]]:
        """One row for each key: the share it gets from the query in the head shown and in the head compared.

        Returns
        -------
        list of n lists of 3 str
        """
        now = self.computed()
        return [[word, fixed(now["head"][self.query][j]), fixed(now["other"][self.query][j])]
                for j, word in enumerate(self.tokens[self.sentence])]
