"""Attention shared among devices: what each of them computes, step by step, and what it sends."""

from attnlib.costs._counts import counts

__all__ = ["ring_bytes", "ring_steps", "ulysses_bytes"]


@counts("ranks")
def ring_steps(seq: int, ranks: int, *, zigzag: bool = True) -> list[list[int]]:
    """Scores that each rank of a ring computes in each step of causal attention, in one head (arXiv 2310.01889).

    Parameters
    ----------
    seq : int
        Tokens in all, a multiple of `ranks`, with `zigzag` of 2 · ranks.
    ranks : int
        Devices.
    zigzag : bool
        Whether a rank holds one stretch from the front and one from the end (arXiv 2407.21783, Section 3.3.2), or one
        stretch in order.

    Returns
    -------
    list of list of int
        One list a step, one number a rank. In step s rank r has the keys of rank r - s. A step lasts as long as its
        busiest rank, if ranks wait for each other.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int, `ranks` is less than 1, or the length does not divide.
    """
    cuts = 2 * ranks if zigzag else ranks
    if seq % cuts:
        raise ValueError(f"ring_steps: seq is {seq}, expected a multiple of {cuts} for {ranks} ranks")
    size = seq // cuts

    def pairs(rank, owner):
        mine, theirs = ([each, cuts - 1 - each] if zigzag else [each] for each in (rank, owner))
        met = [(a, b) for a in mine for b in theirs if b <= a]
        return sum(size * (size + 1) // 2 if a == b else size * size for a, b in met)

    return [[pairs(rank, (rank - step) % ranks) for rank in range(ranks)] for step in range(ranks)]


@counts("ranks")
def ring_bytes(
    ranks: int, kv_heads: int, seq: int, dim_head: int, dim_v: int | None = None, *, batch: int = 1,
    bytes_per_number: int = 2, bytes_per_gradient: int = 4,
) -> tuple[int, int]:
    """Bytes that each rank sends for one layer of ring attention, forward and backward (arXiv 2310.01889).

    Parameters
    ----------
    ranks : int
        Devices.
    kv_heads, seq, dim_head, dim_v : int
        Sizes of keys and values; `seq` tokens in all, a multiple of `ranks`; `dim_v` defaults to `dim_head`.
    batch : int
        Sequences.
    bytes_per_number, bytes_per_gradient : int
        Of keys and values: 2 for float16 and bfloat16. Of their gradients, which are summed on the way: 4.

    Returns
    -------
    forward, backward : int
        (ranks - 1) times its keys and values; and again, with their gradients. As many as an all-gather, and for the
        gradients a reduce-scatter, would send. Queries, results and the number of query heads do not matter.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int, `ranks` is less than 1, or the length does not divide.
    """
    if seq % ranks:
        raise ValueError(f"ring_bytes: seq is {seq}, expected a multiple of ranks = {ranks}")
    numbers = (ranks - 1) * batch * kv_heads * (seq // ranks) * (dim_head + (dim_head if dim_v is None else dim_v))
    return numbers * bytes_per_number, numbers * (bytes_per_number + bytes_per_gradient)


@counts("ranks")
def ulysses_bytes(
    ranks: int, heads: int, seq: int, dim_head: int, kv_heads: int | None = None, dim_v: int | None = None, *, batch: int = 1,
    bytes_per_number: int = 2,
) -> tuple[int, int]:
    """Bytes that each rank sends if the axis that is shared changes from tokens to heads and back (arXiv 2309.14509, Section 3.2).

    Parameters
    ----------
    ranks : int
        Devices, a divisor of the heads and of the key/value heads.
    heads, seq, dim_head, kv_heads, dim_v : int
        Sizes; `seq` tokens in all, a multiple of `ranks`; `kv_heads` defaults to `heads`, `dim_v` to `dim_head`.
    batch : int
        Sequences.
    bytes_per_number : int
        2 for float16 and bfloat16.

    Returns
    -------
    forward, backward : int
        An all-to-all of queries, keys, values and results: of its share each rank keeps one part in `ranks` and sends the
        others. Backward the same for their gradients.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int, `ranks` is less than 1, or something does not divide.
    """
    kv_heads, dim_v = heads if kv_heads is None else kv_heads, dim_head if dim_v is None else dim_v
    for name, size in (("heads", heads), ("kv_heads", kv_heads), ("seq", seq)):
        if size % ranks:
            raise ValueError(f"ulysses_bytes: {name} is {size}, expected a multiple of ranks = {ranks}")
    numbers = batch * (seq // ranks) * (heads + kv_heads) * (dim_head + dim_v)
    sent = numbers // ranks * (ranks - 1) * bytes_per_number
    return sent, sent
