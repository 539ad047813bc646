"""What a rank does: pass on, compute with what is at hand, merge; and the same backwards."""

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

from attnlib.flash import flash_attention, merge_partial
from attnlib.flash._parts import LOG2E, Workspace, to_items
from attnlib.flash._tiles import BACK_Q, Sight, add_gradients, stretches

counters: list[dict[str, int]] = []                          # of every `count_sent` that is open


class RingAttention(torch.autograd.Function):
    """This rank's part; `plan` says for each step which of its stretches of queries meet which of the keys at hand."""

    @staticmethod
    def forward(ctx, q, k, v, ring, plan, cuts):
        out, lse = (wide(x) for x in (v.new_zeros(*q.shape[:-1], v.shape[-1]), q.new_full(q.shape[:-1], -torch.inf)))
        for step, (k_now, v_now) in ring.go_round(k, v):
            for i, j, diagonal in plan[step]:
                rows, keys = stretch(i, cuts, q), stretch(j, cuts, k)
                part = flash_attention(*(wide(x) for x in (q[..., rows, :], k_now[..., keys, :], v_now[..., keys, :])),
                                       causal=diagonal, return_lse=True)
                out[..., rows, :], lse[..., rows] = merge_partial(out[..., rows, :], lse[..., rows], *part)
            del k_now, v_now                                 # before more arrive
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.ring, ctx.plan, ctx.cuts = ring, plan, cuts
        return out.to(q.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out):
        q, k, v, out, lse = ctx.saved_tensors
        d_out = wide(d_out)
        lse2, delta = lse.unsqueeze(-1) * LOG2E, (d_out * out).sum(-1, keepdim=True)
        d_q, own, travelling = wide(torch.zeros_like(q)), None, None
        for step, (k_now, v_now) in ctx.ring.go_round(k, v):
            d_k, d_v = wide(torch.zeros_like(k)), wide(torch.zeros_like(v))
            for i, j, diagonal in ctx.plan[step]:
                rows, keys = stretch(i, ctx.cuts, q), stretch(j, ctx.cuts, k)
                of_q, of_k = ([x[..., part, :] for x in those] for part, those in
                              ((rows, (q, d_out, lse2, delta, d_q)), (keys, (k_now, v_now, d_k, d_v))))
                add_piece(of_q, of_k, diagonal)
            if step == 0:
                own = d_k, d_v                               # stays here until the sum of the others comes home
                continue
            if travelling is not None:
                d_k, d_v = (x.add_(y) for x, y in zip((d_k, d_v), travelling.wait(), strict=True))
            travelling = ctx.ring.pass_on(d_k, d_v)          # follow their keys and values
        if travelling is not None:
            own = [x.add_(y) for x, y in zip(own, travelling.wait(), strict=True)]
        return d_q.to(q.dtype), *(x.to(k.dtype) for x in own), None, None, None


def add_piece(of_q, of_k, diagonal):
    """Add to d_q, d_k and d_v what one stretch of queries and one of keys contribute, with the row's own lse and delta."""
    (q, d_out, lse2, delta, d_q), (k, v, d_k, d_v) = of_q, of_k
    q, k, v, kv_of = to_items(q, k, v)
    d_out, lse2, delta, d_q, d_k, d_v = (x.flatten(0, -3) for x in (d_out, lse2, delta, d_q, d_k, d_v))
    sight, work = Sight(len(q), q.shape[1], k.shape[1], diagonal, device=q.device), Workspace(q)
    for rows in stretches(0, q.shape[1], BACK_Q):
        add_gradients(rows, q, k, v, kv_of, sight, d_out, lse2, delta[:, rows], d_q, d_k, d_v, work)


class Ring:
    """A process group, seen as a ring: each rank sends to the next and receives from the one before."""

    def __init__(self, group=None):
        if not dist.is_available() or not dist.is_initialized():
            raise RuntimeError("ring_attention: no process group, expected torch.distributed.init_process_group to have been called")
        self.group, self.rank, self.ranks = group, dist.get_rank(group), dist.get_world_size(group)
        if self.rank < 0:
            raise RuntimeError("ring_attention: this process is not in group, expected only its members to call")

    def go_round(self, *tensors):
        """Yield (step, tensors of rank - step) for every step; the next are under way while the caller computes."""
        for step in range(self.ranks):
            coming = self.pass_on(*tensors) if step + 1 < self.ranks else None
            yield step, tensors
            tensors = coming.wait() if coming is not None else ()
            del coming                                       # and with it what has been sent

    def pass_on(self, *tensors):
        """Begin to send to the next rank, and to receive the like from the rank before."""
        tensors = [x.contiguous() for x in tensors]
        sends = [dist.P2POp(dist.isend, x, group=self.group, group_peer=(self.rank + 1) % self.ranks) for x in tensors]
        incoming = [torch.empty_like(x) for x in tensors]
        receives = [dist.P2POp(dist.irecv, x, group=self.group, group_peer=(self.rank - 1) % self.ranks) for x in incoming]
        for counter in counters:
            counter["messages"] += len(tensors)
            counter["bytes"] += sum(x.nbytes for x in tensors)
        return Coming(dist.batch_isend_irecv(sends + receives), tensors, incoming)


class Coming:
    """Tensors under way. Those sent are held until they have left."""

    def __init__(self, works, sent, incoming):
        self.works, self.sent, self.incoming = works, sent, incoming

    def wait(self):
        """The tensors received, once they are here."""
        for work in self.works:
            work.wait()
        return self.incoming


def wide(x):
    """Half precision as float32; everything else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def stretch(number, cuts, x):
    """The slice of tokens of x that is the number-th of `cuts` equal stretches."""
    seq = x.shape[-2]
    return slice(number * seq // cuts, (number + 1) * seq // cuts)
