"""Exercise: softmax of the rows of a matrix as a Triton kernel, the first kernel that a reader writes.

The file can be read without torch and Triton: `triton` and `tl` stand for nothing until `drive` brings in the real ones.
"""

import os
import types

import numpy as np

from coursework import case, observe, wrong
from coursework.running import Noticed

TITLE = "Softmax as a kernel"
CHAPTER = "21_triton"
POINTS = 6
NEEDS = ("torch", "triton")
SECONDS = 60.0
RETURNS = ("out", "what stands beside the rows of out")
GIVEN = """
import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported

import triton
import triton.language as tl
"""
PROMPT = r"""
Write the Triton kernel `row_softmax_kernel(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK)`: softmax of every row of a float32
matrix. It is launched with one program per row. Row r has `n_cols` numbers, which begin at `x_ptr` + r · `x_stride` (a stride counts
numbers, not bytes); its result goes to `n_cols` places from `out_ptr` + r · `out_stride`. Both strides may be larger than `n_cols` and
may differ: what stands between the rows is unknown (NaN included) and must not be read into a result, nor be written over. `BLOCK` is
a power of two, at least `n_cols`, and is known when the kernel is compiled. Scores of 10,000 must not overflow, and single scores may be
$-\infty$. Without a GPU the kernel runs in Triton's interpreter.
"""
KEPT = -7.0     # what stands in the memory of the result before the kernel runs


triton, tl = types.SimpleNamespace(jit=lambda f: f), types.SimpleNamespace(constexpr="constexpr")


@triton.jit
def row_softmax_kernel(
    x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr
):
    # BEGIN SOLUTION
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < n_cols
    scores = tl.load(
        x_ptr + row * x_stride + columns, mask=inside, other=-float("inf")
    )
    powers = tl.exp(scores - tl.max(scores, axis=0))
    weights = powers / tl.sum(powers, axis=0)
    tl.store(out_ptr + row * out_stride + columns, weights, mask=inside)
    # END SOLUTION


_JITTED: dict = {}


def drive(f, memory, n_cols, out_stride, block):
    """Launch a kernel on the first `n_cols` columns of `memory`; returns out, and what stands between and behind its rows."""
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
    rows, guard = memory.shape[0], 4096          # room on both sides for kernels that write where they should not
    x = torch.full((2 * guard + memory.size,), float("nan"), device=device)
    x[guard:guard + memory.size] = torch.from_numpy(memory.ravel()).to(device)
    out = torch.full((2 * guard + rows * out_stride,), KEPT, device=device)
    try:
        f[(rows,)](x[guard:], out[guard:], memory.shape[1], out_stride, n_cols, BLOCK=block)
    except Exception as error:
        if "raise NotImplementedError" in getattr(f, "src", ""):
            raise NotImplementedError from error
        while error.__cause__ is not None:      # the interpreter wraps what happened
            error = error.__cause__
        raise error from None
    result = out.cpu().numpy()
    inner = result[guard:guard + rows * out_stride].reshape(rows, out_stride)
    beside = np.concatenate([result[:guard], inner[:, n_cols:].ravel(), result[guard + rows * out_stride:]])
    return inner[:, :n_cols].copy(), beside


def cases(rng):
    n_cols, rows = int(rng.choice([9, 11, 13])), int(rng.choice([4, 5]))

    def memory(stride, cols=n_cols, between=np.nan, height=0.0):
        made = np.full((rows, stride), between, dtype=np.float32)
        made[:, :cols] = rng.normal(size=(rows, cols)) * 2 + height
        return made

    def named(stride, out_stride, block, cols=n_cols):
        sizes = {"rows": rows, "n_cols": cols, "x_stride": stride, "out_stride": out_stride, "BLOCK": block}
        return {name: size for name, size in sizes.items() if list(sizes.values()).count(size) == 1}

    yield case("rows that follow each other, and fill BLOCK", memory(8, 8), 8, 8, 8, dims=named(8, 8, 8, 8))
    yield case("a width that is no power of two", memory(n_cols), n_cols, n_cols, 16, dims=named(n_cols, n_cols, 16))
    negative = memory(19, between=50.0, height=-20.0)
    yield case("rows that do not follow each other", negative, n_cols, 23, 16, dims=named(19, 23, 16))
    yield case("NaN between the rows, and a BLOCK of more than twice the width", memory(17), n_cols, 21, 32, dims=named(17, 21, 32))
    large = memory(19, between=30_000.0)
    large[0, :n_cols] += 10_000
    large[1, :n_cols] -= 10_000
    large[2, 1:4] = -np.inf
    large[3, [0, n_cols - 1]] = -1_000                       # neither end of a row says anything about its maximum
    yield case("large scores, and some of -inf", large, n_cols, 21, 16, dims=named(19, 21, 16))


@wrong("The places of BLOCK beyond n_cols are loaded as 0 and take part: exp(0 − max) each is added to the sum of a row. Which number has "
       "the power 0?")
def padded_with_zeros(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    scores = tl.load(x_ptr + row * x_stride + columns, mask=columns < n_cols, other=0.0)
    powers = tl.exp(scores - tl.max(scores, axis=0))
    tl.store(out_ptr + row * out_stride + columns, powers / tl.sum(powers, axis=0), mask=columns < n_cols)


@wrong("exp of 10,000 overflows. What may be subtracted from all scores of a row without changing its softmax?")
def no_maximum(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    powers = tl.exp(tl.load(x_ptr + row * x_stride + columns, mask=columns < n_cols, other=-float("inf")))
    tl.store(out_ptr + row * out_stride + columns, powers / tl.sum(powers, axis=0), mask=columns < n_cols)


@wrong("You subtract the first score of a row, which need not be near its largest one: e^1,000 overflows. Which score makes every power at most 1?")
def minus_the_first(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    scores = tl.load(x_ptr + row * x_stride + columns, mask=columns < n_cols, other=-float("inf"))
    powers = tl.exp(scores - tl.load(x_ptr + row * x_stride))
    tl.store(out_ptr + row * out_stride + columns, powers / tl.sum(powers, axis=0), mask=columns < n_cols)


@wrong("Your rows begin at multiples of n_cols, right only for a matrix without gaps. How far is it from one row to the next in x, and in "
       "out?")
def no_strides(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    scores = tl.load(x_ptr + row * n_cols + columns, mask=columns < n_cols, other=-float("inf"))
    powers = tl.exp(scores - tl.max(scores, axis=0))
    tl.store(out_ptr + row * n_cols + columns, powers / tl.sum(powers, axis=0), mask=columns < n_cols)


@wrong("You write the result with the stride of x: out has one of its own.")
def one_stride(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    scores = tl.load(x_ptr + row * x_stride + columns, mask=columns < n_cols, other=-float("inf"))
    powers = tl.exp(scores - tl.max(scores, axis=0))
    tl.store(out_ptr + row * x_stride + columns, powers / tl.sum(powers, axis=0), mask=columns < n_cols)


@wrong("Your rows begin at multiples of BLOCK. It is the size of a program's tile, not the distance of rows in memory.")
def strides_of_the_block(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    scores = tl.load(x_ptr + row * BLOCK + columns, mask=columns < n_cols, other=-float("inf"))
    powers = tl.exp(scores - tl.max(scores, axis=0))
    tl.store(out_ptr + row * BLOCK + columns, powers / tl.sum(powers, axis=0), mask=columns < n_cols)


@wrong("Your store has no mask: it writes BLOCK numbers where n_cols belong, over what stands behind the row or over the next row.")
def store_without_mask(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    scores = tl.load(x_ptr + row * x_stride + columns, mask=columns < n_cols, other=-float("inf"))
    powers = tl.exp(scores - tl.max(scores, axis=0))
    tl.store(out_ptr + row * out_stride + columns, powers / tl.sum(powers, axis=0))


@wrong("Your load has no mask: what stands behind the row takes part in the maximum and in the sum.")
def load_without_mask(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    scores = tl.load(x_ptr + row * x_stride + columns)
    powers = tl.exp(scores - tl.max(scores, axis=0))
    tl.store(out_ptr + row * out_stride + columns, powers / tl.sum(powers, axis=0), mask=columns < n_cols)


@wrong("Your mask lets one column too many pass: columns count from 0, so that the last one is n_cols - 1.")
def one_column_too_many(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    scores = tl.load(x_ptr + row * x_stride + columns, mask=columns <= n_cols, other=-float("inf"))
    powers = tl.exp(scores - tl.max(scores, axis=0))
    tl.store(out_ptr + row * out_stride + columns, powers / tl.sum(powers, axis=0), mask=columns <= n_cols)


@wrong("All programs work on row 0: the others are never written. What tells a program which row is its own?")
def first_row_only(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    columns = tl.arange(0, BLOCK)
    scores = tl.load(x_ptr + columns, mask=columns < n_cols, other=-float("inf"))
    powers = tl.exp(scores - tl.max(scores, axis=0))
    tl.store(out_ptr + columns, powers / tl.sum(powers, axis=0), mask=columns < n_cols)


@wrong("Your powers are not divided by their sum: the largest number of every row is 1.")
def not_divided(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    scores = tl.load(x_ptr + row * x_stride + columns, mask=columns < n_cols, other=-float("inf"))
    tl.store(out_ptr + row * out_stride + columns, tl.exp(scores - tl.max(scores, axis=0)), mask=columns < n_cols)


@wrong("You raise 2 to the scores, not e: tl.exp2 is faster, but then the scores have to be multiplied by log₂ e first.")
def powers_of_two(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    scores = tl.load(x_ptr + row * x_stride + columns, mask=columns < n_cols, other=-float("inf"))
    powers = tl.exp2(scores - tl.max(scores, axis=0))
    tl.store(out_ptr + row * out_stride + columns, powers / tl.sum(powers, axis=0), mask=columns < n_cols)


def _softmax(x):
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _near(a, b):
    return np.allclose(a, b, rtol=1e-4, atol=1e-6)


@observe
def never_written(case, got, want):
    empty = got[0] == KEPT
    if empty.any():
        rows = np.flatnonzero(empty.any(axis=-1))
        return (f"In {empty.sum()} of {empty.size} places of out nothing has been written, the first of them in row {rows[0]} (n_cols = {case.args[1]}, "
                f"x_stride = {case.args[0].shape[1]}, out_stride = {case.args[2]}, BLOCK = {case.args[3]}).")


@observe
def written_beside(case, got, want):
    memory, n_cols, out_stride, block = case.args
    changed = np.flatnonzero(got[1] != want[1])
    if not len(changed):
        return None
    gaps, guard = memory.shape[0] * (out_stride - n_cols), 4096
    where = "before out" if changed[0] < guard else "between the rows of out" if changed[0] < guard + gaps else "behind the last row of out"
    said = (f"Your kernel writes into {len(changed)} places that belong to no row; the first lies {where} (n_cols = {n_cols}, out_stride = {out_stride}, "
            f"BLOCK = {block}).")
    return said + (" out itself is right." if _near(got[0], want[0]) else "")


@observe
def other_numbers(case, got, want):
    memory, n_cols, _, block = case.args
    out, flat, stride = got[0], memory.ravel(), memory.shape[1]
    for row in np.flatnonzero(~np.isclose(out, want[0], rtol=1e-4, atol=1e-6).all(axis=-1)):
        for start in range(len(flat) - n_cols + 1):
            if start != row * stride and _near(out[row], _softmax(flat[start:start + n_cols])):
                return (f"Row {row} of your out is the softmax of the {n_cols} numbers that begin {start} places behind x_ptr; row {row} of x begins at "
                        f"{row * stride} (x_stride = {stride}, BLOCK = {block}).")
        for more in range(1, block - n_cols + 1):
            seen = flat[row * stride:row * stride + n_cols + more]
            if len(seen) == n_cols + more and _near(out[row], _softmax(seen)[:n_cols]):
                return f"Row {row} of your out is right if {more} more numbers behind the row take part in it: n_cols is {n_cols}, BLOCK {block}."
        return None


@observe
def something_added(case, got, want):
    memory, n_cols, _, block = case.args
    out = got[0]
    if not np.isfinite(out).all() or (out < 0).any():
        return None
    scores = memory[:, :n_cols]
    ratio = np.where(want[0] > 1e-3, out / want[0], np.nan)
    same = np.nanmax(ratio, axis=-1) - np.nanmin(ratio, axis=-1) < 1e-4 * np.nanmax(ratio, axis=-1)
    if same.all() and (np.abs(np.nanmax(ratio, axis=-1) - 1) > 1e-4).any():
        row = int(np.argmax(np.abs(np.nanmax(ratio, axis=-1) - 1)))
        each = np.nanmax(ratio[row])
        most = scores[row].max()
        extra = np.exp(scores[row] - most).sum() * (1 / each - 1) / np.exp(-most) if abs(most) < 50 else np.nan
        zeros = f" As if {extra:.0f} scores of 0 took part in it: BLOCK − n_cols is {block - n_cols}." if 0.99 < extra and abs(extra - round(extra)) < 0.01 else ""
        return f"Row {row} of your out is {each:.4g} times what is expected, all of it: its divisor is wrong.{zeros}"


@observe
def another_base(case, got, want):
    memory, n_cols = case.args[:2]
    scores = memory[:, :n_cols]
    if _near(got[0], _softmax(scores * np.log(2))):
        return "Your out is the softmax of the scores times ln 2: that is what powers of 2 in place of powers of e give."
    if _near(got[0], _softmax(-scores)):
        return "Your out is the softmax of the scores with the opposite sign."
    if np.isfinite(got[0]).all() and _near(got[0], scores):
        return "Your kernel copies the scores."
