"""Attention in NumPy, in the fewest lines that are right: the truth the rest is compared with.

Every function accepts any leading axes (batch, heads). Queries are rows, keys are columns.
A mask is boolean, True where a query may attend, and broadcasts to the scores.
"""

import numpy as np

from attnlib._shapes import takes

__all__ = [
    "attention",
    "attention_backward",
    "attention_scores",
    "entropy",
    "merge_heads",
    "multi_head_attention",
    "online_softmax_update",
    "softmax",
    "softmax_backward",
    "split_heads",
]


@takes(q="float ... seq_q dim_head", k="float ... seq_k dim_head")
def attention_scores(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Scaled dot-product scores, S = Q Kᵀ / √d (Vaswani et al., arXiv 1706.03762, Eq. 1).

    Parameters
    ----------
    q : (..., seq_q, dim_head)
        Queries.
    k : (..., seq_k, dim_head)
        Keys.

    Returns
    -------
    (..., seq_q, seq_k)
        One row per query, one column per key; dimensionless.

    Raises
    ------
    ValueError, TypeError
        If the widths differ, the leading axes do not broadcast, or the dtypes differ or are not floating.
    """
    return q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5          # (..., seq_q, seq_k)


@takes(scores="float ... seq_k")
def softmax(scores: np.ndarray) -> np.ndarray:
    """Turn each row of scores into weights that are positive and sum to 1 (arXiv 1706.03762, Eq. 1).

    Subtracting the row's largest score changes nothing in exact arithmetic and keeps every power
    at most 1. A row in which every score is -inf (every key masked), or which has no entries,
    gives zeros instead of NaN: it spends nothing. The sum is taken in the dtype of the scores: in float16 it
    overflows beyond about 65,500 keys of equal score.

    Parameters
    ----------
    scores : (..., seq_k)
        Real numbers or -inf.

    Returns
    -------
    (..., seq_k)
        Weights; each row sums to 1, or to 0 where every score is -inf.

    Raises
    ------
    TypeError
        If `scores` is not a floating-point array.
    """
    lowest = np.finfo(scores.dtype).min                      # makes the maximum finite in every row
    row_max = scores.max(axis=-1, keepdims=True, initial=lowest)
    powers = np.exp(scores - row_max)                        # the largest score becomes 0, no power exceeds 1
    row_sum = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(row_sum == 0, 1, row_sum)       # an empty row stays all zeros


@takes(weights="float ... seq_k")
def entropy(weights: np.ndarray) -> np.ndarray:
    """Shannon entropy of each row of weights, H = -Σ p ln p, in nats.

    Parameters
    ----------
    weights : (..., seq_k)
        Non-negative, each row summing to 1 (or all zeros: entropy 0).

    Returns
    -------
    (...)
        0 where one key holds all the weight, ln(seq_k) where every key holds the same.

    Raises
    ------
    TypeError
        If `weights` is not a floating-point array.
    """
    logs = np.log(np.where(weights > 0, weights, 1))         # p ln p -> 0 as p -> 0
    return -(weights * logs).sum(axis=-1)


@takes(weights="float ... seq_k", d_weights="float ... seq_k")
def softmax_backward(weights: np.ndarray, d_weights: np.ndarray) -> np.ndarray:
    """Gradient with respect to the scores, given the one with respect to softmax's result.

    The Jacobian of one row is diag(p) - p pᵀ; this multiplies by it without building it
    (used in FlashAttention's backward pass, arXiv 2205.14135, Appendix B.2).

    Parameters
    ----------
    weights : (..., seq_k)
        What `softmax` returned.
    d_weights : (..., seq_k)
        Gradient of the loss with respect to them.

    Returns
    -------
    (..., seq_k)
        Gradient with respect to the scores; every row sums to 0, masked entries are 0.

    Raises
    ------
    ValueError, TypeError
        If the shapes do not fit or an argument is not a floating-point array.
    """
    expected = (weights * d_weights).sum(axis=-1, keepdims=True)  # mean of the gradient under the weights
    return weights * (d_weights - expected)


@takes(q="float ... seq_q dim_head", k="float ... seq_k dim_head", v="float ... seq_k dim_v", mask="bool ... seq_q seq_k")
def attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Scaled dot-product attention (Vaswani et al., arXiv 1706.03762, Eq. 1).

    Parameters
    ----------
    q : (..., seq_q, dim_head)
        Queries.
    k : (..., seq_k, dim_head)
        Keys.
    v : (..., seq_k, dim_v)
        Values; `dim_v` may differ from `dim_head`.
    mask : bool, broadcasts to (..., seq_q, seq_k), optional
        True where a query may attend. Where seq_q ≠ seq_k a causal mask is aligned to the end
        (`attnlib.masks.to_array` does that): the last query sees the last key.

    Returns
    -------
    out : (..., seq_q, dim_v)
        For each query the weighted mean of the values; zeros for a query that may see no key.
    weights : (..., seq_q, seq_k)
        Each row sums to 1, or to 0 for a query that may see no key.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or the mask's kind do not fit; the message names the argument.

    Notes
    -----
    A value to which every query gives weight 0 is left out of the sum, so that NaN or infinity in
    a position no query may see (an uninitialised cache, say) reaches no result. Where `v` is broadcast over leading axes of the weights,
    this copies it once per axis.
    """
    scores = attention_scores(q, k)                          # (..., seq_q, seq_k)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)             # weight exactly 0 after softmax
    weights = softmax(scores)                                # (..., seq_q, seq_k), rows sum to 1
    used = weights.any(axis=-2)[..., None]                   # (..., seq_k, 1)
    out = weights @ np.where(used, v, 0)                     # (..., seq_q, dim_v)
    return out, weights


@takes(
    d_out="float ... seq_q dim_v", q="float ... seq_q dim_head", k="float ... seq_k dim_head",
    v="float ... seq_k dim_v", weights="float ... seq_q seq_k",
)
def attention_backward(
    d_out: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `attention` (arXiv 2205.14135, Appendix B.2, in matrix form).

    No mask is needed: a masked score has weight 0, and `softmax_backward` passes nothing through it. Unlike
    in `attention`, NaN or infinity in a position no query may see does reach the gradients, because 0 · NaN is
    NaN: put zeros there first.

    Parameters
    ----------
    d_out : (..., seq_q, dim_v)
        Gradient of the loss with respect to `out`.
    q, k, v
        As given to `attention`.
    weights : (..., seq_q, seq_k)
        As returned by `attention`.

    Returns
    -------
    d_q : (..., seq_q, dim_head)
    d_k : (..., seq_k, dim_head)
    d_v : (..., seq_k, dim_v)

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit; the message names the argument.
    """
    d_v = weights.swapaxes(-1, -2) @ d_out                   # (..., seq_k, dim_v)
    d_weights = d_out @ v.swapaxes(-1, -2)                   # (..., seq_q, seq_k)
    d_scores = softmax_backward(weights, d_weights) / q.shape[-1] ** 0.5
    d_q = d_scores @ k                                       # (..., seq_q, dim_head)
    d_k = d_scores.swapaxes(-1, -2) @ q                      # (..., seq_k, dim_head)
    return d_q, d_k, d_v


@takes(x="... seq width", heads="divides width")
def split_heads(x: np.ndarray, heads: int) -> np.ndarray:
    """Cut the last axis into heads and move them in front of the sequence.

    Parameters
    ----------
    x : (..., seq, heads·dim_head)
        Projected vectors; head h owns columns h·dim_head to (h+1)·dim_head.
    heads : int
        Number of heads; must divide the width.

    Returns
    -------
    (..., heads, seq, dim_head)

    Raises
    ------
    ValueError
        If `heads` does not divide the width.
    """
    *lead, seq, width = x.shape
    x = x.reshape(*lead, seq, heads, width // heads)         # (..., seq, heads, dim_head)
    return x.swapaxes(-2, -3)                                # (..., heads, seq, dim_head)


@takes(x="... heads seq dim_head")
def merge_heads(x: np.ndarray) -> np.ndarray:
    """Put the heads side by side again: the inverse of `split_heads`.

    Parameters
    ----------
    x : (..., heads, seq, dim_head)

    Returns
    -------
    (..., seq, heads·dim_head)

    Raises
    ------
    ValueError
        If `x` has fewer than three axes.
    """
    *lead, heads, seq, dim_head = x.shape
    x = x.swapaxes(-2, -3)                                   # (..., seq, heads, dim_head)
    return x.reshape(*lead, seq, heads * dim_head)


@takes(
    heads="positive", kv_heads="divides heads", x="float ... seq_q dim", context="float ... seq_k dim",
    w_q="float dim heads*dim_head", w_k="float dim kv_heads*dim_head", w_v="float dim kv_heads*dim_v",
    w_o="float heads*dim_v dim", biases="float heads*dim_head, float kv_heads*dim_head, float kv_heads*dim_v, float dim",
    mask="bool ... heads seq_q seq_k",
)
def multi_head_attention(
    x: np.ndarray, w_q: np.ndarray, w_k: np.ndarray, w_v: np.ndarray, w_o: np.ndarray, heads: int,
    mask: np.ndarray | None = None, *, context: np.ndarray | None = None, kv_heads: int | None = None,
    biases: tuple = (0, 0, 0, 0),
) -> tuple[np.ndarray, np.ndarray]:
    """Multi-head attention (arXiv 1706.03762, Section 3.2.2), with grouped keys and values if asked.

    With ``kv_heads=heads`` (the default) every query head has its own keys and values; with fewer,
    neighbouring query heads share them (grouped-query attention, arXiv 2305.13245); with 1 all do
    (multi-query attention, arXiv 1911.02150).

    Parameters
    ----------
    x : (..., seq_q, dim)
        Where the queries come from.
    w_q : (dim, heads·dim_head)
    w_k : (dim, kv_heads·dim_head)
    w_v : (dim, kv_heads·dim_v)
    w_o : (heads·dim_v, dim)
        Projections, used as ``x @ w``.
    heads : int
        Number of query heads.
    mask : bool, broadcasts to (..., heads, seq_q, seq_k), optional
        True where a query may attend.
    context : (..., seq_k, dim), optional
        Where keys and values come from: cross-attention. Default: `x`, self-attention.
    kv_heads : int, optional
        Number of key/value heads; must divide `heads`.
    biases : four arrays or zeros
        Added after the projections, in the order q, k, v, o.

    Returns
    -------
    out : (..., seq_q, dim)
    weights : (..., heads, seq_q, seq_k)

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or the mask's kind do not fit, or head counts do not divide.
    """
    context = x if context is None else context              # self-attention unless told otherwise
    kv_heads = heads if kv_heads is None else kv_heads
    b_q, b_k, b_v, b_o = biases
    q = split_heads(x @ w_q + b_q, heads)                    # (..., heads, seq_q, dim_head)
    k = split_heads(context @ w_k + b_k, kv_heads)           # (..., kv_heads, seq_k, dim_head)
    v = split_heads(context @ w_v + b_v, kv_heads)
    k, v = (np.repeat(each, heads // kv_heads, axis=-3) for each in (k, v))  # (..., heads, seq_k, ·)
    out, weights = attention(q, k, v, mask)                  # (..., heads, seq_q, dim_v)
    return merge_heads(out) @ w_o + b_o, weights             # (..., seq_q, dim)


@takes(scores="float ... seq_q block", v="float ... block dim_v", row_max="float ... seq_q",
       row_sum="float ... seq_q", out="float ... seq_q dim_v")
def online_softmax_update(
    row_max: np.ndarray, row_sum: np.ndarray, out: np.ndarray, scores: np.ndarray, v: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Take one more block of keys into a running softmax-weighted sum.

    Start with ``row_max`` full of -inf and ``row_sum``, ``out`` full of 0. After the last block,
    ``out / row_sum`` is attention's result (0 where `row_sum` is 0) and ``row_max + log(row_sum)`` the
    row's log-sum-exp (Milakov & Gimelshein, arXiv 1805.02867, Algorithm 3; FlashAttention,
    arXiv 2205.14135, Algorithm 1).

    Parameters
    ----------
    row_max, row_sum : (..., seq_q)
        Largest score so far and the sum of exp(score - row_max) so far.
    out : (..., seq_q, dim_v)
        Sum of exp(score - row_max) · value so far, not yet divided.
    scores : (..., seq_q, block)
        Scores of the new keys, -inf where masked.
    v : (..., block, dim_v)
        Their values.

    Returns
    -------
    row_max, row_sum, out
        The same three, with the block taken in; new arrays.

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit.
    """
    new_max = np.maximum(row_max, scores.max(axis=-1, initial=-np.inf))  # (..., seq_q)
    shift = np.where(np.isneginf(new_max), 0, new_max)       # nothing seen yet: any finite shift will do
    rescale = np.exp(row_max - shift)                        # what has been summed used the old maximum
    powers = np.exp(scores - shift[..., None])               # (..., seq_q, block)
    row_sum = rescale * row_sum + powers.sum(axis=-1)
    out = rescale[..., None] * out + powers @ v              # (..., seq_q, dim_v)
    return new_max, row_sum, out
