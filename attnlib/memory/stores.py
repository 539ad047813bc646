"""What a memory keeps of the segments that were read: rows, oldest first, without gradient."""

import functools

import torch

from attnlib._shapes import takes

__all__ = ["CompressiveMemory", "NearestMemory", "SegmentMemory", "SinkMemory", "compress"]


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
        See `compress`. No gradient reaches it through the memory: train it by a loss of its own on `compress`.

    Raises
    ------
    ValueError, TypeError
        If a size is too small or not an int.
    """

    @takes(length="count", slots="count", rate="positive")
    def __init__(self, length: int, slots: int, rate: int, kernel: torch.Tensor | None = None):
        self.recent = SegmentMemory(length, step=rate)
        self.old = SegmentMemory(slots)
        self.rate, self.kernel = rate, kernel

    @property
    def rows(self) -> torch.Tensor | None:
        """What the memory holds, compressed rows, then the others, oldest first.

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
        self.sinks, self.first = sinks, None
        self.recent = SegmentMemory(length)

    @property
    def rows(self) -> torch.Tensor | None:
        """What the memory holds, the first rows, then the last.

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
