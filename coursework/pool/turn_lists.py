"""Exercise: lists of rows become lists of columns, without the map between them."""

import numpy as np

from coursework import case, observe, wrong

TITLE = "Turn the lists round"
CHAPTER = "23_block_sparse_kernel"
POINTS, EDGE_POINTS = 4, 1
RETURNS = ("first", "rows")
PROMPT = r"""
The backward pass needs lists by columns. `blocks[first[i]:first[i + 1]]` are the columns in which row i has a block, in any order; `columns`
says how many columns there are. Write `turn_lists(first, blocks, columns)`, which returns the same lists by columns, two arrays of ints:
`first`, with `columns` + 1 entries, and `rows`, where the list of column j holds the rows that have a block in it, in ascending order. A map of all
rows and columns does not fit into memory: do without it. Rows and columns may be empty. (NumPy's sorts keep equal numbers in their order if you
ask for `kind="stable"`.)
"""


def turn_lists(first, blocks, columns):
    # BEGIN SOLUTION
    rows = np.repeat(np.arange(len(first) - 1), np.diff(first))  # of each entry
    lengths = np.bincount(blocks, minlength=columns)
    ends = np.cumsum(lengths)
    return np.concatenate([[0], ends]), rows[np.argsort(blocks, kind="stable")]
    # END SOLUTION


def _lists(rng, rows, columns, share=0.4):
    """Random lists, unsorted within rows; the last column is never empty."""
    lists = [rng.permutation(np.flatnonzero(rng.random(columns) < share)) for _ in range(rows)]
    if not any(columns - 1 in each for each in lists):
        lists[rows // 2] = np.append(lists[rows // 2], columns - 1)
    return np.concatenate([[0], np.cumsum([len(each) for each in lists])]), np.concatenate(lists).astype(int), columns


def cases(rng):
    yield case("as many rows as columns", *_lists(rng, 6, 6))
    yield case("more columns than rows", *_lists(rng, 5, 9))
    yield case("more rows than columns", *_lists(rng, 11, 4))
    first, blocks, columns = _lists(rng, 7, 8)
    yield case("last columns in which nobody has a block", first, blocks, columns + 2)
    first, blocks, columns = _lists(rng, 5, 6)
    yield case("a row without a block", np.insert(first, 2, first[2]), blocks, columns)
    whole = np.arange(20)
    yield case("every row has every column", np.arange(0, 21, 5), whole % 5, 5)
    many = 10**5
    yield case("a hundred thousand rows and columns, few blocks", np.concatenate([[0], np.sort(rng.integers(0, 41, many - 1)), [40]]),
               rng.integers(0, many, 40), many, edge=True)
    yield case("no blocks at all", np.zeros(4, int), np.zeros(0, int), 3, edge=True)


def _row_of(first):
    return np.repeat(np.arange(len(first) - 1), np.diff(first))


@wrong("Right where the last columns are not empty: your `first` is too short otherwise. `columns` says how many there are; counting with "
       "`np.bincount` needs to be told (minlength).")
def short_of_empty_columns(first, blocks, columns):
    return np.concatenate([[0], np.cumsum(np.bincount(blocks))]), turn_lists(first, blocks, columns)[1]


@wrong("Your `first` lacks the 0 in front: it says where each list ends, not where it begins.")
def without_the_zero(first, blocks, columns):
    new, rows = turn_lists(first, blocks, columns)
    return new[1:], rows


@wrong("Your `first` lacks its last entry, where the last list ends.")
def without_the_end(first, blocks, columns):
    new, rows = turn_lists(first, blocks, columns)
    return new[:-1], rows


@wrong("You hand in the columns, sorted. The list of a column holds the *rows* that have a block in it.")
def sorted_columns(first, blocks, columns):
    return turn_lists(first, blocks, columns)[0], np.sort(blocks)


@wrong("You hand in the places of the entries in the old lists. Each place belongs to a row: which?")
def places(first, blocks, columns):
    return turn_lists(first, blocks, columns)[0], np.argsort(blocks, kind="stable")


@wrong("`first` counts the lengths of the lists; where each begins is the sum of the lengths before it.")
def lengths_for_places(first, blocks, columns):
    new, rows = turn_lists(first, blocks, columns)
    return np.concatenate([[0], np.diff(new)]), rows


@wrong("Your `first` is that of the rows. Columns have lists of other lengths.")
def first_as_it_was(first, blocks, columns):
    return first, turn_lists(first, blocks, columns)[1]


@wrong("The rows within a column are in descending order; ascending was asked for.")
def descending(first, blocks, columns):
    rows = _row_of(first)
    order = np.lexsort((-rows, blocks))
    return turn_lists(first, blocks, columns)[0], rows[order]


@wrong("You use the permutation backwards. argsort says which entry comes at each new place; you ask at which place each entry comes.")
def permutation_backwards(first, blocks, columns):
    order = np.argsort(blocks, kind="stable")
    return turn_lists(first, blocks, columns)[0], _row_of(first)[np.argsort(order)]


@wrong("The rows are still in the order of the old lists: sort the entries by their columns.")
def unsorted(first, blocks, columns):
    return turn_lists(first, blocks, columns)[0], _row_of(first)


@observe
def a_column(case, got, want):
    if not np.array_equal(got[0], want[0]):
        at = int(np.flatnonzero(np.asarray(got[0]) != want[0])[0])
        return f"`first[{at}]` should be {want[0][at]}: so many entries have a column below {at}. Yours is {got[0][at]}."
    at = int(np.flatnonzero(np.asarray(got[1]) != want[1])[0])
    column = int(np.searchsorted(want[0], at, side="right")) - 1
    mine, right = (np.asarray(each[want[0][column]:want[0][column + 1]]).tolist() for each in (got[1], want[1]))
    note = " These are the right rows in another order." if sorted(mine) == right else ""
    return f"Column {column} has blocks in the rows {right}; your list says {mine}.{note}"
