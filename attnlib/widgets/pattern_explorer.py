"""Pattern explorer: put a sparse pattern together; the blocks that are computed, what they cost, and how far a stack sees."""

from __future__ import annotations

import random
from typing import ClassVar

import numpy as np
import traitlets

from attnlib import costs, masks
from attnlib.widgets._figure import Figure, Value

__all__ = ["PATTERNS", "PatternExplorer"]

WHO = "PatternExplorer"
DIM_HEAD = 64
LONGEST, DEEPEST = 256, 8
BLOCKS = (1, 2, 4, 8, 16, 32)
LIMITS = {  # lowest and highest; in tokens, but for `near`, `first` and `drawn`, which count blocks
    "left": (0, 64), "right": (0, 64), "reach": (0, 64), "step": (1, 32), "first_tokens": (0, 32), "near": (0, 4), "first": (0, 4),
    "drawn": (0, 3), "seed": (0, 7),
}
FLAGS = ("causal", "window", "dilated", "doubling", "tokens", "blocks")
PARTS = {"causal": False, "window": False, "left": 8, "right": 0, "dilated": False, "reach": 8, "step": 7, "doubling": False,
         "tokens": False, "first_tokens": 2, "blocks": False, "near": 1, "first": 1, "drawn": 1, "seed": 0}


def _pattern(**parts: int | bool) -> dict[str, int | bool]:
    return PARTS | parts


PATTERNS = {
    "all pairs": _pattern(),
    "causal": _pattern(causal=True),
    "sliding window": _pattern(causal=True, window=True),
    "dilated (2004.05150)": _pattern(causal=True, dilated=True),
    "dilated, doubling": _pattern(causal=True, dilated=True, reach=4, step=1, doubling=True),
    "Longformer (2004.05150)": _pattern(window=True, right=8, tokens=True),
    "attention sinks (2309.17453)": _pattern(causal=True, window=True, left=12, tokens=True, first_tokens=4),
    "strided (1904.10509)": _pattern(causal=True, window=True, left=7, dilated=True, reach=64, step=8),
    "Big Bird (2007.14062)": _pattern(blocks=True),
}


class PatternExplorer(Figure):
    """Choose and combine patterns; see the pairs, the blocks really computed, their FLOPs, and the reach over layers.

    Parameters
    ----------
    pattern : str
        One of `PATTERNS`, to begin with.
    seq : int
        Tokens n, a multiple of 4 from 8 to 256.
    block : int
        Side of a block, one of 1, 2, 4, 8, 16 and 32; it need not divide `seq`.
    depth : int
        Layers of the stack, 1 to 8.
    query : int, optional
        The token whose row is followed; the last one, if not given.
    parts : dict, optional
        Switches and numbers in place of those of the pattern, by the names in `PATTERNS`.
    caption : str
        Stands below the figure.

    Raises
    ------
    ValueError
        If there is no such pattern or part, or a number is not a whole number in its range.

    Notes
    -----
    A pair is allowed if one of the parts that are switched on allows it, and, with `causal`, the key is not after the query; with
    no part on, all pairs are. The parts are predicates of `attnlib.masks`, `bigbird` with its draws. A block is computed whole if
    a single pair in it is allowed (flex_attention's block mask, arXiv 2412.05496, Section 3.2). Reach counts with residual
    connections: a token always reaches itself.
    """

    module = "pattern_explorer"
    title = "Patterns, blocks and reach"
    fields: ClassVar = ("patterns", "draws", "pattern", "seq", "block", "depth", "query", *PARTS)
    columns: ClassVar = ("what", "count")

    patterns = traitlets.Dict().tag(sync=True)
    draws = traitlets.List().tag(sync=True)
    pattern = traitlets.Unicode("").tag(sync=True)
    seq, block, depth = (traitlets.Int(8).tag(sync=True) for _ in range(3))
    query = traitlets.Int(0).tag(sync=True)
    causal, window, dilated, doubling, tokens, blocks = (traitlets.Bool(False).tag(sync=True) for _ in range(6))
    left, right, reach, first_tokens = (traitlets.Int(0).tag(sync=True) for _ in range(4))
    near, first, drawn, seed = (traitlets.Int(0).tag(sync=True) for _ in range(4))
    step = traitlets.Int(1).tag(sync=True)

    def __init__(
        self, pattern: str = "Big Bird (2007.14062)", *, seq: int = 64, block: int = 8, depth: int = 4, query: int | None = None,
        parts: dict[str, int | bool] | None = None, caption: str = "",
    ) -> None:
        if pattern not in PATTERNS:
            raise ValueError(f"{WHO}: pattern is {pattern!r}, expected one of {list(PATTERNS)}")
        if unknown := set(parts or {}) - set(PARTS):
            raise ValueError(f"{WHO}: parts names {sorted(unknown)[0]!r}, expected some of {list(PARTS)}")
        own = PATTERNS[pattern] | (parts or {})
        for name in FLAGS:
            if not isinstance(own[name], bool):
                raise ValueError(f"{WHO}: {name} is {own[name]!r}, expected True or False")
        if not _whole(seq) or seq % 4 or not 8 <= seq <= LONGEST:
            raise ValueError(f"{WHO}: seq is {seq!r}, expected a multiple of 4 from 8 to {LONGEST}")
        if not _whole(block) or block not in BLOCKS:
            raise ValueError(f"{WHO}: block is {block!r}, expected one of {list(BLOCKS)}")
        query = seq - 1 if query is None else query
        sizes = {name: (own[name], *LIMITS[name]) for name in LIMITS} | {"depth": (depth, 1, DEEPEST), "query": (query, 0, seq - 1)}
        for name, (size, least, most) in sizes.items():
            if not _whole(size) or not least <= size <= most:
                raise ValueError(f"{WHO}: {name} is {size!r}, expected a whole number from {least} to {most}")
        super().__init__(patterns=PATTERNS, draws=[_draws(seed) for seed in range(LIMITS["seed"][1] + 1)], pattern="" if parts else pattern,
                         seq=seq, block=block, depth=depth, query=query, caption=caption, **own)

    def predicate(self, layer: int = 1) -> masks.Predicate:
        """The pattern of one layer as a predicate of `attnlib.masks`.

        Parameters
        ----------
        layer : int
            From 1; it matters where steps double with each layer.

        Returns
        -------
        predicate
        """
        parts = []
        if self.window:
            parts.append(masks.sliding_window(self.left, self.right))
        if self.dilated:
            parts.append(masks.dilated(self.reach, self.step_in(layer)))
        if self.tokens:
            parts.append(masks.global_tokens(self.first_tokens))
        if self.blocks:
            parts.append(masks.bigbird(self.seq, self.block, self.near, self.first, self.drawn, self.seed))
        cut = [masks.causal] if self.causal else []
        if not parts:
            return masks.causal if self.causal else masks.global_tokens(self.seq)
        return masks.both(*cut, masks.either(*parts))

    def step_in(self, layer: int) -> int:
        """The distance between the keys of the dilated window, in one layer.

        Parameters
        ----------
        layer : int
            From 1.

        Returns
        -------
        int
        """
        return self.step * 2 ** (layer - 1) if self.doubling else self.step

    def written(self) -> str:
        """The pattern of the deepest layer as an expression.

        Returns
        -------
        str
            Python, with `attnlib.masks` imported as ``masks``.
        """
        parts = []
        if self.window:
            parts.append(f"masks.sliding_window({self.left}, {self.right})")
        if self.dilated:
            parts.append(f"masks.dilated({self.reach}, {self.step_in(self.depth)})")
        if self.tokens:
            parts.append(f"masks.global_tokens({self.first_tokens})")
        if self.blocks:
            parts.append(f"masks.bigbird({self.seq}, {self.block}, {self.near}, {self.first}, {self.drawn}, seed={self.seed})")
        if not parts:
            return "masks.causal" if self.causal else "None"
        union = parts[0] if len(parts) == 1 else f"masks.either({', '.join(parts)})"
        return f"masks.both(masks.causal, {union})" if self.causal else union

    def computed(self) -> dict[str, Value]:
        """Pairs, blocks and FLOPs of the deepest layer, and how far the stack sees.

        Returns
        -------
        dict
            ``written``; ``mask``, n texts of n digits, 1 where allowed; ``kinds``, a text for each row of blocks, 0 skipped, 1 partial,
            2 whole; ``pairs``, allowed, and ``inside``, in computed blocks; ``flops`` of one head of width 64 over ``dense``, ``blocks``
            and ``pairs``; ``arrives``, for each key the layer with which it reaches the query, 0 for the query itself, -1 if none does;
            ``reached``, after each layer, the tokens that have reached the query, and ``all``, the same summed over all queries.
        """
        n, layers = self.seq, range(1, self.depth + 1)
        seen = np.eye(n, dtype=bool)
        arrives = np.where(seen, 0, -1)
        reached, everywhere = [], []
        for layer in layers:
            mask = masks.to_array(self.predicate(layer), n)
            now = seen | (mask.astype(np.float32) @ seen.astype(np.float32) > 0)  # counts below 2^24: exact
            arrives[now & ~seen] = layer
            seen = now
            reached.append(int(seen[self.query].sum()))
            everywhere.append(int(seen.sum()))
        starts = range(0, n, self.block)
        sides = np.diff([*starts, n])
        visible = np.add.reduceat(np.add.reduceat(mask.astype(int), starts, axis=0), starts, axis=1)
        sizes = sides[:, None] * sides
        kinds = (visible > 0).astype(int) + (visible == sizes)
        dense = costs.attention_flops(1, n, n, DIM_HEAD)
        pairs, inside = int(mask.sum()), int(sizes[kinds > 0].sum())
        return {"written": self.written(), "mask": ["".join(map(str, row)) for row in mask.astype(int)],
                "kinds": ["".join(map(str, row)) for row in kinds], "pairs": pairs, "inside": inside,
                "flops": {"dense": dense, "blocks": dense * inside // n**2, "pairs": dense * pairs // n**2},
                "arrives": arrives[self.query].tolist(), "reached": reached, "all": everywhere}

    def rows(self) -> list[list[str]]:
        """The counts: pairs, blocks, FLOPs, and the reach after each layer.

        Returns
        -------
        list of lists of 2 str
        """
        now = self.computed()
        count = {digit: sum(row.count(digit) for row in now["kinds"]) for digit in "012"}
        return [["pairs", f"{self.seq**2:,}"], ["pairs allowed", f"{now['pairs']:,}"], ["pairs computed", f"{now['inside']:,}"],
                ["blocks whole", f"{count['2']:,}"], ["blocks in part", f"{count['1']:,}"], ["blocks skipped", f"{count['0']:,}"],
                ["FLOPs of all pairs, one head of width 64", f"{now['flops']['dense']:,}"], ["FLOPs of the computed blocks", f"{now['flops']['blocks']:,}"],
                *([f"tokens that reach token {self.query} within {layer} {'layer' if layer == 1 else 'layers'}", f"{reached:,}"]
                  for layer, reached in enumerate(now["reached"], start=1))]


def _whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


def _draws(seed: int) -> list[list[int]]:
    """The salts that `masks.bigbird` draws for each of up to three random blocks."""
    rng = random.Random(seed)
    return [[int(rng.random() * 1048576) for _ in range(3)] for _ in range(LIMITS["drawn"][1])]
