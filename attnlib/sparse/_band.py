"""The fast form of a sliding window: tiles along the band, and a view of memory that holds the band and nothing else.

A tile of `tile` queries needs tile + left + right keys, and of its scores the band: in row i the left + right + 1
columns from i on. In memory the next row of the band begins one row and one column later, so a view with a stride of
columns + 1 is the band itself: maxima, powers and sums run over it alone, and what lies between two of its rows, one
stretch of `tile` numbers, is set to zero before the product with the values. No masked score is ever exponentiated;
the two matrix products compute (tile + left + right) / (left + right + 1) times what is needed.
"""

import itertools

import numpy as np
import torch

from attnlib.flash._parts import LOG2E, Workspace
from attnlib.sparse._parts import SCRATCH, part_backward, part_forward


class Band(torch.autograd.Function):
    """(out, lse) of a sliding window; saves q, k, v, out and lse, nothing of size seq².

    q is (items, classes, seq_q, dim_head), k and v alike: each class is a sequence of its own. Results lie in memory as
    (items, seq_q, classes, ...), so that the classes of a dilated window are in their places already.
    """

    @staticmethod
    def forward(ctx, q, k, v, kv_of, left, right):
        """Run the tiles."""
        items, classes, seq_q = q.shape[:3]
        out = v.new_empty(items, seq_q, classes, v.shape[-1]).transpose(1, 2)
        lse2 = q.new_empty(items, seq_q, classes).transpose(1, 2)
        (inside, edges), work = cut(seq_q, k.shape[2], left, right), Workspace(q)
        for item, own in itertools.product(range(items), range(classes)) if len(inside) else ():
            kv = kv_of[item], own
            inside_forward(work, q[item, own], k[kv], v[kv], out[item, own], lse2[item, own], inside, left, right)
        for rows, keys, bias in edges:
            bias = torch.from_numpy(bias).to(q)
            for some, kv in pieces(kv_of, classes, rows, keys):
                q_rows, k_rows, v_rows = q[some, :, rows].flatten(0, 1), k[:, :, keys][kv].flatten(0, 1), v[:, :, keys][kv].flatten(0, 1)
                part = part_forward(work, q_rows, k_rows, v_rows, bias)
                out[some, :, rows], lse2[some, :, rows] = (each.unflatten(0, (-1, classes)) for each in part)
        ctx.save_for_backward(q, k, v, out, lse2)
        ctx.kv_of, ctx.left, ctx.right = kv_of, left, right
        return out, lse2 / LOG2E

    @staticmethod
    def backward(ctx, d_out, d_lse):
        """Run the tiles again: the weights come from lse, as in FlashAttention-2."""
        q, k, v, out, lse2 = ctx.saved_tensors
        (items, classes), kv_of = q.shape[:2], ctx.kv_of
        d_out = d_out if min(d_out.stride()) > 0 and d_out.stride(-1) == 1 else d_out.contiguous()
        delta = torch.linalg.vecdot(d_out, out) - d_lse      # (items, classes, seq_q)
        d_q, d_k, d_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        (inside, edges), work = cut(q.shape[2], k.shape[2], ctx.left, ctx.right), Workspace(q)
        for at in itertools.product(range(items), range(classes)) if len(inside) else ():
            kv = kv_of[at[0]], at[1]
            inside_backward(work, d_out[at], q[at], k[kv], v[kv], lse2[at], delta[at], d_q[at], d_k[kv], d_v[kv],
                            inside, ctx.left, ctx.right)
        for rows, keys, bias in edges:
            bias = torch.from_numpy(bias).to(q)
            for some, kv in pieces(kv_of, classes, rows, keys):
                given = (each[some, :, rows].flatten(0, 1) for each in (d_out, q, lse2, delta))
                d_out_rows, q_rows, lse_rows, delta_rows = given
                k_rows, v_rows = k[:, :, keys][kv].flatten(0, 1), v[:, :, keys][kv].flatten(0, 1)
                part = part_backward(work, d_out_rows, q_rows, k_rows, v_rows, lse_rows, delta_rows, bias)
                part = [each.unflatten(0, (-1, classes)) for each in part]
                d_q[some, :, rows] = part[0]
                d_k[:, :, keys].index_add_(0, torch.tensor(kv), part[1])
                d_v[:, :, keys].index_add_(0, torch.tensor(kv), part[2])
        return d_q, d_k, d_v, None, None, None


def tile_rows(left, right):
    """Queries per tile: long products for wide bands, little waste for narrow ones (measured on one core)."""
    return 128 if left + right >= 1024 else 64 if left + right >= 128 else 32


def cut(seq_q, seq_k, left, right):
    """(range of the first rows of tiles that lie inside the keys, [(rows, keys, bias)] of the tiles at the edges)."""
    tile, ahead = tile_rows(left, right), seq_k - seq_q      # query i stands at key i + ahead
    first = max(0, -(-(left - ahead) // tile))
    last = min(seq_q, seq_k - ahead - right) // tile
    inside = range(first * tile, last * tile, tile)
    rest = [*range(0, min(first * tile, seq_q), tile), *range(last * tile, seq_q, tile)] if inside else range(0, seq_q, tile)
    edges = []
    for start in rest:
        stop = min(start + tile, seq_q)
        keys = slice(max(0, start + ahead - left), max(0, min(seq_k, stop + ahead + right)))
        distance = np.arange(keys.start, max(keys.start, keys.stop)) - np.arange(start, stop)[:, None] - ahead
        bias = np.where((distance >= -left) & (distance <= right), 0, -np.inf)
        edges.append((slice(start, stop), slice(keys.start, max(keys.start, keys.stop)), bias))
    return inside, edges


def pieces(kv_of, classes, rows, keys):
    """Split the items so that the scores of one tile fit the scratch: (slice of items, their keys' items)."""
    per_item = max(1, classes * (rows.stop - rows.start) * (keys.stop - keys.start))
    step = max(1, SCRATCH // per_item)
    for first in range(0, len(kv_of), step):
        yield slice(first, first + step), kv_of[first : first + step]


def views(scores, width):
    """What of scores (tiles, tile, columns) is the band, and what lies between two of its rows."""
    tiles, tile, columns = scores.shape
    strides = tile * columns, columns + 1, 1
    band = scores.as_strided((tiles, tile, width), strides, scores.storage_offset())
    return band, scores.as_strided((tiles, tile - 1, tile), strides, scores.storage_offset() + width)


def batches(inside, tile, left, right):
    """(first row, tiles) of runs of tiles whose scores fit the scratch."""
    most = max(1, SCRATCH // (tile * (tile + left + right)))
    for first in range(0, len(inside), most):
        yield inside[first], min(most, len(inside) - first)


def tiles_of(x, start, count, step, rows):
    """(count, rows, width) overlapping pieces of x (seq, width): piece i begins at row start + i · step. A view."""
    return x.as_strided((count, rows, x.shape[1]), (step * x.stride(0), *x.stride()), x.storage_offset() + start * x.stride(0))


def inside_forward(work, q, k, v, out, lse2, inside, left, right):
    """Write `out` and `lse2` of one item for the tiles whose whole band lies inside the keys."""
    tile, columns, ahead = inside.step, inside.step + left + right, len(k) - len(q)
    for start, count in batches(inside, tile, left, right):
        q_tiles = tiles_of(q, start, count, tile, tile)                      # (tiles, tile, dim_head)
        k_tiles = tiles_of(k, start + ahead - left, count, tile, columns)    # (tiles, columns, dim_head)
        v_tiles = tiles_of(v, start + ahead - left, count, tile, columns)
        scores, product = work.take("scores", count, tile, columns), work.take("product", count, tile, v.shape[1])
        row_max, row_sum = work.take("row_max", count, tile, 1), work.take("row_sum", count, tile, 1)
        band, gaps = views(scores, left + right + 1)
        torch.baddbmm(scores, q_tiles, k_tiles.mT, beta=0, alpha=LOG2E / q.shape[1] ** 0.5, out=scores)
        torch.amax(band, -1, keepdim=True, out=row_max)
        band.sub_(row_max).exp2_()
        torch.sum(band, -1, keepdim=True, out=row_sum)
        gaps.zero_()
        torch.div(torch.bmm(scores, v_tiles, out=product), row_sum, out=tiles_of(out, start, count, tile, tile))
        torch.add(row_max, row_sum.log2_(), out=lse2[start : start + count * tile].view(count, tile, 1))


def inside_backward(work, d_out, q, k, v, lse2, delta, d_q, d_k, d_v, inside, left, right):
    """Write `d_q` of the same tiles, and add to `d_k` and `d_v`."""
    tile, columns, ahead = inside.step, inside.step + left + right, len(k) - len(q)
    scale, width = q.shape[1] ** -0.5, left + right + 1
    for start, count in batches(inside, tile, left, right):
        rows, first = slice(start, start + count * tile), start + ahead - left
        q_tiles, d_out_tiles = tiles_of(q, start, count, tile, tile), tiles_of(d_out, start, count, tile, tile)
        k_tiles, v_tiles = tiles_of(k, first, count, tile, columns), tiles_of(v, first, count, tile, columns)
        weights, d_scores = (work.take(name, count, tile, columns) for name in ("scores", "d_scores"))
        torch.baddbmm(weights, q_tiles, k_tiles.mT, beta=0, alpha=LOG2E * scale, out=weights)
        weights_band, gaps = views(weights, width)
        weights_band.sub_(lse2[rows].view(count, tile, 1)).exp2_()
        gaps.zero_()
        piece = work.take("d_v", count, columns, v.shape[1])
        add_overlapping(d_v, torch.bmm(weights.mT, d_out_tiles, out=piece), first, tile)
        torch.bmm(d_out_tiles, v_tiles.mT, out=d_scores)                     # d_weights
        band, gaps = views(d_scores, width)
        band.sub_(delta[rows].view(count, tile, 1)).mul_(weights_band).mul_(scale)
        gaps.zero_()
        torch.bmm(d_scores, k_tiles, out=tiles_of(d_q, start, count, tile, tile))
        piece = work.take("d_k", count, columns, k.shape[1])
        add_overlapping(d_k, torch.bmm(d_scores.mT, q_tiles, out=piece), first, tile)


def add_overlapping(total, pieces_, start, step):
    """Add piece i (columns, width) to the rows of `total` from start + i · step on; pieces overlap."""
    count, columns = pieces_.shape[:2]
    for offset in range(0, columns, step):                                   # these stretches do not overlap
        part = pieces_[:, offset : offset + step]
        tiles_of(total, start + offset, count, step, part.shape[1]).add_(part)
