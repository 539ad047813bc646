"""Exact attention in memory linear in the sequence: FlashAttention, in torch."""

import math

import numpy as np
import torch

from attnlib import masks
from attnlib._shapes import takes
from attnlib.flash._parts import check_heads, to_items
from attnlib.flash._tiles import Sight, Tiles

SHAPES = dict(q="float ... heads seq_q dim_head", k="float ... kv_heads seq_k dim_head", v="float ... kv_heads seq_k dim_v")


@takes(**SHAPES)
def flash_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = False,
    mask: torch.Tensor | masks.Predicate | None = None, return_lse: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Softmax attention in tiles, with a running maximum and sum (FlashAttention: arXiv 2205.14135, Algorithm 1; 2307.08691).

    Exact up to rounding. No seq_q · seq_k array is formed, forward or backward: the backward pass computes the
    weights again from the log-sum-exp of each row. As many FLOPs as ordinary attention, and one product more backward.

    Parameters
    ----------
    q, k, v : (..., heads, seq_q, dim_head), (..., kv_heads, seq_k, dim_head), (..., kv_heads, seq_k, dim_v)
        Queries, keys and values; `kv_heads` divides `heads`, neighbouring query heads share a key head. Half
        precision is computed in float32.
    causal : bool
        Whether a query sees only what does not come after it. Where seq_q ≠ seq_k queries are aligned to the end:
        the last query sees the last key. Tiles after the diagonal are skipped.
    mask : bool tensor or predicate, optional
        Who may attend to whom: broadcast to (..., heads, seq_q, seq_k), True = may attend; or one of `attnlib.masks`,
        which is asked a tile at a time. Tiles in which nobody may attend are skipped.
    return_lse : bool
        Whether to return the log-sum-exp too, for `merge_partial`.

    Returns
    -------
    out : (..., heads, seq_q, dim_v)
        Zeros, with zero gradients, for a query that may see no key.
    lse : (..., heads, seq_q)
        If asked for: the natural logarithm of the sum of e^score over the keys seen, -inf where there is none.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices do not fit, the heads do not divide, or the mask is about another batch.

    Notes
    -----
    What no query of a tile may see is replaced by zeros: NaN or infinity there reaches neither result nor gradient.
    """
    check_heads("flash_attention", q, k)
    lead, heads, (seq_q, seq_k) = torch.broadcast_shapes(q.shape[:-3], k.shape[:-3], v.shape[:-3]), q.shape[-3], (q.shape[-2], k.shape[-2])
    given, items = q.dtype, lead.numel() * heads
    if isinstance(mask, torch.Tensor):
        _check_mask(q, k, v, mask)
    look, group_of = _looking(mask, (*lead, heads, seq_q, seq_k), q.device)
    out, lse = Tiles.apply(*to_items(q, k, v), Sight(items, seq_q, seq_k, causal, look, group_of, q.device))
    out, lse = out.unflatten(0, (*lead, heads)).to(given), lse.unflatten(0, (*lead, heads))
    return (out, lse) if return_lse else out


def _check_mask(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor):
    """Raise unless the mask fits the scores."""


_check_mask.__qualname__ = "flash_attention"                 # errors name the public function
_check_mask = takes(**SHAPES, mask="bool ... heads seq_q seq_k")(_check_mask)


def _looking(mask, shape, device):
    """(function of two slices -> the mask of a tile for each group, group of each item), or (None, None)."""
    if mask is None:
        return None, None
    *lead, seq_q, seq_k = shape
    items = math.prod(lead)
    if isinstance(mask, torch.Tensor):
        flat = mask.expand(shape)
        index = list(np.ndindex(*lead))
        if all(size == 1 or stride == 0 for size, stride in zip(lead, flat.stride(), strict=False)):
            return lambda rows, keys: flat[index[0]][None, rows, keys] if index else flat.new_zeros(0, 0, 0), [0] * items
        return lambda rows, keys: [flat[at][rows, keys] for at in index], range(items)
    if not callable(mask):
        raise TypeError(f"flash_attention: mask is of type {type(mask).__name__}, expected a bool tensor or a function of (q_idx, k_idx)")
    per_batch = getattr(mask, "per_batch", False)
    ahead = seq_k - seq_q

    def look(rows, keys):
        q_idx, k_idx = np.arange(rows.start, rows.stop)[:, None] + ahead, np.arange(keys.start, keys.stop)[None, :]
        allowed = np.asarray(mask(q_idx, k_idx))
        allowed = np.broadcast_to(allowed, (*allowed.shape[:-2], q_idx.size, k_idx.size))
        return torch.from_numpy(allowed.reshape(-1, q_idx.size, k_idx.size).copy()).to(device)

    sequences = len(look(slice(0, 1), slice(0, 1))) if per_batch else 1
    batch = lead[0] if len(lead) > 1 else 1
    if sequences not in (1, batch):
        raise ValueError(f"flash_attention: mask is about {sequences} sequences, expected 1 or the batch of {batch}")
    return look, [item * sequences // items for item in range(items)]


