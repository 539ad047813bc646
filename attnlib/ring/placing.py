"""Which stretches of the sequence a rank holds, and which of them meet."""

import torch

from attnlib.ring._checks import after, check_all_pieces, check_pieces


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
