"""Attention to blocks that the content chooses: score each block by the mean of its keys, read the best ones."""

import torch

from attnlib._shapes import takes
from attnlib.flash._parts import check_count, check_heads
from attnlib.sparse._selection import Chosen, choose_blocks

SHAPES = dict(q="float ... heads seq_q dim_head", k="float ... kv_heads seq_k dim_head", v="float ... kv_heads seq_k dim_v")


def _pad(x, sides):
    """x with zeros at its sides; x itself where there is nothing to add, of which torch's pad would make a copy."""
    return torch.nn.functional.pad(x, sides) if any(sides) else x


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
    own_q = q[..., seq_q - sighted :, :].expand(*lead, heads, sighted, -1).unflatten(-3, (kv_heads, heads // kv_heads))
    if causal and start > before:                                            # the first query given stands in for the block's first
        own_q = torch.cat([own_q[..., :1, :].detach().expand(*own_q.shape[:-2], start - before, -1), own_q], -2)
    elif start > before:
        own_q = _pad(own_q, (0, 0, start - before, 0))
    q_blocks = _pad(own_q, (0, 0, 0, behind)).flatten(0, -4)                  # (items, group, rows, dim_head)
    k_items, v_items = (x.expand(*lead, *x.shape[-3:]).flatten(0, -3) for x in (k, v))
    real = torch.nn.functional.pad(torch.ones(sighted, dtype=torch.int64), (start - before, behind)).unflatten(0, (-1, query_block)).sum(-1)
    with torch.no_grad():
        chosen = choose_blocks(q_blocks, k_items, top_k, block_size, query_block, causal, before, real)
    filled = (_pad(x, (0, 0, 0, blocks_k * block_size - seq_k)).unflatten(1, (blocks_k, block_size)) for x in (k_items, v_items))
    out = Chosen.apply(q_blocks.unflatten(2, (-1, query_block)), *filled, chosen, seq_k, before, causal)
    out = out.flatten(2, 3)[:, :, start - before :][:, :, :sighted]          # (items, group, sighted, dim_v)
    return _pad(out.reshape(*lead, heads, sighted, v.shape[-1]), (0, 0, seq_q - sighted, 0)).to(given)
