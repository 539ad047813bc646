"""Attention near by in full and far away in outline: shifted local windows with merging, and two levels in one softmax.

The windows work on grids of any number of axes: a line of tokens, an image, a volume. An array on a grid is
``(..., *grid, dim)``, and what belongs to the grid (`window`, `shift`) is a tuple with one int for each of its axes.
"""

import functools
import inspect
import math

import torch
from torch import nn
from torch.nn import functional as F

from attnlib._shapes import takes

__all__ = [
    "PatchMerging",
    "ShiftedWindowAttention",
    "block_means",
    "relative_position_index",
    "shift_mask",
    "shifted_window_attention",
    "two_level_attention",
    "two_level_mask",
    "window_merge",
    "window_partition",
]


def _axes(*on_grid, divided=False, **least):
    """Check tuples of ints, one for each axis of a grid, and that the arrays named `on_grid` lie on one grid."""
    def decorate(function):
        signature, where = inspect.signature(function), function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def checked(*args, **kwargs):
            given = signature.bind(*args, **kwargs).arguments
            sizes = {name: given[name] for name in least if given.get(name) is not None}
            for name, size in sizes.items():
                if not isinstance(size, tuple) or any(isinstance(n, bool) or not isinstance(n, int) for n in size):
                    raise TypeError(f"{where}: {name} is {size!r}, expected a tuple of ints, one for each axis of the grid")
                if not size or min(size) < least[name] or len(size) != len(sizes["window"]):
                    raise ValueError(f"{where}: {name} is {size}, expected ints from {least[name]}, as many as in window")
            window = sizes["window"]
            if any(s >= m for s, m in zip(sizes.get("shift", ()), window, strict=False)):
                raise ValueError(f"{where}: shift is {sizes['shift']}, expected less than window = {window}")
            grids = [given[name].shape[-1 - len(window):-1] for name in on_grid]
            for name, grid in zip(on_grid, grids, strict=True):
                shape = tuple(given[name].shape)
                if len(shape) <= len(window) or grid != grids[0]:
                    raise ValueError(f"{where}: {name} has shape {shape}, expected (..., *grid, width) with the grid of {on_grid[0]}")
                if divided and any(n % m for n, m in zip(grid, window, strict=True)):
                    raise ValueError(f"{where}: window is {window}, expected divisors of the grid {tuple(grid)}: pad first")
            bias, tokens = given.get("bias"), math.prod(window)
            if bias is not None and bias.shape[-1] != tokens:
                raise ValueError(f"{where}: bias has shape {tuple(bias.shape)}, expected (heads, {tokens}, {tokens})")
            return function(*args, **kwargs)

        return checked

    return decorate


@takes(x="... width")
@_axes("x", window=1, divided=True)
def window_partition(x: torch.Tensor, window: tuple[int, ...]) -> torch.Tensor:
    """Cut a grid into windows (Swin, arXiv 2103.14030, Section 3.2).

    Parameters
    ----------
    x : (..., *grid, dim)
        Vectors on a grid.
    window : tuple of int
        Size of a window along each axis; divides the grid.

    Returns
    -------
    (..., windows, tokens, dim)
        Windows, and the tokens within each, in the order in which the grid is stored: the last axis runs fastest.

    Raises
    ------
    ValueError, TypeError
        If `window` does not fit or divide the grid.
    """
    lead = x.dim() - 1 - len(window)
    for axis, size in enumerate(window, start=lead):
        x = x.unfold(axis, size, size)                       # (..., *counts, dim, *window) in the end
    x = x.flatten(lead, lead + len(window) - 1)              # (..., windows, dim, *window)
    return x.flatten(lead + 2).mT                            # (..., windows, tokens, dim)


@takes(windows="... windows tokens width")
@_axes(window=1, grid=0)
def window_merge(windows: torch.Tensor, window: tuple[int, ...], grid: tuple[int, ...]) -> torch.Tensor:
    """Put windows back in their places: the inverse of `window_partition`.

    Parameters
    ----------
    windows : (..., windows, tokens, dim)
        As `window_partition` returns them.
    window, grid : tuple of int
        Sizes of a window and of the grid.

    Returns
    -------
    (..., *grid, dim)

    Raises
    ------
    ValueError, TypeError
        If the number of windows or of tokens does not fit.
    """
    counts = [size // m for size, m in zip(grid, window, strict=True)]
    _check_windows(windows, window, grid, counts)
    lead = windows.dim() - 3
    x = windows.reshape(*windows.shape[:lead], *counts, *window, windows.shape[-1])
    pairs = [lead + axis + part for axis in range(len(window)) for part in (0, len(window))]
    x = x.permute(*range(lead), *pairs, -1)                  # (..., count, size, count, size, dim) for two axes
    return x.reshape(*windows.shape[:lead], *grid, windows.shape[-1])


def _check_windows(windows, window, grid, counts):
    expected = math.prod(counts), math.prod(window)
    if windows.shape[-3:-1] != expected or any(size % m for size, m in zip(grid, window, strict=True)):
        raise ValueError(f"window_merge: windows has shape {tuple(windows.shape)}, expected (..., {expected[0]}, {expected[1]}, dim) "
                         f"for a grid {grid} that windows {window} divide")


@_axes(window=1, shift=0, grid=0)
def shift_mask(grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]) -> torch.Tensor:
    """Who may attend to whom within the windows of a grid rolled by `shift` (arXiv 2103.14030, Figure 4).

    Parameters
    ----------
    grid, window, shift : tuple of int
        Sizes of the grid and of a window, and how far the windows are shifted along each axis. The grid is padded at
        its ends to a multiple of the window.

    Returns
    -------
    (windows, tokens, tokens) bool
        True for two tokens that the unrolled grid has in one window too; padding sees only itself.

    Raises
    ------
    ValueError, TypeError
        If the sizes do not fit each other.
    """
    labels = []
    for size, m, s in zip(grid, window, shift, strict=True):
        at = torch.arange(size + -size % m)                  # positions along this axis, padded
        labels.append(torch.where(at < size, (at - s) // m, -2))  # -1 before the first cut, -2 for padding
    regions = torch.stack(torch.meshgrid(*labels, indexing="ij"), dim=-1)        # (*grid, axes)
    regions = torch.roll(regions, [-s for s in shift], dims=list(range(len(shift))))
    regions = window_partition(regions, window)              # (windows, tokens, axes)
    return (regions[:, :, None] == regions[:, None]).all(dim=-1)


@_axes(window=1)
def relative_position_index(window: tuple[int, ...]) -> torch.Tensor:
    """Where each pair of tokens of a window finds its bias in a table of all offsets (arXiv 2103.14030, Eq. 4).

    Parameters
    ----------
    window : tuple of int
        Size of a window along each axis.

    Returns
    -------
    (tokens, tokens) int
        From 0 to (2m - 1)(2n - 1) - 1 for a window m × n; equal for pairs with the same offset, query minus key.

    Raises
    ------
    ValueError, TypeError
        If `window` is not a tuple of positive ints.
    """
    index = 0
    for m, at in zip(window, torch.meshgrid(*map(torch.arange, window), indexing="ij"), strict=True):
        offset = at.reshape(-1, 1) - at.reshape(1, -1)       # (tokens, tokens), from 1 - m to m - 1
        index = index * (2 * m - 1) + offset + m - 1
    return index


@takes(q="float ... dim_head", k="float ... dim_head", v="float ... dim_v")
@takes(bias="float ... tokens tokens")
@_axes("q", "k", "v", window=1, shift=0)
def shifted_window_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: tuple[int, ...], shift: tuple[int, ...],
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention within windows that are shifted against the grid (Swin, arXiv 2103.14030, Section 3.2), differentiable.

    Parameters
    ----------
    q, k : (..., heads, *grid, dim_head)
        Queries and keys, on one grid of any size: it is padded, and the padding is seen by nobody.
    v : (..., heads, *grid, dim_v)
        Values.
    window, shift : tuple of int
        Size of a window, and how far the cuts between windows are moved, along each axis.
    bias : (heads, tokens, tokens), optional
        Added to the scaled scores of every window (Eq. 4): `table[:, relative_position_index(window)]`.

    Returns
    -------
    (..., heads, *grid, dim_v)
        Not causal. Every token sees at least itself.

    Raises
    ------
    ValueError, TypeError
        If shapes, sizes, dtypes or devices do not fit.

    Notes
    -----
    Scores for an h × w grid in windows of M × M: hwM². The windows are rolled into place so that all have one shape.
    NaN or infinity in a key or value reaches the queries that share its window after rolling, and no other.
    """
    grid = q.shape[-1 - len(window):-1]
    axes = list(range(-1 - len(window), -1))
    pad = [end for size, m in zip(grid, window, strict=True) for end in (-size % m, 0)][::-1]
    back = [-s for s in shift]
    q, k, v = (window_partition(torch.roll(F.pad(x, (0, 0, *pad)), back, axes), window) for x in (q, k, v))
    scores = q @ k.mT / q.shape[-1] ** 0.5                   # (..., heads, windows, tokens, tokens)
    scores = scores if bias is None else scores + bias.unsqueeze(-3)
    mask = shift_mask(tuple(grid), window, shift).to(q.device)
    weights = torch.softmax(scores.masked_fill(~mask, -torch.inf), dim=-1)
    padded = tuple(size + -size % m for size, m in zip(grid, window, strict=True))
    out = torch.roll(window_merge(weights @ v, window, padded), shift, axes)
    return out[(..., *map(slice, grid), slice(None))]        # (..., heads, *grid, dim_v)


class ShiftedWindowAttention(nn.Module):
    """The attention of a Swin block: projections, windows, and a learned bias for each offset (arXiv 2103.14030).

    Parameters
    ----------
    dim, heads : int
        Width of the model, and heads; `heads` divides `dim`.
    window : tuple of int
        Size of a window along each axis of the grid.
    shift : tuple of int, optional
        How far the windows are shifted; default not at all. Swin alternates 0 and half a window from layer to layer.

    Raises
    ------
    ValueError, TypeError
        If the sizes do not fit each other.
    """

    @takes(dim="positive", heads="divides dim")
    @_axes(window=1, shift=0)
    def __init__(self, dim: int, heads: int, window: tuple[int, ...], shift: tuple[int, ...] | None = None):
        super().__init__()
        self.heads, self.window, self.shift = heads, window, (0,) * len(window) if shift is None else shift
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(dim, dim) for _ in range(4))
        self.table = nn.Parameter(torch.empty(heads, math.prod(2 * m - 1 for m in window)))
        nn.init.trunc_normal_(self.table, std=0.02)

    @takes(**{"self.to_q.weight": "float width dim"}, x="float ... dim")
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend within windows.

        Parameters
        ----------
        x : (..., *grid, dim)
            Token vectors on a grid of any size.

        Returns
        -------
        (..., *grid, dim)

        Raises
        ------
        ValueError, TypeError
            If shapes, dtypes or devices do not fit.
        """
        front = -2 - len(self.window)                        # where the axis of heads goes: before the grid
        q, k, v = (to(x).unflatten(-1, (self.heads, -1)).movedim(-2, front) for to in (self.to_q, self.to_k, self.to_v))
        bias = self.table[:, relative_position_index(self.window)]  # (heads, tokens, tokens)
        out = shifted_window_attention(q, k, v, self.window, self.shift, bias)
        return self.to_out(out.movedim(front, -2).flatten(-2))


class PatchMerging(nn.Module):
    """One token for every two along each axis: neighbours side by side, normalised, and projected (arXiv 2103.14030, Section 3.1).

    Parameters
    ----------
    dim : int
        Width before; twice as wide after.
    axes : int
        Of the grid: 1 for a line, 2 for an image.

    Raises
    ------
    ValueError, TypeError
        If a size is not a positive int.

    Notes
    -----
    Neighbours stand in the order of the grid. Swin's own code takes an image's columns first: the same layer with the
    middle two of the four blocks of the weights exchanged.
    """

    @takes(dim="positive", axes="positive")
    def __init__(self, dim: int, axes: int = 2):
        super().__init__()
        self.axes, self.norm = axes, nn.LayerNorm(2**axes * dim)
        self.reduce = nn.Linear(2**axes * dim, 2 * dim, bias=False)

    @takes(**{"self.reduce.weight": "float width wide"}, x="float ... dim")
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Merge neighbours.

        Parameters
        ----------
        x : (..., *grid, dim)
            Zeros are added at the end of an axis of odd length, as Swin does.

        Returns
        -------
        (..., *half the grid, rounded up, 2·dim)

        Raises
        ------
        ValueError, TypeError
            If shapes, dtypes or devices do not fit.
        """
        grid = x.shape[-1 - self.axes:-1]
        pad = [end for size in grid for end in (size % 2, 0)][::-1]
        cells = window_partition(F.pad(x, (0, 0, *pad)), (2,) * self.axes).flatten(-2)  # (..., windows, 2^axes·dim)
        half = [-(-size // 2) for size in grid]
        return self.reduce(self.norm(cells)).unflatten(-2, half)


@takes(x="float ... seq width", block_size="positive")
def block_means(x: torch.Tensor, block_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One summary for each block of a sequence: the mean of its vectors, and how many there are.

    Parameters
    ----------
    x : (..., seq, dim)
        Vectors.
    block_size : int
        Vectors in a block; the last block may hold fewer.

    Returns
    -------
    means : (..., blocks, dim)
    counts : (blocks,)
        `block_size`, and what is left for the last.

    Raises
    ------
    ValueError, TypeError
        If `x` is not a floating-point tensor with two axes or more, or `block_size` not a positive int.
    """
    seq = x.shape[-2]
    blocks = -(-seq // block_size)
    counts = (seq - block_size * torch.arange(blocks, device=x.device)).clamp(max=block_size)
    x = F.pad(x, (0, 0, 0, -seq % block_size)).unflatten(-2, (blocks, block_size))  # (..., blocks, block_size, dim)
    return x.sum(dim=-2) / counts[:, None], counts


@takes(rows="rows", seq_k="count", block_size="positive", near="count")
def two_level_mask(rows: torch.Tensor, seq_k: int, block_size: int, causal: bool = False, near: int = 1) -> torch.Tensor:
    """Which neighbouring tokens and which blocks' summaries the queries of a block see in `two_level_attention`.

    Parameters
    ----------
    rows : (rows,) int
        The blocks of the queries.
    seq_k : int
        Keys.
    block_size, causal, near
        As for `two_level_attention`.

    Returns
    -------
    (rows, block_size, width + blocks) bool
        First the tokens of the 2·near + 1 blocks (near + 1 if causal) around each row's own, then all blocks.

    Raises
    ------
    ValueError, TypeError
        If a size is not an int in its range or `rows` has more axes than one.
    """
    row = rows[:, None, None]
    width = (near + 1 + near * (not causal)) * block_size
    q_idx = row * block_size + torch.arange(block_size, device=rows.device)[:, None]  # (rows, block_size, 1)
    k_idx = (row - near) * block_size + torch.arange(width, device=rows.device)       # (rows, 1, width)
    block = torch.arange(-(-seq_k // block_size), device=rows.device)                 # (blocks,)
    fine = (k_idx >= 0) & (k_idx < seq_k) & ((k_idx <= q_idx) | (not causal))         # (rows, block_size, width)
    coarse = (block < row - near) | (block > row + near) & (not causal)               # (rows, 1, blocks)
    return torch.cat([each.expand(-1, block_size, -1) for each in (fine, coarse)], dim=-1)


@takes(q="float ... seq_q dim_head", k="float ... seq_k dim_head", v="float ... seq_k dim_v", block_size="positive", near="count")
def two_level_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, block_size: int, causal: bool = False, near: int = 1
) -> torch.Tensor:
    """Every token near by, one summary for each block far away, all in one softmax; differentiable.

    Parameters
    ----------
    q : (..., seq_q, dim_head)
        Queries, aligned to the end: the last query stands at the position of the last key.
    k : (..., seq_k, dim_head)
        Keys, cut into blocks from the first on.
    v : (..., seq_k, dim_v)
        Values.
    block_size : int
        Tokens in a block. With 1 this is attention, exactly.
    causal : bool
        Whether a query sees only keys up to its own position; then only whole blocks of its past are summarised.
    near : int
        Blocks on each side of the query's own (in its past, if causal) of which it sees every token.

    Returns
    -------
    (..., seq_q, dim_v)
        Zeros, with zero gradients, for a query that may see no key.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices do not fit.

    Notes
    -----
    A block's summary is the mean of its keys and the mean of its values, and log(tokens in the block) is added to its score, so
    that a block of equal keys weighs exactly what its tokens would. Fine near by and coarse far away in one softmax is the
    idea of Focal self-attention (arXiv 2107.00641), there with learned pooling; the added logarithm is that of Token Merging
    (2210.09461, Eq. 1). About seq · ((2 · near + 1) · block_size + seq / block_size) scores.
    NaN or infinity in a key or value may reach any query.
    """
    seq_q, seq_k = q.shape[-2], k.shape[-2]
    own, lead = divmod(seq_k - seq_q, block_size)            # the first query's block, and its place in that block
    rows = torch.arange(own, own + max(1, -(-(lead + seq_q) // block_size)), device=q.device)
    q = F.pad(q, (0, 0, lead, len(rows) * block_size - lead - seq_q))
    q = q.unflatten(-2, (len(rows), block_size))             # (..., rows, block_size, dim_head)

    mask = two_level_mask(rows, seq_k, block_size, causal, near)                 # (rows, block_size, width + blocks)
    width = (near + 1 + near * (not causal)) * block_size
    start = (own - near) * block_size
    ends = (0, 0, -start, start + width + (len(rows) - 1) * block_size - seq_k)  # a negative end cuts off
    fine_k, fine_v = (F.pad(x, ends).unfold(-2, width, block_size) for x in (k, v))  # (..., rows, dim, width)
    (means_k, counts), (means_v, _) = (block_means(k, block_size), block_means(v, block_size))

    scores = torch.cat([q @ fine_k, q @ means_k.unsqueeze(-3).mT], dim=-1)
    scores = scores / q.shape[-1] ** 0.5
    scores = scores + F.pad(counts.to(q.dtype).log(), (width, 0))                # a summary weighs as much as its tokens
    blind = ~mask.any(dim=-1, keepdim=True)
    scores = scores.masked_fill(~mask & ~blind, -torch.inf)
    weights = torch.softmax(scores, dim=-1).masked_fill(blind, 0)
    out = (weights[..., :width] @ fine_v.mT + weights[..., width:] @ means_v.unsqueeze(-3))
    return out.flatten(-3, -2)[..., lead:lead + seq_q, :]
