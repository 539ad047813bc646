"""Recurrence over segments: attention whose scores see content and distance apart (Transformer-XL, arXiv 1901.02860)."""

import torch
from torch import nn

from attnlib._shapes import takes

__all__ = ["SegmentLayer", "distance_vectors", "masked_weights", "relative_attention", "relative_shift"]


@takes(scores="float ... seq_q seq_k")
def relative_shift(scores: torch.Tensor) -> torch.Tensor:
    """Turn scores per distance into scores per key (Transformer-XL, arXiv 1901.02860, Appendix B).

    Parameters
    ----------
    scores : (..., seq_q, seq_k)
        Column c holds the score of the distance seq_k - 1 - c: the largest distance first, 0 last.

    Returns
    -------
    (..., seq_q, seq_k)
        Column j holds the score of key j: row i is moved left by seq_q - 1 - i. Queries are the last positions.
        To the right of a query's own position stand numbers of the next row: hide them with a causal mask.

    Raises
    ------
    ValueError, TypeError
        If `scores` has fewer than two axes or no floating-point entries.

    Notes
    -----
    No scores are computed twice and none are looked up: with a zero in front of each row, rows one shorter
    begin one later, row after row.
    """
    *lead, seq_q, seq_k = scores.shape
    padded = nn.functional.pad(scores, (1, 0))               # (..., seq_q, seq_k + 1): a zero in front of each row
    rows = padded.reshape(*lead, seq_k + 1, seq_q)           # the same numbers, cut anew
    return rows[..., 1:, :].reshape(*lead, seq_q, seq_k)


@takes(seq="count", dim="even")
def distance_vectors(seq: int, dim: int, device: torch.device | None = None) -> torch.Tensor:
    """Sinusoids of the distances seq - 1, …, 1, 0 (arXiv 1901.02860, Section 3.3; 1706.03762, Section 3.5).

    Parameters
    ----------
    seq : int
        How many distances.
    dim : int
        Width, even.
    device : torch.device, optional
        Where to put them.

    Returns
    -------
    (seq, dim)
        Row c belongs to the distance seq - 1 - c. Columns 2i and 2i + 1 hold sine and cosine.

    Raises
    ------
    ValueError, TypeError
        If `seq` is negative, `dim` is odd, or one of them is not an int.
    """
    distances = torch.arange(seq - 1, -1, -1, device=device)                # (seq,)
    speeds = 10000.0 ** (-torch.arange(0, dim, 2, device=device) / dim)     # (dim / 2,), radians per position
    angles = distances[:, None] * speeds                                    # (seq, dim / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)    # (seq, dim)


@takes(scores="float ... seq_q seq_k", mask="bool ... seq_q seq_k")
def masked_weights(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Softmax over the keys that a query may see; zeros, with zero gradients, where it may see none.

    Parameters
    ----------
    scores : (..., seq_q, seq_k)
        Scores, scaled.
    mask : bool, broadcasts to (..., seq_q, seq_k)
        True where a query may attend.

    Returns
    -------
    (..., seq_q, seq_k)
        Each row sums to 1, or to 0 for a query that may see no key.

    Raises
    ------
    ValueError, TypeError
        If shapes, devices or kinds do not fit.
    """
    mask = mask.expand(*mask.shape[:-1], scores.shape[-1])
    blind = ~mask.any(dim=-1, keepdim=True)                  # (..., seq_q, 1): a query that sees no key
    scores = scores.masked_fill(~mask & ~blind, -torch.inf)  # a blind row stays finite, and is cleared below
    return torch.softmax(scores, dim=-1).masked_fill(blind, 0)


@takes(q="float ... seq_q dim_head", k="float ... seq_k dim_head", v="float ... seq_k dim_v",
       r="float ... seq_k dim_head", content_bias="float ... dim_head", position_bias="float ... dim_head",
       mask="bool ... seq_q seq_k")
def relative_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, r: torch.Tensor,
    content_bias: torch.Tensor, position_bias: torch.Tensor, mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention whose scores see content and distance apart (Transformer-XL, arXiv 1901.02860, Section 3.3).

    The score of query i and key j at distance t is q·k + q·r(t) + u·k + w·r(t), over √dim_head: the paper's terms
    (a) to (d), with u `content_bias` and w (there v) `position_bias`.

    Parameters
    ----------
    q : (..., seq_q, dim_head)
        Queries. Where seq_q ≠ seq_k they are the last positions: the last query stands at the last key.
    k : (..., seq_k, dim_head)
        Keys of content.
    v : (..., seq_k, dim_v)
        Values.
    r : (..., seq_k, dim_head)
        Keys of the distances seq_k - 1, …, 1, 0: projected `distance_vectors`.
    content_bias, position_bias : (..., dim_head)
        What every query asks of contents and of distances, whatever it holds itself; one vector per head.
    mask : bool, broadcasts to (..., seq_q, seq_k), optional
        True where a query may attend, beside the causal mask, which always holds.

    Returns
    -------
    out : (..., seq_q, dim_v)
        Zeros, with zero gradients, for a query that may see no key.
    weights : (..., seq_q, seq_k)
        Each row sums to 1, or to 0 for a query that may see no key.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes, devices or the mask's kind do not fit; the message names the argument.

    Notes
    -----
    Keys and values that no query may see are replaced by zeros: NaN or infinity there reaches neither a
    result nor a gradient.
    """
    seq_q, seq_k = q.shape[-2], k.shape[-2]
    causal = torch.ones(seq_q, seq_k, dtype=torch.bool, device=q.device).tril(seq_k - seq_q)
    mask = causal if mask is None else causal & mask
    seen = mask.any(dim=-2).unsqueeze(-1)                    # (..., seq_k, 1): does any query see this key?
    k, v = k.masked_fill(~seen, 0), v.masked_fill(~seen, 0)
    content = (q + content_bias.unsqueeze(-2)) @ k.mT        # (..., seq_q, seq_k): terms (a) and (c)
    position = (q + position_bias.unsqueeze(-2)) @ r.mT      # (..., seq_q, distances): terms (b) and (d)
    scores = (content + relative_shift(position)) / q.shape[-1] ** 0.5
    weights = masked_weights(scores, mask)
    return weights @ v, weights                              # (..., seq_q, dim_v)


class SegmentLayer(nn.Module):
    """Causal multi-head attention over a memory and a segment, by content and distance (arXiv 1901.02860, Section 3.3).

    Parameters
    ----------
    dim : int
        Width of the model, even.
    heads : int
        A divisor of `dim`.

    Raises
    ------
    ValueError, TypeError
        If `dim` is odd, `heads` does not divide it, or one of them is not a positive int.
    """

    @takes(dim="even", heads="divides dim")
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.dim, self.heads = dim, heads
        self.to_q, self.to_k, self.to_v, self.to_r, self.to_out = (nn.Linear(dim, dim, bias=False) for _ in range(5))
        self.content_bias = nn.Parameter(torch.zeros(heads, dim // heads))
        self.position_bias = nn.Parameter(torch.zeros(heads, dim // heads))

    @takes(**{"self.to_q.weight": "float width dim"}, x="float ... seq dim", memory="float ... n_mem dim")
    def forward(self, x: torch.Tensor, memory: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend from a segment to its memory and to itself.

        Parameters
        ----------
        x : (..., seq, dim)
            The segment: queries, and the last keys and values.
        memory : (..., n_mem, dim), optional
            Rows of earlier segments, oldest first; keys and values only.

        Returns
        -------
        out : (..., seq, dim)
        weights : (..., heads, seq, n_mem + seq)

        Raises
        ------
        ValueError, TypeError
            If shapes, dtypes or devices do not fit.
        """
        context = x if memory is None else torch.cat([memory, x], dim=-2)        # (..., n_mem + seq, dim)
        r = distance_vectors(context.shape[-2], self.dim, x.device).to(x.dtype)  # (n_mem + seq, dim)
        q, k, v, r = (
            each.unflatten(-1, (self.heads, -1)).transpose(-2, -3)               # (..., heads, ·, dim_head)
            for each in (self.to_q(x), self.to_k(context), self.to_v(context), self.to_r(r))
        )
        out, weights = relative_attention(q, k, v, r, self.content_bias, self.position_bias)
        return self.to_out(out.transpose(-2, -3).flatten(-2)), weights           # (..., seq, dim)
