"""Two results over disjoint keys are one result over all of them."""

import torch

from attnlib._shapes import takes


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
    share_b = torch.sigmoid(lse_b - lse_a)                   # e^lse_b / (e^lse_a + e^lse_b)
    out = torch.lerp(out_a, out_b, share_b.unsqueeze(-1))    # (1 - share_b) · out_a + share_b · out_b
    return out, torch.logaddexp(lse_a, lse_b).masked_fill(blind, -torch.inf)
