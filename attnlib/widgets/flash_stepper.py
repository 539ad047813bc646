"""Flash stepper: the walk over tiles, what it keeps in fast memory, what it rescales, and what it moves."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import traitlets

from attnlib import costs, masks
from attnlib.reference import attention, online_softmax_update
from attnlib.widgets._figure import Figure, Value, fixed

__all__ = ["FlashStepper"]

WHO = "FlashStepper"
MOST = 24  # queries, and keys: what can be drawn readably
BYTES = 4  # of a float32
SIZES = (512, 1024, 2048, 4096, 8192, 16384, 32768)  # of fast memory, in bytes


class FlashStepper(Figure):
    """Walk the tiles of FlashAttention's forward pass, one step after the other, over real scores.

    Each block of queries is loaded, meets one block of keys after the other, and is divided and written. Tiles that a
    causal mask hides whole are skipped. A causal mask is aligned to the end: the last query sees the last key.

    Parameters
    ----------
    scores : (seq_q, seq_k)
        Scaled scores, without a mask; 1 to 24 queries and keys.
    values : (seq_k, dim_v)
        Values of the keys; dim_v at most 64.
    words : list of seq_k str
        The tokens of the keys.
    dim_head : int
        Width of queries and keys, for the bytes they take.
    queries : list of seq_q str, optional
        The tokens of the queries; by default the last seq_q of `words`.
    tile_q, tile_k : int
        Queries and keys in a tile; they need not divide the lengths.
    causal : bool
        Whether a query sees later keys.
    reverse : bool
        Whether blocks of keys are taken from right to left.
    query : int
        The row to look at; by default the last.
    step : int, optional
        Where the walk stands, from 0; by default where the maximum of `query` first rises after its first tile, or at
        that first tile if it never does.
    fast : int
        Size of fast memory in bytes: 512 times a power of two, up to 32,768.
    caption : str
        Stands below the figure.

    Raises
    ------
    ValueError
        If a shape does not fit, or a number is not finite or out of its range.

    Notes
    -----
    Online softmax: Milakov & Gimelshein (2018), Algorithm 3. The walk: Dao et al. (2022), Algorithm 1, with the loops
    in the order of Dao (2023), Algorithm 1: queries outside, keys inside, and the division at the end.
    """

    module = "flash_stepper"
    title = "FlashAttention, tile by tile"
    fields: ClassVar = ("scores", "values_of", "words", "queries", "dim_head", "tile_q", "tile_k", "causal", "reverse",
                        "query", "step", "fast")
    columns: ClassVar = ("query", "running max before", "after", "factor", "running sum before", "after", "difference from the final output")

    scores = traitlets.List().tag(sync=True)
    values_of = traitlets.List().tag(sync=True)
    words = traitlets.List(traitlets.Unicode()).tag(sync=True)
    queries = traitlets.List(traitlets.Unicode()).tag(sync=True)
    dim_head = traitlets.Int(1).tag(sync=True)
    tile_q = traitlets.Int(4).tag(sync=True)
    tile_k = traitlets.Int(4).tag(sync=True)
    causal = traitlets.Bool(False).tag(sync=True)
    reverse = traitlets.Bool(False).tag(sync=True)
    query = traitlets.Int(0).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    fast = traitlets.Int(4096).tag(sync=True)

    def __init__(
        self, scores: np.ndarray, values: np.ndarray, words: list[str], *, dim_head: int, queries: list[str] | None = None,
        tile_q: int = 4, tile_k: int = 4, causal: bool = False, reverse: bool = False, query: int | None = None,
        step: int | None = None, fast: int = 4096, caption: str = "",
    ) -> None:
        scores, values = np.asarray(scores, dtype=float), np.asarray(values, dtype=float)
        if scores.ndim != 2 or not all(1 <= size <= MOST for size in scores.shape):
            raise ValueError(f"{WHO}: scores has shape {scores.shape}, expected (seq_q, seq_k), each from 1 to {MOST}")
        seq_q, seq_k = scores.shape
        if values.ndim != 2 or len(values) != seq_k or not 1 <= values.shape[1] <= 64:
            raise ValueError(f"{WHO}: values has shape {values.shape}, expected ({seq_k}, dim_v), dim_v from 1 to 64")
        for name, array in (("scores", scores), ("values", values)):
            if not np.isfinite(array).all():
                raise ValueError(f"{WHO}: {name} holds {array[~np.isfinite(array)][0]}, expected finite numbers")
        if len(words) != seq_k:
            raise ValueError(f"{WHO}: words has {len(words)} entries, expected {seq_k}, one for each key")
        if queries is None and seq_q > seq_k:
            raise ValueError(f"{WHO}: queries is missing, expected {seq_q} tokens, as there are more queries than keys")
        queries = list(words)[seq_k - seq_q:] if queries is None else list(queries)
        if len(queries) != seq_q:
            raise ValueError(f"{WHO}: queries has {len(queries)} entries, expected {seq_q}, one for each query")
        query = seq_q - 1 if query is None else query
        for name, number, low, high in (("dim_head", dim_head, 1, 1024), ("tile_q", tile_q, 1, seq_q),
                                        ("tile_k", tile_k, 1, seq_k), ("query", query, 0, seq_q - 1)):
            if not low <= number <= high:
                raise ValueError(f"{WHO}: {name} is {number}, expected {low} to {high}")
        if fast not in SIZES:
            raise ValueError(f"{WHO}: fast is {fast}, expected one of {', '.join(map(str, SIZES))}")
        super().__init__(
            scores=np.round(scores, 4).tolist(), values_of=np.round(values, 4).tolist(), words=list(words), queries=queries,
            dim_head=int(dim_head), tile_q=int(tile_q), tile_k=int(tile_k), causal=bool(causal), reverse=bool(reverse),
            query=int(query), fast=int(fast), caption=caption)
        walk = self._walk()
        if step is not None and not 0 <= step < len(walk):
            raise ValueError(f"{WHO}: step is {step}, expected 0 to {len(walk) - 1}")
        self.step = self._first_rise(walk) if step is None else int(step)

    def _walk(self) -> list[tuple[str, int, int, int, int]]:
        """Every step: what is done, to which queries (start, stop), with which keys (first, last)."""
        seen, walk = self._seen(), []
        starts = range(0, len(self.words), self.tile_k)
        for start in range(0, len(self.queries), self.tile_q):
            stop = min(start + self.tile_q, len(self.queries))
            walk.append(("load", start, stop, 0, 0))
            for first in reversed(starts) if self.reverse else starts:
                last = min(first + self.tile_k, len(self.words))
                if seen[start:stop, first:last].any():
                    walk.append(("tile", start, stop, first, last))
            walk.append(("store", start, stop, 0, 0))
        return walk

    def _seen(self) -> np.ndarray:
        """Who may attend to whom, (seq_q, seq_k)."""
        size = len(self.queries), len(self.words)
        return masks.to_array(masks.causal, *size) if self.causal else np.ones(size, bool)

    def _first_rise(self, walk: list[tuple[str, int, int, int, int]]) -> int:
        """The step at which the maximum of the chosen query first rises after its first tile."""
        mine = [at for at, (kind, start, stop, *_) in enumerate(walk) if start <= self.query < stop]
        row = self.query - walk[mine[0]][1]
        for at in mine:
            before, after, _ = self._states(walk, at)
            if walk[at][0] == "tile" and np.isfinite(before[0][row]) and after[0][row] > before[0][row]:
                return at
        return mine[1]

    def _states(self, walk: list[tuple[str, int, int, int, int]], at: int) -> tuple:
        """Running max, running sum and unfinished output before and after step `at`, and the largest sum of the block."""
        scores, values = np.where(self._seen(), np.asarray(self.scores), -np.inf), np.asarray(self.values_of)
        _, start, stop, *_ = walk[at]
        before = state = np.full(stop - start, -np.inf), np.zeros(stop - start), np.zeros((stop - start, values.shape[1]))
        after, largest = state, 0.0
        for i, (kind, begin, _, first, last) in enumerate(walk):
            if begin != start:
                continue
            old = state
            if kind == "tile":
                state = online_softmax_update(*state, scores[start:stop, first:last], values[first:last])
                largest = max(largest, float(state[1].max()))
            if i == at:
                before, after = old, state
        return before, after, largest

    def computed(self) -> dict[str, Value]:
        """What stands where after the present step, and what has been moved.

        Returns
        -------
        dict
            ``walk``, all steps as [kind, start, stop, first, last]; for each query of the present block ``max_before``,
            ``max_after`` (None where no key has been seen), ``sum_before``, ``sum_after``, ``rescale``, ``out`` (unfinished,
            after the step), ``final`` (attention's) and ``off`` (length of out / sum − final, as a share of the final
            length); ``largest``, the largest running sum of the block; ``held``, bytes in fast memory by name, ``peak``,
            the bytes a whole tile takes, ``fits``, the most queries that fit beside a block of keys; ``moved``, bytes by
            tiles and naively so far, and both in all.
        """
        walk = self._walk()
        at = min(max(self.step, 0), len(walk) - 1)
        _, start, stop, first, last = walk[at]
        before, after, largest = self._states(walk, at)
        seq_q, seq_k, dim_v = len(self.queries), len(self.words), len(self.values_of[0])
        # Scores are there already: queries that are scores, keys that are the identity, and the root cancels.
        final = attention(np.asarray(self.scores), math.sqrt(seq_k) * np.eye(seq_k), np.asarray(self.values_of), self._seen())[0][start:stop]
        shift = np.where(np.isneginf(after[0]), 0, after[0])
        so_far = after[2] / np.where(after[1] == 0, 1, after[1])[:, None]
        lengths = np.linalg.norm(final, axis=1)
        return {
            "walk": [list(each) for each in walk],
            "max_before": _plain(before[0]), "max_after": _plain(after[0]),
            "sum_before": before[1].tolist(), "sum_after": after[1].tolist(),
            "rescale": np.exp(before[0] - shift).tolist(), "out": after[2].tolist(), "final": final.tolist(),
            "off": (np.linalg.norm(so_far - final, axis=1) / np.where(lengths == 0, 1, lengths)).tolist(),
            "largest": largest,
            "held": self._held(stop - start, last - first), "peak": sum(self._held(self.tile_q, self.tile_k).values()),
            "fits": max((rows for rows in range(1, seq_q + 1) if sum(self._held(rows, self.tile_k).values()) <= self.fast), default=0),
            "moved": [self._by_tiles(walk[: at + 1]), self._naively(walk[: at + 1]), self._by_tiles(walk),
                      BYTES * costs.attention_cost(1, seq_q, seq_k, self.dim_head, dim_v).moved],
        }

    def _held(self, rows: int, keys: int) -> dict[str, int]:
        """Bytes of each thing in fast memory, with `rows` queries and `keys` keys in it."""
        dim_v = len(self.values_of[0])
        return {"q": BYTES * rows * self.dim_head, "k": BYTES * keys * self.dim_head, "v": BYTES * keys * dim_v,
                "scores": BYTES * rows * keys, "row_max": BYTES * rows, "row_sum": BYTES * rows, "out": BYTES * rows * dim_v}

    def _by_tiles(self, steps: list[tuple[str, int, int, int, int]]) -> int:
        """Bytes that these steps move: queries once, keys and values with each tile, the output and L once."""
        dim_v = len(self.values_of[0])
        numbers = {"load": lambda rows, _: rows * self.dim_head, "tile": lambda _, keys: keys * (self.dim_head + dim_v),
                   "store": lambda rows, _: rows * (dim_v + 1)}
        return BYTES * sum(numbers[kind](stop - start, last - first) for kind, start, stop, first, last in steps)

    def _naively(self, steps: list[tuple[str, int, int, int, int]]) -> int:
        """Bytes that naive attention moves for what these steps have met: each input once, each score written and read, each
        weight written and read, finished outputs. It skips nothing, so a finished query has met all keys."""
        seq_k, dim_v = len(self.words), len(self.values_of[0])
        loaded = sum(stop - start for kind, start, stop, *_ in steps if kind == "load")
        stored = sum(stop - start for kind, start, stop, *_ in steps if kind == "store")
        _, start, _, *_ = steps[-1]
        now = sum(last - first for kind, begin, _, first, last in steps if kind == "tile" and begin == start)
        pairs = stored * seq_k + (loaded - stored) * now
        met = seq_k if stored else now
        return BYTES * (loaded * self.dim_head + met * (self.dim_head + dim_v) + 4 * pairs + stored * dim_v)

    def rows(self) -> list[list[str]]:
        """One row for each query of the present block: maximum, factor and sum, and how far its output is from the end.

        Returns
        -------
        list of list of str
            As many as there are queries in the block, each with the seven entries of `columns`.
        """
        now = self.computed()
        start = now["walk"][min(max(self.step, 0), len(now["walk"]) - 1)][1]

        def number(x: float | None) -> str:
            return "none" if x is None else fixed(x)

        return [[self.queries[start + i], number(now["max_before"][i]), number(now["max_after"][i]),
                 "none" if now["max_before"][i] is None else fixed(now["rescale"][i], 3), fixed(now["sum_before"][i]),
                 fixed(now["sum_after"][i]), fixed(now["off"][i], 3)] for i in range(len(now["rescale"]))]


def _plain(row_max: np.ndarray) -> list[float | None]:
    """Running maxima as JSON has them: no number where no key has been seen."""
    return [None if np.isneginf(x) else float(x) for x in row_max]
