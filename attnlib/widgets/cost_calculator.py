"""Cost calculator: from a model's shape and a context to FLOPs, the size of its cache, and where one cost overtakes another."""

from __future__ import annotations

from typing import ClassVar

import traitlets

from attnlib import costs
from attnlib.widgets._figure import Figure, Value

__all__ = ["PRESETS", "CostCalculator"]

WHO = "CostCalculator"
SHAPE = ("layers", "dim", "heads", "kv_heads", "dim_head", "hidden", "vocab", "positions")
FLAGS = ("gated", "centred", "bias", "tied")
LIMITS = {"layers": 1000, "dim": 10**6, "heads": 10**4, "kv_heads": 10**4, "dim_head": 10**4, "hidden": 10**7, "vocab": 10**7,
          "positions": 10**8, "context": 2**24, "batch": 2**20, "bytes_per_number": 8}


def _shape(*sizes, gated, centred, bias, tied):
    return dict(zip(SHAPE, sizes, strict=True)) | {"gated": gated, "centred": centred, "bias": bias, "tied": tied}


_LLAMA = {"gated": True, "centred": False, "bias": False, "tied": False}
PRESETS = {  # as published; `positions` are learned position vectors, `tied`: embedding and output share their matrix
    "GPT-2 (2019)": _shape(12, 768, 12, 12, 64, 3072, 50257, 1024, gated=False, centred=True, bias=True, tied=True),
    "GPT-3 175B (2005.14165)": _shape(96, 12288, 96, 96, 128, 49152, 50257, 2048, gated=False, centred=True, bias=True, tied=True),
    "Mistral 7B (2310.06825)": _shape(32, 4096, 32, 8, 128, 14336, 32000, 0, **_LLAMA),
    "Llama 3 8B (2407.21783)": _shape(32, 4096, 32, 8, 128, 14336, 128256, 0, **_LLAMA),
    "Llama 3 70B (2407.21783)": _shape(80, 8192, 64, 8, 128, 28672, 128256, 0, **_LLAMA),
    "Llama 3 405B (2407.21783)": _shape(126, 16384, 128, 8, 128, 53248, 128256, 0, **_LLAMA),
}


class CostCalculator(Figure):
    """Turn a model's shape, its context and the batch; FLOPs, cache and crossovers follow, in exact whole numbers.

    Parameters
    ----------
    preset : str
        One of `PRESETS`, the shape to begin with.
    context : int
        Tokens n.
    batch : int
        Sequences that are generated at once, each with a cache of its own.
    bytes_per_number : int
        Of weights and cache: 2 for bfloat16.
    causal : bool
        Whether products are computed for the pairs a causal mask lets through only.
    shape : dict, optional
        Sizes and properties in place of those of the preset.
    caption : str
        Stands below the figure.

    Raises
    ------
    ValueError
        If there is no such preset, or a size is not a whole number in its range, or `kv_heads` does not divide `heads`.

    Notes
    -----
    FLOPs are those of matrix products, as `attnlib.costs` counts them. The shapes are those of the papers named.
    """

    module = "cost_calculator"
    title = "What a model costs"
    fields: ClassVar = ("presets", "preset", *SHAPE, *FLAGS, "context", "batch", "bytes_per_number", "causal")
    columns: ClassVar = ("what", "exactly")

    presets = traitlets.Dict().tag(sync=True)
    preset = traitlets.Unicode("").tag(sync=True)
    layers, dim, heads, kv_heads = (traitlets.Int(1).tag(sync=True) for _ in range(4))
    dim_head, hidden, vocab = (traitlets.Int(1).tag(sync=True) for _ in range(3))
    positions = traitlets.Int(0).tag(sync=True)
    gated, centred, bias, tied = (traitlets.Bool(False).tag(sync=True) for _ in range(4))
    context, batch = (traitlets.Int(1).tag(sync=True) for _ in range(2))
    bytes_per_number = traitlets.Int(2).tag(sync=True)
    causal = traitlets.Bool(True).tag(sync=True)

    def __init__(
        self, preset: str = "Llama 3 8B (2407.21783)", *, context: int = 8192, batch: int = 1, bytes_per_number: int = 2,
        causal: bool = True, shape: dict[str, int | bool] | None = None, caption: str = "",
    ) -> None:
        if preset not in PRESETS:
            raise ValueError(f"{WHO}: preset is {preset!r}, expected one of {list(PRESETS)}")
        if unknown := set(shape or {}) - {*SHAPE, *FLAGS}:
            raise ValueError(f"{WHO}: shape names {sorted(unknown)[0]!r}, expected some of {[*SHAPE, *FLAGS]}")
        own = PRESETS[preset] | (shape or {})
        sizes = {name: own[name] for name in SHAPE} | {"context": context, "batch": batch, "bytes_per_number": bytes_per_number}
        for name, size in sizes.items():
            least = 0 if name == "positions" else 1
            if isinstance(size, bool) or not isinstance(size, int) or not least <= size <= LIMITS[name]:
                raise ValueError(f"{WHO}: {name} is {size!r}, expected a whole number from {least} to {LIMITS[name]}")
        if sizes["heads"] % sizes["kv_heads"]:
            raise ValueError(f"{WHO}: kv_heads is {sizes['kv_heads']}, expected a divisor of heads = {sizes['heads']}")
        super().__init__(presets=PRESETS, preset=preset, causal=bool(causal), caption=caption, **sizes,
                         **{name: bool(own[name]) for name in FLAGS})

    def computed(self) -> dict[str, Value]:
        """Every count, as text: whole numbers beyond 2^53 are exact in Python and, as BigInt, in the browser.

        Returns
        -------
        dict of str to str
            ``parameters``; FLOPs of one forward pass over the context, ``projections``, ``products``, ``mlp``,
            ``unembedding``; ``token``, FLOPs of one token more; ``weights`` and ``cache`` in bytes; and two lengths, from which on
            the products are the larger part of a forward pass (``meeting``), and the cache is larger than the weights (``full``).
        """
        n = self.context
        block = costs.block_cost(1, self.dim, self.heads, self.hidden, self.kv_heads, self.dim_head, gated=self.gated,
                                 centred=self.centred, bias=self.bias)
        norm = costs.norm_cost(1, self.dim, centred=self.centred)
        parameters = (self.layers * block.parameters + norm.parameters + self.vocab * self.dim * (1 if self.tied else 2)
                      + self.positions * self.dim)

        def products(seq: int) -> int:
            pairs = costs.causal_pairs(seq) if self.causal else None
            return self.layers * costs.attention_cost(self.heads, seq, seq, self.dim_head, pairs=pairs, fused=True).flops

        def others(seq: int) -> dict[str, int]:
            layer = costs.attention_layer_cost(seq, self.dim, self.heads, self.kv_heads, self.dim_head, pairs=0, fused=True)
            return {"projections": self.layers * layer.flops, "mlp": self.layers * costs.mlp_cost(seq, self.dim, self.hidden, gated=self.gated).flops,
                    "unembedding": costs.linear_cost(seq, self.dim, self.vocab).flops}

        one, weights = sum(others(1).values()), parameters * self.bytes_per_number
        last = self.layers * costs.decode_cost(self.heads, n, self.dim_head, kv_heads=self.kv_heads).flops

        def cache(seq: int) -> int:
            return costs.kv_cache_bytes(self.layers, self.kv_heads, self.dim_head, seq, self.batch, self.bytes_per_number)

        counts = {"parameters": parameters, **others(n), "products": products(n), "token": one + last, "weights": weights, "cache": cache(n),
                  "meeting": costs.meeting_point(products, lambda seq: sum(others(seq).values())),
                  "full": costs.meeting_point(cache, lambda seq: weights)}
        return {name: str(count) for name, count in counts.items()}

    def rows(self) -> list[list[str]]:
        """One row for each count: what it is, and the exact number.

        Returns
        -------
        list of 10 lists of 2 str
        """
        now = self.computed()
        return [[name, f"{int(now[key]):,}"] for key, name in _NAMES.items()]


_NAMES = {
    "parameters": "parameters",
    "projections": "FLOPs of the projections of attention",
    "products": "FLOPs of the products of attention",
    "mlp": "FLOPs of the MLPs",
    "unembedding": "FLOPs of the output matrix",
    "token": "FLOPs of one token more",
    "weights": "bytes of the weights",
    "cache": "bytes of the key-value cache",
    "meeting": "tokens from which on the products are the larger part",
    "full": "tokens from which on the cache is larger than the weights",
}
