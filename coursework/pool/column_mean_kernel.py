"""Exercise: mend a Triton kernel that is right for some sizes only: the mean of the columns of a matrix.

The file can be read without torch and Triton: `triton` and `tl` stand for nothing until `drive` brings in the real ones.
"""

import os
import types

import numpy as np

from coursework import case, observe, wrong
from coursework.running import Noticed

TITLE = "Odd lengths"
CHAPTER = "21_triton"
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
This kernel writes the mean of each column of a float32 matrix, `n_rows` by `n_cols`, whose rows follow each other in memory. It is
launched with as many programs as blocks of `BLOCK_C` columns are needed, and walks down the rows in blocks of `BLOCK_R`:

    columns = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros([BLOCK_C], tl.float32)
    for first in range(0, n_rows, BLOCK_R):
        rows = first + tl.arange(0, BLOCK_R)
        x = tl.load(x_ptr + rows[:, None] * n_cols + columns[None, :])
        total += tl.sum(x, axis=0)
    tl.store(out_ptr + columns, total / n_rows)

It is right where `BLOCK_R` divides `n_rows` and `BLOCK_C` divides `n_cols`. Write `column_mean_kernel(x_ptr, out_ptr, n_rows, n_cols,
BLOCK_R, BLOCK_C)`, which is right for all sizes. What stands before and after the matrix is unknown, NaN included, and nothing may be
written beyond the `n_cols` places of `out`. (A load beyond the matrix may return anything, or end the program: mask it too.)
"""
KEPT = -7.0     # what stands in the memory of the result before the kernel runs


triton, tl = types.SimpleNamespace(jit=lambda f: f), types.SimpleNamespace(constexpr="constexpr")


@triton.jit
def column_mean_kernel(
    x_ptr, out_ptr, n_rows, n_cols, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr
):
    # BEGIN SOLUTION
    columns = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros([BLOCK_C], tl.float32)
    for first in range(0, n_rows, BLOCK_R):
        rows = first + tl.arange(0, BLOCK_R)
        inside = (rows < n_rows)[:, None] & (columns < n_cols)[None, :]
        at = x_ptr + rows[:, None] * n_cols + columns[None, :]
        total += tl.sum(tl.load(at, mask=inside, other=0.0), axis=0)
    tl.store(out_ptr + columns, total / n_rows, mask=columns < n_cols)
    # END SOLUTION


_JITTED: dict = {}


def drive(f, x, block_r, block_c):
    """Launch a kernel on x, with 1000 and NaN around it; returns out, and what stands around out."""
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
    memory = torch.full((2 * guard + x.size,), float("nan"), device=device)
    memory[guard:guard + x.size] = torch.from_numpy(x.ravel()).to(device)
    memory[guard + x.size:guard + x.size + n_cols] = 1000.0      # told apart from NaN: one row too many, or more
    out = torch.full((2 * guard + n_cols,), KEPT, device=device)
    try:
        f[(-(-n_cols // block_c),)](memory[guard:], out[guard:], n_rows, n_cols, BLOCK_R=block_r, BLOCK_C=block_c)
    except Exception as error:
        if "raise NotImplementedError" in getattr(f, "src", ""):
            raise NotImplementedError from error
        while error.__cause__ is not None:       # the interpreter wraps what happened
            error = error.__cause__
        raise error from None
    result = out.cpu().numpy()
    return result[guard:guard + n_cols].copy(), np.concatenate([result[:guard], result[guard + n_cols:]])


def cases(rng):
    def matrix(n_rows, n_cols, height=3.0):
        return (rng.normal(size=(n_rows, n_cols)) + height).astype(np.float32)

    yield case("blocks that divide both sizes", matrix(16, 24), 8, 4)
    yield case("a number of rows that the block does not divide", matrix(int(rng.choice([9, 11, 13])), 16), 8, 4)
    yield case("a number of columns that the block does not divide", matrix(16, int(rng.choice([17, 18, 19]))), 8, 4)
    yield case("neither divided", matrix(int(rng.choice([19, 21, 23])), int(rng.choice([13, 14, 15]))), 8, 16)
    yield case("blocks larger than the matrix", matrix(3, 5), 16, 8)
    yield case("one row", matrix(1, 7), 4, 4)


@wrong("Right where the blocks divide the sizes. In its last step the walk goes on beyond the last row: which of the places that are loaded belong "
       "to the matrix, and which of those that are stored belong to out?")
def as_it_was(x_ptr, out_ptr, n_rows, n_cols, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    columns = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros([BLOCK_C], tl.float32)
    for first in range(0, n_rows, BLOCK_R):
        rows = first + tl.arange(0, BLOCK_R)
        total += tl.sum(tl.load(x_ptr + rows[:, None] * n_cols + columns[None, :]), axis=0)
    tl.store(out_ptr + columns, total / n_rows)


@wrong("Your loads are masked, your store is not: the last program writes beyond the end of out.")
def store_without_mask(x_ptr, out_ptr, n_rows, n_cols, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    columns = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros([BLOCK_C], tl.float32)
    for first in range(0, n_rows, BLOCK_R):
        rows = first + tl.arange(0, BLOCK_R)
        inside = (rows < n_rows)[:, None] & (columns < n_cols)[None, :]
        total += tl.sum(tl.load(x_ptr + rows[:, None] * n_cols + columns[None, :], mask=inside, other=0.0), axis=0)
    tl.store(out_ptr + columns, total / n_rows)


@wrong("You divide by the number of rows that were loaded, those beyond the end included: they added nothing to the sum, and are no rows.")
def divides_by_padded_rows(x_ptr, out_ptr, n_rows, n_cols, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    columns = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros([BLOCK_C], tl.float32)
    for first in range(0, n_rows, BLOCK_R):
        rows = first + tl.arange(0, BLOCK_R)
        inside = (rows < n_rows)[:, None] & (columns < n_cols)[None, :]
        total += tl.sum(tl.load(x_ptr + rows[:, None] * n_cols + columns[None, :], mask=inside, other=0.0), axis=0)
    tl.store(out_ptr + columns, total / (tl.cdiv(n_rows, BLOCK_R) * BLOCK_R), mask=columns < n_cols)


@wrong("The last, shorter block of rows is left out: where the block does not divide their number, some rows never enter the sum.")
def drops_the_last_block(x_ptr, out_ptr, n_rows, n_cols, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    columns = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros([BLOCK_C], tl.float32)
    for first in range(0, n_rows // BLOCK_R * BLOCK_R, BLOCK_R):
        rows = first + tl.arange(0, BLOCK_R)
        inside = (rows < n_rows)[:, None] & (columns < n_cols)[None, :]
        total += tl.sum(tl.load(x_ptr + rows[:, None] * n_cols + columns[None, :], mask=inside, other=0.0), axis=0)
    tl.store(out_ptr + columns, total / n_rows, mask=columns < n_cols)


@wrong("Your mask lets one row too many pass: rows count from 0, so that the last one is n_rows - 1.")
def one_row_too_many(x_ptr, out_ptr, n_rows, n_cols, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    columns = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros([BLOCK_C], tl.float32)
    for first in range(0, n_rows, BLOCK_R):
        rows = first + tl.arange(0, BLOCK_R)
        inside = (rows <= n_rows)[:, None] & (columns < n_cols)[None, :]
        total += tl.sum(tl.load(x_ptr + rows[:, None] * n_cols + columns[None, :], mask=inside, other=0.0), axis=0)
    tl.store(out_ptr + columns, total / n_rows, mask=columns < n_cols)


@wrong("Places beyond the last row count as 1 in your sum. Which number changes no sum?")
def other_is_one(x_ptr, out_ptr, n_rows, n_cols, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    columns = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros([BLOCK_C], tl.float32)
    for first in range(0, n_rows, BLOCK_R):
        rows = first + tl.arange(0, BLOCK_R)
        inside = (rows < n_rows)[:, None] & (columns < n_cols)[None, :]
        total += tl.sum(tl.load(x_ptr + rows[:, None] * n_cols + columns[None, :], mask=inside, other=1.0), axis=0)
    tl.store(out_ptr + columns, total / n_rows, mask=columns < n_cols)


@wrong("You mask with the number of columns where the rows end, and the other way round: right for square matrices.")
def masks_exchanged(x_ptr, out_ptr, n_rows, n_cols, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    columns = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros([BLOCK_C], tl.float32)
    for first in range(0, n_rows, BLOCK_R):
        rows = first + tl.arange(0, BLOCK_R)
        inside = (rows < n_cols)[:, None] & (columns < n_rows)[None, :]
        total += tl.sum(tl.load(x_ptr + rows[:, None] * n_cols + columns[None, :], mask=inside, other=0.0), axis=0)
    tl.store(out_ptr + columns, total / n_rows, mask=columns < n_cols)


@observe
def never_written(case, got, want):
    empty = np.flatnonzero(got[0] == KEPT)
    if len(empty):
        return f"In {len(empty)} of {len(want[0])} places of out nothing has been written, the first of them at column {empty[0]}."


@observe
def written_beside(case, got, want):
    changed = np.flatnonzero(got[1] != want[1])
    if len(changed):
        right = " out itself is right." if np.allclose(got[0], want[0], rtol=1e-4, atol=1e-6) else ""
        return f"Your kernel writes into {len(changed)} places {'behind' if changed[0] >= 4096 else 'before'} out.{right}"


@observe
def not_a_number(case, got, want):
    spoilt = np.flatnonzero(np.isnan(got[0]))
    if len(spoilt):
        x, block_r, block_c = case.args
        return (f"{len(spoilt)} of your {len(want[0])} means are NaN, which stands outside of the matrix alone (n_rows = {x.shape[0]}, n_cols = "
                f"{x.shape[1]}, BLOCK_R = {block_r}, BLOCK_C = {block_c}): something outside of it was read.")


@observe
def another_divisor(case, got, want):
    x = case.args[0]
    ratio = want[0] / np.where(got[0] == 0, np.nan, got[0])
    if np.isfinite(ratio).all() and np.ptp(ratio) < 1e-3 * abs(ratio.mean()) and abs(ratio.mean() - 1) > 1e-3:
        return f"Your sums seem right, and divided by {ratio.mean() * len(x):.4g}; there are {len(x)} rows."


@observe
def some_rows(case, got, want):
    x = case.args[0]
    for stop in range(1, len(x)):
        if np.allclose(got[0], x[:stop].sum(0) / len(x), rtol=1e-4, atol=1e-5):
            return f"Only the first {stop} of {len(x)} rows enter your sums (BLOCK_R = {case.args[1]})."
