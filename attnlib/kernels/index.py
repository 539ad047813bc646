"""A map of blocks as a kernel can walk it: for each row of blocks a list, and what partial blocks let through as bits."""

from typing import NamedTuple

import numpy as np
import torch

from attnlib.sparse import BlockMap


class Walk(NamedTuple):
    """The blocks of every row, one row after the other (compressed sparse rows), as int32 tensors.

    Rows are the blocks of queries of each sequence of the map, or, for the gradients of keys and values, its blocks of keys.

    Attributes
    ----------
    first : (rows + 1,)
        Where the list of a row begins; the next one's beginning is its end.
    partial : (rows,)
        Where its partial blocks begin: those before are allowed whole.
    blocks : (entries,)
        The block of the other side.
    pattern : (entries,)
        Which of the patterns a partial block has; 0 for whole ones, which need none.
    order : (rows,)
        The rows of each sequence, the longest list first.
    """

    first: torch.Tensor
    partial: torch.Tensor
    blocks: torch.Tensor
    pattern: torch.Tensor
    order: torch.Tensor


class BlockIndex(NamedTuple):
    """Both walks over one map, and the patterns of its partial blocks.

    Attributes
    ----------
    by_query, by_key : Walk
        For each block of queries its blocks of keys, and the other way round.
    bits : (patterns, block_size, ceil(block_size / 8)) uint8 tensor
        Bit j % 8 of byte j // 8 of row i: whether query i of the block may see its key j. Equal blocks share a pattern.
    """

    by_query: Walk
    by_key: Walk
    bits: torch.Tensor

    def to(self, device: torch.device | str) -> "BlockIndex":
        """The same on another device.

        Parameters
        ----------
        device : torch.device or str
            Where to.

        Returns
        -------
        BlockIndex
        """
        walks = [Walk(*(x.to(device) for x in walk)) for walk in self[:2]]
        return BlockIndex(*walks, self.bits.to(device))


def block_index(block_map: BlockMap) -> BlockIndex:
    """The lists that the kernels walk (whole and partial blocks apart, as in flex_attention, arXiv 2412.05496; here as compressed rows, with bits for the mask).

    Parameters
    ----------
    block_map : BlockMap
        From `attnlib.sparse.block_map`.

    Returns
    -------
    BlockIndex
        On the CPU.
    """
    kinds = block_map.kinds.copy()
    if block_map.seq_k % block_map.block_size:               # whole as far as it goes: bits keep out what lies behind the last key
        kinds[..., -1] = np.minimum(kinds[..., -1], 1)
    pattern, bits = _patterns(block_map, kinds)
    return BlockIndex(_walk(kinds, pattern), _walk(kinds.swapaxes(1, 2), pattern.swapaxes(1, 2)), torch.from_numpy(bits))


def _walk(kinds, pattern):
    """The `Walk` over `kinds` (sequences, rows, columns), 0 for what is left out, 1 partial, 2 whole; `pattern` alike."""
    rows = kinds.reshape(kinds.shape[0] * kinds.shape[1], kinds.shape[2])
    row, column = np.nonzero(rows)
    kind = rows[row, column]
    sort = np.lexsort((column, -kind.astype(int), row))      # by row; in it whole blocks first; in those by column
    row, column, kind = row[sort], column[sort], kind[sort]
    first = np.searchsorted(row, np.arange(len(rows) + 1))
    partial = first[:-1] + np.bincount(row[kind == 2], minlength=len(rows))
    whose = pattern.reshape(rows.shape)[row, column]
    lengths = np.diff(first).reshape(kinds.shape[:2])
    order = np.argsort(-lengths, axis=1, kind="stable")
    return Walk(*(torch.from_numpy(x.astype(np.int32)) for x in (first, partial, column, whose, order.reshape(-1))))


def _patterns(block_map, kinds):
    """(which pattern each block has, the bits of each pattern); `kinds` says which blocks are partial."""
    size, known = block_map.block_size, {}
    pattern = np.zeros(kinds.shape, np.int32)
    for sequence, block_q, block_k in np.argwhere(kinds == 1):
        seen = _seen_in_block(block_map, sequence, block_q, block_k)
        padded = np.zeros((size, size), bool)
        padded[:seen.shape[0], :seen.shape[1]] = seen
        found = np.packbits(padded, axis=1, bitorder="little").tobytes()
        pattern[sequence, block_q, block_k] = known.setdefault(found, len(known))
    bits = np.frombuffer(b"".join(known) or bytes(size * -(-size // 8)), np.uint8)
    return pattern, bits.reshape(max(1, len(known)), size, -1).copy()


def _seen_in_block(block_map, sequence, block_q, block_k):
    """Which pairs of a block there are, and may meet: bool (queries, keys), without what lies behind the ends."""
    row, kinds, size = block_map.rows[sequence][block_q], block_map.kinds[sequence, block_q], block_map.block_size
    keys = min(size, block_map.seq_k - block_k * size)
    if kinds[block_k] == 2:
        return np.ones((row.rows.stop - row.rows.start, keys), bool)
    before = int((kinds[:block_k] == 1).sum()) * size        # only the last block may be shorter
    return row.bias[:, before:before + keys].numpy() == 0
