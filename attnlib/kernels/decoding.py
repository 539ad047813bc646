"""Attention of the newest queries to a long cache: the keys are split over many programs, and the parts merged."""

import math

import torch

from attnlib._shapes import takes
from attnlib.cache import decode_attention as by_torch
from attnlib.flash._parts import check_count, check_heads
from attnlib.kernels.dispatch import _by_triton, _check_widths

ROWS = 64  # queries of all the heads that share a key head, at most: they stand in one tile


@takes(q="float ... heads seq_q dim_head", k="float ... kv_heads seq_k dim_head", v="float ... kv_heads seq_k dim_v")
def decode_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: torch.Tensor | None = None, splits: int | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """Causal attention of the newest queries, the keys split over programs (flash-decoding, Dao et al. 2023; the merging is arXiv 1805.02867, Eq. 4).

    With one query there is one tile, and a GPU has a hundred multiprocessors. So the keys are cut into parts, a program for
    each, and the parts are merged through their log-sum-exp. The query heads that share a key head stand in one tile, so keys
    and values are read once. No gradient.

    Parameters
    ----------
    q : (..., heads, seq_q, dim_head)
        Queries of the last seq_q positions, heads / kv_heads · seq_q at most 64.
    k, v : (..., kv_heads, seq_k, dim_head), (..., kv_heads, seq_k, dim_v)
        The cache; `kv_heads` divides `heads`.
    lengths : (...) int tensor, optional
        Keys of each sequence; what lies behind is filling and not read. Default: seq_k. At most seq_k, not checked
        on a GPU, which would have to wait for it.
    splits : int, optional
        Parts that the keys are cut into; by default about two programs for each multiprocessor.
    backend : {None, "triton", "torch"}
        As for `attention`.

    Returns
    -------
    (..., heads, seq_q, dim_v)
        Zeros for a query that stands before the first key.

    Raises
    ------
    ValueError, TypeError, ImportError
        As `attention` does; also if there are too many queries, or `lengths` does not fit.
    """
    where = "decode_attention"
    check_heads(where, q, k)
    (heads, seq_q, dim_head), (kv_heads, seq_k, dim_v) = q.shape[-3:], v.shape[-3:]
    lead, group = torch.broadcast_shapes(q.shape[:-3], k.shape[:-3], v.shape[:-3]), heads // kv_heads
    if lengths is not None:
        _check_lengths(where, lengths, lead, q.device, seq_k)
    if splits is not None:
        check_count(where, 1, splits=splits)
    if not _by_triton(where, "q", q, backend):
        return _with_lengths(q, k, v, lengths, lead) if lengths is not None else by_torch(q, k, v)
    if group * seq_q > ROWS:
        raise ValueError(f"{where}: q has {group} heads of {seq_q} queries to a key head, expected at most {ROWS} in all: use attention")
    _check_widths(where, q, v)
    with torch.no_grad():
        q, k, v = (x.expand(*lead, *x.shape[-3:]).reshape(lead.numel(), *x.shape[-3:]) for x in (q, k, v))
        rows = q.reshape(len(q), kv_heads, group * seq_q, dim_head)
        out = _launch(rows, k, v, None if lengths is None else lengths.expand(lead).reshape(-1).contiguous(), seq_q, splits)
        return out.view(*lead, heads, seq_q, dim_v)


def _launch(q, k, v, lengths, seq_q, splits):
    """Two launches: parts, and their merging."""
    import triton
    from triton.runtime.interpreter import InterpretedFunction

    from attnlib.kernels._launch import _near, _on, scale_of
    from attnlib.kernels.decode import merge_kernel, split_kernel
    from attnlib.kernels.shipped import constants

    q, k, v = (_near(x) for x in (q, k, v))
    batch, kv_heads, rows, dim, seq_k, dim_v = *q.shape, *v.shape[2:]
    items, known = batch * kv_heads, constants(dim, dim_v)
    out, lse2 = q.new_empty(batch, kv_heads, rows, dim_v), q.new_empty(batch, kv_heads, rows, dtype=torch.float32)
    if not out.numel():
        return out
    interpreted = isinstance(split_kernel, InterpretedFunction)
    block_k = 16 if interpreted else 32 if max(dim, dim_v) > 128 or q.dtype == torch.float32 else 64
    processors = 4 if interpreted else torch.cuda.get_device_properties(q.device).multi_processor_count
    tiles = max(1, math.ceil(seq_k / block_k))
    splits = min(tiles, splits or math.ceil(2 * processors / items), 256)
    part = math.ceil(tiles / splits) * block_k
    parts = max(1, math.ceil(seq_k / part))
    part_out = q.new_empty(items, parts, rows, known["BLOCK_V"], dtype=torch.float32)
    part_lse2 = q.new_empty(items, parts, rows, dtype=torch.float32)
    with _on(q):
        split_kernel[(items, parts)](
            q, k, v, part_out, part_lse2, lse2 if lengths is None else lengths, q.stride(), k.stride(), v.stride(), scale_of(dim),
            kv_heads, rows, seq_q, seq_k, part, RAGGED=lengths is not None, BLOCK_Q=max(16, triton.next_power_of_2(rows)), BLOCK_K=block_k,
            **known)
        merge_kernel[(items * rows,)](
            part_out, part_lse2, out, lse2, parts, rows, DIM_V=dim_v, BLOCK_V=known["BLOCK_V"], BLOCK_S=triton.next_power_of_2(parts))
    return out


def _with_lengths(q, k, v, lengths, lead):
    """The same in torch, one sequence after the other."""
    q, k, v = (x.expand(*lead, *x.shape[-3:]).reshape(lead.numel(), *x.shape[-3:]) for x in (q, k, v))
    found = [by_torch(a, b[:, :length], c[:, :length]) for a, b, c, length in zip(q, k, v, lengths.expand(lead).flatten().tolist(), strict=True)]
    return torch.stack(found).view(*lead, *found[0].shape) if found else q.new_zeros(*lead, *q.shape[1:3], v.shape[-1])


def _check_lengths(where, lengths, lead, device, seq_k):
    """Raise unless there is an int for each sequence, no more than there are keys."""
    if not isinstance(lengths, torch.Tensor) or lengths.dtype not in (torch.int32, torch.int64):
        came = lengths.dtype if isinstance(lengths, torch.Tensor) else type(lengths).__name__
        raise TypeError(f"{where}: lengths is of type {came}, expected an int32 or int64 tensor")
    if lengths.device != device:
        raise ValueError(f"{where}: lengths is on {lengths.device}, expected {device} like q")
    if lengths.ndim > len(lead) or any(a not in (1, b) for a, b in zip(lengths.shape[::-1], lead[::-1], strict=False)):
        raise ValueError(f"{where}: lengths has shape {tuple(lengths.shape)}, expected one that broadcasts to {tuple(lead)}")
    if device.type == "cpu" and lengths.numel() and not 0 <= int(lengths.min()) <= int(lengths.max()) <= seq_k:
        raise ValueError(f"{where}: lengths is {int(lengths.min())} to {int(lengths.max())}, expected 0 to {seq_k}, the keys there are")
