"""Which blocks of keys the queries choose, and attention to them."""

import itertools

import torch

from attnlib.flash._parts import Workspace
from attnlib.sparse._parts import SCRATCH, part_backward, part_forward


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
    """Attention of blocks of queries to chosen blocks of keys; saves q, k, v, out and lse, nothing of size seq²."""

    @staticmethod
    def forward(ctx, q, k, v, chosen, last_key, before, causal):
        """q (items, group, blocks_q, rows, dim_head), k and v (items, blocks_k, keys, width), chosen (items, blocks_q, top_k)."""
        out, lse2 = v.new_empty(*q.shape[:-1], v.shape[-1]), q.new_empty(q.shape[:-1])
        work, bias = Workspace(q), Bias(q, k, last_key, before, causal)
        for item, at, blocks in batches(chosen, q, k):
            keys, values = gather(work, "k", k[item], blocks), gather(work, "v", v[item], blocks)
            here = out[item, 0, at] if q.shape[1] == 1 else None
            part = part_forward(work, rows_of(q[item], at), keys, values, bias(at, blocks), here)
            lse2[item, :, at] = part[1].unflatten(1, q.shape[1:4:2]).transpose(0, 1)
            if here is None:
                out[item, :, at] = part[0].unflatten(1, q.shape[1:4:2]).transpose(0, 1)
        ctx.save_for_backward(q, k, v, chosen, out, lse2)
        ctx.bias = bias
        return out

    @staticmethod
    def backward(ctx, d_out):
        """The same blocks again; the choice itself has no gradient."""
        q, k, v, chosen, out, lse2 = ctx.saved_tensors
        delta = torch.linalg.vecdot(d_out, out)
        d_q, d_k, d_v, work = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v), Workspace(q)
        for item, at, blocks in batches(chosen, q, k):
            d_out_rows, q_rows, lse_rows, delta_rows = (rows_of(x[item], at) for x in (d_out, q, lse2, delta))
            keys, values = gather(work, "k", k[item], blocks), gather(work, "v", v[item], blocks)
            part = part_backward(work, d_out_rows, q_rows, keys, values, lse_rows, delta_rows, ctx.bias(at, blocks))
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
