"""Parts of attention over some of the keys: how one is computed, and how its gradients are.

All of it works on (items, rows, width) tensors and powers of two: 2^(score · log2 e) is e^score, and torch computes
exp2 on a CPU about three times as fast as exp.
"""

import torch

from attnlib.flash._parts import LOG2E

SCRATCH = 2**19  # numbers in a scratch buffer of scores: 2 MiB in float32; less costs calls, more costs caches


def scaled_scores(work, q, k, bias, scale):
    """q kᵀ · scale, plus the bias on the first keys: (items, rows, keys)."""
    scores = work.take("scores", *q.shape[:2], k.shape[1])
    torch.baddbmm(scores, q, k.mT, beta=0, alpha=scale, out=scores)
    if bias is not None and bias.shape[-1]:
        scores.unflatten(1, (-1, bias.shape[-2]))[..., : bias.shape[-1]].add_(bias.unsqueeze(-3))
    return scores


def part_forward(work, q, k, v, bias=None, out=None):
    """Attention of rows to the keys given: (out, lse2), lse2 being the base-2 logarithm of the sum of powers.

    q (items, rows, dim_head), k (items, keys, dim_head), v (items, keys, dim_v); `bias`, broadcast to
    (items, rows, b), is added to the scores of the first b keys: 0 where a query may see the key, -inf where not.
    It may have fewer rows, and then holds for each run of so many. Results lie in the workspace, or in `out`.
    """
    scores = scaled_scores(work, q, k, bias, LOG2E / q.shape[-1] ** 0.5)
    row_max, row_sum = work.take("row_max", *q.shape[:2], 1), work.take("row_sum", *q.shape[:2], 1)
    if k.shape[1]:
        torch.amax(scores, -1, keepdim=True, out=row_max)
    else:
        row_max.fill_(-torch.inf)
    row_max.clamp_(min=torch.finfo(q.dtype).min)                         # a row that sees nothing stays finite
    powers = scores.sub_(row_max).exp2_()
    torch.sum(powers, -1, keepdim=True, out=row_sum)
    product = torch.bmm(powers, v, out=work.take("out", *q.shape[:2], v.shape[-1]))
    out = torch.div(product, row_sum.clamp(min=1), out=product if out is None else out)  # 1 or more, or the row sees nothing
    return out, row_max.add_(row_sum.log2_()).squeeze(-1)


def part_backward(work, d_out, q, k, v, lse2, delta, bias=None):
    """Gradients (d_q, d_k, d_v) of `part_forward`, the weights computed again from lse2 (arXiv 2307.08691, Algorithm 2).

    `lse2` (items, rows) may stem from more keys than these, and `delta` (items, rows) is the sum of d_out · out
    over the whole row, less the gradient of the log-sum-exp. The results lie in the workspace.
    """
    scores = scaled_scores(work, q, k, bias, LOG2E / q.shape[-1] ** 0.5)
    weights = scores.sub_(lse2.clamp(min=torch.finfo(q.dtype).min).unsqueeze(-1)).exp2_()
    d_scores = torch.bmm(d_out, v.mT, out=work.take("d_scores", *scores.shape))
    d_scores.sub_(delta.unsqueeze(-1)).mul_(weights).mul_(q.shape[-1] ** -0.5)
    return (torch.bmm(d_scores, k, out=work.take("d_q", *q.shape)),
            torch.bmm(d_scores.mT, q, out=work.take("d_k", *k.shape)),
            torch.bmm(weights.mT, d_out, out=work.take("d_v", *v.shape)))
