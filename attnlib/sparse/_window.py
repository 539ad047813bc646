"""Parts of attention that can be merged: a window, and every key; and every so-manieth position of a sequence."""

import torch

from attnlib.flash._parts import LOG2E, Workspace, to_items
from attnlib.sparse._band import Band
from attnlib.sparse._parts import SCRATCH, part_backward, part_forward


def window_part(q, k, v, left, right, classes=1):
    """(out, lse) of a sliding window, differentiable: what `merge_partial` takes.

    With several classes, which must divide both lengths, positions that leave the same remainder see each other only.
    """
    seq_q, seq_k = q.shape[-2], k.shape[-2]
    left, right = min(left, max(seq_k, 1) - 1), min(right, max(seq_q, seq_k, 1) - 1)
    out_shape = (*torch.broadcast_shapes(q.shape[:-3], k.shape[:-3], v.shape[:-3]), *q.shape[-3:-1])
    unseen = max(0, (seq_k - seq_q) // classes - left) * classes             # keys before every window
    k, v = k[..., unseen:, :], v[..., unseen:, :]
    q, k, v, kv_of = to_items(q, k, v)
    q, k, v = (x.unflatten(1, (x.shape[1] // classes, classes)).transpose(1, 2) for x in (q, k, v))
    out, lse = Band.apply(q, k, v, kv_of, left, right)       # (items, classes, seq_q / classes, dim_v)
    return out.transpose(1, 2).reshape(*out_shape, v.shape[-1]), lse.transpose(1, 2).reshape(out_shape)


def every(x, back, step):
    """The positions of x (..., seq, width) that lie `back`, back + step, back + 2·step, ... before the last."""
    last = x.shape[-2] - 1 - back
    return x[..., last % step : last + 1 : step, :] if last >= 0 else x[..., :0, :]


class EveryKey(torch.autograd.Function):
    """(out, lse) of attention to all keys, item by item and some rows at a time, so that no seq² is kept."""

    @staticmethod
    def forward(ctx, q, k, v, kv_of):
        """Attend."""
        out, lse2, work = v.new_empty(*q.shape[:2], v.shape[-1]), q.new_empty(q.shape[:2]), Workspace(q)
        for item, kv in enumerate(kv_of):
            for rows in stretches(q.shape[1], k.shape[1]):
                part = part_forward(work, q[item : item + 1, rows], k[kv : kv + 1], v[kv : kv + 1])
                out[item, rows], lse2[item, rows] = part[0][0], part[1][0]
        ctx.save_for_backward(q, k, v, out, lse2)
        ctx.kv_of = kv_of
        return out, lse2 / LOG2E

    @staticmethod
    def backward(ctx, d_out, d_lse):
        """Attend again."""
        q, k, v, out, lse2 = ctx.saved_tensors
        delta = torch.linalg.vecdot(d_out, out) - d_lse
        d_q, d_k, d_v, work = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v), Workspace(q)
        for item, kv in enumerate(ctx.kv_of):
            for rows in stretches(q.shape[1], k.shape[1]):
                at = slice(item, item + 1), rows
                part = part_backward(work, d_out[at], q[at], k[kv : kv + 1], v[kv : kv + 1], lse2[at], delta[at])
                d_q[at] = part[0]
                d_k[kv] += part[1][0]
                d_v[kv] += part[2][0]
        return d_q, d_k, d_v, None


def stretches(seq_q, seq_k):
    """Slices of rows whose scores fit the scratch."""
    step = max(1, SCRATCH // max(1, seq_k))
    return [slice(start, min(start + step, seq_q)) for start in range(0, seq_q, step)]


def every_key_part(q, k, v):
    """(out, lse) of attention to all keys, differentiable."""
    shape = (*torch.broadcast_shapes(q.shape[:-3], k.shape[:-3], v.shape[:-3]), *q.shape[-3:-1])
    out, lse = EveryKey.apply(*to_items(q, k, v))
    return out.reshape(*shape, v.shape[-1]), lse.reshape(shape)
