"""Exercise: a tile of weights from the log-sum-exp of its rows."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Weights from one number for each row"
CHAPTER = "20_flash"
POINTS, EDGE_POINTS = 3, 1
PROMPT = r"""
FlashAttention keeps of each row of scores one number, the logarithm of the sum of exp(score) over all keys {cite}`dao2022`. In the backward pass it
computes the weights again, a tile at a time. Write `weights_again(q, k, lse)` for one tile: `q` (..., rows, dim_head) are some queries, `k`
(..., columns, dim_head) **some** of the keys, and `lse` (..., rows) belongs to these queries and to **all** keys of the sequence. Scores are
$q \cdot k / \sqrt{d}$, d = dim_head. Return the weights of this tile, (..., rows, columns). An `lse` may be 10,000, and so may the scores
beside it; an `lse` of $-\infty$ says that the query sees no key at all, and its weights are 0. (NumPy, any leading axes.)
"""


def weights_again(q, k, lse):
    # BEGIN SOLUTION
    scores = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5  # (..., rows, columns)
    blind = np.isneginf(lse)[..., None]
    shift = np.where(blind, 0, lse[..., None])
    return np.where(blind, 0, np.exp(np.where(blind, 0, scores - shift)))
    # END SOLUTION


def _inputs(rng, s, *lead, scale=1.0):
    q, k = rng.normal(size=(*lead, s.rows, s.dim_head)) * scale, rng.normal(size=(*lead, s.columns, s.dim_head))
    others = rng.normal(size=(*lead, 3 * s.columns, s.dim_head))
    keys = np.concatenate([k, others], axis=-2)
    scores = q @ keys.swapaxes(-1, -2) / s.dim_head**0.5
    row_max = scores.max(axis=-1)
    return q, k, row_max + np.log(np.exp(scores - row_max[..., None]).sum(axis=-1))


def cases(rng):
    s = sizes(rng, "batch heads rows columns dim_head")
    yield case("a tile of a longer sequence", *_inputs(rng, s), dims=s)
    yield case("leading axes", *_inputs(rng, s, s.batch, s.heads), dims=s)
    q, k, lse = _inputs(rng, s)
    yield case("a tile of one key", q, k[:1], lse, dims={**vars(s), "columns": 1})
    square = {**vars(s), "columns": s.rows}
    q, k, lse = _inputs(rng, type(s)(**square))
    yield case("as many keys as queries", q, k, lse, dims={name: square[name] for name in ("batch", "heads", "dim_head")})
    q, k, lse = _inputs(rng, s, scale=1.0)
    k = k / np.linalg.norm(k, axis=-1, keepdims=True)
    q = np.where(np.arange(s.rows)[:, None] % 2, 1e4, -1e4) * s.dim_head**0.5 * k[rng.integers(0, s.columns, s.rows)]
    row_max = (q @ k.swapaxes(-1, -2) / s.dim_head**0.5).max(axis=-1)
    yield case("scores and lse of 10,000 or -10,000", q, k, row_max + 0.5, dims=s)
    q, k, lse = _inputs(rng, s)
    lse[1] = -np.inf
    yield case("a query that sees no key", q, k, lse, dims=s, edge=True)


def _scores(q, k):
    return q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5


def _exp(exponent, lse):
    return np.where(np.isneginf(lse)[..., None], 0, np.exp(np.where(np.isneginf(lse)[..., None], 0, exponent)))


def _finite(lse):
    return np.where(np.isneginf(lse), 0, lse)[..., None]


@wrong("Each row of your tile sums to 1: that is softmax over the keys of this tile. The weights are shares of the whole row, of which the tile "
       "is a part; what do you have `lse` for?")
def softmax_of_the_tile(q, k, lse):
    scores = _scores(q, k)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.where(np.isneginf(lse)[..., None], 0, powers / powers.sum(axis=-1, keepdims=True))


@wrong("You divide exp(score) by `lse` itself. It is the logarithm of the sum.")
def divides_by_the_logarithm(q, k, lse):
    return _exp(np.clip(_scores(q, k), -700, 700), lse) / np.where(np.isneginf(lse), 1, lse)[..., None]


@wrong("Right for moderate scores; exp(score) / exp(lse) overflows where both are 10,000. Which single power is their quotient?")
def quotient_of_powers(q, k, lse):
    with np.errstate(all="ignore"):
        found = np.exp(_scores(q, k)) / np.exp(lse)[..., None]
    return np.where(np.isneginf(lse)[..., None], 0, found)


@wrong("Your scores are not divided by √dim_head, those behind `lse` are.")
def no_scale(q, k, lse):
    return _exp(np.minimum(q @ k.swapaxes(-1, -2) - _finite(lse), 700), lse)


@wrong("The numbers of `lse` are lined up with the keys: it has one for each query, and needs a last axis of 1 before it is subtracted.")
def along_the_keys(q, k, lse):
    if lse.shape[-1] != k.shape[-2]:
        return _scores(q, k) - lse
    return np.exp(np.minimum(_scores(q, k) - np.where(np.isneginf(lse), 0, lse)[..., None, :], 700))


@wrong("The query that sees no key gets something that is not 0: score minus -∞ is +∞. Such a row has to be treated apart.")
def infinite_for_blind_queries(q, k, lse):
    with np.errstate(over="ignore"):
        return np.exp(_scores(q, k) - lse[..., None])


@wrong("The sign is the wrong way round: the larger a score, the smaller your weight.")
def sign(q, k, lse):
    return _exp(np.minimum(_finite(lse) - _scores(q, k), 700), lse)


@wrong("You forget to take the power: score − lse is the *logarithm* of the weight.")
def logarithm_of_the_weights(q, k, lse):
    return np.where(np.isneginf(lse)[..., None], 0, _scores(q, k) - _finite(lse))


@observe
def a_factor_per_row(case, got, want):
    sighted = (want > 0).all(axis=-1)
    if not np.isfinite(got).all() or not sighted.any() or (got[sighted] <= 0).any():
        return None
    ratio = got[sighted] / want[sighted]
    if np.allclose(ratio, ratio[..., :1], rtol=1e-6) and not np.allclose(ratio, 1):
        return f"In each row all weights are off by one factor, {ratio.flat[0]:.4g} in the first. What is subtracted inside the power is not the row's lse."
    return None


@observe
def rows_against_lse(case, got, want):
    if np.isfinite(got).all() and (got > 1 + 1e-9).any():
        return f"A weight of {got.max():.4g} is larger than 1: a share of the whole row cannot be."
    return None
