"""Attention patterns as predicates: `predicate(q_idx, k_idx)` is True where a query may attend.

Indices are absolute positions in the sequence. A predicate works on Python ints, NumPy and torch index
arrays alike, because it only compares and combines them; `to_array` turns one into a boolean array
and `as_mask_mod` into what PyTorch's flex_attention takes. `both`, `either` and `negate` combine them.

PyTorch has two opposite conventions: `scaled_dot_product_attention` takes True = may attend, as here;
`nn.MultiheadAttention` takes True = ignored, which is `~mask`.
"""

import functools
import operator
import random
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = [
    "as_mask_mod",
    "bigbird",
    "both",
    "causal",
    "dilated",
    "either",
    "global_tokens",
    "negate",
    "padding",
    "sliding_window",
    "to_array",
]

Predicate = Callable
Index = Any  # an int, a NumPy array or a torch tensor of ints; of bools where it is an answer


def causal(q_idx: Index, k_idx: Index) -> Index:
    """A query sees its own position and everything before it.

    Parameters
    ----------
    q_idx, k_idx : int or array of int
        Positions; arrays broadcast.

    Returns
    -------
    bool or array of bool
    """
    return k_idx <= q_idx


def sliding_window(left: int, right: int = 0) -> Predicate:
    """A query sees `left` keys before it, itself, and `right` keys after it (Longformer, arXiv 2004.05150).

    The query's own position is not counted: a window (left, 0) holds left + 1 keys.

    Parameters
    ----------
    left, right : int
        Keys to each side, at least 0.

    Returns
    -------
    predicate

    Raises
    ------
    ValueError, TypeError
        If `left` or `right` is negative or not an int.
    """
    _at_least("sliding_window", 0, left=left, right=right)

    def predicate(q_idx, k_idx):
        return (q_idx - k_idx <= left) & (k_idx - q_idx <= right)

    return predicate


def dilated(left: int, step: int) -> Predicate:
    """A query sees itself and every `step`-th key before it, `left` of them (arXiv 2004.05150, Section 3.1).

    Parameters
    ----------
    left : int
        How many keys before the query, at least 0.
    step : int
        Distance between them, at least 1; 1 is a causal sliding window.

    Returns
    -------
    predicate

    Raises
    ------
    ValueError, TypeError
        If `left` is negative, `step` is less than 1, or one of them is not an int.
    """
    _at_least("dilated", 0, left=left)
    _at_least("dilated", 1, step=step)

    def predicate(q_idx, k_idx):
        distance = q_idx - k_idx
        return (distance >= 0) & (distance <= left * step) & (distance % step == 0)

    return predicate


def global_tokens(n: int) -> Predicate:
    """The first `n` positions see everything and are seen by everyone (arXiv 2004.05150, 2007.14062).

    Parameters
    ----------
    n : int
        How many, at least 0.

    Returns
    -------
    predicate

    Raises
    ------
    ValueError, TypeError
        If `n` is negative or not an int.
    """
    _at_least("global_tokens", 0, n=n)

    def predicate(q_idx, k_idx):
        return (q_idx < n) | (k_idx < n)

    return predicate


def bigbird(
    seq: int, block_size: int, window: int = 1, n_global: int = 1, n_random: int = 1, seed: int = 0
) -> Predicate:
    """Blocks near the query's own, the first blocks, and some chosen at random (Big Bird, arXiv 2007.14062, Section 2).

    The sequence is cut into blocks. A query sees the blocks up to `window` away on either side,
    the first `n_global` blocks (which see everything), and `n_random` blocks drawn for its block among
    all of them. The draws are with replacement and may fall on blocks it sees anyway; combine with
    `causal` for a decoder.

    Parameters
    ----------
    seq, block_size : int
        Length of the sequence and tokens per block, at least 1.
    window, n_global, n_random : int
        Numbers of blocks, at least 0.
    seed : int
        Seed of the draw, at least 0.

    Returns
    -------
    predicate

    Raises
    ------
    ValueError, TypeError
        If a count is too small or not an int.
    """
    _at_least("bigbird", 1, seq=seq, block_size=block_size)
    _at_least("bigbird", 0, window=window, n_global=n_global, n_random=n_random, seed=seed)
    blocks = -(-seq // block_size)
    rng = random.Random(int(seed))
    salts = [[int(rng.random() * 1048576) for _ in range(3)] for _ in range(n_random)]

    def predicate(q_idx, k_idx):
        q_block, k_block = q_idx // block_size, k_idx // block_size
        near = (q_block - k_block <= window) & (k_block - q_block <= window)
        allowed = near | (q_block < n_global) | (k_block < n_global)
        for draw in salts:
            allowed = allowed | (k_block == _scramble(q_block, draw) % blocks)
        return allowed

    return predicate


def padding(lengths: Index) -> Predicate:
    """Keys at or beyond a sequence's length are seen by nobody: for batches of unequal lengths.

    Parameters
    ----------
    lengths : (batch,) int array
        Number of real tokens of each sequence, at its beginning; NumPy or torch (torch for flex_attention).

    Returns
    -------
    predicate
        Its array has a batch and a heads axis: (batch, 1, ...).

    Raises
    ------
    TypeError, ValueError
        If `lengths` is not a one-dimensional array of ints.
    """
    if not hasattr(lengths, "shape"):
        raise TypeError(f"padding: lengths is of type {type(lengths).__name__}, expected an array or tensor of ints")
    if "int" not in str(lengths.dtype):
        raise TypeError(f"padding: lengths has dtype {lengths.dtype}, expected an integer dtype")
    if len(lengths.shape) != 1:
        raise ValueError(f"padding: lengths has shape {tuple(lengths.shape)}, expected (batch,)")

    def predicate(q_idx, k_idx, b_idx=None):
        own = np.array(lengths.tolist(), int) if isinstance(k_idx, np.ndarray) else lengths
        limit = own.reshape(-1, 1, 1, 1) if b_idx is None else own[b_idx]
        return k_idx < limit

    predicate.per_batch = True
    return predicate


def both(*predicates: Predicate) -> Predicate:
    """A query attends where every one of the predicates allows it.

    Parameters
    ----------
    *predicates : predicate
        At least one.

    Returns
    -------
    predicate
    """
    return _combine("both", operator.and_, predicates)


def either(*predicates: Predicate) -> Predicate:
    """A query attends where at least one of the predicates allows it.

    Parameters
    ----------
    *predicates : predicate
        At least one.

    Returns
    -------
    predicate
    """
    return _combine("either", operator.or_, predicates)


def negate(predicate: Predicate) -> Predicate:
    """A query attends where the predicate forbids it.

    Parameters
    ----------
    predicate : predicate

    Returns
    -------
    predicate
    """
    return _combine("negate", lambda allowed, everywhere: allowed ^ everywhere, (predicate, lambda q, k: q == q))


def to_array(predicate: Predicate, seq_q: int, seq_k: int | None = None) -> np.ndarray:
    """The boolean array of a predicate, queries down, keys across.

    Where seq_q < seq_k the queries are the **last** positions: the last query stands at the last key, as
    when decoding with a cache.

    Parameters
    ----------
    predicate : predicate
    seq_q, seq_k : int
        Numbers of queries and keys, at least 0; `seq_k` defaults to `seq_q`.

    Returns
    -------
    (seq_q, seq_k) bool array
        With a batch and a heads axis in front, (batch, 1, seq_q, seq_k), if `padding` is involved.

    Raises
    ------
    ValueError, TypeError
        If a length is negative or not an int, or `predicate` is not a function.
    """
    seq_k = seq_q if seq_k is None else seq_k
    _at_least("to_array", 0, seq_q=seq_q, seq_k=seq_k)
    _check_predicates("to_array", predicate)
    q_idx = np.arange(seq_k - seq_q, seq_k)[:, None]  # (seq_q, 1), aligned to the end
    k_idx = np.arange(seq_k)[None, :]                 # (1, seq_k)
    allowed = np.asarray(predicate(q_idx, k_idx))
    return np.array(np.broadcast_to(allowed, (*allowed.shape[:-2], seq_q, seq_k)))


def as_mask_mod(predicate: Predicate, seq_q: int, seq_k: int | None = None) -> Callable:
    """A predicate as a `mask_mod` for torch.nn.attention.flex_attention (arXiv 2412.05496).

    Parameters
    ----------
    predicate : predicate
    seq_q, seq_k : int
        Numbers of queries and keys; queries are aligned to the end, as in `to_array`.

    Returns
    -------
    callable
        ``mask_mod(b, h, q_idx, kv_idx)``.
    """
    _at_least("as_mask_mod", 0, seq_q=seq_q, seq_k=seq_q if seq_k is None else seq_k)
    _check_predicates("as_mask_mod", predicate)
    offset = (seq_q if seq_k is None else seq_k) - seq_q

    def mask_mod(b, h, q_idx, kv_idx):
        return _call(predicate, q_idx + offset, kv_idx, b)

    return mask_mod


def _combine(name, operate, predicates):
    if not predicates:
        raise ValueError(f"{name}: got no predicates, expected at least one")
    _check_predicates(name, *predicates)

    def predicate(q_idx, k_idx, b_idx=None):
        return functools.reduce(operate, (_call(each, q_idx, k_idx, b_idx) for each in predicates))

    predicate.per_batch = any(getattr(each, "per_batch", False) for each in predicates)
    return predicate


def _call(predicate, q_idx, k_idx, b_idx):
    if getattr(predicate, "per_batch", False):
        return predicate(q_idx, k_idx, b_idx)
    return predicate(q_idx, k_idx)


def _scramble(number, salts):
    """A fixed pseudo-random number below 2**20 for each number, given three salts; ints or index arrays alike."""
    state = number % 1048576
    for factor, salt in zip((1597, 2039, 1861), salts, strict=True):  # mix the upper half in, multiply, add
        state = ((state ^ (state >> 9)) * factor + salt) % 1048576    # stays within 31 bits
    return state ^ (state >> 9)


def _check_predicates(where, *predicates):
    for predicate in predicates:
        if not callable(predicate):
            raise TypeError(f"{where}: predicate is of type {type(predicate).__name__}, expected a function of (q_idx, k_idx)")


def _at_least(where, least, **numbers):
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | np.integer):
            raise TypeError(f"{where}: {name} is of type {type(number).__name__}, expected an int")
        if number < least:
            raise ValueError(f"{where}: {name} is {number}, expected at least {least}")
