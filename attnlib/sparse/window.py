"""Attention in a sliding window, and two patterns made of windows: dilated, and with global tokens."""

import torch

from attnlib._shapes import takes
from attnlib.sparse.band import Band
from attnlib.sparse.parts import (
    LOG2E,
    SCRATCH,
    Workspace,
    check_count,
    check_heads,
    merge_partial,
    part_backward,
    part_forward,
    to_items,
)

SHAPES = dict(q="float ... heads seq_q dim_head", k="float ... kv_heads seq_k dim_head", v="float ... kv_heads seq_k dim_v")


@takes(**SHAPES)
def sliding_window_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, left: int, right: int = 0
) -> torch.Tensor:
    """Each query attends to `left` keys before it, its own position and `right` keys after it (arXiv 2004.05150, Section 3.1).

    Only tiles along the band are computed, forward and backward: time and memory grow with seq_q · (left + right).

    Parameters
    ----------
    q : (..., heads, seq_q, dim_head)
        Queries; where seq_q ≠ seq_k the last query stands at the last key.
    k : (..., kv_heads, seq_k, dim_head)
        Keys; `kv_heads` divides `heads`, and neighbouring query heads share one.
    v : (..., kv_heads, seq_k, dim_v)
        Values.
    left, right : int
        Keys to each side, the query's own not counted; at least 0.

    Returns
    -------
    (..., heads, seq_q, dim_v)
        Zeros, with zero gradients, for a query whose window holds no key.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices do not fit, or `left` or `right` is negative or not an int.
    """
    check_heads("sliding_window_attention", q, k)
    check_count("sliding_window_attention", 0, left=left, right=right)
    return window_part(q, k, v, left, right)[0].to(q.dtype)


def window_part(q, k, v, left, right):
    """(out, lse) of a sliding window, differentiable: what `merge_partial` takes."""
    seq_q, seq_k = q.shape[-2], k.shape[-2]
    left, right = min(left, max(seq_k, 1) - 1), min(right, max(seq_q, seq_k, 1) - 1)
    out_shape = (*torch.broadcast_shapes(q.shape[:-3], k.shape[:-3], v.shape[:-3]), *q.shape[-3:-1])
    unseen = max(0, seq_k - seq_q - left)                    # keys before every window
    k, v = k[..., unseen:, :], v[..., unseen:, :]
    q, k, v, kv_of = to_items(q, k, v)
    out, lse = Band.apply(q, k, v, kv_of, left, right)
    return out.reshape(*out_shape, v.shape[-1]), lse.reshape(out_shape)


@takes(**SHAPES)
def dilated_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, left: int, step: int) -> torch.Tensor:
    """Each query attends to itself and to every `step`-th key before it, `left` of them (arXiv 2004.05150, Section 3.1).

    Positions that leave the same remainder on division by `step` see only each other: each such class is a
    sequence of its own with a plain sliding window, and is computed as one.

    Parameters
    ----------
    q, k, v : (..., heads, seq_q, dim_head), (..., kv_heads, seq_k, dim_head), (..., kv_heads, seq_k, dim_v)
        As in `sliding_window_attention`.
    left : int
        How many keys before the query, at least 0.
    step : int
        Distance between them, at least 1.

    Returns
    -------
    (..., heads, seq_q, dim_v)
        Zeros, with zero gradients, for a query that stands before the first key.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices do not fit, `left` is negative, `step` less than 1, or one of them not an int.
    """
    check_heads("dilated_attention", q, k)
    check_count("dilated_attention", 0, left=left)
    check_count("dilated_attention", 1, step=step)
    seq_q, parts = q.shape[-2], []
    for back in range(step - 1, -1, -1):                     # the class of the position `back` before the last
        q_class, (k_class, v_class) = every(q, back, step), (every(x, back, step) for x in (k, v))
        part = window_part(q_class, k_class, v_class, left, 0)[0]
        parts.append(torch.nn.functional.pad(part, (0, 0, -(-seq_q // step) - part.shape[-2], 0)))
    return torch.stack(parts, -2).flatten(-3, -2)[..., -seq_q:, :].to(q.dtype)


def every(x, back, step):
    """The positions of x (..., seq, width) that lie `back`, back + step, back + 2·step, ... before the last."""
    last = x.shape[-2] - 1 - back
    return x[..., last % step : last + 1 : step, :] if last >= 0 else x[..., :0, :]


@takes(**SHAPES)
def global_window_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, n_global: int, left: int, right: int = 0
) -> torch.Tensor:
    """A sliding window, and `n_global` first positions that see everything and are seen by everyone (Longformer, 2004.05150).

    The window and the global keys are two partial results over disjoint keys, merged exactly; the rows of the
    global positions are computed in full. (Longformer gives global positions projections of their own; hand in
    what they should be.)

    Parameters
    ----------
    q, k, v : (..., heads, seq_q, dim_head), (..., kv_heads, seq_k, dim_head), (..., kv_heads, seq_k, dim_v)
        As in `sliding_window_attention`.
    n_global : int
        How many, at least 0. Queries before the first key count as global too, as in `masks.global_tokens`.
    left, right : int
        The window, as in `sliding_window_attention`.

    Returns
    -------
    (..., heads, seq_q, dim_v)

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices do not fit, or a number is negative or not an int.
    """
    check_heads("global_window_attention", q, k)
    check_count("global_window_attention", 0, n_global=n_global, left=left, right=right)
    ahead = k.shape[-2] - q.shape[-2]
    first = min(max(0, n_global - ahead), q.shape[-2]) if n_global else 0    # queries at global positions
    own, others = q[..., :first, :], q[..., first:, :]
    head = every_key_part(own, k, v)[0]
    near = window_part(others, k[..., n_global:, :], v[..., n_global:, :], left, right)
    far = every_key_part(others, k[..., :n_global, :], v[..., :n_global, :])
    return torch.cat([head, merge_partial(*near, *far)[0]], -2).to(q.dtype)


class EveryKey(torch.autograd.Function):
    """(out, lse) of attention to all keys, item by item and some rows at a time, so that no seq² is kept."""

    @staticmethod
    def forward(ctx, q, k, v, kv_of):
        """Attend."""
        out, lse2, work = v.new_empty(*q.shape[:2], v.shape[-1]), q.new_empty(q.shape[:2]), Workspace(q)
        for item, kv in enumerate(kv_of):
            for rows in stretches(q.shape[1], k.shape[1]):
                part = part_forward(work, q[item : item + 1, rows], k[kv : kv + 1], v[kv : kv + 1])
                out[item, rows], lse2[item, rows] = part[0][0], part[1][0]
        ctx.save_for_backward(q, k, v, out, lse2)
        ctx.kv_of = kv_of
        return out, lse2 / LOG2E

    @staticmethod
    def backward(ctx, d_out, d_lse):
        """Attend again."""
        q, k, v, out, lse2 = ctx.saved_tensors
        delta = torch.linalg.vecdot(d_out, out) - d_lse
        d_q, d_k, d_v, work = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v), Workspace(q)
        for item, kv in enumerate(ctx.kv_of):
            for rows in stretches(q.shape[1], k.shape[1]):
                at = slice(item, item + 1), rows
                part = part_backward(work, d_out[at], q[at], k[kv : kv + 1], v[kv : kv + 1], lse2[at], delta[at])
                d_q[at] = part[0]
                d_k[kv] += part[1][0]
                d_v[kv] += part[2][0]
        return d_q, d_k, d_v, None


def stretches(seq_q, seq_k):
    """Slices of rows whose scores fit the scratch."""
    step = max(1, SCRATCH // max(1, seq_k))
    return [slice(start, min(start + step, seq_q)) for start in range(0, seq_q, step)]


def every_key_part(q, k, v):
    """(out, lse) of attention to all keys, differentiable."""
    shape = (*torch.broadcast_shapes(q.shape[:-3], k.shape[:-3], v.shape[:-3]), *q.shape[-3:-1])
    out, lse = EveryKey.apply(*to_items(q, k, v))
    return out.reshape(*shape, v.shape[-1]), lse.reshape(shape)
