"""Attention over several devices: each holds a piece of the sequence, keys and values go round the ring.

Queries stay where they are. In every step each device (a *rank* of a `torch.distributed` group) attends to the keys and
values it has at the moment, while they already travel on to the next; partial results are merged by their log-sum-exp.
"""

import contextlib
import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

from attnlib._shapes import takes
from attnlib.flash import flash_attention, merge_partial
from attnlib.flash._parts import LOG2E, Workspace, check_count, check_heads, to_items
from attnlib.flash._tiles import TILE_Q, Sight, add_gradients, stretches

__all__ = ["chunk_pairs", "chunks_of", "count_sent", "ring_attention", "torchrun", "zigzag_merge", "zigzag_split"]

_counters: list[dict[str, int]] = []


def check_pieces(x, ranks, axis=-2, where="zigzag_split"):
    """Raise unless 2 · ranks divides the length of x along the axis."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{where}: x is of type {type(x).__name__}, expected a torch.Tensor")
    check_count(where, 1, ranks=ranks)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"{where}: axis is {axis}, expected an axis of x, which has shape {tuple(x.shape)}")
    if x.shape[axis] % (2 * ranks):
        raise ValueError(f"{where}: x has {x.shape[axis]} tokens, expected a multiple of 2 · ranks = {2 * ranks}")


def check_all_pieces(pieces, axis=-2):
    """Raise unless these are tensors of one shape and of even length along the axis."""
    if not isinstance(pieces, list | tuple):
        raise TypeError(f"zigzag_merge: pieces is of type {type(pieces).__name__}, expected a list of tensors")
    if not pieces:
        raise ValueError("zigzag_merge: pieces is empty, expected one a rank")
    for piece in pieces:
        check_pieces(piece, 1, axis, "zigzag_merge")
        if piece.shape != pieces[0].shape:
            raise ValueError(f"zigzag_merge: pieces has shapes {tuple(pieces[0].shape)} and {tuple(piece.shape)}, expected one")


def after(check):
    """Decorate a function: `check` is called with its arguments first, so that its body stays the chapter's."""
    def decorate(function):
        @functools.wraps(function)
        def checked(*args, **kwargs):
            check(*args, **kwargs)
            return function(*args, **kwargs)
        return checked
    return decorate


def chunks_of(rank: int, ranks: int, zigzag: bool = True) -> list[int]:
    """Numbers of the stretches of the sequence that a rank holds, in their order.

    Parameters
    ----------
    rank, ranks : int
        Which rank, of how many.
    zigzag : bool
        True: of 2 · ranks stretches the rank-th from the front and the rank-th from the end (arXiv 2407.21783, Section
        3.3.2), so that under a causal mask all ranks have the same work. False: of `ranks` stretches one.

    Returns
    -------
    list of int
    """
    return [rank, 2 * ranks - 1 - rank] if zigzag else [rank]


def chunk_pairs(mine: list[int], theirs: list[int], causal: bool = True) -> list[tuple[int, int, bool]]:
    """Which stretches of queries meet which stretches of keys: (place in `mine`, place in `theirs`, on the diagonal).

    Parameters
    ----------
    mine, theirs : list of int
        Numbers of the stretches that queries and keys come from.
    causal : bool
        Whether pairs that lie wholly in the future are left out. Only pairs on the diagonal then need a mask.

    Returns
    -------
    list of (int, int, bool)
    """
    pairs = [(i, j) for i in range(len(mine)) for j in range(len(theirs))]
    if not causal:
        return [(i, j, False) for i, j in pairs]
    return [(i, j, mine[i] == theirs[j]) for i, j in pairs if theirs[j] <= mine[i]]


@after(check_pieces)
def zigzag_split(x: torch.Tensor, ranks: int, axis: int = -2) -> list[torch.Tensor]:
    """The pieces of a sequence that balance causal attention: rank r gets stretches r and 2 · ranks - 1 - r of 2 · ranks.

    Parameters
    ----------
    x : tensor
        Anything with one entry per token along `axis`: queries, keys, values, embeddings, and positions too, which a
        rank needs for rotary embeddings.
    ranks : int
        Number of ranks; 2 · ranks must divide the length.
    axis : int
        Axis of the tokens.

    Returns
    -------
    list of tensor
        One piece a rank, each of length seq / ranks along `axis`.

    Raises
    ------
    ValueError, TypeError
        If the length does not divide, or there is no such axis.
    """
    chunks = x.chunk(2 * ranks, axis)
    return [torch.cat([chunks[i] for i in chunks_of(rank, ranks)], axis) for rank in range(ranks)]


@after(check_all_pieces)
def zigzag_merge(pieces: list[torch.Tensor], axis: int = -2) -> torch.Tensor:
    """The sequence in its order again, from the pieces of all ranks: undoes `zigzag_split`.

    Parameters
    ----------
    pieces : list of tensor
        One a rank, in the order of ranks.
    axis : int
        Axis of the tokens.

    Returns
    -------
    tensor

    Raises
    ------
    ValueError, TypeError
        If `pieces` is no list of tensors of one shape, or their length is odd.
    """
    halves = [piece.chunk(2, axis) for piece in pieces]
    return torch.cat([first for first, _ in halves] + [last for _, last in reversed(halves)], axis)


@takes(q="float ... heads seq_q dim_head", k="float ... kv_heads seq_k dim_head", v="float ... kv_heads seq_k dim_v")
def ring_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = False, group: "dist.ProcessGroup | None" = None,
    zigzag: bool = True,
) -> torch.Tensor:
    """Softmax attention over a sequence that lies in pieces on several ranks (Ring Attention: arXiv 2310.01889).

    Every rank of the group calls it with its own piece and gets its own piece of the result; gradients likewise. Exact
    up to rounding. A rank holds two pieces of keys and values at a time, never all of them. Forward each rank sends
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
    the way.
    """
    check_heads("ring_attention", q, k)
    check_placement(q, k, v, causal, zigzag)
    ring = Ring(group)
    mine, *others = (chunks_of(rank, ring.ranks, zigzag) if causal else [0] for rank in (ring.rank, *range(ring.ranks)))
    plan = [chunk_pairs(mine, others[(ring.rank - step) % ring.ranks], causal) for step in range(ring.ranks)]
    return RingAttention.apply(q, k, v, ring, plan, len(mine))


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
    for rows in stretches(0, q.shape[1], TILE_Q):
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

    def pass_on(self, *tensors):
        """Begin to send to the next rank, and to receive the like from the rank before."""
        tensors = [x.contiguous() for x in tensors]
        sends = [dist.P2POp(dist.isend, x, group=self.group, group_peer=(self.rank + 1) % self.ranks) for x in tensors]
        incoming = [torch.empty_like(x) for x in tensors]
        receives = [dist.P2POp(dist.irecv, x, group=self.group, group_peer=(self.rank - 1) % self.ranks) for x in incoming]
        for counter in _counters:
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


@contextlib.contextmanager
def count_sent():
    """Count what this process sends inside the `with` block: a dict with `messages` and `bytes`.

    Yields
    ------
    dict of str to int
    """
    counter = {"messages": 0, "bytes": 0}
    _counters.append(counter)
    try:
        yield counter
    finally:
        _counters[:] = [each for each in _counters if each is not counter]


def torchrun(program: str, ranks: int, seconds: float = 120) -> str:
    """Run a Python program in several processes of this computer, as `torchrun` does; return what they print.

    Parameters
    ----------
    program : str
        Its text. Each process learns its rank from `torch.distributed.init_process_group("gloo")`.
    ranks : int
        How many processes.
    seconds : float
        After which all of them are ended: processes that wait for each other in vain would wait for long.

    Returns
    -------
    str

    Raises
    ------
    RuntimeError
        If one of them fails, with what it said, or they are not done in time.
    ValueError, TypeError
        If `program` is no text or `ranks` no int from 1.
    """
    if not isinstance(program, str):
        raise TypeError(f"torchrun: program is of type {type(program).__name__}, expected a str")
    check_count("torchrun", 1, ranks=ranks)
    library = str(Path(__file__).parents[1])
    paths = [library, *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "program.py")
        path.write_text(program, encoding="utf-8")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), str(path)]
        started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)})
        try:
            printed, said = started.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            started.terminate()                              # torchrun ends its processes, which a plain kill would leave behind
            started.communicate()
            raise RuntimeError(f"torchrun: {ranks} processes were not done after {seconds} seconds") from None
    if started.returncode:
        raise RuntimeError(f"torchrun: a process failed:\n{said}")
    return printed


def wide(x):
    """Half precision as float32; everything else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def stretch(number, cuts, x):
    """The slice of tokens of x that is the number-th of `cuts` equal stretches."""
    seq = x.shape[-2]
    return slice(number * seq // cuts, (number + 1) * seq // cuts)


def check_placement(q, k, v, causal, zigzag):
    """Raise unless the leading axes are the same, and lengths are such as causal attention needs."""
    for name, x in (("k", k), ("v", v)):
        if x.shape[:-3] != q.shape[:-3]:
            raise ValueError(f"ring_attention: {name} has leading axes {tuple(x.shape[:-3])}, expected those of q, {tuple(q.shape[:-3])}")
    if causal and q.shape[-2] != k.shape[-2]:
        raise ValueError(f"ring_attention: k has {k.shape[-2]} tokens, expected the {q.shape[-2]} of q: causal attention needs as many")
    if causal and zigzag and q.shape[-2] % 2:
        raise ValueError(f"ring_attention: q has {q.shape[-2]} tokens, expected an even number: two stretches, see zigzag_split")
