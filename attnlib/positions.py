"""Telling attention where a token stands: sinusoids, rotary positions (RoPE), linear biases (ALiBi). NumPy."""

import numpy as np

from attnlib._shapes import takes

__all__ = ["alibi_bias", "alibi_slopes", "apply_rope", "position_angles", "sinusoids"]


@takes(positions="... seq", dim="even", base="above 0")
def position_angles(positions: np.ndarray, dim: int, base: float = 10000.0) -> np.ndarray:
    """Angle in radians of each pair of columns at each position, position · base^(-2i / dim).

    The speeds of arXiv 1706.03762, Section 3.5, also used by RoPE (arXiv 2104.09864, Eq. 15).

    Parameters
    ----------
    positions : (..., seq)
        Positions; any numbers.
    dim : int
        Width, even: there are dim / 2 pairs, i = 0 to dim / 2 - 1.
    base : float
        The slowest pair turns almost `base` times slower than the fastest, which turns 1 radian per position.

    Returns
    -------
    (..., seq, dim / 2)

    Raises
    ------
    ValueError, TypeError
        If `dim` is odd or not an int, or `base` is not a positive number.
    """
    speeds = base ** (-np.arange(0, dim, 2) / dim)           # (dim / 2,), radians per position
    return positions[..., None] * speeds                     # (..., seq, dim / 2)


@takes(seq="count", dim="even")
def sinusoids(seq: int, dim: int) -> np.ndarray:
    """Sine and cosine position vectors, added to the token vectors (arXiv 1706.03762, Section 3.5).

    Columns 2i and 2i + 1 hold the sine and the cosine of ``position / 10000**(2i / dim)``: wavelengths
    from 2π up to almost 2π · 10000 positions.

    Parameters
    ----------
    seq : int
        Number of positions.
    dim : int
        Width, even.

    Returns
    -------
    (seq, dim)

    Raises
    ------
    ValueError, TypeError
        If `dim` is odd, a size is negative, or one of them is not an int.
    """
    angles = position_angles(np.arange(seq), dim)            # (seq, dim / 2)
    vectors = np.empty((seq, dim))
    vectors[:, 0::2] = np.sin(angles)
    vectors[:, 1::2] = np.cos(angles)
    return vectors


@takes(x="float ... seq dim", positions="... seq", dim="even", base="above 0")
def apply_rope(x: np.ndarray, positions: np.ndarray, base: float = 10000.0, interleaved: bool = False) -> np.ndarray:
    """Turn each pair of columns by an angle proportional to the position (RoPE, arXiv 2104.09864, Eq. 34).

    Applied to queries and keys, it makes their dot product depend on positions only through the difference.
    The two layouts pair columns differently: i with i + dim/2 (half-split; LLaMA as stored by Hugging
    Face, GPT-NeoX) or 2i with 2i + 1 (interleaved; the paper, GPT-J). They are the same idea on
    permuted columns and are not interchangeable with trained weights.

    Parameters
    ----------
    x : (..., seq, dim)
        Queries or keys, one head each; `dim` even.
    positions : (..., seq)
        Position of each row.
    base : float
        See `position_angles`.
    interleaved : bool
        Which columns form a pair.

    Returns
    -------
    (..., seq, dim)
        In the dtype of `x`; lengths of rows are unchanged.

    Raises
    ------
    ValueError, TypeError
        If `dim` is odd, the number of positions is not that of the rows, or `base` is not a positive number.
    """
    angles = position_angles(positions, x.shape[-1], base)   # (..., seq, dim / 2)
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
    half = x.shape[-1] // 2
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    turned = a * cos - b * sin, a * sin + b * cos            # two of (..., seq, dim / 2)
    if interleaved:
        return np.stack(turned, axis=-1).reshape(*turned[0].shape[:-1], 2 * half)
    return np.concatenate(turned, axis=-1)


@takes(heads="positive")
def alibi_slopes(heads: int) -> np.ndarray:
    """How strongly each head penalises distance (ALiBi, arXiv 2108.12409, Section 3).

    For a power of two, 2^(-8/heads), 2^(-16/heads), …, 2^(-8). Otherwise the slopes of the power of two
    below, then every other slope of the one above, as in the authors' code.

    Parameters
    ----------
    heads : int
        At least 1.

    Returns
    -------
    (heads,)
        Score lost per position of distance.

    Raises
    ------
    ValueError, TypeError
        If `heads` is less than 1 or not an int.
    """
    power = 2 ** (int(heads).bit_length() - 1)               # the largest power of two not above heads
    slopes = 2.0 ** (-8 / power * np.arange(1, power + 1))
    extra = 2.0 ** (-4 / power * np.arange(1, 2 * power, 2))  # every other slope for twice as many heads
    return np.concatenate([slopes, extra[: heads - power]])


@takes(heads="positive", seq_q="count", seq_k="count")
def alibi_bias(heads: int, seq_q: int, seq_k: int | None = None) -> np.ndarray:
    """Biases added to the scaled scores, -slope · distance (ALiBi, arXiv 2108.12409, Section 3).

    The paper is causal, where the distance is query minus key; keys after the query get the same
    penalty by absolute distance here, and a causal mask removes them.

    Parameters
    ----------
    heads : int
        At least 1.
    seq_q, seq_k : int
        Numbers of queries and keys; queries are the last positions. `seq_k` defaults to `seq_q`.

    Returns
    -------
    (heads, seq_q, seq_k)
        Zero where query and key stand at the same position, negative elsewhere.

    Raises
    ------
    ValueError, TypeError
        If `heads` is less than 1, a length is negative, or one of them is not an int.
    """
    seq_k = seq_q if seq_k is None else seq_k
    q_idx = np.arange(seq_k - seq_q, seq_k)[:, None]         # (seq_q, 1), aligned to the end
    nearness = -np.abs(q_idx - np.arange(seq_k))             # (seq_q, seq_k), 0 at the query's own position
    return alibi_slopes(heads)[:, None, None] * nearness     # (heads, seq_q, seq_k)
