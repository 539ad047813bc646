"""Attention in a sliding window, and two patterns made of windows: dilated, and with global tokens."""

import torch

from attnlib._shapes import takes
from attnlib.flash._parts import check_count, check_heads
from attnlib.flash.merging import merge_partial
from attnlib.sparse._window import every, every_key_part, window_part

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
    if seq_q % step == 0 and k.shape[-2] % step == 0:
        return window_part(q, k, v, left, 0, step)[0].to(q.dtype)
    for back in range(step - 1, -1, -1):                     # the class of the position `back` before the last
        q_class, (k_class, v_class) = every(q, back, step), (every(x, back, step) for x in (k, v))
        part = window_part(q_class, k_class, v_class, left, 0)[0]
        parts.append(torch.nn.functional.pad(part, (0, 0, -(-seq_q // step) - part.shape[-2], 0)))
    return torch.stack(parts, -2).flatten(-3, -2)[..., -seq_q:, :].to(q.dtype)


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
