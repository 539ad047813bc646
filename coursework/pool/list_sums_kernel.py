"""Exercise: a Triton kernel that walks a list of blocks: row sums of a block-sparse matrix.

The file can be read without torch and Triton: `triton` and `tl` stand for nothing until `drive` brings in the real ones.
"""

import os
import types

import numpy as np

from coursework import case, observe, wrong
from coursework.running import Noticed

TITLE = "A kernel that walks a list"
CHAPTER = "23_block_sparse_kernel"
POINTS = 5
NEEDS = ("torch", "triton")
SECONDS = 60.0
RETURNS = ("out", "what stands around out")
GIVEN = """
import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported

import triton
import triton.language as tl
"""
PROMPT = r"""
A float32 matrix of `n_rows` by `n_cols`, whose rows follow each other in memory, is cut into blocks of `BLOCK` by `BLOCK`; the last blocks of
either side may be smaller. Only some blocks count. The list of row i of blocks is `blocks_ptr[first_ptr[i]]` up to, and without,
`blocks_ptr[first_ptr[i + 1]]` (int32): numbers of blocks of columns. Write the Triton kernel `list_sums_kernel(x_ptr, first_ptr, blocks_ptr, out_ptr,
n_rows, n_cols, BLOCK)`: for each row of the matrix the sum of those of its numbers that stand in listed blocks, into the `n_rows` places
of `out`. It is launched with one program for each row of blocks. What stands around the matrix is unknown, and nothing may be written beyond
`out`. A list may be empty: then its sums are 0.
"""
KEPT = -7.0     # what stands in the memory of the result before the kernel runs


triton, tl = types.SimpleNamespace(jit=lambda f: f), types.SimpleNamespace(constexpr="constexpr")


@triton.jit
def list_sums_kernel(
    x_ptr, first_ptr, blocks_ptr, out_ptr, n_rows, n_cols, BLOCK: tl.constexpr
):
    # BEGIN SOLUTION
    row = tl.program_id(0)
    rows = row * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    begin, end = tl.load(first_ptr + row), tl.load(first_ptr + row + 1)
    for entry in range(begin, end):
        columns = tl.load(blocks_ptr + entry) * BLOCK + tl.arange(0, BLOCK)
        inside = (rows < n_rows)[:, None] & (columns < n_cols)[None, :]
        at = x_ptr + rows[:, None] * n_cols + columns[None, :]
        total += tl.sum(tl.load(at, mask=inside, other=0.0), axis=1)
    tl.store(out_ptr + rows, total, mask=rows < n_rows)
    # END SOLUTION


_JITTED: dict = {}


def drive(f, x, first, blocks, block):
    """Launch a kernel on x, with 1000 around it; returns out, and what stands around out."""
    global tl
    import torch

    device = "cuda" if torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1" else "cpu"
    if device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
    import triton
    import triton.language as tl

    if device == "cpu" and isinstance(tl.max, triton.runtime.JITFunction):
        raise Noticed("Triton was imported before `TRITON_INTERPRET` was set, so that it looks for a GPU: restart the kernel, and run "
                      "the given cell before anything else imports Triton")
    if isinstance(f, types.FunctionType):
        f = _JITTED.setdefault(f, triton.jit(f))
    (n_rows, n_cols), guard = x.shape, 4096      # room on both sides for kernels that read or write where they should not
    memory = torch.full((2 * guard + x.size,), 1000.0, device=device)
    memory[guard:guard + x.size] = torch.from_numpy(x.ravel()).to(device)
    out = torch.full((2 * guard + n_rows,), KEPT, device=device)
    lists = [torch.zeros(256 + len(each), dtype=torch.int32, device=device) for each in (first, blocks)]
    for place, each in zip(lists, (first, blocks), strict=True):
        place[:len(each)] = torch.from_numpy(np.asarray(each, np.int32)).to(device)
    try:
        f[(len(first) - 1,)](memory[guard:], *lists, out[guard:], n_rows, n_cols, BLOCK=block)
    except Exception as error:
        if "raise NotImplementedError" in getattr(f, "src", ""):
            raise NotImplementedError from error
        while error.__cause__ is not None:       # the interpreter wraps what happened
            error = error.__cause__
        raise error from None
    result = out.cpu().numpy()
    return result[guard:guard + n_rows].copy(), np.concatenate([result[:guard], result[guard + n_rows:]])


def cases(rng):
    def made(n_rows, n_cols, block, lists):
        x = (rng.normal(size=(n_rows, n_cols)) + 3).astype(np.float32)
        first = np.concatenate([[0], np.cumsum([len(each) for each in lists])])
        return x, first, np.array([block for each in lists for block in each]), block

    yield case("blocks that divide both sizes", *made(16, 32, 4, [[3, 0, 7], [5, 2], [6, 1, 4, 2], [7]]))
    yield case("a last block of columns that is smaller", *made(12, int(rng.choice([29, 30, 31])), 4, [[7, 2], [1, 7, 4], [3, 6]]))
    yield case("a last block of rows that is smaller", *made(int(rng.choice([13, 14, 15])), 24, 8, [[2, 0], [1, 2]]))
    yield case("an empty list", *made(24, 40, 8, [[4, 1], [], [2, 3]]))
    yield case("one block for all", *made(5, 6, 8, [[0]]))


@wrong("Your program walks all blocks of its row: those that are not in its list do not count.")
def all_blocks(x_ptr, first_ptr, blocks_ptr, out_ptr, n_rows, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    rows = row * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    begin, end = 0, tl.cdiv(n_cols, BLOCK)
    for entry in range(begin, end):
        columns = entry * BLOCK + tl.arange(0, BLOCK)
        inside = (rows < n_rows)[:, None] & (columns < n_cols)[None, :]
        total += tl.sum(tl.load(x_ptr + rows[:, None] * n_cols + columns[None, :], mask=inside, other=0.0), axis=1)
    tl.store(out_ptr + rows, total, mask=rows < n_rows)


@wrong("You take an entry's place in the list for the number of its block: `entry` says where to look, `blocks_ptr + entry` is what to load.")
def place_for_block(x_ptr, first_ptr, blocks_ptr, out_ptr, n_rows, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    rows = row * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    begin, end = tl.load(first_ptr + row), tl.load(first_ptr + row + 1)
    for entry in range(begin, end):
        columns = entry * BLOCK + tl.arange(0, BLOCK)
        inside = (rows < n_rows)[:, None] & (columns < n_cols)[None, :]
        total += tl.sum(tl.load(x_ptr + rows[:, None] * n_cols + columns[None, :], mask=inside, other=0.0), axis=1)
    tl.store(out_ptr + rows, total, mask=rows < n_rows)


@wrong("The number of a block is not its first column: that is the number times BLOCK.")
def block_for_column(x_ptr, first_ptr, blocks_ptr, out_ptr, n_rows, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    rows = row * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    begin, end = tl.load(first_ptr + row), tl.load(first_ptr + row + 1)
    for entry in range(begin, end):
        columns = tl.load(blocks_ptr + entry) + tl.arange(0, BLOCK)
        inside = (rows < n_rows)[:, None] & (columns < n_cols)[None, :]
        total += tl.sum(tl.load(x_ptr + rows[:, None] * n_cols + columns[None, :], mask=inside, other=0.0), axis=1)
    tl.store(out_ptr + rows, total, mask=rows < n_rows)


@wrong("The last entry of every list is left out: `first[i + 1]` is where the next list begins, so that `range` may go up to it.")
def last_entry_lost(x_ptr, first_ptr, blocks_ptr, out_ptr, n_rows, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    rows = row * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    begin, end = tl.load(first_ptr + row), tl.load(first_ptr + row + 1)
    for entry in range(begin, end - 1):
        columns = tl.load(blocks_ptr + entry) * BLOCK + tl.arange(0, BLOCK)
        inside = (rows < n_rows)[:, None] & (columns < n_cols)[None, :]
        total += tl.sum(tl.load(x_ptr + rows[:, None] * n_cols + columns[None, :], mask=inside, other=0.0), axis=1)
    tl.store(out_ptr + rows, total, mask=rows < n_rows)


@wrong("Every program reads from the beginning of `blocks`, as many entries as its list has. Its list begins at `first[i]`.")
def every_list_from_zero(x_ptr, first_ptr, blocks_ptr, out_ptr, n_rows, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    rows = row * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    begin, end = tl.load(first_ptr + row), tl.load(first_ptr + row + 1)
    for entry in range(0, end - begin):
        columns = tl.load(blocks_ptr + entry) * BLOCK + tl.arange(0, BLOCK)
        inside = (rows < n_rows)[:, None] & (columns < n_cols)[None, :]
        total += tl.sum(tl.load(x_ptr + rows[:, None] * n_cols + columns[None, :], mask=inside, other=0.0), axis=1)
    tl.store(out_ptr + rows, total, mask=rows < n_rows)


@wrong("Your programs walk from the beginning of all lists to the end of their own: the lists of the rows before are walked, too.")
def to_the_end_of_first(x_ptr, first_ptr, blocks_ptr, out_ptr, n_rows, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    rows = row * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    end = tl.load(first_ptr + row + 1)
    for entry in range(0, end):
        columns = tl.load(blocks_ptr + entry) * BLOCK + tl.arange(0, BLOCK)
        inside = (rows < n_rows)[:, None] & (columns < n_cols)[None, :]
        total += tl.sum(tl.load(x_ptr + rows[:, None] * n_cols + columns[None, :], mask=inside, other=0.0), axis=1)
    tl.store(out_ptr + rows, total, mask=rows < n_rows)


@wrong("The last block of columns may be smaller. Without a mask its places go on into the next row.")
def no_column_mask(x_ptr, first_ptr, blocks_ptr, out_ptr, n_rows, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    rows = row * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    begin, end = tl.load(first_ptr + row), tl.load(first_ptr + row + 1)
    for entry in range(begin, end):
        columns = tl.load(blocks_ptr + entry) * BLOCK + tl.arange(0, BLOCK)
        inside = (rows < n_rows)[:, None] & (columns >= 0)[None, :]
        total += tl.sum(tl.load(x_ptr + rows[:, None] * n_cols + columns[None, :], mask=inside, other=0.0), axis=1)
    tl.store(out_ptr + rows, total, mask=rows < n_rows)


@wrong("The last block of rows may be smaller: your store goes on beyond the end of out.")
def store_without_mask(x_ptr, first_ptr, blocks_ptr, out_ptr, n_rows, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    rows = row * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    begin, end = tl.load(first_ptr + row), tl.load(first_ptr + row + 1)
    for entry in range(begin, end):
        columns = tl.load(blocks_ptr + entry) * BLOCK + tl.arange(0, BLOCK)
        inside = (rows < n_rows)[:, None] & (columns < n_cols)[None, :]
        total += tl.sum(tl.load(x_ptr + rows[:, None] * n_cols + columns[None, :], mask=inside, other=0.0), axis=1)
    tl.store(out_ptr + rows, total)


@wrong("Each step puts its sums in the place of the earlier ones: add to them.")
def only_the_last_block(x_ptr, first_ptr, blocks_ptr, out_ptr, n_rows, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    rows = row * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    begin, end = tl.load(first_ptr + row), tl.load(first_ptr + row + 1)
    for entry in range(begin, end):
        columns = tl.load(blocks_ptr + entry) * BLOCK + tl.arange(0, BLOCK)
        inside = (rows < n_rows)[:, None] & (columns < n_cols)[None, :]
        total = tl.sum(tl.load(x_ptr + rows[:, None] * n_cols + columns[None, :], mask=inside, other=0.0), axis=1)
    tl.store(out_ptr + rows, total, mask=rows < n_rows)


@wrong("You sum along the wrong axis: axis 0 of a tile are the rows, and each row is to keep its own sum.")
def sums_of_columns(x_ptr, first_ptr, blocks_ptr, out_ptr, n_rows, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    rows = row * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    begin, end = tl.load(first_ptr + row), tl.load(first_ptr + row + 1)
    for entry in range(begin, end):
        columns = tl.load(blocks_ptr + entry) * BLOCK + tl.arange(0, BLOCK)
        inside = (rows < n_rows)[:, None] & (columns < n_cols)[None, :]
        total += tl.sum(tl.load(x_ptr + rows[:, None] * n_cols + columns[None, :], mask=inside, other=0.0), axis=0)
    tl.store(out_ptr + rows, total, mask=rows < n_rows)


@observe
def never_written(case, got, want):
    empty = np.flatnonzero(got[0] == KEPT)
    if len(empty):
        return f"In {len(empty)} of {len(want[0])} places of out nothing has been written, the first of them at row {empty[0]}."


@observe
def written_beside(case, got, want):
    changed = np.flatnonzero(got[1] != want[1])
    if len(changed):
        right = " out itself is right." if np.allclose(got[0], want[0], rtol=1e-4, atol=1e-6) else ""
        return f"Your kernel writes into {len(changed)} places {'behind' if changed[0] >= 4096 else 'before'} out.{right}"


@observe
def first_wrong_row(case, got, want):
    wrong_rows = np.flatnonzero(~np.isclose(got[0], want[0], rtol=1e-4, atol=1e-4))
    if len(wrong_rows):
        _, first, blocks, block = case.args
        own = int(wrong_rows[0]) // block
        return (f"Row {wrong_rows[0]} of the matrix is in row {own} of blocks (BLOCK = {block}), whose list is "
                f"{np.asarray(blocks[first[own]:first[own + 1]]).tolist()}: its sum is {want[0][wrong_rows[0]]:.3f}, yours {got[0][wrong_rows[0]]:.3f}.")
