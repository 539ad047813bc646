"""Heads that learn how far back they look: a soft mask with a learned span, and only as many keys as it lets through.

A head's soft mask is 1 up to a distance z, its *span*, falls to 0 along a ramp of R more positions, and stays 0. The
head's *reach* is the largest distance at which it is not 0: how many keys before the query are computed at all.
"""

import torch
from torch import nn
from torch.nn import functional as F

from attnlib._shapes import takes

__all__ = ["AdaptiveSpanAttention", "adaptive_span_attention", "span_head", "span_mask", "span_reach", "span_softmax"]


@takes(distance="...", ramp="above 0")
def span_mask(distance: torch.Tensor, span: torch.Tensor | float, ramp: float) -> torch.Tensor:
    """The soft mask of a head (Sukhbaatar et al., arXiv 1905.07799, Eq. 5); 0 also for keys after the query.

    Parameters
    ----------
    distance : int tensor
        Position of the query minus position of the key: 0 for the query's own.
    span : number or tensor that broadcasts with `distance`
        z, from 0: up to this distance the mask is 1. Gets a gradient from the keys on the ramp.
    ramp : float
        R, above 0: how far beyond z it reaches 0.

    Returns
    -------
    tensor like `distance`, from 0 to 1

    Raises
    ------
    ValueError, TypeError
        If `ramp` is not a number above 0 or `distance` not a tensor.
    """
    return ((ramp + span - distance) / ramp).clamp(0, 1) * (distance >= 0)


@takes(span="float heads", ramp="above 0")
def span_reach(span: torch.Tensor, ramp: float) -> list[int]:
    """How many keys before the query each head sees: the largest distance at which its soft mask is not 0.

    Parameters
    ----------
    span : (heads,)
        z of each head.
    ramp : float
        R.

    Returns
    -------
    list of int
        The smallest int from z + R on, minus 1.

    Raises
    ------
    ValueError, TypeError
        If `ramp` is not a number above 0 or `span` not a floating-point tensor with one axis.
    """
    return [max(0, int(reach) - 1) for reach in torch.ceil(span.detach() + ramp)]


@takes(scores="float ... seq_q seq_k", mask="float ... seq_q seq_k")
def span_softmax(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Softmax in which each key counts as much as a soft mask says (arXiv 1905.07799, the equation after Eq. 5).

    Parameters
    ----------
    scores : (..., seq_q, seq_k)
        Scaled scores.
    mask : (..., seq_q, seq_k), broadcasts with `scores`
        m, from 0 to 1.

    Returns
    -------
    (..., seq_q, seq_k)
        m·exp(s) / Σ m·exp(s): rows sum to 1, or to 0 where m is 0 throughout.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices do not fit.
    """
    scores = scores.masked_fill(mask == 0, -torch.inf)
    row_max = scores.detach().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
    powers = mask * torch.exp(scores - row_max)              # the largest score that counts becomes 0
    row_sum = powers.sum(dim=-1, keepdim=True)
    return powers / row_sum.masked_fill(row_sum == 0, 1)


@takes(q="float ... seq_q dim_head", k="float ... seq_k dim_head", v="float ... seq_k dim_v", left="count", ramp="above 0",
       positions="float distances dim_head", block_size="positive")
def span_head(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, left: int, span: torch.Tensor | float, ramp: float,
    positions: torch.Tensor | None = None, block_size: int | None = None,
) -> torch.Tensor:
    """One head of `adaptive_span_attention`: blocks of queries, each with its own keys and `left` before them.

    Parameters
    ----------
    q, k, v : (..., seq_q, dim_head), (..., seq_k, dim_head), (..., seq_k, dim_v)
        Queries, keys and values; the last query stands at the position of the last key.
    left : int
        Keys before the query that are computed at all; the soft mask counts as 0 beyond.
    span, ramp : tensor or number, float
        z and R of the soft mask.
    positions : (at least left + 1, dim_head), optional
        A vector for each distance, beside the key.
    block_size : int, optional
        Queries in a block; does not change the result. Default: a quarter of `left`, at least 16.

    Returns
    -------
    (..., seq_q, dim_v)

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices do not fit.
    """
    (seq_q, dim_head), seq_k = q.shape[-2:], k.shape[-2]
    block_size = max(16, left // 4) if block_size is None else block_size
    first, width = seq_k - seq_q, left + block_size
    rows = max(1, -(-seq_q // block_size))
    q = F.pad(q, (0, 0, 0, rows * block_size - seq_q)).unflatten(-2, (rows, block_size))
    ends = (0, 0, left - first, first + rows * block_size - seq_k)               # a negative end cuts off
    k, v = (F.pad(x, ends).unfold(-2, width, block_size) for x in (k, v))        # (..., rows, dim, width)

    column = torch.arange(width, device=q.device)
    distance = torch.arange(block_size, device=q.device)[:, None] + left - column    # (block_size, width)
    k_idx = first - left + block_size * torch.arange(rows, device=q.device)[:, None, None] + column
    real = (k_idx >= 0) & (k_idx < seq_k) & (distance <= left)                   # (rows, block_size, width)
    mask = span_mask(distance, span, ramp).to(q.dtype) * real

    scores = q @ k                                                               # (..., rows, block_size, width)
    if positions is not None:
        by_distance = q @ positions[:left + 1].mT                                # (..., rows, block_size, left + 1)
        scores = scores + by_distance.gather(-1, distance.clamp(0, left).expand(scores.shape))
    weights = span_softmax(scores / dim_head**0.5, mask)
    return (weights @ v.mT).flatten(-3, -2)[..., :seq_q, :]


@takes(q="float ... heads seq_q dim_head", k="float ... heads seq_k dim_head", v="float ... heads seq_k dim_v", span="float heads",
       ramp="above 0", positions="float distances dim_head")
def adaptive_span_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, span: torch.Tensor, ramp: float, positions: torch.Tensor | None = None
) -> torch.Tensor:
    """Causal attention in which each head has a span of its own, differentiable in the span (arXiv 1905.07799, Section 2.2).

    Parameters
    ----------
    q : (..., heads, seq_q, dim_head)
        Queries, aligned to the end: the last query stands at the position of the last key.
    k, v : (..., heads, seq_k, dim_head), (..., heads, seq_k, dim_v)
        Keys and values.
    span : (heads,)
        z of each head, from 0: distances with full weight.
    ramp : float
        R: distances beyond z along which the weight falls to 0. With 1 and whole spans, a window (z, 0).
    positions : (max_span + 1, dim_head), optional
        A vector for each distance, added to the key when the score is formed (their Eq. 1). No head reaches further than it.

    Returns
    -------
    (..., heads, seq_q, dim_v)
        Zeros, with zero gradients, for a query before the first key.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices do not fit.

    Notes
    -----
    A head computes about seq · (5/4 · reach + 16) scores and reads no key outside its reach: time follows the spans. Their
    paper counts distances from the previous token on; here a query also sees itself, at distance 0.
    NaN or infinity in a key or value reaches queries of its block and of those within reach.
    """
    limit = k.shape[-2] if positions is None else positions.shape[-2] - 1
    heads = zip(q.unbind(-3), k.unbind(-3), v.unbind(-3), span_reach(span, ramp), span, strict=True)
    outs = [span_head(*of_head, min(left, limit), z, ramp, positions) for *of_head, left, z in heads]
    return torch.stack(outs, dim=-3)


class AdaptiveSpanAttention(nn.Module):
    """Causal self-attention whose heads learn how far they look (Sukhbaatar et al., arXiv 1905.07799).

    Parameters
    ----------
    dim, heads : int
        Width of the model, and heads; `heads` divides `dim`.
    max_span : int
        S: no head looks further back.
    ramp : float
        R of the soft masks.
    start : float
        Spans before training, as a fraction of `max_span`.

    Attributes
    ----------
    fraction : (heads,)
        Learned: z = max_span · fraction.
    positions : (max_span + 1, dim / heads)
        Learned: a vector for each distance, shared by the heads.

    Raises
    ------
    ValueError, TypeError
        If a size is not an int in its range, `heads` does not divide `dim` or `ramp` is not above 0.
    """

    @takes(dim="positive", heads="divides dim", max_span="count", ramp="above 0")
    def __init__(self, dim: int, heads: int, max_span: int, ramp: float, start: float = 1.0):
        super().__init__()
        self.heads, self.max_span, self.ramp = heads, max_span, ramp
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(dim, dim) for _ in range(4))
        self.positions = nn.Parameter(torch.randn(max_span + 1, dim // heads) / (dim // heads) ** 0.5)
        self.fraction = nn.Parameter(torch.full((heads,), float(start)))

    @property
    def span(self) -> torch.Tensor:
        """z of each head, from 0 to `max_span`.

        Returns
        -------
        (heads,)
        """
        return self.max_span * self.fraction.clamp(0, 1)

    def reach(self) -> list[int]:
        """How many keys before the query each head computes.

        Returns
        -------
        list of int
        """
        return [min(self.max_span, left) for left in span_reach(self.span, self.ramp)]

    def penalty(self) -> torch.Tensor:
        """The mean span: times a coefficient it is added to the loss (their Eq. 6).

        Returns
        -------
        scalar
        """
        return self.span.mean()

    @torch.no_grad()
    def keep_in_bounds(self) -> None:
        """Bring spans that a step of the optimiser has taken out of [0, max_span] back; to be called after each step."""
        self.fraction.clamp_(0, 1)

    @takes(**{"self.to_q.weight": "float width dim"}, x="float ... seq dim")
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend to the past, each head as far as its span.

        Parameters
        ----------
        x : (..., seq, dim)

        Returns
        -------
        (..., seq, dim)

        Raises
        ------
        ValueError, TypeError
            If shapes, dtypes or devices do not fit.
        """
        q, k, v = (to(x).unflatten(-1, (self.heads, -1)).transpose(-2, -3) for to in (self.to_q, self.to_k, self.to_v))
        out = adaptive_span_attention(q, k, v, self.span, self.ramp, self.positions)  # (..., heads, seq, dim_head)
        return self.to_out(out.transpose(-2, -3).flatten(-2))
