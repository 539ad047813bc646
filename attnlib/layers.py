"""Attention as torch modules: the reference's lines with gradients, and a layer with its own weights.

A mask is boolean, True where a query may attend, as in torch's scaled_dot_product_attention and the
opposite of nn.MultiheadAttention's.
"""

import torch
from torch import nn

from attnlib._shapes import takes

__all__ = ["MultiHeadAttention", "attention"]


@takes(q="float ... seq_q dim_head", k="float ... seq_k dim_head", v="float ... seq_k dim_v", mask="bool ... seq_q seq_k")
def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled dot-product attention (Vaswani et al., arXiv 1706.03762, Eq. 1), differentiable.

    Parameters
    ----------
    q : (..., seq_q, dim_head)
        Queries.
    k : (..., seq_k, dim_head)
        Keys.
    v : (..., seq_k, dim_v)
        Values.
    mask : bool, broadcasts to (..., seq_q, seq_k), optional
        True where a query may attend. Where seq_q ≠ seq_k a causal mask is aligned to the end
        (`attnlib.masks.to_array` does that): the last query sees the last key.

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
    if mask is None:
        mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device)
    mask = mask.expand(*mask.shape[:-2], q.shape[-2], k.shape[-2])
    seen = mask.any(dim=-2).unsqueeze(-1)                    # (..., seq_k, 1): does any query see this key?
    k, v = k.masked_fill(~seen, 0), v.masked_fill(~seen, 0)
    scores = q @ k.mT / q.shape[-1] ** 0.5                   # (..., seq_q, seq_k)
    blind = ~mask.any(dim=-1, keepdim=True)                  # (..., seq_q, 1): a query that sees no key
    scores = scores.masked_fill(~mask & ~blind, -torch.inf)  # a blind row stays finite, and is cleared below
    weights = torch.softmax(scores, dim=-1).masked_fill(blind, 0)
    return weights @ v, weights                              # (..., seq_q, dim_v)


class MultiHeadAttention(nn.Module):
    """Multi-head attention (arXiv 1706.03762, Section 3.2.2); grouped (2305.13245) or multi-query (1911.02150) if asked.

    Parameters
    ----------
    dim : int
        Width of the model.
    heads : int
        Query heads.
    kv_heads : int, optional
        Key/value heads, a divisor of `heads`. Default `heads` (MHA); fewer is GQA, 1 is MQA.
    dim_head : int, optional
        Width per head; default dim / heads.
    bias : bool
        Whether the four projections add a bias.

    Raises
    ------
    ValueError, TypeError
        If a size is not a positive int, `heads` does not divide `dim` and `dim_head` is not given, or
        `kv_heads` does not divide `heads`.
    """

    @takes(dim="positive", heads="positive", kv_heads="divides heads", dim_head="positive")
    def __init__(
        self, dim: int, heads: int, kv_heads: int | None = None, *, dim_head: int | None = None, bias: bool = True
    ):
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        if dim_head is None and dim % heads:
            raise ValueError(f"MultiHeadAttention: heads is {heads}, expected a positive divisor of dim = {dim}")
        dim_head = dim // heads if dim_head is None else dim_head
        self.dim, self.heads, self.kv_heads = dim, heads, kv_heads
        self.to_q = nn.Linear(dim, heads * dim_head, bias=bias)
        self.to_k = nn.Linear(dim, kv_heads * dim_head, bias=bias)
        self.to_v = nn.Linear(dim, kv_heads * dim_head, bias=bias)
        self.to_out = nn.Linear(heads * dim_head, dim, bias=bias)

    @takes(**{"self.to_q.weight": "float width dim"}, x="float ... seq_q dim", context="float ... seq_k dim",
           mask="bool ... heads seq_q seq_k")
    def forward(
        self, x: torch.Tensor, context: torch.Tensor | None = None, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend from `x` to `context`, or to `x` itself.

        Parameters
        ----------
        x : (..., seq_q, dim)
            Where the queries come from.
        context : (..., seq_k, dim), optional
            Where keys and values come from (cross-attention). Default: `x` (self-attention).
        mask : bool, broadcasts to (..., heads, seq_q, seq_k), optional
            True where a query may attend.

        Returns
        -------
        out : (..., seq_q, dim)
        weights : (..., heads, seq_q, seq_k)

        Raises
        ------
        ValueError, TypeError
            If shapes, dtypes, devices or the mask's kind do not fit.
        """
        context = x if context is None else context          # self-attention unless told otherwise
        q = self.to_q(x).unflatten(-1, (self.heads, -1)).transpose(-2, -3)           # (..., heads, seq_q, dim_head)
        k = self.to_k(context).unflatten(-1, (self.kv_heads, -1)).transpose(-2, -3)  # (..., kv_heads, seq_k, dim_head)
        v = self.to_v(context).unflatten(-1, (self.kv_heads, -1)).transpose(-2, -3)
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, dim=-3), v.repeat_interleave(group, dim=-3)  # (..., heads, seq_k, dim_head)
        out, weights = attention(q, k, v, mask)              # (..., heads, seq_q, dim_head)
        return self.to_out(out.transpose(-2, -3).flatten(-2)), weights               # (..., seq_q, dim)
