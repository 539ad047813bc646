"""FlashAttention in torch: one tile forward, one tile backward, and the walk over the tiles."""

import torch
from torch.autograd.function import once_differentiable

from attnlib.flash._parts import LOG2E, Workspace

TILE_Q, TILE_K = 512, 1024  # queries and keys to a tile: 2 MiB of scores in float32, which stay in a processor's cache
BACK_Q, BACK_K = 512, 256  # the same backward, where two arrays of this size are at work


def forward_tile(q, k, v, out, row_max, row_sum, scores, seen=None):
    """Add the keys of one tile to the running result of some queries, in place (arXiv 2307.08691, Algorithm 1, lines 8 to 10).

    q (rows, dim_head), k (keys, dim_head), v (keys, dim_v), out (rows, dim_v) not yet divided, row_max and row_sum
    (rows, 1), scores (rows, keys) holding anything, seen (rows, keys) bool or None. Scores are powers of two.
    """
    torch.addmm(scores, q, k.T, beta=0, alpha=LOG2E / q.shape[-1] ** 0.5, out=scores)
    if seen is not None:
        scores.masked_fill_(~seen, -torch.inf)
    new_max = torch.maximum(row_max, scores.amax(-1, keepdim=True))
    powers = scores.sub_(new_max).exp2_()
    rescale = torch.exp2(row_max - new_max)                  # what stood under the old maximum shrinks
    row_sum.mul_(rescale).add_(powers.sum(-1, keepdim=True))
    out.mul_(rescale).addmm_(powers, v)
    row_max.copy_(new_max)


def backward_tile(q, k, v, d_out, lse2, delta, d_q, d_k, d_v, scores, d_weights, seen=None):
    """Add the gradients of one tile in place, its weights computed again from lse2 (arXiv 2307.08691, Algorithm 2, lines 10 to 16).

    lse2 (rows, 1) is the base-2 logarithm of the row's sum of powers, delta (rows, 1) the sum of d_out · out;
    scores and d_weights (rows, keys) hold anything.
    """
    scale = q.shape[-1] ** -0.5
    torch.addmm(-lse2, q, k.T, alpha=LOG2E * scale, out=scores)          # scores less lse2, in one call
    if seen is not None:
        scores.masked_fill_(~seen, -torch.inf)
    weights = scores.exp2_()
    d_v.addmm_(weights.T, d_out)
    d_scores = torch.addmm(-delta, d_out, v.T, out=d_weights).mul_(weights)
    d_q.addmm_(d_scores, k, alpha=scale)
    d_k.addmm_(d_scores.T, q, alpha=scale)


class Tiles(torch.autograd.Function):
    """(out, lse) of attention, tile by tile; saves q, k, v, out and lse, nothing of size seq²."""

    @staticmethod
    def forward(ctx, q, k, v, kv_of, sight):
        """q (items, seq_q, dim_head), k and v (kv_items, seq_k, ...); item i reads kv_of[i]; `sight` says who sees whom."""
        (items, seq_q), work = q.shape[:2], Workspace(q)
        out, lse2 = v.new_zeros(items, seq_q, v.shape[-1]), q.new_empty(items, seq_q, 1)
        lowest = torch.finfo(q.dtype).min                    # not -inf: a row that sees nothing must not become NaN
        for rows in stretches(0, seq_q, TILE_Q):
            row_max, row_sum = lse2[:, rows].fill_(lowest), q.new_zeros(items, rows.stop - rows.start, 1)
            for item, keys, seen in sight.tiles(rows, TILE_K):
                scores = work.take("scores", rows.stop - rows.start, keys.stop - keys.start)
                k_tile, v_tile = hide(seen, k[kv_of[item], keys], v[kv_of[item], keys])
                forward_tile(q[item, rows], k_tile, v_tile, out[item, rows], row_max[item], row_sum[item], scores, seen)
            out[:, rows].div_(row_sum.clamp(min=1))          # at least 1, unless the row sees nothing
            row_max.add_(row_sum.log2_())                    # in place: row_max is a view of lse2
        ctx.save_for_backward(q, k, v, out, lse2)
        ctx.kv_of, ctx.sight = kv_of, sight
        return out, lse2.squeeze(-1) / LOG2E

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out, d_lse):
        """The same tiles again."""
        (q, k, v, out, lse2), kv_of, sight = ctx.saved_tensors, ctx.kv_of, ctx.sight
        work = Workspace(q)
        d_q, d_k, d_v = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for rows in stretches(0, q.shape[1], BACK_Q):
            delta = (d_out[:, rows] * out[:, rows]).sum(-1, keepdim=True) - d_lse[:, rows, None]
            add_gradients(rows, q, k, v, kv_of, sight, d_out, lse2, delta, d_q, d_k, d_v, work)
        return d_q, d_k, d_v, None, None


def add_gradients(rows, q, k, v, kv_of, sight, d_out, lse2, delta, d_q, d_k, d_v, work):
    """Add in place what the queries `rows` (a slice) contribute: all tiles in which they see something.

    q, d_out, d_q (items, seq_q, ...), k, v, d_k, d_v (kv_items, seq_k, ...), lse2 (items, seq_q, 1), and delta
    (items, rows, 1). lse2 and delta may belong to more keys than are here.
    """
    lse_rows = lse2[:, rows].clamp(min=torch.finfo(q.dtype).min)
    for item, keys, seen in sight.tiles(rows, BACK_K):
        scores, d_weights = (work.take(name, rows.stop - rows.start, keys.stop - keys.start) for name in ("scores", "d_weights"))
        at, kv = (item, rows), (kv_of[item], keys)
        k_tile, v_tile = hide(seen, k[kv], v[kv])
        backward_tile(q[at], k_tile, v_tile, d_out[at], lse_rows[item], delta[item], d_q[at], d_k[kv], d_v[kv],
                      scores, d_weights, seen)


class Sight:
    """Who sees whom, a tile at a time: `tiles(rows, step)` gives (item, slice of keys, which pairs or None for all)."""

    def __init__(self, items, seq_q, seq_k, causal, look=None, group_of=None, device=None):
        self.items, self.ahead, self.seq_k, self.causal, self.device = items, seq_k - seq_q, seq_k, causal, device
        self.look = look                                     # (rows, keys) -> (groups, rows, keys) bool, of a mask
        self.group_of = group_of

    def tiles(self, rows, step):
        """For the queries `rows` (a slice): every tile of at most `step` keys in which somebody sees something."""
        first, stop = 0, self.seq_k
        if self.causal:                                      # before `first` all rows see; from `stop` on nobody does
            first, stop = (min(max(0, at + self.ahead), self.seq_k) for at in (rows.start + 1, rows.stop))
            for keys in stretches(first, stop, step):
                k_idx, q_idx = (torch.arange(each.start, each.stop, device=self.device) for each in (keys, rows))
                later = k_idx > q_idx[:, None] + self.ahead
                yield from self.seen_by_items(rows, keys, ~later)
        for keys in stretches(0, first if self.causal else stop, step):
            yield from self.seen_by_items(rows, keys, None)

    def seen_by_items(self, rows, keys, seen):
        """One tile for each item that sees something in it."""
        if self.look is None:
            yield from ((item, keys, seen) for item in range(self.items))
            return
        found = [each if seen is None else each & seen for each in self.look(rows, keys)]
        some, every = [bool(each.any()) for each in found], [bool(each.all()) for each in found]
        for item, group in enumerate(self.group_of):
            if some[group]:
                yield item, keys, None if every[group] else found[group]


def stretches(start, stop, step):
    """Slices of `step` from start to stop, the last perhaps shorter."""
    return [slice(first, min(first + step, stop)) for first in range(start, stop, step)]


def hide(seen, k, v):
    """k and v of a tile, with zeros where none of its queries may see: 0 · NaN is NaN."""
    if seen is None or bool((reached := seen.any(0)).all()):
        return k, v
    return k.masked_fill(~reached.unsqueeze(-1), 0), v.masked_fill(~reached.unsqueeze(-1), 0)
