"""Ring attention, and the count of what it sends."""

import contextlib
from collections.abc import Iterator

import torch
import torch.distributed as dist

from attnlib._shapes import takes
from attnlib.flash._parts import check_heads
from attnlib.ring import _rounds, placing
from attnlib.ring._checks import check_placement


@takes(q="float ... heads seq_q dim_head", k="float ... kv_heads seq_k dim_head", v="float ... kv_heads seq_k dim_v")
def ring_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = False, group: "dist.ProcessGroup | None" = None,
    zigzag: bool = True,
) -> torch.Tensor:
    """Softmax attention over a sequence that lies in pieces on several ranks (Ring Attention: arXiv 2310.01889).

    Every rank of the group calls it with its own piece and gets its own piece of the result; gradients likewise. Exact
    up to rounding. Beside its own piece of keys and values a rank holds the one at hand and the one under way. Forward each rank sends
    (ranks - 1) pieces of keys and values, backward the same again and as many pieces of their gradients:
    `attnlib.costs.ring_bytes`.

    Parameters
    ----------
    q, k, v : (..., heads, seq_q, dim_head), (..., kv_heads, seq_k, dim_head), (..., kv_heads, seq_k, dim_v)
        This rank's piece, of the same shapes and dtype on all ranks (which is not checked: the message of another size
        fails in the backend). `kv_heads` divides `heads`; the axes before are the same for all three. Half precision
        travels as it is, and is computed in float32, in which gradients of keys and values travel too.
    causal : bool
        Whether a query sees only what does not come after it. Needs seq_q = seq_k.
    group : ProcessGroup, optional
        Default: all processes. On CPUs with gloo, on GPUs with nccl.
    zigzag : bool
        For causal attention, which pieces these are: True, those of `zigzag_split`, and all ranks are busy all the
        time; False, one stretch a rank in order, and the first rank is idle in all steps but one.

    Returns
    -------
    out : (..., heads, seq_q, dim_v)
        For this rank's queries.

    Raises
    ------
    RuntimeError
        If no process group has been started, or this process is not in it.
    ValueError, TypeError
        If shapes, dtypes or devices do not fit, the heads do not divide, or with `causal` lengths differ or are odd.

    Notes
    -----
    The next keys and values are under way while those at hand are computed with. The backward pass does not
    differentiate the merges: with the log-sum-exp of the *whole* row every piece gives its own share of all gradients,
    as every tile of `flash_attention` does. Gradients of keys and values follow them round the ring and are summed on
    the way. So all ranks must go backward, or none: one that does not leaves the others waiting. The steps are computed
    by `flash_attention`, on GPUs too.
    """
    check_heads("ring_attention", q, k)
    check_placement(q, k, v, causal, zigzag)
    ring = _rounds.Ring(group)
    mine, *others = (placing.chunks_of(rank, ring.ranks, zigzag) if causal else [0] for rank in (ring.rank, *range(ring.ranks)))
    plan = [placing.chunk_pairs(mine, others[(ring.rank - step) % ring.ranks], causal) for step in range(ring.ranks)]
    return _rounds.RingAttention.apply(q, k, v, ring, plan, len(mine))


@contextlib.contextmanager
def count_sent() -> Iterator[dict[str, int]]:
    """Count what this process sends inside the `with` block: a dict with `messages` and `bytes`.

    Yields
    ------
    dict of str to int
    """
    counter = {"messages": 0, "bytes": 0}
    _rounds.counters.append(counter)
    try:
        yield counter
    finally:
        _rounds.counters[:] = [each for each in _rounds.counters if each is not counter]
