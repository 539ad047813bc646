"""Exercise: the weights of a tile again, from the log-sum-exp of each row: the first line of a flash backward pass."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "The weights come back"
CHAPTER = "22_triton_backward"
POINTS, EDGE_POINTS = 4, 1
RETURNS = ("weights",)
PROMPT = r"""
Write `weights_from_lse(q, k, lse, seen)`: the softmax weights of one tile, (..., rows, keys), for queries `q` (..., rows, dim_head) and
**some** of their keys `k` (..., keys, dim_head). `lse` (..., rows) is the logarithm of the sum of exp(score) over *all* keys of a query, with
scores $q \cdot k/\sqrt{d}$, d = dim_head; `seen` (rows, keys) is True where a query may attend. So the rows of a tile need not sum to 1.
What is not seen has weight 0, and a query with `lse` $= -\infty$ sees no key at all: zeros, not NaN.
Scores of 10,000 must not overflow, and scores of -10,000 are as good as any: only their distance from `lse` counts.
"""


def weights_from_lse(q, k, lse, seen):
    # BEGIN SOLUTION
    scores = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5
    blind = np.isneginf(lse)
    seen = seen & ~blind[..., None]
    away = scores - np.where(blind, 0, lse)[..., None]
    return np.exp(np.where(seen, away, -np.inf))
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads rows keys rest dim_head", 3, 9)

    def inputs(*lead, scale=1.5, hide=0.3, blind=False, apart=0.0):
        q = rng.normal(size=(*lead, s.rows, s.dim_head)) * scale
        k = rng.normal(size=(*lead, s.keys + s.rest, s.dim_head)) * scale
        q[..., 0] += apart
        k[..., 0] -= apart  # the scores move down by about apart² / √dim_head
        seen = rng.random((s.rows, s.keys + s.rest)) > hide
        seen[:, s.keys + 1] = True
        if blind:
            seen[1] = False
        scores = np.where(seen, q @ k.swapaxes(-1, -2) / s.dim_head**0.5, -np.inf)
        top = np.maximum(scores.max(-1), -1e300)
        with np.errstate(divide="ignore"):
            lse = top + np.log(np.exp(scores - top[..., None]).sum(-1))
        return q, np.ascontiguousarray(k[..., : s.keys, :]), np.where(seen.any(-1), lse, -np.inf), seen[:, : s.keys]

    yield case("everything seen", *inputs(hide=-1.0), dims=s)
    yield case("some pairs hidden", *inputs(), dims=s)
    yield case("leading axes", *inputs(s.batch, s.heads), dims=s)
    yield case("scores of thousands", *inputs(scale=60.0), dims=s)
    yield case("all scores below -20,000", *inputs(apart=300.0), dims=s)
    yield case("a query that sees nothing", *inputs(s.batch, blind=True), edge=True, dims=s)


def _scores(q, k):
    return q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5


@wrong("Your rows sum to 1. These are some of the keys of each query: what do the others hold? The sum over all of them is known already.")
def softmax_of_the_tile(q, k, lse, seen):
    scores = np.where(seen, _scores(q, k), -np.inf)
    top = np.maximum(scores.max(-1, keepdims=True), -1e300)
    powers = np.exp(scores - top)
    total = powers.sum(-1, keepdims=True)
    return powers / np.where(total == 0, 1, total)


@wrong("You divide exp(score) by exp(lse): right for small scores, and both overflow for large ones. What is the quotient of two powers?")
def divides_powers(q, k, lse, seen):
    with np.errstate(all="ignore"):
        weights = np.exp(_scores(q, k)) / np.exp(lse)[..., None]
    return np.where(seen & ~np.isneginf(lse)[..., None], weights, 0)


@wrong("The scores are not divided by the root of dim_head; lse was made from scores that are.")
def not_scaled(q, k, lse, seen):
    blind = np.isneginf(lse)
    away = q @ k.swapaxes(-1, -2) - np.where(blind, 0, lse)[..., None]
    with np.errstate(over="ignore"):
        return np.where(seen & ~blind[..., None], np.exp(away), 0)


@wrong("What is not seen has weight in your result.")
def not_masked(q, k, lse, seen):
    blind = np.isneginf(lse)
    away = _scores(q, k) - np.where(blind, 0, lse)[..., None]
    with np.errstate(over="ignore"):
        return np.where(blind[..., None], 0, np.exp(np.minimum(away, 700)))


@wrong("What is not seen gets a score of -10,000 in your solution. Where the scores that are seen are lower still, that is the largest of all.")
def finite_fill(q, k, lse, seen):
    blind = np.isneginf(lse)
    away = np.where(seen, _scores(q, k), -1e4) - np.where(blind, 0, lse)[..., None]
    return np.exp(np.minimum(away, 700))


@wrong("`seen` is True where a query may attend; you keep the others.")
def polarity(q, k, lse, seen):
    blind = np.isneginf(lse)
    away = _scores(q, k) - np.where(blind, 0, lse)[..., None]
    return np.where(~seen & ~blind[..., None], np.exp(np.minimum(away, 700)), 0)


@wrong("You divide by lse. It is the logarithm of the sum, and a difference of logarithms is what becomes a quotient.")
def divides_by_lse(q, k, lse, seen):
    blind = np.isneginf(lse)
    scores = _scores(q, k)
    powers = np.exp(np.minimum(scores, 700))
    return np.where(seen & ~blind[..., None], powers / np.where(blind | (lse == 0), 1, lse)[..., None], 0)


@wrong("Right where every query sees something. A query with lse = -inf has scores of -inf too, and their difference is NaN.")
def blind_rows(q, k, lse, seen):
    with np.errstate(invalid="ignore"):
        return np.exp(np.where(seen, _scores(q, k), -np.inf) - lse[..., None])


@observe
def rows_sum_to_one(case, got, want):
    if np.isfinite(got).all() and np.allclose(got.sum(-1), 1) and not np.allclose(want.sum(-1), 1):
        return f"Your rows sum to 1; with the keys that are not in this tile they should (the first row of the expected result sums to {want[..., 0, :].flat[:want.shape[-1]].sum():.3f})."


@observe
def hidden_has_weight(case, got, want):
    hidden = np.broadcast_to(~case.args[3], got.shape)
    if np.isfinite(got).all() and np.any(got[hidden] != 0):
        return f"{int(np.sum(got[hidden] != 0))} pairs that are not seen have a weight other than 0 in your result."


@observe
def factor_per_row(case, got, want):
    with np.errstate(all="ignore"):
        ratio = np.where(want > 1e-12, got / want, np.nan)
    rows = ratio.reshape(-1, ratio.shape[-1])
    rows = rows[np.isfinite(rows).sum(-1) > 1]
    if len(rows) and np.all(np.nanmax(rows, -1) - np.nanmin(rows, -1) < 1e-6 * np.nanmax(np.abs(rows), -1)) and np.any(np.abs(rows[:, 0] - 1) > 1e-6):
        return "Within each row your weights are right but for one factor: the divisor of the row is another."
