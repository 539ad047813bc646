"""Attention over blocks: a predicate becomes a map of blocks, and only the blocks that hold something are computed."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from attnlib import masks
from attnlib._shapes import takes
from attnlib.flash._parts import check_count, check_heads, to_items
from attnlib.sparse._blocks import BlockRow, Blocks, block_row

SHAPES = dict(q="float ... heads seq_q dim_head", k="float ... kv_heads seq_k dim_head", v="float ... kv_heads seq_k dim_v")


@dataclass(frozen=True)
class BlockMap:
    """Which blocks of a (seq_q, seq_k) pattern are computed; made once by `block_map`, used for every call.

    Attributes
    ----------
    seq_q, seq_k, block_size : int
        The lengths it is made for, and the side of a block; the last block of either side may be shorter.
    kinds : (batch, blocks_q, blocks_k) uint8 array
        0 where no query of the block may see any of its keys, 1 where some may, 2 where all may.
        Batch is 1 unless the predicate depends on the sequence (`masks.padding`).
    rows : tuple of tuple of BlockRow
        For each sequence of the batch, its blocks of queries.
    seen : (batch, seq_k) bool tensor
        Whether any query may see the key.
    """

    seq_q: int
    seq_k: int
    block_size: int
    kinds: np.ndarray
    rows: tuple[tuple[BlockRow, ...], ...]
    seen: torch.Tensor

    @property
    def fraction(self) -> float:
        """Computed pairs of query and key, as a share of all.

        Returns
        -------
        float
            Between 0 and 1; for several sequences their mean.
        """
        pairs = sum((row.rows.stop - row.rows.start) * len(row) for rows in self.rows for row in rows)
        return pairs / max(1, self.seq_q * self.seq_k * len(self.rows))

    def __repr__(self) -> str:
        """Name the sizes and the share computed."""
        return f"BlockMap({self.seq_q} × {self.seq_k}, blocks of {self.block_size}, {self.fraction:.1%} computed)"


def block_map(predicate: masks.Predicate, seq_q: int, seq_k: int | None = None, block_size: int = 128) -> BlockMap:
    """The blocks that a predicate needs, in the manner of flex_attention's block mask (arXiv 2412.05496, Section 3.2).

    The predicate is asked about every pair once, one row of blocks at a time; what is kept is of the size of the
    partial blocks.

    Parameters
    ----------
    predicate : predicate
        One of `attnlib.masks`, or any function of (q_idx, k_idx) on arrays.
    seq_q, seq_k : int
        Numbers of queries and keys, at least 0; queries are aligned to the end. `seq_k` defaults to `seq_q`.
    block_size : int
        Queries, and keys, to a block; at least 1, need not divide the lengths.

    Returns
    -------
    BlockMap

    Raises
    ------
    ValueError, TypeError
        If a number is too small or not an int, or `predicate` is not a function.
    """
    seq_k = seq_q if seq_k is None else seq_k
    check_count("block_map", 0, seq_q=seq_q, seq_k=seq_k)
    check_count("block_map", 1, block_size=block_size)
    if not callable(predicate):
        raise TypeError(f"block_map: predicate is of type {type(predicate).__name__}, expected a function of (q_idx, k_idx)")
    starts, all_rows, all_kinds, seen = range(0, seq_k, block_size), [], [], None
    k_idx = np.arange(seq_k)[None, :]
    for first in range(0, seq_q, block_size):
        rows = slice(first, min(first + block_size, seq_q))
        q_idx = np.arange(rows.start, rows.stop)[:, None] + seq_k - seq_q
        allowed = np.asarray(predicate(q_idx, k_idx))        # (rows, seq_k), or (batch, 1, rows, seq_k)
        allowed = np.broadcast_to(allowed, (*allowed.shape[:-2], q_idx.size, seq_k))
        allowed = allowed.reshape(math.prod(allowed.shape[:-2]), q_idx.size, seq_k)
        visible = np.add.reduceat(allowed.sum(1), starts, axis=-1) if seq_k else np.zeros((len(allowed), 0), int)
        sizes = np.diff([*starts, seq_k]) * q_idx.size       # (blocks_k,): pairs in each block
        kinds = (visible > 0).astype(np.uint8) + (visible == sizes)
        all_kinds.append(kinds)
        all_rows.append([block_row(rows, each, kind, block_size) for each, kind in zip(allowed, kinds, strict=True)])
        seen = allowed.any(1) if seen is None else seen | allowed.any(1)
    seen = np.zeros((1, seq_k), bool) if seen is None else seen
    kinds = np.stack(all_kinds, 1) if all_kinds else np.zeros((1, 0, len(starts)), np.uint8)
    rows = tuple(zip(*all_rows, strict=True)) if all_rows else ((),)
    return BlockMap(seq_q, seq_k, block_size, kinds, rows, torch.from_numpy(seen))


@takes(**SHAPES)
def block_sparse_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, predicate: masks.Predicate | BlockMap, block_size: int = 128
) -> torch.Tensor:
    """Attention where a predicate allows it, computing only the blocks that hold an allowed pair (arXiv 1904.10509, 2412.05496).

    Parameters
    ----------
    q, k, v : (..., heads, seq_q, dim_head), (..., kv_heads, seq_k, dim_head), (..., kv_heads, seq_k, dim_v)
        Queries, keys and values; `kv_heads` divides `heads`. Where seq_q ≠ seq_k queries are aligned to the end.
    predicate : predicate or BlockMap
        Who may attend to whom. A predicate is made into a map at every call, which asks it about all
        seq_q · seq_k pairs: in a loop, call `block_map` once and hand in what it returns.
    block_size : int
        Side of a block; not used with a BlockMap, which has its own.

    Returns
    -------
    (..., heads, seq_q, dim_v)
        Zeros, with zero gradients, for a query that may see no key.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices do not fit, or the map was made for other lengths or another batch.

    Notes
    -----
    Keys and values that no query may see are replaced by zeros where they stand in a computed block: NaN or
    infinity there reaches neither a result nor a gradient.
    """
    found, lead, k, v = _fitting("block_sparse_attention", q, k, v, predicate, block_size)
    given, heads, per = q.dtype, q.shape[-3], max(1, lead.numel() // max(1, len(found.rows)))
    q, k, v, kv_of = to_items(q, k, v)
    rows_of = [found.rows[item // heads // per] for item in range(len(q))]
    return Blocks.apply(q, k, v, kv_of, rows_of).unflatten(0, (*lead, heads)).to(given)


def _fitting(where, q, k, v, predicate, block_size):
    """(map, leading axes, k, v): the map for these tensors, checked; zeros for keys and values that no query may see."""
    check_heads(where, q, k)
    seq_q, seq_k = q.shape[-2], k.shape[-2]
    found = predicate if isinstance(predicate, BlockMap) else block_map(predicate, seq_q, seq_k, block_size)
    if (found.seq_q, found.seq_k) != (seq_q, seq_k):
        raise ValueError(f"{where}: predicate is a map for seq_q = {found.seq_q}, seq_k = {found.seq_k}, expected one for "
                         f"{seq_q}, {seq_k}")
    lead = torch.broadcast_shapes(q.shape[:-3], k.shape[:-3], v.shape[:-3])
    sequences = len(found.rows)
    if sequences not in (1, lead[0] if lead else 1):
        raise ValueError(f"{where}: predicate is about {sequences} sequences, expected 1 or the batch of {tuple(lead)}")
    if not found.seen.all():
        unseen = ~found.seen.reshape(-1, *(1,) * max(0, len(lead) - 1), 1, seq_k, 1)
        unseen = unseen if lead else unseen[0]
        k, v = k.masked_fill(unseen, 0), v.masked_fill(unseen, 0)
    return found, lead, k, v


@takes(**SHAPES)
def bigbird_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, block_size: int, window: int = 1, n_global: int = 1,
    n_random: int = 1, seed: int = 0, causal: bool = False,
) -> torch.Tensor:
    """Neighbouring, first and random blocks (Big Bird, arXiv 2007.14062, Section 2), each computed in full or not at all.

    Parameters
    ----------
    q, k, v : (..., heads, seq_q, dim_head), (..., kv_heads, seq_k, dim_head), (..., kv_heads, seq_k, dim_v)
        As in `block_sparse_attention`.
    block_size, window, n_global, n_random, seed : int
        As in `attnlib.masks.bigbird`, whose pattern this is over seq_k positions.
    causal : bool
        Whether a query sees only what does not come after it.

    Returns
    -------
    (..., heads, seq_q, dim_v)

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices do not fit, or a number is too small or not an int.
    """
    check_count("bigbird_attention", 1, block_size=block_size)
    check_count("bigbird_attention", 0, window=window, n_global=n_global, n_random=n_random, seed=seed)
    predicate = masks.bigbird(max(1, k.shape[-2]), block_size, window, n_global, n_random, seed)
    predicate = masks.both(predicate, masks.causal) if causal else predicate
    return block_sparse_attention(q, k, v, predicate, block_size)
