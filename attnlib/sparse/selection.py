"""Attention to blocks that the content chooses: score each block by the mean of its keys, read the best ones."""

import itertools

import torch

from attnlib._shapes import takes
from attnlib.sparse.parts import SCRATCH, Workspace, check_count, check_heads, weights_of, whole_backward

SHAPES = dict(q="float ... heads seq_q dim_head", k="float ... kv_heads seq_k dim_head", v="float ... kv_heads seq_k dim_v")


def choose_blocks(q, k, top_k, block_size, query_block, causal, before=0, real=None):
    """The blocks of keys that each block of queries reads: (..., kv_heads, blocks_q, top_k) int64, -1 where there is none.

    q is (..., kv_heads, group, blocks_q · query_block, dim_head), its first row at position `before`, a multiple of
    query_block; k is (..., kv_heads, seq_k, dim_head). The first entry is the block's own if causal. `real`
    (blocks_q,) says how many queries of each block are not filling (default: all).
    """
    seq_k, blocks_k = k.shape[-2], -(-k.shape[-2] // block_size)
    lengths = torch.full((blocks_k,), block_size).clamp(max=seq_k - block_size * torch.arange(blocks_k))
    padded = torch.nn.functional.pad(k, (0, 0, 0, blocks_k * block_size - seq_k)).unflatten(-2, (blocks_k, block_size))
    k_mean = padded.sum(-2) / lengths.to(k).unsqueeze(-1)                    # (..., kv_heads, blocks_k, dim_head)
    q_blocks = q.unflatten(-2, (-1, query_block))
    real = torch.full(q_blocks.shape[-3:-2], query_block) if real is None else real
    asks = q_blocks[..., 0, :] if causal else q_blocks.sum(-2) / real.to(q).unsqueeze(-1)  # (..., kv_heads, group, blocks_q, dim_head)
    scores = asks @ k_mean.unsqueeze(-3).mT / q.shape[-1] ** 0.5             # (..., kv_heads, group, blocks_q, blocks_k)
    own = (before + query_block * torch.arange(q_blocks.shape[-3])).unsqueeze(-1) // block_size
    past = torch.arange(blocks_k) < own if causal else torch.ones(1, blocks_k, dtype=torch.bool)  # (blocks_q, blocks_k)
    weights = torch.softmax(scores.masked_fill(~past, torch.finfo(scores.dtype).min), -1).sum(-3)
    best = weights.masked_fill(~past, -1).topk(top_k - causal, -1)           # heads of a group choose together
    chosen = best.indices.masked_fill(best.values < 0, -1)
    return torch.cat([own.expand(*chosen.shape[:-1], 1), chosen], -1) if causal else chosen


class Chosen(torch.autograd.Function):
    """Attention of blocks of queries to chosen blocks of keys; saves q, k, v and out, nothing of size seq²."""

    @staticmethod
    def forward(ctx, q, k, v, chosen, last_key, before, causal):
        """q (items, group, blocks_q, rows, dim_head), k and v (items, blocks_k, keys, width), chosen (items, blocks_q, top_k)."""
        out, work, bias = v.new_empty(*q.shape[:-1], v.shape[-1]), Workspace(q), Bias(q, k, last_key, before, causal)
        for item, at, blocks in batches(chosen, q, k):
            weights = weights_of(work, rows_of(q[item], at), gather(work, "k", k[item], blocks), bias(at, blocks))
            found = torch.bmm(weights, gather(work, "v", v[item], blocks))
            out[item, :, at] = found.unflatten(1, q.shape[1:4:2]).transpose(0, 1)
        ctx.save_for_backward(q, k, v, chosen, out)
        ctx.bias = bias
        return out

    @staticmethod
    def backward(ctx, d_out):
        """The same blocks again; the choice itself has no gradient."""
        q, k, v, chosen, out = ctx.saved_tensors
        delta = torch.linalg.vecdot(d_out, out)
        d_q, d_k, d_v, work = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v), Workspace(q)
        for item, at, blocks in batches(chosen, q, k):
            d_out_rows, q_rows, delta_rows = (rows_of(x[item], at) for x in (d_out, q, delta))
            keys, values = gather(work, "k", k[item], blocks), gather(work, "v", v[item], blocks)
            part = whole_backward(work, d_out_rows, q_rows, keys, values, delta_rows, ctx.bias(at, blocks))
            d_q[item, :, at] = part[0].unflatten(1, q.shape[1:4:2]).transpose(0, 1)
            for total, addend in ((d_k, part[1]), (d_v, part[2])):
                total[item].index_add_(0, blocks.flatten(), addend.unflatten(1, (-1, k.shape[2])).flatten(0, 1))
        return d_q, d_k, d_v, None, None, None, None


class Bias:
    """What is added to the scores: hides later keys of the own block (causal), or the filling of the last block."""

    def __init__(self, q, k, last_key, before, causal):
        rows, self.keys = q.shape[3], k.shape[2]
        self.causal, self.last_key, self.like, self.per_block = causal, last_key, k, self.keys // rows
        self.before = before // rows                         # blocks of queries before the first
        later = torch.ones(self.keys, self.keys, dtype=torch.bool, device=q.device).triu(1)
        self.own = torch.zeros(self.keys, self.keys, dtype=q.dtype, device=q.device).masked_fill_(later, -torch.inf)
        self.own = self.own.unflatten(0, (-1, rows))         # (blocks of queries to a block of keys, rows, keys)

    def __call__(self, at, blocks):
        """For the blocks of queries `at`, which read `blocks`: broadcasts to (blocks, rows, keys of the first blocks)."""
        if self.causal:
            own = torch.arange(self.before + at.start, self.before + at.stop) % self.per_block
            return self.own if self.per_block == 1 else self.own[own]
        if self.last_key % self.keys:
            key = (blocks.unsqueeze(-1) * self.keys + torch.arange(self.keys)).flatten(1).unsqueeze(1)
            return torch.where(key < self.last_key, 0.0, -torch.inf).to(self.like)
        return None


def batches(chosen, q, k):
    """(item, slice of blocks of queries, (blocks of queries, number) of the blocks they read): equal numbers go together."""
    number = (chosen[0] >= 0).sum(-1).tolist() if len(chosen) else []        # the same for all items
    edges = [0, *(i for i in range(1, len(number)) if number[i] != number[i - 1]), len(number)]
    for item in range(len(chosen)):
        for first, stop in itertools.pairwise(edges):
            step = max(1, SCRATCH // max(1, q.shape[1] * q.shape[3] * k.shape[2] * max(1, number[first] if number else 1)))
            for start in range(first, stop, step):
                at = slice(start, min(start + step, stop))
                yield item, at, chosen[item, at, : number[first]]


def rows_of(x, at):
    """Blocks `at` of x (group, blocks_q, rows, ...) with the group's rows together: (blocks, group · rows, ...)."""
    return x[:, at].transpose(0, 1).flatten(1, 2)


def gather(work, name, x, blocks):
    """Blocks of keys x (blocks_k, keys, width) put together: (blocks, number · keys, width)."""
    count, number = blocks.shape
    found = work.take(name, count * number, x.shape[1] * x.shape[2])
    torch.index_select(x.flatten(1), 0, blocks.flatten(), out=found)
    return found.view(count, number * x.shape[1], x.shape[2])


@takes(**SHAPES)
def top_k_block_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, top_k: int, block_size: int = 64, query_block: int | None = None,
    causal: bool = True,
) -> torch.Tensor:
    """Each block of queries reads the `top_k` blocks of keys that score best (NSA's selection branch, arXiv 2502.11089, Section 3.3.2).

    A block of keys is scored by the softmax, over blocks, of the product of a query with the mean of its keys,
    added up over the query heads that share a key head, which therefore read the same blocks (there Eq. 9 to 12, with
    the mean in place of a learned compression). There every query chooses for itself, which is `query_block=1`;
    larger blocks of queries choose together and are faster. If causal, the block in which the queries stand is always
    read, the others are chosen among those before it, and the **first** query of a block does the choosing: a mean
    over its queries would let later tokens act on earlier ones. The choice has no gradient.

    Parameters
    ----------
    q, k, v : (..., heads, seq_q, dim_head), (..., kv_heads, seq_k, dim_head), (..., kv_heads, seq_k, dim_v)
        Queries, keys and values; `kv_heads` divides `heads`. Where seq_q ≠ seq_k queries are aligned to the end.
    top_k : int
        Blocks of keys read by each block of queries, its own included; at least 1, at most what there are.
    block_size : int
        Keys to a block, counted from the first key; the last may be shorter.
    query_block : int, optional
        Queries that choose together, counted from position 0; divides `block_size`, which is the default. Where the
        queries given begin within such a block, its first query *given* chooses: hand in chunks that begin at multiples.
    causal : bool
        Whether a query sees only what does not come after it. If not, the mean of a block's queries chooses.

    Returns
    -------
    (..., heads, seq_q, dim_v)
        Zeros, with zero gradients, for a query that stands before the first key (causal) or where there is no key.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices do not fit, `top_k` is more than the number of blocks, or a number is too small,
        does not divide, or is not an int.
    """
    where = "top_k_block_attention"
    check_heads(where, q, k)
    query_block = block_size if query_block is None else query_block
    check_count(where, 1, top_k=top_k, block_size=block_size, query_block=query_block)
    (heads, seq_q), (kv_heads, seq_k) = q.shape[-3:-1], k.shape[-3:-1]
    blocks_k = -(-seq_k // block_size)
    if top_k > max(1, blocks_k):
        raise ValueError(f"{where}: top_k is {top_k}, expected at most {blocks_k}, the blocks of {block_size} in {seq_k} keys")
    if block_size % query_block:
        raise ValueError(f"{where}: query_block is {query_block}, expected a divisor of block_size = {block_size}")
    lead = torch.broadcast_shapes(q.shape[:-3], k.shape[:-3], v.shape[:-3])
    if not seq_k or not seq_q:
        return v.new_zeros(*lead, heads, seq_q, v.shape[-1]) + 0 * (q.sum() + k.sum() + v.sum())
    given = q.dtype
    q, k, v = (x.float() if given in (torch.float16, torch.bfloat16) else x for x in (q, k, v))
    sighted = min(seq_q, seq_k) if causal else seq_q                         # queries at positions from 0 on
    start = seq_k - sighted
    before = start - start % query_block
    behind = -(start - before + sighted) % query_block
    pad = torch.nn.functional.pad
    own_q = q[..., seq_q - sighted :, :].expand(*lead, heads, sighted, -1).unflatten(-3, (kv_heads, heads // kv_heads))
    if causal and start > before:                                            # the first query given stands in for the block's first
        own_q = torch.cat([own_q[..., :1, :].detach().expand(*own_q.shape[:-2], start - before, -1), own_q], -2)
    elif start > before:
        own_q = pad(own_q, (0, 0, start - before, 0))
    q_blocks = pad(own_q, (0, 0, 0, behind)).flatten(0, -4)                  # (items, group, rows, dim_head)
    k_items, v_items = (x.expand(*lead, *x.shape[-3:]).flatten(0, -3) for x in (k, v))
    real = pad(torch.ones(sighted, dtype=torch.int64), (start - before, behind)).unflatten(0, (-1, query_block)).sum(-1)
    with torch.no_grad():
        chosen = choose_blocks(q_blocks, k_items, top_k, block_size, query_block, causal, before, real)
    filled = (pad(x, (0, 0, 0, blocks_k * block_size - seq_k)).unflatten(1, (blocks_k, block_size)) for x in (k_items, v_items))
    out = Chosen.apply(q_blocks.unflatten(2, (-1, query_block)), *filled, chosen, seq_k, before, causal)
    out = out.flatten(2, 3)[:, :, start - before :][:, :, :sighted]          # (items, group, sighted, dim_v)
    return pad(out.reshape(*lead, heads, sighted, v.shape[-1]), (0, 0, seq_q - sighted, 0)).to(given)
