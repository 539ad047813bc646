"""Exercise: from a map of blocks to the lists that a kernel walks."""

import numpy as np

from coursework import case, observe, wrong

TITLE = "Lists from a map"
CHAPTER = "23_block_sparse_kernel"
POINTS, EDGE_POINTS = 4, 1
RETURNS = ("first", "partial", "blocks")
PROMPT = r"""
`kinds` is a map of blocks, (blocks_q, blocks_k) ints: 0 for a block that is left out, 1 for a partial one, 2 for one that is allowed whole.
Write `block_lists(kinds)`, which returns three arrays of ints, `first`, `partial` and
`blocks`, in this order. `blocks` holds the numbers of the blocks of keys, row after row; in each row
the whole ones come first, then the partial ones, both in ascending order. `first`, with blocks_q + 1 entries, says where the list of each
row begins in `blocks`, and last where the last list ends. `partial`, with blocks_q entries, says where the partial blocks of each row begin:
where its list ends, if it has none. Rows may be empty, and so may the map.
"""


def block_lists(kinds):
    # BEGIN SOLUTION
    first, partial, blocks = [0], [], []
    for row in kinds:
        blocks.extend(np.flatnonzero(row == 2))
        partial.append(len(blocks))
        blocks.extend(np.flatnonzero(row == 1))
        first.append(len(blocks))
    return np.array(first), np.array(partial, dtype=int), np.array(blocks, dtype=int)
    # END SOLUTION


def cases(rng):
    def drawn(rows, columns):
        kinds = rng.integers(0, 3, size=(rows, columns))
        kinds[0, :3] = 1, 2, 1                               # in the first row a whole block behind a partial one
        kinds[1, -3:] = 2, 1, 2
        return kinds

    yield case("all three kinds", drawn(4, 7))
    yield case("more rows than columns", drawn(9, 5))
    causal = np.tril(np.full((6, 6), 2)) - np.eye(6, dtype=int)
    yield case("a causal map", causal)
    empty = drawn(5, 6)
    empty[2] = 0
    yield case("a row with no block in it", empty)
    yield case("only whole blocks", np.full((3, 4), 2))
    yield case("the last row is empty", np.concatenate([drawn(3, 5), np.zeros((1, 5), int)]), edge=True)
    yield case("nothing but zeros", np.zeros((3, 4), int), edge=True)
    yield case("no rows", np.zeros((0, 4), int), edge=True)


def _rows(kinds, order):
    """Lists made of what `order` says about a row: (blocks of the row, how many come before the partial ones)."""
    first, partial, blocks = [0], [], []
    for row in kinds:
        mine, whole = order(row)
        partial.append(len(blocks) + whole)
        blocks.extend(mine)
        first.append(len(blocks))
    return np.array(first), np.array(partial, int), np.array(blocks, int)


@wrong("`first` lacks its last entry, where the last list ends: the kernel reads first[row + 1], for the last row too.")
def without_the_end(kinds):
    first, partial, blocks = block_lists(kinds)
    return first[:-1], partial, blocks


@wrong("Your lists are in the order of the map. The whole blocks of a row come first, whatever their place, so that they have a loop of their own.")
def in_the_order_of_the_map(kinds):
    return _rows(kinds, lambda row: (np.flatnonzero(row), int((row == 2).sum())))


@wrong("The partial blocks come first in your lists; the whole ones should.")
def partial_first(kinds):
    def order(row):
        return np.concatenate([np.flatnonzero(row == 1), np.flatnonzero(row == 2)]), int((row == 1).sum())

    return _rows(kinds, order)


@wrong("Your `partial` counts the whole blocks of each row. It should say where in `blocks` the partial ones begin, counted from the beginning of "
       "all lists.")
def counts_within_rows(kinds):
    first, partial, blocks = block_lists(kinds)
    return first, partial - first[:-1], blocks


@wrong("Your `first` holds the lengths of the lists; where a list begins is the sum of all lengths before it.")
def lengths(kinds):
    first, partial, blocks = block_lists(kinds)
    return np.concatenate([[0], np.diff(first)]), partial, blocks


@wrong("You count the lists' ends, and the 0 in front of them is missing: the first list begins at 0.")
def without_the_zero(kinds):
    first, partial, blocks = block_lists(kinds)
    return first[1:], partial, blocks


@wrong("The lists of whole blocks of all rows come before all partial ones. Each row should have both, one after the other: a program reads one "
       "stretch.")
def whole_of_all_rows_first(kinds):
    first, partial, _ = block_lists(kinds)
    return first, partial, np.concatenate([np.nonzero(kinds == 2)[1], np.nonzero(kinds == 1)[1]])


@wrong("You made the lists of the columns: for each block of keys its blocks of queries. The backward pass needs those, too; here each row has one.")
def by_columns(kinds):
    return block_lists(kinds.T)


@wrong("Blocks that are left out (kind 0) are in your lists: the kernel would compute all of them.")
def everything(kinds):
    def order(row):
        return np.concatenate([np.flatnonzero(row == 2), np.flatnonzero(row < 2)]), int((row == 2).sum())

    return _rows(kinds, order)


@wrong("You hand in the kinds where the numbers of the blocks are asked for.")
def kinds_for_numbers(kinds):
    first, partial, _ = block_lists(kinds)
    return first, partial, np.concatenate([np.sort(row[row > 0])[::-1] for row in kinds] or [np.zeros(0, int)]).astype(int)


@observe
def the_row(case, got, want):
    if not np.array_equal(got[0], want[0]):
        at = int(np.flatnonzero(np.asarray(got[0]) != want[0])[0])
        return f"first[{at}] should be {want[0][at]}, the number of entries of the {at} rows before; yours is {got[0][at]}."
    for row, (begin, end) in enumerate(zip(want[0], want[0][1:], strict=False)):
        if not np.array_equal(got[2][begin:end], want[2][begin:end]):
            return f"Row {row} of the map is {case.args[0][row].tolist()}; your list for it is {np.asarray(got[2][begin:end]).tolist()}."
    return None
