"""Exercise: find what a Triton kernel with a running maximum forgets: a softmax-weighted mean over rows longer than a block.

The file can be read without torch and Triton: `triton` and `tl` stand for nothing until `drive` brings in the real ones.
"""

import os
import types

import numpy as np

from coursework import case, observe, wrong
from coursework.running import Noticed

TITLE = "The missing line"
CHAPTER = "21_triton"
POINTS = 6
NEEDS = ("torch", "triton")
SECONDS = 60.0
RETURNS = ("out",)
GIVEN = """
import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported

import triton
import triton.language as tl
"""
PROMPT = r"""
Program r of this kernel computes $\sum_j \mathrm{softmax}(s_r)_j\, v_j$ for row r of float32 scores (`n_cols` to a row, rows follow each
other) and one vector of values, in blocks of `BLOCK`:

    row = tl.program_id(0)
    row_max, row_sum, total = -float("inf"), 0.0, 0.0
    for first in range(0, n_cols, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        inside = columns < n_cols
        scores = tl.load(scores_ptr + row * n_cols + columns, mask=inside, other=-float("inf"))
        v = tl.load(v_ptr + columns, mask=inside, other=0.0)
        new_max = tl.maximum(row_max, tl.max(scores, axis=0))
        powers = tl.exp(scores - new_max)
        row_sum = row_sum + tl.sum(powers, axis=0)
        total = total + tl.sum(powers * v, axis=0)
        row_max = new_max
    tl.store(out_ptr + row, total / row_sum)

It passes a test in which the first block holds the largest score of every row, and fails others. Write
`weighted_mean_kernel(scores_ptr, v_ptr, out_ptr, n_cols, BLOCK)`, mended. All scores are finite; scores of 10,000 must not overflow.
"""


triton, tl = types.SimpleNamespace(jit=lambda f: f), types.SimpleNamespace(constexpr="constexpr")


@triton.jit
def weighted_mean_kernel(
    scores_ptr, v_ptr, out_ptr, n_cols, BLOCK: tl.constexpr
):
    # BEGIN SOLUTION
    row = tl.program_id(0)
    row_max, row_sum, total = -float("inf"), 0.0, 0.0
    for first in range(0, n_cols, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        inside = columns < n_cols
        at = scores_ptr + row * n_cols + columns
        scores = tl.load(at, mask=inside, other=-float("inf"))
        v = tl.load(v_ptr + columns, mask=inside, other=0.0)
        new_max = tl.maximum(row_max, tl.max(scores, axis=0))
        rescale = tl.exp(row_max - new_max)  # 0 in the first block
        powers = tl.exp(scores - new_max)
        row_sum = row_sum * rescale + tl.sum(powers, axis=0)
        total = total * rescale + tl.sum(powers * v, axis=0)
        row_max = new_max
    tl.store(out_ptr + row, total / row_sum)
    # END SOLUTION


_JITTED: dict = {}


def drive(f, scores, v, block):
    """Launch a kernel with one program for each row of scores; returns out."""
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
    out = torch.full((len(scores),), float("nan"), device=device)
    try:
        with np.errstate(all="ignore"):
            f[(len(scores),)](*(torch.from_numpy(x).to(device) for x in (scores, v)), out, scores.shape[1], BLOCK=block)
    except Exception as error:
        if "raise NotImplementedError" in getattr(f, "src", ""):
            raise NotImplementedError from error
        while error.__cause__ is not None:       # the interpreter wraps what happened
            error = error.__cause__
        raise error from None
    return out.cpu().numpy()


def cases(rng):
    def inputs(n_cols, slope=0.0, height=0.0, rows=5):
        scores = rng.normal(size=(rows, n_cols)) + np.linspace(-slope, slope, n_cols) + height
        return scores.astype(np.float32), (rng.normal(size=n_cols) + 4).astype(np.float32)

    yield case("one block", *inputs(16), 16)
    falling, v = inputs(32)
    yield case("the largest score in the first block", -np.sort(-falling, axis=1), v, 8)
    yield case("scores that rise from block to block", *inputs(40, 2.0), 8)
    yield case("a last block that is shorter", *inputs(int(rng.choice([35, 37, 39])), 2.0), 8)
    yield case("large scores that rise", *inputs(24, 3.0, 10_000.0), 8)
    yield case("large negative scores that rise", *inputs(24, 3.0, -20_000.0), 8)



@wrong("This is the kernel as it was. When the maximum rises, what was summed before was measured from the old one: by which factor is it "
       "too large?")
def as_it_was(scores_ptr, v_ptr, out_ptr, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    row_max, row_sum, total = -float("inf"), 0.0, 0.0
    for first in range(0, n_cols, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        scores = tl.load(scores_ptr + row * n_cols + columns, mask=columns < n_cols, other=-float("inf"))
        v = tl.load(v_ptr + columns, mask=columns < n_cols, other=0.0)
        new_max = tl.maximum(row_max, tl.max(scores, axis=0))
        powers = tl.exp(scores - new_max)
        row_sum = row_sum + tl.sum(powers, axis=0)
        total = total + tl.sum(powers * v, axis=0)
        row_max = new_max
    tl.store(out_ptr + row, total / row_sum)


@wrong("The sum of the powers shrinks when the maximum rises, the weighted sum does not. Both were made of the same powers.")
def rescales_the_sum_alone(scores_ptr, v_ptr, out_ptr, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    row_max, row_sum, total = -float("inf"), 0.0, 0.0
    for first in range(0, n_cols, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        scores = tl.load(scores_ptr + row * n_cols + columns, mask=columns < n_cols, other=-float("inf"))
        v = tl.load(v_ptr + columns, mask=columns < n_cols, other=0.0)
        new_max = tl.maximum(row_max, tl.max(scores, axis=0))
        powers = tl.exp(scores - new_max)
        row_sum = row_sum * tl.exp(row_max - new_max) + tl.sum(powers, axis=0)
        total = total + tl.sum(powers * v, axis=0)
        row_max = new_max
    tl.store(out_ptr + row, total / row_sum)


@wrong("The weighted sum shrinks when the maximum rises, the sum of the powers, by which it is divided, does not.")
def rescales_the_total_alone(scores_ptr, v_ptr, out_ptr, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    row_max, row_sum, total = -float("inf"), 0.0, 0.0
    for first in range(0, n_cols, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        scores = tl.load(scores_ptr + row * n_cols + columns, mask=columns < n_cols, other=-float("inf"))
        v = tl.load(v_ptr + columns, mask=columns < n_cols, other=0.0)
        new_max = tl.maximum(row_max, tl.max(scores, axis=0))
        powers = tl.exp(scores - new_max)
        row_sum = row_sum + tl.sum(powers, axis=0)
        total = total * tl.exp(row_max - new_max) + tl.sum(powers * v, axis=0)
        row_max = new_max
    tl.store(out_ptr + row, total / row_sum)


@wrong("What was summed before is multiplied by e^(new maximum - old maximum), and grows; measured from a larger maximum, it has to shrink.")
def rescales_upwards(scores_ptr, v_ptr, out_ptr, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    row_max, row_sum, total = -float("inf"), 0.0, 0.0
    for first in range(0, n_cols, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        scores = tl.load(scores_ptr + row * n_cols + columns, mask=columns < n_cols, other=-float("inf"))
        v = tl.load(v_ptr + columns, mask=columns < n_cols, other=0.0)
        new_max = tl.maximum(row_max, tl.max(scores, axis=0))
        rescale = tl.where(row_max == -float("inf"), 0.0, tl.exp(new_max - row_max))
        powers = tl.exp(scores - new_max)
        row_sum = row_sum * rescale + tl.sum(powers, axis=0)
        total = total * rescale + tl.sum(powers * v, axis=0)
        row_max = new_max
    tl.store(out_ptr + row, total / row_sum)


@wrong("Your factor is e^(new maximum - old maximum). In the first block the old maximum is -inf, the factor infinite, and infinity times 0 is NaN; "
       "and later what was summed grows. Measured from a larger maximum, it has to shrink.")
def rescales_upwards_from_the_start(scores_ptr, v_ptr, out_ptr, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    row_max, row_sum, total = -float("inf"), 0.0, 0.0
    for first in range(0, n_cols, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        scores = tl.load(scores_ptr + row * n_cols + columns, mask=columns < n_cols, other=-float("inf"))
        v = tl.load(v_ptr + columns, mask=columns < n_cols, other=0.0)
        new_max = tl.maximum(row_max, tl.max(scores, axis=0))
        rescale = tl.exp(new_max - row_max)
        powers = tl.exp(scores - new_max)
        row_sum = row_sum * rescale + tl.sum(powers, axis=0)
        total = total * rescale + tl.sum(powers * v, axis=0)
        row_max = new_max
    tl.store(out_ptr + row, total / row_sum)


@wrong("Each block is measured from its own maximum, and the earlier ones shrink even where theirs was larger: then they grow without bound. "
       "The maximum is a running one.")
def maximum_of_the_block(scores_ptr, v_ptr, out_ptr, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    row_sum, total = 0.0, 0.0
    for first in range(0, n_cols, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        scores = tl.load(scores_ptr + row * n_cols + columns, mask=columns < n_cols, other=-float("inf"))
        v = tl.load(v_ptr + columns, mask=columns < n_cols, other=0.0)
        powers = tl.exp(scores - tl.max(scores, axis=0))
        row_sum = row_sum + tl.sum(powers, axis=0)
        total = total + tl.sum(powers * v, axis=0)
    tl.store(out_ptr + row, total / row_sum)


@wrong("You subtract no maximum at all. Nothing has to shrink then, but e^10,000 overflows.")
def no_maximum(scores_ptr, v_ptr, out_ptr, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    row_sum, total = 0.0, 0.0
    for first in range(0, n_cols, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        scores = tl.load(scores_ptr + row * n_cols + columns, mask=columns < n_cols, other=-float("inf"))
        v = tl.load(v_ptr + columns, mask=columns < n_cols, other=0.0)
        powers = tl.exp(scores)
        row_sum = row_sum + tl.sum(powers, axis=0)
        total = total + tl.sum(powers * v, axis=0)
    tl.store(out_ptr + row, total / row_sum)


@wrong("Your running maximum begins at a number that scores may lie below: then every power is 0, and so is the sum. Nothing lies below -inf.")
def begins_too_high(scores_ptr, v_ptr, out_ptr, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    row_max, row_sum, total = -10000.0, 0.0, 0.0
    for first in range(0, n_cols, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        scores = tl.load(scores_ptr + row * n_cols + columns, mask=columns < n_cols, other=-float("inf"))
        v = tl.load(v_ptr + columns, mask=columns < n_cols, other=0.0)
        new_max = tl.maximum(row_max, tl.max(scores, axis=0))
        rescale = tl.exp(row_max - new_max)
        powers = tl.exp(scores - new_max)
        row_sum = row_sum * rescale + tl.sum(powers, axis=0)
        total = total * rescale + tl.sum(powers * v, axis=0)
        row_max = new_max
    tl.store(out_ptr + row, total / row_sum)


@wrong("You divide after every block and go on with the quotient as if it were the weighted sum. Divide once, at the end.")
def divides_every_block(scores_ptr, v_ptr, out_ptr, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    row_max, row_sum, total = -float("inf"), 0.0, 0.0
    for first in range(0, n_cols, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        scores = tl.load(scores_ptr + row * n_cols + columns, mask=columns < n_cols, other=-float("inf"))
        v = tl.load(v_ptr + columns, mask=columns < n_cols, other=0.0)
        new_max = tl.maximum(row_max, tl.max(scores, axis=0))
        rescale = tl.exp(row_max - new_max)
        powers = tl.exp(scores - new_max)
        row_sum = row_sum * rescale + tl.sum(powers, axis=0)
        total = (total * rescale + tl.sum(powers * v, axis=0)) / row_sum
        row_max = new_max
    tl.store(out_ptr + row, total)


def _softmax(x):
    powers = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@observe
def not_written(case, got, want):
    spoilt = np.flatnonzero(~np.isfinite(got))
    if len(spoilt):
        top = np.abs(case.args[0]).max()
        return f"{len(spoilt)} of your {len(got)} results are {got[spoilt[0]]}: the largest score is about {top:.0f} in size, and there are NaN where nothing was written."


@observe
def last_block_only(case, got, want):
    scores, v, block = case.args
    start = (scores.shape[1] - 1) // block * block
    for name, part in (("first", slice(0, block)), ("last", slice(start, None))):
        if start and np.allclose(got, _softmax(scores[:, part]) @ v[part], rtol=1e-4):
            return f"Your results are those of the {name} block alone (BLOCK = {block}, n_cols = {scores.shape[1]})."


@observe
def outside_the_values(case, got, want):
    _, v, _ = case.args
    beyond = (got > v.max() + 1e-3) | (got < v.min() - 1e-3)
    if beyond.any():
        return (f"Your result {got[np.argmax(beyond)]:.4g} lies outside of the values, which go from {v.min():.3g} to {v.max():.3g}: the weights do not sum "
                "to 1, so numerator and denominator were treated differently.")


@observe
def first_too_heavy(case, got, want):
    scores, v, block = case.args
    if scores.shape[1] > block and not np.allclose(got, want, rtol=1e-4):
        weights = _softmax(scores)
        first = _softmax(scores[:, :block]) @ v[:block]
        toward = np.abs(got - first).mean() < np.abs(want - first).mean() and weights[:, :block].sum(-1).mean() < 0.5
        if toward:
            return "Your results lie closer to those of the first block than they should: the first keys weigh too much."
