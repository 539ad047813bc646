"""Sparse attention as chapter 15 writes it: short, slower, and what the fast forms beside it are tested against."""

import torch
from torch.nn import functional as F

from attnlib._shapes import takes
from attnlib.layers import attention

SHAPES = dict(q="float ... seq_q dim_head", k="float ... seq_k dim_head", v="float ... seq_k dim_v")


@takes(**SHAPES, left="count", right="count", block="positive")
def window_in_blocks(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, left: int, right: int = 0, block: int = 64
) -> torch.Tensor:
    """A sliding window, one block of queries at a time against the keys that the block needs (arXiv 2004.05150, Section 3.1).

    Parameters
    ----------
    q, k, v : (..., seq_q, dim_head), (..., seq_k, dim_head), (..., seq_k, dim_v)
        At least one query; where seq_q ≠ seq_k the last query stands at the last key.
    left, right : int
        Keys to each side, the query's own not counted; at least 0.
    block : int
        Queries to a block, at least 1.

    Returns
    -------
    (..., seq_q, dim_v)

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes, devices or numbers do not fit.
    """
    (seq_q, seq_k), out = (q.shape[-2], k.shape[-2]), []
    ahead = seq_k - seq_q                                    # query i stands at key i + ahead
    for start in range(0, seq_q, block):
        stop = min(start + block, seq_q)
        near = slice(max(0, start + ahead - left), max(0, stop + ahead + right))  # the keys that the block needs
        distance = torch.arange(seq_k)[near] - torch.arange(start, stop)[:, None] - ahead  # (block, keys)
        mask = (distance >= -left) & (distance <= right)
        out.append(attention(q[..., start:stop, :], k[..., near, :], v[..., near, :], mask)[0])
    return torch.cat(out, dim=-2)


@takes(mask="bool seq_q seq_k", block="positive")
def touched_blocks(mask: torch.Tensor, block: int) -> torch.Tensor:
    """Which blocks of a mask hold at least one allowed pair (arXiv 1904.10509, Section 5.5).

    Parameters
    ----------
    mask : (seq_q, seq_k) bool
        True where a query may attend.
    block : int
        Queries, and keys, to a block; the last block of either side may be shorter.

    Returns
    -------
    (blocks_q, blocks_k) bool

    Raises
    ------
    ValueError, TypeError
        If the mask or the number do not fit.
    """
    padded = F.pad(mask, (0, -mask.shape[1] % block, 0, -mask.shape[0] % block))
    blocks = padded.unflatten(1, (-1, block)).unflatten(0, (-1, block))  # (blocks_q, block, blocks_k, block)
    return blocks.any(dim=3).any(dim=1)


@takes(**SHAPES, mask="bool seq_q seq_k", block="positive")
def block_sparse_in_rows(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, block: int
) -> torch.Tensor:
    """Attention under any mask, one row of blocks at a time, with the keys of its touched blocks (arXiv 1904.10509).

    Parameters
    ----------
    q, k, v : (..., seq_q, dim_head), (..., seq_k, dim_head), (..., seq_k, dim_v)
        At least one query.
    mask : (seq_q, seq_k) bool
        True where a query may attend.
    block : int
        Side of a block, at least 1.

    Returns
    -------
    (..., seq_q, dim_v)

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes, devices or numbers do not fit.
    """
    touched, out = touched_blocks(mask, block), []
    for i, row in enumerate(touched):
        rows = slice(i * block, (i + 1) * block)
        keys = row.repeat_interleave(block)[: k.shape[-2]].nonzero().squeeze(-1)  # positions of the touched keys
        out.append(attention(q[..., rows, :], k[..., keys, :], v[..., keys, :], mask[rows][:, keys])[0])
    return torch.cat(out, dim=-2)


@takes(q="float ... seq dim_head", k="float ... seq dim_head", v="float ... seq dim_v", left="count", step="positive")
def dilated_in_classes(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, left: int, step: int) -> torch.Tensor:
    """A dilated window as a plain one in each class of positions `step` apart (arXiv 2004.05150, Section 3.1).

    Parameters
    ----------
    q, k, v : (..., seq, dim_head), (..., seq, dim_head), (..., seq, dim_v)
        `step` divides seq.
    left, step : int
        How many keys before the query, and how far apart.

    Returns
    -------
    (..., seq, dim_v)

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes, devices or numbers do not fit.
    """
    if q.shape[-2] % step:
        raise ValueError(f"dilated_in_classes: step is {step}, expected a divisor of the length {q.shape[-2]}")
    q, k, v = (x.unflatten(-2, (-1, step)).transpose(-2, -3) for x in (q, k, v))  # (..., step, seq / step, width)
    return window_in_blocks(q, k, v, left).transpose(-2, -3).flatten(-3, -2)      # (..., seq, dim_v)


@takes(q="float ... seq dim_head", k="float ... seq dim_head", v="float ... seq dim_v", top_k="positive", block="positive")
def chosen_in_rows(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, top_k: int, block: int) -> torch.Tensor:
    """Causal attention of each block of queries to its own block and the best of those before it (arXiv 2502.11089, Section 3.3.2).

    Parameters
    ----------
    q, k, v : (..., seq, dim_head), (..., seq, dim_head), (..., seq, dim_v)
        `block` divides seq.
    top_k : int
        Blocks of keys for each block of queries, its own included.
    block : int
        Queries, and keys, to a block.

    Returns
    -------
    (..., seq, dim_v)

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes, devices or numbers do not fit.
    """
    if q.shape[-2] % block:
        raise ValueError(f"chosen_in_rows: block is {block}, expected a divisor of the length {q.shape[-2]}")
    k_blocks, v_blocks = k.unflatten(-2, (-1, block)), v.unflatten(-2, (-1, block))  # (..., blocks, block, width)
    means, out = k_blocks.mean(-2), []                                              # (..., blocks, dim_head)
    for i, rows in enumerate(q.unflatten(-2, (-1, block)).unbind(-3)):              # (..., block, dim_head)
        scores = (means[..., :i, :] @ rows[..., 0, :, None]).squeeze(-1)            # of the blocks before: (..., i)
        best = scores.topk(min(top_k - 1, i)).indices
        chosen = torch.cat([best, best.new_full((*best.shape[:-1], 1), i)], -1)     # and its own
        keys, values = (torch.take_along_dim(x, chosen[..., None, None], -3).flatten(-3, -2) for x in (k_blocks, v_blocks))
        position = (chosen[..., None] * block + torch.arange(block)).flatten(-2)    # (..., keys)
        mask = position[..., None, :] <= i * block + torch.arange(block)[:, None]   # (..., block, keys)
        out.append(attention(rows, keys, values, mask)[0])
    return torch.cat(out, dim=-2)
