"""Generating token by token: keys and values are kept, in memory that is allocated once, and never computed again.

Token after token: project it to q, k, v; ``keys, values = cache.append(k, v)``; ``decode_attention(q, keys, values)``.
"""

import torch

from attnlib._shapes import takes

__all__ = ["KVCache", "StreamingCache", "apply_rope", "decode_attention"]


@takes(q="float ... heads seq_q dim_head", k="float ... kv_heads seq_k dim_head", v="float ... kv_heads seq_k dim_v")
def decode_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Causal attention for the newest queries; heads that share keys and values share one product (arXiv 1911.02150, Section 3).

    The query heads of a group become rows of one matrix, so that shared keys and values are read once and
    never repeated. Scores of the shape (heads, seq_q, seq_k) are formed: meant for one query or a few.

    Parameters
    ----------
    q : (..., heads, seq_q, dim_head)
        Queries of the last seq_q positions: the last query sees the last key, and with it all keys.
    k : (..., kv_heads, seq_k, dim_head)
        Keys, for instance the view that a cache returns; query head h uses key head h · kv_heads // heads.
    v : (..., kv_heads, seq_k, dim_v)
        Values.

    Returns
    -------
    (..., heads, seq_q, dim_v)
        Zeros, with zero gradients, for a query before the first key (seq_q > seq_k).

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices do not fit, or the key heads do not divide the query heads.
    """
    _check_groups("decode_attention", q, k)
    (heads, seq_q, dim_head), (kv_heads, seq_k) = q.shape[-3:], k.shape[-3:-1]
    rows = q.unflatten(-3, (kv_heads, heads // kv_heads)).flatten(-3, -2)  # (..., kv_heads, group · seq_q, dim_head)
    rows = rows / dim_head**0.5
    if seq_q == 1:                                           # the newest query sees every key
        scores = (k @ rows.mT).mT                            # (..., kv_heads, group, seq_k): rows @ k.mT, faster for few rows
        weights = torch.softmax(scores, dim=-1)
    else:
        later = torch.ones(seq_q, seq_k, dtype=torch.bool, device=q.device).triu(1 + seq_k - seq_q)
        later = later.repeat(heads // kv_heads, 1)           # (group · seq_q, seq_k): True where the key comes later
        scores = (rows @ k.mT).masked_fill(later, -torch.inf)              # (..., kv_heads, group · seq_q, seq_k)
        weights = torch.softmax(scores, dim=-1).masked_fill(later, 0)
    out = weights @ v                                        # (..., kv_heads, group · seq_q, dim_v)
    return out.unflatten(-2, (heads // kv_heads, seq_q)).flatten(-4, -3)  # (..., heads, seq_q, dim_v)


class KVCache:
    """Keys and values of the tokens so far, in memory allocated once (arXiv 2211.05102, Section 2).

    Appending a token copies one row per head, where concatenation copies everything again. Keys are kept as
    they are given: rotate them first where positions are rotary. No gradient flows into the cache.

    Parameters
    ----------
    batch, kv_heads : int
        Sequences, and key/value heads of each.
    max_seq : int
        Tokens there is room for.
    dim_head, dim_v : int
        Widths of keys and values; `dim_v` defaults to `dim_head`.
    dtype : torch.dtype
        Of keys and values.
    device : torch.device or str, optional
        Where they are kept.

    Attributes
    ----------
    length : int
        Tokens so far.

    Raises
    ------
    ValueError, TypeError
        If a size is too small or not an int.
    """

    @takes(batch="positive", kv_heads="positive", max_seq="count", dim_head="positive", dim_v="positive")
    def __init__(
        self, batch: int, kv_heads: int, max_seq: int, dim_head: int, dim_v: int | None = None,
        *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None,
    ):
        self.k = torch.empty(batch, kv_heads, max_seq, dim_head, dtype=dtype, device=device)
        self.v = torch.empty(batch, kv_heads, max_seq, dim_v or dim_head, dtype=dtype, device=device)
        self.max_seq, self.length = max_seq, 0

    @property
    def keys(self) -> torch.Tensor:
        """The keys so far, a view, valid until the cache is rewound.

        Returns
        -------
        (batch, kv_heads, length, dim_head)
        """
        return self.k[:, :, : self.length]

    @property
    def values(self) -> torch.Tensor:
        """The values so far, a view, valid until the cache is rewound.

        Returns
        -------
        (batch, kv_heads, length, dim_v)
        """
        return self.v[:, :, : self.length]

    @takes(**{"self.k": "float batch kv_heads max_seq dim_head", "self.v": "float batch kv_heads max_seq dim_v"},
           k="float batch kv_heads seq dim_head", v="float batch kv_heads seq dim_v")
    def append(self, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the keys and values of the next tokens into their places.

        Parameters
        ----------
        k : (batch, kv_heads, seq, dim_head)
            One token or several.
        v : (batch, kv_heads, seq, dim_v)
            Their values.

        Returns
        -------
        keys : (batch, kv_heads, length, dim_head)
        values : (batch, kv_heads, length, dim_v)
            Views of everything so far, the new tokens included.

        Raises
        ------
        ValueError, TypeError
            If there is no room for all of them, and then nothing is written; if a shape, dtype or device does not fit.
        """
        stop = self.length + k.shape[-2]
        if stop > self.max_seq:
            raise ValueError(f"KVCache.append: k has {k.shape[-2]} tokens, expected at most {self.max_seq - self.length}: "
                             f"{self.length} of {self.max_seq} places are taken")
        self.k[:, :, self.length : stop] = k.detach()        # in place: nothing that stands here moves
        self.v[:, :, self.length : stop] = v.detach()
        self.length = stop
        return self.keys, self.values

    @takes(length="count")
    def rewind(self, length: int = 0) -> None:
        """Forget all but the first tokens, to generate differently from there; nothing is freed.

        Parameters
        ----------
        length : int
            Tokens to keep, at most those that are there.

        Raises
        ------
        ValueError, TypeError
            If `length` is negative, more than there are, or not an int.
        """
        if length > self.length:
            raise ValueError(f"KVCache.rewind: length is {length}, expected at most {self.length}, the tokens there are")
        self.length = length


class StreamingCache:
    """The first tokens and the last ones, in constant memory (StreamingLLM, arXiv 2309.17453, Section 3.2).

    A ring: when it is full, a new token takes the place of the oldest that is no sink. Positions are counted
    *within the cache*, so they never exceed what the model was trained on; keys are therefore kept before
    rotation and rotated, all of them, at every step. One step, for a query q of the newest token::

        cache.append(k, v)
        positions = cache.positions
        keys = apply_rope(cache.keys, positions)
        out = decode_attention(apply_rope(q, positions.amax().view(1)), keys, cache.values)

    The order of the slots plays no part in that: a query that sees all keys asks only for their positions.

    Parameters
    ----------
    batch, kv_heads : int
        Sequences, and key/value heads of each.
    sinks : int
        How many of the first tokens stay for ever; the paper takes 4.
    window : int
        How many of the last tokens are kept, the newest included.
    dim_head, dim_v : int
        Widths of keys and values; `dim_v` defaults to `dim_head`.
    dtype : torch.dtype
        Of keys and values.
    device : torch.device or str, optional
        Where they are kept.

    Attributes
    ----------
    seen : int
        Tokens appended so far.

    Raises
    ------
    ValueError, TypeError
        If a size is too small or not an int.
    """

    @takes(batch="positive", kv_heads="positive", sinks="count", window="positive", dim_head="positive", dim_v="positive")
    def __init__(
        self, batch: int, kv_heads: int, sinks: int, window: int, dim_head: int, dim_v: int | None = None,
        *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None,
    ):
        self.k = torch.empty(batch, kv_heads, sinks + window, dim_head, dtype=dtype, device=device)
        self.v = torch.empty(batch, kv_heads, sinks + window, dim_v or dim_head, dtype=dtype, device=device)
        self.sinks, self.window, self.seen = sinks, window, 0

    @property
    def keys(self) -> torch.Tensor:
        """The keys, not rotated, in the order of the slots, as a view.

        Returns
        -------
        (batch, kv_heads, length, dim_head)
        """
        return self.k[:, :, : self.seen]

    @property
    def values(self) -> torch.Tensor:
        """The values, in the order of the slots, as a view.

        Returns
        -------
        (batch, kv_heads, length, dim_v)
        """
        return self.v[:, :, : self.seen]

    @property
    def positions(self) -> torch.Tensor:
        """The position of each slot's token within the cache, 0, 1, … for the sinks and then from the oldest to the newest.

        Returns
        -------
        (length,) int
        """
        slots = torch.arange(min(self.seen, self.sinks + self.window), device=self.k.device)
        age = (slots - self.seen) % self.window if self.seen > len(slots) else slots - self.sinks  # 0 for the oldest
        return torch.where(slots < self.sinks, slots, self.sinks + age)

    @takes(**{"self.k": "float batch kv_heads slots dim_head", "self.v": "float batch kv_heads slots dim_v"},
           k="float batch kv_heads seq dim_head", v="float batch kv_heads seq dim_v")
    def append(self, k: torch.Tensor, v: torch.Tensor) -> None:
        """Write the keys and values of the next tokens over those that leave.

        Parameters
        ----------
        k : (batch, kv_heads, seq, dim_head)
            One token or several, not rotated. Of more than fit, those stay that one by one would have stayed.
        v : (batch, kv_heads, seq, dim_v)
            Their values.

        Raises
        ------
        ValueError, TypeError
            If a shape, dtype or device does not fit.
        """
        token = torch.arange(self.seen, self.seen + k.shape[-2], device=k.device)  # number of each new token, from 0
        self.seen += k.shape[-2]
        stays = (token < self.sinks) | (token >= self.seen - self.window)
        slots = torch.where(token < self.sinks, token, self.sinks + (token - self.sinks) % self.window)[stays]
        self.k[:, :, slots] = k[:, :, stays].detach()
        self.v[:, :, slots] = v[:, :, stays].detach()

    def reset(self) -> None:
        """Forget everything; nothing is freed."""
        self.seen = 0


@takes(x="float ... seq dim", positions="... seq", dim="even", base="above 0")
def apply_rope(x: torch.Tensor, positions: torch.Tensor, base: float = 10000.0) -> torch.Tensor:
    """Turn column i with column i + dim/2 by an angle proportional to the position (RoPE, arXiv 2104.09864, Eq. 34).

    `attnlib.positions.apply_rope` in torch, in the half-split layout.

    Parameters
    ----------
    x : (..., seq, dim)
        Queries or keys, one head each; `dim` even.
    positions : (..., seq) int
        Position of each row.
    base : float
        Pair i turns by base^(-2i / dim) per position.

    Returns
    -------
    (..., seq, dim)
        In the dtype of `x`; lengths of rows are unchanged.

    Raises
    ------
    ValueError, TypeError
        If `dim` is odd, the number of positions is not that of the rows, or `base` is not a positive number.
    """
    half = x.shape[-1] // 2
    speeds = base ** -(torch.arange(half, dtype=torch.float64, device=x.device) / half)
    angles = positions.unsqueeze(-1) * speeds                # (..., seq, dim / 2)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def _check_groups(where, q, k):
    heads, kv_heads = q.shape[-3], k.shape[-3]
    if kv_heads < 1 or heads % kv_heads:
        raise ValueError(f"{where}: k has {kv_heads} heads, expected a positive divisor of heads = {heads}, as in q")
