"""What tiled attention of every kind needs: scratch memory, heads in a row, checks of numbers.

Scores are kept as powers of two: 2^(score · log2 e) is e^score, and torch computes exp2 on a CPU about three times
as fast as exp.
"""

import math

import torch

LOG2E = math.log2(math.e)


class Workspace:
    """Scratch memory that is taken once and used again: fresh memory costs a page fault for every 4 KiB."""

    def __init__(self, like):
        self.like, self.flat = like, {}

    def take(self, name, *shape):
        """A tensor of this shape, holding anything; the next `take` of the same name takes it back."""
        size = math.prod(shape)
        if name not in self.flat or self.flat[name].numel() < size:
            self.flat[name] = self.like.new_empty(size)
        return self.flat[name][:size].view(shape)

    def gather(self, name, x, items, keys):
        """x[items][:, keys] for x (items, seq, width); a view where the keys are a slice."""
        if isinstance(keys, slice):
            return x[items, keys]
        return torch.index_select(x[items], 1, keys, out=self.take(name, len(x[items]), len(keys), x.shape[-1]))


def to_items(q, k, v):
    """(items, ...) views of q, k, v with leading axes joined, and for each item of q the index of its keys' item.

    Half precision is computed in float32: sums of powers over long rows need it.
    """
    q, k, v = (x.float() if x.dtype in (torch.float16, torch.bfloat16) else x for x in (q, k, v))
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
