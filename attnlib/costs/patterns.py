"""How many scores a pattern computes in one head: the `pairs` of `attention_cost`.

The functions for windows, spans and streams count the pairs that are allowed, as a predicate of `attnlib.masks` does: the
least that any code can compute. Code that works in blocks computes whole blocks: `block_pairs`, `causal_pairs` with a size
of tiles, `shifted_window_pairs` and `two_level_pairs`.
"""

from attnlib.costs._counts import counts

__all__ = ["adaptive_span_pairs", "block_pairs", "causal_pairs", "dilated_pairs", "global_window_pairs", "shifted_window_pairs",
           "streaming_pairs", "two_level_pairs", "window_pairs"]


@counts("block_q", "block_k")
def causal_pairs(seq_q: int, seq_k: int | None = None, block_q: int = 1, block_k: int = 1) -> int:
    """Scores of causal attention, aligned to the end, if tiles that are wholly masked are skipped.

    Parameters
    ----------
    seq_q, seq_k : int
        Numbers of queries and keys; `seq_k` defaults to `seq_q`.
    block_q, block_k : int
        Size of a tile; 1 and 1: every masked score is skipped. Tiles start at the first query and at the first key.

    Returns
    -------
    int
        For n queries and keys n(n + 1)/2, about half of n²; with tiles, everything in the tiles that hold an allowed pair.

    Raises
    ------
    ValueError, TypeError
        If a size is negative, or less than 1 for a tile, or not an int.
    """
    seq_k, pairs = (seq_q if seq_k is None else seq_k), 0
    if block_q == block_k == 1:
        return _up_to(0, seq_q, seq_k)
    for first in range(0, seq_q, block_q):
        rows = min(block_q, seq_q - first)
        seen = max(0, first + rows + seq_k - seq_q)                             # keys that the last of these rows sees
        pairs += rows * min(seq_k, -(-seen // block_k) * block_k)
    return pairs


def _up_to(ahead, seq_q, seq_k):
    """Pairs in which the key stands at most `ahead` positions after the query: a staircase, cut off at both ends."""

    def steps(n):
        return n * (n + 1) // 2 if n > 0 else 0                                 # 1 + 2 + ... + n

    most, least = seq_k + ahead, seq_k - seq_q + ahead                          # keys of the last query, of one before the first
    return steps(most) - steps(least) - steps(most - seq_k) + steps(least - seq_k)


@counts()
def window_pairs(seq_q: int, seq_k: int, left: int, right: int = 0) -> int:
    """Scores of a sliding window: `left` keys before a query, itself, `right` after it (arXiv 2004.05150).

    Parameters
    ----------
    seq_q, seq_k : int
        Numbers of queries and keys, aligned to the end.
    left, right : int
        Keys to each side; the query's own position is not counted.

    Returns
    -------
    int
        n(left + 1 + right), less what sticks out at the two ends.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int.
    """
    return _up_to(right, seq_q, seq_k) - _up_to(-left - 1, seq_q, seq_k)


@counts("step")
def dilated_pairs(seq_q: int, seq_k: int, left: int, step: int) -> int:
    """Scores of a dilated causal window: itself and every `step`-th key before, `left` of them (arXiv 2004.05150).

    Parameters
    ----------
    seq_q, seq_k : int
        Numbers of queries and keys, aligned to the end.
    left, step : int
        How many keys before the query, and the distance between them.

    Returns
    -------
    int

    Raises
    ------
    ValueError, TypeError
        If a size is negative, `step` is less than 1, or one is not an int.
    """
    return sum(max(0, min(seq_q, seq_k - back * step)) for back in range(left + 1))


@counts()
def global_window_pairs(seq: int, n_global: int, left: int, right: int = 0) -> int:
    """Scores of a window with global tokens: the first `n_global` positions see and are seen by all (arXiv 2004.05150).

    Parameters
    ----------
    seq : int
        Tokens.
    n_global : int
        How many are global.
    left, right : int
        The window of the others.

    Returns
    -------
    int
        n² less the pairs of two local tokens outside each other's window.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int.
    """
    local = max(0, seq - n_global)
    return seq * seq - local * local + window_pairs(local, local, left, right)


@counts("block_q", "block_k")
def block_pairs(blocks: int, block_q: int, block_k: int | None = None) -> int:
    """Scores computed by block-sparse attention, from the number of blocks it does not skip.

    Parameters
    ----------
    blocks : int
        Blocks computed in one head. For top-k blocks, k for each block of queries; for Big Bird (arXiv 2007.14062), with
        b blocks, g global, windows of w to each side and r random ones, at most b(2w + 1 + 2g + r).
    block_q, block_k : int
        Queries and keys in a block; `block_k` defaults to `block_q`.

    Returns
    -------
    int
        blocks · block_q · block_k, masked pairs inside included.

    Raises
    ------
    ValueError, TypeError
        If a size is negative, a block empty, or one not an int.
    """
    return blocks * block_q * (block_q if block_k is None else block_k)


@counts("window")
def shifted_window_pairs(sides: list[int], window: int) -> int:
    """Scores of attention in local windows of a line, an image or a volume (Swin, arXiv 2103.14030, Eq. 2).

    Parameters
    ----------
    sides : list of int
        Lengths of the axes, in tokens; each is padded to a multiple of `window`.
    window : int
        Tokens along each side of a window; shifting the windows changes no count.

    Returns
    -------
    int
        For an h × w image in windows of M × M, hwM².

    Raises
    ------
    ValueError, TypeError
        If a size is negative, `window` is less than 1, or one is not an int.
    """
    pairs = 1
    for side in sides:
        pairs *= -(-side // window) * window * window                           # windows, times queries, times keys
    return pairs


@counts("block")
def two_level_pairs(seq: int, near: int, block: int, *, causal: bool = False) -> int:
    """Scores of two-level attention: the tokens of blocks near by one by one, and a summary of each block.

    Counted is what an implementation in blocks computes, as `attnlib.hierarchy.two_level_attention` does: neighbours beyond the
    ends and summaries of blocks near by are computed and masked.

    Parameters
    ----------
    seq : int
        Tokens; the last block is filled up.
    near : int
        Blocks on each side, beside its own, whose tokens a query meets one by one.
    block : int
        Tokens in a block.
    causal : bool
        Whether blocks near by lie on one side only.

    Returns
    -------
    int
        n((2 · near + 1)b + n/b) for whole blocks: least, 2n√((2 · near + 1)n), for blocks of √(n / (2 · near + 1)).

    Raises
    ------
    ValueError, TypeError
        If a size is negative, `block` is less than 1, or one is not an int.
    """
    blocks, neighbours = -(-seq // block), near + 1 + near * (not causal)
    return blocks * block * (neighbours * block + blocks)


@counts()
def adaptive_span_pairs(seq: int, spans: list[int]) -> int:
    """Scores of causal heads with spans of their own, all heads together (arXiv 1905.07799).

    Parameters
    ----------
    seq : int
        Tokens.
    spans : list of int
        For each head, how many keys before the query it reaches: its learned span, rounded up, with its soft ramp.

    Returns
    -------
    int
        The sum over heads: pass it as `pairs` with heads=1.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int.
    """
    return sum(window_pairs(seq, seq, span) for span in spans)


@counts()
def streaming_pairs(seq: int, sinks: int, window: int) -> int:
    """Scores of generating with a streaming cache: the first tokens and the most recent (arXiv 2309.17453).

    Parameters
    ----------
    seq : int
        Tokens generated, one by one.
    sinks, window : int
        First tokens that are kept for ever, and recent tokens kept, the query's own included.

    Returns
    -------
    int
        A query meets all tokens so far, sinks + window at most.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int.
    """
    full = min(seq, sinks + window)
    return full * (full + 1) // 2 + (seq - full) * (sinks + window)
