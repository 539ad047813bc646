"""Attention that remembers what has left its segment: recurrence over segments with relative positions, compressed
memory, sinks, and a memory of keys and values searched for the nearest.

A text is read segment by segment. A memory here holds rows of earlier segments, oldest first, without gradient.
"""

import functools

import torch
from torch import nn

from attnlib._shapes import takes

__all__ = [
    "CompressiveMemory",
    "NearestMemory",
    "SegmentLayer",
    "SegmentMemory",
    "SinkMemory",
    "compress",
    "distance_vectors",
    "knn_attention",
    "masked_weights",
    "nearest_keys",
    "relative_attention",
    "relative_shift",
]


# --- positions that survive the border of a segment ----------------------------------------------------------------

@takes(scores="float ... seq_q seq_k")
def relative_shift(scores: torch.Tensor) -> torch.Tensor:
    """Turn scores per distance into scores per key (Transformer-XL, arXiv 1901.02860, Appendix B).

    Parameters
    ----------
    scores : (..., seq_q, seq_k)
        Column c holds the score of the distance seq_k - 1 - c: the largest distance first, 0 last.

    Returns
    -------
    (..., seq_q, seq_k)
        Column j holds the score of key j: row i is moved left by seq_q - 1 - i. Queries are the last positions.
        To the right of a query's own position stand numbers of the next row: hide them with a causal mask.

    Raises
    ------
    ValueError, TypeError
        If `scores` has fewer than two axes or no floating-point entries.

    Notes
    -----
    No scores are computed twice and none are looked up: with a zero in front of each row, rows one shorter
    begin one later, row after row.
    """
    *lead, seq_q, seq_k = scores.shape
    padded = nn.functional.pad(scores, (1, 0))               # (..., seq_q, seq_k + 1): a zero in front of each row
    rows = padded.reshape(*lead, seq_k + 1, seq_q)           # the same numbers, cut anew
    return rows[..., 1:, :].reshape(*lead, seq_q, seq_k)


@takes(seq="count", dim="even")
def distance_vectors(seq: int, dim: int, device: torch.device | None = None) -> torch.Tensor:
    """Sinusoids of the distances seq - 1, …, 1, 0 (arXiv 1901.02860, Section 3.3; 1706.03762, Section 3.5).

    Parameters
    ----------
    seq : int
        How many distances.
    dim : int
        Width, even.
    device : torch.device, optional
        Where to put them.

    Returns
    -------
    (seq, dim)
        Row c belongs to the distance seq - 1 - c. Columns 2i and 2i + 1 hold sine and cosine.

    Raises
    ------
    ValueError, TypeError
        If `seq` is negative, `dim` is odd, or one of them is not an int.
    """
    distances = torch.arange(seq - 1, -1, -1, device=device)                # (seq,)
    speeds = 10000.0 ** (-torch.arange(0, dim, 2, device=device) / dim)     # (dim / 2,), radians per position
    angles = distances[:, None] * speeds                                    # (seq, dim / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)    # (seq, dim)


@takes(scores="float ... seq_q seq_k", mask="bool ... seq_q seq_k")
def masked_weights(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Softmax over the keys that a query may see; zeros, with zero gradients, where it may see none.

    Parameters
    ----------
    scores : (..., seq_q, seq_k)
        Scores, scaled.
    mask : bool, broadcasts to (..., seq_q, seq_k)
        True where a query may attend.

    Returns
    -------
    (..., seq_q, seq_k)
        Each row sums to 1, or to 0 for a query that may see no key.

    Raises
    ------
    ValueError, TypeError
        If shapes, devices or kinds do not fit.
    """
    mask = mask.expand(*mask.shape[:-1], scores.shape[-1])
    blind = ~mask.any(dim=-1, keepdim=True)                  # (..., seq_q, 1): a query that sees no key
    scores = scores.masked_fill(~mask & ~blind, -torch.inf)  # a blind row stays finite, and is cleared below
    return torch.softmax(scores, dim=-1).masked_fill(blind, 0)


@takes(q="float ... seq_q dim_head", k="float ... seq_k dim_head", v="float ... seq_k dim_v",
       r="float ... seq_k dim_head", content_bias="float ... dim_head", position_bias="float ... dim_head",
       mask="bool ... seq_q seq_k")
def relative_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, r: torch.Tensor,
    content_bias: torch.Tensor, position_bias: torch.Tensor, mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention whose scores see content and distance apart (Transformer-XL, arXiv 1901.02860, Section 3.3).

    The score of query i and key j at distance t is q·k + q·r(t) + u·k + w·r(t), over √dim_head: the paper's terms
    (a) to (d), with u `content_bias` and w (there v) `position_bias`.

    Parameters
    ----------
    q : (..., seq_q, dim_head)
        Queries. Where seq_q ≠ seq_k they are the last positions: the last query stands at the last key.
    k : (..., seq_k, dim_head)
        Keys of content.
    v : (..., seq_k, dim_v)
        Values.
    r : (..., seq_k, dim_head)
        Keys of the distances seq_k - 1, …, 1, 0: projected `distance_vectors`.
    content_bias, position_bias : (..., dim_head)
        What every query asks of contents and of distances, whatever it holds itself; one vector per head.
    mask : bool, broadcasts to (..., seq_q, seq_k), optional
        True where a query may attend, beside the causal mask, which always holds.

    Returns
    -------
    out : (..., seq_q, dim_v)
        Zeros, with zero gradients, for a query that may see no key.
    weights : (..., seq_q, seq_k)
        Each row sums to 1, or to 0 for a query that may see no key.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes, devices or the mask's kind do not fit; the message names the argument.

    Notes
    -----
    Keys and values that no query may see are replaced by zeros: NaN or infinity there reaches neither a
    result nor a gradient.
    """
    seq_q, seq_k = q.shape[-2], k.shape[-2]
    causal = torch.ones(seq_q, seq_k, dtype=torch.bool, device=q.device).tril(seq_k - seq_q)
    mask = causal if mask is None else causal & mask
    seen = mask.any(dim=-2).unsqueeze(-1)                    # (..., seq_k, 1): does any query see this key?
    k, v = k.masked_fill(~seen, 0), v.masked_fill(~seen, 0)
    content = (q + content_bias.unsqueeze(-2)) @ k.mT        # (..., seq_q, seq_k): terms (a) and (c)
    position = (q + position_bias.unsqueeze(-2)) @ r.mT      # (..., seq_q, distances): terms (b) and (d)
    scores = (content + relative_shift(position)) / q.shape[-1] ** 0.5
    weights = masked_weights(scores, mask)
    return weights @ v, weights                              # (..., seq_q, dim_v)


class SegmentLayer(nn.Module):
    """Causal multi-head attention over a memory and a segment, by content and distance (arXiv 1901.02860, Section 3.3).

    Parameters
    ----------
    dim : int
        Width of the model, even.
    heads : int
        A divisor of `dim`.

    Raises
    ------
    ValueError, TypeError
        If `dim` is odd, `heads` does not divide it, or one of them is not a positive int.
    """

    @takes(dim="even", heads="divides dim")
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.dim, self.heads = dim, heads
        self.to_q, self.to_k, self.to_v, self.to_r, self.to_out = (nn.Linear(dim, dim, bias=False) for _ in range(5))
        self.content_bias = nn.Parameter(torch.zeros(heads, dim // heads))
        self.position_bias = nn.Parameter(torch.zeros(heads, dim // heads))

    @takes(**{"self.to_q.weight": "float width dim"}, x="float ... seq dim", memory="float ... n_mem dim")
    def forward(self, x: torch.Tensor, memory: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend from a segment to its memory and to itself.

        Parameters
        ----------
        x : (..., seq, dim)
            The segment: queries, and the last keys and values.
        memory : (..., n_mem, dim), optional
            Rows of earlier segments, oldest first; keys and values only.

        Returns
        -------
        out : (..., seq, dim)
        weights : (..., heads, seq, n_mem + seq)

        Raises
        ------
        ValueError, TypeError
            If shapes, dtypes or devices do not fit.
        """
        context = x if memory is None else torch.cat([memory, x], dim=-2)        # (..., n_mem + seq, dim)
        r = distance_vectors(context.shape[-2], self.dim, x.device).to(x.dtype)  # (n_mem + seq, dim)
        q, k, v, r = (
            each.unflatten(-1, (self.heads, -1)).transpose(-2, -3)               # (..., heads, ·, dim_head)
            for each in (self.to_q(x), self.to_k(context), self.to_v(context), self.to_r(r))
        )
        out, weights = relative_attention(q, k, v, r, self.content_bias, self.position_bias)
        return self.to_out(out.transpose(-2, -3).flatten(-2)), weights           # (..., seq, dim)


# --- what a memory keeps -------------------------------------------------------------------------------------------

def _continues(push):
    """Decorate a `push` method: what is pushed fits what stands in the memory, but for its length."""
    @functools.wraps(push)
    def checked(self, x):
        rows, where = self.rows, f"{type(self).__name__}.push"
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"{where}: x is of type {type(x).__name__}, expected a torch.Tensor")
        if x.ndim < 2:
            raise ValueError(f"{where}: x has shape {tuple(x.shape)}, expected (..., seq, dim)")
        if rows is not None and (*x.shape[:-2], x.shape[-1]) != (*rows.shape[:-2], rows.shape[-1]):
            expected = (*rows.shape[:-2], "seq", rows.shape[-1])
            raise ValueError(f"{where}: x has shape {tuple(x.shape)}, expected ({', '.join(map(str, expected))}), as in memory")
        for what in ("dtype", "device"):
            if rows is not None and getattr(x, what) != getattr(rows, what):
                raise (TypeError if what == "dtype" else ValueError)(
                    f"{where}: x has {what} {getattr(x, what)}, expected {getattr(rows, what)}, as in memory")
        return push(self, x)

    return checked


class SegmentMemory:
    """The last rows that were pushed, without gradient: first in, first out (Transformer-XL, arXiv 1901.02860, Section 3.2).

    Parameters
    ----------
    length : int
        Rows to keep, from 0.
    step : int
        Rows leave in multiples of `step`, so that up to step - 1 more may wait.

    Attributes
    ----------
    rows : (..., up to length + step - 1, dim) or None
        Oldest first; None before the first push.

    Raises
    ------
    ValueError, TypeError
        If `length` is negative, `step` is less than 1, or one of them is not an int.
    """

    @takes(length="count", step="positive")
    def __init__(self, length: int, step: int = 1):
        self.length, self.step, self.rows = length, step, None

    @_continues
    def push(self, x: torch.Tensor) -> torch.Tensor:
        """Append rows, and let the oldest fall out.

        Parameters
        ----------
        x : (..., seq, dim)
            Rows of a segment, oldest first.

        Returns
        -------
        (..., number, dim)
            The rows that fall out, oldest first.

        Raises
        ------
        ValueError, TypeError
            If `x` does not fit the rows of the memory.
        """
        x = x.detach()                                       # no gradient flows into the past
        rows = x if self.rows is None else torch.cat([self.rows, x], dim=-2)
        out = max(rows.shape[-2] - self.length, 0) // self.step * self.step
        self.rows = rows[..., out:, :].clone()               # a copy: what falls out is not kept alive
        return rows[..., :out, :]


@takes(x="float ... seq dim", rate="divides seq", kernel="float rate dim dim_out")
def compress(x: torch.Tensor, rate: int, kernel: torch.Tensor | None = None) -> torch.Tensor:
    """Make one row of every `rate` rows (Compressive Transformer, arXiv 1911.05507, Section 3.2).

    Parameters
    ----------
    x : (..., seq, dim)
        Rows that fall out of a memory.
    rate : int
        Rows per slot, a divisor of seq.
    kernel : (rate, dim, dim_out), optional
        Weights of a convolution of width and stride `rate`. Default: the mean of the rows.

    Returns
    -------
    (..., seq / rate, dim or dim_out)

    Raises
    ------
    ValueError, TypeError
        If `rate` does not divide seq, or `kernel` does not fit.
    """
    blocks = x.unflatten(-2, (x.shape[-2] // rate, rate))    # (..., seq / rate, rate, dim)
    if kernel is None:
        return blocks.mean(dim=-2)
    return blocks.flatten(-2) @ kernel.flatten(0, 1)         # (..., seq / rate, dim_out)


class CompressiveMemory:
    """The last rows as they are, and before them older rows, `rate` to a slot (arXiv 1911.05507, Section 3).

    Parameters
    ----------
    length : int
        Rows to keep as they are.
    slots : int
        Compressed rows to keep; they reach slots · rate positions further back.
    rate : int
        Rows per slot.
    kernel : (rate, dim, dim), optional
        See `compress`.

    Raises
    ------
    ValueError, TypeError
        If a size is too small or not an int.
    """

    @takes(length="count", slots="count", rate="positive")
    def __init__(self, length: int, slots: int, rate: int, kernel: torch.Tensor | None = None):
        self.recent, self.old = SegmentMemory(length, step=rate), SegmentMemory(slots)
        self.rate, self.kernel = rate, kernel

    @property
    def rows(self) -> torch.Tensor | None:
        """What the memory holds: compressed rows, then the others, oldest first.

        Returns
        -------
        (..., slots + rows, dim) or None
            None before the first push.
        """
        parts = [part.rows for part in (self.old, self.recent) if part.rows is not None]
        return torch.cat(parts, dim=-2) if parts else None

    @_continues
    def push(self, x: torch.Tensor) -> torch.Tensor:
        """Append rows; compress the oldest, and let the oldest slots fall out.

        Parameters
        ----------
        x : (..., seq, dim)
            Rows of a segment, oldest first.

        Returns
        -------
        (..., number, dim)
            The slots that fall out, oldest first.

        Raises
        ------
        ValueError, TypeError
            If `x` does not fit the rows of the memory.
        """
        fallen = self.recent.push(x)
        return self.old.push(compress(fallen, self.rate, self.kernel))


class SinkMemory:
    """The first rows ever pushed and the last ones (StreamingLLM, arXiv 2309.17453, Section 3.2).

    Parameters
    ----------
    sinks, length : int
        How many of the first rows, and of the last, to keep.

    Raises
    ------
    ValueError, TypeError
        If a number is negative or not an int.

    Notes
    -----
    Positions count within the memory, as in the paper: a sink stands right before the oldest of the last rows.
    """

    @takes(sinks="count", length="count")
    def __init__(self, sinks: int, length: int):
        self.sinks, self.first, self.recent = sinks, None, SegmentMemory(length)

    @property
    def rows(self) -> torch.Tensor | None:
        """What the memory holds: the first rows, then the last.

        Returns
        -------
        (..., up to sinks + length, dim) or None
            None before the first push.
        """
        return None if self.first is None else torch.cat([self.first, self.recent.rows], dim=-2)

    @_continues
    def push(self, x: torch.Tensor) -> torch.Tensor:
        """Append rows; all but the sinks fall out in turn.

        Parameters
        ----------
        x : (..., seq, dim)
            Rows of a segment, oldest first.

        Returns
        -------
        (..., number, dim)
            The rows that fall out, oldest first.

        Raises
        ------
        ValueError, TypeError
            If `x` does not fit the rows of the memory.
        """
        first = x[..., :0, :].detach() if self.first is None else self.first
        free = self.sinks - first.shape[-2]                  # places for sinks, at the beginning of the text
        self.first = torch.cat([first, x[..., :free, :].detach()], dim=-2)
        return self.recent.push(x[..., free:, :])


# --- a memory that is searched -------------------------------------------------------------------------------------

class NearestMemory:
    """Keys and values of the past, without gradient, to be searched (Memorizing Transformers, arXiv 2203.08913).

    Parameters
    ----------
    capacity : int, optional
        Pairs to keep; the oldest leave. Default: all.

    Attributes
    ----------
    keys, values : SegmentMemory
        Their `rows` are what `knn_attention` takes as `memory_k` and `memory_v`.

    Raises
    ------
    ValueError, TypeError
        If `capacity` is negative or not an int.
    """

    @takes(capacity="count")
    def __init__(self, capacity: int | None = None):
        length = 2**62 if capacity is None else capacity
        self.keys, self.values = SegmentMemory(length), SegmentMemory(length)

    @takes(k="float ... seq dim_head", v="float ... seq dim_v")
    def push(self, k: torch.Tensor, v: torch.Tensor) -> None:
        """Append keys and their values.

        Parameters
        ----------
        k : (..., seq, dim_head)
            Keys, oldest first.
        v : (..., seq, dim_v)
            Their values.

        Raises
        ------
        ValueError, TypeError
            If they do not fit each other or what stands in the memory.
        """
        self.keys.push(k)
        self.values.push(v)


@takes(q="float ... seq_q dim_head", memory_k="float ... n_mem dim_head", top_k="count", memory_mask="bool ... seq_q n_mem")
def nearest_keys(
    q: torch.Tensor, memory_k: torch.Tensor, top_k: int, memory_mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The keys with the largest scores for each query, found by looking at all of them.

    Parameters
    ----------
    q : (..., seq_q, dim_head)
        Queries.
    memory_k : (..., n_mem, dim_head)
        Keys to search.
    top_k : int
        How many to find; where the memory holds fewer, all of them.
    memory_mask : bool, broadcasts to (..., seq_q, n_mem), optional
        True where a query may attend.

    Returns
    -------
    found : (..., seq_q, min(top_k, n_mem)) int
        Places in the memory, largest score first. No gradient flows through the choice.
    visible : bool, same shape
        False where a query may see fewer keys than it was to find.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes, devices or the mask's kind do not fit, or `top_k` is negative or not an int.
    """
    scores = q.detach() @ memory_k.detach().mT               # (..., seq_q, n_mem)
    if memory_mask is not None:
        scores = scores.masked_fill(~memory_mask, -torch.inf)
    best = scores.topk(min(top_k, memory_k.shape[-2]), dim=-1)
    return best.indices, best.values > -torch.inf


@takes(q="float ... seq_q dim_head", k="float ... seq_k dim_head", v="float ... seq_k dim_v",
       memory_k="float ... n_mem dim_head", memory_v="float ... n_mem dim_v", top_k="count", gate="float ...",
       mask="bool ... seq_q seq_k", memory_mask="bool ... seq_q n_mem")
def knn_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, memory_k: torch.Tensor, memory_v: torch.Tensor, top_k: int,
    gate: torch.Tensor | None = None, mask: torch.Tensor | None = None, memory_mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attention to local keys and to the nearest keys of a memory (Memorizing Transformers, arXiv 2203.08913, Section 3).

    With a gate, two softmaxes are blended (the paper's Section 3.2); without, one softmax runs over the found
    and the local keys, which for a `top_k` that finds all is attention to everything.

    Parameters
    ----------
    q : (..., seq_q, dim_head)
        Queries.
    k, v : (..., seq_k, dim_head), (..., seq_k, dim_v)
        Local keys and values.
    memory_k, memory_v : (..., n_mem, dim_head), (..., n_mem, dim_v)
        Keys and values of the past.
    top_k : int
        Keys of the memory per query and head, all if the memory holds fewer.
    gate : (...), optional
        Share of the memory, between 0 and 1, one number per head. Where one side has no key for a query, the other
        side gets all.
    mask : bool, broadcasts to (..., seq_q, seq_k), optional
        True where a query may attend to a local key; causal models give a causal mask, aligned to the end.
    memory_mask : bool, broadcasts to (..., seq_q, n_mem), optional
        True where a query may attend to a key of the memory.

    Returns
    -------
    out : (..., seq_q, dim_v)
        Zeros, with zero gradients, for a query that may see no key.
    weights : (..., seq_q, found + seq_k)
        Of the found keys, then of the local ones. Each row sums to 1, or to 0 for a query that may see no key.
    found : (..., seq_q, min(top_k, n_mem)) int
        Which keys of the memory; weight 0 where a query may see fewer.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes, devices or a mask's kind do not fit, or `top_k` is negative or not an int.

    Notes
    -----
    Keys and values that no query may see are replaced by zeros: NaN or infinity there reaches neither a
    result nor a gradient. The search looks at every key; the paper approximates it.
    """
    mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device) if mask is None else mask
    lead = torch.broadcast_shapes(*(each.shape[:-2] for each in (q, k, v, memory_k, memory_v, mask)))
    q, mask = q.expand(*lead, *q.shape[-2:]), mask.expand(*lead, q.shape[-2], k.shape[-2])
    seen = mask.any(dim=-2).unsqueeze(-1)                    # (..., seq_k, 1): does any query see this key?
    k, v = k.masked_fill(~seen, 0), v.masked_fill(~seen, 0)
    near = q @ k.mT / q.shape[-1] ** 0.5                     # (..., seq_q, seq_k)

    found, visible = nearest_keys(q, memory_k, top_k, memory_mask)                # (..., seq_q, found)
    found_k, found_v = (
        torch.take_along_dim(each.expand(*lead, *each.shape[-2:]).unsqueeze(-3), found.unsqueeze(-1), dim=-2)
        .masked_fill(~visible.unsqueeze(-1), 0)              # (..., seq_q, found, ·): each query has rows of its own
        for each in (memory_k, memory_v)
    )
    far = (found_k @ q.unsqueeze(-1)).squeeze(-1) / q.shape[-1] ** 0.5            # (..., seq_q, found)

    if gate is None:
        weights = masked_weights(torch.cat([far, near], dim=-1), torch.cat([visible, mask], dim=-1))
    else:
        share = torch.where(visible.any(dim=-1, keepdim=True), gate[..., None, None], 0)
        share = torch.where(mask.any(dim=-1, keepdim=True), share, 1)             # (..., seq_q, 1)
        weights = torch.cat([share * masked_weights(far, visible), (1 - share) * masked_weights(near, mask)], dim=-1)
    of_found, of_local = weights.split([found.shape[-1], k.shape[-2]], dim=-1)
    return (of_found.unsqueeze(-2) @ found_v).squeeze(-2) + of_local @ v, weights, found
