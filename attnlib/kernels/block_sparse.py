"""What calls the block-sparse kernels: on CUDA tensors Triton, on others `attnlib.sparse`."""

import torch

from attnlib import masks
from attnlib._shapes import takes
from attnlib.kernels.dispatch import _by_triton, _check_widths
from attnlib.sparse import BlockMap
from attnlib.sparse import block_sparse_attention as by_torch
from attnlib.sparse.blocks import SHAPES, _fitting


@takes(**SHAPES)
def block_sparse_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, predicate: masks.Predicate | BlockMap, block_size: int = 128,
    backend: str | None = None,
) -> torch.Tensor:
    """`attnlib.sparse.block_sparse_attention` on a GPU: kernels that walk the list of blocks (arXiv 1904.10509, 2412.05496).

    Parameters
    ----------
    q, k, v : (..., heads, seq_q, dim_head), (..., kv_heads, seq_k, dim_head), (..., kv_heads, seq_k, dim_v)
        As for `attnlib.kernels.attention`.
    predicate : predicate or BlockMap
        Who may attend to whom. A predicate is made into a map, and the map into lists, at every call: in a loop, call
        `attnlib.sparse.block_map` once and hand in what it returns; the map keeps its lists.
    block_size : int
        Side of a block, for the kernels a multiple of 16; not used with a BlockMap, which has its own.
    backend : {None, "triton", "torch"}
        As for `attnlib.kernels.attention`.

    Returns
    -------
    (..., heads, seq_q, dim_v)
        Zeros, with zero gradients, for a query that may see no key.

    Raises
    ------
    ValueError, TypeError, ImportError
        As `attnlib.sparse.block_sparse_attention` and `attnlib.kernels.attention` do.

    Notes
    -----
    Keys and values that no query may see are replaced by zeros: NaN or infinity there reaches neither a result nor a
    gradient. Those that some query may see reach the queries of the same tile. Gradients of gradients are refused.
    With the same tiles the same bits; on a GPU the tiles are chosen by timing, anew in each process.
    """
    where = "block_sparse_attention"
    if not _by_triton(where, "q", q, backend):
        return by_torch(q, k, v, predicate, block_size)
    _check_widths(where, q, v)
    found, lead, k, v = _fitting(where, q, k, v, predicate, block_size)
    if found.block_size % 16:
        raise ValueError(f"{where}: block_size is {found.block_size}, expected a multiple of 16 for the Triton kernels")
    q, k, v = (x.expand(*lead, *x.shape[-3:]).reshape(lead.numel(), *x.shape[-3:]) for x in (q, k, v))
    from attnlib.kernels._launch_blocks import BlockKernels

    return BlockKernels.apply(q, k, v, _index(found, q.device), found.block_size).reshape(*lead, *q.shape[1:3], v.shape[-1])


def _index(found, device):
    """The map's lists on this device, made when they are first needed, and kept with the map."""
    from attnlib.kernels.index import block_index

    kept = vars(found).setdefault("_lists", {})              # the map is frozen: its fields are, this is none of them
    if device not in kept:
        kept[device] = block_index(found).to(device)
    return kept[device]
