"""The fast form of block-sparse attention: for each block of queries, one softmax over its gathered keys."""

from dataclasses import dataclass

import numpy as np
import torch

from attnlib.flash._parts import Workspace
from attnlib.sparse._parts import SCRATCH, part_backward, part_forward


@dataclass(frozen=True)
class BlockRow:
    """What one block of queries computes: the keys, by position, and which of the first ones it may see.

    Attributes
    ----------
    rows : slice
        The queries, counted from the first one given.
    keys : (keys,) int64 tensor, or slice
        Positions of all keys of all computed blocks, those of partial blocks first; a slice where they follow each other.
    bias : (rows, partial) tensor
        0 where a query may see a key of a partial block, -inf where not.
    """

    rows: slice
    keys: torch.Tensor | slice
    bias: torch.Tensor

    def __len__(self) -> int:
        """How many keys."""
        return self.keys.stop - self.keys.start if isinstance(self.keys, slice) else len(self.keys)


def block_row(rows, allowed, kinds, block_size):
    """The `BlockRow` of one block of queries; `allowed` is (rows, seq_k) bool, `kinds` (blocks_k,)."""
    position = np.arange(allowed.shape[-1])
    kind = kinds[position // block_size]                     # (seq_k,): the kind of each key's block
    partial, full = position[kind == 1], position[kind == 2]
    bias = np.where(allowed[:, partial], np.float32(0), np.float32(-np.inf))
    keys = np.concatenate([partial, full])
    consecutive = len(keys) == 0 or bool((np.diff(keys) == 1).all())
    at = slice(int(keys[0]) if len(keys) else 0, int(keys[-1]) + 1 if len(keys) else 0)
    return BlockRow(rows, at if consecutive else torch.from_numpy(keys), torch.from_numpy(bias))


class Blocks(torch.autograd.Function):
    """Attention of each block of queries to its gathered keys; saves q, k, v, out and lse, nothing of size seq²."""

    @staticmethod
    def forward(ctx, q, k, v, kv_of, rows_of):
        """`rows_of` holds the rows of each item's sequence; runs of items with the same rows go together."""
        out, lse2, work = v.new_empty(*q.shape[:2], v.shape[-1]), q.new_empty(q.shape[:2]), Workspace(q)
        for items, kvs, group, row in jobs(kv_of, rows_of):
            keys, values = work.gather("k", k, kvs, row.keys), work.gather("v", v, kvs, row.keys)
            here = out[items, row.rows]
            part = part_forward(work, together(q, items, row, group), keys, values, row.bias.to(q.dtype), here if group == 1 else None)
            lse2[items, row.rows] = part[1].unflatten(1, (group, -1)).flatten(0, 1)
            if group > 1:
                here.copy_(part[0].unflatten(1, (group, -1)).flatten(0, 1))
        ctx.save_for_backward(q, k, v, out, lse2)
        ctx.kv_of, ctx.rows_of = kv_of, rows_of
        return out

    @staticmethod
    def backward(ctx, d_out):
        """The same blocks again."""
        q, k, v, out, lse2 = ctx.saved_tensors
        delta = torch.linalg.vecdot(d_out, out)
        d_q, d_k, d_v, work = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v), Workspace(q)
        for items, kvs, group, row in jobs(ctx.kv_of, ctx.rows_of):
            d_out_rows, q_rows, lse_rows, delta_rows = (together(x, items, row, group) for x in (d_out, q, lse2, delta))
            keys, values = work.gather("k", k, kvs, row.keys), work.gather("v", v, kvs, row.keys)
            part = part_backward(work, d_out_rows, q_rows, keys, values, lse_rows, delta_rows, row.bias.to(q.dtype))
            d_q[items, row.rows] = part[0].unflatten(1, (group, -1)).flatten(0, 1)
            for total, addend in ((d_k, part[1]), (d_v, part[2])):
                scatter_add(total, kvs, row.keys, addend)
        return d_q, d_k, d_v, None, None


def together(x, items, row, group):
    """The row's queries of each run of `group` items, one after the other: (kv items, group · rows, ...)."""
    found = x[items, row.rows]
    return found if group == 1 else found.unflatten(0, (-1, group)).flatten(1, 2)


def jobs(kv_of, rows_of):
    """(slice of items, slice of their keys' items, query heads to a key head, BlockRow), sized to the scratch."""
    group = kv_of.count(0)
    for rows, run in runs(rows_of):
        for row in rows:
            per_kv = max(1, group * (row.rows.stop - row.rows.start) * len(row))
            step = max(1, SCRATCH // per_kv) * group
            for first in range(run.start, run.stop, step):
                items = slice(first, min(first + step, run.stop))
                yield items, slice(items.start // group, items.stop // group), group, row


def runs(rows_of):
    """(rows, range of the consecutive items that have them)."""
    start = 0
    for stop in range(1, len(rows_of) + 1):
        if stop == len(rows_of) or rows_of[stop] is not rows_of[start]:
            yield rows_of[start], range(start, stop)
            start = stop


def scatter_add(total, items, keys, addend):
    """Add to total[items][:, keys]."""
    if isinstance(keys, slice):
        total[items, keys] += addend
    else:
        total[items].index_add_(1, keys, addend)
