"""Parts of attention over some of the keys: how one is computed, how its gradients are, and how two become one.

All of it works on (items, rows, width) tensors and powers of two: 2^(score · log2 e) is e^score, and torch computes
exp2 on a CPU about three times as fast as exp.
"""

import math

import torch

from attnlib._shapes import takes

LOG2E = math.log2(math.e)
SCRATCH = 2**18  # numbers in a scratch buffer of scores: 1 MiB in float32, about one core's second-level cache


@takes(out_a="float ... seq_q dim_v", lse_a="float ... seq_q", out_b="float ... seq_q dim_v", lse_b="float ... seq_q")
def merge_partial(
    out_a: torch.Tensor, lse_a: torch.Tensor, out_b: torch.Tensor, lse_b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over all keys from two results over disjoint sets of keys (arXiv 1805.02867, Eq. 4; 2205.14135).

    Parameters
    ----------
    out_a, out_b : (..., seq_q, dim_v)
        Attention over the one and over the other keys.
    lse_a, lse_b : (..., seq_q)
        The natural logarithm of the sum of the powers of the scores; -inf where a query saw no key.

    Returns
    -------
    out : (..., seq_q, dim_v)
        Exactly the attention over the union, up to rounding; zeros where a query saw no key in either.
    lse : (..., seq_q)

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices do not fit.
    """
    blind = (lse_a == -torch.inf) & (lse_b == -torch.inf)
    lse_a, lse_b = lse_a.masked_fill(blind, 0), lse_b.masked_fill(blind, 0)
    lse = torch.logaddexp(lse_a, lse_b)                      # (..., seq_q)
    share_a, share_b = torch.exp(lse_a - lse), torch.exp(lse_b - lse)  # they add up to 1
    out = share_a.unsqueeze(-1) * out_a + share_b.unsqueeze(-1) * out_b
    return out, lse.masked_fill(blind, -torch.inf)


def part_forward(q, k, v, bias=None):
    """Attention of rows to the keys given: (out, lse2), lse2 being the base-2 logarithm of the sum of powers.

    q (items, rows, dim_head), k (items, keys, dim_head), v (items, keys, dim_v); `bias`, broadcast to
    (items, rows, b), is added to the scores of the first b keys: 0 where a query may see the key, -inf where not.
    """
    scores = torch.bmm(q, k.mT).mul_(LOG2E / q.shape[-1] ** 0.5)         # (items, rows, keys)
    if bias is not None:
        scores[..., : bias.shape[-1]] += bias
    row_max = scores.amax(-1, keepdim=True) if k.shape[1] else scores.new_full((*q.shape[:2], 1), -torch.inf)
    row_max.masked_fill_(row_max == -torch.inf, 0)                       # a row that sees nothing stays finite
    powers = scores.sub_(row_max).exp2_()
    row_sum = powers.sum(-1, keepdim=True)
    out = torch.bmm(powers, v).div_(row_sum.masked_fill(row_sum == 0, 1))
    return out, row_max.add_(row_sum.log2_()).squeeze(-1)


def part_backward(d_out, q, k, v, lse2, delta, bias=None):
    """Gradients (d_q, d_k, d_v) of `part_forward`, the weights computed again from lse2 (arXiv 2307.08691, Algorithm 2).

    `lse2` (items, rows) may stem from more keys than these, and `delta` (items, rows) is the sum of d_out · out
    over the whole row, less the gradient of the log-sum-exp.
    """
    scale = q.shape[-1] ** -0.5
    powers = torch.bmm(q, k.mT).mul_(LOG2E * scale)                      # (items, rows, keys)
    if bias is not None:
        powers[..., : bias.shape[-1]] += bias
    weights = powers.sub_(lse2.masked_fill(lse2 == -torch.inf, 0).unsqueeze(-1)).exp2_()
    d_scores = torch.bmm(d_out, v.mT).sub_(delta.unsqueeze(-1)).mul_(weights).mul_(scale)
    return torch.bmm(d_scores, k), torch.bmm(d_scores.mT, q), torch.bmm(weights.mT, d_out)


def to_items(q, k, v):
    """(items, ...) views of q, k, v with leading axes joined, and for each item of q the index of its keys' item."""
    lead = torch.broadcast_shapes(q.shape[:-3], k.shape[:-3], v.shape[:-3])
    heads, kv_heads = q.shape[-3], k.shape[-3]
    q, k, v = (x.expand(*lead, *x.shape[-3:]).flatten(0, -3) for x in (q, k, v))
    kv_of = [item // heads * kv_heads + item % heads * kv_heads // heads for item in range(len(q))]
    return q, k, v, kv_of


def check_heads(where, q, k):
    """Raise unless the heads of q are a multiple of those of k."""
    heads, kv_heads = q.shape[-3], k.shape[-3]
    if kv_heads == 0 or heads % kv_heads:
        raise ValueError(f"{where}: k has shape {tuple(k.shape)}, expected (..., kv_heads, seq_k, dim_head) with kv_heads a "
                         f"divisor of the {heads} heads of q")


def check_count(where, least, **numbers):
    """Raise unless each number is an int of at least `least`."""
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"{where}: {name} is of type {type(number).__name__}, expected an int")
        if number < least:
            raise ValueError(f"{where}: {name} is {number}, expected at least {least}")
